"""What install, uninstall and rollback have in common: shown, then carried out under the lock."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable
from typing import NamedTuple

from ... import settings
from ...errors import ProviderError, UsageError
from ...node.tree import Tree, Unreadable
from ...rollout import apply, transaction
from ...rollout.changes import RolloutError
from ...rollout.plan import Plan
from ...rollout.preflight import Checked
from ...rollout.store import Store
from ..output import (
    FAULT,
    OK,
    Parser,
    Unwritable,
    add_output,
    complain,
    note,
    printable,
    write_line,
    write_report,
)
from . import staying, telling
from .host import add_host, root_of

_TIMEOUT = "120s"
_TIMEOUT_BOUNDS = (1.0, 3600.0)


class Prepared(NamedTuple):
    """What a command has found out before anything is touched.

    Attributes:
        plan: what is to be done.
        checked: doctor on the planned node, for an installation.
        refused: why it must not be done, "" where it may.
        left: what cannot be done, a sentence each; the rest is.
        nothing: what to say where there is nothing to do.
    """

    plan: Plan
    checked: Checked | None = None
    refused: str = ""
    left: tuple[str, ...] = ()
    nothing: str = "nothing to do"


def add_flags(made: Parser, *, verb: str) -> None:
    """The flags of a rollout."""
    made.add_argument("--apply", action="store_true", help=f"{verb}; without this only the plan is printed")
    made.add_argument("--no-restart", action="store_true", help="write files only; restart the services yourself")
    add_host(made)
    made.add_argument(
        "--timeout", metavar="DURATION", default=_TIMEOUT, help=f"for the kubelet to be healthy (default {_TIMEOUT})"
    )
    staying.add_flags(made)
    add_output(made)


def carry_out(verb: str, given: argparse.Namespace, prepare: Callable[[str], Prepared]) -> int:
    """Serves a command.

    Args:
        prepare: makes the plan for a root.
    """
    _timeout(given.timeout)
    staying.check(given)
    if not given.stay:
        return _carry_out(verb, given, prepare, lambda outcome, message: None)
    root = root_of(given)

    def needs_turn() -> bool:
        return bool(transaction.interrupted(Store(Tree(root))) or prepare(root).plan.changes)

    return staying.serve(verb, given, needs_turn, lambda over: _carry_out(verb, given, prepare, over))


def _carry_out(
    verb: str, given: argparse.Namespace, prepare: Callable[[str], Prepared], over: Callable[[str, str], None]
) -> int:
    timeout = _timeout(given.timeout)
    root = root_of(given)
    # Nobody but root writes to what is made here, whatever the one who started this has.
    os.umask(0o022)
    steps: list[str] = []
    is_json = given.output == "json"

    def tell(text: str) -> None:
        steps.append(text)
        if not is_json:
            # Whoever reads may be gone: what was begun is brought to its end all the same.
            with contextlib.suppress(Unwritable):
                write_line(printable(text))

    found: Prepared | None = None

    def report(outcome: str, message: str = "") -> None:
        over(outcome, message)
        if is_json:
            plan, checked = (found.plan, found.checked) if found else (None, None)
            write_report(telling.as_json(plan, checked, steps, outcome, message))
        if message:
            first, *more = message.split("\n")
            complain(verb, first)
            for line in more:
                note(line)

    def prepared() -> Prepared:
        nonlocal found
        try:
            found = prepare(root)
        except Unreadable as error:
            raise RolloutError(str(error), "run this as root") from None
        if not is_json:
            telling.write_plan(found.plan, restart=not given.no_restart)
            if found.checked:
                telling.write_checks(found.checked)
        return found

    try:
        if not given.apply:
            return _planned(prepared(), root, report, tell, verb)
        if os.geteuid() != 0:
            raise RolloutError("only root can do that", "run this as root")
        with Store(Tree(root)).held():
            apply.recover(root, tell, timeout, restart=not given.no_restart)
            return _applied(prepared(), verb, root, given, timeout, report, tell)
    except (UsageError, Unwritable):
        raise
    except ProviderError as error:
        report("failed", str(error))
        return FAULT
    except OSError as error:
        hint = "; run this as root" if isinstance(error, PermissionError) else ""
        report("failed", f"{error.filename or ''}: {error.strerror or type(error).__name__}{hint}".removeprefix(": "))
        return FAULT


Report = Callable[..., None]


def _planned(found: Prepared, root: str, report: Report, tell: apply.Tell, verb: str) -> int:
    if run := transaction.interrupted(Store(Tree(root))):
        tell(f"the last {run.verb} was interrupted; {verb} --apply undoes it first")
    for text in found.left:
        tell(text)
    if found.refused:
        report("refused", f"{found.refused}; nothing was changed")
        return FAULT
    if not found.plan.changes:
        tell(found.nothing)
        report("nothing-to-do")
        return FAULT if found.left else OK
    tell(f"nothing was changed; {verb} --apply does it")
    report("planned")
    return OK


def _applied(
    found: Prepared,
    verb: str,
    root: str,
    given: argparse.Namespace,
    timeout: float,
    report: Report,
    tell: apply.Tell,
) -> int:
    if found.refused:
        report("refused", f"{found.refused}; nothing was changed")
        return FAULT
    if found.plan.changes:
        options = apply.Options(not given.no_restart, timeout, found.checked)
        apply.apply(found.plan, verb, root, options, tell)
    if found.left:
        report("failed", "; ".join(found.left))
        return FAULT
    tell(f"{verb}: done" if found.plan.changes else found.nothing)
    report("done" if found.plan.changes else "nothing-to-do")
    return OK


def _timeout(text: str) -> float:
    try:
        return settings.duration(*_TIMEOUT_BOUNDS)(text)
    except ValueError as error:
        raise UsageError(f"--timeout: {text!r} is not {error}") from None
