"""``crio-credential-provider manifests``: prints what a cluster needs, or writes it below a directory.

Knows the command line, which files it means, and how they are printed; the package ``manifests`` knows
what is in them. Reads registries.conf, or containerd's configuration, and, with ``--merge``, one
CredentialProviderConfig. Nothing is written without
``--directory`` or ``--in-place``, and nothing that is there is overwritten without ``--force``.

JSON (``--output json``): for objects of the API server the object itself, or a ``List`` of several; for ``config``
that object; else ``{"objects": [...], "files": [{"path", "mode", "content", "then"}]}``; with ``--merge``
``{"text", "changes", "overlaps": [{"provider", "pattern", "ours"}], "notes"}``; without a kind the list of kinds.
"""

from __future__ import annotations

import argparse
import os
import re
from typing import Any

from .. import settings
from ..errors import ConfigError, ProviderError, UsageError, masked
from ..images import reference
from ..kubernetes import imagepatterns
from ..kubernetes.credentialproviderconfig import NAME
from ..manifests import (
    configfile,
    exposures,
    kinds,
    layout,
    matchimages,
    merge,
    nodefiles,
    objects,
    providerconfig,
)
from ..manifests.kinds import KINDS, Output
from ..manifests.matchimages import Derived
from ..manifests.nodefiles import DISTRIBUTIONS, Node
from ..manifests.providerconfig import Wanted
from ..node import containerd
from ..node.tree import Tree
from ..runtimes.crio import registries
from ..runtimes.crio.registries import SearchPath
from ..settings import CONTAINERD, CRIO, FLAGS_BY_NAME
from . import wholefile
from .output import (
    OK,
    Parser,
    add_output,
    make_parser,
    note,
    printable,
    serve,
    there,
    write,
    write_json,
    write_line,
    write_report,
)

DEFAULT_VERSION = "1.34"
# The strings of a TOML text, so that no # in one begins a comment; then comments.
_STRING_OR_COMMENT = re.compile(
    r"""( "{3}(?:\\.|[^\\])*?"{3}(?!") | '{3}.*?'{3}(?!') | "(?:\\.|[^"\\\n])*" | '[^'\n]*' )
        | ^[ \t]*\#[^\n]*\n? | [ \t]*\#[^\n]*""",
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)
Group = argparse._ArgumentGroup

_DESCRIPTION = """\
Prints what a cluster needs for this plugin: the kubelet's configuration, RBAC, units and files of a
node, a DaemonSet, the same for OpenShift. matchImages come from registries.conf, or with --runtime
containerd from its hosts.toml files, as found here or given, unless --match-image is used. Without
KIND: the list of kinds.
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
  crio-credential-provider manifests config --runtime containerd --distribution k3s
  crio-credential-provider manifests config --merge /etc/kubernetes/credential-provider-config.yaml --in-place
  crio-credential-provider manifests rbac -n team-alpha -n team-beta --output json | kubectl apply -f -
  crio-credential-provider manifests registries --secrets-from pod | kubectl apply -f -
  crio-credential-provider manifests machineconfig --distribution openshift-aws --merge ecr-credential-provider.yaml
  crio-credential-provider manifests all -n team-alpha --directory out

Exit status: 0 printed or written; 1 an error, reported on stderr; 2 wrong usage.
"""


def run(arguments: list[str]) -> int:
    """As ``commands.run``, for the arguments after the word."""
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
    outputs = _build(request)
    if given.directory is not None:
        return _write_files(given, outputs)
    return _print(given, outputs)


def _build(request: _Request) -> list[Output]:
    outputs = []
    for kind in _kinds(request.given):
        made = kinds.BUILDERS[kind](request.for_kinds())
        if not made:
            is_theirs = kind in _CRIO_S_KINDS and request.runtime == CONTAINERD
            note(f"Nothing to do: {kinds.WHY_NONE_FOR_CONTAINERD if is_theirs else kinds.WHY_NONE[kind]}")
        outputs += made
    return outputs


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
    cluster.add_argument("--role", metavar="ROLE", default="worker", help="of the MachineConfig (default worker)")
    images = add_entry_flags(made, "the distribution's", cluster, runtime=CRIO)
    for name, metavar, kind, text in (
        ("registries-conf", "FILE", "file", "read this, and this machine's drop-ins, like CRI-O's flag"),
        ("registries-conf-dir", "DIR", "directory", "the only drop-in directory, like CRI-O's flag"),
        ("root", "DIR", "directory", "look for registries.conf, or containerd's files, below this directory"),
    ):
        images.add_argument(f"--{name}", metavar=metavar, type=there(kind), default="", help=text)
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


