"""``crio-credential-provider metrics``: counts the plugin's journal entries, for node_exporter's textfile collector.

Off the pull path: a timer runs it (packaging/systemd). What was counted, and up to which entry, is on the disk before
anybody sees it, so that a call that is killed at any point counts nothing twice and no counter goes back.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator

from ... import version
from ...errors import ConfigError, UsageError
from .. import wholefile
from ..output import OK, Parser, Unwritable, make_parser, serve
from . import entries, totals

STATE = "/var/lib/crio-credential-provider/metrics.json"
WAIT = 60
"""Seconds for which a call waits for another one."""

_DESCRIPTION = """\
Writes metrics of the plugin's runs in Prometheus' text format, for the textfile collector of
node_exporter: runs by outcome and reason, faults, how long runs took and waited, stale files.

Each call reads the plugin's journal entries since the last one, and adds them to totals that it keeps.
The first call counts all that the journal has. Nothing is counted twice, and no counter goes back.
The labels hold no names of images, namespaces, pods or secrets.
"""
_EPILOG = """\
Only entries of the user who runs this are counted: run it as root, like the kubelet.
With --log-level=warning or error the plugin writes no entry for a run that worked: those are not counted.

Examples:
  crio-credential-provider metrics                           print them
  crio-credential-provider metrics --textfile /var/lib/node_exporter/textfile_collector/crio_credential_provider.prom

Exit status: 0 written; 1 an error, reported on stderr; 2 wrong usage.
"""


def run(arguments: list[str]) -> int:
    """As ``commands.run``, for the arguments after the word."""
    return serve("metrics", lambda: _collect(arguments))


def parser() -> Parser:
    """The command line."""
    made = make_parser("metrics", _DESCRIPTION, _EPILOG)
    made.add_argument("--textfile", metavar="FILE", help="write to FILE, whose name ends in .prom, instead of stdout")
    made.add_argument("--state", metavar="FILE", default=STATE, help=f"where totals are kept (default {STATE})")
    return made


def _collect(arguments: list[str]) -> int:
    given = parser().parse(arguments)
    if given.textfile and not given.textfile.endswith(".prom"):
        raise UsageError("--textfile: the name must end in .prom, or node_exporter does not read it")
    with _held(os.path.abspath(given.state)):
        counted = totals.load(given.state)
        collected = time.time()
        for entry in entries.read(counted.cursor):
            counted.add(entry)
        totals.save(given.state, counted)
        about = version.describe()
        text = counted.text(collected, about["version"], about["gitCommit"])
        if given.textfile:
            with _without_links(os.path.abspath(given.textfile)) as place:
                wholefile.replace(place, text, 0o644)
            return OK
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        raise Unwritable(error) from None
    return OK


@contextlib.contextmanager
def _held(state: str) -> Iterator[None]:
    """One call at a time; the lock ends with the process. Nobody else can open the file, and so hold the lock."""
    os.makedirs(os.path.dirname(state), exist_ok=True)
    lock = f"{state}.lock"
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        until = time.monotonic() + WAIT
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= until:
                    raise BlockingIOError(error.errno, f"locked by another metrics run for {WAIT} s", lock) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _without_links(path: str) -> Iterator[str]:
    """The path by way of its directory, opened without following links.

    Directories above may belong to node_exporter's user (/var/lib/prometheus on Debian), who could put a link there.

    Raises:
        ConfigError: a directory of the path is a link.
    """
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    directory, name = os.path.split(path)
    walked = ""
    descriptor = os.open("/", flags)
    try:
        for part in filter(None, directory.split("/")):
            walked += f"/{part}"
            above, descriptor = descriptor, os.open(part, flags, dir_fd=descriptor)
            os.close(above)
        yield f"/proc/self/fd/{descriptor}/{name}"
    except NotADirectoryError:
        raise ConfigError(f"--textfile: {walked} is a link or not a directory", "give a path without links") from None
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(descriptor)
