"""The decision for containerd: the credential of the namespace that the kubelet hands to it for an image, and to whom
containerd could show it.

A pull has one user name and password, which containerd shows to every host of the image's hosts.toml that answers 401,
in turn, the server last (docs/reference/contracts.md, containerd). So a credential is offered only where its own key
names each host that may be asked, else the pull gets none: a mirror's password is nobody else's. Reads as ``decision``
does; its errors are those of ``decision.resolve``.
"""

from __future__ import annotations

from ..errors import ConfigError
from ..images import dockerconfig
from ..kubernetes import credentialprovider, pullsecrets
from ..kubernetes.pullsecrets import Skipped
from ..platform.parsecache import ParseCache
from ..runtimes.containerd import config, hosts, pullsources
from . import keyring
from .keyring import Selection, Unserved
from .resolution import (
    EXPOSED,
    NO_CREDENTIAL,
    NO_MIRROR,
    NO_TOKEN,
    NOT_COVERED,
    WHY_NO_TOKEN,
    Exposure,
    Offer,
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

    from ..images.dockerconfig import Credential
    from ..kubernetes.credentialprovider import Request
    from ..kubernetes.pullsecrets import Cluster
    from ..kubernetes.serviceaccount import ServiceAccount
    from ..runtimes.containerd.hosts import Found
    from ..runtimes.pullsource import PullSource
    from ..settings import Settings
    from .keyring import Choice


def complete(resolution: Resolution, request: Request, settings: Settings, connect: Callable[[], Cluster]) -> None:
    """As ``decision.complete``."""
    configuration = config.load(settings.containerd_config, settings.root, ParseCache(settings.cache_dir, "containerd"))
    found = hosts.hosts_for(configuration, resolution.image.domain, ParseCache(settings.cache_dir, "hosts"))
    choose(resolution, found, request, settings, connect)


def choose(
    resolution: Resolution, found: Found, request: Request, settings: Settings, connect: Callable[[], Cluster]
) -> None:
    """As ``decision.choose``, for hosts that were read already."""
    image, account = resolution.image, resolution.account
    resolution.hosts, resolution.warnings = found, found.ignored
    resolution.sources = pullsources.repository_sources(found, image)
    if all(source.name == image.name for source in resolution.sources):
        resolution.code, resolution.reason = NO_MIRROR, f"containerd has no mirror for {image.domain}"
    elif not any(is_wanted(source, image, settings) for source in resolution.sources):
        resolution.code, resolution.reason = NOT_COVERED, not_covered(settings)
    elif account is None:
        resolution.code, resolution.reason = NO_TOKEN, WHY_NO_TOKEN
    else:
        _ask_cluster(resolution, request.token, account, settings, connect)


def _ask_cluster(
    resolution: Resolution, token: str, account: ServiceAccount, settings: Settings, connect: Callable[[], Cluster]
) -> None:
    """Fetches the pull secrets and selects; fills in the resolution."""
    found = pullsecrets.fetch(settings.secrets_from, account, token, connect())
    resolution.secrets = found.secrets
    # The kubelet reads the node's own auth file by itself.
    selection = keyring.select(
        resolution.sources, found.secrets, None, lambda source: may_use_secrets(source, settings)
    )
    resolution.selection = selection = _carried(selection)
    resolution.skipped = found.skipped + selection.flawed
    chosen = _distinct(selection.choices)
    if not chosen:
        resolution.code = NO_CREDENTIAL
        resolution.reason = why_no_credential(account, settings, resolution.skipped)
        return
    assert resolution.hosts is not None
    if resolution.hosts.doubt and not settings.allow_fallback_exposure:
        raise ConfigError(
            f"{resolution.hosts.doubt}: which hosts containerd asks cannot be told, and it gets no credential",
            f"correct {resolution.hosts.file}",
            rule="toml-syntax",
        )
    resolution.exposures = tuple(_exposures(chosen, selection, resolution.sources))
    if resolution.exposures and not settings.allow_fallback_exposure:
        resolution.code = EXPOSED
        resolution.reason, resolution.hint = _refusal(resolution)
        return
    keys = credentialprovider.keys_for(resolution.image.name)
    resolution.offers = tuple(Offer(key, choice) for key, choice in zip(keys, chosen, strict=False))
    resolution.warnings += used_oddities(chosen)
    if len(chosen) > len(keys):
        untold = ", ".join(choice.source.name for choice in chosen[len(keys) :])
        resolution.warnings += (
            f"the kubelet takes at most {len(keys)} credentials for this image: {untold} gets none",
        )


def _distinct(choices: Sequence[Choice]) -> list[Choice]:
    """The first choice of each credential, in the order of the hosts."""
    first: dict[Credential, Choice] = {}
    for choice in choices:
        first.setdefault(choice.credential, choice)
    return list(first.values())


def _exposures(chosen: Sequence[Choice], selection: Selection, sources: Sequence[PullSource]) -> list[Exposure]:
    own = {choice.source.name: choice.credential for choice in selection.choices}
    return [
        Exposure(choice, source) for choice in chosen for source in sources if own.get(source.name) != choice.credential
    ]


def _refusal(resolution: Resolution) -> tuple[str, str]:
    """Why a pull gets no credential though a secret has one, and what to do."""
    assert resolution.hosts is not None
    choice = resolution.exposures[0].choice
    others = [exposure.source for exposure in resolution.exposures if exposure.choice is choice]
    reason = (
        f"containerd would show the credential of secret {choice.secret} for {choice.source.name} to "
        f"{' and '.join(source.location for source in others)} as well"
    )
    hint = remedy(resolution.hosts, choice.source, others)
    # With files that do not count, the mirror may not be asked at all.
    return reason, hint if resolution.hosts.ignored else f"{hint}; or allow it with --allow-fallback-exposure"


def remedy(found: Found, mirror: PullSource, others: Sequence[PullSource]) -> str:
    """What keeps a mirror's credential from the other hosts of a registry."""
    if found.ignored:
        return f"correct this first: {found.ignored[-1]}" + (f": {found.advice}" if found.advice else "")
    if not found.file.endswith("/hosts.toml"):
        return (
            f"move {found.domain} from registry.mirrors to a hosts.toml below config_path, which can leave the "
            "registry itself out"
        )
    if all(source.primary for source in others):
        place = mirror.location
        server = f'server = "{place}"' + ("" if place.endswith("/v2") else " and override_path = true")
        return f"at the top of {found.file} write {server}, so that containerd asks no other host"
    return f"containerd takes one credential for a pull: leave one [host] in {found.file}"


def _carried(selection: Selection) -> Selection:
    """The selection without what the kubelet's protocol has no place for."""
    choices, unserved, flawed = [], list(selection.unserved), list(selection.flawed)
    for choice in selection.choices:
        if why := _why_not_carried(choice.credential):
            unserved.append(Unserved(choice.source, f"secret {choice.secret} {why}"))
            flawed.append(Skipped(choice.secret, f"its entry {dockerconfig.shown_key(choice.key)!r} {why}"))
        else:
            choices.append(choice)
    return Selection(tuple(choices), tuple(unserved), {}, tuple(flawed))


def _why_not_carried(credential: Credential) -> str:
    if credential.identity_token:
        return "has an identity token, which the kubelet cannot hand to containerd: use a user name and password"
    if not credential.username or not credential.password:
        return "has no user name or no password, and containerd takes one only with the other"
    try:
        text(credential)
    except ValueError:
        return "has a user name or password that is not UTF-8, which the kubelet cannot hand to containerd"
    return ""


def text(credential: Credential) -> tuple[str, str]:
    """User name and password. ValueError where either is not UTF-8."""
    return credential.username.decode(), credential.password.decode()
