"""Files written whole: whoever opens one finds the old content or the new."""

from __future__ import annotations

import contextlib
import os
import tempfile


def state(place: str, text: str) -> str:
    """What writing a text there comes to: ``written``, ``overwritten`` or ``unchanged``."""
    try:
        with open(place, encoding="utf-8", newline="") as file:
            return "unchanged" if file.read() == text else "overwritten"
    except FileNotFoundError:
        return "written"
    except UnicodeDecodeError:
        return "overwritten"


def replace(place: str, text: str, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Writes a file.

    Args:
        owner: user and group; None for those of this process.
    """
    try:
        descriptor, fresh = tempfile.mkstemp(dir=os.path.dirname(place), prefix=".manifests-")
    except OSError as error:
        raise OSError(error.errno, error.strerror, place) from None
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            if owner is not None and owner != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), *owner)
            os.fsync(file.fileno())
        os.replace(fresh, place)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise
