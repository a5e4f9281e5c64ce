"""The Helm chart: what it renders, whom it lets do what, and that its pods need no more.

Helm itself is that of the package helm-python-sdk, which has no cluster. The pods' program is the executable, which
gets a simulated API server that knows one DaemonSet, its Lease and the nodes, and holds each request against the
chart's RBAC.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from commandline import Done, typed
from crio_credential_provider import __version__
from crio_credential_provider.fleet import cluster, state
from crio_credential_provider.testbed.certificates import Authority, server_context
from crio_credential_provider.testbed.loopback import Answer, Connection, LoopbackServer, Request
from executables import NATIVE, command
from make_chart import make_chart
from node import TESTS
from real_programs import cannot
from rollout_node import Rollout, free_port, running, snapshot

ROOT = TESTS.parent
CHART = ROOT / "packaging/helm/crio-credential-provider"
VERSIONS = ("1.33", "1.34", "1.35", "1.36")
RELEASE, NAMESPACE = "mirror", "kube-system"
AUDIENCE = "https://kubernetes.default.svc.cluster.local"

Object = dict[str, Any]


def rendered(values: Object | None = None) -> list[Object]:
    """The objects of a release."""
    with helm_python.Chart.load(CHART) as chart:
        files = chart.render(values or {}, name=RELEASE, namespace=NAMESPACE)
    texts = (text for path, text in files.items() if path.endswith(".yaml"))
    return [one for text in texts for one in yaml.safe_load_all(text) if one]


def notes(values: Object | None = None) -> str:
    with helm_python.Chart.load(CHART) as chart:
        return next(
            text
            for path, text in chart.render(values or {}, name=RELEASE, namespace=NAMESPACE).items()
            if path.endswith("NOTES.txt")
        )


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [one for one in objects if one["kind"] == kind]


def container(values: Object | None = None) -> Object:
    [daemonset] = of_kind(rendered(values), "DaemonSet")
    [found] = daemonset["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


TENANTS = [{"namespace": "team-alpha"}, {"namespace": "team-beta", "serviceAccounts": ["web", "default"]}]
NAMED = [
    {"namespace": "team-alpha", "pullSecrets": ["one"]},
    {"namespace": "team-beta", "serviceAccounts": ["web"], "pullSecrets": ["one", "two.x"]},
]
VALUES: dict[str, Object] = {
    "default": {},
    "tenants": {"tenants": TENANTS},
    "named secrets": {"secretsFrom": "service-account", "tenants": NAMED},
    "uninstall": {"action": "uninstall", "maxUnavailable": "10%", "nodeRBAC": False, "nodePolicy": False},
    "everything": {
        "image": {"repository": "localhost:5000/a/b", "tag": f"1@sha256:{'0' * 64}", "pullSecrets": ["regcred"]},
        "audience": "https://api.example/{{.x}}",
        "secretsFrom": "pod",
        "runtime": "containerd",
        "matchImages": ["docker.io", "*.corp.example"],
        "mirrorRegistries": ["mirror.corp.example:5000/hub"],
        "pluginArgs": ["--log-level=debug"],
        "extraArgs": ["--bin-dir=/opt/bin"],
        "maxUnavailable": 3,
        "restart": False,
        "timeout": "5m",
        "nodeSelector": {"node-role.kubernetes.io/worker": "", "n": "1"},
        "tolerations": [{"key": "a", "operator": "Equal", "value": "b", "effect": "NoSchedule"}],
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", VALUES)
def test_the_objects_are_what_the_api_server_takes(name: str) -> None:
    objects = rendered(VALUES[name])
    for one in objects:
        for version in VERSIONS:
            kubernetes_validate.validate(one, version, strict=True)
    names = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in objects]
    assert len({*names}) == len(names) >= 8
    bound = {(kind, namespace, name) for kind, namespace, name in names if kind in ("Role", "ClusterRole")}
    for one in objects:
        if one["kind"].endswith("Binding") and "roleRef" in one:
            assert (one["roleRef"]["kind"], one["metadata"].get("namespace"), one["roleRef"]["name"]) in bound


@pytest.mark.slow
def test_the_schemas_refuse_what_is_wrong() -> None:
    [daemonset] = of_kind(rendered(), "DaemonSet")
    daemonset["spec"]["template"]["spec"]["tolerationz"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(daemonset, VERSIONS[0], strict=True)


def test_helm_has_nothing_to_say_of_it() -> None:
    report = helm_python.lint(CHART, {"tenants": TENANTS}, strict=True)
    assert [one["error"] for one in report["messages"]] == ["icon is recommended"] and not report["errors"]
    with helm_python.Chart.load(CHART) as chart:
        assert (chart.version, chart.metadata["appVersion"]) == (__version__, __version__)


def test_every_value_is_in_the_schema_and_the_other_way_round() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert {*schema["properties"]} - {"global"} == {*values}
    assert {*schema["properties"]["image"]["properties"]} == {*values["image"]}


@pytest.mark.parametrize(
    "values",
    [
        {"mirrors": ["x"]},
        {"image": {"repository": "x", "digest": "y"}},
        {"image": {"repository": "UPPER CASE"}},
        {"image": {"tag": "a:b"}},
        {"action": "rollback"},
        {"audience": ""},
        {"audience": "a b"},
        {"secretsFrom": "secret"},
        {"runtime": "auto"},
        {"matchImages": "docker.io"},
        {"matchImages": ["docker.io quay.io"]},
        {"pluginArgs": ["log-level=debug"]},
        {"maxUnavailable": 0},
        {"maxUnavailable": "0%"},
        {"maxUnavailable": "101%"},
        {"maxUnavailable": "one"},
        {"restart": "no"},
        {"timeout": 120},
        {"timeout": "1h"},
        {"timeout": "0s"},
        {"timeout": "61m"},
        {"nodeSelector": {"a": True}},
        {"tolerations": [{"operater": "Exists"}]},
        {"tenants": ["team-alpha"]},
        {"tenants": [{"namespace": "Team"}]},
        {"tenants": [{"namespace": "team-alpha", "secrets": []}]},
        {"tenantSelector": {"team": "alpha"}},
        {"tenantSelector": {"matchLabels": {"mirror": True}}},
        # What only the templates know.
        {"tenants": NAMED},
        {"tenants": TENANTS, "secretsFrom": "service-account"},
        {"tenants": TENANTS, "secretsFrom": "pod"},
    ],
    ids=json.dumps,
)
def test_wrong_values_are_refused(values: Object) -> None:
    with pytest.raises((helm_python.HelmValuesError, helm_python.HelmRenderError)):
        rendered(values)


@pytest.mark.process
def test_the_arguments_are_those_that_the_program_takes() -> None:
    """The program as a process refuses what it does not know, and so does its own check of values."""
    for name, values in VALUES.items():
        verb, *words = container(values)["args"]
        words = [word.replace("$(NODE_NAME)", "n") for word in words if not word.startswith("--host")]
        done = typed(verb, *words, "--host=/nonexistent")
        assert done == Done(2, "", f"crio-credential-provider {verb}: --host: /nonexistent: no such directory\n"), name
    words = container(VALUES["everything"])["args"]
    assert words[words.index("--timeout=5m") + 1 :] == [
        "--no-restart",
        "--audience=https://api.example/{{.x}}",
        "--secrets-from=pod",
        "--runtime=containerd",
        "--match-image=docker.io",
        "--match-image=*.corp.example",
        "--mirror-registry=mirror.corp.example:5000/hub",
        "--plugin-arg=--log-level=debug",
        "--bin-dir=/opt/bin",
    ]
    assert container(VALUES["everything"])["image"] == f"localhost:5000/a/b:1@sha256:{'0' * 64}"
    assert container()["image"].endswith(f":{__version__}")


@pytest.mark.parametrize(
    ("timeout", "seconds"), [("120s", 300), ("5m", 480), ("1m30s", 270), ("08s", 188), ("60m", 3780)]
)
def test_a_pod_has_the_time_to_put_everything_back(timeout: str, seconds: int) -> None:
    [daemonset] = of_kind(rendered({"timeout": timeout}), "DaemonSet")
    assert daemonset["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == seconds


def test_a_selector_of_tenants_takes_a_cluster() -> None:
    values = {"tenantSelector": {"matchLabels": {"mirror": "yes"}}}
    assert bare(rendered(values)) == bare(rendered())
    assert "labelled later" in notes(values) and "labelled later" not in notes()
    # As with values of a release before it was there.
    assert bare(rendered({"tenantSelector": None})) == bare(rendered())
    assert "Roles for pull secrets are in: team-alpha team-beta\n" in notes({"tenants": TENANTS})


def test_it_is_packed_as_helm_reads_it(tmp_path: Path) -> None:
    packed = make_chart(tmp_path, 1)
    assert packed.name == f"crio-credential-provider-{__version__}.tgz"
    with helm_python.Chart.load(packed) as chart:
        assert chart.render({}, name=RELEASE, namespace=NAMESPACE)
        assert [file["name"] for file in chart.files] == ["README.md"]
        assert chart.schema == json.loads((CHART / "values.schema.json").read_text())
        files = chart.templates
    with helm_python.Chart.load(CHART) as chart:
        assert files == chart.templates
    (tmp_path / "again").mkdir()
    assert make_chart(tmp_path / "again", 1).read_bytes() == packed.read_bytes()


def test_what_is_true_of_a_rollout() -> None:
    for values, limit in (({}, 1), ({"maxUnavailable": "10%"}, "10%")):
        [daemonset] = of_kind(rendered(values), "DaemonSet")
        assert daemonset["spec"]["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": limit}
    probe = container()["readinessProbe"]
    # Ready for a while after a kubelet's restart, until the first probe.
    assert of_kind(rendered(), "DaemonSet")[0]["spec"]["minReadySeconds"] > probe["periodSeconds"]
    assert probe["exec"]["command"] == ["/crio-credential-provider", "status", "--ready"]
    # The file that it looks at.
    mounts = {mount["name"]: mount["mountPath"] for mount in container()["volumeMounts"]}
    assert mounts["state"] == os.path.dirname(state.STATE_FILE)
    columns = [cluster.STATE, cluster.VERSION, cluster.REASON]
    assert re.findall(r"\.metadata\.annotations\.([\w/-]+)", notes()) == columns
    assert "--set action=uninstall" in notes() and "helm -n kube-system uninstall" in notes({"action": "uninstall"})


# -- RBAC -------------------------------------------------------------------------------------------------------------


def bare(objects: list[Object]) -> list[Object]:
    """Without what Helm needs."""
    for one in objects:
        one["metadata"] = {key: one["metadata"][key] for key in ("name", "namespace") if key in one["metadata"]}
    return sorted(objects, key=lambda one: json.dumps([one["metadata"], one["kind"]]))


@pytest.mark.process
@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, ""),
        ({"audience": "https://other"}, "--audience=https://other"),
        ({"tenants": TENANTS[:1]}, "-n team-alpha"),
        ({"tenants": TENANTS[1:]}, "-n team-beta --service-account web --service-account default"),
        (
            {"secretsFrom": "service-account", "tenants": NAMED[:1]},
            "-n team-alpha --secrets-from service-account --pull-secret one",
        ),
        (
            {"secretsFrom": "service-account", "tenants": NAMED[1:]},
            "-n team-beta --secrets-from service-account --service-account web --pull-secret one --pull-secret two.x",
        ),
    ],
)
def test_rbac_of_nodes_and_tenants_is_that_of_manifests(values: Object, words: str) -> None:
    report = typed("manifests", "rbac", *words.split(), "--output=json").report
    # Helm takes no service account that is there already, as "default" is in each namespace.
    expected = [one for one in report["items"] if one["kind"] != "ServiceAccount"]
    kinds = ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
    own = [f"{RELEASE}-rollout", RELEASE]
    found = [one for one in rendered(values) if one["kind"] in kinds and one["metadata"]["name"] not in own]
    assert bare(found) == bare(expected)


def test_rbac_of_nodes_outlives_the_release_while_nodes_need_it() -> None:
    for action, kept in (("install", True), ("uninstall", False)):
        nodes = [one for one in rendered({"action": action}) if one["metadata"]["name"].endswith("-nodes")]
        policies = {one["metadata"].get("annotations", {}).get("helm.sh/resource-policy") for one in nodes}
        assert (len(nodes), policies) == (2, {"keep" if kept else None})


# -- the pods ---------------------------------------------------------------------------------------------------------


class Fleet:
    """The API server: one DaemonSet, its Lease and nodes; for the service account of the chart alone.

    Attributes:
        annotations: by node; ``states`` is every state that a node has told, in order.
        holder: of the Lease.
        used: the rights that were used: (group, resource, verb).
        down: whether it answers 503.
    """

    TOKEN = "token-of-the-pod"

    def __init__(self, nodes: int = 3, limit: int | str = 1) -> None:
        self.annotations: dict[str, dict[str, str]] = {}
        self.states: dict[str, list[str]] = {}
        self.holder: str | None = None
        self.revision = 7
        self.used: set[tuple[str, str, str]] = set()
        self.down = False
        self.daemonset: Object = {
            "metadata": {"generation": 2},
            "spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": limit}}},
            "status": {
                "desiredNumberScheduled": nodes,
                "numberAvailable": 0,
                "updatedNumberScheduled": nodes,
                "observedGeneration": 2,
            },
        }
        roles = [one for one in rendered() if one["kind"] in ("Role", "ClusterRole")]
        roles = [one for one in roles if one["metadata"]["name"] in (RELEASE, f"{RELEASE}-rollout")]
        self.granted = {
            (rule["apiGroups"][0], rule["resources"][0], verb): rule.get("resourceNames")
            for role in roles
            for rule in role["rules"]
            for verb in rule["verbs"]
        }

    def respond(self, request: Request, connection: Connection) -> None:
        status, body = (503, {}) if self.down else self._answer(request)
        connection.send(Answer(status, [("Content-Type", "application/json")], json.dumps(body).encode()).dumps())

    def _answer(self, request: Request) -> tuple[int, Object]:
        assert request.header("Authorization") == f"Bearer {self.TOKEN}"
        matched = re.fullmatch(
            r"/(?:api/v1|apis/([a-z0-9.]+)/v1)(?:/namespaces/([^/]+))?/([a-z]+)/([^/]+)", request.path
        )
        assert matched, request.path
        group, _, resource, name = matched.groups()
        right = (group or "", resource, {"GET": "get", "PATCH": "patch"}[request.method])
        assert right in self.granted and name in (self.granted[right] or [name]), (right, name)
        self.used.add(right)
        if request.method == "GET":
            lease = {"metadata": {"resourceVersion": str(self.revision)}, "spec": {"holderIdentity": self.holder}}
            return 200, self.daemonset if resource == "daemonsets" else lease
        assert request.header("Content-Type") == "application/merge-patch+json"
        patch = json.loads(request.body)
        if resource == "leases":
            if patch["metadata"]["resourceVersion"] != str(self.revision):
                return 409, {"kind": "Status", "message": "the object has been modified"}
            self.holder, self.revision = patch["spec"]["holderIdentity"], self.revision + 1
            return 200, patch
        [given] = patch["metadata"].values()
        kept = {**self.annotations.get(name, {}), **given}
        self.annotations[name] = {key: value for key, value in kept.items() if value is not None}
        self.states.setdefault(name, []).append(given[cluster.STATE])
        return 200, patch


class Pod:
    """The program in a mount namespace of its own, with a service account."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def status(self, *words: str) -> Done:
        """Another process in the container."""
        inside = ["nsenter", f"--target={self.process.pid}", "--mount"]
        with open(f"/proc/{self.process.pid}/environ") as file:
            environment = dict(text.split("=", 1) for text in file.read().split("\0") if "=" in text)
        done = subprocess.run(
            [*inside, *command(NATIVE), "status", *words], capture_output=True, text=True, check=False, env=environment
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def end(self) -> Done:
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=60)
        return Done(self.process.returncode, out, err)


