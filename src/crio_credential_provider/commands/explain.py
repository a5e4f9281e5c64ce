"""``crio-credential-provider explain``: what a pull will do, step by step, and why.

Knows the command line and how an ``Explanation`` is shown; what there is to tell is ``explanation``'s affair. JSON is
one object: ``assumed`` (what was taken for a node, null on one), ``runtime``, ``verdict``, ``image``, ``plugin``,
``registries`` (CRI-O's), ``containerd``, ``secrets``, ``sources``, ``authFile``, ``answer``, ``then``, ``warnings`` and
``notes``; members that do not apply are null.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from .. import explanation, settings
from ..errors import RequestError, masked
from ..explanation import (
    FAILED,
    PASSED,
    UNKNOWN,
    Explanation,
    Hosts,
    OtherKey,
    Shown,
    Source,
    Table,
    Tables,
    named_key,
    shown_key,
)
from ..explanation.containerd import kind_of
from ..runtimes.crio import registriesfile
from . import output
from .output import (
    FAULT,
    OK,
    Parser,
    Whole,
    add_output,
    complain,
    make_parser,
    printable,
    sentence,
    serve,
    split_commands,
    write,
    write_line,
    write_report,
)
from .request.arguments import add_arguments
from .request.find import Pull, find
from .request.place import Place, RefusedArguments, find_flag, find_settings, look, stand_ins

STATUSES = {PASSED: OK, FAILED: output.FAILED, UNKNOWN: FAULT}
"""Exit status of each verdict."""

_DESCRIPTION = """\
Shows what a pull will do, step by step: the registries.conf table that matches and why others do not,
the sources that CRI-O asks in their order, the credential that each gets, from which secret and key,
and why others are not used; the auth file, the answer to the kubelet, and what CRI-O does then.
For containerd: the hosts of config.toml and hosts.toml in its order, and which of them could see whose
credential. The decision is the plugin's own, on this node's files. Nothing is written, and no secret's
content is shown.

The API server is asked only if the image has a mirror: for a token as the kubelet gets one (with the
kubelet's kubeconfig, for a pod that runs on this node; with an administrator's, for any), with that
token for what the plugin would ask, and, if none of that matches, for the namespace's secrets of
other types. With --secrets the API server is not asked.
"""
_EPILOG = """\
Examples:
  crio-credential-provider explain nginx:1.27 -n team-alpha --pod web        on the pod's node, as root
  crio-credential-provider explain nginx:1.27 -n team-alpha --kubeconfig /etc/kubernetes/admin.conf
  kubectl -n team-alpha get secrets -o yaml > secrets.yaml
  crio-credential-provider explain nginx:1.27 -n team-alpha --secrets secrets.yaml
  crio-credential-provider explain --request request.json --config /etc/kubernetes/credential-providers.yaml
  crio-credential-provider explain nginx -n team-alpha --secrets secrets.yaml --output json | jq .verdict

Exit status:
  0  the pull gets what it needs: a source that may get a credential of the namespace (a mirror or
     another location, or what --mirror-registry names) gets one, from a secret or from the node; or this
     pull asks no such source
  3  it does not: no such source gets a credential (with containerd: none that only its own hosts could
     see), or the plugin fails, or the runtime fails the pull itself
  1  unknown, reported on stderr: the cluster could not be asked as the plugin would ask it, or this
     user may not read what the container runtime reads; what is known without it is printed
  2  wrong usage
