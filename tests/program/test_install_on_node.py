"""``install-on-node``: the executable copies itself, by a rename, and says what it did."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import executables
from commandline import Done, typed
from conftest import NodeMaker
from crio_credential_provider import __version__
from crio_credential_provider.testbed.cluster import ApiServer
from executables import FOREIGN, NATIVE, command
from mainjob import assert_serves
from make_executable import Target
from node import PROGRAM, request
from real_programs import cannot

pytestmark = pytest.mark.slow

NAME = "crio-credential-provider"


def run(*arguments: str | Path, target: Target = NATIVE, **options: Any) -> Done:
    done = subprocess.run(
        [*command(target), "install-on-node", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd="/",
        **options,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def assert_is_installed(directory: Path, target: Target = NATIVE) -> None:
    """The program, and nothing else."""
    assert [path.name for path in directory.iterdir()] == [NAME]
    status = (directory / NAME).lstat()
    assert (status.st_mode, status.st_uid) == (0o100755, os.geteuid())
    assert (directory / NAME).read_bytes() == Path(command(target)[-1]).read_bytes()


@pytest.mark.parametrize("target", [NATIVE, FOREIGN], ids=lambda target: target.name)
def test_it_is_there_and_a_second_time_changes_nothing(tmp_path: Path, target: Target) -> None:
    done = run(tmp_path, target=target, umask=0o077)
    assert done == Done(0, f"{tmp_path}/{NAME} is now version {__version__}\n", "")
    assert_is_installed(tmp_path, target)
    before = (tmp_path / NAME).lstat()
    assert run(tmp_path, target=target) == Done(0, f"{tmp_path}/{NAME} is already version {__version__}\n", "")
    assert (tmp_path / NAME).lstat() == before


def test_a_kubelet_can_run_it(tmp_path: Path, make_node: NodeMaker, cluster: ApiServer, alpha: str) -> None:
    run(tmp_path)
    assert_serves(make_node(str(tmp_path / NAME)), cluster, alpha)


def _other_content(directory: Path) -> None:
    (directory / NAME).write_bytes(b"\x7fELF of another version")
    (directory / NAME).chmod(0o755)


def _not_executable(directory: Path) -> None:
    run(directory)
    (directory / NAME).chmod(0o600)


def _symlink(directory: Path) -> None:
    (directory / NAME).symlink_to("/nonexistent")


def _symlink_to_itself(directory: Path) -> None:
    (directory / NAME).symlink_to(command(NATIVE)[-1])


def _earlier_version(directory: Path) -> None:
    (directory / f".{NAME}/0.0.9-abc/bin").mkdir(parents=True)
    (directory / f".{NAME}/0.0.9-abc/bin" / NAME).touch()
    (directory / NAME).symlink_to(f".{NAME}/0.0.9-abc/bin/{NAME}")


def _killed_while_copying(directory: Path) -> None:
    path = directory / f".{NAME}.x1y2.new"
    path.write_bytes(b"half a file")
    os.utime(path, (time.time() - 700,) * 2)


def _there_and_a_copy_killed(directory: Path) -> None:
    run(directory)
    _killed_while_copying(directory)


BEFORE = (
    _other_content,
    _not_executable,
    _symlink,
    _symlink_to_itself,
    _earlier_version,
    _killed_while_copying,
    _there_and_a_copy_killed,
)


@pytest.mark.parametrize("before", BEFORE)
def test_whatever_was_there_is_replaced_or_removed(tmp_path: Path, before: Any) -> None:
    before(tmp_path)
    assert run(tmp_path).status == 0
    assert_is_installed(tmp_path)


@pytest.mark.parametrize("before", BEFORE)
def test_remove(tmp_path: Path, before: Any) -> None:
    before(tmp_path)
    (tmp_path / "ecr-credential-provider").touch()
    was_there = os.path.lexists(tmp_path / NAME)
    said = f"{tmp_path}/{NAME} {'removed' if was_there else 'not found, nothing to remove'}\n"
    assert run("--remove", tmp_path) == Done(0, said, "")
    assert [path.name for path in tmp_path.iterdir()] == ["ecr-credential-provider"]


def test_the_copy_of_another_stays_unless_all_is_to_go(tmp_path: Path) -> None:
    fresh = tmp_path / f".{NAME}.x1y2.new"
    fresh.write_bytes(b"half a file")
    run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [fresh.name, NAME]
    run("--remove", tmp_path)
    assert [*tmp_path.iterdir()] == []


def test_several_at_a_time_while_a_kubelet_runs_it(tmp_path: Path, make_node: NodeMaker) -> None:
    """Of two versions, so that each finds another's."""
    other = tmp_path / "other"
    other.write_bytes(Path(command(NATIVE)[-1]).read_bytes() + b"\0")
    other.chmod(0o755)
    place = tmp_path / "bin"
    place.mkdir()
    run(place)
    node = make_node(str(place / NAME), journald=False)
    node.write_registries_conf("")
    over = threading.Event()

    def pull() -> set[tuple[int, str]]:
        found = set()
        while not over.is_set():
            done = node.run(request())
            found.add((done.status, done.stderr))
        return found

    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        pulls = pool.submit(pull)
        copies = [
            pool.submit(subprocess.run, [program, "install-on-node", place], capture_output=True, text=True)
            for program in (other, command(NATIVE)[-1]) * 6
        ]
        assert {(copy.result().returncode, copy.result().stderr) for copy in copies} == {(0, "")}
        over.set()
        assert pulls.result() == {(0, "")}
    run(place)
    assert_is_installed(place)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stays_until_it_is_told_to_end_and_others_need_not_wait(tmp_path: Path, number: signal.Signals) -> None:
    arguments = [*command(NATIVE), "install-on-node", "--stay", tmp_path]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == f"{tmp_path}/{NAME} is now version {__version__}\n"
        assert_is_installed(tmp_path)
        assert "is already" in run(tmp_path).out
        assert process.poll() is None
        process.send_signal(number)
        assert process.communicate(timeout=20) == ("", "")
        assert process.returncode == 0


