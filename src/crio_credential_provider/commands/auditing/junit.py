"""An audit as the XML of JUnit that GitLab and Jenkins read: a suite for each namespace, a case for each pull.

A case fails where the exit status of ``audit`` says so, is skipped where it could not be checked, and else passes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from ...audit.result import NOT_CHECKED, REASONS, Audit, Pull
from .rows import MEANS, holders, marked


def lines(found: Audit, is_fatal: Callable[[Pull], bool]) -> Iterator[str]:
    """The document.

    Args:
        is_fatal: whether the exit status says so.
    """
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield f'<testsuites name="crio-credential-provider audit" {_counts(found.pulls, is_fatal)}>'
    for namespace, grouped in groupby(found.pulls, key=lambda pull: pull.namespace):
        pulls = list(grouped)
        yield f'<testsuite name="{marked(namespace)}" {_counts(pulls, is_fatal)}>'
        seen: Counter[str] = Counter()
        for pull in pulls:
            name = f"{pull.image} as {pull.service_account}{f' on {pull.node_class}' if pull.node_class else ''}"
            seen[name] += 1
            # Of cases with the same name GitLab takes the first alone.
            number = f" ({seen[name]})" if seen[name] > 1 else ""
            told = _told(pull, is_fatal)
            yield (
                f'<testcase classname="{marked(namespace)}" name="{marked(name + number)}" time="0">{told}</testcase>'
            )
        yield "</testsuite>"
    yield "</testsuites>"


def _counts(pulls: Iterable[Pull], is_fatal: Callable[[Pull], bool]) -> str:
    kinds = Counter("fatal" if is_fatal(pull) else pull.outcome for pull in pulls)
    failures, skipped = kinds["fatal"], kinds[NOT_CHECKED]
    return f'tests="{kinds.total()}" failures="{failures}" errors="0" skipped="{skipped}" time="0"'


# Jenkins and GitLab fetch the file that [[ATTACHMENT|FILE]] names.
_ATTACHMENT = re.compile(r"\[(?=\[ATTACHMENT)", re.IGNORECASE)


def _told(pull: Pull, is_fatal: Callable[[Pull], bool]) -> str:
    what = REASONS[pull.reason].title if pull.reason else f"Such pulls {MEANS[pull.outcome]}."
    parts = [pull.text, pull.remedy and f"To do: {pull.remedy}", holders(pull)]
    text = _ATTACHMENT.sub("[ ", "\n".join(marked(part) for part in parts if part))
    if is_fatal(pull):
        return f'<failure type="{pull.reason}" message="{marked(what)}">{text}</failure>'
    if pull.outcome == NOT_CHECKED:
        return f'<skipped message="{marked(f"{what} {pull.text}".strip())}"/>'
    return f"<system-out>{pull.outcome}: {marked(what)}\n{text}</system-out>"
