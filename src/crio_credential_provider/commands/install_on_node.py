"""``crio-credential-provider install-on-node``: copies this executable into the kubelet's directory of plugins.

The container of the DaemonSet runs this. The copy is complete and on disk before a rename gives it its name: a kubelet
finds the old program or the new one, at any time. Copies take turns by a lock on the directory.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import os
import shutil
import signal
import stat
from collections.abc import Iterator

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
        with _locked(given.directory):
            done = (_remove if given.remove else _install)(given.directory)
    except OSError as error:
        what = f"cannot {'remove from' if given.remove else 'write to'} {given.directory}: {error.strerror}"
        raise _CannotInstall(what, _HINTS.get(error.errno or 0, "")) from None
    write_line(done)
    if given.stay:
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        signal.sigwait(ENDING)
    return OK


@contextlib.contextmanager
def _locked(directory: str) -> Iterator[None]:
    """What is done inside is on disk afterwards."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _install(directory: str) -> str:
    if not version.is_executable():
        raise _CannotInstall(
            "this is not the executable: it needs the Python of this machine",
            "run the executable, crio-credential-provider-linux-amd64 or -arm64",
        )
    target, fresh, earlier = _paths(directory)
    _clear(fresh)  # of a copy that was killed
    if not (is_there := _is_same(target)):
        try:
            _copy(fresh)
            os.rename(fresh, target)
        finally:
            _clear(fresh)
    _clear(earlier)
    return f"{target} {'is already' if is_there else 'is now'} version {__version__}"


def _remove(directory: str) -> str:
    target, *others = _paths(directory)
    was_there = os.path.lexists(target)
    _clear(target, *others)
    return f"{target} removed" if was_there else f"{target} not found, nothing to remove"


def _paths(directory: str) -> tuple[str, str, str]:
    """The program, the copy that is being written, and the directory in which earlier versions kept theirs."""
    return os.path.join(directory, NAME), os.path.join(directory, f".{NAME}.new"), os.path.join(directory, f".{NAME}")


def _clear(*paths: str) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            (shutil.rmtree if os.path.isdir(path) and not os.path.islink(path) else os.unlink)(path)


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


def _copy(target: str) -> None:
    with open(version.EXECUTABLE, "rb") as source, open(target, "xb") as copy:
        shutil.copyfileobj(source, copy)
        os.fchmod(copy.fileno(), 0o755)
        copy.flush()
        os.fsync(copy.fileno())
