"""``explain`` says what the plugin does: both are driven on every vector and every recorded request, and compared.

The plugin runs whole, in this process or as $PROGRAM: request on file descriptor 0, answer on 1, journal, auth
directory, TLS to the stand-in API server. ``explain`` runs twice: on the same request, online, and on the image as a
pod spells it, with the secrets in a file; the second time the sources that it says CRI-O asks are held against CRI-O's
own answer.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest

import conformance
from commandline import command
from crio_credential_provider.commands import explain
from crio_credential_provider.explanation import is_short_name
from crio_credential_provider.pull import plugin
from crio_credential_provider.testbed.cluster import ApiServer
from node import NGINX, PROGRAM, TESTS, Journal, basic, recorded_request, request

pytestmark = pytest.mark.process

VECTORS = TESTS / "vectors"
NAMESPACE = "team-alpha"

Case = dict[str, Any]


class Ran(NamedTuple):
    """One run of the plugin."""

    status: int
    answer: Any
    stderr: str
    entry: dict[str, str]
    files: dict[str, Any]


class Told(NamedTuple):
    """One run of ``explain --output json``."""

    status: int
    report: Any
    stderr: str


class Bench:
    """A cluster and a journal, for any number of nodes in turn."""

    def __init__(self, cluster: ApiServer, root: Path) -> None:
        self.cluster = cluster
        self.journal = Journal(root / "journal")
        self.root = root
        authority = base64.b64encode(cluster.authority.certificate_pem.encode()).decode()
        self.kubeconfig = root / "kubeconfig"
        self.kubeconfig.write_text(
            f"kind: Config\nclusters: [{{name: c, cluster: {{server: '{cluster.url}', certificate-authority-data: "
            f"{authority}}}}}]\ncontexts: [{{name: c, context: {{cluster: c}}}}]\ncurrent-context: c\n"
        )
        cluster.add_service_account(NAMESPACE, "default")
        cluster.add_pod(NAMESPACE, "web", "node1")
        cluster.allow(NAMESPACE, "default")
        self.token = cluster.mint_token(NAMESPACE, "default", "web")

    def set_secrets(self, secrets: Mapping[str, Mapping[str, Any] | bytes], namespace: str = NAMESPACE) -> None:
        self.cluster.secrets.clear()
        for name, content in secrets.items():
            self.cluster.add_secret(namespace, name, content)

    def run_plugin(self, root: Path, message: bytes, flags: list[str]) -> Ran:
        """As the kubelet does; without $PROGRAM in this process."""
        arguments = [f"--root={root}", f"--kubeconfig={self.kubeconfig}", "--hand-off-timeout=0", *flags]
        before = len(self.journal.entries)
        arguments.append(f"--journal-socket={self.root / 'journal'}")
        if PROGRAM:
            done = subprocess.run([PROGRAM, *arguments], input=message, capture_output=True, env=_home(), check=False)
            status, stdout, stderr = done.returncode, done.stdout.decode(), done.stderr.decode()
        else:
            with _standard_streams(message) as streams:
                status = plugin.run(arguments, {})
            stdout, stderr = streams()
        self.journal.flush()
        entries = [entry for entry in self.journal.entries[before:] if "OUTCOME" in entry]
        assert len(entries) == 1
        directory = root / "etc/crio/auth"
        files = {str(file): json.loads(file.read_bytes()) for file in directory.glob("*")}
        for file in files:
            os.unlink(file)
        return Ran(status, json.loads(stdout) if stdout else None, stderr, entries[0], files)

    def explain(self, root: Path, *arguments: str) -> Told:
        given = [*arguments, f"--root={root}", f"--kubeconfig={self.kubeconfig}", "--output=json"]
        status, stdout, stderr = command("explain", explain.run, given)
        assert self.token not in f"{stdout}{stderr}"
        return Told(status, json.loads(stdout) if stdout else None, stderr)

    def compare(self, root: Path, message: bytes, *flags: str) -> tuple[Ran, Told]:
        """Runs both on one request, and holds one against the other."""
        ran = self.run_plugin(root, message, list(flags))
        recorded = root / "request.json"
        recorded.write_bytes(message)
        told = self.explain(root, "--request", str(recorded), *flags)
        check(ran, told)
        # It only looks.
        assert not list(root.rglob("etc/crio/auth/*"))
        return ran, told


def _home() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name == "HOME"}


@contextlib.contextmanager
def _standard_streams(stdin: bytes) -> Iterator[Callable[[], tuple[str, str]]]:
    """File descriptors 0, 1 and 2 are files for a while; ``sys.stderr`` goes to the last."""
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        source.write(stdin)
        source.seek(0)
        kept = [os.dup(number) for number in range(3)]
        text = io.StringIO()
        try:
            for number, file in enumerate((source, out, err)):
                os.dup2(file.fileno(), number)
            with contextlib.redirect_stderr(text):
                yield lambda: read
        finally:
            for number, descriptor in enumerate(kept):
                os.dup2(descriptor, number)
                os.close(descriptor)
            out.seek(0)
            err.seek(0)
            read = (out.read().decode(), text.getvalue() + err.read().decode())


def check(ran: Ran, told: Told) -> None:
    """Everything that the plugin did is what was told."""
    report = told.report
    assert report["plugin"]["exitStatus"] == ran.status, (ran, report["plugin"])
    assert report["plugin"]["outcome"] == ran.entry["OUTCOME"]
    if ran.status:
        assert ran.stderr == f"crio-credential-provider: {report['plugin']['error']}\n"
        assert (ran.answer, ran.files) == (None, {})
        assert (report["answer"], report["authFile"], told.status) == (None, None, 3)
        return
    assert ran.stderr == ""
    assert report["answer"] == ran.answer
    assert (report["plugin"]["reason"] or "") == ran.entry.get("REASON", "")
    assert " ".join(source["name"] for source in report["sources"]) == ran.entry.get("SOURCES", "")
    told_file = report["authFile"]
    if not ran.files:
        assert told_file is None
    else:
        [(path, content)] = ran.files.items()
        assert (told_file["path"], told_file["keys"]) == (path, list(content["auths"]))
        assert told_file["credHelpers"] == content.get("credHelpers", {})
        assert path == ran.entry["AUTH_FILE"]
        with_credential = [s["name"] for s in report["sources"] if s["credential"] and s["credential"]["key"]]
        assert sorted(with_credential) == sorted(content["auths"])
    if report["secrets"]["looked"] is not None:
        used = [
            f"{source['name']}={source['credential']['secret']}"
            for source in report["sources"]
            if source["credential"] and source["credential"]["secret"]
        ]
        assert " ".join(used) == ran.entry.get("CREDENTIALS", "")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with ApiServer() as cluster:
        made = Bench(cluster, tmp_path_factory.mktemp("b"))
        yield made
        made.journal.close()


# -- registries and layers --------------------------------------------------------------------------------------------


def cases(kind: str) -> list[Case]:
    return conformance.load(VECTORS / f"{kind}.jsonl")


def families(kind: str) -> list[str]:
    return sorted({case["family"] for case in cases(kind)})


def secrets_for(sources: list[Case] | None) -> dict[str, Any]:
    """Secrets that make it a question who wins: for hosts, for whole names, the same key twice, one that misses."""
    names = [source["name"] for source in sources or ()]
    hosts = {name.partition("/")[0]: {"auth": basic("host", "b")} for name in names[::2]}
    return {
        "a-near": {"auths": {f"{name}-not": {"auth": basic("near", "a")} for name in names}},
        "b-hosts": {"auths": hosts},
        "c-names": {"auths": {name: {"auth": basic("name", "c")} for name in names[1:2]}},
        "d-hosts": {"auths": hosts | {"*.example": {"auth": basic("glob", "d")}}},
    }


def write_secrets(bench: Bench, path: Path) -> Path:
    items = [{"kind": "Secret", **secret} for secret in bench.cluster.secrets.values()]
    path.write_text(json.dumps({"kind": "List", "items": items}))
    return path


def check_sources(bench: Bench, case: Case, root: Path, flags: list[str]) -> None:
    given = case["input"]
    expected = case.get("expected_crio_5_38") or case["expected"]
    bench.set_secrets(secrets_for(expected["pull_sources"]))
    if any(
        name == "--registries-conf" and not Path(path).exists() for name, _, path in (f.partition("=") for f in flags)
    ):
        # The kubelet's flag is the operator's fault; a person's own is wrong usage.
        told = bench.explain(root, given["image"], "-n", NAMESPACE, "--pod=web", *flags)
        assert (told.status, told.report) == (2, None) and "no such file" in told.stderr
        assert bench.run_plugin(root, request(given["image"], bench.token), flags).status == 1
        return
    ran, told = bench.compare(root, request(given["image"], bench.token), *flags)
    if expected["error_class"] is not None and "go-laxer" not in case.get("toml", []):
        assert ran.status == 1
    tag, digest = given["tag"], given["digest"]
    typed = given["image"] + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    secrets = write_secrets(bench, root / "secrets.json")
    named = bench.explain(root, typed, "-n", NAMESPACE, "--pod=web", "--secrets", str(secrets), *flags)
    if expected["reference_error"] is not None:
        assert named.status == 2 and "InvalidImageName" in named.stderr
        return
    assert named.report["plugin"] == told.report["plugin"]
    assert named.report["authFile"] == told.report["authFile"]
    if given["image"] == named.report["image"]["repository"]:
        # The record is under the request's own spelling; a kubelet's is normalised.
        assert named.report["answer"] == told.report["answer"]
    if ran.status:
        return
    check_asked(named.report, typed, expected)
    credentials = {source["name"]: source["credential"] for source in told.report["sources"]}
    for source in named.report["sources"]:
        assert source["credential"] == credentials[source["name"]]


def check_asked(report: Case, typed: str, expected: Case) -> None:
    """What CRI-O asks, as its own library said."""
    table = report["registries"]["match"]
    assert (table and table["prefix"]) == (expected["registry"] and expected["registry"]["prefix"])
    if is_short_name(typed):
        return
    asked = [source for source in report["sources"] if source["asked"]]
    if expected["pull_sources_error"] is not None:
        assert asked == [] and report["verdict"]["status"] == "failed"
        return
    fields = ("name", "location", "insecure", "primary", "blocked")
    # A place that is named twice is told once, where it comes first.
    wanted: list[Case] = []
    for source in expected["pull_sources"]:
        if source["name"] not in [known["name"] for known in wanted]:
            wanted.append(source)
    assert [source["name"] for source in asked] == [source["name"] for source in wanted]
    if report["registries"]["match"]:
        for ours, theirs in zip(asked, wanted, strict=True):
            assert {name: ours[name] for name in fields} == {name: theirs[name] for name in fields}


@pytest.mark.parametrize("family", families("registries"))
def test_registries(bench: Bench, family: str, tmp_path: Path) -> None:
    for case in (case for case in cases("registries") if case["family"] == family):
        given, root = case["input"], tmp_path / case["id"].replace("/", "_")
        main, drop_ins = root / "registries.conf", root / "registries.conf.d"
        drop_ins.mkdir(parents=True)
        if given["conf"] is not None:
            main.write_bytes(given["conf"].encode())
        elif "conf_b64" in given:
            main.write_bytes(base64.b64decode(given["conf_b64"]))
        files = {name: text.encode() for name, text in given["dropins"].items()}
        files |= {name: base64.b64decode(text) for name, text in given.get("dropins_b64", {}).items()}
        conformance.write_files(drop_ins, files)
        check_sources(bench, case, root, [f"--registries-conf={main}", f"--registries-conf-dir={drop_ins}"])


@pytest.mark.parametrize("family", families("layers"))
def test_layers(bench: Bench, family: str, tmp_path: Path) -> None:
    for case in (case for case in cases("layers") if case["family"] == family):
        given, root = case["input"], tmp_path / case["id"].replace("/", "_")
        root.mkdir()
        conformance.write_files(root, {name: text.encode() for name, text in given["root"].items()})
        main = [f"--registries-conf={root / given['root_main']}"] if given["root_main"] else []
        with patch.dict(os.environ, HOME="/HOME"):
            check_sources(bench, case, root, main)


# -- auth -------------------------------------------------------------------------------------------------------------


def image_of(given: Case) -> str:
    """A repository for the key that a case looks up: itself, or one below a host."""
    key = str(given.get("key") or given.get("ref"))
    return key if "/" in key.partition("://")[2] or "/" in key else f"{key}/app"


@pytest.mark.parametrize("family", families("auth"))
def test_auth(bench: Bench, family: str, tmp_path: Path) -> None:
    """The case's file as a secret, then as the node's, then as both; the image's own registry counts as a mirror."""
    written = 0
    for case in (case for case in cases("auth") if case["family"] == family):
        given, root = case["input"], tmp_path / case["id"].replace("/", "_")
        root.mkdir()
        (root / "registries.conf").write_text(given["conf"])
        image, content = image_of(given), conformance.auth_file(given) or b""
        message = request(image, bench.token)
        own = [f"--registries-conf={root / 'registries.conf'}", f"--mirror-registry={host_of(image)}"]
        node_file = root / "node.json"
        for secrets, node in (({"a": content}, b"{}"), ({}, content), ({"a": content, "b": content}, content)):
            bench.set_secrets(secrets)
            node_file.write_bytes(node)
            ran, _ = bench.compare(root, message, *own, f"--global-auth-file={node_file}")
            written += len(ran.files)
    assert written


