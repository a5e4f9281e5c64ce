"""The container runtimes, on their default paths: CRI-O, and containerd of the distribution."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from real_programs import need
from realnode import units
from realnode.processes import Process
from realnode.registry import HOST, PAUSE_IMAGE, PUSH, Registry, docker_config

AUTH_DIR = Path("/etc/crio/auth")
# The kubelet's and OpenShift's; there is no such file until a test writes one.
GLOBAL_AUTH_FILE = Path("/var/lib/kubelet/config.json")
REGISTRIES_CONF = Path("/etc/containers/registries.conf")

# A mirror for Docker Hub, which itself cannot be reached.
REGISTRIES = f"""\
unqualified-search-registries = ["docker.io"]

[[registry]]
prefix = "docker.io"
location = "docker.io"

[[registry.mirror]]
location = "{HOST}"
insecure = true

[[registry]]
location = "{HOST}"
insecure = true
"""

# The pods' images name no user, and need neither SELinux nor seccomp; vfs works on every file system.
_CONFIGURATION = """\
[crio]
storage_driver = "vfs"
[crio.runtime]
cgroup_manager = "cgroupfs"
conmon_cgroup = "pod"
default_runtime = "runc"
log_level = "debug"
selinux = false
apparmor_profile = "unconfined"
seccomp_profile = ""
[crio.runtime.runtimes.runc]
runtime_path = "{runtime}"
monitor_path = "{conmon}"
[crio.image]
global_auth_file = "{global_auth_file}"
pause_image = "{pause_image}"
pause_image_auth_file = "{pause_auth}"
pause_command = "/pause"
[crio.network]
network_dir = "/etc/cni/net.d"
plugin_dirs = ["/etc/cni/bin"]
"""
# CRI-O is ready with it, and so the node is; most pods use the host's network. A pod reaches the node alone.
_NETWORK = {"cniVersion": "0.4.0", "name": "node", "plugins": [{"type": "node"}]}
_NETWORK_PLUGIN = Path("/etc/cni/bin/node")
_NETWORK_SCRIPT = """\
#!/bin/sh -e
PATH=/usr/sbin:/usr/bin:/sbin:/bin
case $CNI_COMMAND in
ADD)
  number=$(cat /run/pods 2>/dev/null || echo 1)
  number=$((number + 1))
  echo $number >/run/pods
  netns=${CNI_NETNS##*/} address=10.98.0.$number
  ip link add pod$number type veth peer name "$CNI_IFNAME" netns "$netns"
  ip link set pod$number up
  ip route add $address dev pod$number
  ip -n "$netns" address add $address/32 dev "$CNI_IFNAME"
  ip -n "$netns" link set "$CNI_IFNAME" up
  ip -n "$netns" route add default dev "$CNI_IFNAME"
  echo '{"cniVersion": "0.4.0", "ips": [{"version": "4", "address": "'$address/32'"}]}'
  ;;
VERSION) echo '{"cniVersion": "0.4.0", "supportedVersions": ["0.4.0"]}' ;;
esac
"""
# What a critical, privileged pod's container is given, root has it not without CAP_SYS_RESOURCE.
_RUNTIME = Path("/etc/crio/runtime")
_RUNTIME_SCRIPT = """\
#!/bin/sh
for word; do
  case $before in
  --bundle) file=$word/config.json ;;
  --process) file=$word ;;
  *) file= ;;
  esac
  [ -z "$file" ] || sed -i 's/"oomScoreAdj": *-[0-9]*/"oomScoreAdj": 0/; s/"CAP_SYS_RESOURCE",//g' "$file"
  before=$word
done
exec {runc} "$@"
"""


class Crio:
    socket = Path("/run/crio/crio.sock")

    def __init__(
        self, binaries: Mapping[str, str], logs: Path, environment: Mapping[str, str], registry_password: str
    ) -> None:
        self.process = Process(units.command("crio.service"), logs / "crio.log", environment)
        pause_auth = Path("/etc/crio/pause-auth.json")
        _write("/etc/containers/policy.json", '{"default":[{"type":"insecureAcceptAnything"}]}')
        _write(REGISTRIES_CONF, REGISTRIES)
        _write("/etc/cni/net.d/10-node.conflist", json.dumps(_NETWORK))
        _write(_NETWORK_PLUGIN, _NETWORK_SCRIPT)
        _NETWORK_PLUGIN.chmod(0o755)
        _write(_RUNTIME, _RUNTIME_SCRIPT.format(runc=binaries["runc"]))
        _RUNTIME.chmod(0o755)
        _write(pause_auth, json.dumps(docker_config(PUSH, registry_password)))
        _write(
            "/etc/crio/crio.conf",
            _CONFIGURATION.format(
                runtime=_RUNTIME,
                conmon=binaries["conmon"],
                global_auth_file=GLOBAL_AUTH_FILE,
                pause_image=PAUSE_IMAGE,
                pause_auth=pause_auth,
            ),
        )

    def start(self) -> None:
        self.process.start()
        self.process.wait_for(lambda: answers(self.socket), "socket")


_CONTAINERD_CONFIGURATION = """\
version = 2
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause_image}"
disable_apparmor = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "/etc/containerd/certs.d"
"""
# The mirror for Docker Hub, and no other host.
_HOSTS = f"""\
server = "http://{HOST}"
[host."http://{HOST}"]
"""


class Containerd:
    """With the same mirror for Docker Hub. It reads no auth files: the pause image is imported.

    $CONTAINERD names another one than that of the distribution, with its own ctr and shim beside it.
    """

    socket = Path("/run/containerd/containerd.sock")
    _hosts = Path("/etc/containerd/certs.d/docker.io/hosts.toml")

    def __init__(self, registry: Registry, logs: Path, environment: Mapping[str, str]) -> None:
        self._registry = registry
        self.program = shutil.which(os.environ.get("CONTAINERD") or "containerd")
        directory = os.path.dirname(self.program or "")
        self._environment = {**environment, "PATH": f"{directory}:{environment['PATH']}"}
        self.process = Process([self.program or "containerd"], logs / "containerd.log", self._environment)
        _write("/etc/containerd/config.toml", _CONTAINERD_CONFIGURATION.format(pause_image=PAUSE_IMAGE))
        _write(self._hosts, _HOSTS)

    def start(self) -> None:
        need(self.process.command[0], "ctr")
        self.process.start()
        self.process.wait_for(lambda: answers(self.socket), "socket")
        archive = self._registry.pause_archive()
        subprocess.run(
            ["ctr", "--namespace=k8s.io", "images", "import", "--no-unpack", archive],
            env=self._environment,
            capture_output=True,
            check=True,
        )

    @contextlib.contextmanager
    def hosts(self, text: str) -> Iterator[None]:
        """Another hosts.toml for Docker Hub, which containerd reads at each pull."""
        before = self._hosts.read_text()
        self._hosts.write_text(text)
        try:
            yield
        finally:
            self._hosts.write_text(before)


def answers(path: Path) -> bool:
    """Whether somebody listens; the socket that a killed runtime has left is there, too."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def _write(path: str | Path, text: str) -> None:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
