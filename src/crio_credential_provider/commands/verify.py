"""``crio-credential-provider verify``: asks every place of a pull for the image, with the credential that it will get.

What is asked, in which order and with which credential is ``explanation``'s (and so the plugin's) decision; what a
registry answers is ``registryclient``'s verdict; what the kubelet hands over besides is found by ``handedover``. Knows
the command line, and what these mean together: whose mistake it is that a pull fails.

JSON is one object: ``assumed`` (what stands in for a node, null on one), ``verdict`` (``succeeds``, ``source``,
``text``, ``remedy``), ``image``, ``reference``, ``namespace``, ``sources``, ``pluginError`` and ``notes``. Each source
has ``name``, ``outcome`` (one of ``registryclient.OUTCOMES``, or ``blocked``, ``left-out``, ``unknown``), ``cause``,
``evidence``, ``remedy``, ``needed``, ``insecure``, ``credential`` (``from``, ``secret``, ``key``), ``scheme``,
``digest``, ``tokenService`` (its URL, where it is at fault), ``credentialSentTo`` and ``exchanges``; members that do
not apply are null. ``from`` is ``secret``, ``node``, ``node-helper`` or, where the kubelet hands it over, ``kubelet``.
"""

from __future__ import annotations

import argparse
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import explanation, registryclient
from ..explanation import NODE, NODE_HELPER, SECRET, Explanation, NotAsked, Source, named_key, shown_key
from ..pull import decision, keyring
from ..registryclient import Verdict
from ..runtimes.crio import registries
from .output import (
    FAULT,
    OK,
    UNWELL,
    Parser,
    add_output,
    complain,
    make_parser,
    printable,
    printable_lines,
    sentence,
    serve,
    write,
    write_json,
)
from .request import handedover
from .request.arguments import add_arguments
from .request.find import find
from .request.handedover import HandedOver
from .request.place import find_settings, look, stand_ins

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..images.dockerconfig import Credential
    from ..images.reference import Reference
    from ..pull.keyring import Choice

BLOCKED, LEFT_OUT, UNKNOWN = "blocked", "left-out", "unknown"
"""Outcomes of sources that were not asked, or whose answer says nothing about the pull."""

_KUBELET = "kubelet"
"""Where a source's credential is from: a secret in the pod's imagePullSecrets, through the kubelet."""

_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")

_DESCRIPTION = """\
Asks each pull source of an image for the manifest, in CRI-O's order and with the credential that the
plugin would write for it, or that the kubelet passes from the pod's imagePullSecrets, and reports what
is wrong: DNS, connection, TLS, token service, credential (none, refused, not allowed), image, rate
limit, not a registry.
TLS is verified as by CRI-O, with the system's CAs and those of certs.d; proxies are those of the
running CRI-O, else of the environment.

Run it on a node, as root: elsewhere DNS, routes, CAs and registries.conf differ. It only reads, and
only asks for headers, not for layers. Sources after the first one that has the image are asked as well,
so that the state of all is known. A credential is only sent to the registry that it is for and to that
registry's token service.
"""
_EPILOG = """\
Examples:
  crio-credential-provider verify nginx:1.27 -n team-alpha --pod web        on the pod's node, as root
  crio-credential-provider verify nginx:1.27 -n team-alpha --kubeconfig /etc/kubernetes/admin.conf
  crio-credential-provider verify nginx:1.27 -n team-alpha --secrets secrets.yaml
  crio-credential-provider verify nginx:1.27 -n team-alpha --pod web --output json | jq '.sources[]'

Exit status:
  0  the pull would succeed: a source has the image and serves it
  3  it would fail: no source does, or CRI-O fails the pull itself
  1  unknown, reported on stderr: the cluster, or a file that CRI-O reads, could not be read; or it depends
     on a credential helper, on what the kubelet passes, or on what CRI-O does and verify does not (it
     sends a credential to a token service without TLS, waits longer, asks again)
  2  wrong usage
"""


