"""Objects of a cluster in a file: what ``kubectl get secrets,pods -o yaml`` writes, or manifests to be applied.

Takes the place of the API server where it must not or cannot be asked: answers what ``pullsecrets`` asks, from the
file, and notes what the file does not say. Decides nothing about secrets. No error quotes what the file holds.

    cluster = loads(data, "secrets.yaml")
    cluster.get("/api/v1/namespaces/team-alpha/secrets/mirror-creds")
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from ...errors import ClusterError, UsageError
from ...kubernetes.pullsecrets import DOCKER_CFG, DOCKER_CONFIG_JSON
from ...kubernetes.serviceaccount import ServiceAccount
from ..help import did_you_mean

MAX_SIZE = 64 * 1024 * 1024
"""Bytes of a file."""

_MAX_DEPTH = 64
"""Of collections in each other; a Pod has some ten."""

SECRET, POD, SERVICE_ACCOUNT = "Secret", "Pod", "ServiceAccount"
_NO_UID = "00000000-0000-0000-0000-000000000000"
"""Of a pod that was not created yet."""

_RESOURCES = {"secrets": SECRET, "pods": POD, "serviceaccounts": SERVICE_ACCOUNT}

Object = dict[str, Any]


class ObjectsFile:
    """The seam to the API server, served from objects.

    Args:
        objects: of two with one name the later counts, as with ``kubectl apply``. One that does not say which
            namespace it is for belongs to whichever is asked for.
        origin: where they come from, for people.

    Attributes:
        notes: what the file lacks, and what was assumed instead.
        lacks: that it has no secret of the namespace, and what to do then; ("", "") where it has.
        is_file: whether more may be looked at than the plugin would ask for.
    """

    is_file = True

    def __init__(self, objects: list[Object], origin: str) -> None:
        self.lacks = ("", "")
        self.origin = origin
        self._objects = {(o["kind"], text(o, "metadata", "namespace"), text(o, "metadata", "name")): o for o in objects}
        self.notes: list[str] = []

    def get(self, path: str, token: str = "") -> Object:
        """As ``ApiServer.get``. The token counts for nothing: a file has no access rules."""
        path, _, query = path.removeprefix("/api/v1/namespaces/").partition("?")
        namespace, resource, *name = path.split("/")
        if not name:
            ours = "type%3D" in query
            items = [found for found in self._listed(namespace) if (text(found, "type") == DOCKER_CONFIG_JSON) == ours]
            return {"kind": "SecretList", "items": items}
        found = self.find(_RESOURCES[resource], namespace, name[0])
        if found is None:
            raise ClusterError(f"{self.origin} has no {_RESOURCES[resource]} {namespace}/{name[0]}", status=404)
        return found

    def find(self, kind: str, namespace: str, name: str) -> Object | None:
        """An object by its name; None where the file has none."""
        return self._objects.get((kind, namespace, name)) or self._objects.get((kind, "", name))

    def of_other_types(self, namespace: str) -> dict[str, list[str]]:
        """Type -> names of the secrets that are not listed, since the plugin asks for one type alone."""
        found: dict[str, list[str]] = {}
        for secret in self._secrets(namespace):
            kind = text(secret, "type")
            if kind != DOCKER_CONFIG_JSON:
                found.setdefault(kind, []).append(text(secret, "metadata", "name"))
        return found

    def assume_holder(self, kind: str, account: ServiceAccount) -> None:
        """Adds the pod, or the service account, where the file lacks it: with all its pull secrets, by name."""
        name = account.pod if kind == POD else account.name
        if self.find(kind, account.namespace, name) is not None:
            return
        holder = self.find(SERVICE_ACCOUNT, account.namespace, account.name) if kind == POD else None
        if holder is not None:
            references = holder.get("imagePullSecrets")
            assumed = f"those of its service account {account.name}"
        else:
            types = (DOCKER_CONFIG_JSON, DOCKER_CFG)
            secrets = [secret for secret in self._secrets(account.namespace) if text(secret, "type") in types]
            references = [{"name": name} for name in sorted(text(secret, "metadata", "name") for secret in secrets)]
            assumed = "all pull secrets of the file, by name"
        self.note(
            f"{self.origin} has no {kind} {account.namespace}/{name}: its imagePullSecrets are assumed to be {assumed}"
        )
        metadata = {"namespace": account.namespace, "name": name, "uid": account.pod_uid}
        self._objects[kind, account.namespace, name] = {
            "kind": kind,
            "metadata": metadata,
            "imagePullSecrets": references,
            "spec": {"serviceAccountName": account.name, "imagePullSecrets": references},
        }

    def _listed(self, namespace: str) -> list[Object]:
        secrets = list(self._secrets(namespace))
        if not secrets:
            others = sorted({space for kind, space, _ in self._objects if kind == SECRET})
            has = _has(namespace, others, "it has some of ")
            remedy = f"give -n the pod's namespace, or write the file with kubectl -n {namespace} get secrets -o yaml"
            self.lacks = (f"{self.origin} has no secret of namespace {namespace}{has}", remedy)
        return secrets

    def check(self, kind: str, namespace: str, name: str) -> None:
        """Raises UsageError where the file has objects of a kind in the namespace, and not the one that is named."""
        names = sorted(own for other, space, own in self._objects if other == kind and space in ("", namespace))
        if names and name not in names:
            raise UsageError(f"{self.origin} has no {kind} {namespace}/{name}{_has(name, names, 'it has ')}")

    def _secrets(self, namespace: str) -> Iterator[Object]:
        for (kind, space, _), found in self._objects.items():
            if kind == SECRET and space in ("", namespace):
                yield found

    def note(self, note: str) -> None:
        """Keeps a note, once."""
        if note not in self.notes:
            self.notes.append(note)


def _has(name: str, others: list[str], what: str) -> str:
    """The ones that are there in place of one that is not."""
    meant = did_you_mean(name, others)
    return f"; {what}{', '.join(others[:5])}{f'; {meant}' if meant else ''}" if others else ""


def text(value: object, *names: str) -> str:
    """A text in an object, "" where it is not there or none."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) else ""


