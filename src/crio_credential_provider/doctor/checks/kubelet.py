"""The kubelet: found, told of the plugin, new enough, and aware of what is in its files."""

from __future__ import annotations

import posixpath
import time

from ...kubernetes.credentialproviderconfig import FEATURE_GATE, FIRST
from ...node.commandline import STARTED_GRAIN, Flag, last
from ...node.facts import Node
from ...node.kubelet import BIN_DIR, PROVIDER_CONFIG, UNITS, Gate, Kubelet, find_gate, find_slips, runtime_endpoint
from ...runtimes.endpoint import named_by
from ...settings import AUTO, CONTAINERD
from ..correction import CURRENT
from ..finding import Examined, Results, Unexamined, at, find, seen
from ..mirrored import has_mirrors

GATE_ON_SINCE = (1, 34)
INTENTS_GATE, INTENTS_SINCE = "KubeletEnsureSecretPulledImages", (1, 35)
"""What has the kubelet keep pull intents and pull records, and the first version in which it is on by default."""

_FLAGS = (
    "--image-credential-provider-config=/etc/kubernetes/credential-provider-config.yaml\n"
    "--image-credential-provider-bin-dir=/usr/libexec/kubelet-image-credential-provider-plugins"
)


def check_kubelet(node: Node) -> Results:
    """What the kubelet was or will be started with."""
    kubelet = node.kubelet
    if node.given.config:
        yield Unexamined(
            "the kubelet, the container runtime, the API server and the mirrors", "--config only checks one file"
        )
        return
    if kubelet is None:
        units = f"the units {', '.join(UNITS)}"
        looked, how = f"a process named kubelet, k3s or rke2, and {units}", "run doctor on the node, as root"
        if not node.given.live:
            looked, how = units, "give --root the root of a node's file system"
        remedy = f"{how}; or check one file with --config FILE"
        yield find("kubelet-not-found", seen(f"looked for {looked}"), remedy=remedy)
        return
    for problem in kubelet.problems:
        yield Unexamined(problem.path, problem.reason)
    config, bin_dir = last(kubelet.flags, PROVIDER_CONFIG), last(kubelet.flags, BIN_DIR)
    yield Examined(f"the kubelet ({kubelet.name})")
    slips = find_slips(kubelet)
    if slips:
        evidence = [at(slip.origin, f"{slip.written}: unknown kubelet flag") for slip in slips]
        corrected = ", ".join(f"--{slip.name} in place of {slip.written} in {slip.origin}" for slip in slips)
        yield find("kubelet-flag-unknown", *evidence, remedy=f"write {corrected}, then: {restart(kubelet)}")
        return
    written = [flag for name in (PROVIDER_CONFIG, BIN_DIR) if (flag := last(kubelet.configured, name))]
    new = [flag for flag in written if last(kubelet.flags, flag.name) is None]
    if new:
        texts = (f"--{flag.name}={flag.value}, which the running {kubelet.name} does not have" for flag in new)
        evidence = [at(flag.origin, text) for flag, text in zip(new, texts, strict=True)]
        yield find("kubelet-needs-restart", *evidence, remedy=restart(kubelet))
    elif not config:
        missing = at(kubelet.start, f"the command line has no --{PROVIDER_CONFIG}")
        yield find("kubelet-without-provider-config", missing, remedy=_add_flags(kubelet))
    elif not bin_dir:
        missing = at(config.origin, f"--{PROVIDER_CONFIG} is set, and --{BIN_DIR} is not set")
        yield find("kubelet-without-bin-dir", missing, remedy=f"add --{BIN_DIR}=DIRECTORY; {restart(kubelet)}")
    else:
        yield from _stale(node, kubelet, config)


def restart(kubelet: Kubelet | None) -> str:
    return f"systemctl restart {(kubelet.distribution if kubelet else '') or 'kubelet'}"


def _add_flags(kubelet: Kubelet) -> str:
    """How flags reach this kubelet."""
    if kubelet.distribution:
        return (
            "crio-credential-provider install does it; or by hand: /var/lib/rancher/credentialprovider needs both the "
            "directory bin and the file config.yaml; or set them in "
            f"/etc/rancher/{kubelet.distribution}/config.yaml as image-credential-provider-bin-dir and "
            f"image-credential-provider-config. Then: {restart(kubelet)}"
        )
    flags = f"give the kubelet these flags (kubeadm: KUBELET_EXTRA_ARGS), then: {restart(kubelet)}\n{_FLAGS}"
    return f"crio-credential-provider install does it; or by hand: {flags}"


def _stale(node: Node, kubelet: Kubelet, config: Flag) -> Results:
    """Whether the files changed after the kubelet had read them."""
    if not kubelet.started:
        what = "whether the kubelet runs with its present configuration"
        yield Unexamined(
            what,
            "no running kubelet is checked with --root or --config" if not node.given.live else "it is not running",
        )
        return
    newer = []
    for document in node.config.documents if node.config else ():
        found = node.tree.stat(document.file)
        # An installer writes, then restarts at once: within the grain of what is known nothing is said.
        if found is not None and found.st_mtime >= kubelet.started + STARTED_GRAIN:
            newer.append((document.file, found.st_mtime))
    written = last(kubelet.configured, PROVIDER_CONFIG)
    if newer:
        file, changed = newer[0]
        text = f"changed {when(changed)}, {kubelet.name} started {when(kubelet.started)}"
        yield find("kubelet-needs-restart", at(file, text), remedy=restart(kubelet))
    elif written and posixpath.normpath(written.value) != posixpath.normpath(config.value):
        text = f"--{PROVIDER_CONFIG}={written.value}, while the running {kubelet.name} has {config.value}"
        yield find("kubelet-needs-restart", at(written.origin, text), remedy=restart(kubelet))


