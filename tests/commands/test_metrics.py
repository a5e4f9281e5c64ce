"""``metrics``: each run's journal entry is counted once, whatever happens in between, by a real journald."""

from __future__ import annotations

import fcntl
import json
import os
import random
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from commandline import Done, here
from crio_credential_provider import __version__
from crio_credential_provider.commands import metrics, wholefile
from crio_credential_provider.commands.metrics import catalogue, entries, totals
from crio_credential_provider.testbed import cluster as demo
from crio_credential_provider.testbed.cluster import ApiServer
from node import COMMAND, ENVIRONMENT, Node, request
from real_journald import SOCKET, Journald
from real_programs import need

pytestmark = pytest.mark.process

PREFIX = catalogue.PREFIX
WROTE = {"OUTCOME": "auth-file-written", "DURATION_US": "21000"}
Samples = dict[tuple[str, ...], float]


@pytest.fixture
def journald() -> Iterator[Journald]:
    with Journald() as real:
        yield real


class Place:
    """Where a call keeps its totals and writes its file."""

    def __init__(self, directory: Path, journald: Journald) -> None:
        self.state = directory / "state/metrics.json"
        self.textfile = directory / "plugin.prom"
        self.command = [*COMMAND, "metrics", "--state", str(self.state), "--textfile", str(self.textfile)]
        self._journald = journald

    def collect(self) -> Samples:
        self._journald.run(*self.command, env=ENVIRONMENT)
        return samples(self.textfile.read_text())

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._journald.inside(self.command), env=ENVIRONMENT, stderr=subprocess.PIPE)


@pytest.fixture
def place(tmp_path: Path, journald: Journald) -> Place:
    return Place(tmp_path, journald)


