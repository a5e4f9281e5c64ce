"""What the kubelet shows the API server: the client certificate of its kubeconfig, and what else its user has."""

from __future__ import annotations

from ..errors import ConfigError
from ..platform.record import Record
from . import endpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..settings import Settings


class ClientCertificate(Record):
    """The kubelet's own identity, as PEM: each either a path or, with ``embedded``, the text itself."""

    __slots__ = ("certificate", "embedded", "key")
    _secret = ("certificate", "key")

    def __init__(self, certificate: str, key: str, embedded: bool) -> None:
        self.certificate = certificate
        self.key = key
        self.embedded = embedded


def find_client_certificate(settings: Settings, flag: str = "--secrets-from pod") -> ClientCertificate:
    """Finds what the kubelet shows the API server.

    Args:
        flag: what needs it.

    Raises:
        ConfigError: there is no kubeconfig, or it holds no client certificate.
    """
    path = endpoint.find_kubeconfig(settings)
    if not path:
        raise ConfigError(
            f"{flag} needs the kubelet's kubeconfig, and none of {', '.join(endpoint.KUBECONFIGS)} exists",
            "name it with --kubeconfig",
        )
    kept = endpoint.load_kubeconfig(path, settings)
    files = [endpoint.absolute(kept[name], path, settings.root) for name in ("client-certificate", "client-key")]
    if all(files):
        return ClientCertificate(files[0], files[1], embedded=False)
    from . import kubeconfig

    certificate, key = kubeconfig.load_embedded_certificate(path, endpoint.read(path))
    if not certificate or not key:
        raise ConfigError(
            f"{path} has no client certificate, which {flag} needs",
            "for a kubelet without a client certificate "
            + ("remove it" if flag == "--pod-events" else "use --secrets-from namespace or service-account"),
            rule="kubeconfig",
        )
    return ClientCertificate(certificate, key, embedded=True)


def load_user(settings: Settings) -> tuple[str, dict[str, str]]:
    """The kubeconfig's path, and the user of its current context: what tools ask with, be it a certificate or a token.

    Returns:
        ("", {}) without a kubeconfig. Members that are texts only; those that name files hold absolute paths, and
        ``exec`` or ``auth-provider`` is there, empty, where the user has it.

    Raises:
        ConfigError: the kubeconfig cannot be read or used.
    """
    path = endpoint.find_kubeconfig(settings)
    if not path:
        return "", {}
    from . import kubeconfig

    user = kubeconfig.load_user(path, endpoint.read(path))
    found = {name: value if isinstance(value, str) else "" for name, value in user.items()}
    for name in ("client-certificate", "client-key", "tokenFile"):
        found[name] = endpoint.absolute(found.get(name, ""), path, settings.root)
    return path, found
