"""``crio-credential-provider install-on-node``: copies this executable into the kubelet's directory of plugins.

The container of the DaemonSet runs this.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import shutil
import signal
import stat
import tempfile
import time

from .. import __version__, version
from ..errors import ProviderError
from . import ENDING
from .output import OK, Parser, make_parser, serve, there, write_line

COMMAND, NAME = "install-on-node", "crio-credential-provider"

_DESCRIPTION = """\
Copies this program into DIRECTORY, the kubelet's --image-credential-provider-bin-dir, as
crio-credential-provider. What has that name is replaced by a rename, so that the kubelet can run the
plugin at any time. Where the same program is there already, nothing is written.
"""
_EPILOG = """\
The DaemonSet that "manifests daemonset" prints runs this on every node with --stay. Before --remove, take
the plugin out of the kubelet's configuration: a kubelet does not start without a plugin that it names.

Examples:
  crio-credential-provider install-on-node /usr/libexec/kubelet-image-credential-provider-plugins
  crio-credential-provider install-on-node --remove /usr/libexec/kubelet-image-credential-provider-plugins

Exit status: 0 installed, removed, or nothing to do; 1 an error, reported on stderr; 2 wrong usage.
"""
_START, _ENDING = f".{NAME}.", ".new"
"""Of the name of a copy that is not complete."""
_STALE_AFTER = 600
"""Seconds: no copy takes as long."""
_BLOCK = 1 << 20
_HINTS = {
    errno.EACCES: "run this as root; in a container on a node with SELinux, as spc_t",
    errno.EPERM: "run this as root",
    errno.EROFS: "name a directory that can be written to, and set the kubelet's "
    "--image-credential-provider-bin-dir to it",
    errno.ENOSPC: "free some space there",
}


class _CannotInstall(ProviderError):
    """What the system refuses, or a program that is not the executable."""

    fault = "install"


def run(arguments: list[str]) -> int:
    """As ``commands.run``, for the arguments after the word."""
    return serve(COMMAND, lambda: _run(parser().parse(arguments)))


def parser() -> Parser:
    """The command line."""
    made = make_parser(COMMAND, _DESCRIPTION, _EPILOG)
    made.add_argument("directory", metavar="DIRECTORY", type=there("directory"), help="the kubelet's plugin directory")
    either = made.add_mutually_exclusive_group()
    either.add_argument("--stay", action="store_true", help="wait for SIGTERM afterwards, as a DaemonSet requires")
    either.add_argument("--remove", action="store_true", help="remove the program from the directory")
    return made


def _run(given: argparse.Namespace) -> int:
    try:
        done = (_remove if given.remove else _install)(given.directory)
    except OSError as error:
        target = os.path.join(given.directory, NAME)
        place = target if os.path.isdir(target) else given.directory
        what = f"cannot {'remove from' if given.remove else 'write to'} {place}: {error.strerror}"
        raise _CannotInstall(what, _HINTS.get(error.errno or 0, "")) from None
    write_line(done)
    if given.stay:
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        signal.sigwait(ENDING)
    return OK


def _install(directory: str) -> str:
    if not version.is_executable():
        raise _CannotInstall(
            "this is not the executable: it needs the Python of this machine",
            "run the executable, crio-credential-provider-linux-amd64 or -arm64",
        )
    target = os.path.join(directory, NAME)
    if not (is_there := _is_same(target)):
        _replace(target)
    _clear(directory, time.time() - _STALE_AFTER)
    return f"{target} {'is already' if is_there else 'is now'} version {__version__}"


def _remove(directory: str) -> str:
    target = os.path.join(directory, NAME)
    was_there = os.path.lexists(target)
    if was_there:
        os.unlink(target)
    _clear(directory, time.time())
    return f"{target} removed" if was_there else f"{target} not found, nothing to remove"


def _is_same(target: str) -> bool:
    try:
        status = os.lstat(target)
    except FileNotFoundError:
        return False
    if (status.st_mode, status.st_uid) != (stat.S_IFREG | 0o755, os.geteuid()):
        return False
    with open(version.EXECUTABLE, "rb") as ours, open(target, "rb") as theirs:
        while (block := ours.read(_BLOCK)) == theirs.read(_BLOCK):
            if not block:
                return True
    return False


def _replace(target: str) -> None:
    """Complete and on disk before it gets its name: a kubelet finds the old program or the new one."""
    directory = os.path.dirname(target)
    descriptor, fresh = tempfile.mkstemp(_ENDING, _START, directory)
    try:
        with open(version.EXECUTABLE, "rb") as source, open(descriptor, "wb") as copy:
            shutil.copyfileobj(source, copy)
            os.fchmod(copy.fileno(), 0o755)
            copy.flush()
            os.fsync(copy.fileno())
        os.rename(fresh, target)
    except BaseException:
        os.unlink(fresh)
        raise
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _clear(directory: str, before: float) -> None:
    """Removes copies that were killed, begun before that time, and the directory where earlier versions were kept."""
    for entry in os.scandir(directory):
        if entry.name.startswith(_START) and entry.name.endswith(_ENDING):
            with contextlib.suppress(FileNotFoundError):
                if entry.stat(follow_symlinks=False).st_mtime <= before:
                    os.unlink(entry.path)
    shutil.rmtree(os.path.join(directory, f".{NAME}"), ignore_errors=True)
