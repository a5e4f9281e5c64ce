"""What an audit is shown as, whatever the form: its problems in their order, counts, and the words for them."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import NamedTuple

from ...audit.result import (
    ANONYMOUS,
    FAILS,
    NO_MIRROR,
    NODE_CREDENTIALS,
    NOT_CHECKED,
    OUTCOMES,
    WORKS,
    Audit,
    Count,
    Pull,
)
from ..output import printable

MEANS = {
    FAILS: "get no credential, or fail otherwise",
    NODE_CREDENTIALS: "depend on the node's credentials",
    ANONYMOUS: "get none; nobody has one for their mirrors",
    NOT_CHECKED: "are not known",
    WORKS: "get a credential of their namespace",
    NO_MIRROR: "ask no mirror",
}
"""Outcome -> what such pulls do."""


def problems_of(found: Audit) -> list[Pull]:
    """The pulls that somebody has to look at, the worst outcome first."""
    problems = [pull for pull in found.pulls if pull.outcome not in (WORKS, NO_MIRROR)]
    return sorted(problems, key=lambda pull: OUTCOMES.index(pull.outcome))


def reasons_of(problems: list[Pull]) -> list[tuple[str, int]]:
    """Code -> pulls, most frequent first."""
    return sorted(Counter(pull.reason for pull in problems).items(), key=lambda pair: (-pair[1], pair[0]))


class Namespace(NamedTuple):
    """A namespace with problems: pulls by outcome, and problems by reason."""

    name: str
    outcomes: Counter[str]
    reasons: Counter[str]


def namespaces_of(found: Audit, problems: list[Pull]) -> list[Namespace]:
    """Those with problems, the worst first."""
    made = {pull.namespace: Namespace(pull.namespace, Counter(), Counter()) for pull in problems}
    for pull in found.pulls:
        if pull.namespace in made:
            made[pull.namespace].outcomes[pull.outcome] += 1
    for pull in problems:
        made[pull.namespace].reasons[pull.reason] += 1
    return sorted(made.values(), key=lambda one: ([-one.outcomes[outcome] for outcome in OUTCOMES], one.name))


def plural(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def who(count: Count | Pull) -> str:
    counts = (count.pods, "pod"), (count.templates, "template")
    return ", ".join(plural(number, word) for number, word in counts if number)


def holders(pull: Pull) -> str:
    """Who pulls it, with the first names."""
    names = ", ".join(f"{holder.kind} {holder.name}" for holder in pull.holders[:3])
    return f"{who(pull)}: {names}" + (" and others" if len(pull.holders) > 3 else "")


def standing(found: Audit) -> str:
    """The outcome in whose colour the first sentence is."""
    return next((outcome for outcome in (FAILS, NOT_CHECKED) if found.counts[outcome].pulls), WORKS)


def verdict(found: Audit) -> str:
    """The first sentence."""
    failing = found.counts[FAILS]
    where = f"of {plural(len(found.pulls), 'pull')} of {plural(found.namespaces, 'namespace')} would fail"
    unknown = found.counts[NOT_CHECKED].pulls
    if not failing.pulls:
        return f"None {where}{f', but {unknown} could not be checked' if unknown else ''}."
    return f"{failing.pulls} {where} ({who(failing)})."


def marked(text: str) -> str:
    """A text for HTML and XML alike, in ASCII, whatever is in it: characters that neither may hold are escaped as for
    a terminal."""
    return escape(printable(text)).encode("ascii", "xmlcharrefreplace").decode("ascii")
