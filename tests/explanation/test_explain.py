"""``explain``: what a person is told, where the decision comes from, and what never shows."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import pty
import re
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping
from fcntl import ioctl
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import NodeMaker
from crio_credential_provider.commands import explain
from crio_credential_provider.testbed.certificates import Authority
from crio_credential_provider.testbed.cluster import ISSUER, ApiServer, Grant
from node import (
    COMMAND,
    ENVIRONMENT,
    NGINX,
    NGINX_HASH,
    PROGRAM,
    Node,
    basic,
    bound_claims,
    jwt,
    recorded_request,
    request,
)

pytestmark = pytest.mark.process

MIRROR = "mirror.corp:5000"
SOURCE = f"{MIRROR}/hub/library/nginx"
CANARY = "c4nary-Pa55word"
CONF = f"""\
unqualified-search-registries = ["docker.io"]

[[registry]]
prefix = "docker.io"
location = "docker.io"

[[registry.mirror]]
location = "{MIRROR}/hub"

[[registry.mirror]]
location = "digests.corp/hub"
pull-from-mirror = "digest-only"
"""
CURRENT = "/var/lib/kubelet/pki/kubelet-client-current.pem"


class Done:
    """One run of the command."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status = status
        self.out = out
        self.err = err

    @property
    def report(self) -> Any:
        return json.loads(self.out)

    @property
    def flat(self) -> str:
        """The text without its line breaks, which depend on the width."""
        return re.sub(r"\s+", " ", self.out)

    def source(self, name: str) -> Any:
        return next(source for source in self.report["sources"] if source["name"] == name)


class Place:
    """A node, its kubelet's kubeconfig, and a cluster with two teams: alpha has a credential for the mirror."""

    def __init__(self, node: Node, cluster: ApiServer) -> None:
        self.node = node
        self.cluster = cluster
        node.write_registries_conf(CONF)
        node.write("etc/systemd/system/kubelet.service", "[Service]\nExecStart=/usr/bin/kubelet\n")
        node.write("etc/crio/crio.conf", "")
        node.write_kubeconfig(cluster.url, cluster.authority.certificate_pem)
        identity = cluster.node_identity("node1")
        node.write(CURRENT, identity.certificate_pem + identity.key_pem)
        for team, key in (("alpha", MIRROR), ("beta", "docker.io")):
            namespace = f"team-{team}"
            cluster.add_secret(namespace, "creds", {"auths": {key: {"auth": basic("user", CANARY)}}})
            cluster.add_service_account(namespace, "default", ["creds"])
            cluster.add_pod(namespace, "web", "node1")
            cluster.allow(namespace, "default")

    def run(self, *arguments: str) -> Done:
        """As $PROGRAM, else in this process."""
        given = [*arguments, "--root", str(self.node.root)]
        before = self.files()
        if PROGRAM:
            ran = subprocess.run([PROGRAM, "explain", *given], capture_output=True, text=True, check=False)
            done = Done(ran.returncode, ran.stdout, ran.stderr)
        else:
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    status = explain.run(given)
                except SystemExit as stop:
                    status = int(stop.code or 0)
            done = Done(status, out.getvalue(), err.getvalue())
        assert self.files() == before, "it only looks"
        assert_clean(done.out + done.err)
        return done

    def json(self, *arguments: str) -> Done:
        return self.run(*arguments, "--output=json")

    def alpha(self, *arguments: str) -> Done:
        return self.json("nginx:1.27", "-n", "team-alpha", "--pod=web", *arguments)

    def beta(self, *arguments: str) -> Done:
        return self.json("nginx:1.27", "-n", "team-beta", "--pod=web", *arguments)

    def files(self) -> list[tuple[str, float]]:
        return sorted((str(p), p.stat().st_mtime) for p in self.node.root.rglob("*") if p.is_file())

    def write_user(self, members: Mapping[str, str]) -> Path:
        """A person's kubeconfig."""
        path = self.node.root / "admin.conf"
        path.write_text(
            json.dumps(
                {
                    "kind": "Config",
                    "clusters": [{"name": "c", "cluster": {"server": self.cluster.url, "certificate-authority": "ca"}}],
                    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                    "current-context": "x",
                    "users": [{"name": "u", "user": dict(members)}],
                }
            )
        )
        (self.node.root / "ca").write_text(self.cluster.authority.certificate_pem)
        return path

    def write_admin(self, authority: Authority) -> Path:
        identity = authority.issue("admin", organization="system:masters", client=True)
        self.node.write("admin.pem", identity.certificate_pem + identity.key_pem)
        return self.write_user({"client-certificate": "admin.pem", "client-key": "admin.pem"})

    def write_objects(self, text: str) -> str:
        return str(self.node.write("objects.yaml", text))


def assert_clean(text: str) -> None:
    """Neither a secret's content, nor a token, nor a control character."""
    assert CANARY not in text
    assert basic("user", CANARY) not in text
    assert not re.search(r"[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}\.", text), "a token"
    assert all(character.isprintable() or character == "\n" for character in text)


@pytest.fixture
def place(make_node: NodeMaker, cluster: ApiServer) -> Place:
    return Place(make_node(*COMMAND, journald=False), cluster)


def secret(name: str, auths: Mapping[str, Any], namespace: str = "team-alpha", **members: Any) -> dict[str, Any]:
    content = json.dumps({"auths": auths})
    return {
        "kind": "Secret",
        "apiVersion": "v1",
        "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": name, "namespace": namespace},
        "data": {".dockerconfigjson": base64.b64encode(content.encode()).decode()},
        **members,
    }


def entry(key: str) -> dict[str, Any]:
    return {key: {"auth": basic("user", CANARY)}}


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
    assert max(map(len, done.out.splitlines())) <= 100


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
    # A command is not broken into lines.
    text = place.run("nginx:1.27", "-n", "team-alpha", "--pod=web").out
    assert done.report["verdict"]["remedy"] in text


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
    assert done.report["verdict"]["text"].startswith("CRI-O fails this pull, whatever the secrets contain: ")
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


# -- who asks ---------------------------------------------------------------------------------------------------------


def test_an_administrator_may_for_any_service_account(place: Place, authority: Authority) -> None:
    admin = place.write_admin(authority)
    done = place.json("nginx", "-n", "team-alpha", "--kubeconfig", str(admin))
    assert (done.status, done.err) == (0, "")
    assert any(str(admin) in note and "audience" in note for note in done.report["notes"])
    assert place.json("nginx", "-n", "team-alpha", "--pod=web", "--kubeconfig", str(admin)).status == 0


@pytest.mark.parametrize("member", ["token", "tokenFile"])
def test_a_user_with_a_token(place: Place, member: str) -> None:
    place.cluster.add_service_account("ops", "person")
    for verb, resource in (("create", "serviceaccounts/token"), ("get", "pods")):
        user = "system:serviceaccount:ops:person"
        place.cluster.grants.append(Grant(user, None, frozenset([verb]), resource, None, "person"))
    token = place.cluster.mint_token("ops", "person")
    place.node.write("token", token + "\n")
    admin = place.write_user({"token": token} if member == "token" else {"tokenFile": "token"})
    assert place.json("nginx", "-n", "team-alpha", "--kubeconfig", str(admin)).status == 0
    done = place.json("nginx", "-n", "team-alpha", "--pod=web", "--kubeconfig", str(admin), "--secrets-from=pod")
    assert done.report["plugin"]["outcome"] == "fault-cluster"  # this person may not read secrets


