"""What a pull will do, step by step, each step with its reason: the plugin's own decision, told to a person.

Calls what the plugin calls (``provider``) and adds what the core had no reason to keep: which files were read, which
tables and keys only almost fit, what CRI-O will do with the outcome. Decides nothing a second time. Never holds a
credential: secrets appear by their names and keys.

    explained = explain(request, settings, connect, reference.parse("nginx:1.27"), "nginx:1.27")
    print(explained.verdict.text)
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import authfile, credentialprovider, keyring, provider, reference, registries
from ..errors import ConfigError, ProviderError
from ..keyring import Candidate, Choice, Selection
from ..provider import Resolution
from ..reference import Reference
from ..registries import DIGEST, TAG, PullSource, Registry
from ..settings import POD, SERVICE_ACCOUNT, Settings
from . import near

if TYPE_CHECKING:
    from ..credentialprovider import Request
    from ..pullsecrets import Cluster

MOST_TOLD = 5
"""Near misses and losers that are told at one place; the rest is counted."""

WELL, UNWELL, UNKNOWN = "well", "unwell", "unknown"

SECRET, NODE, NODE_HELPER, NOBODY = "secret", "node", "node-helper", ""
"""Where a source's credential is from: a secret of the namespace, the node's auth file, a helper program, nowhere."""


UNDECIDED = "not decided"
"""The reason of a source of which nothing is known, since the cluster was not asked."""


class NotAsked(ProviderError):
    """Raised by ``connect``: the cluster could not be asked as the plugin would ask it. No pull fails of it."""

    fault = "not-asked"


class File(NamedTuple):
    """A file of the configuration; `state` is ``read``, ``missing`` or why it cannot be used."""

    path: str
    state: str
    prefixes: frozenset[str]


class Table(NamedTuple):
    """A ``[[registry]]``. `line` is 0 where the file is not written in the usual form."""

    prefix: str
    file: str
    line: int


class Match(NamedTuple):
    """The table that matches; `replaces` are the same prefix's tables in earlier files, which count for nothing."""

    table: Table
    registry: Registry
    replaces: tuple[Table, ...]


class OtherTable(NamedTuple):
    """A table that does not apply, though it nearly does, and why."""

    table: Table
    why: str


class OtherKey(NamedTuple):
    """An entry of a pull secret that is not what a source gets, and why."""

    secret: str
    key: str
    why: str


class Source(NamedTuple):
    """A pull source and what CRI-O shows there.

    Attributes:
        source: as the core has it; its name is the key of the look-up.
        asked: whether this very pull asks it; None where tag and digest are not known.
        why_not: why it is not asked.
        is_wanted: whether it is a reason to look for secrets of the namespace.
        origin: ``secret``, ``node``, ``node-helper`` or "".
        secret, key: where the credential stands.
        reason: why there is none.
        others, others_left: entries of secrets that lost or nearly fit, and how many more there are.
    """

    source: PullSource
    asked: bool | None
    why_not: str
    is_wanted: bool
    origin: str
    secret: str
    key: str
    reason: str
    others: tuple[OtherKey, ...]
    others_left: int

    @property
    def is_open(self) -> bool:
        """Whether CRI-O may come here with this pull."""
        return self.asked is not False and not self.source.blocked


class AuthFile(NamedTuple):
    """The file for CRI-O, without what is secret in it."""

    path: str
    keys: tuple[str, ...]
    cred_helpers: dict[str, str]


class Verdict(NamedTuple):
    """`status` is ``well``, ``unwell`` or ``unknown``; `remedy` is "" where there is none to give."""

    status: str
    text: str
    remedy: str = ""


