"""Turns at a file name, the wait for the predecessor's file, keepers, and the sweep: units first, then the plugin."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import NodeMaker
from crio_credential_provider.kubernetes.pullintents import PullIntents
from crio_credential_provider.pull import authfile, handoff, sweep
from crio_credential_provider.pull.handoff import HandOff, Line
from crio_credential_provider.pull.sweep import Stale
from crio_credential_provider.testbed.cluster import ApiServer
from node import NGINX, SOURCES, Node, Run, basic, request

pytestmark = pytest.mark.process

NAME = authfile.file_name("team-alpha", NGINX)
BETA_NAME = authfile.file_name("team-beta", NGINX)

# Seconds by which a machine that runs other tests beside may be late.
SLACK = 2.0


class Child:
    """A fork that runs a function and is gone; ended by force at the latest with the test."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.pid = os.fork()
        if not self.pid:
            status = 70
            try:
                work()
                status = 0
            finally:
                os._exit(status)
        self._is_over = False

    def kill(self) -> None:
        if not self._is_over:
            os.kill(self.pid, signal.SIGKILL)
            self.join()

    def join(self) -> int:
        self._is_over = True
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to it"
        time.sleep(0.005)


def until_queued(lock_dir: str, count: int) -> None:
    """Returns when so many wait for a lock, by the kernel's own account (arrows in /proc/locks)."""
    file = f":{os.stat(os.path.join(lock_dir, handoff.LOCK_FILE)).st_ino} "
    until(lambda: sum("->" in line and file in line for line in Path("/proc/locks").read_text().splitlines()) == count)


def soon(seconds: float = 10) -> float:
    return time.monotonic() + seconds


@pytest.fixture
def fork() -> Iterator[Callable[[Callable[[], None]], Child]]:
    children: list[Child] = []

    def make(work: Callable[[], None]) -> Child:
        children.append(Child(work))
        return children[-1]

    yield make
    for child in children:
        child.kill()


Fork = Callable[[Callable[[], None]], Child]


@pytest.fixture
def lock_dir(tmp_path: Path) -> str:
    return str(tmp_path / "run")


def hold(fork: Fork, lock_dir: str, name: str = NAME, seconds: float = 60) -> Child:
    """Another process that has the turn by now."""
    ready, tell = os.pipe()

    def work() -> None:
        Line(lock_dir).enter(name, soon())
        os.write(tell, b"x")
        time.sleep(seconds)

    child = fork(work)
    assert os.read(ready, 1) == b"x"
    os.close(ready)
    os.close(tell)
    return child


# -- the line ----------------------------------------------------------------------------------------------------------


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
    lock = fcntl.lockf

    def late(descriptor: int, kind: int, *place: int) -> None:
        lock(descriptor, kind, *place)
        if kind == fcntl.LOCK_EX:
            os.kill(os.getpid(), signal.SIGALRM)

    monkeypatch.setattr(fcntl, "lockf", late)
    threading.Timer(0.1, os.kill, (holder.pid, signal.SIGKILL)).start()
    assert line.enter(NAME, soon())
    assert not line.try_enter(NAME)


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

    monkeypatch.setattr(fcntl, "lockf", refuse)
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


# -- the wait ----------------------------------------------------------------------------------------------------------


class Place:
    """An auth directory, a kubelet's intents and a line."""

    def __init__(self, root: Path, lock_dir: str, *, keeps_intents: bool = True) -> None:
        self.directory = root / "auth"
        self.directory.mkdir()
        self.path = self.directory / NAME
        self.kubelet_root = root / "kubelet"
        self.intents = self.kubelet_root / "image_manager/pulling"
        if keeps_intents:
            self.intents.mkdir(parents=True)
        self.lock_dir = lock_dir
        self.line = Line(lock_dir)
        self.read = PullIntents(str(self.kubelet_root))

    def put(self, age: float = 0, name: str = NAME) -> Path:
        """The predecessor's file, or another one."""
        path = self.directory / name
        path.write_text("{}")
        os.utime(path, (time.time() - age,) * 2)
        return path

    def expect(self, image: str = "docker.io/nginx:1.27") -> Path:
        path = self.intents / f"sha256-{authfile.digest(image)}"
        path.write_text(json.dumps({"kind": "ImagePullIntent", "image": image}))
        return path

    def turn(self, grace: float) -> HandOff:
        return HandOff(str(self.directory), NAME, NGINX, self.line, self.read, grace)

    def wait(self, grace: float = 0.25, limit: float = 20) -> tuple[bool, float]:
        """Whether the name was free in time, and how long that took."""
        begin = time.monotonic()
        return self.turn(grace).wait(begin + limit), time.monotonic() - begin

    def wait_queued(self, fork: Fork, grace: float) -> float:
        """Seconds from the end of another process's turn; the name must have become free."""
        holder = hold(fork, self.lock_dir, seconds=60)
        ended: list[float] = []

        def end() -> None:
            ended.append(time.monotonic())
            holder.kill()

        timer = threading.Timer(0.1, end)
        timer.start()
        assert self.turn(grace).wait(soon())
        now = time.monotonic()
        timer.join()
        self.line.leave(NAME)
        return now - ended[0]