@contextlib.contextmanager
def pod(node: Rollout, name: str, url: str, place: Path, values: Object | None = None) -> Iterator[Pod]:
    """A pod of the DaemonSet on a node.

    Args:
        url: HOST:PORT of the API server, "" for none.
        place: with ca.crt and token.
    """
    words = [word.replace("$(NODE_NAME)", name) for word in container(values)["args"]]
    words = [f"--host={node.root}" if word == "--host=/host" else word for word in words]
    account = "/run/secrets/kubernetes.io/serviceaccount"
    script = f'mount -t tmpfs tmpfs /run && mkdir -p {account} && cp "$0"/* {account} && exec "$@"'
    host, _, port = url.partition(":")
    environment = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port} if url else {}
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script, place, *command(NATIVE), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env={"PATH": os.environ["PATH"], **environment},
    )
    try:
        yield Pod(process)
    finally:
        process.kill()
        process.communicate()


def wait_for(what: Any, found: Any = True) -> None:
    """Until a function gives that."""
    for _ in range(600):
        if what() == found:
            return
        time.sleep(0.05)
    assert what() == found


@pytest.fixture
def account(tmp_path: Path, authority: Authority) -> Path:
    if os.geteuid() != 0:
        cannot("only root can change its root")
    place = tmp_path / "account"
    place.mkdir()
    (place / "ca.crt").write_text(authority.certificate_pem)
    (place / "token").write_text(Fleet.TOKEN)
    return place


