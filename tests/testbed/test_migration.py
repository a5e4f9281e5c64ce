"""docs/how-to/migrate.md, step by step on a simulated node: after each step every pull holds."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from crio_credential_provider.testbed.cluster import ApiServer
from crio_credential_provider.testbed.crio import ContainerRuntime
from crio_credential_provider.testbed.node import Kubelet, dumps_request
from crio_credential_provider.testbed.registry import MirrorRegistry
from node import COMMAND, ENVIRONMENT, basic, kubeconfig_yaml, write

pytestmark = pytest.mark.process

IMAGE, STATIC = "docker.io/nginx:1.27", "docker.io/platform/proxy:1"
NODE, PLATFORM, ALPHA, BETA = "node", "platform", "alpha", "beta"
# The whole of the mirror, or what the user needs of it.
USERS = {NODE: ["hub"], PLATFORM: ["hub/platform"], ALPHA: ["hub/library"], BETA: ["hub/library"]}


class Migration:
    """One node, two teams, a static pod, and a mirror with a user for each."""

    def __init__(self, root: Path, cluster: ApiServer, mirror: MirrorRegistry) -> None:
        self._root, self._cluster, self._mirror = root, cluster, mirror
        table = '[[registry]]\nlocation = "docker.io"\nblocked = true\n'
        mirrors = f'[[registry.mirror]]\nlocation = "{mirror.host}/hub"\ninsecure = true\n'
        write(root, "etc/containers/registries.conf", table + mirrors)
        self._global_auth_file = root / "var/lib/kubelet/config.json"
        self.hold({"": NODE})
        self._crio = ContainerRuntime(str(root), global_auth_file=str(self._global_auth_file))
        self._kubelet: Kubelet | None = None
        for team in (ALPHA, BETA):
            cluster.add_service_account(f"team-{team}", "default")
            cluster.add_pod(f"team-{team}", "web", "node1", image=IMAGE)

    def hold(self, users: Mapping[str, str]) -> None:
        """What the node's own file has: path below the mirror's host -> user. By a rename: a pull may read it now."""
        auths = {f"{self._mirror.host}{path}": {"auth": basic(user, f"{user}pw")} for path, user in users.items()}
        fresh = write(self._root, "var/lib/kubelet/config.json.new", json.dumps({"auths": auths}))
        os.rename(fresh, self._global_auth_file)

    def install(self) -> None:
        authority = self._cluster.authority
        members = {"server": self._cluster.url, "certificate-authority": f"{self._root}/etc/kubernetes/ca.crt"}
        write(self._root, "etc/kubernetes/ca.crt", authority.certificate_pem)
        write(self._root, "etc/kubernetes/kubelet.conf", kubeconfig_yaml(members))
        for team in (ALPHA, BETA):
            self._cluster.allow(f"team-{team}", "default")
        self._kubelet = Kubelet([*COMMAND, "--root", str(self._root)], self._cluster, ENVIRONMENT)

    def set_secret(self, team: str, password: str = "") -> None:
        auths = {self._mirror.host: {"auth": basic(team, password or f"{team}pw")}}
        self._cluster.add_secret(f"team-{team}", "mirror-creds", {"auths": auths})

    def users(self) -> dict[str, str]:
        """Who each pod's image is pulled as; "" where the pull fails."""
        found = {}
        for namespace in (f"team-{ALPHA}", f"team-{BETA}", "kube-system"):
            is_static = namespace == "kube-system"
            image = STATIC if is_static else IMAGE
            if self._kubelet:
                # The kubelet has no token for a static pod.
                run = self._kubelet.run(dumps_request(image)) if is_static else self._kubelet.ask(namespace, "web")
                assert run.error == "", run
            pull = self._crio.pull(image, namespace)
            found[namespace.removeprefix("team-")] = pull.attempts[-1].user if pull.digest else ""
        return found


@pytest.fixture
def node(tmp_path: Path, cluster: ApiServer) -> Iterator[Migration]:
    with MirrorRegistry({user: (f"{user}pw", paths) for user, paths in USERS.items()}) as mirror:
        mirror.add_image("hub/library/nginx", "1.27")
        mirror.add_image("hub/platform/proxy", "1")
        yield Migration(tmp_path, cluster, mirror)


def test_every_pull_holds_at_every_step(node: Migration) -> None:
    assert node.users() == {ALPHA: NODE, BETA: NODE, "kube-system": NODE}
    node.install()
    assert node.users() == {ALPHA: NODE, BETA: NODE, "kube-system": NODE}
    node.hold({"": NODE, "/hub/platform": PLATFORM})
    assert node.users() == {ALPHA: NODE, BETA: NODE, "kube-system": PLATFORM}
    node.set_secret(ALPHA)
    assert node.users() == {ALPHA: ALPHA, BETA: NODE, "kube-system": PLATFORM}
    node.set_secret(BETA)
    assert node.users() == {ALPHA: ALPHA, BETA: BETA, "kube-system": PLATFORM}
    node.hold({"/hub/platform": PLATFORM})
    assert node.users() == {ALPHA: ALPHA, BETA: BETA, "kube-system": PLATFORM}
    # And back.
    node.hold({"": NODE, "/hub/platform": PLATFORM})
    assert node.users() == {ALPHA: ALPHA, BETA: BETA, "kube-system": PLATFORM}


def test_what_each_step_is_for(node: Migration) -> None:
    """Without it these pulls fail."""
    node.set_secret(ALPHA, "of last year")
    node.install()
    assert node.users() == {ALPHA: "", BETA: NODE, "kube-system": NODE}
    node.set_secret(ALPHA)
    node.hold({})
    assert node.users() == {ALPHA: ALPHA, BETA: "", "kube-system": ""}
