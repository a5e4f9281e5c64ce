"""Whom containerd shows the credential of a pull (docs/reference/contracts.md, 4)."""

from __future__ import annotations

import pytest

from containerd_hosts import BASIC, BEARER, CREDENTIAL, Hosts, guarded, is_shown, refusing
from crio_credential_provider.testbed.loopback import Answer, Request
from docker_registry import TAG
from odd_registries import answering
from real_containerd import Containerd
from servers import refused_port

each_challenge = pytest.mark.parametrize("challenge", [BASIC, BEARER], ids=["basic", "bearer"])


@each_challenge
def test_every_host_that_challenges_is_shown_it(containerd: Containerd, hosts: Hosts, challenge: str) -> None:
    for name in ("first", "second", "server"):
        hosts.add(name, refusing(challenge))
    containerd.write_hosts("docker.io", hosts.toml("first", "second"))
    assert containerd.pull(hosts.image.name, *CREDENTIAL)
    assert hosts.shown() == hosts.asked() == ["first", "second", "server"]


@each_challenge
def test_none_after_the_one_that_has_the_image(containerd: Containerd, hosts: Hosts, challenge: str) -> None:
    hosts.add("mirror", guarded(hosts.image.answer, challenge))
    hosts.add("server", refusing())
    containerd.write_hosts("docker.io", hosts.toml("mirror"))
    assert containerd.pull(hosts.image.name, *CREDENTIAL) == ""
    assert hosts.shown() == hosts.asked() == ["mirror"]


def test_a_host_that_does_not_challenge_is_not_shown_it(containerd: Containerd, hosts: Hosts) -> None:
    hosts.add("first", lambda request: answering(404))
    hosts.add("second", lambda request: answering(401))
    hosts.add("server", hosts.image.answer)
    containerd.write_hosts("docker.io", hosts.toml("first", "second"))
    assert containerd.pull(hosts.image.name, *CREDENTIAL) == ""
    assert (hosts.asked(), hosts.shown()) == (["first", "second", "server"], [])


def test_a_host_without_tls_is_shown_it_as_well(containerd: Containerd, hosts: Hosts) -> None:
    hosts.add("mirror", guarded(hosts.image.answer), tls=False)
    hosts.add("server", refusing())
    toml = f'server = "{hosts.urls["server"]}"\n[host."{hosts.urls["mirror"]}"]\n'
    containerd.write_hosts("docker.io", toml)
    assert containerd.pull(hosts.image.name, *CREDENTIAL) == ""
    assert hosts.shown() == ["mirror"]


def test_a_token_service_is_shown_it_wherever_it_is(containerd: Containerd, hosts: Hosts) -> None:
    hosts.add("tokens", guarded(hosts.image.answer))
    hosts.add("mirror", guarded(hosts.image.answer, f'Bearer realm="{hosts.urls["tokens"]}/token"'))
    containerd.write_hosts("docker.io", hosts.toml("mirror", server="mirror"))
    assert containerd.pull(hosts.image.name, *CREDENTIAL) == ""
    assert hosts.shown() == ["tokens"]
    assert hosts.asked() == ["mirror", "tokens"]
    assert {request.method for name, request in hosts.log if name == "tokens"} == {"POST"}


def test_an_empty_user_is_no_credential(containerd: Containerd, hosts: Hosts) -> None:
    hosts.add("mirror", refusing())
    containerd.write_hosts("docker.io", hosts.toml("mirror", server="mirror"))
    assert containerd.pull(hosts.image.name, "", CREDENTIAL[1])
    assert hosts.log and not any(request.header("Authorization") for _, request in hosts.log)


# -- what leads to the next host ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 429, 500, 502, 503, 504])
def test_every_error_leads_to_the_next_host(containerd: Containerd, hosts: Hosts, status: int) -> None:
    hosts.add("mirror", guarded(lambda request: answering(status)))
    hosts.add("server", guarded(hosts.image.answer))
    containerd.write_hosts("docker.io", hosts.toml("mirror"))
    assert containerd.pull(hosts.image.name, *CREDENTIAL) == ""
    assert hosts.shown() == ["mirror", "server"]


