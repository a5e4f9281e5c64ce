"""A rollout from beginning to end: written down, made, told to the services, verified; or undone, with the reason.

    apply(plan, "install", root, Options(...), tell)

``recover`` undoes what a run that was killed has left. Both need the store's lock (``Store.held``).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from ..errors import ProviderError
from ..node.facts import Given, gather
from ..node.tree import Tree
from . import health, preflight, transaction
from .changes import ABSENT, DIRECTORY, Change, Contents, RolloutError, observe, put
from .plan import Plan, auth_files
from .preflight import Checked
from .services import Actions, Services, actions_of
from .store import TRANSACTION, Store
from .transaction import Transaction, place

Tell = Callable[[str], None]


class Options(NamedTuple):
    """How a rollout is done.

    Attributes:
        restart: whether services are told of it; else that is left to a person.
        timeout: seconds for the kubelet to be up.
        checks: what doctor has found on the planned node, for the comparison afterwards; None for no doctor.
    """

    restart: bool = True
    timeout: float = 120.0
    checks: Checked | None = None


def apply(plan: Plan, verb: str, root: str, options: Options, tell: Tell) -> None:
    """Makes the changes of a plan.

    Args:
        root: of the node; "" for this machine.
        tell: is told each step; must not raise.

    Raises:
        RolloutError: it did not work, and everything was put back; or what was not.
    """
    tree, services = Tree(root), Services(root)
    store = Store(tree)
    was_ready = options.restart and bool(plan.actions.kubelet) and _is_ready(root)
    run = Transaction(verb, plan.changes, plan.actions)

    def content(digest: str) -> bytes:
        found = plan.contents.get(digest)
        return store.content(digest) if found is None else found

    for change in run.changes:
        if change.after.kind != DIRECTORY and not observe(place(tree, change.path))[0].is_as(change.before):
            raise RolloutError(
                f"{change.path} was changed after the plan was made", "nothing was changed; run it again"
            )
    if options.restart and run.actions:
        services.check()
    try:
        transaction.begin(store, tree, run, content)
    except OSError as error:
        with suppress(OSError):
            store.remove(TRANSACTION)
        raise RolloutError(f"cannot write below {store.place}: {error.strerror}", "nothing was changed") from None
    try:
        before, after = _around_restart(run.changes) if options.restart else (run.changes, ())
        _make(tree, before, content, tell)
        if options.restart and run.actions:
            run = transaction.mark_told(store, run)
            if run.actions.mounted:
                _clear(tree, plan.auth_dir, tell)
            _tell_services(root, services, run.actions, options, was_ready, tell)
        _make(tree, after, content, tell)
        if options.restart:
            _leftovers(tree, run.changes)
            _verify(root, options.checks, tell)
        transaction.commit(store)
    except BaseException as error:
        with _not_now():
            reason = _reason(error)
            last_words = services.last_words(run.actions.kubelet) if run.told and run.actions.kubelet else ""
            tell(f"failed: {reason}")
            left = _undo(root, store, tree, services, run, options.timeout, tell)
        if isinstance(error, KeyboardInterrupt) and not left:
            raise
        # What a service said while it was told is part of the reason already.
        reason += "" if last_words in reason else last_words
        if left:
            raise RolloutError(f"{verb} failed: {reason}\nnot everything was put back: {'; '.join(left)}") from None
        raise RolloutError(f"{verb} failed and everything was put back: {reason}") from None
    with suppress(OSError):
        # Else the next run does so.
        transaction.tidy(store)


def _around_restart(changes: tuple[Change, ...]) -> tuple[tuple[Change, ...], tuple[Change, ...]]:
    """What is changed before the kubelet is restarted, and what after it.

    On the way back its configuration comes first: until the restart it runs the program with our arguments, which an
    earlier program may not know.
    """
    roles = [change.role for change in changes]
    is_back = "program" in roles and {"config", "flags"} & {*roles[: roles.index("program")]}
    goes = any(change.role == "program" and change.after.kind == ABSENT for change in changes)
    place = roles.index("program") if is_back or goes else len(changes)
    return changes[:place], changes[place:]


def _make(tree: Tree, changes: tuple[Change, ...], content: Contents, tell: Tell) -> None:
    transaction.make(tree, changes, content)
    for change in changes:
        if change.role not in ("directory", "record"):
            tell(f"{'removed' if change.after.kind == ABSENT else 'written'}: {change.path}")


def _is_ready(root: str) -> bool:
    found = health.find_ready(gather(Given(root=root)))
    return found is not None and found.status == "True"


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or 'the system'}: {error.strerror or type(error).__name__}"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return str(error) if isinstance(error, ProviderError) else f"{type(error).__name__}: {error}"


@contextmanager
def _not_now() -> Iterator[None]:
    """Whoever interrupts while everything is put back has to wait for it."""
    ending = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    try:
        yield
    finally:
        # One that came meanwhile would take the place of the reason. The process ends soon, or waits for a signal.
        if not signal.sigpending() & ending:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _tell_services(
    root: str, services: Services, actions: Actions, options: Options, was_ready: bool, tell: Tell
) -> None:
    since = time.time()
    for command in actions.commands():
        tell(f"systemctl {' '.join(command)}")
        since = time.time()
        services.tell(command)
    _wait_for_kubelet(root, services, actions, since, options, was_ready, tell)


def _wait_for_kubelet(
    root: str, services: Services, actions: Actions, since: float, options: Options, was_ready: bool, tell: Tell
) -> None:
    if actions.kubelet:
        facts = gather(Given(root=root, next_start=True))
        limit = time.monotonic() + options.timeout
        why = health.wait(facts, services, actions.kubelet, since, limit, ready=was_ready, tell=tell)
        if why:
            raise RolloutError(f"the kubelet is not healthy: {why}", "if it only needs longer: --timeout 10m")
        tell(f"the kubelet is healthy{' and its node Ready' if was_ready else ''}")


def _clear(tree: Tree, directory: str, tell: Tell) -> None:
    """Removes auth files over which a tmpfs is mounted: no pull can take them then, and they hold credentials."""
    for path in auth_files(tree, directory):
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(tree.real(directory), os.path.basename(path)))
            tell(f"removed: {path}")


def _leftovers(tree: Tree, changes: tuple[Change, ...]) -> None:
    """Directories that something was mounted on when they were to go."""
    for change in changes:
        if change.after.kind == ABSENT and change.before.kind == DIRECTORY:
            put(place(tree, change.path), change.after, lambda _: b"")


def _verify(root: str, accepted: Checked | None, tell: Tell) -> None:
    if accepted is None:
        return
    found = preflight.verify(root, accepted)
    if found.stops:
        first = found.stops[0]
        where = first.evidence[0]
        raise RolloutError(
            f"doctor finds {first.title} ({first.code}): {where.file} {where.text}".rstrip(), first.remedy
        )
    tell("doctor finds no new error")


# -- the way back ------------------------------------------------------------------------------------------------------


def _undo(
    root: str, store: Store, tree: Tree, services: Services, run: Transaction, timeout: float, tell: Tell
) -> list[str]:
    """Puts back what a transaction has changed, and has the services take notice; what could not be put back."""
    try:
        left = transaction.undo(store, tree, run)
    except (OSError, ProviderError) as error:
        return [f"{_reason(error)}; run install again to try once more"]
    for change in run.changes:
        if change.role not in ("directory", "record"):
            tell(f"put back: {change.path}")
    if run.told:
        back = [Change(change.path, change.after, change.before, change.role) for change in run.changes]
        actions = actions_of(back, run.actions.kubelet)
        left += _tell_of_way_back(root, services, actions, timeout, tell)
        _leftovers(tree, tuple(back))
    store.remove(TRANSACTION)
    with suppress(OSError):
        transaction.tidy(store)
    return left


def _tell_of_way_back(root: str, services: Services, actions: Actions, timeout: float, tell: Tell) -> list[str]:
    """As ``_tell_services``, but one that fails keeps no other from being told."""
    left: list[str] = []
    for command in actions.commands():
        try:
            tell(f"systemctl {' '.join(command)}")
            services.tell(command)
        except ProviderError as error:
            left.append(f"the files are back, but {error}")
    # Without systemctl all fail for one reason.
    left = list(dict.fromkeys(left))
    if not left:
        try:
            _wait_for_kubelet(root, services, actions, 0, Options(timeout=timeout), False, tell)
        except ProviderError as error:
            left.append(f"the files are back, but {error}")
    return left


def recover(root: str, tell: Tell, timeout: float, *, restart: bool = True) -> None:
    """Undoes a rollout that was killed.

    Raises:
        RolloutError: not all of it could be undone.
    """
    tree = Tree(root)
    store = Store(tree)
    run = transaction.interrupted(store)
    if run is None:
        transaction.tidy(store)
        return
    tell(f"the last {run.verb} was interrupted; it is undone first")
    run = run if restart else run._replace(told=False)
    left = _undo(root, store, tree, Services(root), run, timeout, tell)
    if left:
        raise RolloutError(f"not everything of the interrupted {run.verb} was put back: {'; '.join(left)}")