class Explanation(NamedTuple):
    """The whole account of a pull.

    Attributes:
        typed: the image as the pod spells it, "" where only a request is known.
        image: normalised, with tag and digest where known.
        resolution: the plugin's decision; as far as it came where `error` is not None. None where the request is none.
        settings: of the plugin.
        error: what the plugin would stop at, or ``NotAsked``.
        files: of the configuration, in the order they are read.
        match: None where no table does.
        tables, tables_left: near misses among the tables, and how many more tables there are.
        candidates: what CRI-O takes the image's name for.
        pull_error: why CRI-O itself will fail this pull, "" where it will not.
        sources: in CRI-O's order, then those that this pull does not ask.
        auth_file: None where none is written.
        answer: to the kubelet; None where there is none.
        exit_status: of the plugin; None where it is not known.
        steps: what CRI-O will do, in order.
        notes: what the person should know of how this was found.
    """

    typed: str
    image: Reference | None
    resolution: Resolution | None
    settings: Settings
    error: ProviderError | None
    files: tuple[File, ...]
    match: Match | None
    tables: tuple[OtherTable, ...]
    tables_left: int
    candidates: tuple[Reference, ...]
    pull_error: str
    sources: tuple[Source, ...]
    auth_file: AuthFile | None
    answer: dict[str, Any] | None
    exit_status: int | None
    steps: tuple[str, ...]
    verdict: Verdict
    notes: tuple[str, ...]


def explain(
    request: Request,
    settings: Settings,
    connect: Callable[[], Cluster],
    image: Reference | None = None,
    typed: str = "",
    notes: Iterable[str] = (),
) -> Explanation:
    """Explains a pull.

    Args:
        request, settings, connect: as for ``provider.resolve``.
        image: with tag and digest; None where only the request is known, and both kinds of references are told of.
        typed: the image as the pod spells it, from which CRI-O sees whether it is a short name.
        notes: taken over.
    """
    resolution: Resolution | None = None
    error: ProviderError | None = None
    try:
        resolution = provider.begin(request)
        provider.complete(resolution, request, settings, connect)
    except ProviderError as raised:
        error = raised
    if resolution is None:
        assert error is not None
        return failed(error, settings, typed, notes)
    return _tell(resolution, error, request, settings, image, typed, tuple(notes))


def failed(error: ProviderError, settings: Settings, typed: str = "", notes: Iterable[str] = ()) -> Explanation:
    """A pull of which nothing is known but that the plugin stops at once."""
    verdict = _verdict_of_error(error)
    status = _exit_status(error)
    return Explanation(
        typed, None, None, settings, error, (), None, (), 0, (), "", (), None, None, status, (), verdict, tuple(notes)
    )


def _tell(
    resolution: Resolution,
    error: ProviderError | None,
    request: Request,
    settings: Settings,
    image: Reference | None,
    typed: str,
    notes: tuple[str, ...],
) -> Explanation:
    files = _files(settings)
    match: Match | None = None
    tables: tuple[OtherTable, ...] = ()
    tables_left = 0
    candidates: tuple[Reference, ...] = ()
    asked: tuple[PullSource, ...] | None = None
    pull_error = ""
    if resolution.config is not None:
        match = _match(resolution.config, resolution.image.name, files)
        tables, tables_left = _other_tables(resolution.config, resolution.image.name, match)
        if image is not None:
            candidates, asked, pull_error = _asked(resolution.config, image, typed)
    sources = tuple(_sources(_Accounts(resolution, settings, error), asked, image, typed))
    auth_file = _auth_file(resolution, settings)
    answer = _answer(resolution, request, settings) if error is None else None
    return Explanation(
        typed,
        image or resolution.image,
        resolution,
        settings,
        error,
        files,
        match,
        tables,
        tables_left,
        candidates,
        pull_error,
        sources,
        auth_file,
        answer,
        _exit_status(error),
        () if isinstance(error, NotAsked) else tuple(_steps(resolution, sources, auth_file, pull_error)),
        _verdict(resolution, error, sources, candidates, pull_error, settings),
        (*notes, *_notes_on_files(files)),
    )


def _exit_status(error: ProviderError | None) -> int | None:
    """The plugin's own (docs: exit statuses of the plugin)."""
    if error is None:
        return 0
    return None if isinstance(error, NotAsked) else 2 if error.fault == "usage" else 1


# -- files and tables -------------------------------------------------------------------------------------------------


def _files(settings: Settings) -> tuple[File, ...]:
    """Each file by itself. Why a search fails is the decision's own error."""
    try:
        search = registries.search_files(settings.registries_conf, settings.registries_conf_dir, settings.root)
    except ConfigError:
        return ()
    alone = [registries.SearchPath(search.main, search.main_required, ())]
    alone += [registries.SearchPath("", False, (path,)) for path in search.drop_ins]
    return tuple(map(_file, alone))


