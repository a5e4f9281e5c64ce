"""A tenant with a kubeconfig and no access to the node: what kubectl mirror-credentials says of its pods."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from realnode.controlplane import URL
from realnode.node import Node
from realnode.tenants import Tenant

pytestmark = pytest.mark.ours

PAGE = Path(__file__).parents[2] / "docs/how-to/kubectl-plugin.md"
USER = "alice"


class Laptop:
    """kubectl, the plugin and a kubeconfig of a user who may nothing yet."""

    def __init__(self, node: Node, root: Path) -> None:
        self._node = node
        certificate, key = node.control_plane.authority.issue(USER, common_name=USER)
        self._kubeconfig = root / "kubeconfig"
        node.control_plane.authority.write_kubeconfig(self._kubeconfig, URL, certificate, key)
        self._path = root / "bin"
        self._path.mkdir()
        (self._path / "kubectl").symlink_to(Path(os.environ["NODE_BIN"], "kubectl"))
        (self._path / "kubectl-mirror_credentials").symlink_to(node.program.path)

    def explain(self, *arguments: str) -> tuple[int, Any]:
        """Exit status, and the report of the one image; what was said on stderr, where there is none."""
        command = ["kubectl", "mirror-credentials", "explain", *arguments, "--output=json"]
        environment = {
            "PATH": f"{self._path}:/usr/bin:/bin",
            "KUBECONFIG": str(self._kubeconfig),
            "HOME": "/nonexistent",
        }
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
        return done.returncode, json.loads(done.stdout)["images"][0] if done.stdout else done.stderr

    def grant(self, namespace: str) -> None:
        """As the page for tenants says."""
        commands = re.findall(r"^kubectl -n team-alpha create .*", PAGE.read_text().replace("\\\n", ""), re.MULTILINE)
        assert len(commands) == 2
        for command in commands:
            self._node.control_plane.kubectl(*shlex.split(command.replace("team-alpha", namespace))[1:])


@pytest.fixture
def laptop(node: Node, tmp_path: Path) -> Laptop:
    return Laptop(node, tmp_path)


def test_a_tenant_sees_what_the_node_does(node: Node, laptop: Laptop, tenant: Tenant, image: str) -> None:
    conf = "--registries-conf=/etc/containers/registries.conf"
    web = ("web", "-n", tenant.namespace)
    assert tenant.run("web", image).runs_within(30)
    status, said = laptop.explain(*web, conf)
    assert status == 1 and f'User "{USER}" cannot get resource "pods"' in said
    laptop.grant(tenant.namespace)
    status, said = laptop.explain(*web)
    assert status == 1 and "the nodes' registries.conf is not known" in said

    status, told = laptop.explain(*web, conf)
    assert (status, told["plugin"]["outcome"]) == (0, "auth-file-written"), told
    assert any("is assumed" in note for note in told["notes"])
    # Published as the page for the platform team says, and readable by everybody who can log in.
    node.control_plane.apply(node.program.run("manifests", "registries"))
    assert laptop.explain(*web)[0] == 0

    tenant.delete_secret()
    status, told = laptop.explain(*web)
    assert (status, told["plugin"]["outcome"]) == (3, "nothing-to-do")
    assert "the node may have one" in told["verdict"]["text"]


def test_a_tenant_who_may_impersonate_sees_the_missing_role(node: Node, laptop: Laptop, image: str) -> None:
    tenant = node.new_tenant(granted=False)
    assert "authentication required" in tenant.run("web", image).fails_within(30)
    laptop.grant(tenant.namespace)
    arguments = ("web", "-n", tenant.namespace, "--registries-conf=/etc/containers/registries.conf")
    # Alice may read the secrets; that the service account may is assumed, and said to be.
    assert laptop.explain(*arguments)[0] == 0
    for what in (
        ("role", "impersonate", "--verb=impersonate", "--resource=serviceaccounts"),
        ("rolebinding", "impersonate", "--role=impersonate", f"--user={USER}"),
    ):
        node.control_plane.kubectl("-n", tenant.namespace, "create", *what)
    status, told = laptop.explain(*arguments)
    assert (status, told["plugin"]["outcome"]) == (3, "fault-cluster")
    assert "service account default may not list secrets" in told["verdict"]["text"]
    assert not any("is assumed" in note for note in told["notes"])
