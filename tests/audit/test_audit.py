"""``audit`` on files: known faults, each found, and nothing else; by the same decision as a pull and ``explain``."""

from __future__ import annotations

import base64
import gzip
import json
import os
import pty
import re
import time
import urllib.parse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

import auditing
from auditing import (
    CONF,
    FAULTS,
    IMAGE,
    MIRROR,
    PASSWORD,
    USER,
    account,
    cluster_objects,
    docker_config,
    faulty_cluster,
    grant,
    pod,
    run,
    secret,
    workload,
    write_list,
)
from commandline import here, typed
from crio_credential_provider.audit import lists
from crio_credential_provider.audit.result import OUTCOMES, REASONS, Reason
from crio_credential_provider.commands import explain
from crio_credential_provider.errors import UsageError
from crio_credential_provider.explanation import near
from crio_credential_provider.runtimes.crio import registries
from crio_credential_provider.testbed.cluster import ApiServer
from node import COMMAND, TESTS, Node, basic, bound_claims, recorded_request

Object = dict[str, Any]
Audit = Callable[..., auditing.Ran]


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[Audit]:
    """Runs the command on objects, with flags."""
    conf = tmp_path / "registries.conf"
    conf.write_text(CONF)
    (tmp_path / "none").write_text("{}")

    def on(objects: list[Object], *flags: str, base: bool = True) -> auditing.Ran:
        file = write_list(tmp_path / "all.json", [*(cluster_objects() if base else ()), *objects])
        defaults = [
            flag
            for flag in (f"--registries-conf={conf}", f"--global-auth-file={tmp_path}/none", "--output=json")
            if not any(own.startswith(flag.partition("=")[0]) for own in flags)
        ]
        # An empty value leaves the default out.
        return run(file, *defaults, *(flag for flag in flags if not flag.endswith("=")))

    yield on


EXPECTED = {(name, fault.image): (fault.outcome, fault.reason) for name, fault in FAULTS.items()}


def test_all_faults_are_found_and_nothing_else(audit: Audit) -> None:
    ran = audit(faulty_cluster(), base=False)
    assert (ran.status, ran.stderr) == (1, "")
    assert ran.found() == EXPECTED
    for pull in ran.report["pulls"]:
        holders = 1 if pull["namespace"] == "static-pod" else 7
        assert pull["pods"] + pull["templates"] == len(pull["holders"]) == holders, pull
        if pull["namespace"] == "static-pod":
            assert pull["holders"] == [{"kind": "Pod", "name": "static"}]
        assert bool(pull["text"]) == bool(pull["reason"]) == (pull["outcome"] not in ("works", "no-mirror"))


def test_the_order_of_objects_does_not_matter(audit: Audit) -> None:
    objects = faulty_cluster()
    assert audit(objects, base=False).stdout == audit(objects[::-1], base=False).stdout


def test_one_namespace(audit: Audit) -> None:
    ran = audit(faulty_cluster(), "-n", "works", base=False)
    assert (ran.status, ran.found()) == (0, {("works", IMAGE): ("works", None)})


# -- where images are -------------------------------------------------------------------------------------------------


def test_every_place_of_an_image_is_seen(audit: Audit) -> None:
    images = [f"docker.io/team/{name}:1" for name in ("init", "main", "debug", "volume")]
    spec = {
        "initContainers": [{"image": images[0]}],
        "containers": [{"image": images[1]}, {"image": images[1]}],
        "ephemeralContainers": [{"image": images[2]}],
        "volumes": [{"image": {"reference": images[3]}}, {"emptyDir": {}}],
    }
    ran = audit([{"kind": "Pod", "metadata": {"namespace": "a", "name": "p"}, "spec": spec}])
    assert ran.found() == {("a", image): ("not-checked", "not-read") for image in images}
    assert {pull["pods"] for pull in ran.report["pulls"]} == {1}


def test_what_another_object_owns_is_counted_with_it(audit: Audit) -> None:
    owner = [{"kind": "Deployment", "name": "web", "controller": True}]
    replicas, ended = workload("ReplicaSet", "a", "web-1"), pod("a", "ended")
    replicas["metadata"]["ownerReferences"] = owner
    ended["status"] = {"phase": "Succeeded"}
    pods = [pod("a", f"web-1-{number}") for number in range(3)]
    for one in pods:
        one["metadata"]["ownerReferences"] = [{"kind": "ReplicaSet", "name": "web-1", "controller": True}]
    [pull] = audit([workload("Deployment", "a", "web"), replicas, *pods, ended]).report["pulls"]
    assert (pull["pods"], pull["templates"]) == (3, 1)
    assert pull["holders"] == [{"kind": "Deployment", "name": "web"}, {"kind": "ReplicaSet", "name": "web-1"}]


def test_what_another_kind_owns_is_audited_itself(audit: Audit) -> None:
    """Templates of operators' own kinds (Knative, Argo Rollouts) are not looked at: only what they own is there."""
    owned = workload("Deployment", "a", "revision-1")
    owned["metadata"]["ownerReferences"] = [{"kind": "Revision", "name": "revision-1", "controller": True}]
    [pull] = audit([owned]).report["pulls"]
    assert (pull["templates"], pull["holders"]) == (1, [{"kind": "Deployment", "name": "revision-1"}])


@pytest.mark.parametrize(("condition", "status", "counts"), [("Complete", "True", 0), ("Failed", "False", 1)])
def test_a_job_that_has_ended_pulls_nothing(audit: Audit, condition: str, status: str, counts: int) -> None:
    job = workload("Job", "a", "migrate")
    job["status"] = {"conditions": [{"type": condition, "status": status}]}
    ran = audit([job, workload("Deployment", "b", "w")])
    assert len([namespace for namespace, _ in ran.found() if namespace == "a"]) == counts
    assert not any("no containers" in note for note in ran.report["notes"])


def test_the_first_holders_are_kept(audit: Audit) -> None:
    objects = [workload("Deployment", "a", f"w{number:02}") for number in range(30)]
    [pull] = audit(objects[::-1]).report["pulls"]
    assert [holder["name"] for holder in pull["holders"]] == [f"w{number:02}" for number in range(10)]
    assert pull["templates"] == 30


@pytest.mark.parametrize(
    ("selector", "chosen"), [("app=a", "a"), ("app!=a", "bc"), ("tier", "b"), ("!app", "c"), ("app=b,tier=x", "b")]
)
def test_selector(audit: Audit, selector: str, chosen: str) -> None:
    labels = {"a": {"app": "a"}, "b": {"app": "b", "tier": "x"}, "c": {}}
    objects = [workload("Deployment", name, "w") for name in labels]
    for found in objects:
        found["metadata"]["labels"] = labels[found["metadata"]["namespace"]]
    assert {namespace for namespace, _ in audit(objects, "--selector", selector).found()} == set(chosen)


# -- modes ------------------------------------------------------------------------------------------------------------

GOOD = docker_config(MIRROR)
OLD = json.dumps({MIRROR: {"auth": basic(USER, PASSWORD)}}).encode()


