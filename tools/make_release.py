"""Makes all that a version is released with in dist, which it empties first, and checks it.

    the executables, the wheel, packages and container image
    crio-credential-provider-<version>.tgz                    the Helm chart
    kubectl-mirror_credentials-linux-<architecture>.tar.gz    the plugin of kubectl, and for krew
    mirror-credentials.yaml                                   its manifest
    crio-credential-provider-linux-<architecture>.cdx.json    bill of materials, CycloneDX
    RELEASE_NOTES.md                                          the version's section of CHANGELOG.md
    SHA256SUMS                                                of all of these

A version is released from a commit: `--allow-dirty` tries it before that. Needs what make_executable.py and
make_packages.py need; looks into the image where skopeo is installed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import krew
import make_executable
import make_packages
from bill_of_materials import bill, parts_of
from crio_credential_provider import __version__
from hatch_build import UNKNOWN, git, git_commit
from make_build import DIST, NAME, build_wheel, made_from
from make_chart import chart_version, make_chart
from make_executable import OPENSSL, PYTHON, TARGETS, WORK, ZLIB, BuildError, Target
from make_packages import DIRECTORY, epoch, executable
from make_venv import ROOT

SUMS, NOTES = "SHA256SUMS", "RELEASE_NOTES.md"


def notes(changelog: str, version: str) -> str:
    """What CHANGELOG.md says about a version, below its heading.

    Raises:
        BuildError: it says nothing.
    """
    found = re.search(rf"^## \[{re.escape(version)}\].*\n((?:(?!## |\[).*\n?)*)", changelog, re.MULTILINE)
    if found is None or not found[1].strip():
        raise BuildError(f"CHANGELOG.md has no section '## [{version}] - DATE'")
    return f"{found[1].strip()}\n"


def names(version: str) -> list[str]:
    """Files of a release, all of which SHA256SUMS lists."""
    made = [NOTES, krew.MANIFEST, f"{NAME.replace('-', '_')}-{version}-py3-none-any.whl"]
    made += [f"{NAME}-{version}.oci.tar", f"{NAME}-{version}.tgz"]
    for target in TARGETS:
        made += [f"{NAME}-linux-{target.name}", f"{NAME}-linux-{target.name}.cdx.json"]
        made.append(f"{krew.PROGRAM}-linux-{target.name}.tar.gz")
        made += [f"{NAME}_{version}_{target.name}.deb", f"{NAME}-{version}-1.{target.machine}.rpm"]
    return sorted(made)


def finish(directory: Path, version: str, changelog: str) -> None:
    """Everything else of a release beside its executables."""
    make_packages.make(TARGETS, directory, directory, version)
    make_chart(directory, epoch())
    for target in TARGETS:
        program = executable(target, directory)
        parts = parts_of((PYTHON, OPENSSL, ZLIB), f"{target.host}-gcc", WORK / "libraries", WORK / "modules.zip")
        (directory / f"{program.name}.cdx.json").write_text(bill(version, parts, program, epoch()))
    krew.make(directory, version)
    (directory / NOTES).write_text(notes(changelog, version))
    sums = [f"{digest(directory / name)}  {name}\n" for name in names(version)]
    (directory / SUMS).write_text("".join(sums))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# -- what is checked --------------------------------------------------------------------------------------------------


def faults(directory: Path, version: str, commit: str) -> Iterator[str]:
    """What is wrong with a release in a directory."""
    there = {path.name for path in directory.iterdir() if not path.name.startswith(".")}
    if there != {*names(version), SUMS}:
        yield f"missing or too many: {', '.join(sorted(there ^ {*names(version), SUMS}))}"
        return
    checked = subprocess.run(["sha256sum", "--check", "--strict", "--quiet", SUMS], cwd=directory, check=False)
    if checked.returncode != 0:
        yield f"{SUMS} has other checksums"
    chart = directory / f"{NAME}-{version}.tgz"
    for name in ("version", "appVersion"):
        if (its := chart_version(chart, name)) != version:
            yield f"{chart.name}: {name} {its}, expected {version}"
    yield from krew.faults(directory, version)
    for target in TARGETS:
        try:
            for what, found, wanted in facts(directory, target, version, commit):
                if found != wanted:
                    yield f"{what}: {found!r}, expected {wanted!r}"
        except BuildError as error:
            yield str(error)


def facts(directory: Path, target: Target, version: str, commit: str) -> Iterator[tuple[str, object, object]]:
    """What is compared, what it is, and what it should be."""
    program = executable(target, directory)
    content = digest(program)
    runner = [] if target.is_native else [f"qemu-{target.machine}-static"]
    described = json.loads(told(*runner, program, "--version-json"))
    found = tuple(described[name] for name in ("version", "gitCommit", "platform"))
    yield program.name, found, (version, commit, f"linux/{target.machine}")
    yield f"{program.name} --licenses", told(*runner, program, "--licenses").partition(",")[0], NAME

    document = json.loads((directory / f"{program.name}.cdx.json").read_text())
    yield f"{program.name}.cdx.json", document["metadata"]["component"]["hashes"][0]["content"], content

    deb = directory / f"{NAME}_{version}_{target.name}.deb"
    yield deb.name, told("dpkg-deb", "--field", deb, "Architecture"), f"{target.name}\n"
    yield deb.name, told("dpkg-deb", "--field", deb, "Version"), f"{version}\n"
    with tempfile.TemporaryDirectory() as scratch:
        told("dpkg-deb", "--extract", deb, scratch)
        yield f"the program in {deb.name}", digest(Path(scratch, DIRECTORY, NAME)), content

    rpm = directory / f"{NAME}-{version}-1.{target.machine}.rpm"
    query = ("rpm", "--query", "--nosignature", "--package", rpm, "--queryformat")
    yield rpm.name, told(*query, "%{ARCH} %{VERSION}"), f"{target.machine} {version}"
    files = told(*query, "[%{FILENAMES} %{FILEDIGESTS}\n]").splitlines()
    yield f"the program in {rpm.name}", f"/{DIRECTORY}/{NAME} {content}" in files, True

    if shutil.which("skopeo"):
        image = f"oci-archive:{directory}/{NAME}-{version}.oci.tar"
        config: Any = json.loads(told("skopeo", "--override-arch", target.name, "inspect", "--config", image))
        labels = config["config"]["Labels"]
        found = (
            config["architecture"],
            *(labels[f"org.opencontainers.image.{name}"] for name in ("version", "revision")),
        )
        yield image, found, (target.name, version, commit)


def told(*command: str | Path) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except OSError as error:
        raise BuildError(f"{error.filename}: {error.strerror}") from None
    except subprocess.CalledProcessError as error:
        command_line = " ".join(map(str, command))
        raise BuildError(f"exit status {error.returncode} from: {command_line}\n{error.stderr}") from None


def main() -> None:
    commit, changelog = git_commit(str(ROOT)), (ROOT / "CHANGELOG.md").read_text()
    notes(changelog, __version__)  # before minutes have passed
    changed = git(str(ROOT), "status", "--porcelain") or (commit == UNKNOWN and "not a git checkout")
    if changed and "--allow-dirty" not in sys.argv[1:]:
        raise BuildError(f"not committed:\n{changed}\nhint: commit it, or try the release with RELEASE=--allow-dirty")
    tags = git(str(ROOT), "tag", "--points-at", "HEAD").split()
    if tags and f"v{__version__}" not in tags:
        raise BuildError(f"the commit has the tag {', '.join(tags)}, and its version is {__version__}")
    with (ROOT / "pyproject.toml").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two makes in one checkout take turns
        shutil.rmtree(DIST, ignore_errors=True)
        make_executable.make(TARGETS, DIST)
        build_wheel(made_from())
        finish(DIST, __version__, changelog)
        if found := [*faults(DIST, __version__, commit)]:
            raise BuildError("\n".join(found))
    print(f"make_release: {DIST} is version {__version__}, checked", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except BuildError as error:
        sys.exit(f"make_release: {error}")
