"""Errors by fault: whose mistake it is decides the class, and so who has to act.

A ``ProviderError`` is told to a person in one line: what failed, then what to do. Whatever else is raised is a bug.
Text that came from a secret or a token is never part of an error.
"""

from __future__ import annotations

_LONGEST_WORD = 320
"""Characters; an image's name, quoted, is shorter."""


def shorten(text: str) -> str:
    """A message with its longest words cut: what it quotes comes from outside, and may be a port of 5,000 digits."""
    if len(text) <= _LONGEST_WORD:
        return text
    words = text.split(" ")
    return " ".join(
        word if len(word) <= _LONGEST_WORD else f"{word[:80]}... ({len(word)} characters)" for word in words
    )


class ProviderError(Exception):
    """A fault that a person can correct.

    Args:
        message: what failed, in one clause, with the file, the host or the object it concerns.
        hint: what to do about it; empty where the message says it all.
    """

    fault = "unknown"
    code = ""
    """A stable word for what failed, beside the fault: of few, for machines."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = shorten(message)
        self.hint = shorten(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UsageError(ProviderError):
    """The command line or the environment: an unknown flag, a value that cannot be.

    Args:
        message, hint: as in ``ProviderError``.
        unknown: the word that is not a flag, for finding the one that was meant.
    """

    fault = "usage"

    def __init__(self, message: str, hint: str = "", *, unknown: str = "") -> None:
        super().__init__(message, hint)
        self.unknown = unknown


class RequestError(ProviderError):
    """The kubelet's message: not a CredentialProviderRequest v1, or an invalid token."""

    fault = "request"


class ConfigError(ProviderError):
    """A file of the operator: registries.conf, a drop-in, the kubeconfig, the global auth file.

    Args:
        message, hint: as in ``ProviderError``.
        rule: the rule that was broken, one of the classes of the conformance vectors
            (``toml-syntax``, ``conflicting-blocked``, ``io``, ...), for programs.
        line: of the file, as the message has it; 0 where it is not known.
        consequence: what comes of it beside the failure of this run.
    """

    fault = "config"

    def __init__(self, message: str, hint: str = "", *, rule: str = "", line: int = 0, consequence: str = "") -> None:
        super().__init__(message, hint)
        self.rule = self.code = rule
        self.line = line
        self.consequence = consequence

    def __str__(self) -> str:
        return "; ".join(part for part in (self.message, self.consequence, self.hint) if part)


class ClusterError(ProviderError):
    """The API server: away, not the one it should be, or it says no.

    Args:
        message, hint: as in ``ProviderError``.
        status: the HTTP status, 0 where there was no answer.
    """

    fault = "cluster"

    def __init__(self, message: str, hint: str = "", *, status: int = 0) -> None:
        super().__init__(message, hint)
        self.status = status
        self.code = f"http-{status}" if status else "no-answer"


class AuthFileError(ProviderError):
    """The auth directory: missing rights, no space, a directory that others can write to."""

    fault = "auth-file"


def shown(text: str) -> str:
    r"""The text with bytes that are not UTF-8 as a shell writes them, ``\xff``; Python has them as ``\udcff``."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\\udc", "\\x")


SCHEMES = ("http", "https", "docker", "oci", "ftp", "tcp")
"""What may stand before ``://`` without being part of a password."""

_DIGESTS = ("sha256", "sha384", "sha512")


def masked(text: str) -> str:
    """What an operator wrote for a place, as it may be told: without user and password, and without a query.

    >>> masked("https://robot:password@mirror.corp/hub"), masked("robot:pass/word@mirror.corp")
    ('https://***@mirror.corp/hub', '***@mirror.corp')
    """
    rest, at, end = text.rpartition("@")
    algorithm, _, digits = end.partition(":")
    is_digest = at and algorithm in _DIGESTS and len(digits) >= 32 and not digits.strip("0123456789abcdef")
    rest, end = (rest, f"@{end}") if is_digest else (text, "")
    _, at, place = rest.rpartition("@")
    place, query, _ = place.partition("?")
    scheme = rest.partition("://")[0]
    start = f"{scheme}://" if at and scheme.lower() in SCHEMES else ""
    return f"{start}{'***@' if at else ''}{place}{'?...' if query else ''}{end}"
