"""registries.conf as people write it: where in the file something stands, what was meant, and what CRI-O ignores there.

Loaded by faults and by tools alone; refuses nothing (``registriesfile``).

>>> corrected("https://mirror.corp.example:5000/v2/")
'mirror.corp.example:5000'
"""

from __future__ import annotations

from ...errors import masked
from ...images import reference
from ...images.reference import ReferenceSyntaxError
from ...platform.jsontext import fold
from ...platform.record import Record
from ...platform.tomllines import find_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ...platform.tomllines import Path

_TOP = (
    *("registry", "unqualified-search-registries", "credential-helpers", "short-name-mode"),
    *("additional-layer-store-auth-helper", "aliases", "registries"),
)
_REGISTRY = ("prefix", "location", "insecure", "blocked", "mirror-by-digest-only", "pull-from-mirror", "mirror")
_MIRROR = ("location", "insecure", "pull-from-mirror")
_LOCATION_ALIKE = ("url", "uri", "host", "hostname", "server", "endpoint", "address", "registry", "source", "name")
"""What other programs call a location."""
_FOREIGN = ("plugins", "host", "server", "registry-mirrors", "insecure-registries", "configs")
"""Keys of containerd's and Docker's files."""
_ALIKE = 0.75
_DEEPEST = 5
"""Keys and positions of the longest path that is asked for: a key of a mirror of a table."""
_HUB = ("index.docker.io", "registry-1.docker.io", "hub.docker.com", "registry.hub.docker.com")
_QUOTES = "\u201c\u201d\u201e\u2018\u2019\"'`"


def corrected(location: str) -> str:
    """The location that was most likely meant: host, port and path alone; "" where that cannot be told."""
    scheme, separator, rest = location.strip().partition("://")
    rest = (rest if separator else scheme).strip("/")
    name, _, digest = rest.rpartition("@")
    if digest.partition(":")[0] in ("sha256", "sha512"):
        rest = name
    # Before another @ is a user and a password, which may have a slash; none of it may be taken for a path.
    rest = rest.rpartition("@")[2]
    host, _, path = rest.partition("/")
    host = host.strip()
    # A label stands for the wildcard's star.
    wildcard = host.startswith("*.")
    host = host.replace("*", "a", 1) if wildcard else host
    parts = [part for part in path.lower().partition("?")[0].partition("#")[0].split("/") if part]
    if parts and parts[-1] in ("v1", "v2"):
        parts.pop()
    if parts:
        parts[-1] = parts[-1].partition(":")[0]
    if host in _HUB:
        host = "docker.io"
    if not reference.is_registry_host(host):
        host = f"{host}:{80 if scheme == 'http' else 443}"
    found = "/".join([host, *parts])
    try:
        meant = found.replace("a", "*", 1) if wildcard else found
        return meant if reference.parse(f"{found}/team/image").name == f"{found}/team/image" else ""
    except ReferenceSyntaxError:
        return ""


_LOOK_ALIKES = {
    **dict.fromkeys(map(ord, "\u00a0\u2007\u202f\u3000"), " "),
    **dict.fromkeys(map(ord, "\u200b\u2060\ufeff"), ""),
    **dict.fromkeys(map(ord, "\u201c\u201d\u201e\u00ab\u00bb\u2018\u2019`"), '"'),
}
"""What editors and web pages write for blanks and quotes."""
_WORDS = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false"}
_BOOLEANS = ("insecure", "blocked", "mirror-by-digest-only")


def mended(line: str) -> str:
    """What was most likely meant by a line that is not valid TOML; "" where that cannot be told.

    >>> mended("insecure: True")
    'insecure = true'
    """
    text = line.translate(_LOOK_ALIKES).strip()
    if text.startswith(("//", ";")):
        return f"# in place of {text[0] if text[0] == ';' else '//'}"
    text = text.partition(" #")[0].strip()
    header = text.strip("[] ")
    if header in ("registry", "registry.mirror"):
        return f"[[{header}]]"
    words = _split(text)
    for number, value in enumerate(words[1:]):
        key = words[number]
        if key.lower() in _BOOLEANS and (not number or value not in ("true", "false")):
            meant = _WORDS.get(value.lower(), "")
            return f"{key} = {meant}" if meant else ""
    if not words:
        return ""
    key = words[0]
    rest = text.partition(key)[2].lstrip('" :=>').rstrip("\"' ,;").lstrip("'")
    if key == "unqualified-search-registries":
        hosts = [corrected(name).partition("/")[0] for name in rest.translate(_LIST).split()]
        quoted = ", ".join(f'"{host}"' for host in hosts)
        return f"{key} = [{quoted}]" if all(hosts) else ""
    if key in ("location", "prefix") and rest and not any(c in "\"'{[" or c.isspace() for c in rest):
        rest = corrected(rest)
    elif key not in ("pull-from-mirror", "short-name-mode") or _split(rest) != [rest]:
        rest = ""
    return f'{key} = "{rest}"' if rest else ""


