"""The hand-off between runs of the plugin: the wait, keepers, and the sweep."""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from crio_credential_provider.pull import authfile, handoff
from crio_credential_provider.testbed.cluster import ApiServer
from handingoff import (
    BETA_NAME,
    NAME,
    SLACK,
    TEMPORARY,
    expect,
    intents_of,
    last_entry,
    processes_of,
    put,
    until,
    until_queued,
    written,
)
from node import NGINX, SOURCES, Node, Run, basic, request

pytestmark = pytest.mark.process


@pytest.fixture
def ready(ready: Node) -> Node:
    """Whose kubelet keeps intents as well."""
    intents_of(ready).mkdir(parents=True)
    return ready


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


@pytest.mark.parametrize("spoil", ["removed", "replaced", "a link"])
def test_keepers_stay_in_one_line_whatever_becomes_of_its_file(ready: Node, alpha: str, spoil: str) -> None:
    """Each pull takes the file of one: were two keepers let in at once, one would overwrite the other's."""
    path = put(ready)
    expect(ready)
    lock = ready.cache_dir / handoff.LOCK_FILE
    with concurrent.futures.ThreadPoolExecutor() as pool:
        ended = [pool.submit(ready.start("--hand-off-timeout=3s").finish, request(token=alpha)) for _ in range(3)]
        until_queued(str(ready.cache_dir), 2)
        lock.unlink()
        if spoil == "replaced":
            lock.touch(0o600)
        elif spoil == "a link":
            lock.symlink_to("/nowhere")
        assert all(run.result().status == 0 for run in ended)
    assert len(processes_of(ready)) == 3
    for _ in range(3):
        path.unlink()
        until(lambda: written(ready))
        time.sleep(0.3)
        assert written(ready)
    path.unlink()
    until(lambda: not processes_of(ready))


def test_a_keeper_tells_why_it_does_not_know_what_is_to_come(ready: Node, alpha: str) -> None:
    path = put(ready)
    noted = expect(ready)
    flags = ("--hand-off-timeout=300ms", "--log-level=debug")
    assert ready.run(request(token=alpha), *flags).entry["OUTCOME"] == "in-line"
    noted.write_text("{")
    os.utime(intents_of(ready))
    path.unlink()
    until(lambda: written(ready))
    until(lambda: not processes_of(ready))
    assert ready.journal
    ready.journal.flush()
    assert any(f"pull intent {noted.name} cannot be used" in entry["MESSAGE"] for entry in ready.journal.entries)


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
        "from crio_credential_provider.pull import delivery\nfrom crio_credential_provider.__main__ import main\n"
        f"delivery.LATEST_ANSWER = {latest}\nleft, fork = {times}, os.fork\n"
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


@pytest.mark.parametrize("fault", ["no role", "no secret"])
def test_a_run_without_a_file_takes_away_one_that_no_pull_waits_for(
    ready: Node, cluster: ApiServer, alpha: str, fault: str
) -> None:
    """CRI-O would take it, and the kubelet, which knows of no credential, open the image to every namespace."""
    path = put(ready)
    if fault == "no role":
        cluster.revoke("team-alpha", "default")
    else:
        cluster.delete_secret("team-alpha", "mirror-creds")
    run = ready.run(request(token=alpha))
    assert run.status == (1 if fault == "no role" else 0)
    assert not path.exists()
    assert f"removed {path}, which no pull was waiting for" in run.entry["MESSAGE"]


def test_a_run_without_a_file_leaves_one_that_a_pull_waits_for(ready: Node, cluster: ApiServer, alpha: str) -> None:
    path = put(ready)
    ready.flags += ["--hand-off-timeout=1s"]
    expect(ready)
    cluster.revoke("team-alpha", "default")
    assert ready.run(request(token=alpha)).status == 1
    assert path.exists()
