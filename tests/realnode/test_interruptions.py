"""Parts of the node that are restarted, killed or stopped while many pods pull."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import NamedTuple

import pytest

from realnode import pluginprocesses
from realnode.kubelet import is_healthy
from realnode.node import Node
from realnode.processes import Process, wait_until
from realnode.runtimes import answers
from realnode.table import Note
from realnode.tenants import Tenant, how_many_run

PODS = 8
# Seconds. The plugin waits 20 for the API server.
STOPPED = 25


class Part(NamedTuple):
    process: Callable[[Node], Process]
    is_back: Callable[[Node], object]


PARTS = {
    "kubelet": Part(lambda node: node.kubelet.process, lambda node: is_healthy()),
    "runtime": Part(lambda node: node.runtime.process, lambda node: answers(node.runtime.socket)),
    "API server": Part(lambda node: node.control_plane.apiserver, lambda node: node.control_plane.is_ready()),
}


def _restarted(node: Node, process: Process) -> None:
    process.stop()
    _end_children(node, process, signal.SIGTERM)
    process.start()


def _killed(node: Node, process: Process) -> None:
    process.kill()
    _end_children(node, process, signal.SIGKILL)
    process.start()


def _stopped(_node: Node, process: Process) -> None:
    process.pause()
    try:
        time.sleep(STOPPED)
    finally:
        process.resume()


def _end_children(node: Node, process: Process, number: signal.Signals) -> None:
    """systemd ends all that is left in a service's control group: the plugin's processes with the kubelet."""
    if process is node.kubelet.process:
        for pid in pluginprocesses.find(node.bin_dir):
            pluginprocesses.end(pid, number)


HOW = {"restarted": _restarted, "killed": _killed, "stopped": _stopped}
CASES = [(part, how) for part in PARTS for how in HOW]


@pytest.mark.parametrize(("part", "how"), CASES, ids=[" ".join(case) for case in CASES])
def test_no_pull_is_lost(node: Node, tenant: Tenant, image: str, part: str, how: str, note: Note) -> None:
    began = time.monotonic()
    pods = tenant.burst(PODS, [image])
    assert wait_until(lambda: node.registry.users(image), 30), "no pull has begun"
    process = PARTS[part].process(node)
    HOW[how](node, process)
    process.wait_for(lambda: PARTS[part].is_back(node), "back")
    running = how_many_run(pods, 180)
    seconds = time.monotonic() - began
    note(f"{seconds:.0f} s")
    assert running == PODS, f"{running} of {PODS} run after {seconds:.0f} s"
    assert node.registry.users(image) == {tenant.user}
    left = node.left_behind()
    assert not left, f"{len(left)} files left behind\n{left}"
    assert pluginprocesses.all_end(node.bin_dir, 10)


@pytest.mark.ours
def test_the_api_server_does_not_answer(node: Node, tenant: Tenant, image: str) -> None:
    """The kubelet asks it for the service account before it runs the plugin, gives up after about 45 s, and pulls
    without a credential."""
    refused = "failed to get service account"
    tenant.set_secret(node.new_password())
    pod = tenant.run("web", image)
    assert pod.fails_within(30), f"no failed pull: {pod.events()}"
    node.control_plane.apiserver.pause()
    try:
        assert wait_until(lambda: refused in node.kubelet.process.output(), 90), "the kubelet does not miss it"
        assert node.findings() == ["apiserver-unreachable"]
    finally:
        node.control_plane.apiserver.resume()
    password = node.new_password()
    node.registry.set_password(tenant.namespace, password)
    tenant.set_secret(password)
    assert pod.runs_within(120), f"not running: {pod.events()}"
    assert all("authentication required" in event for event in pod.failed_pulls()), pod.failed_pulls()


@pytest.mark.ours
def test_what_a_killed_runtime_leaves_is_found_and_removed(node: Node, tenant: Tenant, image: str) -> None:
    pod = tenant.run("web", image)
    assert wait_until(lambda: any(name.startswith("in-use/") for name in node.auth_files()), 30), "no file was taken"
    runtime = node.runtime.process
    runtime.kill()
    runtime.start()
    runtime.wait_for(lambda: answers(node.runtime.socket), "back")
    assert "auth-dir-files-left-in-use" in node.findings()
    node.program.run("gc", "--in-use")
    assert pod.runs_within(120), f"not running: {pod.events()}"
    assert node.findings() == []
    assert not node.left_behind()


def test_a_kubelet_killed_during_a_pull_holds_up_no_later_one(node: Node, tenant: Tenant) -> None:
    """It leaves its pull intent, which the next one keeps until that very image is pulled."""
    image = node.registry.new_image("v1", "v2")
    killed = tenant.run("killed", f"{image}:v1")
    assert wait_until(lambda: node.registry.users(image), 30), "no pull has begun"
    node.kubelet.process.kill()
    killed.delete()
    node.kubelet.restart()
    # Each check of an image that is there leaves a file.
    for name in ("first", "second", "third"):
        pod = tenant.run(name, f"{image}:v2", policy="IfNotPresent")
        assert pod.runs_within(15), f"{name} pod: not running within 15 s"
    left = node.left_behind()
    assert not left, f"{len(left)} files left behind\n{left}"
