"""The client of the API server: HTTP as it may come, refusals with a remedy, and every way in which an answer fails."""

from __future__ import annotations

import errno
import gzip
import json
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from conftest import NodeMaker
from crio_credential_provider.errors import ClusterError
from crio_credential_provider.kubernetes.apiserver import ApiServer as Client
from crio_credential_provider.kubernetes.endpoint import Endpoint
from crio_credential_provider.testbed import cluster as demo
from crio_credential_provider.testbed.certificates import Authority, Identity, server_context
from crio_credential_provider.testbed.cluster import ApiServer, Exchange, Fault
from faults import FAULTS
from node import COMMAND, NGINX_HASH, Node, Run, recorded_answer, recorded_request, request
from servers import Behave, Peer, close_in_tls, half_a_server_hello, hang, refused_port, replaying, say, silent_port

pytestmark = pytest.mark.process

TOKEN = "header-part-of-it.claims-part-of-it.signature-part-of-it"

# Seconds beyond the deadline that a loaded machine may need to start the interpreter and to report.
SLACK = 1.5


# -- HTTP, on one connection ------------------------------------------------------------------------------------------


@pytest.fixture
def connect(authority: Authority) -> Callable[..., Client]:
    def make(port: int, deadline: float = 2, max_answer_size: int = 1 << 20) -> Client:
        endpoint = Endpoint("127.0.0.1", port, "here", ca_data=authority.certificate_pem)
        return Client(endpoint, deadline, max_answer_size)

    return make


@contextmanager
def tls_peer(behave: Behave, identity: Identity) -> Iterator[Peer]:
    with Peer(behave, context=server_context(identity)) as peer:
        yield peer


OBJECT = b'{"kind":"SecretList","items":[]}'
LENGTH = b"Content-Length: %d\r\n" % len(OBJECT)


def gzipped(data: bytes) -> bytes:
    """An answer with this as its body, said to be of gzip."""
    return b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(data) + data


GOOD_ANSWERS: dict[str, bytes] = {
    "compressed": gzipped(gzip.compress(OBJECT)),
    "with its length": b"HTTP/1.1 200 OK\r\n" + LENGTH + b"\r\n" + OBJECT,
    "without a reason phrase": b"HTTP/1.1 200\r\n" + LENGTH + b"\r\n" + OBJECT,
    "header names in any case": b"HTTP/1.1 200 OK\r\n" + LENGTH.lower() + b"\r\n" + OBJECT,
    "blanks around a value": b"HTTP/1.1 200 OK\r\n" + LENGTH.replace(b": ", b":   ") + b"\r\n" + OBJECT,
    "to the end of the stream": b"HTTP/1.0 200 OK\r\n\r\n" + OBJECT,
    "after 100 Continue": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n" + LENGTH + b"\r\n" + OBJECT,
    "one chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n" + OBJECT + b"\r\n0\r\n\r\n",
    "capitals in a chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n00020\r\n"
    + OBJECT
    + b"\r\n0\r\n\r\n",
    "chunks of one byte": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"".join(b"1\r\n%c\r\n" % byte for byte in OBJECT)
    + b"0\r\n\r\n",
    "chunk extensions and trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20;a=b\r\n"
    + OBJECT
    + b"\r\n0;last\r\nA: b\r\nC: d\r\n\r\n",
}


@pytest.mark.parametrize("name", GOOD_ANSWERS)
@pytest.mark.parametrize("step", [1, 7, 100_000], ids="{} bytes at a time".format)
def test_an_answer_however_it_is_framed_and_cut(
    connect: Callable[..., Client], identity: Identity, name: str, step: int
) -> None:
    answer = GOOD_ANSWERS[name]

    def behave(connection: socket.socket, closing: threading.Event) -> None:
        connection.recv(65536)
        for start in range(0, len(answer), step):
            connection.sendall(answer[start : start + step])

    with tls_peer(behave, identity) as peer:
        assert connect(peer.port).get("/x", TOKEN) == json.loads(OBJECT)
        assert peer.connections == 1


