"""The line of every table and key of a TOML text, for what is told of a document that the parser has taken.

Loaded by faults and by tools alone. Of a text that is not TOML it finds what comes before the fault.

>>> find_lines('[[registry]]\\nmirror = [\\n  {location = "a"}]')["registry", 0, "mirror", 0, "location"]
3
"""

from __future__ import annotations

from .jsontext import fold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    Path = tuple[str | int, ...]


def find_lines(text: str, folded: Callable[[str], str] = fold) -> dict[Path, int]:
    """Lines from 1 by the path of keys, folded as CRI-O's parser folds them, and positions; the first where a path
    comes twice."""
    return _scanned(text, folded).lines


def find_headers(text: str) -> list[list[str]]:
    """The keys of every ``[table]`` header in the order of the text, as they stand, escapes included; without those of
    ``[[array]]``.

    >>> find_headers('[host."https://a"]\\n[[b]]\\n[host."https://a".header]')
    [['host', 'https://a'], ['host', 'https://a', 'header']]
    """
    return _scanned(text, str).headers


def find_newer(text: str) -> int:
    """The line of the first thing that TOML has since 1.1: an inline table over several lines or with a comma at its
    end, or a ``\\x`` in a string; 0 for none."""
    return _scanned(text, str).newer


def _scanned(text: str, folded: Callable[[str], str]) -> _Scanner:
    scanner = _Scanner(text, folded)
    try:
        scanner.scan()
    except (IndexError, RecursionError):
        return scanner


class _Scanner:
    def __init__(self, text: str, folded: Callable[[str], str]) -> None:
        self._fold = folded
        # IndexError at the end, and no comment after it.
        self._text = text.removeprefix("\ufeff").replace("\r\n", "\n") + "\n"
        self._at = 0
        self._line, self._counted = 1, 0
        self._tables: dict[Path, int] = {}
        self.lines: dict[Path, int] = {}
        self.headers: list[list[str]] = []
        self.newer = 0

    def scan(self) -> NoReturn:
        """Every statement, a header or a key with its value, up to the IndexError at the end of the text."""
        table: Path = ()
        while True:
            self._skip(" \t\n")
            if self._text[self._at] == "[":
                is_array = self._text.startswith("[[", self._at)
                self._at += 2 if is_array else 1
                keys = self._keys()
                if not is_array:
                    self.headers.append(keys)
                table = self._header(keys, is_array)
                self._note(table)
                self._at = self._text.index("\n", self._at)
            else:
                self._setting(table)

    def _header(self, keys: list[str], is_array: bool) -> Path:
        path: Path = ()
        for number, key in enumerate(keys, 1):
            path += (key,)
            if is_array and number == len(keys):
                self._tables[path] = self._tables.get(path, -1) + 1
            if path in self._tables:
                path += (self._tables[path],)
        return path

    def _note(self, path: Path) -> None:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        self.lines.setdefault(path, self._line)

    def _note_newer(self, at: int) -> None:
        self.newer = self.newer or self._text.count("\n", 0, at) + 1

    def _skip(self, blanks: str) -> None:
        while True:
            if self._text[self._at] in blanks:
                self._at += 1
            elif self._text[self._at] == "#":
                self._at = self._text.index("\n", self._at)
            else:
                return

    def _keys(self) -> list[str]:
        """A dotted key."""
        keys = []
        while True:
            self._skip(" \t")
            start = self._at
            if self._text[start] in "\"'":
                self._string()
                keys.append(self._fold(self._text[start + 1 : self._at - 1]))
            else:
                while self._text[self._at] not in " \t\n.=]":
                    self._at += 1
                keys.append(self._fold(self._text[start : self._at]))
            self._skip(" \t")
            if self._text[self._at] != ".":
                return keys
            self._at += 1

    def _setting(self, table: Path) -> None:
        path = (*table, *self._keys())
        if self._text[self._at] != "=":
            raise IndexError
        self._note(path)
        self._at += 1
        self._skip(" \t")
        self._value(path)

    def _value(self, path: Path) -> None:
        opened = self._text[self._at]
        start = self._at
        if opened in "\"'":
            self._string()
        elif opened in "[{":
            self._at += 1
            self._skip(" \t\n,")
            number, last = 0, self._at
            while self._text[self._at] not in "]}":
                if opened == "{":
                    self._setting(path)
                else:
                    self._note((*path, number))
                    self._value((*path, number))
                    number += 1
                last = self._at
                self._skip(" \t\n,")
            self._at += 1
            if opened == "{" and ("\n" in self._text[start : self._at] or "," in self._text[last : self._at]):
                self._note_newer(start)
        else:
            while self._text[self._at] not in ",]}\n#":
                self._at += 1

    def _string(self) -> None:
        quote, start = self._text[self._at], self._at
        end = quote * 3 if self._text.startswith(quote * 3, self._at) else quote
        self._at += len(end)
        while not self._text.startswith(end, self._at):
            self._at += 2 if quote == '"' and self._text[self._at] == "\\" else 1
            if self._at >= len(self._text):
                raise IndexError
        self._at += len(end)
        if quote == '"' and "\\x" in self._text[start : self._at].replace("\\\\", ""):
            self._note_newer(start)
        # A string of three quotes may end in one or two more.
        while len(end) == 3 and self._text[self._at] == quote:
            self._at += 1
