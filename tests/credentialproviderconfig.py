"""What a kubelet takes as its CredentialProviderConfig: a strict model, from the documented type and its validation.

No package has a schema for it: the type is no part of the API server's. So the rules of kubelet.config.k8s.io/v1 are
written out here, independently of the program: which keys there are and which are required, for 1.33 and for later
versions. ``faults`` returns all that such a kubelet would not start with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Fault = str

# A good one.
ENTRY = """\
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
  - name: crio-credential-provider
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    matchImages:
      - docker.io
    defaultCacheDuration: 0s
    tokenAttributes:
      serviceAccountTokenAudience: https://kubernetes.default.svc
      cacheType: Token
      requireServiceAccount: true
"""

ROOT = {"apiVersion": str, "kind": str, "providers": list}
PROVIDER = {
    "name": str,
    "matchImages": list,
    "defaultCacheDuration": str,
    "apiVersion": str,
    "args": list,
    "env": list,
    "tokenAttributes": dict,
}
REQUIRED = {"name", "matchImages", "defaultCacheDuration", "apiVersion"}
TOKEN = {
    "serviceAccountTokenAudience": str,
    "cacheType": str,
    "requireServiceAccount": bool,
    "requiredServiceAccountAnnotationKeys": list,
    "optionalServiceAccountAnnotationKeys": list,
}
PROTOCOLS = {f"credentialprovider.kubelet.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1")}
_DURATION = re.compile(r"0|([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+")


def faults(config: Any, minor: int) -> list[Fault]:
    """Faults of a configuration for Kubernetes 1.minor."""
    found = _typed("", config, ROOT)
    if found:
        return found
    if (config.get("apiVersion"), config.get("kind")) != ("kubelet.config.k8s.io/v1", "CredentialProviderConfig"):
        found.append("apiVersion or kind")
    providers = config.get("providers") or []
    if not providers:
        found.append("no providers")
    names = [provider.get("name") for provider in providers]
    if len(names) != len(set(names)):
        found.append("a name twice")
    for provider in providers:
        found += _provider(provider, minor)
    return found


def _provider(provider: Any, minor: int) -> list[Fault]:
    found = _typed("provider", provider, PROVIDER) + [f"no {key}" for key in REQUIRED - provider.keys()]
    if found:
        return found
    if provider["name"] in ("", ".", "..") or set("/ ") & set(provider["name"]):
        found.append("name")
    if provider["apiVersion"] not in PROTOCOLS:
        found.append("protocol")
    if not provider["matchImages"] or not all(isinstance(one, str) and one for one in provider["matchImages"]):
        found.append("matchImages")
    if not _DURATION.fullmatch(provider["defaultCacheDuration"]):
        found.append("defaultCacheDuration")
    if not all(isinstance(one, str) for one in provider.get("args", [])):
        found.append("args")
    for one in provider.get("env", []):
        found += _typed("env", one, {"name": str, "value": str})
    if "tokenAttributes" in provider:
        found += _token(provider["tokenAttributes"], minor)
        if not provider["apiVersion"].endswith("/v1"):
            found.append("tokens need protocol v1")
    return found


def _token(attributes: Any, minor: int) -> list[Fault]:
    found = _typed("tokenAttributes", attributes, TOKEN)
    if found:
        return found
    if not attributes.get("serviceAccountTokenAudience"):
        found.append("no audience")
    if "requireServiceAccount" not in attributes:
        found.append("no requireServiceAccount")
    if minor < 34 and "cacheType" in attributes:
        found.append("cacheType is unknown")
    if minor >= 34 and attributes.get("cacheType") not in ("Token", "ServiceAccount"):
        found.append("cacheType")
    required = attributes.get("requiredServiceAccountAnnotationKeys", [])
    optional = attributes.get("optionalServiceAccountAnnotationKeys", [])
    if required and not attributes.get("requireServiceAccount"):
        found.append("required annotations without a service account")
    if len({*required, *optional}) < len(required) + len(optional):
        found.append("an annotation twice")
    return found


def _typed(where: str, value: Any, keys: Mapping[str, type]) -> list[Fault]:
    """Decoding is strict: no other keys, no other types."""
    if not isinstance(value, dict):
        return [f"{where} is no mapping"]
    unknown = [f"{where}.{key} is unknown" for key in value if key not in keys]
    return unknown + [
        f"{where}.{key} is no {kind.__name__}"
        for key, kind in keys.items()
        if key in value and type(value[key]) is not kind
    ]
