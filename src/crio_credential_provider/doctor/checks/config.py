"""The CredentialProviderConfig: what the kubelet refuses, and what it takes although it cannot work."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from ... import settings
from ...errors import ConfigError, masked
from ...kubernetes import endpoint, imagepatterns
from ...kubernetes.credentialproviderconfig import CACHE_TYPE_SINCE, FIRST, NAME, duration
from ...kubernetes.imagepatterns import effective_pattern, pattern_fault
from ...node.commandline import Origin
from ...node.facts import Node, variables
from ...node.located import toml_value_line
from ...node.providerconfig import Provider, dotted, is_nearly_ours
from ...settings import CONTAINERD
from .. import mirrored
from ..catalogue import NOTE, WARNING
from ..correction import CORRECTED, CURRENT
from ..finding import Evidence, Examined, Finding, Results, Unexamined, at, find
from .kubelet import restart

_GLOBS = frozenset("*?[")
_MOST_TOLD = 10
KUBELET_PATIENCE = 60.0
"""Seconds after which the kubelet kills the plugin."""
_BRIEF = 5.0
"""Seconds in which no second pull of an image comes."""


def check_config(node: Node) -> Results:
    """The file itself."""
    if not node.config_path:
        why = "no kubelet was found" if node.kubelet is None else "the kubelet has none configured"
        yield Unexamined("the CredentialProviderConfig, and matchImages in it", why)
        return
    if node.config is None:
        yield from _unreadable(node)
        return
    if node.config.refusals:
        first, *others = (at(refusal.origin, refusal.reason) for refusal in node.config.refusals)
        remedy = f"correct {first.file}:{first.line}: {CORRECTED}; then: {restart(node.kubelet)}"
        if node.config.is_whole and not any(isinstance(d.value, dict) for d in node.config.documents):
            remedy = "check that this is the CredentialProviderConfig; crio-credential-provider manifests prints one"
        yield find("config-refused", first, *others[:_MOST_TOLD], remedy=remedy)
    else:
        yield Examined(f"the CredentialProviderConfig {node.config_path}")
    # An entry may stand in what could not be parsed, and where there are no providers at all that is told.
    if node.entry is None and node.config.providers and node.config.is_whole:
        names = ", ".join(repr(provider.name) for provider in node.config.providers) or "none"
        evidence = [at(node.config.origin, f"its providers: {names}")]
        text = "a second YAML document begins here, which the kubelet does not read"
        evidence[:0] = [
            at(document.file, text, document.second) for document in node.config.documents if document.second
        ]
        yield find(
            "provider-missing",
            *evidence,
            remedy=f"add the entry, which crio-credential-provider manifests prints: {CORRECTED}",
        )


def _unreadable(node: Node) -> Results:
    error = node.config_error
    if error is None:
        return
    if not error.missing:
        yield Unexamined(f"the CredentialProviderConfig {node.config_path}", error.reason)
        return
    flag = node.kubelet.flag("image-credential-provider-config") if node.kubelet else None
    origin = flag.origin if flag else Origin("--config")
    evidence = at(origin, f"{node.config_path}: no such file")
    remedy = f"create {node.config_path}: crio-credential-provider manifests prints one; or correct the flag"
    yield find("config-missing", evidence, remedy=remedy)


def check_entry(node: Node) -> Results:
    """The entry of the plugin, but for matchImages."""
    entry = node.entry
    if entry is None:
        return
    yield from _name(node, entry)
    yield from _cache_duration(entry)
    yield from _token_attributes(node, entry)
    yield from _arguments(node, entry)


def _name(node: Node, entry: Provider) -> Results:
    """A slip in the program's name, where the bin directory that would tell is not known."""
    if is_nearly_ours(entry.name) and not node.bin_dir:
        text = f"the kubelet runs BIN_DIR/{entry.name}; did you mean {NAME}?"
        remedy = f"name: {NAME}, unless the program is installed as {entry.name}"
        yield find("provider-name-doubtful", at(entry.origin("name"), text), remedy=remedy)


def _cache_duration(entry: Provider) -> Results:
    given = entry.value.get("defaultCacheDuration")
    if (duration(given) or 0) > 0:
        evidence = at(entry.origin("defaultCacheDuration"), f"defaultCacheDuration: {given}")
        severity = NOTE if (duration(given) or 0) <= _BRIEF else ""
        remedy = f"defaultCacheDuration: 0s   ({CORRECTED})"
        yield find("default-cache-duration", evidence, remedy=remedy, severity=severity)


