"""One question to one registry, asked as the runtime asks it, and a verdict that tells apart what can go wrong.

For CRI-O it follows containers/image 5.38: ``GET /v2/`` without a credential, over TLS (then plain HTTP where the
source is ``insecure``); the challenge it answers decides between Basic and a token service; then the manifest. Trusts
the system's CAs and those of ``certs.d``. Asks for headers first (Docker Hub does not count ``HEAD``), and with
``GET``, as CRI-O does, before it says no. For containerd see ``containerd``.

Knows nothing about pull secrets, nor about where hosts come from. Shows no credential to another host than the one it
is for, or the token service that this one names; no text of a verdict holds a piece of a credential or of a token.

    verdict = probe_manifest("mirror.corp:5000", "hub/library/nginx", "1.27", credential)
    print(verdict.outcome, verdict.evidence, verdict.remedy)
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .client import Client
from .containerd import Api, ContainerdClient
from .verdict import (
    CONNECT,
    DNS,
    FORBIDDEN,
    NOT_A_REGISTRY,
    NOT_FOUND,
    OK,
    OUTCOMES,
    RATE_LIMITED,
    SERVER_ERROR,
    TLS,
    UNAUTHORIZED,
    Fault,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..images.dockerconfig import Credential

__all__ = (
    "CONNECT",
    "DEADLINE",
    "DNS",
    "FORBIDDEN",
    "NOT_A_REGISTRY",
    "NOT_FOUND",
    "OK",
    "OUTCOMES",
    "RATE_LIMITED",
    "SERVER_ERROR",
    "TLS",
    "UNAUTHORIZED",
    "Api",
    "Verdict",
    "probe_api",
    "probe_host",
    "probe_manifest",
    "probe_registry",
)

DEADLINE = 20.0
"""Seconds for everything that one verdict takes."""


def probe_registry(
    host: str,
    *,
    insecure: bool = False,
    root: str = "",
    deadline: float = DEADLINE,
    environment: Mapping[str, str] = os.environ,
) -> Verdict:
    """Whether a registry is there that this node can talk to. Shows no credential.

    Args:
        host: as in image names, with its port: ``mirror.corp:5000``.
        insecure: as in registries.conf: TLS is not verified, and plain HTTP will do.
        root: directory below which CAs are looked for.
        deadline: seconds.
        environment: names the proxies (HTTPS_PROXY, HTTP_PROXY, NO_PROXY): CRI-O's own, where it is known.

    Returns:
        A verdict that is ``ok`` if a registry answered, whether or not it wants a credential.

    Raises:
        ConfigError: this process may not read what CRI-O would read.
    """
    return _judge(Client(host, None, insecure, root, deadline, environment), Client.ask_registry)


def probe_manifest(
    host: str,
    path: str,
    reference: str,
    credential: Credential | None,
    *,
    insecure: bool = False,
    root: str = "",
    deadline: float = DEADLINE,
    environment: Mapping[str, str] = os.environ,
) -> Verdict:
    """Whether a registry hands out a manifest for a credential.

    Args:
        host, insecure, root, deadline, environment: as for ``probe_registry``.
        path: of the repository.
        reference: a tag or a digest.
        credential: None to ask without one.

    Raises:
        ConfigError: this process may not read what CRI-O would read.
    """
    client = Client(host, credential, insecure, root, deadline, environment)
    return _judge(client, lambda client: client.ask_manifest(path, reference))


def probe_host(
    api: Api,
    path: str,
    reference: str,
    credential: Credential | None,
    *,
    root: str = "",
    deadline: float = DEADLINE,
    environment: Mapping[str, str] = os.environ,
) -> Verdict:
    """The same for a host of containerd's files, as containerd asks.

    Args:
        api: the host.
        path: of the repository that the pod names.
        reference, credential, root, deadline, environment: as for ``probe_manifest``.

    Raises:
        ConfigError: this process may not read what containerd would read.
    """
    client = ContainerdClient(api, credential, root, deadline, environment)
    return _judge(client, lambda client: client.ask_manifest(path, reference))


def probe_api(
    api: Api, *, root: str = "", deadline: float = DEADLINE, environment: Mapping[str, str] = os.environ
) -> Verdict:
    """As ``probe_registry``, for a host of containerd's files; the CAs and certificates of ``api`` lie below ``root``.

    Raises:
        ConfigError: this process may not read what containerd would read.
    """
    # Not every proxy answers below its path without the name of an image.
    api = api._replace(
        path="/v2",
        namespace="",
        ca=tuple(root + path for path in api.ca),
        client=tuple((root + one, other and root + other) for one, other in api.client),
    )
    return _judge(ContainerdClient(api, None, root, deadline, environment), Client.ask_registry)


def _judge(client: Client, ask: Callable[[Client], tuple[str, str]]) -> Verdict:
    """The verdict of a question, which is answered with the evidence and a digest."""
    fault = Fault(OK, "", "")
    digest = ""
    try:
        fault.evidence, digest = ask(client)
    except Fault as raised:
        fault = raised
    return Verdict(
        fault.outcome,
        fault.evidence,
        fault.remedy,
        fault.cause,
        client.scheme,
        digest,
        tuple(dict.fromkeys(client.credential_sent_to)),
        tuple(client.exchanges),
        fault.token_service,
        fault.undecided,
    )
