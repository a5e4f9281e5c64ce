"""Many pods of one image at once, on a node that behaves like a kubelet and CRI-O (bench/simulated_node.py).

The plugin is the built one, run as a process for each pod. The numbers for 50 and 200 pods are in bench/hand_off.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from simulated_node import IMAGE, NAMESPACE, Pull, SimulatedNode

from conftest import ROOT
from crio_credential_provider.pull import authfile
from crio_credential_provider.testbed.cluster import ApiServer

pytestmark = pytest.mark.process

# Two registry requests of 60 ms, as a pull that is refused ends after one.
SECONDS = 0.06


@pytest.fixture(autouse=True)
def quick_threads() -> Iterator[None]:
    """A kubelet's threads run at once; with Python's default each would wait for all others in turn."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    yield
    sys.setswitchinterval(before)


NodeMaker = Callable[..., SimulatedNode]


@pytest.fixture
def make_node(tmp_path: Path, plugin: Path, cluster: ApiServer) -> NodeMaker:
    """``make_node(*flags, serial=...)``: flags are the plugin's, the rest is SimulatedNode's."""

    def make(*flags: str, serial: bool, seconds: float = SECONDS, keeps_intents: bool = True) -> SimulatedNode:
        command = [str(plugin), *flags]
        node = SimulatedNode(tmp_path, command, cluster, serial=serial, seconds=seconds, keeps_intents=keeps_intents)
        node.prepare()
        return node

    return make


def lost(pulls: list[Pull]) -> int:
    """First pulls that found no auth file."""
    assert [pull.errors for pull in pulls if pull.status] == []
    return sum(pull.had_credentials is False for pull in pulls)


def runs_of(root: Path) -> list[int]:
    """Processes of the plugin, keepers included."""
    mark = str(root).encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "cmdline").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def until_quiet(node: SimulatedNode) -> None:
    """Until the last keeper is gone."""
    deadline = time.monotonic() + 15
    while runs_of(node.root):
        assert time.monotonic() < deadline, "a keeper stayed"
        time.sleep(0.02)


PULLS = pytest.mark.parametrize("serial", [True, False], ids=["serial", "parallel"])


@PULLS
def test_no_pull_is_without_credentials(make_node: NodeMaker, serial: bool) -> None:
    node = make_node(serial=serial)
    pulls = node.run_pods(12)
    assert lost(pulls) == 0
    until_quiet(node)
    # Each file was taken, and nothing is left.
    assert os.listdir(node.auth_directory) == ["in-use"] and os.listdir(node.auth_directory / "in-use") == []


@PULLS
def test_overwriting_loses_some(make_node: NodeMaker, serial: bool) -> None:
    """So that the simulation shows what the hand-off is for."""
    node = make_node("--hand-off-timeout=0", serial=serial)
    assert lost(node.run_pods(12)) > 0


@PULLS
def test_two_tags_of_a_repository_share_the_line(make_node: NodeMaker, serial: bool) -> None:
    node = make_node(serial=serial)
    assert lost(node.run_pods(12, tags=["1.26", "1.27"])) == 0


def test_it_takes_no_longer_than_the_pulls_themselves(make_node: NodeMaker) -> None:
    """With serial pulls, of which each outlasts the work of a run many times over."""
    node = make_node(serial=True, seconds=0.25)
    begin = time.monotonic()
    assert lost(node.run_pods(12)) == 0
    alone = 12 * 2 * 0.25
    assert alone <= time.monotonic() - begin < alone + 2.5


def test_keepers_serve_pulls_that_outlast_the_wait(make_node: NodeMaker) -> None:
    node = make_node("--hand-off-timeout=1s", serial=True, seconds=0.2)
    pulls = node.run_pods(12)
    assert lost(pulls) == 0
    # All were answered when half of the pulls were still to come.
    assert max(pull.answered for pull in pulls) < 3 and max(pull.over for pull in pulls) > 12 * 2 * 0.2
    until_quiet(node)
    assert os.listdir(node.auth_directory) == ["in-use"]


def test_checks_of_a_present_image_hold_nobody_up(make_node: NodeMaker) -> None:
    """No pull follows, which a run can only learn by the grace; where no file is taken it is halved each time."""
    node = make_node(serial=False)
    pulls = node.run_pods(20, present=True)
    assert [pull.errors for pull in pulls if pull.status] == []
    # 20 times the grace would be 5 s.
    assert max(pull.over for pull in pulls) < 3
    assert len(list(node.auth_directory.glob("*.json"))) == 1


def test_pulls_after_checks_lose_nothing(make_node: NodeMaker) -> None:
    """The file that the last check left is used or overwritten, and the shrunken grace has recovered."""
    node = make_node(serial=True)
    node.run_pods(8, present=True)
    assert lost(node.run_pods(8)) == 0


def test_a_kubelet_without_intents_is_served_by_waiting(make_node: NodeMaker) -> None:
    """Where pulls start at once, a second is more than each needs to take its file."""
    node = make_node(serial=False, keeps_intents=False)
    assert lost(node.run_pods(8)) == 0


# -- kill -9 -----------------------------------------------------------------------------------------------------------


def kill(plugin: Path | str, rounds: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "bench/kill.py"), "--runs=12", f"--rounds={rounds}", f"--plugin={plugin}"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_killed_runs_and_keepers_hold_nobody_up_and_leave_nothing(plugin: Path) -> None:
    """The short form of what bench/kill.py does with 200 rounds of 50."""
    done = kill(plugin, 3)
    assert (done.returncode, done.stderr) == (0, "")
    found = re.match(r"3 rounds \(1 pulls, 1 keepers, 1 checks\): (\d+) runs killed, (\d+) answered", done.stdout)
    assert found and int(found[1]) > 3 and int(found[2]) > 3
    assert int(found[1]) + int(found[2]) == 36


BROKEN = {
    # Shell in place of the plugin.
    "torn file": ("printf '{{' > {auth}/{name}", "a torn file of 1 bytes"),
    "another content": ("echo '{{}}' > {auth}/{name}", "another content"),
    "no file": ("true", "the next run left no file"),
    "fault": ("exit 1", "the plugin does not work here"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_bench_tells_a_plugin_that_does_not_hold(tmp_path: Path, name: str) -> None:
    command, words = BROKEN[name]
    auth = '"$2"/etc/crio/auth'
    script = tmp_path / "plugin"
    script.write_text(
        f"#!/bin/sh\nmkdir -p {auth}\n{command.format(auth=auth, name=authfile.file_name(NAMESPACE, IMAGE))}\n"
        'echo \'{"kind":"CredentialProviderResponse"}\'\n'
    )
    script.chmod(0o755)
    done = kill(script, 1)
    assert done.returncode == 1 and words in done.stderr, done.stderr