def _token_attributes(node: Node, entry: Provider) -> Results:
    attributes = entry.token_attributes
    if attributes is None:
        if entry.value.get("tokenAttributes") is None:
            evidence = at(entry.origin(), f"the entry {entry.name!r} has no tokenAttributes")
            keys = "serviceAccountTokenAudience, cacheType and requireServiceAccount"
            remedy = f"add tokenAttributes with {keys}: {CORRECTED}"
            yield find("token-attributes-missing", evidence, remedy=remedy)
        return
    yield from _cache_type(node, entry, attributes.get("cacheType"))
    # With required annotations the kubelet refuses it, which is told.
    if attributes.get("requireServiceAccount") is False and not attributes.get("requiredServiceAccountAnnotationKeys"):
        evidence = at(entry.origin("tokenAttributes", "requireServiceAccount"), "requireServiceAccount: false")
        yield find("require-service-account", evidence, remedy="requireServiceAccount: true")


def _cache_type(node: Node, entry: Provider, cache_type: object) -> Results:
    minor = node.minor
    origin = entry.origin("tokenAttributes", "cacheType")
    if cache_type is None:
        if node.version_unknown and minor is None:
            text = f"no cacheType, and {node.version_unknown}: assumed to be {dotted(CURRENT)} or newer"
            evidence = at(origin, text)
            remedy = f"cacheType: Token   ({CORRECTED}); for a kubelet of 1.33: --kubernetes 1.33"
            yield find("cache-type-missing", evidence, remedy=remedy, severity=WARNING)
        elif minor is not None and minor >= CACHE_TYPE_SINCE:
            evidence = at(origin, f"no cacheType, and the kubelet is {dotted(minor)}")
            yield find("cache-type-missing", evidence, remedy=f"cacheType: Token   ({CORRECTED})")
    elif minor is not None and FIRST <= minor < CACHE_TYPE_SINCE:
        evidence = at(origin, f"cacheType: {cache_type}, and the kubelet is {dotted(minor)}")
        yield find("cache-type-unknown", evidence, remedy=f"remove the line   ({CORRECTED})")
    elif cache_type == "ServiceAccount":
        evidence = at(origin, "cacheType: ServiceAccount")
        yield find("cache-type-service-account", evidence, remedy=f"cacheType: Token   ({CORRECTED})")


def _arguments(node: Node, entry: Provider) -> Results:
    if node.refused is not None:
        origin = _origin_of_argument(node, entry, node.refused.message)
        what = "remove it from" if "cannot be used with" in node.refused.message else "correct"
        remedy = f"{what} {origin}: {CORRECTED}; then: {restart(node.kubelet)}"
        yield find("plugin-arguments-refused", at(origin, str(node.refused)), remedy=remedy)
    yield from _doubtful_arguments(node, entry)
    for name in settings.unknown_variables(variables(node.kubelet, entry)):
        origin = _origin_of_argument(node, entry, name)
        close = difflib.get_close_matches(name, [flag.variable for flag in settings.FLAGS], 1, 0.8)
        evidence = at(
            origin, f"{name}: unknown environment variable" + (f"; did you mean {close[0]}?" if close else "")
        )
        remedy = f"write {close[0]} in {origin}" if close else f"remove it from {origin}; --help lists the flags"
        yield find("plugin-variable-unknown", evidence, remedy=f"{remedy}, then: {restart(node.kubelet)}")


