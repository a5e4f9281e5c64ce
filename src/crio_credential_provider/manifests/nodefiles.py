"""Files of a node: how the kubelet gets its two flags, the tmpfs for auth files, tmpfiles.d, CRI-O's drop-in.

A node with containerd needs the first of these alone. What differs between distributions is one table. The same files
as a MachineConfig of OpenShift, and as Butane. What was read where: kubeadm's 10-kubeadm.conf (release packages), k3s'
pkg/daemons/agent, pkg/agent/config and pkg/cli/cmds, OpenShift's machine-config-operator (templates/*/01-*-kubelet and
pkg/controller/template/render.go, August 2026).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from ..kubernetes.credentialproviderconfig import API_VERSION, CACHE_TYPE_SINCE, FEATURE_GATE, KIND, NAME
from ..settings import CONTAINERD, CRIO, FLAGS_BY_NAME
from . import layout
from .layout import Comment
from .matchimages import Derived
from .providerconfig import KUBEADM_AUDIENCE, OPENSHIFT_AUDIENCE

BIN_DIR = "/usr/libexec/kubelet-image-credential-provider-plugins"
CONFIG_PATH = "/etc/kubernetes/credential-provider-config.yaml"
WRITABLE_BIN_DIR = "/var/lib/crio-credential-provider/bin"
"""Where /usr is read-only."""
AUTH_DIR = "/etc/crio/auth"
CACHE_DIR = "/run/crio-credential-provider"

MODE = 0o644
"""Of every file: none holds a secret. Written as 420, since JSON knows no octal numbers."""

_RANCHER = "/var/lib/rancher/credentialprovider"
_OPENSHIFT_CONFIG = "/etc/kubernetes/credential-providers/{}-credential-provider.yaml"
_OPERATOR = "the Machine Config Operator restarts the node, once it has the files (kind machineconfig)"


_PLAIN_PATH = re.compile(r"/[\w./@:+,-]*[\w]", re.ASCII)


def is_plain_path(path: str) -> bool:
    """Whether a path can stand in each of these files as it is: absolute, of letters, digits and ``./@:+,-_``."""
    return bool(_PLAIN_PATH.fullmatch(path)) and ".." not in path.split("/") and "//" not in path


class Distribution(NamedTuple):
    """What is where.

    Attributes:
        audience: the API server's own.
        config_path: the file of the kubelet's ``--image-credential-provider-config``.
        bin_dir: the kubelet's ``--image-credential-provider-bin-dir``.
        how: how the two flags reach the kubelet: ``systemd``, ``k3s``, ``variable`` or ``platform``.
        containerd_config: the file of containerd's ``--config``.
    """

    audience: str
    config_path: str
    bin_dir: str
    how: str
    containerd_config: str = FLAGS_BY_NAME["containerd-config"].default


DISTRIBUTIONS = {
    "kubeadm": Distribution(KUBEADM_AUDIENCE, CONFIG_PATH, BIN_DIR, "systemd"),
    **{
        name: Distribution(
            *(KUBEADM_AUDIENCE, f"{_RANCHER}/config.yaml", f"{_RANCHER}/bin", "k3s"),
            f"/var/lib/rancher/{name}/agent/etc/containerd/config.toml",
        )
        for name in ("k3s", "rke2")
    },
    "openshift": Distribution(OPENSHIFT_AUDIENCE, _OPENSHIFT_CONFIG.format("generic"), WRITABLE_BIN_DIR, "variable"),
    "openshift-aws": Distribution(OPENSHIFT_AUDIENCE, _OPENSHIFT_CONFIG.format("ecr"), BIN_DIR, "platform"),
    "openshift-azure": Distribution(OPENSHIFT_AUDIENCE, _OPENSHIFT_CONFIG.format("acr"), BIN_DIR, "platform"),
    "openshift-gcp": Distribution(OPENSHIFT_AUDIENCE, _OPENSHIFT_CONFIG.format("gcr"), BIN_DIR, "platform"),
}


class NodeFile(NamedTuple):
    """A file of a node.

    Attributes:
        path: absolute.
        text: its content.
        then: what makes it count.
    """

    path: str
    text: str
    then: str


class Node(NamedTuple):
    """The choices that the files of a node depend on."""

    distribution: str
    kubernetes: tuple[int, int]
    config_path: str
    bin_dir: str
    auth_dir: str
    runtime: str = CRIO

    @property
    def how(self) -> str:
        return DISTRIBUTIONS[self.distribution].how

    @property
    def needs_gate(self) -> bool:
        """Whether the kubelet has the tokens behind a gate that is off."""
        return self.kubernetes == (1, 33)

    def then(self, command: str) -> str:
        """What makes a file count: the command, but on OpenShift, where the operator does it."""
        return _OPERATOR if self.distribution.startswith("openshift") else command

    @property
    def flags(self) -> list[str]:
        """What the kubelet's command line must have."""
        made = [
            f"--image-credential-provider-config={self.config_path}",
            f"--image-credential-provider-bin-dir={self.bin_dir}",
        ]
        return made + ([f"--feature-gates={FEATURE_GATE}=true"] if self.needs_gate else [])


