"""The auth file on disk: its name, and that CRI-O sees all of it or nothing."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from crio_credential_provider.errors import AuthFileError
from crio_credential_provider.pull import authfile
from node import NGINX, NGINX_HASH

NAME = f"team-alpha-{NGINX_HASH}.json"
TEMPORARY = f".{NAME}.4711.tmp"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """One that is not there yet."""
    return tmp_path / "crio/auth"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# -- names -------------------------------------------------------------------------------------------------------------


def test_the_name_is_cri_o_s() -> None:
    """As docs/reference/contracts.md quotes it."""
    assert authfile.file_name("team-alpha", NGINX) == NAME
    assert authfile.digest(NGINX) == NGINX_HASH


def test_a_name_tells_its_repository_and_not_its_namespace() -> None:
    for namespace in ("a", "team-alpha", "1-2-3"):
        assert authfile.repository_digest(authfile.file_name(namespace, NGINX)) == NGINX_HASH


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".json",
        "config.json",
        f"{NGINX_HASH}.json",
        f"-{NGINX_HASH}.json",
        f"team-alpha-{NGINX_HASH}",
        f"team-alpha-{NGINX_HASH}.JSON",
        f"team-alpha-{NGINX_HASH}.json.json",
        f"team-alpha-{NGINX_HASH[1:]}.json",
        f"team-alpha-{NGINX_HASH}0.json",
        f"team-alpha-{NGINX_HASH.upper()}.json",
        f"team-alpha-{NGINX_HASH[1:]}g.json",
        f"Team-{NGINX_HASH}.json",
        f"team_alpha-{NGINX_HASH}.json",
        f"team.alpha-{NGINX_HASH}.json",
        f"team--{NGINX_HASH}.json",
        f"{'a' * 64}-{NGINX_HASH}.json",
        f"team-alpha-{NGINX_HASH}-0b3ab3a6-5a2e-4d4c-8e5e-000000000000.json",
        TEMPORARY,
    ],
)
def test_what_is_no_auth_file_has_no_repository(name: str) -> None:
    assert authfile.repository_digest(name) == ""


def test_a_temporary_file_is_known_by_its_name() -> None:
    assert authfile.is_temporary(TEMPORARY)
    for other in (NAME, TEMPORARY[1:], TEMPORARY.removesuffix(".tmp"), f".{NAME}.tmp", f".{NAME}.x.tmp", ".x.1.tmp"):
        assert not authfile.is_temporary(other), other


def test_write_s_own_temporary_file_is_one(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    real = os.rename

    def rename(source: str, target: str) -> None:
        seen.append(os.path.basename(source))
        assert os.path.dirname(source) == os.path.dirname(target)
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    authfile.write(str(directory), NAME, b"{}")
    assert [authfile.is_temporary(name) for name in seen] == [True]


# -- writing -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777], ids=lambda umask: f"umask {umask:04o}")
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_file_is_its_owner_s_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    if umask & 0o700 and os.geteuid() != 0:
        pytest.skip("only root can write to a directory without any rights")
    path = Path(authfile.write(str(tmp_path), NAME, b'{"auths":{}}'))
    assert path == tmp_path / NAME
    assert (mode(path), path.read_bytes()) == (0o600, b'{"auths":{}}')
    assert os.listdir(tmp_path) == [NAME]


def test_a_missing_directory_is_made_for_its_owner_alone(directory: Path) -> None:
    authfile.write(str(directory), NAME, b"{}")
    assert mode(directory) == 0o700


@pytest.mark.parametrize("rights", [0o700, 0o755, 0o500])
def test_a_directory_that_is_there_stays_as_it_is(directory: Path, rights: int) -> None:
    if rights == 0o500 and os.geteuid() != 0:
        pytest.skip("only root can write there")
    directory.mkdir(parents=True)
    directory.chmod(rights)
    authfile.write(str(directory), NAME, b"{}")
    assert mode(directory) == rights


def test_the_content_is_on_disk_before_it_has_its_name(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def synced(descriptor: int) -> None:
        assert os.fstat(descriptor).st_size == 5
        done.append("fsync")
        fsync(descriptor)

    def renamed(source: str, target: str) -> None:
        done.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    authfile.write(str(directory), NAME, b"12345")
    assert done == ["fsync", "rename"]


def test_a_reader_sees_the_old_or_the_new_and_never_half(directory: Path) -> None:
    contents = [json.dumps({"auths": {letter: {"auth": letter * 50_000}}}).encode() for letter in "abc"]
    authfile.write(str(directory), NAME, contents[0])
    over = threading.Event()
    seen: list[bytes] = []

    def read() -> None:
        while not over.is_set():
            seen.append((directory / NAME).read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(150):
        authfile.write(str(directory), NAME, contents[turn % 3])
    over.set()
    reader.join()
    assert set(seen) <= set(contents)
    assert len(set(seen)) > 1


def test_what_a_killed_run_of_the_same_process_id_left_is_written_over(directory: Path) -> None:
    directory.mkdir(parents=True, mode=0o700)
    left = directory / f".{NAME}.{os.getpid()}.tmp"
    left.write_bytes(b"x" * 1000)
    left.chmod(0o644)
    path = Path(authfile.write(str(directory), NAME, b"{}"))
    assert (path.read_bytes(), mode(path)) == (b"{}", 0o600)
    assert os.listdir(directory) == [NAME]


def test_a_link_in_place_of_the_temporary_file_is_not_followed(tmp_path: Path, directory: Path) -> None:
    directory.mkdir(parents=True, mode=0o700)
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (directory / f".{NAME}.{os.getpid()}.tmp").symlink_to(victim)
    with pytest.raises(AuthFileError, match="cannot write the auth file"):
        authfile.write(str(directory), NAME, b"{}")
    assert victim.read_bytes() == b"precious"


def test_a_link_in_place_of_the_file_is_replaced_not_followed(tmp_path: Path, directory: Path) -> None:
    directory.mkdir(parents=True, mode=0o700)
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (directory / NAME).symlink_to(victim)
    authfile.write(str(directory), NAME, b"{}")
    assert victim.read_bytes() == b"precious"
    assert not (directory / NAME).is_symlink()


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rights", [0o777, 0o770, 0o702, 0o1777])
def test_a_directory_that_others_can_write_to_is_refused(directory: Path, rights: int) -> None:
    directory.mkdir(parents=True)
    directory.chmod(rights)
    with pytest.raises(AuthFileError) as caught:
        authfile.write(str(directory), NAME, b"{}")
    assert f"mode {rights:04o}" in caught.value.message and caught.value.hint == f"chmod 0700 {directory}"
    assert os.listdir(directory) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a directory of somebody else")
def test_a_directory_of_somebody_else_is_refused(directory: Path) -> None:
    directory.mkdir(parents=True, mode=0o700)
    os.chown(directory, 4711, 0)
    with pytest.raises(AuthFileError) as caught:
        authfile.write(str(directory), NAME, b"{}")
    assert "belongs to user 4711" in caught.value.message and caught.value.hint == f"chown root {directory}"
    assert os.listdir(directory) == []


@pytest.mark.parametrize("step", ["fsync", "rename", "fchmod"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_failing_disk_is_a_fault_and_leaves_nothing(
    directory: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    def fail(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(AuthFileError) as caught:
        authfile.write(str(directory), NAME, b'{"auths":"canary"}')
    assert os.strerror(number) in caught.value.message and str(directory / NAME) in caught.value.message
    assert ("df -i" if number == errno.ENOSPC else "--auth-dir") in caught.value.hint
    assert "canary" not in str(caught.value)
    assert os.listdir(directory) == []
