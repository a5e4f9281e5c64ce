"""hosts.toml: what containerd looks past, what it refuses, and to whom it could show a credential."""

from __future__ import annotations

import difflib
import posixpath
import re
import shlex
from typing import Any

from ...errors import masked
from ...node.containerd import HOSTS_FILE, OTHERS, RELEASES, HostsFile, domain_of
from ...node.facts import Node
from ...node.located import toml_line
from ...node.tree import Unreadable
from ...pull.resolution import is_wanted
from ...registryclient import CONNECT, DNS, TLS, Api, Verdict
from ...runtimes.containerd.hosts import Found, own_host
from ...runtimes.containerd.pullsources import repository_sources
from ...runtimes.pullsource import PullSource
from ..finding import Evidence, Examined, Finding, Results, Unexamined, at, find, seen
from ..hostsnames import is_registry, meant_directory, meant_file
from ..mirrored import example, has_mirrors, mirrored_registries
from .containerd import line_of, place, written_by
from .registries import MOST_PROBED, is_loopback

_MOST_TOLD = 5
_NEXT_HOST = "containerd asks the next host of the file, the server last; if that is the mirror, too, the pull fails."
_KEYS = ("capabilities", "ca", "client", "skip_verify", "header", "override_path", "dial_timeout")
_OF_THE_TOP = ("server", "host")


def check_hosts(node: Node) -> Results:
    """The files below config_path, one after the other, then the registries that they are for."""
    hosts = node.hosts
    if hosts is None or hosts.config is None or node.given.config:
        return
    for problem in hosts.problems:
        yield Unexamined(problem.path, problem.reason)
    strays = [*_file_names(node), *_directory_names(node)]
    yield from strays
    for domain, error in hosts.failed.items():
        if "Permission denied" in error.message:
            yield Unexamined(f"the hosts of {domain}", f"{error.message}: run doctor as root")
            continue
        found = re.match(r"(?:cannot read )?(/[^\n]*?): ", error.message)
        file = found[1] if found else hosts.file
        text = error.message[found.end() :] if found else error.message
        text = f"cannot be read: {text}" if error.message.startswith("cannot read") else text
        remedy = error.hint or f"make {file} a file that root can read, or remove it"
        yield find("hosts-file-refused", at(file, text), remedy=written_by(node, file, remedy))
    told: set[str] = set()
    mirrors = mirrored_registries(node)
    for file in hosts.files:
        name = file.path.split("/")[-2]
        # What only some releases ignore is a matter of mirrors alone.
        counts = not 0 < len(file.ignored_by) < len(hosts.config.readings) or domain_of(name) in mirrors
        if not is_registry(name) or not counts:
            continue
        keys = [] if file.reason else list(_keys(node, file))
        if keys or file.ignored_by:
            told.add(file.path)
            yield from keys or _ignored(node, file)
    named = {domain_of(found.name) for found in hosts.directories if is_registry(found.name)}
    registries = {domain: one for domain, one in hosts.found.items() if domain in named or hosts.config.mirrors}
    for domain, one in registries.items():
        yield from _of_registry(node, domain, one, is_told=one.file in told)
    if not has_mirrors(node) and not strays and not hosts.failed and not any(file.ignored_by for file in hosts.files):
        yield from _no_mirrors(node)
    elif has_mirrors(node):
        names = ", ".join(_name(domain) for domain in registries)
        yield Examined(f"the hosts of {names}")


def _no_mirrors(node: Node) -> Results:
    assert node.hosts is not None and node.hosts.config is not None
    config = node.hosts.config
    main = config.files[0] if config.files else node.hosts.file
    where = ", ".join(config.config_path)
    text = f"no hosts.toml below {where} has a [host]" if where else "config_path is not set, and there are no mirrors"
    remedy = "write /etc/containerd/certs.d/docker.io/hosts.toml with a [host] for the mirror, if there is one"
    yield find("hosts-no-mirrors", at(main if config.files or not where else "", text), remedy=remedy)


def _name(domain: str) -> str:
    return "all other registries" if domain == OTHERS else domain


# -- names ------------------------------------------------------------------------------------------------------------


