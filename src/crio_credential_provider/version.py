"""What ``--version`` and ``--version-json`` say, in the members that the Go provider has where both have them; what
``--licenses`` prints."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import sys
from typing import Any

from . import __version__

EXECUTABLE = "/proc/self/exe"
_ELSEWHERE = """\
Python and the packages that this program imports have licenses of their own: Python's is in its installation, those of
PyYAML, rich, ruamel.yaml, shtab and tomli are in the *.dist-info directories of theirs.
"""


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


def is_executable() -> bool:
    """Whether this program is one file (packaging/executable), of which this module is a part."""
    return getattr(_loader(), "archive", "") == EXECUTABLE


def licenses() -> str:
    """Those of all that is in the executable, of which the build made one text; elsewhere the program's own."""
    directory = os.path.dirname(__file__)
    if is_executable():
        text: bytes = _loader().get_data(f"{directory}/licenses.txt")
        return text.decode()
    installed = glob.glob(f"{directory}/../{__package__}-*.dist-info/licenses/LICENSE")
    for path in (*installed, f"{directory}/../../LICENSE"):
        with contextlib.suppress(OSError), open(path, encoding="utf-8") as file:
            return f"{file.read()}\n{_ELSEWHERE}"
    return _ELSEWHERE


def _loader() -> Any:
    return __spec__ and __spec__.loader
