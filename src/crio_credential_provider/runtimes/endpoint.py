"""Which container runtime the kubelet that runs this process uses: its container runtime endpoint says it."""

from __future__ import annotations

import os

from ..platform import regularfile
from ..settings import AUTO, CONTAINERD, CRIO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_DEFAULT = "unix:///run/containerd/containerd.sock"
"""The kubelet's own, since 1.27."""

_PROC = "/proc"
_FLAG = "--container-runtime-endpoint"
_MEMBER = b"containerRuntimeEndpoint"
_MAX_SIZE = 1 << 20
"""Bytes of a command line or a KubeletConfiguration."""


def find_runtime(wanted: str) -> str:
    """``crio`` or ``containerd``.

    Args:
        wanted: one of ``settings.RUNTIMES``; ``auto`` is ``containerd`` where the kubelet's endpoint names it, else
            ``crio``.
    """
    if wanted != AUTO:
        return wanted
    # The kubelet itself runs this program. What it is told by a flag counts before its files.
    arguments = _read(f"{_PROC}/{os.getppid()}/cmdline").decode("utf-8", "surrogateescape").split("\0")
    default = _DEFAULT if arguments[0].rpartition("/")[2] == "kubelet" else ""
    return named_by(_flag(arguments, _FLAG) or _configured(arguments) or default)


def named_by(endpoint: str) -> str:
    """The runtime that serves an endpoint, such as ``unix:///run/containerd/containerd.sock``."""
    return CONTAINERD if "/containerd" in endpoint else CRIO


def _flag(arguments: list[str], name: str) -> str:
    """The value of a flag, the last one where it is given more than once; "" where it is not given."""
    value = ""
    for number, argument in enumerate(arguments):
        if argument.startswith(f"{name}="):
            value = argument[len(name) + 1 :]
        elif argument == name and number + 1 < len(arguments):
            value = arguments[number + 1]
    return value


def _configured(arguments: list[str]) -> str:
    """The endpoint in the kubelet's configuration files; of drop-ins the last one counts."""
    main, directory = _flag(arguments, "--config"), _flag(arguments, "--config-dir")
    drop_ins = sorted(_names(directory)) if directory else []
    paths = [main, *(f"{directory}/{name}" for name in drop_ins if name.endswith(".conf"))]
    return next(filter(None, (_member(_read(path)) for path in reversed(paths) if path)), "")


def _member(text: bytes) -> str:
    """The member's value in YAML or JSON; "" where it is not there or in a comment."""
    for line in text.split(b"\n"):
        before, found, after = line.partition(_MEMBER)
        if found and b"#" not in before:
            value = after.lstrip(b"'\" :").partition(b",")[0].partition(b" #")[0]
            return value.strip(b"'\" \r}").decode("utf-8", "replace")
    return ""


def _names(directory: str) -> Iterator[str]:
    try:
        yield from os.listdir(directory)
    except OSError:
        return


def _read(path: str) -> bytes:
    try:
        return regularfile.read(path, _MAX_SIZE)
    except OSError:
        return b""
