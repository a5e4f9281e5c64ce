"""What a registry answers, told apart: real and simulated servers, and skopeo's word beside ours."""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import os
import re
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_skopeo import HTPASSWD, make_layout

from crio_credential_provider import registryclient
from crio_credential_provider.errors import ConfigError
from crio_credential_provider.images.dockerconfig import Credential
from crio_credential_provider.registryclient import Verdict, probe_manifest, probe_registry
from crio_credential_provider.testbed.certificates import Authority, Identity, server_context
from crio_credential_provider.testbed.loopback import Answer, Connection, LoopbackServer, Request
from crio_credential_provider.testbed.registry import MANIFEST_TYPE, MirrorRegistry
from real_programs import need
from servers import Peer, close_in_tls, drain, half_a_server_hello, hang, refused_port, say, silent_port

NGINX = "hub/library/nginx"
PASSWORD = "correct-horse-battery-staple"
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJhY2Nlc3MiOltdfQ.c2lnbmF0dXJl"
IDENTITY_TOKEN = "identity-token-0123456789-abcdef"
GOOD = Credential(b"alpha", PASSWORD.encode())
WRONG = Credential(b"alpha", b"mistyped-horse-battery-staple")

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither this machine's proxies nor its certs.d count."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HOME", "/root")


def ask(host: str, credential: Credential | None = GOOD, root: Path | str = "/nonexistent", **more: Any) -> Verdict:
    """The question for the usual image; nothing of a credential is in the answer, whatever it is."""
    path, reference = more.pop("path", NGINX), more.pop("reference", "latest")
    more.setdefault("deadline", 5.0)
    verdict = probe_manifest(host, path, reference, credential, root=str(root), **more)
    assert_tells_no_secret(verdict, credential)
    assert verdict.outcome in registryclient.OUTCOMES
    assert bool(verdict.remedy) == (verdict.outcome != "ok")
    assert "\n" not in verdict.evidence + verdict.remedy
    return verdict


def assert_tells_no_secret(verdict: Verdict, credential: Credential | None) -> None:
    text = repr([getattr(verdict, name) for name in Verdict.__slots__])
    secrets = [TOKEN, *TOKEN.split(".")]
    if credential is not None:
        secrets += [credential.password.decode(), credential.identity_token]
        secrets.append(base64.b64encode(credential.username + b":" + credential.password).decode())
    for secret in filter(None, secrets):
        assert secret not in text
        assert urllib.parse.quote(secret) not in text


def is_(verdict: Verdict, outcome: str, cause: str = "", *words: str) -> None:
    assert (verdict.outcome, verdict.cause) == (outcome, cause), verdict
    for word in words:
        assert word in f"{verdict.evidence}; {verdict.remedy}", verdict


# -- Basic ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def basic() -> Iterator[MirrorRegistry]:
    with MirrorRegistry({"alpha": (PASSWORD, ["hub"])}) as registry:
        registry.add_image(NGINX)
        registry.add_image("private/app")
        yield registry


def test_a_credential_that_serves(basic: MirrorRegistry) -> None:
    verdict = ask(basic.host, insecure=True)
    is_(verdict, "ok")
    assert verdict.evidence == f"has {NGINX}:latest"
    assert verdict.digest == basic.add_image(NGINX)
    assert (verdict.scheme, verdict.credential_sent_to) == ("http", (basic.host,))
    # The ping shows nobody; then headers alone are asked for.
    assert [(p.method, p.user) for p in basic.log] == [("GET", None), ("HEAD", "alpha")]
    assert verdict.exchanges == (
        f"GET {basic.url}/v2/: 401",
        f"HEAD {basic.url}/v2/{NGINX}/manifests/latest: 200",
    )


def test_by_digest(basic: MirrorRegistry) -> None:
    digest = basic.add_image(NGINX)
    verdict = ask(basic.host, insecure=True, reference=digest)
    assert (verdict.outcome, verdict.digest, verdict.evidence) == ("ok", digest, f"has {NGINX}@{digest}")


def test_refusals_of_basic_are_told_apart(basic: MirrorRegistry) -> None:
    is_(ask(basic.host, None, insecure=True), "unauthorized", "no-credential", "answers 401 without a credential")
    is_(ask(basic.host, WRONG, insecure=True), "unauthorized", "refused", "401: it refuses the credential", "rotated")
    is_(ask(basic.host, insecure=True, path="private/app"), "forbidden", "not-allowed", "403 with the credential")
    is_(ask(basic.host, insecure=True, reference="9"), "not-found", "manifest", "404 (MANIFEST_UNKNOWN")


def test_nobody_is_shown_as_cri_o_shows_him(basic: MirrorRegistry) -> None:
    verdict = ask(basic.host, None, insecure=True)
    assert verdict.credential_sent_to == ()
    # An empty user name and password.
    assert {p.user for p in basic.log} == {None, ""}


def test_what_head_does_not_give_is_asked_for_with_get(basic: MirrorRegistry) -> None:
    ask(basic.host, insecure=True, reference="9")
    assert [p.method for p in basic.log] == ["GET", "HEAD", "GET"]


def test_an_open_registry_is_shown_no_credential() -> None:
    with MirrorRegistry() as registry:
        registry.add_image(NGINX)
        verdict = ask(registry.host, insecure=True)
        is_(verdict, "ok")
        assert verdict.credential_sent_to == ()
        assert {p.user for p in registry.log} == {None}
        is_(ask(registry.host, insecure=True, path="hub/other"), "not-found", "manifest")


# -- simulated registries ---------------------------------------------------------------------------------------------

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


STATUSES: dict[str, tuple[Answer, str, str, tuple[str, ...]]] = {
    "500": (answering(500), "server-error", "", ("answers 500",)),
    "502": (answering(502, body=b"<html>bad gateway</html>"), "server-error", "", ("answers 502",)),
    "503": (answering(503), "server-error", "", ("answers 503",)),
    "418": (answering(418), "server-error", "unexpected-status", ("answers 418",)),
    "400": (
        answering(400, body=b'{"errors":[{"code":"NAME_INVALID","message":"invalid repository name"}]}'),
        "server-error",
        "unexpected-status",
        ("400 (NAME_INVALID: invalid repository name)",),
    ),
    "404": (answering(404), "not-found", "", ("answers 404",)),
    "404 of a repository": (
        answering(404, body=b'{"errors":[{"code":"NAME_UNKNOWN","message":"no such project"}]}'),
        "not-found",
        "repository",
        ("NAME_UNKNOWN: no such project",),
    ),
    "429": (
        answering(429, ("Retry-After", "37"), ("RateLimit-Limit", "100;w=21600"), ("RateLimit-Remaining", "0;w=21600")),
        "rate-limited",
        "",
        ("Retry-After: 37", "RateLimit-Limit: 100;w=21600", "RateLimit-Remaining: 0;w=21600"),
    ),
    "a web page": (
        answering(200, ("Content-Type", "text/html"), body=b"<html>log in</html>"),
        "not-a-registry",
        "",
        ("200 with something other than a manifest",),
    ),
    "JSON that is no manifest": (
        answering(200, ("Content-Type", "application/json"), body=b'{"kind":"Status"}'),
        "not-a-registry",
        "",
        ("200 with something other than a manifest",),
    ),
    "401 behind an open /v2/": (answering(401), "unauthorized", "not-asked", ("GET /v2/ asks for no credential",)),
    "403 behind an open /v2/": (
        answering(403),
        "forbidden",
        "not-asked",
        ("answers 403, though GET /v2/ asks for no",),
    ),
}


