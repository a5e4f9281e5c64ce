"""config.toml and its imports: where containerd looks for the hosts of a registry.

Reads files, and nothing else. Nothing of a credential is kept: of registry.configs, registry.auths and headers the
names alone.

    config = load("/etc/containerd/config.toml", "", cache)
    config.config_path
"""

from __future__ import annotations

import os

from ...errors import ConfigError
from ...platform.record import Record
from . import goaddress
from .readings import READINGS, REFUSED, V1, V2_0, V2_2, V2_3

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...platform.parsecache import ParseCache

    _Outcome = tuple[str, dict[str, list[str]], dict[str, Any], str]
    """config_path, mirrors, the registry table, file."""

MAIN_FILE = "/etc/containerd/config.toml"
DEFAULT_CONFIG_PATH = "/etc/containerd/certs.d:/etc/docker/certs.d"
"""Of containerd 2.2 and later, where neither config_path nor mirrors is set."""

_CRI = "io.containerd.grpc.v1.cri"
_IMAGES = "io.containerd.cri.v1.images"
_SHORT_CRI = "cri"
"""Of version 1."""


class Configuration(Record):
    """Where containerd finds the hosts of a registry.

    Attributes:
        config_path: the directories that count, in order; the first that has one for the registry is taken.
        mirrors: host -> endpoints, of registry.mirrors; empty where config_path counts.
        file: the one that sets either; "" for a default.
        version: of the main file; 0 where there is none.
        unsure: why containerd may look at none of it and ask the registry itself alone, "" where it does look.
        auths: hosts for which containerd has a credential of its own; used where the kubelet sends none.
        tls: hosts with registry.configs.*.tls, which containerd 2 ignores.
        headers: names of the headers that containerd sends to every registry.
        files: all that were read, the main one first.
    """

    __slots__ = ("auths", "config_path", "file", "files", "headers", "mirrors", "tls", "unsure", "version")

    def __init__(
        self,
        config_path: tuple[str, ...],
        mirrors: dict[str, list[str]],
        file: str,
        version: int = 0,
        unsure: str = "",
        auths: tuple[str, ...] = (),
        tls: tuple[str, ...] = (),
        headers: tuple[str, ...] = (),
        files: tuple[str, ...] = (),
    ) -> None:
        self.config_path = config_path
        self.mirrors = mirrors
        self.file = file
        self.version = version
        self.unsure = unsure
        self.auths = auths
        self.tls = tls
        self.headers = headers
        self.files = files


def load(file: str, root: str, cache: ParseCache) -> Configuration:
    """Reads config.toml with its imports, or takes their parsed forms from the cache.

    Args:
        file: as containerd's ``--config``; taken as it stands.
        root: directory below which absolute paths lie that a file names.

    Raises:
        ConfigError: a file cannot be read, or containerd would not start with it.
    """
    files = _files(file, root, cache)
    version = files[0][1]["version"] if files else 0
    outcomes: list[_Outcome] = []
    errors: list[ConfigError] = []
    for reading in READINGS:
        try:
            outcomes += _outcomes(reading, files)
        except ConfigError as error:
            errors.append(error)
    if not outcomes:
        raise errors[-1]
    return _combined(outcomes, files, version, root)


# -- files ------------------------------------------------------------------------------------------------------------


def _files(file: str, root: str, cache: ParseCache) -> list[tuple[str, dict[str, Any]]]:
    """Every file with its form, in the order in which containerd merges them: breadth first, each once."""
    found: list[tuple[str, dict[str, Any]]] = []
    pending, seen = [(file, "")], set()
    while pending:
        path, importer = pending.pop(0)
        if path in seen:
            continue
        seen.add(path)
        form = _form(path, cache)
        if form is None:
            if not importer:
                return []
            raise ConfigError(
                f"cannot read {path}: no such file, which {importer} imports",
                f"create it, or remove it from imports in {importer}",
                rule="import-missing",
                consequence=REFUSED,
            )
        found.append((path, form))
        pending += [(name, path) for pattern in form["imports"] for name in _imported(path, pattern, root)]
    return found


def _form(path: str, cache: ParseCache) -> dict[str, Any] | None:
    def make() -> dict[str, Any] | None:
        from . import configfile

        return configfile.form(path)

    return cache.form((path,), make)  # type: ignore[no-any-return]


def _imported(parent: str, pattern: str, root: str) -> list[str]:
    pattern = goaddress.clean(pattern)
    pattern = root + pattern if pattern.startswith("/") else os.path.join(os.path.dirname(parent), pattern)
    if "*" not in pattern:
        return [goaddress.clean(pattern)]
    from . import goglob

    return goglob.matches(pattern)


# -- what each release makes of them ----------------------------------------------------------------------------------


