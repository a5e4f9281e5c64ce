"""registries.conf and its drop-ins: which files count, which table matches, and the pull sources it makes.

Follows what CRI-O 1.37 does (containers/image 5.38), section by section of docs/registries.md; the vectors in
tests/vectors hold the same rules as cases that this library answered. Reads files, asks nobody else. Knows nothing
about credentials; how a file is written and checked is ``registriesfile``'s, which a run whose files are kept in their
parsed form does not load.

    config = load(search_files("", ""), cache=None)
    for source in repository_sources(config, reference.parse("docker.io/library/nginx")).sources:
        print(source.name, source.kinds)
"""

from __future__ import annotations

import os
import stat

from ...errors import ConfigError, masked
from ...images import reference
from ...images.reference import Reference, ReferenceSyntaxError
from ...platform.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from typing import Any

    from ...platform.parsecache import ParseCache

    _Endpoint = tuple[str, bool, tuple[str, ...], bool]
    """A mirror or, last, the registry itself: location, whether insecure, kinds, whether it is the registry itself."""

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

    def without(self, kinds: Collection[str]) -> PullSource:
        """The same source, less the kinds of references for which CRI-O's pull fails."""
        if not kinds:
            return self
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
    from . import registriesfile

    contents: list[tuple[str, bytes]] = []
    for path in paths:
        data = registriesfile.read(path, required=path == search.main and search.main_required)
        if data is not None:
            contents.append((path, data))
    config = loads(contents, main=search.main)
    if cache is not None:
        cache.store(snapshot, _to_kept(config))
    return config


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


# -- matching ---------------------------------------------------------------------------------------------------------


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


def possible_prefixes(name: str) -> list[str]:
    """Every non-empty prefix, wildcards included, that matches the name."""
    # A match ends at one of these, or at the end of the name.
    marked = name.replace(":", "/").replace("@", "/") + "/"
    prefixes = []
    end = marked.find("/")
    while end >= 0:
        if end:
            prefixes.append(name[:end])
        end = marked.find("/", end + 1)
    # A wildcard *.D matches where the *first* .D of the name lies before any slash and ends at a boundary.
    host = name.partition("/")[0]
    start = host.find(".")
    while start >= 0:
        domain = name[start : marked.find("/", start)]
        if name.find(domain) == start:
            prefixes.append(f"*{domain}")
        start = host.find(".", start + 1)
    return prefixes


# -- pull sources -----------------------------------------------------------------------------------------------------


def pull_sources(config: Configuration, image: Reference) -> list[PullSource]:
    """What CRI-O will ask for a full reference, in its order.

    Args:
        image: normalised; CRI-O pulls it ``as_pulled``.

    Raises:
        ConfigError: one source cannot be written as a reference; CRI-O then fails the pull from all sources.
    """
    return sources_of(config, reference.as_pulled(image))


def sources_of(config: Configuration, image: Reference) -> list[PullSource]:
    """What containers/image makes of a reference as it stands, with tag and digest together; as ``pull_sources``."""
    registry = find_registry(config, image.name)
    kind = DIGEST if image.digest else TAG
    targets = _targets(registry, image, kind)
    return [_source(endpoint, target, find_registry(config, target.name)) for _, endpoint, target in targets]


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
            for position, endpoint, target in _targets(registry, probe, kind):
                if position not in merged:
                    blocker = registry if target is probe else find_registry(config, target.name)
                    merged[position] = _source(endpoint, target, blocker)
        except ConfigError as error:
            errors[kind] = error
    if len(errors) == len(probes):
        raise errors[TAG]
    return RepositorySources(tuple(merged[position].without(errors) for position in sorted(merged)), errors)


def _targets(registry: Registry | None, image: Reference, kind: str) -> Iterator[tuple[int, _Endpoint, Reference]]:
    """The endpoints that serve one kind of reference, each with its position among all of the registry and the image
    there."""
    if registry is None:
        yield 0, (str(image), False, REFERENCE_KINDS, True), image
        return
    for position, endpoint in enumerate(_endpoints(registry)):
        location, _, kinds, primary = endpoint
        if kind in kinds:
            yield position, endpoint, _rewrite(registry, location, primary, image)


def _source(endpoint: _Endpoint, target: Reference, blocker: Registry | None) -> PullSource:
    """The source at an endpoint; ``blocker`` is the table that matches there, which may block it."""
    location, insecure, kinds, primary = endpoint
    blocked = blocker is not None and blocker.blocked
    return PullSource(str(target), target.name, location, insecure, primary, blocked, kinds)


def _endpoints(registry: Registry) -> Iterator[_Endpoint]:
    for mirror in registry.mirrors:
        allowed = (DIGEST,) if registry.mirror_by_digest_only else REFERENCE_KINDS
        kinds = tuple(kind for kind in allowed if mirror.serves(kind))
        yield mirror.location, mirror.insecure, kinds, False
    yield registry.location, registry.insecure, REFERENCE_KINDS, True


def _rewrite(registry: Registry, location: str, primary: bool, image: Reference) -> Reference:
    """The image at a mirror or at the registry itself: its location in place of the matched prefix.

    Raises:
        ConfigError: the result is no reference, or not spelled as it would be after normalising.
    """
    text = str(image)
    if not location:
        return image
    matched = registry.prefix
    if matched.startswith("*."):
        matched = text[: text.index(matched[1:]) + len(matched) - 1]
    rewritten = location + text[len(matched) :]
    if rewritten == text:
        # Nearly every registry itself.
        return image
    try:
        target = reference.parse(rewritten)
        if str(target) == rewritten:
            return target
        reason = f"{masked(rewritten)!r} would be read as {masked(str(target))!r}"
    except ReferenceSyntaxError as error:
        reason = error.message
    what = "location" if primary else "mirror"
    complaint = f"the {what} {masked(location)!r} turns {text!r} into an invalid reference: {reason}"
    raise _no_reference(registry, location, complaint, text[len(matched) :])


def _no_reference(registry: Registry, location: str, complaint: str, rest: str) -> ConfigError:
    """The error of a location of which no reference can be made; ``rest`` is what follows it in one."""
    from . import registriesfile, registriestext

    line, where = 0, registry.file
    try:
        data = registriesfile.read(registry.file, required=False)
    except ConfigError:
        data = None
    if data is not None:
        text = registriesfile.written(registry.file, data)
        line = text.line(text.location(registry.prefix, location))
        where = f"{registry.file}:{line}" if line else where
    return ConfigError(
        f"{where}: [[registry]] with prefix {registry.prefix!r}: {registriesfile.cut(complaint)}",
        f"in {where} {registriesfile.cut(registriestext.location_for(location, rest))}",
        rule="pull-source",
        line=line,
        consequence="CRI-O fails every pull of this image because of it, from the other sources as well",
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
