"""A pull by containerd: the files that count, its hosts in their order, who could see whose credential, the verdict.

What the other modules of this room tell of any runtime (secrets, keys, near misses) is theirs. containerd shows the one
credential of a pull to every host that answers 401, so that this is told host by host. No credential is part of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ..errors import ConfigError, ProviderError
from ..images import dockerconfig
from ..images.reference import Reference
from ..platform.parsecache import ParseCache
from ..pull import decision
from ..pull.resolution import EXPOSED, Resolution
from ..runtimes.containerd import config, hosts, pullsources
from ..runtimes.pullsource import DIGEST, TAG, PullSource
from ..settings import Settings
from . import near, outcome, sources, unusable
from .outcome import joined, names_of
from .records import (
    FAILED,
    MOST_TOLD,
    NO_TABLES,
    NOTHING_ASKED,
    PASSED,
    Asked,
    Explanation,
    File,
    Host,
    Hosts,
    NotAsked,
    Shown,
    Source,
    Verdict,
)

if TYPE_CHECKING:
    from ..images.dockerconfig import Credential
    from ..kubernetes.credentialprovider import Request
    from ..pull.keyring import Choice
    from ..registryclient import Api
    from ..runtimes.containerd.config import Configuration
    from ..runtimes.containerd.hosts import Found
    from .unusable import Seen, Unusable

_ALONE = "containerd asks the registry itself alone"


def explain(
    request: Request,
    settings: Settings,
    resolution: Resolution,
    error: ProviderError | None,
    seen: Seen,
    image: Reference,
    typed: str,
    notes: Iterable[str],
) -> Explanation:
    """The explanation of a decision for containerd.

    Args:
        error: what ended the decision.
        seen: the cluster as the decision saw it.
        image: with tag and digest, where known.
    """
    spoilt = unusable.find(seen, resolution, request.token, settings)
    found = find_sources(resolution, settings, error, image, typed, spoilt)
    of_files = find_hosts(resolution, settings, error)
    return Explanation(
        typed=typed,
        image=image,
        resolution=resolution,
        settings=settings,
        error=error,
        tables=NO_TABLES,
        asked=NOTHING_ASKED if resolution.hosts is None else asked_of(resolution, image),
        sources=found,
        auth_file=None,
        answer=outcome.answer(resolution, request, settings) if error is None else None,
        exit_status=outcome.exit_status(error),
        steps=() if isinstance(error, NotAsked) else tuple(_steps(resolution, of_files, image, settings)),
        verdict=verdict(resolution, error, found, settings, spoilt),
        notes=(*notes, *sources.notes_on_padding(resolution)),
        hosts=of_files,
    )


def asked_of(resolution: Resolution, image: Reference) -> Asked:
    """All sources: one that does not resolve tags is asked for manifest and layers all the same."""
    return Asked((image,), resolution.sources, "")


def find_sources(
    resolution: Resolution,
    settings: Settings,
    error: ProviderError | None,
    image: Reference,
    typed: str,
    spoilt: Iterable[Unusable],
) -> tuple[Source, ...]:
    """The places that a pull asks, in containerd's order."""
    asked = asked_of(resolution, image)
    return tuple(sources.find_sources(resolution, settings, error, asked, image, typed, spoilt))


# -- files ------------------------------------------------------------------------------------------------------------


def find_hosts(resolution: Resolution, settings: Settings, error: ProviderError | None) -> Hosts:
    """What the files say."""
    main = settings.containerd_config
    try:
        read = config.load(main, settings.root, ParseCache("", "containerd"))
    except ConfigError as refused:
        return Hosts((File(main, _at(main, refused.message), frozenset()),), "", (), (), (), ())
    found, domain = resolution.hosts, resolution.image.domain
    directory = found.directory if found is not None else "" if read.mirrors else _directory(read, domain)
    files = [File(path, "read", frozenset()) for path in read.files] or [
        File(main, "missing: containerd's defaults are used", frozenset())
    ]
    how = _how(read, directory, domain)
    if found is not None and found.directory:
        broken = next((_at(found.file, text) for text in found.ignored if text.startswith(found.file)), "")
        is_there = os.path.exists(found.file)
        files.append(File(found.file, broken or ("read" if is_there else f"missing: {_ALONE}"), frozenset()))
    elif isinstance(error, ConfigError) and directory:
        file = f"{directory}/hosts.toml"
        files.append(File(file, _at(file, error.message), frozenset()))
    return Hosts(
        tuple(files),
        how,
        tuple(_other_directories(read, directory, domain))[:MOST_TOLD],
        tuple(_hosts(resolution)),
        tuple(_shown(resolution)),
        read.auths,
    )


