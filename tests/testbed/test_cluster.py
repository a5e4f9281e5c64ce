"""The stand-in API server gives the recorded answers of a real one, and its faults do what their names say."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from crio_credential_provider.testbed import cluster as demo
from crio_credential_provider.testbed.certificates import Authority, Identity, client_context
from crio_credential_provider.testbed.cluster import ApiServer, Asked
from node import TESTS

RECORDINGS = TESTS / "recordings"
ALPHA = "/api/v1/namespaces/team-alpha"
BETA = "/api/v1/namespaces/team-beta"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
DOCKER_ONLY = "fieldSelector=type%3Dkubernetes.io%2Fdockerconfigjson"
AUDIENCE = "https://kubernetes.default.svc"


class Reply(NamedTuple):
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


def ask(
    cluster: ApiServer,
    path: str,
    *,
    token: str | None = None,
    identity: Identity | None = None,
    method: str = "GET",
    body: object = None,
    agent: str = "curl/8.5.0",
    timeout: float = 10,
) -> Reply:
    context = client_context(cluster.authority, identity)
    connection = http.client.HTTPSConnection("127.0.0.1", cluster.port, timeout=timeout, context=context)
    headers = {"User-Agent": agent} | ({"Authorization": f"Bearer {token}"} if token is not None else {})
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        with connection.getresponse() as answer:
            return Reply(answer.status, answer.reason, answer.getheaders(), answer.read())
    finally:
        connection.close()


# -- the recordings ----------------------------------------------------------------------------------------------------


class Recorded(NamedTuple):
    """Who asked what. `revision` is the cluster's last resourceVersion at the time, where the answer shows it."""

    who: str
    path: str
    revision: int = 4000
    body: object = None


EVENT = {
    "metadata": {"generateName": "rec1.", "namespace": "team-alpha"},
    "involvedObject": {"apiVersion": "v1", "kind": "Pod", "name": "rec1", "namespace": "team-alpha"},
    "reason": "MirrorCredentials",
    "message": "test",
    "type": "Warning",
    "source": {"component": "crio-credential-provider", "host": "node1"},
}
LIST_REVIEW = {"resource": "secrets", "verb": "list", "namespace": "team-alpha"}
AUDIENCE_REVIEW = {"resource": AUDIENCE, "verb": "request-serviceaccounts-token-audience"}

ASKED = {
    "get-secret-404": Recorded("alpha", f"{ALPHA}/secrets/nope"),
    "list-secrets-200": Recorded("alpha", f"{ALPHA}/secrets?{DOCKER_ONLY}", 3190),
    "list-secrets-401-bad-token": Recorded("nobody", f"{ALPHA}/secrets?{DOCKER_ONLY}"),
    "list-secrets-401-wrong-audience": Recorded("wrong audience", f"{ALPHA}/secrets?{DOCKER_ONLY}"),
    "list-secrets-403-anonymous": Recorded("anonymous", f"{ALPHA}/secrets?{DOCKER_ONLY}"),
    "list-secrets-403-no-rbac": Recorded("default", f"/api/v1/namespaces/default/secrets?{DOCKER_ONLY}"),
    "list-secrets-403-other-namespace": Recorded("beta", f"{ALPHA}/secrets?{DOCKER_ONLY}"),
    "list-secrets-empty-200": Recorded("admin", f"/api/v1/namespaces/empty/secrets?{DOCKER_ONLY}", 3193),
    "list-secrets-limit1-200": Recorded("alpha", f"{ALPHA}/secrets?{DOCKER_ONLY}&limit=1", 3190),
    "node-get-pod-200": Recorded("node1", f"{ALPHA}/pods/rec1"),
    "node-get-pod-403-unknown-pod": Recorded("node1", f"{ALPHA}/pods/nope"),
    "node-get-secret-200": Recorded("node1", f"{ALPHA}/secrets/mirror-creds"),
    "node-get-secret-403-other-namespace": Recorded("node1", f"{BETA}/secrets/mirror-creds"),
    "node-get-secret-403-unreferenced": Recorded("node1", f"{ALPHA}/secrets/hub"),
    "node-get-serviceaccount-200": Recorded("node1", f"{ALPHA}/serviceaccounts/default"),
    "node-list-secrets-403": Recorded("node1", f"{ALPHA}/secrets?{DOCKER_ONLY}"),
    "node-post-event-201": Recorded("node1", f"{ALPHA}/events", 3193, EVENT),
    "node-post-ssar-audience-201": Recorded("node1", REVIEWS, body={"spec": {"resourceAttributes": AUDIENCE_REVIEW}}),
    "post-ssar-201": Recorded("alpha", REVIEWS, body={"spec": {"resourceAttributes": LIST_REVIEW}}),
    "readyz-200": Recorded("anonymous", "/readyz"),
    "sa-get-serviceaccount-403": Recorded("alpha", f"{ALPHA}/serviceaccounts/default"),
}

UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
DATE = re.compile(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT")
GENERATED = re.compile(rb'"rec1\.[b-df-hj-np-tv-xz24-9]{5}"')


def load_recording(name: str) -> Reply:
    head, _, body = (RECORDINGS / "apiserver" / f"{name}.http").read_bytes().partition(b"\r\n\r\n")
    status_line, *lines = head.decode().split("\r\n")
    version, status, reason = status_line.split(" ", 2)
    assert version == "HTTP/1.1"
    pairs = (line.split(": ", 1) for line in lines)
    return Reply(int(status), reason, [(name, value) for name, value in pairs], body)


def normalised(reply: Reply) -> Reply:
    """Without what is new on every run: uids, times, and the letters of the generated event name."""
    headers = [(name, DATE.sub("DATE", UUID.sub(b"UUID", value.encode()).decode())) for name, value in reply.headers]
    return reply._replace(
        headers=headers, body=GENERATED.sub(b'"rec1.xxxxx"', TIME.sub(b"TIME", UUID.sub(b"UUID", reply.body)))
    )


def payload(recording: str, name: str) -> bytes:
    (found,) = (item for item in load_recording(recording).document["items"] if item["metadata"]["name"] == name)
    return base64.b64decode(found["data"][".dockerconfigjson"])


@pytest.fixture
def recorded_cluster() -> Iterator[ApiServer]:
    """The state that the recordings were made in."""
    with ApiServer() as cluster:
        for name, revision in (("mirror-creds", "308"), ("hub", "3189"), ("hollow", "3190")):
            secret = cluster.add_secret("team-alpha", name, payload("list-secrets-200", name))
            secret["metadata"]["resourceVersion"] = revision
        cluster.add_secret("team-alpha", "notes", {"no": "pull secret"}, type="Opaque")
        cluster.add_secret("team-beta", "mirror-creds", {"auths": {}})
        annotations = {"example.org/mirror-secrets": "mirror-creds"}
        account = cluster.add_service_account("team-alpha", "default", ["mirror-creds"], annotations)
        account["metadata"]["resourceVersion"] = "3096"
        cluster.add_pod("team-alpha", "rec1", "node1")
        pod = cluster.pods["team-alpha", "rec1"]
        pod["metadata"]["resourceVersion"] = "3129"
        # What only a container runtime can know.
        (container,) = pod["status"]["containerStatuses"]
        (recorded,) = load_recording("node-get-pod-200").document["status"]["containerStatuses"]
        container |= {key: recorded[key] for key in ("imageID", "containerID")}
        cluster.allow("team-alpha", "default", ["list", "get"])
        cluster.allow_node("node1", ["request-serviceaccounts-token-audience"], AUDIENCE)
        yield cluster


def ask_recorded(cluster: ApiServer, asked: Recorded) -> Reply:
    token: str | None = None
    identity: Identity | None = None
    match asked.who:
        case "alpha":
            token = cluster.mint_token("team-alpha", "default", "rec1")
        case "beta":
            token = cluster.mint_token("team-beta")
        case "default":
            token = cluster.mint_token("default")
        case "nobody":
            token = "e30.e30.c2lnbmF0dXJl"
        case "wrong audience":
            token = cluster.mint_token("team-alpha", audience="https://elsewhere.example")
        case "node1":
            identity = cluster.node_identity("node1")
        case "admin":
            identity = cluster.authority.issue("kubernetes-admin", organization="system:masters", client=True)
        case "anonymous":
            pass
        case _:
            raise AssertionError(asked.who)
    cluster.revision = asked.revision
    method = "GET" if asked.body is None else "POST"
    return ask(cluster, asked.path, token=token, identity=identity, method=method, body=asked.body)


def test_every_recording_is_asked() -> None:
    found = {path.stem for path in (RECORDINGS / "apiserver").iterdir()}
    assert found, "no recordings"
    assert found == set(ASKED)


@pytest.mark.parametrize("name", ASKED)
def test_the_answer_is_the_recorded_one(recorded_cluster: ApiServer, name: str) -> None:
    expected, reply = normalised(load_recording(name)), normalised(ask_recorded(recorded_cluster, ASKED[name]))
    assert reply.body.decode() == expected.body.decode()
    assert reply == expected


def test_flow_schemas_tell_the_users_apart_as_recorded(recorded_cluster: ApiServer) -> None:
    twins: dict[str, str] = {}
    for name, asked in ASKED.items():
        expected, reply = dict(load_recording(name).headers), dict(ask_recorded(recorded_cluster, asked).headers)
        for header in ("X-Kubernetes-Pf-Flowschema-Uid", "X-Kubernetes-Pf-Prioritylevel-Uid"):
            if header in expected:
                assert twins.setdefault(expected[header], reply[header]) == reply[header]
    assert len(set(twins.values())) == len(twins) > 6


# -- tokens ------------------------------------------------------------------------------------------------------------


def decoded(token: str) -> tuple[Any, Any]:
    header, claims, _ = (base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in token.split("."))
    return json.loads(header), json.loads(claims)


def shape(value: Any) -> Any:
    """The keys in their order, and the types; numbers and texts themselves aside."""
    if isinstance(value, dict):
        return [(key, shape(item)) for key, item in value.items()]
    return [shape(item) for item in value] if isinstance(value, list) else type(value)


def test_tokens_have_the_recorded_shape() -> None:
    requests = [json.loads(path.read_bytes()) for path in sorted((RECORDINGS / "kubelet").iterdir())]
    tokens = [request["serviceAccountToken"] for request in requests if "serviceAccountToken" in request]
    assert tokens, "no recordings"
    with ApiServer() as cluster:
        uid = cluster.add_pod("team-alpha", "rec1", "node1")
        minted = cluster.mint_token("team-alpha", "default", "rec1")
    header, claims = decoded(minted)
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]{342}", minted)
    for token in tokens:
        assert shape((header, claims)) == shape(decoded(token))
        assert len(header["kid"]) == len(decoded(token)[0]["kid"])
    assert claims["kubernetes.io"]["pod"] == {"name": "rec1", "uid": uid}
    assert (claims["aud"], claims["sub"]) == ([AUDIENCE], "system:serviceaccount:team-alpha:default")
    assert claims["exp"] - claims["iat"] == 3600


