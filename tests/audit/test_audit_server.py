"""``audit`` asks the API server through the real kubectl: pages, expired lists, refusals, a server that is busy."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import auditing
from auditing import CONF, FAULTS, faulty_cluster, run, secret, write_list
from crio_credential_provider.audit import server
from crio_credential_provider.errors import ClusterError
from crio_credential_provider.testbed.cluster import ApiServer, Exchange
from crio_credential_provider.testbed.faults import first, refuse
from crio_credential_provider.testbed.rbac import Grant
from node import COMMAND, ENVIRONMENT
from real_programs import need

pytestmark = pytest.mark.process


class Site:
    """A cluster with all faults, and a kubeconfig for it."""

    def __init__(self, root: Path, cluster: ApiServer) -> None:
        (self.kubectl,) = need("kubectl")
        self.root, self.cluster = root, cluster
        (root / "registries.conf").write_text(CONF)
        (root / "none").write_text("{}")
        for found in faulty_cluster():
            key = found["metadata"].get("namespace", ""), found["metadata"]["name"]
            if found["kind"] == "Secret":
                cluster.secrets[key] = found
            else:
                cluster.others.append(found)
        self.log_in("admin", "system:masters")

    def log_in(self, user: str, organization: str = "people") -> None:
        identity = self.cluster.authority.issue(user, organization=organization, client=True)
        for name, text in (
            ("c", identity.certificate_pem),
            ("k", identity.key_pem),
            ("a", self.cluster.authority.certificate_pem),
        ):
            (self.root / name).write_text(text)
        (self.root / "kubeconfig").write_text(
            f"apiVersion: v1\nkind: Config\ncurrent-context: x\n"
            f"clusters: [{{name: x, cluster: {{server: '{self.cluster.url}', "
            f"certificate-authority: {self.root}/a}}}}]\n"
            f"users: [{{name: x, user: {{client-certificate: {self.root}/c, client-key: {self.root}/k}}}}]\n"
            "contexts: [{name: x, context: {cluster: x, user: x}}]\n"
        )

    def run(self, *arguments: str) -> auditing.Ran:
        flags = (f"--kubeconfig={self.root}/kubeconfig", f"--registries-conf={self.root}/registries.conf")
        return run(*flags, f"--global-auth-file={self.root}/none", "--output=json", *arguments)

    def paths(self) -> list[str]:
        return [asked.path for asked in self.cluster.requests]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ApiServer() as cluster:
        yield Site(tmp_path, cluster)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_FIRST_PAUSE", 0.01)


EXPECTED = {(name, fault.image): (fault.outcome, fault.reason) for name, fault in FAULTS.items()}


def test_it_finds_the_same_as_in_files(site: Site) -> None:
    ran = site.run()
    assert (ran.status, ran.stderr, ran.found()) == (1, "", EXPECTED)
    files = run(
        write_list(site.root / "all.json", faulty_cluster()),
        f"--registries-conf={site.root}/registries.conf",
        f"--global-auth-file={site.root}/none",
        "--output=json",
    )
    assert ran.report["pulls"] == files.report["pulls"]
    assert {asked.method for asked in site.cluster.requests} == {"GET"}
    assert ran.report["notes"] == []


def test_pages(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_PAGE", 3)
    assert site.run().found() == EXPECTED
    pods = [path for path in site.paths() if path.startswith("/api/v1/pods")]
    assert len(pods) == 6 and all("limit=3" in path for path in pods)


def test_a_list_that_expires_is_begun_again_and_nothing_counted_twice(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_PAGE", 3)
    whole = site.run().report
    expired: list[str] = []

    def expire(exchange: Exchange) -> bool:
        if (
            "continue" in exchange.request.path
            and exchange.request.path.startswith("/api/v1/pods")
            and len(expired) < 2
        ):
            expired.append(exchange.request.path)
            return refuse(410)(exchange)
        return False

    site.cluster.fault = expire
    assert site.run().report == whole
    assert len(expired) == 2


def test_a_list_that_always_expires_ends_the_audit(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_PAGE", 3)
    site.cluster.oldest = site.cluster.revision + 1
    ran = site.run()
    assert (ran.status, ran.stdout) == (2, "") and "answered 410" in ran.stderr


def test_refused_in_some_namespaces_is_told_and_not_fatal(site: Site) -> None:
    allowed = ("works", "no-secret")
    site.log_in("auditor")
    resources = ("secrets", "pods", "serviceaccounts")
    site.cluster.grants += [
        Grant("auditor", namespace, frozenset(["list"]), resource, None, "r")
        for namespace in allowed
        for resource in resources
    ]
    site.cluster.grants += [Grant("auditor", "wrong-key", frozenset(["list"]), "pods", None, "r")]
    site.cluster.grants += [Grant("auditor", None, frozenset(["list"]), "namespaces", None, "r")]
    ran = site.run()
    image = auditing.IMAGE
    # What nobody could read is not guessed.
    assert ran.found() == {
        ("works", image): ("works", None),
        ("no-secret", image): ("fails", "no-secret"),
        ("wrong-key", image): ("not-checked", "not-read"),
    }
    assert ran.status == 1
    assert {code for pull in ran.report["pulls"] for code in pull["unchecked"]} == {"roles-not-read"}
    notes = "\n".join(ran.report["notes"])
    assert (
        "pods may not be listed in namespace alias, anonymous, blocked, invalid-image, invalid-location and 10 more"
        in notes
    )
    assert "clusterroles may not be listed" in notes and "for 3 pulls, roles were not read" in notes


@pytest.mark.parametrize("in_pod", [False, True])
def test_an_object_that_is_nested_deeply(site: Site, monkeypatch: pytest.MonkeyPatch, in_pod: bool) -> None:
    """Whoever may create a pod may nest its managedFields 10,000 levels deep."""

    def nest(exchange: Exchange) -> bool:
        if exchange.request.path.startswith("/api/v1/namespaces/works/pods"):
            body, deep = exchange.answer.body, b'"x":' + b'{"x":' * 9_950 + b'"]}"' + b"}" * 9_950
            exchange.answer.body = body.replace(b'"spec":', deep + b',"spec":')
            nested.append(exchange.answer.body != body)
        return False

    nested: list[bool] = []
    site.cluster.fault = nest
    if in_pod:
        go_into_pod(site, monkeypatch)
        flags = (f"--registries-conf={site.root}/registries.conf", f"--global-auth-file={site.root}/none")
        ran = run(*flags, "--output=json", "-n", "works")
    else:
        ran = site.run("-n", "works")
    assert any(nested)
    assert (ran.status, ran.stderr, ran.found()) == (0, "", {("works", auditing.IMAGE): ("works", None)})


def test_nothing_may_be_read(site: Site) -> None:
    site.log_in("nobody")
    ran = site.run()
    assert (ran.status, ran.stdout) == (2, "")
    assert "none of the cluster's objects may be listed; --print-rbac prints the ClusterRole" in ran.stderr


def test_secrets_alone_may_be_read(site: Site) -> None:
    site.log_in("auditor")
    site.cluster.grants += [Grant("auditor", None, frozenset(["list"]), "secrets", None, "r")]
    ran = site.run("-n", "works")
    assert (ran.status, ran.stdout) == (2, "")
    assert "no pod or workload in namespace works" in ran.stderr and "pods may not be listed" in ran.stderr


def test_workloads_that_may_not_be_listed_shut_the_gate(site: Site) -> None:
    site.log_in("auditor")
    site.cluster.grants += [
        Grant("auditor", None, frozenset(["list"]), resource, None, "r")
        for resource in (
            "secrets",
            "serviceaccounts",
            "pods",
            "roles",
            "rolebindings",
            "clusterroles",
            "clusterrolebindings",
        )
    ]
    flags = ("-n", "works")
    assert (site.run(*flags).status, site.run(*flags, "--fail-on=not-checked").status) == (0, 1)


def test_chosen_namespaces_alone_are_asked_for(site: Site) -> None:
    ran = site.run("-n", "works", "-n", "no-role")
    assert ran.found() == {key: EXPECTED[key] for key in EXPECTED if key[0] in ("works", "no-role")}
    assert not [path for path in site.paths() if path.startswith(("/api/v1/pods", "/api/v1/secrets"))]
    assert any(path.startswith("/api/v1/namespaces/works/secrets") for path in site.paths())


def test_deployment_configs_where_there_are_any(site: Site) -> None:
    """OpenShift's; other clusters forbid most users to list what they do not have."""
    assert site.run("-n", "works").report["notes"] == []
    assert not any("deploymentconfigs" in path for path in site.paths())
    made = auditing.workload("DeploymentConfig", "works", "old", "docker.io/x/old:1")
    site.cluster.others.append({"apiVersion": "apps.openshift.io/v1", **made})
    assert ("works", "docker.io/x/old:1") in site.run("-n", "works").found()


