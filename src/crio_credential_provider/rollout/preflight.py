"""Doctor on the node as it will be, before anything is touched; and on the node as it is, afterwards.

An error stops a rollout where the rollout would cause it, or where it would keep the kubelet from starting or the
plugin from serving any pull. Others were there before, and are for ``doctor`` itself.
"""

from __future__ import annotations

from typing import NamedTuple

from ..doctor import Given, Report, examine, mirrored
from ..doctor.finding import Finding
from ..node.facts import gather
from ..node.kubelet import BIN_DIR, PROVIDER_CONFIG
from .changes import RolloutError
from .plan import Plan

_FATAL = frozenset(
    (
        *("plugin-missing", "plugin-not-executable", "plugin-other-name", "plugin-cannot-run", "kubelet-flag-unknown"),
        *("kubelet-without-provider-config", "kubelet-without-bin-dir", "kubelet-too-old", "feature-gate-off"),
        *("config-missing", "config-refused", "provider-missing", "token-attributes-missing", "cache-type-missing"),
        *("cache-type-unknown", "plugin-arguments-refused", "runtime-not-crio", "crio-too-old", "crio-conf-refused"),
        *("runtime-mismatch", "containerd-config-refused", "mirrors-and-config-path", "config-path-not-set"),
        "containerd-without-cri",
    )
)
"""Errors with which the kubelet does not start, or no pull is served."""
_UNSURE = ("config-path-several", "registry-table-misplaced")
"""Errors with which containerd may ask the registry itself alone: no pull gets a credential unless that is allowed."""
_EXPOSED = "mirror-credential-exposed"
"""With containerd: of one registry. If others are served, it is told, and stops nothing: that it never got a credential
is no change."""


class Checked(NamedTuple):
    """What doctor found.

    Attributes:
        stops: errors that stop the rollout.
        others: what else was found, notes left out.
        examined, skipped: what was looked at, and what was not.
    """

    stops: tuple[Finding, ...]
    others: tuple[Finding, ...]
    examined: tuple[str, ...]
    skipped: tuple[str, ...]


def check(plan: Plan, root: str) -> Checked:
    """The planned node.

    Raises:
        RolloutError: the kubelet would not find what is planned.
    """
    given = Given(root=root, next_start=True)
    planned = plan.tree(root)
    node = gather(given, planned)
    kubelet, settings = node.kubelet, node.settings
    for name, path in ((PROVIDER_CONFIG, plan.config_path), (BIN_DIR, plan.bin_dir)):
        flag = kubelet.flag(name) if kubelet else None
        if flag is None or flag.value != path:
            origin = f"{flag.origin} sets {flag.value}" if flag else "the flag would not reach it"
            raise RolloutError(f"the kubelet would not use --{name}={path}: {origin}", "correct that first")
    found = examine(given, planned)
    before: set[object] = set()
    if any(finding.severity == "error" and finding.code not in _FATAL for finding in found.findings):
        before = {_key(finding) for finding in examine(given).findings}
    if settings is not None and not settings.allow_fallback_exposure:
        before -= {_key(finding) for finding in found.findings if finding.code in _UNSURE}
    exposed = [finding for finding in found.findings if finding.code == _EXPOSED]
    if len(exposed) < len(mirrored.tables(node)):
        before |= {_key(finding) for finding in exposed}
    return _sorted_out(found, before)


def verify(root: str, accepted: Checked) -> Checked:
    """The node as it runs; what was accepted before is so again."""
    return _sorted_out(examine(Given(root=root)), {_key(finding) for finding in accepted.others})


def _sorted_out(found: Report, known: set[object]) -> Checked:
    stops = [
        finding
        for finding in found.findings
        if finding.severity == "error" and (finding.code in _FATAL or _key(finding) not in known)
    ]
    others = [finding for finding in found.findings if finding not in stops and finding.severity != "note"]
    skipped = [f"{item.what}: {item.why}" for item in found.not_examined]
    return Checked(tuple(stops), tuple(others), found.examined, tuple(skipped))


def _key(finding: Finding) -> object:
    """Lines of files move with what is put into them."""
    return finding.code, tuple(evidence.text for evidence in finding.evidence)
