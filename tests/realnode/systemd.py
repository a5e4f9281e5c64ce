"""A systemd for the node's kubelet, CRI-O and mounts, behind stand-ins for systemctl and journalctl.

They lie where a program finds them by its PATH, and a container below the node's root. What a service runs is read from
its unit at every start, and the kubelet is started again by itself after the time that its unit has. Reloads are not
needed.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Client, Listener
from pathlib import Path
from types import TracebackType

from realnode import units
from realnode.node import Node
from realnode.processes import RigError

KUBELET = "kubelet.service"
# Before /usr/bin, whose own programs others use.
_PLACE = Path("/usr/local/sbin")
_PROGRAMS = ("systemctl", "journalctl")
_CLIENT = """\
#!{python} -IS
import os, sys
from multiprocessing.connection import Client
with Client({address!r}) as server:
    server.send([os.path.basename(sys.argv[0]), *sys.argv[1:]])
    status, said = server.recv()
print(said)
sys.exit(status)
"""


class Systemd:
    """Of a node whose kubelet and CRI-O run.

    Attributes:
        before: what happens once before a command, as in ``restart kubelet.service``.
        asked: commands of systemctl but for ``show``, in order.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._address = str(node.scratch / "systemd")
        self._restart_after = float(re.findall(r"^RestartSec=(\d+)$", (units.DIRECTORY / KUBELET).read_text(), re.M)[0])
        self._restarts = 0
        self._ended: float | None = None
        self._over = False
        self._lock = threading.Lock()
        self.before: dict[str, Callable[[], object]] = {}
        self.asked: list[str] = []

    def __enter__(self) -> Systemd:
        for name in _PROGRAMS:
            (_PLACE / name).write_text(_CLIENT.format(python=sys.executable, address=self._address))
            (_PLACE / name).chmod(0o755)
        self._listener = Listener(self._address)
        self._threads = [threading.Thread(target=self._serve), threading.Thread(target=self._watch)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over = True
        with Client(self._address) as end:
            end.send([])
        for thread in self._threads:
            thread.join()
        self._listener.close()
        for name in _PROGRAMS:
            (_PLACE / name).unlink()

    @property
    def environment(self) -> dict[str, str]:
        """With which a program finds the stand-ins."""
        return {**os.environ, "PATH": f"{_PLACE}:{os.environ['PATH']}"}

    def _serve(self) -> None:
        while not self._over:
            # Whoever asked may have been killed.
            with contextlib.suppress(OSError, EOFError), self._listener.accept() as client:
                words = client.recv()
                if words:
                    client.send(self._answer(*words))

    def _answer(self, program: str, *words: str) -> tuple[int, str]:
        if program == "journalctl":
            service = self._node.kubelet if words[-1] == f"--unit={KUBELET}" else self._node.crio
            return 0, "\n".join(service.process.log.read_text(errors="replace").splitlines()[-10:])
        command = " ".join(words if words[0] != "show" else ("show",))
        if command != "show":
            self.asked.append(command)
        self.before.pop(command, lambda: None)()
        return self.command(*words)

    def command(self, *words: str) -> tuple[int, str]:
        """Does what systemctl is told; exit status and output."""
        with self._lock:
            try:
                return self._do(*words)
            except RigError as error:
                return 1, str(error)

    def _do(self, verb: str, *rest: str) -> tuple[int, str]:
        process = self._node.kubelet.process
        unit = rest[-1] if rest else ""
        if verb == "show":
            state, pid = ("active", process.pid) if process.running else ("activating", 0)
            return 0, f"MainPID={pid}\nNRestarts={self._restarts}\nActiveState={state}"
        if verb in ("daemon-reload", "reset-failed"):
            return 0, ""
        if unit.endswith(".mount"):
            return self._mount(verb, unit)
        if (verb, unit) == ("restart", "crio"):
            self._node.crio.process.stop()
            self._node.crio.start()
            return 0, ""
        if (verb, unit) == ("restart", KUBELET):
            process.stop()
            self._restarts = 0
            self._start_kubelet()
            return 0, ""
        return 1, f"not a command of these tests: {verb} {unit}"

    def _mount(self, verb: str, unit: str) -> tuple[int, str]:
        if verb == "start":
            units.mount(unit)
            return 0, ""
        # A mount is known to systemd without its unit as well.
        place = "/" + unit.removesuffix(".mount").replace("-", "/")
        done = subprocess.run(["umount", place], capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    def _start_kubelet(self) -> None:
        process = self._node.kubelet.process
        process.command = units.command(KUBELET)
        process.start()
        self._ended = None

    def _watch(self) -> None:
        """``Restart=always``."""
        while not self._over:
            time.sleep(0.1)
            with self._lock:
                if self._node.kubelet.process.running:
                    continue
                now = time.monotonic()
                self._ended = self._ended or now
                if now - self._ended >= self._restart_after:
                    self._restarts += 1
                    self._start_kubelet()
