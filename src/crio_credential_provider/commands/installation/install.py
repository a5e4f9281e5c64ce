"""``crio-credential-provider install``: brings the plugin onto this node, and undoes it if it does not work."""

from __future__ import annotations

import argparse

from ... import version
from ...node.facts import Given, gather
from ...node.tree import Tree
from ...rollout import plan, preflight, transaction
from ...rollout.plan import Wishes
from ...rollout.store import Store
from ..manifests import add_entry_flags, check_entry, plugin_args
from ..output import Parser, make_parser, serve
from .running import Prepared, add_flags, carry_out

_DESCRIPTION = """\
Brings the plugin onto this node: the program, the tmpfs for auth files, CRI-O's drop-in where it is
needed, its provider in the CredentialProviderConfig, and the kubelet's two flags in the place from which
this distribution takes them (kubeadm, OpenShift, k3s, RKE2); with containerd no auth files, and nothing of
CRI-O's. Prints what would change, and what doctor
finds on a node that has it; with --apply it does so, restarts the kubelet, waits until it is healthy and
its node Ready, and runs doctor. If any of that fails, everything is put back.
"""
_EPILOG = """\
What is as it should be is not changed: a second run has nothing to do. What was there before is kept
below /var/lib/crio-credential-provider/rollout, for uninstall and rollback. A run that was killed is
undone by the next one; the kubelet can start at any time in between. RBAC comes first: manifests rbac.
A program that is there already is replaced and kept: cri-o's Go provider, or an older form of this one.

Examples:
  crio-credential-provider install                               the plan
  crio-credential-provider install --apply
  crio-credential-provider install --apply --secrets-from=pod --match-image=docker.io
  crio-credential-provider install --apply --host /host          in a container, the node's root at /host

Exit status: 0 installed, planned, or nothing to do; 1 an error, or what was changed was put back: the
reason is on stderr; 2 wrong usage.
"""


def run(arguments: list[str]) -> int:
    """As ``commands.run``, for the arguments after the word."""
    return serve("install", lambda: _install(parser().parse(arguments)))


def parser() -> Parser:
    """The command line."""
    made = make_parser("install", _DESCRIPTION, _EPILOG)
    made.add_argument("plan", nargs="?", choices=("plan",), help="print the plan only, the default")
    add_flags(made, verb="install it")
    add_entry_flags(made, "the node's, else the distribution's", runtime="the kubelet's")
    return made


def _install(given: argparse.Namespace) -> int:
    if given.plan:
        given.apply = False
    check_entry(given)
    wishes = Wishes(
        given.audience or "",
        given.config_path or "",
        given.bin_dir or "",
        tuple(given.match_image or ()),
        tuple(plugin_args(given)),
        _program(),
    )
    return carry_out("install", given, lambda root: _prepare(root, wishes))


def _program() -> bytes | None:
    if not version.is_executable():
        return None
    with open(version.EXECUTABLE, "rb") as file:
        return file.read()


def _prepare(root: str, wishes: Wishes) -> Prepared:
    tree = Tree(root)
    made = plan.install(gather(Given(root=root, next_start=True)), wishes)
    if not made.changes:
        last = transaction.previous(Store(tree))
        unit = last.actions.kubelet if last and not last.told else ""
        hint = f"; it was with --no-restart: systemctl restart {unit}, unless that was done since" if unit else ""
        return Prepared(made, nothing=f"everything is installed already, nothing to do{hint}")
    checked = preflight.check(made, root)
    made = plan.recorded(made, tree, plan.joined(transaction.installed(Store(tree)), made.changes))
    codes = ", ".join(dict.fromkeys(finding.code for finding in checked.stops))
    return Prepared(made, checked, f"doctor finds errors on the planned node: {codes}" if codes else "")
