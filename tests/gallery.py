"""The gallery of broken nodes: lays a node of tests/gallery into a directory, makes its network, and has doctor look.

A node is a healthy one of its kind (tests/gallery/nodes) with the few files of a fault (tests/gallery/faults) laid over
it. What a tree in git cannot hold stands in three files beside ``root/``, merged by RFC 7386 (null removes):

* ``node.json``: name, versions, processes (name -> command line), modes (a path that ends in / is a directory to make),
  owners, symlinks, mounts (lines of mountinfo), ages (seconds since a file was written; all others: 30 days),
  started (seconds since a process was; all others: 10 days), removed.
* ``cluster.json``: address and audiences of the API server, the pods on the node, reviews (what the node may do),
  serviceAccountReviews (what a pod's account may do), answers ("GET /path" -> status and body), failure (one of
  ``SERVER_FAILURES``), date_offset (seconds that its clock is ahead).
* ``mirrors.json``: HOST[:PORT] -> one of ``MIRRORS``.

``fault.json`` says what doctor has to say, written from CRI-O's and the kubelet's rules. Members of ``fault.json``: see
``Expected`` and ``Fault``. Where a member is left out there, nothing is asked of it.

The processes become files below ``proc``, the programs small scripts that know their ``--version``; the API server and
the mirrors are real servers with real certificates, and names lead to them because ``getaddrinfo`` is replaced. With
$PROGRAM that program examines the node, as a process: the self-contained form in a chroot with a network of its own,
another one the node's files alone.
Nothing here knows how doctor works, but for ``look``.

    with World() as world, world.node(load_fault("cache-type-missing"), directory) as laid:
        print(look(laid, offline=False).findings)
"""

from __future__ import annotations

import _socket
import base64
import contextlib
import datetime
import email.utils
import functools
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from unittest import mock

import pytest

import machine
from commandline import here
from crio_credential_provider.commands import doctor
from crio_credential_provider.testbed.certificates import Authority, Identity, server_context
from crio_credential_provider.testbed.loopback import Answer, Connection, LoopbackServer, Request
from crio_credential_provider.testbed.registry import MirrorRegistry
from node import PROGRAM
from servers import Peer, hang, refused_port

GALLERY = Path(__file__).parent / "gallery"
KINDS = ("kubeadm", "openshift", "k3s", "containerd")
SEVERITIES = ("error", "warning", "note")

_DAY = 86400
_OLD = 30 * _DAY
_UP = 10 * _DAY

Object = dict[str, Any]


# -- what is written down ---------------------------------------------------------------------------------------------


class Expected(NamedTuple):
    """A finding. ``file`` None and ``line`` None: wherever; ``says``: what its text must contain."""

    finding: str
    severity: str
    file: str | None = None
    line: int | None = None
    says: tuple[str, ...] = ()


class Fault(NamedTuple):
    """A node that is not as it should be, or (with nothing expected) a healthy one.

    ``offline``: what ``doctor --root`` has to find: "same", "nothing" (it cannot be seen in an image), or "either".
    """

    name: str
    node: str
    expected: tuple[Expected, ...]
    why: str
    offline: str
    overlays: tuple[Path, ...]


_FAULT_MEMBERS = {"node", "finding", "severity", "file", "line", "says", "why", "offline"}
_NODE_MEMBERS = {
    *("name", "versions", "processes", "started", "modes", "owners", "symlinks", "mounts", "ages", "removed"),
}
_CLUSTER_MEMBERS = {
    *("address", "audiences", "pods", "reviews", "serviceAccountReviews", "answers", "failure", "date_offset"),
}
_OVERLAY = {"root", "node.json", "cluster.json", "mirrors.json"}


def load_fault(name: str) -> Fault:
    """A fault of the gallery. ValueError for a member or file that nobody would read."""
    directory = GALLERY / "faults" / name
    return _load(directory, {"fault.json"}, name)


def load_variant(name: str) -> Fault:
    """A healthy node that differs from the usual ones; its ``why`` says in what."""
    return _load(GALLERY / "variants" / name, {"variant.json"}, name)


def load_node(kind: str) -> Fault:
    """A healthy node."""
    return Fault(kind, kind, (), "a healthy node", "nothing", ())