class Checked(NamedTuple):
    """A source with what came of it.

    Attributes:
        source: with its credential's origin.
        outcome: as in the module's docstring.
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


class Report(NamedTuple):
    """All sources, and what the pull comes to.

    `serving` is the source that CRI-O will take the image from; `succeeds` is None where that cannot be known.
    `assumed` is what stands in for a node, "" on one.
    """

    explained: Explanation
    reference: str
    namespace: str
    checked: tuple[Checked, ...]
    serving: Checked | None
    succeeds: bool | None
    text: str
    remedy: str
    notes: tuple[str, ...]
    assumed: str


def run(arguments: list[str]) -> int:
    """Serves the command.

    Args:
        arguments: the command line after the word ``verify``.

    Returns:
        The exit status.
    """
    return serve("verify", lambda: _tell(parser().parse(arguments)))


def _tell(given: argparse.Namespace) -> int:
    report = _verify(given)
    if given.output == "json":
        write_json(as_json(report))
    else:
        _write_text(report)
    if report.succeeds is None:
        complain("verify", report.text)
    return {True: OK, False: UNWELL, None: FAULT}[report.succeeds]


def parser() -> Parser:
    """The command line."""
    made = make_parser("verify", _DESCRIPTION, _EPILOG)
    add_arguments(made)
    add_output(made)
    return made


# -- asking -----------------------------------------------------------------------------------------------------------


def _verify(given: argparse.Namespace) -> Report:
    """Explains the pull, asks its sources, and puts both together.

    Raises:
        ProviderError: it cannot be known what the pull would ask for, or with what.
    """
    place = look(given)
    chosen = find_settings(given, place)
    asked = find(given, chosen, place)
    explained = explanation.explain(
        asked.request, chosen, asked.connect, asked.image, asked.typed, asked.notes, enforcing=asked.enforcing
    )
    if isinstance(explained.error, NotAsked):
        raise explained.error
    resolution = explained.resolution
    if resolution is None or resolution.config is None:
        assert explained.error is not None
        raise explained.error
    if registries.AUTH_FILE_HELPER not in resolution.config.credential_helpers:
        # CRI-O runs helper programs alone, for every place.
        explained = explained._replace(sources=tuple(s._replace(origin=NODE_HELPER) for s in explained.sources))
    reference = asked.image.digest or asked.image.tag or "latest"
    handed: tuple[HandedOver, ...] | str = ()
    if any(source.is_open and _is_own(source, explained) for source in explained.sources):
        handed = handedover.find(asked, explained)
    verdicts = _ask_all(explained, reference, chosen.root, () if isinstance(handed, str) else handed)
    checked: list[Checked] = []
    serving: Checked | None = None
    namespace = resolution.account.namespace if resolution.account else ""
    for source in explained.sources:
        shown, verdict = verdicts.get(source.source.name, (source, None))
        why_none = resolution.reason if resolution.skipped and source.is_wanted else ""
        found = _check(shown, verdict, serving is None, namespace, why_none)
        if _is_left_to_the_kubelet(found, explained):
            found = _left_to_the_kubelet(found, handed)
        checked.append(found)
        if serving is None and found.outcome == registryclient.OK:
            serving = found
    succeeds = _succeeds(checked)
    text, remedy = _conclusion(explained, checked, serving, reference)
    if asked.offline is not None and asked.offline.lacks[0] and not succeeds:
        text += f". {asked.offline.lacks[0]}"
    notes = [*explained.notes, *resolution.warnings]
    if not isinstance(handed, str) and any(found.source.origin == _KUBELET for found in checked):
        account = resolution.account
        if account is not None and not account.pod:
            notes.append(f"assumed: a pod of service account {account.name} without imagePullSecrets of its own")
    if not asked.typed and not asked.image.tag:
        notes.append("a recorded request has no tag or digest: latest was asked for")
    assumed = stand_ins(given, chosen, place)
    return Report(
        explained, reference, namespace, tuple(checked), serving, succeeds, text, remedy, tuple(notes), assumed
    )


def _is_own(source: Source, explained: Explanation) -> bool:
    """Whether CRI-O shows there what the kubelet hands over, ahead of any file."""
    assert explained.resolution is not None
    own = explanation.own_hosts(explained.resolution.image, explained.asked)
    return source.source.name.partition("/")[0] in own


def _ask_all(
    explained: Explanation, reference: str, root: str, handed: Sequence[HandedOver]
) -> dict[str, tuple[Source, Verdict]]:
    """The verdict of every source that is to be asked, with what was shown there; all at the same time, as a dead one
    takes its whole deadline."""
    assert explained.resolution is not None
    image = explained.resolution.image
    of_node = _choices_of_node(explained)
    credentials = _credentials(explained, of_node)
    environment = _crio_environment() if not root else os.environ
    found: dict[str, tuple[Source, Verdict]] = {}
    failed: list[Exception] = []

    def ask(source: Source) -> None:
        name = source.source.name
        host, _, path = name.partition("/")
        insecure = source.source.insecure
        try:
            shown = [(source, credentials.get(name) if source.origin else None)]
            if handed and _is_own(source, explained) and host != image.domain:
                verdict = registryclient.probe_registry(host, insecure=insecure, root=root, environment=environment)
                kept = source._replace(origin=_KUBELET, secret=handed[0].secret, key=handed[0].key)
                found[name] = kept, _kept_back(kept, verdict, image)
                return
            if handed and _is_own(source, explained):
                # The kubelet tries one after the other, the node's own last.
                by = [(_KUBELET, *entry) for entry in handed]
                by += [(NODE, "", of_node[name].key, of_node[name].credential)] if name in of_node else []
                shown = [(source._replace(origin=o, secret=secret, key=key), c) for o, secret, key, c in by]
            elif source.origin == NODE_HELPER:
                verdict = registryclient.probe_registry(host, insecure=insecure, root=root, environment=environment)
                found[name] = source, verdict
                return
            for origin, credential in shown:
                verdict = registryclient.probe_manifest(
                    host, path, reference, credential, insecure=insecure, root=root, environment=environment
                )
                if name not in found or verdict.outcome == registryclient.OK:
                    found[name] = origin, verdict
                if verdict.outcome not in (registryclient.UNAUTHORIZED, registryclient.FORBIDDEN):
                    break
        except Exception as error:
            # Raised again below, in the thread that somebody listens to.
            failed.append(error)

    wanted = [source for source in explained.sources if source.is_open and source.is_reachable]
    wanted = [] if explained.asked.error else wanted
    threads = [threading.Thread(target=ask, args=(source,), daemon=True) for source in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return found


def _kept_back(source: Source, verdict: Verdict, image: Reference) -> Verdict:
    """Where a short name means another registry than the kubelet takes it for: CRI-O shows the credential all the same,
    this command shows it to nobody but whom it is for."""
    if verdict.outcome != registryclient.OK:
        return verdict
    return Verdict(
        verdict.outcome,
        f"a registry answers; CRI-O sends it the credential for {image.domain} that the kubelet passes "
        f"(secret {source.secret}), which verify does not send to another registry",
        f"write the image with its registry, {source.source.name} or {image.name}",
        scheme=verdict.scheme,
        exchanges=verdict.exchanges,
        undecided=True,
    )


def _choices_of_node(explained: Explanation) -> dict[str, Choice]:
    """Name of a source -> what the node's own auth file has for it."""
    assert explained.resolution is not None
    config, _ = decision.global_config(explained.settings.global_auth_file)
    selection = keyring.select(explained.resolution.sources, (), config, lambda source: True)
    return {choice.source.name: choice for choice in selection.choices}


