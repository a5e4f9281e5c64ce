"""The places that containerd asks for an image, made of the hosts of its registry. Knows nothing about credentials.

for source in repository_sources(found, reference.parse("docker.io/library/nginx")):
    print(source.name, source.kinds)
"""

from __future__ import annotations

from ...images.dockerconfig import DOCKER_HUB_NAMES
from ..pullsource import DIGEST, TAG, PullSource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...images.reference import Reference
    from .hosts import Found, Host


def repository_sources(found: Found, image: Reference) -> tuple[PullSource, ...]:
    """The sources of a repository, each once, in containerd's order.

    Capabilities only decide who is asked for the digest: for a tag those with pull and resolve, for a digest those with
    pull. For manifest and layers it asks every host, even one for pushes alone, until one delivers them
    (docs/reference/contracts.md, 4): that one is a source without kinds.
    """
    sources: dict[tuple[str, str], PullSource] = {}
    for host in found.hosts:
        if not host.host:
            continue
        name = name_of(host, image)
        source = PullSource(
            name, name, host.url, host.skip_verify or host.plain_http, host.is_server, False, _kinds(host)
        )
        earlier = sources.get((host.host, name))
        sources[host.host, name] = source if earlier is None else _joined(earlier, source)
    return tuple(sources.values())


def name_of(host: Host, image: Reference) -> str:
    """The repository there, by the name under which a pull secret has a credential for it.

    What the path of the API has beside its /v2 stands before the repository, whether it comes after /v2 (Harbor's
    projects) or before it (a registry below a path).
    """
    prefix = host.path.strip("/")
    if prefix == "v2" or prefix.startswith("v2/"):
        prefix = prefix[3:]
    elif prefix.endswith("/v2"):
        prefix = prefix[:-3]
    place = "docker.io" if host.host in DOCKER_HUB_NAMES else host.host
    return "/".join(part for part in (place, prefix, image.path) if part)


def _kinds(host: Host) -> tuple[str, ...]:
    if "pull" not in host.capabilities:
        return ()
    return (TAG, DIGEST) if "resolve" in host.capabilities else (DIGEST,)


def _joined(one: PullSource, other: PullSource) -> PullSource:
    return PullSource(
        one.reference,
        one.name,
        one.location,
        one.insecure or other.insecure,
        one.primary and other.primary,
        False,
        one.kinds if len(one.kinds) >= len(other.kinds) else other.kinds,
    )