def _file(search: registries.SearchPath) -> File:
    path = search.main or search.drop_ins[0]
    try:
        prefixes = frozenset(registries.load(search, None).tables)
    except ConfigError as error:
        return File(path, error.message.removeprefix(f"{path}: "), frozenset())
    return File(path, "read" if os.path.exists(path) else "missing", prefixes)


def _notes_on_files(files: Iterable[File]) -> Iterator[str]:
    home = os.path.expanduser("~/.config/")
    for file in files:
        if file.state != "missing" and file.path.startswith(home):
            yield (
                f"{file.path} counts because HOME is {os.path.expanduser('~')}; CRI-O and the plugin have the home "
                "directory of whoever they run as, most likely root"
            )


def _match(config: registries.Configuration, name: str, files: Iterable[File]) -> Match | None:
    found = registries.find_registry(config, name)
    if found is None:
        return None
    replaced = [
        Table(found.prefix, file.path, _line(file.path, found.prefix))
        for file in files
        if found.prefix in file.prefixes and file.path != found.file
    ]
    return Match(Table(found.prefix, found.file, _line(found.file, found.prefix)), found, tuple(replaced))


_HEADER = re.compile(r'\s*\[\[\s*"?registry"?\s*\]\]', re.IGNORECASE)
_NAME = re.compile(r"""\s*(prefix|location)\s*=\s*(["'])(.*?)\2""", re.IGNORECASE)


def _line(path: str, prefix: str) -> int:
    """The line on which a table begins, where it is written in the usual form; else 0."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return 0
    header, names = 0, dict[str, str]()
    for number, line in enumerate([*lines, "["], 1):
        if line.lstrip().startswith("["):
            if header and names.get("prefix", names.get("location", "")).rstrip("/") == prefix:
                return header
            header, names = (number if _HEADER.match(line) else 0), {}
        elif header and (found := _NAME.match(line)):
            names.setdefault(found[1].lower(), found[3])
    return 0


def _other_tables(
    config: registries.Configuration, name: str, match: Match | None
) -> tuple[tuple[OtherTable, ...], int]:
    """Tables that nearly apply, nearest first, and how many tables are not told of."""
    matching = set(registries.possible_prefixes(name))
    found: list[tuple[int, str, str]] = []
    for prefix in config.tables:
        if match is not None and prefix == match.table.prefix:
            continue
        if prefix in matching:
            assert match is not None
            shorter = len(prefix) < len(match.table.prefix)
            why = "is shorter than" if shorter else "is as long as, and in byte order after,"
            found.append((0, prefix, f"it matches, but {why} {match.table.prefix}"))
        elif (why_not := near.why_table(prefix, name)) is not None:
            found.append((why_not[0], prefix, why_not[1]))
    found.sort()
    told = [OtherTable(_table(config, prefix), why) for _, prefix, why in found[:MOST_TOLD]]
    return tuple(told), len(config.tables) - len(told) - (match is not None)


def _table(config: registries.Configuration, prefix: str) -> Table:
    file = config.tables[prefix][-1]
    return Table(prefix, file, _line(file, prefix))


# -- what this very pull asks -----------------------------------------------------------------------------------------


def is_short_name(typed: str) -> bool:
    """Whether CRI-O completes a name by its aliases and search registries, instead of taking it as Docker Hub's."""
    first, slash, _ = typed.partition("/")
    return not slash or not reference.is_registry_host(first)


def _asked(
    config: registries.Configuration, image: Reference, typed: str
) -> tuple[tuple[Reference, ...], tuple[PullSource, ...], str]:
    """What CRI-O takes the name for, the sources that it asks in turn, and why it will fail where it will."""
    candidates: tuple[Reference, ...] = (image,)
    if typed and is_short_name(typed):
        spelling = reference.parse_literal(typed).name
        resolved = registries.resolve_short_name(config, spelling)
        candidates = tuple(Reference(found.domain, found.path, image.tag, image.digest) for found in resolved)
        if not candidates:
            return (
                (),
                (),
                (
                    f"{spelling} is a short name, and registries.conf has neither an alias for it nor "
                    "unqualified-search-registries"
                ),
            )
    found: dict[str, PullSource] = {}
    errors = []
    for candidate in candidates:
        try:
            for source in registries.pull_sources(config, candidate):
                found.setdefault(source.name, source)
        except ConfigError as error:
            errors.append(error.message)
    return candidates, tuple(found.values()), errors[0] if len(errors) == len(candidates) else ""