def test_a_refused_connection_leads_to_the_next_host(containerd: Containerd, hosts: Hosts) -> None:
    hosts.add("server", guarded(hosts.image.answer))
    with refused_port() as port:
        hosts.urls["mirror"] = f"https://127.0.0.1:{port}"
        containerd.write_hosts("docker.io", hosts.toml("mirror"))
        assert containerd.pull(hosts.image.name, *CREDENTIAL) == ""
    assert hosts.shown() == ["server"]


def test_a_failed_handshake_leads_to_the_next_host(containerd: Containerd, hosts: Hosts) -> None:
    hosts.add("mirror", guarded(hosts.image.answer), tls=False)
    hosts.add("server", guarded(hosts.image.answer))
    hosts.urls["mirror"] = hosts.urls["mirror"].replace("http:", "https:")
    containerd.write_hosts("docker.io", hosts.toml("mirror"))
    assert containerd.pull(hosts.image.name, *CREDENTIAL) == ""
    assert hosts.shown() == hosts.asked() == ["server"]


# -- what keeps a host out ---------------------------------------------------------------------------------------------


@pytest.fixture
def own_host(containerd: Containerd, hosts: Hosts) -> str:
    """The upstream registry, which images of this host are from."""
    # Where nothing is said of a host on the loopback, 1.6 speaks no TLS with it; later ones do, and verify nothing.
    hosts.add("upstream", refusing(), tls=containerd.version >= (1, 7))
    return hosts.host("upstream")


def test_a_server_that_is_the_mirror_leaves_no_other(containerd: Containerd, hosts: Hosts, own_host: str) -> None:
    hosts.add("mirror", refusing())
    containerd.write_hosts(own_host, hosts.toml("mirror", server="mirror"))
    assert containerd.pull(hosts.image.name.replace("docker.io", own_host), *CREDENTIAL)
    assert hosts.shown() == hosts.asked() == ["mirror"]


def test_without_a_server_the_image_s_own_host_is_the_last(containerd: Containerd, hosts: Hosts, own_host: str) -> None:
    hosts.add("mirror", refusing())
    containerd.write_hosts(own_host, hosts.toml("mirror", server=""))
    assert containerd.pull(hosts.image.name.replace("docker.io", own_host), *CREDENTIAL)
    assert hosts.shown() == ["mirror", "upstream"]


def test_a_file_without_a_host_table(containerd: Containerd, hosts: Hosts, own_host: str) -> None:
    """1.6 ignores it, and goes to the image's own host."""
    hosts.add("server", refusing())
    containerd.write_hosts(own_host, hosts.toml())
    assert containerd.pull(hosts.image.name.replace("docker.io", own_host), *CREDENTIAL)
    assert hosts.shown() == (["server"] if containerd.version >= (1, 7) else ["upstream"])


PUSH = ["push"]
MANIFESTS, BLOBS = "/manifests/sha256:", "/blobs/"


def test_a_server_for_pushes_alone_is_not_asked_for_the_tag(containerd: Containerd, hosts: Hosts) -> None:
    hosts.add("mirror", refusing())
    hosts.add("server", guarded(hosts.image.answer))
    containerd.write_hosts("docker.io", hosts.toml("mirror", capabilities={"server": PUSH}))
    assert containerd.pull(hosts.image.name, *CREDENTIAL)
    assert hosts.asked() == ["mirror"]


@pytest.mark.parametrize("missing", [MANIFESTS, BLOBS])
def test_but_for_what_the_mirror_then_does_not_have(containerd: Containerd, hosts: Hosts, missing: str) -> None:
    """Once the digest is known, the capabilities of a host no longer count."""
    hosts.add("mirror", guarded(hosts.image.answer_without(missing)))
    hosts.add("server", guarded(hosts.image.answer))
    containerd.write_hosts("docker.io", hosts.toml("mirror", capabilities={"server": PUSH}))
    assert containerd.pull(hosts.image.name, *CREDENTIAL) == ""
    assert hosts.shown() == ["mirror", "server"]
    assert hosts.shown(missing) == ["mirror", "server"]


def test_capabilities_without_a_server_are_not_the_image_s_own_host_s(
    containerd: Containerd, hosts: Hosts, own_host: str
) -> None:
    hosts.add("mirror", refusing())
    containerd.write_hosts(own_host, 'capabilities = ["push"]\n' + hosts.toml("mirror", server=""))
    assert containerd.pull(hosts.image.name.replace("docker.io", own_host), *CREDENTIAL)
    assert hosts.shown() == ["mirror", "upstream"]


