"""``kubectl mirror-credentials``: explain and verify the pulls of a workload from anywhere, with a kubeconfig alone.

The same executable, called by the name ``kubectl-mirror_credentials``. Knows the command line, and what differs from a
node; what is found and how it is shown is ``explain``'s and ``verify``'s. JSON is one object: ``assumed``, ``workload``
(``kind``, ``namespace``, ``name``; null with --image) and ``images``, a list of what those two report.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import tempfile
from typing import Any, NamedTuple

from ... import explanation
from ...audit import copies, server
from ...audit.workloads import ANYWHERE, Object, Want, member, text
from ...errors import ClusterError, ConfigError, ProviderError, RequestError, UsageError
from ...explanation import is_short_name, standin
from ...images import reference
from ...images.reference import ReferenceSyntaxError
from ...kubernetes import names
from ...kubernetes.credentialprovider import Request
from ...kubernetes.serviceaccount import ServiceAccount
from ...settings import CONTAINERD, CRIO, FLAGS_BY_NAME, POD, Settings
from ...tenant import published
from ...tenant.visible import Api, Visible, find_workload, parse_workload, wants_of
from .. import explain, verify
from ..output import (
    FAILED,
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
    there,
    write,
    write_line,
    write_report,
)
from ..request.find import Pull
from ..request.place import Place, find_settings, load_entry

_ACTIONS = ("explain", "verify", "audit", "version")
_PROGRAM = "kubectl mirror-credentials"
_FLAGS = ("secrets-from", "mirror-registry")
_SECONDS = 60
"""For ``kubectl config view``."""
_WORST = (FAILED, FAULT, OK)
_NOT_THE_NODE = (
    "the registries are asked from this machine, whose network, proxies and CAs are not the node's, with what is "
    "visible from here"
)

_DESCRIPTION = """\
Shows for each image of a workload what a pull on a node will do, as explain does there, or asks the
registries, as verify does there: with a kubeconfig alone, from any machine with kubectl. Installed as
kubectl-mirror_credentials, a link to this program in PATH, it is kubectl mirror-credentials.

It needs to read the pod (or workload), its service account, and the secrets of its namespace; nothing
of the whole cluster. What may not be read is reported, and the verdict is unknown then. Where the user
may impersonate the service account (the ClusterRole edit may), its own rights are checked as well. The
API server is asked through kubectl proxy, with read-only requests alone. The node's own auth file
is not visible from here. No secret's content is shown.

registries.conf is that of the nodes: from --registries-conf, else from the ConfigMap
crio-credential-provider-registries in namespace kube-public, which also may have the plugin's
settings, else made of OpenShift's mirror sets; never this machine's own. For nodes with containerd
--registries-conf takes a copy of their certs.d directory. audit is the command of that name, with the
same registries.conf.
"""
_EPILOG = """\
Examples:
  kubectl mirror-credentials explain web-5d4f8-x7k2p -n team-alpha
  kubectl mirror-credentials explain deployment/web -n team-alpha
  kubectl mirror-credentials explain --image nginx:1.27 -n team-alpha     for a pod that does not exist yet
  kubectl mirror-credentials verify deployment/web --registries-conf registries.conf
  kubectl mirror-credentials audit -n team-alpha
  crio-credential-provider kubectl explain deployment/web                 without the link

Exit status:
  0  every image gets what it needs; with verify: every pull would succeed
  3  one does not: no mirror gets a credential of the namespace, or the plugin or the pull fails
  1  unknown, reported on stderr: something may not be read, or is not visible from here
  2  wrong usage
