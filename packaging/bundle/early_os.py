"""What a pull needs of ``os``; in the bundle this is the module ``os`` until something asks for more.

The standard library's takes 4 M instructions, a fifth of a run, nearly all of them for the abstract classes of
``collections.abc``. Whatever is not here, in a name or in what it does, is that one's: ``_bundle.finish`` (program.c)
runs its code in this very module, so that everybody has the same ``os`` from then on.
"""

from __future__ import annotations

import posixpath as path
import sys
from posix import *  # noqa: F403
from posix import _exit, environ, fspath, mkdir  # noqa: F401

sys.modules["os.path"] = path

name = "posix"
devnull = "/dev/null"


def fsencode(filename: str | bytes) -> bytes:
    filename = fspath(filename)
    return filename.encode("utf-8", "surrogateescape") if isinstance(filename, str) else filename


def fsdecode(filename: str | bytes) -> str:
    filename = fspath(filename)
    return filename.decode("utf-8", "surrogateescape") if isinstance(filename, bytes) else filename


# Read-only, as changes would not reach the process's environment.
environ = type(type.__dict__)({fsdecode(key): fsdecode(value) for key, value in environ.items()})


def makedirs(name: str, mode: int = 0o777, exist_ok: bool = False) -> None:
    head, tail = path.split(name)
    if not tail:
        head, tail = path.split(head)
    if head and tail and not path.exists(head):
        try:  # noqa: SIM105 (no contextlib here)
            makedirs(head, exist_ok=exist_ok)
        except FileExistsError:
            pass  # somebody else was faster
        if tail == ".":
            return
    try:
        mkdir(name, mode)
    except OSError:
        if not exist_ok or not path.isdir(name):
            raise


def __getattr__(name: str) -> object:
    import _bundle

    _bundle.finish()
    if name in globals():
        return globals()[name]
    raise AttributeError(f"module 'os' has no attribute {name!r}")
