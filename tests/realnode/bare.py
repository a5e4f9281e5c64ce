"""A node that the plugin was never on, with services that really restart, and a look at all that may be changed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from realnode.kubelet import ROOT, is_healthy
from realnode.node import Node
from realnode.processes import wait_until
from realnode.runtimes import AUTH_DIR
from realnode.sandbox import HOSTNAME
from realnode.systemd import Systemd

EXTRA = Path("/etc/default/kubelet")
STORE = Path("/var/lib/crio-credential-provider")


class Bare:
    """A node without the plugin, with a systemd."""

    def __init__(self, node: Node, systemd: Systemd) -> None:
        self.node = node
        self.systemd = systemd
        self.before = snapshot()

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.node.program.path, *arguments],
            env=self.systemd.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, status: int = 0) -> str:
        """What the program says, reasons included."""
        process = self.begin(*arguments)
        said = "".join(process.communicate(timeout=300))
        with (self.node.logs / "install.log").open("a") as log:
            log.write(f"$ {' '.join(arguments)}\n{said}exit status {process.returncode}\n")
        assert process.returncode == status, f"{' '.join(arguments)}: exit status {process.returncode}: {said}"
        return said

    def changed(self) -> list[str]:
        """Paths that are not as they were before."""
        now = snapshot()
        return sorted(path for path in {*now, *self.before} if now.get(path) != self.before.get(path))

    def is_ready(self) -> bool:
        found = self.node.control_plane.find(f"/api/v1/nodes/{HOSTNAME}")
        states = {one["type"]: one["status"] for one in found["status"]["conditions"]} if found else {}
        return is_healthy() and states.get("Ready") == "True"

    def uninstall(self) -> None:
        self.run("uninstall", "--apply")
        assert self.changed() == []
        assert self.is_ready(), "not healthy without it"


def snapshot() -> dict[str, tuple[int, int, int, str]]:
    """Mode, owner and content of all that an installation may change, and the kubelet's own files."""
    found = {}
    # cpu_manager_state and others are the kubelet's own.
    its = (path for path in ROOT.iterdir() if not path.name.endswith("_state"))
    for path in (*Path("/etc").rglob("*"), *Path("/usr/libexec").rglob("*"), *its):
        status = path.lstat()
        content = ""
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file() and path.parent != Path("/etc/ssl/certs"):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path)] = (status.st_mode, status.st_uid, status.st_gid, content)
    return found


@contextlib.contextmanager
def without_plugin(node: Node) -> Iterator[Bare]:
    """The node as it was before, which it is again afterwards."""
    node.setup = None
    node.kubelet.stop()
    extra = EXTRA.read_text()
    laid = node.scratch / "manifests/node"
    for file in [path for path in laid.rglob("*") if not path.is_dir()]:
        Path("/", file.relative_to(laid)).unlink()
    shutil.rmtree(node.bin_dir)
    subprocess.run(["umount", AUTH_DIR], check=True)
    AUTH_DIR.rmdir()
    # CRI-O makes it at its start.
    node.crio.process.stop()
    node.crio.start()
    node.kubelet.start(node.crio.socket)
    with Systemd(node) as systemd:
        there = Bare(node, systemd)
        assert wait_until(there.is_ready, 30), "not Ready before"
        yield there
        # What a test that failed has left.
        there.begin("uninstall", "--apply").communicate()
    EXTRA.write_text(extra)
    shutil.rmtree(STORE, ignore_errors=True)
    if not is_healthy():
        node.kubelet.stop()
