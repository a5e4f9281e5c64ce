"""The simulated node's two halves, kubelet and CRI-O, keep to the rules of the real ones, as skopeo does."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from crio_credential_provider.errors import ConfigError
from crio_credential_provider.images.dockerconfig import Credential
from crio_credential_provider.testbed.certificates import Authority
from crio_credential_provider.testbed.cluster import ApiServer
from crio_credential_provider.testbed.crio import Attempt, ContainerRuntime, Pull
from crio_credential_provider.testbed.journald import JournalSocket, loads
from crio_credential_provider.testbed.loopback import Answer, Connection, LoopbackServer, Request
from crio_credential_provider.testbed.node import Kubelet, ResponseError, dumps_request, loads_response
from crio_credential_provider.testbed.registry import MANIFEST_TYPE, MirrorRegistry
from node import TESTS
from real_programs import need

IMAGE = "docker.io/nginx:1.27"
REPOSITORY = "hub/library/nginx"
HASH = "7e59ad64326bc321517fb6fc6586de5ee149178394d9edfa2a877176cdf6fad5"
ALPHA = ("alpha", "alphapw")


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def conf(*mirrors: str, insecure: bool = True, more: str = "blocked = true") -> str:
    """registries.conf with docker.io, blocked, and these mirrors."""
    tables = [f'[[registry]]\nlocation = "docker.io"\n{more}\n']
    tables += [
        f'[[registry.mirror]]\nlocation = "{mirror}"\ninsecure = {str(insecure).lower()}\n' for mirror in mirrors
    ]
    return "".join(tables)


class Node:
    """A node's files below a directory, and its CRI-O."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.auth_dir = root / "etc/crio/auth"

    def runtime(self, text: str, **options: str) -> ContainerRuntime:
        path = self.root / "etc/containers/registries.conf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return ContainerRuntime(str(self.root), **options)  # type: ignore[arg-type]

    def write_auth(self, document: object, namespace: str = "team-alpha") -> Path:
        self.auth_dir.mkdir(parents=True, exist_ok=True)
        path = self.auth_dir / f"{namespace}-{HASH}.json"
        path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
        return path

    def login(self, mirror: str, user: str = "alpha", password: str = "alphapw") -> Path:
        return self.write_auth({"auths": {mirror: auth(user, password)}})

    def left(self) -> list[Path]:
        return [path for path in self.auth_dir.rglob("*") if path.is_file()]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.fixture
def mirror() -> Iterator[MirrorRegistry]:
    with MirrorRegistry({"alpha": ("alphapw", ["hub"]), "beta": ("betapw", ["hub"])}) as running:
        running.add_image(REPOSITORY, "1.27")
        yield running


def served(pull: Pull) -> Attempt:
    assert pull.digest, pull
    return pull.attempts[-1]


# -- the auth file -----------------------------------------------------------------------------------------------------


def test_the_file_of_the_namespace_is_used_once(node: Node, mirror: MirrorRegistry) -> None:
    runtime = node.runtime(conf(f"{mirror.host}/hub"))
    path = node.login(f"{mirror.host}/hub")
    assert runtime.auth_file(IMAGE, "team-alpha") == str(path)
    pull = runtime.pull(IMAGE, "team-alpha")
    source = f"{mirror.host}/{REPOSITORY}"
    assert pull.attempts == (Attempt(source, f"{mirror.host}/hub", "alpha", 200, ""),)
    assert (pull.digest, pull.error) == (mirror.add_image(REPOSITORY, "1.27"), "")
    assert pull.auth_file.startswith(f"team-alpha-{HASH}-") and pull.auth_file.endswith(".json")
    assert node.left() == []
    again = runtime.pull(IMAGE, "team-alpha")
    assert (again.auth_file, again.digest, again.attempts[0].status) == ("", "", 401)
    assert "alphapw" not in repr((pull, again))


