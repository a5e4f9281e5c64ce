"""Reads a file of the node with a bound: a regular one, or /dev/null. A FIFO would block until somebody writes.

>>> read("/etc/hostname", 64)
b'worker-1\\n'
"""

from __future__ import annotations

import errno
import os
import stat


def read(path: str, limit: int) -> bytes:
    """The first bytes of a file, at most ``limit``.

    Raises:
        OSError: it cannot be read, or is not a regular file (EINVAL).
    """
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        status = os.fstat(file.fileno())
        if stat.S_ISDIR(status.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(status.st_mode) and status.st_rdev != os.stat(os.devnull).st_rdev:
            raise OSError(errno.EINVAL, "not a regular file", path)
        return file.read(limit)
