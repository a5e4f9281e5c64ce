"""The chart as it is released, on the node's cluster: Helm, and what a DaemonSet takes beside a control plane.

There is no scheduler and no kube-proxy: pods are bound to the one node, and the API server's service address is
forwarded to it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python

from crio_credential_provider import __version__
from crio_credential_provider.fleet import cluster
from make_chart import make_chart
from make_executable import native
from make_image import make_image
from realnode.controlplane import PORT, ControlPlane
from realnode.node import Node
from realnode.processes import Process, RigError, wait_until
from realnode.providers import NAME
from realnode.registry import HOST, docker_config
from realnode.sandbox import ADDRESS, HOSTNAME, SERVICE_ADDRESS
from realnode.tenants import Object

RELEASE, NAMESPACE = "fleet", "kube-system"
# CRI-O's log has what the kubelet itself sends with a pull: no password that no log may have.
_SECRET, _USER, _PASSWORD = "image-creds", "rollout", "known"
_PULL = {"repository": f"{HOST}/{NAME}", "pullSecrets": [_SECRET]}
NODE = f"/api/v1/nodes/{HOSTNAME}"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{RELEASE}"
DAEMONSET = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{RELEASE}"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"


class Release:
    """One of the chart, in ``kube-system``; with the image that is released, in a registry that wants a password.

    Attributes:
        states: the node's annotation of the rollout, each one that it had.
    """

    def __init__(self, node: Node, helm: helm_python.Config, chart: Path) -> None:
        self._cluster = node.control_plane
        self._helm = helm
        self._chart = chart
        self._log = node.logs / "helm.log"
        self.states: list[str] = []

    def _do(self, verb: str, values: Object) -> Object:
        # What an earlier pod has said is not what the next one says.
        self._cluster.patch(NODE, {"metadata": {"annotations": {cluster.STATE: None}}})
        found: Object = getattr(self._helm, verb)(self._chart, RELEASE, {"image": _PULL, **values}, namespace=NAMESPACE)
        with self._log.open("a") as log:
            log.write(f"{verb} {json.dumps(values)}\n{found['manifest']}\n")
        return found

    def install(self, **values: Any) -> Object:
        return self._do("install", values)

    def upgrade(self, **values: Any) -> Object:
        """With these values alone."""
        return self._do("upgrade", values)

    def rollback(self) -> None:
        """To the values before."""
        self._cluster.patch(NODE, {"metadata": {"annotations": {cluster.STATE: None}}})
        self._helm.rollback(RELEASE)

    def test(self) -> str:
        """What its pod says. HelmReleaseError where that fails."""
        return str(self._helm.test(RELEASE, timeout=60, logs=True)["logs"])

    def uninstall(self) -> None:
        """And waits until its pods are gone, which takes the rest."""
        self._helm.uninstall(RELEASE, ignore_not_found=True, timeout=60)
        if not wait_until(lambda: not self.pods(), 60):
            raise RigError("pods of the DaemonSet are not gone within 60 s")

    # -- how it stands -----------------------------------------------------------------------------------------------

    def annotations(self) -> dict[str, str]:
        """Of the node, ours alone, without their prefix."""
        found = self._cluster.get(NODE)["metadata"].get("annotations", {})
        prefix = f"{NAME}/"
        return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}

    def reaches(self, state: str, seconds: float = 60) -> str:
        """Waits for a state of the node, in which its pod is not about to be replaced; returns the reason with it."""

        def found() -> bool:
            now = self.annotations().get("rollout", "")
            if now and self.states[-1:] != [now]:
                self.states.append(now)
            return now == state and self._is_current()

        if not wait_until(found, seconds):
            raise AssertionError(f"not {state} within {seconds:.0f} s: {self.annotations()}, {self.logs()}")
        return self.annotations().get("reason", "")

    def _is_current(self) -> bool:
        daemonset = self._cluster.get(DAEMONSET)
        status, generation = daemonset["status"], daemonset["metadata"]["generation"]
        counts = [status.get(name, 0) for name in ("desiredNumberScheduled", "updatedNumberScheduled")]
        return status.get("observedGeneration") == generation and counts == [1, 1] and len(self.pods()) == 1

    def is_available(self) -> bool:
        return bool(self._cluster.get(DAEMONSET)["status"].get("numberAvailable") == 1)

    def is_done(self) -> bool:
        """Its pod is available soon, and no node's turn is open."""
        if not wait_until(lambda: self.is_available() and not self.holder(), 60):
            conditions = [pod["status"] for pod in self.pods()]
            raise AssertionError(f"available: {self.is_available()}, turn: {self.holder()}, pods: {conditions}")
        return True

    def holder(self) -> str | None:
        found: str | None = self._cluster.get(LEASE).get("spec", {}).get("holderIdentity")
        return found

    def pods(self) -> list[Object]:
        """Of the DaemonSet."""
        items: list[Object] = self._cluster.get(f"{PODS}?labelSelector=app.kubernetes.io/name%3D{NAME}")["items"]
        return items

    def restarts(self) -> int:
        """Of containers, which no work must cause."""
        statuses = (status for pod in self.pods() for status in pod["status"].get("containerStatuses", ()))
        return sum(status["restartCount"] for status in statuses)

    def logs(self) -> str:
        names = [pod["metadata"]["name"] for pod in self.pods()]
        try:
            return "".join(self._cluster.kubectl("logs", "-n", NAMESPACE, name) for name in names)
        except RigError as error:
            return str(error)

    def left(self) -> set[str]:
        """Everything in the cluster that is of the release: kind and name."""
        kinds = (
            *(
                "daemonsets",
                "pods",
                "serviceaccounts",
                "leases",
                "roles",
                "rolebindings",
                "secrets",
                "controllerrevisions",
            ),
            *("clusterroles", "clusterrolebindings"),
            *("validatingadmissionpolicies", "validatingadmissionpolicybindings"),
        )
        found = self._cluster.kubectl("get", ",".join(kinds), "--all-namespaces", "--output=json")
        return {
            f"{one['kind']} {one['metadata']['name']}"
            for one in json.loads(found)["items"]
            if one["metadata"].get("labels", {}).get("app.kubernetes.io/instance") == RELEASE
            or one["metadata"]["name"].startswith((RELEASE, "sh.helm.release"))
        }


