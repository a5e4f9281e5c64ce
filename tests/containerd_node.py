"""A tree with a kubelet that pulls by containerd, a file with secrets, and the commands for people on both."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from node import basic, write

PASSWORD = "c4nary-Pa55word"
UNIT = "[Service]\nExecStart=/usr/bin/kubelet --container-runtime-endpoint=unix:///run/containerd/containerd.sock\n"
CONFIG = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "/etc/containerd/certs.d"\n'


class ContainerdNode:
    """What a person has of a node with containerd."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("etc/systemd/system/kubelet.service", UNIT)
        self.write("etc/containerd/config.toml", CONFIG)

    def write(self, path: str, text: str) -> Path:
        return write(self.root, path, text)

    def write_hosts(self, text: str, domain: str = "docker.io") -> str:
        """The file's path."""
        return str(self.write(f"etc/containerd/certs.d/{domain}/hosts.toml", text))

    def arguments(self, image: str, secrets: Mapping[str, Mapping[str, tuple[str, str]]], *more: str) -> list[str]:
        """Of a command for a pull in team-alpha; secrets by name, with user and password for each key."""
        items = [_secret(name, entries) for name, entries in secrets.items()]
        items.append(_object("ServiceAccount", "default", imagePullSecrets=[{"name": "of-the-account"}]))
        objects = self.write("objects.json", json.dumps({"kind": "List", "apiVersion": "v1", "items": items}))
        return [image, "-n", "team-alpha", "--secrets", str(objects), "--root", str(self.root), *more]


def alone(url: str) -> str:
    """The beginning of a hosts.toml whose mirror stands for the registry itself: nobody else is asked."""
    return f'server = "{url}"\n'


def host(url: str, *lines: str, capabilities: str = '["pull", "resolve"]') -> str:
    """A ``[host]`` table."""
    return "\n".join((f'[host."{url}"]', f"capabilities = {capabilities}", *lines, ""))


def _object(kind: str, name: str, **members: Any) -> dict[str, Any]:
    return {"kind": kind, "apiVersion": "v1", "metadata": {"name": name, "namespace": "team-alpha"}, **members}


def _secret(name: str, entries: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    content = json.dumps({"auths": {key: {"auth": basic(*login)} for key, login in entries.items()}})
    data = {".dockerconfigjson": base64.b64encode(content.encode()).decode()}
    return _object("Secret", name, type="kubernetes.io/dockerconfigjson", data=data)
