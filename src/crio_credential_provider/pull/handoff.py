"""One auth file for each pull: runs take turns at a file name.

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
import sys
import time

from ..kubernetes.pullintents import PullIntents, kubelet_start

LOCK_FILE = "hand-off.lock"

BLIND_GRACE = 1.0
"""Seconds for which a file counts as expected where it cannot be told which pulls are to come: the kubelet keeps no
intents, or not all of them can be used."""

KEEPER_LIMIT = 600.0
"""Seconds that a keeper stays in line at most."""

LEAST_GRACE = 0.01
"""Seconds to which the grace shrinks, halved for each file in a row that nobody came for."""

_LEAST_WAIT = 0.001
"""Seconds that a wait for a lock lasts at least, so that its alarm comes when it has begun."""

_POLL = 0.005
"""Seconds between two looks at the predecessor's file; only the first in line looks."""


class Line:
    """Turns at file names: locks on one byte each of a file that stays small and need not be cleaned up.

    Locks of the open file description: waiters are served first come, first served (Linux 5.0 and later wake only the
    first), and the locks end with the last process that has the file open. The byte itself says how many files in a row
    no pull took.

    Args:
        directory: made (0700) if it is missing; where that fails, every lock is granted at once.
    """

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, LOCK_FILE)
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            self._descriptor = self._open()
        except OSError:
            self._descriptor = -1
        self._held: set[int] = set()

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

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
            self._lock(fcntl.F_OFD_SETLKW, fcntl.F_WRLCK, name)
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
            self._lock(fcntl.F_OFD_SETLK, fcntl.F_WRLCK, name)
            self._held.add(_place(name))
            return True
        except OSError:
            return False

    def leave(self, name: str) -> None:
        if self._descriptor >= 0:
            self._lock(fcntl.F_OFD_SETLK, fcntl.F_UNLCK, name)
            self._held.discard(_place(name))

    def forget(self) -> None:
        """For a forked process, which shares its parent's turns until it lets go of the file."""
        self._held.clear()
        if self._descriptor < 0:
            return
        shared = self._descriptor
        try:
            # The same file, even where its name is gone by now: the others still wait there.
            self._descriptor = os.open(f"/proc/self/fd/{shared}", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            self._descriptor = -1
        os.close(shared)

    def _lock(self, command: int, kind: int, name: str) -> None:
        """fcntl(2) with a ``struct flock``: of 64-bit Linux, type, whence 0, a gap, start and length, process."""
        numbers = ((kind, 2), (0, 2), (0, 4), (_place(name), 8), (1, 8), (0, 8))
        fcntl.fcntl(
            self._descriptor, command, b"".join(number.to_bytes(size, sys.byteorder) for number, size in numbers)
        )

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


def _watch_kubelet() -> int:
    """A descriptor that can be read when the kubelet that runs this process has ended; -1 where that cannot be told. A
    keeper has another parent, and takes the descriptor along."""
    try:
        return os.pidfd_open(os.getppid()) if kubelet_start() else -1
    except OSError:
        return -1


def detach() -> None:
    """For a forked process: lets go of the kubelet's pipes, which it reads to their end, and of its session."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)


class Ended(BaseException):
    """A keeper was told to end."""


def _end(number: int, _frame: object) -> None:
    import signal

    # Once is enough: a second one would end what tells of the first.
    signal.signal(number, signal.SIG_IGN)
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
        self._kubelet: int | None = None

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
        if self._kubelet is None and (queued or os.path.lexists(self._path)):
            self._kubelet = _watch_kubelet()
        if queued and not self._line.enter(self._name, limit):
            return False
        self._has_turn = True
        arrived = time.monotonic()
        streak = self._line.unclaimed(self._name)
        shrunk = max(self._grace / 2**streak, min(self._grace, LEAST_GRACE))
        while not self.is_orphan():
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
        return False

    @property
    def was_contended(self) -> bool:
        """Whether somebody had the turn, or a file of the name was there."""
        return self._kubelet is not None

    def is_orphan(self) -> bool:
        """Whether the kubelet that asked is gone, and its pulls with it: the next one asks for each of them anew."""
        if self._kubelet is None or self._kubelet < 0:
            return False
        import select

        return bool(select.select([self._kubelet], [], [], 0)[0])

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
        detach()