def test_mode_pod(audit: Audit) -> None:
    """A pod keeps what it was created with; of a template, admission adds the service account's."""

    def team(name: str, *more: Object) -> list[Object]:
        return [secret(name, "mirror", GOOD), secret(name, "other", docker_config("other.corp")), *more]

    objects = [
        *team("named", account("named"), pod("named", "p", secrets=["mirror"])),
        *team("by-account", account("by-account", "default", "mirror"), workload("Deployment", "by-account", "w")),
        *team("created-before", account("created-before", "default", "mirror"), pod("created-before", "p")),
        *team("not-named", account("not-named"), workload("Job", "not-named", "w", secrets=["other"])),
        *team("missing", account("missing"), pod("missing", "p", secrets=["mirrors"])),
        *(account("gone"), secret("gone", "other", docker_config("other.corp")), pod("gone", "p", secrets=["gone"])),
        *(secret("old", "old", OLD, "kubernetes.io/dockercfg"), pod("old", "p", secrets=["old"])),
    ]
    ran = audit(objects, "--secrets-from=pod")
    assert {namespace: found for (namespace, _), found in ran.found().items()} == {
        "named": ("works", None),
        "by-account": ("works", None),
        "created-before": ("fails", "not-named"),
        "not-named": ("fails", "not-named"),
        "missing": ("fails", "not-named"),
        "gone": ("fails", "secret-missing"),
        "old": ("works", None),
    }


def test_mode_service_account(audit: Audit) -> None:
    def team(name: str, *granted: Object, named: str = "mirror") -> list[Object]:
        rights = [*grant(name, "default", "serviceaccounts", "get", "default"), *granted]
        return [account(name, "default", named), secret(name, "mirror", GOOD), pod(name, "p"), *rights]

    objects = [
        *team("works", *grant("works", "default", "secrets", "get", "mirror")),
        *team("no-role"),
        *team("other-name", *grant("other-name", "default", "secrets", "get", "else")),
        *team("not-named", *grant("not-named", "default", "secrets", "get"), named="other"),
        *(pod("no-account", "p", account="ci"), *grant("no-account", "ci", "serviceaccounts", "get")),
    ]
    ran = audit(objects, "--secrets-from=service-account")
    assert {namespace: found for (namespace, _), found in ran.found().items()} == {
        "works": ("works", None),
        "no-role": ("fails", "no-role"),
        "other-name": ("fails", "no-role"),
        "not-named": ("fails", "not-named"),
        "no-account": ("fails", "no-service-account"),
    }


def test_a_template_whose_service_account_was_not_read(audit: Audit) -> None:
    ran = audit([secret("a", "s", GOOD), workload("Job", "a", "w")], "--secrets-from=pod")
    [pull] = ran.report["pulls"]
    assert pull["unchecked"] == ["service-account-not-read"]
    assert "the service account was not read" in " ".join(ran.report["notes"])


# -- roles ------------------------------------------------------------------------------------------------------------


def bound(
    *subjects: Object, rules: list[Object], kind: str = "ClusterRoleBinding", role: str = "ClusterRole"
) -> list[Object]:
    place = {"namespace": "a"}
    return [
        {"kind": role, "metadata": {"name": "r", **(place if role == "Role" else {})}, "rules": rules},
        {
            "kind": kind,
            "metadata": {"name": "b", **(place if kind == "RoleBinding" else {})},
            "roleRef": {"kind": role, "name": "r"},
            "subjects": [*subjects],
        },
    ]


LIST = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}]
ALL = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
OURS = {"kind": "ServiceAccount", "name": "default", "namespace": "a"}


@pytest.mark.parametrize(
    ("objects", "works"),
    [
        (bound(OURS, rules=LIST), True),
        (bound(OURS, rules=ALL), True),
        (bound(OURS, rules=LIST, kind="RoleBinding"), True),
        (bound(OURS, rules=LIST, kind="RoleBinding", role="Role"), True),
        (bound({"kind": "Group", "name": "system:serviceaccounts"}, rules=LIST), True),
        (bound({"kind": "Group", "name": "system:serviceaccounts:a"}, rules=LIST), True),
        (bound({"kind": "Group", "name": "system:authenticated"}, rules=LIST), True),
        (bound({"kind": "User", "name": "system:serviceaccount:a:default"}, rules=LIST), True),
        (bound(OURS | {"namespace": "b"}, rules=LIST), False),
        (bound(OURS | {"name": "other"}, rules=LIST), False),
        (bound({"kind": "Group", "name": "system:serviceaccounts:b"}, rules=LIST), False),
        (bound({"kind": "Group", "name": "system:masters"}, rules=LIST), False),
        (bound(OURS, rules=[LIST[0] | {"verbs": ["get"]}]), False),
        (bound(OURS, rules=[LIST[0] | {"apiGroups": ["apps"]}]), False),
        (bound(OURS, rules=[LIST[0] | {"resources": ["secrets/status"]}]), False),
        # A list has no name that could be allowed.
        (bound(OURS, rules=[LIST[0] | {"resourceNames": ["s"]}]), False),
        (bound(OURS, rules=[{"apiGroups": [], "resources": [], "verbs": ["*"], "nonResourceURLs": ["*"]}]), False),
        (bound(OURS, rules=LIST)[1:], False),
    ],
)
def test_roles(audit: Audit, objects: list[Object], works: bool) -> None:
    ran = audit([secret("a", "s", GOOD), pod("a", "p"), *objects, *grant("b")])
    outcome = ("works", None) if works else ("fails", "no-role")
    assert (ran.found(), ran.report["notes"]) == ({("a", IMAGE): outcome}, [])


def test_roles_that_were_not_saved_are_not_guessed(audit: Audit) -> None:
    objects = [secret("a", "s", GOOD), pod("a", "p")]
    for more in ([], cluster_objects(), [found for found in bound(OURS, rules=[]) if found["kind"] == "ClusterRole"]):
        ran = audit([*objects, *more], base=False)
        assert ran.found() == {("a", IMAGE): ("works", None)}
        assert ran.report["pulls"][0]["unchecked"] == ["roles-not-read"]
        assert ran.report["notes"] == [
            "for 1 pull, roles were not read: whether the service account may read the secrets is not checked"
        ]


# -- the node's credentials -------------------------------------------------------------------------------------------


def node_file(tmp_path: Path, *keys: str) -> str:
    path = tmp_path / "node.json"
    path.write_bytes(docker_config(*keys))
    return f"--global-auth-file={path}"


def test_what_depends_on_the_nodes_credentials(audit: Audit, tmp_path: Path) -> None:
    own, private = docker_config("private.corp"), "private.corp/app:1"
    objects = [
        *(secret("works", "s", GOOD), pod("works", "p"), *grant("works")),
        *(secret("mirror", "s", own), pod("mirror", "p"), *grant("mirror")),
        *(pod("no-role", "p"), pod("private", "p", private)),
        # The kubelet itself passes this one.
        *(pod("own", "p", private, secrets=["s"]), secret("own", "s", own)),
        pod("public", "p", "quay.io/app/app:1"),
    ]
    ran = audit(objects, node_file(tmp_path, MIRROR, "private.corp"))
    assert {namespace: found for (namespace, _), found in ran.found().items()} == {
        "works": ("works", None),
        "mirror": ("node-credentials", "wrong-key"),
        "no-role": ("node-credentials", "no-role"),
        "private": ("node-credentials", "node-credentials"),
        "own": ("no-mirror", None),
        "public": ("no-mirror", None),
    }
    assert ran.status == 0
    assert audit(objects, node_file(tmp_path, MIRROR), "--fail-on=node-credentials").status == 1


