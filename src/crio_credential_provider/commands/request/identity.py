"""Whom the kubeconfig lets a person be, and the token of a pod that is asked for as the kubelet asks for it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import ClusterError, ConfigError, RequestError
from ...kubernetes import names, serviceaccount
from ...settings import POD, Settings
from . import files, objectsfile

if TYPE_CHECKING:
    from ...kubernetes.apiserver import ApiServer
    from ...kubernetes.clientcertificate import ClientCertificate
    from ...kubernetes.pullsecrets import Cluster

_NO_RELATION = "no relationship found between node"
_TOKEN_SECONDS = 600
"""The least that the API server grants; a pull's token is asked for and used within a second."""


class Identity(NamedTuple):
    """Whom the kubeconfig lets us be: by certificate, by token, or both. `origin` is its path."""

    origin: str
    certificate: ClientCertificate | None
    token: str


def find_identity(chosen: Settings) -> Identity:
    """The user of the kubeconfig.

    Raises:
        ConfigError: there is no kubeconfig, it cannot be used, or its user needs a program to be run.
    """
    from ...kubernetes import clientcertificate

    path, user = clientcertificate.load_user(chosen)
    if not path:
        raise ConfigError(
            "no kubeconfig found to get the pod's token with",
            "give a kubeconfig with --kubeconfig, a token with --token-file, or the secrets with --secrets",
        )
    token = user.get("token", "")
    if user.get("tokenFile"):
        token = files.read(user["tokenFile"], f"tokenFile of {path}").decode("ascii", "replace").strip()
    has_certificate = any(user.get(name) for name in ("client-certificate", "client-certificate-data"))
    if not token and not has_certificate:
        programs = [name for name in ("exec", "auth-provider") if name in user]
        has = (
            f"needs an external program ({programs[0]}), which is not run here"
            if programs
            else "has no certificate and no token"
        )
        raise ConfigError(
            f"the user of {path} {has}",
            "create a token with kubectl -n NAMESPACE create token SERVICE-ACCOUNT, and give it with --token-file FILE",
        )
    certificate = clientcertificate.find_client_certificate(chosen) if has_certificate else None
    return Identity(path, certificate, token)


def connect(chosen: Settings, identity: Identity | None = None) -> Cluster:
    """As the plugin connects: as the pod, or, for ``--secrets-from pod``, as the node."""
    if chosen.secrets_from != POD:
        return _api(chosen, None)
    if identity is not None:
        return connect_as_user(chosen, identity)
    from ...kubernetes import clientcertificate

    return _api(chosen, clientcertificate.find_client_certificate(chosen))


def _api(chosen: Settings, certificate: ClientCertificate | None) -> ApiServer:
    # TLS is loaded only where somebody is asked.
    from ...kubernetes import apiserver, endpoint

    return apiserver.ApiServer(
        endpoint.find_endpoint(chosen),
        chosen.deadline,
        chosen.max_answer_size,
        verify=not chosen.insecure_skip_tls_verify,
        client=certificate,
    )


def connect_as_user(chosen: Settings, identity: Identity | None = None) -> User:
    """As the kubelet asks for what a pod names: as the kubeconfig's user."""
    identity = identity or find_identity(chosen)
    return User(_api(chosen, identity.certificate), identity.token)


class User:
    """The seam to the API server for what is asked as the kubeconfig's user, who may have a token of his own."""

    def __init__(self, api: ApiServer, token: str) -> None:
        self._api = api
        self._token = token

    def get(self, path: str, token: str = "") -> dict[str, Any]:
        return self._api.get(path, token or self._token)

    def create(self, path: str, value: dict[str, Any]) -> dict[str, Any]:
        return self._api.create(path, value, self._token)


def create_token(given: argparse.Namespace, user: User, audience: str) -> str:
    """A token as the kubelet gets one: for the pod's service account, bound to the pod if one is named.

    Raises:
        ClusterError: there is no such pod or service account, or the user may not; its hint says what would do.
    """
    namespace = f"/api/v1/namespaces/{given.namespace}"
    account = given.service_account or "default"
    spec: dict[str, Any] = {"expirationSeconds": _TOKEN_SECONDS}
    if audience:
        spec["audiences"] = [audience]
    try:
        if given.pod:
            pod = user.get(f"{namespace}/pods/{given.pod}")
            account = objectsfile.text(pod, "spec", "serviceAccountName") or account
            uid = objectsfile.text(pod, "metadata", "uid")
            spec["boundObjectRef"] = {"kind": "Pod", "apiVersion": "v1", "name": given.pod, "uid": uid}
        if not names.is_subdomain(account):
            raise ClusterError("the pod from the API server has no valid service account name")
        wanted = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": spec}
        token = objectsfile.text(user.create(f"{namespace}/serviceaccounts/{account}/token", wanted), "status", "token")
    except ClusterError as error:
        # The API server answers a node the same for a pod of another node and for none.
        perhaps = ", or there is no such pod" if _NO_RELATION in error.message else ""
        raise ClusterError(f"{error.message}{perhaps}", _remedy(error, given), status=error.status) from None
    try:
        serviceaccount.loads(token)
    except RequestError:
        raise ClusterError(
            "the API server's TokenRequest has no token", "check that this is a Kubernetes API server"
        ) from None
    return token


def _remedy(error: ClusterError, given: argparse.Namespace) -> str:
    """What to do where no token is given out."""
    if error.status == 403 and "audience" in error.message:
        return "allow the nodes this audience: manifests rbac prints the objects"
    if error.status == 403 and given.pod:
        return (
            "a node gets tokens only for pods that run on it; elsewhere give an administrator's "
            "kubeconfig with --kubeconfig"
        )
    if error.status == 403:
        return (
            "a node gets a token only for a pod that runs on it: give the pod with --pod, or an "
            "administrator's kubeconfig with --kubeconfig"
        )
    if error.status == 404:
        return "check the name; service accounts and pods are looked up in the namespace of -n"
    return error.hint
