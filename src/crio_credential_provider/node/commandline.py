"""Command lines as written in units, environment files and /proc: each word with the file and line it comes from.

Knows systemd's way to a command line: a unit and its drop-ins, ``ExecStart=`` over several lines, ``Environment=`` and
``EnvironmentFile=``, ``$NAME`` (split into words) and ``${NAME}`` (not split). Runs nothing.
"""

from __future__ import annotations

import os
import posixpath
import re
import shlex
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .tree import Tree, Unreadable

_UNIT_DIRECTORIES = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
"""Where units lie; the first one wins."""


class Origin(NamedTuple):
    """Where something was found: a file of the node, with its line from 1, 0 for the whole of it."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class Word(NamedTuple):
    """One argument."""

    text: str
    origin: Origin


class Flag(NamedTuple):
    """A flag with its value, its name without dashes; ``written`` with those that it has, where it has any."""

    name: str
    value: str
    origin: Origin
    written: str = ""


def find_flags(words: Iterable[Word], with_values: frozenset[str]) -> list[Flag]:
    """The flags of a command line, in order: ``--name=value``, ``--name value``, also with one dash.

    Args:
        with_values: names whose value may be the next word.
    """
    found: list[Flag] = []
    left = list(words)[::-1]
    while left:
        word = left.pop()
        if not word.text.startswith("-"):
            continue
        name, equals, value = word.text.lstrip("-").partition("=")
        # The kubelet's flags take _ for -.
        name = name.replace("_", "-")
        if not equals and name in with_values and left:
            value = left.pop().text
        found.append(Flag(name, value, word.origin, word.text.partition("=")[0]))
    return found


def last(flags: Iterable[Flag], name: str) -> Flag | None:
    """The flag that counts where one is given several times."""
    return next((flag for flag in reversed(list(flags)) if flag.name == name), None)


# -- systemd ----------------------------------------------------------------------------------------------------------


class Unit(NamedTuple):
    """What a service's unit runs.

    Attributes:
        file: of the unit itself.
        words: the command line, the program first, variables expanded.
        start: of the ``ExecStart=`` that counts.
        environment: what the process finds in its environment.
        problems: files that could not be read.
        line: the command line as it is written, its lines joined.
        environment_files: in the order in which they are read.
    """

    file: str
    words: tuple[Word, ...]
    start: Origin
    environment: dict[str, str]
    problems: tuple[Unreadable, ...]
    line: str
    environment_files: tuple[str, ...]


_Pieces = list[tuple[str, int]]
"""A value that may stand on several lines: each piece with its line."""

_Variable = tuple[_Pieces, str]
"""The value of a variable, and its file."""


def find_unit(tree: Tree, name: str) -> Unit | None:
    """A service's unit with its drop-ins; None where there is none that starts anything."""
    file = next((f"{d}/{name}" for d in _UNIT_DIRECTORIES if tree.exists(f"{d}/{name}")), "")
    if not file:
        return None
    problems: list[Unreadable] = []
    start: tuple[_Pieces, str] | None = None
    inline: dict[str, _Variable] = {}
    files: list[tuple[str, bool]] = []
    for part in (file, *_drop_ins(tree, name)):
        for key, pieces in _settings(_read(tree, part, problems, optional=False), "Service"):
            whole = " ".join(text for text, _ in pieces).strip()
            if key == "ExecStart":
                start = (pieces, part) if whole else None
            elif key == "Environment":
                inline = {**inline, **_assignments(pieces, part)} if whole else {}
            elif key == "EnvironmentFile":
                files = [*files, (whole.lstrip("-").strip("\"'"), whole.startswith("-"))] if whole else []
    if start is None:
        return None
    variables = dict(inline)
    for path, optional in files:
        # Files override Environment=, wherever each stands.
        variables.update(_environment_file(_read(tree, path, problems, optional=optional), path))
    words = tuple(_expand(*start, variables))
    environment = {key: "".join(text for text, _ in pieces) for key, (pieces, _) in variables.items()}
    line = " ".join(text for text, _ in start[0]).strip()
    paths = tuple(path for path, _ in files)
    return Unit(file, words, Origin(start[1], start[0][0][1]), environment, tuple(problems), line, paths)