def combine(*faults: Fault) -> Fault:
    """A node with all these faults; later ones win where two change one file."""
    kinds = {fault.node for fault in faults}
    if len(kinds) != 1:
        raise ValueError(f"faults of different nodes: {sorted(kinds)}")
    name = "+".join(fault.name for fault in faults)
    expected = tuple(expected for fault in faults for expected in fault.expected)
    overlays = tuple(overlay for fault in faults for overlay in fault.overlays)
    return Fault(name, kinds.pop(), expected, "several faults at once", "either", overlays)


def _load(directory: Path, descriptions: set[str], name: str) -> Fault:
    present = {path.name for path in directory.iterdir()}
    description = descriptions & present
    if len(description) != 1 or present - _OVERLAY - description:
        raise ValueError(f"{directory} holds {sorted(present)}")
    written = json.loads((directory / description.pop()).read_text())
    if unknown := set(written) - _FAULT_MEMBERS:
        raise ValueError(f"{name}: unknown member {sorted(unknown)}")
    expected: tuple[Expected, ...] = ()
    if "fault.json" in descriptions:
        if written["severity"] not in SEVERITIES or written["offline"] not in ("same", "nothing", "either"):
            raise ValueError(f"{name}: severity {written['severity']!r}, offline {written['offline']!r}")
        members = {member: written[member] for member in ("finding", "severity", "file", "line") if member in written}
        expected = (Expected(**members, says=tuple(written.get("says", ()))),)
    elif set(written) - {"offline"} != {"node", "why"}:
        raise ValueError(f"{name}: a variant has node and why, perhaps offline")
    if written["node"] not in KINDS:
        raise ValueError(f"{name}: node {written['node']!r}")
    return Fault(name, written["node"], expected, written["why"], written.get("offline", "nothing"), (directory,))


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def _merged(fault: Fault, file: str, known: set[str] | None) -> Object:
    merged: Object = {}
    removed: list[str] = []
    for directory in (GALLERY / "nodes" / fault.node, *fault.overlays):
        if (directory / file).exists():
            patch = json.loads((directory / file).read_text())
            if known is not None and (unknown := set(patch) - known):
                raise ValueError(f"{directory / file}: unknown member {sorted(unknown)}")
            removed += patch.get("removed", [])
            merged = merge_patch(merged, patch)
    return merged | ({"removed": removed} if known is _NODE_MEMBERS else {})


# -- the node's files -------------------------------------------------------------------------------------------------


class Laid(NamedTuple):
    """A node that lies in a directory: where, what must never come out of it, and what was asked of its cluster."""

    root: Path
    fault: Fault
    secrets: list[str]
    asked: list[tuple[str, str]]


_PLACEHOLDER = re.compile(r"\{\{(.+?)\}\}")
_PROGRAMS = {
    "rke2": (
        "/var/lib/rancher/rke2/data/v1.35.1-rke2r1-3f2a1b/bin/kubelet",
        "Kubernetes v{version}",
    ),
    "kubelet": ("/usr/bin/kubelet", "Kubernetes v{version}"),
    "crio": ("/usr/bin/crio", "crio version {version}\n   GitCommit:      1f3d5c7\n   GoVersion:      go1.24.9"),
    "k3s-containerd": (
        "/var/lib/rancher/k3s/data/current/bin/containerd",
        "containerd github.com/k3s-io/containerd v{version} ",
    ),
    "containerd": ("/usr/bin/containerd", "containerd github.com/containerd/containerd/v2 v{version} c4bdb1a"),
    "k3s": ("/usr/local/bin/k3s", "k3s version v{version} (50fa2d70)\ngo version go1.24.9"),
}
RAN = ".ran"
"""Ending of the file that a program leaves beside itself when it is run."""


def _lay_files(fault: Fault, root: Path, node: Object, placeholder: Callable[[str], str]) -> None:
    for name, version in node["versions"].items():
        path, text = _PROGRAMS[name]
        _write(root, path, f"#!/bin/sh\n: >\"$0{RAN}\"\necho '{text.format(version=version)}'\n", 0o755)
    for source in (GALLERY / "nodes" / fault.node, *fault.overlays):
        for file in sorted((source / "root").rglob("*")):
            if file.is_file():
                text = file.read_bytes().decode(errors="surrogateescape")
                filled = _PLACEHOLDER.sub(lambda found: placeholder(found[1]), text)
                _write(root, "/" + str(file.relative_to(source / "root")), filled, 0o644)
    for removed in node["removed"]:
        gone = below(root, removed)
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    for link, target in node.get("symlinks", {}).items():
        below(root, link).parent.mkdir(parents=True, exist_ok=True)
        below(root, link).symlink_to(target)


