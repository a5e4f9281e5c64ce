"""Files of containerd that were copied from a node, and what stands for its config.toml here."""

from __future__ import annotations

import json
import os

from ..errors import ConfigError
from ..platform.parsecache import ParseCache
from ..runtimes.containerd import config
from ..runtimes.containerd.config import Configuration

_MOST = 1 << 20
"""Bytes of a file that are looked at."""
_HOST = (b"[host]", b"[host.")
"""How the tables of a hosts.toml begin."""

_COPY = "give a copy of containerd's config_path, such as /etc/containerd/certs.d"


def is_containerd(path: str) -> bool:
    """Whether a path is containerd's: a directory, or a config.toml, which has plugins or imports as registries.conf
    has not. A hosts.toml is containerd's as well, and refused by ``find``."""
    return os.path.isdir(path) or _has(path, b"[plugins", b"plugins.", b"imports", *_HOST)


def _has(path: str, *beginnings: bytes) -> bool:
    """Whether a line of a file begins so."""
    try:
        with open(path, "rb") as file:
            lines = [line.strip() for line in file.read(_MOST).splitlines()]
    except OSError:
        return False
    return any(line.startswith(beginnings) for line in lines)


def find(path: str) -> tuple[str, str]:
    """The config.toml, and the root of its paths, of what was copied: the root of a node, or config.toml below one;
    "" for the directory of config_path itself.

    Raises:
        ConfigError: it is none of these.
    """
    if os.path.exists(path + config.MAIN_FILE):
        return path + config.MAIN_FILE, path
    if not os.path.isdir(path):
        if _has(path, *_HOST):
            raise ConfigError(f"{path} is the hosts.toml of one registry", _COPY)
        absolute = os.path.abspath(path)
        root = absolute.removesuffix(config.MAIN_FILE)
        return absolute, root if root != absolute else ""
    if not any(os.path.exists(f"{path}/{name}/hosts.toml") for name in _names(path)):
        raise ConfigError(f"{path} has no HOST/hosts.toml", _COPY)
    return "", ""


def load(path: str) -> Configuration:
    """What was copied, as containerd would read it.

    Raises:
        ConfigError: it cannot be used.
    """
    main, root = find(path)
    if not main:
        return Configuration((os.path.abspath(path),), {}, os.path.abspath(path))
    read = config.load(main, root, ParseCache("", "containerd"))
    for directory in read.config_path:
        if read.file and not os.path.isdir(directory):
            raise ConfigError(
                f"{main}: config_path names {directory.removeprefix(root)}, which is not here",
                "give a copy of that directory instead",
            )
    return read


def write_config(path: str, directory: str) -> tuple[str, str]:
    """The same as ``find``, with a config.toml for a directory of hosts, which is written."""
    main, root = find(path)
    if main:
        load(path)
        return main, root
    made = os.path.join(directory, "config.toml (stand-in)")
    with open(made, "w") as file:
        table = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\n'
        file.write(f"{table}config_path = {json.dumps(os.path.abspath(path))}\n")
    return made, ""


def _names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
