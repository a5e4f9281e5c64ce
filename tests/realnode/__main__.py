"""Runs pytest on a real node: python -m realnode [PYTEST ARGUMENTS], as ``make node-test`` does."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from realnode import binaries, sandbox

TESTS = Path(__file__).resolve().parent


def main(arguments: list[str]) -> int:
    if not os.environ.get("NODE_BIN"):
        print(f"skipped: {binaries.WHERE}", file=sys.stderr)
        return 0
    if os.geteuid() != 0:
        print("cannot run a node: it takes root", file=sys.stderr)
        return 1
    try:
        binaries.find()
    except binaries.BinaryError as error:
        print(error, file=sys.stderr)
        return 1
    scratch = sandbox.make_scratch()
    os.environ |= {
        "NODE_SCRATCH": str(scratch),
        "NODE_TABLE": os.environ.get("TABLE") or str(TESTS.parent.parent / "build/node-test.md"),
        "NODE_COMMAND": "make node-test NODE_BIN=DIR" + (" PEER=FILE" if os.environ.get("PEER") else ""),
        "PROGRAM": os.path.abspath(os.environ["PROGRAM"]),
        "PYTHONPATH": str(TESTS.parent),
    }
    paths = [argument for argument in arguments if not argument.startswith("-") and Path(argument).exists()]
    pytest = [sys.executable, "-m", "pytest", f"--basetemp={scratch}/pytest", *([] if paths else [str(TESTS)])]
    status = sandbox.run(scratch, [*pytest, *arguments])
    if status == 0:
        shutil.rmtree(scratch)
    else:
        print(f"kept: {scratch}, with the node's logs in {scratch}/logs", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
