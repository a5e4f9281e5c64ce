"""CRI-O, the auth directory, and the node's global auth file."""

from __future__ import annotations

import os
import posixpath
import shlex
import stat
from typing import NamedTuple

from ... import settings
from ...errors import ConfigError
from ...images import dockerconfig
from ...kubernetes.pullintents import PullIntents
from ...node.commandline import Origin
from ...node.crio import DEFAULT_AUTH_DIR, Crio
from ...node.facts import Node
from ...node.takenfiles import IN_USE, find_taken
from ...node.tree import Tree, Unreadable
from ...pull import sweep
from ...settings import Settings
from ..finding import Evidence, Examined, Results, Unexamined, at, find, seen

FIRST_CRIO = (1, 34, 3)
_MEMORY = ("tmpfs", "ramfs")
_OTHERS_CAN_WRITE = stat.S_IWGRP | stat.S_IWOTH
_MAX_GLOBAL_AUTH_FILE = 4 * 1024 * 1024
_MOST_TOLD = 5
_OLD_FILE = 86400
"""Seconds. A check of an image that is there leaves a file until the next run, and a quiet node has none for hours."""


def check_crio(node: Node) -> Results:
    """Its version, and what it was told that the plugin must know as well."""
    if node.given.config:
        return
    crio = node.crio
    if crio is None:
        yield Unexamined("CRI-O", "no process, unit or file of it was found")
        return
    for problem in crio.problems:
        yield Unexamined(problem.path, problem.reason)
    for origin, reason in crio.refused:
        yield find("crio-conf-refused", at(origin, reason), remedy=f"correct {origin}; then: systemctl restart crio")
    if crio.version is None:
        yield Unexamined("CRI-O's version", "no running CRI-O, no version file and no dpkg package to read it from")
    elif crio.version.numbers < FIRST_CRIO[: len(crio.version.numbers)]:
        evidence = seen(f"{crio.version} ({crio.version.origin})")
        yield find("crio-too-old", evidence, remedy="update CRI-O to 1.34.3 or newer")
    else:
        yield Examined(f"CRI-O {crio.version} ({crio.version.origin})")
    if node.settings is None:
        yield Unexamined("whether CRI-O and the plugin agree on paths", why_no_settings(node))
        return
    yield from _auth_dirs(node, crio, node.settings)
    yield from _global_auth_files(node, crio, node.settings)
    yield from _registries(node, crio, node.settings)


def why_no_settings(node: Node) -> str:
    """Why the plugin's settings are not known."""
    return "the plugin refuses its arguments" if node.refused else "no entry of the plugin"


def is_same(tree: Tree, one: str, other: str) -> bool:
    """Whether two paths lead to one place: /var/run is a link to /run."""
    if posixpath.normpath(one) == posixpath.normpath(other):
        return True
    try:
        return tree.target(one) == tree.target(other)
    except OSError:
        return False


def _auth_dirs(node: Node, crio: Crio, chosen: Settings) -> Results:
    theirs, ours = crio.auth_dir, chosen.auth_dir
    if crio.refused or not ours:
        return
    if theirs.origin and not theirs.value.startswith("/"):
        evidence_of = at(theirs.origin, f"namespaced_auth_dir is {theirs.value!r}: CRI-O does not start without a path")
        remedy_of = f'namespaced_auth_dir = "{ours}"\nthen: systemctl restart crio'
        yield find("auth-dir-mismatch", evidence_of, remedy=remedy_of)
        return
    slips = [
        at(origin, f"{key}: CRI-O ignores it; did you mean {meant} of [crio.image]?")
        for origin, key, meant in crio.slips
    ]
    if is_same(node.tree, theirs.value, ours):
        if slips:
            origin, _, meant = crio.slips[0]
            remedy = f"in {origin} write {meant} below [crio.image], or remove it; then: systemctl restart crio"
            yield find("crio-key-ignored", *slips, remedy=remedy)
        return
    mine = _argument(node, "--auth-dir")
    text = f"CRI-O's namespaced_auth_dir is {theirs.value}" + ("" if theirs.origin else ", its default")
    evidence = [at(theirs.origin, text)] if theirs.origin else []
    evidence.append(Evidence(mine.file, mine.line, f"the plugin's --auth-dir is {ours}" + _or_default(mine)))
    if not theirs.origin:
        evidence.append(seen(text))
    evidence[:0] = slips
    remedy = (
        f"either args: [--auth-dir={theirs.value}] in the CredentialProviderConfig and: systemctl restart kubelet\n"
        f"or in /etc/crio/crio.conf.d/50-auth-dir.conf and: systemctl restart crio\n"
        f'[crio.image]\nnamespaced_auth_dir = "{ours}"'
    )
    yield find("auth-dir-mismatch", *evidence, remedy=remedy)


