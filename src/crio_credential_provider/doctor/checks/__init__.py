"""The checks, in the order in which a person is told: each takes facts and yields what they come to.

No check tells what follows from another's finding: one fault is one finding.
"""

from __future__ import annotations

from collections.abc import Callable

from ...node.facts import Node
from ..finding import Results
from . import config, kubelet, program, registries, runtime

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
    runtime.check_crio,
    runtime.check_auth_dir,
    runtime.check_global_auth_file,
    registries.check_registries,
    registries.check_locations,
    registries.check_insecure,
)
"""Those that need nothing but the node's files and processes."""
