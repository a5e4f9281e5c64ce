"""A laid node as a machine of its own, for the executable: its files are the root, its names lead to our servers.

Only root can do that, and only for a program that needs nothing of the node.

    with own_network():  # servers that are started here listen inside
        with lead({"api.corp.example:6443": server.port}, root):
            subprocess.run([*below(root, program), "doctor"], ...)
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import shutil
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from real_programs import need

_CLONE_NEWNET = 0x40000000
_PLACE, _PROC = ".program", ".proc"


def is_executable(program: str) -> bool:
    """Whether a program is the static executable, which needs nothing of the machine: not a script."""
    if not program:
        return False
    with open(program, "rb") as file:
        return file.read(4) == b"\x7fELF"


_MACHINES = {"x86_64": 62, "aarch64": 183}
"""Where ELF names the processor (e_machine)."""
_BINFMT = Path("/proc/sys/fs/binfmt_misc")


def is_foreign(program: str) -> bool:
    """Whether it is an executable for another processor."""
    if not is_executable(program):
        return False
    with open(program, "rb") as file:
        return int.from_bytes(file.read(20)[18:], "little") != _MACHINES[platform.machine()]


@contextlib.contextmanager
def emulated() -> Iterator[None]:
    """Lets the kernel start such programs by qemu's emulator, wherever they are started, in a changed root as well.

    Raises:
        OSError: only root can have that, and not in each container.
    """
    name, machine = next((name, machine) for name, machine in _MACHINES.items() if name != platform.machine())
    emulator = shutil.which(f"qemu-{name}-static")
    if emulator is None:
        raise FileNotFoundError(f"not installed here: qemu-{name}-static")
    if not (_BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", _BINFMT], check=False, capture_output=True)
    # Of the header: 64 bits, little-endian, ET_EXEC, the machine. F opens the emulator once, P hands argv[0] over.
    magic = b"\x7fELF\2\1\1" + bytes(9) + b"\2\0" + machine.to_bytes(2, "little")
    written = "".join(f"\\x{byte:02x}" for byte in magic)
    entry = _BINFMT / f"crio-credential-provider-{name}"
    if entry.exists():  # of pytest-xdist, whose workers these are, or of a run that was killed
        yield
        return
    (_BINFMT / "register").write_text(f":{entry.name}:M::{written}::{emulator}:FP")
    try:
        yield
    finally:
        entry.write_text("-1")


def below(root: Path, program: str) -> list[str]:
    """The command that runs the program below root; puts it there, with a shell for the node's scripts."""
    inside = f"/{_PLACE}"
    if not (root / _PLACE).exists():
        shutil.copy(program, root / _PLACE)
        libraries = re.findall(r"/\S+", subprocess.run(["ldd", "/bin/sh"], capture_output=True, text=True).stdout)
        for path in ("/bin/sh", *libraries):
            (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, root / path[1:])
        (root / "dev").mkdir(exist_ok=True)
        os.mknod(root / "dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        # The node's /proc is laid as well; of the process itself it tells what is true.
        (root / _PROC).mkdir()
        (root / "proc/self/exe").symlink_to(inside)
        (root / "proc/self/fd").symlink_to(f"/{_PROC}/self/fd")
    (unshare, _) = need("unshare", "chroot")
    script = f'mount -t proc proc "$1/{_PROC}" && exec chroot "$@"'
    return [unshare, "--mount", "sh", "-c", script, "sh", str(root), inside]


@contextlib.contextmanager
def own_network() -> Iterator[None]:
    """This thread, and what it starts, in a network namespace where every address is this machine's (AnyIP)."""
    (ip,) = need("ip")
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net", "rb") as outside:
        _checked(libc.unshare(_CLONE_NEWNET))
        try:
            for words in ("link set lo up", "route add local default dev lo", "-6 route add local default dev lo"):
                subprocess.run([ip, *words.split()], check=True)
            Path("/proc/sys/net/ipv6/ip_nonlocal_bind").write_text("1")
            yield
        finally:
            _checked(libc.setns(outside.fileno(), _CLONE_NEWNET))


def _checked(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextlib.contextmanager
def lead(addresses: Mapping[tuple[str, int], int], root: Path) -> Iterator[None]:
    """Leads each host and port to that port of 127.0.0.1; the names stand in the node's /etc/hosts.

    If nobody listens at that port, nobody does at the address either.
    """
    hosts = {"localhost": "127.0.0.1"}
    with contextlib.ExitStack() as stack:
        for (host, port), target in addresses.items():
            if not re.fullmatch(r"[0-9.]+|.*:.*", host):
                hosts.setdefault(host, f"198.18.0.{len(hosts)}")
            address = hosts.get(host, host)
            if (address, port) != ("127.0.0.1", target) and _listens(target):
                stack.enter_context(_forward(address, port, target))
        (root / "etc").mkdir(exist_ok=True)
        (root / "etc/hosts").write_text("".join(f"{address}\t{name}\n" for name, address in hosts.items()))
        yield


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def _forward(address: str, port: int, target: int) -> Iterator[None]:
    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                theirs, _ = listener.accept()
                ours = socket.create_connection(("127.0.0.1", target))
                for one, other in ((theirs, ours), (ours, theirs)):
                    threading.Thread(target=_pump, args=(one, other), daemon=True).start()

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, port), family=family)
    # A thread made here is in this network as well.
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
