"""Packs the Helm chart, as `helm package` does, without Helm: crio-credential-provider-<version>.tgz.

The same files and time make the same bytes.
"""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import tarball
from make_build import NAME
from make_venv import ROOT

CHART = ROOT / "packaging/helm" / NAME
_DESCRIPTION = "Chart.yaml"


def make_chart(directory: Path, seconds: int) -> Path:
    """The chart's archive, in a directory.

    Args:
        seconds: since 1970, of all that is in it.
    """
    paths = sorted(path for path in CHART.rglob("*") if path.is_file())
    files = [(f"{NAME}/{path.relative_to(CHART)}", path.read_bytes(), 0o644) for path in paths]
    made = directory / f"{NAME}-{_value((CHART / _DESCRIPTION).read_text(), 'version')}.tgz"
    made.write_bytes(tarball.pack(files, seconds))
    return made


def chart_version(archive: Path, name: str) -> str:
    """What its Chart.yaml says: ``version``, or ``appVersion``, which is that of the image."""
    with tarfile.open(archive) as files:
        content = files.extractfile(f"{NAME}/{_DESCRIPTION}")
        assert content, f"{archive} has no {_DESCRIPTION}"
        return _value(content.read().decode(), name)


def _value(text: str, name: str) -> str:
    (found,) = re.findall(rf"^{name}: (\S+)$", text, re.MULTILINE)
    return str(found)
