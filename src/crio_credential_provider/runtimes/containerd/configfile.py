"""One config.toml, decoded and cut down to what ``config`` needs of it. Loaded when a file changed.

Of registry.configs, registry.auths and registry.headers only names leave this module.
"""

from __future__ import annotations

from ...errors import ConfigError, masked
from ...platform import tomllines
from . import tomlfile
from .readings import REFUSED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PLUGINS = ("cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images")


def form(path: str) -> dict[str, Any]:
    """What is kept of a file; nothing where there is none.

    Raises:
        ConfigError: it cannot be read, or containerd could not decode it.
    """
    data = tomlfile.read(path, REFUSED)
    if data is None:
        return {}
    try:
        return _cut(tomlfile.decode(data))
    except _WrongType as error:
        line = tomllines.find_lines(data.decode(), str).get(error.at, 0)
        raise _refused(path, line, f"{'.'.join(map(masked, error.at))} {error.reason}", error.rule) from None
    except tomlfile.NotToml as error:
        raise _refused(path, error.line, error.reason, "toml-syntax") from None


def _refused(path: str, line: int, reason: str, rule: str) -> ConfigError:
    where = f"{path}:{line}" if line else path
    # What is spelled otherwise, or twice, some releases take, and some do not.
    consequence = "" if rule in ("spelling", "unclear") else REFUSED
    return ConfigError(f"{where}: {reason}", f"correct {where}", rule=rule, line=line, consequence=consequence)


class _WrongType(tomlfile.NotToml):
    """A value that is not what it must be."""

    def __init__(self, at: tuple[str, ...], reason: str, rule: str = "toml-type") -> None:
        super().__init__(reason)
        self.at = at
        self.rule = rule


class _Table:
    """A table, and where it is."""

    def __init__(self, members: dict[str, Any], at: tuple[str, ...], known: tuple[str, ...] = ()) -> None:
        self.members = members
        self.at = at
        for key in members:
            if key not in known and key.lower() in known:
                raise _WrongType((*at, key), f"must be written {key.lower()}", "spelling")

    def __contains__(self, key: str) -> bool:
        return key in self.members

    def table(self, key: str, *known: str) -> _Table:
        return _Table(self.get(key, dict, {}, "a table"), (*self.at, key), known)

    def tables(self, key: str, *known: str) -> dict[str, _Table]:
        outer = self.table(key)
        return {name: outer.table(name, *known) for name in outer.members}

    def strings(self, key: str) -> list[str]:
        value: list[Any] = self.get(key, list, [], "an array of strings")
        if not all(isinstance(item, str) for item in value):
            raise _WrongType((*self.at, key), "must be an array of strings")
        return value

    def get(self, key: str, kind: type, default: Any, words: str) -> Any:
        value = self.members.get(key, default)
        if type(value) is not kind:
            raise _WrongType((*self.at, key), f"must be {words}")
        return value


def _cut(document: dict[str, Any]) -> dict[str, Any]:
    top = _Table(document, (), ("version", "imports", "plugins"))
    version = top.get("version", int, 0, "a number")
    if version < 0:
        raise _WrongType(("version",), "must be a number from 1")
    plugins = top.table("plugins")
    if version < 2 and all(name in plugins for name in _PLUGINS[:2]):
        words = f"and [plugins.{_PLUGINS[1]!r}] are the same plugin, of which containerd 2 takes either, by chance"
        raise _WrongType(("plugins", "cri"), words, "unclear")
    return {
        "version": version,
        "imports": top.strings("imports"),
        "plugins": {
            name: _plugin(plugins.table(name, "registry", "use_local_image_pull"))
            for name in _PLUGINS
            if name in plugins
        },
    }


def _plugin(plugin: _Table) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    if "registry" in plugin:
        kept["registry"] = _registry(plugin.table("registry", "config_path", "mirrors", "configs", "auths", "headers"))
    if "use_local_image_pull" in plugin:
        kept["use_local_image_pull"] = plugin.get("use_local_image_pull", bool, False, "true or false")
    return kept


def _registry(registry: _Table) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    if "config_path" in registry:
        kept["config_path"] = registry.get("config_path", str, "", "a string")
    if "mirrors" in registry:
        mirrors = registry.tables("mirrors", "endpoint")
        kept["mirrors"] = {masked(host): {"endpoint": mirror.strings("endpoint")} for host, mirror in mirrors.items()}
    if "configs" in registry:
        configs = registry.tables("configs", "auth", "tls")
        kept["configs"] = {
            masked(host): {
                "auth": "auth" in entry,
                "tls": "tls" in entry,
                "insecure": entry.table("tls").members.get("insecure_skip_verify") is True,
            }
            for host, entry in configs.items()
        }
    for name in ("auths", "headers"):
        if name in registry:
            kept[name] = dict.fromkeys(map(masked, registry.table(name).members), 1)
    return kept
