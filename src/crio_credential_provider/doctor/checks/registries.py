"""registries.conf, and the mirrors that it names."""

from __future__ import annotations

import functools
import ipaddress
import shlex
from typing import NamedTuple

from ...errors import masked
from ...images import reference
from ...node.commandline import Origin
from ...node.facts import Node
from ...node.located import toml_line
from ...registryclient import CONNECT, DNS, TLS, Verdict
from ...runtimes.crio import pullsources, registries, registriesfile, registriestext
from ..finding import Examined, Results, Unexamined, at, find
from .config import is_swapped
from .runtime import is_same

MOST_PROBED = 20
"""Hosts that are asked; more would take longer than a person waits."""


class Mirror(NamedTuple):
    """A place of registries.conf that CRI-O asks instead of the image's own registry.

    Attributes:
        location: as configured.
        insecure: TLS not verified, or plain HTTP.
        prefix: of the table.
        primary: whether it is the location of the registry itself, which may be out of reach on purpose.
        origin: the line of its location.
    """

    location: str
    insecure: bool
    prefix: str
    primary: bool
    origin: Origin

    @property
    def host(self) -> str:
        return self.location.partition("/")[0]

    @property
    def is_path(self) -> bool:
        """Whether CRI-O's library takes the location for a name without a host: no host has an underscore."""
        return "_" in self.host and reference.is_path(self.location)


@functools.lru_cache(maxsize=64)
def _written(file: str, text: str) -> registriestext.Written:
    """A file as it is written, parsed once."""
    return registriesfile.written(file, text.encode())


def find_mirrors(node: Node) -> list[Mirror]:
    """Mirrors and other locations of all tables that are not blocked, each place once for what fails of it."""
    config = node.registries.config
    found: dict[tuple[str, bool, str], Mirror] = {}
    for table in config.tables() if config else ():
        if table.blocked:
            continue
        places = [(mirror.location, mirror.insecure, False) for mirror in table.mirrors]
        if table.location and table.location != table.prefix:
            places.append((table.location, table.insecure, True))
        for place, bare, is_registry in places:
            text = _written(table.file, node.registries.texts.get(table.file, ""))
            line = text.line(text.location(table.prefix, place))
            mirror = Mirror(place, bare, table.prefix, is_registry, Origin(table.file, line))
            found.setdefault((place, bare, _failing(mirror)), mirror)
    return list(found.values())


def check_registries(node: Node) -> Results:
    """Whether CRI-O takes the files, and whether it reads auth files by them."""
    conf = node.registries
    if conf.unreadable is not None and not conf.unreadable.missing:
        yield Unexamined(f"registries.conf ({conf.unreadable.path})", conf.unreadable.reason)
        return
    own = node.entry.origin_of_flag("--registries-conf") if node.entry and _is_the_plugins_alone(node) else None
    if own is not None and (conf.unreadable or conf.refused):
        reason = conf.refused.message if conf.refused else f"{conf.main}: no such file"
        evidence = at(own, f"--registries-conf is not what CRI-O reads: {reason}")
        remedy = f"remove --registries-conf from {own}, then: systemctl restart kubelet"
        yield find("plugin-arguments-refused", evidence, remedy=remedy)
        return
    if conf.unreadable is not None:
        evidence = at(conf.unreadable.path, "it is configured, but not found")
        remedy = f"create {conf.unreadable.path}, or remove it from the configuration"
        yield find("registries-conf-refused", evidence, remedy=remedy)
        return
    if conf.refused is not None:
        error = conf.refused
        file = next((path for path in conf.texts if error.message.startswith(f"{path}:")), conf.main)
        origin = Origin(file, getattr(error, "line", 0))
        evidence = at(origin, error.message.removeprefix(f"{origin}: "))
        yield find("registries-conf-refused", evidence, remedy=f"{error.hint}; then: systemctl reload crio")
        return
    assert conf.config is not None
    for file, text in conf.texts.items():
        yield from _check_ignored(file, text)
    yield Examined(f"registries.conf: {', '.join(conf.texts) or f'{conf.main}: no such file'}")
    for unread in conf.unread:
        severity = "" if unread.is_mistake else "note"
        remedy = f"{unread.remedy}; then: systemctl reload crio"
        yield find("registries-drop-in-name", at(unread.place, unread.text), remedy=remedy, severity=severity)
    for directory in conf.linked:
        names = node.tree.names(directory) if node.tree.is_directory(directory) else []
        ignored = [name for name in names if name.endswith(".conf")]
        if ignored:
            target = node.tree.target(directory)
            evidence = at(directory, f"it is a link to {target}, which holds {', '.join(ignored[:5])}")
            remedy = (
                f"as root:\nrm {shlex.quote(directory)} && cp -a {shlex.quote(target)} {shlex.quote(directory)}\n"
                "then: systemctl reload crio"
            )
            yield find("registries-drop-ins-ignored", evidence, remedy=remedy)
    if registries.AUTH_FILE_HELPER not in conf.config.credential_helpers:
        found = [(p, line) for p, t in conf.texts.items() if (line := toml_line(t, "", "credential-helpers"))]
        file, line = found[-1] if found else (conf.main, 0)
        helpers = [registries.AUTH_FILE_HELPER, *conf.config.credential_helpers]
        evidence = at(file, f"credential-helpers = {conf.config.credential_helpers}", line)
        listed = ", ".join(f'"{helper}"' for helper in helpers)
        remedy = f"credential-helpers = [{listed}]\nthen: systemctl reload crio"
        yield find("credential-helpers-without-auth-file", evidence, remedy=remedy)


