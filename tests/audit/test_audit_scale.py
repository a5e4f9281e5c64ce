"""Twice the pods: hardly more memory, and no more than twice the time (`make bench-audit` has the whole size)."""

from __future__ import annotations

from pathlib import Path

import pytest

import audit as bench
from node import COMMAND

pytestmark = pytest.mark.process

SIZE = bench.Size(pods=15_000, namespaces=1_000, secrets=3_000, mirrors=200)


def test_twice_the_pods(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for size in (SIZE, SIZE._replace(pods=2 * SIZE.pods)):
        directory = tmp_path / str(size.pods)
        directory.mkdir()
        found.append(bench.run(size, [*COMMAND], directory))
        for file in directory.iterdir():
            file.unlink()
    once, twice = found
    assert twice.cpu <= bench.MOST_TIME * once.cpu, capsys.readouterr().out
    assert twice.memory <= bench.MOST_MEMORY * once.memory


def test_another_outcome_than_expected_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "is_faulty", lambda namespace: namespace == 1)
    expected = bench.expected(bench.Size(10, 5, 10, 3))
    monkeypatch.setattr(bench, "expected", lambda size: {**expected, "fails": (0, 0, 0)})
    with pytest.raises(SystemExit, match="the audit found"):
        bench.run(bench.Size(10, 5, 10, 3), [*COMMAND], tmp_path)
