"""The plugin of kubectl as krew takes it: an archive of each executable, and the manifest that names them.

    dist/kubectl-mirror_credentials-linux-<architecture>.tar.gz
    dist/mirror-credentials.yaml

The manifest names the place of the release: that of the repository in GITHUB_REPOSITORY. The rules that it is held to
are those of krew's validation (ValidatePlugin) and of its guide for plugin manifests.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

import tarball
from make_executable import TARGETS, Target
from make_packages import PACKAGING, epoch, executable, filled
from make_venv import ROOT

PLUGIN, PROGRAM = "mirror-credentials", "kubectl-mirror_credentials"
MANIFEST = f"{PLUGIN}.yaml"
_LONGEST = 50
"""Characters of the short description, which `kubectl krew search` shows in a column."""
_SEMVER = re.compile(r"v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")


def archive(target: Target, directory: Path) -> Path:
    return directory / f"{PROGRAM}-linux-{target.name}.tar.gz"


def make(directory: Path, version: str) -> None:
    """Both archives and the manifest, of the executables in a directory. The same files make the same bytes."""
    repository = f"https://github.com/{os.environ.get('GITHUB_REPOSITORY', 'OWNER/crio-credential-provider')}"
    values = {"version": version, "homepage": repository, "downloads": f"{repository}/releases/download"}
    for target in TARGETS:
        made = archive(target, directory)
        made.write_bytes(_packed(executable(target, directory)))
        values[target.name] = hashlib.sha256(made.read_bytes()).hexdigest()
    (directory / MANIFEST).write_text(filled(PACKAGING / "krew" / MANIFEST, values))


def _packed(program: Path) -> bytes:
    license = (ROOT / "LICENSE").read_bytes()
    return tarball.pack([(PROGRAM, program.read_bytes(), 0o755), ("LICENSE", license, 0o644)], epoch())


def faults(directory: Path, version: str) -> Iterator[str]:
    """What krew would refuse, or what differs from the archives in a directory."""
    manifest: Any = yaml.safe_load((directory / MANIFEST).read_text())
    spec = manifest["spec"]
    if (manifest["apiVersion"], manifest["kind"], manifest["metadata"]["name"]) != (
        *("krew.googlecontainertools.github.com/v1alpha2", "Plugin"),
        PLUGIN,
    ):
        yield f"{MANIFEST}: not the Plugin {PLUGIN}"
    if spec["version"] != f"v{version}" or not _SEMVER.fullmatch(spec["version"]):
        yield f"{MANIFEST}: version {spec['version']!r} is not v{version}, or not a semantic version"
    short = spec["shortDescription"]
    if not 0 < len(short) <= _LONGEST or "\n" in short:
        yield f"{MANIFEST}: shortDescription is not one line of at most {_LONGEST} characters"
    if not spec["homepage"].startswith("https://"):
        yield f"{MANIFEST}: homepage {spec['homepage']!r}"
    selected = [platform["selector"]["matchLabels"] for platform in spec["platforms"]]
    if selected != [{"os": "linux", "arch": target.name} for target in TARGETS]:
        yield f"{MANIFEST}: platforms {selected}"
        return
    for target, platform in zip(TARGETS, spec["platforms"], strict=True):
        yield from _platform_faults(archive(target, directory), executable(target, directory), platform, version)


def _platform_faults(packed: Path, program: Path, platform: Any, version: str) -> Iterator[str]:
    if not re.fullmatch(rf"https://[^@]+/v{re.escape(version)}/{re.escape(packed.name)}", platform["uri"]):
        yield f"{MANIFEST}: uri {platform['uri']!r}"
    if platform["sha256"] != hashlib.sha256(packed.read_bytes()).hexdigest():
        yield f"{MANIFEST}: sha256 is not that of {packed.name}"
    with tarfile.open(packed) as archive:
        members = {member.name: member for member in archive.getmembers()}
        if {file["from"] for file in platform["files"]} != set(members) or platform["bin"] not in members:
            yield f"{MANIFEST}: files and bin are not those of {packed.name}"
            return
        content = archive.extractfile(platform["bin"])
        if members[platform["bin"]].mode != 0o755 or content is None or content.read() != program.read_bytes():
            yield f"{packed.name} does not hold {program.name}"
