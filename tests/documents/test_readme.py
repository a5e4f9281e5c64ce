"""The README: short, and what a person types of it works. What it says of the program: test_docs.py."""

from __future__ import annotations

import re

import pytest

from crio_credential_provider.__main__ import COMMANDS
from node import TESTS

ROOT = TESTS.parent
README = (ROOT / "README.md").read_text()


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 200


def test_the_first_commands_need_no_cluster() -> None:
    first = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)[0].splitlines()
    assert first[0] == "make demo" and "make test" in first
    assert README.index("make demo") < README.index("## Requirements")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_told(command: str) -> None:
    assert f"`crio-credential-provider {command} [--help]`" in README


@pytest.mark.parametrize(
    "page",
    [
        "docs/reference/pull-secrets.md#which-secret-wins",
        "docs/reference/files.md#what-is-written",
        "docs/troubleshooting.md",
        "docs/how-to/openshift.md",
    ],
)
def test_what_a_newcomer_looks_for_is_one_link_away(page: str) -> None:
    assert f"]({page})" in README


def test_the_picture_of_a_pull_is_the_one_that_is_explained() -> None:
    picture = re.findall(r"^```text\n.*?^```$", README, re.MULTILINE | re.DOTALL)
    assert len(picture) == 1 and picture[0] in (ROOT / "docs/explanation/pull.md").read_text()


def test_the_comparison_has_six_rows() -> None:
    table = README.partition("## Compared with the Go provider")[2].partition("\n## ")[0]
    assert len(re.findall(r"^\| [a-zA-Z]", table, re.MULTILINE)) == 6
