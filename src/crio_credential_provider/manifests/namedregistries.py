"""The registries that containerd's configuration names, each with its hosts: by directories below config_path, or by
registry.mirrors."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from ..errors import ConfigError
from ..platform.parsecache import ParseCache
from ..runtimes.containerd.config import Configuration
from ..runtimes.containerd.hosts import Found, hosts_for
from .matchimages import OTHERS

_WITH_PORT = re.compile(r"(.+)_(\d+)_", re.ASCII)
"""A directory's name for a registry with a port, for file systems without colons."""


class Named(NamedTuple):
    """What the configuration names.

    Attributes:
        registries: in byte order; that for all others under the name ``OTHERS``.
        refused: registries from which every pull fails, and why.
    """

    registries: tuple[Found, ...]
    refused: tuple[tuple[str, str], ...]


def find(config: Configuration) -> Named:
    """Reads the files of every registry that is named."""
    found: list[Found] = []
    refused: list[tuple[str, str]] = []
    nothing = ParseCache("", "hosts")
    for domain in sorted({*_names(config)}):
        try:
            found.append(hosts_for(config, domain, nothing))
        except ConfigError as error:
            refused.append((domain, error.message))
    return Named(tuple(found), tuple(refused))


def _names(config: Configuration) -> Iterator[str]:
    if config.mirrors:
        yield from (OTHERS if host == "*" else host for host in config.mirrors)
        return
    for root in config.config_path:
        try:
            names = [entry.name for entry in os.scandir(root) if entry.is_dir()]
        except OSError:
            # One that is missing counts as empty for containerd.
            continue
        for name in names:
            match = _WITH_PORT.fullmatch(name)
            yield f"{match[1]}:{match[2]}" if match else name
