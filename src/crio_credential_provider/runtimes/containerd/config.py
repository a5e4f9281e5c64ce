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
from .readings import FIRST, READINGS, REFUSED, V1_6, V2_2, V2_3

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...platform.parsecache import ParseCache

    Forms = list[tuple[str, dict[str, Any]]]
    """Every file with what is kept of it, in the order in which containerd merges them."""

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
        advice: what to do about that.
        auths: hosts for which containerd has a credential of its own; used where the kubelet sends none.
        tls: hosts with registry.configs.*.tls, which containerd 2 ignores.
        insecure: those of them whose certificate containerd 1 does not verify.
        headers: names of the headers that containerd sends to every registry.
        files: all that were read, the main one first.
        readings: the releases that start with them.
    """

    __slots__ = (
        "advice",
        "auths",
        "config_path",
        "file",
        "files",
        "headers",
        "insecure",
        "mirrors",
        "readings",
        "tls",
        "unsure",
        "version",
    )

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
        readings: tuple[str, ...] = READINGS,
        insecure: tuple[str, ...] = (),
        advice: str = "",
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
        self.readings = readings
        self.insecure = insecure
        self.advice = advice


def load(file: str, root: str, cache: ParseCache) -> Configuration:
    """Reads config.toml with its imports, or takes their parsed forms from the cache.

    Args:
        file: as containerd's ``--config``; taken as it stands.
        root: directory below which absolute paths lie that a file names.

    Raises:
        ConfigError: a file cannot be read, containerd would not start with it, or its releases differ in it so much
            that nothing can be told.
    """
    forms = read(file, root, cache, V2_3)
    imports = [pattern for _, form in forms for pattern in form["imports"]]
    differs = any("*" in pattern and not pattern.startswith("/") for pattern in imports)
    outcomes: list[Outcome] = []
    fault = None
    for reading in READINGS:
        try:
            read_again = differs and reading == V1_6
            outcomes += outcomes_of(reading, read(file, root, cache, reading) if read_again else forms)
        except ConfigError as error:
            fault = error
    if not outcomes:
        assert fault is not None
        raise fault
    return _combined(outcomes, forms, root)


# -- files ------------------------------------------------------------------------------------------------------------


def read(file: str, root: str, cache: ParseCache, reading: str) -> Forms:
    """The files that a release reads: breadth first, each once.

    Raises:
        ConfigError: one cannot be read, or is not there.
    """
    found: Forms = []
    pending, seen = [(file, "")], set()
    while pending:
        path, importer = pending.pop(0)
        if path in seen:
            continue
        seen.add(path)
        form = _form(path, cache)
        if not form:
            if not importer:
                return []
            raise ConfigError(
                f"cannot read {path}: no such file, which {importer} imports",
                f"create it, or remove it from imports in {importer}",
                rule="import-missing",
                consequence=REFUSED,
            )
        found.append((path, form))
        pending += [(name, path) for pattern in form["imports"] for name in _imported(path, pattern, root, reading)]
    return found


def _form(path: str, cache: ParseCache) -> dict[str, Any]:
    def make() -> dict[str, Any]:
        from . import configfile

        return configfile.form(path)

    return cache.form((path,), make)  # type: ignore[no-any-return]


def _imported(parent: str, pattern: str, root: str, reading: str) -> list[str]:
    pattern = goaddress.clean(pattern)
    # containerd 1.6 takes a relative pattern from its working directory, and a relative name from the file's.
    if pattern.startswith("/") or (reading == V1_6 and "*" in pattern):
        pattern = f"{root}/{pattern.lstrip('/')}"
    else:
        pattern = os.path.join(os.path.dirname(parent), pattern)
    if "*" not in pattern:
        return [goaddress.clean(pattern)]
    from . import goglob

    try:
        return goglob.matches(pattern)
    except ValueError:
        raise ConfigError(
            f"{parent}: imports has {pattern!r}, which is not a pattern",
            f"in {parent} write a pattern such as conf.d/*.toml",
            rule="import-pattern",
            consequence=REFUSED,
        ) from None


def directories(config_path: str, root: str) -> tuple[str, ...]:
    """The directories of a config_path; what is not absolute lies below containerd's working directory, ``/``."""
    names = config_path.split(":") if config_path else []
    return tuple(root + name if name.startswith("/") else f"{root}/{name}" for name in names)


