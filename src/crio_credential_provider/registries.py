"""registries.conf and its drop-ins: which tables there are, which one matches, and the pull sources it makes.

Follows what CRI-O 1.37 does (containers/image 5.38), section by section of docs/registries.md; the vectors in
tests/vectors hold the same rules as cases that this library answered. Reads files, asks nobody else. Knows nothing
about credentials.

    config = load(search_files("", ""), cache=None)
    for source in repository_sources(config, reference.parse("docker.io/library/nginx")).sources:
        print(source.name, source.kinds)
"""

from __future__ import annotations

import os

from . import reference
from .errors import ConfigError
from .record import Record
from .reference import Reference, ReferenceSyntaxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from .parsecache import ParseCache

MAIN_FILE = "/etc/containers/registries.conf"
DROP_IN_DIRECTORY = "/etc/containers/registries.conf.d"
_HOME_MAIN_FILE = ".config/containers/registries.conf"
_HOME_DROP_IN_DIRECTORY = ".config/containers/registries.conf.d"

AUTH_FILE_HELPER = "containers-auth.json"
"""The word in ``credential-helpers`` that stands for auth files; without it CRI-O reads none."""

TAG = "tag"
DIGEST = "digest"
REFERENCE_KINDS = (TAG, DIGEST)
"""What a pod can name; with both, CRI-O drops the tag, with neither it takes ``:latest``."""

_MAX_FILE_SIZE = 16 * 1024 * 1024
"""Bytes; a thousand tables with five mirrors each are 0.5 MB."""

_MAX_MESSAGE = 600
"""Characters of an error before its hint; two names of the greatest legal length fit."""

_REFUSED = "CRI-O refuses this configuration as well, and with it every pull on this node"


class Mirror(Record):
    """A ``[[registry.mirror]]``. ``pull_from_mirror`` is ``""``, ``all``, ``digest-only`` or ``tag-only``."""

    __slots__ = ("insecure", "location", "pull_from_mirror")

    def __init__(self, location: str, insecure: bool, pull_from_mirror: str) -> None:
        self.location = location
        self.insecure = insecure
        self.pull_from_mirror = pull_from_mirror

    def serves(self, kind: str) -> bool:
        """Whether the mirror is asked for references of that kind, its registry's own restriction aside."""
        return self.pull_from_mirror in ("", "all", f"{kind}-only")


class Registry(Record):
    """A ``[[registry]]`` table, and the file it stands in."""

    __slots__ = ("blocked", "file", "insecure", "location", "mirror_by_digest_only", "mirrors", "prefix")

    def __init__(
        self,
        prefix: str,
        location: str,
        insecure: bool,
        blocked: bool,
        mirror_by_digest_only: bool,
        mirrors: tuple[Mirror, ...],
        file: str,
    ) -> None:
        self.prefix = prefix
        self.location = location
        self.insecure = insecure
        self.blocked = blocked
        self.mirror_by_digest_only = mirror_by_digest_only
        self.mirrors = mirrors
        self.file = file


class Configuration:
    """All files merged. Plain JSON types inside, so that ``ParseCache`` can keep it.

    Attributes:
        tables: prefix -> [location, insecure, blocked, mirror_by_digest_only, [[location, insecure,
            pull_from_mirror], ...], file]; ``find_registry`` makes a ``Registry`` of the one that is asked for.
        unqualified_search_registries: hosts that CRI-O completes a short name with, in order.
        credential_helpers: never empty.
        short_name_mode: ``""``, ``enforcing``, ``permissive`` or ``disabled``.
        aliases: short name -> repository, ``""`` where a later file takes the alias back.
    """

    __slots__ = ("aliases", "credential_helpers", "short_name_mode", "tables", "unqualified_search_registries")

    def __init__(self) -> None:
        self.tables: dict[str, list[Any]] = {}
        self.unqualified_search_registries: list[str] = []
        self.credential_helpers: list[str] = []
        self.short_name_mode = ""
        self.aliases: dict[str, str] = {}


