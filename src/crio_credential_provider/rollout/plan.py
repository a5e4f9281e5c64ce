"""What a node needs for the plugin, as changes in the order in which they are safe.

At no time does a configuration of the kubelet name what is not there: first the program, then the auth directory and
CRI-O's side of it, then the CredentialProviderConfig, then the kubelet's flags; on the way back the other way round. A
node with containerd has no auth files, and none of containerd's own files is changed: without the second of these.
What is as it should be is no change. Reads files, writes none.
"""

from __future__ import annotations

import base64
import contextlib
import os
import posixpath
import re
from collections.abc import Iterator
from typing import NamedTuple

from .. import __version__, settings
from ..doctor import cluster
from ..doctor.checks.registries import asked_mirrors
from ..doctor.checks.runtime import mount_of
from ..errors import ConfigError
from ..images import dockerconfig
from ..images.dockerconfig import DockerConfig
from ..kubernetes.credentialproviderconfig import FIRST, NAME
from ..kubernetes.imagepatterns import overlap
from ..manifests import layout, matchimages, merge, nodefiles, providerconfig
from ..manifests.matchimages import Derived
from ..manifests.nodefiles import AUTH_DIR, DISTRIBUTIONS, NodeFile
from ..manifests.providerconfig import OPENSHIFT_AUDIENCE, Wanted
from ..node import containerd, programs
from ..node.commandline import last
from ..node.containerd import Hosts
from ..node.facts import Node
from ..node.kubelet import BIN_DIR, PROVIDER_CONFIG, find_gate
from ..node.programs import GO, OURS
from ..node.providerconfig import Provider
from ..node.tree import Planned, Tree, Unreadable
from ..pull import authfile
from ..settings import AUTO, CONTAINERD, CRIO
from . import flags, store
from .changes import ABSENT, DIRECTORY, FILE, LINK, Change, RolloutError, State, dumps_change, file_state, observe
from .services import Actions, actions_of
from .transaction import place

DEFAULT_VERSION = (1, 34)
"""Where the node does not tell; as ``manifests`` has it."""

_MEMORY = ("tmpfs", "ramfs")
_GO_TEMPORARY = re.compile(r"\.auth-\d+\.tmp")
_PROGRAM_MODE = 0o755


class Wishes(NamedTuple):
    """What was asked for; what is not given is as it is on the node, else the default of ``manifests``.

    Attributes:
        audience, config_path, bin_dir: "" for that.
        match_images: none for what registries.conf, or containerd's files, call for.
        args: of the plugin; --runtime is by default what the kubelet pulls with.
        program: the executable that is installed; None for the one that is there.
    """

    audience: str = ""
    config_path: str = ""
    bin_dir: str = ""
    match_images: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    program: bytes | None = None


class Plan(NamedTuple):
    """What is to be done.

    Attributes:
        subject: the node as it was understood, for people.
        changes: in their order.
        contents: of files before and after, by digest.
        actions: what services must be told.
        notes: what a person should know beside the changes.
        config_path, bin_dir: of the kubelet, when it is done.
        auth_dir: of the plugin, without links.
    """

    subject: str
    changes: tuple[Change, ...]
    contents: dict[str, bytes]
    actions: Actions
    notes: tuple[str, ...] = ()
    config_path: str = ""
    bin_dir: str = ""
    auth_dir: str = ""

    def tree(self, root: str) -> Planned:
        """The node's files as they will be."""
        files: dict[str, tuple[bytes, int] | None] = {}
        for change in self.changes:
            if change.after.kind == FILE:
                files[change.path] = self.contents[change.after.digest], change.after.mode
            elif change.after.kind == ABSENT:
                files[change.path] = None
        made = [change.path for change in self.changes if change.after.kind == DIRECTORY]
        if self.actions.mounted:
            files |= _with_mount(Tree(root), self.auth_dir)
        return Planned(root, files, made)