def _global_auth_files(node: Node, crio: Crio, chosen: Settings) -> Results:
    """Whether the plugin copies from the file that CRI-O would use without it."""
    theirs, ours = crio.global_auth_file, chosen.global_auth_file
    # CRI-O's default is not to have one, and a missing file has no credentials to lose.
    if not theirs.value or not node.tree.exists(theirs.value) or is_same(node.tree, theirs.value, ours):
        return
    mine = _argument(node, "--global-auth-file")
    evidence = at(theirs.origin or Origin(""), f"CRI-O's global_auth_file is {theirs.value}")
    other = Evidence(mine.file, mine.line, f"the plugin's --global-auth-file is {ours}" + _or_default(mine))
    remedy = (
        f"args: [--global-auth-file={theirs.value}] in the CredentialProviderConfig, then: systemctl restart kubelet"
    )
    yield find("global-auth-file-mismatch", evidence, other, remedy=remedy)


def _or_default(mine: Evidence) -> str:
    return "" if mine.line else ", its default"


def _argument(node: Node, flag: str) -> Evidence:
    """Where the entry gives a flag; no place where it does not."""
    origin = node.entry.origin_of_flag(flag) if node.entry else None
    return at(origin) if origin else Evidence("", 0, "")


def _registries(node: Node, crio: Crio, chosen: Settings) -> Results:
    pairs = (
        ("--registries-conf", crio.registries_conf, chosen.registries_conf),
        ("--registries-conf-dir", crio.registries_conf_dir, chosen.registries_conf_dir),
    )
    for flag, theirs, ours in pairs:
        default = _default(flag)
        # One that cannot be used is told for itself.
        is_told = bool(ours) and node.registries.config is None and flag == "--registries-conf"
        if is_told or is_same(node.tree, theirs.value or default, ours or default):
            continue
        mine = _argument(node, flag)
        evidence = [at(theirs.origin, f"CRI-O's {flag} is {theirs.value}")] if theirs.origin else []
        evidence.append(Evidence(mine.file, mine.line, f"the plugin's {flag} is {ours or 'not given'}"))
        if not theirs.origin:
            evidence.append(seen(f"CRI-O has no {flag}"))
        remedy = f"args: [{flag}={theirs.value}]" if theirs.value else f"remove {flag} from args"
        yield find("registries-conf-mismatch", *evidence, remedy=f"{remedy}, then: systemctl restart kubelet")


def _default(flag: str) -> str:
    from ...runtimes.crio import registries

    return registries.MAIN_FILE if flag == "--registries-conf" else registries.DROP_IN_DIRECTORY


# -- the auth directory -----------------------------------------------------------------------------------------------


def check_cache_dir(node: Node) -> Results:
    """Whether the plugin can keep what it has parsed."""
    if node.given.config or (node.kubelet is None and node.crio is None):
        return
    directory = (node.settings or _defaults(node)).cache_dir
    if directory and (unwritable := _why_unwritable(node, directory)):
        yield find("cache-dir-unusable", unwritable[0], remedy=unwritable[1])


