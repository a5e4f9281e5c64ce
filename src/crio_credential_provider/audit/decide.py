"""One pull: the plugin's decision and ``explain``'s verdict on it, on collected objects, and what they come to here.

Nothing is decided a second time: ``decision.choose``, for containerd ``offer.choose``, says which credential goes
where, ``explanation`` what a pull of that image asks and why a credential is missing. This module gives it an outcome
and a code.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import NamedTuple

from ..errors import ClusterError, ConfigError, ProviderError
from ..explanation import (
    FAILED,
    NODE,
    NODE_HELPER,
    SECRET,
    UNKNOWN,
    NotAsked,
    containerd,
    is_short_name,
    outcome,
    standin,
)
from ..explanation import sources as explained
from ..explanation.records import NO_TABLES, UNSEEN, Asked
from ..explanation.records import Source as Explained
from ..explanation.unusable import Seen, Unusable, find
from ..images import reference
from ..images.dockerconfig import shown_key
from ..images.reference import Reference, ReferenceSyntaxError
from ..kubernetes.credentialprovider import Request
from ..kubernetes.pullsecrets import loads
from ..kubernetes.serviceaccount import ServiceAccount
from ..platform.parsecache import ParseCache
from ..pull import decision, offer
from ..pull.keyring import Keyring
from ..pull.resolution import EXPOSED, Resolution
from ..runtimes.containerd import hosts
from ..runtimes.containerd.config import Configuration as Containerd
from ..runtimes.containerd.hosts import Found
from ..runtimes.crio import registries
from ..runtimes.crio.registries import Configuration
from ..settings import Settings
from .collected import Collected, Seam
from .nodes import NodeClass
from .result import ANONYMOUS, FAILS, NO_MIRROR, NODE_CREDENTIALS, NOT_CHECKED, REASONS, WORKS, Source
from .workloads import ANYWHERE, Want

_POD = "pod"
"""What the pod of a template is called, which has no name yet."""

_TODAY = "today the node's credential is used"

_PERHAPS_NOT_NEEDED = ("no-secret", "wrong-key", "no-role", "secret-missing", "static-pod", "no-token")
"""Reasons that say nothing of whether a mirror requires a credential."""


class Decided(NamedTuple):
    """What a pull comes to; members as of ``result.Pull``."""

    outcome: str
    reason: str = ""
    text: str = ""
    remedy: str = ""
    sources: tuple[Source, ...] = ()
    unchecked: tuple[str, ...] = ()


class Decider:
    """Decides pulls on one cluster, equal ones once.

    Args:
        has_tokens: whether the kubelet sends the plugin a token.
    """

    def __init__(self, collected: Collected, settings: Settings, has_tokens: bool = True) -> None:
        self._collected = collected
        self._settings = settings
        self._has_tokens = has_tokens
        self._keys = collected.keys()
        self._known: dict[object, Decided] = {}
        self._same: dict[Decided, Decided] = {}
        self._hosts: dict[tuple[int, str], Found] = {}

    def decide(self, want: Want, node: NodeClass) -> Decided:
        """The outcome for an image, on a node of a class."""
        try:
            image = reference.parse(want.image)
        except ReferenceSyntaxError as error:
            why = error.message if want.image else "it is empty"
            text = f"the kubelet rejects the image as InvalidImageName: {why}"
            return self._same.setdefault(made := _failed("invalid-image", text), made)
        typed = reference.parse_literal(want.image).name
        # Of tag and digest only counts which of them there is.
        key = want._replace(image=typed, where=ANYWHERE), bool(image.digest), id(node.config)
        if key not in self._known:
            made = self._decide(want, image, typed, node)
            self._known[key] = self._same.setdefault(made, made)
        return self._known[key]

    def _decide(self, want: Want, image: Reference, typed: str, node: NodeClass) -> Decided:
        if not want.is_static and self._collected.is_account_missing(want.namespace, want.account):
            remedy = f"create it, or correct its name: kubectl -n {want.namespace} create serviceaccount {want.account}"
            text = f"service account {want.account} not found in namespace {want.namespace}"
            return Decided(FAILS, "no-service-account", text, remedy)
        config = node.config
        if isinstance(config, ConfigError):
            return _failed("invalid-registries-conf", str(config))
        made, pull, wanted = self._look(want, image, typed, config, self._settings, node.enforcing)
        found = self._outcome(made, pull, wanted)
        if found.outcome != NODE_CREDENTIALS or pull.error is not None or not wanted or want.is_static:
            return found
        if isinstance(config, Containerd):
            return found
        # What is wrong without the node's credential is not looked for with it.
        unseen = copy.copy(self._settings)
        unseen.global_auth_file = ""
        without = self._look(want, image, typed, config, unseen, node.enforcing)[0]
        sources = tuple(
            today._replace(reason=later.reason, text=_today(later.text)) if today.reason else today
            for today, later in zip(found.sources, without.sources, strict=True)
        )
        return found._replace(reason=without.reason, text=_today(without.text), remedy=without.remedy, sources=sources)

    def _look(
        self,
        want: Want,
        image: Reference,
        typed: str,
        config: Configuration | Containerd,
        settings: Settings,
        enforcing: bool,
    ) -> tuple[Decided, _Pull, list[Explained]]:
        account = ServiceAccount(want.namespace, want.account, _POD)
        token = standin.token(account) if self._has_tokens and not want.is_static else ""
        request, seam = Request(image.name, token), Seam(self._collected, want, settings.secrets_from)
        seen = Seen(lambda: seam)
        error: ProviderError | None = None
        resolution = Resolution(Reference(image.domain, image.path), None)
        try:
            resolution = decision.begin(request)
            if isinstance(config, Containerd):
                offer.choose(resolution, self._hosts_for(config, image.domain), request, settings, seen.connect)
            else:
                resolution.config = config
                decision.choose(resolution, config, request, settings, seen.connect)
        except ProviderError as raised:
            error = raised
        spoilt = find(seen, resolution, token, settings)
        if isinstance(config, Containerd):
            asked = containerd.asked_of(resolution, image)
            found = containerd.find_sources(resolution, settings, error, image, typed, spoilt)
            told = containerd.verdict(resolution, error, found, settings, spoilt)
            found = tuple(_passed(source, resolution, config) for source in found)
        else:
            asked = explained.find_asked(config, image, typed, enforcing)
            found = tuple(explained.find_sources(resolution, settings, error, asked, image, typed, spoilt))
            told = outcome.verdict(resolution, error, found, asked, settings, spoilt, NO_TABLES)
        pull = _Pull(want, resolution, error, asked, [source for source in found if source.asked], spoilt)
        wanted = [source for source in pull.sources if source.is_wanted and source.is_open and source.is_reachable]
        sources = tuple(pull.source(source) for source in pull.sources)
        reason = pull.reason(wanted)
        remedy = told.remedy or (REASONS[reason].remedy if reason == "blocked" else "")
        made = Decided(told.status, reason, _nameless(told.text, want), remedy, sources, tuple(seam.unchecked))
        return made, pull, wanted

    def _hosts_for(self, config: Containerd, domain: str) -> Found:
        key = id(config), domain
        if key not in self._hosts:
            self._hosts[key] = hosts.hosts_for(config, domain, ParseCache("", "hosts"))
        return self._hosts[key]

    def _outcome(self, made: Decided, pull: _Pull, wanted: list[Explained]) -> Decided:
        if made.outcome == UNKNOWN:
            return made._replace(outcome=NOT_CHECKED, reason="not-read")
        # A failure of the plugin takes nothing from a pull that asks no mirror.
        is_spared = isinstance(pull.error, ClusterError) and not pull.asked.error and not wanted
        if made.outcome == FAILED and not (is_spared and any(source.is_open for source in pull.sources)):
            if pull.is_node_used(wanted):
                # The plugin fails, and CRI-O reads the node's own auth file.
                return made._replace(outcome=NODE_CREDENTIALS, text=f"{made.text}; {_TODAY}")
            is_perhaps_well = made.reason in _PERHAPS_NOT_NEEDED and wanted and not self._has_anybody(wanted)
            if is_perhaps_well and not self._collected.was_read("Secret", pull.want.namespace):
                return made._replace(outcome=NOT_CHECKED)
            return made._replace(outcome=ANONYMOUS if is_perhaps_well else FAILS)
        if any(source.origin == SECRET for source in wanted):
            return made._replace(outcome=WORKS, reason="", text="", remedy="")
        if wanted or (pull.is_node_used(pull.sources) and not self._has_own(pull)):
            user = next(source for source in (wanted or pull.sources) if source.origin)
            text = f"{user.source.name} gets a credential of the node alone"
            reason = made.reason if wanted and made.reason else "node-credentials"
            remedy = f"create a pull secret in the namespace with a key for {user.host}"
            if pull.want.is_static:
                reason = "static-pod"
                remedy = f"keep a key for {user.host} in the node's own auth file (docs: migrate, step 3)"
            elif not wanted:
                remedy += (
                    ", and name it in the imagePullSecrets of the service account: no mirror is asked for this image"
                )
            return made._replace(outcome=NODE_CREDENTIALS, reason=reason, text=text, remedy=remedy)
        return made._replace(outcome=NO_MIRROR, reason="", text="", remedy="")

    def _has_anybody(self, wanted: Iterable[Explained]) -> bool:
        """Whether any secret of any namespace has a credential for one of these mirrors, or an entry that was meant."""
        return any(source.others or next(self._keys.candidates(source.source.name), None) for source in wanted)

    def _has_own(self, pull: _Pull) -> bool:
        """Whether the kubelet passes a credential for the image's own registry, from imagePullSecrets."""
        want = pull.want
        names = want.secrets
        if not names and not want.is_pod:
            names = self._collected.secrets_of_account(want.namespace, want.account) or ()
        secrets = self._collected.secrets(want.namespace)
        named = loads([secrets[name] for name in names if name in secrets], want.namespace).secrets
        candidates = Keyring(named).candidates(pull.resolution.image.name)
        return any(candidate.credential is not None for candidate in candidates)


