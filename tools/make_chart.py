"""Packs the Helm chart, as `helm package` does, without Helm: crio-credential-provider-<version>.tgz.

The same files and time make the same bytes.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
from pathlib import Path

from make_build import NAME
from make_venv import ROOT

CHART = ROOT / "packaging/helm" / NAME
_DESCRIPTION = "Chart.yaml"


def make_chart(directory: Path, seconds: int) -> Path:
    """The chart's archive, in a directory.

    Args:
        seconds: since 1970, of all that is in it.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(path for path in CHART.rglob("*") if path.is_file()):
            content = path.read_bytes()
            entry = tarfile.TarInfo(f"{NAME}/{path.relative_to(CHART)}")
            entry.size, entry.mode, entry.mtime = len(content), 0o644, seconds
            archive.addfile(entry, io.BytesIO(content))
    made = directory / f"{NAME}-{_value((CHART / _DESCRIPTION).read_text(), 'version')}.tgz"
    made.write_bytes(gzip.compress(packed.getvalue(), 9, mtime=0))
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