"""


def run(arguments: list[str]) -> int:
    """As ``commands.run``, for the arguments after the word."""
    return serve("explain", lambda: _tell(parser().parse(arguments)))


def _tell(given: argparse.Namespace) -> int:
    place = look(given)
    explained = _explain(given, place)
    assumed = stand_ins(given, explained.settings, place)
    if given.output == "json":
        write_report({"assumed": assumed or None, **as_json(explained)})
    else:
        if assumed:
            write_line(f"{sentence(printable(assumed))}\n")
        write_text(explained)
    if explained.verdict.status == UNKNOWN and explained.error is not None:
        complain("explain", str(explained.error))
    return STATUSES[explained.verdict.status]


def parser() -> Parser:
    """The command line."""
    made = make_parser("explain", _DESCRIPTION, _EPILOG)
    add_arguments(made)
    add_output(made)
    return made


def _explain(given: argparse.Namespace, place: Place) -> Explanation:
    """The explanation of the pull that the command line names."""
    chosen = settings.loads([], {})
    try:
        chosen = find_settings(given, place)
        asked = find(given, chosen, place)
    except (RefusedArguments, RequestError) as error:
        notes = [f"the arguments come from {error.path}"] if isinstance(error, RefusedArguments) else []
        return explanation.failed(error, chosen, given.image or "", notes)
    return explain(asked, place)


def explain(asked: Pull, place: Place) -> Explanation:
    """The explanation of a pull."""
    image = asked.image if asked.typed else None
    explained = explanation.explain(
        asked.request,
        asked.settings,
        asked.connect,
        image,
        asked.typed,
        asked.notes,
        enforcing=asked.enforcing,
        on_node=asked.on_node,
    )
    verdict = explained.verdict
    if asked.offline is not None and asked.offline.lacks[0] and verdict.status == FAILED:
        text, remedy = asked.offline.lacks
        verdict = verdict._replace(text=f"{verdict.text}. {text}", remedy=remedy)
    if verdict.remedy == registriesfile.MISSING and (where := find_flag(place, "--registries-conf")):
        flag = "remove --registries-conf"
        verdict = verdict._replace(remedy=verdict.remedy.replace(flag, f"{flag} from {where}"))
    return explained._replace(verdict=verdict, notes=(*explained.notes, *_notes_of_file(asked, explained)))


def _notes_of_file(asked: Pull, explained: Explanation) -> Iterable[str]:
    """What the file that replaces the cluster does not say, and what of it the plugin does not ask for."""
    if asked.offline is None or explained.resolution is None or explained.resolution.account is None:
        return
    if explained.resolution.selection is not None and asked.settings.secrets_from != settings.POD:
        yield "the API server was not asked: that the service account may read these secrets is assumed"
    yield from asked.offline.notes
    if explained.resolution.selection is not None and asked.settings.secrets_from == settings.NAMESPACE:
        for kind, names in asked.offline.of_other_types(explained.resolution.account.namespace).items():
            secrets = f"secret {names[0]} is" if len(names) == 1 else f"secrets {_some(names)} are"
            yield f"{secrets} of type {kind}: the plugin lists only kubernetes.io/dockerconfigjson"


# -- JSON -------------------------------------------------------------------------------------------------------------


def as_json(explained: Explanation) -> dict[str, Any]:
    """The whole explanation for programs."""
    resolution, auth_file, verdict = explained.resolution, explained.auth_file, explained.verdict
    is_containerd = explained.settings.runtime == settings.CONTAINERD
    return {
        "runtime": settings.CONTAINERD if is_containerd else settings.CRIO,
        "verdict": {"status": verdict.status, "text": verdict.text, "remedy": verdict.remedy or None},
        "image": _image_json(explained),
        "account": _account_json(explained),
        "plugin": _plugin_json(explained),
        "registries": None if is_containerd else _registries_json(explained.tables),
        "containerd": _hosts_json(explained.hosts) if explained.hosts is not None else None,
        "secrets": {
            "from": explained.settings.secrets_from,
            "looked": [secret.name for secret in resolution.secrets] if resolution and resolution.selection else None,
            "skipped": [
                {"secret": skipped.secret, "reason": skipped.reason}
                for skipped in (resolution.skipped if resolution else ())
            ],
        },
        "sources": [_source_json(source) for source in explained.sources],
        "authFile": auth_file
        and {"path": auth_file.path, "keys": list(auth_file.keys), "credHelpers": auth_file.cred_helpers},
        "answer": explained.answer,
        "then": list(explained.steps),
        "warnings": list(resolution.warnings) if resolution else [],
        "notes": list(explained.notes),
    }


def _image_json(explained: Explanation) -> dict[str, Any] | None:
    image = explained.image
    if image is None:
        return None
    return {
        "typed": explained.typed or None,
        "repository": image.name,
        "tag": image.tag or None,
        "digest": image.digest or None,
        "pulledAs": [str(candidate) for candidate in explained.asked.candidates],
    }


def _account_json(explained: Explanation) -> dict[str, Any] | None:
    account = explained.resolution.account if explained.resolution else None
    if account is None:
        return None
    # If the API server was not asked, the account of a pod is not known.
    known = explained.resolution is None or explained.resolution.selection or account.audiences or not account.pod
    name = account.name if known else None
    return {"namespace": account.namespace, "serviceAccount": name, "pod": account.pod or None}


def _registries_json(tables: Tables) -> dict[str, Any]:
    match = tables.match
    return {
        "files": [{"path": file.path, "state": file.state, "tables": len(file.prefixes)} for file in tables.files],
        "match": match
        and {
            **_table_json(match.table),
            "location": masked(match.registry.location),
            "mirrors": [masked(mirror.location) for mirror in match.registry.mirrors],
            "replaces": [_table_json(table) for table in match.replaces],
        },
        "others": [{**_table_json(other.table), "why": other.why} for other in tables.others],
        "othersLeft": tables.others_left,
    }


def _hosts_json(found: Hosts) -> dict[str, Any]:
    return {
        "files": [{"path": file.path, "state": file.state} for file in found.files],
        "foundBy": found.found or None,
        "others": [{"directory": path, "why": why} for path, why in found.others],
        "hosts": [
            {
                "url": masked(host.url),
                "server": host.is_server,
                "capabilities": list(host.capabilities),
                "source": source,
                "skipVerify": host.skip_verify,
                "plainHttp": host.plain_http,
                "ca": list(host.ca),
                "client": [cert for cert, _ in host.client],
                "headers": list(host.headers),
            }
            for host, source in found.hosts
        ],
        "credentials": [
            {
                "secret": shown.secret,
                "key": shown_key(shown.key),
                "hosts": list(map(masked, shown.hosts)),
                "exposedTo": list(map(masked, shown.others)),
                "answerKey": shown.answer_key or None,
            }
            for shown in found.shown
        ],
        "nodeCredentialsFor": list(found.node_hosts),
    }


def _plugin_json(explained: Explanation) -> dict[str, Any]:
    error, resolution = explained.error, explained.resolution
    if error is None:
        answered = "answered" if resolution and resolution.offers else "nothing-to-do"
        outcome = "auth-file-written" if explained.auth_file else answered
    else:
        outcome = f"fault-{error.fault}" if explained.exit_status is not None else UNKNOWN
    return {
        "exitStatus": explained.exit_status,
        "outcome": outcome,
        "error": str(error) if error is not None else None,
        "reason": (resolution.reason if resolution else "") or None,
    }


def _table_json(table: Table) -> dict[str, Any]:
    return {"prefix": masked(table.prefix), "file": table.file, "line": table.line or None}


def _source_json(source: Source) -> dict[str, Any]:
    place = source.source
    credential = {
        "from": source.origin,
        "secret": source.secret or None,
        "key": shown_key(source.key) or None,
    }
    return {
        "name": place.name,
        "location": masked(place.location),
        "primary": place.primary,
        "insecure": place.insecure,
        "blocked": place.blocked,
        "kinds": list(place.kinds),
        "shortName": place.short_name or None,
        "asked": source.asked,
        "whyNot": source.why_not or None,
        "credential": credential if source.origin else None,
        "reason": source.reason or None,
        "others": [{"secret": other.secret, "key": shown_key(other.key), "why": other.why} for other in source.others],
        "othersLeft": source.others_left,
    }


# -- text -------------------------------------------------------------------------------------------------------------

_STYLES = {PASSED: "bold green", FAILED: "bold red", UNKNOWN: "bold yellow"}
_ASKS = {
    settings.NAMESPACE: "all pull secrets of namespace {0.namespace}, listed as service account {0.name}",
    settings.POD: "the imagePullSecrets of pod {0.namespace}/{0.pod}, read as the node",
    settings.SERVICE_ACCOUNT: "the imagePullSecrets of service account {0.namespace}/{0.name}, read as this account",
}

_MOST_SHOWN = 20
"""Secrets that are named at one place: a namespace may hold a thousand."""

Line = tuple[int, str]
"""Indent in columns, and the text."""


def write_text(explained: Explanation) -> None:
    """The verdict, what to do about it, then each step."""
    verdict = explained.verdict
    write(Whole(sentence(verdict.text), _STYLES[verdict.status]))
    if verdict.remedy:
        words, commands = split_commands(f"To do: {verdict.remedy}")
        # Not broken into lines: it may hold a line of a file to be copied.
        for line in (words, *(f"  {command}" for command in commands)):
            write_line(printable(line))
    sections = [(heading, lines) for heading, lines in _sections(explained) if lines]
    if not sections:
        return
    column = max(len(heading) for heading, _ in sections) + 2
    parts = [
        Whole(text, label=label, indent=column + indent)
        for heading, lines in sections
        for label, (indent, text) in zip([heading, *[""] * (len(lines) - 1)], lines, strict=True)
    ]
    write("", *parts)


def _sections(explained: Explanation) -> Iterable[tuple[str, list[Line]]]:
    resolution, hosts = explained.resolution, explained.hosts
    yield "Image", _image(explained)
    yield "Pod", _pod(explained)
    if hosts is None:
        yield "Files", [(0, _file(file.path, file.state, len(file.prefixes))) for file in explained.tables.files]
        yield "Table", _table(explained)
        yield "Sources", [line for n, source in enumerate(explained.sources, 1) for line in _source(source, n)]
    else:
        yield "Files", [(0, f"{file.path}: {file.state}") for file in hosts.files]
        by = [(0, hosts.found)] if hosts.found else []
        yield "Found by", by + [(2, f"not {path}: {why}") for path, why in hosts.others]
        yield "Hosts", list(_hosts(explained, hosts))
    yield "Secrets", _secrets(explained)
    if hosts is not None:
        yield "Shown to", [line for shown in hosts.shown for line in _shown(shown, explained)]
    yield "Auth file", _auth_file(explained)
    yield "Answer", _answer(explained)
    yield "Then", [(0, sentence(step)) for step in explained.steps]
    yield "Warnings", [(0, sentence(warning)) for warning in (resolution.warnings if resolution else ())]
    yield "Notes", [(0, sentence(note)) for note in explained.notes]


def _image(explained: Explanation) -> list[Line]:
    if explained.image is None:
        return []
    lines = [(0, str(explained.image))]
    if explained.typed and explained.typed != str(explained.image):
        lines.append((0, f"normalized by the kubelet from {explained.typed}"))
    if not explained.typed:
        lines.append((0, "a request has no tag or digest: sources for either are shown"))
    if explained.asked.candidates and [str(c) for c in explained.asked.candidates] != [str(explained.image)]:
        names = ", ".join(map(str, explained.asked.candidates))
        lines.append((0, f"a short name, which CRI-O resolves to {names}"))
    return lines


def _pod(explained: Explanation) -> list[Line]:
    account = explained.resolution.account if explained.resolution else None
    if account is None:
        return []
    if account.pod:
        return [(0, f"{account.namespace}/{account.pod}")]
    return [(0, f"any pod of service account {account.namespace}/{account.name}")]


def _file(path: str, state: str, tables: int) -> str:
    what = f"{tables} {'table' if tables == 1 else 'tables'}" if state == "read" else state
    return f"{path}: {what}"


def _place(table: Table) -> str:
    return f"{table.file}:{table.line}" if table.line else table.file


def _table(explained: Explanation) -> list[Line]:
    if explained.resolution is None or explained.resolution.config is None:
        return []
    match = explained.tables.match
    lines = [(0, f"{masked(match.table.prefix)}, {_place(match.table)}" if match else "none matches")]
    if match is not None:
        lines += [(2, f"replaces the whole table of the same prefix in {_place(table)}") for table in match.replaces]
    lines += [
        (2, f"not {masked(other.table.prefix)}, {_place(other.table)}: {other.why}")
        for other in explained.tables.others
    ]
    if explained.tables.others_left:
        more = "more " if explained.tables.others or match else ""
        tables = "table does" if explained.tables.others_left == 1 else "tables do"
        lines.append((2, f"{explained.tables.others_left} {more}{tables} not match"))
    return lines


def _source(source: Source, number: int) -> Iterable[Line]:
    place = source.source
    traits = ["the registry's own location, last" if place.primary else "mirror"]
    traits += ["insecure"] if place.insecure else []
    traits += ["blocked"] if place.blocked else []
    traits += [f"by {place.kinds[0]} only"] if len(place.kinds) == 1 else []
    traits += [f"for the short name {place.short_name}"] if place.short_name else []
    mark = "-" if source.asked is False else f"{number}."
    yield 0, f"{mark} {place.name} ({', '.join(traits)})"
    if source.asked is False:
        yield 3, f"not asked: {source.why_not}"
    yield from _credential_lines(source)


def _credential_lines(source: Source) -> Iterable[Line]:
    yield 3, _credential(source)
    for other in source.others:
        yield 5, _other(other)
    if source.others_left:
        entries = "entry" if source.others_left == 1 else "entries"
        if source.others:
            yield 5, f"not {source.others_left} more {entries} of the secrets"
        else:
            yield 5, f"the secrets have {source.others_left} {entries}, none for this host or a similar one"


def _hosts(explained: Explanation, hosts: Hosts) -> Iterable[Line]:
    """containerd's hosts in its order, what each may do, and whose credential is for it."""
    sources = {source.source.name: source for source in explained.sources}
    for number, (host, name) in enumerate(hosts.hosts, 1):
        is_itself = explained.resolution is not None and name == explained.resolution.image.name
        server = "the registry itself, last" if is_itself else "the server of the file, last"
        traits = [server if host.is_server else "mirror", f"may {', '.join(host.capabilities)}"]
        traits += ["plain HTTP"] if host.plain_http and host.scheme == "http" else []
        traits += ["certificate not verified"] if host.skip_verify else []
        yield 0, f"{number}. {masked(host.url)} ({'; '.join(traits)})"
        if host.ca:
            yield 3, f"CA: {', '.join(host.ca)}"
        if host.client:
            yield 3, f"client certificate: {', '.join(cert for cert, _ in host.client)}"
        if host.headers:
            yield 3, f"headers, not shown: {', '.join(host.headers)}"
        if (source := sources.pop(name, None)) is not None:
            is_whole = explained.image is None or kind_of(explained.image) in source.source.kinds
            yield 3, f"asked for {name}{'' if is_whole else ', manifest and layers alone'}"
            yield from _credential_lines(source)


