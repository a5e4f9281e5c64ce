#!/usr/bin/env python3
"""Kills runs of the plugin with SIGKILL at random moments, and looks at what that does to the others.

    python bench/kill.py [--rounds 200] [--runs 50] [--seed 1] [--plugin build/bin/crio-credential-provider]

Each round starts so many runs at once, for one image of one namespace, against the API server stand-in; every other one
is to be killed. Rounds take turns at three situations: ``checks`` (the image is present, nobody takes a file),
``pulls`` (pull intents, and a CRI-O that takes each file soon) and ``keepers`` (runs that may wait for 0.1 s only, so
that their keepers stay in line, and are killed as well). After each round must hold:

* every run that was not killed has answered in time: --hand-off-timeout's default, 30 s, and 5 s for the rest;
* whatever lay under the file's name was whole, and held this namespace's credential;
* one more run gets its turn within the grace, however the others ended;
* a later run sweeps the temporary files of killed ones (made 61 s old instead of waiting for a minute);
* no process is left.

Exit status: 0 all of it held in all rounds; 1 something did not, with the round and the seed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))
sys.path.insert(0, str(ROOT / "bench"))

from simulated_node import IMAGE, MIRROR, NAMESPACE, SimulatedNode  # noqa: E402

from crio_credential_provider import settings  # noqa: E402
from crio_credential_provider.kubernetes import pullintents  # noqa: E402
from crio_credential_provider.pull import authfile  # noqa: E402
from crio_credential_provider.testbed.cluster import ApiServer  # noqa: E402

NAME = authfile.file_name(NAMESPACE, IMAGE)
SITUATIONS = ("checks", "pulls", "keepers")
DEFAULTS = settings.loads([], {})

BOUND = DEFAULTS.hand_off_timeout + 5
"""Seconds in which each run has answered."""

STALE = 61.0
"""Seconds of age to which temporary files are set; the sweep's bound is 60."""

# Base64 of u:p, the credential in simulated_node.
CONTENT = {"auths": {f"{MIRROR}/library/nginx": {"auth": "dTpw"}}}


class Failure(Exception):
    """What did not hold."""


class Ended(NamedTuple):
    """One run: its exit status (-9: killed), what it wrote and how long it took."""

    status: int
    stdout: bytes
    stderr: bytes
    seconds: float


@dataclass
class Count:
    """What came of all rounds."""

    rounds: int = 0
    killed: int = 0
    answered: int = 0
    keepers_killed: int = 0
    taken: int = 0
    temporary: int = 0
    longest: float = 0.0
    longest_next: float = 0.0
    usual: float = 0.0
    situations: dict[str, int] = field(default_factory=dict)


