"""The node's systemd units, without systemd: what a service runs, and what a mount mounts."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from crio_credential_provider.node.commandline import find_unit
from crio_credential_provider.node.tree import Tree
from node import TESTS
from realnode.processes import RigError

DIRECTORY = Path("/etc/systemd/system")
# The packages of Kubernetes and CRI-O have these.
_PACKAGES = TESTS / "gallery/nodes/kubeadm/root/usr/lib/systemd/system"


def install() -> None:
    """The services of the kubelet and CRI-O as their packages have them."""
    for name in ("kubelet.service", "crio.service"):
        shutil.copy(_PACKAGES / name, DIRECTORY)
    shutil.copytree(_PACKAGES / "kubelet.service.d", DIRECTORY / "kubelet.service.d")


def command(service: str) -> list[str]:
    """What systemd would run, with the service's drop-ins and environment files."""
    unit = find_unit(Tree(), service)
    if not unit:
        raise RigError(f"no unit {service}")
    return [word.text for word in unit.words]


def mount(unit: str) -> None:
    """Mounts a unit's file system, where that is not mounted."""
    text = (DIRECTORY / unit).read_text()
    given = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    place = Path(given["Where"])
    if not place.is_mount():
        place.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", given["Type"], "-o", given["Options"], given["What"], place], check=True)
