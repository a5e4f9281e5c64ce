"""Objects of a cluster, reduced to what a pull's decision needs, and the seam to the API server that answers from them.

Answers what ``pullsecrets`` asks as the API server would: what is not there is a 404, what the roles do not allow a
403. What was not read is neither: ``NotAsked``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import NoReturn

from ..errors import ClusterError
from ..explanation import NotAsked
from ..explanation.unusable import find_content
from ..images import dockerconfig
from ..images.dockerconfig import AuthEntry, DockerConfig
from ..kubernetes import pullsecrets
from ..kubernetes.pullsecrets import DOCKER_CFG, DOCKER_CONFIG_JSON, NEVER_MEANT, PullSecret
from ..pull.keyring import Keyring, credential_of
from ..settings import NAMESPACE, SERVICE_ACCOUNT
from . import rbac
from .nodes import RUNTIME
from .rbac import Rights
from .workloads import Object, Want, Where, labels, member, names_of, pod_of, text

KINDS = ("Secret", "ServiceAccount", "Node", *rbac.KINDS)


class Collected:
    """What was read of a cluster.

    Attributes:
        nodes: name -> labels, its runtime among them.
        rights: what the roles allow.
        read: kind -> objects.
        are_from_files: rather than from the API server.
    """

    def __init__(self) -> None:
        self.nodes: dict[str, dict[str, str]] = {}
        self.rights = Rights()
        self.read: dict[str, int] = {}
        self.are_from_files = True
        self._secrets: dict[str, dict[str, Object]] = {}
        self._accounts: dict[tuple[str, str], tuple[str, ...]] = {}
        self._with_accounts: set[str] = set()
        self._alike: dict[tuple[tuple[str, str], ...], str] = {}
        self._unread: set[tuple[str, str]] = set()
        self._keys: dict[str, AuthEntry] = {}

    def add(self, found: Object) -> None:
        """Takes an object of one of ``KINDS``; keeps nothing of it but what is needed."""
        kind, metadata = found["kind"], member(found, "metadata")
        namespace, name = sys.intern(text(metadata, "namespace") or "default"), text(metadata, "name")
        if kind == "Secret":
            reduced = self._reduced(found, namespace, name)
            if reduced is not None:
                self._secrets.setdefault(namespace, {})[name] = reduced
        elif kind == "ServiceAccount":
            self._accounts[namespace, sys.intern(name)] = names_of(found)
            self._with_accounts.add(namespace)
        elif kind == "Node":
            self.nodes[name] = found_labels = labels(metadata)
            found_labels.pop("kubernetes.io/hostname", None)
            runtime = text(member(member(found, "status"), "nodeInfo"), "containerRuntimeVersion").partition("://")[0]
            if runtime:
                found_labels[RUNTIME] = runtime
            self._alike.setdefault(tuple(sorted(found_labels.items())), name)
        else:
            self.rights.add(found)

    def like(self, where: Where) -> Where:
        """The same place by the first node with the same labels, so that pods of many nodes are counted together."""
        found = self.nodes.get(where.node)
        return where if found is None else Where(self._alike[tuple(sorted(found.items()))], ())

    def lacks(self, kind: str, namespace: str = "") -> None:
        """Notes that a kind could not be read, in one namespace or at all."""
        self._unread.add((kind, namespace))

    def was_read(self, kind: str, namespace: str) -> bool:
        """Whether a kind was read in a namespace; "" for kinds that are in none. No object of it in files means that it
        was not saved: each cluster has some."""
        unread = self._unread & {(kind, ""), (kind, namespace)}
        return not unread and (kind in self.read or not self.are_from_files)

    def lacks_any(self, kinds: Iterable[str]) -> bool:
        """Whether one of these kinds could not be read, in a namespace or at all."""
        return any(kind in kinds for kind, _ in self._unread)

    def _reduced(self, found: Object, namespace: str, name: str) -> Object | None:
        kind, data = text(found, "type"), member(found, "data")
        if kind in NEVER_MEANT:
            return None
        if kind in (DOCKER_CONFIG_JSON, DOCKER_CFG):
            kept = {key: data[key] for key in dockerconfig.DATA_KEYS if key in data}
        else:
            content = find_content(data)
            if content is not None:
                kept = {content[0]: data[content[0]]}
                self._note_keys(content[1])
            elif any(key in data for key in dockerconfig.DATA_KEYS[:2]):
                kept = {key: value if key in dockerconfig.DATA_KEYS else "" for key, value in data.items()}
            else:
                return None
        # Namespaces often have the same secret: its text is kept once.
        kept = {key: sys.intern(value) for key, value in kept.items() if isinstance(value, str)}
        metadata = {"namespace": namespace, "name": name}
        made = {"kind": "Secret", "metadata": metadata, "type": sys.intern(kind), "data": kept}
        for secret in pullsecrets.loads([made], namespace).secrets:
            self._note_keys(secret.config)
        return made

    def _note_keys(self, config: DockerConfig) -> None:
        for key, entry in config.auths.items():
            if key not in self._keys and credential_of(entry)[0] is not None:
                self._keys[key] = AuthEntry("", "", "user", "password")

    def keys(self) -> Keyring:
        """The keys of all secrets of all namespaces, to see which mirrors anybody has a credential for."""
        return Keyring([PullSecret("(any)", DockerConfig(self._keys, {}))])

    def is_account_missing(self, namespace: str, account: str) -> bool:
        """Whether the namespace's service accounts were read, and this one is not among them."""
        return namespace in self._with_accounts and (namespace, account) not in self._accounts

    # -- for the seam -------------------------------------------------------------------------------------------------

    def secrets(self, namespace: str) -> dict[str, Object]:
        """Those of a namespace by name."""
        return self._secrets.get(namespace, {})

    def secrets_of_account(self, namespace: str, account: str) -> tuple[str, ...] | None:
        """The imagePullSecrets of a service account; None where there is no such one."""
        return self._accounts.get((namespace, account))


