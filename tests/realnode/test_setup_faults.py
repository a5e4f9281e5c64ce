"""Faults of the setup: what the pod sees, what kubelet and journal say, and what doctor says of that very node."""

from __future__ import annotations

from typing import Any

import pytest

from realnode.node import Node
from realnode.processes import RigError
from realnode.providers import DROP_IN
from realnode.tenants import Pod, Tenant
from realnode.variants import each_mode

pytestmark = pytest.mark.ours

# What the mirror tells CRI-O, and CRI-O the pod, where no credential has come.
REFUSED = "authentication required"


def _fails(tenant: Tenant, image: str) -> Pod:
    pod = tenant.run("web", image)
    failure = pod.fails_within(30)
    assert REFUSED in failure, failure or f"no failed pull: {pod.events()}"
    return pod


def _outcomes(node: Node, tenant: Tenant) -> set[str]:
    return {entry["OUTCOME"] for entry in node.journal.entries(f"NAMESPACE={tenant.namespace}") if "OUTCOME" in entry}


@each_mode
def test_a_healthy_node(node: Node, tenant: Tenant, image: str) -> None:
    assert tenant.run("web", image).runs_within(30)
    assert node.findings() == []


@pytest.mark.parametrize(
    "secrets_from", ["namespace", "service-account"], ids=["namespace secrets", "service account secrets"]
)
def test_without_the_role_of_the_namespace(node: Node, secrets_from: str, image: str) -> None:
    tenant = node.new_tenant(secrets_from, granted=False)
    _fails(tenant, image)
    assert "answered 403" in node.kubelet.process.output()
    assert _outcomes(node, tenant) == {"fault-cluster"}
    assert node.findings() == ["secrets-role-missing"]


@each_mode
def test_without_the_secret(node: Node, tenant: Tenant, image: str) -> None:
    """A fault of the tenant's: nothing is wrong with the node."""
    tenant.delete_secret()
    _fails(tenant, image)
    assert _outcomes(node, tenant) == {"nothing-to-do"}
    assert node.findings() == []


def _audience(name: str) -> Any:
    def change(provider: dict[str, Any]) -> None:
        provider["tokenAttributes"]["serviceAccountTokenAudience"] = name

    return change


def test_with_the_audience_of_another_distribution(node: Node, tenant: Tenant, image: str) -> None:
    """The nodes may ask for it: OpenShift's, on a cluster of kubeadm's."""
    audience = "https://kubernetes.default.svc"
    node.control_plane.apply(node.program.run("manifests", "rbac", f"--audience={audience}"))
    try:
        node.reconfigure(_audience(audience))
        _fails(tenant, image)
        assert "answered 401" in node.kubelet.process.output()
        assert _outcomes(node, tenant) == {"fault-cluster"}
        assert node.findings() == ["audience-rejected"]
    finally:
        node.control_plane.apply(node.program.node_rbac())


def test_with_an_audience_that_the_nodes_may_not_ask_for(node: Node, tenant: Tenant, image: str) -> None:
    node.reconfigure(_audience("https://kubernetes.default.svc"))
    _fails(tenant, image)
    assert "audience" in node.kubelet.process.output()
    assert _outcomes(node, tenant) == set()
    assert "node-lacks-audience" in node.findings()


def test_without_the_role_of_the_nodes(node: Node, tenant: Tenant, image: str) -> None:
    node.control_plane.delete("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/crio-credential-provider-nodes")
    try:
        node.reconfigure(lambda provider: None)
        _fails(tenant, image)
        assert _outcomes(node, tenant) == set()
        # The Node authorizer lets a node get its pods' service accounts without a role.
        assert node.findings() == ["node-lacks-audience"]
    finally:
        node.control_plane.apply(node.program.node_rbac())


def test_without_token_attributes(node: Node, tenant: Tenant, image: str) -> None:
    node.reconfigure(lambda provider: provider.pop("tokenAttributes"))
    _fails(tenant, image)
    assert node.findings() == ["token-attributes-missing"]


def test_with_a_pattern_for_the_mirror(node: Node, tenant: Tenant, image: str) -> None:
    node.reconfigure(lambda provider: provider.update(matchImages=["localhost:5000"]))
    _fails(tenant, image)
    assert _outcomes(node, tenant) == set()
    assert "match-images-mirror" in node.findings()


def test_without_the_flags_of_the_kubelet(node: Node, tenant: Tenant, image: str) -> None:
    DROP_IN.unlink()
    node.restart_kubelet()
    _fails(tenant, image)
    assert node.findings() == ["kubelet-without-provider-config"]


# -- faults with which the kubelet does not start ----------------------------------------------------------------------


def test_without_a_cache_type(node: Node) -> None:
    with pytest.raises(RigError, match="cacheType"):
        node.reconfigure(lambda provider: provider["tokenAttributes"].pop("cacheType"))
    assert "cache-type-missing" in node.findings()


def test_with_the_feature_gate_off(node: Node) -> None:
    gate = "KubeletServiceAccountTokenForCredentialProviders"
    with pytest.raises(RigError, match=gate):
        node.restart_kubelet(featureGates={gate: False})
    assert "feature-gate-off" in node.findings()


def test_without_the_program(node: Node) -> None:
    (program,) = node.bin_dir.iterdir()
    program.unlink()
    with pytest.raises(RigError, match="did not exist"):
        node.restart_kubelet()
    assert "plugin-missing" in node.findings()