def test_one_file_serves_every_spelling_of_its_repository(node: Node, mirror: MirrorRegistry) -> None:
    runtime = node.runtime(conf(f"{mirror.host}/hub"))
    digest = mirror.add_image(REPOSITORY, "1.27")
    for image in ("docker.io/library/nginx:1.27", f"index.docker.io/nginx@{digest}", f"docker.io/nginx:1.27@{digest}"):
        node.login(mirror.host)
        assert runtime.pull(image, "team-alpha").digest == digest
    assert all("@" not in asked.path for asked in mirror.log)


def test_another_namespace_s_file_stays(node: Node, mirror: MirrorRegistry) -> None:
    runtime = node.runtime(conf(f"{mirror.host}/hub"))
    path = node.write_auth({"auths": {mirror.host: auth(*ALPHA)}}, "team-beta")
    assert runtime.pull(IMAGE, "team-alpha").attempts[0].status == 401
    assert path.exists()


def test_the_file_is_in_use_during_the_pull(node: Node) -> None:
    seen: list[tuple[list[str], int]] = []

    def respond(request: Request, connection: Connection) -> None:
        in_use = node.auth_dir / "in-use"
        names = sorted(path.name for path in node.auth_dir.rglob("*") if path.is_file())
        seen.append((names, stat.S_IMODE(in_use.stat().st_mode)))
        connection.send(Answer(404, [], b"no image here").dumps())

    with LoopbackServer(respond) as server:
        runtime = node.runtime(conf(f"127.0.0.1:{server.port}/hub"))
        node.write_auth({"auths": {}})
        pull = runtime.pull(IMAGE, "team-alpha")
    assert seen and all(state == ([pull.auth_file], 0o700) for state in seen)
    # Removed although the pull failed.
    assert (pull.digest, node.left()) == ("", [])


def test_it_is_used_instead_of_the_global_file(node: Node, mirror: MirrorRegistry, tmp_path: Path) -> None:
    everywhere = tmp_path / "global.json"
    everywhere.write_text(json.dumps({"auths": {mirror.host: auth("beta", "betapw")}}))
    runtime = node.runtime(conf(f"{mirror.host}/hub"), global_auth_file=str(everywhere))
    assert served(runtime.pull(IMAGE, "team-alpha")).user == "beta"
    node.login(mirror.host)
    assert served(runtime.pull(IMAGE, "team-alpha")).user == "alpha"
    # Not even for a source that it says nothing about.
    node.write_auth({"auths": {"other.example": auth(*ALPHA)}})
    assert runtime.pull(IMAGE, "team-alpha").attempts[0].status == 401


@pytest.mark.parametrize("content", [b"", b"{", b'{"auths": []}'], ids=str)
def test_a_broken_file_fails_the_pull(node: Node, mirror: MirrorRegistry, content: bytes) -> None:
    runtime = node.runtime(conf(f"{mirror.host}/hub"))
    node.write_auth(content)
    pull = runtime.pull(IMAGE, "team-alpha")
    assert (pull.digest, mirror.log, node.left()) == ("", [], [])
    assert "getting username and password" in pull.attempts[0].message


# -- the sources -------------------------------------------------------------------------------------------------------


def test_sources_are_asked_in_order_until_one_has_the_manifest(node: Node, mirror: MirrorRegistry) -> None:
    with MirrorRegistry() as empty, MirrorRegistry() as last:
        last.add_image(f"c/{REPOSITORY.removeprefix('hub/')}", "1.27")
        runtime = node.runtime(conf(f"{empty.host}/a", f"{mirror.host}/hub", f"{last.host}/c"))
        node.login(mirror.host)
        pull = runtime.pull(IMAGE, "team-alpha")
        assert [attempt.status for attempt in pull.attempts] == [404, 200]
        assert pull.attempts[0].message == f"reading manifest 1.27 in {empty.host}/a/library/nginx: manifest unknown"
        assert last.log == []
        node.login(mirror.host, "alpha", "wrong")
        pull = runtime.pull(IMAGE, "team-alpha")
        assert [attempt.status for attempt in pull.attempts] == [404, 401, 200]
        assert pull.attempts[1].message.endswith(": authentication required")
        # Where the registry does not ask for a password, none is sent.
        assert {asked.user for asked in (*empty.log, *last.log)} == {None}


