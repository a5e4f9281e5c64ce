"""A certificate authority for servers on the loopback: P-256, X.509 v3, PEM, in the standard library alone.

ONLY for demos and tests on 127.0.0.1. The arithmetic is not constant time, keys live in plain memory and in short-lived
temporary files, and nothing is ever revoked. Never use it for a key that guards anything.

    authority = Authority.make("demo-ca")
    identity = authority.issue("localhost", dns_names=["localhost"], ip_addresses=["127.0.0.1"])
    context = server_context(identity, clients=authority)

It knows nothing of sockets, and cannot read or verify a certificate: that is left to ``ssl``.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import secrets
import ssl
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

# NIST P-256 (SEC 2, 2.4.2): the field, the group order and the base point; a = -3.
_P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_GX = 0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296
_GY = 0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5

_HOUR = datetime.timedelta(hours=1)
# The authority must outlive every leaf that a test asks for, those dated years ahead included.
_AUTHORITY_LIFETIME = datetime.timedelta(days=20 * 365)


class Identity(NamedTuple):
    """A certificate and its private key, both PEM; the key as SEC1 ``EC PRIVATE KEY``, like the kubelet's own."""

    certificate_pem: str
    key_pem: str


class Authority:
    """A self-signed certificate authority; make one with `Authority.make`."""

    __slots__ = ("_key", "_key_id", "_name", "certificate_pem")

    certificate_pem: str

    def __init__(self, name: bytes, key: int, key_id: bytes, certificate_pem: str) -> None:
        self._name = name
        self._key = key
        self._key_id = key_id
        self.certificate_pem = certificate_pem

    @classmethod
    def make(cls, common_name: str) -> Authority:
        """A new authority with a new key, valid from a day ago for 20 years."""
        key, point = _make_key()
        name, key_id = _name(common_name, None), hashlib.sha1(point).digest()
        start = _now() - 24 * _HOUR
        extensions = [
            _extension("2.5.29.19", _sequence(_der(0x01, b"\xff")), critical=True),  # basicConstraints: CA
            _extension("2.5.29.15", b"\x03\x02\x01\x06", critical=True),  # keyUsage: keyCertSign, cRLSign
            *_key_identifiers(key_id, key_id),
        ]
        certificate = _certificate(name, name, (start, start + _AUTHORITY_LIFETIME), point, extensions, key)
        return cls(name, key, key_id, _pem("CERTIFICATE", certificate))

    def issue(
        self,
        common_name: str,
        *,
        dns_names: Iterable[str] = (),
        ip_addresses: Iterable[str] = (),
        organization: str | None = None,
        not_before: datetime.datetime | None = None,
        not_after: datetime.datetime | None = None,
        client: bool = False,
    ) -> Identity:
        """A leaf certificate with a new key.

        `ip_addresses` are IPv4 or IPv6 texts; the dates are timezone-aware, by default an hour ago and 24 hours ahead;
        `client` chooses extended key usage clientAuth instead of serverAuth. ValueError for an invalid address.
        """
        key, point = _make_key()
        start, end = not_before or _now() - _HOUR, not_after or _now() + 24 * _HOUR
        usage = "1.3.6.1.5.5.7.3.2" if client else "1.3.6.1.5.5.7.3.1"
        extensions = [
            _extension("2.5.29.19", _sequence(), critical=True),  # basicConstraints: not a CA
            _extension("2.5.29.15", b"\x03\x02\x07\x80", critical=True),  # keyUsage: digitalSignature
            _extension("2.5.29.37", _sequence(_oid(usage))),
            *_key_identifiers(hashlib.sha1(point).digest(), self._key_id),
        ]
        names = [_der(0x82, name.encode("ascii")) for name in dns_names]
        names += [_der(0x87, ipaddress.ip_address(address).packed) for address in ip_addresses]
        if names:
            extensions.append(_extension("2.5.29.17", _sequence(*names)))
        subject = _name(common_name, organization)
        certificate = _certificate(self._name, subject, (start, end), point, extensions, self._key)
        private_key = _sequence(
            _integer(1), _der(0x04, key.to_bytes(32, "big")), _der(0xA0, _CURVE), _der(0xA1, _bits(point))
        )
        return Identity(_pem("CERTIFICATE", certificate), _pem("EC PRIVATE KEY", private_key))


def server_context(identity: Identity, clients: Authority | None = None) -> ssl.SSLContext:
    """TLS for a server; with `clients`, a client certificate of that authority is taken, and none is fine as well."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load(context, identity)
    if clients is not None:
        context.load_verify_locations(cadata=clients.certificate_pem)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(authority: Authority, identity: Identity | None = None) -> ssl.SSLContext:
    """TLS for a client that trusts `authority` alone, strictly by RFC 5280, and shows `identity` when asked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=authority.certificate_pem)
    if identity is not None:
        _load(context, identity)
    return context


def _load(context: ssl.SSLContext, identity: Identity) -> None:
    # `ssl` takes a key from a file only; mkdtemp makes the directory 0700.
    with tempfile.TemporaryDirectory(prefix="demo-key-") as directory:
        path = Path(directory, "identity.pem")
        path.write_text(identity.certificate_pem + identity.key_pem, "ascii")
        context.load_cert_chain(path)


