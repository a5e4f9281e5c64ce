"""Reads a file of the node with a bound. Nothing but a regular file: a FIFO would block until somebody writes to it.

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
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
            raise OSError(code, os.strerror(code) if code == errno.EISDIR else "not a regular file", path)
        return file.read(limit)
