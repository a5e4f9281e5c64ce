"""One entry per run in journald, through its native protocol, and one line on stderr for a fault.

Never raises: no journal, no failure. Field values come from names and reasons, never from a secret or a token.
Protocol: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/.
"""

from __future__ import annotations

import os
import time

from . import native

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
        self._send(_GREETING)

    @property
    def debugging(self) -> bool:
        """Whether entries of level debug are sent, so that they need not be composed otherwise."""
        return self._least == DEBUG

    def send(self, priority: int, message: str, fields: Mapping[str, str] | None = None) -> None:
        """Sends one entry; fields with empty values are left out."""
        if priority > self._least:
            return
        entry = {"MESSAGE": message, "PRIORITY": str(priority), "SYSLOG_IDENTIFIER": IDENTIFIER, **(fields or {})}
        self._send(b"".join(_field(name, value) for name, value in entry.items() if value))

    def _send(self, data: bytes) -> None:
        if not self._path:
            return
        # Only now: without a journal a system launch takes half of the instructions.
        socket = native.load_socket()
        begin = time.monotonic()
        try:
            channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                channel.settimeout(self._patience)
                # Connected, since only then does a full queue on the other side make a sender wait.
                channel.connect(self._path)
                channel.send(data)
            finally:
                channel.close()
        except OSError:
            pass
        self._patience = max(0.0, self._patience - (time.monotonic() - begin))


def _field(name: str, value: str) -> bytes:
    """``NAME=value``, or with a length where the value has line breaks."""
    data = value.encode("utf-8", "backslashreplace")
    if len(data) > _MAX_VALUE:
        data = data[:_MAX_VALUE].decode("utf-8", "ignore").encode() + b"..."
    if b"\n" in data:
        return b"%s\n%s%s\n" % (name.encode(), len(data).to_bytes(8, "little"), data)
    return b"%s=%s\n" % (name.encode(), data)


def complain(message: str) -> None:
    """Writes one line to stderr, which the kubelet keeps when the exit status is not zero."""
    line = "".join(character if character.isprintable() else "?" for character in message[:4096])
    try:
        os.write(2, f"crio-credential-provider: {line}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        return
