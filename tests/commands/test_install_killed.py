"""The executable killed at every system call that changes something, by a tracer: the next run undoes it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from executables import NATIVE, command
from real_programs import cannot, need
from rollout_node import flags_of, lay, leftovers, refusal, snapshot

pytestmark = pytest.mark.slow

CALLS = (
    *("rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "symlink", "symlinkat"),
    *("link", "linkat", "fsync", "fdatasync", "chmod", "fchmod", "fchmodat", "chown", "fchown", "lchown", "fchownat"),
    *("write", "pwrite64", "writev", "ftruncate", "setxattr", "lsetxattr", "fsetxattr"),
)


def traced(root: Path, verb: str, *options: str) -> subprocess.CompletedProcess[str]:
    (strace,) = need("strace")
    words = [*command(NATIVE), verb, "--apply", "--no-restart", "--host", root]
    # Its output is no part of what is counted: closed, each line would be a failed write.
    return subprocess.run([strace, *options, *words], capture_output=True, text=True, check=False, timeout=120)


def is_installed(root: Path, kind: str) -> bool:
    """By what the kubelet reads: its flags, or its entry where it had another program before."""
    flags = flags_of(root, kind)
    config = flags.get("image-credential-provider-config")
    return config is not None and "defaultCacheDuration: 0s" in (root / config[1:]).read_text()


@pytest.mark.parametrize(("kind", "verb"), [("kubeadm", "install"), ("kubeadm", "uninstall"), ("go", "install")])
def test_at_every_system_call(kind: str, verb: str, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        cannot("only root can install")
    pristine, whole, log = tmp_path / "pristine", tmp_path / "whole", tmp_path / "log"
    lay(kind, pristine)
    # For doctor, a kubelet's kubeconfig that names nobody: it asks no server then.
    (pristine / "etc/kubernetes/kubelet.conf").write_text("kind: Config\n")
    program = Path(command(NATIVE)[-1]).read_bytes()
    if verb == "uninstall":
        words = [*command(NATIVE), "install", "--apply", "--no-restart", "--host", pristine]
        subprocess.run(words, capture_output=True, check=True)
    shutil.copytree(pristine, whole, symlinks=True)
    before = snapshot(pristine)
    done = traced(whole, verb, "-qq", "-o", str(log), f"--trace={','.join(f'?{call}' for call in CALLS)}")
    assert done.returncode == 0, done.stderr
    after = snapshot(whole)
    seen: dict[str, int] = {}
    steps: list[tuple[str, int]] = []
    for call, place in re.findall(r"^(\w+)\(([^,)]*)", log.read_text(), re.MULTILINE):
        seen[call] = seen.get(call, 0) + 1
        # What is written before a file has its name is seen with install; it takes twice the time.
        if not (call == "write" and place in ("1", "2")) and (verb == "install" or call not in ("write", "fsync")):
            steps.append((call, seen[call]))
    assert len(steps) > 20
    outcomes = set()
    for call, number in steps:
        root = tmp_path / "node"
        shutil.copytree(pristine, root, symlinks=True)
        done = traced(root, verb, "-qq", "-o", "/dev/null", "-e", f"inject={call}:signal=KILL:when={number}")
        assert done.returncode in (-9, 137), (call, number, done)
        assert refusal(root, kind, (program,)) == "", (call, number)
        # Whatever comes next puts it right: here what is asked for is the opposite.
        again = subprocess.run(
            [*command(NATIVE), "rollback", "--apply", "--no-restart", "--host", root],
            capture_output=True,
            text=True,
            check=False,
        )
        assert again.returncode == 0, (call, number, again)
        found = snapshot(root)
        outcomes.add("interrupted" in again.stdout)
        assert refusal(root, kind, (program,)) == "" and leftovers(root) == [], (call, number)
        is_there = is_installed(root, kind)
        assert found in (before, after) and is_there == (found == (after if verb == "install" else before))
        shutil.rmtree(root)
    assert outcomes == {True, False}
