"""Texts of which a part is to be copied: paths, keys and commands stay whole, however wide the terminal is."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .output import printable, sentence

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.text import Text

_COMMANDS = re.compile(r"(?<=: )(?:kubectl|df|getent|chmod|chown|\{ printf) .*$", re.DOTALL)
_NARROWEST = 20


def split_commands(text: str) -> tuple[str, list[str]]:
    """The words of a text, and the commands with which it ends."""
    found = _COMMANDS.search(text)
    if found is None:
        return text, []
    return text[: found.start()].rstrip(), found[0].split(" && ")


def ended(text: str) -> str:
    """A sentence, unless it ends with a command: a full stop would be pasted with it."""
    return text if split_commands(text)[1] else sentence(text)


def told(text: str, style: str = "", label: str = "", indent: int = 0) -> Iterator[RenderableType]:
    """A text as a person reads it, with the commands at its end on lines of their own."""
    from rich.text import Text

    words, commands = split_commands(text)
    yield Whole(words, style, label, indent)
    for command in commands:
        yield Text(f"{' ' * (indent + 2)}{printable(command)}", no_wrap=True)


class Whole:
    """A text that is wrapped between its words alone, indented below its label."""

    no_wrap = True
    """For ``output.write``, which does not wrap it a second time."""

    def __init__(self, text: str, style: str = "", label: str = "", indent: int = 0) -> None:
        self._text = printable(text)
        self._style = style
        self._label = label
        self._indent = indent

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        from rich.text import Text

        width = max(options.max_width - self._indent, _NARROWEST)
        lines = textwrap.wrap(self._text, width, break_long_words=False, break_on_hyphens=False) or [""]
        for label, line in zip([self._label, *[""] * (len(lines) - 1)], lines, strict=True):
            yield Text(label.ljust(self._indent), style="bold").append(line, self._style or "not bold")
