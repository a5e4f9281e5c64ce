"""Where the API server is and how it is to be trusted: the kubelet's kubeconfig, else an environment file, else here.

Opens no connection. Order: ``--apiserver``, ``--kubeconfig``, the kubelet's own kubeconfig, apiserver-url.env,
``https://localhost:6443`` (which answers on control-plane nodes only).
"""

from __future__ import annotations

import binascii
import os

from ..errors import ConfigError, masked
from ..platform import regularfile
from ..platform.parsecache import ParseCache
from ..platform.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..settings import Settings

KUBECONFIGS = (
    "/var/lib/kubelet/kubeconfig",
    "/etc/kubernetes/kubelet.conf",
    "/var/lib/rancher/k3s/agent/kubelet.kubeconfig",
    "/var/lib/rancher/rke2/agent/kubelet.kubeconfig",
)
"""Where kubelets keep theirs: OpenShift and many others, kubeadm, k3s, RKE2. OpenShift's kubelet.conf is another kind
of file, a KubeletConfiguration, so that kubeadm's place comes second."""

CERTIFICATE_AUTHORITIES = (
    "/etc/kubernetes/pki/ca.crt",
    "/etc/kubernetes/ca.crt",
    "/var/lib/rancher/k3s/agent/server-ca.crt",
    "/var/lib/rancher/rke2/agent/server-ca.crt",
)
"""Where installers leave the CA of the API server, for nodes without a kubeconfig."""

DEFAULT = "the default, as no kubeconfig and no apiserver-url.env was found: set --kubeconfig or --apiserver"

_MAX_SIZE = 4 * 1024 * 1024
_MAX_SHOWN = 200

_BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_HEX = "0123456789abcdefABCDEF"
_PATH = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/%:@!$&'()*+,;="
"""What a path may be made of (RFC 3986): it becomes part of each request's first line."""
_HOST = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._"


class Endpoint(Record):
    """An API server.

    Attributes:
        host, port: to connect to.
        path: in front of every request's own, "" or with a slash at its beginning alone.
        server_name: the name or address that its certificate must have.
        ca_file: path of the CA certificates, or "".
        ca_data: the same as PEM text, or ""; with neither the system's own are taken.
        skips_verifying: whether the kubeconfig has ``insecure-skip-tls-verify``, which does not count here.
        origin: where this was found, for people.
    """

    __slots__ = ("ca_data", "ca_file", "host", "origin", "path", "port", "server_name", "skips_verifying")

    def __init__(
        self,
        host: str,
        port: int,
        origin: str,
        ca_file: str = "",
        ca_data: str = "",
        server_name: str = "",
        path: str = "",
        skips_verifying: bool = False,
    ) -> None:
        self.host = host
        self.port = port
        self.path = path
        self.skips_verifying = skips_verifying
        self.server_name = server_name or host
        self.ca_file = ca_file
        self.ca_data = ca_data
        self.origin = origin

    @property
    def authority(self) -> str:
        """Host and port as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"https://{self.authority}{self.path}"


def find_endpoint(settings: Settings) -> Endpoint:
    """Finds the API server for these settings.

    Raises:
        ConfigError: the file that should name it is missing, broken, or names something other than an https URL.
    """
    ca_file = settings.certificate_authority
    if settings.apiserver:
        return _from_url(settings.apiserver, "--apiserver", ca_file or _usual_ca_file(settings.root))
    path = find_kubeconfig(settings)
    if path:
        return _from_kubeconfig(path, settings)
    ca_file = ca_file or _usual_ca_file(settings.root)
    if os.path.exists(settings.apiserver_env_file):
        return _from_environment_file(settings.apiserver_env_file, ca_file)
    return Endpoint("localhost", 6443, DEFAULT, ca_file)


def _usual_ca_file(root: str) -> str:
    return next((path for path in (root + path for path in CERTIFICATE_AUTHORITIES) if os.path.exists(path)), "")


_FORM = "https://HOST[:PORT][/PATH]"


def _from_url(
    url: str,
    origin: str,
    ca_file: str = "",
    ca_data: str = "",
    server_name: str = "",
    skips_verifying: bool = False,
) -> Endpoint:
    """The endpoint of a URL as client-go takes it (rest/url_utils.go): the scheme in any case, a path kept in front of
    every request's own. Neither a query nor a user has a place in it."""
    named = f"{origin} names the API server {_shown_url(url)!r}"
    scheme, separator, rest = url.partition("://")
    if separator and scheme.lower() == "http":
        raise ConfigError(
            f"{named}, which is plain HTTP, not {_FORM}",
            "the pod's token is sent over verified TLS only: name the API server's TLS port with https://",
            rule="kubeconfig",
        )
    if not separator or scheme.lower() != "https":
        raise ConfigError(f"{named}, which is not {_FORM}", "start it with https://" if url else "", rule="kubeconfig")
    authority, _, path = rest.partition("/")
    for character, what in (("@", "a user name"), ("?", "a query"), ("#", "a fragment")):
        if character in authority or (character in path and character != "@"):
            raise ConfigError(f"{named}, which is not {_FORM}", f"remove {what} from it", rule="kubeconfig")
    is_ipv6 = authority.startswith("[")
    host, _, port = authority.rpartition("]") if is_ipv6 else authority.partition(":")
    is_joined = not (is_ipv6 and port) or port.startswith(":")
    port = (port.removeprefix(":") if is_ipv6 else port) or "443"
    host = host.removeprefix("[")
    if (
        not (_is_address(host) if is_ipv6 else _is_host(host))
        or not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536)
        or path.strip(_PATH)
        or not is_joined
    ):
        raise ConfigError(f"{named}, which is not {_FORM}", rule="kubeconfig")
    if server_name and not _is_host(server_name) and not _is_address(server_name):
        raise ConfigError(
            f"{origin}: tls-server-name {masked(server_name)!r} is not a host name or an address",
            "write the name that the API server's certificate is for, without scheme and port",
            rule="kubeconfig",
        )
    # As client-go joins it with each request's path: single slashes, none at the end.
    path = os.path.normpath(f"/{path.lstrip('/')}").rstrip("/")
    return Endpoint(host, int(port), origin, ca_file, ca_data, server_name, path, skips_verifying)