# -- what each release makes of them ----------------------------------------------------------------------------------


class Outcome(Record):
    """What a release of containerd takes.

    Attributes:
        reading: the release.
        config_path, mirrors: ``""`` and none where it asks the registry itself alone.
        registry: the table with them.
        file: of them, "" for a default.
    """

    __slots__ = ("config_path", "file", "mirrors", "reading", "registry")

    def __init__(
        self, reading: str, config_path: str, mirrors: dict[str, list[str]], registry: dict[str, Any], file: str
    ) -> None:
        self.reading = reading
        self.config_path = config_path
        self.mirrors = mirrors
        self.registry = registry
        self.file = file


def outcomes_of(reading: str, forms: Forms) -> list[Outcome]:
    """What one release takes; two where it depends on how it pulls, none where the files are not for it.

    Raises:
        ConfigError: it does not start with them.
    """
    if not _starts(reading, forms):
        return []
    images = _of_containerd_1(forms) if reading in FIRST else _of_containerd_2(reading, forms)
    registry = images.get("registry", {})
    path = registry.get("config_path", "")
    mirrors = {host: entry["endpoint"] for host, entry in registry.get("mirrors", {}).items()}
    configs = registry.get("configs", {})
    file = _file_of(forms) if path or mirrors else ""
    if path and mirrors:
        raise ConfigError(
            f"{file}: registry.mirrors and registry.config_path are both set",
            "move the mirrors to hosts.toml files below config_path, and remove registry.mirrors",
            rule="mirrors-and-config-path",
            consequence=REFUSED,
        )
    if reading in FIRST and path and any(entry["tls"] for entry in configs.values()):
        raise ConfigError(
            f"{file}: registry.configs.*.tls and registry.config_path are both set",
            "move ca, client and skip_verify to hosts.toml files below config_path, and remove registry.configs.*.tls",
            rule="tls-and-config-path",
            consequence=REFUSED,
        )
    if reading in (V2_2, V2_3) and not path and not mirrors:
        path = DEFAULT_CONFIG_PATH
    taken = [Outcome(reading, path, mirrors, registry, file)]
    is_local = images.get("use_local_image_pull") or configs or registry.get("auths")
    if reading not in FIRST and ":" in path and not is_local:
        # From 2.1 the transfer service pulls, which takes the whole list for the name of one directory.
        taken.append(Outcome(reading, "", {}, registry, file))
    return taken


def _starts(reading: str, forms: Forms) -> bool:
    """Whether a release is meant by the files' versions.

    Raises:
        ConfigError: none is.
    """
    versions = [form["version"] for _, form in forms]
    if reading in FIRST:
        # 1.6 knows no version above 2 and does not look; nobody writes such a file for it.
        last = next((version for version in reversed(versions) if version), 1)
        return last <= 2 and not (last > 1 and any(_SHORT_CRI in form["plugins"] for _, form in forms))
    if reading != V2_3:
        return max(versions, default=0) <= 3
    highest = versions[0] or max(versions) if versions else 0
    for path, form in forms:
        if not 0 <= form["version"] <= min(highest, 4):
            knows = f"{forms[0][0]} has {highest}" if form["version"] > highest else "containerd knows 1 to 4"
            raise ConfigError(
                f"{path}: version is {form['version']}, and {knows}",
                f"in {path} write version = {highest if 0 < highest <= 4 else 2}",
                rule="version",
                consequence=REFUSED,
            )
    return True


def _file_of(forms: Forms) -> str:
    """The last file with a registry setting."""
    found = forms[0][0]
    for path, form in forms:
        if any(
            plugin.get("registry", {}).get("config_path") or plugin.get("registry", {}).get("mirrors")
            for plugin in form["plugins"].values()
        ):
            found = path
    return found


def _of_containerd_1(forms: Forms) -> dict[str, Any]:
    """The plugin's table is that of the last file that has one; the version is the last that is written."""
    version = next((form["version"] for _, form in reversed(forms) if form["version"]), 1)
    name = _SHORT_CRI if version == 1 else _CRI
    found: dict[str, Any] = {}
    for _, form in forms:
        found = form["plugins"].get(name, found)
    return found


