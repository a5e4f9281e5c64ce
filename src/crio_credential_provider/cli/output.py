"""What all commands say alike: their command line, lines on standard output, complaints on stderr."""

from __future__ import annotations

import argparse
import os
import sys


def make_parser(command: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """The parser of a command, whose description and examples are printed as they stand."""
    return argparse.ArgumentParser(
        prog=f"crio-credential-provider {command}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


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
    sys.stderr.write(f"crio-credential-provider {command}: {text}\n")
