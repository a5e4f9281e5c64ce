"""Where containerd could show a mirror's credential to another host, so that the plugin hands none over: told before a
node has it.

``pull.offer`` decides it for a pull, by the credentials that its namespace has.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..images.reference import Reference
from ..node.containerd import OTHERS, Hosts
from ..pull import offer
from ..runtimes.containerd.pullsources import repository_sources
from ..runtimes.pullsource import PullSource
from ..settings import Settings
from .matchimages import may_meet


def find(hosts: Hosts, settings: Settings) -> Iterator[str]:
    """A sentence for each registry whose mirror's credential other hosts may be shown; none where that is allowed."""
    if settings.allow_fallback_exposure:
        return
    for domain, found in hosts.found.items():
        image = Reference(domain, "image")
        sources = repository_sources(found, image)
        mirror = next(
            (source for source in sources if source.name != image.name and _is_wanted(source, settings)), None
        )
        others = [source for source in sources if mirror and _host(source) != _host(mirror)]
        if mirror and others:
            yield _shown(
                f"{domain}: containerd would show the credential for {_host(mirror)} to "
                f"{' and '.join(source.location for source in others)} as well, so that no pull gets it unless the "
                f"namespace has the same credential for all of them; {offer.remedy(found, mirror, others)}; or allow "
                "it with --plugin-arg=--allow-fallback-exposure"
            )


def _shown(text: str) -> str:
    """With words for what stands for every registry without a directory of its own."""
    return text.replace(f"https://{OTHERS}/v2", "the registry itself").replace(OTHERS, "every other registry")


def _is_wanted(source: PullSource, settings: Settings) -> bool:
    place = source.name.removesuffix("/image")
    return not settings.mirror_registry or any(may_meet(place, allowed) for allowed in settings.mirror_registry)


def _host(source: PullSource) -> str:
    return source.name.partition("/")[0]
