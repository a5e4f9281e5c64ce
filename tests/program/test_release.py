"""What `make release` checks, and the licenses and bills of materials that it puts beside the executables."""

from __future__ import annotations

import functools
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import bill_of_materials
import executables
import krew
import make_packages
import make_release
from bill_of_materials import Part
from crio_credential_provider import __version__
from executables import NATIVE, command
from make_build import NAME
from make_executable import TARGETS, BuildError, Target
from make_packages import executable
from node import COMMAND, ENVIRONMENT, PROGRAM, TESTS
from real_programs import need

pytestmark = pytest.mark.slow

ROOT = TESTS.parent
CHANGELOG = """\
# Changelog

## [Unreleased]

## [0.1.0] - 2026-01-31

The first version.

### Added

* Everything.

## [0.0.1] - 2025-01-31

* Nothing.

[0.1.0]: https://example.com/0.1.0
"""


# -- release notes ----------------------------------------------------------------------------------------------------


def test_the_notes_are_the_section_of_the_version() -> None:
    assert make_release.notes(CHANGELOG, "0.1.0") == "The first version.\n\n### Added\n\n* Everything.\n"
    assert make_release.notes(CHANGELOG, "0.0.1") == "* Nothing.\n"


@pytest.mark.parametrize("version", ["0.1.1", "0.1", "Unreleased", "010"])
def test_a_version_without_a_section_is_not_released(version: str) -> None:
    with pytest.raises(BuildError, match=f"no section '## .{version}"):
        make_release.notes(CHANGELOG, version)


# -- a release --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def released(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as `make release` leaves it, but for the packages' compression."""
    need("dpkg-deb", "rpmbuild", "rpm", "skopeo", *(f"qemu-{target.machine}-static" for target in TARGETS[1:]))
    directory = tmp_path_factory.mktemp("release")
    for path in (*(executable(target, executables.directory()) for target in TARGETS), wheel):
        shutil.copy(path, directory)
    make = make_packages.make
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make_packages, "make", functools.partial(make, level=0))
        patch.setattr(make_packages, "git_commit", lambda _: commit_of(directory))
        patch.setattr(make_release, "parts_of", lambda *_: [Part("a", "1", "MIT", "pkg:generic/a@1", [b"text"])])
        make_release.finish(directory, __version__, CHANGELOG.replace("0.1.0", __version__))
    return directory


def commit_of(directory: Path) -> str:
    """Of the executables, which may be older than what is tested."""
    told = subprocess.run([executable(NATIVE, directory), "--version-json"], capture_output=True, check=True).stdout
    return str(json.loads(told)["gitCommit"])


def test_a_release_is_complete(released: Path) -> None:
    assert [*make_release.faults(released, __version__, commit_of(released))] == []
    told = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=released, capture_output=True, text=True)
    assert told.returncode == 0
    listed = {line.partition(":")[0] for line in told.stdout.splitlines()}
    assert listed == {path.name for path in released.iterdir()} - {"SHA256SUMS"}
    assert len(listed) == 15


def _renew_sums(directory: Path) -> None:
    lines = [f"{make_release.digest(directory / name)}  {name}\n" for name in make_release.names(__version__)]
    (directory / "SHA256SUMS").write_text("".join(lines))


def _missing(directory: Path) -> None:
    (directory / f"{NAME}_{__version__}_arm64.deb").unlink()


def _too_many(directory: Path) -> None:
    (directory / "old.deb").touch()


def _changed(directory: Path) -> None:
    (directory / "RELEASE_NOTES.md").write_text("* Something else.\n")


def _executables_exchanged(directory: Path) -> None:
    one, other = (executable(target, directory) for target in TARGETS)
    one.rename(directory / "x")
    other.rename(one)
    (directory / "x").rename(other)
    _renew_sums(directory)


def _debs_exchanged(directory: Path) -> None:
    one, other = (directory / f"{NAME}_{__version__}_{target.name}.deb" for target in TARGETS)
    shutil.copy(other, one)
    _renew_sums(directory)


def _rpm_of_the_other_architecture(directory: Path) -> None:
    one, other = (directory / f"{NAME}-{__version__}-1.{target.machine}.rpm" for target in TARGETS)
    shutil.copy(one, other)
    _renew_sums(directory)


def _executable_newer_than_its_packages(directory: Path) -> None:
    with executable(NATIVE, directory).open("ab") as file:
        file.write(b"\0")
    _renew_sums(directory)


def _chart_of_another_version(directory: Path) -> None:
    chart = directory / f"{NAME}-{__version__}.tgz"
    with tarfile.open(chart) as files:
        texts = {entry.name: files.extractfile(entry).read() for entry in files}  # type: ignore[union-attr]
    with tarfile.open(chart, "w:gz") as files:
        for name, content in texts.items():
            content = content.replace(b"appVersion: ", b"appVersion: 9")
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            files.addfile(entry, io.BytesIO(content))
    _renew_sums(directory)


def _manifest(pattern: str, text: str) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        path = directory / krew.MANIFEST
        changed = re.sub(pattern, text, path.read_text(), count=1)
        assert changed != path.read_text()
        path.write_text(changed)
        _renew_sums(directory)

    return damage


