"""The decision: from a request to what CRI-O and the kubelet will be told, with every choice and refusal.

``begin`` reads the request; ``complete`` reads configuration files and asks the cluster through the one seam it is
given; ``resolve`` is both. ``choose`` is ``complete`` for a registries.conf that was read already. They write and print
nothing. The plugin and the commands for people call the same functions, so that what a person is shown is what a pull
gets. For containerd, ``complete`` is that of ``offer``.
"""

from __future__ import annotations

from ..errors import ClusterError, ConfigError, RequestError
from ..images import reference
from ..images.reference import Reference, ReferenceSyntaxError
from ..kubernetes import serviceaccount
from ..kubernetes.credentialprovider import Request
from ..kubernetes.serviceaccount import ServiceAccount
from ..platform.parsecache import ParseCache
from ..runtimes import endpoint
from ..runtimes.crio import pullsources, registries
from ..runtimes.pullsource import PullSource
from ..settings import AUTO, CONTAINERD, Settings
from .resolution import (
    BLOCKED,
    NO_CREDENTIAL,
    NO_HELPER,
    NO_MIRROR,
    NO_TOKEN,
    NOT_COVERED,
    SHORT_NAME,
    WHY_NO_TOKEN,
    Resolution,
    is_wanted,
    may_use_secrets,
    not_covered,
    used_oddities,
    why_no_credential,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..images.dockerconfig import DockerConfig
    from ..kubernetes.pullsecrets import Cluster

_MAX_GLOBAL_AUTH_FILE = 4 * 1024 * 1024


def resolve(request: Request, settings: Settings, connect: Callable[[], Cluster]) -> Resolution:
    """Decides what a pull gets.

    Args:
        request: from the kubelet.
        settings: of this provider.
        connect: makes the connection to the cluster; called only when a pull source makes secrets worth asking for.

    Raises:
        RequestError: the request's image or token is not valid.
        ConfigError: the configuration is one that CRI-O refuses, or cannot be read.
        ClusterError: the API server is away or says no.
    """
    resolution = begin(request)
    complete(resolution, request, settings, connect)
    return resolution


def begin(request: Request) -> Resolution:
    """What the request itself says. RequestError as ``resolve``."""
    account = serviceaccount.loads(request.token) if request.token else None
    return Resolution(_image(request), account)


def complete(resolution: Resolution, request: Request, settings: Settings, connect: Callable[[], Cluster]) -> None:
    """The rest of ``resolve``, step by step into a resolution, which holds what was known when an error ended it."""
    # As for --pod-events in plugin.run, the default is not looked up.
    runtime = vars(settings).get("runtime", AUTO)
    if runtime == CONTAINERD or (runtime == AUTO and endpoint.of_parent(settings.root) == CONTAINERD):
        from . import offer

        offer.complete(resolution, request, settings, connect)
        return
    resolution.config = _registries(settings)
    choose(resolution, resolution.config, request, settings, connect)


def choose(
    resolution: Resolution,
    config: registries.Configuration,
    request: Request,
    settings: Settings,
    connect: Callable[[], Cluster],
) -> None:
    """What a configuration comes to: sources, secrets, credentials. Errors as ``resolve``."""
    account = resolution.account
    resolution.sources, resolution.warnings = find_sources(config, resolution.image)
    wanted = [source for source in resolution.sources if is_wanted(source, resolution.image, settings)]
    if not wanted:
        resolution.code, resolution.reason = _why_not_wanted(resolution, settings)
    elif registries.AUTH_FILE_HELPER not in config.credential_helpers:
        resolution.code = NO_HELPER
        resolution.reason = (
            f"credential-helpers in registries.conf lacks {registries.AUTH_FILE_HELPER}: CRI-O reads no auth file"
        )
    elif account is None:
        resolution.code, resolution.reason = NO_TOKEN, WHY_NO_TOKEN
    else:
        _ask_cluster(resolution, request.token, account, settings, connect, wanted)


def _image(request: Request) -> Reference:
    try:
        image = reference.parse(request.image)
    except ReferenceSyntaxError as error:
        raise RequestError(f"invalid image in the CredentialProviderRequest: {error.message}") from None
    return Reference(image.domain, image.path)


def _registries(settings: Settings) -> registries.Configuration:
    search = registries.search_files(settings.registries_conf, settings.registries_conf_dir, settings.root)
    return registries.load(search, ParseCache(settings.cache_dir, "registries"))


def find_sources(config: registries.Configuration, image: Reference) -> tuple[tuple[PullSource, ...], tuple[str, ...]]:
    """Every place that CRI-O may ask for a repository, each once, and what will not work as configured.

    Those that it only asks for a short name come last, marked as such.
    """
    found = pullsources.repository_sources(config, image)
    warnings = [f"pulls by {kind} will fail: {error.message}" for kind, error in found.errors.items()]
    sources = {source.name: source for source in reversed(found.sources)}
    ordered = [source for source in found.sources if sources[source.name] is source]
    for short_name, candidate in pullsources.short_name_candidates(config, image):
        try:
            further = pullsources.repository_sources(config, candidate).sources
        except ConfigError as error:
            warnings.append(f"pulls by the short name {short_name} will fail: {error.message}")
            continue
        for source in further:
            if source.name not in sources:
                marked = source.through(short_name)
                sources[source.name] = marked
                ordered.append(marked)
    return tuple(ordered), tuple(warnings)


def _why_not_wanted(resolution: Resolution, settings: Settings) -> tuple[str, str]:
    if len(resolution.sources) == 1 and resolution.sources[0].name == resolution.image.name:
        return NO_MIRROR, "no table of registries.conf sends this image to a mirror or another location"
    if settings.mirror_registry:
        return NOT_COVERED, not_covered(settings)
    return BLOCKED, "all its mirrors and other locations are blocked in registries.conf"


def _ask_cluster(
    resolution: Resolution,
    token: str,
    account: ServiceAccount,
    settings: Settings,
    connect: Callable[[], Cluster],
    wanted: Sequence[PullSource],
) -> None:
    """Fetches the pull secrets and selects; fills in the resolution."""
    # Only now: most pulls have no mirror, and importing these takes 2.8 of the 31 million instructions of such a run.
    from ..images import dockerconfig
    from ..kubernetes import pullsecrets
    from . import keyring

    try:
        found = pullsecrets.fetch(settings.secrets_from, account, token, connect())
    except ClusterError as error:
        if all(source.short_name for source in wanted):
            # Most pods spell out docker.io: a namespace that never granted anything must not see its pulls fail here.
            resolution.code, resolution.hint = SHORT_NAME, error.hint
            resolution.reason = (
                "no table of registries.conf sends this image to a mirror or another location; by its short name: "
                f"{error.message}"
            )
            return
        raise
    node_config, warnings = global_config(settings.global_auth_file)
    resolution.warnings += warnings
    resolution.secrets = found.secrets
    selection = keyring.select(
        resolution.sources, found.secrets, node_config, lambda source: may_use_secrets(source, settings)
    )
    resolution.selection = selection
    resolution.skipped = found.skipped + selection.flawed
    if selection.from_namespace:
        credentials = {choice.source.name: choice.credential for choice in selection.choices}
        resolution.auth_file = dockerconfig.dumps(credentials, selection.cred_helpers)
        resolution.warnings += used_oddities(selection.choices)
    else:
        resolution.code = NO_CREDENTIAL
        resolution.reason = why_no_credential(account, settings, selection.flawed + found.skipped)


def global_config(path: str) -> tuple[DockerConfig, tuple[str, ...]]:
    """The node's auth file. A broken one is told, and does not take the namespace's own credentials with it."""
    from ..images import dockerconfig
    from ..platform import regularfile

    nothing = dockerconfig.DockerConfig({}, {})
    try:
        data = regularfile.read(path, _MAX_GLOBAL_AUTH_FILE + 1)
        if len(data) > _MAX_GLOBAL_AUTH_FILE:
            return nothing, (
                f"the global auth file {path} is ignored: it is larger than {_MAX_GLOBAL_AUTH_FILE >> 20} MiB",
            )
        return dockerconfig.loads(data), ()
    except FileNotFoundError:
        return nothing, ()
    except OSError as error:
        return nothing, (f"the global auth file {path} is ignored: {error.strerror}",)
    except ConfigError as error:
        return nothing, (f"the global auth file {path} is ignored: {error.message}",)