"""


class Site(NamedTuple):
    """What stands for the node."""

    api: Api
    place: Place
    settings: Settings
    assumed: str


def run(arguments: list[str]) -> int:
    """As ``commands.run``, for the arguments after the word."""
    return serve("mirror-credentials", lambda: _run(arguments), "kubectl")


def parser() -> Parser:
    """The command line."""
    made = make_parser("kubectl", _DESCRIPTION, _EPILOG)
    made.prog = _PROGRAM
    made.is_mixed = True
    made.add_argument("action", metavar="ACTION", choices=_ACTIONS, help=", ".join(_ACTIONS))
    made.add_argument("workload", metavar="WORKLOAD", nargs="?", help="POD, or KIND/NAME: deployment/web, cronjob/sync")
    made.add_argument("name", metavar="NAME", nargs="?", help="after KIND alone: deployment web")
    made.add_argument(
        "--image", metavar="IMAGE", help="an image instead of a workload: of a pod that does not exist yet"
    )
    made.add_argument("--service-account", metavar="NAME", help="with --image: of the pod (default default)")
    made.add_argument("-n", "--namespace", metavar="NAMESPACE", help="namespace (default: the context's)")
    made.add_argument("--kubeconfig", metavar="FILE", type=there("file"), help="kubeconfig for kubectl")
    made.add_argument("--context", metavar="NAME", help="its context")
    for name, metavar, kinds, what in (
        (
            *("registries-conf", "FILE", ("file", "directory")),
            "registries.conf of the nodes; of nodes with containerd a copy of their certs.d directory, or config.toml",
        ),
        ("registries-conf-dir", "DIR", ("directory",), "directory with the drop-ins beside it"),
        ("config", "FILE", ("file", "directory"), "the nodes' CredentialProviderConfig, for the plugin's settings"),
    ):
        made.add_argument(f"--{name}", metavar=metavar, type=there(*kinds), help=what)
    made.add_argument(
        "--machine-config-pool",
        metavar="POOL",
        help="take registries.conf from this pool's MachineConfig, else from the mirror sets (OpenShift)",
    )
    for name in _FLAGS:
        flag = FLAGS_BY_NAME[name]
        action = "append" if flag.repeatable else "store"
        made.add_argument(f"--{name}", metavar=flag.metavar, action=action, help=f"the plugin's setting: {flag.help}")
    add_output(made)
    made.set_defaults(root=None)
    return made


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["__complete"]:
        return _complete(arguments[1:])
    if arguments[:1] in (["version"], ["--version"]):
        from ... import version

        write_line(version.as_text().rstrip("\n"))
        return OK
    if arguments[:1] == ["audit"]:
        return _audit(arguments[1:])
    given = parser().parse(["--help"] if not arguments or arguments[0] == "help" else arguments)
    if bool(given.workload) == bool(given.image):
        both = ", not both" if given.image else ""
        raise UsageError(f"give POD, KIND/NAME or --image IMAGE{both}", "--help has examples")
    if given.name:
        given.workload += f"/{given.name}"
    if given.workload:
        parse_workload(given.workload)
    if given.machine_config_pool and given.registries_conf:
        raise UsageError("--machine-config-pool and --registries-conf cannot be used together", "remove one of the two")
    if given.service_account and not given.image:
        raise UsageError("--service-account is for --image: a workload has its own")
    namespace = given.namespace or _namespace_of_context(given)
    for flag, name, is_valid in (
        ("-n", namespace, names.is_label),
        ("--service-account", given.service_account or "default", names.is_subdomain),
    ):
        if not is_valid(name):
            raise UsageError(f"{flag}: {name!r} is not a valid Kubernetes name")
    for name in ("registries_conf", "registries_conf_dir", "config"):
        setattr(given, name, os.path.abspath(path) if (path := getattr(given, name)) else "")
    with (
        server.kubectl(given.kubeconfig or "", given.context or "") as api,
        tempfile.TemporaryDirectory() as directory,
        # Files of the cluster have relative paths there, by which they are named in what is said.
        contextlib.chdir(directory),
    ):
        return _tell(given, namespace, api)


def _tell(given: argparse.Namespace, namespace: str, api: Api) -> int:
    found = find_workload(api, namespace, given.workload) if given.workload else None
    site = _site(given, api, found)
    if found is not None:
        wants = list(wants_of(found))
    else:
        account = given.service_account or "default"
        wants = [Want(namespace, account, given.image, (), is_static=False, is_pod=False, where=ANYWHERE)]
    name = text(member(found, "metadata"), "name") if found else ""
    workload = {"kind": found["kind"], "namespace": namespace, "name": name} if found else None
    if not wants:
        raise UsageError(f"{given.workload} has no image")
    is_text = given.output == "text"
    if is_text:
        write(Whole(sentence(site.assumed)))
    reports, statuses = [], []
    for number, want in enumerate(wants, 1):
        if is_text:
            who = f"{found['kind']} {namespace}/{name}, image {number} of {len(wants)}: " if found else ""
            write_line(f"\n{printable(who)}{printable(want.image)}")
        report, status = _image(given, want, found, site)
        reports.append(report)
        statuses.append(status)
    if not is_text:
        write_report({"assumed": site.assumed, "workload": workload, "images": reports})
    return next(status for status in _WORST if status in statuses)


def _image(given: argparse.Namespace, want: Want, found: Object | None, site: Site) -> tuple[Any, int]:
    """Tells of one image; its report for programs, and its exit status."""
    is_text = given.output == "text"
    try:
        asked = _pull(want, found, site)
        if given.action == "verify":
            report = verify.verify(asked, "", from_elsewhere=True)
            if is_text:
                verify.write_text(report)
            if report.succeeds is None:
                complain("mirror-credentials", f"{want.image}: {report.text}", "kubectl")
            return verify.as_json(report), {True: OK, False: FAILED, None: FAULT}[report.succeeds]
        explained = explain.explain(asked, site.place)
        visible = asked.connect()
        assert isinstance(visible, Visible)
        explained = explained._replace(notes=(*explained.notes, *visible.notes))
    except ProviderError as error:
        if given.action == "verify":
            # Without what to ask, or with what; an image that the kubelet rejects is never asked for.
            complain("mirror-credentials", f"{want.image}: {error}", "kubectl")
            succeeds = False if isinstance(error, RequestError) else None
            verdict = {"succeeds": succeeds, "source": None, "text": error.message, "remedy": error.hint or None}
            return {"image": want.image, "verdict": verdict}, FAULT if succeeds is None else FAILED
        explained = explanation.failed(error, site.settings, want.image)
    if is_text:
        explain.write_text(explained)
    if explained.verdict.status == explanation.UNKNOWN and explained.error is not None:
        complain("mirror-credentials", f"{want.image}: {explained.error}", "kubectl")
    return explain.as_json(explained), explain.STATUSES[explained.verdict.status]


def _pull(want: Want, found: Object | None, site: Site) -> Pull:
    """The pull of one image, as the kubelet would ask for it.

    Raises:
        RequestError: the kubelet takes no such image.
    """
    try:
        image = reference.parse(want.image)
    except ReferenceSyntaxError as error:
        raise RequestError(f"the kubelet rejects the image as InvalidImageName: {error.message}") from None
    pod = found if want.is_pod else None
    name = text(member(found, "metadata"), "name") if found else "pod" if site.settings.secrets_from == POD else ""
    uid = text(member(pod, "metadata"), "uid") if pod else ""
    notes = (site.place.note,) if site.place.note else ()
    has_token = site.place.audience is not None and not want.is_static
    token = standin.token(ServiceAccount(want.namespace, want.account, name, uid)) if has_token else ""
    api = Visible(site.api, want, pod)
    return Pull(
        want.image,
        image,
        Request(image.name, token),
        site.settings,
        lambda: api,
        notes,
        enforcing=is_short_name(want.image) and site.place.enforcing,
        as_kubelet=lambda: api,
    )


# -- what stands for the node -----------------------------------------------------------------------------------------


def _site(given: argparse.Namespace, api: Api, workload: Object | None) -> Site:
    """registries.conf, or containerd's files, and the plugin's settings: as given, else as published. Never those of
    this machine."""
    is_containerd = bool(given.registries_conf) and copies.is_containerd(given.registries_conf)
    _check_runtime(api, workload or {}, is_containerd=is_containerd)
    found = published.write(api, "")
    config, origin_of_config = given.config, given.config
    if isinstance(found, published.Published) and not config:
        config, origin_of_config = found.config, found.origin if found.config else ""
    containerd_config = root = ""
    if is_containerd:
        containerd_config, root = copies.write_config(given.registries_conf, "")
        found = published.Published("", "", "", given.registries_conf)
    elif given.registries_conf:
        main, drop_ins = given.registries_conf, given.registries_conf_dir or published.no_drop_ins("")
        found = published.Published(main, drop_ins, "", main)
    elif given.machine_config_pool:
        found = published.write_pool(api, "", given.machine_config_pool)
    elif isinstance(found, str):
        found = published.write_instead(api, "", found)
    arguments, variables, audience = load_entry(config) if config else ([], {}, "")
    note = ""
    if audience is None:
        note = f"the kubelet sends no token: the plugin's entry in {config} has no tokenAttributes"
    place = Place(
        config,
        arguments,
        variables,
        audience,
        note,
        kubeconfig="",
        crio_started=0.0,
        enforcing=found.enforcing,
        missing=("kubelet", "CRI-O", "containerd"),
    )
    chosen = find_settings(given, place)
    chosen.registries_conf, chosen.registries_conf_dir, chosen.root = found.main, found.drop_ins, root
    chosen.runtime, chosen.containerd_config = CONTAINERD if is_containerd else CRIO, containerd_config
    chosen.global_auth_file = ""
    flags = [f"--{name}" for name in _FLAGS if getattr(given, FLAGS_BY_NAME[name].attribute)]
    of_plugin = " and ".join([f"those of {origin_of_config}" if config else "its defaults", *flags])
    if config and origin_of_config == found.origin:
        of_plugin = " and ".join(["there as well", *flags])
    what = "containerd's files are those" if is_containerd else "registries.conf is that"
    assumed = f"this is not a node: {what} of {found.origin}, the plugin's settings are {of_plugin}"
    assumed = "; ".join([assumed, *found.notes])
    return Site(api, place, chosen, f"{assumed}; {_NOT_THE_NODE}" if given.action == "verify" else assumed)


def _check_runtime(api: Api, workload: Object, *, is_containerd: bool) -> None:
    """Refuses files that the pod's node does not read, where the user may see which runtime it has."""
    name = text(member(workload, "spec"), "nodeName")
    if not name:
        return
    try:
        info = member(member(api.get(f"/api/v1/nodes/{name}"), "status"), "nodeInfo")
    except ClusterError:
        return
    version = text(info, "containerRuntimeVersion")
    if version.startswith("containerd://") and not is_containerd:
        raise ConfigError(
            f"node {name} has {version}: containerd reads no registries.conf",
            "ask the platform team for a copy of /etc/containerd/certs.d of the node and give it with "
            "--registries-conf DIR",
        )
    if version.startswith("cri-o://") and is_containerd:
        raise ConfigError(
            f"node {name} has {version}: CRI-O reads no hosts.toml", "give its registries.conf with --registries-conf"
        )