def test_an_auth_file_of_the_node_that_cannot_be_read_opens_no_gate(
    audit: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = [pod("a", "p"), account("a"), *grant("a")]
    (tmp_path / "broken.json").write_text("{")
    for name, why in (("typo.json", "no such file"), ("broken.json", "not a docker config"), (".", "is a directory")):
        ran = audit(objects, f"--global-auth-file={tmp_path}/{name}", "--fail-on=node-credentials")
        assert (ran.status, ran.stdout) == (2, "")
        assert f"--global-auth-file: {tmp_path}/{name}: {why}" in ran.stderr
    # This machine's, which is not there.
    monkeypatch.setenv("CRIO_CREDENTIAL_PROVIDER_GLOBAL_AUTH_FILE", str(tmp_path / "absent.json"))
    file, conf = write_list(tmp_path / "a.json", objects), f"--registries-conf={tmp_path}/registries.conf"
    notes = run(file, conf, "-o", "json").report["notes"]
    assert any(note.startswith("no auth file of a node was read") for note in notes)
    ran = run(file, conf, "--fail-on=node-credentials")
    assert (ran.status, ran.stdout) == (2, "")
    assert "--fail-on node-credentials requires the auth file of a node" in ran.stderr
    monkeypatch.setenv("CRIO_CREDENTIAL_PROVIDER_GLOBAL_AUTH_FILE", str(tmp_path / "broken.json"))
    assert run(file, conf, "--fail-on=node-credentials").status == 2


def test_what_a_static_pod_has_on_the_node_keeps_no_gate_shut(audit: Audit, tmp_path: Path) -> None:
    objects = FAULTS["static-pod"].objects
    ran = audit(objects, node_file(tmp_path, MIRROR), "--fail-on=node-credentials", "--fail-on=not-checked")
    assert (ran.status, ran.found()) == (0, {("static-pod", IMAGE): ("node-credentials", "static-pod")})
    [pull] = ran.report["pulls"]
    assert pull["remedy"] == f"keep a key for {MIRROR} in the node's own auth file (docs: migrate, step 3)"
    assert "1 of static pods" in audit(objects, node_file(tmp_path, MIRROR), "--output=text").stdout


@pytest.mark.parametrize(
    "name", ["no-role", "no-secret", "wrong-key", "wrong-port", "wrong-type", "old-type", "unusable-secret"]
)
def test_the_nodes_credential_hides_no_reason(audit: Audit, tmp_path: Path, name: str) -> None:
    objects = [*FAULTS[name].objects, pod(name, "p"), secret("other", "s", GOOD), *grant("other")]
    [without] = audit(objects).report["pulls"]
    [pull] = audit(objects, node_file(tmp_path, MIRROR)).report["pulls"]
    assert (without["outcome"], pull["outcome"]) == ("fails", "node-credentials")
    assert (pull["reason"], pull["remedy"]) == (without["reason"], without["remedy"])
    assert pull["sources"][0]["reason"] == without["reason"]
    assert "today the node's credential is used" in pull["text"]
    assert "not visible" not in json.dumps(pull)


def test_what_was_not_checked_shuts_the_gate(audit: Audit) -> None:
    objects = [secret("a", "s", GOOD), pod("a", "p")]
    assert audit(objects, base=False).found() == {("a", IMAGE): ("works", None)}
    assert audit(objects, "--fail-on=not-checked", base=False).status == 1
    assert audit([*objects, *grant("a")], "--fail-on=not-checked").status == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["-n", "typo"], "no pod or workload in namespace typo"),
        (["-n", ""], "-n/--namespace: '' is not a valid namespace name"),
        (["-n", "X"], "'X' is not a valid namespace name"),
        (["-l", "app=typo"], "no pod or workload was read with the labels app=typo"),
        (["-A", "-n", "works"], "-A and -n cannot be used together"),
        (["--context", ""], "--context: is empty"),
        (["--context", "foo"], "--context cannot be used with files"),
        (["--print-rbac"], "--print-rbac cannot be used with files"),
    ],
)
def test_what_would_audit_nothing_is_refused(audit: Audit, flags: list[str], said: str) -> None:
    ran = audit(faulty_cluster(), *flags, base=False)
    assert (ran.status, ran.stdout) == (2, "") and said in ran.stderr


def test_a_class_without_a_file(tmp_path: Path) -> None:
    ran = run(write_list(tmp_path / "a.json", faulty_cluster()), "--registries-conf", "worker=")
    assert ran.status == 2 and "--registries-conf: no file is named for worker" in ran.stderr


@pytest.mark.parametrize("name", ["", "worker"])
def test_a_class_that_is_given_twice(audit: Audit, tmp_path: Path, name: str) -> None:
    flag = f"--registries-conf={name and f'{name}='}{tmp_path}/registries.conf"
    ran = audit(faulty_cluster(), flag, flag, base=False)
    which = f"for {name}" if name else "without a class"
    assert (ran.status, ran.stdout) == (2, "") and f"--registries-conf is given twice {which}" in ran.stderr


def test_a_class_of_no_node(audit: Audit, tmp_path: Path) -> None:
    ran = audit(faulty_cluster(), f"--registries-conf=Worker={tmp_path}/registries.conf", base=False)
    assert ran.report["notes"] == ["no node is of class Worker"]


def test_an_empty_registries_conf(audit: Audit, tmp_path: Path) -> None:
    """As a copy leaves it that failed; where the drop-ins have everything, the file may be empty."""
    (tmp_path / "empty").write_text("")
    (tmp_path / "d").mkdir()
    (tmp_path / "d/corp.conf").write_text(CONF)
    objects = [secret("a", "s", GOOD), *grant("a"), pod("a", "p")]
    ran = audit(objects, f"--registries-conf={tmp_path}/empty")
    assert (ran.status, ran.stdout) == (2, "") and f"{tmp_path}/empty: empty; copy it from a node" in ran.stderr
    ran = audit(objects, f"--registries-conf={tmp_path}/empty", f"--registries-conf-dir={tmp_path}/d")
    assert (ran.status, ran.found()) == (0, {("a", IMAGE): ("works", None)})


