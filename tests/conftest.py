"""Fixtures: the built plugin, simulated nodes, the stand-in cluster, and the real programs that some tests need."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crio_credential_provider.testbed.certificates import Authority, Identity
from crio_credential_provider.testbed.cluster import DNS_NAMES, ApiServer
from node import COMMAND, PROGRAM, TESTS, Node

ROOT = TESTS.parent


@pytest.fixture(scope="session")
def plugin() -> Path:
    """The program that a kubelet would run: $PROGRAM, else what ``make build`` leaves."""
    if PROGRAM:
        return Path(PROGRAM)
    done = subprocess.run(["make", "--silent", "build"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(f"make build: {done.stdout}{done.stderr}")
    return ROOT / "build/bin/crio-credential-provider"


NodeMaker = Callable[..., Node]


@pytest.fixture
def make_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeMaker]:
    """Nodes on demand: ``make_node(command)``."""
    made: list[Node] = []

    def make(*command: str, journald: bool = True) -> Node:
        # A short path: it holds a socket.
        made.append(Node(tmp_path_factory.mktemp("n"), command, journald=journald))
        return made[-1]

    yield make
    for node in made:
        node.__exit__(None, None, None)


@pytest.fixture
def node(make_node: NodeMaker, plugin: Path) -> Node:
    """A node whose kubelet runs the built launcher."""
    return make_node(str(plugin))


@pytest.fixture
def module_node(make_node: NodeMaker) -> Node:
    """A node that runs the package from the source tree, where coverage can measure it."""
    return make_node(*COMMAND)


@pytest.fixture(scope="session")
def authority() -> Authority:
    """The cluster's CA, made once: each costs some 20 ms."""
    return Authority.make("kubernetes")


@pytest.fixture(scope="session")
def identity(authority: Authority) -> Identity:
    """The API server's certificate."""
    return authority.issue("kube-apiserver", dns_names=DNS_NAMES, ip_addresses=["127.0.0.1", "::1"])


@pytest.fixture
def cluster(authority: Authority, identity: Identity) -> Iterator[ApiServer]:
    """A stand-in API server, empty."""
    with ApiServer(authority, identity=identity) as server:
        yield server


@pytest.fixture
def alpha(cluster: ApiServer) -> str:
    """Token of pod ``web`` of ``team-alpha``, whose one secret has a credential for mirror.corp:5000."""
    cluster.add_secret("team-alpha", "mirror-creds", {"auths": {"mirror.corp:5000": {"auth": "YWxwaGE6YWxwaGFwdw=="}}})
    cluster.add_service_account("team-alpha", "default", ["mirror-creds"])
    cluster.add_pod("team-alpha", "web", "node1")
    cluster.allow("team-alpha", "default")
    return cluster.mint_token("team-alpha", "default", "web")