def add_entry_flags(made: Parser, default: str, cluster: Group | None = None, *, runtime: str) -> Group:
    """The flags for what the plugin's provider says, and where it is put.

    Args:
        default: whose paths and audience are taken where none are given.
        cluster: the group for these; None for one of their own.
        runtime: which is taken where none is given, for the help.

    Returns:
        The group of the images.
    """
    cluster = cluster or made.add_argument_group("the cluster")
    cluster.add_argument("--audience", metavar="AUDIENCE", help=f"of the API server (default: {default})")
    cluster.add_argument(
        "--config-path", metavar="FILE", help=f"the CredentialProviderConfig on the node (default: {default})"
    )
    cluster.add_argument("--bin-dir", metavar="DIR", help=f"the plugin's directory (default: {default})")
    cluster.add_argument(
        "--runtime", choices=(CRIO, CONTAINERD), help=f"the nodes' container runtime (default: {runtime})"
    )
    images = made.add_argument_group("images to match")
    images.add_argument(
        "--match-image",
        metavar="PATTERN",
        action="append",
        help="instead of those that registries.conf or containerd's files call for; repeatable",
    )
    plugin = made.add_argument_group("flags of the plugin")
    for name, action in (
        *(("secrets-from", "store"), ("mirror-registry", "append")),
        *(("auth-dir", "store"), ("containerd-config", "store")),
    ):
        flag = FLAGS_BY_NAME[name]
        plugin.add_argument(f"--{name}", metavar=flag.metavar, action=action, help=flag.help)
    plugin.add_argument(
        "--plugin-arg", metavar="ARG", action="append", help="any other flag, as in --plugin-arg=--log-level=debug"
    )
    return images


class _Kinds(tuple[str, ...]):
    """Choices of which none may be made: argparse holds the empty list against them as well."""

    __slots__ = ()

    def __contains__(self, kind: object) -> bool:
        return kind == [] or super().__contains__(kind)


_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_DOTTED_NAME = re.compile(rf"{_NAME.pattern}(\.{_NAME.pattern})*")


def check_entry(given: argparse.Namespace) -> None:
    """Values of the flags of ``add_entry_flags`` that would make an invalid file."""
    for flag in ("config_path", "bin_dir", "auth_dir", "containerd_config"):
        path = getattr(given, flag)
        if path is not None and not nodefiles.is_plain_path(path):
            name = flag.replace("_", "-")
            raise UsageError(f"--{name}: {path!r} is not an absolute path of letters, digits and ./@:+,-_")
    if given.audience is not None and not re.fullmatch(r"[!-~]+", given.audience):
        raise UsageError(f"--audience: {given.audience!r} is empty or has spaces")
    for text in given.match_image or ():
        if dead := imagepatterns.why_dead(text):
            raise UsageError(f"--match-image: {masked(text)!r} matches no image: {dead}")


def _check(given: argparse.Namespace) -> None:
    """Values that would make an invalid file."""
    for flag, pattern in (("namespace", _NAME), ("service_account", _DOTTED_NAME), ("pull_secret", _DOTTED_NAME)):
        for text in getattr(given, flag) or ():
            if not pattern.fullmatch(text):
                raise UsageError(f"--{flag.replace('_', '-')}: {text!r} is not a valid object name")
    if not _NAME.fullmatch(given.role):
        raise UsageError(f"--role: {given.role!r} is not a valid MachineConfigPool name")
    check_entry(given)
    _check_combinations(given)


def _check_combinations(given: argparse.Namespace) -> None:
    if given.runtime == CONTAINERD:
        _check_containerd(given)
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


