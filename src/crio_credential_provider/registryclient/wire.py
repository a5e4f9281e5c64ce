"""HTTP for one question: URLs, answers with their challenges, connections, proxies. Knows no registry.

Each request has a connection of its own. Everything ends at one deadline, and answers are bounded.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import ipaddress
import json
import re
import socket
import ssl
import threading
import time
import urllib.parse
from typing import TYPE_CHECKING, Any, NamedTuple

from .verdict import CONNECT, DNS, Fault

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_HEAD = 64 * 1024
"""Bytes of a proxy's answer."""

_MAX_ANSWER = 8 * 1024 * 1024
"""Bytes of one answer, its head included; CRI-O takes manifests of 4 MiB."""

# -- URLs and answers -------------------------------------------------------------------------------------------------


class Url(NamedTuple):
    """An http or https URL, taken apart. ``target`` is path and query."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.authority}"

    @property
    def shown(self) -> str:
        """Without the query, which names the account."""
        return self.origin + self.target.partition("?")[0]


_PORTS = {"http": 80, "https": 443}


def parse_url(text: str, base: Url | None = None) -> Url | None:
    """None for what is not an http or https URL of a host."""
    try:
        parts = urllib.parse.urlsplit(urllib.parse.urljoin(base.origin + base.target, text) if base else text)
        port = parts.port
    except ValueError:
        return None
    host = parts.hostname or ""
    if parts.scheme not in _PORTS or not host.isascii() or not re.fullmatch(r"[\w.:-]+", host) or "@" in parts.netloc:
        return None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    # Headers were decoded as Latin-1: so encoded, their bytes are those that were sent.
    target = urllib.parse.quote(target, _KEPT, "latin-1", "replace")
    return Url(parts.scheme, host, port or _PORTS[parts.scheme], target)


_KEPT = "!\"#$%&'()*+,/:;<=>?@[\\]^`{|}~"


def is_for_go_alone(text: str, base: Url | None = None) -> bool:
    """Whether CRI-O asks a URL that ``parse_url`` takes for none: one with a user, or with a host beyond ASCII."""
    try:
        parts = urllib.parse.urlsplit(urllib.parse.urljoin(base.origin, text) if base else text)
        has_host = parts.scheme in _PORTS and bool(parts.hostname) and not re.search(r"\s", parts.netloc)
    except ValueError:
        return False
    return has_host and ("@" in parts.netloc or not parts.netloc.isascii())


class Answer(NamedTuple):
    """An HTTP answer. ``url`` is the one that gave it, after all redirects; ``kept_back`` whether CRI-O would have
    shown the credential there, which was not done."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    url: Url
    kept_back: bool = False

    @property
    def media_type(self) -> str:
        return (self.headers.get("Content-Type") or "").partition(";")[0].strip().lower()

    def json(self) -> Any:
        """The body's value, None where it is not JSON."""
        try:
            return json.loads(self.body.decode(errors="replace"))
        except (ValueError, RecursionError):
            return None


# -- challenges -------------------------------------------------------------------------------------------------------


class Challenge(NamedTuple):
    """A ``WWW-Authenticate`` header: its scheme and parameters, names in lower case."""

    scheme: str
    parameters: dict[str, str]


_SCHEME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PARAMETER = re.compile(r'\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)=(?:"((?:[^"\\]|\\.)*)"|([!#$%&\'*+.^_`|~0-9A-Za-z-]+))\s*')


def challenges_of(answer: Answer) -> list[Challenge]:
    """One of each header, as containers/image reads them."""
    found = []
    for header in answer.headers.get_all("WWW-Authenticate") or ():
        scheme = _SCHEME.match(header)
        if scheme is None:
            continue
        parameters, position = {}, scheme.end()
        while matched := _PARAMETER.match(header, position):
            name, quoted, token = matched.groups()
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else token
            if not value:
                break
            parameters[name.lower()] = value
            position = matched.end()
            if header[position : position + 1] != ",":
                break
            position += 1
        found.append(Challenge(scheme[0].lower(), parameters))
    return found


def offered_schemes(answer: Answer) -> list[str]:
    """Every scheme that is offered: those as well that containers/image does not see, further ones of a header."""
    found: dict[str, None] = {}
    for header in answer.headers.get_all("WWW-Authenticate") or ():
        for piece in re.sub(r'"(?:[^"\\]|\\.)*"', '""', header).split(","):
            if matched := re.fullmatch(rf"\s*({_SCHEME.pattern})(?:\s+\S.*)?\s*", piece):
                found[matched[1].lower()] = None
    return list(found)