def _at(file: str, message: str) -> str:
    """A message without the file that it begins with: ``line 3: ...``."""
    rest = message.removeprefix(file)
    line, _, words = rest.removeprefix(":").partition(": ")
    if rest.startswith(":") and line.isdigit():
        return f"line {line}: {words}"
    return rest.removeprefix(": ")


def _directory(read: Configuration, domain: str) -> str:
    try:
        return hosts.find_directory(read.config_path, domain)
    except ConfigError:
        return ""


def _how(read: Configuration, directory: str, domain: str) -> str:
    if read.mirrors:
        name = domain if domain in read.mirrors else "*" if "*" in read.mirrors else ""
        return f"registry.mirrors.{name!r} in {read.file}" if name else f"registry.mirrors in {read.file} lack {domain}"
    path = ":".join(read.config_path)
    origin = f"config_path in {read.file}" if read.file else "config_path is not set; the default of containerd 2.2"
    if directory:
        return f"{directory} ({origin})"
    names = " or ".join(hosts.directory_names(domain))
    return f"no directory {names} in {path} ({origin})"


def _other_directories(read: Configuration, directory: str, domain: str) -> Iterator[tuple[str, str]]:
    """Directories that look as if they were meant for the registry, nearest first."""
    if read.mirrors:
        return
    near_ones: list[tuple[int, str, str]] = []
    for root in read.config_path:
        try:
            names = sorted(os.listdir(root))
        except OSError:
            continue
        for name in names:
            path = f"{root}/{name}"
            if path == directory:
                continue
            meant = f"{name[:-1].rpartition('_')[0]}:{name[:-1].rpartition('_')[2]}" if name.endswith("_") else name
            if name in hosts.directory_names(domain):
                near_ones.append((0, path, f"{directory} counts, which comes first"))
            elif (nearly := near.why_table(meant, f"{domain}/")) is not None:
                near_ones.append((nearly[0], path, nearly[1]))
    for _, path, why in sorted(near_ones):
        yield path, why


def _hosts(resolution: Resolution) -> Iterator[Host]:
    """Each URL once."""
    urls: set[str] = set()
    for host in resolution.hosts.hosts if resolution.hosts is not None else ():
        if host.host and host.url not in urls:
            urls.add(host.url)
            yield Host(host, pullsources.name_of(host, resolution.image))


def api_of(found: Found, source: PullSource, image: Reference) -> Api:
    """What containerd asks for a source."""
    # Nobody is asked by an explanation, which does without what asking takes.
    from ..registryclient import Api

    host = next(h for h in found.hosts if h.url == source.location and pullsources.name_of(h, image) == source.name)
    is_itself = host.host in (found.domain, hosts.own_host(found.domain))
    return Api(
        host.scheme,
        host.host,
        host.path,
        "" if is_itself else found.domain,
        host.skip_verify,
        host.plain_http,
        host.ca,
        host.client,
        host.headers,
        host.file,
    )


def kind_of(image: Reference) -> str:
    """What a pull of an image names it by, of ``REFERENCE_KINDS``."""
    return DIGEST if image.digest else TAG


def _shown(resolution: Resolution) -> Iterator[Shown]:
    """Each credential of the namespace once, in the order of the hosts."""
    by_credential: dict[Credential, list[Choice]] = {}
    for choice in resolution.selection.choices if resolution.selection is not None else ():
        by_credential.setdefault(choice.credential, []).append(choice)
    for choices in by_credential.values():
        first = choices[0]
        yield Shown(
            first.secret,
            first.key,
            tuple(choice.source.location for choice in choices),
            tuple(exposed.source.location for exposed in resolution.exposures if exposed.choice == first),
            next((offer.key for offer in resolution.offers if offer.choice == first), ""),
        )


# -- what comes of it -------------------------------------------------------------------------------------------------


