"""What goes with the metrics: their table, the alerts, the dashboard, the systemd units."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from crio_credential_provider.commands.metrics import catalogue
from node import TESTS
from real_programs import need

pytestmark = pytest.mark.slow

ROOT = TESTS.parent
RULES = ROOT / "packaging/prometheus/crio-credential-provider.rules.yaml"
DASHBOARD = ROOT / "packaging/grafana/crio-credential-provider.json"
UNITS = sorted((ROOT / "packaging/systemd").iterdir())
ALERTS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


EXPRESSIONS = [target["expr"] for panel in panels() for target in panel["targets"]]


@pytest.mark.parametrize("tool", ["metrics", "alerts"])
def test_tables_are_those_that_the_tool_writes(tool: str, tmp_path: Path) -> None:
    page = ROOT / {"metrics": "docs/reference/metrics.md", "alerts": "docs/how-to/monitor.md"}[tool]
    copy = tmp_path / page.name
    copy.write_text(page.read_text())
    subprocess.run([sys.executable, ROOT / "tools/metrics_table.py", tool, copy], check=True, cwd="/")
    assert page.read_text() == copy.read_text(), f"run: python3 tools/metrics_table.py {tool} {page}"


# -- names that exist -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("expression", [*(alert["expr"] for alert in ALERTS), *EXPRESSIONS])
def test_expressions_name_metrics_labels_and_words_that_exist(expression: str) -> None:
    metrics = {metric.name: metric for metric in catalogue.METRICS}
    named = re.findall(rf"{catalogue.PREFIX}(\w+)(?:\{{(.*?)\}})?", expression)
    assert named
    for name, labels in named:
        metric = metrics.get(name) or metrics[name.removesuffix("_bucket")]
        assert (metric.kind == "histogram") == name.endswith("_bucket")
        for label, words in re.findall(r'(\w+)=~?"(.*?)"', labels):
            position = (*metric.labels, "instance").index(label)
            known = {values[position] for values in metric.known} if label != "instance" else {"$instance"}
            # Faults begin anew by each reason, so that they are not there as 0.
            assert {*words.split("|")} - {f"fault-{kind}" for kind in catalogue.FAULTS} <= known


# -- alerts -----------------------------------------------------------------------------------------------------------


class Series(NamedTuple):
    """For an alert: series with which it fires, and some with which it does not, a value each minute."""

    fires: dict[str, str]
    quiet: dict[str, str]
    minutes: int = 90


def times(name: str, **buckets: int) -> dict[str, str]:
    """A histogram that grows by so many in a minute."""
    return {f'{name}_bucket{{le="{bound[1:] or "+Inf"}"}}': f"0+{by}x90" for bound, by in buckets.items()}


def to_do(reason: str) -> str:
    return f'runs_total{{outcome="nothing-to-do",reason="{reason}"}}'


CASES = {
    "ConfigFault": Series(
        {'faults_total{kind="config"}': "0x80 1x10"},
        # What happened long ago, and another kind.
        {'faults_total{kind="config"}': "7x90", 'faults_total{kind="cluster"}': "0x80 1x10"},
    ),
    "AuthFilesNotRead": Series({to_do("no-auth-file-helper"): "0x80 1x10"}, {to_do("no-mirror"): "0+5x90"}),
    "Exposed": Series({to_do("exposed"): "0x80 1x10"}, {to_do("no-mirror"): "0+5x90"}),
    # One may pass.
    "ApiServerFault": Series(
        {'faults_total{kind="cluster"}': "0x80 0+1x10"}, {'faults_total{kind="cluster"}': "0x80 1x10"}
    ),
    "AuthFileFault": Series(
        {'faults_total{kind="auth-file"}': "0x80 1x10"}, {'faults_total{kind="auth-file"}': "1x90"}
    ),
    "Bug": Series({'faults_total{kind="bug"}': "0x80 1x10"}, {'faults_total{kind="bug"}': "0x90"}),
    "NoCredential": Series({to_do("no-credential"): "0x60 0+1x30"}, {to_do("no-credential"): "0x85 0+1x5"}),
    "NoKeeper": Series(
        {'runs_total{outcome="no-keeper",reason=""}': "0x80 1x10"},
        {'runs_total{outcome="in-line",reason=""}': "0+1x90"},
    ),
    "SlowRuns": Series(
        times("run_duration_seconds", _20=8, _30=10, _=10), times("run_duration_seconds", _20=10, _30=10, _=10)
    ),
    "LongQueue": Series(
        times("hand_off_wait_seconds", _120=8, _300=10, _=10), times("hand_off_wait_seconds", _120=10, _300=10, _=10)
    ),
    "AuthFilesNotTaken": Series(
        {"stale_files_removed_total": "0+1x130", 'runs_total{outcome="auth-file-written",reason=""}': "0+1x130"},
        {"stale_files_removed_total": "0+1x130", 'runs_total{outcome="auth-file-written",reason=""}': "0+2x130"},
        130,
    ),
    "MetricsStale": Series(
        {"last_collection_timestamp_seconds": "0+60x60 3600x30"}, {"last_collection_timestamp_seconds": "0+60x90"}
    ),
}


def alert_test(alert: dict[str, Any], series: dict[str, str], minutes: int, *, fires: bool) -> dict[str, Any]:
    """As `promtool test rules` reads it."""
    annotations = {name: text.replace("{{ $labels.instance }}", "node1") for name, text in alert["annotations"].items()}
    expected = {"exp_labels": {"instance": "node1", **alert["labels"]}, "exp_annotations": annotations}
    return {
        "interval": "1m",
        "input_series": [
            {
                "series": catalogue.PREFIX
                + re.sub(r"\{|$", '{instance="node1",', name, count=1).removesuffix(",")
                + ("" if "{" in name else "}"),
                "values": values,
            }
            for name, values in series.items()
        ],
        "alert_rule_test": [
            {"eval_time": f"{minutes}m", "alertname": alert["alert"], "exp_alerts": [expected] if fires else []}
        ],
    }


def test_every_alert_fires_and_does_not(tmp_path: Path) -> None:
    (promtool,) = need("promtool")
    assert [alert["alert"] for alert in ALERTS] == [f"CrioCredentialProvider{name}" for name in CASES]
    cases = [
        alert_test(alert, series.fires if fires else series.quiet, series.minutes, fires=fires)
        for alert, series in zip(ALERTS, CASES.values(), strict=True)
        for fires in (True, False)
    ]
    file = tmp_path / "alerts.yaml"
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": cases}))
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_well_formed() -> None:
    (promtool,) = need("promtool")
    done = subprocess.run(
        [promtool, "check", "rules", "--lint-fatal", RULES], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_alert_names_a_remedy(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("warning", "info")
    assert re.search(
        r"`(crio-credential-provider (doctor|explain|metrics|rollback)|journalctl|systemctl|df) ?.*?`",
        alert["annotations"]["description"],
    )


# -- dashboard --------------------------------------------------------------------------------------------------------


def test_the_expressions_of_the_dashboard_are_promql(tmp_path: Path) -> None:
    (promtool,) = need("promtool")
    texts = [re.sub(r"\$__(rate_interval|range)", "5m", expression) for expression in EXPRESSIONS]
    rules = [{"record": f"x:x:x{number}", "expr": text} for number, text in enumerate(texts)]
    file = tmp_path / "rules.yaml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(EXPRESSIONS)} rules found" in done.stdout


def test_the_panels_lie_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
        assert panel["datasource"]["uid"] == "${datasource}"
    assert len({panel["id"] for panel in panels()}) == len(panels()) > 10


# -- units ------------------------------------------------------------------------------------------------------------


def test_the_units_are_hardened_and_well_formed(tmp_path: Path) -> None:
    (analyze,) = need("systemd-analyze")
    for unit in UNITS:
        # The program need not be installed here.
        (tmp_path / unit.name).write_text(unit.read_text().replace("/usr/bin/crio-credential-provider", "/bin/true"))
    names = [str(tmp_path / unit.name) for unit in UNITS]
    done = subprocess.run([analyze, "verify", "--man=no", *names], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (service,) = (name for name in names if name.endswith(".service"))
    command = [analyze, "security", "--offline=yes", "--threshold=15", service]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_service_runs_a_command_line_that_exists() -> None:
    from crio_credential_provider.commands import metrics

    (service,) = (unit for unit in UNITS if unit.suffix == ".service")
    (line,) = re.findall(
        r"^ExecStart=/usr/bin/crio-credential-provider metrics (.+)$", service.read_text(), re.MULTILINE
    )
    given = metrics.parser().parse(line.split())
    assert given.textfile.endswith(".prom")
    assert f"ReadWritePaths=-{Path(given.textfile).parent}\n" in service.read_text()
    assert given.state.startswith("/var/lib/crio-credential-provider/")
    assert "StateDirectory=crio-credential-provider\n" in service.read_text()
