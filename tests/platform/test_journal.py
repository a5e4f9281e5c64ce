"""The journal: one entry per run that a real journald keeps, and no way in which it can hurt a run."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from conftest import NodeMaker
from crio_credential_provider.platform import journal
from crio_credential_provider.testbed import cluster as demo
from crio_credential_provider.testbed.cluster import ApiServer
from node import NGINX, Journal, Node, Run, decode_entry, request
from real_programs import cannot, need

pytestmark = pytest.mark.process


def assert_written(run: Run) -> None:
    assert (run.status, run.stderr) == (0, ""), run
    assert b'"auth"' in run.stdout


# -- levels -----------------------------------------------------------------------------------------------------------


def test_at_debug_level_every_decision_is_told(ready: Node, cluster: ApiServer, alpha: str) -> None:
    cluster.add_secret("team-alpha", "bad", b"no json")
    run = ready.run(request(token=alpha), "--log-level", "debug")
    assert_written(run)
    details = [entry["MESSAGE"] for entry in run.entries if entry["PRIORITY"] == "7"]
    for words in (
        "pull source mirror.corp:5000/hub/library/nginx",
        "pull source docker.io/library/nginx",
        "secret bad is not used",
        "mirror.corp:5000/hub/library/nginx gets the credential of secret mirror-creds, key mirror.corp:5000",
        "docker.io/library/nginx gets no credential",
    ):
        assert any(words in detail for detail in details), f"{words!r} is not in {details}"
    # The audit entry comes besides, once.
    assert run.entry["PRIORITY"] == "6"
    assert {entry["SYSLOG_IDENTIFIER"] for entry in run.entries} == {"crio-credential"}


@pytest.mark.parametrize(("level", "heard"), [("debug", True), ("info", True), ("warning", False), ("error", False)])
def test_a_pull_that_works_is_information(ready: Node, alpha: str, level: str, heard: bool) -> None:
    run = ready.run(request(token=alpha), "--log-level", level)
    assert_written(run)
    assert any("OUTCOME" in entry for entry in run.entries) is heard


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_a_fault_is_heard_at_every_level(ready: Node, level: str) -> None:
    run = ready.run(b"", "--log-level", level)
    assert (run.status, run.entry["PRIORITY"], run.entry["OUTCOME"]) == (1, "3", "fault-request")


@pytest.mark.parametrize(("level", "heard"), [("warning", True), ("error", False)])
def test_a_pull_with_a_warning(ready: Node, alpha: str, level: str, heard: bool) -> None:
    ready.write("var/lib/kubelet/config.json", "{")
    run = ready.run(request(token=alpha), "--log-level", level)
    assert_written(run)
    assert [entry["PRIORITY"] for entry in run.entries] == (["4"] if heard else [])


def test_a_fault_tells_how_far_the_run_came(ready: Node, cluster: ApiServer, alpha: str) -> None:
    cluster.fault = demo.refuse(404)
    entry = ready.run(request(token=alpha)).entry
    assert entry["OUTCOME"] == "fault-cluster"
    assert entry["IMAGE"] == NGINX
    assert int(entry["DURATION_US"]) > 0


def test_a_usage_fault_is_told_on_stderr_alone(ready: Node) -> None:
    """Where the log should go is one of the things that could not be read."""
    run = ready.run(request(), "--no-such-flag")
    assert (run.status, run.entries) == (2, [])
    assert "--no-such-flag" in run.stderr


# -- a journald that does not listen ----------------------------------------------------------------------------------


def dead_socket(path: Path) -> None:
    """The file of a socket whose owner is gone."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as gone:
        gone.bind(str(path))


def a_file(path: Path) -> None:
    path.write_text("")


def a_stream_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.bind(str(path))


def nothing(path: Path) -> None:
    """journald is not installed."""


@pytest.mark.parametrize("make", [nothing, dead_socket, a_file, a_stream_socket])
def test_without_a_journald_a_run_is_as_good(
    make_node: NodeMaker, plugin: Path, cluster: ApiServer, alpha: str, make: Any
) -> None:
    node = make_node(str(plugin), journald=False)
    node.join(cluster)
    node.journal_socket.parent.mkdir(parents=True)
    make(node.journal_socket)
    assert_written(node.run(request(token=alpha), "--log-level", "debug"))
    fault = node.run(b"")
    assert (fault.status, fault.stderr.count("\n")) == (1, 1)


@pytest.mark.parametrize("path", ["", "/nowhere/socket", "/" + "x" * 200])
def test_any_journal_socket_will_do(ready: Node, alpha: str, path: str) -> None:
    run = ready.run(request(token=alpha), "--journal-socket", path)
    assert_written(run)
    assert run.entries == []


