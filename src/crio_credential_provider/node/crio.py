"""CRI-O of a node: where it looks for auth files and registries.conf, and its version.

Reads what CRI-O reads, in its order: crio.conf, then every file below crio.conf.d whatever its name, then its
environment and its command line, of a running process or of its unit.
"""

from __future__ import annotations

import difflib
import posixpath
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from .commandline import Flag, Origin, find_flags, find_processes, find_unit, last
from .kubelet import Asked, Version, as_mapping, ask_version, packaged_version, parse_version
from .located import toml_line
from .tree import Tree, Unreadable

DEFAULT_AUTH_DIR = "/etc/crio/auth"

_CONFIG, _CONFIG_DIR = "/etc/crio/crio.conf", "/etc/crio/crio.conf.d"
_UNITS = ("crio.service", "cri-o.service")
_VERSION_FILES = ("/run/crio/version", "/var/run/crio/version", "/var/lib/crio/version")
_TABLE = "crio.image"

GLOBAL_AUTH_FILE_FLAG = "global-auth-file"
AUTH_DIR_FLAG, REGISTRIES_CONF, REGISTRIES_CONF_DIR = "namespaced-auth-dir", "registries-conf", "registries-conf-dir"
SHORT_NAME_MODE = "short-name-mode"
ENFORCING, DISABLED = "enforcing", "disabled"
_SHORT = {"c": "config", "d": "config-dir"}
_FLAGS = frozenset(
    (
        *(AUTH_DIR_FLAG, GLOBAL_AUTH_FILE_FLAG, REGISTRIES_CONF, REGISTRIES_CONF_DIR, SHORT_NAME_MODE),
        *("config", "config-dir", *_SHORT),
    )
)
_VARIABLES = {
    AUTH_DIR_FLAG: "CONTAINER_NAMESPACED_AUTH_DIR",
    GLOBAL_AUTH_FILE_FLAG: "CONTAINER_GLOBAL_AUTH_FILE",
    REGISTRIES_CONF: "CONTAINER_REGISTRIES_CONF",
    REGISTRIES_CONF_DIR: "CONTAINER_REGISTRIES_CONF_DIR",
    SHORT_NAME_MODE: "CONTAINER_SHORT_NAME_MODE",
    "config": "CONTAINER_CONFIG",
    "config-dir": "CONTAINER_CONFIG_DIR",
}


class Setting(NamedTuple):
    """A value, and where it is set; without an origin it is the default."""

    value: str
    origin: Origin | None


class Crio(NamedTuple):
    """A CRI-O that runs, or that a node is set up for.

    Attributes:
        auth_dir: its namespaced_auth_dir.
        global_auth_file: for pulls without credentials of their own; "" for none.
        registries_conf, registries_conf_dir: what it was started with, "" for its default search.
        short_name_mode: its own, which goes before that of registries.conf.
        version: None where it is not known.
        started: as ``Process.started``, 0 where it does not run or that is not known.
        environment: what its unit sets; the proxies are among it.
        slips: keys that CRI-O ignores for their spelling or their table, and what is meant.
        refused: files that are not valid TOML, and why: then its settings are not known.
        problems: files that could not be read or parsed.
    """

    auth_dir: Setting
    global_auth_file: Setting
    registries_conf: Setting
    registries_conf_dir: Setting
    short_name_mode: Setting
    version: Version | None
    started: float
    environment: dict[str, str]
    slips: tuple[tuple[Origin, str, str], ...]
    refused: tuple[tuple[Origin, str], ...]
    problems: tuple[Unreadable, ...]