@pytest.mark.parametrize("name", STATUSES)
def test_what_a_registry_may_answer(name: str) -> None:
    answer, outcome, cause, words = STATUSES[name]
    with Simulated(of_manifest(answer)) as registry:
        is_(ask(registry.host, insecure=True), outcome, cause, *words)


PINGS: dict[str, tuple[Answer, str, str, tuple[str, ...]]] = {
    "403": (answering(403), "forbidden", "ping", ("answers 403", "before it sends a credential")),
    "404": (answering(404, body=b"nothing here"), "not-a-registry", "", ("/v2/ answers 404", "right port")),
    "a web page": (answering(200, ("Content-Type", "text/html; charset=utf-8")), "not-a-registry", "", ("web page",)),
    "429": (answering(429, ("Retry-After", "5")), "rate-limited", "", ("Retry-After: 5",)),
    "503": (answering(503), "server-error", "", ("answers 503",)),
    "301 to nowhere": (answering(301, ("Location", "ftp://elsewhere/")), "not-a-registry", "", ("not a URL",)),
    "301 without a place": (answering(301), "not-a-registry", "", ("answers 301",)),
    "301 in a circle": (answering(301, ("Location", "/v2/")), "not-a-registry", "", ("more than 10 times",)),
}


@pytest.mark.parametrize("name", PINGS)
def test_what_a_ping_may_be_answered(name: str) -> None:
    answer, outcome, cause, words = PINGS[name]
    with Simulated(lambda request: answer) as registry:
        is_(ask(registry.host, insecure=True), outcome, cause, *words)
        is_(probe_registry(registry.host, insecure=True, root="/nonexistent"), outcome, cause, *words)
        assert all(request.header("Authorization") is None for request in registry.log)


def test_head_is_not_the_last_word() -> None:
    """Some registries answer HEAD with 404 or 405 for what GET gives; CRI-O asks with GET."""
    for status in (404, 405, 500):

        def respond(request: Request, status: int = status) -> Answer:
            return answering(status) if request.method == "HEAD" else MANIFEST

        with Simulated(of_manifest(MANIFEST)) as registry:
            registry._respond = lambda r, respond=respond: answering(200) if r.path == "/v2/" else respond(r)  # type: ignore[misc]
            is_(ask(registry.host, insecure=True), "ok")


def test_a_manifest_of_a_type_that_is_none_counts_if_it_is_one() -> None:
    for media_type in ("application/json", "text/plain", "application/octet-stream"):
        answer = answering(200, ("Content-Type", media_type), body=b'{"schemaVersion":2}')
        with Simulated(of_manifest(answer)) as registry:
            is_(ask(registry.host, insecure=True), "ok")


def test_the_question_is_cri_o_s() -> None:
    with Simulated(of_manifest(MANIFEST)) as registry:
        ask(registry.host, insecure=True)
        ping, question = registry.log
        assert ping.header("Docker-Distribution-API-Version") == "registry/2.0"
        accepted = (question.header("Accept") or "").split(", ")
        assert len(accepted) == 6 and accepted[0] == MANIFEST_TYPE
        assert question.path == f"/v2/{NGINX}/manifests/latest"
        assert question.header("Host") == registry.host


UNKNOWN_CHALLENGE = answering(401, ("WWW-Authenticate", "Negotiate"))


def test_a_challenge_that_cri_o_does_not_know() -> None:
    with Simulated(lambda request: UNKNOWN_CHALLENGE) as registry:
        verdict = ask(registry.host, insecure=True)
        is_(verdict, "unauthorized", "unknown-challenge", "requires 'negotiate', which CRI-O does not support")
        assert verdict.credential_sent_to == ()


def test_of_several_challenges_the_first_that_is_known() -> None:
    def respond(request: Request) -> Answer:
        if request.header("Authorization"):
            return MANIFEST
        headers = [("WWW-Authenticate", text) for text in ("Negotiate", 'Basic realm="x"', 'Bearer realm="http://y/"')]
        return Answer(401, headers)

    with Simulated(respond) as registry:
        verdict = ask(registry.host, insecure=True)
        is_(verdict, "ok")
        assert (
            registry.log[-1].header("Authorization")
            == "Basic " + base64.b64encode(b"alpha:" + PASSWORD.encode()).decode()
        )


# -- token services ---------------------------------------------------------------------------------------------------


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


@pytest.fixture
def tokens() -> Iterator[TokenRegistry]:
    with TokenRegistry() as registry:
        yield registry


def test_a_token_is_asked_for_as_cri_o_asks(tokens: TokenRegistry) -> None:
    verdict = ask(tokens.host, insecure=True)
    is_(verdict, "ok")
    assert tokens.asked == [
        {
            "method": "GET",
            "scheme": "Basic",
            "user": "alpha",
            "password": PASSWORD,
            "account": ["alpha"],
            "service": ["registry.corp"],
            "scope": [f"repository:{NGINX}:pull"],
        }
    ]
    # The token service got the credential, the registry only its token.
    assert verdict.credential_sent_to == (tokens.service.host,)
    assert {request.header("Authorization") for request in tokens.registry.log} == {None, f"Bearer {TOKEN}"}
    assert f"GET {tokens.service.url}/service/token: 200" in verdict.exchanges


def test_nobody_s_token(tokens: TokenRegistry) -> None:
    tokens.anonymous = True
    verdict = ask(tokens.host, None, insecure=True)
    is_(verdict, "ok")
    assert verdict.credential_sent_to == ()
    assert (tokens.asked[0]["scheme"], tokens.asked[0].get("account")) == ("", None)


def test_a_token_service_that_refuses(tokens: TokenRegistry) -> None:
    is_(ask(tokens.host, None, insecure=True), "unauthorized", "no-credential", "token service", "401 without a")
    verdict = ask(tokens.host, WRONG, insecure=True)
    is_(verdict, "unauthorized", "refused", "it refuses the credential", "incorrect username or password")
    assert verdict.credential_sent_to == (tokens.service.host,)
    tokens.answer = answering(403)
    is_(ask(tokens.host, WRONG, insecure=True), "unauthorized", "refused", "answers 403")


