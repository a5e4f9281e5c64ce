"""The program under test as it is installed by its own commands, and a peer to compare it with."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from realnode import units
from realnode.controlplane import ISSUER
from realnode.kubelet import CREDENTIAL_PROVIDER_CONFIG
from realnode.processes import RigError

NAME = "crio-credential-provider"
PULL_SECRET = "mirror-creds"
MODES = ("namespace", "pod", "service-account")
# What gives the kubelet its two flags.
DROP_IN = units.DIRECTORY / "kubelet.service.d/20-crio-credential-provider.conf"
_BIN_DIR = re.compile(r"--image-credential-provider-bin-dir=([^\s\"]+)")


class Program:
    """The program as shipped, which writes the manifests of a whole node.

    Args:
        log: gets all that it says.
    """

    def __init__(self, path: Path, kubernetes: str, scratch: Path, log: Path) -> None:
        self.path = path
        self._log = log
        self._kubernetes = kubernetes
        self._scratch = scratch

    def run(self, *arguments: str | Path, statuses: Sequence[int] = (0,)) -> str:
        """Standard output. RigError for another exit status."""
        done = subprocess.run([self.path, *arguments], capture_output=True, text=True, check=False)
        with self._log.open("a") as log:
            log.write(done.stdout + done.stderr)
        if done.returncode not in statuses:
            raise RigError(
                f"{' '.join(map(str, arguments))}: exit status {done.returncode}: {done.stderr or done.stdout}"
            )
        return done.stdout

    def node_rbac(self) -> str:
        return self.run("manifests", "rbac")

    def grant(self, namespace: str, secrets_from: str) -> str:
        """What lets the pods of a namespace use its pull secret."""
        named = () if secrets_from == "namespace" else ("--service-account=default", f"--pull-secret={PULL_SECRET}")
        return self.run("manifests", "pull-secrets", "-n", namespace, f"--secrets-from={secrets_from}", *named)

    def write_node_files(self, secrets_from: str) -> Path:
        """The node's files to their places; returns the kubelet's directory of providers."""
        files = self._scratch / "manifests"
        shutil.rmtree(files, ignore_errors=True)
        self.run(
            *("manifests", "config", "kubelet", "mount", "tmpfiles", f"--directory={files}"),
            *(f"--secrets-from={secrets_from}", f"--kubernetes={self._kubernetes}"),
        )
        shutil.copytree(files / "node", "/", dirs_exist_ok=True)
        (bin_dir,) = _BIN_DIR.findall(DROP_IN.read_text())
        return Path(bin_dir)


class Provider(NamedTuple):
    """A column of the table.

    Attributes:
        peer: another provider's program; None for ours.
    """

    name: str
    peer: Path | None = None

    @property
    def modes(self) -> Sequence[str]:
        return MODES if self.peer is None else MODES[:1]

    def install(self, program: Program, secrets_from: str) -> Path:
        """Puts the provider and its configuration to their places; returns the kubelet's directory of providers."""
        bin_dir = program.write_node_files(secrets_from)
        shutil.rmtree(bin_dir, ignore_errors=True)
        bin_dir.mkdir(parents=True)
        if self.peer is None:
            program.run("install-on-node", bin_dir)
        else:
            shutil.copy(self.peer, bin_dir / NAME)
            CREDENTIAL_PROVIDER_CONFIG.write_text(yaml.safe_dump(peer_configuration()))
        return bin_dir


def peer_configuration() -> dict[str, Any]:
    """As the Go provider's own end-to-end test has it."""
    attributes = {"serviceAccountTokenAudience": ISSUER, "cacheType": "Token", "requireServiceAccount": False}
    provider = {
        "name": NAME,
        "matchImages": ["docker.io"],
        "defaultCacheDuration": "1s",
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "tokenAttributes": attributes,
    }
    return {
        "apiVersion": "kubelet.config.k8s.io/v1",
        "kind": "CredentialProviderConfig",
        "providers": [provider],
    }
