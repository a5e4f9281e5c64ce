"""Which credential each pull source gets, and why the others lost.

A repository is looked up in the docker configs of all pull secrets as CRI-O would look it up in one (``dockerconfig``),
with three differences, each for what kubelets and people write: ``username`` and ``password`` count without ``auth``,
an entry without a credential counts as absent, and hosts may be globs (``*.corp.example``), least specific of all.
Of equally specific answers the earlier secret's wins. Pure: knows no files and no API.
"""

from __future__ import annotations

from ..errors import ConfigError
from ..images import dockerconfig
from ..images.dockerconfig import AuthEntry, Credential, DockerConfig
from ..kubernetes.pullsecrets import PullSecret, Skipped
from ..platform.record import Record
from ..runtimes.pullsource import PullSource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


_MOST_TOLD = 10
"""Losers that are told for a source: a namespace may hold a thousand secrets for one host."""

NONE_ON_NODE = ", and the global auth file has none"
"""The end of the reason for a source without any credential."""


class Candidate(Record):
    """An entry of a pull secret that counts for a repository.

    Attributes:
        secret, key: where it stands.
        credential: None where the entry holds none; then ``flaw`` says why.
        is_padded: whether CRI-O could read its ``auth`` by itself.
    """

    __slots__ = ("credential", "flaw", "is_padded", "key", "secret")

    def __init__(self, secret: str, key: str, credential: Credential | None, flaw: str, is_padded: bool = True) -> None:
        self.secret = secret
        self.key = key
        self.credential = credential
        self.flaw = flaw
        self.is_padded = is_padded


class Choice(Record):
    """The credential for one pull source.

    Attributes:
        source: the pull source.
        credential: what CRI-O will show there.
        secret: name of the pull secret, "" where it is from the global auth file.
        key: the key of the entry, as it stands there.
        lost: the next best candidates, at most ``_MOST_TOLD``; less specific, or of a later secret.
        is_padded: whether CRI-O could read the entry's ``auth`` by itself.
    """

    __slots__ = ("credential", "is_padded", "key", "lost", "secret", "source")

    def __init__(
        self,
        source: PullSource,
        credential: Credential,
        secret: str,
        key: str,
        lost: tuple[Candidate, ...] = (),
        is_padded: bool = True,
    ) -> None:
        self.source = source
        self.credential = credential
        self.secret = secret
        self.key = key
        self.lost = lost
        self.is_padded = is_padded


class Unserved(Record):
    """A pull source that gets no credential, and why."""

    __slots__ = ("reason", "source")

    def __init__(self, source: PullSource, reason: str) -> None:
        self.source = source
        self.reason = reason


class Selection(Record):
    """The outcome for all sources of a pull.

    Attributes:
        choices: in the order of the sources.
        unserved: the other sources.
        cred_helpers: host -> helper of the global auth file that stays responsible for a source's host.
        flawed: entries that would have been asked for a source but hold no credential.
    """

    __slots__ = ("choices", "cred_helpers", "flawed", "unserved")

    def __init__(
        self,
        choices: tuple[Choice, ...],
        unserved: tuple[Unserved, ...],
        cred_helpers: dict[str, str],
        flawed: tuple[Skipped, ...],
    ) -> None:
        self.choices = choices
        self.unserved = unserved
        self.cred_helpers = cred_helpers
        self.flawed = flawed

    @property
    def from_namespace(self) -> bool:
        """Whether any credential comes from a secret of the namespace."""
        return any(choice.secret for choice in self.choices)


class _Entry:
    """An entry of ``auths`` with the secret it is in; decoded when it is first looked at."""

    __slots__ = ("_candidate", "entry", "key", "secret")

    def __init__(self, secret: PullSecret, key: str, entry: AuthEntry) -> None:
        self.secret = secret
        self.key = key
        self.entry = entry
        self._candidate: Candidate | None = None

    def candidate(self) -> Candidate:
        if self._candidate is None:
            credential, flaw = credential_of(self.entry)
            if flaw == _HOLLOW and self.secret.config.creds_store:
                flaw += f": {dockerconfig.KEPT_ELSEWHERE}"
            padded = dockerconfig.is_padded(self.entry.auth)
            self._candidate = Candidate(self.secret.name, self.key, credential, flaw, padded)
        return self._candidate


