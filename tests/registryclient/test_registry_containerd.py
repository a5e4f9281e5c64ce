"""A host of containerd's files, asked as containerd asks: the manifest at once, the credential after a challenge."""

from __future__ import annotations

from typing import Any

import pytest

from crio_credential_provider.images.dockerconfig import Credential
from crio_credential_provider.registryclient import Api, Verdict, probe_host
from crio_credential_provider.testbed.loopback import Answer
from odd_registries import MANIFEST, NGINX, PASSWORD, Simulated, TokenRegistry, answering
from verdicts import GOOD, WRONG, assert_tells_no_secret, is_

pytestmark = pytest.mark.usefixtures("no_surroundings")

BASIC, BEARER = ("WWW-Authenticate", 'Basic realm="x"'), ("WWW-Authenticate", 'Bearer realm="http://127.0.0.1:1/t"')


def ask(host: str, credential: Credential | None = GOOD, **members: Any) -> Verdict:
    api = Api("http", host, "/v2", "docker.io", False, True, (), (), (), "/etc/containerd/certs.d/docker.io/hosts.toml")
    verdict = probe_host(api._replace(**members), NGINX, "latest", credential, root="/nonexistent", deadline=5.0)
    assert_tells_no_secret(verdict, credential)
    assert "CRI-O" not in verdict.evidence + verdict.remedy
    assert bool(verdict.remedy) == (verdict.outcome != "ok")
    return verdict


def test_a_token_is_asked_for_as_containerd_asks(token_registry: TokenRegistry) -> None:
    token_registry.more = ',scope="repository:other:pull"'
    verdict = ask(token_registry.host)
    is_(verdict, "ok")
    (asked,) = token_registry.asked
    assert (asked["user"], asked["password"]) == ("alpha", PASSWORD)
    assert asked["scope"] == [f"repository:{NGINX}:pull", "repository:other:pull"]
    assert verdict.credential_sent_to == (token_registry.service.host,)
    assert {request.path for request in token_registry.registry.log} == {f"/v2/{NGINX}/manifests/latest?ns=docker.io"}
    assert token_registry.registry.log[0].header("Authorization") is None


def test_tokens_that_are_refused(token_registry: TokenRegistry) -> None:
    is_(ask(token_registry.host, WRONG), "unauthorized", "refused", "it refuses the credential")
    is_(ask(token_registry.host, None), "unauthorized", "no-credential")


def registry(first: Answer, then: Answer = MANIFEST) -> Simulated:
    """Answers `then` to whoever shows a credential."""
    return Simulated(lambda request: then if request.header("Authorization") else first)


@pytest.mark.parametrize(
    ("first", "credential", "expected"),
    [
        (answering(401, BASIC), GOOD, ("ok", "")),
        (answering(401, BASIC), None, ("unauthorized", "no-credential")),
        (answering(401, BASIC), Credential(b"alpha", b""), ("unauthorized", "no-credential")),
        (answering(401), GOOD, ("unauthorized", "no-challenge")),
        (answering(401, ("WWW-Authenticate", "Negotiate")), GOOD, ("unauthorized", "no-challenge")),
        (answering(403), GOOD, ("forbidden", "not-asked")),
        (answering(403), None, ("forbidden", "no-credential")),
        (answering(404), GOOD, ("not-found", "")),
        (answering(429), GOOD, ("rate-limited", "")),
        (answering(500), GOOD, ("server-error", "")),
        # Bearer goes before Basic, in whatever order; its token service is away.
        (answering(401, BASIC, BEARER), GOOD, ("connect", "refused")),
    ],
)
def test_answers_to_the_first_question(first: Answer, credential: Credential | None, expected: tuple[str, str]) -> None:
    with registry(first) as asked:
        verdict = ask(asked.host, credential)
    assert (verdict.outcome, verdict.cause) == expected, verdict
    shown = {request.header("Authorization") for request in asked.log}
    assert (shown != {None}) == (expected[0] == "ok")


def test_a_credential_that_is_refused() -> None:
    with registry(answering(401, BASIC), answering(401, BASIC)) as asked:
        is_(ask(asked.host), "unauthorized", "refused", "it refuses the credential")
    with registry(answering(401, BASIC), answering(403)) as asked:
        is_(ask(asked.host), "forbidden", "not-allowed")


def test_the_headers_of_the_file_decide_nothing() -> None:
    with registry(answering(401, BASIC), answering(403)) as asked:
        verdict = ask(asked.host, headers=("X-Team",))
    assert verdict.undecided
    assert (
        "containerd also sends the headers X-Team of /etc/containerd/certs.d/docker.io/hosts.toml" in verdict.evidence
    )


def test_files_that_hold_no_certificate(tmp_path: Any) -> None:
    (tmp_path / "empty").write_text("")
    path = str(tmp_path / "empty")
    verdict = ask("127.0.0.1:1", scheme="https", plain_http=False, ca=(path,))
    is_(verdict, "tls", "certs.d", f"{path} has no PEM certificate", "correct ca and client in /etc/containerd")
    verdict = ask("127.0.0.1:1", scheme="https", plain_http=False, client=((path, ""),))
    is_(verdict, "tls", "certs.d", "are not a certificate with its key in PEM")
