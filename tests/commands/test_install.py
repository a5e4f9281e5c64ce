"""install, uninstall, rollback and status as a person types them: the executable, a node that runs, and its faults.

The node's root is a directory, as in a container: systemctl is run below it. Its kubelet is a process, which refuses
what a kubelet refuses (tests/rollout_node.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import rollout_node
from commandline import Done
from crio_credential_provider import __version__
from crio_credential_provider.testbed.certificates import Authority, server_context
from crio_credential_provider.testbed.loopback import LoopbackServer, Request
from executables import NATIVE, command
from gallery import Cluster
from real_programs import cannot
from rollout_node import (
    LAYOUTS,
    NAME,
    WITH_CONTAINERD,
    Rollout,
    Systemd,
    free_port,
    leftovers,
    refusal,
    running,
    snapshot,
)

pytestmark = pytest.mark.slow

NODE = "worker-1"
AUDIENCES = ["https://kubernetes.default.svc.cluster.local", "https://kubernetes.default.svc"]


@pytest.fixture(autouse=True)
def root() -> None:
    if os.geteuid() != 0:
        cannot("only root can change its root")


def typed(root: Path, *words: str, wrapper: tuple[str, ...] = ()) -> Done:
    verb, *rest = words
    done = subprocess.run(
        [*wrapper, *command(NATIVE), verb, "--host", root, *rest],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd="/",
    )
    return Done(done.returncode, done.stdout, done.stderr)


class NodesApi(Cluster):
    """An API server that knows this node's state."""

    ready, beats = "True", True

    def _answer(self, request: Request) -> tuple[int, dict[str, Any]]:
        status, document = super()._answer(request)
        if request.path == f"/api/v1/nodes/{NODE}":
            second = time.time() if self.beats else time.time() - 30
            beat = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))
            condition = {"type": "Ready", "status": self.ready, "message": "PLEG", "lastHeartbeatTime": beat}
            document = {**document, "status": {**document["status"], "conditions": [condition]}}
        return status, document


@contextlib.contextmanager
def api_server(node: Rollout, authority: Authority, rights: bool) -> Iterator[NodesApi]:
    written = {
        "audiences": AUDIENCES,
        "pods": {},
        "reviews": {
            "get /serviceaccounts": rights,
            **{f"request-serviceaccounts-token-audience /{audience}": rights for audience in AUDIENCES},
        },
    }
    api = NodesApi(written, {"name": NODE, "versions": {"kubelet": "1.34.2", "crio": "1.34.3"}}, [])
    identity = authority.issue("127.0.0.1", ip_addresses=["127.0.0.1"])
    client = authority.issue(f"system:node:{NODE}", organization="system:nodes", client=True)
    place = node.root / "etc/kubernetes"
    (place / "node.pem").write_text(client.certificate_pem + client.key_pem)
    (place / "ca.crt").write_text(authority.certificate_pem)
    with LoopbackServer(api.respond, server_context(identity, clients=authority)) as server:
        user = {"client-certificate": "/etc/kubernetes/node.pem", "client-key": "/etc/kubernetes/node.pem"}
        kubeconfig = {
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "n"}}],
            "clusters": [
                {
                    "name": "k",
                    "cluster": {
                        "server": f"https://127.0.0.1:{server.port}",
                        "certificate-authority": "/etc/kubernetes/ca.crt",
                    },
                }
            ],
            "users": [{"name": "n", "user": user}],
        }
        (node.root / "var/lib/kubelet").mkdir(exist_ok=True)
        (node.root / "var/lib/kubelet/kubeconfig").write_text(json.dumps(kubeconfig))
        yield api


class Live(NamedTuple):
    """A node that runs, in a cluster."""

    root: Path
    kind: str
    systemd: Systemd
    api: NodesApi


@contextlib.contextmanager
def live(kind: str, place: Path, authority: Authority, *, rights: bool = True) -> Iterator[Live]:
    with running(kind, place / "node", free_port()) as node, api_server(node, authority, rights) as api:
        yield Live(*node, api)


@pytest.fixture
def node(tmp_path: Path, authority: Authority) -> Iterator[Live]:
    with live("kubeadm", tmp_path, authority) as made:
        yield made


