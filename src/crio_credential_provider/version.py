"""What ``--version`` and ``--version-json`` say, in the members that the Go provider has where both have them."""

from __future__ import annotations

import json
import os
import sys

from . import __version__


def describe() -> dict[str, str]:
    """Version, where it was built from and when, and what it runs on; "unknown" where the build did not tell."""
    try:
        # Generated into the wheel, so that it is missing in a source tree.
        from ._build import BUILD_DATE, GIT_COMMIT, GIT_COMMIT_DATE
    except ImportError:
        BUILD_DATE = GIT_COMMIT = GIT_COMMIT_DATE = "unknown"
    system = os.uname()
    return {
        "version": __version__,
        "gitCommit": GIT_COMMIT,
        "gitCommitDate": GIT_COMMIT_DATE,
        "buildDate": BUILD_DATE,
        "pythonVersion": sys.version.split()[0],
        "compiler": sys.implementation.name,
        "platform": f"{system.sysname.lower()}/{system.machine}",
    }


def as_text() -> str:
    """``Version:  0.1.0``, a line each."""
    titles = {name: f"{name[0].upper()}{name[1:]}:" for name in describe()}
    width = max(map(len, titles.values())) + 2
    return "".join(f"{titles[name]:{width}}{value}\n" for name, value in describe().items())


def as_json() -> str:
    """The same as an indented JSON object."""
    return json.dumps(describe(), indent=2) + "\n"
