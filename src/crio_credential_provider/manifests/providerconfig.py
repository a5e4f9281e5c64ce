"""Our entry of a CredentialProviderConfig: a new one for a version of Kubernetes, or an old one brought up to date.

Follows the kubelet's types kubelet.config.k8s.io/v1 and its validation (pkg/credentialprovider/plugin/config.go), which
decode strictly: an unknown key keeps the kubelet from starting. Knows no YAML.

>>> wanted = Wanted(kubernetes=(1, 33), match_images=("docker.io",))
>>> new_entry(wanted)["tokenAttributes"]
{'serviceAccountTokenAudience': 'https://kubernetes.default.svc.cluster.local', 'requireServiceAccount': True}
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from .. import settings
from ..errors import ConfigError, UsageError, masked
from ..kubernetes import imagepatterns
from ..kubernetes.credentialproviderconfig import (
    API_VERSION,
    CACHE_TYPE_SINCE,
    ENTRY_KEYS,
    FIRST,
    KIND,
    NAME,
    PROTOCOL,
    TOKEN_KEYS,
    argument_text,
    duration,
    is_config,
    is_environment,
)
from ..node.kubelet import VERSION
from ..settings import ENVIRONMENT_PREFIX, FLAGS, FLAGS_BY_NAME

KUBEADM_AUDIENCE = "https://kubernetes.default.svc.cluster.local"
OPENSHIFT_AUDIENCE = "https://kubernetes.default.svc"


class Wanted(NamedTuple):
    """What the entry is to say. What is not given keeps the value that it has, or gets the default.

    Attributes:
        kubernetes: major and minor version.
        match_images: patterns that must be covered; others that can match stay.
        audience: of the tokens; "" for what is there, else kubeadm's.
        args: the plugin's arguments; a flag given here replaces what is there for it, the others stay.
        why_none: why there may be nothing to match, and what to do then.
    """

    kubernetes: tuple[int, int]
    match_images: tuple[str, ...]
    audience: str = ""
    args: tuple[str, ...] = ()
    why_none: tuple[str, str] = (
        "no table of registries.conf sends one to a mirror or another location",
        "give registries with --match-image, or another file with --registries-conf",
    )


def parse_version(text: str) -> tuple[int, int]:
    """``1.34``, ``v1.34.2``, ``1.33+`` or ``v1.36.0-alpha.1`` -> major and minor.

    Raises:
        UsageError: no version, or one before 1.33.
    """
    version = minor_version(text)
    if version < FIRST:
        raise UsageError(
            f"--kubernetes: the kubelet {text} passes no tokens to credential providers",
            "use 1.34 or newer, or 1.33 with a feature gate",
        )
    return version


def minor_version(text: str) -> tuple[int, int]:
    """Major and minor, however old. UsageError for what is not a version."""
    found = re.fullmatch(rf"{VERSION}(?:[-+~].*)?", text.strip(), re.ASCII)
    if not found:
        raise UsageError(f"--kubernetes: {text!r} is not a version such as 1.34")
    return int(found[1]), int(found[2])


# -- a new entry ------------------------------------------------------------------------------------------------------


def new_entry(wanted: Wanted) -> dict[str, Any]:
    """The entry in the order in which it is written.

    Raises:
        UsageError: the arguments are ones that the plugin refuses.
        ConfigError: there is nothing to match.
    """
    if not wanted.match_images:
        why, hint = wanted.why_none
        raise ConfigError(f"no image to match: {why}", hint)
    args = list(wanted.args)
    if not any(flag == "secrets-from" for flag, _ in split_args(args)):
        args.insert(0, f"--secrets-from={FLAGS_BY_NAME['secrets-from'].default}")
    settings.loads(args, {})
    return {
        "name": NAME,
        "apiVersion": PROTOCOL,
        "matchImages": list(wanted.match_images),
        "defaultCacheDuration": "0s",
        "args": args,
        "tokenAttributes": _token_attributes({}, wanted, []),
    }


# -- an old entry -----------------------------------------------------------------------------------------------------


def update_entry(
    entry: dict[str, Any], wanted: Wanted, without: Collection[str] = ()
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """An entry as it ought to be.

    Args:
        entry: as it is; not changed.
        wanted: what it is to say.
        without: patterns to take out of matchImages, whatever they match.

    Returns:
        The entry with its keys in their order, new ones last; and what was changed, one sentence each.

    Raises:
        UsageError, ConfigError: as ``new_entry``.
    """
    changes: list[str] = []
    made = {key: value for key, value in entry.items() if key in ENTRY_KEYS}
    changes += [
        f"removed {key}: unknown key, with which the kubelet does not start" for key in entry if key not in made
    ]
    _set(made, "apiVersion", PROTOCOL, changes)
    _set(made, "matchImages", _match_images(entry.get("matchImages"), wanted, without, changes), [])
    if duration(made.get("defaultCacheDuration")) != 0:
        _set(made, "defaultCacheDuration", "0s", changes)
    args = _args(entry.get("args"), wanted, changes)
    if args:
        made["args"] = args
    else:
        made.pop("args", None)
    if "env" in made and not is_environment(made["env"]):
        _set_environment(made, changes)
    had = entry.get("tokenAttributes")
    if not isinstance(had, dict):
        changes.append("added tokenAttributes: without them the kubelet passes no token")
        made["tokenAttributes"] = _token_attributes({}, wanted, [])
    else:
        made["tokenAttributes"] = _token_attributes(had, wanted, changes)
    return made, tuple(changes)


def _set(made: dict[str, Any], key: str, value: Any, changes: list[str]) -> None:
    if key not in made:
        changes.append(f"added {key}: {value}")
    elif made[key] != value or type(made[key]) is not type(value):
        changes.append(f"{key}: changed from {_shown(made[key])} to {value}")
    made[key] = value


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _match_images(had: Any, wanted: Wanted, without: Collection[str], changes: list[str]) -> list[str]:
    """Those that are there and can match, then those that are missing."""
    kept: list[str] = []
    for pattern in had if isinstance(had, list) else []:
        if not isinstance(pattern, str):
            changes.append(f"matchImages: removed {_shown(pattern)}, which is not a string")
        elif pattern in without:
            changes.append(f"matchImages: removed {pattern}")
        elif dead := imagepatterns.why_dead(pattern):
            changes.append(f"matchImages: removed {pattern}, which matches nothing: {dead}")
        else:
            kept.append(pattern)
    for pattern in wanted.match_images:
        if not any(imagepatterns.covers(other, pattern) for other in kept):
            kept.append(pattern)
            changes.append(f"matchImages: added {pattern}")
    if not kept:
        raise ConfigError("no pattern of matchImages is left that can match an image", wanted.why_none[1])
    return kept


def _set_environment(made: dict[str, Any], changes: list[str]) -> None:
    """Makes ``env`` a list of name and value where scalars alone are in the way of it; else takes it out."""
    pairs = made["env"] if isinstance(made["env"], list) else []
    texts = [{key: argument_text(value) for key, value in pair.items()} for pair in pairs if isinstance(pair, dict)]
    if len(texts) == len(pairs) > 0 and all(all(pair.values()) for pair in texts) and is_environment(texts):
        changes.append("env: values that are not strings were changed to strings")
        made["env"] = texts
        return
    if ENVIRONMENT_PREFIX in str(made["env"]):
        raise UsageError("env is not a list of name and value, and has variables of the plugin", "correct it first")
    changes.append("removed env: it is not a list of name and value")
    del made["env"]


def _token_attributes(had: dict[str, Any], wanted: Wanted, changes: list[str]) -> dict[str, Any]:
    made = {key: value for key, value in had.items() if key in TOKEN_KEYS}
    changes += [
        f"removed tokenAttributes.{key}: unknown key, with which the kubelet does not start"
        for key in had
        if key not in made
    ]
    there = made.get("serviceAccountTokenAudience")
    audience = wanted.audience or (there if isinstance(there, str) else "") or KUBEADM_AUDIENCE
    _set(made, "serviceAccountTokenAudience", audience, changes)
    if wanted.kubernetes >= CACHE_TYPE_SINCE:
        _set(made, "cacheType", "Token", changes)
    elif "cacheType" in made:
        del made["cacheType"]
        changes.append(
            "removed tokenAttributes.cacheType: unknown key for a kubelet 1.33, which does not start with it"
        )
    required = made.get("requireServiceAccount")
    if not isinstance(required, bool) or (not required and made.get("requiredServiceAccountAnnotationKeys")):
        _set(made, "requireServiceAccount", True, changes)
    return made


# -- arguments of the plugin ------------------------------------------------------------------------------------------


def split_args(args: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Arguments by flag: its name without dashes ("" if the plugin has no such flag), and its one or two words."""
    found: list[tuple[str, list[str]]] = []
    rest = list(reversed(args))
    while rest:
        word = rest.pop()
        name, equals, _ = word.removeprefix("--").partition("=")
        flag = FLAGS_BY_NAME.get(name) if word.startswith("--") else None
        words = [word]
        if flag is not None and flag.metavar and not equals and rest:
            words.append(rest.pop())
        found.append((name if flag is not None else "", words))
    return found


