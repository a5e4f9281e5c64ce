"""JSON as this program writes it and tells of it, and keys as Go's decoders match them."""

from __future__ import annotations

import json

dumps = json.JSONEncoder(separators=(",", ":")).encode
"""Compact JSON in ASCII."""


def reason(error: Exception) -> str:
    """What is wrong with a document, without quoting it."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    return "nested too deeply" if isinstance(error, RecursionError) else "an invalid number or constant"


def fold(key: str) -> str:
    """A key as Go's TOML and JSON decoders match it: without regard to case, by Unicode's simple folding."""
    # Of the two letters outside ASCII that fold into it, lower() knows U+212A (k) and not U+017F (s).
    return key.replace("\u017f", "s").lower()