def when(seconds: float) -> str:
    """A time, for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def check_version(node: Node) -> Results:
    """The version, and the gate that depends on it."""
    if node.kubelet is None and not node.given.kubernetes:
        return
    if node.version is None:
        why = node.version_unknown or "no running kubelet and no dpkg package to read it from"
        assumed = f"assumed to be {CURRENT[0]}.{CURRENT[1]} or newer; give it with --kubernetes"
        yield Unexamined("the kubelet's version, and what depends on it (cacheType)", f"{why}; {assumed}")
    elif node.version.minor < FIRST:
        evidence = seen(f"{node.version} ({node.version.origin})")
        yield find("kubelet-too-old", evidence, remedy="update this node to Kubernetes 1.34 or newer")
        return
    else:
        yield Examined(f"Kubernetes {node.version} ({node.version.origin})")
    if node.kubelet is not None:
        yield from _gates(node, node.kubelet)


def _gates(node: Node, kubelet: Kubelet) -> Results:
    gate, name = _find_gate(node, kubelet, FEATURE_GATE, GATE_ON_SINCE)
    for problem in gate.problems:
        yield Unexamined(f"feature gates in {problem.path}", problem.reason)
    minor = node.minor
    on_by_itself = minor is not None and minor >= GATE_ON_SINCE
    remedy = f"remove {name}; {restart(kubelet)}"
    if not on_by_itself:
        remedy = f"in the KubeletConfiguration, then {restart(kubelet)}:\nfeatureGates:\n  {FEATURE_GATE}: true"
    if gate.value is False:
        yield find("feature-gate-off", at(gate.origin or "", f"{name} is false"), remedy=remedy)
    elif gate.value is None and minor is not None and not on_by_itself:
        evidence = at(gate.origin or kubelet.start, f"{FEATURE_GATE} is not set, and is off in {minor[0]}.{minor[1]}")
        yield find("feature-gate-off", evidence, remedy=remedy)
    if minor is not None and minor < INTENTS_SINCE:
        return
    gate, name = _find_gate(node, kubelet, INTENTS_GATE, INTENTS_SINCE)
    if gate.value is False:
        evidence = at(gate.origin or "", f"{name} is false")
        # With containerd no file waits for a pull.
        consequence = "Every pod of the node may use an image that was pulled with the credentials of one namespace."
        consequence = consequence if node.pulls_with == CONTAINERD else ""
        yield find("pull-intents-off", evidence, remedy=f"remove {name}; {restart(kubelet)}", consequence=consequence)


def _find_gate(node: Node, kubelet: Kubelet, name: str, on_since: tuple[int, int]) -> tuple[Gate, str]:
    """A gate, and by what name it is set: what is set for all gates of a stage applies to those that are not set
    themselves."""
    gate = find_gate(node.tree, kubelet, name)
    if gate.value is None and node.minor is not None:
        stage = "AllBeta" if node.minor >= on_since else "AllAlpha"
        of_stage = find_gate(node.tree, kubelet, stage)
        if of_stage.value is not None:
            return of_stage, stage
    return gate, name


def check_runtime(node: Node) -> Results:
    """Whether the kubelet talks to a runtime that the plugin works for, and to the one that it is told."""
    if node.kubelet is None:
        return
    endpoint, origin = runtime_endpoint(node.tree, node.kubelet)
    told = at(origin, f"the kubelet's container runtime endpoint is {endpoint or 'not set: containerd is its default'}")
    if is_other_runtime(endpoint):
        yield find("runtime-not-crio", told, remedy="use this plugin on nodes with CRI-O or containerd only")
        return
    if node.entry is None or node.settings is None or node.runtime == node.pulls_with:
        return
    pulls_with = "containerd" if node.pulls_with == CONTAINERD else "CRI-O"
    chosen = node.settings.runtime
    given = node.entry.origin_of_flag("--runtime") or node.entry.origin("args")
    if chosen != AUTO:
        evidence = at(given, f"--runtime={chosen}, and the kubelet pulls with {pulls_with}")
        remedy = f"remove --runtime={chosen} from {given}, then: {restart(node.kubelet)}"
        yield find("runtime-mismatch", evidence, told, remedy=remedy)
    elif has_mirrors(node):
        # Without mirrors it makes no difference, and that is told.
        why = "there is no /etc/containerd"
        if node.kubelet.distribution == "k3s":
            why = "the command line of k3s does not name the runtime"
        evidence = at(given, f"--runtime is auto, with which the plugin takes CRI-O: {why}")
        flags = ["--runtime=containerd"]
        file = node.containerd.config_file.value if node.containerd else ""
        if file and file != node.settings.containerd_config:
            flags.append(f"--containerd-config={file}")
        remedy = f"args: [{', '.join(flags)}] in the CredentialProviderConfig, then: {restart(node.kubelet)}"
        yield find("runtime-mismatch", evidence, told, remedy=remedy)


def is_other_runtime(endpoint: str) -> bool:
    """Whether a socket is that of a runtime which is known to be neither CRI-O nor containerd."""
    return "docker" in endpoint and named_by(endpoint) != CONTAINERD and "crio" not in endpoint