def _credentials(explained: Explanation, of_node: Mapping[str, Choice]) -> dict[str, Credential]:
    """Name of a source -> what CRI-O shows there: of the auth file, else of the node's own."""
    assert explained.resolution is not None
    selection = explained.resolution.selection
    choices = of_node.values() if selection is None else selection.choices
    return {choice.source.name: choice.credential for choice in choices}


def _crio_environment(processes: str = "/proc") -> Mapping[str, str]:
    """The proxies of the running CRI-O, whose unit often sets them; of this process where there is none to be seen."""
    for name in os.listdir(processes) if os.path.isdir(processes) else ():
        try:
            with open(f"{processes}/{name}/comm", "rb") as file:
                if file.read(32) != b"crio\n":
                    continue
            with open(f"{processes}/{name}/environ", "rb") as file:
                entries = os.fsdecode(file.read(1 << 20)).split("\0")
        except OSError:
            continue
        variables = dict(entry.split("=", 1) for entry in entries if "=" in entry)
        return {key: text for key, text in variables.items() if key.upper() in _PROXIES}
    return os.environ


# -- what it means ----------------------------------------------------------------------------------------------------


def _check(source: Source, verdict: Verdict | None, needed: bool, namespace: str, why_none: str) -> Checked:
    if source.asked is False:
        return Checked(source, LEFT_OUT, source.why_not, "", None, False)
    if source.source.blocked:
        return Checked(source, BLOCKED, "CRI-O does not ask it: it is blocked in registries.conf", "", None, False)
    if not source.is_reachable:
        evidence = f"CRI-O cannot connect: {source.why_unreachable}"
        return Checked(source, LEFT_OUT, evidence, "", None, False)
    if verdict is None:
        return Checked(source, LEFT_OUT, "CRI-O fails this pull before it asks", "", None, False)
    if verdict.outcome == registryclient.OK and source.origin == NODE_HELPER:
        evidence = (
            "a registry answers; CRI-O gets the credential from the node's credential helper, which verify does not run"
        )
        return Checked(source, UNKNOWN, evidence, "", verdict, needed)
    outcome, remedy = UNKNOWN if verdict.undecided else verdict.outcome, _remedy(source, verdict, namespace, why_none)
    return Checked(source, outcome, verdict.evidence, remedy, verdict, needed)


