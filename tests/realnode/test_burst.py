"""Many pods that start at the same time, with one auth file for each pull."""

from __future__ import annotations

import time

import pytest

from realnode.node import Node
from realnode.processes import wait_until
from realnode.table import Note
from realnode.tenants import Pod, Tenant
from realnode.variants import each_mode, serial_and_parallel

PODS = 12


@serial_and_parallel
@pytest.mark.parametrize("tags", [("latest",), ("latest", "v2")], ids=["one tag", "two tags"])
@each_mode
def test_burst(node: Node, tenant: Tenant, tags: tuple[str, ...], note: Note) -> None:
    image = node.registry.new_image(*tags)
    began = time.monotonic()
    pods = tenant.burst(PODS, [f"{image}:{tag}" for tag in tags])
    running = _wait_for_all(pods)
    seconds = time.monotonic() - began
    failed = sum(bool(pod.failed_pulls()) for pod in pods)
    note(f"{seconds:.0f} s")
    assert running == PODS and not failed, f"{running} of {PODS} run after {seconds:.0f} s, {failed} first pulls failed"
    assert node.registry.users(image) == {tenant.user}
    assert wait_until(lambda: not node.auth_files(), 5), f"left behind: {node.auth_files()}"


def test_burst_of_an_image_that_is_there(node: Node, tenant: Tenant, image: str, note: Note) -> None:
    """The kubelet runs the plugin for each pod, and no pull follows."""
    assert tenant.run("first", image, policy="IfNotPresent").runs_within(30)
    began = time.monotonic()
    pods = tenant.burst(PODS, [image], policy="IfNotPresent")
    running = _wait_for_all(pods)
    seconds = time.monotonic() - began
    note(f"{seconds:.0f} s")
    assert running == PODS, f"{running} of {PODS} run after {seconds:.0f} s"
    assert not any(pod.failed_pulls() for pod in pods), "failed pulls"


def _wait_for_all(pods: list[Pod], seconds: float = 120) -> int:
    """How many run, at the latest when the time is over."""
    waiting = list(pods)

    def all_run() -> bool:
        waiting[:] = [pod for pod in waiting if not pod.is_running()]
        return not waiting

    wait_until(all_run, seconds)
    return len(pods) - len(waiting)
