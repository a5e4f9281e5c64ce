"""Auth files that CRI-O took for a pull and did not remove after it: one that is killed leaves them, for ever.

For commands alone. docs/reference/contracts.md, 2.
"""

from __future__ import annotations

import os
import re
import stat
import time
from typing import NamedTuple

IN_USE = "in-use"
"""Directory below the auth directory into which CRI-O renames a file for the time of a pull."""

# An auth file's name with a UUID before its ending.
_NAME = re.compile(r".+-[0-9a-f]{64}-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.json")


class Taken(NamedTuple):
    """A file in ``in-use``.

    Attributes:
        path: of the file.
        age: seconds since the plugin wrote it; the renaming leaves that time as it was.
        is_orphan: whether the CRI-O that took it does not run any more, so that no pull uses the file.
    """

    path: str
    age: float
    is_orphan: bool


def find_taken(auth_dir: str, crio_started: float) -> list[Taken]:
    """All of them, the oldest first.

    Args:
        auth_dir: where it is for this process.
        crio_started: seconds since the epoch, at the earliest, when the running CRI-O was started; 0.0 where none runs
            or that is not known.

    Raises:
        OSError: the directory cannot be read.
    """
    now, found = time.time(), []
    try:
        entries = list(os.scandir(os.path.join(auth_dir, IN_USE)))
    except FileNotFoundError:
        return []
    for entry in entries:
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        if _NAME.fullmatch(entry.name) and stat.S_ISREG(status.st_mode):
            # Renaming a file sets its ctime, which nobody else has a reason to.
            found.append(Taken(entry.path, now - status.st_mtime, status.st_ctime < crio_started))
    return sorted(found, key=lambda file: (-file.age, file.path))