def _is_left_to_the_kubelet(found: Checked, explained: Explanation) -> bool:
    """Whether a source only lacks a credential that the kubelet may have from the pod's imagePullSecrets: no secret was
    looked through for it."""
    resolution = explained.resolution
    if resolution is None or resolution.account is None or explained.error is not None:
        return False
    looked = resolution.selection is not None and decision.may_use_secrets(found.source.source, explained.settings)
    lacks = found.verdict is not None and found.verdict.cause == "no-credential"
    return not looked and lacks and _is_own(found.source, explained)


def _left_to_the_kubelet(found: Checked, handed: Sequence[HandedOver] | str) -> Checked:
    host = found.source.source.name.partition("/")[0]
    remedy = f"add a key for {host} to a pull secret in the pod's imagePullSecrets"
    if not isinstance(handed, str):
        evidence = f"{found.evidence}; the pod's imagePullSecrets, which the kubelet passes, have none for {host}"
        return found._replace(evidence=evidence, remedy=remedy)
    return found._replace(
        outcome=UNKNOWN,
        evidence=f"{found.evidence}; the plugin writes none for {host}, and whether the kubelet passes one "
        f"is not known: {handed}",
        remedy=f"{remedy}, and give the pod with --pod; --mirror-registry {host} tries the namespace's secrets",
    )


def _remedy(source: Source, verdict: Verdict, namespace: str, why_none: str) -> str:
    """What to do, and in which secret: the registry's verdict knows of none.

    Args:
        why_none: the plugin's reason for a place without a credential, if it tells of secrets that are not used.
    """
    holder = _holder(source)
    host = source.source.name.partition("/")[0]
    if verdict.cause == "refused" and verdict.outcome == registryclient.UNAUTHORIZED:
        return f"{holder}: write the current credential there, if it was rotated or mistyped"
    if verdict.cause in ("first-scheme", "no-credential") and holder:
        return f"{holder}: {verdict.remedy}"
    if verdict.cause == "not-allowed" and holder:
        return f"{holder}: check that its user may pull this repository, and that the repository exists"
    if verdict.cause == "no-credential":
        where = f" of namespace {namespace}" if namespace else ""
        return f"{_why_none(source, why_none)}; add a key for {host} to a pull secret{where}"
    return verdict.remedy


