"""Killed before every call that changes something: the kubelet can start all the same, and the next run undoes it."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from crio_credential_provider.node.facts import Given, gather
from crio_credential_provider.node.tree import Tree
from crio_credential_provider.rollout import apply, back, plan, transaction
from crio_credential_provider.rollout.apply import Options
from crio_credential_provider.rollout.changes import RolloutError
from crio_credential_provider.rollout.plan import Plan, Wishes
from crio_credential_provider.rollout.store import Store
from rollout_node import PROGRAM, lay, leftovers, refusal, snapshot

pytestmark = pytest.mark.slow

NEWER = PROGRAM + b"# newer\n" * 4096
CALLS = frozenset(
    (
        *("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "os.chmod", "os.chown"),
        *("os.setxattr", "os.truncate", "fcntl.flock"),
    )
)


REFUSED, TOLERATED = 71, 72


def killed_at(step: int, work: Callable[..., None], *arguments: object, error: int = 0) -> int:
    """The status of a process that is killed before its step-th call that changes something: -9, or its own.

    Args:
        error: with which that call fails instead, once; the status is ``REFUSED`` then, if the work says so.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = step

    def count() -> None:
        nonlocal left
        left -= 1
        if error and left == -1:
            raise OSError(error, os.strerror(error))
        if left < 0 and not error:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        is_write = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
        if event in CALLS or is_write:
            count()

    fsync = os.fsync

    def counted(descriptor: int) -> None:
        # What was written is half on the disk at most: the file is cut, as a kill before its last write would leave it.
        count()
        fsync(descriptor)
        count()

    os.fsync = counted  # type: ignore[assignment]
    sys.addaudithook(hook)
    status = 70
    try:
        work(*arguments)
        status = TOLERATED if error and left < 0 else 0
    except (OSError, RolloutError):
        status = REFUSED
    finally:
        os._exit(status)


def installation(root: Path, program: bytes) -> Plan:
    tree = Tree(str(root))
    made = plan.install(gather(Given(root=tree.root, live=False, next_start=True)), Wishes(program=program))
    return plan.recorded(made, tree, plan.joined(transaction.installed(Store(tree)), made.changes))


def carry_out(root: Path, made: Plan, verb: str) -> None:
    with Store(Tree(str(root))).held():
        apply.recover(str(root), lambda _: None, 1, restart=False)
        apply.apply(made, verb, str(root), Options(restart=False), lambda _: None)


def recover(root: Path) -> None:
    with Store(Tree(str(root))).held():
        apply.recover(str(root), lambda _: None, 1, restart=False)


VERBS = ("install", "upgrade", "uninstall", "rollback")


def prepare(kind: str, verb: str, root: Path) -> Plan:
    lay(kind, root)
    if verb == "install":
        return installation(root, PROGRAM)
    carry_out(root, installation(root, PROGRAM), "install")
    if verb == "upgrade":
        return installation(root, NEWER)
    if verb == "rollback":
        carry_out(root, installation(root, NEWER), "install")
        return back.rollback(str(root)).plan
    return back.uninstall(str(root)).plan


@pytest.mark.parametrize(
    ("kind", "verb"),
    [
        *(
            (kind, verb)
            for kind in ("kubeadm", "own-unit", "openshift", "k3s", "containerd")
            for verb in ("install", "uninstall")
        ),
        *((kind, verb) for kind in ("others", "go") for verb in VERBS),
    ],
)
def test_at_every_step(kind: str, verb: str, tmp_path: Path) -> None:
    pristine = tmp_path / "pristine"
    made = prepare(kind, verb, pristine)
    before = snapshot(pristine)
    whole = tmp_path / "whole"
    shutil.copytree(pristine, whole, symlinks=True)
    carry_out(whole, made, verb)
    after = snapshot(whole)
    assert after != before
    step, states = 0, set()
    while True:
        root = tmp_path / "node"
        shutil.copytree(pristine, root, symlinks=True)
        status = killed_at(step, carry_out, root, made, verb)
        assert status in (0, -9)
        # The kubelet can start at any time, with a program that is whole.
        assert refusal(root, kind, (PROGRAM, NEWER)) == "", step
        now = snapshot(root)
        for path in {change.path[1:] for change in made.changes if change.role != "record"}:
            assert now.get(path) in (before.get(path), after.get(path)), (step, path)
        # The way back is killed as well, at each of its own steps in turn.
        again = killed_at(step % 17, recover, root)
        assert again in (0, -9) and refusal(root, kind, (PROGRAM, NEWER)) == "", step
        recover(root)
        found = snapshot(root)
        assert found in ((after,) if status == 0 else (before, after)), (step, dict(found.items() ^ before.items()))
        assert leftovers(root) == []
        assert transaction.interrupted(Store(Tree(str(root)))) is None
        states.add(found == after)
        shutil.rmtree(root)
        if status == 0:
            break
        step += 1
    assert step > 20 and states == {True, False}


@pytest.mark.parametrize(
    ("error", "kind", "verb"),
    [
        *((errno.ENOSPC, kind, verb) for kind in ("others", "go") for verb in VERBS),
        (errno.EROFS, "others", "install"),
        (errno.EIO, "others", "uninstall"),
    ],
)
def test_a_disk_that_fails_at_every_step(error: int, kind: str, verb: str, tmp_path: Path) -> None:
    """What fails once is put back at once; what fails while it is put back, by the next run."""
    pristine, root = tmp_path / "pristine", tmp_path / "node"
    made = prepare(kind, verb, pristine)
    before = snapshot(pristine)
    step, refused = 0, 0
    while True:
        shutil.copytree(pristine, root, symlinks=True)
        status = killed_at(step, carry_out, root, made, verb, error=error)
        assert refusal(root, kind, (PROGRAM, NEWER)) == "", step
        assert status in (0, REFUSED, TOLERATED), step
        if status == REFUSED:
            refused += 1
            assert snapshot(root) == before, step
            assert leftovers(root) == [] and transaction.interrupted(Store(Tree(str(root)))) is None, step
        elif status == 0:
            break
        shutil.rmtree(root)
        step += 1
    assert refused > 15


def test_it_completes_after_any_kill(tmp_path: Path) -> None:
    """The next install need not know at which step the last one ended."""
    whole = tmp_path / "whole"
    carry_out(whole, prepare("others", "install", whole), "install")
    after = snapshot(whole)
    for step in range(0, 200, 7):
        root = tmp_path / "node"
        made = prepare("others", "install", root)
        status = killed_at(step, carry_out, root, made, "install")
        recover(root)
        again = installation(root, PROGRAM)
        if len(again.changes) > 1:
            carry_out(root, again, "install")
        assert snapshot(root) == after
        shutil.rmtree(root)
        if status == 0:
            return
    pytest.fail("it never ends")
