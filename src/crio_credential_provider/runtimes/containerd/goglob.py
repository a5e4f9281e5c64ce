"""Globs of imports as Go's ``filepath.Glob`` expands them; ``*`` takes hidden files as well.

>>> matches("/etc/containerd/conf.d/*.toml")
['/etc/containerd/conf.d/10-mirrors.toml']
"""

from __future__ import annotations

import os


def matches(pattern: str) -> list[str]:
    """The paths that match, sorted by name; a directory that cannot be read has none.

    Raises:
        ValueError: it is not a pattern.
    """
    for at in (at for at, letter in enumerate(pattern) if letter == "[" and pattern[at - 1 : at] != "\\"):
        _class(pattern[at:], "a")
    directory, _, name = pattern.rpartition("/")
    found = []
    for place in matches(directory) if _is_glob(directory) else [directory or "/"]:
        if not _is_glob(name):
            found += [os.path.join(place, name)] if os.path.lexists(os.path.join(place, name)) else []
            continue
        try:
            names = sorted(os.listdir(place), key=os.fsencode)
        except OSError:
            continue
        found += [os.path.join(place, entry) for entry in names if _is_match(entry, name)]
    return found


def _is_glob(text: str) -> bool:
    return any(c in text for c in "*?[\\")


def _is_match(name: str, pattern: str) -> bool:
    if not pattern:
        return not name
    first = pattern[0]
    if first == "*":
        rest = pattern.lstrip("*")
        return any(_is_match(name[start:], rest) for start in range(len(name) + 1))
    if first == "[":
        length, is_in = _class(pattern, name[:1])
        return bool(name) and is_in and _is_match(name[1:], pattern[length:])
    if first == "\\":
        pattern = pattern[1:]
        if not pattern:
            raise ValueError("syntax error in pattern")
        first = pattern[0]
    elif first == "?":
        first = name[:1]
    return bool(name) and name[0] == first and _is_match(name[1:], pattern[1:])


def _class(pattern: str, letter: str) -> tuple[int, bool]:
    """How long the ``[...]`` at the beginning is, and whether the letter is in it."""
    at = 2 if pattern[1:2] == "^" else 1
    start, found = at, False
    while at == start or pattern[at : at + 1] != "]":
        low, at = _letter(pattern, at)
        high = low
        if pattern[at : at + 1] == "-":
            high, at = _letter(pattern, at + 1)
        found = found or low <= letter <= high
    return at + 1, found == (start == 1)


def _letter(pattern: str, at: int) -> tuple[str, int]:
    if pattern[at : at + 1] in ("", "-", "]"):
        raise ValueError("syntax error in pattern")
    at += pattern[at] == "\\"
    if at + 1 >= len(pattern):
        raise ValueError("syntax error in pattern")
    return pattern[at], at + 1
