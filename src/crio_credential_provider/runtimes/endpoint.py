"""Which container runtime the kubelet that runs this process uses: its container runtime endpoint says it.

Every pull asks it, so that most nodes with CRI-O are known by one system call: they have no directory of containerd.
"""

from __future__ import annotations

import os

from ..settings import CONTAINERD, CRIO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_PROC = "/proc"
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""Never waits, as for a FIFO."""
_FLAG = b"\0--container-runtime-endpoint"
_CONTAINERD = b"/containerd"
_MEMBER = b"containerRuntimeEndpoint"
_MAX_SIZE = 1 << 20
"""Bytes of a KubeletConfiguration."""


def of_parent(root: str) -> str:
    """The runtime of the kubelet that has started this process; ``crio`` where its endpoint is not known, or where
    there is no directory of containerd below ``root``, and so no mirror."""
    if not os.access(f"{root}/etc/containerd", os.F_OK):
        return CRIO
    try:
        descriptor = os.open(f"{_PROC}/{os.getppid()}/cmdline", _OPEN)
        arguments = os.read(descriptor, 8192)
        os.close(descriptor)
    except OSError:
        return CRIO
    # The last one counts; = or NUL ends its name.
    start = arguments.rfind(_FLAG) + len(_FLAG) + 1
    endpoint = arguments[start : arguments.find(b"\0", start)] if start > len(_FLAG) else b""
    if not endpoint and arguments.partition(b"\0")[0].endswith(b"kubelet"):
        # In the end the kubelet's own default, since 1.27.
        endpoint = _configured(arguments.split(b"\0")) or b"unix:///run/containerd/containerd.sock"
    return CONTAINERD if _CONTAINERD in endpoint else CRIO


def named_by(endpoint: str) -> str:
    """The runtime that serves an endpoint, such as ``unix:///run/containerd/containerd.sock``."""
    return CONTAINERD if _CONTAINERD in endpoint.encode() else CRIO


def _configured(words: list[bytes]) -> bytes:
    """The endpoint in the kubelet's configuration files; of drop-ins the last one counts."""
    main, directory = _value(words, b"--config"), _value(words, b"--config-dir")
    paths = [main, *_drop_ins(directory)] if directory else [main]
    return next(filter(None, (_member(_read(path)) for path in reversed(paths) if path)), b"")


def _value(words: list[bytes], name: bytes) -> bytes:
    """The last value of a flag, empty where it is not given."""
    value = b""
    for word, following in zip(words, [*words[1:], b""], strict=True):
        if word.startswith(name + b"="):
            value = word[len(name) + 1 :]
        elif word == name:
            value = following
    return value


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


def _read(path: bytes) -> bytes:
    """The beginning of a file, empty where it cannot be read."""
    try:
        descriptor = os.open(path, _OPEN)
        try:
            return os.read(descriptor, _MAX_SIZE)
        finally:
            os.close(descriptor)
    except OSError:
        return b""
