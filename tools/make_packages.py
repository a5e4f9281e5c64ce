"""Makes a .deb and an .rpm of the bundle.

    dist/crio-credential-provider_<version>_<arch>.deb
    dist/crio-credential-provider-<version>-1.<arch>.rpm

    /usr/lib/crio-credential-provider/<version>-<digest>/     the bundle's bin/ and lib/
    /usr/libexec/kubelet-image-credential-provider-plugins/   crio-credential-provider, a symlink into it
    /usr/bin/crio-credential-provider                         a symlink to that one, for people
    /usr/lib/tmpfiles.d, /usr/share/man, /usr/share/doc

Each build has a directory of its own, so that an upgrade never mixes two: the packager's tools replace the symlink by a
rename, and the old package's script holds the removal of the old tree until no run uses it. Needs dpkg-deb and
rpmbuild; the same bundle makes the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from make_build import DIST, NAME
from make_selfcontained import BuildError, epoch, make_from_sources, restart_without_columns
from make_venv import ROOT

PACKAGING = ROOT / "packaging"
STORE = f"usr/lib/{NAME}"
ENTRIES = "usr/libexec/kubelet-image-credential-provider-plugins"
# What the kernel calls a machine -> what dpkg calls it. rpm has the kernel's names.
DEBIAN_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def say(text: str) -> None:
    print(f"make_packages: {text}", file=sys.stderr, flush=True)


def need(program: str, package: str) -> None:
    if shutil.which(program) is None:
        raise BuildError(f"not installed here: {program}\nhint: Debian: apt-get install {package}")


def run(*command: str | Path) -> None:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch()), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise BuildError(
            f"exit status {done.returncode} from: {' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
        )


def record_of(tree: Path) -> dict[str, str]:
    """BUILD, with the name of the build added."""
    record = dict(line.split(": ", 1) for line in (tree / "BUILD").read_text().splitlines())
    return {**record, "build": f"{record['version']}-{record['digest'][:12]}"}


def stage(tree: Path, root: Path, record: dict[str, str]) -> None:
    """The files of both packages, below root."""
    place = root / STORE / record["build"]
    place.mkdir(parents=True)
    for name in ("bin", "lib"):
        shutil.copytree(tree / name, place / name, symlinks=True)
    shutil.copyfile(tree / "BUILD", place / "BUILD")
    (root / ENTRIES).mkdir(parents=True)
    (root / ENTRIES / NAME).symlink_to(f"../../lib/{NAME}/{record['build']}/bin/{NAME}")
    (root / "usr/bin").mkdir()
    (root / "usr/bin" / NAME).symlink_to(f"../{ENTRIES.removeprefix('usr/')}/{NAME}")
    shutil.copytree(tree / "share/doc", root / "usr/share/doc" / NAME)
    if (tree / "share/tmpfiles.d").exists():
        shutil.copytree(tree / "share/tmpfiles.d", root / "usr/lib/tmpfiles.d")
    for page in sorted((tree / "share/man").rglob("*.[1-8]")):
        target = root / "usr/share/man" / page.parent.name / f"{page.name}.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(gzip.compress(page.read_bytes(), 9, mtime=0))
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
        os.utime(path, (epoch(), epoch()), follow_symlinks=False)


def filled(template: Path, values: dict[str, str]) -> str:
    """The template with its ``@name@`` replaced."""
    text = template.read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def make_deb(tree: Path, scratch: Path, output: Path, level: int) -> Path:
    need("dpkg-deb", "dpkg")
    record = record_of(tree)
    root, control = scratch / "deb", scratch / "deb/DEBIAN"
    stage(tree, root, record)
    installed = sum(path.lstat().st_size for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    record["architecture"] = DEBIAN_ARCHITECTURES.get(record["architecture"], record["architecture"])
    values = {**record, "size": str(installed // 1024), "store": STORE, "entry": f"{ENTRIES}/{NAME}"}
    sums = "".join(
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(root)}\n"
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    )
    control.mkdir()
    (control / "md5sums").write_text(sums)
    for name in ("control", "postinst", "postrm"):
        (control / name).write_text(filled(PACKAGING / "deb" / name, values))
        (control / name).chmod(0o644 if name == "control" else 0o755)
    target = output / f"{NAME}_{record['version']}_{record['architecture']}.deb"
    run("dpkg-deb", "--root-owner-group", "-Zxz", f"-z{level}", "--build", root, target)
    return target


def make_rpm(tree: Path, scratch: Path, output: Path, level: int) -> Path:
    need("rpmbuild", "rpm")
    record = record_of(tree)
    root, top = scratch / "files", scratch / "rpm"
    stage(tree, root, record)
    spec = scratch / f"{NAME}.spec"
    spec.write_text(
        filled(PACKAGING / f"rpm/{NAME}.spec", {**record, "level": str(level), "store": STORE, "entries": ENTRIES})
    )
    run("rpmbuild", "-bb", "--quiet", "--define", f"_topdir {top}", "--define", f"staged {root}", spec)
    (made,) = top.glob("RPMS/*/*.rpm")
    return Path(shutil.move(made, output / made.name))


def make(bundle: Path, output: Path, level: int) -> list[Path]:
    """Both packages of one archive."""
    output.mkdir(parents=True, exist_ok=True)
    os.umask(0o022)
    with tempfile.TemporaryDirectory(prefix="packages-") as directory:
        run("tar", "-C", directory, "-xzf", bundle)  # tarfile's safe filters came with Python 3.11.4
        (tree,) = Path(directory).iterdir()
        made = [maker(tree, Path(directory), output, level) for maker in (make_deb, make_rpm)]
    for path in made:
        say(str(path))
    return made


def main() -> None:
    restart_without_columns()
    parser = argparse.ArgumentParser(description="Makes a .deb and an .rpm of the bundle.")
    parser.add_argument("--output", type=Path, default=DIST, help="directory for the files (default dist)")
    parser.add_argument("--bundle", type=Path, help="archive of make_selfcontained.py (default: make it)")
    parser.add_argument("--level", type=int, default=6, help="of xz, 0 to 9 (default 6)")
    options = parser.parse_args()
    make(options.bundle or make_from_sources(DIST), options.output, options.level)


if __name__ == "__main__":
    try:
        main()
    except (BuildError, ValueError) as error:
        sys.exit(f"make_packages: {error}")
