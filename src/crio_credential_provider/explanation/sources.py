"""The places that a pull asks, the credential of each, and the entries that lost or nearly fit."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from itertools import islice

from ..errors import ConfigError, ProviderError
from ..images import reference
from ..images.dockerconfig import shown_key
from ..images.reference import Reference
from ..pull import decision, keyring
from ..pull.keyring import Candidate, Choice, Selection
from ..pull.resolution import Resolution, is_wanted
from ..runtimes.crio import pullsources, registries
from ..runtimes.crio.registries import Configuration
from ..runtimes.crio.registriestext import Ignored
from ..runtimes.pullsource import DIGEST, TAG, PullSource
from ..settings import Settings
from . import near
from .records import (
    MOST_TOLD,
    NOBODY,
    NODE,
    NODE_HELPER,
    RUN_AS_ROOT,
    SECRET,
    UNDECIDED,
    UNSEEN,
    Asked,
    NotAsked,
    OtherKey,
    Source,
    is_short_name,
    named_key,
)
from .unusable import Unusable

_MOST_ALIKE = 200
"""Keys of one secret in which near misses are looked for: it may have 20,000, which all resemble a mirror's host."""


def find_asked(
    config: Configuration, image: Reference, typed: str, enforcing: bool, ignored: tuple[Ignored, ...] = ()
) -> Asked:
    """What CRI-O takes the pod's spelling for, and the places that it asks in turn.

    Args:
        enforcing: whether it refuses a short name that may mean several.
        ignored: what it ignores in the files.
    """
    candidates: tuple[Reference, ...] = (image,)
    if typed and is_short_name(typed):
        spelling = reference.parse_literal(typed).name
        resolved = pullsources.resolve_short_name(config, spelling)
        candidates = tuple(Reference(found.domain, found.path, image.tag, image.digest) for found in resolved)
        if not candidates:
            missing = "no alias for it and no unqualified-search-registries"
            lost = next((found for found in ignored if found.key in ("unqualified-search-registries", "aliases")), None)
            unheeded = f"; CRI-O ignores {lost.key} at {lost.place}: {lost.text}" if lost else ""
            remedy = lost.remedy if lost else _spell(image)
            return Asked((), (), f"{spelling} is a short name, and registries.conf has {missing}{unheeded}", remedy)
        if enforcing and len(candidates) > 1:
            several = "registries.conf has more than one search registry, and CRI-O's short_name_mode is enforcing"
            return Asked(candidates, (), f"{spelling} is a short name, {several}", _spell(image))
    found: dict[str, PullSource] = {}
    errors: list[ConfigError] = []
    for candidate in candidates:
        try:
            for source in pullsources.pull_sources(config, candidate):
                found.setdefault(source.name, source)
        except ConfigError as error:
            errors.append(error)
    if len(errors) == len(candidates):
        return Asked(candidates, tuple(found.values()), errors[0].message, errors[0].hint)
    return Asked(candidates, tuple(found.values()), "")


def _spell(image: Reference) -> str:
    return f"write the image name in full, {image.name}, or add an alias to registries.conf"


def _why_not_asked(source: PullSource, image: Reference, typed: str) -> str:
    if source.short_name and not is_short_name(typed):
        return f"CRI-O only asks it for the short name {source.short_name}"
    kind = DIGEST if image.digest else TAG
    if kind not in source.kinds:
        return f"it only serves pulls by {' and '.join(source.kinds)}, and this is a pull by {kind}"
    return "the pod's short name resolves to another source"


def notes_on_node(resolution: Resolution, settings: Settings) -> Iterator[str]:
    """What keeps the node's own auth file from being read, where the decision does not warn of it."""
    path = settings.global_auth_file
    for warning in decision.global_config(path)[1] if resolution.config is not None else ():
        if os.geteuid() and warning.endswith(os.strerror(errno.EACCES)):
            yield f"this user may not read {path}: the node's own credentials are not shown; {RUN_AS_ROOT}"
        elif resolution.selection is None:
            yield warning


def notes_on_padding(resolution: Resolution) -> Iterator[str]:
    """Entries that the auth file has in another form than the secret."""
    choices = resolution.selection.choices if resolution.selection is not None else ()
    for secret, key in dict.fromkeys((choice.secret, choice.key) for choice in choices if not choice.is_padded):
        yield f"secret {secret}, key {named_key(key)}: its auth has no base64 padding; read as by the kubelet"


# -- sources and their credentials ------------------------------------------------------------------------------------


def find_sources(
    resolution: Resolution,
    settings: Settings,
    error: ProviderError | None,
    asked: Asked,
    image: Reference | None,
    typed: str,
    spoilt: Iterable[Unusable],
) -> Iterator[Source]:
    """Those that this pull asks, in order, then the others; all where that is not known."""
    accounts = _Accounts(resolution, settings, error, spoilt)
    if asked.sources is None or image is None:
        for source in resolution.sources:
            yield accounts.of(source, None, "")
        return
    known = {source.name: source for source in resolution.sources}
    for source in asked.sources:
        # For the whole repository, where the core knows it: what it serves is told as well.
        yield accounts.of(known.get(source.name, source), True, "")
    names = {source.name for source in asked.sources}
    for source in resolution.sources:
        if source.name not in names:
            why = "CRI-O fails this pull before it asks any source" if asked.error else ""
            yield accounts.of(source, False, why or _why_not_asked(source, image, typed))