def _shown(shown: Shown, explained: Explanation) -> Iterable[Line]:
    """Which hosts could see a credential, and whether it is passed."""
    yield 0, f"secret {shown.secret}, key {named_key(shown.key)}"
    yield from ((2, f"{masked(url)}, which its key names") for url in shown.hosts)
    yield from ((2, f"{masked(url)}, which its key does not name") for url in shown.others)
    if shown.answer_key:
        yield 2, f"passed to containerd{': allowed by --allow-fallback-exposure' if shown.others else ''}"
    elif explained.answer is not None:
        yield 2, f"{'refused: ' if shown.others else ''}not passed to containerd"


def _credential(source: Source) -> str:
    if source.origin == explanation.SECRET:
        return f"credential: secret {source.secret}, key {named_key(source.key)}"
    if source.origin == explanation.NODE:
        return f"credential: the node's own, key {named_key(source.key)} of the global auth file"
    if source.origin == explanation.NODE_HELPER:
        return "credential: from the node's credential helper"
    if source.reason == explanation.UNDECIDED:
        return f"credential: {source.reason}"
    return f"no credential{f': {source.reason}' if source.reason else ''}"


def _other(other: OtherKey) -> str:
    return f"not secret {other.secret}, key {named_key(other.key)}: {other.why}"


