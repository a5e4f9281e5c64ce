"""Nodes for rollouts: trees of each layout, a kubelet that refuses what a kubelet refuses, and a systemd to start it.

The kubelet is a process (``python tests/rollout_node.py kubelet ROOT PORT``), which reads its units, environment files
and CredentialProviderConfig as it finds them, and ends with a reason where a kubelet would; else it serves healthz.
``Systemd`` answers the stand-ins for systemctl and journalctl that lie in the tree, which are shell scripts, as they
are run below the node's root. All this is written from systemd's, the kubelet's and k3s' rules, not from the program.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import yaml

from credentialproviderconfig import faults

NAME = "crio-credential-provider"
PROGRAM = b"#!/bin/sh\n# crio_credential_provider 0.9.0, for a test\n"
_GO_MODULE = "github.com/cri-o/crio-credential-provider"
GO_PROGRAM = f"#!/bin/sh\n#\tgo1.26.0path\t{_GO_MODULE}/cmd/{NAME}\nmod\t{_GO_MODULE}\tv0.1.2\t\n".encode()
"""As cri-o's provider: the build information that Go puts into a program."""
GO_CONFIG = """\
---
# As the tests of cri-o's provider have it.
kind: CredentialProviderConfig
apiVersion: kubelet.config.k8s.io/v1
providers:
  - name: crio-credential-provider
    matchImages:
      - docker.io
    defaultCacheDuration: "1s"   # nearly none
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    tokenAttributes:
      serviceAccountTokenAudience: https://kubernetes.default.svc
      cacheType: "Token"
      requireServiceAccount: false
"""
OWN = "var/lib/crio-credential-provider/rollout"

_KUBEADM = """\
[Service]
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-{extra}
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
"""
_OPENSHIFT = """\
[Service]
Type=notify
Environment="KUBELET_LOG_LEVEL=2"
ExecStart=/usr/local/bin/kubenswrapper \\
    /usr/bin/kubelet \\
      --config=/etc/kubernetes/kubelet.conf \\
      --container-runtime-endpoint=/var/run/crio/crio.sock \\
      $KUBELET_CRIO_IMAGE_CREDENTIAL_PROVIDER_FLAGS \\
      --v=${KUBELET_LOG_LEVEL}
"""
_OTHERS = """\
# Of the platform team; do not remove.
kind:   CredentialProviderConfig
apiVersion: kubelet.config.k8s.io/v1
providers:
-   name:  ecr-credential-provider   # the cloud's
    matchImages: [ "*.dkr.ecr.*.amazonaws.com" ]
    defaultCacheDuration: "12h"
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    env:
    - {name: AWS_PROFILE, value: "pull"}

# The end.
"""
_CONFIG = "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\n{endpoint}healthzPort: {port}\n"
_CRIO_ENDPOINT = "containerRuntimeEndpoint: unix:///var/run/crio/crio.sock\n"
_CRIO_UNIT = "[Service]\nType=notify\nExecStart=/usr/bin/crio\n"
_KUBELET_PACKAGE = "Package: kubelet\nVersion: 1.34.2-1.1\n\n"
_PACKAGES = f"{_KUBELET_PACKAGE}Package: cri-o\nVersion: 1.34.3-1.1\n"
_REGISTRIES = (
    '[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "127.0.0.1:1/hub"\ninsecure = true\n'
)
CRIO = {
    "/etc/containers/registries.conf": _REGISTRIES,
    "/etc/crio/crio.conf.d/10-crio.conf": '[crio.runtime]\ndefault_runtime = "crun"\n',
    "/usr/lib/systemd/system/crio.service": _CRIO_UNIT,
    "/var/lib/dpkg/status": _PACKAGES,
    "/var/lib/crio/version": '"1.34.3"\n',
    "/etc/kubernetes/keep": "",
}
_CONTAINERD_TOML = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "{directory}"\n'
# The server is the mirror as well, so that no other host can be shown its credential.
_HOSTS_TOML = """\
server = "https://127.0.0.1:1/v2/hub"
override_path = true
[host."https://127.0.0.1:1/v2/hub"]
capabilities = ["pull", "resolve"]
override_path = true
"""
_EXTRA = "# The node's own; don't edit by hand.\nOTHER=1\nKUBELET_EXTRA_ARGS='--node-ip=10.0.0.1'\n"


_UNITS = {"rke2": "rke2-server"}


