"""Pulls on containerd: the kubelet's request, the program, a real containerd, Debian's docker-registry as mirror."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import docker_registry
from containerd_hosts import Hosts, guarded, refusing
from crio_credential_provider.images.dockerconfig import Credential
from crio_credential_provider.testbed.certificates import Authority
from crio_credential_provider.testbed.cluster import ApiServer
from crio_credential_provider.testbed.node import credentials_for, loads_response
from docker_registry import ALPHA, TAG
from node import Node, docker_config, request
from real_containerd import Containerd

pytestmark = pytest.mark.process

NGINX, MISSING = f"docker.io/library/nginx:{TAG}", f"docker.io/library/missing:{TAG}"
REPOSITORY = "library/nginx"


class Mirror(NamedTuple):
    """docker-registry with the users alpha and beta, whose passwords are their names and ``pw``."""

    host: str
    home: Path

    def users(self) -> list[str]:
        """Who has read the image since the last call."""
        found = docker_registry.users(self.home, REPOSITORY)
        (self.home / "log").write_text("")
        return found


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Mirror]:
    home = tmp_path_factory.mktemp("mirror")
    identity = authority.issue("mirror", ip_addresses=["127.0.0.1"])
    (home / "tls.crt").write_text(identity.certificate_pem)
    (home / "tls.key").write_text(identity.key_pem)
    http = f", tls: {{certificate: {home}/tls.crt, key: {home}/tls.key}}"
    with docker_registry.running(home, REPOSITORY, http=http) as (host, _):
        yield Mirror(host, home)


class Teams:
    """Pods of two teams with a credential for the mirror, and of one without, on a node with containerd."""

    def __init__(self, node: Node, cluster: ApiServer, containerd: Containerd, mirror: Mirror) -> None:
        self._node, self._cluster, self._containerd, self._mirror = node, cluster, containerd, mirror
        # containerd's own paths, below the node's root.
        home = node.root / str(containerd.home).lstrip("/")
        home.parent.mkdir(parents=True)
        home.symlink_to(containerd.home)
        node.write("etc/containerd/config.toml", (containerd.home / "config.toml").read_bytes())
        node.write_kubeconfig(cluster.url, cluster.authority.certificate_pem)
        for team in ("alpha", "beta", "gamma"):
            cluster.add_service_account(team)
            cluster.add_pod(team, "web", "node1")
            cluster.allow(team, "default")
        self.set_secret("alpha", "alphapw")
        self.set_secret("beta", "betapw")

    def set_secret(self, team: str, password: str, **more: tuple[str, str]) -> None:
        config = docker_config(**{self._mirror.host: (team, password), **more})
        self._cluster.add_secret(team, "mirror-creds", config)

    def pull(self, team: str, image: str = NGINX, *flags: str) -> list[str]:
        """As the kubelet pulls for a pod: why containerd cannot, by credential; empty text where it has the image."""
        token = self._cluster.mint_token(team, "default", "web")
        run = self._node.run(request(image.rpartition(":")[0], token), "--runtime=containerd", *flags)
        assert run.status == 0, run.stderr
        said = []
        for credential in credentials_for(image, loads_response(run.stdout)) or [Credential(b"", b"")]:
            said.append(self._containerd.pull(image, credential.username.decode(), credential.password.decode()))
            if not said[-1]:
                break
        return said


@pytest.fixture
def teams(node: Node, cluster: ApiServer, containerd: Containerd, mirror: Mirror, hosts: Hosts) -> Teams:
    """With the mirror alone for Docker Hub."""
    hosts.urls["mirror"] = f"https://{mirror.host}"
    containerd.write_hosts("docker.io", hosts.toml("mirror", server="mirror"))
    mirror.users()
    return Teams(node, cluster, containerd, mirror)


def test_each_team_pulls_as_itself(teams: Teams, mirror: Mirror, containerd: Containerd) -> None:
    for team in ("alpha", "beta"):
        assert teams.pull(team) == [""]
        assert containerd.has(NGINX)
        assert mirror.users() == [team]


def test_a_namespace_without_a_credential_is_refused(teams: Teams, mirror: Mirror) -> None:
    """Though the image is there."""
    assert teams.pull("alpha") == [""]
    (error,) = teams.pull("gamma")
    assert re.search("401 Unauthorized|no basic auth credentials", error), error
    assert mirror.users() == ["alpha"]


def test_a_rotated_secret_counts_at_once(teams: Teams, mirror: Mirror) -> None:
    users = mirror.home / "htpasswd"
    before = users.read_text()
    assert teams.pull("alpha") == [""]
    try:
        # Now it is beta's.
        users.write_text(before.splitlines()[1].replace("beta:", "alpha:"))
        assert all(teams.pull("alpha"))
        teams.set_secret("alpha", "betapw")
        assert teams.pull("alpha") == [""]
    finally:
        users.write_text(before)


def test_the_upstream_is_not_asked_where_the_mirror_is_the_server(
    teams: Teams, hosts: Hosts, containerd: Containerd
) -> None:
    hosts.add("upstream", refusing())
    upstream = hosts.host("upstream")
    containerd.write_hosts(upstream, hosts.toml("mirror", server="mirror"))
    (error,) = teams.pull("alpha", MISSING.replace("docker.io", upstream))
    assert "not found" in error
    assert hosts.asked() == []


class TestUpstream:
    """An upstream registry that challenges, behind the mirror."""

    @pytest.fixture(autouse=True)
    def upstream(self, teams: Teams, hosts: Hosts, containerd: Containerd) -> None:
        hosts.add("upstream", refusing())
        containerd.write_hosts("docker.io", hosts.toml("mirror", server="upstream"))

    @pytest.mark.parametrize("image", [NGINX, MISSING])
    def test_it_is_shown_no_credential(self, teams: Teams, hosts: Hosts, mirror: Mirror, image: str) -> None:
        assert all(teams.pull("alpha", image))
        assert hosts.asked() == ["upstream"]
        assert not any(request.header("Authorization") for _, request in hosts.log)
        assert mirror.users() == []

    def test_it_would_be_shown_that_of_the_mirror(self, teams: Teams, hosts: Hosts, mirror: Mirror) -> None:
        assert teams.pull("alpha", NGINX, "--allow-fallback-exposure") == [""]
        assert (hosts.asked(), mirror.users()) == ([], ["alpha"])
        assert all(teams.pull("alpha", MISSING, "--allow-fallback-exposure"))
        assert hosts.shown() == ["upstream"]

    def test_nor_where_it_is_for_pushes_alone(
        self, teams: Teams, hosts: Hosts, containerd: Containerd, mirror: Mirror
    ) -> None:
        """containerd asks it all the same for what the mirror does not deliver after it has resolved the tag."""
        image, pushes = hosts.image, {"upstream": ["push"]}
        hosts.add("failing", guarded(image.answer_without("/blobs/")))
        containerd.write_hosts("docker.io", hosts.toml("failing", server="upstream", capabilities=pushes))
        teams.set_secret("alpha", "alphapw", **{hosts.host("failing"): ALPHA})
        assert all(teams.pull("alpha", image.name))
        assert hosts.shown() == []
        assert all(teams.pull("alpha", image.name, "--allow-fallback-exposure"))
        assert hosts.shown() == ["failing", "upstream"]


class TestSeveralCredentials:
    """A mirror with a credential of its own before the other, which refuses everybody."""

    @pytest.fixture(autouse=True)
    def first(self, teams: Teams, hosts: Hosts, containerd: Containerd) -> None:
        hosts.add("first", refusing())
        containerd.write_hosts("docker.io", hosts.toml("first", "mirror", server="mirror"))
        teams.set_secret("alpha", "alphapw", **{hosts.host("first"): ("other", "otherpw")})

    def test_none_is_shown_to_the_other_s_host(self, teams: Teams, hosts: Hosts, mirror: Mirror) -> None:
        assert all(teams.pull("alpha"))
        assert not any(request.header("Authorization") for _, request in hosts.log)
        assert mirror.users() == []

    def test_the_kubelet_tries_them_in_the_order_of_the_hosts(self, teams: Teams, hosts: Hosts, mirror: Mirror) -> None:
        first, second = teams.pull("alpha", NGINX, "--allow-fallback-exposure")
        assert "401 Unauthorized" in first and second == ""
        assert mirror.users() == ["alpha"]
        # Each has reached both.
        assert hosts.shown() == ["first"]