def check_auth_dir(node: Node) -> Results:
    """Owner, mode, file system, left-over files."""
    if node.given.config or (node.kubelet is None and node.crio is None):
        return
    # Without arguments of the plugin that of CRI-O counts, which is the one that matters in the end.
    chosen = node.settings or _defaults(node)
    directory = chosen.auth_dir
    found = node.tree.stat(directory)
    quoted = shlex.quote(directory)
    if not directory:
        evidence = _argument(node, "--auth-dir")._replace(text="--auth-dir is empty")
        yield find("auth-dir-unusable", evidence, remedy=f"--auth-dir={DEFAULT_AUTH_DIR}, or remove it")
        return
    if unwritable := _why_unwritable(node, directory):
        yield find("auth-dir-unusable", unwritable[0], remedy=unwritable[1])
        return
    if found is not None:
        if found.st_uid != 0:
            evidence = at(directory, f"it belongs to user {found.st_uid}")
            yield find("auth-dir-owner", evidence, remedy=f"as root:\nchown root:root {quoted}")
        # CRI-O makes it 0755 where it is missing; the files in it are for root alone.
        if found.st_mode & _OTHERS_CAN_WRITE:
            evidence = at(directory, f"its mode is {stat.S_IMODE(found.st_mode):04o}")
            yield find("auth-dir-mode", evidence, remedy=f"as root:\nchmod 0700 {quoted}")
        yield Examined(f"the auth directory {directory}")
        yield from _stale_files(node, chosen)
        yield from _left_in_use(node, directory)
    else:
        yield Examined(f"the auth directory {directory}, which does not exist yet: the plugin creates it")
    yield from _file_system(node, directory)


def _why_unwritable(node: Node, directory: str) -> tuple[Evidence, str] | None:
    """What keeps root from writing to a directory, or from making it, and the remedy; None where nothing is known."""
    tree, place = node.tree, posixpath.normpath(directory)
    try:
        while not os.path.lexists(posixpath.join(tree.real(posixpath.dirname(place)), posixpath.basename(place))):
            place = posixpath.dirname(place)
        if not tree.is_directory(place):
            target = tree.target(place)
            is_link = target != place
            evidence = at(place, f"a link to {target}, which is not a directory" if is_link else "not a directory")
            return evidence, f"as root:\nrm {shlex.quote(place)} && install -d -m 0700 {shlex.quote(directory)}"
        mount = mount_of(tree, tree.target(place)) if node.given.live else None
    except (OSError, Unreadable):
        return None
    if mount is None or "ro" not in mount.options:
        return _why_full(node, place)
    evidence = at(place, f"it is on {mount.kind}, mounted read-only at {mount.point}")
    return evidence, f"as root:\nmount -o remount,rw {shlex.quote(mount.point)}\nand in its unit or /etc/fstab"


def _why_full(node: Node, place: str) -> tuple[Evidence, str] | None:
    try:
        system = os.statvfs(node.tree.real(place))
    except OSError:
        return None
    # As root may use them; a file system without a number of inodes has 0 of 0.
    full = "space" if not system.f_bfree else "inodes" if system.f_files and not system.f_ffree else ""
    if not full or not node.given.live:
        return None
    flag = "-i " if full == "inodes" else ""
    return at(place, f"its file system has no {full} left"), f"find what fills it:\ndf {flag}{shlex.quote(place)}"


def _defaults(node: Node) -> Settings:
    """The plugin's defaults, with CRI-O's directory."""
    chosen = settings.loads([], {})
    if node.crio is not None and node.crio.auth_dir.value.startswith("/"):
        chosen.auth_dir = node.crio.auth_dir.value
    return chosen


class Mount(NamedTuple):
    point: str
    kind: str
    options: tuple[str, ...]


def mount_of(tree: Tree, path: str) -> Mount | None:
    """The file system that a path without links lies on.

    Raises:
        Unreadable: the system does not tell its mounts.
    """
    above = [mount for mount in mounts(tree) if f"{path}/".startswith(f"{mount.point.rstrip('/')}/")]
    longest = max((len(mount.point) for mount in above), default=0)
    return next((mount for mount in reversed(above) if len(mount.point) == longest), None)


def mounts(tree: Tree) -> list[Mount]:
    """Mount points of this machine in the order in which they were mounted; a later one hides an earlier one."""
    found = []
    # Below a root this process may be one of a container, which has other mounts than the node.
    first = "/proc/1/mountinfo"
    path = first if tree.root and tree.exists(first) else "/proc/self/mountinfo"
    for line in tree.text(path).splitlines():
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if len(fields) > 5 and kinds[0]:
            # Blanks in paths are written as octal.
            point = fields[4].encode().decode("unicode_escape", "replace")
            point = point.encode("latin-1", "replace").decode("utf-8", "replace")
            found.append(Mount(point, kinds[0], tuple(f"{fields[5]},{kinds[-1]}".split(","))))
    return found


