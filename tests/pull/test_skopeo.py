"""Pulls as CRI-O does them: Debian's skopeo (containers/image 5.22) from Debian's docker-registry, with our file.

For each configuration: the file that a real run left, with the same registries.conf, is enough to pull; without the
mirror's entry, and without the file, the pull is refused. Nothing beyond the loopback can be reached, so that a pull
which goes on to a public registry fails as well.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

import docker_registry
from crio_credential_provider.testbed.cluster import ApiServer
from docker_registry import ALPHA, TAG
from node import Node, basic, request
from real_programs import need
from servers import refused_port

pytestmark = pytest.mark.process

# Everything that a case pulls, as it is called on the mirror.
REPOSITORIES = ("hub/library/nginx", "hub/team/app", "corp/team/app", "team/app")


class Skopeo:
    """skopeo with one registries.conf and one home directory."""

    def __init__(self, program: str, node: Node) -> None:
        self._command = [program, "--insecure-policy", "--registries-conf", str(node.registries_conf)]
        # Drop-ins of the user: the one directory of drop-ins that skopeo 1.9 lets a test choose.
        self._environment = {"PATH": "/usr/bin:/bin", "HOME": str(node.root / "root")}
        # Go never uses a proxy for the loopback; everything else is refused there at once, without a look at the DNS.
        self._environment["HTTPS_PROXY"] = self._environment["HTTP_PROXY"] = "http://127.0.0.1:1"
        self._node = node

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._command, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def pull(self, image: str, auth: dict[str, Any] | None) -> subprocess.CompletedProcess[str]:
        """Copies an image, layers included, with this auth file (none: an empty one, never the user's own)."""
        file = self._node.write("taken.json", json.dumps({"auths": {}} if auth is None else auth))
        target = self._node.root / "pulled"
        return self.run("copy", "--src-authfile", str(file), f"docker://{image}", f"dir:{target}")


class Registry(NamedTuple):
    host: str
    digest: str


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """docker-registry with users, on a port that the system picked, holding one image under each name."""
    with docker_registry.running(tmp_path_factory.mktemp("registry"), *REPOSITORIES) as (host, digest):
        yield Registry(host, digest)


class Case(NamedTuple):
    """A configuration. ``{mirror}`` stands for the registry's host, ``{down}`` for one where nobody listens.

    Attributes:
        conf, drop_in: registries.conf and a drop-in of the user.
        image: what the pod names, without its tag.
        auths: of the namespace's one secret.
        keys: exactly the keys of the file that is to be written; the last is the mirror's that serves.
        reference: ``tag`` or ``digest``.
    """

    conf: str
    image: str
    auths: dict[str, Any]
    keys: tuple[str, ...]
    drop_in: str = ""
    reference: str = "tag"


def table(prefix: str, *mirrors: str, location: str = "", more: str = "") -> str:
    """One ``[[registry]]`` with its mirrors, all plain HTTP."""
    place = f'location = "{location}"\n' if location else ""
    text = f'[[registry]]\nprefix = "{prefix}"\n{place}insecure = true\n{more}'
    return text + "".join(f'[[registry.mirror]]\nlocation = "{mirror}"\ninsecure = true\n' for mirror in mirrors)


AUTH = {"auth": basic(*ALPHA)}
WRONG = {"auth": basic("alpha", "wrong")}
HUB = table("docker.io", "{mirror}/hub", location="docker.io")
NGINX, NGINX_KEY = "docker.io/library/nginx", "{mirror}/hub/library/nginx"

CASES: dict[str, Case] = {
    "a path mirror": Case(HUB, NGINX, {"{mirror}": AUTH}, (NGINX_KEY,)),
    "a mirror of one namespace": Case(
        table("quay.io/team", "{mirror}/team", location="quay.io/team"),
        "quay.io/team/app",
        {"{mirror}": AUTH},
        ("{mirror}/team/app",),
    ),
    "a wildcard prefix": Case(
        table("*.corp.example", "{mirror}/corp"),
        "images.corp.example/team/app",
        {"{mirror}": AUTH},
        ("{mirror}/corp/team/app",),
    ),
    "a remapped location": Case(
        table("registry.example/images", location="{mirror}/team"),
        "registry.example/images/app",
        {"{mirror}": AUTH},
        ("{mirror}/team/app",),
    ),
    "Docker Hub remapped": Case(table("docker.io", location="{mirror}/hub"), NGINX, {"{mirror}": AUTH}, (NGINX_KEY,)),
    "a drop-in that overrides": Case(
        table("docker.io", "{down}/hub", location="docker.io"),
        NGINX,
        {"{mirror}": AUTH, "{down}": AUTH},
        (NGINX_KEY,),
        drop_in=HUB,
    ),
    "the first mirror is down": Case(
        table("docker.io", "{down}/hub", "{mirror}/hub", location="docker.io"),
        NGINX,
        {"{mirror}": AUTH, "{down}": AUTH},
        ("{down}/hub/library/nginx", NGINX_KEY),
    ),
    "the first mirror has no such image": Case(
        table("docker.io", "{mirror}/empty", "{mirror}/hub", location="docker.io"),
        NGINX,
        {"{mirror}": AUTH},
        ("{mirror}/empty/library/nginx", NGINX_KEY),
    ),
    "a mirror for digests alone": Case(
        table("docker.io", "{mirror}/hub", location="docker.io", more="mirror-by-digest-only = true\n"),
        NGINX,
        {"{mirror}": AUTH},
        (NGINX_KEY,),
        reference="digest",
    ),
    "a pull by digest": Case(HUB, NGINX, {"{mirror}": AUTH}, (NGINX_KEY,), reference="digest"),
    "a deep key": Case(HUB, NGINX, {"{mirror}/hub": AUTH}, (NGINX_KEY,)),
    "the whole repository as key": Case(HUB, NGINX, {"{mirror}/hub/library/nginx": AUTH}, (NGINX_KEY,)),
    "a deep key before a wrong one of the host": Case(
        HUB, NGINX, {"{mirror}": WRONG, "{mirror}/hub/library": AUTH, "{mirror}/hub/lib": WRONG}, (NGINX_KEY,)
    ),
    "an http:// key": Case(HUB, NGINX, {"http://{mirror}": AUTH}, (NGINX_KEY,)),
    "an https:// key": Case(HUB, NGINX, {"https://{mirror}": AUTH}, (NGINX_KEY,)),
    "an https://host/v1/ key": Case(HUB, NGINX, {"https://{mirror}/v1/": AUTH}, (NGINX_KEY,)),
    "an https://host/v2/ key": Case(HUB, NGINX, {"https://{mirror}/v2/": AUTH}, (NGINX_KEY,)),
    "username and password alone": Case(
        HUB, NGINX, {"{mirror}": {"username": ALPHA[0], "password": ALPHA[1]}}, (NGINX_KEY,)
    ),
    "username, password and auth": Case(
        HUB, NGINX, {"{mirror}": {"username": ALPHA[0], "password": ALPHA[1], **AUTH}}, (NGINX_KEY,)
    ),
    "an auth with line breaks": Case(
        HUB, NGINX, {"{mirror}": {"auth": AUTH["auth"][:7] + "\n" + AUTH["auth"][7:]}}, (NGINX_KEY,)
    ),
    "Docker Hub's own key beside the mirror's": Case(
        HUB, NGINX, {"https://index.docker.io/v1/": WRONG, "{mirror}": AUTH}, (NGINX, NGINX_KEY)
    ),
}


@pytest.fixture
def skopeo(node: Node) -> Skopeo:
    return Skopeo(need("skopeo")[0], node)


@pytest.fixture
def served(node: Node, cluster: ApiServer) -> str:
    """A node that knows the cluster, and the token of its pod."""
    node.write_kubeconfig(cluster.url, cluster.authority.certificate_pem)
    cluster.add_pod("team-alpha", "web", "node1")
    cluster.allow("team-alpha", "default")
    return cluster.mint_token("team-alpha", "default", "web")


def write_auth_file(node: Node, image: str, token: str) -> dict[str, Any]:
    """What a real run of the plugin left for CRI-O; it looks for registries.conf as skopeo is told to."""
    run = node.run(request(image, token), "--registries-conf", str(node.registries_conf))
    assert (run.status, run.stderr) == (0, ""), run.stderr
    (content,) = node.auth_files().values()
    assert isinstance(content, dict)
    return content


@pytest.mark.parametrize("name", CASES)
def test_the_file_is_enough_and_needed(
    node: Node, cluster: ApiServer, served: str, skopeo: Skopeo, registry: Registry, name: str
) -> None:
    case = CASES[name]
    with refused_port() as down:

        def fill(text: str) -> str:
            return text.replace("{mirror}", registry.host).replace("{down}", f"127.0.0.1:{down}")

        node.write_registries_conf(fill(case.conf))
        if case.drop_in:
            node.write("root/.config/containers/registries.conf.d/50-team.conf", fill(case.drop_in))
        cluster.add_secret("team-alpha", "mirror", {"auths": {fill(key): value for key, value in case.auths.items()}})

        auth = write_auth_file(node, case.image, served)
        assert set(auth["auths"]) == set(map(fill, case.keys))

        reference = f"{case.image}:{TAG}" if case.reference == "tag" else f"{case.image}@{registry.digest}"
        pulled = skopeo.pull(reference, auth)
        assert pulled.returncode == 0, pulled.stderr

        without_entry = {"auths": {key: value for key, value in auth["auths"].items() if key != fill(case.keys[-1])}}
        for lesser in (without_entry, None):
            refused = skopeo.pull(reference, lesser)
            assert refused.returncode != 0
            # Refused by the mirror, not by chance.
            assert re.search("authentication required|unauthorized", refused.stderr), refused.stderr


def test_a_wrong_password_is_refused(
    node: Node, cluster: ApiServer, served: str, skopeo: Skopeo, registry: Registry
) -> None:
    """So that the pulls above show something."""
    node.write_registries_conf(HUB.replace("{mirror}", registry.host))
    cluster.add_secret("team-alpha", "mirror", {"auths": {registry.host: WRONG}})
    assert skopeo.pull(f"{NGINX}:{TAG}", write_auth_file(node, NGINX, served)).returncode != 0


def test_each_team_pulls_as_itself(
    node: Node, cluster: ApiServer, served: str, skopeo: Skopeo, registry: Registry
) -> None:
    node.write_registries_conf(HUB.replace("{mirror}", registry.host))
    cluster.add_secret("team-alpha", "mirror", {"auths": {registry.host: AUTH}})
    cluster.add_secret("team-beta", "mirror", {"auths": {registry.host: {"auth": basic("beta", "betapw")}}})
    cluster.add_pod("team-beta", "web", "node1")
    cluster.allow("team-beta", "default")
    tokens = {"alpha": served, "beta": cluster.mint_token("team-beta", "default", "web")}
    for user, token in tokens.items():
        auth = write_auth_file(node, NGINX, token)
        (entry,) = auth["auths"].values()
        assert entry == {"auth": basic(user, f"{user}pw")}
        assert skopeo.pull(f"{NGINX}:{TAG}", auth).returncode == 0
        for file in node.auth_dir.glob("*.json"):
            file.unlink()


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "index.docker.io", "docker.io", "https://docker.io"])
def test_docker_hub_s_keys_serve_docker_io_itself(
    node: Node, cluster: ApiServer, served: str, skopeo: Skopeo, registry: Registry, key: str
) -> None:
    """docker.io cannot be reached here; containers/image is asked which user it would show there."""
    node.write_registries_conf(HUB.replace("{mirror}", registry.host))
    cluster.add_secret("team-alpha", "hub", {"auths": {key: AUTH}})
    auth = write_auth_file(node, NGINX, served)
    assert list(auth["auths"]) == [NGINX]
    file = node.write("taken.json", json.dumps(auth))
    shown = skopeo.run("login", "--get-login", "--authfile", str(file), NGINX)
    assert (shown.returncode, shown.stdout) == (0, "alpha\n"), shown.stderr
    other = skopeo.run("login", "--get-login", "--authfile", str(file), "docker.io/library/redis")
    assert other.returncode != 0


def test_an_identity_token_reaches_the_file_as_such(
    node: Node, cluster: ApiServer, served: str, registry: Registry
) -> None:
    node.write_registries_conf(HUB.replace("{mirror}", registry.host))
    entry = {"auth": basic("00000000", ""), "identitytoken": "refresh"}
    cluster.add_secret("team-alpha", "mirror", {"auths": {registry.host: entry}})
    auth = write_auth_file(node, NGINX, served)
    assert auth["auths"][f"{registry.host}/hub/library/nginx"]["identitytoken"] == "refresh"
