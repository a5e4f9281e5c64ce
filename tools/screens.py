#!/usr/bin/env python3
"""Puts the screens of commands into the docs, by running the commands against simulated nodes.

    python3 tools/screens.py README.md docs/*/*.md             rewrites each screen
    python3 tools/screens.py --check README.md docs/*/*.md     says which are stale; exit status 1 if any is

A screen stands in a document between ``<!-- screen NAME -->`` and ``<!-- end of screen -->``; NAME is one of SCREENS.
The node's root directory and the API server's port are shown as they would be on a node. Lines break as they do where
standard output is no terminal, with the root directory counted in: its length never changes.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from crio_credential_provider.testbed.certificates import Authority
from crio_credential_provider.testbed.cluster import ApiServer
from crio_credential_provider.testbed.registry import MirrorRegistry

SOURCES = Path(__file__).resolve().parent.parent / "src"
_SCREEN = re.compile(r"(<!-- screen (\S+) -->\n).*?(<!-- end of screen -->\n)", re.DOTALL)
_PROGRAM = "crio-credential-provider"


class Screen(NamedTuple):
    """A command and the node that it runs on; with the exit status that it must have.

    ``{root}`` in an argument is the node's root directory; with ``adds_root`` ``--root`` comes last and is not shown.
    From the line on that begins with ``until`` nothing is shown but that it goes on.
    """

    node: Callable[[], contextlib.AbstractContextManager[Node]]
    arguments: tuple[str, ...]
    status: int
    adds_root: bool = True
    until: str = ""


class Node(NamedTuple):
    """A root directory, and what is replaced in what a command writes."""

    root: Path
    shown: dict[str, str]


# -- nodes ------------------------------------------------------------------------------------------------------------

_REGISTRIES_CONF = """\
unqualified-search-registries = ["docker.io"]

[[registry]]
prefix = "docker.io"
location = "docker.io"

[[registry.mirror]]
location = "mirror.corp:5000/hub"

[[registry.mirror]]
location = "digests.corp/hub"
pull-from-mirror = "digest-only"

[[registry]]
prefix = "docker.io/lib"
location = "lib.corp"