def _args(had: Any, wanted: Wanted, changes: list[str]) -> list[str]:
    """What is there and does no harm, with the wanted flags in the places of the old ones, or last.

    Raises:
        UsageError: an argument that says where credentials come from or go to is refused, and cannot be put right; or
            what is left cannot be used together.
    """
    texts = [text for item in had if (text := argument_text(item))] if isinstance(had, list) else []
    if had is not None and (not isinstance(had, list) or texts != had):
        changes.append("args: values that are not strings were changed to strings, or removed")
    new: dict[str, list[str]] = {}
    for flag, words in split_args(wanted.args):
        new.setdefault(flag, []).extend(words)
    made: list[str] = []
    placed: set[str] = set()
    old: dict[str, list[str]] = {}
    for flag, words in split_args(texts):
        if flag in new:
            old.setdefault(flag, []).extend(words)
            made += [] if flag in placed else new[flag]
            placed.add(flag)
        elif fault := _fault(words):
            name, meant = _meant(words)
            if meant and name not in new:
                made += meant
                was = masked(" ".join(words))
                changes.append(f"args: changed from {was} to {' '.join(meant)}, since the plugin refuses it: {fault}")
            elif name in _WHERE and name not in new:
                raise UsageError(
                    f"args: {masked(' '.join(words))} is refused by the plugin: {fault}",
                    "correct it first: without it credentials would come from or go to another place",
                )
            elif changes and changes[-1].startswith("args: removed -") and not words[0].startswith("-"):
                # Most likely its value: it cannot be known what an unknown flag takes.
                changes[-1] += "; and what follows it"
            else:
                shown = masked(" ".join(words)) if flag else words[0].partition("=")[0]
                changes.append(f"args: removed {shown}, which the plugin refuses: {fault}")
        else:
            made += words
    for flag, words in new.items():
        made += [] if flag in placed else words
        if _values(old.get(flag, [])) != _values(words):
            changes.append(
                f"args: changed from {' '.join(old[flag])} to {' '.join(words)}"
                if flag in old
                else f"args: added {' '.join(words)}"
            )
    settings.loads(made, {})
    return made


