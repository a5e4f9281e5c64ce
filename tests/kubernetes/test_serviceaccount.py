"""Claims of tokens: recorded ones, and every name that must not become a path or a URL."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crio_credential_provider.errors import RequestError
from crio_credential_provider.kubernetes import serviceaccount
from crio_credential_provider.kubernetes.names import is_label, is_subdomain
from crio_credential_provider.kubernetes.serviceaccount import ServiceAccount
from node import bound_claims, jwt, recorded_request


def recorded_token(name: str) -> str:
    return str(json.loads(recorded_request(name))["serviceAccountToken"])


def test_recorded_tokens() -> None:
    assert serviceaccount.loads(recorded_token("request-with-annotations")) == ServiceAccount(
        "team-alpha",
        "default",
        "rec1",
        "a0ef58b4-4dbe-483e-a641-20c44839bf73",
        ("https://kubernetes.default.svc",),
        1795361167,
    )
    found = serviceaccount.loads(recorded_token("request-service-account"))
    assert (found.namespace, found.name, found.pod) == ("team-gamma", "default", "g1")


def test_a_token_without_a_pod() -> None:
    found = serviceaccount.loads(jwt(bound_claims(pod=None)))
    assert (found.namespace, found.name, found.pod, found.pod_uid) == ("team-alpha", "default", "", "")


@pytest.mark.parametrize(
    ("audience", "expected"),
    [("one", ("one",)), (["one", "two"], ("one", "two")), ([], ()), ([7, "one", None], ("one",)), (7, ()), (None, ())],
)
def test_audiences(audience: Any, expected: tuple[str, ...]) -> None:
    assert serviceaccount.loads(jwt({**bound_claims(), "aud": audience})).audiences == expected


@pytest.mark.parametrize(("expires", "expected"), [(5, 5), (5.5, 5.5), ("5", 0), (None, 0), ([], 0)])
def test_expiry(expires: Any, expected: float) -> None:
    assert serviceaccount.loads(jwt({**bound_claims(), "exp": expires})).expires == expected


@pytest.mark.parametrize("name", ["a", "0", "a-b", "a" * 63, "1-2"])
def test_labels(name: str) -> None:
    assert is_label(name) and is_subdomain(name)


@pytest.mark.parametrize(
    "name",
    ["", "a" * 64, "A", "-a", "a-", "a.b", "a_b", "..", "../../etc", "a/b", "a\n", "\na", "a b", "é", "a\0", "%2e"],
)
def test_what_is_no_label(name: str) -> None:
    assert not is_label(name)


@pytest.mark.parametrize("name", ["a.b", "a" * 253, "web-7c5ddbdf54-x2x9z", "1.2.3.4"])
def test_subdomains(name: str) -> None:
    assert is_subdomain(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a..b", ".a", "a.", "a" * 254, "a/b", "a.B", "a\n"])
def test_what_is_no_subdomain(name: str) -> None:
    assert not is_subdomain(name)


@given(st.text())
def test_no_name_leaves_its_directory_or_its_url(name: str) -> None:
    """Whatever passes consists of characters that mean nothing to a path, a URL or an HTTP header."""
    if is_subdomain(name):
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")
        assert name not in (".", "..") and "//" not in f"/{name}/"


TOKEN = jwt(bound_claims())


@pytest.mark.parametrize("position", range(3))
@pytest.mark.parametrize("character", ["\r\n", "\n", " ", "\0", "é", "+", "/", "=", "%", ","])
def test_a_token_of_other_letters_is_none(position: int, character: str) -> None:
    """It becomes part of an HTTP header: a line break in any of its parts would begin another one."""
    parts = TOKEN.split(".")
    for broken in (parts[position] + character, character + parts[position]):
        token = ".".join([*parts[:position], broken, *parts[position + 1 :]])
        with pytest.raises(RequestError, match="is not a JWT"):
            serviceaccount.loads(token)


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_any_text_is_a_token_or_a_request_error(text: str) -> None:
    for token in (text, f"a.{text}.b", jwt(text)):
        with pytest.raises(RequestError):
            serviceaccount.loads(token)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["name", "namespace", "uid"]) | st.text(), inner),
    max_leaves=10,
)


@given(JSON, JSON, JSON, JSON)
def test_any_claims_are_an_account_or_a_request_error(bound: Any, pod: Any, account: Any, audience: Any) -> None:
    claims = {"kubernetes.io": bound, "aud": audience, "exp": pod}
    if isinstance(bound, dict):
        bound |= {"pod": pod, "serviceaccount": account}
    try:
        found = serviceaccount.loads(jwt(claims))
    except RequestError as error:
        assert len(str(error)) < 400
    else:
        assert is_label(found.namespace) and is_subdomain(found.name)


@pytest.mark.parametrize("exp", ["Infinity", "NaN", "1e999", "9" * 5000])
def test_numbers_that_json_should_not_have(exp: str) -> None:
    import base64

    payload = json.dumps(bound_claims()).replace('"kubernetes.io"', f'"exp2": {exp}, "exp": {exp}, "kubernetes.io"')
    token = f"a.{base64.urlsafe_b64encode(payload.encode()).decode().rstrip('=')}.b"
    try:
        assert serviceaccount.loads(token).namespace == "team-alpha"
    except RequestError as error:
        assert "is not a JWT" in str(error)