class Seam:
    """The cluster as one pull asks it.

    Attributes:
        unchecked: codes of ``result.UNCHECKED``.
        is_file: for ``explanation``: more may be looked at than the plugin would ask for.
    """

    is_file = True

    def __init__(self, collected: Collected, want: Want, mode: str) -> None:
        self._collected = collected
        self._want = want
        self._mode = mode
        self.unchecked: dict[str, None] = {}

    def get(self, path: str, token: str = "") -> Object:
        """As ``ApiServer.get``; the token counts for nothing."""
        path, _, query = path.removeprefix("/api/v1/namespaces/").partition("?")
        namespace, resource, *names = path.split("/")
        name = names[0] if names else ""
        if resource == "pods":
            return self._pod()
        if self._mode == (SERVICE_ACCOUNT if name else NAMESPACE):
            self._check("get" if name else "list", resource, name)
        kind = "Secret" if resource == "secrets" else "ServiceAccount"
        if not self._collected.was_read(kind, namespace):
            what = "secrets" if kind == "Secret" else "service accounts"
            raise NotAsked(f"the {what} of namespace {namespace} were not read")
        secrets = self._collected.secrets(namespace)
        if not name:
            ours = "type%3D" in query
            items = [found for found in secrets.values() if (found["type"] == DOCKER_CONFIG_JSON) == ours]
            return {"kind": "SecretList", "items": items}
        if kind == "Secret":
            return secrets[name] if name in secrets else self._not_found(resource, name)
        named = self._collected.secrets_of_account(namespace, name)
        if named is None:
            self._not_found(resource, name)
        return {"kind": "ServiceAccount", "imagePullSecrets": [{"name": name} for name in named]}

    def _check(self, verb: str, resource: str, name: str) -> None:
        want = self._want
        request = verb, resource, name
        allowed = self._collected.rights.may(want.namespace, want.account, request, self._collected.was_read)
        if allowed is None:
            self.unchecked["roles-not-read"] = None
        elif not allowed:
            user = f"system:serviceaccount:{want.namespace}:{want.account}"
            message = (
                f"by its roles, {user} cannot {verb} {resource}{f'/{name}' if name else ''} in the namespace "
                f"{want.namespace}"
            )
            raise ClusterError(message, status=403)

    def _not_found(self, resource: str, name: str) -> NoReturn:
        raise ClusterError(f"{resource} {name} not found in namespace {self._want.namespace}", status=404)

    def _pod(self) -> Object:
        """The pod that pulls, or the one that its template would make: admission gives it the imagePullSecrets of the
        service account where it has none."""
        want = self._want
        names = want.secrets
        if not names and not want.is_pod:
            if self._collected.was_read("ServiceAccount", want.namespace):
                names = self._collected.secrets_of_account(want.namespace, want.account) or ()
            else:
                self.unchecked["service-account-not-read"] = None
        return pod_of(want, names)
