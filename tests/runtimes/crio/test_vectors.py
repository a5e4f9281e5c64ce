"""All vectors through tests/conformance.py, and the runner itself: it must fail where it should."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import conformance
from node import TESTS

VECTORS = TESTS / "vectors"
COUNTS = {"registries": 440, "auth": 170, "layers": 40, "mirrorsets": 237}

Case = dict[str, Any]


def lines(kind: str) -> list[Case]:
    return conformance.load(VECTORS / f"{kind}.jsonl")


FAMILIES = sorted({(kind, case["family"]) for kind in COUNTS for case in lines(kind)})


@pytest.mark.parametrize(("kind", "family"), FAMILIES, ids=lambda value: value)
def test_our_answers_are_those_of_crio(kind: str, family: str) -> None:
    cases = [case for case in lines(kind) if case["family"] == family]
    disagreements = [
        f"{case['id']} {field}\n  ours:     {json.dumps(ours)}\n  expected: {json.dumps(expected)}"
        for case in cases
        for field, ours, expected in conformance.check(kind, case)
    ]
    assert not disagreements, "\n".join(disagreements)


@pytest.mark.parametrize("kind", COUNTS)
def test_the_corpus_is_whole(kind: str) -> None:
    cases = lines(kind)
    assert len(cases) == COUNTS[kind]
    assert len({case["id"] for case in cases}) == len(cases)


# -- the runner -------------------------------------------------------------------------------------------------------


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TESTS / "conformance.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("kind", COUNTS)
def test_the_last_line_says_how_many_agree(kind: str) -> None:
    done = run(kind, VECTORS / f"{kind}.jsonl")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{kind}: {COUNTS[kind]} of {COUNTS[kind]} agree\n", "")


def first(kind: str, is_wanted: Callable[[Case], bool]) -> Case:
    return copy.deepcopy(next(case for case in lines(kind) if is_wanted(case)))


def answer(case: Case) -> Any:
    return case.get("expected_crio_5_38") or case["expected"]


def has_sources(case: Case) -> bool:
    return bool(answer(case)["pull_sources"] and answer(case)["registry"] and answer(case)["registry"]["mirrors"])


def has_login(case: Case) -> bool:
    return bool(answer(case)["found"] and answer(case)["picked"] and not answer(case).get("nondeterministic"))


def has_search(case: Case) -> bool:
    return bool(answer(case)["search"])


def is_refused(case: Case) -> bool:
    return bool(answer(case)["error"])


def _change(*path: str | int, to: Any) -> Callable[[Case], None]:
    """Sets a member of the expected answer to something else."""

    def change(case: Case) -> None:
        place = answer(case)
        for step in path[:-1]:
            place = place[step]
        assert place[path[-1]] != to
        place[path[-1]] = to

    return change


WRONG_SOURCES = [
    _change("error_class", to="toml-syntax"),
    _change("registry", to=None),
    _change("registry", "prefix", to="other.example"),
    _change("registry", "location", to="other.example"),
    _change("registry", "blocked", to="yes"),
    _change("registry", "insecure", to="yes"),
    _change("registry", "mirror_by_digest_only", to="yes"),
    _change("registry", "mirrors", to=[]),
    _change("registry", "mirrors", 0, "location", to="other.example"),
    _change("registry", "mirrors", 0, "pull_from_mirror", to="sometimes"),
    _change("reference", to="docker.io/library/other:latest"),
    _change("reference_error", to="an error"),
    _change("pull_sources", to=[]),
    *(_change("pull_sources", 0, field, to="other") for field in conformance.SOURCE_FIELDS),
    _change("pull_sources_error", to="an error"),
]
WRONG_LOGINS = [
    _change("error_class", to="json"),
    _change("found", to=False),
    _change("creds", to=None),
    *(_change("creds", field, to="other") for field in ("username", "password", "identitytoken", "raw")),
    _change("picked", to="other.example"),
]
WRONG_FILES = [
    _change("error", to="an error"),
    _change("main", to=None),
    _change("main", to="unqualified-search-registries = []"),
    _change("search", to=None),
    _change("kept_out", to=True),
]
WRONG = [
    *(("mirrorsets", has_search, change) for change in WRONG_FILES),
    ("mirrorsets", is_refused, _change("error", to=None)),
    *(("registries", has_sources, change) for change in WRONG_SOURCES),
    *(("layers", has_sources, change) for change in WRONG_SOURCES),
    *(("auth", has_login, change) for change in WRONG_LOGINS),
]


@pytest.mark.parametrize(("kind", "is_wanted", "change"), WRONG)
def test_each_field_that_counts_is_compared(
    kind: str, is_wanted: Callable[[Case], bool], change: Callable[[Case], None]
) -> None:
    case = first(kind, is_wanted)
    assert not conformance.check(kind, case)
    change(case)
    assert conformance.check(kind, case)


@pytest.mark.slow
@pytest.mark.parametrize("kind", COUNTS)
@pytest.mark.parametrize("place", ["case", "input", "expected"])
def test_an_unknown_field_is_a_disagreement(tmp_path: Path, kind: str, place: str) -> None:
    case = first(kind, lambda case: True)
    where = {"case": case, "input": case["input"], "expected": answer(case)}[place]
    where["surprise"] = None
    file = tmp_path / "vectors"
    file.write_text(json.dumps(case))
    done = run(kind, file)
    assert done.returncode == 1
    assert done.stdout.endswith(f"{kind}: 0 of 1 agree\n")
    assert "surprise" in done.stdout


def test_an_unknown_note_is_a_disagreement() -> None:
    case = first("registries", lambda case: True)
    case["toml"] = ["surprise"]
    assert conformance.check("registries", case)


@pytest.mark.parametrize("kind", COUNTS)
@pytest.mark.parametrize("missing", ["input", "expected"])
def test_a_missing_field_is_a_disagreement(kind: str, missing: str) -> None:
    case = first(kind, lambda case: True)
    case.pop("expected_crio_5_38", None)
    del case[missing]
    assert conformance.check(kind, case)


@pytest.mark.slow
def test_a_wrong_expectation_is_shown_with_its_case_and_counted(tmp_path: Path) -> None:
    case = first("registries", has_sources)
    _change("reference", to="docker.io/library/other:latest")(case)
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text("\n".join(json.dumps(line) for line in lines("registries")[:3]))
    bad.write_text(json.dumps(case))
    done = run("registries", good, bad)
    assert done.returncode == 1
    assert done.stdout.startswith(f"{case['id']} reference\n")
    assert re.search(r"^  expected: \"docker.io/library/other:latest\"$", done.stdout, re.MULTILINE)
    assert done.stdout.splitlines()[-1] == "registries: 3 of 4 agree"


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"\n\n", b"{", b"\xff\xfe", None], ids=repr)
def test_a_file_without_cases_is_a_failure(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "vectors"
    if content is not None:
        file.write_bytes(content)
    done = run("registries", VECTORS / "layers.jsonl", file) if content == b"{" else run("registries", file)
    assert done.returncode == 2
    assert "cannot use" in done.stderr
    assert "agree" not in done.stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
def test_an_unreadable_file_is_a_failure(tmp_path: Path) -> None:
    file = tmp_path / "vectors"
    file.write_text((VECTORS / "layers.jsonl").read_text())
    file.chmod(0)
    assert run("layers", file).returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [(), ("registries",), ("surprise", "file")])
def test_wrong_usage_is_told(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: conformance.py registries|auth|layers|mirrorsets FILE...")