def test_a_token_ends_with_its_time_and_its_pod() -> None:
    with ApiServer() as cluster:
        cluster.allow("a", "default")
        cluster.add_pod("a", "web", "node1")
        token, expired = cluster.mint_token("a", pod="web"), cluster.mint_token("a", pod="web", expires_in=-1)
        path = "/api/v1/namespaces/a/secrets"
        assert [ask(cluster, path, token=given).status for given in (token, expired, token + "x")] == [200, 401, 401]
        cluster.delete_pod("a", "web")
        assert ask(cluster, path, token=token).status == 401
        cluster.add_pod("a", "web", "node1")
        assert ask(cluster, path, token=token).status == 401, "another pod of the same name"
        cluster.audiences = ("https://elsewhere.example",)
        assert ask(cluster, path, token=cluster.mint_token("a")).status == 200


# -- authorization -----------------------------------------------------------------------------------------------------


def test_a_role_can_name_its_secrets_and_be_taken_back() -> None:
    with ApiServer() as cluster:
        for name in ("one", "two"):
            cluster.add_secret("a", name, {"auths": {}})
        cluster.allow("a", "default", ["get"], names=["one"])
        token = cluster.mint_token("a")

        def statuses(*tails: str) -> list[int]:
            return [ask(cluster, f"/api/v1/namespaces/a/{tail}", token=token).status for tail in tails]

        assert statuses("secrets/one", "secrets/two", "secrets", "pods/x") == [200, 403, 403, 403]
        cluster.allow("a", "default", ["list", "get"])
        assert statuses("secrets/two", "secrets") == [200, 200]
        cluster.revoke("a", "default", ["get"])
        assert statuses("secrets/one", "secrets/two", "secrets") == [403, 403, 200]
        cluster.revoke("a", "default")
        assert statuses("secrets") == [403]


