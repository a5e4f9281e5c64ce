"""What an installation changes on a node of each layout, and that it is taken away byte for byte."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

import rollout_node
from crio_credential_provider.commands.installation import telling
from crio_credential_provider.errors import ConfigError
from crio_credential_provider.node.facts import Given, gather
from crio_credential_provider.node.tree import Tree
from crio_credential_provider.rollout import apply, back, plan, preflight, transaction
from crio_credential_provider.rollout.apply import Options
from crio_credential_provider.rollout.changes import RolloutError
from crio_credential_provider.rollout.flags import Unsuitable, with_flags
from crio_credential_provider.rollout.plan import Plan, Wishes
from crio_credential_provider.rollout.store import Store
from rollout_node import LAYOUTS, PROGRAM, WITH_CONTAINERD, flags_of, lay, leftovers, refusal, snapshot

WISHES = Wishes(program=PROGRAM)
FILES_ONLY = Options(restart=False)


def planned(root: Path, wishes: Wishes = WISHES) -> Plan:
    tree = Tree(str(root))
    made = plan.install(gather(Given(root=tree.root, live=False, next_start=True)), wishes)
    if not made.changes:
        return made
    return plan.recorded(made, tree, plan.joined(transaction.installed(Store(tree)), made.changes))


def done(root: Path, made: Plan, verb: str) -> list[str]:
    told: list[str] = []
    with Store(Tree(str(root))).held():
        apply.apply(made, verb, str(root), FILES_ONLY, told.append)
    return told


@pytest.mark.parametrize("kind", LAYOUTS)
def test_there_and_back_again(kind: str, tmp_path: Path) -> None:
    lay(kind, tmp_path)
    before = snapshot(tmp_path)
    done(tmp_path, planned(tmp_path), "install")
    after = snapshot(tmp_path)
    flags = flags_of(tmp_path, kind)
    assert set(flags) >= {"image-credential-provider-config", "image-credential-provider-bin-dir"}
    assert refusal(tmp_path, kind, (PROGRAM,)) == ""
    assert rollout_node.NAME in (tmp_path / flags["image-credential-provider-config"][1:]).read_text()
    assert planned(tmp_path).changes == ()
    assert leftovers(tmp_path) == []

    found = back.uninstall(str(tmp_path))
    assert found.left == ()
    done(tmp_path, found.plan, "uninstall")
    assert snapshot(tmp_path) == before
    assert back.uninstall(str(tmp_path)).plan.changes == ()

    done(tmp_path, back.rollback(str(tmp_path)).plan, "rollback")
    assert snapshot(tmp_path) == after
    assert back.uninstall(str(tmp_path)).plan.changes != ()
    done(tmp_path, back.rollback(str(tmp_path)).plan, "rollback")
    assert snapshot(tmp_path) == before
    assert leftovers(tmp_path) == []


def test_where_each_layout_has_its_flags(tmp_path: Path) -> None:
    found = {}
    for kind in LAYOUTS:
        lay(kind, tmp_path / kind)
        found[kind] = [change.path for change in planned(tmp_path / kind).changes if change.role == "flags"]
    own = "/etc/systemd/system/kubelet.service.d/20-crio-credential-provider.conf"
    assert found == {
        "kubeadm": ["/etc/default/kubelet"],
        "kubeadm-rpm": ["/etc/sysconfig/kubelet"],
        "others": [],
        "go": [],
        "own-unit": [own],
        "openshift": [own],
        "k3s": [],
        "rke2": [],
        "containerd": ["/etc/default/kubelet"],
        "k3s-containerd": [],
    }


@pytest.mark.parametrize("kind", LAYOUTS)
def test_kubernetes_1_33_gets_its_gate(kind: str, tmp_path: Path) -> None:
    lay(kind, tmp_path)
    packages = tmp_path / "var/lib/dpkg/status"
    packages.write_text(packages.read_text().replace("1.34.2", "1.33.4"))
    done(tmp_path, planned(tmp_path), "install")
    gate = "KubeletServiceAccountTokenForCredentialProviders"
    if kind == "openshift":
        assert gate in (tmp_path / "etc/openshift/kubelet.conf.d/20-crio-credential-provider.conf").read_text()
    else:
        assert flags_of(tmp_path, kind)["feature-gates"] == f"{gate}=true"
    assert "cacheType" not in (tmp_path / planned(tmp_path).config_path[1:]).read_text().partition(rollout_node.NAME)[2]


def test_others_keep_every_byte(tmp_path: Path) -> None:
    lay("others", tmp_path)
    config = tmp_path / "etc/kubernetes/others.yaml"
    before = config.read_text()
    done(tmp_path, planned(tmp_path), "install")
    after = config.read_text()
    head, _, tail = before.partition("\n# The end.")
    assert after.startswith(head) and after.endswith("\n# The end." + tail)
    assert config.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "opt/providers" / rollout_node.NAME).read_bytes() == PROGRAM


def test_an_upgrade_changes_the_program_alone_and_comes_back(tmp_path: Path) -> None:
    lay("kubeadm", tmp_path)
    before = snapshot(tmp_path)
    done(tmp_path, planned(tmp_path), "install")
    newer = WISHES._replace(program=PROGRAM + b"# newer\n")
    made = planned(tmp_path, newer)
    assert [change.role for change in made.changes] == ["program", "record"]
    assert not made.actions
    done(tmp_path, made, "install")
    found = back.rollback(str(tmp_path)).plan
    done(tmp_path, found, "rollback")
    assert planned(tmp_path).changes == ()
    done(tmp_path, planned(tmp_path, newer), "install")
    done(tmp_path, back.uninstall(str(tmp_path)).plan, "uninstall")
    assert snapshot(tmp_path) == before


PLUGIN = "/usr/libexec/kubelet-image-credential-provider-plugins/crio-credential-provider"
# Without it the auth files of a plugin that stays would lie on the disk.
TMPFS = (
    "/etc/systemd/system/crio.service.wants/etc-crio-auth.mount",
    "/etc/systemd/system/etc-crio-auth.mount",
    "/etc/tmpfiles.d/crio-credential-provider.conf",
    "/etc/crio/auth",
)


def test_what_somebody_else_has_changed_stays_with_what_it_needs(tmp_path: Path) -> None:
    lay("kubeadm", tmp_path)
    done(tmp_path, planned(tmp_path), "install")
    config = tmp_path / "etc/kubernetes/credential-provider-config.yaml"
    config.write_text(config.read_text() + "# by somebody else\n")
    found = back.uninstall(str(tmp_path))
    config_path = "/etc/kubernetes/credential-provider-config.yaml"
    assert found.left == (
        f"{config_path} was changed by somebody else after this program wrote it; remove the provider "
        "crio-credential-provider from it by hand",
        *(f"{path} stays, since {config_path} may need it" for path in (*TMPFS, PLUGIN)),
    )
    done(tmp_path, found.plan, "uninstall")
    assert flags_of(tmp_path, "kubeadm").get("image-credential-provider-config") is None
    assert config.read_text().endswith("# by somebody else\n")
    assert (tmp_path / "usr/libexec/kubelet-image-credential-provider-plugins" / rollout_node.NAME).exists()
    # Once it is gone, the rest can go as well.
    config.unlink()
    again = back.uninstall(str(tmp_path))
    assert again.left == ()
    done(tmp_path, again.plan, "uninstall")
    assert not (tmp_path / "usr/libexec/kubelet-image-credential-provider-plugins").exists()


def test_flags_that_somebody_else_changed_keep_all_that_they_name(tmp_path: Path) -> None:
    lay("kubeadm", tmp_path)
    done(tmp_path, planned(tmp_path), "install")
    extra = tmp_path / "etc/default/kubelet"
    extra.write_text(extra.read_text().replace("10.0.0.1", "10.0.0.2"))
    found = back.uninstall(str(tmp_path))
    assert [text.partition(" ")[0] for text in found.left] == [
        "/etc/default/kubelet",
        "/etc/kubernetes/credential-provider-config.yaml",
        *TMPFS,
        PLUGIN,
    ]
    done(tmp_path, found.plan, "uninstall")
    assert refusal(tmp_path, "kubeadm", (PROGRAM,)) == ""
    assert "10.0.0.2" in extra.read_text()


def test_what_somebody_else_merged_after_us_is_not_overwritten_after_a_second_install(tmp_path: Path) -> None:
    lay("others", tmp_path)
    done(tmp_path, planned(tmp_path), "install")
    config = tmp_path / "etc/kubernetes/others.yaml"
    config.write_text(config.read_text().replace("The end", "The very end"))
    done(tmp_path, planned(tmp_path, WISHES._replace(audience="https://other.example")), "install")
    found = back.uninstall(str(tmp_path))
    assert found.left[0].startswith("/etc/kubernetes/others.yaml was changed by somebody else")
    done(tmp_path, found.plan, "uninstall")
    assert "The very end" in config.read_text() and refusal(tmp_path, "others", (PROGRAM,)) == ""


def test_crio_elsewhere(tmp_path: Path) -> None:
    """What the node's CRI-O has otherwise, the plugin is told; what the plugin is told otherwise, CRI-O is."""
    lay("kubeadm", tmp_path)
    conf = tmp_path / "etc/crio/crio.conf.d/50-own.conf"
    conf.write_text('[crio.image]\nnamespaced_auth_dir = "/run/own/auth"\nglobal_auth_file = "/etc/own.json"\n')
    (tmp_path / "etc/own.json").write_text("{}")
    done(tmp_path, planned(tmp_path), "install")
    config = (tmp_path / "etc/kubernetes/credential-provider-config.yaml").read_text()
    assert "--auth-dir=/run/own/auth" in config and "--global-auth-file=/etc/own.json" in config
    assert not (tmp_path / "etc/systemd/system/run-own-auth.mount").exists()
    other = tmp_path / "other"
    lay("kubeadm", other)
    made = planned(other, WISHES._replace(args=("--auth-dir=/run/crio/auth",)))
    assert [change.path for change in made.changes if change.role == "crio"] == [
        "/etc/crio/crio.conf.d/20-namespaced-auth.conf"
    ]
    assert made.actions.commands() == [["restart", "crio"], ["restart", "kubelet.service"]]


