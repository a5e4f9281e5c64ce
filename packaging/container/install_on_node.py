"""install-on-node: puts the bundle that it is part of into a node's directory for credential providers.

    install-on-node [--stay] DIRECTORY
    install-on-node --remove DIRECTORY

    DIRECTORY/crio-credential-provider -> .crio-credential-provider/<version>-<digest>/bin/crio-credential-provider

Each build has a directory of its own, complete before anything names it, and the entry changes by a rename: a kubelet
finds the old program or the new one at any time. Builds that were current lately stay, for runs that are under way, and
go at a later installation. With ``--stay`` the process then waits for SIGTERM, as the container of a DaemonSet must.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "crio-credential-provider"
STORE = f".{NAME}"
LOCK = "lock"
LATELY = 120
"""Seconds for which a build is kept when it is no more current. A kubelet kills a run after 60. A keeper, which a run
may leave in line for ten minutes (docs/decisions/0004-hand-off.md), needs nothing of it."""
USAGE = "usage: install-on-node [--stay | --remove] DIRECTORY\n"


def main() -> None:
    options = [argument for argument in sys.argv[1:] if argument.startswith("-")]
    directories = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    if len(directories) != 1 or not {*options} <= {"--stay", "--remove"} or len(options) > 1:
        sys.stderr.write(USAGE)
        sys.exit(2)
    try:
        (remove if "--remove" in options else install)(directories[0])
    except OSError as error:
        sys.exit(f"install-on-node: {error.strerror}: {error.filename}")
    if "--stay" in options:
        stay()


def install(directory: str, tree: str = sys.prefix) -> None:
    """Copies the tree, then makes it the current one."""
    with locked(directory):
        build = build_of(tree)
        before = current(directory)
        place = os.path.join(directory, STORE, build)
        if not os.path.exists(place):
            copy(tree, place)
        point(directory, build)
        if before and before != build:
            # From now on nobody starts from it. The time is kept in the tree itself.
            with contextlib.suppress(FileNotFoundError):
                os.utime(os.path.join(directory, STORE, before))
        remove_old_builds(os.path.join(directory, STORE), {build, before, LOCK})
    sys.stdout.write(f"{directory}/{NAME} is {build}\n")
    sys.stdout.flush()


def remove_old_builds(store: str, keep: set[str]) -> None:
    for name in os.listdir(store):
        path = os.path.join(store, name)
        if name not in keep and time.time() - os.stat(path).st_mtime > LATELY:
            shutil.rmtree(path)


def remove(directory: str) -> None:
    """The entry first, so that nothing names a tree that is going. Where there is no directory, there is nothing."""
    if not os.path.lexists(directory):
        return
    with locked(directory):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(directory, NAME))
        store = os.path.join(directory, STORE)
        for name in sorted(os.listdir(store)):
            if name != LOCK:
                shutil.rmtree(os.path.join(store, name))
        # The lock last: who waits for it sees that it is gone, and makes another.
        os.unlink(os.path.join(store, LOCK))
        # Somebody may have made it already.
        with contextlib.suppress(OSError):
            os.rmdir(store)


def stay() -> None:
    """Until SIGTERM, which the first process of a container gets only where it asks for it."""
    ending = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    signal.sigwait(ending)


@contextlib.contextmanager
def locked(directory: str) -> Iterator[None]:
    """Two containers that overlap take turns, at installing and removing alike. Makes the store."""
    path = os.path.join(directory, STORE, LOCK)
    while True:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            # The store went between the two, by a removal.
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                is_lock = os.path.samestat(os.fstat(descriptor), os.stat(path))
            except FileNotFoundError:
                is_lock = False
            if is_lock:
                yield
                return
        finally:
            os.close(descriptor)


def build_of(tree: str) -> str:
    """``<version>-<digest>`` of a tree, from its BUILD."""
    with open(os.path.join(tree, "BUILD"), encoding="utf-8") as file:
        record = dict(line.rstrip("\n").split(": ", 1) for line in file)
    return f"{record['version']}-{record['digest'][:12]}"


def current(directory: str) -> str:
    """The build that the entry names; "" where there is none of ours."""
    try:
        parts = os.readlink(os.path.join(directory, NAME)).split("/")
    except OSError:
        return ""
    return parts[1] if parts[0] == STORE and len(parts) > 1 else ""


def copy(tree: str, place: str) -> None:
    """A complete copy under another name first, on disk before it gets its own."""
    fresh = f"{place}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(tree, fresh, symlinks=True)
    for parent, directories, names in os.walk(fresh):
        for name in (*names, *directories):
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                os.chmod(path, 0o755 if os.stat(path).st_mode & 0o100 else 0o644)
                sync(path)
    os.chmod(fresh, 0o755)
    sync(fresh)
    os.rename(fresh, place)
    sync(os.path.dirname(place))


def point(directory: str, build: str) -> None:
    """Replaces the entry, whatever it was: a symlink, or a program that was copied there."""
    entry = os.path.join(directory, NAME)
    fresh = os.path.join(directory, f"{STORE}.new-entry")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fresh)
    os.symlink(f"{STORE}/{build}/bin/{NAME}", fresh)
    os.rename(fresh, entry)
    sync(directory)


def sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
