#!/usr/bin/env python3
"""Measures a whole run of the plugin, as a kubelet starts it, against a local API server; with PEER beside another one.

    make bench                                     what is built: the executable in dist, the system launch in build
    PEER=/path/to/another/plugin make bench        that program as well, run by run in turns, and ratios to it
    make bench BENCH='--cases "1 secret" --pairs 100'

A run is from posix_spawn to the end of the process; each is checked for what it leaves behind (``cases``). Wall time,
CPU of the process (user and system), peak resident memory: medians. Instructions are those of user space, counted by
perf where the machine lets it, else by valgrind, for a few cases. The contenders take turns, and the order is turned
round after each round, so that a busy moment hits all.

As root everything runs at the places where a node has it, in a mount namespace of its own, with a journald that throws
away what it gets. Otherwise the peer, which may know no other places, is ignored, and the plugin runs with --root.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from canned_apiserver import CannedApiServer
from cases import CASES, Case, Certificates, Node, answers, make_certificates, request
from instructions import ENVIRONMENT, Counter, find_counter
from report import table, write_document, write_plot

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = "crio-credential-provider"
SYSTEM, EXECUTABLE, PEER, LIMIT = "system launch", "executable", "peer", "limit"
ARCHITECTURE = "arm64" if platform.machine() == "aarch64" else "amd64"
LIBRARIES = ROOT / f"build/executable/{ARCHITECTURE}/openssl"
DEFAULT_EXECUTABLE = ROOT / f"dist/{PLUGIN}-linux-{ARCHITECTURE}"

# Cases in which instructions are counted: valgrind takes a hundred times as long.
COUNTED = ("no mirror", "1 secret", "200 secrets")


class Contender(NamedTuple):
    """A plugin.

    Attributes:
        name: for the table.
        command: program and arguments.
        takes_flags: whether it has this project's flags.
    """

    name: str
    command: tuple[str, ...]
    takes_flags: bool

    def can(self, case: Case) -> bool:
        return self.takes_flags or not case.flags


# -- contenders -------------------------------------------------------------------------------------------------------


def find_contenders(given: argparse.Namespace, root: str) -> list[Contender]:
    """Those that are there; says which are not, and why."""
    flags = ("--root", root) if root else ()
    found = []
    for name, path, target in (
        (EXECUTABLE, DEFAULT_EXECUTABLE, "executable"),
        (SYSTEM, ROOT / "build/bin" / PLUGIN, "build"),
    ):
        if path.exists():
            found.append(Contender(name, (str(path), *flags), True))
        else:
            say(f"no {name}: {path} is missing (make {target})")
    for name, _, path in (text.partition("=") for text in given.plugin):
        found.append(Contender(name, (os.path.abspath(path), *flags), True))
    if not given.peer:
        say("no peer: PEER names none")
    elif root:
        say("no peer: its files are at fixed places, which takes root and a mount namespace")
    else:
        found.append(Contender(PEER, (os.path.abspath(given.peer),), False))
    if not found:
        sys.exit("pull: nothing to measure")
    return found


def build_limit(scratch: Path) -> Path | None:
    """limit.c with the OpenSSL of the executable; None where that was not built here."""
    if not (LIBRARIES / "libssl.a").exists():
        say(f"no limit: {LIBRARIES} is missing (make executable)")
        return None
    include = f"-I{LIBRARIES / 'installed/include'}"
    return build_c(scratch, LIMIT, include, LIBRARIES / "libssl.a", LIBRARIES / "libcrypto.a")


def build_c(scratch: Path, name: str, *further: str | Path) -> Path:
    """A static program of bench/NAME.c."""
    if shutil.which("gcc") is None:
        sys.exit("pull: gcc is not installed (Debian: packages gcc and libc6-dev)")
    target = scratch / name
    subprocess.run(
        ["gcc", "-O2", "-static", ROOT / f"bench/{name}.c", *further, "-o", target], check=True, capture_output=True
    )
    return target


# -- a node of its own ------------------------------------------------------------------------------------------------


def why_no_namespace() -> str:
    """Why there can be no mount namespace of its own; "" where there can."""
    if os.geteuid():
        return "not root"
    done = subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True, text=True)
    return done.stderr.strip() if done.returncode else ""


def enter_namespace() -> NoReturn:
    """Runs this program again, in a mount namespace of its own."""
    inside = [sys.executable, *sys.argv, "--inside"]
    os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", *inside])


def make_node_places(scratch: Path) -> None:
    """Puts a throw-away layer over what a node's files lie in, so that nothing of it reaches this machine's."""
    layers = scratch / "layers"
    layers.mkdir()
    _mount("-t", "tmpfs", "tmpfs", str(layers))
    for place in ("etc", "var/lib", "run"):
        upper, work = layers / place / "upper", layers / place / "work"
        upper.mkdir(parents=True)
        work.mkdir()
        _mount("-t", "overlay", "-o", f"lowerdir=/{place},upperdir={upper},workdir={work}", "overlay", f"/{place}")
    # The layers stay for those that use them; the directory can be removed.
    subprocess.run(["umount", "--lazy", str(layers)], check=True)
    for place in ("etc/containers", "etc/kubernetes", "etc/crio", "var/lib/kubelet", "run/crio-credential-provider"):
        Path("/", place).mkdir(parents=True, exist_ok=True)
        _mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", f"/{place}")
    Path("/run/systemd/journal").mkdir(parents=True, exist_ok=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


@contextlib.contextmanager
def journald(path: Path) -> Iterator[None]:
    """A journald that reads what it is sent, in a process of its own, and keeps nothing.

    A real one takes longer for an entry, so that whoever sends many waits for it longer than here.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    channel.bind(str(path))
    process = os.fork()
    if not process:
        buffer = bytearray(1 << 18)
        while buffer[: channel.recv_into(buffer)] != _LAST:
            pass
        os._exit(0)
    try:
        yield
    finally:
        channel.connect(str(path))
        channel.send(_LAST)
        os.waitpid(process, 0)
        channel.close()