def test_what_the_node_has_for_every_pod_is_told_without_its_secret(tmp_path: Path) -> None:
    lay("kubeadm", tmp_path)
    auths = {"127.0.0.1:1": {"auth": "dTpjNG5hcnk="}, "other.example": {"auth": "dTpjNG5hcnk="}}
    (tmp_path / "var/lib/kubelet/config.json").write_text(json.dumps({"auths": auths}))
    assert planned(tmp_path).notes == (
        "/var/lib/kubelet/config.json has credentials for 127.0.0.1:1/hub: pulls of namespaces without one of their "
        "own go on using them",
    )


_USER = {"auth": "dTpjNG5hcnk="}


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"auths": {"127.0.0.1:1": _USER}}, "has credentials for 127.0.0.1:1/hub: pulls"),
        ({"auths": {"https://127.0.0.1:1/v2/": _USER}}, "has credentials for 127.0.0.1:1/hub: pulls"),
        ({"auths": {"127.0.0.1:1/hub": _USER}}, "has credentials for 127.0.0.1:1/hub: pulls"),
        ({"auths": {"127.0.0.1:1/hub/a": _USER}}, "for 127.0.0.1:1/hub (only below 127.0.0.1:1/hub/a): pulls"),
        ({"credHelpers": {"127.0.0.1:1": "ecr-login"}}, "for 127.0.0.1:1/hub (credential helper ecr-login): pulls"),
        ({"credsStore": "desktop"}, "has a credsStore, which neither CRI-O nor the kubelet reads"),
        ({"auths": {"127.0.0.1:1": {"auth": 1}}}, "cannot use /var/lib/kubelet/config.json: entry 1 of auths"),
        ({"auths": {"127.0.0.1:1": {"auth": "c4nary"}}}, ""),
        ({"auths": {"127.0.0.1:1": {}, "127.0.0.1:12/hub": _USER, "other.example": _USER}}, ""),
    ],
)
def test_which_mirrors_the_node_has_credentials_for(held: object, said: str, tmp_path: Path) -> None:
    lay("kubeadm", tmp_path)
    (tmp_path / "var/lib/kubelet/config.json").write_text(json.dumps(held))
    notes = "\n".join(planned(tmp_path).notes)
    assert said in notes if said else notes == ""
    assert "c4nary" not in notes and "dTpj" not in notes