@pytest.fixture
def place(tmp_path: Path, lock_dir: str) -> Place:
    return Place(tmp_path, lock_dir)


@pytest.fixture
def old_kubelet(tmp_path: Path, lock_dir: str) -> Place:
    return Place(tmp_path, lock_dir, keeps_intents=False)


def test_a_free_name_is_free_at_once(place: Place, fork: Fork) -> None:
    place.expect()
    free, seconds = place.wait(grace=5)
    assert free and seconds < SLACK

    def others() -> None:
        assert not Line(place.lock_dir).try_enter(NAME)

    # The turn lasts on.
    assert fork(others).join() == 0


def test_a_file_that_is_taken_frees_its_name(place: Place) -> None:
    place.put()
    place.expect()
    threading.Timer(0.4, place.path.unlink).start()
    free, seconds = place.wait(grace=0.05)
    assert free and 0.35 < seconds < 0.4 + SLACK


def test_a_file_that_is_taken_within_the_grace_frees_its_name(place: Place) -> None:
    place.put()
    threading.Timer(0.2, place.path.unlink).start()
    free, seconds = place.wait(grace=8)
    assert free and 0.15 < seconds < 0.2 + SLACK


def test_where_nobody_comes_the_grace_is_all_that_is_waited(place: Place) -> None:
    place.put()
    free, seconds = place.wait(grace=0.4)
    assert free and 0.35 < seconds < 0.4 + SLACK
    assert place.path.exists()


def test_an_old_file_that_nobody_comes_for_costs_nothing(place: Place) -> None:
    place.put(age=10)
    free, seconds = place.wait(grace=8)
    assert free and seconds < SLACK


def test_who_had_to_queue_waits_for_the_grace_from_then_on(place: Place, fork: Fork) -> None:
    """The predecessor has only just answered, whatever its file's age says."""
    place.put(age=10)
    assert 0.45 < place.wait_queued(fork, grace=0.5) < 0.5 + SLACK


@pytest.mark.parametrize(("streak", "least", "most"), [(0, 0.8, 1.6), (1, 0.4, 0.8), (3, 0.1, 0.4), (9, 0.01, 0.1)])
def test_the_grace_is_halved_for_each_file_in_a_row(
    place: Place, fork: Fork, streak: int, least: float, most: float
) -> None:
    place.put()
    place.line.tell_unclaimed(NAME, streak)
    # A busy machine makes it longer, sometimes; never shorter.
    seconds = []
    for _ in range(5):
        place.line.tell_unclaimed(NAME, streak)
        seconds.append(place.wait_queued(fork, grace=0.8))
        assert seconds[-1] >= least * 0.95
        assert place.line.unclaimed(NAME) == streak + 1
        if seconds[-1] < most:
            return
    pytest.fail(f"waited {seconds}")


def test_a_file_that_was_taken_ends_the_row(place: Place, fork: Fork) -> None:
    place.line.tell_unclaimed(NAME, 5)
    place.wait_queued(fork, grace=0.1)
    assert place.line.unclaimed(NAME) == 0


def test_who_did_not_queue_begins_a_new_row(place: Place) -> None:
    place.put(age=60)
    place.line.tell_unclaimed(NAME, 5)
    assert place.wait(grace=0.1)[0]
    assert place.line.unclaimed(NAME) == 0


def test_an_intent_makes_it_wait_on_and_its_end_ends_that(place: Place) -> None:
    place.put(age=10)
    noted = place.expect()
    threading.Timer(0.5, noted.unlink).start()
    free, seconds = place.wait(grace=0.05)
    assert free and 0.45 < seconds < 0.5 + SLACK
    assert place.path.exists()


def test_an_intent_that_comes_within_the_grace_counts(place: Place) -> None:
    place.put()
    threading.Timer(0.1, place.expect).start()
    free, seconds = place.wait(grace=0.6, limit=1.2)
    assert not free and 1.15 < seconds < 1.2 + SLACK


