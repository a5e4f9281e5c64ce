"""The container image that no container tool made: as skopeo and a registry take it, and as the Containerfile says."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import docker_registry
import executables
from make_build import NAME
from make_executable import TARGETS, Target
from make_image import make_image
from make_packages import executable
from node import TESTS
from real_programs import need

pytestmark = pytest.mark.slow

VERSION, COMMIT, SECONDS = "0.1.0", "0" * 40, 1_700_000_000


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("image") / "made.oci.tar")


def make(target: Path) -> Path:
    programs = [executable(target, executables.directory()) for target in TARGETS]
    return make_image(programs, target, VERSION, COMMIT, SECONDS)


def skopeo(*arguments: str | Path) -> str:
    (program,) = need("skopeo")
    command = [program, "--insecure-policy", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_same_executables_make_the_same_image(image: Path, tmp_path: Path) -> None:
    assert make(tmp_path / "again.oci.tar").read_bytes() == image.read_bytes()


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_what_it_says_of_itself(image: Path, target: Target) -> None:
    told = json.loads(skopeo("--override-arch", target.name, "inspect", "--config", f"oci-archive:{image}"))
    assert (told["architecture"], told["os"]) == (target.name, "linux")
    assert told["config"]["Entrypoint"] == [f"/{NAME}"]
    labels = {name.rpartition(".")[2]: value for name, value in told["config"]["Labels"].items()}
    created = "2023-11-14T22:13:20Z"
    wanted = {"title": NAME, "version": VERSION, "revision": COMMIT, "licenses": "Apache-2.0", "created": created}
    assert labels == wanted
    assert told["created"] == created


@pytest.fixture(scope="module")
def pushed(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its name in a registry."""
    with docker_registry.running(tmp_path_factory.mktemp("registry")) as (host, _):
        name = f"docker://{host}/tools/{NAME}:{VERSION}"
        credential = ("--dest-creds", ":".join(docker_registry.ALPHA))
        skopeo("copy", "--all", "--dest-tls-verify=false", *credential, f"oci-archive:{image}", name)
        yield name


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_registry_gives_each_node_the_executable_of_its_architecture(
    pushed: str, target: Target, tmp_path: Path
) -> None:
    credential = ("--src-creds", ":".join(docker_registry.ALPHA))
    architecture = ("--override-arch", target.name)
    skopeo(*architecture, "copy", "--src-tls-verify=false", *credential, pushed, f"dir:{tmp_path}")
    (layer,) = json.loads((tmp_path / "manifest.json").read_text())["layers"]
    with tarfile.open(tmp_path / layer["digest"].partition(":")[2]) as archive:
        (entry,) = archive.getmembers()
        file = archive.extractfile(entry)
        assert file is not None
        assert (entry.name, entry.mode, entry.uid, entry.gid, entry.mtime) == (NAME, 0o755, 0, 0, SECONDS)
        assert file.read() == executable(target, executables.directory()).read_bytes()


def test_the_containerfile_makes_the_same() -> None:
    text = (TESTS.parent / "packaging/container/Containerfile").read_text()
    instructions = re.findall(r"^(FROM|COPY|ENTRYPOINT) (.*)$", text, re.MULTILINE)
    assert instructions == [
        ("FROM", "scratch"),
        ("COPY", f"{executable(TARGETS[0]).name.removesuffix(TARGETS[0].name)}${{TARGETARCH}} /{NAME}"),
        ("ENTRYPOINT", f'["/{NAME}"]'),
    ]
