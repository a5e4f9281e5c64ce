"""The .deb and the .rpm of the executables: installed, upgraded and removed in a scratch root by dpkg and rpm
themselves."""

from __future__ import annotations

import concurrent.futures
import gzip
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import executables
import make_packages
from conftest import NodeMaker
from crio_credential_provider import __version__
from crio_credential_provider.testbed.cluster import ApiServer
from executables import FOREIGN, NATIVE
from make_build import NAME
from make_executable import TARGETS, Target
from make_packages import DIRECTORY
from node import request
from real_programs import cannot, need

pytestmark = pytest.mark.slow

ENTRY = f"{DIRECTORY}/{NAME}"
NEXT = "0.9.0"


class Packages(NamedTuple):
    """Directories: packages of this version, and of one that comes after it, whose executable is a byte longer."""

    now: Path
    later: Path


def path_of(kind: str, target: Target, directory: Path) -> Path:
    (path,) = directory.glob(f"*{target.name if kind == 'deb' else target.machine}.{kind}")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    if os.geteuid() != 0:
        cannot("only root can install packages")
    need("dpkg", "dpkg-deb", "rpm", "rpmbuild")
    now, later, changed = (tmp_path_factory.mktemp(name) for name in ("now", "later", "changed"))
    make_packages.make(TARGETS, executables.directory(), now, level=0)
    copy = changed / make_packages.executable(NATIVE).name
    copy.write_bytes(make_packages.executable(NATIVE, executables.directory()).read_bytes() + b"\0")
    make_packages.make([NATIVE], changed, later, NEXT, level=0)
    return Packages(now, later)


class System(NamedTuple):
    """A scratch root with a packager's data base: how to install or upgrade a file, and to remove the package."""

    kind: str
    root: Path
    install: Callable[[Path], None]
    remove: Callable[[], None]

    @property
    def entry(self) -> Path:
        return self.root / ENTRY

    def files(self) -> list[str]:
        """Everything outside of the packager's own directories, and of what tests put there."""
        found = (path.relative_to(self.root) for path in self.root.rglob("*") if path.is_symlink() or path.is_file())
        return sorted(str(path) for path in found if path.parts[0] == "usr")


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]})
    assert done.returncode == 0, done.stdout + done.stderr


def _debian(root: Path) -> System:
    (root / "var/lib/dpkg/info").mkdir(parents=True)
    (root / "var/lib/dpkg/updates").mkdir()
    (root / "var/lib/dpkg/status").touch()
    (root / "var/log").mkdir()
    dpkg = ["dpkg", f"--root={root}", "--force-script-chrootless,architecture"]
    return System("deb", root, lambda path: _run(*dpkg, "--install", path), lambda: _run(*dpkg, "--purge", NAME))


def _red_hat(root: Path) -> System:
    rpm = ["rpm", f"--root={root}", "--dbpath=/var/lib/rpm"]
    upgrade = [*rpm, "--upgrade", "--nosignature", "--ignorearch"]
    return System("rpm", root, lambda path: _run(*upgrade, path), lambda: _run(*rpm, "--erase", NAME))


@pytest.fixture(params=[_debian, _red_hat], ids=["deb", "rpm"])
def system(request: pytest.FixtureRequest, tmp_path: Path) -> System:
    made: System = request.param(tmp_path)
    return made


def test_install_upgrade_remove(system: System, made: Packages) -> None:
    system.install(path_of(system.kind, NATIVE, made.now))
    first = system.files()
    for program in (system.entry, system.root / "usr/bin" / NAME):
        told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        assert told.split()[1] == __version__
    assert [name for name in first if "/libexec/" in name] == [ENTRY]
    assert f"usr/lib/tmpfiles.d/{NAME}.conf" in first
    assert {f"usr/lib/systemd/system/{NAME}-metrics.{kind}" for kind in ("service", "timer")} <= {*first}
    document = (system.root / f"usr/share/doc/{NAME}/copyright").read_text()
    told = subprocess.run([system.entry, "--licenses"], capture_output=True, text=True, check=True).stdout
    assert document == told
    page = gzip.decompress((system.root / f"usr/share/man/man8/{NAME}.8.gz").read_bytes())
    assert b".TH CRIO" in page
    assert [path for path in system.root.joinpath("usr").rglob("*") if path.lstat().st_uid or path.lstat().st_gid] == []

    # Another provider's program in the same directory is nobody's business.
    other = system.entry.with_name("ecr-credential-provider")
    other.write_text("")
    system.install(path_of(system.kind, NATIVE, made.later))
    assert sorted(path.name for path in system.entry.parent.iterdir()) == [NAME, other.name]
    assert system.entry.read_bytes()[-1:] == b"\0"
    subprocess.run([system.entry, "--version"], capture_output=True, check=True)

    system.remove()
    assert system.files() == [str(other.relative_to(system.root))]


def test_the_other_architecture_has_its_own_executable(system: System, made: Packages) -> None:
    system.install(path_of(system.kind, FOREIGN, made.now))
    assert system.entry.read_bytes() == make_packages.executable(FOREIGN, executables.directory()).read_bytes()


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_no_package_is_needed(made: Packages, target: Target) -> None:
    deb, rpm = (path_of(kind, target, made.now) for kind in ("deb", "rpm"))
    fields = subprocess.run(["dpkg-deb", "--field", deb], capture_output=True, text=True, check=True).stdout
    assert "Depends" not in fields
    assert f"Architecture: {target.name}\n" in fields
    query = ("rpm", "--query", "--package", "--nosignature")
    told = subprocess.run([*query, "--requires", rpm], capture_output=True, text=True, check=True).stdout
    assert all(line.startswith("rpmlib(") for line in told.splitlines())
    told = subprocess.run([*query, "--provides", rpm], capture_output=True, text=True, check=True).stdout
    assert "lib" not in told
    told = subprocess.run([*query, "--info", rpm], capture_output=True, text=True, check=True).stdout
    assert f"Architecture: {target.machine}\n" in told


def test_the_license_of_the_rpm_names_those_of_all_parts(made: Packages) -> None:
    """As the text of --licenses lists them, in the lines between its first and its third paragraph."""
    told = subprocess.run([*executables.command(NATIVE), "--licenses"], capture_output=True, text=True, check=True)
    parts = {line.split(maxsplit=1)[1] for line in told.stdout.split("\n\n")[1].splitlines()}
    query = ("rpm", "--query", "--package", "--nosignature", "--queryformat", "%{LICENSE}")
    command: list[str | Path] = [*query, path_of("rpm", NATIVE, made.now)]
    license = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert set(license.split(" AND ")) == parts


def test_the_same_executables_make_the_same_packages(made: Packages, tmp_path: Path) -> None:
    again = make_packages.make(TARGETS, executables.directory(), tmp_path, level=0)
    assert len(again) == 5
    for path in again:
        assert path.read_bytes() == (made.now / path.name).read_bytes(), path.name


def test_an_upgrade_fails_no_run(
    make_node: NodeMaker, system: System, made: Packages, cluster: ApiServer, alpha: str
) -> None:
    """50 runs, 4 at a time, around an upgrade and a step back."""
    system.install(path_of(system.kind, NATIVE, made.now))
    node = make_node(str(system.entry), journald=False)
    node.join(cluster)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(node.run, request(f"docker.io/library/image{number}", alpha)) for number in range(50)]
        while not any(run.done() for run in runs):
            time.sleep(0.01)
        system.install(path_of(system.kind, NATIVE, made.later))
        answers = [run.result() for run in runs]
    assert {(run.status, run.stderr) for run in answers} == {(0, "")}
    assert len(node.auth_files()) == 50
