"""Counts the instructions that a program executes in user space: with perf, else with valgrind.

Few machines let a guest or a container read the hardware's counters. valgrind counts on every machine, and the same
again and again, at a hundred times the run time.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

# What systemd gives a service: no HOME, no locale.
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


class Counter:
    """One way to count.

    Args:
        name: ``perf`` or ``callgrind``.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def count(self, command: Sequence[str], stdin: Path, environment: Mapping[str, str] = ENVIRONMENT) -> int:
        """Instructions of a command and of all that it executes, for a standard input.

        Raises:
            AssertionError: it failed, or nothing was counted.
        """
        with tempfile.NamedTemporaryFile("r") as told, stdin.open("rb") as file:
            done = subprocess.run(
                [*self._wrapper(told.name), *command],
                stdin=file,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment,
                check=False,
            )
            text = told.read()
        assert done.returncode == 0, f"exit status {done.returncode}: {done.stderr.decode(errors='replace')[-2000:]}"
        counts = re.findall(r"Collected : (\d+)" if self.name == "callgrind" else r"^(\d+),,instructions", text, re.M)
        assert counts, text
        return sum(map(int, counts))

    def _wrapper(self, told: str) -> list[str]:
        if self.name == "perf":
            return ["perf", "stat", "--event", "instructions:u", "--field-separator", ",", "--output", told]
        follow = ["--trace-children=yes", f"--log-file={told}", "--callgrind-out-file=/dev/null"]
        return ["valgrind", "--tool=callgrind", *follow]


def find_counter() -> Counter | None:
    """The cheapest that works here."""
    for counter in Counter("perf"), Counter("callgrind"):
        program = counter._wrapper("")[0]
        if shutil.which(program):
            try:
                counter.count(["/bin/true"], Path("/dev/null"))
                return counter
            except AssertionError:
                continue
    return None