def _with_mount(tree: Tree, directory: str) -> dict[str, tuple[bytes, int] | None]:
    """What the kernel will say of its mounts (proc_pid_mountinfo(5))."""
    line = f"0 0 0:0 / {directory} rw - tmpfs tmpfs rw\n".encode()
    found: dict[str, tuple[bytes, int] | None] = {}
    for path in ("/proc/1/mountinfo", "/proc/self/mountinfo"):
        with contextlib.suppress(Unreadable, OSError):
            found[tree.target(path)] = tree.read(path) + line, 0o444
    return found


def is_openshift(tree: Tree) -> bool:
    try:
        return "OPENSHIFT_VERSION=" in tree.text("/etc/os-release")
    except Unreadable:
        return tree.is_directory("/etc/machine-config-daemon")


def install(node: Node, wishes: Wishes) -> Plan:
    """What an installation changes.

    Raises:
        RolloutError, ConfigError, UsageError: this node cannot be told what it needs, and why.
        OSError, Unreadable: what is there cannot be read.
    """
    return _Installation(node, wishes).plan()


class _Installation:
    def __init__(self, node: Node, wishes: Wishes) -> None:
        if node.kubelet is None:
            below = node.given.root
            raise RolloutError(
                f"no kubelet was found {f'below {below}' if below else 'on this node'}",
                "give --host the root of a node's file system" if below else "run this as root on a node",
            )
        if node.kubelet.unit is None:
            raise RolloutError(
                f"the kubelet ({node.kubelet.name}) is not started by systemd", "configure it by hand: manifests"
            )
        self._node, self._wishes, self._kubelet, self._unit = node, wishes, node.kubelet, node.kubelet.unit
        self._tree = node.tree
        self._changes: list[Change] = []
        self._contents: dict[str, bytes] = {}
        self._notes: list[str] = []
        self._distribution = self._kubelet.distribution or ("openshift" if is_openshift(self._tree) else "kubeadm")
        self._version = node.minor or DEFAULT_VERSION
        if node.minor is None:
            self._notes.append(f"the kubelet's version is not known; {_dotted(self._version)} is assumed")
        elif self._version < FIRST:
            raise RolloutError(
                f"this kubelet is {node.version}, which passes no tokens to plugins", "update it to 1.34 or newer"
            )
        defaults = DISTRIBUTIONS[self._distribution]
        self._config_path = self._chosen(PROVIDER_CONFIG, wishes.config_path, defaults.config_path)
        self._bin_dir = self._chosen(BIN_DIR, wishes.bin_dir, self._usual_bin_dir(defaults.bin_dir))
        wished = settings.loads(list(wishes.args), {}).runtime
        self._runtime = node.pulls_with if wished == AUTO else wished
        self._there = programs.find(self._tree, posixpath.join(self._bin_dir, NAME))
        self._doubles = programs.find_doubles(node, self._bin_dir)
        self._args = self._all_args()
        self._settings = settings.loads([*self._present_args(), *self._args], {})
        self._auth_dir = self._settings.auth_dir
        if self._runtime == CRIO and not nodefiles.is_plain_path(self._auth_dir.rstrip("/")):
            raise RolloutError(
                f"--auth-dir {self._auth_dir!r} cannot stand in a unit of systemd", "letters, digits and ./@:+,-_ alone"
            )

    def plan(self) -> Plan:
        self._program()
        for file, role in self._auth_files():
            self._file(file.path, file.text.encode(), role)
            if role == "mount":
                self._wanted_by(file.path)
        self._config()
        self._flags()
        real = [change for change in self._changes if change.role != "directory"]
        changes = tuple(self._changes) if real else ()
        actions = actions_of(changes, posixpath.basename(self._unit.file))
        subject = f"{self._distribution}, Kubernetes {self._node.version or 'of unknown version'}, {self._unit.file}"
        subject += ", containerd" if self._runtime == CONTAINERD else ""
        if changes and self._distribution == "openshift":
            self._notes.append(
                "the Machine Config Operator reports a node as degraded whose files it finds changed; for a pool of "
                "nodes use manifests machineconfig"
            )
        notes = (*(self._replaced() if real else ()), *self._notes, *self._of_the_whole_node())
        paths = self._config_path, self._bin_dir, self._resolved(self._auth_dir)
        return Plan(subject, changes, self._contents, actions, notes, *paths)

    # -- what is told --------------------------------------------------------------------------------------------------

    def _replaced(self) -> Iterator[str]:
        """Of a program that was there before."""
        path = posixpath.join(self._bin_dir, NAME)
        is_new = any(change.role == "program" for change in self._changes)
        if is_new and self._there:
            yield f"{path}: replaces {self._there}; rollback and uninstall put it back"
            if self._is_packaged(path):
                yield (
                    f"{path} is a file of the package {NAME}, whose next upgrade replaces this program, and whose "
                    f"removal removes it: apt-mark hold {NAME}, or dnf versionlock, or upgrade by the package"
                )
        for directory in (DISTRIBUTIONS[self._distribution].bin_dir, nodefiles.WRITABLE_BIN_DIR):
            other = posixpath.join(directory, NAME)
            program = programs.find(self._tree, other)
            if program and self._tree.target(other) != self._tree.target(path):
                yield f"{other} is {program}: this kubelet does not run it; remove it yourself"
        go = any(one and one.kind == GO for one in (self._there, *(program for _, program in self._doubles)))
        if go and self._runtime == CRIO:
            yield from self._other_than_the_go_provider()

    def _is_packaged(self, path: str) -> bool:
        """By dpkg's list of files; else by the other file of an .rpm, whose database is not read."""
        try:
            return path in self._tree.text(f"/var/lib/dpkg/info/{NAME}.list").splitlines()
        except Unreadable:
            is_there = self._tree.exists(f"/usr/lib/tmpfiles.d/{NAME}.conf")
            return is_there and posixpath.dirname(path) == DISTRIBUTIONS["kubeadm"].bin_dir

    def _other_than_the_go_provider(self) -> Iterator[str]:
        """Its paths are compiled in, it takes no arguments, and reads no variables of its own."""
        found = cluster.locate(self._node).endpoint
        server = f"{found.url} ({found.origin}), its certificate verified" if found else "not found (see doctor)"
        yield (
            f"API server: {server}; the Go provider asks that of "
            "/etc/kubernetes/apiserver-url.env, else localhost:6443, and does not verify"
        )
        yield (
            f"auth files: below {self._auth_dir}, with the credentials of one image's mirrors; those of the Go "
            f"provider have all of {self._settings.global_auth_file} as well"
        )
        yield (
            "a run without a token, or without a credential, exits with 0; each pull with a credential of its "
            "namespace leaves a pull record"
        )
        if self._node.entry and (names := ", ".join(self._node.entry.environment)):
            yield f"env: not changed; check that these variables are still needed: {names}"
        if stale := auth_files(self._tree, self._auth_dir):
            yield f"{self._auth_dir} has auth files that no pull has taken ({len(stale)}): " + (
                "they are removed before the tmpfs is mounted over them; with --no-restart remove them yourself"
                if any(change.role == "mount" for change in self._changes)
                else "the next runs of the plugin remove them"
            )

    def _of_the_whole_node(self) -> Iterator[str]:
        """Mirrors for which every pod of the node has a credential."""
        path = self._settings.global_auth_file
        try:
            held = dockerconfig.loads(self._tree.read(path))
        except (Unreadable, ConfigError) as error:
            if not isinstance(error, Unreadable) or not error.missing:
                why = error.reason if isinstance(error, Unreadable) else error.message
                yield f"cannot use {path}: {why}"
            return
        found = [text for location in self._looked_up() for text in _credentials_for(held, location)]
        if found:
            yield (
                f"{path} has credentials for {', '.join(found)}: pulls of namespaces without one of their own go on "
                "using them"
            )
        if held.creds_store:
            yield f"{path} has a credsStore, which neither CRI-O nor the kubelet reads"

    def _looked_up(self) -> list[str]:
        """By what names credentials of the whole node would be found: the mirrors' for CRI-O; for containerd those of
        the registries themselves, which the kubelet hands to it."""
        if self._runtime == CONTAINERD:
            return [pattern for pattern in self._patterns() if "*" not in pattern]
        return sorted({mirror.location for mirror in asked_mirrors(self._node)})

    # -- choices -------------------------------------------------------------------------------------------------------

    def _chosen(self, name: str, wish: str, default: str) -> str:
        """A path of the kubelet's: what it has, else what was asked for, else the default."""
        flag = last(self._kubelet.configured, name) or last(self._kubelet.expected, name)
        is_default = flag is None or (flag in self._kubelet.expected and flag.origin.file == flag.value)
        if flag is not None and not is_default:
            if wish and posixpath.normpath(wish) != posixpath.normpath(flag.value):
                raise RolloutError(f"{flag.origin} sets --{name}={flag.value}", "remove it there, or give that")
            return posixpath.normpath(flag.value)
        return wish or default

    def _usual_bin_dir(self, default: str) -> str:
        """Where /usr is read-only, a directory of our own below /var."""
        if self._kubelet.distribution or not is_read_only(self._tree, default):
            return default
        return nodefiles.WRITABLE_BIN_DIR

    def _present_args(self) -> list[str]:
        return [text for text, _ in self._node.entry.arguments] if self._node.entry and self._node.settings else []

    def _all_args(self) -> tuple[str, ...]:
        """What was asked for, and what this node's runtime has otherwise than the plugin expects it."""
        wished = {name for name, _ in providerconfig.split_args(self._wishes.args)}
        args = list(self._wishes.args)
        for provider, program in self._doubles:
            if program.kind == OURS:
                given = providerconfig.split_args([text for text, _ in provider.arguments])
                args += [word for name, words in given if name and name not in wished for word in words]
        names = {name for name, _ in providerconfig.split_args([*self._present_args(), *args])}
        present = self._node.settings.runtime if self._node.settings else AUTO
        if "runtime" not in wished and present != self._runtime and (self._runtime == CONTAINERD or present != AUTO):
            args.append(f"--runtime={self._runtime}")
        if self._runtime == CONTAINERD:
            file = DISTRIBUTIONS[self._distribution].containerd_config
            file = self._node.containerd.config_file.value if self._node.containerd else file
            if "containerd-config" not in names and file != DISTRIBUTIONS["kubeadm"].containerd_config:
                args.append(f"--containerd-config={file}")
        elif crio := self._node.crio:
            usual = settings.loads([], {})
            for name, value, default in (
                ("auth-dir", crio.auth_dir.value, AUTH_DIR),
                ("global-auth-file", crio.global_auth_file.value, usual.global_auth_file),
                ("registries-conf", crio.registries_conf.value, ""),
                ("registries-conf-dir", crio.registries_conf_dir.value, ""),
            ):
                is_there = name == "auth-dir" or self._tree.exists(value)
                if value.startswith("/") and is_there and value != default and name not in names:
                    args.append(f"--{name}={value}")
        return tuple(args)

    def _node_files(self, version: tuple[int, int] | None = None) -> nodefiles.Node:
        """Args: version: of which the files are; by default one that needs no gate which is on already."""
        version = version or (self._version if self._needs_gate() else DEFAULT_VERSION)
        paths = self._config_path, self._bin_dir, self._auth_dir
        return nodefiles.Node(self._distribution, version, *paths, self._runtime)

    def _needs_gate(self) -> bool:
        return self._version == FIRST and find_gate(self._tree, self._kubelet).value is not True

    # -- changes -------------------------------------------------------------------------------------------------------

    def _resolved(self, path: str) -> str:
        """Without a link but the last part."""
        above, name = posixpath.split(path)
        return posixpath.join(self._tree.target(above), name)

    def _observe(self, path: str) -> State:
        state, content = observe(place(self._tree, path))
        if state.kind == FILE:
            self._contents[state.digest] = content
        return state

    def _file(self, path: str, content: bytes, role: str) -> None:
        """A file with this content; of one that is there, mode and owner stay."""
        # A file that is a link is changed where it lies.
        path = self._tree.target(path) if self._tree.exists(path) else self._resolved(path)
        before = self._observe(path)
        self._put(path, before, file_state(content, like=before), content, role)

    def _put(self, path: str, before: State, after: State, content: bytes, role: str) -> None:
        if before.kind == DIRECTORY:
            raise RolloutError(f"{path} is a directory", "move it away")
        if before == after:
            return
        self._directories(posixpath.dirname(path))
        self._contents[after.digest] = content
        self._changes.append(Change(path, before, after, role))

    def _directories(self, path: str, mode: int = 0o755, role: str = "directory") -> None:
        if self._tree.is_directory(path) or any(change.path == path for change in self._changes):
            return
        self._directories(posixpath.dirname(path))
        before = self._observe(path)
        if before.kind != ABSENT:
            raise RolloutError(f"{path} is not a directory", "move it away")
        self._changes.append(Change(path, before, State(DIRECTORY, "", mode), role))

    def _program(self) -> None:
        path = self._resolved(posixpath.join(self._bin_dir, NAME))
        before = self._observe(path)
        content = self._wishes.program
        if content is None:
            if self._there and self._there.kind == GO:
                raise RolloutError(
                    f"{path} is {self._there}, and this is not the executable, which would replace it",
                    "run the executable, crio-credential-provider-linux-amd64 or -arm64",
                )
            found = self._tree.stat(path)
            if found is None or not found.st_mode & 0o111:
                raise RolloutError(
                    f"{path}: no such program, and this is not the executable",
                    "run the executable, crio-credential-provider-linux-amd64 or -arm64",
                )
            self._notes.append(f"{path} stays: this is not the executable, which would install itself")
            return
        if is_read_only(self._tree, posixpath.dirname(path)):
            raise RolloutError(
                f"{self._bin_dir}, where the kubelet looks for the program, is on a read-only file system",
                "add the program to the image of the operating system (docs/how-to/openshift.md)",
            )
        after = file_state(content, _PROGRAM_MODE)
        if before.kind == FILE and after.is_as(before):
            return
        attributes = before.attributes if before.kind == FILE else label(self._tree, path)
        self._put(path, before, after._replace(attributes=attributes), content, "program")

    def _auth_files(self) -> list[tuple[NodeFile, str]]:
        if self._runtime == CONTAINERD:
            return []
        node = self._node_files()
        made: list[tuple[NodeFile, str]] = []
        if not self._tree.exists(f"/usr/lib/tmpfiles.d/{NAME}.conf"):
            made += [(file, "tmpfiles") for file in nodefiles.tmpfiles(node)]
        if not self._is_in_memory(self._auth_dir):
            self._directories(self._resolved(self._auth_dir), 0o700, "auth")
            made += [(file, "mount") for file in nodefiles.mount(node)]
        theirs = self._node.crio.auth_dir.value if self._node.crio else AUTH_DIR
        if posixpath.normpath(theirs) != posixpath.normpath(self._auth_dir):
            made += [(file, "crio") for file in nodefiles.crio(node)]
        return made

    def _wanted_by(self, mount: str) -> None:
        """As ``systemctl enable`` links it."""
        link = self._resolved(f"/etc/systemd/system/crio.service.wants/{posixpath.basename(mount)}")
        before = self._observe(link)
        after = State(LINK, mount)
        if not before.is_as(after):
            self._directories(posixpath.dirname(link))
            self._changes.append(Change(link, before, after, "enabled"))

    def _is_in_memory(self, path: str) -> bool:
        if f"{posixpath.normpath(path)}/".startswith("/run/"):
            return True
        try:
            mount = mount_of(self._tree, self._tree.target(path))
        except (OSError, Unreadable):
            return False
        return mount is not None and mount.kind in _MEMORY

    def _config(self) -> None:
        path = self._config_path
        if self._runtime == CONTAINERD and (derived := self._derived()):
            self._notes += [*derived.limits, *(f"{domain} is skipped: {why}" for domain, why in derived.left_out)]
        if self._tree.is_directory(path):
            path = self._file_of_directory(path)
        wanted = self._wanted()
        try:
            text = self._tree.read(path).decode()
        except Unreadable as error:
            if not error.missing:
                raise
            made = nodefiles.config(providerconfig.new_entry(wanted), self._node_files(self._version), self._derived())
            self._file(path, layout.dumps(made).encode(), "config")
            return
        except UnicodeDecodeError:
            raise ConfigError(f"{path} is not UTF-8", "the kubelet cannot read it either") from None
        for provider, program in self._doubles:
            if provider.document.file != path and self._meet(provider, wanted):
                where = provider.origin("name")
                raise RolloutError(
                    f"{where}: the provider {provider.name} is {program}, and writes the same auth files",
                    "remove it there first",
                )
        doubles = {one.name: program for one, program in self._doubles if one.document.file == path}
        merged = merge.merge(text, wanted, name=path, doubles=doubles)
        changes = [*merged.changes]
        for name, program in doubles.items():
            if (removed := f"removed the provider {name}") in changes:
                program_stays = f"its program {posixpath.join(self._bin_dir, name)} stays"
                changes[changes.index(removed)] += f": it is {program}, and writes the same auth files; {program_stays}"
            else:
                changes.append(f"the provider {name} is {program}, and stays: no image matches both providers")
        self._notes += [f"{path}: {text}" for text in (*changes, *merged.notes)]
        self._notes += [
            f"{path}: {one.provider} ({one.pattern}) and {NAME} ({one.ours}) match the same images; the kubelet runs "
            "both"
            for one in merged.overlaps
        ]
        self._file(path, merged.text.encode(), "config")

    def _meet(self, provider: Provider, wanted: Wanted) -> bool:
        """Whether an entry and ours match the same images."""
        own = self._node.entry.patterns if self._node.entry and self._node.entry.name == NAME else []
        ours = [*wanted.match_images, *(text for text, _ in own)]
        return any(overlap(pattern, mine) for pattern, _ in provider.patterns for mine in ours)

    def _file_of_directory(self, directory: str) -> str:
        """The kubelet joins the files there: that with our entry, else one of its own."""
        entry = self._node.entry or next((provider for provider, _ in self._doubles), None)
        return entry.document.file if entry else posixpath.join(directory, f"{NAME}.yaml")

    def _wanted(self) -> Wanted:
        audience = self._wishes.audience
        if not audience and self._doubles and (self._node.entry is None or self._node.entry.name != NAME):
            attributes = self._doubles[0][0].token_attributes or {}
            audience = str(attributes.get("serviceAccountTokenAudience") or "")
        if not audience and self._node.entry is None:
            # What the API server made for a pod of this node says it best.
            own, _ = cluster.own_audiences(self._node)
            audience = own[0] if own else OPENSHIFT_AUDIENCE if self._distribution == "openshift" else ""
        made = Wanted(self._version, self._patterns(), audience, self._args)
        derived = self._derived()
        if self._runtime == CRIO or derived is None:
            return made
        return made._replace(why_none=matchimages.why_no_registry(self._settings.containerd_config, derived))

    def _patterns(self) -> tuple[str, ...]:
        derived = self._derived()
        return derived.patterns if derived else self._wishes.match_images

    def _derived(self) -> Derived | None:
        if self._wishes.match_images:
            return None
        if self._runtime == CONTAINERD:
            hosts = self._hosts()
            return matchimages.match_registries(hosts, self._settings.mirror_registry)
        registries = self._node.registries
        if registries.config is None:
            raise registries.refused or ConfigError(
                f"cannot read {registries.main}: {registries.unreadable.reason if registries.unreadable else ''}"
            )
        return matchimages.match_images(registries.config, self._settings.mirror_registry)

    def _hosts(self) -> Hosts:
        """By the file that the plugin will read."""
        found = self._node.hosts
        if found is None or found.file != self._settings.containerd_config:
            found = containerd.load_hosts(self._tree, self._settings.containerd_config)
        if found.refused:
            raise found.refused
        return found

    def _flags(self) -> None:
        missing = [
            text
            for text in self._node_files().flags
            if text.startswith("--feature-gates") or last(self._kubelet.configured, text[2:].partition("=")[0]) is None
        ]
        if self._kubelet.distribution:
            found = {flag.name: flag.value for flag in (*self._kubelet.expected, *self._kubelet.configured)}
            is_told = (found[PROVIDER_CONFIG], found[BIN_DIR]) == (self._config_path, self._bin_dir)
            files = [] if is_told and not self._needs_gate() else nodefiles.kubelet(self._node_files())
        else:
            files = [flags.place(self._tree, self._unit, missing, self._node_files())] if missing else []
        if self._distribution == "openshift" and self._needs_gate():
            files += nodefiles.kubelet(self._node_files())[1:]
        for file in files:
            self._file(file.path, file.text.encode(), "flags")


