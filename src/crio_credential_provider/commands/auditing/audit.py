"""``crio-credential-provider audit``: which pulls of a cluster would find a credential, and why the others would not.

Knows the command line and how an ``Audit`` is shown as text; ``audit`` finds it, and has its JSON.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from ... import settings
from ...audit import document, lists, nodes, workloads
from ...audit.auditor import Auditor
from ...audit.openshift import mirrorsets
from ...audit.result import (
    ANONYMOUS,
    FAILS,
    NODE_CREDENTIALS,
    NOT_CHECKED,
    Audit,
    Pull,
)
from ...errors import ProviderError, UsageError
from ...kubernetes import names
from ...pull import decision
from ...runtimes.crio import registries
from ...settings import FLAGS_BY_NAME
from .. import output
from ..output import Parser, as_json_line, complain, make_parser, printable, there, write_line, write_lines
from ..request.place import Place, load_settings, look, typed_values
from . import text

if TYPE_CHECKING:
    from ...audit.nodes import NodeClass

OK, FAILING, FAULT = 0, 1, 2
"""Unlike other commands, as tools in pipelines do: 1 is what was looked for."""

_DESCRIPTION = """\
Finds for all pods and workload templates of a cluster whether the pull of each image gets a credential
for its mirrors from a secret of the namespace, which one, and if not, why. Decides as the plugin does, on
files of kubectl get ... -o json, or on what the API server lists; then with read-only requests alone.
No content of a secret is shown. With --live the mirrors are asked as well.
"""
_EPILOG = """\
Examples:
  kubectl get nodes,secrets,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings -A -o json > rights.json
  kubectl get pods,deployments,statefulsets,daemonsets,replicasets,jobs,cronjobs -A -o json > workloads.json
  crio-credential-provider audit rights.json workloads.json --registries-conf registries.conf
  crio-credential-provider audit --context prod --registries-conf worker=w.conf --registries-conf pool=gpu=g.conf
  crio-credential-provider audit -n team-alpha --output json > audit.json
  crio-credential-provider audit -n team-alpha --baseline audit.json --live
  crio-credential-provider audit --registries-conf registries.conf --output html > audit.html

Exit status:
  0  no pull would fail
  1  some would; with --fail-on also what that names; with --baseline only those that got worse;
     or the output could not be written
  2  wrong usage, a file that cannot be used, an API server that does not answer, no pod or workload read
