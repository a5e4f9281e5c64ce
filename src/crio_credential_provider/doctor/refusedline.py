"""The line of registries.conf that a refusal of ``registries`` is about: it names tables by number, keys and values."""

from __future__ import annotations

import re
from collections.abc import Iterable

_KEYS = (
    *("prefix", "location", "insecure", "blocked", "mirror-by-digest-only", "pull-from-mirror", "short-name-mode"),
    *("unqualified-search-registries", "credential-helpers", "additional-layer-store-auth-helper"),
)
_TABLE = re.compile(r"\s*\[\[\s*registry\s*\]\]")
_MIRROR = re.compile(r"\s*\[\[\s*registry\s*\.\s*mirror\s*\]\]")
_HEADER = re.compile(r"\s*\[")
_SETTING = re.compile(r"""(?:^|[\s{,])["']?([\w-]+)["']?\s*=\s*([^,}]*)""")


def find_line(text: str, message: str) -> int:
    """The line from 1, 0 where the message does not tell."""
    syntax = re.search(r"\(?at line (\d+)", message)
    if syntax:
        return int(syntax[1])
    lines = text.splitlines()
    if "version 1 format" in message:
        return _first(lines, range(len(lines)), r"\s*\[\s*registries\b")
    kind = re.search(r"\b(registry|registries|mirror)(?:\.\w+)? must be (?:a table|an array of tables)", message)
    where, is_table = _range(lines, message)
    if kind:
        return _first(lines, where, rf"\s*\[+\s*(?:registry\s*\.\s*)?{kind[1]}\b|\s*{kind[1]}\s*=")
    if re.search(r"has neither|has no location", message):
        return where.start + 1
    found = _line_of_key(lines, where, message) or _line_of_value(lines, where, message)
    return found or (where.start + 1 if is_table else 0)


def _range(lines: list[str], message: str) -> tuple[range, bool]:
    """The lines of the table that a message names, or all; and whether it names one."""
    tables = re.findall(r"\[\[registry\]\] number (\d+)", message)
    if not tables:
        return range(len(lines)), False
    # Of two tables that disagree the second is the one too many.
    where = _numbered(lines, range(len(lines)), _TABLE, _TABLE, int(tables[-1]))
    mirror = re.search(r"mirror number (\d+)", message)
    return (_numbered(lines, where, _MIRROR, _HEADER, int(mirror[1])) if mirror else where), True


def _numbered(
    lines: list[str], where: range, header: re.Pattern[str], following: re.Pattern[str], number: int
) -> range:
    """From the header that comes as ``number`` to the one after it."""
    starts = [at for at in where if header.match(lines[at])]
    if number > len(starts):
        return where
    start = starts[number - 1]
    return range(start, next((at for at in where if at > start and following.match(lines[at])), where.stop))


def _first(lines: list[str], where: Iterable[int], pattern: str) -> int:
    return next((at + 1 for at in where if re.match(pattern, lines[at])), 0)


def _line_of_key(lines: list[str], where: range, message: str) -> int:
    """The line that sets the key of which the message speaks: to the value that it quotes, or of the wrong type."""
    keys = [key for key in _KEYS if re.search(rf"(?<![\w-]){re.escape(key)}(?![\w-])", _complaint(message))]
    values = re.findall(r"'([^']*)'", _complaint(message))
    settings = [(at + 1, match) for at in where for match in _SETTING.finditer(lines[at])]
    found = [(at, match[2]) for at, match in settings if match[1].lower() in keys]
    if "must be true or false" in message:
        found = [(at, value) for at, value in found if not re.match(r"(true|false)\b", value)] or found
    elif "must be a string" in message:
        found = [(at, value) for at, value in found if value[:1] not in ('"', "'")] or found
    quoted = [at for at, value in found if any(text in value for text in values)]
    if values and not quoted:
        # Another form of the table, such as one within a line.
        return _line_of_value(lines, where, message) or (found[0][0] if found else 0)
    return quoted[0] if quoted else found[0][0] if found else 0


def _complaint(message: str) -> str:
    """What is said of a table, without its name, which quotes its prefix."""
    return re.split(r"number \d+(?: \(prefix '[^']*'\))?", message)[-1]


def _line_of_value(lines: list[str], where: range, message: str) -> int:
    values = [value for value in re.findall(r"'([^']+)'", _complaint(message)) if value]
    return next((at + 1 for at in where if any(value in lines[at] for value in values)), 0)
