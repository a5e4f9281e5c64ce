"""``explain``: what a person is told, where the decision comes from, and what never shows."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator

import pytest

from conftest import NodeMaker
from crio_credential_provider.testbed.cluster import ApiServer
from explaining import CANARY, CONF, FORMS, MIRROR, SOURCE, Place, entry, secret
from node import COMMAND, NGINX, NGINX_HASH, basic, recorded_request, request

pytestmark = pytest.mark.process


@pytest.fixture
def place(make_node: NodeMaker, cluster: ApiServer) -> Place:
    return Place(make_node(*COMMAND, journald=False), cluster)


# -- on the node ------------------------------------------------------------------------------------------------------


def test_a_pull_that_gets_its_credential(place: Place) -> None:
    done = place.alpha()
    assert (done.status, done.err) == (0, "")
    report = done.report
    assert report["verdict"] == {
        "status": "passed",
        "text": f"CRI-O asks {SOURCE} with the credential of secret creds",
        "remedy": None,
    }
    assert report["image"] == {
        "typed": "nginx:1.27",
        "repository": NGINX,
        "tag": "1.27",
        "digest": None,
        "pulledAs": [f"{NGINX}:1.27"],
    }
    assert report["account"] == {"namespace": "team-alpha", "serviceAccount": "default", "pod": "web"}
    assert report["registries"]["match"]["prefix"] == "docker.io"
    assert report["registries"]["match"]["line"] == 3
    assert (report["registries"]["others"], report["registries"]["othersLeft"]) == ([], 0)
    assert [(source["name"], source["asked"]) for source in report["sources"]] == [
        (SOURCE, True),
        (NGINX, True),
        ("digests.corp/hub/library/nginx", False),
    ]
    path = f"{place.node.auth_dir}/team-alpha-{NGINX_HASH}.json"
    assert report["authFile"] == {"path": path, "keys": [SOURCE], "credHelpers": {}}
    assert report["answer"]["auth"] == {NGINX: {"username": "", "password": ""}}


def test_the_text_tells_the_verdict_first_and_every_step(place: Place) -> None:
    done = place.run("nginx:1.27", "-n", "team-alpha", "--pod=web")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"CRI-O asks {SOURCE} with the credential of secret creds.\n")
    for words in (
        f"Image {NGINX}:1.27 normalized by the kubelet from nginx:1.27",
        "Pod team-alpha/web",
        "registries.conf: 1 table",
        "Table docker.io,",
        f"1. {SOURCE} (mirror) credential: secret creds, key {MIRROR}",
        f"2. {NGINX} (the registry's own location, last) no credential",
        "- digests.corp/hub/library/nginx (mirror, by digest only) not asked: it only serves pulls by digest",
        "found: creds",
        f"key {SOURCE}",
        f"pull record for {NGINX}",
        f"First it asks {SOURCE} with the credential of secret creds.",
        "the kubelet passes that credential",
    ):
        assert words in done.flat, words
    # Hanging indents and no blanks at the ends of lines.
    assert not [line for line in done.out.splitlines() if line != line.rstrip()]
    path = f"{place.node.auth_dir}/team-alpha-{NGINX_HASH}.json"
    assert f"Auth file  {path}" in done.lines
    assert max(len(line) for line in done.lines if path not in line) <= 100


def test_a_digest_changes_who_is_asked(place: Place) -> None:
    done = place.json(f"nginx@sha256:{'a' * 64}", "-n", "team-alpha", "--pod=web")
    assert [source["asked"] for source in done.report["sources"]] == [True, True, True]
    assert done.report["sources"][1]["name"] == "digests.corp/hub/library/nginx"


def test_the_tenants_usual_mistake_is_named(place: Place) -> None:
    """A secret for Docker Hub, where the mirror is asked."""
    done = place.beta()
    assert done.status == 3
    text = done.report["verdict"]["text"]
    assert text.startswith(f"CRI-O asks {SOURCE} without a credential: ")
    why = f"docker.io is the registry in the pod's image; {MIRROR} needs a key of its own"
    assert f"Secret creds has the key docker.io: {why}" in text
    assert f"create secret docker-registry NAME --docker-server={MIRROR} " in done.report["verdict"]["remedy"]
    assert done.source(NGINX)["credential"] == {"from": "secret", "secret": "creds", "key": "docker.io"}


def test_the_remedy_is_enough(place: Place) -> None:
    place.cluster.add_secret("team-beta", "made", {"auths": {MIRROR: {"auth": basic("user", CANARY)}}})
    assert place.beta().status == 0


def test_an_image_without_a_mirror_asks_nobody(place: Place) -> None:
    done = place.json("quay.io/team/app", "-n", "team-alpha", "--pod=web")
    assert (done.status, done.report["verdict"]["status"]) == (0, "passed")
    assert (
        done.report["plugin"]["reason"]
        == "no table of registries.conf sends this image to a mirror or another location"
    )
    assert place.cluster.requests == []
    assert done.report["account"]["serviceAccount"] is None


def test_only_what_the_plugin_asks_for_is_asked(place: Place) -> None:
    place.alpha()
    assert [(asked.user, f"{asked.method} {asked.path.partition('?')[0]}") for asked in place.cluster.requests] == [
        ("system:node:node1", "GET /api/v1/namespaces/team-alpha/pods/web"),
        ("system:node:node1", "POST /api/v1/namespaces/team-alpha/serviceaccounts/default/token"),
        ("system:serviceaccount:team-alpha:default", "GET /api/v1/namespaces/team-alpha/secrets"),
    ]


@pytest.mark.parametrize("mode", ["pod", "service-account"])
def test_the_other_modes(place: Place, mode: str) -> None:
    place.cluster.allow("team-alpha", "default", ["get"], "secrets")
    place.cluster.allow("team-alpha", "default", ["get"], "serviceaccounts")
    done = place.alpha(f"--secrets-from={mode}")
    assert (done.status, done.source(SOURCE)["credential"]["secret"]) == (0, "creds")


def test_a_refusal_of_the_cluster_is_the_plugins_own(place: Place) -> None:
    place.cluster.revoke("team-alpha", "default")
    done = place.alpha()
    assert (done.status, done.err) == (3, "")
    assert done.report["plugin"]["outcome"] == "fault-cluster"
    assert done.report["verdict"]["text"].startswith("The plugin fails (exit status 1): the API server ")
    assert "create role list-secrets-as-default" in done.report["verdict"]["remedy"]
    # What is known without the cluster, and what CRI-O does all the same.
    assert done.report["sources"][0]["name"] == SOURCE
    assert any("reads the node's own" in step for step in done.report["then"])
    # Each command is a line, as it is pasted.
    lines = [line.strip() for line in place.run("nginx:1.27", "-n", "team-alpha", "--pod=web").lines]
    start = lines.index("To do: grant it with a Role:")
    assert " && ".join(lines[start : start + 3]).replace(": && ", ": ") == f"To do: {done.report['verdict']['remedy']}"


def test_a_broken_configuration_is_the_plugins_own_fault(place: Place) -> None:
    place.node.write(place.node.registries_conf_dir / "10-bad.conf", "[[registry]\n")
    done = place.alpha()
    assert done.status == 3
    assert done.report["plugin"]["outcome"] == "fault-config"
    assert "10-bad.conf:1: not valid TOML" in done.report["verdict"]["text"]
    assert done.report["verdict"]["remedy"].endswith("10-bad.conf:1 write [[registry]]")
    states = {os.path.basename(file["path"]): file["state"] for file in done.report["registries"]["files"]}
    assert states["registries.conf"] == "read"
    assert states["10-bad.conf"].startswith("line 1: not valid TOML")
    assert (done.report["sources"], done.report["then"], done.report["answer"]) == ([], [], None)


def test_a_drop_in_that_replaces_a_table_is_told(place: Place) -> None:
    place.node.write(place.node.registries_conf_dir / "50-hub.conf", '\n[[registry]]\nlocation = "docker.io"\n')
    done = place.alpha()
    assert done.status == 0
    match = done.report["registries"]["match"]
    assert (os.path.basename(match["file"]), match["line"], match["mirrors"]) == ("50-hub.conf", 2, [])
    assert [(os.path.basename(table["file"]), table["line"]) for table in match["replaces"]] == [("registries.conf", 3)]


def test_near_tables_are_told_with_their_places(place: Place) -> None:
    text = "".join(
        f'[[registry]]\nprefix = "{prefix}"\nlocation = "elsewhere.corp"\n'
        for prefix in ("docker.io/lib", "quay.io", "index.docker.io")
    )
    place.node.write(place.node.registries_conf_dir / "x.conf", text)
    place.node.write(place.node.registries_conf_dir / "y.conf", '[[registry]]\nlocation = "docker.io/library"\n')
    found = place.alpha().report["registries"]
    assert (found["match"]["prefix"], found["othersLeft"]) == ("docker.io/library", 1)
    told = [
        (other["prefix"], os.path.basename(other["file"]), other["line"], other["why"]) for other in found["others"]
    ]
    assert told == [
        ("docker.io", "registries.conf", 3, "it matches, but is shorter than docker.io/library"),
        ("docker.io/lib", "x.conf", 1, "it ends within a component of the name"),
        ("index.docker.io", "x.conf", 7, "Docker Hub images are named docker.io, not index.docker.io"),
    ]


def test_nothing_is_kept(place: Place) -> None:
    """Not even the parsed form of files that changed long ago, which the plugin keeps."""
    for path in (place.node.registries_conf, place.node.kubeconfig):
        os.utime(path, (1, 1))
    time.sleep(2.1)
    assert place.alpha().status == 0
    assert not place.node.cache_dir.exists()
    assert place.node.run(request(NGINX)).status == 0
    assert place.node.cache_dir.exists(), "the plugin would have"


def test_everything_blocked(place: Place) -> None:
    place.node.write_registries_conf('[[registry]]\nlocation = "quay.io"\nblocked = true\n')
    done = place.json("quay.io/team/app", "-n", "team-alpha", "--pod=web")
    assert (done.status, done.report["sources"][0]["blocked"]) == (3, True)
    assert "blocked" in done.report["verdict"]["text"]


def test_a_mirror_that_makes_no_reference_fails_the_pull(place: Place) -> None:
    place.node.write_registries_conf('[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "mirror"\n')
    done = place.json("docker.io/nginx:1", "-n", "team-alpha", "--pod=web")
    assert (done.status, done.report["plugin"]["outcome"]) == (3, "fault-config")
    place.node.write_registries_conf(
        '[[registry]]\nlocation = "docker.io"\n'
        '[[registry.mirror]]\nlocation = "mirror"\npull-from-mirror = "digest-only"\n'
        f'[[registry.mirror]]\nlocation = "{MIRROR}/hub"\n'
    )
    assert place.json("docker.io/nginx:1", "-n", "team-alpha", "--pod=web").status == 0
    done = place.json(f"docker.io/nginx@sha256:{'a' * 64}", "-n", "team-alpha", "--pod=web")
    assert (done.status, done.report["plugin"]["exitStatus"]) == (3, 0)
    assert done.report["verdict"]["text"].startswith("CRI-O fails this pull, regardless of the secrets: ")
    assert {source["asked"] for source in done.report["sources"]} == {False}


def test_auth_files_that_crio_does_not_read(place: Place) -> None:
    place.node.write_registries_conf(f'credential-helpers = ["other"]\n{CONF}')
    place.node.write("var/lib/kubelet/config.json", json.dumps({"auths": entry(MIRROR)}))
    done = place.alpha()
    assert (done.status, done.source(SOURCE)["credential"]) == (3, None)
    assert "CRI-O reads no auth file" in done.report["verdict"]["text"]
    assert any("reads no auth file" in step for step in done.report["then"])
    assert f"first it asks {SOURCE} with the credential from docker-credential-other" in done.report["then"]
    assert 'registries.conf:1 write credential-helpers = ["containers-auth.json", "other"]' in str(
        done.report["verdict"]["remedy"]
    )


def test_the_nodes_own_credential_counts(place: Place) -> None:
    place.node.write("var/lib/kubelet/config.json", json.dumps({"auths": entry(f"{MIRROR}/hub")}))
    done = place.beta()
    assert done.status == 0
    assert done.source(SOURCE)["credential"] == {"from": "node", "secret": None, "key": f"{MIRROR}/hub"}


def test_a_second_mirror_that_has_the_credential(place: Place) -> None:
    place.node.write_mirrors("docker.io", "first.corp/hub", f"{MIRROR}/hub")
    done = place.json("docker.io/nginx", "-n", "team-alpha", "--pod=web")
    assert done.status == 0
    assert "first.corp/hub/library/nginx, which CRI-O asks before it, gets none" in done.report["verdict"]["text"]


def test_mirror_registry_keeps_secrets_away_and_says_so(place: Place) -> None:
    done = place.alpha(f"--mirror-registry={MIRROR}", "--mirror-registry=other.corp")
    assert done.status == 0
    reason = done.source(NGINX)["reason"]
    assert reason == "--mirror-registry does not cover it, and the global auth file has none"


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """As a user who may read nothing of the node."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_what_root_alone_may_read_is_no_fault_of_the_plugin(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place.json("quay.io/a/b", "-n", "team-alpha", "--pod=web").status == 0
    monkeypatch.setattr(place, "files", list)
    # The root itself is what he names, and may be looked into.
    for directory in list(place.node.root.parents)[:-2]:
        directory.chmod(directory.stat().st_mode | 0o011)
    place.node.root.chmod(0o755)
    (place.node.root / "etc/containers").chmod(0)
    try:
        with as_nobody():
            done = place.json("quay.io/a/b", "-n", "team-alpha", "--pod=web")
    finally:
        (place.node.root / "etc/containers").chmod(0o755)
    assert (done.status, done.report["verdict"]["status"]) == (1, "unknown")
    assert "Permission denied" in done.report["verdict"]["text"] and "as root" in done.report["verdict"]["remedy"]


