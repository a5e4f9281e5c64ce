"""registries.conf: the rules for one file, and all files merged.

Reads and refuses what CRI-O's library reads and refuses (docs/reference/registries.md). Knows nothing about images:
which table is asked, and for what, is ``pullsources``. Loaded by runs that find a file changed, and by tools.
"""

from __future__ import annotations

import os

from ...errors import ConfigError, masked
from ...images import reference
from ...images.reference import ReferenceSyntaxError
from ...platform import regularfile
from ...platform.jsontext import fold
from .registriestoml import (
    LOCATION,
    Refused,
    decode,
    fold_keys,
    get_boolean,
    get_string,
    get_strings,
    get_table,
    get_tables,
    quoted,
    without_user,
    wrong_type,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from typing import Any

    from ...platform.tomllines import Path
    from .registriestext import Ignored, Written

_MAX_FILE_SIZE = 16 * 1024 * 1024
"""Bytes; a thousand tables with five mirrors each are 0.5 MB."""

_MAX_MESSAGE = 600
"""Characters of an error before its hint; two names of the greatest legal length fit."""

_REFUSED = "CRI-O refuses this configuration as well, and every pull on this node fails"

MISSING = "remove --registries-conf, or name the file that CRI-O's own --registries-conf names"
"""What to do about a main file that is named and not there."""

# -- files -------------------------------------------------------------------------------------------------------------


def read(path: str, required: bool) -> bytes | None:
    """The file's content; None where it is missing and may be: dangling links count as missing."""
    try:
        data = regularfile.read(path, _MAX_FILE_SIZE + 1)
    except FileNotFoundError as error:
        if required:
            # It was named to the plugin: CRI-O reads what it is told itself.
            raise ConfigError(f"cannot read {path}: {error.strerror}", MISSING, rule="io") from None
        return None
    except OSError as error:
        raise unreadable(path, error) from None
    if len(data) > _MAX_FILE_SIZE:
        raise ConfigError(f"{path} is larger than {_MAX_FILE_SIZE >> 20} MiB", "split or shorten it", rule="io")
    return data


def unreadable(path: str, error: OSError) -> ConfigError:
    return ConfigError(f"cannot read {path}: {error.strerror}", rule="io", consequence=_REFUSED)


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
        "rows": {},
        "unqualified_search_registries": [],
        "credential_helpers": [],
        "short_name_mode": "",
        "aliases": {},
    }
    for path, data in contents:
        try:
            _merge(form, _check(decode(data), path, drop_in=path != main))
        except Refused as error:
            raise _located(error, path, data) from None
    return form


def _located(error: Refused, file: str, data: bytes) -> ConfigError:
    """The error for people: with its line, and what to do there."""
    line, other, where = error.line, "", file
    if error.path:
        text = written(file, data)
        line = text.line(error.path)
        other = text.place(error.other) if error.other else ""
    if line:
        where = f"{file}:{line}"
    if other:
        hint = f"{error.hint}: {other} and {where}"
    elif "{where}" in error.hint:
        hint = error.hint.replace("{where}", where)
    else:
        hint = f"in {where} {cut(error.hint)}" if error.hint else f"correct {where}"
    return ConfigError(f"{where}: {cut(error.message)}", hint, rule=error.rule, line=line, consequence=_REFUSED)


def written(file: str, data: bytes) -> Written:
    """A file as it is written; nothing where it is not TOML."""
    from .registriestext import Written

    try:
        return Written(file, decode(data), data.decode("utf-8", "replace"))
    except Refused:
        return Written(file, {}, "")


def unread_drop_in(path: str, data: bytes, counted: Collection[str]) -> Ignored | None:
    """A file beside the drop-ins that CRI-O does not read for its name, if it has tables that count nowhere.

    Args:
        counted: the prefixes that count.
    """
    from .registriestext import Ignored

    try:
        missing = [prefix for prefix in loads([(path, data)], "")["rows"] if prefix not in counted]
    except ConfigError:
        return None
    if not missing:
        return None
    directory, name = os.path.split(path)
    text = f"its name does not end in .conf, so that its table for {missing[0]!r} is ignored"
    remedy = f"rename {path} to {directory}/{name.partition('.')[0]}.conf, or remove it"
    # What is left of an editor, a package or an update is called so.
    return Ignored(name, 0, path, text, remedy, is_mistake=".conf" not in name)


def cut(message: str) -> str:
    """A message that fits into a log line, whatever the file holds: it quotes locations, which have no bound."""
    return message if len(message) <= _MAX_MESSAGE else f"{message[:_MAX_MESSAGE]}..."


