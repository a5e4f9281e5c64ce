"""One config.toml, decoded and cut down to what ``config`` keeps of it. Loaded when a file changed.

Of registry.configs, registry.auths and registry.headers only names leave this module.
"""

from __future__ import annotations

from ...errors import ConfigError
from . import tomlfile
from .readings import REFUSED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PLUGINS = ("cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images")


def form(path: str) -> dict[str, Any] | None:
    """What is kept of a file; None where there is none.

    Raises:
        ConfigError: it cannot be read, or containerd could not decode it.
    """
    data = tomlfile.read(path, REFUSED)
    if data is None:
        return None
    try:
        return _cut(tomlfile.decode(data))
    except tomlfile.NotToml as error:
        where = f"{path}:{error.line}" if error.line else path
        raise ConfigError(
            f"{where}: {error.reason}", f"correct {where}", rule="toml", line=error.line, consequence=REFUSED
        ) from None


def _cut(document: dict[str, Any]) -> dict[str, Any]:
    version = document.get("version", 0)
    if not isinstance(version, int) or isinstance(version, bool):
        raise tomlfile.NotToml("version must be a number")
    plugins = _table(document, "plugins", "")
    return {
        "version": version,
        "imports": _strings(document, "imports", ""),
        "plugins": {
            name: _plugin(_table(plugins, name, "plugins."), f"plugins.{name!r}.")
            for name in _PLUGINS
            if name in plugins
        },
    }


def _plugin(table: dict[str, Any], where: str) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    if "registry" in table:
        kept["registry"] = _registry(_table(table, "registry", where), f"{where}registry.")
    if "use_local_image_pull" in table:
        kept["use_local_image_pull"] = table["use_local_image_pull"] is True
    return kept


def _registry(table: dict[str, Any], where: str) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    if "config_path" in table:
        if not isinstance(table["config_path"], str):
            raise tomlfile.NotToml(f"{where}config_path must be a string")
        kept["config_path"] = table["config_path"]
    if "mirrors" in table:
        mirrors = _table(table, "mirrors", where)
        kept["mirrors"] = {
            host: {
                "endpoint": _strings(_table(mirrors, host, f"{where}mirrors."), "endpoint", f"{where}mirrors.{host!r}.")
            }
            for host in mirrors
        }
    if "configs" in table:
        configs = _table(table, "configs", where)
        entries = {host: _table(configs, host, f"{where}configs.") for host in configs}
        kept["configs"] = {host: {"auth": "auth" in entry, "tls": "tls" in entry} for host, entry in entries.items()}
    for name in ("auths", "headers"):
        if name in table:
            kept[name] = dict.fromkeys(_table(table, name, where), 1)
    return kept


def _table(table: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise tomlfile.NotToml(f"{where}{key} must be a table")
    return value


def _strings(table: dict[str, Any], key: str, where: str) -> list[str]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise tomlfile.NotToml(f"{where}{key} must be an array of strings")
    return value
