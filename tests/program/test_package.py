"""What people install: the wheel in a fresh environment, and the launcher wherever it lies."""

from __future__ import annotations

import compileall
import email
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from conftest import NodeMaker
from crio_credential_provider import __version__
from crio_credential_provider.testbed.cluster import ApiServer
from mainjob import assert_serves
from node import Node, request

NAME = "crio-credential-provider"


# -- the wheel --------------------------------------------------------------------------------------------------------


def test_the_wheel_holds_the_package_and_its_license_alone(wheel: Path) -> None:
    assert re.fullmatch(rf"crio_credential_provider-{re.escape(__version__)}-py3-none-any\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata_name,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(metadata_name))
    information = metadata_name.removesuffix("METADATA")
    assert all(name.startswith(("crio_credential_provider/", information)) for name in names)
    assert not [name for name in names if name.endswith(".pyc")]
    assert f"{information}licenses/LICENSE" in names
    assert (metadata["Name"], metadata["Version"], metadata["License-Expression"]) == (NAME, __version__, "Apache-2.0")
    requires = [requirement.split(">=")[0].strip().lower() for requirement in metadata.get_all("Requires-Dist", [])]
    assert sorted(requires) == ["pyyaml", "rich", "ruamel-yaml", "shtab", "tomli"]


def test_the_wheel_serves_a_request(make_node: NodeMaker, installed: Path, cluster: ApiServer, alpha: str) -> None:
    assert_serves(make_node(str(installed)), cluster, alpha)


def test_the_wheel_tells_its_version(make_node: NodeMaker, installed: Path) -> None:
    run = make_node(str(installed)).run(b"", "--version-json")
    assert (run.status, run.stderr) == (0, "")
    assert json.loads(run.stdout)["version"] == __version__


# -- the launcher -----------------------------------------------------------------------------------------------------


def test_version_json(node: Node) -> None:
    run = node.run(b"", "--version-json")
    assert (run.status, run.stderr) == (0, "")
    found = json.loads(run.stdout)
    assert found["version"] == __version__
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", found["gitCommit"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ|unknown", found["buildDate"])
    assert found["pythonVersion"].startswith(f"{sys.version_info.major}.")
    assert found["platform"] == f"linux/{platform.machine()}"
    assert set(found) == {
        *("version", "gitCommit", "gitCommitDate", "buildDate", "pythonVersion", "compiler", "platform")
    }


def test_version_as_text_says_the_same(node: Node) -> None:
    text = node.run(b"", "--version").stdout.decode()
    found = json.loads(node.run(b"", "--version-json").stdout)
    lines = {line.partition(":")[0]: line.partition(":")[2].strip() for line in text.splitlines()}
    assert lines == {name[0].upper() + name[1:]: value for name, value in found.items()}


def test_one_dash_will_do_for_the_version(node: Node) -> None:
    """As with the Go provider, whose flag package takes one or two."""
    assert node.run(b"", "-version").stdout == node.run(b"", "--version").stdout


@pytest.fixture
def moved(plugin: Path, tmp_path: Path) -> Path:
    """A copy of bin/ and lib/ below a directory with a blank in its name."""
    home = tmp_path / "with a blank" / "opt"
    for part in ("bin", "lib"):
        shutil.copytree(plugin.parent.parent / part, home / part, symlinks=True)
    return home / "bin" / plugin.name


def test_a_path_with_a_blank(make_node: NodeMaker, moved: Path, cluster: ApiServer, alpha: str) -> None:
    assert_serves(make_node(str(moved)), cluster, alpha)


def test_a_symlink(make_node: NodeMaker, plugin: Path, tmp_path: Path, cluster: ApiServer, alpha: str) -> None:
    """As from the kubelet's --image-credential-provider-bin-dir to where the program lies."""
    (tmp_path / "first").symlink_to(plugin)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / NAME).symlink_to("../first")
    assert_serves(make_node(str(tmp_path / "bin" / NAME)), cluster, alpha)


def test_another_current_directory(node: Node, cluster: ApiServer, alpha: str, tmp_path: Path) -> None:
    """Even one with modules of our names in it, or one that is gone."""
    (tmp_path / "crio_credential_provider.py").write_text("raise SystemExit('the wrong one')\n")
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong one')\n")
    node.join(cluster)
    gone = tmp_path / "gone"
    gone.mkdir()
    command = [*node.command, *node.flags]
    for script in ('cd "$0" && exec "$@"', 'cd "$0/gone" && rmdir "$0/gone" && exec "$@"'):
        done = subprocess.run(
            ["sh", "-c", script, str(tmp_path), *command],
            input=request(token=alpha),
            env=node.environment,
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        (file,) = node.auth_dir.glob("*.json")
        file.unlink()


def test_the_first_line_names_an_interpreter_that_stays(plugin: Path) -> None:
    """By an absolute path, so that the process is called crio-credential (docs/reference/contracts.md, 2); isolated."""
    first = plugin.read_bytes().splitlines()[0].decode()
    interpreter, options = first.removeprefix("#!").split()
    assert Path(interpreter).is_absolute() and Path(interpreter).exists()
    assert options == "-IS"
    assert "env" not in Path(interpreter).name
    assert os.access(plugin, os.X_OK)


def test_byte_code_lies_beside_and_nothing_is_written_there(
    make_node: NodeMaker, moved: Path, cluster: ApiServer, alpha: str
) -> None:
    library = moved.parent.parent / "lib" / NAME
    before = {path: path.stat().st_mtime_ns for path in library.rglob("*")}
    sources = [path for path in before if path.suffix == ".py"]
    compiled = {path.parent.parent / f"{path.name.partition('.')[0]}.py" for path in before if path.suffix == ".pyc"}
    assert sources and compiled == set(sources)
    assert_serves(make_node(str(moved)), cluster, alpha)
    assert {path: path.stat().st_mtime_ns for path in library.rglob("*")} == before
    # Not merely there: it is what is run, as it would be if the source did not compile.
    for path in sources:
        path.write_text("this is no Python\n")
    assert not compileall.compile_dir(str(library), quiet=2)
    assert make_node(str(moved)).run(request()).status == 0


def test_a_module_that_is_missing_is_one_line(moved: Path) -> None:
    library = moved.parent.parent / "lib" / NAME
    shutil.rmtree(library / "rich")
    done = subprocess.run([moved, "manifests"], capture_output=True, text=True, check=False)
    incomplete = f"{NAME}: this installation is incomplete; install it again: No module named 'rich'"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{incomplete}\n")
    shutil.rmtree(library)
    done = subprocess.run([moved, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"{library} must be there, whole" in done.stderr


def test_as_an_ordinary_user(make_node: NodeMaker, moved: Path, tmp_path: Path) -> None:
    """Nothing of the program needs root but the places that it writes to."""
    if os.geteuid() != 0:
        pytest.skip("these tests run as an ordinary user already")
    node = make_node(str(moved))
    node.write_registries_conf("")
    for place in (node.root, moved.parent.parent.parent, tmp_path, *node.root.rglob("*"), *tmp_path.rglob("*")):
        place.chmod(0o755)
    # pytest's own directories are for their owner alone, and so may be the interpreter's.
    for place in (*node.root.parents, *tmp_path.parents):
        if place.name.startswith("pytest-"):
            place.chmod(0o755)
    try:
        run = node.run(request(), user=65534, group=65534, extra_groups=[])
    except PermissionError:
        pytest.skip("the interpreter lies where only root may go")
    assert (run.status, run.stderr) == (0, "")
