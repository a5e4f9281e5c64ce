"""``audit --machine-configs`` on saved mirror sets. What the operator makes of them is in ``tests/vectors``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import auditing
from auditing import IMAGE, MIRROR, cluster_objects, docker_config, grant, pod, run, secret, write_list

Object = dict[str, Any]
Audit = Callable[..., auditing.Ran]

DIGEST = f"docker.io/library/nginx@sha256:{'0' * 64}"
FROM = "as the Machine Config Operator makes it (a node may not have it yet)"


def sets(kind: str, *pairs: tuple[str, list[str]], name: str = "corp", **more: str) -> Object:
    member = {"ImageDigestMirrorSet": "imageDigestMirrors", "ImageTagMirrorSet": "imageTagMirrors"}
    version = "config.openshift.io/v1" if kind in member else "operator.openshift.io/v1alpha1"
    listed = [{"source": source, "mirrors": mirrors, **more} for source, mirrors in pairs]
    spec = {member.get(kind, "repositoryDigestMirrors"): listed}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}


def image(**sources: Any) -> Object:
    spec = {"registrySources": sources}
    return {"apiVersion": "config.openshift.io/v1", "kind": "Image", "metadata": {"name": "cluster"}, "spec": spec}


TAGS = sets("ImageTagMirrorSet", ("docker.io", [f"{MIRROR}/hub"]))
PODS = [
    *(secret("a", "s", docker_config(MIRROR)), *grant("a"), *cluster_objects()),
    *(pod("a", "tag"), pod("a", "digest", DIGEST)),
]


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    def on(*objects: Object) -> auditing.Ran:
        (tmp_path / "none").write_text("{}")
        file = write_list(tmp_path / "all.json", [*PODS, *objects])
        return run(file, "--machine-configs", f"--global-auth-file={tmp_path}/none", "--output=json")

    return on


@pytest.mark.parametrize(
    ("kind", "served"),
    [("ImageTagMirrorSet", IMAGE), ("ImageDigestMirrorSet", DIGEST), ("ImageContentSourcePolicy", DIGEST)],
)
def test_a_set_is_for_its_kind_of_reference(audit: Audit, kind: str, served: str) -> None:
    ran = audit(sets(kind, ("docker.io", [f"{MIRROR}/hub"])))
    outcomes = {image: outcome for (_, image), (outcome, _) in ran.found().items()}
    assert (ran.stderr, outcomes) == ("", {IMAGE: "no-mirror", DIGEST: "no-mirror"} | {served: "works"})
    assert {pull["nodeClass"] for pull in ran.report["pulls"]} == {""}
    assert f"registries.conf is that of {kind} corp, {FROM}" in ran.report["notes"]


def test_the_settings_of_the_cluster(audit: Audit) -> None:
    """Insecure and blocked registries; an Image of another API group has none."""
    other = {"apiVersion": "image.openshift.io/v1", "kind": "Image", "metadata": {"name": "cluster"}, "spec": 3}
    blocking = image(blockedRegistries=["docker.io"], insecureRegistries=["mirror.corp"], allowedRegistries=["x"])
    ran = audit(blocking, other)
    assert {outcome for outcome, _ in ran.found().values()} == {"fails"}
    notes = ran.report["notes"]
    assert f"registries.conf is that of Image cluster, {FROM}" in notes
    assert any("ClusterVersion was not read" in note for note in notes)
    assert any("policy.json" in note for note in notes)
    version = {"kind": "ClusterVersion", "metadata": {"name": "version"}, "status": {"desired": {"image": DIGEST}}}
    ran = audit(blocking, version)
    assert {outcome for outcome, _ in ran.found().values()} == {"no-mirror"}
    assert any("does not block docker.io: the cluster's own release image" in note for note in ran.report["notes"])
    ran = audit(TAGS, image(insecureRegistries=[MIRROR]))
    [source, _] = next(pull for pull in ran.report["pulls"] if pull["image"] == IMAGE)["sources"]
    assert (source["name"], source["insecure"]) == (f"{MIRROR}/hub/library/nginx", True)


def test_short_names(audit: Audit) -> None:
    """The operator begins with two search registries, and has CRI-O's short_name_mode disabled: each is asked."""
    found = audit(TAGS, pod("a", "short", "nginx:1.27")).found()
    assert found["a", "nginx:1.27"] == ("works", None)
    found = audit(TAGS, pod("a", "short", "nginx:1.27"), image(containerRuntimeSearchRegistries=["quay.io"])).found()
    assert found["a", "nginx:1.27"][0] == "anonymous"