# -- one request ------------------------------------------------------------------------------------------------------


class TooMuch(Exception):
    """An answer is larger than any that would be of use."""


class Silent(TimeoutError):
    """A connection was taken, and nothing came in time."""


class Opened(NamedTuple):
    """A connection on which a URL can be asked for: what to name there, and what a proxy wants besides."""

    connection: socket.socket
    target: str
    headers: dict[str, str]


def exchange(
    opened: Opened,
    method: str,
    url: Url,
    headers: dict[str, str],
    content: bytes,
    deadline: float,
    headers_alone: frozenset[int],
) -> Answer:
    """Asks once, follows nothing, and closes.

    Args:
        headers_alone: statuses whose body counts for nothing, and is not waited for.

    Raises:
        OSError: no answer in time, or none.
        http.client.HTTPException: no HTTP is spoken there.
        TooMuch: the answer has no end.
    """
    connection = http.client.HTTPConnection(url.host, url.port)
    connection.sock = _Wire(opened.connection, deadline)
    try:
        connection.request(method, opened.target, content or None, {**headers, **opened.headers})
        response = connection.getresponse()
        body = b"" if response.status in headers_alone else response.read()
        return Answer(response.status, response.headers, body, url)
    except TimeoutError:
        raise Silent from None
    except OverflowError:
        # It says to send more than any machine could hold.
        raise TooMuch from None
    finally:
        opened.connection.close()


def connect(url: Url, context: ssl.SSLContext, environment: Mapping[str, str], deadline: float) -> Opened:
    """A connection for a URL, TLS included.

    Args:
        context: for https.
        environment: names the proxies, as for programs written in Go.
        deadline: by the monotonic clock.

    Raises:
        OSError: no connection, or no TLS.
        Fault: the host or a proxy cannot be found, or the proxy refuses.
    """
    proxy = find_proxy(url, environment)
    if proxy is None:
        plain = _connect(url.host, url.port, deadline)
    else:
        plain = _connect_to_proxy(proxy, deadline)
        if url.scheme == "http":
            # It wants the whole URL where there is no TLS.
            return Opened(plain, url.origin + url.target, proxy.headers)
    if url.scheme == "http":
        return Opened(plain, url.target, {})
    try:
        if proxy is not None:
            _tunnel(plain, proxy, url, deadline)
        plain.settimeout(_remaining(deadline))
        return Opened(context.wrap_socket(plain, server_hostname=url.host), url.target, {})
    except BaseException as error:
        plain.close()
        if isinstance(error, TimeoutError):
            raise Silent from None
        # What ssl says of a certificate is a ValueError as well.
        if isinstance(error, ValueError) and not isinstance(error, ssl.SSLError):
            raise OSError(0, "it is not a host name") from None
        raise


class _Wire:
    """What http.client needs of a socket. Closing is left to who opened it: http.client closes before it has read."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    def sendall(self, data: bytes) -> None:
        self._connection.settimeout(_remaining(self._deadline))
        # A server that closes has said why, which is still to be read: that it wants a client certificate, for one.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
            self._connection.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Incoming(self._connection, self._deadline))

    def close(self) -> None:
        pass


class _Incoming(io.RawIOBase):
    """What a peer says, up to a deadline and a bound."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self._left = _MAX_ANSWER

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._left <= 0:
            raise TooMuch
        self._connection.settimeout(_remaining(self._deadline))
        size = self._connection.recv_into(buffer)
        self._left -= size
        return size


