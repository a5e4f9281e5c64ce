"""The kubelet's flags in the place from which this node's kubelet takes its command line.

kubeadm's unit has a variable for whoever runs the node, in /etc/default/kubelet (deb) or /etc/sysconfig/kubelet (rpm),
which an upgrade leaves alone; OpenShift's has one for this very purpose; any other unit gets a drop-in that repeats its
command line. k3s and RKE2 have files of their own. Texts in, texts out.
"""

from __future__ import annotations

import posixpath
import re
from typing import NamedTuple

from ..kubernetes.credentialproviderconfig import NAME
from ..manifests import nodefiles
from ..manifests.nodefiles import NodeFile
from ..node.commandline import Unit
from ..node.tree import Tree, Unreadable
from .changes import RolloutError

_EXTRA = "KUBELET_EXTRA_ARGS"
_EXTRA_FILES = ("/etc/default/kubelet", "/etc/sysconfig/kubelet")
OPENSHIFT_VARIABLE = "KUBELET_CRIO_IMAGE_CREDENTIAL_PROVIDER_FLAGS"
_ASSIGNMENT = re.compile(rf"^\s*(export\s+)?{_EXTRA}\s*=", re.MULTILINE)
_DIRECTORY = "/etc/systemd/system/{}.d"


class Unsuitable(Exception):
    """A text that cannot be edited safely."""


def place(tree: Tree, unit: Unit, missing: list[str], node: nodefiles.Node) -> NodeFile:
    """The file that brings flags to a kubelet that systemd starts.

    Args:
        missing: the flags.
        node: for OpenShift's drop-in.

    Raises:
        RolloutError: there is no place for them.
    """
    if f"${OPENSHIFT_VARIABLE}" in unit.line or f"${{{OPENSHIFT_VARIABLE}}}" in unit.line:
        return nodefiles.kubelet(node)[0]
    if re.search(rf"\$\{{?{_EXTRA}\b", unit.line):
        try:
            path, text = _environment_file(tree, unit)
            return NodeFile(path, with_flags(text, missing), "")
        except Unsuitable:
            pass
    name = posixpath.basename(unit.file)
    if "\n" in unit.line or not unit.line:
        raise RolloutError(f"{unit.start}: this command line cannot be repeated", "add the flags by hand")
    # Of several drop-ins with a command line the last one counts.
    before = posixpath.basename(unit.start.file) if unit.start.file != unit.file else ""
    own = f"20-{NAME}.conf"
    path = f"{_DIRECTORY.format(name)}/{own if before < own else f'zz-{NAME}.conf'}"
    return NodeFile(path, _DROP_IN.format(start=unit.start, flags=" ".join(missing), line=unit.line), "")


def _environment_file(tree: Tree, unit: Unit) -> tuple[str, str]:
    """The file whose value of the variable counts, or would: of several the last. Unsuitable where none would do."""
    files = [(path, _read(tree, path)) for path in unit.environment_files if path in _EXTRA_FILES]
    setting = [file for file in files if _ASSIGNMENT.search(file[1])]
    if not files or (not setting and unit.environment.get(_EXTRA)):
        # It is set in a place that the file would override.
        raise Unsuitable
    return (setting or files)[-1]


_DROP_IN = """\
# By crio-credential-provider install: the command line of {start} with one more variable.
[Service]
Environment="CREDENTIAL_PROVIDER_ARGS={flags}"
ExecStart=
ExecStart={line} $CREDENTIAL_PROVIDER_ARGS
"""


def _read(tree: Tree, path: str) -> str:
    try:
        return tree.read(path).decode()
    except Unreadable as error:
        if error.missing:
            return ""
        raise Unsuitable from None
    except UnicodeDecodeError:
        raise Unsuitable from None


def with_flags(text: str, flags: list[str]) -> str:
    """An environment file of systemd's with more arguments at the end of the variable; nothing else changes.

    >>> with_flags('KUBELET_EXTRA_ARGS="--v=2"  # x', ["--a"])
    Traceback (most recent call last):
    ...
    crio_credential_provider.rollout.flags.Unsuitable
    >>> with_flags('KUBELET_EXTRA_ARGS="--v=2"', ["--a"])
    'KUBELET_EXTRA_ARGS="--v=2 --a"'
    """
    added = " ".join(flags)
    lines = text.split("\n")
    found = [number for number, line in enumerate(lines) if _ASSIGNMENT.match(line)]
    if not found:
        end = "" if not text or text.endswith("\n") else "\n"
        if text.rstrip("\n").endswith("\\"):
            raise Unsuitable
        return f"{text}{end}{_EXTRA}={added}\n"
    line = lines[found[-1]]
    # A variable may go on over lines, in which this one's name would be text.
    written = [other for other in lines if not other.lstrip().startswith(("#", ";"))]
    if any(other.rstrip().endswith("\\") or other.count('"') % 2 or other.count("'") % 2 for other in written):
        raise Unsuitable
    head, value, tail = _taken_apart(line)
    separator = " " if value else ""
    lines[found[-1]] = f"{head}{value}{separator}{added}{tail}"
    return "\n".join(lines)


class _Parts(NamedTuple):
    head: str
    value: str
    tail: str


def _taken_apart(line: str) -> _Parts:
    """What comes before the value's text, the text, and what comes behind it."""
    match = re.fullmatch(rf"(\s*(?:export\s+)?{_EXTRA}\s*=\s*)(\"[^\"\\]*\"|'[^'\\]*'|[^\"'\\#]*?)(\s*)", line)
    if not match:
        raise Unsuitable
    head, value, tail = match.groups()
    quote = value[:1] if value[:1] in ('"', "'") else ""
    return _Parts(head + quote, value.strip(quote) if quote else value, quote + tail)
