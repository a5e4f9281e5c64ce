"""Namespaces, mounts and cgroups around a command, so that a node on its default paths and ports leaves nothing behind.

The command gets a network with nothing but itself, an address on it, the host name ``node1``, processes of its own,
and copies of the directories that a node writes to: what is changed below `LAYERS` lies in the scratch directory. So
several such nodes run at the same time. When the command ends, or whoever started it, the kernel kills all processes,
and the mounts go with them; cgroups are removed by name.

    python -m realnode.sandbox SCRATCH COMMAND...    PID 1 of the namespaces; `run` starts this
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ADDRESS = "10.99.0.2"
# At which pods find the API server.
SERVICE_ADDRESS = "10.96.0.1"
HOSTNAME = "node1"

# Directories that a node writes to; the copy keeps what is there, but for `HIDDEN`.
LAYERS = ("/etc", "/var/lib", "/var/log", "/usr/bin", "/usr/libexec", "/usr/local/sbin")
HIDDEN = (
    *("/etc/containers", "/etc/crio", "/etc/kubernetes", "/etc/cni", "/etc/containerd"),
    *("/etc/systemd/system/kubelet.service.d", "/var/log/journal"),
)
# The kubelet cannot tell the size of a file system of overlayfs: these are plain directories of the scratch directory.
PLAIN = ("/var/lib/kubelet", "/var/lib/containers", "/var/lib/containerd", "/var/lib/etcd", "/var/log/pods")
# What a kubelet sets at its start, for the whole machine: it gets copies.
SYSCTLS = (
    *("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops"),
    *("kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes"),
)
_PREFIX = "node-test-"
_CGROUPS = Path("/sys/fs/cgroup")
# Controllers of cgroup v1 without which a kubelet does not start.
_CONTROLLERS = ("cpu", "cpuacct", "cpuset", "hugetlb", "memory", "pids")


def run(scratch: Path, command: Sequence[str]) -> int:
    """Runs a command in the sandbox; its exit status. SIGINT reaches the command as well, and is left to it."""
    unshare = ["unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]
    inside = [sys.executable, "-m", "realnode.sandbox", str(scratch), *command]
    previous = signal.signal(signal.SIGINT, lambda *_: None), signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *unshare, *inside])
    try:
        return process.wait()
    finally:
        process.kill()
        process.wait()
        remove_cgroups(scratch)
        signal.signal(signal.SIGINT, previous[0])
        signal.signal(signal.SIGTERM, previous[1])


def make_scratch() -> Path:
    """Named after this process, whose end makes the cgroups of that name stale."""
    for root in _hierarchies():
        for stale in root.glob(f"{_PREFIX}*"):
            pid = stale.name.removeprefix(_PREFIX).partition("-")[0]
            if pid.isdecimal() and not Path("/proc", pid).exists():
                remove_cgroups(stale)
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))


def cgroup(scratch: Path) -> str:
    """The node's cgroup, in every hierarchy."""
    return f"/{scratch.name}"


def remove_cgroups(scratch: Path, seconds: float = 5) -> None:
    """The processes in them are dead or dying."""
    until = time.monotonic() + seconds
    for root in _hierarchies():
        top = root / scratch.name
        while not _removed(top):
            if time.monotonic() > until:
                print(f"cannot remove the cgroup {top}", file=sys.stderr)
                break
            time.sleep(0.05)


def _removed(cgroup: Path) -> bool:
    for directory, _, _ in os.walk(cgroup, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(directory)
    return not cgroup.exists()


def _hierarchies() -> list[Path]:
    """cgroup v1: one for each controller; v2: one."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return [path for path in _CGROUPS.iterdir() if path.is_mount() and not path.is_symlink()]


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def _lay_out(scratch: Path) -> None:
    # As systemd has it, but with nothing beyond the sandbox: pods get what the node mounts later.
    _mount("--make-rshared", "/")
    for layer in LAYERS:
        upper, work = scratch / layer.strip("/"), scratch / "overlay" / layer.strip("/")
        upper.mkdir(parents=True)
        work.mkdir(parents=True)
        _mount("-t", "overlay", "-o", f"lowerdir={layer},upperdir={upper},workdir={work}", "overlay", layer)
    for path in HIDDEN:
        shutil.rmtree(path, ignore_errors=True)
    # Nobody answers there: a name outside of this machine is not found, at once.
    Path("/etc/resolv.conf").unlink(missing_ok=True)
    Path("/etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
    for path in PLAIN:
        plain = scratch / "plain" / path.strip("/")
        plain.mkdir(parents=True)
        Path(path).mkdir(parents=True, exist_ok=True)
        _mount("--bind", plain, path)
    _mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run")
    Path("/run/lock").mkdir()
    for name in SYSCTLS:
        copy = scratch / "sysctl" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(Path("/proc/sys", name).read_text())
        _mount("--bind", copy, f"/proc/sys/{name}")


def _make_cgroups(scratch: Path) -> None:
    if not (_CGROUPS / "cgroup.controllers").exists():
        for controller in _CONTROLLERS:
            place = _CGROUPS / controller
            if not place.exists():
                place.mkdir()
                _mount("-t", "cgroup", "-o", controller, controller, place)
    for root in _hierarchies():
        (root / scratch.name).mkdir()


def _make_network() -> None:
    for line in (
        "link set lo up",
        f"address add {SERVICE_ADDRESS}/32 dev lo",
        "link add node0 type veth peer name node1",
        f"address add {ADDRESS}/24 dev node0",
        "link set node0 up",
        "link set node1 up",
        "route add default via 10.99.0.1",
    ):
        subprocess.run(["ip", *line.split()], check=True)


def main(scratch: Path, command: Sequence[str]) -> int:
    """As PID 1: makes the place, runs the command, buries the dead, kills what is left when the command has ended."""
    subprocess.run(["hostname", HOSTNAME], check=True)
    _make_network()
    _lay_out(scratch)
    _make_cgroups(scratch)
    signal.signal(signal.SIGINT, lambda *_: None)  # a handler, unlike SIG_IGN, is not inherited
    with subprocess.Popen(command) as process:
        while True:
            pid, status = os.wait()
            if pid == process.pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                break
    with contextlib.suppress(OSError):
        os.kill(-1, signal.SIGKILL)
        while True:
            os.wait()
    remove_cgroups(scratch)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
