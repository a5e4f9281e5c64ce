"""registries.conf as it is written: TOML, the types of its keys, and the rules for one file; all files merged.

Reads and refuses what CRI-O's library reads and refuses (docs/registries.md). Knows nothing about images: which table
is asked, and for what, is ``registries``. Loaded by runs that find a file changed, and by tools.

    form = loads([("/etc/containers/registries.conf", data)], "/etc/containers/registries.conf")
    form["tables"]["docker.io"]
"""

from __future__ import annotations

import os

from . import native, reference
from .errors import ConfigError
from .reference import ReferenceSyntaxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_MAX_FILE_SIZE = 16 * 1024 * 1024
"""Bytes; a thousand tables with five mirrors each are 0.5 MB."""

_MAX_MESSAGE = 600
"""Characters of an error before its hint; two names of the greatest legal length fit."""

_REFUSED = "CRI-O refuses this configuration as well, and with it every pull on this node"


# -- files -------------------------------------------------------------------------------------------------------------


def read(path: str, required: bool) -> bytes | None:
    """The file's content; None where it is missing and may be: dangling links count as missing."""
    try:
        # A FIFO would block a plain open until somebody writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            data = file.read(_MAX_FILE_SIZE + 1)
    except FileNotFoundError as error:
        if required:
            raise unreadable(path, error) from None
        return None
    except OSError as error:
        raise unreadable(path, error) from None
    if len(data or b"") > _MAX_FILE_SIZE:
        raise ConfigError(f"{path} is larger than {_MAX_FILE_SIZE >> 20} MiB", "split or shorten it", rule="io")
    return data or b""


def unreadable(path: str, error: OSError) -> ConfigError:
    return ConfigError(f"cannot read {path}: {error.strerror}", _REFUSED, rule="io")


def loads(contents: Iterable[tuple[str, bytes]], main: str) -> dict[str, Any]:
    """Parses, checks and merges files.

    Args:
        contents: path and content of each file, in the order they are read.
        main: the path among them that is the main file; only there the v1 format is allowed.

    Returns:
        The attributes of ``registries.Configuration``; lists that no file mentions are empty.

    Raises:
        ConfigError: CRI-O would refuse one of the files.
    """
    form: dict[str, Any] = {
        "tables": {},
        "unqualified_search_registries": [],
        "credential_helpers": [],
        "short_name_mode": "",
        "aliases": {},
    }
    for path, data in contents:
        try:
            _merge(form, _check(_decode(data), path, drop_in=path != main))
        except ConfigError as error:
            raise ConfigError(f"{path}: {cut(error.message)}", _REFUSED, rule=error.rule) from None
    return form


def cut(message: str) -> str:
    """A message that fits into a log line, whatever the file holds: it quotes locations, which have no bound."""
    return message if len(message) <= _MAX_MESSAGE else f"{message[:_MAX_MESSAGE]}..."


def _merge(form: dict[str, Any], later: _File) -> None:
    """A table of a later file replaces the one with the same prefix whole; lists are replaced, aliases joined."""
    form["tables"].update(later.tables)
    if later.unqualified_search_registries is not None:
        form["unqualified_search_registries"] = later.unqualified_search_registries
    if later.credential_helpers is not None:
        form["credential_helpers"] = later.credential_helpers
    form["short_name_mode"] = later.short_name_mode or form["short_name_mode"]
    form["aliases"].update(later.aliases)


class _File:
    """What one file says; None for a list that it does not mention."""

    __slots__ = ("aliases", "credential_helpers", "short_name_mode", "tables", "unqualified_search_registries")

    def __init__(self) -> None:
        self.tables: dict[str, list[Any]] = {}
        self.unqualified_search_registries: list[str] | None = None
        self.credential_helpers: list[str] | None = None
        self.short_name_mode = ""
        self.aliases: dict[str, str] = {}


# -- TOML and its types -----------------------------------------------------------------------------------------------

_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_INT64 = range(-(2**63), 2**63)


def _decode(data: bytes) -> dict[str, Any]:
    """TOML 1.1 as Go's BurntSushi/toml takes it: one byte order mark of any kind is dropped, the rest is UTF-8."""
    for mark in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            data = data[len(mark) :]
            break
    if not data.strip(b" \t\n"):
        return {}
    # tomli takes 13 ms of CPU to import; this is only reached when a file changed.
    import tomli

    try:
        document = tomli.loads(data.decode(), parse_float=_parse_float)
        _check_integers(document)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else _toml_reason(error)
        raise ConfigError(f"not valid TOML: {reason}", rule="toml-syntax") from None
    return document


def _toml_reason(error: ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    text = str(error)
    # Python's own words, for a number of thousands of digits.
    return "an integer is out of the 64-bit range" if text.startswith("Exceeds the limit") else text


def _parse_float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")) and "inf" not in text:
        raise ValueError(f"the number {text[:40]} is out of range")
    return value


def _check_integers(document: dict[str, Any]) -> None:
    """Go's integers end at 64 bits, also under keys that nobody knows."""
    pending: list[Any] = [document]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, int) and value not in _INT64:
            raise ValueError("an integer is out of the 64-bit range")


