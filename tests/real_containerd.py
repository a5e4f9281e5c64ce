"""A real containerd in a directory of its own, asked through its CRI socket as the kubelet asks it.

    with Containerd(home) as containerd:
        containerd.write_hosts("docker.io", hosts_toml)
        error = containerd.pull("docker.io/library/nginx:1.27", "user", "password")

$CONTAINERD names another one than that of the distribution.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from types import TracebackType

import grpc

from real_programs import cannot, need

# Of both generations of the configuration: 2.x reads version 2 as well. Nothing is left outside of {home}.
_CONFIGURATION = """\
version = 2
root = "{home}/root"
state = "{home}/state"
[grpc]
address = "{home}/sock"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "{home}/certs.d"
[plugins."io.containerd.internal.v1.opt"]
path = "{home}/opt"
[plugins."io.containerd.nri.v1.nri"]
disable = true
"""
# Seconds.
_START, _PULL = 30, 60


class Containerd:
    """Runs while its ``with`` block runs; skips the test where it cannot.

    Args:
        home: an empty directory, with a short path: it holds a socket.
    """

    def __init__(self, home: Path) -> None:
        (self.program,) = need(os.environ.get("CONTAINERD") or "containerd")
        if os.geteuid() != 0:
            cannot("containerd takes root")
        self.home = home
        (home / "config.toml").write_text(_CONFIGURATION.format(home=home))
        (home / "certs.d").mkdir()

    def __enter__(self) -> Containerd:
        log = (self.home / "log").open("wb")
        with log:
            self._process = subprocess.Popen(
                [self.program, "--config", str(self.home / "config.toml")], stdout=log, stderr=log
            )
        # The socket is there before the plugin of the CRI is ready.
        self._channel = grpc.insecure_channel(f"unix:{self.home}/sock")
        try:
            self._call("RuntimeService/Version", b"", _START)
        except grpc.RpcError:
            self.__exit__(None, None, None)
            raise RuntimeError(f"containerd does not start: {self.log()[-3000:]}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._channel.close()
        self._process.terminate()
        self._process.wait(20)

    @property
    def version(self) -> tuple[int, ...]:
        said = subprocess.run([self.program, "--version"], capture_output=True, text=True, check=True).stdout
        found = re.search(r" v?(\d+)\.(\d+)\.(\d+)", said)
        assert found, said
        return tuple(map(int, found.groups()))

    def log(self) -> str:
        return (self.home / "log").read_text(errors="replace")

    def write_hosts(self, directory: str, text: str) -> None:
        """A hosts.toml, which containerd reads at each pull."""
        file = self.home / "certs.d" / directory / "hosts.toml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)

    def pull(self, image: str, username: str = "", password: str = "") -> str:
        """Why it cannot; empty where it has the image now."""
        auth = _field(1, username.encode()) + _field(2, password.encode())
        try:
            self._call("ImageService/PullImage", _field(1, _image(image)) + _field(2, auth))
        except grpc.RpcError as error:
            return str(error.details())
        return ""

    def has(self, image: str) -> bool:
        return bool(self._call("ImageService/ImageStatus", _field(1, _image(image))))

    def remove(self, image: str) -> None:
        self._call("ImageService/RemoveImage", _field(1, _image(image)))

    def _call(self, method: str, message: bytes, seconds: float = _PULL) -> bytes:
        answer = self._channel.unary_unary(f"/runtime.v1.{method}")(message, timeout=seconds, wait_for_ready=True)
        assert isinstance(answer, bytes)
        return answer


def _image(name: str) -> bytes:
    """An ImageSpec."""
    return _field(1, name.encode())


def _field(number: int, content: bytes) -> bytes:
    """A string or a message as a field of a protobuf message; nothing where it is empty."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content if content else b""


def _varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + _varint(number >> 7)
