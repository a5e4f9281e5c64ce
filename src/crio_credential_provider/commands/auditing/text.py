"""An audit as a person reads it: a summary of ten seconds, then reasons, namespaces and pulls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...audit.result import ANONYMOUS, FAILS, NODE_CREDENTIALS, OUTCOMES, REASONS, WORKS, Audit, Pull
from ..output import Whole, printable, to_do, write
from .rows import MEANS, holders, namespaces_of, plural, problems_of, reasons_of, standing, verdict, who

if TYPE_CHECKING:
    from rich.console import RenderableType

_MOST_ROWS = 30
"""Rows of a table, where no namespace is chosen."""
_STYLES = {FAILS: "bold red", NODE_CREDENTIALS: "bold yellow", ANONYMOUS: "yellow", WORKS: "bold green"}


def write_audit(found: Audit, is_narrow: bool) -> None:
    """Writes an audit for a person; all of it where it is of few namespaces."""
    most = len(found.pulls) if is_narrow else _MOST_ROWS
    problems = problems_of(found)
    write(*_summary(found), *_reasons(problems), *_namespaces(found, problems, most), *_pulls(problems, most))
    if found.changes is not None:
        write(*_changes(found, most))
    for note in found.notes:
        write(Whole(note, label="Note", indent=6))


def _summary(found: Audit) -> Iterator[RenderableType]:
    from rich.text import Text

    yield Text(verdict(found), style=_STYLES.get(standing(found), "bold"))
    for outcome in OUTCOMES:
        count = found.counts[outcome]
        if count.pulls:
            line = Text(f"  {outcome:17}", style=_STYLES.get(outcome, "bold"))
            static = sum(1 for pull in found.pulls if pull.outcome == outcome and pull.reason == "static-pod")
            more = f", {static} of static pods" if static and outcome == NODE_CREDENTIALS else ""
            yield line.append(f"{count.pulls:8}  {MEANS[outcome]} ({who(count)}){more}", "not bold default")


def _reasons(problems: list[Pull]) -> Iterator[RenderableType]:
    from rich.text import Text

    if problems:
        yield Text("\nReasons, most frequent first", style="bold")
    for code, number in reasons_of(problems):
        yield Whole(REASONS[code].title, label=f"  {code:24}{number:4}  ", indent=32)


def _namespaces(found: Audit, problems: list[Pull], most: int) -> Iterator[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    if not problems:
        return
    shown = [outcome for outcome in OUTCOMES if found.counts[outcome].pulls]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title_justify="left")
    for title in ("\nnamespace", *shown, "reasons"):
        table.add_column(title, header_style="bold", justify="right" if title in shown else "left", overflow="fold")
    ordered = namespaces_of(found, problems)
    for name, outcomes, reasons in ordered[:most]:
        said = ", ".join(f"{code} {number}" for code, number in reasons.most_common())
        table.add_row(printable(name), *(str(outcomes[outcome] or "") for outcome in shown), said)
    yield table
    if len(ordered) > most:
        yield Text(
            f"... and {plural(len(ordered) - most, 'more namespace')}; -n NAMESPACE shows one, --output json all"
        )


def _pulls(problems: list[Pull], most: int) -> Iterator[RenderableType]:
    from rich.text import Text

    for pull in problems[:most]:
        yield Text(f"\n{pull.outcome} ", style=_STYLES.get(pull.outcome, "bold")).append(
            f"{printable(pull.namespace)}  {printable(pull.image)}", "not bold default"
        )
        yield Whole(f"{holders(pull)}{f' on {pull.node_class} nodes' if pull.node_class else ''}", indent=2)
        yield Whole(f"{pull.reason}: {pull.text}", indent=2)
        if pull.remedy:
            yield from to_do(f"To do: {pull.remedy}", indent=2)
    if len(problems) > most:
        yield Text(f"\n... and {plural(len(problems) - most, 'more pull')}; --output json lists all")


def _changes(found: Audit, most: int) -> Iterator[RenderableType]:
    from rich.text import Text

    changes = found.changes
    assert changes is not None
    failing = [pull.key for pull in changes.failing]
    yield Text(
        f"\nSince the baseline: {len(failing)} new that fail, {len(changes.solved)} solved, {len(changes.gone)} gone",
        style="bold",
    )
    for what, keys in (("fails now", failing), ("solved", changes.solved), ("gone", changes.gone)):
        for namespace, account, image, node_class in keys[:most]:
            name = f"{namespace}  {image}  as {account}{f' on {node_class} nodes' if node_class else ''}"
            yield Text(f"  {what:10} {printable(name)}")
        if len(keys) > most:
            yield Text(f"  {what:10} {len(keys) - most} more")