def test_the_request_as_it_is_sent(connect: Callable[..., Client], identity: Identity) -> None:
    with tls_peer(say(GOOD_ANSWERS["with its length"]), identity) as peer:
        connect(peer.port).get("/api/v1/namespaces/a/secrets?x=y", TOKEN)
        head, *headers, end, rest = bytes(peer.received).decode("ascii").split("\r\n")
        assert head == "GET /api/v1/namespaces/a/secrets?x=y HTTP/1.1"
        assert dict(header.split(": ") for header in headers) == {
            "Host": f"127.0.0.1:{peer.port}",
            "Authorization": f"Bearer {TOKEN}",
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
            "User-Agent": headers[-1].partition(": ")[2],
        }
        assert headers[-1].startswith("User-Agent: crio-credential-provider/")
        assert (end, rest) == ("", "")


def test_an_object_is_posted(connect: Callable[..., Client], identity: Identity) -> None:
    answer = b"HTTP/1.1 201 Created\r\nDate: Sun, 22 Nov 2026 18:00:00 GMT\r\nContent-Length: 2\r\n\r\n{}"

    def behave(connection: socket.socket, closing: threading.Event) -> None:
        while not connection.recv(65536).endswith(b"}"):
            pass
        connection.sendall(answer)

    with tls_peer(behave, identity) as peer:
        client = connect(peer.port)
        assert client.create("/apis/x", {"a": "ä"}, TOKEN) == {}
        assert client.date == "Sun, 22 Nov 2026 18:00:00 GMT"
    head, _, body = bytes(peer.received).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /apis/x HTTP/1.1\r\n")
    assert b"Content-Length: 14" in head.split(b"\r\n") and body == b'{"a":"\\u00e4"}'


def test_one_connection_serves_several_requests(connect: Callable[..., Client], identity: Identity) -> None:
    answers = [GOOD_ANSWERS["with its length"], GOOD_ANSWERS["chunk extensions and trailers"]] * 2

    def behave(connection: socket.socket, closing: threading.Event) -> None:
        for answer in answers:
            connection.recv(65536)
            connection.sendall(answer)
        connection.recv(1)

    with tls_peer(behave, identity) as peer:
        client = connect(peer.port)
        for _ in answers:
            assert client.get("/x", TOKEN) == json.loads(OBJECT)
        assert peer.connections == 1


@pytest.mark.parametrize("answer", ["to the end of the stream", "connection: close"])
def test_a_connection_that_ends_with_its_answer_is_not_used_again(
    connect: Callable[..., Client], identity: Identity, answer: str
) -> None:
    closing_answer = b"HTTP/1.1 200 OK\r\nConnection: Close\r\n" + LENGTH + b"\r\n" + OBJECT
    with tls_peer(say(GOOD_ANSWERS.get(answer, closing_answer)), identity) as peer:
        client = connect(peer.port)
        for _ in range(2):
            assert client.get("/x", TOKEN) == json.loads(OBJECT)
        assert peer.connections == 2


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

