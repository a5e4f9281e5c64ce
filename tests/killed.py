"""Runs the plugin again and again, killed before each instruction of authfile.write in turn, until one run ends.

    python tests/killed.py REQUEST_FILE FLAGS...

Prints the status of each run (-9: killed) and waits for a line on standard input before the next, so that the caller
can look at what was left. Each run is a fork of this process, which has no threads.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

# Before the fork, so that a run costs what it costs.
from crio_credential_provider.pull import authfile, plugin


def kill_at(step: int) -> Callable[[FrameType, str, Any], Any]:
    """A trace function that ends this process at the step-th instruction of ``authfile.write``."""
    left = step

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        if frame.f_code is not authfile.write.__code__:
            return None
        frame.f_trace_opcodes = True
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace


def run(step: int, request: str, flags: list[str]) -> int:
    """The status of one run in a process of its own."""
    child = os.fork()
    if not child:
        os.dup2(os.open(request, os.O_RDONLY), 0)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.settrace(kill_at(step))
        status = 70
        try:
            status = plugin.run(flags, {})
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    request, *flags = sys.argv[1:]
    orders = os.fdopen(os.dup(0))
    step = 0
    while True:
        status = run(step, request, flags)
        print(status, flush=True)
        if status == 0 or not orders.readline():
            return
        step += 1


if __name__ == "__main__":
    main()
