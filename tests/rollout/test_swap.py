"""`install` where another program is in the plugin's place: cri-o's Go provider, both of them, older forms of ours."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from crio_credential_provider.commands.installation import telling
from crio_credential_provider.errors import ProviderError
from crio_credential_provider.node import programs
from crio_credential_provider.node.facts import Given, gather
from crio_credential_provider.node.tree import Tree
from crio_credential_provider.rollout import apply, back, plan, transaction
from crio_credential_provider.rollout.apply import Options
from crio_credential_provider.rollout.plan import Plan, Wishes
from crio_credential_provider.rollout.store import Store
from rollout_node import GO_CONFIG, GO_PROGRAM, NAME, PROGRAM, lay, leftovers, refusal, snapshot

WISHES = Wishes(program=PROGRAM)
CONFIG = "etc/kubernetes/credential-provider-config.yml"
BIN = "opt/go"


def planned(root: Path, wishes: Wishes = WISHES) -> Plan:
    tree = Tree(str(root))
    made = plan.install(gather(Given(root=tree.root, live=False, next_start=True)), wishes)
    return plan.recorded(made, tree, plan.joined(transaction.installed(Store(tree)), made.changes))


def done(root: Path, made: Plan, verb: str) -> None:
    with Store(Tree(str(root))).held():
        apply.apply(made, verb, str(root), Options(restart=False), lambda _: None)


def entries(root: Path) -> dict[str, dict[str, object]]:
    return {entry["name"]: entry for entry in yaml.safe_load((root / CONFIG).read_text())["providers"]}


@pytest.fixture
def node(tmp_path: Path) -> Path:
    lay("go", tmp_path)
    return tmp_path


def put(root: Path, path: str, content: bytes) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    file.chmod(0o755)
    return file


# -- cri-o's Go provider -----------------------------------------------------------------------------------------------


def test_the_go_provider_is_replaced_and_comes_back(node: Path) -> None:
    before = snapshot(node)
    made = planned(node)
    assert made.notes == (
        f"/{BIN}/{NAME}: replaces cri-o's Go provider, version v0.1.2; rollback and uninstall put it back",
        "API server: https://localhost:6443 (the default, as no kubeconfig and no apiserver-url.env was found: set "
        "--kubeconfig or --apiserver), its certificate verified; the Go provider asks that of "
        "/etc/kubernetes/apiserver-url.env, else localhost:6443, and does not verify",
        "auth files: below /etc/crio/auth, with the credentials of one image's mirrors; those of the Go provider have "
        "all of /var/lib/kubelet/config.json as well",
        "a run without a token, or without a credential, exits with 0; each pull with a credential of its namespace "
        "leaves a pull record",
        f"/{CONFIG}: defaultCacheDuration: changed from 1s to 0s",
    )
    (program,) = (change for change in made.changes if change.role == "program")
    size = len(PROGRAM)
    assert telling.diff(made, program) == (
        f"change program /{BIN}/{NAME}: {NAME}, version 0.9.0, {size} bytes, mode 0755"
    )
    assert made.actions.kubelet == "kubelet.service"
    done(node, made, "install")
    assert (node / BIN / NAME).read_bytes() == PROGRAM
    assert (node / CONFIG).read_text() == GO_CONFIG.replace('"1s"   #', "0s     #")
    assert planned(node).notes == ()

    found = back.uninstall(str(node)).plan
    (program,) = (change for change in found.changes if change.role == "program")
    assert telling.diff(found, program).startswith(
        f"change program /{BIN}/{NAME}: cri-o's Go provider, version v0.1.2, {len(GO_PROGRAM)} bytes"
    )
    done(node, found, "uninstall")
    assert snapshot(node) == before
    done(node, back.rollback(str(node)).plan, "rollback")
    assert (node / BIN / NAME).read_bytes() == PROGRAM


def test_an_entry_that_the_kubelet_or_the_plugin_would_refuse_is_told_change_by_change(node: Path) -> None:
    text = GO_CONFIG.replace('cacheType: "Token"', 'cacheType: "ServiceAccount"').replace('"1s"', '"10m"')
    text += "    args: [--verbose]\n    env:\n      - {name: HTTPS_PROXY, value: http://user:c4nary@proxy}\n"
    (node / CONFIG).write_text(text)
    made = planned(node)
    for said in (
        "cacheType: changed from ServiceAccount to Token",
        "defaultCacheDuration: changed from 10m to 0s",
        "args: removed --verbose, which the plugin refuses",
        "env: not changed; check that these variables are still needed: HTTPS_PROXY",
    ):
        assert any(said in note for note in made.notes), (said, made.notes)
    assert "c4nary" not in "".join(made.notes)


def test_what_the_go_provider_reads_is_read(node: Path) -> None:
    (node / "etc/kubernetes/apiserver-url.env").write_text(
        "KUBERNETES_SERVICE_HOST='api.corp.example'\nKUBERNETES_SERVICE_PORT='6443'\n"
    )
    notes = planned(node).notes
    assert any("https://api.corp.example:6443 (/etc/kubernetes/apiserver-url.env)" in note for note in notes), notes


def test_without_the_executable_the_go_provider_is_not_configured_as_ours(node: Path) -> None:
    with pytest.raises(ProviderError, match=r"is cri-o's Go provider, version v0\.1\.2, and this is not the exec"):
        planned(node, Wishes())


def test_what_it_has_left_behind(node: Path) -> None:
    """On the disk, over which the tmpfs is mounted."""
    directory = node / "etc/crio/auth"
    files = [directory / f"team-alpha-{'a' * 64}.json", directory / ".auth-123.tmp"]
    directory.mkdir()
    for file in (*files, directory / "notes.txt"):
        file.write_text("{}")
    assert any("auth files that no pull has taken (2): they are removed before" in note for note in planned(node).notes)
    assert plan.auth_files(Tree(str(node)), "/etc/crio/auth") == sorted(f"/{file.relative_to(node)}" for file in files)
    # In memory the plugin itself removes them.
    (node / "proc/self/mountinfo").write_text("22 1 0:41 / /etc/crio/auth rw - tmpfs tmpfs rw\n")
    (node / "proc/1/mountinfo").write_text("22 1 0:41 / /etc/crio/auth rw - tmpfs tmpfs rw\n")
    assert any("(2): the next runs of the plugin remove them" in note for note in planned(node).notes)


def test_neither_is_said_so_and_kept(node: Path) -> None:
    wrapper = b"#!/bin/sh\nHTTPS_PROXY=http://proxy exec /opt/real/crio-credential-provider\n"
    put(node, f"{BIN}/{NAME}", wrapper)
    before = snapshot(node)
    made = planned(node)
    assert made.notes[0] == (
        f"/{BIN}/{NAME}: replaces a program that is neither {NAME} nor cri-o's; rollback and uninstall put it back"
    )
    done(node, made, "install")
    done(node, back.uninstall(str(node)).plan, "uninstall")
    assert snapshot(node) == before


def test_after_an_upgrade_uninstall_still_gives_it_back(node: Path) -> None:
    before = snapshot(node)
    done(node, planned(node), "install")
    newer = planned(node, WISHES._replace(program=PROGRAM.replace(b"0.9.0", b"0.9.1")))
    assert newer.notes[0] == (f"/{BIN}/{NAME}: replaces {NAME}, version 0.9.0; rollback and uninstall put it back")
    done(node, newer, "install")
    done(node, back.uninstall(str(node)).plan, "uninstall")
    assert snapshot(node) == before


def test_auth_files_behind_a_link_are_those_of_the_node(node: Path) -> None:
    """In a container the link leads to the container's own files for whoever just follows it."""
    name = f"team-alpha-{'a' * 64}.json"
    left, foreign = put(node, f"srv/auth/{name}", b"{}"), put(node.parent, f"srv-{node.name}/{name}", b"{}")
    (node / "etc/crio/auth").symlink_to("/srv/auth")
    told: list[str] = []
    apply._clear(Tree(str(node)), "/etc/crio/auth", told.append)
    assert not left.exists() and foreign.exists() and told == [f"removed: /etc/crio/auth/{name}"]


