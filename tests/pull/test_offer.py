"""What the kubelet is answered on a node with containerd: a credential only where nobody else can be shown it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from crio_credential_provider import settings
from crio_credential_provider.errors import ConfigError
from crio_credential_provider.kubernetes import credentialprovider, imagepatterns
from crio_credential_provider.pull import audit, decision, offer
from crio_credential_provider.pull.resolution import (
    EXPOSED,
    NO_CREDENTIAL,
    NO_MIRROR,
    NO_TOKEN,
    NOT_COVERED,
    Resolution,
)
from node import NGINX, write
from pulls import TOKEN, Cluster, login, raw_secret, secret

USER = login("alpha", "hunter2")
OTHER = login("beta", "hunter3")

PUSHES = 'server = "https://registry-1.docker.io"\ncapabilities = ["push"]\n'
CLOSED = 'server = "https://mirror.corp:5000"\n'
"""The mirror in place of the upstream registry."""
MIRROR = '[host."https://mirror.corp:5000"]\n'
SECOND = '[host."https://second.corp"]\n'

ALLOWED = "--allow-fallback-exposure"


class Node:
    """Files of a node with containerd, and the secrets of a namespace."""

    def __init__(self, root: Path, hosts: str | None, *items: dict[str, Any], config: str | None = None) -> None:
        self.root = root
        self.cluster = Cluster(items)
        conf = (
            config
            if config is not None
            else (
                'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "/etc/containerd/certs.d"\n'
            )
        )
        write(root, "etc/containerd/config.toml", conf.encode())
        if hosts is not None:
            write(root, "etc/containerd/certs.d/docker.io/hosts.toml", hosts.encode())

    def pull(self, *flags: str, image: str = NGINX, token: str = TOKEN) -> Resolution:
        given = settings.loads([f"--root={self.root}", "--runtime=containerd", *flags], {})
        return decision.resolve(credentialprovider.Request(image, token), given, lambda: self.cluster)


def answered(resolution: Resolution) -> dict[str, tuple[str, str]]:
    """Key -> user name and password, as the plugin writes them."""
    return {offered.key: offer.text(offered.choice.credential) for offered in resolution.offers}


def shown_to(resolution: Resolution) -> list[str]:
    return audit.exposed(resolution)


# -- strict -----------------------------------------------------------------------------------------------------------


def test_a_mirror_that_alone_is_asked_gets_its_credential(tmp_path: Path) -> None:
    made = Node(tmp_path, CLOSED + MIRROR, secret("creds", {"mirror.corp:5000": USER})).pull()
    assert answered(made) == {NGINX: ("alpha", "hunter2")}
    assert (made.auth_file, made.code, made.exposures) == (None, "", ())


def test_a_server_that_is_the_mirror_leaves_nobody_else(tmp_path: Path) -> None:
    hosts = f'server = "https://mirror.corp:5000"\n{MIRROR}'
    made = Node(tmp_path, hosts, secret("creds", {"mirror.corp:5000": USER})).pull()
    assert answered(made) == {NGINX: ("alpha", "hunter2")}


@pytest.mark.parametrize("head", ["", 'server = "https://registry-1.docker.io"\n', 'capabilities = ["push"]\n', PUSHES])
def test_a_mirror_before_the_upstream_is_refused(head: str, tmp_path: Path) -> None:
    made = Node(tmp_path, head + MIRROR, secret("creds", {"mirror.corp:5000": USER})).pull()
    assert (made.offers, made.code, shown_to(made)) == ((), EXPOSED, ["docker.io"])
    assert made.reason == (
        "containerd would show the credential of secret creds for mirror.corp:5000/library/nginx to "
        "https://registry-1.docker.io/v2 as well"
    )
    assert made.hint == (
        f"at the top of {tmp_path}/etc/containerd/certs.d/docker.io/hosts.toml write "
        'server = "https://mirror.corp:5000/v2", so that containerd asks no other host; '
        "or allow it with --allow-fallback-exposure"
    )


@pytest.mark.parametrize(
    "mirror", [MIRROR, '[host."https://mirror.corp:5000/v2/hub"]\noverride_path = true\n'], ids=["path", "override"]
)
def test_what_the_hint_says_is_enough(mirror: str, tmp_path: Path) -> None:
    node = Node(tmp_path, mirror, secret("creds", {"mirror.corp:5000": USER}))
    head = node.pull().hint.partition(" write ")[2].partition(", so that")[0].replace(" and ", "\n")
    write(tmp_path, "etc/containerd/certs.d/docker.io/hosts.toml", f"{head}\n{mirror}".encode())
    assert answered(node.pull()) == {NGINX: ("alpha", "hunter2")}


def test_one_credential_for_every_host_is_nobody_elses(tmp_path: Path) -> None:
    auths = {"mirror.corp:5000": USER, "second.corp": USER, "docker.io": USER}
    made = Node(tmp_path, MIRROR + SECOND, secret("creds", auths)).pull()
    assert answered(made) == {NGINX: ("alpha", "hunter2")}
    made = Node(tmp_path, MIRROR + SECOND, secret("creds", {**auths, "docker.io": OTHER})).pull()
    assert (made.code, made.offers) == (EXPOSED, ())


@pytest.mark.parametrize("doubt", ["x = 1__0\n", "[server]\n", "x = \n"])
def test_a_file_that_releases_read_as_they_like_gets_none(doubt: str, tmp_path: Path) -> None:
    """Which hosts containerd finds in it nobody can tell: some of its parsers take what is not TOML."""
    hosts = MIRROR + SECOND + doubt
    node = Node(tmp_path, hosts, secret("creds", {"mirror.corp:5000": USER, "second.corp": USER, "docker.io": USER}))
    file = f"{tmp_path}/etc/containerd/certs.d/docker.io/hosts.toml"
    with pytest.raises(ConfigError, match="which hosts containerd asks cannot be told") as caught:
        node.pull()
    assert (caught.value.message.startswith(file), caught.value.hint) == (True, f"correct {file}")
    assert answered(node.pull(ALLOWED)) == {NGINX: ("alpha", "hunter2")}


@pytest.mark.parametrize("auths", [{"mirror.corp:5000": USER}, {"second.corp": USER}])
def test_a_host_without_a_credential_of_its_own_is_another_host(auths: dict[str, Any], tmp_path: Path) -> None:
    made = Node(tmp_path, CLOSED + MIRROR + SECOND, secret("creds", auths)).pull()
    assert (made.code, made.offers) == (EXPOSED, ())
    assert made.hint.startswith("containerd takes one credential for a pull: leave one [host] in ")


@pytest.mark.parametrize("capability", ["pull", "resolve", "push"])
def test_a_host_of_any_capability_is_another_host(capability: str, tmp_path: Path) -> None:
    """containerd asks each for the layers that the mirror does not deliver."""
    hosts = f'{CLOSED}{MIRROR}{SECOND}capabilities = ["{capability}"]\n'
    made = Node(tmp_path, hosts, secret("creds", {"mirror.corp:5000": USER})).pull()
    assert made.code == EXPOSED


def test_the_project_of_a_mirror_is_part_of_the_key(tmp_path: Path) -> None:
    harbor = "https://harbor.corp/v2/hub"
    hosts = f'server = "{harbor}"\noverride_path = true\n[host."{harbor}"]\noverride_path = true\n'
    secrets = secret("creds", {"harbor.corp/hub": USER, "harbor.corp/other": OTHER})
    assert answered(Node(tmp_path, hosts, secrets).pull()) == {NGINX: ("alpha", "hunter2")}


# -- allowed ----------------------------------------------------------------------------------------------------------


def test_an_operator_may_allow_it(tmp_path: Path) -> None:
    made = Node(tmp_path, MIRROR, secret("creds", {"mirror.corp:5000": USER})).pull(ALLOWED)
    assert answered(made) == {NGINX: ("alpha", "hunter2")}
    assert shown_to(made) == ["docker.io"]


def test_several_credentials_are_tried_in_the_order_of_the_hosts(tmp_path: Path) -> None:
    auths = {
        "docker.io": login("hub", "x"),
        "second.corp": login("second", "x"),
        "mirror.corp:5000": login("first", "x"),
    }
    made = Node(tmp_path, MIRROR + SECOND, secret("creds", auths)).pull(ALLOWED)
    found = answered(made)
    assert [found[key] for key in sorted(found, reverse=True)] == [("first", "x"), ("second", "x"), ("hub", "x")]
    assert list(found) == ["docker.io/library/nginx", "docker.io/library", "docker.io"]
    assert shown_to(made) == ["second.corp", "docker.io", "mirror.corp:5000"]


def test_more_credentials_than_the_kubelet_has_keys_for_are_told(tmp_path: Path) -> None:
    places = [f"m{number}.corp" for number in range(7)]
    hosts = CLOSED + "".join(f'[host."https://{place}"]\n' for place in places)
    auths = {place: login(place, "x") for place in places}
    made = Node(tmp_path, hosts, secret("creds", auths)).pull(ALLOWED)
    assert [name for name, _ in answered(made).values()] == places[:5]
    assert "the kubelet takes at most 5 credentials for this image" in made.warnings[0]
    assert "m5.corp/library/nginx, m6.corp/library/nginx" in made.warnings[0]


# -- nothing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hosts", [None, "", 'server = "https://registry-1.docker.io"\n'])
def test_without_a_mirror_nobody_is_asked(hosts: str | None, tmp_path: Path) -> None:
    node = Node(tmp_path, hosts, secret("creds", {"docker.io": USER}))
    made = node.pull()
    assert (made.code, made.offers, node.cluster.asked) == (NO_MIRROR, (), [])


def test_without_a_token_nobody_is_asked(tmp_path: Path) -> None:
    node = Node(tmp_path, CLOSED + MIRROR)
    assert (node.pull(token="").code, node.cluster.asked) == (NO_TOKEN, [])


def test_mirror_registry_bounds_what_secrets_are_for(tmp_path: Path) -> None:
    node = Node(tmp_path, CLOSED + MIRROR, secret("creds", {"mirror.corp:5000": USER}))
    assert answered(node.pull("--mirror-registry=mirror.corp:5000")) == {NGINX: ("alpha", "hunter2")}
    assert node.pull("--mirror-registry=other.corp").code == NOT_COVERED


def test_no_secret_for_the_mirror(tmp_path: Path) -> None:
    made = Node(tmp_path, CLOSED + MIRROR, secret("creds", {"elsewhere.corp": USER})).pull()
    assert (made.code, made.offers) == (NO_CREDENTIAL, ())
    assert "has a credential for any of its pull sources" in made.reason and "global auth file" not in made.reason


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"identitytoken": "canary"}, "an identity token"),
        ({"auth": base64.b64encode(b"alpha:").decode()}, "no user name or no password"),
        ({"auth": base64.b64encode(b"alpha:\xff\xfe").decode()}, "not UTF-8"),
    ],
)
def test_what_the_kubelet_cannot_carry_is_told(entry: dict[str, str], why: str, tmp_path: Path) -> None:
    made = Node(tmp_path, CLOSED + MIRROR, secret("creds", {"mirror.corp:5000": entry})).pull()
    assert (made.code, made.offers) == (NO_CREDENTIAL, ())
    assert why in made.reason and "canary" not in made.reason


def test_a_broken_secret_is_told(tmp_path: Path) -> None:
    made = Node(tmp_path, CLOSED + MIRROR, raw_secret("creds", b"{")).pull()
    assert made.code == NO_CREDENTIAL and "secret creds is not used" in made.reason


def test_no_credential_is_in_the_repr(tmp_path: Path) -> None:
    made = Node(tmp_path, CLOSED + MIRROR, secret("creds", {"mirror.corp:5000": USER})).pull()
    assert "hunter2" not in repr(made) and "hunter2" not in repr(made.offers)


# -- the kubelet's keys -----------------------------------------------------------------------------------------------


def kubelet_order(keys: Iterable[str], image: str) -> list[str]:
    """What the kubelet makes of the keys of an answer, as BasicDockerKeyring.Add and Lookup do."""
    return [key for key in sorted(keys, reverse=True) if _matches(key, image)]


def _matches(key: str, image: str) -> bool:
    host, slash, path = key.partition("/")
    cut = path[3:] if path.startswith(("v1/", "v2/")) else path
    return imagepatterns.matches(f"{host}{slash}{cut}", image)


@pytest.mark.parametrize(
    ("image", "keys"),
    [
        ("docker.io/library/nginx", ["docker.io/library/nginx", "docker.io/library", "docker.io", "*.io", "*.*"]),
        ("quay.io:443/app", ["quay.io:443/app", "quay.io:443", "*.io:443", "*.*:443"]),
        ("localhost:5000/a", ["localhost:5000/a", "localhost:5000", "*:5000"]),
        ("quay.io/v2/app", ["quay.io/v2", "quay.io", "*.io", "*.*"]),
        ("quay.io/v1/a/b", ["quay.io/v1", "quay.io", "*.io", "*.*"]),
    ],
)
def test_the_keys_of_an_image(image: str, keys: Sequence[str]) -> None:
    found = credentialprovider.keys_for(image)
    assert found == keys == kubelet_order(found, image)


@pytest.mark.parametrize("image", ["docker.io/library/nginx", "quay.io/v2/app", "quay.io/v1/a/b"])
def test_the_pull_record_is_found_by_the_kubelet(image: str) -> None:
    answer = json.loads(credentialprovider.dumps(credentialprovider.pull_record(image)))
    assert kubelet_order(answer["auth"], image) == list(answer["auth"])
