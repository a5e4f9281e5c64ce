"""What is installed on a node, whether it is still as it was installed, and how its kubelet is."""

from __future__ import annotations

import os
import posixpath
from typing import NamedTuple

from ..node.facts import Given, gather
from ..node.kubelet import healthz
from ..node.tree import Tree
from . import health, transaction
from .changes import ABSENT, RolloutError, observe
from .services import Services
from .store import INSTALLED, Store
from .transaction import place


class File(NamedTuple):
    """A path that was installed: ``installed``, ``changed`` or ``missing``."""

    path: str
    role: str
    state: str


class Status(NamedTuple):
    """The state of a node.

    Attributes:
        version: what was installed, "" for nothing.
        files: what was installed.
        interrupted: what a run that was killed was doing, "" for none.
        previous: what ``rollback`` would undo, "" for nothing.
        unit: of the kubelet, "" where none was found; ``unit_state`` as systemd has it.
        runtime: what it pulls with.
        healthz: why the kubelet does not say that it is healthy, "" where it does or does not serve that.
        ready: of the node, "" where the API server does not tell.
    """

    version: str
    files: tuple[File, ...]
    interrupted: str
    previous: str
    unit: str
    unit_state: str
    runtime: str
    healthz: str
    ready: str

    @property
    def is_well(self) -> bool:
        is_whole = all(file.state == "installed" for file in self.files)
        is_up = not self.unit or (self.unit_state == "active" and not self.healthz)
        return is_whole and is_up and not self.interrupted and self.ready in ("", "True")


def find(root: str) -> Status:
    """The state of a node. RolloutError where what was kept cannot be read."""
    tree = Tree(root)
    store = Store(tree)
    record = store.read(os.path.basename(INSTALLED))
    files = []
    for change in transaction.installed(store):
        if change.role != "directory":
            now, _ = observe(place(tree, change.path))
            state = "installed" if now.is_as(change.after) else "missing" if now.kind == ABSENT else "changed"
            files.append(File(change.path, change.role, state))
    run, last = transaction.interrupted(store), transaction.previous(store)
    facts = gather(Given(root=root))
    unit = posixpath.basename(facts.kubelet.unit.file) if facts.kubelet and facts.kubelet.unit else ""
    state = why = ""
    if unit:
        try:
            state = Services(root).unit(unit).state
        except RolloutError as error:
            state = f"not known: {error.message}"
    if facts.kubelet:
        address, port = healthz(tree, facts.kubelet)
        why = health.ask_healthz(address, port) if port else ""
    ready = health.find_ready(facts)
    version = str(record["version"]) if record else ""
    names = (run.verb if run else "", last.verb if last else "")
    return Status(version, tuple(files), *names, unit, state, facts.pulls_with, why, ready.status if ready else "")
