"""What a run tells: one journal entry whatever happens, each decision at debug level, a fault on stderr as well.

No credential and no token is part of it.
"""

from __future__ import annotations

import os
import time

from .. import __version__
from ..platform import journal
from ..platform.journal import Journal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..kubernetes.credentialprovider import Request
    from ..settings import Settings
    from .keyring import Choice
    from .resolution import Resolution


class Audit:
    """What is known of a run so far.

    Attributes:
        started: on the monotonic clock.
        request: once it is read.
        resolution: once there is one, complete or not: a fault on the way is reported with its pod.
        auth_file: path of the one that was written; "" for none.
        is_settled: whether the pull that follows finds the file that is meant for it, or none.
        warnings: what is not as it should be, though the run goes on.
        details: what is told at debug level beside the decisions.
        problems: as ``PullIntents.problems``; told at debug level.
        hand_off: seconds that it waited for the previous auth file of the same name.
        swept: how many stale files it removed.
        outcome, code: what came of it, and why, for machines.
    """

    def __init__(self, settings: Settings) -> None:
        self.started = time.monotonic()
        self.request: Request | None = None
        self.resolution: Resolution | None = None
        self.auth_file = ""
        self.is_settled = False
        self.warnings: list[str] = []
        self.details: list[str] = []
        self.problems: list[str] = []
        self.hand_off = 0.0
        self.swept = 0
        self._settings = settings
        self._journal = Journal(settings.journal_socket, settings.log_level)
        self._is_keeper = False
        self.code = ""
        self.outcome = "interrupted"
        self._message = "Interrupted before it could answer"
        self._priority = journal.ERROR

    def greet(self) -> None:
        """Makes the process known to journald."""
        self._journal.greet()

    def continue_in_this_process(self) -> None:
        """For a forked process, which journald does not know yet."""
        self._journal = Journal(self._settings.journal_socket, self._settings.log_level)
        self._is_keeper = True

    def warn_at_once(self, message: str) -> None:
        """A warning in an entry of its own, ahead of what it warns of."""
        self._journal.send(journal.WARNING, message)

    def tell(self, outcome: str, message: str, priority: int = journal.INFO, code: str = "") -> None:
        """Decides what the run's journal entry says; ``outcome`` is a word for machines, and so is ``code``: why."""
        warnings = [*(self.resolution.warnings if self.resolution is not None else ()), *self.warnings]
        self.outcome, self.code = outcome, code
        self._message = "; ".join((message, *(warning for warning in warnings if warning not in message)))
        self._priority = min(priority, journal.WARNING) if warnings else priority

    def tell_fault(self, fault: str, message: str, code: str = "") -> None:
        """Decides that it says a fault; ``code`` as ``ProviderError.code``."""
        self.tell(f"fault-{fault}", message, journal.ERROR, code)

    def fail(self, fault: str, message: str, code: str = "") -> None:
        """Decides that it says a fault, which is told on stderr as well: the kubelet keeps that."""
        self.tell_fault(fault, message, code)
        journal.complain(message)

    def tell_further(self, message: str) -> None:
        """What went wrong after the outcome was decided."""
        self._message += f"; {message}"
        self._priority = min(self._priority, journal.WARNING)

    def log(self) -> None:
        """Sends the run's entry. What goes wrong here is told in the journal alone: the kubelet has its answer."""
        try:
            self._log()
        except BaseException as error:
            message = f"{self._message}; then, while logging: {internal_error(error)}"
            try:
                self._journal.send(journal.ERROR, message, {"OUTCOME": self.outcome, "AUTH_FILE": self.auth_file})
            except BaseException:
                return

    def _log(self) -> None:
        if self._journal.debugging:
            for detail in dict.fromkeys((*decisions(self.resolution), *self.details, *self.problems)):
                self._journal.send(journal.DEBUG, detail)
        fields = {"OUTCOME": self.outcome, "AUTH_FILE": self.auth_file, "PROVIDER_VERSION": __version__}
        fields["REASON_CODE"] = self.code
        fields["DURATION_US"] = str(round((time.monotonic() - self.started) * 1e6))
        if self.hand_off:
            fields["HAND_OFF_US"] = str(round(self.hand_off * 1e6))
        if self.swept:
            fields["SWEPT"] = str(self.swept)
        if self._is_keeper:
            fields["KEEPER"] = "1"
        if self.request is not None:
            fields["IMAGE"] = self.request.image
        if self.resolution is not None:
            fields.update(_fields(self.resolution))
        self._journal.send(self._priority, self._message, fields)
        self._journal.stay()


