"""What is said of a kind of finding. The findings themselves: ``catalogue``, and ``containerdfindings``."""

from __future__ import annotations

from typing import NamedTuple

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)


class Entry(NamedTuple):
    """A kind of finding.

    Attributes:
        severity: unless the check says otherwise.
        title: what is wrong, in a few words.
        consequence: what follows for pulls.
        story: what happens, and why it goes unnoticed.
        signs: how it looks in logs and events.
        remedy: what to do, in general; a finding has its own, with the node's files and names.
    """

    severity: str
    title: str
    consequence: str
    story: str
    signs: str
    remedy: str