def _merge(form: dict[str, Any], later: _File) -> None:
    """A table of a later file replaces the one with the same prefix whole; lists are replaced, aliases joined."""
    form["rows"].update(later.rows)
    if later.unqualified_search_registries is not None:
        form["unqualified_search_registries"] = later.unqualified_search_registries
    if later.credential_helpers is not None:
        form["credential_helpers"] = later.credential_helpers
    form["short_name_mode"] = later.short_name_mode or form["short_name_mode"]
    form["aliases"].update(later.aliases)


class _File:
    """What one file says; None for a list that it does not mention."""

    __slots__ = ("aliases", "credential_helpers", "rows", "short_name_mode", "unqualified_search_registries")

    def __init__(self) -> None:
        self.rows: dict[str, list[Any]] = {}
        self.unqualified_search_registries: list[str] | None = None
        self.credential_helpers: list[str] | None = None
        self.short_name_mode = ""
        self.aliases: dict[str, str] = {}


# -- checks on one file -----------------------------------------------------------------------------------------------


class _Mirror:
    """A ``[[registry.mirror]]`` with its types checked."""

    __slots__ = ("given", "insecure", "location", "pull_from_mirror")

    def __init__(self, location: str, insecure: bool, pull_from_mirror: str, given: dict[str, Any]) -> None:
        self.given = given
        self.location = location
        self.insecure = insecure
        self.pull_from_mirror = pull_from_mirror


class _Table:
    """A ``[[registry]]`` with its types checked and its rules not yet."""

    __slots__ = (
        "blocked",
        "given",
        "insecure",
        "location",
        "mirror_by_digest_only",
        "mirrors",
        "path",
        "prefix",
        "pull_from_mirror",
        "where",
    )

    def __init__(self, table: dict[str, Any], where: str, at: Path) -> None:
        self.given = table
        self.path = at
        self.where = where
        dotted = f"{where}: "
        self.prefix = get_string(table, "prefix", dotted, at)
        self.location = get_string(table, "location", dotted, at)
        self.insecure = get_boolean(table, "insecure", dotted, at)
        self.blocked = get_boolean(table, "blocked", dotted, at)
        self.mirror_by_digest_only = get_boolean(table, "mirror-by-digest-only", dotted, at)
        self.pull_from_mirror = get_string(table, "pull-from-mirror", dotted, at)
        self.mirrors = [
            _Mirror(
                get_string(mirror, "location", dotted, (*at, "mirror", number)),
                get_boolean(mirror, "insecure", dotted, (*at, "mirror", number)),
                get_string(mirror, "pull-from-mirror", dotted, (*at, "mirror", number)),
                mirror,
            )
            for number, mirror in enumerate(get_tables(table, "mirror", dotted, at))
        ]


def _check(document: dict[str, Any], path: str, drop_in: bool) -> _File:
    """The rules for one file, in the order in which CRI-O's library applies them: the first error wins."""
    top = fold_keys(document)
    file = _File()
    tables = [
        _Table(table, f"[[registry]] number {number}", ("registry", number - 1))
        for number, table in enumerate(get_tables(top, "registry", ""), 1)
    ]
    search = get_strings(top, "unqualified-search-registries", "")
    file.credential_helpers = get_strings(top, "credential-helpers", "")
    file.short_name_mode = get_string(top, "short-name-mode", "")
    layer_store_helper = get_string(top, "additional-layer-store-auth-helper", "")
    aliases = _get_aliases(top)
    v1 = _get_v1(top)

    if any(names is not None for names in v1.values()):
        v2 = any((tables, "registry" in top, search is not None, file.credential_helpers is not None))
        if drop_in or v2 or file.short_name_mode or layer_store_helper or aliases is not None:
            raise Refused(
                "the version 1 format ([registries.search], .insecure, .block) cannot be used in a drop-in or beside "
                "version 2 settings; rewrite it as [[registry]] tables",
                "v1-format",
                ("registries", next(part for part, names in v1.items() if names is not None)),
                _rewritten_v1(v1),
            )
        tables, search = _convert_v1(v1)

    for table in tables:
        _check_table(table)
    _check_conflicts(tables)
    if search is not None:
        file.unqualified_search_registries = [_check_search_registry(host) for host in search]
    for table in tables:
        # Of several tables with the same prefix the first one stays.
        file.rows.setdefault(table.prefix, _row(table, path))
    if file.short_name_mode not in ("", *_SHORT_NAME_MODES):
        raise Refused(
            f"short-name-mode is {masked(file.short_name_mode)!r}, not enforcing, permissive or disabled",
            "short-name-mode",
            ("short-name-mode",),
            f'write short-name-mode = "{_nearest(file.short_name_mode, _SHORT_NAME_MODES)}"',
        )
    for prefix in sorted(file.rows):
        if prefix.startswith("*.") and not _WILDCARD_FORBIDDEN.isdisjoint(prefix):
            at = next(table.path for table in tables if table.prefix == prefix)
            host = prefix.rpartition("@")[2].partition("/")[0].partition(":")[0]
            raise Refused(
                f"the wildcard prefix {masked(prefix)!r} must be a host without /, @ or :",
                "wildcard-prefix",
                (*at, "prefix"),
                f'write prefix = "*.{host.removeprefix("*.") or "HOST"}"',
            )
    file.aliases = {name: _check_alias(name, target) for name, target in (aliases or {}).items()}
    return file