@contextlib.contextmanager
def release(node: Node) -> Iterator[Release]:
    """One that is not installed yet; afterwards it is not, either."""
    place = node.scratch / "release"
    if not place.exists():
        place.mkdir()
        program = place / f"{NAME}-linux-{native().name}"
        program.symlink_to(node.program.path)
        image = make_image([program], place / "image.tar", __version__, "0" * 40, 0)
        node.registry.copy(f"oci-archive:{image}", f"{NAME}:{__version__}")
        node.registry.set_password(_USER, _PASSWORD)
        node.control_plane.create(f"/api/v1/namespaces/{NAMESPACE}/secrets", _pull_secret())
        # OpenShift's Kubernetes puts it beside the token of a pod.
        service_ca = {"metadata": {"name": "openshift-service-ca.crt"}, "data": {"service-ca.crt": ""}}
        node.control_plane.create(f"/api/v1/namespaces/{NAMESPACE}/configmaps", service_ca)
    chart = make_chart(place, 0)
    # Whose objects Helm would not take over.
    _remove_node_rbac(node)
    forward = Process(
        [sys.executable, "-m", "realnode.slowproxy", f"{SERVICE_ADDRESS}:443", f"{ADDRESS}:{PORT}", "0"],
        node.logs / "service.log",
        {"PYTHONPATH": os.environ["PYTHONPATH"]},
    )
    forward.start()
    config = helm_python.Config(kubeconfig_path=node.control_plane.kubeconfig, namespace=NAMESPACE)
    try:
        with config as helm, _Scheduler(node.control_plane):
            made = Release(node, helm, chart)
            try:
                yield made
            finally:
                with (node.logs / "helm.log").open("a") as log:
                    log.write(f"{made.states} {made.annotations()}\n{made.logs()}\n")
                made.uninstall()
                node.control_plane.kubectl("delete", "pod", "-n", NAMESPACE, f"{RELEASE}-test", "--ignore-not-found")
                _remove_node_rbac(node)
                node.control_plane.apply(node.program.node_rbac())
                annotations = dict.fromkeys((cluster.STATE, cluster.VERSION, cluster.REASON))
                node.control_plane.patch(NODE, {"metadata": {"annotations": annotations}})
    finally:
        forward.stop()


def _remove_node_rbac(node: Node) -> None:
    node.control_plane.kubectl(
        "delete", "clusterrole,clusterrolebinding", "crio-credential-provider-nodes", "--ignore-not-found"
    )


def _pull_secret() -> Object:
    config = json.dumps(docker_config(_USER, _PASSWORD))
    return {
        "metadata": {"name": _SECRET},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": config},
    }


class _Scheduler:
    """Binds every pod to the node."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self._cluster = control_plane
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.2):
            # One that was deleted meanwhile.
            with contextlib.suppress(RigError, OSError):
                for pod in self._cluster.get("/api/v1/pods?fieldSelector=spec.nodeName%3D")["items"]:
                    metadata = {key: pod["metadata"][key] for key in ("name", "namespace")}
                    path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/binding"
                    target = {"apiVersion": "v1", "kind": "Node", "name": HOSTNAME}
                    self._cluster.create(path, {"metadata": metadata, "target": target})
