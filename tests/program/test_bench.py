"""The bench measures what it says, and takes nothing for a result that is none."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import budget
import canned_apiserver
import cases
import pytest
import report

import pull
from crio_credential_provider.pull import authfile
from node import SOURCES
from real_programs import need

BENCH = SOURCES.parent / "bench"

ONE_SECRET = "1 secret, P-256"


def run_bench(directory: Path, *flags: str, peer: str = "") -> subprocess.CompletedProcess[str]:
    """`make bench` without its plot, for a case or two."""
    need("gcc")
    results = directory / "pull.json"
    command = [sys.executable, str(BENCH / "pull.py"), "--no-instructions", "--results", str(results), *flags]
    environment = {**os.environ, "PYTHONPATH": str(SOURCES), "PEER": peer}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)


def can_have_a_namespace() -> bool:
    if os.geteuid():
        return False
    return subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode == 0


# -- whole runs -------------------------------------------------------------------------------------------------------


def test_a_bench_of_two_cases(tmp_path: Path, plugin: Path) -> None:
    flags = ("--plugin", f"given={plugin}", "--pairs", "2", "--cases", f"no mirror;{ONE_SECRET}")
    done = run_bench(tmp_path, *flags)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "pull.json").read_text())
    assert set(results["cases"]) == {"no mirror", ONE_SECRET}
    for row in results["cases"].values():
        measured = row["given"]
        assert 1 < measured["cpu"] < 10_000
        assert 1 < measured["wall"] < 10_000
        # An interpreter needs some 8 MiB; the bench itself, whose memory must not count, 30.
        assert 8 < measured["memory"] < 28
    assert "no peer" in done.stderr
    assert ONE_SECRET in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not can_have_a_namespace(), reason="a peer needs root and a mount namespace")
@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("exit 1", "exit status 1"),
        ('echo \'{"kind": "Nothing"}\'', "Nothing"),
        ('echo \'{"kind": "CredentialProviderResponse"}\'', "auth files []"),
    ],
)
def test_a_peer_that_does_not_do_the_work_is_no_result(tmp_path: Path, script: str, complaint: str) -> None:
    peer = tmp_path / "peer"
    peer.write_text(f"#!/bin/sh\n{script}\n")
    peer.chmod(0o755)
    done = run_bench(tmp_path, "--pairs", "1", "--cases", ONE_SECRET, peer=str(peer))
    assert done.returncode != 0
    assert complaint in done.stderr
    assert not (tmp_path / "pull.json").exists()


@pytest.mark.skipif(not can_have_a_namespace(), reason="nothing of the machine is touched without one anyway")
def test_a_bench_leaves_the_machine_as_it_was(tmp_path: Path, plugin: Path) -> None:
    places = [Path(place) for place in ("/etc/crio", "/etc/kubernetes", "/var/lib/kubelet", "/etc/containers")]
    before = [sorted(place.rglob("*")) if place.exists() else None for place in places]
    flags = ("--plugin", f"given={plugin}", "--pairs", "1", "--cases", "no mirror")
    assert run_bench(tmp_path, *flags).returncode == 0
    assert [sorted(place.rglob("*")) if place.exists() else None for place in places] == before


@pytest.mark.slow
def test_memory_is_that_of_the_program(tmp_path: Path) -> None:
    """Linux hands the peak of whoever starts a process on to it: this process is made large first."""
    need("gcc")
    ballast = bytearray(b"x") * (200 << 20)
    command = [pull.build_c(tmp_path, "spawner")]
    order = "\t".join(("2", os.devnull, os.devnull, str(tmp_path / "0"), str(tmp_path / "1"), "/bin/echo", "hello"))
    done = subprocess.run(command, input=f"{order}\n", capture_output=True, text=True, check=True)
    floor, told = done.stdout.splitlines()
    wall, cpu, peak, *statuses = told.split()
    assert statuses == ["0", "0"]
    assert float(wall) > 0 and float(cpu) >= 0
    assert int(peak) <= max(int(floor), 16 << 10) < len(ballast) >> 10
    assert [(tmp_path / name).read_text() for name in "01"] == ["hello\n"] * 2


# -- what is sent and what is expected --------------------------------------------------------------------------------


def body_of(answer: canned_apiserver.Answer) -> tuple[bytes, Any]:
    """Head and document of an answer, its chunks taken apart strictly."""
    head, _, rest = b"".join(answer.plain).partition(b"\r\n\r\n")
    if b"Transfer-Encoding: chunked" not in head:
        return head, json.loads(rest)
    body = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        chunk, rest = rest[: int(size, 16)], rest[int(size, 16) :]
        assert rest[:2] == b"\r\n"
        rest = rest[2:]
        if not chunk:
            assert not rest
            return head, json.loads(body)
        assert len(chunk) <= canned_apiserver.CHUNK
        body += chunk


def test_a_canned_list_is_a_recorded_one_with_other_secrets() -> None:
    keys = [f"registry-{number}.example.com" for number in range(300)]
    answer = canned_apiserver.secret_list("team-x", keys)
    _, document = body_of(answer)
    recorded = json.loads(
        (SOURCES.parent / "tests/recordings/apiserver/list-secrets-200.http").read_bytes().split(b"\r\n\r\n")[1]
    )
    assert list(document) == list(recorded)
    assert document["items"][7]["metadata"].keys() == recorded["items"][0]["metadata"].keys()
    assert document["items"][7]["metadata"]["managedFields"] == recorded["items"][0]["metadata"]["managedFields"]
    configs = [json.loads(base64.b64decode(item["data"][".dockerconfigjson"])) for item in document["items"]]
    assert [next(iter(config["auths"])) for config in configs] == keys
    assert max(map(len, answer.plain)) <= canned_apiserver.WRITE
    assert b"Content-Encoding: gzip" in b"".join(answer.compressed)
    assert (
        canned_apiserver.secret_list("team-x", keys[:10]).compressed
        == canned_apiserver.secret_list("team-x", keys[:10]).plain
    )


def test_every_case_has_its_answers_and_the_mirrors_their_secrets() -> None:
    prebuilt = cases.answers(cases.CASES)
    for case in cases.CASES:
        assert len(case.keys) == case.secrets
        if case.secrets:
            assert set(cases.mirror_hosts(case.mirrors)) <= set(case.keys)
            assert any(path.startswith(f"/api/v1/namespaces/{case.namespaces[-1]}/") for path in prebuilt)
    assert len({case.name for case in cases.CASES}) == len(cases.CASES)


@pytest.mark.parametrize("wrong", ["nothing", "another file", "another password", "another registry"])
def test_a_wrong_auth_file_is_seen(tmp_path: Path, wrong: str) -> None:
    case, host = cases.Case("one", 1), cases.mirror_hosts(1)[0]
    directory = tmp_path / "etc/crio/auth"
    directory.mkdir(parents=True)
    node, answer = cases.Node(tmp_path), b'{"kind": "CredentialProviderResponse"}'
    name = authfile.file_name(case.namespaces[0], cases.IMAGE)
    good = {"auths": {host: {"auth": canned_apiserver.credential(host)}}}
    (directory / name).write_text(json.dumps(good))
    node.check(case, [answer])
    if wrong == "nothing":
        (directory / name).unlink()
    elif wrong == "another file":
        (directory / name).rename(directory / "x.json")
    elif wrong == "another password":
        (directory / name).write_text(json.dumps({"auths": {host: {"auth": canned_apiserver.credential("x")}}}))
    else:
        (directory / name).write_text(json.dumps({"auths": {f"x.{host}": good["auths"][host]}}))
    with pytest.raises(AssertionError):
        node.check(case, [answer])


# -- the budget -------------------------------------------------------------------------------------------------------

BUILD = "Python 3.11, OpenSSL 3, x86_64"


def judged(least: int, build: str = BUILD) -> tuple[str, bool]:
    lines, kept = budget.judge(build, {"no mirror": budget.Figure(least, 0.004)}, {BUILD: {"no mirror": 1_000_000}})
    return "\n".join(lines), kept


@pytest.mark.parametrize(
    ("least", "kept"), [(1_000_000, True), (1_030_000, True), (1_031_000, False), (2_000_000, False)]
)
def test_more_than_3_percent_over_breaks_the_budget(least: int, kept: bool) -> None:
    text, verdict = judged(least)
    assert verdict is kept
    assert ("MORE THAN 3% OVER" in text) is not kept
    assert ("BUDGET=--write" in text) is not kept


def test_a_budget_that_could_be_lowered_says_so() -> None:
    assert "could be lowered" in judged(900_000)[0]


def test_an_interpreter_without_figures_is_not_passed_over() -> None:
    text, kept = judged(2_000_000, "Python 3.99")
    assert not kept
    assert "no figures" in text and "2,000,000" in text and "BUDGET=--write" in text


def test_the_committed_figures_are_of_both_cases() -> None:
    committed = json.loads(budget.FIGURES.read_text())
    assert committed
    for build, figures in committed.items():
        assert build.startswith("Python 3.") and build.endswith(("x86_64", "aarch64"))
        assert set(figures) == {case.name for case in budget.CASES}
        assert all(isinstance(figure, int) for figure in figures.values())


@pytest.mark.slow
def test_the_build_is_what_the_program_says_of_itself(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("""#!/bin/sh\necho '{"pythonVersion": "3.13.5", "platform": "linux/x86_64"}'\n""")
    program.chmod(0o755)
    assert budget.build_of(program) == "Python 3.13.5, linux/x86_64"