def test_the_rendered_machine_configs_win(audit: Audit) -> None:
    """The mirror sets count where a pool's is missing, and are not looked at where it is not."""
    metadata, status = {"name": "worker"}, {"configuration": {"name": "rendered-worker-1"}}
    pool = {"kind": "MachineConfigPool", "metadata": metadata, "spec": {"nodeSelector": {}}, "status": status}
    storage = {"files": [{"path": "/etc/containers/registries.conf", "contents": {"source": "data:,"}}]}
    config = {
        "kind": "MachineConfig",
        "metadata": {"name": "rendered-worker-1"},
        "spec": {"config": {"storage": storage}},
    }
    ran = audit(pool, config, TAGS, sets("ImageTagMirrorSet", ("NO", ["x"])))
    assert {(pull["nodeClass"], pull["outcome"]) for pull in ran.report["pulls"]} == {("worker", "no-mirror")}
    assert not any("operator" in note.lower() for note in ran.report["notes"])
    assert audit(pool, TAGS).found()["a", IMAGE] == ("works", None)
    ran = audit(pool)
    assert (ran.status, ran.stdout) == (2, "") and "MachineConfig rendered-worker-1 of pool worker" in ran.stderr


def test_a_machine_config_that_is_not_unicode(audit: Audit) -> None:
    status = {"configuration": {"name": "rendered-worker-1"}}
    pool = {"kind": "MachineConfigPool", "metadata": {"name": "worker"}, "spec": {}, "status": status}
    storage = {"files": [{"path": "/etc/containers/registries.conf", "contents": {"source": "data:,\ud800"}}]}
    metadata = {"name": "rendered-worker-1"}
    config = {"kind": "MachineConfig", "metadata": metadata, "spec": {"config": {"storage": storage}}}
    ran = audit(pool, config)
    assert ran.status == 1 and {reason for _, reason in ran.found().values()} == {"invalid-registries-conf"}


def place_of(scope: str) -> str:
    return f"{scope!r} is not a registry, a repository or *.DOMAIN"


@pytest.mark.parametrize(
    ("objects", "says"),
    [
        ([sets("ImageTagMirrorSet", ("", ["a"]))], f"ImageTagMirrorSet corp: source {place_of('')}"),
        ([sets("ImageContentSourcePolicy", ("a.io", ["https://b"]))], "corp: mirror 'https://b' of source a.io is not"),
        (
            [TAGS, sets("ImageDigestMirrorSet", ("docker.io", ["a"]), mirrorSourcePolicy="NeverContactSource")],
            "source docker.io has another mirrorSourcePolicy in another set",
        ),
        (
            [sets("ImageDigestMirrorSet", ("*.a.io", ["b"])), image(insecureRegistries=["x.a.io"])],
            "source *.a.io: x.a.io is below it, and has no mirrors",
        ),
        ([image(insecureRegistries=["a*"])], f"Image cluster: insecureRegistries: {place_of('a*')}"),
    ],
)
def test_what_the_operator_refuses(audit: Audit, objects: list[Object], says: str) -> None:
    ran = audit(*objects)
    assert (ran.status, ran.stdout) == (2, "") and says in ran.stderr
    assert (
        "; the Machine Config Operator refuses that, and the nodes keep the registries.conf they have; " in ran.stderr
    )


@pytest.mark.parametrize(
    ("objects", "says"),
    [
        ([], "neither MachineConfigPools nor mirror sets found; kubectl get"),
        ([{**TAGS, "spec": []}], "ImageTagMirrorSet corp: spec is missing; save it again with kubectl"),
        ([image(blockedRegistries="a")], "Image cluster: blockedRegistries is not a list of strings; save it"),
        (
            [{**TAGS, "spec": {"imageTagMirrors": ["x"]}}],
            "ImageTagMirrorSet corp: imageTagMirrors is not a list of obj",
        ),
        (
            [{**TAGS, "spec": {"imageTagMirrors": [{"source": "a.io", "mirrors": [3]}]}}],
            "ImageTagMirrorSet corp: mirrors is not a list of strings",
        ),
    ],
)
def test_files_of_another_shape(audit: Audit, objects: list[Object], says: str) -> None:
    ran = audit(*objects)
    assert (ran.status, ran.stdout) == (2, "") and says in ran.stderr


@pytest.mark.parametrize("spec", [{}, {"imageTagMirrors": []}, {"imageTagMirrors": [{"source": "docker.io"}]}])
def test_an_empty_set_mirrors_nothing(audit: Audit, spec: Object) -> None:
    ran = audit({**TAGS, "spec": spec, "metadata": None})
    assert {outcome for outcome, _ in ran.found().values()} == {"no-mirror"}


def test_no_password_of_a_place_is_told(audit: Audit) -> None:
    for found in (
        sets("ImageTagMirrorSet", ("user:c4nary@docker.io", ["a"])),
        sets("ImageTagMirrorSet", ("docker.io", ["https://user:c4nary@a"])),
        image(insecureRegistries=["user:c4nary@*"]),
        image(insecureRegistries=["user:c4nary@a"], containerRuntimeSearchRegistries=["user:c4nary@a"]),
    ):
        ran = audit(found)
        assert "c4nary" not in ran.stdout + ran.stderr


def test_what_the_operator_writes_and_crio_refuses(audit: Audit) -> None:
    ran = audit(image(insecureRegistries=["https://mirror.corp"]))
    assert set(ran.found().values()) == {("fails", "invalid-registries-conf")}
    text = ran.report["pulls"][0]["text"]
    assert "location: 'https://mirror.corp' must be HOST" in text and text.endswith(
        "correct the objects that it is made of"
    )
