"""The places that CRI-O asks for an image, made of the table of registries.conf that matches its name.

Follows what CRI-O 1.37 does (containers/image 5.38), section by section of docs/reference/registries.md; the vectors in
tests/vectors hold the same rules as cases that this library answered. Knows nothing about credentials.

    for source in repository_sources(config, reference.parse("docker.io/library/nginx")).sources:
        print(source.name, source.kinds)
"""

from __future__ import annotations

from ...errors import ConfigError, masked
from ...images import reference
from ...images.reference import Reference, ReferenceSyntaxError
from ...platform.record import Record
from ..pullsource import DIGEST, REFERENCE_KINDS, TAG, PullSource
from .registries import Configuration, Registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    _Endpoint = tuple[str, bool, tuple[str, ...], bool]
    """A mirror or, last, the registry itself: location, whether insecure, kinds, whether it is the registry itself."""


class RepositorySources(Record):
    """The sources of a repository for every kind of reference, and the kinds for which CRI-O's pull will fail."""

    __slots__ = ("errors", "sources")

    def __init__(self, sources: tuple[PullSource, ...], errors: dict[str, ConfigError]) -> None:
        self.sources = sources
        self.errors = errors


# -- matching ---------------------------------------------------------------------------------------------------------


def find_registry(config: Configuration, name: str) -> Registry | None:
    """The table that CRI-O uses for a repository.

    The greatest length in bytes of the prefix wins, and the first in byte order on a tie, so that ``*.example.com``
    beats ``a.example.com``. Looks up each prefix that could match, rather than trying each table: the cost does not
    grow with the number of tables.

    Args:
        name: the repository without tag and digest; matched as it stands.
    """
    found = [prefix for prefix in possible_prefixes(name) if prefix in config.prefixes()]
    if not found:
        return None
    best = min(found, key=lambda prefix: (-len(_bytes(prefix)), _bytes(prefix)))
    return config.table(best)


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
        ConfigError: the result is not a reference, or not spelled as it would be after normalising.
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