class _Accounts:
    """Looks up what was decided for a source, and what nearly was."""

    def __init__(
        self, resolution: Resolution, settings: Settings, error: ProviderError | None, spoilt: Iterable[Unusable]
    ) -> None:
        self._spoilt = tuple(spoilt)
        self._resolution = resolution
        self._settings = settings
        self._keyring = keyring.Keyring(resolution.secrets)
        self._count = sum(len(secret.config.auths) for secret in resolution.secrets)
        self._looked_at = [
            (secret.name, key) for secret in resolution.secrets for key in islice(secret.config.auths, _MOST_ALIKE)
        ]
        self._undecided = isinstance(error, NotAsked)
        nothing = Selection((), (), {}, ())
        self._selection = resolution.selection or (nothing if self._undecided else self._of_node())

    def _of_node(self) -> Selection:
        """What CRI-O finds in the node's own auth file, where no secret was looked for."""
        resolution = self._resolution
        readable = resolution.config is not None and registries.AUTH_FILE_HELPER in resolution.config.credential_helpers
        sources = resolution.sources if readable else ()
        config, _ = decision.global_config(self._settings.global_auth_file)
        return keyring.select(sources, (), config, lambda source: True)

    def of(self, source: PullSource, asked: bool | None, why_not: str) -> Source:
        """A source with its credential, or the reason why it has none."""
        resolution, settings, name = self._resolution, self._settings, source.name
        wanted = is_wanted(source, resolution.image, settings)
        choice = next((choice for choice in self._selection.choices if choice.source.name == name), None)
        host = name.partition("/")[0]
        if choice is None:
            origin = NODE_HELPER if host in self._selection.cred_helpers and not source.blocked else NOBODY
            others, left = self._nearly(source, wanted)
            return Source(source, asked, why_not, wanted, origin, "", "", self._reason(source), others, left)
        origin = SECRET if choice.secret else NODE
        others, left = self._lost(choice) if choice.secret else self._nearly(source, wanted)
        return Source(source, asked, why_not, wanted, origin, choice.secret, choice.key, "", others, left)

    def _reason(self, source: PullSource) -> str:
        """The core's own words; "" where it looked for none."""
        if self._undecided and not source.blocked:
            return UNDECIDED
        unseen = "" if self._settings.global_auth_file else UNSEEN
        if self._resolution.selection is None:
            return "CRI-O does not ask it: it is blocked in registries.conf" if source.blocked else unseen
        unserved = self._resolution.selection.unserved
        reason = next((entry.reason for entry in unserved if entry.source.name == source.name), "")
        return reason.replace(keyring.NONE_ON_NODE, f"; {unseen}") if unseen else reason

    def _lost(self, choice: Choice) -> tuple[tuple[OtherKey, ...], int]:
        others = [
            candidate
            for candidate in self._keyring.candidates(choice.source.name)
            if (candidate.secret, candidate.key) != (choice.secret, choice.key)
        ]
        told = [OtherKey(other.secret, other.key, _why_lost(choice, other)) for other in others[:MOST_TOLD]]
        return tuple(told), len(others) - len(told)

    def _nearly(self, source: PullSource, wanted: bool) -> tuple[tuple[OtherKey, ...], int]:
        """Entries without a credential, then those of secrets that are not used, then near misses, nearest first; the
        rest is counted."""
        if not wanted or self._resolution.selection is None:
            return (), 0
        candidates = self._keyring.candidates(source.name)
        flawed = [OtherKey(c.secret, c.key, f"it {c.flaw}", flawed=True) for c in candidates if c.flaw]
        known = {(other.secret, other.key) for other in flawed}
        found: list[tuple[int, OtherKey]] = []
        for secret, key in self._looked_at:
            why = None
            if (secret, key) not in known:
                why = near.why_key(key, source.name, self._resolution.image.domain)
            if why is not None:
                found.append((why[0], OtherKey(secret, key, why[1])))
        found.sort(key=lambda pair: pair[0])
        keys = [(spoilt, spoilt.key_for(source.name)) for spoilt in self._spoilt]
        unused = [OtherKey(spoilt.secret, key, spoilt.why) for spoilt, key in keys if key is not None]
        told = [*flawed, *unused, *(other for _, other in found)][:MOST_TOLD]
        return tuple(told), self._count + len(unused) - len(told)


def _why_lost(choice: Choice, other: Candidate) -> str:
    """Why an entry that serves a source as well is not taken."""
    if other.flaw:
        return f"it {other.flaw}"
    if other.key == choice.key:
        return f"same key, and secret {choice.secret} comes first"
    order = ("an exact key", "a key written as a URL or with another name of the host", "a glob")
    its, taken = (_kind(key, choice.source.name) for key in (other.key, choice.key))
    if its == taken == 0:
        return f"it is less specific than {shown_key(choice.key)}"
    if its == taken:
        return f"{order[its]}: {shown_key(choice.key)} is more specific, or in an earlier secret"
    return f"{order[its]} comes after {order[taken]}"


def _kind(key: str, repository: str) -> int:
    """0 a key as it stands, 1 one written as a URL or by another name of the host, 2 a glob."""
    if repository == key or repository.startswith(f"{key}/"):
        return 0
    return 2 if "*" in near.split_key(key)[0] else 1
