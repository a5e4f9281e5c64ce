"""Shared libraries: what an ELF file needs, where the build machine has it, and a copy that knows no build machine."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Collection
from pathlib import Path

_DT_NEEDED, _DT_STRTAB, _DT_RPATH, _DT_DEBUG, _DT_RUNPATH, _DT_VERNEED = 1, 5, 15, 21, 29, 0x6FFFFFFE
_PT_LOAD, _PT_DYNAMIC = 1, 2
_VER_FLG_WEAK = 2


def is_elf(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.read_bytes()[:4] == b"\x7fELF"


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


def undefined_in(path: Path) -> list[str]:
    """Names of the symbols that a file cannot do without and takes from others, without their versions."""
    return [name for name, kind in _symbols("--undefined-only", path) if kind == "U"]


def defined_in(path: Path) -> list[str]:
    """Names of the symbols that a file has for others, without their versions."""
    return [name for name, _ in _symbols("--defined-only", path)]


def _symbols(which: str, path: Path) -> list[tuple[str, str]]:
    """Name and kind of the symbols that the loader sees."""
    lines = [line.split() for line in output("nm", "-D", "-P", which, path).splitlines()]
    return [(name.partition("@")[0], kind) for name, kind, *_ in lines]


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
    entries = _dynamic_entries(data)
    texts = next((value for tag, value in entries.values() if tag == _DT_STRTAB), 0)
    for place, (tag, value) in entries.items():
        if tag in (_DT_RPATH, _DT_RUNPATH):
            # A tag that nothing reads in a library.
            struct.pack_into("<q", data, place, _DT_DEBUG)
            _blank(data, _offset(data, texts) + value)
    target.write_bytes(data)


def release(path: Path, libraries: Collection[str]) -> None:
    """Makes a library take from the program what it took from these libraries, by their names.

    The program's symbols have no version, which serves for any (glibc's elf/dl-lookup.c). The versions that the library
    wants are looked for when it is loaded nevertheless: now in another library, where a weak one may be missing.
    """
    data = bytearray(path.read_bytes())
    entries = _dynamic_entries(data)
    texts = _offset(data, next(value for tag, value in entries.values() if tag == _DT_STRTAB))
    needed = {place: value for place, (tag, value) in entries.items() if tag == _DT_NEEDED}
    released = {
        place: value
        for place, value in needed.items()
        if data[texts + value : data.index(0, texts + value)].decode() in libraries
    }
    if not released:
        return
    other = next(value for place, value in needed.items() if place not in released)
    for place in released:
        struct.pack_into("<q", data, place, _DT_DEBUG)
    place = next(_offset(data, value) for tag, value in entries.values() if tag == _DT_VERNEED)
    step = 1
    while step:
        _, count, library, first, step = struct.unpack_from("<HHIII", data, place)
        if library in released.values():
            struct.pack_into("<I", data, place + 4, other)
            _weaken(data, place + first, count)
        place += step
    path.write_bytes(data)


def _weaken(data: bytearray, place: int, count: int) -> None:
    """Makes wanted versions weak."""
    for _ in range(count):
        struct.pack_into("<H", data, place + 4, _VER_FLG_WEAK)
        (step,) = struct.unpack_from("<I", data, place + 12)
        place += step


def _blank(data: bytearray, place: int) -> None:
    """Overwrites a path in the table of strings up to its last slash: the rest may be the end of a symbol's name."""
    end = data.rfind(b"/", place, data.index(0, place)) + 1
    data[place:end] = b"x" * (end - place)


def _program_headers(data: bytearray) -> list[tuple[int, int, int, int]]:
    """Type, offset, address, size in the file (ELF of 64 bits, little-endian, as on x86_64 and aarch64)."""
    if data[4:6] != b"\x02\x01":
        raise ValueError("not an ELF file of 64 bits, little-endian")
    (start,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    headers = [struct.unpack_from("<IIQQQQ", data, start + size * index) for index in range(count)]
    return [(kind, offset, address, length) for kind, _, offset, address, _, length in headers]


def _offset(data: bytearray, address: int) -> int:
    """Where in the file an address is."""
    for kind, offset, start, length in _program_headers(data):
        if kind == _PT_LOAD and start <= address < start + length:
            return offset + address - start
    raise ValueError(f"nothing is loaded at {address:#x}")


def _dynamic_entries(data: bytearray) -> dict[int, tuple[int, int]]:
    """Offset -> tag and value of the entries of the dynamic section."""
    entries: dict[int, tuple[int, int]] = {}
    for kind, offset, _, length in _program_headers(data):
        if kind == _PT_DYNAMIC:
            for place in range(offset, offset + length, 16):
                entries[place] = struct.unpack_from("<qq", data, place)
    return entries
