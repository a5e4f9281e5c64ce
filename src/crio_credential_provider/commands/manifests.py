"""``crio-credential-provider manifests``: prints what a cluster needs, or writes it below a directory.

Knows the command line, which files it means, and how they are told; what stands in them knows the package
``manifests``. Reads registries.conf and, with ``--merge``, one CredentialProviderConfig. Nothing is written without
``--directory`` or ``--in-place``, and nothing that is there is overwritten without ``--force``.

JSON (``--output json``): for objects of the API server the object itself, or a ``List`` of several; for ``config``
that object; else ``{"objects": [...], "files": [{"path", "mode", "content", "then"}]}``; with ``--merge``
``{"text", "changes", "overlaps": [{"provider", "pattern", "ours"}], "notes"}``; without a kind the list of kinds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .. import settings
from ..errors import ConfigError, ProviderError, UsageError, masked
from ..images import reference
from ..kubernetes import imagepatterns
from ..kubernetes.credentialproviderconfig import NAME
from ..manifests import configfile, layout, matchimages, merge, nodefiles, objects, providerconfig
from ..manifests.matchimages import Derived
from ..manifests.nodefiles import DISTRIBUTIONS, Node, NodeFile
from ..manifests.providerconfig import Wanted
from ..runtimes.crio import registries
from ..settings import FLAGS_BY_NAME
from .output import OK, Parser, add_output, make_parser, note, printable, serve, there, write, write_json, write_line

DEFAULT_VERSION = "1.34"

_DESCRIPTION = """\
Prints what a cluster needs for this plugin: the kubelet's configuration, RBAC, units and files of a
node, a DaemonSet, the same for OpenShift. matchImages come from registries.conf, as found here
or given, unless --match-image is used. Without KIND: the list of kinds.
"""
_EPILOG = """\
API objects, or one file of a node, are printed to standard output; for more give --directory: there
objects are written as NAME.yaml, files of a node below node/ with their paths. An existing file with
other content is only overwritten with --force.

--merge FILE (KIND is config then, if none is given) prints FILE with this plugin's provider in it. All
else stays unchanged; the plugin's own entry is updated, and settings that are not given keep their
value. What was changed, and which other providers match the same images, is printed to standard error.
A second merge changes nothing. --in-place writes it back.

Examples:
  crio-credential-provider manifests                              the kinds
  crio-credential-provider manifests config                       from this node's registries.conf
  crio-credential-provider manifests config --kubernetes 1.33 --match-image docker.io
  crio-credential-provider manifests config --merge /etc/kubernetes/credential-provider-config.yaml --in-place
  crio-credential-provider manifests rbac -n team-alpha -n team-beta --output json | kubectl apply -f -
  crio-credential-provider manifests machineconfig --distribution openshift-aws --merge ecr-credential-provider.yaml
  crio-credential-provider manifests all -n team-alpha --directory out

