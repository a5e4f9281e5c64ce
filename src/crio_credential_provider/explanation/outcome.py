"""What comes of a decision: the auth file, the answer to the kubelet, what CRI-O does with them, and the verdict."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .. import authfile, credentialprovider, registries
from ..dockerconfig import shown_key
from ..errors import ProviderError
from ..keyring import credential_of, oddities
from ..provider import Resolution
from ..settings import POD, SERVICE_ACCOUNT, Settings
from .records import (
    NODE,
    NODE_HELPER,
    SECRET,
    UNKNOWN,
    UNWELL,
    WELL,
    Asked,
    AuthFile,
    Match,
    NotAsked,
    Source,
    Verdict,
    own_hosts,
)
from .unusable import Unusable

if TYPE_CHECKING:
    from ..credentialprovider import Request


def auth_file(resolution: Resolution, settings: Settings) -> AuthFile | None:
    """The file that the plugin leaves for CRI-O."""
    if resolution.auth_file is None or resolution.account is None:
        return None
    document = json.loads(resolution.auth_file)
    path = os.path.join(settings.auth_dir, authfile.file_name(resolution.account.namespace, resolution.image.name))
    return AuthFile(path, tuple(document["auths"]), document.get("credHelpers", {}))


def answer(resolution: Resolution, request: Request, settings: Settings) -> dict[str, Any]:
    """What the plugin writes to the kubelet, pull record included."""
    recorded = resolution.auth_file is not None and not settings.no_pull_record
    answer: dict[str, Any] = json.loads(credentialprovider.dumps(request.image if recorded else None))
    return answer


def steps(resolution: Resolution, sources: Iterable[Source], auth_file: AuthFile | None, asked: Asked) -> Iterator[str]:
    """What CRI-O does after the plugin's answer, or its failure (docs/contracts.md, 2)."""
    config = resolution.config
    if config is None:
        return
    if asked.error:
        yield f"CRI-O fails this pull: {asked.error}"
        return
    if auth_file is not None:
        yield "CRI-O takes the auth file for this one pull, and then reads no other, not even the node's own"
    elif registries.AUTH_FILE_HELPER in config.credential_helpers:
        yield "CRI-O finds no auth file of this pull and reads the node's own, its global_auth_file"
    else:
        lacks = f"credential-helpers lacks {registries.AUTH_FILE_HELPER}"
        yield f"{lacks}: CRI-O reads no auth file at all, and runs {_programs(config)} for each place instead"
    open_sources = [source for source in sources if source.is_open]
    # Where the spelling is not known, a short name's places may be asked or not, and in another order.
    perhaps = [source for source in open_sources if source.asked is None and source.source.short_name]
    surely = [source for source in open_sources if source not in perhaps]
    own = own_hosts(resolution.image, asked)
    hosts = list(dict.fromkeys(host for source in surely if (host := source.source.name.partition("/")[0]) in own))
    if hosts:
        yield (
            f"where one of the pod's imagePullSecrets has a key for {resolution.image.domain}, the kubelet hands that "
            f"credential over: CRI-O shows it at {_joined(hosts)}, ahead of any file"
        )
    for number, source in enumerate(surely):
        when = "if that refuses, has no such image or does not answer," if number else "first"
        name = source.source.name
        if source.is_reachable:
            yield f"{when} it asks {name}{_which_kinds(source)} {_shown_at(source, config)}"
        else:
            yield f"{when} it tries {name}, and cannot connect: {_why_dead(source)}"
    for source in perhaps:
        name, short_name = source.source.name, source.source.short_name
        yield f"only where the pod spells the short name {short_name}, it asks {name} {_shown_at(source, config)}"
    blocked = [source for source in sources if source.asked is not False and source.source.blocked]
    if blocked:
        yield f"it does not ask {_names(blocked)}: blocked in registries.conf"


def _which_kinds(source: Source) -> str:
    if source.asked is None and len(source.source.kinds) == 1:
        return f" (for pulls by {source.source.kinds[0]})"
    return ""


