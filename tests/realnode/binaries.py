"""The programs that a real node is made of, none of which is part of this project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

NODE_BIN = ("kube-apiserver", "kube-controller-manager", "kubelet", "kubectl", "crio", "pinns")
DISTRIBUTION = (
    *("docker-registry", "skopeo", "htpasswd", "conmon", "runc", "gcc"),
    *("ip", "journalctl", "mount", "setpriv", "systemd-journald", "unshare"),
)
# What a program of ours is asked to see that it runs at all; pinns has no such flag.
_SIGN_OF_LIFE = {"kubectl": ("version", "--client"), "pinns": None}

WHERE = """\
NODE_BIN is not set: it names a directory with kube-apiserver, kube-controller-manager, kubelet, kubectl, crio, pinns.
A Kubernetes release has the first four in its server archive (kubernetes-server-linux-ARCH.tar.gz, listed in its
CHANGELOG), a CRI-O release of the same minor version the other two in its static bundle. kube-apiserver and etcd may
also be those of envtest (KUBEBUILDER_ASSETS), etcd that of the distribution."""


class BinaryError(Exception):
    """A program that is missing, or does not run."""


def find() -> dict[str, str]:
    """Paths by program.

    Raises:
        BinaryError: names each program that is missing, or the first that does not run.
    """
    node_bin, envtest = (
        os.path.abspath(os.environ.get(name) or "/none") for name in ("NODE_BIN", "KUBEBUILDER_ASSETS")
    )
    system = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/lib/systemd:/lib/systemd"
    places = dict.fromkeys(NODE_BIN, node_bin) | dict.fromkeys(DISTRIBUTION, system)
    places |= {"kube-apiserver": f"{node_bin}:{envtest}", "etcd": f"{node_bin}:{envtest}:{system}"}
    found = {name: shutil.which(name, path=place) for name, place in places.items()}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        needed = [name for name in missing if name in NODE_BIN]
        others = [name for name in missing if name not in NODE_BIN]
        reasons = [f"not in {node_bin}: {', '.join(needed)}"] * bool(needed)
        raise BinaryError("; ".join(reasons + [f"not installed: {', '.join(others)}"] * bool(others)))
    paths = {name: path for name, path in found.items() if path}
    for name in (*NODE_BIN, "etcd"):
        _try(name, paths[name])
    return paths


def _try(name: str, path: str) -> None:
    arguments = _SIGN_OF_LIFE.get(name, ("--version",))
    if arguments is None:
        return
    try:
        done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BinaryError(f"{path} does not run: {error}") from error
    if done.returncode != 0:
        raise BinaryError(f"{path} does not run: exit status {done.returncode}: {done.stderr.strip()[-500:]}")


def version(path: str) -> str:
    """What a program says of itself, as in ``1.36.2``."""
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+\.\d+\.\d+", said)
    if not found:
        raise BinaryError(f"{path} --version names no version: {said!r}")
    return found[0]
