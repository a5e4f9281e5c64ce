"""One question to one registry, asked as CRI-O asks it, and a verdict that tells apart what can go wrong.

Follows containers/image 5.38: ``GET /v2/`` without a credential, over TLS (then plain HTTP where the source is
``insecure``); the challenge it answers decides between Basic and a token service; then the manifest. Trusts the
system's CAs and those of ``certs.d``. Asks for headers first (Docker Hub does not count ``HEAD``), and with ``GET``, as
CRI-O does, before it says no.

Knows nothing about registries.conf or pull secrets. Shows no credential to another host than the one it is for, or the
token service that this one names; no text of a verdict holds a piece of a credential or of a token.

    verdict = probe_manifest("mirror.corp:5000", "hub/library/nginx", "1.27", credential)
    print(verdict.outcome, verdict.evidence, verdict.remedy)
"""

from __future__ import annotations

import base64
import errno
import http.client
import io
import json
import os
import pwd
import re
import socket
import ssl
import threading
import time
import urllib.parse
from typing import TYPE_CHECKING, Any, NamedTuple

from . import __version__
from .errors import ConfigError
from .record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .dockerconfig import Credential

OK = "ok"
DNS = "dns"
CONNECT = "connect"
TLS = "tls"
UNAUTHORIZED = "unauthorized"
FORBIDDEN = "forbidden"
NOT_FOUND = "not-found"
RATE_LIMITED = "rate-limited"
SERVER_ERROR = "server-error"
NOT_A_REGISTRY = "not-a-registry"

OUTCOMES = (
    OK,
    DNS,
    CONNECT,
    TLS,
    UNAUTHORIZED,
    FORBIDDEN,
    NOT_FOUND,
    RATE_LIMITED,
    SERVER_ERROR,
    NOT_A_REGISTRY,
)

DEADLINE = 10.0
"""Seconds for everything that one verdict takes."""

MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.index.v1+json",
)
"""What CRI-O accepts, in its order."""

_DOCKER_HUB, _DOCKER_HUB_SERVER = "docker.io", "registry-1.docker.io"

_MAX_ANSWER = 8 * 1024 * 1024
"""Bytes of one answer, its head included; CRI-O takes manifests of 4 MiB."""

_MAX_REDIRECTS = 10
_MAX_TOLD = 200
"""Characters of a registry's own words."""

_PIECE = 8
"""Characters of a secret that may not stand together in a text."""


class Verdict(Record):
    """What a registry answered, or why there is no answer.

    Attributes:
        outcome: one of ``OUTCOMES``.
        cause: which of the faults of that outcome, for programs: ``refused``, ``timeout``, ``unknown-ca``,
            ``no-credential``, ...; "" where there is one alone.
        evidence: what was asked and what came back, one sentence.
        remedy: what to do; "" for ``ok``.
        scheme: ``https`` or ``http``, by which the registry answered; "" where it did not.
        digest: of the manifest, as the registry tells it; "" without one.
        credential_sent_to: the hosts that the credential was shown, in order.
        exchanges: every request with its answer, without queries and headers.
    """

    __slots__ = ("cause", "credential_sent_to", "digest", "evidence", "exchanges", "outcome", "remedy", "scheme")

    def __init__(
        self,
        outcome: str,
        evidence: str,
        remedy: str = "",
        cause: str = "",
        scheme: str = "",
        digest: str = "",
        credential_sent_to: tuple[str, ...] = (),
        exchanges: tuple[str, ...] = (),
    ) -> None:
        self.outcome = outcome
        self.cause = cause
        self.evidence = evidence
        self.remedy = remedy
        self.scheme = scheme
        self.digest = digest
        self.credential_sent_to = credential_sent_to
        self.exchanges = exchanges


def probe_registry(host: str, *, insecure: bool = False, root: str = "", deadline: float = DEADLINE) -> Verdict:
    """Whether a registry is there that this node can talk to. Shows no credential.

    Args:
        host: as in image names, with its port: ``mirror.corp:5000``.
        insecure: as in registries.conf: TLS is not verified, and plain HTTP will do.
        root: directory below which CAs are looked for.
        deadline: seconds.

    Returns:
        A verdict that is ``ok`` if a registry answered, whether or not it wants a credential.

    Raises:
        ConfigError: this process may not read what CRI-O would read.
    """

    return _judge(_Client(host, None, insecure, root, deadline), _Client.ask_registry)


