"""``kubectl mirror-credentials`` through the real kubectl: a tenant, a laptop, and no access to a node."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from commandline import here
from crio_credential_provider.audit import server
from crio_credential_provider.audit.openshift import mirrorsets
from crio_credential_provider.commands import explain, manifests
from crio_credential_provider.commands.plugin import kubectl
from crio_credential_provider.testbed.cluster import ApiServer
from crio_credential_provider.testbed.registry import MirrorRegistry
from node import Node, basic
from real_programs import need
from tenants import CANARY, CONF, CONFIG, IMAGE, MIRROR, PUBLISHED, Tenants

pytestmark = pytest.mark.process

SOURCE = f"{MIRROR}/hub/library/nginx"
UNSEEN = "the node may have one, which is not visible from here"


@pytest.fixture
def tenants(tmp_path: Path, cluster: ApiServer) -> Tenants:
    return Tenants(tmp_path, cluster)


@pytest.fixture(autouse=True)
def laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Podman's configuration, which says nothing of the nodes."""
    own = tmp_path / "home/.config/containers"
    (own / "registries.conf.d").mkdir(parents=True)
    for name in ("registries.conf", "registries.conf.d/own.conf"):
        (own / name).write_text('[[registry]]\nlocation = "docker.io"\nblocked = true\n')
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


# -- what is said -----------------------------------------------------------------------------------------------------


def test_a_pod(tenants: Tenants) -> None:
    done = tenants.run("explain", "web")
    assert (done.status, done.err) == (0, "")
    assert f"CRI-O asks {SOURCE} with the credential of secret creds." in done.flat
    assert f"Pod team-alpha/web, image 1 of 1: {IMAGE}" in done.lines
    # The files are named as the cluster names them, and those of this machine do not count.
    assert f"kube-public/{PUBLISHED}/registries.conf: 1 table" in done.flat and "home" not in done.out
    assert f"registries.conf is that of ConfigMap kube-public/{PUBLISHED}, the plugin's settings are its defaults." in (
        done.flat
    )
    assert {user for user, _ in tenants.asked()} == {"alice"}
    assert {asked.method for asked in tenants.cluster.requests} == {"GET"}


def test_without_a_credential_of_the_namespace_the_node_may_have_one(tenants: Tenants) -> None:
    status, told = tenants.explain("web", "-n", "team-beta")
    assert (status, told["verdict"]["status"]) == (3, "failed")
    text = told["verdict"]["text"]
    assert f"without a credential of the namespace: no secret has a credential for it; {UNSEEN}. Secret creds" in text
    assert text.count(UNSEEN) == 1 and f"--docker-server={MIRROR}" in told["verdict"]["remedy"]
    assert "global auth file" not in json.dumps(told["sources"])


def test_the_same_as_on_the_node(tenants: Tenants, module_node: Node) -> None:
    node = module_node
    node.write_registries_conf(CONF)
    node.write("etc/crio/crio.conf", "")
    node.write("etc/systemd/system/kubelet.service", "[Service]\nExecStart=/usr/bin/kubelet\n")
    node.write_kubeconfig(tenants.cluster.url, tenants.cluster.authority.certificate_pem)
    identity = tenants.cluster.node_identity("node1")
    node.write("var/lib/kubelet/pki/kubelet-client-current.pem", identity.certificate_pem + identity.key_pem)
    tenants.grant("alice", "team-alpha", "serviceaccounts", "impersonate")
    for namespace, mode in (("team-alpha", "namespace"), ("team-beta", "namespace"), ("team-alpha", "pod")):
        flags = ("-n", namespace, f"--secrets-from={mode}", "--output=json")
        there = here(
            lambda flags=flags: explain.run([IMAGE, "--pod=web", *flags, "--root", str(node.root)])  # type: ignore[misc]
        ).report
        status, told = tenants.explain("web", *flags[:3])
        assert status == explain.STATUSES[there["verdict"]["status"]]
        for name in ("image", "account", "plugin", "secrets", "answer", "warnings"):
            assert told[name] == there[name], name
        for ours, theirs in zip(told["sources"], there["sources"], strict=True):
            assert {**ours, "reason": ""} == {**theirs, "reason": ""}


