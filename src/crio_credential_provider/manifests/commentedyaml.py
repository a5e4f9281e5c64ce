"""A YAML text written anew with another value: comments, order, quotes and anchors stay, white space may not.

Knows ruamel.yaml and where that keeps comments: with the value that they stand behind. Whether the text is right is for
the caller to see, who reads it again: ruamel.yaml loses comments within ``{}`` and ``[]``.
"""

from __future__ import annotations

import difflib
import io
import json
import re
from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import CommentMark
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.resolver import VersionedResolver
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, PlainScalarString
from ruamel.yaml.tokens import CommentToken

from . import layout


def rewrite(
    text: str, old: dict[str, Any], new: dict[str, Any], heading: tuple[tuple[str | int, ...], list[str]]
) -> str:
    """The text with another value.

    Args:
        old: what the text says.
        new: what it is to say.
        heading: the path of a value of a list, and comments to put before it.

    Raises:
        KeyError: a key that goes is that of another mapping, merged with ``<<``.
        YAMLError: ruamel.yaml cannot read the text, or not write it.
    """
    tool = YAML()
    tool.Resolver = _TextsOnly
    tool.preserve_quotes = True
    tool.width = 1 << 20
    tool.brace_single_entry_mapping_in_flow_sequence = True
    tool.explicit_start = bool(re.search(r"^---", text, re.MULTILINE))
    tool.explicit_end = bool(re.search(r"^\.\.\.", text, re.MULTILINE))
    root = tool.load(text)
    steps = dict(reversed(list(_steps(root))))
    dash = steps.get(CommentedSeq, 2)
    tool.indent(mapping=steps.get(CommentedMap, 2), sequence=2 + dash, offset=dash)
    _change_mapping(root, old, new)
    path, comments = heading
    if comments:
        _put_before(root, path, comments)
    out = io.StringIO()
    tool.dump(root, out)
    return out.getvalue()


class _TextsOnly(VersionedResolver):
    """No number, truth value or ``<<``: every value stays what it is written as, whatever the version of YAML."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        return self.DEFAULT_SCALAR_TAG if kind is ScalarNode else super().resolve(kind, value, implicit)


def _steps(node: CommentedMap | CommentedSeq) -> Iterator[tuple[type, int]]:
    """How much deeper than a mapping the mappings and lists in it stand, in the file's order."""
    for key in _keys(node):
        if _is_block(node[key]) and not _has_anchor(node[key]):
            if isinstance(node, CommentedMap):
                yield type(node[key]), node[key].lc.col - node.lc.col
            yield from _steps(node[key])


# -- values -----------------------------------------------------------------------------------------------------------


def _is_same(old: Any, new: Any) -> bool:
    return json.dumps(old, default=str) == json.dumps(new, default=str)


def _has_anchor(value: CommentedMap | CommentedSeq) -> bool:
    return value.anchor.value is not None


def _change(node: CommentedMap | CommentedSeq, key: str | int, old: Any, new: Any) -> None:
    """Brings a member of a mapping or list from an old value to a new one. What has an anchor may be used elsewhere
    too, and is replaced rather than changed."""
    value = node[key]
    if _is_same(old, new):
        return
    if isinstance(value, CommentedMap) and isinstance(new, dict) and value and not _has_anchor(value):
        _change_mapping(value, old, new)
    elif isinstance(value, CommentedSeq) and isinstance(new, list) and value and not _has_anchor(value):
        _change_list(value, old, new)
    else:
        comments = _take_comments(node, key)
        node[key] = _made(new)
        _give_comments(node, key, comments)


def _change_mapping(node: CommentedMap, old: dict[str, Any], new: dict[str, Any]) -> None:
    for key in [key for key in old if key not in new]:
        _remove(node, key)
    for key, value in new.items():
        if key in node:
            _change(node, key, old[key], value)
        elif key not in old or not _is_same(old[key], value):
            _append(node, key, value)


