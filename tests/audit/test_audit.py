"""``audit`` on files: known faults, each found, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import auditing
from auditing import CONF, FAULTS, faulty_cluster, run, write_list


@pytest.fixture
def conf(tmp_path: Path) -> str:
    path = tmp_path / "registries.conf"
    path.write_text(CONF)
    return f"--registries-conf={path}"


@pytest.fixture(autouse=True)
def no_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRIO_CREDENTIAL_PROVIDER_GLOBAL_AUTH_FILE", str(tmp_path / "none"))


def test_all_faults_are_found_and_nothing_else(tmp_path: Path, conf: str) -> None:
    ran = run(write_list(tmp_path / "all.json", faulty_cluster()), conf, "--output=json")
    assert (ran.status, ran.stderr) == (1, "")
    assert ran.found() == {(name, fault.image): (fault.outcome, fault.reason) for name, fault in FAULTS.items()}
