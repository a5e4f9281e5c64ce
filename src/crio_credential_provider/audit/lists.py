"""Files of ``kubectl get ... -o json``, read item by item: one item at a time is held, however large the file.

Takes lists (``List``, ``PodList``), single objects, and several of either in one file, such as an object on each line.
No error quotes what a file holds.

    for found in load("pods.json"):
        print(found["kind"])
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from ..errors import UsageError
from .workloads import Object, member, text

_CHUNK = 1 << 20
"""Characters that are read at a time."""
_LONGEST = 64 << 20
"""Characters of one item; the API server keeps objects of at most 1.5 MB, and writes them out a few times as long."""

_SPACE = " \t\r\n"
_DEEPEST = 100
"""Levels that are read of what json does not read: no field that counts lies as deep."""
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|["\[\]{}]', re.DOTALL)


def load(path: str, member: str = "items") -> Iterator[Object]:
    """The objects of a file; ``-`` is standard input.

    Args:
        member: of a list, where its objects are.

    Raises:
        UsageError: not such a file.
    """
    name = "standard input" if path == "-" else path
    try:
        if path == "-":
            if sys.stdin is None:
                raise UsageError("standard input is closed")
            # Another object than sys.stdin, whose encoding is the terminal's.
            with open(sys.stdin.fileno(), encoding="utf-8-sig", closefd=False) as file:
                yield from _Reader(file, name, member).objects()
        else:
            with open(path, encoding="utf-8-sig") as file:
                yield from _Reader(file, name, member).objects()
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        if error.object.startswith(b"\x1f\x8b"):
            raise UsageError(f"{name} is compressed with gzip", "unpack it with gunzip") from None
        raise UsageError(f"{name} is not UTF-8", "write it with kubectl get -o json") from None


def shallow(text: str, at: int) -> tuple[Any, int]:
    """A list or object that is nested too deeply for json, and where it ends: what lies deeper is null.

    The API server takes any object with 10,000 levels in its managedFields, and one must not keep the others from being
    read.

    Raises:
        ValueError: not JSON, or its end is not there.
    """
    pieces, depth = [], 0
    for token in _TOKEN.finditer(text, at):
        if token[0] in ("[", "{"):
            depth += 1
            if depth == _DEEPEST:
                pieces.append(f"{text[at : token.start()]}null")
        elif token[0] in ("]", "}"):
            if depth == _DEEPEST:
                at = token.end()
            depth -= 1
            if not depth:
                return json.loads("".join((*pieces, text[at : token.end()]))), token.end()
        elif token[0] == '"':
            # A string without its end, whose brackets are none.
            break
    raise ValueError


class _Reader:
    """A window that moves over a file."""

    def __init__(self, file: TextIO, name: str, member: str) -> None:
        self._file = file
        self._name = name
        self._member = member
        # Python has no int of 5,000 digits.
        self._decoder = json.JSONDecoder(parse_int=float)
        self._text = ""
        self._at = 0
        self._read = 0
        self._is_whole = False

    def objects(self) -> Iterator[Object]:
        while self._next():
            self._expect("{")
            yield from self._document()
        if not self._read:
            raise UsageError(
                f"{self._name} is empty: kubectl wrote nothing to it",
                "run it again and read its error on stderr, such as Forbidden",
            )

    def _document(self) -> Iterator[Object]:
        """The items of a list, or the object itself. What stands before and after the items is small."""
        members: Object = {}
        is_list = False
        while self._next() != "}":
            if members or is_list:
                self._expect(",")
            name = self._value()
            self._expect(":")
            if name == self._member and self._next() == "[":
                is_list = True
                # Items of a typed list (PodList) do not say what they are, and the API server puts its kind first.
                kind = str(members.get("kind", "")).removesuffix("List")
                yield from ({"kind": kind, **item} if "kind" not in item else item for item in self._items())
            else:
                members[str(name)] = self._value()
        self._expect("}")
        if not is_list:
            yield members
        elif text(member(members, "metadata"), "continue"):
            raise UsageError(
                f"{self._name} has one page of a longer list: metadata.continue is set",
                "write it again with kubectl get -o json, which writes the whole list",
            )

    def _items(self) -> Iterator[Object]:
        self._expect("[")
        is_first = True
        while self._next() != "]":
            if not is_first:
                self._expect(",")
            is_first = False
            item = self._value()
            if isinstance(item, dict):
                yield item
        self._expect("]")

    def _next(self) -> str:
        """The next character that is not white space, "" at the end."""
        while True:
            text, at = self._text, self._at
            while at < len(text) and text[at] in _SPACE:
                at += 1
            self._at = at
            if at < len(text) or not self._more():
                return text[at : at + 1]

    def _expect(self, character: str) -> None:
        if self._next() != character:
            raise self._malformed()
        self._at += 1

    def _value(self) -> Any:
        """A whole value. What stops at the window's end may go on behind it."""
        self._next()
        while True:
            try:
                try:
                    value, end = self._decoder.raw_decode(self._text, self._at)
                except RecursionError:
                    value, end = shallow(self._text, self._at)
                if end < len(self._text) or not self._more():
                    self._at = end
                    return value
            except ValueError:
                if len(self._text) - self._at > _LONGEST or not self._more():
                    raise self._malformed() from None

    def _more(self) -> bool:
        """Moves the window on; reads as much again as it holds, so that a long item is not begun too often."""
        if self._is_whole:
            return False
        left = self._text[self._at :]
        further = self._file.read(max(_CHUNK, len(left)))
        self._is_whole = not further
        self._read += len(further)
        self._text, self._at = left + further, 0
        return bool(further)

    def _malformed(self) -> UsageError:
        if self._read == len(self._text) and re.match(r"---\s|(apiVersion|kind|items): ?|- ", self._text):
            return UsageError(f"{self._name} looks like YAML", "write it with -o json")
        place = self._read - len(self._text) + self._at
        return UsageError(
            f"{self._name} is not JSON as kubectl get -o json writes it, from character {place} on",
            "write it again with -o json",
        )
