"""What tests of the hand-off share: forks that wait in line, and the files and intents of a node."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from crio_credential_provider.pull import authfile, handoff
from crio_credential_provider.pull.handoff import Line
from node import NGINX, Node

NAME = authfile.file_name("team-alpha", NGINX)
BETA_NAME = authfile.file_name("team-beta", NGINX)
TEMPORARY = f".{NAME}.4711.tmp"

# Seconds by which a machine that runs other tests beside may be late.
SLACK = 2.0


class Child:
    """A fork that runs a function and is gone; ended by force at the latest with the test."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.pid = os.fork()
        if not self.pid:
            status = 70
            try:
                work()
                status = 0
            finally:
                os._exit(status)
        self._is_over = False

    def kill(self) -> None:
        if not self._is_over:
            os.kill(self.pid, signal.SIGKILL)
            self.join()

    def join(self) -> int:
        self._is_over = True
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to it"
        time.sleep(0.005)


def until_queued(lock_dir: str, count: int) -> None:
    """Returns when so many wait for a lock, by the kernel's own account (arrows in /proc/locks)."""
    until(lambda: os.path.exists(os.path.join(lock_dir, handoff.LOCK_FILE)))
    file = f":{os.stat(os.path.join(lock_dir, handoff.LOCK_FILE)).st_ino} "
    until(lambda: sum("->" in line and file in line for line in Path("/proc/locks").read_text().splitlines()) == count)


def soon(seconds: float = 10) -> float:
    return time.monotonic() + seconds


Fork = Callable[[Callable[[], None]], Child]


def hold(fork: Fork, lock_dir: str, name: str = NAME, seconds: float = 60) -> Child:
    """Another process that has the turn by now."""
    ready, tell = os.pipe()

    def work() -> None:
        Line(lock_dir).enter(name, soon())
        os.write(tell, b"x")
        time.sleep(seconds)

    child = fork(work)
    assert os.read(ready, 1) == b"x"
    os.close(ready)
    os.close(tell)
    return child


def intents_of(node: Node) -> Path:
    return node.root / "var/lib/kubelet/image_manager/pulling"


def expect(node: Node, image: str = "docker.io/nginx:1.27") -> Path:
    content = json.dumps({"kind": "ImagePullIntent", "image": image})
    return node.write(intents_of(node) / f"sha256-{authfile.digest(image)}", content)


def put(node: Node, name: str = NAME, age: float = 0) -> Path:
    path = node.write(node.auth_dir / name, '{"auths":{}}')
    node.auth_dir.chmod(0o700)
    os.utime(path, (time.time() - age,) * 2)
    return path


def written(node: Node, name: str = NAME) -> bool:
    """Whether the file is the plugin's own, not what a test put there."""
    return bool(node.auth_files().get(name, {}).get("auths"))


def processes_of(node: Node) -> list[int]:
    """Processes whose command line names the node's root: runs and keepers."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and str(node.root).encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def last_entry(node: Node) -> dict[str, str]:
    assert node.journal
    node.journal.flush()
    return [entry for entry in node.journal.entries if "OUTCOME" in entry][-1]
