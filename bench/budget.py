#!/usr/bin/env python3
"""Holds the instructions of a launch against the committed figures, and fails where one has grown by more than 3 %.

    make budget                                     compares
    make budget BUDGET=--write                      writes this machine's figures into bench/budget.json

Counted by valgrind's callgrind, user space only, for the executable in dist with a kept configuration: an image without
a mirror, and one whose mirror a single secret serves (TLS 1.3, P-256). An instruction count, other than a time, is the
same on a busy machine; what it depends on is the interpreter and the architecture, so that figures are kept for each,
and where there are none this fails and says what to commit. What is left of chance, TLS's random numbers, is small
against 3 %: the least of several runs counts, and the spread is printed.

The processor's extensions are held down to what every x86-64 has for glibc's and OpenSSL's choice of code.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from canned_apiserver import CannedApiServer
from cases import P256, Case, Node, answers, make_certificates, request
from instructions import ENVIRONMENT, Counter

from pull import DEFAULT_EXECUTABLE

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "bench/budget.json"
CASES = (Case("no mirror", mirrors=0), Case("1 secret", 1, certificate=P256))
GROWTH = 0.03
RUNS = 5

# So that another processor chooses the same code: of 1 %, with and without AVX2 and the like.
_PLAIN_PROCESSOR = {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-AVX512F,-BMI2,-ERMS", "OPENSSL_ia32cap": "0x0:0x0"}

_WRITE = "make budget BUDGET=--write keeps what is measured here"


class Figure(NamedTuple):
    """Instructions of a case: the least of its runs, and how much more the most took, as a part of it."""

    least: int
    spread: float


def build_of(plugin: Path) -> str:
    """What the figures of a program depend on: its interpreter and the machine."""
    told = json.loads(subprocess.run([plugin, "--version-json"], capture_output=True, check=True).stdout)
    return f"Python {told['pythonVersion']}, {told['platform']}"


def measure(plugin: Path, counter: Counter, runs: int = RUNS) -> dict[str, Figure]:
    """Counts each case, on a node and an API server of its own."""
    figures = {}
    with tempfile.TemporaryDirectory(prefix="budget-") as directory:
        scratch = Path(directory)
        certificates = make_certificates(P256, scratch / "certificates")
        node, message = Node(scratch / "root"), scratch / "request"
        command = [str(plugin), "--root", str(scratch / "root")]
        with CannedApiServer(certificates.server, certificates.authority, answers(CASES)) as port:
            for case in CASES:
                node.lay_out(case, port, certificates)
                message.write_bytes(request(case.namespaces[0]))
                with message.open("rb") as stdin:
                    subprocess.run(command, stdin=stdin, stdout=subprocess.DEVNULL, env=ENVIRONMENT, check=True)
                assert node.keeps_forms(), "no parsed configuration was kept"
                counts = []
                for _ in range(runs):
                    node.before_run(case)
                    counts.append(counter.count(command, message, {**ENVIRONMENT, **_PLAIN_PROCESSOR}))
                    node.check(case, [])
                figures[case.name] = Figure(min(counts), max(counts) / min(counts) - 1)
    return figures


def judge(build: str, measured: dict[str, Figure], committed: dict[str, dict[str, int]]) -> tuple[list[str], bool]:
    """What to tell, a line each, and whether the budget is kept."""
    allowed = committed.get(build)
    if allowed is None:
        found = [f"  {name:12} {figure.least:>13,}" for name, figure in measured.items()]
        return [f"no figures for it in bench/budget.json; {_WRITE}", *found], False
    lines, kept = [], True
    for name, figure in measured.items():
        growth = figure.least / allowed[name] - 1
        over = figure.least > allowed[name] * (1 + GROWTH)
        kept = kept and not over
        verdict = f"MORE THAN {GROWTH:.0%} OVER" if over else "could be lowered" if growth < -GROWTH else "kept"
        lines.append(
            f"  {name:12} {figure.least:>13,} of {allowed[name]:>13,}  {growth:+7.2%}  {verdict}"
            f"  (spread of the runs {figure.spread:.2%})"
        )
    if not kept:
        lines.append(f"make it cheaper, or say in the commit why it is worth more; {_WRITE}")
    return lines, kept


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--plugin", type=Path, default=DEFAULT_EXECUTABLE)
    parser.add_argument("--runs", type=int, default=RUNS, help="of which the least counts")
    parser.add_argument("--write", action="store_true", help="write the figures instead of comparing them")
    given = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("budget: valgrind is not installed (Debian: package valgrind)", file=sys.stderr)
        return 1
    build = build_of(given.plugin)
    committed = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    measured = measure(given.plugin, Counter("callgrind"), given.runs)
    if given.write:
        committed[build] = {name: figure.least for name, figure in measured.items()}
        FIGURES.write_text(json.dumps(committed, indent=2, sort_keys=True) + "\n")
    print(f"instructions of a launch, {build}")
    lines, kept = judge(build, measured, committed)
    print("\n".join(lines), flush=True)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