# -- the CredentialProviderConfig -------------------------------------------------------------------------------------


def config(entry: dict[str, Any], node: Node, derived: Derived | None) -> dict[Any, Any]:
    """The whole file with comments.

    Args:
        entry: as ``providerconfig.new_entry`` makes it.
        derived: where its matchImages come from; None where a person gave them.
    """
    since = ".".join(map(str, CACHE_TYPE_SINCE))
    head = (
        f"For Kubernetes 1.33, whose kubelet rejects cacheType and needs the feature gate {FEATURE_GATE}=true."
        if node.needs_gate
        else f"For Kubernetes {since} and newer."
    )
    commented: dict[Any, Any] = {}
    for key, value in entry.items():
        for comment in _comments(key, derived):
            commented[comment] = None
        commented[key] = value
    commented["tokenAttributes"] = {
        Comment(f"The API server's own. kubeadm: {KUBEADM_AUDIENCE}; OpenShift: {OPENSHIFT_AUDIENCE}"): None,
        **entry["tokenAttributes"],
    }
    return {
        Comment(f"{head} On each node, as the file of the kubelet's --image-credential-provider-config."): None,
        "apiVersion": API_VERSION,
        "kind": KIND,
        "providers": [commented],
    }


def _comments(key: str, derived: Derived | None) -> Iterator[Comment]:
    if key == "matchImages":
        yield Comment(
            "The registries that pods name, not the mirrors: HOST[:PORT][/PATH], where PATH is a prefix; no /*."
        )
        for pattern, reason in zip(derived.patterns, derived.reasons, strict=True) if derived else ():
            yield Comment(f"{pattern}: {reason}")
        for limit in derived.limits if derived else ():
            yield Comment(limit)
        for prefix, reason in derived.left_out if derived else ():
            yield Comment(f"Skipped: {prefix}: {reason}")
    elif key == "defaultCacheDuration":
        yield Comment("Required, but without effect: every answer says that it must not be cached.")


# -- the kubelet ------------------------------------------------------------------------------------------------------


WARNING = (
    "A kubelet does not start with a provider whose program is missing: first install the program on every node, then "
    "its configuration. A node that joins later needs the program in its image, since no DaemonSet runs before its "
    "kubelet."
)
"""RegisterCredentialProviderPlugins looks each program up, and the kubelet exits where it cannot."""


def kubelet(node: Node) -> list[NodeFile]:
    """What brings the flags to the kubelet; empty where the platform does."""
    if node.how == "systemd":
        return [
            NodeFile(
                f"/etc/systemd/system/kubelet.service.d/20-{NAME}.conf",
                _KUBEADM.format(flags=" ".join(node.flags)),
                "systemctl daemon-reload && systemctl restart kubelet",
            )
        ]
    if node.how == "k3s":
        name = node.distribution
        return [
            NodeFile(
                f"/etc/rancher/{name}/config.yaml.d/20-{NAME}.yaml",
                layout.dumps(_k3s(node)),
                f"systemctl restart {name}, on agents {name}-agent",
            )
        ]
    made = []
    if node.how == "variable":
        made.append(
            NodeFile(
                f"/etc/systemd/system/kubelet.service.d/20-{NAME}.conf",
                _OPENSHIFT.format(flags=" ".join(node.flags[:2])),
                _OPERATOR,
            )
        )
    if node.needs_gate:
        made.append(
            NodeFile(
                f"/etc/openshift/kubelet.conf.d/20-{NAME}.conf",
                layout.dumps(_gate()),
                _OPERATOR,
            )
        )
    return made


