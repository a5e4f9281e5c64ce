"""An API server that costs next to nothing: answers made beforehand, sent as kube-apiserver's HTTP and TLS send them.

For measuring what asks, so that it checks no more than that a token or a client certificate is shown. What the wire
looks like decides what reading costs, so that it is kept: net/http puts a list through a buffer of 2 KiB, which makes
chunks of that size (the encoder writes item by item), and these through one of 4 KiB and crypto/tls, whose first
records are smaller; lists above 128 KiB are compressed for a client that asks for it. TLS 1.3, one session ticket, a
request for a client certificate; HTTP/1.1 only. The objects are those of tests/recordings.

    with CannedApiServer(identity, clients, {"/api/v1/namespaces/team-1/secrets": secret_list("team-1", keys)}) as port:
        ...
"""

from __future__ import annotations

import base64
import copy
import gc
import itertools
import json
import os
import signal
import socket
import ssl
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

RECORDINGS = Path(__file__).resolve().parent.parent / "tests/recordings/apiserver"

# net/http's buffers for a body and for a connection, and the threshold of kube-apiserver's compression.
CHUNK, WRITE, COMPRESSED = 2048, 4096, 128 * 1024
# crypto/tls: the payload of the first record fits one packet, the second is twice that, then WRITE is the limit.
FIRST_RECORD = 1186

WORKERS = 16


class Answer(NamedTuple):
    """Pieces to be written one by one, for a client that takes plain text only and for one that takes gzip."""

    plain: tuple[bytes, ...]
    compressed: tuple[bytes, ...]


# -- answers ----------------------------------------------------------------------------------------------------------


def _recorded(name: str) -> tuple[bytes, Any]:
    head, _, body = (RECORDINGS / f"{name}.http").read_bytes().partition(b"\r\n\r\n")
    return head, json.loads(body)


def _compact(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def credential(key: str) -> str:
    """The ``auth`` of the secret for a registry: user and password as long as generated ones are."""
    return base64.b64encode(f"robot-{key}:{base64.b64encode(key.encode() * 3).decode():.32}".encode()).decode()


def _secret(template: Any, namespace: str, number: int, key: str) -> Any:
    secret = copy.deepcopy(template)
    secret["metadata"] |= {"name": f"registry-{number:04}", "namespace": namespace}
    config = {"auths": {key: {"auth": credential(key)}}}
    secret["data"] = {".dockerconfigjson": base64.b64encode(_compact(config).strip()).decode()}
    return secret


def secret_list(namespace: str, keys: Iterable[str]) -> Answer:
    """A list of one secret for each registry."""
    head, document = _recorded("list-secrets-200")
    template = document["items"][0]
    document["items"] = [_secret(template, namespace, number, key) for number, key in enumerate(keys)]
    body = _compact(document)
    plain = _pieces(head + b"\r\n\r\n" + _chunked(body))
    if len(body) <= COMPRESSED:
        return Answer(plain, plain)
    compressor = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    packed = compressor.compress(body) + compressor.flush()
    extra = b"\r\nContent-Encoding: gzip\r\nVary: Accept-Encoding\r\n\r\n"
    return Answer(plain, _pieces(head + extra + _chunked(packed)))


def single_secret(namespace: str, name: str, key: str) -> Answer:
    """One secret by its name."""
    head, document = _recorded("node-get-secret-200")
    document = _secret(document, namespace, 0, key)
    document["metadata"]["name"] = name
    return _whole(head, _compact(document))


def pod(namespace: str, name: str, uid: str, account: str, secrets: Iterable[str]) -> Answer:
    """A pod that names image pull secrets."""
    head, document = _recorded("node-get-pod-200")
    document["metadata"] |= {"name": name, "namespace": namespace, "uid": uid}
    document["spec"]["serviceAccountName"] = document["spec"]["serviceAccount"] = account
    document["spec"]["imagePullSecrets"] = [{"name": secret} for secret in secrets]
    body = _compact(document)
    return _whole(head, body)


def _whole(head: bytes, body: bytes) -> Answer:
    """As net/http does: a body that fits its buffer goes with its length, any other in chunks."""
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith((b"content-length", b"transfer-enc"))]
    if len(body) <= CHUNK:
        lines += [b"Content-Length: %d" % len(body), b"", body]
    else:
        lines += [b"Transfer-Encoding: chunked", b"", _chunked(body)]
    pieces = _pieces(b"\r\n".join(lines))
    return Answer(pieces, pieces)


def _chunked(body: bytes) -> bytes:
    parts = [body[start : start + CHUNK] for start in range(0, len(body), CHUNK)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def _pieces(stream: bytes) -> tuple[bytes, ...]:
    """The stream as it is cut into TLS records."""
    cuts = [0, FIRST_RECORD, 3 * FIRST_RECORD, *range(WRITE, len(stream), WRITE), len(stream)]
    cuts = sorted({min(cut, len(stream)) for cut in cuts})
    return tuple(stream[start:end] for start, end in itertools.pairwise(cuts))


REFUSAL = (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",)
NOT_FOUND = (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",)


# -- serving ----------------------------------------------------------------------------------------------------------


class CannedApiServer:
    """Serves the answers on a port of 127.0.0.1, in processes of its own.

    Args:
        certificate: PEM file with the server's certificate and key.
        client_authority: PEM file with the CA of client certificates.
        answers: by path, without its query.
    """

    def __init__(self, certificate: Path, client_authority: Path, answers: Mapping[str, Answer]) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._context.load_verify_locations(client_authority)
        self._context.verify_mode = ssl.CERT_OPTIONAL
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.num_tickets = 1
        self._context.set_alpn_protocols(["http/1.1"])
        self._answers = {path.encode(): answer for path, answer in answers.items()}
        self._workers: list[int] = []

    def __enter__(self) -> int:
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        for _ in range(WORKERS):
            worker = os.fork()
            if not worker:
                try:
                    self._serve(listener)
                finally:
                    os._exit(1)
            self._workers.append(worker)
        port: int = listener.getsockname()[1]
        listener.close()
        return port

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            os.kill(worker, signal.SIGKILL)
            os.waitpid(worker, 0)

    def _serve(self, listener: socket.socket) -> None:
        gc.disable()
        # Whoever started it may be killed.
        parent = os.getppid()
        listener.settimeout(5)
        while os.getppid() == parent:
            try:
                plain = listener.accept()[0]
            except TimeoutError:
                continue
            plain.settimeout(None)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                with self._context.wrap_socket(plain, server_side=True) as tls:
                    while head := tls.recv(65536):
                        for piece in self._answer(head, tls):
                            tls.sendall(piece)
            except OSError:
                plain.close()

    def _answer(self, head: bytes, tls: ssl.SSLSocket) -> tuple[bytes, ...]:
        answer = self._answers.get(head.split(b" ", 2)[1].partition(b"?")[0])
        if answer is None:
            return NOT_FOUND
        if b"\r\nAuthorization: Bearer " not in head and not tls.getpeercert(True):
            return REFUSAL
        return answer.compressed if b"\r\nAccept-Encoding: gzip" in head else answer.plain
