"""Names below containerd's config_path: which one a directory was meant to have, and which are of no registry.

>>> meant_directory("registry-1.docker.io")[0], meant_directory("mirror.corp_5000")[0], meant_directory("quay.io")[0]
('docker.io', 'mirror.corp_5000_', '')
"""

from __future__ import annotations

import difflib
import re

from ..images import reference
from ..node.containerd import HOSTS_FILE, OTHERS, domain_of

_HUB = (
    *("registry-1.docker.io", "index.docker.io", "registry.docker.io", "hub.docker.com", "hub.docker.io"),
    *("docker.com", "dockerhub", "docker"),
)
_DEFAULTS = ("default", "_default_", "__default", "default_", "*", "_all", "*.*")
_COPIES = (".bak", ".old", ".orig", ".save", ".swp", ".example", ".sample", ".disabled", "~", ".rpmnew", ".rpmsave")
"""Endings of what somebody put aside."""


def is_registry(name: str) -> bool:
    """Whether a directory may be for a registry that images name, or for all others."""
    domain = domain_of(name)
    if domain == OTHERS:
        return True
    if name.endswith(_COPIES) or meant_directory(name)[0]:
        return False
    try:
        return reference.parse(f"{domain}/team/image").domain == domain
    except reference.ReferenceSyntaxError:
        return False


def meant_file(names: tuple[str, ...]) -> str:
    """Which of the names is nearly hosts.toml, "" for none."""
    kept = {name.lower(): name for name in names if not name.endswith(_COPIES)}
    close = difflib.get_close_matches(HOSTS_FILE, kept, 1, 0.75)
    return kept[close[0]] if close else ""


def meant_directory(name: str) -> tuple[str, str]:
    """The name that a directory was meant to have, and what is wrong with its own; "" where it may be as it is."""
    if name.endswith(_COPIES):
        return "", ""
    bare = re.sub(r"^https?(?::[_/\\]*|___?)", "", name)
    if bare != name and bare:
        return bare, f"images do not have {name[: len(name) - len(bare)]} in their names: containerd looks for {bare}"
    if name in _HUB:
        return "docker.io", f"images of Docker Hub are named docker.io, whatever they are pulled from, and not {name}"
    if name in _DEFAULTS:
        return "_default", "the directory for all other registries is _default"
    port = re.match(r"(.+?)(?:__|_:|:_|_)(\d{1,5})_?$", name)
    if port and name != f"{port[1]}_{port[2]}_":
        return f"{port[1]}_{port[2]}_", f"a port is written _{port[2]}_ or :{port[2]} in the name of a directory"
    if name != name.lower() and not name.startswith("_"):
        return name.lower(), f"containerd compares upper and lower case: images are named {name.lower()}"
    if "*" in name:
        return "_default", "containerd has no wildcards here: _default is for all registries without a directory"
    return "", ""