def _outcomes(reading: str, files: list[tuple[str, dict[str, Any]]]) -> list[_Outcome]:
    """What one release takes; two where it depends on how it pulls, none where the files are not for it.

    Raises:
        ConfigError: it does not start.
    """
    newest = max((form["version"] for _, form in files), default=0)
    if newest > {V1: 2, V2_0: 3, V2_2: 3, V2_3: 4}[reading]:
        if reading == V2_3:
            path = next(path for path, form in files if form["version"] == newest)
            raise ConfigError(
                f"{path}: version is {newest}, and containerd knows 1 to 4",
                f"in {path} write version = 3",
                rule="version",
                consequence=REFUSED,
            )
        return []
    registry, file, local = _registry(reading, files)
    path = registry.get("config_path", "")
    mirrors = {host: entry.get("endpoint", []) for host, entry in registry.get("mirrors", {}).items()}
    if path and mirrors:
        raise ConfigError(
            f"{file}: registry.mirrors and registry.config_path are both set",
            "move the mirrors to hosts.toml files below config_path, and remove registry.mirrors",
            rule="mirrors-and-config-path",
            consequence=REFUSED,
        )
    if reading == V1 and path and any(entry["tls"] for entry in registry.get("configs", {}).values()):
        raise ConfigError(
            f"{file}: registry.configs.*.tls and registry.config_path are both set",
            "move ca, client and skip_verify to hosts.toml files below config_path, and remove registry.configs.*.tls",
            rule="tls-and-config-path",
            consequence=REFUSED,
        )
    if reading in (V2_2, V2_3) and not path and not mirrors:
        path, file = DEFAULT_CONFIG_PATH, ""
    taken = [(path, mirrors, registry, file)]
    if reading != V1 and ":" in path and not local and not registry.get("configs") and not registry.get("auths"):
        # From 2.1 the transfer service pulls, which takes the whole list for the name of one directory.
        taken.append(("", {}, registry, file))
    return taken


def _registry(reading: str, files: list[tuple[str, dict[str, Any]]]) -> tuple[dict[str, Any], str, bool]:
    """The registry table, the file that sets it, and whether containerd 2 pulls without its transfer service."""
    merged: dict[str, Any] = {}
    origin = ""
    for path, form in files:
        plugins = _plugins(reading, form)
        for name, plugin in plugins.items():
            if reading == V1:
                merged[name] = plugin
            else:
                merged[name] = _deep(merged.get(name, {}), plugin)
            registry = plugin.get("registry", {})
            if registry.get("config_path") or registry.get("mirrors"):
                origin = path
    version = max((form["version"] for _, form in files), default=0)
    cri, images = merged.get(_CRI, {}), merged.get(_IMAGES, {})
    if reading == V1:
        registry = cri.get("registry", {})
    elif "registry" in cri and (version < 3 or (reading == V2_3 and version < 4)):
        registry = cri["registry"]
    else:
        registry = images.get("registry", {})
    return registry, origin, bool(images.get("use_local_image_pull"))


def _plugins(reading: str, form: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The plugins of a file by their full names."""
    plugins: dict[str, dict[str, Any]] = form["plugins"]
    if form["version"] > 1:
        return {name: plugin for name, plugin in plugins.items() if name != _SHORT_CRI}
    if reading == V1:
        return {_CRI: plugins[_SHORT_CRI]} if _SHORT_CRI in plugins else {}
    return {_CRI if name == _SHORT_CRI else name: plugin for name, plugin in plugins.items()}


def _deep(earlier: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    merged = dict(earlier)
    for key, value in later.items():
        known = merged.get(key)
        merged[key] = _deep(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged


def _combined(
    outcomes: list[_Outcome], files: list[tuple[str, dict[str, Any]]], version: int, root: str
) -> Configuration:
    set_ones = [outcome for outcome in outcomes if outcome[0] or outcome[1]]
    explicit = [outcome for outcome in set_ones if outcome[3]]
    path, mirrors, registry, file = (explicit or set_ones or outcomes)[0]
    for other in explicit:
        if other[:2] != (path, mirrors):
            main = files[0][0]
            raise ConfigError(
                f"{main}: releases of containerd take different registry settings from it and its imports",
                f"write one registry table, in {main}, below the plugin that its version names",
                rule="unclear",
            )
    unsure = ""
    if any((other[0], other[1]) == ("", {}) for other in outcomes) and (path or mirrors):
        unsure = (
            "no file sets config_path, and only containerd 2.2 and later have a default"
            if not file
            else "config_path names several directories, which containerd 2.1 and later take for the name of one"
            if ":" in path
            else "not every release of containerd takes the setting from where it stands"
        )
    configs = registry.get("configs", {})
    return Configuration(
        tuple(root + name if name.startswith("/") else f"{root}/{name}" for name in path.split(":")) if path else (),
        mirrors,
        file,
        version,
        unsure,
        tuple(sorted({host for host, entry in configs.items() if entry["auth"]} | set(registry.get("auths", ())))),
        tuple(sorted(host for host, entry in configs.items() if entry["tls"])),
        tuple(sorted(registry.get("headers", ()))),
        tuple(path for path, _ in files),
    )
