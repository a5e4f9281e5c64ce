"""Which runtime the kubelet uses: its own command line and configuration files say it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from crio_credential_provider.runtimes import endpoint
from crio_credential_provider.runtimes.endpoint import named_by, of_parent

CRIO_SOCKET = "unix:///var/run/crio/crio.sock"
CONTAINERD_SOCKET = "unix:///run/containerd/containerd.sock"

Start = Callable[..., None]


@pytest.fixture
def root(tmp_path: Path) -> str:
    """With a directory of containerd."""
    (tmp_path / "etc/containerd").mkdir(parents=True)
    return str(tmp_path)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Start:
    """Makes a command line that of the process that runs this one."""

    def begin(*arguments: str) -> None:
        process = tmp_path / "proc" / str(os.getppid())
        process.mkdir(parents=True, exist_ok=True)
        (process / "cmdline").write_text("".join(f"{argument}\0" for argument in arguments))
        monkeypatch.setattr(endpoint, "_PROC", str(tmp_path / "proc"))

    return begin


@pytest.mark.parametrize(
    ("flags", "runtime"),
    [
        ([f"--container-runtime-endpoint={CRIO_SOCKET}"], "crio"),
        ([f"--container-runtime-endpoint={CONTAINERD_SOCKET}"], "containerd"),
        (["--container-runtime-endpoint", CONTAINERD_SOCKET, "--v=2"], "containerd"),
        (["--container-runtime-endpoint=x", f"--container-runtime-endpoint={CONTAINERD_SOCKET}"], "containerd"),
        (
            [f"--v=--container-runtime-endpoint={CONTAINERD_SOCKET}", "--container-runtime-endpoint", CRIO_SOCKET],
            "crio",
        ),
        (["--container-runtime-endpoint="], "containerd"),
        ([], "containerd"),
    ],
)
def test_a_flag_of_the_kubelet(flags: list[str], runtime: str, start: Start, root: str) -> None:
    start("/usr/bin/kubelet", *flags)
    assert of_parent(root) == runtime


@pytest.mark.parametrize(
    ("text", "runtime"),
    [
        (f"containerRuntimeEndpoint: {CRIO_SOCKET}\n", "crio"),
        (f'kind: KubeletConfiguration\ncontainerRuntimeEndpoint: "{CRIO_SOCKET}"  # as ever\n', "crio"),
        (f"containerRuntimeEndpoint: '{CONTAINERD_SOCKET}'\n", "containerd"),
        (f"#containerRuntimeEndpoint: {CONTAINERD_SOCKET}\ncontainerRuntimeEndpoint: {CRIO_SOCKET}\n", "crio"),
        (f'{{"kind":"KubeletConfiguration","containerRuntimeEndpoint":"{CRIO_SOCKET}","x":"/containerd"}}', "crio"),
        ('containerRuntimeEndpoint: ""\n', "containerd"),
        ("kind: KubeletConfiguration\n", "containerd"),
    ],
)
def test_the_configuration_of_the_kubelet(text: str, runtime: str, start: Start, root: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(text)
    start("/usr/bin/kubelet", f"--config={config}")
    assert of_parent(root) == runtime


def test_the_last_drop_in_counts(start: Start, root: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"containerRuntimeEndpoint: {CONTAINERD_SOCKET}\n")
    drop_ins = tmp_path / "d"
    drop_ins.mkdir()
    (drop_ins / "10.conf").write_text(f"containerRuntimeEndpoint: {CONTAINERD_SOCKET}\n")
    (drop_ins / "20.conf").write_text(f"containerRuntimeEndpoint: {CRIO_SOCKET}\n")
    (drop_ins / "30.conf").write_text("kind: KubeletConfiguration\n")
    (drop_ins / "40.yaml").write_text(f"containerRuntimeEndpoint: {CONTAINERD_SOCKET}\n")
    start("kubelet", "--config", str(tmp_path / "config.yaml"), "--config-dir", str(drop_ins))
    assert of_parent(root) == "crio"


def test_unknown_is_crio(start: Start, root: str, tmp_path: Path) -> None:
    start("/usr/local/bin/k3s", "agent")
    assert of_parent(root) == "crio"
    start("/usr/bin/kubelet", f"--config={tmp_path}/missing", f"--container-runtime-endpoint={CRIO_SOCKET}")
    assert of_parent(root) == "crio"


@pytest.mark.parametrize(
    ("socket", "runtime"),
    [
        ("unix:///run/k3s/containerd/containerd.sock", "containerd"),
        ("/var/snap/microk8s/common/run/containerd.sock", "containerd"),
        ("unix:///run/cri-dockerd.sock", "crio"),
        ("", "crio"),
    ],
)
def test_endpoints(socket: str, runtime: str) -> None:
    assert named_by(socket) == runtime


def test_without_a_directory_of_containerd_it_is_crio(start: Start, tmp_path: Path) -> None:
    start("/usr/bin/kubelet", f"--container-runtime-endpoint={CONTAINERD_SOCKET}")
    assert of_parent(str(tmp_path)) == "crio"


def test_the_parent_of_this_process_is_no_kubelet(root: str) -> None:
    assert of_parent(root) == "crio"
