"""``kubectl mirror-credentials`` for nodes with containerd: by a copy of their files, never this machine's."""

from __future__ import annotations

from pathlib import Path

import pytest

from crio_credential_provider.testbed.cluster import ApiServer
from crio_credential_provider.testbed.registry import MirrorRegistry
from tenants import CANARY, CONF, MIRROR, Tenants

pytestmark = pytest.mark.process

HOSTS = f'server = "https://{MIRROR}"\n[host."https://{MIRROR}"]\ncapabilities = ["pull", "resolve"]\n'


@pytest.fixture
def tenants(tmp_path: Path, cluster: ApiServer) -> Tenants:
    made = Tenants(tmp_path, cluster)
    write_hosts(made, HOSTS)
    return made


def write_hosts(tenants: Tenants, text: str) -> None:
    directory = tenants.root / "certs.d/docker.io"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "hosts.toml").write_text(text)


def test_a_copy_of_certs_d(tenants: Tenants) -> None:
    flag = f"--registries-conf={tenants.root}/certs.d"
    done = tenants.run("explain", "web", flag)
    assert (done.status, done.err) == (0, "")
    assumed = (
        f"This is not a node: containerd's files are those of {tenants.root}/certs.d, the plugin's settings are its"
    )
    assert done.flat.startswith(f"{assumed} defaults.")
    assert f"containerd the credential of secret creds, for {MIRROR}/library/nginx." in done.flat
    for word in ("CRI-O", "auth file", "registries.conf"):
        assert word not in done.out
    beta = tenants.run("explain", "web", "-n", "team-beta", flag)
    assert beta.status == 3
    assert f"To do: create a pull secret in the namespace with a key for {MIRROR}:" in beta.flat


def test_a_copied_config_toml(tenants: Tenants) -> None:
    file = tenants.root / "config.toml"
    file.write_text(
        'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]\n'
        f'endpoint = ["https://{MIRROR}"]\n'
    )
    status, report = tenants.explain("web", f"--registries-conf={file}")
    assert (status, report["runtime"], report["plugin"]["reason"][:33]) == (
        3,
        "containerd",
        "containerd would show the credent",
    )


def tell_runtime(tenants: Tenants, version: str) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"}}
    tenants.cluster.others.append({**node, "status": {"nodeInfo": {"containerRuntimeVersion": version}}})
    tenants.grant("alice", "", "nodes")


def test_the_nodes_own_word_of_its_runtime(tenants: Tenants) -> None:
    tell_runtime(tenants, "containerd://2.1.4")
    done = tenants.run("explain", "web")
    assert done.status == 1
    assert "node node1 has containerd://2.1.4: containerd reads no registries.conf; ask the platform team" in done.err
    assert tenants.run("explain", "web", f"--registries-conf={tenants.root}/certs.d").status == 0


def test_files_of_containerd_for_a_node_with_crio(tenants: Tenants) -> None:
    tell_runtime(tenants, "cri-o://1.34.1")
    done = tenants.run("explain", "web", f"--registries-conf={tenants.root}/certs.d")
    assert done.status == 1
    assert "node node1 has cri-o://1.34.1: CRI-O reads no hosts.toml" in done.err
    conf = tenants.root / "registries.conf"
    conf.write_text(CONF)
    assert tenants.run("explain", "web", f"--registries-conf={conf}").status == 0


def test_verify_asks_the_hosts_of_the_copy(tenants: Tenants) -> None:
    with MirrorRegistry({"user": (CANARY, ["library"])}) as mirror:
        mirror.add_image("library/nginx", "1.27")
        write_hosts(tenants, HOSTS.replace(f"https://{MIRROR}", mirror.url))
        tenants.cluster.add_secret(
            "team-alpha", "creds", {"auths": {mirror.host: {"username": "user", "password": CANARY}}}
        )
        done = tenants.run("verify", "web", f"--registries-conf={tenants.root}/certs.d")
    assert done.status == 0, done.out + done.err
    assert f"The pull would succeed: {mirror.host}/library/nginx:1.27 exists." in done.flat


def test_a_directory_without_hosts(tenants: Tenants) -> None:
    (tenants.root / "empty").mkdir()
    done = tenants.run("explain", "web", f"--registries-conf={tenants.root}/empty")
    assert done.status == 1
    assert (
        "has no HOST/hosts.toml; give a copy of containerd's config_path, such as /etc/containerd/certs.d" in done.err
    )


def test_audit_takes_the_same(tenants: Tenants) -> None:
    done = tenants.run("audit", "-n", "team-alpha", f"--registries-conf={tenants.root}/certs.d")
    assert done.status == 0
    assert "None of 2 pulls of 1 namespace would fail." in done.flat
