"""The command `manifests`: what it prints is what a cluster, a kubelet and systemd take, and what the documents show.

Objects are held against the strict schemas of the package kubernetes-validate, the kubelet's configuration against
credentialproviderconfig.py, units and tmpfiles.d against systemd's own programs.
"""

from __future__ import annotations

import itertools
import json
import os
import stat
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from commandline import Done, command
from credentialproviderconfig import faults
from crio_credential_provider.commands import manifests
from crio_credential_provider.manifests import kinds, layout, nodefiles
from crio_credential_provider.manifests.nodefiles import DISTRIBUTIONS
from crio_credential_provider.settings import SECRETS_FROM
from crio_credential_provider.settings import loads as settings_of
from manifests_documents import COMMANDS, PAGE, ROOT, page, printed
from real_programs import need

pytestmark = pytest.mark.process

VERSIONS = ("1.33", "1.34", "1.35", "1.36", "1.37")
MIRRORS = '[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "mirror.corp:5000/hub"\n'
PLATFORM = """\
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
  - name: ecr-credential-provider
    matchImages: ["*.dkr.ecr.*.amazonaws.com"]
    defaultCacheDuration: 12h
    apiVersion: credentialprovider.kubelet.k8s.io/v1
"""


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command on a machine without a registries.conf."""
    monkeypatch.setenv("HOME", "/nowhere")
    empty = tmp_path_factory.mktemp("empty")

    def call(*words: str, root: Path = empty) -> Done:
        return command("manifests", manifests.run, [*words, "--root", str(root)])

    return call


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A node's root with one mirror."""
    path = tmp_path / "node-root/etc/containers/registries.conf"
    path.parent.mkdir(parents=True)
    path.write_text(MIRRORS)
    return tmp_path / "node-root"


# -- the documents ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_files_of_the_repository_are_what_the_command_prints(name: str) -> None:
    assert (ROOT / name).read_text() == printed(COMMANDS[name]), "run: python tests/manifests_documents.py"


def test_the_screens_of_the_page_are_what_running_gives() -> None:
    assert PAGE.read_text().count("$ crio-credential-provider manifests") > 5
    assert PAGE.read_text() == page(), "run: python tests/manifests_documents.py"


def test_no_manifest_of_the_documents_is_made_by_hand() -> None:
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "docs/manifests").iterdir()}
    assert files and files <= set(COMMANDS)


# -- objects against the schemas of Kubernetes ------------------------------------------------------------------------


def validated(objects: list[Any]) -> int:
    """Number of objects that every version's strict schema takes."""
    for one in objects:
        for version in VERSIONS:
            assert kubernetes_validate.validate(one, version, strict=True) == version
    return len(objects)


def object_commands() -> Iterator[tuple[str, ...]]:
    tenants = ("-n", "team-alpha", "-n", "team-beta", "--service-account", "web", "--service-account", "default")
    for mode in SECRETS_FROM:
        named = () if mode == "namespace" else ("--pull-secret", "one", "--pull-secret", "two.x")
        for many in (tenants, tenants[:2]):
            yield ("rbac", "daemonset", "--secrets-from", mode, *many, *named)
            yield ("pull-secrets", "--secrets-from", mode, *many, *named)
    for distribution in DISTRIBUTIONS:
        daemonset = () if "-" in distribution else ("daemonset",)
        yield ("rbac", *daemonset, "--distribution", distribution)
    yield ("daemonset", "--image", "localhost:5000/a/b@sha256:" + "0" * 64, "--bin-dir", "/opt/bin")


