"""A whole examination: facts gathered, servers asked, checks run, and what they come to."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import NamedTuple, TypeVar

from ..errors import ProviderError, UsageError
from ..node.facts import Given, Node, gather, with_content
from ..node.kubelet import parse_version
from ..node.tree import Tree, Unreadable
from ..registryclient import Api, Verdict, probe_api, probe_registry
from ..settings import CRIO
from . import cluster
from .catalogue import CATALOGUE, SEVERITIES
from .checks import checks_for
from .checks import cluster as cluster_checks
from .checks import hosts as hosts_checks
from .checks.config import bare_pattern, check_config, check_entry, check_match_images, mirror_patterns
from .checks.registries import MOST_PROBED, asked_mirrors, check_mirrors
from .cluster import Answers
from .correction import CORRECTED, Corrected, correct, without_reference
from .finding import Examined, Finding, Result, Unexamined

_PROBE_DEADLINE = 5.0
"""Seconds for a mirror to answer."""

_Place = TypeVar("_Place", bound=Hashable)


class Report(NamedTuple):
    """What an examination came to.

    Attributes:
        subject: what was examined, for people.
        findings: the worst first, then in the order of the catalogue.
        examined: what was looked at.
        not_examined: what was not, and why.
        corrected: the CredentialProviderConfig as it ought to be; None where nothing in it is wrong.
        uncorrected: why there is none although something is wrong, else "".
    """

    subject: str
    findings: tuple[Finding, ...]
    examined: tuple[str, ...]
    not_examined: tuple[Unexamined, ...]
    corrected: Corrected | None
    uncorrected: str

    def count(self, severity: str) -> int:
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def is_well(self) -> bool:
        """Whether there is nothing but notes."""
        return not any(finding.severity in ("error", "warning") for finding in self.findings)


def examine(given: Given, tree: Tree | None = None) -> Report:
    """Examines this machine, an image, or one file.

    Args:
        tree: as for ``gather``.

    Raises:
        UsageError: a file that is to be examined alone cannot be read.
    """
    facts = gather(given, tree)
    _check_given(facts)
    results: list[Result] = []
    own, token_file = cluster.own_audiences(facts)
    answers = None
    located = cluster.locate(facts)
    # Without a kubelet and a kubeconfig this is not a node, and the default address means nothing.
    is_node = facts.kubelet is not None or bool(located.kubeconfig)
    if given.live and not given.config and is_node:
        answers = cluster.ask(facts, located)
        facts = _with_versions(facts, answers)
    for check in checks_for(facts):
        results += check(facts)
    if facts.pulls_with == CRIO:
        results += check_mirrors(facts, _probe(facts) if given.live else {})
    else:
        results += hosts_checks.check_mirrors(facts, _probe_hosts(facts) if given.live else {})
    if not given.config:
        results += cluster_checks.check_endpoint(facts, located)
        results += _of_cluster(facts, answers or Answers(located), own, token_file, live=answers is not None)
    return _report(facts, answers, results, own[0] if own else "")


def _check_given(facts: Node) -> None:
    """A file that is configured and cannot be read is not a finding: nothing is known of it."""
    given = facts.given
    for flag, file, error in (
        ("--config", given.config, facts.config_error),
        ("--registries-conf", given.registries_conf, facts.registries.unreadable),
    ):
        if file and error is not None:
            raise UsageError(f"{flag}: {error.path}: {error.reason}", "give a file that this user can read")


def _with_versions(facts: Node, answers: Answers) -> Node:
    """Versions that the node's object tells, where the node itself does not."""
    if facts.version is None and answers.version is not None:
        facts = facts._replace(version=answers.version)
    crio = facts.crio
    if crio is not None and crio.version is None and answers.runtime.startswith("cri-o://"):
        told = parse_version(answers.runtime.removeprefix("cri-o://"), f"node {answers.node}")
        facts = facts._replace(crio=crio._replace(version=told))
    containerd = facts.containerd
    if containerd is not None and containerd.version is None and answers.runtime.startswith("containerd://"):
        told = parse_version(answers.runtime.removeprefix("containerd://"), f"node {answers.node}")
        facts = facts._replace(containerd=containerd._replace(version=told))
    return facts


def _of_cluster(
    facts: Node, answers: Answers, own: tuple[str, ...], token_file: str, *, live: bool
) -> Iterable[Result]:
    if live:
        yield from cluster_checks.check_reachable(facts, answers)
    elif facts.given.live:
        yield Unexamined("the API server and RBAC", "no kubelet and no kubeconfig was found")
    yield from cluster_checks.check_audience(facts, answers, own, token_file)
    if live:
        yield from cluster_checks.check_node_rights(facts, answers, own)
        yield from cluster_checks.check_account_rights(facts, answers)
        yield from cluster_checks.check_runtime_version(facts, answers)


