"""The ``auths`` map: config.json, ``.dockerconfigjson``, ``.dockercfg`` and CRI-O's auth files.

Reads the format as Go's encoding/json does, and looks a repository up in it as containers/image does
(docs/reference/registries.md, section 9). Knows nothing about secrets or pull sources. No error carries text of the
file, other than a key that is a host, or part of the repository that was looked up.

    config = loads(b'{"auths": {"harbor.corp": {"auth": "dXNlcjpwdw=="}}}')
    find_credential(config, "harbor.corp/hub/library/nginx").key      # 'harbor.corp'
"""

from __future__ import annotations

import binascii
import json

from ..errors import SCHEMES, ConfigError
from ..platform import jsontext
from ..platform.record import Record
from . import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

DATA_KEYS = (".dockerconfigjson", ".dockercfg", "dockerconfigjson", "dockercfg", "config.json", "auth.json")
"""Names that people give to a docker config in a Secret; of these the first two are right."""

DOCKER_HUB = "index.docker.io"
DOCKER_HUB_NAMES = (DOCKER_HUB, "docker.io", "registry-1.docker.io")

KEPT_ELSEWHERE = "it has a credsStore: docker login kept the password on the machine where it ran"

_ENTRY_MEMBERS = ("auth", "identitytoken", "username", "password")
_WRAPPERS = ("value", "data", "stringData", *DATA_KEYS, *_ENTRY_MEMBERS)
"""What stands where ``auths`` should, by mistake: words of the formats alone may be told of a secret."""


class Credential(Record):
    """What a registry is shown. Bytes, since neither part need be UTF-8.

    Attributes:
        username, password: basic authentication.
        identity_token: an OAuth2 refresh token, used instead where it is not empty.
    """

    __slots__ = ("identity_token", "password", "username")
    _secret = ("identity_token", "password", "username")

    def __init__(self, username: bytes, password: bytes, identity_token: str = "") -> None:
        self.username = username
        self.password = password
        self.identity_token = identity_token

    def __bool__(self) -> bool:
        return bool(self.username or self.password or self.identity_token)


class AuthEntry(Record):
    """One value of ``auths``, as in the file; ``""`` for a member that is not there.

    Attributes:
        mistyped: whether ``username`` or ``password`` is not a string; CRI-O looks at neither.
    """

    __slots__ = ("auth", "identity_token", "mistyped", "password", "username")
    _secret = ("auth", "identity_token", "password", "username")

    def __init__(self, auth: str, identity_token: str, username: str, password: str, mistyped: bool = False) -> None:
        self.auth = auth
        self.identity_token = identity_token
        self.username = username
        self.password = password
        self.mistyped = mistyped


class DockerConfig(Record):
    """A file: host or repository -> entry, host -> name of a credential helper program, and whether it has a
    ``credsStore``, which neither CRI-O nor the kubelet reads."""

    __slots__ = ("auths", "cred_helpers", "creds_store")

    def __init__(self, auths: dict[str, AuthEntry], cred_helpers: dict[str, str], creds_store: bool = False) -> None:
        self.auths = auths
        self.cred_helpers = cred_helpers
        self.creds_store = creds_store


class Found(Record):
    """A credential and the key of the entry it came from."""

    __slots__ = ("credential", "key")

    def __init__(self, credential: Credential, key: str) -> None:
        self.credential = credential
        self.key = key


# -- reading ----------------------------------------------------------------------------------------------------------


def loads(data: bytes) -> DockerConfig:
    """Parses a config.json, ``.dockerconfigjson`` or auth file.

    Raises:
        ConfigError: not JSON, or a member that is read has a wrong type, in whichever entry: as for CRI-O, the whole
            file then counts for nothing.
    """
    auths: dict[str, AuthEntry] = {}
    cred_helpers: dict[str, str] = {}
    creds_store = False
    document = _parse(data)
    if isinstance(document, str):
        raise ConfigError("it is a JSON string: it was quoted twice", rule="json")
    for name, value in _members(document, "the file"):
        # Members match without regard to case; a second one adds to the first, null takes it back.
        folded = name if name == "auths" else jsontext.fold(name)
        if folded == "auths":
            if value is None:
                auths.clear()
            auths.update(_entries(value))
        elif folded == "credhelpers":
            if value is None:
                cred_helpers.clear()
            for host, helper in _members(value, "credHelpers"):
                cred_helpers[host] = _string(helper, "credHelpers")
        elif folded == "credsstore":
            creds_store = bool(value)
    return DockerConfig(auths, cred_helpers, creds_store)


