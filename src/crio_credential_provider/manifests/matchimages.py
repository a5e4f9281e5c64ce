"""matchImages: which images a pattern matches, which patterns a registries.conf calls for, and where two overlap.

The kubelet runs the plugin for an image that one of these patterns matches. Follows the kubelet's
pkg/credentialprovider (ParseSchemelessURL, URLsMatch) and CRI-O's prefixes, which differ: a prefix ends at a component
and covers every port and depth, a pattern is cut into labels, names one port, and its path is a plain prefix of text.

>>> matches("*.corp.example", "hub.corp.example/team/app"), matches("*.corp.example", "a.hub.corp.example/team/app")
(True, False)
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..errors import masked
from ..images import reference
from ..runtimes.crio import registries, registriestext
from ..runtimes.crio.registries import Configuration, Registry

DOCKER_HUB = "docker.io"
"""Where the kubelet takes a short name to lie."""


class Derived(NamedTuple):
    """The patterns that a registries.conf calls for.

    Attributes:
        patterns: in byte order, docker.io first; none is covered by another one.
        reasons: for each pattern what calls for it.
        limits: what no pattern can express, one sentence each.
        left_out: tables that send an image elsewhere, and yet get no pattern; prefix and reason.
    """

    patterns: tuple[str, ...]
    reasons: tuple[str, ...]
    limits: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]


# -- what the kubelet does --------------------------------------------------------------------------------------------


class Pattern(NamedTuple):
    """A pattern or an image, as the kubelet cuts it: the host's labels, the port ("" for none), the path."""

    labels: tuple[str, ...]
    port: str
    path: str


def split(text: str) -> Pattern:
    """Cuts a pattern or a repository name; the path begins with its slash, and is "" where there is none."""
    host, slash, path = text.partition("/")
    name, colon, port = host.rpartition(":")
    if not colon:
        name, port = host, ""
    return Pattern(tuple(name.split(".")), port, slash + path)


def matches(pattern: str, image: str) -> bool:
    """Whether the kubelet runs a provider with this pattern for an image.

    Args:
        image: the repository with its registry, without tag and digest (``docker.io/library/nginx``).
    """
    glob, target = split(pattern), split(image)
    return (
        glob.port == target.port
        and len(glob.labels) == len(target.labels)
        and target.path.startswith(glob.path)
        and all(_matches_label(part, label) for part, label in zip(glob.labels, target.labels, strict=True))
    )


def _matches_label(glob: str, label: str) -> bool:
    # filepath.Match spells a negated set [^...], fnmatch [!...].
    return fnmatch.fnmatchcase(label, glob.replace("[^", "[!"))


def covers(pattern: str, other: str) -> bool:
    """Whether one pattern matches all that another one matches, as far as can be told by their text."""
    wide, narrow = split(pattern), split(other)
    return (
        wide.port == narrow.port
        and len(wide.labels) == len(narrow.labels)
        and narrow.path.startswith(wide.path)
        and all(a in (b, "*") for a, b in zip(wide.labels, narrow.labels, strict=True))
    )


def overlap(pattern: str, other: str) -> bool:
    """Whether an image may exist that both patterns match."""
    one, two = split(pattern), split(other)
    return (
        one.port == two.port
        and len(one.labels) == len(two.labels)
        and (one.path.startswith(two.path) or two.path.startswith(one.path))
        and all(_labels_meet(a, b) for a, b in zip(one.labels, two.labels, strict=True))
    )


def _labels_meet(one: str, two: str) -> bool:
    """Whether a label exists that both globs match; a set in brackets counts as any character."""
    if not _is_glob(one) or not _is_glob(two):
        return _matches_label(one, two) if _is_glob(one) else _matches_label(two, one)
    # States (i, j): the rests one[i:] and two[j:] are still to be met.
    seen, left = set(), [(0, 0)]
    first, second = _units(one), _units(two)
    while left:
        i, j = left.pop()
        if (i, j) in seen:
            continue
        seen.add((i, j))
        if i == len(first) and j == len(second):
            return True
        a, b = first[i : i + 1], second[j : j + 1]
        if a == ["*"]:
            left += [(i + 1, j), *([(i, j + 1)] if b else [])]
        elif b == ["*"]:
            left += [(i, j + 1), *([(i + 1, j)] if a else [])]
        elif a and b and (a == b or "?" in (a[0], b[0])):
            left.append((i + 1, j + 1))
    return False


