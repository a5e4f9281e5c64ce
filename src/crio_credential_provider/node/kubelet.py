"""The kubelet of a node: how it was started or will be, its version, its feature gates.

Looks for a running process, then for systemd units (kubeadm's, OpenShift's, anybody's), then for k3s and RKE2, which
run the kubelet inside themselves and are told its flags in their own configuration. A running kubelet's flags count;
the units tell in which file and line each was written.
"""

from __future__ import annotations

import difflib
import os
import posixpath
import re
import subprocess
from typing import Any, NamedTuple

from ..kubernetes.endpoint import KUBECONFIGS
from .commandline import Flag, Origin, Process, Unit, Word, find_flags, find_processes, find_unit, last
from .located import MAX_YAML, Document, Syntax, loads_yaml
from .tree import Tree, Unreadable

PROVIDER_CONFIG = "image-credential-provider-config"
BIN_DIR = "image-credential-provider-bin-dir"
GATE = "KubeletServiceAccountTokenForCredentialProviders"
_ENDPOINT = "container-runtime-endpoint"

_FLAGS = frozenset(
    (
        *(PROVIDER_CONFIG, BIN_DIR, "config", "config-dir", "kubeconfig", "feature-gates", "root-dir"),
        *("hostname-override", _ENDPOINT, "node-ip", "v", "healthz-bind-address", "healthz-port"),
    )
)
"""Flags whose value may be the next word, of those that matter here or often stand before them."""

_DISTRIBUTIONS = ("k3s", "rke2")
_UNITS = ("kubelet.service", "snap.kubelet.daemon.service")
_UNITS_OF_DISTRIBUTIONS = ("k3s.service", "k3s-agent.service", "rke2-server.service", "rke2-agent.service")
_RANCHER_SETTINGS = (BIN_DIR, PROVIDER_CONFIG, _ENDPOINT)
_DEFAULT_BIN_DIR = "/var/lib/rancher/credentialprovider/bin"
_DEFAULT_PROVIDER_CONFIG = "/var/lib/rancher/credentialprovider/config.yaml"

VERSION = r"v?([1-9])\.(\d{1,3})(?:\.(\d{1,3}))?(?![\w.])"
"""Of Kubernetes or CRI-O. What a build without its tag calls itself (``v0.0.0-master+$Format:%H$``) is not one, and a
pre-release counts as what it leads to, as for the kubelet's feature gates (component-base/compatibility)."""

_VERSION = re.compile(rf"^\s*(?:Kubernetes |\S+ version |containerd \S+ )?\"?{VERSION}", re.MULTILINE | re.ASCII)
"""In a line of its own, or after the program's name: the version of Go comes below it."""
_VERSION_TIMEOUT = 10
"""Seconds for a program to say its version."""
_MOST_SAID = 80
"""Characters of an invalid version that are shown."""

UNITS = (*_UNITS, *_UNITS_OF_DISTRIBUTIONS)


class Version(NamedTuple):
    """A version, and who said so."""

    numbers: tuple[int, ...]
    origin: str

    def __str__(self) -> str:
        return ".".join(map(str, self.numbers))

    @property
    def minor(self) -> tuple[int, int]:
        return self.numbers[0], self.numbers[1]


def parse_version(text: str, origin: str) -> Version | None:
    """The first version in a text: ``Kubernetes v1.34.2``, ``1.34``; None where it is unknown."""
    match = _VERSION.search(text)
    return Version(tuple(int(number) for number in match.groups() if number), origin) if match else None


class Kubelet(NamedTuple):
    """A kubelet that runs or is configured.

    Attributes:
        name: what it was found as, for people.
        flags: in order; the last of a name counts.
        configured: those of the unit, where it runs with others.
        start: where its command line stands.
        started: as ``Process.started``, 0 where it does not run or that is not known.
        program: path of its executable.
        distribution: ``k3s``, ``rke2`` or "".
        environment: what its unit sets, which the programs that it runs find as well.
        problems: files that could not be read.
        unit: the service that starts it, None where none was found.
        expected: k3s and RKE2: where they look for the configuration and the programs of providers, which they pass on
            only if both are there.
    """

    name: str
    flags: tuple[Flag, ...]
    configured: tuple[Flag, ...]
    start: Origin
    started: float
    program: str
    distribution: str
    environment: dict[str, str]
    problems: tuple[Unreadable, ...]
    unit: Unit | None
    expected: tuple[Flag, ...] = ()

    def flag(self, name: str) -> Flag | None:
        """The flag that counts; one that the restart will bring where there is none now."""
        return last(self.flags, name) or last(self.configured, name)


