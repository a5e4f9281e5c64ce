"""``--stay``: the container of a DaemonSet, which does its work once, tells the cluster, and waits to be ended.

It does not end where the work failed, since the kubelet would start it again, and so the work, and so itself. The pod
is not ready then, and the DaemonSet and all nodes that wait for their turn stop.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import signal
import time
from collections.abc import Callable

from ...errors import ProviderError, UsageError
from ...fleet import state
from ...fleet.cluster import Cluster, said
from ...fleet.state import State
from ...kubernetes.names import is_subdomain
from ...node.tree import Unreadable
from .. import ENDING
from ..output import Parser, printable, write_line

_DONE = {"install": "installed", "uninstall": "uninstalled", "rollback": "rolled-back"}
_PAUSE, _POLLS = 5.0, 20
"""Seconds between two questions of a node that waits for its turn; and how many all of them ask in a second."""
_AGAIN = 60.0
"""Seconds until the state is told once more where it could not be told."""
_DAEMONSET = re.compile(r"[a-z0-9-]{1,63}/[a-z0-9][a-z0-9.-]{0,252}", re.ASCII)

Over = Callable[[str, str], None]


def add_flags(made: Parser) -> None:
    """For the container of a DaemonSet."""
    group = made.add_argument_group("in a DaemonSet")
    group.add_argument(
        "--stay", action="store_true", help="wait for SIGTERM afterwards, failed or not; status --ready tells which"
    )
    group.add_argument("--node-name", metavar="NAME", default="", help="annotate this Node object with the state")
    group.add_argument(
        "--daemonset",
        metavar="NAMESPACE/NAME",
        default="",
        help="take turns by the Lease of that name, as many nodes at once as its maxUnavailable",
    )


def check(given: argparse.Namespace) -> None:
    """UsageError for what does not go together."""
    if given.stay and not given.apply:
        raise UsageError("--stay requires --apply")
    for flag in ("node_name", "daemonset"):
        if getattr(given, flag) and not given.stay:
            raise UsageError(f"--{flag.replace('_', '-')} requires --stay")
    if given.node_name and not is_subdomain(given.node_name):
        raise UsageError(f"--node-name: {given.node_name!r} is not a valid node name")
    check_daemonset(given.daemonset)
    if given.daemonset and not given.node_name:
        raise UsageError("--daemonset requires --node-name")


def check_daemonset(text: str) -> None:
    """UsageError for what is not the name of one."""
    if text and not _DAEMONSET.fullmatch(text):
        raise UsageError(f"--daemonset: {text!r} is not NAMESPACE/NAME")


def serve(verb: str, given: argparse.Namespace, needs_turn: Callable[[], bool], work: Callable[[Over], int]) -> int:
    """Does the work, and stays.

    Args:
        needs_turn: whether there is anything to do.
        work: is given whom to tell its outcome and the message with it.
    """
    told = _Told(given.node_name, given.daemonset)
    told.state(State("waiting"))
    if given.daemonset and _is_needed(needs_turn):
        told.wait_for_turn()
    told.state(State("working"))
    found = State("failed", "it ended without a reason")

    def over(outcome: str, message: str) -> None:
        nonlocal found
        is_done = outcome in ("done", "nothing-to-do")
        found = State(_DONE[verb] if is_done else outcome, message.split("\n")[0], is_done)

    try:
        status = work(over)
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    except KeyboardInterrupt:
        # Everything was put back, and nothing is wrong with this node.
        with contextlib.suppress(ProviderError):
            told.cluster.annotate(State("interrupted"))
        with contextlib.suppress(ProviderError):
            told.cluster.end_turn(failed=False)
        raise
    told.state(found)
    _stay(told, found)
    return status


def _is_needed(needs_turn: Callable[[], bool]) -> bool:
    try:
        return needs_turn()
    except (ProviderError, Unreadable, OSError):
        # Which the work will tell.
        return True


def _stay(told: _Told, found: State) -> None:
    """Until a signal comes, which is blocked; meanwhile the cluster is told what it could not be told yet."""
    has_ended = False
    while True:
        # Also a turn of an earlier run that was killed.
        has_ended = has_ended or told.ended_turn(failed=not found.is_done)
        if not told.is_told:
            told.state(found)
        if has_ended and told.is_told:
            signal.sigwait(ENDING)
            return
        if signal.sigtimedwait(ENDING, _AGAIN) is not None:
            return


class _Told:
    """What this node has told others."""

    def __init__(self, node: str, daemonset: str) -> None:
        self.cluster = Cluster(node, daemonset)
        self.is_told = False
        self._node, self._daemonset = node, daemonset
        self._complained = ""

    def state(self, now: State) -> None:
        """For the readiness probe and the cluster."""
        state.write(now)
        self.is_told = not self._node or self._did(lambda: self.cluster.annotate(now), "cannot annotate the node")

    def ended_turn(self, *, failed: bool) -> bool:
        return not self._daemonset or self._did(
            lambda: self.cluster.end_turn(failed=failed), "cannot end this node's turn"
        )

    def wait_for_turn(self) -> None:
        why = ""
        while True:
            pause = _PAUSE
            try:
                found = self.cluster.find()
                now = self.cluster.take_turn(found)
                pause = max(pause, found.nodes / _POLLS)
            except ProviderError as error:
                now = f"cannot ask for this node's turn: {said(error)}"
            if not now:
                return
            if now != why:
                why = now
                _say(f"waiting: {why}")
                self.state(State("waiting", why))
            time.sleep(pause)

    def _did(self, what: Callable[[], None], words: str) -> bool:
        try:
            what()
        except ProviderError as error:
            text = f"{words}: {said(error)}"
            if text != self._complained:
                self._complained = text
                _say(text)
            return False
        return True


def _say(text: str) -> None:
    write_line(printable(text))
