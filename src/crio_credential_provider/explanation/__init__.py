"""What a pull will do, step by step, each step with its reason: the plugin's own decision, told to a person.

Calls what the plugin calls (``decision``) and adds what the core had no reason to keep: which files were read, which
tables and keys only almost fit, what the runtime will do with the outcome. Decides nothing a second time. Never holds a
credential: secrets appear by their names and keys.

    explained = explain(request, settings, connect, reference.parse("nginx:1.27"), "nginx:1.27")
    print(explained.verdict.text)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ..errors import ProviderError
from ..images.dockerconfig import shown_key
from ..images.reference import Reference
from ..pull import decision
from ..pull.resolution import Resolution
from ..settings import CONTAINERD, Settings
from . import containerd, outcome, sources, tables, unusable, writing
from .records import (
    FAILED,
    NO_TABLES,
    NODE,
    NODE_HELPER,
    NOTHING_ASKED,
    PASSED,
    RUN_AS_ROOT,
    RUNTIMES,
    SECRET,
    UNDECIDED,
    UNKNOWN,
    Explanation,
    Hosts,
    NotAsked,
    OtherKey,
    Shown,
    Source,
    Table,
    Tables,
    auth_file_of_node,
    is_short_name,
    named_key,
    own_hosts,
)

if TYPE_CHECKING:
    from ..kubernetes.credentialprovider import Request
    from ..kubernetes.pullsecrets import Cluster
    from ..runtimes.crio.registriestext import Ignored

__all__ = [
    "FAILED",
    "NODE",
    "NODE_HELPER",
    "PASSED",
    "SECRET",
    "UNDECIDED",
    "UNKNOWN",
    "Explanation",
    "Hosts",
    "NotAsked",
    "OtherKey",
    "Shown",
    "Source",
    "Table",
    "Tables",
    "auth_file_of_node",
    "explain",
    "failed",
    "is_short_name",
    "named_key",
    "own_hosts",
    "shown_key",
]


def explain(
    request: Request,
    settings: Settings,
    connect: Callable[[], Cluster],
    image: Reference | None = None,
    typed: str = "",
    notes: Iterable[str] = (),
    *,
    enforcing: bool = True,
    on_node: bool = False,
) -> Explanation:
    """Explains a pull.

    Args:
        request, settings, connect: as for ``decision.resolve``; ``connect`` may raise ``NotAsked`` as well. A
            ``global_auth_file`` of "" is one that is not known. The ``runtime`` is not ``auto``.
        image: with tag and digest; None where only the request is known, and both kinds of references are told of.
        typed: the image as the pod spells it, from which CRI-O sees whether it is a short name.
        notes: taken over.
        enforcing: whether CRI-O refuses a short name that may mean several images: its short_name_mode.
        on_node: whether this process runs where the plugin does, and as its user: the auth directory is looked at.
    """
    resolution: Resolution | None = None
    error: ProviderError | None = None
    seen = unusable.Seen(connect)
    try:
        resolution = decision.begin(request)
        decision.complete(resolution, request, settings, seen.connect)
    except ProviderError as raised:
        error = _as_seen_by_root(raised, settings)
        if resolution is None:
            return failed(error, settings, typed, notes)
    if settings.runtime == CONTAINERD:
        return containerd.explain(request, settings, resolution, error, seen, image or resolution.image, typed, notes)
    return _of_crio(request, settings, resolution, error, seen, image, typed, notes, enforcing, on_node)


def _of_crio(
    request: Request,
    settings: Settings,
    resolution: Resolution,
    error: ProviderError | None,
    seen: unusable.Seen,
    image: Reference | None,
    typed: str,
    notes: Iterable[str],
    enforcing: bool,
    on_node: bool,
) -> Explanation:
    auth_file = outcome.auth_file(resolution, settings)
    if on_node and auth_file is not None and (refused := writing.why_not(auth_file.path)) is not None:
        # Nothing of the namespace comes to CRI-O.
        error, auth_file, resolution.auth_file, resolution.selection = refused, None, None, None
    configured = tables.find_tables(resolution, settings)
    ignored: tuple[Ignored, ...] = ()
    if resolution.config:
        unread = tables.find_unread(resolution.config, settings)
        ignored = (*tables.find_ignored(configured.files), *unread)
    asked = NOTHING_ASKED
    if resolution.config and image:
        asked = sources.find_asked(resolution.config, image, typed, enforcing, ignored)
    spoilt = unusable.find(seen, resolution, request.token, settings)
    found = tuple(sources.find_sources(resolution, settings, error, asked, image, typed, spoilt))
    verdict = outcome.verdict(resolution, error, found, asked, settings, spoilt, configured)
    return Explanation(
        typed=typed,
        image=image or resolution.image,
        resolution=resolution,
        settings=settings,
        error=error,
        tables=configured,
        asked=asked,
        sources=found,
        auth_file=auth_file,
        answer=outcome.answer(resolution, request, settings) if error is None else None,
        exit_status=outcome.exit_status(error),
        steps=()
        if isinstance(error, NotAsked)
        else tuple(outcome.steps(resolution, found, auth_file, asked, settings)),
        verdict=tables.mend(verdict, found, ignored),
        notes=(
            *notes,
            *tables.notes_on_home(configured.files),
            *tables.notes_on_ignored(ignored),
            *sources.notes_on_node(resolution, settings),
            *sources.notes_on_padding(resolution),
        ),
    )


def _as_seen_by_root(error: ProviderError, settings: Settings) -> ProviderError:
    """What only this user may not read, the runtime and the plugin may: no pull fails of it."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, PermissionError):
        cause = cause.__context__
    return (
        error
        if cause is None or not os.geteuid()
        else NotAsked(error.message, RUN_AS_ROOT.replace("CRI-O", RUNTIMES[settings.runtime]))
    )


def failed(error: ProviderError, settings: Settings, typed: str = "", notes: Iterable[str] = ()) -> Explanation:
    """A pull of which nothing is known but that the plugin stops at once."""
    return Explanation(
        typed=typed,
        image=None,
        resolution=None,
        settings=settings,
        error=error,
        tables=NO_TABLES,
        asked=NOTHING_ASKED,
        sources=(),
        auth_file=None,
        answer=None,
        exit_status=outcome.exit_status(error),
        steps=(),
        verdict=outcome.verdict_of_error(error),
        notes=tuple(notes),
    )