def test_an_intent_for_another_repository_counts_for_nothing(place: Place) -> None:
    place.put(age=10)
    place.expect("docker.io/nginxinc/nginx-unprivileged")
    free, seconds = place.wait(grace=0.05)
    assert free and seconds < SLACK


def break_an_intent(place: Place) -> Path:
    path = place.intents / "sha256-00"
    path.write_text("{")
    return path


def make_the_directory_a_file(place: Place) -> Path:
    place.intents.rmdir()
    place.intents.write_text("")
    return place.intents


UNKNOWN = [break_an_intent, make_the_directory_a_file]


@pytest.mark.parametrize("spoil", UNKNOWN)
def test_where_the_intents_are_unknown_a_second_is_waited(place: Place, spoil: Callable[[Place], Path]) -> None:
    place.put()
    spoiled = spoil(place)
    free, seconds = place.wait(grace=0.05)
    assert free and 0.95 < seconds < 1.0 + SLACK
    assert [spoiled.name in problem for problem in place.read.problems] == [True]


def test_intents_that_become_unknown_during_the_wait_lengthen_it(place: Place) -> None:
    place.put()
    threading.Timer(0.2, break_an_intent, [place]).start()
    free, seconds = place.wait(grace=0.5)
    assert free and 0.95 < seconds < 1.0 + SLACK


def test_beside_a_broken_intent_the_others_count(place: Place) -> None:
    """The pull that is known to come is waited for, past the second."""
    place.put()
    break_an_intent(place)
    place.expect()
    free, seconds = place.wait(grace=0.05, limit=1.5)
    assert not free and 1.45 < seconds < 1.5 + SLACK


@pytest.mark.parametrize("grace", [0.05, 1.5])
def test_where_no_intents_are_kept_a_second_is_waited_at_least(old_kubelet: Place, grace: float) -> None:
    old_kubelet.put()
    free, seconds = old_kubelet.wait(grace)
    assert free and max(1.0, grace) - 0.05 < seconds < max(1.0, grace) + SLACK


def test_where_no_intents_are_kept_the_second_is_not_halved(old_kubelet: Place, fork: Fork) -> None:
    old_kubelet.put()
    old_kubelet.line.tell_unclaimed(NAME, 6)
    assert 0.95 < old_kubelet.wait_queued(fork, grace=0.25) < 1.0 + SLACK


def test_a_clock_that_was_set_back_costs_the_grace_at_most(place: Place) -> None:
    place.put(age=-3600)
    free, seconds = place.wait(grace=0.3)
    assert free and 0.25 < seconds < 0.3 + SLACK


def test_the_limit_ends_the_wait_for_an_expected_file(place: Place) -> None:
    place.put()
    place.expect()
    free, seconds = place.wait(grace=0.05, limit=0.3)
    assert not free and 0.29 < seconds < 0.3 + SLACK


def test_the_limit_ends_the_wait_in_the_line(place: Place, fork: Fork) -> None:
    hold(fork, place.lock_dir)
    free, seconds = place.wait(grace=0.05, limit=0.3)
    assert not free and 0.29 < seconds < 0.3 + SLACK


def test_is_awaited(place: Place, tmp_path: Path) -> None:
    turn = place.turn(0.1)
    assert turn.is_awaited() is False
    noted = place.expect()
    assert turn.is_awaited() is True
    noted.unlink()
    assert turn.is_awaited() is False
    broken = break_an_intent(place)
    assert turn.is_awaited() is None
    place.expect()
    assert turn.is_awaited() is True
    for path in (noted, broken):
        path.unlink()
    assert turn.is_awaited() is False
    place.intents.rmdir()
    assert turn.is_awaited() is None


def test_a_wait_in_vain_can_be_taken_up_again(place: Place) -> None:
    place.put()
    noted = place.expect()
    turn = place.turn(0.05)
    assert not turn.wait(time.monotonic() + 0.1)
    threading.Timer(0.2, noted.unlink).start()
    assert turn.wait(soon())


# -- the sweep ---------------------------------------------------------------------------------------------------------

TEMPORARY = f".{NAME}.4711.tmp"


def find(place: Place, stale_after: float = 10) -> list[str]:
    return sorted(file.name for file in sweep.find_stale(str(place.directory), stale_after, place.read))


def find_one(place: Place) -> Stale:
    (file,) = sweep.find_stale(str(place.directory), 10, place.read)
    return file


