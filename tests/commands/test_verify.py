"""``verify``: asks what the plugin decides, with what it would leave, and says whose mistake it is."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from commandline import Done, typed
from crio_credential_provider import registryclient
from crio_credential_provider.commands import verify
from crio_credential_provider.commands.request import handedover
from crio_credential_provider.commands.verification import asking
from crio_credential_provider.images import dockerconfig, reference
from crio_credential_provider.images.dockerconfig import Credential
from crio_credential_provider.kubernetes.pullsecrets import PullSecret
from crio_credential_provider.node import commandline
from crio_credential_provider.node.tree import Tree
from crio_credential_provider.testbed.certificates import Authority, server_context
from crio_credential_provider.testbed.cluster import ApiServer
from crio_credential_provider.testbed.registry import MirrorRegistry
from node import Node, basic, request
from odd_registries import ODD, Odd, OddRegistry, answering
from servers import refused_port

pytestmark = pytest.mark.process

PASSWORD = "correct-horse-battery-staple"
NGINX = "docker.io/library/nginx"
SEARCH = 'unqualified-search-registries = ["docker.io"]\n'


class Place(NamedTuple):
    """A node, its cluster, and a mirror with users."""

    node: Node
    cluster: ApiServer
    mirror: MirrorRegistry

    def write_conf(self, *tables: str) -> None:
        self.node.write_registries_conf("".join((SEARCH, *tables)))

    def add_secret(self, name: str, **auths: tuple[str, str]) -> None:
        entries = {key: {"auth": basic(*login)} for key, login in auths.items()}
        self.cluster.add_secret("team-alpha", name, {"auths": entries})

    def verify(self, *arguments: str, env: dict[str, str] | None = None) -> Done:
        """As a person types it, on the node."""
        done = typed("verify", *arguments, "--root", str(self.node.root), env=env)
        assert "Traceback" not in done.err, done.err
        for text in (done.out, done.err):
            for secret in (PASSWORD, base64.b64encode(f"alpha:{PASSWORD}".encode()).decode()):
                assert secret not in text
        return done

    def verify_json(self, *arguments: str, env: dict[str, str] | None = None) -> Done:
        return self.verify(*arguments, "--output", "json", env=env)


def table(prefix: str, *mirrors: str, location: str = "", more: str = "") -> str:
    """A ``[[registry]]`` whose mirrors speak plain HTTP."""
    text = f'[[registry]]\nprefix = "{prefix}"\nlocation = "{location or prefix}"\n{more}'
    return text + "".join(f'[[registry.mirror]]\nlocation = "{mirror}"\ninsecure = true\n' for mirror in mirrors)


@pytest.fixture
def place(module_node: Node, cluster: ApiServer) -> Iterator[Place]:
    node = module_node
    node.write("etc/systemd/system/kubelet.service", "[Service]\nExecStart=/usr/bin/kubelet\n")
    node.write("etc/crio/crio.conf", "")
    node.write_kubeconfig(cluster.url, cluster.authority.certificate_pem)
    client = cluster.node_identity("node1")
    node.write("var/lib/kubelet/pki/kubelet-client-current.pem", client.certificate_pem + client.key_pem)
    cluster.add_service_account("team-alpha", "default", ["mirror-creds"])
    cluster.add_pod("team-alpha", "web", "node1")
    cluster.allow("team-alpha", "default")
    with MirrorRegistry({"alpha": (PASSWORD, ["hub"])}) as mirror:
        mirror.add_image("hub/library/nginx", "1.27")
        made = Place(node, cluster, mirror)
        # The image's own registry is out of reach, so that it is left to what a name that nobody knows gives.
        made.write_conf(table("docker.io", f"{mirror.host}/hub", location="hub.nowhere.invalid"))
        yield made


WEB = ("-n", "team-alpha", "--pod", "web")


def test_a_pull_that_would_succeed(place: Place) -> None:
    place.add_secret("mirror-creds", **{place.mirror.host: ("alpha", PASSWORD)})
    done = place.verify("nginx:1.27", *WEB)
    assert (done.status, done.err) == (0, "")
    first = done.out.splitlines()[0]
    assert first == f"The pull would succeed: {place.mirror.host}/hub/library/nginx:1.27 exists."
    assert "secret mirror-creds" in done.out and f"key {place.mirror.host}" in done.out
    assert ("HEAD", "alpha", 200) in [(p.method, p.user, p.status) for p in place.mirror.log]


def test_the_report_for_programs(place: Place) -> None:
    place.add_secret("mirror-creds", **{place.mirror.host: ("alpha", PASSWORD)})
    done = place.verify_json("nginx:1.27", *WEB)
    report = done.report
    name = f"{place.mirror.host}/hub/library/nginx"
    digest = place.mirror.add_image("hub/library/nginx", "1.27")
    assert (done.status, report["verdict"]["succeeds"], report["verdict"]["source"]) == (0, True, name)
    assert (report["image"], report["reference"], report["namespace"]) == (f"{NGINX}:1.27", "1.27", "team-alpha")
    first, last = report["sources"]
    assert first == {
        "name": name,
        "outcome": "ok",
        "cause": None,
        "evidence": "has hub/library/nginx:1.27",
        "remedy": None,
        "needed": True,
        "insecure": True,
        "credential": {"from": "secret", "secret": "mirror-creds", "key": place.mirror.host},
        "scheme": "http",
        "digest": digest,
        "tokenService": None,
        "credentialSentTo": [place.mirror.host],
        "exchanges": [
            f"GET {place.mirror.url}/v2/: 401",
            f"HEAD {place.mirror.url}/v2/hub/library/nginx/manifests/1.27: 200",
        ],
    }
    assert (last["outcome"], last["needed"], last["credential"]) == ("dns", False, None)


def test_the_credential_is_the_plugins(place: Place) -> None:
    """What verify shows the mirror is what the plugin leaves for CRI-O."""
    place.add_secret("a-general", **{place.mirror.host: ("alpha", "wrong")})
    place.add_secret("z-deeper", **{f"{place.mirror.host}/hub": ("alpha", PASSWORD)})
    done = place.verify_json("nginx:1.27", *WEB)
    assert done.report["sources"][0]["credential"]["secret"] == "z-deeper"
    token = place.cluster.mint_token("team-alpha", "default", "web")
    assert place.node.run(request(NGINX, token)).status == 0
    (file,) = place.node.auth_files().values()
    assert file["auths"] == {f"{place.mirror.host}/hub/library/nginx": {"auth": basic("alpha", PASSWORD)}}
    assert {p.user for p in place.mirror.log} == {None, "alpha"}
    assert done.status == 0


def test_a_credential_that_is_refused_names_its_secret(place: Place) -> None:
    place.add_secret("mirror-creds", **{place.mirror.host: ("alpha", "of-last-year")})
    done = place.verify_json("nginx:1.27", *WEB)
    assert done.status == 3
    source = done.report["sources"][0]
    assert (source["outcome"], source["cause"]) == ("unauthorized", "refused")
    assert "answers 401: it refuses the credential" in source["evidence"]
    remedy = f"secret mirror-creds, key {place.mirror.host}: write the current credential there"
    assert source["remedy"].startswith(remedy)
    assert done.report["verdict"]["remedy"] == source["remedy"]
    text = " ".join(place.verify("nginx:1.27", *WEB).out.split())
    assert text.startswith(f"The pull would fail. {source['name']}: it refuses the credential. To do: {remedy[:30]}")


def test_no_credential_says_which_key_was_meant(place: Place) -> None:
    place.add_secret("mirror-creds", **{"docker.io": ("alpha", PASSWORD)})
    done = place.verify_json("nginx:1.27", *WEB)
    source = done.report["sources"][0]
    assert (done.status, source["outcome"], source["cause"]) == (3, "unauthorized", "no-credential")
    assert source["credential"] is None and source["credentialSentTo"] == []
    assert (
        "secret mirror-creds has the key docker.io, but docker.io is the registry in the pod's image"
        in source["evidence"]
    )
    assert source["remedy"] == f"add a key for {place.mirror.host} to a pull secret of namespace team-alpha"
    assert {p.user for p in place.mirror.log} <= {None, ""}


def test_a_secret_that_cannot_be_used_is_named(place: Place) -> None:
    place.cluster.add_secret("team-alpha", "wrapped", {"value": "{}"})
    source = place.verify_json("nginx:1.27", *WEB).report["sources"][0]
    assert "; no pull secret of namespace team-alpha has a credential for any of its pull sources" in source["evidence"]
    assert "; secret wrapped is not used: its .dockerconfigjson cannot be used" in source["evidence"]


def test_a_secret_of_another_type_is_named(place: Place) -> None:
    auths = {place.mirror.host: {"auth": basic("alpha", PASSWORD)}}
    place.cluster.add_secret("team-alpha", "opaque", {"auths": auths}, type="Opaque")
    assert (
        "but the secret is of type 'Opaque', and the plugin only lists"
        in place.verify_json("nginx:1.27", *WEB).report["sources"][0]["evidence"]
    )


def test_a_password_with_a_line_break_is_told(place: Place) -> None:
    place.add_secret("echoed", **{place.mirror.host: ("alpha", f"{PASSWORD}\n")})
    assert any(
        "the password ends with a newline" in note for note in place.verify_json("nginx:1.27", *WEB).report["notes"]
    )


def test_no_secret_at_all(place: Place) -> None:
    done = place.verify_json("nginx:1.27", *WEB)
    assert "no secret has a credential for it" in done.report["sources"][0]["evidence"]
    assert (
        done.report["verdict"]["remedy"]
        == f"add a key for {place.mirror.host} to a pull secret of namespace team-alpha"
    )
    assert done.status == 3


@pytest.mark.parametrize(
    ("mode", "holder"), [("pod", "pod web names"), ("service-account", "service account default names")]
)
def test_a_secret_that_is_not_named_is_no_help(place: Place, mode: str, holder: str) -> None:
    """Where a key in any secret of the namespace would not do, this is said."""
    place.cluster.allow("team-alpha", "default", ["get"], "secrets")
    place.cluster.allow("team-alpha", "default", ["get"], "serviceaccounts")
    place.cluster.add_pod("team-alpha", "web", "node1", image_pull_secrets=["mirror-creds"])
    place.add_secret("mirror-creds", **{"other.corp": ("alpha", PASSWORD)})
    place.add_secret("another", **{place.mirror.host: ("alpha", PASSWORD)})
    done = place.verify_json("nginx:1.27", *WEB, "--secrets-from", mode)
    remedy = done.report["verdict"]["remedy"]
    assert (done.status, done.report["sources"][0]["cause"]) == (3, "no-credential")
    assert remedy.startswith(
        f"add a key for {place.mirror.host} to a pull secret that {holder} in its imagePullSecrets"
    )


def test_outside_of_mirror_registry_no_secret_helps(place: Place) -> None:
    place.add_secret("mirror-creds", **{place.mirror.host: ("alpha", PASSWORD)})
    done = place.verify_json("nginx:1.27", *WEB, "--mirror-registry", "other.corp")
    remedy = done.report["sources"][0]["remedy"]
    assert "node's own auth file" in remedy and f"--mirror-registry {place.mirror.host}" in remedy
    assert "pull secret" not in remedy


def test_an_image_that_is_not_there(place: Place) -> None:
    place.add_secret("mirror-creds", **{place.mirror.host: ("alpha", PASSWORD)})
    done = place.verify_json("nginx:9", *WEB)
    assert (done.status, done.outcomes) == (
        3,
        {f"{place.mirror.host}/hub/library/nginx": "not-found", "hub.nowhere.invalid/library/nginx": "dns"},
    )


def test_a_repository_that_may_not_be_pulled(place: Place) -> None:
    place.write_conf(table("docker.io", f"{place.mirror.host}/private", location="hub.nowhere.invalid"))
    place.add_secret("mirror-creds", **{place.mirror.host: ("alpha", PASSWORD)})
    source = place.verify_json("nginx:1.27", *WEB).report["sources"][0]
    assert (source["outcome"], source["cause"]) == ("forbidden", "not-allowed")
    assert source["remedy"].startswith(f"secret mirror-creds, key {place.mirror.host}: check that its user may pull")


def test_the_latest_is_asked_for_without_a_tag(place: Place) -> None:
    place.mirror.add_image("hub/library/nginx")
    place.add_secret("mirror-creds", **{place.mirror.host: ("alpha", PASSWORD)})
    done = place.verify_json("nginx", *WEB)
    assert (done.status, done.report["reference"]) == (0, "latest")


def test_by_digest(place: Place) -> None:
    digest = place.mirror.add_image("hub/library/nginx", "1.27")
    place.add_secret("mirror-creds", **{place.mirror.host: ("alpha", PASSWORD)})
    # With both the tag counts for nothing.
    done = place.verify_json(f"nginx:9@{digest}", *WEB)
    assert (done.status, done.report["reference"]) == (0, digest)
    assert f"{digest} exists" in done.report["verdict"]["text"]


def test_what_cri_o_does_not_ask_is_left_out(place: Place) -> None:
    host = place.mirror.host
    conf = table("docker.io", f"{host}/hub", location="hub.nowhere.invalid")
    conf += '[[registry.mirror]]\nlocation = "digests.corp"\npull-from-mirror = "digest-only"\n'
    conf += '[[registry.mirror]]\nlocation = "blocked.corp/x"\n'
    place.write_conf(conf, '[[registry]]\nprefix = "blocked.corp"\nlocation = "blocked.corp"\nblocked = true\n')
    place.add_secret("mirror-creds", **{host: ("alpha", PASSWORD)})
    done = place.verify_json("nginx:1.27", *WEB)
    assert done.outcomes == {
        f"{host}/hub/library/nginx": "ok",
        "blocked.corp/x/library/nginx": "blocked",
        "hub.nowhere.invalid/library/nginx": "dns",
        "digests.corp/library/nginx": "not-asked",
    }
    left = done.report["sources"][-1]
    assert (left["evidence"], left["exchanges"]) == ("it only serves pulls by digest, and this is a pull by tag", [])
    text = place.verify("nginx:1.27", *WEB).out
    assert "not asked" in text and "blocked" in text and "not needed" in text


def test_the_next_place_serves(place: Place) -> None:
    with MirrorRegistry() as second, refused_port() as port:
        second.add_image("library/nginx", "1.27")
        place.write_conf(table("docker.io", f"127.0.0.1:{port}", second.host, location="hub.nowhere.invalid"))
        place.add_secret("mirror-creds", **{f"127.0.0.1:{port}": ("alpha", PASSWORD)})
        done = place.verify_json("nginx:1.27", *WEB)
    assert done.status == 0
    assert list(done.outcomes.values()) == ["connect", "ok", "dns"]
    assert [source["needed"] for source in done.report["sources"]] == [True, True, False]
    assert "after one source failed" in done.report["verdict"]["text"]


def test_nothing_is_kept_or_written(place: Place) -> None:
    place.add_secret("mirror-creds", **{place.mirror.host: ("alpha", PASSWORD)})
    before = sorted(str(path) for path in place.node.root.rglob("*"))
    assert place.verify("nginx:1.27", *WEB).status == 0
    assert sorted(str(path) for path in place.node.root.rglob("*")) == before


def test_tls_by_certs_d_below_the_root(place: Place, authority: Authority) -> None:
    identity = authority.issue("m", ip_addresses=["127.0.0.1"])
    with MirrorRegistry({"alpha": (PASSWORD, [""])}, identity=identity) as mirror:
        mirror.add_image("library/nginx", "1.27")
        conf = table("docker.io", mirror.host, location="hub.nowhere.invalid").replace("insecure = true\n", "")
        place.write_conf(conf)
        place.add_secret("mirror-creds", **{mirror.host: ("alpha", PASSWORD)})
        source = place.verify_json("nginx:1.27", *WEB).report["sources"][0]
        assert (source["outcome"], source["cause"]) == ("tls", "unknown-ca")
        assert f"/etc/containers/certs.d/{mirror.host}/ca.crt" in source["remedy"]
        assert source["credentialSentTo"] == []
        place.node.write(f"etc/containers/certs.d/{mirror.host}/ca.crt", authority.certificate_pem)
        assert place.verify("nginx:1.27", *WEB).status == 0


# -- other ways to the secrets ----------------------------------------------------------------------------------------


def secrets_file(place: Place, **auths: tuple[str, str]) -> str:
    config = {"auths": {key: {"auth": basic(*login)} for key, login in auths.items()}}
    data = base64.b64encode(json.dumps(config).encode()).decode()
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": "from-file", "namespace": "team-alpha"},
        "data": {".dockerconfigjson": data},
    }
    return str(place.node.write("secrets.json", json.dumps(secret)))


def test_offline_for_the_cluster(place: Place) -> None:
    file = secrets_file(place, **{place.mirror.host: ("alpha", PASSWORD)})
    done = place.verify_json("nginx:1.27", "-n", "team-alpha", "--secrets", file)
    assert (done.status, done.report["sources"][0]["credential"]["secret"]) == (0, "from-file")
    assert place.cluster.requests == []


def test_a_recorded_request(place: Place) -> None:
    place.mirror.add_image("hub/library/nginx")
    place.add_secret("mirror-creds", **{place.mirror.host: ("alpha", PASSWORD)})
    token = place.cluster.mint_token("team-alpha", "default", "web")
    file = place.node.write("request.json", request(NGINX, token))
    done = place.verify_json("--request", str(file))
    assert (done.status, done.report["reference"]) == (0, "latest")
    assert any("latest was asked for" in note for note in done.report["notes"])


def test_the_node_s_own_credential(place: Place) -> None:
    place.node.write(
        "var/lib/kubelet/config.json", json.dumps({"auths": {place.mirror.host: {"auth": basic("alpha", PASSWORD)}}})
    )
    done = place.verify_json("nginx:1.27", *WEB)
    source = done.report["sources"][0]
    assert (done.status, source["outcome"]) == (0, "ok")
    assert source["credential"] == {"from": "node", "secret": None, "key": place.mirror.host}


def test_the_node_s_own_credential_where_no_mirror_is(place: Place) -> None:
    """No table: the plugin does nothing, and CRI-O reads the node's file."""
    host = place.mirror.host
    place.write_conf(f'[[registry]]\nlocation = "{host}"\ninsecure = true\n')
    place.node.write("var/lib/kubelet/config.json", json.dumps({"auths": {host: {"auth": basic("alpha", "old")}}}))
    done = place.verify_json(f"{host}/hub/library/nginx:1.27", *WEB)
    source = done.report["sources"][0]
    assert (done.status, source["cause"]) == (3, "refused")
    assert source["remedy"].startswith(f"the node's auth file, key {host}: write the current credential there")