def _of_containerd_2(reading: str, forms: Forms) -> dict[str, Any]:
    """Tables are merged key by key; the registry of the plugin's old name takes the place of the new one's: from 2.3
    file by file, before that in the end, and only where the last version is 2."""
    merged: dict[str, Any] = {}
    version = 3
    for _, form in forms:
        plugins = dict(form["plugins"])
        if form["version"] < 2 and _SHORT_CRI in plugins:
            plugins[_CRI] = plugins.pop(_SHORT_CRI)
        version = form["version"] if form["version"] > 1 else version
        if reading == V2_3 and form["version"] < 4:
            plugins = _renamed(plugins)
        merged = _deep(merged, plugins)
    if reading != V2_3 and version < 3:
        merged = _renamed(merged)
    images: dict[str, Any] = merged.get(_IMAGES, {})
    return images


def _renamed(plugins: dict[str, Any]) -> dict[str, Any]:
    registry = plugins.get(_CRI, {}).get("registry")
    return plugins if registry is None else {**plugins, _IMAGES: {**plugins.get(_IMAGES, {}), "registry": registry}}


def _deep(earlier: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    merged = dict(earlier)
    for key, value in later.items():
        known = merged.get(key)
        merged[key] = _deep(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged


# -- all of them ------------------------------------------------------------------------------------------------------


def _combined(outcomes: list[Outcome], forms: Forms, root: str) -> Configuration:
    """The one setting that there is; where some releases have none, ``unsure`` says so.

    Raises:
        ConfigError: there is more than one.
    """
    settings = [outcome for outcome in outcomes if outcome.config_path or outcome.mirrors]
    one = settings[-1] if settings else outcomes[-1]
    for other in settings:
        if (other.config_path, other.mirrors) != (one.config_path, one.mirrors):
            raise _unclear(forms, one, other)
    unsure = advice = ""
    if len(settings) < len(outcomes) and settings:
        if not one.file:
            unsure = (
                "no file sets config_path: containerd before 2.2 has no default, and later ones do not use it as a rule"
            )
            advice = f"set config_path in {forms[0][0] if forms else 'config.toml'}"
        elif ":" in one.config_path:
            unsure = "containerd from 2.1 takes a config_path of several directories for the name of one"
            advice = f"write one directory as config_path in {one.file}, with all others' content in it"
        else:
            unsure = f"not every release of containerd takes the registry settings of {one.file}"
            advice = _remedy(forms)
    configs = one.registry.get("configs", {})
    auths = {host for host, entry in configs.items() if entry["auth"]} | set(one.registry.get("auths", ()))
    return Configuration(
        directories(one.config_path, root),
        one.mirrors,
        one.file,
        forms[0][1]["version"] if forms else 0,
        unsure,
        tuple(sorted(auths)),
        tuple(sorted(host for host, entry in configs.items() if entry["tls"])),
        tuple(sorted(one.registry.get("headers", ()))),
        tuple(path for path, _ in forms),
        tuple(reading for reading in READINGS if any(outcome.reading == reading for outcome in outcomes)),
        tuple(sorted(host for host, entry in configs.items() if entry["insecure"])),
        advice,
    )


def _unclear(forms: Forms, one: Outcome, other: Outcome) -> ConfigError:
    return ConfigError(
        f"{forms[0][0]}: containerd {one.reading} and {other.reading} take different registry settings from it",
        f"write one of them: {_remedy(forms)}",
        rule="unclear",
    )


def _remedy(forms: Forms) -> str:
    """What makes all releases read the files alike."""
    main, form = forms[0]
    version = form["version"]
    for path, other in forms[1:]:
        if other["version"] != version and version:
            return f"in {path} write version = {version}, and the names that plugins have with that version"
    if version < 2:
        return f"in {main} write version = 2 at the top, and the full names of plugins"
    for path, each in forms:
        if version > 2 and _CRI in each["plugins"]:
            return f'in {path} write [plugins."{_IMAGES}".registry] in place of [plugins."{_CRI}".registry]'
    file = _file_of(forms)
    later = next((path for path, each in reversed(forms) if _CRI in each["plugins"]), file)
    if later != file:
        return (
            f'write [plugins."{_CRI}".registry] of {file} in {later} as well: containerd 1 takes the whole '
            f'[plugins."{_CRI}"] from the last file that has it'
        )
    return f"write all of the plugin's table in {file}, and imports with absolute paths"
