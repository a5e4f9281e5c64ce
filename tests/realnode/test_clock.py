"""A clock that is wrong, as far as it can be without the machine's: certificates and files of another time.

A token's time is the API server's alone, which issues it and reads it.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest

from realnode.node import Node
from realnode.runtimes import AUTH_DIR
from realnode.tenants import Tenant

pytestmark = pytest.mark.ours

DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("offset", "reason"),
    [(-DAY, "its certificate is not valid yet"), (DAY, "its certificate has expired")],
    ids=["not valid yet", "expired"],
)
def test_certificate_of_the_api_server(node: Node, tenant: Tenant, image: str, offset: timedelta, reason: str) -> None:
    """As a node sees it whose clock is a day behind or ahead; the kubelet goes on by the connection that it has."""
    assert tenant.run("before", node.registry.new_image()).runs_within(30)
    with node.control_plane.valid_around(datetime.now(UTC) - offset):
        pod = tenant.run("web", image)
        failure = pod.fails_within(30)
        assert "authentication required" in failure, failure or f"no failed pull: {pod.events()}"
        assert reason in node.kubelet.said_of(image)
        assert node.findings() == ["apiserver-certificate"]
    assert pod.runs_within(60), f"not running: {pod.events()}"


def test_a_file_of_the_future_does_not_hold_up_a_pull(node: Node, tenant: Tenant, image: str) -> None:
    """The clock was set back after a check of an image that is there had left it; the next run writes over it."""
    for name in ("first", "second"):
        assert tenant.run(name, image, policy="IfNotPresent").runs_within(30)
    (left,) = node.auth_files(tenant)
    tomorrow = (datetime.now(UTC) + DAY).timestamp()
    os.utime(AUTH_DIR / left, (tomorrow, tomorrow))
    pod = tenant.run("third", image)
    assert pod.runs_within(10), f"not running: {pod.events()}"
    assert not node.lost_pulls(pod), f"{len(pod.failed_pulls())} failed pulls"
    assert not node.auth_files(tenant)