def _is_host(text: str) -> bool:
    """Whether the text can be a host name: it becomes part of an HTTP header and of a TLS handshake."""
    return not text.strip(_HOST) and all(0 < len(label) < 64 for label in text.removesuffix(".").split("."))


def _is_address(text: str) -> bool:
    """Whether the text is an IPv6 address without a zone (RFC 4291, 2.2): eight groups, of which :: stands for some."""
    halves = text.split("::")
    groups = [group for half in halves if half for group in half.split(":")]
    if groups and "." in groups[-1] and not text.endswith(":"):
        octets = groups.pop().split(".")
        if len(octets) != 4 or not all(
            octet.isascii() and octet.isdigit() and len(octet) < 4 and int(octet) < 256 for octet in octets
        ):
            return False
        groups += ["0", "0"]
    if len(halves) > 2 or not all(0 < len(group) <= 4 and not group.strip(_HEX) for group in groups):
        return False
    return len(groups) == 8 if len(halves) == 1 else len(groups) < 8


def _shown_url(url: str) -> str:
    """A URL in an error: without user, password, query and fragment, and no longer than a line."""
    if "@" in url:
        return f"{url.partition('://')[0][:10]}://..." if "://" in url else "..."
    for mark in "?#":
        place, cut, _ = url.partition(mark)
        url = f"{place}{mark}..." if cut else place
    return url if len(url) <= _MAX_SHOWN else f"{url[:_MAX_SHOWN]}..."


# -- apiserver-url.env ------------------------------------------------------------------------------------------------


def _from_environment_file(path: str, ca_file: str) -> Endpoint:
    """OpenShift's file: lines NAME=value, values perhaps quoted, perhaps with ``export``."""
    values = {}
    for line in read(path).decode(errors="replace").splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and not name.startswith("#"):
            values[name.strip()] = value.strip().strip("'\"")
    host, port = values.get("KUBERNETES_SERVICE_HOST", ""), values.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise ConfigError(f"{path} has no KUBERNETES_SERVICE_HOST", "set it, or name the API server with --apiserver")
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return _from_url(f"https://{host}:{port}", path, ca_file)


# -- kubeconfig ------------------------------------------------------------------------------------------------------


