"""The program: a command word is for a person; everything else is a kubelet, which may pass flags.

Leaves with ``os._exit`` once everything is written: tearing the interpreter down costs more than a run needs.
"""

from __future__ import annotations

import errno
import gc
import os
import sys

from .errors import UsageError, masked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

COMMANDS = (
    *("audit", "completion", "demo", "doctor", "explain", "gc", "install", "install-on-node", "manifests", "metrics"),
    *("rollback", "status", "uninstall", "verify"),
)
_OWN_PAGE = ("help", "version")
"""What ``help`` tells of on the program's own page, beside the flags."""

FAULT, USAGE_FAULT = 1, 2

_SELF = "/proc/self/exe"


def main() -> NoReturn:
    """Runs the program with the process's arguments, and ends the process."""
    # A run lives for milliseconds and makes few cycles.
    gc.disable()
    _hold_standard_streams()
    try:
        status = _run(sys.argv[1:])
    except KeyboardInterrupt as interrupt:
        # The signal that ended a command (commands/__init__.py), as a shell tells it.
        status = 128 + (interrupt.args[0] if interrupt.args else 2)
    except ImportError as error:
        # Not plugin.run's, which has a guard of its own.
        from .platform import journal

        # The executable reads its modules from itself, which takes more than to execute it.
        unreadable = __file__.startswith(_SELF) and not os.access(_SELF, os.R_OK)
        remedy = "this user cannot read the program: chmod 0755" if unreadable else "install it again"
        journal.complain(f"this installation is incomplete; {remedy}: {error}")
        status = FAULT
    _say("")
    os._exit(status)


def _hold_standard_streams() -> None:
    """A standard stream that is closed stays one that cannot be used: no file that is opened later takes its number."""
    for stream in (0, 1, 2):
        try:
            os.fstat(stream)
            continue
        except OSError:
            pass
        try:
            os.open(os.devnull, os.O_WRONLY if stream == 0 else os.O_RDONLY)
        except OSError:
            return


def _say(text: str) -> None:
    """Writes to standard output, with what was written before; ends the process where that fails."""
    try:
        if sys.stdout is not None:
            sys.stdout.write(text)
            sys.stdout.flush()
        elif text:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    except BrokenPipeError:
        # Whoever reads has seen enough.
        os._exit(FAULT)
    except OSError as error:
        from .platform import journal

        journal.complain(f"cannot write to standard output: {error.strerror}")
        os._exit(FAULT)


def _run(arguments: list[str]) -> int:
    try:
        if arguments and not arguments[0].startswith("-"):
            arguments = _command(arguments)
            if arguments[0] in COMMANDS:
                from . import commands

                return commands.run(arguments)
        return _run_flags(arguments)
    except UsageError as error:
        from .commands import help
        from .platform import journal

        journal.complain(help.with_near_miss(error))
        return USAGE_FAULT


def _command(arguments: list[str]) -> list[str]:
    """The arguments, with the words ``help`` and ``version`` as the flags that they mean."""
    word, *rest = arguments
    if word == "help":
        on_own_page = not rest or rest[0] in _OWN_PAGE or rest[0].startswith("-")
        return ["--help"] if on_own_page else _command([rest[0], "--help"])
    if word == "version":
        return ["--version", *rest]
    if word not in COMMANDS:
        raise UsageError(f"unknown command {masked(word)!r}", "--help lists the flags and commands", unknown=word)
    return arguments


def _run_flags(arguments: list[str]) -> int:
    for argument in arguments:
        if argument in ("--version", "-version"):
            from . import version

            _say(version.as_text())
            return 0
        if argument in ("--version-json", "-version-json"):
            from . import version

            _say(version.as_json())
            return 0
        if argument in ("--licenses", "-licenses"):
            from . import version

            _say(version.licenses())
            return 0
        if argument in ("--help", "-h", "-help"):
            from .commands import help

            _say(help.text())
            return 0
    if not arguments and os.isatty(0):
        raise UsageError(
            "the kubelet runs this program, with a CredentialProviderRequest on standard input",
            "--help lists the flags and commands",
        )
    from .platform import journal
    from .pull import audit, plugin

    # Whatever else the interpreter would print of an exception may quote anything.
    sys.unraisablehook = lambda _: None
    sys.excepthook = lambda _kind, error, _trace: journal.complain(audit.internal_error(error))
    # Nothing is buffered: the answer goes to the descriptor, and what failed of it is told.
    os._exit(plugin.run(arguments, os.environ))


if __name__ == "__main__":
    main()