_WILDCARD_FORBIDDEN = frozenset("/@:")
_PULL_FROM_MIRROR = ("", "all", "digest-only", "tag-only")
_SHORT_NAME_MODES = ("enforcing", "permissive", "disabled")


def _nearest(text: str, values: Iterable[str]) -> str:
    """The value that was most likely meant; the first that is left where none is like it."""
    from difflib import get_close_matches

    known = [value for value in values if value]
    return next(iter(get_close_matches(text.strip().lower().replace("_", "-"), known, 1, 0.5)), known[0])


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
            raise wrong_type(f"aliases.{masked(name)}", "a string", ("aliases", fold(name)))
    return aliases


def _get_v1(top: dict[str, Any]) -> dict[str, list[str] | None]:
    v1 = get_table(top, "registries", "")
    parts = ("search", "insecure", "block")
    return {
        part: get_strings(
            get_table(v1, part, "registries.", ("registries",)),
            "registries",
            f"registries.{part}.",
            ("registries", part),
        )
        for part in parts
    }


def _rewritten_v1(v1: dict[str, list[str] | None]) -> str:
    """What says the same in version 2."""
    found = [f"unqualified-search-registries = [{quoted(v1['search'])}] above every table"] if v1["search"] else []
    for part, key in (("insecure", "insecure"), ("block", "blocked")):
        found += [f'[[registry]] with location = "{without_user(name)}" and {key} = true' for name in v1[part] or ()]
    return f"write {', '.join(found)} in place of it" if found else "remove it"


def _convert_v1(v1: dict[str, list[str] | None]) -> tuple[list[_Table], list[str] | None]:
    """Version 1 lists as tables with prefix = location and no mirrors."""
    tables: dict[str, _Table] = {}
    for part in ("block", "insecure"):
        for name in v1[part] or ():
            at: Path = ("registries", part, "registries")
            location = _trim(name, f"registries.{part}", at)
            table = tables.get(location)
            if table is None:
                given = {"prefix": location, "location": location}
                table = tables[location] = _Table(given, f"registries.{part}", at)
            if part == "block":
                table.blocked = True
            else:
                table.insecure = True
    return list(tables.values()), v1["search"]


def _trim(text: str, where: str, path: Path, plain_http: str = "") -> str:
    """What locations, prefixes and search registries all go through; everything else bites later.

    Args:
        plain_http: what a location with http:// needs besides.
    """
    trimmed = text.rstrip("/")
    if trimmed.startswith(("http://", "https://")):
        from .registriestext import corrected

        meant = f'"{corrected(trimmed) or LOCATION}"'
        # A list is told by the entry.
        remedy = f"write {path[-1]} = {meant}" if path[-1] in ("location", "prefix") else f"write {meant}"
        raise Refused(
            f"{where}: {masked(text)!r} must be HOST[:PORT][/PATH], without a scheme",
            "scheme-in-location",
            path,
            remedy + (plain_http if trimmed.startswith("http://") else ""),
        )
    return trimmed


def _plain_http(insecure: bool) -> str:
    return "" if insecure else " and insecure = true, which allows plain HTTP"


