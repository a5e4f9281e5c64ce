"""One run for the kubelet: standard input, decision, auth file, standard output, journal, exit status."""

from __future__ import annotations

import os

from .. import settings
from ..errors import ProviderError, RequestError
from ..kubernetes import credentialprovider
from . import audit, decision
from .audit import Audit

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
        UsageError: a flag or variable that is none.
    """
    given = settings.loads(arguments, environment)
    settings.check_root(given)
    told = Audit(given)
    told.warnings += [f"unknown environment variable {name}" for name in settings.unknown_variables(environment)]
    status = FAULT
    try:
        _serve(given, told)
        status = OK
    except ProviderError as error:
        told.fail(error.fault, str(error))
    except Exception as error:
        told.fail("bug", audit.internal_error(error))
    finally:
        _sweep(given, told)
        told.log()
    return status


def _serve(given: Settings, told: Audit) -> None:
    """Reads, decides, delivers, answers."""
    told.request = request = credentialprovider.loads(_read_request())
    told.resolution = resolution = decision.begin(request)
    decision.complete(resolution, request, given, lambda: _connect(given, told))
    told.greet()
    record_for = None
    if resolution.auth_file is None:
        told.tell("nothing-to-do", f"Nothing to do for {audit.who(resolution)}: {resolution.reason}")
    else:
        from . import delivery

        delivery.Delivery(resolution, resolution.auth_file, given, told).run()
        record_for = None if given.no_pull_record else request.image
    _write_answer(credentialprovider.dumps(record_for))


def _connect(given: Settings, told: Audit) -> Cluster:
    # TLS costs more than all the rest of a run, and most images have no mirror.
    from ..kubernetes import apiserver, endpoint

    # Not before it is known that the run takes long, nor after the long wait for the API server.
    told.greet()
    if given.insecure_skip_tls_verify:
        told.warn_at_once(
            "--insecure-skip-tls-verify: the API server's certificate is not verified, and any server at its address "
            "gets the pod's token"
        )
    place, client = endpoint.find_endpoint(given), None
    if given.secrets_from == settings.POD:
        from ..kubernetes.clientcertificate import find_client_certificate

        client = find_client_certificate(given)
    return apiserver.ApiServer(
        place,
        given.deadline,
        given.max_answer_size,
        verify=not given.insecure_skip_tls_verify,
        client=client,
    )


def _sweep(given: Settings, told: Audit) -> None:
    """Removes stale files, whatever became of the run itself. What goes wrong here is told in the journal alone."""
    try:
        if _has_files(given.auth_dir, besides=os.path.basename(told.auth_file)):
            from . import sweep

            sweep.sweep(given, told)
    except BaseException as error:
        told.tell_further(f"then, while removing stale files: {audit.internal_error(error)}")


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


def _write_answer(data: bytes) -> None:
    try:
        while data:
            data = data[os.write(1, data) :]
    except OSError as error:
        raise RequestError(f"cannot write the answer to the kubelet: {error.strerror}") from None
