"""The kubelet's pull intents: files as it writes them (pkg/kubelet/images/pullmanager), whole, half and wrong."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crio_credential_provider.kubernetes.pullintents import PullIntents

HUB = "docker.io/library/redis"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    found = tmp_path / "image_manager/pulling"
    found.mkdir(parents=True)
    return found


def file_name(image: str) -> str:
    return f"sha256-{hashlib.sha256(image.encode()).hexdigest()}"


def intent(image: object, version: str = "v1beta1", kind: str = "ImagePullIntent") -> bytes:
    return json.dumps({"kind": kind, "apiVersion": f"kubelet.config.k8s.io/{version}", "image": image}).encode()


def note(directory: Path, image: str, content: bytes | None = None) -> Path:
    path = directory / file_name(image)
    path.write_bytes(intent(image) if content is None else content)
    return path


def settle(directory: Path, seconds: float = 10) -> None:
    """Makes the directory's last change one of so long ago."""
    os.utime(directory, (time.time() - seconds,) * 2)


def test_the_kubelet_s_bytes(tmp_path: Path, directory: Path) -> None:
    """As docs/reference/contracts.md quotes a real one."""
    note(
        directory,
        "docker.io/redis",
        b'{"kind":"ImagePullIntent","apiVersion":"kubelet.config.k8s.io/v1beta1","image":"docker.io/redis"}\n',
    )
    intents = PullIntents(str(tmp_path))
    assert intents.available()
    assert intents.repositories() == {HUB}
    assert intents.problems == []


@pytest.mark.parametrize(
    ("image", "repository"),
    [
        ("redis", HUB),
        ("redis:7", HUB),
        ("docker.io/redis:7@sha256:" + "a" * 64, HUB),
        ("docker.io/library/redis@sha256:" + "a" * 64, HUB),
        ("index.docker.io/library/redis", HUB),
        ("quay.io/team/app:v1", "quay.io/team/app"),
        ("localhost:5000/app", "localhost:5000/app"),
    ],
)
def test_each_spelling_of_an_image_is_its_repository(
    tmp_path: Path, directory: Path, image: str, repository: str
) -> None:
    note(directory, image)
    assert PullIntents(str(tmp_path)).repositories() == {repository}


def test_each_version_of_the_api(tmp_path: Path, directory: Path) -> None:
    note(directory, "a.example/x", intent("a.example/x", "v1alpha1"))
    note(directory, "a.example/y", intent("a.example/y", "v1beta1"))
    note(directory, "a.example/z", intent("a.example/z", "v1"))
    intents = PullIntents(str(tmp_path))
    assert intents.repositories() == {"a.example/x", "a.example/y", "a.example/z"}
    assert intents.available()


def test_two_tags_are_one_repository(tmp_path: Path, directory: Path) -> None:
    first, second = note(directory, "redis:6"), note(directory, "redis:7")
    intents = PullIntents(str(tmp_path))
    assert intents.repositories() == {HUB}
    first.unlink()
    assert intents.repositories() == {HUB}
    second.unlink()
    assert intents.repositories() == frozenset()


def test_without_the_directory_there_are_none(tmp_path: Path) -> None:
    intents = PullIntents(str(tmp_path))
    assert not intents.available()
    assert intents.repositories() == frozenset()
    (problem,) = intents.problems
    assert str(tmp_path) in problem and "No such file" in problem


def test_a_directory_that_goes_takes_its_intents_with_it(tmp_path: Path, directory: Path) -> None:
    path = note(directory, "redis")
    intents = PullIntents(str(tmp_path))
    assert intents.repositories() == {HUB}
    path.unlink()
    directory.rmdir()
    assert intents.repositories() == frozenset()


# -- what the kubelet itself does not read -----------------------------------------------------------------------------


def test_a_temporary_file_is_no_intent(tmp_path: Path, directory: Path) -> None:
    """A kubelet that was killed between writing and renaming leaves it for good."""
    (directory / f"{file_name('redis')}.tmp").write_bytes(intent("redis"))
    (directory / "other").write_bytes(intent("quay.io/team/app"))
    intents = PullIntents(str(tmp_path))
    assert intents.repositories() == frozenset()
    assert intents.problems == []


# -- garbage -----------------------------------------------------------------------------------------------------------

