"""Real programs that some tests run: skopeo, docker-registry, journald."""

from __future__ import annotations

import os
import shutil

import pytest


def need(*programs: str) -> list[str]:
    """Paths of real programs; without one the test is skipped, and fails where REQUIRE_REAL_PROGRAMS is set (CI)."""
    found = [shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") for program in programs]
    missing = [program for program, path in zip(programs, found, strict=True) if path is None]
    if missing:
        cannot(f"not installed here: {', '.join(missing)}")
    return [path for path in found if path is not None]


def cannot(reason: str) -> None:
    """This test cannot run here: a skip that tells why, a failure where everything must run."""
    if os.environ.get("REQUIRE_REAL_PROGRAMS"):
        pytest.fail(f"REQUIRE_REAL_PROGRAMS is set, and {reason}")
    pytest.skip(reason)