class _Pull(NamedTuple):
    """A decided pull, for finding the codes of what is missing; `sources` are those that it asks."""

    want: Want
    resolution: Resolution
    error: ProviderError | None
    asked: Asked
    sources: list[Explained]
    spoilt: tuple[Unusable, ...]

    def is_node_used(self, sources: Iterable[Explained]) -> bool:
        return any(source.is_open and source.origin in (NODE, NODE_HELPER) for source in sources)

    def reason(self, wanted: list[Explained]) -> str:
        """The code of what keeps this pull from a credential of the namespace; "" for nothing."""
        if self.error is not None:
            return _code_of_error(self.error)
        if self.asked.error:
            is_ambiguous = is_short_name(self.want.image) and " is a short name" in self.asked.error
            return "short-name" if is_ambiguous else "invalid-location"
        if self.sources and not any(source.is_open for source in self.sources):
            return "blocked"
        if not wanted:
            dead = any(source.is_open and not source.is_reachable for source in self.sources)
            return "invalid-location" if dead else ""
        if any(source.origin == SECRET for source in wanted):
            return ""
        return EXPOSED if any(map(self._is_exposed, wanted)) else self._code(wanted[0])

    def _is_exposed(self, source: Explained) -> bool:
        """Whether the source has a credential of the namespace that containerd would show to others as well."""
        resolution = self.resolution
        choices = resolution.selection.choices if resolution.selection is not None else ()
        return resolution.code == EXPOSED and any(choice.source == source.source for choice in choices)

    def source(self, source: Explained) -> Source:
        """The record of a source that is asked."""
        code = text = ""
        if source.source.blocked:
            code, text = "blocked", source.reason
        elif source.is_wanted and source.origin != SECRET:
            code = _code_of_error(self.error) if self.error is not None else self._code(source)
            near = source.others[0] if source.others else None
            text = _nameless(source.reason, self.want) or REASONS[code].title
            if near is not None:
                text += f"; secret {near.secret} has the key {shown_key(near.key)}: {near.why}"
        key = shown_key(source.key)
        name, insecure, hosts = source.source.name, source.source.insecure, self.resolution.hosts
        api = containerd.api_of(hosts, source.source, self.resolution.image) if hosts is not None else None
        return Source(name, source.is_wanted, source.origin, source.secret, key, code, text, insecure, api=api)

    def _code(self, source: Explained) -> str:
        """Why a wanted source has no credential of the namespace. The same order as in the verdict's text: the entry
        that comes nearest first, then secrets that hold nothing usable."""
        resolution, config = self.resolution, self.resolution.config
        if config is not None and registries.AUTH_FILE_HELPER not in config.credential_helpers:
            return "no-auth-file-helper"
        if self._is_exposed(source):
            return EXPOSED
        if resolution.account is None:
            return "static-pod" if self.want.is_static else "no-token"
        spoilt = {secret.secret: secret for secret in self.spoilt}
        near = source.others[0] if source.others else None
        if near is not None and near.flawed:
            return "no-credential"
        if near is not None and near.secret in spoilt and spoilt[near.secret].why == near.why:
            return _code_of_secret(spoilt[near.secret])
        meant = next((secret for secret in self.spoilt if secret.was_meant and secret.keyring is None), None)
        if near is None and meant is not None:
            return _code_of_secret(meant)
        return "wrong-key" if resolution.secrets else "no-secret"


