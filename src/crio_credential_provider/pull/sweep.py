"""Sweeping: auth files that no pull will take, and temporary files of runs that were killed.

A file is removed by who has the turn at its name (``handoff``), so that no run loses the one that it has just written.
"""

from __future__ import annotations

import os
import time

from ..kubernetes.pullintents import PullIntents
from ..platform.record import Record
from . import authfile
from .handoff import Line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..settings import Settings
    from .audit import Audit

BLIND_STALE_AFTER = 3600.0
"""Seconds after which a file counts as left behind where that cannot be told: a pull may queue for long."""

_STALE_TEMPORARY = 60.0
"""Seconds after which a temporary file was left by a run that was killed; the kubelet kills runs at 60."""

TAKEN, REPLACED, IN_TURN = (
    "taken by a pull in the meantime",
    "replaced in the meantime",
    "in use by a run of the plugin",
)
"""Why a file that seemed stale was left; none of them is a fault."""


def sweep(settings: Settings, audit: Audit) -> None:
    """Removes what is stale in the auth directory."""
    intents, line = PullIntents(settings.kubelet_root_dir), Line(settings.cache_dir)
    stale = find_stale(settings.auth_dir, settings.stale_after, intents)
    removed = [file.name for file in stale if not remove_stale(settings.auth_dir, file, line)]
    audit.details += intents.problems
    audit.swept = len(removed)
    if removed:
        audit.details.append(f"removed stale files: {' '.join(removed)}")


class Stale(Record):
    """A file that nobody is coming for. ``age`` is in seconds."""

    __slots__ = ("age", "name")

    def __init__(self, name: str, age: float) -> None:
        self.name = name
        self.age = age


def find_stale(directory: str, stale_after: float, intents: PullIntents) -> list[Stale]:
    """Auth files that no pull will take, and temporary files of killed runs.

    Args:
        directory: the auth directory; ``in-use`` below it is CRI-O's and not looked into.
        stale_after: seconds of age from which a file that no intent names is stale.
    """
    old = [file for file in _auth_files(directory) if file.age >= stale_after]
    if not old:
        return []
    awaited = {authfile.digest(repository) for repository in intents.repositories()}
    if not intents.available():
        stale_after = max(stale_after, BLIND_STALE_AFTER)
    return [
        file
        for file in old
        if (
            file.age >= _STALE_TEMPORARY
            if authfile.is_temporary(file.name)
            else file.age >= stale_after and authfile.repository_digest(file.name) not in awaited
        )
    ]


def _auth_files(directory: str) -> Iterator[Stale]:
    now = time.time()
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if authfile.is_temporary(entry.name) or authfile.repository_digest(entry.name):
            try:
                yield Stale(entry.name, now - entry.stat(follow_symlinks=False).st_mtime)
            except OSError:
                continue


def remove_stale(directory: str, file: Stale, line: Line) -> str:
    """Removes a stale file, unless it was taken or replaced in the meantime, or somebody has the turn at its name.

    Returns:
        Why it was left, one of the constants above or what the system says; "" where it was removed.
    """
    path = os.path.join(directory, file.name)
    if not line.try_enter(file.name):
        return IN_TURN
    try:
        # With the turn held nobody replaces it: what is there now is what will be removed.
        if time.time() - os.lstat(path).st_mtime < file.age:
            return REPLACED
        os.unlink(path)
        return ""
    except FileNotFoundError:
        return TAKEN
    except OSError as error:
        return error.strerror or type(error).__name__
    finally:
        line.leave(file.name)
