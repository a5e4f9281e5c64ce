"""Secrets that are not used and look as if they were meant to be: what is in them, and how to make usable ones of them.

Looks at what the decision asked for, and, where that left a place without a credential, at the namespace's secrets of
other types, which no run of the plugin asks for.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ClusterError, ConfigError
from ..images import dockerconfig
from ..images.dockerconfig import DockerConfig
from ..kubernetes import pullsecrets
from ..kubernetes.pullsecrets import DOCKER_CONFIG_JSON, PullSecret
from ..pull.keyring import Keyring, credential_of
from ..pull.resolution import Resolution, is_wanted
from ..settings import NAMESPACE, Settings

if TYPE_CHECKING:
    from ..kubernetes.pullsecrets import Cluster
    from ..kubernetes.serviceaccount import ServiceAccount


class Unusable(NamedTuple):
    """A secret that is not used.

    Attributes:
        secret, why: its name, and what keeps it from being used.
        keyring: what it would serve if it were used; None where it holds nothing that could.
        was_meant: whether it was meant as a pull secret: the plugin asks for it, or its content is named like one's.
        exists: whether there is such a secret.
        content: its key in the secret's data, and whether it lacks ``auths``; None where a copy would be of no use.
    """

    secret: str
    why: str
    keyring: Keyring | None
    was_meant: bool
    exists: bool
    content: tuple[str, bool] | None

    def key_for(self, repository: str) -> str | None:
        """The key of an entry that would serve a repository."""
        candidates = self.keyring.candidates(repository) if self.keyring is not None else ()
        return next((candidate.key for candidate in candidates if candidate.credential is not None), None)


class Seen:
    """The seam to the cluster, which keeps the Secret objects that come through it."""

    def __init__(self, connect: Callable[[], Cluster]) -> None:
        self._connect = connect
        self._cluster: Cluster | None = None
        self.secrets: dict[str, Any] = {}

    def connect(self) -> Cluster:
        """Connects, once."""
        if self._cluster is None:
            self._cluster = self._connect()
        return self

    @property
    def is_file(self) -> bool:
        return getattr(self._cluster, "is_file", False)

    def get(self, path: str, token: str = "") -> dict[str, Any]:
        assert self._cluster is not None
        answer = self._cluster.get(path, token)
        items = answer.get("items")
        for item in items if isinstance(items, list) else [answer]:
            self.secrets[pullsecrets.name_of(item)] = item
        return answer


def find(seen: Seen, resolution: Resolution, token: str, settings: Settings) -> tuple[Unusable, ...]:
    """Every secret that is not used as a whole: those that the decision skipped, then those that it did not ask for."""
    account, selection = resolution.account, resolution.selection
    if account is None or selection is None:
        return ()
    skipped = {secret.secret: secret.reason for secret in resolution.skipped if secret not in selection.flawed}
    others: dict[str, str] = {}
    served = {choice.source.name for choice in selection.choices}
    wanted = [source.name for source in resolution.sources if is_wanted(source, resolution.image, settings)]
    if settings.secrets_from == NAMESPACE and served.isdisjoint(wanted):
        try:
            for item in pullsecrets.list_others(account, token, seen.connect()):
                why = f"the secret is of type {item.get('type')!r}, and the plugin only lists {DOCKER_CONFIG_JSON}"
                others[pullsecrets.name_of(item)] = why
        except ClusterError:
            # Nothing of the decision: the list that it needed came.
            pass
    found = [_unusable(name, why, True, seen.secrets.get(name)) for name, why in skipped.items()]
    found += [_unusable(name, why, False, seen.secrets.get(name)) for name, why in others.items()]
    return (*found, *_not_named(seen, resolution, account, token, settings))


def _not_named(
    seen: Seen, resolution: Resolution, account: ServiceAccount, token: str, settings: Settings
) -> Iterator[Unusable]:
    """Pull secrets that imagePullSecrets do not name, where a file has them: a cluster is not asked for them."""
    if settings.secrets_from == NAMESPACE or not seen.is_file:
        return
    named = {secret.name for secret in resolution.secrets}
    for secret in pullsecrets.fetch(NAMESPACE, account, token, seen.connect()).secrets:
        if secret.name not in named:
            yield Unusable(secret.name, "it is not in imagePullSecrets", Keyring([secret]), True, True, None)


def _unusable(name: str, why: str, was_asked_for: bool, item: Any) -> Unusable:
    data = _data(item)
    found = find_content(data)
    if found is None:
        named = next((key for key in dockerconfig.DATA_KEYS[:2] if key in data), "")
        if named and not was_asked_for:
            why += f"; its {named} cannot be used either"
        return Unusable(name, why, None, (was_asked_for or bool(named)) and len(data) <= 1, item is not None, None)
    key, config, bare = found
    return Unusable(name, why, Keyring([PullSecret(name, config)]), True, True, (key, bare))


def _data(item: Any) -> dict[str, Any]:
    data = item.get("data") if isinstance(item, dict) else None
    return data if isinstance(data, dict) else {}


def find_content(data: dict[str, Any]) -> tuple[str, DockerConfig, bool] | None:
    """The docker config in the data of a secret, whatever its type: its key there, and whether it lacks ``auths``."""
    texts = {key: text for key, text in data.items() if isinstance(text, str)}
    for key in sorted(texts, key=lambda key: (key not in dockerconfig.DATA_KEYS, key)):
        for loads in (dockerconfig.loads, dockerconfig.loads_dockercfg):
            try:
                config = loads(dockerconfig.decode_base64(texts[key]))
            except (ConfigError, ValueError):
                continue
            if any(credential_of(entry)[0] for entry in config.auths.values()):
                return key, config, loads is dockerconfig.loads_dockercfg
    return None


def copy(secret: str, content: tuple[str, bool], made: str, namespace: str) -> str:
    """The command that makes a pull secret of what another secret holds, which stays: others may use it.

    One pipe, so that the content comes to no file and on no command line.
    """
    key, bare = content
    path = shlex.quote(f"{{.data.{key.replace('.', chr(92) + '.')}}}")
    kubectl = f"kubectl -n {namespace}"
    read = f"{kubectl} get secret {shlex.quote(secret)} -o jsonpath={path} | base64 -d"
    if bare:
        read = f"{{ printf '{{\"auths\":'; {read}; printf '}}'; }}"
    form = f"--type={DOCKER_CONFIG_JSON} --from-file=.dockerconfigjson=/dev/stdin"
    return f"{read} | {kubectl} create secret generic {shlex.quote(made)} {form}"