def test_a_workload_has_each_of_its_images(tenants: Tenants) -> None:
    done = tenants.run("explain", "deploy/web", "--output=json")
    report = done.report
    assert (done.status, report["schemaVersion"]) == (0, 1)
    assert report["workload"] == {"kind": "Deployment", "namespace": "team-alpha", "name": "web"}
    assert [told["image"]["typed"] for told in report["images"]] == [IMAGE, "quay.io/a/b"]
    text = tenants.run("explain", "Deployments.apps/web").out
    assert f"image 1 of 2: {IMAGE}\n" in text and "image 2 of 2: quay.io/a/b\n" in text


def test_one_failing_image_fails_the_workload(tenants: Tenants) -> None:
    spec = tenants.cluster.pods["team-alpha", "web"]["spec"]
    spec["containers"] = [{"image": IMAGE}, {"image": "UPPER"}]
    done = tenants.run("explain", "web", "--output=json")
    assert done.status == 3
    assert [told["verdict"]["status"] for told in done.report["images"]] == ["passed", "failed"]
    assert "InvalidImageName" in done.report["images"][1]["verdict"]["text"]
    verified = tenants.run("verify", "--image=UPPER", "--output=json")
    assert (verified.status, verified.report["images"][0]["verdict"]["succeeds"]) == (3, False)


def test_a_pod_that_does_not_exist_yet(tenants: Tenants) -> None:
    assert tenants.explain("--image", IMAGE)[0] == 0
    assert tenants.explain("--image", IMAGE, "-n", "team-beta")[0] == 3
    tenants.cluster.add_service_account("team-alpha", "other", [])
    for account, status in (("default", 0), ("other", 3)):
        flags = ("--secrets-from=pod", f"--service-account={account}")
        assert tenants.explain("--image", IMAGE, *flags)[0] == status, account


def test_a_template_gets_the_secrets_of_its_service_account(tenants: Tenants) -> None:
    assert tenants.explain("deployment/web", "--secrets-from=pod")[0] == 0
    tenants.cluster.add_service_account("team-alpha", "default", [])
    assert tenants.explain("deployment/web", "--secrets-from=pod")[0] == 3
    # The pod keeps what it was created with.
    assert tenants.explain("web", "--secrets-from=pod")[0] == 0


def test_an_image_without_a_mirror_needs_no_secret(tenants: Tenants) -> None:
    assert tenants.explain("--image", "quay.io/a/b")[0] == 0
    assert not any("secrets" in path for _, path in tenants.asked())


# -- rights -----------------------------------------------------------------------------------------------------------


def forbid(tenants: Tenants, resource: str) -> None:
    tenants.cluster.grants[:] = [
        grant for grant in tenants.cluster.grants if (grant.user, grant.resource) != ("alice", resource)
    ]


@pytest.mark.parametrize("mode", ["namespace", "pod", "service-account"])
def test_secrets_that_may_not_be_read(tenants: Tenants, mode: str) -> None:
    forbid(tenants, "secrets")
    done = tenants.run("explain", "web", f"--secrets-from={mode}", "--output=json")
    (told,) = done.report["images"]
    assert (done.status, told["verdict"]["status"]) == (1, "unknown")
    assert told["verdict"]["text"] == "Unknown: secrets of namespace team-alpha: forbidden for user alice"
    assert "ask an administrator" in told["verdict"]["remedy"] and "--user=alice" in told["verdict"]["remedy"]
    assert "forbidden for user alice" in done.err
    # What is known without them.
    assert [source["name"] for source in told["sources"]] == [SOURCE, "docker.io/library/nginx"]
    assert {source["reason"] for source in told["sources"]} == {"not known"}
    assert told["then"] == []
    verified = tenants.run("verify", "web", f"--secrets-from={mode}", "--output=json")
    assert (verified.status, verified.report["images"][0]["verdict"]["succeeds"]) == (1, None)
    assert "forbidden for user alice" in verified.err


