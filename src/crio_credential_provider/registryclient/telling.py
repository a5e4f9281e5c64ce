"""What may be told of a registry's words and of URLs: nothing that holds a piece of the credential or of a token."""

from __future__ import annotations

import base64
import urllib.parse
from typing import TYPE_CHECKING

from .wire import Answer, Url

if TYPE_CHECKING:
    from ..images.dockerconfig import Credential

_MAX_TOLD = 200
"""Characters of a registry's own words."""

_PIECE = 8
"""Characters of a secret that may not stand together in a text."""


class Telling:
    """Knows the secrets of one conversation.

    Attributes:
        ours: URLs that were ours before the registry said anything, which may be told whatever they seem to hold.
    """

    def __init__(self, credential: Credential | None) -> None:
        self.ours: set[str] = set()
        self._credential = credential
        self._secrets = _secrets(credential)

    def hide(self, token: str) -> None:
        """Adds a secret."""
        self._secrets.update(_windows(token))

    def told(self, text: str | None) -> str:
        """What a registry said, for people: short, printable, without a piece of the credential; else ""."""
        text = (text or "").strip()
        username = self._credential.username.decode(errors="replace") if self._credential else ""
        names_user = bool(username) and username.lower() in text.lower()
        return "" if len(text) > _MAX_TOLD or not text.isprintable() or names_user or self._quotes(text) else text

    def _quotes(self, text: str) -> bool:
        """Whether a text holds a piece of a password or token, as it is or percent-encoded."""
        texts = (text.lower(), urllib.parse.unquote_plus(text).lower())
        return any(piece in spelling for piece in self._secrets for spelling in texts)

    def shown(self, url: Url) -> str:
        """A URL without its query. What the registry sent us to must not repeat the credential; our own may seem to."""
        is_ours = url.shown in self.ours
        return url.shown if is_ours or not self._quotes(url.shown) else f"{url.scheme}://(not shown)"

    def words(self, answer: Answer) -> str:
        """`` (CODE: message)`` of the errors that the distribution API and token services answer with."""
        document = answer.json()
        if not isinstance(document, dict):
            return ""
        errors = document.get("errors")
        first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else document
        parts = [first.get(name) for name in ("code", "message", "details", "error_description")]
        text = self.told(": ".join(part for part in parts if isinstance(part, str) and part))
        return f" ({text})" if text else ""


def userpass(credential: Credential | None) -> bytes:
    """What Basic authentication encodes."""
    return credential.username + b":" + credential.password if credential else b":"


def _secrets(credential: Credential | None) -> set[str]:
    """The pieces of what must not be told."""
    if credential is None:
        return set()
    password = credential.password.decode(errors="replace")
    encoded = base64.b64encode(userpass(credential)).decode().rstrip("=")
    return {piece for text in (password, credential.identity_token, encoded) for piece in _windows(text)}


def _windows(secret: str) -> set[str]:
    """Every part of a secret that is long enough to give it away, in lower case."""
    secret = secret.lower()
    return {secret[start : start + _PIECE] for start in range(max(1, len(secret) - _PIECE + 1))} if secret else set()
