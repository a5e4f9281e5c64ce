"""The same node with containerd: the kubelet passes it the namespace's credential for the mirror."""

from __future__ import annotations

import pytest

from realnode.node import Node
from realnode.registry import HOST
from realnode.tenants import Tenant
from realnode.variants import each_mode

pytestmark = [pytest.mark.ours, pytest.mark.parametrize("runtime", ["containerd"])]

# The same mirror under another name, before it, and an upstream registry that is not there.
OTHER_NAME = HOST.replace("localhost", "127.0.0.1")
TWO_NAMES = f'server = "http://{HOST}"\n[host."http://{OTHER_NAME}"]\n[host."http://{HOST}"]\n'
UPSTREAM = f'server = "https://registry-1.docker.io"\n[host."http://{HOST}"]\n'


@each_mode
def test_one_pod(node: Node, tenant: Tenant, image: str) -> None:
    pod = tenant.run("web", image)
    assert pod.runs_within(30), f"not running: {pod.events()}"
    assert not node.lost_pulls(pod), "failed pulls"
    assert node.registry.users(image) == {tenant.user}
    assert not node.auth_files(), "files for CRI-O"


def test_two_namespaces_pull_the_same_image(node: Node, tenant: Tenant, image: str) -> None:
    other = node.new_tenant()
    pods = [tenant.run("web", image), other.run("web", image)]
    assert all(pod.runs_within(30) for pod in pods), "not running"
    assert not node.lost_pulls(*pods), "failed pulls"
    assert node.registry.users(image) == {tenant.user, other.user}


def test_a_namespace_without_a_secret_is_refused(node: Node, tenant: Tenant, image: str) -> None:
    stranger = node.new_tenant(with_secret=False)
    pod = stranger.run("web", image)
    assert pod.fails_within(30), f"no failed pull: {pod.events()}"
    assert node.registry.users(image) == set()


def test_an_image_is_closed_to_other_namespaces(node: Node, tenant: Tenant, image: str) -> None:
    """By the kubelet's pull record: the image is in the node's store."""
    first = tenant.run("first", image, policy="IfNotPresent")
    assert first.runs_within(30), f"not running: {first.events()}"
    stranger = node.new_tenant(with_secret=False)
    pod = stranger.run("web", image, policy="IfNotPresent")
    assert pod.fails_within(15), "a pod of another namespace runs the private image"
    assert not pod.is_running()


def test_and_open_to_one_with_a_credential_of_its_own(node: Node, tenant: Tenant, image: str) -> None:
    other = node.new_tenant()
    for team in (tenant, other):
        pod = team.run("web", image, policy="IfNotPresent")
        assert pod.runs_within(30), f"not running: {pod.events()}"
    assert node.registry.users(image) == {tenant.user, other.user}


def test_an_image_is_open_to_the_same_service_account(node: Node, tenant: Tenant, image: str) -> None:
    """Without another pull."""
    assert tenant.run("first", image, policy="IfNotPresent").runs_within(30)
    second = tenant.run("second", image, policy="IfNotPresent")
    assert second.runs_within(30), f"not running: {second.events()}"
    pulled = [event for event in second.events() if event.startswith("Pull")]
    assert len(pulled) == 1 and "already present" in pulled[0], f"pulled again: {pulled}"


def test_a_rotated_secret_counts_at_once(node: Node, tenant: Tenant, image: str) -> None:
    assert tenant.run("before", image).runs_within(30)
    password = node.new_password()
    node.registry.set_password(tenant.namespace, password)
    assert tenant.run("old", image).fails_within(30), "the old password still counts"
    tenant.set_secret(password)
    pod = tenant.run("after", image)
    assert pod.runs_within(30), f"not running: {pod.events()}"
    assert not node.lost_pulls(pod), "failed pulls"


def test_no_credential_where_another_host_could_be_shown_it(node: Node, tenant: Tenant, image: str) -> None:
    with node.containerd.hosts(UPSTREAM):
        pod = tenant.run("web", image)
        assert pod.fails_within(30), f"no failed pull: {pod.events()}"
    assert node.registry.users(image) == set()
    (entry, *_) = node.journal.entries(f"NAMESPACE={tenant.namespace}")
    assert (entry["OUTCOME"], entry["REASON_CODE"]) == ("nothing-to-do", "exposed")


def test_several_credentials_are_tried_one_after_the_other(node: Node, tenant: Tenant, image: str) -> None:
    """In the order of the hosts; that of the first is wrong."""
    tenant.set_secret(node.new_password(), key=OTHER_NAME, name="other-creds")
    node.reconfigure(lambda provider: provider["args"].append("--allow-fallback-exposure"))
    with node.containerd.hosts(TWO_NAMES):
        pod = tenant.run("web", image)
        assert pod.runs_within(30), f"not running: {pod.events()}"
    assert not node.lost_pulls(pod), "failed pulls"
    assert node.registry.users(image) == {tenant.user}
    assert f'error authenticating user \\"{tenant.user}\\"' in node.registry.server.log.read_text()


def test_a_pull_secret_of_the_pod_comes_first(node: Node, tenant: Tenant, image: str) -> None:
    """containerd shows the mirror what the kubelet has for Docker Hub."""
    password = node.new_password()
    node.registry.set_password(tenant.namespace, password)
    tenant.set_secret(password, key="docker.io")
    pod = tenant.run("web", image, imagePullSecrets=[{"name": "mirror-creds"}])
    assert pod.runs_within(30), f"not running: {pod.events()}"
    assert node.registry.users(image) == {tenant.user}