class Keyring:
    """The entries of all pull secrets, indexed so that a look-up does not cost more with more secrets.

    Args:
        secrets: in the order in which the earlier wins.
    """

    def __init__(self, secrets: Iterable[PullSecret]) -> None:
        self._exact: dict[str, list[_Entry]] = {}
        self._urls: dict[str, dict[str, list[_Entry]]] = {}
        self._globs: list[tuple[str, str, _Entry]] = []
        self._globs_of_host: dict[str, list[tuple[str, _Entry]]] = {}
        for secret in secrets:
            for key, auth in secret.config.auths.items():
                self._add(_Entry(secret, key, auth))

    def _add(self, entry: _Entry) -> None:
        key = entry.key
        same = self._exact.get(key)
        if same is None:
            self._exact[key] = [entry]
        else:
            same.append(entry)
        bare = key.removeprefix("http://").removeprefix("https://")
        if bare == key and "*" not in key and key[-1:] != "/" and key not in dockerconfig.DOCKER_HUB_NAMES:
            # Nearly all: such a key counts as it stands and in no other way.
            return
        host, _, path = bare.partition("/")
        if "*" in host:
            self._globs.append((host, _url_path(path), entry))
        elif bare != key or not path:
            host = dockerconfig.normalized_host(host)
            self._urls.setdefault(host, {}).setdefault(_url_path(path) if bare != key else "", []).append(entry)

    def candidates(self, repository: str) -> Iterator[Candidate]:
        """Every entry that counts for a repository, best first: keys as they stand from the whole repository up to
        the host, then keys written as URLs, then globs."""
        keys = list(dockerconfig.repository_keys(repository))
        for key in keys:
            for entry in self._exact.get(key, ()):
                yield entry.candidate()
        host, _, path = repository.partition("/")
        urls = self._urls.get(dockerconfig.normalized_host(host), {})
        for entry in _by_path(urls, path):
            if entry.key not in keys:
                yield entry.candidate()
        for glob_path, entry in self._matching_globs(host):
            if _is_below(path, glob_path):
                yield entry.candidate()

    def _matching_globs(self, host: str) -> list[tuple[str, _Entry]]:
        """Globs that match a host with their paths, the longest path first."""
        found = self._globs_of_host.get(host)
        if found is None:
            found = [(path, entry) for pattern, path, entry in self._globs if matches_host(pattern, host)]
            found.sort(key=lambda pair: -len(pair[0]))
            self._globs_of_host[host] = found
        return found


def _by_path(urls: dict[str, list[_Entry]], path: str) -> Iterator[_Entry]:
    """CRI-O takes any URL key of the host, in no defined order; a fitting path first is the order a person expects,
    then keys without a path, then the rest in their order."""
    fitting = [*dockerconfig.repository_keys(path), ""]
    for prefix in fitting:
        yield from urls.get(prefix, ())
    for prefix, entries in urls.items():
        if prefix not in fitting:
            yield from entries


def _url_path(path: str) -> str:
    """The repository path that a URL key means: the API versions of old registries do not count."""
    path = path.strip("/")
    first, _, rest = path.partition("/")
    return rest if first in ("v1", "v2") else path


def _is_below(path: str, prefix: str) -> bool:
    return not prefix or path == prefix or path.startswith(f"{prefix}/")


def matches_host(pattern: str, host: str) -> bool:
    """Whether a host glob matches, label by label, with the same port: ``*.corp.example`` is not ``a.b.corp.example``.

    Source: the kubelet's own matching of ``.dockerconfigjson`` keys and ``matchImages``.
    """
    pattern, _, pattern_port = pattern.partition(":")
    host, _, port = host.partition(":")
    wanted, labels = pattern.split("."), host.split(".")
    return (
        pattern_port == port
        and len(wanted) == len(labels)
        and all(_matches_label(p, label) for p, label in zip(wanted, labels, strict=True))
    )


def _matches_label(pattern: str, label: str) -> bool:
    """``*`` matches any run of characters. Each piece is taken where it first fits, which needs no backtracking."""
    first, *rest = pattern.split("*")
    if not rest:
        return first == label
    if not label.startswith(first) or len(label) < len(first) + len(rest[-1]) or not label.endswith(rest[-1]):
        return False
    position, end = len(first), len(label) - len(rest[-1])
    for piece in rest[:-1]:
        found = label.find(piece, position, end)
        if found < 0:
            return False
        position = found + len(piece)
    return True


_HOLLOW = "has no credential"


def credential_of(entry: AuthEntry) -> tuple[Credential | None, str]:
    """The credential of an entry, or what is wrong with it.

    As for the kubelet, an ``auth`` that is there counts alone, whatever ``username`` and ``password`` beside it say.
    """
    username, password = _encode(entry.username), _encode(entry.password)
    if entry.mistyped and not entry.auth:
        return None, "has a user name or password that is not a string: the quotes are missing"
    if entry.auth:
        try:
            decoded = dockerconfig.decode_auth(entry.auth)
        except ValueError:
            return None, f"has an auth that is not base64{_why_not_base64(entry.auth)}"
        userpass = dockerconfig.split_auth(decoded)
        if userpass is None:
            return None, f"has an auth that is not USER:PASSWORD{_why_no_colon(decoded)}"
        username, password = userpass
    credential = Credential(username, password, entry.identity_token)
    return (credential, "") if credential else (None, _HOLLOW)


