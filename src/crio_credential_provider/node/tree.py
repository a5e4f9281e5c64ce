"""The node's files: those of this machine, or of a directory that holds a node, from which no path leads out.

Below a root, absolute symbolic links and ``..`` are resolved as the node would, inside the root. Reads are bounded, and
nothing but regular files is read. Paths are the node's own (``/etc/crio/crio.conf``) in all that is asked and told.

    tree = Tree("/mnt/image")
    tree.read("/etc/crio/crio.conf")
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection

MAX_SIZE = 1024 * 1024
"""Bytes of a file that are read, where the caller does not say otherwise."""

_MAX_LINKS = 40
"""As Linux has it."""


class Unreadable(Exception):
    """A file that cannot be read.

    Attributes:
        path: on the node.
        reason: why, in the system's words.
        missing: whether it is not there at all.
        denied: whether this process may not read it, which says nothing of who runs as root.
    """

    def __init__(self, path: str, reason: str, *, missing: bool = False, denied: bool = False) -> None:
        super().__init__(f"cannot read {path}: {reason}")
        self.path = path
        self.reason = reason
        self.missing = missing
        self.denied = denied


class Tree:
    """Files of a node.

    Args:
        root: directory that holds the node's tree; "" for this machine.
    """

    def __init__(self, root: str = "") -> None:
        self.root = os.path.realpath(root).rstrip("/") if root else ""

    def real(self, path: str) -> str:
        """Where a path of the node lies on this machine, with every link resolved inside the root.

        Raises:
            OSError: too many links.
        """
        if not self.root:
            return path
        resolved: list[str] = []
        left = [part for part in reversed(path.split("/")) if part]
        links = 0
        while left:
            part = left.pop()
            if part in (".", ".."):
                if part == ".." and resolved:
                    resolved.pop()
                continue
            here = "/".join((self.root, *resolved, part))
            if not os.path.islink(here):
                resolved.append(part)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = os.readlink(here)
            if target.startswith("/"):
                resolved.clear()
            left += [name for name in reversed(target.split("/")) if name]
        return "/".join((self.root, *resolved))

    def target(self, path: str) -> str:
        """The node's path behind all links."""
        real = self.real(path) if self.root else os.path.realpath(path)
        return real[len(self.root) :] or "/"

    def stat(self, path: str) -> os.stat_result | None:
        """What the system knows of a path, links followed; None where nothing is there or it may not be known."""
        try:
            return os.stat(self.real(path))
        except (OSError, ValueError):
            return None

    def exists(self, path: str) -> bool:
        return self.stat(path) is not None

    def is_directory(self, path: str) -> bool:
        found = self.stat(path)
        return found is not None and stat.S_ISDIR(found.st_mode)

    def names(self, path: str) -> list[str]:
        """Names in a directory in byte order.

        Raises:
            Unreadable: it is not a directory, or it may not be read.
        """
        try:
            return sorted(os.listdir(self.real(path)), key=os.fsencode)
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from None

    def read(self, path: str, limit: int = MAX_SIZE) -> bytes:
        """The content of a regular file.

        Args:
            limit: bytes; a larger file is not read.

        Raises:
            Unreadable: it is missing, larger, no regular file, or it may not be read.
        """
        data = self._read(path, limit + 1)
        if len(data) > limit:
            raise Unreadable(path, f"it is larger than {limit >> 10} KiB")
        return data

    def _read(self, path: str, size: int) -> bytes:
        try:
            # A FIFO would block a plain open until somebody writes to it.
            descriptor = os.open(self.real(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            with open(descriptor, "rb") as file:
                mode = os.fstat(descriptor).st_mode
                if not stat.S_ISREG(mode):
                    raise Unreadable(path, "it is a directory" if stat.S_ISDIR(mode) else "not a regular file")
                return file.read(size)
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from None

    def head(self, path: str, size: int) -> bytes:
        """The first bytes of a regular file, at most ``size``.

        Raises:
            Unreadable: as ``read``.
        """
        return self._read(path, size)

    def text(self, path: str, limit: int = MAX_SIZE) -> str:
        """The content as text, as ``read``; what is not UTF-8 is replaced."""
        return self.read(path, limit).decode("utf-8", "replace")


class Planned(Tree):
    """The same files with some that are not written yet.

    Args:
        files: path without links -> content and mode; None for what will be gone.
        directories: that are not made yet, without links.
    """

    def __init__(self, root: str, files: dict[str, tuple[bytes, int] | None], directories: Collection[str]) -> None:
        super().__init__(root)
        self._files = files
        self._directories = frozenset(directories)

    def target(self, path: str) -> str:
        above, name = os.path.split(path.rstrip("/"))
        place = os.path.join(super().target(above or "/"), name)
        # A planned file takes the place of a link of its name.
        return place if place in self._files or place in self._directories else super().target(path)

    def stat(self, path: str) -> os.stat_result | None:
        try:
            target = self.target(path)
        except (OSError, ValueError):
            return None
        if target in self._files:
            planned = self._files[target]
            return _stat(stat.S_IFREG | planned[1], len(planned[0])) if planned else None
        return _stat(stat.S_IFDIR | 0o755, 0) if target in self._directories else super().stat(path)

    def names(self, path: str) -> list[str]:
        place = self.target(path)
        try:
            found = set(super().names(path))
        except Unreadable:
            if place not in self._directories:
                raise
            found = set()
        for planned in (*self._files, *self._directories):
            directory, name = os.path.split(planned)
            if directory == place:
                (found.discard if planned in self._files and self._files[planned] is None else found.add)(name)
        return sorted(found, key=os.fsencode)

    def _read(self, path: str, size: int) -> bytes:
        target = self.target(path)
        if target not in self._files:
            return super()._read(path, size)
        planned = self._files[target]
        if planned is None:
            raise Unreadable(path, os.strerror(errno.ENOENT), missing=True)
        return planned[0][:size]


def _stat(mode: int, size: int) -> os.stat_result:
    """Of root's, as old as can be."""
    return os.stat_result((mode, 0, 0, 1, 0, 0, size, 0, 0, 0))


def _unreadable(path: str, error: OSError | ValueError) -> Unreadable:
    # ValueError: a NUL in the path.
    reason = (error.strerror or type(error).__name__) if isinstance(error, OSError) else "invalid path"
    missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
    return Unreadable(path, reason, missing=missing, denied=isinstance(error, PermissionError))