def probe_manifest(
    host: str,
    path: str,
    reference: str,
    credential: Credential | None,
    *,
    insecure: bool = False,
    root: str = "",
    deadline: float = DEADLINE,
) -> Verdict:
    """Whether a registry hands out a manifest for a credential.

    Args:
        host, insecure, root, deadline: as for ``probe_registry``.
        path: of the repository.
        reference: a tag or a digest.
        credential: None to ask as nobody.

    Raises:
        ConfigError: this process may not read what CRI-O would read.
    """
    return _judge(
        _Client(host, credential, insecure, root, deadline), lambda client: client.ask_manifest(path, reference)
    )


class _Fault(Exception):
    """Why there is no manifest."""

    def __init__(self, outcome: str, evidence: str, remedy: str, cause: str = "") -> None:
        super().__init__(evidence)
        self.outcome = outcome
        self.evidence = evidence
        self.remedy = remedy
        self.cause = cause


def _judge(client: _Client, ask: Callable[[_Client], tuple[str, str]]) -> Verdict:
    """The verdict of a question, which is answered with the evidence and a digest."""
    outcome, remedy, cause, digest = OK, "", "", ""
    try:
        evidence, digest = ask(client)
    except _Fault as fault:
        outcome, evidence, remedy, cause = fault.outcome, fault.evidence, fault.remedy, fault.cause
    sent_to = tuple(dict.fromkeys(client.credential_sent_to))
    return Verdict(outcome, evidence, remedy, cause, client.scheme, digest, sent_to, tuple(client.exchanges))


# -- addresses and answers --------------------------------------------------------------------------------------------


class _Url(NamedTuple):
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


def _parse_url(text: str, base: _Url | None = None) -> _Url | None:
    """None for what is no http or https URL of a host."""
    try:
        parts = urllib.parse.urlsplit(urllib.parse.urljoin(base.origin + base.target, text) if base else text)
        port = parts.port
    except ValueError:
        return None
    host = parts.hostname or ""
    if parts.scheme not in _PORTS or not host.isascii() or not re.fullmatch(r"[\w.:-]+", host) or "@" in parts.netloc:
        return None
    query = f"?{parts.query}" if parts.query else ""
    target = (parts.path or "/") + query
    if not target.isascii() or not target.isprintable() or " " in target:
        return None
    return _Url(parts.scheme, host, port or _PORTS[parts.scheme], target)


class _Answer(NamedTuple):
    """An HTTP answer. ``url`` is the one that gave it, after all redirects."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    url: _Url

    @property
    def media_type(self) -> str:
        return (self.headers.get("Content-Type") or "").partition(";")[0].strip().lower()

    def json(self) -> Any:
        """The body's value, None where it is no JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


# -- challenges -------------------------------------------------------------------------------------------------------


class _Challenge(NamedTuple):
    """A ``WWW-Authenticate`` header: its scheme and parameters, names in lower case."""

    scheme: str
    parameters: dict[str, str]


_SCHEME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PARAMETER = re.compile(r'\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)=(?:"((?:[^"\\]|\\.)*)"|([!#$%&\'*+.^_`|~0-9A-Za-z-]+))\s*')


def _challenges(answer: _Answer) -> list[_Challenge]:
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
        found.append(_Challenge(scheme[0].lower(), parameters))
    return found


# -- trust ------------------------------------------------------------------------------------------------------------

