"""The commands for people, one module each, named like the command with ``_`` for ``-``; some in packages of their own.

Each has ``run(arguments)``, which returns the exit status, and ``parser()``, from which completion and man pages are
made as well.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from importlib import import_module
from io import TextIOBase, TextIOWrapper
from types import FrameType, ModuleType
from typing import NoReturn, TextIO, cast

SUMMARIES = {
    "audit": "show which pulls of a cluster would find a credential",
    "completion": "print a completion script for a shell",
    "demo": "show a whole pull on an embedded cluster and registry",
    "doctor": "check a node: what is wrong, and what to do",
    "explain": "show what a pull will do, step by step",
    "gc": "remove stale auth files",
    "install": "bring the plugin onto this node, verified, or put everything back",
    "install-on-node": "copy this program into the kubelet's plugin directory",
    "kubectl": "explain, verify, audit anywhere: as kubectl mirror-credentials",
    "manifests": "print what a cluster needs: configuration, RBAC, files for nodes",
    "metrics": "count the plugin's runs, for Prometheus",
    "rollback": "undo the last install, uninstall or rollback of this node",
    "status": "show what is installed on this node, and how its kubelet is",
    "uninstall": "take away what install has brought",
    "verify": "ask every pull source for the image, with its credential",
}
"""What each command is for, in one line."""

_ROOMS = {
    "audit": "auditing",
    "kubectl": "plugin",
    **dict.fromkeys(("install", "rollback", "status", "uninstall"), "installation"),
}
"""Command -> the package that it is in, where it is in one of its own."""

ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
"""Signals that end a command, tidily: children, temporary files and directories go with it."""


class _Closed(TextIOBase):
    """Stands for a standard stream that was closed before the program started, for which Python has None."""

    def write(self, text: str, /) -> int:
        if text:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return 0


def run(arguments: list[str]) -> int:
    """Runs a command.

    Args:
        arguments: the command word, then its arguments.

    Returns:
        The exit status.

    Raises:
        KeyboardInterrupt: a signal ended it, whose number is its argument.
    """
    for number in ENDING:
        # One that was ignored from the start stays so: nohup.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    command, *rest = arguments
    sys.stdout = sys.stdout or cast(TextIO, _Closed())
    sys.stderr = sys.stderr or cast(TextIO, _Closed())
    if isinstance(sys.stdout, TextIOWrapper):
        # Names of secrets and keys may hold what the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = module(command).run(rest)
    except SystemExit as stop:
        # argparse, after --help.
        status = int(stop.code or 0)
    assert isinstance(status, int)
    return status


def module(command: str) -> ModuleType:
    """That of a command word."""
    room = f".{_ROOMS[command]}" if command in _ROOMS else ""
    return import_module(f"{room}.{command.replace('-', '_')}", __name__)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(number)
