"""Files that a flag names, read with a bound."""

from __future__ import annotations

import sys
from typing import BinaryIO

from ...errors import UsageError

MAX_SIZE = 4 * 1024 * 1024
"""Bytes of a file, where nothing else is said."""


def read(path: str, flag: str, limit: int = MAX_SIZE) -> bytes:
    """A file that a flag names."""
    try:
        with open(path, "rb") as file:
            return _bounded(file, path, flag, limit)
    except OSError as error:
        raise UsageError(f"{flag}: cannot read {path}: {error.strerror}") from None


def read_or_stdin(path: str, flag: str, limit: int) -> bytes:
    """The same, where - means standard input."""
    if path != "-":
        return read(path, flag, limit)
    if sys.stdin is None:
        raise UsageError(f"{flag}: standard input is closed")
    try:
        return _bounded(sys.stdin.buffer, "standard input", flag, limit)
    except OSError as error:
        raise UsageError(f"{flag}: cannot read standard input: {error.strerror}") from None


def _bounded(file: BinaryIO, name: str, flag: str, limit: int) -> bytes:
    data = file.read(limit + 1)
    if len(data) > limit:
        raise UsageError(f"{flag}: {name} is larger than {limit >> 20} MiB")
    return data