# -- the report -------------------------------------------------------------------------------------------------------

RESULTS: dict[str, Any] = {
    "machine": "a machine",
    "python": "Python 3.11.2",
    "pairs": 30,
    "contenders": ["executable", "peer"],
    "counter": "perf",
    "cases": {
        "1 secret": {
            "executable": {"wall": 10.0, "cpu": 8.0, "memory": 12.0, "instructions": 60.0},
            "peer": {"wall": 20.0, "cpu": 10.0, "memory": 20.0},
        },
        "pod": {"executable": {"wall": 11.0, "cpu": 9.0, "memory": 13.0}},
    },
}


@pytest.fixture
def document(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "performance.md"
    path.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    yield path


def test_the_table_has_medians_and_ratios() -> None:
    text = report.table(RESULTS)
    rows = [line.split() for line in text.splitlines()]
    assert ["1", "secret", "10.0", "20.0", "0.50"] in rows
    assert ["1", "secret", "8.0", "10.0", "0.80"] in rows
    assert ["pod", "11.0"] in rows
    assert "instructions, millions, by perf" in text


def test_the_document_s_section_is_replaced(document: Path) -> None:
    report.write_document(RESULTS, document)
    text = document.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| 1 secret | 10.0 | 20.0 | 0.50 |" in text
    report.write_document(RESULTS, document)
    assert document.read_text() == text


def test_the_committed_document_has_the_section() -> None:
    text = (SOURCES.parent / "docs/explanation/performance.md").read_text()
    assert 0 <= text.index(report.BEGIN) < text.index(report.END)
