"""A keeper outlives its program: updates and removals lose no pull, whatever the program's form.

A keeper may wait for ten minutes, and nobody who updates a package waits for that long. So it has loaded what it needs
before it becomes one.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import NodeMaker
from crio_credential_provider.testbed.cluster import ApiServer
from handingoff import expect, intents_of, last_entry, processes_of, put, until, written
from node import Node, request

NAME = "crio-credential-provider"


class Form:
    """A program in a tree that a test may spoil."""

    def __init__(self, tree: Path, program: Path) -> None:
        self.tree = tree
        self.program = program


@pytest.fixture(params=[pytest.param("executable", marks=pytest.mark.process), "system launch", "wheel"])
def form(request: pytest.FixtureRequest, tmp_path: Path) -> Form:
    if request.param == "executable":
        tree = tmp_path / "bin"
        tree.mkdir()
        return Form(tree, Path(shutil.copy(request.getfixturevalue("executable"), tree / NAME)))
    if request.param == "system launch":
        built: Path = request.getfixturevalue("plugin")
        tree = tmp_path / "opt"
        for part in ("bin", "lib"):
            shutil.copytree(built.parent.parent / part, tree / part, symlinks=True)
        return Form(tree, tree / "bin" / NAME)
    tree = tmp_path / "venv"
    script: Path = request.getfixturevalue("installed")
    shutil.copytree(script.parent.parent, tree, symlinks=True)
    program = tree / "bin" / NAME
    program.write_text(program.read_text().replace(str(script.parent.parent), str(tree)))
    return Form(tree, program)


def remove(tree: Path) -> None:
    shutil.rmtree(tree)


def replace_by_garbage(tree: Path) -> None:
    """Each file by another of the same name, as an update does that keeps the paths."""
    for path in [path for path in tree.rglob("*") if path.is_file() and not path.is_symlink()]:
        fresh = path.with_name("fresh")
        fresh.write_bytes(b"raise SystemExit('of another version')\n")
        fresh.replace(path)


def leave_keepers(node: Node, cluster: ApiServer, token: str, number: int, *flags: str) -> Path:
    """Keepers in line behind a file that a pull is to take; the first looks at it, the others wait for their turn."""
    node.join(cluster)
    intents_of(node).mkdir(parents=True)
    path = put(node)
    expect(node)
    for _ in range(number):
        assert node.run(request(token=token), "--hand-off-timeout=200ms", *flags).entry["OUTCOME"] == "in-line"
    return path


@pytest.mark.parametrize("uproot", [remove, replace_by_garbage])
def test_an_update_or_a_removal_during_a_keeper_s_life_loses_nothing(
    make_node: NodeMaker, form: Form, cluster: ApiServer, alpha: str, uproot: Callable[[Path], None]
) -> None:
    node = make_node(str(form.program))
    path = leave_keepers(node, cluster, alpha, 2, "--log-level=debug")
    uproot(form.tree)
    # What a keeper may come to need, all at once: JSON that is none, and that has escapes.
    node.write(intents_of(node) / "sha256-00", "{")
    image = r'{"kind":"ImagePullIntent","image":"docker.io\/library\/nginx:1.28"}'
    node.write(intents_of(node) / "sha256-01", image)
    keepers = processes_of(node)
    while keepers:
        path.unlink()
        until(lambda: written(node))
        until(lambda: len(processes_of(node)) < len(keepers))
        keepers.pop()
        entry = last_entry(node)
        assert (entry["OUTCOME"], entry["AUTH_FILE"]) == ("auth-file-written", str(path))
        assert "internal error" not in entry["MESSAGE"]


def test_a_keeper_whose_program_is_gone_tells_its_faults(
    make_node: NodeMaker, form: Form, cluster: ApiServer, alpha: str
) -> None:
    node = make_node(str(form.program))
    path = leave_keepers(node, cluster, alpha, 2)
    remove(form.tree)
    node.auth_dir.chmod(0o777)
    _, second = processes_of(node)
    os.kill(second, 15)
    until(lambda: len(processes_of(node)) == 1)
    assert "SIGTERM" in last_entry(node)["MESSAGE"]
    path.unlink()
    until(lambda: not processes_of(node))
    assert last_entry(node)["OUTCOME"] == "fault-auth-file"


def test_a_removal_before_a_run_leaves_its_keeper_loses_nothing(
    make_node: NodeMaker, form: Form, cluster: ApiServer, alpha: str
) -> None:
    node = make_node(str(form.program))
    path = leave_keepers(node, cluster, alpha, 1)
    started = node.start("--hand-off-timeout=2s")
    assert started.process.stdin
    timer = threading.Timer(1.0, remove, [form.tree])
    timer.start()
    run = started.finish(request(token=alpha))
    timer.join()
    assert (run.status, run.stderr) == (0, "")
    for _ in range(2):
        path.unlink()
        until(lambda: written(node))
    until(lambda: not processes_of(node))
