"""One run for the kubelet: standard input, decision, auth file, standard output, journal, exit status."""

from __future__ import annotations

import os
import time

from . import __version__, authfile, credentialprovider, journal, provider, settings
from .errors import ProviderError, RequestError
from .journal import Journal
from .provider import Resolution
from .settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .pullsecrets import Cluster

OK, FAULT = 0, 1


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Serves one request of the kubelet.

    Args:
        arguments: the command line without the program's name.
        environment: of the process.

    Returns:
        The exit status: 0 answered, 1 a fault that was told on stderr.

    Raises:
        UsageError: a flag or variable that is none.
    """
    started = time.monotonic_ns()
    given = settings.loads(arguments, environment)
    log = Journal(given.journal_socket, given.log_level)
    run = _Run(given, log)
    try:
        run.serve()
        return OK
    except ProviderError as error:
        run.fail(error.fault, str(error))
    except Exception as error:
        # A bug. Its message may quote anything, so that only its place is told.
        run.fail("bug", f"internal error, {type(error).__name__} at {_place(error)}; please report it")
    finally:
        run.log(time.monotonic_ns() - started)
    return FAULT


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    places = []
    while trace is not None:
        places.append(f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " > ".join(places[-4:])


class _Run:
    """What is known of the run so far, told in one journal entry whatever happens."""

    def __init__(self, given: Settings, log: Journal) -> None:
        self._settings = given
        self._journal = log
        self._request: credentialprovider.Request | None = None
        self._resolution: Resolution | None = None
        self._auth_file = ""
        self._outcome = ""
        self._message = ""
        self._priority = journal.INFO

    def serve(self) -> None:
        """Reads, decides, writes, answers."""
        self._request = request = credentialprovider.loads(_read_request())
        self._resolution = resolution = provider.resolve(request, self._settings, self._connect)
        record_for = None
        if resolution.auth_file is not None and resolution.account is not None:
            name = authfile.file_name(resolution.account.namespace, resolution.image.name)
            self._auth_file = authfile.write(self._settings.auth_dir, name, resolution.auth_file)
            record_for = None if self._settings.no_pull_record else request.image
        _write_all(credentialprovider.dumps(record_for))
        self._outcome = "auth-file-written" if self._auth_file else "nothing-to-do"
        self._message = _summary(resolution, self._auth_file)
        if resolution.warnings:
            self._priority = journal.WARNING

    def _connect(self) -> Cluster:
        # TLS costs more than all the rest of a run, and most images have no mirror.
        from . import apiserver, endpoint

        if self._settings.insecure_skip_tls_verify:
            self._journal.send(journal.WARNING, "--insecure-skip-tls-verify: the token goes to whoever answers")
        return apiserver.ApiServer(
            endpoint.find_endpoint(self._settings),
            self._settings.deadline,
            self._settings.max_answer_size,
            verify=not self._settings.insecure_skip_tls_verify,
        )

    def fail(self, fault: str, message: str) -> None:
        """Tells a fault where the kubelet and a person will find it."""
        self._outcome = f"fault-{fault}"
        self._message = message
        self._priority = journal.ERROR
        journal.complain(message)

    def log(self, nanoseconds: int) -> None:
        """Sends the run's entry, and each decision at debug level."""
        if self._resolution is not None and self._journal.debugging:
            for decision in decisions(self._resolution):
                self._journal.send(journal.DEBUG, decision)
        fields = {"OUTCOME": self._outcome, "AUTH_FILE": self._auth_file, "PROVIDER_VERSION": __version__}
        fields["DURATION_US"] = str(nanoseconds // 1000)
        if self._request is not None:
            fields["IMAGE"] = self._request.image
        if self._resolution is not None:
            fields.update(_fields(self._resolution))
        self._journal.send(self._priority, self._message, fields)


def _read_request() -> bytes:
    data = bytearray()
    while block := os.read(0, 65536):
        data += block
        if len(data) > settings.MAX_REQUEST_SIZE:
            raise RequestError(
                f"standard input is larger than {settings.MAX_REQUEST_SIZE >> 20} MiB: no request of a kubelet"
            )
    return bytes(data)


def _write_all(data: bytes) -> None:
    try:
        while data:
            data = data[os.write(1, data) :]
    except OSError as error:
        raise RequestError(f"the kubelet does not read the answer: {error.strerror}") from None


def _summary(resolution: Resolution, path: str) -> str:
    account = resolution.account
    image = resolution.image.name
    if account is None:
        who = image
    else:
        who = f"{image} of {'pod ' + account.pod if account.pod else 'service account ' + account.name} in {account.namespace}"
    if not path or resolution.selection is None:
        text = f"Nothing to do for {who}: {resolution.reason}"
    else:
        used = ", ".join(
            f"{choice.source.name} from {'secret ' + choice.secret if choice.secret else 'the global auth file'}"
            for choice in resolution.selection.choices
        )
        text = f"Wrote auth file to {path} for {who}: {used}"
    return "; ".join((text, *resolution.warnings))


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


def decisions(resolution: Resolution) -> list[str]:
    """Every choice and refusal of a run, a line each."""
    lines = [
        f"pull source {s.name} ({', '.join(s.kinds)}){' through the short name ' + s.short_name if s.short_name else ''}"
        for s in resolution.sources
    ]
    if resolution.secrets:
        lines.append(f"pull secrets: {', '.join(resolution.secrets)}")
    lines += [f"secret {skipped.secret} is not used: {skipped.reason}" for skipped in resolution.skipped]
    if resolution.selection is not None:
        for choice in resolution.selection.choices:
            origin = f"secret {choice.secret}" if choice.secret else "the global auth file"
            lines.append(f"{choice.source.name} gets the credential of {origin}, key {choice.key}")
        lines += [f"{unserved.source.name} gets none: {unserved.reason}" for unserved in resolution.selection.unserved]
    return lines