@pytest.mark.parametrize("member", ["exec", "auth-provider", "username"])
def test_a_user_that_needs_more_is_told_what_to_do(place: Place, member: str) -> None:
    admin = place.write_user({member: CANARY})
    done = place.json("nginx", "-n", "team-alpha", "--kubeconfig", str(admin))
    assert done.status == 1
    assert "create token" in done.err and "--token-file" in done.err
    assert done.report["verdict"]["status"] == "unknown"


def test_a_token_from_a_file(place: Place) -> None:
    token = place.cluster.mint_token("team-alpha", "default", "web")
    path = str(place.node.write("token", token))
    done = place.json("nginx", "--token-file", path)
    assert (done.status, done.report["account"]["pod"]) == (0, "web")
    for arguments in (["-n", "team-beta"], ["--pod", "other"], ["--service-account", "other"]):
        done = place.json("nginx", "--token-file", path, *arguments)
        assert (done.status, done.out) == (2, "")
        assert "not for" in done.err
    place.node.write("token", place.cluster.mint_token("team-alpha", "default", "web", expires_in=-60))
    done = place.json("nginx", "--token-file", path)
    assert done.status == 3 and "the token in the request has expired" in done.report["notes"][0]
    place.node.write("token", "none")
    assert "not a JWT" in place.json("nginx", "--token-file", path).err


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("without a pod", "give the pod with --pod"),
        ("unknown pod", "only for pods that run on it"),
        ("server away", "no answer from the API server"),
        ("no kubeconfig", "--kubeconfig"),
    ],
)
def test_what_is_known_without_the_cluster_is_told(place: Place, case: str, words: str) -> None:
    arguments = ["nginx:1.27", "-n", "team-alpha", "--pod=web"]
    if case == "without a pod":
        arguments.pop()
    elif case == "unknown pod":
        arguments[-1] = "--pod=other"
    elif case == "server away":
        arguments += ["--apiserver=https://127.0.0.1:1", "--deadline=1s"]
    else:
        place.node.kubeconfig.unlink()
    done = place.json(*arguments)
    assert done.status == 1
    assert words in done.err
    report = done.report
    assert (report["plugin"]["outcome"], report["plugin"]["exitStatus"]) == ("unknown", None)
    assert report["verdict"]["text"].startswith("Unknown: ")
    assert report["registries"]["match"]["prefix"] == "docker.io"
    assert {source["reason"] for source in report["sources"]} == {"not known"}
    assert (report["authFile"], report["answer"], report["then"]) == (None, None, [])
    text = place.run(*arguments)
    assert text.status == 1 and "credential: not known" in text.out


# -- a file in place of the cluster -----------------------------------------------------------------------------------

FORMS = {
    "list": lambda items: json.dumps({"kind": "List", "apiVersion": "v1", "items": items}),
    "secret list": lambda items: json.dumps(
        {"kind": "SecretList", "items": [{k: v for k, v in i.items() if k != "kind"} for i in items]}
    ),
    "one": lambda items: json.dumps(items[0]),
    "documents": lambda items: "---\n".join(f"# a comment\n{json.dumps(item, indent=1)}\n" for item in items),
}


@pytest.mark.parametrize("form", FORMS)
def test_secrets_from_a_file(place: Place, form: str) -> None:
    items = [secret("a", entry(MIRROR)), secret("b", entry("docker.io"))]
    path = place.write_objects(FORMS[form](items))
    done = place.alpha("--secrets", path)
    assert (done.status, done.err) == (0, "")
    assert done.source(SOURCE)["credential"]["secret"] == "a"
    assert place.cluster.requests == []
    assert done.report["account"] == {"namespace": "team-alpha", "serviceAccount": "default", "pod": "web"}


def test_secrets_as_kubectl_writes_them_in_yaml(place: Place) -> None:
    encoded = secret("x", entry(MIRROR))["data"][".dockerconfigjson"]
    path = place.write_objects(
        "apiVersion: v1\nitems:\n- apiVersion: v1\n  data:\n    .dockerconfigjson: " + encoded + "\n  kind: Secret\n"
        "  metadata:\n    name: mirror-creds\n    namespace: team-alpha\n  type: kubernetes.io/dockerconfigjson\n"
        'kind: List\nmetadata:\n  resourceVersion: ""\n'
    )
    done = place.alpha("--secrets", path)
    assert (done.status, done.source(SOURCE)["credential"]["secret"]) == (0, "mirror-creds")


def test_a_manifest_that_is_not_applied_yet(place: Place) -> None:
    """stringData, and no namespace."""
    path = place.write_objects(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: new}\ntype: kubernetes.io/dockerconfigjson\n"
        f"stringData:\n  .dockerconfigjson: '{json.dumps({'auths': entry(MIRROR)})}'\n"
    )
    assert place.alpha("--secrets", path).status == 0


def test_secrets_that_the_plugin_does_not_ask_for_are_told(place: Place) -> None:
    items = [secret("opaque", entry(MIRROR), type="Opaque"), secret("foreign", entry(MIRROR), "team-beta")]
    done = place.alpha("--secrets", place.write_objects(FORMS["list"](items)))
    assert done.status == 3
    assert done.report["secrets"]["looked"] == []
    assert (
        "secret opaque is of type Opaque: the plugin lists only kubernetes.io/dockerconfigjson" in done.report["notes"]
    )


def test_secrets_of_another_namespace_are_told_in_the_headline(place: Place) -> None:
    items = [secret("a", entry(MIRROR), space) for space in ("default", "team-alhpa")]
    done = place.alpha("--secrets", place.write_objects(FORMS["list"](items)))
    verdict = done.report["verdict"]
    assert done.status == 3 and verdict["text"].endswith(
        "has no secret of namespace team-alpha; it has some of default, team-alhpa; did you mean 'team-alhpa'?"
    )
    text = place.run("nginx", "-n", "team-alpha", "--secrets", str(place.node.root / "objects.yaml")).flat
    assert "did you mean 'team-alhpa'? To do: give -n" in text
    assert verdict["remedy"].startswith("give -n the pod's namespace, or write the file with kubectl -n team-alpha get")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("--pod=wbe", "has no Pod team-alpha/wbe; it has db, web; did you mean 'web'?"),
        ("--pod=other", "has no Pod team-alpha/other; it has db, web"),
        ("--service-account=biulder", "has no ServiceAccount team-alpha/biulder; it has builder; did you mean"),
    ],
)
def test_a_mistyped_pod_is_not_well(place: Place, given: str, words: str) -> None:
    items = [
        secret("a", entry(MIRROR)),
        *({"kind": "Pod", "metadata": {"name": name, "namespace": "team-alpha"}, "spec": {}} for name in ("web", "db")),
        {"kind": "ServiceAccount", "metadata": {"name": "builder", "namespace": "team-alpha"}},
        {"kind": "Pod", "metadata": {"name": "wbe", "namespace": "team-beta"}, "spec": {}},
    ]
    path = place.write_objects(FORMS["list"](items))
    for mode in ("namespace", "service-account", "pod")[: 3 if "pod" in given else 2]:
        done = place.run("nginx", "-n", "team-alpha", given, "--secrets", path, f"--secrets-from={mode}")
        assert (done.status, done.out) == (2, "") and words in done.err


