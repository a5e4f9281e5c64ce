"""The parsed form of configuration files, kept between runs so that TOML and YAML are parsed only when they changed.

A kept form is used only for exactly the files it was made from: same paths in the same order, each with the same
device, inode, size, mtime and ctime, or still missing; ctime moves with every change and cannot be set back. A file
that changed less than two seconds ago is not kept, since a further change could leave all of that as it is on a file
system with coarse times. Never holds a secret; a failure to keep does not fail the run.

Docs: docs/decisions/0003-parse-cache.md.
"""

from __future__ import annotations

import binascii
import json
import os
import stat
import time

from .. import __version__
from . import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Snapshot = list[list[Any]]

_SETTLED_NS = 2_000_000_000
"""Age in nanoseconds from which a file's times tell its next change; FAT has the coarsest, 2 s."""

_VERSION = f"{__version__}/5"
"""Of this program, and of what its kept forms look like: the number goes up with every change between two releases."""

_MAX_SIZE = 64 * 1024 * 1024
"""Bytes of a kept form; more is not read."""


class ParseCache:
    """Kept forms in one directory that belongs to the user of the process and nobody else can write to.

    Args:
        directory: made (0700) when the first form is kept; "" keeps nothing.
        kind: what is parsed, part of the file's name; forms of different kinds never meet.
    """

    def __init__(self, directory: str, kind: str) -> None:
        self._directory = directory
        self._kind = kind

    def form(self, paths: Sequence[str], make: Callable[[], Any]) -> Any:
        """The form of the files: the kept one, else what ``make`` makes of them, which is then kept."""
        if not self._directory:
            return make()
        kept = self.load(paths)
        if kept is None:
            snapshot = self.snapshot(paths)
            kept = make()
            self.store(snapshot, kept)
        return kept

    def snapshot(self, paths: Sequence[str]) -> Snapshot:
        """What identifies the files as they are now; taken before they are read."""
        return [[path, *_identity(path)] for path in paths]

    def load(self, paths: Sequence[str]) -> Any:
        """The form kept for exactly these files, or None."""
        try:
            descriptor = os.open(self._path(paths), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                status = os.fstat(descriptor)
                if not _is_ours(status, stat.S_ISREG) or not self._directory_is_ours():
                    return None
                # In one piece, as a file gives it; of a piece that is missing the checksum tells.
                checksum, _, data = os.read(descriptor, min(status.st_size, _MAX_SIZE)).partition(b"\n")
            finally:
                os.close(descriptor)
            # The checksum tells a torn or damaged file; the owner and the mode that nobody else wrote it.
            if checksum != _checksum(data):
                return None
            kept = json.loads(data.decode())
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(kept, dict) or kept.get("version") != _VERSION or kept.get("files") != self.snapshot(paths):
            return None
        return kept.get("form")

    def store(self, snapshot: Snapshot, form: Any) -> None:
        """Keeps a form made from the files of a snapshot, unless one of them changed just now or since."""
        paths = [entry[0] for entry in snapshot]
        horizon = time.time_ns() - _SETTLED_NS
        if self.snapshot(paths) != snapshot or any(entry[-1] >= horizon for entry in snapshot if len(entry) > 1):
            return
        data = jsontext.dumps({"version": _VERSION, "files": snapshot, "form": form}).encode()
        path = self._path(paths)
        temporary = f"{path}.{os.getpid()}.tmp"
        try:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            if not self._directory_is_ours():
                return
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            with open(os.open(temporary, flags, 0o600), "wb") as file:
                file.write(_checksum(data) + b"\n" + data)
            os.rename(temporary, path)
        except OSError:
            return

    def _path(self, paths: Sequence[str]) -> str:
        # The name only keeps runs with other files from taking turns at one kept form; what counts is inside.
        name = binascii.crc32("\0".join(paths).encode("utf-8", "surrogateescape"))
        return os.path.join(self._directory, f"{self._kind}-{name:08x}.json")

    def _directory_is_ours(self) -> bool:
        return _is_ours(os.lstat(self._directory), stat.S_ISDIR)


def _identity(path: str) -> list[int]:
    """Device, inode, size, mtime and ctime in nanoseconds; empty for a file that is not there.

    The error number for one that cannot be asked: that is not a missing file, and reading it would tell.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return []
    except OSError as error:
        return [error.errno or 0]
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _is_ours(status: os.stat_result, is_type: Any) -> bool:
    """Of the expected type, owned by the user of the process, and written by nobody else."""
    return is_type(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _checksum(data: bytes) -> bytes:
    return b"%08x" % binascii.crc32(data)
