"""``crio-credential-provider completion``: a script that completes command lines in bash or zsh.

Made by shtab from the parsers of all commands and the flags of the plugin, so that it knows what they know. Knows the
words that a value can be: choices, files, directories, kinds of manifests, codes of findings.

    source <(crio-credential-provider completion bash)
"""

from __future__ import annotations

import argparse
from typing import Any

from ..settings import FLAGS
from . import SUMMARIES, module
from .output import OK, Parser, make_parser, serve, write_line

SHELLS = ("bash", "zsh")

_DESCRIPTION = """\
Prints a shell script that completes commands, flags, file names and values.
"""
_EPILOG = """\
Examples:
  source <(crio-credential-provider completion bash)              in this shell
  crio-credential-provider completion bash > /etc/bash_completion.d/crio-credential-provider
  crio-credential-provider completion zsh > /usr/local/share/zsh/site-functions/_crio-credential-provider

Exit status: 0 printed; 1 an error, reported on stderr; 2 wrong usage.
"""


def run(arguments: list[str]) -> int:
    """As ``commands.run``, for the arguments after the word."""
    return serve("completion", lambda: _print(parser().parse(arguments).shell))


def _print(shell: str) -> int:
    import shtab

    write_line(shtab.complete(whole_parser(), shell=shell).rstrip("\n"))
    return OK


def parser() -> Parser:
    """The command line."""
    made = make_parser("completion", _DESCRIPTION, _EPILOG)
    made.add_argument("shell", metavar="SHELL", choices=SHELLS, help=" or ".join(SHELLS))
    return made


def whole_parser() -> argparse.ArgumentParser:
    """All command lines of the program as one parser, for completion alone: it parses none."""
    whole = argparse.ArgumentParser(prog="crio-credential-provider", allow_abbrev=False)
    for name, what in (("--version", "version"), ("--version-json", "version"), ("--licenses", "licenses")):
        whole.add_argument(name, action="store_true", help=f"print the {what}")
    for flag in FLAGS:
        options: dict[str, Any] = {"metavar": flag.metavar} if flag.metavar else {"action": "store_true"}
        whole.add_argument(f"--{flag.name}", help=flag.help.replace("%", "%%"), **options)
    commands = whole.add_subparsers(metavar="COMMAND")
    for command in SUMMARIES:
        its_own = module(command).parser()
        made = commands.add_parser(command, help=SUMMARIES[command], parents=[its_own], add_help=False)
        _complete(made)
    _complete(whole)
    return whole


def _complete(made: argparse.ArgumentParser) -> None:
    """Says what the values of its flags and arguments can be, by their names in the help."""
    import shtab

    files = {"FILE": shtab.FILE, "SOCKET": shtab.FILE, "PATH": shtab.FILE}
    files |= {"DIR": shtab.DIRECTORY, "DIRECTORY": shtab.DIRECTORY}
    for action in made._actions:
        if not isinstance(action.metavar, str) or action.choices:
            continue
        if action.metavar in files:
            action.complete = files[action.metavar]  # type: ignore[attr-defined]
        elif "|" in action.metavar:
            action.choices = action.metavar.split("|")
        elif action.metavar in _WORDS:
            action.choices = _WORDS[action.metavar]()


def _kinds() -> list[str]:
    from ..manifests.kinds import KINDS

    return list(KINDS)


def _codes() -> list[str]:
    from ..doctor.catalogue import CATALOGUE

    return list(CATALOGUE)


_WORDS = {"KIND": _kinds, "CODE": _codes}
