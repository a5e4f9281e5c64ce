"""Makes what installs the executables: a .deb and an .rpm for each architecture, and one container image for both.

    dist/crio-credential-provider_<version>_<amd64 or arm64>.deb
    dist/crio-credential-provider-<version>-1.<x86_64 or aarch64>.rpm
    dist/crio-credential-provider-<version>.oci.tar

    /usr/libexec/kubelet-image-credential-provider-plugins/crio-credential-provider
    /usr/bin/crio-credential-provider                         a symlink to it, for people
    /usr/lib/tmpfiles.d, /usr/lib/systemd/system, /usr/share/man, /usr/share/doc

Needs dpkg-deb and rpmbuild. The same executables and commit make the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from bill_of_materials import TEXT
from crio_credential_provider import __version__
from hatch_build import git, git_commit
from make_build import DIST, NAME
from make_executable import TARGETS, BuildError, Target
from make_image import make_image
from make_venv import ROOT

PACKAGING = ROOT / "packaging"
DIRECTORY = "usr/libexec/kubelet-image-credential-provider-plugins"


def epoch() -> int:
    """Time of everything in what we pack: SOURCE_DATE_EPOCH, else the commit's."""
    return int(os.environ.get("SOURCE_DATE_EPOCH") or git(str(ROOT), "log", "-1", "--format=%ct") or 0)


def executable(target: Target, directory: Path = DIST) -> Path:
    return directory / f"{NAME}-linux-{target.name}"


def need(program: str, package: str) -> None:
    if shutil.which(program) is None:
        raise BuildError(f"not installed here: {program}\nhint: Debian: apt-get install {package}")


def run(*command: str | Path) -> None:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch()), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        told = f"{done.stdout}{done.stderr}"
        raise BuildError(f"exit status {done.returncode} from: {' '.join(map(str, command))}\n{told}")


def stage(program: Path, root: Path) -> None:
    """The files of both packages, below root."""
    place, documents = root / DIRECTORY / NAME, root / "usr/share/doc" / NAME
    for directory in (place.parent, documents, root / "usr/bin", root / "usr/lib", root / "usr/share/man/man8"):
        directory.mkdir(parents=True)
    shutil.copyfile(program, place)
    (root / "usr/bin" / NAME).symlink_to(f"../{DIRECTORY.removeprefix('usr/')}/{NAME}")
    for name in ("README.md", "CHANGELOG.md"):
        shutil.copyfile(ROOT / name, documents / name)
    with zipfile.ZipFile(program) as archive:
        (documents / "copyright").write_bytes(archive.read(TEXT))
    shutil.copytree(PACKAGING / "tmpfiles.d", root / "usr/lib/tmpfiles.d")
    shutil.copytree(PACKAGING / "systemd", root / "usr/lib/systemd/system")
    for page in (ROOT / "docs/man").glob("*.8"):
        (root / f"usr/share/man/man8/{page.name}.gz").write_bytes(gzip.compress(page.read_bytes(), 9, mtime=0))
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path == place else 0o644)
        os.utime(path, (epoch(), epoch()), follow_symlinks=False)


def filled(template: Path, values: dict[str, str]) -> str:
    """The template with its ``@name@`` replaced."""
    text = template.read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def make_deb(target: Target, root: Path, output: Path, version: str, level: int) -> Path:
    """Puts DEBIAN/ into the root."""
    control = root / "DEBIAN"
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink()]
    size = sum(path.stat().st_size for path in files) // 1024
    control.mkdir()
    (control / "md5sums").write_text(
        "".join(
            f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(root)}\n"
            for path in files
        )
    )
    values = {"version": version, "architecture": target.name, "size": str(size)}
    (control / "control").write_text(filled(PACKAGING / "deb/control", values))
    (control / "postinst").write_text((PACKAGING / "deb/postinst").read_text())
    (control / "postinst").chmod(0o755)
    made = output / f"{NAME}_{version}_{target.name}.deb"
    run("dpkg-deb", "--root-owner-group", "-Zxz", f"-z{level}", "--build", root, made)
    return made


def make_rpm(target: Target, root: Path, output: Path, version: str, level: int) -> Path:
    top = root.with_name("rpm")
    top.mkdir()
    spec = top / f"{NAME}.spec"
    spec.write_text(filled(PACKAGING / f"rpm/{NAME}.spec", {"version": version, "level": str(level)}))
    defined = ("--define", f"_topdir {top}", "--define", f"staged {root}")
    run("rpmbuild", "-bb", "--quiet", "--target", target.machine, *defined, spec)
    (made,) = top.glob("RPMS/*/*.rpm")
    return Path(shutil.move(made, output / made.name))


def make(
    targets: Sequence[Target], directory: Path, output: Path, version: str = __version__, level: int = 6
) -> list[Path]:
    """Packages and image of the executables in a directory; `level` is that of xz, 0 to 9."""
    need("dpkg-deb", "dpkg")
    need("rpmbuild", "rpm")
    os.umask(0o022)
    made = []
    for target in targets:
        with tempfile.TemporaryDirectory(prefix="packages-") as scratch:
            root = Path(scratch, "root")
            stage(executable(target, directory), root)
            made.append(make_rpm(target, root, output, version, level))
            made.append(make_deb(target, root, output, version, level))
    image = output / f"{NAME}-{version}.oci.tar"
    programs = [executable(target, directory) for target in targets]
    made.append(make_image(programs, image, version, git_commit(str(ROOT)), epoch()))
    for path in made:
        print(f"make_packages: {path}", file=sys.stderr)
    return made


def main() -> None:
    make([target for target in TARGETS if target.name in sys.argv[1:] or not sys.argv[1:]], DIST, DIST)


if __name__ == "__main__":
    try:
        main()
    except (BuildError, OSError) as error:
        sys.exit(f"make_packages: {error}")