# Where Go, and so CRI-O, looks for the system's CAs: the first of the files, and all in the directories.
_SYSTEM_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_SYSTEM_DIRECTORIES = ("/etc/ssl/certs", "/etc/pki/tls/certs")
_HOME_CERTIFICATES = ".config/containers/certs.d"
CERTIFICATE_DIRECTORIES = ("/etc/containers/certs.d", "/etc/docker/certs.d")

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class _Trust:
    """The CAs for one registry, and the certificate to show it.

    Attributes:
        context: for all connections of a probe, those to its token service included, as with CRI-O.
        directory: of certs.d, "" where there is none for this host.
        flaws: what in it does not count, for people.
    """

    def __init__(self, host: str, insecure: bool, root: str) -> None:
        self._root = root
        self.directory = self._find_directory(host)
        self.flaws: list[str] = []
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        if insecure:
            self.context.check_hostname = False
            self.context.verify_mode = ssl.CERT_NONE
        else:
            # For Go every certificate in its pool is a root, self-signed or not.
            self.context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            self._trust_the_system()
        self._load_directory(insecure)

    def _find_directory(self, host: str) -> str:
        """The first that exists: the others are not read."""
        home = os.environ.get("HOME") or pwd.getpwuid(os.geteuid()).pw_dir
        for directory in (f"{home}/{_HOME_CERTIFICATES}", *CERTIFICATE_DIRECTORIES):
            path = f"{self._root}{directory}/{host}"
            if os.path.exists(path):
                return path
        return ""

    def _trust_the_system(self) -> None:
        for path in _SYSTEM_FILES:
            data = _read(self._root + path)
            if data is not None:
                self._trust(data)
                break
        for directory in _SYSTEM_DIRECTORIES:
            for name in _names(self._root + directory):
                path = f"{self._root}{directory}/{name}"
                # On Debian half of them are links to their neighbours.
                if not (os.path.islink(path) and "/" not in os.readlink(path)) and os.path.isfile(path):
                    self._trust(_read(path) or b"")

    def _trust(self, data: bytes) -> bool:
        """Adds the certificates of a PEM file, and passes over what is none, as Go does."""
        loaded = False
        for block in _PEM.findall(data):
            try:
                self.context.load_verify_locations(cadata=block.decode("ascii"))
                loaded = True
            except (ssl.SSLError, ValueError):
                continue
        return loaded

    def _load_directory(self, insecure: bool) -> None:
        """Reads certs.d: ``*.crt`` are CAs, ``*.cert`` with ``*.key`` are shown to the registry."""
        names = _names(self.directory) if self.directory else []
        pairs = []
        for name in names:
            path = f"{self.directory}/{name}"
            stem, ending = os.path.splitext(name)
            if ending == ".crt" and not insecure and not self._trust(_read(path) or b""):
                self.flaws.append(f"{path} holds no PEM certificate")
            partner = {".cert": ".key", ".key": ".cert"}.get(ending)
            if partner and stem + partner not in names:
                raise _Fault(
                    TLS,
                    f"CRI-O refuses {self.directory}: {name} is there without {stem}{partner}",
                    f"add {stem}{partner} or remove {name}; CAs are called *.crt",
                    "certs.d",
                )
            if ending == ".cert":
                pairs.append(stem)
            if ending not in (".crt", ".cert", ".key"):
                self.flaws.append(f"{path} is not read: only *.crt, *.cert and *.key are")
        # Of several certificates that would do Go takes the first, OpenSSL the one that was loaded last.
        for stem in reversed(pairs):
            self._load_client_certificate(f"{self.directory}/{stem}")

    def _load_client_certificate(self, stem: str) -> None:
        try:
            # The password keeps OpenSSL from asking for one on the terminal.
            self.context.load_cert_chain(f"{stem}.cert", f"{stem}.key", password="")
        except PermissionError as error:
            raise _not_readable(f"{stem}.key", error) from None
        except (OSError, ValueError):
            raise _Fault(
                TLS,
                f"CRI-O refuses {self.directory}: {stem}.cert and {stem}.key are no certificate with its key in PEM",
                "put the client's certificate and its key there, the key without a passphrase",
                "certs.d",
            ) from None

    def near_misses(self, host: str) -> list[str]:
        """Directories of certs.d that were probably meant for this host."""
        name = host.partition(":")[0]
        found = []
        for directory in CERTIFICATE_DIRECTORIES:
            for other in _names(self._root + directory):
                path = f"{self._root}{directory}/{other}"
                if other.partition(":")[0] == name and path != self.directory:
                    found.append(path)
        return found


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _not_readable(directory, error) from None


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read(_MAX_ANSWER)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise _not_readable(path, error) from None


def _not_readable(path: str, error: OSError) -> ConfigError:
    return ConfigError(f"cannot read {path}: {error.strerror}", "CRI-O reads it as root: run this as root")


# -- the wire ---------------------------------------------------------------------------------------------------------


class _TooMuch(Exception):
    """An answer is larger than any that would be of use."""