def test_a_journald_that_is_stuck_costs_a_moment(
    make_node: NodeMaker, plugin: Path, cluster: ApiServer, alpha: str
) -> None:
    """Its queue is full, and nobody reads: a sender would wait for ever."""
    node = make_node(str(plugin), journald=False)
    node.join(cluster)
    node.journal_socket.parent.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        stuck = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        stuck.bind(str(node.journal_socket))
        usual = node.run(request(token=alpha)).seconds
        for file in node.auth_dir.glob("*.json"):
            file.unlink()
        with contextlib.suppress(BlockingIOError):
            while True:
                sender = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
                sender.setblocking(False)
                sender.sendto(b"MESSAGE=filler\n", str(node.journal_socket))
        run = node.run(request(token=alpha), "--log-level", "debug")
        assert_written(run)
        assert run.seconds < usual + 1


def test_a_journald_that_is_behind_loses_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A burst of entries that is longer than its queue."""
    path = tmp_path_factory.mktemp("j") / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as slow:
        slow.bind(str(path))
        slow.settimeout(5)
        burst = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text()) + 5
        child = os.fork()
        if not child:
            log = journal.Journal(str(path), "info")
            for number in range(burst):
                log.send(journal.INFO, str(number))
            os._exit(0)
        time.sleep(0.03)
        assert slow.recv(65536) == b"\n"  # the greeting
        heard = [decode_entry(slow.recv(65536))["MESSAGE"] for _ in range(burst)]
        os.waitpid(child, 0)
        assert heard == [str(number) for number in range(burst)]


# -- a journald that looks the sender up when it gets to it ------------------------------------------------------------


def test_a_run_stays_until_journald_has_got_to_its_greeting(make_node: NodeMaker, plugin: Path) -> None:
    """After that it may go: journald knows its name by then."""
    node = make_node(str(plugin), journald=False)
    node.write_registries_conf("")
    node.journal_socket.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as slow:
        slow.bind(str(node.journal_socket))
        slow.settimeout(10)
        node.write("request", request())
        readable = select.poll()
        readable.register(slow, select.POLLIN)
        alive = 0
        for _ in range(20):
            with (node.root / "request").open("rb") as message:
                process = subprocess.Popen([plugin, *node.flags], stdin=message, stdout=subprocess.DEVNULL, env={})
            assert readable.poll(10_000)
            time.sleep(0.005)  # a run without a mirror would be over in 1 or 2 ms
            alive += is_alive(process.pid)
            assert slow.recv(65536) == b"\n"
            assert b"OUTCOME=nothing-to-do" in slow.recv(65536)
            assert process.wait(10) == 0
        # Some may have been looked at too late, on a busy machine.
        assert alive >= 15


def is_alive(process: int) -> bool:
    """Not yet a zombie, whose executable and control group nobody knows any more."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_run_that_tells_nothing_does_not_stay(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("j") / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stuck:
        stuck.bind(str(path))
        log = journal.Journal(str(path), "error")
        log.greet()
        log.send(journal.INFO, "an entry")
        begin = time.monotonic()
        log.stay()
        assert time.monotonic() - begin < 0.005


def test_nobody_waits_long_for_a_journald_that_never_gets_to_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("j") / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stuck:
        stuck.bind(str(path))
        log = journal.Journal(str(path), "info")
        log.send(journal.INFO, "an entry")
        begin = time.monotonic()
        log.stay()
        assert 0.005 < time.monotonic() - begin < 0.5
        assert stuck.recv(100) == b"\n"
        begin = time.monotonic()
        log.stay()
        assert time.monotonic() - begin < 0.005


# -- the encoding -----------------------------------------------------------------------------------------------------


@pytest.fixture
def listener(tmp_path_factory: pytest.TempPathFactory) -> Any:
    log = Journal(tmp_path_factory.mktemp("j") / "socket")
    yield log
    log.close()


def sent(listener: Journal, message: str, fields: dict[str, str] | None = None) -> dict[str, str]:
    journal.Journal(listener._path, "info").send(journal.INFO, message, fields)
    listener.flush()
    (entry,) = listener.entries
    return entry


@pytest.mark.parametrize(
    "value",
    ["plain", "a=b=c", "two\nlines", "\n", "ends with a line break\n", "MESSAGE=forged\nPRIORITY=0", "tab\tand é 漢"],
)
def test_values_come_through_as_they_are(listener: Journal, value: str) -> None:
    entry = sent(listener, "m", {"REASON": value})
    assert entry == {"MESSAGE": "m", "PRIORITY": "6", "SYSLOG_IDENTIFIER": "crio-credential", "REASON": value}


def test_empty_fields_are_left_out(listener: Journal) -> None:
    assert "REASON" not in sent(listener, "m", {"REASON": ""})


@pytest.mark.parametrize("character", ["x", "é", "漢", "\n"])
def test_long_values_are_cut_between_characters(listener: Journal, character: str) -> None:
    value = sent(listener, "m", {"SOURCES": "." + character * 100_000})["SOURCES"]
    assert value.startswith("." + character * 1000) and value.endswith(character + "...")
    assert 16_000 < len(value.encode()) < 17_000


def test_a_text_that_is_no_unicode_comes_through(listener: Journal) -> None:
    assert sent(listener, "file \udcff")["MESSAGE"] == "file \\xff"


def test_all_fields_at_their_longest_fit_into_one_datagram(listener: Journal) -> None:
    fields = {f"FIELD_{number}": "x" * 100_000 for number in range(9)}
    assert len(sent(listener, "m" * 100_000, fields)) == 12


