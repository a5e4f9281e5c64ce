"""What the kubelet hands to CRI-O for an image: credentials of the pod's own imagePullSecrets, by the kubelet's rules.

CRI-O shows one with a user name at the registry that the image names, ahead of any file; the kubelet tries them one
after the other. Asks the cluster as the kubelet does, as the kubeconfig's user.

Source: k8s.io/kubernetes/pkg/credentialprovider/keyring.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ... import settings
from ...errors import ProviderError
from ...images.dockerconfig import Credential, DockerConfig
from ...kubernetes import pullsecrets
from ...kubernetes.pullsecrets import PullSecret
from ...kubernetes.serviceaccount import ServiceAccount
from ...pull import keyring
from . import identity, objectsfile

if TYPE_CHECKING:
    from ...explanation import Explanation
    from ...images.reference import Reference
    from ...kubernetes.pullsecrets import Cluster, PullSecrets
    from .find import Pull

_DOCKER_HUB, _DOCKER_HUB_KEY = "docker.io", "index.docker.io"


class HandedOver(NamedTuple):
    """A credential, and where it stands."""

    secret: str
    key: str
    credential: Credential


def find(asked: Pull, explained: Explanation) -> tuple[HandedOver, ...] | str:
    """What the kubelet hands over, in its order; why that is not known, where it is not."""
    resolution = explained.resolution
    if resolution is None or resolution.account is None:
        return ()
    if asked.settings.secrets_from == settings.POD and resolution.selection is not None:
        return select(resolution.secrets, resolution.image)
    account = resolution.account
    fetched = _fetch(asked, account)
    if isinstance(fetched, str):
        return fetched
    found = select(fetched.secrets, resolution.image)
    if not found and not account.pod:
        return f"service account {account.name} has no secret with a key for it, but the pod may have one"
    return found


def _fetch(asked: Pull, account: ServiceAccount) -> PullSecrets | str:
    namespace, file = account.namespace, asked.offline
    if file is not None:
        kind, name = (objectsfile.POD, account.pod) if account.pod else (objectsfile.SERVICE_ACCOUNT, account.name)
        if file.find(kind, namespace, name) is None:
            return f"{file.origin} has no {kind} {namespace}/{name}, so that its imagePullSecrets are not known"
    try:
        connect = asked.as_kubelet or (lambda: identity.connect_as_user(asked.settings))
        cluster: Cluster = file if file is not None else connect()
        if not account.pod:
            # Which a pod without imagePullSecrets of its own gets when it is created.
            return pullsecrets.fetch(settings.SERVICE_ACCOUNT, account, "", cluster)
        pod = cluster.get(f"/api/v1/namespaces/{namespace}/pods/{account.pod}")
        name = objectsfile.text(pod, "spec", "serviceAccountName")
        uid = objectsfile.text(pod, "metadata", "uid")
        account = ServiceAccount(namespace, name, account.pod, uid)
        return pullsecrets.fetch(settings.POD, account, "", cluster)
    except ProviderError as error:
        return error.message


def select(secrets: tuple[PullSecret, ...], image: Reference) -> tuple[HandedOver, ...]:
    """The entries that count for an image, as the kubelet sorts them: keys backwards, then secrets in their order."""
    found: dict[str, list[HandedOver]] = {}
    for secret in secrets:
        for key, entry in secret.config.auths.items():
            # Under the image's own name it is found whatever its key is.
            alone = PullSecret(secret.name, DockerConfig({image.name: entry}, {}))
            for candidate in keyring.Keyring((alone,)).candidates(image.name):
                if candidate.credential is not None and candidate.credential.username:
                    # An identity token is not among what it hands over.
                    credential = Credential(candidate.credential.username, candidate.credential.password)
                    found.setdefault(_normalized(key), []).append(HandedOver(secret.name, key, credential))
    keys = [key for key in sorted(found, reverse=True) if _matches(key, image)]
    if not keys and image.domain == _DOCKER_HUB and _DOCKER_HUB_KEY in found:
        keys = [_DOCKER_HUB_KEY]
    return tuple(entry for key in keys for entry in found[key])


def _normalized(key: str) -> str:
    """Without scheme and API version."""
    host, slash, path = key.removeprefix("https://").removeprefix("http://").partition("/")
    if path.startswith(("v1/", "v2/")):
        path = path[3:]
    return f"{host}{slash}{path}" if path else host


def _matches(key: str, image: Reference) -> bool:
    """Host by host glob, and any beginning of the path."""
    host, _, path = key.partition("/")
    return keyring.matches_host(host, image.domain) and image.path.startswith(path)
