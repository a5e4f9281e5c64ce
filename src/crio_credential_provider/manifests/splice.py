"""Our entry put into the text of a CredentialProviderConfig, of which every other byte stays.

Works on the places that the parser tells: a new entry comes behind the last one, a changed one takes the lines of the
old one. Not every layout has such a place (an empty list, a list in one line with an anchor); then there is None, and
the caller writes the whole file anew. Whether the text is right is for the caller to see, who reads it again.
"""

from __future__ import annotations

import json
from typing import Any

import yaml

from ..errors import ConfigError
from . import configfile, layout
from .configfile import Source


def spliced(source: Source, providers: list[dict[str, Any]], place: int) -> str | None:
    """The text with the entry at ``place`` of ``providers``, whose others are those that it has."""
    nodes, text = _nodes(source), source.text
    if nodes is None or not nodes.value or any(node.flow_style is None for node in nodes.value):
        return None
    if nodes.flow_style:
        return _into_flow(text, nodes, providers[place], place)
    if place == len(nodes.value):
        return _behind(text, nodes, providers[place])
    return _in_place(text, source, nodes, providers[place], place)


def without(source: Source, place: int) -> str | None:
    """The text without the entry at ``place``: its lines, and the comments below it that stand deeper than its dash.
    None where it does not stand on lines of its own."""
    nodes = _nodes(source)
    if nodes is None or nodes.flow_style or not nodes.value:
        return None
    lines, node = source.text.split("\n"), nodes.value[place]
    first = node.start_mark.line
    if lines[first][: node.start_mark.column].strip() != "-":
        return None
    end = _end(lines, _last_line(node) + 1, nodes.start_mark.column)
    return "\n".join([*lines[:first], *lines[end:]])


def _nodes(source: Source) -> yaml.SequenceNode | None:
    if isinstance(source.root, yaml.MappingNode):
        for key, value in source.root.value:
            if key.value == "providers" and isinstance(value, yaml.SequenceNode):
                return value
    return None


# -- JSON, and lists in brackets ---------------------------------------------------------------------------------------


def _into_flow(text: str, nodes: yaml.SequenceNode, entry: dict[str, Any], place: int) -> str:
    """JSON is YAML: the entry is written as JSON, indented as the one before it."""
    other = nodes.value[min(place, len(nodes.value) - 1)]
    start = text.rfind("\n", 0, other.start_mark.index) + 1
    lead = text[start : other.start_mark.index]
    is_own_line = not lead.strip()
    inner = [key for key, _ in other.value if isinstance(other, yaml.MappingNode)][:1]
    column = inner[0].start_mark.column if inner and inner[0].start_mark.line > other.start_mark.line else None
    indent = None
    if column is not None:
        line = text.rfind("\n", 0, inner[0].start_mark.index) + 1
        step = text[line : line + column].removeprefix(text[start : start + len(lead) - len(lead.lstrip())])
        indent = step if step and not step.strip() else None
    blank = lead[: len(lead) - len(lead.lstrip())]
    written = json.dumps(entry, indent=indent, ensure_ascii=text.isascii()).replace("\n", f"\n{blank}")
    if place < len(nodes.value):
        return text[: other.start_mark.index] + written + text[other.end_mark.index :]
    between = f",\n{blank}" if is_own_line else ", "
    return text[: other.end_mark.index] + between + written + text[other.end_mark.index :]


# -- lists with dashes -------------------------------------------------------------------------------------------------


def _behind(text: str, nodes: yaml.SequenceNode, entry: dict[str, Any]) -> str:
    """Below the last entry and the comments that belong to it, which stand deeper than its dash."""
    lines = text.split("\n")
    end = _end(lines, _last_line(nodes.value[-1]) + 1, nodes.start_mark.column)
    if end == len(lines):
        # The last line has no end.
        lines.append("")
    return "\n".join([*lines[:end], *_lines(nodes, entry), *lines[end:]])


def _end(lines: list[str], at: int, column: int) -> int:
    """The line behind the comments from ``at`` on that stand deeper than a column."""
    end = at
    for number in range(at, len(lines)):
        line = lines[number]
        if line.strip() and not (line.lstrip().startswith("#") and len(line) - len(line.lstrip()) > column):
            break
        end = number + 1 if line.strip() else end
    return end


def _in_place(text: str, source: Source, nodes: yaml.SequenceNode, entry: dict[str, Any], place: int) -> str | None:
    """Our entry alone is written anew, with its comments, and its lines are put in the place of the old ones."""
    from . import commentedyaml

    node = nodes.value[place]
    lines = text.split("\n")
    first, last = node.start_mark.line, _last_line(node)
    dash = lines[first][: nodes.start_mark.column]
    if dash.strip() or not lines[first].lstrip().startswith("-"):
        return None
    old = source.data["providers"][place]
    alone = "\n".join(["providers:", *lines[first : last + 1], ""])
    try:
        read = configfile.read(alone, "")
    except ConfigError:
        # An anchor that stands elsewhere.
        return None
    if read.data != {"providers": [old]}:
        return None
    made = commentedyaml.rewrite(read.text, read.data, {"providers": [entry]}, (("providers", 0), []))
    fresh = made.removesuffix("\n").split("\n")[1:]
    if read.comments() - configfile.read(made, "").comments():
        # Comments of what goes; the caller keeps them.
        return None
    return "\n".join([*lines[:first], *fresh, *lines[last + 1 :]])


def _lines(nodes: yaml.SequenceNode, entry: dict[str, Any]) -> list[str]:
    """Indented as the entries that are there."""
    column = " " * nodes.start_mark.column
    return list(layout.block([entry], column, _depth(nodes, yaml.SequenceNode), _depth(nodes, yaml.MappingNode)))


def _depth(nodes: yaml.SequenceNode, kind: type[yaml.CollectionNode]) -> str:
    """How much deeper than its key a list or a mapping of an entry stands."""
    for node in nodes.value:
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(value, kind) and not value.flow_style and value.value:
                return " " * int(value.start_mark.column - key.start_mark.column)
    return "  "


def _last_line(node: yaml.Node) -> int:
    """The last line of a value, without what comes behind it: a block ends for the parser where the next begins."""
    while isinstance(node, (yaml.SequenceNode, yaml.MappingNode)) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    end: yaml.Mark = node.end_mark
    if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">") and end.column == 0:
        return int(end.line) - 1
    return int(end.line)
