"""Token services: what they are asked, what they answer, and whose fault it is told to be."""

from __future__ import annotations

import json

import pytest

from crio_credential_provider.images.dockerconfig import Credential
from crio_credential_provider.testbed.loopback import Answer, Request
from odd_registries import IDENTITY_TOKEN, MANIFEST, NGINX, PASSWORD, TOKEN, Simulated, TokenRegistry, answering
from servers import refused_port
from verdicts import WRONG, ask, is_

pytestmark = pytest.mark.usefixtures("no_surroundings")


def test_a_token_is_asked_for_as_cri_o_asks(token_registry: TokenRegistry) -> None:
    verdict = ask(token_registry.host, insecure=True)
    is_(verdict, "ok")
    assert token_registry.asked == [
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
    assert verdict.credential_sent_to == (token_registry.service.host,)
    assert {request.header("Authorization") for request in token_registry.registry.log} == {None, f"Bearer {TOKEN}"}
    assert f"GET {token_registry.service.url}/service/token: 200" in verdict.exchanges


def test_nobody_s_token(token_registry: TokenRegistry) -> None:
    token_registry.anonymous = True
    verdict = ask(token_registry.host, None, insecure=True)
    is_(verdict, "ok")
    assert verdict.credential_sent_to == ()
    assert (token_registry.asked[0]["scheme"], token_registry.asked[0].get("account")) == ("", None)


def test_a_token_service_that_refuses(token_registry: TokenRegistry) -> None:
    is_(
        ask(token_registry.host, None, insecure=True), "unauthorized", "no-credential", "token service", "401 without a"
    )
    verdict = ask(token_registry.host, WRONG, insecure=True)
    is_(verdict, "unauthorized", "refused", "it refuses the credential", "incorrect username or password")
    assert verdict.credential_sent_to == (token_registry.service.host,)
    token_registry.answer = answering(403)
    is_(ask(token_registry.host, WRONG, insecure=True), "unauthorized", "refused", "answers 403")


def test_a_registry_that_refuses_a_good_token(token_registry: TokenRegistry) -> None:
    """As Docker Hub answers for a repository that does not exist, or that the user may not see."""
    token_registry.refuse = answering(
        401, body=b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}'
    )
    is_(
        ask(token_registry.host, insecure=True),
        "unauthorized",
        "not-allowed",
        "to the token that its token service gave",
    )
    token_registry.anonymous = True
    is_(ask(token_registry.host, None, insecure=True), "unauthorized", "no-credential", "401 without a credential")
    token_registry.refuse = answering(403, body=b'{"errors":[{"code":"DENIED","message":"not yours"}]}')
    is_(ask(token_registry.host, insecure=True), "forbidden", "not-allowed", "DENIED: not yours")
    is_(ask(token_registry.host, None, insecure=True), "forbidden", "no-credential", "403 without a credential")


def test_an_identity_token_is_a_refresh_token(token_registry: TokenRegistry) -> None:
    credential = Credential(b"00000000-0000-0000-0000-000000000000", b"", IDENTITY_TOKEN)
    verdict = ask(token_registry.host, credential, insecure=True)
    is_(verdict, "ok")
    (asked,) = token_registry.asked
    assert (asked["method"], asked["scheme"]) == ("POST", "")
    assert asked["grant_type"] == ["refresh_token"]
    assert (asked["service"], asked["client_id"]) == (["registry.corp"], ["containers/image"])
    assert verdict.credential_sent_to == (token_registry.service.host,)
    is_(ask(token_registry.host, Credential(b"", b"", "another"), insecure=True), "unauthorized", "refused")
    token_registry.answer = answering(
        400, body=b'{"error":"invalid_grant","error_description":"the token has expired"}'
    )
    is_(ask(token_registry.host, credential, insecure=True), "unauthorized", "refused", "the token has expired")


def test_half_a_credential_is_not_shown_to_a_token_service(token_registry: TokenRegistry) -> None:
    """As with containers/image, which wants both for it."""
    verdict = ask(token_registry.host, Credential(b"alpha", b""), insecure=True)
    is_(verdict, "unauthorized", "no-credential", "token service", "only a user name or only a password")
    assert (token_registry.asked[0]["scheme"], token_registry.asked[0]["account"]) == ("", ["alpha"])
    assert verdict.credential_sent_to == ()


def test_access_token_is_a_token_s_other_name(token_registry: TokenRegistry) -> None:
    token_registry.answer = answering(200, body=json.dumps({"access_token": TOKEN}).encode())
    is_(ask(token_registry.host, insecure=True), "ok")


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
def test_a_token_service_that_gives_none(token_registry: TokenRegistry, body: bytes) -> None:
    token_registry.answer = answering(200, body=body)
    is_(ask(token_registry.host, insecure=True), "not-a-registry", "token-service", "200 without a usable token")


@pytest.mark.parametrize("realm", ["", "nonsense", "ftp://x/", "http://", "http://a b/", "//x/", "http://x:y/"])
def test_a_challenge_without_a_token_service(token_registry: TokenRegistry, realm: str) -> None:
    token_registry.realm = realm or "\\"
    verdict = ask(token_registry.host, insecure=True)
    is_(verdict, "not-a-registry", "no-realm", "has no valid token service", f"its realm is {realm}", "external_url")
    assert (verdict.credential_sent_to, verdict.undecided) == ((), False)


@pytest.mark.parametrize("realm", ["http://u:p@x/", "https://m\xfcnchen.example/token"])
def test_a_token_service_that_only_cri_o_asks(token_registry: TokenRegistry, realm: str) -> None:
    token_registry.realm = realm
    verdict = ask(token_registry.host, insecure=True)
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
    token_registry: TokenRegistry, answer: Answer, outcome: str, words: tuple[str, ...]
) -> None:
    token_registry.answer = answer
    verdict = ask(token_registry.host, insecure=True)
    is_(verdict, outcome, "token-service" if answer.status == 404 else "", *words)


def test_a_token_service_that_is_away(token_registry: TokenRegistry) -> None:
    with refused_port() as port:
        token_registry.realm = f"http://127.0.0.1:{port}/token"
        verdict = ask(token_registry.host, insecure=True)
        is_(verdict, "connect", "refused", f"http://127.0.0.1:{port}")
        assert verdict.credential_sent_to == ()
    token_registry.realm = "http://auth.nowhere.invalid/token"
    is_(ask(token_registry.host, insecure=True), "dns", "unknown", "auth.nowhere.invalid")


def test_a_query_of_the_realm_is_kept(token_registry: TokenRegistry) -> None:
    token_registry.realm = f"{token_registry.service.url}/token?tenant=a%20b"
    is_(ask(token_registry.host, insecure=True), "ok")
    assert token_registry.asked[0]["tenant"] == ["a b"]


def test_a_scope_that_is_missing_is_asked_for() -> None:
    """As containers/image does once: the registry says which scope its token lacks."""
    wider = "repository:hub/upstream:pull"
    token_registry = TokenRegistry()

    def serve(request: Request) -> Answer:
        granted = any(wider in asked.get("scope", ()) for asked in token_registry.asked)
        if request.path == "/v2/" or granted:
            return Answer(401, [token_registry._challenge()]) if request.path == "/v2/" else MANIFEST
        return Answer(401, [token_registry._challenge(f',error="insufficient_scope",scope="{wider}"')])

    token_registry.registry = Simulated(serve)
    with token_registry:
        is_(ask(token_registry.host, insecure=True), "ok")
        assert [asked["scope"] for asked in token_registry.asked] == [
            [f"repository:{NGINX}:pull"],
            [f"repository:{NGINX}:pull", wider],
        ]
