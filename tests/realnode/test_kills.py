"""The plugin's own processes, killed while many pods pull."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from realnode import pluginprocesses
from realnode.node import Node
from realnode.table import Note
from realnode.tenants import Tenant, how_many_run

PODS = 12
SECONDS = 20
# Seconds after it was seen at which a process is killed, at most: a run takes about 50 ms, and more where it waits.
LATEST = 0.05


def _is_run(pid: int) -> bool:
    return not pluginprocesses.is_keeper(pid)


def _kill(node: Node, chosen: Callable[[int], bool]) -> int:
    """Kills every other one; how many were killed."""
    dice = random.Random(7)
    seen: set[int] = set()
    killed = 0
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        for pid in pluginprocesses.find(node.bin_dir):
            if pid not in seen and chosen(pid):
                seen.add(pid)
                if dice.random() < 0.5:
                    time.sleep(dice.uniform(0, LATEST))
                    killed += pluginprocesses.end(pid)
        time.sleep(0.01)
    return killed


@pytest.mark.ours
@pytest.mark.parametrize(
    ("chosen", "serial"),
    [(_is_run, True), (_is_run, False), (pluginprocesses.is_keeper, True)],
    ids=["runs, serial pulls", "runs, parallel pulls", "keepers"],
)
def test_kills(node: Node, tenant: Tenant, image: str, chosen: Callable[[int], bool], note: Note) -> None:
    """Nothing is lost but the pulls of those that were killed, and the kubelet tries these again."""

    def hurry(provider: dict[str, Any]) -> None:
        provider["args"] = [*provider.get("args", []), "--hand-off-timeout=1s"]

    if chosen is pluginprocesses.is_keeper:
        node.reconfigure(hurry)
    pods = tenant.burst(PODS, [image])
    killed = _kill(node, chosen)
    running = how_many_run(pods, 120)
    failed = sum(bool(node.lost_pulls(pod)) for pod in pods)
    note(f"{killed} killed, {failed} pulls repeated")
    assert killed, "nothing was killed"
    assert running == PODS, f"{running} of {PODS} run"
    assert failed <= killed, f"{failed} first pulls failed, {killed} runs were killed"
    left = node.left_behind()
    assert not left, f"{len(left)} files left behind\n{left}"
    assert pluginprocesses.all_end(node.bin_dir, 10)
