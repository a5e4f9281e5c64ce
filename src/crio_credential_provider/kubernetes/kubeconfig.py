"""A kubeconfig as it is written: YAML, and what its current context says.

Reads no file. Loaded by runs that find one changed, and by tools.
"""

from __future__ import annotations

import binascii

from ..errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


_CLUSTER_MEMBERS = (
    *("server", "certificate-authority", "certificate-authority-data", "tls-server-name", "insecure-skip-tls-verify"),
)
_USER_MEMBERS = ("client-certificate", "client-key")
_EMBEDDED = ("client-certificate-data", "client-key-data")


def load(path: str, data: bytes) -> dict[str, str]:
    """What matters of the current context, none of it secret, so that it may be kept between runs.

    The client's certificate and key are their paths; ``certificate-authority-data`` is base64, as in the kubeconfig.
    """
    cluster, user = _current(_parse(path, data), path)
    for name in _CLUSTER_MEMBERS:
        if isinstance(cluster, dict) and not isinstance(cluster.get(name, ""), str):
            raise ConfigError(f"{path}: {name} is not a string", _NO_KUBECONFIG, rule="kubeconfig")
    found = {name: _text(cluster, name) for name in _CLUSTER_MEMBERS}
    return found | {name: _text(user, name) for name in _USER_MEMBERS}


def load_embedded_certificate(path: str, data: bytes) -> tuple[str, str]:
    """The certificate and the key, as PEM, that the user of the current context has; "" for what is not there.

    Both are secret, and never kept.
    """
    user = _current(_parse(path, data), path)[1]
    try:
        certificate, key = (binascii.a2b_base64(_text(user, name)).decode("ascii") for name in _EMBEDDED)
    except ValueError:
        return "", ""
    return certificate, key


def _parse(path: str, data: bytes) -> Any:
    # PyYAML takes 20 ms of CPU to import; this is only reached when the file changed or holds the key itself.
    import yaml

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


def _current(document: Any, path: str) -> tuple[Any, Any]:
    """Cluster and user of the current context."""
    context = _named(document, "contexts", _text(document, "current-context"), "context", path, "current-context")
    cluster = _named(document, "clusters", _text(context, "cluster"), "cluster", path, "cluster of its context")
    name = _text(context, "user")
    users = document.get("users")
    return cluster, _named(document, "users", name, "user", path, "user of its context") if users else {}


def _text(value: Any, name: str) -> str:
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
        names = [repr(shown) for entry in present[:5] if (shown := _text(entry, "name"))]
        hint = f"set {key} to one of its {kind}: {', '.join(names)}" if names and not found else _NO_KUBECONFIG
        what = f"has no {member} {name!r}" if name else f"has no {key}" if len(present) > 1 else f"has no {member}"
        raise ConfigError(f"{path} {what}", hint, rule="kubeconfig")
    return found[0][member]


_NO_KUBECONFIG = "a kubelet cannot use it either: check that it is a kubeconfig, or name another one with --kubeconfig"


def load_user(path: str, data: bytes) -> dict[str, Any]:
    """The user of the current context, as it is written. ConfigError where the kubeconfig cannot be read or used."""
    user: dict[str, Any] = _current(_parse(path, data), path)[1]
    return user