def test_a_node_auth_file_that_cannot_be_used_is_told_without_a_mirror_too(place: Place) -> None:
    place.node.write("var/lib/kubelet/config.json", "{")
    notes = place.json("quay.io/a/b", "-n", "team-alpha", "--pod=web").report["notes"]
    assert len(notes) == 1 and "var/lib/kubelet/config.json is ignored" in notes[0]


# -- short names ------------------------------------------------------------------------------------------------------


def test_an_alias_leads_elsewhere(place: Place) -> None:
    place.node.write_registries_conf(f'{CONF}\n[aliases]\nnginx = "registry.corp/web/nginx"\n')
    place.cluster.add_secret("team-alpha", "other", {"auths": entry("registry.corp")})
    done = place.json("nginx:1.27", "-n", "team-alpha", "--pod=web")
    assert done.report["image"]["pulledAs"] == ["registry.corp/web/nginx:1.27"]
    assert [source["name"] for source in done.report["sources"] if source["asked"]] == ["registry.corp/web/nginx"]
    assert done.source(SOURCE)["whyNot"] == "the pod's short name resolves to another source"
    spelled = place.json("docker.io/library/nginx:1.27", "-n", "team-alpha", "--pod=web")
    assert spelled.source("registry.corp/web/nginx")["whyNot"] == "CRI-O only asks it for the short name nginx"
    assert spelled.source(SOURCE)["asked"] is True
    # The kubelet's credential goes where the alias leads.
    handed = "has a key for docker.io, the kubelet passes that credential: CRI-O uses it at"
    assert f"{handed} registry.corp instead of any file" in done.report["then"][1]
    assert f"{handed} docker.io instead of any file" in spelled.report["then"][1]