def test_a_registry_that_refuses_a_good_token(tokens: TokenRegistry) -> None:
    """As Docker Hub answers for a repository that does not exist, or that the user may not see."""
    tokens.refuse = answering(401, body=b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}')
    is_(ask(tokens.host, insecure=True), "unauthorized", "not-allowed", "to the token that its token service gave")
    tokens.anonymous = True
    is_(ask(tokens.host, None, insecure=True), "unauthorized", "no-credential", "401 without a credential")
    tokens.refuse = answering(403, body=b'{"errors":[{"code":"DENIED","message":"not yours"}]}')
    is_(ask(tokens.host, insecure=True), "forbidden", "not-allowed", "DENIED: not yours")
    is_(ask(tokens.host, None, insecure=True), "forbidden", "no-credential", "403 without a credential")


def test_an_identity_token_is_a_refresh_token(tokens: TokenRegistry) -> None:
    credential = Credential(b"00000000-0000-0000-0000-000000000000", b"", IDENTITY_TOKEN)
    verdict = ask(tokens.host, credential, insecure=True)
    is_(verdict, "ok")
    (asked,) = tokens.asked
    assert (asked["method"], asked["scheme"]) == ("POST", "")
    assert asked["grant_type"] == ["refresh_token"]
    assert (asked["service"], asked["client_id"]) == (["registry.corp"], ["containers/image"])
    assert verdict.credential_sent_to == (tokens.service.host,)
    is_(ask(tokens.host, Credential(b"", b"", "another"), insecure=True), "unauthorized", "refused")
    tokens.answer = answering(400, body=b'{"error":"invalid_grant","error_description":"the token has expired"}')
    is_(ask(tokens.host, credential, insecure=True), "unauthorized", "refused", "the token has expired")


def test_half_a_credential_is_not_shown_to_a_token_service(tokens: TokenRegistry) -> None:
    """As with containers/image, which wants both for it."""
    verdict = ask(tokens.host, Credential(b"alpha", b""), insecure=True)
    is_(verdict, "unauthorized", "no-credential", "token service", "only a user name or only a password")
    assert (tokens.asked[0]["scheme"], tokens.asked[0]["account"]) == ("", ["alpha"])
    assert verdict.credential_sent_to == ()


def test_access_token_is_a_token_s_other_name(tokens: TokenRegistry) -> None:
    tokens.answer = answering(200, body=json.dumps({"access_token": TOKEN}).encode())
    is_(ask(tokens.host, insecure=True), "ok")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[]",
        b"{}",
        b'{"token":""}',
        b'{"token":7}',
        b'{"token":"a\\r\\nX: y"}',
        b'{"token":"\xc3\xa9"}',
    ],
)
def test_a_token_service_that_gives_none(tokens: TokenRegistry, body: bytes) -> None:
    tokens.answer = answering(200, body=body)
    is_(ask(tokens.host, insecure=True), "not-a-registry", "token-service", "200 without a usable token")


@pytest.mark.parametrize("realm", ["", "nonsense", "ftp://x/", "http://", "http://a b/", "//x/", "http://x:y/"])
def test_a_challenge_without_a_token_service(tokens: TokenRegistry, realm: str) -> None:
    tokens.realm = realm or "\\"
    verdict = ask(tokens.host, insecure=True)
    is_(verdict, "not-a-registry", "no-realm", "has no valid token service", f"its realm is {realm}", "external_url")
    assert (verdict.credential_sent_to, verdict.undecided) == ((), False)


@pytest.mark.parametrize("realm", ["http://u:p@x/", "https://m\xfcnchen.example/token"])
def test_a_token_service_that_only_cri_o_asks(tokens: TokenRegistry, realm: str) -> None:
    tokens.realm = realm
    verdict = ask(tokens.host, insecure=True)
    is_(verdict, "not-a-registry", "token-service", "verify does not ask it; CRI-O does")
    assert (verdict.credential_sent_to, verdict.undecided) == ((), True)


@pytest.mark.parametrize(
    ("answer", "outcome", "words"),
    [
        (answering(429, ("Retry-After", "9")), "rate-limited", ("token service", "Retry-After: 9")),
        (answering(500), "server-error", ("token service", "answers 500")),
        (answering(404), "not-a-registry", ("token service", "answers 404")),
    ],
)
def test_a_token_service_in_trouble(
    tokens: TokenRegistry, answer: Answer, outcome: str, words: tuple[str, ...]
) -> None:
    tokens.answer = answer
    verdict = ask(tokens.host, insecure=True)
    is_(verdict, outcome, "token-service" if answer.status == 404 else "", *words)


def test_a_token_service_that_is_away(tokens: TokenRegistry) -> None:
    with refused_port() as port:
        tokens.realm = f"http://127.0.0.1:{port}/token"
        verdict = ask(tokens.host, insecure=True)
        is_(verdict, "connect", "refused", f"http://127.0.0.1:{port}")
        assert verdict.credential_sent_to == ()
    tokens.realm = "http://auth.nowhere.invalid/token"
    is_(ask(tokens.host, insecure=True), "dns", "unknown", "auth.nowhere.invalid")


def test_a_query_of_the_realm_is_kept(tokens: TokenRegistry) -> None:
    tokens.realm = f"{tokens.service.url}/token?tenant=a%20b"
    is_(ask(tokens.host, insecure=True), "ok")
    assert tokens.asked[0]["tenant"] == ["a b"]


def test_a_scope_that_is_missing_is_asked_for() -> None:
    """As containers/image does once: the registry says which scope its token lacks."""
    wider = "repository:hub/upstream:pull"
    tokens = TokenRegistry()

    def serve(request: Request) -> Answer:
        granted = any(wider in asked.get("scope", ()) for asked in tokens.asked)
        if request.path == "/v2/" or granted:
            return Answer(401, [tokens._challenge()]) if request.path == "/v2/" else MANIFEST
        return Answer(401, [tokens._challenge(f',error="insufficient_scope",scope="{wider}"')])

    tokens.registry = Simulated(serve)
    with tokens:
        is_(ask(tokens.host, insecure=True), "ok")
        assert [asked["scope"] for asked in tokens.asked] == [
            [f"repository:{NGINX}:pull"],
            [f"repository:{NGINX}:pull", wider],
        ]


# -- odd registries, and what skopeo makes of them --------------------------------------------------------------------


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