@pytest.mark.parametrize(("age", "is_stale"), [(0, False), (8, False), (12, True), (9999, True), (-3600, False)])
def test_a_file_is_stale_by_its_age(place: Place, age: float, is_stale: bool) -> None:
    place.put(age)
    assert find(place) == ([NAME] if is_stale else [])


def test_the_age_is_told_in_seconds(place: Place) -> None:
    place.put(100)
    assert 100 <= find_one(place).age < 100 + SLACK


def test_an_awaited_file_is_not_stale(place: Place) -> None:
    other = authfile.file_name("team-alpha", "quay.io/team/app")
    place.put(9999)
    place.put(9999, other)
    noted = place.expect("docker.io/library/nginx@sha256:" + "0" * 64)
    assert find(place) == [other]
    noted.unlink()
    assert find(place) == sorted([NAME, other])


@pytest.mark.parametrize(("age", "is_stale"), [(12, False), (3500, False), (3700, True)])
def test_where_no_intents_are_kept_a_file_is_stale_after_an_hour(
    old_kubelet: Place, age: float, is_stale: bool
) -> None:
    old_kubelet.put(age)
    assert find(old_kubelet) == ([NAME] if is_stale else [])


@pytest.mark.parametrize("spoil", UNKNOWN)
def test_where_the_intents_are_unknown_a_file_is_stale_after_an_hour(
    place: Place, spoil: Callable[[Place], Path]
) -> None:
    """They may name the very file, and a pull may be coming for it."""
    spoil(place)
    place.put(3540)
    assert find(place) == []
    place.put(3660)
    assert find(place) == [NAME]


def test_stale_after_can_be_longer_than_an_hour(old_kubelet: Place) -> None:
    old_kubelet.put(3700)
    assert find(old_kubelet, stale_after=7200) == []


@pytest.mark.parametrize("keeps_intents", [True, False])
@pytest.mark.parametrize(("age", "is_stale"), [(12, False), (58, False), (62, True)])
def test_a_temporary_file_is_stale_after_a_minute(
    tmp_path: Path, lock_dir: str, keeps_intents: bool, age: float, is_stale: bool
) -> None:
    """The kubelet kills a run after 60 s. That its image is awaited does not count: the file has no final name."""
    place = Place(tmp_path, lock_dir, keeps_intents=keeps_intents)
    if keeps_intents:
        place.expect()
    place.put(age, TEMPORARY)
    assert find(place) == ([TEMPORARY] if is_stale else [])


def test_what_is_not_ours_is_never_stale(place: Place) -> None:
    """CRI-O's in-use, and whatever else somebody keeps there."""
    in_use = place.directory / "in-use"
    in_use.mkdir()
    for name in ("config.json", "README", f"{NAME}.bak", f"{NAME}.4711.tmp", f".{NAME}", NAME.upper(), "a-b.json"):
        place.put(9999, name)
    place.put(9999, f"in-use/{NAME}")
    place.put(9999, f"in-use/{TEMPORARY}")
    os.utime(in_use, (0, 0))
    assert find(place) == []


def test_no_directory_is_nothing_stale(place: Place) -> None:
    place.directory.rmdir()
    assert find(place) == []


def test_a_stale_file_is_removed(place: Place, fork: Fork) -> None:
    place.put(100)
    assert sweep.remove_stale(str(place.directory), find_one(place), place.line) == ""
    assert not place.path.exists()

    def next_one() -> None:
        assert Line(place.lock_dir).try_enter(NAME)

    # The turn was only for the removal.
    assert fork(next_one).join() == 0


def test_a_file_that_was_replaced_since_the_look_is_left(place: Place) -> None:
    place.put(100)
    found = find_one(place)
    place.put(50)
    assert sweep.remove_stale(str(place.directory), found, place.line) == sweep.REPLACED
    assert place.path.exists()


def test_a_file_that_was_taken_since_the_look_is_no_fault(place: Place) -> None:
    place.put(100)
    found = find_one(place)
    place.path.unlink()
    assert sweep.remove_stale(str(place.directory), found, place.line) == sweep.TAKEN


def test_a_file_at_which_somebody_has_the_turn_is_left(place: Place, fork: Fork) -> None:
    place.put(100)
    holder = hold(fork, place.lock_dir)
    found = find_one(place)
    assert sweep.remove_stale(str(place.directory), found, place.line) == sweep.IN_TURN
    assert place.path.exists()
    holder.kill()
    assert sweep.remove_stale(str(place.directory), found, place.line) == ""


