"""No secret and no token leaves the process but in the auth file: canaries through every failure, at debug level.

Each case runs on a node whose token, secrets, kubeconfig and global auth file hold canaries. Then everything that left
the process is searched for them: standard output and error, the journal, and every file below the root that the test
did not write itself, the auth file excepted.
"""

from __future__ import annotations

import base64
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from crio_credential_provider.testbed import cluster as demo
from crio_credential_provider.testbed.certificates import Authority, server_context
from crio_credential_provider.testbed.cluster import ApiServer, Exchange, Fault
from crio_credential_provider.testbed.loopback import Answer
from faults import BROKEN_REQUESTS, BROKEN_TOML, FAULTS, UNTRUSTED
from node import Node, Run, basic, bound_claims, jwt, request
from servers import Peer, close_in_tls, distrusted, hang, say

pytestmark = pytest.mark.process

CANARY = "kanarienvogel"

USER = f"{CANARY}-user-5b1c9a"
PASSWORD = f"{CANARY}-password-77e0d2"
IDENTITY_TOKEN = f"{CANARY}-identity-f3a918"
NODE_PASSWORD = f"{CANARY}-node-password-0c44e1"
KUBELET_KEY = f"{CANARY}-kubelet-key-a90b21"

# Bytes of a needle that must not be found even alone: a cut or wrapped value is a leak as well.
PIECE = 14


def needles(token: str) -> set[bytes]:
    """Pieces of all canaries, plain and by base64 at each of its three alignments, and of the token."""
    found = set()
    plain = [USER, PASSWORD, IDENTITY_TOKEN, NODE_PASSWORD, KUBELET_KEY, basic(USER, PASSWORD), CANARY + "-malformed"]
    for text in [*plain, *(part for part in token.split("."))]:
        found |= {text.encode()[start : start + PIECE] for start in range(max(1, len(text) - PIECE + 1))}
    for text in plain:
        for shift in range(3):
            encoded = base64.b64encode(b"\0" * shift + text.encode())
            # The ends depend on what stands beside them.
            found.add(encoded[4:-4])
    return {needle for needle in found if len(needle) >= PIECE or needle in (text.encode() for text in plain)}


MALFORMED = f"{CANARY}-malformed"

# Secrets that cannot be read, or only in part; each holds a canary where a careless message would quote it.
MALFORMED_SECRETS: dict[str, bytes] = {
    "m01-text": MALFORMED.encode(),
    "m02-truncated": b'{"auths":{"' + MALFORMED.encode(),
    "m03-text-for-object": json.dumps(MALFORMED).encode(),
    "m04-list": json.dumps([MALFORMED]).encode(),
    "m05-auths-text": json.dumps({"auths": MALFORMED}).encode(),
    "m06-auths-list": json.dumps({"auths": [MALFORMED]}).encode(),
    "m07-entry-text": json.dumps({"auths": {"mirror.corp:5000": MALFORMED}}).encode(),
    "m08-auth-list": json.dumps({"auths": {"mirror.corp:5000": {"auth": [MALFORMED]}}}).encode(),
    "m09-auth-no-base64": json.dumps({"auths": {"mirror.corp:5000": {"auth": f"{MALFORMED}!"}}}).encode(),
    "m10-auth-no-colon": json.dumps(
        {"auths": {"mirror.corp:5000": {"auth": base64.b64encode(MALFORMED.encode()).decode()}}}
    ).encode(),
    "m11-user-object": json.dumps({"auths": {"mirror.corp:5000": {"username": {MALFORMED: MALFORMED}}}}).encode(),
    "m12-password-alone": json.dumps({"auths": {"mirror.corp:5000": {"password": MALFORMED}}}).encode(),
    "m13-unknown-members": json.dumps({MALFORMED: MALFORMED, "credHelpers": {MALFORMED: MALFORMED}}).encode(),
    "m14-not-utf-8": b'{"auths":{"mirror.corp:5000":{"auth":"' + MALFORMED.encode() + b'\xff"}}}',
    "m15-deep": b"[" * 50_000 + MALFORMED.encode(),
    "m16-key-is-url-with-user": json.dumps(
        {"auths": {f"https://{USER}:{PASSWORD}@mirror.corp:5000/": {"auth": "x"}}}
    ).encode(),
    "m17-number": json.dumps({"auths": {"mirror.corp:5000": {"auth": 7, "identitytoken": [IDENTITY_TOKEN]}}}).encode(),
    "m18-twice": b'{"auths":{},"auths":"' + MALFORMED.encode() + b'"}',
    "m19-control": b'{"auths":{"mirror.corp:5000":{"auth":"' + MALFORMED.encode() + b'\n\x01"}}}',
}


