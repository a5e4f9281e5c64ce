"""What all commands say alike: their command line, exit statuses, text and JSON on standard output, complaints.

Text is laid out by rich: tables, coloured only on a terminal (and not with NO_COLOR). Names of secrets, pods and keys
come from tenants, so that whatever is shown to a person goes through ``printable`` first.

    parser = make_parser("explain", _DESCRIPTION, _EPILOG)
    add_output(parser)
    write(Table(...), "a line")
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import ProviderError, UsageError, masked, shown
from .help import did_you_mean

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.text import Text

OK = 0
"""The command did its job, and found no problem."""
FAULT = 1
"""The command could not do its job; stderr says why."""
USAGE_FAULT = 2
"""Wrong usage; stderr says what is right."""
FAILED = 3
"""The command did its job, and found a problem: a pull that gets no credential, a broken node."""

_NAMES_A_PLACE = ("FILE", "DIR", "DIRECTORY", "PATH", "URL", "VERSION")
"""What the help has for a value without which another place is taken."""

PROGRAM = "crio-credential-provider"

WIDTH = 100
"""Columns where standard output is no terminal."""


class Unwritable(ProviderError):
    """Standard output is closed, or its disk is full; ``reader_gone``: or whoever read it has seen enough."""

    fault = "output"

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write to standard output: {error.strerror}")
        self.reader_gone = isinstance(error, BrokenPipeError)


# -- the command line -------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with a command line, in the words in which the plugin says it of its flags.

    Attributes:
        is_mixed: flags may stand between arguments that may be left out.
    """

    is_mixed = False

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The values of flags and arguments.

        Raises:
            UsageError: an unknown flag or argument, a value that is missing or not valid.
        """
        self._check_flags(arguments)
        try:
            parse = self.parse_known_intermixed_args if self.is_mixed else self.parse_known_args
            given, left = parse(arguments)
        except argparse.ArgumentError as error:
            if error.argument_name is None:
                # What is required and not there, from Python 3.12 on.
                self.error(error.message)
            raise UsageError(self._told(error)) from None
        if left:
            raise UsageError(f"unknown argument {masked(left[0])!r}", "--help lists the arguments")
        return given

    def _check_flags(self, arguments: Sequence[str]) -> None:
        """Before anything else: what follows a mistyped flag is easily taken for an argument."""
        known = self._option_string_actions
        takes_next = False
        for argument in arguments:
            if argument == "--":
                return
            name, equals, _ = argument.partition("=")
            if name.startswith("-") and name != "-" and name not in known and not takes_next:
                meant = did_you_mean(name, known)
                short = known.get(name[:2])
                # -nNAME is -n NAME, but for what looks like a flag: -ns, -namespace.
                if short is None or short.nargs == 0 or meant:
                    raise UsageError(f"unknown flag {name!r}", meant or "--help lists the flags")
            takes_next = name in known and known[name].nargs != 0 and not equals

    def _told(self, error: argparse.ArgumentError) -> str:
        name, message = error.argument_name or "", error.message
        action = next((a for a in self._actions if name in ("/".join(a.option_strings), a.metavar)), None)
        if message.startswith("expected"):
            value = f", {action.metavar}" if action is not None and isinstance(action.metavar, str) else ""
            return f"{name} needs a value{value}"
        if message.startswith("ignored explicit"):
            return f"{name} takes no value"
        return f"{name}: {message}"

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """A shell variable that is not set must not mean another machine than the one that was meant."""
        if "" in arg_strings and action.metavar in _NAMES_A_PLACE and action.dest != "cache_dir":
            raise argparse.ArgumentError(action, "is empty")
        return super()._get_values(action, arg_strings)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        meant = did_you_mean(str(value), map(str, action.choices))
        message = f"{masked(str(value))!r} is not one of {', '.join(map(str, action.choices))}"
        raise argparse.ArgumentError(action, f"{message}; {meant}" if meant else message)

    def error(self, message: str) -> NoReturn:
        """What argparse has no ``ArgumentError`` for."""
        missing = message.removeprefix("the following arguments are required: ")
        raise UsageError(f"{missing} is missing" if missing != message else message, "--help has examples")

    def print_help(self, file: Any = None) -> None:
        write_line(self.format_help().removesuffix("\n"))


def make_parser(command: str, description: str, epilog: str) -> Parser:
    """The parser of a command, whose description and examples are printed as they stand."""
    return Parser(
        prog=f"crio-credential-provider {command}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        exit_on_error=False,
    )


def there(*kinds: str) -> Callable[[str], str]:
    """The type of a flag that names what must be there, unless it is "-", or a default of "".

    Args:
        kinds: of ``file`` and ``directory`` what it may be.
    """

    def parse(text: str) -> str:
        why = why_not(text, kinds) if text not in ("", "-") else ""
        if why:
            raise argparse.ArgumentTypeError(f"{text}: {why}")
        return text

    return parse


def why_not(path: str, kinds: Sequence[str]) -> str:
    """Why a path cannot be used, "" where it can. Opens nothing: it may be a pipe."""
    try:
        is_directory = os.path.isdir(path) and bool(os.stat(os.path.join(path, ".")))
        os.stat(path)
    except (FileNotFoundError, ValueError):
        return f"no such {' or '.join(kinds)}"
    except OSError as error:
        return (error.strerror or type(error).__name__).lower()
    if is_directory and "directory" not in kinds:
        return "is a directory"
    if not is_directory and "file" not in kinds:
        return "not a directory"
    return "" if os.access(path, os.R_OK) else "permission denied"


def add_output(parser: argparse.ArgumentParser) -> None:
    """The flag ``--output`` of a command that speaks to people and to programs."""
    formats = ("text", "json")
    parser.add_argument("-o", "--output", choices=formats, default="text", help="output format (default text)")


def serve(command: str, work: Callable[[], int], program: str = PROGRAM) -> int:
    """The exit status of a command: its own, or that of what it raises, which is reported on stderr."""
    try:
        return work()
    except UsageError as error:
        complain(command, str(error), program)
        return USAGE_FAULT
    except Unwritable as error:
        if not error.reader_gone:
            complain(command, str(error), program)
        return FAULT
    except ProviderError as error:
        complain(command, str(error), program)
        return FAULT
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        complain(command, f"{where}{error.strerror or type(error).__name__}", program)
        return FAULT


def write(*parts: RenderableType) -> None:
    """Writes tables and texts to standard output, each beginning on a line of its own.

    A text with ``no_wrap`` is written as it is, however wide: commands and files are pasted.

    Raises:
        Unwritable: as ``write_line``.
    """
    console = _console()
    for part in parts:
        # Of a text's own no_wrap, rich takes no notice where it stands alone.
        console.print(part, soft_wrap=getattr(part, "no_wrap", None) is True)
    assert isinstance(console.file, io.StringIO)
    # rich fills each line of a table up to its width.
    write_line("\n".join(line.rstrip() for line in console.file.getvalue().removesuffix("\n").split("\n")))


def _console() -> Console:
    """Draws into memory, as it would be drawn on standard output."""
    # rich takes 60 ms to import, which --output json need not wait for.
    from rich.console import Console

    terminal = sys.stdout.isatty()
    width = os.get_terminal_size(sys.stdout.fileno()).columns if terminal else 0
    # No markup and no emoji: brackets and colons in names and messages stay what they are.
    return Console(
        file=io.StringIO(),
        force_terminal=terminal,
        width=width or WIDTH,
        markup=False,
        emoji=False,
        highlight=False,
    )


# -- what is to be copied: paths, keys and commands stay whole, however wide the terminal is ---------------------------

_COMMANDS = re.compile(r"(?<=: )(?:kubectl|df|getent|chmod|chown|\{ printf) .*$", re.DOTALL)
_NARROWEST = 20


def split_commands(remedy: str) -> tuple[str, list[str]]:
    """The words of a remedy of ours, and the commands with which it ends.

    Of nothing else: a person pastes them, and an image's name or a registry's message may look like one.
    """
    found = _COMMANDS.search(remedy)
    if found is None:
        return remedy, []
    return remedy[: found.start()].rstrip(), found[0].split(" && ")


def ended(remedy: str) -> str:
    """A sentence, unless it ends with a command: a full stop would be pasted with it."""
    return remedy if split_commands(remedy)[1] else sentence(remedy)


def to_do(remedy: str, label: str = "", indent: int = 0) -> Iterator[RenderableType]:
    """A remedy of ours as a person reads it, with the commands at its end on lines of their own."""
    from rich.text import Text

    words, commands = split_commands(remedy)
    yield Whole(words, label=label, indent=indent)
    for command in commands:
        yield Text(f"{' ' * (indent + 2)}{printable(command)}", no_wrap=True)


class Whole:
    """A text that is wrapped between its words alone, indented below its label."""

    no_wrap = True
    """For ``write``, which does not wrap it a second time."""

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


# -- lines and JSON ---------------------------------------------------------------------------------------------------


def write_json(value: Any) -> None:
    """Writes one JSON value to standard output, for programs.

    Raises:
        Unwritable: as ``write_line``.
    """
    write_line(as_json(value))


SCHEMA_VERSION = 1
"""Of what the commands report as JSON: goes up when a member goes or changes its meaning, not when one is added."""


def write_report(value: dict[str, Any]) -> None:
    """As ``write_json``, for a report of a command, which begins with its ``schemaVersion``."""
    write_json({"schemaVersion": SCHEMA_VERSION, **value})


def as_json(value: Any) -> str:
    """One JSON value. Bytes that are not UTF-8 are shown as to people: many readers refuse lone surrogates."""
    return json.dumps(_shown(value), indent=2)


def as_json_line(value: Any) -> str:
    """The same without line breaks."""
    return json.dumps(_shown(value))


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, dict):
        return {_shown(key): _shown(item) for key, item in value.items()}
    return [_shown(item) for item in value] if isinstance(value, (list, tuple)) else value


_LINES_AT_ONCE = 1000


def write_lines(lines: Iterable[str]) -> None:
    """Writes lines as they are made, many at once.

    Raises:
        Unwritable: as ``write_line``.
    """
    made = iter(lines)
    while some := [*islice(made, _LINES_AT_ONCE)]:
        write_line("\n".join(some))


def write_line(text: str) -> None:
    """Writes a line to standard output at once.

    Raises:
        Unwritable: its reader is gone, it is closed, or the disk is full; what is buffered is then dropped.
    """
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except OSError as error:
        # What is still buffered must not fail once more at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Unwritable(error) from None


def note(text: str) -> None:
    """Says something on stderr, if somebody can hear it."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{printable(text)}\n")
        sys.stderr.flush()


def complain(command: str, text: str, program: str = PROGRAM) -> None:
    """Says on stderr why a command failed."""
    note(f"{program} {command}: {text}")


def sentence(text: str) -> str:
    """With a capital, unless it begins with a name or an address, and a full stop."""
    word = text.partition(" ")[0]
    start = text[:1].upper() if word.isalpha() and word != "containerd" else text[:1]
    return f"{start}{text[1:]}{'' if text.endswith(('.', '?')) else '.'}"


def printable(text: str) -> str:
    """The text with control characters escaped, line breaks as well: a name must not move the cursor of whoever reads
    it, nor write lines of its own."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown(text))


def printable_lines(text: str) -> str:
    """The same for a text of several lines of our own."""
    return "\n".join(map(printable, text.split("\n")))