def test_with_selinux_the_program_gets_its_type(tmp_path: Path) -> None:
    lay("openshift", tmp_path)
    enforce = tmp_path / "sys/fs/selinux/enforce"
    enforce.parent.mkdir(parents=True)
    enforce.write_text("1")
    try:
        os.setxattr(tmp_path / "var/lib", "security.selinux", b"system_u:object_r:var_lib_t:s0\0")
    except OSError:
        pytest.skip("this file system has no such attributes")
    done(tmp_path, planned(tmp_path), "install")
    program = tmp_path / "var/lib/crio-credential-provider/bin" / rollout_node.NAME
    assert os.getxattr(program, "security.selinux") == b"system_u:object_r:bin_t:s0\0"
    assert planned(tmp_path).changes == ()
    enforce.write_text("0")
    lay("openshift", tmp_path / "other")
    done(tmp_path / "other", planned(tmp_path / "other"), "install")
    assert os.listxattr(tmp_path / "other/var/lib/crio-credential-provider/bin" / rollout_node.NAME) == []


def test_a_link_is_followed_to_the_file_and_attributes_stay(tmp_path: Path) -> None:
    lay("others", tmp_path)
    config, real = tmp_path / "etc/kubernetes/others.yaml", tmp_path / "etc/real.yaml"
    config.rename(real)
    config.symlink_to("/etc/real.yaml")
    try:
        os.setxattr(real, "user.origin", b"platform")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    before = snapshot(tmp_path)
    done(tmp_path, planned(tmp_path), "install")
    assert config.is_symlink() and os.getxattr(real, "user.origin") == b"platform"
    done(tmp_path, back.uninstall(str(tmp_path)).plan, "uninstall")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("", "KUBELET_EXTRA_ARGS=--a --b\n"),
        ("X=1", "X=1\nKUBELET_EXTRA_ARGS=--a --b\n"),
        ("KUBELET_EXTRA_ARGS=\n", "KUBELET_EXTRA_ARGS=--a --b\n"),
        ("KUBELET_EXTRA_ARGS=--v=2 --x \n", "KUBELET_EXTRA_ARGS=--v=2 --x --a --b \n"),
        ('# it\'s\nKUBELET_EXTRA_ARGS="--v=2"\nY=2', '# it\'s\nKUBELET_EXTRA_ARGS="--v=2 --a --b"\nY=2'),
        ("KUBELET_EXTRA_ARGS=''\n", "KUBELET_EXTRA_ARGS='--a --b'\n"),
        (
            "KUBELET_EXTRA_ARGS=--x\nKUBELET_EXTRA_ARGS=--y\n",
            "KUBELET_EXTRA_ARGS=--x\nKUBELET_EXTRA_ARGS=--y --a --b\n",
        ),
    ],
)
def test_flags_come_behind_those_that_are_there(text: str, made: str) -> None:
    assert with_flags(text, ["--a", "--b"]) == made


