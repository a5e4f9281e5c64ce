"""Pulls of pods, as their owners see them."""

from __future__ import annotations

from realnode.node import Node
from realnode.tenants import Tenant


def test_one_pod(node: Node, tenant: Tenant, image: str) -> None:
    pod = tenant.run("web", image)
    assert pod.runs_within(30), f"not running: {pod.events()}"
    assert not pod.failed_pulls(), f"{len(pod.failed_pulls())} failed pulls"
    assert node.registry.users(image) == {tenant.user}


def test_two_images_in_a_pod(node: Node, tenant: Tenant, image: str) -> None:
    other = node.registry.new_image()
    pod = tenant.run("web", image, other)
    assert pod.runs_within(60), f"not running: {pod.events()}"
    assert not pod.failed_pulls(), f"{len(pod.failed_pulls())} failed pulls"
    assert node.registry.users(image) == node.registry.users(other) == {tenant.user}


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
