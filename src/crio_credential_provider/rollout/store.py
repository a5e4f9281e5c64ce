"""What is kept of rollouts, below /var/lib/crio-credential-provider/rollout, for root alone.

    transaction.json  the rollout that is under way
    last.json         the one before, which ``rollback`` undoes
    installed.json    what is installed, and what was there before the first installation: a change like others
    kept/SHA256       contents that these name
    lock              held by a rollout

Every file is whole or not there. Contents are on the disk before a file names them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

from ..node.tree import Tree
from .changes import RolloutError, digest, sync

DIRECTORY = "/var/lib/crio-credential-provider/rollout"
INSTALLED = f"{DIRECTORY}/installed.json"
TRANSACTION, LAST = "transaction.json", "last.json"
_KEPT = "kept"


class Store:
    """The directory on one node.

    Args:
        tree: the node's files.
    """

    def __init__(self, tree: Tree) -> None:
        self.place = tree.real(DIRECTORY)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """The lock, of the open file: it ends with the process.

        Raises:
            RolloutError: another rollout has it.
            OSError: the directory cannot be made.
        """
        os.makedirs(os.path.join(self.place, _KEPT), mode=0o700, exist_ok=True)
        # Their names as well must outlive a loss of power.
        for above in (os.path.dirname(self.place), os.path.dirname(os.path.dirname(self.place))):
            sync(above)
        descriptor = os.open(os.path.join(self.place, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RolloutError("another install, uninstall or rollback is running on this node") from None
            yield
        finally:
            os.close(descriptor)

    def read(self, name: str) -> dict[str, Any] | None:
        """One of the documents; None where it is not there.

        Raises:
            RolloutError: it is not one of this program's.
        """
        path = os.path.join(self.place, name)
        try:
            with open(path, "rb") as file:
                value = json.loads(file.read())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError:
            value = None
        if not isinstance(value, dict) or value.get("format") != 1:
            raise RolloutError(f"{path} was not written by this version", "use the version that wrote it")
        return value

    def write(self, name: str, value: dict[str, Any]) -> None:
        self._write(os.path.join(self.place, name), dumps(value))

    def _write(self, path: str, content: bytes) -> None:
        fresh = f"{path}.new"
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            os.rename(fresh, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(fresh)
            raise
        sync(os.path.dirname(path))

    def rename(self, name: str, other: str) -> None:
        os.rename(os.path.join(self.place, name), os.path.join(self.place, other))
        sync(self.place)

    def remove(self, name: str) -> None:
        os.unlink(os.path.join(self.place, name))
        sync(self.place)

    # -- contents ------------------------------------------------------------------------------------------------------

    def keep(self, content: bytes) -> None:
        path = self._kept(digest(content))
        if not os.path.exists(path):
            self._write(path, content)

    def content(self, wanted: str) -> bytes:
        """The content with that digest.

        Raises:
            RolloutError: it is not kept, or not what it was.
        """
        path = self._kept(wanted)
        try:
            with open(path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            content = b""
        if digest(content) != wanted:
            raise RolloutError(f"{path} is missing or damaged", "put the file back from a backup")
        return content

    def _kept(self, name: str) -> str:
        return os.path.join(self.place, _KEPT, name)

    def sweep(self, wanted: Iterable[str]) -> None:
        """Removes contents that nothing names any more, and what a killed run left half written."""
        names = {*wanted}
        for name in os.listdir(os.path.join(self.place, _KEPT)):
            if name not in names:
                os.unlink(self._kept(name))
        for name in os.listdir(self.place):
            if name.endswith(".new"):
                os.unlink(os.path.join(self.place, name))


def dumps(value: dict[str, Any]) -> bytes:
    """A document of this directory."""
    return (json.dumps({"format": 1, **value}, indent=2) + "\n").encode()
