"""The metrics: their names, and what each counts of a run's journal entry (docs/reference/journal.md).

All label values come from fixed words of this program: no image, namespace, pod or secret is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ...pull.resolution import REASONS

PREFIX = "crio_credential_provider_"

FAULTS = ("request", "config", "cluster", "auth-file", "bug")
KEEPER_OUTCOMES = ("auth-file-written", "nothing-to-do", "interrupted")
RUN_OUTCOMES = ("auth-file-written", "answered", "nothing-to-do", "in-line", "no-keeper")
OTHER = "other"
"""In place of a word that a later version wrote, where there are too many of them."""

DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60)
WAITS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
"""Upper bounds of the histograms' buckets in seconds. A kubelet kills a run at 60; a keeper stays for 600."""


class Metric(NamedTuple):
    """A metric.

    Attributes:
        name: without ``PREFIX``.
        kind: counter, gauge or histogram.
        help: what it is.
        labels: their names.
        known: the values of labels with which it is written even at 0, so that the first one counts as an increase.
        buckets: of a histogram.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    known: tuple[tuple[str, ...], ...] = ((),)
    buckets: tuple[float, ...] = ()


RUNS = Metric(
    "runs_total",
    "counter",
    "Runs of the plugin, by what came of them.",
    ("outcome", "reason"),
    (
        *((outcome, "") for outcome in RUN_OUTCOMES if outcome != "nothing-to-do"),
        *(("nothing-to-do", reason) for reason in REASONS),
    ),
)
FAULT_RUNS = Metric(
    "faults_total",
    "counter",
    "Runs and keepers that ended in a fault, by the kind of fault.",
    ("kind",),
    tuple((kind,) for kind in FAULTS),
)
KEEPERS = Metric(
    "keepers_total",
    "counter",
    "Background processes that waited in line for a run that had answered, by what came of them.",
    ("outcome",),
    tuple((outcome,) for outcome in KEEPER_OUTCOMES),
)
SWEPT = Metric("stale_files_removed_total", "counter", "Auth files that no pull took, removed by runs.")
DURATION = Metric("run_duration_seconds", "histogram", "How long runs took until the answer.", buckets=DURATIONS)
WAIT = Metric(
    "hand_off_wait_seconds",
    "histogram",
    "Waits of runs and keepers for the previous auth file of the same name, of 1 ms and more.",
    buckets=WAITS,
)
LAST_RUN = Metric(
    "last_run_timestamp_seconds", "gauge", "When the newest journal entry of a run was written.", known=()
)
COLLECTED = Metric("last_collection_timestamp_seconds", "gauge", "When the journal was last read.")
BUILD = Metric("build_info", "gauge", "The program that reads the journal.", ("version", "commit"))

METRICS = (RUNS, FAULT_RUNS, KEEPERS, SWEPT, DURATION, WAIT, LAST_RUN, COLLECTED, BUILD)
COUNTERS = (RUNS, FAULT_RUNS, KEEPERS, SWEPT)
HISTOGRAMS = (DURATION, WAIT)


def head(metric: Metric) -> str:
    """The two lines before a metric's samples."""
    name = f"{PREFIX}{metric.name}"
    return f"# HELP {name} {metric.help}\n# TYPE {name} {metric.kind}\n"


def sample(metric: Metric, values: tuple[str, ...], number: float) -> str:
    """A line; what stands in a label has neither quotes nor line breaks."""
    return _line(metric.name, tuple(zip(metric.labels, values, strict=True)), number)


def histogram(metric: Metric, counts: list[int], microseconds: int) -> Iterator[str]:
    """The lines of a histogram, whose counts are those of each bucket, with one more for what is above them."""
    below = 0
    for bound, count in zip((*metric.buckets, float("inf")), counts, strict=True):
        below += count
        yield _line(f"{metric.name}_bucket", (("le", f"{bound:g}".replace("inf", "+Inf")),), below)
    yield _line(f"{metric.name}_sum", (), microseconds / 1e6)
    yield _line(f"{metric.name}_count", (), below)


def _line(name: str, labels: tuple[tuple[str, str], ...], number: float) -> str:
    text = ",".join(f'{label}="{value}"' for label, value in labels)
    return f"{PREFIX}{name}{f'{{{text}}}' if text else ''} {number!r}\n"