class Watched:
    """A node full of canaries, and all that a run let out."""

    def __init__(self, node: Node, cluster: ApiServer) -> None:
        self.node = node
        self.cluster = cluster
        node.write_mirrors("docker.io", "mirror.corp:5000/hub", "other.example/hub", "node.example/hub")
        node.write_kubeconfig(cluster.url, cluster.authority.certificate_pem)
        text = node.kubeconfig.read_text()
        node.kubeconfig.write_text(text + f"    token: {KUBELET_KEY}\n    client-key-data: {KUBELET_KEY}\n")
        node_auth = {"auths": {"node.example": {"auth": basic("node", NODE_PASSWORD)}}}
        node.write("var/lib/kubelet/config.json", json.dumps(node_auth))
        good = {"auth": basic(USER, PASSWORD), "username": USER, "password": PASSWORD, "email": f"{USER}@example.com"}
        cluster.add_secret("team-alpha", "z-good", {"auths": {"mirror.corp:5000": good}})
        identity = {"auth": basic(USER, ""), "identitytoken": IDENTITY_TOKEN}
        cluster.add_secret("team-alpha", "z-identity", {"auths": {"other.example": identity}})
        for name, payload in MALFORMED_SECRETS.items():
            cluster.add_secret("team-alpha", name, payload)
        cluster.add_pod("team-alpha", "web", "node1")
        cluster.allow("team-alpha", "default")
        self.token = cluster.mint_token("team-alpha", "default", "web")
        self.needles = needles(self.token)

    def run(self, message: bytes | None = None, *flags: str) -> Run:
        """One run at debug level, and the search."""
        before = self._files()
        run = self.node.run(
            request(token=self.token) if message is None else message,
            "--log-level",
            "debug",
            "--deadline",
            "1s",
            *flags,
        )
        out = {"standard output": run.stdout, "standard error": run.stderr.encode()}
        assert self.node.journal
        out |= {f"journal {number}": data for number, data in enumerate(self.node.journal.datagrams)}
        assert len(out) > 2 or run.status == 2
        for path in self._files():
            if path not in before:
                out[path] = path.encode()
                if not (path.startswith(str(self.node.auth_dir)) and path.endswith(".json")):
                    out[f"content of {path}"] = Path(path).read_bytes()
        for where, data in out.items():
            leaked = sorted(needle for needle in self.needles if needle in data)
            assert not leaked, f"{where}: {leaked[:3]}"
        return run

    def _files(self) -> set[str]:
        return {str(path) for path in self.node.root.rglob("*") if path.is_file() and not path.is_symlink()}


@pytest.fixture
def watched(node: Node, cluster: ApiServer) -> Watched:
    return Watched(node, cluster)


def test_the_search_finds_what_is_there(watched: Watched) -> None:
    """The auth file holds the canaries, and would be found out if it were not excepted."""
    assert watched.run().status == 0
    (content,) = (file.read_bytes() for file in watched.node.auth_dir.glob("*.json"))
    found = {needle for needle in watched.needles if needle in content}
    for secret in (IDENTITY_TOKEN.encode(), basic(USER, PASSWORD).encode(), basic("node", NODE_PASSWORD).encode()):
        assert any(needle in secret for needle in found), secret
    assert any(needle in watched.token.encode() for needle in watched.needles)


def test_a_pull_that_works(watched: Watched) -> None:
    run = watched.run()
    assert run.entry["OUTCOME"] == "auth-file-written"
    # Every malformed secret was looked at, and told by its name: those up to the first that serves, and the unreadable.
    told = run.entry["SKIPPED"]
    names = [name for name in MALFORMED_SECRETS if name < "m12" or name[:3] in ("m15", "m17", "m18", "m19")]
    assert len(names) == 15 and all(f"{name}: " in told for name in names), told


