"""One hosts.toml, decoded as each release of containerd does. Loaded when a file changed.

>>> form("/etc/containerd/certs.d/docker.io/hosts.toml")["answers"][0][0][:3]
['https', 'mirror.corp:5000', '/v2']
"""

from __future__ import annotations

from . import goaddress, tomlfile
from .readings import READINGS, V1, V2_2, V2_3

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Row = list[Any]

_CAPABILITIES = ("pull", "resolve", "push")
_FIELDS = ("capabilities", "ca", "client", "skip_verify", "header", "override_path", "dial_timeout", "server", "host")
IGNORED = "containerd ignores the file, and asks the registry itself alone"


def form(path: str) -> dict[str, Any]:
    """What is kept of a file.

    Returns:
        ``{}`` where there is none, or an empty one. Else ``answers``, lists of rows; ``readings``, the position among
        them for each release, null where it ignores the file; ``reason`` and ``line`` of that.

    Raises:
        ConfigError: it cannot be read.
    """
    data = tomlfile.read(path, "containerd fails every pull from this registry")
    if not data:
        return {}
    answers: list[list[Row]] = []
    readings: dict[str, int | None] = {}
    reason, line = "", 0
    for reading in READINGS:
        try:
            rows = _rows(data, reading)
        except tomlfile.NotToml as error:
            reason, line = error.reason, error.line
            readings[reading] = None
            continue
        if rows not in answers:
            answers.append(rows)
        readings[reading] = answers.index(rows)
    return {"answers": answers, "readings": readings, "reason": reason, "line": line}


def _rows(data: bytes, reading: str) -> list[Row]:
    """The hosts in the order of the file, then the server.

    Raises:
        NotToml: this release cannot decode it.
    """
    document = tomlfile.decode(data)
    top = _fields(document, reading)
    _check(top, "")
    tables = top.get("host", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise tomlfile.NotToml("host must be a table for each URL")
    hosts = {url: _fields(table, reading) for url, table in tables.items()}
    for url, table in hosts.items():
        _check(table, url)
    order = list(hosts) if reading == V1 else _headers(data.decode())
    return [
        *(_row(url, hosts.get(url, {}), reading) for url in order),
        _row(top.get("server", ""), top, reading),
    ]


def _headers(text: str) -> list[str]:
    """The hosts by their headers alone, as containerd 2 finds their order: one that comes again is asked again."""
    from ...platform.tomllines import find_headers

    found: list[str] = []
    last = ""
    for keys in find_headers(text):
        if len(keys) > 1 and keys[0] == "host" and keys[1] != last:
            last = keys[1]
            found.append(last)
    return found


def _fields(table: dict[str, Any], reading: str) -> dict[str, Any]:
    """The known keys of a table; containerd 2 takes them in any case."""
    if reading == V1:
        return {key: value for key, value in table.items() if key in _FIELDS}
    return {key.lower(): value for key, value in table.items() if key.lower() in _FIELDS}


def _check(fields: dict[str, Any], where: str) -> None:
    where = f"[host.{where!r}] " if where else ""
    for key, kind, words in (
        ("capabilities", list, "an array of strings"),
        ("skip_verify", bool, "true or false"),
        ("override_path", bool, "true or false"),
        ("header", dict, "a table"),
        ("dial_timeout", str, "a string"),
        ("server", str, "a string"),
    ):
        if key in fields and not isinstance(fields[key], kind):
            raise tomlfile.NotToml(f"{where}{key} must be {words}")


def _row(url: str, fields: dict[str, Any], reading: str) -> Row:
    scheme = host = path = ""
    if url:
        try:
            scheme, host, path = goaddress.parse_url(url if url.startswith("http") else f"https://{url}")
        except ValueError as error:
            raise tomlfile.NotToml(f"{error}") from None
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
        *([_check_duration(fields["dial_timeout"])] if reading in (V2_2, V2_3) and fields.get("dial_timeout") else []),
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
            raise tomlfile.NotToml("capabilities must be an array of strings")
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
        raise tomlfile.NotToml("ca must be a file name or an array of them")
    return values


def _pairs(value: Any) -> list[list[str]]:
    if value is None:
        return []
    pairs = [value] if isinstance(value, str) else value
    found = []
    for pair in pairs if isinstance(pairs, list) else [None]:
        names = [pair, ""] if isinstance(pair, str) else pair
        if not isinstance(names, list) or len(names) != 2 or not all(isinstance(name, str) for name in names):
            raise tomlfile.NotToml('client must be a file name, an array of them, or of ["CERT", "KEY"] pairs')
        found.append(names)
    return found


def _header_names(table: dict[str, Any]) -> list[str]:
    for name, value in table.items():
        if not isinstance(value, str) and not (isinstance(value, list) and all(isinstance(v, str) for v in value)):
            raise tomlfile.NotToml(f"header {name!r} must be a string or an array of strings")
    return sorted(table)


_UNITS = ("ns", "us", "\u00b5s", "\u03bcs", "ms", "s", "m", "h")


def _check_duration(text: str) -> int:
    """As ``time.ParseDuration``. Returns 0."""
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0
    if not rest:
        raise tomlfile.NotToml("dial_timeout must be a duration such as 10s")
    while rest:
        number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(number) :]
        unit = rest[: len(rest) - len(rest.lstrip("".join(set("".join(_UNITS)))))]
        rest = rest[len(unit) :]
        if unit not in _UNITS or number.count(".") > 1 or not number.strip("."):
            raise tomlfile.NotToml("dial_timeout must be a duration such as 10s")
    return 0