@contextlib.contextmanager
def serving(fleet: Fleet, authority: Authority) -> Iterator[str]:
    identity = authority.issue("127.0.0.1", ip_addresses=["127.0.0.1"])
    with LoopbackServer(fleet.respond, server_context(identity)) as server:
        yield f"127.0.0.1:{server.port}"


@pytest.mark.slow
def test_a_node_is_installed_and_the_cluster_knows(tmp_path: Path, account: Path, authority: Authority) -> None:
    api = Fleet()
    with serving(api, authority) as url, running("kubeadm", tmp_path / "node", free_port()) as node:
        before = snapshot(node.root)
        with pod(node, "worker-1", url, account) as made:
            wait_for(lambda: api.states.get("worker-1", [])[-1:], ["installed"])
            wait_for(lambda: api.holder, None)
            assert api.annotations["worker-1"] == {cluster.STATE: "installed", cluster.VERSION: __version__}
            assert made.status("--ready") == Done(0, "installed\n", "")
            told = made.status("--daemonset=kube-system/mirror")
            assert told == Done(3, "0 of 3 nodes are done, 1 at a time\n", "")
            report = made.status("--daemonset=kube-system/mirror", "--output=json").report
            counts = {"schemaVersion": 1, "nodes": 3, "done": 0, "atOnce": 1}
            assert report == counts | {"working": [], "failed": [], "isDone": False}
            api.daemonset["status"]["numberAvailable"] = 3
            assert made.status("--daemonset=kube-system/mirror").status == 0
            assert made.process.poll() is None
            done = made.end()
            assert (done.status, done.err, done.lines[-1]) == (0, "", "install: done")
        assert api.states["worker-1"] == ["waiting", "working", "installed"]
        # The rights that the chart grants are those that it takes.
        assert api.used == {*api.granted}
        assert node.systemd.is_up and snapshot(node.root) != before

        asked, revision = len(node.systemd.asked), api.revision
        with pod(node, "worker-1", url, account) as made:
            wait_for(lambda: api.states["worker-1"][3:], ["waiting", "working", "installed"])
            assert made.end().lines[-1] == "everything is installed already, nothing to do"
        assert (len(node.systemd.asked), api.revision) == (asked, revision)

        with pod(node, "worker-1", url, account, {"action": "uninstall"}) as made:
            wait_for(lambda: api.states["worker-1"][6:], ["waiting", "working", "uninstalled"])
            wait_for(lambda: api.holder, None)
        assert snapshot(node.root) == before