def _doubtful_arguments(node: Node, entry: Provider) -> Results:
    """Those that the plugin takes, and that do not do what they are for."""
    chosen = node.settings
    if chosen is None:
        return
    if chosen.insecure_skip_tls_verify:
        origin = _origin_of_flag(node, entry, "--insecure-skip-tls-verify")
        remedy = f"remove it, and give the cluster's CA with --certificate-authority=FILE if needed: {origin}"
        yield find("apiserver-not-verified", at(origin, "--insecure-skip-tls-verify"), remedy=remedy)
    try:
        if chosen.apiserver:
            endpoint.find_endpoint(chosen)
    except ConfigError as error:
        evidence = at(_origin_of_flag(node, entry, "--apiserver"), str(error))
        remedy = "--apiserver=https://HOST:6443, or remove it: the kubelet's kubeconfig names the API server as well"
        yield find("plugin-arguments-refused", evidence, remedy=remedy)
    longest = chosen.deadline + (0 if node.pulls_with == CONTAINERD else chosen.hand_off_timeout)
    if longest >= KUBELET_PATIENCE:
        origin = entry.origin_of_flag("--deadline") or _origin_of_flag(node, entry, "--hand-off-timeout")
        text = f"--deadline {chosen.deadline:g}s and --hand-off-timeout {chosen.hand_off_timeout:g}s: {longest:g} s"
        remedy = (
            f"two that add up to less than {KUBELET_PATIENCE:g}s, such as --deadline=20s and --hand-off-timeout=30s"
        )
        yield find("plugin-times-too-long", at(origin, text), remedy=remedy)
    given = [text for text, _ in entry.arguments], variables(node.kubelet, entry)
    if root := settings.loads(*given).root:
        evidence = at(_origin_of_flag(node, entry, "--root"), f"--root={root}")
        yield find("plugin-root", evidence, remedy=f"remove it, then: {restart(node.kubelet)}")
    if not mirrored.is_known(node):
        return
    for place in chosen.mirror_registry:
        leads = any(_lies_along(place, location) for location in mirror_locations(node))
        if not leads and not any(imagepatterns.overlap(text, place) for text, _ in entry.patterns):
            origin = next((at_ for text, at_ in entry.arguments if place in text), entry.origin("args"))
            mirrors = ", ".join(sorted({masked(place) for place in mirror_locations(node)})[:3]) or "none"
            evidence = at(origin, f"--mirror-registry {place}: no mirror is at or below it (mirrors: {mirrors})")
            yield find("mirror-registry-unmatched", evidence, remedy="set it to the mirror, or remove the argument")


def _lies_along(one: str, other: str) -> bool:
    """Whether one place lies at or below the other, either way."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def _origin_of_argument(node: Node, entry: Provider, message: str) -> Origin:
    """The line of the argument or variable that a complaint names; of several the first."""
    named = re.match(r"--[\w-]+", message)
    if named and (found := entry.origin_of_flag(named[0])):
        return found
    for text, origin in entry.arguments:
        flag = text.partition("=")[0]
        if re.search(rf"{re.escape(flag)}(?![\w-])", message):
            return origin
    for position, pair in enumerate(entry.value.get("env") or ()):
        if isinstance(pair, dict) and str(pair.get("name")) in message:
            return entry.origin("env", position, "name" if message in entry.environment else "value")
    inherited = message.partition(":")[0] in (node.kubelet.environment if node.kubelet else ())
    return node.kubelet.start if node.kubelet and inherited else entry.origin("args")


def _origin_of_flag(node: Node, entry: Provider, flag: str) -> Origin:
    """Where the plugin is given a flag, be it by the kubelet's environment."""
    return entry.origin_of_flag(flag) or _origin_of_argument(node, entry, settings.FLAGS_BY_NAME[flag[2:]].variable)


# -- matchImages ------------------------------------------------------------------------------------------------------


def check_match_images(node: Node) -> Results:
    """The patterns, against registries.conf and against the other providers."""
    entry = node.entry
    if entry is None:
        return
    for text, origin in entry.patterns:
        if not _GLOBS.isdisjoint(text.partition("/")[2]):
            is_mirror = text in [pattern for pattern, _, _ in mirror_patterns(node)]
            bare = _mirrored(node, entry, text)[0] if is_mirror else bare_pattern(text)
            evidence = at(origin, f"{text!r}: in a path * is taken literally")
            yield find("match-images-glob-path", evidence, remedy=f"- {bare}   ({CORRECTED})")
    what = f"matchImages against {mirrored.files(node)}"
    if not entry.patterns:
        yield Unexamined(what, "there are none")
    elif not mirrored.is_known(node):
        yield Unexamined(what, f"{mirrored.files(node)} cannot be used")
    else:
        yield from _against_mirrors(node, entry)
    yield from _overlaps(node, entry)


def bare_pattern(pattern: str) -> str:
    """A pattern without the part of its path that holds a glob."""
    host, *path = pattern.split("/")
    globs = [at for at, part in enumerate(path) if not _GLOBS.isdisjoint(part)]
    return "/".join((host, *path[: globs[0]])) if globs else pattern


