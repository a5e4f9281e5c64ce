"""The files of the configuration, the table that matches, and those that nearly do."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from itertools import takewhile

from .. import registries
from ..errors import ConfigError
from ..provider import Resolution
from ..settings import Settings
from . import near
from .records import MOST_TOLD, File, Match, OtherTable, Table, Tables


def find_tables(resolution: Resolution, settings: Settings) -> Tables:
    """What the configuration says of the resolution's image; the files alone where it could not be loaded."""
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
        prefixes = frozenset(registries.load(search, None).tables)
    except ConfigError as error:
        return File(path, error.message.removeprefix(f"{path}: "), frozenset())
    return File(path, "read" if os.path.exists(path) else "missing", prefixes)


def notes_on_home(files: Iterable[File]) -> Iterator[str]:
    """Files that count because of who runs this command."""
    home = os.path.expanduser("~")
    for file in files:
        if file.state != "missing" and file.path.startswith(f"{home}/.config/") and home != "/root":
            yield (
                f"{file.path} counts because HOME is {home}; CRI-O and the plugin have the home directory of whoever "
                "they run as, most likely root"
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
    found: list[tuple[int, int, str, str]] = []
    for prefix in config.tables:
        if match is not None and prefix == match.table.prefix:
            continue
        if prefix in matching:
            assert match is not None
            shorter = len(prefix) < len(match.table.prefix)
            why = "is shorter than" if shorter else "is as long as, and in byte order after,"
            found.append((0, 0, prefix, f"it matches, but {why} {match.table.prefix}"))
        elif (why_not := near.why_table(prefix, name)) is not None:
            found.append((why_not[0], -_in_common(prefix, name), prefix, why_not[1]))
    found.sort()
    told = [OtherTable(_table(config, prefix), why) for _, _, prefix, why in found[:MOST_TOLD]]
    return tuple(told), len(config.tables) - len(told) - (match is not None)


def _in_common(one: str, other: str) -> int:
    """Letters with which both begin."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _table(config: registries.Configuration, prefix: str) -> Table:
    file = config.tables[prefix][-1]
    return Table(prefix, file, _line(file, prefix))
