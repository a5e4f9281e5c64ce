"""A small simulated node: the files below ``--root``, a journald that is listened to, and the plugin run as a process.

    with Node(root, [launcher]) as node:
        node.join(cluster)
        run = node.run(request("docker.io/library/nginx", token))

It knows no rule of the program: what a run should have done is the tests' affair.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from crio_credential_provider.testbed.cluster import ApiServer

TESTS = Path(__file__).resolve().parent
RECORDINGS = TESTS / "recordings"
SOURCES = TESTS.parent / "src"

# What the tests run as a process: $PROGRAM, a form that ships; else the package of the source tree, where coverage
# measures it (the launcher's -IS shuts coverage out).
PROGRAM = os.path.abspath(os.environ["PROGRAM"]) if os.environ.get("PROGRAM") else ""
COMMAND = (PROGRAM,) if PROGRAM else (sys.executable, "-m", "crio_credential_provider")
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/root"}
if not PROGRAM:
    ENVIRONMENT |= {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
    ENVIRONMENT["PYTHONPATH"] = str(SOURCES)

NGINX = "docker.io/library/nginx"
# sha256 of NGINX, as CRI-O names the file (docs/reference/contracts.md, 2).
NGINX_HASH = "7e59ad64326bc321517fb6fc6586de5ee149178394d9edfa2a877176cdf6fad5"

# Seconds for a run that hangs: longer than any deadline that a test sets, shorter than the kubelet's patience.
_PATIENCE = 45

Entry = dict[str, str]


def recorded_request(name: str = "request-with-annotations") -> bytes:
    """What a real kubelet wrote to a plugin's standard input."""
    return (RECORDINGS / "kubelet" / f"{name}.json").read_bytes()


def recorded_answer(name: str) -> tuple[bytes, bytes]:
    """Head (with its empty line) and body of a real API server's answer; the body without its chunks."""
    head, separator, body = (RECORDINGS / "apiserver" / f"{name}.http").read_bytes().partition(b"\r\n\r\n")
    assert separator and body, name
    return head + separator, body


def write(root: Path, path: str | Path, content: str | bytes) -> Path:
    """A file below a root, with its directories."""
    file = root / str(path).removeprefix(str(root)).lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def request(image: str = NGINX, token: str | None = None, **members: Any) -> bytes:
    """A CredentialProviderRequest as the kubelet spells it; `members` are added or replace what is there."""
    message = {
        "kind": "CredentialProviderRequest",
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "image": image,
    }
    if token is not None:
        message["serviceAccountToken"] = token
    return json.dumps({**message, **members}, separators=(",", ":")).encode()


