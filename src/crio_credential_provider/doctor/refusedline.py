"""The line of registries.conf that a refusal of ``registries`` is about: it names tables by number, and values."""

from __future__ import annotations

import re

from .located import toml_header_line

_KEYS = (
    *("prefix", "location", "insecure", "blocked", "mirror-by-digest-only", "pull-from-mirror", "short-name-mode"),
    *("unqualified-search-registries", "credential-helpers", "aliases", "registries", "registry"),
)


def find_line(text: str, message: str) -> int:
    """The line, 0 where the message does not tell."""
    syntax = re.search(r"\(?at line (\d+)", message)
    if syntax:
        return int(syntax[1])
    tables = re.findall(r"\[\[registry\]\] number (\d+)", message)
    # Of two tables that disagree the second is the one too many.
    start = toml_header_line(text, "registry", int(tables[-1])) if tables else 1
    mirror = re.search(r"mirror number (\d+)", message)
    lines = text.splitlines()
    if mirror:
        seen = 0
        for number in range(start, len(lines)):
            seen += bool(re.match(r"\s*\[\[\s*registry\s*\.\s*mirror\s*\]\]", lines[number]))
            if seen == int(mirror[1]):
                start = number + 1
                break
    return _line_of_key(lines, start, message, tables) or (start if tables else _line_of_value(lines, message))


def _line_of_key(lines: list[str], start: int, message: str, tables: list[str]) -> int:
    """The line below the table's header that sets the key of which the message speaks."""
    rest = message.rpartition("number")[2] if tables else message
    values = re.findall(r"'([^']+)'", rest)
    keys = [key for key in _KEYS if re.search(rf"\b{re.escape(key)}\b", rest)]
    if re.search(r"has neither|has no location", rest):
        return start
    best = 0
    for number in range(start, len(lines) + 1):
        line = lines[number - 1]
        if tables and number > start and re.match(r"\s*\[", line):
            break
        name = re.match(r"""\s*["']?([\w-]+)["']?\s*=""", line)
        if name and name[1].lower() in keys:
            if any(value in line for value in values):
                return number
            best = best or number
    return best


def _line_of_value(lines: list[str], message: str) -> int:
    """The line that holds a value which the message quotes, or the table that it names."""
    for value in re.findall(r"'([^']+)'", message):
        for number, line in enumerate(lines, 1):
            if value in line:
                return number
    if "version 1 format" in message:
        found = (number for number, line in enumerate(lines, 1) if re.match(r"\s*\[registries\b", line))
        return next(found, 0)
    return 0