def _is_glob(label: str) -> bool:
    return any(c in label for c in "*?[\\")


def _units(glob: str) -> list[str]:
    """Characters, with ``?`` for a set."""
    units, rest = [], glob
    while rest:
        if rest[0] == "[" and "]" in rest[2:]:
            units.append("?")
            rest = rest[rest.index("]", 2) + 1 :]
        else:
            units.append(rest[0])
            rest = rest[1:]
    return units


def why_dead(pattern: str) -> str:
    """Why a pattern matches no image at all, in one clause; "" where it may match one.

    The kubelet itself refuses hardly any: a pattern that cannot match is the fault that nobody sees.
    """
    if "://" in pattern:
        return "a pattern has no scheme"
    if any(c.isspace() for c in pattern) or not pattern:
        return "an image name has no space"
    host, slash, path = pattern.partition("/")
    if any(c in path for c in "*?[\\"):
        return "a path has no wildcards: * has no special meaning"
    if "@" in path or ":" in path:
        return "the kubelet matches names without tag and digest"
    if host == "index.docker.io":
        return f"the kubelet names it {DOCKER_HUB}"
    if slash and path.lower() != path:
        return "a repository is lower case"
    name, colon, port = host.rpartition(":")
    if colon and not (port.isascii() and port.isdigit()):
        return "a port is a number, not a pattern"
    if not reference.is_registry_host(host) and not (_is_glob(host) and not colon):
        return f"the kubelet reads an image whose first part has no dot and no port as one of {DOCKER_HUB}"
    return _why_no_host(name if colon else host)


def _why_no_host(host: str) -> str:
    for label in host.split("."):
        if not label:
            return "its host has an empty label"
        if not _is_glob(label) and not reference.is_domain(label):
            return f"{masked(label)!r} is not valid in a host name"
    return ""


# -- what registries.conf calls for -----------------------------------------------------------------------------------


def match_images(config: Configuration, mirror_registries: Sequence[str] = ()) -> Derived:
    """The patterns under which the plugin has something to do.

    Args:
        config: as ``registries.load`` reads it.
        mirror_registries: as the plugin's ``--mirror-registry``: a table counts only if it leads to one of these.
    """
    wanted: dict[str, list[str]] = {}
    limits: list[str] = []
    left_out: list[tuple[str, str]] = []
    tables = [_table(config, prefix) for prefix in sorted(config.tables)]
    for table in tables:
        if not _leads_elsewhere(table):
            continue
        reason = _why_left_out(config, table, mirror_registries)
        if reason:
            left_out.append((masked(table.prefix), reason))
            continue
        wanted.setdefault(table.prefix, []).append(f"{table.prefix} in {table.file}")
        limits += _limits(table.prefix)
    for reason in _short_names(config, wanted):
        wanted.setdefault(DOCKER_HUB, []).append(reason)
    patterns = _uncovered(wanted)
    patterns.sort(key=lambda pattern: (split(pattern).labels != ("docker", "io"), pattern))
    reasons = tuple(", ".join(wanted[pattern]) for pattern in patterns)
    return Derived(tuple(patterns), reasons, tuple(limits), tuple(left_out))


