"""The service accounts whose pods on a node use mirrors, and what each may do: asked with a token of its own.

A token is used for these questions and never told.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..errors import ClusterError, RequestError
from ..images import reference
from ..kubernetes import serviceaccount
from ..kubernetes.apiserver import ApiServer
from ..kubernetes.names import is_subdomain
from ..node.facts import Node
from ..node.kubelet import as_mapping
from ..settings import NAMESPACE, SERVICE_ACCOUNT
from . import mirrored

_TOKEN_LIFETIME = 600
"""Seconds: the least that the API server allows."""
_ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class Account(NamedTuple):
    """A service account whose pod on this node uses an image that has a mirror.

    Attributes:
        pod, uid: the pod that a token is bound to.
        image: as the pod names it.
        fails: whether an image of the pod cannot be pulled at the moment.
    """

    namespace: str
    name: str
    pod: str
    uid: str
    image: str
    fails: bool

    @property
    def is_system(self) -> bool:
        """Whether it belongs to the cluster itself and not to somebody who keeps pull secrets."""
        return self.namespace.startswith(("kube-", "openshift-"))


class Right(NamedTuple):
    """What was asked as a service account: the wanted verb and object, and the answer; None where it failed."""

    account: Account
    wanted: str
    allowed: bool | None
    reason: str


def find_accounts(node: Node, pods: dict[str, Any], *, with_mirror: bool = True) -> list[Account]:
    """The service accounts of pods, each once; those alone whose images the plugin has something to do for, or all.

    Those whose pods cannot pull come first, those of the cluster itself last.
    """
    items = pods.get("items")
    if not mirrored.is_known(node) or node.settings is None or not isinstance(items, list):
        return []
    found: dict[tuple[str, str], Account] = {}
    wanted: dict[str, bool] = {}
    for pod in map(as_mapping, items):
        metadata, spec = as_mapping(pod.get("metadata")), as_mapping(pod.get("spec"))
        names = [metadata.get("namespace"), spec.get("serviceAccountName"), metadata.get("name"), metadata.get("uid")]
        if not all(isinstance(name, str) and is_subdomain(name) for name in names):
            continue
        namespace, account, name, uid = (str(part) for part in names)
        # A static pod has no service account of its own, and its tokens would be refused.
        if "kubernetes.io/config.mirror" in as_mapping(metadata.get("annotations")):
            continue
        for image in _images(spec):
            if image not in wanted:
                wanted[image] = not with_mirror or _has_mirror(node, image)
            if wanted[image]:
                made = Account(namespace, account, name, uid, image, _fails(pod))
                found[namespace, account] = max(found.get((namespace, account), made), made, key=lambda a: a.fails)
    return sorted(found.values(), key=lambda a: (not a.fails, a.is_system, a.namespace, a.name))


def _fails(pod: dict[str, Any]) -> bool:
    """Whether the kubelet says of a container that its image cannot be pulled."""
    status = as_mapping(pod.get("status"))
    kinds = [status.get(kind) for kind in ("initContainerStatuses", "containerStatuses")]
    states = [as_mapping(as_mapping(one).get("state")) for kind in kinds if isinstance(kind, list) for one in kind]
    return any(as_mapping(s.get("waiting")).get("reason") in ("ErrImagePull", "ImagePullBackOff") for s in states)


def _images(spec: dict[str, Any]) -> list[str]:
    kinds = [spec.get(kind) for kind in ("initContainers", "containers")]
    containers = [as_mapping(item) for kind in kinds if isinstance(kind, list) for item in kind]
    return [image for container in containers if isinstance(image := container.get("image"), str)]


def _has_mirror(node: Node, text: str) -> bool:
    """Whether the plugin would ask for secrets for an image."""
    try:
        image = reference.parse(text)
    except reference.ReferenceSyntaxError:
        return False
    return mirrored.has_mirror(node, reference.Reference(image.domain, image.path))


def ask_rights(mode: str, api: ApiServer, as_account: ApiServer, account: Account, audience: str) -> list[Right]:
    """What a service account may of what the plugin does as it.

    Args:
        mode: of ``--secrets-from``.
        api: asked as the node.
        as_account: asked with the token alone.

    Raises:
        ClusterError: the API server does not accept the token.
    """
    try:
        token = _token(api, account, audience)
    except ClusterError as error:
        return [Right(account, "get a token", None, error.message)]
    try:
        return _rights(mode, api, as_account, account, token)
    except ClusterError as error:
        if error.status == 401:
            raise
        return [Right(account, "ask what it may", None, error.message)]


def _token(api: ApiServer, account: Account, audience: str) -> str:
    """A token as the kubelet gets it for a pull of that pod."""
    request = {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "spec": {
            "audiences": [audience],
            "expirationSeconds": _TOKEN_LIFETIME,
            "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": account.pod, "uid": account.uid},
        },
    }
    answer = api.create(f"/api/v1/namespaces/{account.namespace}/serviceaccounts/{account.name}/token", request)
    token = as_mapping(answer.get("status")).get("token")
    try:
        # It becomes part of a header: nothing but a token may.
        serviceaccount.loads(token if isinstance(token, str) else "")
    except RequestError:
        raise ClusterError("the API server's answer has no token") from None
    return str(token)


def _rights(mode: str, api: ApiServer, as_account: ApiServer, account: Account, token: str) -> list[Right]:
    base = {"group": "", "namespace": account.namespace}
    if mode == NAMESPACE:
        allowed = may(as_account, {**base, "verb": "list", "resource": "secrets"}, token)
        return [Right(account, "list secrets", allowed, "")]
    assert mode == SERVICE_ACCOUNT
    own = {**base, "verb": "get", "resource": "serviceaccounts", "name": account.name}
    rights = [Right(account, f"get serviceaccounts/{account.name}", may(as_account, own, token), "")]
    held = api.get(f"/api/v1/namespaces/{account.namespace}/serviceaccounts/{account.name}").get("imagePullSecrets")
    names = [as_mapping(item).get("name") for item in held] if isinstance(held, list) else []
    for name in names:
        if isinstance(name, str) and is_subdomain(name):
            one = {**base, "verb": "get", "resource": "secrets", "name": name}
            rights.append(Right(account, f"get secrets/{name}", may(as_account, one, token), ""))
    return rights


def may(api: ApiServer, attributes: dict[str, str], token: str = "") -> bool:
    """What the API server answers to an access review: as the node, or with a token as its service account."""
    review = {
        "kind": "SelfSubjectAccessReview",
        "apiVersion": "authorization.k8s.io/v1",
        "spec": {"resourceAttributes": attributes},
    }
    return as_mapping(api.create(_ACCESS_REVIEWS, review, token).get("status")).get("allowed") is True
