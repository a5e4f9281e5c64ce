"""Imports go one way (docs/decisions): the source itself is read, lazy imports included."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from node import SOURCES

PACKAGE = SOURCES / "crio_credential_provider"


class Import(NamedTuple):
    """One imported module: of the package by its name within it, else by its top-level name."""

    module: str
    inside: bool
    lazy: bool
    typing_only: bool


def imports_of(path: Path) -> list[Import]:
    found: list[Import] = []

    def visit(node: ast.AST, lazy: bool, typing_only: bool) -> None:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for statement in node.body:
                visit(statement, lazy, True)
            return
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name.partition(".")[0], False, lazy, typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.extend(resolve(node, path, lazy, typing_only))
        lazy = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, lazy, typing_only)

    visit(ast.parse(path.read_text(), str(path)), False, False)
    return found


def resolve(node: ast.ImportFrom, path: Path, lazy: bool, typing_only: bool) -> Iterator[Import]:
    module = node.module or ""
    if node.level:
        base = path.relative_to(PACKAGE).parts[:-1]
        base = base[: len(base) - (node.level - 1)]
        module = ".".join(("crio_credential_provider", *base, *([module] if module else [])))
    if module.partition(".")[0] != "crio_credential_provider":
        yield Import(module.partition(".")[0], False, lazy, typing_only)
        return
    inner = module.removeprefix("crio_credential_provider").lstrip(".")
    for alias in node.names:
        full = f"{inner}.{alias.name}".lstrip(".")
        name = full if is_module(full) else inner
        yield Import(name or "__init__", True, lazy, typing_only)


def is_module(name: str) -> bool:
    place = PACKAGE.joinpath(*name.split("."))
    return place.with_suffix(".py").exists() or (place / "__init__.py").exists()


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


GENERATED = ("_build.py",)

MODULES = {name_of(path): imports_of(path) for path in sorted(PACKAGE.rglob("*.py")) if path.name not in GENERATED}

LAYERS = (
    *("__init__", "errors", "version", "platform", "images", "settings", "kubernetes", "runtimes", "pull"),
    *(
        "node",
        "manifests",
        "registryclient",
        "explanation",
        "audit",
        "tenant",
        "doctor",
        "rollout",
        "fleet",
        "testbed",
        "demo",
        "commands",
        "__main__",
    ),
)
"""Packages, and the modules beside them, from the bottom up: each may import what stands before it."""

CORE = {name: found for name, found in MODULES.items() if LAYERS.index(name.partition(".")[0]) <= LAYERS.index("pull")}
"""What a pull may run; above are the packages for people."""


def reached(start: str, *, typing_too: bool = False) -> set[str]:
    """Modules of the package that come with one, lazily imported ones included."""
    seen: set[str] = set()
    left = [start]
    while left:
        name = left.pop()
        if name not in seen:
            seen.add(name)
            left += [i.module for i in MODULES.get(name, []) if i.inside and (typing_too or not i.typing_only)]
    return seen - {start}


def test_the_source_was_read() -> None:
    assert {"pull.plugin", "pull.decision", "kubernetes.apiserver", "testbed.cluster", "__main__"} <= set(MODULES)
    assert {"pull.decision", "kubernetes.apiserver"} <= reached("pull.plugin")
    assert {name.partition(".")[0] for name in MODULES} == set(LAYERS)


def test_the_packages_themselves_import_nothing() -> None:
    for name in (
        "__init__",
        "pull",
        "kubernetes",
        "images",
        "runtimes",
        "runtimes.crio",
        "runtimes.containerd",
        "platform",
        "node",
        "testbed",
    ):
        assert [found.module for found in MODULES[name] if found.module != "__future__"] == [], name


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down(name: str) -> None:
    allowed = LAYERS[: LAYERS.index(name.partition(".")[0]) + 1]
    rooms = {i.module.partition(".")[0] for i in MODULES[name] if i.inside and f"{i.module}.py" not in GENERATED}
    assert rooms <= set(allowed)


@pytest.mark.parametrize("name", CORE)
def test_no_module_comes_back_to_itself(name: str) -> None:
    assert all(name not in reached(other) for other in reached(name) if other != "__init__")


def test_no_package_is_larger_than_a_person_can_see() -> None:
    for package in (path for path in PACKAGE.rglob("*") if path.is_dir() and path.name != "__pycache__"):
        assert len([*package.glob("*.py")]) <= 12, package.name


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")), ids=lambda path: path.parent.name)
def test_each_package_says_what_it_knows(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_the_decision_knows_neither_disk_nor_network_nor_journal() -> None:
    """So that a person can be shown a decision that has no effect."""
    effects = {"pull.authfile", "pull.handoff", "kubernetes.apiserver", "kubernetes.endpoint", "platform.journal"}
    assert reached("pull.decision", typing_too=True) & (effects | {"pull.plugin"}) == set()


def test_nothing_imports_the_plugin_but_the_program() -> None:
    users = {name for name, found in MODULES.items() if any(i.inside and i.module == "pull.plugin" for i in found)}
    assert users == {"__main__"}


def test_the_program_loads_what_is_for_people_for_a_command_word_alone() -> None:
    core = LAYERS[: LAYERS.index("pull") + 1]
    assert all(i.lazy for i in MODULES["__main__"] if i.inside and i.module.partition(".")[0] not in core)


def test_one_module_opens_network_connections() -> None:
    # The journal's socket is a Unix one.
    users = {name for name, found in CORE.items() if any(i.module in ("socket", "_socket") for i in found)}
    assert users == {"kubernetes.apiserver", "platform.journal"}
    users = {name for name, found in CORE.items() if any(i.module in ("ssl", "_ssl") for i in found)}
    assert users == {"kubernetes.apiserver"}
    for name in set(CORE) - {"kubernetes.apiserver"}:
        path = PACKAGE.joinpath(*name.split("."))
        text = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
        assert "AF_INET" not in text and "getaddrinfo" not in text, name


PURE = (
    *("errors", "platform.record", "images.reference", "images.dockerconfig", "pull.keyring"),
    *("kubernetes.credentialprovider", "kubernetes.serviceaccount", "kubernetes.pullsecrets"),
)


@pytest.mark.parametrize("name", PURE)
def test_what_only_computes_imports_nothing_that_acts(name: str) -> None:
    acting = {"os", "sys", "io", "socket", "ssl", "subprocess", "shutil", "fcntl", "_thread", "threading", "signal"}
    assert {i.module for i in CORE[name] if not i.inside} & acting == set()


def test_the_core_needs_third_parties_for_parsing_alone_and_late() -> None:
    """Only when a configuration file has changed: yaml takes 20 ms of CPU, tomli 10."""
    foreign: dict[str, set[str]] = {}
    for name, found in CORE.items():
        for i in found:
            if not i.inside and i.module not in sys.stdlib_module_names and i.module != "__future__":
                foreign.setdefault(name, set()).add(i.module)
                assert i.lazy and not i.typing_only, f"{name} imports {i.module} when it is loaded"
    toml = ("runtimes.crio.registriestoml", "runtimes.containerd.tomlfile")
    assert foreign == {"kubernetes.kubeconfig": {"yaml"}, **{name: {"tomli"} for name in toml}}


# Each costs 3 to 25 ms of CPU at every pull (test_startup.py sees what a run really loads).
BARRED = frozenset(
    (
        *(
            "typing",
            "dataclasses",
            "logging",
            "pathlib",
            "tempfile",
            "argparse",
            "http",
            "urllib",
            "importlib",
            "email",
        ),
        *("inspect", "subprocess", "asyncio", "random", "shutil", "traceback", "pickle", "tomllib", "uuid", "datetime"),
        *("decimal", "enum", "functools", "contextlib", "re", "base64", "collections", "threading"),
    )
)


def test_nothing_barred_is_imported_on_the_pull_path() -> None:
    """Nor in the executable's snapshot, which has every module that is not named there as one for people."""
    words = re.findall(r"^COLD \+?= (.+)$", (SOURCES.parent / "packaging/executable/load.py").read_text(), re.MULTILINE)
    cold = tuple(name.replace("/", ".") for line in words for name in ast.literal_eval(line))
    kept = {name for name in MODULES if not name.startswith(cold)}
    path = {"pull.plugin", *reached("pull.plugin")}
    assert path - {"version"} <= kept
    assert len(path) > 12
    offences = {
        f"{name} imports {i.module}"
        for name in kept
        for i in MODULES.get(name, [])
        if not i.inside and not i.typing_only and i.module in BARRED
    }
    assert offences == set()
