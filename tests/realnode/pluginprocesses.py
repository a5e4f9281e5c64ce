"""The plugin's processes on the node: runs that the kubelet waits for, and keepers that stay in line behind one."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from realnode.processes import wait_until


def find(bin_dir: Path) -> list[int]:
    """Process ids of all programs that lie there or are linked to from there."""
    programs = {str(path.resolve()) for path in bin_dir.iterdir()}
    processes = (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [int(process.name) for process in processes if _program(process) in programs]


def _program(process: Path) -> str:
    try:
        return os.readlink(process / "exe").removesuffix(" (deleted)")
    except OSError:
        return ""


def is_keeper(pid: int) -> bool:
    """It leads a session of its own."""
    with contextlib.suppress(ProcessLookupError):
        return os.getsid(pid) == pid
    return False


def end(pid: int, number: signal.Signals = signal.SIGKILL) -> bool:
    """Whether it was still there."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def all_end(bin_dir: Path, seconds: float) -> bool:
    return bool(wait_until(lambda: not find(bin_dir), seconds))


def memory(pid: int) -> int:
    """KiB that are in memory for it alone, or its part of what it shares; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
