"""containerd of a node: which config.toml it reads, the hosts of each registry that this leads to, and its version.

Reads what containerd reads (``runtimes.containerd``), in an image as on a node: there its files are read through a
temporary directory of links, each resolved inside the image, so that no path in it leads out.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..errors import ConfigError, ProviderError
from ..platform.parsecache import ParseCache
from ..platform.record import Record
from ..runtimes.containerd import config as configuration
from ..runtimes.containerd import configfile, goaddress, hosts, hostsfile
from ..runtimes.containerd.config import MAIN_FILE, Configuration
from ..runtimes.containerd.hosts import Found
from ..runtimes.containerd.readings import V1_6, V1_7, V2_0, V2_2, V2_3
from .commandline import Flag, Process, Word, find_flags, find_processes, find_unit, last
from .crio import Setting
from .kubelet import Asked, Kubelet, Version, ask_version, packaged_version
from .tree import Tree, Unreadable

OTHERS = "registry.invalid"
"""Stands for each registry without a directory of its own, to which ``_default`` and the mirrors of ``*`` apply."""

RELEASES = {V1_6: "1.6", V1_7: "1.7", V2_0: "2.0, 2.1", V2_2: "2.2", V2_3: "2.3"}
"""What people call the readings."""

HOSTS_FILE = "hosts.toml"

_PROGRAM = "containerd"
_UNIT = "containerd.service"
_FLAGS = frozenset(("c", "config", "a", "address", "root", "state", "l", "log-level"))
_EMBEDDED = "/var/lib/rancher/{}/agent/etc/containerd/config.toml"
_MOST_NAMES = 2000
"""Entries of a directory that are looked at."""


class Containerd(NamedTuple):
    """A containerd that runs, or that a node is set up for.

    Attributes:
        name: what it was found as, for people.
        config_file: its ``--config``.
        version: None where it is not known.
        started: as ``Process.started``, 0 where it does not run or that is not known.
        distribution: ``k3s`` or ``rke2`` where it is the one that they bring, which writes its files; else "".
        environment: what its unit sets; the proxies are among it.
        problems: files that could not be read.
    """

    name: str
    config_file: Setting
    version: Version | None
    started: float
    distribution: str
    environment: dict[str, str]
    problems: tuple[Unreadable, ...]

    @property
    def reading(self) -> str:
        """Which of ``READINGS`` its release is, "" where it is not known."""
        return reading_of(self.version)


class HostsFile(NamedTuple):
    """One hosts.toml that containerd looks at.

    Attributes:
        ignored_by: those of ``READINGS`` that ignore it, or may.
        reason, line: why they do; "" where they only may.
    """

    path: str
    ignored_by: tuple[str, ...]
    reason: str
    line: int


class Directory(NamedTuple):
    """What lies below a directory of config_path: a directory with the names in it, or a file (``names`` None)."""

    root: str
    name: str
    names: tuple[str, ...] | None

    @property
    def path(self) -> str:
        return posixpath.join(self.root, self.name)


class Hosts(NamedTuple):
    """config.toml with its imports, and the hosts of each registry by it.

    Attributes:
        file: the main file.
        config: None where it is refused or cannot be read.
        refused: why.
        found: registry -> its hosts, ``OTHERS`` for ``_default``; those that have a directory or mirrors.
        failed: registry -> why containerd fails all its pulls.
        directories: below all of config_path, in its order.
        files: the hosts.toml of each of them.
        problems: what this process may not read.
    """

    file: str
    config: Configuration | None
    refused: ConfigError | None
    found: dict[str, Found]
    failed: dict[str, ConfigError]
    directories: tuple[Directory, ...]
    files: tuple[HostsFile, ...]
    problems: tuple[Unreadable, ...]


def reading_of(version: Version | None) -> str:
    """How a release reads its files, one of ``READINGS``; "" where it is not known."""
    if version is None:
        return ""
    for first, reading in (((2, 3), V2_3), ((2, 2), V2_2), ((2, 0), V2_0), ((1, 7), V1_7)):
        if version.minor >= first:
            return reading
    return V1_6


def find_containerd(
    tree: Tree, ticks: int, kubelet: Kubelet | None, *, live: bool, next_start: bool = False
) -> Containerd | None:
    """containerd of a node; None where there is neither a process nor a unit nor a file of it.

    Args:
        kubelet: of k3s and RKE2, for theirs.
        live: whether its programs may be asked.
        next_start: as it will run after its next start, whatever runs now.
    """
    distribution = kubelet.distribution if kubelet else ""
    running = find_processes(tree, (_PROGRAM,), ticks) if live and not next_start else []
    process = next((one for one in running if bool(distribution) == ("/rancher/" in _config_of(one))), None)
    unit = None if distribution else find_unit(tree, _UNIT)
    default = _EMBEDDED.format(distribution) if distribution else MAIN_FILE
    if process is None and unit is None and not tree.exists(default):
        return None
    words = process.words[1:] if process else list(unit.words[1:]) if unit else []
    given = _config_flag(words)
    written = _config_flag(list(unit.words[1:])) if unit else None
    # A process with the unit's value has it from there.
    origin = written.origin if written and given and written.value == given.value else given.origin if given else None
    program = process.program if process else unit.words[0].text if unit and unit.words else ""
    asked = ask_version(tree, program) if live else Asked()
    version = asked.version
    if version is None and not asked.why_unknown and not distribution:
        version = packaged_version(tree, "containerd", "containerd.io")
    return Containerd(
        f"process {process.pid}" if process else unit.file if unit else default,
        Setting(given.value if given else default, origin),
        version,
        process.started if process else 0.0,
        distribution,
        unit.environment if unit else kubelet.environment if kubelet and distribution else {},
        unit.problems if unit else (),
    )


def _config_flag(words: list[Word]) -> Flag | None:
    flags = find_flags(words, _FLAGS)
    return last((flag._replace(name="config" if flag.name == "c" else flag.name) for flag in flags), "config")


def _config_of(process: Process) -> str:
    flag = _config_flag(process.words[1:])
    return flag.value if flag else ""


# -- config.toml and hosts.toml ---------------------------------------------------------------------------------------


def load_hosts(tree: Tree, file: str) -> Hosts:
    """What a config.toml and the directories of its config_path come to; nothing outside the tree is read."""
    file = posixpath.join("/", file)
    if not tree.root:
        return _load(tree, file, "")
    with tempfile.TemporaryDirectory(prefix="crio-credential-provider-") as place:
        found: Hosts = _without(place, _load(tree, file, place))
        return found


def _load(tree: Tree, file: str, place: str) -> Hosts:
    """``place``: where the links are, "" where the files are read as they lie."""
    problems: list[Unreadable] = []
    cache = ParseCache("", "containerd")
    nothing = Hosts(file, None, None, {}, {}, (), (), ())
    try:
        if place:
            _link_imports(tree, file, place)
        config = _cleaned(configuration.load(place + file, place, cache), place)
    except ConfigError as error:
        return nothing._replace(refused=error)
    except ValueError:
        # A NUL in a path, or a glob that is not one.
        return nothing._replace(refused=ConfigError(f"{file}: imports has an invalid path", f"correct {file}"))
    directories = tuple(_directories(tree, config, place, problems))
    files, found, failed = [], {}, {}
    for path in (f"{found.path}/{HOSTS_FILE}" for found in directories if HOSTS_FILE in (found.names or ())):
        with contextlib.suppress(ConfigError):
            form = hostsfile.form(place + path)
            taken = form.get("readings", {})
            ignored = tuple(reading for reading in config.readings if None in taken.get(reading, ()))
            files.append(HostsFile(path, ignored, form.get("reason", ""), form.get("line", 0)))
    for domain in _domains(config, directories):
        try:
            found[domain] = hosts.hosts_for(config, domain, cache)
        except ConfigError as error:
            failed[domain] = error
    return Hosts(file, config, None, found, failed, directories, tuple(files), tuple(problems))


def _cleaned(config: Configuration, place: str) -> Configuration:
    """With no directory that climbs above the root."""
    rest = (path[len(place) :] for path in config.config_path)
    cleaned: Configuration = _replaced(config, config_path=tuple(place + goaddress.clean(f"/{path}") for path in rest))
    return cleaned


def _directories(tree: Tree, config: Configuration, place: str, problems: list[Unreadable]) -> Iterator[Directory]:
    for root in dict.fromkeys(path[len(place) :] for path in config.config_path):
        for name in _names(tree, root, problems):
            path = posixpath.join(root, name)
            if not tree.is_directory(path):
                yield Directory(root, name, None)
                continue
            names = _names(tree, path, problems)
            if place:
                os.makedirs(place + path, exist_ok=True)
                for inner in names:
                    _link(tree, posixpath.join(path, inner), place)
            yield Directory(root, name, tuple(names))


def _names(tree: Tree, path: str, problems: list[Unreadable]) -> list[str]:
    try:
        return tree.names(path)[:_MOST_NAMES]
    except Unreadable as error:
        if error.denied:
            problems.append(error)
    except ValueError:
        # A NUL in the path.
        pass
    return []


def _domains(config: Configuration, directories: tuple[Directory, ...]) -> list[str]:
    """The registries that have mirrors or a directory, as images name them."""
    if config.mirrors:
        return [OTHERS if domain == "*" else domain for domain in config.mirrors]
    return list(dict.fromkeys(domain_of(found.name) for found in directories if found.names is not None))


def domain_of(name: str) -> str:
    """The registry whose directory has a name."""
    if name == "_default":
        return OTHERS
    host, _, port = name.removesuffix("_").rpartition("_")
    return f"{host}:{port}" if host and name.endswith("_") and port.isdigit() else name


# -- in an image ------------------------------------------------------------------------------------------------------


def _link_imports(tree: Tree, file: str, place: str) -> None:
    """Links config.toml and all that it may import into the place.

    Raises:
        ConfigError: as ``config.load``, and where an import climbs above the root.
    """
    pending, seen = [file], set[str]()
    while pending:
        path = pending.pop()
        if path in seen or len(seen) > _MOST_NAMES:
            continue
        seen.add(path)
        _link(tree, path, place)
        if os.path.isdir(place + path):
            continue
        form = configfile.form(place + path)
        for pattern in form["imports"] if form else ():
            wanted = pattern if pattern.startswith("/") else f"{posixpath.dirname(path)}/{pattern}"
            # containerd 1.6 takes a relative pattern from its working directory.
            at_root = [pattern] if "*" in pattern and not pattern.startswith("/") else []
            if "\0" in wanted or any(map(_climbs, (wanted, *at_root))):
                raise ConfigError(f"{path}: imports names {pattern!r}, which is outside the root", f"correct {path}")
            pending += [name for each in (wanted, *at_root) for name in _matching(tree, goaddress.clean(f"/{each}"))]


def _climbs(path: str) -> bool:
    depth = 0
    for part in path.split("/"):
        depth += -1 if part == ".." else bool(part) and part != "."
        if depth < 0:
            return True
    return False


def _matching(tree: Tree, pattern: str) -> list[str]:
    """The paths that a pattern may match, and more: which do, containerd's own rule tells."""
    found = ["/"]
    for part in pattern.strip("/").split("/"):
        if any(letter in part for letter in "*?[\\"):
            found = [posixpath.join(path, name) for path in found for name in _names(tree, path, [])][:_MOST_NAMES]
        else:
            found = [posixpath.join(path, part) for path in found]
    return found