def test_a_blocked_source_is_never_asked(node: Node, mirror: MirrorRegistry) -> None:
    text = conf(f"{mirror.host}/hub") + f'[[registry]]\nlocation = "{mirror.host}"\nblocked = true\n'
    pull = node.runtime(text).pull(IMAGE, "team-alpha")
    assert [attempt.message.endswith("is blocked in registries.conf") for attempt in pull.attempts] == [True, True]
    assert (mirror.log, pull.digest) == ([], "")
    assert "is blocked" in pull.error


def test_the_configuration_counts_from_start_or_reload_on(node: Node, mirror: MirrorRegistry) -> None:
    runtime = node.runtime(conf())
    node.runtime(conf(f"{mirror.host}/hub"))
    assert len(runtime.pull_sources(IMAGE)) == 1
    runtime.reload()
    assert runtime.pull_sources(IMAGE)[0].name == f"{mirror.host}/{REPOSITORY}"
    with pytest.raises(ConfigError, match=r"registries\.conf"):
        node.runtime("[[registry]")


@pytest.mark.parametrize("image", ["", "UPPER/case", "docker.io/nginx:", "a" * 300], ids=str)
def test_an_image_that_is_none_is_no_bug(node: Node, image: str) -> None:
    pull = node.runtime(conf()).pull(image, "team-alpha")
    assert (pull.attempts, pull.digest) == ((), "")
    assert pull.error


# -- transport and credentials -----------------------------------------------------------------------------------------


def test_plain_http_is_for_insecure_sources_alone(node: Node, mirror: MirrorRegistry) -> None:
    runtime = node.runtime(conf(f"{mirror.host}/hub", insecure=False))
    node.login(mirror.host)
    pull = runtime.pull(IMAGE, "team-alpha")
    assert (pull.attempts[0].status, pull.attempts[0].user, mirror.log) == (0, "", [])


def test_tls_is_verified_with_the_authorities_of_the_host(node: Node) -> None:
    authority, stranger = Authority.make("mirror"), Authority.make("stranger")
    identity = authority.issue("mirror", ip_addresses=["127.0.0.1"])
    with MirrorRegistry({"alpha": ("alphapw", ["hub"])}, identity=identity) as mirror:
        mirror.add_image(REPOSITORY, "1.27")
        certificates = node.root / "etc/containers/certs.d" / mirror.host
        certificates.mkdir(parents=True)
        runtime = node.runtime(conf(f"{mirror.host}/hub", insecure=False))
        for pem in (None, stranger.certificate_pem):
            if pem:
                (certificates / "ca.crt").write_text(pem)
            node.login(mirror.host)
            pull = runtime.pull(IMAGE, "team-alpha")
            assert "certificate" in pull.error and not pull.digest
            assert mirror.log == []
        (certificates / "ca.crt").write_text(authority.certificate_pem)
        node.login(mirror.host)
        assert served(runtime.pull(IMAGE, "team-alpha")).user == "alpha"
        # An insecure source is spoken to over TLS as well, where it has it, whoever signed.
        (certificates / "ca.crt").write_text(stranger.certificate_pem)
        runtime = node.runtime(conf(f"{mirror.host}/hub"))
        node.login(mirror.host)
        assert served(runtime.pull(IMAGE, "team-alpha")).user == "alpha"