@pytest.mark.parametrize("queued", [False, True])
def test_a_process_does_not_sweep_away_its_own_turn(place: Place, fork: Fork, queued: bool) -> None:
    """To the kernel a second lock of the same process is none, and its end is the end of both."""
    place.put(100)
    found = find_one(place)
    if queued:
        holder = hold(fork, place.lock_dir)
        threading.Timer(0.1, holder.kill).start()
    assert place.line.enter(NAME, soon())
    assert sweep.remove_stale(str(place.directory), found, place.line) == sweep.IN_TURN
    assert place.path.exists()

    def others() -> None:
        assert not Line(place.lock_dir).try_enter(NAME)

    assert fork(others).join() == 0


def test_what_the_system_does_not_let_go_is_told(place: Place) -> None:
    place.put(100)
    found = find_one(place)
    place.path.unlink()
    place.path.mkdir()
    os.utime(place.path, (0, 0))
    assert sweep.remove_stale(str(place.directory), found, place.line) == os.strerror(errno.EISDIR)


# -- the plugin --------------------------------------------------------------------------------------------------------


@pytest.fixture
def ready(make_node: NodeMaker, plugin: Path, cluster: ApiServer) -> Node:
    """A node with a mirror for Docker Hub, whose kubelet knows the cluster and keeps intents."""
    node = make_node(str(plugin))
    node.write_mirrors("docker.io", "mirror.corp:5000/hub")
    node.write_kubeconfig(cluster.url, cluster.authority.certificate_pem)
    intents_of(node).mkdir(parents=True)
    return node


def intents_of(node: Node) -> Path:
    return node.root / "var/lib/kubelet/image_manager/pulling"


def expect(node: Node, image: str = "docker.io/nginx:1.27") -> Path:
    content = json.dumps({"kind": "ImagePullIntent", "image": image})
    return node.write(intents_of(node) / f"sha256-{authfile.digest(image)}", content)


def put(node: Node, name: str = NAME, age: float = 0) -> Path:
    path = node.write(node.auth_dir / name, '{"auths":{}}')
    node.auth_dir.chmod(0o700)
    os.utime(path, (time.time() - age,) * 2)
    return path


def written(node: Node, name: str = NAME) -> bool:
    """Whether the file is the plugin's own, not what a test put there."""
    return bool(node.auth_files().get(name, {}).get("auths"))


