"""What ``--help`` prints: the commands, and the flags of the plugin from the one table that also parses them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from ..errors import UsageError
from ..settings import FLAGS, Flag
from . import SUMMARIES

_HEAD = """\
crio-credential-provider - mirror credentials from the pod's own namespace, for CRI-O and containerd

The kubelet runs this program for each pull, with a CredentialProviderRequest on
standard input. For CRI-O it writes an auth file, for containerd its answer on standard
output has the credential.

Usage:
  crio-credential-provider [FLAGS] < request     as the kubelet does
  crio-credential-provider COMMAND [--help]      for people:
{commands}  crio-credential-provider help [COMMAND] | version
  crio-credential-provider --version | --version-json | --licenses | --help

Flags, each also as an environment variable:
"""

_BARE = ("version", "version-json", "licenses", "help")
"""Flags that are not settings."""

_TAIL = """\

Exit status: 0 answered; 1 an error, reported on stderr, or silently if the reader
closes the pipe; 2 wrong usage. A command ended by a signal: 128 plus its number
(129 SIGHUP, 130 SIGINT, 143 SIGTERM).
"""


def text() -> str:
    """The whole help, at most 100 columns wide."""
    commands = "".join(f"    {command:16} {summary}\n" for command, summary in SUMMARIES.items())
    return _HEAD.format(commands=commands) + "".join(map(_flag, FLAGS)) + _TAIL


def _flag(flag: Flag) -> str:
    default = f" (default {flag.default})" if flag.default not in ("", "false") else ""
    indent = " " * 6
    text = flag.help + default
    body = textwrap.fill(text, 92, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return f"  --{flag.name}{' ' + flag.metavar if flag.metavar else ''}\n{body}\n      {flag.variable}\n"


def with_near_miss(error: UsageError) -> str:
    """The plugin's complaint, with the flag or the command that was most likely meant."""
    if not error.unknown:
        return str(error)
    if error.unknown in SUMMARIES:
        return f"{error.message}; a command comes before all flags"
    if error.unknown in ("-v", "-V"):
        return f"{error.message}; did you mean '--version'?"
    if error.unknown in ("-h", *(f"{dashes}{name}" for name in _BARE for dashes in ("-", "--"))):
        # It would have been answered without one.
        return f"{error.unknown} takes no value"
    flags = [f"--{name}" for name in (*(flag.name for flag in FLAGS), *_BARE)]
    known = flags if error.unknown.startswith("-") else [*SUMMARIES, "help", "version"]
    return f"{error.message}; {did_you_mean(error.unknown, known) or '--help lists the flags and commands'}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``did you mean 'explain'?``, "" where nothing that is known comes near."""
    # 5 ms to import, for those who mistyped.
    import difflib

    close = difflib.get_close_matches(word.lower(), list(known), 1)
    return f"did you mean {close[0]!r}?" if close else ""