def program_of(node: Live) -> bytes:
    return Path(command(NATIVE)[-1]).read_bytes()


# -- all is well -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LAYOUTS)
def test_planned_applied_and_taken_away(kind: str, tmp_path: Path, authority: Authority) -> None:
    with live(kind, tmp_path, authority) as node:
        before = snapshot(node.root)
        plan = typed(node.root, "install")
        assert (plan.status, plan.err) == (0, ""), plan
        assert plan.lines[-1] == "nothing was changed; install --apply does it"
        assert f"systemctl restart {node.systemd.unit}" in plan.out
        assert "auth-dir-on-disk" not in plan.out
        assert snapshot(node.root) == before and not (node.root / rollout_node.OWN).exists()

        done = typed(node.root, "install", "--apply")
        assert (done.status, done.err, done.lines[-1]) == (0, "", "install: done"), done
        assert "the kubelet is healthy" in done.out and "doctor finds no new error" in done.out
        assert node.systemd.is_up and refusal(node.root, kind, (program_of(node),)) == ""
        assert "image-credential-provider-config" in rollout_node.flags_of(node.root, kind)
        asked = len(node.systemd.asked)

        again = typed(node.root, "install", "--apply")
        assert (again.status, again.lines[-1]) == (0, "everything is installed already, nothing to do"), again
        assert len(node.systemd.asked) == asked
        told = typed(node.root, "status")
        assert (told.status, told.lines[0]) == (0, f"installed: version {__version__}"), told
        has_containerd = kind in WITH_CONTAINERD
        assert f"container runtime: {'containerd' if has_containerd else 'CRI-O'}" in told.lines

        gone = typed(node.root, "uninstall", "--apply")
        assert (gone.status, gone.err, gone.lines[-1]) == (0, "", "uninstall: done"), gone
        assert snapshot(node.root) == before and node.systemd.is_up
        if has_containerd:
            assert {text.split()[-1] for text in node.systemd.asked if " restart " in text} == {node.systemd.unit}
            assert not [text for text in node.systemd.asked if ".mount" in text]
        assert typed(node.root, "uninstall", "--apply").out.endswith("nothing to do\n")
        assert typed(node.root, "status").lines[0] == "installed: nothing by install"
        assert leftovers(node.root) == []


def test_services_are_told_in_order(node: Live) -> None:
    typed(node.root, "install", "--apply", "--auth-dir=/run/other")
    orders = [text for text in node.systemd.asked if "show" not in text]
    assert orders == [
        "systemctl reset-failed crio",
        "systemctl restart crio",
        "systemctl reset-failed kubelet.service",
        "systemctl restart kubelet.service",
    ]
    typed(node.root, "rollback", "--apply")
    typed(node.root, "install", "--apply")
    orders = [text for text in node.systemd.asked if "show" not in text][8:]
    assert orders == [
        "systemctl daemon-reload",
        "systemctl start etc-crio-auth.mount",
        "systemctl reset-failed kubelet.service",
        "systemctl restart kubelet.service",
    ]
    mounts = (node.root / "proc/1/mountinfo").read_text()
    assert " /etc/crio/auth " in mounts


def test_the_kubelet_has_its_program_until_it_is_restarted(node: Live) -> None:
    typed(node.root, "install", "--apply")
    done = typed(node.root, "uninstall", "--apply")
    lines = done.lines
    assert lines.index("systemctl restart kubelet.service") < lines.index(f"removed: /{BIN}/{NAME}")
    assert lines.index("removed: /etc/kubernetes/credential-provider-config.yaml") < lines.index(
        "systemctl daemon-reload"
    )
    (node.root / "run/standin/unhealthy").touch()
    typed(node.root, "install", "--apply", "--no-restart")
    before = snapshot(node.root)
    done = typed(node.root, "uninstall", "--apply", "--timeout=2s")
    assert done.status == 1 and "uninstall failed" in done.err and snapshot(node.root) == before