BAD_ANSWERS: dict[str, tuple[bytes, str]] = {
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "does not answer in HTTP/1.1"),
    "HTTP/2": (b"HTTP/2 200\r\n\r\n", "does not answer in HTTP/1.1"),
    "no status": (b"HTTP/1.1 OK\r\n\r\n", "does not answer in HTTP/1.1"),
    "a status of other digits": ("HTTP/1.1 ²²² OK\r\n\r\n".encode("latin-1"), "does not answer in HTTP/1.1"),
    "endless headers": (b"HTTP/1.1 200 OK\r\n" + b"X-More: and more\r\n" * 10_000, "does not answer in HTTP/1.1"),
    "an endless header": (b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 200_000, "does not answer in HTTP/1.1"),
    "a length of no digits": (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}", "invalid Content-Length"),
    "a length below zero": (b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}", "invalid Content-Length"),
    "an empty length": (b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n{}", "invalid Content-Length"),
    "a length of 17 digits": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000000000\r\n\r\n",
        "invalid Content-Length",
    ),
    "a length beyond the limit": (b"HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n", "larger than 1 MiB"),
    "a body beyond the limit": (b"HTTP/1.0 200 OK\r\n\r\n" + b" " * 1_500_000, "larger than 1 MiB"),
    "a chunk beyond the limit": (CHUNKED + b"100001\r\n", "larger than 1 MiB"),
    "chunks beyond the limit": (CHUNKED + (b"1000\r\n" + b" " * 4096 + b"\r\n") * 260, "larger than 1 MiB"),
    "a chunk size of no digits": (CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n", "invalid chunked body"),
    "an empty chunk size": (CHUNKED + b"\r\n{}\r\n0\r\n\r\n", "invalid chunked body"),
    "a chunk size below zero": (CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n", "invalid chunked body"),
    "a chunk size with a prefix": (CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n", "invalid chunked body"),
    "a chunk size with an underscore": (CHUNKED + b"1_0\r\n{}\r\n0\r\n\r\n", "invalid chunked body"),
    "a chunk longer than its size": (CHUNKED + b"1\r\n{}\r\n0\r\n\r\n", "invalid chunked body"),
    "an endless chunk size": (CHUNKED + b"0" * 5000, "does not answer in HTTP/1.1"),
    "more than the limit, compressed": (gzipped(gzip.compress(b" " * 50_000_000)), "larger than 1 MiB"),
    "said to be compressed": (gzipped(OBJECT), "gzip body that is damaged"),
    "half of what was compressed": (gzipped(gzip.compress(OBJECT)[:-9]), "gzip body that is damaged"),
    "compressed, with a wrong checksum": (gzipped(gzip.compress(OBJECT)[:-8] + bytes(8)), "gzip body that is damaged"),
    "something behind what was compressed": (gzipped(gzip.compress(OBJECT) + b"{}"), "gzip body that is damaged"),
    "no body": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "not a JSON object"),
    "a length too short": (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n" + OBJECT, "not a JSON object"),
    "a body that is not UTF-8": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + b'{"a":"\xff"}',
        "not a JSON object",
    ),
    "a list": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "not a JSON object"),
    "deep nesting": (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"[" * 100_000, "not a JSON object"),
    "a redirect": (b"HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n", "answered 302"),
    "nothing": (b"", "closed the connection before the end of its answer"),
    "half a status line": (b"HTTP/1.1 20", "closed the connection before the end of its answer"),
    "half a body": (
        b"HTTP/1.1 200 OK\r\n" + LENGTH + b"\r\n" + OBJECT[:9],
        "closed the connection before the end of its answer",
    ),
    "half a chunk": (CHUNKED + b"20\r\n" + OBJECT[:9], "closed the connection before the end of its answer"),
    "no last chunk": (CHUNKED + b"20\r\n" + OBJECT + b"\r\n", "closed the connection before the end of its answer"),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_an_answer_that_is_none(connect: Callable[..., Client], identity: Identity, name: str) -> None:
    answer, words = BAD_ANSWERS[name]
    with tls_peer(say(answer), identity) as peer:
        with pytest.raises(ClusterError) as caught:
            connect(peer.port, deadline=0.5).get("/x", TOKEN)
        assert words in str(caught.value)
        assert f"https://127.0.0.1:{peer.port}" in str(caught.value)
        assert "here" in caught.value.hint or caught.value.status


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(connect: Callable[..., Client], cluster: ApiServer, status: int) -> None:
    cluster.fault = demo.first(2, demo.refuse(status))
    with pytest.raises(ClusterError):
        connect(cluster.port).get("/nowhere", TOKEN)
    assert [asked.status for asked in cluster.requests] == [status, status, 401]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 501])
def test_what_will_not_pass_is_not_tried_again(connect: Callable[..., Client], cluster: ApiServer, status: int) -> None:
    cluster.fault = demo.refuse(status)
    with pytest.raises(ClusterError) as caught:
        connect(cluster.port).get("/x", TOKEN)
    assert caught.value.status == status
    assert len(cluster.requests) == 1


def test_retry_after_is_honoured(connect: Callable[..., Client], cluster: ApiServer, alpha: str) -> None:
    cluster.fault = demo.first(1, demo.refuse(429, retry_after=1))
    begin = time.monotonic()
    assert connect(cluster.port, deadline=5).get(ALPHA_SECRETS, alpha)["kind"] == "SecretList"
    assert 1 <= time.monotonic() - begin < 3
    assert len(cluster.requests) == 2


def test_a_wait_beyond_the_deadline_is_not_begun(connect: Callable[..., Client], cluster: ApiServer) -> None:
    cluster.fault = demo.refuse(503, retry_after=30)
    begin = time.monotonic()
    with pytest.raises(ClusterError) as caught:
        connect(cluster.port, deadline=2).get("/x", TOKEN)
    assert caught.value.status == 503
    assert time.monotonic() - begin < 1