@pytest.mark.parametrize(
    "text",
    [
        'KUBELET_EXTRA_ARGS="--v=2 \\\n  --x"\n',
        'KUBELET_EXTRA_ARGS="--v=2\n--x"\n',
        'KUBELET_EXTRA_ARGS="--v=2" # what\n',
        "KUBELET_EXTRA_ARGS='--a' '--b'\n",
        "X=1\\\n",
    ],
)
def test_a_layout_that_cannot_be_edited_gets_a_drop_in(text: str, tmp_path: Path) -> None:
    with pytest.raises(Unsuitable):
        with_flags(text, ["--a"])
    lay("kubeadm", tmp_path)
    (tmp_path / "etc/default/kubelet").write_text(text)
    paths = [change.path for change in planned(tmp_path).changes if change.role == "flags"]
    assert paths == ["/etc/systemd/system/kubelet.service.d/20-crio-credential-provider.conf"]


def test_arguments_that_stand_elsewhere_are_kept(tmp_path: Path) -> None:
    """In the environment file they would be overridden; of two files the later one counts."""
    drop_in = "usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf"
    lay("kubeadm", tmp_path / "unit")
    (tmp_path / "unit/etc/default/kubelet").unlink()
    unit = tmp_path / "unit" / drop_in
    unit.write_text(
        unit.read_text().replace("ExecStart=\n", 'Environment="KUBELET_EXTRA_ARGS=--node-ip=10.0.0.9"\nExecStart=\n')
    )
    lay("kubeadm", tmp_path / "two")
    unit = tmp_path / "two" / drop_in
    unit.write_text(unit.read_text().replace("ExecStart=\n", "EnvironmentFile=-/etc/sysconfig/kubelet\nExecStart=\n"))
    (tmp_path / "two/etc/sysconfig").mkdir()
    (tmp_path / "two/etc/sysconfig/kubelet").write_text("KUBELET_EXTRA_ARGS=--node-ip=10.0.0.9\n")
    for name in ("unit", "two"):
        done(tmp_path / name, planned(tmp_path / name), "install")
        flags = flags_of(tmp_path / name, "kubeadm")
        assert flags["node-ip"] == "10.0.0.9" and "image-credential-provider-config" in flags, name


