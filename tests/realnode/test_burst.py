"""Many pods that start at the same time, with one auth file for each pull."""

from __future__ import annotations

import time

import pytest

from realnode.node import Node
from realnode.processes import wait_until
from realnode.providers import MODES
from realnode.table import Note
from realnode.tenants import Tenant, how_many_run

PODS = 12


CASES = [("namespace", serial, tags) for serial in (True, False) for tags in (1, 2)]
CASES += [(mode, False, 2) for mode in MODES if mode != "namespace"]


def _id(case: tuple[str, bool, int]) -> str:
    mode, serial, tags = case
    return f"{mode.replace('-', ' ')} secrets, {'serial' if serial else 'parallel'} pulls, {tags} tag{'s'[: tags - 1]}"


@pytest.mark.parametrize(("secrets_from", "serial", "tags"), CASES, ids=map(_id, CASES))
def test_burst(node: Node, tenant: Tenant, tags: int, note: Note) -> None:
    names = ("latest", "v2")[:tags]
    image = node.registry.new_image(*names)
    began = time.monotonic()
    pods = tenant.burst(PODS, [f"{image}:{name}" for name in names])
    running = how_many_run(pods, 120)
    seconds = time.monotonic() - began
    failed = sum(bool(node.lost_pulls(pod)) for pod in pods)
    note(f"{seconds:.0f} s")
    assert running == PODS and not failed, f"{running} of {PODS} run after {seconds:.0f} s, {failed} first pulls failed"
    assert node.registry.users(image) == {tenant.user}
    assert wait_until(lambda: not node.auth_files(tenant), 5), "files left behind"


def test_burst_of_an_image_that_is_there(node: Node, tenant: Tenant, image: str, note: Note) -> None:
    """The kubelet runs the plugin for each pod, and no pull follows."""
    assert tenant.run("first", image, policy="IfNotPresent").runs_within(30)
    began = time.monotonic()
    pods = tenant.burst(PODS, [image], policy="IfNotPresent")
    running = how_many_run(pods, 120)
    seconds = time.monotonic() - began
    note(f"{seconds:.0f} s")
    assert running == PODS, f"{running} of {PODS} run after {seconds:.0f} s"
    assert not node.lost_pulls(*pods), "failed pulls"


@pytest.mark.ours
def test_burst_of_parallel_pulls_without_pull_intents(node: Node, tenant: Tenant, image: str, note: Note) -> None:
    """Serial ones outlast the grace that the plugin gives without intents."""
    node.restart_kubelet(featureGates={"KubeletEnsureSecretPulledImages": False}, serializeImagePulls=False)
    began = time.monotonic()
    pods = tenant.burst(PODS, [image])
    running = how_many_run(pods, 120)
    note(f"{time.monotonic() - began:.0f} s")
    assert running == PODS, f"{running} of {PODS} run"
    assert not node.lost_pulls(*pods), "failed pulls"
    assert node.findings() == ["pull-intents-off"]