@pytest.mark.slow
def test_it_stops_at_a_node_that_failed_until_that_succeeds(
    tmp_path: Path, account: Path, authority: Authority
) -> None:
    api = Fleet()
    with (
        serving(api, authority) as url,
        running("kubeadm", tmp_path / "1", free_port()) as first,
        running("kubeadm", tmp_path / "2", free_port()) as second,
    ):
        before = snapshot(first.root), snapshot(second.root)
        (first.root / "run/standin/refuse").touch()
        with pod(first, "worker-1", url, account) as failed:
            wait_for(lambda: api.states.get("worker-1", [])[-1:], ["failed"])
            wait_for(lambda: api.holder, "worker-1:failed")
            assert "install failed and everything was put back" in api.annotations["worker-1"][cluster.REASON]
            assert "\n" not in api.annotations["worker-1"][cluster.REASON]
            ready = failed.status("--ready")
            assert ready.status == 3 and ready.out.startswith("failed: install failed")
            assert failed.status("--daemonset=kube-system/mirror").lines[-1] == "stopped: failed on worker-1"

            with pod(second, "worker-2", url, account) as waiting:
                why = "the rollout has stopped: node worker-1 failed"
                wait_for(lambda: api.annotations.get("worker-2", {}).get(cluster.REASON), why)
                assert waiting.status("--ready") == Done(3, f"waiting: {why}\n", "")
                # It does not begin anew by itself.
                assert failed.process.poll() is None and (snapshot(first.root), snapshot(second.root)) == before
                done = failed.end()
                assert done.status == 1 and "refused for a test" in done.err

                (first.root / "run/standin/refuse").unlink()
                with pod(first, "worker-1", url, account):
                    wait_for(lambda: api.states["worker-1"][-1], "installed")
                    wait_for(lambda: api.states["worker-2"][-1], "installed")
                    wait_for(lambda: api.holder, None)
        assert first.systemd.is_up and second.systemd.is_up
        assert snapshot(second.root) != before[1]


