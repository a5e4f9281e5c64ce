"""Which container runtime the kubelet that runs this process uses: its container runtime endpoint says it.

Every pull asks it, so that the kubelet's command line is read in the fewest steps, and its files only where that does
not say it.
"""

from __future__ import annotations

import os

from ..settings import CONTAINERD, CRIO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_DEFAULT = b"unix:///run/containerd/containerd.sock"
"""The kubelet's own, since 1.27."""

_PROC = "/proc"
_FLAG, _CONFIG, _CONFIG_DIR = b"\0--container-runtime-endpoint", b"\0--config", b"\0--config-dir"
_MEMBER = b"containerRuntimeEndpoint"
_MAX_SIZE = 1 << 20
"""Bytes of a command line or a KubeletConfiguration."""


def of_parent() -> str:
    """The runtime of the kubelet that has started this process; ``crio`` where its endpoint is not known."""
    arguments = _read(f"{_PROC}/{os.getppid()}/cmdline", 1 << 14)
    endpoint = _flag(arguments, _FLAG)
    if not endpoint and arguments.partition(b"\0")[0].endswith(b"kubelet"):
        endpoint = _configured(arguments) or _DEFAULT
    return named_by(endpoint.decode("utf-8", "replace"))


def named_by(endpoint: str) -> str:
    """The runtime that serves an endpoint, such as ``unix:///run/containerd/containerd.sock``."""
    return CONTAINERD if "/containerd" in endpoint else CRIO


def _flag(arguments: bytes, name: bytes) -> bytes:
    """The last value of a flag, which begins with the NUL before it; empty where it is not given."""
    start = arguments.rfind(name + b"=")
    if start < 0 and (start := arguments.rfind(name + b"\0")) < 0:
        return b""
    start += len(name) + 1
    return arguments[start : arguments.find(b"\0", start)]


def _configured(arguments: bytes) -> bytes:
    """The endpoint in the kubelet's configuration files; of drop-ins the last one counts."""
    main, directory = _flag(arguments, _CONFIG), _flag(arguments, _CONFIG_DIR)
    paths = [main, *_drop_ins(directory)] if directory else [main]
    return next(filter(None, (_member(_read(path, _MAX_SIZE)) for path in reversed(paths) if path)), b"")


def _member(text: bytes) -> bytes:
    """The member's value in YAML or JSON; empty where it is not there or in a comment."""
    start = text.find(_MEMBER)
    while start >= 0:
        before = text[text.rfind(b"\n", 0, start) + 1 : start]
        start += len(_MEMBER)
        if b"#" not in before:
            value = text[start:].lstrip(b"'\" :").partition(b"\n")[0].partition(b",")[0].partition(b" #")[0]
            return value.strip(b"'\" \r}")
        start = text.find(_MEMBER, start)
    return b""


def _drop_ins(directory: bytes) -> Iterator[bytes]:
    try:
        yield from sorted(directory + b"/" + name for name in os.listdir(directory) if name.endswith(b".conf"))
    except OSError:
        return


def _read(path: str | bytes, size: int) -> bytes:
    """The beginning of a file, empty where it cannot be read. Never waits, as for a FIFO."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return os.read(descriptor, size)
        finally:
            os.close(descriptor)
    except OSError:
        return b""