def test_a_command_within_a_reason_is_a_line_too(place: Place) -> None:
    place.node.write_registries_conf('[aliases]\nnginx = "registry.corp/web/nginx"\n')
    place.cluster.revoke("team-alpha", "default")
    done = place.run("nginx:1.27", "-n", "team-alpha", "--pod=web")
    commands = [line.strip() for line in done.lines if "kubectl" in line]
    assert commands and {command.partition(" create ")[0] for command in commands} == {"kubectl -n team-alpha"}
    assert commands[1].endswith(" --serviceaccount=team-alpha:default")


def test_a_request_does_not_tell_of_a_short_name(place: Place) -> None:
    place.node.write_registries_conf(f'{CONF}\n[aliases]\nnginx = "registry.corp/web/nginx"\n')
    place.cluster.add_secret("team-alpha", "other", {"auths": entry("registry.corp")})
    path = place.node.write("request.json", recorded_request())
    steps = place.json(
        "--request", str(path), "--secrets", place.write_objects(FORMS["list"]([secret("a", entry(MIRROR))]))
    ).report["then"]
    assert [step for step in steps if "registry.corp" in step] == [
        "only if the pod uses the short name nginx, it asks registry.corp/web/nginx without a credential"
    ]


def test_a_short_name_that_crio_cannot_complete(place: Place) -> None:
    place.node.write_registries_conf(CONF.partition("\n")[2])
    done = place.alpha()
    assert done.status == 3
    assert "no alias for it and no unqualified-search-registries" in done.report["verdict"]["text"]
    assert "write the image name in full" in done.report["verdict"]["remedy"]
    assert place.json("docker.io/nginx", "-n", "team-alpha", "--pod=web").status == 0


