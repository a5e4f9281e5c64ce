"""What is measured: cases, the node's files for each, and what a run must leave behind to count.

A case is a node as an operator would have it, at the places where every plugin of this kind looks, below a root that
is empty in a mount namespace of its own: registries.conf, apiserver-url.env with the cluster's CA, the kubelet's
config.json. It knows no contender.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import trustme
from canned_apiserver import Answer, credential, pod, secret_list, single_secret

from crio_credential_provider.images import dockerconfig
from crio_credential_provider.pull import authfile
from crio_credential_provider.testbed.certificates import Authority

IMAGE = "docker.io/library/nginx"
RSA, P256 = "RSA 2048", "P-256"
POD_UID = "0f8f3a86-5d4e-4a39-b9ee-94c1b6a20d6e"
NODE = "system:node:node1"

# Seconds from which a configuration file counts as settled, so that its parsed form is kept, and a bit.
SETTLED = 2.1


class Case(NamedTuple):
    """One situation.

    Attributes:
        name: for the table.
        secrets: how many the namespace has; 0 where none is asked for.
        mirrors: of the image's registry; 0: no table is about it.
        certificate: kind of the API server's.
        cold: whether the parsed configuration is thrown away before each run.
        at_once: how many runs start at the same time, each for a namespace of its own.
        flags: of the plugin; a contender that takes no flags cannot do the case.
    """

    name: str
    secrets: int = 0
    mirrors: int = 1
    certificate: str = RSA
    cold: bool = False
    at_once: int = 1
    flags: tuple[str, ...] = ()

    @property
    def namespaces(self) -> list[str]:
        """One for each run at the same time, so that none waits for another's auth file."""
        stem = "pod" if self.flags else f"s{self.secrets}-m{self.mirrors}"
        return [f"team-{stem}-{number}" for number in range(self.at_once)]

    @property
    def keys(self) -> list[str]:
        """The registry of each secret: those of the mirrors in the midst of others."""
        hosts = mirror_hosts(self.mirrors)
        others = [f"registry-{number:04}.example.com" for number in range(max(0, self.secrets - len(hosts)))]
        half = len(others) // 2
        return [*others[:half], *hosts, *others[half:]][: self.secrets]


POD_MODE = ("--secrets-from", "pod")

CASES = (
    Case("no mirror", mirrors=0),
    Case("no mirror, cold cache", mirrors=0, cold=True),
    Case("1 secret", 1),
    Case("1 secret, P-256", 1, certificate=P256),
    Case("1 secret, cold cache", 1, cold=True),
    Case("10 secrets", 10),
    Case("200 secrets", 200),
    Case("1,000 secrets", 1000),
    Case("1,000 mirrors x 1,000 secrets", 1000, 1000),
    Case("1 secret, --secrets-from pod", 1, flags=POD_MODE),
    Case("1 secret, 8 at a time", 1, at_once=8),
)


def mirror_hosts(count: int) -> list[str]:
    return [f"mirror-{number:04}.corp.example:5000" for number in range(count)]


def answers(cases: Iterable[Case]) -> dict[str, Answer]:
    """What the API server says in these cases, by path."""
    found: dict[str, Answer] = {}
    for case in cases:
        for namespace in case.namespaces if case.secrets else ():
            path = f"/api/v1/namespaces/{namespace}"
            if case.flags:
                found[f"{path}/pods/web"] = pod(namespace, "web", POD_UID, "default", ["mirror-creds"])
                found[f"{path}/secrets/mirror-creds"] = single_secret(namespace, "mirror-creds", case.keys[0])
            elif f"{path}/secrets" not in found:
                found[f"{path}/secrets"] = secret_list(namespace, case.keys)
    return found


# -- the kubelet's request --------------------------------------------------------------------------------------------


def request(namespace: str) -> bytes:
    """As a kubelet spells it. The token has the claims of a bound one, and a signature of RS256's length."""
    now = int(time.time())
    claims = {
        "aud": ["https://kubernetes.default.svc.cluster.local"],
        "exp": now + 3600,
        "iat": now,
        "iss": "https://kubernetes.default.svc.cluster.local",
        "jti": "8427fbe2-17c7-456c-a7c6-3de1df057ca4",
        "kubernetes.io": {
            "namespace": namespace,
            "node": {"name": "node1", "uid": "2cf87b32-eb45-4f2c-bba6-dbfb23d48407"},
            "pod": {"name": "web", "uid": POD_UID},
            "serviceaccount": {"name": "default", "uid": "94cb40b8-28b5-48fc-91e6-2f91f35dfd39"},
        },
        "nbf": now,
        "sub": f"system:serviceaccount:{namespace}:default",
    }
    parts = (b'{"alg":"RS256","kid":"m07GX-k5Dkn5oxfXJSZ0WVKQAyBuofWqCD2rG_n4kpw"}', _compact(claims), bytes(256))
    token = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
    return _compact(
        {
            "kind": "CredentialProviderRequest",
            "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
            "image": IMAGE,
            "serviceAccountToken": token,
        }
    )


