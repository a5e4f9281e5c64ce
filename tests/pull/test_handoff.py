"""The wait for the predecessor's file, and which files are swept away."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from crio_credential_provider.kubernetes.pullintents import PullIntents
from crio_credential_provider.pull import authfile, sweep
from crio_credential_provider.pull.handoff import HandOff, Line
from crio_credential_provider.pull.sweep import Stale
from handingoff import NAME, SLACK, TEMPORARY, Fork, hold, soon
from node import NGINX, SOURCES

pytestmark = pytest.mark.process


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


_KEEPER = """\
import os, sys, time
from crio_credential_provider.kubernetes.pullintents import PullIntents
from crio_credential_provider.pull.handoff import HandOff, Line
directory, name, repository, kubelet_root, lock_dir, result = sys.argv[1:]
turn = HandOff(directory, name, repository, Line(lock_dir), PullIntents(kubelet_root), 0.05)
assert not turn.wait(time.monotonic() + 0.2) and not turn.is_orphan()
if turn.leave_keeper():
    turn.become_keeper()
    has_turn = turn.wait(time.monotonic() + 60)
    with open(result, "w") as file:
        file.write(f"{has_turn} {turn.is_orphan()}")
    os._exit(0)
"""


@pytest.mark.slow
def test_a_keeper_of_a_kubelet_that_has_ended_leaves_the_line(place: Place, tmp_path: Path) -> None:
    """The pull that it waits for ended with the kubelet, whose intents stay."""
    place.put()
    result, kubelet = tmp_path / "result", tmp_path / "kubelet-program" / "kubelet"
    kubelet.parent.mkdir()
    kubelet.symlink_to("/bin/sh")
    run = [sys.executable, "-c", _KEEPER, place.directory, NAME, NGINX, place.kubelet_root, place.lock_dir, result]
    process = subprocess.Popen(
        [kubelet, "-c", 'read line; "$@"; echo answered; sleep 60', "kubelet", *map(str, run)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        start_new_session=True,
    )
    assert process.stdin and process.stdout
    place.expect()
    process.stdin.write(b"\n")
    process.stdin.flush()
    try:
        assert process.stdout.readline() == b"answered\n"
        time.sleep(0.3)
        assert not result.exists(), "the keeper did not wait"
        process.kill()
        limit = time.monotonic() + 20
        while not (result.exists() and result.read_text()) and time.monotonic() < limit:
            time.sleep(0.02)
        assert result.read_text() == "False True"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