class _Wire(io.RawIOBase):
    """What http.client needs of a socket: everything ends at one deadline, and no answer grows beyond its bound."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self._left = _MAX_ANSWER

    def sendall(self, data: bytes) -> None:
        self._connection.settimeout(_remaining(self._deadline))
        self._connection.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._left <= 0:
            raise _TooMuch
        self._connection.settimeout(_remaining(self._deadline))
        size = self._connection.recv_into(buffer)
        self._left -= size
        return size

    def close(self) -> None:
        self._connection.close()
        super().close()


def _remaining(deadline: float) -> float:
    """Seconds left. TimeoutError where there are none."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


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
    reason = "the resolver does not answer"
    if failed:
        reason = getattr(failed[0], "strerror", None) or "it is no host name"
    remedy = "is the name right, and does this node's resolver know it (getent hosts)?"
    if host.endswith((".svc", ".cluster.local")):
        remedy = "CRI-O asks the node's resolver, which does not know the cluster's Services: name the host otherwise"
    raise _Fault(DNS, f"cannot resolve {host}: {reason}", remedy)


def _connect(host: str, port: int, deadline: float) -> socket.socket:
    """A connection to the first address that takes one."""
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
    raise AssertionError("a name without addresses")


# -- the client -------------------------------------------------------------------------------------------------------