def test_the_kept_forms(watched: Watched) -> None:
    """Files are kept in parsed form once they are two seconds old."""
    for path in (watched.node.registries_conf, watched.node.kubeconfig):
        os.utime(path)
    kept: list[Path] = []
    for _ in range(40):
        watched.run(request("quay.io/team/app", watched.token))
        watched.run()
        for file in watched.node.auth_dir.glob("*.json"):
            file.unlink()
        kept = list(watched.node.cache_dir.glob("*"))
        if len(kept) >= 2:
            return
        time.sleep(0.25)
    raise AssertionError(f"nothing was kept: {kept}")


@pytest.mark.parametrize("mode", ["no token", "no mirror", "no fitting secret", "blocked"])
def test_nothing_to_do(watched: Watched, mode: str) -> None:
    message = None
    if mode == "no token":
        message = request()
    elif mode == "no mirror":
        message = request("quay.io/team/app", watched.token)
    elif mode == "no fitting secret":
        # A password without a user name is a credential, as for CRI-O.
        for name in ("m12-password-alone", "z-good", "z-identity"):
            watched.cluster.delete_secret("team-alpha", name)
    else:
        text = watched.node.registries_conf.read_text()
        for host in ("mirror.corp:5000", "other.example", "node.example"):
            text += f'[[registry]]\nlocation = "{host}"\nblocked = true\n'
        watched.node.write_registries_conf(text)
    run = watched.run(message)
    assert run.entry["OUTCOME"] == "nothing-to-do"


@pytest.mark.parametrize("name", BROKEN_REQUESTS)
def test_broken_requests(watched: Watched, name: str) -> None:
    assert watched.run(BROKEN_REQUESTS[name][0]).status == 1


KEYS = (
    f"https://{USER}:{PASSWORD}@mirror.corp:5000/a://b",
    f"https://mirror.corp:5000/{USER}:{PASSWORD}@x",
    f"https://mirror.corp:5000/?password={PASSWORD}",
    f"https://mirror.corp:5000/{USER}:{PASSWORD}",
    f"https://mirror.corp:5000/X/{PASSWORD}",
    f"*.corp:5000/hub/../{PASSWORD}:",
)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("entry", [{}, {"auth": "x"}, {"auth": basic("u", "p\n")}], ids=["hollow", "broken", "used"])
def test_passwords_in_keys(watched: Watched, key: str, entry: dict[str, str]) -> None:
    """A key that counts for the host of a mirror is told, as far as it is one."""
    for name in ("m12-password-alone", "z-good", "z-identity"):
        watched.cluster.delete_secret("team-alpha", name)
    watched.cluster.add_secret("team-alpha", "a-key", {"auths": {key: entry}})
    watched.cluster.add_secret("team-alpha", "b-key", {"auths": {f"{key}-2": {"auth": basic("u", "p")}}})
    run = watched.run()
    assert run.status == 0


def token_requests(token: str) -> dict[str, bytes]:
    """Requests that are broken around a real token."""
    whole = request(token=token)
    header, claims, signature = token.split(".")
    return {
        "truncated after the token": whole[:-10],
        "truncated in the token": whole[: whole.index(claims.encode()) + 40],
        "another kind": request(token=token, kind="Pod"),
        "no image": request("", token),
        "the token as kind": request(token=token, kind=token),
        "the token as apiVersion": request(token=token, apiVersion=token),
        "the token as annotations": request(token=token, serviceAccountAnnotations=token),
        "the token in a list": request(serviceAccountToken=[token]),
        "the token without its signature": request(token=f"{header}.{claims}"),
        "the token with a blank": request(token=f"{header}.{claims} .{signature}"),
        "the token with a line break": request(token=f"{header}.{claims}.{signature}\r\nX: y"),
        "the token in other letters": request(token=f"{header}.{claims}.{signature}é"),
        "the token in front of the request": token.encode() + whole,
        "the token after the request": whole + token.encode(),
    }


@pytest.mark.parametrize("name", token_requests("a.b.c"))
def test_broken_requests_with_the_real_token(watched: Watched, name: str) -> None:
    run = watched.run(token_requests(watched.token)[name])
    assert run.status == 1


@pytest.mark.parametrize("member", ["namespace", "pod", "serviceaccount"])
def test_claims_that_are_no_names(watched: Watched, member: str) -> None:
    """A name that is refused may be anything, so that it is not quoted."""
    claims = bound_claims()
    bad = f"{MALFORMED}/../"
    claims["kubernetes.io"][member] = bad if member == "namespace" else {"name": bad}
    assert watched.run(request(token=jwt(claims))).status == 1


