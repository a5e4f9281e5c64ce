"""What has been counted so far, and up to which journal entry: one file holds both, so that they cannot differ."""

from __future__ import annotations

import bisect
import contextlib
import json
import os
import re
from collections import Counter
from typing import Any

from ...errors import ConfigError
from .. import wholefile
from . import catalogue
from .catalogue import COUNTERS, DURATION, FAULT_RUNS, HISTOGRAMS, KEEPERS, OTHER, RUNS, SWEPT, WAIT, Metric

_FORMAT = 1
_WORD = re.compile(r"[a-z0-9-]{0,40}")
_MOST_SERIES = 100
"""Of a metric; this program writes some 40 of the largest."""

_US = 10**6


class Totals:
    """Counters that only grow.

    Attributes:
        cursor: journald's, of the last entry that was counted; "" before the first.
        last_run: seconds since the epoch, of the newest run; 0 before the first.
    """

    def __init__(self) -> None:
        self.cursor = ""
        self.last_run = 0.0
        self._counts: dict[str, Counter[tuple[str, ...]]] = {metric.name: Counter() for metric in COUNTERS}
        self._buckets = {metric.name: [0] * (len(metric.buckets) + 1) for metric in HISTOGRAMS}
        self._sums = {metric.name: 0 for metric in HISTOGRAMS}

    def add(self, entry: dict[str, Any]) -> None:
        """Counts a journal entry as ``journalctl -o json`` writes it; one without an outcome moves the cursor alone."""
        self.cursor = str(entry.get("__CURSOR", ""))
        outcome = _word(entry, "OUTCOME")
        if not outcome:
            return
        self.last_run = max(self.last_run, _number(entry, "__REALTIME_TIMESTAMP") / _US)
        if "KEEPER" in entry:
            self._add(KEEPERS, outcome)
        else:
            self._add(RUNS, outcome, _word(entry, "REASON_CODE"))
            self._observe(DURATION, _number(entry, "DURATION_US"))
        if outcome.startswith("fault-"):
            self._add(FAULT_RUNS, outcome.removeprefix("fault-"))
        self._add(SWEPT, by=_number(entry, "SWEPT"))
        if "HAND_OFF_US" in entry:
            self._observe(WAIT, _number(entry, "HAND_OFF_US"))

    def _add(self, metric: Metric, *labels: str, by: int = 1) -> None:
        counts = self._counts[metric.name]
        if labels not in counts and len(counts) >= _MOST_SERIES:
            labels = (OTHER,) * len(labels)
        counts[labels] += by

    def _observe(self, metric: Metric, microseconds: int) -> None:
        # Buckets hold what is at most their bound.
        self._buckets[metric.name][bisect.bisect_left(metric.buckets, microseconds / _US)] += 1
        self._sums[metric.name] += microseconds

    def text(self, collected: float, version: str, commit: str) -> str:
        """All metrics in Prometheus' text format, in the order of the catalogue.

        Args:
            collected: seconds since the epoch at which the journal was read.
        """
        parts = []
        for metric in catalogue.METRICS:
            parts.append(catalogue.head(metric))
            if metric.kind == "histogram":
                parts += catalogue.histogram(metric, self._buckets[metric.name], self._sums[metric.name])
                continue
            samples: dict[tuple[str, ...], float] = dict.fromkeys(metric.known, 0)
            samples |= self._counts.get(metric.name, {})
            if metric is catalogue.LAST_RUN and self.last_run:
                samples = {(): self.last_run}
            elif metric is catalogue.COLLECTED:
                samples = {(): collected}
            elif metric is catalogue.BUILD:
                samples = {(version, commit): 1}
            parts += [catalogue.sample(metric, labels, number) for labels, number in sorted(samples.items())]
        return "".join(parts)


def _word(entry: dict[str, Any], name: str) -> str:
    value = entry.get(name, "")
    return value if isinstance(value, str) and _WORD.fullmatch(value) else OTHER


def _number(entry: dict[str, Any], name: str) -> int:
    value = entry.get(name)
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 20 else 0


# -- the file ---------------------------------------------------------------------------------------------------------


def load(path: str) -> Totals:
    """What an earlier call has left; nothing counted where there is no file.

    Raises:
        ConfigError: it is not one of this program's.
    """
    totals = Totals()
    try:
        with open(path, "rb") as file:
            kept = json.loads(file.read())
    except FileNotFoundError:
        return totals
    except ValueError:
        kept = None
    try:
        if kept["format"] != _FORMAT:
            raise ValueError
        totals.cursor, totals.last_run = str(kept["cursor"]), float(kept["lastRun"])
        for metric in COUNTERS:
            read = {tuple(map(str, labels)): int(count) for labels, count in kept["counters"][metric.name]}
            if any(len(labels) != len(metric.labels) for labels in read):
                raise ValueError
            totals._counts[metric.name].update(read)
        for metric in HISTOGRAMS:
            name = metric.name
            found = kept["histograms"][name]
            if found["bounds"] == list(metric.buckets):
                if len(found["counts"]) != len(metric.buckets) + 1:
                    raise ValueError
                totals._buckets[name] = [int(count) for count in found["counts"]]
                totals._sums[name] = int(found["sumMicroseconds"])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ConfigError(
            f"{path} was not written by this version, or is damaged",
            "remove it, and all entries of the journal are counted anew",
        ) from None
    return totals


def save(path: str, totals: Totals) -> None:
    """Replaces the file by one that is whole and on the disk."""
    value = {
        "format": _FORMAT,
        "cursor": totals.cursor,
        "lastRun": totals.last_run,
        "counters": {
            name: sorted((list(key), count) for key, count in c.items()) for name, c in totals._counts.items()
        },
        "histograms": {
            metric.name: {
                "bounds": list(metric.buckets),
                "counts": totals._buckets[metric.name],
                "sumMicroseconds": totals._sums[metric.name],
            }
            for metric in HISTOGRAMS
        },
    }
    wholefile.replace(path, json.dumps(value) + "\n", 0o600)
    # The new name as well must outlive a loss of power, so that no counter is ever seen to go back.
    with contextlib.suppress(OSError):
        directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(directory)
        os.close(directory)