def jwt(claims: object, signature: bytes = b"signature") -> str:
    """A token of three parts with these claims; the signature is none."""
    parts = (b'{"alg":"RS256","kid":"made"}', json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def bound_claims(namespace: object = "team-alpha", pod: object = "web", account: object = "default") -> dict[str, Any]:
    """Claims of a bound service account token."""
    bound = {"namespace": namespace, "serviceaccount": {"name": account, "uid": "u1"}}
    if pod is not None:
        bound["pod"] = {"name": pod, "uid": "u2"}
    return {"aud": ["https://kubernetes.default.svc"], "exp": int(time.time()) + 3600, "kubernetes.io": bound}


def basic(user: str, password: str) -> str:
    """The ``auth`` member of a docker config."""
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def docker_config(**hosts: tuple[str, str]) -> dict[str, Any]:
    """A docker config with a user and a password for each key; ``auth`` alone, as ``docker login`` writes it."""
    return {"auths": {key: {"auth": basic(*credential)} for key, credential in hosts.items()}}


class Run(NamedTuple):
    """What a run of the plugin left behind, besides files. `entries` is all of its journal, in order."""

    status: int
    stdout: bytes
    stderr: str
    seconds: float
    entries: list[Entry]

    @property
    def answer(self) -> Any:
        """The CredentialProviderResponse."""
        return json.loads(self.stdout)

    @property
    def entry(self) -> Entry:
        """The one entry that tells the outcome."""
        found = [entry for entry in self.entries if "OUTCOME" in entry]
        assert len(found) == 1, self.entries
        return found[0]


class Journal:
    """A journald that keeps what it is sent.

    ``entries`` are decoded by https://systemd.io/JOURNAL_NATIVE_PROTOCOL/, strictly; ``datagrams`` are as they came.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._path)
        path.chmod(0o666)
        self._flushed: dict[bytes, threading.Event] = {}
        self.datagrams: list[bytes] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while data := self._socket.recv(1 << 20):
            if data in self._flushed:
                self._flushed.pop(data).set()
            elif data != b"\n":  # an entry without fields: journald keeps none of it
                self.datagrams.append(data)

    def flush(self) -> None:
        """Waits until everything that was sent before is kept."""
        mark = b"flush " + os.urandom(8).hex().encode()
        done = self._flushed[mark] = threading.Event()
        self._send(mark)
        assert done.wait(10)

    def close(self) -> None:
        self.flush()
        self._send(b"")
        self._thread.join()
        self._socket.close()

    def _send(self, data: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.connect(self._path)
            channel.send(data)

    @property
    def entries(self) -> list[Entry]:
        return [decode_entry(data) for data in self.datagrams]


def decode_entry(data: bytes) -> Entry:
    """The fields of one datagram; AssertionError where journald would drop the entry or a field of it."""
    entry: Entry = {}
    while data:
        line, newline, data = data.partition(b"\n")
        assert newline, "the last field has no end"
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(data[:8], "little")
            value, data = data[8 : 8 + size], data[8 + size :]
            assert len(value) == size and data[:1] == b"\n", "a field's length is wrong"
            data = data[1:]
        field = name.decode("ascii")
        # journal_field_valid of systemd: upper case, digits and underscores; a leading underscore is journald's own.
        assert field and field.replace("_", "A").isalnum() and field.upper() == field, field
        assert field[0] != "_" and not field[0].isdigit() and len(field) <= 64, field
        assert field not in entry, f"{field} twice"
        entry[field] = value.decode()
    return entry


class Started:
    """A run that is under way."""

    def __init__(self, process: subprocess.Popen[bytes], node: Node) -> None:
        self.process = process
        self._node = node
        self._begin = time.monotonic()
        self._before = len(node.journal.datagrams) if node.journal else 0

    def finish(self, request: bytes) -> Run:
        """Writes the request, waits for the end."""
        try:
            stdout, stderr = self.process.communicate(request, timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        seconds = time.monotonic() - self._begin
        entries: list[Entry] = []
        if self._node.journal:
            self._node.journal.flush()
            entries = self._node.journal.entries[self._before :]
        return Run(self.process.returncode, stdout, stderr.decode(), seconds, entries)


class Node:
    """One node below ``root``.

    Args:
        root: an empty directory; its path must be short, since it holds a socket (108 bytes).
        command: what the kubelet would exec, before the flags.
        journald: whether one listens.
    """

    def __init__(self, root: Path, command: Sequence[str], *, journald: bool = True) -> None:
        self.root = root
        self.command = list(command)
        self.environment = {"PATH": "/usr/bin:/bin", "HOME": "/root"}
        self.flags = ["--root", str(root)]
        self.journal = Journal(self.journal_socket) if journald else None

    def __enter__(self) -> Node:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.journal:
            self.journal.close()

    # -- files -------------------------------------------------------------------------------------------------------

    @property
    def auth_dir(self) -> Path:
        return self.root / "etc/crio/auth"

    @property
    def registries_conf(self) -> Path:
        return self.root / "etc/containers/registries.conf"

    @property
    def registries_conf_dir(self) -> Path:
        return self.root / "etc/containers/registries.conf.d"

    @property
    def cache_dir(self) -> Path:
        return self.root / "run/crio-credential-provider"

    @property
    def journal_socket(self) -> Path:
        return self.root / "run/systemd/journal/socket"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "etc/kubernetes/kubelet.conf"

    def write(self, path: str | Path, content: str | bytes) -> Path:
        """A file below the root, with its directories."""
        return write(self.root, path, content)

    def write_registries_conf(self, text: str) -> None:
        self.write(self.registries_conf, text)

    def write_mirrors(self, prefix: str, *mirrors: str, location: str = "") -> None:
        """A registries.conf of one table."""
        table = f'[[registry]]\nprefix = "{prefix}"\nlocation = "{location or prefix}"\n'
        self.write_registries_conf(
            table + "".join(f'[[registry.mirror]]\nlocation = "{mirror}"\ninsecure = true\n' for mirror in mirrors)
        )

    def write_kubeconfig(self, url: str, authority: str = "", **cluster: str) -> Path:
        """The kubelet's, in the YAML that kubeadm writes; `authority` is PEM text."""
        members = {"server": url, **cluster}
        if authority:
            members["certificate-authority-data"] = base64.b64encode(authority.encode()).decode()
        return self.write(self.kubeconfig, kubeconfig_yaml(members))

    def join(self, cluster: ApiServer) -> None:
        """Makes it a node of this cluster, with a mirror for Docker Hub."""
        self.write_mirrors("docker.io", "mirror.corp:5000/hub")
        self.write_kubeconfig(cluster.url, cluster.authority.certificate_pem)

    def auth_files(self) -> dict[str, Any]:
        """Name -> parsed content, of every file in the auth directory that CRI-O could take."""
        if not self.auth_dir.exists():
            return {}
        return {file.name: json.loads(file.read_bytes()) for file in self.auth_dir.iterdir() if _is_final(file.name)}

    def auth_file_names(self) -> list[str]:
        """Names of all entries of the auth directory, temporary and lock files included."""
        return sorted(os.listdir(self.auth_dir)) if self.auth_dir.exists() else []

    # -- runs --------------------------------------------------------------------------------------------------------

    def start(self, *flags: str, env: Mapping[str, str] | None = None, **popen: Any) -> Started:
        """Runs the plugin as the kubelet does; its standard input is still open."""
        environment = {**self.environment, **(env or {})}
        if self.command[: len(COMMAND)] == list(COMMAND):
            environment |= {**ENVIRONMENT, **(env or {})}
        process = subprocess.Popen(
            [*self.command, *self.flags, *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=environment,
            **popen,
        )
        return Started(process, self)

    def run(self, request: bytes, *flags: str, env: Mapping[str, str] | None = None, **popen: Any) -> Run:
        """One run from its start to its end."""
        return self.start(*flags, env=env, **popen).finish(request)


def kubeconfig_yaml(cluster: Mapping[str, str]) -> str:
    members = "".join(f"    {name}: {value}\n" for name, value in cluster.items())
    return (
        f"apiVersion: v1\nclusters:\n- cluster:\n{members}  name: default-cluster\ncontexts:\n- context:\n"
        "    cluster: default-cluster\n    namespace: default\n    user: default-auth\n  name: default-context\n"
        "current-context: default-context\nkind: Config\npreferences: {}\nusers:\n- name: default-auth\n  user:\n"
        "    client-certificate: /var/lib/kubelet/pki/kubelet-client-current.pem\n"
        "    client-key: /var/lib/kubelet/pki/kubelet-client-current.pem\n"
    )


def _is_final(name: str) -> bool:
    return name.endswith(".json") and not name.startswith(".")
