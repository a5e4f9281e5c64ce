"""`install`, its way back and `uninstall` with services that restart: on a bare node, or one with the Go provider."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from realnode.kubelet import CREDENTIAL_PROVIDER_CONFIG, ROOT, is_healthy
from realnode.node import Node
from realnode.processes import wait_until
from realnode.providers import NAME, peer_configuration
from realnode.registry import HOST, docker_config
from realnode.runtimes import AUTH_DIR, GLOBAL_AUTH_FILE
from realnode.sandbox import HOSTNAME
from realnode.systemd import KUBELET, Systemd
from realnode.table import Note
from realnode.tenants import Tenant

pytestmark = pytest.mark.ours

EXTRA = Path("/etc/default/kubelet")
STORE = Path("/var/lib/crio-credential-provider")
MOUNT = "start etc-crio-auth.mount"
RESTART = f"restart {KUBELET}"


class Bare:
    """A node without the plugin, with a systemd."""

    def __init__(self, node: Node, systemd: Systemd) -> None:
        self.node = node
        self.systemd = systemd
        self.before = snapshot()

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.node.program.path, *arguments],
            env=self.systemd.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, status: int = 0) -> str:
        """What the program says, reasons included."""
        process = self.begin(*arguments)
        said = "".join(process.communicate(timeout=300))
        with (self.node.logs / "install.log").open("a") as log:
            log.write(f"$ {' '.join(arguments)}\n{said}exit status {process.returncode}\n")
        assert process.returncode == status, f"{' '.join(arguments)}: exit status {process.returncode}: {said}"
        return said

    def changed(self) -> list[str]:
        """Paths that are not as they were before."""
        now = snapshot()
        return sorted(path for path in {*now, *self.before} if now.get(path) != self.before.get(path))

    def is_ready(self) -> bool:
        found = self.node.control_plane.find(f"/api/v1/nodes/{HOSTNAME}")
        states = {one["type"]: one["status"] for one in found["status"]["conditions"]} if found else {}
        return is_healthy() and states.get("Ready") == "True"

    def uninstall(self) -> None:
        self.run("uninstall", "--apply")
        assert self.changed() == []
        assert self.is_ready(), "not healthy without it"


def snapshot() -> dict[str, tuple[int, int, int, str]]:
    """Mode, owner and content of all that an installation may change, and the kubelet's own files."""
    found = {}
    # cpu_manager_state and others are the kubelet's own.
    its = (path for path in ROOT.iterdir() if not path.name.endswith("_state"))
    for path in (*Path("/etc").rglob("*"), *Path("/usr/libexec").rglob("*"), *its):
        status = path.lstat()
        content = ""
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file() and path.parent != Path("/etc/ssl/certs"):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path)] = (status.st_mode, status.st_uid, status.st_gid, content)
    return found


@pytest.fixture
def bare(node: Node) -> Iterator[Bare]:
    node.setup = None
    node.kubelet.stop()
    extra = EXTRA.read_text()
    laid = node.scratch / "manifests/node"
    for file in [path for path in laid.rglob("*") if not path.is_dir()]:
        Path("/", file.relative_to(laid)).unlink()
    shutil.rmtree(node.bin_dir)
    subprocess.run(["umount", AUTH_DIR], check=True)
    AUTH_DIR.rmdir()
    # CRI-O makes it at its start.
    node.crio.process.stop()
    node.crio.start()
    node.kubelet.start(node.crio.socket)
    with Systemd(node) as systemd:
        there = Bare(node, systemd)
        assert wait_until(there.is_ready, 30), "not Ready before"
        yield there
        # What a test that failed has left.
        there.begin("uninstall", "--apply").communicate()
    EXTRA.write_text(extra)
    shutil.rmtree(STORE, ignore_errors=True)
    if not is_healthy():
        node.kubelet.stop()


def test_install_and_uninstall(bare: Bare, tenant: Tenant, image: str, note: Note) -> None:
    plan = bare.run("install")
    assert str(CREDENTIAL_PROVIDER_CONFIG) in plan and bare.changed() == []
    begun = time.monotonic()
    bare.run("install", "--apply")
    note(f"{time.monotonic() - begun:.0f} s")
    assert bare.is_ready()
    assert bare.systemd.asked[-1] == RESTART and AUTH_DIR.is_mount()
    assert tenant.run("web", image).runs_within(30)
    asked = len(bare.systemd.asked)
    assert "nothing to do" in bare.run("install", "--apply")
    assert bare.systemd.asked[asked:] == []
    bare.uninstall()


