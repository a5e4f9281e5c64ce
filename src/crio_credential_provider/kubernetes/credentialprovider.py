"""The kubelet's protocol: CredentialProviderRequest in, CredentialProviderResponse out, both v1.

Source: https://kubernetes.io/docs/reference/config-api/kubelet-credentialprovider.v1/ and docs/reference/contracts.md.
Reads and writes bytes; knows neither standard streams nor what an answer is made of.
"""

from __future__ import annotations

import json

from ..errors import RequestError
from ..images.dockerconfig import repository_keys
from ..platform import jsontext
from ..platform.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

API_VERSION = "credentialprovider.kubelet.k8s.io/v1"

_BY_HAND = "the kubelet runs this program for each pull; to try it by hand, run the command 'demo'"


class Request(Record):
    """A CredentialProviderRequest.

    Attributes:
        image: the repository the pod names, normalised, without tag and digest.
        token: the pod's service account token; "" where the kubelet sends none (static pods, no ``tokenAttributes``).
        annotations: of the service account, those that the kubelet's configuration names.
    """

    __slots__ = ("annotations", "image", "token")
    _secret = ("token",)

    def __init__(self, image: str, token: str = "", annotations: dict[str, str] | None = None) -> None:
        self.image = image
        self.token = token
        self.annotations = annotations or {}


def loads(data: bytes) -> Request:
    """Parses a request.

    Raises:
        RequestError: not JSON, another kind or version, or no image.
    """
    if not data.strip():
        raise RequestError("standard input is empty: no CredentialProviderRequest", _BY_HAND)
    try:
        message = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        reason = jsontext.reason(error)
        raise RequestError(
            f"the CredentialProviderRequest on standard input is not valid JSON: {reason}", _BY_HAND
        ) from None
    if not isinstance(message, dict):
        raise RequestError("the CredentialProviderRequest on standard input is not a JSON object", _BY_HAND)
    kind, version = message.get("kind"), message.get("apiVersion")
    if kind != "CredentialProviderRequest":
        if kind is None:
            raise RequestError("standard input has no kind, expected 'CredentialProviderRequest'", _BY_HAND)
        raise RequestError(
            f"standard input has the kind {_shown(kind)}, expected 'CredentialProviderRequest'", _BY_HAND
        )
    if version != API_VERSION:
        spoken = "no apiVersion" if version is None else f"the apiVersion {_shown(version)}"
        raise RequestError(
            f"the CredentialProviderRequest has {spoken}, expected {API_VERSION!r}",
            f"set the provider's apiVersion to {API_VERSION} in the CredentialProviderConfig",
        )
    image = _member(message, "image", str) or ""
    if not image:
        raise RequestError("the CredentialProviderRequest has no image")
    return Request(
        image, _member(message, "serviceAccountToken", str) or "", _member(message, "serviceAccountAnnotations", dict)
    )


def _shown(value: Any) -> str:
    """A short text of the request as it is; of anything else, which might hold the token, only what it is."""
    if not isinstance(value, str):
        return f"of type {type(value).__name__}"
    return repr(value) if len(value) <= 80 else f"of {len(value)} characters"


def _member(message: dict[str, Any], name: str, kind: type) -> Any:
    value = message.get(name)
    if value is not None and not isinstance(value, kind):
        raise RequestError(
            f"the CredentialProviderRequest's {name} is not {'an object' if kind is dict else 'a string'}"
        )
    return value


def keys_for(image: str) -> list[str]:
    """Every key of an answer by which the kubelet finds an image, in the order in which it tries their credentials.

    It sorts them backwards by their text (BasicDockerKeyring.Lookup): the longest path first, globs of the host last.
    """
    keys = [key for key in repository_keys(image) if not _loses_path(key)]
    host, colon, port = image.partition("/")[0].partition(":")
    labels = host.split(".")
    globs = [".".join(["*"] * count + labels[count:]) + colon + port for count in range(1, len(labels) + 1)]
    return sorted([*keys, *globs], reverse=True)


def _loses_path(key: str) -> bool:
    """Whether the kubelet drops the beginning of a key's path, though not of an image's (BasicDockerKeyring.Add)."""
    return key[key.find("/") :].startswith(("/v1/", "/v2/"))


def dumps(auth: dict[str, tuple[str, str]] | None = None) -> bytes:
    """Encodes the answer. It is never cached: a cached answer would leave the next pull without an auth file, or with a
    secret of yesterday.

    Args:
        auth: user name and password by the images that they are for.
    """
    response: dict[str, object] = {
        "kind": "CredentialProviderResponse",
        "apiVersion": API_VERSION,
        "cacheKeyType": "Image",
        "cacheDuration": "0s",
    }
    if auth:
        response["auth"] = {key: {"username": name, "password": password} for key, (name, password) in auth.items()}
    return jsontext.dumps(response).encode() + b"\n"


def pull_record(image: str) -> dict[str, tuple[str, str]]:
    """An answer that has the kubelet note that the image was pulled with credentials of this pod's service account
    (docs/reference/contracts.md, pull records).

    CRI-O ignores a credential whose user name is empty, so that the auth file keeps working.

    Args:
        image: of the request.
    """
    return {image.partition("/")[0] if _loses_path(image) else image: ("", "")}