def below(root: Path, path: str) -> Path:
    """Where a path of the node lies."""
    return root / path.lstrip("/")


def _write(root: Path, path: str, text: str, mode: int) -> None:
    file = below(root, path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode(errors="surrogateescape"))
    file.chmod(mode)


def _lay_metadata(root: Path, node: Object) -> None:
    """Modes, owners and times, in this order, since each would undo the one after it."""
    for path, mode in node.get("modes", {}).items():
        file = below(root, path)
        if path.endswith("/"):
            file.mkdir(parents=True, exist_ok=True)
        if file.exists() and not file.is_symlink():
            file.chmod(int(mode, 8))
        elif path not in node.get("symlinks", {}) and not any(path.startswith(gone) for gone in node["removed"]):
            raise ValueError(f"there is no {path}")
    for path, owner in node.get("owners", {}).items():
        os.chown(below(root, path), owner, owner, follow_symlinks=False)
    now = time.time()
    for found in root.rglob("*"):
        written = now - node.get("ages", {}).get("/" + str(found.relative_to(root)), _OLD)
        os.utime(found, (written, written), follow_symlinks=False)


def _lay_processes(root: Path, node: Object) -> None:
    """What /proc says of the processes, of the boot and of the mounts (proc(5))."""
    now, ticks = time.time(), os.sysconf("SC_CLK_TCK")
    booted = int(now) - 40 * _DAY
    _write(root, "/proc/stat", f"cpu  1 0 1 1 0 0 0 0 0 0\nbtime {booted}\nprocesses 4096\n", 0o444)
    _write(root, "/proc/uptime", f"{now - booted:.2f} 1.00\n", 0o444)
    mounts = "".join(f"{line}\n" for line in node.get("mounts", []))
    _write(root, "/proc/self/mountinfo", mounts, 0o444)
    _write(root, "/proc/1/mountinfo", mounts, 0o444)
    processes = {"systemd": ["/sbin/init"], **node.get("processes", {})}
    for number, (name, arguments) in enumerate(processes.items()):
        pid = 1 if name == "systemd" else 900 + number
        started = int((now - node.get("started", {}).get(name, _UP) - booted) * ticks)
        fields = ["S", "1", *["0"] * 17, str(started), *["0"] * 30]
        _write(root, f"/proc/{pid}/comm", f"{name[:15]}\n", 0o444)
        _write(root, f"/proc/{pid}/cmdline", "".join(f"{argument}\0" for argument in arguments), 0o444)
        _write(root, f"/proc/{pid}/stat", f"{pid} ({name[:15]}) {' '.join(fields)}\n", 0o444)
        _write(root, f"/proc/{pid}/environ", "PATH=/usr/sbin:/usr/bin\0", 0o400)
        _write(root, f"/proc/{pid}/status", f"Name:\t{name[:15]}\nPid:\t{pid}\nUid:\t0\t0\t0\t0\n", 0o444)
        below(root, f"/proc/{pid}/exe").symlink_to(arguments[0].split()[0])
        below(root, f"/proc/{pid}/root").symlink_to("/")


# -- the network ------------------------------------------------------------------------------------------------------

MIRRORS = ("ok", "private-ca", "dns", "refused", "timeout", "plain-http", "unknown-ca", "expired", "wrong-name")
SERVER_FAILURES = ("dns", "refused", "timeout", "unknown-ca", "expired", "wrong-name")
NOBODY = "dns"


