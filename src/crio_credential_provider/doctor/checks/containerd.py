"""containerd itself: what it was told that the plugin must know as well, and what config.toml says of registries."""

from __future__ import annotations

import re

from ...errors import ConfigError
from ...node.commandline import STARTED_GRAIN, Origin
from ...node.containerd import Containerd
from ...node.facts import Node
from ...node.tree import Unreadable
from ...runtimes.containerd.readings import FIRST
from ...settings import CONTAINERD
from ..finding import Evidence, Examined, Results, Unexamined, at, find
from ..mirrored import has_mirrors
from .kubelet import restart, when
from .runtime import is_same, why_no_settings

_SNIPPET = '[plugins."{}".registry]\n  config_path = "/etc/containerd/certs.d"'
_V2, _V3 = "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images"


def check_containerd(node: Node) -> Results:
    """Its version, and whether it reads the files that the plugin reads."""
    if node.given.config:
        return
    found = node.containerd
    if found is None:
        yield Unexamined("containerd", "no process, unit or file of it was found")
        return
    for problem in found.problems:
        yield Unexamined(problem.path, problem.reason)
    if found.version is None:
        why = "no running containerd and no dpkg package to read it from"
        yield Unexamined("containerd's version, and what depends on it", why)
    else:
        yield Examined(f"containerd {found.version} ({found.version.origin})")
    if node.settings is None:
        yield Unexamined("whether containerd and the plugin read the same config.toml", why_no_settings(node))
    elif node.runtime == CONTAINERD:
        yield from _config_files(node, found, node.settings.containerd_config)
    yield from _stale(node, found)


def _config_files(node: Node, found: Containerd, ours: str) -> Results:
    theirs = found.config_file
    if is_same(node.tree, theirs.value, ours):
        return
    mine = node.entry.origin_of_flag("--containerd-config") if node.entry else None
    default = "" if theirs.origin else f", the default of {found.distribution or 'containerd'}"
    evidence = [
        at(mine or Origin(""), f"the plugin's --containerd-config is {ours}{'' if mine else ', its default'}"),
        at(theirs.origin or Origin(""), f"containerd's config.toml is {theirs.value}{default}"),
    ]
    remedy = (
        f"args: [--containerd-config={theirs.value}] in the CredentialProviderConfig, then: {restart(node.kubelet)}"
    )
    # The first tells where it is.
    evidence.sort(key=lambda one: not one.file)
    yield find("containerd-config-mismatch", *evidence, remedy=remedy)


def _stale(node: Node, found: Containerd) -> Results:
    """Whether config.toml changed after containerd had read it."""
    files = node.hosts.config.files if node.hosts and node.hosts.config else ()
    if not found.started:
        why = "no running containerd is checked with --root" if not node.given.live else "it is not running"
        yield Unexamined("whether containerd runs with its present configuration", why)
        return
    for file in files:
        status = node.tree.stat(file)
        if status is not None and status.st_mtime >= found.started + STARTED_GRAIN:
            text = f"changed {when(status.st_mtime)}, {found.name} started {when(found.started)}"
            yield find("containerd-needs-restart", at(file, text), remedy=restart_containerd(node))
            return


def restart_containerd(node: Node) -> str:
    found = node.containerd
    return f"systemctl restart {found.distribution if found and found.distribution else 'containerd'}"


