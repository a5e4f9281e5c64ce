"""What comes of a decision: the auth file, the answer to the kubelet, what CRI-O does with them, and the verdict."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Container, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..errors import ProviderError
from ..images.dockerconfig import shown_key
from ..kubernetes import credentialprovider
from ..pull import authfile
from ..pull.keyring import oddities
from ..pull.resolution import Resolution
from ..runtimes.crio import registries
from ..settings import POD, SERVICE_ACCOUNT, Settings
from . import near, tables, unusable
from .near import split_key
from .records import (
    FAILED,
    NODE,
    NODE_HELPER,
    PASSED,
    SECRET,
    UNKNOWN,
    UNSEEN,
    Asked,
    AuthFile,
    Match,
    NotAsked,
    Source,
    Tables,
    Verdict,
    auth_file_of_node,
    named_key,
    own_hosts,
)
from .unusable import Unusable

if TYPE_CHECKING:
    from ..kubernetes.credentialprovider import Request


def auth_file(resolution: Resolution, settings: Settings) -> AuthFile | None:
    """The file that the plugin leaves for CRI-O."""
    if resolution.auth_file is None or resolution.account is None:
        return None
    document = json.loads(resolution.auth_file)
    path = os.path.join(settings.auth_dir, authfile.file_name(resolution.account.namespace, resolution.image.name))
    return AuthFile(path, tuple(document["auths"]), document.get("credHelpers", {}))


def answer(resolution: Resolution, request: Request, settings: Settings) -> dict[str, Any]:
    """What the plugin writes to the kubelet, pull record included. Of a credential only its key is shown."""
    auth = {offer.key: ("***", "***") for offer in resolution.offers}
    if resolution.auth_file is not None and not settings.no_pull_record:
        auth = credentialprovider.pull_record(request.image)
    answer: dict[str, Any] = json.loads(credentialprovider.dumps(auth))
    return answer


def steps(
    resolution: Resolution, sources: Iterable[Source], auth_file: AuthFile | None, asked: Asked, settings: Settings
) -> Iterator[str]:
    """What CRI-O does after the plugin's answer, or its failure (docs/reference/contracts.md, 2)."""
    config = resolution.config
    if config is None:
        return
    if asked.error:
        yield f"CRI-O fails this pull: {asked.error}"
        return
    if auth_file is not None:
        yield "CRI-O takes the auth file for this one pull, and reads no other, not even the node's own"
    elif registries.AUTH_FILE_HELPER in config.credential_helpers:
        yield "CRI-O finds no auth file for this pull and reads the node's own, its global_auth_file"
    else:
        lacks = f"credential-helpers lacks {registries.AUTH_FILE_HELPER}"
        yield f"{lacks}: CRI-O reads no auth file, and runs {_programs(config)} for each source instead"
    open_sources = [source for source in sources if source.is_open]
    # Where the spelling is not known, a short name's places may be asked or not, and in another order.
    perhaps = [source for source in open_sources if source.asked is None and source.source.short_name]
    surely = [source for source in open_sources if source not in perhaps]
    own = own_hosts(resolution.image, asked)
    hosts = list(dict.fromkeys(host for source in surely if (host := source.source.name.partition("/")[0]) in own))
    if hosts:
        yield (
            f"if one of the pod's imagePullSecrets has a key for {resolution.image.domain}, the kubelet "
            f"passes that credential: CRI-O uses it at {joined(hosts)} instead of any file"
        )
    for number, source in enumerate(surely):
        when = "if that refuses, does not have the image or does not answer," if number else "first"
        name = source.source.name
        if source.is_reachable:
            yield f"{when} it asks {name}{_which_kinds(source)} {_shown_at(source, config, settings)}"
        else:
            yield f"{when} it tries {name}, and cannot connect: {source.why_unreachable}"
    for source in perhaps:
        name, short_name = source.source.name, source.source.short_name
        yield f"only if the pod uses the short name {short_name}, it asks {name} {_shown_at(source, config, settings)}"
    blocked = [source for source in sources if source.asked is not False and source.source.blocked]
    if blocked:
        yield f"it does not ask {names_of(blocked)}: blocked in registries.conf"


def _which_kinds(source: Source) -> str:
    if source.asked is None and len(source.source.kinds) == 1:
        return f" (for pulls by {source.source.kinds[0]})"
    return ""


def _programs(config: registries.Configuration) -> str:
    return joined([f"docker-credential-{name}" for name in config.credential_helpers])


def _shown_at(source: Source, config: registries.Configuration | None, settings: Settings) -> str:
    if config is not None and registries.AUTH_FILE_HELPER not in config.credential_helpers:
        return f"with the credential from {_programs(config)}"
    if source.origin == SECRET:
        return f"with the credential of secret {source.secret}"
    if source.origin == NODE:
        return "with the node's own credential"
    return (
        "with the credential from the node's credential helper" if source.origin == NODE_HELPER else without(settings)
    )


