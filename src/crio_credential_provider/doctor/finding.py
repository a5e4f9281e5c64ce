"""What a check comes to: a finding, something that was examined, or something that could not be, and why.

yield find("auth-dir-mode", at("/etc/crio/auth", text="mode 0777"), remedy="chmod 0700 /etc/crio/auth")
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..errors import shorten
from ..node.commandline import Origin
from .catalogue import CATALOGUE


class Evidence(NamedTuple):
    """What was seen: a file with its line (0: the whole file, "": no file), and what stands there or was answered."""

    file: str
    line: int
    text: str


class Finding(NamedTuple):
    """A fault.

    Attributes:
        code: in the catalogue.
        severity: ``error``, ``warning`` or ``note``.
        evidence: the first one tells where it is.
        consequence: what a person sees of it.
        remedy: what to type or to write, exactly.
    """

    code: str
    severity: str
    evidence: tuple[Evidence, ...]
    consequence: str
    remedy: str

    @property
    def title(self) -> str:
        return CATALOGUE[self.code].title


class Unexamined(NamedTuple):
    """What was not looked at, and why."""

    what: str
    why: str


class Examined(NamedTuple):
    """What was looked at."""

    what: str


Result = Finding | Unexamined | Examined
Results = Iterator[Result]


def find(code: str, *evidence: Evidence, remedy: str, severity: str = "", consequence: str = "") -> Finding:
    """A finding, with what the catalogue says of its code where nothing else is given."""
    entry = CATALOGUE[code]
    return Finding(code, severity or entry.severity, evidence, consequence or entry.consequence, remedy)


def at(where: Origin | str, text: str = "", line: int = 0) -> Evidence:
    """Evidence in a file."""
    file, line = (where.file, where.line) if isinstance(where, Origin) else (where, line)
    return Evidence(file, line, shorten(text))


def seen(text: str) -> Evidence:
    """Evidence that no file holds: a question and its answer."""
    return Evidence("", 0, shorten(text))