def check_config_file(node: Node) -> Results:
    """config.toml: whether containerd takes it, and what it says of registries beside their mirrors."""
    hosts = node.hosts
    if hosts is None or node.given.config:
        return
    if hosts.refused is not None:
        yield from _refused(node, hosts.refused)
        return
    config = hosts.config
    assert config is not None
    yield Examined(f"containerd's configuration: {', '.join(config.files) or f'{hosts.file}: no such file'}")
    mirrors = {host.host for found in hosts.found.values() for host in found.hosts if not host.is_server or host.file}
    files = config.files or (hosts.file,)
    if _is_disabled(node, files):
        disabled = line_of(node, files, "disabled_plugins")
        evidence = disabled._replace(text="disabled_plugins has the CRI plugin")
        remedy = f"remove cri from disabled_plugins in {place(disabled)}, {_then(node)}"
        yield find("containerd-without-cri", evidence, remedy=remedy)
    for host in config.auths:
        if host.rpartition("://")[2] in mirrors:
            evidence = line_of(node, files, host, "auth")._replace(text=f"registry.configs has a credential for {host}")
            remedy = f"remove it from {place(evidence)}, {_then(node)}"
            yield find("registry-auth-node-wide", evidence, remedy=written_by(node, evidence.file, remedy))
    reading = node.containerd.reading if node.containerd else ""
    tls = [host for host in config.tls if reading not in FIRST or config.config_path]
    if tls and not (reading in FIRST and config.mirrors):
        evidence = line_of(node, files, tls[0], "tls")._replace(text=f"registry.configs.*.tls for {', '.join(tls)}")
        remedy = (
            f"in {_certs_d(node)}/{tls[0]}/hosts.toml write ca, client or skip_verify, remove registry.configs.*.tls, "
            f"{_then(node)}"
        )
        yield find("registry-tls-ignored", evidence, remedy=written_by(node, evidence.file, remedy))
    if any(name.lower() == "authorization" for name in config.headers):
        evidence = line_of(node, files, "uthorization")._replace(
            text="registry.headers has Authorization, for every registry"
        )
        remedy = f"remove it from {place(evidence)}, {_then(node)}"
        yield find("hosts-authorization-header", evidence, remedy=remedy)


def _is_disabled(node: Node, files: tuple[str, ...]) -> bool:
    """Whether containerd serves no kubelet."""
    import tomli

    for file in files:
        try:
            plugins = tomli.loads(node.tree.text(file)).get("disabled_plugins")
        except (Unreadable, ValueError, RecursionError):
            continue
        if isinstance(plugins, list) and not {"cri", _V2}.isdisjoint(map(str, plugins)):
            return True
    return False


def _then(node: Node) -> str:
    return f"then: {restart_containerd(node)}"


def _certs_d(node: Node) -> str:
    paths = node.hosts.config.config_path if node.hosts and node.hosts.config else ()
    return paths[0] if paths else "/etc/containerd/certs.d"


def _refused(node: Node, error: ConfigError) -> Results:
    assert node.hosts is not None
    file = node.hosts.file
    found = re.match(r"(/[^:\n]*?)(?::(\d+))?: ", error.message)
    if error.rule == "io":
        found = re.match(r"cannot read ([^:]+)(): ", error.message)
        if "Permission denied" in error.message:
            yield Unexamined(f"containerd's configuration ({file})", f"{error.message}: run doctor as root")
            return
    where = Origin(found[1] if found else file, int((found[2] or 0) if found else 0))
    text = error.message[found.end() :] if found and error.rule != "io" else error.message
    consequence = error.consequence
    remedy = f"{error.hint or f'correct {where}'}, {_then(node)}"
    remedy = written_by(node, where.file, remedy)
    if error.rule == "mirrors-and-config-path":
        mirrors = line_of(node, (where.file,), "mirrors", "[")._replace(text="registry.mirrors is set")
        path = line_of(node, (where.file,), "config_path")._replace(text="registry.config_path is set")
        yield find("mirrors-and-config-path", mirrors, path, remedy=remedy)
    elif error.rule == "unclear":
        consequence = "The plugin fails for every pull, and the kubelet continues the pull without credentials."
        evidence = line_of(node, (where.file,), "[plugins", "registry")._replace(text=text)
        yield find("registry-table-misplaced", evidence, remedy=remedy, consequence=consequence)
    else:
        yield find("containerd-config-refused", at(where, text), remedy=remedy, consequence=_sentence(consequence))


def _sentence(text: str) -> str:
    return f"{text}." if text and not text.endswith(".") else text


