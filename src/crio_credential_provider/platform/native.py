"""json, socket, ssl and sha256, by the shortest way that the interpreter allows.

In the interpreters that it was tested with, these are the C halves behind the public modules: to import the public ones
takes as long as all the rest of a run, since they bring ``re``, ``enum``, ``selectors`` and more along. Everywhere else
they are the public modules. The one module that goes below the standard library's public surface; nothing else knows
the difference. Verdicts are the same by construction, and ``testbed.selftest`` shows it for an interpreter: whatever
the C scanner does not take is given to ``json``, and verification is OpenSSL's in both.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any, Protocol

    class TlsStream(Protocol):
        """A connection on which TLS is established."""

        def settimeout(self, seconds: float) -> None: ...
        def sendall(self, data: bytes) -> None: ...
        def recv(self, size: int) -> bytes: ...


C_HALVES = sys.implementation.name == "cpython" and (3, 11) <= sys.version_info < (3, 14)
"""Whether the C halves are used: CPython's are not a public interface, and may change with any minor version."""


def load_socket() -> ModuleType:
    """``socket`` or its C half; the names used here are in both."""
    if C_HALVES:
        import _socket

        return _socket
    import socket

    return socket


# -- JSON -------------------------------------------------------------------------------------------------------------

_BLANKS = " \t\n\r"
"""JSON's white space."""


class Decoder:
    """``json.JSONDecoder`` for text.

    Args:
        pairs_hook: makes the value of an object of its members in order.
        numbers_as_float: takes integers as float as well, which have no limit on digits, and refuses NaN and Infinity.
    """

    def __init__(
        self, pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None, numbers_as_float: bool = False
    ) -> None:
        # The attributes that the C scanner reads; None for parse_constant would be an error in it.
        self.strict = True
        self.object_hook = None
        self.object_pairs_hook = pairs_hook
        self.parse_float = float
        self.parse_int = float if numbers_as_float else int
        self.parse_constant = _refuse_constant if numbers_as_float else float
        self._scan: Any = _c_scanner(self) if C_HALVES else None
        self._public: Any = None

    def decode(self, text: str) -> Any:
        """The value of a document.

        Raises:
            json.JSONDecodeError: the text is not valid JSON.
            ValueError: it has a constant or number that is refused.
            RecursionError: it is nested too deeply.
        """
        if self._scan is not None:
            try:
                value, end = self._scan(text, len(text) - len(text.lstrip(_BLANKS)))
                if not text[end:].strip(_BLANKS):
                    return value
            except (StopIteration, ValueError, SystemError):
                # The last where json.decoder is not loaded: CPython 3.11's scanner then finds no error to raise.
                pass
        # Whatever is not taken so far, the public module judges, and says why.
        if self._public is None:
            import json

            self._public = json.JSONDecoder(
                object_pairs_hook=self.object_pairs_hook, parse_int=self.parse_int, parse_constant=self.parse_constant
            )
        return self._public.decode(text)


def _c_scanner(context: Any) -> Any:
    import _json

    return _json.make_scanner(context)


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


_PLAIN = Decoder()


def loads(text: str) -> Any:
    """``json.loads``; raises as ``Decoder.decode``."""
    return _PLAIN.decode(text)


def fold(key: str) -> str:
    """A key as Go's TOML and JSON decoders match it: without regard to case, by Unicode's simple folding."""
    # Of the two letters outside ASCII that fold into it, lower() knows U+212A (k) and not U+017F (s).
    return key.replace("\u017f", "s").lower()


def json_reason(error: Exception) -> str:
    """What is wrong with a document, without quoting it."""
    if hasattr(error, "lineno"):
        return f"{getattr(error, 'msg', '')} at line {error.lineno}, column {getattr(error, 'colno', 0)}"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    return "nested too deeply" if isinstance(error, RecursionError) else "an invalid number or constant"


def dumps(value: Any) -> str:
    """Compact JSON in ASCII."""
    if C_HALVES:
        import _json

        encoder: Any = _json.make_encoder
        return "".join(encoder(None, None, _json.encode_basestring_ascii, None, ":", ",", False, False, True)(value, 0))
    import json

    return json.dumps(value, separators=(",", ":"))


def sha256(data: bytes) -> str:
    """The digest of a name, in hex."""
    half = "_sha256" if sys.version_info < (3, 12) else "_sha2"
    try:
        module = __import__(half if C_HALVES else "hashlib")
    except ImportError:
        # Red Hat's Python is built without its own, so that OpenSSL's is the only one.
        module = __import__("hashlib")
    return str(module.sha256(data).hexdigest())


# -- TLS: loaded only when a connection is to be made -----------------------------------------------------------------


def load_ssl() -> ModuleType:
    """The module with the errors and constants of TLS, ``ssl`` or its C half; the names used here are in both."""
    if C_HALVES:
        import _ssl

        return _ssl
    import ssl

    return ssl


def tls_client_context() -> ssl.SSLContext:
    """A context that verifies certificate and name, for TLS 1.2 and later."""
    context: Any
    if C_HALVES:
        import _ssl

        context = _ssl._SSLContext(_ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = _ssl.PROTO_TLSv1_2
        return context  # type: ignore[no-any-return]
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context  # type: ignore[no-any-return]


def start_tls(context: ssl.SSLContext, plain: socket.socket, server_name: str) -> TlsStream:
    """Shakes hands and verifies; the plain socket belongs to the stream from here on."""
    if C_HALVES:
        return _stream(context, plain, server_name)
    # As bytes, since the codec for international names takes 5 ms of CPU to import.
    return context.wrap_socket(plain, server_hostname=server_name.encode("ascii"))


def _stream(context: Any, plain: Any, server_name: str) -> TlsStream:
    """What ``ssl.SSLSocket`` does of this, on its C half."""
    import _ssl

    # Made here, since to make a class takes 60,000 instructions, and most runs need none of TLS.
    class Stream(load_socket().socket):  # type: ignore[misc]
        """A class in Python, since OpenSSL's side keeps a weak reference, which the C type alone does not allow."""

        tls: Any

        def sendall(self, data: bytes) -> None:
            view = memoryview(data)
            while view:
                view = view[self.tls.write(view) :]

        def recv(self, size: int) -> bytes:
            try:
                return self.tls.read(size)  # type: ignore[no-any-return]
            except _ssl.SSLEOFError:
                return b""

    seconds = plain.gettimeout()
    stream = Stream(plain.family, plain.type, plain.proto, plain.detach())
    stream.settimeout(seconds)
    stream.tls = context._wrap_socket(stream, False, server_name)
    stream.tls.do_handshake()
    return stream