_LIST = dict.fromkeys(map(ord, "[]\"',"), " ")


def _split(text: str) -> list[str]:
    """Words, as keys and bare values are written."""
    return "".join(c if c.isalnum() or c in "-_" else " " for c in text).split()


def location_for(location: str, rest: str) -> str:
    """What to do about a location with which no reference can be made of what follows it."""
    meant = corrected(location)
    for text in (meant, f"{meant}/library"):
        try:
            if meant and str(reference.parse(text + rest)) == text + rest:
                return f'write location = "{text}"'
        except ReferenceSyntaxError:
            pass
    if "[" in location:
        return "write a host name in place of the address: no image reference has an IPv6 address"
    if "_" in location.partition("/")[0]:
        return "write a host name without an underscore: no image reference has one in its host"
    return "write a location of the form HOST[:PORT][/PATH], its path in lower case"


def why_no_image(prefix: str) -> tuple[str, str]:
    """Why no image's name begins with a prefix, and the prefix most likely meant, "" where that cannot be told.

    Returns:
        ("", "") where an image may. Docker Hub's other hosts can be named, and hardly ever are.
    """
    host, slash, path = prefix.removeprefix("*.").partition("/")
    meant = corrected(prefix.strip(_QUOTES + " "))
    if host in _HUB and not prefix.startswith("*."):
        return f"images of Docker Hub are named docker.io, not {host}", meant
    name = f"{host}{slash}{path}"
    if any(_is_normal(text) for text in (name, f"{name}/team/image", f"{name}:5000/team/image")):
        return "", ""
    if "*" in name:
        return "only *. at the beginning is a wildcard, for a host", "" if "*" in host else corrected(host)
    if ":" in path or "@" in path:
        return "images are looked up by their names without tag and digest", meant
    if slash and not reference.is_registry_host(host) and _is_normal(f"docker.io/{prefix}"):
        return (
            "its first part has neither a dot nor a port, so that images are named docker.io/...",
            f"docker.io/{prefix}",
        )
    if path.lower() != path:
        return "the path of an image is in lower case", meant
    wrong = masked(prefix) if "@" in prefix else host if not reference.is_domain(host) else path
    return f"no image name has {wrong!r} in it", meant


def _is_normal(text: str) -> bool:
    """Whether a text is an image's name as it is after normalising."""
    try:
        return reference.parse(text).name == text
    except ReferenceSyntaxError:
        return False


def meant_location(table: dict[str, Any]) -> tuple[str, str]:
    """The key that somebody wrote for ``location`` in a table that has none, with its value; ("", "") for none."""
    for key, value in table.items():
        if isinstance(value, str) and key not in _REGISTRY and nearest_key(key, ("location",)):
            return key, value
    return "", ""


def nearest_key(key: str, known: tuple[str, ...]) -> str:
    """The known key for which another one was most likely written, or ""."""
    if "location" in known and key in _LOCATION_ALIKE:
        return "location"
    from difflib import get_close_matches

    return next(iter(get_close_matches(key.replace("_", "-"), known, 1, _ALIKE)), "")


NO_IMAGE = "the table"
"""The key of an ``Ignored`` for a table whose prefix no image has."""


class Ignored(Record):
    """Something that CRI-O takes no notice of.

    Attributes:
        key: its name.
        line: from 1, 0 where it is not known.
        place: the file with it.
        text: what it is, and why it does not count.
        remedy: what to do, with the file.
        is_mistake: whether something was meant by it, as far as can be told.
    """

    __slots__ = ("is_mistake", "key", "line", "place", "remedy", "text")

    def __init__(self, key: str, line: int, place: str, text: str, remedy: str, is_mistake: bool = True) -> None:
        self.key = key
        self.line = line
        self.place = place
        self.text = text
        self.remedy = remedy
        self.is_mistake = is_mistake


