"""One hosts.toml, decoded as each release of containerd does. Loaded when a file changed.

>>> form("/etc/containerd/certs.d/docker.io/hosts.toml")["answers"][0][0][:3]
['https', 'mirror.corp:5000', '/v2']
"""

from __future__ import annotations

from ...errors import masked
from ...platform.tomllines import find_headers
from . import goaddress, tomlfile
from .readings import FAILS, FIRST, READINGS, V1_6, V1_7, V2_2, V2_3

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Row = list[Any]
    """Scheme, host, path, capabilities, skip_verify or null, ca, client, names of headers."""
    Fields = Callable[[dict[str, Any], tuple[str, ...]], dict[str, Any]]

_CAPABILITIES = ("pull", "resolve", "push")
_FIELDS = ("capabilities", "ca", "client", "skip_verify", "header", "override_path", "dial_timeout")
_TOP = (*_FIELDS, "server", "host")


def form(path: str) -> dict[str, Any]:
    """What is kept of a file.

    Returns:
        ``{}`` where there is none, or an empty one. Else ``answers``, lists of rows; ``readings``, for each release
        the positions among them of what it may take, null where it may ignore the file; ``reason`` and ``line`` of
        why one surely does; ``doubtful``, the releases that may ask hosts that no answer has.

    Raises:
        ConfigError: it cannot be read.
    """
    data = tomlfile.read(path, FAILS)
    if not data:
        return {}
    answers: list[list[Row]] = []
    readings: dict[str, list[int | None]] = {}
    doubtful: list[str] = []
    reason, line = "", 0
    for reading in READINGS:
        taken: list[int | None] = []
        try:
            found: list[list[Row] | None] = _alternatives(data, reading)
        except tomlfile.NotToml as error:
            # containerd's parsers take some texts that are not TOML, each some of its own, and containerd 2 takes
            # an empty table for any value.
            found = [None, _mentioned(data)] if error.is_doubtful else [None]
            if error.is_doubtful:
                doubtful.append(reading)
            if not reason:
                reason, line = error.reason, error.line
        else:
            if None in found and not reason:
                reason = "it has a value or an escape that not every parser takes"
        for rows in found:
            if rows is not None and rows not in answers:
                answers.append(rows)
            taken.append(None if rows is None else answers.index(rows))
        readings[reading] = taken
    return {"answers": answers, "readings": readings, "reason": reason, "line": line, "doubtful": doubtful}


def _alternatives(data: bytes, reading: str) -> list[list[Row] | None]:
    """What a release may make of a file: more than one where its parser is known for taking less or more than TOML.

    Raises:
        NotToml: it ignores the file.
    """
    document = tomlfile.decode(data)
    text = data.decode()
    found: list[list[Row] | None] = []
    if reading not in FIRST:
        headers = [[tomlfile.unescaped(key) for key in keys] for keys in find_headers(text)]
        order = [keys[1] for keys in _of_hosts(headers)]
        found.append(_rows(document, order, _folded, reading))
    else:
        if any("\\" in line or (line.count("["), line.count("]")) != (1, 1) for line in _host_lines(text)):
            return [None, _mentioned(data)]
        hosts = document.get("host")
        if reading == V1_6 and not isinstance(hosts, dict):
            raise tomlfile.NotToml("it has no [host] table, without which containerd 1.6 ignores it")
        found.append(_rows(document, list(hosts) if isinstance(hosts, dict) else [], _known, reading))
    if any(sign in text for sign in ("\\", '"""', "'''")) or not _is_plain(document):
        found.append(None)
    return found


