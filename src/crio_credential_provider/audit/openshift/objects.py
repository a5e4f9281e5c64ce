"""What the objects of an OpenShift cluster say of its nodes' registries.conf.

The rendered MachineConfigs count where they are there, since they have the very files; else the mirror sets.
"""

from __future__ import annotations

from collections.abc import Callable

from ...errors import ConfigError, UsageError
from ...runtimes.crio import registries
from ..nodes import NodeClass
from ..workloads import Object
from . import ENFORCING, machineconfigs, mirrorsets
from .machineconfigs import MachineConfigs
from .mirrorsets import MirrorSets

KINDS = (*machineconfigs.KINDS, *mirrorsets.KINDS)


class OpenShift:
    """The objects that were read."""

    def __init__(self) -> None:
        self.machine_configs = MachineConfigs()
        self.mirror_sets = MirrorSets()

    def add(self, found: Object) -> None:
        """Takes an object of one of ``KINDS``."""
        if found["kind"] in mirrorsets.KINDS:
            self.mirror_sets.add(found)
        else:
            self.machine_configs.add(found)

    def classes(self, is_unread: Callable[[tuple[str, ...]], bool]) -> tuple[list[NodeClass], list[str]]:
        """A class for each pool, or one for all nodes; and what a person should know of them.

        Args:
            is_unread: whether any of these kinds may not be read.

        Raises:
            ConfigError, UsageError: the operator refuses it; too little is there.
        """
        sets = self.mirror_sets
        if not self.machine_configs.is_whole and not sets.has(*mirrorsets.SETS) and is_unread(mirrorsets.SETS):
            raise UsageError(
                "neither the MachineConfigs nor the mirror sets may be listed",
                "--print-rbac --machine-configs prints the ClusterRole",
            )
        if self.machine_configs.is_whole or not sets.has("Image", *mirrorsets.SETS):
            return self.machine_configs.classes(), []
        files, notes = sets.make()
        notes.insert(0, f"registries.conf is that of {sets.origin()}")
        try:
            return [NodeClass("", registries.loads(files, registries.MAIN_FILE), {}, ENFORCING)], notes
        except ConfigError as error:
            refused = ConfigError(
                error.message, "correct the objects that it is made of", rule=error.rule, consequence=error.consequence
            )
            return [NodeClass("", refused, {}, ENFORCING)], notes
