"""What this machine, or a directory that holds a node, says of pulls: the plugin's settings and their origin."""

from __future__ import annotations

import argparse
import os
from typing import Any, NamedTuple

from ... import settings
from ...errors import ProviderError, UsageError
from ...kubernetes import names
from ...kubernetes.credentialproviderconfig import KIND, NAME, SUFFIXES
from ...node import crio, kubelet, providerconfig, tree
from ...node.crio import Crio
from ...node.kubelet import Kubelet
from ...node.tree import Tree
from ...runtimes import endpoint
from ...runtimes.crio import registries
from ...settings import AUTO, CONTAINERD, CRIO, FLAGS_BY_NAME, Settings
from . import files, identity, objectsfile
from .arguments import FLAGS

_CONTAINERD = "/etc/containerd"
"""Without it there is no mirror of containerd's."""


class RefusedArguments(ProviderError):
    """Arguments of the CredentialProviderConfig at ``path`` that the plugin itself refuses, with exit status 2."""

    fault = "usage"

    def __init__(self, message: str, hint: str, path: str) -> None:
        super().__init__(message, hint)
        self.path = path


class Place(NamedTuple):
    """What this machine, or the directory of ``--root``, says of pulls: looked up once, so that all of it belongs
    together.

    Attributes:
        config: the CredentialProviderConfig that counts, "" where there is none.
        arguments, variables: of the plugin's entry there.
        audience: of the tokens that the kubelet hands the plugin, "" where it is not known; None where the entry has no
            tokenAttributes, so that there is none.
        note: what a person should know of that file, "" for nothing.
        kubeconfig: the one that the kubelet names, "" where it names none.
        crio_started: when CRI-O was started, in seconds since the epoch; 0.0 where it does not run here.
        enforcing: whether CRI-O refuses a short name that may mean several images.
        missing: what makes a node, of either runtime, and is not there.
        runtime: what ``--runtime auto`` stands for here: ``crio`` or ``containerd``.
    """

    config: str
    arguments: list[str]
    variables: dict[str, str]
    audience: str | None
    note: str
    kubeconfig: str
    crio_started: float
    enforcing: bool
    missing: tuple[str, ...]
    runtime: str = CRIO

    def lacks(self, chosen: Settings) -> tuple[str, ...]:
        """What makes a node with this runtime, and is not there."""
        others = ["CRI-O" if chosen.runtime == CONTAINERD else "containerd"]
        # k3s and RKE2 keep containerd's files elsewhere.
        others += ["containerd"] if os.path.exists(chosen.containerd_config) else []
        return tuple(name for name in self.missing if name not in others)


def look(given: argparse.Namespace) -> Place:
    """Looks for the kubelet and the container runtime, and reads what the kubelet is told of the plugin.

    Raises:
        UsageError: a ``--config`` that cannot be used.
    """

    root, named = given.root or os.environ.get(FLAGS_BY_NAME["root"].variable, ""), getattr(given, "config", None)
    tree, ticks = Tree(root), os.sysconf("SC_CLK_TCK")
    kubelets = kubelet.find_kubelet(tree, ticks, live=not root)
    runtime = crio.find_crio(tree, ticks, live=not root)
    flags = [kubelets.flag(name) if kubelets else None for name in (kubelet.PROVIDER_CONFIG, "kubeconfig")]
    config, kubeconfig = (tree.real(f.value) if f is not None and tree.exists(f.value) else "" for f in flags)
    entry: tuple[list[str], dict[str, str], str | None] = ([], {}, "")
    note = ""
    if named:
        config, entry = named, load_entry(named)
    elif config:
        note = f"the plugin's arguments come from {config}, the kubelet's configuration"
        try:
            entry = load_entry(config)
        except UsageError as error:
            why = error.message.removeprefix("--config: ")
            # In full it is told by doctor.
            note = f"the kubelet's CredentialProviderConfig is ignored, and the plugin's defaults are used: {why}"
    return Place(
        config,
        *entry,
        note,
        # Below --root the plugin knows no kubelet, and takes the usual kubeconfigs alone.
        "" if root else kubeconfig,
        runtime.started if runtime else 0.0,
        # CRI-O's short_name_mode, or its default where there is no CRI-O.
        runtime is None or runtime.short_name_mode.value != crio.DISABLED,
        tuple(
            name
            for name, found in (("kubelet", kubelets), ("CRI-O", runtime), ("containerd", tree.exists(_CONTAINERD)))
            if not found
        ),
        _runtime(tree, kubelets, runtime),
    )