def test_install_with_an_auth_directory_of_its_own(bare: Bare, tenant: Tenant, image: str) -> None:
    """CRI-O is told of it, and restarted."""
    bare.run("install", "--apply", "--auth-dir=/run/auth-of-pulls")
    assert "restart crio" in bare.systemd.asked
    assert tenant.run("web", image).runs_within(30)
    assert not AUTH_DIR.is_mount()
    bare.uninstall()
    assert "restart crio" in bare.systemd.asked[bare.systemd.asked.index(RESTART) :]


def test_rollback(bare: Bare, tenant: Tenant, image: str) -> None:
    bare.run("install", "--apply")
    bare.run("rollback", "--apply")
    assert bare.changed() == []
    assert bare.is_ready()
    assert "authentication required" in tenant.run("web", image).fails_within(30)


# -- with which the kubelet does not start -----------------------------------------------------------------------------


def test_install_whose_program_is_lost(bare: Bare, tenant: Tenant, image: str, note: Note) -> None:
    """At the moment at which the kubelet is restarted: it refuses to start, again and again."""
    bare.systemd.before[RESTART] = (bare.node.bin_dir / NAME).unlink
    begun = time.monotonic()
    said = bare.run("install", "--apply", status=1)
    note(f"put back after {time.monotonic() - begun:.0f} s")
    assert "failed and everything was put back: the kubelet is not healthy" in said
    assert "did not exist" in said.split("everything was put back")[1], "not the kubelet's own words"
    assert bare.changed() == []
    assert wait_until(bare.is_ready, 30)
    bare.run("install", "--apply")
    assert tenant.run("web", image).runs_within(30)
    bare.uninstall()


def test_install_beside_a_flag_that_the_kubelet_does_not_know(bare: Bare) -> None:
    """It was there before, and no kubelet was started with it yet: the way back cannot make it start either."""
    text = EXTRA.read_text()
    EXTRA.write_text(text.replace("--v=4", "--v=4 --no-such-flag=1"))
    there = snapshot()
    said = bare.run("install", "--apply", "--timeout=5s", status=1)
    assert snapshot() == there
    assert "unknown flag: --no-such-flag" in said
    assert "the files are back, but the kubelet is not healthy" in said or "nothing was changed" in said
    EXTRA.write_text(text)
    assert wait_until(bare.is_ready, 30), "not Ready once the flag was gone"
    bare.run("install", "--apply")
    bare.uninstall()


def test_install_beside_a_provider_that_the_kubelet_refuses(bare: Bare) -> None:
    """Of somebody else, in a file that no kubelet has read yet, and without its program."""
    other = {
        "name": "other",
        "matchImages": ["*.example.com"],
        "defaultCacheDuration": "1h",
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
    }
    CREDENTIAL_PROVIDER_CONFIG.write_text(
        yaml.safe_dump(
            {"apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig", "providers": [other]}
        )
    )
    there = snapshot()
    said = bare.run("install", "--apply", status=1)
    CREDENTIAL_PROVIDER_CONFIG.unlink()
    assert snapshot() != there and bare.changed() == []
    assert "other" in said.split("check:")[-1]
    assert bare.is_ready()


# -- killed ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [MOUNT, RESTART, "show"], ids=["the files are written", "the kubelet restarts", "it waits"]
)
def test_install_killed_when(bare: Bare, tenant: Tenant, image: str, command: str) -> None:
    """By SIGKILL; systemd goes on with what it was told."""
    processes: list[subprocess.Popen[str]] = []

    def kill() -> None:
        processes[0].kill()
        processes[0].wait()

    bare.systemd.before[command] = kill
    processes.append(bare.begin("install", "--apply"))
    processes[0].communicate(timeout=60)
    assert processes[0].returncode == -signal.SIGKILL
    assert bare.changed(), "killed too early"
    # The machine may be booted then.
    bare.systemd.command("restart", KUBELET)
    assert wait_until(bare.is_ready, 30), "the kubelet does not start on what was left"
    assert "interrupted" in bare.run("status", status=3)
    said = bare.run("install", "--apply")
    assert "the last install was interrupted; it is undone first" in said
    assert bare.is_ready()
    assert tenant.run("web", image).runs_within(30)
    bare.uninstall()


