"""``crio-credential-provider gc``: removes auth files that no pull will take, and prints them first.

The plugin sweeps after each run by the same rules (``pull.sweep``); this is for a node where it runs no more, and for
what it never touches: files in use by a CRI-O that is gone. Knows the command line and what a person is told; never
opens an auth file.
"""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from .. import settings
from ..errors import AuthFileError, ConfigError, UsageError
from ..kubernetes.pullintents import PullIntents
from ..node.takenfiles import IN_USE, find_taken
from ..pull import authfile, handoff, sweep
from ..pull.handoff import Line
from ..pull.sweep import Stale
from ..settings import FLAGS_BY_NAME, Settings
from .output import (
    OK,
    SCHEMA_VERSION,
    Parser,
    Unwritable,
    add_output,
    as_json,
    make_parser,
    printable,
    serve,
    there,
    write_line,
)
from .request.place import Place, RefusedArguments, load_settings, look

FLAGS = ("auth-dir", "kubelet-root-dir", "stale-after", "cache-dir", "root")
"""The plugin's flags that count here as well: as the kubelet gives them to it, else with its defaults."""

_IN_USE_AFTER = "24h"
_IN_USE_AFTER_BOUNDS = 60, 240 * 3600
"""Seconds: no pull is given less than a minute."""

_LEFT = (sweep.TAKEN, sweep.REPLACED, sweep.IN_TURN)

_NO_INTENTS = "this kubelet has no pull intents"

_DESCRIPTION = """\
Removes stale files from CRI-O's namespaced auth directory: auth files that no pull intent
of the kubelet names, and temporary files of runs that were killed. Prints what it is going to remove,
how old it is and why, before it removes anything. The files' contents are not read.

The plugin does the same after each run, so that this is only needed where it no longer runs.
Flags not given are taken from the kubelet's CredentialProviderConfig, as by explain.
"""
_EPILOG = """\
The kubelet and CRI-O may be running: a file that is taken or replaced in the meantime is skipped.
--in-use removes what was taken before the running CRI-O was started, and, by age alone, what is older than
--in-use-after: a pull that is still running then (a large image over a slow network) loses its credentials,
so give more time than any pull takes.

Examples:
  crio-credential-provider gc --dry-run                      what would be removed
  crio-credential-provider gc                                remove it
  crio-credential-provider gc --in-use                       also what a crash of CRI-O left in in-use/
  crio-credential-provider gc --dry-run --output json        for a program

Exit status: 0 done, or nothing to do; 1 an error, reported on stderr; 2 wrong usage.
"""


class Doomed(NamedTuple):
    """A file that is going to be removed: path, seconds of age, why, and what removes it.

    ``remove`` returns why the file was left, or "".
    """

    path: str
    age: float
    why: str
    remove: Callable[[], str]


def run(arguments: list[str]) -> int:
    """As ``commands.run``, for the arguments after the word."""
    return serve("gc", lambda: _sweep(parser().parse(arguments)))


def _sweep(given: argparse.Namespace) -> int:
    place = look(given)
    chosen = _settings(given, place)
    if given.auth_dir and not _is_readable(chosen.auth_dir):
        raise AuthFileError(f"--auth-dir: {chosen.auth_dir}: no such directory")
    intents = PullIntents(chosen.kubelet_root_dir)
    in_use_after = _in_use_after(given)
    doomed = list(_find(chosen, intents, in_use_after, place.crio_started, dry=given.dry_run))
    report = _as_json if given.output == "json" else _as_text
    if place.note and report is _as_text:
        _say(f"Note: {place.note}")
    return report(chosen, intents, doomed, dry=given.dry_run, in_use_after=in_use_after)


# -- the command line -------------------------------------------------------------------------------------------------


def parser() -> Parser:
    """The command line."""
    made = make_parser("gc", _DESCRIPTION, _EPILOG)
    for name in FLAGS:
        flag = FLAGS_BY_NAME[name]
        default = f" (default {flag.default})" if flag.default else ""
        options: dict[str, Any] = {"type": there("directory")} if name == "root" else {}
        text = f"{flag.help}{default}".replace("%", "%%")
        made.add_argument(f"--{name}", metavar=flag.metavar, help=text, **options)
    made.add_argument(
        "--in-use", action="store_true", help="also remove files that CRI-O took for a pull and did not remove after it"
    )
    made.add_argument(
        "--in-use-after",
        metavar="DURATION",
        help=f"age, since it was written, from which such a file is removed (default {_IN_USE_AFTER})",
    )
    made.add_argument("--dry-run", action="store_true", help="only print what would be removed")
    add_output(made)
    return made


