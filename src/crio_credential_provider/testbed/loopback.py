"""The embedded cluster and registry that ``demo`` and the tests run on: real sockets, real TLS, real HTTP/1.1.

`LoopbackServer` is what both stand on: one thread per connection, keep-alive, TLS where a context is given. What is
said on a connection is the caller's affair: it gets a `Request` and a `Connection`; it may answer, stall, cut or reset.

    with LoopbackServer(lambda request, connection: connection.send(Answer(200, [], b"ok").dumps())) as server:
        ...  # http://127.0.0.1:{server.port}/

Standard library only, since the demo must run on a bare node. It never listens anywhere but on 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import http
import http.server
import socket
import socketserver
import ssl
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple

# Seconds that a silent client keeps a thread: a TLS handshake or a keep-alive connection that says nothing.
_IDLE = 30.0
# Seconds between two looks at the stop flag, which is what leaving the context manager can cost.
_POLL = 0.02
# A request body above this many bytes is not read; the connection ends instead.
_BODY_LIMIT = 1 << 20
# net/http writes through a 2 KiB buffer: a body that fits goes out with its length, a longer one in chunks.
CHUNK = 2048


class Request(NamedTuple):
    """One HTTP request. `path` is as sent, query included; `subject` is that of a verified client certificate."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    subject: dict[str, str]

    def header(self, name: str) -> str | None:
        """The header's value, or None; names compare without case."""
        return self.headers.get(name.lower())


@dataclass(slots=True)
class Answer:
    """One HTTP answer. `headers` go out in their order, then Content-Length (or chunks, where `chunked`)."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    chunked: bool = False

    def head(self, size: int | None = None) -> bytes:
        """Status line, headers and the empty line; `size` is the length to announce, None the body's own."""
        length = len(self.body) if size is None else size
        framing = ("Transfer-Encoding", "chunked") if self.chunked else ("Content-Length", str(length))
        lines = [f"HTTP/1.1 {self.status} {http.HTTPStatus(self.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in (*self.headers, framing)]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def framed_body(self) -> bytes:
        """The body as it stands on the wire."""
        if not self.chunked:
            return self.body
        pieces = [self.body[start : start + CHUNK] for start in range(0, len(self.body), CHUNK)]
        return b"".join(chunk(piece) for piece in pieces) + b"0\r\n\r\n"

    def dumps(self, method: str = "GET") -> bytes:
        """The whole answer as it stands on the wire; HEAD gets no body."""
        return self.head() if method == "HEAD" else self.head() + self.framed_body()


def chunk(piece: bytes) -> bytes:
    """One chunk of the chunked coding (RFC 9112, 7.1)."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


class Connection:
    """The server's end of one connection, for honest answers and for faults."""

    __slots__ = ("_handler", "closing")

    def __init__(self, handler: _Handler, closing: threading.Event) -> None:
        self._handler = handler
        self.closing = closing

    def send(self, data: bytes) -> None:
        """Send all of it. OSError when the client is gone (the server swallows it and ends the connection)."""
        self._handler.connection.sendall(data)

    def wait(self, seconds: float) -> None:
        """Do nothing for so many seconds. ConnectionAbortedError as soon as the server stops."""
        if self.closing.wait(seconds):
            raise ConnectionAbortedError("the server stops")

    def close(self) -> None:
        """End the connection after this request: the client reads to the end of the stream."""
        self._handler.close_connection = True

    def reset(self) -> None:
        """End the connection at once with a TCP RST: the client gets ECONNRESET."""
        self.close()
        # With SO_LINGER on and 0 seconds close() sends RST. Detached first, since the socket's file objects would keep
        # the descriptor open.
        linger = struct.pack("ii", 1, 0)
        self._handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        socket.close(self._handler.connection.detach())


Respond = Callable[[Request, Connection], None]


class LoopbackServer:
    """Serves on 127.0.0.1, on a port the system picks, while its ``with`` block runs.

    Leaving the block ends every connection, and raises RuntimeError if `respond` failed by a bug of its own (anything
    but OSError) meanwhile, so that a test cannot pass on a broken stand-in.
    """

    def __init__(self, respond: Respond, context: ssl.SSLContext | None = None) -> None:
        self._server = _Server(respond, context)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL,), daemon=True)

    @property
    def port(self) -> int:
        """The TCP port, known from the start."""
        return int(self._server.server_address[1])

    def __enter__(self) -> LoopbackServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._server.end_connections()
        self._thread.join()
        if self._server.bugs and error is None:
            raise RuntimeError("the stand-in server failed") from self._server.bugs[0]


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, respond: Respond, context: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.respond = respond
        self.context = context
        self.closing = threading.Event()
        self.bugs: list[BaseException] = []
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def tracked(self, connection: socket.socket) -> Iterator[None]:
        with self._lock:
            self._connections.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._connections.discard(connection)

    def end_connections(self) -> None:
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    # Below the TLS layer, which another thread may be using.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        # A client that goes away, or that does not like the certificate, is what the tests are about.
        if error is not None and not isinstance(error, OSError):
            self.bugs.append(error)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        # In the connection's own thread: a client that never shakes hands must not hold up the others.
        if self.server.context is not None:
            self.request.settimeout(_IDLE)
            self.request = self.server.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def handle(self) -> None:
        with self.server.tracked(self.connection):
            super().handle()

    def finish(self) -> None:
        super().finish()
        # The server closes the socket that it accepted, which the TLS socket has taken the place of.
        self.connection.close()

    def _respond(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        if size > _BODY_LIMIT or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, self.rfile.read(size), _subject(self.connection))
        self.server.respond(request, Connection(self, self.server.closing))

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: what was asked is in the callers' own records."""

    # BaseHTTPRequestHandler looks these up by name.
    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _respond


def _subject(connection: socket.socket) -> dict[str, str]:
    certificate = connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None
    pairs: Any = (certificate or {}).get("subject", ())
    return {name: value for ((name, value),) in pairs}
