"""Shows that ``native`` gives the verdicts of the public modules: run inside each bundle when it is built.

JSON documents, good and bad, are decoded by both; servers with good and bad certificates are connected to by both.
Knows nothing about pulls. Prints what differs.

With arguments, each the name of a module or of a codec (``json codec:utf-8``), prints those that are not there.
"""

from __future__ import annotations

import codecs
import datetime
import hashlib
import importlib
import json
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from typing import Any

from ..platform import native
from .certificates import Authority, Identity, server_context
from .loopback import Answer, Connection, LoopbackServer, Request

DOCUMENTS = (
    *("", " ", "{}", " [] \r\n\t", "null", "true", "tru", "nul", '"a"', "'a'", "{,}", "[1,]", "[,1]", "{} {}", "[] x"),
    *(
        "\ufeff{}",
        "{}\u00a0",
        "\u2003[]",
        "\x00",
        "[\x00]",
        '"\x01"',
        '"\x7f"',
        '"\t"',
        '"\\t"',
        '"\\x"',
        '"\\',
        '"\\u12"',
    ),
    *('"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\ud800"', '"\\u0000"', '"\U0001f600"', '"é"'),
    *("0", "-0", "00", "-", "+1", "1.", ".5", "1e5", "1E+5", "1e", "1e400", "-1e400", "0x1", "1_0", "NaN", "-Infinity"),
    *("9" * 4300, "9" * 4301, "[" + "9" * 5000 + "]", "1" * 400 + ".5", "Infinity", "[NaN]", "123456789012345678901"),
    *('{"a":1,"a":2}', '{"a":1,"A":2}', '{"a"}', '{"a":}', "{a:1}", "{1:1}", '{"a":1,}', '{"a":1 "b":2}', '{"":""}'),
    *("[" * 500 + "]" * 500, "[" * 100000, '{"a":' * 100000, "[" * 500, '{"a":' * 300 + "1" + "}" * 300),
)
VALUES: tuple[Any, ...] = (
    *({}, [], {"a": [1, None, True, "é\ud800\u2028<>&\x00\x7f"]}, {"b": {"c": ""}}, "\U0001f600", 1.5, [[[]]]),
)


def main() -> int:
    """Compares everything, or looks up what the arguments name; returns the exit status."""
    if len(sys.argv) > 1:
        missing = [name for name in sys.argv[1:] if not _is_there(name)]
        print("\n".join(missing))
        return 1 if missing else 0
    differences = [*_of_json(), *_of_digests(), *_of_tls()]
    for difference in differences:
        print(difference)
    print(f"{'C halves' if native.C_HALVES else 'public modules'} and public modules: {len(differences)} differences")
    return 1 if differences else 0


def _is_there(name: str) -> bool:
    kind, colon, codec = name.partition(":")
    try:
        codecs.lookup(codec) if colon else importlib.import_module(kind)
    except (ImportError, LookupError):
        return False
    return True


def _verdict(function: Callable[[], Any]) -> tuple[str, str]:
    """What a call comes to: its value, or the kind of its error."""
    try:
        return "value", repr(function())
    except (ValueError, RecursionError, OSError, SystemError) as error:
        return type(error).__name__, ""


def _of_json() -> Iterator[str]:
    public = json.JSONDecoder(object_pairs_hook=tuple, parse_int=float, parse_constant=_refuse)
    for text in DOCUMENTS:
        for name, hook, as_float, theirs in (
            ("loads", None, False, json.loads),
            ("Decoder", tuple, True, public.decode),
        ):
            found = _verdict(lambda: _without_json(lambda: native.Decoder(hook, as_float).decode(text)))  # noqa: B023
            expected = _verdict(lambda: theirs(text))  # noqa: B023
            if found != expected:
                yield f"{name} of {text[:40]!r}: {found[0]} {found[1][:80]}, not {expected[0]} {expected[1][:80]}"
    for value in VALUES:
        if native.dumps(value) != json.dumps(value, separators=(",", ":")):
            yield f"dumps of {value!r}"


def _without_json(function: Callable[[], Any]) -> Any:
    """Calls as in a pull: the C scanner fails in another way where the public module is not loaded."""
    loaded = {name: sys.modules.pop(name) for name in ("json", "json.decoder")}
    try:
        return function()
    finally:
        sys.modules.update(loaded)


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _of_digests() -> Iterator[str]:
    for data in (b"", b"docker.io/library/nginx", b"x" * 100_000):
        if native.sha256(data) != hashlib.sha256(data).hexdigest():
            yield f"sha256 of {len(data)} bytes"


# -- TLS --------------------------------------------------------------------------------------------------------------


def _of_tls() -> Iterator[str]:
    trusted, other = Authority.make("trusted"), Authority.make("other")
    now = datetime.datetime.now(datetime.UTC)
    hour = datetime.timedelta(hours=1)
    names, addresses = ("server.example", "*.wild.example"), ("127.0.0.1",)
    identities = {
        "good": trusted.issue("server.example", dns_names=names, ip_addresses=addresses),
        "of another CA": other.issue("server.example", dns_names=names, ip_addresses=addresses),
        "expired": trusted.issue("server.example", dns_names=names, not_before=now - 2 * hour, not_after=now - hour),
        "not yet valid": trusted.issue("server.example", dns_names=names, not_before=now + hour),
        "for clients": trusted.issue("server.example", dns_names=names, client=True),
        "without names": trusted.issue("server.example"),
    }
    for kind, identity in identities.items():
        for name in ("server.example", "a.wild.example", "other.example", "127.0.0.1", "127.0.0.2", "::1"):
            found = _handshake(identity, trusted, name, native.tls_client_context, native.start_tls)
            expected = _handshake(identity, trusted, name, _public_context, _public_tls)
            if found != expected:
                yield f"a certificate {kind}, asked for as {name}: {found}, not {expected}"


def _public_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _public_tls(context: ssl.SSLContext, plain: socket.socket, name: str) -> ssl.SSLSocket:
    return context.wrap_socket(plain, server_hostname=name)


def _handshake(
    identity: Identity,
    trusted: Authority,
    name: str,
    make_context: Callable[[], ssl.SSLContext],
    start: Callable[[ssl.SSLContext, Any, str], Any],
) -> str:
    """What becomes of a request to a server with that certificate: the answer's first line, or OpenSSL's verdict."""

    def respond(_request: Request, connection: Connection) -> None:
        connection.send(Answer(200, [], b"ok").dumps())

    context = make_context()
    context.load_verify_locations(cadata=trusted.certificate_pem)
    with LoopbackServer(respond, server_context(identity)) as server:
        module = native.load_socket() if make_context is native.tls_client_context else socket
        plain = module.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
        plain.settimeout(10)
        plain.connect(("127.0.0.1", server.port))
        try:
            stream = start(context, plain, name)
            stream.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            return str(stream.recv(4096).partition(b"\r\n")[0])
        except ssl.SSLCertVerificationError as error:
            return f"not verified, {error.verify_code}"
        except OSError as error:
            return type(error).__name__


if __name__ == "__main__":
    raise SystemExit(main())