def test_a_server_of_another_kind(site: Site) -> None:
    """That has nothing where each cluster has its pods."""
    site.cluster.fault = lambda exchange: "/api/v1/" in exchange.request.path and refuse(404)(exchange)
    ran = site.run()
    assert (ran.status, ran.stdout) == (2, "") and "answered 404" in ran.stderr


def test_names_that_are_not_unicode(site: Site) -> None:
    """No API server has them: one that lies does not end the audit with an internal error."""

    def lie(exchange: Exchange) -> bool:
        if exchange.request.path.startswith("/api/v1/namespaces/works/pods?"):
            if not lied:
                body = exchange.answer.body.replace(b'"metadata":{', b'"metadata":{"continue":"\\ud800",', 1)
                exchange.answer.body = body.replace(b'"name":"p"', b'"name":"\\ud800"')
            else:
                exchange.answer.status, exchange.answer.body = 200, b'{"items":[]}'
            lied.append(exchange.answer.body)
        return False

    lied: list[bytes] = []
    site.cluster.fault = lie
    ran = site.run("-n", "works")
    assert (ran.status, ran.stderr, ran.found()) == (0, "", {("works", auditing.IMAGE): ("works", None)})
    assert len(lied) == 2 and lied[0].count(b"ud800") == 2


def test_one_namespace_does_not_tell_what_others_have(site: Site) -> None:
    """There nobody else's secrets are read, and a namespace without any would look as if none were required."""
    ran = site.run("-n", "no-secret")
    assert ran.found() == {("no-secret", auditing.IMAGE): ("anonymous", "no-secret")}
    [note] = ran.report["notes"]
    assert note.startswith("anonymous pulls may fail: whether another namespace has a credential for their mirrors")
    assert site.run("-n", "works").report["notes"] == []