class Written:
    """One file as it is written.

    Args:
        file: its path, for remedies.
        document: its text, parsed.
    """

    def __init__(self, file: str, document: dict[str, Any], text: str) -> None:
        self.file = file
        self._lines: dict[Path, int] = {}
        for path, line in find_lines(text).items():
            for length in range(1, min(len(path), _DEEPEST) + 1):
                self._lines.setdefault(path[:length], line)
        self._top = {fold(key): value for key, value in document.items()}
        tables = self._top.get("registry")
        self._tables = [_folded(table) for table in tables] if isinstance(tables, list) else []
        # A search for each of thousands of tables would take minutes.
        self._numbers: dict[str, int] = {}
        self._locations: dict[tuple[str, str], Path] = {}
        for number, table in enumerate(self._tables):
            prefix = _prefix(table)
            if self._numbers.setdefault(prefix, number) == number:
                self._note_locations(prefix, table, ("registry", number))

    def _note_locations(self, prefix: str, table: dict[str, Any], at: Path) -> None:
        mirrors = table.get("mirror")
        for number, mirror in enumerate(mirrors if isinstance(mirrors, list) else ()):
            location = str(_folded(mirror).get("location", "")).rstrip("/")
            self._locations.setdefault((prefix, location), (*at, "mirror", number, "location"))

    def line(self, path: Path) -> int:
        """The line of something, else of the first that is in it, else of what is around it."""
        return next((line for n in range(len(path), 0, -1) if (line := self._lines.get(path[:n]))), 0)

    def place(self, path: Path) -> str:
        """FILE:LINE, or the file."""
        line = self.line(path)
        return f"{self.file}:{line}" if line else self.file

    def table(self, prefix: str) -> Path:
        """The table of a prefix; of several the first counts. () for none."""
        return ("registry", self._numbers[prefix]) if prefix in self._numbers else ()

    def location(self, prefix: str, location: str) -> Path:
        """The location of a table or of one of its mirrors."""
        found = self.table(prefix)
        return self._locations.get((prefix, location), (*found, "location") if found else ())

    def ignored(self) -> Iterator[Ignored]:
        """What CRI-O takes no notice of, in the order of the file as far as lines are known."""
        yield from sorted(self._ignored(), key=lambda found: found.line)

    def _ignored(self) -> Iterator[Ignored]:
        yield from self._unknown(self._top, (), _TOP, "at the top")
        first: dict[str, int] = {}
        for number, table in enumerate(self._tables):
            at: Path = ("registry", number)
            yield from self._unknown(table, at, _REGISTRY, "of [[registry]]")
            mirrors = table.get("mirror")
            for position, mirror in enumerate(mirrors if isinstance(mirrors, list) else ()):
                yield from self._unknown(_folded(mirror), (*at, "mirror", position), _MIRROR, "of [[registry.mirror]]")
            prefix = _prefix(table)
            why, meant = why_no_image(prefix)
            # A block of Docker Hub's other hosts may be meant so.
            if why and not (prefix in _HUB[1:] and table.get("blocked")):
                key = "prefix" if table.get("prefix") else "location"
                here = self.place((*at, key))
                form = (
                    f'{key} = "{meant}"' if meant else f"{key} = ..., the beginning of image names, such as docker.io"
                )
                yield Ignored(
                    NO_IMAGE,
                    self.line((*at, key)),
                    here,
                    f"no image matches {masked(prefix)!r}: {why}",
                    f"in {here} write {form}",
                )
            if first.setdefault(prefix, number) != number:
                earlier, here = self.place(("registry", first[prefix])), self.place(at)
                yield Ignored(
                    "[[registry]]",
                    self.line(at),
                    here,
                    f"duplicate of the table for {masked(prefix)!r} at {earlier}: CRI-O "
                    "ignores this one with its mirrors",
                    f"move what is missing there from {here} to {earlier}, and remove the second [[registry]]",
                )

    def _unknown(self, table: dict[str, Any], at: Path, known: tuple[str, ...], whose: str) -> Iterator[Ignored]:
        for key in table:
            if key not in known:
                path = (*at, key)
                text, remedy = self._why(key, at, known, whose, _is_table(table[key]))
                yield Ignored(
                    masked(key),
                    self.line(path),
                    self.place(path),
                    text,
                    remedy or f"remove {masked(key)} from {self.place(path)}",
                    bool(remedy),
                )

    def _why(self, key: str, at: Path, known: tuple[str, ...], whose: str, is_table: bool) -> tuple[str, str]:
        """Why a key does not count, and what to do where something is meant by it."""
        here, header = self.place((*at, key)), self.place(at)
        if at and key in _TOP:
            first = self.place(("registry",))
            text = f"it is below the header at {header}, and so an unknown key {whose}"
            return text, f"move {key} from {here} above the first table, {first}"
        if at and key in _REGISTRY:
            text = f"it is below the header at {header}, but is a key of [[registry]], not {whose}"
            return text, f"move {key} from {here} above {header}"
        if key in _REGISTRY:
            remedy = f"in {here} write [[registry.mirror]]" if is_table else f"write [[registry]] above {here}"
            if key == "mirror" and not is_table:
                remedy = f"write a [[registry.mirror]] below its [[registry]], with a location, in place of {here}"
            return "it belongs in a [[registry]], and there is none above it", remedy
        if not at and key in _FOREIGN:
            remedy = f"write [[registry]] and [[registry.mirror]], each with its location, in place of {here}"
            return "it is a key of containerd or Docker", remedy
        if meant := nearest_key(key, known):
            return f"it is not a key {whose}; {meant} is", f"in {here} write {meant} in place of {key}"
        return f"it is not a key {whose}", ""


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _folded(table: Any) -> dict[str, Any]:
    return {fold(key): value for key, value in table.items()} if isinstance(table, dict) else {}


def _prefix(table: dict[str, Any]) -> str:
    """As CRI-O has it once the file is read."""
    return str(table.get("prefix") or table.get("location") or "").rstrip("/")
