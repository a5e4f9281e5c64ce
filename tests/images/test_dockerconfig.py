"""What the vectors do not ask of docker configs: what else is read and written, and that errors quote nothing."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crio_credential_provider.errors import ConfigError
from crio_credential_provider.images import dockerconfig
from crio_credential_provider.images.dockerconfig import AuthEntry, Credential, Found, find_credential
from crio_credential_provider.testbed.crio import find_login

FILE = ["containers-auth.json"]
CANARY = "canary-5f2d"


def basic(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


# -- reading ----------------------------------------------------------------------------------------------------------


def test_the_members_that_count_are_read_whatever_their_case() -> None:
    for spelling in (str.lower, str.upper, str.title, lambda name: name.replace("s", "\u017f")):
        names = {
            name: spelling(name) for name in ("auths", "auth", "identitytoken", "username", "password", "credhelpers")
        }
        members = {names[name]: name for name in ("auth", "identitytoken", "username", "password")}
        document = {names["auths"]: {"Host": members}, names["credhelpers"]: {"h": "ecr"}}
        config = dockerconfig.loads(json.dumps(document).encode())
        assert config.auths == {"Host": AuthEntry("auth", "identitytoken", "username", "password")}
        assert config.cred_helpers == {"h": "ecr"}


def test_repeated_members_add_up_and_null_takes_back() -> None:
    data = (
        b'{"auths": {"a": {"auth": "1"}, "b": {"auth": "2"}}, "auths": {"b": {"auth": "3"}}, "credHelpers": {"a": "x"}}'
    )
    config = dockerconfig.loads(data)
    assert {key: entry.auth for key, entry in config.auths.items()} == {"a": "1", "b": "3"}
    assert dockerconfig.loads(data[:-1] + b', "auths": null, "credHelpers": null}') == dockerconfig.DockerConfig({}, {})


def test_a_dockercfg_is_the_map_alone() -> None:
    config = dockerconfig.loads_dockercfg(b'{"h": {"auth": "dTpw"}, "auths": {}}')
    assert list(config.auths) == ["h", "auths"]
    with pytest.raises(ConfigError):
        dockerconfig.loads_dockercfg(b'{"h": []}')


def test_numbers_and_wrong_types_count_only_where_they_are_read() -> None:
    entry: dict[str, Any] = {"auth": "dTpw", "email": 10**400, "username": 1, "password": [], "x": {"auth": 1}}
    config = dockerconfig.loads(json.dumps({"auths": {"h": entry}, "HttpHeaders": [1]}).encode())
    assert config.auths == {"h": AuthEntry("dTpw", "", "", "", mistyped=True)}


@pytest.mark.parametrize(
    "data",
    [
        b'{"auths": {"CANARY": {"auth": 5}}}',
        b'{"auths": {"CANARY": "CANARY"}}',
        b'{"auths": {"h": {"auth": {"CANARY": 1}}}}',
        b'{"auths": {"h": {"identitytoken": ["CANARY"]}}}',
        b'{"auths": ["CANARY"]}',
        b'{"credHelpers": {"CANARY": 1}}',
        b'{"credHelpers": "CANARY"}',
        b'{"CANARY": NaN}',
        b'{"CANARY": CANARY}',
        b'"CANARY"',
        b"CANARY",
        b'{"CANARY',
        b'{"CANARY": "\n"}',
    ],
)
def test_no_error_quotes_the_file(data: bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        dockerconfig.loads(data.replace(b"CANARY", CANARY.encode()))
    assert CANARY not in str(caught.value)
    # Nor does a traceback: the decoder's own error holds the whole document.
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert caught.value.rule == "json"


def test_no_repr_shows_a_secret() -> None:
    config = dockerconfig.loads(json.dumps({"auths": {"h": dict.fromkeys(AuthEntry.__slots__, CANARY)}}).encode())
    found = Found(Credential(CANARY.encode(), CANARY.encode(), CANARY), "h")
    assert CANARY not in repr(config) + repr(found)


# -- base64 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "dTpw", "dTpwdw==", "dTpwdzE=", "dT\npw", "\r\ndTpw\r\n", "dTpwdw=\n=", "dTpwdx=="]
)
def test_base64_that_go_takes(text: str) -> None:
    dockerconfig.decode_base64(text)


@pytest.mark.parametrize(
    "text",
    [
        *("d", "dT", "dTp", "dTpwd", "dTpwdw", "dTpwdw=", "dTpwdw===", "dTpw=", "dTpw=="),
        *("dTpw====", "=", "==", "===="),
        *("dTpw=dTp", "dTpw=dTpwdTp", "dT==dTpw", "dTp=dTpw", "d T p w ", "dTpw "),
        *("dTp-", "dTp_", "dTp\u00e9", "dTp\x00", "dTp\t"),
    ],
)
def test_base64_that_go_refuses(text: str) -> None:
    with pytest.raises(ValueError):
        dockerconfig.decode_base64(text)


@given(st.binary(max_size=40), st.lists(st.sampled_from("\r\n"), max_size=3))
def test_base64_is_read_back(data: bytes, breaks: list[str]) -> None:
    text = base64.b64encode(data).decode()
    for position, character in enumerate(breaks):
        text = text[: position * 5] + character + text[position * 5 :]
    assert dockerconfig.decode_base64(text) == data


# -- writing ----------------------------------------------------------------------------------------------------------

names = st.binary(max_size=20).map(lambda name: name.replace(b":", b""))
passwords = st.binary(max_size=20).map(lambda password: password.strip(b"\0"))
tokens = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
credentials = st.builds(Credential, names, passwords, tokens).filter(bool)
KEYS = ["h.corp/a/b", "h.corp/a", "h.corp", "h.corp:5000/a/b", "docker.io/library/nginx"]


@given(st.dictionaries(st.sampled_from(KEYS), credentials, min_size=1))
def test_crio_finds_what_was_written_under_each_key(written: dict[str, Credential]) -> None:
    data = dockerconfig.dumps(written, {})
    for key, credential in written.items():
        assert find_login(data, key, FILE) == Found(credential, key)


def test_the_file_keeps_the_order_and_the_helpers_given() -> None:
    written = {key: Credential(b"u", b"p") for key in reversed(KEYS)}
    document = json.loads(dockerconfig.dumps(written, {"h": "ecr"}))
    assert list(document["auths"]) == KEYS[::-1]
    assert document["credHelpers"] == {"h": "ecr"}
    assert "credHelpers" not in json.loads(dockerconfig.dumps(written, {}))
    assert "identitytoken" not in document["auths"][KEYS[0]]


# -- look-up ----------------------------------------------------------------------------------------------------------


def test_keys_of_a_repository() -> None:
    assert list(dockerconfig.repository_keys("h:5/a/b")) == ["h:5/a/b", "h:5/a", "h:5"]


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("h", "h"),
        ("http://h/v1/", "h"),
        ("https://h:5/x/y", "h:5"),
        ("http://https://h/v1", "h"),
        ("h/v1/", "h/v1/"),
        ("h/", "h/"),
        ("HTTPS://h", "HTTPS://h"),
        ("docker.io", "index.docker.io"),
        ("https://registry-1.docker.io/v2/", "index.docker.io"),
        ("docker.io/library", "docker.io/library"),
    ],
)
def test_the_host_that_a_key_counts_for(key: str, host: str) -> None:
    assert dockerconfig.normalized_host(key) == host


def test_helpers_are_asked_in_order_and_their_errors_surface_last() -> None:
    data = dockerconfig.dumps({"h.corp": Credential(b"u", b"p")}, {})
    assert find_login(data, "h.corp/a", ["ecr", *FILE]) == Found(Credential(b"u", b"p"), "h.corp")
    with pytest.raises(ConfigError, match="docker-credential-ecr"):
        find_login(data, "other.corp/a", ["ecr", *FILE])
    with pytest.raises(ConfigError, match="docker-credential-ecr"):
        find_login(data, "h.corp/a", ["ecr"])
    assert find_login(None, "h.corp/a", FILE) is None


def test_a_bad_entry_matters_only_where_it_is_picked() -> None:
    config = dockerconfig.loads(json.dumps({"auths": {"h/bad": {"auth": "%"}, "h": {"auth": basic("u:p")}}}).encode())
    assert find_credential(config, "h/good") == Found(Credential(b"u", b"p"), "h")
    with pytest.raises(ConfigError, match="'h/bad' is not base64") as caught:
        find_credential(config, "h/bad/deeper")
    assert caught.value.rule == "base64"


# -- keys as they are told --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        *("mirror.corp", "mirror.corp:5000", "mirror.corp:5000/hub/library/nginx", "https://index.docker.io/v1/"),
        *("*.corp.example", "*.corp.example:5000/hub", "HTTPS://mirror.corp/", "docker://mirror.corp", "harbor", ""),
    ],
)
def test_a_key_that_is_one_is_shown_whole(key: str) -> None:
    assert dockerconfig.shown_key(key) == key


@pytest.mark.parametrize(
    "key",
    [
        *(
            "CANARY@mirror.corp",
            "u:CANARY@mirror.corp/hub",
            "https://u:CANARY@mirror.corp/a://b",
            "u:CANARY",
            "CANARY:",
        ),
        *("https://mirror.corp/u:CANARY@x", "https://mirror.corp/?p=CANARY", "https://mirror.corp?p=CANARY"),
        *("mirror.corp#CANARY", "mirror.corp:CANARY", "mirror.corp:CANARY/x@mirror.corp", "mirror.corp:5000@CANARY"),
        *(
            "CANARY://mirror.corp",
            "mirror.corp/a://CANARY",
            "https://https://u:CANARY@mirror.corp",
            "//u:CANARY@m.corp",
        ),
        *("u:p@CANARY@mirror.corp", "u:p/CANARY@mirror.corp", "https://CANARY/x@mirror.corp", "u:1/CANARY@mirror.corp"),
        *("https://CANARY:1/x@mirror.corp", "mirror.corp\nCANARY", "mirror.corp CANARY", "mirror.corp:5000:CANARY"),
        *("[CANARY]:5000", "mirror.corp/hub:CANARY", "mirror.corp/hub@CANARY", "mirror.corp/CANARY", "CANARY!"),
    ],
)
def test_what_may_be_a_password_in_a_key_is_not_shown(key: str) -> None:
    assert "CANARY" not in dockerconfig.shown_key(key)


def test_a_long_key_is_not_shown_whole() -> None:
    for key in ("a" * 600_000, "mirror.corp/" + "a" * 600_000, "*" * 600_000, "mirror.corp:" + "5" * 600_000):
        assert len(dockerconfig.shown_key(key)) < 300