class Bench:
    """One node through all rounds, so that whatever a round leaves behind meets the next."""

    def __init__(self, root: Path, plugin: Sequence[str], cluster: ApiServer, seed: int) -> None:
        self.node = SimulatedNode(root, plugin, cluster)
        self.node.prepare()
        self.intent = root / "var/lib/kubelet" / pullintents.DIRECTORY / "sha256-0"
        self.count = Count()
        self._root = root
        self._random = random.Random(seed)
        cluster.add_pod(NAMESPACE, "pod", "node1")
        self._token = cluster.mint_token(NAMESPACE, "default", "pod", expires_in=86400)
        self._command = [*plugin, "--root", str(root), "--apiserver", cluster.url]
        self._command += ["--certificate-authority", str(root / "ca.crt"), "--journal-socket="]
        # How long a round lasts, so that the moments of the kills are spread over all of it.
        self._span = 1.0

    # -- runs ----------------------------------------------------------------------------------------------------------

    def run(self, *flags: str, image: str = IMAGE, kill_after: float | None = None) -> Ended:
        """One run, killed after so many seconds unless it has ended."""
        request = {
            "kind": "CredentialProviderRequest",
            "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
            "image": image,
            "serviceAccountToken": self._token,
        }
        begin = time.monotonic()
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen([*self._command, *flags], **pipes) as process:  # type: ignore[call-overload]
            data = json.dumps(request).encode()
            limit = BOUND + 10 if kill_after is None else kill_after
            try:
                out, err = process.communicate(data, timeout=limit)
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = process.communicate()
            return Ended(process.returncode, out, err, time.monotonic() - begin)

    def keepers(self) -> list[int]:
        """Processes of the plugin; between rounds and at the end of one, only keepers."""
        mark = str(self._root).encode()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return [process for process in found if process != os.getpid()]

    # -- files ---------------------------------------------------------------------------------------------------------

    def take(self) -> bool:
        """CRI-O's part: takes the file, if there is one, and reads it."""
        taken = self.node.auth_directory / f"in-use-{uuid.uuid4()}"
        try:
            (self.node.auth_directory / NAME).rename(taken)
        except FileNotFoundError:
            return False
        self._check_whole(taken)
        taken.unlink()
        return True

    @staticmethod
    def _check_whole(path: Path) -> None:
        data = path.read_bytes()
        try:
            content = json.loads(data)
        except ValueError:
            raise Failure(f"a torn file of {len(data)} bytes") from None
        if content != CONTENT:
            raise Failure("a file with another content")

    def temporary_files(self) -> list[Path]:
        return [path for path in self.node.auth_directory.iterdir() if authfile.is_temporary(path.name)]

    @contextlib.contextmanager
    def _taking(self, every: float) -> Iterator[None]:
        """Takes files as they come, as long as the block runs. Failure where one was torn."""
        over = threading.Event()
        failures: list[Failure] = []

        def work() -> None:
            while not over.wait(every):
                try:
                    self.count.taken += self.take()
                except Failure as failure:
                    failures.append(failure)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        if failures:
            raise failures[0]

    # -- a round -------------------------------------------------------------------------------------------------------

    def measure(self) -> None:
        """How long a run takes that meets nobody."""
        seconds = []
        for _ in range(5):
            ended = self.run()
            if ended.status:
                raise Failure(f"the plugin does not work here: {ended.stderr.decode()}")
            seconds.append(ended.seconds)
            self.take()
        self.count.usual = sorted(seconds)[2]

    def play(self, number: int, runs: int) -> None:
        """One round. Failure where something does not hold after it."""
        situation = SITUATIONS[number % len(SITUATIONS)]
        if situation != "checks":
            self.intent.write_text(json.dumps({"kind": "ImagePullIntent", "image": IMAGE}))
        flags = ["--hand-off-timeout=100ms"] if situation == "keepers" else []
        kills = [self._random.uniform(0, self._span) if self._random.random() < 0.5 else None for _ in range(runs)]
        begin = time.monotonic()
        with contextlib.ExitStack() as stack:
            if situation != "checks":
                stack.enter_context(self._taking(0.002 if situation == "pulls" else 0.02))
            with ThreadPoolExecutor(runs) as pool:
                ended = list(pool.map(lambda kill_after: self.run(*flags, kill_after=kill_after), kills))
            self._span = min(time.monotonic() - begin, 3.0)
            self._end_keepers(number)
        self.intent.unlink(missing_ok=True)
        self._check(ended)
        self._check_next()
        self._check_sweep()
        self.count.rounds += 1
        self.count.situations[situation] = self.count.situations.get(situation, 0) + 1

    def _end_keepers(self, number: int) -> None:
        """Kills every other keeper; for the rest either the pulls go on, or they are over."""
        for keeper in self.keepers():
            if self._random.random() < 0.5:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(keeper, signal.SIGKILL)
                    self.count.keepers_killed += 1
        if number % 2:
            self.intent.unlink(missing_ok=True)
        deadline = time.monotonic() + BOUND
        while self.keepers():
            if time.monotonic() > deadline:
                raise Failure(f"{len(self.keepers())} keepers stayed in line")
            time.sleep(0.02)

    def _check(self, ended: Sequence[Ended]) -> None:
        for run in ended:
            if run.status == -signal.SIGKILL and run.seconds < BOUND:
                self.count.killed += 1
                continue
            if run.seconds >= BOUND:
                raise Failure(f"a run took {run.seconds:.1f} s, of {BOUND:g} at most")
            if run.status or json.loads(run.stdout)["kind"] != "CredentialProviderResponse":
                raise Failure(f"a run ended with {run.status}: {run.stderr.decode()}")
            self.count.answered += 1
            self.count.longest = max(self.count.longest, run.seconds)
        path = self.node.auth_directory / NAME
        if path.exists():
            self._check_whole(path)

    def _check_next(self) -> None:
        """The next run meets at most a file that nobody comes for, and no lock that is left."""
        ended = self.run()
        if ended.status:
            raise Failure(f"the next run ended with {ended.status}: {ended.stderr.decode()}")
        # Twice what a run usually takes and half a second: this machine may have other work.
        limit = DEFAULTS.hand_off_grace + 2 * self.count.usual + 0.5
        if ended.seconds > limit:
            raise Failure(f"the next run took {ended.seconds:.2f} s, of {limit:.2f} at most")
        self.count.longest_next = max(self.count.longest_next, ended.seconds)
        if not self.take():
            raise Failure("the next run left no file")

    def _check_sweep(self) -> None:
        left = self.temporary_files()
        for path in left:
            os.utime(path, (time.time() - STALE,) * 2)
        self.count.temporary += len(left)
        ended = self.run(image="quay.io/without/mirror")
        if ended.status:
            raise Failure(f"the sweeping run ended with {ended.status}: {ended.stderr.decode()}")
        if self.temporary_files():
            raise Failure(f"{len(self.temporary_files())} temporary files were not swept")
        if self.keepers():
            raise Failure("a process is left")


def summary(count: Count) -> str:
    """One line of figures."""
    situations = ", ".join(f"{number} {name}" for name, number in count.situations.items())
    return (
        f"{count.rounds} rounds ({situations}): {count.killed} runs killed, {count.answered} answered, "
        f"{count.keepers_killed} keepers killed; {count.taken} files taken, 0 torn; {count.temporary} temporary files "
        f"left by killed runs, all swept; longest run {count.longest:.2f} s of {BOUND:g}; next run "
        f"{count.longest_next:.2f} s at most, {count.usual:.2f} usually"
    )


def main() -> int:
    # Each run has a thread; the default of 5 ms would let each wait for all others in turn.
    sys.setswitchinterval(0.0005)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--runs", type=int, default=50, help="started at once in each round")
    parser.add_argument("--seed", type=int, default=1, help="of the moments at which runs are killed")
    parser.add_argument("--plugin", default=str(ROOT / "build/bin/crio-credential-provider"))
    given = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as directory, ApiServer() as cluster:
        bench = Bench(Path(directory), [given.plugin], cluster, given.seed)
        number = 0
        try:
            bench.measure()
            for number in range(1, given.rounds + 1):
                bench.play(number, given.runs)
                if sys.stdout.isatty() or number % 20 == 0:
                    print(f"round {number}: {bench.count.killed} killed, {bench.count.answered} answered", flush=True)
        except Failure as failure:
            print(f"kill.py: round {number}, seed {given.seed}: {failure}", file=sys.stderr)
            return 1
    print(f"{summary(bench.count)}; all in {time.monotonic() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
