"""What a registry's answer means for one pull, and all answers together: whose mistake it is, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ... import registryclient, settings
from ...explanation import NODE_HELPER, SECRET, Explanation, Source, auth_file_of_node, named_key
from ...pull.resolution import may_use_secrets
from ...registryclient import Verdict
from ..request.handedover import HandedOver
from .shown import KUBELET, is_own

BLOCKED, NOT_ASKED, UNKNOWN = "blocked", "not-asked", "unknown"
"""Outcomes of sources that were not asked, or whose answer says nothing about the pull."""


class Checked(NamedTuple):
    """A source with what came of it.

    Attributes:
        source: with its credential's origin.
        outcome: one of ``registryclient.OUTCOMES``, or of the above.
        evidence, remedy: for people; "" where there is nothing to add.
        verdict: the registry's; None where it was not asked.
        needed: whether the pull comes here: no source before it serves.
    """

    source: Source
    outcome: str
    evidence: str
    remedy: str
    verdict: Verdict | None
    needed: bool


def check(source: Source, verdict: Verdict | None, needed: bool, explained: Explanation) -> Checked:
    """A source's answer as part of this pull.

    Args:
        needed: whether no source before it serves.
    """
    if source.asked is False:
        return Checked(source, NOT_ASKED, source.why_not, "", None, False)
    if source.source.blocked:
        return Checked(source, BLOCKED, "CRI-O does not ask it: it is blocked in registries.conf", "", None, False)
    if not source.is_reachable:
        evidence = f"{explained.runtime} cannot connect: {source.why_unreachable}"
        return Checked(source, NOT_ASKED, evidence, "", None, False)
    if verdict is None:
        return Checked(source, NOT_ASKED, "CRI-O fails this pull before it asks", "", None, False)
    if verdict.outcome == registryclient.OK and source.origin == NODE_HELPER:
        evidence = (
            "a registry answers; CRI-O gets the credential from the node's credential helper, which verify does not run"
        )
        return Checked(source, UNKNOWN, evidence, "", verdict, needed)
    outcome = UNKNOWN if verdict.undecided else verdict.outcome
    if verdict.cause == "no-credential" and is_left_to_containerd(source, explained):
        evidence = f"{verdict.evidence}; containerd has a credential for it in config.toml, which verify does not read"
        return Checked(source, UNKNOWN, evidence, "try the pull on the node: crictl pull", verdict, needed)
    if verdict.cause == "no-credential" and not holder(source):
        evidence = f"{verdict.evidence}; {_why_none(source, explained)}"
        return Checked(source, outcome, evidence, _remedy_of_none(source, explained), verdict, needed)
    return Checked(source, outcome, verdict.evidence, _remedy(source, verdict), verdict, needed)


def is_left_to_containerd(source: Source, explained: Explanation) -> bool:
    """Whether containerd shows a credential of its own there: it does where the kubelet passes none."""
    is_passed = explained.resolution is not None and bool(explained.resolution.offers)
    return explained.hosts is not None and source.host in explained.hosts.node_hosts and not is_passed


def is_left_to_the_kubelet(found: Checked, explained: Explanation) -> bool:
    """Whether a source only lacks a credential that the kubelet may have from the pod's imagePullSecrets: no secret was
    looked through for it."""
    resolution = explained.resolution
    if resolution is None or resolution.account is None or explained.error is not None:
        return False
    looked = resolution.selection is not None and may_use_secrets(found.source.source, explained.settings)
    lacks = found.verdict is not None and found.verdict.cause == "no-credential"
    return not looked and lacks and is_own(found.source, explained)


def left_to_the_kubelet(found: Checked, handed: Sequence[HandedOver] | str) -> Checked:
    """The same with what the kubelet hands over, or why that is not known."""
    host = found.source.source.name.partition("/")[0]
    remedy = f"add a key for {host} to a pull secret in the pod's imagePullSecrets"
    answered = found.verdict.evidence if found.verdict is not None else found.evidence
    if not isinstance(handed, str):
        evidence = f"{answered}; the pod's imagePullSecrets, which the kubelet passes, have none for {host}"
        return found._replace(evidence=evidence, remedy=remedy)
    return found._replace(
        outcome=UNKNOWN,
        evidence=f"{answered}; the plugin writes none for {host}, and whether the kubelet passes one "
        f"is not known: {handed}",
        remedy=f"{remedy}, and give the pod with --pod; --mirror-registry {host} tries the namespace's secrets",
    )


def is_out_of_reach(found: Checked, before: Sequence[Checked]) -> bool:
    """Whether another machine may reach what this one cannot: any mirror, and the mirrored registry itself as long as
    no mirror has answered."""
    answered = any(other.verdict is not None and other.outcome != UNKNOWN for other in before)
    return found.outcome in (registryclient.DNS, registryclient.CONNECT) and not (
        found.source.source.primary and answered
    )


def out_of_reach(found: Checked) -> Checked:
    """The same on a machine that is not the node."""
    what = "cannot be resolved" if found.outcome == registryclient.DNS else "cannot be reached"
    evidence = f"{what} from this machine, which is not the node: {found.evidence}"
    return found._replace(outcome=UNKNOWN, evidence=evidence, remedy="run verify on the node")


def _remedy(source: Source, verdict: Verdict) -> str:
    """What to do, and in which secret: the registry's verdict knows of none."""
    place = holder(source)
    if verdict.cause == "refused" and verdict.outcome == registryclient.UNAUTHORIZED:
        return f"{place}: write the current credential there, if it was rotated or mistyped"
    if verdict.cause in ("first-scheme", "no-credential") and place:
        return f"{place}: {verdict.remedy}"
    if verdict.cause == "not-allowed" and place:
        return f"{place}: check that its user may pull this repository, and that the repository exists"
    return verdict.remedy


