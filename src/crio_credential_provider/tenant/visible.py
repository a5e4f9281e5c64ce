"""A workload, and the namespace as its pull asks for it: by a user, who may do less than the plugin.

The plugin asks as the pod's service account. Who may impersonate that account (as the ClusterRole ``edit`` allows) asks
as the account, and gets the plugin's own answers, refusals included. Anybody else asks as himself. What he may not see
either is not guessed: ``NotAsked``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Protocol

from ..audit.workloads import Object, Want, find_wants, member, names_of, pod_of
from ..errors import ClusterError, UsageError
from ..explanation import NotAsked
from ..kubernetes import names

_APPS, _BATCH = "/apis/apps/v1", "/apis/batch/v1"
_KINDS = (
    ("Pod", "/api/v1", "pods", "po"),
    ("Deployment", _APPS, "deployments", "deploy"),
    ("StatefulSet", _APPS, "statefulsets", "sts"),
    ("DaemonSet", _APPS, "daemonsets", "ds"),
    ("ReplicaSet", _APPS, "replicasets", "rs"),
    ("ReplicationController", "/api/v1", "replicationcontrollers", "rc"),
    ("Job", _BATCH, "jobs", ""),
    ("CronJob", _BATCH, "cronjobs", "cj"),
    ("DeploymentConfig", "/apis/apps.openshift.io/v1", "deploymentconfigs", "dc"),
)
"""Kind, the path of its API group, its resource and short name, as kubectl takes them."""


class Api(Protocol):
    """Whoever can be asked, as another user as well. ClusterError for any answer but a 200, with its ``status``."""

    def get(self, path: str, user: str = "") -> Object: ...


def parse_workload(named: str) -> tuple[str, str, str, str]:
    """Kind, path of the API group, resource and name of ``NAME`` (a pod) or ``KIND/NAME``.

    Raises:
        UsageError: no such kind, or not a name.
    """
    word, slash, name = named.partition("/")
    word, name = (word.lower().partition(".")[0], name) if slash else ("pod", word)
    kinds = [found for found in _KINDS if word and word in (found[0].lower(), *found[2:])]
    if not kinds:
        known = ", ".join(found[0].lower() for found in _KINDS)
        raise UsageError(f"{named!r}: unknown kind {word!r}", f"write POD or KIND/NAME; kinds: {known}")
    if not names.is_subdomain(name):
        raise UsageError(f"{name!r} is not a valid Kubernetes name")
    return *kinds[0][:3], name


def find_workload(api: Api, namespace: str, named: str) -> Object:
    """The object that ``parse_workload`` takes.

    Raises:
        UsageError: as there.
        ClusterError: not found, or not allowed.
    """
    kind, group, resource, name = parse_workload(named)
    try:
        return {**api.get(f"{group}/namespaces/{namespace}/{resource}/{name}"), "kind": kind}
    except ClusterError as error:
        hint = error.hint
        if error.status == 404:
            hint = f"check the name and -n: kubectl -n {namespace} get {resource}"
        elif error.status == 403:
            hint = f"ask an administrator for `get {resource}` in {namespace}, or give --image IMAGE"
        raise ClusterError(error.message, hint, status=error.status) from None


def wants_of(found: Object) -> Iterator[Want]:
    """What decides the pull of each image. Here it does not matter who owns the object, and whether a pod has ended."""
    metadata = {name: value for name, value in member(found, "metadata").items() if name != "ownerReferences"}
    for want, _ in find_wants({**found, "metadata": metadata, "status": {}}):
        yield want


class Visible:
    """The seam to the cluster for one pull, as ``decision`` takes it.

    Args:
        pod: the pod that pulls; None for one that does not exist yet.

    Attributes:
        notes: what differs from how the plugin asks.
    """

    def __init__(self, api: Api, want: Want, pod: Object | None) -> None:
        self._api = api
        self._want = want
        self._pod = pod
        self._may_impersonate = True
        self.notes: list[str] = []

    def get(self, path: str, token: str = "") -> Object:
        """As ``ApiServer.get``. With a token, whose content does not matter, as the service account."""
        resource = path.removeprefix("/api/v1/namespaces/").split("/")[1].partition("?")[0]
        if resource == "pods":
            return self._pod or self._future_pod()
        if token and self._may_impersonate:
            try:
                return self._api.get(path, f"system:serviceaccount:{self._want.namespace}:{self._want.account}")
            except ClusterError as error:
                if error.status != 403 or "impersonate" not in error.message:
                    raise
                self._may_impersonate = False
        try:
            answer = self._api.get(path)
        except ClusterError as error:
            raise self._forbidden(error, resource) if error.status == 403 else error from None
        if token and not self.notes:
            self.notes.append(
                f"asked as the kubeconfig's user, who may not impersonate service account {self._want.account}: that "
                f"this account may read the {resource}, as the plugin does, is assumed"
            )
        return answer

    def _forbidden(self, error: ClusterError, resource: str) -> NotAsked:
        namespace = self._want.namespace
        found = re.search(r'User "([^"\s]+)"', error.message)
        user = found[1] if found else "this user"
        role = f"kubectl -n {namespace} create role see-{resource} --verb=get,list --resource={resource}"
        bind = (
            f"kubectl -n {namespace} create rolebinding see-{resource} --role=see-{resource} --user={shlex.quote(user)}"
        )
        return NotAsked(
            f"{resource} of namespace {namespace}: forbidden for user {user}",
            f"ask an administrator to run this command in your place, or for `get` and `list` of {resource}: "
            f"{role} && {bind}",
        )

    def _future_pod(self) -> Object:
        """As it will be created: admission gives it the imagePullSecrets of the service account where it has none."""
        want = self._want
        named = want.secrets
        if not named:
            named = names_of(self.get(f"/api/v1/namespaces/{want.namespace}/serviceaccounts/{want.account}"))
        return pod_of(want, named)
