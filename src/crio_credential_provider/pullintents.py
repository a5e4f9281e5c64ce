"""Which images the kubelet is about to pull: its pull intents.

With KubeletEnsureSecretPulledImages (on since Kubernetes 1.35, kept on disk since 1.33) the kubelet keeps one file for
each image reference, from just after the plugin's answer until the pull is over, queueing included. Knows only these
files (docs/contracts.md, 2).
"""

from __future__ import annotations

import os
import time

from . import native, reference
from .errors import ProviderError

DIRECTORY = "image_manager/pulling"
"""Below the kubelet's root directory."""

_PREFIX, _TEMPORARY = "sha256-", ".tmp"
"""How the kubelet names intents, and one that it is still writing, or was when it was killed."""

_SETTLED_NS = 100_000_000
"""Age in nanoseconds from which the directory's mtime tells its next change: a kernel before 6.13 counts it in ticks
of up to 10 ms, and the kubelet makes two changes for each intent, the temporary file and its renaming."""

_MAX_SIZE = 64 * 1024
"""Bytes of an intent; a real one has about 150."""


class PullIntents:
    """The intents of one kubelet, read again only when their directory changed.

    Args:
        kubelet_root: the kubelet's root directory, /var/lib/kubelet.

    Attributes:
        problems: what could not be read or parsed, and so counts as absent.
    """

    def __init__(self, kubelet_root: str) -> None:
        self._directory = os.path.join(kubelet_root, DIRECTORY)
        self._changed = -1
        self._repositories: frozenset[str] = frozenset()
        self.problems: list[str] = []

    def available(self) -> bool:
        """Whether this kubelet keeps intents at all."""
        return os.path.isdir(self._directory)

    def repositories(self) -> frozenset[str]:
        """Normalised names of the repositories that somebody is about to pull or is pulling from."""
        try:
            changed = os.stat(self._directory).st_mtime_ns
            if changed != self._changed:
                is_settled = time.time_ns() - changed > _SETTLED_NS
                self._repositories = self._load()
                self._changed = changed if is_settled else -1
        except OSError as error:
            self._problem(f"cannot read the pull intents in {self._directory}: {error.strerror}")
            return frozenset()
        return self._repositories

    def _load(self) -> frozenset[str]:
        found = set()
        for name in os.listdir(self._directory):
            if not name.startswith(_PREFIX) or name.endswith(_TEMPORARY):
                continue
            try:
                with open(os.path.join(self._directory, name), "rb") as file:
                    intent = native.loads(file.read(_MAX_SIZE).decode())
                if intent["kind"] == "ImagePullIntent":
                    found.add(reference.parse(intent["image"]).name)
            except FileNotFoundError:
                continue
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ProviderError) as error:
                self._problem(f"pull intent {name} cannot be used: {type(error).__name__}")
        return frozenset(found)

    def _problem(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)
