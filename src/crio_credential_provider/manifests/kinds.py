"""The kinds of manifests that can be asked for, and what each is made of.

>>> KINDS["rbac"].taker
'kubectl'
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..errors import UsageError
from ..kubernetes.credentialproviderconfig import NAME
from . import layout, nodefiles, objects
from .nodefiles import Node, NodeFile


class Kind(NamedTuple):
    """Something that can be asked for: what it is, and who takes it."""

    what: str
    taker: str


KINDS = {
    "config": Kind("the kubelet's CredentialProviderConfig", "node"),
    "rbac": Kind("permissions of the nodes, and with -n of service accounts", "kubectl"),
    "pull-secrets": Kind("permissions of service accounts, for --secrets-from, in each -n", "kubectl"),
    "registries": Kind("this node's registries.conf, published to tenants in a ConfigMap", "kubectl"),
    "kubelet": Kind("a drop-in with the kubelet's flags", "node"),
    "crio": Kind("CRI-O's drop-in, if --auth-dir is not its default", "node"),
    "mount": Kind("the tmpfs for auth files, a systemd unit", "node"),
    "tmpfiles": Kind("systemd-tmpfiles: creates and cleans the directories", "node"),
    "daemonset": Kind("installs the program from a container image on every node", "kubectl"),
    "machineconfig": Kind("the files of a node, for OpenShift", "kubectl"),
    "butane": Kind("the same as Butane, for OpenShift or Fedora CoreOS", "butane"),
    "kustomize": Kind("rbac, pull-secrets and daemonset with kustomization.yaml; needs --directory", "kubectl"),
    "all": Kind("each of these but registries, machineconfig and butane; needs --directory", "both"),
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


class Request(NamedTuple):
    """What was asked for, with defaults filled in.

    Attributes:
        config: makes the text of the CredentialProviderConfig, a new or a merged one.
        is_merge: whether that is a merged one.
        registries: reads registries.conf and its drop-ins, as keys and texts of a ConfigMap.
        secrets_from: the plugin's mode.
        role: of the MachineConfig.
        image: of the DaemonSet.
    """

    node: Node
    audience: str
    config: Callable[[], str]
    is_merge: bool
    registries: Callable[[], dict[str, str]]
    secrets_from: str
    role: str
    image: str
    namespaces: tuple[str, ...]
    service_accounts: tuple[str, ...]
    pull_secrets: tuple[str, ...]


def _config(request: Request) -> list[Output]:
    return [_of_node(_config_file(request))]


def _config_file(request: Request) -> NodeFile:
    return NodeFile(request.node.config_path, request.config(), request.node.then("restart the kubelet"))


def _rbac(request: Request) -> list[Output]:
    return [_of_objects("node-rbac.yaml", objects.node_rbac(request.audience))]


def _pull_secrets(request: Request) -> list[Output]:
    made = objects.pull_secret_access(
        request.secrets_from, request.namespaces, request.service_accounts, request.pull_secrets
    )
    return [_of_objects("pull-secrets.yaml", made)]


def _registries(request: Request) -> list[Output]:
    data = {**request.registries(), objects.CONFIG_KEY: request.config()}
    return [_of_objects("registries.yaml", objects.published_registries(data))]


def _daemonset(request: Request) -> list[Output]:
    if request.node.how == "platform":
        raise UsageError(
            f"a DaemonSet cannot write to {request.node.bin_dir}, which the platform names and which belongs to the "
            "read-only image of the operating system",
            "add the program to that image (image layering)",
        )
    image = request.image
    made = objects.daemonset(image, request.node.bin_dir, openshift=request.node.how == "variable")
    return [_of_objects("daemonset.yaml", made)]


def _kustomize(request: Request) -> list[Output]:
    files = _rbac(request)
    if request.namespaces:
        files += _pull_secrets(request)
    if request.node.how != "platform":
        files += _daemonset(request)
    made = objects.kustomization([output.name for output in files])
    # kubectl reads a kustomization, and never sends it to the API server.
    return [*files, Output("kustomization.yaml", layout.dumps(made))]


def _files(make: Callable[[Node], list[NodeFile]]) -> Callable[[Request], list[Output]]:
    return lambda request: [_of_node(file) for file in make(request.node)]


def _node_files(request: Request) -> list[NodeFile]:
    if request.node.how == "platform" and not request.is_merge:
        raise UsageError(
            f"{request.node.config_path} belongs to the platform, which would lose its own provider",
            "give a node's copy of that file with --merge",
        )
    parts = (nodefiles.kubelet, nodefiles.crio, nodefiles.mount, nodefiles.tmpfiles)
    return [_config_file(request), *(file for part in parts for file in part(request.node))]


def _machine_config(request: Request) -> list[Output]:
    _must_be_openshift(request)
    made = nodefiles.machine_config(_node_files(request), request.role)
    return [_of_objects(f"99-{request.role}-{NAME}.yaml", [made])]


def _must_be_openshift(request: Request) -> None:
    if not request.node.distribution.startswith("openshift"):
        raise UsageError(
            "machineconfig is for OpenShift", "give --distribution openshift, openshift-aws, -azure or -gcp"
        )


def _butane(request: Request) -> list[Output]:
    openshift = request.node.distribution.startswith("openshift")
    made = nodefiles.butane(_node_files(request), request.role, openshift=openshift)
    return [Output(f"{NAME}.bu", layout.dumps(made))]


BUILDERS: dict[str, Callable[[Request], list[Output]]] = {
    "config": _config,
    "rbac": _rbac,
    "pull-secrets": _pull_secrets,
    "registries": _registries,
    "kubelet": _files(nodefiles.kubelet),
    "crio": _files(nodefiles.crio),
    "mount": _files(nodefiles.mount),
    "tmpfiles": _files(nodefiles.tmpfiles),
    "daemonset": _daemonset,
    "machineconfig": _machine_config,
    "butane": _butane,
    "kustomize": _kustomize,
}

WHY_NONE = {
    "kubelet": "the platform's own kubelet.service has both flags; config is written to the path that they name",
    "crio": f"CRI-O uses {nodefiles.AUTH_DIR} by default",
    "mount": "/run is a tmpfs",
}
"""Why a builder may have nothing to make."""
WHY_NONE_FOR_CONTAINERD = "containerd takes no auth files, and needs none of its own files changed"


def _of_node(file: NodeFile) -> Output:
    return Output(f"node{file.path}", file.text, file=file)


def _of_objects(name: str, made: Sequence[Any]) -> Output:
    return Output(name, layout.dumps(*made), tuple(layout.plain(one) for one in made))
