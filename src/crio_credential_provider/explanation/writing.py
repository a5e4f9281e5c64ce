"""Whether the plugin could write an auth file on this node, found out without writing."""

from __future__ import annotations

import errno
import os

from ..errors import AuthFileError
from ..pull import authfile


def why_not(path: str) -> AuthFileError | None:
    """The error with which writing the file would fail; None where nothing stands against it."""
    directory = os.path.dirname(path)
    there = directory
    # The plugin makes what is missing.
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    try:
        if there == directory:
            authfile.check_directory(directory)
        number = _why_not_in(there)
    except AuthFileError as error:
        return error
    except OSError as error:
        return authfile.unwritable(path, error)
    return authfile.unwritable(path, OSError(number, os.strerror(number))) if number else None


def _why_not_in(directory: str) -> int:
    """The number of the system's error for a new file, 0 for none."""
    if not os.path.isdir(directory):
        return errno.ENOTDIR
    system = os.statvfs(directory)
    if system.f_flag & os.ST_RDONLY:
        return errno.EROFS
    # Some file systems count no inodes. The blocks kept for root count: it is root who writes.
    if (system.f_blocks and not system.f_bfree) or (system.f_files and not system.f_ffree):
        return errno.ENOSPC
    return 0 if os.access(directory, os.W_OK | os.X_OK) else errno.EACCES
