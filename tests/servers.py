"""Servers that do not behave: what a client meets before and instead of the API server.

`Peer` hands each connection to a function and keeps every byte that came in, the handshake aside where it speaks TLS;
so a test can tell what a client sent to a server that it should not have trusted.
"""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from types import TracebackType

from crio_credential_provider.testbed.certificates import Authority, Identity, server_context
from crio_credential_provider.testbed.loopback import LoopbackServer, Request

Behave = Callable[[socket.socket, threading.Event], None]
"""Gets a connection (after the handshake, where there is one) and the event that the server stops."""


class Peer:
    """A TCP or TLS server on the loopback.

    Attributes:
        received: all bytes of all connections; of TLS, the plain text.
        connections: how many there were; ``established`` of them came through the handshake.
    """

    def __init__(self, behave: Behave, *, context: ssl.SSLContext | None = None, address: str = "127.0.0.1") -> None:
        self.received = bytearray()
        self.connections = 0
        self.established = 0
        self._behave = behave
        self._context = context
        self._closing = threading.Event()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server((address, 0), family=family)
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def __enter__(self) -> Peer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.set()
        # close() alone does not wake the thread that is in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.callback(connection.close)
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
                stack.callback(connection.close)
                self.established += 1
            self._behave(_Keeping(connection, self.received), self._closing)  # type: ignore[arg-type]


class _Keeping:
    """A socket whose received bytes are kept."""

    def __init__(self, connection: socket.socket, received: bytearray) -> None:
        self._connection = connection
        self._received = received
        self.sendall = connection.sendall
        self.shutdown = connection.shutdown

    def recv(self, size: int) -> bytes:
        data = self._connection.recv(size)
        self._received += data
        return data


def drain(connection: socket.socket, closing: threading.Event) -> None:
    """Reads until the client goes, says nothing."""
    while connection.recv(65536):
        pass


def hang(connection: socket.socket, closing: threading.Event) -> None:
    """Says nothing and reads nothing."""
    closing.wait(60)


def half_a_server_hello(connection: socket.socket, closing: threading.Event) -> None:
    """Takes the ClientHello, begins a handshake record, and says no more."""
    connection.recv(65536)
    connection.sendall(b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03")
    closing.wait(60)


def close_in_tls(connection: socket.socket, closing: threading.Event) -> None:
    """Takes the ClientHello and goes."""
    connection.recv(65536)


def say(answer: bytes) -> Behave:
    """Reads once, then sends these bytes whatever was asked, and closes."""

    def behave(connection: socket.socket, closing: threading.Event) -> None:
        connection.recv(65536)
        connection.sendall(answer)

    return behave


@contextlib.contextmanager
def replaying(answers: Callable[[Request], bytes], identity: Identity) -> Iterator[LoopbackServer]:
    """A TLS server that sends ready-made bytes for each request."""
    context = server_context(identity)
    with LoopbackServer(lambda request, connection: connection.send(answers(request)), context) as server:
        yield server


@contextlib.contextmanager
def refused_port() -> Iterator[int]:
    """A port that is taken but not listened on: connections are refused, and nobody else gets it meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """A port whose queue of connections is full: a SYN gets no answer, as behind a firewall that drops."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield int(listener.getsockname()[1])


def distrusted(authority: Authority, kind: str) -> Identity:
    """A certificate for 127.0.0.1 that a client of the authority refuses."""
    now, day, here = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1), ["127.0.0.1"]
    match kind:
        case "of another CA":
            return Authority.make("kubernetes").issue("server", ip_addresses=here)
        case "for another address":
            return authority.issue("server", dns_names=["server.example"], ip_addresses=["192.0.2.1"])
        case "for names alone":
            return authority.issue("server", dns_names=["server.example", "127.0.0.1"])
        case "for a common name alone":
            return authority.issue("127.0.0.1")
        case "expired":
            return authority.issue("server", not_before=now - 2 * day, not_after=now - day, ip_addresses=here)
        case "not yet valid":
            return authority.issue("server", not_before=now + day, not_after=now + 2 * day, ip_addresses=here)
        case "of a client":
            return authority.issue("client", client=True, ip_addresses=here)
    raise AssertionError(kind)