def _settings(given: argparse.Namespace, place: Place) -> Settings:
    """What the plugin would take these flags, and its variables of the same names, for.

    Raises:
        ConfigError: the plugin would refuse what the CredentialProviderConfig says.
    """
    texts = {name: getattr(given, FLAGS_BY_NAME[name].attribute) for name in FLAGS}
    texts["root"] = given.root and os.path.abspath(given.root)
    try:
        found = load_settings([f"--{name}={text}" for name, text in texts.items() if text is not None], place)
    except RefusedArguments as error:
        raise ConfigError(f"{error.path}: {error.message}", error.hint) from None
    configured = settings.loads(place.arguments, place.variables)
    if found.root != configured.root:
        # What that node's kubelet names is below the root as well: no file of this machine is meant.
        for flag in (FLAGS_BY_NAME[name] for name in FLAGS if texts[name] is None):
            path = vars(configured).get(flag.attribute)
            if flag.is_path and path:
                setattr(found, flag.attribute, f"{found.root}{path}")
    return found


def _in_use_after(given: argparse.Namespace) -> float | None:
    """Seconds; None where in-use is not to be looked into."""
    text = given.in_use_after
    if text is not None and not given.in_use:
        raise UsageError("--in-use-after requires --in-use")
    try:
        return settings.duration(*_IN_USE_AFTER_BOUNDS)(text or _IN_USE_AFTER) if given.in_use else None
    except ValueError as error:
        raise UsageError(f"--in-use-after: {text!r} is not {error}") from None


# -- what is to be removed --------------------------------------------------------------------------------------------


def _find(
    chosen: Settings, intents: PullIntents, in_use_after: float | None, crio_started: float, *, dry: bool
) -> Iterator[Doomed]:
    """Files to remove, oldest first in each directory.

    Raises:
        AuthFileError: a directory cannot be read, or there is no lock to remove under.
    """
    directory = chosen.auth_dir
    if not _is_readable(directory):
        return
    stale = sweep.find_stale(directory, chosen.stale_after, intents)
    cache_dir = chosen.cache_dir if stale and not dry else ""
    line = Line(cache_dir)
    if cache_dir and not line.works:
        raise AuthFileError(
            f"cannot lock {os.path.join(cache_dir, handoff.LOCK_FILE)}, which keeps runs of the plugin from using the "
            "same file",
            "run this as root, or name another directory with --cache-dir",
        )
    for file in sorted(stale, key=lambda file: (-file.age, file.name)):
        remove = functools.partial(sweep.remove_stale, directory, file, line)
        yield Doomed(os.path.join(directory, file.name), file.age, _why_stale(file, intents), remove)
    if in_use_after is not None:
        yield from _find_taken(directory, in_use_after, crio_started)


def _is_readable(directory: str) -> bool:
    """Whether it is there at all. AuthFileError where it is, and cannot be read."""
    try:
        with os.scandir(directory):
            return True
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unreadable(directory, error) from None


def _unreadable(directory: str, error: OSError) -> AuthFileError:
    denied = isinstance(error, PermissionError)
    hint = "run this as root, or name another directory with --auth-dir" if denied else "check --auth-dir"
    return AuthFileError(f"cannot read the directory {directory}: {error.strerror}", hint)


def _why_stale(file: Stale, intents: PullIntents) -> str:
    if authfile.is_temporary(file.name):
        return "left by a run of the plugin that was killed"
    if intents.available():
        return "the kubelet has no pull of this repository pending"
    return f"no pull took it, and {'not all pull intents can be read' if intents.is_kept() else _NO_INTENTS}"


def _find_taken(auth_dir: str, after: float, crio_started: float) -> Iterator[Doomed]:
    """Files that CRI-O took and cannot be using any more. Their names are never used again."""
    try:
        taken = find_taken(auth_dir, crio_started)
    except OSError as error:
        raise _unreadable(os.path.join(auth_dir, IN_USE), error) from None
    for file in taken:
        if file.is_orphan:
            why = "the CRI-O that took it does not run any more"
        elif file.age >= after:
            why = "CRI-O took it for a pull that cannot be running any more"
        else:
            continue
        yield Doomed(file.path, file.age, why, functools.partial(_unlink, file.path))