def loads_dockercfg(data: bytes) -> DockerConfig:
    """Parses a ``.dockercfg``: the ``auths`` map alone.

    Raises:
        ConfigError: as ``loads``.
    """
    document = _parse(data)
    if any(key == "auths" and _has_objects(value) for key, value in _members(document, "auths")):
        raise ConfigError('it has "auths", as only a .dockerconfigjson does', rule="json")
    return DockerConfig(_entries(document), {})


def _has_objects(value: Any) -> bool:
    return type(value) is _Object and any(type(member) is _Object for _, member in value)


def why_empty(data: bytes) -> str:
    """Why a docker config that could be parsed has no entry. Names no key but those of the formats."""
    config, members = loads(data), dict(_members(_parse(data), "the file"))
    folded = {jsontext.fold(name) for name in members}
    found = 'its "auths" is empty' if "auths" in folded else 'it has no "auths"'
    if config.creds_store:
        return f"{found}, and {KEPT_ELSEWHERE}"
    if config.cred_helpers:
        return f"{found}, and its credHelpers are programs on the machine where it was made"
    if "auths" in folded:
        return found
    if {"apiversion", "kind"} <= folded:
        return f"{found}: it is a whole Kubernetes object"
    wrapper = next((name for name in _WRAPPERS if name in members), "")
    if wrapper:
        return f'{found}, but "{wrapper}" instead'
    if any(type(value) is _Object and any(name in _ENTRY_MEMBERS for name, _ in value) for value in members.values()):
        return f"{found} around its hosts: it is in the old .dockercfg format"
    return found


class _Object(tuple[tuple[str, "Any"], ...]):
    """A JSON object with its members in order and repeated ones kept, which Go's decoder takes one by one."""

    __slots__ = ()


def _refuse_constant(text: str) -> Any:
    """NaN and Infinity, which are not JSON."""
    raise ValueError


# Numbers matter only as "not a string": as floats they cannot run into Python's limit on digits.
_DECODER = json.JSONDecoder(object_pairs_hook=_Object, parse_int=float, parse_constant=_refuse_constant)


def _parse(data: bytes) -> Any:
    try:
        return _DECODER.decode(data.decode(errors="replace"))
    except (ValueError, RecursionError) as error:
        reason = _mistake(data) or jsontext.reason(error)
    raise ConfigError(f"not valid JSON: {reason}", rule="json")


def _mistake(data: bytes) -> str:
    """How the text came to be invalid JSON, where it shows; quotes nothing."""
    text = data.strip()
    if not text:
        return "the file is empty"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:2]:
        return "it is UTF-16; save it as UTF-8"
    if data.startswith(b"\xef\xbb\xbf"):
        return "it begins with a byte order mark, as some editors and PowerShell write it"
    if text.startswith((b"{'", b"{ '", b"{\n'", b"{\n ")) and b"'" in text[:40] and b'"' not in text[:40]:
        return "it has single quotes instead of double quotes"
    if b"\xe2\x80\x9c" in data or b"\xe2\x80\x9d" in data:
        return "it has typographic quotes, as word processors make them"
    if text.startswith(b'{\\"'):
        return "its quotes are escaped with backslashes: it was quoted twice"
    if text.startswith((b"{{", b"$")):
        return "it is a template with variables that were not replaced"
    if any(line.startswith((b"auths:", b"apiVersion:")) for line in data.splitlines()):
        return "it is YAML"
    try:
        decoded = decode_auth(text.decode())
    except ValueError:
        return ""
    return "it is base64 of JSON: encoded twice" if decoded.lstrip().startswith(b"{") else ""


