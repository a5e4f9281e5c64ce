"""One place that a container runtime asks for an image, whichever runtime and configuration it comes from."""

from __future__ import annotations

from ..platform.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

TAG = "tag"
DIGEST = "digest"
REFERENCE_KINDS = (TAG, DIGEST)
"""What a pod can name; with both, CRI-O drops the tag, with neither it takes ``:latest``."""


class PullSource(Record):
    """One place that the runtime will ask for the image.

    Attributes:
        reference: the full reference there.
        name: the same without tag and digest: the key of the credential look-up.
        location: of the mirror or registry it comes from, as configured: ``""`` for a wildcard without one; the
            whole reference where no table matches. Of containerd, the URL of the host's API.
        insecure: TLS not verified, or plain HTTP.
        primary: the registry itself, asked last.
        blocked: the runtime will refuse to ask this source.
        kinds: which of ``REFERENCE_KINDS`` it serves.
        short_name: the short name through which alone CRI-O comes here (``nginx``), else ``""``.
    """

    __slots__ = ("blocked", "insecure", "kinds", "location", "name", "primary", "reference", "short_name")

    def __init__(
        self,
        reference: str,
        name: str,
        location: str,
        insecure: bool,
        primary: bool,
        blocked: bool,
        kinds: tuple[str, ...],
        short_name: str = "",
    ) -> None:
        self.reference = reference
        self.name = name
        self.location = location
        self.insecure = insecure
        self.primary = primary
        self.blocked = blocked
        self.kinds = kinds
        self.short_name = short_name

    def through(self, short_name: str) -> PullSource:
        """The same source, reached only through a short name."""
        return self._replaced(self.kinds, short_name)

    def without(self, kinds: Collection[str]) -> PullSource:
        """The same source, less the kinds of references for which CRI-O's pull fails."""
        if not kinds:
            return self
        return self._replaced(tuple(kind for kind in self.kinds if kind not in kinds), self.short_name)

    def _replaced(self, kinds: tuple[str, ...], short_name: str) -> PullSource:
        return PullSource(
            self.reference, self.name, self.location, self.insecure, self.primary, self.blocked, kinds, short_name
        )