def test_no_mirror_at_all_is_told(audit: Audit, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("# of a laptop\n")
    ran = audit(faulty_cluster(), f"--registries-conf={tmp_path}/other", base=False)
    assert [note for note in ran.report["notes"] if note.startswith("no pull asks a mirror: check that")]
    assert audit(faulty_cluster(), base=False).report["notes"] == []


def test_every_failure_comes_with_what_to_do(audit: Audit) -> None:
    pulls = audit(faulty_cluster(), base=False).report["pulls"]
    assert [pull["namespace"] for pull in pulls if pull["outcome"] == "fails" and not pull["remedy"]] == []


def test_without_secrets_nobody_is_said_to_have_none(audit: Audit) -> None:
    assert audit([account("a"), *grant("b"), pod("a", "p")]).found() == {("a", IMAGE): ("not-checked", "no-role")}


def test_one_of_the_namespaces_has_nothing(audit: Audit) -> None:
    ran = audit(faulty_cluster(), "-n", "works", "-n", "typo", base=False)
    assert (ran.status, ran.report["notes"]) == (0, ["no pod or workload in namespace typo"])
    assert len(audit(faulty_cluster(), "-A", base=False).found()) == len(FAULTS)


def test_an_object_without_a_namespace_is_of_the_default_one(audit: Audit) -> None:
    """As kubectl create --dry-run=client -o json writes it."""
    made = workload("Deployment", "", "web")
    del made["metadata"]["namespace"]
    assert audit([made], "-n", "default").found() == {("default", IMAGE): ("not-checked", "not-read")}


def test_a_service_account_that_is_missing(audit: Audit) -> None:
    objects = [account("a"), secret("a", "s", GOOD), workload("Deployment", "a", "w", account="gone")]
    [pull] = audit(objects).report["pulls"]
    assert (pull["outcome"], pull["reason"]) == ("fails", "no-service-account")
    assert pull["remedy"].endswith("kubectl -n a create serviceaccount gone")
    # Where the namespace's service accounts were not saved it is not known.
    [pull] = audit([account("b"), *objects[1:]]).report["pulls"]
    assert pull["outcome"] == "works"


def test_pods_that_cannot_be_read_are_told(audit: Audit) -> None:
    bad: Object = {"kind": "Pod", "metadata": {"namespace": "a", "name": "bad"}, "spec": {"containers": "x"}}
    null: Object = {"kind": "Deployment", "metadata": {"namespace": "a", "name": "null"}, "spec": None}
    ran = audit([pod("a", "p", ""), bad])
    assert ran.found() == {("a", ""): ("fails", "invalid-image")}
    assert ran.report["notes"] == ["1 object has no containers that can be read: Pod bad"]
    objects = [secret("a", "s", GOOD), *grant("a"), pod("a", "p")]
    assert audit([*objects, bad], "--fail-on=not-checked").status == 1
    assert audit([*objects, bad]).status == audit(objects, "--fail-on=not-checked").status == 0
    ran = audit([pod("a", "p", ""), bad, null])
    assert ran.report["notes"] == ["2 objects have no containers that can be read: Deployment null, Pod bad"]


def test_files_of_other_forms(audit: Audit, tmp_path: Path) -> None:
    audit([])
    (tmp_path / "a.yaml").write_text("apiVersion: v1\nitems: []\n")
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"{}"))
    for name, said in (("a.yaml", "looks like YAML; write it with -o json"), ("a.gz", "is compressed with gzip")):
        ran = run(f"{tmp_path}/{name}", f"--registries-conf={tmp_path}/registries.conf")
        assert ran.status == 2 and said in ran.stderr


def test_one_page_of_a_list(audit: Audit, tmp_path: Path) -> None:
    """As kubectl get --raw '...?limit=500' writes it."""
    audit([])
    metadata, pods = {"continue": "x"}, [pod("a", "p")]
    for whole in ({"metadata": metadata, "items": pods}, {"items": pods, "metadata": metadata}):
        (tmp_path / "page").write_text(json.dumps({"kind": "PodList", **whole}))
        ran = run(f"{tmp_path}/page", f"--registries-conf={tmp_path}/registries.conf")
        assert (ran.status, ran.stdout) == (2, "") and "/page has one page of a longer list: metadata" in ran.stderr


def test_a_number_that_python_does_not_read(audit: Audit, tmp_path: Path) -> None:
    audit([])
    text = json.dumps({"items": [{"kind": "Pod", "spec": {"x": 71}}, *faulty_cluster()]}).replace("71", "7" * 5_000)
    (tmp_path / "large").write_text(text)
    flags = f"--registries-conf={tmp_path}/registries.conf", f"--global-auth-file={tmp_path}/none", "--output=json"
    assert run(f"{tmp_path}/large", *flags).found() == EXPECTED


def test_fail_on_anonymous(audit: Audit) -> None:
    objects = [
        *FAULTS["anonymous"].objects,
        secret("other", "s", GOOD),
        pod("anonymous", "p", FAULTS["anonymous"].image),
    ]
    assert (audit(objects).status, audit(objects, "--fail-on=anonymous").status) == (0, 1)


def test_types_that_nobody_means_as_pull_secrets(audit: Audit) -> None:
    """As ``explain``, which does not ask for them."""
    objects = [secret("a", "s", GOOD, "helm.sh/release.v1", "config.json"), *grant("a"), pod("a", "p")]
    assert audit([*objects, secret("b", "s", GOOD)]).found() == {("a", IMAGE): ("fails", "no-secret")}


def test_a_near_miss_was_meant_though_nobody_has_a_credential(audit: Audit) -> None:
    objects = [secret("a", "s", docker_config("mirror.corp")), *grant("a"), pod("a", "p")]
    assert audit(objects).found() == {("a", IMAGE): ("fails", "wrong-key")}
    objects[0] = secret("a", "s", docker_config("elsewhere.example"))
    assert audit(objects).found() == {("a", IMAGE): ("anonymous", "wrong-key")}


def test_a_pod_that_is_decided_for_many_is_not_named(audit: Audit) -> None:
    ran = audit([secret("a", "s", GOOD), *grant("a"), pod("a", "web-1")], "--secrets-from=pod")
    assert ran.found() == {("a", IMAGE): ("fails", "not-named")}
    assert "no pull secret of the pod has a credential" in ran.stdout and "a/pod" not in ran.stdout


# -- the plugin's configuration ---------------------------------------------------------------------------------------


