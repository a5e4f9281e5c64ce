"""Objects as YAML, in the style of this project's manifests: two spaces, comments above what they are about.

A ``Comment`` stands among the keys of a mapping or the items of a list; ``plain`` takes comments out again, so that
one object serves for YAML and for JSON.

>>> print(dumps({Comment("why"): None, "verbs": Flow(["get"]), "args": ["--x=y"]}), end="")
# why
verbs: ["get"]
args:
  - --x=y
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from typing import Any

WIDTH = 120
"""Columns of a line with a comment."""
_WRAPPING: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}

# YAML 1.1, which the kubelet's parser reads, and 1.2 agree on what is left: text. Others are quoted.
_PLAIN = re.compile(
    r"[A-Za-z_/](?:[\w./@%+=,()-]|:(?=[^\s:])| (?=[\w(]))*"
    r"|--?[A-Za-z](?:[\w./@%+=,-]|:(?=[^\s:]))*"
    r"|\d+(?:m|s|Mi|%|-[a-z][\w.-]*)",
    re.ASCII,
)
_WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null"))
_FLOW_UNSAFE = frozenset("[]{},")


class Comment:
    """A comment, wrapped where it is written; as a key of a mapping its value is None."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class Flow(list[Any]):
    """A list of texts that is written in one line, quoted."""


def dumps(*documents: Any) -> str:
    """YAML documents, separated by ``---``."""
    return "---\n".join("".join(f"{line}\n" for line in block(document)) for document in documents)


def plain(value: Any) -> Any:
    """The same without comments."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items() if not isinstance(key, Comment)}
    if isinstance(value, list):
        return [plain(inner) for inner in value if not isinstance(inner, Comment)]
    return value


def block(value: Any, indent: str = "", dash: str = "  ", step: str = "  ") -> Iterator[str]:
    """Lines of a mapping or list in block style.

    Args:
        indent: what each line begins with.
        dash: how much deeper than its key a list stands.
        step: the same of a mapping.
    """
    for key, inner in value.items() if isinstance(value, dict) else ((None, inner) for inner in value):
        if isinstance(key, Comment) or isinstance(inner, Comment):
            comment = key if isinstance(key, Comment) else inner
            lead = f"{indent}# "
            text = "".join(c if c.isprintable() else " " for c in comment.text)
            yield from textwrap.wrap(text, WIDTH, initial_indent=lead, subsequent_indent=lead, **_WRAPPING)
        elif key is not None:
            yield from _entry(scalar(key), inner, indent, dash, step)
        elif isinstance(inner, dict | list) and inner and not isinstance(inner, Flow):
            lines = list(block(inner, f"{indent}  ", dash, step))
            yield f"{indent}- {lines[0][len(indent) + 2 :]}"
            yield from lines[1:]
        else:
            yield f"{indent}- {flow(inner)}"


def _entry(key: str, value: Any, indent: str, dash: str, step: str) -> Iterator[str]:
    if isinstance(value, str) and _is_literal(value):
        yield f"{indent}{key}: |"
        yield from (f"{indent}  {line}".rstrip() for line in value.removesuffix("\n").split("\n"))
    elif isinstance(value, dict | list) and value and not isinstance(value, Flow):
        yield f"{indent}{key}:"
        yield from block(value, indent + (dash if isinstance(value, list) else step), dash, step)
    else:
        yield f"{indent}{key}: {flow(value)}"


def _is_literal(text: str) -> bool:
    """Whether a text is lines that stay what they are when they are written below each other."""
    lines = text.split("\n")
    return (
        len(lines) > 1
        and not lines.pop()
        and bool(lines[0] and lines[-1] and not lines[0].startswith(" "))
        and all(line.isprintable() and line == line.rstrip() for line in lines)
    )


def flow(value: Any) -> str:
    """A value in one line."""
    if isinstance(value, Flow):
        return f"[{', '.join(map(_quoted, value))}]"
    value = plain(value)
    if isinstance(value, list):
        return f"[{', '.join(map(flow_scalar, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{scalar(key)}: {flow_scalar(inner)}' for key, inner in value.items())}}}"
    return scalar(value)


def flow_scalar(value: Any) -> str:
    """A value within a list or mapping that is written in one line."""
    text = flow(value)
    if isinstance(value, str) and not text.startswith('"') and not _FLOW_UNSAFE.isdisjoint(text):
        return _quoted(value)
    return text


def scalar(value: Any) -> str:
    """A text, number, truth value or None, quoted where it would be taken for something else."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return _quoted(value) if isinstance(value, str) else json.dumps(value)


def _quoted(text: str) -> str:
    return f'"{"".join(c if c.isprintable() and c not in _ESCAPED else _escape(c) for c in text)}"'


_ESCAPED = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\ufeff": "\\ufeff"}


def _escape(character: str) -> str:
    number = ord(character)
    return _ESCAPED.get(character) or (f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}")