Exit status: 0 printed or written; 1 an error, reported on stderr; 2 wrong usage.
"""


class Kind(NamedTuple):
    """Something that can be asked for: what it is, and who takes it."""

    what: str
    taker: str


KINDS = {
    "config": Kind("the kubelet's CredentialProviderConfig", "node"),
    "rbac": Kind("permissions of the nodes, and with -n of service accounts", "kubectl"),
    "pull-secrets": Kind("permissions of service accounts, for --secrets-from, in each -n", "kubectl"),
    "kubelet": Kind("a drop-in with the kubelet's flags", "node"),
    "crio": Kind("CRI-O's drop-in, if --auth-dir is not its default", "node"),
    "mount": Kind("the tmpfs for auth files, a systemd unit", "node"),
    "tmpfiles": Kind("systemd-tmpfiles: creates and cleans the directories", "node"),
    "daemonset": Kind("installs the program from a container image on every node", "kubectl"),
    "machineconfig": Kind("the files of a node, for OpenShift", "kubectl"),
    "butane": Kind("the same as Butane, for OpenShift or Fedora CoreOS", "butane"),
    "kustomize": Kind("rbac, pull-secrets and daemonset with kustomization.yaml; needs --directory", "kubectl"),
    "all": Kind("each of these but machineconfig and butane; needs --directory", "both"),
}


class Output(NamedTuple):
    """One file of the answer.

    Attributes:
        name: its path below ``--directory``.
        text: its content.
        objects: what it holds for the API server; none for a file of a node.
        file: the file of a node.
    """

    name: str
    text: str
    objects: tuple[Any, ...] = ()
    file: NodeFile | None = None


def run(arguments: list[str]) -> int:
    """Serves the command.

    Args:
        arguments: the command line after the word ``manifests``.

    Returns:
        The exit status.
    """
    return serve("manifests", lambda: _make(parser().parse(arguments)))


def _make(given: argparse.Namespace) -> int:
    if given.merge is not None and not given.kinds:
        given.kinds = ["config"]
    if not given.kinds:
        return _list_kinds(given)
    _check(given)
    request = _Request(given)
    if given.merge is not None and given.kinds == ["config"]:
        return _merge(request)
    outputs = [output for kind in _kinds(given) for output in _BUILDERS[kind](request)]
    if given.directory is not None:
        return _write_files(given, outputs)
    return _print(given, outputs)


# -- the command line -------------------------------------------------------------------------------------------------


def parser() -> Parser:
    """The command line."""
    made = make_parser("manifests", _DESCRIPTION, _EPILOG)
    made.add_argument("kinds", nargs="*", metavar="KIND", choices=_Kinds(KINDS), help=", ".join(KINDS))
    cluster = made.add_argument_group("the cluster")
    cluster.add_argument(
        "--distribution",
        choices=tuple(DISTRIBUTIONS),
        help="paths, and how flags are given to the kubelet (default kubeadm)",
    )
    cluster.add_argument("--kubernetes", metavar="VERSION", help=f"1.33 or newer (default {DEFAULT_VERSION})")
    cluster.add_argument("--audience", metavar="AUDIENCE", help="of the API server (default: the distribution's)")
    cluster.add_argument(
        "--config-path", metavar="FILE", help="the CredentialProviderConfig on the node (default: the distribution's)"
    )
    cluster.add_argument("--bin-dir", metavar="DIR", help="the plugin's directory (default: the distribution's)")
    cluster.add_argument("--role", metavar="ROLE", default="worker", help="of the MachineConfig (default worker)")
    images = made.add_argument_group("images to match")
    images.add_argument(
        "--match-image", metavar="PATTERN", action="append", help="instead of registries.conf; repeatable"
    )
    for name, metavar, kind, text in (
        ("registries-conf", "FILE", "file", "read this, like CRI-O's flag of that name"),
        ("registries-conf-dir", "DIR", "directory", "read this, like CRI-O's flag"),
        ("root", "DIR", "directory", "look for registries.conf below this directory"),
    ):
        images.add_argument(f"--{name}", metavar=metavar, type=there(kind), default="", help=text)
    plugin = made.add_argument_group("flags of the plugin")
    for name, action in (("secrets-from", "store"), ("mirror-registry", "append"), ("auth-dir", "store")):
        flag = FLAGS_BY_NAME[name]
        plugin.add_argument(f"--{name}", metavar=flag.metavar, action=action, help=flag.help)
    plugin.add_argument(
        "--plugin-arg", metavar="ARG", action="append", help="any other flag, as in --plugin-arg=--log-level=debug"
    )
    tenants = made.add_argument_group("tenants")
    tenants.add_argument("-n", "--namespace", metavar="NAME", action="append", help="repeatable")
    tenants.add_argument(
        "--service-account", metavar="NAME", action="append", help="instead of all of the namespace; repeatable"
    )
    tenants.add_argument(
        "--pull-secret", metavar="NAME", action="append", help="that the service accounts list; repeatable"
    )
    made.add_argument("--image", metavar="IMAGE", help=f"of the DaemonSet (default {objects.IMAGE})")
    made.add_argument(
        "--merge",
        metavar="FILE",
        type=there("file", "directory"),
        help="a CredentialProviderConfig to add this plugin's provider to",
    )
    made.add_argument("--in-place", action="store_true", help="write the result of --merge back to FILE")
    made.add_argument("--directory", metavar="DIR", help="write files below this directory instead of printing")
    made.add_argument("--force", action="store_true", help="overwrite files there whose content differs")
    add_output(made)
    return made


class _Kinds(tuple[str, ...]):
    """Choices of which none may be made: argparse holds the empty list against them as well."""

    __slots__ = ()

    def __contains__(self, kind: object) -> bool:
        return kind == [] or super().__contains__(kind)


_PATH = re.compile(r"/[\w./@:+,-]*[\w]", re.ASCII)
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_DOTTED_NAME = re.compile(rf"{_NAME.pattern}(\.{_NAME.pattern})*")


def _check(given: argparse.Namespace) -> None:
    """Values that would make a file that is none."""
    for flag in ("config_path", "bin_dir", "auth_dir"):
        path = getattr(given, flag)
        if path is not None and (not _PATH.fullmatch(path) or ".." in path.split("/") or "//" in path):
            name = flag.replace("_", "-")
            raise UsageError(f"--{name}: {path!r} is not an absolute path of letters, digits and ./@:+,-_")
    for flag, pattern in (("namespace", _NAME), ("service_account", _DOTTED_NAME), ("pull_secret", _DOTTED_NAME)):
        for text in getattr(given, flag) or ():
            if not pattern.fullmatch(text):
                raise UsageError(f"--{flag.replace('_', '-')}: {text!r} is not a valid object name")
    if not _NAME.fullmatch(given.role):
        raise UsageError(f"--role: {given.role!r} is not a valid MachineConfigPool name")
    if given.audience is not None and not re.fullmatch(r"[!-~]+", given.audience):
        raise UsageError(f"--audience: {given.audience!r} is empty or has spaces")
    for text in given.match_image or ():
        if dead := imagepatterns.why_dead(text):
            raise UsageError(f"--match-image: {masked(text)!r} matches no image: {dead}")
    _check_combinations(given)


def _check_combinations(given: argparse.Namespace) -> None:
    with_config = {"config", "machineconfig", "butane", "all"}
    if given.merge is not None and not with_config & {*given.kinds}:
        raise UsageError("--merge requires one of the kinds config, machineconfig, butane and all")
    if given.in_place and (given.merge is None or given.kinds != ["config"]):
        raise UsageError("--in-place requires --merge and the kind config alone")
    if given.in_place and given.directory is not None:
        raise UsageError("--in-place cannot be used with --directory")
    if given.force and given.directory is None:
        raise UsageError("--force requires --directory")
    if {"kustomize", "all"} & {*given.kinds} and given.directory is None:
        raise UsageError("kustomize and all print several files", "give a directory with --directory")
    if given.image is not None:
        try:
            reference.parse(given.image)
        except ProviderError as error:
            raise UsageError(f"--image: {error.message}") from None


class _Request:
    """What was asked for, with defaults filled in."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.distribution = DISTRIBUTIONS[given.distribution or "kubeadm"]
        self.args = _plugin_args(given)
        self.settings = settings.loads(self.args, {})
        self.kubernetes = providerconfig.parse_version(given.kubernetes or DEFAULT_VERSION)
        self.audience = given.audience or self.distribution.audience
        self.node = Node(
            given.distribution or "kubeadm",
            self.kubernetes,
            given.config_path or self.distribution.config_path,
            given.bin_dir or self.distribution.bin_dir,
            self.settings.auth_dir,
        )
        self._derived: Derived | None = None

    @property
    def derived(self) -> Derived | None:
        """From registries.conf, read once; None where patterns are given."""
        if self.given.match_image:
            return None
        if self._derived is None:
            search = registries.search_files(
                self.given.registries_conf, self.given.registries_conf_dir, self.given.root.rstrip("/")
            )
            config = registries.load(search)
            self._derived = matchimages.match_images(config, self.settings.mirror_registry)
        return self._derived

    @property
    def wanted(self) -> Wanted:
        patterns = tuple(self.given.match_image or (self.derived.patterns if self.derived else ()))
        audience = self.audience if self.given.audience or self.given.distribution else ""
        return Wanted(self.kubernetes, patterns, audience, tuple(self.args))


