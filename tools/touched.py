"""What a pull touches of the executable: code, constants and memory, so that the build can put it side by side.

The kernel maps a file by 64 KiB around what a process touches. What a pull needs is a fifth of the executable, and lies
all over it where the linker and the allocator put it: the process would have nearly all of it. So the build makes the
executable twice, and runs the first one below valgrind here, which tells each address.
"""

from __future__ import annotations

import re
import struct
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from crio_credential_provider.testbed.cluster import ApiServer
from crio_credential_provider.testbed.faults import stall
from crio_credential_provider.testbed.journald import JournalSocket
from crio_credential_provider.testbed.node import Kubelet

UNIT = 16
"""Bytes: blocks begin at multiples of it."""
PATIENCE = 50
"""Seconds for a pull, which takes 10 below valgrind on a machine with nothing else to do."""

MIRRORED, PLAIN = "docker.io/nginx:1.27", "quay.io/nginx:1.27"
_API_SERVER = "KUBERNETES_SERVICE_HOST=127.0.0.1\nKUBERNETES_SERVICE_PORT={port}\n"
_REGISTRIES = '[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "mirror.corp:5000/hub"\n'


class WatchError(Exception):
    """A run failed; the message says how."""


class Use(NamedTuple):
    """Addresses that a run touched, and those of them that it wrote to, in UNIT."""

    touched: set[int]
    written: set[int]


# -- runs -------------------------------------------------------------------------------------------------------------


def run_pulls(program: Path) -> list[Use]:
    """What pulls touch, the most frequent first: without a mirror, with a secret, with a secret after a reboot."""
    with tempfile.TemporaryDirectory(prefix="touched-") as directory, ApiServer() as cluster:
        root, trace = Path(directory, "root"), Path(directory, "trace")
        for path, text in {
            "etc/containers/registries.conf": _REGISTRIES,
            "etc/kubernetes/apiserver-url.env": _API_SERVER.format(port=cluster.port),
            "etc/kubernetes/pki/ca.crt": cluster.authority.certificate_pem,
            "var/lib/kubelet/config.json": "{}",
        }.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        (root / "var/lib/kubelet/image_manager/pulling").mkdir(parents=True)
        journal = root / "run/systemd/journal/socket"
        journal.parent.mkdir(parents=True)

        def ask(image: str, *wrapper: str) -> None:
            namespace = f"team-{len(cluster.pods)}"  # another each time: none waits for another's auth file
            cluster.add_pod(namespace, "pod", "node1", image=image)
            cluster.add_secret(namespace, "creds", {"auths": {"mirror.corp:5000": {"auth": "dXNlcjpwYXNzd29yZA=="}}})
            cluster.allow(namespace, "default")
            # Signals that are ignored, as by nohup, would take other ways through the program.
            command = [
                "env",
                "--default-signal",
                *wrapper,
                str(program),
                "--root",
                str(root),
                "--deadline",
                str(PATIENCE),
            ]
            done = Kubelet(command, cluster, {"PATH": "/usr/bin:/bin"}, 2 * PATIENCE).ask(namespace, "pod")
            if done.response is None:
                raise WatchError(f"{program} below valgrind: {done.error}")
            for file in (root / "etc/crio/auth").glob("*.json"):
                file.unlink()  # as CRI-O does

        def watched(image: str) -> Use:
            ask(image, "valgrind", "--tool=lackey", "--trace-mem=yes", f"--log-file={trace}")
            return read_trace(trace)

        cluster.fault = stall(4)  # so that a pull waits for the answer each time, also on a busy machine
        with JournalSocket(str(journal)):
            after_reboot = watched(MIRRORED)
            time.sleep(2.1)  # until the configuration counts as settled, so that its parsed form is kept
            ask(MIRRORED)
            return [watched(PLAIN), watched(MIRRORED), after_reboot]