def _why_not_asked(source: PullSource, image: Reference, typed: str) -> str:
    if source.short_name and not is_short_name(typed):
        return f"CRI-O comes here for the short name {source.short_name} alone"
    kind = DIGEST if image.digest else TAG
    if kind not in source.kinds:
        return f"it serves pulls by {' and '.join(source.kinds) or 'no reference'} alone, and this is one by {kind}"
    return "the pod's short name leads elsewhere"


# -- sources and their credentials ------------------------------------------------------------------------------------


def _sources(
    account: _Accounts, asked: tuple[PullSource, ...] | None, image: Reference | None, typed: str
) -> Iterator[Source]:
    """Those that this pull asks, in order, then the others."""
    resolution = account.resolution
    known = {source.name: source for source in resolution.sources}
    if asked is None:
        for source in resolution.sources:
            yield account.of(source, None, "")
        return
    for source in asked:
        # For the whole repository, where the core knows it: what it serves is told as well.
        yield account.of(known.get(source.name, source), True, "")
    names = {source.name for source in asked}
    for source in resolution.sources:
        if source.name not in names:
            assert image is not None
            yield account.of(source, False, _why_not_asked(source, image, typed))


class _Accounts:
    """Looks up what was decided for a source, and what nearly was."""

    def __init__(self, resolution: Resolution, settings: Settings, error: ProviderError | None) -> None:
        self.resolution = resolution
        self._settings = settings
        self._keyring = keyring.Keyring(resolution.secrets)
        self._keys = [(secret.name, key) for secret in resolution.secrets for key in secret.config.auths]
        self._undecided = isinstance(error, NotAsked)
        nothing = Selection((), (), {}, ())
        self._selection = resolution.selection or (nothing if self._undecided else self._of_node())

    def _of_node(self) -> Selection:
        """What CRI-O finds in the node's own auth file, where no secret was looked for."""
        resolution = self.resolution
        readable = resolution.config is not None and registries.AUTH_FILE_HELPER in resolution.config.credential_helpers
        sources = resolution.sources if readable else ()
        config, _ = provider.global_config(self._settings.global_auth_file)
        return keyring.select(sources, (), config, lambda source: True)

    def of(self, source: PullSource, asked: bool | None, why_not: str) -> Source:
        """A source with its credential, or the reason why it has none."""
        resolution, settings, name = self.resolution, self._settings, source.name
        wanted = provider.is_wanted(source, resolution.image, settings)
        choice = next((choice for choice in self._selection.choices if choice.source.name == name), None)
        host = name.partition("/")[0]
        if choice is None:
            origin = NODE_HELPER if host in self._selection.cred_helpers and not source.blocked else NOBODY
            others, left = self._nearly(source, wanted)
            return Source(source, asked, why_not, wanted, origin, "", "", self._reason(source), others, left)
        origin = SECRET if choice.secret else NODE
        others, left = self._lost(choice) if choice.secret else self._nearly(source, wanted)
        return Source(source, asked, why_not, wanted, origin, choice.secret, choice.key, "", others, left)

    def _reason(self, source: PullSource) -> str:
        """The core's own words; "" where it looked for none."""
        if self._undecided and not source.blocked:
            return UNDECIDED
        if self.resolution.selection is None:
            return "CRI-O will not ask it: it is blocked in registries.conf" if source.blocked else ""
        unserved = self.resolution.selection.unserved
        return next((entry.reason for entry in unserved if entry.source.name == source.name), "")

    def _lost(self, choice: Choice) -> tuple[tuple[OtherKey, ...], int]:
        others = [
            candidate
            for candidate in self._keyring.candidates(choice.source.name)
            if (candidate.secret, candidate.key) != (choice.secret, choice.key)
        ]
        told = [OtherKey(other.secret, other.key, _why_lost(choice, other)) for other in others[:MOST_TOLD]]
        return tuple(told), len(others) - len(told)

    def _nearly(self, source: PullSource, wanted: bool) -> tuple[tuple[OtherKey, ...], int]:
        """Entries without a credential, then near misses, nearest first; the rest of the entries is counted."""
        if not wanted or self.resolution.selection is None:
            return (), 0
        flawed = [OtherKey(c.secret, c.key, f"it {c.flaw}") for c in self._keyring.candidates(source.name) if c.flaw]
        known = {(other.secret, other.key) for other in flawed}
        found: list[tuple[int, OtherKey]] = []
        for secret, key in self._keys:
            why = None
            if (secret, key) not in known:
                why = near.why_key(key, source.name, self.resolution.image.domain)
            if why is not None:
                found.append((why[0], OtherKey(secret, key, why[1])))
        found.sort(key=lambda pair: pair[0])
        told = [*flawed, *(other for _, other in found)][:MOST_TOLD]
        return tuple(told), len(self._keys) - len(told)


