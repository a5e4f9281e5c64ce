"""Pull secrets of the pod's namespace: which are asked for, and what a Secret object holds.

Knows the paths of the Kubernetes API and the types of secrets; asks through whatever has ``get``. A secret that cannot
be used is skipped with a reason and never stops the others. Never asks for another namespace, nor for a secret that
the mode does not name.
"""

from __future__ import annotations

import time

from ..errors import ClusterError, ConfigError, RequestError
from ..images import dockerconfig
from ..images.dockerconfig import DockerConfig
from ..platform.record import Record
from ..settings import POD, SERVICE_ACCOUNT
from .names import is_subdomain
from .serviceaccount import ServiceAccount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    class Cluster(Protocol):
        """The seam to the API server."""

        def get(self, path: str, token: str = "") -> dict[str, Any]: ...


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


def fetch(mode: str, account: ServiceAccount, token: str, cluster: Cluster) -> PullSecrets:
    """Asks for the secrets that a mode of ``--secrets-from`` names, and for nothing else.

    Args:
        mode: ``namespace``, ``pod`` or ``service-account``.
        account: whose pod pulls.
        token: of the pod; not used in the mode ``pod``, which asks as the node.

    Raises:
        RequestError: the mode ``pod`` with a token that is bound to no pod.
        ClusterError: no answer, or a refusal; its hint says what to grant or set.
    """
    if mode == POD:
        return _of_pod(account, cluster)
    if mode == SERVICE_ACCOUNT:
        return _of_service_account(account, token, cluster)
    return _of_namespace(account, token, cluster)


# -- namespace --------------------------------------------------------------------------------------------------------


def _of_namespace(account: ServiceAccount, token: str, cluster: Cluster) -> PullSecrets:
    """All docker config secrets of the namespace, by name."""
    return loads(_listed(account, token, cluster, f"type={DOCKER_CONFIG_JSON}"), account.namespace)


NEVER_MEANT = (
    *("kubernetes.io/service-account-token", "kubernetes.io/tls", "bootstrap.kubernetes.io/token"),
    "helm.sh/release.v1",
)
"""Types of secrets that nobody means as a pull secret."""


def list_others(account: ServiceAccount, token: str, cluster: Cluster) -> list[Any]:
    """The Secret objects that the mode ``namespace`` does not ask for, as far as one of them may be meant as a pull
    secret. For people alone: no run for the kubelet asks for them.

    Raises:
        ClusterError: as ``fetch``.
    """
    unlike = (DOCKER_CONFIG_JSON, *NEVER_MEANT)
    return _listed(account, token, cluster, ",".join(f"type!={kind}" for kind in unlike))


def _listed(account: ServiceAccount, token: str, cluster: Cluster, selector: str) -> list[Any]:
    """The Secret objects of the namespace that a field selector takes, by name."""
    path = f"{_namespace_path(account)}/secrets?fieldSelector={_quote(selector)}"
    items: list[Any] = []
    page = path
    for _ in range(_MAX_PAGES):
        try:
            answer = _object(cluster.get(page, token), "SecretList")
        except ClusterError as error:
            # Named after the account, so that the commands work for a second one of the namespace as well.
            role, rule = f"list-secrets-as-{account.name}", "--verb=list --resource=secrets"
            raise _explained(error, account, "list secrets", role, rule) from None
        if not isinstance(answer.get("items"), list):
            raise ClusterError("the API server's SecretList has no items", "check that this is a Kubernetes API server")
        items.extend(answer["items"])
        following = _member(answer, "metadata").get("continue")
        if not isinstance(following, str) or not following:
            return sorted(items, key=name_of)
        page = f"{path}&continue={_quote(following)}"
    raise ClusterError(f"the API server's list of secrets has more than {_MAX_PAGES} pages")


def _namespace_path(account: ServiceAccount) -> str:
    return f"/api/v1/namespaces/{account.namespace}"


