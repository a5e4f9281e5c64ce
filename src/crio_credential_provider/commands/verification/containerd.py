"""What containerd asks a host, and with which credential.

A host is only shown a credential that is for it: what containerd would show it besides, as a fallback, is not sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ... import registryclient
from ...explanation import Explanation, Source
from ...explanation.containerd import api_of, kind_of
from ...registryclient import Verdict
from .shown import KUBELET, Asking, first_taken, is_own

if TYPE_CHECKING:
    from ...images.dockerconfig import Credential


class Questions(Asking):
    """What containerd asks."""

    def ask(self, source: Source) -> tuple[Source, Verdict]:
        """The verdict on a source, and what was shown there."""
        resolution = self._explained.resolution
        assert resolution is not None
        passed = {offer.choice.credential for offer in resolution.offers}
        choices = resolution.selection.choices if resolution.selection is not None else ()
        own = next((choice.credential for choice in choices if choice.source == source.source), None)
        handed = self._handed if is_own(source, self._explained) else ()
        shown: list[tuple[Source, Credential | None]] = [
            (source._replace(origin=KUBELET, secret=entry.secret, key=entry.key), entry.credential) for entry in handed
        ]
        if own is not None and own in passed:
            shown.append((source, own))
        bare = source if not source.origin else source._replace(origin="", secret="", key="", others=(), others_left=0)
        return first_taken(shown or [(bare, None)], self._probe)

    def _probe(self, source: Source, credential: Credential | None) -> Verdict:
        resolution = self._explained.resolution
        assert resolution is not None and resolution.hosts is not None
        return registryclient.probe_host(
            api_of(resolution.hosts, source.source, resolution.image),
            resolution.image.path,
            self._reference,
            credential,
            root=self._root,
            environment=self._environment,
        )


def resolving(explained: Explanation) -> Explanation:
    """The same without the hosts that are asked for manifest and layers alone: the pull does not begin there."""
    assert explained.image is not None
    kind = kind_of(explained.image)
    why = f"containerd does not ask it for a {kind}, by its capabilities"
    sources = [s if kind in s.source.kinds else s._replace(asked=False, why_not=why) for s in explained.sources]
    return explained._replace(sources=tuple(sources))
