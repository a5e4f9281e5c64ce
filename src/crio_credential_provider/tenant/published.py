"""How the nodes are configured, as far as the cluster tells: registries.conf and the plugin's settings, laid out as files.

The platform's team publishes them in a ConfigMap that every user may read. Its key ``registries.conf`` is that file,
``credential-provider-config.yaml`` the kubelet's CredentialProviderConfig, any other ``*.conf`` a drop-in of
registries.conf.d.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from ..audit.workloads import member
from ..errors import ClusterError, ConfigError
from .visible import Api

NAMESPACE, NAME = "kube-public", "crio-credential-provider-registries"
MAIN, CONFIG = "registries.conf", "credential-provider-config.yaml"
DIRECTORY = f"{NAMESPACE}/{NAME}"
"""Of the files: what is said of a line in one names the ConfigMap."""
ORIGIN = f"ConfigMap {DIRECTORY}"
_NO_DROP_INS = "registries.conf.d"


class Published(NamedTuple):
    """Paths of what the cluster tells; `config` is "" where it does not tell the plugin's settings."""

    main: str
    drop_ins: str
    config: str


def write(api: Api, directory: str) -> Published | str:
    """Writes the published files below a directory; returns their paths in it, or why there are none.

    Raises:
        ClusterError: the API server does not answer.
    """
    try:
        found = api.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/{NAME}")
    except ClusterError as error:
        if error.status not in (403, 404):
            raise
        return "not found" if error.status == 404 else "forbidden for this user"
    data = {key: text for key, text in member(found, "data").items() if isinstance(text, str)}
    if MAIN not in data:
        return f"it has no key {MAIN}"
    drop_ins = f"{DIRECTORY}/{_NO_DROP_INS}"
    os.makedirs(os.path.join(directory, drop_ins))
    for key, text in data.items():
        # The API server takes no other characters for a key than a file's name may have.
        path = f"{DIRECTORY}/{key}" if key in (MAIN, CONFIG) else f"{drop_ins}/{key}" if key.endswith(".conf") else ""
        if path and "/" not in key:
            with open(os.path.join(directory, path), "w", encoding="utf-8", errors="replace") as file:
                file.write(text)
    return Published(f"{DIRECTORY}/{MAIN}", drop_ins, f"{DIRECTORY}/{CONFIG}" if CONFIG in data else "")


def no_drop_ins(directory: str) -> str:
    """An empty directory: those of this machine are not the node's."""
    os.makedirs(os.path.join(directory, _NO_DROP_INS), exist_ok=True)
    return _NO_DROP_INS


def unknown(why: str) -> ConfigError:
    """That nobody told the nodes' registries.conf, and how to get it."""
    return ConfigError(
        f"the nodes' registries.conf is not known: no --registries-conf, and ConfigMap {DIRECTORY}: {why}",
        "ask the platform team for the file and give it with --registries-conf FILE, or ask them to publish it as in "
        "docs/how-to/kubectl-plugin.md; with rights on nodes: kubectl debug node/NODE -it --image=busybox -- cat "
        "/host/etc/containers/registries.conf",
    )
