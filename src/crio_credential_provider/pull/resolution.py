"""What a request comes to, whichever runtime pulls, and the questions that each decision asks of it."""

from __future__ import annotations

from ..images.reference import Reference
from ..kubernetes.serviceaccount import ServiceAccount
from ..platform.record import Record
from ..runtimes.pullsource import PullSource
from ..settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..kubernetes.pullsecrets import PullSecret, Skipped
    from ..runtimes.containerd.hosts import Found
    from ..runtimes.crio.registries import Configuration
    from .keyring import Choice, Selection

_WHOSE = {
    "namespace": "namespace {account.namespace}",
    "pod": "pod {account.namespace}/{account.pod}",
    "service-account": "service account {account.namespace}/{account.name}",
}
NO_MIRROR, NOT_COVERED, BLOCKED = "no-mirror", "not-covered", "blocked"
NO_HELPER, NO_TOKEN = "no-auth-file-helper", "no-token"
SHORT_NAME, NO_CREDENTIAL, EXPOSED = "short-name", "no-credential", "exposed"
REASONS = (NO_MIRROR, NOT_COVERED, BLOCKED, NO_HELPER, NO_TOKEN, SHORT_NAME, NO_CREDENTIAL, EXPOSED)
"""Why the pull gets nothing, for machines."""

WHY_NO_TOKEN = (
    "the request has no service account token: the pod is a static pod, or the CredentialProviderConfig has no "
    "tokenAttributes"
)


class Offer(Record):
    """A credential that the kubelet hands to containerd for this image.

    Attributes:
        key: of the answer: the kubelet tries the credentials of an image from the most specific key to the least.
        choice: where the credential is from, and the first source that it is for.
    """

    __slots__ = ("choice", "key")

    def __init__(self, key: str, choice: Choice) -> None:
        self.key = key
        self.choice = choice


class Exposure(Record):
    """A host that containerd could show a credential that its key does not name.

    Attributes:
        choice: whose credential.
        source: the host's.
    """

    __slots__ = ("choice", "source")

    def __init__(self, choice: Choice, source: PullSource) -> None:
        self.choice = choice
        self.source = source


class Resolution(Record):
    """What a request comes to.

    Attributes:
        image: the repository asked for, normalised: it names the auth file.
        account: who asks; None without a token.
        config: registries.conf with its drop-ins; None before it was read, and for containerd.
        hosts: containerd's hosts for the image's registry; None before they were read, and for CRI-O.
        sources: every place that the runtime may ask, in its order.
        selection: the credential of each; None where none was looked for.
        secrets: the pull secrets that were looked through.
        skipped: secrets and entries that were not used, and why.
        warnings: what is not as it should be, though the run can go on.
        auth_file: content for CRI-O; None where there is nothing to write.
        offers: what the kubelet hands to containerd, in its order; empty where there is nothing.
        exposures: which host, in place of its own, containerd could show which credential.
        reason: why the pull gets nothing; "" where it gets something.
        code: the same, one of ``REASONS``.
        hint: what to do about it, where the API server refused.
    """

    __slots__ = (
        "account",
        "auth_file",
        "code",
        "config",
        "exposures",
        "hint",
        "hosts",
        "image",
        "offers",
        "reason",
        "secrets",
        "selection",
        "skipped",
        "sources",
        "warnings",
    )
    _secret = ("auth_file", "offers")

    def __init__(self, image: Reference, account: ServiceAccount | None) -> None:
        self.image = image
        self.account = account
        self.config: Configuration | None = None
        self.hosts: Found | None = None
        self.sources: tuple[PullSource, ...] = ()
        self.selection: Selection | None = None
        self.secrets: tuple[PullSecret, ...] = ()
        self.skipped: tuple[Skipped, ...] = ()
        self.warnings: tuple[str, ...] = ()
        self.auth_file: bytes | None = None
        self.offers: tuple[Offer, ...] = ()
        self.exposures: tuple[Exposure, ...] = ()
        self.reason = ""
        self.code = ""
        self.hint = ""


def may_use_secrets(source: PullSource, settings: Settings) -> bool:
    """Whether a source may get a credential of the namespace, by ``--mirror-registry``."""
    return not settings.mirror_registry or any(
        source.name == allowed or source.name.startswith(f"{allowed}/") for allowed in settings.mirror_registry
    )


def is_wanted(source: PullSource, image: Reference, settings: Settings) -> bool:
    """Whether a source is a reason to ask for secrets: a mirror or another place than the image's own name, or one
    that the operator named."""
    elsewhere = bool(settings.mirror_registry) or source.name != image.name
    return elsewhere and not source.blocked and may_use_secrets(source, settings)


def used_oddities(choices: Iterable[Choice]) -> tuple[str, ...]:
    """What no user name or password of a used secret was meant to be. Each once, though it serve several sources."""
    from ..images import dockerconfig
    from . import keyring

    found = [
        f"secret {choice.secret}, key {dockerconfig.shown_key(choice.key)!r}: {oddity}; it is used anyway"
        for choice in choices
        if choice.secret
        for oddity in keyring.oddities(choice.credential)
    ]
    return tuple(dict.fromkeys(found))


def why_no_credential(account: ServiceAccount, settings: Settings, skipped: Sequence[Skipped]) -> str:
    """No secret serves any source; and what of the secrets was not used."""
    whose = _WHOSE[settings.secrets_from].format(account=account)
    return f"no pull secret of {whose} has a credential for any of its pull sources{_not_used(skipped)}"


def not_covered(settings: Settings) -> str:
    """No source is covered by ``--mirror-registry``."""
    return f"none of its pull sources is covered by --mirror-registry {' '.join(settings.mirror_registry)}"


def _not_used(skipped: Sequence[Skipped]) -> str:
    """What a person most likely meant to be used, for the end of a sentence."""
    if not skipped:
        return ""
    more = len({entry.secret for entry in skipped}) - 1
    others = f" ({more} more {'is' if more == 1 else 'are'} not used)" if more else ""
    return f"; secret {skipped[0].secret} is not used: {skipped[0].reason}{others}"