def _no_kubelet(root: Path) -> None:
    (root / "usr/lib/systemd/system/kubelet.service").unlink()


def _not_a_config(root: Path) -> None:
    (root / "etc/kubernetes/credential-provider-config.yaml").write_text("kind: ConfigMap\napiVersion: v1\n")


def _a_directory(root: Path) -> None:
    (root / "etc/tmpfiles.d/crio-credential-provider.conf").mkdir(parents=True)


def _too_old(root: Path) -> None:
    packages = root / "var/lib/dpkg/status"
    packages.write_text(packages.read_text().replace("1.34.2", "1.32.1"))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_no_kubelet, "no kubelet was found below /"),
        (_not_a_config, "kind is 'ConfigMap'"),
        (_a_directory, "/etc/tmpfiles.d/crio-credential-provider.conf is a directory"),
        (_too_old, "this kubelet is 1.32.1, which passes no tokens to plugins"),
    ],
)
def test_a_node_that_cannot_be_told(spoil: object, said: str, tmp_path: Path) -> None:
    assert callable(spoil)
    lay("kubeadm", tmp_path)
    spoil(tmp_path)
    with pytest.raises(Exception, match=said):
        planned(tmp_path)


def test_without_the_executable_the_program_must_be_there(tmp_path: Path) -> None:
    lay("kubeadm", tmp_path)
    with pytest.raises(RolloutError, match="this is not the executable"):
        planned(tmp_path, Wishes())


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    store = Store(Tree(str(tmp_path)))
    with store.held(), pytest.raises(RolloutError, match="another install"), store.held():
        pass


def test_the_plan_does_not_show_what_another_provider_has_in_the_same_line(tmp_path: Path) -> None:
    lay("others", tmp_path)
    config = tmp_path / "etc/kubernetes/others.yaml"
    other = {
        "name": "ecr-credential-provider",
        "matchImages": ["*.dkr.ecr.*.amazonaws.com"],
        "defaultCacheDuration": "12h",
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "args": ["--token=hunter-two"],
        "env": [{"name": "AWS_SECRET_ACCESS_KEY", "value": 's3cr"et/key'}],
    }
    document = {"kind": "CredentialProviderConfig", "apiVersion": "kubelet.config.k8s.io/v1", "providers": [other]}
    config.write_text(json.dumps(document))
    made = planned(tmp_path)
    (change,) = (change for change in made.changes if change.role == "config")
    text = telling.diff(made, change)
    assert "crio-credential-provider" in text and "AWS_SECRET_ACCESS_KEY" in text
    assert "hunter-two" not in text and "et/key" not in text