def _why_none(source: Source, explained: Explanation) -> str:
    """Why a source gets no credential: the entry that somebody most likely meant for it, else the core's reason."""
    resolution = explained.resolution
    assert resolution is not None
    if source.others:
        other = source.others[0]
        return f"secret {other.secret} has the key {named_key(other.key)}, but {other.why}"
    if explained.error is not None:
        return "the plugin fails, so that none is written for it"
    # The plugin's reason tells of secrets that are not used.
    reason = resolution.reason if resolution.skipped and source.is_wanted else source.reason
    return reason or resolution.reason or "the plugin looks for none"


def _remedy_of_none(source: Source, explained: Explanation) -> str:
    """What to do where no credential was found, or none was looked for."""
    resolution, chosen = explained.resolution, explained.settings
    assert resolution is not None
    if explained.error is not None:
        return explained.error.hint
    if resolution.hint:
        return resolution.hint
    account = resolution.account
    key = f"add a key for {source.host} to"
    of_node = f"{key} {auth_file_of_node(chosen)}"
    if account is None:
        return explained.verdict.remedy or of_node
    if not may_use_secrets(source.source, chosen):
        # containerd reads no auth file of the node's.
        or_node = "" if chosen.runtime == settings.CONTAINERD else f"{of_node}, or "
        return f"{or_node}give the plugin --mirror-registry {source.host}"
    holders = {
        settings.POD: f"pod {account.pod}",
        settings.SERVICE_ACCOUNT: f"service account {account.name}",
    }
    if chosen.secrets_from in holders:
        who = holders[chosen.secrets_from]
        return f"{key} a pull secret that {who} names in its imagePullSecrets (a key in any other secret is not used)"
    return f"{key} a pull secret of namespace {account.namespace}"


def holder(source: Source) -> str:
    """Where a source's credential stands."""
    if source.origin in (SECRET, KUBELET):
        return f"secret {source.secret}, key {named_key(source.key)}"
    return f"the node's auth file, key {named_key(source.key)}" if source.key else ""


def succeeds(checked: Sequence[Checked]) -> bool | None:
    """Whether the pull does; None where that cannot be known."""
    if any(found.outcome == registryclient.OK for found in checked):
        return True
    return None if any(found.outcome == UNKNOWN for found in checked) else False


def conclusion(
    explained: Explanation, checked: Sequence[Checked], serving: Checked | None, reference: str
) -> tuple[str, str]:
    """What the pull comes to, and what to do about it first."""
    if explained.asked.error:
        return f"The pull fails, regardless of the registries: {explained.asked.error}", explained.asked.remedy
    if serving is not None:
        name = serving.source.source.name
        separator = "@" if ":" in reference else ":"
        failed = [found for found in checked if found.needed and found is not serving]
        late = f", after {_count(len(failed))} failed" if failed else ""
        return f"The pull would succeed: {name}{separator}{reference} exists{late}", ""
    asked = [found for found in checked if found.verdict is not None]
    if not asked:
        return f"The pull fails: {explained.runtime} asks no source for this image", ""
    unknown = next((found for found in asked if found.outcome == UNKNOWN), None)
    if unknown is not None:
        return (
            f"Whether the pull would succeed is not known: {unknown.source.source.name}: {unknown.evidence}",
            unknown.remedy,
        )
    first = asked[0]
    if explained.error is not None and first.outcome in (registryclient.UNAUTHORIZED, registryclient.FORBIDDEN):
        return f"The pull would fail, as the plugin does: {explained.error.message}", explained.error.hint
    text = f"The pull would fail. {first.source.source.name}: {summary(first, explained.runtime)}"
    return text, first.remedy


_SUMMARIES = {
    registryclient.DNS: "the name of {it} cannot be resolved",
    registryclient.CONNECT: "{it} does not answer",
    registryclient.TLS: "{it} is not trusted",
    registryclient.UNAUTHORIZED: "{it} requires another credential",
    registryclient.FORBIDDEN: "{it} forbids this pull",
    registryclient.NOT_FOUND: "it does not have this image",
    registryclient.RATE_LIMITED: "{it} limits requests at the moment",
    registryclient.SERVER_ERROR: "{it} has an internal error",
    registryclient.NOT_A_REGISTRY: "no registry answers there",
    "no-credential": "it requires a credential, and there is none",
    "not-asked": "it does not ask for the credential",
    "no-challenge": "it does not say how to authenticate",
    "no-realm": "it has no token service",
    "unknown-challenge": "it asks for authentication that CRI-O does not support",
    "first-scheme": "{it} refuses the credential by the scheme that CRI-O uses",
    "refused": "{it} refuses the credential",
    "unexpected-status": "{it} answers with a status that {runtime} cannot use",
    "token-service": "its token service issues no token",
    "not-tls": "{it} does not speak TLS",
    "certs.d": "its certs.d cannot be used",
}
"""In a few words, by outcome or, where that says more, by cause."""


def summary(found: Checked, runtime: str) -> str:
    """In a few words."""
    verdict = found.verdict
    if verdict is None:
        return "not asked" if found.outcome == NOT_ASKED else found.outcome
    cause = "" if verdict.outcome == registryclient.CONNECT else verdict.cause
    words = _SUMMARIES.get(cause) or _SUMMARIES.get(found.outcome, found.outcome)
    if not verdict.token_service:
        return (
            "its name cannot be resolved"
            if verdict.outcome == registryclient.DNS
            else words.format(it="it", runtime=runtime)
        )
    return words.format(it="its token service", runtime=runtime)


def _count(number: int) -> str:
    return "one source" if number == 1 else f"{number} sources"