def _unlink(path: str) -> str:
    """Why the file was left, "" where it was removed, as ``sweep.remove_stale``."""
    try:
        os.unlink(path)
        return ""
    except FileNotFoundError:
        return sweep.TAKEN
    except OSError as error:
        return error.strerror or type(error).__name__


# -- text -------------------------------------------------------------------------------------------------------------


def _as_text(
    chosen: Settings, intents: PullIntents, doomed: list[Doomed], *, dry: bool, in_use_after: float | None
) -> int:
    for problem in intents.problems if intents.is_kept() else ():
        _say(f"Note: {problem}; until this is corrected, unused files are kept for an hour")
    if not doomed:
        _say(f"Nothing to do: {_nothing(chosen, in_use_after)}")
        return OK
    _say(f"{'Would remove' if dry else 'Going to remove'} {_count(len(doomed))}:")
    for file in doomed:
        _say(f"  {file.path}")
        _say(f"    {_age(file.age)} old: {file.why}")
    if dry:
        return OK
    left = [(file, reason) for file in doomed if (reason := file.remove())]
    _say(f"Removed {_count(len(doomed) - len(left))}.")
    for file, reason in left:
        if reason in _LEFT:
            _say(f"Skipped {file.path}: {reason}")
    _check(left)
    return OK


def _nothing(chosen: Settings, in_use_after: float | None) -> str:
    if not os.path.isdir(chosen.auth_dir):
        return f"{chosen.auth_dir}: no such directory"
    in_use = "" if in_use_after is None else f", and none in {IN_USE}/ that is older than {_age(in_use_after)}"
    return f"no stale file in {chosen.auth_dir}{in_use}"


def _check(left: list[tuple[Doomed, str]]) -> None:
    """Raises AuthFileError, in one line, for what the system would not let go."""
    failed = [(file, reason) for file, reason in left if reason not in _LEFT]
    if not failed:
        return
    file, reason = failed[0]
    what = file.path if len(failed) == 1 else f"{_count(len(failed))}, {file.path} first"
    hint = "run this as root, and check that the file system is not read-only"
    raise AuthFileError(f"cannot remove {what}: {reason}", hint)


def _count(number: int) -> str:
    return f"{number} file" if number == 1 else f"{number} files"


def _age(seconds: float) -> str:
    """The two largest units: ``3d 4h``, ``12m 5s``, ``40s``."""
    left, parts = int(seconds), []
    for name, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        number, left = divmod(left, size)
        parts.append((number, name))
    while len(parts) > 1 and not parts[0][0]:
        del parts[0]
    return " ".join(f"{number}{name}" for number, name in parts[:2] if number) or "0s"


def _say(text: str) -> None:
    _print(printable(text))


def _print(text: str) -> None:
    """Writes a line at once. Unwritable where that fails: nothing is removed that was not told."""
    try:
        write_line(text)
    except Unwritable as error:
        error.hint = "only what was printed was removed"
        raise


# -- JSON -------------------------------------------------------------------------------------------------------------


def _as_json(
    chosen: Settings, intents: PullIntents, doomed: list[Doomed], *, dry: bool, in_use_after: float | None
) -> int:
    """One object, whose first part is out before anything is removed."""
    told: dict[str, Any] = {
        "schemaVersion": SCHEMA_VERSION,
        "authDir": chosen.auth_dir,
        "hasPullIntents": intents.is_kept(),
        "problems": intents.problems if intents.is_kept() else [],
        "dryRun": dry,
        "inUseAfterSeconds": in_use_after,
        "files": [{"path": file.path, "ageSeconds": round(file.age, 3), "why": file.why} for file in doomed],
    }
    _print(as_json(told).removesuffix("\n}") + ",")
    left = [] if dry else [(file, reason) for file in doomed if (reason := file.remove())]
    kept = {file.path for file, _ in left}
    done = {
        "removed": [] if dry else [file.path for file in doomed if file.path not in kept],
        "left": [{"path": file.path, "why": reason} for file, reason in left],
    }
    _print(as_json(done).removeprefix("{\n"))
    _check(left)
    return OK
