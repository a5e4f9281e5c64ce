"""Who the pod is: the claims of its service account token.

The signature is not verified, and need not be: the kubelet got the token from the API server and hands it over a pipe,
and the namespace that is read here is only ever asked for *with this token*, so that the API server decides. A forged
token reads nothing; it could at most name the auth file of its own made-up namespace.
"""

from __future__ import annotations

import binascii
import json

from ..errors import RequestError
from ..platform.record import Record
from .names import is_label, is_subdomain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BASE64URL = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_HINT = "the kubelet sends a bound service account token if the CredentialProviderConfig has tokenAttributes"


class ServiceAccount(Record):
    """Claims of a bound token.

    Attributes:
        namespace, name: of the service account; checked against their grammar, safe in paths and URLs.
        pod, pod_uid: of the pod the token is bound to; "" where it is bound to none.
        audiences: whom the token is for.
        expires: seconds since the epoch, 0 where the token does not say.
    """

    __slots__ = ("audiences", "expires", "name", "namespace", "pod", "pod_uid")

    def __init__(
        self,
        namespace: str,
        name: str,
        pod: str = "",
        pod_uid: str = "",
        audiences: tuple[str, ...] = (),
        expires: float = 0,
    ) -> None:
        self.namespace = namespace
        self.name = name
        self.pod = pod
        self.pod_uid = pod_uid
        self.audiences = audiences
        self.expires = expires


def loads(token: str) -> ServiceAccount:
    """Decodes the claims of a token.

    Raises:
        RequestError: no JWT, or no claims of a Kubernetes service account; never quotes the token.
    """
    claims = _claims(token)
    bound = claims.get("kubernetes.io")
    if not isinstance(bound, dict):
        raise RequestError("the service account token has no claim kubernetes.io", _HINT)
    account = _object(bound, "serviceaccount")
    pod = _object(bound, "pod")
    audience = claims.get("aud", [])
    audiences = [audience] if isinstance(audience, str) else audience if isinstance(audience, list) else []
    expires = claims.get("exp", 0)
    return ServiceAccount(
        _checked(bound.get("namespace"), "namespace", is_label),
        _checked(account.get("name"), "service account", is_subdomain),
        _checked(pod["name"], "pod", is_subdomain) if "name" in pod else "",
        pod["uid"] if isinstance(pod.get("uid"), str) else "",
        tuple(text for text in audiences if isinstance(text, str)),
        expires if isinstance(expires, (int, float)) else 0,
    )


def node_name(token: str) -> str:
    """The node that a token ``loads`` has taken is bound to; "" where it does not say (before Kubernetes 1.30)."""
    name = _object(_claims(token)["kubernetes.io"], "node").get("name")
    return name if isinstance(name, str) and is_subdomain(name) else ""


def _claims(token: str) -> dict[str, Any]:
    parts = token.split(".")
    # All three become part of an HTTP header, where a line break would end it (RFC 7515: base64url without padding).
    if len(parts) == 3 and all(map(_is_base64url, parts)):
        try:
            payload = parts[1].replace("-", "+").replace("_", "/")
            claims = json.loads(binascii.a2b_base64(payload + "=" * (-len(payload) % 4), strict_mode=True).decode())
        except (ValueError, RecursionError):
            claims = None
        if isinstance(claims, dict):
            return claims
    raise RequestError("the serviceAccountToken is not a JWT", _HINT)


def _is_base64url(text: str) -> bool:
    """Without padding. Deletes what may be there: for a token 0.1 million instructions less than asking letters."""
    return text.isascii() and not text.encode().translate(None, _BASE64URL)


def _object(claim: dict[str, Any], name: str) -> dict[str, Any]:
    value = claim.get(name, {})
    if not isinstance(value, dict):
        raise RequestError(f"the service account token's claim kubernetes.io/{name} is not an object", _HINT)
    return value


def _checked(value: Any, what: str, is_valid: Any) -> str:
    """A name from the claims; it becomes part of a path and a URL."""
    if not isinstance(value, str) or not is_valid(value):
        raise RequestError(f"the service account token has no valid {what}", _HINT)
    return value