def _check_containerd(given: argparse.Namespace) -> None:
    if (given.distribution or "").startswith("openshift"):
        raise UsageError("--runtime containerd: OpenShift has CRI-O", "remove --runtime or --distribution")
    if "registries" in given.kinds:
        raise UsageError("registries publishes registries.conf, which containerd does not read")


class _Request:
    """What was asked for, with defaults filled in."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.distribution = DISTRIBUTIONS[given.distribution or "kubeadm"]
        self.args = plugin_args(given)
        self.settings = settings.loads(self.args, {})
        self.runtime = CONTAINERD if self.settings.runtime == CONTAINERD else CRIO
        if self.runtime == CONTAINERD and not any(arg.startswith("--containerd-config") for arg in self.args):
            self.args += containerd_args(self.distribution.containerd_config)
            self.settings = settings.loads(self.args, {})
        self.kubernetes = providerconfig.parse_version(given.kubernetes or DEFAULT_VERSION)
        self.audience = given.audience or self.distribution.audience
        self.node = Node(
            given.distribution or "kubeadm",
            self.kubernetes,
            given.config_path or self.distribution.config_path,
            given.bin_dir or self.distribution.bin_dir,
            self.settings.auth_dir,
            self.runtime,
        )
        self._derived: Derived | None = None

    @property
    def _search(self) -> SearchPath:
        given = self.given
        return registries.search_files(given.registries_conf, given.registries_conf_dir, given.root.rstrip("/"))

    def registries(self) -> dict[str, str]:
        """The files of registries.conf as a ConfigMap takes them, without comments.

        Raises:
            ConfigError: CRI-O refuses one, or it is not for everybody's eyes.
        """
        search = self._search
        for table in registries.load(search).tables():
            for location in (table.prefix, table.location, *(mirror.location for mirror in table.mirrors)):
                if masked(location) != location:
                    raise ConfigError(f"{table.file}: {masked(location)} has a user or a query", "remove it first")
        found: dict[str, str] = {}
        for path in (search.main, *search.drop_ins):
            key = objects.MAIN_KEY if path == search.main else os.path.basename(path)
            if not re.fullmatch(r"[-._a-zA-Z0-9]+", key):
                raise ConfigError(f"{path}: a ConfigMap takes no such name", "rename the drop-in")
            if key in found:
                raise ConfigError(f"{path}: another file has this name in the ConfigMap", "rename the drop-in")
            found[key] = ""
            if os.path.exists(path) or path != search.main:
                with open(path, encoding="utf-8") as file:
                    found[key] = _STRING_OR_COMMENT.sub(lambda match: match[1] or "", file.read())
        return found

    @property
    def derived(self) -> Derived | None:
        """From registries.conf or containerd's files, read once; None where patterns are given."""
        if self.given.match_image:
            return None
        if self._derived is None:
            self._derived = self._of_containerd() if self.runtime == CONTAINERD else self._of_crio()
        return self._derived

    def _of_crio(self) -> Derived:
        return matchimages.match_images(registries.load(self._search), self.settings.mirror_registry)

    def _of_containerd(self) -> Derived:
        hosts = containerd.load_hosts(Tree(self.given.root), self.settings.containerd_config)
        if hosts.refused:
            raise hosts.refused
        for text in exposures.find(hosts, self.settings):
            note(f"Note: {text}")
        return matchimages.match_registries(hosts, self.settings.mirror_registry)

    @property
    def wanted(self) -> Wanted:
        patterns = tuple(self.given.match_image or (self.derived.patterns if self.derived else ()))
        audience = self.audience if self.given.audience or self.given.distribution else ""
        made = Wanted(self.kubernetes, patterns, audience, tuple(self.args))
        if self.runtime == CONTAINERD and self.derived:
            made = made._replace(why_none=matchimages.why_no_registry(self.settings.containerd_config, self.derived))
        return made

    def config(self) -> str:
        """The text of the CredentialProviderConfig: a new one, or with ``--merge`` that with our provider in it."""
        if self.given.merge is not None:
            return _merged(self).text
        return layout.dumps(nodefiles.config(providerconfig.new_entry(self.wanted), self.node, self.derived))

    def for_kinds(self) -> kinds.Request:
        given = self.given
        return kinds.Request(
            node=self.node,
            audience=self.audience,
            config=self.config,
            is_merge=given.merge is not None,
            registries=self.registries,
            secrets_from=self.settings.secrets_from,
            role=given.role,
            image=given.image or objects.IMAGE,
            namespaces=tuple(given.namespace or ()),
            service_accounts=tuple(given.service_account or ()),
            pull_secrets=tuple(given.pull_secret or ()),
        )