def _why_lost(choice: Choice, other: Candidate) -> str:
    """Why an entry that serves a source as well is not taken."""
    if other.flaw:
        return f"it {other.flaw}"
    if other.key == choice.key:
        return f"the same key, and secret {choice.secret} comes before it"
    order = ("a key as it stands", "one written as a URL or by another name of the host", "a glob")
    its, taken = (_kind(key, choice.source.name) for key in (other.key, choice.key))
    if its == taken == 0:
        return f"it is less specific than {choice.key}"
    if its == taken:
        return f"{order[its]}: {choice.key} fits better, or is of an earlier secret"
    return f"{order[its]} counts after {order[taken]}"


def _kind(key: str, repository: str) -> int:
    """0 a key as it stands, 1 one written as a URL or by another name of the host, 2 a glob."""
    if repository == key or repository.startswith(f"{key}/"):
        return 0
    return 2 if "*" in near.split_key(key)[0] else 1


# -- outcome ----------------------------------------------------------------------------------------------------------


def _auth_file(resolution: Resolution, settings: Settings) -> AuthFile | None:
    if resolution.auth_file is None or resolution.account is None:
        return None
    document = json.loads(resolution.auth_file)
    path = os.path.join(settings.auth_dir, authfile.file_name(resolution.account.namespace, resolution.image.name))
    return AuthFile(path, tuple(document["auths"]), document.get("credHelpers", {}))


def _answer(resolution: Resolution, request: Request, settings: Settings) -> dict[str, Any]:
    """What the plugin writes to the kubelet, pull record included."""
    recorded = resolution.auth_file is not None and not settings.no_pull_record
    answer: dict[str, Any] = json.loads(credentialprovider.dumps(request.image if recorded else None))
    return answer


def _steps(
    resolution: Resolution, sources: Iterable[Source], auth_file: AuthFile | None, pull_error: str
) -> Iterator[str]:
    """What CRI-O does after the plugin's answer, or its failure (docs/contracts.md, 2)."""
    config = resolution.config
    if config is None:
        return
    if pull_error:
        yield f"CRI-O fails this pull: {pull_error}"
        return
    if auth_file is not None:
        yield "CRI-O takes the auth file for this one pull, and then reads no other, not even the node's own"
    elif registries.AUTH_FILE_HELPER in config.credential_helpers:
        yield "CRI-O finds no auth file of this pull and reads the node's own, its global_auth_file"
    else:
        yield f"credential-helpers lacks {registries.AUTH_FILE_HELPER}: CRI-O reads no auth file at all"
    open_sources = [source for source in sources if source.is_open]
    host = resolution.image.domain
    if any(source.source.name.partition("/")[0] == host for source in open_sources):
        yield (
            f"where one of the pod's imagePullSecrets has a key for {host}, the kubelet hands that credential over: "
            f"CRI-O shows it at {host}, ahead of any file"
        )
    for number, source in enumerate(open_sources):
        what = _shown_at(source)
        when = "first" if not number else "if that has no such image or does not answer,"
        yield f"{when} it asks {source.source.name}{_which_kinds(source)} {what}"
    if any(source.asked is not False and source.source.blocked for source in sources):
        names = ", ".join(s.source.name for s in sources if s.asked is not False and s.source.blocked)
        yield f"it does not ask {names}: blocked in registries.conf"


def _which_kinds(source: Source) -> str:
    if source.asked is None and len(source.source.kinds) == 1:
        return f" (for pulls by {source.source.kinds[0]})"
    return ""


