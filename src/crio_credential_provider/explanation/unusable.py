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
        was_meant: whether it was meant as a pull secret: the plugin asks for it, or its content is named like one's.
        exists: whether it has to be deleted before it is made again.
        remedy: makes it again from what it holds; "" where that cannot be done.
    """

    secret: str
    why: str
    keyring: Keyring | None
    was_meant: bool
    exists: bool
    remedy: str

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
    data = _data(item)
    found = _content(data)
    if found is None:
        named = next((key for key in dockerconfig.DATA_KEYS[:2] if key in data), "")
        if named and not was_asked_for:
            why += f"; its {named} could not be used either"
        return Unusable(name, why, None, (was_asked_for or bool(named)) and len(data) <= 1, item is not None, "")
    key, config, bare = found
    # What has other content, or its content under a name of its own, may be there for somebody else as well.
    alone = len(data) == 1 and (was_asked_for or key in dockerconfig.DATA_KEYS[:2])
    text = _again(name, key, bare, namespace) if alone else _copy(name, key, bare, namespace)
    return Unusable(name, why, Keyring([PullSecret(name, config)]), True, True, text)


def _data(item: Any) -> dict[str, Any]:
    data = item.get("data") if isinstance(item, dict) else None
    return data if isinstance(data, dict) else {}


def _content(data: dict[str, Any]) -> tuple[str, DockerConfig, bool] | None:
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


def _again(name: str, key: str, bare: bool, namespace: str) -> str:
    return (
        f"make secret {name} again from what it holds, as {DOCKER_CONFIG_JSON} (a type cannot be changed: this deletes "
        f"and creates it): {_made(name, name, key, bare, namespace)} replace --force -f -"
    )


def _copy(name: str, key: str, bare: bool, namespace: str) -> str:
    made = f"{name}-pull"
    return f"make a pull secret of what secret {name} holds: {_made(made, name, key, bare, namespace)} apply -f -"


def _made(made: str, name: str, key: str, bare: bool, namespace: str) -> str:
    """The command that gives the content of a secret the right form and type, but for its last words.

    One pipe, so that the content comes to no file and on no command line.
    """
    path = shlex.quote(f"{{.data.{key.replace('.', chr(92) + '.')}}}")
    kubectl = f"kubectl -n {namespace}"
    read = f"{kubectl} get secret {shlex.quote(name)} -o jsonpath={path} | base64 -d"
    if bare:
        read = f"{{ printf '{{\"auths\":'; {read}; printf '}}'; }}"
    form = f"--type={DOCKER_CONFIG_JSON} --from-file=.dockerconfigjson=/dev/stdin --dry-run=client -o yaml"
    return f"{read} | {kubectl} create secret generic {shlex.quote(made)} {form} | {kubectl}"