def _steps(resolution: Resolution, of_files: Hosts, image: Reference, settings: Settings) -> Iterator[str]:
    """What the kubelet and containerd do after the plugin's answer (docs/reference/contracts.md, 4)."""
    if resolution.hosts is None:
        return
    passed = [shown for shown in of_files.shown if shown.answer_key]
    domain = resolution.image.domain
    urls = [source.location for source in resolution.sources]
    if len(urls) > 1 or (resolution.sources[:1] and resolution.sources[0].name != resolution.image.name):
        yield (
            f"if one of the pod's imagePullSecrets has a key for {domain}, the kubelet passes that credential first, "
            f"and containerd shows it to every host that it asks: {joined(urls)}"
        )
    for number, shown in enumerate(passed):
        when = "if the pull fails with that, " if number else ""
        whose = f"the credential of secret {shown.secret}"
        yield f"{when}the kubelet finds {whose} under {shown.answer_key}, and passes it to containerd"
    if _has_node_key(resolution.image.name, settings):
        when = "if the pull fails with that, " if passed else ""
        yield (
            f"{when}the kubelet passes the node's own credential for {domain} in {settings.global_auth_file}, which "
            "containerd shows to every host that it asks"
        )
    if not passed and of_files.node_hosts:
        yield (
            "where the kubelet passes no credential, containerd uses those of registry.configs in config.toml, for "
            f"{joined(list(of_files.node_hosts))}"
        )
    shows = ", and shows it the credential if it answers 401" if passed else " without a credential"
    ordered = sorted(resolution.sources, key=lambda source: kind_of(image) not in source.kinds)
    for number, source in enumerate(ordered):
        when = "if that refuses, does not have the image or does not answer, it asks" if number else ""
        if kind_of(image) not in source.kinds:
            when = "for manifest and layers alone, where no other host delivers them, it asks"
        own = shows
        if not passed and source.name.partition("/")[0] in of_files.node_hosts:
            own = " with the credential of config.toml"
        yield f"{when or 'first containerd asks'} {source.location} for {source.name}{own}"


def _has_node_key(name: str, settings: Settings) -> bool:
    """Whether the kubelet finds a credential for the image itself in the node's file, which it reads by itself."""
    try:
        return dockerconfig.find_credential(decision.global_config(settings.global_auth_file)[0], name) is not None
    except ConfigError:
        return False


def verdict(
    resolution: Resolution,
    error: ProviderError | None,
    found: tuple[Source, ...],
    settings: Settings,
    spoilt: Iterable[Unusable],
) -> Verdict:
    """Well where the pull gets a credential of the namespace, or asks no mirror."""
    if error is not None:
        return outcome.verdict_of_error(error)
    if resolution.offers:
        return _verdict_of_offers(resolution, found)
    if resolution.code == EXPOSED:
        return _verdict_of_exposed(resolution, found, settings, spoilt)
    wanted = [source for source in found if source.is_wanted]
    if not wanted:
        text, remedy = f"The plugin has nothing to do: {resolution.reason}", ""
        if resolution.hosts is not None and resolution.hosts.ignored:
            text += f". {resolution.hosts.ignored[0]}"
            remedy = f"correct {resolution.hosts.file}" if resolution.hosts.file else ""
        return Verdict(PASSED, text, remedy)
    reason = resolution.reason or outcome.first_reason(wanted)
    text = f"{names_of(wanted)} without a credential: {reason}{outcome.nearest(wanted, reason, spoilt)}"
    remedy = outcome.remedy_of_none(resolution, wanted, settings, spoilt, NO_TABLES)
    if resolution.account is None:
        # The kubelet looks there by the image's name, and what it finds goes to every host.
        remedy = (
            "for any pod but a static one add tokenAttributes to the plugin's entry in the CredentialProviderConfig"
        )
    return Verdict(FAILED, f"containerd asks {text}", remedy)


def _verdict_of_exposed(
    resolution: Resolution, found: tuple[Source, ...], settings: Settings, spoilt: Iterable[Unusable]
) -> Verdict:
    text, remedy = f"The kubelet passes no credential: {resolution.reason}", resolution.hint
    wanted = [source for source in found if source.is_wanted]
    if wanted and not any(source.origin for source in wanted):
        # The credential is for the registry itself alone: what the mirror lacks comes first.
        text += f"; {names_of(wanted)} has none of its own{outcome.nearest(wanted, resolution.reason, spoilt)}"
        remedy = outcome.remedy_of_none(resolution, wanted, settings, spoilt, NO_TABLES)
    return Verdict(FAILED, text, remedy)


def _verdict_of_offers(resolution: Resolution, found: tuple[Source, ...]) -> Verdict:
    passed = [offer.choice for offer in resolution.offers]
    secrets = list(dict.fromkeys(choice.secret for choice in passed))
    whose = (
        f"the credential of secret {secrets[0]}" if len(passed) == 1 else f"those of secrets {joined(secrets)} in turn"
    )
    first = next(source for source in found if source.source.name == passed[0].source.name)
    text = f"The kubelet passes containerd {whose}, for {joined([choice.source.name for choice in passed])}"
    others = list(dict.fromkeys(exposed.source.location for exposed in resolution.exposures))
    if others:
        text += f"; --allow-fallback-exposure lets containerd show it to {joined(others)} as well"
    odd, remedy = outcome.oddity_at(first, resolution)
    return Verdict(PASSED, text + odd, remedy)
