"""A path of a node before and after a change: content, mode, owner and extended attributes.

A change is one step for whoever looks: a file is written beside its place and renamed. Knows no reason for any.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import ProviderError
from ..kubernetes.credentialproviderconfig import NAME

_CRIO = "crio.conf.d"
ABSENT, FILE, DIRECTORY, LINK = "absent", "file", "directory", "link"


class RolloutError(ProviderError):
    """A rollout that cannot be done, or was undone."""

    fault = "rollout"


class State(NamedTuple):
    """What is at a path.

    Attributes:
        kind: ``absent``, ``file``, ``directory`` or ``link``.
        digest: SHA-256 of a file's content; the target of a link.
        mode: permissions.
        owner: user and group.
        attributes: extended ones, such as SELinux' label: name -> value in base64.
    """

    kind: str = ABSENT
    digest: str = ""
    mode: int = 0
    owner: tuple[int, int] = (0, 0)
    attributes: tuple[tuple[str, str], ...] = ()

    def is_as(self, other: State) -> bool:
        """Whether nobody has changed it: times and attributes do not count, a directory's mode neither."""
        if self.kind == DIRECTORY:
            return other.kind == DIRECTORY
        return self[:4] == other[:4]


class Change(NamedTuple):
    """One step of a rollout.

    Attributes:
        path: on the node; nothing but its last part may be a link.
        before, after: the states.
        role: what it is for; ``plan`` has the list.
    """

    path: str
    before: State
    after: State
    role: str


Contents = Callable[[str], bytes]
"""The content that has a digest."""


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def file_state(content: bytes, mode: int = 0o644, like: State | None = None) -> State:
    """A file; with the mode, owner and attributes of another state where that is one of a file."""
    if like is not None and like.kind == FILE:
        return like._replace(digest=digest(content))
    return State(FILE, digest(content), mode)


def observe(path: str) -> tuple[State, bytes]:
    """What is at a path of this machine, and a file's content.

    Raises:
        OSError: it cannot be read.
        RolloutError: it is nothing that a rollout may replace.
    """
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return State(), b""
    mode, owner = stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid)
    if stat.S_ISDIR(found.st_mode):
        return State(DIRECTORY, "", mode, owner, _attributes(path)), b""
    if stat.S_ISLNK(found.st_mode):
        return State(LINK, os.readlink(path), 0, owner, ()), b""
    if not stat.S_ISREG(found.st_mode):
        raise RolloutError(f"{path} is not a regular file", "move it away")
    with open(path, "rb") as file:
        content = file.read()
    return State(FILE, digest(content), mode, owner, _attributes(path)), content


def _attributes(path: str) -> tuple[tuple[str, str], ...]:
    try:
        names = sorted(os.listxattr(path, follow_symlinks=False))
        values = [os.getxattr(path, name, follow_symlinks=False) for name in names]
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENOSYS):
            return ()
        raise
    return tuple((name, base64.b64encode(value).decode()) for name, value in zip(names, values, strict=True))


# -- one step ----------------------------------------------------------------------------------------------------------


def put(path: str, state: State, contents: Contents) -> None:
    """Brings a path of this machine to a state, and that to the disk.

    A directory that is to go and is not empty, or that something is mounted on, stays.

    Raises:
        OSError: the system refuses it; then the path is as it was.
    """
    directory = os.path.dirname(path)
    if state.kind == ABSENT:
        _remove(path)
    elif state.kind == DIRECTORY:
        with contextlib.suppress(FileExistsError):
            _make_directory(path, state)
    else:
        fresh = beside(path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh)
        try:
            if state.kind == LINK:
                os.symlink(state.digest, fresh)
                os.chown(fresh, *state.owner, follow_symlinks=False)
            else:
                _write(fresh, state, contents(state.digest))
            os.rename(fresh, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(fresh)
            raise
    with contextlib.suppress(FileNotFoundError):
        sync(directory)


def beside(path: str) -> str:
    """Where a file is written before it gets its name: CRI-O reads whatever lies in its directory of drop-ins."""
    directory, name = os.path.split(path)
    above = os.path.dirname(directory) if os.path.basename(directory) == _CRIO else directory
    return os.path.join(above, f".{name}.{NAME}")


def _write(path: str, state: State, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        _dress(path, state)
        os.fsync(descriptor)


def _make_directory(path: str, state: State) -> None:
    mask = os.umask(0)
    try:
        os.mkdir(path, state.mode)
    finally:
        os.umask(mask)
    if observe(path)[0] != state:
        _dress(path, state)


def _dress(path: str, state: State) -> None:
    os.chown(path, *state.owner)
    for name, value in state.attributes:
        os.setxattr(path, name, base64.b64decode(value))
    os.chmod(path, state.mode)


def _remove(path: str) -> None:
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            os.rmdir(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
            raise


def sync(directory: str) -> None:
    """Brings the names in a directory to the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- as JSON -----------------------------------------------------------------------------------------------------------


def dumps_state(state: State) -> dict[str, Any]:
    return {**state._asdict(), "mode": f"{state.mode:04o}", "attributes": dict(state.attributes)}


def loads_state(value: dict[str, Any]) -> State:
    user, group = value["owner"]
    attributes = tuple(sorted(value["attributes"].items()))
    return State(value["kind"], value["digest"], int(value["mode"], 8), (user, group), attributes)


def dumps_change(change: Change) -> dict[str, Any]:
    return {**change._asdict(), "before": dumps_state(change.before), "after": dumps_state(change.after)}


def loads_change(value: dict[str, Any]) -> Change:
    return Change(value["path"], loads_state(value["before"]), loads_state(value["after"]), value["role"])