def _rows(document: dict[str, Any], order: list[str], fields: Fields, reading: str) -> list[Row]:
    """The hosts in an order, then the server.

    Raises:
        NotToml: a value that this release does not take.
    """
    top = fields(document, _TOP)
    _check(top, "", reading)
    tables = top.get("host", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise tomlfile.NotToml("host must be a table for each URL", is_doubtful=_has_table(tables))
    hosts = {url: fields(table, _FIELDS) for url, table in tables.items()}
    for url, table in hosts.items():
        _check(table, url, reading)
    return [
        *(_row(url, hosts.get(url, {}), reading) for url in order),
        _row(top.get("server", ""), top, reading),
    ]


def _of_hosts(headers: list[list[str]]) -> list[list[str]]:
    """The headers of hosts as containerd 2 takes them: one that comes again after another is asked again."""
    found: list[list[str]] = []
    last = ""
    for keys in headers:
        if len(keys) > 1 and keys[0] == "host" and keys[1] != last:
            last = keys[1]
            found.append(keys)
    return found


def _host_lines(text: str) -> list[str]:
    lines = (line.strip(" \t\ufeff") for line in text.replace("\r", "\n").split("\n"))
    return [line for line in lines if line.startswith("[") and "host" in line.partition(".")[0]]


def _mentioned(data: bytes) -> list[Row]:
    """A row for whatever may be a host in a text that is not TOML, then one for the registry itself."""
    rows: list[Row] = []
    for line in data.decode("utf-8", "replace").replace("\r", "\n").split("\n"):
        for word in _hosts_in(line.strip(" \t\ufeff")):
            try:
                row = _row(word, {}, V1_7, strict=False)
            except tomlfile.NotToml:
                continue
            if row[1] and row not in rows:
                rows.append(row)
    return [*rows, _row("", {}, V1_7)]


def _hosts_in(line: str) -> Iterator[str]:
    """The keys of a line, and the value of server; no other value, which may be a secret."""
    is_header = line.startswith("[") and "host" in line
    is_server = line.partition("=")[0].strip(" \t\"'").lower() == "server"
    for quote in ('"', "'"):
        parts = line.split(quote)
        for before, word, after in zip(parts[::2], parts[1::2], parts[2::2], strict=False):
            is_key = after.lstrip()[:1] in ("=", ".") and not before.rstrip().endswith("=")
            if is_header or is_server or is_key:
                yield word
    if line.lstrip("[ \t").startswith("host"):
        bare = line.partition(".")[2].partition("=")[0].partition(".")[0].partition("]")[0].strip()
        if not bare.startswith(('"', "'")):
            yield bare


def _is_plain(value: Any) -> bool:
    """Whether all parsers take it alike: not numbers with a fraction, dates, and lists of anything but strings."""
    if isinstance(value, dict):
        return all(_is_plain(member) for member in value.values())
    if isinstance(value, list):
        return all(isinstance(member, str) or (isinstance(member, list) and _is_plain(member)) for member in value)
    return isinstance(value, str | bool) or (isinstance(value, int) and abs(value) < 2**63)


def _has_table(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(member, dict) for member in value))


