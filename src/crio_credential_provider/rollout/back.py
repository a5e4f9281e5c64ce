"""The plans that lead back: all that was installed taken away, or the last rollout undone.

Of each path that nobody else has changed since; what cannot be led back is told, and with it stays what it needs.
"""

from __future__ import annotations

import json
import posixpath
from typing import NamedTuple

from ..doctor import Given, examine
from ..doctor.finding import Finding
from ..node.facts import gather
from ..node.tree import Tree
from . import transaction
from .changes import FILE, Change, loads_change, observe
from .plan import Plan, recorded
from .services import Actions, actions_of
from .store import Store
from .transaction import place

_NAMES_WHAT_IS_GONE = ("plugin-missing", "plugin-other-name", "config-missing", "kubelet-without-bin-dir")


class Back(NamedTuple):
    """A plan, and what it leaves, a sentence each."""

    plan: Plan
    left: tuple[str, ...]


def uninstall(root: str) -> Back:
    """Takes away all that was installed."""
    store = Store(Tree(root))
    return _back(root, store, transaction.installed(store), [])


def rollback(root: str) -> Back:
    """Undoes the last rollout that was completed."""
    store = Store(Tree(root))
    run = transaction.previous(store)
    changes = [change for change in run.changes if change.role != "record"] if run else []
    then: list[Change] = []
    for change in run.changes if run else ():
        if change.role == "record" and change.before.kind == FILE:
            then = list(map(loads_change, json.loads(store.content(change.before.digest))["changes"]))
    return _back(root, store, changes, then)


def _back(root: str, store: Store, changes: list[Change], then: list[Change]) -> Back:
    """``then``: what is installed when it is done."""
    tree = Tree(root)
    kubelet = gather(Given(root=root)).kubelet
    unit = posixpath.basename(kubelet.unit.file) if kubelet and kubelet.unit else ""
    back, left = transaction.way_back(tree, changes)
    if not back:
        return Back(Plan(unit, (), {}, Actions()), tuple(left))
    contents: dict[str, bytes] = {}
    for change in back:
        _, contents[change.before.digest] = observe(place(tree, change.path))
        if change.after.kind == FILE:
            contents[change.after.digest] = store.content(change.after.digest)
    gone = {change.path for change in back}
    then = [*(change for change in transaction.installed(store) if left and change.path not in gone), *then]
    plan = Plan(unit, tuple(back), contents, actions_of(back, unit))
    return Back(recorded(plan, tree, list({change.path: change for change in then}.values())), tuple(left))


def check(plan: Plan, root: str) -> tuple[Finding, ...]:
    """What a kubelet would miss afterwards that it does not miss now."""
    given = Given(root=root, live=False)
    found = [finding for finding in examine(given, plan.tree(root)).findings if finding.code in _NAMES_WHAT_IS_GONE]
    before = {finding.code for finding in examine(given).findings} if found else set()
    return tuple(finding for finding in found if finding.code not in before)
