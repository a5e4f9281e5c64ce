"""The manual pages: one for each command, as its parser says it, and such that man, mandoc and apropos take them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from crio_credential_provider.__main__ import COMMANDS
from crio_credential_provider.commands import SUMMARIES, module
from node import TESTS
from real_programs import need

pytestmark = pytest.mark.slow

ROOT = TESTS.parent
PAGES = sorted((ROOT / "docs/man").glob("*.8"))
NAME = "crio-credential-provider"
SECTIONS = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "EXAMPLES", "SEE ALSO"]


def of(command: str) -> Path:
    return ROOT / f"docs/man/{NAME}-{command}.8"


def shown(path: Path) -> str:
    """As a person reads it, 80 columns wide."""
    (man,) = need("man")
    done = subprocess.run(
        [man, "-l", str(path)],
        env={"PATH": "/usr/bin:/bin", "MANWIDTH": "80", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_every_command_has_a_page_and_no_page_is_left_over() -> None:
    assert {path.name for path in PAGES} == {f"{NAME}.8", *(f"{NAME}-{command}.8" for command in COMMANDS)}


def make(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "tools/man_pages.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")


def test_no_page_is_stale() -> None:
    done = make("--check")
    assert done.returncode == 0, done.stderr


def test_a_stale_page_is_seen(tmp_path: Path) -> None:
    """So that the test above says something."""
    for path in PAGES:
        (tmp_path / path.name).write_text(path.read_text())
    page = tmp_path / of("gc").name
    page.write_text(page.read_text().replace("\\-\\-dry\\-run", "\\-\\-dry"))
    done = make("--check", tmp_path)
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, f"man_pages: stale: {page.name}")
    assert make(tmp_path).returncode == 0
    assert page.read_text() == of("gc").read_text()


@pytest.mark.parametrize("command", COMMANDS)
def test_sections(command: str) -> None:
    text = of(command).read_text()
    assert re.findall(r"^\.SH (.+)$", text, re.MULTILINE) == SECTIONS
    for section in SECTIONS:
        assert text.partition(f".SH {section}\n")[2].strip(), section


@pytest.mark.parametrize("command", COMMANDS)
def test_flags_statuses_and_examples_reach_the_reader(command: str) -> None:
    text = shown(of(command))
    parser = module(command).parser()
    options = text.partition("\nOPTIONS\n")[2].partition("\nEXIT STATUS\n")[0]
    for action in parser._actions:
        for flag in action.option_strings:
            assert re.search(rf"^ +.*(?<![\w-]){flag}(?![\w-])", options, re.MULTILINE), flag
    statuses = text.partition("\nEXIT STATUS\n")[2].partition("\nEXAMPLES\n")[0]
    found = re.findall(r"^       (\d) ", statuses, re.MULTILINE)
    assert {"0", "1", "2"} <= set(found) and found == sorted(found)
    examples = text.partition("\nEXAMPLES\n")[2].partition("\nSEE ALSO\n")[0]
    assert f"{NAME} {command}" in examples
    # Every command line of the help, and with nothing lost of it.
    for line in re.findall(rf"^  (.*{NAME} {command}.*?)(?:   .*)?$", parser.epilog, re.MULTILINE):
        assert line in examples


def test_a_flag_with_what_it_is_for() -> None:
    text = re.sub(r"\s+", " ", shown(of("gc")))
    assert "--dry-run" in text and "remove stale auth files" in text


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_tools_of_manual_pages_take_it(path: Path) -> None:
    mandoc, man, lexgrog = need("mandoc", "man", "lexgrog")
    done = subprocess.run([mandoc, "-Tlint", "-Wwarning", path], capture_output=True, text=True, check=False)
    # The same sources make the same page on every day: it has no date.
    said = [line for line in (done.stdout + done.stderr).splitlines() if "missing date" not in line]
    assert said == []
    done = subprocess.run(
        [man, "--warnings=w", "-E", "UTF-8", "-l", path],
        env={"PATH": "/usr/bin:/bin", "MANWIDTH": "80", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run([lexgrog, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and path.stem in done.stdout, done


def test_the_program_s_own_page_leads_to_all() -> None:
    text = shown(ROOT / f"docs/man/{NAME}.8")
    _, _, also = text.partition("\nSEE ALSO\n")
    for command, summary in SUMMARIES.items():
        assert f"{NAME}-{command}(8)" in also
        assert summary[1:] in re.sub(r"\s+", " ", text.partition("\nCOMMANDS\n")[2])


def test_packages_take_all_pages() -> None:
    """What is in docs/man goes into the packages by its name; the .rpm lists what it has."""
    spec = (ROOT / f"packaging/rpm/{NAME}.spec").read_text()
    assert re.search(rf"^/usr/share/man/man8/{NAME}\*\.8\.gz$", spec, re.MULTILINE)
    assert all(path.match(f"{NAME}*.8") for path in PAGES)