def _quote(text: str) -> str:
    """Percent-encoding for a query; ``urllib`` is too dear for the pull path."""
    plain = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
    return "".join(chr(byte) if byte in plain else f"%{byte:02X}" for byte in text.encode("utf-8", "replace"))


# -- pod and service account ------------------------------------------------------------------------------------------


def _of_pod(account: ServiceAccount, cluster: Cluster) -> PullSecrets:
    """The pod's imagePullSecrets in their order, asked for as the node.

    The API server has copied those of the service account into them. The Node authorizer lets a node read exactly the
    pods bound to it and the secrets these name.
    """
    if not account.pod:
        raise RequestError(
            "the service account token is not bound to a pod, which --secrets-from pod requires",
            "use --secrets-from namespace or service-account",
        )
    try:
        pod = _object(cluster.get(f"{_namespace_path(account)}/pods/{account.pod}"), "Pod")
    except ClusterError as error:
        raise _explained_to_node(error, f"pod {account.namespace}/{account.pod}") from None
    spec = _member(pod, "spec")
    uid = _member(pod, "metadata").get("uid")
    if uid != account.pod_uid or spec.get("serviceAccountName") != account.name:
        raise ClusterError(
            f"pod {account.namespace}/{account.pod} is not the pod of the token: its uid or service account differs",
            "it was probably replaced in the meantime; the next pull works then",
        )
    return _by_name(_secret_names(spec), account, lambda path: cluster.get(path), _explained_to_node)


def _of_service_account(account: ServiceAccount, token: str, cluster: Cluster) -> PullSecrets:
    """The imagePullSecrets of the pod's service account in their order."""
    path = f"{_namespace_path(account)}/serviceaccounts/{account.name}"
    try:
        found = _object(cluster.get(path, token), "ServiceAccount")
    except ClusterError as error:
        what, role = f"read itself (get serviceaccounts/{account.name})", f"pull-account-of-{account.name}"
        rule = f"--verb=get --resource=serviceaccounts --resource-name={account.name}"
        raise _explained(error, account, what, role, rule) from None
    names = _secret_names(found)

    def explained(error: ClusterError, what: str) -> ClusterError:
        # A role of its own, since `kubectl create role` makes one rule, whose names would count for both resources.
        rule = f"--verb=get --resource=secrets{''.join(f' --resource-name={name}' for name in names)}"
        return _explained(error, account, f"get {what}", f"pull-secrets-of-{account.name}", rule)

    return _by_name(names, account, lambda path: cluster.get(path, token), explained)


def _secret_names(holder: dict[str, Any]) -> list[str]:
    """Names in ``imagePullSecrets``, each once; what is not a valid name cannot be asked for."""
    references = holder.get("imagePullSecrets")
    names = [r.get("name") for r in references if isinstance(r, dict)] if isinstance(references, list) else []
    return list(dict.fromkeys(name for name in names if isinstance(name, str) and is_subdomain(name)))


def _by_name(
    names: list[str],
    account: ServiceAccount,
    get: Callable[[str], dict[str, Any]],
    explained: Callable[[ClusterError, str], ClusterError],
) -> PullSecrets:
    """Gets the secrets one by one; one that does not exist is skipped."""
    items: list[Any] = []
    missing: list[Skipped] = []
    for name in names:
        try:
            items.append(_object(get(f"{_namespace_path(account)}/secrets/{name}"), "Secret"))
        except ClusterError as error:
            if error.status != 404:
                raise explained(error, f"secret {name}") from None
            missing.append(Skipped(name, "it is named in imagePullSecrets, but not found"))
    found = loads(items, account.namespace)
    return PullSecrets(found.secrets, (*missing, *found.skipped))


# -- refusals ---------------------------------------------------------------------------------------------------------