def _is_the_plugins_alone(node: Node) -> bool:
    """Whether the plugin is given a registries.conf that CRI-O is not."""
    ours = node.settings.registries_conf if node.settings else ""
    theirs = (node.crio.registries_conf.value if node.crio else "") or registries.MAIN_FILE
    return bool(ours) and not node.given.registries_conf and not is_same(node.tree, ours, theirs)


def _check_ignored(file: str, text: str) -> Results:
    """What CRI-O reads past in a file that it takes."""
    for ignored in _written(file, text).ignored():
        evidence = at(file, f"{ignored.key}: {ignored.text}", ignored.line)
        remedy = f"{ignored.remedy}; then: systemctl reload crio"
        if ignored.key == registriestext.NO_IMAGE:
            evidence = at(file, ignored.text, ignored.line)
            yield find("registries-table-unmatched", evidence, remedy=remedy)
        elif ignored.key == "[[registry]]":
            yield find("registries-table-ignored", evidence, remedy=remedy)
        else:
            severity = "" if ignored.is_mistake else "note"
            yield find("registries-key-ignored", evidence, remedy=remedy, severity=severity)


def check_locations(node: Node) -> Results:
    """Mirrors that CRI-O cannot ask, or will not."""
    blocked: dict[str, list[Mirror]] = {}
    for mirror in find_mirrors(node):
        evidence = at(mirror.origin, f"location = {masked(mirror.location)!r} (prefix {masked(mirror.prefix)})")
        failing = _failing(mirror)
        if mirror.is_path:
            if not mirror.primary:
                remedy = f"give the mirror a host name without an underscore, and write that in {mirror.origin}"
                yield find("mirror-host-underscore", evidence, remedy=remedy)
        elif failing and not (failing != _ALL and mirror.primary and is_swapped(mirror.prefix, mirror.location)):
            yield from _unusable(mirror, failing)
        elif port := _impossible_port(mirror.host):
            evidence = evidence._replace(text=f"{evidence.text}: the port {port} is above 65535")
            remedy = f"in {mirror.origin} write the port that it listens on; then: systemctl reload crio"
            consequence = (
                "CRI-O cannot ask it and continues with the next source; without another source the pull fails."
            )
            yield find("mirror-unreachable", evidence, remedy=remedy, consequence=consequence)
        elif mirror.location.partition("/")[2].startswith(("v1/", "v2/")):
            asks = f"CRI-O asks https://{mirror.host}/v2/{mirror.location.partition('/')[2]}/..."
            meant = registriestext.corrected(mirror.location.replace("/v1/", "/", 1).replace("/v2/", "/", 1))
            remedy = f'in {mirror.origin} write location = "{meant}", unless the mirror has a project of that name'
            evidence = evidence._replace(text=f"{evidence.text}: {asks}")
            consequence = "The mirror most likely does not have the image, and CRI-O continues with the next source."
            yield find("mirror-location-unusable", evidence, remedy=remedy, severity="warning", consequence=consequence)
        elif not mirror.primary and (blocker := _blocker(node, mirror)) is not None:
            blocked.setdefault(blocker.prefix, []).append(mirror)
    for mirrors in blocked.values():
        blocker = _blocker(node, mirrors[0])
        assert blocker is not None
        text = _written(blocker.file, node.registries.texts.get(blocker.file, ""))
        line = text.line((*text.table(blocker.prefix), "blocked"))
        evidence = at(blocker.file, f"blocked = true for {masked(blocker.prefix)}", line)
        mine = (
            at(mirror.origin, f"{masked(mirror.location)}, a mirror of {masked(mirror.prefix)}") for mirror in mirrors
        )
        yield find("mirror-blocked", evidence, *mine, remedy="remove the block, or the mirror")


_ALL = "every image"


def _failing(mirror: Mirror) -> str:
    """The images that a location does not spell as they would be after normalising, which CRI-O demands: "" for none,
    else an example of them, or ``_ALL``."""
    # Without a path only Docker Hub is spelled otherwise, and there only what lies right at the top.
    host, _, path = mirror.prefix.partition("/")
    if not _makes(mirror.location, "/team/image"):
        return _ALL
    is_hub = host == mirror.location == "docker.io"
    if _makes(mirror.location, "/image") or (is_hub and not path):
        return ""
    return f"{mirror.prefix.replace('*', 'x')}/image"