class _Client:
    """Everything for one verdict.

    Attributes:
        name: the registry as images call it.
        scheme: by which it answered; "" before it did.
        exchanges, credential_sent_to: as in ``Verdict``.
    """

    def __init__(self, name: str, credential: Credential | None, insecure: bool, root: str, seconds: float) -> None:
        self.name = name
        self.scheme = ""
        self.exchanges: list[str] = []
        self.credential_sent_to: list[str] = []
        self._server = _DOCKER_HUB_SERVER if name == _DOCKER_HUB else name
        self._credential = credential
        self._insecure = insecure
        self._root = root
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._secrets = _secrets(credential)
        self._trust: _Trust | None = None

    # -- questions ---------------------------------------------------------------------------------------------------

    def ask_registry(self) -> tuple[str, str]:
        """Whether there is one; the evidence."""
        answer = self._ping()
        if answer.status == 200:
            return "a registry answers, and wants no credential for GET /v2/", ""
        schemes = ", ".join(challenge.scheme for challenge in _challenges(answer))
        return f"a registry answers, and wants a credential ({self._told(schemes) or 'it does not say which'})", ""

    def ask_manifest(self, path: str, reference: str) -> tuple[str, str]:
        """The manifest's headers, with the credential; where they are refused, the whole, as CRI-O does."""
        challenges = _challenges(self._ping())
        url = self._url(self.scheme, f"/v2/{path}/manifests/{reference}")
        scopes = [f"repository:{path}:pull"]
        authorization = self._authorize(challenges, scopes)
        answer = self._ask("HEAD", url, authorization)
        wider = _missing_scope(answer)
        if wider:
            authorization = self._authorize(challenges, [*scopes, wider])
            answer = self._ask("HEAD", url, authorization)
        if answer.status != 429 and not (answer.status == 200 and answer.media_type in MANIFEST_TYPES):
            answer = self._ask("GET", url, authorization)
            document = answer.json()
            if answer.status == 200 and not (isinstance(document, dict) and "schemaVersion" in document):
                raise _no_registry(f"{self._shown(answer.url)} answers 200 with something else than a manifest")
        if answer.status != 200:
            raise self._refused(answer, challenges, authorization)
        separator = "@" if ":" in reference else ":"
        return f"has {path}{separator}{reference}", self._told(answer.headers.get("Docker-Content-Digest"))

    # -- the way there -----------------------------------------------------------------------------------------------

    def _ping(self) -> _Answer:
        """``GET /v2/`` without a credential: over TLS, then without it where the source is insecure."""
        self._trust = _Trust(self.name, self._insecure, self._root)
        if not self._insecure:
            return self._ping_by("https")
        deadline = self._deadline
        try:
            # A port that says nothing must leave time for the other one.
            self._deadline -= self._seconds / 2
            return self._ping_by("https")
        except _Fault as fault:
            over_tls = fault
        finally:
            self._deadline = deadline
        try:
            return self._ping_by("http")
        except _Fault as plain:
            further = plain if _STAGES.get(plain.outcome, 3) >= _STAGES.get(over_tls.outcome, 3) else over_tls
            evidence = f"https: {over_tls.evidence}; http: {plain.evidence}"
            if plain.evidence == over_tls.evidence:
                evidence = plain.evidence
            raise _Fault(further.outcome, evidence, further.remedy, further.cause) from None

    def _ping_by(self, scheme: str) -> _Answer:
        answer = self._ask("GET", self._url(scheme, "/v2/"))
        if answer.status not in (200, 401):
            raise self._no_ping(answer)
        if answer.media_type == "text/html" and not _challenges(answer):
            raise _no_registry(f"{self._shown(answer.url)} answers {answer.status} with a web page")
        self.scheme = scheme
        return answer

    def _url(self, scheme: str, target: str) -> _Url:
        url = _parse_url(f"{scheme}://{self._server}{target}")
        if url is None:
            raise _Fault(DNS, f"{self._server!r} is no host", "mend the location in registries.conf")
        return url

    def _authorize(self, challenges: Sequence[_Challenge], scopes: list[str]) -> str:
        """The Authorization header for the first challenge that CRI-O understands; "" without one."""
        for challenge in challenges:
            if challenge.scheme == "basic":
                if self._credential is not None:
                    self.credential_sent_to.append(self._server)
                # Without a credential CRI-O shows an empty one.
                return _basic(self._credential)
            if challenge.scheme == "bearer":
                return f"Bearer {self._token(challenge, scopes)}"
        return ""

    def _token(self, challenge: _Challenge, scopes: list[str]) -> str:
        """A token of the service that the registry names."""
        service = _parse_url(challenge.parameters.get("realm", ""))
        if service is None:
            raise _no_registry("its challenge names no token service")
        answer = self._ask_token_service(service, challenge.parameters.get("service", ""), scopes)
        if answer.status != 200:
            raise self._no_token(answer, service)
        document = answer.json()
        names = ("token", "access_token")
        found = [document.get(name) for name in names] if isinstance(document, dict) else []
        token = next((text for text in found if isinstance(text, str) and text), "")
        if not token or not token.isascii() or not token.isprintable():
            shown = self._shown(service)
            raise _no_registry(f"its token service {shown} answers 200 without a usable token", "token-service")
        self._secrets.update(_windows(token))
        return token

    def _ask_token_service(self, service: _Url, name: str, scopes: list[str]) -> _Answer:
        path, _, query = service.target.partition("?")
        wanted = [(key, value) for key, value in urllib.parse.parse_qsl(query, keep_blank_values=True)]
        wanted += [("service", name)] if name else []
        wanted += [("scope", scope) for scope in scopes]
        credential = self._credential
        if credential is None:
            return self._ask("GET", service._replace(target=f"{path}?{urllib.parse.urlencode(wanted)}"))
        if service.scheme == "http" and not self._insecure:
            raise _Fault(
                TLS,
                f"its token service {self._shown(service)} is plain HTTP: the credential was not sent (CRI-O sends it)",
                "let the registry name a token service that speaks TLS",
                "token-service-without-tls",
            )
        if credential.identity_token:
            self.credential_sent_to.append(service.authority)
            wanted += [("grant_type", "refresh_token"), ("refresh_token", credential.identity_token)]
            form = urllib.parse.urlencode([*wanted, ("client_id", "containers/image")])
            return self._ask("POST", service, content=form.encode("ascii"))
        account = [("account", credential.username)] if credential.username else []
        target = f"{path}?{urllib.parse.urlencode([*account, *wanted])}"
        if not (credential.username and credential.password):
            return self._ask("GET", service._replace(target=target))
        self.credential_sent_to.append(service.authority)
        return self._ask("GET", service._replace(target=target), _basic(credential))

    # -- one request -------------------------------------------------------------------------------------------------

    def _ask(self, method: str, url: _Url, authorization: str = "", content: bytes = b"") -> _Answer:
        """Asks, and follows redirects as CRI-O does; the Authorization header stays with the host it was made for."""
        origin = url.origin
        for _ in range(_MAX_REDIRECTS):
            answer = self._exchange(method, url, authorization if url.origin == origin else "", content)
            self.exchanges.append(f"{method} {self._shown(url)}: {answer.status}")
            location = answer.headers.get("Location")
            if answer.status not in (301, 302, 303, 307, 308) or not location or content:
                return answer
            following = _parse_url(location, url)
            if following is None:
                raise _no_registry(f"{self._shown(url)} redirects to something that is no URL")
            url = following
        raise _no_registry(f"{self._shown(url)} redirects more than {_MAX_REDIRECTS} times")

    def _exchange(self, method: str, url: _Url, authorization: str, content: bytes) -> _Answer:
        headers = {"Host": url.authority, "User-Agent": _USER_AGENT, "Docker-Distribution-API-Version": "registry/2.0"}
        if "/manifests/" in url.target:
            headers["Accept"] = ", ".join(MANIFEST_TYPES)
        if authorization:
            headers["Authorization"] = authorization
        if content:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection = http.client.HTTPConnection(url.host, url.port)
        try:
            connection.sock = _Wire(self._connect(url), self._deadline)
            connection.request(method, url.target, content or None, headers)
            response = connection.getresponse()
            return _Answer(response.status, response.headers, response.read(), url)
        except OSError as error:
            raise self._unreachable(url, error) from None
        except http.client.HTTPException:
            raise _no_registry(f"{self._shown(url)} does not speak HTTP") from None
        except _TooMuch:
            evidence = f"{self._shown(url)} answers with more than {_MAX_ANSWER >> 20} MiB"
            raise _no_registry(evidence) from None
        finally:
            connection.close()

    def _connect(self, url: _Url) -> socket.socket:
        plain = _connect(url.host, url.port, self._deadline)
        if url.scheme == "http":
            return plain
        assert self._trust is not None
        try:
            plain.settimeout(_remaining(self._deadline))
            return self._trust.context.wrap_socket(plain, server_hostname=url.host)
        except BaseException:
            plain.close()
            raise

    # -- words -------------------------------------------------------------------------------------------------------

    def _told(self, text: str | None) -> str:
        """What a registry said, for people: short, printable, without a piece of the credential; else ""."""
        text = (text or "").strip()
        username = self._credential.username.decode(errors="replace") if self._credential else ""
        names_user = bool(username) and username.lower() in text.lower()
        return "" if len(text) > _MAX_TOLD or not text.isprintable() or names_user or self._quotes(text) else text

    def _quotes(self, text: str) -> bool:
        """Whether a text holds a piece of a password or token, as it is or percent-encoded."""
        texts = (text.lower(), urllib.parse.unquote_plus(text).lower())
        return any(piece in spelling for piece in self._secrets for spelling in texts)

    def _shown(self, url: _Url) -> str:
        return f"{url.scheme}://(not shown)" if self._quotes(url.shown) else url.shown

    def _words(self, answer: _Answer) -> str:
        """`` (CODE: message)`` of the errors that the distribution API and token services answer with."""
        document = answer.json()
        if not isinstance(document, dict):
            return ""
        errors = document.get("errors")
        first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else document
        parts = [first.get(name) for name in ("code", "message", "details", "error_description")]
        text = self._told(": ".join(part for part in parts if isinstance(part, str) and part))
        return f" ({text})" if text else ""

    # -- what went wrong ---------------------------------------------------------------------------------------------

    def _refused(self, answer: _Answer, challenges: Sequence[_Challenge], authorization: str) -> _Fault:
        """The manifest is not handed out."""
        where, words = self._shown(answer.url), self._words(answer)
        if answer.url.authority != self._server and answer.status in (401, 403):
            words += f"; {self._server} redirected there, where no credential was shown"
        if answer.status == 401:
            return self._unauthorized(f"{where} answers 401", words, challenges, authorization)
        if answer.status == 403:
            who = "with the credential" if self._credential else "without a credential"
            remedy = "the registry's administrator grants the credential's user the right to pull this repository"
            if self._credential is None:
                remedy = "a pull secret of the namespace needs a credential for this host"
            return _Fault(FORBIDDEN, f"{where} answers 403 {who}{words}", remedy, self._cause("not-allowed"))
        if answer.status == 404:
            unknown = "repository" if "NAME_UNKNOWN" in words else "tag" if "MANIFEST_UNKNOWN" in words else ""
            remedy = "is the name right there? Some registries answer 404 to who may not see a repository"
            return _Fault(NOT_FOUND, f"{where} answers 404{words}", remedy, unknown)
        return self._unwilling(answer, where)

    def _unauthorized(self, what: str, words: str, challenges: Sequence[_Challenge], authorization: str) -> _Fault:
        if not authorization:
            schemes = self._told(", ".join(challenge.scheme for challenge in challenges))
            if schemes:
                evidence = f"{what}, and wants {schemes}, which CRI-O does not know{words}"
                return _Fault(UNAUTHORIZED, evidence, "let it offer Basic or Bearer", "unknown-challenge")
            evidence = f"{what}, though GET /v2/ asks for no credential, so that CRI-O shows none{words}"
            return _Fault(UNAUTHORIZED, evidence, "let the registry answer 401 to GET /v2/ as well", "not-asked")
        if self._credential is None:
            remedy = "a pull secret of the namespace needs a credential for this host"
            return _Fault(UNAUTHORIZED, f"{what} without a credential{words}", remedy, "no-credential")
        if authorization.startswith("Bearer"):
            evidence = f"{what} to the token that its token service gave for the credential{words}"
            remedy = "may the credential's user pull this repository, and is there one of that name?"
            return _Fault(UNAUTHORIZED, evidence, remedy, "not-allowed")
        return _Fault(UNAUTHORIZED, f"{what}: it refuses the credential{words}", _ROTATED, "refused")

    def _no_token(self, answer: _Answer, service: _Url) -> _Fault:
        where, words = f"its token service {self._shown(service)}", self._words(answer)
        refused = answer.status in (401, 403) or (answer.status == 400 and bool(self._credential))
        if refused and self._credential is None:
            evidence = f"{where} answers {answer.status} without a credential{words}"
            remedy = "a pull secret of the namespace needs a credential for this host"
            return _Fault(UNAUTHORIZED, evidence, remedy, "no-credential")
        if refused:
            evidence = f"{where} answers {answer.status}: it refuses the credential{words}"
            return _Fault(UNAUTHORIZED, evidence, _ROTATED, "refused")
        if answer.status == 404:
            evidence = f"{where} answers 404{words}"
            return _Fault(
                NOT_A_REGISTRY, evidence, "let the registry name its token service's address", "token-service"
            )
        return self._unwilling(answer, where)

    def _no_ping(self, answer: _Answer) -> _Fault:
        """``GET /v2/`` is answered neither 200 nor 401, with which CRI-O gives up."""
        where, words = self._shown(answer.url), self._words(answer)
        if answer.status == 403:
            evidence = f"{where} answers 403{words}, with which CRI-O gives up before it shows a credential"
            remedy = "let the registry (or the proxy before it) answer 200 or 401 to GET /v2/"
            return _Fault(FORBIDDEN, evidence, remedy, "ping")
        if answer.status in (429, *range(500, 600)):
            return self._unwilling(answer, where)
        return _no_registry(f"{where} answers {answer.status}{words}")

    def _unwilling(self, answer: _Answer, where: str) -> _Fault:
        """It would not answer now, or answers what means nothing."""
        words = self._words(answer)
        if answer.status == 429:
            told = [f"{name}: {self._told(answer.headers.get(name))}" for name in _LIMITS if answer.headers.get(name)]
            evidence = f"{where} answers 429{words}{''.join(f', {text}' for text in told)}"
            remedy = "wait, or show a credential with a higher limit; CRI-O tries 5 times within some minutes"
            return _Fault(RATE_LIMITED, evidence, remedy)
        if answer.status >= 500:
            remedy = "the registry's administrator finds the reason in its log"
            return _Fault(SERVER_ERROR, f"{where} answers {answer.status}{words}", remedy)
        remedy = "the registry's administrator knows what this status means there"
        return _Fault(SERVER_ERROR, f"{where} answers {answer.status}{words}", remedy, "unexpected-status")

    def _cause(self, with_credential: str) -> str:
        return with_credential if self._credential else "no-credential"

    def _unreachable(self, url: _Url, error: OSError) -> _Fault:
        """No answer: the connection or TLS failed."""
        where = self._shown(url._replace(target=""))
        if isinstance(error, ssl.SSLError):
            return self._no_tls(url, where, error)
        if isinstance(error, TimeoutError) or error.errno == errno.ETIMEDOUT:
            evidence = f"{where} does not answer within {self._seconds:g} s"
            return _Fault(
                CONNECT, evidence, f"is it up, and does a firewall drop packets from this node? {_PROXY}", "timeout"
            )
        if isinstance(error, ConnectionRefusedError):
            return _Fault(CONNECT, f"{where} refuses connections", "is it up, and is the port right?", "refused")
        if isinstance(error, (ConnectionResetError, BrokenPipeError)):
            remedy = "is something between that does not let it through? Its log may tell"
            return _Fault(CONNECT, f"{where} closes the connection without an answer", remedy, "closed")
        reason = error.strerror or type(error).__name__
        return _Fault(
            CONNECT, f"{where} cannot be reached: {reason}", f"is there a route from this node? {_PROXY}", "unreachable"
        )

    def _no_tls(self, url: _Url, where: str, error: ssl.SSLError) -> _Fault:
        assert self._trust is not None
        if isinstance(error, ssl.SSLCertVerificationError):
            return self._not_trusted(url, where, error)
        if error.reason in _NOT_TLS:
            remedy = "let it speak TLS, or allow plain HTTP: insecure = true for this location in registries.conf"
            return _Fault(TLS, f"{where} does not speak TLS: a plain HTTP server is there", remedy, "not-tls")
        if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            remedy = "is something between that does not let TLS through? Its log may tell"
            return _Fault(TLS, f"{where} closes the connection during TLS", remedy, "closed")
        if error.reason in _WANTS_CERTIFICATE:
            found = f"; {self._trust.directory} has none that it takes" if self._trust.directory else ""
            remedy = f"put client.cert and client.key into {CERTIFICATE_DIRECTORIES[0]}/{self.name}/"
            return _Fault(TLS, f"{where} wants a client certificate{found}", remedy, "client-certificate")
        if error.reason in _OLD:
            return _Fault(TLS, f"{where} speaks no TLS 1.2 or newer", "CRI-O wants TLS 1.2: update it", "too-old")
        reason = error.reason or "unknown reason"
        return _Fault(TLS, f"TLS with {where} failed: {reason}", "the registry's log may tell why", "other")

    def _not_trusted(self, url: _Url, where: str, error: ssl.SSLCertVerificationError) -> _Fault:
        assert self._trust is not None
        match error.verify_code:
            case 9:
                evidence, cause = "is not valid yet", "not-yet-valid"
                remedy = "check the clocks of this node and of the registry"
            case 10:
                evidence, cause, remedy = "has expired", "expired", "renew it; or is this node's clock wrong?"
            case 62 | 64:
                evidence, cause = f"is not for the name {url.host}", "wrong-name"
                remedy = "use one of the names in it, or have it issued for this one (as subject alternative name)"
            case _:
                evidence = f"was not issued by a CA that this node trusts ({error.verify_message})"
                cause, remedy = "unknown-ca", self._remedy_of_trust()
        flaws = [*self._trust.flaws, *(f"{path} is for another host" for path in self._trust.near_misses(self.name))]
        told = "".join(f"; {flaw}" for flaw in flaws) if cause == "unknown-ca" else ""
        return _Fault(TLS, f"{where}: its certificate {evidence}{told}", remedy, cause)

    def _remedy_of_trust(self) -> str:
        directory = f"{CERTIFICATE_DIRECTORIES[0]}/{self.name}"
        if self._trust and self._trust.directory:
            directory = self._trust.directory
        return (
            f"put its CA into {directory}/ca.crt, which CRI-O reads at each pull, or into the system's CAs, after "
            "which CRI-O must be restarted"
        )