def without(settings: Settings) -> str:
    return "without a credential" if settings.global_auth_file else "without a credential of the namespace"


# -- verdict ----------------------------------------------------------------------------------------------------------


def exit_status(error: ProviderError | None) -> int | None:
    """The plugin's own; None where it is not known."""
    if error is None:
        return 0
    return None if isinstance(error, NotAsked) else 2 if error.fault == "usage" else 1


def verdict_of_error(error: ProviderError) -> Verdict:
    if isinstance(error, NotAsked):
        return Verdict(UNKNOWN, f"Unknown: {error.message}", error.hint)
    status = exit_status(error)
    consequence = getattr(error, "consequence", "") or "The kubelet continues the pull without credentials"
    return Verdict(FAILED, f"The plugin fails (exit status {status}): {error.message}. {consequence}", error.hint)


def verdict(
    resolution: Resolution,
    error: ProviderError | None,
    sources: tuple[Source, ...],
    asked: Asked,
    settings: Settings,
    spoilt: Iterable[Unusable],
    configured: Tables,
) -> Verdict:
    """Well where a place that wants a credential of the namespace gets one, or there is no such place."""
    if error is not None:
        return verdict_of_error(error)
    if asked.error:
        return Verdict(FAILED, f"CRI-O fails this pull, regardless of the secrets: {asked.error}", asked.remedy)
    usual = [source for source in sources if source.asked or (source.asked is None and not source.source.short_name)]
    if usual and not any(source.is_open for source in usual):
        return Verdict(FAILED, "CRI-O asks no source: every source of this image is blocked in registries.conf")
    dead = [source for source in usual if source.is_open and not source.is_reachable]
    wanted = [source for source in usual if source.is_wanted and source.is_reachable]
    if dead and not wanted:
        return _verdict_of_dead(dead[0], configured.match)
    if not wanted:
        return Verdict(PASSED, _why_none_needed(resolution, sources, configured.match), resolution.hint)
    served = [source for source in wanted if source.origin]
    if not served:
        reason = resolution.reason or first_reason(wanted)
        unseen = "" if settings.global_auth_file or UNSEEN in reason else f"; {UNSEEN}"
        text = f"{names_of(wanted)} {without(settings)}: {reason}{unseen}{nearest(wanted, reason, spoilt)}"
        return Verdict(FAILED, f"CRI-O asks {text}", remedy_of_none(resolution, wanted, settings, spoilt, configured))
    first = served[0]
    late = "" if first is wanted[0] else f"; {wanted[0].source.name}, which CRI-O asks before it, gets none"
    if dead:
        late += f"; to {dead[0].source.name} it cannot connect: {dead[0].why_unreachable}"
    odd, remedy = oddity_at(first, resolution)
    text = f"CRI-O asks {first.source.name} {_shown_at(first, resolution.config, settings)}{late}{odd}"
    host, _, path = first.source.location.partition("/")
    version, _, rest = path.partition("/")
    if version in ("v1", "v2") and configured.match is not None and not remedy:
        text += f"; its location has /{version}/, and CRI-O adds /v2/ before that: /v2/{version}/"
        meant = f'location = "{host}/{rest}"'.replace('/"', '"')
        remedy = f"if that is not found there, in {tables.place(configured.match, first.source.location)} write {meant}"
    return Verdict(PASSED, text, remedy)


def oddity_at(first: Source, resolution: Resolution) -> tuple[str, str]:
    """What a credential was not meant to be, for the end of a sentence, and what to do; "" for nothing."""
    for choice in resolution.selection.choices if resolution.selection is not None else ():
        if choice.source.name == first.source.name and choice.secret and (odd := oddities(choice.credential)):
            better = "with one" if odd[0].endswith("is empty") else "without that"
            remedy = f"if it is refused there, write the credential for {first.host} in secret {choice.secret} {better}"
            return f"; {odd[0]}", remedy
    return "", ""


def names_of(sources: list[Source]) -> str:
    return joined([source.source.name for source in sources])