@pytest.mark.parametrize("header", ["Retry-After: soon", "Retry-After: -1", "Retry-After: 1e9", "Retry-After: ²"])
def test_a_retry_after_that_is_none_does_not_stop_the_retries(
    connect: Callable[..., Client], identity: Identity, header: str
) -> None:
    refusal = f"HTTP/1.1 503 x\r\n{header}\r\nContent-Length: 0\r\n\r\n".encode()
    answers = [GOOD_ANSWERS["with its length"], refusal]

    def behave(connection: socket.socket, closing: threading.Event) -> None:
        while connection.recv(65536):
            connection.sendall(answers.pop())

    with tls_peer(behave, identity) as peer:
        assert connect(peer.port).get("/x", TOKEN) == json.loads(OBJECT)


def test_one_deadline_holds_for_all_requests(connect: Callable[..., Client], cluster: ApiServer, alpha: str) -> None:
    cluster.fault = demo.stall(0.4)
    client = connect(cluster.port, deadline=1)
    begin = time.monotonic()
    with pytest.raises(ClusterError, match="did not answer within 1 s"):
        for _ in range(10):
            client.get(ALPHA_SECRETS, alpha)
    # All ten take 4 s.
    assert 0.9 < time.monotonic() - begin < 3


ALPHA_SECRETS = "/api/v1/namespaces/team-alpha/secrets"


@pytest.mark.parametrize("cut", [slice(None), slice(0, 17), slice(20, 33), slice(-12, None)])
def test_a_status_that_echoes_the_token_is_not_quoted(
    connect: Callable[..., Client], cluster: ApiServer, cut: slice
) -> None:
    def echo(exchange: Exchange) -> bool:
        exchange.answer = demo.Answer(401, body=json.dumps({"message": f"bad token {TOKEN[cut]}"}).encode())
        return False

    cluster.fault = echo
    with pytest.raises(ClusterError) as caught:
        connect(cluster.port).get("/x", TOKEN)
    assert str(caught.value) == f"the API server {cluster.url} answered 401"


@pytest.mark.parametrize("message", ["a" * 501, "two\nlines", "\x1b[31mred", 7, None, ["x"]])
def test_a_status_message_that_is_no_short_line_is_not_quoted(
    connect: Callable[..., Client], cluster: ApiServer, message: object
) -> None:
    def lie(exchange: Exchange) -> bool:
        exchange.answer = demo.Answer(403, body=json.dumps({"message": message}).encode())
        return False

    cluster.fault = lie
    with pytest.raises(ClusterError) as caught:
        connect(cluster.port).get("/x", TOKEN)
    assert str(caught.value) == f"the API server {cluster.url} answered 403"


# -- a run, and an API server that fails ------------------------------------------------------------------------------


def assert_cluster_fault(run: Run, node: Node, token: str, *words: str, deadline: float = 1) -> None:
    """One line with these words, no file, within the deadline, and no part of the token in what left the process."""
    assert (run.status, run.stdout) == (1, b""), run
    assert run.stderr.count("\n") == 1 and run.stderr.endswith("\n"), run.stderr
    for word in words:
        assert word in run.stderr, f"{word!r} is not in: {run.stderr}"
    assert node.auth_file_names() == []
    assert run.seconds < deadline + SLACK
    assert run.entry["OUTCOME"] == "fault-cluster"
    assert run.entry["MESSAGE"] in run.stderr
    for part in token.split("."):
        assert part not in run.stderr and part not in str(run.entries)


@pytest.mark.parametrize("name", FAULTS)
def test_an_api_server_that_fails(alpha_node: Node, cluster: ApiServer, alpha: str, name: str) -> None:
    fault, words = FAULTS[name]
    # Larger than one chunk, and than what a reader gets at once.
    cluster.add_secret("team-alpha", "filler", {"auths": {f"{n}.example": {"auth": "YTpi"} for n in range(500)}})
    alpha_node.write_kubeconfig(cluster.url, cluster.authority.certificate_pem)
    cluster.fault = fault
    # 32 MiB through TLS and the stand-in's Python take longer than a second on a loaded machine.
    deadline = 10 if "32 MiB" in words[0] else 1
    run = alpha_node.run(request(token=alpha), "--deadline", f"{deadline}s")
    assert_cluster_fault(run, alpha_node, alpha, *words, deadline=deadline)
    assert cluster.requests, "it was never asked"
    if "SecretList" not in words[0]:
        assert cluster.url in run.stderr