_WHERE = frozenset(flag.name for flag in FLAGS if flag.metavar.startswith(("HOST", "FILE", "DIR", "URL", "namespace")))
"""Flags that say where credentials come from and where they go: none of them is dropped."""


def _meant(words: list[str]) -> tuple[str, list[str]]:
    """The flag that was most likely meant by an argument that the plugin refuses, and the arguments that say it, none
    where nothing suggests itself: one dash, a blank for =, quotes that YAML took for text, a scheme, a list, a letter
    too many in a flag or in a word that it takes."""
    found = re.fullmatch(r"-*([\w-]+)(?:[=\s]\s*(.*))?", " ".join(words), re.DOTALL)
    if found is None:
        return "", []
    name = next(iter(difflib.get_close_matches(found[1].replace("_", "-"), FLAGS_BY_NAME, 1, 0.8)), "")
    value = (found[2] or "").strip().strip("'\"")
    flag = FLAGS_BY_NAME.get(name)
    values = [value]
    if flag is not None and "|" in flag.metavar:
        known = flag.metavar.split("|")
        values = difflib.get_close_matches(value.lower().replace("_", "-"), known, 1, 0.8) or values
    elif flag is not None and flag.repeatable:
        values = [text.partition("://")[2] or text for text in re.split(r"[,\s]+", value) if text]
    meant = [f"--{name}={text}" if text else f"--{name}" for text in values]
    return name, [] if not meant or _fault(meant) else meant


def _fault(words: list[str]) -> str:
    try:
        settings.loads(words, {})
    except UsageError as error:
        return error.message
    return ""


def _values(words: list[str]) -> list[str]:
    """The same for ``--flag value`` and ``--flag=value``."""
    return [part for word in words for part in word.split("=", 1)]


# -- the whole file ---------------------------------------------------------------------------------------------------


def check_version(api_version: Any, where: str) -> None:
    """Whether a file says that it is one of this type; ConfigError where not."""
    if not is_config(api_version):
        raise ConfigError(
            f"{where}: apiVersion is {_shown(api_version)}, not {API_VERSION}",
            f"check that this is the kubelet's {KIND}",
        )