def _file_system(node: Node, directory: str) -> Results:
    what = "whether the auth directory is on a disk"
    if not node.given.live:
        yield Unexamined(what, "an image has no mounts")
        return
    try:
        mount = mount_of(node.tree, node.tree.target(directory))
    except (Unreadable, OSError) as error:
        yield Unexamined(what, _why_unread(error))
        return
    if mount is None:
        yield Unexamined(what, "/proc/self/mountinfo has no mount above it")
    elif mount.kind not in _MEMORY:
        evidence = at(directory, f"it is on {mount.kind}, mounted at {mount.point}")
        unit = posixpath.normpath(directory).strip("/").replace("-", "\\x2d").replace("/", "-")
        remedy = (
            f"write this as '/etc/systemd/system/{unit}.mount', then: systemctl enable --now '{unit}.mount'\n"
            "[Unit]\nBefore=crio.service kubelet.service\n\n"
            f"[Mount]\nWhat=tmpfs\nWhere={directory}\nType=tmpfs\nOptions=mode=0700,size=16m,nosuid,nodev,noexec\n\n"
            "[Install]\nWantedBy=multi-user.target"
        )
        yield find("auth-dir-on-disk", evidence, remedy=remedy)


def _stale_files(node: Node, chosen: Settings) -> Results:
    directory = chosen.auth_dir
    try:
        node.tree.names(directory)
        intents = PullIntents(node.tree.real(chosen.kubelet_root_dir))
        stale = sweep.find_stale(node.tree.real(directory), max(chosen.stale_after, _OLD_FILE), intents)
    except (OSError, Unreadable) as error:
        yield Unexamined(f"stale files in {directory}", _why_unread(error))
        return
    if stale:
        oldest = max(stale, key=lambda file: file.age)
        names = ", ".join(sorted(file.name for file in stale)[:_MOST_TOLD])
        evidence = at(directory, f"{_files(len(stale))}, the oldest of {oldest.age / 3600:.1f} h: {names}")
        yield find("auth-dir-stale-files", evidence, remedy=_gc(directory, ""))


def _why_unread(error: OSError | Unreadable) -> str:
    """Without the path as this process sees it: with --root it is not the node's."""
    return str(error) if isinstance(error, Unreadable) else error.strerror or type(error).__name__


def _left_in_use(node: Node, directory: str) -> Results:
    """What a CRI-O that was killed took for a pull and did not remove."""
    if node.crio is None:
        return
    try:
        left = [file for file in find_taken(node.tree.real(directory), node.crio.started) if file.is_orphan]
    except (OSError, Unreadable) as error:
        yield Unexamined(f"files in {directory}/{IN_USE}", _why_unread(error))
        return
    if left:
        evidence = at(f"{directory}/{IN_USE}", f"{_files(len(left))}, taken before the running CRI-O was started")
        yield find("auth-dir-files-left-in-use", evidence, remedy=_gc(directory, " --in-use"))


def _files(number: int) -> str:
    return f"{number} file" if number == 1 else f"{number} files"


def _gc(directory: str, flag: str) -> str:
    more = "" if directory == DEFAULT_AUTH_DIR else f" --auth-dir={shlex.quote(directory)}"
    return f"as root:\ncrio-credential-provider gc{flag}{more}"


def check_global_auth_file(node: Node) -> Results:
    """Whether the plugin can use it. Its content is never told."""
    if node.given.config or (node.kubelet is None and node.crio is None):
        return
    path = (node.settings or _defaults(node)).global_auth_file
    try:
        dockerconfig.loads(node.tree.read(path, _MAX_GLOBAL_AUTH_FILE))
        yield Examined(f"the global auth file {path}")
    except Unreadable as error:
        if error.denied:
            yield Unexamined(f"the global auth file {path}", error.reason)
        elif not error.missing:
            yield find("global-auth-file-refused", at(path, error.reason), remedy=f"make {path} a JSON file")
    except ConfigError as error:
        remedy = f"write it again: podman login --authfile {shlex.quote(path)} REGISTRY"
        yield find("global-auth-file-refused", at(path, error.message), remedy=remedy)