def _explained(error: ClusterError, account: ServiceAccount, what: str, role: str, rule: str) -> ClusterError:
    """A refusal with its cause and its remedy in terms of the pod's service account: commands as they are typed."""
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
            # The token is bound to the pod, and ends with it.
            if account.pod:
                hint += f"; if pod {account.pod} was deleted during the pull, there is nothing to do"
        audiences = ", ".join(account.audiences)[:200] or "none"
        text = f"{error.message}: it does not accept the token, whose audience is {audiences}"
        return ClusterError(text, hint, status=401)
    if error.status == 403:
        return ClusterError(
            f"{error.message}: service account {account.name} may not {what} in namespace {namespace}",
            f"grant it with a Role: kubectl -n {namespace} create role {role} {rule} && "
            f"kubectl -n {namespace} create rolebinding {role} --role={role} --serviceaccount={who}",
            status=403,
        )
    if error.status == 404:
        return ClusterError(error.message, "check that this is a Kubernetes API server", status=404)
    return error


def _explained_to_node(error: ClusterError, what: str) -> ClusterError:
    """A refusal of the node. It may read its own pods and what they name: there is nothing to grant."""
    if error.status == 401:
        return ClusterError(
            f"{error.message}: it does not accept the kubelet's client certificate",
            "check that the client certificate in the kubeconfig has not expired",
            status=401,
        )
    if error.status == 403:
        return ClusterError(
            f"{error.message}: the node may not get {what}",
            "the Node authorizer lets a node read its own pods and the secrets they name: "
            "check that it is on (--authorization-mode=Node,RBAC) and that the pod is still on this node; otherwise "
            "please report it",
            status=403,
        )
    return error


# -- Secret objects ---------------------------------------------------------------------------------------------------


def _object(answer: dict[str, Any], kind: str) -> dict[str, Any]:
    if answer.get("kind") != kind:
        raise ClusterError(f"the API server's answer is not a {kind}", "check that this is a Kubernetes API server")
    return answer


def _member(value: dict[str, Any], name: str) -> dict[str, Any]:
    member = value.get(name)
    return member if isinstance(member, dict) else {}


def loads(items: list[Any], namespace: str) -> PullSecrets:
    """Secret objects as pull secrets, in their order."""
    secrets: list[PullSecret] = []
    skipped: list[Skipped] = []
    for item in items:
        loaded = _load(name_of(item), item, namespace)
        if isinstance(loaded, PullSecret):
            secrets.append(loaded)
        else:
            skipped.append(loaded)
    return PullSecrets(tuple(secrets), tuple(skipped))


def name_of(item: Any) -> str:
    """The name of a Secret object, "" where it has none."""
    name = _member(item, "metadata").get("name") if isinstance(item, dict) else None
    return name if isinstance(name, str) else ""


def _load(name: str, item: Any, namespace: str) -> PullSecret | Skipped:
    """The docker config of one Secret object, or why there is none. No reason quotes the secret."""
    if not name:
        return Skipped("(without a name)", "it is not a Secret")
    if _member(item, "metadata").get("namespace", namespace) != namespace:
        return Skipped(name, "it is in another namespace")
    kind = item.get("type")
    key = _DATA_KEYS.get(kind) if isinstance(kind, str) else None
    if key is None:
        return Skipped(name, f"it is of type {kind!r}, not {DOCKER_CONFIG_JSON}")
    data = _member(item, "data")
    text = data.get(key)
    if not isinstance(text, str):
        other = next((name for name in dockerconfig.DATA_KEYS if name in data), "")
        return Skipped(name, f"it has no {key}{f', but {other}' if other else ''}")
    try:
        content = dockerconfig.decode_base64(text)
        config = dockerconfig.loads(content) if kind == DOCKER_CONFIG_JSON else dockerconfig.loads_dockercfg(content)
        if list(config.auths) == ["auths"]:
            raise ConfigError('it has "auths" within "auths"')
        if config.auths:
            return PullSecret(name, config)
        reason = dockerconfig.why_empty(content) if kind == DOCKER_CONFIG_JSON else "it is empty"
    except ConfigError as error:
        reason = error.message
    except ValueError:
        plain = " but plain JSON, which belongs in stringData" if text.lstrip().startswith("{") else ""
        return Skipped(name, f"its {key} is not base64{plain}")
    return Skipped(name, f"its {key} cannot be used: {reason}")
