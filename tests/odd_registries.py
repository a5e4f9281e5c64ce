"""Registries whose answers a test chooses: any, those with a token service, and the odd ones that people run."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.parse
from collections.abc import Callable
from typing import Any, NamedTuple

from crio_credential_provider.testbed.loopback import Answer, Connection, LoopbackServer, Request
from crio_credential_provider.testbed.registry import MANIFEST_TYPE

NGINX = "hub/library/nginx"
PASSWORD = "correct-horse-battery-staple"
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJhY2Nlc3MiOltdfQ.c2lnbmF0dXJl"
IDENTITY_TOKEN = "identity-token-0123456789-abcdef"


Respond = Callable[[Request], Answer]


class Simulated:
    """A registry whose every answer is a function of the request; `log` keeps the requests."""

    def __init__(self, respond: Respond, context: ssl.SSLContext | None = None) -> None:
        self.log: list[Request] = []
        self._respond = respond
        self._server = LoopbackServer(self._serve, context)
        self._scheme = "https" if context else "http"

    def _serve(self, request: Request, connection: Connection) -> None:
        self.log.append(request)
        connection.send(self._respond(request).dumps(request.method))

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.port}"

    @property
    def url(self) -> str:
        return f"{self._scheme}://{self.host}"

    def __enter__(self) -> Simulated:
        self._server.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._server.__exit__(*error)


def answering(status: int, *headers: tuple[str, str], body: bytes = b"") -> Answer:
    return Answer(status, list(headers), body)


MANIFEST = answering(200, ("Content-Type", MANIFEST_TYPE), body=b'{"schemaVersion":2}')


def of_manifest(answer: Answer, ping: Answer | None = None) -> Respond:
    """Answers the ping 200, and the question for the manifest as given."""
    return lambda request: (ping or answering(200)) if request.path == "/v2/" else answer


class TokenRegistry:
    """A registry with a token service on another port, as harbor, quay, ghcr and Docker Hub have one.

    `grant` gets the parsed query (or form) with the basic user and password; it returns the answer.
    """

    def __init__(self, context: ssl.SSLContext | None = None, service_context: ssl.SSLContext | None = None) -> None:
        self.service = Simulated(self._grant, service_context)
        self.registry = Simulated(self._serve, context)
        self.asked: list[dict[str, Any]] = []
        self.answer: Answer | None = None
        self.anonymous = False
        self.realm = ""
        self.more = ""
        self.refuse: Answer | None = None

    def _challenge(self, more: str = "") -> tuple[str, str]:
        realm = self.realm or f"{self.service.url}/service/token"
        return "WWW-Authenticate", f'Bearer realm="{realm}",service="registry.corp"{self.more}{more}'

    def _serve(self, request: Request) -> Answer:
        if request.header("Authorization") == f"Bearer {TOKEN}" and request.path != "/v2/":
            return self.refuse or MANIFEST
        body = b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}'
        return Answer(401, [self._challenge()], body)

    def _grant(self, request: Request) -> Answer:
        query = request.body.decode() if request.method == "POST" else request.path.partition("?")[2]
        scheme, _, login = (request.header("Authorization") or "").partition(" ")
        user, _, password = base64.b64decode(login).decode().partition(":")
        wanted = {"method": request.method, "scheme": scheme, "user": user, "password": password}
        self.asked.append({**wanted, **urllib.parse.parse_qs(query, keep_blank_values=True)})
        if self.answer is not None:
            return self.answer
        identity = self.asked[-1].get("refresh_token") == [IDENTITY_TOKEN]
        if not (self.anonymous or identity or (user, password) == ("alpha", PASSWORD)):
            return answering(401, body=b'{"details":"incorrect username or password"}')
        return answering(200, body=json.dumps({"token": TOKEN, "expires_in": 300}).encode())

    @property
    def host(self) -> str:
        return self.registry.host

    def __enter__(self) -> TokenRegistry:
        self.service.__enter__()
        self.registry.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.registry.__exit__(*error)
        self.service.__exit__(*error)


class Odd(NamedTuple):
    """A registry that is not as it should be; the defaults are one that is.

    Attributes:
        challenges: of ``GET /v2/``; {url} is the registry's own, {plain} that of a second server without TLS, which
            answers the same.
        token: what the token service answers, where it is not a token for the right user.
        accepts: the Authorization header for which the manifest is handed out; None for any.
        refusal: to all others.
        ping: the status of ``GET /v2/``, and what comes with it.
        tls: whether it speaks TLS.
        pulls: whether skopeo gets the manifest; None where its Go is another than CRI-O's.
        undecided, outcome, cause, words: the verdict's.
    """

    outcome: str
    cause: str
    words: tuple[str, ...]
    challenges: tuple[str, ...] = ('Bearer realm="{url}/token",service="r"',)
    token: Answer | None = None
    accepts: str | None = f"Bearer {TOKEN}"
    refusal: Answer = answering(401)
    ping: Answer = answering(401)
    tls: bool = False
    pulls: bool | None = False
    undecided: bool = False
    token_service: str = ""


BASIC = "Basic " + base64.b64encode(f"alpha:{PASSWORD}".encode()).decode()
BEARER = 'Bearer realm="{url}/token",service="r"'
OWN_TOKEN_SERVICE = "{url}/token"
WHERE = ("Harbor external_url", "Artifactory base URL", "GitLab token_realm")


def a_token(**members: Any) -> Answer:
    return answering(200, ("Content-Type", "application/json"), body=json.dumps(members).encode())


def spoilt(answer: Answer, *words: str) -> Odd:
    """Whose token service answers nonsense."""
    words = ("{url}/token answers 200", *words, *WHERE)
    return Odd("not-a-registry", "token-service", words, token=answer, token_service=OWN_TOKEN_SERVICE)


def serving(**more: Any) -> Odd:
    return Odd("ok", "", (), pulls=True, **more)


ODD: dict[str, Odd] = {
    # Challenges.
    "as it should be": serving(),
    "lower case": serving(challenges=('bearer REALM="{url}/token",SERVICE="r"',)),
    "a comma in quotes": serving(challenges=('Bearer service="a,b",realm="{url}/token"',)),
    "an escaped quote": serving(challenges=(r'Bearer service="a\"b",realm="{url}/token"',)),
    "blanks": serving(challenges=('Bearer   realm="{url}/token" , service="r"',)),
    "an unknown scheme first": serving(challenges=("Negotiate", BEARER)),
    "an unknown scheme alone": Odd(
        "unauthorized",
        "unknown-challenge",
        ("requires 'negotiate', which CRI-O does not support",),
        challenges=("Negotiate",),
    ),
    "an unknown scheme, and 403": Odd(
        "forbidden",
        "unknown-challenge",
        ("requires 'negotiate', which CRI-O does not support",),
        challenges=("Negotiate",),
        refusal=answering(403),
    ),
    "an unknown scheme that is not insisted on": serving(challenges=("Negotiate",), accepts=None),
    "an unknown scheme first, in one header": Odd(
        "unauthorized",
        "unknown-challenge",
        ("it offers Basic as well, but CRI-O only reads the first scheme of a header", "header of its own"),
        challenges=('Negotiate, Basic realm="r"',),
        accepts=BASIC,
    ),
    "Basic first, Bearer works": Odd(
        "unauthorized",
        "first-scheme",
        (
            "it offers Basic and Bearer, and CRI-O only uses the first, Basic",
            "configure the registry to offer Bearer first or alone",
        ),
        challenges=('Basic realm="r"', BEARER),
    ),
    "Basic first in one header, Bearer works": Odd(
        "unauthorized",
        "first-scheme",
        (
            "it offers Basic and Bearer, and CRI-O only uses the first, Basic",
            "configure the registry to offer Bearer first or alone",
        ),
        challenges=(f'Basic realm="r", {BEARER}',),
    ),
    "Bearer first, Basic works": Odd(
        "unauthorized",
        "first-scheme",
        (
            "it offers Bearer and Basic, and CRI-O only uses the first, Bearer",
            "configure the registry to offer Basic first or alone",
        ),
        challenges=(BEARER, 'Basic realm="r"'),
        accepts=BASIC,
    ),
    "Bearer first, whose token service refuses": Odd(
        "unauthorized",
        "first-scheme",
        ("{url}/token answers 401", "configure the registry to offer Basic first or alone"),
        challenges=(BEARER, 'Basic realm="r"'),
        token=answering(401),
        accepts=BASIC,
        token_service=OWN_TOKEN_SERVICE,
    ),
    "Bearer first, whose token service is away": Odd(
        "connect",
        "refused",
        ("http://127.0.0.1:1/token", "it offers Bearer and Basic", *WHERE),
        challenges=('Bearer realm="http://127.0.0.1:1/token"', 'Basic realm="r"'),
        accepts=BASIC,
        token_service="http://127.0.0.1:1/token",
    ),
    "Basic first, and it works": serving(challenges=('Basic realm="r"', BEARER), accepts=BASIC),
    "401 that does not say how": Odd(
        "unauthorized",
        "no-challenge",
        ("GET /v2/ is answered 401 as well, but without a WWW-Authenticate", "send WWW-Authenticate with its 401"),
        challenges=(),
    ),
    "401 that does not say how, then 403": Odd(
        "forbidden", "no-challenge", ("GET /v2/ is answered 401 as well, but",), challenges=(), refusal=answering(403)
    ),
    "401 that says nonsense": Odd(
        "unauthorized", "no-challenge", ("GET /v2/ is answered 401 as well, but",), challenges=("=", "")
    ),
    "401 that does not say how, and an open manifest": serving(challenges=(), accepts=None),
    "an open /v2/": Odd(
        "unauthorized", "not-asked", ("though GET /v2/ asks for no credential",), challenges=(), ping=answering(200)
    ),
    "an open /v2/ with a challenge": serving(ping=answering(200)),
    "an open /v2/ that is a web page": serving(
        challenges=(), ping=answering(200, ("Content-Type", "text/html")), accepts=None
    ),
    # The realm.
    "no realm": Odd("not-a-registry", "no-realm", ("it has no realm", *WHERE), challenges=('Bearer service="r"',)),
    "an empty realm": Odd(
        "not-a-registry", "no-realm", ("it has no realm", *WHERE), challenges=('Bearer realm="",service="r"',)
    ),
    "a relative realm": Odd(
        "not-a-registry",
        "no-realm",
        ("its realm is /token", *WHERE),
        challenges=('Bearer realm="/token"',),
        token_service="/token",
    ),
    "a realm on a dead port": Odd(
        "connect",
        "refused",
        ("its token service http://127.0.0.1:1/service/token", "refuses connections", *WHERE),
        challenges=('Bearer realm="http://127.0.0.1:1/service/token",service="r"',),
        token_service="http://127.0.0.1:1/service/token",
    ),
    "a realm that nobody knows": Odd(
        "dns",
        "unknown",
        ("its token service http://auth.nowhere.invalid/token", *WHERE),
        challenges=('Bearer realm="http://auth.nowhere.invalid/token"',),
        token_service="http://auth.nowhere.invalid/token",
    ),
    "a realm that speaks no TLS": Odd(
        "tls",
        "not-tls",
        ("its token service https://{plain}/token", "does not speak TLS", *WHERE),
        challenges=('Bearer realm="https://{plain}/token"',),
        token_service="https://{plain}/token",
    ),
    "a realm with a blank and more": serving(challenges=('Bearer realm="{url}/token/a b/\xc3\xbc?x=y z#f"',)),
    "a realm on another port": serving(challenges=('Bearer realm="http://{plain}/token"',)),
    "a realm without TLS": Odd(
        "tls",
        "token-service-without-tls",
        ("http://{plain}/token is plain HTTP: the credential was not sent (CRI-O sends it)", *WHERE),
        challenges=('Bearer realm="http://{plain}/token"',),
        tls=True,
        pulls=True,
        undecided=True,
        token_service="http://{plain}/token",
    ),
    "a realm without TLS and with a user": Odd(
        "not-a-registry",
        "token-service",
        ("verify does not ask it; CRI-O does",),
        challenges=('Bearer realm="http://somebody:else@{plain}/token"',),
        tls=True,
        pulls=True,
        undecided=True,
    ),
    "TLS throughout": serving(tls=True),
    "a realm whose certificate is for another name": Odd(
        "tls",
        "wrong-name",
        ("its token service {localhost}/token", "is not for the name localhost", *WHERE),
        challenges=('Bearer realm="{localhost}/token"',),
        tls=True,
        token_service="{localhost}/token",
    ),
    # The token service's answer.
    "access_token": serving(token=a_token(access_token=TOKEN)),
    "an empty token, and access_token": serving(token=a_token(token="", access_token=TOKEN, expires_in=None)),
    "names of any case": serving(token=a_token(Token=TOKEN, Expires_In=60, ISSUED_AT="2026-01-01T00:00:00.5+01:00")),
    "a web page for a token": spoilt(
        answering(200, ("Content-Type", "text/html"), body=b"<html>log in</html>"), "with a web page"
    ),
    "nothing for a token": spoilt(answering(200)),
    "an empty token": spoilt(a_token(token="")),
    "an empty token, which does": serving(token=a_token(token=""), accepts="Bearer"),
    "no member token": spoilt(a_token(id_token=TOKEN)),
    "a number for a token": spoilt(a_token(token=7)),
    "a line break in a token": spoilt(a_token(token="a\r\nb")),
    "expires_in as a text": spoilt(a_token(token=TOKEN, expires_in="300")),
    "expires_in with a fraction": spoilt(a_token(token=TOKEN, expires_in=300.0)),
    "issued_at as a number": spoilt(a_token(token=TOKEN, issued_at=1767225600)),
    "issued_at of another form": spoilt(a_token(token=TOKEN, issued_at="2026-01-01 00:00:00")),
    "a byte order mark": spoilt(answering(200, body=b"\xef\xbb\xbf" + json.dumps({"token": TOKEN}).encode())),
    "201 with a token": Odd(
        "server-error",
        "unexpected-status",
        ("its token service {url}/token answers 201",),
        token=answering(201, body=json.dumps({"token": TOKEN}).encode()),
        token_service=OWN_TOKEN_SERVICE,
    ),
    "401 for a token": Odd(
        "unauthorized",
        "refused",
        ("its token service {url}/token answers 401",),
        token=answering(401),
        token_service=OWN_TOKEN_SERVICE,
    ),
    "403 for a token": Odd(
        "unauthorized",
        "refused",
        ("its token service {url}/token answers 403", "DENIED: access forbidden"),
        token=answering(403, body=b'{"errors":[{"code":"DENIED","message":"access forbidden"}]}'),
        token_service=OWN_TOKEN_SERVICE,
    ),
    "404 for a token": Odd(
        "not-a-registry",
        "token-service",
        ("its token service {url}/token answers 404", *WHERE),
        token=answering(404),
        token_service=OWN_TOKEN_SERVICE,
    ),
    "429 for a token": Odd(
        "rate-limited",
        "",
        ("its token service {url}/token answers 429",),
        token=answering(429, ("Retry-After", "1")),
        token_service=OWN_TOKEN_SERVICE,
    ),
    "503 for a token": Odd(
        "server-error",
        "",
        ("its token service {url}/token answers 503",),
        token=answering(503),
        token_service=OWN_TOKEN_SERVICE,
    ),
    "a redirect of the token service": serving(challenges=('Bearer realm="{url}/moved/token"',)),
    "a redirect of the token service to another port": Odd(
        "unauthorized",
        "redirected",
        ("its token service {url}/moved/plain redirects there", "no credential was sent; CRI-O sends it"),
        challenges=('Bearer realm="{url}/moved/plain"',),
        pulls=None,
        undecided=True,
        token_service="{url}/moved/plain",
    ),
    "a redirect to another host": Odd(
        "unauthorized",
        "redirected",
        ("its token service {url}/moved/localhost redirects there", "and no credential was sent"),
        challenges=('Bearer realm="{url}/moved/localhost"',),
        token_service="{url}/moved/localhost",
    ),
    "a redirect to a URL with a user": Odd(
        "not-a-registry",
        "token-service",
        ("redirects to something that is not a URL",),
        challenges=('Bearer realm="{url}/moved/user"',),
        pulls=True,
        undecided=True,
        token_service="{url}/moved/user",
    ),
    # The registry's own answers.
    "429": Odd(
        "rate-limited",
        "",
        ("Retry-After: 0", "CRI-O tries 5 times"),
        refusal=answering(429, ("Retry-After", "0")),
        accepts="",
        undecided=True,
    ),
    "500": Odd("server-error", "", ("answers 500",), refusal=answering(500), accepts=""),
    "403 with the token": Odd("forbidden", "not-allowed", ("answers 403",), refusal=answering(403), accepts=""),
    "403 for /v2/": Odd("forbidden", "ping", ("before it sends a credential",), ping=answering(403)),
    "400 for /v2/": Odd("not-a-registry", "", ("/v2/ answers 400",), ping=answering(400), accepts=None),
    "400 for /v2/ in a registry's words": Odd(
        "server-error",
        "unexpected-status",
        ("/v2/ answers 400 (DENIED: Your Authorization Token is invalid.)", "to answer GET /v2/ with 200 or 401"),
        ping=answering(400, body=b'{"errors":[{"code":"DENIED","message":"Your Authorization Token is invalid."}]}'),
        accepts=None,
    ),
    "503 for /v2/": Odd("server-error", "", ("/v2/ answers 503",), ping=answering(503), accepts=None),
}


class OddRegistry:
    """One of the above on 127.0.0.1, and a second server without TLS that answers the same."""

    def __init__(self, odd: Odd, context: ssl.SSLContext | None) -> None:
        self._odd = odd
        self.registry = Simulated(self._respond, context)
        self.plain = Simulated(self._respond)

    def fill(self, text: str) -> str:
        url = self.registry.url
        places = {"{url}": url, "{plain}": self.plain.host, "{localhost}": url.replace("127.0.0.1", "localhost")}
        for name, place in places.items():
            text = text.replace(name, place)
        return text

    def __enter__(self) -> OddRegistry:
        self.plain.__enter__()
        self.registry.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.registry.__exit__(*error)
        self.plain.__exit__(*error)

    def _respond(self, request: Request) -> Answer:
        odd, shown = self._odd, request.header("Authorization")
        path = request.path.partition("?")[0]
        if path == "/v2/":
            challenges = [("WWW-Authenticate", self.fill(text)) for text in odd.challenges]
            return Answer(odd.ping.status, [*odd.ping.headers, *challenges], odd.ping.body)
        if path.startswith("/moved/"):
            own = self.registry.url
            places = {
                "token": "/token",
                "plain": f"{self.plain.url}/token",
                "localhost": self.fill("{localhost}/token"),
                "user": f"{own.replace('//', f'//alpha:{PASSWORD}@')}/token",
            }
            return answering(307, ("Location", places[path.rpartition("/")[2]]))
        if path.startswith("/token"):
            granted = a_token(token=TOKEN, expires_in=300) if shown == BASIC else answering(401)
            return odd.token or granted
        return MANIFEST if odd.accepts is None or (shown and shown.strip() == odd.accepts) else odd.refusal