# -- both of them ------------------------------------------------------------------------------------------------------

_ENTRY = GO_CONFIG[GO_CONFIG.index("  - name:") :]


def second(root: Path, name: str, program: bytes, entry: str = _ENTRY) -> None:
    """Another entry behind the first, and its program."""
    (root / CONFIG).write_text(GO_CONFIG + entry.replace(NAME, name))
    put(root, f"{BIN}/{name}", program)


def test_the_go_provider_under_another_name(node: Path) -> None:
    """Its entry goes, and ours gets what it matches."""
    second(node, "go-provider", GO_PROGRAM, _ENTRY.replace("- docker.io", "- quay.io\n      - docker.io"))
    put(node, f"{BIN}/{NAME}", PROGRAM)
    before = snapshot(node)
    made = planned(node)
    assert (
        f"/{CONFIG}: removed the provider go-provider: it is cri-o's Go provider, version v0.1.2, and writes the same "
        f"auth files; its program /{BIN}/go-provider stays"
    ) in made.notes
    done(node, made, "install")
    assert {name: entry["matchImages"] for name, entry in entries(node).items()} == {NAME: ["docker.io", "quay.io"]}
    assert (node / CONFIG).read_text().startswith("---\n# As the tests of cri-o's provider have it.\n")
    done(node, back.uninstall(str(node)).plan, "uninstall")
    assert snapshot(node) == before and leftovers(node) == []