def test_a_service_account_that_may_not_be_read(tenants: Tenants) -> None:
    forbid(tenants, "serviceaccounts")
    status, told = tenants.explain("deployment/web", "--secrets-from=pod")
    assert (status, told["verdict"]["text"]) == (
        1,
        "Unknown: serviceaccounts of namespace team-alpha: forbidden for user alice",
    )
    assert tenants.explain("web")[0] == 0


def test_a_pod_that_may_not_be_read_or_is_not_there(tenants: Tenants) -> None:
    status, told = tenants.explain("nope")
    assert status == 1 and 'pods "nope" not found; check the name and -n' in told
    forbid(tenants, "pods")
    status, told = tenants.explain("web")
    assert status == 1 and "cannot get resource" in told and "or give --image" in told


def test_with_impersonation_the_service_accounts_own_rights_are_checked(tenants: Tenants) -> None:
    note = "is assumed"
    _, told = tenants.explain("web")
    assert any(note in said for said in told["notes"])
    tenants.grant("alice", "team-alpha", "serviceaccounts", "impersonate")
    status, told = tenants.explain("web")
    assert status == 0 and not any(note in said for said in told["notes"])
    assert "system:serviceaccount:team-alpha:default" in {user for user, _ in tenants.asked()}
    tenants.cluster.revoke("team-alpha", "default")
    status, told = tenants.explain("web")
    assert (status, told["plugin"]["outcome"]) == (3, "fault-cluster")
    assert "service account default may not list secrets" in told["verdict"]["text"]
    assert "create rolebinding" in told["verdict"]["remedy"]
    # Alice's own rights are of no use to the plugin, and without impersonation nobody sees that they are needed.
    tenants.cluster.grants[:] = [grant for grant in tenants.cluster.grants if "impersonate" not in grant.verbs]
    assert tenants.explain("web")[0] == 0


# -- how the nodes are configured -------------------------------------------------------------------------------------


def test_published_settings_and_drop_ins(tenants: Tenants) -> None:
    blocked = '[[registry]]\nlocation = "docker.io"\nblocked = true\n'
    tenants.publish({"registries.conf": CONF, "credential-provider-config.yaml": CONFIG, "README": "no"})
    status, told = tenants.explain("web")
    assert (status, told["secrets"]["from"]) == (0, "pod")
    assert f"that of ConfigMap kube-public/{PUBLISHED}, the plugin's settings are there as well." in (
        tenants.run("explain", "web").flat
    )
    assert tenants.explain("web", "--secrets-from=service-account")[1]["secrets"]["from"] == "service-account"
    tenants.publish({"registries.conf": CONF, "50-team.conf": blocked})
    status, told = tenants.explain("web")
    files = [file["path"] for file in told["registries"]["files"]]
    assert (status, files[1]) == (3, f"kube-public/{PUBLISHED}/registries.conf.d/50-team.conf")


def test_what_no_api_server_publishes(tenants: Tenants) -> None:
    """One that lies does not end the command with an internal error, and writes no other file."""
    odd: Any = {"x\0.conf": CONF, "number.conf": 3, "../../x.conf": "[[registry]"}
    tenants.publish({"registries.conf": CONF, **odd})
    assert tenants.explain("web")[0] == 0


def test_an_entry_without_tokens(tenants: Tenants) -> None:
    config = "kind: CredentialProviderConfig\nproviders: [{name: crio-credential-provider}]\n"
    tenants.publish({"registries.conf": CONF, "credential-provider-config.yaml": config})
    status, told = tenants.explain("web")
    assert status == 3 and any("has no tokenAttributes" in note for note in told["notes"])
    assert "/var/lib/kubelet" not in told["verdict"]["remedy"]


