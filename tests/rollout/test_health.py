"""When the wait for a restarted kubelet ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crio_credential_provider.node.facts import Given, gather
from crio_credential_provider.rollout import health
from crio_credential_provider.rollout.services import Services, Unit
from rollout_node import free_port, lay


class _Told(Services):
    """As systemd tells a service's state, one time after another."""

    def __init__(self, states: list[Unit]) -> None:
        super().__init__("")
        self._states: Iterator[Unit] = iter(states)

    def unit(self, name: str) -> Unit:
        return next(self._states)


def test_a_kubelet_that_ends_again_and_again_is_given_up_once_it_has_ended(tmp_path: Path) -> None:
    """At its start its log ends with its flags; why it ended stands there before the next start."""
    lay("kubeadm", tmp_path, free_port())
    node = gather(Given(root=str(tmp_path), next_start=True))
    services = _Told([Unit("active", 7, 3), Unit("activating", 0, 3)])
    why = health.wait(node, services, "kubelet.service", 0, float("inf"), ready=False, tell=lambda text: None)
    assert why == "kubelet.service does not stay up: it is activating, and was started 4 times"