class World:
    """Certificate authorities, made once, and the network of one node at a time.

    ``mirrors`` stands in the nodes' system bundles as the {{corporate CA}}; ``private`` is trusted where certs.d has
    it; nobody trusts ``stranger``.
    """

    def __init__(self) -> None:
        self.cluster = Authority.make("kubernetes")
        self.mirrors = Authority.make("corp.example Root CA")
        self.private = Authority.make("Registry CA")
        self.stranger = Authority.make("somebody else")
        self._identities: dict[tuple[str, ...], Identity] = {}

    def __enter__(self) -> World:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._identities.clear()

    @contextlib.contextmanager
    def node(self, fault: Fault, directory: Path) -> Iterator[Laid]:
        """The node in ``directory``, with its cluster and its mirrors there while the block runs."""
        node = _merged(fault, "node.json", _NODE_MEMBERS)
        cluster = _merged(fault, "cluster.json", _CLUSTER_MEMBERS)
        secrets: list[str] = []
        root = directory / "node"
        root.mkdir()
        _lay_files(fault, root, node, functools.partial(self._fill, node, secrets))
        _lay_metadata(root, node)
        _lay_processes(root, node)
        with contextlib.ExitStack() as stack:
            if machine.is_executable(PROGRAM):
                stack.enter_context(machine.own_network())
            server = Cluster(cluster, node, secrets)
            addresses = {cluster["address"]: self._start(stack, cluster.get("failure"), cluster["address"], server)}
            for mirror, behaviour in _merged(fault, "mirrors.json", None).items():
                addresses[_with_port(mirror)] = self._start(stack, behaviour, mirror, None)
            ports = {_split(address): port for address, port in addresses.items()}
            if machine.is_executable(PROGRAM):
                known = {address: port for address, port in ports.items() if port is not None}
                stack.enter_context(machine.lead(known, root))
            else:
                closed = stack.enter_context(refused_port())
                stack.enter_context(mock.patch.object(_socket, "getaddrinfo", _resolver(ports, closed)))
            stack.enter_context(mock.patch.dict(os.environ, {"HOME": "/root"}))
            yield Laid(root, fault, secrets, server.asked)

    def _fill(self, node: Object, secrets: list[str], what: str) -> str:
        """What stands for {{what}}, one line."""
        identity = self._identity("cluster", f"system:node:{node['name']}", client=True)
        secrets.append(identity.key_pem.splitlines()[1])
        certificates = {
            "cluster CA": self.cluster.certificate_pem,
            "cluster CA, base64": base64.b64encode(self.cluster.certificate_pem.encode()).decode(),
            "corporate CA": self.mirrors.certificate_pem,
            "private CA": self.private.certificate_pem,
            "stranger's CA": self.stranger.certificate_pem,
            "stranger's CA, base64": base64.b64encode(self.stranger.certificate_pem.encode()).decode(),
            "kubelet certificate": identity.certificate_pem,
            "kubelet certificate, base64": base64.b64encode(identity.certificate_pem.encode()).decode(),
            "kubelet key": identity.key_pem,
            "kubelet key, base64": base64.b64encode(identity.key_pem.encode()).decode(),
        }
        if what.startswith("token of "):
            account, audiences = what.removeprefix("token of ").split(" for ")
            namespace, _, name = account.partition("/")
            token = make_token(namespace, name, audiences.split(" and "))
            secrets.append(token)
            return token
        return certificates[what].removesuffix("\n")

    def _identity(self, authority: str, name: str, *, client: bool = False, expired: bool = False) -> Identity:
        key = (authority, name, str(client), str(expired))
        if key not in self._identities:
            issuer: Authority = getattr(self, authority)
            is_address = bool(re.fullmatch(r"[0-9.]+|[0-9a-f:]*:[0-9a-f:]*", name))
            now = datetime.datetime.now(datetime.UTC)
            self._identities[key] = issuer.issue(
                name,
                organization="system:nodes" if client else None,
                dns_names=() if client or is_address else (name,),
                ip_addresses=(name,) if is_address else (),
                not_before=now - datetime.timedelta(days=90) if expired else None,
                not_after=now - datetime.timedelta(days=2) if expired else None,
                client=client,
            )
        return self._identities[key]

    def _start(
        self, stack: contextlib.ExitStack, behaviour: str | None, address: str, server: Cluster | None
    ) -> int | None:
        """The port where that address is served, None for a name that nobody knows."""
        if behaviour not in (None, *(SERVER_FAILURES if server else MIRRORS)):
            raise ValueError(f"{address}: {behaviour!r}")
        if behaviour == NOBODY:
            return None
        if behaviour == "refused":
            return stack.enter_context(refused_port())
        if behaviour == "timeout":
            return stack.enter_context(Peer(hang)).port
        host = "other.corp.example" if behaviour == "wrong-name" else _with_port(address).rpartition(":")[0].strip("[]")
        issuers = {"unknown-ca": "stranger", "private-ca": "private"}
        authority = issuers.get(behaviour or "", "cluster" if server else "mirrors")
        identity = self._identity(authority, host, expired=behaviour == "expired")
        if server is not None:
            return stack.enter_context(
                LoopbackServer(server.respond, server_context(identity, clients=self.cluster))
            ).port
        plain = behaviour == "plain-http"
        users = {"team-alpha": ("not-asked", ("",))}
        return stack.enter_context(MirrorRegistry(users, identity=None if plain else identity)).port


