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
    made = directory / f"{NAME}-{chart_version()}.tgz"
    made.write_bytes(gzip.compress(packed.getvalue(), 9, mtime=0))
    return made


def chart_version() -> str:
    (found,) = re.findall(r"^version: (\S+)$", (CHART / "Chart.yaml").read_text(), re.M)
    return str(found)