def _credentials_for(held: DockerConfig, location: str) -> Iterator[str]:
    """A mirror that a docker config has credentials for, and how, where that is not for all images there."""
    host = dockerconfig.host_of(location)
    if host in held.cred_helpers:
        yield f"{location} (credential helper {held.cred_helpers[host]})"
        return
    try:
        found = dockerconfig.find_credential(held, location)
    except ConfigError:
        found = None
    if found:
        yield location
    deeper = [dockerconfig.shown_key(key) for key in held.auths if key.startswith(f"{location}/")]
    if deeper:
        yield f"{location} (only below {', '.join(deeper)})"


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def auth_files(tree: Tree, directory: str) -> list[str]:
    """Paths of auth files, and of those that the Go provider had not yet put in place when it was killed."""
    try:
        names = tree.names(directory)
    except Unreadable:
        return []
    return [
        posixpath.join(directory, name)
        for name in names
        if authfile.repository_digest(name) or authfile.is_temporary(name) or _GO_TEMPORARY.fullmatch(name)
    ]


def is_read_only(tree: Tree, directory: str) -> bool:
    """Whether the file system is that a directory is on, or will be."""
    while not tree.exists(directory):
        directory = posixpath.dirname(directory)
    return bool(os.statvfs(tree.real(directory)).f_flag & os.ST_RDONLY)