def test_a_directory_that_cannot_be_written_to(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        cannot("only root can mount")
    mount = 'mount -t tmpfs -o "$1" tmpfs "$0" && shift && exec "$@"'

    def mounted(option: str, *arguments: str) -> Done:
        inside = ["unshare", "--mount", "sh", "-c", mount, str(tmp_path), option]
        done = subprocess.run(
            [*inside, *command(NATIVE), "install-on-node", *arguments, tmp_path],
            capture_output=True,
            text=True,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    to = f"{NAME} install-on-node: cannot write to {tmp_path}"
    set_it = "name a directory that can be written to, and set the kubelet's --image-credential-provider-bin-dir to it"
    assert mounted("ro") == Done(1, "", f"{to}: Read-only file system; {set_it}\n")
    assert mounted("size=1m") == Done(1, "", f"{to}: No space left on device; free some space there\n")


def test_a_copy_that_failed_leaves_what_was_there(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        cannot("only root can mount")
    script = (
        'mount -t tmpfs -o size=1m tmpfs "$0" && echo old > "$0/crio-credential-provider" && '
        '! "$1" install-on-node "$0" 2>/dev/null && cat "$0"/* && ls -A "$0"'
    )
    command_line = ["unshare", "--mount", "sh", "-c", script, str(tmp_path), str(command(NATIVE)[-1])]
    assert subprocess.run(command_line, capture_output=True, text=True, check=False).stdout == f"old\n{NAME}\n"


def test_as_somebody_else(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        cannot("only root can be somebody else")
    for place in (tmp_path, *list(tmp_path.parents)[:-2]):
        place.chmod(place.stat().st_mode | 0o055)
    program = tmp_path / "program"
    program.write_bytes(Path(command(NATIVE)[-1]).read_bytes())
    program.chmod(0o755)
    done = subprocess.run(
        [program, "install-on-node", tmp_path],
        capture_output=True,
        text=True,
        check=False,
        user=65534,
        group=65534,
        extra_groups=[],
    )
    hint = "run this as root; in a container on a node with SELinux, as spc_t"
    expected = f"{NAME} install-on-node: cannot write to {tmp_path}: Permission denied; {hint}\n"
    assert (done.returncode, done.stderr) == (1, expected)


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "DIRECTORY is missing; --help has examples"),
        (["/nonexistent"], "DIRECTORY: /nonexistent: no such directory"),
        (["/etc/passwd"], "DIRECTORY: /etc/passwd: not a directory"),
        (["--remove", "/nonexistent"], "DIRECTORY: /nonexistent: no such directory"),
        (["--stay", "--remove", "/"], "--remove: not allowed with argument --stay"),
        (["--stray", "/"], "unknown flag '--stray'; did you mean '--stay'?"),
        ([""], "DIRECTORY: is empty"),
    ],
)
def test_wrong_usage(arguments: list[str], said: str) -> None:
    done = typed("install-on-node", *arguments)
    assert done == Done(2, "", f"{NAME} install-on-node: {said}\n")


def test_what_a_python_of_this_machine_runs_cannot_be_installed(tmp_path: Path) -> None:
    if PROGRAM:
        pytest.skip("PROGRAM is set")
    done = typed("install-on-node", str(tmp_path))
    assert (done.status, done.out, [*tmp_path.iterdir()]) == (1, "", [])
    assert "the Python of this machine" in done.err and f"run the executable, {NAME}-linux-amd64" in done.err


def test_in_an_empty_root_as_in_the_container(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        cannot("only root can change its root")
    (tmp_path / "node").mkdir()
    program = tmp_path / NAME
    program.write_bytes(Path(executables.command(NATIVE)[-1]).read_bytes())
    program.chmod(0o755)
    (tmp_path / "proc").mkdir()
    inside = ["unshare", "--mount", "sh", "-c", 'mount --rbind /proc "$0/proc" && exec chroot "$0" "$@"', str(tmp_path)]
    done = subprocess.run(
        [*inside, f"/{NAME}", "install-on-node", "/node"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert_is_installed(tmp_path / "node")