def processes_of(node: Node) -> list[int]:
    """Processes whose command line names the node's root: runs and keepers."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and str(node.root).encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def last_entry(node: Node) -> dict[str, str]:
    assert node.journal
    node.journal.flush()
    return [entry for entry in node.journal.entries if "OUTCOME" in entry][-1]


def test_a_run_waits_for_its_predecessor_s_file_to_be_taken(ready: Node, alpha: str) -> None:
    path = put(ready)
    expect(ready)
    started = ready.start()
    threading.Timer(1.0, path.unlink).start()
    run = started.finish(request(token=alpha))
    assert (run.status, run.entry["OUTCOME"]) == (0, "auth-file-written")
    assert 0.9 < run.seconds < 1.0 + SLACK
    assert written(ready)


def test_the_answer_of_the_cluster_is_fetched_before_the_wait(ready: Node, cluster: ApiServer, alpha: str) -> None:
    path = put(ready)
    expect(ready)
    started = ready.start()
    finished: list[Run] = []
    thread = threading.Thread(target=lambda: finished.append(started.finish(request(token=alpha))))
    thread.start()
    until(lambda: cluster.requests)
    assert not written(ready)
    path.unlink()
    thread.join()
    assert finished[0].status == 0 and written(ready)


def test_a_hand_off_timeout_of_0_overwrites_at_once(ready: Node, alpha: str) -> None:
    put(ready)
    expect(ready)
    run = ready.run(request(token=alpha), "--hand-off-timeout=0", "--hand-off-grace=20s")
    assert run.seconds < 5 and run.entry["OUTCOME"] == "auth-file-written"
    assert written(ready)


def test_two_namespaces_do_not_wait_for_each_other(ready: Node, cluster: ApiServer, alpha: str) -> None:
    cluster.add_secret("team-beta", "theirs", {"auths": {"mirror.corp:5000": {"auth": basic("beta", "betapw")}}})
    cluster.add_pod("team-beta", "web", "node1")
    cluster.allow("team-beta", "default")
    beta = cluster.mint_token("team-beta", "default", "web")
    put(ready)
    expect(ready)
    waiting = ready.start("--hand-off-timeout=20s")
    assert waiting.process.stdin
    waiting.process.stdin.write(request(token=alpha))
    waiting.process.stdin.close()
    waiting.process.stdin = None
    until(lambda: cluster.requests)
    run = ready.run(request(token=beta), "--hand-off-timeout=20s")
    assert run.seconds < 5 and written(ready, BETA_NAME)
    assert waiting.process.poll() is None and not written(ready)
    waiting.process.kill()
    waiting.process.communicate()


def test_intents_that_cannot_be_used_are_told_at_debug_level(ready: Node, alpha: str) -> None:
    put(ready, age=5)
    broken = ready.write(intents_of(ready) / "sha256-00", "{")
    run = ready.run(request(token=alpha), "--log-level=debug")
    assert written(ready) and run.seconds < 5
    told = [entry for entry in run.entries if broken.name in entry["MESSAGE"]]
    assert [entry["PRIORITY"] for entry in told] == ["7"]


def test_a_run_that_comes_too_late_leaves_a_keeper(ready: Node, alpha: str) -> None:
    path = put(ready)
    expect(ready)
    run = ready.run(request(token=alpha), "--hand-off-timeout=300ms")
    assert (run.status, run.entry["OUTCOME"]) == (0, "in-line")
    assert 0.3 <= run.seconds < 0.3 + 3 * SLACK
    # It has its pull record, since the file is going to be there.
    assert list(run.answer["auth"]) == [NGINX]
    assert len(processes_of(ready)) == 1 and not written(ready)
    path.unlink()
    until(lambda: written(ready))
    until(lambda: not processes_of(ready))
    entry = last_entry(ready)
    assert (entry["OUTCOME"], entry["AUTH_FILE"]) == ("auth-file-written", str(path))


def test_a_keeper_writes_nothing_when_no_pull_is_to_come(ready: Node, alpha: str) -> None:
    path = put(ready)
    noted = expect(ready)
    run = ready.run(request(token=alpha), "--hand-off-timeout=300ms")
    assert run.entry["OUTCOME"] == "in-line"
    noted.unlink()
    path.unlink()
    until(lambda: not processes_of(ready))
    assert ready.auth_file_names() == []
    assert "Dropped the queued auth file" in last_entry(ready)["MESSAGE"]


def test_a_killed_keeper_holds_nobody_up(ready: Node, alpha: str) -> None:
    path = put(ready)
    expect(ready)
    for _ in range(3):
        assert ready.run(request(token=alpha), "--hand-off-timeout=200ms").entry["OUTCOME"] == "in-line"
    keepers = processes_of(ready)
    assert len(keepers) == 3
    os.kill(keepers[0], signal.SIGKILL)
    os.kill(keepers[1], signal.SIGKILL)
    path.unlink()
    until(lambda: written(ready))
    until(lambda: not processes_of(ready))


def test_a_keeper_whose_intents_became_unknown_writes(ready: Node, alpha: str) -> None:
    """Its pull was announced, and nothing says that it is over."""
    path = put(ready)
    noted = expect(ready)
    assert ready.run(request(token=alpha), "--hand-off-timeout=300ms").entry["OUTCOME"] == "in-line"
    noted.write_text("{")
    os.utime(intents_of(ready))
    path.unlink()
    until(lambda: written(ready))
    until(lambda: not processes_of(ready))


def test_a_run_whose_intents_are_unknown_leaves_a_keeper(ready: Node, alpha: str) -> None:
    """Another run has the turn and its file is still to be taken: nothing says that no pull comes for ours."""
    path = put(ready)
    noted = expect(ready)
    assert ready.run(request(token=alpha), "--hand-off-timeout=300ms").entry["OUTCOME"] == "in-line"
    noted.write_text("{")
    os.utime(intents_of(ready))
    before = path.read_bytes()
    assert ready.run(request(token=alpha), "--hand-off-timeout=300ms").entry["OUTCOME"] == "in-line"
    assert path.read_bytes() == before
    path.unlink()
    until(lambda: written(ready))
    path.unlink()
    until(lambda: written(ready))
    until(lambda: not processes_of(ready))


@pytest.mark.parametrize("_", range(5))
def test_a_keeper_that_is_ended_late_reports_no_bug(ready: Node, alpha: str, _: int) -> None:
    path = put(ready)
    expect(ready)
    assert ready.run(request(token=alpha), "--hand-off-timeout=200ms").entry["OUTCOME"] == "in-line"
    (keeper,) = processes_of(ready)
    path.unlink()
    with contextlib.suppress(ProcessLookupError):
        while processes_of(ready):
            os.kill(keeper, signal.SIGTERM)
    entry = last_entry(ready)
    assert entry["OUTCOME"] in ("auth-file-written", "interrupted")
    assert "internal error" not in entry["MESSAGE"]


def test_a_keeper_s_fault_is_told(ready: Node, alpha: str) -> None:
    path = put(ready)
    expect(ready)
    assert ready.run(request(token=alpha), "--hand-off-timeout=300ms").entry["OUTCOME"] == "in-line"
    ready.auth_dir.chmod(0o777)
    path.unlink()
    until(lambda: not processes_of(ready))
    entry = last_entry(ready)
    assert (entry["OUTCOME"], entry["PRIORITY"]) == ("fault-auth-file", "3")
    assert "chmod 0700" in entry["MESSAGE"]


KEEPER_FAILS = [
    "authfile.write = fail",
    "handoff.HandOff.become_keeper = fail",
    "fork = os.fork\ndef forked():\n    pid = fork()\n    if not pid: audit.Journal.__init__ = fail\n"
    "    return pid\nos.fork = forked",
]


@pytest.mark.parametrize("failure", ["KeyError('canary')", "MemoryError('canary')", "SystemExit('canary')"])
@pytest.mark.parametrize("planted", KEEPER_FAILS)
def test_a_bug_in_a_keeper_is_told_as_a_fault(ready: Node, alpha: str, planted: str, failure: str) -> None:
    """Else the journal's last word would be that a keeper is in line."""
    path = put(ready)
    expect(ready)
    code = (
        f"import os, sys\nsys.path.insert(0, {str(SOURCES)!r})\n"
        "from crio_credential_provider.pull import audit, authfile, handoff\n"
        "from crio_credential_provider.__main__ import main\n"
        f"def fail(*_):\n    raise {failure}\n{planted}\nmain()"
    )
    ready.command[:] = [sys.executable, "-c", code]
    run = ready.run(request(token=alpha), "--hand-off-timeout=300ms")
    assert (run.status, run.stderr) == (0, "")
    path.unlink()
    until(lambda: not processes_of(ready))
    assert ready.journal
    ready.journal.flush()
    # Whichever comes first: the keeper may fail before the run has logged.
    (entry,) = [entry for entry in ready.journal.entries if entry.get("OUTCOME") == "fault-bug"]
    assert entry["PRIORITY"] == "3"
    assert f"internal error: {failure.partition('(')[0]} at " in entry["MESSAGE"]
    assert "canary" not in str(ready.journal.entries)
    assert entry["IMAGE"] == NGINX and entry["POD"] == "web"