def _runtime(tree: Tree, found: Kubelet | None, running: Crio | None) -> str:
    """The runtime that the kubelet's endpoint names, as for the plugin; where there is no kubelet, the one that is
    here."""
    if not tree.exists(_CONTAINERD):
        return CRIO
    named = kubelet.runtime_endpoint(tree, found)[0] if found is not None else ""
    if named:
        return endpoint.named_by(named)
    if found is not None and not found.distribution:
        # The kubelet's own default is containerd's socket.
        return CONTAINERD
    return CRIO if running is not None or tree.exists(registries.MAIN_FILE) else CONTAINERD


def find_settings(given: argparse.Namespace, place: Place) -> Settings:
    """The settings that the plugin would have: those of ``--config``, else of the file that the node's kubelet names.

    Raises:
        UsageError: a flag that cannot be.
        RefusedArguments: the plugin would refuse what the CredentialProviderConfig says.
    """
    own = [f"--{name}={text}" for name in FLAGS for text in typed_values(given, name)]
    found = load_settings(own, place)
    if given.mirror_registry:
        # Flags of a person go before those of the file; this one would be added to them.
        found.mirror_registry = settings.loads(own, {}).mirror_registry
    # The plugin asks its parent process, the kubelet, of which this command is not a child.
    found.kubeconfig = found.kubeconfig or place.kubeconfig
    if found.runtime == AUTO:
        elsewhere = "kubelet" in place.missing
        named = CRIO if elsewhere and found.registries_conf else ""
        found.runtime = named or (_runtime_of_pod(given, found) if elsewhere else "") or place.runtime
    # Nothing is kept by a command that only looks.
    found.cache_dir = ""
    return found


def _runtime_of_pod(given: argparse.Namespace, chosen: Settings) -> str:
    """The runtime of the node that the pod is bound to, as its Node tells it; "" where that is not known."""
    pod, namespace = getattr(given, "pod", None), getattr(given, "namespace", None)
    if not (pod and namespace and given.kubeconfig) or given.secrets:
        return ""
    if not (names.is_subdomain(pod) and names.is_label(namespace)):
        return ""
    try:
        api = identity.connect_as_user(chosen)
        node = objectsfile.text(api.get(f"/api/v1/namespaces/{namespace}/pods/{pod}"), "spec", "nodeName")
        info = api.get(f"/api/v1/nodes/{node}") if names.is_subdomain(node) else {}
    except ProviderError:
        return ""
    version = objectsfile.text(info, "status", "nodeInfo", "containerRuntimeVersion")
    return {"containerd": CONTAINERD, "cri-o": CRIO}.get(version.partition("://")[0], "")


def load_settings(own: list[str], place: Place) -> Settings:
    """The settings of the plugin's entry in the CredentialProviderConfig, which flags of a person go before.

    Raises:
        UsageError, RefusedArguments: as ``find_settings``.
    """
    try:
        settings.loads(place.arguments, place.variables)
    except UsageError as error:
        raise RefusedArguments(error.message, error.hint, place.config) from None
    found = settings.loads([*place.arguments, *own], {**os.environ, **place.variables})
    settings.check_root(found)
    return found


