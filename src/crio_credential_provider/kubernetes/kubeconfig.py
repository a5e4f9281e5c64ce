"""The kubelet's kubeconfig: where it is, and what its current context says. None of it that is kept is secret."""

from __future__ import annotations

import binascii
import os

from ..errors import ConfigError
from ..platform import regularfile
from ..platform.parsecache import ParseCache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..settings import Settings

KUBECONFIGS = (
    "/var/lib/kubelet/kubeconfig",
    "/etc/kubernetes/kubelet.conf",
    "/var/lib/rancher/k3s/agent/kubelet.kubeconfig",
    "/var/lib/rancher/rke2/agent/kubelet.kubeconfig",
)
"""Where kubelets keep theirs: OpenShift and many others, kubeadm, k3s, RKE2. OpenShift's kubelet.conf is another kind
of file, a KubeletConfiguration, so that kubeadm's place comes second."""

_BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_MAX_SIZE = 4 * 1024 * 1024


def find(settings: Settings) -> str:
    """The path of ``--kubeconfig``, else of the kubelet's own, else ""."""
    if settings.kubeconfig:
        return settings.kubeconfig
    usual = [settings.root + path for path in KUBECONFIGS]
    candidates = usual if settings.root else [_of_parent(), *usual]
    return next((path for path in candidates if path and os.path.exists(path)), "")


def _of_parent() -> str:
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


_CLUSTER_MEMBERS = (
    *("server", "certificate-authority", "certificate-authority-data", "tls-server-name", "insecure-skip-tls-verify"),
)
_USER_MEMBERS = ("client-certificate", "client-key")
EMBEDDED = ("client-certificate-data", "client-key-data")


def load(path: str, settings: Settings) -> dict[str, str]:
    """What matters of the current context, none of it secret, so that it may be kept between runs.

    The client's certificate and key are their paths; ``certificate-authority-data`` is base64, as in the kubeconfig.
    """

    def make() -> dict[str, str]:
        cluster, user = current(parse(path), path)
        found = {name: text(cluster, name) for name in _CLUSTER_MEMBERS}
        found.update((name, text(user, name)) for name in _USER_MEMBERS)
        pem(found, path)
        return found

    kept: dict[str, str] = ParseCache(settings.cache_dir, "kubeconfig").form([path], make)
    return kept


def pem(kept: dict[str, str], path: str) -> str:
    """The CA certificates that are embedded in a kubeconfig, "" for none."""
    data = kept["certificate-authority-data"]
    try:
        # A path, or PEM as it stands: a2b_base64 skips what is not of the alphabet.
        if "".join(data.split()).strip(_BASE64):
            raise ValueError
        return binascii.a2b_base64(data).decode("ascii")
    except ValueError:
        raise ConfigError(
            f"{path}: certificate-authority-data is not base64-encoded PEM",
            "write the output of base64 -w0 for the cluster's CA file, or name that file as certificate-authority",
            rule="kubeconfig",
        ) from None


def parse(path: str) -> Any:
    # PyYAML takes 20 ms of CPU to import; this is only reached when the file changed or holds the key itself.
    import yaml

    data = read(path)
    try:
        # The base loader leaves every scalar a text, which is all that is wanted here, and knows no tags to trip over.
        return yaml.load(data, getattr(yaml, "CBaseLoader", yaml.BaseLoader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 0
        where = f" at line {line}" if line else ""
        # Nothing else of what the parser says: a kubeconfig holds secrets.
        is_tab = b"\t" in b"".join(data.splitlines()[line - 1 : line])
        hint = f"in {path}:{line} replace the tab with spaces" if is_tab else f"correct {path}{where}"
        hint += "; a kubelet cannot use it either"
        raise ConfigError(f"{path} is not valid YAML{where}", hint, rule="kubeconfig", line=line) from None


def current(document: Any, path: str) -> tuple[Any, Any]:
    """Cluster and user of the current context."""
    context = _named(document, "contexts", text(document, "current-context"), "context", path, "current-context")
    cluster = _named(document, "clusters", text(context, "cluster"), "cluster", path, "cluster of its context")
    name = text(context, "user")
    users = document.get("users")
    return cluster, _named(document, "users", name, "user", path, "user of its context") if users else {}


def text(value: Any, name: str) -> str:
    text = value.get(name) if isinstance(value, dict) else None
    return text if isinstance(text, str) else ""


def _named(document: Any, kind: str, name: str, member: str, path: str, key: str) -> Any:
    """The entry of a kubeconfig's list with that name; a list of one needs none.

    Args:
        key: what gives the name, for the error.
    """
    entries = document.get(kind) if isinstance(document, dict) else None
    present = [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
    found = present
    if name or len(found) != 1:
        found = [entry for entry in found if entry.get("name") == name]
    if not found or not isinstance(found[0].get(member), dict):
        names = [repr(shown) for entry in present[:5] if (shown := text(entry, "name"))]
        hint = f"set {key} to one of its {kind}: {', '.join(names)}" if names and not found else _NO_KUBECONFIG
        what = f"has no {member} {name!r}" if name else f"has no {key}" if len(present) > 1 else f"has no {member}"
        raise ConfigError(f"{path} {what}", hint, rule="kubeconfig")
    return found[0][member]


_NO_KUBECONFIG = "a kubelet cannot use it either: check that it is a kubeconfig, or name another one with --kubeconfig"


def read(path: str) -> bytes:
    try:
        data = regularfile.read(path, _MAX_SIZE + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", rule="io") from None
    if len(data) > _MAX_SIZE:
        raise ConfigError(f"{path} is larger than {_MAX_SIZE >> 20} MiB", rule="io")
    return data


def load_user(settings: Settings) -> tuple[str, dict[str, str]]:
    """The kubeconfig's path, and the user of its current context: what tools ask with, be it a certificate or a token.

    Returns:
        ("", {}) without a kubeconfig. Members that are texts only; those that name files hold absolute paths, and
        ``exec`` or ``auth-provider`` is there, empty, where the user has it.

    Raises:
        ConfigError: the kubeconfig cannot be read or used.
    """
    path = find(settings)
    if not path:
        return "", {}
    user = current(parse(path), path)[1]
    found = {name: value if isinstance(value, str) else "" for name, value in user.items()}
    for name in ("client-certificate", "client-key", "tokenFile"):
        found[name] = absolute(found.get(name, ""), path, settings.root)
    return path, found
