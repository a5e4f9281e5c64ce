"""An audit as one page for a change board: opened from a file, printed, sent by mail. It fetches nothing, and a strict
Content-Security-Policy keeps it so. Its size is bounded; what is left out is said."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterable, Iterator

from ... import __version__
from ...audit.result import OUTCOMES, REASONS, Audit, Changes, Pull
from ..output import ended, sentence, split_commands
from .rows import MEANS, holders, marked, namespaces_of, plural, problems_of, reasons_of, standing, verdict

MOST_PULLS, MOST_NAMESPACES, MOST_CHANGES = 1000, 500, 200
"""Rows of the tables: about 1 MB, which a browser lays out in a second."""

_STYLE = """\
:root { color-scheme: light dark; --line: #8886; --soft: #8881; --fails: #b3261e; --node-credentials: #9a5b00;
 --anonymous: #6b5fb5; --not-checked: #666; --works: #1b7a3d; --no-mirror: #5b7a99; }
@media screen and (prefers-color-scheme: dark) { :root { --fails: #ff8a80; --node-credentials: #ffb74d;
 --anonymous: #b3a7ff; --not-checked: #aaa; --works: #7bd88f; --no-mirror: #9fbcd8; } }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 76rem; padding: 1rem; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
.fails { color: var(--fails); fill: var(--fails); } .works { color: var(--works); fill: var(--works); }
.node-credentials { color: var(--node-credentials); fill: var(--node-credentials); }
.anonymous { color: var(--anonymous); fill: var(--anonymous); }
.not-checked { color: var(--not-checked); fill: var(--not-checked); }
.no-mirror { color: var(--no-mirror); fill: var(--no-mirror); }
b, .number { white-space: nowrap; } small, .left { opacity: .8; } svg { display: block; height: 14px; width: 100%; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
caption { text-align: left; padding: .25rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: .35rem .75rem .35rem 0; text-align: left; vertical-align: top; }
thead th { white-space: nowrap; } tbody th { font-weight: 600; }
small { font-weight: 400; } .stack tbody th { white-space: nowrap; } table:not(.stack) { max-width: 48rem; }
#pulls td:nth-child(2) { width: 18%; } #pulls td:nth-child(3) { width: 28%; }
.number { font-variant-numeric: tabular-nums; text-align: right; }
code { background: var(--soft); display: block; font-size: .85rem; margin: .25rem 0; padding: .25rem .5rem;
 white-space: pre-wrap; } code, .name { overflow-wrap: anywhere; min-width: 7rem; }
input { font: inherit; max-width: 100%; padding: .25rem .5rem; width: 24rem; } [hidden] { display: none; }
@media (max-width: 40rem) { .stack thead { display: none; } .stack tr { border-bottom: 1px solid var(--line);
 display: block; padding: .5rem 0; } .stack tr[hidden] { display: none; } .stack th, .stack td, #pulls td:nth-child(n) {
 border: 0; display: block; padding: .1rem 0; width: auto; } }
@media print { :root { color-scheme: light; } body { font-size: 10pt; max-width: none; padding: 0; }
 tr { break-inside: avoid; } thead { display: table-header-group; } label { display: none; }
 .wide { overflow: visible; } }
"""
_SCRIPT = """\
const box = document.getElementById("filter");
if (box) {
  box.parentElement.hidden = false;
  box.oninput = () => {
    const words = box.value.toLowerCase().split(" ");
    for (const row of document.querySelectorAll("#pulls tbody tr")) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  };
}
"""


def lines(found: Audit, now: float) -> Iterator[str]:
    """The page.

    Args:
        now: seconds since the epoch.
    """
    policy = f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; base-uri 'none'"
    made = f"{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(now))} by crio-credential-provider {__version__}"
    problems = problems_of(found)
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}; form-action \'none\'">'
    yield '<meta name="viewport" content="width=device-width">\n<meta name="referrer" content="no-referrer">'
    yield f"<title>Image pulls: {marked(verdict(found))}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>"
    yield f'<h1 class="{standing(found)}">{marked(verdict(found))}</h1>'
    read = ", ".join(f"{number} {kind}" for kind, number in found.objects.items())
    yield f"<p><small>Made {made}, from {marked(found.origin)}: {marked(read)}. A pull is an image that pods or"
    yield "templates of a namespace run with one service account, however many they are.</small></p>"
    yield from _summary(found)
    if found.changes is not None:
        yield from _changes(found.changes)
    if problems:
        yield from _reasons(problems)
        yield from _namespaces(found, problems)
        yield from _pulls(problems)
    if found.notes:
        yield "<h2>Notes</h2>\n<ul>"
        yield from (f"<li>{marked(sentence(note))}</li>" for note in found.notes)
        yield "</ul>"
    yield f"</main>\n<script>{_SCRIPT}</script>\n</body>\n</html>"


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _table(name: str, title: str, heads: Iterable[str], rows: Iterable[str], left_out: str = "") -> Iterator[str]:
    """A table with a heading; the heads of columns with numbers begin with #. Without them, a phone shows its cells one
    below the other."""
    heads = list(heads)
    stacked = "" if any(head[0] == "#" for head in heads) else ' class="stack"'
    yield f'<h2 id="{name}-title">{title}</h2>'
    if left_out:
        yield f'<p class="left">{left_out}</p>'
    yield f'<div class="wide"><table id="{name}"{stacked} aria-labelledby="{name}-title">\n<thead><tr>'
    for head in heads:
        yield f'<th scope="col"{" class=number" if head[0] == "#" else ""}>{head.removeprefix("#")}</th>'
    yield "</tr></thead>\n<tbody>"
    yield from rows
    yield "</tbody>\n</table></div>"


def _outcome(outcome: str) -> str:
    return f'<b class="{outcome}">{outcome}</b>'


def _numbers(numbers: Iterable[int]) -> str:
    return "".join(f'<td class="number">{number or ""}</td>' for number in numbers)


def _summary(found: Audit) -> Iterator[str]:
    shown = [(outcome, found.counts[outcome]) for outcome in OUTCOMES if found.counts[outcome].pulls]
    yield '<svg viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true">'
    start = 0.0
    for outcome, count in shown:
        width = 100 * count.pulls / len(found.pulls)
        yield f'<rect class="{outcome}" x="{start:.3f}" width="{width:.3f}" height="1"/>'
        start += width
    yield "</svg>"
    rows = (
        f'<tr><th scope="row">{_outcome(outcome)} <small>{MEANS[outcome]}</small></th>{_numbers(count)}</tr>'
        for outcome, count in shown
    )
    yield from _table("summary", "Summary", ("Outcome", "#Pulls", "#Pods", "#Templates"), rows)


def _changes(changes: Changes) -> Iterator[str]:
    listed = (("fails now", [pull.key for pull in changes.failing]), ("solved", changes.solved), ("gone", changes.gone))
    keys = [(what, key) for what, found in listed for key in found]
    rows = (
        f'<tr><td><b>{what}</b></td><td class="name">{marked(namespace)}</td>'
        f'<td class="name">{marked(image)} <small>{marked(_where(account, node_class))}</small></td></tr>'
        for what, (namespace, account, image, node_class) in keys[:MOST_CHANGES]
    )
    told = f"{len(changes.failing)} new that fail, {len(changes.solved)} solved, {len(changes.gone)} gone"
    heads = ("Change", "Namespace", "Image")
    yield from _table("changes", f"Since the baseline: {told}", heads, rows, _left(len(keys), MOST_CHANGES, "change"))


def _where(account: str, node_class: str) -> str:
    return f"as {account}{f', on {node_class} nodes' if node_class else ''}"


def _left(number: int, most: int, word: str) -> str:
    return f"The first {most} of {plural(number, word)}; --output json lists all." if number > most else ""


def _reasons(problems: list[Pull]) -> Iterator[str]:
    rows = (
        f'<tr><th scope="row">{code}</th><td>{plural(number, "pull").replace(" ", "&nbsp;")}</td>'
        f"<td>{marked(REASONS[code].title)}</td>"
        f"<td>{marked(sentence(REASONS[code].remedy))}</td></tr>"
        for code, number in reasons_of(problems)
    )
    yield from _table("reasons", "Reasons", ("Reason", "Pulls", "What it means", "To do"), rows)


def _namespaces(found: Audit, problems: list[Pull]) -> Iterator[str]:
    ordered = namespaces_of(found, problems)
    shown = [outcome for outcome in MEANS if any(pull.outcome == outcome for pull in problems)]
    rows = (
        f'<tr><th scope="row" class="name">{marked(name)} '
        f"<small>{', '.join(f'{code} {number}' for code, number in reasons.most_common())}</small></th>"
        f"{_numbers(outcomes[outcome] for outcome in shown)}</tr>"
        for name, outcomes, reasons in ordered[:MOST_NAMESPACES]
    )
    heads = ("Namespace", *(f"#{outcome}" for outcome in shown))
    title = f"{plural(len(ordered), 'namespace')} with problems"
    yield from _table("namespaces", title, heads, rows, _left(len(ordered), MOST_NAMESPACES, "namespace"))


def _pulls(problems: list[Pull]) -> Iterator[str]:
    left = _left(len(problems), MOST_PULLS, "pull")
    left += '</p>\n<p><label hidden>Show rows with <input id="filter" type="search"></label>'
    heads = ("Outcome", "Namespace", "Image, and who pulls it", "Why, and what to do")
    title = "Problems, the worst first"
    yield from _table("pulls", title, heads, map(_pull, problems[:MOST_PULLS]), left)


def _pull(pull: Pull) -> str:
    words, commands = split_commands(ended(f"To do: {pull.remedy}")) if pull.remedy else ("", [])
    told = [f"<b>{pull.reason}</b>: {marked(sentence(pull.text))}", marked(words)]
    told += [f"<code>{marked(command)}</code>" for command in commands]
    where = _where(pull.service_account, pull.node_class)
    return (
        f'<tr><td>{_outcome(pull.outcome)}</td><td class="name">{marked(pull.namespace)}</td>'
        f'<td class="name">{marked(pull.image)}<br><small>{marked(where)}; {marked(holders(pull))}</small></td>'
        f"<td>{' '.join(filter(None, told))}</td></tr>"
    )
