"""One auth file for each pull: runs take turns at a file name, and sweep up what nobody comes for.

CRI-O takes a file away with the pull it serves. A run that finds its predecessor's file still in place waits until it
is taken, or until nobody is coming for it: the file is older than a grace, and the kubelet has no pull intent for the
repository. Runs wait in line behind a lock on one byte of one file, which the kernel grants in order and frees when a
process dies. Knows nothing about what is in an auth file. Why it is done so, and measured how:
docs/decisions/0004-hand-off.md.
"""

from __future__ import annotations

import binascii
import fcntl
import os
import time

from ..kubernetes.pullintents import PullIntents
from ..platform.record import Record
from . import authfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK_FILE = "hand-off.lock"

BLIND_GRACE = 1.0
"""Seconds for which a file counts as expected where it cannot be told which pulls are to come: the kubelet keeps no
intents, or not all of them can be used."""

BLIND_STALE_AFTER = 3600.0
"""Seconds after which a file counts as left behind where that cannot be told: a pull may queue for long."""

KEEPER_LIMIT = 600.0
"""Seconds that a keeper stays in line at most."""

LEAST_GRACE = 0.01
"""Seconds to which the grace shrinks, halved for each file in a row that nobody came for."""

_LEAST_WAIT = 0.001
"""Seconds that a wait for a lock lasts at least, so that its alarm comes when it has begun."""

_POLL = 0.005
"""Seconds between two looks at the predecessor's file; only the first in line looks."""

_STALE_TEMPORARY = 60.0
"""Seconds after which a temporary file was left by a run that was killed; the kubelet kills runs at 60."""


class Line:
    """Turns at file names: locks on one byte each of a file that stays small and need not be cleaned up.

    POSIX record locks: waiters are served first come, first served (Linux 5.0 and later wake only the first), and
    the locks of a process end with it. The byte itself says how many files in a row nobody came for.

    Args:
        directory: made (0700) if it is missing; where that fails, every lock is granted at once.
    """

    def __init__(self, directory: str) -> None:
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(os.path.join(directory, LOCK_FILE), flags, 0o600)
        except OSError:
            self._descriptor = -1
        self._held: set[int] = set()

    @property
    def works(self) -> bool:
        """Whether there is a file to lock."""
        return self._descriptor >= 0

    def enter(self, name: str, limit: float) -> bool:
        """Waits for the turn at a file name.

        Args:
            limit: on the monotonic clock.

        Returns:
            Whether the turn came in time. It lasts until ``leave`` or the end of the process.
        """
        if self.try_enter(name):
            return True
        seconds = limit - time.monotonic()
        if seconds <= 0:
            return False
        import signal

        waits = True

        def time_is_up(_signal: int, _frame: object) -> None:
            # An alarm may still come when the wait is over, where nothing would catch it.
            if waits:
                raise TimeoutError

        signal.signal(signal.SIGALRM, time_is_up)
        try:
            # Repeated, since an alarm is lost that comes just before the call into the kernel, or where Python cannot
            # raise, as in a finalizer.
            signal.setitimer(signal.ITIMER_REAL, max(seconds, _LEAST_WAIT), 1.0)
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1, _place(name))
        except TimeoutError:
            # It may have come between the grant and here: what this process has, the kernel grants once more.
            pass
        except OSError:
            # The file system keeps no locks, or the kernel has no room for one: every turn is granted.
            return True
        finally:
            waits = False
            signal.setitimer(signal.ITIMER_REAL, 0)
        return self.try_enter(name)

    def try_enter(self, name: str) -> bool:
        """Takes the turn if nobody has it, this process included: the kernel would grant it twice."""
        if self._descriptor < 0:
            return True
        if _place(name) in self._held:
            return False
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(name))
            self._held.add(_place(name))
            return True
        except OSError:
            return False

    def leave(self, name: str) -> None:
        if self._descriptor >= 0:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _place(name))
            self._held.discard(_place(name))

    def forget(self) -> None:
        """For a forked process, which has none of its parent's turns."""
        self._held.clear()

    def unclaimed(self, name: str) -> int:
        """How many files in a row nobody came for; asked and told by who has the turn."""
        data = os.pread(self._descriptor, 1, _place(name)) if self._descriptor >= 0 else b""
        return data[0] if data else 0

    def tell_unclaimed(self, name: str, count: int) -> None:
        if self._descriptor < 0 or count == self.unclaimed(name):
            return
        try:
            os.pwrite(self._descriptor, bytes([min(count, 255)]), _place(name))
        except OSError:
            # A full disk: the grace is then not halved, and nothing is lost.
            return