# -- what the kubelet hands over --------------------------------------------------------------------------------------


def own_registry(place: Place) -> str:
    """An image of a registry that no table sends elsewhere: the plugin leaves no credential for it."""
    host = place.mirror.host
    place.write_conf(f'[[registry]]\nlocation = "{host}"\ninsecure = true\n')
    return f"{host}/hub/library/nginx:1.27"


def test_the_pods_own_secret_is_handed_over_by_the_kubelet(place: Place) -> None:
    image = own_registry(place)
    place.add_secret("mirror-creds", **{place.mirror.host: ("alpha", PASSWORD)})
    done = place.verify_json(image, *WEB)
    source = done.report["sources"][0]
    assert (done.status, source["outcome"]) == (0, "ok")
    assert source["credential"] == {"from": "kubelet", "secret": "mirror-creds", "key": place.mirror.host}
    assert "from the kubelet" in place.verify(image, *WEB).out


def test_the_pods_own_secret_is_refused(place: Place) -> None:
    image = own_registry(place)
    place.add_secret("mirror-creds", **{place.mirror.host: ("alpha", "of-last-year")})
    done = place.verify_json(image, *WEB)
    source = done.report["sources"][0]
    assert (done.status, source["outcome"], source["cause"]) == (3, "unauthorized", "refused")
    remedy = f"secret mirror-creds, key {place.mirror.host}: write the current credential there, if it was rotated"
    assert source["remedy"].startswith(remedy)


