"""What is in an executable: names, versions and licenses, from the records of the machine that built it; as CycloneDX
JSON, and as the text that ``--licenses`` prints."""

from __future__ import annotations

import email
import hashlib
import json
import re
import subprocess
import time
import urllib.parse
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

NAME = "crio-credential-provider"
TEXT = "crio_credential_provider/licenses.txt"
"""Path in the archive at the end of an executable, where ``version.licenses`` finds it."""

# SPDX expressions of what Debian has, by the letters that the package's name begins with. Wheels have theirs in them.
_LICENSES = {
    "python": "PSF-2.0",
    "openssl": "Apache-2.0",
    "zlib": "Zlib",
    "libc": "LGPL-2.1-or-later",
    "libgcc": "GPL-3.0-or-later WITH GCC-exception-3.1",
}
# Debian's copyright files only name the path of these.
_COMMON = {"libc": "LGPL-2.1", "libgcc": "GPL-3"}
_COMMON_LICENSES = Path("/usr/share/common-licenses")

_HEAD = """\
crio-credential-provider, and what is linked into this executable with it. The sources of the Debian packages are
Debian's; whoever changes one of them links the executable anew with `make executable`.

"""


class Part(NamedTuple):
    name: str
    version: str
    license: str
    purl: str
    texts: list[bytes]


def parts_of(sources: Iterable[Path], compiler: str, libraries: Path, archive: Path) -> list[Part]:
    """Everything in an executable, ourselves first.

    Args:
        sources: directories of unpacked source packages.
        compiler: the one that linked it.
        libraries: where the wheels are installed whose modules may be in the archive.
        archive: of byte code.

    Raises:
        ValueError: a part has no license here.
    """
    parts = [*map(_source, sources), *_linked(compiler), *_wheels(libraries, archive)]
    for part in parts:
        if not part.texts or not part.license:
            raise ValueError(f"no license is known for {part.name}: tools/bill_of_materials.py must learn of it")
    return sorted(parts, key=lambda part: (part.name != NAME, part.name))


def _source(place: Path) -> Part:
    name, version = re.findall(r"^(\S+) \((\S+)\)", (place / "debian/changelog").read_text())[0]
    texts = [*place.glob("LICENSE*"), place / "debian/copyright"]
    return _debian(name, version, "?arch=source", [text.read_bytes() for text in texts])


def _linked(compiler: str) -> Iterator[Part]:
    """libc and the compiler's own library: packages of this machine."""
    for library in ("libc.a", "libgcc.a"):
        where = _told(compiler, f"-print-file-name={library}").strip()
        package = _told("dpkg-query", "--search", str(Path(where).resolve())).partition(": ")[0]
        name, version = _told("dpkg-query", "--show", "--showformat=${Package} ${Version}", package).split()
        yield _debian(name, version, "", [Path(f"/usr/share/doc/{name}/copyright").read_bytes()])


def _debian(name: str, version: str, qualifier: str, texts: list[bytes]) -> Part:
    project = re.match("[a-z]+", name)[0]  # type: ignore[index]
    if project in _COMMON:
        texts.append((_COMMON_LICENSES / _COMMON[project]).read_bytes())
    purl = f"pkg:deb/debian/{name}@{urllib.parse.quote(version)}{qualifier}"
    return Part(name, version, _LICENSES.get(project, ""), purl, texts)


def _told(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _wheels(libraries: Path, archive: Path) -> Iterator[Part]:
    with zipfile.ZipFile(archive) as opened:
        modules = set(opened.namelist())
    for information in libraries.glob("*.dist-info"):
        files = {line.partition(",")[0] for line in (information / "RECORD").read_text().splitlines()}
        if modules.isdisjoint(f"{file}c" for file in files):
            continue
        metadata = email.message_from_bytes((information / "METADATA").read_bytes())
        name, version = re.sub(r"[-_.]+", "-", metadata["Name"]).lower(), metadata["Version"]
        texts = [path.read_bytes() for path in sorted(information.rglob("*LICEN*"))]
        license = metadata["License-Expression"] or metadata["License"] or ""
        yield Part(name, version, license, f"pkg:pypi/{name}@{version}", texts)


def add_licenses(archive: Path, parts: Iterable[Part]) -> None:
    """Puts the text of ``--licenses`` into the archive. It names no versions, which may differ by architecture."""
    parts = list(parts)
    width = max(len(part.name) for part in parts) + 2
    pieces = [_HEAD.encode(), *(f"{part.name:{width}}{part.license}\n".encode() for part in parts)]
    for part in parts:
        pieces += [f"\n{f' {part.name} '.center(100, '=')}\n\n".encode(), b"\n".join(part.texts)]
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(zipfile.ZipInfo(TEXT), b"".join(pieces), zipfile.ZIP_DEFLATED, 9)


def bill(version: str, parts: list[Part], executable: Path, seconds: int) -> str:
    """CycloneDX 1.5. Its serial number follows from the executable, so that the same bytes have the same bill."""
    digest = hashlib.sha256(executable.read_bytes()).hexdigest()
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": uuid.UUID(digest[:32], version=4).urn,
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)),
            "component": {
                "type": "application",
                "bom-ref": executable.name,
                "name": executable.name,
                "version": version,
                "hashes": [{"alg": "SHA-256", "content": digest}],
            },
        },
        "components": [_component(part) for part in parts],
        "dependencies": [{"ref": executable.name, "dependsOn": [part.purl for part in parts]}],
    }
    return json.dumps(document, indent=2) + "\n"


def _component(part: Part) -> dict[str, object]:
    return {
        "type": "library",
        "bom-ref": part.purl,
        "name": part.name,
        "version": part.version,
        "licenses": [{"expression": part.license}],
        "purl": part.purl,
    }
