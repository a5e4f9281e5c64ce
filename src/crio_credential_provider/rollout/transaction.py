"""Changes that are written down before the first of them is made, so that a run that was killed anywhere is undone.

A path is always in the state before or after its change, since each is one step. Whatever else is found there was put
there by somebody else since, and stays; so does all that it may need: a kubelet's configuration must not name what is
gone.

    run = begin(store, tree, "install", changes, actions, contents)
    make(...); commit(store)  or  undo(store, tree, run)
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from .. import __version__
from ..node.tree import Tree
from .changes import ABSENT, FILE, Change, Contents, State, beside, dumps_change, loads_change, observe, put
from .services import Actions
from .store import INSTALLED, LAST, TRANSACTION, Store

_AUTH = ("auth", "tmpfiles", "mount", "enabled")
NEEDS = {"flags": ("config", "program"), "config": ("program", "crio", *_AUTH), "crio": _AUTH}
"""Roles whose files need those of others."""


class Transaction(NamedTuple):
    """A rollout that was begun.

    Attributes:
        verb: ``install``, ``uninstall`` or ``rollback``.
        changes: in the order in which they are made.
        actions: what the node's services must be told after them.
        told: whether that was begun.
        version: of the program that began it.
    """

    verb: str
    changes: tuple[Change, ...]
    actions: Actions
    told: bool = False
    version: str = __version__


def place(tree: Tree, path: str) -> str:
    """Where a path of a change lies: no part but the last may be a link."""
    return f"{tree.root}{path}"


def begin(store: Store, tree: Tree, run: Transaction, contents: Contents) -> None:
    """Writes down what is to be done, with all that undoing it takes.

    Raises:
        OSError: nothing was changed.
    """
    for change in run.changes:
        if change.before.kind == FILE:
            store.keep(contents(change.before.digest))
    store.write(TRANSACTION, dumps(run))


def make(tree: Tree, changes: Iterable[Change], contents: Contents) -> None:
    """Makes the changes. OSError names the path that could not be changed."""
    for change in changes:
        path = place(tree, change.path)
        try:
            put(path, change.after, contents)
        except OSError as error:
            raise OSError(error.errno, error.strerror, change.path) from None


def mark_told(store: Store, run: Transaction) -> Transaction:
    """Before the services are told of it."""
    run = run._replace(told=True)
    store.write(TRANSACTION, dumps(run))
    return run


def commit(store: Store) -> None:
    """From here on the changes stay."""
    store.rename(TRANSACTION, LAST)


def tidy(store: Store) -> None:
    """Removes contents that nothing needs any more."""
    wanted: set[str] = set()
    for name in (TRANSACTION, LAST):
        if value := store.read(name):
            wanted.update(change.before.digest for change in loads(value).changes)
    wanted.update(change.before.digest for change in installed(store))
    store.sweep(wanted)


def installed(store: Store) -> list[Change]:
    """What is installed: each path with what was there before the first installation, and what ours is."""
    record = store.read(os.path.basename(INSTALLED)) or {}
    return list(map(loads_change, record.get("changes", ())))


def previous(store: Store) -> Transaction | None:
    """The last rollout that was completed."""
    value = store.read(LAST)
    return loads(value) if value else None


def interrupted(store: Store) -> Transaction | None:
    """A rollout that was neither completed nor undone."""
    value = store.read(TRANSACTION)
    return loads(value) if value else None


def undo(store: Store, tree: Tree, run: Transaction) -> list[str]:
    """Puts everything back in the opposite order; as often as it takes.

    Returns:
        What somebody else has changed since, and so was not put back, a sentence each.

    Raises:
        OSError: the system refuses it; what was written down stays for another try.
    """
    for change in run.changes:
        # What was being written; a directory goes only when it is empty.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(beside(place(tree, change.path)))
    back, left = way_back(tree, run.changes)
    make(tree, back, store.content)
    return left


def way_back(tree: Tree, changes: Sequence[Change]) -> tuple[list[Change], list[str]]:
    """The changes that lead back to what was before others, in their order; and what cannot be led back, and why."""
    back: list[Change] = []
    left: list[str] = []
    needed: dict[str, str] = {}
    stays: list[str] = []
    for change in reversed(changes):
        now, _ = observe(place(tree, change.path))
        if now.is_as(change.before):
            continue
        if not now.is_as(change.after):
            left.append(_foreign(change, now))
            stays.append(change.path)
            needed.update(dict.fromkeys(NEEDS.get(change.role, ()), change.path))
        elif change.role in needed:
            left.append(f"{change.path} stays, since {needed[change.role]} may need it")
            stays.append(change.path)
            needed.update(dict.fromkeys(NEEDS.get(change.role, ()), needed[change.role]))
        elif any(path.startswith(f"{change.path}/") for path in stays):
            # A directory with what stays in it.
            continue
        else:
            back.append(Change(change.path, now, change.before, change.role))
    return back, left


_WHAT = {
    "flags": "remove the flags --image-credential-provider-config and --image-credential-provider-bin-dir from it",
    "config": "remove the provider crio-credential-provider from it",
}


def _foreign(change: Change, now: State) -> str:
    was = "removed" if now.kind == ABSENT else "changed"
    then = _WHAT.get(change.role, "remove it") if change.before.kind != FILE else "compare it with a backup"
    then = _WHAT.get(change.role, then)
    return f"{change.path} was {was} by somebody else after this program wrote it" + (
        "" if now.kind == ABSENT else f"; {then} by hand"
    )


# -- as JSON -----------------------------------------------------------------------------------------------------------


def dumps(run: Transaction) -> dict[str, Any]:
    return {
        **run._asdict(),
        "changes": [dumps_change(change) for change in run.changes],
        "actions": run.actions._asdict(),
    }


def loads(value: dict[str, Any]) -> Transaction:
    changes = tuple(map(loads_change, value["changes"]))
    actions = Actions(**value["actions"])
    return Transaction(value["verb"], changes, actions, value["told"], value["version"])