def _shown_at(source: Source) -> str:
    if source.origin == SECRET:
        return f"with the credential of secret {source.secret}"
    if source.origin == NODE:
        return "with the node's own credential"
    return "through the node's credential helper" if source.origin == NODE_HELPER else "without a credential"


# -- verdict ----------------------------------------------------------------------------------------------------------


def _verdict_of_error(error: ProviderError) -> Verdict:
    if isinstance(error, NotAsked):
        return Verdict(UNKNOWN, f"Not decided: {error.message}", error.hint)
    status = _exit_status(error)
    return Verdict(
        UNWELL,
        f"The plugin fails (exit status {status}): {error.message}. The kubelet goes on pulling without credentials",
        error.hint,
    )


def _verdict(
    resolution: Resolution,
    error: ProviderError | None,
    sources: tuple[Source, ...],
    candidates: tuple[Reference, ...],
    pull_error: str,
    settings: Settings,
) -> Verdict:
    """Well where a place that wants a credential of the namespace gets one, or there is no such place."""
    if error is not None:
        return _verdict_of_error(error)
    if pull_error:
        return Verdict(UNWELL, f"CRI-O fails this pull, whatever the secrets hold: {pull_error}")
    usual = [source for source in sources if source.asked or (source.asked is None and not source.source.short_name)]
    if usual and not any(source.is_open for source in usual):
        return Verdict(UNWELL, "CRI-O asks nobody: every place for this image is blocked in registries.conf")
    wanted = [source for source in usual if source.is_wanted]
    if not wanted:
        return Verdict(WELL, _why_none_needed(resolution, sources))
    served = [source for source in wanted if source.origin]
    ambiguous = "" if len(candidates) < 2 else f". CRI-O refuses such a short name, unless {_CHOOSES}"
    if not served:
        text = f"{_names(wanted)} without a credential: {resolution.reason or _first_reason(wanted)}{_nearest(wanted)}"
        return Verdict(UNWELL, f"CRI-O asks {text}{ambiguous}", _remedy(resolution, wanted[0], settings))
    first = served[0]
    late = "" if first is wanted[0] else f"; {wanted[0].source.name}, which CRI-O asks before it, gets none"
    return Verdict(WELL, f"CRI-O asks {first.source.name} {_shown_at(first)}{late}{ambiguous}")


_CHOOSES = 'short_name_mode is "disabled" in crio.conf: registries.conf has more than one search registry'


def _names(sources: list[Source]) -> str:
    names = [source.source.name for source in sources]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _first_reason(wanted: list[Source]) -> str:
    return next((source.reason for source in wanted if source.reason), "none was looked for")


def _nearest(wanted: list[Source]) -> str:
    """The nearest miss: the mistake that somebody most likely made."""
    others = wanted[0].others
    return f". Secret {others[0].secret} has the key {shown_key(others[0].key)}: {others[0].why}" if others else ""


def _remedy(resolution: Resolution, source: Source, settings: Settings) -> str:
    """A secret that would do, where secrets were looked for."""
    account = resolution.account
    if account is None or resolution.selection is None:
        return ""
    host = source.source.name.partition("/")[0]
    holders = {POD: "the pod", SERVICE_ACCOUNT: f"service account {account.name}"}
    named = holders.get(settings.secrets_from)
    where = f", named in the imagePullSecrets of {named}" if named else ""
    return (
        f"give the namespace a pull secret with a key for {host}{where}: kubectl -n {account.namespace} create secret "
        f"docker-registry NAME --docker-server={host} --docker-username=USER --docker-password=PASSWORD"
    )


def _why_none_needed(resolution: Resolution, sources: tuple[Source, ...]) -> str:
    if any(source.is_wanted for source in sources):
        return "This pull asks no mirror: those that registries.conf has for the image are for other pulls"
    return f"The plugin has nothing to do: {resolution.reason}" if resolution.reason else "No mirror is asked"


def shown_key(key: str) -> str:
    """A key of a docker config without the user and password that somebody may have put into it."""
    scheme, separator, rest = key.rpartition("://")
    host, slash, path = rest.partition("/")
    user, at, host = host.rpartition("@")
    return f"{scheme}{separator}{'***' if user else ''}{at}{host}{slash}{path}"
