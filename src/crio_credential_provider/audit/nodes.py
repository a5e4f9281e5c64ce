"""Classes of nodes: whose registries.conf, or whose files of containerd, count for a pull.

A class is named after a node role (``worker``) or a runtime (``containerd``), or is a label selector
(``pool=gpu,zone=a``); the first that takes a node is the node's. One without a name takes every node. None takes a node
of which the cluster says that it has the other runtime.

>>> parse("worker=worker.conf")
('worker', 'worker.conf')
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..errors import ConfigError
from ..platform.parsecache import ParseCache
from ..runtimes.containerd import config
from ..runtimes.containerd.config import Configuration as Containerd
from ..runtimes.crio import registries
from ..runtimes.crio.registries import Configuration, SearchPath
from . import copies
from .workloads import Where

_ROLE = "node-role.kubernetes.io/"
RUNTIME = "status.nodeInfo.containerRuntimeVersion"
"""Among the labels of a node: its runtime, ``containerd`` or ``cri-o``, where the cluster tells it."""

RUNTIMES = ("containerd", "cri-o")
"""As the cluster calls them."""

Config = Configuration | Containerd | ConfigError


class NodeClass(NamedTuple):
    """A class of nodes.

    Attributes:
        name: as it was given, "" for the one that takes every node.
        config: its registries.conf, or the files of its containerd, or why the runtime refuses them.
        labels: of its nodes, label -> value; None where the label need only be there.
        enforcing: whether CRI-O refuses a short name that may mean several images, as its default is.
    """

    name: str
    config: Config
    labels: dict[str, str | None]
    enforcing: bool = True

    def takes(self, labels: dict[str, str]) -> bool:
        """Whether a node with these labels is of the class."""
        other = {Configuration: "containerd", Containerd: "cri-o"}.get(type(self.config))
        if other is not None and labels.get(RUNTIME) == other:
            return False
        return all(label in labels and value in (None, labels[label]) for label, value in self.labels.items())

    def may_take(self, selector: dict[str, str]) -> bool:
        """Whether a node that such a node selector takes may be of the class."""
        return all(value is None or selector.get(label, value) == value for label, value in self.labels.items())


def parse(text: str) -> tuple[str, str]:
    """CLASS and FILE of what ``--registries-conf`` is given."""
    name, _, file = text.rpartition("=")
    return name, file


def _labels(name: str) -> dict[str, str | None]:
    """The labels that a class is named after."""
    found: dict[str, str | None] = {}
    for term in filter(None, name.split(",")):
        label, equals, value = term.partition("=")
        if term in RUNTIMES:
            label, equals, value = RUNTIME, "=", term
        found[label if equals or "/" in label else _ROLE + label] = value if equals else None
    return found


def load(name: str, file: str, drop_ins: str = "") -> NodeClass:
    """A class with the configuration in a node's file, and in a directory with its drop-ins, "" for none; or in what
    was copied of a node with containerd."""
    try:
        if copies.is_containerd(file):
            return NodeClass(name, copies.load(file), _labels(name))
        found = registries.search_files(file, drop_ins).drop_ins if drop_ins else ()
        return NodeClass(name, registries.load(SearchPath(file, True, found)), _labels(name))
    except ConfigError as error:
        return NodeClass(name, error, _labels(name))


def load_own(file: str, drop_ins: str) -> NodeClass:
    """The one class of a cluster whose nodes are like this machine; files as for the plugin."""
    try:
        return NodeClass("", registries.load(registries.search_files(file, drop_ins)), {})
    except ConfigError as error:
        return NodeClass("", error, {})


def load_own_containerd(file: str) -> NodeClass:
    """The same of nodes with containerd."""
    try:
        return NodeClass("", config.load(file, "", ParseCache("", "containerd")), {})
    except ConfigError as error:
        return NodeClass("", error, {})


def find_classes(classes: Iterable[NodeClass], where: Where, nodes: dict[str, dict[str, str]]) -> list[NodeClass]:
    """The classes of nodes on which a pod is or may come to be; none where its node is of no class, or not known."""
    if where.node:
        labels = nodes.get(where.node, {})
        return [found for found in classes if found.takes(labels)][:1]
    selector = dict(where.selector)
    surely = [found for found in classes if found.name and found.takes(selector)]
    return surely[:1] or [found for found in classes if found.may_take(selector)]