def test_the_kubelet_s_credential_counts_on_the_image_s_own_host_alone(node: Node, mirror: MirrorRegistry) -> None:
    given, empty = Credential(b"beta", b"betapw"), Credential(b"", b"")
    runtime = node.runtime(conf(f"{mirror.host}/hub") + f'[[registry]]\nlocation = "{mirror.host}"\ninsecure = true\n')
    node.login(mirror.host)
    assert served(runtime.pull(IMAGE, "team-alpha", given)).user == "alpha"
    direct = f"{mirror.host}/{REPOSITORY}:1.27"
    path = Path(runtime.auth_file(direct, "team-alpha"))
    for credential, user in ((given, "beta"), (empty, "alpha")):
        path.write_text(json.dumps({"auths": {mirror.host: auth(*ALPHA)}}))
        assert served(runtime.pull(direct, "team-alpha", credential)).user == user


def test_bearer_challenges_are_refused_by_name(node: Node) -> None:
    def respond(request: Request, connection: Connection) -> None:
        connection.send(Answer(401, [("WWW-Authenticate", 'Bearer realm="http://127.0.0.1:1/"')]).dumps())

    with LoopbackServer(respond) as server:
        pull = node.runtime(conf(f"127.0.0.1:{server.port}/hub")).pull(IMAGE, "team-alpha")
    assert "asks for bearer authentication" in pull.error


# -- content -----------------------------------------------------------------------------------------------------------


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


CONFIG, LAYER = b"{}", b"layer"
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "config": {"digest": digest_of(CONFIG), "size": len(CONFIG)},
        "layers": [{"digest": digest_of(LAYER), "size": len(LAYER)}],
    }
).encode()
GOOD = {"manifests": (200, MANIFEST), digest_of(CONFIG): (200, CONFIG), digest_of(LAYER): (200, LAYER)}
BAD: Mapping[str, dict[str, tuple[int, bytes]]] = {
    "layer-changed": {digest_of(LAYER): (200, b"Layer")},
    "layer-cut": {digest_of(LAYER): (200, b"laye")},
    "layer-longer": {digest_of(LAYER): (200, b"layerlayer")},
    "layer-missing": {digest_of(LAYER): (404, b"gone")},
    "config-changed": {digest_of(CONFIG): (200, b"[]")},
    "no-manifest": {"manifests": (200, b"[]")},
    "no-json": {"manifests": (200, b"<html>")},
    "unknown-digest": {"manifests": (200, MANIFEST.replace(b"sha256:", b"md5:"))},
    "negative-size": {"manifests": (200, MANIFEST.replace(b'"size": 5', b'"size": -5'))},
}


def serving(blobs: Mapping[str, tuple[int, bytes]], media_type: str = MANIFEST_TYPE) -> LoopbackServer:
    """A registry for everybody that answers by the last part of the path, with these."""

    def respond(request: Request, connection: Connection) -> None:
        kind, _, name = request.path.rpartition("/")
        key = "manifests" if kind.endswith("manifests") else name
        status, body = blobs.get(key, (200, b""))
        connection.send(Answer(status, [("Content-Type", media_type)], body).dumps())

    return LoopbackServer(respond)


def test_the_digest_is_that_of_the_manifest(node: Node) -> None:
    with serving(GOOD) as server:
        runtime = node.runtime(conf(f"127.0.0.1:{server.port}/hub"))
        assert runtime.pull(IMAGE, "team-alpha").digest == digest_of(MANIFEST)
        assert runtime.pull(f"docker.io/nginx@{digest_of(MANIFEST)}", "team-alpha").digest == digest_of(MANIFEST)


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_wrong_content_fails_the_pull_and_no_other_source_is_asked(
    node: Node, mirror: MirrorRegistry, change: dict[str, tuple[int, bytes]]
) -> None:
    with serving(GOOD | change) as server:
        pull = node.runtime(conf(f"127.0.0.1:{server.port}/hub", f"{mirror.host}/hub")).pull(IMAGE, "team-alpha")
    assert (pull.digest, len(pull.attempts), mirror.log) == ("", 1, [])
    assert pull.error == pull.attempts[0].message != ""


