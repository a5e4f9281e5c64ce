"""Whether a kubelet that was restarted is up: systemd has it running, its healthz says ok, and its node is Ready.

The node's state is asked for as the node, by the kubelet's own client certificate. Ready counts from a heartbeat after
the restart on: for the API server a node stays Ready for a while whose kubelet is gone.
"""

from __future__ import annotations

import calendar
import http.client
import time
from collections.abc import Callable
from typing import NamedTuple

from ..doctor import cluster
from ..errors import ProviderError
from ..node.facts import Node
from ..node.kubelet import as_mapping, healthz
from .services import Services

_SETTLED, _SETTLED_BLIND = 1.0, 5.0
"""Seconds for which a kubelet runs before it counts as up: it serves healthz once it has taken its configuration; where
it does not serve that, one that refuses its configuration has ended by then."""
_PAUSE = 0.5
_MOST_RESTARTS = 3
"""Times that systemd starts a kubelet anew by itself, after which there is no use in waiting."""
_TIMEOUT = 3.0


class Ready(NamedTuple):
    """The node's condition: ``True``, ``False`` or ``Unknown``, why, and the second of its last heartbeat."""

    status: str
    message: str
    heartbeat: float


def find_ready(node: Node) -> Ready | None:
    """What the API server says of this node; None where it cannot be asked as the node."""
    try:
        found = cluster.find_node_object(node)
    except ProviderError:
        return None
    conditions = as_mapping(found.get("status")).get("conditions")
    for condition in conditions if isinstance(conditions, list) else ():
        if as_mapping(condition).get("type") == "Ready":
            return Ready(str(condition.get("status")), str(condition.get("message", "")), _seconds(condition))
    return None


def _seconds(condition: dict[str, object]) -> float:
    try:
        return float(calendar.timegm(time.strptime(str(condition.get("lastHeartbeatTime")), "%Y-%m-%dT%H:%M:%SZ")))
    except ValueError:
        return 0.0


def ask_healthz(address: str, port: int) -> str:
    """Why a kubelet does not say that it is healthy; "" where it does."""
    connection = http.client.HTTPConnection(address, port, timeout=_TIMEOUT)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        text = answer.read(200).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        return f"http://{address}:{port}/healthz: {reason}"
    finally:
        connection.close()
    return "" if answer.status == 200 else f"http://{address}:{port}/healthz answers {answer.status}: {text}"


def wait(
    node: Node, services: Services, unit: str, since: float, limit: float, *, ready: bool, tell: Callable[[str], None]
) -> str:
    """Waits until a kubelet is up.

    Args:
        node: the facts after the changes.
        unit: its service.
        since: when it was restarted, in seconds since the epoch.
        limit: on the monotonic clock.
        ready: whether its node must be Ready.
        tell: is told what is waited for.

    Returns:
        Why it is not up; "" where it is.
    """
    assert node.kubelet is not None
    address, port = healthz(node.tree, node.kubelet)
    begun, process, from_when = time.monotonic(), 0, 0.0
    told = ""
    while True:
        found = services.unit(unit)
        now = time.monotonic()
        if found.pid != process or found.state != "active":
            process, from_when = found.pid, now
        why = "" if found.state == "active" else f"{unit} is {found.state}"
        why = why or (ask_healthz(address, port) if port else "")
        if not why and ready:
            why = _why_not_ready(node, since)
        if not why and now - from_when >= (_SETTLED if port else _SETTLED_BLIND):
            return ""
        # Between two starts, when what its log ends with is why it ended.
        if found.state == "failed" or (found.restarts >= _MOST_RESTARTS and not found.pid):
            return f"{unit} does not stay up: it is {found.state}, and was started {found.restarts + 1} times"
        if now >= limit:
            return f"{why or f'{unit} was started a moment ago'}; waited {now - begun:.0f} s"
        if why and why != told:
            told = why
            tell(f"waiting: {why}")
        time.sleep(_PAUSE)


def _why_not_ready(node: Node, since: float) -> str:
    found = find_ready(node)
    if found is None:
        return "the API server does not tell the node's state"
    if found.status != "True":
        return f"the node is not Ready: {found.message or found.status}"
    # Heartbeats are in whole seconds.
    return (
        "" if found.heartbeat >= int(since) else "the node has not reported itself to the API server since the restart"
    )