def test_many_sources_and_secrets_in_one_entry(ready: Node, cluster: ApiServer, alpha: str) -> None:
    mirrors = [f"mirror{number}.{'x' * 50}.example/{'y' * 80}" for number in range(400)]
    ready.write_mirrors("docker.io", *mirrors)
    cluster.add_secret(
        "team-alpha", "all", {"auths": {mirror.partition("/")[0]: {"auth": "YTpi"} for mirror in mirrors}}
    )
    run = ready.run(request(token=alpha))
    assert_written(run)
    assert run.entry["MESSAGE"].startswith("Wrote auth file to ")
    assert run.entry["SOURCES"].startswith(mirrors[0]) and run.entry["SOURCES"].endswith("...")


# -- stderr -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", ["two\nlines", "a\r\nb", "\x1b[31mred", "nul\0", "\u2028", "\udcff"])
def test_a_fault_is_one_line_of_text(capfd: pytest.CaptureFixture[str], message: str) -> None:
    journal.complain(message)
    said = capfd.readouterr().err
    assert said.startswith("crio-credential-provider: ") and said.endswith("\n")
    assert said[:-1].isprintable()


def test_a_fault_is_not_long(capfd: pytest.CaptureFixture[str]) -> None:
    journal.complain("x" * 100_000)
    assert len(capfd.readouterr().err) < 5000


# -- the real one -----------------------------------------------------------------------------------------------------

# In a mount namespace of its own: /run and the logs are empty there, and nobody else's journal is touched.
JOURNALD = """\
set -eu
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log
mkdir -p /run/systemd/journal /run/log/journal
"$1" &
journald=$!
for attempt in $(seq 100); do
    [ -S /run/systemd/journal/socket ] && break
    sleep 0.1
done
plugin() {
    "$plugin" --root "$root" --journal-socket /run/systemd/journal/socket "$@"
}
plugin=$2 root=$3
for run in 1 2 3 4 5 6 7 8; do
    plugin < "$3/request" > "$3/answer"
    rm "$3"/etc/crio/auth/*.json
done
for run in 1 2 3 4 5 6 7 8; do
    plugin < "$3/request-without-mirror" > /dev/null
done
plugin --log-level debug < "$3/request" > "$3/answer"
plugin < /dev/null 2> /dev/null || true
for attempt in $(seq 100); do
    journalctl --no-pager --sync || true
    [ "$(journalctl --no-pager --quiet -o cat OUTCOME=fault-request | wc -l)" -gt 0 ] && break
    sleep 0.1
done
journalctl --no-pager --quiet -o json -t crio-credential > "$3/by-identifier"
journalctl --no-pager --quiet -o json _COMM=crio-credential > "$3/by-comm"
kill $journald
wait $journald || true
"""


def test_the_real_journald_keeps_it(ready: Node, plugin: Path, alpha: str) -> None:
    need("journalctl", "unshare")
    journald = Path("/lib/systemd/systemd-journald")
    if not journald.exists():
        cannot(f"not installed here: {journald}")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0:
        cannot("no mount namespace can be made: it takes root, and a container that allows it")
    if not Path("/etc/machine-id").exists():
        cannot("/etc/machine-id is missing, without which journald does not start")
    ready.write("request", request(token=alpha))
    ready.write("request-without-mirror", request("quay.io/team/app", alpha))
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", JOURNALD, "sh", str(journald), str(plugin), str(ready.root)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b'"auth"' in (ready.root / "answer").read_bytes()

    kept = [json.loads(line) for line in (ready.root / "by-identifier").read_text().splitlines()]
    *audits, fault = (entry for entry in kept if "OUTCOME" in entry)
    assert len(audits) == 17
    # What OpenShift's end-to-end test asks for finds the pulls. Without the greeting of journal.py journald finds about
    # half of the processes gone when it looks for their names.
    by_comm = [json.loads(line) for line in (ready.root / "by-comm").read_text().splitlines()]
    assert len([entry for entry in by_comm if "OUTCOME" in entry]) >= 17
    audit = audits[-1]
    assert audit["MESSAGE"].startswith(f"Wrote auth file to {ready.auth_dir}/team-alpha-")
    assert (audit["PRIORITY"], audit["_COMM"]) == ("6", "crio-credential")
    wanted = {
        "NAMESPACE": "team-alpha",
        "SERVICE_ACCOUNT": "default",
        "POD": "web",
        "IMAGE": NGINX,
        "OUTCOME": "auth-file-written",
        "SECRETS": "mirror-creds",
        "CREDENTIALS": "mirror.corp:5000/hub/library/nginx=mirror-creds",
    }
    assert {name: audit[name] for name in wanted} == wanted
    assert audit["SOURCES"].split() == ["mirror.corp:5000/hub/library/nginx", NGINX]
    assert int(audit["DURATION_US"]) > 0
    assert (fault["PRIORITY"], fault["OUTCOME"]) == ("3", "fault-request")
    # The decisions, at debug level.
    assert sum(entry["PRIORITY"] == "7" for entry in kept) >= 4