"""
_RATE, _MAX_RATE = 5, 1000
"""Questions to mirrors in a second."""
_ASKING = 600
"""Seconds for all of them."""
_FLAGS = ("secrets-from", "mirror-registry", "global-auth-file")


class Elsewhere(NamedTuple):
    """What is known of the nodes where this machine, whose auth file and configuration say nothing of them, is not one.

    Attributes:
        notes: what the person should know beforehand.
        enforcing: as of ``NodeClass``.
        is_partial: as of ``Published``.
    """

    notes: tuple[str, ...] = ()
    enforcing: bool = True
    is_partial: bool = False


def run(arguments: list[str], program: str = output.PROGRAM, elsewhere: Elsewhere | None = None) -> int:
    """As ``commands.run``, for the arguments after the word.

    Args:
        program: what the person has called.
        elsewhere: None where this machine's auth file is taken for the nodes'.
    """
    try:
        given = parser(program).parse(arguments)
        given.elsewhere = elsewhere
        return _audit(given)
    except output.Unwritable as error:
        if not error.reader_gone:
            complain("audit", str(error), program)
        # As of all commands.
        return output.FAULT
    except ProviderError as error:
        complain("audit", str(error), program)
    except OSError as error:
        complain("audit", f"{error.filename or ''}: {error.strerror}".removeprefix(": "), program)
    return FAULT


def parser(program: str = output.PROGRAM) -> Parser:
    """The command line."""
    made = make_parser("audit", _DESCRIPTION, _EPILOG.replace(output.PROGRAM, program))
    made.prog = f"{program} audit"
    made.add_argument(
        "files",
        metavar="FILE",
        nargs="*",
        help="lists of kubectl get ... -o json, of any kinds, instead of the API server; -: stdin",
    )
    made.add_argument(
        *("-n", "--namespace"),
        metavar="NAMESPACE",
        action="append",
        type=_namespace,
        help="audit this namespace; repeatable",
    )
    made.add_argument("-A", "--all-namespaces", action="store_true", help="audit all namespaces (default)")
    made.add_argument(
        *("-l", "--selector"),
        metavar="LABELS",
        default="",
        help="audit pods and workloads with these labels: app=web,tier",
    )
    made.add_argument("--kubeconfig", metavar="FILE", type=there("file"), help="kubeconfig for kubectl")
    made.add_argument("--context", metavar="NAME", type=_context, help="its context")
    made.add_argument(
        "--registries-conf",
        metavar="[CLASS=]FILE",
        action="append",
        default=[],
        help="registries.conf of the nodes, or of a class of them: a role (worker), a runtime (containerd) or labels "
        "(pool=gpu); for nodes with containerd a copy of their certs.d directory, or config.toml; repeatable "
        "(default: this machine's)",
    )
    made.add_argument(
        "--registries-conf-dir",
        metavar="[CLASS=]DIR",
        action="append",
        default=[],
        help="directory with the drop-ins beside it; repeatable",
    )
    made.add_argument(
        "--machine-configs",
        action="store_true",
        help="take registries.conf from the cluster's objects (OpenShift): from each MachineConfigPool's rendered "
        "MachineConfig, else from the mirror sets",
    )
    made.add_argument(
        "--config",
        metavar="FILE",
        type=there("file", "directory"),
        help="CredentialProviderConfig, for args and env of the plugin's entry (default: the one of "
        "this machine's kubelet)",
    )
    for name in _FLAGS:
        flag = FLAGS_BY_NAME[name]
        action = "append" if flag.repeatable else "store"
        made.add_argument(f"--{name}", metavar=flag.metavar, action=action, help=flag.help)
    made.add_argument(
        "--fail-on",
        choices=(NODE_CREDENTIALS, ANONYMOUS, NOT_CHECKED),
        action="append",
        default=[],
        help="exit with 1 for this outcome as well; repeatable (node-credentials: without static pods; not-checked: "
        "also what was only checked in part)",
    )
    made.add_argument(
        "--baseline",
        metavar="FILE",
        type=there("file"),
        help="JSON of an earlier audit: show what changed since; only pulls that got worse count for the exit status",
    )
    made.add_argument(
        "--live",
        action="store_true",
        help="ask each mirror once with each credential, as verify does; where no secret has one, without",
    )
    made.add_argument(
        "--live-rate",
        metavar="NUMBER",
        type=_rate,
        default=_RATE,
        help=f"questions in a second, over all mirrors (default {_RATE}); after {_ASKING // 60} minutes "
        "no more are asked",
    )
    made.add_argument(
        "--print-rbac", action="store_true", help="print the ClusterRole that reading the cluster requires"
    )
    made.add_argument(
        "-o",
        "--output",
        choices=("text", "json", "html", "sarif", "junit"),
        default="text",
        help="output format (default text)",
    )
    made.set_defaults(root=None)
    return made


def _audit(given: argparse.Namespace) -> int:
    _refuse_together(given)
    if given.print_rbac:
        from ...audit.server import CLUSTER_ROLE, OPENSHIFT_RULES

        rules = CLUSTER_ROLE + (OPENSHIFT_RULES if given.machine_configs else "")
        write_line(rules.removesuffix("\n"))
        return OK
    earlier = document.load_outcomes(given.baseline) if given.baseline else None
    place = look(given)
    auditor = _auditor(given, place)
    progress = _Progress()
    try:
        origin = _read(given, auditor, progress)
        # The program does without collection, and a refusal that is caught leaves a cycle. What was read stays.
        gc.freeze()
        gc.enable()
        found = auditor.finish(origin, lambda done, whole: progress.tell(f"decided {done} of {whole} pulls"))
        found = _checked(given, found)
        if given.live:
            found = _ask(found, auditor, given.live_rate, progress)
    finally:
        progress.end()
    if earlier is not None:
        found = found._replace(changes=document.compare(list(found.pulls), earlier, _chosen(given)))
    fatal = {FAILS, *given.fail_on}

    def is_fatal(pull: Pull) -> bool:
        # A static pod keeps a key of its own on the node.
        if pull.outcome == NODE_CREDENTIALS and pull.reason == "static-pod":
            return False
        if NOT_CHECKED in fatal and document.is_less_checked(pull, earlier or {}):
            return True
        return pull.outcome in fatal and (earlier is None or document.is_worse(pull, earlier))

    if given.output == "text":
        text.write_audit(found, is_narrow=bool(given.namespace or given.selector))
    else:
        write_lines(_lines(given.output, found, is_fatal))
    kinds = (*workloads.KINDS, *mirrorsets.KINDS)
    is_partial = auditor.has_unreadable or auditor.collected.lacks_any(kinds) or _is_guess(given, place)
    is_partial |= given.elsewhere is not None and given.elsewhere.is_partial
    return FAILING if (NOT_CHECKED in fatal and is_partial) or any(map(is_fatal, found.pulls)) else OK


def _refuse_together(given: argparse.Namespace) -> None:
    if given.all_namespaces and given.namespace:
        raise UsageError("-A and -n cannot be used together", "remove one of the two")
    flags = {"--context": given.context, "--kubeconfig": given.kubeconfig, "--print-rbac": given.print_rbac}
    for flag, value in flags.items():
        if value and given.files:
            raise UsageError(f"{flag} cannot be used with files", "remove one of the two")


def _checked(given: argparse.Namespace, found: Audit) -> Audit:
    """An audit of something; with a note of each chosen namespace that has nothing to audit."""
    there = {pull.namespace for pull in found.pulls}
    empty = [f"no pod or workload in namespace {name}" for name in given.namespace or () if name not in there]
    if found.pulls:
        return found._replace(notes=(*found.notes, *empty))
    why = ", ".join(empty) or "no pod or workload was read"
    if given.selector:
        why += f" with the labels {given.selector}"
    refused = [note for note in found.notes if " may not be listed" in note]
    check = "check the files, or -n and --selector" if given.files else "check --context, -n and --selector"
    raise UsageError("; ".join([why, *refused]), "" if refused else check)


def _chosen(given: argparse.Namespace) -> Callable[[document.Key], bool]:
    """Whether a pull of an earlier audit would be in this one; that is not known of labels."""
    return lambda key: not given.selector and (not given.namespace or key[0] in given.namespace)


def _namespace(text: str) -> str:
    if not names.is_label(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid namespace name")
    return text


def _context(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("is empty")
    return text


def _ask(found: Audit, auditor: Auditor, rate: float, progress: _Progress) -> Audit:
    from ..verification.asking import runtime_environment
    from . import live

    return live.ask(found, auditor.collected, runtime_environment("crio"), rate, _ASKING, progress.tell)


def _rate(text: str) -> float:
    """The value of ``--live-rate``."""
    try:
        rate = float(text)
    except ValueError:
        rate = 0
    if not 0 < rate <= _MAX_RATE:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0, up to {_MAX_RATE}")
    return rate


def _auditor(given: argparse.Namespace, place: Place) -> Auditor:
    own = [f"--{name}={text}" for name in _FLAGS for text in typed_values(given, name)]
    chosen = load_settings(own, place)
    if given.mirror_registry:
        chosen.mirror_registry = settings.loads(own, {}).mirror_registry
    if given.elsewhere and not given.global_auth_file:
        chosen.global_auth_file = ""
    if given.global_auth_file is not None:
        _check_auth_file(given.global_auth_file)
    elif NODE_CREDENTIALS in given.fail_on:
        if not os.path.exists(chosen.global_auth_file):
            raise UsageError(
                "--fail-on node-credentials requires the auth file of a node, and there is none here",
                "copy one (/var/lib/kubelet/config.json, or global_auth_file of crio.conf) and give it with "
                "--global-auth-file FILE",
            )
        _check_auth_file(chosen.global_auth_file)
    chosen.cache_dir = ""
    if given.machine_configs and given.registries_conf:
        raise UsageError("--machine-configs and --registries-conf cannot be used together", "remove one of the two")
    classes = None if given.machine_configs else _classes(given, chosen, place)
    selected = _selector(given.selector)
    made = Auditor(chosen, classes, given.namespace or (), selected, has_tokens=place.audience is not None)
    made.notes += [*(given.elsewhere.notes if given.elsewhere else ()), *filter(None, [place.note])]
    if _is_guess(given, place):
        made.notes.append(
            "this machine's registries.conf was used, and it has no CRI-O: give --registries-conf, "
            "on OpenShift --machine-configs"
        )
    return made


def _is_of_containerd(place: Place) -> bool:
    """Whether this is a node with containerd."""
    return place.runtime == settings.CONTAINERD and "kubelet" not in place.missing


def _is_guess(given: argparse.Namespace, place: Place) -> bool:
    """Whether registries.conf is that of this machine, which is not a node: podman has one as well."""
    is_own = not (given.registries_conf or given.machine_configs)
    return is_own and "CRI-O" in place.missing and not _is_of_containerd(place)


def _check_auth_file(path: str) -> None:
    """With none the audit would find that nothing depends on the node."""
    why = output.why_not(path, ("file",))
    if not why and (warnings := decision.global_config(path)[1]):
        why = "not a docker config: " + warnings[0].partition(" is ignored: ")[2]
    if why:
        raise UsageError(f"--global-auth-file: {path or repr(path)}: {why}")


def _classes(given: argparse.Namespace, chosen: settings.Settings, place: Place) -> list[NodeClass]:
    files = _by_class("--registries-conf", given.registries_conf)
    directories = _by_class("--registries-conf-dir", given.registries_conf_dir)
    for name, file in files.items():
        if not file:
            raise UsageError(f"--registries-conf: no file is named{f' for {name}' if name else ''}")
        if why := output.why_not(file, ("file", "directory")):
            raise UsageError(f"--registries-conf: {file}: {why}")
        if name in directories and (why := output.why_not(directories[name], ("directory",))):
            raise UsageError(f"--registries-conf-dir: {directories[name]}: {why}")
    for name in directories:
        if name not in files:
            raise UsageError(
                f"--registries-conf-dir: {name or 'without a class'}: give --registries-conf for it as well"
            )
    if files and not directories and not any(map(_has_content, files.values())):
        raise UsageError(f"--registries-conf: {', '.join(files.values())}: empty", "copy it from a node again")
    if not files and _is_of_containerd(place):
        return [nodes.load_own_containerd(chosen.containerd_config)]
    if not files:
        search = registries.search_files(chosen.registries_conf, chosen.registries_conf_dir)
        if not search.drop_ins and not os.path.exists(search.main):
            raise UsageError(
                f"there is no {search.main} here",
                "give a node's with --registries-conf FILE, on OpenShift --machine-configs",
            )
        return [nodes.load_own(chosen.registries_conf, chosen.registries_conf_dir)]
    # The one that takes every node is asked last.
    ordered = sorted(files.items(), key=lambda pair: not pair[0])
    found = [nodes.load(name, file, directories.get(name, "")) for name, file in ordered]
    return [one._replace(enforcing=given.elsewhere is None or given.elsewhere.enforcing) for one in found]


def _has_content(path: str) -> bool:
    """Whether a file has any; of a pipe that is not known."""
    return not os.path.isfile(path) or os.path.getsize(path) > 0


def _by_class(flag: str, values: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, path in map(nodes.parse, values):
        if name in found:
            which = f"for {name}" if name else "without a class"
            raise UsageError(f"{flag} is given twice {which}", "one counts: name a class with CLASS=, or remove one")
        found[name] = path
    return found


def _selector(text: str) -> Callable[[dict[str, str]], bool]:
    """The terms of a label selector: ``app=web``, ``app!=web``, ``app``, ``!app``."""
    terms = [term.strip() for term in text.split(",") if term.strip()]
    for term in terms:
        if " " in term or "(" in term:
            raise UsageError(f"--selector: {term!r} is not KEY=VALUE, KEY!=VALUE, KEY or !KEY")

    def fits(labels: dict[str, str], term: str) -> bool:
        key, differs, value = term.partition("!=")
        if differs:
            return labels.get(key) != value
        key, equals, value = term.replace("==", "=").partition("=")
        if equals:
            return labels.get(key) == value
        return key[1:] not in labels if key.startswith("!") else key in labels

    return lambda labels: all(fits(labels, term) for term in terms)


def _read(given: argparse.Namespace, auditor: Auditor, progress: _Progress) -> str:
    """Feeds the auditor; returns where the objects come from."""
    if given.files:
        read = 0
        for path in given.files:
            for found in lists.load(path):
                auditor.add(found)
                read += 1
                progress.tell(f"read {read} objects")
        if not auditor.collected.read:
            raise UsageError(
                f"{', '.join(given.files)}: no pod, workload or secret found",
                "kubectl get ... -o json writes such files",
            )
        return ", ".join("standard input" if path == "-" else path for path in given.files)
    from ...audit import server

    return server.read(auditor, given.namespace or (), given.kubeconfig or "", given.context or "", progress.tell)


class _Progress:
    """A line on stderr that tells how far it is, on a terminal alone."""

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()
        self._last = 0.0

    def tell(self, text: str) -> None:
        if self._is_shown and time.monotonic() - self._last > 0.2:
            self._last = time.monotonic()
            sys.stderr.write(f"\r\x1b[K{printable(text)}")
            sys.stderr.flush()

    def end(self) -> None:
        if self._last:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _lines(form: str, found: Audit, is_fatal: Callable[[Pull], bool]) -> Iterator[str]:
    """The audit in a form for programs or for a browser, line by line: the whole may be larger than memory."""
    if form == "html":
        from . import page

        return page.lines(found, time.time())
    if form == "sarif":
        from . import sarif

        return sarif.lines(found)
    if form == "junit":
        from . import junit

        return junit.lines(found, is_fatal)
    return _json(found)


# -- JSON -------------------------------------------------------------------------------------------------------------


def _json(found: Audit) -> Iterator[str]:
    """Pull by pull, a line each: the whole may be larger than memory."""
    head = as_json_line({"schemaVersion": output.SCHEMA_VERSION, **document.head(found)})
    yield f'{head[:-1]}, "pulls": ['
    for number, pull in enumerate(document.pulls(found), 1):
        yield as_json_line(pull) + ("," if number < len(found.pulls) else "")
    yield "]}"
