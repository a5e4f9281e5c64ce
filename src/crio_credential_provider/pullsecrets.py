"""Pull secrets of the pod's namespace: which are asked for, and what a Secret object holds.

Knows the paths of the Kubernetes API and the types of secrets; asks through whatever has ``get``. A secret that cannot
be used is skipped with a reason and never stops the others. Never asks for another namespace, nor for a secret that
the mode does not name.
"""

from __future__ import annotations

import time

from . import dockerconfig
from .dockerconfig import DockerConfig
from .errors import ClusterError, ConfigError
from .record import Record
from .serviceaccount import ServiceAccount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Cluster(Protocol):
        """The seam to the API server."""

        def get(self, path: str, token: str) -> dict[str, Any]: ...


DOCKER_CONFIG_JSON = "kubernetes.io/dockerconfigjson"
DOCKER_CFG = "kubernetes.io/dockercfg"
_DATA_KEYS = {DOCKER_CONFIG_JSON: ".dockerconfigjson", DOCKER_CFG: ".dockercfg"}

_MAX_PAGES = 100


class PullSecret(Record):
    """A secret and the docker config in it."""

    __slots__ = ("config", "name")

    def __init__(self, name: str, config: DockerConfig) -> None:
        self.name = name
        self.config = config


class Skipped(Record):
    """A secret, or an entry of one, that is not used, and why."""

    __slots__ = ("reason", "secret")

    def __init__(self, secret: str, reason: str) -> None:
        self.secret = secret
        self.reason = reason


class PullSecrets(Record):
    """What the cluster holds for a pull, in the order in which equal answers win."""

    __slots__ = ("secrets", "skipped")

    def __init__(self, secrets: tuple[PullSecret, ...], skipped: tuple[Skipped, ...]) -> None:
        self.secrets = secrets
        self.skipped = skipped


def list_namespace(account: ServiceAccount, token: str, cluster: Cluster) -> PullSecrets:
    """All docker config secrets of the namespace, by name, listed as the pod.

    Raises:
        ClusterError: no answer, or a refusal; its hint says what to grant or set.
    """
    path = f"/api/v1/namespaces/{account.namespace}/secrets?fieldSelector=type%3Dkubernetes.io%2Fdockerconfigjson"
    items: list[Any] = []
    page = path
    for _ in range(_MAX_PAGES):
        try:
            answer = cluster.get(page, token)
        except ClusterError as error:
            raise explain_refusal(error, account) from None
        if answer.get("kind") != "SecretList" or not isinstance(answer.get("items"), list):
            raise ClusterError(
                "the API server's answer is no SecretList", "is a Kubernetes API server there?", status=200
            )
        items.extend(answer["items"])
        metadata = answer.get("metadata")
        following = metadata.get("continue") if isinstance(metadata, dict) else None
        if not isinstance(following, str) or not following:
            return loads(items, account.namespace)
        page = f"{path}&continue={_quote(following)}"
    raise ClusterError(f"the API server cut its list of secrets into more than {_MAX_PAGES} pages", status=200)


def _quote(text: str) -> str:
    """Percent-encoding for a query; ``urllib`` is too dear for the pull path."""
    plain = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
    return "".join(chr(byte) if byte in plain else f"%{byte:02X}" for byte in text.encode())


def explain_refusal(error: ClusterError, account: ServiceAccount) -> ClusterError:
    """A refusal with its cause and its remedy in terms of the pod's service account."""
    who = f"{account.namespace}:{account.name}"
    namespace = account.namespace
    if error.status == 401:
        if 0 < account.expires <= time.time():
            hint = "the token has expired: check the clocks of this node and of the API server"
        else:
            hint = (
                "set tokenAttributes.serviceAccountTokenAudience in the CredentialProviderConfig to the API server's "
                "own audience (kubeadm: https://kubernetes.default.svc.cluster.local; OpenShift and many others: "
                "https://kubernetes.default.svc)"
            )
        audiences = ", ".join(account.audiences)[:200] or "none"
        return ClusterError(
            f"{error.message}: it does not accept the token, whose audience is {audiences}", hint, status=401
        )
    if error.status == 403:
        return ClusterError(
            f"{error.message}: service account {account.name} may not list secrets in namespace {namespace}",
            f"grant it with a Role: kubectl -n {namespace} create role pull-secrets --verb=list --resource=secrets && "
            f"kubectl -n {namespace} create rolebinding pull-secrets --role=pull-secrets --serviceaccount={who}",
            status=403,
        )
    if error.status == 404:
        return ClusterError(error.message, "is a Kubernetes API server there?", status=404)
    return error


def loads(items: list[Any], namespace: str) -> PullSecrets:
    """Secret objects as pull secrets, in the order of their names."""
    secrets: list[PullSecret] = []
    skipped: list[Skipped] = []
    for name, item in sorted(((_name(item), item) for item in items), key=lambda pair: pair[0]):
        secret = _load(name, item, namespace)
        if isinstance(secret, PullSecret):
            secrets.append(secret)
        else:
            skipped.append(secret)
    return PullSecrets(tuple(secrets), tuple(skipped))


def _name(item: Any) -> str:
    name = item["metadata"].get("name") if isinstance(item, dict) and isinstance(item.get("metadata"), dict) else None
    return name if isinstance(name, str) else ""


def _load(name: str, item: Any, namespace: str) -> PullSecret | Skipped:
    """The docker config of one Secret object, or why there is none. No reason quotes the secret."""
    if not name:
        return Skipped("(without a name)", "no Secret object")
    if item["metadata"].get("namespace", namespace) != namespace:
        return Skipped(name, "of another namespace")
    kind = item.get("type")
    key = _DATA_KEYS.get(kind) if isinstance(kind, str) else None
    if key is None:
        return Skipped(name, f"of type {kind!r}, not {DOCKER_CONFIG_JSON}")
    data = item.get("data")
    text = data.get(key) if isinstance(data, dict) else None
    if not isinstance(text, str):
        return Skipped(name, f"has no {key}")
    try:
        content = dockerconfig.decode_base64(text)
        return PullSecret(
            name, dockerconfig.loads(content) if kind == DOCKER_CONFIG_JSON else dockerconfig.loads_dockercfg(content)
        )
    except ConfigError as error:
        return Skipped(name, f"its {key} cannot be used: {error.message}")
    except ValueError:
        return Skipped(name, f"its {key} is not base64")