def _why_none(source: Source, why_none: str) -> str:
    """Why a source gets no credential: the entry that somebody most likely meant for it, else the core's reason."""
    if source.others:
        other = source.others[0]
        return f"secret {other.secret} has the key {named_key(other.key)}, but {other.why}"
    return why_none or source.reason or "no credential was looked for"


def _holder(source: Source) -> str:
    """Where a source's credential stands."""
    if source.origin in (SECRET, _KUBELET):
        return f"secret {source.secret}, key {named_key(source.key)}"
    return f"the node's auth file, key {named_key(source.key)}" if source.key else ""


def _succeeds(checked: Sequence[Checked]) -> bool | None:
    if any(found.outcome == registryclient.OK for found in checked):
        return True
    return None if any(found.outcome == UNKNOWN for found in checked) else False


def _conclusion(
    explained: Explanation, checked: Sequence[Checked], serving: Checked | None, reference: str
) -> tuple[str, str]:
    """What the pull comes to, and what to do about it first."""
    if explained.asked.error:
        return f"The pull fails, whatever the registries answer: {explained.asked.error}", explained.asked.remedy
    if serving is not None:
        name = serving.source.source.name
        separator = "@" if ":" in reference else ":"
        failed = [found for found in checked if found.needed and found is not serving]
        late = f", after {_count(len(failed))} failed" if failed else ""
        return f"The pull would succeed: {name}{separator}{reference} exists{late}", ""
    asked = [found for found in checked if found.verdict is not None]
    if not asked:
        return "The pull fails: CRI-O asks no source for this image", ""
    unknown = next((found for found in asked if found.outcome == UNKNOWN), None)
    if unknown is not None:
        return (
            f"Whether the pull would succeed is not known: {unknown.source.source.name}: {unknown.evidence}",
            unknown.remedy,
        )
    first = asked[0]
    if explained.error is not None and first.outcome in (registryclient.UNAUTHORIZED, registryclient.FORBIDDEN):
        return f"The pull would fail, as the plugin does: {explained.error.message}", explained.error.hint
    text = f"The pull would fail. {first.source.source.name}: {_summary(first)}"
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
    "unexpected-status": "{it} answers with a status that CRI-O cannot use",
    "token-service": "its token service issues no token",
    "not-tls": "{it} does not speak TLS",
    "certs.d": "its certs.d cannot be used",
}
"""In a few words, by outcome or, where that says more, by cause."""


def _summary(found: Checked) -> str:
    verdict = found.verdict
    if verdict is None:
        return found.outcome.replace("-", " ")
    cause = "" if verdict.outcome == registryclient.CONNECT else verdict.cause
    summary = _SUMMARIES.get(cause) or _SUMMARIES.get(found.outcome, found.outcome)
    if not verdict.token_service:
        return "its name cannot be resolved" if verdict.outcome == registryclient.DNS else summary.format(it="it")
    return summary.format(it="its token service")


def _count(number: int) -> str:
    return "one source" if number == 1 else f"{number} sources"


# -- JSON -------------------------------------------------------------------------------------------------------------


def as_json(report: Report) -> dict[str, Any]:
    """The whole report for programs."""
    explained = report.explained
    serving = report.serving
    return {
        "assumed": report.assumed or None,
        "verdict": {
            "succeeds": report.succeeds,
            "source": serving.source.source.name if serving else None,
            "text": report.text,
            "remedy": report.remedy or None,
        },
        "image": str(explained.image),
        "reference": report.reference,
        "namespace": report.namespace or None,
        "pluginError": str(explained.error) if explained.error is not None else None,
        "sources": [_checked_json(found) for found in report.checked],
        "notes": list(report.notes),
    }


