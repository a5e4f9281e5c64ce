"""``explain`` on a node with a cluster of two teams, run as a person runs it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from commandline import Done, command
from crio_credential_provider.commands import explain
from crio_credential_provider.testbed.certificates import Authority
from crio_credential_provider.testbed.cluster import ApiServer
from node import Node, basic

MIRROR = "mirror.corp:5000"
SOURCE = f"{MIRROR}/hub/library/nginx"
CANARY = "c4nary-Pa55word"
CONF = f"""\
unqualified-search-registries = ["docker.io"]

[[registry]]
prefix = "docker.io"
location = "docker.io"

[[registry.mirror]]
location = "{MIRROR}/hub"

[[registry.mirror]]
location = "digests.corp/hub"
pull-from-mirror = "digest-only"
"""
CURRENT = "/var/lib/kubelet/pki/kubelet-client-current.pem"


class Place:
    """A node, its kubelet's kubeconfig, and a cluster with two teams: alpha has a credential for the mirror."""

    def __init__(self, node: Node, cluster: ApiServer) -> None:
        self.node = node
        self.cluster = cluster
        node.write_registries_conf(CONF)
        node.write("etc/systemd/system/kubelet.service", "[Service]\nExecStart=/usr/bin/kubelet\n")
        node.write("etc/crio/crio.conf", "")
        node.write_kubeconfig(cluster.url, cluster.authority.certificate_pem)
        identity = cluster.node_identity("node1")
        node.write(CURRENT, identity.certificate_pem + identity.key_pem)
        for team, key in (("alpha", MIRROR), ("beta", "docker.io")):
            namespace = f"team-{team}"
            cluster.add_secret(namespace, "creds", {"auths": {key: {"auth": basic("user", CANARY)}}})
            cluster.add_service_account(namespace, "default", ["creds"])
            cluster.add_pod(namespace, "web", "node1")
            cluster.allow(namespace, "default")

    def run(self, *arguments: str) -> Done:
        """As $PROGRAM, else in this process."""
        given = [*arguments, "--root", str(self.node.root)]
        before = self.files()
        done = command("explain", explain.run, given)
        assert self.files() == before, "it only looks"
        assert_clean(done.out + done.err)
        return done

    def json(self, *arguments: str) -> Done:
        return self.run(*arguments, "--output=json")

    def alpha(self, *arguments: str) -> Done:
        return self.json("nginx:1.27", "-n", "team-alpha", "--pod=web", *arguments)

    def beta(self, *arguments: str) -> Done:
        return self.json("nginx:1.27", "-n", "team-beta", "--pod=web", *arguments)

    def files(self) -> list[tuple[str, float]]:
        return sorted((str(p), p.stat().st_mtime) for p in self.node.root.rglob("*") if p.is_file())

    def write_user(self, members: Mapping[str, str]) -> Path:
        """A person's kubeconfig."""
        path = self.node.root / "admin.conf"
        path.write_text(
            json.dumps(
                {
                    "kind": "Config",
                    "clusters": [{"name": "c", "cluster": {"server": self.cluster.url, "certificate-authority": "ca"}}],
                    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                    "current-context": "x",
                    "users": [{"name": "u", "user": dict(members)}],
                }
            )
        )
        (self.node.root / "ca").write_text(self.cluster.authority.certificate_pem)
        return path

    def write_admin(self, authority: Authority) -> Path:
        identity = authority.issue("admin", organization="system:masters", client=True)
        self.node.write("admin.pem", identity.certificate_pem + identity.key_pem)
        return self.write_user({"client-certificate": "admin.pem", "client-key": "admin.pem"})

    def write_objects(self, text: str) -> str:
        return str(self.node.write("objects.yaml", text))


def assert_clean(text: str) -> None:
    """Neither a secret's content, nor a token, nor a control character."""
    assert CANARY not in text
    assert basic("user", CANARY) not in text
    assert not re.search(r"[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}\.", text), "a token"
    assert all(character.isprintable() or character == "\n" for character in text)


def secret(name: str, auths: Mapping[str, Any], namespace: str = "team-alpha", **members: Any) -> dict[str, Any]:
    content = json.dumps({"auths": auths})
    return {
        "kind": "Secret",
        "apiVersion": "v1",
        "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": name, "namespace": namespace},
        "data": {".dockerconfigjson": base64.b64encode(content.encode()).decode()},
        **members,
    }


def entry(key: str) -> dict[str, Any]:
    return {key: {"auth": basic("user", CANARY)}}


FORMS = {
    "list": lambda items: json.dumps({"kind": "List", "apiVersion": "v1", "items": items}),
    "secret list": lambda items: json.dumps(
        {"kind": "SecretList", "items": [{k: v for k, v in i.items() if k != "kind"} for i in items]}
    ),
    "one": lambda items: json.dumps(items[0]),
    "documents": lambda items: "---\n".join(f"# a comment\n{json.dumps(item, indent=1)}\n" for item in items),
}