def test_several_search_registries_fail_the_pull_unless_crio_conf_allows_it(place: Place) -> None:
    place.node.write_registries_conf(CONF.replace('["docker.io"]', '["docker.io", "quay.io"]'))
    done = place.alpha()
    assert done.report["image"]["pulledAs"] == [f"{NGINX}:1.27", "quay.io/nginx:1.27"]
    assert (done.status, done.report["verdict"]["status"]) == (3, "failed")
    assert "CRI-O's short_name_mode is enforcing" in done.report["verdict"]["text"]
    assert done.report["verdict"]["remedy"].startswith(f"write the image name in full, {NGINX}")
    assert [source["asked"] for source in done.report["sources"]] == [False] * len(done.report["sources"])
    assert place.json(f"{NGINX}:1.27", "-n", "team-alpha", "--pod=web").status == 0
    drop_in = place.node.write("etc/crio/crio.conf.d/10-names", '[crio.image]\nshort_name_mode = "disabled"\n')
    done = place.alpha()
    assert (done.status, done.report["verdict"]["status"]) == (0, "passed")
    assert done.report["then"][-1].startswith(
        "if that refuses, does not have the image or does not answer, it asks quay.io"
    )
    drop_in.write_text('[crio.image]\nshort_name_mode = "enforcing"\n')
    assert place.alpha().status == 3
