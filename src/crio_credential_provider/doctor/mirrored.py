"""Which registries have mirrors on a node, whichever runtime's files say it."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import ProviderError
from ..images.reference import Reference
from ..manifests import matchimages
from ..manifests.matchimages import Derived
from ..node.containerd import OTHERS
from ..node.facts import Node
from ..pull import decision
from ..pull.resolution import is_wanted
from ..runtimes.containerd.hosts import Found
from ..runtimes.containerd.pullsources import repository_sources
from ..runtimes.pullsource import PullSource
from ..settings import CONTAINERD
from .hostsnames import is_registry

_EXAMPLE = "team/image"
_NOTHING = Derived((), (), (), ())


class Table(NamedTuple):
    """What is asked in place of images whose names begin with a prefix."""

    prefix: str
    places: tuple[str, ...]
    blocked: bool = False


def files(node: Node) -> str:
    """What says it, for people."""
    return "containerd's configuration" if node.pulls_with == CONTAINERD else "registries.conf"


def is_known(node: Node) -> bool:
    """Whether the runtime's files could be read."""
    if node.pulls_with == CONTAINERD:
        return node.hosts is not None and node.hosts.config is not None
    return node.registries.config is not None


def tables(node: Node) -> list[Table]:
    """The registries with mirrors. A containerd that has them for all others has no prefix for these."""
    if node.pulls_with != CONTAINERD:
        config = node.registries.config
        made = config.tables() if config else ()
        return [Table(one.prefix, tuple(mirror.location for mirror in one.mirrors), one.blocked) for one in made]
    found = node.hosts.found.items() if node.hosts else ()
    made_of = [
        Table(domain, tuple(_elsewhere(domain, hosts)))
        for domain, hosts in found
        if domain != OTHERS and is_registry(domain)
    ]
    return [table for table in made_of if table.places]


def _elsewhere(domain: str, found: Found) -> list[str]:
    """The mirrors of a registry, as image names have them."""
    image = example(domain)
    names = [source.name for source in repository_sources(found, image) if source.name != image.name]
    return [name.removesuffix(f"/{_EXAMPLE}") for name in names]


def mirrored_registries(node: Node) -> list[str]:
    """The registries that containerd has a mirror for, ``OTHERS`` for all that have no directory."""
    found = node.hosts.found if node.hosts else {}
    return [domain for domain, hosts in found.items() if _elsewhere(domain, hosts)]


def has_mirrors(node: Node) -> bool:
    """Whether containerd has a mirror for any registry."""
    return bool(mirrored_registries(node))


def example(domain: str) -> Reference:
    """An image of a registry."""
    return Reference(domain, _EXAMPLE)


def derive(node: Node, allowed: tuple[str, ...] = ()) -> Derived:
    """The matchImages that a node calls for. ``allowed``: as ``--mirror-registry``."""
    if node.pulls_with == CONTAINERD:
        if node.hosts is None:
            return _NOTHING
        # Of a directory with a wrong name something else is told.
        found = {domain: one for domain, one in node.hosts.found.items() if is_registry(domain)}
        return matchimages.match_registries(node.hosts._replace(found=found), allowed)
    config = node.registries.config
    return matchimages.match_images(config, allowed) if config else _NOTHING


def has_mirror(node: Node, image: Reference) -> bool:
    """Whether the plugin would ask for secrets for an image."""
    assert node.settings is not None
    chosen = node.settings
    return any(not source.short_name and is_wanted(source, image, chosen) for source in _sources(node, image))


def _sources(node: Node, image: Reference) -> tuple[PullSource, ...]:
    try:
        if node.pulls_with != CONTAINERD:
            assert node.registries.config is not None
            return decision.find_sources(node.registries.config, image)[0]
    except ProviderError:
        return ()
    found = node.hosts.found if node.hosts else {}
    if image.domain in found:
        return repository_sources(found[image.domain], image)
    if OTHERS not in found:
        return ()
    # The registry itself is asked as well, which is no mirror.
    stand_in = Reference(OTHERS, image.path)
    return tuple(one for one in repository_sources(found[OTHERS], stand_in) if one.name != stand_in.name)
