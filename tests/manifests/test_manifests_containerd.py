"""`manifests` for nodes with containerd: matchImages from its files, and no file that only CRI-O reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from commandline import Done, command
from credentialproviderconfig import faults
from crio_credential_provider.commands import manifests

pytestmark = pytest.mark.process

CERTS = "/etc/containerd/certs.d"
V2 = f'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "{CERTS}"\n'
HOSTS = 'server = "https://{server}"\n[host."https://mirror.corp.example:5000/v2/{path}"]\noverride_path = true\n'
MIRRORS = """\
version = 2
[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]
endpoint = ["https://mirror.corp.example:5000"]
[plugins."io.containerd.grpc.v1.cri".registry.mirrors."*"]
endpoint = ["https://mirror.corp.example:5000"]
"""


def lay(root: Path, config: str = V2, file: str = "/etc/containerd/config.toml", **hosts: str) -> Path:
    """A node's root, with a mirror for each registry."""
    place = root / file[1:]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(config)
    for name, text in hosts.items():
        directory = root / CERTS[1:] / name
        directory.mkdir(parents=True)
        (directory / "hosts.toml").write_text(text)
    return root


def run(root: Path, *words: str) -> Done:
    return command("manifests", manifests.run, [*words, "--runtime", "containerd", "--root", str(root)])


def entry(done: Done) -> dict[str, Any]:
    assert done.status == 0, done.err
    (document,) = done.documents
    assert faults(document, 34) == []
    found: dict[str, Any] = document["providers"][0]
    return found


OPEN = HOSTS.format(server="registry.example", path="hub")
MIRROR = "override_path = true\n" + HOSTS.format(server="mirror.corp.example:5000/v2/hub", path="hub")
"""Where nobody else is asked."""
DIRECTORIES = {
    "docker.io": MIRROR,
    "quay.io": 'server = "https://quay.io"\n',
    "ghcr.io_5000_": MIRROR,
    "registry.k8s.io": '[host."https://registry.k8s.io"]\n',
    "index.docker.io": MIRROR,
    "broken.example": "[host\n",
    "_default": MIRROR,
}


def test_each_directory_with_a_mirror_is_matched(tmp_path: Path) -> None:
    done = run(lay(tmp_path, **DIRECTORIES), "config")
    assert entry(done)["matchImages"] == ["docker.io", "ghcr.io:5000"]
    assert entry(done)["args"] == ["--secrets-from=namespace", "--runtime=containerd"]
    text = " ".join(done.out.replace("#", "").split())
    assert "certs.d/_default/hosts.toml serves every registry without a directory of its own" in text
    assert "give each registry that pods name with --match-image, those above included" in text
    assert "Skipped: index.docker.io: no image has such a name" in text


def test_registry_mirrors_are_read_as_well(tmp_path: Path) -> None:
    done = run(lay(tmp_path, MIRRORS), "config")
    assert entry(done)["matchImages"] == ["docker.io"]
    assert "serves every registry" in " ".join(done.out.replace("#", "").split())


def test_where_every_registry_has_the_mirror_a_person_must_say_which(tmp_path: Path) -> None:
    root = lay(tmp_path, _default=MIRROR)
    done = run(root, "config")
    assert done.status == 1
    assert "_default/hosts.toml serves every registry without a directory of its own" in done.err
    assert "give registries with --match-image" in done.err
    assert entry(run(root, "config", "--match-image", "docker.io"))["matchImages"] == ["docker.io"]


def test_mirror_registry_leaves_out_what_leads_elsewhere(tmp_path: Path) -> None:
    root = lay(tmp_path, **{"docker.io": MIRROR, "quay.io": HOSTS.format(server="quay.io", path="quay")})
    found = entry(run(root, "config", "--mirror-registry", "mirror.corp.example:5000/quay"))
    assert found["matchImages"] == ["quay.io"]
    done = run(root, "config", "--mirror-registry", "other.example")
    assert (done.status, "none of its sources is covered by --mirror-registry" in done.err) == (1, True)