def test_a_node_reaches_what_its_pods_name_and_no_more() -> None:
    with ApiServer() as cluster:
        for name in ("own", "copied", "other"):
            cluster.add_secret("a", name, {"auths": {}})
        cluster.add_service_account("a", "puller", ["copied"])
        cluster.add_pod("a", "web", "node1", "puller")
        cluster.add_pod("a", "db", "node2", "puller", ["own"])
        first, second = cluster.node_identity("node1"), cluster.node_identity("node2")

        def statuses(identity: Identity, *tails: str) -> list[int]:
            return [ask(cluster, f"/api/v1/namespaces/a/{tail}", identity=identity).status for tail in tails]

        everything = ("pods/web", "pods/db", "secrets/copied", "secrets/own", "secrets/other", "serviceaccounts/puller")
        assert statuses(first, *everything) == [200, 403, 200, 403, 403, 200]
        assert statuses(second, *everything) == [403, 200, 403, 200, 403, 200]
        assert statuses(first, "serviceaccounts/default") == [403]
        # node_authorizer.go lets a node list a single secret by name.
        assert statuses(first, "secrets?fieldSelector=metadata.name%3Dcopied", "secrets") == [200, 403]
        cluster.delete_secret("a", "copied")
        assert statuses(first, "secrets/copied") == [404]
        pulled = [asked.user for asked in cluster.requests]
        assert set(pulled) == {"system:node:node1", "system:node:node2"}
        assert cluster.tokens_seen == 0


def test_a_denied_review_says_so() -> None:
    with ApiServer() as cluster:
        body = {"spec": {"resourceAttributes": {"verb": "list", "resource": "secrets", "namespace": "a"}}}
        denied = ask(cluster, REVIEWS, token=cluster.mint_token("a"), method="POST", body=body)
        assert (denied.status, denied.document["status"]) == (201, {"allowed": False})
        node = ask(cluster, REVIEWS, identity=cluster.node_identity("n"), method="POST", body=body)
        assert node.document["status"] == {"allowed": False, "reason": "No Object name found"}
        assert ask(cluster, REVIEWS, method="POST", body=body).status == 403
        assert ask(cluster, REVIEWS, token=cluster.mint_token("a"), method="POST", body=[]).status == 400


def test_what_is_not_there_is_a_status() -> None:
    with ApiServer() as cluster:
        token = cluster.mint_token("a")
        unknown = ask(cluster, "/api/v1/nodes", token=token)
        assert (unknown.status, unknown.document["kind"], unknown.document["reason"]) == (404, "Status", "NotFound")
        assert ask(cluster, "/api/v1/nodes").status == 403
        cluster.allow("a", "default", ["delete", "list"])
        assert ask(cluster, "/api/v1/namespaces/a/secrets/x", token=token, method="DELETE").status == 405
        selector = "/api/v1/namespaces/a/secrets?fieldSelector=spec.x%3D1"
        assert ask(cluster, selector, token=token).document["reason"] == "BadRequest"
        assert ask(cluster, "/api/v1/namespaces/a/secrets?continue=%21", token=token).status == 400
        assert [asked.status for asked in cluster.requests] == [404, 403, 405, 400, 400]
        assert cluster.tokens_seen == 4


# -- lists and spelling ------------------------------------------------------------------------------------------------


def test_pages_and_types_of_secrets() -> None:
    with ApiServer() as cluster:
        names = [f"s{number}" for number in range(5)]
        for name in reversed(names):
            cluster.add_secret("a", name, b"not json at all", type="kubernetes.io/dockercfg")
        cluster.add_secret("a", "opaque", b"\x00\xff", type="Opaque")
        cluster.allow("a", "default")
        token, seen, more = cluster.mint_token("a"), [], ""
        while True:
            path = f"/api/v1/namespaces/a/secrets?limit=2&continue={more}"
            page = ask(cluster, path, token=token).document
            seen += [(item["metadata"]["name"], item["type"], list(item["data"])) for item in page["items"]]
            more = page["metadata"].get("continue", "")
            assert page["metadata"].get("remainingItemCount", 0) == 6 - len(seen)
            if not more:
                break
        expected = [(name, "kubernetes.io/dockercfg", [".dockercfg"]) for name in names]
        assert seen == [("opaque", "Opaque", ["data"]), *expected]
        selected = ask(cluster, "/api/v1/namespaces/a/secrets?fieldSelector=type!%3DOpaque", token=token).document
        assert [item["metadata"]["name"] for item in selected["items"]] == names


def test_replacing_a_secret_keeps_its_uid() -> None:
    with ApiServer() as cluster:
        old = cluster.add_secret("a", "s", {"auths": {}})["metadata"]
        new = cluster.add_secret("a", "s", {"auths": {"x": {}}})["metadata"]
    assert (new["uid"], int(new["resourceVersion"])) == (old["uid"], int(old["resourceVersion"]) + 1)