def internal_error(error: BaseException) -> str:
    """A bug. Its message may quote anything, so that only its place is told."""
    return f"internal error: {type(error).__name__} at {_place(error)}; please report it"


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    places: list[str] = []
    while trace is not None:
        places.append(f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " > ".join(places[-4:])


def who(resolution: Resolution) -> str:
    """The image and the pod, for a sentence."""
    account = resolution.account
    if account is None:
        return resolution.image.name
    who = f"pod {account.pod}" if account.pod else f"service account {account.name}"
    return f"{resolution.image.name} of {who} in {account.namespace}"


def used(resolution: Resolution) -> str:
    """The credential of each source, for a sentence."""
    choices = resolution.selection.choices if resolution.selection is not None else ()
    return ", ".join(f"{choice.source.name} from {_origin(choice)}" for choice in choices)


def _origin(choice: Choice) -> str:
    return f"secret {choice.secret}" if choice.secret else "the global auth file"


def _fields(resolution: Resolution) -> dict[str, str]:
    """The audit trail: who, for what, from where."""
    fields = {"SOURCES": " ".join(source.name for source in resolution.sources), "REASON": resolution.reason}
    account = resolution.account
    if account is not None:
        fields["NAMESPACE"] = account.namespace
        fields["SERVICE_ACCOUNT"] = account.name
        fields["POD"] = account.pod
        fields["POD_UID"] = account.pod_uid
    if resolution.selection is not None:
        used = [choice for choice in resolution.selection.choices if choice.secret]
        fields["SECRETS"] = " ".join(dict.fromkeys(choice.secret for choice in used))
        fields["CREDENTIALS"] = " ".join(f"{choice.source.name}={choice.secret}" for choice in used)
    if resolution.exposures:
        fields["EXPOSURES"] = " ".join(exposed(resolution))
    fields["SKIPPED"] = "; ".join(f"{skipped.secret}: {skipped.reason}" for skipped in resolution.skipped)
    return fields


def exposed(resolution: Resolution) -> list[str]:
    """The hosts that containerd could show a credential which is for another."""
    return list(dict.fromkeys(exposure.source.name.partition("/")[0] for exposure in resolution.exposures))


def decisions(resolution: Resolution | None) -> list[str]:
    """Every choice and refusal of a run, a line each."""
    if resolution is None:
        return []
    lines = [
        f"pull source {source.name} ({', '.join(source.kinds) or 'manifest and layers'})"
        + (f" through the short name {source.short_name}" if source.short_name else "")
        for source in resolution.sources
    ]
    if resolution.secrets:
        lines.append(f"pull secrets: {', '.join(secret.name for secret in resolution.secrets)}")
    lines += [f"secret {skipped.secret} is not used: {skipped.reason}" for skipped in resolution.skipped]
    if resolution.selection is not None:
        from ..images.dockerconfig import shown_key

        for choice in resolution.selection.choices:
            lines.append(f"{choice.source.name} gets the credential of {_origin(choice)}, key {shown_key(choice.key)}")
            lines += [f"  rather than of secret {other.secret}, key {shown_key(other.key)}" for other in choice.lost]
        lines += [
            f"{unserved.source.name} gets no credential: {unserved.reason}"
            for unserved in resolution.selection.unserved
        ]
    lines += [
        f"containerd could show the credential of secret {exposure.choice.secret} to {exposure.source.name}"
        for exposure in resolution.exposures
    ]
    return lines