def _plugin_args(given: argparse.Namespace) -> list[str]:
    args = [f"--secrets-from={given.secrets_from}"] if given.secrets_from is not None else []
    args += [f"--mirror-registry={text}" for text in given.mirror_registry or ()]
    args += [f"--auth-dir={given.auth_dir}"] if given.auth_dir is not None else []
    return args + (given.plugin_arg or [])


def _kinds(given: argparse.Namespace) -> list[str]:
    """Kinds one by one, each once."""
    tenants = ["pull-secrets"] if given.namespace else []
    spelled: list[str] = []
    for kind in given.kinds:
        if kind == "all":
            spelled += ["config", "kubelet", "crio", "mount", "tmpfiles", "kustomize"]
        elif kind == "rbac":
            spelled += ["rbac", *tenants]
        else:
            spelled.append(kind)
    return list(dict.fromkeys(spelled))


# -- what is made -----------------------------------------------------------------------------------------------------


def _config(request: _Request) -> list[Output]:
    return [_of_node(_config_file(request))]


def _config_file(request: _Request) -> NodeFile:
    """The CredentialProviderConfig: a new one, or with ``--merge`` that with our provider in it."""
    then = "restart the kubelet"
    if request.given.merge is not None:
        return NodeFile(request.node.config_path, _merged(request).text, then)
    entry = providerconfig.new_entry(request.wanted)
    return NodeFile(
        request.node.config_path, layout.dumps(nodefiles.config(entry, request.node, request.derived)), then
    )


