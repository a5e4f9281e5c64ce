"""One process with its log, and waiting with a deadline.

The sandbox ends every process with the run; `Process` ends one earlier.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")
_INTERVAL = 0.1
# Of a log, in an error.
_LINES = 20


class RigError(Exception):
    """The node itself failed, not what is tested on it."""


def wait_until(condition: Callable[[], _T | None], seconds: float) -> _T | None:
    """The condition's first result that is true, or its last one when the time is over."""
    until = time.monotonic() + seconds
    while not (result := condition()) and time.monotonic() < until:
        time.sleep(_INTERVAL)
    return result


class Process:
    """A program of the node, which can be started and ended several times; its log goes on.

    Args:
        log: a file; standard output and standard error are appended.
        environment: all of it.
    """

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.command = list(command)
        self.log = log
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def name(self) -> str:
        return Path(self.command[0]).name

    @property
    def pid(self) -> int:
        assert self._process, f"{self.name} was not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        assert not self.running, f"{self.name} is running"
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_for(self, condition: Callable[[], object], what: str, seconds: float = 60) -> None:
        """Waits until something holds of this process.

        Raises:
            RigError: the process has ended, or the time is over; with the last lines of its log.
        """
        wait_until(lambda: condition() or not self.running, seconds)
        if not condition():
            state = "still running" if self.running else "it has ended"
            last = "\n".join(self.output().splitlines()[-_LINES:])
            raise RigError(f"{self.name}: {what}: not within {seconds} s, {state}; {self.log} ends:\n{last}")

    def output(self) -> str:
        """What it has written since it was started last."""
        return self.log.read_bytes()[self._log_start :].decode(errors="replace")

    def stop(self, seconds: float = 20) -> None:
        """By SIGTERM, as systemd does it, then by SIGKILL; nothing where it does not run."""
        if self.running:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            if not wait_until(lambda: not self.running, seconds):
                self.kill()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self._process
        self._process.wait()

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        assert self._process, f"{self.name} was not started"
        self._process.send_signal(number)