def test_on_the_machine_itself(node: Live) -> None:
    """Without --host, by the systemctl of PATH: the node's root is that of the process."""
    (node.root / "program").write_bytes(program_of(node))
    (node.root / "program").chmod(0o755)
    (node.root / "proc/self/exe").symlink_to("/program")
    (node.root / "dev").mkdir()
    os.mknod(node.root / "dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    before = snapshot(node.root)
    for verb, last in (("install", "install: done"), ("rollback", "rollback: done")):
        done = subprocess.run(
            ["chroot", node.root, "/program", verb, "--apply"], capture_output=True, text=True, check=False, timeout=60
        )
        assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, [last]), done
        assert (snapshot(node.root) == before) == (verb == "rollback") and node.systemd.is_up


def test_the_entry_is_that_of_manifests(node: Live) -> None:
    words = ["--secrets-from=pod", "--match-image=docker.io", "--match-image=quay.io"]
    typed(node.root, "install", "--apply", *words)
    said = subprocess.run([*command(NATIVE), "manifests", "config", *words], capture_output=True, text=True, check=True)
    assert (node.root / "etc/kubernetes/credential-provider-config.yaml").read_text() == said.stdout


def test_a_plan_for_a_program(node: Live) -> None:
    report = typed(node.root, "install", "plan", "--output=json").report
    assert (report["schemaVersion"], report["outcome"], report["message"]) == (1, "planned", "")
    paths = {change["path"]: change for change in report["changes"]}
    assert paths["/etc/default/kubelet"]["action"] == "change"
    lines = paths["/etc/default/kubelet"]["diff"].splitlines()
    assert lines[:2] == ["--- /etc/default/kubelet", "+++ /etc/default/kubelet"]
    assert [line[0] for line in lines[3:]] == ["-", "+"]
    assert report["checks"]["stops"] == []
    assert report["commands"][-1] == "systemctl restart kubelet.service"
    done = typed(node.root, "install", "--apply", "--output=json").report
    assert done["outcome"] == "done" and "doctor finds no new error" in done["steps"]
    assert typed(node.root, "status", "--output=json").report["kubelet"]["state"] == "active"


def test_without_restart_services_are_left_alone(node: Live) -> None:
    done = typed(node.root, "install", "--apply", "--no-restart")
    assert done.status == 0 and "then, by yourself (--no-restart):" in done.out
    assert node.systemd.asked == []


def test_no_secret_of_another_provider_is_shown(tmp_path: Path, authority: Authority) -> None:
    with live("others", tmp_path, authority) as node:
        config = node.root / "etc/kubernetes/others.yaml"
        config.write_text(config.read_text().replace('"pull"', '"c4nary"'))
        outputs = [typed(node.root, "install", *words) for words in ([], ["--apply"], ["--apply"])]
        assert all("c4nary" not in f"{done.out}{done.err}" for done in outputs)
        own = [path for path in (node.root / rollout_node.OWN).rglob("*") if path.is_file()]
        assert own and all(path.stat().st_mode & 0o077 == 0 for path in own)


# -- the node is Ready, or not -----------------------------------------------------------------------------------------


def test_the_node_must_report_itself_ready(node: Live) -> None:
    before = snapshot(node.root)
    done = typed(node.root, "install", "--apply")
    assert (done.status, done.err) == (0, ""), done
    assert "the kubelet is healthy and its node Ready" in done.out
    typed(node.root, "rollback", "--apply")
    # What the API server still says of a kubelet that is gone is not enough.
    node.api.beats = False
    done = typed(node.root, "install", "--apply", "--timeout=3s")
    assert done.status == 1 and "the node has not reported itself to the API server" in done.err
    assert "everything was put back" in done.err and snapshot(node.root) == before
    assert node.systemd.is_up


def test_a_node_that_was_not_ready_need_not_become_so(node: Live) -> None:
    node.api.ready = "False"
    done = typed(node.root, "install", "--apply")
    assert (done.status, done.lines[-1]) == (0, "install: done"), done
    assert typed(node.root, "status").status == 3


def test_rbac_comes_first(tmp_path: Path, authority: Authority) -> None:
    with live("kubeadm", tmp_path, authority, rights=False) as node:
        before = snapshot(node.root)
        for words in ([], ["--apply"]):
            done = typed(node.root, "install", *words)
            assert done.status == 1 and "check: ERROR node-lacks-audience" in done.out
            assert "doctor finds errors on the planned node: node-lacks-audience" in done.err
            assert "nothing was changed" in done.err
        assert snapshot(node.root) == before and node.systemd.asked == []