# -- the curve ---------------------------------------------------------------------------------------------------------


def _make_key() -> tuple[int, bytes]:
    key = 1 + secrets.randbelow(_N - 1)
    x, y = _multiply(key)
    return key, b"\x04" + x.to_bytes(32, "big") + y.to_bytes(32, "big")


def _sign(key: int, message: bytes) -> bytes:
    digest = int.from_bytes(hashlib.sha256(message).digest(), "big")
    while True:
        nonce = 1 + secrets.randbelow(_N - 1)
        r = _multiply(nonce)[0] % _N
        s = pow(nonce, -1, _N) * (digest + r * key) % _N
        if r and s:
            return _sequence(_integer(r), _integer(s))


def _multiply(scalar: int) -> tuple[int, int]:
    """`scalar` times the base point, for 0 < scalar < order, in Jacobian coordinates (one inversion instead of 380)."""
    x, y, z = _GX, _GY, 1
    for bit in bin(scalar)[3:]:
        x, y, z = _double(x, y, z)
        if bit == "1":
            x, y, z = _add_base(x, y, z)
    inverse = pow(z, -1, _P)
    return x * inverse**2 % _P, y * inverse**3 % _P


def _double(x: int, y: int, z: int) -> tuple[int, int, int]:
    # dbl-2001-b of the Explicit-Formulas Database, for a = -3.
    delta, gamma = z * z % _P, y * y % _P
    beta, alpha = x * gamma % _P, 3 * (x - delta) * (x + delta) % _P
    x3 = (alpha * alpha - 8 * beta) % _P
    return x3, (alpha * (4 * beta - x3) - 8 * gamma * gamma) % _P, ((y + z) ** 2 - gamma - delta) % _P


def _add_base(x: int, y: int, z: int) -> tuple[int, int, int]:
    zz = z * z % _P
    h, r = (_GX * zz - x) % _P, (_GY * z * zz - y) % _P
    if h == 0:
        # The running point is 2m times the base with 2m + 1 <= scalar: it is plus or minus the base itself only for a
        # scalar of the order or more, and the formula below has no answer then.
        raise ArithmeticError("scalar out of range")
    hh = h * h % _P
    hhh, v = h * hh % _P, x * hh % _P
    x3 = (r * r - hhh - 2 * v) % _P
    return x3, (r * (v - x3) - y * hhh) % _P, z * h % _P


# -- DER and X.509 -----------------------------------------------------------------------------------------------------


def _certificate(
    issuer: bytes,
    subject: bytes,
    validity: tuple[datetime.datetime, datetime.datetime],
    point: bytes,
    extensions: Sequence[bytes],
    signing_key: int,
) -> bytes:
    body = _sequence(
        _der(0xA0, _integer(2)),  # version 3
        _integer(secrets.randbits(127) | 1),
        _SIGNED_WITH,
        issuer,
        _sequence(*map(_time, validity)),
        subject,
        _sequence(_sequence(_oid("1.2.840.10045.2.1"), _CURVE), _bits(point)),
        _der(0xA3, _sequence(*extensions)),
    )
    return _sequence(body, _SIGNED_WITH, _bits(_sign(signing_key, body)))


def _key_identifiers(subject: bytes, issuer: bytes) -> list[bytes]:
    return [_extension("2.5.29.14", _der(0x04, subject)), _extension("2.5.29.35", _sequence(_der(0x80, issuer)))]


def _extension(oid: str, value: bytes, *, critical: bool = False) -> bytes:
    return _sequence(_oid(oid), _der(0x01, b"\xff") if critical else b"", _der(0x04, value))


def _name(common_name: str, organization: str | None) -> bytes:
    pairs = [("2.5.4.10", organization)] if organization is not None else []
    pairs.append(("2.5.4.3", common_name))
    return _sequence(*(_der(0x31, _sequence(_oid(oid), _der(0x0C, (text or "").encode()))) for oid, text in pairs))


def _time(when: datetime.datetime) -> bytes:
    when = when.astimezone(datetime.UTC)
    # RFC 5280, 4.1.2.5: UTCTime through 2049, GeneralizedTime from 2050 on.
    if 1950 <= when.year < 2050:
        return _der(0x17, when.strftime("%y%m%d%H%M%SZ").encode())
    return _der(0x18, when.strftime("%Y%m%d%H%M%SZ").encode())


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def _sequence(*parts: bytes) -> bytes:
    return _der(0x30, b"".join(parts))


def _integer(value: int) -> bytes:
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _bits(content: bytes) -> bytes:
    return _der(0x03, b"\x00" + content)


def _oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    encoded = bytearray((40 * first + second,))
    for arc in rest:
        septets = [arc & 0x7F]
        while arc := arc >> 7:
            septets.append(0x80 | (arc & 0x7F))
        encoded += bytes(reversed(septets))
    return _der(0x06, bytes(encoded))


def _pem(label: str, der: bytes) -> str:
    text = base64.encodebytes(der).decode().replace("\n", "")
    lines = "\n".join(text[start : start + 64] for start in range(0, len(text), 64))
    return f"-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n"


_CURVE = _oid("1.2.840.10045.3.1.7")
_SIGNED_WITH = _sequence(_oid("1.2.840.10045.4.3.2"))  # ecdsa-with-SHA256
