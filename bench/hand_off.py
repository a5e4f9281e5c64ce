#!/usr/bin/env python3
"""Compares what parallel pods of one image lose under three policies: overwrite, blind wait, hand-off.

    .venv/bin/python bench/hand_off.py [--pods 8,50,200] [--checks 100] [--load 0]

``lost`` counts first pulls that found no auth file; ``pulls alone`` is what they take with credentials and nothing
else; ``wait`` is the longest time that the plugin held a pod up. ``--load`` adds busy processes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

from simulated_node import SimulatedNode

from crio_credential_provider.testbed.cluster import ApiServer

ROOT = Path(__file__).resolve().parent.parent
POLICIES = {
    "overwrite": ["--hand-off-timeout=0"],
    "blind wait": ["--kubelet-root-dir=/nonexistent", "--hand-off-grace=10s"],
    "hand-off": [],
}


def burn() -> None:
    while True:
        pass


def measure(plugin: str, flags: list[str], count: int, *, serial: bool, present: bool) -> str:
    """One line for the table."""
    with tempfile.TemporaryDirectory() as directory, ApiServer() as cluster:
        node = SimulatedNode(Path(directory), [plugin, *flags], cluster, serial=serial)
        node.prepare()
        pulls = node.run_pods(count, present=present)
        time.sleep(0.2)
    faults = [pull.errors for pull in pulls if pull.status]
    lost = sum(pull.had_credentials is False for pull in pulls)
    alone = 0.0 if present else node.requests * node.seconds * (count if serial else 1)
    over = max(pull.over for pull in pulls)
    wait = max(pull.answered for pull in pulls)
    delays = sorted(node.intent_delays)
    intent = f"{1000 * delays[int(len(delays) * 0.99)]:7.0f}" if delays else "      -"
    line = f"{lost:5d} of {count:3d} {over:8.1f} s {alone:8.1f} s {wait:8.1f} s {intent} ms"
    return line + (f"  {len(faults)} faults: {faults[0]}" if faults else "")


def main() -> None:
    # A kubelet is many threads that run at once; the default of 5 ms would let each wait for all others in turn.
    sys.setswitchinterval(0.0005)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", default="8,50,200", help="numbers of pods that pull, separated by commas")
    parser.add_argument("--checks", type=int, default=100, help="number of pods whose image is present")
    parser.add_argument("--load", type=int, default=0, help="busy processes beside")
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument("--pulls", default="serial,parallel", help="how the kubelet pulls")
    parser.add_argument("--grace", default="", help="--hand-off-grace of the policy hand-off")
    parser.add_argument("--plugin", default=str(ROOT / "build/bin/crio-credential-provider"))
    arguments = parser.parse_args()
    if arguments.grace:
        POLICIES["hand-off"].append(f"--hand-off-grace={arguments.grace}")
    for _ in range(arguments.load):
        multiprocessing.Process(target=burn, daemon=True).start()
    print(f"{'':34}{'lost':>12}{'all over':>11}{'pulls alone':>12}{'wait':>9} {'intent after':>12}")
    for serial in (pulls == "serial" for pulls in arguments.pulls.split(",")):
        for count in map(int, filter(None, arguments.pods.split(","))):
            for policy in arguments.policies.split(","):
                line = measure(arguments.plugin, POLICIES[policy], count, serial=serial, present=False)
                print(f"{'serial' if serial else 'parallel':9}{count:4d} pods  {policy:14} {line}", flush=True)
    if arguments.checks:
        for policy in arguments.policies.split(","):
            line = measure(arguments.plugin, POLICIES[policy], arguments.checks, serial=False, present=True)
            print(f"present  {arguments.checks:4d} pods  {policy:14} {line}", flush=True)


if __name__ == "__main__":
    main()
