"""What a bundle is made of: names, versions and licenses, from the machine's own records; and as CycloneDX JSON."""

from __future__ import annotations

import email
import hashlib
import json
import platform
import re
import subprocess
import sys
import sysconfig
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

# SPDX expressions, by the names of Debian's source packages and of wheels.
_LICENSES = {
    "cpython": "PSF-2.0",
    "glibc": "LGPL-2.1-or-later",
    "openssl": "Apache-2.0",
    "zlib": "Zlib",
    "expat": "MIT",
    "util-linux": "BSD-3-Clause",
    "libffi": "MIT",
    "tomli": "MIT",
    "pyyaml": "MIT",
    "rich": "MIT",
    "ruamel-yaml": "MIT",
    "shtab": "MPL-2.0",
    "markdown-it-py": "MIT",
    "mdurl": "MIT",
    "pygments": "BSD-2-Clause",
    "crio-credential-provider": "Apache-2.0",
}
_COMMON_LICENSES = Path("/usr/share/common-licenses")


class Part(NamedTuple):
    """A component. `license_texts` maps names of files to their bytes."""

    name: str
    version: str
    license: str
    purl: str
    license_texts: dict[str, bytes]


def parts_of(libraries: Iterable[Path], wheels: Path) -> list[Part]:
    """Python, the packages that the libraries came with, and what is installed below `wheels`, sorted by name.

    Raises:
        ValueError: a part has no license text here.
    """
    parts = [_python(), *_packages(libraries), *map(_wheel, sorted(wheels.glob("*.dist-info")))]
    for part in parts:
        if not part.license_texts or part.name not in _LICENSES:
            raise ValueError(f"no license is known for {part.name}: tools/bill_of_materials.py must learn of it")
    return sorted(parts, key=lambda part: part.name)


def _python() -> Part:
    version = platform.python_version()
    standard_library = Path(sysconfig.get_path("stdlib"))
    debian = Path(f"/usr/share/doc/python{sysconfig.get_python_version()}/copyright")
    found = [path for path in (standard_library / "LICENSE.txt", debian) if path.exists()]
    texts = {path.name: path.read_bytes() for path in found[:1]}
    return Part("cpython", version, _LICENSES["cpython"], f"pkg:generic/cpython@{version}", texts)


def _packages(libraries: Iterable[Path]) -> list[Part]:
    """The source packages of the distribution that own these files."""
    parts: dict[str, Part] = {}
    for library in libraries:
        package = _owner(library)
        source, version = _query(package, "${source:Package} ${source:Version}").split()
        text = Path(f"/usr/share/doc/{package.partition(':')[0]}/copyright").read_bytes()
        texts = {"copyright": text, **_common_licenses(text)}
        purl = f"pkg:deb/debian/{source}@{version}?arch=source"
        parts[source] = Part(source, version, _LICENSES.get(source, ""), purl, texts)
    return list(parts.values())


def _owner(library: Path) -> str:
    """The package with this file, which it may know below / or below /usr."""
    real = library.resolve()
    for path in (real, Path(str(real).removeprefix("/usr")), library):
        done = subprocess.run(["dpkg-query", "--search", path], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.partition(": ")[0].partition(",")[0]
    raise ValueError(f"no package owns {library}: its version and license are unknown\nhint: build on Debian or Ubuntu")


def _query(package: str, form: str) -> str:
    command = ["dpkg-query", "--show", f"--showformat={form}", package]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _common_licenses(text: bytes) -> dict[str, bytes]:
    """Debian's copyright files refer to these by path; only the LGPL asks for its text to come along."""
    if b"/usr/share/common-licenses/LGPL" not in text:
        return {}
    return {"LGPL-2.1": (_COMMON_LICENSES / "LGPL-2.1").read_bytes()}


def _wheel(information: Path) -> Part:
    metadata = email.message_from_bytes((information / "METADATA").read_bytes())
    name, version = re.sub(r"[-_.]+", "-", metadata["Name"]).lower(), metadata["Version"]
    found = [path for path in sorted(information.rglob("*")) if path.is_file() and "LICEN" in path.name.upper()]
    texts = {path.name: path.read_bytes() for path in found}
    return Part(name, version, _LICENSES.get(name, ""), f"pkg:pypi/{name}@{version}", texts)


def bill(name: str, version: str, parts: list[Part], archive: str, digest: str, seconds: int) -> str:
    """CycloneDX 1.5. Its serial number follows from the archive, so that the same bytes have the same bill."""
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": uuid.UUID(hashlib.sha256(digest.encode()).hexdigest()[:32], version=4).urn,
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)),
            "component": {
                "type": "application",
                "bom-ref": "bundle",
                "name": name,
                "version": version,
                "hashes": [{"alg": "SHA-256", "content": digest}],
                "properties": [
                    {"name": "archive", "value": archive},
                    {"name": "compiler", "value": sys.version.partition("[")[2].rstrip("]")},
                ],
            },
        },
        "components": [_component(part) for part in parts],
        "dependencies": [{"ref": "bundle", "dependsOn": [part.purl for part in parts]}],
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