@pytest.mark.parametrize("capabilities", [["pull"], ["resolve"], ["push"]])
def test_a_mirror_without_pull_and_resolve_is_not_asked_for_the_tag(
    containerd: Containerd, hosts: Hosts, capabilities: list[str]
) -> None:
    """But for manifest and blobs, before all others."""
    hosts.add("mirror", guarded(hosts.image.answer))
    hosts.add("server", guarded(hosts.image.answer))
    containerd.write_hosts("docker.io", hosts.toml("mirror", capabilities={"mirror": capabilities}))
    assert containerd.pull(hosts.image.name, *CREDENTIAL) == ""
    assert hosts.asked(f"/manifests/{TAG}") == hosts.shown(f"/manifests/{TAG}") == ["server"]
    assert hosts.shown(MANIFESTS) == hosts.shown(BLOBS) == ["mirror"]


# -- redirects ---------------------------------------------------------------------------------------------------------


class Redirecting:
    """A mirror whose blobs lie elsewhere: on another port, or under another name as well."""

    def __init__(self, hosts: Hosts, name: str) -> None:
        self._hosts, self._name = hosts, name

    def __call__(self, request: Request) -> Answer:
        if BLOBS not in request.path:
            return self._hosts.image.answer(request)
        elsewhere = self._hosts.urls["elsewhere"].replace("127.0.0.1", self._name)
        return answering(307, ("Location", elsewhere + request.path))


each_name = pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])


@each_name
def test_a_redirect_takes_it_along_to_the_same_name_alone(containerd: Containerd, hosts: Hosts, name: str) -> None:
    hosts.add("elsewhere", hosts.image.answer)
    hosts.add("mirror", guarded(Redirecting(hosts, name)))
    containerd.write_hosts("docker.io", hosts.toml("mirror", server="mirror"))
    assert containerd.pull(hosts.image.name, *CREDENTIAL) == ""
    assert hosts.asked() == ["mirror", "elsewhere"]
    # As the Go library does it that containerd is built with: in that of Debian's 1.6 the port counts as well.
    taken_along = name == "127.0.0.1" and containerd.version >= (1, 7)
    assert hosts.shown() == ["mirror", "elsewhere"][: 1 + taken_along]


@each_name
@each_challenge
def test_a_redirect_to_a_host_that_challenges_shows_it(
    containerd: Containerd, hosts: Hosts, name: str, challenge: str
) -> None:
    hosts.add("elsewhere", guarded(hosts.image.answer, challenge))
    hosts.add("mirror", guarded(Redirecting(hosts, name)))
    containerd.write_hosts("docker.io", hosts.toml("mirror", server="mirror"))
    assert containerd.pull(hosts.image.name, *CREDENTIAL) == ""
    assert hosts.shown() == ["mirror", "elsewhere"]


# -- an image that is there --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", ["tag", "digest"])
def test_an_image_that_is_there_is_pulled_with_a_credential_alone(
    containerd: Containerd, hosts: Hosts, reference: str
) -> None:
    name = hosts.image.name if reference == "tag" else f"{hosts.image.name.partition(':')[0]}@{hosts.image.digest}"
    hosts.add("mirror", guarded(hosts.image.answer))
    containerd.write_hosts("docker.io", hosts.toml("mirror", server="mirror"))
    for password, pulled in ((CREDENTIAL[1], True), ("wrong", False), ("", False)):
        assert (containerd.pull(name, CREDENTIAL[0], password) == "") is pulled
        assert containerd.has(name)


def test_a_wrong_password_is_sent_several_times(containerd: Containerd, hosts: Hosts) -> None:
    """Where a registry locks an account after some failures, one pull may be enough."""
    hosts.add("mirror", refusing())
    containerd.write_hosts("docker.io", hosts.toml("mirror", server="mirror"))
    assert containerd.pull(hosts.image.name, *CREDENTIAL)
    # The mirror is asked twice here: it is the server as well.
    assert sum(is_shown(request) for _, request in hosts.log) in (8, 10)
