"""What stands in for a service account token where only its claims are read."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..kubernetes.serviceaccount import ServiceAccount


def token(account: ServiceAccount) -> str:
    """A token without a signature: it is never sent anywhere."""
    bound: dict[str, Any] = {"namespace": account.namespace, "serviceaccount": {"name": account.name}}
    if account.pod:
        bound["pod"] = {"name": account.pod, "uid": account.pod_uid}
    parts: tuple[dict[str, Any], ...] = ({"alg": "none"}, {"kubernetes.io": bound}, {})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
