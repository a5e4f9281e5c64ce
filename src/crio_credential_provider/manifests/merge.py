"""Our entry put into an existing CredentialProviderConfig.

PyYAML reads the file as the kubelet does (YAML 1.1), and its value is what is compared. Where our entry has a place of
its own in the text, that alone is written (``splice``). Else ruamel.yaml writes the file: values, comments, order,
quotes and anchors stay, white space may not. JSON is written as JSON. The result is read again: where it is not what
was meant, or a comment is missing, the file is refused and left to a person.

    merged = merge(text, Wanted(kubernetes=(1, 34), match_images=("docker.io",)), name="/etc/kubernetes/cpc.yaml")
    merged.text, merged.changes, merged.overlaps
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from ..errors import ConfigError
from ..kubernetes import imagepatterns
from ..kubernetes.credentialproviderconfig import API_VERSION, CACHE_TYPE_SINCE, ENTRY_KEYS, KIND, NAME, ROOT_KEYS
from . import configfile, layout, providerconfig
from .configfile import Source
from .providerconfig import Wanted


class Overlap(NamedTuple):
    """Another provider that the kubelet runs for the same images: its name, its pattern, ours."""

    provider: str
    pattern: str
    ours: str


class Merged(NamedTuple):
    """A file with our entry in it.

    Attributes:
        text: the whole file; the very text that was given where nothing had to change.
        changes: what was changed, one sentence each; none where the entry was as it ought to be.
        overlaps: other providers whose matchImages meet ours.
        notes: what else the kubelet will not take, in parts that are not ours and were not touched.
    """

    text: str
    changes: tuple[str, ...]
    overlaps: tuple[Overlap, ...]
    notes: tuple[str, ...]


def merge(
    text: str,
    wanted: Wanted,
    *,
    name: str = "the CredentialProviderConfig",
    without: Collection[str] = (),
    doubles: Collection[str] = (),
) -> Merged:
    """Adds our entry to a CredentialProviderConfig, or brings it up to date.

    Args:
        text: YAML or JSON; what is empty or holds comments alone becomes a file with our entry only.
        wanted: what the entry is to say.
        name: what the file is called in errors.
        without: patterns to take out of our matchImages.
        doubles: names of other providers that write the same auth files: one that matches the same images goes, and
            ours gets its patterns.

    Raises:
        ConfigError: the text is not a CredentialProviderConfig, or one that the kubelet cannot read either; names the
            line where there is one. Or the entry would match nothing.
        UsageError: the entry would be one that the plugin refuses.
    """
    source = configfile.read(text, name)
    if source.is_empty:
        return Merged(_with_our_entry_only(text, wanted, name), (f"added the provider {NAME}",), (), ())
    source.check(name)
    target, changes = _target(source.data, wanted, without)
    gone = {overlap.provider for overlap in _overlaps(target["providers"], _ours(target))} & {*doubles}
    if gone:
        wanted = _with_patterns(wanted, [one for one in target["providers"] if one.get("name") in gone])
        target, changes = _target(source.data, wanted, without)
    notes = tuple(_notes(source.data, wanted))
    if changes:
        text = _rewrite(text, source, target, name)
    for provider in sorted(gone):
        text, target = _removed(text, provider, name)
        changes += (f"removed the provider {provider}",)
    return Merged(text, changes, tuple(_overlaps(target["providers"], _ours(target))), notes)


def _ours(target: dict[str, Any]) -> dict[str, Any]:
    return next(provider for provider in target["providers"] if provider.get("name") == NAME)


def _with_patterns(wanted: Wanted, providers: list[dict[str, Any]]) -> Wanted:
    """With what other providers match as well."""
    made = [*wanted.match_images]
    for pattern in (pattern for provider in providers for pattern in provider["matchImages"]):
        is_alive = isinstance(pattern, str) and not imagepatterns.why_dead(pattern)
        if is_alive and not any(imagepatterns.covers(mine, pattern) for mine in made):
            made.append(pattern)
    return wanted._replace(match_images=tuple(made))


def _removed(text: str, provider: str, name: str) -> tuple[str, dict[str, Any]]:
    """The text without another provider and the comments in it, and what it says then."""
    from . import splice

    source = configfile.read(text, name)
    place = next(i for i, entry in enumerate(source.data["providers"]) if entry.get("name") == provider)
    target = {**source.data, "providers": [one for i, one in enumerate(source.data["providers"]) if i != place]}
    if source.is_json:
        made: str | None = _as_json(source.text, target, name)
    else:
        made = None if "\t" in text else splice.without(source, place)
    try:
        is_meant = made is not None and configfile.read(made, name).data == target
    except ConfigError:
        # An anchor of it is used elsewhere.
        is_meant = False
    if made is None or not is_meant:
        raise ConfigError(
            f"{name}: the provider {provider} cannot be removed safely",
            f"remove it by hand: it writes the same auth files as {NAME}",
        )
    return _with_its_marks(text, made), target


def _target(data: dict[str, Any], wanted: Wanted, without: Collection[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The file's content as it is to be, and what that changes."""
    target = dict(data)
    changes: tuple[str, ...] = ()
    if data["apiVersion"] != API_VERSION:
        target["apiVersion"] = API_VERSION
        changes += (
            f"apiVersion: changed from {data['apiVersion']} to {API_VERSION}, the only one with tokenAttributes",
        )
    providers = list(data.get("providers") or ())
    place = next((i for i, provider in enumerate(providers) if provider.get("name") == NAME), None)
    if place is None:
        providers.append(providerconfig.new_entry(wanted))
        changes += (f"added the provider {NAME}",)
    else:
        providers[place], updates = providerconfig.update_entry(providers[place], wanted, without)
        changes += updates
    target["providers"] = providers
    return target, changes