def test_the_go_provider_under_another_name_alone(node: Path) -> None:
    """Ours is new: the audience that the node may request is that of the entry which goes."""
    (node / CONFIG).write_text(GO_CONFIG.replace(NAME, "go-provider").replace("kubernetes.default.svc", "tokens.corp"))
    (node / BIN / NAME).rename(node / BIN / "go-provider")
    before = snapshot(node)
    done(node, planned(node), "install")
    (entry,) = entries(node).values()
    assert entry["name"] == NAME and entry["tokenAttributes"] == {
        "serviceAccountTokenAudience": "https://tokens.corp",
        "cacheType": "Token",
        "requireServiceAccount": True,
    }
    assert refusal(node, "go", (PROGRAM,)) == ""
    done(node, back.uninstall(str(node)).plan, "uninstall")
    assert snapshot(node) == before


def test_ours_under_another_name_beside_the_go_provider(node: Path) -> None:
    """As somebody would try it: its arguments go over."""
    second(node, "mirror-credentials", PROGRAM, _ENTRY + "    args: [--secrets-from=pod, --deadline=7s]\n")
    done(node, planned(node, WISHES._replace(args=("--deadline=8s",))), "install")
    (entry,) = entries(node).values()
    assert (entry["name"], entry["args"]) == (NAME, ["--deadline=8s", "--secrets-from=pod"])


def test_one_in_another_directory_is_told(node: Path) -> None:
    usual = "usr/libexec/kubelet-image-credential-provider-plugins"
    put(node, f"{usual}/{NAME}", PROGRAM)
    assert (f"/{usual}/{NAME} is {NAME}, version 0.9.0: this kubelet does not run it; remove it yourself") in planned(
        node
    ).notes


def test_the_go_provider_for_other_images_stays(node: Path) -> None:
    second(node, "go-provider", GO_PROGRAM, _ENTRY.replace("docker.io", "quay.io"))
    made = planned(node)
    assert any(note.endswith("v0.1.2, and stays: no image matches both providers") for note in made.notes)
    done(node, made, "install")
    assert list(entries(node)) == [NAME, "go-provider"]


def test_as_json(node: Path) -> None:
    second(node, "go-provider", GO_PROGRAM)
    (node / CONFIG).write_text(json.dumps(yaml.safe_load((node / CONFIG).read_text()), indent=4))
    before = snapshot(node)
    done(node, planned(node), "install")
    assert list(entries(node)) == [NAME] and refusal(node, "go", (PROGRAM,)) == ""
    done(node, back.uninstall(str(node)).plan, "uninstall")
    assert snapshot(node) == before


