"""registries.conf and its drop-ins: which files count, and what they say together.

Follows what CRI-O 1.37 does (containers/image 5.38). Reads files, and nothing else. How a file is written and checked
is ``registriesfile``'s, which a run whose files are kept in their parsed form does not load; what the tables come to
for an image is ``pullsources``'s.

    config = load(search_files("", ""))
    config.table("docker.io").mirrors
"""

from __future__ import annotations

import os
import stat

from ...errors import ConfigError
from ...platform.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from typing import Any

    from ...platform.parsecache import ParseCache

MAIN_FILE = "/etc/containers/registries.conf"
DROP_IN_DIRECTORY = "/etc/containers/registries.conf.d"
_HOME_MAIN_FILE = ".config/containers/registries.conf"
_HOME_DROP_IN_DIRECTORY = ".config/containers/registries.conf.d"

AUTH_FILE_HELPER = "containers-auth.json"
"""The word in ``credential-helpers`` that stands for auth files; without it CRI-O reads none."""


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
    """A ``[[registry]]`` table, and the file it is in."""

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
        rows: prefix -> [location, insecure, blocked, mirror_by_digest_only, [[location, insecure,
            pull_from_mirror], ...], file]; there may be thousands, so that ``table`` makes a ``Registry`` of one.
        unqualified_search_registries: hosts that CRI-O completes a short name with, in order.
        credential_helpers: never empty.
        short_name_mode: ``""``, ``enforcing``, ``permissive`` or ``disabled``.
        aliases: short name -> repository, ``""`` where a later file takes the alias back.
    """

    __slots__ = ("aliases", "credential_helpers", "rows", "short_name_mode", "unqualified_search_registries")

    def __init__(self) -> None:
        self.rows: dict[str, list[Any]] = {}
        self.unqualified_search_registries: list[str] = []
        self.credential_helpers: list[str] = []
        self.short_name_mode = ""
        self.aliases: dict[str, str] = {}

    def prefixes(self) -> Collection[str]:
        """Of all tables."""
        return self.rows.keys()

    def table(self, prefix: str) -> Registry:
        """The table with a prefix. KeyError where there is none."""
        location, insecure, blocked, digest_only, mirrors, file = self.rows[prefix]
        made = tuple(Mirror(*mirror) for mirror in mirrors)
        return Registry(prefix, location, insecure, blocked, digest_only, made, file)

    def tables(self) -> Iterator[Registry]:
        """All tables."""
        return map(self.table, self.rows)


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
            "cannot look for registries.conf in the home directory: HOME is not set and the user has no passwd entry",
            "set HOME in the kubelet's environment",
            rule="io",
        ) from None


def _drop_ins(directory: str) -> list[str]:
    """The ``*.conf`` files of one directory in byte order of their names.

    A directory that is itself a symlink counts as empty, as with CRI-O, whose walk does not follow it.
    """
    try:
        if not stat.S_ISDIR(os.lstat(directory).st_mode):
            return [directory] if directory.endswith(".conf") else []
        with os.scandir(directory) as entries:
            names = [e.name for e in entries if e.name.endswith(".conf") and not e.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    except OSError as error:
        from . import registriesfile

        raise registriesfile.unreadable(directory, error) from None
    return [os.path.join(directory, name) for name in sorted(names, key=os.fsencode)]


# -- reading ----------------------------------------------------------------------------------------------------------


def load(search: SearchPath, cache: ParseCache | None = None) -> Configuration:
    """Reads and merges the files, or takes the parsed form from the cache if none of them changed.

    Raises:
        ConfigError: a file cannot be read, or CRI-O would refuse it; names the file, the table and the reason.
    """
    if search.main_required and not os.path.exists(search.main):
        # A form may be kept that was made without the main file, by a run that did not need it.
        from . import registriesfile

        registriesfile.read(search.main, required=True)
    if cache is None:
        return _read(search)
    return _from_kept(cache.form((search.main, *search.drop_ins), lambda: _to_kept(_read(search))))


def _read(search: SearchPath) -> Configuration:
    from . import registriesfile

    contents: list[tuple[str, bytes]] = []
    for path in (search.main, *search.drop_ins):
        data = registriesfile.read(path, required=path == search.main and search.main_required)
        if data is not None:
            contents.append((path, data))
    return loads(contents, main=search.main)


def loads(contents: Iterable[tuple[str, bytes]], main: str) -> Configuration:
    """Parses, checks and merges files.

    Args:
        contents: path and content of each file, in the order they are read.
        main: the path among them that is the main file; only there the v1 format is allowed.

    Raises:
        ConfigError: CRI-O would refuse one of the files.
    """
    from . import registriesfile

    config = _from_kept(registriesfile.loads(contents, main))
    config.credential_helpers = config.credential_helpers or [AUTH_FILE_HELPER]
    return config


def _to_kept(config: Configuration) -> dict[str, Any]:
    return {name: getattr(config, name) for name in Configuration.__slots__}


def _from_kept(kept: dict[str, Any]) -> Configuration:
    config = Configuration()
    for name in Configuration.__slots__:
        setattr(config, name, kept[name])
    return config
