"""Near misses: tables that almost match an image, keys that almost serve a source, and what keeps them from it.

Says why the core passed something over; whether it did is the core's word alone (``pullsources.possible_prefixes``,
``keyring.Keyring``). Pure.

>>> why_table("docker.io/lib", "docker.io/library/nginx")
(1, 'it ends within a component of the name')
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from ..errors import SCHEMES
from ..images import dockerconfig
from ..pull import keyring

_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io", "hub.docker.com", "registry.hub.docker.com")
_ALIKE = 0.85
"""Share of letters in common from which a host is taken for a misspelling; one letter of seven or more."""

PORT_COUNTS = "the port must match"
_NO_GLOB = "a path has no wildcard: it covers all below it"

Near = tuple[int, str]
"""How near, 0 nearest, and what keeps it from counting."""


def why_table(prefix: str, name: str) -> Near | None:
    """Why a table does not match a repository; None for one that has nothing to do with it.

    Args:
        prefix: of a table that does not match.
        name: the repository, normalised.
    """
    host, _, path = name.partition("/")
    its_host, _, its_path = prefix.partition("/")
    if "*" in prefix:
        return _why_wildcard(prefix, host)
    if name.startswith(prefix):
        return 1, "it ends within a component of the name"
    if its_host == host:
        return 2, _why_path(its_path, path)
    if name.lower().startswith(prefix.lower()):
        return 1, "upper and lower case must match"
    if host == "docker.io" and its_host in _HUB:
        return 3, f"Docker Hub images are named docker.io, not {its_host}"
    if its_host.partition(":")[0] == host.partition(":")[0]:
        return 4, f"{PORT_COUNTS}: the image's registry is {host}"
    return None


def _why_wildcard(prefix: str, host: str) -> Near | None:
    domain = prefix[2:]
    if not prefix.startswith("*."):
        resembles = keyring.matches_host(prefix.partition("/")[0], host)
        return (4, "only *. at the beginning is a wildcard") if resembles else None
    if host.partition(":")[0] == domain:
        return 2, f"a wildcard matches hosts below {domain}, not {domain} itself"
    if f".{domain}" in host:
        return 4, f"the first .{domain} in the host is not its end"
    return None


def _why_path(its: str, path: str) -> str:
    """Why a path of the same host does not cover another, for tables and keys alike."""
    if f"library/{its}" == path:
        return f"the full path of this image is {path}"
    if ":" in its.rpartition("/")[2] or "@" in its:
        return "it has a tag or digest, and repositories are looked up without"
    if its.startswith(f"{path}/"):
        return f"it only covers what is below {path}"
    return f"{path} does not begin with {dockerconfig.shown_path(its)}"


def why_key(key: str, repository: str, image_host: str) -> Near | None:
    """Why an entry of a pull secret does not serve a pull source; None for one that has nothing to do with it.

    Args:
        key: of an entry that does not count for the repository.
        repository: the source's full name.
        image_host: the registry that the pod names.
    """
    host, _, path = repository.partition("/")
    its_host, its_path = split_key(key)
    if its_host == host:
        return 0, _why_key_path(key, host, its_path, path)
    words = re.split(r"[,;?#|\s]+", key.strip())
    if len(words) > 1 and host in (split_key(_bare(word))[0].lower() for word in words):
        return 0, f"a key is one host with an optional path: write {host}"
    meant_host, meant_path = split_key(_bare(key))
    if meant_host.lower() == host.lower():
        return 0, f"{_why_spelling(key, its_host, host)}: write {_covering(host, meant_path, path)}"
    if dockerconfig.normalized_host(its_host) == dockerconfig.normalized_host(image_host):
        return 1, f"{its_host} is the registry in the pod's image; {host} needs a key of its own"
    if "*" in its_host:
        return _why_glob(its_host, its_path, host, path)
    if its_host.partition(":")[0] == host.partition(":")[0]:
        return 2, f"{PORT_COUNTS}: write {host}"
    if _is_alike(its_host, host):
        return 4, f"{dockerconfig.shown_key(its_host)} is similar to {host}, but not the same: write {host}"
    return None


def _is_alike(one: str, other: str) -> bool:
    """Whether two hosts share most letters; the cheap bounds first, since a secret may hold thousands of keys."""
    if len(one) > dockerconfig.LONGEST:
        return False
    matcher = SequenceMatcher(None, one, other)
    return all(share() >= _ALIKE for share in (matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio))


def _bare(key: str) -> str:
    """A key without blanks, a scheme of any kind, and slashes at its ends."""
    scheme, separator, rest = key.strip().partition("://")
    return (rest if separator else scheme).strip("/ ")


def _covering(host: str, its: str, path: str) -> str:
    """The key that was meant, where it serves a source; else the one for its whole host."""
    if "*" in its:
        its = its.partition("*")[0].rpartition("/")[0]
    parts = [part for part in its.partition("@")[0].partition("?")[0].lower().split("/") if part]
    if parts:
        parts[-1] = parts[-1].partition(":")[0]
    meant = "/".join(parts)
    return f"{host}/{meant}" if meant and f"{path}/".startswith(f"{meant}/") else host


def _why_spelling(key: str, its_host: str, host: str) -> str:
    """What keeps a key from naming the host that it means."""
    if "://" in key and not key.startswith(("http://", "https://")):
        scheme = key.strip().partition("://")[0]
        return f"a key has no {scheme}://" if scheme.lower() in SCHEMES else "a key has no scheme"
    if its_host.lower() == host.lower():
        return "upper and lower case must match"
    return "it has leading or trailing spaces" if key != key.strip() else "it has a slash too many"


def split_key(key: str) -> tuple[str, str]:
    """Host and path of a key, without a scheme and without what stands before an @ in the host."""
    host, _, path = key.removeprefix("http://").removeprefix("https://").partition("/")
    return host.rpartition("@")[2], path


def _why_key_path(key: str, host: str, its: str, path: str) -> str:
    meant = f"write {_covering(host, its, path)}"
    if key.partition("/")[0].rpartition("@")[0] or ("://" in key and "@" in key):
        return f"a key has no user name: {meant}"
    if its.partition("/")[0] in ("v1", "v2") and not path.startswith(its.strip("/") + "/"):
        return f"without https:// its {its.partition('/')[0]} is read as the path of a repository: write {host}"
    if "*" in its:
        return f"{_NO_GLOB}: {meant}"
    if key.endswith("/"):
        return f"a path that ends with a slash never matches: {meant}"
    if key != key.strip():
        return f"it has leading or trailing spaces: {meant}"
    if path.startswith(its):
        return f"it ends within a component of the path: {meant}"
    if its != its.lower() or "//" in its:
        return f"the path must match exactly: {meant}"
    why = _why_path(its, path)
    return f"{why}: {meant}" if ":" in its or "@" in its else why


def _why_glob(its_host: str, its_path: str, host: str, path: str) -> Near | None:
    if keyring.matches_host(its_host, host):
        return 0, f"{_NO_GLOB}: write {_covering(its_host, its_path, path)}" if "*" in its_path else _why_path(
            its_path, path
        )
    pattern = its_host.partition(":")[0]
    if keyring.matches_host(pattern, host.partition(":")[0]):
        return 2, f"{PORT_COUNTS}: write {pattern}{host[len(host.partition(':')[0]) :]}"
    if host.partition(":")[0].endswith(pattern.lstrip("*")) and pattern.startswith("*"):
        return 3, f"a * matches one label of a host: write {host}"
    return None