def _passed(source: Explained, resolution: Resolution, config: Containerd) -> Explained:
    """A source with what containerd shows there: where the kubelet passes nothing, its own of config.toml."""
    if resolution.offers:
        return source
    if source.host in config.auths:
        return source._replace(origin=NODE, secret="", key="", others=(), others_left=0)
    return source._replace(origin="", secret="", key="", others=(), others_left=0) if source.origin else source


def _today(text: str) -> str:
    return text.replace(UNSEEN, _TODAY)


def _nameless(text: str, want: Want) -> str:
    """Without the name that the pod was given for the decision, which none has."""
    return text.replace(f"pod {want.namespace}/{_POD} ", "the pod ")


def _failed(reason: str, text: str) -> Decided:
    return Decided(FAILS, reason, text, REASONS[reason].remedy)


def _code_of_error(error: ProviderError) -> str:
    if isinstance(error, NotAsked):
        return "not-read"
    if isinstance(error, ConfigError):
        return "invalid-location" if error.rule == "pull-source" else "invalid-registries-conf"
    status = error.status if isinstance(error, ClusterError) else 0
    return {403: "no-role", 404: "no-service-account"}.get(status, "plugin-fails")


def _code_of_secret(secret: Unusable) -> str:
    if not secret.exists:
        return "secret-missing"
    if "imagePullSecrets" in secret.why:
        return "not-named"
    return "wrong-type" if "of type" in secret.why else "unusable-secret"
