"""A plan as a person reads it: the difference of each file, the commands that follow, what doctor says of it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from typing import Any

import yaml

from ...doctor.finding import Finding
from ...kubernetes.credentialproviderconfig import NAME
from ...node import programs
from ...rollout.changes import ABSENT, DIRECTORY, FILE, LINK, Change
from ...rollout.plan import Plan
from ...rollout.preflight import Checked
from ..doctor import finding_as_json
from ..output import printable, write_line

_SHORTEST = 6
"""Letters of a value that may be a secret: shorter ones are `true`, a region, a level."""
_CONTEXT = 0
"""Lines around a difference: an entry of somebody else may hold a secret in its ``env``."""


def action(change: Change) -> str:
    """What happens to a path, in one word."""
    if change.after.kind == ABSENT:
        return "remove"
    return "create" if change.before.kind == ABSENT else "change"


def shown(plan: Plan) -> Iterator[Change]:
    """The changes that a person is shown: not those of our own record."""
    return (change for change in plan.changes if change.role != "record")


def diff(plan: Plan, change: Change) -> str:
    """A unified diff of a text; a line of words for anything else."""
    before, after = (
        plan.contents.get(state.digest, b"") if state.kind == FILE else b"" for state in (change.before, change.after)
    )
    if change.role == "program" or DIRECTORY in (change.before.kind, change.after.kind):
        return _in_words(change, after)
    if change.before.kind == LINK or change.after.kind == LINK:
        return f"{action(change)} link {change.path} -> {change.after.digest or change.before.digest}"
    if before == after:
        return f"change mode and owner of {change.path} to {change.after.mode:04o}, {change.after.owner}"
    hidden = _of_others(before) if change.role == "config" else []
    if hidden is None:
        return f"{action(change)} {change.path}: not shown, since what other providers have in it cannot be told"
    old, new = (_without(text.decode("utf-8", "replace"), hidden).splitlines() for text in (before, after))
    lines = difflib.unified_diff(
        old,
        new,
        change.path if change.before.kind == FILE else "/dev/null",
        change.path if change.after.kind == FILE else "/dev/null",
        lineterm="",
        n=_CONTEXT,
    )
    return "\n".join(map(printable, lines))


def _of_others(content: bytes) -> list[str] | None:
    """Values of variables and arguments of other providers, which may be secrets, as they are written and as JSON has
    them, the longest first; None where the file cannot be parsed."""
    if not content:
        return []
    try:
        document = yaml.load(content, getattr(yaml, "CBaseLoader", yaml.BaseLoader))
        others = [entry for entry in document["providers"] or () if entry["name"] != NAME]
        values = [one["value"] for entry in others for one in entry.get("env") or ()]
        values += [argument for entry in others for argument in entry.get("args") or ()]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError, RecursionError):
        return None
    texts = {text for value in values for text in (str(value), json.dumps(str(value))[1:-1]) if len(text) >= _SHORTEST}
    return sorted(texts, key=len, reverse=True)


def _without(text: str, hidden: list[str]) -> str:
    for value in hidden:
        text = text.replace(value, "***")
    return text


def _in_words(change: Change, content: bytes) -> str:
    if change.after.kind == FILE:
        program = printable(str(programs.identify(content)))
        return (
            f"{action(change)} program {change.path}: {program}, {len(content):,} bytes, mode {change.after.mode:04o}"
        )
    if change.after.kind == LINK:
        return f"{action(change)} program {change.path}: link to {printable(change.after.digest)}"
    kind = "directory" if DIRECTORY in (change.before.kind, change.after.kind) else "program"
    mode = f", mode {change.after.mode:04o}" if change.after.kind == DIRECTORY else ""
    return f"{action(change)} {kind} {change.path}{mode}"


def commands(plan: Plan) -> list[str]:
    return [" ".join(("systemctl", *command)) for command in plan.actions.commands()]


def write_plan(plan: Plan, *, restart: bool) -> None:
    """The plan on standard output."""
    write_line(f"node: {printable(plan.subject)}")
    for change in shown(plan):
        write_line(f"\n{diff(plan, change)}")
    if lines := commands(plan):
        write_line(f"\n{'then' if restart else 'then, by yourself (--no-restart)'}:")
        for line in lines:
            write_line(f"  {line}")
    for text in plan.notes:
        write_line(f"note: {printable(text)}")


def write_checks(checked: Checked) -> None:
    """What doctor says of the planned node."""
    write_line("")
    for finding in checked.stops:
        write_line(f"check: ERROR {_finding(finding)}")
        _write_remedy(finding)
    for finding in checked.others:
        write_line(f"check: {finding.severity}, which does not stop this: {_finding(finding)}")
        if finding.severity == "error":
            _write_remedy(finding)
    write_line(
        f"check: doctor on the planned node: errors that stop this: {len(checked.stops)}, "
        f"other findings: {len(checked.others)}, skipped checks: {len(checked.skipped)}"
    )


def _write_remedy(finding: Finding) -> None:
    for line in finding.remedy.split("\n"):
        write_line(f"  {printable(line)}")


def _finding(finding: Finding) -> str:
    first = finding.evidence[0]
    where = f"{first.file}:{first.line}" if first.line else first.file
    seen = ": ".join(part for part in (where, first.text) if part)
    return printable(f"{finding.code}: {finding.title}: {seen}")


def as_json(plan: Plan | None, checked: Checked | None, steps: list[str], outcome: str, message: str) -> dict[str, Any]:
    """The report."""
    changes = list(shown(plan)) if plan else []
    return {
        "node": plan.subject if plan else "",
        "changes": [
            {"path": one.path, "role": one.role, "action": action(one), "diff": diff(plan, one) if plan else ""}
            for one in changes
        ],
        "commands": commands(plan) if plan else [],
        "notes": list(plan.notes) if plan else [],
        "checks": {
            "stops": [finding_as_json(finding) for finding in checked.stops] if checked else [],
            "others": [finding_as_json(finding) for finding in checked.others] if checked else [],
            "skipped": list(checked.skipped) if checked else [],
        },
        "steps": steps,
        "outcome": outcome,
        "message": message,
    }
