"""Passwords that are wrong, and that change."""

from __future__ import annotations

from realnode.node import Node
from realnode.table import Note
from realnode.tenants import Tenant
from realnode.variants import each_mode


def test_a_wrong_password_fails_the_pull(node: Node, tenant: Tenant, image: str) -> None:
    tenant.set_secret(node.new_password())
    pod = tenant.run("web", image)
    failure = pod.fails_within(30)
    assert "authentication required" in failure, failure or f"no failed pull: {pod.events()}"
    assert not pod.is_running()
    assert node.registry.users(image) == set()


def test_a_corrected_password_counts_at_the_next_pull(node: Node, tenant: Tenant, image: str, note: Note) -> None:
    password = node.new_password()
    tenant.set_secret(node.new_password())
    pod = tenant.run("web", image)
    assert pod.fails_within(30), f"no failed pull: {pod.events()}"
    node.registry.set_password(tenant.namespace, password)
    tenant.set_secret(password)
    assert pod.runs_within(60), f"not running: {pod.events()}"
    note(f"{len(pod.failed_pulls())} failed pull")


@each_mode
def test_a_rotated_password_counts_at_once(node: Node, tenant: Tenant, image: str) -> None:
    assert tenant.run("before", image).runs_within(30)
    password = node.new_password()
    node.registry.set_password(tenant.namespace, password)
    tenant.set_secret(password)
    pod = tenant.run("after", image)
    assert pod.runs_within(30), f"not running: {pod.events()}"
    assert not node.lost_pulls(pod), "failed pulls"