def stand_ins(given: argparse.Namespace, chosen: Settings, place: Place) -> str:
    """What was taken for the missing parts of a node, "" on a node: a verdict is of another machine then."""
    missing = place.lacks(chosen)
    if not missing:
        return ""
    where = f"below {chosen.root}" if chosen.root else "on this machine"
    taken = []
    if "CRI-O" in missing:
        taken.append(_registries_conf(chosen))
    if "containerd" in missing:
        taken.append(f"{chosen.containerd_config}{_absent(chosen.containerd_config)}")
    if place.config:
        taken.append(f"the plugin's flags of {place.config}")
    elif "kubelet" in missing:
        own = any(typed_values(given, n) or FLAGS_BY_NAME[n].variable in os.environ for n in FLAGS if n != "root")
        taken.append("the flags given here and the plugin's defaults" if own else "the plugin's defaults")
    no_node = "this does not look like a node: " if len(missing) > 1 else ""
    return f"{no_node}no {' and no '.join(missing)} was found {where}; used instead: {', and '.join(taken)}"


def _registries_conf(chosen: Settings) -> str:
    """The files that are read where no CRI-O says which, in a few words."""
    try:
        search = registries.search_files(chosen.registries_conf, chosen.registries_conf_dir, chosen.root)
    except ProviderError:
        return registries.MAIN_FILE
    return f"{search.main}{_absent(search.main)}{' and its drop-ins' if search.drop_ins else ''}"


def _absent(path: str) -> str:
    return "" if os.path.exists(path) else " (not found)"


def typed_values(given: argparse.Namespace, name: str) -> list[str]:
    """The values of a flag. The plugin takes absolute paths alone, a person starts where he is."""
    flag = FLAGS_BY_NAME[name]
    value = getattr(given, flag.attribute, None)
    values = value if isinstance(value, list) else [] if value is None else [value]
    return [os.path.abspath(text) if text and flag.metavar in ("FILE", "DIR") else text for text in values]


def load_entry(path: str) -> tuple[list[str], dict[str, str], str | None]:
    """``args``, ``env`` and the audience (see ``Place``) of the plugin's entry in a CredentialProviderConfig, or in a
    directory of them."""
    files = [path]
    try:
        if os.path.isdir(path):
            names = [entry.name for entry in os.scandir(path) if not entry.is_dir(follow_symlinks=False)]
            files = [os.path.join(path, name) for name in sorted(names) if name.endswith(SUFFIXES)]
    except OSError as error:
        raise UsageError(f"--config: cannot read {path}: {error.strerror}") from None
    providers = [entry for file in files for entry in _load_providers(file)]
    named = [entry for entry in providers if NAME in str(entry.get("name"))]
    ours = sorted(named, key=lambda entry: entry["name"] != NAME)
    if not ours:
        others = ", ".join(str(entry.get("name")) for entry in providers) or "none"
        raise UsageError(f"--config: {path} has no provider {NAME!r}", f"it has {others}")
    arguments, variables = ours[0].get("args") or [], ours[0].get("env") or []
    if not isinstance(arguments, list) or not isinstance(variables, list):
        raise UsageError(f"--config: {path}: args and env of {NAME} must be lists")
    pairs = [(entry.get("name"), entry.get("value")) for entry in variables if isinstance(entry, dict)]
    audience = objectsfile.text(ours[0], "tokenAttributes", "serviceAccountTokenAudience")
    return (
        [str(argument) for argument in arguments],
        {str(name): str(value or "") for name, value in pairs},
        audience if ours[0].get("tokenAttributes") else None,
    )


def find_flag(place: Place, flag: str) -> str:
    """Where the CredentialProviderConfig gives the plugin a flag; "" where it does not."""

    try:
        providers = providerconfig.load(tree.Tree(), place.config, None).providers if place.config else ()
    except tree.Unreadable:
        return ""
    found = (provider.origin_of_flag(flag) for provider in providers if NAME in provider.name)
    return next((str(origin) for origin in found if origin), "")


def _load_providers(path: str) -> list[dict[str, Any]]:
    try:
        documents = objectsfile.load_yaml(files.read(path, "--config"))
    except ValueError as error:
        raise UsageError(f"--config: {path} is not valid YAML: {error}") from None
    document = documents[0] if documents and isinstance(documents[0], dict) else {}
    providers = document.get("providers")
    if not isinstance(providers, list) or document.get("kind") != KIND:
        raise UsageError(f"--config: {path} is not a CredentialProviderConfig with providers")
    return [entry for entry in providers if isinstance(entry, dict)]