@pytest.mark.slow
def test_without_a_turn_nothing_is_changed_and_ending_it_ends_it(
    tmp_path: Path, account: Path, authority: Authority
) -> None:
    api = Fleet()
    api.holder = "worker-9"
    with serving(api, authority) as url, running("kubeadm", tmp_path / "node", free_port()) as node:
        before = snapshot(node.root)
        with pod(node, "worker-1", url, account) as made:
            wait_for(lambda: api.annotations.get("worker-1", {}).get(cluster.REASON), "it is the turn of worker-9")
            assert made.end().status == 128 + signal.SIGTERM
        api.down = True
        with pod(node, "worker-1", url, account) as made:
            wait_for(lambda: made.process.poll() or made.status("--ready").out.startswith("waiting: cannot ask"))
            assert made.process.poll() is None
        assert (snapshot(node.root), api.holder) == (before, "worker-9")


@pytest.mark.slow
def test_without_a_cluster_it_works_and_says_so(tmp_path: Path, account: Path) -> None:
    with running("kubeadm", tmp_path / "node", free_port()) as node:
        words = ["install", "--apply", "--host", str(node.root), "--stay", "--node-name=worker-1"]
        script = 'mount -t tmpfs tmpfs /run && exec "$@"'
        arguments = ["unshare", "--mount", "sh", "-c", script, "sh", *map(str, command(NATIVE)), *words]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            made = Pod(process)
            wait_for(lambda: made.status("--ready").out, "installed\n")
            done = made.end()
        why = "cannot annotate the node: KUBERNETES_SERVICE_HOST and _PORT are not set: this is not a pod"
        assert (done.status, done.lines[0], done.lines[-1]) == (0, why, "install: done"), done