def test_the_pod_names_no_secret(place: Place) -> None:
    """Another secret of the namespace has it, which no kubelet hands over."""
    image = own_registry(place)
    place.cluster.add_pod("team-alpha", "web", "node1", image_pull_secrets=[])
    place.add_secret("mirror-creds", **{place.mirror.host: ("alpha", PASSWORD)})
    done = place.verify_json(image, *WEB)
    source = done.report["sources"][0]
    assert (done.status, source["outcome"], source["cause"]) == (3, "unauthorized", "no-credential")
    assert "the pod's imagePullSecrets, which the kubelet passes, have none" in source["evidence"]
    assert f"add a key for {place.mirror.host} to a pull secret in the pod's imagePullSecrets" == source["remedy"]


def test_the_kubelets_credential_goes_before_the_plugins(place: Place) -> None:
    """The image's registry is its own mirror; of the two secrets the pod names the wrong one."""
    host = place.mirror.host
    place.write_conf(table(host, f"{host}/elsewhere", more="insecure = true\n"))
    place.cluster.add_pod("team-alpha", "web", "node1", image_pull_secrets=["old"])
    place.add_secret("a-good", **{host: ("alpha", PASSWORD)})
    place.add_secret("old", **{host: ("alpha", "of-last-year")})
    source = place.verify_json(f"{host}/hub/library/nginx:1.27", *WEB).report["sources"][-1]
    assert (source["name"], source["outcome"]) == (f"{host}/hub/library/nginx", "unauthorized")
    assert (source["credential"]["from"], source["credential"]["secret"]) == ("kubelet", "old")


