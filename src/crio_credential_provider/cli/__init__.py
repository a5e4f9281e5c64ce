"""The commands for people, one module each, named like the command.

Each has ``run(arguments)``, which returns the exit status, and ``parser()``, from which completion and man pages are
made as well.
"""

from __future__ import annotations

import sys
from importlib import import_module
from io import TextIOWrapper

SUMMARIES = {
    "completion": "print what completes command lines in a shell",
    "demo": "play the whole job on an embedded cluster and registry",
    "doctor": "examine a node, and say what is wrong and what to do",
    "explain": "tell what a pull will do, step by step",
    "gc": "remove auth files that nobody comes for",
    "manifests": "print what a cluster needs: configuration, RBAC, files of a node",
    "verify": "ask every place of a pull for the image, with its credential",
}
"""What each command is for, in one line."""


def run(arguments: list[str]) -> int:
    """Runs a command.

    Args:
        arguments: the command word, then its arguments.

    Returns:
        The exit status.
    """
    command, *rest = arguments
    if isinstance(sys.stdout, TextIOWrapper):
        # Names of secrets and keys may hold what the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = import_module(f".{command}", __name__).run(rest)
    except SystemExit as stop:
        # argparse: 0 after --help, 2 for wrong usage.
        status = int(stop.code or 0)
    assert isinstance(status, int)
    return status