_USER_AGENT = f"crio-credential-provider/{__version__} (verify)"
_LIMITS = ("Retry-After", "RateLimit-Limit", "RateLimit-Remaining")
_ROTATED = "was it rotated or mistyped? Write the current one into the pull secret"
_PROXY = "If CRI-O uses a proxy, set HTTPS_PROXY here as its unit does"

# How far a question came; an answer of any status is further than all.
_STAGES = {DNS: 0, CONNECT: 1, TLS: 2}

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


def _no_registry(evidence: str, cause: str = "") -> _Fault:
    remedy = "does the location in registries.conf name the registry, with the right port?"
    return _Fault(NOT_A_REGISTRY, evidence, remedy, cause)


def _missing_scope(answer: _Answer) -> str:
    """The scope that the registry finds missing in a token, "" where it does not say so."""
    for challenge in _challenges(answer) if answer.status == 401 else ():
        scope = challenge.parameters.get("scope", "")
        if (
            challenge.scheme == "bearer"
            and challenge.parameters.get("error") == "insufficient_scope"
            and scope.count(":") == 2
        ):
            return scope
    return ""


def _basic(credential: Credential | None) -> str:
    return f"Basic {base64.b64encode(_userpass(credential)).decode()}"


def _userpass(credential: Credential | None) -> bytes:
    return credential.username + b":" + credential.password if credential else b":"


def _secrets(credential: Credential | None) -> set[str]:
    """The pieces of what must not be told."""
    if credential is None:
        return set()
    password = credential.password.decode(errors="replace")
    encoded = base64.b64encode(_userpass(credential)).decode().rstrip("=")
    return {piece for text in (password, credential.identity_token, encoded) for piece in _windows(text)}


def _windows(secret: str) -> set[str]:
    """Every part of a secret that is long enough to give it away, in lower case."""
    secret = secret.lower()
    return {secret[start : start + _PIECE] for start in range(max(1, len(secret) - _PIECE + 1))} if secret else set()
