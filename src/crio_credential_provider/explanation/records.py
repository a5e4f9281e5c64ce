"""What an explanation is made of. No credential is part of any of it."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..errors import ProviderError
from ..images import reference
from ..images.dockerconfig import shown_key
from ..images.reference import Reference
from ..pull.resolution import Resolution
from ..runtimes.containerd.hosts import Host as ContainerdHost
from ..runtimes.crio.registries import Registry
from ..runtimes.pullsource import PullSource
from ..settings import AUTO, CONTAINERD, CRIO, Settings

MOST_TOLD = 5
"""Near misses and losers that are told at one place; the rest is counted."""

PASSED, FAILED, UNKNOWN = "passed", "failed", "unknown"

SECRET, NODE, NODE_HELPER, NOBODY = "secret", "node", "node-helper", ""
"""Where a source's credential is from: a secret of the namespace, the node's auth file, a helper program, nowhere."""


RUNTIMES = {CRIO: "CRI-O", CONTAINERD: "containerd", AUTO: "CRI-O"}

UNDECIDED = "not known"
"""The reason of a source of which nothing is known, since the cluster was not asked."""


RUN_AS_ROOT = "run this as root, like CRI-O and the plugin"


UNSEEN = "the node may have one, which is not visible from here"
"""Of a source without a credential of the namespace, where the node's own auth file is not known."""


def auth_file_of_node(settings: Settings) -> str:
    """What to call it. It is not known where this is not the node: its path is "" then."""
    return f"the node's own auth file {settings.global_auth_file}".rstrip()


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
    """An entry of a pull secret that is not what a source gets, and why.

    Attributes:
        flawed: whether it was meant for the source, and holds no credential.
    """

    secret: str
    key: str
    why: str
    flawed: bool = False


class Source(NamedTuple):
    """A pull source and what the runtime shows there.

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

    @property
    def host(self) -> str:
        return self.source.name.partition("/")[0]

    @property
    def is_reachable(self) -> bool:
        return not self.why_unreachable

    @property
    def why_unreachable(self) -> str:
        """Why there is no host to connect to: CRI-O takes ``hub_cache.corp/app`` for a name without one."""
        if not reference.is_domain(self.host):
            return f"{self.host!r} is not a host name, which may only have letters, digits, '-' and '.'"
        digits = self.host.partition(":")[2].lstrip("0")
        is_too_high = len(digits) > 5 or int(digits or 0) > 65535
        return f"the port is above 65535: {self.host!r}" if is_too_high else ""


class AuthFile(NamedTuple):
    """The file for CRI-O, without what is secret in it."""

    path: str
    keys: tuple[str, ...]
    cred_helpers: dict[str, str]


class Host(NamedTuple):
    """A host of containerd's files, in its order.

    Attributes:
        host: as containerd has it.
        source: the repository there.
    """

    host: ContainerdHost
    source: str


class Shown(NamedTuple):
    """A credential of the namespace, and every host that containerd could show it.

    Attributes:
        secret, key: where it stands.
        hosts: URLs of those that its key, or an equal entry, names.
        others: URLs of those that no key names it for.
        answer_key: under which the kubelet gets it; "" where it gets none.
    """

    secret: str
    key: str
    hosts: tuple[str, ...]
    others: tuple[str, ...]
    answer_key: str


class Hosts(NamedTuple):
    """What containerd's files say of the image's registry, and what comes of it.

    Attributes:
        files: config.toml with its imports, then the hosts.toml that counts; as they are read.
        found: by what the hosts were found, in a sentence.
        others: directories that nearly are the registry's, and why they are not.
        hosts: in containerd's order.
        shown: the credentials of the namespace.
        node_hosts: those for which config.toml has a credential of the node's own.
    """

    files: tuple[File, ...]
    found: str
    others: tuple[tuple[str, str], ...]
    hosts: tuple[Host, ...]
    shown: tuple[Shown, ...]
    node_hosts: tuple[str, ...]


class Verdict(NamedTuple):
    """`status` is ``passed``, ``failed`` or ``unknown``; `remedy` is "" where there is none to give."""

    status: str
    text: str
    remedy: str = ""


class Tables(NamedTuple):
    """What registries.conf says of the image.

    Attributes:
        files: of the configuration, in the order they are read.
        match: None where no table does.
        others, others_left: near misses, and how many more tables there are.
    """

    files: tuple[File, ...]
    match: Match | None
    others: tuple[OtherTable, ...]
    others_left: int


class Asked(NamedTuple):
    """What CRI-O makes of the pod's own spelling.

    Attributes:
        candidates: what it takes the name for; several for a short name.
        sources: asked in turn; None where the spelling is not known.
        error: why it will fail this pull, "" where it will not.
        remedy: what to do about that.
    """

    candidates: tuple[Reference, ...]
    sources: tuple[PullSource, ...] | None
    error: str
    remedy: str = ""


NO_TABLES = Tables((), None, (), 0)
NOTHING_ASKED = Asked((), None, "")


class Explanation(NamedTuple):
    """The whole account of a pull.

    Attributes:
        typed: the image as the pod spells it, "" where only a request is known.
        image: normalised, with tag and digest where known; None where the request is not valid.
        resolution: the plugin's decision, as far as it came where `error` is not None; None for an invalid request.
        settings: of the plugin.
        error: what the plugin would stop at, or ``NotAsked``.
        tables, asked: see there; empty for containerd.
        sources: in the runtime's order, then those that this pull does not ask.
        auth_file: None where none is written.
        answer: to the kubelet; None where there is none.
        exit_status: of the plugin; None where it is not known.
        steps: what the runtime will do, in order.
        notes: what the person should know of how this was found.
        hosts: containerd's; None for CRI-O, and where its files are not known.
    """

    typed: str
    image: Reference | None
    resolution: Resolution | None
    settings: Settings
    error: ProviderError | None
    tables: Tables
    asked: Asked
    sources: tuple[Source, ...]
    auth_file: AuthFile | None
    answer: dict[str, Any] | None
    exit_status: int | None
    steps: tuple[str, ...]
    verdict: Verdict
    notes: tuple[str, ...]
    hosts: Hosts | None = None

    @property
    def runtime(self) -> str:
        """As people call it."""
        return RUNTIMES[self.settings.runtime]


def own_hosts(image: Reference, asked: Asked) -> set[str]:
    """Where CRI-O shows the credential that the kubelet hands over from the pod's imagePullSecrets: the registries of
    the names that it takes the image for, which a short name makes others than the kubelet's."""
    return {candidate.domain for candidate in asked.candidates} or {image.domain}


def is_short_name(typed: str) -> bool:
    """Whether CRI-O completes a name by its aliases and search registries, instead of taking it as Docker Hub's."""
    first, slash, _ = typed.partition("/")
    return not slash or not reference.is_registry_host(first)


def named_key(key: str) -> str:
    """A key as it is shown, within a sentence, in which blanks around it would not be seen."""
    shown = shown_key(key)
    if key != key.strip() and shown == key.strip():
        return repr(key)
    return shown or repr(shown)
