"""``crio-credential-provider status``: what ``install`` has brought onto this node, and how its kubelet is.

JSON (``--output json``):

    {"version", "files": [{"path", "role", "state"}], "interrupted", "rollback",
     "kubelet": {"unit", "state", "runtime", "healthz", "ready"}, "isWell"}

With ``--ready``: {"state", "reason", "isDone"}; with ``--daemonset``:

    {"nodes", "done", "atOnce", "working": [name], "failed": [name], "isDone"}
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ... import __version__
from ...errors import ProviderError
from ...fleet import state
from ...settings import CONTAINERD, CRIO
from ..output import (
    FAILED,
    FAULT,
    OK,
    Parser,
    add_output,
    complain,
    make_parser,
    printable,
    serve,
    write_line,
    write_report,
)
from .host import add_host, root_of

if TYPE_CHECKING:
    from ...rollout.status import Status

_DESCRIPTION = """\
Tells what install has brought onto this node, whether it is still as it was installed, whether a run was
interrupted, and how the kubelet is.
"""
_EPILOG = """\
Examples:
  crio-credential-provider status
  crio-credential-provider status --output json
  crio-credential-provider status --daemonset kube-system/crio-credential-provider

Exit status: 0 all is as it was installed, or nothing is installed, and the kubelet is healthy; 1 an error,
reported on stderr; 2 wrong usage; 3 something is changed, missing, interrupted or not healthy; with --ready
or --daemonset 0 done, 3 not yet or failed.
"""


def run(arguments: list[str]) -> int:
    """As ``commands.run``, for the arguments after the word."""
    return serve("status", lambda: _tell(parser().parse(arguments)))


def parser() -> Parser:
    """The command line."""
    made = make_parser("status", _DESCRIPTION, _EPILOG)
    add_host(made)
    other = made.add_mutually_exclusive_group()
    other.add_argument("--ready", action="store_true", help="whether install --stay has succeeded in this container")
    other.add_argument("--daemonset", metavar="NAMESPACE/NAME", default="", help="how its rollout stands, from a pod")
    add_output(made)
    return made


def _tell(given: argparse.Namespace) -> int:
    is_json = given.output == "json"
    if given.ready:
        return _tell_ready(is_json)
    if given.daemonset:
        return _tell_rollout(given.daemonset, is_json)
    from ...rollout import status

    found = status.find(root_of(given))
    if is_json:
        write_report(_as_json(found))
    else:
        for line in _lines(found):
            write_line(printable(line))
    return OK if found.is_well else FAILED


def _tell_ready(is_json: bool) -> int:
    """A probe runs this again and again on each node: nothing of doctor is loaded for it."""
    found = state.read()
    if is_json:
        write_report({"state": found.state, "reason": found.reason, "isDone": found.is_done})
    else:
        write_line(printable(found.line))
    return OK if found.is_done else FAILED


def _tell_rollout(daemonset: str, is_json: bool) -> int:
    from ...fleet.cluster import Cluster, said
    from .staying import check_daemonset

    check_daemonset(daemonset)
    try:
        found = Cluster("", daemonset).find()
    except ProviderError as error:
        complain("status", said(error))
        return FAULT
    is_done = found.ready == found.nodes and not found.holders
    if is_json:
        counts = {"nodes": found.nodes, "done": found.ready, "atOnce": found.at_once}
        write_report({**counts, "working": found.holders, "failed": found.failed, "isDone": is_done})
        return OK if is_done else FAILED
    write_line(f"{found.ready} of {found.nodes} nodes are done, {found.at_once} at a time")
    if found.failed:
        write_line(printable(f"stopped: failed on {', '.join(found.failed)}"))
    elif found.holders:
        write_line(printable(f"working: {', '.join(found.holders)}"))
    return OK if is_done else FAILED


_RUNTIMES = {CRIO: "CRI-O", CONTAINERD: "containerd"}


def _lines(found: Status) -> list[str]:
    than = "" if found.version == __version__ else f" (this program is {__version__})"
    made = [f"installed: version {found.version}{than}" if found.version else "installed: nothing by install"]
    made += [f"  {file.state}: {file.path}" for file in found.files]
    if found.interrupted:
        made.append(f"interrupted: {found.interrupted}; the next install, uninstall or rollback --apply undoes it")
    if found.previous:
        made.append(f"rollback would undo: {found.previous}")
    if found.unit:
        made.append(f"kubelet: {found.unit} is {found.unit_state}; {found.healthz or 'its healthz says ok'}")
        made.append(f"container runtime: {_RUNTIMES[found.runtime]}")
    else:
        made.append("kubelet: not found")
    made.append(f"node Ready: {found.ready or 'not known, the API server does not tell'}")
    return made


def _as_json(found: Status) -> dict[str, object]:
    return {
        "version": found.version,
        "files": [file._asdict() for file in found.files],
        "interrupted": found.interrupted,
        "rollback": found.previous,
        "kubelet": {
            "unit": found.unit,
            "state": found.unit_state,
            "runtime": found.runtime if found.unit else "",
            "healthz": found.healthz,
            "ready": found.ready,
        },
        "isWell": found.is_well,
    }
