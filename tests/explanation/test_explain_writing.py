"""An auth file that the plugin could not write is told of before any pull: with the words of the plugin's own write."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from commandline import here
from conftest import NodeMaker
from crio_credential_provider.commands import explain, verify
from crio_credential_provider.errors import AuthFileError
from crio_credential_provider.explanation import writing
from crio_credential_provider.pull import authfile
from crio_credential_provider.testbed.cluster import ApiServer
from explaining import Place
from node import COMMAND, NGINX, PROGRAM

pytestmark = pytest.mark.process

NAME = authfile.file_name("team-alpha", NGINX)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root is told")


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small file system with these options."""
    at = tmp_path / "disk"
    at.mkdir()

    def mounted(options: str) -> Path:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"mode=0700,{options}", "none", str(at)], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip("no file system can be mounted here")
        return at

    yield mounted
    if os.path.ismount(at):
        subprocess.run(["umount", str(at)], check=True)


def check(directory: Path, words: str) -> None:
    """What is found out without writing is what writing gives."""
    was_there = directory.exists()
    told = writing.why_not(str(directory / NAME))
    assert directory.exists() == was_there and not (directory / NAME).is_file()
    try:
        authfile.write(str(directory), NAME, b"{}")
        error = None
    except AuthFileError as raised:
        error = str(raised)
    assert error == (None if told is None else str(told))
    assert words in (error or "")


def test_what_is_right_or_missing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o700)
    for directory in (tmp_path / "a", tmp_path / "b/c/d"):
        check(directory, "")
        assert (directory / NAME).exists()


@pytest.mark.parametrize("rights", [0o777, 0o770])
def test_others_can_write(tmp_path: Path, rights: int) -> None:
    directory = tmp_path / "auth"
    directory.mkdir()
    directory.chmod(rights)
    check(directory, f"mode {rights:04o}")


def test_not_a_directory(tmp_path: Path) -> None:
    (tmp_path / "auth").write_text("")
    check(tmp_path / "auth", os.strerror(errno.ENOTDIR))


@as_root
def test_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "auth").mkdir(mode=0o700)
    os.chown(tmp_path / "auth", 4711, 0)
    check(tmp_path / "auth", "belongs to user 4711")


@as_root
@pytest.mark.parametrize("below", ["", "made/by/the plugin"])
def test_read_only(mount: Callable[[str], Path], below: str) -> None:
    check(mount("ro") / below, os.strerror(errno.EROFS))


@as_root
def test_no_room(mount: Callable[[str], Path]) -> None:
    at = mount("size=8k")
    (at / "other").write_bytes(b"x" * 8192)
    check(at, os.strerror(errno.ENOSPC))


@as_root
def test_no_inodes(mount: Callable[[str], Path]) -> None:
    at = mount("nr_inodes=2")
    (at / "other").write_bytes(b"")
    check(at, os.strerror(errno.ENOSPC))


@as_root
@pytest.mark.skipif(bool(PROGRAM), reason="this machine is taken for a node in this process")
@pytest.mark.parametrize("command", [explain, verify])
def test_the_verdict_on_a_node(
    make_node: NodeMaker, cluster: ApiServer, monkeypatch: pytest.MonkeyPatch, command: Any
) -> None:
    place = Place(make_node(*COMMAND, journald=False), cluster)
    node = place.node
    look = command.look
    monkeypatch.setattr(command, "look", lambda given: look(given)._replace(missing=()))
    node.auth_dir.mkdir(parents=True)
    node.auth_dir.chmod(0o700)
    words = ["docker.io/library/nginx:1.27", "-n", "team-alpha", "--pod=web", f"--auth-dir={node.auth_dir}"]
    words += [f"--registries-conf={node.registries_conf}", f"--kubeconfig={node.kubeconfig}"]
    client = node.kubeconfig.read_text().replace("/var/lib/kubelet", str(node.root / "var/lib/kubelet"))
    node.kubeconfig.write_text(client)
    # Nothing is listened for: no source answers.
    table = '[[registry]]\nprefix = "docker.io"\nlocation = "hub.nowhere.invalid"\n'
    node.write_registries_conf(f'{table}[[registry.mirror]]\nlocation = "127.0.0.1:1/hub"\n')
    place.cluster.add_secret("team-alpha", "creds", {"auths": {"127.0.0.1:1": {"auth": "YTpi"}}})
    well = here(lambda: command.run(words))
    assert "users other than its owner" not in well.flat and "secret creds" in well.flat, well
    node.auth_dir.chmod(0o770)
    done = here(lambda: command.run(words))
    assert f"users other than its owner can write to the auth directory {node.auth_dir} (mode 0770)" in done.flat
    assert f"  chmod 0700 {node.auth_dir}" in done.lines
    assert "secret creds" not in done.flat
    assert done.status == 3
    # Of another machine nothing is known.
    assert "can write to the auth directory" not in place.run("nginx:1.27", "-n", "team-alpha", "--pod=web").flat