def samples(text: str) -> Samples:
    """By name without the prefix, then the labels' values; read by the official client's parser."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation and family.type in ("counter", "gauge", "histogram"), family
        for sample in family.samples:
            assert sample.name.startswith(PREFIX)
            key = (sample.name.removeprefix(PREFIX), *sample.labels.values())
            assert key not in found
            found[key] = sample.value
    return found


def above_zero(found: Samples) -> Samples:
    """Counters that have counted something."""
    return {key: value for key, value in found.items() if key[0].endswith("_total") and value}


# -- what a run is counted as -----------------------------------------------------------------------------------------


def test_runs_of_the_plugin(journald: Journald, place: Place, ready: Node, cluster: ApiServer, alpha: str) -> None:
    def pull(image: str = "docker.io/library/nginx", status: int = 0) -> None:
        flags = [*ready.flags, "--journal-socket", SOCKET]
        done = journald.run(*ready.command, *flags, check=False, input=request(image, alpha), env=ready.environment)
        assert done.returncode == status, done.stderr

    pull()
    pull("quay.io/team/app")
    cluster.fault = demo.refuse(403)
    pull(status=1)
    cluster.fault = None
    pull()
    (old,) = ready.auth_dir.glob("*.json")
    os.utime(old, (time.time() - 7200,) * 2)
    pull("quay.io/team/app")
    journald.sync()
    found = place.collect()
    assert above_zero(found) == {
        ("runs_total", "auth-file-written", ""): 2,
        ("runs_total", "nothing-to-do", "no-mirror"): 2,
        ("runs_total", "fault-cluster", "http-403"): 1,
        ("faults_total", "cluster"): 1,
        ("stale_files_removed_total",): 1,
    }
    taken = [int(entry["DURATION_US"]) for entry in journald.entries("SYSLOG_IDENTIFIER=crio-credential")]
    assert found[("run_duration_seconds_count",)] == len(taken) == 5
    assert found[("run_duration_seconds_sum",)] == pytest.approx(sum(taken) / 1e6)
    assert found[("run_duration_seconds_bucket", "+Inf")] == 5
    assert found[("last_run_timestamp_seconds",)] == pytest.approx(time.time(), abs=60)
    assert found[("last_collection_timestamp_seconds",)] == pytest.approx(time.time(), abs=60)
    assert ("build_info", __version__) in {key[:2] for key in found}


def test_a_run_that_waited_and_its_keeper(journald: Journald, place: Place) -> None:
    journald.send(
        {"OUTCOME": "in-line", "DURATION_US": "30100000", "HAND_OFF_US": "30000000"},
        {"OUTCOME": "auth-file-written", "DURATION_US": "45100000", "HAND_OFF_US": "15000000", "KEEPER": "1"},
        {"OUTCOME": "fault-auth-file", "DURATION_US": "45100000", "KEEPER": "1"},
    )
    found = place.collect()
    assert above_zero(found) == {
        ("runs_total", "in-line", ""): 1,
        ("keepers_total", "auth-file-written"): 1,
        ("keepers_total", "fault-auth-file"): 1,
        ("faults_total", "auth-file"): 1,
    }
    assert found[("run_duration_seconds_count",)] == 1
    assert found[("hand_off_wait_seconds_sum",)] == 45
    buckets = {key[1]: value for key, value in found.items() if key[0] == "hand_off_wait_seconds_bucket"}
    assert (buckets["10"], buckets["30"], buckets["600"], buckets["+Inf"]) == (0, 2, 2, 2)


def test_what_happened_never_is_there_as_zero(place: Place) -> None:
    """So that the first one is an increase."""
    found = place.collect()
    assert above_zero(found) == {}
    assert {key[1] for key in found if key[0] == "faults_total"} == set(catalogue.FAULTS)
    assert ("runs_total", "nothing-to-do", "no-credential") in found
    assert ("last_run_timestamp_seconds",) not in found


def test_others_cannot_be_counted(journald: Journald, place: Place) -> None:
    """Every user may send journald an entry of any content."""
    journald.send({"OUTCOME": "fault-bug"}, user=65534)
    journald.send(WROTE)
    assert len(journald.entries("SYSLOG_IDENTIFIER=crio-credential")) == 2
    assert above_zero(place.collect()) == {("runs_total", "auth-file-written", ""): 1}


def test_labels_are_words_and_few(journald: Journald, place: Place) -> None:
    canary = 'Canary {"} \n # HELP'
    many = [{"OUTCOME": f"word-{number}", "REASON_CODE": canary} for number in range(400)]
    journald.send({"OUTCOME": canary, "NAMESPACE": "canary", "SECRETS": "canary", "DURATION_US": "canary"}, *many)
    found = place.collect()
    runs = {key: value for key, value in found.items() if key[0] == "runs_total"}
    assert len(runs) < 150 and sum(runs.values()) == 401
    assert "canary" not in place.textfile.read_text().lower() + place.state.read_text().lower()


# -- once each --------------------------------------------------------------------------------------------------------


def written(found: Samples) -> float:
    return found[("runs_total", "auth-file-written", "")]


def test_each_call_goes_on_where_the_last_one_ended(journald: Journald, place: Place) -> None:
    assert written(place.collect()) == 0
    for number in range(1, 4):
        journald.send(WROTE, {})
        assert written(place.collect()) == number
        # Nothing new, and an entry that is not of a run.
        assert written(place.collect()) == number
    done = journald.run(*COMMAND, "metrics", "--state", place.state, env=ENVIRONMENT)
    assert written(samples(done.stdout.decode())) == 3


def test_the_first_call_counts_what_the_journal_has(journald: Journald, place: Place) -> None:
    journald.send(*[WROTE] * 300)
    assert written(place.collect()) == 300


@pytest.mark.parametrize("new", [0, 1, 5])
def test_a_journal_without_what_was_counted_last(journald: Journald, place: Place, new: int) -> None:
    """Rotated and vacuumed: `journalctl --after-cursor` of systemd 252 skips the first entry that is left."""
    journald.send(*[WROTE] * 3)
    assert written(place.collect()) == 3
    journald.run("journalctl", "--rotate")
    journald.run("journalctl", "--vacuum-time=1us")
    assert journald.entries("SYSLOG_IDENTIFIER=crio-credential") == []
    journald.send(*[WROTE] * new)
    assert written(place.collect()) == 3 + new
    assert written(place.collect()) == 3 + new


def test_a_rotated_journal(journald: Journald, place: Place) -> None:
    for number in range(1, 4):
        journald.send(WROTE, WROTE)
        journald.run("journalctl", "--rotate")
        assert written(place.collect()) == 2 * number


def test_an_entry_that_moved_to_another_file_is_the_same() -> None:
    """As from /run to /var at boot."""
    cursor = "s=aa;i=4f5;b=bb;m=bf1;t=661;x=3bf"
    assert entries._is_same(cursor, "s=cc;i=1;b=bb;m=bf1;t=661;x=3bf")
    assert not entries._is_same(cursor, "s=aa;i=4f5;b=bb;m=bf1;t=661;x=3c0")
    assert not entries._is_same("", "")


def test_calls_that_are_killed(journald: Journald, place: Place) -> None:
    """At random moments, while runs go on: in the end each was counted once, and the counter never went back."""
    begin = time.monotonic()
    place.collect()
    usual, sent, before = time.monotonic() - begin, 0, 0.0
    for _ in range(12):
        journald.send(WROTE, WROTE)
        sent += 2
        call = place.start()
        time.sleep(random.uniform(0.3, 1.2) * usual)
        call.kill()
        call.communicate()
        shown = written(samples(place.textfile.read_text()))
        assert before <= shown <= sent
        before = shown
    assert written(place.collect()) == sent


@pytest.mark.parametrize("failing", [1, 2])
def test_a_call_that_fails_at_either_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    """The totals are on the disk before the text is."""
    read = [{**WROTE, "__CURSOR": "s=a;i=1;b=b;m=1;t=1;x=1"}]
    monkeypatch.setattr(entries, "read", lambda cursor: iter([] if cursor else read))
    replace, calls = wholefile.replace, []

    def failing_replace(place: str, text: str, mode: int) -> None:
        calls.append(place)
        if len(calls) == failing:
            raise OSError(28, "No space left on device", place)
        replace(place, text, mode)

    monkeypatch.setattr(wholefile, "replace", failing_replace)
    state, textfile = tmp_path / "state.json", tmp_path / "plugin.prom"
    arguments = ["--state", str(state), "--textfile", str(textfile)]
    assert here(lambda: metrics.run(arguments)).status == 1
    assert (state.exists(), textfile.exists()) == (failing == 2, False)
    assert here(lambda: metrics.run(arguments)).status == 0
    assert written(samples(textfile.read_text())) == 1


def test_calls_at_the_same_time(journald: Journald, place: Place) -> None:
    journald.send(*[WROTE] * 20)
    calls = [place.start() for _ in range(4)]
    assert [call.wait(60) for call in calls] == [0] * 4
    assert written(samples(place.textfile.read_text())) == 20
    assert sorted(path.name for path in place.state.parent.iterdir()) == ["metrics.json", "metrics.json.lock"]


def test_what_others_can_open_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert run(tmp_path, journalctl="exit 0").status == 0
    os.close(descriptor)
    lock = tmp_path / "state.json.lock"
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600
    monkeypatch.setattr(metrics, "WAIT", 0)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = here(lambda: metrics.run(["--state", str(tmp_path / "state.json")]))
    told = f"crio-credential-provider metrics: {lock}: locked by another metrics run for 0 s\n"
    assert done == Done(1, "", told)


# -- files and faults -------------------------------------------------------------------------------------------------


def test_modes(place: Place) -> None:
    os.umask(0o077)
    try:
        place.collect()
    finally:
        os.umask(0o022)
    assert stat.S_IMODE(place.textfile.stat().st_mode) == 0o644
    assert stat.S_IMODE(place.state.stat().st_mode) == 0o600


def run(place: Path, *arguments: str, journalctl: str = "") -> Done:
    """With a stand-in for journalctl, a shell script."""
    (place / "bin").mkdir(exist_ok=True)
    if journalctl:
        (place / "bin/journalctl").write_text(f"#!/bin/sh\n{journalctl}\n")
        (place / "bin/journalctl").chmod(0o755)
    environment = {**ENVIRONMENT, "PATH": str(place / "bin")}
    command = [*COMMAND, "metrics", "--state", str(place / "state.json"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)
    return Done(done.returncode, done.stdout, done.stderr)


ENTRY = json.dumps({"__CURSOR": "s=1;i=1;b=1;m=1;t=1;x=1", **WROTE})


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("", "cannot run journalctl: no such file or directory; it is part of systemd"),
        ("echo 'Failed to open /var/log/journal: denied' >&2; exit 1", "Failed to open /var/log/journal: denied"),
        ("echo 'No journal files were opened due to insufficient permissions.' >&2; exit 1", "; run this as root"),
        (f"echo '{ENTRY}'; exit 3", "journalctl failed: exit status 3"),
        (f"echo '{ENTRY}'; kill -9 $$", "journalctl failed"),
        (f"echo '{ENTRY}'; echo '{{'; exec sleep 600", "not a journal entry"),
        ("echo '[]'", "not a journal entry"),
    ],
)
def test_a_journal_that_cannot_be_read(tmp_path: Path, script: str, told: str) -> None:
    """What came before counts for nothing: the next call reads it again."""
    done = run(tmp_path, journalctl=script)
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert told in done.err
    assert not (tmp_path / "state.json").exists()


def test_ended_while_journalctl_hangs(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/journalctl").write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec /bin/sleep 600\n")
    (tmp_path / "bin/journalctl").chmod(0o755)
    environment = {**ENVIRONMENT, "PATH": str(tmp_path / "bin")}
    command = [*COMMAND, "metrics", "--state", str(tmp_path / "state.json")]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        limit = time.monotonic() + 20
        while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip()):
            assert time.monotonic() < limit
            time.sleep(0.02)
        # Started is not yet known of: within that moment it is left to systemd, which ends all of a unit.
        time.sleep(1)
        process.terminate()
        process.wait(20)
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": 2}', '{"format": 1, "cursor": "", "lastRun": 0}'])
def test_totals_of_another_program(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    done = run(tmp_path, journalctl="exit 0")
    assert (done.status, done.out) == (1, "")
    assert f"{tmp_path}/state.json was not written by this version, or is damaged; remove it" in done.err
    assert (tmp_path / "state.json").read_text() == content


@pytest.mark.parametrize("what", ["counts", "labels"])
def test_totals_that_are_damaged(tmp_path: Path, what: str) -> None:
    """Before anything is counted into them, which would then never be written."""
    assert run(tmp_path, journalctl=f"echo '{ENTRY}'").status == 0
    kept = json.loads((tmp_path / "state.json").read_text())
    if what == "counts":
        kept["histograms"]["run_duration_seconds"]["counts"].pop()
    else:
        kept["counters"]["runs_total"].append([["one"], 1])
    (tmp_path / "state.json").write_text(json.dumps(kept))
    done = run(tmp_path, journalctl=f"echo '{ENTRY}'")
    assert (done.status, done.out) == (1, "") and "or is damaged; remove it" in done.err
    assert json.loads((tmp_path / "state.json").read_text()) == kept


def test_buckets_of_another_version_begin_anew(tmp_path: Path) -> None:
    assert run(tmp_path, journalctl=f"echo '{ENTRY}'").status == 0
    kept = json.loads((tmp_path / "state.json").read_text())
    kept["histograms"]["run_duration_seconds"]["bounds"][0] = 0.004
    (tmp_path / "state.json").write_text(json.dumps(kept))
    found = samples(run(tmp_path, journalctl="exit 0").out)
    assert (found[("run_duration_seconds_count",)], written(found)) == (0, 1)


@pytest.mark.parametrize("name", ["plugin.txt", "plugin"])
def test_a_name_that_node_exporter_does_not_read(tmp_path: Path, name: str) -> None:
    done = run(tmp_path, "--textfile", str(tmp_path / name), journalctl="exit 0")
    assert done.status == 2 and ".prom" in done.err


def test_a_directory_that_is_missing(tmp_path: Path) -> None:
    done = run(tmp_path, "--textfile", str(tmp_path / "no/plugin.prom"), journalctl="exit 0")
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert f"{tmp_path}/no/plugin.prom: No such file or directory" in done.err


def test_a_link_to_a_directory_is_not_followed(tmp_path: Path) -> None:
    """Whoever owns a directory above could point it at one that CRI-O or root reads."""
    (tmp_path / "conf.d/sub").mkdir(parents=True)
    (tmp_path / "collector").symlink_to("conf.d")
    for directory in ("collector", "collector/sub"):
        done = run(tmp_path, "--textfile", str(tmp_path / directory / "plugin.prom"), journalctl="exit 0")
        why = f"--textfile: {tmp_path}/collector is a link or not a directory; give a path without links\n"
        assert done == Done(1, "", f"crio-credential-provider metrics: {why}")
    assert [path.name for path in (tmp_path / "conf.d").rglob("*")] == ["sub"]
    # A link in place of the file itself is replaced.
    (tmp_path / "conf.d/plugin.prom").symlink_to(tmp_path / "other")
    assert run(tmp_path, "--textfile", str(tmp_path / "conf.d/plugin.prom"), journalctl="exit 0").status == 0
    assert (tmp_path / "conf.d/plugin.prom").is_file() and not (tmp_path / "other").exists()


# -- the names --------------------------------------------------------------------------------------------------------


def test_prometheus_has_nothing_to_say_about_them() -> None:
    (promtool,) = need("promtool")
    counted = totals.Totals()
    counted.add({**WROTE, "HAND_OFF_US": "5000", "__REALTIME_TIMESTAMP": "1000000"})
    text = counted.text(1.0, __version__, "unknown")
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert {family.type for family in text_string_to_metric_families(text)} == {"counter", "gauge", "histogram"}