def _file_names(node: Node) -> Results:
    """Files that were meant to be a hosts.toml."""
    assert node.hosts is not None
    for found in node.hosts.directories:
        if found.names is None:
            if found.name == HOSTS_FILE:
                evidence = at(found.path, "it is in no directory of a registry")
                moved = shlex.quote(f"{found.root}/docker.io")
                remedy = "move it to the directory of its registry, such as:\n"
                remedy += f"mkdir -p {moved} && mv {shlex.quote(found.path)} {moved}/"
                yield find("hosts-file-name", evidence, remedy=remedy)
            elif found.name.endswith(".toml"):
                domain = found.name.removesuffix(".toml")
                evidence = at(found.path, f"containerd looks for {found.root}/{domain}/hosts.toml")
                directory = shlex.quote(f"{found.root}/{domain}")
                remedy = f"as root:\nmkdir -p {directory} && mv {shlex.quote(found.path)} {directory}/hosts.toml"
                yield find("hosts-file-name", evidence, remedy=remedy)
        elif HOSTS_FILE not in found.names and is_registry(found.name) and (meant := meant_file(found.names)):
            evidence = at(f"{found.path}/{meant}", "containerd looks for hosts.toml")
            old, new = shlex.quote(f"{found.path}/{meant}"), shlex.quote(f"{found.path}/hosts.toml")
            yield find("hosts-file-name", evidence, remedy=f"as root:\nmv {old} {new}")


def _directory_names(node: Node) -> Results:
    assert node.hosts is not None
    there = {(found.root, found.name) for found in node.hosts.directories}
    for found in node.hosts.directories:
        if found.names is None or not found.names:
            continue
        meant, why = meant_directory(found.name)
        if meant and (found.root, meant) not in there:
            evidence = at(found.path, why)
            old, new = shlex.quote(found.path), shlex.quote(f"{found.root}/{meant}")
            yield find("hosts-directory-name", evidence, remedy=f"as root:\nmv {old} {new}")


# -- content ----------------------------------------------------------------------------------------------------------


def _ignored(node: Node, file: HostsFile) -> Results:
    """A file that some or all releases ignore."""
    own = node.containerd.reading if node.containerd else ""
    reason = file.reason or "it has escapes or long strings, which not every release of containerd reads alike"
    evidence = [at(file.path, reason, file.line)]
    severity, consequence = "", ""
    assert node.hosts is not None and node.hosts.config is not None
    if len(file.ignored_by) < len(node.hosts.config.readings):
        releases = ", ".join(RELEASES[reading] for reading in file.ignored_by)
        evidence.append(seen(f"ignored by containerd {releases}" + ("" if own else "; its version is not known")))
        if own and own not in file.ignored_by:
            consequence = (
                "The containerd of this node reads the file. The plugin does not know the release: it counts the "
                "registry itself as asked, and gives no credential that would be shown to it."
            )
            severity = "warning" if node.settings and node.settings.allow_fallback_exposure else ""
    where = f"{file.path}:{file.line}" if file.line else file.path
    remedy = f"correct {where}"
    if "no [host] table" in file.reason:
        remedy = f'write the mirror as [host."https://..."] in {file.path}, and not as server'
    remedy = written_by(node, file.path, f"{remedy}; containerd needs no restart for it")
    yield find("hosts-file-ignored", *evidence, remedy=remedy, severity=severity, consequence=consequence)


def _keys(node: Node, file: HostsFile) -> Results:
    """Keys that containerd looks past."""
    import tomli

    path = file.path
    try:
        text = node.tree.text(path)
        document: dict[str, Any] = tomli.loads(text)
    except (Unreadable, ValueError, RecursionError):
        return
    is_made = node.containerd is not None and bool(node.containerd.distribution)
    top = {key.lower() for key in document}
    evidence, remedies = [], []
    consequence = ""
    # Without them the registry itself is asked as well, and in strict mode no credential given.
    strict = "error" if node.settings and not node.settings.allow_fallback_exposure and _host_tables(document) else ""
    # Some releases may ignore the whole file for a key that they do not know.
    severity = strict if file.ignored_by else ""
    if "capabilities" in top and not document.get("server"):
        line = toml_line(text, "", "capabilities")
        evidence.append(at(path, "capabilities at the top only counts together with server, which is not set", line))
        severity = strict
        url, host = next(iter(_host_tables(document)), ("https://MIRROR", {}))
        server = _server(masked(url), override=host.get("override_path") is True).replace("\n", " ").strip()
        remedies.append(f"in its place write the mirror as server: {server}")
    for table, keys in [("", document), *_host_tables(document)]:
        known = (*_KEYS, *(() if table else _OF_THE_TOP))
        for key in keys:
            # k3s has a containerd of its own, which knows rewrite.
            if key.lower() in known or (is_made and key == "rewrite"):
                continue
            line = toml_line(text, f"host.{table}" if table else "", key)
            if table and key.lower() in _OF_THE_TOP:
                evidence.append(at(path, f"{key} is below [host.{masked(table)!r}], and belongs to that host", line))
                severity = strict
                remedies.append(f"move {key} above the first [host] of {path}")
                continue
            close = difflib.get_close_matches(key.lower(), known, 1, 0.6)
            hint = f"; did you mean {close[0]}?" if close else ""
            evidence.append(at(path, f"unknown key {key}{hint}", line))
            remedies.append(f"write {close[0]} in {path}:{line}" if close else f"remove {key} from {path}:{line}")
    if evidence:
        remedy = written_by(node, path, "; ".join(dict.fromkeys(remedies)))
        if severity:
            consequence = (
                "containerd may pull from the registry itself as well, which would be shown the credential for the "
                "mirror: pulls get none."
            )
        shown = evidence[:_MOST_TOLD]
        yield find("hosts-key-ignored", *shown, remedy=remedy, severity=severity, consequence=consequence)