# -- the rules of turns -----------------------------------------------------------------------------------------------


def test_turns(monkeypatch: pytest.MonkeyPatch, account: Path, authority: Authority) -> None:
    api = Fleet(nodes=20)

    def held() -> str | None:
        return api.holder

    with serving(api, authority) as url:
        monkeypatch.setattr(cluster, "ACCOUNT", str(account))
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", url.partition(":")[0])
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", url.partition(":")[2])
        a, b, c = (cluster.Cluster(name, "kube-system/mirror") for name in "abc")
        free = a.find()
        assert (free.nodes, free.ready, free.at_once, free.holders) == (20, 0, 1, ())
        # Ready alone is what a kubelet says before it has probed.
        api.daemonset["status"] |= {"numberReady": 20, "numberAvailable": 19}
        assert a.find().ready == 19
        assert a.take_turn(free) == "" and b.take_turn(free) == "another node was faster"
        assert b.take_turn(b.find()) == "it is the turn of a"
        api.daemonset["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] = "10%"
        assert b.take_turn(b.find()) == "" and c.take_turn(c.find()) == "it is the turn of a, b"
        # Of a run that was killed.
        assert (a.take_turn(a.find()), held()) == ("", "a,b")
        a.end_turn(failed=True)
        assert held() == "b,a:failed"
        b.end_turn(failed=False)
        assert b.take_turn(b.find()) == c.take_turn(c.find()) == "the rollout has stopped: node a failed"
        assert (a.take_turn(a.find()), held()) == ("", "a:failed")
        a.end_turn(failed=False)
        assert (held(), c.take_turn(c.find())) == (None, "")
        b.end_turn(failed=True)
        assert held() == "c"


@pytest.mark.parametrize(
    ("limit", "nodes", "expected"),
    [(1, 9, 1), (4, 9, 4), ("10%", 9, 1), ("10%", 10, 1), ("10%", 11, 2), ("100%", 7, 7), ("10%", 0, 1), ("x", 9, 1)],
)
def test_nodes_at_once(limit: int | str, nodes: int, expected: int) -> None:
    assert cluster.at_once(limit, nodes) == expected


@pytest.mark.process
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["install", "--stay"], "--stay requires --apply"),
        (["uninstall", "--apply", "--node-name=a"], "--node-name requires --stay"),
        (["install", "--apply", "--daemonset=a/b"], "--daemonset requires --stay"),
        (["install", "--apply", "--stay", "--node-name=A_"], "--node-name: 'A_' is not a valid node name"),
        (["install", "--apply", "--stay", "--daemonset=a/b"], "--daemonset requires --node-name"),
        (["status", "--daemonset=a"], "--daemonset: 'a' is not NAMESPACE/NAME"),
        (["status", "--daemonset=../b"], "--daemonset: '../b' is not NAMESPACE/NAME"),
    ],
)
def test_wrong_usage(words: list[str], said: str) -> None:
    assert typed(*words) == Done(2, "", f"crio-credential-provider {words[0]}: {said}\n")
