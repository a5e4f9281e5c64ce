"""Classes of nodes: whose registries.conf counts for a pull.

A class is named after a node role (``worker``), or is a label selector (``pool=gpu,zone=a``); the first that takes a
node is the node's. One without a name takes every node.

>>> parse("worker=worker.conf")
('worker', 'worker.conf')
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..errors import ConfigError
from ..runtimes.crio import registries
from ..runtimes.crio.registries import Configuration, SearchPath
from .workloads import Where

_ROLE = "node-role.kubernetes.io/"


class NodeClass(NamedTuple):
    """A class of nodes.

    Attributes:
        name: as it was given, "" for the one that takes every node.
        config: its registries.conf, or why CRI-O refuses it.
        labels: of its nodes, label -> value; None where the label need only be there.
        enforcing: whether CRI-O refuses a short name that may mean several images, as its default is.
    """

    name: str
    config: Configuration | ConfigError
    labels: dict[str, str | None]
    enforcing: bool = True

    def takes(self, labels: dict[str, str]) -> bool:
        """Whether a node with these labels is of the class."""
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
        found[label if equals or "/" in label else _ROLE + label] = value if equals else None
    return found


def load(name: str, file: str, drop_ins: str = "") -> NodeClass:
    """A class with the configuration in a node's file, and in a directory with its drop-ins, "" for none."""
    try:
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


def find_classes(classes: Iterable[NodeClass], where: Where, nodes: dict[str, dict[str, str]]) -> list[NodeClass]:
    """The classes of nodes on which a pod is or may come to be; none where its node is of no class, or not known."""
    if where.node:
        labels = nodes.get(where.node, {})
        return [found for found in classes if found.takes(labels)][:1]
    selector = dict(where.selector)
    surely = [found for found in classes if found.name and found.takes(selector)]
    return surely[:1] or [found for found in classes if found.may_take(selector)]
