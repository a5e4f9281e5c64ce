"""``crio-credential-provider demo``: the whole job on an embedded cluster and registry, told to a person.

Knows the command line, the terminal and the temporary directory; the steps are ``demo.story``'s.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from typing import Any

from ..demo.containerdstage import ContainerdStage
from ..demo.containerdstory import ContainerdStory
from ..demo.stage import JOURNAL_SOCKET, Stage
from ..demo.story import Step, Story, Tell
from ..errors import ProviderError, UsageError
from ..settings import CONTAINERD, CRIO
from ..testbed.journald import MAX_PATH
from . import ENDING
from .output import (
    FAULT,
    OK,
    Parser,
    add_output,
    complain,
    make_parser,
    printable,
    serve,
    there,
    write_line,
    write_report,
)

WIDTH = 100
"""Columns that the text takes at most, but for a single word that is longer."""

_INDENT = " " * 4
_PREFIX = "crio-credential-provider-demo-"
_BOLD, _GREEN, _RED, _PLAIN = "\x1b[1m", "\x1b[32m", "\x1b[31m", "\x1b[0m"

_DESCRIPTION = """\
Shows what happens on a node when a pod's image comes from a private mirror: starts an API server
and a mirror registry on 127.0.0.1, runs the plugin as the kubelet does, for pods of several teams,
and pulls as CRI-O does, with the auth file that the plugin wrote; or, with --runtime containerd,
has a real containerd pull with what the plugin answered. Every step is checked.
"""
_EPILOG = """\
Needs neither root nor a network, takes a few seconds, and leaves nothing behind. With --runtime
containerd it needs root, and containerd with its ctr: it starts one of its own, with files, a
socket and a configuration of its own, and ends it.

Examples; the second with another build of the plugin and machine-readable output:
  crio-credential-provider demo --runtime containerd
  crio-credential-provider demo --plugin build/bin/crio-credential-provider --output json

Exit status: 0 every step passed; 1 a step failed, reported on stderr; 2 wrong usage.
"""


def run(arguments: list[str]) -> int:
    """As ``commands.run``, for the arguments after the word."""
    return serve("demo", lambda: _show(parser().parse(arguments)))


def _show(given: argparse.Namespace) -> int:
    plugin, environment = ([given.plugin], {}) if given.plugin else _this_program()
    if given.plugin and not os.access(given.plugin, os.X_OK):
        raise UsageError(f"--plugin: {given.plugin}: not an executable file")
    command = shlex.join(plugin)
    with _directory(given.keep) as root, contextlib.ExitStack() as stack:
        story: Story
        if given.runtime == CONTAINERD:
            story = ContainerdStory(stack.enter_context(ContainerdStage(root, plugin, environment)), command)
        else:
            story = Story(stack.enter_context(Stage(root, plugin, environment)), command)
        opening = _opening(_ABOUT[given.runtime], command, root)
        return _play(story, opening, command, root if given.keep else "", given.output == "json")


class _Obstacle(ProviderError):
    """Why there can be no demo here: nowhere to keep files."""


def parser() -> Parser:
    """The command line."""
    made = make_parser("demo", _DESCRIPTION, _EPILOG)
    made.add_argument("--plugin", metavar="PATH", type=there("file"), help="the plugin to run (default: this program)")
    made.add_argument(
        "--runtime", choices=(CRIO, CONTAINERD), default=CRIO, help="the container runtime that pulls (default: crio)"
    )
    made.add_argument("--keep", action="store_true", help="keep the node's directory, and print its path")
    add_output(made)
    return made


def _this_program() -> tuple[list[str], dict[str, str]]:
    """The command that starts this very program, and the variables it needs."""
    started = os.path.abspath(sys.argv[0])
    if os.path.basename(started) != "__main__.py":
        return ([started] if os.access(started, os.X_OK) else [sys.executable, started]), {}
    # python -m: the package is found again wherever it was found now.
    above = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.pathsep.join(filter(None, (above, os.environ.get("PYTHONPATH", ""))))
    return [sys.executable, "-m", __name__.partition(".")[0]], {"PYTHONPATH": path}


@contextlib.contextmanager
def _directory(keep: bool) -> Iterator[str]:
    """A directory that serves as the node's ``/``; removed again unless it is to be kept."""
    try:
        root = tempfile.mkdtemp(prefix=_PREFIX)
        if len(os.fsencode(root + JOURNAL_SOCKET)) > MAX_PATH:
            # A socket's name has no room below a long TMPDIR.
            os.rmdir(root)
            root = tempfile.mkdtemp(prefix=_PREFIX, dir="/tmp")
    except OSError as error:
        raise _Obstacle(f"cannot create a temporary directory: {error.strerror}; set TMPDIR to another place") from None
    try:
        yield root
    finally:
        # A second Ctrl-C must not leave half of it behind.
        before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING}
        if not keep:
            shutil.rmtree(root, ignore_errors=True)
        for number, handler in before.items():
            signal.signal(number, handler)


