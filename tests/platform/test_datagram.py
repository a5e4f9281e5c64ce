"""Descriptors for datagrams: the same by libc as by the socket module."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crio_credential_provider.platform import datagram, native

Connect = Callable[[str], int]


@pytest.fixture(params=["libc", "socket"])
def connect(request: pytest.FixtureRequest) -> Connect:
    if request.param == "libc":
        return lambda path: datagram._connect_by_libc(os.fsencode(path))
    assert "socket" in sys.modules
    return datagram.connect


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("d")


@pytest.fixture
def listener(directory: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(directory / "socket"))
        channel.settimeout(5)
        yield channel


def test_what_is_written_arrives_in_one_piece(connect: Connect, listener: socket.socket) -> None:
    descriptor = connect(listener.getsockname())
    os.write(descriptor, b"one\n")
    os.write(descriptor, b"two\n" * 10_000)
    assert (listener.recv(1 << 17), listener.recv(1 << 17)) == (b"one\n", b"two\n" * 10_000)
    os.close(descriptor)


def test_neither_blocks_nor_is_inherited(connect: Connect, listener: socket.socket) -> None:
    descriptor = connect(listener.getsockname())
    assert (os.get_blocking(descriptor), os.get_inheritable(descriptor)) == (False, False)
    with pytest.raises(BlockingIOError):
        for _ in range(100_000):
            os.write(descriptor, b"x")
    os.close(descriptor)


def nobody(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as gone:
        gone.bind(str(path))


def a_stream(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.bind(str(path))


@pytest.mark.parametrize("make", [nobody, a_stream, Path.touch, Path.mkdir, lambda path: None])
def test_who_cannot_be_reached(connect: Connect, directory: Path, make: Callable[[Path], None]) -> None:
    make(directory / "socket")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError) as by_socket:
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).connect(str(directory / "socket"))
    with pytest.raises(OSError) as told:
        connect(str(directory / "socket"))
    assert (told.value.errno, told.value.strerror) == (by_socket.value.errno, by_socket.value.strerror)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("length", [107, 108, 109, 110, 5000])
def test_paths_that_a_socket_can_have(connect: Connect, directory: Path, length: int) -> None:
    path = str(directory / "x").ljust(length, "x")
    if length > 107:
        with pytest.raises(OSError):
            connect(path)
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(path)
        os.write(descriptor := connect(path), b"here")
        assert channel.recv(10) == b"here"
        os.close(descriptor)


ALONE = """
import os, sys
sys.path.insert(0, sys.argv[1])
{before}
from crio_credential_provider import datagram
descriptor = datagram.connect(sys.argv[2])
os.write(descriptor, " ".join(sorted({{"ctypes", "socket"}} & set(sys.modules))).encode())
"""


@pytest.mark.parametrize(
    ("before", "loaded"),
    [("", b"ctypes"), ("import socket", b"socket"), ("sys.modules['_ctypes'] = None", b"socket")],
    ids=["a new process", "with socket at hand", "without ctypes"],
)
def test_the_shortest_way_is_taken(listener: socket.socket, before: str, loaded: bytes) -> None:
    code = ALONE.format(before=before)
    package_parent = str(Path(native.__file__).parents[2])
    command = [sys.executable, "-IS", "-c", code, package_parent, listener.getsockname()]
    subprocess.run(command, check=True, timeout=30)
    assert listener.recv(100) == loaded