def host_of(image: str) -> str:
    """A registry that --mirror-registry takes, in any case."""
    host = image.partition("/")[0].lower()
    return host if re.fullmatch(r"[a-z0-9][a-z0-9.-]*[a-z0-9](:[0-9]+)?", host) else "mirror.corp"


# -- recordings -------------------------------------------------------------------------------------------------------

MIRROR = '[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "mirror.corp:5000/hub"\n'
RECORDED = ("request-service-account", "request-static-pod", "request-with-annotations")


def claims_of(token: str) -> Any:
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def accept(cluster: ApiServer, token: str) -> str:
    """Makes the cluster the one that a recorded token is of; returns its namespace."""
    claims = claims_of(token)
    bound = claims["kubernetes.io"]
    namespace, account = bound["namespace"], bound["serviceaccount"]
    cluster.add_service_account(namespace, account["name"], ["mirror-creds"])["metadata"]["uid"] = account["uid"]
    cluster.add_pod(namespace, bound["pod"]["name"], "node1", account["name"])
    cluster.pods[namespace, bound["pod"]["name"]]["metadata"]["uid"] = bound["pod"]["uid"]
    cluster._tokens[token] = claims | {"exp": time.time() + 3600}
    for resource in ("secrets", "serviceaccounts"):
        cluster.allow(namespace, account["name"], ("list", "get"), resource)
    return str(namespace)


