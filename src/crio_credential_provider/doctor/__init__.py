"""Examines a node: facts, then checks, then findings. Reads only.

    facts      node.gather: the kubelet, its configuration, the container runtime's, each with file and line
    answers    cluster.ask: what the API server says to this node; the mirrors, asked whether they are there
    checks     small functions, facts -> findings (checks/); the catalogue has what is always said of each
    report     what was found, what was examined, and what was not, and why

``examine(Given(root="/mnt/image", live=False))`` makes a report of it; nothing of an image is executed.
"""

from __future__ import annotations

from ..node.facts import Given
from .report import Report, examine

__all__ = ("Given", "Report", "examine")