def test_what_cannot_be_removed_safely_is_left_to_a_person(node: Path) -> None:
    entry = _ENTRY.replace("- docker.io", "- &hub docker.io")
    second(node, "go-provider", GO_PROGRAM, entry)
    with (node / CONFIG).open("a") as file:
        file.write(_ENTRY.replace(NAME, "other").replace("- docker.io", "- *hub"))
    with pytest.raises(ProviderError, match="the provider go-provider cannot be removed safely; remove it by hand"):
        planned(node)


def test_in_another_file_of_a_directory(node: Path) -> None:
    packages = node / "var/lib/dpkg/status"
    packages.write_text(packages.read_text().replace("1.34.2", "1.36.0"))
    text = (node / CONFIG).read_text()
    (node / CONFIG).unlink()
    put(node, f"{CONFIG}/a.yaml", text.encode())
    put(node, f"{CONFIG}/b.yaml", text.replace(NAME, "go-provider").encode())
    put(node, f"{BIN}/go-provider", GO_PROGRAM)
    with pytest.raises(ProviderError, match=r"b\.yaml:6: the provider go-provider is cri-o's .* remove it there first"):
        planned(node)
    put(node, f"{CONFIG}/b.yaml", text.replace(NAME, "go-provider").replace("docker.io", "quay.io").encode())
    done(node, planned(node), "install")
    assert "go-provider" in (node / CONFIG / "b.yaml").read_text()


# -- older forms of ours -----------------------------------------------------------------------------------------------

_LAUNCHER = b"#!/usr/bin/python3.11 -IS\nfrom crio_credential_provider.__main__ import main\nmain()\n"


def _archive(root: Path) -> None:
    """A directory and a link."""
    put(root, "opt/crio-credential-provider-0.0.9/bin/crio-credential-provider", _LAUNCHER)
    (root / BIN / NAME).unlink()
    (root / BIN / NAME).symlink_to("/opt/crio-credential-provider-0.0.9/bin/crio-credential-provider")


def _package(root: Path) -> None:
    put(root, f"{BIN}/{NAME}", b"\x7fELF\0crio_credential_provider 0.0.9\0")
    put(root, f"var/lib/dpkg/info/{NAME}.list", f"/.\n/{BIN}/{NAME}\n".encode())


def _wheel(root: Path) -> None:
    put(root, f"{BIN}/{NAME}", _LAUNCHER)


@pytest.mark.parametrize(
    ("form", "version"),
    [(_archive, "of unknown version"), (_package, "version 0.0.9"), (_wheel, "of unknown version")],
)
def test_an_older_version_is_replaced_and_comes_back(form: object, version: str, node: Path) -> None:
    assert callable(form)
    form(node)
    before = snapshot(node)
    made = planned(node)
    assert made.notes[0].startswith(f"/{BIN}/{NAME}: replaces {NAME}, {version}; ")
    assert any("Go provider" in note for note in made.notes) is False
    is_packaged = form is _package
    assert any(f"is a file of the package {NAME}" in note for note in made.notes) == is_packaged
    done(node, made, "install")
    assert (node / BIN / NAME).read_bytes() == PROGRAM and not (node / BIN / NAME).is_symlink()
    done(node, back.rollback(str(node)).plan, "rollback")
    assert snapshot(node) == before


def test_a_link_that_leads_out_of_the_node_is_not_followed(node: Path) -> None:
    outside = put(node.parent, f"{node.name}-outside", GO_PROGRAM)
    (node / BIN / NAME).unlink()
    (node / BIN / NAME).symlink_to(f"../../../../../../../..{outside}")
    assert programs.find(Tree(str(node)), f"/{BIN}/{NAME}") is None
    os.unlink(outside)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (GO_PROGRAM, "cri-o's Go provider, version v0.1.2"),
        (GO_PROGRAM.replace(b"v0.1.2", b"(devel)"), "cri-o's Go provider, of unknown version"),
        (GO_PROGRAM.replace(b"github.com/cri-o/", b"github.com/openshift/"), "cri-o's Go provider, version v0.1.2"),
        (GO_PROGRAM.replace(b"crio-credential-provider", b"ecr-credential-provider"), programs.OTHER),
        (b"", programs.OTHER),
    ],
)
def test_a_program_by_its_bytes(content: bytes, said: str) -> None:
    assert str(programs.identify(content)) == said