def _fold(table: dict[str, Any]) -> dict[str, Any]:
    """A table with its keys folded; an exact spelling wins."""
    folded = {native.fold(key): value for key, value in table.items()}
    folded.update({key: value for key, value in table.items() if key in folded})
    return folded


def _wrong_type(where: str, expected: str) -> ConfigError:
    return ConfigError(f"{where} must be {expected}", rule="toml-type")


def _get_string(table: dict[str, Any], key: str, where: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise _wrong_type(f"{where}{key}", "a string")
    return value


def _get_boolean(table: dict[str, Any], key: str, where: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise _wrong_type(f"{where}{key}", "true or false, without quotes")
    return value


def _get_strings(table: dict[str, Any], key: str, where: str) -> list[str] | None:
    value = table.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _wrong_type(f"{where}{key}", "an array of strings")
    return value


def _get_tables(table: dict[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise _wrong_type(f"{where}{key}", f"an array of tables, [[{where.split('[')[0].strip('. ')}{key}]]")
    return [_fold(item) for item in value]


def _get_table(table: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise _wrong_type(f"{where}{key}", f"a table, [{key}]")
    return _fold(value)


# -- checks on one file -----------------------------------------------------------------------------------------------


class _Mirror:
    """A ``[[registry.mirror]]`` with its types checked."""

    __slots__ = ("insecure", "location", "pull_from_mirror")

    def __init__(self, location: str, insecure: bool, pull_from_mirror: str) -> None:
        self.location = location
        self.insecure = insecure
        self.pull_from_mirror = pull_from_mirror


class _Table:
    """A ``[[registry]]`` with its types checked and its rules not yet."""

    __slots__ = (
        "blocked",
        "insecure",
        "location",
        "mirror_by_digest_only",
        "mirrors",
        "prefix",
        "pull_from_mirror",
        "where",
    )

    def __init__(self, table: dict[str, Any], where: str) -> None:
        self.where = where
        dotted = f"{where}: "
        self.prefix = _get_string(table, "prefix", dotted)
        self.location = _get_string(table, "location", dotted)
        self.insecure = _get_boolean(table, "insecure", dotted)
        self.blocked = _get_boolean(table, "blocked", dotted)
        self.mirror_by_digest_only = _get_boolean(table, "mirror-by-digest-only", dotted)
        self.pull_from_mirror = _get_string(table, "pull-from-mirror", dotted)
        self.mirrors = [
            _Mirror(
                _get_string(mirror, "location", dotted),
                _get_boolean(mirror, "insecure", dotted),
                _get_string(mirror, "pull-from-mirror", dotted),
            )
            for mirror in _get_tables(table, "mirror", dotted)
        ]


def _check(document: dict[str, Any], path: str, drop_in: bool) -> _File:
    """The rules for one file, in the order in which CRI-O's library applies them: the first error wins."""
    top = _fold(document)
    file = _File()
    tables = [_Table(t, f"[[registry]] number {n}") for n, t in enumerate(_get_tables(top, "registry", ""), 1)]
    search = _get_strings(top, "unqualified-search-registries", "")
    file.credential_helpers = _get_strings(top, "credential-helpers", "")
    file.short_name_mode = _get_string(top, "short-name-mode", "")
    layer_store_helper = _get_string(top, "additional-layer-store-auth-helper", "")
    aliases = _get_aliases(top)
    v1 = _get_v1(top)

    if any(names is not None for names in v1.values()):
        v2 = any((tables, "registry" in top, search is not None, file.credential_helpers is not None))
        if drop_in or v2 or file.short_name_mode or layer_store_helper or aliases is not None:
            raise ConfigError(
                "the version 1 format ([registries.search], .insecure, .block) cannot be used in a drop-in or beside "
                "version 2 settings; rewrite it as [[registry]] tables",
                rule="v1-format",
            )
        tables, search = _convert_v1(v1)

    for table in tables:
        _check_table(table)
    _check_conflicts(tables)
    if search is not None:
        file.unqualified_search_registries = [_check_search_registry(host) for host in search]
    for table in tables:
        # Of several tables with the same prefix the first one stays.
        file.tables.setdefault(table.prefix, _row(table, path))
    if file.short_name_mode not in ("", "enforcing", "permissive", "disabled"):
        raise ConfigError(
            f"short-name-mode is {file.short_name_mode!r}, not enforcing, permissive or disabled",
            rule="short-name-mode",
        )
    for prefix in sorted(file.tables):
        if prefix.startswith("*.") and not _WILDCARD_FORBIDDEN.isdisjoint(prefix):
            raise ConfigError(
                f"the wildcard prefix {prefix!r} must be a host without /, @ and :", rule="wildcard-prefix"
            )
    file.aliases = {name: _check_alias(name, target) for name, target in (aliases or {}).items()}
    return file


_WILDCARD_FORBIDDEN = frozenset("/@:")
_PULL_FROM_MIRROR = ("", "all", "digest-only", "tag-only")


def _row(table: _Table, path: str) -> list[Any]:
    mirrors = [[mirror.location, mirror.insecure, mirror.pull_from_mirror] for mirror in table.mirrors]
    return [table.location, table.insecure, table.blocked, table.mirror_by_digest_only, mirrors, path]


def _get_aliases(top: dict[str, Any]) -> dict[str, str] | None:
    """``[aliases]``; a wrong type of the whole is ignored in silence, of a value it is an error."""
    aliases = top.get("aliases")
    if not isinstance(aliases, dict):
        return None
    for name, target in aliases.items():
        if not isinstance(target, str):
            raise _wrong_type(f"aliases.{name}", "a string")
    return aliases


def _get_v1(top: dict[str, Any]) -> dict[str, list[str] | None]:
    v1 = _get_table(top, "registries", "")
    parts = ("search", "insecure", "block")
    return {
        part: _get_strings(_get_table(v1, part, "registries."), "registries", f"registries.{part}.") for part in parts
    }


def _convert_v1(v1: dict[str, list[str] | None]) -> tuple[list[_Table], list[str] | None]:
    """Version 1 lists as tables with prefix = location and no mirrors."""
    tables: dict[str, _Table] = {}
    for part in ("block", "insecure"):
        for name in v1[part] or ():
            location = _trim(name, f"registries.{part}")
            table = tables.get(location)
            if table is None:
                table = tables[location] = _Table({"prefix": location, "location": location}, f"registries.{part}")
            if part == "block":
                table.blocked = True
            else:
                table.insecure = True
    return list(tables.values()), v1["search"]


def _trim(text: str, where: str) -> str:
    """What locations, prefixes and search registries all go through; everything else bites later."""
    trimmed = text.rstrip("/")
    if trimmed.startswith(("http://", "https://")):
        raise ConfigError(
            f"{where}: {text!r} must be a host, with port and path where needed, without a scheme",
            rule="scheme-in-location",
        )
    return trimmed


def _check_table(table: _Table) -> None:
    """Trims the table's names in place and checks its rules; leaves ``prefix`` never unset."""
    where = table.where
    table.location = _trim(table.location, f"{where}: location")
    if not table.prefix:
        if not table.location:
            raise ConfigError(f"{where} has neither location nor prefix", rule="location-and-prefix-unset")
        table.prefix = table.location
    else:
        table.prefix = _trim(table.prefix, f"{where}: prefix")
        if not table.location and not table.prefix.startswith("*."):
            raise ConfigError(
                f"{where} (prefix {table.prefix!r}) has no location, which only a prefix that starts with *. may omit",
                rule="location-unset",
            )
    where = f"{where} (prefix {table.prefix!r})"
    table.where = where
    if table.pull_from_mirror:
        raise ConfigError(f"{where}: pull-from-mirror belongs into a mirror", rule="pull-from-mirror-on-primary")
    for number, mirror in enumerate(table.mirrors, 1):
        place = f"{where}, mirror number {number}"
        mirror.location = location = _trim(mirror.location, f"{place}: location")
        if not location:
            raise ConfigError(f"{place} has no location", rule="mirror-location-unset")
        if table.mirror_by_digest_only and mirror.pull_from_mirror:
            raise ConfigError(
                f"{place}: pull-from-mirror cannot be set where the registry has mirror-by-digest-only",
                rule="digest-only-exclusion",
            )
        if mirror.pull_from_mirror not in _PULL_FROM_MIRROR:
            raise ConfigError(
                f"{place}: pull-from-mirror is {mirror.pull_from_mirror!r}, not all, digest-only or tag-only",
                rule="pull-from-mirror-value",
            )


def _check_conflicts(tables: list[_Table]) -> None:
    """Tables of one location must agree on insecure and blocked.

    All are held against the first of their location: if none differs from it, no two differ. One pass, so that the
    cost grows with the number of tables and not with its square.
    """
    groups: dict[str, list[_Table]] = {}
    for table in tables:
        groups.setdefault(table.location or table.prefix, []).append(table)
    for location, (first, *others) in groups.items():
        for other in others:
            for key in ("insecure", "blocked"):
                if getattr(first, key) != getattr(other, key):
                    raise ConfigError(
                        f"{first.where} and {other.where} share the location {location!r} and disagree on {key}",
                        rule=f"conflicting-{key}",
                    )


def _check_search_registry(host: str) -> str:
    trimmed = _trim(host, "unqualified-search-registries")
    if not reference.is_domain(trimmed):
        raise ConfigError(
            f"unqualified-search-registries: {host!r} is no registry host, with port where needed",
            rule="unqualified-search",
        )
    return trimmed


def _check_alias(name: str, target: str) -> str:
    """The target normalised, or "" where the alias is taken back."""
    try:
        left = reference.parse_literal(name)
        if left.tag or left.digest or reference.is_registry_host(left.domain):
            raise ConfigError(f"aliases: {name!r} is no short name", rule="alias")
        if not target:
            return ""
        right = reference.parse_literal(target)
        if right.tag or right.digest or not reference.is_registry_host(right.domain):
            raise ConfigError(f"aliases: {target!r} is no repository with its registry", rule="alias")
        return reference.parse(target).name
    except ReferenceSyntaxError as error:
        raise ConfigError(f"aliases: {error.message}", rule="alias") from None