def test_the_file_may_say_whose_secrets_count(place: Place) -> None:
    items = [secret("a", entry(MIRROR)), secret("b", entry(MIRROR)), secret("c", entry(MIRROR))]
    pod = {
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "team-alpha", "uid": "u"},
        "spec": {"serviceAccountName": "builder", "imagePullSecrets": [{"name": "c"}, {"name": "a"}]},
    }
    account = {
        "kind": "ServiceAccount",
        "metadata": {"name": "builder", "namespace": "team-alpha"},
        "imagePullSecrets": [{"name": "b"}, {"name": "gone"}],
    }
    path = place.write_objects(FORMS["list"]([*items, pod, account]))
    done = place.alpha("--secrets", path, "--secrets-from=pod")
    assert done.report["account"]["serviceAccount"] == "builder"
    assert (done.report["secrets"]["looked"], done.source(SOURCE)["credential"]["secret"]) == (["c", "a"], "c")
    assert done.report["notes"] == []
    done = place.alpha("--secrets", path, "--secrets-from=service-account")
    assert done.report["notes"] == [
        "the API server was not asked: that the service account may read these secrets is assumed"
    ]
    assert done.source(SOURCE)["credential"]["secret"] == "b"
    assert done.report["secrets"]["skipped"] == [
        {"secret": "gone", "reason": "it is named in imagePullSecrets, but not found"}
    ]
    # Without any pod: its service account's; without either: all.
    path = place.write_objects(FORMS["list"](items))
    done = place.json("nginx", "-n", "team-alpha", "--pod=other", "--secrets", path, "--secrets-from=pod")
    assert "assumed to be all pull secrets of the file, by name" in done.report["notes"][0]
    assert done.report["secrets"]["looked"] == ["a", "b", "c"]


def test_a_pod_that_was_not_created_yet(place: Place) -> None:
    pod = {
        "kind": "Pod",
        "metadata": {"name": "web"},
        "spec": {"containers": [], "imagePullSecrets": [{"name": "b"}]},
    }
    path = place.write_objects(FORMS["list"]([secret("a", entry(MIRROR)), secret("b", entry(MIRROR)), pod]))
    done = place.alpha("--secrets", path, "--secrets-from=pod")
    assert (done.status, done.source(SOURCE)["credential"]["secret"]) == (0, "b")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: [", "neither JSON nor YAML"),
        ("", "objects.yaml is empty: kubectl wrote nothing to it"),
        (" \n", "objects.yaml is empty: kubectl wrote nothing to it"),
        ("kind: ConfigMap\nmetadata: {name: x}\n", "has no Secret"),
        # Too deep; whether this program or libyaml says so first depends on how far ahead that one reads.
        ("[" * 100_000, "neither JSON nor YAML: "),
        ("- " * 100_000, "nested deeper than 64 at line 1"),
        ("{a: " * 100_000, "neither JSON nor YAML: "),
        ('{"kind":"List","items":[' * 300 + "]}" * 300, "has no Secret"),
        (f"{CANARY}: [{CANARY}\n", "neither JSON nor YAML"),
        ("\0", "neither JSON nor YAML"),
        ("a: &a [x]\nb: [*a, *a]\n", "has no Secret"),
    ],
)
def test_a_file_that_is_none(place: Place, text: str, words: str) -> None:
    done = place.alpha("--secrets", place.write_objects(text))
    assert (done.status, done.out) == (2, "")
    assert words in done.err and "Traceback" not in done.err


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["Secret", "Pod", "List"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["kind", "items", "metadata", "name", "namespace", "type", "data", "stringData", "spec", "x"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=_JSON, mode=st.sampled_from(["namespace", "pod", "service-account"]))
def test_any_file_gives_an_explanation_or_is_refused(place: Place, document: Any, mode: str) -> None:
    path = place.write_objects(json.dumps({"kind": "List", "items": [document, {"kind": "Pod", "metadata": document}]}))
    done = place.alpha("--secrets", path, f"--secrets-from={mode}")
    assert done.status in (0, 2, 3)
    assert done.status == 2 or done.report["verdict"]["text"]


def test_a_file_of_junk_secrets(place: Place) -> None:
    items = [
        secret("no-data", {}, data=None),
        secret("bad-base64", {}, data={".dockerconfigjson": f"{CANARY}!"}),
        secret("bad-json", {}, data={".dockerconfigjson": basic("x", CANARY)}),
        secret("numbers", {}, data={".dockerconfigjson": 5}),
        secret("listed", {}, data=[1]),
        secret("no-type", {}, type=None),
        {"kind": "Secret", "metadata": []},
        {"kind": "Secret"},
    ]
    done = place.alpha("--secrets", place.write_objects(FORMS["list"](items)))
    assert done.status == 3
    assert {skipped["secret"] for skipped in done.report["secrets"]["skipped"]} == {
        "no-data",
        "bad-base64",
        "bad-json",
        "numbers",
        "listed",
    }


# -- a recorded request -----------------------------------------------------------------------------------------------


def test_a_static_pods_request(place: Place) -> None:
    path = str(place.node.write("request.json", recorded_request("request-static-pod")))
    done = place.json("--request", path)
    assert done.status == 3
    assert "has no service account token" in done.report["verdict"]["text"]
    assert "a key for mirror.corp:5000" in done.report["verdict"]["remedy"]
    assert {source["asked"] for source in done.report["sources"]} == {None}
    assert "no tag or digest" in place.run("--request", path).flat
    place.node.write("var/lib/kubelet/config.json", json.dumps({"auths": entry(MIRROR)}))
    done = place.json("--request", path)
    assert (done.status, done.report["plugin"]["exitStatus"]) == (0, 0)
    assert "with the node's own credential" in done.report["verdict"]["text"]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"", "standard input is empty"),
        (b"{", "not valid JSON"),
        (b'{"kind":"Other"}', "has the kind 'Other'"),
        (request("", "x"), "has no image"),
        (request(NGINX, CANARY), "not a JWT"),
        (request("Upper/Case", jwt(bound_claims())), "invalid image"),
        (request(NGINX, jwt(bound_claims(namespace="../x"))), "no valid namespace"),
    ],
)
def test_a_request_that_is_none_is_the_plugins_fault(place: Place, message: bytes, words: str) -> None:
    path = str(place.node.write("request.json", message))
    done = place.json("--request", path)
    assert (done.status, done.err) == (3, "")
    assert words in done.report["plugin"]["error"]
    assert (done.report["plugin"]["outcome"], done.report["plugin"]["exitStatus"]) == ("fault-request", 1)
    assert place.run("--request", path).out.startswith("The plugin fails (exit status 1): ")


# -- the node's own configuration of the plugin -----------------------------------------------------------------------


def provider_config(
    arguments: list[str],
    env: Mapping[str, str] | None = None,
    name: str = "crio-credential-provider",
    audience: str = ISSUER,
) -> str:
    other = {"name": "ecr-credential-provider", "args": ["get-credentials"]}
    ours = {
        "name": name,
        "args": arguments,
        "tokenAttributes": {"serviceAccountTokenAudience": audience},
        "env": [{"name": key, "value": value} for key, value in (env or {}).items()],
    }
    return json.dumps({"kind": "CredentialProviderConfig", "providers": [other, ours]})


