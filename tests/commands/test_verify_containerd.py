"""``verify`` for containerd: each host asked at its own URL, with the credential that is for it and no other."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commandline import Done, command
from containerd_node import PASSWORD, ContainerdNode, alone, host
from crio_credential_provider.commands import verify
from crio_credential_provider.testbed.certificates import Authority
from crio_credential_provider.testbed.registry import MirrorRegistry
from node import basic

USER = ("alpha", PASSWORD)
NGINX = "library/nginx"


@pytest.fixture
def node(tmp_path: Path) -> ContainerdNode:
    return ContainerdNode(tmp_path)


@pytest.fixture
def mirror() -> Iterator[MirrorRegistry]:
    with MirrorRegistry({"alpha": (PASSWORD, ["hub", "library"])}) as made:
        for repository in (NGINX, f"hub/{NGINX}"):
            made.add_image(repository, "1.27")
        yield made


@pytest.fixture
def upstream() -> Iterator[MirrorRegistry]:
    """What stands in for the registry itself: it wants a credential as well."""
    with MirrorRegistry({"alpha": (PASSWORD, ["library"])}) as made:
        made.add_image(NGINX, "1.27")
        yield made


def run(node: ContainerdNode, secrets: Any, *arguments: str, image: str = "nginx:1.27") -> Done:
    done = command("verify", verify.run, node.arguments(image, secrets, *arguments))
    for text in (done.out, done.err):
        assert PASSWORD not in text and basic("alpha", PASSWORD) not in text
        assert base64.b64encode(PASSWORD.encode()).decode() not in text
        for word in ("CRI-O", "auth file", "registries.conf"):
            assert word not in text
    return done


def asked(registry: MirrorRegistry) -> list[tuple[Any, ...]]:
    return [tuple(pulled) for pulled in registry.log]


def test_a_pull_that_would_succeed(node: ContainerdNode, mirror: MirrorRegistry) -> None:
    node.write_hosts(alone(mirror.url) + host(mirror.url))
    done = run(node, {"creds": {mirror.host: USER}}, "--output=json")
    assert (done.status, done.err) == (0, "")
    assert (done.report["runtime"], done.report["verdict"]["succeeds"]) == ("containerd", True)
    (source,) = done.report["sources"]
    assert (source["name"], source["url"]) == (f"{mirror.host}/{NGINX}", f"{mirror.url}/v2")
    assert (source["outcome"], source["credentialSentTo"]) == ("ok", [mirror.host])
    path = f"/v2/{NGINX}/manifests/1.27?ns=docker.io"
    assert asked(mirror) == [("HEAD", path, None, 401), ("HEAD", path, "alpha", 200)]


def test_the_path_of_the_file(node: ContainerdNode, mirror: MirrorRegistry) -> None:
    node.write_hosts(
        f'server = "{mirror.url}/v2/hub"\noverride_path = true\n' + host(f"{mirror.url}/v2/hub", "override_path = true")
    )
    done = run(node, {"creds": {f"{mirror.host}/hub": USER}})
    assert done.status == 0, done.out
    assert done.out.startswith(f"The pull would succeed: {mirror.host}/hub/{NGINX}:1.27 exists.")
    assert {pulled.path for pulled in mirror.log} == {f"/v2/hub/{NGINX}/manifests/1.27?ns=docker.io"}


def test_the_registry_itself_gets_no_namespace(node: ContainerdNode, mirror: MirrorRegistry) -> None:
    node.write_hosts(host(mirror.url), mirror.host)
    run(node, {"creds": {mirror.host: USER}}, image=f"{mirror.host}/{NGINX}:1.27")
    assert {pulled.path for pulled in mirror.log} == {f"/v2/{NGINX}/manifests/1.27"}


def test_a_refused_pull_asks_without_the_credential(
    node: ContainerdNode, mirror: MirrorRegistry, upstream: MirrorRegistry
) -> None:
    """In strict mode nobody is shown it."""
    node.write_hosts(f'server = "{upstream.url}"\n' + host(mirror.url))
    done = run(node, {"creds": {mirror.host: USER}})
    assert done.status == 3
    assert f"The pull would fail. {mirror.host}/{NGINX}: it requires a credential, and there is none." in done.flat
    assert "To do: at the top of " in done.flat and f"to {upstream.url}/v2 as well" in done.flat
    assert {pulled.user for pulled in (*mirror.log, *upstream.log)} == {None}


def test_a_host_that_sees_it_by_fallback_alone_is_not_sent_it(
    node: ContainerdNode, mirror: MirrorRegistry, upstream: MirrorRegistry
) -> None:
    node.write_hosts(f'server = "{upstream.url}"\n' + host(mirror.url))
    done = run(node, {"creds": {mirror.host: USER}}, "--allow-fallback-exposure", "--output=json")
    assert done.status == 0
    assert done.outcomes == {f"{mirror.host}/{NGINX}": "ok", f"{upstream.host}/{NGINX}": "unauthorized"}
    assert {pulled.user for pulled in upstream.log} == {None}


def test_a_credential_that_was_rotated(node: ContainerdNode, mirror: MirrorRegistry) -> None:
    node.write_hosts(alone(mirror.url) + host(mirror.url))
    done = run(node, {"creds": {mirror.host: ("alpha", f"{PASSWORD}-of-yesterday")}})
    assert done.status == 3
    assert f"To do: secret creds, key {mirror.host}: write the current credential there" in done.flat


def test_what_the_kubelet_passes_stays_with_the_registry_itself(
    node: ContainerdNode, mirror: MirrorRegistry, upstream: MirrorRegistry
) -> None:
    node.write_hosts(f'server = "{upstream.url}"\n' + host(mirror.url), upstream.host)
    done = run(node, {"of-the-account": {upstream.host: USER}}, image=f"{upstream.host}/{NGINX}:1.27")
    assert {pulled.user for pulled in mirror.log} == {None}
    assert "alpha" in {pulled.user for pulled in upstream.log}
    assert (
        f"The kubelet also passes the credential of secret of-the-account, key {upstream.host}, which containerd shows "
        f"to {mirror.url}/v2; verify does not send it there."
    ) in done.flat


def test_containerds_own_credential_is_not_known(node: ContainerdNode, mirror: MirrorRegistry) -> None:
    node.write_hosts(alone(mirror.url) + host(mirror.url))
    config = (node.root / "etc/containerd/config.toml").read_text()
    table = f'[plugins."io.containerd.grpc.v1.cri".registry.configs."{mirror.host}".auth]'
    node.write("etc/containerd/config.toml", f'{config}{table}\nusername = "alpha"\npassword = "{PASSWORD}"\n')
    done = run(node, {})
    assert done.status == 1
    assert "containerd has a credential for it in config.toml, which verify does not read" in done.flat


def test_headers_are_named_and_not_sent(node: ContainerdNode, mirror: MirrorRegistry) -> None:
    node.write_hosts(alone(mirror.url) + host(mirror.url) + f'[host."{mirror.url}".header]\nX-Token = "{PASSWORD}"\n')
    done = run(node, {"creds": {mirror.host: ("alpha", "wrong-one")}})
    assert done.status == 1
    assert "containerd also sends the headers X-Token of " in done.flat
    mirror.log.clear()
    assert run(node, {"creds": {mirror.host: USER}}).status == 0


@pytest.fixture
def tls_mirror(authority: Authority) -> Iterator[MirrorRegistry]:
    identity = authority.issue("mirror", ip_addresses=["127.0.0.1"])
    with MirrorRegistry({"alpha": (PASSWORD, ["library"])}, identity=identity) as made:
        made.add_image(NGINX, "1.27")
        yield made


def test_the_ca_of_the_file(node: ContainerdNode, tls_mirror: MirrorRegistry, authority: Authority) -> None:
    secrets = {"creds": {tls_mirror.host: USER}}
    path = node.write_hosts(alone(tls_mirror.url) + host(tls_mirror.url))
    done = run(node, secrets)
    assert done.status == 3
    assert f"To do: write ca for {tls_mirror.host} in {path}, which containerd reads at each pull" in done.flat
    node.write_hosts(alone(tls_mirror.url) + host(tls_mirror.url, 'ca = "ca.crt"'))
    assert "ca.crt: no such file" in run(node, secrets).flat
    node.write("etc/containerd/certs.d/docker.io/ca.crt", authority.certificate_pem)
    assert run(node, secrets).status == 0
    node.write_hosts(alone(tls_mirror.url) + host(tls_mirror.url, "skip_verify = true"))
    assert run(node, secrets).status == 0


def test_tls_where_the_file_says_http_not(node: ContainerdNode, mirror: MirrorRegistry) -> None:
    https = mirror.url.replace("http:", "https:")
    path = node.write_hosts(alone(https) + host(https))
    done = run(node, {"creds": {mirror.host: USER}})
    assert done.status == 3
    assert "does not speak TLS; over plain HTTP a registry answers there" in done.flat
    assert f"configure TLS there; http:// in {path} has plain HTTP asked" in done.flat


def test_files_that_cannot_be_read(node: ContainerdNode) -> None:
    node.write("etc/containerd/config.toml", "version = \n")
    done = run(node, {})
    assert done.status == 1
    assert "not valid TOML" in done.err