def _play(story: Story, opening: str, plugin: str, kept: str, as_json: bool) -> int:
    started = time.monotonic()
    steps: list[Step] = []
    if not as_json:
        write_line(opening)
    for step in story.play():
        steps.append(step)
        if not as_json:
            write_line(_as_text(step))
    seconds = time.monotonic() - started
    last = steps[-1]
    if as_json:
        write_report(_as_json(steps, plugin, kept, seconds))
    elif not last.failure:
        runs = f"{len(story.runs)} runs of the plugin took {min(story.runs):.2f} to {max(story.runs):.2f} s each."
        write_line(_painted(_GREEN, f"All {len(steps)} steps passed, in {seconds:.1f} s.") + f" {runs}")
        write_line("On a node: crio-credential-provider install shows what it would change there.")
    if kept and not as_json:
        write_line(f"The node's files are kept in {kept}")
    if last.failure:
        complain("demo", f'step {last.number}, "{last.title}", failed: {last.failure}')
        return FAULT
    return OK


# -- text -------------------------------------------------------------------------------------------------------------


_ABOUT = {
    CRIO: "The API server, the mirror, the kubelet's part and CRI-O's part are stand-ins, on 127.0.0.1, that follow "
    "the real rules.",
    CONTAINERD: "containerd is real as well. The API server, the mirror, Docker Hub and the kubelet's part are "
    "stand-ins, on 127.0.0.1, that follow the real rules.",
}


def _opening(about: str, plugin: str, root: str) -> str:
    paragraphs = (
        "What happens on a Kubernetes node when a pod's image comes from a private mirror. The plugin is the real one "
        f"and runs as a process. {about}",
        f"The node's files are in {root}; paths are shown as on a node.",
    )
    lines = [_painted(_BOLD, "crio-credential-provider demo"), "", *(_wrapped(text, "") for text in paragraphs)]
    return "\n".join([*lines, f"Plugin: {printable(plugin)}", ""])


def _as_text(step: Step) -> str:
    lines = [_painted(_BOLD, f"{step.number:2}  {step.title}")]
    width = max((len(tell.name) for tell in step.tells if tell.name and not tell.as_it_stands), default=0)
    before: Tell | None = None
    for tell in step.tells:
        is_fact = bool(tell.name) and not tell.as_it_stands
        if before is not None and not (is_fact and before.name and not before.as_it_stands):
            lines.append("")
        lines.append(_told(tell, width))
        before = tell
    colour, verdict = (_RED, f"FAILED: {step.failure}") if step.failure else (_GREEN, "ok")
    return "\n".join([*lines, "", _painted(colour, _wrapped(verdict, _INDENT)), ""])


def _told(tell: Tell, width: int) -> str:
    if not tell.name:
        return _wrapped(tell.text, _INDENT)
    if not tell.as_it_stands:
        return _wrapped(tell.text, _INDENT + " " * (width + 2), f"{_INDENT}{tell.name:{width}}  ")
    # An auth file's path needs nearly every column; all else is set off a little further.
    indent = _INDENT if any(len(word) > WIDTH - 10 for word in tell.text.split()) else f"{_INDENT}  "
    return "\n".join((f"{_INDENT}{tell.name}:", *(_shown_line(line, indent) for line in tell.text.split("\n"))))


def _shown_line(line: str, indent: str) -> str:
    """A line as it stands, white space included, unless it is too long."""
    return _wrapped(line, indent) if len(indent + line) > WIDTH else (indent + line).rstrip()


def _wrapped(text: str, indent: str, first: str | None = None) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _painted(colour: str, text: str) -> str:
    return f"{colour}{text}{_PLAIN}" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text


# -- JSON -------------------------------------------------------------------------------------------------------------


def _as_json(steps: list[Step], plugin: str, kept: str, seconds: float) -> dict[str, Any]:
    return {
        "asTold": not steps[-1].failure,
        "plugin": plugin,
        "directory": kept,
        "seconds": round(seconds, 3),
        "steps": [
            {
                "number": step.number,
                "title": step.title,
                "asTold": not step.failure,
                "failure": step.failure,
                "tells": [{"name": tell.name, "text": tell.text} for tell in step.tells],
            }
            for step in steps
        ],
    }