[[registry]]
location = "quay.io"
"""


@contextlib.contextmanager
def kubelet_node() -> Iterator[Node]:
    """A node with one mirror for Docker Hub; three teams, of which alpha has two pull secrets for the mirror, beta one
    for Docker Hub alone, and gamma no Role."""
    # Of the same length everywhere, since lines break by it.
    with tempfile.TemporaryDirectory(prefix="node", dir="/tmp") as root, ApiServer() as cluster:
        for team, keys in (("alpha", ["mirror.corp:5000"]), ("beta", ["https://index.docker.io/v1/"]), ("gamma", [])):
            namespace = f"team-{team}"
            for key in keys:
                cluster.add_secret(namespace, "pull-creds", {"auths": {key: {"auth": _auth("robot")}}})
            cluster.add_service_account(namespace, "default", ["pull-creds"])
            cluster.add_pod(namespace, "web", "node1")
        cluster.add_secret("team-alpha", "old-creds", {"auths": {"mirror.corp:5000/hub2": {"auth": _auth("old")}}})
        cluster.add_secret("team-alpha", "spare", {"auths": {"mirror.corp:5000": {"auth": _auth("spare")}}})
        for namespace in ("team-alpha", "team-beta"):
            cluster.allow(namespace, "default")
        _write_kubelet(Path(root), cluster)
        yield Node(Path(root), {root: "", str(cluster.port): "6443"})


@contextlib.contextmanager
def containerd_node() -> Iterator[Node]:
    """The same with containerd: the mirror stands for quay.io alone, and comes before Docker Hub."""
    mirror = '[host."https://mirror.corp:5000"]\ncapabilities = ["pull", "resolve"]\n'
    with kubelet_node() as node:
        certs = node.root / "etc/containerd/certs.d"
        for domain, text in (("docker.io", mirror), ("quay.io", f'server = "https://mirror.corp:5000"\n{mirror}')):
            (certs / domain).mkdir(parents=True)
            (certs / domain / "hosts.toml").write_text(text)
        table = '[plugins."io.containerd.grpc.v1.cri".registry]'
        (certs.parent / "config.toml").write_text(f'version = 2\n{table}\nconfig_path = "/etc/containerd/certs.d"\n')
        unit = "[Service]\nExecStart=/usr/bin/kubelet --container-runtime-endpoint=unix:///run/containerd/containerd.sock\n"
        (node.root / "etc/systemd/system/kubelet.service").write_text(unit)
        yield node


# As long as 127.0.0.1 or localhost with a port of five digits, since lines break by it.
_MIRROR, _OTHER, _AWAY = "mirror.lan:5000", "quay-mi.lan:443", "central.lan:443"


@contextlib.contextmanager
def mirror_node() -> Iterator[Node]:
    """A node with a mirror for Docker Hub, whose own place is away, and one for quay.io with a certificate of a CA that
    the node does not know. The credential of team alpha is good, that of beta out of date; gamma has another key."""
    authority = Authority.make("corporate CA")
    identity = authority.issue("mirror", ip_addresses=["127.0.0.1"])
    users = {"robot": ("password", ["hub"])}
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(tempfile.TemporaryDirectory(prefix="node", dir="/tmp"))
        cluster = stack.enter_context(ApiServer())
        mirror = stack.enter_context(MirrorRegistry(users, identity=identity))
        other = stack.enter_context(MirrorRegistry(users, identity=identity))
        away = stack.enter_context(socket.socket())
        away.bind(("127.0.0.1", 0))  # taken, and not listened on
        mirror.add_image("hub/library/nginx", "1.27")
        keys = {"alpha": (mirror.host, "robot"), "beta": (mirror.host, "of-last-year"), "gamma": ("docker.io", "robot")}
        for team, (key, user) in keys.items():
            cluster.add_secret(f"team-{team}", "pull-creds", {"auths": {key: {"auth": _auth(user)}}})
            cluster.add_service_account(f"team-{team}", "default", ["pull-creds"])
            cluster.add_pod(f"team-{team}", "web", "node1")
            cluster.allow(f"team-{team}", "default")
        _write_kubelet(Path(root), cluster)
        place = Path(root, "etc/containers")
        (place / "registries.conf").write_text(
            'unqualified-search-registries = ["docker.io"]\n'
            f'[[registry]]\nprefix = "docker.io"\nlocation = "127.0.0.1:{away.getsockname()[1]}"\n'
            f'[[registry.mirror]]\nlocation = "{mirror.host}/hub"\n'
            '[[registry.mirror]]\nlocation = "digests.corp"\npull-from-mirror = "digest-only"\n'
            f'[[registry]]\nprefix = "quay.io"\nlocation = "localhost:{other.port}"\n'
        )
        (place / "certs.d" / mirror.host).mkdir(parents=True)
        (place / "certs.d" / mirror.host / "ca.crt").write_text(authority.certificate_pem)
        names = {mirror.host: _MIRROR, f"localhost:{other.port}": _OTHER, f"127.0.0.1:{away.getsockname()[1]}": _AWAY}
        yield Node(Path(root), {root: "", **names, str(cluster.port): "6443"})


def _write_kubelet(root: Path, cluster: ApiServer) -> None:
    """What a kubelet and CRI-O have on a disk."""
    authority = base64.b64encode(cluster.authority.certificate_pem.encode()).decode()
    identity = cluster.node_identity("node1")
    current = "var/lib/kubelet/pki/kubelet-client-current.pem"
    files = {
        "etc/systemd/system/kubelet.service": "[Service]\nExecStart=/usr/bin/kubelet\n",
        "etc/crio/crio.conf": "",
        "etc/containers/registries.conf": _REGISTRIES_CONF,
        "etc/kubernetes/kubelet.conf": f"clusters: [{{name: c, cluster: {{server: '{cluster.url}', "
        f"certificate-authority-data: {authority}}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
        f"current-context: c\nusers: [{{name: u, user: {{client-certificate: /{current}, client-key: /{current}}}}}]\n",
        current: identity.certificate_pem + identity.key_pem,
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


_RECIPE = SOURCES.parent / "tests/gallery/recipe/root/etc/kubernetes/credential-provider-config.yaml"
_RECIPE_MIRROR = """\
[[registry]]
location = "docker.io"

