"""The .deb and the .rpm of the bundle: installed, upgraded and removed in a scratch root by dpkg and rpm themselves."""

from __future__ import annotations

import concurrent.futures
import gzip
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from bundles import NAME, another_build, packages, unpack
from conftest import NodeMaker
from crio_credential_provider import __version__
from crio_credential_provider.testbed.cluster import ApiServer
from node import request
from real_programs import cannot, need

ENTRY = f"usr/libexec/kubelet-image-credential-provider-plugins/{NAME}"
STORE = f"usr/lib/{NAME}"
NEXT = "0.9.0"


class Packages(NamedTuple):
    """The packages of this version, and of one that comes after it."""

    now: dict[str, Path]
    later: dict[str, Path]


@pytest.fixture(scope="module")
def made(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Packages:
    if os.geteuid() != 0:
        cannot("only root can install packages")
    need("dpkg", "dpkg-deb", "rpm", "rpmbuild", "unshare", "mount", "tar")
    place = tmp_path_factory.mktemp("packages")
    newer = another_build(unpack(archive, place), place / "next" / f"{NAME}-{NEXT}", NEXT)
    subprocess.run(["tar", "-C", newer.parent, "-czf", place / "next.tar.gz", newer.name], check=True)
    found = []
    for bundle, output in ((archive, place / "a"), (place / "next.tar.gz", place / "b")):
        deb, rpm = packages(bundle, output)
        found.append({"deb": deb, "rpm": rpm})
    return Packages(*found)


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
    dpkg = ["dpkg", f"--root={root}", "--force-script-chrootless"]
    return System("deb", root, lambda path: _run(*dpkg, "--install", path), lambda: _run(*dpkg, "--purge", NAME))


def _red_hat(root: Path) -> System:
    # rpm changes its root, and its script looks for running programs in /proc.
    (root / "proc").mkdir()
    inside = ["unshare", "--mount", "sh", "-c", 'mount --rbind /proc "$0/proc" && exec "$@"', str(root), "rpm"]
    rpm = [*inside, f"--root={root}", "--dbpath=/var/lib/rpm"]
    return System(
        "rpm", root, lambda path: _run(*rpm, "--upgrade", "--nosignature", path), lambda: _run(*rpm, "--erase", NAME)
    )


@pytest.fixture(params=[_debian, _red_hat], ids=["deb", "rpm"])
def system(request: pytest.FixtureRequest, tmp_path: Path) -> System:
    made: System = request.param(tmp_path)
    return made


def test_install_upgrade_remove(system: System, made: Packages) -> None:
    system.install(made.now[system.kind])
    first = system.files()
    told = subprocess.run([system.entry, "--version"], capture_output=True, text=True, check=True).stdout
    assert told.split()[1] == __version__
    assert f"usr/lib/tmpfiles.d/{NAME}.conf" in first
    assert any(name.startswith(f"usr/share/doc/{NAME}/licenses/openssl/") for name in first)
    page = gzip.decompress((system.root / f"usr/share/man/man8/{NAME}.8.gz").read_bytes())
    assert b".TH CRIO" in page
    assert [path for path in system.root.joinpath("usr").rglob("*") if path.lstat().st_uid or path.lstat().st_gid] == []

    # Another provider's entry in the same directory is nobody's business.
    other = system.entry.with_name("ecr-credential-provider")
    other.write_text("")
    system.install(made.later[system.kind])
    assert [path.name.split("-")[0] for path in (system.root / STORE).iterdir()] == [NEXT]
    subprocess.run([system.entry, "--version"], capture_output=True, check=True)

    system.remove()
    assert system.files() == [str(other.relative_to(system.root))]


def test_no_package_is_needed(made: Packages) -> None:
    fields = subprocess.run(["dpkg-deb", "--field", made.now["deb"]], capture_output=True, text=True, check=True).stdout
    assert "Depends" not in fields
    assert f"Architecture: { ({'x86_64': 'amd64', 'aarch64': 'arm64'}[platform.machine()]) }\n" in fields
    command: list[str | Path] = ["rpm", "--query", "--package", "--nosignature", "--requires", made.now["rpm"]]
    requires = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert all(line.startswith("rpmlib(") for line in requires.splitlines())
    provides = subprocess.run(
        [*command[:-2], "--provides", made.now["rpm"]], capture_output=True, text=True, check=True
    )
    assert "lib" not in provides.stdout


def test_the_same_bundle_makes_the_same_packages(
    made: Packages, archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    deb, rpm = packages(archive, tmp_path_factory.mktemp("again"))
    assert deb.read_bytes() == made.now["deb"].read_bytes()
    assert rpm.read_bytes() == made.now["rpm"].read_bytes()


def test_an_upgrade_fails_no_run(
    make_node: NodeMaker, system: System, made: Packages, cluster: ApiServer, alpha: str
) -> None:
    """50 runs, 4 at a time, around an upgrade that removes the tree that some of them run from."""
    system.install(made.now[system.kind])
    node = make_node(str(system.entry), journald=False)
    node.join(cluster)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(node.run, request(f"docker.io/library/image{number}", alpha)) for number in range(50)]
        while not any(run.done() for run in runs):
            time.sleep(0.01)
        system.install(made.later[system.kind])
        answers = [run.result() for run in runs]
    assert {(run.status, run.stderr) for run in answers} == {(0, "")}
    assert len(node.auth_files()) == 50


def test_an_upgrade_waits_for_a_run_that_is_under_way(make_node: NodeMaker, system: System, made: Packages) -> None:
    """One that has not yet been given its request, and will load from the old tree."""
    system.install(made.now[system.kind])
    node = make_node(str(system.entry))
    node.write_registries_conf("")
    started = node.start()
    (old,) = (system.root / STORE).iterdir()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{started.process.pid}/exe").resolve() != (old / "lib" / NAME).resolve():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        upgrade = pool.submit(system.install, made.later[system.kind])
        while os.readlink(system.entry).count(NEXT) == 0:
            assert time.monotonic() < deadline + 20
            time.sleep(0.05)
        time.sleep(0.5)
        assert (old / "lib/python.zip").exists() and not upgrade.done()
        assert started.finish(request()).status == 0
        upgrade.result(30)
    assert not old.exists()