@pytest.mark.parametrize("name", ODD)
def test_an_odd_registry_is_to_verify_what_it_is_to_skopeo(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Where a pull works it is never said to fail, and the other way round; where we cannot know, that is said."""
    odd = ODD[name]
    context = server_context(authority.issue("r", ip_addresses=["127.0.0.1"])) if odd.tls else None
    monkeypatch.setenv("HOME", str(tmp_path))
    with OddRegistry(odd, context) as place:
        host = place.registry.host
        trust(tmp_path, host, authority, ".config/containers/certs.d")
        verdict = probe_manifest(host, NGINX, "latest", GOOD, insecure=not odd.tls, deadline=5)
        assert_tells_no_secret(verdict, GOOD)
        is_(verdict, odd.outcome, odd.cause, *map(place.fill, odd.words))
        assert (verdict.undecided, verdict.token_service) == (odd.undecided, place.fill(odd.token_service))
        if odd.pulls is not None:
            assert odd.undecided or odd.pulls == (verdict.outcome == "ok")
            (skopeo,) = need("skopeo")
            auth = tmp_path / "auth.json"
            auth.write_text(json.dumps({"auths": {host: {"auth": BASIC.removeprefix("Basic ")}}}))
            flags = ["--authfile", str(auth), *([] if odd.tls else ["--tls-verify=false"])]
            done = subprocess.run(
                [skopeo, "inspect", "--raw", *flags, f"docker://{host}/{NGINX}:latest"],
                env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            assert (done.returncode == 0) == odd.pulls, done.stderr


def test_a_limit_that_outlasts_cri_o(basic: MirrorRegistry) -> None:
    """It waits four times, a minute each at most: with less to wait it may get through."""
    for seconds, undecided in (("3600", False), ("241", False), ("240", True), ("soon", True)):
        with Simulated(lambda request, s=seconds: answering(429, ("Retry-After", s))) as registry:  # type: ignore[misc]
            verdict = ask(registry.host, insecure=True)
            is_(verdict, "rate-limited", "", f"Retry-After: {seconds}")
            assert verdict.undecided == undecided


# -- where a credential may go ----------------------------------------------------------------------------------------


def test_a_redirect_takes_no_credential_to_another_server(basic: MirrorRegistry) -> None:
    with Simulated(of_manifest(MANIFEST)) as storage:

        def respond(request: Request) -> Answer:
            if request.path == "/v2/":
                return answering(401, ("WWW-Authenticate", "Basic realm=x"))
            return answering(307, ("Location", f"{storage.url}/blob?signature=1"))

        with Simulated(respond) as registry:
            verdict = ask(registry.host, insecure=True)
            is_(verdict, "ok")
            assert registry.log[-1].header("Authorization")
            assert [request.header("Authorization") for request in storage.log] == [None]
            assert verdict.credential_sent_to == (registry.host,)


def test_a_redirect_to_a_server_that_wants_one() -> None:
    with Simulated(lambda request: answering(401)) as other:

        def respond(request: Request) -> Answer:
            if request.path == "/v2/":
                return answering(401, ("WWW-Authenticate", "Basic realm=x"))
            return answering(302, ("Location", f"{other.url}/v2/x/manifests/latest"))

        with Simulated(respond) as registry:
            verdict = ask(registry.host, insecure=True)
            is_(verdict, "unauthorized", "redirected", f"{registry.host} redirects there", "no credential was sent")
            assert {request.header("Authorization") for request in other.log} == {None}


def test_a_redirect_within_the_server_keeps_it() -> None:
    def respond(request: Request) -> Answer:
        if request.path == "/v2/":
            return answering(401, ("WWW-Authenticate", "Basic realm=x"))
        if request.path.startswith("/v2/hub"):
            return answering(308, ("Location", "/v2/moved/manifests/latest"))
        return MANIFEST if request.header("Authorization") else answering(401)

    with Simulated(respond) as registry:
        is_(ask(registry.host, insecure=True), "ok")


def test_a_redirect_of_a_refresh_token_is_not_followed(tokens: TokenRegistry) -> None:
    with Simulated(lambda request: answering(200, body=b"{}")) as other:
        tokens.answer = answering(307, ("Location", f"{other.url}/token"))
        verdict = ask(tokens.host, Credential(b"", b"", IDENTITY_TOKEN), insecure=True)
        is_(verdict, "server-error", "unexpected-status", "answers 307")
        assert other.log == []


def test_a_plain_token_service_gets_no_credential(authority: Authority, tmp_path: Path) -> None:
    with TokenRegistry(server_context(authority.issue("r", ip_addresses=["127.0.0.1"]))) as tokens:
        trust(tmp_path, tokens.host, authority)
        verdict = ask(tokens.host, root=tmp_path)
        is_(verdict, "tls", "token-service-without-tls", "is plain HTTP: the credential was not sent")
        assert (tokens.asked, verdict.credential_sent_to) == ([], ())
        # Nobody's token may be asked for: there is nothing to lose.
        tokens.anonymous = True
        is_(ask(tokens.host, None, root=tmp_path), "ok")


HOSTILE: dict[str, Callable[[str], Answer]] = {
    "message": lambda s: answering(401, body=json.dumps({"errors": [{"code": "X", "message": f"not {s}!"}]}).encode()),
    "a piece of it": lambda s: answering(403, body=json.dumps({"errors": [{"message": f"no {s[5:19]}"}]}).encode()),
    "upper case": lambda s: answering(403, body=json.dumps({"errors": [{"message": s.upper()}]}).encode()),
    "percent-encoded": lambda s: answering(
        302, ("Location", "ftp://x/" + "".join(f"%{ord(c):02x}" for c in s)), body=b""
    ),
    "redirect": lambda s: answering(302, ("Location", f"http://127.0.0.1:1/{urllib.parse.quote(s)}")),
    "redirect to it": lambda s: answering(302, ("Location", f"http://{s.replace(':', '-')}.invalid/")),
    "limits": lambda s: answering(429, ("Retry-After", s)),
    "digest": lambda s: answering(200, ("Content-Type", MANIFEST_TYPE), ("Docker-Content-Digest", s)),
}


@pytest.mark.parametrize("where", HOSTILE)
@pytest.mark.parametrize("secret", ["password", "basic"])
def test_a_registry_that_repeats_the_credential_is_not_quoted(where: str, secret: str) -> None:
    def respond(request: Request) -> Answer:
        given = (request.header("Authorization") or "").removeprefix("Basic ")
        if not given:
            return answering(401, ("WWW-Authenticate", "Basic realm=x"))
        said = given.rstrip("=") if secret == "basic" else base64.b64decode(given).decode().partition(":")[2]
        return HOSTILE[where](said)

    with Simulated(respond) as registry:
        verdict = ask(registry.host, insecure=True)
        text = repr([getattr(verdict, name) for name in Verdict.__slots__]).lower()
        encoded = base64.b64encode(b"alpha:" + PASSWORD.encode()).decode()
        for start in range(len(PASSWORD) - 8):
            assert PASSWORD[start : start + 8] not in text
        for start in range(len(encoded) - 10):
            assert encoded[start : start + 8].lower() not in text


def test_a_registry_that_repeats_the_token_is_not_quoted(tokens: TokenRegistry) -> None:
    tokens.refuse = answering(403, body=json.dumps({"errors": [{"code": "DENIED", "message": TOKEN[3:30]}]}).encode())
    verdict = ask(tokens.host, insecure=True)
    is_(verdict, "forbidden", "not-allowed")
    assert TOKEN[3:11] not in repr([getattr(verdict, name) for name in Verdict.__slots__])


@pytest.mark.parametrize(
    "message", ["x" * 300, "two\nlines", "\x1b[31mred", "user alpha may not", {"an": "object"}, None, 7, ""]
)
def test_only_short_printable_words_are_told(message: object) -> None:
    body = json.dumps({"errors": [{"code": "DENIED", "message": message}]}).encode()
    ping = answering(401, ("WWW-Authenticate", "Basic realm=x"))
    with Simulated(of_manifest(answering(403, body=body), ping)) as registry:
        verdict = ask(registry.host, insecure=True)
        is_(verdict, "forbidden", "not-allowed")
        assert verdict.evidence.endswith(("403 with the credential", "(DENIED)")), verdict.evidence


# -- TLS and trust ----------------------------------------------------------------------------------------------------


def trust(root: Path, host: str, authority: Authority, directory: str = "etc/containers/certs.d") -> Path:
    """Puts a CA into certs.d; returns its directory there."""
    place = root / directory / host
    place.mkdir(parents=True, exist_ok=True)
    (place / "ca.crt").write_text(authority.certificate_pem)
    return place


def identity_for(authority: Authority, kind: str) -> Identity:
    here = ["127.0.0.1"]
    match kind:
        case "of another CA":
            return Authority.make("other").issue("r", ip_addresses=here)
        case "for another address":
            return authority.issue("r", ip_addresses=["192.0.2.1"])
        case "for a common name alone":
            return authority.issue("127.0.0.1")
        case "expired":
            return authority.issue("r", not_before=NOW - 2 * DAY, not_after=NOW - DAY, ip_addresses=here)
        case "not yet valid":
            return authority.issue("r", not_before=NOW + DAY, not_after=NOW + 2 * DAY, ip_addresses=here)
        case "of a client":
            return authority.issue("r", client=True, ip_addresses=here)
    raise AssertionError(kind)


CERTIFICATES: dict[str, tuple[str, tuple[str, ...]]] = {
    "of another CA": ("unknown-ca", ("was not issued by a CA that this node trusts", "ca.crt", "restart CRI-O")),
    "for another address": ("wrong-name", ("is not for the name 127.0.0.1",)),
    "for a common name alone": ("wrong-name", ("subject alternative name",)),
    "expired": ("expired", ("has expired", "clock")),
    "not yet valid": ("not-yet-valid", ("is not valid yet", "clocks")),
    "of a client": ("unknown-ca", ("unsuitable certificate purpose",)),
}


@pytest.mark.parametrize("kind", CERTIFICATES)
def test_a_certificate_that_will_not_do(authority: Authority, tmp_path: Path, kind: str) -> None:
    cause, words = CERTIFICATES[kind]
    with Peer(drain, context=server_context(identity_for(authority, kind))) as peer:
        host = f"127.0.0.1:{peer.port}"
        trust(tmp_path, host, authority)
        is_(ask(host, root=tmp_path), "tls", cause, f"https://{host}", *words)
        assert bytes(peer.received) == b""


@pytest.fixture
def secure(authority: Authority) -> Iterator[MirrorRegistry]:
    """A registry with TLS and users."""
    identity = authority.issue("r", ip_addresses=["127.0.0.1"])
    with MirrorRegistry({"alpha": (PASSWORD, ["hub"])}, identity=identity) as registry:
        registry.add_image(NGINX)
        yield registry


@pytest.mark.parametrize(
    "directory", ["etc/containers/certs.d", "etc/docker/certs.d", "root/.config/containers/certs.d"]
)
def test_certs_d(secure: MirrorRegistry, authority: Authority, tmp_path: Path, directory: str) -> None:
    is_(ask(secure.host, root=tmp_path), "tls", "unknown-ca", f"/etc/containers/certs.d/{secure.host}/ca.crt")
    trust(tmp_path, secure.host, authority, directory)
    verdict = ask(secure.host, root=tmp_path)
    is_(verdict, "ok")
    assert verdict.scheme == "https"


@pytest.mark.parametrize(
    "place",
    [
        "etc/ssl/certs/ca-certificates.crt",
        "etc/pki/tls/certs/ca-bundle.crt",
        "etc/ssl/certs/corp.pem",
        "etc/ssl/cert.pem",
    ],
)
def test_the_system_s_cas(secure: MirrorRegistry, authority: Authority, tmp_path: Path, place: str) -> None:
    file = tmp_path / place
    file.parent.mkdir(parents=True)
    file.write_text("# corporate CA\n" + Authority.make("other").certificate_pem + authority.certificate_pem)
    is_(ask(secure.host, root=tmp_path), "ok")


def test_the_certificate_itself_may_be_trusted(tmp_path: Path, authority: Authority) -> None:
    """Go takes every certificate of its pool for a root, so that an installer's own leaf in ca.crt will do."""
    identity = authority.issue("r", ip_addresses=["127.0.0.1"])
    with MirrorRegistry(identity=identity) as registry:
        registry.add_image(NGINX)
        place = tmp_path / "etc/containers/certs.d" / registry.host
        place.mkdir(parents=True)
        (place / "registry.crt").write_text(identity.certificate_pem)
        is_(ask(registry.host, root=tmp_path), "ok")


def test_the_first_directory_alone_is_read(secure: MirrorRegistry, authority: Authority, tmp_path: Path) -> None:
    trust(tmp_path, secure.host, authority, "etc/docker/certs.d")
    trust(tmp_path, secure.host, Authority.make("old"))
    is_(ask(secure.host, root=tmp_path), "tls", "unknown-ca", f"etc/docker/certs.d/{secure.host}")


def test_a_directory_that_was_meant_for_the_host(secure: MirrorRegistry, authority: Authority, tmp_path: Path) -> None:
    trust(tmp_path, "127.0.0.1", authority)
    verdict = ask(secure.host, root=tmp_path)
    is_(verdict, "tls", "unknown-ca", "/etc/containers/certs.d/127.0.0.1 is for another port")
    place = tmp_path / "etc/containers/certs.d"
    assert (
        f"if {place}/127.0.0.1 is meant for it, rename it to {secure.host}; otherwise put its CA into "
        f"{place}/{secure.host}/ca" in (verdict.remedy)
    )
    (place / "127.0.0.1").rename(place / secure.host)
    is_(ask(secure.host, root=tmp_path), "ok")


def test_files_of_certs_d_that_do_not_count(secure: MirrorRegistry, authority: Authority, tmp_path: Path) -> None:
    place = trust(tmp_path, secure.host, authority)
    (place / "ca.crt").rename(place / "ca.pem")
    is_(ask(secure.host, root=tmp_path), "tls", "unknown-ca", "ca.pem is not read: only *.crt")
    (place / "ca.pem").rename(place / "ca.crt")
    (place / "ca.crt").write_text("no certificate\n")
    is_(ask(secure.host, root=tmp_path), "tls", "unknown-ca", "ca.crt has no PEM certificate")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("client.cert",), ("client.cert without client.key", "*.crt")),
        (("client.key",), ("client.key without client.cert",)),
        (("client.cert", "client.key"), ("not a certificate with its key",)),
    ],
)
def test_what_cri_o_refuses_in_certs_d(
    secure: MirrorRegistry, authority: Authority, tmp_path: Path, names: tuple[str, ...], words: tuple[str, ...]
) -> None:
    place = trust(tmp_path, secure.host, authority)
    for name in names:
        (place / name).write_text("nonsense")
    is_(ask(secure.host, root=tmp_path), "tls", "certs.d", "CRI-O refuses", *words)
    assert secure.log == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_directory_that_may_not_be_read(secure: MirrorRegistry, authority: Authority, tmp_path: Path) -> None:
    trust(tmp_path, secure.host, authority).chmod(0)
    with pytest.raises(ConfigError, match="run this as root"):
        ask(secure.host, root=tmp_path)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_certificate(authority: Authority, tmp_path: Path, version: ssl.TLSVersion) -> None:
    context = server_context(authority.issue("r", ip_addresses=["127.0.0.1"]), clients=authority)
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = version
    with Simulated(of_manifest(MANIFEST), context) as registry:
        place = trust(tmp_path, registry.host, authority)
        verdict = ask(registry.host, root=tmp_path)
        if version == ssl.TLSVersion.TLSv1_2 or verdict.cause != "closed":
            is_(verdict, "tls", "client-certificate", "client.cert and client.key")
        else:
            # In TLS 1.3 the refusal comes behind the handshake, where a reset of the connection can overtake it.
            assert "it may require a client certificate" in verdict.remedy
        client = authority.issue("node1", client=True)
        (place / "client.cert").write_text(client.certificate_pem)
        (place / "client.key").write_text(client.key_pem)
        is_(ask(registry.host, root=tmp_path), "ok")
        assert registry.log[0].subject == {"commonName": "node1"}