def _with_port(address: str) -> str:
    return address if re.search(r":[0-9]+$", address) else f"{address}:443"


def _resolver(ports: Mapping[tuple[str, int], int | None], closed: int) -> Callable[..., Any]:
    """A getaddrinfo for which the node's network is all there is; on the node itself all other ports are ``closed``."""
    # By which the public module asks as well.
    real = _socket.getaddrinfo
    local = {port for port in ports.values() if port is not None}

    def getaddrinfo(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host)
        is_here = name in ("127.0.0.1", "::1", "localhost")
        is_name = not re.fullmatch(r"[0-9.]+|.*:.*", name)
        found = ports.get((name, int(port or 0)), closed if is_here else None)
        if is_here and port in local:
            found = int(port)
        if found is None or (is_name and flags & socket.AI_NUMERICHOST):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real("127.0.0.1", found, socket.AF_INET, type, proto, socket.AI_NUMERICHOST)

    return getaddrinfo


def _split(address: str) -> tuple[str, int]:
    host, _, port = _with_port(address).rpartition(":")
    return host.strip("[]"), int(port)


# -- the API server ---------------------------------------------------------------------------------------------------


def make_token(namespace: str, account: str, audiences: Iterable[str], pod: str = "pod") -> str:
    """A bound service account token by its looks; nobody but ``Cluster`` takes it."""
    bound = {"namespace": namespace, "pod": {"name": pod, "uid": "u"}, "serviceaccount": {"name": account, "uid": "u"}}
    now = int(time.time())
    claims = {
        "aud": list(audiences),
        "exp": now + 3600,
        "iat": now,
        "iss": "https://kubernetes.default.svc.cluster.local",
        "kubernetes.io": bound,
        "sub": f"system:serviceaccount:{namespace}:{account}",
    }
    parts = [json.dumps({"alg": "RS256", "kid": "gallery"}).encode(), json.dumps(claims).encode(), os.urandom(64)]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


class _Refusal(Exception):
    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.document = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": status,
        }


