"""``crio-credential-provider uninstall``: puts back what was there before ``install``."""

from __future__ import annotations

import argparse

from ...rollout import back
from ..output import Parser, make_parser, serve
from .running import Prepared, add_flags, carry_out

_DESCRIPTION = """\
Takes away what install has brought, in the opposite order, and puts back what was there before: the
kubelet's flags, its CredentialProviderConfig, CRI-O's drop-in, the tmpfs, the program. Prints the plan;
with --apply it does so, restarts the kubelet and waits until it is healthy. If that fails, the plugin is
put back.
"""
_EPILOG = """\
A file that somebody else has changed since is not touched, nor what it needs: the message says what to do
by hand, the rest is put back, and the exit status is 1.

Examples:
  crio-credential-provider uninstall             the plan
  crio-credential-provider uninstall --apply

Exit status: 0 done, planned, or nothing to do; 1 an error, or not everything could be put back: the reason
is on stderr; 2 wrong usage.
"""


def run(arguments: list[str]) -> int:
    """As ``commands.run``, for the arguments after the word."""
    return serve("uninstall", lambda: _uninstall(parser().parse(arguments)))


def parser() -> Parser:
    """The command line."""
    made = make_parser("uninstall", _DESCRIPTION, _EPILOG)
    add_flags(made, verb="uninstall it")
    return made


def _uninstall(given: argparse.Namespace) -> int:
    nothing = "nothing that install has brought is on this node, nothing to do"
    return carry_out("uninstall", given, lambda root: prepared(back.uninstall(root), root, nothing))


def prepared(found: back.Back, root: str, nothing: str) -> Prepared:
    """A plan that leads back, unless the kubelet would miss something then."""
    missed = back.check(found.plan, root) if found.plan.changes else ()
    refused = "; ".join(f"{finding.title} ({finding.code}): {finding.evidence[0].file}" for finding in missed)
    refused = f"the kubelet would not start: {refused}" if refused else ""
    return Prepared(found.plan, None, refused, found.left, nothing)