def _members(value: Any, where: str) -> _Object:
    if type(value) is _Object:
        return value
    if value is None:
        return _Object()
    raise ConfigError(f"{where} must be a JSON object", rule="json")


def _string(value: Any, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ConfigError(f"{where} must have strings as values", rule="json")
    return value


def _entries(value: Any) -> dict[str, AuthEntry]:
    entries = {}
    for number, (key, entry) in enumerate(_members(value, "auths"), 1):
        entries[key] = _entry(entry, key, number)
    return entries


def _entry(value: Any, key: str, number: int) -> AuthEntry:
    """A namespace may hold a thousand of these, whose members are nearly always spelled as they should be."""
    members = value if type(value) is _Object else _members(value, _where(key, number))
    read = dict.fromkeys(_ENTRY_MEMBERS, "")
    mistyped = False
    for name, member in members:
        folded = name if name in read else jsontext.fold(name)
        if folded not in read:
            continue
        if isinstance(member, str):
            read[folded] = member
        elif member is not None and folded in ("auth", "identitytoken"):
            raise ConfigError(f"{_where(key, number)} must have strings as values", rule="json")
        elif member is not None:
            mistyped = True
    return AuthEntry(read["auth"], read["identitytoken"], read["username"], read["password"], mistyped)


def _where(key: str, number: int) -> str:
    """An entry by its number, and by its key where that is a host and nothing else."""
    is_host = reference.is_registry_host(key) and reference.is_domain(key)
    return f"entry {number} of auths{f' ({key})' if is_host else ''}"


# -- writing ----------------------------------------------------------------------------------------------------------


def dumps(credentials: dict[str, Credential], cred_helpers: dict[str, str]) -> bytes:
    """An auth file for CRI-O, in the order given."""
    auths = {}
    for key, credential in credentials.items():
        userpass = credential.username + b":" + credential.password
        auths[key] = {"auth": binascii.b2a_base64(userpass, newline=False).decode()}
        if credential.identity_token:
            auths[key]["identitytoken"] = credential.identity_token
    document: dict[str, object] = {"auths": auths}
    if cred_helpers:
        document["credHelpers"] = cred_helpers
    return jsontext.dumps(document).encode() + b"\n"


# -- look-up ----------------------------------------------------------------------------------------------------------


def find_credential(config: DockerConfig, key: str) -> Found | None:
    """What CRI-O picks from one auth file for a repository.

    The first key that is *present* answers, from the whole repository up to the host; an entry without a credential
    there means none at all, and hides those behind it. Only then keys written as URLs are looked at.

    Raises:
        ConfigError: a helper program is responsible, or the entry's ``auth`` is not base64.
    """
    check_key(key)
    host = host_of(key)
    if host in config.cred_helpers:
        raise helper_needed(config.cred_helpers[host])
    for candidate in repository_keys(key):
        if candidate in config.auths:
            return _decode(config.auths[candidate], candidate)
    wanted = normalized_host(host)
    for candidate, entry in config.auths.items():
        if normalized_host(candidate) == wanted:
            return _decode(entry, candidate)
    return None


def check_key(key: str) -> None:
    """The look-up's key is a repository or a host."""
    if key.startswith(("http://", "https://")) or "@" in key or ":" in key.partition("/")[2]:
        raise ConfigError(f"{key!r} is not a repository name without scheme, tag and digest", rule="key")


def helper_needed(helper: str) -> ConfigError:
    return ConfigError(f"the credential helper docker-credential-{helper} is configured for it", rule="helper")


def _decode(entry: AuthEntry, key: str) -> Found | None:
    """The credential of ``auth``, the only member that CRI-O takes one from; None where it holds none."""
    try:
        userpass = split_auth(decode_base64(entry.auth))
    except ValueError:
        raise ConfigError(f"the auth of the entry {shown_key(key)!r} is not base64", rule="base64") from None
    if userpass is None:
        return None
    credential = Credential(*userpass, entry.identity_token)
    return Found(credential, key) if credential else None


def split_auth(auth: bytes) -> tuple[bytes, bytes] | None:
    """User name and password of a decoded ``auth`` member; None where it holds no USER:PASSWORD."""
    username, colon, password = auth.partition(b":")
    return (username, password.strip(b"\x00")) if colon else None


def decode_auth(text: str) -> bytes:
    """An ``auth`` member as the kubelet reads it: as CRI-O, and without padding as well.

    Source: decodeDockerConfigFieldAuth. It does not read the URL-safe alphabet.

    Raises:
        ValueError: not base64.
    """
    return decode_base64(text if is_padded(text) else text + "=" * (-len(_unbroken(text)) % 4))


def is_padded(auth: str) -> bool:
    """Whether CRI-O could read the text as it stands, as far as its length goes."""
    return auth.strip().endswith("=") or not len(_unbroken(auth)) % 4


def _unbroken(text: str) -> str:
    """Without line breaks. ``str.translate`` looks up each letter, and takes ten times as long."""
    return text.replace("\r", "").replace("\n", "")


def decode_base64(text: str) -> bytes:
    """Standard base64 as Go reads it: line breaks inside are skipped, everything else is strict.

    Raises:
        ValueError: not base64.
    """
    text = _unbroken(text)
    # Python's strict mode takes padding after whole groups of four ("dTpw=").
    if len(text) % 4 or text.endswith("==="):
        raise ValueError("wrong padding")
    return binascii.a2b_base64(text, strict_mode=True)


def host_of(key: str) -> str:
    return key.partition("/")[0]


def repository_keys(repository: str) -> Iterator[str]:
    """The keys that count for a repository as they stand, most specific first: ``h/a/b``, ``h/a``, ``h``."""
    while repository:
        yield repository
        repository = repository.rpartition("/")[0]


def normalized_host(key: str) -> str:
    """The host that a key counts for when it is not taken as it stands: a URL's path is dropped, Docker Hub's names
    are one. A path without a scheme stays, so that such a key is not a host and matches nothing."""
    host = key.removeprefix("http://").removeprefix("https://")
    if host != key:
        host = host.partition("/")[0]
    return DOCKER_HUB if host in DOCKER_HUB_NAMES else host


# -- for people -------------------------------------------------------------------------------------------------------

LONGEST = 255
"""Letters of a key that names anything: as of a repository name."""

_NO_HOST = "(not a host)"


def shown_key(key: str) -> str:
    """A key as it may be told: what is not HOST[:PORT][/PATH], perhaps with a scheme, may be a password.

    >>> shown_key("https://robot:password@mirror.corp:5000/hub"), shown_key("mirror.corp:password")
    ('https://***@mirror.corp:5000/hub', 'mirror.corp:...')
    """
    scheme, separator, rest = key.strip().partition("://")
    if scheme.lower() not in SCHEMES:
        scheme, separator, rest = "", "", key.strip()
    authority, slash, path = rest.partition("/")
    _, at, authority = authority.rpartition("@")
    host, colon, port = authority.partition(":")
    start = f"{scheme}{separator}{'***@' if at else ''}"
    is_port = not colon or (port.isascii() and port.isdigit() and len(port) <= 5)
    # An @ after a slash may end a password with a slash in it, whose beginning then looks like a host.
    is_doubtful = bool(at) or "@" in path or not is_port
    if not is_host(host) or (is_doubtful and "." not in host) or (at and "@" in path):
        return f"{scheme}{separator}{_NO_HOST}" if key else ""
    return f"{start}{host}{colon}{port}{slash}{shown_path(path)}" if is_port else f"{start}{host}:..."


def is_host(text: str) -> bool:
    """Whether the text is a host without a port by the grammar, or a glob of one."""
    return len(text) <= LONGEST and ":" not in text and reference.is_domain(text.replace("*", "x"))


def shown_path(path: str) -> str:
    """The path of a key as it may be told; the API versions of old registries are told with their slashes."""
    bare = path.strip("/")
    return path if len(path) <= LONGEST and (not bare or reference.is_path(bare)) else "..."