# -- cri-o's Go provider -----------------------------------------------------------------------------------------------


@pytest.fixture
def with_peer(bare: Bare) -> Iterator[Bare]:
    """As a person sets it up: a binary, a configuration, two flags; auth files on the disk."""
    peer = os.environ.get("PEER")
    if not peer:
        pytest.skip("PEER=FILE names cri-o's Go provider")
    program, extra = bare.node.bin_dir / NAME, EXTRA.read_text()
    program.parent.mkdir(parents=True)
    shutil.copy(peer, program)
    program.chmod(0o755)
    CREDENTIAL_PROVIDER_CONFIG.write_text(f"# By hand.\n{yaml.safe_dump(peer_configuration(), sort_keys=False)}")
    flags = f"--image-credential-provider-config={CREDENTIAL_PROVIDER_CONFIG} --image-credential-provider-bin-dir"
    EXTRA.write_text(extra.replace("--v=4", f"--v=4 {flags}={program.parent}"))
    bare.systemd.command("restart", KUBELET)
    assert wait_until(bare.is_ready, 30), "not Ready with the Go provider"
    bare.before = snapshot()
    yield bare
    bare.begin("uninstall", "--apply").communicate()
    CREDENTIAL_PROVIDER_CONFIG.unlink()
    shutil.rmtree(program.parent)
    EXTRA.write_text(extra)
    # With CRI-O's own directory in it.
    shutil.rmtree(AUTH_DIR, ignore_errors=True)


def changed_but_auth_files(bare: Bare) -> list[str]:
    return [path for path in bare.changed() if not path.startswith(f"{AUTH_DIR}/")]


def pulls_with(bare: Bare, tenant: Tenant, name: str, *, ours: bool) -> None:
    """A pod pulls with the tenant's credential, by the one provider or the other: ours leaves a pull record."""
    image = bare.node.registry.new_image()
    pod = tenant.run(name, image)
    assert pod.runs_within(30), f"not running: {pod.events()}"
    assert bare.node.registry.users(image) == {tenant.user}
    records = [json.loads(file.read_text()) for file in (ROOT / "image_manager/pulled").glob("sha256-*")]
    accounts = [
        account["namespace"]
        for record in records
        for reference, mapping in record.get("credentialMapping", {}).items()
        if reference == image
        for account in mapping.get("kubernetesServiceAccounts", [])
    ]
    assert (tenant.namespace in accounts) == ours, records


def test_swap(with_peer: Bare, tenant: Tenant, note: Note) -> None:
    """The Go provider's pods pull, then ours, and after uninstall the Go provider's again."""
    bare, program = with_peer, with_peer.node.bin_dir / NAME
    was = program.read_bytes()
    pulls_with(bare, tenant, "go", ours=False)
    left = AUTH_DIR / f"{tenant.namespace}-{'a' * 64}.json"
    left.write_text("{}")
    plan = bare.run("install")
    assert f"{program}: replaces cri-o's Go provider, version " in plan
    assert "defaultCacheDuration: changed from 1s to 0s" in plan and "(1): they are removed before" in plan
    assert changed_but_auth_files(bare) == []
    begun = time.monotonic()
    bare.run("install", "--apply")
    note(f"{time.monotonic() - begun:.0f} s")
    assert bare.is_ready() and AUTH_DIR.is_mount()
    assert CREDENTIAL_PROVIDER_CONFIG.read_text().startswith("# By hand.\n")
    pulls_with(bare, tenant, "ours", ours=True)
    assert "nothing to do" in bare.run("install", "--apply")
    bare.run("uninstall", "--apply")
    assert changed_but_auth_files(bare) == [] and program.read_bytes() == was and not left.exists()
    assert bare.is_ready()
    pulls_with(bare, tenant, "again", ours=False)


def test_swap_with_which_the_kubelet_does_not_come_up(with_peer: Bare, tenant: Tenant, note: Note) -> None:
    """The Go provider is back, and pods pull with it."""
    bare, text = with_peer, EXTRA.read_text()

    def spoil() -> None:
        EXTRA.write_text(text.replace("--v=4", "--v=4 --no-such-flag=1"))
        bare.systemd.before[RESTART] = lambda: EXTRA.write_text(text)

    bare.systemd.before[RESTART] = spoil
    begun = time.monotonic()
    said = bare.run("install", "--apply", status=1)
    note(f"put back after {time.monotonic() - begun:.0f} s")
    assert "install failed and everything was put back: the kubelet is not healthy" in said
    assert "unknown flag: --no-such-flag" in said
    assert changed_but_auth_files(bare) == []
    assert wait_until(bare.is_ready, 30)
    pulls_with(bare, tenant, "go", ours=False)
    bare.run("install", "--apply")
    pulls_with(bare, tenant, "ours", ours=True)