def find_kubelet(tree: Tree, ticks: int, *, live: bool) -> Kubelet | None:
    """The kubelet of a node.

    Args:
        ticks: of the kernel in a second.
        live: whether processes are looked at.
    """
    running = find_processes(tree, ("kubelet", *_DISTRIBUTIONS), ticks) if live else []
    process = next((process for process in running if _is_kubelet(process)), None)
    if process and posixpath.basename(process.arguments[0]) in _DISTRIBUTIONS:
        return _of_distribution(tree, posixpath.basename(process.arguments[0]), process)
    unit = next((unit for name in _UNITS if (unit := find_unit(tree, name))), None)
    if process or unit:
        return _of_unit(unit, process)
    for name in _UNITS_OF_DISTRIBUTIONS:
        if find_unit(tree, name):
            return _of_distribution(tree, name.partition(".")[0].partition("-")[0], None)
    return None


def _is_kubelet(process: Process) -> bool:
    name = posixpath.basename(process.arguments[0])
    return name == "kubelet" or process.arguments[1:2] in (("server",), ("agent",))


def _of_unit(unit: Unit | None, process: Process | None) -> Kubelet:
    configured = tuple(map(_meant, find_flags(_own_words(unit.words), _FLAGS))) if unit else ()
    problems = unit.problems if unit else ()
    environment = unit.environment if unit else {}
    if process is None:
        assert unit is not None
        program = next((word.text for word in unit.words if posixpath.basename(word.text) == "kubelet"), "")
        return Kubelet(unit.file, configured, configured, unit.start, 0, program, "", environment, problems, unit)
    flags = tuple(_located(flag, configured) for flag in find_flags(process.words[1:], _FLAGS))
    start = unit.start if unit else process.words[0].origin
    name = f"process {process.pid}"
    return Kubelet(name, flags, configured, start, process.started, process.program, "", environment, problems, unit)


def _meant(flag: Flag) -> Flag:
    """A flag under the name that was most likely meant, of the two that hand over the plugin."""
    close = difflib.get_close_matches(flag.name.lower(), (PROVIDER_CONFIG, BIN_DIR), 1, 0.9)
    return flag._replace(name=close[0]) if close else flag


def find_slips(kubelet: Kubelet) -> list[Flag]:
    """Flags that the kubelet does not know as they are written: misspelled, or a long one with a single dash."""
    written = [flag for flag in kubelet.configured if flag.written and flag.name in _FLAGS and len(flag.name) > 1]
    return [flag for flag in written if flag.written.replace("_", "-") != f"--{flag.name}"]


def _own_words(words: tuple[Word, ...]) -> tuple[Word, ...]:
    """The kubelet's, where a wrapper runs it: ``kubenswrapper /usr/bin/kubelet --config=...``."""
    for position, word in enumerate(words):
        if posixpath.basename(word.text) == "kubelet":
            return words[position + 1 :]
    return words[1:]


def _located(flag: Flag, configured: tuple[Flag, ...]) -> Flag:
    """A flag of a process with the place where its unit has it."""
    same = [other for other in configured if other[:2] == flag[:2]]
    return same[-1] if same else flag


# -- k3s and RKE2 -----------------------------------------------------------------------------------------------------


def _of_distribution(tree: Tree, name: str, process: Process | None) -> Kubelet:
    """Their command line and configuration files hold flags of their own, and those of the kubelet as ``kubelet-arg``.

    Without the flags they take their defaults, and only if both the directory and the file are there.
    """
    units = (unit for part in _UNITS_OF_DISTRIBUTIONS if part.startswith(name) and (unit := find_unit(tree, part)))
    unit = next(units, None)
    problems = list(unit.problems) if unit else []
    words = list(unit.words) if unit else process.words if process else []
    start = unit.start if unit else words[0].origin
    own = find_flags(words, frozenset(("kubelet-arg", *_RANCHER_SETTINGS)))
    settings, arguments = _rancher_settings(tree, name, problems)
    for flag in own:
        if flag.name in _RANCHER_SETTINGS:
            settings[flag.name] = flag
    arguments += [_argument(flag.value, flag.origin) for flag in own if flag.name == "kubelet-arg"]
    defaults = {PROVIDER_CONFIG: _DEFAULT_PROVIDER_CONFIG, BIN_DIR: _DEFAULT_BIN_DIR}
    chosen = [settings.get(key) or Flag(key, value, Origin(value)) for key, value in defaults.items()]
    kubeconfig = next(path for path in KUBECONFIGS if f"/{name}/" in path)
    directory = posixpath.join(posixpath.dirname(kubeconfig), "etc/kubelet.conf.d")
    flags = [Flag("kubeconfig", kubeconfig, start), Flag("config-dir", directory, start)]
    if tree.exists(chosen[0].value) and tree.is_directory(chosen[1].value):
        flags += chosen
    flags += [settings[_ENDPOINT]] if _ENDPOINT in settings else []
    flags += arguments
    program = process.program if process else (words[0].text if words else "")
    found = f"process {process.pid}" if process else unit.file if unit else name
    started = process.started if process else 0
    environment = unit.environment if unit else {}
    given = tuple(flags)
    return Kubelet(
        *(found, given, given, start, started, program, name, environment, tuple(problems), unit), tuple(chosen)
    )


