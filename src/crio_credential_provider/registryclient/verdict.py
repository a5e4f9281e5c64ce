"""What can be said of a registry: the outcomes, the verdict, and the fault that leads to one."""

from __future__ import annotations

from ..errors import shorten
from ..platform.record import Record

OK = "ok"
DNS = "dns"
CONNECT = "connect"
TLS = "tls"
UNAUTHORIZED = "unauthorized"
FORBIDDEN = "forbidden"
NOT_FOUND = "not-found"
RATE_LIMITED = "rate-limited"
SERVER_ERROR = "server-error"
NOT_A_REGISTRY = "not-a-registry"

OUTCOMES = (
    OK,
    DNS,
    CONNECT,
    TLS,
    UNAUTHORIZED,
    FORBIDDEN,
    NOT_FOUND,
    RATE_LIMITED,
    SERVER_ERROR,
    NOT_A_REGISTRY,
)


class Verdict(Record):
    """What a registry answered, or why there is no answer.

    Attributes:
        outcome: one of ``OUTCOMES``.
        cause: which of the faults of that outcome, for programs: ``refused``, ``timeout``, ``unknown-ca``,
            ``no-credential``, ...; "" where there is one alone.
        evidence: what was asked and what came back, one sentence.
        remedy: what to do; "" for ``ok``.
        scheme: ``https`` or ``http``, by which the registry answered; "" where it did not.
        digest: of the manifest, as the registry tells it; "" without one.
        credential_sent_to: the hosts that the credential was shown, in order.
        exchanges: every request with its answer, without queries and headers.
        token_service: its URL, where it is the registry's token service that does not do its part; else "".
        undecided: CRI-O would have gone on where this did not, as with a credential that was kept back: whether it
            gets the manifest is not known.
    """

    __slots__ = (
        "cause",
        "credential_sent_to",
        "digest",
        "evidence",
        "exchanges",
        "outcome",
        "remedy",
        "scheme",
        "token_service",
        "undecided",
    )

    def __init__(
        self,
        outcome: str,
        evidence: str,
        remedy: str = "",
        cause: str = "",
        scheme: str = "",
        digest: str = "",
        credential_sent_to: tuple[str, ...] = (),
        exchanges: tuple[str, ...] = (),
        token_service: str = "",
        undecided: bool = False,
    ) -> None:
        self.outcome = outcome
        self.cause = cause
        # What they quote comes from registries as well.
        self.evidence = shorten(evidence)
        self.remedy = shorten(remedy)
        self.scheme = scheme
        self.digest = digest
        self.credential_sent_to = credential_sent_to
        self.exchanges = exchanges
        self.token_service = token_service
        self.undecided = undecided


class Fault(Exception):
    """Why there is no manifest; as in ``Verdict``."""

    def __init__(self, outcome: str, evidence: str, remedy: str, cause: str = "", undecided: bool = False) -> None:
        super().__init__(evidence)
        self.token_service = ""
        self.undecided = undecided
        self.outcome = outcome
        self.evidence = evidence
        self.remedy = remedy
        self.cause = cause
