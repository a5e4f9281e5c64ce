"""YAML, JSON and TOML with the line of everything in it, so that a finding can name the line.

YAML is taken as the kubelet takes it: the first document, YAML 1.1 scalars, a key twice is an error. Bounded against
what aliases can blow up.

>>> loads_yaml(b"kind: X\\nproviders:\\n- name: a\\n", "f").line("providers", 0, "name")
3
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import yaml

_MAX_VALUES = 100_000
"""Values that a document may have once its aliases are expanded."""

_MAX_DIGITS = 100
"""Of a number in YAML; Python would not write out one of 5,000."""

MAX_YAML = 256 * 1024
"""Bytes; PyYAML takes some 10 s for a MiB, and real files have some KiB."""


_MERGE = "tag:yaml.org,2002:merge"


class Syntax(Exception):
    """A document that cannot be parsed.

    Attributes:
        reason: what is wrong with it, in one clause.
        line: where, from 1; 0 where that is not known.
    """

    def __init__(self, reason: str, line: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


class Document(NamedTuple):
    """A parsed file.

    Attributes:
        file: its path.
        value: plain dictionaries, lists and scalars.
        lines: the line of each value by its path of keys and positions; of a key for what is in a mapping.
        second: the line on which a second YAML document begins, which is not read; 0 for none.
    """

    file: str
    value: Any
    lines: dict[tuple[str | int, ...], int]
    second: int = 0

    def line(self, *path: str | int) -> int:
        """The line of a value, or of the innermost thing around it that is there; 0 in an empty file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)


def loads_yaml(data: bytes, file: str) -> Document:
    """Parses YAML or JSON.

    Raises:
        Syntax: it is neither, or too large once its aliases are expanded.
    """
    # A BOM and CRLF are YAML's own affair; tabs between JSON's tokens are not, and the kubelet takes these.
    text = _decode(data)
    value = _json(text)
    if value is not None:
        text = text.replace("\t", " ")
    lines: dict[tuple[str | int, ...], int] = {}
    composed = _compose(text, lines)
    second = 0 if value is not None else _second(text)
    return Document(file, composed if value is None else value, lines, second)


def _second(text: str) -> int:
    """The line on which a second document begins, 0 for none."""
    is_within = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("---") and is_within:
            return number
        is_within = is_within or bool(line.strip() and not line.startswith(("#", "%", "---")))
    return 0


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise Syntax("it is UTF-16 text: save it as UTF-8", 1) from None
        raise Syntax("it is not UTF-8 text", data.count(b"\n", 0, error.start) + 1) from None


def _json(text: str) -> Any:
    """The value where the whole is JSON, by which the kubelet means text that begins with a brace; else None."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _compose(text: str, lines: dict[tuple[str | int, ...], int]) -> Any:
    import yaml

    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_node() if loader.check_node() else None
            return None if node is None else _Builder(loader, lines).build(node, ())
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or "it has characters that YAML does not allow"
        if "expected <block end>" in str(reason):
            reason = f"{reason}: check that it is indented like the lines above it"
        elif "'\\t'" in str(reason):
            reason = f"{reason}: replace the tab with spaces"
        raise Syntax(str(reason), mark.line + 1 if mark is not None else 0) from None
    except RecursionError:
        raise Syntax("it is nested too deeply") from None
    except ValueError as error:
        raise Syntax(f"it has an invalid value: {error}") from None


class _Builder:
    """Makes plain values of YAML nodes and notes where they stand."""

    def __init__(self, loader: yaml.SafeLoader, lines: dict[tuple[str | int, ...], int]) -> None:
        self._loader = loader
        self._lines = lines
        self._left = _MAX_VALUES

    def build(self, node: Any, path: tuple[str | int, ...]) -> Any:
        import yaml

        self._left -= 1
        if self._left < 0:
            raise Syntax("its aliases expand to too many values", node.start_mark.line + 1)
        self._lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, position)) for position, item in enumerate(node.value)]
        # A date stays the text that it is in JSON.
        if node.tag == "tag:yaml.org,2002:timestamp":
            return node.value
        if node.tag == "tag:yaml.org,2002:int" and len(node.value) > _MAX_DIGITS:
            raise Syntax(f"a number of {len(node.value)} digits", node.start_mark.line + 1)
        return self._loader.construct_object(node)

    def _mapping(self, node: Any, path: tuple[str | int, ...]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        merged: list[Any] = []
        for key, value in node.value:
            if key.tag == _MERGE:
                merged.append(value)
                continue
            if not isinstance(key.value, str):
                raise Syntax("a key is not a string", key.start_mark.line + 1)
            if key.value in made:
                raise Syntax(f"duplicate key {key.value!r}", key.start_mark.line + 1)
            self._lines[*path, key.value] = key.start_mark.line + 1
            made[key.value] = self.build(value, (*path, key.value))
        for value in merged:
            # Not by PyYAML, which copies what is merged once for each time it is.
            found = self.build(value, path)
            for mapping in found if isinstance(found, list) else [found]:
                if not isinstance(mapping, dict):
                    raise Syntax("what is merged with << is not a mapping", value.start_mark.line + 1)
                made = {**mapping, **made}
        return made


# -- TOML -------------------------------------------------------------------------------------------------------------

_HEADER = re.compile(r"\s*\[(\[?)\s*([^\]]+?)\s*\]")


def toml_line(text: str, table: str, key: str, value: str = "") -> int:
    """The last line of a TOML text on which a table sets a key, 0 where none does.

    Args:
        table: with its dots, "" for the top, ``registry.mirror`` for each ``[[registry.mirror]]``.
        value: only where the line holds it.
    """
    found, here = 0, ""
    name = re.compile(rf"""\s*["']?{re.escape(key)}["']?\s*=""", re.IGNORECASE)
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header:
            here = re.sub(r"""[\s"']""", "", header[2])
        elif here == table and name.match(line) and value in line:
            found = number
    return found


def toml_value_line(text: str, key: str, value: str) -> int:
    """The first line that sets a key to a text, in whatever table or form; 0 where none does."""
    name, wanted = re.escape(key), re.escape(value)
    setting = re.compile(rf"""(?:^|[\s{{,])["']?{name}["']?\s*=\s*(["']){wanted}/*\1""", re.IGNORECASE)
    return next((number for number, line in enumerate(text.splitlines(), 1) if setting.search(line)), 0)
