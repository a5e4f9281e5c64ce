"""Hosts of a hosts.toml, on the loopback, that tell what containerd asked them for and whether it showed a credential.

    hosts.add("mirror", guarded(hosts.image.answer))
    hosts.add("server", refusing())
    containerd.write_hosts("docker.io", hosts.toml("mirror"))
    containerd.pull(hosts.image.name, *CREDENTIAL)
    assert hosts.shown() == ["mirror"]

Nobody else is asked: where a file does not name the server, the image is one of a host here.
"""

from __future__ import annotations

import contextlib
import json
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from crio_credential_provider.testbed.certificates import Authority, server_context
from crio_credential_provider.testbed.loopback import Answer, Request
from docker_registry import ALPHA, TAG, make_layout
from node import basic
from odd_registries import Simulated, answering
from realnode.registry import tar

CREDENTIAL = ALPHA
SHOWN = f"Basic {basic(*CREDENTIAL)}"
TOKEN = "a-token"
BASIC, BEARER = 'Basic realm="registry"', 'Bearer realm="https://{host}/token",service="registry"'

Respond = Callable[[Request], Answer]


class Image(NamedTuple):
    """An image of Docker Hub with its tag, and its contents by digest."""

    name: str
    digest: str
    contents: dict[str, bytes]

    @classmethod
    def make(cls, directory: Path, name: str) -> Image:
        digest = make_layout(directory, tar({"name": name.encode()}))
        blobs = (directory / "blobs/sha256").iterdir()
        return cls(f"docker.io/team/{name}:{TAG}", digest, {f"sha256:{blob.name}": blob.read_bytes() for blob in blobs})

    def answer(self, request: Request) -> Answer:
        """As a registry that has it and asks for nothing."""
        wanted = request.path.partition("?")[0].rpartition("/")[2]
        digest = self.digest if wanted == TAG else wanted
        kind = "application/octet-stream"
        if digest == self.digest:
            kind = "application/vnd.oci.image.manifest.v1+json"
        headers = ("Content-Type", kind), ("Docker-Content-Digest", digest)
        return answering(200, *headers, body=self.contents[digest])

    def answer_without(self, part: str) -> Respond:
        """As one that fails to deliver what has this in its path."""
        return lambda request: answering(500) if part in request.path else self.answer(request)


def is_shown(request: Request) -> bool:
    """Whether the credential is in a request, in either of the forms in which a registry is shown it."""
    form = urllib.parse.parse_qs(request.body.decode())
    return request.header("Authorization") == SHOWN or form.get("password") == [CREDENTIAL[1]]


def refusing(challenge: str = BASIC) -> Respond:
    """Whatever is shown."""
    return lambda request: _challenge(request, challenge)


def guarded(respond: Respond, challenge: str = BASIC) -> Respond:
    """Answers who shows the credential, or a token; it is a token service as well."""

    def guard(request: Request) -> Answer:
        if request.path.startswith("/token") and is_shown(request):
            return answering(200, body=json.dumps({"token": TOKEN, "access_token": TOKEN}).encode())
        if request.header("Authorization") in (SHOWN, f"Bearer {TOKEN}"):
            return respond(request)
        return _challenge(request, challenge)

    return guard


def _challenge(request: Request, challenge: str) -> Answer:
    return answering(401, ("WWW-Authenticate", challenge.format(host=request.header("Host"))))


class Hosts(contextlib.ExitStack):
    """By name.

    Attributes:
        image: that nobody else has: containerd keeps every layer.
        log: what they were asked, in order.
        urls: by name; one that is not served here may be added.
    """

    def __init__(self, authority: Authority, home: Path) -> None:
        super().__init__()
        self.image = Image.make(home / "layout", home.name)
        self.log: list[tuple[str, Request]] = []
        self.urls: dict[str, str] = {}
        identity = authority.issue("host", ip_addresses=["127.0.0.1"], dns_names=["localhost"])
        self._context = server_context(identity)
        self._authority = home / "ca.pem"
        self._authority.write_text(authority.certificate_pem)

    def add(self, name: str, respond: Respond, *, tls: bool = True) -> None:
        def answer(request: Request) -> Answer:
            self.log.append((name, request))
            return respond(request)

        self.urls[name] = self.enter_context(Simulated(answer, self._context if tls else None)).url

    def host(self, name: str) -> str:
        return self.urls[name].partition("://")[2]

    def toml(
        self, *mirrors: str, server: str = "server", capabilities: Mapping[str, Sequence[str]] | None = None
    ) -> str:
        """A hosts.toml with these mirrors before the server.

        Args:
            server: empty for none.
            capabilities: by name, where they are not all.
        """

        def members(name: str) -> Iterable[str]:
            if capabilities and name in capabilities:
                yield f"capabilities = {json.dumps(capabilities[name])}"
            yield f'ca = "{self._authority}"'

        lines = [f'server = "{self.urls[server]}"', *members(server)] if server else []
        for mirror in mirrors:
            lines += [f'[host."{self.urls[mirror]}"]', *members(mirror)]
        return "\n".join(lines)

    def asked(self, part: str = "") -> list[str]:
        """Names of those that were asked for a path with this part, in the order of their first time."""
        return list(dict.fromkeys(name for name, request in self.log if part in request.path))

    def shown(self, part: str = "") -> list[str]:
        """Names of those that the credential has reached, likewise."""
        found = (name for name, request in self.log if part in request.path and is_shown(request))
        return list(dict.fromkeys(found))
