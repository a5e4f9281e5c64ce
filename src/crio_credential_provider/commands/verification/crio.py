"""What CRI-O asks a source, and with which credential."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ... import registryclient
from ...explanation import NODE, NODE_HELPER, Explanation, Source
from ...pull import decision, keyring
from ...registryclient import Verdict
from ..request.handedover import HandedOver
from .shown import KUBELET, Asking, first_taken, is_own

if TYPE_CHECKING:
    from ...images.dockerconfig import Credential
    from ...images.reference import Reference
    from ...pull.keyring import Choice


class Questions(Asking):
    """What CRI-O asks."""

    def __init__(
        self,
        explained: Explanation,
        reference: str,
        root: str,
        handed: Sequence[HandedOver],
        environment: Mapping[str, str],
    ) -> None:
        super().__init__(explained, reference, root, handed, environment)
        self._of_node = _choices_of_node(explained)
        self._credentials = _credentials(explained, self._of_node)

    def ask(self, source: Source) -> tuple[Source, Verdict]:
        """The verdict on a source, and what was shown there."""
        name, resolution = source.source.name, self._explained.resolution
        assert resolution is not None
        shown = [(source, self._credentials.get(name) if source.origin else None)]
        handed = self._handed if is_own(source, self._explained) else ()
        if handed and source.host != resolution.image.domain:
            kept = source._replace(origin=KUBELET, secret=handed[0].secret, key=handed[0].key)
            return kept, _kept_back(kept, self._probe_registry(source), resolution.image)
        if handed:
            # The kubelet tries one after the other, the node's own last.
            by = [(KUBELET, *entry) for entry in handed]
            if name in self._of_node:
                by.append((NODE, "", self._of_node[name].key, self._of_node[name].credential))
            shown = [(source._replace(origin=o, secret=secret, key=key), c) for o, secret, key, c in by]
        elif source.origin == NODE_HELPER:
            return source, self._probe_registry(source)
        return first_taken(shown, self._probe)

    def _probe_registry(self, source: Source) -> Verdict:
        return registryclient.probe_registry(
            source.host, insecure=source.source.insecure, root=self._root, environment=self._environment
        )

    def _probe(self, source: Source, credential: Credential | None) -> Verdict:
        host, _, path = source.source.name.partition("/")
        return registryclient.probe_manifest(
            host,
            path,
            self._reference,
            credential,
            insecure=source.source.insecure,
            root=self._root,
            environment=self._environment,
        )


def _kept_back(source: Source, verdict: Verdict, image: Reference) -> Verdict:
    """Where a short name means another registry than the kubelet takes it for: CRI-O shows the credential all the same,
    this command only shows it to the one that it is for."""
    if verdict.outcome != registryclient.OK:
        return verdict
    return Verdict(
        verdict.outcome,
        f"a registry answers; CRI-O sends it the credential for {image.domain} that the kubelet passes "
        f"(secret {source.secret}), which verify does not send to another registry",
        f"write the image with its registry, {source.source.name} or {image.name}",
        scheme=verdict.scheme,
        exchanges=verdict.exchanges,
        undecided=True,
    )


def _choices_of_node(explained: Explanation) -> dict[str, Choice]:
    """Name of a source -> what the node's own auth file has for it."""
    assert explained.resolution is not None
    config, _ = decision.global_config(explained.settings.global_auth_file)
    selection = keyring.select(explained.resolution.sources, (), config, lambda source: True)
    return {choice.source.name: choice for choice in selection.choices}


def _credentials(explained: Explanation, of_node: Mapping[str, Choice]) -> dict[str, Credential]:
    """Name of a source -> what CRI-O shows there: of the auth file, else of the node's own."""
    assert explained.resolution is not None
    selection = explained.resolution.selection
    choices = of_node.values() if selection is None else selection.choices
    return {choice.source.name: choice.credential for choice in choices}