def test_config(audit: Audit, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    entry = "kind: CredentialProviderConfig\nproviders:\n- name: crio-credential-provider\n"
    objects = [secret("a", "s", GOOD), pod("a", "p"), *grant("a")]
    config.write_text(f"{entry}  args: [--secrets-from=pod]\n  tokenAttributes: {{serviceAccountTokenAudience: x}}\n")
    assert audit(objects, f"--config={config}").report["secretsFrom"] == "pod"
    assert audit(objects, f"--config={config}", "--secrets-from=namespace").found() == {("a", IMAGE): ("works", None)}
    config.write_text(f"{entry}  args: []\n")
    assert audit(objects, f"--config={config}").found() == {("a", IMAGE): ("fails", "no-token")}


def test_the_plugin_fails(audit: Audit) -> None:
    ran = audit([secret("a", "s", GOOD), pod("Not_Valid", "p")])
    assert ran.found() == {("Not_Valid", IMAGE): ("fails", "plugin-fails")}
    assert "The plugin fails" in ran.report["pulls"][0]["text"]


def test_mirror_registry(audit: Audit) -> None:
    objects = [secret("a", "s", GOOD), pod("a", "p"), *grant("a")]
    assert audit(objects, "--mirror-registry=elsewhere.corp").found() == {("a", IMAGE): ("no-mirror", None)}


@pytest.mark.parametrize(
    ("text", "reason"),
    [("[[registry]\n", "invalid-registries-conf"), (f'credential-helpers = ["x"]\n{CONF}', "no-auth-file-helper")],
)
def test_registries_conf(audit: Audit, tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "other.conf").write_text(text)
    objects = [secret("a", "s", GOOD), pod("a", "p"), *grant("a")]
    assert audit(objects, f"--registries-conf={tmp_path}/other.conf").found() == {("a", IMAGE): ("fails", reason)}


def test_classes_of_nodes(audit: Audit, tmp_path: Path) -> None:
    """By the node's role, by its labels; a template on every class that its node selector does not rule out."""
    for name in ("worker", "gpu"):
        conf = f'[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "{name}.corp/hub"\n'
        (tmp_path / f"{name}.conf").write_text(conf)
    objects = [
        *(secret("a", "s", docker_config("gpu.corp")), *grant("a"), secret("b", "s", docker_config("worker.corp"))),
        *(pod("a", "p"), pod("a", "q", nodeName="gpu1"), pod("a", "r", nodeName="unknown")),
        workload("Deployment", "a", "everywhere", "docker.io/x/all:1"),
        workload("Deployment", "a", "there", "docker.io/x/gpu:1", nodeSelector={"pool": "gpu"}),
        workload("Deployment", "a", "not-there", "docker.io/x/cpu:1", nodeSelector={"pool": "cpu"}),
    ]
    classes = [f"--registries-conf=worker={tmp_path}/worker.conf", f"--registries-conf=pool=gpu={tmp_path}/gpu.conf"]
    ran = audit(objects, *classes)
    found = {(pull["image"], pull["nodeClass"]): pull["outcome"] for pull in ran.report["pulls"]}
    assert found == {
        (IMAGE, "worker"): "fails",
        (IMAGE, "pool=gpu"): "works",
        (IMAGE, ""): "not-checked",
        ("docker.io/x/all:1", "worker"): "fails",
        ("docker.io/x/all:1", "pool=gpu"): "works",
        ("docker.io/x/gpu:1", "pool=gpu"): "works",
        ("docker.io/x/cpu:1", "worker"): "fails",
    }
    (tmp_path / "rest.conf").write_text("")
    ran = audit(objects, *classes, f"--registries-conf={tmp_path}/rest.conf")
    assert {p["outcome"] for p in ran.report["pulls"] if p["nodeClass"] == ""} == {"no-mirror"}


def test_what_makes_pulls_equal_is_no_more_than_that(audit: Audit, tmp_path: Path) -> None:
    """Tag or digest, the spelling, the service account, the namespace; not the tag itself."""
    (tmp_path / "other.conf").write_text(
        'unqualified-search-registries = ["quay.io"]\n[[registry]]\nlocation = "docker.io"\n'
        f'[[registry.mirror]]\nlocation = "{MIRROR}/hub"\npull-from-mirror = "digest-only"\n'
    )
    digest = f"sha256:{'0' * 64}"
    images = {
        "docker.io/library/nginx:1": "no-mirror",
        f"docker.io/library/nginx@{digest}": "works",
        f"docker.io/library/nginx:1@{digest}": "works",
        f"nginx@{digest}": "anonymous",
    }
    objects = [
        *(secret("a", "s", GOOD), *grant("a", "ci"), secret("b", "s", GOOD), *grant("b")),
        *(pod("a", f"p{number}", image, account="ci") for number, image in enumerate(images)),
        pod("a", "q", f"docker.io/library/nginx@{digest}"),
        pod("b", "q", f"docker.io/library/nginx@{digest}"),
    ]
    ran = audit(objects, f"--registries-conf={tmp_path}/other.conf")
    found = {(p["namespace"], p["serviceAccount"], p["image"]): p["outcome"] for p in ran.report["pulls"]}
    assert found == {
        **{("a", "ci", image): outcome for image, outcome in images.items()},
        ("a", "default", f"docker.io/library/nginx@{digest}"): "fails",
        ("b", "default", f"docker.io/library/nginx@{digest}"): "works",
    }


def test_a_pull_that_asks_no_mirror_loses_nothing_where_the_plugin_fails(audit: Audit, tmp_path: Path) -> None:
    (tmp_path / "other.conf").write_text(
        '[[registry]]\nlocation = "docker.io"\nmirror-by-digest-only = true\n'
        f'[[registry.mirror]]\nlocation = "{MIRROR}/hub"\n'
    )
    digest = f"docker.io/library/nginx@sha256:{'0' * 64}"
    objects = [secret("a", "s", GOOD), pod("a", "tag"), pod("a", "digest", digest)]
    found = {("a", IMAGE): ("no-mirror", None), ("a", digest): ("fails", "no-role")}
    conf = f"--registries-conf={tmp_path}/other.conf"
    assert audit([*objects, *grant("b")], conf).found() == found
    node = audit([*objects, *grant("b")], conf, node_file(tmp_path, "docker.io")).found()
    assert node == found | {("a", IMAGE): ("node-credentials", "node-credentials")}


def test_drop_ins(audit: Audit, tmp_path: Path) -> None:
    drop_ins, empty = tmp_path / "d", tmp_path / "empty.conf"
    drop_ins.mkdir()
    empty.write_text("")
    (drop_ins / "m.conf").write_text(CONF)
    objects = [secret("a", "s", GOOD), pod("a", "p"), *grant("a")]
    flags = (f"--registries-conf={empty}", f"--registries-conf-dir={drop_ins}")
    assert audit(objects, *flags).found() == {("a", IMAGE): ("works", None)}


def machine_config(name: str, files: dict[str, Object]) -> Object:
    storage = {"files": [{"path": path, "contents": contents} for path, contents in files.items()]}
    return {"kind": "MachineConfig", "metadata": {"name": name}, "spec": {"config": {"storage": storage}}}


def pool(name: str, **selector: Any) -> Object:
    spec = {"nodeSelector": selector or {"matchLabels": {f"node-role.kubernetes.io/{name}": ""}}}
    status = {"configuration": {"name": f"rendered-{name}-1"}}
    return {"kind": "MachineConfigPool", "metadata": {"name": name}, "spec": spec, "status": status}


def data_url(text: str, form: str = "") -> Object:
    if form == "gzip":
        zipped = base64.b64encode(gzip.compress(text.encode())).decode()
        return {"source": f"data:;base64,{zipped}", "compression": "gzip"}
    if form == "base64":
        return {"source": f"data:text/plain;charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"}
    return {"source": f"data:,{urllib.parse.quote(text)}"}


def test_machine_configs(audit: Audit) -> None:
    """Each pool's rendered file and drop-ins, not those of before; a node of two pools is of the custom one."""
    main, directory = "/etc/containers/registries.conf", "/etc/containers/registries.conf.d"
    infra = {f"node-role.kubernetes.io/{role}": "" for role in ("worker", "infra")}
    objects = [
        *(pool("worker"), pool("infra"), pool("gpu", matchExpressions=[{"key": "pool", "operator": "Exists"}])),
        machine_config(
            "rendered-worker-1", {main: data_url(CONF, "gzip"), "/var/lib/kubelet/config.json": data_url("x")}
        ),
        machine_config("rendered-worker-0", {main: data_url("")}),
        machine_config("00-worker", {main: data_url("")}),
        machine_config("rendered-infra-1", {main: data_url(""), f"{directory}/a.txt": data_url(CONF)}),
        machine_config("rendered-gpu-1", {main: data_url(""), f"{directory}/m.conf": data_url(CONF, "base64")}),
        {"kind": "Node", "metadata": {"name": "infra1", "labels": infra}},
        *(secret("a", "s", GOOD), *grant("a"), pod("a", "w"), pod("a", "i", nodeName="infra1")),
        pod("a", "g", nodeName="gpu1"),
    ]
    flags = ("--machine-configs", "--registries-conf=")
    ran = audit(objects, *flags)
    found = {pull["nodeClass"]: pull["outcome"] for pull in ran.report["pulls"]}
    assert found == {"worker": "works", "infra": "no-mirror", "gpu": "works"}
    ran = audit([found for found in objects if found["metadata"]["name"] != "rendered-gpu-1"], *flags)
    assert ran.status == 2 and "MachineConfig rendered-gpu-1 of pool gpu was not found" in ran.stderr
    damaged = [*objects, machine_config("rendered-gpu-1", {main: {"source": "data:;base64,!"}})]
    assert {pull["reason"] for pull in audit(damaged, *flags).report["pulls"]} == {None, "invalid-registries-conf"}
    assert audit([pod("a", "p")], *flags).status == 2


# -- the same as explain, and as the plugin ---------------------------------------------------------------------------


def test_the_verdicts_are_those_of_explain(audit: Audit, tmp_path: Path) -> None:
    """On every fault that files can show to ``explain``, which knows no roles."""
    objects = faulty_cluster()
    found = audit(objects, base=False).report["pulls"]
    compared = 0
    (tmp_path / "none.d").mkdir()
    for pull in found:
        if pull["reason"] in ("no-role", "static-pod", "invalid-image"):
            continue
        name = pull["namespace"]
        secrets = [one for one in objects if one["kind"] == "Secret" and one["metadata"]["namespace"] == name]
        # A file must have an object.
        file = write_list(tmp_path / "secrets.json", secrets or [account(name)])
        words = [
            *(pull["image"], "-n", pull["namespace"], "--secrets", file, "--output=json"),
            *(f"--registries-conf={tmp_path}/registries.conf", f"--registries-conf-dir={tmp_path}/none.d"),
            f"--global-auth-file={tmp_path}/none",
        ]
        done = here(partial(explain.run, words))
        verdict = done.report["verdict"]
        assert (verdict["status"] == "failed") == (pull["outcome"] in ("fails", "anonymous")), (pull, verdict)
        asked = [source for source in done.report["sources"] if source["asked"]]
        ours = [(source["name"], source["credential"]) for source in pull["sources"]]
        assert ours == [(source["name"], source["credential"]) for source in asked]
        compared += 1
    assert compared == len(FAULTS) - 3


@pytest.mark.process
@pytest.mark.parametrize("mode", ["namespace", "pod", "service-account"])
@pytest.mark.parametrize("name", ["request-service-account", "request-with-annotations", "request-static-pod"])
def test_recorded_requests(audit: Audit, name: str, mode: str, tmp_path: Path) -> None:
    """The plugin's run for a recorded request, and the audit of the pod that it is of, on the same cluster."""
    message = json.loads(recorded_request(name))
    token = message.get("serviceAccountToken", "")
    claims = claims_of(token) if token else bound_claims(account="ci")
    bound = claims["kubernetes.io"]
    namespace, who, its = bound["namespace"], bound["serviceaccount"], bound["pod"]
    with ApiServer() as cluster, Node(tmp_path / "n", COMMAND) as node:
        made = cluster.add_service_account(namespace, who["name"], ["mirror-creds"])
        made["metadata"]["uid"] = who["uid"]
        cluster.add_pod(namespace, its["name"], "node1", who["name"], image=message["image"])
        cluster.pods[namespace, its["name"]]["metadata"]["uid"] = its["uid"]
        cluster._tokens[token] = claims | {"exp": time.time() + 3600}
        for resource in ("secrets", "serviceaccounts"):
            cluster.allow(namespace, who["name"], ("list", "get"), resource)
        node.join(cluster)
        log_in(node, cluster)
        node.write_registries_conf(
            f'[[registry]]\nlocation = "{message["image"].partition("/")[0]}"\n'
            f'[[registry.mirror]]\nlocation = "{MIRROR}/hub"\n'
        )
        granted = [
            found
            for r in ("secrets", "serviceaccounts")
            for v in ("list", "get")
            for found in grant(namespace, who["name"], r, v)
        ]
        for keys in ((MIRROR,), (f"{MIRROR}/hub/lib",), ("docker.io",), (MIRROR, message["image"]), ()):
            cluster.secrets.clear()
            cluster.add_secret(namespace, "mirror-creds", docker_config(*keys))
            ran = node.run(json.dumps(message).encode(), f"--secrets-from={mode}", "--hand-off-timeout=0")
            assert ran.status == 0, ran.stderr
            saved = [*cluster.pods.values(), *cluster.service_accounts.values(), *cluster.secrets.values(), *granted]
            saved = json.loads(json.dumps([*saved, secret("other", "s", GOOD)]))
            if not token:
                saved[0]["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "x"
            flags = (f"--registries-conf={node.registries_conf}", f"--secrets-from={mode}")
            [pull] = audit(saved, *flags).report["pulls"]
            used = [f"{s['name']}={s['credential']['secret']}" for s in pull["sources"] if s["credential"]]
            credentials = ran.entry.get("CREDENTIALS", "")
            assert (" ".join(used), bool(used)) == (credentials, ran.entry["OUTCOME"] == "auth-file-written")
            assert (pull["outcome"] == "works") == credentials.startswith(MIRROR), (keys, pull)
            for file in node.auth_dir.glob("*.json"):
                file.unlink()


def claims_of(token: str) -> Any:
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def log_in(node: Node, cluster: ApiServer) -> None:
    """Gives the node's kubeconfig the client certificate that the mode ``pod`` asks with."""
    identity = cluster.node_identity("node1")
    user = {"client-certificate-data": identity.certificate_pem, "client-key-data": identity.key_pem}
    data = {name: base64.b64encode(text.encode()).decode() for name, text in user.items()}
    document = yaml.safe_load(node.kubeconfig.read_text())
    document["users"] = [{"name": "u", "user": data}]
    document["contexts"][0]["context"]["user"] = "u"
    node.kubeconfig.write_text(yaml.safe_dump(document))


# -- files ------------------------------------------------------------------------------------------------------------


def test_forms_of_files(audit: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typed list as the API server answers it, single objects, an object on each line, several files, small reads."""
    objects = [{"apiVersion": "v1", **found} for found in faulty_cluster()]
    pods = [found for found in objects if found["kind"] == "Pod"]
    rest = [found for found in objects if found["kind"] != "Pod"]
    bare = [{name: value for name, value in found.items() if name not in ("kind", "apiVersion")} for found in pods]
    (tmp_path / "pods.json").write_text(json.dumps({"kind": "PodList", "metadata": {}, "items": bare}))
    (tmp_path / "lines.json").write_text("\n".join(map(json.dumps, rest)) + "\n")
    (tmp_path / "one.json").write_text("\ufeff" + json.dumps(rest[0], indent=4))
    (tmp_path / "empty.json").write_text('{"apiVersion": "v1", "items": [], "kind": "List"}')
    flags = (f"--registries-conf={tmp_path}/registries.conf", f"--global-auth-file={tmp_path}/none", "-o", "json")
    audit([], base=True)
    for chunk in (1 << 20, 7):
        monkeypatch.setattr(lists, "_CHUNK", chunk)
        ran = run(*(str(tmp_path / f"{name}.json") for name in ("pods", "lines", "one", "empty")), *flags)
        assert ran.found() == EXPECTED


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "[]",
            "null",
            "kind: List\n",
            '{"items": [',
            '{"items": [{}',
            '{"items": [{]}',
            '{"items": [{} {}]}',
            "{}}",
        ),
        *('{"kind": "List" "items": []}', f'{{"items": [{{"kind": "Secret", "data": {{"x": "{PASSWORD}"', "\0"),
        *('{"items": [' + "[" * 100_000, "{" * 100_000),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    ran = run(str(path), f"--registries-conf={path}")
    assert (ran.status, ran.stdout) == (2, "")
    assert str(path) in ran.stderr and ran.stderr.count("\n") == 1


def test_a_value_that_is_cut_is_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = {"kind": "Other", "number": 1234567, "items": [{"kind": "a", "n": 12.5e3}, {"kind": "b"}], "last": 89}
    (tmp_path / "x.json").write_text(json.dumps(document) + json.dumps({"kind": "c", "n": 77}))
    monkeypatch.setattr(lists, "_CHUNK", 1)
    found = list(lists.load(str(tmp_path / "x.json")))
    assert found == [{"kind": "a", "n": 12500.0}, {"kind": "b"}, {"kind": "c", "n": 77}]
    assert next(lists.load(str(tmp_path / "x.json"), "last"))["number"] == 1234567


def test_a_secret_of_thousands_of_keys(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Near misses are looked for in some of them; what serves is found in any."""
    compared: list[str] = []
    whole = near.why_key

    def why_key(key: str, *more: str) -> near.Near | None:
        compared.append(key)
        return whole(key, *more)

    monkeypatch.setattr(near, "why_key", why_key)
    keys = [f"mirror{number:05}.corp:5000" for number in range(5_000)]
    objects = [account("a"), *grant("a"), secret("a", "s", docker_config(*keys)), pod("a", "p")]
    assert audit(objects).found() == {("a", IMAGE): ("fails", "wrong-key")}
    assert 0 < len(compared) <= 1_000
    objects[-2] = secret("a", "s", docker_config(*keys, MIRROR))
    assert audit(objects).found() == {("a", IMAGE): ("works", None)}


def test_an_item_that_is_nested_deeply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read without what lies deep, brackets in strings notwithstanding; and none of the others is lost."""
    monkeypatch.setattr(lists, "_CHUNK", 1000)
    # The end of the first window lies in the string, which would close everything.
    for string in ('"' + "]" * 20_000 + ']}, {\\"kind\\": \\"forged\\"}"', '"\\\\"', "1"):
        deep = '[{"x": ' * 5_000 + string + "}]" * 5_000
        text = f'{{"items": [{{"kind": "a", "deep": [{deep}, 7], "n": 1}}, {{"kind": "b"}}]}}'
        (tmp_path / "x.json").write_text(text)
        first, second = lists.load(str(tmp_path / "x.json"))
        assert (first["kind"], first["n"], first["deep"][1], second) == ("a", 1, 7, {"kind": "b"})


def test_an_item_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "_LONGEST", 1 << 16)
    (tmp_path / "x.json").write_text('{"items": [{"a": "' + "x" * (1 << 22))
    with pytest.raises(UsageError, match="from character 11 on"):
        list(lists.load(str(tmp_path / "x.json")))


def test_files_that_cannot_be_read(tmp_path: Path, audit: Audit) -> None:
    audit([])
    (tmp_path / "x.json").write_bytes(b"\xff\xfe")
    conf = f"--registries-conf={tmp_path}/registries.conf"
    for name, what in (("x.json", "is not UTF-8"), ("y.json", "No such file or directory"), (".", "Is a directory")):
        ran = run(f"{tmp_path}/{name}", conf)
        assert (ran.status, ran.stdout) == (2, "") and what in ran.stderr


def test_objects_of_any_shape(audit: Audit) -> None:
    """An API server checks them, a file does not."""
    odd: list[Any] = [None, 7, "x", [], {}, [7], {"metadata": 7}, {"spec": []}]
    kinds = ("Pod", "Deployment", "CronJob", "Secret", "ServiceAccount", "Node", "Role", "RoleBinding", "Other", 7)
    objects: list[Any] = [
        {"kind": kind, **dict.fromkeys(("metadata", "spec", "data", "rules", "subjects", "roleRef", "type"), value)}
        for kind in kinds
        for value in odd
    ]
    metadata = {"namespace": "a", "name": "n"}
    objects += [{"kind": "Pod", "metadata": metadata, "spec": {"containers": value, "volumes": value}} for value in odd]
    objects += [{"kind": "Pod", "metadata": metadata, "spec": {"containers": [value]}} for value in odd]
    objects += [{"kind": "Pod", "metadata": metadata, "spec": {"containers": [{"image": value}]}} for value in odd]
    ran = audit([*objects, *faulty_cluster()], base=False)
    assert ran.stderr == ""
    assert {key: value for key, value in ran.found().items() if key in EXPECTED} == EXPECTED


@pytest.mark.process
def test_standard_input(audit: Audit, tmp_path: Path) -> None:
    audit([])
    flags = (f"--registries-conf={tmp_path}/registries.conf", f"--global-auth-file={tmp_path}/none", "-o", "json")
    with open(write_list(tmp_path / "all.json", faulty_cluster()), "rb") as file:
        done = typed("audit", "-", *flags, stdin=file)
    assert (done.status, done.err, done.report["summary"]["fails"]["pulls"]) == (1, "", 14)


def test_without_a_registries_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registries, "MAIN_FILE", str(tmp_path / "none"))
    monkeypatch.setattr(registries, "DROP_IN_DIRECTORY", str(tmp_path / "none.d"))
    monkeypatch.setenv("HOME", str(tmp_path))
    file = write_list(tmp_path / "all.json", faulty_cluster())
    ran = run(file)
    assert (ran.status, ran.stdout) == (2, "") and "give a node's with --registries-conf FILE" in ran.stderr
    (tmp_path / "none").write_text(CONF)
    own = tmp_path / "config.json"
    own.write_text("{}")
    [note] = run(file, "-o", "json", f"--global-auth-file={own}").report["notes"]
    assert note.startswith("this machine's registries.conf was used, and it has no CRI-O")
    flags = (file, "-n", "works", f"--global-auth-file={own}")
    assert (run(*flags).status, run(*flags, "--fail-on=not-checked").status) == (0, 1)


# -- output -----------------------------------------------------------------------------------------------------------


def test_baseline(audit: Audit, tmp_path: Path) -> None:
    earlier = tmp_path / "earlier.json"
    objects = faulty_cluster()
    earlier.write_text(audit(objects, base=False).stdout)
    unchanged = audit(objects, f"--baseline={earlier}", base=False).report["changes"]
    assert unchanged == {"failing": [], "solved": [], "gone": []}
    # Only what got worse counts.
    assert audit(objects, f"--baseline={earlier}", base=False).status == 0
    assert audit(objects, f"--baseline={earlier}", "--output=junit", base=False).stdout.count("<failure") == 0
    # What was not audited, or not read, is neither gone nor solved.
    for flags in (("-n", "works"), ("-l", "!app")):
        assert audit(objects, f"--baseline={earlier}", *flags, base=False).report["changes"] == unchanged
    chosen = [found for found in objects if found["metadata"].get("namespace") == "works"]
    assert audit(chosen, f"--baseline={earlier}", "-l", "!app").report["changes"] == unchanged
    unread = [found for found in objects if found["kind"] != "Secret"]
    assert audit(unread, f"--baseline={earlier}", base=False).report["changes"]["solved"] == []
    (tmp_path / "empty").write_text("")
    ran = audit(objects, f"--baseline={tmp_path}/empty", base=False)
    assert ran.status == 2 and "kubectl" not in ran.stderr
    changed = [found for found in objects if found["metadata"].get("namespace") not in ("blocked", "no-role")]
    changed += [
        *grant("no-role"),
        secret("no-role", "s", GOOD),
        pod("no-role", "p"),
        pod("fresh", "p"),
        *grant("fresh"),
    ]
    ran = audit(changed, f"--baseline={earlier}", base=False)
    assert ran.status == 1
    changes = ran.report["changes"]
    assert [one["namespace"] for one in changes["failing"]] == ["fresh"]
    assert [one["namespace"] for one in changes["solved"]] == ["no-role"]
    assert [one["namespace"] for one in changes["gone"]] == ["blocked"]
    told = audit(changed, f"--baseline={earlier}", "--output=text", base=False).stdout
    assert "Since the baseline: 1 new that fail, 1 solved, 1 gone" in told
    assert audit(objects, f"--baseline={write_list(tmp_path / 'w.json', [])}", base=False).status == 2


def test_baseline_of_rights_that_are_gone(audit: Audit, tmp_path: Path) -> None:
    """The outcome stays, and rests on less than it did."""
    objects = [secret("a", "s", GOOD), pod("a", "p")]
    whole, part = tmp_path / "whole.json", tmp_path / "part.json"
    whole.write_text(audit([*objects, *grant("a")]).stdout)
    part.write_text(audit(objects, base=False).stdout)
    for earlier, flags, status in (
        (whole, ["--fail-on=not-checked"], 1),
        (part, ["--fail-on=not-checked"], 0),
        (whole, [], 0),
    ):
        assert audit(objects, f"--baseline={earlier}", *flags, base=False).status == status


def test_text(audit: Audit) -> None:
    ran = audit(faulty_cluster(), "--output=text", base=False)
    lines = ran.stdout.splitlines()
    assert lines[0] == "14 of 18 pulls of 18 namespaces would fail (14 pods, 78 templates)."
    assert lines[1].split()[:2] == ["fails", "14"]
    assert max(map(len, lines[:6])) <= 100
    assert any(line.split()[:2] == ["no-secret", "3"] for line in lines)
    well = audit(faulty_cluster(), "--output=text", "-n", "works", base=False)
    assert well.stdout.splitlines()[0] == "None of 1 pull of 1 namespace would fail."
    assert well.status == 0
    unread = audit([pod("a", "p")], "--output=text").stdout.splitlines()
    assert unread[0] == "None of 1 pull of 1 namespace would fail, but 1 could not be checked."


def test_names_do_not_move_the_cursor(audit: Audit) -> None:
    ran = audit([pod("a\x1b[2J", "p\n", "docker.io/x/y\x1b[31m")], "--output=text")
    assert "\x1b" not in ran.stdout


@pytest.mark.process
def test_progress_is_told_on_a_terminal_alone(audit: Audit, tmp_path: Path) -> None:
    audit([])
    file = write_list(tmp_path / "all.json", faulty_cluster())
    flags = (f"--registries-conf={tmp_path}/registries.conf", f"--global-auth-file={tmp_path}/none", "-o", "json")
    ours, theirs = pty.openpty()
    shown = typed("audit", file, *flags, stderr=theirs)
    os.close(theirs)
    told = os.read(ours, 65536).decode()
    os.close(ours)
    assert told.startswith("\r\x1b[Kread 1 objects") and told.endswith("\r\x1b[K")
    assert shown.report["pulls"] == audit(faulty_cluster(), base=False).report["pulls"]


def test_the_page_has_all_reasons_and_outcomes() -> None:
    page = (TESTS.parent / "docs/reference/audit.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)` \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    assert [Reason(*row) for row in rows] == [*REASONS.values()]
    outcomes = re.findall(r"^\| `([\w-]+)` \| [^|]*\|$", page.partition("## The reasons")[0], re.MULTILINE)
    assert outcomes == [*OUTCOMES]


def test_nothing_in_the_files(audit: Audit) -> None:
    ran = audit([], base=False)
    assert ran.status == 2 and "no pod, workload or secret found" in ran.stderr


def test_secrets_that_cannot_be_read_are_not_quoted(audit: Audit) -> None:
    """Each holds a canary where a careless message would quote it; ``run`` looks for them."""
    contents = [
        PASSWORD.encode(),
        b'{"auths":{"' + PASSWORD.encode(),
        json.dumps({"auths": PASSWORD}).encode(),
        json.dumps({"auths": {MIRROR: PASSWORD}}).encode(),
        json.dumps({"auths": {MIRROR: {"auth": f"{PASSWORD}!"}}}).encode(),
        json.dumps({"auths": {MIRROR: {"username": {PASSWORD: PASSWORD}}}}).encode(),
        json.dumps({PASSWORD: PASSWORD, "credHelpers": {PASSWORD: PASSWORD}}).encode(),
        json.dumps({"auths": {f"https://{USER}:{PASSWORD}@{MIRROR}/": {"auth": "x"}}}).encode(),
        b"[" * 50_000 + PASSWORD.encode(),
    ]
    objects = [
        found
        for number, content in enumerate(contents)
        for found in (
            *(secret(f"n{number}", "s", content), secret(f"n{number}", "o", content, "Opaque", "config.json")),
            *(pod(f"n{number}", "p"), *grant(f"n{number}")),
        )
    ]
    raw = secret("raw", "s", b"")
    raw["data"][".dockerconfigjson"] = PASSWORD
    for output in ("json", "text"):
        ran = audit([*objects, raw, pod("raw", "p"), *grant("raw"), secret("z", "s", GOOD)], f"--output={output}")
        assert ran.status == 1
