"""The plugin's program: there, executable, under the right name, and writable by root alone."""

from __future__ import annotations

import posixpath
import shlex
import stat

from ...kubernetes.credentialproviderconfig import NAME, is_name
from ...node.facts import Node
from ...node.providerconfig import Provider, is_nearly_ours
from ...node.tree import Unreadable
from ..finding import Evidence, Examined, Results, Unexamined, at, find
from .runtime import mount_of

_OTHERS_CAN_WRITE = stat.S_IWGRP | stat.S_IWOTH
_ELF = b"\x7fELF"
_MACHINE = slice(18, 20)
"""Where ELF names the processor (e_machine), read as little-endian; s390x is the other way round."""
_MACHINES = {3: "386", 40: "arm", 62: "amd64", 183: "arm64", 21: "ppc64le", 22 << 8: "s390x"}
_FIPS = "/proc/sys/crypto/fips_enabled"
_ANY_EXECUTE = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH


def check_program(node: Node) -> Results:
    """The file that the kubelet executes for the plugin's entry."""
    if node.entry is None or not node.bin_dir:
        why = "no entry of the plugin" if node.bin_dir else "its path is not known"
        yield Unexamined("the plugin's program", "--config only checks one file" if node.given.config else why)
    if not node.bin_dir:
        return
    # The kubelet looks for the programs of all providers, and does not start without one of them.
    by_name = {provider.name: provider for provider in reversed(node.config.providers if node.config else ())}
    if node.entry is not None:
        by_name[node.entry.name] = node.entry
    for provider in by_name.values():
        if not is_name(provider.name):
            continue
        path = posixpath.join(node.bin_dir, provider.name)
        found = node.tree.stat(path)
        if found is None or stat.S_ISDIR(found.st_mode):
            yield from _missing(node, provider, path)
        elif not found.st_mode & _ANY_EXECUTE:
            evidence = at(path, f"its mode is {stat.S_IMODE(found.st_mode):04o}")
            yield find("plugin-not-executable", evidence, remedy=f"as root:\nchmod 0755 {shlex.quote(path)}")
        elif place := _noexec(node, path):
            evidence = at(path, f"it is on a file system that is mounted noexec at {place}")
            remedy = f"as root:\nmount -o remount,exec {shlex.quote(place)}\nand in its unit or /etc/fstab"
            yield find("plugin-not-executable", evidence, remedy=remedy)
        elif reason := _why_it_cannot_run(node, path):
            remedy = f"install the program for this node again as {path}, then try: {shlex.quote(path)} --version"
            yield find("plugin-cannot-run", at(path, reason), remedy=remedy)
        elif provider is node.entry:
            yield Examined(f"the plugin's program {path}")
        if found is not None and provider is node.entry:
            yield from _writable(node, path)


def check_cryptography(node: Node) -> Results:
    """On a node in FIPS mode, whether the plugin uses the node's OpenSSL; the executable has its own."""
    if node.entry is None or not node.bin_dir or not is_name(node.entry.name):
        return
    try:
        is_fips = node.tree.text(_FIPS).strip() == "1"
        entry = posixpath.join(node.bin_dir, node.entry.name)
        path = node.tree.target(entry)
    except (Unreadable, OSError):
        # A kernel without FIPS has no such file.
        return
    if is_fips and (_head(node, path) or b"").startswith(_ELF):
        remedy = f"install the wheel, or the result of make build, as {entry} (docs/how-to/install.md)"
        evidence = at(path, "it is an executable with its own OpenSSL")
        yield find("plugin-not-fips", evidence, at(_FIPS, "1: the node is in FIPS mode"), remedy=remedy)


def _missing(node: Node, provider: Provider, path: str) -> Results:
    names, listed = _names(node)
    entries = {provider.name for provider in node.config.providers} if node.config else set()
    is_ours = provider is node.entry
    other = next((name for name in names if is_ours and NAME in name and name not in entries), "")
    wanted = at(provider.origin("name"), f"the provider's name: the kubelet runs {path}")
    if other:
        lies = posixpath.join(node.bin_dir, other)
        evidence = at(lies, f"there is no provider {other!r}")
        remedy = f"as root:\nln -s {shlex.quote(other)} {shlex.quote(path)}"
        if other == NAME and is_nearly_ours(provider.name):
            remedy = f"name: {NAME} in {provider.origin('name')}, then: systemctl restart kubelet"
        yield find("plugin-other-name", evidence, wanted, remedy=remedy)
        return
    dangling = _link(node, path)
    reason = f"it is a link to {dangling}, which does not exist" if dangling else listed
    if node.tree.is_directory(path):
        reason = "it is a directory"
    how = "docs/how-to/install.md" if is_ours else f"of the provider {provider.name!r}, or remove its entry"
    how += f"; did you mean {NAME}?" if is_nearly_ours(provider.name) else ""
    remedy = f"install the program as {path} ({how}), then: systemctl restart kubelet"
    yield find("plugin-missing", at(path, reason), wanted, remedy=remedy)


