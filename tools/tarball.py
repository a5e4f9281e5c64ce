"""Archives as a release has them: the same content and time make the same bytes."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterable


def pack(files: Iterable[tuple[str, bytes, int]], seconds: int) -> bytes:
    """A .tar.gz of names, contents and modes; ``seconds`` since 1970 is the time of all."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content, mode in files:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(content), mode, seconds
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(packed.getvalue(), 9, mtime=0)
