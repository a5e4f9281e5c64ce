"""An Event on the pod whose pull goes without a credential: what its owner reads in ``kubectl describe pod``.

Sent as the node, by a process of its own that starts after the run has answered, so that no pull waits for it. There is
one object for each pod and reason, however many retries: later ones count it up. Its fields are those that the kubelet
and client-go write (client-go, tools/record: core/v1, with ``count``). The message names what the pod's own namespace
may know: neither files of the node nor what the API server said.
"""

from __future__ import annotations

import hashlib
import os
import time

from ..errors import ClusterError, ProviderError
from ..kubernetes import serviceaccount
from ..settings import NAMESPACE, POD
from .audit import exposed
from .handoff import detach
from .resolution import EXPOSED, NO_CREDENTIAL, is_wanted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..kubernetes.apiserver import ApiServer
    from ..settings import Settings
    from .audit import Audit
    from .resolution import Resolution

COMPONENT = "crio-credential-provider"

NOT_FOUND, FORBIDDEN, FAILED = (
    "MirrorCredentialsNotFound",
    "MirrorCredentialsForbidden",
    "MirrorCredentialsFailed",
)
"""Reasons: the owner of the pod can correct the first, who grants Roles the second, who runs the node the third."""

_DEADLINE = 10.0
"""Seconds for all requests; the process is ended by an alarm at twice that, wherever it stands."""

_MAX_MESSAGE = 1024
"""Characters: the API server's limit for events of events.k8s.io, by which they may be read as well."""

_MAX_REASON = 500

_TRIES = 3
"""How often a count is tried that another run changes at the same time."""

_DESCRIPTORS = 1024
"""More than a run has ever open."""


def tell(settings: Settings, audit: Audit) -> None:
    """Leaves a process that writes the Event of a run that has answered, where it deserves one. Never raises."""
    try:
        event = _event(settings, audit)
        if event is None or os.fork():
            return
    except BaseException:
        return
    try:
        # The token and the secrets that were read: nothing else holds them any more.
        audit.request = audit.resolution = None
        _send(settings, event)
    finally:
        os._exit(0)


def _event(settings: Settings, audit: Audit) -> dict[str, Any] | None:
    """The object to be; None for a run without a pod, or whose pod lacks nothing."""
    resolution, request = audit.resolution, audit.request
    if resolution is None or request is None or resolution.account is None or not resolution.account.pod_uid:
        return None
    account = resolution.account
    node = serviceaccount.node_name(request.token) or os.uname().nodename
    if audit.outcome == "nothing-to-do" and audit.code != EXPOSED:
        hosts = _unserved(resolution, settings)
        if audit.code != NO_CREDENTIAL or not hosts:
            return None
        reason = NOT_FOUND
        message = _not_found(resolution, hosts[0], settings)
    elif audit.outcome == "fault-cluster" and audit.code == "http-403" and settings.secrets_from != POD:
        reason = FORBIDDEN
        message = (
            f"Service account {account.name} may not read pull secrets in namespace {account.namespace}: a Role is "
            "missing, which an administrator grants with what this prints: crio-credential-provider manifests "
            f"pull-secrets -n {account.namespace} --secrets-from={settings.secrets_from}"
        )
    elif audit.code == EXPOSED:
        reason = FAILED
        message = (
            f"Node {node} used no credential for {resolution.image.name}: containerd would show it to "
            f"{', '.join(exposed(resolution))} as well; an administrator finds what to change on the node with: "
            "crio-credential-provider doctor"
        )
    elif audit.outcome.startswith("fault-") or audit.outcome == "no-keeper":
        reason = FAILED
        message = (
            f"Node {node} got no mirror credentials for {resolution.image.name} ({audit.outcome}); an administrator "
            "finds the cause on the node with: crio-credential-provider doctor"
        )
    else:
        return None
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    name = hashlib.sha256(f"{account.pod_uid}/{reason}".encode()).hexdigest()[:32]
    return {
        "kind": "Event",
        "apiVersion": "v1",
        "metadata": {"name": f"{COMPONENT}.{name}", "namespace": account.namespace},
        "involvedObject": {
            "kind": "Pod",
            "namespace": account.namespace,
            "name": account.pod,
            "uid": account.pod_uid,
            "apiVersion": "v1",
        },
        "reason": reason,
        "message": message[:_MAX_MESSAGE],
        "source": {"component": COMPONENT, "host": node},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
        "type": "Warning",
        "reportingComponent": COMPONENT,
        "reportingInstance": node[:128],
    }


def _unserved(resolution: Resolution, settings: Settings) -> list[str]:
    """Hosts of the places that were to get a credential; none where the node's own auth file has one for any."""
    selection, image = resolution.selection, resolution.image
    if selection is None or any(is_wanted(choice.source, image, settings) for choice in selection.choices):
        return []
    wanted = [entry.source for entry in selection.unserved if is_wanted(entry.source, image, settings)]
    return [source.name.partition("/")[0] for source in wanted]


def _not_found(resolution: Resolution, host: str, settings: Settings) -> str:
    assert resolution.account is not None
    namespace = resolution.account.namespace
    named = "" if settings.secrets_from == NAMESPACE else " and name it in imagePullSecrets"
    return (
        f"{resolution.image.name}: {resolution.reason[:_MAX_REASON]}; if {host} requires a credential, create a pull "
        f"secret for it{named}: kubectl -n {namespace} create secret docker-registry NAME --docker-server={host} "
        "--docker-username=USER --docker-password=PASSWORD"
    )


def _send(settings: Settings, event: dict[str, Any]) -> None:
    """In the process that was left."""
    detach()
    import signal

    from ..platform import journal

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(2 * _DEADLINE))
    # Among them the lock of the hand-off, for which the next run waits.
    os.closerange(3, _DESCRIPTORS)
    try:
        _write(_connect(settings), event)
    except ProviderError as error:
        log = journal.Journal(settings.journal_socket, settings.log_level)
        # Without the hint, which is for the run's own requests: --deadline is not the time of these.
        log.send(journal.WARNING, f"cannot write an Event on pod {event['involvedObject']['name']}: {error.message}")
        log.stay()


def _connect(settings: Settings) -> ApiServer:
    from ..kubernetes import apiserver, endpoint
    from ..kubernetes.clientcertificate import find_client_certificate

    client = find_client_certificate(settings, "--pod-events")
    return apiserver.ApiServer(endpoint.find_endpoint(settings), _DEADLINE, settings.max_answer_size, client=client)


def _write(api: ApiServer, event: dict[str, Any]) -> None:
    """Creates the Event, or counts it up. A node may create and patch events, and not read them."""
    events = f"/api/v1/namespaces/{event['metadata']['namespace']}/events"
    path = f"{events}/{event['metadata']['name']}"
    for tries_left in reversed(range(_TRIES)):
        try:
            kept = api.patch(path, {"message": event["message"], "lastTimestamp": event["lastTimestamp"]})
            version = {"resourceVersion": kept["metadata"]["resourceVersion"]}
            api.patch(path, {"count": int(kept.get("count") or 0) + 1, "metadata": version})
            return
        except ClusterError as error:
            # 404: not there yet, or no longer. 409: another run was quicker.
            if error.status == 404:
                try:
                    api.create(events, event)
                    return
                except ClusterError as refused:
                    error = refused
            if error.status != 409 or not tries_left:
                raise error from None
