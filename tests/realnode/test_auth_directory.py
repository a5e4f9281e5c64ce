"""An auth directory that the plugin cannot write to, until it can again."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from realnode.node import Node
from realnode.runtimes import AUTH_DIR
from realnode.tenants import Tenant

pytestmark = pytest.mark.ours


def _remount(options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", AUTH_DIR], check=True)


@contextlib.contextmanager
def _full() -> Iterator[None]:
    ballast = AUTH_DIR / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        yield
    finally:
        ballast.unlink()


@contextlib.contextmanager
def _out_of_inodes() -> Iterator[None]:
    ballast = AUTH_DIR / "ballast"
    _remount("nr_inodes=64")
    ballast.mkdir()
    try:
        with contextlib.suppress(OSError):
            for number in range(64):
                (ballast / str(number)).touch()
        yield
    finally:
        subprocess.run(["rm", "-r", ballast], check=True)
        _remount("nr_inodes=10000")


@contextlib.contextmanager
def _read_only() -> Iterator[None]:
    _remount("ro")
    try:
        yield
    finally:
        _remount("rw")


FAULTS: dict[str, tuple[Callable[[], AbstractContextManager[None]], str]] = {
    "full": (_full, "No space left on device"),
    "out of inodes": (_out_of_inodes, "No space left on device"),
    "read only": (_read_only, "Read-only file system"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_auth_directory(node: Node, tenant: Tenant, image: str, fault: str) -> None:
    enter, reason = FAULTS[fault]
    with enter():
        pod = tenant.run("web", image)
        failure = pod.fails_within(30)
        assert "authentication required" in failure, failure or f"no failed pull: {pod.events()}"
        # No provider's fault reaches the pod: the kubelet tells it of the pull without a credential alone.
        assert reason in node.kubelet.said_of(image)
        assert node.findings() == ["auth-dir-unusable"]
    assert pod.runs_within(60), f"not running: {pod.events()}"
    left = node.left_behind()
    assert not left, f"{len(left)} files left behind\n{left}"