def test_a_redirect_is_not_followed(
    alpha_node: Node, cluster: ApiServer, alpha: str, authority: Authority, identity: Identity
) -> None:
    """Not even to a server with a good certificate: it would get the token."""
    with ApiServer(authority, identity=identity) as other:
        cluster.fault = demo.redirect(f"{other.url}/api/v1/namespaces/team-alpha/secrets")
        alpha_node.write_kubeconfig(cluster.url, authority.certificate_pem)
        assert_cluster_fault(alpha_node.run(request(token=alpha)), alpha_node, alpha, "answered 302")
        assert (other.requests, other.tokens_seen) == ([], 0)


def test_proxies_of_the_environment_are_not_used(alpha_node: Node, cluster: ApiServer, alpha: str) -> None:
    alpha_node.write_kubeconfig(cluster.url, cluster.authority.certificate_pem)
    with Peer(hang) as proxy:
        names = ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
        run = alpha_node.run(request(token=alpha), env=dict.fromkeys(names, f"http://127.0.0.1:{proxy.port}"))
        assert run.status == 0
        assert proxy.connections == 0


SILENT_BEFORE_TLS = ("did not answer within 1 s", "the address comes from", "--deadline")


@pytest.mark.parametrize("behave", [hang, half_a_server_hello], ids=["before TLS", "in TLS"])
def test_an_api_server_that_stalls_before_it_can_be_asked(alpha_node: Node, alpha: str, behave: Behave) -> None:
    with Peer(behave) as peer:
        alpha_node.write_kubeconfig(peer.url)
        run = alpha_node.run(request(token=alpha), "--deadline", "1s")
        assert_cluster_fault(run, alpha_node, alpha, *SILENT_BEFORE_TLS)
        assert run.seconds >= 1
        assert peer.connections == 1


def test_an_api_server_behind_a_firewall_that_drops(alpha_node: Node, alpha: str) -> None:
    with silent_port() as port:
        alpha_node.write_kubeconfig(f"https://127.0.0.1:{port}")
        run = alpha_node.run(request(token=alpha), "--deadline", "1s")
        assert_cluster_fault(run, alpha_node, alpha, *SILENT_BEFORE_TLS)


def test_an_api_server_that_goes_away_in_tls(alpha_node: Node, alpha: str) -> None:
    with Peer(close_in_tls) as peer:
        alpha_node.write_kubeconfig(peer.url)
        run = alpha_node.run(request(token=alpha), "--deadline", "1s")
        assert_cluster_fault(run, alpha_node, alpha, "check that it is running")
        # As with a reset, another try may do.
        assert peer.connections > 1


