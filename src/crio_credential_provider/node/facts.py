"""The facts about a node, gathered once: what runs, what is configured, and where each of it was found.

Asks no server and judges nothing; what is not there or cannot be read is a fact as well.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from typing import NamedTuple

from .. import settings
from ..errors import ConfigError, UsageError
from ..kubernetes.credentialproviderconfig import NAME
from ..runtimes.crio import registries, registriesfile
from ..runtimes.crio.registries import Configuration
from ..runtimes.crio.registriestext import Ignored
from ..runtimes.endpoint import named_by
from ..settings import AUTO, CONTAINERD, CRIO, Settings
from . import containerd, crio, kubelet, providerconfig
from .containerd import Containerd, Hosts
from .crio import Crio
from .kubelet import BIN_DIR, PROVIDER_CONFIG, Asked, Kubelet, Version
from .providerconfig import Provider, ProviderConfig, is_nearly_ours
from .tree import Tree, Unreadable

_MAX_REGISTRIES = 16 * 1024 * 1024
_HOME = "/root"
"""The home of a service, where registries.conf is looked for as well."""
_MARK = re.compile(rb"crio[-_]credential[-_]provider")
_MAX_PROGRAM = 8 * 1024 * 1024
"""Bytes; those of the clouds' providers have more."""
_OUR_FLAGS = ("--secrets-from", "--mirror-registry", "--no-pull-record", "--hand-off")
"""Flags that no other provider is known to have."""


class Given(NamedTuple):
    """What a person asks for.

    Attributes:
        root: "" for this machine.
        live: whether processes, the API server and mirrors are asked.
        config: a CredentialProviderConfig that alone is examined; "" for the node's.
        registries_conf: examined alone, without drop-ins; "" for what the plugin reads.
        kubernetes: version; None for the node's own.
        next_start: whether the kubelet is examined as its next start will be, whatever runs.
    """

    root: str = ""
    live: bool = True
    config: str = ""
    registries_conf: str = ""
    kubernetes: tuple[int, int] | None = None
    next_start: bool = False


class RegistriesConf(NamedTuple):
    """registries.conf with its drop-ins.

    Attributes:
        main: the path of the main file.
        texts: path -> content, in the order in which they are read.
        config: merged; None where it is refused or cannot be read.
        refused: why.
        unreadable: a file that this process may not read, or that is named and not there.
        linked: drop-in directories that are links, which CRI-O does not follow.
        unread: files beside the drop-ins whose names keep them from being read.
    """

    main: str
    texts: dict[str, str]
    config: Configuration | None
    refused: ConfigError | None
    unreadable: Unreadable | None
    linked: tuple[str, ...] = ()
    unread: tuple[Ignored, ...] = ()


class Node(NamedTuple):
    """The facts.

    Attributes:
        given: what was asked for.
        tree: the files.
        kubelet, crio: None where there is none, or only a file is examined.
        version: of Kubernetes; None where it is unknown.
        version_unknown: why what the kubelet prints is not a version; "" where it was not asked.
        config: None where no path is known, or nothing can be read there; then ``config_error`` says why.
        entry: of this plugin.
        settings: as the plugin takes them; None where it refuses them, for which ``refused`` says why.
        registries: the plugin's.
        containerd: None where there is none, or only a file is examined.
        endpoint: of the kubelet's container runtime, "" where it is not set.
        hosts: containerd's, or without one the plugin's; None where CRI-O pulls.
    """

    given: Given
    tree: Tree
    kubelet: Kubelet | None
    crio: Crio | None
    version: Version | None
    version_unknown: str
    config: ProviderConfig | None
    config_error: Unreadable | None
    entry: Provider | None
    settings: Settings | None
    refused: UsageError | None
    registries: RegistriesConf
    containerd: Containerd | None = None
    endpoint: str = ""
    hosts: Hosts | None = None

    @property
    def runtime(self) -> str:
        """``crio`` or ``containerd``: what the plugin works for. Left to find that out, it takes CRI-O where the
        command line of the kubelet does not tell (k3s), or there is no /etc/containerd (``runtimes.endpoint``)."""
        chosen = self.settings.runtime if self.settings else AUTO
        if chosen != AUTO:
            return chosen
        is_k3s = self.kubelet is not None and self.kubelet.distribution == "k3s"
        is_told = self.kubelet is not None and not is_k3s and self.tree.exists("/etc/containerd")
        return CONTAINERD if is_told and self.pulls_with == CONTAINERD else CRIO

    @property
    def pulls_with(self) -> str:
        """``crio`` or ``containerd``: what the kubelet pulls with, by its endpoint; where that is not set, by its
        default or by what the node has."""
        if self.endpoint:
            return named_by(self.endpoint)
        chosen = self.settings.runtime if self.settings else AUTO
        if self.kubelet is None and chosen != AUTO:
            return chosen
        is_default = self.kubelet is not None and bool(self.kubelet.started or self.kubelet.distribution)
        has_containerd = self.containerd is not None and self.crio is None
        return CONTAINERD if is_default or has_containerd else CRIO

    @property
    def config_path(self) -> str:
        """As the kubelet is told it, "" where it is not."""
        flag = self.kubelet.flag(PROVIDER_CONFIG) if self.kubelet else None
        return self.given.config or (flag.value if flag else "")

    @property
    def bin_dir(self) -> str:
        flag = self.kubelet.flag(BIN_DIR) if self.kubelet else None
        return flag.value if flag else ""

    @property
    def minor(self) -> tuple[int, int] | None:
        return self.version.minor if self.version else None


