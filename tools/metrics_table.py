"""Brings a table in the docs up to date: the metrics, from what writes them, or the alerts, from their rules.

python3 tools/metrics_table.py metrics docs/reference/metrics.md
python3 tools/metrics_table.py alerts docs/how-to/monitor.md
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import yaml

from crio_credential_provider.commands.metrics.catalogue import METRICS, PREFIX
from flags_table import replaced
from make_venv import ROOT

RULES = ROOT / "packaging/prometheus/crio-credential-provider.rules.yaml"


def metrics() -> str:
    """The rows in the order in which they are written, with the head."""
    rows = (
        f"| `{PREFIX}{metric.name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)} "
        f"| {metric.help} |\n"
        for metric in METRICS
    )
    return "| metric | kind | labels | what it is |\n|---|---|---|---|\n" + "".join(rows)


def alerts() -> str:
    """An alert a row: when it fires, and what to do."""
    rows = []
    for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]:
        summary = rule["annotations"]["summary"].replace("{{ $labels.instance }}", "a node")
        rows.append(
            f"| `{rule['alert']}` ({rule['labels']['severity']}) | {summary} | {rule['annotations']['description']} |\n"
        )
    return "| alert | what it says | what to do |\n|---|---|---|\n" + "".join(rows)


def main(kind: str, name: str) -> None:
    path = Path(name)
    path.write_text(replaced(path.read_text(), {"metrics": metrics, "alerts": alerts}[kind](), kind))


if __name__ == "__main__":
    main(*sys.argv[1:])
