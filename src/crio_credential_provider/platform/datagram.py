"""A connected descriptor for datagrams to a socket of this machine, by the shortest way that the interpreter allows.

Where ``socket`` is not loaded anyway, its import would take 24 million instructions, nearly as many as the rest of a
system launch without a mirror. ``ctypes`` takes 7.
"""

from __future__ import annotations

import errno
import os
import sys

from . import native

_LONGEST = 107
"""Bytes of a path in a ``sockaddr_un``, without the NUL behind it."""

_AF_UNIX, _SOCK_DGRAM = 1, 2
"""Linux's numbers, but for MIPS, which no CRI-O is built for."""


def connect(path: str) -> int:
    """A descriptor that neither blocks nor is inherited.

    Raises:
        OSError: nobody listens there, or there is no such socket.
    """
    if not native.PINNED and "socket" not in sys.modules:
        try:
            return _connect_by_libc(os.fsencode(path))
        except ImportError:
            # Some distributions pack ctypes apart.
            pass
    socket = native.load_socket()
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        channel.setblocking(False)
        channel.connect(path)
        return channel.detach()  # type: ignore[no-any-return]
    finally:
        channel.close()


def _connect_by_libc(path: bytes) -> int:
    import ctypes

    if len(path) > _LONGEST:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    libc = ctypes.CDLL(None, use_errno=True)
    # SOCK_CLOEXEC and SOCK_NONBLOCK are the numbers of these by definition.
    descriptor: int = libc.socket(_AF_UNIX, _SOCK_DGRAM | os.O_CLOEXEC | os.O_NONBLOCK, 0)
    address = _AF_UNIX.to_bytes(2, sys.byteorder) + path + b"\0"
    if descriptor < 0 or libc.connect(descriptor, address, len(address)):
        code = ctypes.get_errno()
        if descriptor >= 0:
            os.close(descriptor)
        raise OSError(code, os.strerror(code))
    return descriptor
