"""Journal entries of the plugin, in order, from ``journalctl``."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

from ...errors import ProviderError
from ...platform.journal import IDENTIFIER

_FIELDS = ("OUTCOME", "REASON_CODE", "DURATION_US", "HAND_OFF_US", "SWEPT", "KEEPER")
_LONGEST_COMPLAINT = 300


class JournalError(ProviderError):
    """The journal cannot be read."""

    fault = "journal"


def read(cursor: str) -> Iterator[dict[str, Any]]:
    """Entries after a cursor, all for "".

    Only what processes of this user have sent: others can send an entry of any content.

    Raises:
        JournalError: there is no journalctl, or it failed. What was yielded before may be a part.
    """
    command = [
        *("journalctl", "--quiet", "--no-pager", "--output=json", f"--output-fields={','.join(_FIELDS)}"),
        # Not --after-cursor, which in systemd 252 skips an entry where that of the cursor is gone.
        *([f"--cursor={cursor}"] if cursor else []),
        *(f"_UID={os.geteuid()}", f"SYSLOG_IDENTIFIER={IDENTIFIER}"),
    ]
    with tempfile.TemporaryFile() as complaints:
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints)
        except OSError as error:
            hint = "run this as root" if isinstance(error, PermissionError) else "it is part of systemd"
            raise JournalError(f"cannot run journalctl: {(error.strerror or '').lower()}", hint) from None
        with process:
            assert process.stdout is not None
            try:
                for number, line in enumerate(process.stdout):
                    entry = json.loads(line)
                    if number or not _is_same(entry["__CURSOR"], cursor):
                        yield entry
                process.wait()
            except (ValueError, KeyError, TypeError):
                raise JournalError("journalctl wrote something that is not a journal entry") from None
            finally:
                process.kill()
        if process.returncode:
            complaints.seek(0)
            told = complaints.read(_LONGEST_COMPLAINT).decode(errors="replace").strip().partition("\n")[0]
            hint = "run this as root" if "permission" in told.lower() else ""
            raise JournalError(f"journalctl failed: {told or f'exit status {process.returncode}'}", hint)


def _is_same(cursor: str, other: str) -> bool:
    """Whether two cursors are of one entry: its boot, times and content. The rest names the journal file, which changes
    when journald moves its entries from /run to /var."""
    return bool(other) and _entry(cursor) == _entry(other)


def _entry(cursor: str) -> set[str]:
    return {part for part in cursor.split(";") if part[:2] in ("b=", "m=", "t=", "x=")}
