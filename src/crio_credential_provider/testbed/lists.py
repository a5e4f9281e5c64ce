"""Lists of the simulated API server, of all namespaces or of one: pages, field selectors by type, expired pages; and
single objects of kinds that it knows nothing else of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from .objects import Object, StatusError
from .rbac import Attributes

_PATH = re.compile(r"/(?:api|apis/([a-z0-9.]+))/v1(?:alpha1)?(?:/namespaces/([^/]+))?/([a-z]+)")
_OBJECT = re.compile(r"/(?:api|apis/([a-z0-9.]+))/v1(?:/namespaces/([^/]+))?/([a-z]+)/([^/]+)")
_KINDS = {
    "clusterrolebindings": "ClusterRoleBinding",
    "clusterroles": "ClusterRole",
    "clusterversions": "ClusterVersion",
    "cronjobs": "CronJob",
    "daemonsets": "DaemonSet",
    "deploymentconfigs": "DeploymentConfig",
    "deployments": "Deployment",
    "imagecontentsourcepolicies": "ImageContentSourcePolicy",
    "imagedigestmirrorsets": "ImageDigestMirrorSet",
    "images": "Image",
    "imagetagmirrorsets": "ImageTagMirrorSet",
    "jobs": "Job",
    "machineconfigpools": "MachineConfigPool",
    "machineconfigs": "MachineConfig",
    "namespaces": "Namespace",
    "nodes": "Node",
    "pods": "Pod",
    "replicasets": "ReplicaSet",
    "replicationcontrollers": "ReplicationController",
    "rolebindings": "RoleBinding",
    "roles": "Role",
    "secrets": "Secret",
    "serviceaccounts": "ServiceAccount",
    "statefulsets": "StatefulSet",
}


def parse(path: str) -> tuple[str, str, str] | None:
    """Group, namespace ("" for all) and resource of the path of a list; None for another path."""
    matched = _PATH.fullmatch(path)
    return (matched[1] or "", matched[2] or "", matched[3]) if matched and matched[3] in _KINDS else None


def parse_object(path: str) -> Attributes | None:
    """What is asked with the path of one object; None for another path."""
    matched = _OBJECT.fullmatch(path)
    return Attributes("get", matched[3], matched[2] or "", matched[4], matched[1] or "") if matched else None


def find(objects: Iterable[Object], asked: Attributes) -> Object:
    """The object that is asked for."""
    for found in objects:
        metadata = found["metadata"]
        named = f"{found['kind'].lower()}s", metadata.get("namespace", ""), metadata["name"]
        if named == (asked.resource, asked.namespace, asked.name):
            return found
    full = f"{asked.resource}.{asked.group}" if asked.group else asked.resource
    details = {"name": asked.name, "group": asked.group, "kind": asked.resource}
    raise StatusError(404, "NotFound", f'{full} "{asked.name}" not found', details)


def answer(
    objects: Iterable[Object],
    namespace: str,
    resource: str,
    parameters: Mapping[str, str],
    revision: int,
    oldest: int,
    codec: tuple[Callable[[str, int], str], Callable[[str, int], tuple[str, int]]],
) -> Object:
    """A page of a list.

    Args:
        revision, oldest: the state's, and the oldest that pages can go on from.
        codec: writes and reads continue tokens.
    """
    dumps_continue, loads_continue = codec
    kind = _KINDS[resource]
    if resource == "namespaces":
        names = sorted({place for found in objects if (place := found["metadata"].get("namespace"))})
        objects = [{"kind": kind, "metadata": {"name": name}} for name in names]
    selected = [
        (_key(found), found)
        for found in objects
        if found["kind"] == kind and namespace in ("", found["metadata"].get("namespace")) and _fits(found, parameters)
    ]
    start, taken = loads_continue(parameters.get("continue", ""), revision)
    if start and taken < oldest:
        raise StatusError(410, "Expired", "The provided continue parameter is too old")
    found = sorted((pair for pair in selected if pair[0] >= start), key=lambda pair: pair[0])
    limit = int(parameters.get("limit") or 0) or len(found)
    metadata: Object = {"resourceVersion": str(taken)}
    if len(found) > limit:
        metadata["continue"] = dumps_continue(found[limit - 1][0], taken)
    items = [{name: value for name, value in one.items() if name not in ("kind", "apiVersion")} for _, one in found]
    return {"kind": f"{kind}List", "apiVersion": "v1", "metadata": metadata, "items": items[:limit]}


def _key(found: Object) -> str:
    """Where etcd keeps it, which is the order of lists."""
    return f"{found['metadata'].get('namespace', '')}/{found['metadata']['name']}"


def _fits(found: Object, parameters: Mapping[str, str]) -> bool:
    """Whether no term of a field selector (``type!=x``, no others) is against it."""
    terms = [term.partition("!=") for term in parameters.get("fieldSelector", "").split(",") if term]
    return all(found.get(field) != value for field, _, value in terms)