def _programs(config: registries.Configuration) -> str:
    return _joined([f"docker-credential-{name}" for name in config.credential_helpers])


def _shown_at(source: Source, config: registries.Configuration | None) -> str:
    if config is not None and registries.AUTH_FILE_HELPER not in config.credential_helpers:
        return f"with what {_programs(config)} has"
    if source.origin == SECRET:
        return f"with the credential of secret {source.secret}"
    if source.origin == NODE:
        return "with the node's own credential"
    return "through the node's credential helper" if source.origin == NODE_HELPER else "without a credential"


# -- verdict ----------------------------------------------------------------------------------------------------------


def exit_status(error: ProviderError | None) -> int | None:
    """The plugin's own; None where it is not known."""
    if error is None:
        return 0
    return None if isinstance(error, NotAsked) else 2 if error.fault == "usage" else 1


def verdict_of_error(error: ProviderError) -> Verdict:
    if isinstance(error, NotAsked):
        return Verdict(UNKNOWN, f"Not decided: {error.message}", error.hint)
    status = exit_status(error)
    consequence = getattr(error, "consequence", "") or "The kubelet goes on pulling without credentials"
    return Verdict(UNWELL, f"The plugin fails (exit status {status}): {error.message}. {consequence}", error.hint)


def verdict(
    resolution: Resolution,
    error: ProviderError | None,
    sources: tuple[Source, ...],
    asked: Asked,
    settings: Settings,
    spoilt: Iterable[Unusable],
    match: Match | None,
) -> Verdict:
    """Well where a place that wants a credential of the namespace gets one, or there is no such place."""
    if error is not None:
        return verdict_of_error(error)
    if asked.error:
        return Verdict(UNWELL, f"CRI-O fails this pull, whatever the secrets hold: {asked.error}", asked.remedy)
    usual = [source for source in sources if source.asked or (source.asked is None and not source.source.short_name)]
    if usual and not any(source.is_open for source in usual):
        return Verdict(UNWELL, "CRI-O asks nobody: every place for this image is blocked in registries.conf")
    dead = [source for source in usual if source.is_open and not source.is_reachable]
    wanted = [source for source in usual if source.is_wanted and source.is_reachable]
    if dead and not wanted:
        return _verdict_of_dead(dead[0], match)
    if not wanted:
        return Verdict(WELL, _why_none_needed(resolution, sources))
    served = [source for source in wanted if source.origin]
    if not served:
        reason = resolution.reason or _first_reason(wanted)
        text = f"{_names(wanted)} without a credential: {reason}{_nearest(wanted, reason, spoilt)}"
        return Verdict(UNWELL, f"CRI-O asks {text}", _remedy(resolution, wanted, settings, spoilt))
    first = served[0]
    late = "" if first is wanted[0] else f"; {wanted[0].source.name}, which CRI-O asks before it, gets none"
    if dead:
        late += f"; to {dead[0].source.name} it cannot connect: {_why_dead(dead[0])}"
    text, remedy = f"CRI-O asks {first.source.name} {_shown_at(first, resolution.config)}{late}", ""
    for choice in resolution.selection.choices if resolution.selection is not None else ():
        if choice.source.name == first.source.name and choice.secret and (odd := oddities(choice.credential)):
            text += f"; {odd[0]}"
            remedy = (
                f"if it is refused there, write the credential for {first.host} in secret {choice.secret} without that"
            )
    return Verdict(WELL, text, remedy)


def _names(sources: list[Source]) -> str:
    return _joined([source.source.name for source in sources])