def mirror_patterns(node: Node) -> list[tuple[str, Origin, str]]:
    """Patterns that name a mirror and no registry that pods name: text, place, location of the mirror."""
    entry = node.entry
    if entry is None or not mirrored.is_known(node):
        return []
    wanted = mirrored.derive(node).patterns
    serves = [text for text, _ in entry.patterns if any(_meets(text, need) for need in wanted)]
    allowed = node.settings.mirror_registry if node.settings else ()
    found = []
    for text, origin in entry.patterns:
        host = bare_pattern(text).partition("/")[0]
        bare = bare_pattern(effective_pattern(text))
        location = next((place for place in mirror_locations(node) if imagepatterns.overlap(bare, place)), "")
        # Pods may name a mirror themselves: then --mirror-registry says so, beside patterns for what it mirrors.
        named = serves and any(imagepatterns.overlap(host, place.partition("/")[0]) for place in allowed)
        # Where every registry that it mirrors is matched as well, it is one that pods name.
        others = [other for other, _ in entry.patterns if other != text]
        served = all(any(_meets(other, prefix) for other in others) for prefix in _mirrored_by(node, text))
        if location and not named and not served and not any(_meets(bare_pattern(text), need) for need in wanted):
            found.append((text, origin, location))
    return found


def _meets(pattern: str, need: str) -> bool:
    """Whether a pattern matches images that another one, made of a table's prefix, matches."""
    pattern = effective_pattern(pattern)
    return _GLOBS.isdisjoint(pattern.partition("/")[2]) and imagepatterns.overlap(pattern, need)


def mirror_locations(node: Node) -> list[str]:
    """The mirrors of all tables that are not blocked."""
    return [place for table in mirrored.tables(node) if not table.blocked for place in table.places]


def _against_mirrors(node: Node, entry: Provider) -> Results:
    stand_ins: set[str] = set()
    for text, origin, location in mirror_patterns(node):
        prefixes = _mirrored(node, entry, text)
        named = ", ".join(prefixes[:3])
        evidence = at(origin, f"{text!r} is the mirror {location}; pods name {named}")
        yield find("match-images-mirror", evidence, remedy=f"- {prefixes[0]}   ({CORRECTED})")
        # One that is a glob in a path as well is not one name mistyped for another.
        stand_ins.update(prefixes if bare_pattern(text) == text else ())
    allowed = node.settings.mirror_registry if node.settings else ()
    yield from _perhaps_mirrors(node, entry, allowed)
    derived = mirrored.derive(node, allowed)
    same = [provider for provider in node.config.providers if provider.name == entry.name] if node.config else []
    patterns = [text for provider in same for text, _ in provider.patterns]
    told = [
        f"{pattern} is not matched ({reason})"
        for pattern, reason in zip(derived.patterns, derived.reasons, strict=True)
        if pattern not in stand_ins and not any(_is_meant(text, pattern) for text in patterns)
    ]
    for finding in _swapped(node, derived.patterns):
        told = [text for text in told if not text.startswith(f"{finding[0]} is not matched ")]
        yield finding[1]
    if told:
        first = at(entry.origin("matchImages"), told[0])
        others = [Evidence("", 0, text) for text in told[1:_MOST_TOLD]]
        others += [at(origin, f"{text!r} matches nothing: {why}") for text, origin, why in _dead_patterns(entry)]
        lines = "\n".join(f"- {text.split()[0]}" for text in told)
        yield find("match-images-incomplete", first, *others, remedy=f"add to matchImages ({CORRECTED}):\n{lines}")
    elif node.pulls_with == CONTAINERD:
        # Without mirrors that is told by itself.
        yield Examined(f"{_MATCHED} {mirrored.files(node)}: {', '.join(derived.patterns) or 'nothing to match'}")
    elif not derived.patterns and not allowed and not mirror_locations(node):
        text = f"no table of {node.registries.main} and its drop-ins has a mirror or another location"
        yield find("no-mirrors", at(node.registries.main, text), remedy="add [[registry]] tables with mirrors, if any")
    else:
        yield Examined(f"{_MATCHED} registries.conf: {', '.join(derived.patterns) or 'nothing to match'}")


_MATCHED = "matchImages against"


