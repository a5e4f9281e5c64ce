"""The main job on a node: one pull that gets its auth file, and a node that has had one."""

from __future__ import annotations

import time

from crio_credential_provider.testbed.cluster import ApiServer
from node import Node, request


def assert_serves(node: Node, cluster: ApiServer, token: str) -> None:
    """As the kubelet would have it."""
    node.join(cluster)
    run = node.run(request(token=token))
    assert (run.status, run.stderr) == (0, "")
    (content,) = node.auth_files().values()
    assert list(content["auths"]) == ["mirror.corp:5000/hub/library/nginx"]


def warm(node: Node, cluster: ApiServer, token: str) -> Node:
    """A node whose configuration is old enough to be kept in its parsed form, and was read."""
    node.join(cluster)
    deadline = time.monotonic() + 15
    while not (list(node.cache_dir.glob("registries-*.json")) and list(node.cache_dir.glob("kubeconfig-*.json"))):
        assert time.monotonic() < deadline, "nothing was kept"
        time.sleep(0.3)
        assert node.run(request(token=token)).status == 0
        for file in node.auth_dir.glob("*.json"):
            file.unlink()
    return node
