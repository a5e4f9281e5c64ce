"""Image references: the grammar, normalising, and nothing about registries.

Knows what the distribution project's reference package (as containers/image vendors it) accepts and how it normalises:
``nginx`` is ``docker.io/library/nginx``. Written without regular expressions: compiling them costs more than a run
needs, and the original's pattern takes exponential time with a backtracking engine.

>>> parse("nginx:1.27").name
'docker.io/library/nginx'
>>> parse("harbor.corp:5000/hub/app").domain
'harbor.corp:5000'
"""

from __future__ import annotations

from ..errors import ProviderError, masked
from ..platform.record import Record

# Letters that are allowed: a text is made of them if nothing is left of it after strip().
_DIGITS = "0123456789"
_LOWER_ALNUM = _DIGITS + "abcdefghijklmnopqrstuvwxyz"
_ALNUM = _LOWER_ALNUM + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LABEL = _ALNUM + "-"
_WORD = _ALNUM + "_"
_TAG = _WORD + ".-"
_HEX = _DIGITS + "abcdef"

_MAX_NAME = 255
"""Bytes in a repository name, domain included (distribution: NameTotalLengthMax)."""
_MAX_TAG = 128
_MAX_SHOWN = 300
_DIGEST_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}


class ReferenceSyntaxError(ProviderError):
    """A text that is not an image reference."""

    fault = "reference"


class Reference(Record):
    """A parsed reference.

    Attributes:
        domain: host with optional port; ``""`` for a name that was not normalised, and for one whose host is none by
            the grammar while the whole is a valid path: ``hub_cache.corp/app``, where CRI-O can connect to nobody.
        path: the repository below the domain.
        tag, digest: ``""`` where there is none.
    """

    __slots__ = ("digest", "domain", "path", "tag")

    def __init__(self, domain: str, path: str, tag: str = "", digest: str = "") -> None:
        self.domain = domain
        self.path = path
        self.tag = tag
        self.digest = digest

    @property
    def name(self) -> str:
        """The repository: domain and path, without tag and digest; the key of CRI-O's look-ups."""
        return f"{self.domain}/{self.path}" if self.domain else self.path

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference:
    """Parses and normalises a reference as a person writes it.

    Returns:
        The reference with its domain spelled out: ``docker.io`` where none was given, ``library/`` added there. Without
        a domain where the host is none by the grammar and the whole is a path, as it stands.

    Raises:
        ReferenceSyntaxError: the text is not a reference, or a bare 64-digit identifier.
    """
    if len(text) == 64 and not text.strip(_HEX):
        raise ReferenceSyntaxError(f"{_shown(text)} is an image ID, not a name")
    domain, slash, rest = text.partition("/")
    if not slash or not is_registry_host(domain):
        domain, rest = "docker.io", text
    if domain == "index.docker.io":
        domain = "docker.io"
    if domain == "docker.io" and "/" not in rest:
        rest = f"library/{rest}"
    remote = rest.partition(":")[0]
    if remote.lower() != remote:
        raise ReferenceSyntaxError(f"the repository in {_shown(text)} must be lower case")
    return parse_literal(f"{domain}/{rest}")


def as_pulled(image: Reference) -> Reference:
    """What CRI-O pulls for a reference: ``:latest`` without tag and digest, and without its tag beside a digest.

    Source: CRI-O's RegistryImageReferenceFromRaw.
    """
    if image.digest:
        return Reference(image.domain, image.path, digest=image.digest)
    return image if image.tag else Reference(image.domain, image.path, tag="latest")


def parse_literal(text: str) -> Reference:
    """Parses a reference as it stands, without normalising: the domain may be missing.

    Raises:
        ReferenceSyntaxError: the text is not a reference.
    """
    rest, at, digest = text.partition("@")
    if at and not _is_digest(digest):
        raise ReferenceSyntaxError(f"{_shown(text)} has no valid digest after the @")
    name, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        name, tag = rest, ""
    elif not _is_tag(tag):
        raise ReferenceSyntaxError(f"{_shown(text)} has no valid tag after the colon")
    domain, path = _split_name(name)
    if not path:
        raise ReferenceSyntaxError(f"{_shown(text)} is not an image reference")
    if len(name) > _MAX_NAME:
        raise ReferenceSyntaxError(f"the repository name in {_shown(text)} is longer than {_MAX_NAME} bytes")
    return Reference(domain, path, tag, digest)


def _shown(text: str) -> str:
    """A text in an error, cut where no reference would fit any more."""
    text = masked(text)
    return repr(text) if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]!r}..."


def is_registry_host(text: str) -> bool:
    """Whether the first component of a name is a registry and not a path on Docker Hub."""
    return "." in text or ":" in text or text == "localhost"


def is_domain(text: str) -> bool:
    """Whether the text is a host with an optional port by the grammar; IPv6 addresses are not."""
    host, colon, port = text.partition(":")
    if colon and (not port or port.strip(_DIGITS)):
        return False
    return all(_is_label(label) for label in host.split("."))


def is_path(text: str) -> bool:
    """Whether the text is a repository path: components, separated by single slashes."""
    return all(_is_component(component) for component in text.split("/"))


def _split_name(name: str) -> tuple[str, str]:
    """Domain and path; ("", "") for a text that is not a name."""
    domain, slash, path = name.partition("/")
    if slash and is_domain(domain) and is_path(path):
        return domain, path
    return ("", name) if is_path(name) else ("", "")


def _is_label(text: str) -> bool:
    return bool(text) and not text.strip(_LABEL) and text[0] != "-" and text[-1] != "-"


def _is_component(text: str) -> bool:
    """Runs of lower-case letters and digits; between two of them one of ``.``, ``_``, ``__`` or any number of ``-``."""
    if not text or text[0] not in _LOWER_ALNUM or text[-1] not in _LOWER_ALNUM:
        return False
    if not text.strip(_LOWER_ALNUM):
        return True
    separator = ""
    for character in text:
        if character not in _LOWER_ALNUM:
            separator += character
        elif separator:
            if separator not in (".", "_", "__") and separator.strip("-"):
                return False
            separator = ""
    return True


def _is_tag(text: str) -> bool:
    return 0 < len(text) <= _MAX_TAG and text[0] in _WORD and not text.strip(_TAG)


def _is_digest(text: str) -> bool:
    algorithm, _, digits = text.partition(":")
    return _DIGEST_LENGTHS.get(algorithm) == len(digits) and not digits.strip(_HEX)