def joined(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def first_reason(wanted: list[Source]) -> str:
    return next((source.reason for source in wanted if source.reason), "none was looked for")


def _verdict_of_dead(source: Source, match: Match | None) -> Verdict:
    """Of a pull whose only place besides the image's own, or whose own, has no host."""
    where = tables.place(match, source.source.location)
    is_configured = match is not None and bool(source.source.location)
    remedy = f"correct the location at {where}: {source.host!r}" if is_configured else "correct the pod's image"
    return Verdict(FAILED, f"CRI-O cannot connect to {source.source.name}: {source.why_unreachable}", remedy)


def nearest(wanted: list[Source], reason: str, spoilt: Iterable[Unusable]) -> str:
    """The nearest miss: the mistake that somebody most likely made, where the reason does not tell it."""
    others = wanted[0].others
    if not others and "is not used: " not in reason:
        return next((f". Secret {s.secret}: {s.why}" for s in spoilt if s.was_meant and s.keyring is None), "")
    if others and f"secret {others[0].secret} " in reason:
        return ""
    return f". Secret {others[0].secret} has the key {named_key(others[0].key)}: {others[0].why}" if others else ""


def remedy_of_none(
    resolution: Resolution,
    wanted: list[Source],
    settings: Settings,
    spoilt: Iterable[Unusable],
    configured: Tables,
) -> str:
    """A secret that would do, where secrets were looked for; else what keeps them from being looked for."""
    account, config, source = resolution.account, resolution.config, wanted[0]
    host = source.host
    if config is not None and registries.AUTH_FILE_HELPER not in config.credential_helpers:
        helpers = ", ".join(f'"{name}"' for name in (registries.AUTH_FILE_HELPER, *config.credential_helpers))
        place = tables.place_of_helpers(configured.files)
        return f"in {place} write credential-helpers = [{helpers}], and reload CRI-O"
    if account is None:
        return (
            f"for a static pod add a key for {host} to {auth_file_of_node(settings)}; for "
            "any other pod add tokenAttributes to the plugin's entry in the CredentialProviderConfig"
        )
    if resolution.selection is None:
        return resolution.hint
    holders = {POD: "the pod", SERVICE_ACCOUNT: f"service account {account.name}"}
    named = holders.get(settings.secrets_from, "")
    where = f", named in the imagePullSecrets of {named}" if named else ""
    by_name = {secret.secret: secret for secret in spoilt}
    missing = next((secret.secret for secret in by_name.values() if not secret.exists), "")
    others = [other for source in wanted for other in source.others]
    taken = {secret.name for secret in resolution.secrets}.union(by_name)
    for other in others:
        copied = by_name.get(other.secret)
        if other.flawed or copied is None:
            continue
        if copied.content is None:
            instead = f" in place of {missing}" if missing else ""
            return f"add {other.secret} to the imagePullSecrets of {named}{instead}"
        command = unusable.copy(other.secret, copied.content, _free(other.secret, taken), account.namespace)
        return f"create a pull secret from the content of secret {other.secret}{where}: {command}"
    meant = [other.secret for other in others if other.flawed]
    if not others:
        meant += [secret.secret for secret in by_name.values() if secret.keyring is None and secret.was_meant]
    if meant and meant[0] == missing:
        return f"create secret {missing}, with a key for {host}: {_create(account.namespace, missing, host)}"
    create = _create(account.namespace, shlex.quote(_free(meant[0], taken)) if meant else "NAME", host)
    mended = _mended_key(source, configured.match)
    return f"{mended}create a pull secret in the namespace with a key for {host}{where}: {create}"


def _free(name: str, taken: Container[str]) -> str:
    """A name for a secret in place of another, which stays: it may hold what others use."""
    while name in taken:
        name += "-pull"
    return name


def _create(namespace: str, name: str, host: str) -> str:
    return (
        f"kubectl -n {namespace} create secret docker-registry {name} --docker-server={host} --docker-username=USER "
        "--docker-password=PASSWORD"
    )


def _mended_key(source: Source, match: Match | None) -> str:
    """What the nearest miss should be, where its reason tells."""
    nearest = source.others[0] if source.others else None
    if nearest is None or ": write " not in nearest.why:
        return ""
    meant = nearest.why.rpartition(": write ")[2]
    remedy = f"in secret {nearest.secret} write the key {meant} in place of {named_key(nearest.key)}; or "
    its_host, location = split_key(nearest.key)[0], source.source.location
    is_told = "*" not in its_host and shown_key(its_host) == its_host
    if near.PORT_COUNTS in nearest.why and is_told and location.startswith(source.host):
        right = f'location = "{its_host}{location[len(source.host) :]}"'
        remedy += f"if that is the mirror's port, in {tables.place(match, location)} write {right}; or "
    return remedy


def _only(source: Source, match: Match | None) -> str:
    """Which pulls a mirror serves alone, by what in which line."""
    if match is None or len(source.source.kinds) != 1:
        return ""
    kind, location, key = source.source.kinds[0], source.source.location, "mirror-by-digest-only"
    if match.registry.mirror_by_digest_only:
        location, value = match.registry.location, "true"
    else:
        key, value = "pull-from-mirror", f'"{kind}-only"'
    return f"serves only pulls by {kind}, because of {key} = {value} at {tables.place(match, location, key)}"


def _why_none_needed(resolution: Resolution, sources: tuple[Source, ...], match: Match | None) -> str:
    for source in sources:
        if source.is_wanted:
            return f"This pull asks no mirror: {source.source.name} {_only(source, match) or 'is for other pulls'}"
    return f"The plugin has nothing to do: {resolution.reason}" if resolution.reason else "No mirror is asked"