class Cluster:
    """The API server of ``cluster.json``: reads, reviews and token requests; anything else fails the test.

    Attributes:
        asked: method and path of each request.
    """

    def __init__(self, written: Object, node: Object, secrets: list[str]) -> None:
        self._written = written
        self._node: str = node["name"]
        versions = node["versions"]
        containerd = versions.get("containerd", versions.get("k3s-containerd"))
        self._node_info = {
            "kubeletVersion": f"v{next(versions[name] for name in ('kubelet', 'k3s', 'rke2') if name in versions)}",
            "containerRuntimeVersion": f"cri-o://{versions['crio']}"
            if "crio" in versions
            else f"containerd://{containerd}",
        }
        self._tokens: dict[str, tuple[str, list[str]]] = {}
        self._secrets = secrets
        self.asked: list[tuple[str, str]] = []

    def respond(self, request: Request, connection: Connection) -> None:
        self.asked.append((request.method, request.path))
        try:
            status, document = self._answer(request)
        except _Refusal as refusal:
            status, document = refusal.status, refusal.document
        date = email.utils.formatdate(time.time() + self._written.get("date_offset", 0), usegmt=True)
        headers = [("Content-Type", "application/json"), ("Date", date)]
        connection.send(Answer(status, headers, json.dumps(document).encode()).dumps(request.method))

    def _answer(self, request: Request) -> tuple[int, Object]:
        path, _, query = request.path.partition("?")
        written = self._written.get("answers", {}).get(f"{request.method} {path}")
        if written is not None:
            return written["status"], written["body"]
        who = self._authenticate(request)
        if request.method == "POST":
            return self._post(who, path, json.loads(request.body))
        if request.method != "GET":
            raise AssertionError(f"doctor changes nothing, but asked {request.method} {request.path}")
        if path in ("/readyz", "/livez", "/healthz"):
            return 200, {}
        if path == "/version":
            return 200, {"major": "1", "minor": "34", "gitVersion": "v1.34.2", "platform": "linux/amd64"}
        return 200, self._get(who, path, dict(urllib.parse.parse_qsl(query)))

    def _authenticate(self, request: Request) -> str:
        """``node``, NAMESPACE/ACCOUNT, or a 401. A client certificate goes before a token."""
        name = request.subject.get("commonName")
        if name is not None and request.subject.get("organizationName") == "system:nodes":
            if name != f"system:node:{self._node}":
                raise AssertionError(f"the certificate of {name} on {self._node}")
            return "node"
        token = (request.header("Authorization") or "").removeprefix("Bearer ")
        account, audiences = self._tokens.get(token, ("", []))
        if not account or not set(audiences) & set(self._written["audiences"]):
            raise _Refusal(401, "Unauthorized", "Unauthorized")
        return account

    def _may(self, who: str, verb: str, resource: str, namespace: str = "", name: str = "", group: str = "") -> bool:
        """By the grants as written; one without a name, or without a namespace, covers more."""
        grants = (
            self._written.get("reviews", {})
            if who == "node"
            else self._written.get("serviceAccountReviews", {}).get(who, {})
        )
        what = f"{verb} {group}/{resource}"
        asked = [what, *([f"{what} {namespace}"] if namespace else [])]
        asked += [f"{what} {namespace}/{name}"] if namespace and name else []
        return any(grants.get(grant) is True for grant in asked)

    def _post(self, who: str, path: str, body: Object) -> tuple[int, Object]:
        if path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews":
            asked = body["spec"]["resourceAttributes"]
            members = {member: asked.get(member, "") for member in ("verb", "resource", "namespace", "name", "group")}
            return 201, body | {"status": {"allowed": self._may(who, **members)}}
        if path == "/apis/authentication.k8s.io/v1/selfsubjectreviews":
            name = f"system:node:{self._node}" if who == "node" else f"system:serviceaccount:{who.replace('/', ':')}"
            groups = ["system:nodes", "system:authenticated"] if who == "node" else ["system:serviceaccounts"]
            return 201, body | {"status": {"userInfo": {"username": name, "groups": groups}}}
        matched = re.fullmatch(r"/api/v1/namespaces/([^/]+)/serviceaccounts/([^/]+)/token", path)
        if matched is None:
            raise AssertionError(f"doctor changes nothing, but posted to {path}")
        return 201, self._request_token(who, matched[1], matched[2], body)

    def _request_token(self, who: str, namespace: str, account: str, body: Object) -> Object:
        """As the node authorizer and the NodeRestriction admission plugin let a kubelet have one."""
        pod = body["spec"].get("boundObjectRef") or {}
        found = self._written["pods"].get(f"{namespace}/{pod.get('name')}")
        if who != "node" or found is None or found["serviceAccount"] != account:
            raise _Refusal(403, "Forbidden", f'serviceaccounts "{account}" is forbidden: node requested no bound token')
        audiences = body["spec"].get("audiences") or self._written["audiences"][:1]
        for audience in audiences:
            # The audience of the API server's own stands in no projected volume of these pods.
            if not self._may("node", "request-serviceaccounts-token-audience", audience, namespace, account):
                raise _Refusal(403, "Forbidden", f'serviceaccounts "{account}" is forbidden: audience {audience!r}')
        token = make_token(namespace, account, audiences, pod["name"])
        self._tokens[token] = f"{namespace}/{account}", list(audiences)
        self._secrets.append(token)
        expires = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return body | {"status": {"token": token, "expirationTimestamp": expires}}

    def _get(self, who: str, path: str, parameters: Mapping[str, str]) -> Object:
        if who == "node" and path == f"/api/v1/nodes/{self._node}":
            status = {"nodeInfo": self._node_info}
            return {"kind": "Node", "apiVersion": "v1", "metadata": {"name": self._node}, "status": status}
        if who == "node" and path == "/api/v1/pods":
            if parameters.get("fieldSelector") != f"spec.nodeName={self._node}":
                raise _Refusal(403, "Forbidden", "can only list pods with spec.nodeName field selector")
            return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [*map(self._pod, self._pods())]}
        matched = re.fullmatch(r"/api/v1/namespaces/([^/]+)/(pods|serviceaccounts)/([^/]+)", path)
        if matched is not None:
            namespace, resource, name = matched.groups()
            if resource == "pods" and who == "node" and f"{namespace}/{name}" in self._pods():
                return self._pod(f"{namespace}/{name}")
            if resource == "serviceaccounts" and self._may(who, "get", resource, namespace, name):
                return self._account(namespace, name)
        matched = re.fullmatch(r"/api/v1/namespaces/([^/]+)/secrets(/[^/]+)?", path)
        if matched is not None:
            raise AssertionError(f"doctor reads no secret, but asked {path}")
        raise _Refusal(403, "Forbidden", f'"{path}" is forbidden')

    def _pods(self) -> Object:
        found: Object = self._written.get("pods", {})
        return found

    def _pod(self, name: str) -> Object:
        written = self._pods()[name]
        spec = {
            "nodeName": self._node,
            "serviceAccountName": written["serviceAccount"],
            "containers": [{"name": "main", "image": written["image"]}],
            "imagePullSecrets": [{"name": secret} for secret in written.get("imagePullSecrets", [])],
        }
        namespace, _, pod = name.partition("/")
        metadata = {"name": pod, "namespace": namespace, "uid": f"uid-of-{pod}"}
        return {"metadata": metadata, "spec": spec, "status": {"phase": written.get("phase", "Running")}}

    def _account(self, namespace: str, name: str) -> Object:
        secrets = {
            secret
            for pod, written in self._pods().items()
            if pod.startswith(f"{namespace}/") and written["serviceAccount"] == name
            for secret in written.get("imagePullSecrets", [])
        }
        return {
            "kind": "ServiceAccount",
            "apiVersion": "v1",
            "metadata": {"name": name, "namespace": namespace, "uid": f"uid-of-{name}"},
            "imagePullSecrets": [{"name": secret} for secret in sorted(secrets)],
        }