@pytest.mark.parametrize("name", BROKEN_TOML)
def test_broken_toml(watched: Watched, name: str) -> None:
    watched.node.write(watched.node.registries_conf, BROKEN_TOML[name][0])
    assert watched.run().status == 1


@pytest.mark.parametrize("name", FAULTS)
def test_an_api_server_that_fails(watched: Watched, name: str) -> None:
    watched.cluster.fault = FAULTS[name][0]
    assert watched.run().status == 1


def echo(status: int, *, where: str) -> Fault:
    """An API server that gives back what it was told, where a careless client would log it."""

    def fault(exchange: Exchange) -> bool:
        token = (exchange.request.header("Authorization") or "").removeprefix("Bearer ")
        _, claims, signature = token.split(".")
        said = {
            "the message": {"kind": "Status", "message": f"invalid bearer token {token}"},
            "the message, cut": {"kind": "Status", "message": f"bad {claims[:40]}"},
            "the message, in parts": {"kind": "Status", "message": f"bad {signature[5:30]} and {claims[20:50]}"},
            "the reason": {"kind": "Status", "message": "no", "reason": token, "details": {"name": token}},
            "the kind": {"kind": token, "items": token},
            "the continue token": {"kind": "SecretList", "items": [], "metadata": {"continue": token}},
            "items": {"kind": "SecretList", "items": [token, {"metadata": token}, {token: token}]},
        }
        exchange.answer = Answer(status, [("X-Echo", token), ("WWW-Authenticate", f"Bearer {token}")])
        exchange.answer.body = json.dumps(said.get(where, {})).encode()
        if where == "the status line":
            exchange.connection.send(f"HTTP/1.1 {status} {token}\r\nContent-Length: 0\r\n\r\n".encode())
            return True
        if where == "no HTTP":
            exchange.connection.send(f"{token}\r\n\r\n".encode())
            exchange.connection.close()
            return True
        if where == "a chunk size":
            exchange.connection.send(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{token[:900]}\r\n".encode())
            exchange.connection.close()
            return True
        if where == "the length":
            exchange.connection.send(f"HTTP/1.1 200 OK\r\nContent-Length: {token}\r\n\r\n".encode())
            return True
        if where == "the location":
            exchange.answer.headers.append(("Location", f"https://127.0.0.1:1/{token}"))
        if where == "the body":
            exchange.answer.body = token.encode()
        return False

    return fault


@pytest.mark.parametrize(
    ("status", "where"),
    [
        *((status, "the message") for status in (401, 403, 404, 500)),
        (401, "the message, cut"),
        (401, "the message, in parts"),
        (403, "the reason"),
        (200, "the kind"),
        (200, "the continue token"),
        (200, "items"),
        (400, "the status line"),
        (200, "no HTTP"),
        (200, "a chunk size"),
        (200, "the length"),
        (302, "the location"),
        (200, "the body"),
        (401, "the body"),
    ],
)
def test_an_api_server_that_echoes_the_token(watched: Watched, status: int, where: str) -> None:
    watched.cluster.fault = echo(status, where=where)
    run = watched.run()
    assert run.status == (0 if where == "items" else 1)
    assert watched.cluster.tokens_seen >= 1


@pytest.mark.parametrize("cut", ["half the secrets", "secrets of a wrong type", "no base64", "a length too short"])
def test_secrets_that_come_broken(watched: Watched, cut: str) -> None:
    def fault(exchange: Exchange) -> bool:
        document = json.loads(exchange.answer.body)
        if cut == "half the secrets":
            exchange.answer.body = exchange.answer.body[: len(exchange.answer.body) // 2]
            return False
        for item in document["items"]:
            (key,) = item["data"]
            content = base64.b64decode(item["data"][key]).decode("latin-1")
            if cut == "secrets of a wrong type":
                item["data"] = [content]
            elif cut == "no base64":
                item["data"][key] = content
        exchange.answer.body = json.dumps(document).encode()
        if cut == "a length too short":
            exchange.answer.body = exchange.answer.body[:-200]
        return False

    watched.cluster.fault = fault
    watched.run()
    assert watched.cluster.tokens_seen == 1


@pytest.mark.parametrize("kind", UNTRUSTED)
def test_a_server_that_is_not_trusted(watched: Watched, authority: Authority, kind: str) -> None:
    with Peer(hang, context=server_context(distrusted(authority, kind))) as peer:
        watched.node.write_kubeconfig(peer.url, authority.certificate_pem)
        assert watched.run().status == 1


def test_servers_that_speak_no_tls(watched: Watched) -> None:
    for behave in (hang, close_in_tls, say(b"HTTP/1.1 400 Bad Request\r\n\r\n")):
        with Peer(behave) as peer:
            watched.node.write_kubeconfig(peer.url)
            assert watched.run().status == 1


def test_refusals(watched: Watched) -> None:
    watched.cluster.revoke("team-alpha", "default")
    assert watched.run().status == 1
    watched.cluster.audiences = ("https://elsewhere.example",)
    assert watched.run().status == 1


def not_a_directory(node: Node) -> None:
    node.write("etc/crio", "")


def writable_for_others(node: Node) -> None:
    node.auth_dir.mkdir(parents=True)
    node.auth_dir.chmod(0o777)


def taken_by_a_directory(node: Node) -> None:
    for name in ("team-alpha-7e59ad64326bc321517fb6fc6586de5ee149178394d9edfa2a877176cdf6fad5.json",):
        (node.auth_dir / name).mkdir(parents=True)
    node.auth_dir.chmod(0o700)


def a_broken_kubeconfig(node: Node) -> None:
    node.kubeconfig.write_text(node.kubeconfig.read_text() + f"\t{KUBELET_KEY}: [\n")


def a_kubeconfig_with_a_password(node: Node) -> None:
    node.write_kubeconfig(f"https://{USER}:{PASSWORD}@mirror.example")


def a_broken_global_auth_file(node: Node) -> None:
    node.write("var/lib/kubelet/config.json", f'{{"auths": {{"node.example": {{"auth": "{NODE_PASSWORD}')


def a_global_auth_file_of_text(node: Node) -> None:
    node.write("var/lib/kubelet/config.json", json.dumps({"auths": {"node.example": {"auth": NODE_PASSWORD}}}))


def a_global_helper(node: Node) -> None:
    node.write("var/lib/kubelet/config.json", json.dumps({"credHelpers": {"node.example": "helper"}}))


@pytest.mark.parametrize(
    "spoil",
    [
        not_a_directory,
        writable_for_others,
        taken_by_a_directory,
        a_broken_kubeconfig,
        a_kubeconfig_with_a_password,
        a_broken_global_auth_file,
        a_global_auth_file_of_text,
        a_global_helper,
    ],
)
def test_a_node_that_is_spoilt(watched: Watched, spoil: Callable[[Node], None]) -> None:
    spoil(watched.node)
    expected = 0 if "global" in spoil.__name__ else 1
    assert watched.run().status == expected


@pytest.mark.parametrize("size", [0, 30])
def test_a_full_disk(watched: Watched, size: int) -> None:
    node = watched.node
    honest = node.start

    def limited(*flags: str, **options: object) -> object:
        return honest(*flags, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))

    node.start = limited  # type: ignore[method-assign, assignment]
    assert watched.run().status == 1


@pytest.mark.parametrize("flag", ["--registries-conf", "--kubeconfig", "--no-such-flag", "--deadline", "--log-level"])
def test_usage_faults_quote_the_command_line_alone(watched: Watched, flag: str) -> None:
    assert watched.run(None, flag, "nonsense").status in (1, 2)


def test_answers_of_any_shape(watched: Watched) -> None:
    """What nobody foresaw in the answer of an API server that lies: shapes that code might trip over."""
    wrong: list[object] = [None, 7, [MALFORMED], {MALFORMED: MALFORMED}]
    good = next(iter(watched.cluster.secrets.values()))
    for value in wrong:
        items = [
            value,
            {**good, "metadata": value},
            {**good, "data": value},
            {**good, "data": {".dockerconfigjson": value}},
        ]
        items.append({**good, "metadata": {"name": value}})
        fault = demo.wrong_content({"kind": "SecretList", "metadata": value, "items": items})
        watched.cluster.fault = fault
        run = watched.run()
        assert run.entry["OUTCOME"] != "fault-bug", run.stderr