def _rancher(name: str) -> dict[str, str]:
    return {
        f"/etc/systemd/system/{_UNITS.get(name, name)}.service": "[Service]\nType=notify\n"
        f"ExecStart=/usr/local/bin/{name} \\\n    server \\\n\n",
        f"/etc/rancher/{name}/config.yaml": "container-runtime-endpoint: unix:///run/crio/crio.sock\n"
        "kubelet-arg:\n  - max-pods=200\n  - config=/var/lib/kubelet/config.yaml\n",
        f"/var/lib/rancher/{name}/agent/etc/kubelet.conf.d/00-defaults.conf": _CONFIG,
        "/var/lib/kubelet/config.yaml": _CONFIG,
    }


def _containerd(directory: str) -> dict[str, str]:
    """The files of a containerd that asks a mirror for docker.io."""
    return {
        f"{directory}/config.toml": _CONTAINERD_TOML.replace("{directory}", f"{directory}/certs.d"),
        f"{directory}/certs.d/docker.io/hosts.toml": _HOSTS_TOML,
        "/etc/kubernetes/keep": "",
    }


_UNIT = {"/usr/lib/systemd/system/kubelet.service": "[Service]\nExecStart=/usr/bin/kubelet\nRestart=always\n"}
_DEB = {
    **_UNIT,
    "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf": _KUBEADM.format(extra="/etc/default/kubelet"),
    "/var/lib/kubelet/config.yaml": _CONFIG,
    "/var/lib/kubelet/kubeadm-flags.env": 'KUBELET_KUBEADM_ARGS="--node-labels=a=b"\n',
    "/etc/default/kubelet": _EXTRA,
}

LAYOUTS: dict[str, dict[str, str]] = {
    "kubeadm": _DEB,
    "kubeadm-rpm": {
        **{path: text for path, text in _DEB.items() if path != "/etc/default/kubelet"},
        "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf": _KUBEADM.format(extra="/etc/sysconfig/kubelet"),
        "/etc/sysconfig/kubelet": "KUBELET_EXTRA_ARGS=\n",
    },
    "others": {
        **_DEB,
        "/etc/default/kubelet": 'KUBELET_EXTRA_ARGS="--image-credential-provider-config=/etc/kubernetes/others.yaml '
        '--image-credential-provider-bin-dir=/opt/providers"\n',
        "/etc/kubernetes/others.yaml": _OTHERS,
        "/opt/providers/ecr-credential-provider": "#!/bin/sh\n",
    },
    "go": {
        **_DEB,
        "/var/lib/kubelet/kubeadm-flags.env": 'KUBELET_KUBEADM_ARGS="--image-credential-provider-bin-dir=/opt/go '
        '--image-credential-provider-config=/etc/kubernetes/credential-provider-config.yml"\n',
        "/etc/kubernetes/credential-provider-config.yml": GO_CONFIG,
        f"/opt/go/{NAME}": GO_PROGRAM.decode(),
    },
    "own-unit": {
        **_UNIT,
        "/etc/systemd/system/kubelet.service": "[Service]\nExecStart=/usr/bin/kubelet \\\n  --v=2 "
        "--config=/var/lib/kubelet/config.yaml\n",
        "/var/lib/kubelet/config.yaml": _CONFIG,
    },
    "openshift": {
        "/etc/systemd/system/kubelet.service": _OPENSHIFT,
        "/etc/os-release": 'ID="rhel"\nOPENSHIFT_VERSION="4.21"\n',
        "/etc/kubernetes/kubelet.conf": _CONFIG,
    },
    "k3s": _rancher("k3s"),
    "rke2": _rancher("rke2"),
    "containerd": {
        **_DEB,
        "/var/lib/kubelet/kubeadm-flags.env": "KUBELET_KUBEADM_ARGS="
        '"--container-runtime-endpoint=unix:///var/run/containerd/containerd.sock"\n',
        "/usr/lib/systemd/system/containerd.service": "[Service]\nType=notify\nExecStart=/usr/bin/containerd\n",
        "/var/lib/dpkg/status": f"{_KUBELET_PACKAGE}Package: containerd.io\nVersion: 1.7.27-1\n",
        **_containerd("/etc/containerd"),
    },
    "k3s-containerd": {
        **_rancher("k3s"),
        "/etc/rancher/k3s/config.yaml": "kubelet-arg:\n  - config=/var/lib/kubelet/config.yaml\n",
        "/var/lib/dpkg/status": _KUBELET_PACKAGE,
        **_containerd("/var/lib/rancher/k3s/agent/etc/containerd"),
    },
}

WITH_CONTAINERD = ("containerd", "k3s-containerd")


