"""This node as one of many: its state as annotations of its Node object, and its turn among the nodes of a DaemonSet.

A DaemonSet replaces pods a few at a time (``maxUnavailable``), but creates those of its first version on all nodes at
once. So each node waits for its turn before it changes anything: a Lease of the DaemonSet's name says in its
``holderIdentity`` whose turn it is, as many as ``maxUnavailable`` allows. A node that failed keeps its turn, marked
``:failed``, and no other begins: the rollout stops there, until that node's next run succeeds.

The API server is asked with the pod's service account: ``get`` of that DaemonSet, ``get`` and ``patch`` of that Lease,
``patch`` of nodes.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from .. import __version__
from ..errors import ClusterError, ProviderError
from ..kubernetes.apiserver import ApiServer
from ..kubernetes.endpoint import Endpoint
from ..node.kubelet import as_mapping
from .state import State

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
STATE, VERSION, REASON = (f"crio-credential-provider/{name}" for name in ("rollout", "version", "reason"))
_FAILED = ":failed"
_DEADLINE, _MAX_ANSWER = 15.0, 1 << 20
_MAX_REASON = 1000
_CONFLICT = 409


class Rollout(NamedTuple):
    """How it stands in the cluster.

    Attributes:
        nodes, ready: that run a pod of the DaemonSet, and those where its version has succeeded.
        at_once: nodes that may be changed at a time.
        holders: whose turn it is.
        failed: those of them that failed.
        revision: of the Lease.
    """

    nodes: int
    ready: int
    at_once: int
    holders: tuple[str, ...]
    failed: tuple[str, ...]
    revision: str


class Cluster:
    """The API server, as the pod's service account.

    Args:
        node: this node's name, "" if it is not known.
        daemonset: ``NAMESPACE/NAME`` of the one that this pod is of, "" for none.
    """

    def __init__(self, node: str, daemonset: str) -> None:
        self._node = node
        namespace, _, name = daemonset.partition("/")
        self._daemonset = f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}"
        self._lease = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"

    def annotate(self, state: State) -> None:
        """Tells this node's state.

        Raises:
            ProviderError: it could not be told.
        """
        annotations = {STATE: state.state, VERSION: __version__, REASON: state.reason[:_MAX_REASON] or None}
        self._ask("patch", f"/api/v1/nodes/{self._node}", {"metadata": {"annotations": annotations}})

    def find(self) -> Rollout:
        """How the rollout stands. ProviderError where the API server does not tell."""
        daemonset, lease = self._ask("get", self._daemonset), self._ask("get", self._lease)
        status = as_mapping(daemonset.get("status"))
        nodes = _number(status, "desiredNumberScheduled")
        is_seen = _number(status, "observedGeneration") == _number(as_mapping(daemonset.get("metadata")), "generation")
        # Ready is also a pod whose kubelet was restarted a moment ago; available is one that stays so.
        ready = min(_number(status, "numberAvailable"), _number(status, "updatedNumberScheduled")) if is_seen else 0
        strategy = as_mapping(as_mapping(daemonset.get("spec")).get("updateStrategy"))
        limit = as_mapping(strategy.get("rollingUpdate")).get("maxUnavailable", 1)
        entries = str(as_mapping(lease.get("spec")).get("holderIdentity") or "").split(",")
        holders = tuple(entry.removesuffix(_FAILED) for entry in entries if entry)
        failed = tuple(entry.removesuffix(_FAILED) for entry in entries if entry.endswith(_FAILED))
        revision = str(as_mapping(lease.get("metadata")).get("resourceVersion", ""))
        return Rollout(nodes, ready, at_once(limit, nodes), holders, failed, revision)

    def take_turn(self, found: Rollout) -> str:
        """Begins this node's turn.

        Returns:
            Why it has to wait; "" if it is its turn.

        Raises:
            ProviderError: the API server does not tell.
        """
        if self._node in found.holders:
            # Of a run that was killed, or that failed.
            return ""
        if found.failed:
            return f"the rollout has stopped: node {', '.join(found.failed)} failed"
        if len(found.holders) >= found.at_once:
            return f"it is the turn of {', '.join(found.holders)}"
        return "" if self._hold(found, [*found.holders, self._node], []) else "another node was faster"

    def end_turn(self, *, failed: bool) -> None:
        """Ends this node's turn, or marks it as failed.

        Raises:
            ProviderError: the API server does not do it.
        """
        while True:
            found = self.find()
            if self._node not in found.holders:
                return
            others = [holder for holder in found.holders if holder != self._node]
            marked = [holder for holder in found.failed if holder != self._node]
            both = ([*others, self._node], [*marked, self._node]) if failed else (others, marked)
            if self._hold(found, *both):
                return

    def _hold(self, found: Rollout, holders: list[str], failed: list[str]) -> bool:
        """Whether nobody else has changed the Lease meanwhile."""
        entries = [f"{holder}{_FAILED if holder in failed else ''}" for holder in holders]
        spec = {"holderIdentity": ",".join(entries) or None}
        try:
            self._ask("patch", self._lease, {"metadata": {"resourceVersion": found.revision}, "spec": spec})
        except ClusterError as error:
            if error.status == _CONFLICT:
                return False
            raise
        return True

    def _ask(self, method: str, path: str, *value: dict[str, Any]) -> dict[str, Any]:
        host, port = (os.environ.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
        if not host or not port.isdigit():
            raise ClusterError("KUBERNETES_SERVICE_HOST and _PORT are not set: this is not a pod")
        # Read anew each time: the kubelet renews it.
        try:
            with open(f"{ACCOUNT}/token") as file:
                token = file.read().strip()
        except OSError as error:
            raise ClusterError(f"cannot read {ACCOUNT}/token: {error.strerror}") from None
        endpoint = Endpoint(host, int(port), "KUBERNETES_SERVICE_HOST", f"{ACCOUNT}/ca.crt")
        api = ApiServer(endpoint, _DEADLINE, _MAX_ANSWER)
        answer: dict[str, Any] = getattr(api, method)(path, *value, token)
        return answer


def at_once(limit: object, nodes: int) -> int:
    """Nodes at a time, by a DaemonSet's ``maxUnavailable``: a number, or a part of all that is rounded up."""
    text = str(limit)
    part = text.removesuffix("%")
    if not part.isdigit():
        return 1
    return max(1, -(-int(part) * nodes // 100) if text.endswith("%") else int(part))


def _number(value: dict[str, Any], key: str) -> int:
    found = value.get(key, 0)
    return found if isinstance(found, int) else 0


def said(error: ProviderError) -> str:
    """In one line."""
    return error.message.split("\n")[0]
