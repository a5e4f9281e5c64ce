"""One entry per run in journald, through its native protocol, and one line on stderr for a fault.

Never raises: no journal, no failure. Field values come from names and reasons, never from a secret or a token.
Protocol: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/.
"""

from __future__ import annotations

import os
import socket
import time

from ..errors import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

IDENTIFIER = "crio-credential"
"""What the Go provider's entries go by: the first 15 characters of the program's name."""

ERROR, WARNING, INFO, DEBUG = 3, 4, 6, 7
_LEVELS = {"error": ERROR, "warning": WARNING, "info": INFO, "debug": DEBUG}

_MAX_VALUE = 16 * 1024
"""Bytes of a field; a datagram of journald's may hold about 200 KiB."""

_PATIENCE = 0.1
"""Seconds that a run waits in all for a journald that is behind: a lost entry is a gap in the audit trail."""

_GREETING = b"\n"
"""An entry without fields. journald keeps none of it, but notes _COMM, _EXE and _SYSTEMD_UNIT of its sender, which it
looks up in /proc when it gets to a datagram: of 60 runs without it, 21 to 27 had ended by then (systemd 252)."""

_LONGEST_STAY = 0.01
"""Seconds that a run stays for journald to get to the greeting, which it has done long since but on a busy machine."""

_LOOK = 0.0001
"""Seconds between two looks whether it has."""

_SIOCOUTQ = 0x5411
"""Asks for the bytes that the other side has not yet read: <asm-generic/ioctls.h>; elsewhere the call fails."""


class Journal:
    """Sends entries of a priority to a socket.

    Args:
        path: journald's native socket; "" sends nowhere.
        log_level: the least level that is sent, one of ``settings.LOG_LEVELS``.
    """

    def __init__(self, path: str, log_level: str) -> None:
        self._path = path
        self._least = _LEVELS[log_level]
        self._patience = _PATIENCE
        self._has_greeted = False
        self._has_told = False
        self._greeting = -1

    @property
    def debugging(self) -> bool:
        """Whether entries of level debug are sent, so that they need not be composed otherwise."""
        return self._least == DEBUG

    def greet(self) -> None:
        """Makes this process known, once; as early as may be. A first entry greets before it."""
        if not self._has_greeted:
            self._has_greeted = True
            self._greeting = self._send(_GREETING)

    def send(self, priority: int, message: str, fields: Mapping[str, str] | None = None) -> None:
        """Sends one entry; fields with empty values are left out."""
        if priority > self._least:
            return
        self.greet()
        self._has_told = True
        entry = {"MESSAGE": message, "PRIORITY": str(priority), "SYSLOG_IDENTIFIER": IDENTIFIER, **(fields or {})}
        channel = self._send(b"".join(_field(name, value) for name, value in entry.items() if value))
        if channel >= 0:
            os.close(channel)

    def stay(self) -> None:
        """Waits, if not for long, until journald has got to the greeting: the entries of a process that is gone have no
        name."""
        if self._greeting < 0 or not self._has_told:
            return
        import fcntl

        end = time.monotonic() + _LONGEST_STAY
        try:
            while any(fcntl.ioctl(self._greeting, _SIOCOUTQ, bytes(4))) and time.monotonic() < end:
                time.sleep(_LOOK)
        except OSError:
            return

    def _send(self, data: bytes) -> int:
        """The descriptor that it was sent by, or -1 where it could not be sent."""
        if not self._path:
            return -1
        begin = time.monotonic()
        try:
            channel = _connect(self._path)
            try:
                self._write(channel, data)
                return channel
            except OSError:
                os.close(channel)
                return -1
        except OSError:
            return -1
        finally:
            self._patience = max(0.0, self._patience - (time.monotonic() - begin))

    def _write(self, channel: int, data: bytes) -> None:
        try:
            os.write(channel, data)
        except BlockingIOError:
            import select

            # The queue on the other side is full.
            room = select.poll()
            room.register(channel, select.POLLOUT)
            room.poll(self._patience * 1000)
            os.write(channel, data)


def _connect(path: str) -> int:
    """A descriptor for datagrams to a socket of this machine, that neither blocks nor is inherited."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.setblocking(False)
        channel.connect(path)
        return channel.detach()


def _field(name: str, value: str) -> bytes:
    """``NAME=value``, or with a length where the value has line breaks."""
    data = value.encode() if value.isascii() else shown(value).encode()
    if len(data) > _MAX_VALUE:
        data = data[:_MAX_VALUE].decode("utf-8", "ignore").encode() + b"..."
    if b"\n" in data:
        return b"%s\n%s%s\n" % (name.encode(), len(data).to_bytes(8, "little"), data)
    return b"%s=%s\n" % (name.encode(), data)


def complain(message: str) -> None:
    """Writes one line to stderr, which the kubelet keeps when the exit status is not zero."""
    line = "".join(character if character.isprintable() else "?" for character in shown(message[:4096]))
    try:
        os.write(2, f"crio-credential-provider: {line}\n".encode())
    except OSError:
        return