def test_the_kubelet_tries_one_credential_after_the_other(place: Place) -> None:
    image = own_registry(place)
    place.cluster.add_pod("team-alpha", "web", "node1", image_pull_secrets=["old", "new"])
    place.add_secret("old", **{place.mirror.host: ("alpha", "of-last-year")})
    place.add_secret("new", **{place.mirror.host: ("alpha", PASSWORD)})
    done = place.verify_json(image, *WEB)
    assert (done.status, done.report["sources"][0]["credential"]["secret"]) == (0, "new")
    node = {"auths": {place.mirror.host: {"auth": basic("alpha", PASSWORD)}}}
    place.node.write("var/lib/kubelet/config.json", json.dumps(node))
    place.add_secret("new", **{place.mirror.host: ("alpha", "mistyped")})
    done = place.verify_json(image, *WEB)
    assert (done.status, done.report["sources"][0]["credential"]["from"]) == (0, "node")


def test_a_short_name_of_another_registry_is_not_shown_the_credential_of_docker_hub(place: Place) -> None:
    """The kubelet hands it over for docker.io/library/nginx; CRI-O shows it to the first search registry."""
    host = place.mirror.host
    registry = f'[[registry]]\nlocation = "{host}"\ninsecure = true\n'
    place.node.write_registries_conf(f'unqualified-search-registries = ["{host}"]\n{registry}')
    place.add_secret("mirror-creds", **{"docker.io": ("alpha", PASSWORD)})
    done = place.verify_json("nginx:1.27", *WEB)
    source = next(source for source in done.report["sources"] if source["name"].startswith(host))
    assert (done.status, source["outcome"], source["credentialSentTo"]) == (1, "unknown", [])
    assert "which verify does not send to another registry" in source["evidence"]
    assert [passed.user for passed in place.mirror.log if passed.user] == []