@pytest.mark.parametrize("path", ["/etc/a b", "/etc/a%h", "/etc/a\nMode=0777"])
def test_an_auth_directory_that_a_unit_cannot_name_is_refused(path: str, tmp_path: Path) -> None:
    lay("kubeadm", tmp_path)
    with pytest.raises(RolloutError, match="cannot stand in a unit of systemd"):
        planned(tmp_path, WISHES._replace(args=(f"--auth-dir={path}",)))


# -- containerd --------------------------------------------------------------------------------------------------------


def args_of(root: Path, made: Plan) -> list[str]:
    """The plugin's arguments on the planned node."""
    document = yaml.safe_load(made.tree(str(root)).read(made.config_path))
    found: list[str] = next(one["args"] for one in document["providers"] if one["name"] == rollout_node.NAME)
    return found


@pytest.mark.parametrize("kind", WITH_CONTAINERD)
def test_with_containerd_nothing_of_crio_is_touched(kind: str, tmp_path: Path) -> None:
    lay(kind, tmp_path)
    before = snapshot(tmp_path)
    made = planned(tmp_path)
    assert {change.role for change in made.changes} <= {"directory", "program", "config", "flags", "record"}
    unit = "k3s.service" if kind == "k3s-containerd" else "kubelet.service"
    assert made.actions.commands() == [["restart", unit]]
    assert made.subject.endswith(", containerd")
    done(tmp_path, made, "install")
    after = snapshot(tmp_path)
    assert not [path for path in after if path not in before and ("crio/" in path or "tmpfiles" in path)]
    assert [path for path in before if "containerd" in path and after[path] != before[path]] == []


def test_the_entry_for_containerd(tmp_path: Path) -> None:
    own = "/var/lib/rancher/k3s/agent/etc/containerd/config.toml"
    for kind, more in (("containerd", []), ("k3s-containerd", [f"--containerd-config={own}"])):
        lay(kind, tmp_path / kind)
        made = planned(tmp_path / kind)
        assert args_of(tmp_path / kind, made) == ["--secrets-from=namespace", "--runtime=containerd", *more]
    root = tmp_path / "elsewhere"
    lay("containerd", root)
    unit = root / "usr/lib/systemd/system/containerd.service"
    unit.write_text(unit.read_text().replace("/containerd\n", "/containerd --config /etc/cd/config.toml\n"))
    (root / "etc/cd").mkdir()
    (root / "etc/containerd/config.toml").rename(root / "etc/cd/config.toml")
    assert args_of(root, planned(root))[1:] == ["--runtime=containerd", "--containerd-config=/etc/cd/config.toml"]


def checked(root: Path, *args: str) -> tuple[list[str], list[str]]:
    """Codes of what stops an installation, and of other errors."""
    found = preflight.check(planned(root, WISHES._replace(args=args)), str(root))
    errors = [finding for finding in found.others if finding.severity == "error"]
    return [finding.code for finding in found.stops], [finding.code for finding in errors]


EXPOSED = "mirror-credential-exposed"


def test_who_else_could_see_the_credential_is_told_before(tmp_path: Path) -> None:
    """It stops where no mirror would get a credential, and is told where others do."""
    lay("containerd", tmp_path)
    certs = tmp_path / "etc/containerd/certs.d"
    text = (certs / "docker.io/hosts.toml").read_text()
    assert EXPOSED not in [*checked(tmp_path)[0], *checked(tmp_path)[1]]
    (certs / "docker.io/hosts.toml").write_text(text.partition("override_path = true\n")[2])
    assert EXPOSED in checked(tmp_path)[0]
    assert EXPOSED not in [code for codes in checked(tmp_path, "--allow-fallback-exposure") for code in codes]
    (certs / "quay.io").mkdir()
    (certs / "quay.io/hosts.toml").write_text(text)
    stops, others = checked(tmp_path)
    assert EXPOSED not in stops and EXPOSED in others


def test_a_containerd_that_serves_no_kubelet_stops_it(tmp_path: Path) -> None:
    """The kubelet would not come up again after its restart."""
    lay("containerd", tmp_path)
    config = tmp_path / "etc/containerd/config.toml"
    config.write_text(f'disabled_plugins = ["cri"]\n{config.read_text()}')
    assert "containerd-without-cri" in checked(tmp_path)[0]


