"""What a source is shown, whichever runtime asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ... import explanation, registryclient
from ...explanation import Explanation, Source
from ...registryclient import Verdict
from ..request.handedover import HandedOver

if TYPE_CHECKING:
    from ...images.dockerconfig import Credential

KUBELET = "kubelet"
"""Where a source's credential is from: a secret in the pod's imagePullSecrets, through the kubelet."""


class Asking:
    """What a runtime asks for a pull.

    Args:
        reference: the tag or digest.
        root: of the files that are read.
        handed: what the kubelet hands over from the pod's imagePullSecrets, in its order.
        environment: of the runtime, with its proxies.
    """

    def __init__(
        self,
        explained: Explanation,
        reference: str,
        root: str,
        handed: Sequence[HandedOver],
        environment: Mapping[str, str],
    ) -> None:
        self._explained = explained
        self._reference = reference
        self._root = root
        self._handed = handed
        self._environment = environment


def is_own(source: Source, explained: Explanation) -> bool:
    """Whether what the kubelet hands over from the pod's imagePullSecrets is for that source: the runtime shows it
    there, ahead of anything else."""
    assert explained.resolution is not None
    own = explanation.own_hosts(explained.resolution.image, explained.asked)
    return source.source.name.partition("/")[0] in own


def first_taken(
    shown: Sequence[tuple[Source, Credential | None]], probe: Callable[[Source, Credential | None], Verdict]
) -> tuple[Source, Verdict]:
    """The verdict on the first credential that is taken; on the first of all where none is."""
    found: tuple[Source, Verdict] | None = None
    for source, credential in shown:
        verdict = probe(source, credential)
        if found is None or verdict.outcome == registryclient.OK:
            found = source, verdict
        if verdict.outcome not in (registryclient.UNAUTHORIZED, registryclient.FORBIDDEN):
            break
    assert found is not None
    return found
