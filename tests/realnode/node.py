"""The whole node, its control plane and its mirror."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from realnode import binaries, sandbox, units
from realnode.canary import Canary
from realnode.controlplane import ControlPlane
from realnode.journal import Journal
from realnode.kubelet import CREDENTIAL_PROVIDER_CONFIG, STATIC_PODS, Kubelet
from realnode.processes import wait_until
from realnode.providers import Program, Provider
from realnode.registry import Registry, docker_config
from realnode.runtimes import AUTH_DIR, GLOBAL_AUTH_FILE, Containerd, Crio
from realnode.sandbox import HOSTNAME
from realnode.tenants import Pod, Tenant, pod_document, pod_path, runs

# Of the kubelet's log. No scenario's own fault has either text.
_WITHOUT_TOKEN = re.compile(
    r'failed to fetch token: (?:pod \\"[^"]+\\" not found|[^=]*scheduled on a different node)" .* pod="([^"]+)"'
)


class Setup(NamedTuple):
    """What the kubelet is started with.

    Attributes:
        serial: ``serializeImagePulls``, the kubelet's default.
        runtime: ``crio`` or ``containerd``.
    """

    provider: Provider
    secrets_from: str = "namespace"
    serial: bool = True
    runtime: str = "crio"


class Node:
    """One for a run: it is on the sandbox's default paths and ports.

    Args:
        scratch: the sandbox's directory.
        program: the program under test.
    """

    def __init__(self, scratch: Path, program: Path) -> None:
        found = binaries.find()
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        units.install()
        for name in binaries.NODE_BIN:
            _link(name, found[name])
        self.scratch = scratch
        self.logs = scratch / "logs"
        self.logs.mkdir()
        self._canary = Canary()
        self._numbers = itertools.count(1)
        self._tenants: list[Tenant] = []
        password = self.new_password()
        self.versions = {name: binaries.version(found[name]) for name in ("kubelet", "crio")}
        self.program = Program(program, self.versions["kubelet"], scratch, self.logs / "program.log")
        self.control_plane = ControlPlane(found, self.logs, environment)
        self.registry = Registry(found, scratch / "registry", self.logs, environment, password)
        self.journal = Journal(found, self.logs, environment)
        self.crio = Crio(found, self.logs, environment, password)
        self.containerd = Containerd(self.registry, self.logs, environment)
        if self.containerd.program:
            self.versions["containerd"] = binaries.version(self.containerd.program)
        self.runtime: Crio | Containerd = self.crio
        self.kubelet = Kubelet(found, self.logs, environment, self.control_plane, sandbox.cgroup(scratch))
        self.setup: Setup | None = None
        self.bin_dir = Path()

    def start(self) -> None:
        """All but the kubelet, which `use` starts."""
        self.journal.start()
        self.control_plane.start()
        self.registry.start()
        self.control_plane.apply(self.program.node_rbac())

    def stop(self) -> None:
        self.kubelet.stop()
        self.runtime.process.stop()
        for part in (self.registry, self.control_plane, self.journal):
            part.stop()

    # -- the kubelet and its provider --------------------------------------------------------------------------------

    def use(self, setup: Setup) -> None:
        """Installs a provider and starts the kubelet with it, where it is not that one already."""
        if setup == self.setup and self.kubelet.process.running and self.runtime.process.running:
            return
        self.kubelet.stop()
        self.bin_dir = setup.provider.install(self.program, setup.secrets_from)
        units.mount("etc-crio-auth.mount")
        runtime = self.crio if setup.runtime == "crio" else self.containerd
        if runtime is not self.runtime:
            self.runtime.process.stop()
            self.runtime = runtime
        if not runtime.process.running:
            runtime.start()
        self.kubelet.start(runtime.socket, serializeImagePulls=setup.serial)
        self.setup = setup

    def restart_kubelet(self, **configuration: Any) -> None:
        """Otherwise than a setup does: the next `use` puts it right."""
        self.setup = None
        self.kubelet.stop()
        self.kubelet.start(self.runtime.socket, **configuration)

    def reconfigure(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Restarts the kubelet with a changed entry of the CredentialProviderConfig."""
        configuration = yaml.safe_load(CREDENTIAL_PROVIDER_CONFIG.read_text())
        change(configuration["providers"][0])
        CREDENTIAL_PROVIDER_CONFIG.write_text(yaml.safe_dump(configuration))
        self.restart_kubelet()

    @contextlib.contextmanager
    def static_pod(self, image: str) -> Iterator[Pod]:
        """A pod that the kubelet has from a file; the API server has a mirror of it."""
        name = f"static{next(self._numbers)}"
        document = pod_document(name, image)
        document["metadata"]["namespace"] = "kube-system"
        file = STATIC_PODS / f"{name}.yaml"
        file.write_text(yaml.safe_dump(document))
        try:
            yield Pod(self.control_plane, "kube-system", f"{name}-{HOSTNAME}")
        finally:
            file.unlink()

    @contextlib.contextmanager
    def global_credential(self) -> Iterator[str]:
        """The node's own credential for the mirror, in CRI-O's global auth file; yields its user."""
        user, password = f"node{next(self._numbers)}", self.new_password()
        self.registry.set_password(user, password)
        GLOBAL_AUTH_FILE.write_text(json.dumps(docker_config(user, password)))
        try:
            yield user
        finally:
            GLOBAL_AUTH_FILE.unlink()

    def auth_files(self, tenant: Tenant | None = None) -> list[str]:
        """What lies below the auth directory, CRI-O's ``in-use`` included; that of one namespace, or all."""
        start = f"{tenant.namespace}-" if tenant else ""
        files = (path for path in AUTH_DIR.rglob("*") if path.is_file() and path.name.startswith(start))
        return sorted(str(path.relative_to(AUTH_DIR)) for path in files)

    def delete_auth_files(self) -> None:
        for name in self.auth_files():
            (AUTH_DIR / name).unlink(missing_ok=True)

    def left_behind(self, seconds: float = 90) -> list[str]:
        """Auth files that are still there after some time, in which runs of the plugin remove what no pull takes,
        and ``gc --in-use`` what a crash of CRI-O has left."""
        tenant = self.new_tenant()

        def swept() -> bool:
            if any(not name.startswith("in-use/") for name in self.auth_files()):
                tenant.run("sweep", self.registry.new_image()).runs_within(30)
                tenant.delete_pods()
            else:
                self.program.run("gc", "--in-use", "--in-use-after=60s")
            return bool(wait_until(lambda: not self.auth_files(), 5))

        return [] if wait_until(swept, seconds) else self.auth_files()

    def lost_pulls(self, *pods: Pod) -> list[str]:
        """Failed pulls of these pods, but for those before which the kubelet got no token and so ran no provider.

        The API server's NodeRestriction may learn of a pod only after the kubelet has asked for the pod's token.
        """
        log = self.kubelet.process.log.read_text(errors="replace")
        without_token = set(_WITHOUT_TOKEN.findall(log))
        return [
            pull for pod in pods if f"{pod.namespace}/{pod.name}" not in without_token for pull in pod.failed_pulls()
        ]

    def findings(self) -> list[str]:
        """Codes of what `doctor` says of this node."""
        report = json.loads(self.program.run("doctor", "--output=json", statuses=(0, 3)))
        return [finding["code"] for finding in report["findings"]]

    # -- tenants -----------------------------------------------------------------------------------------------------

    def new_tenant(self, secrets_from: str = "namespace", *, with_secret: bool = True, granted: bool = True) -> Tenant:
        """A namespace of its own, with what `manifests` grants it."""
        name = f"team{next(self._numbers)}"
        tenant = Tenant(self.control_plane, name, name if with_secret else None)
        if with_secret:
            password = self.new_password()
            self.registry.set_password(name, password)
            tenant.set_secret(password)
        if granted:
            self.control_plane.apply(self.program.grant(name, secrets_from))
        self._tenants.append(tenant)
        return tenant

    def running_pods(self) -> set[str]:
        """Paths of all pods whose containers run."""
        items = self.control_plane.get("/api/v1/pods")["items"]
        return {pod_path(item["metadata"]["namespace"], item["metadata"]["name"]) for item in items if runs(item)}

    def delete_tenants(self) -> None:
        """Their pods, that is: a namespace without pods costs nothing."""
        while self._tenants:
            self._tenants.pop().delete_pods()

    def new_password(self) -> str:
        """One that no log may have."""
        return self._canary.new_password()

    def leaks(self) -> list[str]:
        """Logs in which a password or a token stands, in what was written since the last call."""
        (self.logs / "journal.log").write_text(self.journal.text("export"))
        return self._canary.search(self.logs)


def _link(name: str, target: str) -> None:
    """As a package would have put it there; /usr/bin is the sandbox's."""
    place = Path("/usr/bin", name)
    if str(place) != target:
        place.unlink(missing_ok=True)
        place.symlink_to(target)