def _link(tree: Tree, path: str, place: str) -> None:
    """What lies at a path of the node, behind all its links, at the same path of the place."""
    at = place + path
    try:
        os.makedirs(os.path.dirname(at), exist_ok=True)
        try:
            real = tree.real(path)
        except OSError:
            # Links in a circle are that in the place as well.
            real = at
        if os.path.isdir(real):
            os.makedirs(at, exist_ok=True)
        elif not os.path.lexists(at):
            os.symlink(real, at)
    except OSError:
        # A file where a directory would have to be: nothing lies there.
        return


def _without(place: str, value: Any) -> Any:
    """The value with the node's paths in place of those that were read."""
    if isinstance(value, str):
        return value.replace(place, "")
    if isinstance(value, dict):
        return {_without(place, key): _without(place, item) for key, item in value.items()}
    if isinstance(value, tuple):
        items = [_without(place, item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, list):
        return [_without(place, item) for item in value]
    if isinstance(value, Record):
        return _replaced(value, **{name: _without(place, getattr(value, name)) for name in value.__slots__})
    if isinstance(value, ProviderError):
        return within(value, place)
    return value


def within(error: ProviderError, root: str) -> ProviderError:
    """The error with the node's own paths."""
    if isinstance(error, ConfigError) and root:
        message, hint = error.message.replace(root, ""), error.hint.replace(root, "")
        return ConfigError(message, hint, rule=error.rule, line=error.line, consequence=error.consequence)
    return error


def _replaced(record: Any, **values: Any) -> Any:
    return type(record)(**{name: values.get(name, getattr(record, name)) for name in record.__slots__})
