"""Where a credential may go, and that nothing of it is told."""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest

from crio_credential_provider.images.dockerconfig import Credential
from crio_credential_provider.registryclient import Verdict
from crio_credential_provider.testbed.certificates import Authority, server_context
from crio_credential_provider.testbed.loopback import Answer, Request
from crio_credential_provider.testbed.registry import MANIFEST_TYPE, MirrorRegistry
from odd_registries import IDENTITY_TOKEN, MANIFEST, PASSWORD, TOKEN, Simulated, TokenRegistry, answering, of_manifest
from verdicts import ask, is_, trust

pytestmark = pytest.mark.usefixtures("no_surroundings")


def test_a_redirect_takes_no_credential_to_another_server(plain_registry: MirrorRegistry) -> None:
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


def test_a_redirect_of_a_refresh_token_is_not_followed(token_registry: TokenRegistry) -> None:
    with Simulated(lambda request: answering(200, body=b"{}")) as other:
        token_registry.answer = answering(307, ("Location", f"{other.url}/token"))
        verdict = ask(token_registry.host, Credential(b"", b"", IDENTITY_TOKEN), insecure=True)
        is_(verdict, "server-error", "unexpected-status", "answers 307")
        assert other.log == []


def test_a_plain_token_service_gets_no_credential(authority: Authority, tmp_path: Path) -> None:
    with TokenRegistry(server_context(authority.issue("r", ip_addresses=["127.0.0.1"]))) as token_registry:
        trust(tmp_path, token_registry.host, authority)
        verdict = ask(token_registry.host, root=tmp_path)
        is_(verdict, "tls", "token-service-without-tls", "is plain HTTP: the credential was not sent")
        assert (token_registry.asked, verdict.credential_sent_to) == ([], ())
        # Nobody's token may be asked for: there is nothing to lose.
        token_registry.anonymous = True
        is_(ask(token_registry.host, None, root=tmp_path), "ok")


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


def test_a_registry_that_repeats_the_token_is_not_quoted(token_registry: TokenRegistry) -> None:
    token_registry.refuse = answering(
        403, body=json.dumps({"errors": [{"code": "DENIED", "message": TOKEN[3:30]}]}).encode()
    )
    verdict = ask(token_registry.host, insecure=True)
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