def gather(given: Given, tree: Tree | None = None) -> Node:
    """Gathers the facts about this machine, an unpacked image, or one file.

    Args:
        tree: the files of ``given.root``, for a ``Planned`` one.
    """
    tree = tree or Tree(given.root)
    ticks = os.sysconf("SC_CLK_TCK")
    alone = bool(given.config)
    found = None if alone else kubelet.find_kubelet(tree, ticks, live=given.live and not given.next_start)
    version, version_unknown = _version(tree, given, found)
    flag = found.flag(PROVIDER_CONFIG) if found else None
    config, config_error = _config(tree, given.config or (flag.value if flag else ""), version)
    bin_flag = found.flag(BIN_DIR) if found else None
    entry = _own_entry(tree, config, bin_flag.value if bin_flag else "")
    chosen, refused = _settings(found, entry)
    start = {"live": given.live, "next_start": given.next_start}
    node = Node(
        given,
        tree,
        found,
        None if alone else crio.find_crio(tree, ticks, **start),
        version,
        version_unknown,
        config,
        config_error,
        entry,
        chosen,
        refused,
        _registries(tree, given.registries_conf, chosen or settings.loads([], {})),
        None if alone else containerd.find_containerd(tree, ticks, found, **start),
        kubelet.runtime_endpoint(tree, found)[0] if found else "",
    )
    return node._replace(hosts=_hosts(node)) if node.pulls_with == CONTAINERD else node


def with_content(node: Node, file: str, content: str) -> Node:
    """The same node with another content in a file of its CredentialProviderConfig."""
    config = providerconfig.load(node.tree, node.config_path, node.minor, {file: content.encode()})
    entry = _own_entry(node.tree, config, node.bin_dir)
    chosen, refused = _settings(node.kubelet, entry)
    return node._replace(config=config, entry=entry, settings=chosen, refused=refused)


def _version(tree: Tree, given: Given, found: Kubelet | None) -> Asked:
    if given.kubernetes:
        return Asked(Version(given.kubernetes, "--kubernetes"))
    if found and given.live and (asked := kubelet.ask_version(tree, found.program)) != Asked():
        # A build that does not know its version came out of no package.
        return asked
    return Asked(kubelet.packaged_version(tree, "kubelet") if found else None)


def _config(tree: Tree, path: str, version: Version | None) -> tuple[ProviderConfig | None, Unreadable | None]:
    if not path:
        return None, None
    try:
        return providerconfig.load(tree, path, version.minor if version else None), None
    except Unreadable as error:
        return None, error


def _own_entry(tree: Tree, config: ProviderConfig | None, bin_dir: str) -> Provider | None:
    """The entry of this plugin: by its name, else by its arguments or the program behind it."""
    providers = config.providers if config else ()
    for provider in providers:
        if provider.name == NAME:
            return provider
    for provider in providers:
        has_our_flags = any(text.startswith(_OUR_FLAGS) for text, _ in provider.arguments)
        if (
            is_nearly_ours(provider.name)
            or NAME in provider.name
            or has_our_flags
            or _is_ours(tree, posixpath.join(bin_dir or "/", provider.name))
        ):
            return provider
    return None