def test_a_keeper_that_is_told_to_end_says_so(ready: Node, alpha: str) -> None:
    put(ready)
    expect(ready)
    for _ in range(2):
        assert ready.run(request(token=alpha), "--hand-off-timeout=200ms").entry["OUTCOME"] == "in-line"
    # One looks at the file, the other waits behind it.
    for keeper in processes_of(ready):
        os.kill(keeper, signal.SIGTERM)
    until(lambda: not processes_of(ready))
    assert ready.journal
    ready.journal.flush()
    ended = [entry for entry in ready.journal.entries if entry.get("OUTCOME") == "interrupted"]
    assert ["ended by SIGTERM" in entry["MESSAGE"] for entry in ended] == [True, True]
    assert not written(ready)


# -- a node without room for another process ---------------------------------------------------------------------------

NO_ROOM = (
    "cannot start a background process that waits for the previous pull: Resource temporarily unavailable; check the "
    "limits on processes"
)


def refusing(node: Node, code: int, times: int = 99, latest: float = 1.0) -> None:
    """Makes the node's program one whose forks fail, and which answers after so many seconds at the latest."""
    node.command[:] = [
        sys.executable,
        "-c",
        f"import os, sys\nsys.path.insert(0, {str(SOURCES)!r})\n"
        "from crio_credential_provider import settings\nfrom crio_credential_provider.__main__ import main\n"
        f"settings.LATEST_ANSWER = {latest}\nleft, fork = {times}, os.fork\n"
        "def refuse():\n    global left\n    left -= 1\n    if left < 0: return fork()\n"
        f"    raise OSError({code}, os.strerror({code}))\nos.fork = refuse\nmain()",
    ]


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.ENOMEM, errno.EPERM])
def test_a_node_without_room_for_a_keeper_is_told(ready: Node, alpha: str, code: int) -> None:
    path = put(ready)
    expect(ready)
    refusing(ready, code)
    run = ready.run(request(token=alpha), "--hand-off-timeout=300ms")
    assert (run.status, run.stderr, run.entry["OUTCOME"]) == (0, "", "no-keeper")
    # It waited on, as long as it may.
    assert 1.0 <= run.seconds < 1.0 + 3 * SLACK
    assert run.entry["PRIORITY"] == "3"
    for word in (os.strerror(code), "TasksMax", "pid_max", f"{NGINX} of pod web in team-alpha"):
        assert word in run.entry["MESSAGE"]
    assert "report it" not in run.entry["MESSAGE"]
    # Should its pull find a file after all, it is one of its own namespace: the kubelet must know whose image it is.
    assert list(run.answer["auth"]) == [NGINX]
    # The file of the pull before is not overwritten.
    assert path.exists() and not written(ready)


