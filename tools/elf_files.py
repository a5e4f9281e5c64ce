"""Shared libraries: what an ELF file needs, where the build machine has it, and a copy that knows no build machine."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

_DT_NULL, _DT_RPATH, _DT_RUNPATH, _DT_DEBUG = 0, 15, 29, 21
_PT_DYNAMIC = 2


def is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}).stdout


def interpreter_of(path: Path) -> Path:
    """The loader that a dynamic program names."""
    found = re.search(r"Requesting program interpreter: (\S+)\]", output("readelf", "-lW", path))
    if not found:
        raise ValueError(f"{path} names no loader")
    return Path(found[1])


def needed_by(path: Path) -> list[str]:
    """Names of the libraries that a file needs itself, the loader included."""
    return re.findall(r"\(NEEDED\) +Shared library: \[(.+)\]", output("readelf", "-dW", path))


def search_path_of(path: Path) -> list[str]:
    """Where a file tells the loader to look."""
    return re.findall(r"\((?:RPATH|RUNPATH)\) .*\[(.*)\]", output("readelf", "-dW", path))


def libraries_of(*paths: Path) -> dict[str, Path]:
    """Name -> file of all libraries that these files need, directly or not, without the loader.

    Raises:
        ValueError: this machine lacks one.
    """
    found: dict[str, Path] = {}
    for path in paths:
        for line in output("ldd", path).splitlines():
            name, arrow, place = line.strip().partition(" => ")
            if not arrow:
                continue
            if "not found" in place:
                raise ValueError(f"{path} needs {name}, which is not on this machine")
            found[name] = Path(place.rpartition(" (")[0])
    return found


def kernel_floor(path: Path) -> str:
    """The oldest Linux that a libc was built for, from its ABI note."""
    found = re.search(r"OS: Linux, ABI: ([\d.]+)", output("readelf", "-nW", path))
    return found[1] if found else ""


def copy(source: Path, target: Path) -> None:
    """Copies a library or program without symbols for debuggers and without the build machine's search path."""
    shutil.copyfile(source, target)
    target.chmod(0o755)
    subprocess.run(["strip", "--strip-unneeded", "--remove-section=.comment", target], check=True)
    data = bytearray(target.read_bytes())
    for place in _dynamic_entries(data):
        (tag,) = struct.unpack_from("<q", data, place)
        if tag in (_DT_RPATH, _DT_RUNPATH):
            # A tag that nothing reads in a library.
            struct.pack_into("<q", data, place, _DT_DEBUG)
    target.write_bytes(data)


def _dynamic_entries(data: bytearray) -> list[int]:
    """Offsets of the entries of the dynamic section (ELF, 64 bits, little-endian: all that a kubelet runs on but s390x)."""
    if data[4:6] != b"\x02\x01":
        raise ValueError("not an ELF file of 64 bits, little-endian")
    (headers,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    entries: list[int] = []
    for header in range(headers, headers + size * count, size):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", data, header)
        if kind == _PT_DYNAMIC:
            for place in range(offset, offset + length, 16):
                if struct.unpack_from("<q", data, place)[0] == _DT_NULL:
                    break
                entries.append(place)
    return entries