def _checked_json(found: Checked) -> dict[str, Any]:
    source, verdict = found.source, found.verdict
    credential = {"from": source.origin, "secret": source.secret or None, "key": shown_key(source.key) or None}
    return {
        "name": source.source.name,
        "outcome": found.outcome,
        "cause": (verdict.cause if verdict else "") or None,
        "evidence": found.evidence or None,
        "remedy": found.remedy or None,
        "needed": found.needed,
        "insecure": source.source.insecure,
        "credential": credential if source.origin else None,
        "scheme": (verdict.scheme if verdict else "") or None,
        "digest": (verdict.digest if verdict else "") or None,
        "tokenService": (verdict.token_service if verdict else "") or None,
        "credentialSentTo": list(verdict.credential_sent_to) if verdict else [],
        "exchanges": list(verdict.exchanges) if verdict else [],
    }


# -- text -------------------------------------------------------------------------------------------------------------


def _write_text(report: Report) -> None:
    """The conclusion, a table of all sources, and what is to be said of each."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    def text(words: str, style: str = "") -> Text:
        return Text(printable(words), style=style, overflow="fold")

    def lines(words: str, style: str = "") -> Text:
        return Text(printable_lines(words), style=style, overflow="fold")

    parts: list[RenderableType] = [text(sentence(report.assumed)), ""] if report.assumed else []
    parts.append(text(sentence(report.text), _STYLES[report.succeeds]))
    if report.remedy:
        parts.append(text(sentence(f"To do: {report.remedy}")))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("", "Source", "Credential", "Verdict"):
        table.add_column(heading, overflow="fold")
    details = Table.grid(padding=(0, 2, 0, 0))
    details.add_column(no_wrap=True)
    details.add_column(overflow="fold")
    for number, found in enumerate(report.checked, 1):
        style = "green" if found.outcome == registryclient.OK else "" if found.verdict is None else "red"
        name, credential = text(found.source.source.name), lines(_shown_credential(found))
        table.add_row(str(number), name, credential, lines(_shown(found), style))
        if told := [text(sentence(line)) for line in _details(found, report.remedy)]:
            details.add_row(str(number), Group(*told))
    parts += [Text(""), table] if report.checked else []
    parts += [Text(""), details] if details.row_count else []
    notes = list(report.notes)
    if report.explained.error is not None:
        error = str(report.explained.error)
        notes.insert(0, f"the plugin fails for this pull, and CRI-O reads the node's own auth file: {error}")
    parts += [Text(""), *(text(sentence(note)) for note in notes)] if notes else []
    write(*parts)


_STYLES = {True: "bold green", False: "bold red", None: "bold yellow"}


def _shown_credential(found: Checked) -> str:
    source = found.source
    if found.outcome in (LEFT_OUT, BLOCKED):
        return "-"
    if source.origin == NODE_HELPER:
        return "the node's credential helper"
    by = "\nfrom the kubelet" if source.origin == _KUBELET else ""
    return _holder(source).replace(", ", "\n", 1) + by or "none"


def _shown(found: Checked) -> str:
    """In a few words, with what it means for the pull."""
    if found.verdict is None or found.outcome in (registryclient.OK, UNKNOWN):
        words = found.outcome.replace("-", " ")
    else:
        words = f"{found.outcome}: {_summary(found)}"
    return words if found.needed or found.verdict is None else f"{words}\nnot needed"


def _details(found: Checked, told: str) -> Iterator[str]:
    """What was answered, what to do about it unless that was told, and who else was shown the credential."""
    verdict = found.verdict
    if found.outcome != registryclient.OK:
        yield found.evidence
        if found.needed and found.remedy and found.remedy != told:
            yield f"to do: {found.remedy}"
    elif verdict is not None and verdict.scheme == "http":
        yield f"it {verdict.evidence}, over plain HTTP"
    if verdict is not None:
        host = found.source.source.name.partition("/")[0]
        others = [name for name in verdict.credential_sent_to if name != host]
        if others:
            yield f"the credential was sent to {', '.join(others)}"
