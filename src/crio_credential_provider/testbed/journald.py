"""A socket in journald's place, for one reader: the entries that programs sent through the native protocol.

    with JournalSocket("/tmp/node/run/systemd/journal/socket") as journal:
        ...                                     # run the plugin
        print(journal.read()[0]["MESSAGE"])

Protocol: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/. It takes datagrams only, not the memory files that journald's
clients send for entries too large for one, and keeps what it gets in the socket's queue until it is read.
"""

from __future__ import annotations

import contextlib
import os
import socket
from types import TracebackType

# unix(7): sun_path with its final zero byte.
MAX_PATH = 107
_MAX_DATAGRAM = 1 << 20


class JournalSocket:
    """Bound while its ``with`` block runs. ValueError for a path longer than `MAX_PATH` bytes."""

    def __init__(self, path: str) -> None:
        if len(os.fsencode(path)) > MAX_PATH:
            raise ValueError(f"a socket's path has at most {MAX_PATH} bytes")
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def __enter__(self) -> JournalSocket:
        self._socket.setblocking(False)
        self._socket.bind(self._path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def read(self) -> list[dict[str, str]]:
        """The entries that came since the last call, in order. ValueError for a datagram that is not an entry.

        As with journald, an entry without fields does not count.
        """
        entries = []
        with contextlib.suppress(BlockingIOError):
            while True:
                datagram = self._socket.recv(_MAX_DATAGRAM)
                if datagram != b"\n":
                    entries.append(loads(datagram))
        return entries


def loads(datagram: bytes) -> dict[str, str]:
    """One entry: ``NAME=value``, or NAME, the value's length in 8 bytes and the value; of repeated fields the last."""
    fields = {}
    rest = datagram
    while rest:
        line, newline, rest = rest.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, newline, rest = rest[8 : 8 + size], rest[8 + size : 9 + size], rest[9 + size :]
            if len(value) != size:
                raise ValueError("a field of the journal entry is cut")
        if not name or newline != b"\n":
            raise ValueError("not an entry of journald's native protocol")
        fields[name.decode()] = value.decode(errors="replace")
    return fields