def test_what_the_kubelet_hands_over_goes_before_helper_programs(place: Place) -> None:
    place.add_secret("mirror-creds", **{place.mirror.host: ("alpha", PASSWORD)})
    image = own_registry(place)
    conf = place.node.registries_conf.read_text()
    place.node.write_registries_conf(f'credential-helpers = ["other"]\n{conf}')
    done = place.verify_json(image, *WEB)
    assert (done.status, done.report["sources"][0]["credential"]["from"]) == (0, "kubelet")


def test_nobody_knows_what_the_kubelet_hands_over(place: Place) -> None:
    """The node may not read a service account's secrets: no verdict is given."""
    image = own_registry(place)
    place.cluster.add_service_account("team-alpha", "other", ["hidden"])
    place.add_secret("hidden", **{place.mirror.host: ("alpha", PASSWORD)})
    done = place.verify_json(image, "-n", "team-alpha", "--service-account", "other")
    assert (done.status, done.report["verdict"]["succeeds"], list(done.outcomes.values())) == (1, None, ["unknown"])
    assert "whether the kubelet passes one is not known: " in done.err
    assert "--pod" in done.report["verdict"]["remedy"]
    place.add_secret("mirror-creds", **{place.mirror.host: ("alpha", PASSWORD)})
    tried = place.verify_json(image, *WEB, "--mirror-registry", place.mirror.host)
    assert (tried.status, tried.outcomes) == (0, {image.removesuffix(":1.27"): "ok"})


