"""An audit as the XML of JUnit that GitLab and Jenkins read: a suite for each namespace, a case for each pull.

A case fails where the exit status of ``audit`` says so, is skipped where it could not be checked, and else passes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from itertools import groupby

from ...audit.result import NOT_CHECKED, REASONS, Audit, Pull
from .rows import MEANS, holders, marked


def lines(found: Audit, fatal: Container[str]) -> Iterator[str]:
    """The document.

    Args:
        fatal: outcomes with which a case fails.
    """
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield f'<testsuites name="crio-credential-provider audit" {_counts(found.pulls, fatal)}>'
    for namespace, grouped in groupby(found.pulls, key=lambda pull: pull.namespace):
        pulls = list(grouped)
        yield f'<testsuite name="{marked(namespace)}" {_counts(pulls, fatal)}>'
        seen: Counter[str] = Counter()
        for pull in pulls:
            name = f"{pull.image} as {pull.service_account}{f' on {pull.node_class}' if pull.node_class else ''}"
            seen[name] += 1
            # Of cases with the same name GitLab takes the first alone.
            number = f" ({seen[name]})" if seen[name] > 1 else ""
            told = _told(pull, fatal)
            yield (
                f'<testcase classname="{marked(namespace)}" name="{marked(name + number)}" time="0">{told}</testcase>'
            )
        yield "</testsuite>"
    yield "</testsuites>"


def _counts(pulls: Iterable[Pull], fatal: Container[str]) -> str:
    outcomes = Counter(pull.outcome for pull in pulls)
    failures = sum(number for outcome, number in outcomes.items() if outcome in fatal)
    skipped = 0 if NOT_CHECKED in fatal else outcomes[NOT_CHECKED]
    return f'tests="{outcomes.total()}" failures="{failures}" errors="0" skipped="{skipped}" time="0"'


# Jenkins and GitLab fetch the file that [[ATTACHMENT|FILE]] names.
_ATTACHMENT = re.compile(r"\[(?=\[ATTACHMENT)", re.IGNORECASE)


def _told(pull: Pull, fatal: Container[str]) -> str:
    what = REASONS[pull.reason].title if pull.reason else f"Such pulls {MEANS[pull.outcome]}."
    parts = [pull.text, pull.remedy and f"To do: {pull.remedy}", holders(pull)]
    text = _ATTACHMENT.sub("[ ", "\n".join(marked(part) for part in parts if part))
    if pull.outcome in fatal:
        return f'<failure type="{pull.reason}" message="{marked(what)}">{text}</failure>'
    if pull.outcome == NOT_CHECKED:
        return f'<skipped message="{marked(f"{what} {pull.text}".strip())}"/>'
    return f"<system-out>{pull.outcome}: {marked(what)}\n{text}</system-out>"