def _is_ours(tree: Tree, path: str) -> bool:
    """Whether a path leads to a file of this program, by the file's name or by what it holds: the launcher and a
    script of an installation know the program's name."""
    try:
        return tree.exists(path) and (NAME in tree.target(path) or bool(_MARK.search(tree.read(path, _MAX_PROGRAM))))
    except (OSError, Unreadable):
        return False


def variables(found: Kubelet | None, entry: Provider) -> dict[str, str]:
    """What the plugin finds in its environment: the kubelet's own, and the entry's, which wins."""
    return {**(found.environment if found else {}), **entry.environment}


def _settings(found: Kubelet | None, entry: Provider | None) -> tuple[Settings | None, UsageError | None]:
    """What the plugin itself makes of its arguments and variables."""
    if entry is None:
        return None, None
    try:
        arguments, environment = [text for text, _ in entry.arguments], variables(found, entry)
        settings.loads(arguments, environment)
        # With --root= the paths are the node's: a root of its own is told for itself, and the rest examined without.
        return settings.loads([*arguments, "--root="], environment), None
    except UsageError as error:
        return None, error


def _hosts(node: Node) -> Hosts:
    chosen = node.settings or settings.loads([], {})
    return containerd.load_hosts(
        node.tree, node.containerd.config_file.value if node.containerd else chosen.containerd_config
    )


def _registries(tree: Tree, given: str, chosen: Settings) -> RegistriesConf:
    """As the plugin reads it: ``registries.search_files`` below a root that no link leads out of."""
    directory = chosen.registries_conf_dir
    main, drop_ins = (given, []) if given else search_files(tree, chosen.registries_conf, directory)
    linked = tuple(path for path in (directory or registries.DROP_IN_DIRECTORY,) if is_linked_directory(tree, path))
    contents: list[tuple[str, bytes]] = []
    unreadable = refused = None
    for path in (main, *drop_ins):
        try:
            contents.append((path, tree.read(path, _MAX_REGISTRIES)))
        except Unreadable as error:
            # CRI-O takes a file that is not there for an empty one, unless it was named.
            if given or error.denied or (error.missing and path == main and chosen.registries_conf):
                unreadable = error
            elif not error.missing:
                refused = ConfigError(f"cannot read {path}: {error.reason}", rule="io")
                contents.append((path, b""))
    texts = {path: data.decode("utf-8", "replace") for path, data in contents}
    if unreadable or refused:
        return RegistriesConf(main, texts, None, refused, unreadable)
    try:
        config = registries.loads(contents, main)
        unread = () if given or linked else tuple(_unread(tree, directory or registries.DROP_IN_DIRECTORY, config))
        return RegistriesConf(main, texts, config, None, None, () if given else linked, unread)
    except ConfigError as error:
        return RegistriesConf(main, texts, None, error, None)


def _unread(tree: Tree, directory: str, config: Configuration) -> Iterator[Ignored]:
    try:
        for name in tree.names(directory):
            path = posixpath.join(directory, name)
            if not name.endswith(".conf") and not tree.is_directory(path):
                found = registriesfile.unread_drop_in(path, tree.read(path), config.prefixes())
                yield from [found] if found else []
    except Unreadable:
        return


def search_files(tree: Tree, main: str, drop_in_directory: str) -> tuple[str, list[str]]:
    """The main file and the drop-ins, found as ``registries.search_files`` finds them."""
    home_main = posixpath.join(_HOME, ".config/containers/registries.conf")
    directories = [drop_in_directory] if drop_in_directory else [registries.DROP_IN_DIRECTORY]
    if not main and tree.exists(home_main):
        main = home_main
        directories = [drop_in_directory] if drop_in_directory else []
    if not drop_in_directory:
        directories.append(f"{home_main}.d")
    found = []
    for directory in directories:
        try:
            # A directory that is itself a link counts as empty.
            names = [] if is_linked_directory(tree, directory) else tree.names(directory)
        except Unreadable:
            continue
        paths = [posixpath.join(directory, name) for name in names if name.endswith(".conf")]
        # A link that leads to a directory is read like any other, which fails.
        found += [path for path in paths if not tree.is_directory(path) or is_linked_directory(tree, path)]
    return main or registries.MAIN_FILE, found


def is_linked_directory(tree: Tree, directory: str) -> bool:
    """Whether the last part of a directory's path is a link: those before it CRI-O follows."""
    above, name = posixpath.split(directory.rstrip("/"))
    try:
        return os.path.islink(posixpath.join(tree.real(above), name))
    except OSError:
        return False
