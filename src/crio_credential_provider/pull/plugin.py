"""One run for the kubelet: standard input, decision, auth file, standard output, journal, exit status."""

from __future__ import annotations

import os

from ..errors import ProviderError, RequestError
from ..kubernetes import credentialprovider
from ..platform import journal
from ..settings import MAX_REQUEST_SIZE, POD, check_root, loads, unknown_variables
from . import decision
from .audit import Audit, internal_error, used, who

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..kubernetes.pullsecrets import Cluster
    from ..settings import Settings

OK, FAULT = 0, 1


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Serves one request of the kubelet.

    Args:
        arguments: the command line without the program's name.
        environment: of the process.

    Returns:
        The exit status: 0 answered, 1 a fault that was told on stderr.

    Raises:
        UsageError: an unknown flag, or a value that a flag or variable cannot have.
    """
    settings = loads(arguments, environment)
    check_root(settings)
    audit = Audit(settings)
    audit.warnings += [f"unknown environment variable {name}" for name in unknown_variables(environment)]
    status = FAULT
    try:
        _serve(settings, audit)
        status = OK
    except ProviderError as error:
        audit.fail(error.fault, str(error), error.code)
    except Exception as error:
        audit.fail("bug", internal_error(error))
    finally:
        _sweep(settings, audit)
        audit.log()
        # To look its default up takes 0.5 % of a run's instructions.
        if vars(settings).get("pod_events"):
            from . import podevent

            podevent.tell(settings, audit)
    return status


def _serve(settings: Settings, audit: Audit) -> None:
    """Reads, decides, delivers, answers."""
    audit.request = request = credentialprovider.loads(_read_request())
    audit.resolution = resolution = decision.begin(request)
    decision.complete(resolution, request, settings, lambda: _connect(settings, audit))
    audit.greet()
    auth: dict[str, tuple[str, str]] = {}
    if resolution.auth_file is not None:
        from . import delivery

        delivery.Delivery(resolution, resolution.auth_file, settings, audit).run()
        if not settings.no_pull_record:
            auth = credentialprovider.pull_record(request.image)
    elif resolution.offers:
        from . import offer

        auth = {offered.key: offer.text(offered.choice.credential) for offered in resolution.offers}
        audit.tell("answered", f"Answered with credentials for {who(resolution)}: {used(resolution)}")
    else:
        why = f"{resolution.reason}; {resolution.hint}" if resolution.hint else resolution.reason
        if resolution.exposures:
            message = f"Answered without a credential for {who(resolution)}: {why}"
            audit.tell("nothing-to-do", message, journal.WARNING, resolution.code)
        else:
            audit.tell("nothing-to-do", f"Nothing to do for {who(resolution)}: {why}", code=resolution.code)
    _write_answer(credentialprovider.dumps(auth))


def _connect(settings: Settings, audit: Audit) -> Cluster:
    # TLS costs more than all the rest of a run, and most images have no mirror.
    from ..kubernetes import apiserver, endpoint

    # Not before it is known that the run takes long, nor after the long wait for the API server.
    audit.greet()
    if settings.insecure_skip_tls_verify:
        audit.warn_at_once(
            "--insecure-skip-tls-verify: the API server's certificate is not verified, and any server at its address "
            "gets the pod's token"
        )
    place, client = endpoint.find_endpoint(settings), None
    if settings.secrets_from == POD:
        from ..kubernetes.clientcertificate import find_client_certificate

        client = find_client_certificate(settings)
    return apiserver.ApiServer(
        place,
        settings.deadline,
        settings.max_answer_size,
        verify=not settings.insecure_skip_tls_verify,
        client=client,
    )


def _sweep(settings: Settings, audit: Audit) -> None:
    """Removes stale files, whatever became of the run itself. What goes wrong here is told in the journal alone."""
    try:
        if _has_files(settings.auth_dir, besides=os.path.basename(audit.auth_file)):
            from . import sweep

            if not audit.is_settled:
                from . import delivery

                delivery.clear(audit.resolution, settings, audit)
            sweep.sweep(settings, audit)
    except BaseException as error:
        audit.tell_further(f"then, while removing stale files: {internal_error(error)}")


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
            if len(data) > MAX_REQUEST_SIZE:
                raise RequestError(
                    f"standard input is larger than {MAX_REQUEST_SIZE >> 20} MiB, more than any request of a kubelet"
                )
    except OSError as error:
        raise RequestError(f"cannot read standard input: {error.strerror}") from None
    return bytes(data)


def _write_answer(data: bytes) -> None:
    try:
        while data:
            data = data[os.write(1, data) :]
    except OSError as error:
        raise RequestError(f"cannot write the answer to the kubelet: {error.strerror}") from None
