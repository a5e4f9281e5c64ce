"""An audit as JSON, written pull by pull, and read again as the baseline of a later one (docs/reference/audit.md)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ..errors import UsageError
from . import lists
from .result import FAILS, NOT_CHECKED, OUTCOMES, REASONS, Audit, Changes, Pull, Source
from .workloads import text

Key = tuple[str, str, str, str]

_WRITE_ONE = "write one with --output json"


def head(audit: Audit) -> dict[str, Any]:
    """Everything but the pulls."""
    used = {pull.reason for pull in audit.pulls} | {source.reason for pull in audit.pulls for source in pull.sources}
    reasons = [reason for code, reason in REASONS.items() if code in used]
    return {
        "origin": audit.origin,
        "secretsFrom": audit.secrets_from,
        "namespaces": audit.namespaces,
        "objects": audit.objects,
        "summary": {outcome: count._asdict() for outcome, count in audit.counts.items()},
        "reasons": {reason.code: {"title": reason.title, "remedy": reason.remedy} for reason in reasons},
        "notes": list(audit.notes),
        "changes": _changes(audit.changes) if audit.changes is not None else None,
    }


def _changes(changes: Changes) -> dict[str, Any]:
    return {
        "failing": [_key(pull.key) for pull in changes.failing],
        "solved": list(map(_key, changes.solved)),
        "gone": list(map(_key, changes.gone)),
    }


_MEMBERS = ("namespace", "serviceAccount", "image", "nodeClass")


def _key(key: Key) -> dict[str, str]:
    return dict(zip(_MEMBERS, key, strict=True))


def pulls(audit: Audit) -> Iterator[dict[str, Any]]:
    """The pulls, in their order."""
    for pull in audit.pulls:
        yield {
            **_key(pull.key),
            "outcome": pull.outcome,
            "reason": pull.reason or None,
            "text": pull.text or None,
            "remedy": pull.remedy or None,
            "sources": [_source(source) for source in pull.sources],
            "unchecked": list(pull.unchecked),
            "pods": pull.pods,
            "templates": pull.templates,
            "holders": [holder._asdict() for holder in pull.holders],
        }


def _source(source: Source) -> dict[str, Any]:
    credential = {"from": source.credential, "secret": source.secret or None, "key": source.key or None}
    return {
        "name": source.name,
        "wanted": source.wanted,
        "insecure": source.insecure,
        "credential": credential if source.credential else None,
        "reason": source.reason or None,
        "text": source.text or None,
        "answer": source.answer or None,
    }


class Earlier(NamedTuple):
    """A pull of an earlier audit: its worst outcome, and whether anything that this rests on was not looked at."""

    outcome: str
    is_partial: bool


def load_outcomes(path: str) -> dict[Key, Earlier]:
    """The pulls of an earlier audit.

    Raises:
        UsageError: not the JSON of an audit.
    """
    found: dict[Key, Earlier] = {}
    if path != "-" and not os.path.getsize(path):
        raise UsageError(f"--baseline: {path} is empty", _WRITE_ONE)
    for pull in lists.load(path, "pulls"):
        outcome = text(pull, "outcome")
        if outcome not in OUTCOMES:
            raise UsageError(f"--baseline: {path} is not an audit", _WRITE_ONE)
        key = text(pull, _MEMBERS[0]), text(pull, _MEMBERS[1]), text(pull, _MEMBERS[2]), text(pull, _MEMBERS[3])
        other = found.get(key, Earlier(outcome, False))
        worst = min(outcome, other.outcome, key=OUTCOMES.index)
        found[key] = Earlier(worst, other.is_partial or bool(pull.get("unchecked")))
    return found


def is_worse(pull: Pull, earlier: dict[Key, Earlier]) -> bool:
    """Whether a pull was not there in an earlier audit, or had a better outcome."""
    return pull.key not in earlier or OUTCOMES.index(pull.outcome) < OUTCOMES.index(earlier[pull.key].outcome)


def is_less_checked(pull: Pull, earlier: dict[Key, Earlier]) -> bool:
    """Whether a pull rests on what was not looked at, and is worse than in an earlier audit, or did not there."""
    return bool(pull.unchecked) and (is_worse(pull, earlier) or not earlier[pull.key].is_partial)


def compare(pulls: list[Pull], earlier: dict[Key, Earlier], is_chosen: Callable[[Key], bool]) -> Changes:
    """What is different from an earlier audit; of pulls that are not chosen nothing is known."""
    failed = {key for key, one in earlier.items() if one.outcome == FAILS and is_chosen(key)}
    failing = {pull.key for pull in pulls if pull.outcome in (FAILS, NOT_CHECKED)}
    there = {pull.key for pull in pulls}
    solved = failed - failing
    return Changes(
        tuple(pull for pull in pulls if pull.outcome == FAILS and is_worse(pull, earlier)),
        tuple(sorted(solved & there)),
        tuple(sorted(solved - there)),
    )