@pytest.mark.parametrize("mode", ["namespace", "service-account", "pod"])
@pytest.mark.parametrize("name", RECORDED)
def test_recorded_requests(name: str, mode: str, tmp_path: Path) -> None:
    """As they were recorded, against a cluster that knows the token and one that does not; with a credential, without
    one, without a mirror, and with a credential under a key that only nearly fits."""
    message = recorded_request(name)
    token = json.loads(message).get("serviceAccountToken")
    with ApiServer() as cluster:
        bench = Bench(cluster, tmp_path)
        conf = tmp_path / "registries.conf"
        flags = [f"--registries-conf={conf}", f"--secrets-from={mode}"]
        conf.write_text('[[registry]]\nlocation = "quay.io"\n')
        assert bench.compare(tmp_path, message, *flags)[1].status == 0
        conf.write_text(MIRROR)
        assert bench.compare(tmp_path, message, *flags)[1].status == 3
        bench.compare(tmp_path, message, *flags, "--no-pull-record")
        if token is None:
            bench.journal.close()
            return
        namespace = accept(cluster, token)
        identity = cluster.node_identity("node1")
        for file in ("certificate", "key"):
            (tmp_path / file).write_text(getattr(identity, f"{file}_pem"))
        bench.kubeconfig.write_text(
            bench.kubeconfig.read_text().replace("{cluster: c}", "{cluster: c, user: u}")
            + f"users: [{{name: u, user: {{client-certificate: {tmp_path}/certificate, client-key: {tmp_path}/key}}}}]"
        )
        for key, status in (("mirror.corp:5000", 0), ("mirror.corp:5000/hub/lib", 3), ("docker.io", 3)):
            bench.set_secrets({"mirror-creds": {"auths": {key: {"auth": basic("u", "p")}}}}, namespace)
            ran, told = bench.compare(tmp_path, message, *flags)
            assert (ran.status, told.status) == (0, status)
            bench.compare(tmp_path, message, *flags, "--no-pull-record")
            # The secrets themselves, with nobody asked.
            secrets = write_secrets(bench, tmp_path / "secrets.json")
            (tmp_path / "request.json").write_bytes(message)
            offline = bench.explain(
                tmp_path, "--request", str(tmp_path / "request.json"), "--secrets", str(secrets), *flags
            )
            for member in ("verdict", "plugin", "sources", "authFile", "answer"):
                assert offline.report[member] == told.report[member]
        bench.journal.close()


def test_the_comparison_can_fail(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "registries.conf").write_text(MIRROR)
    bench.set_secrets({"a": {"auths": {"mirror.corp:5000": {"auth": basic("u", "p")}}}})
    ran, told = bench.compare(tmp_path, request(NGINX, bench.token), f"--registries-conf={tmp_path}/registries.conf")
    assert list(ran.files) and told.status == 0
    for changed in (
        ran._replace(status=1),
        ran._replace(answer=None),
        ran._replace(files={}),
        ran._replace(files={path: {"auths": {"other": {}}} for path in ran.files}),
        ran._replace(entry=ran.entry | {"CREDENTIALS": "mirror.corp:5000/hub/library/nginx=b"}),
        ran._replace(entry=ran.entry | {"SOURCES": NGINX}),
    ):
        with pytest.raises(AssertionError):
            check(changed, told)
