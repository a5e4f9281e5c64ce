"""What ``--help`` prints: the commands, and the flags of the plugin from the one table that also parses them."""

from __future__ import annotations

import textwrap

from .cli import SUMMARIES
from .settings import FLAGS, Flag

_HEAD = """\
crio-credential-provider - mirror credentials from the pod's own namespace, for CRI-O

The kubelet runs this program for each pull, with a CredentialProviderRequest on
standard input. It leaves an auth file for CRI-O and answers on standard output.

Usage:
  crio-credential-provider [FLAGS] < request     as the kubelet does
  crio-credential-provider COMMAND [--help]      for people:
{commands}  crio-credential-provider --version | --version-json | --help

Flags, each also as an environment variable:
"""

_TAIL = """\

Exit status: 0 answered; 1 a fault, told on stderr; 2 wrong usage.
"""


def text() -> str:
    """The whole help, at most 100 columns wide."""
    commands = "".join(f"    {command:12} {summary}\n" for command, summary in SUMMARIES.items())
    return _HEAD.format(commands=commands) + "".join(map(_flag, FLAGS)) + _TAIL


def _flag(flag: Flag) -> str:
    default = f" (default {flag.default})" if flag.default not in ("", "false") else ""
    indent = " " * 6
    text = flag.help + default
    body = textwrap.fill(text, 92, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return f"  --{flag.name}{' ' + flag.metavar if flag.metavar else ''}\n{body}\n      {flag.variable}\n"