def _rbac(request: _Request) -> list[Output]:
    return [_of_objects("node-rbac.yaml", objects.node_rbac(request.audience))]


def _pull_secrets(request: _Request) -> list[Output]:
    given = request.given
    made = objects.pull_secret_access(
        request.settings.secrets_from, given.namespace or (), given.service_account or (), given.pull_secret or ()
    )
    return [_of_objects("pull-secrets.yaml", made)]


def _daemonset(request: _Request) -> list[Output]:
    if request.node.how == "platform":
        raise UsageError(
            f"a DaemonSet cannot write to {request.node.bin_dir}, which the platform names and which belongs to the "
            "read-only image of the operating system",
            "add the program to that image (image layering)",
        )
    image = request.given.image or objects.IMAGE
    made = objects.daemonset(image, request.node.bin_dir, openshift=request.node.how == "variable")
    return [_of_objects("daemonset.yaml", made)]


def _kustomize(request: _Request) -> list[Output]:
    files = _rbac(request)
    if request.given.namespace:
        files += _pull_secrets(request)
    if request.node.how != "platform":
        files += _daemonset(request)
    made = objects.kustomization([output.name for output in files])
    # kubectl reads a kustomization, and never sends it to the API server.
    return [*files, Output("kustomization.yaml", layout.dumps(made))]


def _files(make: Callable[[Node], list[NodeFile]], why_none: str) -> Callable[[_Request], list[Output]]:
    def build(request: _Request) -> list[Output]:
        made = make(request.node)
        if not made:
            note(f"Nothing to do: {why_none}")
        return [_of_node(file) for file in made]

    return build


def _node_files(request: _Request) -> list[NodeFile]:
    if request.node.how == "platform" and request.given.merge is None:
        raise UsageError(
            f"{request.node.config_path} belongs to the platform, which would lose its own provider",
            "give a node's copy of that file with --merge",
        )
    parts = (nodefiles.kubelet, nodefiles.crio, nodefiles.mount, nodefiles.tmpfiles)
    return [_config_file(request), *(file for part in parts for file in part(request.node))]


def _machine_config(request: _Request) -> list[Output]:
    _must_be_openshift(request)
    made = nodefiles.machine_config(_node_files(request), request.given.role)
    return [_of_objects(f"99-{request.given.role}-{NAME}.yaml", [made])]


def _must_be_openshift(request: _Request) -> None:
    if not request.node.distribution.startswith("openshift"):
        raise UsageError(
            "machineconfig is for OpenShift", "give --distribution openshift, openshift-aws, -azure or -gcp"
        )


def _butane(request: _Request) -> list[Output]:
    openshift = request.node.distribution.startswith("openshift")
    made = nodefiles.butane(_node_files(request), request.given.role, openshift=openshift)
    return [Output(f"{NAME}.bu", layout.dumps(made))]


_BUILDERS: dict[str, Callable[[_Request], list[Output]]] = {
    "config": _config,
    "rbac": _rbac,
    "pull-secrets": _pull_secrets,
    "kubelet": _files(
        nodefiles.kubelet,
        "the platform's own kubelet.service has both flags; config is written to the path that they name",
    ),
    "crio": _files(nodefiles.crio, f"CRI-O looks into {nodefiles.AUTH_DIR} by itself"),
    "mount": _files(nodefiles.mount, "/run is a tmpfs"),
    "tmpfiles": _files(nodefiles.tmpfiles, ""),
    "daemonset": _daemonset,
    "machineconfig": _machine_config,
    "butane": _butane,
    "kustomize": _kustomize,
}


def _of_node(file: NodeFile) -> Output:
    return Output(f"node{file.path}", file.text, file=file)


def _of_objects(name: str, made: Sequence[Any]) -> Output:
    return Output(name, layout.dumps(*made), tuple(layout.plain(one) for one in made))


# -- printing and writing ---------------------------------------------------------------------------------------------


def _print(given: argparse.Namespace, outputs: list[Output]) -> int:
    if given.output == "json":
        write_json(_as_json(outputs))
        return OK
    if len(outputs) > 1 and not all(output.objects for output in outputs):
        raise UsageError("these kinds print several files", "give a directory with --directory")
    text = "---\n".join(output.text for output in outputs)
    if text:
        write_line(text.removesuffix("\n"))
    return OK