def _from_kubeconfig(path: str, settings: Settings) -> Endpoint:
    kept = load_kubeconfig(path, settings)
    given = settings.certificate_authority
    ca_data = "" if given else _pem(kept, path)
    ca_file = given or ("" if ca_data else absolute(kept["certificate-authority"], path, settings.root))
    server, skips = kept["server"], kept["insecure-skip-tls-verify"] == "true"
    if not server:
        raise ConfigError(
            f"{path} has no server in the cluster of its context",
            f"write server: {_FORM} in it; a kubelet cannot use it either",
            rule="kubeconfig",
        )
    try:
        bare = server.rstrip("/")
        if bare and "/" not in bare and (ca_file or ca_data or kept["client-certificate"]):
            # HOST:PORT is TLS where there is something to do TLS with (client-go: defaultServerUrlFor).
            server = f"https://{bare}"
        return _from_url(server, path, ca_file, ca_data, kept["tls-server-name"], skips)
    except ConfigError as error:
        line = _line_of_server(path, kept["server"])
        if not line:
            raise
        message = f"{path}:{line}{error.message.removeprefix(path)}"
        raise ConfigError(message, error.hint, rule=error.rule, line=line) from None


def _line_of_server(path: str, server: str) -> int:
    """The line of a kubeconfig on which a server is written literally, else 0."""
    lines = read(path).decode(errors="replace").splitlines()
    return next(
        (n for n, line in enumerate(lines, 1) if server and server in line and "server" in line.partition(":")[0]), 0
    )


def find_kubeconfig(settings: Settings) -> str:
    """The path of ``--kubeconfig``, else of the kubelet's own, else ""."""
    if settings.kubeconfig:
        return settings.kubeconfig
    usual = [settings.root + path for path in KUBECONFIGS]
    candidates = usual if settings.root else [_kubeconfig_of_parent(), *usual]
    return next((path for path in candidates if path and os.path.exists(path)), "")


def _kubeconfig_of_parent() -> str:
    """What ``--kubeconfig`` of the kubelet says, if the process that started this one is a kubelet."""
    try:
        with open(f"/proc/{os.getppid()}/cmdline", "rb") as file:
            arguments = os.fsdecode(file.read(_MAX_SIZE)).split("\0")
    except OSError:
        return ""
    if os.path.basename(arguments[0]) != "kubelet":
        return ""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name in ("--kubeconfig", "-kubeconfig"):
            return value if equals else following
    return ""


def absolute(named: str, kubeconfig: str, root: str) -> str:
    """A path that a kubeconfig names: relative ones start at its directory. In a kubeconfig below the root, absolute
    ones lie below the root as well, whether or not they say so."""
    if not named:
        return ""
    if not named.startswith("/"):
        return os.path.join(os.path.dirname(kubeconfig), named)
    below = f"{root}/"
    if not kubeconfig.startswith(below):
        return named
    path = named if named.startswith(below) else root + named
    # kubeadm's certificate is a link that names its target from the root of the node.
    target = os.readlink(path) if os.path.islink(path) else ""
    return root + target if target.startswith("/") and not target.startswith(below) else path


def load_kubeconfig(path: str, settings: Settings) -> dict[str, str]:
    """As ``kubeconfig.load``, kept between runs."""

    def make() -> dict[str, str]:
        from . import kubeconfig

        found = kubeconfig.load(path, read(path))
        _pem(found, path)
        return found

    kept: dict[str, str] = ParseCache(settings.cache_dir, "kubeconfig").form([path], make)
    return kept


def _pem(kept: dict[str, str], path: str) -> str:
    """The CA certificates that are embedded in a kubeconfig, "" for none."""
    data = kept["certificate-authority-data"]
    try:
        # A path, or PEM as it stands: a2b_base64 skips what is not of the alphabet.
        if "".join(data.split()).strip(_BASE64):
            raise ValueError
        pem = binascii.a2b_base64(data).decode("ascii")
        if data and not pem.strip():
            # Without any CA, the system's own would count.
            raise ValueError
        return pem
    except ValueError:
        raise ConfigError(
            f"{path}: certificate-authority-data is not base64-encoded PEM",
            "write the output of base64 -w0 for the cluster's CA file, or name that file as certificate-authority",
            rule="kubeconfig",
        ) from None


def read(path: str) -> bytes:
    """A file of the operator's. ConfigError where it cannot be read, or is far too large."""
    try:
        data = regularfile.read(path, _MAX_SIZE + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", rule="io") from None
    if len(data) > _MAX_SIZE:
        raise ConfigError(f"{path} is larger than {_MAX_SIZE >> 20} MiB", rule="io")
    return data
