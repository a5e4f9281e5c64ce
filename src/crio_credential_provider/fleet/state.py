"""How the work of ``install --stay`` stands, in a file of its container, which the readiness probe looks at."""

from __future__ import annotations

import json
import os
from typing import NamedTuple

STATE_FILE = "/run/crio-credential-provider-rollout/state.json"


class State(NamedTuple):
    """How a rollout stands on this node.

    Attributes:
        state: ``waiting``, ``working``, ``installed``, ``uninstalled``, ``rolled-back``, ``refused``, ``failed`` or
            ``interrupted``.
        reason: in one line, "" for none.
        is_done: whether it succeeded.
    """

    state: str
    reason: str = ""
    is_done: bool = False

    @property
    def line(self) -> str:
        return f"{self.state}: {self.reason}" if self.reason else self.state


def write(state: State) -> None:
    """For the readiness probe."""
    os.makedirs(os.path.dirname(STATE_FILE), mode=0o755, exist_ok=True)
    fresh = f"{STATE_FILE}.new"
    with open(fresh, "w") as file:
        json.dump(state._asdict(), file)
    os.rename(fresh, STATE_FILE)


def read() -> State:
    """What was last written."""
    try:
        with open(STATE_FILE) as file:
            return State(**json.load(file))
    except FileNotFoundError:
        return State("unknown", "no run with --stay in this container")