_KUBEADM = """\
# Next to kubeadm's 10-kubeadm.conf, whose command line this repeats with one more variable. Not KUBELET_EXTRA_ARGS:
# that may be set already, in /etc/default/kubelet (deb) or /etc/sysconfig/kubelet (rpm), and then takes precedence.
# `systemctl cat kubelet` shows this node's own line: if it differs, change the last line here.
[Service]
Environment="CREDENTIAL_PROVIDER_ARGS={flags}"
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS \
$CREDENTIAL_PROVIDER_ARGS
"""

_OPENSHIFT = """\
# For platforms where the kubelet.service of the Machine Config Operator has this variable: bare metal, OpenStack,
# vSphere, Nutanix, oVirt, of releases with CRIOCredentialProviderConfig. Elsewhere it has no effect: check whether
# `systemctl cat kubelet` has $KUBELET_CRIO_IMAGE_CREDENTIAL_PROVIDER_FLAGS.
[Service]
Environment="KUBELET_CRIO_IMAGE_CREDENTIAL_PROVIDER_FLAGS={flags}"
"""


def _k3s(node: Node) -> dict[Any, Any]:
    default = DISTRIBUTIONS[node.distribution]
    made: dict[Any, Any] = {
        Comment(
            f"{node.distribution} passes both to its kubelet if both exist when it starts; these are the defaults."
            if (node.config_path, node.bin_dir) == (default.config_path, default.bin_dir)
            else f"{node.distribution} passes both to its kubelet if both exist when it starts."
        ): None,
        "image-credential-provider-config": node.config_path,
        "image-credential-provider-bin-dir": node.bin_dir,
    }
    if node.needs_gate:
        made[Comment("The + adds to what other files have for this key.")] = None
        made["kubelet-arg+"] = [f"feature-gates={FEATURE_GATE}=true"]
    return made


def _gate() -> dict[Any, Any]:
    return {
        Comment("For releases whose kubelet.service has --config-dir; `systemctl cat kubelet` shows it."): None,
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "featureGates": {FEATURE_GATE: True},
    }


# -- CRI-O ------------------------------------------------------------------------------------------------------------


def crio(node: Node) -> list[NodeFile]:
    """CRI-O's side of ``--auth-dir``; empty for the directory where it looks anyway, and without CRI-O."""
    if node.auth_dir == AUTH_DIR or node.runtime == CONTAINERD:
        return []
    text = f'# For the plugin\'s --auth-dir {node.auth_dir}.\n[crio.image]\nnamespaced_auth_dir = "{node.auth_dir}"\n'
    return [NodeFile("/etc/crio/crio.conf.d/20-namespaced-auth.conf", text, node.then("systemctl restart crio"))]


def mount(node: Node) -> list[NodeFile]:
    """The tmpfs for auth files; empty where the directory lies on one anyway, and where there are no such files."""
    if f"{node.auth_dir}/".startswith("/run/") or node.runtime == CONTAINERD:
        return []
    name = f"{unit_name(node.auth_dir)}.mount"
    return [
        NodeFile(
            f"/etc/systemd/system/{name}",
            _MOUNT.format(where=node.auth_dir),
            node.then(f"systemctl daemon-reload && systemctl enable --now {name} && systemctl restart crio"),
        )
    ]


_MOUNT = """\
[Unit]
Description=Auth files of crio-credential-provider, in memory
Before=crio.service kubelet.service

[Mount]
What=tmpfs
Where={where}
Type=tmpfs
Options=mode=0700,size=16m,nodev,nosuid,noexec

[Install]
WantedBy=crio.service
"""

_UNIT_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_.")


def unit_name(path: str) -> str:
    """A path as systemd-escape --path writes it."""
    parts = [part for part in path.split("/") if part]
    escaped = "-".join("".join(c if c in _UNIT_CHARACTERS else _escaped(c) for c in part) for part in parts)
    return f"\\x2e{escaped[1:]}" if escaped.startswith(".") else escaped