def _known(table: dict[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    """As containerd 1 takes keys: as they are written, or else in capital letters alone."""
    capital = {key.lower(): value for key, value in table.items() if key == key.upper() and key.lower() in known}
    return capital | {key: value for key, value in table.items() if key in known}


def _folded(table: dict[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    """As containerd 2 takes keys, in any case: where one is there twice, both must be right, and the last counts."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        folded = key.lower()
        if folded in found and not (isinstance(value, str | bool) and type(value) is type(found[folded])):
            raise tomlfile.NotToml(f"{folded} is there twice, in small and in capital letters", is_doubtful=True)
        if folded in known:
            found[folded] = value
    return found


def _check(fields: dict[str, Any], where: str, reading: str) -> None:
    where = f"[host.{masked(where)!r}] " if where else ""
    for key, kind, words in (
        ("capabilities", list, "an array of strings"),
        ("skip_verify", bool, "true or false"),
        ("override_path", bool, "true or false"),
        ("header", dict, "a table"),
        ("dial_timeout", str, "a string"),
        ("server", str, "a string"),
    ):
        if key == "dial_timeout" and reading in FIRST:
            continue
        if key in fields and not isinstance(fields[key], kind):
            raise tomlfile.NotToml(f"{where}{key} must be {words}", is_doubtful=_has_table(fields[key]))


def _row(url: str, fields: dict[str, Any], reading: str, strict: bool = True) -> Row:
    scheme = host = path = ""
    if url:
        try:
            scheme, host, path = goaddress.parse_url(url if url.startswith("http") else f"https://{url}", strict)
        except ValueError as error:
            raise tomlfile.NotToml(f"{error}", is_doubtful=True) from None
        path = _api_root(path, fields.get("override_path", False))
    return [
        scheme,
        host,
        path,
        _capabilities(fields, reading),
        fields.get("skip_verify"),
        _paths(fields.get("ca")),
        _pairs(fields.get("client")),
        _header_names(fields.get("header", {})),
        *([_check_duration(fields["dial_timeout"])] if reading not in FIRST and fields.get("dial_timeout") else []),
    ]


def _api_root(path: str, override: bool) -> str:
    if not path:
        return "" if override else "/v2"
    path = goaddress.clean(path)
    return path if override or path.endswith("/v2") else f"{path}/v2"


def _capabilities(fields: dict[str, Any], reading: str) -> list[str]:
    named = fields.get("capabilities") or list(_CAPABILITIES)
    found = set()
    for name in named:
        if not isinstance(name, str):
            raise tomlfile.NotToml("capabilities must be an array of strings", is_doubtful=_has_table(name))
        known = (*_CAPABILITIES, "referrers") if reading in (V2_2, V2_3) else _CAPABILITIES
        if name.lower() not in known:
            raise tomlfile.NotToml(f"unknown capability {name!r}: containerd knows {', '.join(_CAPABILITIES)}")
        found.add(name.lower())
    return [name for name in _CAPABILITIES if name in found]


def _paths(value: Any) -> list[str]:
    if value is None:
        return []
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise tomlfile.NotToml("ca must be a file name or an array of them", is_doubtful=_has_table(value))
    return values


def _pairs(value: Any) -> list[list[str]]:
    if value is None:
        return []
    pairs = [value] if isinstance(value, str) else value
    found = []
    for pair in pairs if isinstance(pairs, list) else [None]:
        names = [pair, ""] if isinstance(pair, str) else pair
        if not isinstance(names, list) or len(names) != 2 or not all(isinstance(name, str) for name in names):
            words = 'client must be a file name, an array of them, or of ["CERT", "KEY"] pairs'
            raise tomlfile.NotToml(words, is_doubtful=_has_table(value))
        found.append(names)
    return found


def _header_names(table: dict[str, Any]) -> list[str]:
    for name, value in table.items():
        if not isinstance(value, str) and not (isinstance(value, list) and all(isinstance(v, str) for v in value)):
            words = f"header {name!r} must be a string or an array of strings"
            raise tomlfile.NotToml(words, is_doubtful=_has_table(value))
    return sorted(table)


_UNITS = {"ns": 1, "us": 10**3, "\u00b5s": 10**3, "\u03bcs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9}
_UNITS["h"] = 60 * _UNITS["m"]


def _check_duration(text: str) -> int:
    """As ``time.ParseDuration``. Returns 0."""
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0
    if not rest:
        raise tomlfile.NotToml("dial_timeout must be a duration such as 10s")
    total = 0.0
    while rest:
        number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(number) :]
        unit = rest[: len(rest) - len(rest.lstrip("".join(set("".join(_UNITS)))))]
        rest = rest[len(unit) :]
        if unit not in _UNITS or number.count(".") > 1 or not number.strip("."):
            raise tomlfile.NotToml("dial_timeout must be a duration such as 10s")
        total += float(number) * _UNITS[unit]
    if total > 2**63:
        raise tomlfile.NotToml("dial_timeout is too long")
    return 0
