"""matchImages: for which images the kubelet runs a provider, which patterns it refuses, where two overlap.

Follows the kubelet's pkg/credentialprovider (ParseSchemelessURL, URLsMatch): a pattern is cut into labels, names one
port, and its path is a plain prefix of text.

>>> matches("*.corp.example", "hub.corp.example/team/app"), matches("*.corp.example", "a.hub.corp.example/team/app")
(True, False)
"""

from __future__ import annotations

import fnmatch
import re
from typing import NamedTuple

from ..errors import masked
from ..images import reference

DOCKER_HUB = "docker.io"
"""Where the kubelet takes a short name to lie."""


class Pattern(NamedTuple):
    """A pattern or an image, as the kubelet cuts it: the host's labels, the port ("" for none), the path."""

    labels: tuple[str, ...]
    port: str
    path: str


def split(text: str) -> Pattern:
    """Cuts a pattern or a repository name; the path begins with its slash, and is "" where there is none."""
    host, slash, path = text.partition("/")
    name, colon, port = host.rpartition(":")
    if not colon:
        name, port = host, ""
    return Pattern(tuple(name.split(".")), port, slash + path)


def matches(pattern: str, image: str) -> bool:
    """Whether the kubelet runs a provider with this pattern for an image.

    Args:
        image: the repository with its registry, without tag and digest (``docker.io/library/nginx``).
    """
    glob, target = split(pattern), split(image)
    return (
        glob.port == target.port
        and len(glob.labels) == len(target.labels)
        and target.path.startswith(glob.path)
        and all(_matches_label(part, label) for part, label in zip(glob.labels, target.labels, strict=True))
    )


def _matches_label(glob: str, label: str) -> bool:
    # filepath.Match spells a negated set [^...], fnmatch [!...].
    return fnmatch.fnmatchcase(label, glob.replace("[^", "[!"))


def covers(pattern: str, other: str) -> bool:
    """Whether one pattern matches all that another one matches, as far as can be told by their text."""
    wide, narrow = split(pattern), split(other)
    return (
        wide.port == narrow.port
        and len(wide.labels) == len(narrow.labels)
        and narrow.path.startswith(wide.path)
        and all(a in (b, "*") for a, b in zip(wide.labels, narrow.labels, strict=True))
    )


def overlap(pattern: str, other: str) -> bool:
    """Whether an image may exist that both patterns match."""
    one, two = split(pattern), split(other)
    return (
        one.port == two.port
        and len(one.labels) == len(two.labels)
        and (one.path.startswith(two.path) or two.path.startswith(one.path))
        and all(_labels_meet(a, b) for a, b in zip(one.labels, two.labels, strict=True))
    )


def _labels_meet(one: str, two: str) -> bool:
    """Whether a label exists that both globs match; a set in brackets counts as any character."""
    if not _is_glob(one) or not _is_glob(two):
        return _matches_label(one, two) if _is_glob(one) else _matches_label(two, one)
    # States (i, j): the rests one[i:] and two[j:] are still to be met.
    seen, left = set(), [(0, 0)]
    first, second = _units(one), _units(two)
    while left:
        i, j = left.pop()
        if (i, j) in seen:
            continue
        seen.add((i, j))
        if i == len(first) and j == len(second):
            return True
        a, b = first[i : i + 1], second[j : j + 1]
        if a == ["*"]:
            left += [(i + 1, j), *([(i, j + 1)] if b else [])]
        elif b == ["*"]:
            left += [(i, j + 1), *([(i + 1, j)] if a else [])]
        elif a and b and (a == b or "?" in (a[0], b[0])):
            left.append((i + 1, j + 1))
    return False


def _is_glob(label: str) -> bool:
    return any(c in label for c in "*?[\\")


def _units(glob: str) -> list[str]:
    """Characters, with ``?`` for a set."""
    units, rest = [], glob
    while rest:
        if rest[0] == "[" and "]" in rest[2:]:
            units.append("?")
            rest = rest[rest.index("]", 2) + 1 :]
        else:
            units.append(rest[0])
            rest = rest[1:]
    return units


def why_dead(pattern: str) -> str:
    """Why a pattern matches no image at all, in one clause; "" where it may match one.

    The kubelet itself refuses hardly any: a pattern that cannot match is a fault that goes unnoticed.
    """
    if "://" in pattern:
        return "a pattern has no scheme"
    if any(c.isspace() for c in pattern) or not pattern:
        return "an image name has no space"
    host, slash, path = pattern.partition("/")
    if any(c in path for c in "*?[\\"):
        return "a path has no wildcards: * is taken literally"
    if "@" in path or ":" in path:
        return "the kubelet matches names without tag and digest"
    if host == "index.docker.io":
        return f"the kubelet names it {DOCKER_HUB}"
    if slash and path.lower() != path:
        return "a repository is lower case"
    name, colon, port = host.rpartition(":")
    if colon and not (port.isascii() and port.isdigit()):
        return "a port is a number, not a pattern"
    if not reference.is_registry_host(host) and not (_is_glob(host) and not colon):
        return f"the kubelet reads an image whose first part has no dot and no port as one of {DOCKER_HUB}"
    return _why_no_host(name if colon else host)


def _why_no_host(host: str) -> str:
    for label in host.split("."):
        if not label:
            return "its host has an empty label"
        if not _is_glob(label) and not reference.is_domain(label):
            return f"{masked(label)!r} is not valid in a host name"
    return ""


_HOST = re.compile(r"(?:[A-Za-z0-9!$&'()*+,;=:\[\]<>\"._~-]|%[0-9A-Fa-f]{2}|[^\x00-\x7f])*$")
_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def effective_pattern(pattern: str) -> str:
    """What the kubelet looks at of a pattern: a query and a fragment are cut off, as of a URL."""
    return pattern.partition("#")[0].partition("?")[0]


def pattern_fault(pattern: str) -> str:
    """Why the kubelet refuses a pattern of matchImages; "" where it takes it.

    It puts https:// before it and parses that as Go parses URLs (ParseSchemelessURL): much that can match nothing is
    taken, ``https://docker.io`` for one, whose host is then ``https:``.
    """
    if any(character < " " or character == "\x7f" for character in pattern):
        return "it has a control character"
    authority, _, path = effective_pattern(pattern).partition("/")
    host = authority.rpartition("@")[2]
    if host.startswith("[") and "]" not in host:
        return "its host has an unclosed bracket"
    port = host.rpartition("]" if host.startswith("[") else ":")[2] if ":" in host else ""
    if not re.fullmatch(r":?[0-9]*", port):
        return "its port is not a number"
    if not _HOST.match(host):
        return "its host has an invalid character"
    return "it has a % without two digits" if _ESCAPE.search(path) else ""
