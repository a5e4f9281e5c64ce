"""No connection, no answer, and connections through a proxy."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from crio_credential_provider import registryclient
from crio_credential_provider.testbed.certificates import Authority, server_context
from crio_credential_provider.testbed.registry import MirrorRegistry
from odd_registries import NGINX, PASSWORD
from servers import Peer, drain, half_a_server_hello, hang, refused_port, say, silent_port
from verdicts import ask, is_, trust

pytestmark = pytest.mark.usefixtures("no_surroundings")


def test_nobody_listens() -> None:
    with refused_port() as port:
        is_(ask(f"127.0.0.1:{port}"), "connect", "refused", f"https://127.0.0.1:{port} refuses connections")
        is_(ask(f"127.0.0.1:{port}", insecure=True), "connect", "refused", "https://", "http://")


def test_packets_are_dropped() -> None:
    with silent_port() as port:
        started = time.monotonic()
        is_(ask(f"127.0.0.1:{port}", deadline=0.5), "connect", "timeout", "within 0.5 s", "firewall")
        assert time.monotonic() - started < 2


@pytest.mark.parametrize("behave", [hang, half_a_server_hello])
def test_a_server_that_falls_silent_in_tls(behave: Any) -> None:
    with Peer(behave) as peer:
        verdict = ask(f"127.0.0.1:{peer.port}", deadline=0.5)
        is_(verdict, "connect", "silent", "accepts the connection and does not answer")
        # CRI-O gives up as well.
        assert not verdict.undecided


def test_a_server_that_falls_silent_later(authority: Authority, tmp_path: Path) -> None:
    context = server_context(authority.issue("r", ip_addresses=["127.0.0.1"]))
    for behave in (drain, drip):
        with Peer(behave, context=context) as peer:
            host = f"127.0.0.1:{peer.port}"
            trust(tmp_path, host, authority)
            started = time.monotonic()
            verdict = ask(host, root=tmp_path, deadline=0.7)
            is_(verdict, "connect", "silent")
            # CRI-O waits for as long as it takes.
            assert verdict.undecided
            assert time.monotonic() - started < 2


def drip(connection: socket.socket, closing: threading.Event) -> None:
    """A byte now and then: each read succeeds, and the answer never ends."""
    connection.recv(65536)
    for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000:
        connection.sendall(bytes([byte]))
        if closing.wait(0.1):
            return


def flood(connection: socket.socket, closing: threading.Event) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while not closing.is_set():
        connection.sendall(bytes(1 << 20))


def test_an_answer_without_an_end(authority: Authority, tmp_path: Path) -> None:
    with Peer(flood) as peer:
        is_(ask(f"127.0.0.1:{peer.port}", insecure=True), "not-a-registry", "", "sends an answer without an end")


@pytest.mark.parametrize(
    "answer",
    [b"", b"+OK dovecot ready\r\n", b"HTTP/1.1 banana\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"],
)
def test_a_server_that_speaks_no_http(authority: Authority, tmp_path: Path, answer: bytes) -> None:
    context = server_context(authority.issue("r", ip_addresses=["127.0.0.1"]))
    with Peer(say(answer), context=context) as peer:
        host = f"127.0.0.1:{peer.port}"
        trust(tmp_path, host, authority)
        verdict = ask(host, root=tmp_path)
        if answer:
            is_(verdict, "not-a-registry", "", "does not speak HTTP")
        else:
            is_(verdict, "connect", "closed", "closes the connection without an answer")


def test_names() -> None:
    is_(ask("mirror.nowhere.invalid"), "dns", "unknown", "cannot be resolved", "getent hosts mirror.nowhere.invalid")
    is_(ask("registry.kube-system.svc.cluster.local:5000"), "dns", "unknown", "the cluster's Services")
    # A name that the grammar of images allows, and DNS does not.
    is_(ask("x" * 70 + ".corp.example"), "dns", "unknown")


def test_docker_hub_s_server_has_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def look_up(host: str, *rest: Any, **more: Any) -> Any:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    is_(ask("docker.io", path="library/nginx"), "dns", "unknown", "registry-1.docker.io cannot be resolved")
    assert asked == ["registry-1.docker.io"]


class Forwarder:
    """An HTTP proxy: whatever is asked for is connected to one port here."""

    def __init__(self, port: int, refusal: bytes = b"") -> None:
        self.heads: list[bytes] = []
        self._port = port
        self._refusal = refusal
        self.peer = Peer(self._serve)

    def _serve(self, connection: socket.socket, closing: threading.Event) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(65536)
        self.heads.append(head)
        if self._refusal:
            connection.sendall(self._refusal)
            return
        with socket.create_connection(("127.0.0.1", self._port)) as onward:
            if head.startswith(b"CONNECT"):
                connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                onward.sendall(head.replace(b" http://mirror.corp/", b" /", 1))
            there = threading.Thread(target=pump, args=(onward, connection), daemon=True)
            there.start()
            pump(connection, onward)
            there.join(5)

    def __enter__(self) -> str:
        self.peer.__enter__()
        return f"http://user:proxypw@127.0.0.1:{self.peer.port}"

    def __exit__(self, *error: Any) -> None:
        self.peer.__exit__(*error)


def pump(source: Any, target: Any) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def test_through_a_proxy(authority: Authority, tmp_path: Path) -> None:
    identity = authority.issue("mirror.corp", dns_names=["mirror.corp"])
    with MirrorRegistry({"alpha": (PASSWORD, ["hub"])}, identity=identity) as registry:
        registry.add_image(NGINX)
        trust(tmp_path, "mirror.corp:5000", authority)
        forwarder = Forwarder(registry.port)
        with forwarder as proxy:
            is_(ask("mirror.corp:5000", root=tmp_path, environment={"HTTPS_PROXY": proxy}), "ok")
        assert len(forwarder.heads) == 2
        for head in forwarder.heads:
            assert head.startswith(b"CONNECT mirror.corp:5000 HTTP/1.1\r\n")
            assert b"Proxy-Authorization: Basic " + base64.b64encode(b"user:proxypw") in head
            assert b"\r\nAuthorization" not in head


def test_through_a_proxy_without_tls(plain_registry: MirrorRegistry, tmp_path: Path) -> None:
    forwarder = Forwarder(plain_registry.port)
    with forwarder as proxy:
        environment = {"http_proxy": proxy, "https_proxy": proxy}
        verdict = ask("mirror.corp", root=tmp_path, insecure=True, environment=environment)
    is_(verdict, "ok")
    assert forwarder.heads[1].startswith(b"GET http://mirror.corp/v2/ HTTP/1.1\r\n")


def test_a_proxy_that_refuses(tmp_path: Path) -> None:
    with Forwarder(1, b"HTTP/1.1 403 Forbidden\r\n\r\n") as proxy:
        verdict = ask("mirror.corp", root=tmp_path, environment={"HTTPS_PROXY": proxy})
        is_(verdict, "connect", "proxy", "answers 403 to CONNECT mirror.corp:443", "NO_PROXY")
        assert "proxypw" not in repr(verdict.evidence)
    with refused_port() as port:
        verdict = ask("mirror.corp", root=tmp_path, environment={"HTTPS_PROXY": f"127.0.0.1:{port}"})
        is_(verdict, "connect", "proxy", f"the proxy 127.0.0.1:{port} cannot be reached")
    verdict = ask("mirror.corp", environment={"HTTPS_PROXY": "socks5://127.0.0.1:1"})
    is_(verdict, "connect", "proxy", "HTTPS_PROXY")
    assert verdict.undecided


@pytest.mark.parametrize(
    ("host", "no_proxy", "exempt"),
    [
        ("mirror.corp", "", False),
        ("mirror.corp", "*", True),
        ("mirror.corp", "mirror.corp", True),
        ("mirror.corp", "corp", True),
        ("mirror.corp", ".corp", True),
        ("mirror.corp", "*.corp", True),
        ("mirror.corp", "other, .corp ", True),
        ("mirror.corp", ".mirror.corp", False),
        ("xmirror.corp", "mirror.corp", False),
        ("mirror.corp:5000", "mirror.corp:5000", True),
        ("mirror.corp:5000", "mirror.corp:443", False),
        ("10.1.2.3:5000", "10.0.0.0/8", True),
        ("10.1.2.3:5000", "10.1.2.3", True),
        ("192.0.2.1", "10.0.0.0/8,nonsense/9", False),
        ("127.0.0.1:5000", "", True),
        ("localhost:5000", "", True),
    ],
)
def test_no_proxy(host: str, no_proxy: str, exempt: bool) -> None:
    """As golang.org/x/net/http/httpproxy reads it."""
    url = registryclient.wire.parse_url(f"https://{host}/v2/")
    assert url is not None
    environment = {"HTTPS_PROXY": "http://proxy.corp:3128", "NO_PROXY": no_proxy}
    assert (registryclient.wire.find_proxy(url, environment) is None) == exempt


def test_a_name_that_only_a_proxy_could_know() -> None:
    with Forwarder(1, b"HTTP/1.1 200 OK\r\n\r\n") as proxy:
        is_(ask("x" * 70 + ".corp", environment={"HTTPS_PROXY": proxy}), "connect", "unreachable", "not a host name")
