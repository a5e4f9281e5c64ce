"""Passwords that no log may have, and what a token looks like."""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

# Three parts of base64 with dots between them, as the token of a service account is sent.
_TOKEN = re.compile(rb"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{20,}")


class Canary:
    def __init__(self) -> None:
        self._forms: list[bytes] = []
        self._searched: dict[Path, int] = {}

    def new_password(self) -> str:
        password = secrets.token_hex(16)
        self._forms += _forms(password)
        return password

    def search(self, logs: Path) -> list[str]:
        """What was found in the files of a directory, in what was appended to each since the last search."""
        return [found for log in sorted(logs.iterdir()) for found in self._search(log)]

    def _search(self, log: Path) -> Iterator[str]:
        with log.open("rb") as file:
            file.seek(self._searched.get(log, 0))
            text = file.read()
            self._searched[log] = file.tell()
        if any(form in text for form in self._forms):
            yield f"a password in {log.name}"
        if _TOKEN.search(text):
            yield f"a token in {log.name}"


def _forms(password: str) -> list[bytes]:
    """As it is, and the part of its base64 that does not depend on the user name before it."""
    encoded = (base64.b64encode(b"x" * shift + password.encode()) for shift in range(3))
    return [password.encode(), *(text[4:-4] for text in encoded)]