def _remaining(deadline: float) -> float:
    """Seconds left. TimeoutError where there are none."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _connect(host: str, port: int, deadline: float) -> socket.socket:
    """A connection to the first address that takes one; each gets its share of the time left."""
    addresses = _resolve(host, port, deadline)
    for left in range(len(addresses), 0, -1):
        family, kind, protocol, _, address = addresses[-left]
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(_remaining(deadline) / left)
            connection.connect(address)
            return connection
        except OSError:
            connection.close()
            if left == 1:
                raise
    raise OSError(0, "the name has no address")


def _resolve(host: str, port: int, deadline: float) -> list[Any]:
    """Addresses of a host. A resolver cannot be interrupted, so that it is left behind where it is late."""
    found: list[list[Any]] = []
    failed: list[Exception] = []

    def look_up() -> None:
        try:
            found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            failed.append(error)

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(_remaining(deadline))
    if found:
        return found[0]
    reason, cause = "the resolver does not answer in time", "timeout"
    if failed:
        reason, cause = getattr(failed[0], "strerror", None) or "it is not a host name", "unknown"
    if failed and getattr(failed[0], "errno", 0) == socket.EAI_AGAIN:
        cause = "temporary"
    remedy = "check the name, and this node's resolver: getent hosts " + host
    if host.endswith((".svc", ".cluster.local")):
        remedy = "use another name: pulls use the node's resolver, which does not resolve the cluster's Services"
    raise Fault(DNS, f"{host} cannot be resolved: {reason}", remedy, cause)


# -- proxies ----------------------------------------------------------------------------------------------------------


class Proxy(NamedTuple):
    """An HTTP proxy, with what authenticates to it."""

    host: str
    port: int
    headers: dict[str, str]


def find_proxy(url: Url, environment: Mapping[str, str]) -> Proxy | None:
    """The proxy that a program written in Go would use for a URL; None to connect directly.

    Raises:
        Fault: it is not one that is understood here.
    """
    name = f"{url.scheme}_proxy"
    text = environment.get(name.upper()) or environment.get(name) or ""
    if not text or _is_exempt(url, environment.get("NO_PROXY") or environment.get("no_proxy") or ""):
        return None
    try:
        parts = urllib.parse.urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname or "", parts.port or _PORTS["http"]
    except ValueError:
        host = ""
    if not host or parts.scheme != "http":
        remedy = f"give {name.upper()} as http://HOST:PORT"
        evidence = f"{name.upper()} is a kind of proxy that verify does not support; the container runtime may"
        raise Fault(CONNECT, evidence, remedy, "proxy", undecided=True)
    headers = {}
    if parts.username is not None:
        login = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    return Proxy(host, port, headers)


def _is_exempt(url: Url, no_proxy: str) -> bool:
    """Whether NO_PROXY names a host; those of the machine itself never have a proxy."""
    address = _address(url.host)
    if url.host == "localhost" or (address is not None and address.is_loopback):
        return True
    for pattern in no_proxy.lower().split(","):
        pattern = pattern.strip()
        if pattern == "*":
            return True
        if "/" in pattern and address is not None:
            try:
                if address in ipaddress.ip_network(pattern, strict=False):
                    return True
            except ValueError:
                continue
        name, _, port = pattern.partition(":") if pattern.count(":") == 1 else (pattern, "", "")
        suffix = name.removeprefix("*")
        named = url.host == name or url.host.endswith(suffix if suffix.startswith(".") else f".{suffix}")
        if name and named and port in ("", str(url.port)):
            return True
    return False


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _connect_to_proxy(proxy: Proxy, deadline: float) -> socket.socket:
    try:
        return _connect(proxy.host, proxy.port, deadline)
    except OSError as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else error.strerror
        evidence = f"the proxy {proxy.host}:{proxy.port} cannot be reached: {reason}"
        raise Fault(CONNECT, evidence, "check that it is running, and HTTPS_PROXY", "proxy") from None


def _tunnel(plain: socket.socket, proxy: Proxy, url: Url, deadline: float) -> None:
    """Asks a proxy for a connection to a host."""
    host = f"[{url.host}]" if ":" in url.host else url.host
    target = f"{host}:{url.port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", *(f"{k}: {v}" for k, v in proxy.headers.items())]
    plain.settimeout(_remaining(deadline))
    plain.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
    head = b""
    # Byte by byte: what follows the head belongs to TLS.
    while not head.endswith(b"\r\n\r\n") and len(head) < _MAX_HEAD:
        plain.settimeout(_remaining(deadline))
        byte = plain.recv(1)
        if not byte:
            break
        head += byte
    status = head.split(b" ", 2)[1:2]
    if status != [b"200"]:
        answer = status[0].decode() if status and status[0].isdigit() else "something that is not HTTP"
        evidence = f"the proxy {proxy.host}:{proxy.port} answers {answer} to CONNECT {target}"
        remedy = "ask its administrator to allow that host, or add it to NO_PROXY"
        raise Fault(CONNECT, evidence, remedy, "proxy")
