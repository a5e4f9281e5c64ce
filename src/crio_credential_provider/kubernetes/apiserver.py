"""The connection to the API server: verified TLS and bounded requests under one deadline.

The only module that opens a network connection. Hand-written HTTP/1.1, since ``http.client`` costs 25 ms of CPU to
import and neither bounds an answer nor keeps one deadline over name resolution, connecting, TLS, reading and retries.
Follows no redirect and uses no proxy. The token is written only after the server's certificate was verified, and never
becomes part of an error.
"""

from __future__ import annotations

import _thread
import json
import os
import socket
import ssl
import time
import zlib

from .. import __version__
from ..errors import ClusterError, ConfigError
from ..platform import jsontext
from .endpoint import Endpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .clientcertificate import ClientCertificate

_MAX_HEAD = 64 * 1024
"""Bytes of a status line with its headers."""

_RETRIES = 5
"""How often a refused or reset connection, a 429 or a 5xx is tried again, deadline permitting."""

_FIRST_PAUSE = 0.1
"""Seconds before the first retry; doubled each time: 3.1 s over five."""

RETRIED_STATUS = frozenset((429, 500, 502, 503, 504))


class _Passing(Exception):
    """A failure that may be gone at the next try."""

    def __init__(self, error: ClusterError, pause: float = 0) -> None:
        super().__init__()
        self.error = error
        self.pause = pause