def test_a_plain_server_where_tls_is_expected(basic: MirrorRegistry) -> None:
    verdict = ask(basic.host)
    is_(verdict, "tls", "not-tls", "does not speak TLS; over plain HTTP a registry answers", "insecure = true")
    assert verdict.credential_sent_to == ()
    assert {p.user for p in basic.log} == {None}


def test_something_else_where_tls_is_expected() -> None:
    with Peer(say(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")) as peer:
        verdict = ask(f"127.0.0.1:{peer.port}")
        is_(verdict, "tls", "not-tls", "does not speak TLS", "check the port")
        assert "registry answers" not in verdict.evidence


def test_tls_that_ends_early() -> None:
    with Peer(close_in_tls) as peer:
        is_(ask(f"127.0.0.1:{peer.port}"), "tls", "closed", "closes the connection during TLS")


def test_an_insecure_source_is_asked_over_tls_first(secure: MirrorRegistry, tmp_path: Path) -> None:
    verdict = ask(secure.host, root=tmp_path, insecure=True)
    is_(verdict, "ok")
    assert verdict.scheme == "https"


def test_the_token_service_is_trusted_by_the_registry_s_directory(authority: Authority, tmp_path: Path) -> None:
    context = server_context(authority.issue("r", ip_addresses=["127.0.0.1"]))
    with TokenRegistry(context, context) as tokens:
        trust(tmp_path, tokens.host, authority)
        verdict = ask(tokens.host, root=tmp_path)
        is_(verdict, "ok")
        assert verdict.credential_sent_to == (tokens.service.host,)
    other = server_context(Authority.make("other").issue("r", ip_addresses=["127.0.0.1"]))
    with TokenRegistry(context, other) as tokens:
        trust(tmp_path, tokens.host, authority)
        verdict = ask(tokens.host, root=tmp_path)
        is_(verdict, "tls", "unknown-ca", tokens.service.url)
        assert (tokens.asked, verdict.credential_sent_to) == ([], ())


# -- no connection ----------------------------------------------------------------------------------------------------


def test_nobody_listens() -> None:
    with refused_port() as port:
        is_(ask(f"127.0.0.1:{port}"), "connect", "refused", f"https://127.0.0.1:{port} refuses connections")
        is_(ask(f"127.0.0.1:{port}", insecure=True), "connect", "refused", "https://", "http://")


def test_packets_are_dropped() -> None:
    with silent_port() as port:
        started = time.monotonic()
        is_(ask(f"127.0.0.1:{port}", deadline=0.5), "connect", "timeout", "within 0.5 s", "firewall")
        assert time.monotonic() - started < 2


@pytest.mark.parametrize("behave", [hang, half_a_server_hello])
def test_a_server_that_falls_silent_in_tls(behave: Any) -> None:
    with Peer(behave) as peer:
        verdict = ask(f"127.0.0.1:{peer.port}", deadline=0.5)
        is_(verdict, "connect", "silent", "accepts the connection and does not answer")
        # CRI-O gives up as well.
        assert not verdict.undecided


def test_a_server_that_falls_silent_later(authority: Authority, tmp_path: Path) -> None:
    context = server_context(authority.issue("r", ip_addresses=["127.0.0.1"]))
    for behave in (drain, drip):
        with Peer(behave, context=context) as peer:
            host = f"127.0.0.1:{peer.port}"
            trust(tmp_path, host, authority)
            started = time.monotonic()
            verdict = ask(host, root=tmp_path, deadline=0.7)
            is_(verdict, "connect", "silent")
            # CRI-O waits for as long as it takes.
            assert verdict.undecided
            assert time.monotonic() - started < 2


def drip(connection: socket.socket, closing: threading.Event) -> None:
    """A byte now and then: each read succeeds, and the answer never ends."""
    connection.recv(65536)
    for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000:
        connection.sendall(bytes([byte]))
        if closing.wait(0.1):
            return


def flood(connection: socket.socket, closing: threading.Event) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while not closing.is_set():
        connection.sendall(bytes(1 << 20))


def test_an_answer_without_an_end(authority: Authority, tmp_path: Path) -> None:
    with Peer(flood) as peer:
        is_(ask(f"127.0.0.1:{peer.port}", insecure=True), "not-a-registry", "", "sends an answer without an end")


@pytest.mark.parametrize(
    "answer",
    [b"", b"+OK dovecot ready\r\n", b"HTTP/1.1 banana\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"],
)
def test_a_server_that_speaks_no_http(authority: Authority, tmp_path: Path, answer: bytes) -> None:
    context = server_context(authority.issue("r", ip_addresses=["127.0.0.1"]))
    with Peer(say(answer), context=context) as peer:
        host = f"127.0.0.1:{peer.port}"
        trust(tmp_path, host, authority)
        verdict = ask(host, root=tmp_path)
        if answer:
            is_(verdict, "not-a-registry", "", "does not speak HTTP")
        else:
            is_(verdict, "connect", "closed", "closes the connection without an answer")


def test_names() -> None:
    is_(ask("mirror.nowhere.invalid"), "dns", "unknown", "cannot be resolved", "getent hosts mirror.nowhere.invalid")
    is_(ask("registry.kube-system.svc.cluster.local:5000"), "dns", "unknown", "the cluster's Services")
    # A name that the grammar of images allows, and DNS does not.
    is_(ask("x" * 70 + ".corp.example"), "dns", "unknown")


def test_docker_hub_s_server_has_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def look_up(host: str, *rest: Any, **more: Any) -> Any:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    is_(ask("docker.io", path="library/nginx"), "dns", "unknown", "registry-1.docker.io cannot be resolved")
    assert asked == ["registry-1.docker.io"]


# -- the lighter question ---------------------------------------------------------------------------------------------


def test_whether_a_registry_is_there(
    basic: MirrorRegistry, secure: MirrorRegistry, authority: Authority, tmp_path: Path
) -> None:
    verdict = probe_registry(basic.host, insecure=True, root=str(tmp_path))
    is_(verdict, "ok", "", "a registry answers, and requires a credential (basic)")
    assert (verdict.scheme, verdict.credential_sent_to) == ("http", ())
    is_(probe_registry(basic.host, root=str(tmp_path)), "tls", "not-tls")
    is_(probe_registry(secure.host, root=str(tmp_path)), "tls", "unknown-ca")
    trust(tmp_path, secure.host, authority)
    verdict = probe_registry(secure.host, root=str(tmp_path))
    is_(verdict, "ok")
    assert verdict.scheme == "https"
    with MirrorRegistry() as open_one:
        is_(probe_registry(open_one.host, insecure=True, root=str(tmp_path)), "ok", "", "requires no credential")


# -- proxies ----------------------------------------------------------------------------------------------------------


class Forwarder:
    """An HTTP proxy: whatever is asked for is connected to one port here."""

    def __init__(self, port: int, refusal: bytes = b"") -> None:
        self.heads: list[bytes] = []
        self._port = port
        self._refusal = refusal
        self.peer = Peer(self._serve)

    def _serve(self, connection: socket.socket, closing: threading.Event) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(65536)
        self.heads.append(head)
        if self._refusal:
            connection.sendall(self._refusal)
            return
        with socket.create_connection(("127.0.0.1", self._port)) as onward:
            if head.startswith(b"CONNECT"):
                connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                onward.sendall(head.replace(b" http://mirror.corp/", b" /", 1))
            there = threading.Thread(target=pump, args=(onward, connection), daemon=True)
            there.start()
            pump(connection, onward)
            there.join(5)

    def __enter__(self) -> str:
        self.peer.__enter__()
        return f"http://user:proxypw@127.0.0.1:{self.peer.port}"

    def __exit__(self, *error: Any) -> None:
        self.peer.__exit__(*error)


def pump(source: Any, target: Any) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def test_through_a_proxy(authority: Authority, tmp_path: Path) -> None:
    identity = authority.issue("mirror.corp", dns_names=["mirror.corp"])
    with MirrorRegistry({"alpha": (PASSWORD, ["hub"])}, identity=identity) as registry:
        registry.add_image(NGINX)
        trust(tmp_path, "mirror.corp:5000", authority)
        forwarder = Forwarder(registry.port)
        with forwarder as proxy:
            is_(ask("mirror.corp:5000", root=tmp_path, environment={"HTTPS_PROXY": proxy}), "ok")
        assert len(forwarder.heads) == 2
        for head in forwarder.heads:
            assert head.startswith(b"CONNECT mirror.corp:5000 HTTP/1.1\r\n")
            assert b"Proxy-Authorization: Basic " + base64.b64encode(b"user:proxypw") in head
            assert b"\r\nAuthorization" not in head


def test_through_a_proxy_without_tls(basic: MirrorRegistry, tmp_path: Path) -> None:
    forwarder = Forwarder(basic.port)
    with forwarder as proxy:
        environment = {"http_proxy": proxy, "https_proxy": proxy}
        verdict = ask("mirror.corp", root=tmp_path, insecure=True, environment=environment)
    is_(verdict, "ok")
    assert forwarder.heads[1].startswith(b"GET http://mirror.corp/v2/ HTTP/1.1\r\n")


def test_a_proxy_that_refuses(tmp_path: Path) -> None:
    with Forwarder(1, b"HTTP/1.1 403 Forbidden\r\n\r\n") as proxy:
        verdict = ask("mirror.corp", root=tmp_path, environment={"HTTPS_PROXY": proxy})
        is_(verdict, "connect", "proxy", "answers 403 to CONNECT mirror.corp:443", "NO_PROXY")
        assert "proxypw" not in repr(verdict.evidence)
    with refused_port() as port:
        verdict = ask("mirror.corp", root=tmp_path, environment={"HTTPS_PROXY": f"127.0.0.1:{port}"})
        is_(verdict, "connect", "proxy", f"the proxy 127.0.0.1:{port} cannot be reached")
    verdict = ask("mirror.corp", environment={"HTTPS_PROXY": "socks5://127.0.0.1:1"})
    is_(verdict, "connect", "proxy", "HTTPS_PROXY")
    assert verdict.undecided


@pytest.mark.parametrize(
    ("host", "no_proxy", "exempt"),
    [
        ("mirror.corp", "", False),
        ("mirror.corp", "*", True),
        ("mirror.corp", "mirror.corp", True),
        ("mirror.corp", "corp", True),
        ("mirror.corp", ".corp", True),
        ("mirror.corp", "*.corp", True),
        ("mirror.corp", "other, .corp ", True),
        ("mirror.corp", ".mirror.corp", False),
        ("xmirror.corp", "mirror.corp", False),
        ("mirror.corp:5000", "mirror.corp:5000", True),
        ("mirror.corp:5000", "mirror.corp:443", False),
        ("10.1.2.3:5000", "10.0.0.0/8", True),
        ("10.1.2.3:5000", "10.1.2.3", True),
        ("192.0.2.1", "10.0.0.0/8,nonsense/9", False),
        ("127.0.0.1:5000", "", True),
        ("localhost:5000", "", True),
    ],
)
def test_no_proxy(host: str, no_proxy: str, exempt: bool) -> None:
    """As golang.org/x/net/http/httpproxy reads it."""
    url = registryclient.wire.parse_url(f"https://{host}/v2/")
    assert url is not None
    environment = {"HTTPS_PROXY": "http://proxy.corp:3128", "NO_PROXY": no_proxy}
    assert (registryclient.wire.find_proxy(url, environment) is None) == exempt


def test_a_name_that_only_a_proxy_could_know() -> None:
    with Forwarder(1, b"HTTP/1.1 200 OK\r\n\r\n") as proxy:
        is_(ask("x" * 70 + ".corp", environment={"HTTPS_PROXY": proxy}), "connect", "unreachable", "not a host name")


# -- whatever comes ---------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    (
        *(
            "Bearer",
            "Basic",
            "Negotiate",
            ' realm="',
            '"',
            ",",
            "=",
            "\\",
            "scope",
            "error",
            "insufficient_scope",
            "a:b:c",
        ),
        *(
            "http://127.0.0.1:1/",
            "https://",
            "//",
            "/v2/",
            "service",
            "@",
            "[",
            "%",
            "\t",
            " ",
            "\xe9",
            PASSWORD,
            "?",
            "#",
        ),
    )
)
TEXTS = st.lists(WORDS, max_size=8).map("".join)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["WWW-Authenticate", "Location", "Content-Type", "Retry-After", "Docker-Content-Digest"]), TEXTS
    ),
    max_size=3,
)
BODIES = st.one_of(
    st.binary(max_size=60),
    st.recursive(
        st.none() | st.integers() | TEXTS | st.just(TOKEN),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from(["errors", "token", "code", "message", "schemaVersion"]), inner, max_size=3
            )
        ),
        max_leaves=6,
    ).map(lambda value: json.dumps(value).encode()),
)
ANSWERS = st.builds(
    lambda status, headers, body: Answer(status, headers, body),
    st.sampled_from([200, 200, 301, 307, 400, 401, 401, 403, 404, 429, 500, 503]),
    HEADERS,
    BODIES,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ping=ANSWERS, other=ANSWERS, secret=st.sampled_from([GOOD, WRONG, None, Credential(b"", b"", IDENTITY_TOKEN)]))