GARBAGE: dict[str, bytes] = {
    "empty": b"",
    "half": intent("redis")[:-9],
    "text": b"redis",
    "not UTF-8": b'{"kind":"ImagePullIntent","image":"\xff"}',
    "list": b"[1]",
    "string": b'"ImagePullIntent"',
    "number": b"7",
    "null": b"null",
    "no kind": b'{"image":"redis"}',
    "no image": b'{"kind":"ImagePullIntent"}',
    "image is a number": intent(7),
    "image is a list": intent(["redis"]),
    "image is an object": intent({"redis": "redis"}),
    "image is null": intent(None),
    "image is no reference": intent("REDIS://x"),
    "image is empty": intent(""),
    "deep": b"[" * 100_000,
    "larger than 64 KiB": b" " * 70_000 + intent("redis"),
    "another kind": intent("redis", kind="ImagePulledRecord"),
    "a newer version": intent("redis", "v2"),
    "a version of ten": intent("redis", "v10beta1"),
    "another group": intent("redis").replace(b"kubelet.config", b"images.kubelet"),
    "apiVersion is a number": intent("redis").replace(b'"kubelet.config.k8s.io/v1beta1"', b"1"),
    "a number of 5,000 digits": b'{"kind":"ImagePullIntent","image":' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_what_cannot_be_parsed_is_told_and_makes_the_rest_unknown(tmp_path: Path, directory: Path, name: str) -> None:
    path = note(directory, "broken", GARBAGE[name])
    note(directory, "quay.io/team/app")
    intents = PullIntents(str(tmp_path))
    for _ in range(3):
        assert intents.repositories() == {"quay.io/team/app"}
        assert not intents.available()
    (problem,) = intents.problems
    assert path.name in problem
    assert "redis" not in problem
    path.unlink()
    assert intents.available()


def test_what_cannot_be_read_is_told_and_makes_the_rest_unknown(tmp_path: Path, directory: Path) -> None:
    (directory / file_name("a")).mkdir()
    (directory / file_name("b")).symlink_to(file_name("b"))
    os.mkfifo(directory / file_name("c"))
    (directory / file_name("gone")).symlink_to("nowhere")
    note(directory, "redis")
    intents = PullIntents(str(tmp_path))
    assert intents.repositories() == {HUB}
    # A file that is gone again is the ordinary end of an intent, and no problem.
    assert len(intents.problems) == 3
    assert not intents.available()
    assert all(file_name(name) in "\n".join(intents.problems) for name in "abc")


def test_an_intent_that_is_gone_before_it_is_read_is_no_unknown(tmp_path: Path, directory: Path) -> None:
    (directory / file_name("gone")).symlink_to("nowhere")
    intents = PullIntents(str(tmp_path))
    assert intents.available() and intents.problems == []


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.EMFILE, errno.ENOMEM])
@pytest.mark.parametrize("call", ["stat", "listdir"])
def test_a_directory_that_cannot_be_read_is_unknown_and_not_empty(
    tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    note(directory, "redis")
    intents = PullIntents(str(tmp_path))
    assert intents.available()

    def refuse(path: str) -> None:
        raise OSError(code, os.strerror(code))

    directory.touch()
    with monkeypatch.context() as patched:
        patched.setattr(os, call, refuse)
        assert not intents.available()
        assert os.strerror(code) in intents.problems[0]
    # As soon as it can be read again, all is known again.
    assert intents.available() and intents.repositories() == {HUB}


# -- of a kubelet that was killed --------------------------------------------------------------------------------------


def test_an_intent_from_before_the_kubelet_s_start_is_none(tmp_path: Path, directory: Path) -> None:
    """A kubelet that is killed during a pull leaves it, and the next one keeps it until that very image is pulled."""
    before, after = time.time() - 60, time.time() - 30
    os.utime(note(directory, "redis:7"), (before, before))
    intents = PullIntents(str(tmp_path), since=after)
    assert (intents.repositories(), intents.available(), intents.problems) == (frozenset(), True, [])
    note(directory, "redis:7")
    settle(directory)
    assert intents.repositories() == {HUB}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "is_known"), [("kubelet", True), ("k3s-server", False)])
def test_the_kubelet_s_start_is_that_of_the_parent(tmp_path: Path, name: str, is_known: bool) -> None:
    (tmp_path / name).symlink_to("/bin/sh")
    code = "from crio_credential_provider.kubernetes import pullintents; print(pullintents.kubelet_start())"
    began = time.time()
    done = subprocess.run(
        [tmp_path / name, "-c", '"$0" -c "$1"; exit $?', sys.executable, code],
        capture_output=True,
        text=True,
        check=True,
    )
    found = float(done.stdout)
    assert (began - 0.1 <= found <= time.time()) if is_known else found == 0.0


# -- reading only what changed -----------------------------------------------------------------------------------------


def test_a_directory_that_did_not_change_is_not_read_again(tmp_path: Path, directory: Path) -> None:
    path = note(directory, "redis")
    settle(directory)
    intents = PullIntents(str(tmp_path))
    assert intents.repositories() == {HUB}
    path.write_bytes(intent("quay.io/team/app"))
    assert intents.repositories() == {HUB}
    settle(directory, 9)
    assert intents.repositories() == {"quay.io/team/app"}


@pytest.mark.parametrize("later", [0.0, 0.05, -3600.0], ids=["at once", "50 ms later", "clock set back"])
def test_a_second_change_within_one_tick_of_the_clock_is_seen(
    tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch, later: float
) -> None:
    """Kernels before 6.13 give both changes the same mtime, and the kubelet makes two for each intent."""
    temporary = directory / f"{file_name('redis')}.tmp"
    temporary.write_bytes(intent("redis"))
    now = time.time_ns()
    os.utime(directory, ns=(now, now))
    monkeypatch.setattr(time, "time_ns", lambda: now + int(later * 1e9))
    intents = PullIntents(str(tmp_path))
    assert intents.repositories() == frozenset()
    temporary.rename(directory / file_name("redis"))
    os.utime(directory, ns=(now, now))
    assert intents.repositories() == {HUB}
