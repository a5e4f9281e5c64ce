"""Whatever a registry answers, there is a verdict and no secret in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crio_credential_provider import registryclient
from crio_credential_provider.images.dockerconfig import Credential
from crio_credential_provider.registryclient import probe_manifest
from crio_credential_provider.testbed.loopback import Answer
from odd_registries import IDENTITY_TOKEN, NGINX, PASSWORD, TOKEN, Simulated
from verdicts import GOOD, WRONG

pytestmark = pytest.mark.usefixtures("no_surroundings")


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


@settings(
    max_examples=settings().max_examples, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
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
