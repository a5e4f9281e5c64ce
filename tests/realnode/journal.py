"""journald, started by hand: the sandbox's /run and /var/log are its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

from realnode.processes import Process

Entry = dict[str, str]


class Journal:
    def __init__(self, binaries: Mapping[str, str], logs: Path, environment: Mapping[str, str]) -> None:
        self._journalctl = binaries["journalctl"]
        self._socket = Path("/run/systemd/journal/socket")
        self.process = Process([binaries["systemd-journald"]], logs / "journald.log", environment)

    def start(self) -> None:
        for directory in (self._socket.parent, Path("/run/log/journal")):
            directory.mkdir(parents=True)
        self.process.start()
        self.process.wait_for(self._socket.exists, "socket")

    def stop(self) -> None:
        self.process.stop()

    def entries(self, *matches: str) -> list[Entry]:
        """What the plugin wrote, oldest first; matches as in ``NAMESPACE=team-alpha``."""
        return [json.loads(line) for line in self.text("json", "_COMM=crio-credential", *matches).splitlines()]

    def text(self, output: str, *matches: str) -> str:
        """All that journald has, in a format of journalctl's."""
        subprocess.run([self._journalctl, "--sync"], capture_output=True, check=False)
        command = [self._journalctl, "--no-pager", "--quiet", "--output", output, *matches]
        return subprocess.run(command, capture_output=True, check=True).stdout.decode(errors="replace")
