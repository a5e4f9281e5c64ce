"""The checks, in the order in which a person is told: each takes facts and yields what they come to.

No check tells what follows from another's finding: one fault is one finding.
"""

from __future__ import annotations

from collections.abc import Callable

from ...node.facts import Node
from ...settings import CONTAINERD
from ..finding import Results
from . import config, containerd, hosts, kubelet, program, registries, runtime

Check = Callable[[Node], Results]

CHECKS: tuple[Check, ...] = (
    kubelet.check_kubelet,
    kubelet.check_version,
    kubelet.check_runtime,
    program.check_program,
    program.check_cryptography,
    config.check_config,
    config.check_entry,
    config.check_match_images,
    runtime.check_cache_dir,
    containerd.check_flags,
)
"""Those of every node that need nothing but its files and processes."""

_OF_CRIO: tuple[Check, ...] = (
    runtime.check_crio,
    runtime.check_auth_dir,
    runtime.check_global_auth_file,
    registries.check_registries,
    registries.check_locations,
    registries.check_insecure,
)

_OF_CONTAINERD: tuple[Check, ...] = (
    containerd.check_containerd,
    containerd.check_config_file,
    containerd.check_config_path,
    hosts.check_hosts,
)


def checks_for(node: Node) -> tuple[Check, ...]:
    """The checks of a node with its runtime."""
    if kubelet.is_other_runtime(node.endpoint):
        return CHECKS
    return (*CHECKS, *(_OF_CONTAINERD if node.pulls_with == CONTAINERD else _OF_CRIO))