_LABEL = "security.selinux"


def label(tree: Tree, path: str) -> tuple[tuple[str, str], ...]:
    """SELinux' type for programs, where it is enforced and the directory's files would not get it by themselves."""
    try:
        if tree.text("/sys/fs/selinux/enforce").strip() != "1":
            return ()
        above = posixpath.dirname(path)
        while not tree.exists(above):
            above = posixpath.dirname(above)
        parts = os.getxattr(tree.real(above), _LABEL).decode().rstrip("\0").split(":", 3)
    except (OSError, Unreadable, UnicodeDecodeError):
        return ()
    if len(parts) < 3 or parts[2] == "bin_t":
        return ()
    parts[2] = "bin_t"
    return ((_LABEL, base64.b64encode(":".join(parts).encode() + b"\0").decode()),)


# -- the record of it --------------------------------------------------------------------------------------------------

_ORDER = ("directory", "program", "auth", "tmpfiles", "mount", "enabled", "crio", "config", "flags", "record")
"""Roles in the order in which they are made."""


def recorded(plan: Plan, tree: Tree, then: list[Change]) -> Plan:
    """The plan with one more change, the last: what is installed after it, for ``uninstall``; nothing for nothing."""
    path = posixpath.join(tree.target(store.DIRECTORY), posixpath.basename(store.INSTALLED))
    before, content = observe(place(tree, path))
    after, text = State(), b""
    if then:
        text = store.dumps({"version": __version__, "changes": [dumps_change(change) for change in then]})
        after = file_state(text, 0o600)
    contents = {**plan.contents, before.digest: content, after.digest: text}
    return plan._replace(changes=(*plan.changes, Change(path, before, after, "record")), contents=contents)


def joined(record: list[Change], changes: tuple[Change, ...]) -> list[Change]:
    """What is installed after changes to what was: of each path what was there first of all, and what is there now."""
    made = {change.path: change for change in record}
    for change in changes:
        first = made.get(change.path)
        if first is None:
            made[change.path] = change
        elif change.before.is_as(first.after):
            made[change.path] = change._replace(before=first.before)
        elif change.role not in ("config", "flags"):
            made[change.path] = change
        # Else what somebody else wrote in between names our program: there is no state of it to go back to.
    return sorted(made.values(), key=_place_in_order)


def _place_in_order(change: Change) -> int:
    return _ORDER.index(change.role)
