"""URLs and paths as Go's net/url, path and path/filepath take them apart: what containerd connects to.

>>> parse_url("https://robot:secret@Mirror.corp:5000/v2/hub?x#y")
('https', 'Mirror.corp:5000', '/v2/hub')
"""

from __future__ import annotations

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DIGITS = "0123456789"
_HEX = _DIGITS + "abcdefABCDEF"
_HOST = _LETTERS + _DIGITS + "-_.~!$&'()*+,;=:[]<>\""
_USER = _LETTERS + _DIGITS + "-._:~!$&'()*+,;=%@"


def parse_url(text: str, strict: bool = True) -> tuple[str, str, str]:
    """Scheme, host and decoded path; user, query and fragment are dropped.

    Args:
        strict: refuses brackets in the middle of a host, and several colons without brackets, as newer releases of Go
            do; nobody can connect to such a host.

    Raises:
        ValueError: Go refuses it. The message quotes nothing of it.
    """
    rest, _, fragment = text.partition("#")
    if any(c < " " or c == "\x7f" for c in rest):
        raise ValueError("a control character in a URL")
    _unescape(fragment)
    if rest == "*":
        return "", "", "*"
    scheme, rest = _scheme(rest)
    rest = rest.partition("?")[0]
    if not rest.startswith("/"):
        if scheme:
            return scheme, "", ""
        if ":" in rest.partition("/")[0]:
            raise ValueError("first path segment in URL cannot contain colon")
    host = ""
    if rest.startswith("//") and (scheme or not rest.startswith("///")):
        authority, slash, rest = rest[2:].partition("/")
        rest = slash + rest
        user, at, host = authority.rpartition("@")
        if at and user.strip(_USER):
            raise ValueError("invalid userinfo in a URL")
        if at:
            _unescape(user)
        host = _host(host, strict)
    return scheme, host, _unescape(rest)


def _scheme(text: str) -> tuple[str, str]:
    for number, c in enumerate(text):
        if c in _LETTERS:
            continue
        if c in _DIGITS + "+-.":
            if number == 0:
                break
            continue
        if c == ":":
            if number == 0:
                raise ValueError("missing protocol scheme")
            return text[:number].lower(), text[number + 1 :]
        break
    return "", text


def _host(host: str, strict: bool) -> str:
    if host.startswith("["):
        end = host.rfind("]")
        if end < 0:
            raise ValueError("missing ']' in host")
        port = host[end + 1 :]
    else:
        port = host[host.rfind(":") :] if ":" in host else ""
        if strict and ("[" in host or "]" in host):
            raise ValueError("a bracket in host name")
        if strict and host.count(":") > 1:
            raise ValueError("too many colons in host")
    if port and (port[0] != ":" or port[1:].strip(_DIGITS)):
        raise ValueError("invalid port after host")
    if any(c < "\x80" and c not in _HOST and c != "%" for c in host):
        raise ValueError("invalid character in host name")
    start = 0
    while (at := host.find("%", start)) >= 0:
        code = host[at + 1 : at + 3]
        if len(code) != 2 or code.strip(_HEX) or (code[0] in "01234567" and code != "25"):
            raise ValueError("invalid URL escape in host name")
        start = at + 3
    return _unescape(host)


def _unescape(text: str) -> str:
    if "%" not in text:
        return text
    first, *parts = text.split("%")
    data = bytearray(first.encode("utf-8", "surrogateescape"))
    for part in parts:
        if len(part) < 2 or part[:2].strip(_HEX):
            raise ValueError("invalid URL escape")
        data.append(int(part[:2], 16))
        data += part[2:].encode("utf-8", "surrogateescape")
    return data.decode("utf-8", "replace")


def clean(path: str) -> str:
    """As ``path.Clean``: the shortest path that means the same, ``.`` for none."""
    rooted = path.startswith("/")
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if kept and kept[-1] != "..":
                kept.pop()
            elif not rooted:
                kept.append(part)
        elif part not in ("", "."):
            kept.append(part)
    return ("/" if rooted else "") + "/".join(kept) or "."


def split_port(host: str) -> tuple[str, str] | None:
    """As ``net.SplitHostPort``; None where that refuses, as for a host without a port."""
    at = host.rfind(":")
    if at < 0:
        return None
    name, port = host[:at], host[at + 1 :]
    if host.startswith("["):
        end = host.find("]")
        if end < 0 or end + 1 != at:
            return None
        name = host[1:end]
        if "[" in name or "]" in host[end + 1 :]:
            return None
    elif ":" in name or "[" in host or "]" in host:
        return None
    return name, port


def is_localhost(host: str) -> bool:
    """As containerd's ``docker.IsLocalhost``: the name itself, or a loopback address."""
    split = split_port(host)
    name = split[0] if split else host
    if name == "localhost":
        return True
    parts = name.split(".")
    if len(parts) == 4 and all(p and len(p) < 4 and not p.strip(_DIGITS) for p in parts):
        return parts[0] == "127" and all(int(p) < 256 and (p == "0" or p[0] != "0") for p in parts)
    return _is_loopback6(name)


def _is_loopback6(name: str) -> bool:
    if ":" not in name or name.strip(_HEX + ":."):
        return False
    head, tail = name.rpartition(":")[::2]
    if "." in tail:
        return head.strip("0:") in ("ffff",) and is_localhost(tail)
    return not name[:-1].strip("0:") and tail.lstrip("0") == "1" and ("::" in name or name.count(":") == 7)
