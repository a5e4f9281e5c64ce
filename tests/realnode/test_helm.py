"""The Helm chart as it is released, by Helm on a real API server: its pod changes the node and restarts its kubelet."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import time
from collections.abc import Iterator

import helm_python
import pytest

from crio_credential_provider import __version__
from realnode.bare import STORE, Bare
from realnode.controlplane import PORT, ControlPlane
from realnode.fleet import NAMESPACE, NODE, PODS, RELEASE, Release, release
from realnode.kubelet import CONFIGURATION, CREDENTIAL_PROVIDER_CONFIG
from realnode.processes import wait_until
from realnode.runtimes import AUTH_DIR
from realnode.sandbox import ADDRESS, HOSTNAME
from realnode.systemd import KUBELET
from realnode.table import Note
from realnode.tenants import Object, pod_document

pytestmark = pytest.mark.ours

RESTART = f"restart {KUBELET}"
# With which no node gets a pod of the rollout.
NOWHERE = {"no-node": "has-this"}
KEPT = {"ClusterRole crio-credential-provider-nodes", "ClusterRoleBinding crio-credential-provider-nodes"}


@pytest.fixture
def chart(bare: Bare) -> Iterator[Release]:
    """A release of it, not yet installed."""
    with release(bare.node) as made:
        yield made


def test_install_upgrade_and_uninstall(bare: Bare, chart: Release, note: Note) -> None:
    node = bare.node
    tenant, image = node.new_tenant(granted=False), node.registry.new_image()
    node.control_plane.patch(NODE, {"metadata": {"labels": {"mirror-credentials": "yes"}}})
    begun = time.monotonic()
    values = {"tenants": [{"namespace": tenant.namespace}]}
    notes = chart.install(**values, nodeSelector={"mirror-credentials": "yes"})["notes"]
    assert chart.reaches("installed") == ""
    note(f"{time.monotonic() - begun:.0f} s")
    assert "working" in chart.states
    assert chart.annotations() == {"rollout": "installed", "version": __version__}
    assert chart.is_done() and chart.restarts() == 0, "the kubelet's restart ended the container"
    assert bare.is_ready() and AUTH_DIR.is_mount() and RESTART in bare.systemd.asked
    assert tenant.run("web", image).runs_within(30)
    assert "1 of 1 nodes are done" in chart.test()
    (columns,) = re.findall(r"-o custom-columns='(\S+)'", notes)
    shown = node.control_plane.kubectl("get", "nodes", "-o", f"custom-columns={columns}").split()
    assert shown == ["NODE", "ROLLOUT", "VERSION", "REASON", HOSTNAME, "installed", __version__, "<none>"]

    asked = len(bare.systemd.asked)
    chart.upgrade(**values, pluginArgs=["--log-level=debug"])
    chart.reaches("installed")
    node.control_plane.patch(NODE, {"metadata": {"labels": {"mirror-credentials": None}}})
    assert "--log-level=debug" in CREDENTIAL_PROVIDER_CONFIG.read_text()
    assert bare.systemd.asked[asked:] == [f"reset-failed {KUBELET}", RESTART]
    assert chart.is_done()
    assert tenant.run("web2", node.registry.new_image()).runs_within(30)

    chart.upgrade(**values, action="uninstall")
    chart.reaches("uninstalled")
    assert chart.is_done() and chart.restarts() == 0
    assert bare.changed() == []
    assert bare.is_ready() and not AUTH_DIR.is_mount()
    assert "1 of 1 nodes are done" in chart.test()
    chart.uninstall()
    assert wait_until(lambda: chart.left() == {f"Pod {RELEASE}-test"}, 30), chart.left()
    assert STORE.exists() and bare.changed() == []


def test_upgrade_with_which_the_kubelet_does_not_start_and_helm_rollback(
    bare: Bare, chart: Release, note: Note
) -> None:
    """Once: when the files are back it does."""
    node = bare.node
    tenant = node.new_tenant(granted=False)
    values = {"tenants": [{"namespace": tenant.namespace}], "timeout": "10s"}
    chart.install(**values)
    chart.reaches("installed")
    assert chart.is_done()
    before = CREDENTIAL_PROVIDER_CONFIG.read_text()
    configuration = CONFIGURATION.read_text()

    def refuse() -> None:
        CONFIGURATION.write_text("nonsense")
        bare.systemd.before[RESTART] = lambda: CONFIGURATION.write_text(configuration)

    bare.systemd.before[RESTART] = refuse
    begun = time.monotonic()
    chart.upgrade(**values, pluginArgs=["--log-level=debug"])
    reason = chart.reaches("failed")
    note(f"put back after {time.monotonic() - begun:.0f} s")
    assert reason.startswith("install failed and everything was put back: the kubelet is not healthy"), reason
    assert "failed to load kubelet config file" in chart.logs(), "not the kubelet's own words"
    assert CREDENTIAL_PROVIDER_CONFIG.read_text() == before
    assert chart.holder() == f"{HOSTNAME}:failed" and not chart.is_available()
    assert wait_until(bare.is_ready, 30)
    assert tenant.run("web", node.registry.new_image()).runs_within(30)
    with pytest.raises(helm_python.HelmReleaseError):
        chart.test()

    chart.rollback()
    chart.reaches("installed")
    assert chart.is_done()
    assert "1 of 1 nodes are done" in chart.test()


def test_refused_by_doctor_until_an_upgrade_corrects_it(bare: Bare, chart: Release) -> None:
    """The kubelet may not get tokens; and what uninstalling the release alone leaves, to be taken up again."""
    chart.install(nodeRBAC=False)
    reason = chart.reaches("refused")
    assert reason.startswith("doctor finds errors on the planned node: ") and "nothing was changed" in reason, reason
    assert bare.changed() == [] and bare.systemd.asked == []
    assert chart.holder() == f"{HOSTNAME}:failed" and not chart.is_available()
    chart.upgrade()
    chart.reaches("installed")
    assert chart.is_done()

    there = bare.changed()
    chart.uninstall()
    assert wait_until(lambda: chart.left() == KEPT, 30), chart.left()
    assert bare.changed() == there and bare.is_ready()
    asked = len(bare.systemd.asked)
    chart.install()
    chart.reaches("installed")
    assert chart.is_done() and bare.systemd.asked[asked:] == []


def test_crio_is_restarted_as_well(bare: Bare, chart: Release) -> None:
    """By a container of its own."""
    tenant = bare.node.new_tenant(granted=False)
    chart.install(tenants=[{"namespace": tenant.namespace}], extraArgs=["--auth-dir=/run/auth-of-pulls"])
    chart.reaches("installed")
    assert chart.is_done() and chart.restarts() == 0
    assert "restart crio" in bare.systemd.asked
    assert tenant.run("web", bare.node.registry.new_image()).runs_within(30)


def test_pod_that_is_deleted_while_it_works(bare: Bare, chart: Release) -> None:
    """It puts everything back, and the next one begins anew."""

    def delete() -> None:
        for pod in chart.pods():
            bare.node.control_plane.call("DELETE", f"{PODS}/{pod['metadata']['name']}")

    bare.systemd.before["show"] = delete
    chart.install()
    chart.reaches("installed", 120)
    assert chart.is_done() and chart.restarts() == 0
    assert bare.systemd.asked.count(RESTART) == 3, "not restarted, put back, restarted"
    bare.systemd.asked.clear()
    chart.upgrade(action="uninstall")
    chart.reaches("uninstalled")
    assert bare.changed() == []


# -- in the cluster ----------------------------------------------------------------------------------------------------


def patch_as(token: str, node: str, patch: Object) -> tuple[int, str]:
    """What the API server answers to a pod."""
    connection = http.client.HTTPSConnection(ADDRESS, PORT, context=ssl._create_unverified_context(), timeout=30)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/merge-patch+json"}
    connection.request("PATCH", f"/api/v1/nodes/{node}", json.dumps(patch), headers)
    answer = connection.getresponse()
    text = json.loads(answer.read()).get("message", "")
    connection.close()
    return answer.status, text


def ours(value: str | None) -> Object:
    return {"metadata": {"annotations": {"crio-credential-provider/rollout": value}}}


OWNER = {"apiVersion": "v1", "kind": "Node", "name": HOSTNAME, "uid": "0"}
OTHERS: dict[str, Object] = {
    "label": {"metadata": {"labels": {"a": "b"}}},
    "label removed": {"metadata": {"labels": {"kubernetes.io/os": None}}},
    "all labels": {"metadata": {"labels": None}},
    "finalizer": {"metadata": {"finalizers": ["example.com/stay"]}},
    "owner": {"metadata": {"ownerReferences": [OWNER]}},
    "generated name": {"metadata": {"generateName": "n"}},
    "taint": {"spec": {"taints": [{"key": "a", "effect": "NoExecute"}]}},
    "taints removed": {"spec": {"taints": None}},
    "cordon": {"spec": {"unschedulable": True}},
}
FOREIGN: dict[str, Object] = {
    "added": {"example.com/other": "new"},
    "changed": {"example.com/there": "new"},
    "removed": {"example.com/there": None},
    "of a longer name": {"crio-credential-provider.example.com/a": "b"},
}


def test_policy(bare: Bare, chart: Release) -> None:
    """A pod of the rollout may annotate its own node, with annotations of ours, and nothing else."""
    control_plane = bare.node.control_plane
    chart.install(nodeSelector=NOWHERE)
    control_plane.patch(NODE, {"metadata": {"annotations": {"example.com/there": "old"}}})
    control_plane.create("/api/v1/nodes", {"metadata": {"name": "other"}})
    pod = pod_document("probe", "localhost:5000/library/none", serviceAccountName=RELEASE)
    control_plane.create(PODS, pod)
    try:
        _is_held_to_it(control_plane)
    finally:
        control_plane.delete(f"{PODS}/probe")
        control_plane.delete("/api/v1/nodes/other")
        control_plane.patch(NODE, {"metadata": {"annotations": {"example.com/there": None}}})


def _is_held_to_it(control_plane: ControlPlane) -> None:
    make_token = ("create", "token", RELEASE, f"--namespace={NAMESPACE}")
    token = control_plane.kubectl(*make_token, "--bound-object-kind=Pod", "--bound-object-name=probe").strip()
    # The API server takes notice of a policy a moment after it was made.
    assert wait_until(lambda: patch_as(token, "other", ours("x"))[0] == 422, 30)
    assert "may only annotate its own node" in patch_as(token, "other", ours("y"))[1]
    for value in ("working", "installed", None):
        assert patch_as(token, HOSTNAME, ours(value)) == (200, "")
    for name, patch in OTHERS.items():
        status, text = patch_as(token, HOSTNAME, patch)
        assert status == 422 and "the rollout may only annotate nodes" in text, (name, status, text)
    for name, given in FOREIGN.items():
        status, text = patch_as(token, HOSTNAME, {"metadata": {"annotations": given}})
        assert status == 422 and "may only set annotations that begin with" in text, (name, status, text)
    assert patch_as(token, HOSTNAME, {"status": {"phase": "x"}})[0] == 200
    assert "phase" not in control_plane.get(NODE)["status"]
    unbound = control_plane.kubectl(*make_token).strip()
    assert "may only annotate its own node" in patch_as(unbound, HOSTNAME, ours("x"))[1]
    # Nobody else is held to it.
    control_plane.patch(NODE, {"metadata": {"labels": {"a": "b"}}})
    control_plane.patch(NODE, {"metadata": {"labels": {"a": None}}})


def test_tenants_by_their_labels(bare: Bare, chart: Release) -> None:
    """As they are when Helm installs or upgrades."""
    control_plane = bare.node.control_plane
    one, two, three = (bare.node.new_tenant(granted=False).namespace for _ in range(3))

    def label(namespace: str, value: str | None) -> None:
        control_plane.patch(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": {"mirror": value}}})

    def granted() -> list[str]:
        roles = control_plane.get("/apis/rbac.authorization.k8s.io/v1/roles?labelSelector=app.kubernetes.io/instance")
        return sorted(
            role["metadata"]["namespace"] for role in roles["items"] if role["metadata"]["name"] == "pull-secrets"
        )

    label(one, "yes")
    label(three, "no")
    values = {
        "nodeSelector": NOWHERE,
        "tenants": [{"namespace": three}],
        "tenantSelector": {"matchLabels": {"mirror": "yes"}},
    }
    chart.install(**values)
    assert granted() == sorted([one, three])
    label(two, "yes")
    label(three, "yes")
    assert granted() == sorted([one, three])
    label(one, None)
    chart.upgrade(**values)
    assert granted() == sorted([two, three])
    # One that goes meanwhile keeps no upgrade from working.
    control_plane.delete(f"/api/v1/namespaces/{two}")
    assert wait_until(lambda: not control_plane.find(f"/api/v1/namespaces/{two}"), 60)
    chart.upgrade(**values)
    assert granted() == [three]
    chart.uninstall()
    assert granted() == []


def test_a_tenant_cannot_hold_up_the_fleet(bare: Bare, chart: Release) -> None:
    """An admin's own Role or RoleBinding of the name takes the namespace out, and no other."""
    control_plane = bare.node.control_plane
    names = [bare.node.new_tenant(granted=False).namespace for _ in range(3)]
    for name in names:
        control_plane.patch(f"/api/v1/namespaces/{name}", {"metadata": {"labels": {"mirror": "yes"}}})
    values = {"nodeSelector": NOWHERE, "tenantSelector": {"matchLabels": {"mirror": "yes"}}}

    def skipped(found: Object) -> list[str]:
        return sorted(re.findall(r"^SKIPPED.*:(.*)$", found["notes"], re.MULTILINE)[0].split())

    control_plane.kubectl("-n", names[0], "create", "role", "pull-secrets", "--verb=get", "--resource=pods")
    assert skipped(chart.install(**values)) == [names[0]]
    # Helm would take it over, if only its annotations and label counted, and fail: a roleRef cannot be changed.
    control_plane.kubectl("-n", names[1], "delete", "rolebinding", "pull-secrets")
    control_plane.create(
        f"/apis/rbac.authorization.k8s.io/v1/namespaces/{names[1]}/rolebindings",
        {
            "metadata": {
                "name": "pull-secrets",
                "namespace": names[1],
                "labels": {"app.kubernetes.io/managed-by": "Helm"},
                "annotations": {
                    "meta.helm.sh/release-name": RELEASE,
                    "meta.helm.sh/release-namespace": NAMESPACE,
                },
            },
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "other"},
        },
    )
    assert skipped(chart.upgrade(**values)) == sorted(names[:2])
    assert control_plane.find(f"/apis/rbac.authorization.k8s.io/v1/namespaces/{names[2]}/roles/pull-secrets")
    control_plane.kubectl("-n", names[0], "delete", "role", "pull-secrets")
    # Helm has deleted the RoleBinding, by its name, with what it had made there.
    assert "SKIPPED" not in chart.upgrade(**values)["notes"]
    control_plane.kubectl("-n", names[2], "create", "role", "pull-secrets-of-default", "--verb=get", "--resource=pods")
    values["tenantSelector"] = {"matchLabels": {"mirror": "yes"}, "pullSecrets": ["creds"]}
    assert skipped(chart.upgrade(**values, secretsFrom="service-account")) == [names[2]]
    chart.uninstall()
