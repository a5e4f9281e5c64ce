"""Fixtures: one node for the whole run, started anew with what a test asks for.

A test takes `node`; where the node should differ from the default, it says so with `secrets_from`, `serial`, `runtime`:

    @pytest.mark.parametrize("serial", [False], ids=["parallel"])
    def test_two_pods(node: Node, tenant: Tenant) -> None:
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from realnode import binaries
from realnode.node import Node, Setup
from realnode.providers import Provider
from realnode.table import Note, Table
from realnode.tenants import Tenant

OURS = Provider("ours")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "ours: a scenario that only this program can have")
    table = os.environ.get("NODE_TABLE")
    if table:
        config.pluginmanager.register(Table(Path(table), os.environ["NODE_COMMAND"]), "table")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "provider" in metafunc.fixturenames:
        peer = os.environ.get("PEER")
        providers = [OURS]
        if peer and not metafunc.definition.get_closest_marker("ours"):
            providers.append(Provider("peer", Path(peer)))
        metafunc.parametrize("provider", providers, ids=[provider.name for provider in providers], scope="session")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those with the same kubelet one after another; all of them run programs."""
    for item in items:
        item.add_marker("slow")
    items.sort(key=lambda item: str(_setup(item)))


def _setup(item: pytest.Item) -> tuple[object, ...]:
    parameters: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    return tuple(parameters.get(name, default) for name, default in Setup(OURS)._asdict().items())


@pytest.fixture(scope="session")
def real_node(request: pytest.FixtureRequest) -> Iterator[Node]:
    scratch = os.environ.get("NODE_SCRATCH")
    if not scratch:
        pytest.skip(binaries.WHERE if not os.environ.get("NODE_BIN") else "run by make node-test, in a sandbox")
    node = Node(Path(scratch), Path(os.environ["PROGRAM"]))
    table = request.config.pluginmanager.get_plugin("table")
    if isinstance(table, Table):
        table.versions = node.versions
    try:
        node.start()
        yield node
    finally:
        node.stop()


@pytest.fixture
def secrets_from() -> str:
    return "namespace"


@pytest.fixture
def serial() -> bool:
    return True


@pytest.fixture
def runtime() -> str:
    return "crio"


@pytest.fixture
def note(record_property: Callable[[str, object], None]) -> Note:
    """Puts a figure into the table's cell."""
    return lambda text: record_property("note", text)


@pytest.fixture
def node(real_node: Node, provider: Provider, secrets_from: str, serial: bool, runtime: str) -> Iterator[Node]:
    """The node with this test's provider; afterwards its namespaces' pods and auth files are gone, so that the next one
    answers for its own alone, and no log has a secret."""
    if secrets_from not in provider.modes:
        pytest.skip(f"--secrets-from={secrets_from} is not the peer's")
    real_node.use(Setup(provider, secrets_from, serial, runtime))
    yield real_node
    real_node.delete_tenants()
    real_node.delete_auth_files()
    leaks = real_node.leaks()
    assert not leaks, ", ".join(leaks)


@pytest.fixture
def tenant(node: Node, secrets_from: str) -> Tenant:
    """A namespace with a pull secret."""
    return node.new_tenant(secrets_from)


@pytest.fixture
def image(node: Node) -> str:
    """An image that no node has yet, on the mirror alone."""
    return node.registry.new_image()