_LAST = b"the bench is over"


# -- measuring --------------------------------------------------------------------------------------------------------


class Sample(NamedTuple):
    """One run, or several at a time: milliseconds until the last has ended, of CPU of all, MiB of the largest."""

    wall: float
    cpu: float
    memory: float


class Bench:
    """Runs contenders in one case after another."""

    def __init__(self, scratch: Path, node: Node, spawner: subprocess.Popen[str]) -> None:
        self._scratch = scratch
        self._node = node
        self._spawner = spawner

    def run(self, contender: Contender, case: Case) -> Sample:
        """One run, checked.

        Raises:
            AssertionError: it did not do what it should.
        """
        inputs = [str(self._scratch / f"request-{number}") for number in range(case.at_once)]
        outputs = [str(self._scratch / f"answer-{number}") for number in range(case.at_once)]
        self._node.before_run(case)
        order = "\t".join((str(case.at_once), *inputs, *outputs, *contender.command, *case.flags))
        assert self._spawner.stdin is not None and self._spawner.stdout is not None
        self._spawner.stdin.write(f"{order}\n")
        self._spawner.stdin.flush()
        wall, cpu, memory, *statuses = self._spawner.stdout.readline().split()
        assert set(statuses) == {"0"}, f"exit status {' '.join(statuses)}: {self._complaint(contender, case)}"
        if contender.name != LIMIT:
            self._node.check(case, [Path(output).read_bytes() for output in outputs])
        return Sample(float(wall) * 1000, float(cpu) * 1000, float(memory) / 1024)

    def _complaint(self, contender: Contender, case: Case) -> str:
        """What the program says on stderr when it is run once more."""
        self._node.before_run(case)
        with open(self._scratch / "request-0", "rb") as stdin:
            done = subprocess.run(
                [*contender.command, *case.flags], stdin=stdin, capture_output=True, check=False, env={}
            )
        return done.stderr.decode(errors="replace")[-2000:]

    def prepare(self, case: Case, contenders: Sequence[Contender]) -> None:
        """Writes the requests, and runs each contender twice: for the page cache, and for the kept configuration."""
        for number, namespace in enumerate(case.namespaces):
            (self._scratch / f"request-{number}").write_bytes(request(namespace))
        for contender in (*contenders, *contenders):
            self.run(contender, case)
            if contender.takes_flags:
                assert self._node.keeps_forms(), f"{contender.name} keeps no parsed configuration"

    def measure(self, case: Case, contenders: Sequence[Contender], pairs: int) -> dict[str, list[Sample]]:
        """The samples of each contender, taken in turns."""
        self.prepare(case, contenders)
        samples: dict[str, list[Sample]] = {contender.name: [] for contender in contenders}
        for pair in range(pairs):
            for contender in contenders if pair % 2 == 0 else contenders[::-1]:
                samples[contender.name].append(self.run(contender, case))
        return samples

    def count(self, case: Case, contender: Contender, counter: Counter) -> int:
        """Instructions of user space, the least of three runs."""
        counts = []
        for _ in range(3):
            self._node.before_run(case)
            counts.append(counter.count([*contender.command, *case.flags], self._scratch / "request-0"))
            self._node.check(case, [])
        return min(counts)


def summary(samples: Sequence[Sample]) -> dict[str, float]:
    return {name: statistics.median(getattr(s, name) for s in samples) for name in Sample._fields}