def _probe(facts: Node) -> dict[tuple[str, bool], Verdict | str]:
    """Asks each mirror whether a registry is there; shows no credential."""
    if facts.given.config:
        return {}
    places = dict.fromkeys((mirror.host, mirror.insecure) for mirror in asked_mirrors(facts))
    environment = facts.crio.environment if facts.crio else {}
    ask = functools.partial(probe_registry, root=facts.tree.root, deadline=_PROBE_DEADLINE, environment=environment)
    return _ask_all({(host, insecure): functools.partial(ask, host, insecure=insecure) for host, insecure in places})


def _probe_hosts(facts: Node) -> dict[Api, Verdict | str]:
    """The same for the hosts of containerd's files."""
    if facts.given.config:
        return {}
    environment = facts.containerd.environment if facts.containerd else {}
    ask = functools.partial(probe_api, root=facts.tree.root, deadline=_PROBE_DEADLINE, environment=environment)
    return _ask_all({api: functools.partial(ask, api) for api in hosts_checks.asked_hosts(facts)})


def _ask_all(questions: Mapping[_Place, Callable[[], Verdict]]) -> dict[_Place, Verdict | str]:
    """The verdicts on the first places; a text where nothing could be asked."""
    found: dict[_Place, Verdict | str] = {}

    def ask(place: _Place) -> None:
        try:
            found[place] = questions[place]()
        except ProviderError as error:
            found[place] = str(error)

    # All at once: each takes as long as its deadline if there is no answer.
    threads = [threading.Thread(target=ask, args=(place,)) for place in [*questions][:MOST_PROBED]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def _report(facts: Node, answers: Answers | None, results: list[Result], audience: str) -> Report:
    order = list(CATALOGUE)
    findings = [result for result in results if isinstance(result, Finding)]
    findings.sort(key=lambda finding: (SEVERITIES.index(finding.severity), order.index(finding.code)))
    outcome: Corrected | str | None = None
    left: list[Finding] = []
    if any(CORRECTED in finding.remedy for finding in findings):
        dead = [text for text, _ in facts.entry.patterns if bare_pattern(text) != text] if facts.entry else []
        without = [*dead, *(text for text, _, _ in mirror_patterns(facts))]
        outcome = correct(facts, audience, without, [bare_pattern(text) for text in dead])
        if isinstance(outcome, Corrected):
            try:
                left = _what_stays(facts, outcome)
                outcome = _why_not(left) or outcome
            except Unreadable as error:
                outcome = str(error)
    corrected = outcome if isinstance(outcome, Corrected) else None
    if corrected is None:
        findings = [finding._replace(remedy=without_reference(finding.remedy)) for finding in findings]
    else:
        codes = {found.code for found in left if found.evidence[0].file == corrected.file}
        findings = [_marked(finding, codes) for finding in findings]
    return Report(
        _subject(facts, answers),
        tuple(findings),
        tuple(dict.fromkeys(result.what for result in results if isinstance(result, Examined))),
        tuple(dict.fromkeys(result for result in results if isinstance(result, Unexamined))),
        corrected,
        outcome if isinstance(outcome, str) else "",
    )


def _what_stays(facts: Node, corrected: Corrected) -> list[Finding]:
    """What is found in a corrected file: it is examined like any other."""
    after = with_content(facts, corrected.file, corrected.content)
    results = (*check_config(after), *check_entry(after), *check_match_images(after))
    return [found for found in results if isinstance(found, Finding)]


def _why_not(left: list[Finding]) -> str:
    """Why a corrected file would not do, "" where it would."""
    stays = [found for found in left if CORRECTED in found.remedy]
    places = "; ".join(f"{item.file}:{item.line}: {item.text}" for found in stays for item in found.evidence[:1])
    return f"correct these by hand first: {places}" if stays else ""


def _marked(finding: Finding, left: set[str]) -> Finding:
    """The finding; its remedy says where it is one for our entry that the corrected file does not have."""
    remedy = finding.remedy
    if CORRECTED in remedy or not (finding.code in left or re.search(r"\bargs\b", remedy.partition("\n")[0])):
        return finding
    return finding._replace(remedy=f"not in the corrected file: {remedy}")


def _subject(facts: Node, answers: Answers | None) -> str:
    if facts.given.config:
        return facts.given.config
    if not facts.given.live:
        return f"the image {facts.given.root}"
    return f"node {answers.node}" if answers and answers.node else "this node"
