"""The screens in the docs are what the commands write today."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from node import TESTS

pytestmark = pytest.mark.slow

ROOT = TESTS.parent
TOOL = ROOT / "tools/screens.py"
MARK = re.compile(r"<!-- screen (\S+) -->")


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def documents() -> list[Path]:
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path for path in paths if MARK.search(path.read_text())]


def test_no_screen_is_stale() -> None:
    found = documents()
    assert {ROOT / "README.md", ROOT / "docs/reference/explain.md"} <= {*found}
    done = run("--check", *found)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_stale_screen_is_found_and_mended(tmp_path: Path) -> None:
    text = (ROOT / "docs/reference/explain.md").read_text()
    first = text[: text.index("<!-- end of screen -->\n") + len("<!-- end of screen -->\n")]
    document = tmp_path / "explain.md"
    document.write_text(first.replace("mirror.corp", "other.corp"))
    assert run("--check", document).returncode == 1
    assert run(document).returncode == 0
    assert document.read_text() == first


def test_an_unknown_screen_is_an_error(tmp_path: Path) -> None:
    document = tmp_path / "x.md"
    document.write_text("<!-- screen nowhere -->\n<!-- end of screen -->\n")
    assert run("--check", document).returncode == 1