@contextlib.contextmanager
def spawner(scratch: Path) -> Iterator[subprocess.Popen[str]]:
    program = build_c(scratch, "spawner")
    with subprocess.Popen(
        [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        say(f"memory below {int(process.stdout.readline()) / 1024:.1f} MiB cannot be told")
        yield process
        process.stdin.close()


def measure_all(given: argparse.Namespace, cases: Sequence[Case], scratch: Path, root: str) -> dict[str, Any]:
    """Everything that was asked for, as plain data."""
    contenders = find_contenders(given, root)
    limit = build_limit(scratch)
    kinds = {case.certificate for case in cases}
    certificates = {kind: make_certificates(kind, scratch / kind.replace(" ", "-")) for kind in sorted(kinds)}
    node = Node(Path(root or "/"))
    counter = None if given.no_instructions else find_counter()
    prebuilt = answers(cases)
    results: dict[str, Any] = {
        "machine": machine(),
        "pairs": given.pairs,
        "contenders": [*(c.name for c in contenders), *([LIMIT] if limit else ())],
    }
    results["python"] = python_of(ROOT / "build/bin" / PLUGIN)
    results["counter"] = counter.name if counter else ""
    results["cases"] = {}
    with contextlib.ExitStack() as stack:
        ports = {kind: stack.enter_context(_server(files, prebuilt)) for kind, files in certificates.items()}
        stack.enter_context(journald(Path(root or "/", "run/systemd/journal/socket")))
        bench = Bench(scratch, node, stack.enter_context(spawner(scratch)))
        for case in cases:
            node.lay_out(case, ports[case.certificate], certificates[case.certificate])
            able = [contender for contender in contenders if contender.can(case)]
            if limit and not case.flags:
                connection = [str(certificates[case.certificate].authority), str(ports[case.certificate])]
                able.append(Contender(LIMIT, (str(limit), *(connection if case.secrets else ())), False))
            begin = time.monotonic()
            measured = bench.measure(case, able, given.pairs)
            row = results["cases"][case.name] = {name: summary(samples) for name, samples in measured.items()}
            for contender in contenders if counter and case.name in COUNTED else ():
                assert counter is not None
                try:
                    row[contender.name]["instructions"] = bench.count(case, contender, counter) / 1e6
                except AssertionError as error:
                    # Not every program survives valgrind.
                    say(f"{case.name}: no instructions of {contender.name}: {str(error).partition(chr(10))[0]}")
            say(f"{case.name}: {time.monotonic() - begin:.0f} s")
    return results


def _server(files: Certificates, prebuilt: dict[str, Any]) -> CannedApiServer:
    return CannedApiServer(files.server, files.authority, prebuilt)


def machine() -> str:
    """What it ran on, for the head of the table."""
    with open("/proc/cpuinfo") as info:
        models = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
    cpu = models[0] if models else platform.machine()
    return f"{len(os.sched_getaffinity(0))} x {cpu}, Linux {platform.release().partition('-')[0]}"


def python_of(launcher: Path) -> str:
    """What the system launch runs on."""
    if not launcher.exists():
        return "no Python"
    with launcher.open() as file:
        interpreter = file.readline().removeprefix("#!").split()[0]
    return subprocess.run([interpreter, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def say(text: str) -> None:
    print(f"pull: {text}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="*", help="names of cases, separated by semicolons; * stands for anything")
    parser.add_argument("--pairs", type=int, default=30, help="measured runs of each contender in each case")
    parser.add_argument("--peer", default=os.environ.get("PEER", ""), help="another plugin; $PEER")
    parser.add_argument("--plugin", action="append", default=[], metavar="NAME=PATH", help="one more of our launchers")
    parser.add_argument("--no-instructions", action="store_true", help="count none, which takes most of the time")
    parser.add_argument("--results", type=Path, default=ROOT / "build/bench/pull.json", help="where to write figures")
    parser.add_argument("--show", action="store_true", help="measure nothing, show the figures in --results")
    parser.add_argument("--document", action="store_true", help="bring docs/explanation/performance.md up to date")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.show:
        results = json.loads(given.results.read_text())
    else:
        reason = "" if given.inside else why_no_namespace()
        if not given.inside and not reason:
            enter_namespace()
        patterns = given.cases.split(";")
        cases = [case for case in CASES if any(fnmatch.fnmatchcase(case.name, pattern) for pattern in patterns)]
        if not cases:
            parser.error(f"--cases {given.cases!r}: no such case; there are {'; '.join(case.name for case in CASES)}")
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            if given.inside:
                make_node_places(Path(scratch))
            else:
                say(f"without a mount namespace of its own ({reason}): with --root")
            root = "" if given.inside else f"{scratch}/root"
            results = measure_all(given, cases, Path(scratch), root)
        given.results.parent.mkdir(parents=True, exist_ok=True)
        given.results.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))
    if given.document:
        write_document(results, ROOT / "docs/explanation/performance.md")
    plot = ROOT / "docs/explanation/performance.png" if given.document else given.results.with_suffix(".png")
    write_plot(results, plot)


if __name__ == "__main__":
    main()