def _argument(text: str, origin: Origin) -> Flag:
    name, _, value = text.lstrip("-").partition("=")
    return _meant(Flag(name.replace("_", "-"), value, origin, f"--{name}"))


def _rancher_settings(tree: Tree, name: str, problems: list[Unreadable]) -> tuple[dict[str, Flag], list[Flag]]:
    """The settings of /etc/rancher that are the kubelet's, and its further arguments; a drop-in's list replaces the
    one before it, unless its key ends with a plus sign."""
    directory = f"/etc/rancher/{name}"
    files = [f"{directory}/config.yaml"]
    try:
        drop_ins = tree.names(f"{directory}/config.yaml.d")
        files += [f"{directory}/config.yaml.d/{part}" for part in drop_ins if part.endswith((".yaml", ".yml"))]
    except Unreadable:
        pass
    settings: dict[str, Flag] = {}
    arguments: list[Flag] = []
    for file in files:
        document = _load(tree, file, problems)
        if document is None or not isinstance(document.value, dict):
            continue
        for key in _RANCHER_SETTINGS:
            if isinstance(document.value.get(key), str):
                settings[key] = Flag(key, document.value[key], Origin(file, document.line(key)))
        for key in ("kubelet-arg", "kubelet-arg+"):
            if key not in document.value:
                continue
            given = document.value[key]
            texts = given if isinstance(given, list) else [given]
            found = [_argument(str(t), Origin(file, document.line(key, at))) for at, t in enumerate(texts)]
            arguments = [*arguments, *found] if key.endswith("+") else found
    return settings, arguments


def _load(tree: Tree, file: str, problems: list[Unreadable]) -> Document | None:
    try:
        return loads_yaml(tree.read(file, MAX_YAML), file)
    except Unreadable as error:
        if not error.missing:
            problems.append(error)
    except Syntax as error:
        problems.append(Unreadable(file, f"it is not valid YAML: {error.reason}"))
    return None


# -- feature gates ----------------------------------------------------------------------------------------------------


class Gate(NamedTuple):
    """What a node says of a feature gate. ``value`` is None where it is not set."""

    value: bool | None
    origin: Origin | None
    problems: tuple[Unreadable, ...]


def find_gate(tree: Tree, kubelet: Kubelet, name: str = GATE) -> Gate:
    """The value of a feature gate: the flag goes before the drop-ins, these before the configuration file.

    ``AllAlpha`` and ``AllBeta`` are gates like others here: who asks knows the stage.
    """
    problems: list[Unreadable] = []
    value: bool | None = None
    origin: Origin | None = None
    for document in _configurations(tree, kubelet, problems):
        if document.value is not None and not isinstance(document.value, dict):
            problems.append(Unreadable(document.file, "it is not a KubeletConfiguration"))
        gates = document.value.get("featureGates") if isinstance(document.value, dict) else None
        if "featureGates" in (document.value if isinstance(document.value, dict) else {}) and origin is None:
            origin = Origin(document.file, document.line("featureGates"))
        if isinstance(gates, dict) and isinstance(gates.get(name), bool):
            value, origin = gates[name], Origin(document.file, document.line("featureGates", name))
        elif origin is None:
            origin = Origin(document.file)
    for flag in kubelet.flags:
        if flag.name != "feature-gates":
            continue
        for part in flag.value.strip("\"'").split(","):
            key, _, text = part.strip().partition("=")
            if key == name and text.lower() in ("true", "false", "1", "0", "t", "f"):
                value, origin = text.lower() in ("true", "1", "t"), flag.origin
    return Gate(value, origin, tuple(problems))


