"""What was measured, as a table for people, as a section of docs/explanation/performance.md, and as a plot."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
METRICS = {
    "wall": ("wall", "ms", "{:.1f}"),
    "cpu": ("CPU", "ms", "{:.1f}"),
    "memory": ("peak memory", "MiB", "{:.1f}"),
    "instructions": ("instructions", "millions", "{:.1f}"),
}
PEER = "peer"

_Row = dict[str, dict[str, float]]


def _columns(results: dict[str, Any]) -> list[str]:
    """Our contenders first; what they are compared with last."""
    return [name for name in results["contenders"] if name != PEER] + [n for n in results["contenders"] if n == PEER]


def _lines(results: dict[str, Any], metric: str) -> Iterator[list[str]]:
    """Head and rows of one metric: medians, and ratios to the last column where that is the peer."""
    names = _columns(results)
    compared = names[:-1] if PEER in names else []
    yield ["case", *names, *(f"{name} / {PEER}" for name in compared)]
    form = METRICS[metric][2]
    row: _Row
    for case, row in results["cases"].items():
        values = {name: row[name][metric] for name in names if metric in row.get(name, {})}
        if values:
            shown = [form.format(values[name]) if name in values else "" for name in names]
            ratios = [_ratio(values.get(name), values.get(PEER)) for name in compared]
            yield [case, *shown, *ratios]


def _ratio(ours: float | None, peer: float | None) -> str:
    return f"{ours / peer:.2f}" if ours is not None and peer else ""


def _each_metric(results: dict[str, Any]) -> Iterator[tuple[str, list[list[str]]]]:
    for metric, (title, unit, _) in METRICS.items():
        lines = list(_lines(results, metric))
        if len(lines) > 1:
            counted = f", by {results['counter']}" if metric == "instructions" else ""
            yield f"{title}, {unit}{counted}", lines


def _heading(results: dict[str, Any]) -> str:
    return f"Medians of {results['pairs']} runs of each in turns, {results['machine']}, {results['python']}."


def table(results: dict[str, Any]) -> str:
    """Columns for a terminal."""
    parts = [_heading(results)]
    for title, lines in _each_metric(results):
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        parts += ["", title]
        for first, *rest in lines:
            cells = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
            parts.append("  ".join((first.ljust(widths[0]), *cells)))
    return "\n".join(parts)


def markdown(results: dict[str, Any]) -> str:
    """The same as Markdown."""
    parts = [_heading(results), ""]
    for title, lines in _each_metric(results):
        parts += [f"**{title[0].upper()}{title[1:]}**", "", _cells(lines[0]), "|---|" + "--:|" * (len(lines[0]) - 1)]
        parts += [*map(_cells, lines[1:]), ""]
    return "\n".join(parts)


def _cells(line: list[str]) -> str:
    return f"| {' | '.join(line)} |"


def write_document(results: dict[str, Any], path: Path) -> None:
    """Replaces what stands between the two markers."""
    head, begin, rest = path.read_text().partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        sys.exit(f"pull: {path} lacks {BEGIN} or {END}")
    path.write_text(f"{head}{begin}\n{markdown(results)}{end}{tail}")


# -- plot -------------------------------------------------------------------------------------------------------------

# Told apart by lightness as well as by hue.
_COLOURS = {"limit": "#9a9a9a", "executable": "#0b5fa5", "system launch": "#7fb6e6", PEER: "#e08a1e"}
_FURTHER_COLOURS = ("#2e8b57", "#8c6bb1", "#666666")


def write_plot(results: dict[str, Any], path: Path) -> bool:
    """One panel for wall, CPU and memory, the cases below each other; False where matplotlib is missing."""
    try:
        import_module("matplotlib").use("Agg")
    except ModuleNotFoundError:
        print("pull: no plot: matplotlib is not installed (dependency group bench)", file=sys.stderr)
        return False
    pyplot = import_module("matplotlib.pyplot")

    cases, names = list(results["cases"]), _columns(results)
    further = iter(_FURTHER_COLOURS)
    colours = {name: _COLOURS.get(name) or next(further) for name in names}
    figure, panels = pyplot.subplots(1, 3, figsize=(15, 0.75 + 0.62 * len(cases)), sharey=True, layout="constrained")
    thickness = 0.8 / len(names)
    for panel, metric in zip(panels, ("wall", "cpu", "memory"), strict=True):
        title, unit, form = METRICS[metric]
        longest = _longest([row[n][metric] for row in results["cases"].values() for n in row])
        for index, name in enumerate(names):
            values = [results["cases"][case].get(name, {}).get(metric) for case in cases]
            present = [(place, value) for place, value in enumerate(values) if value is not None]
            places = [place + (index - (len(names) - 1) / 2) * thickness for place, _ in present]
            lengths = [min(value, longest) for _, value in present]
            bars = panel.barh(places, lengths, thickness, label=name, color=colours[name])
            panel.bar_label(bars, [_label(form, value, longest) for _, value in present], padding=2, fontsize=8)
        panel.set_title(f"{title} ({unit})")
        panel.set_yticks(range(len(cases)), cases)
        _style(panel, longest)
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=len(names), frameon=False)
    figure.suptitle(_heading(results), fontsize=10, x=0.01, ha="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, facecolor="white", metadata={"Software": None})
    pyplot.close(figure)
    return True


def _longest(values: list[float]) -> float:
    """Where the scale ends: a value that would flatten all others is cut off, and told as a number."""
    middle = sorted(values)[len(values) // 2]
    return 1.1 * max(value for value in values if value <= 12 * middle)


def _label(form: str, value: float, longest: float) -> str:
    text = form.format(value) if value < 100 else f"{value:,.0f}"
    return f"// {text}" if value > longest else text


def _style(panel: Any, longest: float) -> None:
    # Room for the labels at the ends of the bars.
    panel.set_xlim(0, longest * 1.2)
    panel.grid(axis="x", color="#dddddd")
    panel.set_axisbelow(True)
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)
    panel.tick_params(axis="y", length=0)