def _uncovered(patterns: Iterable[str]) -> list[str]:
    """The patterns that no other one ``covers``, without holding each against each: there may be thousands."""
    cut = {pattern: split(pattern) for pattern in patterns}
    paths: dict[tuple[str, tuple[str, ...]], dict[int, set[str]]] = {}
    for one in cut.values():
        paths.setdefault((one.port, one.labels), {}).setdefault(len(one.path), set()).add(one.path)
    # A wildcard of registries.conf has its * at the beginning, unless somebody erred.
    odd = [pattern for pattern, one in cut.items() if "*" in one.labels[1:]]

    def is_covered(pattern: str) -> bool:
        labels, port, path = cut[pattern]
        for wide in {labels, ("*", *labels[1:])}:
            for length, found in paths.get((port, wide), {}).items():
                if path[:length] in found and (wide, length) != (labels, len(path)):
                    return True
        return any(other != pattern and covers(other, pattern) for other in odd)

    return [pattern for pattern in cut if not is_covered(pattern)]


def _table(config: Configuration, prefix: str) -> Registry:
    location, insecure, blocked, digest_only, mirrors, file = config.tables[prefix]
    made = tuple(registries.Mirror(*mirror) for mirror in mirrors)
    return Registry(prefix, location, insecure, blocked, digest_only, made, file)


def _leads_elsewhere(table: Registry) -> bool:
    return bool(table.mirrors) or table.location not in ("", table.prefix)


def _why_left_out(config: Configuration, table: Registry, mirror_registries: Sequence[str]) -> str:
    dead = why_dead(table.prefix) or registriestext.why_no_image(table.prefix)[0]
    if dead:
        return f"no image has such a name: {dead}"
    used = registries.find_registry(config, table.prefix)
    if used is not None and used.prefix != table.prefix and not table.prefix.startswith("*."):
        return f"CRI-O uses the table {masked(used.prefix)} for all such images"
    places = [place for place in _places(table) if not _is_blocked(config, place)]
    if not places:
        return "all its mirrors and other locations are blocked"
    if mirror_registries and not any(_may_meet(place, allowed) for place in places for allowed in mirror_registries):
        return "none of its sources is covered by --mirror-registry"
    return ""


def _places(table: Registry) -> list[str]:
    """Mirrors, and the location where it is not the image's own name."""
    mirrors = [mirror.location for mirror in table.mirrors if mirror.serves(registries.DIGEST) or mirror.serves("tag")]
    return mirrors + ([table.location] if table.location not in ("", table.prefix) else [])


def _is_blocked(config: Configuration, location: str) -> bool:
    """By each source's own name: a blocked registry is still pulled from its mirrors (docs/registries.md, 7)."""
    found = registries.find_registry(config, location)
    return found is not None and found.blocked


def _may_meet(location: str, allowed: str) -> bool:
    """Whether a source below a location may lie at or below an allowed place."""
    return f"{location}/".startswith(f"{allowed}/") or f"{allowed}/".startswith(f"{location}/")


def _limits(prefix: str) -> list[str]:
    """What CRI-O's prefix covers and no pattern can."""
    if not prefix.startswith("*."):
        return []
    return [
        f"{prefix} in registries.conf matches hosts of any depth, in matchImages one label "
        f"and no port: for deeper names add *.{prefix}, for ports add {prefix}:PORT"
    ]


def _short_names(config: Configuration, wanted: Iterable[str]) -> list[str]:
    """Why docker.io is needed for short names: for the kubelet they lie there, CRI-O may complete them otherwise."""
    prefixes = set(wanted)
    reasons = []
    hosts = [host for host in config.unqualified_search_registries if _reaches(config, host, prefixes)]
    if hosts:
        reasons.append(f"short names, by unqualified-search-registries: {', '.join(hosts)}")
    aliases = sorted(name for name, target in config.aliases.items() if target and _reaches(config, target, prefixes))
    if aliases:
        more = f" and {len(aliases) - 3} more" if len(aliases) > 3 else ""
        reasons.append(f"short names, by alias: {', '.join(aliases[:3])}{more}")
    return reasons


def _reaches(config: Configuration, name: str, prefixes: set[str]) -> bool:
    """Whether a name, or for a host something on it, is served by one of these tables."""
    found = registries.find_registry(config, name)
    return (found is not None and found.prefix in prefixes) or any(p.startswith(f"{name}/") for p in prefixes)
