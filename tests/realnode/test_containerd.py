"""The same node with containerd, which reads no auth files of a namespace: pulls go on as without this program."""

from __future__ import annotations

import pytest

from realnode.node import Node
from realnode.tenants import Tenant

pytestmark = [pytest.mark.ours, pytest.mark.parametrize("runtime", ["containerd"])]


def test_doctor_names_the_runtime(node: Node) -> None:
    assert "runtime-not-crio" in node.findings()


def test_a_secret_for_the_mirror_is_not_used(node: Node, tenant: Tenant, image: str) -> None:
    pod = tenant.run("web", image)
    assert pod.fails_within(30), f"no failed pull: {pod.events()}"
    assert node.registry.users(image) == set()


def test_a_pull_secret_of_the_pod_is_used_as_without_the_program(node: Node, tenant: Tenant, image: str) -> None:
    """containerd offers the mirror what the kubelet has for Docker Hub."""
    password = node.new_password()
    node.registry.set_password(tenant.namespace, password)
    tenant.set_secret(password, key="docker.io")
    pod = tenant.run("web", image, imagePullSecrets=[{"name": "mirror-creds"}])
    assert pod.runs_within(30), f"not running: {pod.events()}"
    assert node.registry.users(image) == {tenant.user}
