"""The kubelet's protocol: recorded requests, the grammar of answers, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from crio_credential_provider.errors import RequestError
from crio_credential_provider.kubernetes import credentialprovider
from crio_credential_provider.kubernetes.credentialprovider import Request
from node import recorded_request, request


def test_recorded_requests() -> None:
    found = credentialprovider.loads(recorded_request("request-with-annotations"))
    assert (found.image, found.annotations) == (
        "docker.io/library/nginx",
        {"example.org/mirror-secrets": "mirror-creds"},
    )
    assert found.token.count(".") == 2
    found = credentialprovider.loads(recorded_request("request-service-account"))
    assert (found.image, found.annotations, bool(found.token)) == ("docker.io/library/redis", {}, True)
    found = credentialprovider.loads(recorded_request("request-static-pod"))
    assert found == Request("docker.io/library/busybox")


def test_unknown_members_are_left_alone() -> None:
    """A later kubelet may send more; v1 only grows."""
    assert credentialprovider.loads(request(more={"a": 1})) == Request("docker.io/library/nginx")


@pytest.mark.parametrize("member", ["serviceAccountToken", "serviceAccountAnnotations"])
def test_null_is_as_good_as_absent(member: str) -> None:
    assert credentialprovider.loads(request(**dict[str, Any]({member: None}))) == Request("docker.io/library/nginx")


def test_the_token_is_not_shown() -> None:
    assert "canary" not in repr(Request("a", "canary"))


@pytest.mark.parametrize("kind", ["x" * 81, "a.b.c" * 100, {"canary": 1}, ["canary"], 7, True])
def test_what_might_be_a_token_is_not_quoted(kind: Any) -> None:
    for member in ("kind", "apiVersion"):
        with pytest.raises(RequestError) as caught:
            credentialprovider.loads(request(**{member: kind}))
        assert str(kind) not in str(caught.value)


# -- answers ----------------------------------------------------------------------------------------------------------


def test_an_answer_without_credentials() -> None:
    assert credentialprovider.dumps() == (
        b'{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1",'
        b'"cacheKeyType":"Image","cacheDuration":"0s"}\n'
    )


@pytest.mark.parametrize("image", ["docker.io/library/nginx", 'quote"d', "é", "a\nb"])
def test_an_answer_with_the_pull_record(image: str) -> None:
    data = credentialprovider.dumps(credentialprovider.pull_record(image))
    assert data.endswith(b"\n") and data.count(b"\n") == 1
    assert json.loads(data) == {
        "kind": "CredentialProviderResponse",
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "cacheKeyType": "Image",
        "cacheDuration": "0s",
        "auth": {image: {"username": "", "password": ""}},
    }


@pytest.mark.parametrize("auth", [{}, {"docker.io/library/nginx": ("user", "password")}])
def test_the_kubelet_decodes_the_answer_strictly(auth: dict[str, tuple[str, str]]) -> None:
    """Its types (kubelet/pkg/apis/credentialprovider/v1): an unknown member or another type is an error there."""
    answer = json.loads(credentialprovider.dumps(auth))
    known = {"kind": str, "apiVersion": str, "cacheKeyType": str, "cacheDuration": str, "auth": dict}
    assert all(isinstance(value, known[name]) for name, value in answer.items())
    assert answer["cacheKeyType"] in ("Image", "Registry", "Global")
