"""The files of the configuration, the table that matches, and those that nearly do."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator
from itertools import takewhile

from ..errors import ConfigError
from ..pull.resolution import Resolution
from ..runtimes.crio import pullsources, registries, registriesfile
from ..runtimes.crio.registriestext import Ignored, Written
from ..settings import Settings
from . import near
from .records import MOST_TOLD, PASSED, File, Match, OtherTable, Source, Table, Tables, Verdict


def find_tables(resolution: Resolution, settings: Settings) -> Tables:
    """What the configuration says of the resolution's image; the files alone where it could not be loaded."""
    # Files may have changed since this process last explained a pull.
    _written.cache_clear()
    files = _files(settings)
    config, name = resolution.config, resolution.image.name
    if config is None:
        return Tables(files, None, (), 0)
    match = _match(config, name, files)
    return Tables(files, match, *_other_tables(config, name, match))


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
        prefixes = frozenset(registries.load(search).prefixes())
    except ConfigError as error:
        complaint = error.message.removeprefix(path).removeprefix(f":{error.line}").removeprefix(": ")
        return File(path, f"line {error.line}: {complaint}" if error.line else complaint, frozenset())
    return File(path, "read" if os.path.exists(path) else "missing", prefixes)


def find_ignored(files: Iterable[File]) -> tuple[Ignored, ...]:
    """What CRI-O ignores in the files that it takes."""
    return tuple(found for file in files if file.state == "read" for found in _written(file.path).ignored())


def find_unread(config: registries.Configuration, settings: Settings) -> Iterator[Ignored]:
    """Files beside the drop-ins whose names keep them from being read."""
    directory = settings.registries_conf_dir or settings.root + registries.DROP_IN_DIRECTORY
    try:
        names = [] if os.path.islink(directory) else sorted(os.listdir(directory))
    except OSError:
        return
    for name in names:
        path = os.path.join(directory, name)
        if not name.endswith(".conf") and os.path.isfile(path):
            try:
                data = registriesfile.read(path, required=False) or b""
            except ConfigError:
                continue
            found = registriesfile.unread_drop_in(path, data, config.prefixes())
            yield from [found] if found else []


def notes_on_ignored(ignored: Iterable[Ignored]) -> Iterator[str]:
    for found in ignored:
        yield f"CRI-O ignores {found.key} at {found.place}: {found.text}. To do: {found.remedy}"


def mend(verdict: Verdict, found: tuple[Source, ...], ignored: tuple[Ignored, ...]) -> Verdict:
    """A verdict that finds nothing to do, while somebody wrote what CRI-O ignores: what to do about that."""
    mistakes = [mistake for mistake in ignored if mistake.is_mistake]
    if not mistakes or verdict.remedy or verdict.status != PASSED or any(source.is_wanted for source in found):
        return verdict
    first = mistakes[0]
    text = f"{verdict.text}. CRI-O ignores {first.key} at {first.place}: {first.text}"
    return verdict._replace(text=text, remedy=first.remedy)


@functools.lru_cache(maxsize=32)
def _written(path: str) -> Written:
    """A file as it is written; nothing where it cannot be read."""
    try:
        return registriesfile.written(path, registriesfile.read(path, required=False) or b"")
    except ConfigError:
        return Written(path, {}, "")


def notes_on_home(files: Iterable[File]) -> Iterator[str]:
    """Files that count because of who runs this command."""
    home = os.path.expanduser("~")
    for file in files:
        if file.state != "missing" and file.path.startswith(f"{home}/.config/") and home != "/root":
            yield (
                f"{file.path} is read because HOME is {home}; CRI-O and the plugin use the home directory "
                "of the user they run as, usually root"
            )


def _match(config: registries.Configuration, name: str, files: Iterable[File]) -> Match | None:
    found = pullsources.find_registry(config, name)
    if found is None:
        return None
    replaced = [
        Table(found.prefix, file.path, _line(file.path, found.prefix))
        for file in files
        if found.prefix in file.prefixes and file.path != found.file
    ]
    return Match(Table(found.prefix, found.file, _line(found.file, found.prefix)), found, tuple(replaced))


def _line(path: str, prefix: str) -> int:
    """The line on which a table begins; 0 where it has none, as in the version 1 format."""
    text = _written(path)
    return text.line(text.table(prefix))


def _other_tables(
    config: registries.Configuration, name: str, match: Match | None
) -> tuple[tuple[OtherTable, ...], int]:
    """Tables that nearly apply, nearest first, and how many tables are not told of."""
    matching = set(pullsources.possible_prefixes(name))
    found: list[tuple[int, int, str, str]] = []
    for prefix in config.prefixes():
        if match is not None and prefix == match.table.prefix:
            continue
        if prefix in matching:
            assert match is not None
            longest = match.table.prefix
            shorter = len(prefix) < len(longest)
            why = f"is shorter than {longest}" if shorter else f"has the same length as {longest} and sorts after it"
            found.append((0, 0, prefix, f"it matches, but {why}"))
        elif (why_not := near.why_table(prefix, name)) is not None:
            found.append((why_not[0], -_in_common(prefix, name), prefix, why_not[1]))
    found.sort()
    told = [OtherTable(_table(config, prefix), why) for _, _, prefix, why in found[:MOST_TOLD]]
    return tuple(told), len(config.prefixes()) - len(told) - (match is not None)


def _in_common(one: str, other: str) -> int:
    """Letters with which both begin."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def place(match: Match | None, location: str, key: str = "location") -> str:
    """FILE:LINE of a key beside a location of the table that matches."""
    if match is None or location not in (match.registry.location, *(m.location for m in match.registry.mirrors)):
        return "registries.conf"
    text = _written(match.table.file)
    found = text.location(match.table.prefix, location)
    return text.place((*found[:-1], key) if found else text.table(match.table.prefix))


def place_of_helpers(files: Iterable[File]) -> str:
    """FILE:LINE of the credential-helpers that count: the last ones."""
    found = [_written(file.path).place(_HELPERS) for file in files if _written(file.path).line(_HELPERS)]
    return found[-1] if found else "registries.conf"


_HELPERS = ("credential-helpers",)


def _table(config: registries.Configuration, prefix: str) -> Table:
    file = config.table(prefix).file
    return Table(prefix, file, _line(file, prefix))