def test_an_api_server_that_is_gone_before_tls_is_sent_nothing(
    connect: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``wrap_socket`` begins no TLS on a socket that is not connected any more, and writes as to any other socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        class Left(socket.socket):
            def connect(self, address: Any) -> None:
                super().connect(address)
                other, _ = listener.accept()
                other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                other.close()
                select.select([self], [], [], 5)
                assert self.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET

        monkeypatch.setattr(socket, "socket", Left)
        # Not "Broken pipe", as of a write.
        with pytest.raises(ClusterError, match="not connected"):
            connect(listener.getsockname()[1], deadline=0.3).get("/api", TOKEN)


def test_an_api_server_that_is_down(alpha_node: Node, alpha: str) -> None:
    with refused_port() as port:
        alpha_node.write_kubeconfig(f"https://127.0.0.1:{port}")
        run = alpha_node.run(request(token=alpha), "--deadline", "1s")
        words = (
            f"https://127.0.0.1:{port}",
            "Connection refused",
            "check that it is running",
            str(alpha_node.kubeconfig),
        )
        assert_cluster_fault(run, alpha_node, alpha, *words)


def test_an_api_server_with_a_name_that_nobody_knows(alpha_node: Node, alpha: str) -> None:
    # .invalid resolves nowhere (RFC 6761).
    alpha_node.write_kubeconfig("https://apiserver.invalid:6443")
    run = alpha_node.run(request(token=alpha), "--deadline", "2s")
    assert_cluster_fault(run, alpha_node, alpha, "https://apiserver.invalid:6443", "resolve", deadline=2)


@pytest.mark.parametrize(
    "fault",
    [
        demo.refuse(500),
        demo.refuse(503, retry_after=1),
        demo.refuse(429, retry_after=1),
        demo.reset,
        demo.cut_body,
    ],
    ids=["500", "503 with Retry-After", "429 with Retry-After", "reset", "half a body"],
)
def test_an_api_server_that_recovers(alpha_node: Node, cluster: ApiServer, alpha: str, fault: Fault) -> None:
    alpha_node.write_kubeconfig(cluster.url, cluster.authority.certificate_pem)
    cluster.fault = demo.first(1, fault)
    run = alpha_node.run(request(token=alpha))
    assert (run.status, run.stderr) == (0, "")
    assert list(alpha_node.auth_files()) == [f"team-alpha-{NGINX_HASH}.json"]
    assert len(cluster.requests) == 2


def test_an_api_server_that_comes_up_meanwhile(
    alpha_node: Node, alpha: str, cluster: ApiServer, identity: Identity
) -> None:
    """As after a restart of the control plane: refused at first."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        alpha_node.write_kubeconfig(f"https://127.0.0.1:{listener.getsockname()[1]}", cluster.authority.certificate_pem)
        started = alpha_node.start()

        def come_up() -> None:
            listener.listen()
            connection = server_context(identity).wrap_socket(listener.accept()[0], server_side=True)
            with connection:
                connection.recv(65536)
                connection.sendall(GOOD_ANSWERS["with its length"])

        timer = threading.Timer(0.5, come_up)
        timer.start()
        run = started.finish(request(token=alpha))
        timer.join()
        assert (run.status, run.stderr) == (0, "")
        assert run.seconds > 0.4


def test_secrets_that_come_in_pages(alpha_node: Node, cluster: ApiServer, alpha: str) -> None:
    """An API server may cut a list whether the client asked for it or not."""
    for number in range(5):
        cluster.add_secret("team-alpha", f"a{number}", {"auths": {}})
    alpha_node.write_kubeconfig(cluster.url, cluster.authority.certificate_pem)
    honest = cluster._list_secrets

    def in_pages(namespace: str, parameters: dict[str, str]) -> demo.Object:
        return honest(namespace, {**parameters, "limit": "2"})

    cluster._list_secrets = in_pages  # type: ignore[method-assign, assignment]
    run = alpha_node.run(request(token=alpha))
    assert (run.status, run.entry["SECRETS"]) == (0, "mirror-creds")
    assert len(cluster.requests) == 3


def test_pages_without_end_are_a_fault(alpha_node: Node, cluster: ApiServer, alpha: str) -> None:
    page = {"kind": "SecretList", "metadata": {"continue": "again&x=\r\n"}, "items": []}
    cluster.fault = demo.wrong_content(page)
    alpha_node.write_kubeconfig(cluster.url, cluster.authority.certificate_pem)
    run = alpha_node.run(request(token=alpha))
    assert_cluster_fault(run, alpha_node, alpha, "more than 100 pages", deadline=20)
    assert cluster.requests[1].path.endswith("&continue=again%26x%3D%0D%0A")


# -- refusals, with their remedy --------------------------------------------------------------------------------------


def test_without_a_role_the_line_says_which(alpha_node: Node, cluster: ApiServer, alpha: str) -> None:
    cluster.revoke("team-alpha", "default")
    alpha_node.write_kubeconfig(cluster.url, cluster.authority.certificate_pem)
    run = alpha_node.run(request(token=alpha))
    assert_cluster_fault(
        run,
        alpha_node,
        alpha,
        "answered 403",
        "service account default may not list secrets in namespace team-alpha",
        "kubectl -n team-alpha create role list-secrets-as-default --verb=list --resource=secrets",
        "kubectl -n team-alpha create rolebinding list-secrets-as-default --role=list-secrets-as-default "
        "--serviceaccount=team-alpha:default",
        deadline=20,
    )
    assert len(cluster.requests) == 1


def test_a_wrong_audience_is_told_with_the_right_ones(alpha_node: Node, cluster: ApiServer, alpha: str) -> None:
    token = cluster.mint_token("team-alpha", "default", "web", audience="https://elsewhere.example")
    alpha_node.write_kubeconfig(cluster.url, cluster.authority.certificate_pem)
    run = alpha_node.run(request(token=token))
    assert_cluster_fault(
        run,
        alpha_node,
        token,
        "answered 401",
        "https://elsewhere.example",
        "serviceAccountTokenAudience",
        "https://kubernetes.default.svc.cluster.local",
        "CredentialProviderConfig",
        deadline=20,
    )


def test_an_expired_token_is_told_as_such(alpha_node: Node, cluster: ApiServer, alpha: str) -> None:
    token = cluster.mint_token("team-alpha", "default", "web", expires_in=-60)
    alpha_node.write_kubeconfig(cluster.url, cluster.authority.certificate_pem)
    run = alpha_node.run(request(token=token))
    assert_cluster_fault(run, alpha_node, token, "answered 401", "the token has expired", "clocks", deadline=20)
    assert "serviceAccountTokenAudience" not in run.stderr


def test_a_token_whose_pod_was_deleted_is_told_as_such(alpha_node: Node, cluster: ApiServer, alpha: str) -> None:
    del cluster.pods["team-alpha", "web"]
    alpha_node.write_kubeconfig(cluster.url, cluster.authority.certificate_pem)
    run = alpha_node.run(request(token=alpha))
    assert_cluster_fault(run, alpha_node, alpha, "answered 401", "if pod web was deleted during the pull", deadline=20)


RECORDED_REFUSALS: dict[str, tuple[str, ...]] = {
    "list-secrets-401-wrong-audience": (
        "answered 401 (Unauthorized)",
        "whose audience is https://kubernetes.default.svc",
    ),
    "list-secrets-401-bad-token": ("answered 401 (Unauthorized)", "it does not accept the token"),
    "list-secrets-403-no-rbac": (
        "answered 403",
        'cannot list resource "secrets"',
        "create role list-secrets-as-default",
    ),
    "list-secrets-403-other-namespace": ("answered 403", "system:serviceaccount:team-beta:default"),
    "list-secrets-403-anonymous": ("answered 403", "system:anonymous"),
}


@pytest.mark.parametrize("name", RECORDED_REFUSALS)
def test_recorded_refusals(alpha_node: Node, authority: Authority, identity: Identity, name: str) -> None:
    head, body = recorded_answer(name)
    with replaying(lambda asked: head + body, identity) as server:
        alpha_node.write_kubeconfig(f"https://127.0.0.1:{server.port}", authority.certificate_pem)
        run = alpha_node.run(recorded_request())
        token = json.loads(recorded_request())["serviceAccountToken"]
        assert_cluster_fault(run, alpha_node, token, *RECORDED_REFUSALS[name], deadline=20)


def test_a_recorded_empty_list_is_nothing_to_do(alpha_node: Node, authority: Authority, identity: Identity) -> None:
    head, body = recorded_answer("list-secrets-empty-200")
    with replaying(lambda asked: head + body, identity) as server:
        alpha_node.write_kubeconfig(f"https://127.0.0.1:{server.port}", authority.certificate_pem)
        run = alpha_node.run(recorded_request())
        assert (run.status, run.stderr, run.entry["OUTCOME"]) == (0, "", "nothing-to-do")


# -- all of it with the launcher --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stalls before the body", "resets", "a redirect", "100 MB", "a list"])
def test_the_launcher_fails_alike(node: Node, cluster: ApiServer, alpha: str, name: str) -> None:
    fault, words = FAULTS[name]
    node.join(cluster)
    cluster.fault = fault
    deadline = 10 if name == "100 MB" else 1
    run = node.run(request(token=alpha), "--deadline", f"{deadline}s")
    assert_cluster_fault(run, node, alpha, *words, deadline=deadline)


def test_short_names_do_not_turn_a_refusal_into_a_failed_pull(make_node: NodeMaker, cluster: ApiServer) -> None:
    """Where only a short name would reach a mirror, a namespace that grants nothing must still pull from docker.io."""
    node = make_node(*COMMAND)
    node.write_registries_conf(
        'unqualified-search-registries = ["quay.example"]\n'
        '[[registry]]\nlocation = "quay.example"\n[[registry.mirror]]\nlocation = "mirror.corp:5000"\n'
    )
    node.write_kubeconfig(cluster.url, cluster.authority.certificate_pem)
    cluster.add_pod("team-alpha", "web", "node1")
    run = node.run(request(token=cluster.mint_token("team-alpha", "default", "web")))
    assert (run.status, run.stderr, run.entry["OUTCOME"]) == (0, "", "nothing-to-do")
    assert "403" in run.entry["REASON"] and "short name" in run.entry["REASON"]