def test_a_turn_that_comes_meanwhile_is_taken(ready: Node, alpha: str) -> None:
    path = put(ready)
    expect(ready)
    refusing(ready, errno.EAGAIN, latest=20)
    started = ready.start("--hand-off-timeout=300ms")
    threading.Timer(1.0, path.unlink).start()
    run = started.finish(request(token=alpha))
    assert (run.status, run.entry["OUTCOME"], run.entry["PRIORITY"]) == (0, "auth-file-written", "4")
    assert 0.9 < run.seconds < 5 and NO_ROOM in run.entry["MESSAGE"]
    assert written(ready)


def test_room_that_comes_meanwhile_is_taken(ready: Node, alpha: str) -> None:
    path = put(ready)
    expect(ready)
    refusing(ready, errno.EAGAIN, times=1)
    run = ready.run(request(token=alpha), "--hand-off-timeout=300ms")
    assert run.entry["OUTCOME"] == "in-line" and len(processes_of(ready)) == 1
    path.unlink()
    until(lambda: written(ready))
    until(lambda: not processes_of(ready))


def test_a_real_limit_on_processes(ready: Node, alpha: str) -> None:
    """The system's own refusal, as a limit of the kubelet's unit would have it."""
    if os.geteuid() == 0:
        # No limit holds for root. Somebody else may do here what root may with files.
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("setpriv is not installed here, and no limit on processes holds for root")
        ready.command[:0] = [setpriv, "--reuid=65534", "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    path = put(ready)
    expect(ready)
    limit = lambda: resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))  # noqa: E731
    started = ready.start("--hand-off-timeout=300ms", preexec_fn=limit)
    threading.Timer(1.5, path.unlink).start()
    run = started.finish(request(token=alpha))
    assert (run.status, run.stderr, run.entry["OUTCOME"]) == (0, "", "auth-file-written")
    assert NO_ROOM in run.entry["MESSAGE"] and run.entry["PRIORITY"] == "4"


def test_each_run_sweeps_also_one_without_a_mirror(ready: Node, alpha: str) -> None:
    stale = put(ready, authfile.file_name("team-gone", "quay.io/gone/app"), age=20)
    temporary = put(ready, TEMPORARY, age=100)
    fresh = put(ready, authfile.file_name("team-beta", "quay.io/new/app"))
    awaited = put(ready, authfile.file_name("team-beta", "quay.io/team/app"), age=20)
    expect(ready, "quay.io/team/app:v1")
    in_use = put(ready, f"in-use/{NAME}", age=99999)
    run = ready.run(request("quay.io/without/mirror", alpha), "--log-level=debug")
    assert (run.status, run.entry["OUTCOME"]) == (0, "nothing-to-do")
    assert [path.exists() for path in (stale, temporary, fresh, awaited, in_use)] == [False, False, True, True, True]
    (told,) = [entry["MESSAGE"] for entry in run.entries if "removed stale files" in entry["MESSAGE"]]
    assert stale.name in told and temporary.name in told


def test_the_kubelet_has_its_answer_before_the_sweep(ready: Node, alpha: str) -> None:
    """Whatever there is to sweep holds up no pull."""
    stale = put(ready, authfile.file_name("team-gone", "quay.io/gone/app"), age=20)
    reading, writing = os.pipe()
    # A pipe that is full holds the run up just before its answer.
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writing, b" " * 4096):
            pass
    os.set_blocking(writing, True)
    command = [*ready.command, *ready.flags]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=writing, env=ready.environment) as process:
        os.close(writing)
        assert process.stdin
        process.stdin.write(request(token=alpha))
        process.stdin.close()
        with os.fdopen(reading, "rb") as answer:
            until(lambda: written(ready))
            time.sleep(0.3)
            is_left = stale.exists()
            assert answer.read().lstrip().startswith(b'{"kind"')
    assert is_left
    assert process.returncode == 0 and not stale.exists()
