"""Which entry of which secret a pull source gets, and what is said about the others."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crio_credential_provider.images import dockerconfig
from crio_credential_provider.images.dockerconfig import Credential, DockerConfig
from crio_credential_provider.kubernetes.pullsecrets import PullSecret
from crio_credential_provider.pull import keyring
from crio_credential_provider.pull.keyring import Keyring, Selection, matches_host
from crio_credential_provider.runtimes.pullsource import PullSource

NOTHING = DockerConfig({}, {})


def entry(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


def secret(name: str, auths: dict[str, Any]) -> PullSecret:
    return PullSecret(name, dockerconfig.loads(json.dumps({"auths": auths}).encode()))


def source(name: str, blocked: bool = False) -> PullSource:
    return PullSource(f"{name}:latest", name, "", False, False, blocked, ("tag", "digest"))


def select(
    names: list[str],
    secrets: list[PullSecret],
    config: DockerConfig = NOTHING,
    may_use: Callable[[PullSource], bool] = lambda source: True,
) -> Selection:
    return keyring.select([source(name) for name in names], secrets, config, may_use)


def order(auths: list[str], repository: str) -> list[str]:
    """The keys that count for a repository, best first."""
    secrets = [secret(f"s{number}", {key: entry("u:p")}) for number, key in enumerate(auths)]
    return [candidate.key for candidate in Keyring(secrets).candidates(repository)]


def test_keys_in_the_order_of_their_weight() -> None:
    expected = [
        "h.corp/a/b",
        "h.corp/a",
        "h.corp",
        "https://h.corp/a/b",
        "https://h.corp/v2/a",
        "https://h.corp/v1/",
        "http://h.corp",
        "https://h.corp/other",
        "*.corp/a/b",
        "h.*/a",
        "*.corp",
    ]
    strangers = [
        "h.corp/other",
        "h.corp/a/b/c",
        "h.cor",
        "h.corp.evil",
        "*.evil",
        "*.corp/other",
        "h.corp:5000",
        "",
        "h.corp/v1",
    ]
    assert order(expected, "h.corp/a/b") == expected
    assert order([*strangers, *expected[::-1]], "h.corp/a/b") == [
        # CRI-O counts every URL of the host, in no defined order: of the same path, the earlier secret's.
        *expected[:5],
        "http://h.corp",
        "https://h.corp/v1/",
        *expected[7:],
    ]


@pytest.mark.parametrize(
    ("pattern", "host", "fits"),
    [
        ("*.corp", "a.corp", True),
        ("*.corp", "a.b.corp", False),
        ("*.corp", "corp", False),
        ("*.corp", ".corp", True),
        ("*", "localhost", True),
        ("*", "a.corp", False),
        ("a*.corp", "abc.corp", True),
        ("a*.corp", "bac.corp", False),
        ("*b.corp", "ab.corp", True),
        ("*b.corp", "ba.corp", False),
        ("a*b*c.corp", "axxbxxc.corp", True),
        ("a*b*c.corp", "axxcxxb.corp", False),
        ("ab*ba.corp", "aba.corp", False),
        ("*.corp", "a.corp:5000", False),
        ("*.corp:5000", "a.corp:5000", True),
        ("*.corp:5000", "a.corp", False),
        ("*.corp:*", "a.corp:5000", False),
        ("*.CORP", "a.corp", False),
        ("[ab].corp", "a.corp", False),
        ("?.corp", "a.corp", False),
    ],
)
def test_globs(pattern: str, host: str, fits: bool) -> None:
    assert matches_host(pattern, host) is fits


@given(st.lists(st.sampled_from(["a", "b", "*"]), max_size=6), st.text("ab", max_size=8))
def test_a_glob_label_means_what_a_regular_expression_would(pattern: list[str], label: str) -> None:
    import re

    expression = "".join(".*" if piece == "*" else piece for piece in pattern)
    assert keyring._matches_label("".join(pattern), label) == bool(re.fullmatch(expression, label))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("u:p", []),
        ("u:p w", []),
        ("u:", ["the password is empty"]),
        (":p", ["the user name is empty"]),
        ("u:pw\n", ["the password ends with a newline, which echo adds and printf does not"]),
        (
            "u\r\n:pw\r\n",
            [
                "the user name ends with a newline, which echo adds and printf does not",
                "the password ends with a newline, which echo adds and printf does not",
            ],
        ),
        ("u: pw", ["the password has leading or trailing spaces"]),
        ("\ufeffu:p", ["the user name begins with a byte order mark"]),
        (
            "u\0:\0p\0w\0",
            [f"the {part} has NUL bytes, like UTF-16 text" for part in ("user name", "password")],
        ),
    ],
)
def test_what_a_password_hardly_was_meant_to_be_is_used_and_told(text: str, told: list[str]) -> None:
    (candidate,) = Keyring([secret("s", {"h": entry(text)})]).candidates("h/a")
    assert candidate.credential is not None
    # CRI-O strips NULs from a password's ends, whatever the file holds.
    username, _, password = text.encode().partition(b":")
    assert (candidate.credential.username, candidate.credential.password) == (username, password.strip(b"\0"))
    assert keyring.oddities(candidate.credential) == told


def test_a_password_that_is_not_utf8_is_told() -> None:
    (latin,) = Keyring([secret("s", {"h": {"auth": base64.b64encode(b"u:caf\xe9").decode()}})]).candidates("h/a")
    assert latin.credential is not None and latin.credential.password == b"caf\xe9"
    assert keyring.oddities(latin.credential) == [
        "the password is not UTF-8, as registries expect: it is Latin-1 or binary"
    ]
    config = dockerconfig.loads(b'{"auths": {"h": {"username": "u", "password": "caf\xe9"}}}')
    (candidate,) = Keyring([PullSecret("s", config)]).candidates("h/a")
    assert candidate.credential is not None
    assert keyring.oddities(candidate.credential) == [
        "the password has U+FFFD, the replacement for something in the secret that was not UTF-8"
    ]


def test_an_empty_entry_beside_credsstore_is_told_as_such() -> None:
    config = dockerconfig.loads(b'{"auths": {"h": {}}, "credsStore": "kanarienvogel"}')
    (candidate,) = Keyring([PullSecret("s", config)]).candidates("h/a")
    assert candidate.flaw == (
        "has no credential: it has a credsStore: docker login kept the password on the machine where it ran"
    )


@pytest.mark.parametrize(
    ("found", "credential", "flaw"),
    [
        ({"username": "u", "password": "p"}, Credential(b"u", b"p"), ""),
        ({**entry("a:b"), "username": "u", "password": "p"}, Credential(b"a", b"b"), ""),
        # The kubelet takes no secret with an auth that it cannot read, whatever stands beside it.
        ({"auth": "%", "username": "u", "password": "p"}, None, "has an auth that is not base64"),
        ({**entry("no colon"), "username": "u", "password": "p"}, None, "has an auth that is not USER:PASSWORD"),
        ({"identitytoken": "t"}, Credential(b"", b"", "t"), ""),
        ({"auth": "%", "identitytoken": "t"}, None, "has an auth that is not base64"),
        (
            {"username": "u", "password": 5},
            None,
            "has a user name or password that is not a string: the quotes are missing",
        ),
        ({**entry("u:p"), "username": 5}, Credential(b"u", b"p"), ""),
        ({"auth": "c3ZjOnBhc3MxMg"}, Credential(b"svc", b"pass12"), ""),
        ({"auth": "dTpw\n"}, Credential(b"u", b"p"), ""),
        ({"auth": "c3ZjOnBh\r\nc3MxMg"}, Credential(b"svc", b"pass12"), ""),
        (entry("u:pw\n"), Credential(b"u", b"pw\n"), ""),
        (entry("u:p:q"), Credential(b"u", b"p:q"), ""),
        (entry("u:\0p\0"), Credential(b"u", b"p"), ""),
        (entry(":p"), Credential(b"", b"p"), ""),
        (entry("u:"), Credential(b"u", b""), ""),
        ({}, None, "has no credential"),
        (entry(":"), None, "has no credential"),
        (entry(":\0"), None, "has no credential"),
        (entry("no colon"), None, "has an auth that is not USER:PASSWORD"),
        ({"auth": "%%%%"}, None, "has an auth that is not base64"),
        ({"auth": "dTpwd"}, None, "has an auth that is not base64"),
        ({"auth": "dTpwdw==" + " "}, None, "has an auth that is not base64"),
        ({"auth": "user:pass"}, None, "has an auth that is not base64, but plain text"),
        (
            {"auth": "c3ZjOsO_w74_Pn5-fsO_"},
            None,
            "has an auth that is not base64 as the kubelet and CRI-O read it: - and _ belong to the URL-safe alphabet",
        ),
        ({"auth": "ZFRwdw=="}, None, "has an auth that is not USER:PASSWORD, but base64 of it: it was encoded twice"),
    ],
)
def test_the_credential_of_an_entry(found: dict[str, Any], credential: Credential | None, flaw: str) -> None:
    (candidate,) = Keyring([secret("s", {"h": found})]).candidates("h/a")
    assert (candidate.credential, candidate.flaw) == (credential, flaw)


def test_the_winner_and_the_losers_are_told() -> None:
    secrets = [
        secret("hollow", {"h/a": {}}),
        secret("broken", {"h/a": {"auth": "%"}}),
        secret("good", {"h": entry("u:p")}),
        secret("late", {"h": entry("x:y")}),
    ]
    selection = select(["h/a", "h/a/b", "other/a"], secrets)
    assert [(choice.source.name, choice.secret, choice.key) for choice in selection.choices] == [
        ("h/a", "good", "h"),
        ("h/a/b", "good", "h"),
    ]
    # Once, though they were in the way twice.
    assert [f"{skipped.secret} {skipped.reason}" for skipped in selection.flawed] == [
        "hollow its entry 'h/a' has no credential",
        "broken its entry 'h/a' has an auth that is not base64",
    ]
    assert [(unserved.source.name, unserved.reason) for unserved in selection.unserved] == [
        ("other/a", "no secret has a credential for it, and the global auth file has none")
    ]
    assert selection.from_namespace


def test_what_a_source_may_not_use_is_not_even_told() -> None:
    config = dockerconfig.loads(json.dumps({"auths": {"h": entry("node:pw")}}).encode())
    secrets = [secret("s", {"h/a": {}, "h": entry("u:p")})]
    selection = select(["h/a"], secrets, config, lambda source: False)
    assert [(choice.secret, choice.credential.username) for choice in selection.choices] == [("", b"node")]
    assert not selection.flawed and not selection.from_namespace


def test_a_blocked_source_gets_nothing_from_anywhere() -> None:
    config = dockerconfig.loads(json.dumps({"auths": {"h": entry("node:pw")}}).encode())
    selection = keyring.select(
        [source("h/a", blocked=True)], [secret("s", {"h": entry("u:p")})], config, lambda s: True
    )
    assert not selection.choices
    assert "blocked" in selection.unserved[0].reason


def test_a_helper_stays_responsible_only_where_no_secret_serves_its_host() -> None:
    config = DockerConfig({}, {"a.corp": "ecr", "b.corp": "gcr", "c.corp": "acr"})
    selection = select(["a.corp/x", "a.corp/y", "b.corp/x"], [secret("s", {"a.corp/x": entry("u:p")})], config)
    # CRI-O would ask the helper of a.corp for x as well, and nothing else: the secret's credential would be lost.
    assert selection.cred_helpers == {"b.corp": "gcr"}
    assert [choice.source.name for choice in selection.choices] == ["a.corp/x"]


hosts = st.sampled_from(["h.corp", "h.corp:5000", "docker.io", "index.docker.io", "registry-1.docker.io"])
paths = st.sampled_from(["", "/", "/a", "/a/b", "/v1/", "/v2/a"])
keys = st.builds("{}{}{}".format, st.sampled_from(["", "http://", "https://"]), hosts, paths)


@given(st.lists(keys, unique=True, max_size=5), st.sampled_from(["h.corp/a/b", "h.corp:5000/a", "docker.io/a/b"]))
def test_where_crio_finds_a_credential_in_one_secret_so_do_we(auths: list[str], repository: str) -> None:
    one = secret("s", {key: entry(f"u:{key}") for key in auths})
    ours = [choice.credential for choice in select([repository], [one]).choices]
    found = dockerconfig.find_credential(one.config, repository)
    if found is None:
        # Only keys that end in a slash, which kubelets take, count for us alone.
        assert not ours or any(key.endswith("/") for key in auths)
        return
    # Of several URLs of one host CRI-O takes any.
    exact = found.key in set(dockerconfig.repository_keys(repository))
    same_host = {key for key in auths if dockerconfig.normalized_host(key) == dockerconfig.normalized_host(found.key)}
    allowed = {found.key} if exact else {*same_host, *(key for key in auths if key.endswith("/"))}
    assert ours[0].password.decode() in allowed