# -- faults ------------------------------------------------------------------------------------------------------------


def assert_put_back(node: Live, before: dict[str, Any], done: Done, *said: str) -> None:
    assert done.status == 1, done
    for text in (*said, "install failed and everything was put back"):
        assert text in done.err, done.err
    assert snapshot(node.root) == before
    assert leftovers(node.root) == []
    assert not (node.root / rollout_node.OWN / "transaction.json").exists()
    assert "image-credential-provider-config" not in rollout_node.flags_of(node.root, node.kind)
    assert typed(node.root, "status").lines[0] == "installed: nothing by install"


def test_a_kubelet_that_does_not_start(node: Live) -> None:
    """It refuses what doctor does not see."""
    before = snapshot(node.root)
    (node.root / "run/standin/refuse").touch()
    done = typed(node.root, "install", "--apply")
    assert_put_back(node, before, done, "kubelet.service does not stay up")
    assert done.err.splitlines()[-1].startswith("  kubelet.service: E1129") and "refused for a test" in done.err
    assert node.systemd.is_up


def test_a_kubelet_that_is_not_healthy(node: Live) -> None:
    before = snapshot(node.root)
    (node.root / "run/standin/unhealthy").touch()
    done = typed(node.root, "install", "--apply", "--timeout=2s")
    assert done.status == 1 and "answers 500: [-]syncloop failed" in done.err
    # The old configuration does not cure it either, and that is said.
    assert "the files are back, but the kubelet is not healthy" in done.err
    assert snapshot(node.root) == before


def test_a_swap_that_fails_gives_the_go_provider_back(tmp_path: Path, authority: Authority) -> None:
    with live("go", tmp_path, authority) as node:
        left = node.root / "etc/crio/auth" / f"team-alpha-{'a' * 64}.json"
        left.parent.mkdir()
        before = snapshot(node.root)
        left.write_text("{}")
        (node.root / "run/standin/refuse").touch()
        done = typed(node.root, "install", "--apply")
        assert done.status == 1 and "install failed and everything was put back: the kubelet is not healthy" in done.err
        # It was on the disk, where no pull looks once a tmpfs lies over it.
        assert f"removed: /etc/crio/auth/{left.name}" in done.lines
        assert snapshot(node.root) == before and leftovers(node.root) == []
        assert refusal(node.root, "go", (rollout_node.GO_PROGRAM,)) == "" and node.systemd.is_up
        (node.root / "run/standin/refuse").unlink()
        done = typed(node.root, "install", "--apply")
        assert (done.status, done.lines[-1]) == (0, "install: done"), done
        assert "replaces cri-o's Go provider, version v0.1.2" in done.out
        # As an upgrade of its package would: the program alone changes, no service is told, doctor looks all the same.
        (node.root / "opt/go" / NAME).write_bytes(rollout_node.GO_PROGRAM)
        asked = len(node.systemd.asked)
        done = typed(node.root, "install", "--apply")
        assert (done.status, done.lines[-2:]) == (0, ["doctor finds no new error", "install: done"]), done
        assert node.systemd.asked[asked:] == []
        # The kubelet has our arguments until it is restarted: the Go provider does not know them.
        lines = typed(node.root, "uninstall", "--apply").lines
        written = lines.index(f"written: /opt/go/{NAME}")
        assert lines.index("systemctl restart kubelet.service") < written < len(lines)
        assert snapshot(node.root) == before


@pytest.mark.parametrize(
    "order", ["daemon-reload", "start etc-crio-auth.mount", "restart crio", "restart kubelet.service"]
)
def test_a_service_that_fails(order: str, tmp_path: Path, authority: Authority) -> None:
    with live("kubeadm", tmp_path, authority) as node:
        before = snapshot(node.root)
        node.systemd.faults = {order}
        words = ["--auth-dir=/run/other"] if order.endswith("crio") else []
        done = typed(node.root, "install", "--apply", *words)
        assert done.status == 1 and f"systemctl {order}: Job for" in done.err, done
        assert snapshot(node.root) == before and node.systemd.is_up
        # What fails on the way back as well is told, and keeps nothing else from going back.
        assert ("not everything was put back: the files are back" in done.err) == (order != "start etc-crio-auth.mount")
        assert " /etc/crio/auth " not in (node.root / "proc/1/mountinfo").read_text()
        node.systemd.faults = set()
        assert typed(node.root, "install", "--apply", *words).status == 0


