"""The page of messages is made of the source as it is, and every message on it says what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from node import TESTS

ROOT = TESTS.parent
TOOL = ROOT / "tools/messages.py"
PAGE = ROOT / "docs/reference/messages.md"

sys.path.insert(0, str(TOOL.parent))

import messages  # noqa: E402


def run(*arguments: str | Path) -> str:
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_the_page_has_the_messages_of_today(tmp_path: Path) -> None:
    made = tmp_path / "messages.md"
    run("--document", made)
    assert made.read_text() == PAGE.read_text(), "run: python3 tools/messages.py --document docs/reference/messages.md"


def test_a_message_that_says_nothing_to_do_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(messages.WHAT_TO_DO, "needs a value")
    with pytest.raises(ValueError, match=r"nothing to do: .*needs a value"):
        messages.page()


@pytest.mark.parametrize("table", ["WHAT_TO_DO", "OTHERS"])
def test_what_no_message_says_any_more_is_seen(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = messages.WHAT_TO_DO if table == "WHAT_TO_DO" else messages.OTHERS["Other lines of the journal"]
    monkeypatch.setitem(rows, "nobody comes for", "nothing")
    with pytest.raises(ValueError, match="nobody comes for"):
        messages.page()


@pytest.mark.slow
def test_a_message_is_printed_with_its_place() -> None:
    (line,) = run("Wrote auth file to", "{used}").splitlines()
    place, _, text = line.partition(": ")
    file, _, number = place.partition(":")
    assert "Wrote auth file to" in text and "{" in text
    source = (ROOT / "src/crio_credential_provider" / file).read_text().splitlines()
    assert "Wrote auth file to" in source[int(number) - 1]
