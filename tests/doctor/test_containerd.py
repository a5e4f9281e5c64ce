"""doctor on nodes with containerd, beyond one fault each: what is never shown, and whose advice heals."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from crio_credential_provider.commands import doctor
from crio_credential_provider.doctor import Given, examine
from crio_credential_provider.doctor.hostsnames import is_registry, meant_directory, meant_file
from gallery import GALLERY, Fault, World, below, load_fault, load_node, look, run

CONFIG = "/etc/containerd/config.toml"
HUB = "/etc/containerd/certs.d/docker.io/hosts.toml"


LAID = pytest.mark.skipif(os.geteuid() != 0, reason="a node's files belong to root")


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@LAID
@pytest.mark.process
@pytest.mark.parametrize("name", ("credential-in-config-toml", "authorization-in-hosts"))
@pytest.mark.parametrize("output", ("text", "json"))
def test_no_credential_of_the_files_is_shown(name: str, output: str, world: World, tmp_path: Path) -> None:
    with world.node(load_fault(name), tmp_path) as laid:
        for offline in (True, False):
            text = run(laid, ["--output", output], offline=offline)[2]
            assert "canary-of-config-toml" not in text and "Y2FuYXJ5OmNhbmFyeQ" not in text


@LAID
@pytest.mark.parametrize("name", ("upstream-behind-the-mirror", "capabilities-without-server"))
def test_what_is_to_be_written_heals(name: str, world: World, tmp_path: Path) -> None:
    with world.node(load_fault(name), tmp_path) as laid:
        (found,) = look(laid, offline=True).findings
        server = re.search(r'server = "[^"]+"', found["remedy"])
        assert server is not None and "override_path = true" in found["remedy"]
        hosts = below(laid.root, HUB).read_text()
        below(laid.root, HUB).write_text(f"{server[0]}\noverride_path = true\n{hosts[hosts.index('[host') :]}")
        assert look(laid, offline=True).findings == []


@LAID
def test_a_name_that_was_mended_heals(world: World, tmp_path: Path) -> None:
    with world.node(load_fault("hosts-directory-registry-1"), tmp_path) as laid:
        (found,) = look(laid, offline=True).findings
        old, new = found["remedy"].split("mv ")[1].split()
        below(laid.root, old).rename(below(laid.root, new))
        assert look(laid, offline=True).findings == []


@LAID
def test_registry_settings_written_where_they_are_told_to_heal(world: World, tmp_path: Path) -> None:
    """Of the last file with the plugin's table, which containerd 1 takes whole."""
    with world.node(load_fault("containerd-drop-in-without-registry"), tmp_path) as laid:
        (found,) = look(laid, offline=True).findings
        told = re.search(r"write (\[.+?\.registry\]) of (\S+) in (\S+) as well", found["remedy"])
        assert told is not None and told[2] == CONFIG
        with below(laid.root, told[3]).open("a") as file:
            file.write(f'{told[1]}\nconfig_path = "/etc/containerd/certs.d"\n')
        assert look(laid, offline=True).findings == []


@LAID
@pytest.mark.slow
def test_each_mirror_is_told_once(world: World, tmp_path: Path) -> None:
    """Two registries have the same one, as host and as server."""
    with world.node(load_fault("containerd-mirror-name-unknown"), tmp_path) as laid:
        (found,) = look(laid, offline=False).findings
    assert found["code"] == "mirror-unreachable" and "getent hosts mirror.corp.example" in found["remedy"]


@LAID
def test_each_fault_of_its_own_is_told(world: World, tmp_path: Path) -> None:
    names = (
        "hosts-skip-verify",
        "hosts-directory-port",
        "containerd-registry-not-matched",
        "arguments-of-crio-on-containerd",
    )
    faults = [load_fault(name) for name in names]
    node = Fault(
        "several", "containerd", (), "", "same", tuple(overlay for fault in faults for overlay in fault.overlays)
    )
    with world.node(node, tmp_path) as laid:
        found = {finding["code"] for finding in look(laid, offline=True).findings}
    assert found == {fault.expected[0].finding for fault in faults}


@LAID
def test_nothing_of_crio_is_said_on_a_node_with_containerd(world: World, tmp_path: Path) -> None:
    with world.node(load_node("containerd"), tmp_path) as laid:
        (below(laid.root, "/etc/crio/auth")).mkdir(parents=True)
        below(laid.root, "/etc/crio/auth").chmod(0o777)
        registries = below(laid.root, "/etc/containers/registries.conf")
        registries.parent.mkdir()
        registries.write_text("no TOML\n")
        report = examine(Given(root=str(laid.root), live=False))
    assert report.findings == ()
    told = " ".join((*report.examined, *(item.what for item in report.not_examined)))
    assert "CRI-O" not in told and "registries.conf" not in told and "auth directory" not in told


def test_one_file_is_checked_against_the_runtime_that_it_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --config nothing tells the runtime but --runtime."""
    text = (GALLERY / "nodes/containerd/root/etc/kubernetes/credential-provider-config.yaml").read_text()
    file = tmp_path / "provider.yaml"
    config = tmp_path / "config.toml"
    config.write_text(
        f'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "{tmp_path}/certs.d"\n'
    )
    for domain in ("docker.io", "ghcr.io"):
        hosts = tmp_path / "certs.d" / domain / "hosts.toml"
        hosts.parent.mkdir(parents=True)
        hosts.write_text('server = "https://mirror.corp"\n[host."https://mirror.corp"]\n')
    more = f"      - --runtime=containerd\n      - --containerd-config={config}\n"
    file.write_text(text.replace("--secrets-from=namespace\n", f"--secrets-from=namespace\n{more}"))
    assert doctor.run(["--config", str(file)]) == 3
    told = " ".join(capsys.readouterr().out.split())
    assert "ghcr.io is not matched" in told and "docker.io is not matched" not in told


@pytest.mark.parametrize(
    ("name", "meant"),
    (
        ("docker.io", ""),
        ("registry-1.docker.io", "docker.io"),
        ("index.docker.io", "docker.io"),
        ("https:__quay.io", "quay.io"),
        ("https:quay.io", "quay.io"),
        ("https__quay.io", "quay.io"),
        ("mirror.corp:5000", ""),
        ("mirror.corp_5000_", ""),
        ("mirror.corp_5000", "mirror.corp_5000_"),
        ("mirror.corp__5000", "mirror.corp_5000_"),
        ("mirror.corp__5000_", "mirror.corp_5000_"),
        ("mirror.corp_:5000", "mirror.corp_5000_"),
        ("Quay.io", "quay.io"),
        ("_default", ""),
        ("default", "_default"),
        ("*", "_default"),
        ("*.corp", "_default"),
        ("docker.io.bak", ""),
        ("httpbin.corp", ""),
        ("localhost:5000", ""),
    ),
)
def test_names_of_directories(name: str, meant: str) -> None:
    assert meant_directory(name)[0] == meant
    assert is_registry(name) == (not meant and not name.endswith(".bak"))


@pytest.mark.parametrize(
    ("name", "is_meant"),
    (
        *(
            (name, True)
            for name in ("host.toml", "hosts.tml", "Hosts.toml", "hosts.toml.txt", "host.tml", "hosts.yaml")
        ),
        *((name, False) for name in ("ca.crt", "client.cert", "hosts.toml.bak", "README", "hosts.toml~")),
    ),
)
def test_names_of_files(name: str, is_meant: bool) -> None:
    assert bool(meant_file(("ca.crt", name))) == is_meant
