"""Secrets that are not used and look as if they were meant to be: what is in them, and how to make them usable.

Looks at what the decision asked for, and, where that left a place without a credential, at the namespace's secrets of
other types, which no run of the plugin asks for.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import dockerconfig, provider, pullsecrets
from ..dockerconfig import DockerConfig
from ..errors import ClusterError, ConfigError
from ..keyring import Keyring, credential_of
from ..provider import Resolution
from ..pullsecrets import DOCKER_CONFIG_JSON, PullSecret
from ..settings import NAMESPACE, Settings

if TYPE_CHECKING:
    from ..pullsecrets import Cluster


class Unusable(NamedTuple):
    """A secret that is not used.

    Attributes:
        secret, why: its name, and what keeps it from being used.
        keyring: what it would serve if it were used; None where it holds nothing that could.
        was_asked_for: whether the plugin asks for it.
        exists: whether it has to be deleted before it is made again.
        command: makes it again from what it holds; "" where that cannot be done.
    """

    secret: str
    why: str
    keyring: Keyring | None
    was_asked_for: bool
    exists: bool
    command: str

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
    wanted = [source.name for source in resolution.sources if provider.is_wanted(source, resolution.image, settings)]
    if settings.secrets_from == NAMESPACE and served.isdisjoint(wanted):
        try:
            for item in pullsecrets.list_others(account, token, seen.connect()):
                why = f"the secret is of type {item.get('type')!r}, and the plugin lists {DOCKER_CONFIG_JSON} alone"
                others[pullsecrets.name_of(item)] = why
        except ClusterError:
            # Nothing of the decision: the list that it needed came.
            pass
    found = [_unusable(name, why, True, seen.secrets.get(name), account.namespace) for name, why in skipped.items()]
    found += [_unusable(name, why, False, seen.secrets.get(name), account.namespace) for name, why in others.items()]
    return tuple(found)


def _unusable(name: str, why: str, was_asked_for: bool, item: Any, namespace: str) -> Unusable:
    found = _content(item)
    if found is None:
        return Unusable(name, why, None, was_asked_for, item is not None, "")
    key, config, bare = found
    keyring = Keyring([PullSecret(name, config)])
    return Unusable(name, why, keyring, was_asked_for, True, _remake(name, key, bare, namespace))


def _content(item: Any) -> tuple[str, DockerConfig, bool] | None:
    """The docker config of a Secret object, whatever its type: its key in ``data``, and whether it lacks ``auths``."""
    data = item.get("data") if isinstance(item, dict) else None
    texts = {key: text for key, text in data.items() if isinstance(text, str)} if isinstance(data, dict) else {}
    for key in sorted(texts, key=lambda key: (key not in dockerconfig.DATA_KEYS, key)):
        for loads in (dockerconfig.loads, dockerconfig.loads_dockercfg):
            try:
                config = loads(dockerconfig.decode_base64(texts[key]))
            except (ConfigError, ValueError):
                continue
            if any(credential_of(entry)[0] for entry in config.auths.values()):
                return key, config, loads is dockerconfig.loads_dockercfg
    return None


def _remake(name: str, key: str, bare: bool, namespace: str) -> str:
    """The command that makes a secret again with the same content in the right form and of the right type.

    One pipe, so that the content comes to no file and on no command line.
    """
    path = shlex.quote(f"{{.data.{key.replace('.', chr(92) + '.')}}}")
    read = f"kubectl -n {namespace} get secret {shlex.quote(name)} -o jsonpath={path} | base64 -d"
    if bare:
        read = f"{{ printf '{{\"auths\":'; {read}; printf '}}'; }}"
    created = f"create secret generic {shlex.quote(name)} --type={DOCKER_CONFIG_JSON}"
    form = "--from-file=.dockerconfigjson=/dev/stdin --dry-run=client -o yaml"
    return f"{read} | kubectl -n {namespace} {created} {form} | kubectl -n {namespace} replace --force -f -"