@pytest.mark.parametrize("command", [MOUNT, RESTART], ids=["the files are written", "the kubelet restarts"])
def test_swap_killed_when(with_peer: Bare, tenant: Tenant, command: str) -> None:
    """The kubelet starts on what was left; rollback gives the Go provider back."""
    bare = with_peer
    processes: list[subprocess.Popen[str]] = []

    def kill() -> None:
        processes[0].kill()
        processes[0].wait()

    bare.systemd.before[command] = kill
    processes.append(bare.begin("install", "--apply"))
    processes[0].communicate(timeout=60)
    assert changed_but_auth_files(bare), "killed too early"
    bare.systemd.command("restart", KUBELET)
    assert wait_until(bare.is_ready, 30), "the kubelet does not start on what was left"
    assert "the last install was interrupted; it is undone first" in bare.run("uninstall", "--apply")
    assert changed_but_auth_files(bare) == [] and bare.is_ready()
    pulls_with(bare, tenant, "go", ours=False)


# -- from one password for the whole node ------------------------------------------------------------------------------


class Users:
    """Who pulls on a node with credentials of its own: two teams, and a static pod."""

    def __init__(self, bare: Bare) -> None:
        self._node = bare.node
        self._passwords = {user: bare.node.new_password() for user in ("node", "platform")}
        for user, password in self._passwords.items():
            bare.node.registry.set_password(user, password)
        self.alpha, self.beta = bare.node.new_tenant(), bare.node.new_tenant()
        for team in (self.alpha, self.beta):
            team.delete_secret()
        self._static = bare.node.registry.new_image()
        self._steps = 0

    @property
    def static_key(self) -> str:
        return f"{HOST}/{self._static.removeprefix('docker.io/')}"

    def hold(self, **users: str) -> None:
        """The node's own file, for these users of these keys; by a rename."""
        made = [docker_config(user, self._passwords[user], key)["auths"] for user, key in users.items()]
        auths = {key: entry for one in made for key, entry in one.items()}
        fresh = GLOBAL_AUTH_FILE.with_suffix(".new")
        fresh.write_text(json.dumps({"auths": auths}))
        fresh.rename(GLOBAL_AUTH_FILE)

    def give_secret(self, team: Tenant) -> None:
        assert team.user
        password = self._node.new_password()
        self._node.registry.set_password(team.user, password)
        team.set_secret(password)

    def assert_pull_as(self, alpha: str | None, beta: str | None, static: str) -> None:
        """No pull fails, and each is one of this user's."""
        self._steps += 1
        for team, user in ((self.alpha, alpha), (self.beta, beta)):
            image = self._node.registry.new_image()
            pod = team.run(f"step{self._steps}", image)
            assert pod.runs_within(30) and not self._node.lost_pulls(pod), f"step {self._steps}: {pod.events()}"
            assert self._node.registry.users(image) == {user}, f"step {self._steps}"
        with self._node.static_pod(self._static) as pod:
            assert pod.runs_within(60) and not self._node.lost_pulls(pod), f"step {self._steps}: {pod.events()}"
        assert static in self._node.registry.users(self._static)


def test_migration(bare: Bare) -> None:
    """docs/how-to/migrate.md: at each step the pulls of two teams and of a static pod hold."""
    users = Users(bare)
    alpha, beta = users.alpha, users.beta
    try:
        users.hold(node=HOST)
        users.assert_pull_as("node", "node", "node")
        assert f"{GLOBAL_AUTH_FILE} has credentials for {HOST}" in bare.run("install", "--apply")
        users.assert_pull_as("node", "node", "node")
        users.hold(node=HOST, platform=users.static_key)
        users.assert_pull_as("node", "node", "platform")
        users.give_secret(alpha)
        users.assert_pull_as(alpha.user, "node", "platform")
        users.give_secret(beta)
        users.assert_pull_as(alpha.user, beta.user, "platform")
        users.hold(platform=users.static_key)
        users.assert_pull_as(alpha.user, beta.user, "platform")
    finally:
        GLOBAL_AUTH_FILE.unlink()