def test_doctor_finds_an_error_afterwards(node: Live) -> None:
    before = snapshot(node.root)
    (node.root / "run/standin/spoil").touch()
    done = typed(node.root, "install", "--apply")
    assert_put_back(node, before, done, "doctor finds", "(auth-dir-mode)", "chmod 0700")
    assert node.systemd.is_up


def mounted(root: Path, path: str, option: str) -> tuple[str, ...]:
    """Runs a command where a directory of the node is on a file system of its own."""
    (root / path).mkdir(parents=True, exist_ok=True)
    script = 'mount -t tmpfs -o "$1" tmpfs "$0" && shift && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", script, str(root / path), option)


BIN = "usr/libexec/kubelet-image-credential-provider-plugins"


def test_where_usr_is_read_only_the_program_goes_below_var(node: Live) -> None:
    done = typed(node.root, "install", "--apply", wrapper=mounted(node.root, BIN, "ro"))
    assert done.status == 0, done
    assert (node.root / "var/lib/crio-credential-provider/bin" / NAME).exists()
    assert rollout_node.flags_of(node.root, "kubeadm")["image-credential-provider-bin-dir"] == (
        "/var/lib/crio-credential-provider/bin"
    )


def test_a_read_only_directory_that_the_kubelet_already_names(tmp_path: Path, authority: Authority) -> None:
    with live("others", tmp_path, authority) as node:
        wrapper = mounted(node.root, "opt/providers", "ro")
        for words in ([], ["--apply"]):
            done = typed(node.root, "install", *words, wrapper=wrapper)
            assert done.status == 1 and "is on a read-only file system" in done.err and node.systemd.asked == []


@pytest.mark.parametrize("place", [BIN, "etc/tmpfiles.d", "var/lib/crio-credential-provider"])
def test_a_full_disk(place: str, node: Live) -> None:
    wrapper = mounted(node.root, place, "size=4k,nr_inodes=2" if "tmpfiles" in place else "size=64k")
    if "tmpfiles" in place:
        # One inode is the directory's; the other one is for a file without a block left for it.
        wrapper = mounted(node.root, place, "size=4k,nr_inodes=1")
    before = snapshot(node.root)
    done = typed(node.root, "install", "--apply", wrapper=wrapper)
    if place.startswith("var"):
        # Nothing needs to be kept of what was not there; the program alone is larger than that.
        assert done.status in (0, 1)
    else:
        assert done.status == 1 and "No space left on device" in done.err and "everything was put back" in done.err
        assert snapshot(node.root) == before
        assert node.systemd.asked == []
    assert refusal(node.root, "kubeadm") == "" and leftovers(node.root) == []


def test_whoever_reads_may_go(node: Live) -> None:
    words = [*command(NATIVE), "install", "--apply", "--host", node.root]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stderr
        while not process.stdout.readline().startswith("written: "):
            pass
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (0, "")
    assert typed(node.root, "status").status == 0


def test_no_systemctl(node: Live) -> None:
    (node.root / "usr/bin/systemctl").unlink()
    before = snapshot(node.root)
    done = typed(node.root, "install", "--apply")
    said = "cannot run systemctl: No such file or directory; nothing was changed; give --no-restart on a node without"
    assert done.status == 1 and done.err.count(said) == done.err.count("systemctl") == 1
    assert "written: " not in done.out and "failed: " not in done.out
    assert snapshot(node.root) == before
    assert typed(node.root, "install", "--apply", "--no-restart").status == 0


def test_systemctl_that_breaks_is_told_once(node: Live) -> None:
    """After the first of its commands."""
    program = node.root / "usr/bin/systemctl"
    before = snapshot(node.root)
    program.write_text("#!/bin/sh\n: > /usr/bin/systemctl; exit 1\n")
    done = typed(node.root, "install", "--apply")
    assert done.status == 1 and "not everything was put back" in done.err
    assert done.err.count("the files are back, but cannot run systemctl: Exec format error") == 1
    assert snapshot(node.root) == before