@pytest.mark.parametrize(
    ("value", "code", "is_served_if_allowed"),
    [("", "config-path-not-set", False), ("/etc/containerd/certs.d:/etc/docker/certs.d", "config-path-several", True)],
)
def test_where_containerd_may_ask_no_mirror_nothing_is_done(
    value: str, code: str, is_served_if_allowed: bool, tmp_path: Path
) -> None:
    lay("containerd", tmp_path)
    config = tmp_path / "etc/containerd/config.toml"
    config.write_text(config.read_text().replace("/etc/containerd/certs.d", value))
    assert code in checked(tmp_path)[0]
    assert (code in checked(tmp_path, "--allow-fallback-exposure")[1]) == is_served_if_allowed


def test_a_mirror_for_every_registry_is_told(tmp_path: Path) -> None:
    lay("containerd", tmp_path)
    certs = tmp_path / "etc/containerd/certs.d"
    (certs / "_default").mkdir()
    (certs / "_default/hosts.toml").write_text('[host."https://127.0.0.1:1"]\n')
    (certs / "index.docker.io").mkdir()
    (certs / "index.docker.io/hosts.toml").write_text('[host."https://127.0.0.1:1"]\n')
    notes = planned(tmp_path).notes
    assert any("_default/hosts.toml serves every registry without a directory of its own" in text for text in notes)
    assert any(text.startswith("index.docker.io is skipped: no image has such a name") for text in notes)
    assert not any("registry.invalid" in text for text in notes)
    (certs / "docker.io/hosts.toml").unlink()
    with pytest.raises(ConfigError, match="serves every registry") as refused:
        planned(tmp_path)
    assert "--match-image" in refused.value.hint


def test_what_the_kubelet_has_for_every_pod_is_told(tmp_path: Path) -> None:
    lay("containerd", tmp_path)
    (tmp_path / "var/lib/kubelet/config.json").write_text(json.dumps({"auths": {"docker.io": _USER}}))
    told = planned(tmp_path).notes
    assert told == (
        "/var/lib/kubelet/config.json has credentials for docker.io: pulls of namespaces without one of their own go "
        "on using them",
    )


def test_a_configuration_that_containerd_refuses_is_not_guessed_at(tmp_path: Path) -> None:
    lay("containerd", tmp_path)
    (tmp_path / "etc/containerd/config.toml").write_text("version = [\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        planned(tmp_path)


def test_a_node_that_changes_its_runtime(tmp_path: Path) -> None:
    """What was installed for one runtime is brought over to the other, and taken away with it."""
    lay("containerd", tmp_path)
    before = snapshot(tmp_path)
    done(tmp_path, planned(tmp_path), "install")
    flags = tmp_path / "var/lib/kubelet/kubeadm-flags.env"
    with_containerd = flags.read_text()
    for path in ("/etc/containers/registries.conf", "/usr/lib/systemd/system/crio.service"):
        (tmp_path / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path[1:]).write_text(rollout_node.CRIO[path])
    flags.write_text(with_containerd.replace("containerd/containerd", "crio/crio"))
    made = planned(tmp_path)
    assert args_of(tmp_path, made) == ["--secrets-from=namespace", "--runtime=crio"]
    assert made.actions.mounted
    done(tmp_path, made, "install")
    flags.write_text(with_containerd)
    made = planned(tmp_path)
    assert args_of(tmp_path, made) == ["--secrets-from=namespace", "--runtime=containerd"]
    done(tmp_path, made, "install")
    done(tmp_path, back.uninstall(str(tmp_path)).plan, "uninstall")
    after = snapshot(tmp_path)
    assert {path: after.get(path) for path in before} == before


def test_the_runtime_that_is_asked_for_counts(tmp_path: Path) -> None:
    lay("containerd", tmp_path)
    made = planned(tmp_path, WISHES._replace(args=("--runtime=crio",), match_images=("docker.io",)))
    assert args_of(tmp_path, made) == ["--secrets-from=namespace", "--runtime=crio"]
    assert any(change.role == "mount" for change in made.changes)