class PullSource(Record):
    """One place that CRI-O will ask for the image.

    Attributes:
        reference: the full reference there.
        name: the same without tag and digest: the key of CRI-O's credential look-up.
        location: of the mirror or registry it comes from, as configured: ``""`` for a wildcard without one; the
            whole reference where no table matches.
        insecure: TLS not verified, or plain HTTP.
        primary: the registry itself, asked last.
        blocked: CRI-O will refuse to ask this source.
        kinds: which of ``REFERENCE_KINDS`` it serves.
        short_name: the short name through which alone CRI-O comes here (``nginx``), else ``""``.
    """

    __slots__ = ("blocked", "insecure", "kinds", "location", "name", "primary", "reference", "short_name")

    def __init__(
        self,
        reference: str,
        name: str,
        location: str,
        insecure: bool,
        primary: bool,
        blocked: bool,
        kinds: tuple[str, ...],
        short_name: str = "",
    ) -> None:
        self.reference = reference
        self.name = name
        self.location = location
        self.insecure = insecure
        self.primary = primary
        self.blocked = blocked
        self.kinds = kinds
        self.short_name = short_name

    def through(self, short_name: str) -> PullSource:
        """The same source, reached only through a short name."""
        return self._replaced(self.kinds, short_name)

    def without(self, kinds: Iterable[str]) -> PullSource:
        """The same source, less the kinds of references for which CRI-O's pull fails."""
        return self._replaced(tuple(kind for kind in self.kinds if kind not in kinds), self.short_name)

    def _replaced(self, kinds: tuple[str, ...], short_name: str) -> PullSource:
        return PullSource(
            self.reference, self.name, self.location, self.insecure, self.primary, self.blocked, kinds, short_name
        )


class RepositorySources(Record):
    """The sources of a repository for every kind of reference, and the kinds for which CRI-O's pull will fail."""

    __slots__ = ("errors", "sources")

    def __init__(self, sources: tuple[PullSource, ...], errors: dict[str, ConfigError]) -> None:
        self.sources = sources
        self.errors = errors


class SearchPath(Record):
    """The files that make the configuration.

    Attributes:
        main: the main file.
        main_required: whether it is an error that the main file is missing.
        drop_ins: the drop-ins in the order they are read; later ones override.
    """

    __slots__ = ("drop_ins", "main", "main_required")

    def __init__(self, main: str, main_required: bool, drop_ins: tuple[str, ...]) -> None:
        self.main = main
        self.main_required = main_required
        self.drop_ins = drop_ins


# -- which files ------------------------------------------------------------------------------------------------------


def search_files(main: str, drop_in_directory: str, root: str = "") -> SearchPath:
    """Finds the files that CRI-O reads, started with the same two options.

    Args:
        main: as CRI-O's ``--registries-conf``; "" for the default search.
        drop_in_directory: as CRI-O's ``--registries-conf-dir``; "" for the default search.
        root: directory below which the default paths lie.

    Raises:
        ConfigError: a drop-in directory cannot be read, or there is no home directory to look into.
    """
    home = root + _home()
    directories = [drop_in_directory] if drop_in_directory else [root + DROP_IN_DIRECTORY]
    home_main = os.path.join(home, _HOME_MAIN_FILE)
    home_drop_ins = os.path.join(home, _HOME_DROP_IN_DIRECTORY)
    if main:
        found, required = main, True
    elif os.path.exists(home_main):
        found, required = home_main, True
        directories = [drop_in_directory] if drop_in_directory else []
    else:
        found, required = root + MAIN_FILE, False
    if not drop_in_directory:
        directories.append(home_drop_ins)
    return SearchPath(found, required, tuple(path for directory in directories for path in _drop_ins(directory)))


def _home() -> str:
    """HOME, else the home of the passwd entry, as the containers libraries look for it."""
    home = os.environ.get("HOME", "")
    if home:
        return home
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        raise ConfigError(
            "there is no home directory to look for registries.conf in: HOME is unset and the user has no passwd entry",
            "set HOME in the kubelet's environment",
            rule="io",
        ) from None