@contextlib.contextmanager
def waiting(root: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """An installation that waits for a kubelet which is not healthy."""
    (root / "run/standin/unhealthy").touch()
    # A job in the background ignores SIGINT, and so would all that it starts.
    with subprocess.Popen(
        ["env", "--default-signal", *command(NATIVE), "install", "--apply", "--host", root, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        while not process.stdout.readline().startswith("waiting: "):
            pass
        yield process


def test_two_at_once(node: Live) -> None:
    with waiting(node.root, "--timeout=4s") as first:
        done = typed(node.root, "install", "--apply")
        assert (done.status, done.err) == (
            1,
            f"{NAME} install: another install, uninstall or rollback is running on this node\n",
        )
        (node.root / "run/standin/unhealthy").unlink()
        first.communicate(timeout=60)
        assert first.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_it_puts_everything_back(number: signal.Signals, node: Live) -> None:
    before = snapshot(node.root)
    with waiting(node.root) as process:
        (node.root / "run/standin/unhealthy").unlink()
        process.send_signal(number)
        process.communicate(timeout=60)
        assert process.returncode == 128 + number
    assert snapshot(node.root) == before and node.systemd.is_up
    assert leftovers(node.root) == []


def test_killed_while_it_waits_the_next_run_undoes_it_and_says_so(node: Live) -> None:
    before = snapshot(node.root)
    with waiting(node.root) as process:
        process.kill()
    (node.root / "run/standin/unhealthy").unlink()
    told = typed(node.root, "status")
    assert told.status == 3 and "interrupted: install" in told.out
    assert "the last install was interrupted; install --apply undoes it first" in typed(node.root, "install").out
    done = typed(node.root, "uninstall", "--apply")
    assert done.status == 0 and done.lines[0] == "the last install was interrupted; it is undone first"
    assert snapshot(node.root) == before and node.systemd.is_up
    assert "image-credential-provider-config" not in " ".join(
        path.read_text() for path in (node.root / "proc").glob("[0-9]*/cmdline")
    )


def test_what_somebody_else_changed_is_told(node: Live) -> None:
    typed(node.root, "install", "--apply")
    config = node.root / "etc/kubernetes/credential-provider-config.yaml"
    config.write_text(config.read_text() + "# mine\n")
    told = typed(node.root, "status")
    assert told.status == 3 and "changed: /etc/kubernetes/credential-provider-config.yaml" in told.out
    done = typed(node.root, "uninstall", "--apply")
    assert done.status == 1 and "was changed by somebody else" in done.err
    assert config.read_text().endswith("# mine\n") and node.systemd.is_up
    assert "image-credential-provider-config" not in rollout_node.flags_of(node.root, "kubeadm")


def test_a_program_that_another_configuration_names_stays(node: Live) -> None:
    extra = node.root / "etc/default/kubelet"
    was = extra.read_text()
    typed(node.root, "install", "--apply")
    config = node.root / "etc/kubernetes/credential-provider-config.yaml"
    (node.root / "etc/other.yaml").write_text(config.read_text())
    extra.write_text(was)
    drop_in = node.root / "usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf"
    flags = f"--image-credential-provider-config=/etc/other.yaml --image-credential-provider-bin-dir=/{BIN}"
    drop_in.write_text(drop_in.read_text().replace("$KUBELET_KUBEADM_ARGS", flags))
    for words in ([], ["--apply"]):
        done = typed(node.root, "uninstall", *words)
        assert done.status == 1 and "the kubelet would not start" in done.err and "(plugin-missing)" in done.err
    assert refusal(node.root, "kubeadm", (program_of(node),)) == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["install", "--timeout=1x"], "--timeout: '1x' is not"),
        (["install", "--host=/nonexistent"], "--host: /nonexistent: no such directory"),
        (["install", "--bin-dir=relative"], "--bin-dir: 'relative' is not an absolute path"),
        (["install", "--match-image=mirror.example/*"], "matches no image"),
        (["install", "apply"], "'apply' is not one of plan"),
        (["uninstall", "--secrets-from=pod"], "unknown flag '--secrets-from'"),
        (["status", "--apply"], "unknown flag '--apply'"),
    ],
)
def test_wrong_usage(words: list[str], said: str) -> None:
    done = subprocess.run([*command(NATIVE), *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "") and said in done.stderr