def test_arguments_of_the_credential_provider_config_count(place: Place) -> None:
    text = provider_config(["--mirror-registry=other.corp", "--auth-dir", "/run/auth"])
    path = str(place.node.write("config.yaml", text))
    done = place.alpha("--config", path)
    assert done.status == 0
    assert "covered by --mirror-registry other.corp" in done.report["plugin"]["reason"]
    # A person's own flags go before them, and are not added to them.
    done = place.alpha("--config", path, f"--mirror-registry={MIRROR}")
    assert done.report["authFile"]["path"].startswith("/run/auth/team-alpha-")
    assert done.status == 0
    place.node.write("config.yaml", text.replace("other.corp", MIRROR))
    assert place.alpha("--config", path).report["authFile"] is not None
    assert place.alpha("--config", path, "--mirror-registry=other.corp").report["authFile"] is None


def test_variables_of_the_credential_provider_config_count(place: Place) -> None:
    env = {"CRIO_CREDENTIAL_PROVIDER_AUTH_DIR": "/run/of-env", "OTHER": "x"}
    path = str(place.node.write("config.yaml", provider_config([], env)))
    assert place.alpha("--config", path).report["authFile"]["path"].startswith("/run/of-env/")


def test_a_directory_of_credential_provider_configs(place: Place) -> None:
    place.node.write("configs/10-x.conf", "not read: [")
    place.node.write("configs/20-y.yml", provider_config(["--auth-dir=/run/y"]))
    place.node.write("configs/sub.yaml/z.yaml", "not read: [")
    done = place.alpha("--config", str(place.node.root / "configs"))
    assert done.report["authFile"]["path"].startswith("/run/y/")


UNIT = "[Service]\nExecStart=/usr/bin/kubelet --image-credential-provider-config=/etc/kubernetes/providers.yaml\n"


def test_the_file_that_the_kubelet_names_counts(place: Place) -> None:
    place.node.write("etc/systemd/system/kubelet.service", UNIT)
    path = place.node.write("etc/kubernetes/providers.yaml", provider_config(["--auth-dir=/run/auth"]))
    done = place.alpha()
    assert (done.status, done.report["authFile"]["path"].startswith("/run/auth/")) == (0, True)
    assert done.report["notes"][0] == f"the plugin's arguments come from {path}, the kubelet's configuration"
    # What a person names goes before it.
    other = place.node.write("other.yaml", provider_config(["--auth-dir=/run/other"]))
    assert place.alpha("--config", str(other)).report["authFile"]["path"].startswith("/run/other/")
    place.node.write("etc/kubernetes/providers.yaml", provider_config(["--none"]))
    done = place.alpha()
    assert (done.status, done.report["plugin"]["exitStatus"]) == (3, 2)
    assert done.report["notes"] == [f"the arguments come from {path}"]


@pytest.mark.parametrize(
    ("text", "words"), [("providers: [", "is not valid YAML"), ("kind: X", "is not a CredentialProviderConfig")]
)
def test_a_file_of_the_kubelet_that_cannot_be_used_is_told(place: Place, text: str, words: str) -> None:
    place.node.write("etc/systemd/system/kubelet.service", UNIT)
    place.node.write("etc/kubernetes/providers.yaml", text)
    done = place.alpha()
    assert done.status == 0
    assert done.report["notes"][0].startswith("the kubelet's CredentialProviderConfig is ignored, and the plugin's")
    assert words in done.report["notes"][0]


def test_without_token_attributes_no_credential_is_found(place: Place) -> None:
    """The kubelet runs the plugin, and hands it no token."""
    document = json.loads(provider_config([]))
    del document["providers"][1]["tokenAttributes"]
    path = place.node.write("config.yaml", json.dumps(document))
    done = place.alpha("--config", str(path))
    assert (done.status, done.report["authFile"]) == (3, None)
    assert "tokenAttributes" in done.report["verdict"]["remedy"]
    assert f"the plugin's entry in {path} has no tokenAttributes" in " ".join(done.report["notes"])


def test_the_token_has_the_audience_that_the_kubelet_asks_for(place: Place) -> None:
    """A wrong one fails here as it fails at the pull."""
    path = place.node.write("config.yaml", provider_config([], audience="https://elsewhere.example"))
    done = place.alpha("--config", str(path))
    assert (done.status, done.report["plugin"]["exitStatus"]) == (3, 1)
    assert "401" in done.report["plugin"]["error"]
    assert "https://elsewhere.example" in " ".join(done.report["notes"])


def test_a_renamed_entry_is_found(place: Place) -> None:
    path = place.node.write("config.yaml", provider_config(["--auth-dir=/run/auth"], name="crio-credential-provider-2"))
    assert place.alpha("--config", str(path)).report["authFile"]["path"].startswith("/run/auth/")


def test_arguments_that_the_plugin_refuses(place: Place) -> None:
    path = str(place.node.write("config.yaml", provider_config(["--mirror-regsitry=mirror.corp"])))
    done = place.alpha("--config", path)
    assert (done.status, done.report["plugin"]["exitStatus"]) == (3, 2)
    assert "--mirror-regsitry" in done.report["plugin"]["error"]
    assert done.report["notes"] == [f"the arguments come from {path}"]


def test_a_registries_conf_for_the_plugin_alone_that_is_missing(place: Place) -> None:
    """CRI-O reads its own, and pulls on."""
    text = "kind: CredentialProviderConfig\nproviders:\n- name: crio-credential-provider\n  args:\n"
    path = place.node.write("config.yaml", f"{text}  - --registries-conf=/etc/containers/nope.conf\n")
    verdict = place.alpha("--config", str(path)).report["verdict"]
    assert verdict["remedy"].startswith(f"remove --registries-conf from {path}:5, or ")
    assert "/etc/containers/nope.conf" in verdict["text"] and "CRI-O refuses" not in verdict["text"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("providers: [", "not valid YAML"),
        ("kind: Pod\n", "not a CredentialProviderConfig"),
        (provider_config([], name="other"), "it has ecr-credential-provider, other"),
        (
            '{"kind":"CredentialProviderConfig","providers":[{"name":"crio-credential-provider","args":"x"}]}',
            "must be lists",
        ),
    ],
)
def test_a_credential_provider_config_that_cannot_be_used(place: Place, text: str, words: str) -> None:
    done = place.alpha("--config", str(place.node.write("config.yaml", text)))
    assert (done.status, done.out) == (2, "")
    assert words in done.err


# -- usage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "IMAGE is missing"),
        (["nginx"], "-n NAMESPACE is missing"),
        (["Nginx", "-n", "x"], "did you mean 'nginx'?"),
        (["nginx:1:2", "-n", "x"], "InvalidImageName"),
        (["nginx", "-n", "Not_A_Name"], "not a valid Kubernetes name"),
        (["nginx", "-n", "x", "--pod", "a", "--service-account", "b"], "not allowed with"),
        (["nginx", "-n", "x", "--secrets-from=pod"], "requires --pod"),
        (["nginx", "-n", "x", "--secrets", "/nowhere"], "--secrets: /nowhere: no such file"),
        (["nginx", "-n", "x", "--config", "/nowhere"], "--config: /nowhere: no such file or directory"),
        (["nginx", "--request", "/dev/null"], "remove IMAGE"),
        (["--request", "-", "--secrets", "-"], "standard input"),
        (["nginx", "-n", "x", "--deadline=never"], "--deadline: 'never' is not a duration"),
        (["nginx", "-n", "x", "--output=xml"], "--output: 'xml' is not one of text, json"),
    ],
)
def test_wrong_usage(place: Place, arguments: list[str], words: str) -> None:
    done = place.run(*arguments)
    assert (done.status, done.out) == (2, "")
    assert words in done.err


