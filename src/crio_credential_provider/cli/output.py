"""What all commands say alike: their command line, exit statuses, text and JSON on standard output, complaints.

Text is laid out by rich: tables, coloured only on a terminal (and not with NO_COLOR). Names of secrets, pods and keys
come from tenants, so that whatever is shown to a person goes through ``printable`` first.

    parser = make_parser("explain", _DESCRIPTION, _EPILOG)
    add_output(parser)
    write(Table(...), "a line")
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import ProviderError, UsageError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

OK = 0
"""The command did its job, and what it found is well."""
FAULT = 1
"""The command could not do its job; stderr says why."""
USAGE_FAULT = 2
"""Wrong usage; stderr says what is right."""
UNWELL = 3
"""The command did its job, and what it found is not well: a pull that gets no credential, a broken node."""

WIDTH = 100
"""Columns where standard output is no terminal."""


def make_parser(command: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """The parser of a command, whose description and examples are printed as they stand."""
    return argparse.ArgumentParser(
        prog=f"crio-credential-provider {command}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    """The flag ``--output`` of a command that speaks to people and to programs."""
    parser.add_argument("--output", choices=("text", "json"), default="text", help="how to tell it (default text)")


def serve(command: str, work: Callable[[], int]) -> int:
    """The exit status of a command: its own, or that of what it raises, which is told on stderr."""
    try:
        return work()
    except UsageError as error:
        complain(command, str(error))
        return USAGE_FAULT
    except ProviderError as error:
        complain(command, str(error))
        return FAULT
    except BrokenPipeError:
        # Whoever reads has seen enough.
        return FAULT
    except OSError as error:
        what = error.filename or "standard output cannot be written to"
        complain(command, f"{what}: {error.strerror or type(error).__name__}")
        return FAULT


def write(*parts: RenderableType) -> None:
    """Writes tables and texts to standard output, each beginning on a line of its own.

    Raises:
        OSError: as ``write_line``.
    """
    console = _console()
    for part in parts:
        console.print(part)
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


def write_json(value: Any) -> None:
    """Writes one JSON value to standard output, for programs.

    Raises:
        OSError: as ``write_line``.
    """
    write_line(json.dumps(value, indent=2))


def write_line(text: str) -> None:
    """Writes a line to standard output at once.

    Raises:
        OSError: nobody reads it, or the disk is full; what is buffered is then dropped.
    """
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except OSError:
        # What is still buffered must not fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def complain(command: str, text: str) -> None:
    """Says on stderr why a command failed."""
    sys.stderr.write(f"crio-credential-provider {command}: {printable(text)}\n")


def sentence(text: str) -> str:
    """With a capital, unless it begins with a name or an address, and a full stop."""
    start = text[:1].upper() if text.partition(" ")[0].isalpha() else text[:1]
    return f"{start}{text[1:]}{'' if text.endswith(('.', '?')) else '.'}"


def printable(text: str) -> str:
    """The text with control characters escaped: a name must not move the cursor of whoever reads it."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
