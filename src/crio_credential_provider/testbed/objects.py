"""Kubernetes objects as a real API server spells them: the order of fields, managedFields, Status, pods, JSON.

    dumps(StatusError(404, "NotFound", 'secrets "x" not found').answer(), pretty=False)

Held against ``tests/recordings/apiserver`` through the server in ``cluster``, which decides who gets which.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# A Kubernetes object, keys in the order in which the API server spells them.
Object = dict[str, Any]

# TEST-NET-1 (RFC 5737), as in the recordings.
_POD_IP = "192.0.2.2"
# The order of the fields in the Go types, which is the order in which they are spelled.
EVENT_FIELDS = (
    *("involvedObject", "reason", "message", "source", "firstTimestamp", "lastTimestamp", "count", "type", "eventTime"),
    *("series", "action", "related", "reportingComponent", "reportingInstance"),
)
REFERENCE_FIELDS = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
ATTRIBUTE_FIELDS = ("namespace", "verb", "group", "version", "resource", "subresource", "name")
# Event fields without omitempty.
ALWAYS_IN_EVENT: Object = {
    "involvedObject": {},
    "source": {},
    "firstTimestamp": None,
    "lastTimestamp": None,
    "eventTime": None,
    "reportingComponent": "",
    "reportingInstance": "",
}


class StatusError(Exception):
    """A refusal, as the Status object that the client gets."""

    def __init__(self, status: int, reason: str, message: str, details: Object | None = None) -> None:
        super().__init__(message)
        self.status, self.reason, self.message, self.details = status, reason, message, details

    def answer(self) -> Object:
        """The Status object."""
        found: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        found |= {"message": self.message, "reason": self.reason}
        if self.details is not None:
            found["details"] = self.details
        return found | {"code": self.status}


def dumps(document: Object, pretty: bool) -> bytes:
    """As Go's encoding/json writes it, with two blanks of indent or on one line."""
    indent, separators = (2, None) if pretty else (None, (",", ":"))
    text = json.dumps(document, ensure_ascii=False, indent=indent, separators=separators)
    # encoding/json escapes these three for the sake of HTML; its Encoder, used when not pretty, ends with a newline.
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return (text if pretty else text + "\n").encode()


def compact(document: Mapping[str, Any]) -> bytes:
    """A document that is not an answer: no escapes for HTML, no line end."""
    return json.dumps(document, separators=(",", ":")).encode()


def timestamp(seconds: int = 0) -> str:
    """So many seconds from now, as metav1.Time is spelled."""
    then = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    return then.strftime("%Y-%m-%dT%H:%M:%SZ")


def loads(body: bytes) -> Object:
    """A posted object; StatusError for anything else."""
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise StatusError(400, "BadRequest", "the object provided is unrecognized (must be of type object)")
    return document


def managed(manager: str, fields: Object, when: str, *, version: str = "v1") -> Object:
    """One entry of managedFields."""
    entry = {"manager": manager, "operation": "Update", "apiVersion": version, "time": when}
    return entry | {"fieldsType": "FieldsV1", "fieldsV1": fields}


def field_set(value: object) -> Object:
    """The FieldsV1 of a value: of maps their members, of all else nothing."""
    return {f"f:{key}": field_set(value[key]) for key in sorted(value)} if isinstance(value, dict) else {}


def _fields(names: str) -> Object:
    return {f"f:{name}": {} for name in names.split()}


def granular(fields: Object) -> Object:
    """The FieldsV1 of a map or list that is merged member by member."""
    # FieldsV1: "." stands for the map or list entry itself.
    return {".": {}} | fields


def ordered(document: Object, fields: Iterable[str]) -> Object:
    """These fields of it, in this order, where it has them."""
    return {field: document[field] for field in fields if field in document}