def _swapped(node: Node, prefixes: tuple[str, ...]) -> Iterator[tuple[str, Finding]]:
    """Tables of registries.conf that send a private registry to a public one, by their prefixes."""
    config = node.registries.config
    if config is None or node.pulls_with == CONTAINERD:
        return
    for prefix in prefixes:
        table = config.table(prefix) if prefix in config.prefixes() else None
        if table and not table.mirrors and is_swapped(prefix, table.location):
            text = node.registries.texts.get(table.file, "")
            line = toml_value_line(text, "prefix", prefix) or toml_value_line(text, "location", prefix)
            evidence = at(
                table.file, f"prefix = {prefix!r}, location = {table.location!r}: pods would name {prefix}", line
            )
            remedy = f'if {prefix} is a mirror, swap the two: prefix = "{table.location}", location = "{prefix}"'
            yield prefix, find("registries-table-swapped", evidence, remedy=f"{remedy}; then: systemctl reload crio")


_PUBLIC = ("docker.io", "quay.io", "ghcr.io", "gcr.io", "registry.k8s.io", "k8s.gcr.io", "mcr.microsoft.com")


def is_swapped(prefix: str, location: str) -> bool:
    """Whether a private registry is sent to a public one: the other way round it makes sense."""
    return _is_public(location) and not _is_public(prefix)


def _is_public(name: str) -> bool:
    return name.partition("/")[0] in (*_PUBLIC, "public.ecr.aws", "registry.access.redhat.com", "registry.redhat.io")


def _perhaps_mirrors(node: Node, entry: Provider, allowed: tuple[str, ...]) -> Results:
    """Patterns that name a place of --mirror-registry, where registries.conf knows no mirror that would tell more."""
    if mirror_locations(node):
        return
    for text, origin in entry.patterns:
        place = next((place for place in allowed if imagepatterns.overlap(bare_pattern(text), place)), "")
        if place:
            told = f"{text!r} is in --mirror-registry, and {node.registries.main} sends nothing there"
            remedy = (
                "if it is a mirror, write the registries that pods name, such as docker.io; with --registries-conf "
                "FILE doctor uses the node's own file"
            )
            # On a node that is what counts, and pods may name the place themselves.
            severity = WARNING if node.given.config else NOTE
            yield find("match-images-mirror", at(origin, told), remedy=remedy, severity=severity)


def _mirrored(node: Node, entry: Provider, pattern: str) -> list[str]:
    """The registries whose mirrors a pattern names: those that nothing else matches, where there are such."""
    found = _mirrored_by(node, pattern)
    return [p for p in found if not any(_meets(text, p) for text, _ in entry.patterns)] or found


def _mirrored_by(node: Node, pattern: str) -> list[str]:
    """The prefixes of the tables that have a mirror which a pattern names."""
    bare = bare_pattern(effective_pattern(pattern))
    tables = mirrored.tables(node)
    return sorted(t.prefix for t in tables if any(imagepatterns.overlap(bare, place) for place in t.places))


def _dead_patterns(entry: Provider) -> list[tuple[str, Origin, str]]:
    """Patterns that the kubelet takes and that match no image, told by nothing else: text, place, reason."""
    found = [(text, place, imagepatterns.why_dead(effective_pattern(text))) for text, place in entry.patterns]
    return [(text, place, why) for text, place, why in found if why and bare_pattern(text) == text]


def _is_meant(pattern: str, need: str) -> bool:
    """Whether a pattern matches, or would but for a fault of its own that is told: a glob in its path, a blank, or a
    port that is not a number."""
    pattern = bare_pattern(effective_pattern(pattern))
    if pattern_fault(pattern):
        pattern, need = pattern.strip().partition("/")[0].partition(":")[0], need.partition("/")[0].partition(":")[0]
    elif imagepatterns.why_dead(pattern):
        return False
    return imagepatterns.overlap(pattern, need)


def _overlaps(node: Node, entry: Provider) -> Results:
    for other in node.config.providers if node.config else ():
        # Two of one name are told by the kubelet's refusal.
        if other.name == entry.name:
            continue
        for theirs, place in other.patterns:
            mine = next(((text, at_) for text, at_ in entry.patterns if imagepatterns.overlap(text, theirs)), None)
            if mine is None:
                continue
            text = f"{mine[0]!r} and {theirs!r} of the provider {other.name!r} match the same images"
            evidence = at(mine[1], text), at(place, f"the provider {other.name!r}")
            remedy = "narrow one of the two, unless this is intended"
            yield find("match-images-overlap", *evidence, remedy=remedy)
            break