def _namespace_of_context(given: argparse.Namespace) -> str:
    """As kubectl finds it."""
    command = [shutil.which("kubectl") or "kubectl", "config", "view", "--minify"]
    command += ["-o", "jsonpath={.contexts[0].context.namespace}"]
    command += [f"--kubeconfig={given.kubeconfig}"] if given.kubeconfig else []
    command += [f"--context={given.context}"] if given.context else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        raise ConfigError(f"kubectl config view did not end within {_SECONDS} s", "try: kubectl version") from None
    except OSError:
        return "default"
    # Without a current context there is nothing to minify.
    if done.returncode and "minify" not in done.stderr:
        raise ConfigError(f"kubectl config view: {' '.join(done.stderr.split())[:500]}", "try: kubectl version")
    return done.stdout.strip() or "default"


def _audit(arguments: list[str]) -> int:
    """The command ``audit``, which on a laptop must take neither the laptop's registries.conf nor its credentials."""
    from ..auditing import audit

    try:
        given = audit.parser(_PROGRAM).parse(arguments)
        if given.registries_conf or given.machine_configs or given.print_rbac:
            return audit.run(arguments, _PROGRAM, audit.Elsewhere())
        if given.registries_conf_dir:
            raise UsageError("--registries-conf-dir: give --registries-conf as well")
        if given.files:
            raise UsageError(
                "--registries-conf is missing",
                "with files, the API server is not asked for it; on OpenShift, --machine-configs takes it from them",
            )
        with tempfile.TemporaryDirectory() as place:
            with server.kubectl(given.kubeconfig or "", given.context or "") as api:
                found = published.write(api, place)
                if isinstance(found, str):
                    found = published.write_instead(api, place, found)
            flags = [f"--registries-conf={place}/{found.main}", f"--registries-conf-dir={place}/{found.drop_ins}"]
            flags += [f"--config={place}/{found.config}"] if found.config and not given.config else []
            notes = (f"registries.conf is that of {found.origin}", *found.notes)
            return audit.run([*arguments, *flags], _PROGRAM, audit.Elsewhere(notes, found.enforcing, found.is_partial))
    except ProviderError as error:
        complain("audit", str(error), _PROGRAM)
        return audit.FAULT


def _complete(arguments: list[str]) -> int:
    """What kubectl completes the last word with: lines, then a directive of cobra's (4: no files, 0: files)."""
    last, before = (arguments or [""])[-1], arguments[:-1]
    made = parser()
    flag = made._option_string_actions.get(before[-1]) if before else None
    words, directive = [], 4
    if flag is not None and flag.nargs != 0:
        metavar = str(flag.metavar)
        words = list(flag.choices or (metavar.split("|") if "|" in metavar else ()))
        directive = 0 if metavar in ("FILE", "DIR") else 4
    elif last.startswith("-"):
        words = [name for name in made._option_string_actions if name.startswith("--")]
    elif not before:
        words = list(_ACTIONS)
    write_line("\n".join([*(word for word in words if word.startswith(last)), f":{directive}"]))
    return OK