def _change_list(node: CommentedSeq, old: list[Any], new: list[Any]) -> None:
    before, after = ([json.dumps(item, default=str) for item in items] for items in (old, new))
    steps = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    for _, i1, i2, j1, j2 in reversed(steps):
        common = min(i2 - i1, j2 - j1)
        for place in reversed(range(i1 + common, i2)):
            _remove(node, place)
        for place, value in enumerate(new[j1 + common : j2], i1 + common):
            if place == len(node):
                _append(node, place, value)
            else:
                node.insert(place, _made(value))
        for k in range(common):
            _change(node, i1 + k, old[i1 + k], new[j1 + k])


def _made(value: Any) -> Any:
    """With quotes about what YAML 1.1 takes for something else: ruamel.yaml writes 1.2."""
    if isinstance(value, dict):
        made = CommentedMap()
        made.update({key: _made(inner) for key, inner in value.items()})
        return made
    if isinstance(value, list):
        return CommentedSeq(map(_made, value))
    written = layout.scalar(value)
    is_quoted = isinstance(value, str) and written != value
    return DoubleQuotedScalarString(value) if is_quoted else PlainScalarString(written)


def _remove(node: CommentedMap | CommentedSeq, key: Any) -> None:
    keys = _keys(node)
    if key not in keys:
        raise KeyError(key)
    place = keys.index(key)
    comments = _take_comments(node, key)
    del node[key]
    if isinstance(node, CommentedMap):
        node.ca.items.pop(key, None)
    if place:
        _give_comments(node, keys[place - 1], comments)


def _append(node: CommentedMap | CommentedSeq, key: Any, value: Any) -> None:
    """As the last, before comments that do not stand deeper."""
    comments = _take_comments(node, _keys(node)[-1], node.lc.col) if node else []
    if isinstance(node, CommentedMap):
        node[key] = _made(value)
    else:
        node.append(_made(value))
    _give_comments(node, key, comments)


# -- comments ---------------------------------------------------------------------------------------------------------


def _is_block(value: Any) -> bool:
    return isinstance(value, CommentedMap | CommentedSeq) and bool(value) and not value.fa.flow_style()


def _keys(node: CommentedMap | CommentedSeq) -> list[Any]:
    return list(node) if isinstance(node, CommentedMap) else list(range(len(node)))


def _last_leaf(node: Any, key: Any) -> tuple[Any, Any, int]:
    """The mapping or list with the last line of a value, the key there, and the place of the comment behind it."""
    while _is_block(node[key]):
        node = node[key]
        key = _keys(node)[-1]
    return node, key, 2 if isinstance(node, CommentedMap) else 0


def _put_before(node: Any, path: tuple[str | int, ...], comments: list[str]) -> None:
    for key in path[:-1]:
        node = node[key]
    places = node.ca.items.setdefault(path[-1], [None] * 4)
    places[1] = (places[1] or []) + [CommentToken(f"{comment}\n", CommentMark(node.lc.col)) for comment in comments]


def _take_comments(node: Any, key: Any, column: int = 1 << 20) -> list[str]:
    """Takes away the lines with comments behind a value, from the first on that does not stand deeper than a column."""
    node, key, place = _last_leaf(node, key)
    token = (node.ca.items.get(key) or [None] * 3)[place]
    if token is None:
        return []
    first, *lines = str(token.value).removesuffix("\n").split("\n")
    stay = 0
    while stay < len(lines) and lines[stay].startswith(" " * (column + 1)):
        stay += 1
    token.value = "\n".join([first, *lines[:stay]]) + "\n"
    if not first and not stay:
        node.ca.items[key][place] = None
    return lines[stay:]


def _give_comments(node: Any, key: Any, lines: list[str]) -> None:
    if not lines:
        return
    node, key, place = _last_leaf(node, key)
    found = node.ca.items.setdefault(key, [None] * 4)
    if found[place] is None:
        found[place] = CommentToken("\n", CommentMark(0))
    found[place].value += "\n".join(lines) + "\n"
