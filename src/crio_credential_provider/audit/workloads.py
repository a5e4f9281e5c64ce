"""Pods and workload templates: which images they pull, as whom, and where.

for want, holder in find_wants(pod):
    print(holder.kind, holder.name, want.image)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..kubernetes import names
from .result import Holder

POD = "Pod"
_TEMPLATES = {
    **dict.fromkeys(("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController"), ("template",)),
    "DeploymentConfig": ("template",),
    "Job": ("template",),
    "CronJob": ("jobTemplate", "spec", "template"),
}
"""Kind -> where below ``spec`` the template of its pods is."""
KINDS = (POD, *_TEMPLATES)

_MIRROR_POD = "kubernetes.io/config.mirror"
_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")
_OVER = ("Succeeded", "Failed")
"""Phases of pods that pull nothing any more."""
_ENDED = ("Complete", "Failed")
"""Conditions of such Jobs."""

_INVALID = "(invalid name)"

Object = dict[str, Any]


class Where(NamedTuple):
    """On which nodes: the one that a pod is bound to, else those that its node selector takes."""

    node: str
    selector: tuple[tuple[str, str], ...]


ANYWHERE = Where("", ())


class Want(NamedTuple):
    """What decides a pull, of what pods and templates say.

    Attributes:
        namespace, account, image: as they are spelled; the account ``default`` where none is.
        secrets: its own imagePullSecrets. Of a template without any those of its service account will be taken.
        is_static: whether it is a static pod, which has no token.
        is_pod: whether it is there already: its imagePullSecrets do not change any more.
        where: its nodes.
    """

    namespace: str
    account: str
    image: str
    secrets: tuple[str, ...]
    is_static: bool
    is_pod: bool
    where: Where


def find_wants(found: Object) -> Iterator[tuple[Want, Holder]]:
    """Each image of a pod or of a template, once; "" for an empty one. Nothing where ``pulls_nothing``."""
    if pulls_nothing(found):
        return
    kind, metadata = str(found.get("kind")), member(found, "metadata")
    spec = member(found, "spec")
    holder = Holder(kind, str(metadata.get("name", "")))
    if kind == POD:
        holder = _controller(metadata) or holder
    else:
        for name in _TEMPLATES[kind]:
            spec = member(spec, name)
        spec = member(spec, "spec")
    where = Where(text(spec, "nodeName"), tuple(sorted(labels(spec, "nodeSelector").items())))
    common = (
        names_of(spec),
        _MIRROR_POD in member(metadata, "annotations"),
        kind == POD,
        where._replace(selector=()) if where.node else where,
    )
    namespace, account = text(metadata, "namespace") or "default", text(spec, "serviceAccountName") or "default"
    for image in dict.fromkeys(_images(spec)):
        # The same few names come a hundred thousand times.
        yield Want(sys.intern(namespace), sys.intern(account), sys.intern(image), *common), holder


def pulls_nothing(found: Object) -> bool:
    """Whether it is a template that another one owns, which is audited itself, or a pod or Job that has ended."""
    status = member(found, "status")
    if found.get("kind") == POD:
        return status.get("phase") in _OVER
    if found.get("kind") == "Job" and any(
        one.get("type") in _ENDED and one.get("status") == "True" for one in items(status, "conditions")
    ):
        return True
    # What an operator's own kinds own (a Deployment of Knative) has no other template that is audited.
    references = items(member(found, "metadata"), "ownerReferences")
    return any(one.get("controller") is True and one.get("kind") in _TEMPLATES for one in references)


def _controller(metadata: Object) -> Holder | None:
    for reference in items(metadata, "ownerReferences"):
        # A static pod is owned by its node.
        if reference.get("controller") is True and reference.get("kind") != "Node":
            # Nobody checks them, and they are shown.
            kind, name = text(reference, "kind"), text(reference, "name")
            return Holder(
                kind if names.is_label(kind.lower()) else _INVALID, name if names.is_subdomain(name) else _INVALID
            )
    return None


def _images(spec: Object) -> Iterator[str]:
    for kind in _CONTAINERS:
        yield from (text(container, "image") for container in items(spec, kind))
    for volume in items(spec, "volumes"):
        yield from filter(None, [text(member(volume, "image"), "reference")])


def names_of(holder: Object) -> tuple[str, ...]:
    """Names in ``imagePullSecrets``."""
    return tuple(filter(None, (text(reference, "name") for reference in items(holder, "imagePullSecrets"))))


def pod_of(want: Want, secrets: tuple[str, ...]) -> Object:
    """What the plugin reads of the pod that pulls: its service account, and its imagePullSecrets after admission."""
    references = [{"name": name} for name in secrets]
    spec = {"serviceAccountName": want.account, "imagePullSecrets": references}
    return {"kind": POD, "metadata": {"uid": ""}, "spec": spec}


# -- members of objects, which may be anything ------------------------------------------------------------------------


def member(value: Object, name: str) -> Object:
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def items(value: Object, name: str) -> list[Object]:
    found = value.get(name)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def text(value: Object, name: str) -> str:
    found = value.get(name)
    return found if isinstance(found, str) else ""


def texts(value: Object, name: str) -> frozenset[str]:
    found = value.get(name)
    return frozenset(item for item in found if isinstance(item, str)) if isinstance(found, list) else frozenset()


def labels(value: Object, name: str = "labels") -> dict[str, str]:
    return {key: item for key, item in member(value, name).items() if isinstance(item, str)}
