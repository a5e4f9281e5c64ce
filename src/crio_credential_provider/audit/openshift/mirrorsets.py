"""registries.conf of OpenShift's nodes, made of the mirror sets as the Machine Config Operator makes it.

The sets are ImageDigestMirrorSets, ImageTagMirrorSets and ImageContentSourcePolicies; ``registrySources`` of the Image
``cluster`` adds to them, and ClusterVersion, whose release image is not blocked. Follows the operator of August 2026
and ``pkg/registries`` of openshift/runtime-utils; what these answered is in ``tests/vectors/mirrorsets.jsonl``. It is
about registries.conf alone: policy.json is not looked at.

    sets = MirrorSets()
    sets.add({"kind": "ImageTagMirrorSet", ...})
    files, notes = sets.make()        # [("/etc/containers/registries.conf", b"...")]
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple

from ...errors import ConfigError, masked
from ...images import reference
from ...images.reference import Reference, ReferenceSyntaxError
from ...runtimes.crio import pullsources, registries
from ..workloads import Object, member, text

_CONFIG, _OPERATOR = "/apis/config.openshift.io/v1", "/apis/operator.openshift.io/v1alpha1"
LISTS = (
    ("ImageDigestMirrorSet", _CONFIG, "imagedigestmirrorsets"),
    ("ImageTagMirrorSet", _CONFIG, "imagetagmirrorsets"),
    ("ImageContentSourcePolicy", _OPERATOR, "imagecontentsourcepolicies"),
    ("Image", _CONFIG, "images"),
    ("ClusterVersion", _CONFIG, "clusterversions"),
)
"""Kind, the path of its API group, and its resource."""
KINDS = tuple(kind for kind, _, _ in LISTS)
DISCOVERY = _CONFIG
"""What every user may get, of OpenShift alone."""

_DIGEST, _TAG = "digest-only", "tag-only"
_MEMBERS = {
    "ImageDigestMirrorSet": ("imageDigestMirrors", _DIGEST),
    "ImageTagMirrorSet": ("imageTagMirrors", _TAG),
    "ImageContentSourcePolicy": ("repositoryDigestMirrors", _DIGEST),
}
"""Kind -> where below ``spec`` its sets are, and what its mirrors are asked for."""
SETS = tuple(_MEMBERS)

_SEARCH_FILE = f"{registries.DROP_IN_DIRECTORY}/01-image-searchRegistries.conf"
_SEARCH = ("registry.access.redhat.com", "docker.io")
"""Of the file that the operator begins with."""
_NEVER = "NeverContactSource"
_MOST_NAMES = 5
_AGAIN = "save it again with kubectl get -o json"


class _Mirror(NamedTuple):
    location: str
    wanted: str
    insecure: bool = False


class _Table:
    """A ``[[registry]]``; its prefix, or its location where that has no wildcard, is its scope."""

    def __init__(self) -> None:
        self.insecure = False
        self.blocked = False
        self.mirrors: list[_Mirror] = []


_Merged = dict[str, list[list[str]]]
"""Source -> the lists of mirrors that it has in all sets."""


class MirrorSets:
    """The objects of a cluster."""

    def __init__(self) -> None:
        self._objects: list[Object] = []

    def add(self, found: Object) -> None:
        """Takes an object of one of ``KINDS``; Images of another API group, which are no settings, are left out."""
        version = text(found, "apiVersion") or _CONFIG.removeprefix("/apis/")
        if found["kind"] != "Image" or (version.startswith("config.openshift.io/") and _name(found) == "cluster"):
            self._objects.append(found)

    def has(self, *kinds: str) -> bool:
        """Whether there is an object of one of these kinds."""
        return any(found["kind"] in kinds for found in self._objects)

    def origin(self) -> str:
        """The objects by name, for people."""
        named = dict.fromkeys(
            f"{found['kind']} {_name(found)}" for found in self._objects if found["kind"] != "ClusterVersion"
        )
        more = f" and {len(named) - _MOST_NAMES} more" if len(named) > _MOST_NAMES else ""
        made = "as the Machine Config Operator makes it (a node may not have it yet)"
        return f"{', '.join([*named][:_MOST_NAMES])}{more}, {made}"

    def make(self) -> tuple[list[tuple[str, bytes]], list[str]]:
        """Path and content of the files that the operator writes, and what a person should know of them.

        Raises:
            ConfigError: the operator refuses an object, or it is not an object of that kind.
        """
        merged: dict[str, _Merged] = {_DIGEST: {}, _TAG: {}}
        never = self._add_sets(merged)
        insecure = self._scopes("insecureRegistries")
        blocked, notes = self._blocked(merged[_DIGEST], never, insecure)
        files = [(registries.MAIN_FILE, _dumps(_SEARCH, _edit(merged, never, insecure, blocked)))]
        search = self._registry_sources("containerRuntimeSearchRegistries")
        if search is not None:
            files.append((_SEARCH_FILE, _dumps(search, {})))
        if self._registry_sources("allowedRegistries"):
            notes.append("allowedRegistries of Image cluster is in policy.json of the nodes, which is not looked at")
        return files, notes

    # -- what the objects say -----------------------------------------------------------------------------------------

    def _add_sets(self, merged: dict[str, _Merged]) -> set[str]:
        """Adds all sets, checked as the operator checks them; the sources that are never to be asked themselves."""
        policies: dict[str, str] = {}
        for found in self._objects:
            if found["kind"] not in _MEMBERS:
                continue
            where, (name, wanted) = f"{found['kind']} {_name(found)}", _MEMBERS[found["kind"]]
            if not isinstance(found.get("spec"), dict):
                raise ConfigError(f"{where}: spec is missing", _AGAIN)
            for one in _list(found["spec"], name, dict, where):
                source, policy = text(one, "source"), text(one, "mirrorSourcePolicy") or "AllowContactingSource"
                mirrors = _list(one, "mirrors", str, where)
                if found["kind"] == "ImageContentSourcePolicy":
                    policy = "AllowContactingSource"
                _check(source, mirrors, policy, where)
                if policies.setdefault(source, policy) != policy:
                    raise _refused(where, f"source {source} has another mirrorSourcePolicy in another set")
                if any(mirror != source for mirror in mirrors):
                    merged[wanted].setdefault(source, []).append(mirrors)
        return {source for source, policy in policies.items() if policy == _NEVER}

    def _registry_sources(self, name: str) -> list[str] | None:
        """A list of the Image ``cluster``; None where it is not there."""
        for found in reversed(self._objects):
            if found["kind"] == "Image":
                sources = member(member(found, "spec"), "registrySources")
                return None if sources.get(name) is None else _list(sources, name, str, "Image cluster")
        return None

    def _scopes(self, name: str) -> list[str]:
        scopes = self._registry_sources(name) or []
        for scope in scopes:
            if not scope or ("*" in scope and (not scope.startswith("*.") or set(scope[2:]) & set("/@:*"))):
                raise _refused(
                    "Image cluster", f"{name}: {masked(scope)!r} is not a registry, a repository or *.DOMAIN"
                )
        return scopes

    def _blocked(self, digest: _Merged, never: set[str], insecure: list[str]) -> tuple[list[str], list[str]]:
        """The scopes that are blocked; with a note of those that are not, since nodes could not pull the release."""
        scopes = self._scopes("blockedRegistries")
        image = next(filter(None, map(_release_image, self._objects)), "")
        if not scopes:
            return [], []
        if not image:
            return scopes, ["ClusterVersion was not read: where the release image is, the operator may not block"]
        try:
            release = reference.parse(image)
        except ReferenceSyntaxError:
            release = None
        if release is None or str(release) != image:
            raise _refused("ClusterVersion version", f"status.desired.image {masked(image)!r} is not a full image name")
        spared = [scope for scope in scopes if _is_nested(release.name, scope)]
        try:
            if spared and _is_elsewhere(release, scopes, _edit({_DIGEST: digest}, never, insecure, scopes)):
                spared = []
        except ConfigError as error:
            # The operator logs it, and goes on without any.
            return [], [f"the operator does not block {', '.join(map(masked, scopes))}: {error.message}"]
        note = f"the operator does not block {', '.join(map(masked, spared))}: the cluster's own release image is there"
        return [scope for scope in scopes if scope not in spared], [note] if spared else []


def _is_elsewhere(release: Reference, blocked: list[str], tables: dict[str, _Table]) -> bool:
    """Whether the release can be pulled from a place that is not blocked."""
    config = registries.loads([(registries.MAIN_FILE, _dumps((), tables))], registries.MAIN_FILE)
    names = [source.name for source in pullsources.sources_of(config, release)]
    return any(not any(_is_nested(name, scope) for scope in blocked) for name in names)


def _release_image(found: Object) -> str:
    return text(member(member(found, "status"), "desired"), "image") if found["kind"] == "ClusterVersion" else ""


def _name(found: Object) -> str:
    return text(member(found, "metadata"), "name") or "(without a name)"


def _list(value: Object, name: str, kind: type, where: str) -> list[Any]:
    found = value.get(name)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(item, kind) for item in found):
        what = "objects" if kind is dict else "strings"
        raise ConfigError(f"{where}: {name} is not a list of {what}", _AGAIN)
    return found


def _check(source: str, mirrors: list[str], policy: str, where: str) -> None:
    if not (_is_repository(source) or (source.startswith("*.") and reference.is_domain(source[2:] + ":0"))):
        raise _refused(where, f"source {masked(source)!r} is not a registry, a repository or *.DOMAIN")
    for mirror in mirrors:
        if not _is_repository(mirror):
            raise _refused(where, f"mirror {masked(mirror)!r} of source {source} is not a registry or a repository")
        if policy == _NEVER and mirror == source:
            raise _refused(where, f"source {source} is one of its mirrors, and mirrorSourcePolicy is {_NEVER}")


def _is_repository(scope: str) -> bool:
    domain, slash, path = scope.partition("/")
    return reference.is_domain(domain) and (not slash or reference.is_path(path))


def _refused(where: str, why: str) -> ConfigError:
    return ConfigError(
        f"{where}: {why}",
        "correct the object, or give a node's file with --registries-conf",
        consequence="the Machine Config Operator refuses that, and the nodes keep the registries.conf they have",
    )


# -- what the operator makes of it ------------------------------------------------------------------------------------


def _edit(merged: dict[str, _Merged], never: set[str], insecure: list[str], blocked: list[str]) -> dict[str, _Table]:
    """Scope -> table, in the order of the file.

    CRI-O takes the most specific table alone, so that what is said of a scope is repeated in those nested in it.
    """
    tables: dict[str, _Table] = {}
    for wanted, sets in merged.items():
        for source in sorted(sets):
            table = tables.setdefault(source, _Table())
            table.blocked |= source in never
            table.mirrors += [_Mirror(location, wanted) for location in _ordered(source, sets[source])]
    for scope in (*blocked, *insecure):
        tables.setdefault(scope, _Table())
    for scope, table in tables.items():
        table.insecure = any(_is_nested(scope, outer) for outer in insecure)
        table.blocked |= any(_is_nested(scope, outer) for outer in blocked)
        table.mirrors = [
            mirror._replace(insecure=any(_is_nested(mirror.location, outer) for outer in insecure))
            for mirror in table.mirrors
        ]
    for source in (source for sets in merged.values() for source in sorted(sets)):
        for scope, table in tables.items():
            if scope == source or table.mirrors or not _is_nested(scope, source):
                continue
            if source.startswith("*."):
                raise _refused(f"source {source}", f"{masked(scope)} is below it, and has no mirrors")
            rest = scope[len(source) :]
            table.mirrors = [mirror._replace(location=mirror.location + rest) for mirror in tables[source].mirrors]
    return tables


def _is_nested(scope: str, outer: str) -> bool:
    """Whether a scope is another one, or below it. That ``*.a.io`` has ``b.a.io:80/x`` is as the operator has it."""
    if scope == outer or scope.startswith(f"{outer}/"):
        return True
    host = scope.partition(":" if ":" in scope else "/")[0]
    return outer.startswith("*.") and host.endswith(outer[1:]) and "/" not in host


def _ordered(source: str, lists: Iterable[list[str]]) -> list[str]:
    """The mirrors of all lists, each before those that follow it in a list, as far as that can be; equals by name.

    The source itself counts as the last one of a list that does not have it.
    """
    following: dict[str, set[str]] = {}
    preceding: dict[str, set[str]] = {}
    for mirrors in lists:
        for first, second in pairwise(mirrors if source in mirrors else [*mirrors, source]):
            for name in (first, second):
                following.setdefault(name, set())
                preceding.setdefault(name, set())
            following[first].add(second)
            preceding[second].add(first)
    left = sorted(preceding)
    ready = [name for name in left if not preceding[name]]
    ordered: dict[str, None] = {}
    while ready or left:
        # With nothing before it; where there is a loop, the first by name breaks it.
        name = (ready or left).pop(0)
        if name in ordered:
            continue
        ordered[name] = None
        for other in following[name]:
            preceding[other].discard(name)
        ready += sorted(other for other in following[name] if not preceding[other] and other not in ordered)
    found = list(ordered)
    return found[:-1] if found[-1] == source else found


def _dumps(search: Iterable[str], tables: dict[str, _Table]) -> bytes:
    lines = [f"unqualified-search-registries = [{', '.join(map(_quoted, search))}]"]
    for scope, table in tables.items():
        lines += ["", "[[registry]]", f"{'prefix' if scope.startswith('*.') else 'location'} = {_quoted(scope)}"]
        lines += [f"{name} = true" for name in ("insecure", "blocked") if getattr(table, name)]
        for mirror in table.mirrors:
            lines += ["[[registry.mirror]]", f"location = {_quoted(mirror.location)}"]
            lines += ["insecure = true"] if mirror.insecure else []
            lines.append(f"pull-from-mirror = {_quoted(mirror.wanted)}")
    return "\n".join([*lines, ""]).encode("utf-8", "replace")


def _quoted(value: str) -> str:
    """As a basic string of TOML, which JSON's are but for this one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
