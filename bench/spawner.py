"""Starts programs and tells what each run took; a process of its own, since what it uses counts for its children.

Linux hands the peak memory of a process on through vfork and exec: started from the bench itself, with its prebuilt
answers, every contender would seem to need as much. Run as ``python3 -IS spawner.py``; it imports what the interpreter
has loaded anyway. A line on standard input is one order, its fields separated by NUL:

    COUNT  STDIN...  STDOUT...  PROGRAM ARGUMENT...

that is, COUNT processes of one command line at the same time, each with its own standard streams (paths of files). The
answer is a line: seconds of wall time until all have ended, seconds of CPU of all, peak memory of the largest in KiB,
and the exit statuses, separated by blanks. The first line that it writes is its own peak memory, below which it cannot
tell.
"""

from __future__ import annotations

import os
import sys
import time

# What systemd gives a service: no HOME, no locale.
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


def start(stdin: str, stdout: str, command: list[str]) -> int:
    streams = [
        (os.POSIX_SPAWN_OPEN, 0, stdin, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, stdout, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
    ]
    return os.posix_spawn(command[0], command, ENVIRONMENT, file_actions=streams)


def run(count: int, streams: list[str], command: list[str]) -> str:
    cpu, peak, statuses = 0.0, 0, []
    begin = time.perf_counter()
    processes = [start(streams[number], streams[count + number], command) for number in range(count)]
    for process in processes:
        _, status, usage = os.wait4(process, 0)
        cpu += usage.ru_utime + usage.ru_stime
        peak = max(peak, usage.ru_maxrss)
        statuses.append(str(os.waitstatus_to_exitcode(status)))
    wall = time.perf_counter() - begin
    return f"{wall} {cpu} {peak} {' '.join(statuses)}"


def peak_memory() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def main() -> None:
    print(peak_memory(), flush=True)
    for line in sys.stdin:
        fields = line.rstrip("\n").split("\0")
        count = int(fields[0])
        print(run(count, fields[1 : 1 + 2 * count], fields[1 + 2 * count :]), flush=True)


if __name__ == "__main__":
    main()
