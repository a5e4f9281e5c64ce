"""Scenario by provider: held or not held, and why."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

BEGIN, END = "<!-- node-test: begin -->\n", "<!-- node-test: end -->\n"
_LENGTH = 160
_NOT_APPLICABLE = "n.a."

Note = Callable[[str], None]


class Table:
    """A pytest plugin: it writes the table, and takes a peer's failed assertions as its result.

    Args:
        path: a file, or a document with the two markers.
        command: that made the table.
    """

    def __init__(self, path: Path, command: str) -> None:
        self._path = path
        self._command = command
        self._cells: dict[str, dict[str, str]] = {}
        self._headings: dict[str, str] = {}
        self.versions: dict[str, str] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Rows in the order of the files, whatever order they run in."""
        for item in items:
            row = _row(item)
            self._cells.setdefault(row, {})
            self._headings[row] = _first_line(item.module.__doc__ or "") if isinstance(item, pytest.Function) else ""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        cells, provider = self._cells[_row(item)], _provider(item)
        if report.skipped:
            cells[provider] = _NOT_APPLICABLE
        elif report.failed:
            reason = _first_line(str(call.excinfo.value) if call.excinfo else "")
            if provider == "peer" and call.excinfo and call.excinfo.errisinstance(AssertionError):
                cells[provider] = f"not held: {reason}"
                report.outcome, report.wasxfail = "skipped", f"peer: {reason}"
            else:
                cells[provider] = f"**not held**: {reason}"
        elif report.when == "call":
            notes = ", ".join(str(value) for name, value in item.user_properties if name == "note")
            cells[provider] = f"held ({notes})" if notes else "held"
        return report

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """A run in which everything was skipped has shown nothing."""
        if exitstatus == 0 and {text for cells in self._cells.values() for text in cells.values()} <= {_NOT_APPLICABLE}:
            session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if any(self._cells.values()):
            text = self.markdown()
            self._write(text)
            terminalreporter.section(f"also in {self._path}")
            terminalreporter.write(text)

    def markdown(self) -> str:
        columns = [name for name in ("ours", "peer") if any(name in cells for cells in self._cells.values())]
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        lines = [f"`{self._command}`, with {versions}, Linux {os.uname().release}:"]
        heading = None
        for row, cells in ((row, cells) for row, cells in self._cells.items() if cells):
            if self._headings[row] != heading:
                heading = self._headings[row]
                head = f"| scenario | {' | '.join(columns)} |\n{'|---' * (len(columns) + 1)}|"
                lines += ["", f"**{heading}**", "", head]
            lines.append(f"| {row} | {' | '.join(cells.get(name, _NOT_APPLICABLE) for name in columns)} |")
        return "\n".join(lines) + "\n"

    def _write(self, text: str) -> None:
        old = self._path.read_text() if self._path.exists() else ""
        before, begin, rest = old.partition(BEGIN)
        _, end, after = rest.partition(END)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(f"{before}{begin}{text}{end}{after}" if begin and end else text)


def _provider(item: pytest.Item) -> str:
    parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    return str(getattr(parameters.get("provider"), "name", "ours"))


def _row(item: pytest.Item) -> str:
    """``test_burst[peer-parallel]`` is ``burst, parallel``: an id has no hyphen of its own."""
    name, _, parameters = item.name.partition("[")
    others = [part for part in re.split(r"[-\]]", parameters) if part not in ("ours", "peer", "")]
    return ", ".join([name.removeprefix("test_").replace("_", " "), *others])


def _first_line(text: str) -> str:
    return text.partition("\n")[0].replace("|", "\\|")[:_LENGTH]
