"""``crio-credential-provider verify``: asks every place of a pull for the image, with the credential that it will get.

What is asked, in which order and with which credential is ``explanation``'s (and so the plugin's) decision; what a
registry answers is ``registryclient``'s verdict; what the kubelet hands over besides is found by ``handedover``. Knows
the command line, and what these mean together: whose mistake it is that a pull fails.

JSON is one object: ``assumed`` (what was taken for a node, null on one), ``verdict`` (``succeeds``, ``source``,
``text``, ``remedy``), ``runtime``, ``image``, ``reference``, ``namespace``, ``sources``, ``pluginError`` and ``notes``.
Each source has ``name``, ``outcome`` (one of ``registryclient.OUTCOMES``, or ``blocked``, ``not-asked``, ``unknown``),
``cause``, ``evidence``, ``remedy``, ``needed``, ``insecure``, ``credential`` (``from``, ``secret``, ``key``),
``scheme``, ``digest``, ``tokenService`` (its URL, where it is at fault), ``credentialSentTo`` and ``exchanges``, with
containerd also ``url``; members that do not apply are null. ``from`` is ``secret``, ``node``, ``node-helper`` or, where
the kubelet hands it over, ``kubelet``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import explanation, registryclient
from ..errors import masked
from ..explanation import NODE_HELPER, Explanation, NotAsked, shown_key
from ..runtimes.crio import registries
from ..settings import CONTAINERD, CRIO
from .output import (
    FAILED,
    FAULT,
    OK,
    Parser,
    Whole,
    add_output,
    complain,
    ended,
    make_parser,
    printable,
    printable_lines,
    sentence,
    serve,
    to_do,
    write,
    write_report,
)
from .request import handedover
from .request.arguments import add_arguments
from .request.find import Pull, find
from .request.handedover import HandedOver
from .request.place import find_settings, look, stand_ins
from .verification import containerd, meaning
from .verification.asking import ask_all
from .verification.meaning import BLOCKED, NOT_ASKED, UNKNOWN, Checked
from .verification.shown import KUBELET, is_own

if TYPE_CHECKING:
    from rich.console import RenderableType


_DESCRIPTION = """\
Asks each pull source of an image for the manifest, in CRI-O's order and with the credential that the
plugin would write for it, or that the kubelet passes from the pod's imagePullSecrets, and reports what
is wrong: DNS, connection, TLS, token service, credential (none, refused, not allowed), image, rate
limit, not a registry.
TLS is verified as by CRI-O, with the system's CAs and those of certs.d; proxies are those of the
running CRI-O, else of the environment. With containerd each host of hosts.toml is asked as containerd
asks it, with none but its own credential.

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
  3  it would fail: no source does, or the runtime fails the pull itself
  1  unknown, reported on stderr: the cluster, or a file that CRI-O reads, could not be read; or it depends
     on a credential helper, on what the kubelet passes, or on what CRI-O does and verify does not (it
     sends a credential to a token service without TLS, waits longer, asks again)
  2  wrong usage
"""


class Report(NamedTuple):
    """All sources, and what the pull comes to.

    `serving` is the source that CRI-O will take the image from; `succeeds` is None where that cannot be known.
    `assumed` is what was taken for a node, "" on one.
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
    """As ``commands.run``, for the arguments after the word."""
    return serve("verify", lambda: _tell(parser().parse(arguments)))


def _tell(given: argparse.Namespace) -> int:
    report = _verify(given)
    if given.output == "json":
        write_report(as_json(report))
    else:
        write_text(report)
    if report.succeeds is None:
        complain("verify", report.text)
    return {True: OK, False: FAILED, None: FAULT}[report.succeeds]


def parser() -> Parser:
    """The command line."""
    made = make_parser("verify", _DESCRIPTION, _EPILOG)
    add_arguments(made)
    add_output(made)
    return made


# -- asking -----------------------------------------------------------------------------------------------------------


def _verify(given: argparse.Namespace) -> Report:
    place = look(given)
    chosen = find_settings(given, place)
    return verify(find(given, chosen, place), stand_ins(given, chosen, place))


