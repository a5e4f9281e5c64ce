"""Namespaces with a user of the mirror, and their pods."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from realnode.controlplane import ControlPlane
from realnode.processes import RigError, wait_until
from realnode.providers import PULL_SECRET
from realnode.registry import HOST, docker_config
from realnode.sandbox import HOSTNAME

Object = dict[str, Any]


def pod_document(name: str, *images: str, policy: str = "Always", **spec: Any) -> Object:
    """A pod that fits this node: the host's network, no token in it.

    Args:
        spec: more members of the pod's ``spec``.
    """
    containers = [
        {"name": f"c{number}", "image": image, "imagePullPolicy": policy} for number, image in enumerate(images)
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "nodeName": HOSTNAME,
            "hostNetwork": True,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "tolerations": [{"operator": "Exists"}],
            "containers": containers,
            **spec,
        },
    }


def pod_path(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods/{name}"


def runs(pod: Object) -> bool:
    """Whether all containers of a pod do, by its document."""
    statuses = pod["status"].get("containerStatuses", [])
    return bool(statuses) and all("running" in status["state"] for status in statuses)


class Pod:
    def __init__(self, control_plane: ControlPlane, namespace: str, name: str) -> None:
        self._control_plane = control_plane
        self.namespace = namespace
        self.name = name

    @property
    def path(self) -> str:
        return pod_path(self.namespace, self.name)

    def is_running(self) -> bool:
        """All of its containers."""
        document = self._control_plane.find(self.path)
        return document is not None and runs(document)

    def runs_within(self, seconds: float) -> bool:
        return bool(wait_until(self.is_running, seconds))

    def events(self) -> list[str]:
        """``Reason: message`` of each, oldest first."""
        path = f"/api/v1/namespaces/{self.namespace}/events?fieldSelector=involvedObject.name%3D{self.name}"
        items = self._control_plane.get(path)["items"]
        items.sort(key=lambda item: int(item["metadata"]["resourceVersion"]))
        return [f"{item['reason']}: {item['message']}" for item in items]

    def failed_pulls(self) -> list[str]:
        return [event for event in self.events() if event.startswith("Failed: Failed to pull image")]

    def fails_within(self, seconds: float) -> str:
        """What its first failed pull says; empty where none fails in that time."""
        failed = wait_until(self.failed_pulls, seconds)
        return failed[0] if failed else ""

    def delete(self) -> None:
        self._control_plane.delete(self.path)


class Tenant:
    """A namespace whose user reads from the mirror.

    Args:
        user: of the registry; None for a namespace without a secret.
    """

    def __init__(self, control_plane: ControlPlane, namespace: str, user: str | None) -> None:
        self._control_plane = control_plane
        self.namespace = namespace
        self.user = user
        self._path = f"/api/v1/namespaces/{namespace}"
        control_plane.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
        if not wait_until(lambda: control_plane.find(f"{self._path}/serviceaccounts/default"), 30):
            raise RigError(f"no default service account in {namespace} within 30 s")

    def set_secret(self, password: str, key: str = HOST, name: str = PULL_SECRET) -> None:
        """Its pull secret, made or replaced, with a credential for the mirror or another key; or one more secret."""
        assert self.user
        config = json.dumps(docker_config(self.user, password, key))
        secret = {
            "metadata": {"name": name},
            "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": config},
        }
        path = f"{self._path}/secrets"
        if self._control_plane.find(f"{path}/{name}"):
            self._control_plane.patch(f"{path}/{name}", {"stringData": secret["stringData"]})
        else:
            self._control_plane.create(path, secret)

    def delete_secret(self) -> None:
        self._control_plane.delete(f"{self._path}/secrets/{PULL_SECRET}")

    def run(self, name: str, *images: str, policy: str = "Always", **spec: Any) -> Pod:
        self._control_plane.create(f"{self._path}/pods", pod_document(name, *images, policy=policy, **spec))
        return Pod(self._control_plane, self.namespace, name)

    def burst(self, number: int, images: Sequence[str], policy: str = "Always") -> list[Pod]:
        """Pods of one container, their images in turns."""
        return [self.run(f"b{n}", images[n % len(images)], policy=policy) for n in range(number)]

    def delete_pods(self) -> None:
        """And waits until none is left."""
        path = f"{self._path}/pods"
        self._control_plane.delete(path)
        if not wait_until(lambda: not self._control_plane.get(path)["items"], 60):
            raise RigError(f"the pods of {self.namespace} are not gone within 60 s")


def how_many_run(pods: Sequence[Pod], seconds: float) -> int:
    """At the latest when the time is over."""
    waiting = list(pods)

    def all_run() -> bool:
        waiting[:] = [pod for pod in waiting if not pod.is_running()]
        return not waiting

    wait_until(all_run, seconds)
    return len(pods) - len(waiting)