def test_a_manifest_with_another_digest_or_type_is_none(node: Node, mirror: MirrorRegistry) -> None:
    wanted = f"docker.io/nginx@{mirror.add_image(REPOSITORY, '1.27')}"
    with serving(GOOD) as liar, serving(GOOD, "application/vnd.oci.image.index.v1+json") as index:
        mirrors = [f"127.0.0.1:{server.port}/hub" for server in (liar, index)]
        node.login(mirror.host)
        pull = node.runtime(conf(*mirrors, f"{mirror.host}/hub")).pull(wanted, "team-alpha")
    assert ["does not have this digest" in pull.attempts[0].message, "of type" in pull.attempts[1].message] == [
        True
    ] * 2
    assert served(pull).user == "alpha"


# -- against skopeo ----------------------------------------------------------------------------------------------------

Case = Callable[[MirrorRegistry, MirrorRegistry], tuple[str, dict[str, object]]]
CASES: Mapping[str, Case] = {
    "served": lambda one, two: (conf(f"{one.host}/hub"), {one.host: auth(*ALPHA)}),
    "no-credential": lambda one, two: (conf(f"{one.host}/hub"), {}),
    "wrong-password": lambda one, two: (conf(f"{one.host}/hub"), {one.host: auth("alpha", "wrong")}),
    "hollow-entry": lambda one, two: (
        conf(f"{one.host}/hub"),
        {f"{one.host}/hub": {}, one.host: auth(*ALPHA)},
    ),
    "second-mirror": lambda one, two: (
        conf(f"{one.host}/none", f"{two.host}/hub"),
        {one.host: auth(*ALPHA), two.host: auth("beta", "betapw")},
    ),
    "first-refuses": lambda one, two: (conf(f"{one.host}/hub", f"{two.host}/hub"), {two.host: auth(*ALPHA)}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_registries_see_what_they_see_of_skopeo(
    node: Node, mirror: MirrorRegistry, tmp_path: Path, case: Case
) -> None:
    (skopeo,) = need("skopeo")
    with MirrorRegistry(mirror.users) as second:
        second.add_image(REPOSITORY, "1.27")
        text, auths = case(mirror, second)
        runtime = node.runtime(text)
        node.write_auth({"auths": auths})
        pull = runtime.pull(IMAGE, "team-alpha")
        ours = [sorted(registry.log) for registry in (mirror, second)]
        mirror.log.clear()
        second.log.clear()
        theirs = tmp_path / "theirs.json"
        theirs.write_text(json.dumps({"auths": auths}))
        # A hidden flag; the ways that are documented need root, or HOME.
        command = [skopeo, f"--registries-conf={node.root}/etc/containers/registries.conf", "--insecure-policy"]
        command += ["copy", f"--authfile={theirs}", f"docker://{IMAGE}", f"dir:{tmp_path}/i"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert [sorted(registry.log) for registry in (mirror, second)] == ours, done.stderr
    assert (done.returncode == 0) == bool(pull.digest), done.stderr


# -- the kubelet -------------------------------------------------------------------------------------------------------

GIVEN = '"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1"'


def test_a_request_is_spelled_as_recorded() -> None:
    recorded = TESTS / "recordings/kubelet/request-with-annotations.json"
    request = json.loads(recorded.read_bytes())
    made = dumps_request(request["image"], request["serviceAccountToken"], request["serviceAccountAnnotations"])
    assert list(json.loads(made).items()) == list(request.items())
    assert json.loads(dumps_request("nginx:1.27"))["image"] == "docker.io/library/nginx"


def test_answers_are_decoded() -> None:
    response = loads_response(f'{{{GIVEN},"cacheKeyType":"Image"}}'.encode())
    assert (response.cache_key_type, response.cache_duration, response.auth) == ("Image", None, {})
    entry = '{"a/b":{"username":"u","password":"p"}}'
    text = f'{{{GIVEN},"cacheKeyType":"Global","cacheDuration":"1h30m","auth":{entry}}}'
    response = loads_response(text.encode())
    assert (response.cache_duration, response.auth) == ("1h30m", {"a/b": Credential(b"u", b"p")})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "\xff",
        "[" * 100_000,
        f"{{{GIVEN}}}",
        f'{{{GIVEN},"cacheKeyType":"image"}}',
        f'{{{GIVEN},"cacheKeyType":"Image"}} {{}}',
        f'{{{GIVEN},"cacheKeyType":"Image","cachekeytype":"Image"}}',
        f'{{{GIVEN},"cacheKeyType":"Image","cacheKeyType":"Image"}}',
        f'{{{GIVEN},"cacheKeyType":"Image","cacheDuration":"5"}}',
        f'{{{GIVEN},"cacheKeyType":"Image","cacheDuration":5}}',
        f'{{{GIVEN},"cacheKeyType":"Image","auth":[1]}}',
        f'{{{GIVEN},"cacheKeyType":"Image","auth":{{"a":"secret"}}}}',
        f'{{{GIVEN},"cacheKeyType":"Image","auth":{{"a":{{"username":1}}}}}}',
        f'{{{GIVEN},"cacheKeyType":"Image","auth":{{"a":{{"token":"secret"}}}}}}',
        '{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1beta1","cacheKeyType":"Image"}',
    ],
    ids=lambda text: text[-40:],
)
def test_answers_are_decoded_strictly(text: str) -> None:
    with pytest.raises(ResponseError) as caught:
        loads_response(text.encode("latin-1"))
    assert "secret" not in str(caught.value)


@pytest.mark.slow
def test_what_a_plugin_does_wrong_becomes_a_line_of_the_log() -> None:
    with ApiServer() as cluster:
        cluster.add_pod("team-alpha", "web", "node1", image=IMAGE)
        for code, error in {
            "raise SystemExit(3)": "exit status 3: ",
            "import os; os.kill(os.getpid(), 15)": "signal 15: ",
            "import time; time.sleep(60)": "context deadline exceeded",
            "print('hello')": "standard output is not JSON: JSONDecodeError",
        }.items():
            run = Kubelet([sys.executable, "-c", code], cluster, timeout=1).ask("team-alpha", "web")
            assert run.error.strip() == error.strip()
            assert run.response is None
        assert Kubelet(["/no/such"], cluster).ask("team-alpha", "web").error.endswith("No such file or directory")
        echo = Kubelet([sys.executable, "-c", "import sys; sys.exit(sys.stdin.read())"], cluster)
        run = echo.ask("team-alpha", "web")
        assert json.loads(run.stderr) == json.loads(run.request)
        assert json.loads(run.request)["image"] == "docker.io/library/nginx"


@pytest.mark.slow
def test_the_plugin_does_not_get_its_variables_from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRIO_CREDENTIAL_PROVIDER_ROOT", "/x")
    with ApiServer() as cluster:
        command = [sys.executable, "-c", "import os, sys; sys.exit(' '.join(os.environ))"]
        assert "CRIO_CREDENTIAL_PROVIDER" not in Kubelet(command, cluster).run(b"").stderr


# -- journald ----------------------------------------------------------------------------------------------------------


def test_journal_entries_are_read_in_order(tmp_path: Path) -> None:
    import socket

    path = str(tmp_path / "s")
    with JournalSocket(path) as journal, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        assert journal.read() == []
        client.sendto(b"MESSAGE=a=b\nN=1\n", path)
        client.sendto(b"MESSAGE\n" + (5).to_bytes(8, "little") + b"two\nl\nN=2\n", path)
        assert journal.read() == [{"MESSAGE": "a=b", "N": "1"}, {"MESSAGE": "two\nl", "N": "2"}]
        assert journal.read() == []
    assert not os.path.exists(path)


@pytest.mark.parametrize("data", [b"x", b"A=1", b"A\n\x05", b"A\n\x02\0\0\0\0\0\0\0ab", b"=1\n"], ids=str)
def test_what_is_no_journal_entry_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="journal"):
        loads(data)


def test_a_path_that_no_socket_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="107 bytes"):
        JournalSocket(str(tmp_path / ("x" * 100)))
