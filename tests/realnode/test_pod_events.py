"""Events on pods: what a tenant reads in ``kubectl describe pod``, written with the node's own identity."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from realnode.node import Node
from realnode.processes import wait_until
from realnode.sandbox import HOSTNAME
from realnode.table import Note
from realnode.tenants import Pod, Tenant

pytestmark = pytest.mark.ours

COMPONENT = "crio-credential-provider"


@pytest.fixture
def told(node: Node) -> Iterator[None]:
    """The kubelet with --pod-events; the next scenario's is as it was."""
    node.reconfigure(lambda provider: provider["args"].append("--pod-events"))
    yield
    node.setup = None


def _events(node: Node, pod: Pod) -> list[dict[str, Any]]:
    path = f"/api/v1/namespaces/{pod.namespace}/events?fieldSelector=involvedObject.name%3D{pod.name}"
    return [item for item in node.control_plane.get(path)["items"] if item["reportingComponent"] == COMPONENT]


def _described(node: Node, pod: Pod) -> str:
    (line,) = (
        line
        for line in node.control_plane.kubectl("-n", pod.namespace, "describe", "pod", pod.name).splitlines()
        if COMPONENT in line and "MirrorCredentials" in line
    )
    return re.sub(r"\s+", " ", line).strip()


@pytest.mark.usefixtures("told")
def test_no_secret_fits(node: Node, tenant: Tenant, image: str, note: Note) -> None:
    tenant.delete_secret()
    pod = tenant.run("web", image)
    assert pod.fails_within(30), f"no failed pull: {pod.events()}"
    # The kubelet's own retries.
    assert wait_until(lambda: [event for event in _events(node, pod) if event["count"] > 1], 60), _events(node, pod)
    (event,) = _events(node, pod)
    assert (event["type"], event["reason"]) == ("Warning", "MirrorCredentialsNotFound")
    assert event["reportingInstance"] == event["source"]["host"] == HOSTNAME
    line = _described(node, pod)
    assert line.startswith("Warning MirrorCredentialsNotFound ") and " (x" in line and "kubectl -n " in line, line
    note(f"one Event, {event['count']} times")


@pytest.mark.usefixtures("told")
def test_what_the_event_says_helps(node: Node, tenant: Tenant, image: str) -> None:
    """The host that it names is the one that the secret needs."""
    tenant.delete_secret()
    pod = tenant.run("web", image)
    assert wait_until(lambda: _events(node, pod), 30)
    (host,) = re.findall(r"--docker-server=(\S+)", _described(node, pod))
    password = node.new_password()
    node.registry.set_password(str(tenant.user), password)
    tenant.set_secret(password, host)
    assert pod.runs_within(90), f"not running: {pod.events()}"


@pytest.mark.usefixtures("told")
def test_the_role_is_missing(node: Node, image: str) -> None:
    tenant = node.new_tenant("namespace", granted=False)
    pod = tenant.run("web", image)
    assert wait_until(lambda: _events(node, pod), 30), pod.events()
    assert "manifests pull-secrets -n" in _described(node, pod)


@pytest.mark.usefixtures("told")
def test_a_pull_that_works_has_none(node: Node, tenant: Tenant, image: str) -> None:
    pod = tenant.run("web", image)
    assert pod.runs_within(30)
    assert _events(node, pod) == []