@pytest.mark.skipif(bool(PROGRAM), reason="calls are counted in this process")
def test_the_kubelet_and_its_configuration_are_looked_up_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what is told of the plugin's arguments is what they were."""
    from crio_credential_provider.commands.request import place as request_place
    from crio_credential_provider.node import crio, kubelet

    path = place.node.write("provider.yaml", provider_config(["--secrets-from=pod"]))
    unit = f"[Service]\nExecStart=/usr/bin/kubelet --image-credential-provider-config=/{path.name}\n"
    place.node.write("etc/systemd/system/kubelet.service", unit)
    calls: list[str] = []

    def count(module: ModuleType, name: str) -> None:
        real = getattr(module, name)

        def counted(*given: Any, **named: Any) -> Any:
            calls.append(name)
            return real(*given, **named)

        monkeypatch.setattr(module, name, counted)

    for module, name in ((kubelet, "find_kubelet"), (crio, "find_crio"), (request_place, "_load_entry")):
        count(module, name)
    done = place.alpha()
    assert done.report["secrets"]["from"] == "pod" and str(path) in " ".join(done.report["notes"])
    assert sorted(calls) == ["_load_entry", "find_crio", "find_kubelet"]


def test_a_persons_paths_start_where_he_is(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.node.root)
    done = place.alpha("--registries-conf", "etc/containers/registries.conf")
    assert (done.status, done.report["registries"]["files"][0]["path"]) == (0, str(place.node.registries_conf))


# -- what never shows -------------------------------------------------------------------------------------------------


def test_names_cannot_move_the_cursor(place: Place) -> None:
    """Keys come from tenants, tables from files that others may have written."""
    place.node.write(place.node.registries_conf_dir / "x.conf", '[[registry]]\nlocation = "docker.io/\\u001b[2J"\n')
    keys = {**entry(f"{MIRROR}/\x1b]0;\ntitle\x07"), f"{MIRROR}\u202e": {}, **entry("docker.io")}
    place.cluster.add_secret("team-beta", "creds", {"auths": keys})
    done = place.run("nginx:1.27", "-n", "team-beta", "--pod=web")
    assert done.status == 3
    assert "docker.io/\\x1b[2J" in done.flat and f"{MIRROR}/..." in done.flat and "title" not in done.flat
    assert place.beta().status == 3


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        (f"https://user:{CANARY}@{MIRROR}/v2/", f"https://***@{MIRROR}/v2/"),
        (f"https://{MIRROR}/user:{CANARY}@x", f"https://{MIRROR}/..."),
        (f"https://{MIRROR}/?password={CANARY}", f"https://{MIRROR}/..."),
        (f"https://user:{CANARY}@{MIRROR}/a://b", f"https://***@{MIRROR}/..."),
        (f"https://{MIRROR}/{CANARY}", f"https://{MIRROR}/..."),
        (f"{MIRROR}/{CANARY}", f"{MIRROR}/..."),
        (f"{MIRROR}/hub:{CANARY}", f"{MIRROR}/..."),
        (f"{MIRROR}/v2/{CANARY}", f"{MIRROR}/..."),
        (f"mirror.corp:{CANARY}", "mirror.corp:..."),
        (f"mirror.corp:{CANARY}/x@y", "mirror.corp:..."),
        (f"{CANARY}://{MIRROR}", "(not a host)"),
        (f"*.corp:5000/{CANARY}", "*.corp:5000/..."),
    ],
)
@pytest.mark.parametrize("member", [{}, {"auth": "x"}, *entry("").values()])
def test_a_password_in_a_key_never_shows(place: Place, key: str, shown: str, member: dict[str, str]) -> None:
    place.cluster.add_secret("team-beta", "creds", {"auths": {key: member}})
    done = place.beta()
    text = place.run("nginx:1.27", "-n", "team-beta", "--pod=web")
    assert CANARY.lower() not in (done.out + text.out).lower()
    source = done.source(SOURCE)
    told_keys = [(source["credential"] or {}).get("key"), *(other["key"] for other in source["others"])]
    assert shown in told_keys and done.status in (0, 3)


def test_a_key_with_a_password_is_told_what_to_write_instead(place: Place) -> None:
    place.cluster.add_secret("team-beta", "creds", {"auths": {f"https://user:{CANARY}@{MIRROR}/v2/": {}}})
    assert f"a key has no user name: write {MIRROR}" in place.beta().report["verdict"]["text"]


def test_blanks_around_a_key_are_seen(place: Place) -> None:
    items = [secret("a", entry(f" {MIRROR}"))]
    done = place.run("nginx", "-n", "team-alpha", "--secrets", place.write_objects(FORMS["list"](items)))
    assert f"Secret a has the key ' {MIRROR}': it has leading or trailing spaces" in done.flat
    assert f"in place of ' {MIRROR}'" in done.flat and f"not secret a, key ' {MIRROR}':" in done.flat


def test_near_misses_are_told_nearest_first(place: Place) -> None:
    auths = {**entry("mirror.corp"), **entry("docker.io"), **entry("quay.io"), **entry(f"{MIRROR}/hub2")}
    place.cluster.add_secret("team-beta", "creds", {"auths": auths})
    source = place.beta().source(SOURCE)
    assert [other["key"] for other in source["others"]] == [f"{MIRROR}/hub2", "docker.io", "mirror.corp"]
    assert source["othersLeft"] == 1


def test_why_the_others_lost(place: Place) -> None:
    keys = ("*.corp:5000", f"https://{MIRROR}/v1/", MIRROR, f"{MIRROR}/hub")
    for name in ("b", "c"):
        auths = {key: value for key in keys for value in entry(key).values()}
        place.cluster.add_secret("team-beta", name, {"auths": auths})
    source = place.beta().source(SOURCE)
    assert source["credential"] == {"from": "secret", "secret": "b", "key": f"{MIRROR}/hub"}
    assert [(other["secret"], other["key"], other["why"]) for other in source["others"]] == [
        ("c", f"{MIRROR}/hub", "same key, and secret b comes first"),
        ("b", MIRROR, f"it is less specific than {MIRROR}/hub"),
        ("c", MIRROR, f"it is less specific than {MIRROR}/hub"),
        ("b", keys[1], "a key written as a URL or with another name of the host comes after an exact key"),
        ("c", keys[1], "a key written as a URL or with another name of the host comes after an exact key"),
    ]
    assert source["othersLeft"] == 2


def test_entries_without_a_credential_are_told(place: Place) -> None:
    auths = {SOURCE: {}, f"{MIRROR}/hub": {"auth": "!"}, MIRROR: {"auth": basic("user", CANARY)}}
    place.cluster.add_secret("team-beta", "creds", {"auths": auths})
    others = [(other["key"], other["why"]) for other in place.beta().source(SOURCE)["others"]]
    assert others == [(SOURCE, "it has no credential"), (f"{MIRROR}/hub", "it has an auth that is not base64")]


