"""Which matchImages a registries.conf, or containerd's hosts.toml files, call for.

CRI-O's prefixes and the kubelet's patterns (``kubernetes.imagepatterns``) differ: a prefix ends at a component and
covers every port and depth, a pattern names one port and as many labels as the host has. containerd has a directory for
each registry, by its name and port, and one for all others, for which there is no pattern.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..errors import masked
from ..images.reference import Reference
from ..kubernetes.imagepatterns import DOCKER_HUB, covers, split, why_dead
from ..node.containerd import OTHERS, Hosts
from ..runtimes.containerd import pullsources as containerd
from ..runtimes.crio import pullsources, registriestext
from ..runtimes.crio.registries import Configuration, Registry
from ..runtimes.pullsource import DIGEST, TAG


class Derived(NamedTuple):
    """The patterns that a registries.conf or hosts.toml files call for.

    Attributes:
        patterns: in byte order, docker.io first; none is covered by another one.
        reasons: for each pattern what calls for it.
        limits: what no pattern can express, one sentence each.
        left_out: tables or registries that send an image elsewhere, and yet get no pattern; prefix and reason.
    """

    patterns: tuple[str, ...]
    reasons: tuple[str, ...]
    limits: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]


def match_images(config: Configuration, mirror_registries: Sequence[str] = ()) -> Derived:
    """The patterns under which the plugin has something to do.

    Args:
        config: as ``registries.load`` reads it.
        mirror_registries: as the plugin's ``--mirror-registry``: a table counts only if it leads to one of these.
    """
    wanted: dict[str, list[str]] = {}
    limits: list[str] = []
    left_out: list[tuple[str, str]] = []
    tables = [config.table(prefix) for prefix in sorted(config.prefixes())]
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
    return _derived(wanted, limits, left_out)


def _derived(wanted: dict[str, list[str]], limits: list[str], left_out: list[tuple[str, str]]) -> Derived:
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


def _leads_elsewhere(table: Registry) -> bool:
    return bool(table.mirrors) or table.location not in ("", table.prefix)


def _why_left_out(config: Configuration, table: Registry, mirror_registries: Sequence[str]) -> str:
    dead = why_dead(table.prefix) or registriestext.why_no_image(table.prefix)[0]
    if dead:
        return f"no image has such a name: {dead}"
    used = pullsources.find_registry(config, table.prefix)
    if used is not None and used.prefix != table.prefix and not table.prefix.startswith("*."):
        return f"CRI-O uses the table {masked(used.prefix)} for all such images"
    places = [place for place in _places(table) if not _is_blocked(config, place)]
    if not places:
        return "all its mirrors and other locations are blocked"
    if mirror_registries and not any(may_meet(place, allowed) for place in places for allowed in mirror_registries):
        return "none of its sources is covered by --mirror-registry"
    return ""


def _places(table: Registry) -> list[str]:
    """Mirrors, and the location where it is not the image's own name."""
    mirrors = [mirror.location for mirror in table.mirrors if mirror.serves(DIGEST) or mirror.serves(TAG)]
    return mirrors + ([table.location] if table.location not in ("", table.prefix) else [])


def _is_blocked(config: Configuration, location: str) -> bool:
    """By each source's own name: a blocked registry's mirrors are still asked (docs/reference/registries.md, 7)."""
    found = pullsources.find_registry(config, location)
    return found is not None and found.blocked


def may_meet(location: str, allowed: str) -> bool:
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
    found = pullsources.find_registry(config, name)
    return (found is not None and found.prefix in prefixes) or any(p.startswith(f"{name}/") for p in prefixes)


# -- containerd -------------------------------------------------------------------------------------------------------


def match_registries(hosts: Hosts, mirror_registries: Sequence[str] = ()) -> Derived:
    """The patterns under which the plugin has something to do on a node with containerd.

    Args:
        hosts: of each registry that the configuration names.
        mirror_registries: as for ``match_images``.
    """
    wanted: dict[str, list[str]] = {}
    limits: list[str] = []
    left_out = [(masked(domain), error.message) for domain, error in hosts.failed.items()]
    for found in hosts.found.values():
        image = Reference(found.domain, "image")
        mirrors = [source for source in containerd.repository_sources(found, image) if source.name != image.name]
        if not mirrors:
            continue
        places = [source.name.removesuffix("/image") for source in mirrors]
        if mirror_registries and not any(may_meet(place, one) for place in places for one in mirror_registries):
            left_out.append((masked(found.domain), "none of its sources is covered by --mirror-registry"))
        elif found.domain == OTHERS:
            limits.append(
                f"{found.file} serves every registry without a directory of its own, for which matchImages has no "
                "pattern: give each registry that pods name with --match-image, those above included"
            )
        elif dead := why_dead(found.domain) or registriestext.why_no_image(found.domain)[0]:
            left_out.append((masked(found.domain), f"no image has such a name: {dead}"))
        else:
            wanted.setdefault(found.domain, []).append(f"{found.domain} in {found.file}")
    return _derived(wanted, limits, left_out)


def why_no_registry(file: str, derived: Derived) -> tuple[str, str]:
    """Why there is nothing to match on a node with containerd, and what to do.

    Args:
        file: containerd's configuration.
    """
    hint = "give registries with --match-image, or another configuration of containerd with --containerd-config"
    if derived.limits:
        return derived.limits[0].partition(":")[0], hint
    if derived.left_out:
        return ": ".join(derived.left_out[0]), hint
    return f"by {file} no registry has a mirror", f"write one in a hosts.toml below its config_path, or {hint}"