# -- doctor -----------------------------------------------------------------------------------------------------------


class Seen(NamedTuple):
    """What one run of doctor said. ``text`` is all of standard output and standard error."""

    status: int
    report: Object
    text: str

    @property
    def findings(self) -> list[Object]:
        found: list[Object] = self.report["findings"]
        return found


def look(laid: Laid, *, offline: bool) -> Seen:
    """Runs doctor, as on the node, or on its files alone."""
    status, out, text = run(laid, ["--output", "json"], offline=offline)
    assert status in (0, 3), f"{status}: {text}"
    return Seen(status, json.loads(out), text)


def run(laid: Laid, arguments: Iterable[str], *, offline: bool) -> tuple[int, str, str]:
    """Exit status, standard output, and with it standard error; fails where doctor does what it must never do."""
    command = _command(laid, offline)
    before = _snapshot(laid.root)
    if command:
        done = subprocess.run(
            [*command, "doctor", *arguments, *(["--root", str(laid.root)] if offline else [])],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        status, out, err = done.returncode, done.stdout, done.stderr
    else:
        status, out, err = _run_here(laid, [*arguments], offline)
    after = _snapshot(laid.root)
    changed = {path for path in {*before, *after} if before.get(path) != after.get(path)}
    ran = {path for path in changed if path.endswith(RAN)}
    assert changed == ran, f"doctor changed {sorted(changed - ran)}"
    assert not (offline and ran), f"doctor ran {sorted(ran)} of an image"
    text = out + err
    shown = [secret for secret in laid.secrets if secret in text or secret.rpartition(".")[2] in text]
    assert not shown, "doctor shows a token or a key"
    return status, out, text


def _command(laid: Laid, offline: bool) -> list[str]:
    """The program as it is run on the node, or on its files; empty where doctor runs in this process."""
    if not PROGRAM or offline:
        return [PROGRAM] if PROGRAM else []
    if not machine.is_executable(PROGRAM):
        pytest.skip("only the executable runs on a laid node")
    return machine.below(laid.root, PROGRAM)


def _run_here(laid: Laid, arguments: list[str], offline: bool) -> tuple[int, str, str]:
    if offline:
        return here(lambda: doctor.run([*arguments, "--root", str(laid.root)]))
    return here(lambda: doctor.run(arguments, root=str(laid.root)))


def _snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """State of everything on the node but its directories' times, which a program that is run changes."""
    states: dict[str, tuple[object, ...]] = {}
    for path in root.rglob("*"):
        status = path.lstat()
        is_directory = stat.S_ISDIR(status.st_mode)
        changing = () if is_directory else (status.st_mtime_ns, status.st_size)
        states[str(path)] = (status.st_mode, status.st_uid, *changing)
    return states
