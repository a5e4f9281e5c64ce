"""A real journald in a mount namespace of its own: /run and the logs are empty there, and nobody else's are touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from real_programs import cannot, need

_JOURNALD = Path("/lib/systemd/systemd-journald")
_START = """\
set -eu
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log
mkdir -p /run/systemd/journal /run/log/journal
exec "$1"
"""
SOCKET = "/run/systemd/journal/socket"


class Journald:
    """Runs while its ``with`` block runs. Skips the test where there can be none."""

    def __enter__(self) -> Journald:
        need("journalctl", "unshare", "nsenter")
        if not _JOURNALD.exists():
            cannot(f"not installed here: {_JOURNALD}")
        if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0:
            cannot("no mount namespace can be made: it takes root, and a container that allows it")
        if not Path("/etc/machine-id").exists():
            cannot("/etc/machine-id is missing, without which journald does not start")
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(20)

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", _START, "sh", str(_JOURNALD)], stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + 20
        while self.run("test", "-S", SOCKET, check=False).returncode:
            assert time.monotonic() < end and self._process.poll() is None, "journald does not start"
            time.sleep(0.05)

    def run(
        self, *command: str | Path, check: bool = True, input: bytes = b"", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs a command that sees this journald and its journal."""
        done = subprocess.run(self.inside(command), input=input, capture_output=True, check=False, timeout=60, env=env)
        assert not check or done.returncode == 0, done.stderr.decode()
        return done

    def inside(self, command: Sequence[str | Path]) -> list[str]:
        return ["nsenter", "-t", str(self._process.pid), "-m", "--", *map(str, command)]

    def send(self, *entries: Mapping[str, str], user: int = 0) -> None:
        """Entries as the plugin would send them; returns when they can be read."""
        script = "import fcntl,json,os,select,sys\nfrom crio_credential_provider.platform.journal import Journal\n"
        script += f"os.setuid({user})\n"
        script += (
            f"for e in json.load(sys.stdin):\n j = Journal({SOCKET!r}, 'debug'); j.send(6, 'a run', e); j.stay()\n"
        )
        source = Path(__file__).resolve().parent.parent / "src"
        self.run(
            *("python3", "-c", script),
            input=json.dumps(entries).encode(),
            env={"PYTHONPATH": str(source), "PATH": os.environ["PATH"]},
        )
        self.sync()

    def sync(self) -> None:
        self.run("journalctl", "--sync")

    def entries(self, *matches: str) -> list[dict[str, Any]]:
        found = self.run("journalctl", "--quiet", "--no-pager", "-o", "json", *matches).stdout
        return [json.loads(line) for line in found.splitlines()]
