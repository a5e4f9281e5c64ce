"""The kubelet's CredentialProviderConfig: its type, from which version on what is in it, and what a value may be.

From kubelet.config.k8s.io/v1 and its validation (pkg/credentialprovider/plugin/config.go). Decoding is strict: an
unknown key keeps the kubelet from starting. Reads no file: ``node.providerconfig`` finds what a kubelet refuses in one,
``manifests`` writes and merges them.

>>> duration("1h30m"), is_name("a/b"), is_config("kubelet.config.k8s.io/v1beta1")
(5400.0, False, True)
"""

from __future__ import annotations

import re
from typing import Any

from . import credentialprovider

NAME = "crio-credential-provider"
"""Of our entry: that of the program in the kubelet's directory."""

KIND = "CredentialProviderConfig"
GROUP = "kubelet.config.k8s.io"
API_VERSION = f"{GROUP}/v1"
"""The only version with ``tokenAttributes``."""
OLDER_VERSIONS = ("v1beta1", "v1alpha1")
PROTOCOL = credentialprovider.API_VERSION
PROTOCOLS = (PROTOCOL, *(f"{PROTOCOL.partition('/')[0]}/{version}" for version in OLDER_VERSIONS))
"""Of an entry's ``apiVersion``; tokens are only passed with the first."""

ROOT_KEYS = ("apiVersion", "kind", "providers")
ENTRY_KEYS = ("name", "matchImages", "defaultCacheDuration", "apiVersion", "args", "env", "tokenAttributes")
VARIABLE_KEYS = ("name", "value")
ANNOTATION_KEYS = ("requiredServiceAccountAnnotationKeys", "optionalServiceAccountAnnotationKeys")
TOKEN_KEYS = ("serviceAccountTokenAudience", "cacheType", "requireServiceAccount", *ANNOTATION_KEYS)
CACHE_TYPES = ("Token", "ServiceAccount")

FIRST = (1, 33)
"""The first version whose kubelet can hand over a token, behind a feature gate that is off."""
FEATURE_GATE = "KubeletServiceAccountTokenForCredentialProviders"
CACHE_TYPE_SINCE = (1, 34)
"""From here on the gate is on and ``cacheType`` required; before, the kubelet refuses the key as unknown."""
DIRECTORY_SINCE = (1, 34)
"""From here on ``--image-credential-provider-config`` may name a directory."""
SUFFIXES = (".json", ".yaml", ".yml")
"""Of the files that count in a directory."""


def is_config(api_version: Any) -> bool:
    """Whether an ``apiVersion`` is one of this type's."""
    return isinstance(api_version, str) and api_version in (API_VERSION, *(f"{GROUP}/{v}" for v in OLDER_VERSIONS))


def is_environment(env: Any) -> bool:
    """Whether a value is what ``env`` takes."""
    return isinstance(env, list) and all(
        isinstance(one, dict)
        and one.keys() <= set(VARIABLE_KEYS)
        and all(isinstance(text, str) for text in one.values())
        for one in env
    )


def is_name(text: str) -> bool:
    """Whether the kubelet takes a text for a provider's name."""
    return bool(text) and "/" not in text and " " not in text and text not in (".", "..")


def argument_text(item: Any) -> str:
    """What an entry of ``args`` that is not a string in YAML was meant to be; "" where that cannot be told."""
    if isinstance(item, bool):
        return str(item).lower()
    if isinstance(item, (str, int, float)):
        return str(item)
    (pair,) = item.items() if isinstance(item, dict) and len(item) == 1 else ((None, None),)
    is_flag = isinstance(pair[0], str) and isinstance(pair[1], (str, int, float))
    return f"{pair[0]}={argument_text(pair[1])}" if is_flag else ""


_DURATION = re.compile(r"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+$")
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration(value: Any) -> float | None:
    """Seconds of a duration as Go writes them: ``10m``, ``1h30m``, ``0s``, ``0``; None for what is not valid."""
    if not isinstance(value, str):
        return None
    if value.lstrip("+-") == "0":
        return 0.0
    if not _DURATION.match(value):
        return None
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(value))
    return -seconds if value.startswith("-") else seconds


_ANNOTATION_KEY = re.compile(
    r"(?:[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*/)?[a-z0-9](?:[-a-z0-9_.]{0,61}[a-z0-9])?$"
)


def is_annotation_key(text: str) -> bool:
    """Whether the kubelet takes a text for the key of an annotation."""
    return bool(_ANNOTATION_KEY.match(text.lower()))