def _as_json(outputs: list[Output]) -> Any:
    found = [one for output in outputs for one in output.objects]
    rest = [output for output in outputs if not output.objects]
    if not rest:
        return found[0] if len(found) == 1 else {"apiVersion": "v1", "kind": "List", "items": found}
    parsed = _parsed(rest[0]) if len(outputs) == 1 else None
    if parsed is not None:
        return parsed
    files = [
        {
            "path": output.file.path if output.file else output.name,
            "mode": f"{nodefiles.MODE:04o}",
            "content": output.text,
            "then": output.file.then if output.file else "",
        }
        for output in rest
    ]
    return {"objects": found, "files": files}


def _parsed(output: Output) -> Any:
    """A single YAML file as the value that it is; None for another."""
    if output.file is not None and not output.file.path.endswith(".yaml"):
        return None
    import yaml

    return yaml.safe_load(output.text)


def _write_files(given: argparse.Namespace, outputs: list[Output]) -> int:
    """All or nothing, as far as what is there is concerned."""
    places = [(os.path.join(given.directory, output.name), output) for output in outputs]
    states = [_state(place, output.text) for place, output in places]
    differing = [place for (place, _), state in zip(places, states, strict=True) if state == "overwritten"]
    if differing and not given.force:
        raise ConfigError(
            f"files exist with other content: {', '.join(differing)}", "nothing was written; --force overwrites them"
        )
    for (place, output), state in zip(places, states, strict=True):
        if state != "unchanged":
            os.makedirs(os.path.dirname(place), exist_ok=True)
            _replace(place, output.text, nodefiles.MODE)
    if given.output == "json":
        told = [{"path": place, "state": state} for (place, _), state in zip(places, states, strict=True)]
        write_json({"files": told})
        return OK
    for (place, output), state in zip(places, states, strict=True):
        then = f"; on the node then: {output.file.then}" if output.file else ""
        write_line(f"{state}: {printable(place)}{then}")
    return OK


def _state(place: str, text: str) -> str:
    try:
        with open(place, encoding="utf-8", newline="") as file:
            return "unchanged" if file.read() == text else "overwritten"
    except FileNotFoundError:
        return "written"
    except UnicodeDecodeError:
        return "overwritten"


def _replace(place: str, text: str, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Writes a file whole: whoever opens it finds the old content or the new."""
    descriptor, fresh = tempfile.mkstemp(dir=os.path.dirname(place), prefix=".manifests-")
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            if owner is not None and owner != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), *owner)
            os.fsync(file.fileno())
        os.replace(fresh, place)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise


def _list_kinds(given: argparse.Namespace) -> int:
    if given.output == "json":
        write_json([{"kind": name, "what": kind.what, "taker": kind.taker} for name, kind in KINDS.items()])
        return OK
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("kind", "for", "what it is"):
        table.add_column(title, no_wrap=title != "what it is")
    for name, kind in KINDS.items():
        table.add_row(name, kind.taker, kind.what)
    write(table, "", "Give one or more of them; for flags see manifests --help")
    return OK


# -- merging ----------------------------------------------------------------------------------------------------------


def _merged(request: _Request) -> merge.Merged:
    path = request.given.merge
    merged = merge.merge(_read(path), request.wanted, name=path)
    _tell(path, merged)
    return merged


def _read(path: str) -> str:
    if os.path.isdir(path):
        raise ConfigError(
            f"{path} is a directory, whose files the kubelet joins (from 1.34 on)",
            f"merge into the file with this plugin's provider, or write the output of `manifests config` next to "
            f"the others, to {os.path.join(path, NAME)}.yaml",
        )
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read(configfile.MAX_SIZE + 1)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 at byte {error.start}", "the kubelet cannot read it either") from None


def _tell(path: str, merged: merge.Merged) -> None:
    """On standard error: standard output is the file."""
    for change in merged.changes:
        note(f"Changed: {change}")
    if not merged.changes:
        note(f"Nothing to change in {path}")
    for overlap in merged.overlaps:
        note(
            f"Overlap: {overlap.provider} ({overlap.pattern}) and {NAME} ({overlap.ours}): for an image "
            "that both match the kubelet runs both, and tries their answers one after the other"
        )
    for text in merged.notes:
        note(f"Note: {text}")


def _merge(request: _Request) -> int:
    given = request.given
    path = given.merge
    if given.directory is not None:
        return _write_files(given, _config(request))
    merged = _merged(request)
    if given.in_place:
        if merged.changes:
            real = os.path.realpath(path)
            status = os.stat(real)
            _replace(real, merged.text, status.st_mode & 0o7777, (status.st_uid, status.st_gid))
        return OK
    if given.output == "json":
        told = merged._asdict()
        write_json({**told, "overlaps": [overlap._asdict() for overlap in merged.overlaps]})
    else:
        write_line(merged.text.removesuffix("\n"))
    return OK