def _read(tree: Tree, path: str, problems: list[Unreadable], *, optional: bool) -> str:
    try:
        return tree.text(path)
    except Unreadable as error:
        if not (optional and error.missing):
            problems.append(error)
        return ""


def _drop_ins(tree: Tree, name: str) -> list[str]:
    """By name in byte order; of equal names that of the first directory."""
    found: dict[str, str] = {}
    for directory in _UNIT_DIRECTORIES:
        try:
            names = tree.names(f"{directory}/{name}.d")
        except Unreadable:
            continue
        for part in names:
            if part.endswith(".conf"):
                found.setdefault(part, f"{directory}/{name}.d/{part}")
    return [found[part] for part in sorted(found)]


def _settings(text: str, section: str) -> Iterator[tuple[str, _Pieces]]:
    """The settings of one section; a value that goes on after a backslash has several pieces."""
    here, key = "", ""
    pieces: _Pieces = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if line.startswith(("#", ";")) or (not line and not key):
            continue
        if not key and line.startswith("["):
            here = line.strip("[]")
            continue
        if not key:
            key, _, line = (part.strip() for part in line.partition("="))
        goes_on = line.endswith("\\")
        pieces.append((line.removesuffix("\\").strip(), number))
        if not goes_on:
            if here == section:
                yield key, pieces
            key, pieces = "", []
    if key and here == section:
        yield key, pieces


