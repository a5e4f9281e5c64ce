"""What a registry answers, told apart: real and simulated servers, and skopeo's word beside ours."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from crio_credential_provider.registryclient import probe_registry
from crio_credential_provider.testbed.certificates import Authority
from crio_credential_provider.testbed.loopback import Answer, Request
from crio_credential_provider.testbed.registry import MANIFEST_TYPE, MirrorRegistry
from odd_registries import MANIFEST, NGINX, PASSWORD, Simulated, answering, of_manifest
from verdicts import WRONG, ask, is_, trust

pytestmark = pytest.mark.usefixtures("no_surroundings")


# -- Basic ------------------------------------------------------------------------------------------------------------


def test_a_credential_that_serves(plain_registry: MirrorRegistry) -> None:
    verdict = ask(plain_registry.host, insecure=True)
    is_(verdict, "ok")
    assert verdict.evidence == f"has {NGINX}:latest"
    assert verdict.digest == plain_registry.add_image(NGINX)
    assert (verdict.scheme, verdict.credential_sent_to) == ("http", (plain_registry.host,))
    # The ping shows nobody; then headers alone are asked for.
    assert [(p.method, p.user) for p in plain_registry.log] == [("GET", None), ("HEAD", "alpha")]
    assert verdict.exchanges == (
        f"GET {plain_registry.url}/v2/: 401",
        f"HEAD {plain_registry.url}/v2/{NGINX}/manifests/latest: 200",
    )


def test_by_digest(plain_registry: MirrorRegistry) -> None:
    digest = plain_registry.add_image(NGINX)
    verdict = ask(plain_registry.host, insecure=True, reference=digest)
    assert (verdict.outcome, verdict.digest, verdict.evidence) == ("ok", digest, f"has {NGINX}@{digest}")


def test_refusals_of_basic_are_told_apart(plain_registry: MirrorRegistry) -> None:
    is_(
        ask(plain_registry.host, None, insecure=True),
        "unauthorized",
        "no-credential",
        "answers 401 without a credential",
    )
    is_(
        ask(plain_registry.host, WRONG, insecure=True),
        "unauthorized",
        "refused",
        "401: it refuses the credential",
        "rotated",
    )
    is_(
        ask(plain_registry.host, insecure=True, path="private/app"),
        "forbidden",
        "not-allowed",
        "403 with the credential",
    )
    is_(ask(plain_registry.host, insecure=True, reference="9"), "not-found", "manifest", "404 (MANIFEST_UNKNOWN")


def test_nobody_is_shown_as_cri_o_shows_him(plain_registry: MirrorRegistry) -> None:
    verdict = ask(plain_registry.host, None, insecure=True)
    assert verdict.credential_sent_to == ()
    # An empty user name and password.
    assert {p.user for p in plain_registry.log} == {None, ""}


def test_what_head_does_not_give_is_asked_for_with_get(plain_registry: MirrorRegistry) -> None:
    ask(plain_registry.host, insecure=True, reference="9")
    assert [p.method for p in plain_registry.log] == ["GET", "HEAD", "GET"]


def test_an_open_registry_is_shown_no_credential() -> None:
    with MirrorRegistry() as registry:
        registry.add_image(NGINX)
        verdict = ask(registry.host, insecure=True)
        is_(verdict, "ok")
        assert verdict.credential_sent_to == ()
        assert {p.user for p in registry.log} == {None}
        is_(ask(registry.host, insecure=True, path="hub/other"), "not-found", "manifest")


# -- simulated registries ---------------------------------------------------------------------------------------------


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


# -- the lighter question ---------------------------------------------------------------------------------------------


def test_whether_a_registry_is_there(
    plain_registry: MirrorRegistry, tls_registry: MirrorRegistry, authority: Authority, tmp_path: Path
) -> None:
    verdict = probe_registry(plain_registry.host, insecure=True, root=str(tmp_path))
    is_(verdict, "ok", "", "a registry answers, and requires a credential (basic)")
    assert (verdict.scheme, verdict.credential_sent_to) == ("http", ())
    is_(probe_registry(plain_registry.host, root=str(tmp_path)), "tls", "not-tls")
    is_(probe_registry(tls_registry.host, root=str(tmp_path)), "tls", "unknown-ca")
    trust(tmp_path, tls_registry.host, authority)
    verdict = probe_registry(tls_registry.host, root=str(tmp_path))
    is_(verdict, "ok")
    assert verdict.scheme == "https"
    with MirrorRegistry() as open_one:
        is_(probe_registry(open_one.host, insecure=True, root=str(tmp_path)), "ok", "", "requires no credential")