def find_crio(tree: Tree, ticks: int, *, live: bool, next_start: bool = False) -> Crio | None:
    """CRI-O of a node; None where there is neither a process nor a unit nor a file of it.

    Args:
        live: whether its programs may be asked.
        next_start: as it will run after its next start, whatever runs now.
    """
    process = next(iter(find_processes(tree, ("crio",), ticks)), None) if live and not next_start else None
    unit = next((unit for name in _UNITS if (unit := find_unit(tree, name))), None)
    if process is None and unit is None and not any(map(tree.exists, (_CONFIG, _CONFIG_DIR, *_VERSION_FILES))):
        return None
    words = process.words[1:] if process else unit.words[1:] if unit else []
    configured = find_flags(unit.words[1:], _FLAGS) if unit else []
    given = [_long(flag) for flag in find_flags(words, _FLAGS)]
    environment = unit.environment if unit else {}
    problems = list(unit.problems) if unit else []

    def option(name: str, default: str) -> Setting:
        flag = last(given, name)
        if flag:
            written = last(map(_long, configured), name)
            return Setting(flag.value, written.origin if written and written.value == flag.value else flag.origin)
        variable = environment.get(_VARIABLES[name], "")
        return Setting(variable, unit.start if unit else None) if variable else Setting(default, None)

    files = _files(tree, option("config", _CONFIG).value, option("config-dir", _CONFIG_DIR).value)
    refused: list[tuple[Origin, str]] = []
    slips: list[tuple[Origin, str, str]] = []
    written = _image_options(tree, files, problems, refused, slips)

    def image_option(name: str, default: str) -> Setting:
        given = option(name, "")
        return given if given.value else written.get(name.replace("-", "_"), Setting(default, None))

    program = process.program if process else unit.words[0].text if unit and unit.words else ""
    return Crio(
        image_option(AUTH_DIR_FLAG, DEFAULT_AUTH_DIR),
        image_option(GLOBAL_AUTH_FILE_FLAG, ""),
        option(REGISTRIES_CONF, ""),
        option(REGISTRIES_CONF_DIR, ""),
        image_option(SHORT_NAME_MODE, ENFORCING),
        _version(tree, program, live=live),
        process.started if process else 0.0,
        environment,
        tuple(slips),
        tuple(refused),
        tuple(problems),
    )


def _long(flag: Flag) -> Flag:
    return flag._replace(name=_SHORT.get(flag.name, flag.name))


def _files(tree: Tree, config: str, directory: str) -> list[str]:
    """In the order in which they are read; a later one wins."""
    found = [config] if config and tree.exists(config) else []
    left = [(directory, 0)]
    while left:
        place, depth = left.pop()
        try:
            names = tree.names(place)
        except Unreadable:
            continue
        paths = [posixpath.join(place, name) for name in names]
        # CRI-O does not follow links to directories; a tree is deep enough at 8.
        left += [(path, depth + 1) for path in reversed(paths) if depth < 8 and tree.is_directory(path)]
        found += [path for path in paths if not tree.is_directory(path)]
    return found[:1] + sorted(found[1:], key=lambda path: path.split("/")) if config in found else sorted(found)


def _image_options(
    tree: Tree,
    files: list[str],
    problems: list[Unreadable],
    refused: list[tuple[Origin, str]],
    slips: list[tuple[Origin, str, str]],
) -> dict[str, Setting]:
    """Options of ``[crio.image]``, by the names that they have there."""
    import tomli

    found: dict[str, Setting] = {}
    for file in files:
        try:
            text = tree.text(file)
            document: dict[str, Any] = tomli.loads(text)
        except Unreadable as error:
            problems.append(error)
            continue
        except (ValueError, RecursionError) as error:
            line = re.search(r"at line (\d+)", str(error))
            reason = "it is not valid TOML"
            reason += ": a string needs double quotes" if "Invalid value" in str(error) else ""
            refused.append((Origin(file, int(line[1]) if line else 0), reason))
            continue
        for key, value in as_mapping(as_mapping(document.get("crio")).get("image")).items():
            if isinstance(value, str):
                found[key] = Setting(value, Origin(file, toml_line(text, _TABLE, key)))
        slips += ((Origin(file, line), key, meant) for line, key, meant in _slips(document, text, ""))
    return found


def _slips(table: dict[str, Any], text: str, name: str) -> Iterator[tuple[int, str, str]]:
    """Lines, keys with their tables, and the option that is meant."""
    known = [flag.replace("-", "_") for flag in (AUTH_DIR_FLAG, GLOBAL_AUTH_FILE_FLAG)]
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _slips(value, text, f"{name}.{key}".lstrip("."))
        elif (close := difflib.get_close_matches(key.lower(), known, 1, 0.85)) and (name, key) != (_TABLE, close[0]):
            yield toml_line(text, name, key), f"{key} of [{name}]" if name else f"{key} above every table", close[0]


def _version(tree: Tree, program: str, *, live: bool) -> Version | None:
    """Of the program that runs, where it may be asked; else what CRI-O left at its last start; else the package's."""
    asked = ask_version(tree, program) if live else Asked()
    if asked.version:
        return asked.version
    for file in _VERSION_FILES:
        try:
            version = parse_version(tree.text(file), file)
        except Unreadable:
            continue
        if version:
            return version
    if asked.why_unknown:
        return None
    return packaged_version(tree, "cri-o", "cri-o-1.34", "cri-o-1.35", "cri-o-1.36", "cri-o-1.37")