def test_every_answer_comes_to_a_verdict(
    tmp_path: Path, ping: Answer, other: Answer, secret: Credential | None
) -> None:
    """No answer is a traceback, and none makes us tell a secret that was shown."""
    # Names beyond this machine are nobody's affair.
    away = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:1")
    with Simulated(lambda request: ping if request.path == "/v2/" else other) as registry:
        verdict = probe_manifest(
            registry.host, NGINX, "latest", secret, insecure=True, deadline=5, root=str(tmp_path), environment=away
        )
    assert verdict.outcome in registryclient.OUTCOMES
    assert bool(verdict.remedy) == (verdict.outcome != "ok")
    # The demo's password is among the words above, so that it may be in what comes before it was shown.
    assert IDENTITY_TOKEN not in repr(verdict.exchanges) + verdict.evidence


# -- real programs ----------------------------------------------------------------------------------------------------


class Real(NamedTuple):
    """docker-registry with TLS and users, and skopeo with a home of its own."""

    host: str
    home: Path
    skopeo: str

    def inspect(self, path: str, creds: str, *flags: str) -> tuple[int, str]:
        """skopeo's exit status and words for a manifest; "" asks as nobody."""
        login = ["--creds", creds] if creds else ["--no-creds"]
        done = subprocess.run(
            [self.skopeo, "inspect", "--raw", *login, *flags, f"docker://{self.host}/{path}"],
            env={"PATH": "/usr/bin:/bin", "HOME": str(self.home)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.returncode, done.stderr


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Real]:
    program, skopeo = need("docker-registry", "skopeo")
    home = tmp_path_factory.mktemp("real")
    identity = authority.issue("r", ip_addresses=["127.0.0.1"])
    (home / "tls.crt").write_text(identity.certificate_pem)
    (home / "tls.key").write_text(identity.key_pem)
    (home / "htpasswd").write_text(HTPASSWD)
    (home / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {home}/storage}}}}\n"
        f"http: {{addr: '127.0.0.1:0', tls: {{certificate: {home}/tls.crt, key: {home}/tls.key}}}}\n"
        f"auth: {{htpasswd: {{realm: mirror, path: {home}/htpasswd}}}}\n"
    )
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "OTEL_TRACES_EXPORTER": "none"}
    with subprocess.Popen(
        [program, "serve", str(home / "config.yml")], env=environment, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stderr
            said = ""
            while not (found := re.search(r"listening on (127\.0\.0\.1:\d+)", said)):
                line = server.stderr.readline()
                assert line, f"docker-registry ended: {said}"
                said += line
            threading.Thread(target=server.stderr.read, daemon=True).start()
            make_layout(home / "layout")
            copy = [skopeo, "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]
            target = f"docker://{found[1]}/{NGINX}:1.27"
            subprocess.run(
                [*copy, "--dest-creds", "alpha:alphapw", f"oci:{home}/layout:1.27", target], env=environment, check=True
            )
            yield Real(found[1], home, skopeo)
        finally:
            server.terminate()
            server.wait(20)


REAL: dict[str, tuple[str, str, str, str, str]] = {
    # What is asked with whose password -> our outcome, and what skopeo says.
    "a good credential": ("alphapw", NGINX, "1.27", "ok", ""),
    "a wrong password": (
        "wrong",
        NGINX,
        "1.27",
        "unauthorized",
        "invalid username/password|unauthorized|authentication",
    ),
    "nobody": ("", NGINX, "1.27", "unauthorized", "authentication required"),
    "a tag that is none": ("alphapw", NGINX, "9", "not-found", "manifest unknown"),
    "a repository that is none": (
        "alphapw",
        "hub/library/nothing",
        "1.27",
        "not-found",
        "manifest unknown",
    ),
}


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("trusted", [True, False])
def test_the_verdict_is_skopeo_s(
    real: Real, authority: Authority, monkeypatch: pytest.MonkeyPatch, name: str, trusted: bool
) -> None:
    password, path, tag, outcome, words = REAL[name]
    monkeypatch.setenv("HOME", str(real.home))
    place = real.home / ".config/containers/certs.d" / real.host
    place.mkdir(parents=True, exist_ok=True)
    (place / "ca.crt").write_text((authority if trusted else Authority.make("other")).certificate_pem)
    if not trusted:
        outcome, words = "tls", "certificate signed by unknown authority"
    status, said = real.inspect(f"{path}:{tag}", f"alpha:{password}" if password else "")
    credential = Credential(b"alpha", password.encode()) if password else None
    verdict = probe_manifest(real.host, path, tag, credential)
    assert verdict.outcome == outcome, verdict
    assert (status == 0) == (outcome == "ok"), said
    assert re.search(words, said), said


def test_an_insecure_source_is_skopeo_s_without_verification(real: Real, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")
    assert real.inspect(f"{NGINX}:1.27", "alpha:alphapw", "--tls-verify=false")[0] == 0
    verdict = probe_manifest(real.host, NGINX, "1.27", Credential(b"alpha", b"alphapw"), insecure=True)
    is_(verdict, "ok")
    assert verdict.scheme == "https"


def test_tokens_are_asked_for_as_skopeo_asks(tokens: TokenRegistry, tmp_path: Path) -> None:
    (skopeo,) = need("skopeo")
    real = Real(tokens.host, tmp_path, skopeo)
    for creds, credential in ((f"alpha:{PASSWORD}", GOOD), ("alpha:wrong", WRONG), ("", None)):
        status, _ = real.inspect(f"{NGINX}:latest", creds, "--tls-verify=false")
        verdict = ask(tokens.host, credential, insecure=True)
        assert (status == 0) == (verdict.outcome == "ok")
        theirs, ours = tokens.asked
        assert {**theirs, "password": ""} == {**ours, "password": ""}
        assert theirs["scheme"] == ("Basic" if credential else "")
        tokens.asked.clear()
    tokens.anonymous = True
    assert real.inspect(f"{NGINX}:latest", "", "--tls-verify=false")[0] == 0
    is_(ask(tokens.host, None, insecure=True), "ok")
