"""One run for the kubelet: standard input, decision, auth file, standard output, journal, exit status."""

from __future__ import annotations

import os
import time

from .. import __version__, settings
from ..errors import ProviderError, RequestError
from ..kubernetes import credentialprovider
from ..platform import journal
from ..platform.journal import Journal
from ..settings import Settings
from . import decision
from .decision import Resolution

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

    from ..kubernetes.pullsecrets import Cluster
    from .handoff import HandOff, Queue
    from .keyring import Choice

OK, FAULT = 0, 1


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Serves one request of the kubelet.

    Args:
        arguments: the command line without the program's name.
        environment: of the process.

    Returns:
        The exit status: 0 answered, 1 a fault that was reported on stderr.

    Raises:
        UsageError: a flag or variable that is none.
    """
    given = settings.loads(arguments, environment)
    settings.check_root(given)
    unknown = [f"unknown environment variable {name}" for name in settings.unknown_variables(environment)]
    run = _Run(given, Journal(given.journal_socket, given.log_level), unknown)
    status = FAULT
    try:
        run.serve()
        status = OK
    except ProviderError as error:
        run.fail(error.fault, str(error))
    except Exception as error:
        run.fail("bug", internal_error(error))
    finally:
        run.end()
    return status


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


class _Run:
    """What is known of the run so far, told in one journal entry whatever happens."""

    def __init__(self, given: Settings, log: Journal, warnings: list[str]) -> None:
        self._started = time.monotonic()
        self._settings = given
        self._journal = log
        self._request: credentialprovider.Request | None = None
        self._resolution: Resolution | None = None
        self._auth_file = ""
        self._outcome = "interrupted"
        self._message = "Interrupted before it could answer"
        self._priority = journal.ERROR
        self._queue: Queue | None = None
        self._details: list[str] = []
        self._warnings = warnings

    def serve(self) -> None:
        """Reads, decides, hands over, answers."""
        self._request = request = credentialprovider.loads(_read_request())
        # Kept before it is complete: a fault on the way is told with the pod that it befell.
        self._resolution = resolution = decision.begin(request)
        decision.complete(resolution, request, self._settings, self._connect)
        self._journal.greet()
        record_for = None
        if resolution.auth_file is None:
            self._tell("nothing-to-do", f"Nothing to do for {_who(resolution)}: {resolution.reason}")
        else:
            self._hand_over(resolution, resolution.auth_file)
            record_for = None if self._settings.no_pull_record else request.image
        _write_all(credentialprovider.dumps(record_for))

    def _hand_over(self, resolution: Resolution, content: bytes) -> None:
        """Puts the auth file in place in its turn, or leaves a keeper in line for it."""
        from . import authfile

        assert resolution.account is not None
        given = self._settings
        name = authfile.file_name(resolution.account.namespace, resolution.image.name)
        latest = self._started + settings.LATEST_ANSWER
        if given.hand_off_timeout > 0:
            queue = self._open_queue()
            if not queue.line.works:
                self._warnings.append(
                    "runs do not wait for each other, so that pulls of one image at the same time may fail: "
                    f"--cache-dir {given.cache_dir!r} cannot be used"
                )
            turn = queue.turn(given.auth_dir, name, resolution.image.name, given.hand_off_grace)
            refusal = ""
            # The second limit is for a node without room for a keeper: until then the turn may come, or there is room.
            for limit in (min(time.monotonic() + given.hand_off_timeout, latest), latest):
                if turn.wait(limit) or not turn.may_be_queued():
                    break
                refusal = self._leave_keeper(turn, name, resolution, content)
                if not refusal:
                    self._tell(
                        "in-line",
                        f"Queued the auth file for {_who(resolution)}: a background process writes it once the "
                        "previous pull has taken its own",
                    )
                    return
            else:
                # To write now would be to overwrite the file of another pull (docs/decisions/0004-hand-off.md).
                self._tell("no-keeper", f"Wrote no auth file for {_who(resolution)}: {refusal}", journal.ERROR)
                return
            if refusal:
                self._warnings.append(refusal)
        self._write(name, resolution, content)

    def _open_queue(self) -> Queue:
        """Where runs wait for each other; opened once, since closing it anywhere would give up every turn."""
        from . import handoff

        if self._queue is None:
            self._queue = handoff.Queue(self._settings.cache_dir, self._settings.kubelet_root_dir)
        return self._queue

    def _write(self, name: str, resolution: Resolution, content: bytes) -> None:
        from . import authfile

        self._auth_file = authfile.write(self._settings.auth_dir, name, content)
        self._tell(
            "auth-file-written", f"Wrote auth file to {self._auth_file} for {_who(resolution)}: {_used(resolution)}"
        )

    def _leave_keeper(self, turn: HandOff, name: str, resolution: Resolution, content: bytes) -> str:
        """Why none could be left; "" where one is in line."""
        try:
            is_keeper = turn.leave_keeper()
        except OSError as error:
            return (
                f"cannot start a background process that waits for the previous pull: {error.strerror}; check the "
                "limits on processes and memory of the kubelet and of the node: systemctl show kubelet -p "
                "TasksCurrent,TasksMax,MemoryCurrent,MemoryMax, and sysctl kernel.pid_max kernel.threads-max"
            )
        if is_keeper:
            self._keep(turn, name, resolution, content)
        return ""

    def _keep(self, turn: HandOff, name: str, resolution: Resolution, content: bytes) -> NoReturn:
        """The keeper's life: waits for the turn, writes if the pull is still to come, logs, and is gone."""
        from . import handoff

        try:
            turn.become_keeper()
            # Another process, which journald does not know yet.
            self._journal = Journal(self._settings.journal_socket, self._settings.log_level)
            if turn.wait(time.monotonic() + handoff.KEEPER_LIMIT) and turn.is_awaited() is not False:
                self._write(name, resolution, content)
            else:
                self._tell(
                    "nothing-to-do", f"Dropped the queued auth file for {_who(resolution)}: no pull is waiting for it"
                )
        except ProviderError as error:
            self._tell(f"fault-{error.fault}", str(error), journal.ERROR)
        except handoff.Ended:
            if not self._auth_file:
                message = (
                    f"Dropped the queued auth file for {_who(resolution)}: the background process was ended by SIGTERM"
                )
                self._tell("interrupted", message, journal.WARNING)
        except BaseException as error:
            self._tell("fault-bug", internal_error(error), journal.ERROR)
        finally:
            try:
                turn.ignore_end()
                self._log_whatever_happens()
            finally:
                os._exit(OK)

    def end(self) -> None:
        """Sweeps and logs. What goes wrong here is told in the journal alone: the kubelet has its answer."""
        try:
            self.sweep()
        except BaseException as error:
            self._message += f"; then, while removing stale files: {internal_error(error)}"
            self._priority = min(self._priority, journal.WARNING)
        self._log_whatever_happens()

    def _log_whatever_happens(self) -> None:
        try:
            self.log()
        except BaseException as error:
            message = f"{self._message}; then, while logging: {internal_error(error)}"
            try:
                self._journal.send(journal.ERROR, message, {"OUTCOME": self._outcome, "AUTH_FILE": self._auth_file})
            except BaseException:
                return

    def sweep(self) -> None:
        """Removes files that nobody comes for, whatever became of the run itself."""
        given = self._settings
        if not _has_files(given.auth_dir, besides=os.path.basename(self._auth_file)):
            return
        from . import handoff

        queue = self._open_queue()
        stale = handoff.find_stale(given.auth_dir, given.stale_after, queue.intents)
        removed = [file.name for file in stale if not handoff.remove_stale(given.auth_dir, file, queue.line)]
        if removed:
            self._details.append(f"removed stale files: {' '.join(removed)}")

    def _connect(self) -> Cluster:
        # TLS costs more than all the rest of a run, and most images have no mirror.
        from ..kubernetes import apiserver, endpoint

        # Not before TLS has brought the socket module, nor after the long wait for the API server.
        self._journal.greet()
        if self._settings.insecure_skip_tls_verify:
            self._journal.send(
                journal.WARNING,
                "--insecure-skip-tls-verify: the API server's certificate is not verified, and any server at its "
                "address gets the pod's token",
            )
        given = self._settings
        return apiserver.ApiServer(
            endpoint.find_endpoint(given),
            given.deadline,
            given.max_answer_size,
            verify=not given.insecure_skip_tls_verify,
            client=endpoint.find_client_certificate(given) if given.secrets_from == settings.POD else None,
        )

    def _tell(self, outcome: str, message: str, priority: int = journal.INFO) -> None:
        """Decides what the run's journal entry says."""
        warnings = [*(self._resolution.warnings if self._resolution is not None else ()), *self._warnings]
        self._outcome = outcome
        self._message = "; ".join((message, *warnings))
        self._priority = min(priority, journal.WARNING) if warnings else priority

    def fail(self, fault: str, message: str) -> None:
        """Tells a fault where the kubelet and a person will find it."""
        self._tell(f"fault-{fault}", message, journal.ERROR)
        journal.complain(message)

    def log(self) -> None:
        """Sends the run's entry, and each decision at debug level."""
        if self._journal.debugging:
            problems = self._queue.intents.problems if self._queue is not None else ()
            for detail in (*decisions(self._resolution), *self._details, *problems):
                self._journal.send(journal.DEBUG, detail)
        fields = {"OUTCOME": self._outcome, "AUTH_FILE": self._auth_file, "PROVIDER_VERSION": __version__}
        fields["DURATION_US"] = str(round((time.monotonic() - self._started) * 1e6))
        if self._request is not None:
            fields["IMAGE"] = self._request.image
        if self._resolution is not None:
            fields.update(_fields(self._resolution))
        self._journal.send(self._priority, self._message, fields)
        self._journal.stay()