def plugin_args(given: argparse.Namespace) -> list[str]:
    """The plugin's arguments that the flags of ``add_entry_flags`` say."""
    args = [f"--secrets-from={given.secrets_from}"] if given.secrets_from is not None else []
    args += [f"--mirror-registry={text}" for text in given.mirror_registry or ()]
    args += [f"--runtime={given.runtime}"] if given.runtime is not None else []
    args += [f"--auth-dir={given.auth_dir}"] if given.auth_dir is not None else []
    args += containerd_args(given.containerd_config) if given.containerd_config is not None else []
    return args + (given.plugin_arg or [])


def containerd_args(path: str) -> list[str]:
    """The argument for a configuration of containerd; none for the plugin's default."""
    return [] if path == FLAGS_BY_NAME["containerd-config"].default else [f"--containerd-config={path}"]


_CRIO_S_KINDS = ("crio", "mount", "tmpfiles")


def _kinds(given: argparse.Namespace) -> list[str]:
    """Kinds one by one, each once."""
    tenants = ["pull-secrets"] if given.namespace else []
    spelled: list[str] = []
    for kind in given.kinds:
        if kind == "all":
            spelled += ["config", "kubelet", *(() if given.runtime == CONTAINERD else _CRIO_S_KINDS), "kustomize"]
        elif kind == "rbac":
            spelled += ["rbac", *tenants]
        else:
            spelled.append(kind)
    return list(dict.fromkeys(spelled))


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
    states = [wholefile.state(place, output.text) for place, output in places]
    differing = [place for (place, _), state in zip(places, states, strict=True) if state == "overwritten"]
    if differing and not given.force:
        raise ConfigError(
            f"files exist with other content: {', '.join(differing)}", "nothing was written; --force overwrites them"
        )
    for (place, output), state in zip(places, states, strict=True):
        if state != "unchanged":
            os.makedirs(os.path.dirname(place), exist_ok=True)
            wholefile.replace(place, output.text, nodefiles.MODE)
    if given.output == "json":
        told = [{"path": place, "state": state} for (place, _), state in zip(places, states, strict=True)]
        write_report({"files": told})
        return OK
    for (place, output), state in zip(places, states, strict=True):
        then = f"; on the node then: {output.file.then}" if output.file else ""
        write_line(f"{state}: {printable(place)}{then}")
    return OK


def _list_kinds(given: argparse.Namespace) -> int:
    if given.output == "json":
        write_report(
            {"kinds": [{"kind": name, "what": kind.what, "taker": kind.taker} for name, kind in KINDS.items()]}
        )
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
        return _write_files(given, kinds.BUILDERS["config"](request.for_kinds()))
    real = os.path.realpath(path)
    if given.in_place and os.path.exists(real) and not (os.path.isfile(real) or os.path.isdir(real)):
        raise ConfigError(f"{path} is not a regular file", "remove --in-place, and write the output where it belongs")
    merged = merge.merge(_read(path), request.wanted, name=path)
    if given.in_place and merged.changes:
        status = os.stat(real)
        wholefile.replace(real, merged.text, status.st_mode & 0o7777, (status.st_uid, status.st_gid))
    _tell(path, merged)
    if given.in_place:
        return OK
    if given.output == "json":
        told = merged._asdict()
        write_report({**told, "overlaps": [overlap._asdict() for overlap in merged.overlaps]})
    else:
        write_line(merged.text.removesuffix("\n"))
    return OK