def _why_not_base64(auth: str) -> str:
    if ":" in auth:
        return ", but plain text"
    if ("-" in auth or "_" in auth) and not auth.strip(_URL_SAFE):
        return " as the kubelet and CRI-O read it: - and _ belong to the URL-safe alphabet"
    return ""


_URL_SAFE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=\r\n"


def _why_no_colon(decoded: bytes) -> str:
    try:
        return ", but base64 of it: it was encoded twice" if b":" in dockerconfig.decode_auth(decoded.decode()) else ""
    except ValueError:
        return ""


def oddities(credential: Credential) -> list[str]:
    """What a person hardly meant a user name or password to be; it is used as it stands. Tells nothing of either."""
    found = []
    for what, text in (("user name", credential.username), ("password", credential.password)):
        if not text and not credential.identity_token:
            found.append(f"the {what} is empty")
        elif b"\0" in text:
            found.append(f"the {what} has NUL bytes, like UTF-16 text")
        elif text.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
            found.append(f"the {what} begins with a byte order mark")
        elif not _is_utf8(text):
            found.append(f"the {what} is not UTF-8, as registries expect: it is Latin-1 or binary")
        elif _REPLACEMENT in text:
            found.append(f"the {what} has U+FFFD, the replacement for something in the secret that was not UTF-8")
        elif text.endswith((b"\n", b"\r")):
            found.append(f"the {what} ends with a newline, which echo adds and printf does not")
        elif text != text.strip():
            found.append(f"the {what} has leading or trailing spaces")
    return found


_REPLACEMENT = b"\xef\xbf\xbd"


def _is_utf8(text: bytes) -> bool:
    try:
        return bool(text.decode()) or not text
    except ValueError:
        return False


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def select(
    sources: Iterable[PullSource],
    secrets: Iterable[PullSecret],
    global_config: DockerConfig | None,
    may_use_secrets: Callable[[PullSource], bool],
) -> Selection:
    """Decides for each source.

    Args:
        sources: in the runtime's order.
        secrets: of the namespace, in the order in which the earlier wins.
        global_config: the node's auth file, which CRI-O does not read when it has ours: asked for each source that no
            secret serves, exactly as CRI-O would; None where nothing is taken from it.
        may_use_secrets: whether a source may get a credential of the namespace.
    """
    keyring = Keyring(secrets)
    choices: list[Choice] = []
    unserved: list[Unserved] = []
    flawed: dict[Skipped, None] = {}
    helpers: dict[str, str] = {}
    for source in sources:
        if source.blocked:
            unserved.append(Unserved(source, "CRI-O does not ask it: it is blocked in registries.conf"))
            continue
        chosen: Choice | str = ""
        may_use = may_use_secrets(source)
        candidates = keyring.candidates(source.name) if may_use else iter(())
        for candidate in candidates:
            if candidate.credential is not None:
                lost = tuple(candidate for _, candidate in zip(range(_MOST_TOLD), candidates, strict=False))
                secret, key = candidate.secret, candidate.key
                chosen = Choice(source, candidate.credential, secret, key, lost, candidate.is_padded)
                break
            flawed[
                Skipped(candidate.secret, f"its entry {dockerconfig.shown_key(candidate.key)!r} {candidate.flaw}")
            ] = None
        if not chosen:
            why = "no secret has a credential for it" if may_use else "--mirror-registry does not cover it"
            chosen = why if global_config is None else _from_global(source, global_config, helpers, why)
        if isinstance(chosen, Choice):
            choices.append(chosen)
        else:
            unserved.append(Unserved(source, chosen))
    for choice in choices:
        # A helper is responsible for its host alone: CRI-O would not look at the entry beside it.
        if choice.secret:
            helpers.pop(dockerconfig.host_of(choice.source.name), None)
    return Selection(tuple(choices), tuple(unserved), helpers, tuple(flawed))


def _from_global(source: PullSource, config: DockerConfig, helpers: dict[str, str], why: str) -> Choice | str:
    """The node's credential for a source, or why there is none; notes the helper that is responsible instead.

    ``why`` says why it is none of the namespace's.
    """
    host = dockerconfig.host_of(source.name)
    if host in config.cred_helpers:
        helpers[host] = config.cred_helpers[host]
        return f"{why}; the node's credential helper is used"
    try:
        found = dockerconfig.find_credential(config, source.name)
    except ConfigError as error:
        return f"{why}, and in the global auth file {error.message}"
    if found is None:
        return why + NONE_ON_NODE
    return Choice(source, found.credential, "", found.key)