def test_the_file_says_what_the_kubelet_hands_over(place: Place) -> None:
    image = own_registry(place)
    file = secrets_file(place, **{place.mirror.host: ("alpha", PASSWORD)})
    done = place.verify_json(image, *WEB, "--secrets", file)
    assert done.status == 1 and "has no Pod team-alpha/web" in done.err
    objects = [json.loads(Path(file).read_text())]
    pod = {"kind": "Pod", "metadata": {"name": "web", "namespace": "team-alpha"}}
    for names, status in ((["from-file"], 0), ([], 3)):
        spec = {"imagePullSecrets": [{"name": name} for name in names]}
        listed = {"kind": "List", "items": [*objects, {**pod, "spec": spec}]}
        with_pod = place.node.write("with-pod.json", json.dumps(listed))
        assert place.verify(image, *WEB, "--secrets", str(with_pod)).status == status
    account = {"kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "team-alpha"}}
    listed = {"kind": "List", "items": [*objects, {**account, "imagePullSecrets": [{"name": "from-file"}]}]}
    with_account = place.node.write("with-account.json", json.dumps(listed))
    done = place.verify(image, "-n", "team-alpha", "--secrets", str(with_account))
    assert done.status == 0
    with_account = place.node.write("with-account.json", json.dumps({"kind": "List", "items": [*objects, account]}))
    other = place.verify(image, "-n", "team-alpha", "--secrets", str(with_account))
    assert other.status == 1 and "but the pod may" in other.err
    assert "imagePullSecrets of its own" in " ".join(done.out.split())


@pytest.mark.parametrize(
    ("image", "keys", "handed"),
    [
        ("quay.io/team/app", ("quay.io", "quay.io/team", "quay.io/other"), ("quay.io/team", "quay.io")),
        (
            "quay.io/team/app",
            ("https://quay.io/v2/", "http://quay.io/v1/team"),
            ("http://quay.io/v1/team", "https://quay.io/v2/"),
        ),
        ("quay.io/team/app", ("quay.io/te", "quay.io/", "quay.io:443"), ("quay.io/te", "quay.io/")),
        ("a.corp.example/x", ("*.corp.example", "*.example", "b.corp.example"), ("*.corp.example",)),
        ("docker.io/library/nginx", ("https://index.docker.io/v1/",), ("https://index.docker.io/v1/",)),
        ("docker.io/library/nginx", ("https://index.docker.io/v1/", "docker.io"), ("docker.io",)),
        ("docker.io/library/nginx", ("registry-1.docker.io",), ()),
        ("quay.io/team/app", ("https://index.docker.io/v1/",), ()),
    ],
)
def test_keys_count_as_for_the_kubelet(image: str, keys: tuple[str, ...], handed: tuple[str, ...]) -> None:
    config = dockerconfig.loads(json.dumps({"auths": {key: {"auth": basic("u", "p")} for key in keys}}).encode())
    found = handedover.select((PullSecret("s", config),), reference.parse(image))
    assert tuple(entry.key for entry in found) == handed


def test_what_has_no_user_is_not_handed_over() -> None:
    auths = {"quay.io": {"identitytoken": "x"}, "quay.io/team": {"auth": basic("u", "p"), "identitytoken": "x"}}
    config = dockerconfig.loads(json.dumps({"auths": auths}).encode())
    (entry,) = handedover.select((PullSecret("s", config),), reference.parse("quay.io/team/app"))
    assert (entry.key, entry.credential) == ("quay.io/team", Credential(b"u", b"p"))


# -- token services and challenges, as a person reads of them ----------------------------------------------------------

TOLD: dict[str, tuple[int, str, tuple[str, ...]]] = {
    # The registry (of odd_registries) -> exit status, the first line, and what else is said.
    "a realm without TLS": (
        1,
        "Whether the pull would succeed is not known: {name}: its token service http://{plain}",
        ("plain HTTP: the credential was not sent (CRI-O sends it)", "Harbor external_url"),
    ),
    "a realm on a dead port": (
        3,
        "The pull would fail. {name}: its token service does not answer",
        ("http://127.0.0.1:1/service/token", "Harbor external_url"),
    ),
    "a web page for a token": (
        3,
        "The pull would fail. {name}: its token service issues no token",
        ("{url}/token", "GitLab token_realm"),
    ),
    "no realm": (3, "The pull would fail. {name}: it has no token service", ("Artifactory base URL",)),
    "a realm that nobody knows": (
        3,
        "The pull would fail. {name}: the name of its token service cannot be resolved",
        ("http://auth.nowhere.invalid/token",),
    ),
    "401 for a token": (
        3,
        "The pull would fail. {name}: its token service refuses the credential",
        ("secret mirror-creds, key {host}: write the current credential there",),
    ),
    "503 for a token": (3, "The pull would fail. {name}: its token service has an internal error", ()),
    "Basic first, Bearer works": (
        3,
        "The pull would fail. {name}: it refuses the credential by the scheme that CRI-O uses",
        (
            "it offers Basic and Bearer, and CRI-O only uses the first",
            "configure the registry to offer Bearer first or alone",
        ),
    ),
    "401 that does not say how": (
        3,
        "The pull would fail. {name}: it does not say how to authenticate",
        ("without a WWW-Authenticate",),
    ),
    "429": (1, "Whether the pull would succeed is not known: {name}: http://{host}", ("CRI-O tries 5 times",)),
    "an open /v2/ that is a web page": (0, "The pull would succeed: {name}:1.27 exists", ()),
}


@pytest.mark.parametrize("name", TOLD)
def test_what_is_said_of_an_odd_registry(place: Place, authority: Authority, name: str) -> None:
    status, first, words = TOLD[name]
    odd = ODD[name]
    context = server_context(authority.issue("r", ip_addresses=["127.0.0.1"])) if odd.tls else None
    with OddRegistry(odd, context) as registry:
        host = registry.registry.host
        conf = table("docker.io", f"{host}/hub", location="hub.nowhere.invalid")
        place.write_conf(conf.replace("insecure = true\n", "") if odd.tls else conf)
        place.node.write(f"etc/containers/certs.d/{host}/ca.crt", authority.certificate_pem)
        place.add_secret("mirror-creds", **{host: ("alpha", PASSWORD)})
        done = place.verify("nginx:1.27", *WEB)
        text = " ".join(done.out.split())

        def fill(text: str) -> str:
            return registry.fill(text).replace("{host}", host).replace("{name}", f"{host}/hub/library/nginx")

        assert (done.status, bool(done.err)) == (status, status == 1), done
        assert text.startswith(fill(first)), text
        for word in map(fill, words):
            assert word in text, text
        source = place.verify_json("nginx:1.27", *WEB).report["sources"][0]
        assert source["outcome"] == ("unknown" if odd.undecided else odd.outcome)
        assert source["tokenService"] == (registry.fill(odd.token_service) or None)


def test_a_registrys_message_is_no_command(place: Place) -> None:
    """Commands are pasted: they come of remedies alone."""
    command = "kubectl delete namespace team-beta"
    denied = answering(403, body=json.dumps({"errors": [{"code": "DENIED", "message": command}]}).encode())
    with OddRegistry(
        Odd("forbidden", "not-allowed", (), challenges=("Basic",), refusal=denied, accepts=""), None
    ) as odd:
        place.write_conf(table("docker.io", f"{odd.registry.host}/hub", location="hub.nowhere.invalid"))
        place.add_secret("mirror-creds", **{odd.registry.host: ("alpha", PASSWORD)})
        done = place.verify("nginx:1.27", *WEB)
    lines = [line.strip() for line in done.out.splitlines()]
    assert f"DENIED: {command}" in " ".join(lines)
    assert command not in lines and not [line for line in lines if line.startswith("kubectl")]


def test_a_helper_program_of_the_node_is_not_run(place: Place) -> None:
    place.node.write("var/lib/kubelet/config.json", json.dumps({"credHelpers": {place.mirror.host: "nowhere"}}))
    place.add_secret("mirror-creds", **{"elsewhere.corp": ("alpha", PASSWORD), "hub.nowhere.invalid": ("a", "b")})
    done = place.verify_json("nginx:1.27", *WEB)
    source = done.report["sources"][0]
    assert (done.status, source["outcome"], done.report["verdict"]["succeeds"]) == (1, "unknown", None)
    assert "helper" in source["evidence"] and "helper" in done.err
    assert {p.path for p in place.mirror.log} == {"/v2/"}


def test_helper_programs_of_registries_conf_are_not_run(place: Place) -> None:
    tables = table("docker.io", f"{place.mirror.host}/hub", location="hub.nowhere.invalid")
    place.node.write_registries_conf(f'credential-helpers = ["other"]\n{SEARCH}{tables}')
    done = place.verify_json("nginx:1.27", *WEB)
    assert (done.status, done.report["sources"][0]["outcome"]) == (1, "unknown")
    assert done.report["verdict"]["succeeds"] is None


# -- when something else is wrong -------------------------------------------------------------------------------------


def test_the_plugin_fails_and_the_pull_goes_on_without(place: Place) -> None:
    place.cluster.revoke("team-alpha", "default")
    done = place.verify_json("nginx:1.27", *WEB)
    assert done.status == 3
    assert "may not list secrets" in done.report["pluginError"]
    assert "may not list secrets" in done.report["verdict"]["text"]
    assert "kubectl -n team-alpha create role" in done.report["verdict"]["remedy"]
    source = done.report["sources"][0]
    assert (source["cause"], source["remedy"]) == ("no-credential", done.report["verdict"]["remedy"])
    text = place.verify("nginx:1.27", *WEB)
    assert "as the plugin does" in text.flat
    # Each thing is told once, and what is pasted stands on a line of its own.
    assert text.flat.count("answered 403") == text.flat.count("may not list secrets") == 1
    role, binding = (line for line in text.lines if "kubectl" in line)
    assert role.startswith("  kubectl -n team-alpha create role ")
    assert binding.startswith("  kubectl -n team-alpha create rolebinding ")
    assert binding.endswith(" --serviceaccount=team-alpha:default")
    assert text.lines[text.lines.index(role) - 1] == "To do: grant it with a Role:"
    assert "add a key" not in text.out


def test_the_plugin_fails_and_the_registry_is_not_at_fault_for_it(place: Place) -> None:
    """The pull does not come to the credential; the plugin's failure is a note."""
    place.cluster.revoke("team-alpha", "default")
    with refused_port() as port:
        place.write_conf(table("docker.io", f"127.0.0.1:{port}", location="hub.nowhere.invalid"))
        text = place.verify("nginx:1.27", *WEB)
    assert "The plugin fails for this pull, and CRI-O reads the node's own auth file" in text.flat
    assert any(line.endswith(" --serviceaccount=team-alpha:default") for line in text.lines)


def test_a_registries_conf_that_cri_o_refuses(place: Place) -> None:
    place.write_conf("[[registry]]\nlocation = \n")
    done = place.verify("nginx:1.27", *WEB)
    assert (done.status, done.out) == (1, "")
    assert "not valid TOML" in done.err and done.err.count("\n") == 1


def test_a_short_name_that_cri_o_cannot_complete(place: Place) -> None:
    place.node.write_registries_conf(table("docker.io", f"{place.mirror.host}/hub", location="hub.nowhere.invalid"))
    done = place.verify_json("nginx:1.27", *WEB)
    assert (done.status, done.report["verdict"]["succeeds"], place.mirror.log) == (3, False, [])
    assert "nginx is a short name" in done.report["verdict"]["text"]
    assert "write the image name in full" in done.report["verdict"]["remedy"]
    place.add_secret("mirror-creds", **{place.mirror.host: ("alpha", PASSWORD)})
    assert place.verify(f"{NGINX}:1.27", *WEB).status == 0


def test_the_cluster_is_away(place: Place) -> None:
    with refused_port() as port:
        done = place.verify("nginx:1.27", *WEB, "--apiserver", f"https://127.0.0.1:{port}", "--deadline", "1s")
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert str(port) in done.err


def test_a_source_that_cannot_be_written(place: Place) -> None:
    place.write_conf(table("docker.io", "Mirror.corp/UPPER", location="hub.nowhere.invalid"))
    done = place.verify("nginx:1.27", *WEB)
    assert done.status in (1, 3) and "an invalid reference" in " ".join((done.out + done.err).split())
    assert place.mirror.log == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "IMAGE is missing"),
        (("nginx",), "-n NAMESPACE is missing"),
        (("UPPER", "-n", "a"), "must be lower case"),
        (("nginx", "-n", "a", "--deadline", "never"), "duration"),
        (("nginx", "-n", "a", "--secrets", "/nonexistent"), "--secrets: /nonexistent: no such file"),
        (("nginx", "-n", "a", "--nonsense"), "unknown flag '--nonsense'"),
    ],
)
def test_wrong_usage(place: Place, arguments: tuple[str, ...], words: str) -> None:
    done = place.verify(*arguments)
    assert (done.status, done.out) == (2, "")
    assert words in done.err