# -- what is told -----------------------------------------------------------------------------------------------------


def _overlaps(providers: list[dict[str, Any]], ours: dict[str, Any]) -> Iterator[Overlap]:
    for provider in providers:
        patterns = provider.get("matchImages")
        if provider.get("name") == NAME or not isinstance(patterns, list):
            continue
        for pattern in patterns:
            for mine in ours["matchImages"]:
                if isinstance(pattern, str) and imagepatterns.overlap(pattern, mine):
                    yield Overlap(str(provider.get("name")), pattern, mine)


def _notes(data: dict[str, Any], wanted: Wanted) -> Iterator[str]:
    """Faults of other parts for which this kubelet would not start."""
    for key in data:
        if key not in ROOT_KEYS:
            yield f"unknown key {key} at the top, with which the kubelet does not start"
    names = [provider.get("name") for provider in data.get("providers") or ()]
    for number, provider in enumerate(data.get("providers") or (), 1):
        label = str(provider.get("name") or f"number {number}")
        if provider.get("name") == NAME:
            continue
        if names.index(provider.get("name")) < number - 1:
            yield f"duplicate provider {label}, with which the kubelet does not start"
        attributes = provider.get("tokenAttributes")
        for key in provider:
            if key not in ENTRY_KEYS:
                yield f"the provider {label} has the key {key}, with which the kubelet does not start"
        if isinstance(attributes, dict) and ("cacheType" in attributes) != (wanted.kubernetes >= CACHE_TYPE_SINCE):
            verb = "has a" if "cacheType" in attributes else "lacks the"
            yield f"the provider {label} {verb} cacheType, with which this kubelet does not start"


# -- writing ----------------------------------------------------------------------------------------------------------


def _with_our_entry_only(text: str, wanted: Wanted, name: str) -> str:
    """A document after comments, or as the first thing of the file."""
    value = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "providers": [providerconfig.new_entry(wanted)],
    }
    newline = _newline(text)
    head = text if text.strip() else ""
    if head and not head.endswith("\n"):
        head += newline
    made = head + layout.dumps(value).replace("\n", newline)
    if configfile.read(made, name).data != value:
        raise _too_odd(name, "our entry would not be all that it holds")
    return made


def _newline(text: str) -> str:
    return "\r\n" if text.find("\n") > 0 and text[text.find("\n") - 1] == "\r" else "\n"


def _rewrite(text: str, source: Source, target: dict[str, Any], name: str) -> str:
    made = _spliced(text, source, target, name)
    if made is None:
        made = _as_json(source.text, target, name) if source.is_json else _as_yaml(source, target, name)
    if configfile.read(made, name).data != target:
        raise _too_odd(name, "an anchor or another entry's values would change")
    return _with_its_marks(text, made)


def _with_its_marks(text: str, made: str) -> str:
    """Byte order mark and ends of lines as in another text."""
    return ("\ufeff" if text.startswith("\ufeff") else "") + made.replace("\n", _newline(text))


def _spliced(text: str, source: Source, target: dict[str, Any], name: str) -> str | None:
    """With every byte outside our entry as it was; None where that cannot be had."""
    from ruamel.yaml.error import YAMLError

    from . import splice

    if any(target[key] != value for key, value in source.data.items() if key != "providers"):
        return None
    if not source.is_json and "\t" in text:
        # Where the kubelet's parser takes them and others do not they are written as blanks.
        return None
    place = next(i for i, provider in enumerate(target["providers"]) if provider.get("name") == NAME)
    try:
        made = splice.spliced(source, target["providers"], place)
        read = None if made is None else configfile.read(made, name)
    except (YAMLError, LookupError, RecursionError, ConfigError):
        return None
    if read is None or read.data != target:
        return None
    return made if source.is_json or not source.comments() - read.comments() else None


def _too_odd(name: str, why: str) -> ConfigError:
    return ConfigError(
        f"the layout of {name} cannot be edited safely: {why}",
        "add the output of `manifests config` by hand",
    )


def _as_json(text: str, target: dict[str, Any], name: str) -> str:
    """With the file's indentation."""
    second = text.lstrip().partition("\n")[2]
    indent = second[: len(second) - len(second.lstrip(" \t"))] if second else None
    try:
        made = json.dumps(target, indent=indent, ensure_ascii=text.isascii(), allow_nan=False)
    except ValueError:
        raise _too_odd(name, "it holds a number that JSON cannot have") from None
    return made + text[len(text.rstrip()) :]


def _as_yaml(source: Source, target: dict[str, Any], name: str) -> str:
    # Here, since it takes 60 ms to load and most runs change nothing.
    from ruamel.yaml.error import YAMLError

    from . import commentedyaml

    place = next(i for i, provider in enumerate(target["providers"]) if provider.get("name") == NAME)
    had = source.comments()

    def rewrite(heading: Counter[str]) -> tuple[str, Counter[str]]:
        above = ("providers", place), list(heading.elements())
        made = commentedyaml.rewrite(source.text, source.data, target, above)
        return made, had - configfile.read(made, name).comments()

    try:
        made, lost = rewrite(Counter())
        if lost and lost <= source.comments(source.lines_of_provider(place)):
            # Of what went from our entry.
            made, lost = rewrite(lost)
    except (YAMLError, LookupError, RecursionError, ConfigError):
        raise _too_odd(name, "it holds what ruamel.yaml cannot write") from None
    if lost:
        raise _too_odd(name, f"the comment {min(lost)[:80]!r} would be lost")
    return made