def _configurations(tree: Tree, kubelet: Kubelet, problems: list[Unreadable]) -> list[Document]:
    """The KubeletConfiguration and its drop-ins, ``*.conf`` in byte order, as ``--config-dir`` has it."""
    config, directory = kubelet.flag("config"), kubelet.flag("config-dir")
    files = [config.value] if config else []
    if directory:
        try:
            names = [name for name in tree.names(directory.value) if name.endswith(".conf")]
            files += [posixpath.join(directory.value, name) for name in names]
        except Unreadable as error:
            if not error.missing:
                problems.append(error)
    return [document for file in files if (document := _load(tree, file, problems))]


_HEALTHZ = ("127.0.0.1", 10248)


def healthz(tree: Tree, kubelet: Kubelet) -> tuple[str, int]:
    """Where the kubelet says whether it is healthy: its address and port, 0 where it does not serve that."""
    address, port = _HEALTHZ
    for document in _configurations(tree, kubelet, []):
        written = as_mapping(document.value)
        given, number = written.get("healthzBindAddress"), written.get("healthzPort")
        address = given if isinstance(given, str) and given else address
        port = number if isinstance(number, int) else port
    flag = last(kubelet.configured, "healthz-bind-address")
    address = flag.value if flag else address
    flag = last(kubelet.configured, "healthz-port")
    port = int(flag.value) if flag and flag.value.isdecimal() else port
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address), port


def runtime_endpoint(tree: Tree, kubelet: Kubelet) -> tuple[str, Origin]:
    """The socket of the container runtime, "" where it is not set; and where it is set."""
    flag = kubelet.flag(_ENDPOINT)
    if flag:
        return flag.value, flag.origin
    found = "", kubelet.start
    for document in _configurations(tree, kubelet, []):
        value = as_mapping(document.value).get("containerRuntimeEndpoint")
        if isinstance(value, str):
            found = value, Origin(document.file, document.line("containerRuntimeEndpoint"))
    return found


# -- versions ---------------------------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """What a program printed as its version: None with the reason if it is not valid, "" if it was not asked."""

    version: Version | None = None
    why_unknown: str = ""


def ask_version(tree: Tree, program: str) -> Asked:
    """What a program of the node says to ``--version``: it is run, so never in an image."""
    if not program or not tree.exists(program):
        return Asked()
    command = f"{program} --version"
    try:
        done = _run(tree, program)
    except subprocess.TimeoutExpired:
        return Asked(None, f"{command} did not exit within {_VERSION_TIMEOUT} s")
    except (OSError, ValueError) as error:
        return Asked(None, f"{command}: {getattr(error, 'strerror', None) or 'cannot be run'}")
    if done.returncode:
        how = (
            f"was ended by signal {-done.returncode}"
            if done.returncode < 0
            else f"exited with status {done.returncode}"
        )
        return Asked(None, f"{command} {how}")
    said = done.stdout.strip().partition("\n")[0][:_MOST_SAID]
    found = parse_version(done.stdout, command)
    return Asked(found, "" if found else f"{command} prints {said!r}" if said else f"{command} prints nothing")


def _run(tree: Tree, program: str) -> subprocess.CompletedProcess[str]:
    """A program's ``--version``; below the node's root where its interpreter or its libraries are only there."""
    try:
        return _start(tree.real(program))
    except FileNotFoundError as error:
        if not tree.root:
            raise
        try:
            return _start(program, tree.root)
        except (OSError, subprocess.SubprocessError):
            raise error from None


def _start(program: str, root: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, "--version"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_VERSION_TIMEOUT,
        check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"},
        preexec_fn=(lambda: os.chroot(root)) if root else None,
    )


_PACKAGES = "/var/lib/dpkg/status"
_MAX_PACKAGES = 32 * 1024 * 1024


def packaged_version(tree: Tree, *packages: str) -> Version | None:
    """What dpkg says is installed. The databases of rpm are not read."""
    try:
        text = tree.text(_PACKAGES, _MAX_PACKAGES)
    except Unreadable:
        return None
    for package in packages:
        match = re.search(rf"^Package: {re.escape(package)}\n(?:.+\n)*?Version: (?:\d+:)?(\S+)", text, re.MULTILINE)
        if match and (version := parse_version(match[1], f"{_PACKAGES}, package {package}")):
            return version
    return None


def as_mapping(value: Any) -> dict[str, Any]:
    """The value where it is a mapping; else an empty one."""
    return value if isinstance(value, dict) else {}
