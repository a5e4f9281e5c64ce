"""Shared libraries: what an ELF file needs, where the build machine has it, and a copy that knows no build machine."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile

_DT_DEBUG = 21
"""A tag that nothing reads in a library."""

_VER_FLG_WEAK = 2


def is_elf(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.read_bytes()[:4] == b"\x7fELF"


def output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}).stdout


def _read(path: Path) -> ELFFile:
    return ELFFile(io.BytesIO(path.read_bytes()))


def _segment(elf: ELFFile, kind: str) -> Any:
    """The first of a kind, with the methods of that kind."""
    return next(elf.iter_segments(kind))


def _section(elf: ELFFile, name: str) -> Any:
    return elf.get_section_by_name(name)


def interpreter_of(path: Path) -> Path:
    """The loader that a dynamic program names."""
    return Path(_segment(_read(path), "PT_INTERP").get_interp_name())


def needed_by(path: Path) -> list[str]:
    """Names of the libraries that a file needs itself, the loader included."""
    return [tag.needed for _, tag in _entries(_read(path)) if tag["d_tag"] == "DT_NEEDED"]


def undefined_in(path: Path) -> list[str]:
    """Names of the symbols that a file cannot do without and takes from others, without their versions."""
    return [name for name, place, binding in _symbols(path) if place == "SHN_UNDEF" and binding != "STB_WEAK"]


def defined_in(path: Path) -> list[str]:
    """Names of the symbols that a file has for others, without their versions."""
    return [name for name, place, _ in _symbols(path) if place != "SHN_UNDEF"]


def _symbols(path: Path) -> Iterator[tuple[str, str | int, str]]:
    """Name, section and binding of the symbols that the loader sees."""
    section = _section(_read(path), ".dynsym")
    for symbol in section.iter_symbols() if section else ():
        if symbol.name:
            yield symbol.name, symbol["st_shndx"], symbol["st_info"]["bind"]


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
    (note,) = _section(_read(path), ".note.ABI-tag").iter_notes()
    oldest = note["n_desc"]
    return f"{oldest['abi_major']}.{oldest['abi_minor']}.{oldest['abi_tiny']}"


def copy(source: Path, target: Path) -> None:
    """Copies a library or program without symbols for debuggers and without the build machine's search path."""
    shutil.copyfile(source, target)
    target.chmod(0o755)
    subprocess.run(["strip", "--strip-unneeded", "--remove-section=.comment", target], check=True)
    elf, data = _read(target), bytearray(target.read_bytes())
    (texts,) = _segment(elf, "PT_DYNAMIC").iter_tags("DT_STRTAB")
    for place, tag in _entries(elf):
        if tag["d_tag"] in ("DT_RPATH", "DT_RUNPATH"):
            _drop(data, place)
            _blank(data, _offset(elf, texts["d_val"] + tag["d_val"]))
    target.write_bytes(data)


def release(path: Path, libraries: Collection[str]) -> None:
    """Makes a library take from the program what it took from these libraries, by their names.

    The program's symbols have no version, which serves for any (glibc's elf/dl-lookup.c). The versions that the library
    wants are looked for when it is loaded nevertheless: now in another library, where a weak one may be missing.
    """
    elf, data = _read(path), bytearray(path.read_bytes())
    needed = [(place, tag) for place, tag in _entries(elf) if tag["d_tag"] == "DT_NEEDED"]
    released = {tag["d_val"]: place for place, tag in needed if tag.needed in libraries}
    if not released:
        return
    other = next(tag["d_val"] for _, tag in needed if tag.needed not in libraries)
    for place in released.values():
        _drop(data, place)
    wanted = _section(elf, ".gnu.version_r")
    place = wanted["sh_offset"]
    for library, versions in wanted.iter_versions():
        if library["vn_file"] in released:
            struct.pack_into("<I", data, place + 4, other)  # vn_file
            version_place = place + library["vn_aux"]
            for version in versions:
                struct.pack_into("<H", data, version_place + 4, _VER_FLG_WEAK)  # vna_flags
                version_place += version["vna_next"]
        place += library["vn_next"]
    path.write_bytes(data)


def _entries(elf: ELFFile) -> Iterator[tuple[int, Any]]:
    """The entries of the dynamic section, each with its offset; none of a static program."""
    segments: Iterator[Any] = elf.iter_segments("PT_DYNAMIC")
    for segment in segments:
        for number, tag in enumerate(segment.iter_tags()):
            yield segment["p_offset"] + number * 16, tag


def _drop(data: bytearray, place: int) -> None:
    """Takes the meaning from an entry of the dynamic section."""
    struct.pack_into("<q", data, place, _DT_DEBUG)


def _offset(elf: ELFFile, address: int) -> int:
    """Where in the file an address is."""
    return int(next(elf.address_offsets(address)))


def _blank(data: bytearray, place: int) -> None:
    """Overwrites a path in the table of strings up to its last slash: the rest may be the end of a symbol's name."""
    end = data.rfind(b"/", place, data.index(0, place)) + 1
    data[place:end] = b"x" * (end - place)