def test_no_mirror_is_no_configuration(tmp_path: Path) -> None:
    done = run(lay(tmp_path), "config")
    assert (done.status, done.out) == (1, "")
    assert "by /etc/containerd/config.toml no registry has a mirror" in done.err
    assert "write one in a hosts.toml below its config_path" in done.err


@pytest.mark.parametrize("name", ["k3s", "rke2"])
def test_the_embedded_containerd_has_its_own_file(name: str, tmp_path: Path) -> None:
    file = f"/var/lib/rancher/{name}/agent/etc/containerd/config.toml"
    root = lay(tmp_path, V2, file, **{"docker.io": MIRROR})
    found = entry(run(root, "config", "--distribution", name))
    assert found["args"] == ["--secrets-from=namespace", "--runtime=containerd", f"--containerd-config={file}"]
    given = ["--distribution", name, "--containerd-config", "/etc/other.toml", "--match-image", "docker.io"]
    assert entry(run(root, "config", *given))["args"][-1] == "--containerd-config=/etc/other.toml"


def test_nothing_of_crio_is_made(tmp_path: Path) -> None:
    root = lay(tmp_path / "node", **{"docker.io": MIRROR})
    done = run(root, "all", "--directory", str(tmp_path / "out"))
    assert (done.status, done.err) == (0, "")
    made = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert made == [
        "daemonset.yaml",
        "kustomization.yaml",
        "node-rbac.yaml",
        "node/etc/kubernetes/credential-provider-config.yaml",
        "node/etc/systemd/system/kubelet.service.d/20-crio-credential-provider.conf",
    ]
    for kind in ("crio", "mount", "tmpfiles"):
        done = run(root, kind, "--auth-dir", "/var/own")
        assert (done.status, done.out) == (0, "") and "containerd takes no auth files" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["config", "--distribution", "openshift"], "OpenShift has CRI-O"),
        (["registries"], "publishes registries.conf, which containerd does not read"),
        (["config", "--containerd-config", "config.toml"], "--containerd-config"),
    ],
)
def test_what_does_not_go_together(words: list[str], said: str, tmp_path: Path) -> None:
    done = run(lay(tmp_path, **{"docker.io": MIRROR}), *words)
    assert (done.status, said in done.err) == (2, True), done.err


def test_a_plugin_arg_is_as_good_as_the_flag(tmp_path: Path) -> None:
    root = lay(tmp_path, **{"docker.io": MIRROR})
    words = ["config", "--plugin-arg=--runtime=containerd", "--root", str(root)]
    assert entry(command("manifests", manifests.run, words))["matchImages"] == ["docker.io"]


def test_an_entry_of_crio_is_brought_over(tmp_path: Path) -> None:
    """--runtime is set, what does no harm stays."""
    root = lay(tmp_path, **{"docker.io": MIRROR})
    file = tmp_path / "config.yaml"
    file.write_text(command("manifests", manifests.run, ["config", "--match-image", "quay.io"]).out)
    found = entry(run(root, "config", "--merge", str(file)))
    assert found["matchImages"] == ["quay.io", "docker.io"]
    assert found["args"] == ["--secrets-from=namespace", "--runtime=containerd"]


def test_who_else_could_see_a_credential_is_told(tmp_path: Path) -> None:
    root = lay(tmp_path, **{"docker.io": OPEN})
    told = run(root, "config").err
    assert (
        "Note: docker.io: containerd would show the credential for mirror.corp.example:5000 to https://registry."
        in told
    )
    assert 'docker.io/hosts.toml write server = "https://mirror.corp.example:5000/v2/hub" and override_path' in told
    assert run(root, "config", "--plugin-arg=--allow-fallback-exposure").err == ""
    (root / CERTS[1:] / "docker.io/hosts.toml").write_text(MIRROR)
    assert run(root, "config").err == ""
    (root / "etc/containerd/config.toml").write_text("version = 2\n")
    assert "; correct this first: no file sets config_path" in run(root, "config").err
    (root / "etc/containerd/config.toml").write_text(MIRRORS)
    assert "Note: every other registry: containerd would show" in run(root, "config").err