class ApiServer:
    """A client for one run.

    Args:
        endpoint: where it is and whose certificate it must show.
        deadline: seconds from now for everything that is asked through this object.
        max_answer_size: bytes; a larger body is refused.
        verify: False sends the token to whoever answers.
        client: what to authenticate with where no token is given.

    Attributes:
        date: the server's clock, as the last answer's Date header says; "" before the first.
        has_flags: whether deadline and max_answer_size can be set by the flags of these names.
    """

    has_flags = True

    def __init__(
        self,
        endpoint: Endpoint,
        deadline: float,
        max_answer_size: int,
        verify: bool = True,
        client: ClientCertificate | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._seconds = deadline
        self._deadline = time.monotonic() + deadline
        self._max_answer_size = max_answer_size
        self._tls = _tls_context(endpoint, verify)
        if client is not None:
            _load_client_certificate(self._tls, client)
        self._connection: _Connection | None = None
        self.date = ""

    def get(self, path: str, token: str = "") -> dict[str, Any]:
        """Asks for one object or list.

        Args:
            path: absolute, with its query, already encoded.
            token: sent as bearer token; "" to ask as the client of the certificate.

        Returns:
            The JSON object of a 200.

        Raises:
            ClusterError: no answer in time, not the right server, or any other status; ``status`` tells which.
        """
        return self._ask("GET", path, token)

    def create(self, path: str, value: dict[str, Any], token: str = "") -> dict[str, Any]:
        """Posts an object. Else as ``get``."""
        return self._ask("POST", path, token, jsontext.dumps(value).encode())

    def patch(self, path: str, value: dict[str, Any], token: str = "") -> dict[str, Any]:
        """Merges fields into an object (RFC 7386); None removes one. Else as ``get``."""
        return self._ask("PATCH", path, token, jsontext.dumps(value).encode())

    def _ask(self, method: str, path: str, token: str, content: bytes = b"") -> dict[str, Any]:
        pause = _FIRST_PAUSE
        for retries_left in range(_RETRIES, -1, -1):
            try:
                return self._try(method, path, token, content)
            except _Passing as failure:
                self._connection = None
                wait = max(pause, failure.pause)
                if not retries_left or self._remaining() <= wait:
                    raise failure.error from None
                time.sleep(wait)
                pause *= 2
        raise AssertionError("unreachable")

    def _remaining(self) -> float:
        return self._deadline - time.monotonic()

    def _try(self, method: str, path: str, token: str, content: bytes) -> dict[str, Any]:
        status, headers, body = self._exchange(method, path, token, content)
        self.date = headers.get("date", "")
        if status in (200, 201):
            return self._object(body)
        error = ClusterError(
            f"the API server {self._endpoint.url} answered {status}{_status_message(body, token)}",
            "it may be starting up or overloaded" if status in RETRIED_STATUS else "",
            status=status,
        )
        if status in RETRIED_STATUS:
            raise _Passing(error, retry_after(headers.get("retry-after", "")))
        raise error

    def _object(self, body: bytes) -> dict[str, Any]:
        try:
            value = json.loads(body.decode())
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise ClusterError(
                f"the API server {self._endpoint.url} answered with something that is not a JSON object",
                f"check that this is a Kubernetes API server; the address comes from {self._endpoint.origin}",
                status=200,
            )
        return value

    def _exchange(self, method: str, path: str, token: str, content: bytes) -> tuple[int, dict[str, str], bytes]:
        endpoint = self._endpoint
        authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        kind = "merge-patch+json" if method == "PATCH" else "json"
        body = f"Content-Type: application/{kind}\r\nContent-Length: {len(content)}\r\n" if content else ""
        request = (
            f"{method} {endpoint.path}{path} HTTP/1.1\r\nHost: {endpoint.authority}\r\n{authorization}"
            f"Accept: application/json\r\nAccept-Encoding: gzip\r\n{body}"
            f"User-Agent: crio-credential-provider/{__version__}\r\n\r\n"
        )
        try:
            if self._connection is None:
                self._connection = _Connection(self._connect(), self._deadline, self._max_answer_size)
            answer = self._connection.exchange(request.encode("ascii") + content)
            if not self._connection.reusable:
                self._connection = None
            return answer
        except ssl.SSLCertVerificationError as error:
            raise self._not_verified(error) from None
        except TimeoutError:
            raise ClusterError(
                f"the API server {self._endpoint.url} did not answer within {self._seconds:g} s",
                f"the address comes from {self._endpoint.origin}{'; --deadline sets the time' * self.has_flags}",
            ) from None
        except ssl.SSLError as error:
            raise self._no_tls(error) from None
        except _Malformed as error:
            flag = " (--max-answer-size)" if self.has_flags and isinstance(error, _TooLarge) else ""
            raise ClusterError(
                f"the API server {self._endpoint.url} {error}{flag}",
                f"check that this is a Kubernetes API server; the address comes from {self._endpoint.origin}",
            ) from None
        except OSError as error:
            refused = ClusterError(
                f"no answer from the API server {self._endpoint.url}: {error.strerror or type(error).__name__}",
                f"check that it is running; the address comes from {self._endpoint.origin}",
            )
            raise _Passing(refused) from None

    def _connect(self) -> ssl.SSLSocket:
        """A verified connection to the first address that takes one; each gets its share of the time left."""
        addresses = self._addresses()
        for left in range(len(addresses), 0, -1):
            family, kind, protocol, _, address = addresses[-left]
            plain = socket.socket(family, kind, protocol)
            try:
                plain.settimeout(_positive(self._remaining() / left))
                plain.connect(address)
                break
            except OSError:
                plain.close()
                if left == 1:
                    raise
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.settimeout(_positive(self._remaining()))
        # As bytes, which need no codec for international names.
        name = self._endpoint.server_name.encode("ascii")
        stream = self._tls.wrap_socket(plain, server_hostname=name, do_handshake_on_connect=False)
        # wrap_socket leaves it out for a socket that is not connected any more, and then encrypts nothing.
        stream.do_handshake()
        return stream

    def _addresses(self) -> list[Any]:
        """Addresses of the endpoint. A resolver may take longer than the deadline and cannot be interrupted, so that
        a name is looked up in a thread of its own, which is left behind if it is late."""
        endpoint = self._endpoint
        # As bytes, which need no codec for international names.
        host = endpoint.host.encode("ascii")
        try:
            return socket.getaddrinfo(
                host, endpoint.port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
            )
        except socket.gaierror:
            pass
        found: list[list[Any]] = []
        failed: list[str] = []
        done = _thread.allocate_lock()

        def resolve() -> None:
            try:
                found.append(socket.getaddrinfo(host, endpoint.port, 0, socket.SOCK_STREAM))
            except (OSError, UnicodeError) as error:
                failed.append(getattr(error, "strerror", None) or type(error).__name__)
            done.release()

        done.acquire()
        try:
            _thread.start_new_thread(resolve, ())
        except RuntimeError:
            # No room for a thread, where a limit of processes is reached: late is better than never.
            resolve()
        if not done.acquire(timeout=_positive(self._remaining())):
            raise TimeoutError
        if failed:
            raise OSError(0, f"cannot resolve {endpoint.host!r}: {failed[0]}")
        return found[0]

    def _not_verified(self, error: ssl.SSLCertVerificationError) -> ClusterError:
        """The OpenSSL verdict in words that say what to correct; the token was not sent."""
        endpoint = self._endpoint
        trusted = "one of the system's CAs"
        if endpoint.ca_file or endpoint.ca_data:
            trusted = f"a CA in {endpoint.ca_file or 'certificate-authority-data'}"
        reasons = {
            9: ("its certificate is not valid yet", "check the clocks of this node and of the API server"),
            10: ("its certificate has expired", "renew it, or check this node's clock"),
            62: (
                f"its certificate is not for the name {endpoint.server_name!r}",
                "use one of its names, or set tls-server-name in the kubeconfig",
            ),
            64: (
                f"its certificate is not for the address {endpoint.server_name!r}",
                "use one of its names, or set tls-server-name in the kubeconfig",
            ),
        }
        code = 62 if "match" in error.verify_message and error.verify_code not in reasons else error.verify_code
        reason, hint = reasons.get(
            code,
            (
                f"its certificate was not issued by {trusted} ({error.verify_message})",
                f"give the cluster's CA with --certificate-authority; the address comes from {endpoint.origin}",
            ),
        )
        if endpoint.skips_verifying:
            hint += f"; insecure-skip-tls-verify in {endpoint.origin} is ignored"
        return ClusterError(f"the API server {endpoint.url} cannot be trusted: {reason}; the token was not sent", hint)

    def _no_tls(self, error: ssl.SSLError) -> ClusterError:
        url = self._endpoint.url
        if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG"):
            return ClusterError(
                f"the API server {url} does not speak TLS; the token was not sent",
                f"check that it is not a plain HTTP port; the address comes from {self._endpoint.origin}",
            )
        if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            raise _Passing(
                ClusterError(f"the API server {url} closed the connection during TLS", "check that it is running")
            ) from None
        found = f"check that this is a Kubernetes API server; the address comes from {self._endpoint.origin}"
        if error.reason in ("TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL"):
            return ClusterError(
                f"the API server {url} does not support TLS 1.2 or newer; the token was not sent", found
            )
        return ClusterError(f"TLS with the API server {url} failed: {error.reason}", found)


def _positive(seconds: float) -> float:
    """A timeout for the socket module, where 0 would mean none at all."""
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _tls_context(endpoint: Endpoint, verify: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    try:
        if endpoint.ca_file or endpoint.ca_data:
            context.load_verify_locations(endpoint.ca_file or None, cadata=endpoint.ca_data or None)
        else:
            context.set_default_verify_paths()
    except (OSError, ValueError) as error:
        what = endpoint.ca_file or f"certificate-authority-data in {endpoint.origin}"
        reason = _file_reason(error) or "no PEM certificate in it"
        hint = f"write the API server's CA there, or name its file with --certificate-authority or in {endpoint.origin}"
        raise ConfigError(f"cannot use the CA certificates of {what}: {reason}", hint) from None
    return context


def _file_reason(error: Exception) -> str:
    """What the system said of a file; "" where it could be read, and its content is at fault."""
    if isinstance(error, (FileNotFoundError, PermissionError)) and error.errno:
        return os.strerror(error.errno)
    return ""


def _load_client_certificate(context: ssl.SSLContext, client: ClientCertificate) -> None:
    """Loads the kubelet's certificate and key, which may be one file; embedded ones go through memory, not a disk."""
    try:
        if not client.embedded:
            context.load_cert_chain(client.certificate, client.key)
            return
        descriptor = os.memfd_create("client-certificate", os.MFD_CLOEXEC)
        os.write(descriptor, f"{client.certificate}\n{client.key}\n".encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        os.close(descriptor)
    except (OSError, ValueError) as error:
        what = "the client certificate embedded in the kubeconfig" if client.embedded else client.certificate
        reason = _file_reason(error) or "no certificate with its key in PEM"
        raise ConfigError(
            f"cannot use {what}: {reason}", "--secrets-from pod needs the kubelet's client certificate"
        ) from None


def message_of(body: bytes) -> str | None:
    """The message of a Status object; None for any other answer."""
    try:
        status = json.loads(body[:_MAX_HEAD].decode())
        message = status["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return message if isinstance(message, str) else ""


def _status_message(body: bytes, token: str) -> str:
    """The same for an error: short, printable, and without any part of the token."""
    message = message_of(body)
    if message is None:
        return " (not a Kubernetes Status)"
    if not message or len(message) > 500 or not message.isprintable() or _quotes(message, token):
        return ""
    return f" ({message})"


def _quotes(message: str, token: str) -> bool:
    """Whether a message holds a piece of the token, however it was cut."""
    return any(token[start : start + 12] in message for start in range(max(1, len(token) - 11))) if token else False


def retry_after(value: str) -> float:
    """Seconds that a Retry-After header asks to wait; it may also be a date, which API servers do not send."""
    return float(value) if value.isascii() and value.isdigit() else 0


def _closed() -> OSError:
    """The stream ended before the answer did: as with a reset, another try may do."""
    return ConnectionResetError(0, "it closed the connection before the end of its answer")


# -- HTTP/1.1 ---------------------------------------------------------------------------------------------------------


class _Malformed(Exception):
    """What the server did instead of answering, as the rest of a sentence."""


class _TooLarge(_Malformed):
    """The same of an answer beyond the limit."""


class _Connection:
    """Requests and answers on one connection, read under the deadline and within the size."""

    def __init__(self, tls: ssl.SSLSocket, deadline: float, max_size: int) -> None:
        self._tls = tls
        self._deadline = deadline
        self._max_size = max_size
        self._buffer = bytearray()
        self.reusable = True

    def exchange(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Sends a request and reads its answer: status, headers (names in lower case) and body."""
        self._tls.settimeout(_positive(self._deadline - time.monotonic()))
        self._tls.sendall(request)
        status, headers = self._head()
        while 100 <= status < 200:
            status, headers = self._head()
        if "chunked" in headers.get("transfer-encoding", "").lower():
            body = self._chunks()
        elif "content-length" in headers:
            body = self._take(self._size(headers["content-length"], 10))
        else:
            body = self._rest()
        if headers.get("connection", "").lower() == "close":
            self.reusable = False
        if headers.get("content-encoding", "").lower() == "gzip":
            body = self._unpacked(body)
        return status, headers, body

    def _unpacked(self, body: bytes) -> bytes:
        """An API server compresses what is larger than 128 KiB, a list of many secrets to a tenth."""
        unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
        try:
            plain = unpacker.decompress(body, self._max_size + 1)
        except zlib.error:
            plain = b""
        if len(plain) > self._max_size:
            raise self._too_large()
        if not unpacker.eof or unpacker.unused_data:
            raise _Malformed("sent a gzip body that is damaged")
        return plain

    def _head(self) -> tuple[int, dict[str, str]]:
        end = self._until(b"\r\n\r\n", _MAX_HEAD)
        lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        version, _, rest = lines[0].partition(" ")
        code = rest[:3]
        if version not in ("HTTP/1.1", "HTTP/1.0") or len(code) != 3 or not (code.isascii() and code.isdigit()):
            raise _Malformed("does not answer in HTTP/1.1")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        if version == "HTTP/1.0":
            self.reusable = False
        return int(code), headers

    def _chunks(self) -> bytes:
        body = bytearray()
        while True:
            end = self._until(b"\r\n", 1024)
            size = self._size(bytes(self._buffer[:end]).partition(b";")[0].decode("latin-1").strip(), 16)
            del self._buffer[: end + 2]
            if len(body) + size > self._max_size:
                raise self._too_large()
            body += self._take(size)
            if size and self._take(2) != b"\r\n":
                raise _Malformed("sent an invalid chunked body")
            if not size:
                # Trailers up to an empty line.
                while end := self._until(b"\r\n", 1024):
                    del self._buffer[: end + 2]
                del self._buffer[:2]
                return bytes(body)

    def _size(self, text: str, base: int) -> int:
        digits = "0123456789abcdefABCDEF" if base == 16 else "0123456789"
        if not text or len(text) > 16 or text.strip(digits):
            raise _Malformed("sent an invalid chunked body" if base == 16 else "sent an invalid Content-Length")
        size = int(text, base)
        if size > self._max_size:
            raise self._too_large()
        return size

    def _too_large(self) -> _TooLarge:
        return _TooLarge(f"sent an answer larger than {self._max_size >> 20} MiB")

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            if not self._fill():
                raise _closed()
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _rest(self) -> bytes:
        self.reusable = False
        while self._fill():
            if len(self._buffer) > self._max_size:
                raise self._too_large()
        return bytes(self._buffer)

    def _until(self, mark: bytes, limit: int) -> int:
        """The position of the mark, which must come within the limit."""
        searched = 0
        while (end := self._buffer.find(mark, max(0, searched - len(mark)))) < 0:
            searched = len(self._buffer)
            if searched > limit:
                raise _Malformed("does not answer in HTTP/1.1")
            if not self._fill():
                raise _closed()
        return end

    def _fill(self) -> bool:
        """Reads what there is; False at the end of the stream."""
        self._tls.settimeout(_positive(self._deadline - time.monotonic()))
        # A TLS record holds no more; a larger buffer would be mapped and unmapped for each.
        data = self._tls.recv(16 * 1024)
        self._buffer += data
        return bool(data)
