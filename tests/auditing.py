"""A cluster for audits: namespaces named after what is wrong in them, as files of kubectl get -o json."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

from crio_credential_provider.commands.auditing import audit
from node import basic

Object = dict[str, Any]

MIRROR, OPEN_MIRROR = "mirror.corp:5000", "open.corp:5000"
USER, PASSWORD = "kanarienvogel-user-71", "kanarienvogel-password-72"
CANARIES = (
    *(USER, PASSWORD, basic(USER, PASSWORD)),
    *(base64.b64encode(text.encode()).decode()[:-4] for text in (USER, PASSWORD)),
)

CONF = f"""\
unqualified-search-registries = ["docker.io", "quay.io"]
[aliases]
"ours/tool" = "docker.io/ours/tool"
[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "{MIRROR}/hub"
[[registry]]
location = "ghcr.io"
[[registry.mirror]]
location = "{OPEN_MIRROR}/ghcr"
[[registry]]
location = "gone.corp"
blocked = true
[[registry]]
location = "bad.corp"
[[registry.mirror]]
location = "UPPER.corp/x?y"
"""
IMAGE = "docker.io/library/nginx:1.27"


def docker_config(*keys: str, user: str = USER, password: str = PASSWORD) -> bytes:
    return json.dumps({"auths": {key: {"auth": basic(user, password)} for key in keys}}).encode()


def secret(
    namespace: str, name: str, content: bytes, kind: str = "kubernetes.io/dockerconfigjson", key: str = ""
) -> Object:
    key = key or (".dockercfg" if kind.endswith("dockercfg") else ".dockerconfigjson")
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"namespace": namespace, "name": name},
        "type": kind,
        "data": {key: base64.b64encode(content).decode()},
    }


def grant(
    namespace: str, account: str = "default", resource: str = "secrets", verb: str = "list", *names: str
) -> list[Object]:
    name = f"{verb}-{resource}-{account}"
    group = "rbac.authorization.k8s.io"
    rule: Object = {"apiGroups": [""], "resources": [resource], "verbs": [verb]}
    return [
        {
            "apiVersion": f"{group}/v1",
            "kind": "Role",
            "metadata": {"namespace": namespace, "name": name},
            "rules": [rule | ({"resourceNames": [*names]} if names else {})],
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {"namespace": namespace, "name": name},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
        },
    ]


def cluster_objects() -> list[Object]:
    """What each cluster has; without a binding that concerns secrets."""
    group = "rbac.authorization.k8s.io"
    return [
        {
            "kind": "ClusterRole",
            "metadata": {"name": "view"},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}],
        },
        {
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "view"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "Group", "name": "system:authenticated"}],
        },
        {"kind": "Node", "metadata": {"name": "node1", "labels": {"node-role.kubernetes.io/worker": ""}}},
        {"kind": "Node", "metadata": {"name": "gpu1", "labels": {"pool": "gpu"}}},
    ]


def pod_spec(image: str, account: str = "default", secrets: Iterable[str] = (), **more: Any) -> Object:
    return {
        "containers": [{"name": "c", "image": image}],
        "serviceAccountName": account,
        **({"imagePullSecrets": [{"name": name} for name in secrets]} if secrets else {}),
        **more,
    }


def pod(namespace: str, name: str, image: str = IMAGE, **more: Any) -> Object:
    spec = {"nodeName": "node1", **pod_spec(image, **more)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": name}, "spec": spec}


def workload(kind: str, namespace: str, name: str, image: str = IMAGE, **more: Any) -> Object:
    template = {"spec": pod_spec(image, **more)}
    spec: Object = {"jobTemplate": {"spec": {"template": template}}} if kind == "CronJob" else {"template": template}
    return {"kind": kind, "metadata": {"namespace": namespace, "name": name}, "spec": spec}


def account(namespace: str, name: str = "default", *secrets: str) -> Object:
    references = {"imagePullSecrets": [{"name": name} for name in secrets]} if secrets else {}
    return {"kind": "ServiceAccount", "metadata": {"namespace": namespace, "name": name}, **references}


class Ran(NamedTuple):
    """One run of the command; `report` is its JSON."""

    status: int
    stdout: str
    stderr: str

    @property
    def report(self) -> Any:
        return json.loads(self.stdout)

    def found(self) -> dict[tuple[str, str], tuple[str, str | None]]:
        """(namespace, image) -> (outcome, reason)."""
        return {(p["namespace"], p["image"]): (p["outcome"], p["reason"]) for p in self.report["pulls"]}


def run(*arguments: str) -> Ran:
    """Runs the command in this process; no secret may come out of it, whatever it says."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = audit.run([*arguments])
    for canary in CANARIES:
        assert canary not in out.getvalue() + err.getvalue()
    return Ran(status, out.getvalue(), err.getvalue())


def write_list(path: Path, objects: Iterable[Object], indent: int | None = 4) -> str:
    """As kubectl get -o json writes it."""
    path.write_text(
        json.dumps({"apiVersion": "v1", "items": [*objects], "kind": "List", "metadata": {}}, indent=indent)
    )
    return str(path)


# -- faults -----------------------------------------------------------------------------------------------------------


class Fault(NamedTuple):
    """What is in a namespace, and what an audit has to say of its image."""

    objects: list[Object]
    outcome: str
    reason: str | None
    image: str = IMAGE


def _faults() -> Iterator[tuple[str, Fault]]:
    """Of the mode ``namespace``. Each namespace is named after its reason, which an ``objects`` without workloads gets
    as a bare pod."""
    good = docker_config(MIRROR)

    def of(name: str, *secrets: Object, granted: bool = True) -> list[Object]:
        return [account(name), *secrets, *(grant(name) if granted else [])]

    yield "works", Fault(of("works", secret("works", "s", good)), "works", None)
    yield "no-mirror", Fault(of("no-mirror"), "no-mirror", None, "quay.io/team/app:v1")
    yield "no-secret", Fault(of("no-secret"), "fails", "no-secret")
    content = docker_config("https://index.docker.io/v1/")
    yield "wrong-key", Fault(of("wrong-key", secret("wrong-key", "s", content)), "fails", "wrong-key")
    content = docker_config("mirror.corp")
    yield "wrong-port", Fault(of("wrong-port", secret("wrong-port", "s", content)), "fails", "wrong-key")
    content = json.dumps({"auths": {MIRROR: {"auth": base64.b64encode(PASSWORD.encode()).decode()}}}).encode()
    yield "no-credential", Fault(of("no-credential", secret("no-credential", "s", content)), "fails", "no-credential")
    yield (
        "unusable-secret",
        Fault(
            of("unusable-secret", secret("unusable-secret", "s", f'{{"auths": {PASSWORD}'.encode())),
            "fails",
            "unusable-secret",
        ),
    )
    yield (
        "wrong-type",
        Fault(of("wrong-type", secret("wrong-type", "s", good, "Opaque", "config.json")), "fails", "wrong-type"),
    )
    yield (
        "old-type",
        Fault(
            of(
                "old-type",
                secret(
                    "old-type",
                    "s",
                    json.dumps({MIRROR: {"auth": basic(USER, PASSWORD)}}).encode(),
                    "kubernetes.io/dockercfg",
                ),
            ),
            "fails",
            "wrong-type",
        ),
    )
    yield "no-role", Fault(of("no-role", secret("no-role", "s", good), granted=False), "fails", "no-role")
    yield (
        "invalid-image",
        Fault(of("invalid-image", secret("invalid-image", "s", good)), "fails", "invalid-image", "docker.io/Nginx"),
    )
    yield "short-name", Fault(of("short-name", secret("short-name", "s", good)), "fails", "short-name", "nginx:1.27")
    yield "alias", Fault(of("alias", secret("alias", "s", good)), "works", None, "ours/tool:1")
    yield "blocked", Fault(of("blocked"), "fails", "blocked", "gone.corp/app:1")
    yield "invalid-location", Fault(of("invalid-location"), "fails", "invalid-location", "bad.corp/app:1")
    yield "anonymous", Fault(of("anonymous"), "anonymous", "no-secret", "ghcr.io/app/app:1")
    yield "other-namespace", Fault(of("other-namespace"), "fails", "no-secret")
    static = pod("static-pod", "static")
    static["metadata"] |= {
        "annotations": {"kubernetes.io/config.mirror": "x"},
        "ownerReferences": [{"kind": "Node", "name": "node1", "controller": True}],
    }
    yield "static-pod", Fault([*of("static-pod", secret("static-pod", "s", good)), static], "fails", "static-pod")


FAULTS = dict(_faults())
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob", "Pod")


def faulty_cluster() -> list[Object]:
    """All faults, each as a bare pod and as a template of every kind, in no particular order of kinds."""
    found = cluster_objects()
    for number, (name, fault) in enumerate(FAULTS.items()):
        found += fault.objects
        if not any(one["kind"] == "Pod" for one in fault.objects):
            kinds = WORKLOADS if number % 2 else WORKLOADS[::-1]
            found += [
                pod(name, "p", fault.image) if kind == "Pod" else workload(kind, name, kind.lower(), fault.image)
                for kind in kinds
            ]
    return found