def _joined(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _first_reason(wanted: list[Source]) -> str:
    return next((source.reason for source in wanted if source.reason), "none was looked for")


def _why_dead(source: Source) -> str:
    return f"{source.host!r} is not a host name, which has letters, digits, '-' and '.' alone"


def _verdict_of_dead(source: Source, match: Match | None) -> Verdict:
    """Of a pull whose only place besides the image's own, or whose own, has no host."""
    where = f" of the table at {match.table.file}:{match.table.line}" if match is not None and match.table.line else ""
    remedy = f"correct the location{where}: {source.host!r}" if source.source.location else "correct the pod's image"
    return Verdict(UNWELL, f"CRI-O cannot connect to {source.source.name}: {_why_dead(source)}", remedy)


def _nearest(wanted: list[Source], reason: str, spoilt: Iterable[Unusable]) -> str:
    """The nearest miss: the mistake that somebody most likely made, where the reason does not tell it."""
    others = wanted[0].others
    if not others and "is not used: " not in reason:
        return next((f". Secret {s.secret}: {s.why}" for s in spoilt if s.was_meant and s.keyring is None), "")
    if others and f"secret {others[0].secret} " in reason:
        return ""
    return f". Secret {others[0].secret} has the key {shown_key(others[0].key)}: {others[0].why}" if others else ""


def _remedy(resolution: Resolution, wanted: list[Source], settings: Settings, spoilt: Iterable[Unusable]) -> str:
    """A secret that would do, where secrets were looked for; else what keeps them from being looked for."""
    account, config, source = resolution.account, resolution.config, wanted[0]
    host = source.host
    if config is not None and registries.AUTH_FILE_HELPER not in config.credential_helpers:
        return f"add {registries.AUTH_FILE_HELPER} to credential-helpers in registries.conf, and reload CRI-O"
    if account is None:
        return (
            f"for a static pod give the node's own auth file {settings.global_auth_file} a key for {host}; for any "
            "other give the plugin's entry in the CredentialProviderConfig tokenAttributes"
        )
    if resolution.selection is None:
        return ""
    again = _made_again(resolution, wanted, spoilt, account.namespace)
    if again:
        return again
    holders = {POD: "the pod", SERVICE_ACCOUNT: f"service account {account.name}"}
    named = holders.get(settings.secrets_from)
    where = f", named in the imagePullSecrets of {named}" if named else ""
    create = _create(account.namespace, "NAME", host)
    return f"{_mended_key(source)}give the namespace a pull secret with a key for {host}{where}: {create}"


def _create(namespace: str, name: str, host: str) -> str:
    return (
        f"kubectl -n {namespace} create secret docker-registry {name} --docker-server={host} --docker-username=USER "
        "--docker-password=PASSWORD"
    )


def _made_again(resolution: Resolution, wanted: list[Source], spoilt: Iterable[Unusable], namespace: str) -> str:
    """How to make that secret again which was meant to serve; "" where there is none, or it has other entries."""
    by_name = {secret.secret: secret for secret in spoilt}
    others = [other for source in wanted for other in source.others]
    for other in others:
        if not other.flawed and other.secret in by_name and by_name[other.secret].remedy:
            return by_name[other.secret].remedy
    useful = {
        secret.name for secret in resolution.secrets if any(credential_of(e)[0] for e in secret.config.auths.values())
    }
    names = [other.secret for other in others if other.flawed and other.secret not in useful]
    if not others:
        names += [secret.secret for secret in by_name.values() if secret.keyring is None and secret.was_meant]
    if not names:
        return ""
    exists = names[0] not in by_name or by_name[names[0]].exists
    delete = f"kubectl -n {namespace} delete secret {shlex.quote(names[0])} --ignore-not-found && " if exists else ""
    create = _create(namespace, shlex.quote(names[0]), wanted[0].host)
    return f"make secret {names[0]}{' again' if exists else ''}, with a key for {wanted[0].host}: {delete}{create}"


def _mended_key(source: Source) -> str:
    """What the nearest miss should be, where its reason tells."""
    nearest = source.others[0] if source.others else None
    if nearest is None or ": write " not in nearest.why:
        return ""
    meant = nearest.why.rpartition(": write ")[2]
    return f"in secret {nearest.secret} write the key {meant} in place of {shown_key(nearest.key)}; or "


def _why_none_needed(resolution: Resolution, sources: tuple[Source, ...]) -> str:
    if any(source.is_wanted for source in sources):
        return "This pull asks no mirror: those that registries.conf has for the image are for other pulls"
    return f"The plugin has nothing to do: {resolution.reason}" if resolution.reason else "No mirror is asked"
