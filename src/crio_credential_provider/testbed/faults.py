"""What can go wrong with an API server's answer: functions for ``ApiServer.fault``.

    cluster.fault = first(2, refuse(503, retry_after=1))

A fault gets the `Exchange` after the true answer was made. It changes the answer and returns False, or it says all
there is to say on the connection and returns True.
"""

from __future__ import annotations

import email.utils
import http
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .loopback import Answer, Connection, Request, chunk
from .objects import StatusError, dumps


@dataclass(slots=True)
class Asked:
    """One request as the server took it. `status` is 0 while (after a reset: since) no status line was sent."""

    method: str
    path: str
    user: str
    status: int


@dataclass(slots=True)
class Exchange:
    """What a fault gets: the request, the true answer (change or replace it), the connection, and the record."""

    request: Request
    answer: Answer
    connection: Connection
    asked: Asked


# True: the fault has said (or done) all there is to say. False: `Exchange.answer` is sent as it now stands.
Fault = Callable[[Exchange], bool]


def first(times: int, fault: Fault) -> Fault:
    """Only the first so many requests go wrong."""
    left = iter(range(times))
    return lambda exchange: next(left, None) is not None and fault(exchange)


def refuse(status: int, *, retry_after: int | None = None, html: bool = False) -> Fault:
    """An error status with a Status object, or with the HTML page of a load balancer; `retry_after` in seconds."""
    reasons = {429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout"}
    phrase = http.HTTPStatus(status).phrase

    def fault(exchange: Exchange) -> bool:
        headers = [("Content-Type", "text/html" if html else "application/json")]
        if retry_after is not None:
            headers.append(("Retry-After", str(retry_after)))
        headers.append(("Date", email.utils.formatdate(usegmt=True)))
        document = StatusError(status, reasons.get(status, phrase.replace(" ", "")), phrase).answer()
        page = f"<html><head><title>{status} {phrase}</title></head><body><h1>{status} {phrase}</h1></body></html>\n"
        exchange.answer = Answer(status, headers, page.encode() if html else dumps(document, False))
        return False

    return fault


def redirect(location: str, status: int = 302) -> Fault:
    """Sends the client elsewhere: a client that follows would take its token there."""

    def fault(exchange: Exchange) -> bool:
        exchange.answer = Answer(status, [("Location", location)])
        return False

    return fault


def stall(seconds: float, *, after_headers: bool = False) -> Fault:
    """Silence before the status line, or between the headers and the body; then the true answer."""

    def fault(exchange: Exchange) -> bool:
        if after_headers:
            _begin(exchange)
            exchange.connection.wait(seconds)
            exchange.connection.send(exchange.answer.framed_body())
            return True
        exchange.asked.status = 0
        exchange.connection.wait(seconds)
        return False

    return fault


def drip(seconds: float) -> Fault:
    """The true answer, a byte at a time with so many seconds between: no single read is slow, the whole is."""

    def fault(exchange: Exchange) -> bool:
        _begin(exchange)
        for byte in exchange.answer.framed_body():
            exchange.connection.send(bytes((byte,)))
            exchange.connection.wait(seconds)
        return True

    return fault


def cut_body(exchange: Exchange) -> bool:
    """Half of the body, then the end of the stream; chunked or with a length, as the true answer is."""
    body = exchange.answer.framed_body()
    _begin(exchange)
    exchange.connection.send(body[: len(body) // 2])
    exchange.connection.close()
    return True


def reset(exchange: Exchange) -> bool:
    """A TCP RST instead of an answer."""
    exchange.asked.status = 0
    exchange.connection.reset()
    return True


def flood(size: int | None = 100 << 20, *, chunked: bool = False) -> Fault:
    """A body of `size` bytes of spaces, streamed; None (with `chunked`) never ends. It stops when the client goes."""

    def fault(exchange: Exchange) -> bool:
        piece = b" " * (1 << 16)
        left = float("inf") if size is None else size
        exchange.asked.status = 200
        exchange.connection.close()
        exchange.connection.send(Answer(200, exchange.answer.headers, chunked=chunked).head(size))
        while left > 0 and not exchange.connection.closing.is_set():
            part = piece[: int(min(left, len(piece)))]
            exchange.connection.send(chunk(part) if chunked else part)
            left -= len(part)
        if chunked:
            exchange.connection.send(b"0\r\n\r\n")
        return True

    return fault


def bad_chunk(exchange: Exchange) -> bool:
    """A chunk size that is not a hexadecimal number."""
    exchange.answer.chunked = True
    _begin(exchange)
    exchange.connection.send(b"zz\r\n" + exchange.answer.body + b"\r\n0\r\n\r\n")
    exchange.connection.close()
    return True


def invalid_json(exchange: Exchange) -> bool:
    """A body of the right length that stops in the middle of its JSON."""
    exchange.answer.body = exchange.answer.body[: len(exchange.answer.body) // 2]
    return False


def wrong_content(document: object) -> Fault:
    """Status and headers of the true answer, and this JSON document as its body."""

    def fault(exchange: Exchange) -> bool:
        exchange.answer.status = 200
        exchange.answer.body = json.dumps(document).encode()
        return False

    return fault


def _begin(exchange: Exchange) -> None:
    exchange.asked.status = exchange.answer.status
    exchange.connection.send(exchange.answer.head())


# One of each kind that a client must come through with an error of its own, for tests that try them all. The two that
# need a duration are the caller's to make, as are those that a client can recover from (`first`).
FAULTS: Mapping[str, Fault] = {
    "status-500": refuse(500),
    "status-503-retry-after": refuse(503, retry_after=1),
    "status-502-html": refuse(502, html=True),
    "status-429": refuse(429, retry_after=1),
    "redirect": redirect("https://127.0.0.1:1/"),
    "cut-body": cut_body,
    "reset": reset,
    "flood-length": flood(),
    "flood-chunked": flood(chunked=True),
    "flood-endless": flood(None, chunked=True),
    "bad-chunk": bad_chunk,
    "invalid-json": invalid_json,
    "list-for-object": wrong_content([]),
    "kind-pod": wrong_content({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "nope"}}),
}
