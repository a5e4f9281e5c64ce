"""The same stage with a real containerd, which pulls, and with a stand-in for the registry that the mirror mirrors.

    with ContainerdStage(root, ["/path/to/crio-credential-provider"]) as stage:
        team = stage.add_team("team-alpha", "web", secret_for=stage.mirror.host)
        fetched = stage.fetch(stage.ask(team))

containerd runs in the node's directory, with its own configuration, socket and files, and ends with this process. It is
told to pull by ``ctr``, which comes with it, not by its CRI socket: ``ctr --hosts-dir --user`` has the same code find
the hosts and send the credential, in the client.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import NamedTuple

from ..errors import ProviderError
from ..images.dockerconfig import Credential
from ..testbed.certificates import Authority
from ..testbed.node import Run
from ..testbed.registry import MirrorRegistry, Pulled
from .stage import IMAGE, Stage

CONFIG = "/etc/containerd/config.toml"
CERTS = "/etc/containerd/certs.d"
HOSTS = f"{CERTS}/docker.io/hosts.toml"
STRICT, OPEN = "strict", "open"
"""Whether hosts.toml names the mirror as the server too, so that containerd asks nobody else, or the registry."""

_SOCKET = "/run/containerd.sock"
_PROGRAMS = ("containerd", "ctr")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PATIENCE = 30.0
"""Seconds for containerd to start, and for one pull."""

_CONFIG = """\
version = 2
root = "{root}/var/lib/containerd"
state = "{root}/run/containerd"
# What would listen elsewhere, or write outside of this directory.
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri",
]
[grpc]
  address = "{root}{socket}"
[ttrpc]
  address = "{root}{socket}.ttrpc"
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "{certs}"
"""
_HOSTS = """\
server = "{server}"
{override}ca = "ca.crt"

[host."{mirror}/v2/hub"]
capabilities = ["pull", "resolve"]
override_path = true
ca = "ca.crt"
"""


class NoContainerd(ProviderError):
    """This machine cannot run it, and why."""

    fault = "demo"


class Fetched(NamedTuple):
    """One pull.

    Attributes:
        digest: of the manifest; "" where the pull failed.
        error: why, as ctr says it.
        mirror, upstream: what each was asked for meanwhile.
    """

    digest: str
    error: str
    mirror: list[Pulled]
    upstream: list[Pulled]


class ContainerdStage(Stage):
    """As ``Stage``.

    Raises:
        NoContainerd: it is not installed, this process is not root's, or it does not start.
    """

    RUNTIME = ("--runtime", "containerd")

    def __init__(self, root: str, plugin: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        found = {name: shutil.which(name, path=_PATH) for name in _PROGRAMS}
        if missing := [name for name, path in found.items() if path is None]:
            raise NoContainerd(f"not installed: {' and '.join(missing)}; install containerd, whose package has both")
        if os.geteuid() != 0:
            raise NoContainerd("containerd runs as root only; run this as root")
        self._programs = {name: str(path) for name, path in found.items()}
        self._process: subprocess.Popen[bytes] | None = None
        super().__init__(root, plugin, environment)

    def _write_node(self, authority: Authority) -> None:
        super()._write_node(authority)
        self.upstream = MirrorRegistry({}, identity=authority.issue("upstream", ip_addresses=["127.0.0.1"]))
        self._write(CONFIG, _CONFIG.format(root=self.root, socket=_SOCKET, certs=CERTS))
        self._write(f"{os.path.dirname(HOSTS)}/ca.crt", authority.certificate_pem)
        self.set_hosts(STRICT)

    def set_hosts(self, which: str) -> None:
        """Writes hosts.toml anew; containerd reads it at each pull."""
        server, override = self.upstream.url, ""
        if which == STRICT:
            server, override = f"{self.mirror.url}/v2/hub", "override_path = true\n"
        self._write(HOSTS, _HOSTS.format(server=server, override=override, mirror=self.mirror.url))

    def __enter__(self) -> ContainerdStage:
        with contextlib.ExitStack() as started:
            super().__enter__()
            started.callback(super().__exit__, None, None, None)
            started.enter_context(self.upstream)
            started.callback(self._stop)
            self._start()
            self._ends = started.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ends.close()

    # -- containerd ----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        command = [self._programs["containerd"], "--config", self.root + CONFIG, "--log-level", "error"]
        if setpriv := shutil.which("setpriv", path=_PATH):
            # It ends even if this process is killed.
            command = [setpriv, "--pdeathsig", "KILL", *command]
        log = self.root + "/containerd.log"
        with open(log, "wb") as file:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env={"PATH": _PATH}, cwd=self.root
            )
        limit = time.monotonic() + _PATIENCE
        while self._ctr("version").returncode != 0:
            if self._process.poll() is not None or time.monotonic() > limit:
                with open(log, encoding="utf-8", errors="replace") as text:
                    last = text.read().strip().splitlines()[-1:]
                raise NoContainerd(f"containerd does not start here: {self.shown(' '.join(last)) or 'it says nothing'}")
            time.sleep(0.05)

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ctr(self, *words: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [self._programs["ctr"], "--address", self.root + _SOCKET, *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                env={"PATH": _PATH},
                timeout=_PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            raise OSError(f"ctr {words[0]} did not end within {_PATIENCE:.0f} s") from late

    @property
    def version(self) -> str:
        """What containerd says of itself."""
        return self._ctr("version").stdout.partition("Server:")[2].split()[1]

    # -- a pull --------------------------------------------------------------------------------------------------------

    def fetch(self, run: Run | None = None) -> Fetched:
        """The kubelet's part after the plugin, and containerd's: a pull with each credential of the answer, the most
        specific key first, until one works; without any, one pull without."""
        before = len(self.mirror.log), len(self.upstream.log)
        auth = run.response.auth if run and run.response else {}
        digest = error = ""
        credentials: list[Credential | None] = [auth[key] for key in sorted(auth, reverse=True)]
        for credential in credentials or [None]:
            user = ["--user", f"{credential.username.decode()}:{credential.password.decode()}"] if credential else []
            done = self._ctr("content", "fetch", "--hosts-dir", self.root + CERTS, *user, _normal(IMAGE))
            listed = self._ctr("images", "ls").stdout.split()
            digest = next((word for word in listed if word.startswith("sha256:")), "")
            error = "" if digest else self.shown(done.stderr.strip().rpartition("\n")[2])
            # The next pull is to ask the registries again.
            self._ctr("images", "rm", "--sync", _normal(IMAGE))
            if digest:
                break
        return Fetched(digest, error, self.mirror.log[before[0] :], self.upstream.log[before[1] :])

    def _leaks(self, run: Run, journal: str) -> str:
        # The answer is where the credential belongs.
        return "\n".join((run.stderr, journal))


def _normal(image: str) -> str:
    """As the kubelet hands it over: ctr completes no names."""
    return image.replace("docker.io/", "docker.io/library/", 1)
