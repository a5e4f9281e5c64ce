"""What the demo plays on: one node below one directory, an API server, a private mirror, all on 127.0.0.1.

    with Stage(root, ["/path/to/crio-credential-provider"]) as stage:
        team = stage.add_team("team-alpha", "web")
        run = stage.ask(team)                       # the kubelet's part: the plugin runs as a process
        pull = stage.pull(team)                     # CRI-O's part

It makes every password itself, remembers them and all tokens, and `shown` takes them out of any text that is to be
shown. What is worth telling, and whether it is true, is the affair of `story`.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import NamedTuple

from ..testbed.certificates import Authority
from ..testbed.cluster import ApiServer
from ..testbed.crio import AUTH_DIR, CERTIFICATE_DIRS, IN_USE, ContainerRuntime, Pull
from ..testbed.journald import JournalSocket
from ..testbed.node import Kubelet, Run, own_environment
from ..testbed.registry import MirrorRegistry

NODE = "node1"
IMAGE = "docker.io/nginx:1.27"
"""As the pods of the demo name it."""
MIRRORED = "hub/library/nginx"
"""Where the mirror keeps the same repository."""
REGISTRIES_CONF = "/etc/containers/registries.conf"
KUBECONFIG = "/etc/kubernetes/kubelet.conf"
JOURNAL_SOCKET = "/run/systemd/journal/socket"

# Docker Hub itself stays out of it: CRI-O refuses a blocked source, so that nothing leaves 127.0.0.1.
_REGISTRIES_CONF = """\
[[registry]]
location = "docker.io"
blocked = true                          # never ask Docker Hub itself

[[registry.mirror]]
location = "{mirror}/hub"
"""
_KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters:
- name: demo
  cluster:
    server: {url}
    certificate-authority-data: {authority}
contexts:
- name: node
  context:
    cluster: demo
    user: {node}
current-context: node
"""


class Team(NamedTuple):
    """A namespace with one pod; `user` is its name at the mirror, `secret` that of its pull secret."""

    namespace: str
    pod: str
    user: str
    secret: str


class Asked(NamedTuple):
    """One run of the plugin, what it sent to the journal meanwhile, and whether any secret showed in either."""

    run: Run
    journal: list[dict[str, str]]
    leaked: bool