def _makes(location: str, rest: str) -> bool:
    """Whether a location with what follows it is an image's name."""
    image = f"{location}{rest}:tag"
    try:
        return str(reference.parse(image)) == image
    except reference.ReferenceSyntaxError:
        return False


def _unusable(mirror: Mirror, failing: str) -> Results:
    """A location of which no reference can be made: for all images, or for those that lie right below the prefix."""
    text = f"location = {masked(mirror.location)!r} (prefix {masked(mirror.prefix)})"
    if failing == _ALL:
        remedy = f"in {mirror.origin} {registriestext.location_for(mirror.location, '/team/image')}"
        yield find("mirror-location-unusable", at(mirror.origin, text), remedy=f"{remedy}; then: systemctl reload crio")
        return
    path = mirror.prefix.partition("/")[2]
    evidence = at(mirror.origin, f"{text}: {failing} would be {mirror.location}/image, which means library/image")
    if path:
        remedy = f'in {mirror.origin} write location = "{mirror.location}/{path}"'
        yield find("mirror-location-unusable", evidence, remedy=f"{remedy}; then: systemctl reload crio")
        return
    consequence = "CRI-O fails pulls of images without a path there, from the other sources as well; all others work."
    remedy = f"only needed if a pod has such an image, like {failing}: remove the location from {mirror.origin}"
    yield find("mirror-location-unusable", evidence, remedy=remedy, severity="note", consequence=consequence)


def _impossible_port(host: str) -> str:
    """The port of a host where no port has such a number, else ""."""
    port = host.rpartition(":")[2] if ":" in host else ""
    return port if port.isdigit() and not 0 < int(port[:9]) < 65536 else ""


def _blocker(node: Node, mirror: Mirror) -> registries.Registry | None:
    config = node.registries.config
    found = pullsources.find_registry(config, f"{mirror.location}/image") if config else None
    return found if found is not None and found.blocked else None


def check_insecure(node: Node) -> Results:
    """Mirrors that are talked to without verified TLS by configuration."""
    for mirror in find_mirrors(node):
        if mirror.insecure and not is_loopback(mirror.host):
            text = _written(mirror.origin.file, node.registries.texts.get(mirror.origin.file, ""))
            line = text.line((*text.location(mirror.prefix, mirror.location)[:-1], "insecure"))
            evidence = at(
                mirror.origin.file,
                f"insecure = true for {masked(mirror.location)} (prefix {masked(mirror.prefix)})",
                line,
            )
            host = registriestext.corrected(mirror.location).partition("/")[0] or "HOST"
            remedy = f"put its CA at /etc/containers/certs.d/{host}/ca.crt, and remove insecure = true"
            yield find("mirror-without-tls", evidence, remedy=remedy)


def is_loopback(host: str) -> bool:
    """Whether what is sent there stays on the node."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    try:
        return name == "localhost" or ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def asked_mirrors(node: Node) -> list[Mirror]:
    """Those that CRI-O can and will ask."""
    can = [m for m in find_mirrors(node) if not m.primary and not m.is_path and not _impossible_port(m.host)]
    return [m for m in can if _failing(m) != _ALL and _blocker(node, m) is None]


def check_mirrors(node: Node, verdicts: dict[tuple[str, bool], Verdict | str]) -> Results:
    """What the mirrors answered. ``verdicts``: by host and insecure; a text where nothing could be asked."""
    mirrors = asked_mirrors(node)
    if not mirrors or node.given.config:
        return
    if not node.given.live:
        yield Unexamined("whether the mirrors answer", "not asked with --root")
        return
    told: set[tuple[str, bool]] = set()
    for mirror in mirrors:
        key = mirror.host, mirror.insecure
        if key in told:
            continue
        told.add(key)
        verdict = verdicts.get(key, f"more than {MOST_PROBED} hosts")
        if isinstance(verdict, str):
            yield Unexamined(f"the mirror {mirror.host}", verdict)
        else:
            yield from _judge(mirror, verdict)


def _judge(mirror: Mirror, verdict: Verdict) -> Results:
    evidence = at(mirror.origin, f"the mirror {mirror.location}: {verdict.evidence}")
    if verdict.outcome in (DNS, CONNECT):
        yield find("mirror-unreachable", evidence, remedy=verdict.remedy)
    elif verdict.outcome == TLS and verdict.cause == "not-tls":
        consequence = "CRI-O cannot pull from it: it uses plain HTTP, which CRI-O only uses with insecure = true."
        yield find("mirror-without-tls", evidence, remedy=verdict.remedy, severity="error", consequence=consequence)
    elif verdict.outcome == TLS:
        yield find("mirror-certificate", evidence, remedy=verdict.remedy)
    else:
        yield Examined(f"the mirror {mirror.host}: {verdict.evidence}")