def check_config_path(node: Node) -> Results:
    """Whether containerd looks for hosts.toml files at all, and where."""
    hosts = node.hosts
    if hosts is None or hosts.config is None or node.given.config:
        return
    config = hosts.config
    if not config.unsure or not has_mirrors(node):
        return
    main = config.files[0] if config.files else hosts.file
    if not config.file:
        roots = sorted({found.root for found in hosts.directories})
        names = [found.path for found in hosts.directories if found.names is not None]
        evidence = at(main, "registry.config_path is not set" if config.files else "no such file")
        others = at(roots[0], f"most releases of containerd do not read these: {', '.join(names[:5])}")
        plugin = _V3 if config.version >= 3 or (not config.version and _is_second(node)) else _V2
        version = "" if config.version else f"version = {3 if plugin == _V3 else 2}\n"
        where = f"{main}, the version at its top" if version and config.files else main
        remedy = f"write this in {where}, {_then(node)}\n{version}{_SNIPPET.format(plugin)}"
        # containerd does not start with a table that is there twice; `containerd config default` writes an empty one.
        table = line_of(node, config.files, plugin, ".registry]")
        if table.line:
            setting = _SNIPPET.partition("  ")[2]
            remedy = f"set config_path in the table that is there, at {place(table)}, {_then(node)}\n{setting}"
        remedy = written_by(node, main, remedy)
        yield find("config-path-not-set", evidence, others, remedy=remedy)
    elif len(config.config_path) > 1:
        value = ":".join(config.config_path)
        evidence = line_of(node, (config.file,), "config_path")._replace(text=f'config_path = "{value}"')
        remedy = f'config_path = "{config.config_path[0]}", with all directories in it, {_then(node)}'
        yield find("config-path-several", evidence, remedy=written_by(node, config.file, remedy))
    else:
        evidence = line_of(node, (config.file,), "[plugins", "registry")._replace(text=config.unsure)
        remedy = written_by(node, config.file, f"{config.advice}; {_then(node)}")
        yield find("registry-table-misplaced", evidence, remedy=remedy)


def _is_second(node: Node) -> bool:
    return bool(node.containerd and node.containerd.version and node.containerd.version.minor >= (2, 0))


def place(evidence: Evidence) -> str:
    return f"{evidence.file}:{evidence.line}" if evidence.line else evidence.file


def line_of(node: Node, files: tuple[str, ...], *words: str) -> Evidence:
    """Where a line of the files has all these words, the last of them if several have; its text is not told."""
    for file in reversed(files):
        try:
            lines = node.tree.text(file).splitlines()
        except Unreadable:
            continue
        for number in range(len(lines), 0, -1):
            line = lines[number - 1].partition("#")[0]
            if all(word in line for word in words):
                return Evidence(file, number, "")
    return Evidence(files[0] if files else "", 0, "")


def written_by(node: Node, file: str, remedy: str) -> str:
    """The remedy; for a file that k3s or RKE2 writes at each start, what to do so that it stays."""
    name = node.containerd.distribution if node.containerd else ""
    if not name or "/rancher/" not in file:
        return remedy
    if file.endswith("config.toml"):
        first, _, rest = remedy.partition("\n")
        first += (
            f"\n{name} writes this file at each start: set it in {file}.tmpl or /etc/rancher/{name}/registries.yaml"
        )
        return f"{first}\n{rest}" if rest else first
    try:
        is_made = node.tree.text(file).startswith("# File generated by")
    except Unreadable:
        is_made = False
    if not is_made:
        return remedy
    registries = f"/etc/rancher/{name}/registries.yaml"
    how = f"of which {name} makes this file at each start, and the first line here"
    return f"remove the registry from {registries}, {how}; {remedy}"


def check_flags(node: Node) -> Results:
    """Arguments that are for the other runtime."""
    entry = node.entry
    if entry is None:
        return
    without = _FOR_CRIO if node.pulls_with == CONTAINERD else _FOR_CONTAINERD
    given = [(flag, origin) for flag in without if (origin := entry.origin_of_flag(flag))]
    if given:
        runtime = "containerd" if node.pulls_with == CONTAINERD else "CRI-O"
        evidence = [at(origin, f"{flag} has no effect with {runtime}") for flag, origin in given]
        yield find("flags-without-effect", *evidence, remedy=f"remove {', '.join(flag for flag, _ in given)} from args")


_FOR_CRIO = (
    *("--auth-dir", "--global-auth-file", "--registries-conf", "--registries-conf-dir"),
    *("--hand-off-timeout", "--stale-after"),
)
_FOR_CONTAINERD = ("--containerd-config", "--allow-fallback-exposure")