def _host_tables(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    tables = document.get("host")
    return (
        [(url, table) for url, table in tables.items() if isinstance(table, dict)] if isinstance(tables, dict) else []
    )


# -- one registry -----------------------------------------------------------------------------------------------------


def _of_registry(node: Node, domain: str, found: Found, *, is_told: bool) -> Results:
    # A mirror that is the server as well comes twice.
    bare, sent = set[str](), set[str]()
    for host in found.hosts:
        if not host.file:
            continue
        evidence = _line_of_host(node, found, host.host)
        if (host.skip_verify or host.plain_http) and not is_loopback(host.host) and host.host not in bare:
            bare.add(host.host)
            ca = f'name its CA: ca = "{posixpath.dirname(host.file)}/ca.crt"'
            if host.plain_http:
                text, remedy = "plain HTTP", f"in {place(evidence)} write https:// and {ca}"
            else:
                evidence = line_of(node, (host.file,), "skip_verify", "true")
                text, remedy = "skip_verify = true", f"remove it from {place(evidence)}, and {ca}"
            text = f"{text}: {host.scheme}://{host.host}, for {_name(domain)}"
            remedy = written_by(node, host.file, remedy)
            yield find("hosts-without-tls", evidence._replace(text=text), remedy=remedy)
        if host.sends_authorization and host.host not in sent:
            sent.add(host.host)
            line = line_of(node, (host.file,), "uthorization").line
            evidence = at(host.file, f"a header Authorization for {host.host}", line)
            remedy = written_by(
                node, host.file, f"remove it from {place(evidence)}; containerd needs no restart for it"
            )
            yield find("hosts-authorization-header", evidence, remedy=remedy)
    if missing := _missing_certificate(node, found):
        yield missing
    elif node.settings is not None and not is_told:
        yield from _exposed(node, domain, found)


def _missing_certificate(node: Node, found: Found) -> Finding | None:
    """The first file of a certificate that containerd cannot read."""
    for host in found.hosts:
        for path in (*host.ca, *(name for pair in host.client for name in pair if name)):
            try:
                node.tree.head(path, 1)
            except Unreadable as error:
                if error.denied:
                    continue
                evidence = line_of(node, (host.file or found.file,), path.rpartition("/")[2])
                evidence = evidence._replace(text=f"cannot read the certificate {path}: {error.reason}")
                remedy = written_by(node, found.file, f"write {path}, or remove it from {place(evidence)}")
                return find("hosts-file-refused", evidence, remedy=remedy)
    return None


def _exposed(node: Node, domain: str, found: Found) -> Results:
    """Whether a credential for a mirror could be shown to another host."""
    assert node.settings is not None
    image = example(domain)
    # A host that is only asked by some release, or if config_path does not count, is told with its reason.
    certain = Found(domain, tuple(host for host in found.hosts if host.file or not found.file.endswith(HOSTS_FILE)))
    sources = repository_sources(certain, image)
    mirrors = [one for one in sources if one.name != image.name and is_wanted(one, image, node.settings)]
    if not mirrors or len({_host(one) for one in sources}) < 2:
        return
    first = mirrors[0]
    others = [one for one in sources if _host(one) != _host(first)]
    shown = ", ".join(dict.fromkeys(_shown(one, domain) for one in others))
    evidence = _line_of_host(node, found, _dialed(first))
    evidence = evidence._replace(
        text=f"the credential for {_host(first)} would be shown to {shown}, for images of {_name(domain)}"
    )
    advice, block = _remedy(found, domain, first, others)
    if node.settings.allow_fallback_exposure:
        flag = node.entry.origin_of_flag("--allow-fallback-exposure") if node.entry else None
        allowed = [at(flag, "--allow-fallback-exposure allows it")] if flag else []
        consequence = "These hosts get the namespace's credential for the mirror whenever they answer 401."
        told = (evidence, *allowed)
        remedy = written_by(node, found.file, advice) + block
        yield find("mirror-credential-exposed", *told, remedy=remedy, severity="warning", consequence=consequence)
        return
    advice = written_by(node, found.file, advice)
    remedy = f"{advice}; or allow it: args: [--allow-fallback-exposure]{block}"
    yield find("mirror-credential-exposed", evidence, remedy=remedy)


def _remedy(found: Found, domain: str, mirror: PullSource, others: list[PullSource]) -> tuple[str, str]:
    """What to do, and what to write."""
    if not found.file.endswith(HOSTS_FILE):
        how = "whose server is the mirror, so that the registry itself is not asked"
        return f"move the mirrors of {_name(domain)} from registry.mirrors to a hosts.toml below config_path, {how}", ""
    has_server = any(source.primary for source in others)
    top = f"at the top of {found.file}"
    if not all(source.primary for source in others):
        if not has_server:
            return f"leave one [host] in {found.file}, or give each namespace one credential for all of them", ""
        top = f"leave one [host] in {found.file}, and at its top"
    block = _server(mirror.location, override=not mirror.location.endswith("/v2"))
    return f"{top} write this, so that containerd asks no other host", block


def _server(url: str, *, override: bool) -> str:
    """The lines that make a mirror the server."""
    return f'\nserver = "{url}"' + ("\noverride_path = true" if override else "")


def _host(source: PullSource) -> str:
    return source.name.partition("/")[0]


def _dialed(source: PullSource) -> str:
    return source.location.partition("://")[2].partition("/")[0]


def _shown(source: PullSource, domain: str) -> str:
    return "the registry itself" if domain == OTHERS and _host(source) == OTHERS else _dialed(source)


def _line_of_host(node: Node, found: Found, host: str) -> Evidence:
    """The header of a host, else the server; in config.toml the mirrors of the registry."""
    if not found.file.endswith(HOSTS_FILE):
        domain = "*" if found.domain == OTHERS else found.domain
        return line_of(node, (found.file,), "mirrors", domain)
    header = line_of(node, (found.file,), "host", host)
    return header if header.line else line_of(node, (found.file,), host)


# -- what the mirrors answer ------------------------------------------------------------------------------------------


def asked_hosts(node: Node) -> dict[Api, Found]:
    """The mirrors that containerd asks; each once."""
    if node.hosts is None or node.hosts.config is None or node.hosts.config.unsure:
        return {}
    asked: dict[Api, Found] = {}
    for domain, found in node.hosts.found.items():
        for host in found.hosts:
            if host.file and host.host and host.host != own_host(domain):
                certificates = host.skip_verify, host.plain_http, host.ca, host.client
                asked.setdefault(Api(host.scheme, host.host, "", "", *certificates, (), host.file), found)
    return asked


def check_mirrors(node: Node, verdicts: dict[Api, Verdict | str]) -> Results:
    """What the mirrors answered; a text where nothing could be asked."""
    mirrors = asked_hosts(node)
    if not mirrors or node.given.config:
        return
    if not node.given.live:
        yield Unexamined("whether the mirrors answer", "not asked with --root")
        return
    told: set[str] = set()
    for api, found in mirrors.items():
        verdict = verdicts.get(api, f"more than {MOST_PROBED} hosts")
        if isinstance(verdict, str):
            yield Unexamined(f"the mirror {api.host}", verdict)
        elif verdict.cause == "certs.d":
            # Which file is missing is told by itself.
            continue
        elif verdict.outcome not in (DNS, CONNECT, TLS):
            yield Examined(f"the mirror {api.host}: {verdict.evidence}")
        elif api.host not in told:
            told.add(api.host)
            words = verdict.evidence.replace(node.tree.root, "") if node.tree.root else verdict.evidence
            evidence = _line_of_host(node, found, api.host)._replace(text=f"the mirror {api.host}: {words}")
            remedy = written_by(node, found.file, verdict.remedy)
            if verdict.outcome == TLS:
                yield find("mirror-certificate", evidence, remedy=remedy, consequence=_NEXT_HOST)
            else:
                yield find("mirror-unreachable", evidence, remedy=remedy, consequence=_NEXT_HOST)