def pod(metadata: Object, node: str, account: str, own: Sequence[str], given: Sequence[str], image: str) -> Object:
    """A pod as ``kubectl apply`` made it and the kubelet reports it; `own` secrets are those of the manifest."""
    now = metadata["creationTimestamp"]
    manifest: Object = {
        "automountServiceAccountToken": False,
        "containers": [{"image": image, "imagePullPolicy": "Always", "name": "c0"}],
        "hostNetwork": True,
        **({"imagePullSecrets": [{"name": name} for name in own]} if own else {}),
        "nodeName": node,
        **({"serviceAccountName": account} if account != "default" else {}),
        "terminationGracePeriodSeconds": 1,
        "tolerations": [{"operator": "Exists"}],
    }
    names = {"annotations": {}, "name": metadata["name"], "namespace": metadata["namespace"]}
    applied = {"apiVersion": "v1", "kind": "Pod", "metadata": names, "spec": manifest}
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": compact(applied).decode() + "\n"}
    applied_by = managed("kubectl-client-side-apply", _applied_fields(annotations, own, account), now)
    reported_by = managed("kubelet", _reported_fields(), now) | {"subresource": "status"}
    described = ordered(metadata, ("name", "namespace", "uid", "resourceVersion")) | {"generation": 1}
    described |= {"creationTimestamp": now, "annotations": annotations, "managedFields": [applied_by, reported_by]}
    spec: Object = {
        "containers": [
            {
                "name": "c0",
                "image": image,
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "imagePullPolicy": "Always",
            }
        ],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 1,
        "dnsPolicy": "ClusterFirst",
        "serviceAccountName": account,
        "serviceAccount": account,
        "automountServiceAccountToken": False,
        "nodeName": node,
        "hostNetwork": True,
        "securityContext": {},
        **({"imagePullSecrets": [{"name": name} for name in given]} if given else {}),
        "schedulerName": "default-scheduler",
        "tolerations": [{"operator": "Exists"}],
        "priority": 0,
        "enableServiceLinks": True,
        "preemptionPolicy": "PreemptLowerPriority",
    }
    status = _pod_status(metadata["uid"], image, now)
    return {"kind": "Pod", "apiVersion": "v1", "metadata": described, "spec": spec, "status": status}


def _applied_fields(annotations: Object, own: Sequence[str], account: str) -> Object:
    container = granular(
        _fields("image imagePullPolicy name resources terminationMessagePath terminationMessagePolicy")
    )
    spec = _fields(
        "automountServiceAccountToken dnsPolicy enableServiceLinks hostNetwork nodeName restartPolicy schedulerName "
        "securityContext terminationGracePeriodSeconds tolerations"
    )
    spec["f:containers"] = {'k:{"name":"c0"}': container}
    if own:
        spec["f:imagePullSecrets"] = granular({f'k:{{"name":"{name}"}}': {} for name in sorted(own)})
    if account != "default":
        spec |= _fields("serviceAccount serviceAccountName")
    described = {"f:annotations": granular(field_set(annotations))}
    return {"f:metadata": described, "f:spec": dict(sorted(spec.items()))}


_CONDITIONS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")


def _reported_fields() -> Object:
    condition = granular(_fields("lastProbeTime lastTransitionTime observedGeneration status type"))
    conditions: Object = {f'k:{{"type":"{name}"}}': condition for name in sorted(_CONDITIONS)}
    status: Object = {"f:conditions": granular(conditions)}
    status |= _fields("containerStatuses hostIP hostIPs observedGeneration phase podIP")
    status["f:podIPs"] = {".": {}, f'k:{{"ip":"{_POD_IP}"}}': {".": {}, "f:ip": {}}}
    return {"f:status": status | _fields("resources startTime")}


def _pod_status(uid: str, image: str, now: str) -> Object:
    condition = {"observedGeneration": 1, "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
    repository, tag = _normalised(image)
    container = {
        "name": "c0",
        "state": {"running": {"startedAt": now}},
        "lastState": {},
        "ready": True,
        "restartCount": 0,
        "image": f"{repository}:{tag}",
        "imageID": f"{repository}@sha256:{hashlib.sha256(image.encode()).hexdigest()}",
        "containerID": f"cri-o://{hashlib.sha256(uid.encode()).hexdigest()}",
        "started": True,
        "resources": {},
        "user": {"linux": {"uid": 0, "gid": 0, "supplementalGroups": [0]}},
    }
    return {
        "observedGeneration": 1,
        "phase": "Running",
        "conditions": [{"type": name} | condition for name in _CONDITIONS],
        "hostIP": _POD_IP,
        "hostIPs": [{"ip": _POD_IP}],
        "podIP": _POD_IP,
        "podIPs": [{"ip": _POD_IP}],
        "startTime": now,
        "containerStatuses": [container],
        "qosClass": "BestEffort",
        "resources": {},
    }


def _normalised(image: str) -> tuple[str, str]:
    """An image's repository and tag, for the status alone; not by the plugin's rules, since its tests stand on this."""
    matched = re.fullmatch(r"(.+?)(?::([^/:@]+))?(?:@.*)?", image)
    repository, tag = matched.groups() if matched else (image, None)
    return re.sub(r"^docker\.io/([^/]+)$", r"docker.io/library/\1", repository), tag or "latest"