def test_a_busy_server_is_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = first(2, refuse(429, retry_after=7))
    site.cluster.fault = lambda exchange: "/secrets" in exchange.request.path and busy(exchange)
    paused: list[float] = []
    wait = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: paused.append(seconds) if seconds > 1 else wait(seconds))
    assert site.run("-n", "works").status == 0
    assert paused == [7, 7]


def test_it_does_not_wait_for_ever(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_LONGEST_PAUSE", 0.02)
    busy = refuse(503, retry_after=3600)
    # kubectl asks for the version when it starts, and waits by itself.
    site.cluster.fault = lambda exchange: not exchange.request.path.startswith("/version") and busy(exchange)
    ran = site.run()
    assert (ran.status, ran.stdout) == (2, "") and "answered 503" in ran.stderr
    assert len([path for path in site.paths() if not path.startswith("/version")]) == server._RETRIES + 1


def test_kubectl_takes_get_alone_and_ends_with_us(site: Site) -> None:
    with server.kubectl(f"{site.root}/kubeconfig", "") as api:
        assert api.get("/api/v1/nodes?limit=1")["kind"] == "NodeList"
        connection = api._connection
        for method in ("POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "GETS", "CONNECT"):
            before = len(site.cluster.requests)
            connection.request(method, "/api/v1/namespaces/works/secrets/s")
            answer = connection.getresponse()
            answer.read()
            assert (answer.status, len(site.cluster.requests)) == (403, before), method
        directory = os.path.dirname(connection._path)
        assert os.stat(directory).st_mode & 0o077 == 0
    assert not os.path.exists(directory)
    assert not _proxies(directory)


def _proxies(directory: str) -> list[str]:
    found = subprocess.run(["pgrep", "-f", f"unix-socket={directory}"], capture_output=True, text=True, check=False)
    return found.stdout.split()


def stalling(stalled: list[bool]) -> Callable[[Exchange], bool]:
    """A server that takes questions, and does not answer."""

    def stall(exchange: Exchange) -> bool:
        stalled.append(True)
        exchange.connection.wait(30)
        return False

    return stall


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_signal_ends_kubectl_as_well(site: Site, tmp_path: Path, number: int) -> None:
    temporary = tmp_path / "t"
    temporary.mkdir()
    stalled: list[bool] = []
    site.cluster.fault = stalling(stalled)
    environment = {**ENVIRONMENT, "TMPDIR": str(temporary), "PATH": os.environ["PATH"]}
    files = f"--kubeconfig={site.root}/kubeconfig", f"--registries-conf={site.root}/registries.conf"
    # In the background a shell has it ignored.
    command = ["env", "--default-signal", *COMMAND, "audit", *files]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    while not stalled:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(20) == 128 + number
    assert process.stderr is not None
    process.stderr.close()
    assert not list(temporary.iterdir()) and not _proxies(str(temporary))


def test_kubectl_ends_even_if_we_are_killed(site: Site, tmp_path: Path) -> None:
    temporary = tmp_path / "t"
    temporary.mkdir()
    stalled: list[bool] = []
    site.cluster.fault = stalling(stalled)
    environment = {**ENVIRONMENT, "TMPDIR": str(temporary), "PATH": os.environ["PATH"]}
    files = f"--kubeconfig={site.root}/kubeconfig", f"--registries-conf={site.root}/registries.conf"
    process = subprocess.Popen([*COMMAND, "audit", *files], env=environment)
    while not stalled:
        assert process.poll() is None
        time.sleep(0.02)
    assert len(_proxies(str(temporary))) == 1
    process.kill()
    process.wait(20)
    deadline = time.monotonic() + 10
    while list(temporary.iterdir()) or _proxies(str(temporary)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_where_there_is_no_shell_kubectl_runs_all_the_same(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    (site.root / "bin").mkdir()
    (site.root / "bin/kubectl").symlink_to(site.kubectl)
    monkeypatch.setenv("PATH", f"{site.root}/bin")
    assert site.run("-n", "works").status == 0


def test_another_signal_while_kubectl_ends(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    wait = subprocess.Popen.wait

    def interrupted(process: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        if timeout is not None:
            raise KeyboardInterrupt
        return wait(process)

    monkeypatch.setattr(subprocess.Popen, "terminate", lambda process: None)
    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt), server.kubectl(f"{site.root}/kubeconfig", "") as api:
        directory = os.path.dirname(api._connection._path)
    monkeypatch.undo()
    assert not os.path.exists(directory) and not _proxies(directory)


def test_a_server_that_nobody_reaches(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    file = site.root / "kubeconfig"
    file.write_text(file.read_text().replace(site.cluster.url, "https://127.0.0.1:1"))
    ran = site.run()
    assert (ran.status, ran.stdout) == (2, "")
    assert (
        "cannot reach the API server: dial tcp 127.0.0.1:1: connect: connection refused; check the kube" in ran.stderr
    )
    assert capfd.readouterr().err.count("refused") == 0


def test_kubectl_that_is_killed(site: Site) -> None:
    with server.kubectl(f"{site.root}/kubeconfig", "") as api:
        (number,) = _proxies(os.path.dirname(api._connection._path))
        os.kill(int(number), signal.SIGKILL)
        with pytest.raises(ClusterError, match="kubectl proxy ended with signal 9"):
            api.get("/api/v1/nodes")


def test_a_server_that_does_not_answer_is_asked_once(
    site: Site, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def stall(exchange: Exchange) -> bool:
        asked.append(exchange.request.path)
        exchange.connection.wait(30)
        return False

    with server.kubectl(f"{site.root}/kubeconfig", "") as api:
        monkeypatch.setattr(server, "_SECONDS", 0.5)
        monkeypatch.setattr(server, "_PATIENCE", 0.1)
        site.cluster.fault = stall
        with pytest.raises(ClusterError, match=r"did not answer within 0\.5 s; try: kubectl version"):
            api.get("/api/v1/nodes")
    assert asked == ["/api/v1/nodes"]
    assert capfd.readouterr().err == "waiting for the API server\n"


@pytest.mark.parametrize(
    ("script", "says", "heard"),
    [
        (
            "echo 'sign in' >&2; exec sleep 60",
            "kubectl proxy did not start within 0.5 s; try: kubectl version",
            "sign in\n",
        ),
        ("echo 'E1129 x' >&2; exec sleep 60", "kubectl proxy did not start within 0.5 s; try: kubectl version", ""),
        ("echo 'E1129 x' >&2; exit 4", "kubectl proxy ended with status 4; see its message above", "E1129 x\n"),
    ],
)
def test_what_kubectl_says(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    script: str,
    says: str,
    heard: str,
) -> None:
    program = tmp_path / "kubectl"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(server, "_SECONDS", 0.5)
    with pytest.raises(ClusterError) as failed, server.kubectl("", ""):
        pass
    assert (str(failed.value), capfd.readouterr().err) == (says, heard)


def test_a_kubeconfig_that_is_not_there(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nope:/nope2")
    ran = run(f"--registries-conf={site.root}/registries.conf")
    assert (ran.status, ran.stdout) == (2, "") and "KUBECONFIG: /nope:/nope2: no such file" in ran.stderr
    monkeypatch.setenv("KUBECONFIG", f"/nope:{site.root}/kubeconfig")
    assert run(f"--registries-conf={site.root}/registries.conf").status == 1


def test_a_kubeconfig_that_kubectl_refuses(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    ran = site.run("--context=other")
    assert (ran.status, ran.stdout) == (2, "")
    assert "kubectl proxy ended with status 1; see its message above" in ran.stderr
    assert "other" in capfd.readouterr().err


def test_in_a_pod(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the token of its service account, and without kubectl."""
    token = go_into_pod(site, monkeypatch)
    flags = (f"--registries-conf={site.root}/registries.conf", f"--global-auth-file={site.root}/none")
    ran = run(*flags, "-n", "works", "--output=json")
    assert ran.found() == {("works", auditing.IMAGE): ("works", None)}
    assert {asked.user for asked in site.cluster.requests} == {"system:serviceaccount:audit:auditor"}
    assert token not in ran.stdout + ran.stderr


def go_into_pod(site: Site, monkeypatch: pytest.MonkeyPatch) -> str:
    """A token of a service account that may list what is of the core."""
    site.cluster.add_service_account("audit", "auditor")
    token: str = site.cluster.mint_token("audit", "auditor")
    for wanted in (*server._LISTS, server._NAMESPACES):
        grant = Grant("system:serviceaccount:audit:auditor", None, frozenset(["list"]), wanted.resource, None, "r")
        if wanted.group == "/api/v1":
            site.cluster.grants.append(grant)
    (site.root / "token").write_text(token + "\n")
    (site.root / "ca.crt").write_text(site.cluster.authority.certificate_pem)
    monkeypatch.setattr(server, "_POD", str(site.root))
    monkeypatch.setenv("PATH", str(site.root))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(site.cluster.port))
    return token


@pytest.mark.parametrize("what", ["late", "large"])
def test_in_a_pod_no_flag_of_the_plugin_is_named(site: Site, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    go_into_pod(site, monkeypatch)
    if what == "late":
        site.cluster.fault = stalling([])
        monkeypatch.setattr(server, "_SECONDS", 0.3)
    else:
        monkeypatch.setattr(server, "_MAX_ANSWER", 16)
    ran = run(f"--registries-conf={site.root}/registries.conf", f"--global-auth-file={site.root}/none")
    assert ran.status == 2 and ("did not answer within" if what == "late" else "an answer larger than") in ran.stderr
    assert "--deadline" not in ran.stderr and "--max-answer-size" not in ran.stderr


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("HOST", "", "KUBERNETES_SERVICE_HOST is not set; set it, or give --kubeconfig"),
        ("PORT", "tcp://a", "KUBERNETES_SERVICE_PORT is not a number; set it, or give --kubeconfig"),
        ("ca.crt", "", "no PEM certificate in it; give --kubeconfig"),
    ],
)
def test_in_a_pod_that_lacks_something(
    site: Site, monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    go_into_pod(site, monkeypatch)
    if name == "ca.crt":
        (site.root / name).write_text(value)
    else:
        monkeypatch.setenv(f"KUBERNETES_SERVICE_{name}", value)
    ran = run(f"--registries-conf={site.root}/registries.conf", f"--global-auth-file={site.root}/none")
    assert (ran.status, ran.stdout) == (2, "") and ran.stderr.endswith(f"{says}\n")


# -- OpenShift --------------------------------------------------------------------------------------------------------


def openshift(site: Site, *refused: str) -> auditing.Ran:
    """An audit of a cluster with a MachineConfigPool and mirror sets, by who may not list some resources."""
    mirrors = [{"source": "docker.io", "mirrors": [f"{auditing.MIRROR}/hub"]}]
    file = {"path": "/etc/containers/registries.conf", "contents": {"source": "data:,"}}
    config = {"config": {"storage": {"files": [file]}}}
    added = [
        ("MachineConfigPool", "worker", {"nodeSelector": {}}),
        ("MachineConfig", "rendered-worker-1", config),
        ("ImageDigestMirrorSet", "corp", {}),
        ("ImageTagMirrorSet", "corp", {"imageTagMirrors": mirrors}),
        ("Image", "cluster", {}),
    ]
    for kind, name, spec in added:
        status = {"configuration": {"name": "rendered-worker-1"}}
        metadata = {"name": name}
        site.cluster.others.append({"kind": kind, "metadata": metadata, "spec": spec, "status": status})
    site.log_in("alice")
    lists = (*server._LISTS, server._NAMESPACES, *server._MACHINE_CONFIGS, *server._MIRROR_SETS)
    for wanted in lists:
        if wanted.resource not in refused:
            group = wanted.group.removeprefix("/apis/").rpartition("/")[0].replace("/api", "")
            site.cluster.grants.append(Grant("alice", None, frozenset(["list"]), wanted.resource, None, "r", group))
    flags = f"--kubeconfig={site.root}/kubeconfig", f"--global-auth-file={site.root}/none", "-n", "works"
    return run(*flags, "--machine-configs", "--output=json")


def test_rendered_machine_configs_are_read_first(site: Site) -> None:
    ran = openshift(site, "imagetagmirrorsets")
    assert {(pull["nodeClass"], pull["outcome"]) for pull in ran.report["pulls"]} == {("worker", "no-mirror")}
    [note] = ran.report["notes"]
    assert note.startswith("no pull asks a mirror") and not any("mirrorsets" in path for path in site.paths())


def test_mirror_sets_where_machine_configs_may_not_be_read(site: Site) -> None:
    ran = openshift(site, "machineconfigpools", "machineconfigs", "imagedigestmirrorsets", "clusterversions")
    assert {(pull["nodeClass"], pull["outcome"]) for pull in ran.report["pulls"]} == {("", "works")}
    refused = "may not be listed; --print-rbac prints the ClusterRole"
    made = "as the Machine Config Operator makes it (a node may not have it yet)"
    assert ran.report["notes"] == [
        *(f"{name} {refused}" for name in ("machineconfigpools", "machineconfigs")),
        *(f"{name} {refused}" for name in ("imagedigestmirrorsets", "clusterversions")),
        f"registries.conf is that of ImageTagMirrorSet corp, Image cluster, {made}",
    ]


@pytest.mark.parametrize(
    ("refused", "status"), [("imagedigestmirrorsets", 1), ("images", 1), ("machineconfigpools", 0)]
)
def test_mirror_sets_that_may_not_be_listed_shut_the_gate(site: Site, refused: str, status: int) -> None:
    """What they would add is missing; the MachineConfigs are not missed where the sets are there."""
    openshift(site, "machineconfigs", refused)
    flags = f"--kubeconfig={site.root}/kubeconfig", f"--global-auth-file={site.root}/none", "-n", "works"
    assert run(*flags, "--machine-configs").status == 0
    assert run(*flags, "--machine-configs", "--fail-on=not-checked").status == status


@pytest.mark.parametrize("number", [3, 5])
def test_where_no_mirror_set_may_be_read_nothing_is_guessed(site: Site, number: int) -> None:
    ran = openshift(site, "machineconfigs", *(wanted.resource for wanted in server._MIRROR_SETS[:number]))
    assert (ran.status, ran.stdout) == (2, "")
    assert "neither the MachineConfigs nor the mirror sets may be listed; --print-rbac" in ran.stderr


def test_without_kubectl(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(site.root))
    ran = site.run()
    assert ran.status == 2 and "kubectl was not found in PATH" in ran.stderr


def test_the_cluster_role_is_enough(site: Site) -> None:
    """What it prints, granted, reads everything; each verb of it is list."""
    import yaml

    ran = run("--print-rbac")
    role = yaml.safe_load(ran.stdout)
    assert (ran.status, role["kind"]) == (0, "ClusterRole")
    whole = yaml.safe_load(run("--print-rbac", "--machine-configs").stdout)
    openshift = (*server._MACHINE_CONFIGS, *server._MIRROR_SETS)
    for printed, lists in ((role, ()), (whole, openshift)):
        granted = {
            (group, resource)
            for rule in printed["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
        }
        asked = {
            (wanted.group.removeprefix("/apis/").rpartition("/")[0].replace("/api", ""), wanted.resource)
            for wanted in (*server._LISTS, server._NAMESPACES, *lists)
        }
        assert granted == asked
        assert all(rule["verbs"] == ["list"] for rule in printed["rules"])


def test_no_secret_of_a_refusal_is_told(site: Site) -> None:
    """A server that quotes what it holds is not quoted at length, and never into a report."""
    site.cluster.secrets["works", "more"] = secret("works", "more", f'{{"auths": "{auditing.PASSWORD}"'.encode())
    ran = site.run()
    assert json.loads(ran.stdout)["summary"]["works"]["pulls"] == 2