def _names(node: Node) -> tuple[list[str], str]:
    """What is in the directory, and that in words."""
    try:
        names = node.tree.names(node.bin_dir)
    except Unreadable as error:
        return [], f"cannot read the directory {node.bin_dir}: {error.reason}"
    told = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return names, f"no such file; {node.bin_dir} has {told or 'nothing'}"


def _link(node: Node, path: str) -> str:
    try:
        target = node.tree.target(path)
    except OSError as error:
        return f"{path} ({error.strerror})"
    return target if target != path else ""


def _noexec(node: Node, path: str) -> str:
    """The mount point of a file system from which nothing is executed; "" where that is not so, or not known."""
    if not node.given.live:
        return ""
    try:
        mount = mount_of(node.tree, node.tree.target(path))
    except (Unreadable, OSError):
        return ""
    return mount.point if mount and "noexec" in mount.options else ""


def _why_it_cannot_run(node: Node, path: str) -> str:
    """Why the system would not start a program although it is executable, as far as its first bytes tell."""
    # Where there is no shell, this is a part of a node, and says nothing of what runs there.
    shell, head = _head(node, "/bin/sh"), _head(node, path)
    if shell is None or head is None:
        return ""
    if not head:
        return "it is empty"
    if head.startswith(b"#!"):
        interpreter = head[2:].split(b"\n")[0].split()[:1]
        name = interpreter[0].decode("utf-8", "replace") if interpreter else ""
        return "" if node.tree.exists(name) else f"its interpreter {name}: no such file"
    if not head.startswith(_ELF):
        return "it is neither an executable nor a script"
    # The shell of the node is of its architecture.
    if shell.startswith(_ELF) and head[_MACHINE] != shell[_MACHINE]:
        machines = (int.from_bytes(one[_MACHINE], "little") for one in (head, shell))
        mine, nodes = (_MACHINES.get(machine, f"machine {machine}") for machine in machines)
        return f"it is a program for {mine}, and the node is {nodes}"
    found, end = node.tree.stat(path), _end(head)
    return f"it is cut off: {found.st_size:,} of at least {end:,} bytes" if found and found.st_size < end else ""


def _end(head: bytes) -> int:
    """Where the section headers of a 64-bit ELF file end, the last of what a linker writes."""
    if head[4:6] != b"\2\1":  # 64 bits, little-endian
        return 0
    place, size, number = (int.from_bytes(head[start:end], "little") for start, end in ((40, 48), (58, 60), (60, 62)))
    return max(64, place + size * number)


def _head(node: Node, path: str) -> bytes | None:
    try:
        return node.tree.head(path, 256)
    except Unreadable:
        return None


def _writable(node: Node, path: str) -> Results:
    """The program behind all links, and every directory in which it, or what leads to it, could be replaced."""
    target = node.tree.target(path)
    near = (path, target, node.bin_dir, posixpath.dirname(target))
    above = {*_above(target), *_above(node.bin_dir)} - {*near}
    places = (*dict.fromkeys(near), *sorted(above))
    evidence: list[Evidence] = []
    commands: list[str] = []
    for place in places:
        found = node.tree.stat(place)
        if found is None:
            continue
        if found.st_uid != 0:
            evidence.append(at(place, f"it belongs to user {found.st_uid}"))
            commands.append(f"chown root:root {shlex.quote(place)}")
        # Above the directory itself a group may write by the system's rules: that of /usr/local on Debian.
        others = stat.S_IWOTH if place in above else _OTHERS_CAN_WRITE
        # In a directory with the sticky bit users can only replace their own files.
        if found.st_mode & others and not (stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX):
            evidence.append(at(place, f"its mode is {stat.S_IMODE(found.st_mode):04o}"))
            commands.append(f"chmod go-w {shlex.quote(place)}")
    if evidence:
        yield find(
            "plugin-world-writable",
            *_each_once(evidence, node),
            remedy="\n".join(("as root:", *dict.fromkeys(commands))),
        )


def _above(path: str) -> list[str]:
    """The directories above a path, but for the root."""
    found = []
    while (path := posixpath.dirname(path)).strip("/"):
        found.append(path)
    return found


def _each_once(evidence: list[Evidence], node: Node) -> list[Evidence]:
    """Without the second name of one file."""
    seen: dict[tuple[str, str], Evidence] = {}
    for item in evidence:
        seen.setdefault((node.tree.target(item.file), item.text), item)
    return list(seen.values())