def _missing_location(message: str, rule: str, path: Path, given: dict[str, Any]) -> ConfigError:
    """The error of a table without a location: at the key that was written for it, where there is one."""
    from .registriestext import corrected, meant_location

    key, value = meant_location(given)
    if key:
        remedy = f'write location = "{corrected(value) or LOCATION}" in place of {key}'
        return Refused(f"{message}; {key} is not a valid key", rule, (*path, key), remedy)
    written_one = f'write location = "{corrected(given.get("prefix") or "") or LOCATION}"'
    if "location" in given:
        return Refused(message, rule, (*path, "location"), written_one)
    return Refused(message, rule, path, f"{written_one} below {{where}}")


def _check_table(table: _Table) -> None:
    """Trims the table's names in place and checks its rules; leaves ``prefix`` never unset."""
    where, at = table.where, table.path
    table.location = _trim(table.location, f"{where}: location", (*at, "location"), _plain_http(table.insecure))
    if not table.prefix:
        if not table.location:
            message = f"{where} has neither location nor prefix"
            raise _missing_location(message, "location-and-prefix-unset", at, table.given)
        table.prefix = table.location
    else:
        table.prefix = _trim(table.prefix, f"{where}: prefix", (*at, "prefix"))
    where = f"{where} (prefix {masked(table.prefix)!r})"
    if not table.location and not table.prefix.startswith("*."):
        message = f"{where} has no location, which is optional only with a prefix that starts with *."
        raise _missing_location(message, "location-unset", at, table.given)
    table.where = where
    if table.pull_from_mirror:
        raise Refused(
            f"{where}: pull-from-mirror is only valid in a mirror",
            "pull-from-mirror-on-primary",
            (*at, "pull-from-mirror"),
            "remove pull-from-mirror, or move it below a [[registry.mirror]]",
        )
    for number, mirror in enumerate(table.mirrors, 1):
        place = f"{where}, mirror number {number}"
        path = (*at, "mirror", number - 1)
        mirror.location = location = _trim(
            mirror.location, f"{place}: location", (*path, "location"), _plain_http(mirror.insecure)
        )
        if not location:
            raise _missing_location(f"{place} has no location", "mirror-location-unset", path, mirror.given)
        if table.mirror_by_digest_only and mirror.pull_from_mirror:
            raise Refused(
                f"{place}: pull-from-mirror cannot be set where the registry has mirror-by-digest-only",
                "digest-only-exclusion",
                (*path, "pull-from-mirror"),
                "remove pull-from-mirror, or from its [[registry]] mirror-by-digest-only",
            )
        if mirror.pull_from_mirror not in _PULL_FROM_MIRROR:
            raise Refused(
                f"{place}: pull-from-mirror is {masked(mirror.pull_from_mirror)!r}, not all, digest-only or tag-only",
                "pull-from-mirror-value",
                (*path, "pull-from-mirror"),
                f'write pull-from-mirror = "{_nearest(mirror.pull_from_mirror, _PULL_FROM_MIRROR)}"',
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
                    raise Refused(
                        f"{first.where} and {other.where} have the same location {masked(location)!r} "
                        f"and different {key}",
                        f"conflicting-{key}",
                        other.path,
                        f"remove one of the two tables, or write the same {key} in both",
                        first.path,
                    )


def _check_search_registry(host: str) -> str:
    path: Path = ("unqualified-search-registries",)
    trimmed = _trim(host, "unqualified-search-registries", path)
    if not reference.is_domain(trimmed):
        from .registriestext import corrected

        raise Refused(
            f"unqualified-search-registries: {masked(host)!r} is not a registry HOST[:PORT]",
            "unqualified-search",
            path,
            f'write "{corrected(host).partition("/")[0] or "HOST[:PORT]"}"' if trimmed else 'remove ""',
        )
    return trimmed


def _check_alias(name: str, target: str) -> str:
    """The target normalised, or "" where the alias is taken back."""
    path: Path = ("aliases", fold(name))
    try:
        left = reference.parse_literal(name)
        if left.tag or left.digest or reference.is_registry_host(left.domain):
            remedy = "remove it: an alias is for a name without registry, tag and digest"
            raise Refused(f"aliases: {masked(name)!r} is not a short name", "alias", path, remedy)
        if not target:
            return ""
        right = reference.parse_literal(target)
        if right.tag or right.digest or not reference.is_registry_host(right.domain):
            remedy = "write its target as HOST[:PORT]/PATH, without tag and digest"
            raise Refused(f"aliases: {masked(target)!r} is not a repository with its registry", "alias", path, remedy)
        return reference.parse(target).name
    except ReferenceSyntaxError as error:
        remedy = "write its target as HOST[:PORT]/PATH, without tag and digest"
        raise Refused(f"aliases: {error.message}", "alias", path, remedy) from None