def test_only_people_get_indented_json() -> None:
    # apiserver negotiation.go: User-Agent of a person's tool, or ?pretty; the recordings were asked with curl.
    with ApiServer() as cluster:
        path = "/api/v1/namespaces/<a>/secrets"
        plain = ask(cluster, path, agent="crio-credential-provider/1").body
        assert plain.startswith(b'{"kind":"Status","apiVersion":"v1",')
        assert plain.endswith(b"}\n")
        assert rb"\u003ca\u003e" in plain
        assert ask(cluster, path + "?pretty=true", agent="x").body.startswith(b'{\n  "kind": "Status",\n')


def test_a_pod_with_its_own_secrets_and_account() -> None:
    with ApiServer() as cluster:
        cluster.add_service_account("a", "puller", ["copied"])
        cluster.add_pod("a", "web", "node1", "puller", ["own"], image="docker.io/redis:7")
        pod = ask(cluster, "/api/v1/namespaces/a/pods/web", identity=cluster.node_identity("node1")).document
        assert pod["spec"]["imagePullSecrets"] == [{"name": "own"}]
        assert pod["spec"]["serviceAccountName"] == "puller"
        assert pod["spec"]["containers"][0]["image"] == "docker.io/redis:7"
        assert pod["status"]["containerStatuses"][0]["image"] == "docker.io/library/redis:7"
        with pytest.raises(LookupError):
            cluster.add_pod("a", "web", "node1", "nobody")


# -- the server --------------------------------------------------------------------------------------------------------


def test_one_connection_serves_many_requests() -> None:
    with ApiServer() as cluster:
        context = client_context(cluster.authority)
        connection = http.client.HTTPSConnection("localhost", cluster.port, context=context, timeout=10)
        connection.connect()
        kept = connection.sock
        for _ in range(3):
            connection.request("GET", "/readyz")
            assert connection.getresponse().read() == b"ok"
            assert connection.sock is kept
        connection.close()
        assert cluster.requests == [Asked("GET", "/readyz", "system:anonymous", 200)] * 3


def test_it_serves_many_at_once_and_a_silent_client_holds_up_none() -> None:
    with ApiServer() as cluster, socket.create_connection(("127.0.0.1", cluster.port)):
        cluster.fault = demo.stall(0.3)
        start = time.monotonic()
        threads = [threading.Thread(target=ask, args=(cluster, "/readyz")) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(cluster.requests) == 20
        assert time.monotonic() - start < 3


def test_leaving_ends_what_is_open() -> None:
    with ApiServer() as cluster:
        cluster.fault = demo.stall(60)
        context = client_context(cluster.authority)
        raw = context.wrap_socket(socket.create_connection(("127.0.0.1", cluster.port)), server_hostname="127.0.0.1")
        raw.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        while not cluster.requests:
            time.sleep(0.01)
        start = time.monotonic()
    with raw, pytest.raises((ConnectionError, ssl.SSLError, TimeoutError)):
        raw.settimeout(5)
        if not raw.recv(1):
            raise ConnectionError("end of stream")
    assert time.monotonic() - start < 2
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", cluster.port))


def test_a_bug_in_the_stand_in_is_not_hidden() -> None:
    def broken(exchange: demo.Exchange) -> bool:
        raise ZeroDivisionError

    with pytest.raises(RuntimeError, match="stand-in server failed"), ApiServer() as cluster:
        cluster.fault = broken
        with pytest.raises((OSError, http.client.HTTPException)):
            ask(cluster, "/readyz")


def test_an_identity_of_ones_own() -> None:
    authority = Authority.make("ca")
    with ApiServer(authority, identity=authority.issue("x", dns_names=["elsewhere.example"])) as cluster:
        with pytest.raises(ssl.SSLCertVerificationError):
            ask(cluster, "/readyz")
        assert cluster.requests == []


# -- faults ------------------------------------------------------------------------------------------------------------

PATH = "/api/v1/namespaces/a/secrets"


@pytest.fixture
def faulty() -> Iterator[tuple[ApiServer, str]]:
    """A cluster with a secret large enough for a chunked answer, and a token that may list it."""
    with ApiServer() as cluster:
        cluster.add_secret("a", "large", {"auths": {"mirror.example": {"auth": "x" * 4000}}})
        cluster.allow("a", "default")
        yield cluster, cluster.mint_token("a")


def statuses(cluster: ApiServer) -> list[int]:
    return [asked.status for asked in cluster.requests]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (demo.cut_body, http.client.IncompleteRead),
        (demo.reset, ConnectionResetError),
        (demo.bad_chunk, http.client.IncompleteRead),
    ],
)
def test_broken_answers(faulty: tuple[ApiServer, str], fault: demo.Fault, expected: type[Exception]) -> None:
    cluster, token = faulty
    cluster.fault = fault
    with pytest.raises(expected):
        ask(cluster, PATH, token=token)
    assert statuses(cluster) == [0 if fault is demo.reset else 200]
    cluster.fault = None
    assert ask(cluster, PATH, token=token).status == 200


