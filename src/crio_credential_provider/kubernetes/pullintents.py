"""Which images the kubelet is about to pull: its pull intents.

With KubeletEnsureSecretPulledImages (on since Kubernetes 1.35, kept on disk since 1.33) the kubelet keeps one file for
each image reference, from just after the plugin's answer until the pull is over, queueing included. Knows only these
files (docs/reference/contracts.md, 2).
"""

from __future__ import annotations

import json
import os
import time

from ..errors import ProviderError
from ..images import reference
from ..platform import regularfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DIRECTORY = "image_manager/pulling"
"""Below the kubelet's root directory."""

_PREFIX, _TEMPORARY = "sha256-", ".tmp"
"""How the kubelet names intents, and one that it is still writing, or was when it was killed."""

_SETTLED_NS = 100_000_000
"""Age in nanoseconds from which the directory's mtime tells its next change: a kernel before 6.13 counts it in ticks
of up to 10 ms, and the kubelet makes two changes for each intent, the temporary file and its renaming."""

_MAX_SIZE = 64 * 1024
"""Bytes of an intent; a real one has about 150."""

_GROUP, _KIND = "kubelet.config.k8s.io", "ImagePullIntent"
_VERSIONS = ("v1alpha", "v1beta")
"""And v1 itself; whatever another version means by its members is unknown."""


class PullIntents:
    """Reads the intents below a kubelet's root directory; again when the directory changed.

    Args:
        since: seconds since the epoch; what is older is of a kubelet that was killed, and stays until that very image
            is pulled. None: since the start of the kubelet that runs this process.

    Attributes:
        problems: what could not be used, and why, each once.
    """

    def __init__(self, kubelet_root: str, since: float | None = None) -> None:
        self._directory = os.path.join(kubelet_root, DIRECTORY)
        self._since = since
        self._changed = -1
        self._repositories: frozenset[str] = frozenset()
        self._is_complete = False
        self.problems: list[str] = []

    def is_kept(self) -> bool:
        """Whether this kubelet keeps intents at all."""
        return os.path.lexists(self._directory)

    def available(self) -> bool:
        """Whether they tell of every pull to come. Where one cannot be used, or the kubelet keeps none, somebody may be
        coming for any repository."""
        self._look()
        return self._is_complete

    def repositories(self) -> frozenset[str]:
        """Normalised names of the repositories that somebody is known to be about to pull or to be pulling from."""
        self._look()
        return self._repositories

    def _look(self) -> None:
        try:
            changed = os.stat(self._directory).st_mtime_ns
            if changed != self._changed:
                is_settled = time.time_ns() - changed > _SETTLED_NS
                self._load()
                self._changed = changed if is_settled else -1
        except OSError as error:
            self._repositories, self._is_complete, self._changed = frozenset(), False, -1
            self._problem(f"cannot read the pull intents in {self._directory}: {error.strerror}")

    def _load(self) -> None:
        if self._since is None:
            # A keeper has another parent later.
            self._since = kubelet_start()
        found = set()
        is_complete = True
        for name in os.listdir(self._directory):
            if not name.startswith(_PREFIX) or name.endswith(_TEMPORARY):
                continue
            path = os.path.join(self._directory, name)
            try:
                if os.stat(path).st_mtime < self._since:
                    continue
                intent = regularfile.read(path, _MAX_SIZE)
                found.add(reference.parse(_image(intent)).name)
            except FileNotFoundError:
                # The ordinary end of an intent.
                continue
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ProviderError) as error:
                is_complete = False
                self._problem(f"pull intent {name} cannot be used: {type(error).__name__}")
        self._repositories, self._is_complete = frozenset(found), is_complete

    def _problem(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)


def kubelet_start() -> float:
    """When the kubelet that runs this process was started; 0.0 where something else runs it.

    proc(5): the second field of stat is the name, in parentheses, the 22nd is in ticks since the boot.
    """
    try:
        with open(f"/proc/{os.getppid()}/stat", "rb") as file:
            before, _, fields = file.read().rpartition(b") ")
        if before.partition(b"(")[2] != b"kubelet":
            return 0.0
        uptime = int(fields.split()[19]) / os.sysconf("SC_CLK_TCK")
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + uptime
    except (OSError, ValueError, IndexError):
        return 0.0


def _image(data: bytes) -> Any:
    """What an intent names. Any of the errors above if it is not of a known form."""
    intent = json.loads(data.decode())
    group, _, version = intent.get("apiVersion", f"{_GROUP}/v1").partition("/")
    if intent["kind"] != _KIND or group != _GROUP or not (version == "v1" or version.startswith(_VERSIONS)):
        raise ValueError
    return intent["image"]