def _escaped(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode())


def tmpfiles(node: Node) -> list[NodeFile]:
    """What makes the directories at boot, and removes what is left where the plugin runs no more; empty where there
    are no auth files: the plugin makes its cache itself."""
    if node.runtime == CONTAINERD:
        return []
    path = f"/etc/tmpfiles.d/{NAME}.conf"
    width = max(len(node.auth_dir), len(CACHE_DIR))
    text = _TMPFILES.format(auth=node.auth_dir, padded=node.auth_dir.ljust(width), cache=CACHE_DIR.ljust(width))
    return [NodeFile(path, text, node.then(f"systemd-tmpfiles --create {path}"))]


_TMPFILES = """\
# systemd-tmpfiles(8) for crio-credential-provider: a file of /usr/lib/tmpfiles.d or /etc/tmpfiles.d.
# For another namespaced_auth_dir of CRI-O: crio-credential-provider manifests tmpfiles --auth-dir DIR

# The plugin removes stale files after each run. On a node where it no longer runs this removes the last ones,
# as `crio-credential-provider gc` does by hand.
# This does not know pull intents, unlike the plugin: six hours are longer than any pull waits in a kubelet's queue.
d  {padded}    0700 root root 6h
# CRI-O's own, for running pulls; it removes each file after its pull.
x  {auth}/in-use
# At boot no pull is running: remove all files, also those left by a crash of CRI-O.
r! {auth}/*-*.json
r! {auth}/.*.tmp
r! {auth}/in-use/*-*.json

# Parsed configuration and the lock file of waiting runs. No age: runs that wait need the same lock file.
d  {cache}    0700 root root -
"""


# -- as one object ----------------------------------------------------------------------------------------------------


def machine_config(files: Sequence[NodeFile], role: str) -> dict[Any, Any]:
    """The files as a MachineConfig, Ignition 3.2, which every OpenShift since 4.7 takes."""
    plain, units = _sorted_out(files)
    storage = [
        {
            "path": file.path,
            "mode": MODE,
            "overwrite": True,
            "contents": {"source": f"data:,{quote(file.text)}"},
        }
        for file in plain
    ]
    return {
        Comment(WARNING): None,
        "apiVersion": "machineconfiguration.openshift.io/v1",
        "kind": "MachineConfig",
        "metadata": {
            "name": f"99-{role}-{NAME}",
            "labels": {"machineconfiguration.openshift.io/role": role},
        },
        "spec": {
            "config": {
                "ignition": {"version": "3.2.0"},
                "storage": {"files": storage},
                "systemd": {"units": units},
            }
        },
    }


def butane(files: Sequence[NodeFile], role: str, *, openshift: bool) -> dict[Any, Any]:
    """The files as Butane: for OpenShift, else for Fedora CoreOS."""
    plain, units = _sorted_out(files)
    head: dict[Any, Any] = (
        {
            "variant": "openshift",
            "version": "4.14.0",
            "metadata": {
                "name": f"99-{role}-{NAME}",
                "labels": {"machineconfiguration.openshift.io/role": role},
            },
        }
        if openshift
        else {"variant": "fcos", "version": "1.5.0"}
    )
    storage = [
        {"path": file.path, "mode": MODE, "overwrite": True, "contents": {"inline": file.text}} for file in plain
    ]
    return {Comment(WARNING): None, **head, "storage": {"files": storage}, "systemd": {"units": units}}


def _sorted_out(files: Sequence[NodeFile]) -> tuple[list[NodeFile], list[dict[str, Any]]]:
    """Files as they are, and units of systemd with their drop-ins."""
    plain, units = [], []
    for file in files:
        directory, _, name = file.path.rpartition("/")
        if directory == "/etc/systemd/system":
            units.append({"name": name, "enabled": True, "contents": file.text})
        elif directory.endswith(".service.d"):
            unit = directory.rpartition("/")[2].removesuffix(".d")
            units.append({"name": unit, "dropins": [{"name": name, "contents": file.text}]})
        else:
            plain.append(file)
    return plain, units