def _compact(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


# -- certificates -----------------------------------------------------------------------------------------------------


class Certificates(NamedTuple):
    """PEM files: the cluster's CA, the API server's certificate with its key, and the kubelet's."""

    authority: Path
    server: Path
    client: Path


def make_certificates(kind: str, directory: Path) -> Certificates:
    """A cluster's certificates of one kind."""
    directory.mkdir()
    made = Certificates(*(directory / f"{name}.pem" for name in Certificates._fields))
    if kind == RSA:
        _make_rsa(made)
        return made
    authority = Authority.make("kubernetes")
    made.authority.write_text(authority.certificate_pem)
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
    server = authority.issue("kube-apiserver", dns_names=names, ip_addresses=["127.0.0.1"])
    made.server.write_text(server.certificate_pem + server.key_pem)
    client = authority.issue(NODE, organization="system:nodes", client=True)
    made.client.write_text(client.certificate_pem + client.key_pem)
    return made


def _make_rsa(made: Certificates) -> None:
    authority = trustme.CA(key_type=trustme.KeyType.RSA)
    names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1")
    server = authority.issue_cert(*names, common_name="kube-apiserver", key_type=trustme.KeyType.RSA)
    client = authority.issue_cert(common_name=NODE, organization_name="system:nodes", key_type=trustme.KeyType.RSA)
    authority.cert_pem.write_to_path(made.authority)
    server.private_key_and_cert_chain_pem.write_to_path(made.server)
    client.private_key_and_cert_chain_pem.write_to_path(made.client)


# -- the node ---------------------------------------------------------------------------------------------------------

_OTHER = """\
unqualified-search-registries = ["docker.io"]

[[registry]]
prefix = "quay.example.com/team"
location = "quay.example.com/team"

[[registry.mirror]]
location = "mirror.other.example.com/quay"
"""


def registries_conf(mirrors: int) -> str:
    """A table for another registry, and one with so many mirrors for the image's."""
    if not mirrors:
        return _OTHER
    tables = "".join(f'\n[[registry.mirror]]\nlocation = "{host}/hub"\n' for host in mirror_hosts(mirrors))
    return f'{_OTHER}\n[[registry]]\nlocation = "docker.io"\n{tables}'


class Node:
    """The files of a node below a root, which is ``/`` in a mount namespace of its own."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._auth_directory = root / "etc/crio/auth"
        self._cache = root / "run/crio-credential-provider"

    def lay_out(self, case: Case, port: int, certificates: Certificates) -> None:
        """Makes the node that of a case, and waits until its configuration counts as settled."""
        for directory in self._directories():
            directory.mkdir(parents=True, exist_ok=True)
            _empty(directory)
        self._auth_directory.mkdir(mode=0o700)
        # A kubelet that keeps pull intents, and is about to pull nothing.
        self._path("var/lib/kubelet/image_manager/pulling").mkdir(parents=True)
        self._path("var/lib/kubelet/config.json").write_text(
            json.dumps({"auths": {"registry.example.org": {"auth": credential("registry.example.org")}}})
        )
        self._path("etc/containers/registries.conf").write_text(registries_conf(case.mirrors))
        self._path("etc/kubernetes/pki").mkdir()
        shutil.copy(certificates.authority, self._path("etc/kubernetes/pki/ca.crt"))
        self._path("etc/kubernetes/apiserver-url.env").write_text(
            f"KUBERNETES_SERVICE_HOST=127.0.0.1\nKUBERNETES_SERVICE_PORT={port}\n"
        )
        if case.flags:
            self._write_kubeconfig(port, certificates)
        time.sleep(SETTLED)

    def _directories(self) -> list[Path]:
        places = ("etc/containers", "etc/kubernetes", "etc/crio", "var/lib/kubelet", "run/crio-credential-provider")
        return [self._path(place) for place in places]

    def _path(self, place: str) -> Path:
        return self._root / place

    def _write_kubeconfig(self, port: int, certificates: Certificates) -> None:
        """As kubeadm writes it: the CA embedded, the client's certificate and key in one file that is rotated."""
        shutil.copy(certificates.client, self._path("var/lib/kubelet/client.pem"))
        cluster = {
            "server": f"https://127.0.0.1:{port}",
            "certificate-authority-data": base64.b64encode(certificates.authority.read_bytes()).decode(),
        }
        file = "/var/lib/kubelet/client.pem"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "default", "cluster": cluster}],
            "contexts": [{"name": "default", "context": {"cluster": "default", "user": "default"}}],
            "current-context": "default",
            "users": [{"name": "default", "user": {"client-certificate": file, "client-key": file}}],
        }
        self._path("etc/kubernetes/kubelet.conf").write_text(json.dumps(document))

    def before_run(self, case: Case) -> None:
        """Takes away what an earlier run left: its auth file, as CRI-O would, and in a cold case the kept forms."""
        _empty(self._auth_directory)
        if case.cold:
            _empty(self._cache)

    def check(self, case: Case, answers: Sequence[bytes]) -> None:
        """Raises AssertionError unless every run answered, and left the file that CRI-O finds its credentials in."""
        for answer in answers:
            assert json.loads(answer)["kind"] == "CredentialProviderResponse", answer
        files = {path.name: path.read_bytes() for path in self._auth_directory.iterdir()}
        expected = {authfile.file_name(namespace, IMAGE) for namespace in case.namespaces if case.secrets}
        assert set(files) == expected, f"auth files {sorted(files)}, not {sorted(expected)}"
        for content in files.values():
            config = dockerconfig.loads(content)
            for host in mirror_hosts(case.mirrors)[: case.secrets]:
                found = dockerconfig.find_credential(config, f"{host}/hub/library/nginx")
                assert found is not None, f"no credential for {host}"
                userpass = found.credential.username + b":" + found.credential.password
                assert base64.b64encode(userpass).decode() == credential(host), f"a wrong credential for {host}"

    def keeps_forms(self) -> bool:
        """Whether a run kept the parsed configuration for the next."""
        return any(self._cache.glob("registries-*.json"))


def _empty(directory: Path) -> None:
    with os.scandir(directory) as entries:
        for entry in entries:
            shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)
