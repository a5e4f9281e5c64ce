"""Pulls of pods, as their owners see them."""

from __future__ import annotations

import pytest

from realnode.node import Node
from realnode.processes import wait_until
from realnode.tenants import Tenant
from realnode.variants import each_mode


@each_mode
def test_one_pod(node: Node, tenant: Tenant, image: str) -> None:
    pod = tenant.run("web", image)
    assert pod.runs_within(30), f"not running: {pod.events()}"
    assert not node.lost_pulls(pod), "failed pulls"
    assert node.registry.users(image) == {tenant.user}
    assert wait_until(lambda: not node.auth_files(tenant), 5), "files left behind"


@pytest.mark.ours
@each_mode
def test_the_journal_tells_of_the_pull(node: Node, tenant: Tenant, image: str) -> None:
    assert tenant.run("web", image).runs_within(30)
    (entry,) = node.journal.entries(f"NAMESPACE={tenant.namespace}")
    wanted = {"OUTCOME": "auth-file-written", "POD": "web", "IMAGE": image, "SECRETS": "mirror-creds"}
    assert {name: entry[name] for name in wanted} == wanted


def test_two_images_in_a_pod(node: Node, tenant: Tenant, image: str) -> None:
    other = node.registry.new_image()
    pod = tenant.run("web", image, other)
    assert pod.runs_within(60), f"not running: {pod.events()}"
    assert not node.lost_pulls(pod), "failed pulls"
    assert node.registry.users(image) == node.registry.users(other) == {tenant.user}


def test_two_namespaces_pull_the_same_image(node: Node, tenant: Tenant, image: str, secrets_from: str) -> None:
    other = node.new_tenant(secrets_from)
    pods = [tenant.run("web", image), other.run("web", image)]
    assert all(pod.runs_within(30) for pod in pods), "not running"
    assert not node.lost_pulls(*pods), "failed pulls"
    assert node.registry.users(image) == {tenant.user, other.user}


def test_an_image_is_closed_to_other_namespaces(node: Node, tenant: Tenant, image: str) -> None:
    """By the kubelet's pull record: the image is in the node's store."""
    stranger = node.new_tenant(with_secret=False)
    first = tenant.run("first", image, policy="IfNotPresent")
    assert first.runs_within(30), f"not running: {first.events()}"
    other = stranger.run("other", image, policy="IfNotPresent")
    failure = other.fails_within(15)
    assert failure, "a pod of another namespace runs the private image"
    assert "authentication required" in failure, failure
    assert not other.is_running()


def test_a_file_that_no_pull_took_opens_no_image(node: Node, tenant: Tenant) -> None:
    """A pull for which the kubelet got no credential finds none either: it would open the image to every namespace."""
    image = node.registry.new_image("latest", "v2")
    for name in ("first", "second"):
        assert tenant.run(name, image, policy="IfNotPresent").runs_within(30)
    tenant.delete_secret()
    failure = tenant.run("third", f"{image}:v2").fails_within(15)
    assert failure, "the pull took a file that was left"
    assert "authentication required" in failure, failure
    stranger = node.new_tenant(with_secret=False)
    assert stranger.run("other", f"{image}:v2", policy="IfNotPresent").fails_within(15), "open to another namespace"


def test_an_image_is_open_to_the_same_service_account(node: Node, tenant: Tenant, image: str) -> None:
    """Without another pull."""
    assert tenant.run("first", image, policy="IfNotPresent").runs_within(30)
    second = tenant.run("second", image, policy="IfNotPresent")
    assert second.runs_within(30), f"not running: {second.events()}"
    pulled = [event for event in second.events() if event.startswith("Pull")]
    assert len(pulled) == 1 and "already present" in pulled[0], f"pulled again: {pulled}"


def test_a_static_pod_gets_no_credential_of_a_namespace(node: Node, tenant: Tenant, image: str) -> None:
    """Even while one lies ready for the same image."""
    assert tenant.run("first", image, policy="IfNotPresent").runs_within(30)
    with node.static_pod(image) as pod:
        failure = pod.fails_within(30)
        assert "authentication required" in failure, failure or f"no failed pull: {pod.events()}"
        assert not pod.is_running()


def test_a_static_pod_runs_with_the_credential_of_the_node(node: Node, image: str) -> None:
    """From CRI-O's global_auth_file."""
    with node.global_credential() as user, node.static_pod(image) as pod:
        assert pod.runs_within(60), f"not running: {pod.events()}"
        assert not node.lost_pulls(pod), "failed pulls"
    assert node.registry.users(image) == {user}


def test_nothing_is_left_behind(node: Node, tenant: Tenant, image: str) -> None:
    """A check of an image that is there runs the plugin, and no pull takes the file: a later run removes it."""
    for name in ("first", "second", "third"):
        assert tenant.run(name, image, policy="IfNotPresent").runs_within(30)
    other = node.registry.new_image()

    def swept() -> bool:
        pod = tenant.run("sweep", other)
        assert pod.runs_within(30), f"not running: {pod.events()}"
        pod.delete()
        return bool(wait_until(lambda: not node.auth_files(), 2))

    assert wait_until(swept, 20), f"{len(node.auth_files())} auth files left behind"