def _archives_exchanged(directory: Path) -> None:
    one, other = (krew.archive(target, directory) for target in TARGETS)
    shutil.copy(other, one)
    _renew_sums(directory)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_chart_of_another_version, rf"{NAME}-\S+.tgz: appVersion 9{__version__}, expected {__version__}"),
        (_manifest("version: v", "version: "), "version '.*' is not v"),
        (_manifest("(shortDescription: )", r"\1Very " + "long " * 9), "shortDescription"),
        (_manifest("name: mirror-credentials", "name: mirror_credentials"), "not the Plugin"),
        (_manifest("os: linux", "os: darwin"), "platforms"),
        (_manifest("linux-amd64.tar.gz", "linux-amd64.zip"), "uri"),
        (_manifest("sha256: .", "sha256: 0"), "sha256 is not that of"),
        (_manifest("from: LICENSE", "from: COPYING"), "files and bin"),
        (_archives_exchanged, "sha256 is not that of"),
        (_missing, rf"missing or too many: {NAME}_\S+_arm64.deb"),
        (_too_many, "missing or too many: old.deb"),
        (_changed, "SHA256SUMS has other checksums"),
        (_executables_exchanged, f"{NAME}-linux-amd64: "),
        (_debs_exchanged, rf"{NAME}_\S+_amd64.deb: 'arm64"),
        (_rpm_of_the_other_architecture, rf"{NAME}-\S+.aarch64.rpm: 'x86_64"),
        (_executable_newer_than_its_packages, r"the program in \S+\.deb"),
        (_executable_newer_than_its_packages, r"the program in \S+\.rpm"),
        (_executable_newer_than_its_packages, r"\.cdx\.json: "),
    ],
)
def test_what_is_wrong_with_a_release_is_seen(
    released: Path, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    copy = Path(shutil.copytree(released, tmp_path / "copy"))
    damage(copy)
    assert re.search(said, "\n".join(make_release.faults(copy, __version__, commit_of(released))))


def test_another_commit_is_seen(released: Path) -> None:
    found = "\n".join(make_release.faults(released, __version__, "f" * 40))
    assert f"{NAME}-linux-amd64: " in found and "oci-archive:" in found


@pytest.mark.parametrize(
    ("file", "tag", "said"),
    [
        ("", "v0.0.9", f"the commit has the tag v0.0.9, and its version is {__version__}"),
        ("src/new.py", "", r"not committed:\n\?\? src/"),
        ("CHANGELOG.md", "", "no section"),
    ],
)
def test_what_is_not_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, tag: str, said: str) -> None:
    """Said before anything is made."""
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG.replace("0.1.0", __version__))
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    commands = [["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "all"], *([["tag", tag]] if tag else [])]
    for words in commands:
        subprocess.run(["git", "-C", tmp_path, *words], check=True)
    if file:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("")
    monkeypatch.setattr(make_release, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["make_release.py"])
    with pytest.raises(BuildError, match=said):
        make_release.main()


def test_the_bill_is_of_that_executable(released: Path) -> None:
    document = json.loads((released / f"{NAME}-linux-amd64.cdx.json").read_text())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    assert document["metadata"]["component"]["version"] == __version__
    assert [component["purl"] for component in document["components"]] == ["pkg:generic/a@1"]
    assert document["dependencies"][0]["dependsOn"] == ["pkg:generic/a@1"]


def test_the_workflow_calls_make_release_and_uploads_what_it_leaves() -> None:
    document = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    steps = [step["run"].strip() for step in document["jobs"]["release"]["steps"] if "run" in step]
    assert [step for step in steps if step.startswith("make")] == ["make release"]
    assert steps[-1].startswith("gh release create") and steps[-1].endswith(" dist/*")
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert "release" in targets


# -- what is inside ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_the_executable_prints_the_licenses_of_all_its_parts(target: Target) -> None:
    done = subprocess.run([*command(target), "--licenses"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in done.stdout.split("\n\n")[1].splitlines())
    assert next(iter(rows)) == NAME
    assert {"openssl", "zlib", "rich", "ruamel-yaml", "pyyaml", "shtab", "tomli"} <= rows.keys()
    assert {name.rstrip("0123456789.") for name in rows} >= {"python", "libc6-dev"}
    assert rows["zlib"] == "Zlib" and rows["tomli"] == "MIT"
    for words in (
        "PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2",
        "Jean-loup Gailly and Mark Adler",
        "GNU LESSER GENERAL PUBLIC LICENSE",
        "GCC RUNTIME LIBRARY EXCEPTION",
        "Copyright (c) 2021 Taneli Hukkinen",  # tomli
        "Copyright (c) 2020 Will McGugan",  # rich
    ):
        assert words in done.stdout, words
    # OpenSSL's and our own.
    assert done.stdout.count("TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION") == 2


def test_elsewhere_it_prints_its_own_and_where_the_others_are() -> None:
    if PROGRAM:
        pytest.skip("PROGRAM is set")
    done = subprocess.run([*COMMAND, "--licenses"], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith((ROOT / "LICENSE").read_text())
    assert "PyYAML, rich, ruamel.yaml, shtab and tomli are in the *.dist-info directories" in done.stdout


def test_the_wheel_finds_its_own_license(installed: Path) -> None:
    done = subprocess.run([installed, "--licenses"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith((ROOT / "LICENSE").read_text())


def test_a_part_without_a_license_is_not_released(tmp_path: Path) -> None:
    need(f"{NATIVE.host}-gcc")
    (tmp_path / "unknown/debian").mkdir(parents=True)
    (tmp_path / "unknown/debian/changelog").write_text("unknown (1.0-1) unstable; urgency=low\n")
    (tmp_path / "unknown/debian/copyright").write_text("Free.\n")
    archive = tmp_path / "archive.zip"
    archive.write_bytes(b"PK\5\6" + bytes(18))
    with pytest.raises(ValueError, match="no license is known for unknown"):
        bill_of_materials.parts_of([tmp_path / "unknown"], f"{NATIVE.host}-gcc", tmp_path, archive)