def read_trace(trace: Path) -> Use:
    """What valgrind's lackey tells: a line for each instruction (I), load (L), store (S) and change (M)."""
    lines = set(re.findall(rb"^ ?([ILSM]) +([0-9a-f]+),", trace.read_bytes(), re.MULTILINE))
    touched = {int(address, 16) // UNIT for _, address in lines}
    return Use(touched, {int(address, 16) // UNIT for kind, address in lines if kind in b"SM"})


def rank_of(address: int, size: int, uses: Sequence[Use]) -> int | None:
    """By the first run that touches these bytes: its number, behind all of those where none writes to them."""
    units = range(address // UNIT, -(-(address + size) // UNIT))
    for number, use in enumerate(uses):
        if not use.touched.isdisjoint(units):
            is_written = any(not each.written.isdisjoint(units) for each in uses)
            return number if is_written else len(uses) + number
    return None


# -- what was linked --------------------------------------------------------------------------------------------------

# Not strings (.str1), which the linker shares: of those of hexadecimal digits, which are touched is chance.
_SECTION = (
    r"^ \.((text|rodata|data|bss)(?!\S*\.str1\.)\S*)\s+0x([0-9a-f]+)\s+0x([0-9a-f]+) \S+/(lib\w[\w.]*\.a)\((\S+)\)$"
)


def order_sections(link_map: str, uses: Sequence[Use]) -> dict[str, str]:
    """For ``text``, ``rodata`` and ``data`` the parts that were touched, in the linker's words, by rank.

    Args:
        link_map: what the linker wrote about what it linked (``-Map``).
    """
    found: dict[str, list[tuple[int, str]]] = {"text": [], "rodata": [], "data": []}
    snapshot = re.search(r"^\.snapshot\s+0x([0-9a-f]+)", link_map, re.MULTILINE)
    assert snapshot, "no snapshot in the linker's map"
    for name, kind, address, size, archive, member in re.findall(_SECTION, link_map, re.MULTILINE):
        start = int(address, 16)
        kind = "data" if kind == "bss" else kind
        rank = rank_of(start, int(size, 16), uses)
        if rank is not None and (kind != "data" or start >= int(snapshot[1], 16)):  # else libc's own
            found[kind].append((rank, f"*{archive}:{member}(.{name})\n"))
    return {kind: "".join(line for _, line in sorted(lines, key=lambda each: each[0])) for kind, lines in found.items()}


# -- what was loaded --------------------------------------------------------------------------------------------------


class Blocks(NamedTuple):
    """All blocks of memory that a first run of the loader took, in that order.

    Attributes:
        sizes: in bytes.
        addresses: of those that it kept; None: given back.
    """

    sizes: list[int]
    addresses: list[int | None]


def loads_events(events: bytes) -> Blocks:
    """Of the loader's ``struct event`` (program.c)."""
    blocks = Blocks([], [])
    number_at: dict[int, int] = {}
    for address, size in struct.iter_unpack("QQ", events):
        if size:
            number_at[address] = len(blocks.sizes)
            blocks.sizes.append(size)
            blocks.addresses.append(address)
        else:
            blocks.addresses[number_at.pop(address)] = None
    return blocks


def rank_blocks(blocks: Blocks, uses: Sequence[Use]) -> list[int | None]:
    """Of each block."""
    pairs = zip(blocks.addresses, blocks.sizes, strict=True)
    return [None if address is None else rank_of(address, size, uses) for address, size in pairs]


def matching(ours: list[int], theirs: list[int], window: int = 12, far: int = 400) -> Iterator[tuple[int, int]]:
    """Pairs of positions in two lists that differ here and there by a few numbers: another architecture's."""
    i = j = 0
    while i < len(ours) and j < len(theirs):
        if ours[i] == theirs[j]:
            yield i, j
            i, j = i + 1, j + 1
            continue
        steps = ((i + step, j + both - step) for both in range(1, far) for step in range(both + 1))
        again = ((x, y) for x, y in steps if ours[x : x + window] == theirs[y : y + window])
        i, j = next(again, (len(ours), len(theirs)))


# -- both -------------------------------------------------------------------------------------------------------------


class Touched(NamedTuple):
    """What pulls touch of an executable.

    Attributes:
        sections: what the linker puts first, by kind.
        blocks, ranks: what the loader took, and by whom it is touched.
        runs: how many there were.
    """

    sections: dict[str, str]
    blocks: Blocks
    ranks: list[int | None]
    runs: int

    def plan(self, events: bytes) -> bytes:
        """What the second run of a loader is told (``struct plan`` of program.c), by the events of its first."""
        blocks = loads_events(events)
        cold, outside = 2 * self.runs, 2 * self.runs + 1
        places = [outside if address is None else cold for address in blocks.addresses]
        for number, its in matching(blocks.sizes, self.blocks.sizes):
            rank = self.ranks[its]
            if rank is not None and places[number] != outside:
                places[number] = rank
        totals = [0] * (outside + 1)
        for place, size in zip(places, blocks.sizes, strict=True):
            totals[place] += size
        told = [size | place for size, place in zip(blocks.sizes, places, strict=True)]
        return struct.pack(f"{outside}Q{len(told)}I", *totals[:outside], *told)


def watch(program: Path, link_map: str, events: bytes) -> Touched:
    """Runs pulls with an executable, of which linker and loader told this.

    Raises:
        WatchError: one failed.
    """
    uses, blocks = run_pulls(program), loads_events(events)
    return Touched(order_sections(link_map, uses), blocks, rank_blocks(blocks, uses), len(uses))