def test_a_file(tenants: Tenants, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.conf").write_text(CONF)
    tenants.cluster.others.clear()
    monkeypatch.chdir(tmp_path)
    status, told = tenants.explain("web", "--registries-conf=mine.conf")
    assert (status, [file["path"] for file in told["registries"]["files"]]) == (0, [str(tmp_path / "mine.conf")])
    assert os.getcwd() == str(tmp_path)


@pytest.mark.parametrize("why", ["not found", "not found, or forbidden for this user", "it has no key registries.conf"])
def test_without_a_registries_conf_nothing_is_guessed(tenants: Tenants, why: str) -> None:
    if why == "not found":
        tenants.cluster.others.clear()
    elif why.startswith("not found"):
        forbid(tenants, "configmaps")
    else:
        tenants.publish({"x": CONF})
    for action in ("explain", "verify"):
        done = tenants.run(action, "web")
        assert (done.status, done.out) == (1, "")
        assert f"{PUBLISHED}: {why}; ask the platform team" in done.err and "manifests registries" in done.err
    audited = tenants.run("audit", "-n", "team-alpha")
    assert audited.status == 2 and why in audited.err


def test_a_machine_config_pool(tenants: Tenants) -> None:
    group = "machineconfiguration.openshift.io"
    files = [
        {"path": "/etc/containers/registries.conf", "contents": {"source": "data:," + CONF.replace("\n", "%0A")}},
        {"path": "/var/lib/kubelet/config.json", "contents": {"source": f"data:,{CANARY}"}},
    ]
    tenants.cluster.others += [
        {
            "kind": "MachineConfigPool",
            "metadata": {"name": "worker"},
            "status": {"configuration": {"name": "rendered-worker-1"}},
        },
        {
            "kind": "MachineConfig",
            "metadata": {"name": "rendered-worker-1"},
            "spec": {"config": {"storage": {"files": files}}},
        },
    ]
    status, told = tenants.explain("web", "--machine-config-pool=worker")
    assert status == 1 and "cannot get resource" in told
    for resource in ("machineconfigpools", "machineconfigs"):
        tenants.grant("alice", "", resource, group=group)
    status, told = tenants.explain("web", "--machine-config-pool=worker")
    assert (status, told["registries"]["match"]["file"]) == (0, "rendered-worker-1/registries.conf")


def add_mirror_sets(tenants: Tenants, *readable: str) -> None:
    """In the place of the ConfigMap: one for tags, one for digests; alice may list these resources."""
    tenants.cluster.others[:] = [found for found in tenants.cluster.others if found["kind"] != "ConfigMap"]
    listed = [{"source": "docker.io", "mirrors": [f"{MIRROR}/hub"]}]
    for kind, name, member in (
        ("ImageTagMirrorSet", "tags", {"imageTagMirrors": listed}),
        ("ImageDigestMirrorSet", "digests", {"imageDigestMirrors": [{"source": "quay.io", "mirrors": ["m/q"]}]}),
        ("Image", "cluster", {"registrySources": {"containerRuntimeSearchRegistries": ["docker.io"]}}),
    ):
        found = {"apiVersion": "config.openshift.io/v1", "kind": kind, "metadata": {"name": name}, "spec": member}
        tenants.cluster.others.append(found)
    for resource in readable:
        group = "operator.openshift.io" if "content" in resource else "config.openshift.io"
        tenants.grant("alice", "", resource, group=group)


MIRROR_SETS = [resource for _, _, resource in mirrorsets.LISTS]
MADE = (
    "registries.conf is that of ImageDigestMirrorSet digests, ImageTagMirrorSet tags, Image cluster, "
    "as the Machine Config Operator makes it (a node may not have it yet)"
)


def test_openshift_tells_by_its_mirror_sets(tenants: Tenants) -> None:
    add_mirror_sets(tenants, *MIRROR_SETS)
    status, told = tenants.explain("web")
    assert (status, told["registries"]["match"]["file"]) == (0, "mirror-sets/registries.conf")
    files = [file["path"] for file in told["registries"]["files"]]
    assert files[1:] == ["mirror-sets/registries.conf.d/01-image-searchRegistries.conf"]
    assert MADE in tenants.run("explain", "web").flat
    tenants.grant("alice", "team-alpha", "deployments", group="apps")
    done = tenants.run("audit", "-n", "team-alpha", "--output=json")
    outcomes = {(pull["image"], pull["outcome"]) for pull in done.report["pulls"]}
    # Without a tag it is one by tag, for which quay.io has no mirror.
    assert (done.status, outcomes) == (0, {(IMAGE, "works"), ("quay.io/a/b", "no-mirror")})
    assert MADE in done.report["notes"]
    # What the platform team publishes goes before it.
    tenants.publish({"registries.conf": CONF})
    assert f"registries.conf is that of ConfigMap kube-public/{PUBLISHED}" in tenants.run("explain", "web").flat


def test_mirror_sets_that_may_not_be_read(tenants: Tenants) -> None:
    """Some kinds: told. None: nothing is guessed."""
    add_mirror_sets(tenants)
    for action in ("explain", "audit"):
        done = tenants.run(action, *(["web"] if action == "explain" else ["-n", "team-alpha"]))
        assert (done.status, done.out) == (1 if action == "explain" else 2, "")
        assert f"{', '.join(MIRROR_SETS)} may not be listed by this user, and ConfigMap kube-public/" in done.err
    tenants.grant("alice", "", "imagetagmirrorsets", group="config.openshift.io")
    done = tenants.run("explain", "--image", f"docker.io/library/{IMAGE}")
    assert done.status == 0
    refused = ", ".join(name for name in MIRROR_SETS if name != "imagetagmirrorsets")
    assert f"the plugin's settings are its defaults; {refused} may not be listed by this user." in done.flat
    for wanted in server._LISTS:
        group = wanted.group.removeprefix("/apis/").rpartition("/")[0].replace("/api", "")
        tenants.grant("alice", "team-alpha", wanted.resource, group=group)
    gate = ("audit", "-n", "team-alpha", "--secrets-from=pod", "--fail-on=not-checked")
    assert tenants.run(*gate).status == 1
    add_mirror_sets(tenants, *MIRROR_SETS)
    assert tenants.run(*gate).status == 0


def test_mirror_sets_that_the_operator_refuses(tenants: Tenants) -> None:
    add_mirror_sets(tenants, *MIRROR_SETS)
    [tags] = [found for found in tenants.cluster.others if found["kind"] == "ImageTagMirrorSet"]
    tags["spec"]["imageTagMirrors"][0]["source"] = "https://docker.io"
    for action in ("explain", "verify"):
        done = tenants.run(action, "web")
        assert (done.status, done.out) == (
            1,
            "",
        ) and "ImageTagMirrorSet tags: source 'https://docker.io' is not a registry" in done.err


def test_a_pool_whose_machine_config_may_not_be_read(tenants: Tenants) -> None:
    add_mirror_sets(tenants, *MIRROR_SETS)
    done = tenants.run("explain", "web", "--machine-config-pool=worker")
    assert done.status == 0 and MADE in done.flat
    assert "the MachineConfig of pool worker may not be read by this user." in done.flat


def test_what_manifests_publishes_is_what_is_read(tenants: Tenants, tmp_path: Path) -> None:
    drop_ins = tmp_path / "d"
    drop_ins.mkdir()
    (tmp_path / "r.conf").write_text(CONF)
    (drop_ins / "50-quay.conf").write_text(
        '[[registry]]\nlocation = "quay.io"\n[[registry.mirror]]\nlocation = "m/q"\n'
    )
    flags = [f"--registries-conf={tmp_path}/r.conf", f"--registries-conf-dir={drop_ins}", "--secrets-from=pod"]
    printed = here(lambda: manifests.run(["registries", *flags]))
    config_map, role, binding = yaml.safe_load_all(printed.out)
    assert [found["kind"] for found in (role, binding)] == ["Role", "RoleBinding"]
    assert role["rules"][0]["resourceNames"] == [PUBLISHED] == [config_map["metadata"]["name"]]
    assert binding["subjects"][0]["name"] == "system:authenticated"
    tenants.publish(config_map["data"])
    status, told = tenants.explain("web")
    assert (status, told["secrets"]["from"], len(told["registries"]["files"])) == (0, "pod", 2)
    (tmp_path / "r.conf").write_text(CONF.replace(MIRROR, f"user:{CANARY}@{MIRROR}"))
    refused = here(lambda: manifests.run(["registries", *flags]))
    assert (refused.status, refused.out) == (1, "") and CANARY not in refused.err


def published(directory: Path) -> Any:
    printed = here(
        lambda: manifests.run(["registries", f"--registries-conf={directory}/r.conf", f"--root={directory}"])
    )
    assert CANARY not in printed.out + printed.err
    return next(yaml.safe_load_all(printed.out))["data"]["registries.conf"] if printed.status == 0 else printed.err


@pytest.mark.parametrize(
    "line",
    [
        "# password: %s",
        "  # it's \"%s",
        'short-name-mode = "disabled" # %s',
        'short-name-mode = "disabled"#%s',
        "x = [ # %s\n  'a.example', # %s\n]",
        'x = "\\"" # %s',
        "x = '\"' # %s",
        'x = """a\n"\\""" """"" # "%s"',
        "x = '''a\n''''' # '%s'",
    ],
)
def test_comments_are_not_published(tmp_path: Path, line: str) -> None:
    (tmp_path / "r.conf").write_text(line.replace("%s", CANARY) + "\n" + CONF)
    found, written = published(tmp_path), (tmp_path / "r.conf").read_text()
    assert "#" not in found and tomllib.loads(found) == tomllib.loads(written)


@pytest.mark.parametrize("line", ['x = "a # b"', "x = 'a # b'", 'x = """\n# a\n"""', "x = '''\n# a\n'''", '"#" = 1'])
def test_what_only_looks_like_a_comment_is_published(tmp_path: Path, line: str) -> None:
    (tmp_path / "r.conf").write_text(f"{line}\n{CONF}")
    assert published(tmp_path) == f"{line}\n{CONF}"


def test_no_drop_in_takes_the_place_of_another_file(tmp_path: Path) -> None:
    drop_ins = tmp_path / "etc/containers/registries.conf.d"
    drop_ins.mkdir(parents=True)
    (tmp_path / "r.conf").write_text(CONF)
    (drop_ins / "registries.conf").write_text("")
    refused = published(tmp_path)
    assert f"{drop_ins}/registries.conf: another file has this name in the ConfigMap; rename the drop-in" in refused


# -- verify, audit ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["explain", "verify"])
def test_an_image_is_no_command(tenants: Tenants, action: str) -> None:
    """Commands are pasted: they come of remedies alone."""
    command = "kubectl delete namespace team-beta --wait=false #"
    image = f"registry.corp/app: {command}"
    tenants.cluster.pods["team-alpha", "web"]["spec"]["containers"] = [{"name": "c", "image": image}]
    done = tenants.run(action, "web")
    assert command in done.flat + done.err
    assert not [line for line in done.lines if line.strip().startswith("kubectl")]


def test_a_user_name_ends_no_command(tenants: Tenants) -> None:
    forbid(tenants, "secrets")
    tenants.log_in("x && kubectl delete namespace team-beta")
    for grant in [grant for grant in tenants.cluster.grants if grant.user == "alice"]:
        tenants.cluster.grants.append(grant._replace(user="x && kubectl delete namespace team-beta"))
    done = tenants.run("explain", "web")
    commands = [line.strip() for line in done.lines if line.strip().startswith("kubectl")]
    assert commands and all(line.startswith("kubectl -n team-alpha create role") for line in commands)


@pytest.fixture
def mirror(tenants: Tenants) -> Iterator[MirrorRegistry]:
    with MirrorRegistry({"user": (CANARY, ["hub"])}) as registry:
        registry.add_image("hub/library/nginx", "1.27")
        conf = CONF.replace(f'"{MIRROR}/hub"', f'"{registry.host}/hub"\ninsecure = true')
        tenants.publish({"registries.conf": conf.replace('location = "docker.io"', _NOWHERE)})
        yield registry


_NOWHERE = 'prefix = "docker.io"\nlocation = "hub.nowhere.invalid"'


def test_verify_asks_the_registries_from_here(tenants: Tenants, mirror: MirrorRegistry) -> None:
    done = tenants.run("verify", "web")
    assert done.status == 3 and "requires a credential, and there is none" in done.flat
    tenants.cluster.add_secret("team-alpha", "creds", {"auths": {mirror.host: {"auth": basic("user", CANARY)}}})
    done = tenants.run("verify", "web")
    assert (done.status, done.err) == (0, "")
    assert f"The pull would succeed: {mirror.host}/hub/library/nginx:1.27 exists." in done.flat
    assert "asked from this machine, whose network, proxies and CAs are not the node's" in done.flat


def test_audit_with_what_is_published(tenants: Tenants) -> None:
    tenants.grant("alice", "team-alpha", "deployments", group="apps")
    done = tenants.run("audit", "-n", "team-alpha", "--output=json")
    outcomes = {(pull["image"], pull["outcome"]) for pull in done.report["pulls"]}
    assert (done.status, outcomes) == (0, {(IMAGE, "works"), ("quay.io/a/b", "no-mirror")})


def test_audit_takes_no_credentials_of_this_machine(
    tenants: Tenants, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "auth.json"
    own.write_text(json.dumps({"auths": {MIRROR: {"auth": basic("user", CANARY)}}}))
    monkeypatch.setenv("CRIO_CREDENTIAL_PROVIDER_GLOBAL_AUTH_FILE", str(own))
    (tmp_path / "registries.conf").write_text(CONF)
    tenants.cluster.secrets.pop(("team-alpha", "creds"))
    for flags in ((), (f"--registries-conf={tmp_path}/registries.conf",)):
        done = tenants.run("audit", "-n", "team-alpha", "--output=json", *flags)
        assert {pull["outcome"] for pull in done.report["pulls"]} == {"anonymous", "no-mirror"}
    done = tenants.run("audit", "-n", "team-alpha", "--output=json", f"--global-auth-file={own}")
    assert {pull["outcome"] for pull in done.report["pulls"]} == {"node-credentials", "no-mirror"}


def test_audit_is_called_as_the_person_called_it(tenants: Tenants) -> None:
    helped = here(lambda: kubectl.run(["audit", "--help"]))
    assert helped.out.startswith("usage: kubectl mirror-credentials audit") and "crio-credential" not in helped.out
    for words in (["audit", "--nope"], ["audit", "all.json"], ["audit", "all.json", "--registries-conf=/nope"]):
        done = tenants.run(*words)
        assert (done.status, done.out) == (2, "") and done.err.startswith("kubectl mirror-credentials audit: "), words
    assert not tenants.asked()


def test_drop_ins_of_no_file(tenants: Tenants, tmp_path: Path) -> None:
    done = tenants.run("audit", "-n", "team-alpha", f"--registries-conf-dir={tmp_path}")
    assert (done.status, done.out) == (2, "") and "--registries-conf-dir: give --registries-conf as well" in done.err


def test_audit_runs_one_kubectl_at_a_time(tenants: Tenants, monkeypatch: pytest.MonkeyPatch) -> None:
    running: list[int] = []
    most: list[int] = []
    connect = server.kubectl

    @contextlib.contextmanager
    def counted(kubeconfig: str, context: str) -> Iterator[server.Proxied]:
        with connect(kubeconfig, context) as api:
            running.append(1)
            most.append(len(running))
            yield api
        running.pop()

    monkeypatch.setattr(server, "kubectl", counted)
    tenants.grant("alice", "team-alpha", "deployments", group="apps")
    assert tenants.run("audit", "-n", "team-alpha").status == 0
    assert most == [1, 1]


def test_a_mirror_that_only_this_machine_cannot_reach(tenants: Tenants) -> None:
    """The mirror is unknown then; the mirrored registry as well, unless a mirror has answered."""
    for place, says in (("mirror.nowhere.invalid", "resolved"), ("127.0.0.1:1", "reached")):
        tenants.publish({"registries.conf": CONF.replace(MIRROR, place).replace('location = "docker.io"', _NOWHERE)})
        done = tenants.run("verify", "--image", IMAGE, "--output=json")
        (told,) = done.report["images"]
        assert (done.status, told["verdict"]["succeeds"]) == (1, None)
        assert f"cannot be {says} from this machine, which is not the node" in told["verdict"]["text"]


# -- the command line -------------------------------------------------------------------------------------------------


def test_as_a_plugin_of_kubectl(tenants: Tenants, plugin: Path, tmp_path: Path) -> None:
    (program,) = need("kubectl")
    links = tmp_path / "bin"
    links.mkdir()
    for name in ("kubectl-mirror_credentials", "kubectl_complete-mirror_credentials"):
        (links / name).symlink_to(plugin)
    path = f"{links}:{os.path.dirname(program)}:/usr/bin:/bin"
    environment = {"PATH": path, "HOME": str(tmp_path), "KUBECONFIG": str(tmp_path / "kubeconfig")}

    def run(*words: str) -> tuple[int, str]:
        command: list[Any] = [program, *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert CANARY not in done.stdout + done.stderr
        return done.returncode, done.stdout + done.stderr

    status, told = run("mirror-credentials", "explain", "web")
    assert status == 0 and "with the credential of secret creds" in told, told
    assert run("mirror-credentials", "explain", "web", "-n", "team-beta", "--context=x")[0] == 3
    status, told = run("mirror-credentials", "explain", "web", "--nope")
    assert (status, told.partition(":")[0]) == (2, "kubectl mirror-credentials")
    for words in ((), ("--help",), ("help",)):
        status, told = run("mirror-credentials", *words)
        assert status == 0 and told.startswith("usage: kubectl mirror-credentials"), words
    assert "GitCommit:" in run("mirror-credentials", "version")[1]
    # Version 1.26 of kubectl is the first that asks the plugin.
    completed = subprocess.run(
        [links / "kubectl_complete-mirror_credentials", "ex"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert completed.stdout == "explain\n:4\n"


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["ver"], ["verify", "version", ":4"]),
        (["explain", "--secrets-from", "po"], ["pod", ":4"]),
        (["explain", "--output", ""], ["text", "json", ":4"]),
        (["explain", "--registries-conf", ""], [":0"]),
        (["explain", "--machine"], ["--machine-config-pool", ":4"]),
        (["explain", "we"], [":4"]),
    ],
)
def test_completion(words: list[str], offered: list[str]) -> None:
    assert here(lambda: kubectl.run(["__complete", *words])).lines == offered


@pytest.mark.parametrize(
    "words", [("deployment", "web"), ("pod", "web"), ("-n", "team-alpha", "web"), ("deploy", "-n", "team-alpha", "web")]
)
def test_words_as_kubectl_takes_them(tenants: Tenants, words: tuple[str, ...]) -> None:
    done = tenants.run("explain", *words, "-o", "json")
    kind = "Deployment" if words[0].startswith("deploy") else "Pod"
    assert (done.status, done.report["workload"]["kind"]) == (0, kind)


def test_version() -> None:
    assert "GitCommit:" in here(lambda: kubectl.run(["--version"])).out


def test_kubectl_config_view_that_fails_or_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "kubectl"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(kubectl, "_SECONDS", 0.3)
    for script, says in (
        ("exec sleep 60", "kubectl config view did not end within 0.3 s; try: kubectl version"),
        ("echo broken >&2; exit 1", "kubectl config view: broken; try: kubectl version"),
    ):
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        done = here(lambda: kubectl.run(["explain", "web"]))
        assert (done.status, done.out) == (1, "") and says in done.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["explain"], "give POD, KIND/NAME or --image IMAGE"),
        (["explain", "web", "--image=x"], "give POD, KIND/NAME or --image IMAGE, not both"),
        (["explain", "web", "--service-account=x"], "--service-account is for --image"),
        (["explain", "service/web"], "unknown kind 'service'"),
        (["explain", "pod/../secrets/creds"], "is not a valid Kubernetes name"),
        (["explain", "web", "-n", "../x"], "-n: '../x' is not a valid Kubernetes name"),
        (["explain", "web", "--registries-conf=/nope"], "no such file"),
        (["explian", "web"], "did you mean 'explain'?"),
    ],
)
def test_wrong_usage(tenants: Tenants, words: list[str], says: str) -> None:
    done = tenants.run(*words)
    assert (done.status, done.out) == (2, "") and says in done.err
    assert not any("secrets" in path for _, path in tenants.asked())
