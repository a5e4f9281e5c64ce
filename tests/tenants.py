"""Tenants of the simulated API server, with kubeconfigs of their own; asked through the real kubectl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from commandline import Done, here
from crio_credential_provider.commands.plugin import kubectl
from crio_credential_provider.testbed.cluster import ApiServer
from crio_credential_provider.testbed.rbac import Grant
from node import basic
from real_programs import need

Object = dict[str, Any]

MIRROR, CANARY = "mirror.corp:5000", "c4nary-Pa55word"
CONF = f"""\
unqualified-search-registries = ["docker.io"]
[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "{MIRROR}/hub"
"""
IMAGE = "nginx:1.27"
PUBLISHED = "crio-credential-provider-registries"
CONFIG = """\
kind: CredentialProviderConfig
providers:
  - name: crio-credential-provider
    args: [--secrets-from=pod]
    tokenAttributes: {serviceAccountTokenAudience: x}
"""


class Tenants:
    """A cluster: team-alpha has a credential for the mirror, team-beta one for another host; both a pod ``web`` and a
    Deployment ``web``. Alice may read what the docs say in both."""

    def __init__(self, root: Path, cluster: ApiServer) -> None:
        need("kubectl")
        self.root, self.cluster = root, cluster
        for team, key in (("alpha", MIRROR), ("beta", "docker.io")):
            namespace = f"team-{team}"
            cluster.add_secret(namespace, "creds", {"auths": {key: {"auth": basic("user", CANARY)}}})
            cluster.add_service_account(namespace, "default", ["creds"])
            cluster.add_pod(namespace, "web", "node1")
            cluster.pods[namespace, "web"]["spec"]["containers"] = [{"name": "c", "image": IMAGE}]
            cluster.allow(namespace, "default")
            template = {"spec": {"containers": [{"name": "c", "image": IMAGE}, {"name": "d", "image": "quay.io/a/b"}]}}
            metadata = {"namespace": namespace, "name": "web"}
            deployment = {"kind": "Deployment", "metadata": metadata, "spec": {"template": template}}
            cluster.others.append({"apiVersion": "apps/v1", **deployment})
            for resource in ("pods", "serviceaccounts", "secrets"):
                self.grant("alice", namespace, resource)
            self.grant("alice", namespace, "deployments", group="apps")
        self.grant("alice", "kube-public", "configmaps")
        self.publish({"registries.conf": CONF})
        self.log_in("alice")

    def grant(self, user: str, namespace: str, resource: str, *verbs: str, group: str = "") -> None:
        allowed = frozenset(verbs or ("get", "list"))
        self.cluster.grants.append(Grant(user, namespace, allowed, resource, None, "tenant", group))

    def publish(self, data: dict[str, str]) -> None:
        self.cluster.others[:] = [found for found in self.cluster.others if found["kind"] != "ConfigMap"]
        metadata = {"namespace": "kube-public", "name": PUBLISHED}
        self.cluster.others.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})

    def log_in(self, user: str, namespace: str = "team-alpha") -> Path:
        identity = self.cluster.authority.issue(user, organization="people", client=True)
        files = {"c": identity.certificate_pem, "k": identity.key_pem, "a": self.cluster.authority.certificate_pem}
        for name, text in files.items():
            (self.root / name).write_text(text)
        cluster = {"server": self.cluster.url, "certificate-authority": f"{self.root}/a"}
        person = {"client-certificate": f"{self.root}/c", "client-key": f"{self.root}/k"}
        context = {"cluster": "x", "user": "x", "namespace": namespace}
        path = self.root / "kubeconfig"
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "x",
                    "clusters": [{"name": "x", "cluster": cluster}],
                    "users": [{"name": "x", "user": person}],
                    "contexts": [{"name": "x", "context": context}],
                }
            )
        )
        return path

    def run(self, *arguments: str) -> Done:
        """The command in this process. No content of a secret is in what it says."""
        done = here(lambda: kubectl.run([*arguments, f"--kubeconfig={self.root}/kubeconfig"]))
        for secret in (CANARY, basic("user", CANARY)):
            assert secret not in done.out + done.err
        return done

    def explain(self, *arguments: str) -> Any:
        """Status and the report of one image."""
        done = self.run("explain", *arguments, "--output=json")
        return done.status, done.report["images"][0] if done.out else done.err

    def asked(self) -> list[tuple[str, str]]:
        """Who asked for what."""
        return [(asked.user, asked.path.partition("?")[0]) for asked in self.cluster.requests]
