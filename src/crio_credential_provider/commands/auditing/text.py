"""An audit as a person reads it: a summary of ten seconds, then reasons, namespaces and pulls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...audit.result import (
    ANONYMOUS,
    FAILS,
    NODE_CREDENTIALS,
    NOT_CHECKED,
    OUTCOMES,
    REASONS,
    WORKS,
    Audit,
    Count,
    Pull,
)
from ..output import printable, told, write

if TYPE_CHECKING:
    from rich.console import RenderableType

_MOST_ROWS = 30
"""Rows of a table, where no namespace is chosen."""
_STYLES = {FAILS: "bold red", NODE_CREDENTIALS: "bold yellow", ANONYMOUS: "yellow", WORKS: "bold green"}
_MEANS = {
    FAILS: "get no credential, or fail otherwise",
    NODE_CREDENTIALS: "depend on the node's credentials",
    ANONYMOUS: "get none; nobody has one for their mirrors",
    NOT_CHECKED: "are not known",
    WORKS: "get a credential of their namespace",
    "no-mirror": "ask no mirror",
}


def write_audit(found: Audit, is_narrow: bool) -> None:
    """Writes an audit for a person; all of it where it is of few namespaces."""
    most = len(found.pulls) if is_narrow else _MOST_ROWS
    problems = [pull for pull in found.pulls if pull.outcome in (FAILS, NODE_CREDENTIALS, ANONYMOUS, NOT_CHECKED)]
    write(*_summary(found), *_reasons(problems), *_namespaces(found, problems, most), *_pulls(problems, most))
    if found.changes is not None:
        write(*_changes(found, most))
    for note in found.notes:
        write(*told(note, label="Note", indent=6))


def _plural(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _summary(found: Audit) -> Iterator[RenderableType]:
    from rich.text import Text

    failing = found.counts[FAILS]
    where = f"of {_plural(found.namespaces, 'namespace')}"
    if failing.pulls:
        first = f"{failing.pulls} of {_plural(len(found.pulls), 'pull')} {where} would fail"
        yield Text(f"{first} ({_who(failing)}).", style="bold red")
    else:
        yield Text(f"None of {_plural(len(found.pulls), 'pull')} {where} would fail.", style="bold green")
    for outcome in OUTCOMES:
        count = found.counts[outcome]
        if count.pulls:
            line = Text(f"  {outcome:17}", style=_STYLES.get(outcome, "bold"))
            yield line.append(f"{count.pulls:8}  {_MEANS[outcome]} ({_who(count)})", "not bold default")


def _who(count: Count | Pull) -> str:
    counts = (count.pods, "pod"), (count.templates, "template")
    return ", ".join(_plural(number, word) for number, word in counts if number)


def _reasons(problems: list[Pull]) -> Iterator[RenderableType]:
    from rich.text import Text

    counts = Counter(pull.reason for pull in problems)
    if counts:
        yield Text("\nReasons, most frequent first", style="bold")
    for code, number in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        yield from told(REASONS[code].title, label=f"  {code:24}{number:4}  ", indent=32)


def _namespaces(found: Audit, problems: list[Pull], most: int) -> Iterator[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    if not problems:
        return
    counts: dict[str, Counter[str]] = {}
    reasons: dict[str, Counter[str]] = {}
    for pull in found.pulls:
        counts.setdefault(pull.namespace, Counter())[pull.outcome] += 1
    for pull in problems:
        reasons.setdefault(pull.namespace, Counter())[pull.reason] += 1
    shown = [outcome for outcome in OUTCOMES if found.counts[outcome].pulls]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title_justify="left")
    for title in ("\nnamespace", *shown, "reasons"):
        table.add_column(title, header_style="bold", justify="right" if title in shown else "left", overflow="fold")
    ordered = sorted(reasons, key=lambda name: ([-counts[name][outcome] for outcome in OUTCOMES], name))
    for name in ordered[:most]:
        said = ", ".join(f"{code} {number}" for code, number in reasons[name].most_common())
        table.add_row(printable(name), *(str(counts[name][outcome] or "") for outcome in shown), said)
    yield table
    if len(ordered) > most:
        yield Text(
            f"... and {_plural(len(ordered) - most, 'more namespace')}; -n NAMESPACE shows one, --output json all"
        )


def _pulls(problems: list[Pull], most: int) -> Iterator[RenderableType]:
    from rich.text import Text

    order = {outcome: number for number, outcome in enumerate(OUTCOMES)}
    ordered = sorted(problems, key=lambda pull: order[pull.outcome])
    for pull in ordered[:most]:
        yield Text(f"\n{pull.outcome} ", style=_STYLES.get(pull.outcome, "bold")).append(
            f"{printable(pull.namespace)}  {printable(pull.image)}", "not bold default"
        )
        yield from told(f"{_holders(pull)}{f' on {pull.node_class} nodes' if pull.node_class else ''}", indent=2)
        yield from told(f"{pull.reason}: {pull.text}", indent=2)
        if pull.remedy:
            yield from told(f"To do: {pull.remedy}", indent=2)
    if len(ordered) > most:
        yield Text(f"\n... and {_plural(len(ordered) - most, 'more pull')}; --output json lists all")


def _holders(pull: Pull) -> str:
    names = ", ".join(f"{holder.kind} {holder.name}" for holder in pull.holders[:3])
    return f"{_who(pull)}: {names}{' and others' if len(pull.holders) > 3 else ''}"


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