[[registry.mirror]]
location = "mirror.internal.company.com"
"""


@contextlib.contextmanager
def recipe() -> Iterator[Node]:
    """A directory with a CredentialProviderConfig that looks right, and a registries.conf."""
    with tempfile.TemporaryDirectory(prefix="node", dir="/tmp") as root:
        Path(root, "provider.yaml").write_text(_RECIPE.read_text())
        Path(root, "registries.conf").write_text(_RECIPE_MIRROR)
        yield Node(Path(root), {f"{root}/": ""})


@contextlib.contextmanager
def image() -> Iterator[Node]:
    """An unpacked image of a worker made by kubeadm, whose directory of auth files was moved for CRI-O alone."""
    with tempfile.TemporaryDirectory(prefix="node", dir="/tmp") as root:
        for name, text in _IMAGE.items():
            path = Path(root, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        plugins = Path(root, "usr/libexec/kubelet-image-credential-provider-plugins")
        plugins.mkdir(parents=True)
        Path(plugins, _PROGRAM).touch(0o755)
        yield Node(Path(root), {root: "/mnt/image"})


_IMAGE = {
    "usr/lib/systemd/system/kubelet.service": "[Service]\nExecStart=/usr/bin/kubelet\n",
    "usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf": """\
[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
""",
    "etc/default/kubelet": 'KUBELET_EXTRA_ARGS="--image-credential-provider-config=/etc/kubernetes/providers.yaml '
    '--image-credential-provider-bin-dir=/usr/libexec/kubelet-image-credential-provider-plugins"\n',
    "etc/kubernetes/providers.yaml": """\
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
  - name: crio-credential-provider
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    matchImages:
      - docker.io
    defaultCacheDuration: 0s
    tokenAttributes:
      serviceAccountTokenAudience: https://kubernetes.default.svc.cluster.local
      cacheType: Token
      requireServiceAccount: true
""",
    "etc/kubernetes/kubelet.conf": """\
clusters: [{name: c, cluster: {server: https://api.corp.example:6443}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
users: [{name: u, user: {}}]
""",
    "var/lib/kubelet/config.yaml": "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n",
    "var/lib/crio/version": '"1.37.0"',
    "etc/crio/crio.conf.d/20-auth.conf": '[crio.image]\nnamespaced_auth_dir = "/run/crio/auth"\n',
    "etc/containers/registries.conf": _REGISTRIES_CONF,
}


def _auth(user: str) -> str:
    return base64.b64encode(f"{user}:password".encode()).decode()


@contextlib.contextmanager
def saved_lists() -> Iterator[Node]:
    """Lists of a cluster as kubectl get -o json writes them: alpha and beta as above, gamma without a Role, delta with
    an image that only the node has a credential for."""
    rbac = "rbac.authorization.k8s.io"
    found: list[dict[str, object]] = [
        {"kind": "ClusterRole", "metadata": {"name": "view"}, "rules": []},
        {
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "view"},
            "roleRef": {"kind": "ClusterRole", "name": "view"},
        },
    ]
    teams = {
        "alpha": "mirror.corp:5000",
        "beta": "https://index.docker.io/v1/",
        "gamma": "mirror.corp:5000",
        "delta": "",
    }
    for team, key in teams.items():
        place = {"namespace": f"team-{team}"}
        image = "docker.io/library/nginx:1.27" if key else "quay.io/corp/app:v1"
        content = json.dumps({"auths": {key: {"auth": _auth("robot")}}})
        spec = {"template": {"spec": {"containers": [{"image": image}]}}}
        found.append({"kind": "Deployment", "metadata": {**place, "name": "web"}, "spec": spec})
        if key:
            data = {".dockerconfigjson": base64.b64encode(content.encode()).decode()}
            metadata = {**place, "name": "pull-creds"}
            found.append(
                {"kind": "Secret", "metadata": metadata, "type": "kubernetes.io/dockerconfigjson", "data": data}
            )
        if team != "gamma":
            rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}]
            found.append({"kind": "Role", "metadata": {**place, "name": "pull-secrets"}, "rules": rules})
            subjects = [{"apiGroup": rbac, "kind": "Group", "name": f"system:serviceaccounts:team-{team}"}]
            bound = {"roleRef": {"kind": "Role", "name": "pull-secrets"}, "subjects": subjects}
            found.append({"kind": "RoleBinding", "metadata": {**place, "name": "pull-secrets"}, **bound})
    with tempfile.TemporaryDirectory(prefix="node", dir="/tmp") as root:
        Path(root, "cluster.json").write_text(json.dumps({"kind": "List", "items": found}))
        Path(root, "registries.conf").write_text(_REGISTRIES_CONF)
        Path(root, "node.json").write_text(json.dumps({"auths": {"quay.io": {"auth": _auth("robot")}}}))
        yield Node(Path(root), {f"{root}/": ""})


# -- screens ----------------------------------------------------------------------------------------------------------


def _verify(image: str, namespace: str, *more: str) -> tuple[str, ...]:
    return ("verify", image, "-n", namespace, "--pod", "web", *more)


def _explain(image: str, namespace: str, *more: str) -> tuple[str, ...]:
    return ("explain", image, "-n", namespace, "--pod", "web", *more)


def _doctor(
    node: Callable[[], contextlib.AbstractContextManager[Node]], *arguments: str, status: int = 3, until: str = ""
) -> Screen:
    return Screen(node, ("doctor", *arguments), status, adds_root=False, until=until)


SCREENS = {
    "audit": Screen(
        saved_lists,
        (
            *("audit", "{root}/cluster.json", "--registries-conf", "{root}/registries.conf"),
            *("--global-auth-file", "{root}/node.json"),
        ),
        1,
        adds_root=False,
    ),
    "explain-well": Screen(kubelet_node, _explain("nginx:1.27", "team-alpha"), 0),
    "explain-another-key": Screen(kubelet_node, _explain("nginx:1.27", "team-beta"), 3, until="Secrets "),
    "explain-refused": Screen(kubelet_node, _explain("nginx:1.27", "team-gamma"), 3, until="Image "),
    "explain-no-mirror": Screen(kubelet_node, _explain("quay.io/team/app:v1", "team-alpha"), 0, until="Answer "),
    "explain-containerd": Screen(containerd_node, _explain("quay.io/team/app:v1", "team-alpha"), 0, until="Notes "),
    "explain-exposed": Screen(containerd_node, _explain("nginx:1.27", "team-alpha"), 3, until="Answer "),
    "doctor-recipe": _doctor(recipe, "--config", "{root}/provider.yaml", "--registries-conf", "{root}/registries.conf"),
    "doctor-image": _doctor(image, "--root", "{root}", "--kubernetes", "1.36", until="Not checked"),
    "explain-not-decided": Screen(kubelet_node, ("explain", "nginx:1.27", "-n", "team-alpha"), 1, until="Image "),
    "verify-well": Screen(mirror_node, _verify("nginx:1.27", "team-alpha"), 0),
    "verify-refused": Screen(mirror_node, _verify("nginx:1.27", "team-beta"), 3, until="The token "),
    "verify-tls": Screen(mirror_node, _verify("quay.io/team/app:v1", "team-alpha"), 3, until="The token "),
}


def run(screen: Screen) -> str:
    """The screen as a person would see it: the command line and what it writes.

    Raises:
        RuntimeError: another exit status than the table says.
    """
    with screen.node() as node:
        arguments = [argument.replace("{root}", str(node.root)) for argument in screen.arguments]
        if screen.adds_root:
            arguments += ["--root", str(node.root)]
        environment = {"PATH": "/usr/bin:/bin", "HOME": "/root", "PYTHONPATH": str(SOURCES)}
        done = subprocess.run(
            [sys.executable, "-m", "crio_credential_provider", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            check=False,
        )
        text = f"$ {_PROGRAM} {' '.join(screen.arguments)}\n{done.stdout}".replace("{root}", str(node.root))
        for found, shown in node.shown.items():
            text = text.replace(found, shown)
    if done.returncode != screen.status:
        raise RuntimeError(f"exit status {done.returncode}, not {screen.status}:\n{text}")
    shown, cut, _ = text.partition(f"\n{screen.until}" if screen.until else "\0")
    return f"{shown.rstrip()}\n[...]\n" if cut else shown


def rewrite(text: str) -> str:
    """A document with every screen as it is now. KeyError for a screen that is none."""

    def screen(found: re.Match[str]) -> str:
        shown = run(SCREENS[found[2]])
        return f"{found[1]}```console\n{shown}```\n{found[3]}"

    return _SCREEN.sub(screen, text)


def main(arguments: list[str]) -> int:
    check = arguments[:1] == ["--check"]
    stale = []
    for name in arguments[check:]:
        path = Path(name)
        text = path.read_text(encoding="utf-8")
        now = rewrite(text)
        if now != text:
            stale.append(name)
            if not check:
                path.write_text(now, encoding="utf-8")
    for name in stale:
        print(f"{name}: {'has stale screens: run tools/screens.py' if check else 'rewritten'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main(sys.argv[1:]))
