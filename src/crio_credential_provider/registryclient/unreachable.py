"""Why a registry does not answer: what an error of the connection or of TLS means, and what to do."""

from __future__ import annotations

import errno
import ssl
from collections.abc import Callable
from typing import NamedTuple

from .trust import Trust
from .verdict import CONNECT, TLS, Fault
from .wire import Silent

_PROXY = "If {} uses a proxy, set HTTPS_PROXY here as in its unit"

# OpenSSL's names for what a plain HTTP server answers to a handshake.
_NOT_TLS = frozenset(("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG"))
_OLD = frozenset(("TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL"))
_WANTS_CERTIFICATE = frozenset(
    (
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "TLSV1_ALERT_UNKNOWN_CA",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
    )
)


class Attempt(NamedTuple):
    """What was tried.

    Attributes:
        name: the registry as images call it.
        where: the URL's beginning, as it may be told.
        host: that of the URL, "" where it may not be told.
        seconds: how long an answer was waited for.
        trust: what its certificate was held against.
        is_registry_without_tls: asks there over plain HTTP.
        runtime: whose pull it is.
    """

    name: str
    where: str
    host: str
    seconds: float
    trust: Trust
    is_registry_without_tls: Callable[[], bool]
    runtime: str


def explain(error: OSError, attempt: Attempt) -> Fault:
    """No answer: the connection or TLS failed."""
    where, seconds = attempt.where, attempt.seconds
    proxy = _PROXY.format(attempt.runtime)
    if isinstance(error, ssl.SSLError):
        return _no_tls(error, attempt)
    if isinstance(error, Silent):
        evidence = f"{where} accepts the connection and does not answer within {seconds:g} s"
        return Fault(CONNECT, evidence, f"look in its log; {attempt.runtime} waits longer", "silent")
    if isinstance(error, TimeoutError) or error.errno == errno.ETIMEDOUT:
        evidence = f"{where} does not answer within {seconds:g} s"
        return Fault(
            CONNECT,
            evidence,
            f"check that it is running and that no firewall drops packets from this node. {proxy}",
            "timeout",
        )
    if isinstance(error, ConnectionRefusedError):
        return Fault(CONNECT, f"{where} refuses connections", "check that it is running, and the port", "refused")
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        remedy = "look in its log; it may require a client certificate, or something in between ends the connection"
        return Fault(CONNECT, f"{where} closes the connection without an answer", remedy, "closed")
    reason = error.strerror or type(error).__name__
    return Fault(
        CONNECT, f"{where} cannot be reached: {reason}", f"check the route from this node. {proxy}", "unreachable"
    )


def _no_tls(error: ssl.SSLError, attempt: Attempt) -> Fault:
    where, trust = attempt.where, attempt.trust
    if isinstance(error, ssl.SSLCertVerificationError):
        return _not_trusted(error, attempt)
    if error.reason in _NOT_TLS:
        return _plain(attempt)
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        remedy = "look in its log; it may require a client certificate, or something in between ends the connection"
        return Fault(TLS, f"{where} closes the connection during TLS", remedy, "closed")
    if error.reason in _WANTS_CERTIFICATE:
        directory = trust.directory
        found = f"; {directory} has none that it accepts" if directory else ""
        remedy = trust.remedy_of_client(attempt.name)
        return Fault(TLS, f"{where} ends TLS: it requires a client certificate{found}", remedy, "client-certificate")
    if error.reason in _OLD:
        remedy = f"update it: {attempt.runtime} requires TLS 1.2"
        return Fault(TLS, f"{where} does not support TLS 1.2 or newer", remedy, "too-old")
    reason = error.reason or "no reason given"
    return Fault(TLS, f"TLS with {where} failed: {reason}", "look in the registry's log", "other")


def _plain(attempt: Attempt) -> Fault:
    """Something that is not TLS answered."""
    evidence, remedy = f"{attempt.where} does not speak TLS", "check the port"
    if attempt.is_registry_without_tls():
        evidence += "; over plain HTTP a registry answers there"
        remedy = f"configure TLS there; {attempt.trust.allows_plain}"
    return Fault(TLS, evidence, remedy, "not-tls")


def _not_trusted(error: ssl.SSLCertVerificationError, attempt: Attempt) -> Fault:
    trust, flaws = attempt.trust, ""
    match error.verify_code:
        case 9:
            evidence, cause = "is not valid yet", "not-yet-valid"
            remedy = "check the clocks of this node and of the registry"
        case 10:
            evidence, cause, remedy = "has expired", "expired", "renew it, or check this node's clock"
        case 62 | 64:
            name = f"the name {attempt.host}" if attempt.host else "that name"
            evidence, cause = f"is not for {name}", "wrong-name"
            remedy = "use one of its names, or issue it for this one (as subject alternative name)"
        case _:
            evidence = f"was not issued by a CA that this node trusts ({error.verify_message})"
            others = trust.near_misses(attempt.name)
            cause, remedy = "unknown-ca", trust.remedy_of_ca(attempt.name, others)
            others = [f"{path} is for another port" for path in others]
            flaws = "".join(f"; {flaw}" for flaw in (*trust.flaws, *others))
    return Fault(TLS, f"{attempt.where}: its certificate {evidence}{flaws}", remedy, cause)
