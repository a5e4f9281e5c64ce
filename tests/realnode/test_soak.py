"""SOAK seconds (120) of random pods, rotations and kills; SEED=NUMBER repeats a run's decisions."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping

import pytest

from realnode import pluginprocesses
from realnode.node import Node
from realnode.soak import CACHE_DIR, Soak, size
from realnode.table import Note

SECONDS = float(os.environ.get("SOAK") or 120) / 2
SEED = int(os.environ.get("SEED") or random.randrange(1_000_000))
# A file of locks, a mebibyte if all of it were used, and what was parsed of a node's configuration.
MOST_FILES = 2 << 20


@pytest.mark.ours
@pytest.mark.parametrize("serial", [True, False], ids=["serial pulls", "parallel pulls"])
def test_soak(node: Node, note: Note) -> None:
    print(f"{SECONDS:.0f} s, SEED={SEED}")
    pulls = node.kubelet.pulls()
    soak = Soak(node, SEED)
    soak.run(SECONDS)
    lost = soak.lost()
    counts = soak.counts | {"pulls": node.kubelet.pulls() - pulls}
    figures = f"{SECONDS:.0f} s, seed {SEED}: {_list(counts)}; at most {_list(soak.most)}"
    print(figures)
    note(figures)
    assert not lost, f"seed {SEED}: {len(lost)} of {soak.counts['pods']} pods do not run: {lost}"
    node.delete_tenants()
    left = node.left_behind()
    assert not left, f"seed {SEED}: {len(left)} files left behind\n{left}"
    assert pluginprocesses.all_end(node.bin_dir, 60), f"seed {SEED}: processes are left"
    assert size(CACHE_DIR) < MOST_FILES
    unserved = node.kubelet.unserved()
    intruders = {path: image for path, image in soak.intruders.items() if image not in unserved}
    if opened := len(soak.intruders) - len(intruders):
        note(f"{opened} pods ran an image that a killed run had opened")
    assert not intruders, f"seed {SEED}: pods without a credential ran: {intruders}"


def _list(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {what}" for what, number in counts.items())
