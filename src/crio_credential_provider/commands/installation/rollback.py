"""``crio-credential-provider rollback``: undoes the last ``install``, ``uninstall`` or ``rollback`` of this node."""

from __future__ import annotations

import argparse

from ...rollout import back
from ..output import Parser, make_parser, serve
from .running import add_flags, carry_out
from .uninstall import prepared

_DESCRIPTION = """\
Undoes the last install, uninstall or rollback that was completed on this node: after an upgrade the older
program is back, after an uninstall the plugin. Prints the plan; with --apply it does so, restarts the
kubelet and waits until it is healthy. If that fails, everything is put back.
"""
_EPILOG = """\
Examples:
  crio-credential-provider rollback             the plan
  crio-credential-provider rollback --apply

Exit status: 0 done, planned, or nothing to do; 1 an error, or not everything could be put back: the reason
is on stderr; 2 wrong usage.
"""


def run(arguments: list[str]) -> int:
    """As ``commands.run``, for the arguments after the word."""
    return serve("rollback", lambda: _roll_back(parser().parse(arguments)))


def parser() -> Parser:
    """The command line."""
    made = make_parser("rollback", _DESCRIPTION, _EPILOG)
    add_flags(made, verb="roll back")
    return made


def _roll_back(given: argparse.Namespace) -> int:
    nothing = "nothing to roll back"
    return carry_out("rollback", given, lambda root: prepared(back.rollback(root), root, nothing))