def test_many_secrets_are_told_of_in_few_lines(place: Place) -> None:
    for number in range(40):
        auths = {**entry(MIRROR), **entry(f"{MIRROR}/hub{number}")}
        place.cluster.add_secret("team-alpha", f"s{number:02}", {"auths": auths})
    source = place.alpha().source(SOURCE)
    assert (source["credential"]["secret"], len(source["others"]), source["othersLeft"]) == ("creds", 5, 35)
    assert source["others"][0] == {
        "secret": "s00",
        "key": MIRROR,
        "why": "same key, and secret creds comes first",
    }


def test_many_secrets_and_tables_fit_on_a_screen(place: Place) -> None:
    tables = [f'[[registry]]\nlocation = "docker.io/team{number:03}"\n' for number in range(300)]
    place.node.write_registries_conf(CONF + "\n".join(tables))
    junk = [{**secret(f"j{number:03}", entry(MIRROR)), "data": {}} for number in range(300)]
    helm = [{**secret(f"h{number:03}", entry(MIRROR)), "type": "helm.sh/release.v1"} for number in range(300)]
    good = [secret(f"s{number:03}", entry("other.corp")) for number in range(300)]
    path = place.write_objects(FORMS["list"]([*junk, *helm, *good]))
    arguments = ("docker.io/team123x/app", "-n", "team-alpha", "--secrets", path)
    done = place.run(*arguments)
    assert len(done.out.splitlines()) < 100
    assert "s018, s019 and 280 more" in done.flat and "h018, h019 and 280 more are of type helm.sh" in done.flat
    assert "not used: 280 more, which --output json shows" in done.flat
    report = place.json(*arguments).report
    assert (len(report["secrets"]["looked"]), len(report["secrets"]["skipped"])) == (300, 300)
    assert [other["prefix"] for other in report["registries"]["others"]][:2] == [
        "docker.io/team123",
        "docker.io/team120",
    ]


def test_a_file_name_keeps_its_letters(place: Place) -> None:
    (place.node.root / "objects.yaml").write_text(json.dumps(secret("a", entry(MIRROR))))
    with contextlib.chdir(place.node.root):
        out = place.run("nginx", "-n", "team-alpha", "--pod=p", "--secrets-from=pod", "--secrets", "objects.yaml").out
    assert "objects.yaml has no Pod team-alpha/p" in out


# -- terminals and pipes ----------------------------------------------------------------------------------------------


def command(place: Place, *arguments: str) -> list[str]:
    return [
        *COMMAND,
        "explain",
        "nginx:1.27",
        "-n",
        "team-alpha",
        "--pod=web",
        "--root",
        str(place.node.root),
        *arguments,
    ]


def environment(**more: str) -> dict[str, str]:
    return {**ENVIRONMENT, "TERM": "xterm-256color", **more}


def on_terminal(place: Place, columns: int, **more: str) -> str:
    """What the command writes to a terminal of that width."""
    try:
        leader, follower = pty.openpty()
    except OSError as error:
        pytest.skip(f"no terminal can be made here: {error}")
    ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(command(place), stdout=follower, stderr=subprocess.PIPE, env=environment(**more))
    os.close(follower)
    data = b"".join(_read_all(leader))
    assert process.wait(30) == 0
    assert process.communicate()[1] == b""
    return data.decode().replace("\r\n", "\n")


def _read_all(descriptor: int) -> Iterator[bytes]:
    with contextlib.suppress(OSError), open(descriptor, "rb", buffering=0) as file:
        while block := file.read(65536):
            yield block


def test_a_terminal_of_40_columns(place: Place) -> None:
    text = on_terminal(place, 40)
    assert "\x1b[" in text
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert max(map(len, plain.splitlines())) <= 40
    assert NGINX_HASH in re.sub(r"\s+", "", plain), "nothing is cut off"
    assert_clean(plain)


def test_no_color(place: Place) -> None:
    assert "\x1b[3" not in on_terminal(place, 100, NO_COLOR="1")


def test_a_pipe_gets_no_colour_and_may_close(place: Place) -> None:
    done = subprocess.run(command(place), capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    for arguments in ([], ["--output=json"]):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            command(place, *arguments), stdout=writer, stderr=subprocess.PIPE, text=True, env=environment(), check=False
        )
        os.close(writer)
        assert (done.returncode, done.stderr) == (1, "")


def test_a_full_disk_is_told(place: Place) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command(place), stdout=full, stderr=subprocess.PIPE, text=True, env=environment(), check=False
        )
    assert (done.returncode, "No space left" in done.stderr) == (1, True)


def test_standard_input_may_be_the_request_or_the_secrets(place: Place) -> None:
    base = [*COMMAND, "explain", "--root", str(place.node.root), "--output=json"]
    runs = (
        (["--request", "-"], recorded_request("request-static-pod"), 3),
        (["nginx", "-n", "team-alpha", "--secrets", "-"], json.dumps(secret("a", entry(MIRROR))).encode(), 0),
    )
    for arguments, stdin, status in runs:
        done = subprocess.run([*base, *arguments], input=stdin, capture_output=True, env=environment(), check=False)
        assert (done.returncode, done.stderr) == (status, b"")


