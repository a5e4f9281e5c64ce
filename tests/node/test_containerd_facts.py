"""containerd as the commands find it: which runtime a node has, and what its files say below a root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from crio_credential_provider.node.containerd import OTHERS, domain_of, find_containerd, load_hosts, reading_of
from crio_credential_provider.node.facts import Given, gather
from crio_credential_provider.node.kubelet import parse_version
from crio_credential_provider.node.tree import Tree
from node import write

CONFIG = '[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "/etc/containerd/certs.d"\n'
HOSTS = 'server = "https://registry-1.docker.io"\n[host."https://mirror.corp:5000"]\nca = "ca.crt"\n'
FLAG = "--container-runtime-endpoint=unix:///run/"


def kubelet(root: Path, flag: str = "") -> None:
    write(root, "etc/systemd/system/kubelet.service", f"[Service]\nExecStart=/usr/bin/kubelet {flag}\n")


# -- which runtime ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "files", "runtime"),
    (
        (f"{FLAG}containerd/containerd.sock", ("etc/containerd/x",), "containerd"),
        (f"{FLAG}crio/crio.sock", ("etc/containerd/config.toml",), "crio"),
        ("", ("etc/containerd/config.toml",), "containerd"),
        ("", ("etc/containerd/config.toml", "etc/crio/crio.conf"), "crio"),
        ("", (), "crio"),
    ),
)
def test_an_image_has_the_runtime_of_its_endpoint_else_the_one_that_is_there(
    flag: str, files: tuple[str, ...], runtime: str, tmp_path: Path
) -> None:
    kubelet(tmp_path, flag)
    for file in files:
        write(tmp_path, file, "")
    node = gather(Given(root=str(tmp_path), live=False))
    assert (node.runtime, node.pulls_with) == (runtime, runtime)
    assert (node.hosts is not None) == (runtime == "containerd")


@pytest.mark.parametrize(
    ("config", "runtime"),
    (("", "containerd"), ("container-runtime-endpoint: unix:///run/crio/crio.sock\n", "crio")),
)
def test_k3s_has_its_own_containerd_unless_told_otherwise(config: str, runtime: str, tmp_path: Path) -> None:
    write(tmp_path, "etc/systemd/system/k3s.service", "[Service]\nExecStart=/usr/local/bin/k3s server\n")
    write(tmp_path, "etc/rancher/k3s/config.yaml", config)
    write(tmp_path, "var/lib/rancher/k3s/agent/etc/containerd/config.toml", f"version = 2\n{CONFIG}")
    node = gather(Given(root=str(tmp_path), live=False))
    assert (node.runtime, node.pulls_with) == ("crio", runtime)
    if runtime == "containerd":
        assert node.containerd is not None and node.containerd.distribution == "k3s"
        assert node.hosts is not None and node.hosts.file.startswith("/var/lib/rancher/k3s/")


def test_the_unit_names_another_file(tmp_path: Path) -> None:
    write(
        tmp_path, "etc/systemd/system/containerd.service", "[Service]\nExecStart=/usr/bin/containerd -c /srv/c.toml\n"
    )
    found = find_containerd(Tree(str(tmp_path)), 100, None, live=False)
    assert found is not None and found.config_file.value == "/srv/c.toml"
    assert str(found.config_file.origin) == "/etc/systemd/system/containerd.service:2"


def test_there_may_be_none(tmp_path: Path) -> None:
    assert find_containerd(Tree(str(tmp_path)), 100, None, live=False) is None


@pytest.mark.parametrize(
    ("printed", "version", "reading"),
    (
        ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3", "1.6.20", "1.6"),
        ("containerd github.com/containerd/containerd/v2 v2.1.5 c4bdb1a", "2.1.5", "2.0"),
        ("containerd github.com/k3s-io/containerd v2.2.0-k3s1 ", "2.2.0", "2.2"),
        ("containerd github.com/containerd/containerd/v2 v2.4.1 c4bdb1a", "2.4.1", "2.3"),
    ),
)
def test_versions(printed: str, version: str, reading: str) -> None:
    found = parse_version(printed, "x")
    assert (str(found), reading_of(found)) == (version, reading)


# -- its files --------------------------------------------------------------------------------------------------------


def test_hosts_are_found_behind_the_links_of_an_image(tmp_path: Path) -> None:
    write(tmp_path, "etc/containerd/config.toml", 'imports = ["conf.d/*.toml"]\nversion = 2\n')
    write(tmp_path, "opt/conf/10.toml", f"version = 2\n{CONFIG}")
    write(tmp_path, "opt/hosts", HOSTS)
    write(tmp_path, "etc/containerd/certs.d/_default/ca.crt", "")
    write(tmp_path, "etc/containerd/certs.d/quay.io/hosts.toml", 'server = "https://quay.io"\n')
    os.symlink("/opt/conf", tmp_path / "etc/containerd/conf.d")
    os.symlink("../../../../../../../opt/hosts", tmp_path / "etc/containerd/certs.d/_default/hosts.toml")
    found = load_hosts(Tree(str(tmp_path)), "/etc/containerd/config.toml")
    assert found.config is not None
    assert found.config.files == ("/etc/containerd/config.toml", "/etc/containerd/conf.d/10.toml")
    assert found.config.config_path == ("/etc/containerd/certs.d",)
    assert list(found.found) == [OTHERS, "quay.io"]
    first = found.found[OTHERS].hosts[0]
    assert (first.host, first.ca) == ("mirror.corp:5000", ("/etc/containerd/certs.d/_default/ca.crt",))
    assert first.file == "/etc/containerd/certs.d/_default/hosts.toml"
    assert str(tmp_path) not in repr(found) and "/tmp/" not in repr(found).replace(str(tmp_path), "")


@pytest.mark.parametrize("way", ("link", "climb", "import", "imported link", "linked directory"))
def test_no_path_of_an_image_leads_out_of_it(way: str, tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    write(outside, "docker.io/hosts.toml", '[host."https://canary"]\n')
    write(outside, "canary.toml", 'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry.mirrors.canary]\n')
    config, certs = "etc/containerd/config.toml", root / "etc/containerd/certs.d"
    write(root, config, f"version = 2\n{CONFIG}")
    certs.mkdir()
    if way == "link":
        os.symlink(outside, certs / "x")
        os.symlink(outside / "docker.io", certs / "docker.io")
    elif way == "climb":
        write(root, config, "version = 2\n" + CONFIG.replace("/etc/containerd/certs.d", "/.." * 20 + str(outside)))
    elif way == "import":
        write(root, config, 'version = 2\nimports = ["' + "../" * 20 + f'{outside}/*.toml"]\n')
    elif way == "imported link":
        write(root, config, 'version = 2\nimports = ["/etc/canary.toml"]\n')
        os.symlink(outside / "canary.toml", root / "etc/canary.toml")
    else:
        certs.rmdir()
        os.symlink(outside, certs)
    found = load_hosts(Tree(str(root)), f"/{config}")
    assert not found.found or (list(found.found) == ["docker.io"] and len(found.found["docker.io"].hosts) == 1)
    assert "https://canary" not in repr(found) and "'canary'" not in repr(found)
    assert (found.refused is not None) == ("import" in way)


@pytest.mark.parametrize("text", ("= 3\n", 'imports = ["a\\u0000b"]\n', 'imports = ["[.toml"]\n', "version = 9\n"))
@pytest.mark.parametrize("is_image", (True, False))
def test_what_containerd_refuses_is_told(text: str, is_image: bool, tmp_path: Path) -> None:
    write(tmp_path, "etc/containerd/config.toml", text)
    tree, file = Tree(str(tmp_path)), "/etc/containerd/config.toml"
    found = load_hosts(tree, file) if is_image else load_hosts(Tree(), f"{tmp_path}{file}")
    assert found.refused is not None and found.config is None
    assert file in found.refused.message


@pytest.mark.parametrize(
    ("name", "domain"),
    (
        ("docker.io", "docker.io"),
        ("mirror.corp_5000_", "mirror.corp:5000"),
        ("mirror.corp:5000", "mirror.corp:5000"),
        ("mirror.corp_5000", "mirror.corp_5000"),
        ("_default", OTHERS),
        ("_5000_", "_5000_"),
    ),
)
def test_directories_and_registries(name: str, domain: str) -> None:
    assert domain_of(name) == domain