class Stage:
    """Everything that runs while the ``with`` block does; `root` must exist, and its files are left there.

    Args:
        root: directory that serves as the node's ``/``.
        plugin: the command to run, without its arguments.
        environment: further variables for the plugin.
    """

    RUNTIME: tuple[str, ...] = ()
    """The plugin's arguments for it."""

    def __init__(self, root: str, plugin: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.root = root
        self.arguments = ["--root", root, *self.RUNTIME]
        self.users: dict[str, tuple[str, Sequence[str]]] = {}
        self.digest = ""
        self._hidden: set[str] = set()
        self._open = contextlib.ExitStack()
        authority = Authority.make("mirror")
        self.cluster = ApiServer()
        self.mirror = MirrorRegistry(self.users, identity=authority.issue("mirror", ip_addresses=["127.0.0.1"]))
        self._command = [*plugin, *self.arguments]
        self._environment = {**own_environment(), **dict(environment or {})}
        self.mirrored = f"{self.mirror.host}/{MIRRORED}"
        self._write_node(authority)
        self.runtime = ContainerRuntime(root)
        self._journal = JournalSocket(root + JOURNAL_SOCKET)

    def _write_node(self, authority: Authority) -> None:
        pem = base64.b64encode(self.cluster.authority.certificate_pem.encode()).decode()
        self._write(REGISTRIES_CONF, _REGISTRIES_CONF.format(mirror=self.mirror.host))
        self._write(KUBECONFIG, _KUBECONFIG.format(url=self.cluster.url, authority=pem, node=f"system:node:{NODE}"))
        self._write(f"{CERTIFICATE_DIRS[0]}/{self.mirror.host}/ca.crt", authority.certificate_pem)
        os.makedirs(os.path.dirname(self.root + JOURNAL_SOCKET))

    def _write(self, path: str, text: str) -> None:
        os.makedirs(os.path.dirname(self.root + path), exist_ok=True)
        with open(self.root + path, "w", encoding="utf-8") as file:
            file.write(text)

    def __enter__(self) -> Stage:
        with contextlib.ExitStack() as started:
            for part in (self._journal, self.cluster, self.mirror):
                started.enter_context(part)
            self.digest = self.mirror.add_image(MIRRORED, "1.27")
            self._open = started.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, traceback)

    # -- the cluster ---------------------------------------------------------------------------------------------------

    def add_team(self, namespace: str, pod: str, *, secret_for: str | None = None, role: bool = True) -> Team:
        """A namespace and a pod; with `secret_for` (a key of ``auths``) also a pull secret and a user of the mirror."""
        team = Team(namespace, pod, namespace.removeprefix("team-"), "mirror-credentials")
        self.cluster.add_pod(namespace, pod, NODE, image=IMAGE)
        if secret_for is not None:
            self.set_password(team, secret_for)
        if role:
            self.cluster.allow(namespace, "default")
        return team

    def set_password(self, team: Team, key: str) -> None:
        """A new password, in the mirror and in the team's secret, whether there was one before or not."""
        password = secrets.token_urlsafe(18)
        self.users[team.user] = (password, ["hub"])
        auth = base64.b64encode(f"{team.user}:{password}".encode()).decode()
        self._hidden |= {password, auth}
        self.cluster.add_secret(team.namespace, team.secret, {"auths": {key: {"auth": auth}}})

    def auth_of(self, team: Team) -> str:
        """What the ``auth`` of an entry must be for the mirror to take it now."""
        return base64.b64encode(f"{team.user}:{self.users[team.user][0]}".encode()).decode()

    # -- the node ------------------------------------------------------------------------------------------------------

    def ask(self, team: Team, *further: str) -> Asked:
        """The kubelet's part before a pull. ValueError for an invalid entry of the journal.

        Args:
            further: arguments of the plugin.
        """
        kubelet = Kubelet([*self._command, *further], self.cluster, self._environment)
        run = kubelet.ask(team.namespace, team.pod)
        token = json.loads(run.request)["serviceAccountToken"]
        self._hidden |= {token, *token.split(".")}
        entries = self._journal.read()
        written = self._leaks(run, json.dumps(entries))
        return Asked(run, entries, any(text in written for text in self._hidden))

    def _leaks(self, run: Run, journal: str) -> str:
        """All that must not hold a secret."""
        return "\n".join((run.stdout.decode(errors="replace"), run.stderr, journal))

    def pull(self, team: Team, asked: Asked | None = None) -> Pull:
        """CRI-O's part, with what the plugin answered to the kubelet, if anything."""
        response = asked.run.response if asked else None
        handed = next(iter(response.auth.values()), None) if response else None
        return self.runtime.pull(IMAGE, team.namespace, handed)

    def auth_file(self, team: Team) -> str:
        """The path where CRI-O will look for the team's file."""
        return self.runtime.auth_file(IMAGE, team.namespace)

    def auth_files(self) -> list[str]:
        """Names of the auth files that wait to be taken or are in use."""
        found = []
        for directory in ("", IN_USE + "/"):
            with contextlib.suppress(FileNotFoundError):
                names = os.listdir(os.path.join(self.root + AUTH_DIR, directory))
                found += [directory + name for name in names if name.endswith(".json")]
        return sorted(found)

    def shown(self, text: str) -> str:
        """The text as a person may see it: no password, no token, and paths as on a node."""
        for hidden in sorted(self._hidden, key=len, reverse=True):
            text = text.replace(hidden, "***")
        return text.replace(self.root, "")