def test_a_cut_body_with_a_length(faulty: tuple[ApiServer, str]) -> None:
    cluster, _ = faulty
    cluster.fault = demo.cut_body
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(cluster, PATH)
    assert caught.value.expected
    assert caught.value.expected - len(caught.value.partial) in (0, 1)


def test_refusals(faulty: tuple[ApiServer, str]) -> None:
    cluster, token = faulty
    cluster.fault = demo.first(2, demo.refuse(503, retry_after=7))
    replies = [ask(cluster, PATH, token=token) for _ in range(3)]
    assert [reply.status for reply in replies] == statuses(cluster) == [503, 503, 200]
    assert dict(replies[0].headers)["Retry-After"] == "7"
    assert replies[0].document["reason"] == "ServiceUnavailable"
    cluster.fault = demo.refuse(502, html=True)
    reply = ask(cluster, PATH, token=token)
    assert (reply.status, reply.body[:6], dict(reply.headers)["Content-Type"]) == (502, b"<html>", "text/html")
    cluster.fault = demo.redirect("https://127.0.0.1:1/x")
    assert dict(ask(cluster, PATH, token=token).headers)["Location"] == "https://127.0.0.1:1/x"


@pytest.mark.parametrize("fault", [demo.stall(0.4), demo.stall(0.4, after_headers=True), demo.drip(0.1)])
def test_slow_answers(faulty: tuple[ApiServer, str], fault: demo.Fault) -> None:
    cluster, _ = faulty
    true = ask(cluster, "/readyz").body
    cluster.fault = fault
    start = time.monotonic()
    assert ask(cluster, "/readyz").body == true
    assert time.monotonic() - start > 0.09
    with pytest.raises(TimeoutError):
        ask(cluster, "/readyz", timeout=0.02)


def test_lies(faulty: tuple[ApiServer, str]) -> None:
    cluster, token = faulty
    cluster.fault = demo.invalid_json
    reply = ask(cluster, PATH, token=token)
    assert reply.status == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(reply.body)
    documents: tuple[object, ...] = ([], {"kind": "Pod"})
    for document in documents:
        cluster.fault = demo.wrong_content(document)
        assert ask(cluster, PATH, token=token).document == document


@pytest.mark.parametrize("chunked", [False, True])
def test_a_flood_has_its_size(faulty: tuple[ApiServer, str], chunked: bool) -> None:
    cluster, token = faulty
    cluster.fault = demo.flood(3 << 20, chunked=chunked)
    reply = ask(cluster, PATH, token=token)
    assert len(reply.body) == 3 << 20
    assert ("Transfer-Encoding" in dict(reply.headers)) is chunked


def test_an_endless_flood_ends_with_its_client(faulty: tuple[ApiServer, str]) -> None:
    cluster, token = faulty
    cluster.fault = demo.flood(None, chunked=True)
    context = client_context(cluster.authority)
    connection = http.client.HTTPSConnection("127.0.0.1", cluster.port, timeout=10, context=context)
    connection.request("GET", PATH, headers={"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    assert len(answer.read(8 << 20)) == 8 << 20
    answer.close()
    connection.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= 2


@pytest.mark.parametrize("name", demo.FAULTS)
def test_every_named_fault_spoils_a_list(faulty: tuple[ApiServer, str], name: str) -> None:
    cluster, token = faulty
    cluster.fault = demo.FAULTS[name]
    limit = 1 << 20

    def pull() -> None:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", cluster.port, timeout=10, context=client_context(cluster.authority)
        )
        with contextlib.closing(connection):
            connection.request("GET", PATH, headers={"Authorization": f"Bearer {token}"})
            with connection.getresponse() as answer:
                body = answer.read(limit + 1)
                assert answer.status == 200
        assert len(body) <= limit
        assert json.loads(body)["kind"] == "SecretList"

    with pytest.raises((AssertionError, OSError, http.client.HTTPException, ValueError, TypeError)):
        pull()
    cluster.fault = None
    pull()