def _split(text: str) -> list[str]:
    """Words as systemd and a shell split them; a quote without its end is part of its word."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _assignments(pieces: _Pieces, file: str) -> dict[str, _Variable]:
    """``"NAME=value with spaces" OTHER=value``."""
    found: dict[str, _Variable] = {}
    for text, line in pieces:
        for word in _split(text):
            name, equals, value = word.partition("=")
            if equals:
                found[name] = ([(value, line)], file)
    return found


def _environment_file(text: str, file: str) -> dict[str, _Variable]:
    """``NAME=value`` lines; a value may be quoted, and go on over lines inside the quotes or after a backslash."""
    found: dict[str, _Variable] = {}
    name, quote = "", ""
    pieces: _Pieces = []
    for number, line in enumerate(text.splitlines(), 1):
        value = line.strip()
        if not name:
            if not value or value[0] in "#;" or "=" not in value:
                continue
            name, _, value = (part.strip() for part in value.removeprefix("export ").partition("="))
            quote = value[:1] if value[:1] in ("'", '"') else ""
            value = value[len(quote) :]
        ends = quote and value.endswith(quote)
        goes_on = value.endswith("\\") or (quote and not ends)
        pieces.append((value.removesuffix(quote) if ends else value.removesuffix("\\"), number))
        if not goes_on:
            found[name] = (pieces, file)
            name, quote, pieces = "", "", []
    if name:
        found[name] = (pieces, file)
    return found


_WHOLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))$")
_BRACED = re.compile(r"\$\{(\w+)\}")


def _expand(pieces: _Pieces, file: str, variables: dict[str, _Variable]) -> Iterator[Word]:
    """The words of an ``ExecStart=``."""
    for text, line in pieces:
        for word in _split(text):
            whole = _WHOLE.match(word)
            if whole and whole[2]:
                values, origin = variables.get(whole[2], ([], ""))
                for value, at in values:
                    yield from (Word(part, Origin(origin, at)) for part in _split(value))
                continue
            value = _BRACED.sub(lambda match: _value(variables, match[1]), word)
            yield Word(value, _origin_of(word, variables) or Origin(file, line))


def _value(variables: dict[str, _Variable], name: str) -> str:
    return "".join(text for text, _ in variables.get(name, ([], ""))[0])


def _origin_of(word: str, variables: dict[str, _Variable]) -> Origin | None:
    """Where the variable stands that is the whole of a word."""
    whole = _WHOLE.match(word)
    found = variables.get(whole[1] or "") if whole else None
    return Origin(found[1], found[0][0][1]) if found else None


# -- processes --------------------------------------------------------------------------------------------------------


STARTED_GRAIN = 1.01
"""Seconds: /proc/stat has whole seconds of the boot, and /proc/PID/stat hundredths after it, both cut off (proc(5))."""


class Process(NamedTuple):
    """A process that runs.

    Attributes:
        pid: its number.
        arguments: its command line.
        started: seconds since the epoch, at the earliest; at most ``STARTED_GRAIN`` later; 0 where that is not known.
        program: path of its executable on the node.
    """

    pid: int
    arguments: tuple[str, ...]
    started: float
    program: str

    @property
    def words(self) -> list[Word]:
        origin = Origin(f"/proc/{self.pid}/cmdline")
        return [Word(argument, origin) for argument in self.arguments]


def find_processes(tree: Tree, names: Iterable[str], ticks: int) -> list[Process]:
    """Processes of root whose program has one of these names, the oldest first; not those of containers.

    Anybody can name a process so, and what is found here is believed, and its program is run.

    Args:
        ticks: of the kernel in a second, by which it tells when a process started.
    """
    wanted = frozenset(names)
    found = []
    for name in _pids(tree):
        try:
            arguments = tuple(tree.text(f"/proc/{name}/cmdline").rstrip("\0").split("\0"))
        except Unreadable:
            continue
        if len(arguments) == 1:
            # k3s and RKE2 write what they do over their command line.
            arguments = tuple(arguments[0].split()) or arguments
        if posixpath.basename(arguments[0]) in wanted and _is_of_the_node(tree, name):
            found.append(Process(int(name), arguments, _started(tree, name, ticks), _program(tree, name, arguments[0])))
    return sorted(found, key=lambda process: (process.started, process.pid))


def _is_of_the_node(tree: Tree, pid: str) -> bool:
    """Whether it is root's and in the process namespace of the first process; both are true where /proc does not tell,
    as in a copy of a node's files."""
    try:
        users = re.search(r"^Uid:((?:\s+\d+)+)$", tree.text(f"/proc/{pid}/status"), re.MULTILINE)
    except Unreadable:
        users = None
    if users and set(users[1].split()) != {"0"}:
        return False
    try:
        own, first = (os.stat(f"{tree.root}/proc/{process}/ns/pid").st_ino for process in (pid, "1"))
    except FileNotFoundError:
        return True
    except OSError:
        return os.geteuid() != 0
    return own == first


def _pids(tree: Tree) -> list[str]:
    try:
        return [name for name in tree.names("/proc") if name.isascii() and name.isdigit()]
    except Unreadable:
        return []


def _program(tree: Tree, pid: str, argument: str) -> str:
    """The first argument where it is a path that is there: below a container's root /proc/PID/exe would not be."""
    return argument if argument.startswith("/") and tree.exists(argument) else f"/proc/{pid}/exe"


def _started(tree: Tree, pid: str, ticks: int) -> float:
    try:
        after_name = tree.text(f"/proc/{pid}/stat").rpartition(")")[2].split()
        found = re.search(r"^btime (\d+)", tree.text("/proc/stat"), re.MULTILINE)
        if found is None:
            return 0
        boot: float = int(found[1])
        # Of this machine it is known to more than the second that is written there.
        exact = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        if boot <= exact < boot + 1:
            boot = exact
        # Field 22, of which the first two are the number and the name.
        started = boot + int(after_name[19]) / ticks
        return started if started < 2**40 else 0
    except (Unreadable, ValueError, IndexError, OverflowError):
        return 0
