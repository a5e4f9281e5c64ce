"""The executables that packages, image and release are made of."""

from __future__ import annotations

import os
from pathlib import Path

from make_executable import TARGETS, Target, native
from make_packages import executable
from node import TESTS
from real_programs import cannot

NATIVE = native()
(FOREIGN,) = (target for target in TARGETS if target != NATIVE)


def directory() -> Path:
    """$EXECUTABLES, else what `make executable` leaves, with those of both architectures."""
    place = Path(os.environ.get("EXECUTABLES", TESTS.parent / "dist")).absolute()
    for target in TARGETS:
        if not executable(target, place).exists():
            cannot(f"there is no {executable(target, place)}: make executable")
    return place


def command(target: Target) -> list[str | Path]:
    """What runs the executable of an architecture here."""
    return [*([] if target == NATIVE else [f"qemu-{target.machine}-static"]), executable(target, directory())]