@pytest.mark.skipif(bool(PROGRAM), reason="what ships takes no PYTHONIOENCODING")
@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("ascii", b"h\\xfcb\\u65e5"), ("latin-1", b"h\xfcb\\u65e5"), ("utf-8", b"h\xc3\xbcb\xe6\x97\xa5")],
)
def test_an_encoding_that_lacks_a_letter(place: Place, encoding: str, shown: bytes) -> None:
    table = '[[registry]]\nlocation = "docker.io/h\u00fcb\u65e5"\n'
    place.node.write(place.node.registries_conf_dir / "x.conf", table)
    variables = environment(PYTHONIOENCODING=encoding)
    done = subprocess.run(command(place), capture_output=True, env=variables, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert shown in done.stdout


def test_the_help_has_examples_and_exit_statuses() -> None:
    done = subprocess.run(
        [*COMMAND, "explain", "--help"], capture_output=True, text=True, env=environment(), check=False
    )
    assert done.returncode == 0
    for words in ("Examples:", "Exit status:", "--secrets FILE", "--token-file FILE", "--config FILE", "-n NAMESPACE"):
        assert words in done.stdout


# -- secrets as people make them ---------------------------------------------------------------------------------------

KUBECTL = """\
#!/usr/bin/env python3
import base64, json, re, sys
path, arguments = sys.argv[0] + ".objects", sys.argv[1:]
objects = {o["metadata"]["name"]: o for o in json.load(open(path))["items"]}
flags = dict(a.split("=", 1) for a in arguments if a.startswith("--") and "=" in a)
match arguments[:2] == ["-n", "team-alpha"] and arguments[2:]:
    case ["get", "secret", name, "-o", output]:
        key = re.fullmatch(r"jsonpath=\\{\\.data\\.(.*)\\}", output)[1]
        sys.exit(print(objects[name]["data"][key.replace("\\\\.", ".")], end=""))
    case ["create", "secret", "generic", name, *_] if name not in objects:
        data = {flags["--from-file"].removesuffix("=/dev/stdin"): base64.b64encode(sys.stdin.buffer.read()).decode()}
        made = {"kind": "Secret", "metadata": {"name": name, "namespace": "team-alpha"}, "data": data}
        objects[name] = made | {"type": flags["--type"]}
    case ["create", "secret", "docker-registry", name, *_] if name not in objects:
        login = {m: flags[f"--docker-{m}"] for m in ("username", "password")}
        content = base64.b64encode(json.dumps({"auths": {flags["--docker-server"]: login}}).encode()).decode()
        made = {"kind": "Secret", "type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": content}}
        objects[name] = made | {"metadata": {"name": name, "namespace": "team-alpha"}}
    case other:
        sys.exit(f"fake kubectl: {other}")
json.dump({"kind": "List", "items": list(objects.values())}, open(path, "w"))
"""

AUTHS = {"auths": entry(MIRROR)}
BARE = json.dumps(AUTHS["auths"]).encode()
GOOD = json.dumps(AUTHS).encode()

SPOILT: dict[str, tuple[str, str, bytes, str]] = {
    "an Opaque one": ("Opaque", ".dockerconfigjson", GOOD, "of type 'Opaque', and the plugin only lists"),
    "an Opaque one with another key": ("Opaque", "config.json", GOOD, "of type 'Opaque'"),
    "an Opaque one with the key of nobody": ("Opaque", "pull-secret", GOOD, "of type 'Opaque'"),
    "OpenShift's for podman": (
        "kubernetes.io/podmanconfigjson",
        "auth.json",
        GOOD,
        "of type 'kubernetes.io/podman",
    ),
    "an old one": ("kubernetes.io/dockercfg", ".dockercfg", BARE, "of type 'kubernetes.io/dockercfg', and the plugin"),
    "a misspelled type": (
        "kubernetes.io/dockerconfig",
        ".dockerconfigjson",
        GOOD,
        "of type 'kubernetes.io/dockerconfig'",
    ),
    "an Opaque one with a byte order mark": (
        "Opaque",
        ".dockerconfigjson",
        b"\xef\xbb\xbf" + GOOD,
        "; its .dockerconfigjson cannot be used either",
    ),
    "hosts without auths": (
        "",
        ".dockerconfigjson",
        BARE,
        'no "auths" around its hosts: it is in the old .dockercfg format',
    ),
    "a wrapper": ("", ".dockerconfigjson", json.dumps({"value": GOOD.decode()}).encode(), 'but "value" instead'),
    "base64 twice": ("", ".dockerconfigjson", base64.b64encode(GOOD), "it is base64 of JSON: encoded twice"),
    "a byte order mark": ("", ".dockerconfigjson", b"\xef\xbb\xbf" + GOOD, "it begins with a byte order mark"),
    "PowerShell's": ("", ".dockerconfigjson", GOOD.decode().encode("utf-16"), "it is UTF-16"),
    "YAML": ("", ".dockerconfigjson", b"auths:\n  mirror.corp:5000: {}\n", "it is YAML"),
    "nothing": ("", ".dockerconfigjson", b"", "the file is empty"),
    "auths null": ("", ".dockerconfigjson", b'{"auths": null}', 'its "auths" is empty'),
    "a data key without its dot": ("", "dockerconfigjson", GOOD, "has no .dockerconfigjson, but dockerconfigjson"),
    "Docker Desktop's": (
        "",
        ".dockerconfigjson",
        b'{"auths": {"mirror.corp:5000": {}}, "credsStore": "desktop"}',
        "it has a credsStore: docker login kept the password on the machine where it ran",
    ),
    "two registries, one with a number": (
        "",
        ".dockerconfigjson",
        b'{"auths": {"quay.io": {"auth": "YTpi"}, "mirror.corp:5000": {"auth": 5}}}',
        "entry 2 of auths (mirror.corp:5000) must have strings as values",
    ),
    "two registries and a comma too many": (
        "",
        ".dockerconfigjson",
        b'{"auths": {"quay.io": {"auth": "YTpi"}, "mirror.corp:5000": {"auth": "YTpi"},}}',
        "not valid JSON",
    ),
    "an auth in plain": ("", ".dockerconfigjson", b'{"auths": {"mirror.corp:5000": {"auth": "a:b"}}}', "plain text"),
    "an auth in the URL-safe alphabet": (
        "",
        ".dockerconfigjson",
        b'{"auths": {"mirror.corp:5000": {"auth": "c3ZjOsO_w74_Pn5-fsO_", "username": "a", "password": "b"}}}',
        "- and _ belong to the URL-safe alphabet",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_the_secret_that_cannot_be_used_is_in_the_headline_and_what_is_to_be_done_mends_it(
    place: Place, name: str
) -> None:
    kind, key, content, words = SPOILT[name]
    members = {"type": kind} if kind else {}
    spoilt = secret("spoilt", {}, data={key: base64.b64encode(content).decode()}, **members)
    other = secret("unrelated", entry("quay.corp"), type="Opaque")
    tls = secret("tls", {}, type="kubernetes.io/tls", data={"tls.key": "AA=="})
    kubectl = place.node.write("bin/kubectl", KUBECTL)
    kubectl.chmod(0o755)
    objects = place.node.write("bin/kubectl.objects", json.dumps({"kind": "List", "items": [other, spoilt, tls]}))
    arguments = ("nginx:1.27", "-n", "team-alpha", "--secrets", str(objects))
    done = place.json(*arguments)
    verdict = done.report["verdict"]
    assert done.status == 3 and words in verdict["text"] and "spoilt" in verdict["text"]
    assert "unrelated" not in verdict["text"] and "spoilt" in verdict["remedy"]
    command = re.search(r"(kubectl|\{ printf) .*", verdict["remedy"])
    assert command is not None
    environment = {"PATH": f"{kubectl.parent}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-ec", command[0]], env=environment, check=True, timeout=30)
    again = place.json(*arguments)
    assert (again.status, again.source(SOURCE)["credential"]["secret"]) == (0, "spoilt-pull")
    assert spoilt in json.loads(objects.read_text())["items"], "it may hold what others use"


def test_what_others_may_need_is_not_deleted(place: Place) -> None:
    content = base64.b64encode(GOOD).decode()
    shared = secret("shared", {}, type="Opaque", data={".dockerconfigjson": content, "app.conf": "eA=="})
    broken = secret("broken", {}, type="Opaque", data={"config.json": "e30="})
    objects = place.write_objects(json.dumps({"kind": "List", "items": [shared, broken]}))
    remedy = place.json("nginx:1.27", "-n", "team-alpha", "--secrets", objects).report["verdict"]["remedy"]
    assert "generic shared-pull" in remedy and "--force" not in remedy and "delete" not in remedy
    objects = place.write_objects(FORMS["list"]([shared, secret("shared-pull", entry("quay.corp"))]))
    remedy = place.json("nginx:1.27", "-n", "team-alpha", "--secrets", objects).report["verdict"]["remedy"]
    assert "generic shared-pull-pull" in remedy
    objects = place.write_objects(json.dumps(broken))
    remedy = place.json("nginx:1.27", "-n", "team-alpha", "--secrets", objects).report["verdict"]["remedy"]
    assert "docker-registry NAME" in remedy and "delete" not in remedy


def test_on_a_node_the_secrets_of_other_types_are_looked_at_where_no_other_serves(place: Place) -> None:
    place.cluster.add_secret("team-beta", "mine", AUTHS, type="Opaque")
    done = place.beta()
    asked = [asked.path for asked in place.cluster.requests if asked.path.partition("?")[0].endswith("/secrets")]
    assert len(asked) == 2 and "type%21%3Dhelm.sh" in asked[1]
    assert "Secret mine has the key mirror.corp:5000: the secret is of type 'Opaque'" in done.report["verdict"]["text"]
    assert "get secret mine -o jsonpath='{.data." in done.report["verdict"]["remedy"]


@pytest.mark.parametrize("mode", ["pod", "service-account"])
def test_a_pod_names_a_secret_that_is_not_there(place: Place, mode: str) -> None:
    place.cluster.add_service_account("team-beta", "late", ["gone"])
    place.cluster.add_pod("team-beta", "late", "node1", "late")
    place.cluster.allow("team-beta", "late", ("get",))
    place.cluster.allow("team-beta", "late", ("get",), "serviceaccounts")
    done = place.json("nginx", "-n", "team-beta", "--pod=late", f"--secrets-from={mode}")
    assert "secret gone is not used: it is named in imagePullSecrets, but not found" in done.report["verdict"]["text"]
    assert "create secret docker-registry gone " in done.report["verdict"]["remedy"]
    assert "delete" not in done.report["verdict"]["remedy"]


@pytest.mark.parametrize("mode", ["pod", "service-account"])
@pytest.mark.parametrize(
    ("named", "remedy"), [(["regcerd"], " in place of regcerd"), ([], ""), (["regcred-quay"], "")], ids=str
)
def test_a_secret_that_nobody_names_has_the_key(place: Place, mode: str, named: list[str], remedy: str) -> None:
    references = [{"name": name} for name in named]
    metadata = {"namespace": "team-alpha", "name": "web"}
    items = [
        *(secret("regcred", entry(MIRROR)), secret("regcred-quay", entry("quay.corp"))),
        {"kind": "Pod", "metadata": metadata, "spec": {"serviceAccountName": "web", "imagePullSecrets": references}},
        {"kind": "ServiceAccount", "metadata": metadata, "imagePullSecrets": references},
    ]
    verdict = place.alpha("--secrets", place.write_objects(FORMS["list"](items)), f"--secrets-from={mode}").report[
        "verdict"
    ]
    whose = "the pod" if mode == "pod" else "service account web"
    assert f"Secret regcred has the key {MIRROR}: it is not in imagePullSecrets" in verdict["text"]
    assert verdict["remedy"] == f"add regcred to the imagePullSecrets of {whose}{remedy}"


def test_a_password_with_a_line_break_at_its_end_is_told(place: Place) -> None:
    spoilt = secret("echoed", {MIRROR: {"auth": basic("user", "pw\n")}})
    done = place.json("nginx", "-n", "team-alpha", "--secrets", place.write_objects(json.dumps(spoilt)))
    assert done.status == 0 and "the password ends with a newline" in done.report["verdict"]["text"]
    assert done.report["warnings"] == [
        f"secret echoed, key {MIRROR!r}: the password ends with a newline, which echo adds and printf does not; "
        "it is used anyway"
    ]
    assert done.report["verdict"]["remedy"].startswith("if it is refused there, write the credential")
    empty = place.write_objects(json.dumps(secret("empty", {MIRROR: {"auth": basic("user", "")}})))
    assert place.alpha("--secrets", empty).report["verdict"]["remedy"].endswith("in secret empty with one")


def test_an_auth_without_padding_is_told(place: Place) -> None:
    spoilt = secret("bare", {MIRROR: {"auth": "c3ZjOnBhc3MxMg"}})
    done = place.json("nginx", "-n", "team-alpha", "--secrets", place.write_objects(json.dumps(spoilt)))
    note = f"secret bare, key {MIRROR}: its auth has no base64 padding; read as by the kubelet"
    assert done.status == 0 and note in done.report["notes"]


def test_a_mirror_whose_host_is_none_takes_nothing_from_the_others(place: Place) -> None:
    place.node.write_registries_conf(
        CONF.replace("[[registry.mirror]]", "[[registry.mirror]]\nlocation = 'hub_cache.corp'\n[[registry.mirror]]", 1)
    )
    done = place.alpha()
    assert [source["name"] for source in done.report["sources"]][:2] == ["hub_cache.corp/library/nginx", SOURCE]
    assert done.status == 0 and done.report["authFile"]["keys"] == [SOURCE]
    assert "to hub_cache.corp/library/nginx it cannot connect: 'hub_cache.corp'" in done.report["verdict"]["text"]
    assert any("and cannot connect: 'hub_cache.corp' is not a host name" in step for step in done.report["then"])


def test_a_mirror_whose_host_is_none_is_the_only_one(place: Place) -> None:
    place.node.write_registries_conf(
        '\n[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "hub_cache.corp"\n'
    )
    done = place.json("docker.io/nginx:1", "-n", "team-alpha", "--pod=web")
    assert (done.status, done.report["verdict"]["text"]) == (
        3,
        "CRI-O cannot connect to hub_cache.corp/library/nginx: 'hub_cache.corp' is not a host name, which may only "
        "have letters, digits, '-' and '.'",
    )
    conf = place.node.root / "etc/containers/registries.conf"
    assert done.report["verdict"]["remedy"] == f"correct the location at {conf}:5: 'hub_cache.corp'"


def test_no_port_is_above_65535(place: Place) -> None:
    place.node.write_registries_conf(CONF.replace(":5000", ":500000"))
    verdict = place.alpha().report["verdict"]
    assert verdict["text"].endswith("the port is above 65535: 'mirror.corp:500000'")
    assert f"{place.node.root}/etc/containers/registries.conf:8" in verdict["remedy"]


@pytest.mark.parametrize("limit", ['pull-from-mirror = "digest-only"', "mirror-by-digest-only = true"])
def test_why_a_pull_by_tag_asks_no_mirror_is_in_the_headline(place: Place, limit: str) -> None:
    tables = ['[[registry]]\nlocation = "docker.io"\n', f'[[registry.mirror]]\nlocation = "{MIRROR}"\n']
    tables["pull-from" in limit] += f"{limit}\n"
    place.node.write_registries_conf("".join(tables))
    verdict = place.json("docker.io/team/app:1", "-n", "team-alpha", "--pod=web").report["verdict"]
    line = "".join(tables).splitlines().index(limit) + 1
    assert verdict["text"] == (
        f"This pull asks no mirror: {MIRROR}/team/app serves only pulls by digest, because of {limit} at "
        f"{place.node.root}/etc/containers/registries.conf:{line}"
    )


def test_the_port_may_be_wrong_in_registries_conf_as_well(place: Place) -> None:
    place.node.write_registries_conf(CONF.replace(":5000", ""))
    verdict = place.alpha().report["verdict"]
    conf = f"{place.node.root}/etc/containers/registries.conf:8"
    assert f'if that is the mirror\'s port, in {conf} write location = "{MIRROR}/hub"' in verdict["remedy"]
    place.node.write_registries_conf(CONF)
    assert place.alpha().status == 0


def test_an_image_whose_host_is_none(place: Place) -> None:
    done = place.json("quay.io_x/team/app:1", "-n", "team-alpha", "--pod=web")
    assert done.report["image"]["repository"] == "quay.io_x/team/app"
    assert done.status == 3 and "CRI-O cannot connect to quay.io_x/team/app" in done.report["verdict"]["text"]
