"""The audit itself: takes objects one by one, in any order, then decides every distinct pull.

Of pods and templates it keeps only what decides their pulls, with counts and the first few names, so that memory grows
with distinct pulls, not with pods.

    auditor = Auditor(settings, classes)
    for found in lists.load("cluster.json"):
        auditor.add(found)
    audit = auditor.finish("cluster.json")
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Callable, Iterable

from ..pull import decision
from ..settings import Settings
from . import collected, workloads
from .collected import Collected
from .decide import Decided, Decider
from .nodes import NodeClass, find_classes
from .openshift import objects as openshift
from .openshift.objects import OpenShift
from .result import (
    ANONYMOUS,
    MOST_HOLDERS,
    NO_MIRROR,
    NOT_CHECKED,
    OUTCOMES,
    REASONS,
    UNCHECKED,
    Audit,
    Count,
    Holder,
    Pull,
)
from .workloads import ANYWHERE, Object, Want, labels, member, text

_NO_CLASS = Decided(NOT_CHECKED, "no-node-class", REASONS["no-node-class"].title, REASONS["no-node-class"].remedy)


class _Tally:
    """How many pods and templates have a want, and the first of their names."""

    __slots__ = ("holders", "pods", "templates")

    def __init__(self) -> None:
        self.pods = 0
        self.templates = 0
        self.holders: list[Holder] = []

    def add(self, pods: int, templates: int, holders: Iterable[Holder]) -> None:
        self.pods += pods
        self.templates += templates
        for holder in holders:
            at = bisect.bisect_left(self.holders, holder)
            if at < MOST_HOLDERS and self.holders[at : at + 1] != [holder]:
                self.holders.insert(at, holder)
                del self.holders[MOST_HOLDERS:]


class Auditor:
    """One audit.

    Args:
        settings: of the plugin.
        classes: of nodes; None where the objects of OpenShift tell them.
        namespaces: those whose pods and templates count; none for all.
        is_selected: takes the labels of a pod or template.
        has_tokens: whether the kubelet sends the plugin a token.

    Attributes:
        collected: what was read of the cluster.
        openshift: its objects; None where they are not asked for.
        is_uniform: whether all nodes have the same registries.conf, so that they need not be known.
        notes: what the person should know.
    """

    def __init__(
        self,
        settings: Settings,
        classes: list[NodeClass] | None,
        namespaces: Iterable[str] = (),
        is_selected: Callable[[dict[str, str]], bool] = lambda labels: True,
        *,
        has_tokens: bool = True,
    ) -> None:
        self.collected = Collected()
        self.openshift = OpenShift() if classes is None else None
        self.notes: list[str] = []
        self._settings = settings
        self._classes = classes
        self.is_uniform = classes is not None and not any(found.name for found in classes)
        self._namespaces = frozenset(namespaces)
        self._is_selected = is_selected
        self._has_tokens = has_tokens
        self._wants: dict[Want, _Tally] = {}
        self._unreadable = _Tally()

    def add(self, found: Object) -> None:
        """Takes an object of any kind; most kinds say nothing of pulls."""
        kind = found.get("kind")
        if kind in workloads.KINDS:
            self._count(kind)
            self._add_workload(found)
        elif kind in collected.KINDS:
            self._count(kind)
            self.collected.add(found)
        elif kind in openshift.KINDS and self.openshift is not None:
            self._count(kind)
            self.openshift.add(found)

    def _count(self, kind: str) -> None:
        self.collected.read[kind] = self.collected.read.get(kind, 0) + 1

    def _add_workload(self, found: Object) -> None:
        metadata = member(found, "metadata")
        if self._namespaces and (text(metadata, "namespace") or "default") not in self._namespaces:
            return
        if not self._is_selected(labels(metadata)):
            return
        is_pod = found["kind"] == workloads.POD
        read = False
        for want, holder in workloads.find_wants(found):
            read = True
            where = ANYWHERE if self.is_uniform else self.collected.like(want.where)
            want = want._replace(where=where)
            tally = self._wants.get(want)
            if tally is None:
                tally = self._wants[want] = _Tally()
            tally.add(int(is_pod), int(not is_pod), [holder])
        if not read and not workloads.pulls_nothing(found):
            self._unreadable.add(int(is_pod), int(not is_pod), [Holder(found["kind"], text(metadata, "name"))])

    @property
    def has_unreadable(self) -> bool:
        """Whether a pod or template has no containers that can be read."""
        return bool(self._unreadable.pods + self._unreadable.templates)

    def finish(self, origin: str, tell: Callable[[int, int], None] = lambda done, all: None) -> Audit:
        """Decides.

        Args:
            origin: where the objects come from, for people.
            tell: is told of the progress.

        Raises:
            ConfigError, UsageError: the objects of OpenShift do not tell the classes of nodes.
        """
        all_classes = self._classes or []
        if self.openshift is not None:
            all_classes, notes = self.openshift.classes(self.collected.lacks_any)
            self.notes += notes
        decider = Decider(self.collected, self._settings, self._has_tokens)
        merged: dict[tuple[str, str, str, str, int], tuple[Decided, _Tally]] = {}
        for number, (want, tally) in enumerate(self._wants.items()):
            if not number % 1000:
                tell(number, len(self._wants))
            classes = find_classes(all_classes, want.where, self.collected.nodes)
            decisions = [(found.name, decider.decide(want, found)) for found in classes]
            for name, decided in decisions or [("", _NO_CLASS)]:
                # Equal decisions are one object.
                key = want.namespace, want.account, want.image, name, id(decided)
                merged.setdefault(key, (decided, _Tally()))[1].add(tally.pods, tally.templates, tally.holders)
        self._wants.clear()
        pulls = [_pull(*key[:4], *found) for key, found in merged.items()]
        pulls.sort(key=lambda pull: (pull.namespace, pull.image, pull.service_account, pull.node_class, pull[4:]))
        return Audit(
            origin,
            self._settings.secrets_from,
            len({pull.namespace for pull in pulls}),
            dict(sorted(self.collected.read.items())),
            count(pulls),
            pulls,
            (*self.notes, *self._further_notes(pulls, all_classes)),
        )

    def _further_notes(self, pulls: list[Pull], classes: list[NodeClass]) -> Iterable[str]:
        is_mirrored = any(source.wanted for pull in pulls for source in pull.sources)
        if not is_mirrored and any(pull.outcome == NO_MIRROR for pull in pulls):
            yield "no pull asks a mirror: check that registries.conf, with its drop-ins, is that of a node with mirrors"
        is_narrow = self._namespaces and not self.collected.are_from_files
        if is_narrow and any(pull.outcome == ANONYMOUS for pull in pulls):
            yield (
                "anonymous pulls may fail: whether another namespace has a credential for their mirrors was not read; "
                "--live asks the mirrors, --fail-on anonymous counts such pulls"
            )
        for one in classes:
            if self.collected.nodes and not any(map(one.takes, self.collected.nodes.values())):
                yield f"no node is of class {one.name}"
        yield from decision.global_config(self._settings.global_auth_file)[1]
        if not os.path.exists(self._settings.global_auth_file):
            yield (
                "no auth file of a node was read: what depends on the node's credentials is not known "
                "(--global-auth-file)"
            )
        if number := self._unreadable.pods + self._unreadable.templates:
            names = ", ".join(f"{holder.kind} {holder.name}" for holder in self._unreadable.holders)
            more = "" if number == len(self._unreadable.holders) else ", ..."
            yield (
                f"{number} {'object has' if number == 1 else 'objects have'} no containers that can be read: "
                f"{names}{more}"
            )
        for code, said in UNCHECKED.items():
            found = sum(1 for pull in pulls if code in pull.unchecked)
            if found:
                yield f"for {found} {'pull' if found == 1 else 'pulls'}, {said}"


def _pull(namespace: str, account: str, image: str, name: str, decided: Decided, tally: _Tally) -> Pull:
    return Pull(
        namespace=namespace,
        service_account=account,
        image=image,
        node_class=name,
        outcome=decided.outcome,
        reason=decided.reason,
        text=decided.text,
        remedy=decided.remedy,
        sources=decided.sources,
        unchecked=decided.unchecked,
        pods=tally.pods,
        templates=tally.templates,
        holders=tuple(tally.holders),
    )


def count(pulls: Iterable[Pull]) -> dict[str, Count]:
    """Outcome -> count."""
    counts = dict.fromkeys(OUTCOMES, Count(0, 0, 0))
    for pull in pulls:
        one = counts[pull.outcome]
        counts[pull.outcome] = Count(one.pulls + 1, one.pods + pull.pods, one.templates + pull.templates)
    return counts