def _rancher_of(kind: str) -> str:
    """``k3s``, ``rke2`` or ""."""
    name = kind.partition("-")[0]
    return name if name in ("k3s", "rke2") else ""


_SYSTEMCTL = """\
#!/bin/sh
echo "${0##*/} $*" > /run/standin/ask
while IFS= read -r line; do
  case $line in
    "exit "*) exit "${line#exit }";;
    *) echo "${line#|}";;
  esac
done < /run/standin/answer
"""


def lay(kind: str, root: Path, port: int = 0) -> None:
    """A node of a layout, without the plugin."""
    for path, text in {**({} if kind in WITH_CONTAINERD else CRIO), **LAYOUTS[kind]}.items():
        file = root / path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        endpoint = "" if kind in WITH_CONTAINERD else _CRIO_ENDPOINT
        file.write_text(text.replace("{port}", str(port)).replace("{endpoint}", endpoint))
    for name, mode in (
        ("opt/providers/ecr-credential-provider", 0o755),
        (f"opt/go/{NAME}", 0o755),
        ("etc/default/kubelet", 0o640),
        ("etc/kubernetes/others.yaml", 0o640),
    ):
        if (root / name).exists():
            (root / name).chmod(mode)
    for directory in ("run", "proc/1", "proc/self", "usr/bin", "tmp"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    (root / "var/run").symlink_to("/run")
    (root / "proc/stat").write_text(f"btime {int(time.time()) - 1000}\n")
    for name in ("1", "self"):
        (root / f"proc/{name}/mountinfo").write_text("22 1 253:1 / / rw - ext4 /dev/vda1 rw\n")


def snapshot(root: Path) -> dict[str, tuple[Any, ...]]:
    """Every path but those of the rollout's own directory, /proc and /run: kind, mode, owner, attributes, content."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if name.startswith((OWN, "proc", "run", "usr/bin", "bin", "lib")) or OWN.startswith(name):
            continue
        status = path.lstat()
        content: Any = None
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        attributes = tuple((one, os.getxattr(path, one)) for one in os.listxattr(path, follow_symlinks=False))
        found[name] = (status.st_mode, status.st_uid, status.st_gid, attributes, content)
    return found


def leftovers(root: Path) -> list[str]:
    """Files that are written beside their places, which nobody must find afterwards."""
    return [str(p) for p in root.rglob(".*") if NAME in p.name] + [str(p) for p in (root / OWN).rglob("*.new")]


# -- the kubelet -------------------------------------------------------------------------------------------------------


def _units(root: Path, unit: str) -> list[Path]:
    for directory in ("etc/systemd/system", "usr/lib/systemd/system"):
        if (root / directory / unit).exists():
            break
    else:
        raise ValueError(f"Unit {unit} not found.")
    drop_ins: dict[str, Path] = {}
    for other in ("usr/lib/systemd/system", "etc/systemd/system"):
        drop_ins |= {path.name: path for path in (root / other / f"{unit}.d").glob("*.conf")}
    return [root / directory / unit, *(drop_ins[name] for name in sorted(drop_ins))]


def _command_line(root: Path, unit: str) -> list[str]:
    """As systemd makes it of a unit, its drop-ins and environment files."""
    command, files = "", []
    variables: dict[str, str] = {}
    for path in _units(root, unit):
        for line in path.read_text().replace("\\\n", " ").splitlines():
            key, _, value = line.partition("=")
            if key == "ExecStart":
                command = value.strip()
            elif key == "Environment":
                variables |= dict(word.split("=", 1) for word in shlex.split(value))
            elif key == "EnvironmentFile":
                files.append(value.removeprefix("-"))
    for file in files:
        place = root / file[1:]
        for line in place.read_text().splitlines() if place.exists() else ():
            if "=" in line and not line.startswith("#"):
                key, _, value = line.partition("=")
                variables[key] = value.strip("\"'")
    words = []
    for word in command.split():
        if word.startswith("$") and not word.startswith("${"):
            words += shlex.split(variables.get(word[1:], ""))
        else:
            words.append(re.sub(r"\$\{(\w+)\}", lambda match: variables.get(match[1], ""), word))
    return words


def flags_of(root: Path, kind: str) -> dict[str, str]:
    """The kubelet's flags, as they would be if it started now."""
    if rancher := _rancher_of(kind):
        arguments: list[str] = []
        chosen = {
            "image-credential-provider-config": "/var/lib/rancher/credentialprovider/config.yaml",
            "image-credential-provider-bin-dir": "/var/lib/rancher/credentialprovider/bin",
        }
        directory = root / "etc/rancher" / rancher
        for file in (directory / "config.yaml", *sorted((directory / "config.yaml.d").glob("*.yaml"))):
            document = yaml.safe_load(file.read_text())
            chosen |= {key: document[key] for key in chosen if key in document}
            arguments = document.get("kubelet-arg", arguments) + document.get("kubelet-arg+", [])
        if all((root / path[1:]).exists() for path in chosen.values()):
            arguments += [f"{key}={value}" for key, value in chosen.items()]
        return dict(argument.split("=", 1) for argument in arguments)
    words = _command_line(root, "kubelet.service")
    return dict(word[2:].split("=", 1) for word in words if word.startswith("--"))


def refusal(root: Path, kind: str, programs: tuple[bytes, ...] = ()) -> str:
    """Why a kubelet would not start on this node now; "" where it would.

    Args:
        programs: what the plugin may be, for half a file.
    """
    flags = flags_of(root, kind)
    path, directory = (flags.get(f"image-credential-provider-{name}", "") for name in ("config", "bin-dir"))
    if not path or not directory:
        return "only one of the two flags is set" if path or directory else ""
    if not (root / path[1:]).exists():
        return f"{path}: no such file or directory"
    try:
        config = yaml.safe_load((root / path[1:]).read_text())
    except yaml.YAMLError as error:
        return f"{path}: {error}"
    if wrong := faults(config, 34):
        return f"{path}: {wrong}"
    for provider in config["providers"]:
        program = root / directory[1:] / provider["name"]
        if not program.is_file() or not os.access(program, os.X_OK):
            return f"plugin binary executable {program} did not exist"
        whole = (*programs, GO_PROGRAM) if kind == "go" else programs
        if provider["name"] == NAME and programs and program.read_bytes() not in whole:
            return f"{program} is not whole"
    return ""


class _Healthz(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        is_well = not Path(sys.argv[2], "run/standin/unhealthy").exists()
        self.send_response(200 if is_well else 500)
        self.end_headers()
        self.wfile.write(b"ok" if is_well else b"[-]syncloop failed")

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def _kubelet(root: Path, kind: str, port: int) -> None:
    is_new = "image-credential-provider-config" in flags_of(root, kind)
    is_new = is_new and (kind != "go" or (root / "opt/go" / NAME).read_bytes() != GO_PROGRAM)
    why = "refused for a test" if is_new and (root / "run/standin/refuse").exists() else refusal(root, kind)
    if is_new and (root / "run/standin/spoil").exists():
        (root / "etc/crio/auth").chmod(0o777)
    if why:
        sys.exit(f'E1129 run.go:72] "command failed" err="failed to run Kubelet: {why}"')
    http.server.ThreadingHTTPServer(("127.0.0.1", port), _Healthz).serve_forever()


# -- systemd -----------------------------------------------------------------------------------------------------------


class Systemd:
    """The services of a node: kubelet, CRI-O and mounts, started and stopped by the stand-in for systemctl.

    Args:
        faults: commands that fail, as they are typed: "restart crio".

    Attributes:
        asked: every command, in order.
    """

    def __init__(self, root: Path, kind: str, port: int, faults: tuple[str, ...] = ()) -> None:
        self._root, self._kind, self._port, self.faults = root, kind, port, {*faults}
        self.asked: list[str] = []
        rancher = _rancher_of(kind)
        self.unit = f"{_UNITS.get(rancher, rancher)}.service" if rancher else "kubelet.service"
        self._kubelet: subprocess.Popen[bytes] | None = None
        self._log = root / "run/standin/log"
        self._over = False

    def __enter__(self) -> Systemd:
        place = self._root / "run/standin"
        place.mkdir(parents=True)
        libraries = re.findall(r"/\S+", subprocess.run(["ldd", "/bin/sh"], capture_output=True, text=True).stdout)
        for path in ("/bin/sh", *libraries):
            (self._root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, self._root / path[1:])
        for name in ("systemctl", "journalctl"):
            (self._root / "usr/bin" / name).write_text(_SYSTEMCTL)
            (self._root / "usr/bin" / name).chmod(0o755)
        for name in ("ask", "answer"):
            os.mkfifo(place / name)
        # Both ends are open all the time, so that nobody waits for an end that was killed.
        self._ask = os.open(place / "ask", os.O_RDWR)
        self._answer = os.open(place / "answer", os.O_RDWR | os.O_NONBLOCK)
        self._log.write_text("")
        self._start()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        self.wait_for_healthz()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over = True
        os.write(self._ask, b"end\n")
        self._thread.join()
        self._stop()
        for descriptor in (self._ask, self._answer):
            os.close(descriptor)

    @property
    def is_up(self) -> bool:
        return self._kubelet is not None and self._kubelet.poll() is None

    def wait_for_healthz(self) -> None:
        import urllib.request

        for _ in range(200):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self._port}/healthz"):
                return
            time.sleep(0.02)
        raise TimeoutError(self._log.read_text())

    def _serve(self) -> None:
        with open(os.dup(self._ask), "rb") as lines:
            for line in lines:
                if self._over:
                    return
                command = line.decode().strip()
                self.asked.append(command)
                with contextlib.suppress(BlockingIOError):
                    os.read(self._answer, 1 << 16)
                status, said = self._do(command.split())
                answer = "".join(f"|{text}\n" for text in said.splitlines())
                os.write(self._answer, f"{answer}exit {status}\n".encode())

    def _do(self, words: list[str]) -> tuple[int, str]:
        program, *rest = words
        if program == "journalctl":
            return 0, self._log.read_text()
        if " ".join(rest) in self.faults:
            return 1, f"Job for {rest[-1]} failed because the control process exited with error code."
        if rest[0] == "show":
            state = "active" if self.is_up else "activating"
            pid = self._kubelet.pid if self._kubelet and self.is_up else 0
            return 0, f"MainPID={pid}\nNRestarts={0 if self.is_up else 3}\nActiveState={state}"
        if rest == ["daemon-reload"] or rest[0] == "reset-failed":
            return 0, ""
        if rest[-1].endswith(".mount"):
            return self._mount(rest[0], rest[-1])
        if rest == ["restart", "crio"]:
            return self._restart_crio()
        if rest == ["restart", self.unit]:
            self._stop()
            self._start()
            return 0, ""
        return 1, f"Unknown command {rest}"

    def _mount(self, verb: str, unit: str) -> tuple[int, str]:
        mounts = self._root / "proc/1/mountinfo"
        where = "/" + unit.removesuffix(".mount").replace("-", "/")
        lines = [line for line in mounts.read_text().splitlines(keepends=True) if f" {where} " not in line]
        if verb == "start":
            if not (self._root / "etc/systemd/system" / unit).exists():
                return 5, f"Failed to start {unit}: Unit {unit} not found."
            lines.append(f"31 22 0:41 / {where} rw - tmpfs tmpfs rw,mode=700\n")
        mounts.write_text("".join(lines))
        return 0, ""

    def _restart_crio(self) -> tuple[int, str]:
        for path in (self._root / "etc/crio/crio.conf.d").iterdir():
            tomllib.loads(path.read_text())
        return 0, ""

    def _start(self) -> None:
        command = [sys.executable, __file__, "kubelet", str(self._root), self._kind, str(self._port)]
        with self._log.open("ab") as log:
            self._kubelet = subprocess.Popen(command, stdout=log, stderr=log)
        process = self._root / f"proc/{self._kubelet.pid}"
        process.mkdir(exist_ok=True)
        with contextlib.suppress(ValueError):
            name = f"/usr/local/bin/{_rancher_of(self._kind)}" if _rancher_of(self._kind) else "/usr/bin/kubelet"
            flags = [f"--{key}={value}" for key, value in flags_of(self._root, self._kind).items()]
            words = [name, *flags] if name.endswith("kubelet") else [name, "server"]
            (process / "cmdline").write_text("".join(f"{word}\0" for word in words))
        fields = ["S", "1", *["0"] * 17, str(1001 * os.sysconf("SC_CLK_TCK")), *["0"] * 30]
        (process / "stat").write_text(f"{self._kubelet.pid} (kubelet) {' '.join(fields)}\n")

    def _stop(self) -> None:
        if self._kubelet:
            self._kubelet.kill()
            self._kubelet.wait()
            shutil.rmtree(self._root / f"proc/{self._kubelet.pid}", ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Rollout(NamedTuple):
    """A node with its systemd."""

    root: Path
    kind: str
    systemd: Systemd


@contextlib.contextmanager
def running(kind: str, root: Path, port: int, faults: tuple[str, ...] = ()) -> Iterator[Rollout]:
    """A node that runs."""
    lay(kind, root, port)
    with Systemd(root, kind, port, faults) as systemd:
        yield Rollout(root, kind, systemd)


if __name__ == "__main__":
    _kubelet(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
