"""The ``auths`` map: config.json, ``.dockerconfigjson``, ``.dockercfg`` and CRI-O's auth files.

Reads the format as Go's encoding/json does, and looks a repository up in it as containers/image does
(docs/registries.md, section 9). Knows nothing about secrets or pull sources. No error carries text of the file, other
than a key that is part of the repository that was looked up.

    config = loads(b'{"auths": {"harbor.corp": {"auth": "dXNlcjpwdw=="}}}')
    find_credential(config, "harbor.corp/hub/library/nginx").key      # 'harbor.corp'
"""

from __future__ import annotations

import binascii

from . import native
from .errors import ConfigError
from .record import Record
from .registries import AUTH_FILE_HELPER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

DOCKER_HUB = "index.docker.io"
DOCKER_HUB_NAMES = (DOCKER_HUB, "docker.io", "registry-1.docker.io")


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
    """One value of ``auths``, as it stands in the file; ``""`` for a member that is not there."""

    __slots__ = ("auth", "identity_token", "password", "username")
    _secret = ("auth", "identity_token", "password", "username")

    def __init__(self, auth: str, identity_token: str, username: str, password: str) -> None:
        self.auth = auth
        self.identity_token = identity_token
        self.username = username
        self.password = password


class DockerConfig(Record):
    """A file: host or repository -> entry, and host -> name of a credential helper program."""

    __slots__ = ("auths", "cred_helpers")

    def __init__(self, auths: dict[str, AuthEntry], cred_helpers: dict[str, str]) -> None:
        self.auths = auths
        self.cred_helpers = cred_helpers


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
    for name, value in _members(_parse(data), "the file"):
        # Members match without regard to case; a second one adds to the first, null takes it back.
        folded = name if name == "auths" else native.fold(name)
        if folded == "auths":
            if value is None:
                auths.clear()
            auths.update(_entries(value))
        elif folded == "credhelpers":
            if value is None:
                cred_helpers.clear()
            for host, helper in _members(value, "credHelpers"):
                cred_helpers[host] = _string(helper, "credHelpers")
    return DockerConfig(auths, cred_helpers)


def loads_dockercfg(data: bytes) -> DockerConfig:
    """Parses a ``.dockercfg``: the ``auths`` map alone.

    Raises:
        ConfigError: as ``loads``.
    """
    return DockerConfig(_entries(_parse(data)), {})


class _Object(tuple[tuple[str, "Any"], ...]):
    """A JSON object with its members in order and repeated ones kept, which Go's decoder takes one by one."""

    __slots__ = ()


# Numbers matter only as "not a string": as floats they cannot run into Python's limit on digits.
_DECODER = native.Decoder(_Object, numbers_as_float=True)


def _parse(data: bytes) -> Any:
    try:
        return _DECODER.decode(data.decode(errors="replace"))
    except (ValueError, RecursionError) as error:
        reason = native.json_reason(error) if data else "the file is empty"
    raise ConfigError(f"not valid JSON: {reason}", rule="json")


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
        entries[key] = _entry(entry, number)
    return entries


def _entry(value: Any, number: int) -> AuthEntry:
    """A namespace may hold a thousand of these, whose members are nearly always spelled as they should be."""
    members = value if type(value) is _Object else _members(value, f"entry {number} of auths")
    read = {"auth": "", "identitytoken": "", "username": "", "password": ""}
    for name, member in members:
        folded = name if name in read else native.fold(name)
        if folded not in read:
            continue
        if isinstance(member, str):
            read[folded] = member
        elif member is not None and folded in ("auth", "identitytoken"):
            raise ConfigError(f"entry {number} of auths must have strings as values", rule="json")
        # CRI-O never reads the other two, so that a wrong type is no fault.
    return AuthEntry(read["auth"], read["identitytoken"], read["username"], read["password"])


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
    return native.dumps(document).encode() + b"\n"


# -- look-up ----------------------------------------------------------------------------------------------------------


def find_login(data: bytes | None, key: str, credential_helpers: list[str]) -> Found | None:
    """CRI-O's whole look-up of a repository, for an auth file and the ``credential-helpers`` of registries.conf.

    Args:
        data: the auth file; None where it is missing.
        key: a repository or host, without scheme, tag and digest.
        credential_helpers: asked in order; the first that has something is taken. Helper programs are not run here:
            asking one is an error, which surfaces only if nothing else is found.

    Raises:
        ConfigError: the key is none, the file is broken, or a helper program would have to be run.
    """
    _check_key(key)
    kept: ConfigError | None = None
    for helper in credential_helpers:
        try:
            if helper != AUTH_FILE_HELPER:
                raise _helper_needed(helper)
            found = find_credential(loads(data), key) if data is not None else None
        except ConfigError as error:
            kept = error
            continue
        if found is not None:
            return found
    if kept is not None:
        raise kept
    return None


def find_credential(config: DockerConfig, key: str) -> Found | None:
    """What CRI-O picks from one auth file for a repository.

    The first key that is *present* answers, from the whole repository up to the host; an entry without a credential
    there means none at all, and hides those behind it. Only then keys written as URLs are looked at.

    Raises:
        ConfigError: a helper program is responsible, or the entry's ``auth`` is not base64.
    """
    _check_key(key)
    host = host_of(key)
    if host in config.cred_helpers:
        raise _helper_needed(config.cred_helpers[host])
    for candidate in repository_keys(key):
        if candidate in config.auths:
            return _decode(config.auths[candidate], candidate)
    wanted = normalized_host(host)
    for candidate, entry in config.auths.items():
        if normalized_host(candidate) == wanted:
            return _decode(entry, candidate)
    return None


def _check_key(key: str) -> None:
    """The look-up's key is a repository or a host."""
    if key.startswith(("http://", "https://")) or "@" in key or ":" in key.partition("/")[2]:
        raise ConfigError(f"{key!r} is no repository name without scheme, tag and digest", rule="key")


def _helper_needed(helper: str) -> ConfigError:
    return ConfigError(f"the credential helper program docker-credential-{helper} is responsible", rule="helper")


def _decode(entry: AuthEntry, key: str) -> Found | None:
    """The credential of ``auth``, the only member that CRI-O takes one from; None where it holds none."""
    try:
        userpass = split_auth(entry.auth)
    except ValueError:
        raise ConfigError(f"the auth of the entry {key!r} is not base64", rule="base64") from None
    if userpass is None:
        return None
    credential = Credential(*userpass, entry.identity_token)
    return Found(credential, key) if credential else None


def split_auth(auth: str) -> tuple[bytes, bytes] | None:
    """User name and password of an ``auth`` member; None where it holds no USER:PASSWORD.

    Raises:
        ValueError: not base64.
    """
    username, colon, password = decode_base64(auth).partition(b":")
    return (username, password.strip(b"\x00")) if colon else None


def decode_base64(text: str) -> bytes:
    """Standard base64 as Go reads it: line breaks inside are skipped, everything else is strict.

    Raises:
        ValueError: not base64.
    """
    text = text.replace("\r", "").replace("\n", "")
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
    are one. A path without a scheme stays, so that such a key is no host and matches nothing."""
    host = key.removeprefix("http://").removeprefix("https://")
    if host != key:
        host = host.partition("/")[0]
    return DOCKER_HUB if host in DOCKER_HUB_NAMES else host
