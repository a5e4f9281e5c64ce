"""The cluster's certificates, and kubeconfigs that hold them."""

from __future__ import annotations

from pathlib import Path

import trustme
import yaml

APISERVER_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1")


class Authority:
    """The cluster's CA; files go below a directory as kubeadm names them."""

    def __init__(self, directory: Path) -> None:
        self._ca = trustme.CA(key_type=trustme.KeyType.RSA)
        self._directory = directory
        directory.mkdir(parents=True)
        self.certificate = directory / "ca.crt"
        self._ca.cert_pem.write_to_path(self.certificate)

    def issue(self, name: str, *hosts: str, common_name: str, organization: str = "") -> tuple[Path, Path]:
        """A certificate, for servers and clients, and its key."""
        leaf = self._ca.issue_cert(
            *(hosts or ("localhost",)),
            common_name=common_name,
            organization_name=organization or None,
            key_type=trustme.KeyType.RSA,
        )
        certificate, key = self._directory / f"{name}.crt", self._directory / f"{name}.key"
        leaf.cert_chain_pems[0].write_to_path(certificate)
        leaf.private_key_pem.write_to_path(key)
        key.chmod(0o600)
        return certificate, key

    def write_kubeconfig(self, path: Path, server: str, certificate: Path, key: Path) -> None:
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "kubernetes", "cluster": {"server": server, "certificate-authority": str(self.certificate)}}
            ],
            "users": [{"name": "user", "user": {"client-certificate": str(certificate), "client-key": str(key)}}],
            "contexts": [{"name": "default", "context": {"cluster": "kubernetes", "user": "user"}}],
            "current-context": "default",
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(document))