def _secrets(explained: Explanation) -> list[Line]:
    resolution = explained.resolution
    if resolution is None or resolution.account is None or resolution.selection is None:
        return []
    names = _some([secret.name for secret in resolution.secrets])
    lines = [(0, _ASKS[explained.settings.secrets_from].format(resolution.account)), (2, f"found: {names}")]
    lines += [(2, f"not used: {skipped.secret}: {skipped.reason}") for skipped in resolution.skipped[:_MOST_SHOWN]]
    if len(resolution.skipped) > _MOST_SHOWN:
        lines.append((2, f"not used: {len(resolution.skipped) - _MOST_SHOWN} more, which --output json shows"))
    return lines


def _some(names: list[str]) -> str:
    """The first of many names, and how many more there are."""
    more = len(names) - _MOST_SHOWN
    return f"{', '.join(names[:_MOST_SHOWN])}{f' and {more} more' if more > 0 else ''}" or "none"


def _auth_file(explained: Explanation) -> list[Line]:
    if explained.settings.runtime == settings.CONTAINERD:
        return []
    if explained.auth_file is None:
        reason = explained.resolution.reason if explained.resolution else ""
        return [(0, f"none: {reason}")] if reason else []
    lines = [(0, explained.auth_file.path)]
    lines += [(2, f"key {key}") for key in explained.auth_file.keys]
    lines += [(2, f"credential helper {name} for {host}") for host, name in explained.auth_file.cred_helpers.items()]
    return lines


def _answer(explained: Explanation) -> list[Line]:
    if explained.answer is None:
        return []
    recorded = list(explained.answer.get("auth", {}))
    if explained.settings.runtime == settings.CONTAINERD:
        what = f"credentials for {', '.join(recorded)}" if recorded else "no credentials"
        return [(0, f"to the kubelet: {what}; never cached")]
    what = (
        f"pull record for {recorded[0]} (no user, no password), which limits the image to the pod's service account"
        if recorded
        else "no credentials"
    )
    return [(0, f"to the kubelet: {what}; never cached")]
