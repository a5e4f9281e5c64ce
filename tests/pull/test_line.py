"""Turns at a file name: who waits for whom, how long, and whose end ends a turn."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from crio_credential_provider.pull import handoff
from crio_credential_provider.pull.handoff import Line
from handingoff import BETA_NAME, NAME, SLACK, Fork, hold, soon, until_queued

pytestmark = pytest.mark.process


def test_first_come_first_served(fork: Fork, lock_dir: str) -> None:
    line = Line(lock_dir)
    assert line.enter(NAME, soon())
    order, tell = os.pipe()
    waiters = []
    for number in range(10):

        def work(number: int = number) -> None:
            assert Line(lock_dir).enter(NAME, soon(30))
            os.write(tell, bytes([number]))

        waiters.append(fork(work))
        until_queued(lock_dir, len(waiters))
    os.set_blocking(order, False)
    with pytest.raises(BlockingIOError):
        os.read(order, 1)
    line.leave(NAME)
    assert [waiter.join() for waiter in waiters] == [0] * 10
    assert list(os.read(order, 100)) == list(range(10))
    os.close(order)
    os.close(tell)


def test_a_killed_holder_holds_nobody_up(fork: Fork, lock_dir: str) -> None:
    holder = hold(fork, lock_dir)
    line = Line(lock_dir)
    assert not line.try_enter(NAME)
    threading.Timer(0.2, holder.kill).start()
    begin = time.monotonic()
    assert line.enter(NAME, soon())
    assert 0.15 < time.monotonic() - begin < 0.2 + SLACK


def test_a_killed_waiter_holds_nobody_up(fork: Fork, lock_dir: str) -> None:
    line = Line(lock_dir)
    assert line.enter(NAME, soon())

    def work() -> None:
        assert Line(lock_dir).enter(NAME, soon(30))

    waiters = [fork(work) for _ in range(3)]
    until_queued(lock_dir, 3)
    waiters[0].kill()
    waiters[1].kill()
    line.leave(NAME)
    assert waiters[2].join() == 0


def test_the_end_of_a_process_is_the_end_of_its_turn(fork: Fork, lock_dir: str) -> None:
    hold(fork, lock_dir, seconds=0).join()
    assert Line(lock_dir).try_enter(NAME)


def test_the_limit_is_kept(fork: Fork, lock_dir: str) -> None:
    holder = hold(fork, lock_dir)
    line = Line(lock_dir)
    begin = time.monotonic()
    assert not line.enter(NAME, begin + 0.3)
    assert 0.29 < time.monotonic() - begin < 0.3 + SLACK
    # Nothing is left that could interrupt what comes after it.
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    holder.kill()
    assert line.enter(NAME, soon())


@pytest.mark.parametrize("seconds", [0.0, -5.0, 1e-9, 1e-6, 2e-5])
def test_a_limit_that_is_over_already_waits_for_nothing(fork: Fork, lock_dir: str, seconds: float) -> None:
    """Also where the alarm would go off before the wait has begun."""
    hold(fork, lock_dir)
    line = Line(lock_dir)

    def work() -> None:
        # Coverage holds a lock while it notes a call: an alarm would leave that locked, for ever.
        sys.settrace(None)
        for _ in range(20):
            assert not line.enter(NAME, time.monotonic() + seconds)

    begin = time.monotonic()
    assert fork(work).join() == 0
    assert time.monotonic() - begin < 20 * 0.05 + SLACK


def test_an_alarm_just_before_the_wait_is_not_lost(fork: Fork, lock_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel interrupts a wait, and nothing that comes before it: so the alarm must come again."""
    hold(fork, lock_dir)
    alarms = []
    install = signal.signal

    def hard_of_hearing(number: int, handler: Callable[..., None]) -> None:
        def heard(*args: object) -> None:
            alarms.append(args)
            if len(alarms) > 1:
                handler(*args)

        install(number, heard)

    monkeypatch.setattr(signal, "signal", hard_of_hearing)
    begin = time.monotonic()
    assert not Line(lock_dir).enter(NAME, begin + 0.05)
    assert len(alarms) == 2
    assert time.monotonic() - begin < 1.05 + SLACK


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_alarm_where_python_cannot_raise_is_not_lost(
    fork: Fork, lock_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python tells of an exception in a finalizer, and goes on."""
    hold(fork, lock_dir)
    line = Line(lock_dir)
    set_timer = signal.setitimer

    class Finalizer:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGALRM)

    def lost(which: int, seconds: float, *interval: float) -> tuple[float, float]:
        try:
            return set_timer(which, 0.5 if seconds else 0, *interval)
        finally:
            if seconds:
                Finalizer()

    monkeypatch.setattr(signal, "setitimer", lost)
    begin = time.monotonic()
    assert not line.enter(NAME, begin + 0.5)
    assert 0.4 < time.monotonic() - begin < 0.5 + SLACK


@pytest.mark.parametrize("is_held", [False, True])
def test_an_alarm_just_after_the_wait_harms_nothing(
    fork: Fork, lock_dir: str, monkeypatch: pytest.MonkeyPatch, is_held: bool
) -> None:
    """Seen once in 9,500 runs on a busy machine (bench/kill.py): it was nobody's to catch, and ended the run."""
    line = Line(lock_dir)
    if is_held:
        hold(fork, lock_dir)
    else:
        enter, answers = line.try_enter, [False]
        monkeypatch.setattr(line, "try_enter", lambda name: answers.pop() if answers else enter(name))
    set_timer = signal.setitimer
    alarms = []

    def late(which: int, seconds: float, *interval: float) -> tuple[float, float]:
        if not seconds:
            alarms.append(which)
            os.kill(os.getpid(), signal.SIGALRM)
        return set_timer(which, seconds, *interval)

    monkeypatch.setattr(signal, "setitimer", late)
    assert line.enter(NAME, time.monotonic() + (0.2 if is_held else 30)) is not is_held
    assert len(alarms) == 1


def test_an_alarm_just_after_the_grant_loses_no_turn(
    fork: Fork, lock_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line(lock_dir)
    holder = hold(fork, lock_dir)
    lock = fcntl.fcntl
    late_ones = []

    def late(descriptor: int, command: int, *argument: bytes) -> None:
        lock(descriptor, command, *argument)
        if command == fcntl.F_OFD_SETLKW:
            late_ones.append(command)
            os.kill(os.getpid(), signal.SIGALRM)

    monkeypatch.setattr(fcntl, "fcntl", late)
    threading.Timer(0.1, os.kill, (holder.pid, signal.SIGKILL)).start()
    assert line.enter(NAME, soon())
    assert late_ones and not line.try_enter(NAME)


def test_names_have_turns_of_their_own(fork: Fork, lock_dir: str) -> None:
    hold(fork, lock_dir)
    line = Line(lock_dir)
    assert not line.try_enter(NAME)
    assert line.try_enter(BETA_NAME)


@pytest.mark.parametrize("directory", ["", "/dev/null/x", "/proc/nothing/x"])
def test_without_a_directory_every_turn_is_granted(fork: Fork, directory: str) -> None:
    hold(fork, directory)
    line = Line(directory)
    assert not line.works
    assert line.try_enter(NAME) and line.enter(NAME, soon())
    line.tell_unclaimed(NAME, 3)
    assert line.unclaimed(NAME) == 0
    line.leave(NAME)


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path: Path, lock_dir: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    os.mkdir(lock_dir)
    os.symlink(victim, os.path.join(lock_dir, handoff.LOCK_FILE))
    line = Line(lock_dir)
    assert not line.works
    line.tell_unclaimed(NAME, 3)
    assert victim.read_bytes() == b"precious"


def test_a_file_system_without_locks_grants_every_turn(lock_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(lock_dir)

    def refuse(*args: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    assert not line.try_enter(NAME)
    assert line.enter(NAME, soon())
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_the_files_that_nobody_came_for_are_counted(lock_dir: str) -> None:
    line = Line(lock_dir)
    assert line.works
    for count in (1, 7, 255, 0):
        line.tell_unclaimed(NAME, count)
        assert (line.unclaimed(NAME), Line(lock_dir).unclaimed(NAME), line.unclaimed(BETA_NAME)) == (count, count, 0)
    line.tell_unclaimed(NAME, 1000)
    assert line.unclaimed(NAME) == 255
    path = Path(lock_dir, handoff.LOCK_FILE)
    assert (path.stat().st_mode & 0o777, os.stat(lock_dir).st_mode & 0o777) == (0o600, 0o700)
    # One block of it is real, the rest a hole.
    assert path.stat().st_size <= 2**20 and path.stat().st_blocks * 512 <= 64 * 1024


def test_a_full_disk_stops_no_count(fork: Fork, lock_dir: str) -> None:
    def work() -> None:
        line = Line(lock_dir)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        line.tell_unclaimed(NAME, 1)
        assert line.unclaimed(NAME) == 0

    assert fork(work).join() == 0