def verify(asked: Pull, assumed: str, *, from_elsewhere: bool = False) -> Report:
    """Explains a pull, asks its sources, and puts both together.

    Args:
        from_elsewhere: this is not the node: that it cannot reach a source says nothing of the node.

    Raises:
        ProviderError: it cannot be known what the pull would ask for, or with what.
    """
    explained = explanation.explain(
        asked.request,
        asked.settings,
        asked.connect,
        asked.image,
        asked.typed,
        asked.notes,
        enforcing=asked.enforcing,
        on_node=asked.on_node,
    )
    if isinstance(explained.error, NotAsked):
        raise explained.error
    resolution = explained.resolution
    if resolution is None or (resolution.config is None and resolution.hosts is None):
        assert explained.error is not None
        raise explained.error
    if resolution.config is not None and registries.AUTH_FILE_HELPER not in resolution.config.credential_helpers:
        # CRI-O runs helper programs alone, for every place.
        explained = explained._replace(sources=tuple(s._replace(origin=NODE_HELPER) for s in explained.sources))
    if resolution.hosts is not None:
        explained = containerd.resolving(explained)
    reference = asked.image.digest or asked.image.tag or "latest"
    handed: tuple[HandedOver, ...] | str = ()
    if any(source.is_open and is_own(source, explained) for source in explained.sources):
        handed = handedover.find(asked, explained)
    verdicts = ask_all(explained, reference, asked.settings.root, () if isinstance(handed, str) else handed)
    checked: list[Checked] = []
    serving: Checked | None = None
    for source in explained.sources:
        shown, verdict = verdicts.get(source.source, (source, None))
        found = meaning.check(shown, verdict, serving is None, explained)
        if meaning.is_left_to_the_kubelet(found, explained):
            found = meaning.left_to_the_kubelet(found, handed)
        if from_elsewhere and meaning.is_out_of_reach(found, checked):
            found = meaning.out_of_reach(found)
        checked.append(found)
        if serving is None and found.outcome == registryclient.OK:
            serving = found
    succeeds = meaning.succeeds(checked)
    text, remedy = meaning.conclusion(explained, checked, serving, reference)
    if asked.offline is not None and asked.offline.lacks[0] and not succeeds:
        text += f". {asked.offline.lacks[0]}"
    notes = [*explained.notes, *resolution.warnings]
    if explained.hosts is not None and handed and not isinstance(handed, str):
        others = [found.source.source.location for found in checked if not is_own(found.source, explained)]
        if others:
            notes.append(
                f"the kubelet also passes the credential of secret {handed[0].secret}, key {shown_key(handed[0].key)}, "
                f"which containerd shows to {' and '.join(others)}; verify does not send it there"
            )
    if not isinstance(handed, str) and any(found.source.origin == KUBELET for found in checked):
        account = resolution.account
        if account is not None and not account.pod:
            notes.append(f"assumed: a pod of service account {account.name} without imagePullSecrets of its own")
    if not asked.typed and not asked.image.tag:
        notes.append("a recorded request has no tag or digest: latest was asked for")
    namespace = resolution.account.namespace if resolution.account else ""
    return Report(
        explained, reference, namespace, tuple(checked), serving, succeeds, text, remedy, tuple(notes), assumed
    )


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
        "runtime": CONTAINERD if explained.settings.runtime == CONTAINERD else CRIO,
        "image": str(explained.image),
        "reference": report.reference,
        "namespace": report.namespace or None,
        "pluginError": str(explained.error) if explained.error is not None else None,
        "sources": [
            {**_checked_json(found), **({"url": masked(found.source.source.location)} if explained.hosts else {})}
            for found in report.checked
        ],
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


def write_text(report: Report) -> None:
    """The conclusion, a table of all sources, and what is to be said of each."""
    from rich.table import Table
    from rich.text import Text

    def text(words: str, style: str = "") -> Text:
        return Text(printable(words), style=style, overflow="fold")

    def lines(words: str, style: str = "") -> Text:
        return Text(printable_lines(words), style=style, overflow="fold")

    parts: list[RenderableType] = [Whole(sentence(report.assumed)), ""] if report.assumed else []
    parts.append(Whole(sentence(report.text), _STYLES[report.succeeds]))
    if report.remedy:
        parts += to_do(ended(f"To do: {report.remedy}"))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("", "Source", "Credential", "Verdict"):
        table.add_column(heading, overflow="fold")
    details: list[RenderableType] = []
    column = len(str(len(report.checked))) + 2
    for number, found in enumerate(report.checked, 1):
        style = "green" if found.outcome == registryclient.OK else "" if found.verdict is None else "red"
        name, credential = text(found.source.source.name), lines(_shown_credential(found))
        table.add_row(str(number), name, credential, lines(_shown(found, report.explained.runtime), style))
        label = str(number)
        for line in _details(found):
            details.append(Whole(sentence(line), label=label, indent=column))
            label = ""
        if found.outcome != registryclient.OK and found.needed and found.remedy and found.remedy != report.remedy:
            details += to_do(ended(f"To do: {found.remedy}"), label=label, indent=column)
    parts += [Text(""), table] if report.checked else []
    parts += ["", *details] if details else []
    notes: list[RenderableType] = []
    error = report.explained.error
    if error is not None and error.message not in report.text:
        why = str(error).removesuffix(f"; {error.hint}")
        then = "CRI-O reads the node's own auth file"
        if report.explained.settings.runtime == CONTAINERD:
            then = "the kubelet passes nothing of its"
        notes.append(Whole(f"The plugin fails for this pull, and {then}: {why}."))
        notes += to_do(ended(f"To do: {error.hint}")) if error.hint else ()
    notes += [Whole(sentence(note)) for note in report.notes]
    parts += ["", *notes] if notes else []
    write(*parts)


_STYLES = {True: "bold green", False: "bold red", None: "bold yellow"}


def _shown_credential(found: Checked) -> str:
    source = found.source
    if found.outcome in (NOT_ASKED, BLOCKED):
        return "-"
    if source.origin == NODE_HELPER:
        return "the node's credential helper"
    by = "\nfrom the kubelet" if source.origin == KUBELET else ""
    return meaning.holder(source).replace(", ", "\n", 1) + by or "none"


def _shown(found: Checked, runtime: str) -> str:
    """In a few words, with what it means for the pull."""
    words = meaning.summary(found, runtime)
    if found.verdict is None:
        return words
    words = found.outcome if found.outcome in (registryclient.OK, UNKNOWN) else f"{found.outcome}: {words}"
    return words if found.needed else f"{words}\nnot needed"


def _details(found: Checked) -> Iterator[str]:
    """What was answered, and who else was shown the credential."""
    verdict = found.verdict
    if found.outcome != registryclient.OK:
        yield found.evidence
    elif verdict is not None and verdict.scheme == "http":
        yield f"it {verdict.evidence}, over plain HTTP"
    if verdict is not None:
        host = found.source.source.name.partition("/")[0]
        others = [name for name in verdict.credential_sent_to if name != host]
        if others:
            yield f"the credential was sent to {', '.join(others)}"