def _drop_ins(directory: str) -> list[str]:
    """The ``*.conf`` files of one directory in byte order of their names.

    A directory that is itself a symlink counts as empty, as with CRI-O, whose walk does not follow it.
    """
    try:
        if os.path.islink(directory) or not os.path.isdir(directory):
            os.lstat(directory)
            return [directory] if directory.endswith(".conf") else []
        with os.scandir(directory) as entries:
            names = [e.name for e in entries if e.name.endswith(".conf") and not e.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(directory, error) from None
    return [os.path.join(directory, name) for name in sorted(names, key=os.fsencode)]


def _unreadable(path: str, error: OSError) -> ConfigError:
    return ConfigError(f"cannot read {path}: {error.strerror}", _REFUSED, rule="io")


# -- reading ----------------------------------------------------------------------------------------------------------


def load(search: SearchPath, cache: ParseCache | None) -> Configuration:
    """Reads and merges the files, or takes the parsed form from the cache if none of them changed.

    Raises:
        ConfigError: a file cannot be read, or CRI-O would refuse it; names the file, the table and the reason.
    """
    paths = (search.main, *search.drop_ins)
    if search.main_required and not os.path.exists(search.main):
        # A form may be kept that was made without the main file, by a run that did not need it.
        cache = None
    if cache is not None:
        kept = cache.load(paths)
        if kept is not None:
            return _from_kept(kept)
        snapshot = cache.snapshot(paths)
    contents: list[tuple[str, bytes]] = []
    for path in paths:
        data = _read(path, required=path == search.main and search.main_required)
        if data is not None:
            contents.append((path, data))
    config = loads(contents, main=search.main)
    if cache is not None:
        cache.store(snapshot, _to_kept(config))
    return config


def _read(path: str, required: bool) -> bytes | None:
    """The file's content; None where it is missing and may be: dangling links count as missing."""
    try:
        # A FIFO would block a plain open until somebody writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            data = file.read(_MAX_FILE_SIZE + 1)
    except FileNotFoundError as error:
        if required:
            raise _unreadable(path, error) from None
        return None
    except OSError as error:
        raise _unreadable(path, error) from None
    if len(data or b"") > _MAX_FILE_SIZE:
        raise ConfigError(f"{path} is larger than {_MAX_FILE_SIZE >> 20} MiB", "split or shorten it", rule="io")
    return data or b""


def _to_kept(config: Configuration) -> dict[str, Any]:
    return {name: getattr(config, name) for name in Configuration.__slots__}


def _from_kept(kept: dict[str, Any]) -> Configuration:
    config = Configuration()
    for name in Configuration.__slots__:
        setattr(config, name, kept[name])
    return config


def loads(contents: Iterable[tuple[str, bytes]], main: str) -> Configuration:
    """Parses, checks and merges files.

    Args:
        contents: path and content of each file, in the order they are read.
        main: the path among them that is the main file; only there the v1 format is allowed.

    Raises:
        ConfigError: CRI-O would refuse one of the files.
    """
    config = Configuration()
    for path, data in contents:
        try:
            _merge(config, _check(_decode(data), path, drop_in=path != main))
        except ConfigError as error:
            raise ConfigError(f"{path}: {_cut(error.message)}", _REFUSED, rule=error.rule) from None
    if not config.credential_helpers:
        config.credential_helpers = [AUTH_FILE_HELPER]
    return config


def _cut(message: str) -> str:
    """A message that fits into a log line, whatever the file holds: it quotes locations, which have no bound."""
    return message if len(message) <= _MAX_MESSAGE else f"{message[:_MAX_MESSAGE]}..."


def _merge(config: Configuration, later: _File) -> None:
    """A table of a later file replaces the one with the same prefix whole; lists are replaced, aliases joined."""
    config.tables.update(later.tables)
    if later.unqualified_search_registries is not None:
        config.unqualified_search_registries = later.unqualified_search_registries
    if later.credential_helpers is not None:
        config.credential_helpers = later.credential_helpers
    config.short_name_mode = later.short_name_mode or config.short_name_mode
    config.aliases.update(later.aliases)


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
    return str(error)


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


def fold(key: str) -> str:
    """A key as Go's TOML and JSON decoders match it: without regard to case, by Unicode's simple folding."""
    # Of the two letters outside ASCII that fold into it, lower() knows U+212A (k) and not U+017F (s).
    return key.replace("\u017f", "s").lower()


def _fold(table: dict[str, Any]) -> dict[str, Any]:
    """A table with its keys folded; an exact spelling wins."""
    folded = {fold(key): value for key, value in table.items()}
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
            Mirror(
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


# -- matching ---------------------------------------------------------------------------------------------------------

_BOUNDARIES = frozenset("/:@")


def find_registry(config: Configuration, name: str) -> Registry | None:
    """The table that CRI-O uses for a repository.

    The greatest length in bytes of the prefix wins, and the first in byte order on a tie, so that ``*.example.com``
    beats ``a.example.com``. Looks up each prefix that could match, rather than trying each table: the cost does not
    grow with the number of tables.

    Args:
        name: the repository without tag and digest; matched as it stands.
    """
    found = [prefix for prefix in possible_prefixes(name) if prefix in config.tables]
    if not found:
        return None
    best = min(found, key=lambda prefix: (-len(_bytes(prefix)), _bytes(prefix)))
    location, insecure, blocked, digest_only, mirrors, file = config.tables[best]
    return Registry(best, location, insecure, blocked, digest_only, tuple(Mirror(*mirror) for mirror in mirrors), file)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def possible_prefixes(name: str) -> Iterator[str]:
    """Every non-empty prefix, wildcards included, that matches the name."""
    ends = [i for i, character in enumerate(name) if character in _BOUNDARIES]
    ends.append(len(name))
    for end in ends:
        if end:
            yield name[:end]
    # A wildcard *.D matches where the *first* .D of the name lies before any slash and ends at a boundary.
    start = name.find(".", 0, _first_slash(name))
    while start >= 0:
        end = next(end for end in ends if end > start)
        if name.find(name[start:end]) == start:
            yield f"*{name[start:end]}"
        start = name.find(".", start + 1, _first_slash(name))


def _first_slash(name: str) -> int:
    position = name.find("/")
    return len(name) if position < 0 else position


# -- pull sources -----------------------------------------------------------------------------------------------------


class _Endpoint(Record):
    """A mirror or, last, the registry itself."""

    __slots__ = ("insecure", "kinds", "location", "primary")

    def __init__(self, location: str, insecure: bool, kinds: tuple[str, ...], primary: bool) -> None:
        self.location = location
        self.insecure = insecure
        self.kinds = kinds
        self.primary = primary


def pull_sources(config: Configuration, image: Reference) -> list[PullSource]:
    """What CRI-O will ask for a full reference, in its order.

    Args:
        image: normalised; taken as ``:latest`` without tag and digest, and without its tag beside a digest.

    Raises:
        ConfigError: one source cannot be written as a reference; CRI-O then fails the pull from all sources.
    """
    if image.digest:
        image = Reference(image.domain, image.path, digest=image.digest)
    elif not image.tag:
        image = Reference(image.domain, image.path, tag="latest")
    registry = find_registry(config, image.name)
    kind = DIGEST if image.digest else TAG
    return [source for _, source in _sources_of_kind(config, registry, image, kind)]


def repository_sources(config: Configuration, image: Reference) -> RepositorySources:
    """What CRI-O may ask for any reference to a repository: the union over the kinds of references.

    The kubelet's request carries neither tag nor digest, and one auth file serves them all.

    Raises:
        ConfigError: CRI-O can pull no kind of reference to this repository.
    """
    registry = find_registry(config, image.name)
    probes = {
        TAG: Reference(image.domain, image.path, tag="latest"),
        DIGEST: Reference(image.domain, image.path, digest=f"sha256:{'0' * 64}"),
    }
    merged: dict[int, PullSource] = {}
    errors: dict[str, ConfigError] = {}
    for kind, probe in probes.items():
        try:
            for position, source in _sources_of_kind(config, registry, probe, kind):
                merged.setdefault(position, source)
        except ConfigError as error:
            errors[kind] = error
    if len(errors) == len(probes):
        raise errors[TAG]
    return RepositorySources(tuple(merged[position].without(errors) for position in sorted(merged)), errors)


def _sources_of_kind(
    config: Configuration, registry: Registry | None, image: Reference, kind: str
) -> Iterator[tuple[int, PullSource]]:
    """The sources for one kind of reference, each with its position among all endpoints of the registry."""
    if registry is None:
        yield 0, PullSource(str(image), image.name, str(image), False, True, False, REFERENCE_KINDS)
        return
    for position, endpoint in enumerate(_endpoints(registry)):
        if kind not in endpoint.kinds:
            continue
        target = _rewrite(registry, endpoint, image)
        blocker = find_registry(config, target.name)
        yield (
            position,
            PullSource(
                str(target),
                target.name,
                endpoint.location,
                endpoint.insecure,
                endpoint.primary,
                blocker is not None and blocker.blocked,
                endpoint.kinds,
            ),
        )


def _endpoints(registry: Registry) -> Iterator[_Endpoint]:
    for mirror in registry.mirrors:
        allowed = (DIGEST,) if registry.mirror_by_digest_only else REFERENCE_KINDS
        kinds = tuple(kind for kind in allowed if mirror.serves(kind))
        yield _Endpoint(mirror.location, mirror.insecure, kinds, primary=False)
    yield _Endpoint(registry.location, registry.insecure, REFERENCE_KINDS, primary=True)


def _rewrite(registry: Registry, endpoint: _Endpoint, image: Reference) -> Reference:
    """The image at an endpoint: its location in place of the matched prefix.

    Raises:
        ConfigError: the result is no reference, or not spelled as it would be after normalising.
    """
    text = str(image)
    if not endpoint.location:
        return image
    matched = registry.prefix
    if matched.startswith("*."):
        matched = text[: text.index(matched[1:]) + len(matched) - 1]
    rewritten = endpoint.location + text[len(matched) :]
    try:
        target = reference.parse(rewritten)
        if str(target) == rewritten:
            return target
        reason = f"{rewritten!r} would mean {str(target)!r}"
    except ReferenceSyntaxError as error:
        reason = error.message
    what = "location" if endpoint.primary else "mirror"
    complaint = f"the {what} {endpoint.location!r} makes no valid reference of {text!r}: {reason}"
    raise ConfigError(
        f"{registry.file}: [[registry]] with prefix {registry.prefix!r}: {_cut(complaint)}",
        "CRI-O fails every pull of this image with it, from the other sources as well",
        rule="pull-source",
    )


# -- short names ------------------------------------------------------------------------------------------------------


def short_name_candidates(config: Configuration, image: Reference) -> Iterator[tuple[str, Reference]]:
    """Where CRI-O pulls from if the pod spelled the image as a short name.

    ``nginx`` reaches the plugin as ``docker.io/library/nginx``, while CRI-O resolves it by an alias, else by the
    unqualified-search registries, and takes the file of the docker.io name all the same.

    Yields:
        The short name, and the repository it may mean; never the image itself.
    """
    if image.domain != "docker.io":
        return
    seen = {image.name}
    spellings = [image.path]
    if image.path.startswith("library/") and image.path.count("/") == 1:
        spellings.insert(0, image.path[len("library/") :])
    for spelling in spellings:
        if reference.is_registry_host(spelling.partition("/")[0]) and "/" in spelling:
            continue
        for candidate in resolve_short_name(config, spelling):
            if candidate.name not in seen:
                seen.add(candidate.name)
                yield spelling, candidate


def resolve_short_name(config: Configuration, spelling: str) -> Iterator[Reference]:
    """What CRI-O takes a short name for, without tag and digest: its alias, else one for each search registry."""
    alias = config.aliases.get(spelling, "")
    for text in [alias] if alias else [f"{host}/{spelling}" for host in config.unqualified_search_registries]:
        try:
            yield reference.parse(text)
        except ReferenceSyntaxError:
            continue