def _place(name: str) -> int:
    """The byte that stands for a file name; two names that share one take turns for nothing, and lose nothing."""
    return binascii.crc32(name.encode()) % 2**20


class Ended(BaseException):
    """A keeper was told to end."""


def _end(_signal: int, _frame: object) -> None:
    raise Ended


class HandOff:
    """The hand-off of one auth file.

    Args:
        directory, name, repository: of the auth file.
        line: where runs queue.
        intents: of the kubelet.
        grace: seconds in which an intent appears after a run has answered. Halved for each file in a row that nobody
            came for, so that a hundred checks of a present image are over in a second or two.
    """

    def __init__(
        self, directory: str, name: str, repository: str, line: Line, intents: PullIntents, grace: float
    ) -> None:
        self._path = os.path.join(directory, name)
        self._name = name
        self._repository = repository
        self._line = line
        self._intents = intents
        self._grace = grace
        self._has_turn = False

    def wait(self, limit: float) -> bool:
        """Waits for the turn, and then until the predecessor's file is taken or nobody is coming for it. May be called
        again after a wait in vain.

        Args:
            limit: on the monotonic clock.

        Returns:
            Whether the name is free in time; the turn is then held until the process ends, so that the next in line
            starts to count when the kubelet has the answer.
        """
        queued = not self._has_turn and not self._line.try_enter(self._name)
        if queued and not self._line.enter(self._name, limit):
            return False
        self._has_turn = True
        arrived = time.monotonic()
        streak = self._line.unclaimed(self._name)
        shrunk = max(self._grace / 2**streak, min(self._grace, LEAST_GRACE))
        while True:
            try:
                age = time.time() - os.lstat(self._path).st_mtime
            except OSError:
                self._line.tell_unclaimed(self._name, 0)
                return True
            # Who had to queue was let in by the predecessor's end; the age alone would count its last steps, too.
            watched = time.monotonic() - arrived
            unclaimed = watched if queued else max(watched, age)
            awaited = self.is_awaited()
            grace = max(self._grace, BLIND_GRACE) if awaited is None else shrunk
            if unclaimed >= grace and not awaited:
                self._line.tell_unclaimed(self._name, streak + 1 if queued else 0)
                return True
            if time.monotonic() >= limit:
                return False
            time.sleep(_POLL)

    def is_awaited(self) -> bool | None:
        """Whether the kubelet says that it is about to pull from this repository; None where that cannot be told."""
        if self._repository in self._intents.repositories():
            return True
        return False if self._intents.available() else None

    def may_be_queued(self) -> bool:
        """Whether a pull may come to this repository later than the kubelet has its answer: it is awaited, or some of
        the intents that the kubelet keeps cannot be used."""
        return self._intents.is_kept() and self.is_awaited() is not False

    def leave_keeper(self) -> bool:
        """Forks a process that stays in line after this run has answered.

        With serial pulls the last of many pods comes later than a run may wait, and its pull is then already in the
        kubelet's queue. Its keeper puts the file in place when the one before it was taken.

        Returns:
            True in the keeper; False in the run.

        Raises:
            OSError: the system has no room for a process.
        """
        # What a keeper may come to need: its program may be updated or removed while it waits. In the bundle this
        # brings the whole of `os` as well. Where the program is gone already, most keepers need none of it.
        try:
            import json  # noqa: F401
            import select  # noqa: F401
            import signal  # noqa: F401
        except (ImportError, OSError):
            pass
        return os.fork() == 0

    @staticmethod
    def ignore_end() -> None:
        """For a keeper whose outcome is decided: SIGTERM takes nothing from what it still has to log."""
        import signal

        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def become_keeper(self) -> None:
        """For the forked process: lets go of what is the run's. From now on SIGTERM raises ``Ended``."""
        import signal

        signal.signal(signal.SIGTERM, _end)
        self._line.forget()
        self._has_turn = False
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)


class Queue(Record):
    """What the runs of one node share: the line they wait in, and the kubelet's intents."""

    __slots__ = ("intents", "line")

    def __init__(self, directory: str, kubelet_root: str) -> None:
        self.line = Line(directory)
        self.intents = PullIntents(kubelet_root)

    def turn(self, directory: str, name: str, repository: str, grace: float) -> HandOff:
        """The hand-off of one auth file; arguments as those of ``HandOff``."""
        return HandOff(directory, name, repository, self.line, self.intents, grace)


# -- sweeping ---------------------------------------------------------------------------------------------------------


TAKEN, REPLACED, IN_TURN = (
    "taken by a pull in the meantime",
    "replaced in the meantime",
    "in use by a run of the plugin",
)
"""Why a file that seemed stale was left; none of them is a fault."""


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
