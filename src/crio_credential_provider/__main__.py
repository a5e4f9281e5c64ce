"""The program: a command word is for a person; everything else is a kubelet, which may pass flags.

Leaves with ``os._exit`` once everything is written: tearing the interpreter down costs more than a run needs.
"""

from __future__ import annotations

import errno
import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

COMMANDS = ("completion", "demo", "doctor", "explain", "gc", "manifests", "verify")

FAULT, USAGE_FAULT = 1, 2


def main() -> NoReturn:
    """Runs the program with the process's arguments, and ends the process."""
    # A run lives for milliseconds and makes few cycles.
    gc.disable()
    _hold_standard_streams()
    try:
        status = _run(sys.argv[1:])
    except KeyboardInterrupt:
        status = 130
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
    if sys.stdout is None and not text:
        return
    try:
        if sys.stdout is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        from . import journal

        journal.complain(f"standard output cannot be written to: {error.strerror}")
        os._exit(FAULT)


def _run(arguments: list[str]) -> int:
    from .errors import UsageError

    if arguments and arguments[0] in COMMANDS:
        from . import cli

        return cli.run(arguments)
    for argument in arguments:
        if argument in ("--version", "-version"):
            from . import version

            _say(version.as_text())
            return 0
        if argument in ("--version-json", "-version-json"):
            from . import version

            _say(version.as_json())
            return 0
        if argument in ("--help", "-h", "-help"):
            from . import help

            _say(help.text())
            return 0
    from . import journal, plugin

    # Whatever else the interpreter would print of an exception may quote anything.
    sys.unraisablehook = lambda _: None
    sys.excepthook = lambda _kind, error, _trace: journal.complain(plugin.internal_error(error))
    try:
        if not arguments and os.isatty(0):
            raise UsageError(
                "the kubelet runs this program, with a CredentialProviderRequest on standard input",
                "--help lists the flags and commands",
            )
        return plugin.run(arguments, os.environ)
    except UsageError as error:
        journal.complain(str(error))
        return USAGE_FAULT


if __name__ == "__main__":
    main()
