"""etcd, API server and controller manager, and a client of them with all rights."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from realnode.pki import APISERVER_NAMES, Authority
from realnode.processes import Process, RigError, wait_until
from realnode.sandbox import ADDRESS, SERVICE_ADDRESS

PORT = 6443
URL = f"https://{ADDRESS}:{PORT}"
# kubeadm's, and so the default audience of `manifests`.
ISSUER = "https://kubernetes.default.svc.cluster.local"
PKI = Path("/etc/kubernetes/pki")
_ETCD = "http://127.0.0.1:2379"
_CONTROLLERS = (
    *("serviceaccount-controller", "namespace-controller", "root-ca-certificate-publisher-controller"),
    *("daemonset-controller", "garbage-collector-controller"),
)


class ControlPlane:
    """All three, on their usual ports and below kubeadm's paths.

    Args:
        logs: a directory.
    """

    def __init__(self, binaries: Mapping[str, str], logs: Path, environment: Mapping[str, str]) -> None:
        self._kubectl = binaries["kubectl"]
        self.authority = Authority(PKI)
        certificate, key = self.authority.issue("admin", common_name="kubernetes-admin", organization="system:masters")
        self.kubeconfig = Path("/etc/kubernetes/admin.conf")
        self.authority.write_kubeconfig(self.kubeconfig, URL, certificate, key)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # Not all of the API server's certificates are valid today.
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE
        self._tls.load_cert_chain(certificate, key)
        server, server_key = self._issue_server_certificate()
        _, account_key = self.authority.issue("sa", common_name="service-accounts")
        self.etcd = Process(
            [
                *(binaries["etcd"], "--data-dir=/var/lib/etcd", f"--listen-client-urls={_ETCD}"),
                *(f"--advertise-client-urls={_ETCD}", "--listen-peer-urls=http://127.0.0.1:2380", "--unsafe-no-fsync"),
            ],
            logs / "etcd.log",
            environment,
        )
        self.apiserver = Process(
            [
                *(binaries["kube-apiserver"], f"--etcd-servers={_ETCD}", f"--secure-port={PORT}"),
                *(f"--tls-cert-file={server}", f"--tls-private-key-file={server_key}"),
                *(f"--client-ca-file={self.authority.certificate}", f"--service-account-issuer={ISSUER}"),
                *(f"--service-account-key-file={account_key}", f"--service-account-signing-key-file={account_key}"),
                *("--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"),
                *("--allow-privileged=true", "--service-cluster-ip-range=10.96.0.0/24"),
                *(f"--kubelet-client-certificate={certificate}", f"--kubelet-client-key={key}"),
                "--kubelet-preferred-address-types=InternalIP",
            ],
            logs / "kube-apiserver.log",
            environment,
        )
        self.controller_manager = Process(
            [
                *(binaries["kube-controller-manager"], f"--kubeconfig={self.kubeconfig}", "--leader-elect=false"),
                *(f"--service-account-private-key-file={account_key}", f"--controllers={','.join(_CONTROLLERS)}"),
                f"--root-ca-file={self.authority.certificate}",
            ],
            logs / "kube-controller-manager.log",
            environment,
        )

    def start(self) -> None:
        self.etcd.start()
        self.apiserver.start()
        self.apiserver.wait_for(self.is_ready, "ready")
        self.controller_manager.start()

    def stop(self) -> None:
        for process in (self.controller_manager, self.apiserver, self.etcd):
            process.stop()

    def is_ready(self) -> bool:
        try:
            return self._request("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def _issue_server_certificate(self, day: datetime | None = None) -> tuple[Path, Path]:
        names = (*APISERVER_NAMES, ADDRESS, SERVICE_ADDRESS)
        return self.authority.issue("apiserver", *names, common_name="kube-apiserver", day=day)

    @contextlib.contextmanager
    def valid_around(self, day: datetime) -> Iterator[None]:
        """With a certificate of the API server's that is valid on that day; it reads the files anew by itself."""
        try:
            self._serve(self._issue_server_certificate(day)[0])
            yield
        finally:
            self._serve(self._issue_server_certificate()[0])

    def _serve(self, certificate: Path) -> None:
        """Waits until new connections get it."""
        wanted = ssl.PEM_cert_to_DER_cert(certificate.read_text())
        if not wait_until(lambda: self._served() == wanted, 90):
            raise RigError("the API server has not read its certificate anew within 90 s")

    def _served(self) -> bytes | None:
        connection = socket.create_connection((ADDRESS, PORT), 10)
        with self._tls.wrap_socket(connection, server_hostname=ADDRESS) as tls:
            return tls.getpeercert(binary_form=True)

    # -- requests ----------------------------------------------------------------------------------------------------

    def _request(
        self, method: str, path: str, document: Any = None, kind: str = "application/json"
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPSConnection(ADDRESS, PORT, context=self._tls, timeout=30)
        try:
            body = None if document is None else json.dumps(document)
            connection.request(method, path, body, {"Content-Type": kind, "Accept": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def call(self, method: str, path: str, document: Any = None, kind: str = "application/json") -> Any:
        """The decoded answer; RigError for one that is no success."""
        return _decoded(method, path, self._request(method, path, document, kind))

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def find(self, path: str) -> Any | None:
        """An object, or None where there is none."""
        answer = self._request("GET", path)
        return None if answer[0] == 404 else _decoded("GET", path, answer)

    def create(self, path: str, document: Mapping[str, Any]) -> Any:
        return self.call("POST", path, document)

    def patch(self, path: str, document: Mapping[str, Any]) -> Any:
        return self.call("PATCH", path, document, "application/merge-patch+json")

    def delete(self, path: str) -> None:
        self.call("DELETE", path, {"gracePeriodSeconds": 0})

    def apply(self, objects: str) -> None:
        """``kubectl apply`` of YAML or JSON text, as the documentation tells users to do."""
        self.kubectl("apply", "-f", "-", "--validate=false", stdin=objects)

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            [self._kubectl, f"--kubeconfig={self.kubeconfig}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RigError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout


def _decoded(method: str, path: str, answer: tuple[int, bytes]) -> Any:
    status, body = answer
    if status >= 300:
        raise RigError(f"{method} {path}: {status}: {body.decode(errors='replace')[:500]}")
    return json.loads(body)