@pytest.mark.parametrize("words", [*object_commands()], ids=" ".join)
def test_objects_are_what_the_api_server_takes(run: Any, words: tuple[str, ...]) -> None:
    answer = run(*words)
    assert (answer.status, answer.err) == (0, "")
    assert validated(answer.documents) >= 1
    in_json = json.loads(run(*words, "--output", "json").out)
    assert answer.documents == (in_json["items"] if in_json["kind"] == "List" else [in_json])
    roles = {(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in answer.documents}
    assert len(roles) == len(answer.documents)
    for one in answer.documents:
        if one["kind"].endswith("Binding") and not one["roleRef"]["name"].startswith("system:"):
            assert (one["roleRef"]["kind"], one["metadata"].get("namespace"), one["roleRef"]["name"]) in roles


def test_the_schemas_refuse_what_is_wrong(run: Any) -> None:
    """So that a pass above says something."""
    [daemonset] = run("daemonset").documents
    daemonset["spec"]["template"]["spec"]["tolerationz"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        validated([daemonset])
    role, _ = run("rbac").documents
    del role["rules"][0]["verbs"]
    with pytest.raises(kubernetes_validate.ValidationError):
        validated([role])


def test_the_node_is_granted_the_audience_of_its_configuration(run: Any) -> None:
    for distribution in DISTRIBUTIONS:
        flags = ("--distribution", distribution, "--match-image", "docker.io")
        [config] = run("config", *flags).documents if "-" not in distribution else [None]
        rules = run("rbac", *flags).documents[0]["rules"]
        assert rules[0]["verbs"] == ["request-serviceaccounts-token-audience"]
        assert rules[1] == {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["get"]}
        if config is not None:
            attributes = config["providers"][0]["tokenAttributes"]
            assert rules[0]["resources"] == [attributes["serviceAccountTokenAudience"]]


def test_a_mode_grants_what_it_needs_and_no_more(run: Any) -> None:
    def rules(*words: str) -> list[Any]:
        found = run("pull-secrets", "-n", "a", *words).documents
        return [rule for one in found if one["kind"] == "Role" for rule in one["rules"]]

    assert rules() == [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}]
    assert rules("--secrets-from", "pod", "--pull-secret", "s") == []
    granted = rules("--secrets-from", "service-account", "--service-account", "web", "--pull-secret", "s")
    assert [(rule["resources"], rule["resourceNames"], rule["verbs"]) for rule in granted] == [
        (["serviceaccounts"], ["web"], ["get"]),
        (["secrets"], ["s"], ["get"]),
    ]


def test_the_daemonset_has_no_more_rights_than_it_needs(run: Any) -> None:
    for words in (["--distribution", "openshift"], ["--bin-dir", "/opt/x"], []):
        daemonset = run("daemonset", *words).documents[0]
        pod = daemonset["spec"]["template"]["spec"]
        [container] = pod["containers"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert "privileged" not in container["securityContext"]
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert pod["tolerations"] == [{"operator": "Exists"}]
        [volume] = pod["volumes"]
        flags = "\n".join(run("kubelet", *words).out.split()).replace('"', "")
        assert f"--image-credential-provider-bin-dir={volume['hostPath']['path']}" in flags


# -- the kubelet's configuration --------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_the_configuration_is_what_that_kubelet_takes(run: Any, node: Path, version: str) -> None:
    for words in ((), ("--secrets-from", "pod", "--mirror-registry", "mirror.corp:5000", "--plugin-arg=--deadline=5s")):
        answer = run("config", "--kubernetes", version, *words, root=node)
        assert (answer.status, answer.err) == (0, "")
        [config] = answer.documents
        minor = int(version.partition(".")[2])
        assert faults(config, minor) == []
        # And the others' kubelets would not.
        assert faults(config, 33 if minor > 33 else 34)
        [provider] = config["providers"]
        assert provider["matchImages"] == ["docker.io"]
        assert settings_of(provider["args"], {}).secrets_from == (words[1] if words else "namespace")
        assert json.loads(run("config", "--kubernetes", version, *words, "--output", "json", root=node).out) == config
        assert YAML(typ="safe", pure=True).load(answer.out) == config


def test_the_model_of_the_kubelet_refuses_what_is_wrong() -> None:
    good = yaml.safe_load(PLATFORM)
    assert faults(good, 33) == []
    for path, value in [
        (("kind",), "Other"),
        (("more",), 1),
        (("providers",), []),
        (("providers", 0, "args"), "text"),
        (("providers", 0, "matchImages"), []),
        (("providers", 0, "defaultCacheDuration"), 10),
        (("providers", 0, "defaultCacheDuration"), "ten"),
        (("providers", 0, "tokenAttributes"), {"serviceAccountTokenAudience": "x", "requireServiceAccount": "true"}),
    ]:
        bad = yaml.safe_load(PLATFORM)
        inner = bad
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        assert faults(bad, 33), path


def test_where_patterns_come_from_is_told_in_the_file(run: Any, node: Path) -> None:
    (node / "etc/containers/registries.conf").write_text(
        MIRRORS + '[[registry]]\nprefix = "*.corp.example"\nlocation = "m.corp"\n[[registry]]\nprefix = "quay.io/A"\n'
        'location = "quay.io/A"\n[[registry.mirror]]\nlocation = "m.corp"\n'
    )
    text = run("config", root=node).out
    flat = " ".join(text.replace("    #", "").split())
    assert f"docker.io: docker.io in {node}/etc/containers/registries.conf" in flat
    assert "matches hosts of any depth, in matchImages one label" in flat
    assert "Skipped: quay.io/A: no image has such a name: a repository is lower case" in flat
    assert yaml.safe_load(text)["providers"][0]["matchImages"] == ["docker.io", "*.corp.example"]


def test_named_files_are_read_instead(run: Any, tmp_path: Path) -> None:
    (tmp_path / "r.conf").write_text(MIRRORS.replace("docker.io", "quay.io"))
    (tmp_path / "d").mkdir()
    (tmp_path / "d/1.conf").write_text(MIRRORS)
    words = ("--registries-conf", str(tmp_path / "r.conf"), "--registries-conf-dir", str(tmp_path / "d"))
    [config] = run("config", *words).documents
    assert config["providers"][0]["matchImages"] == ["docker.io", "quay.io"]


# -- files of a node --------------------------------------------------------------------------------------------------

KUBELET_SERVICE = """\
[Service]
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
ExecStart=
ExecStart=/usr/bin/kubelet
"""


def verify(root: Path, *units: str) -> str:
    """What systemd-analyze complains about in units below a root."""
    [program] = need("systemd-analyze")
    command = [program, "verify", "--man=no", "--generators=no", "--recursive-errors=no", f"--root={root}", *units]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout + done.stderr + ("" if done.returncode == 0 else f"exit {done.returncode}")


def unit_root(tmp_path: Path, run: Any, *words: str) -> Path:
    out = tmp_path / "out"
    answer = run(*words, "--match-image", "docker.io", "--directory", str(out))
    assert answer.status == 0, answer.err
    root = out / "node"
    (root / "usr/bin").mkdir(parents=True, exist_ok=True)
    (root / "usr/bin/kubelet").write_text("#!/bin/sh\n")
    (root / "usr/bin/kubelet").chmod(0o755)
    (root / "etc/systemd/system").mkdir(parents=True, exist_ok=True)
    (root / "etc/systemd/system/kubelet.service").write_text(KUBELET_SERVICE)
    return root


@pytest.mark.parametrize("version", ["1.33", "1.34"])
def test_systemd_takes_the_units(run: Any, tmp_path: Path, version: str) -> None:
    root = unit_root(tmp_path, run, "all", "--kubernetes", version)
    assert verify(root, "kubelet.service", "etc-crio-auth.mount") == ""
    drop_in = root / "etc/systemd/system/kubelet.service.d/20-crio-credential-provider.conf"
    assert ("--feature-gates=KubeletServiceAccountTokenForCredentialProviders=true" in drop_in.read_text()) == (
        version == "1.33"
    )
    drop_in.write_text(drop_in.read_text().replace("ExecStart=/usr", "ExecStart=usr"))
    assert verify(root, "kubelet.service") != ""
    mount = root / "etc/systemd/system/etc-crio-auth.mount"
    mount.write_text(mount.read_text().replace("Where=/etc/crio/auth", "Where=/etc/crio/other"))
    assert verify(root, "etc-crio-auth.mount") != ""


def test_systemd_takes_the_drop_in_of_openshift(run: Any, tmp_path: Path) -> None:
    root = unit_root(tmp_path, run, "kubelet", "--distribution", "openshift")
    assert verify(root, "kubelet.service") == ""


@pytest.mark.parametrize("path", ["/etc/crio/auth", "/run/crio/auth", "/srv/a-b/c.d", "/.x/y", "/a/b@c:d+e,f_g", "/a"])
def test_a_mount_unit_has_the_name_that_systemd_gives_it(path: str) -> None:
    [program] = need("systemd-escape")
    done = subprocess.run([program, "--path", path], capture_output=True, text=True, check=True)
    assert nodefiles.unit_name(path) == done.stdout.strip()


@pytest.mark.parametrize("auth_dir", ["/etc/crio/auth", "/srv/crio-auth"])
def test_systemd_tmpfiles_makes_the_directories(run: Any, tmp_path: Path, auth_dir: str) -> None:
    [program] = need("systemd-tmpfiles")
    text = run("tmpfiles", "--auth-dir", auth_dir).out
    (tmp_path / "t.conf").write_text(text)
    root = tmp_path / "r"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    command = [program, f"--root={root}", "--create", str(tmp_path / "t.conf")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for path in (auth_dir, "/run/crio-credential-provider"):
        status = os.stat(f"{root}{path}")
        assert stat.S_IMODE(status.st_mode) == 0o700
    assert f"{auth_dir}/in-use" in text


def test_crio_is_told_of_another_directory_alone(run: Any) -> None:
    answer = run("crio")
    assert (answer.status, answer.out) == (0, "") and "/etc/crio/auth by default" in answer.err
    text = run("crio", "--auth-dir", "/run/crio/auth").out
    assert 'namespaced_auth_dir = "/run/crio/auth"' in text
    assert run("mount", "--auth-dir", "/run/crio/auth").out == ""
    assert "Where=/srv/auth\n" in run("mount", "--auth-dir", "/srv/auth").out


@pytest.mark.parametrize("name", ["k3s", "rke2"])
def test_k3s_gets_its_own_keys(run: Any, name: str) -> None:
    [config] = run("kubelet", "--distribution", name, "--kubernetes", "1.33").documents
    assert config == {
        "image-credential-provider-config": "/var/lib/rancher/credentialprovider/config.yaml",
        "image-credential-provider-bin-dir": "/var/lib/rancher/credentialprovider/bin",
        "kubelet-arg+": ["feature-gates=KubeletServiceAccountTokenForCredentialProviders=true"],
    }
    assert "kubelet-arg+" not in run("kubelet", "--distribution", name).out


# -- MachineConfig and Butane -----------------------------------------------------------------------------------------


def ignition_files(config: Any) -> dict[str, str]:
    """Path -> content of all files and units, after what the specification of Ignition 3.2 asks of them."""
    assert config.keys() == {"ignition", "storage", "systemd"} and config["ignition"] == {"version": "3.2.0"}
    found: dict[str, str] = {}
    for file in config["storage"]["files"]:
        assert file.keys() == {"path", "mode", "overwrite", "contents"} and file["contents"].keys() == {"source"}
        assert file["mode"] == 0o644 and type(file["overwrite"]) is bool
        kind, _, data = file["contents"]["source"].partition(",")
        assert kind == "data:" and file["path"].startswith("/") and file["path"] not in found
        found[file["path"]] = urllib.parse.unquote(data, errors="strict")
    for unit in config["systemd"]["units"]:
        assert unit.keys() <= {"name", "enabled", "contents", "dropins"}
        found |= {unit["name"]: unit["contents"]} if "contents" in unit else {}
        found |= {f"{unit['name']}.d/{drop_in['name']}": drop_in["contents"] for drop_in in unit.get("dropins", [])}
    return found


def butane_files(config: Any) -> dict[str, str]:
    found = {file["path"]: file["contents"]["inline"] for file in config["storage"]["files"]}
    for unit in config["systemd"]["units"]:
        found |= {unit["name"]: unit["contents"]} if "contents" in unit else {}
        found |= {f"{unit['name']}.d/{drop_in['name']}": drop_in["contents"] for drop_in in unit.get("dropins", [])}
    return found


@pytest.mark.parametrize("version", ["1.33", "1.36"])
@pytest.mark.parametrize("distribution", [name for name in DISTRIBUTIONS if name.startswith("openshift")])
def test_a_machine_config_holds_the_files_of_the_node(
    run: Any, tmp_path: Path, distribution: str, version: str
) -> None:
    (tmp_path / "old.yaml").write_text(PLATFORM)
    words: tuple[str, ...] = ("--distribution", distribution, "--kubernetes", version, "--role", "master")
    words += ("--match-image", "docker.io")
    words += ("--auth-dir", "/var/a", "--merge", str(tmp_path / "old.yaml"))
    [made] = run("machineconfig", *words).documents
    assert made["kind"] == "MachineConfig" and made["apiVersion"] == "machineconfiguration.openshift.io/v1"
    assert made["metadata"]["labels"] == {"machineconfiguration.openshift.io/role": "master"}
    files = ignition_files(made["spec"]["config"])
    assert files == butane_files(run("butane", *words).documents[0])
    path = DISTRIBUTIONS[distribution].config_path
    config = yaml.safe_load(files[path])
    assert [one["name"] for one in config["providers"]] == ["ecr-credential-provider", "crio-credential-provider"]
    assert faults(config, int(version[2:])) == []
    audience = config["providers"][1]["tokenAttributes"]["serviceAccountTokenAudience"]
    assert audience == "https://kubernetes.default.svc"
    assert ("kubelet.service.d/20-crio-credential-provider.conf" in files) == (distribution == "openshift")
    gate = files.get("/etc/openshift/kubelet.conf.d/20-crio-credential-provider.conf")
    assert (gate is not None) == (version == "1.33")
    assert {"var-a.mount", "/etc/crio/crio.conf.d/20-namespaced-auth.conf"} <= files.keys()
    assert not any(path.startswith("/usr") for path in files)


def test_on_openshift_the_operator_makes_files_count(run: Any, tmp_path: Path) -> None:
    words = ("--distribution", "openshift", "--auth-dir", "/var/a", "--match-image", "docker.io", "-n", "team-alpha")
    answer = run("all", *words, "--directory", str(tmp_path))
    assert answer.status == 0 and (tmp_path / "node/etc/tmpfiles.d/crio-credential-provider.conf").exists()
    assert not (tmp_path / "node/usr").exists()
    lines = [line for line in answer.out.splitlines() if "/node/" in line]
    assert len(lines) == 5 and all("then: the Machine Config Operator" in line for line in lines)


def test_the_platforms_own_provider_is_not_overwritten(run: Any) -> None:
    for kind in ("machineconfig", "butane"):
        answer = run(kind, "--distribution", "openshift-gcp", "--match-image", "docker.io")
        assert answer.status == 2 and answer.out == "" and "--merge" in answer.err
    answer = run("daemonset", "--distribution", "openshift-aws")
    assert answer.status == 2 and "image layering" in answer.err
    assert run("machineconfig", "--match-image", "docker.io").status == 2


def test_butane_is_for_fedora_coreos_where_it_is_not_for_openshift(run: Any) -> None:
    [made] = run("butane", "--match-image", "docker.io").documents
    assert (made["variant"], made["version"]) == ("fcos", "1.5.0") and "metadata" not in made
    assert "/etc/kubernetes/credential-provider-config.yaml" in butane_files(made)
    [made] = run("butane", "--match-image", "docker.io", "--distribution", "openshift").documents
    assert (made["variant"], made["version"]) == ("openshift", "4.14.0")


# -- files that are written -------------------------------------------------------------------------------------------


def tree(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_all_is_written_below_a_directory(run: Any, tmp_path: Path, node: Path) -> None:
    out = tmp_path / "out"
    words = ("all", "-n", "team-alpha", "--auth-dir", "/run/crio/auth", "--directory", str(out))
    assert run(*words, root=node).status == 0
    assert set(tree(out)) == {
        "node/etc/kubernetes/credential-provider-config.yaml",
        "node/etc/systemd/system/kubelet.service.d/20-crio-credential-provider.conf",
        "node/etc/crio/crio.conf.d/20-namespaced-auth.conf",
        "node/etc/tmpfiles.d/crio-credential-provider.conf",
        "node-rbac.yaml",
        "pull-secrets.yaml",
        "daemonset.yaml",
        "kustomization.yaml",
    }
    kustomization = yaml.safe_load((out / "kustomization.yaml").read_text())
    assert kustomization["kind"] == "Kustomization" and kustomization["apiVersion"] == "kustomize.config.k8s.io/v1beta1"
    assert set(kustomization["resources"]) == {name for name in tree(out) if "/" not in name} - {"kustomization.yaml"}
    objects = [one for name in kustomization["resources"] for one in yaml.safe_load_all((out / name).read_text())]
    assert validated(objects) == 5
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o644 for path in out.rglob("*") if path.is_file())


def test_what_differs_is_not_overwritten_unasked(run: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("kustomize", "--directory", str(out))
    assert run(*words).out.count("written: ") == 3
    before = tree(out)
    assert run(*words).out.count("unchanged: ") == 3
    (out / "daemonset.yaml").write_bytes(b"mine: \xff\n")
    (out / "node-rbac.yaml").unlink()
    answer = run(*words)
    assert answer.status == 1 and str(out / "daemonset.yaml") in answer.err and "--force" in answer.err
    assert not (out / "node-rbac.yaml").exists()
    told = json.loads(run(*words, "--force", "--output", "json").out)["files"]
    assert [one["state"] for one in told] == ["written", "overwritten", "unchanged"]
    assert tree(out) == before


def test_a_directory_that_cannot_be_written(run: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = run("rbac", "--directory", str(tmp_path / "file"))
    assert answer.status == 1 and str(tmp_path / "file") in answer.err


# -- merging ----------------------------------------------------------------------------------------------------------


def test_merging_prints_the_file_and_tells_the_rest_on_stderr(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(PLATFORM + '  - name: "\\e[31m"\n    matchImages: ["docker.*"]\n')
    answer = run("config", "--merge", str(path), "--match-image", "docker.io")
    assert answer.status == 0 and answer.out.startswith(path.read_text())
    assert "Changed: added the provider crio-credential-provider" in answer.err
    assert (
        r"Overlap: \x1b[31m (docker.*) and crio-credential-provider (docker.io)" in answer.err
        and "\x1b" not in answer.err
    )
    assert run("--merge", str(path), "--match-image", "docker.io").out == answer.out
    told = json.loads(run("config", "--merge", str(path), "--match-image", "docker.io", "--output", "json").out)
    assert told["text"] == answer.out and told["overlaps"][0]["pattern"] == "docker.*"
    assert path.read_text().startswith(PLATFORM)


def test_in_place_only_a_regular_file_is_replaced(run: Any, tmp_path: Path) -> None:
    os.mkfifo(path := tmp_path / "c.yaml")
    answer = run("config", "--merge", str(path), "--in-place", "--match-image", "docker.io")
    assert answer.status == 1 and f"{path} is not a regular file" in answer.err
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_in_place_the_file_keeps_its_mode_and_its_links(run: Any, tmp_path: Path) -> None:
    path, link = tmp_path / "c.yaml", tmp_path / "link.yaml"
    path.write_text(PLATFORM)
    path.chmod(0o640)
    link.symlink_to(path)
    words = ("config", "--merge", str(link), "--in-place", "--match-image", "docker.io")
    answer = run(*words)
    assert (answer.status, answer.out) == (0, "")
    assert link.is_symlink() and stat.S_IMODE(path.stat().st_mode) == 0o640
    assert faults(yaml.safe_load(path.read_text()), 34) == []
    before = path.stat()
    assert "Nothing to change" in run(*words).err
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert sorted(tmp_path.iterdir())[:2] == [path, link]


def test_what_is_there_decides_where_nothing_is_given(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    openshift = ("--distribution", "openshift", "--secrets-from", "pod", "--match-image", "docker.io")
    path.write_text(run("config", *openshift).out)
    answer = run("config", "--merge", str(path))
    assert (answer.status, answer.out) == (0, path.read_text())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: \xff\n", "not UTF-8 at byte 3"),
        (b"kind: CredentialProviderConfig\n---\nb: 1\n", "a second YAML document"),
        (b"\x00", "#x0000"),
        (None, "--merge: "),
        ("directory", "is a directory"),
    ],
)
def test_a_file_that_cannot_be_merged_into(run: Any, tmp_path: Path, content: Any, said: str) -> None:
    path = tmp_path / "c.yaml"
    if content == "directory":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    for more in ((), ("--in-place",)):
        answer = run("config", "--merge", str(path), "--match-image", "docker.io", *more)
        # A name that leads nowhere is a mistake of the command line, as in every command.
        assert (answer.status, answer.out) == (2 if content is None else 1, "")
        assert said in answer.err and str(path) in answer.err and answer.err.count("\n") == 1


# -- wrong usage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bogus"], "KIND: 'bogus' is not one of config, rbac,"),
        (["config", "--match-image", "mirror.corp/*"], "literally"),
        (["config", "--match-image", "docker.io", "--kubernetes", "1.32"], "passes no tokens"),
        (["config", "--match-image", "docker.io", "--kubernetes", "latest"], "not a version"),
        (["config", "--match-image", "docker.io", "--audience", "a b"], "--audience"),
        (["config", "--match-image", "docker.io", "--secrets-from", "all"], "is not one of"),
        (["config", "--match-image", "docker.io", "--mirror-registry", "https://x"], "without https://"),
        (["config", "--match-image", "docker.io", "--plugin-arg=--bogus"], "unknown flag"),
        (["config", "--match-image", "docker.io", "--plugin-arg", "x"], "unknown argument"),
        (["config", "--distribution", "gke"], "is not one of kubeadm,"),
        (["config", "rbac", "--match-image", "docker.io"], "--directory"),
        (["all"], "--directory"),
        (["kustomize"], "--directory"),
        (["rbac", "--merge", "/dev/null"], "--merge"),
        (["rbac", "--force"], "--directory"),
        (["config", "--merge", "/dev/null", "--in-place", "--directory", "d"], "cannot be used with"),
        (["config", "--in-place"], "--merge"),
        (["pull-secrets"], "no namespace given"),
        (["pull-secrets", "-n", "Team"], "not a valid object name"),
        (["pull-secrets", "-n", "a.b"], "not a valid object name"),
        (["pull-secrets", "-n", "a", "--pull-secret", "x"], "--pull-secret cannot be used"),
        (["pull-secrets", "-n", "a", "--secrets-from", "pod"], "--pull-secret"),
        (["daemonset", "--image", "UPPER CASE"], "--image"),
        (["kubelet", "--bin-dir", "relative"], "--bin-dir"),
        (["kubelet", "--bin-dir", '/a" Environment=B="'], "--bin-dir"),
        (["kubelet", "--config-path", "/a/../b"], "--config-path"),
        (["mount", "--auth-dir", "/a\nb"], "--auth-dir"),
        (["mount", "--auth-dir", "/a%b"], "--auth-dir"),
        (["machineconfig", "--role", "../x"], "--role"),
    ],
)
def test_wrong_usage_is_told(run: Any, words: list[str], said: str) -> None:
    answer = run(*words)
    assert (answer.status, answer.out) == (2, "")
    assert said in answer.err and "Traceback" not in answer.err


def test_without_mirrors_there_is_nothing_to_match(run: Any, node: Path) -> None:
    answer = run("config")
    assert (answer.status, answer.out) == (1, "") and "--match-image" in answer.err
    (node / "etc/containers/registries.conf").write_text("[[registry]\n")
    answer = run("config", root=node)
    assert (answer.status, answer.out) == (1, "") and "not valid TOML" in answer.err


def test_without_a_kind_the_kinds_are_listed(run: Any) -> None:
    told = json.loads(run("--output", "json").out)
    assert [one["kind"] for one in told["kinds"]] == list(kinds.KINDS)
    text = run().out
    assert all(kind in text for kind in kinds.KINDS)
    assert set(kinds.KINDS) - {"all"} == set(kinds.BUILDERS)


def test_json_of_several_files_has_their_paths(run: Any) -> None:
    told = json.loads(run("kubelet", "rbac", "mount", "--output", "json").out)
    assert [one["kind"] for one in told["objects"]] == ["ClusterRole", "ClusterRoleBinding"]
    assert [one["path"].rpartition("/")[2] for one in told["files"]] == [
        "20-crio-credential-provider.conf",
        "etc-crio-auth.mount",
    ]
    assert {one["mode"] for one in told["files"]} == {"0644"}


# -- the layout -------------------------------------------------------------------------------------------------------


@given(st.text(st.characters(codec="utf-8")))
def test_a_text_is_read_as_it_was_written(text: str) -> None:
    for value in ({"key": text}, {"key": [text, {"a": text}]}, {"key": layout.Flow([text])}):
        commented = layout.dumps({layout.Comment(text): None, **value})
        for written in (layout.dumps(value), commented):
            assert yaml.safe_load(written) == value, written
            assert YAML(typ="safe", pure=True).load(written) == value, written
        assert yaml.safe_load(f"[{layout.flow_scalar(value['key'])}]") == [value["key"]]


def test_words_that_mean_something_else_are_quoted() -> None:
    words = [
        "yes",
        "No",
        "on",
        "n",
        "null",
        "~",
        "1",
        "1.5",
        "0x1f",
        "1e3",
        "1_000",
        "12:30",
        "2026-01-02",
        ".5",
        "-1",
        "=",
    ]
    for word in itertools.chain(
        words, ["", " a", "a ", "a: b", "a #b", "- a", "*a", "&a", "!a", "|", ">", "%a", "@a", "`a"]
    ):
        assert layout.scalar(word).startswith('"'), word
    for word in ("docker.io", "--secrets-from=namespace", "0s", "https://a.b/c", "10%", "16Mi", "99-worker-x"):
        assert layout.scalar(word) == word