# -- reading ----------------------------------------------------------------------------------------------------------


def loads(data: bytes, origin: str) -> ObjectsFile:
    """Parses JSON or YAML: objects, lists of them, several documents.

    Raises:
        UsageError: neither, or no Secret, Pod or ServiceAccount in it.
    """
    if not data.strip():
        raise UsageError(
            f"{origin} is empty: kubectl wrote nothing to it",
            "run it again and read its error on stderr, such as Forbidden",
        )
    objects = [found for document in _documents(data, origin) for found in _objects(document)]
    if not objects:
        raise UsageError(
            f"{origin} has no Secret, Pod or ServiceAccount",
            "kubectl -n NAMESPACE get secrets -o yaml writes such a file",
        )
    return ObjectsFile(objects, origin)


def _documents(data: bytes, origin: str) -> list[Any]:
    try:
        return [json.loads(data.decode())]
    except (ValueError, RecursionError):
        pass
    try:
        return load_yaml(data)
    except ValueError as error:
        raise UsageError(f"{origin} is neither JSON nor YAML: {error}") from None


def load_yaml(data: bytes) -> list[Any]:
    """The documents of a YAML file, with every scalar a text: a name such as 1e3 stays what it is.

    Raises:
        ValueError: not YAML, or nested deeper than any object; quotes nothing of the file.
    """
    # For people alone: it takes 20 ms to import.
    import yaml

    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        # First as a stream: the composer in C overflows its stack where nesting has no bound.
        depth = 0
        for event in yaml.parse(data, loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise ValueError(f"nested deeper than {_MAX_DEPTH}{_at(event.start_mark)}")
        return list(yaml.load_all(data, loader))
    except yaml.YAMLError as error:
        raise ValueError(f"invalid{_at(getattr(error, 'problem_mark', None))}") from None


def _at(mark: Any) -> str:
    return f" at line {mark.line + 1}" if mark is not None else ""


def _objects(document: Any) -> Iterator[Object]:
    """The objects of a document. The items of a typed list (SecretList) need not say what they are."""
    kind = text(document, "kind")
    items = document.get("items") if isinstance(document, dict) else None
    if kind.endswith("List") and isinstance(items, list):
        for item in items:
            if isinstance(item, dict):
                yield from _objects({"kind": kind.removesuffix("List"), **item})
    elif kind in _RESOURCES.values() and text(document, "metadata", "name"):
        yield _as_served(document)


def _as_served(found: Object) -> Object:
    """An object as the API server would hand it out: what ``stringData`` says is in ``data``, a secret has a type, a
    pod an account and a uid."""
    spec = found.get("spec")
    if found["kind"] == SECRET:
        written, data = (value if isinstance(value, dict) else {} for value in map(found.get, ("stringData", "data")))
        encoded = {
            name: base64.b64encode(value.encode("utf-8", "surrogatepass")).decode()
            for name, value in written.items()
            if isinstance(value, str)
        }
        return {"type": "Opaque", **found, "data": {**data, **encoded}}
    if found["kind"] == POD and isinstance(spec, dict):
        metadata = {"uid": _NO_UID, **found["metadata"]}
        return {**found, "metadata": metadata, "spec": {"serviceAccountName": "default", **spec}}
    return found
