"""Fixtures: the built plugin, simulated nodes, the stand-in cluster, and the real programs that some tests need."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

import handingoff
import machine
import odd_registries
from containerd_hosts import Hosts
from crio_credential_provider.testbed.certificates import Authority, Identity
from crio_credential_provider.testbed.cluster import DNS_NAMES, ApiServer
from crio_credential_provider.testbed.registry import MirrorRegistry
from node import COMMAND, PROGRAM, TESTS, Node
from real_containerd import Containerd
from real_programs import cannot

ROOT = TESTS.parent

# Few examples, for `make check`.
hypothesis.settings.register_profile("check", max_examples=10)


# -- what `make check` runs --------------------------------------------------------------------------------------------

# Tests that request these run a program.
PROGRAMS = {"plugin", "make_node", "wheel", "containerd"}
STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"}
# The test that is running, where it is one of `make check`.
_unit = ""


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("process") or PROGRAMS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    global _unit
    _unit = "" if item.get_closest_marker("slow") else item.nodeid
    try:
        return (yield)
    finally:
        _unit = ""


def _refuse_processes(event: str, arguments: object) -> None:
    if _unit and event in STARTS:
        raise RuntimeError(f"{_unit} starts a process: mark it slow, or process if it runs the program")


sys.addaudithook(_refuse_processes)


# -- the program -----------------------------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    if machine.is_foreign(PROGRAM):
        try:
            stack = contextlib.ExitStack()
            stack.enter_context(machine.emulated())
            config.add_cleanup(stack.close)
        except OSError as error:
            reason = f"cannot run {PROGRAM} here: {error}"
            if os.environ.get("REQUIRE_REAL_PROGRAMS"):
                raise pytest.UsageError(reason) from error
            pytest.exit(f"skipped: {reason}", returncode=0)


# -- nodes and clusters ------------------------------------------------------------------------------------------------


def once(places: pytest.TempPathFactory, name: str, make: Callable[[], Path]) -> Path:
    """What `make` returns, made by the first of pytest-xdist's workers that needs it; the others wait."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return make()
    kept = places.getbasetemp().parent / name
    with kept.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            kept.write_text(str(make()))
    return Path(kept.read_text())


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that a kubelet would run: $PROGRAM, else what ``make build`` leaves."""

    def build() -> Path:
        done = subprocess.run(["make", "--silent", "build"], cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.fail(f"make build: {done.stdout}{done.stderr}")
        return ROOT / "build/bin/crio-credential-provider"

    return Path(PROGRAM) if PROGRAM else once(tmp_path_factory, "plugin", build)


@pytest.fixture(scope="session")
def executable() -> Path:
    """The static executable: $PROGRAM, where it is one."""
    if not machine.is_executable(PROGRAM):
        pytest.skip("PROGRAM is not an executable: make test-program tests that")
    return Path(PROGRAM)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy: others may build while this runs."""

    def build() -> Path:
        done = subprocess.run(["make", "--silent", "wheel"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (made,) = (ROOT / "dist").glob("*.whl")
        return Path(shutil.copy(made, tmp_path_factory.mktemp("wheel")))

    return once(tmp_path_factory, "wheel", build)


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The console script of the wheel in an environment that holds nothing else; no network is asked."""
    wheels = sorted((ROOT / ".venv/wheels").glob("*.whl"))
    if not wheels:
        cannot("there is no .venv/wheels with the dependencies: make build leaves it")
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode != 0:
        cannot("this Python has no pip")
    home = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--python", str(home / "bin/python")]
    # The wheel alone is named: what it requires must be found by its own metadata.
    subprocess.run([*pip, "install", "--no-index", "--find-links", ROOT / ".venv/wheels", wheel], check=True)
    return home / "bin" / "crio-credential-provider"


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


@pytest.fixture
def ready(node: Node, cluster: ApiServer) -> Node:
    """A node with a mirror for Docker Hub, whose kubelet knows the cluster."""
    node.join(cluster)
    return node


@pytest.fixture
def alpha_node(module_node: Node) -> Node:
    module_node.write_mirrors("docker.io", "mirror.corp:5000/hub")
    return module_node


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


# -- registries --------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither this machine's proxies nor its certs.d count."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HOME", "/root")


@pytest.fixture
def plain_registry() -> Iterator[MirrorRegistry]:
    """A registry with users, without TLS."""
    with MirrorRegistry({"alpha": (odd_registries.PASSWORD, ["hub"])}) as registry:
        registry.add_image(odd_registries.NGINX)
        registry.add_image("private/app")
        yield registry


@pytest.fixture
def tls_registry(authority: Authority) -> Iterator[MirrorRegistry]:
    """A registry with users and TLS."""
    identity = authority.issue("r", ip_addresses=["127.0.0.1"])
    with MirrorRegistry({"alpha": (odd_registries.PASSWORD, ["hub"])}, identity=identity) as registry:
        registry.add_image(odd_registries.NGINX)
        yield registry


@pytest.fixture
def token_registry() -> Iterator[odd_registries.TokenRegistry]:
    with odd_registries.TokenRegistry() as registry:
        yield registry


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    """A real one, for all tests of a file."""
    with Containerd(tmp_path_factory.mktemp("c")) as running:
        yield running


@pytest.fixture
def hosts(authority: Authority, tmp_path: Path) -> Iterator[Hosts]:
    """Hosts of a hosts.toml, none yet."""
    with Hosts(authority, tmp_path) as made:
        yield made


# -- the hand-off ------------------------------------------------------------------------------------------------------


@pytest.fixture
def fork() -> Iterator[handingoff.Fork]:
    children: list[handingoff.Child] = []

    def make(work: Callable[[], None]) -> handingoff.Child:
        children.append(handingoff.Child(work))
        return children[-1]

    yield make
    for child in children:
        child.kill()


@pytest.fixture
def lock_dir(tmp_path: Path) -> str:
    return str(tmp_path / "run")
