"""The kubelet, on kubeadm's paths, with the flags that its unit and the provider's drop-in give it."""

from __future__ import annotations

import http.client
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from realnode import units
from realnode.controlplane import URL, ControlPlane
from realnode.processes import Process
from realnode.sandbox import ADDRESS, HOSTNAME

ROOT = Path("/var/lib/kubelet")
CONFIGURATION = ROOT / "config.yaml"
KUBECONFIG = Path("/etc/kubernetes/kubelet.conf")
STATIC_PODS = Path("/etc/kubernetes/manifests")
CREDENTIAL_PROVIDER_CONFIG = Path("/etc/kubernetes/credential-provider-config.yaml")
_HEALTH_PORT = 10248


class Kubelet:
    """It is started anew for each provider and configuration.

    Args:
        cgroup: of all pods, as in ``/node-test-1``.
    """

    def __init__(
        self,
        binaries: Mapping[str, str],
        logs: Path,
        environment: Mapping[str, str],
        control_plane: ControlPlane,
        cgroup: str,
    ) -> None:
        authority = control_plane.authority
        certificate, key = authority.issue(
            "kubelet", common_name=f"system:node:{HOSTNAME}", organization="system:nodes"
        )
        # kubeadm's: one file that rotates, for both keys.
        current = ROOT / "pki/kubelet-client-current.pem"
        current.parent.mkdir(parents=True)
        current.write_text(certificate.read_text() + key.read_text())
        current.chmod(0o600)
        authority.write_kubeconfig(KUBECONFIG, URL, current, current)
        STATIC_PODS.mkdir(parents=True)
        self.configuration: dict[str, Any] = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": str(authority.certificate)}},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": cgroup,
            "enforceNodeAllocatable": [],
            "evictionHard": {"memory.available": "10Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
            "failCgroupV1": False,
            "failSwapOn": False,
            "registryPullQPS": 0,
            "staticPodPath": str(STATIC_PODS),
        }
        Path("/etc/default/kubelet").write_text(f'KUBELET_EXTRA_ARGS="--node-ip={ADDRESS} --v=4"\n')
        self.process = Process([binaries["kubelet"]], logs / "kubelet.log", environment)

    def start(self, socket: Path, **configuration: Any) -> None:
        """Starts it as its unit says, waits until it is healthy.

        Args:
            socket: of the container runtime.
            configuration: more members of the KubeletConfiguration.
        """
        members = {**self.configuration, "containerRuntimeEndpoint": f"unix://{socket}", **configuration}
        CONFIGURATION.write_text(yaml.safe_dump(members))
        self.process.command = units.command("kubelet.service")
        self.process.start()
        self.process.wait_for(is_healthy, "healthy")

    def restart(self) -> None:
        """As it was started."""
        self.process.stop()
        self.process.start()
        self.process.wait_for(is_healthy, "healthy")

    def stop(self) -> None:
        self.process.stop()

    def pulls(self) -> int:
        """That have succeeded, since its first start."""
        with self.process.log.open(errors="replace") as log:
            return sum("Event occurred" in line and "Successfully pulled image" in line for line in log)

    def said_of(self, image: str) -> str:
        """What plugins that failed for an image have told it, a line each."""
        lines = self.process.output().splitlines()
        return "\n".join(line for line in lines if f" for image {image}: exit status " in line)

    def unserved(self) -> set[str]:
        """Repositories that it has pulled from without a provider's word: the run was killed, or got no token. Such a
        pull takes a file that waits for another one, and the kubelet knows of no credential
        (docs/explanation/pull-records.md)."""
        found = set()
        with self.process.log.open(errors="replace") as log:
            for line in log:
                if '"Failed to provide credentials for image"' in line and ": exit status " not in line:
                    found.update(re.findall(r' image="([^"]+)"', line))
        return found


def is_healthy() -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", _HEALTH_PORT, timeout=5)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
