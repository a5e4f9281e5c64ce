"""Self-contained bundles for the tests: built, unpacked, and made to look like another build."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from node import TESTS
from real_programs import cannot

ROOT = TESTS.parent
NAME = "crio-credential-provider"
ENTRY = f"bin/{NAME}"
PYTHON = ROOT / ".venv/bin/python"


def build(places: pytest.TempPathFactory) -> Path:
    """An archive of the source tree. Skips where this machine has no compiler or no headers of Python."""
    return _run("tools/make_selfcontained.py", "--wheel", wheel(places), "--output", places.mktemp("dist"))


def wheel(places: pytest.TempPathFactory) -> Path:
    """A copy: others may build while this runs."""
    done = subprocess.run(["make", "--silent", "wheel"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = (ROOT / "dist").glob("*.whl")
    return Path(shutil.copy(made, places.mktemp("wheel")))


def _run(tool: str, *arguments: str | Path) -> Path:
    """Runs one of our tools; the archive that it made."""
    done = subprocess.run([PYTHON, ROOT / tool, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if "not installed here" in done.stderr or "cannot be embedded" in done.stderr:
        cannot(done.stderr.splitlines()[0])
    assert done.returncode == 0, done.stderr
    (made,) = Path(arguments[-1]).glob("*.tar.gz")
    return made


def packages(bundle: Path, output: Path) -> tuple[Path, Path]:
    """The .deb and the .rpm of an archive."""
    tool = ROOT / "tools/make_packages.py"
    command: list[str | Path] = [PYTHON, tool, "--bundle", bundle, "--output", output, "--level", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "not installed here" in done.stderr:
        cannot(done.stderr.splitlines()[0])
    assert done.returncode == 0, done.stderr
    (deb,), (rpm,) = output.glob("*.deb"), output.glob("*.rpm")
    return deb, rpm


def unpack(archive: Path, place: Path) -> Path:
    subprocess.run(["tar", "-C", place, "-xzf", archive], check=True)  # Python 3.11.2's tarfile knows no filter
    (tree,) = (path for path in place.iterdir() if (path / "BUILD").exists())
    return tree


def contents_of(archive: Path) -> dict[str, str]:
    """Digest of each file in an archive."""
    with tarfile.open(archive) as opened:
        files = {member.name: opened.extractfile(member) for member in opened if member.isreg()}
        return {name: hashlib.sha256(file.read()).hexdigest() for name, file in files.items() if file}


def another_build(tree: Path, place: Path, version: str) -> Path:
    """A copy that says to be of another version."""
    shutil.copytree(tree, place, symlinks=True)
    record = dict(line.split(": ", 1) for line in (place / "BUILD").read_text().splitlines())
    record |= {"version": version, "digest": hashlib.sha256(version.encode()).hexdigest()}
    (place / "BUILD").write_text("".join(f"{name}: {value}\n" for name, value in record.items()))
    return place


def is_elf(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.read_bytes()[:4] == b"\x7fELF"