def test_help_tells_examples_and_exit_statuses(place: Place) -> None:
    done = place.verify("--help")
    assert done.status == 0
    assert "Examples:" in done.out and "Exit status:" in done.out
    assert max(map(len, done.out.splitlines())) <= 110


# -- on a terminal, and off it ----------------------------------------------------------------------------------------


def test_names_of_tenants_do_not_move_the_cursor(place: Place) -> None:
    key = f"\x1b[2J{place.mirror.host}"
    file = secrets_file(place, **{place.mirror.host: ("alpha", "wrong"), key: ("a", "b"), "x\x07": ("a", "b")})
    for output in ("text", "json"):
        done = place.verify("nginx:1.27", "-n", "team-alpha", "--secrets", file, "--output", output)
        assert "\x1b" not in done.out + done.err and "\x07" not in done.out


def test_dead_places_are_waited_for_together(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(host: str, *rest: Any, **more: Any) -> registryclient.Verdict:
        time.sleep(0.4)
        return registryclient.Verdict("connect", "no answer", "wait", "timeout")

    monkeypatch.setattr(registryclient, "probe_manifest", slow)
    place.write_conf(table("docker.io", *(f"m{n}.corp" for n in range(8)), location="hub.nowhere.invalid"))
    started = time.monotonic()
    arguments = ["nginx", "-n", "team-alpha", "--secrets", secrets_file(place), "--root", str(place.node.root)]
    assert verify.run([*arguments, "--output", "json"]) == 3
    assert time.monotonic() - started < 2


# -- proxies of CRI-O -------------------------------------------------------------------------------------------------


def process(root: Path, pid: int, name: str, user: int, proxy: str) -> None:
    directory = root / f"proc/{pid}"
    directory.mkdir(parents=True)
    (directory / "cmdline").write_text(f"/usr/bin/{name}\0--log-level\0info\0")
    (directory / "comm").write_text(f"{name}\n")
    (directory / "status").write_text(f"Name:\t{name}\nUid:\t{user}\t{user}\t{user}\t{user}\n")
    (directory / "environ").write_bytes(f"HTTPS_PROXY={proxy}\0no_proxy=.corp\0SECRET=x\0nonsense\0".encode())


def test_the_proxies_are_cri_o_s(tmp_path: Path) -> None:
    process(tmp_path, 12, "bash", 0, "http://of-another:1")
    (tmp_path / "proc/self").mkdir()
    assert asking.runtime_environment("crio", Tree(str(tmp_path))) is os.environ
    process(tmp_path, 34, "crio", 0, "http://proxy.corp:3128")
    assert asking.runtime_environment("crio", Tree(str(tmp_path))) == {
        "HTTPS_PROXY": "http://proxy.corp:3128",
        "no_proxy": ".corp",
    }


def test_no_proxy_of_a_process_that_anybody_names_so(tmp_path: Path) -> None:
    """Credentials would go through it."""
    process(tmp_path, 12, "crio", 1000, "http://evil.corp:1")
    assert asking.runtime_environment("crio", Tree(str(tmp_path))) is os.environ
    # A container's, which may be root there.
    process(tmp_path, 13, "crio", 0, "http://evil.corp:1")
    for pid, namespace in ((1, "node"), (13, "container")):
        (tmp_path / f"proc/{pid}/ns").mkdir(parents=True)
        (tmp_path / f"proc/{pid}/ns/pid").write_text(namespace)
    assert asking.runtime_environment("crio", Tree(str(tmp_path))) is os.environ


@pytest.mark.skipif(os.geteuid() != 0, reason="CRI-O is root's")
def test_a_process_of_that_name_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = shutil.copy(shutil.which("sleep") or "/bin/sleep", tmp_path / "crio")
    with subprocess.Popen([program, "30"], env={"HTTP_PROXY": "http://found.corp:1"}) as process:
        try:
            # Other tests, and other people, have processes of that name as well.
            monkeypatch.setattr(commandline, "_pids", lambda tree: [str(process.pid)])
            monkeypatch.setattr(commandline, "_is_of_the_node", lambda tree, pid: pid == str(process.pid))
            deadline = time.monotonic() + 5
            while asking.runtime_environment("crio") != {"HTTP_PROXY": "http://found.corp:1"}:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            process.kill()