def _has_files(directory: str, besides: str) -> bool:
    """Whether there is anything to sweep, at the cost of a look: nearly always there is nothing but ``in-use`` and what
    this run has written."""
    try:
        return any(name.endswith((".json", ".tmp")) and name != besides for name in os.listdir(directory))
    except OSError:
        return False


def _read_request() -> bytes:
    data = bytearray()
    try:
        while block := os.read(0, 65536):
            data += block
            if len(data) > settings.MAX_REQUEST_SIZE:
                raise RequestError(
                    f"standard input is larger than {settings.MAX_REQUEST_SIZE >> 20} MiB, more than any request of a "
                    "kubelet"
                )
    except OSError as error:
        raise RequestError(f"cannot read standard input: {error.strerror}") from None
    return bytes(data)


def _write_all(data: bytes) -> None:
    try:
        while data:
            data = data[os.write(1, data) :]
    except OSError as error:
        raise RequestError(f"cannot write the answer to the kubelet: {error.strerror}") from None


def _who(resolution: Resolution) -> str:
    account = resolution.account
    if account is None:
        return resolution.image.name
    who = f"pod {account.pod}" if account.pod else f"service account {account.name}"
    return f"{resolution.image.name} of {who} in {account.namespace}"


def _origin(choice: Choice) -> str:
    return f"secret {choice.secret}" if choice.secret else "the global auth file"


def _used(resolution: Resolution) -> str:
    choices = resolution.selection.choices if resolution.selection is not None else ()
    return ", ".join(f"{choice.source.name} from {_origin(choice)}" for choice in choices)


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
    fields["SKIPPED"] = "; ".join(f"{skipped.secret}: {skipped.reason}" for skipped in resolution.skipped)
    return fields


def decisions(resolution: Resolution | None) -> list[str]:
    """Every choice and refusal of a run, a line each."""
    if resolution is None:
        return []
    lines = [
        f"pull source {source.name} ({', '.join(source.kinds)})"
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
    return lines
