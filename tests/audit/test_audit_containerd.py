"""``audit`` of nodes with containerd: by copies of their files, and by what the cluster says of each node's runtime."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import auditing
from auditing import CONF, MIRROR, PASSWORD, USER, account, docker_config, grant, pod, secret, workload, write_list
from crio_credential_provider.testbed.registry import MirrorRegistry

NGINX, APP = "docker.io/library/nginx:1.27", "quay.io/team/app:v1"
HOSTS = f'server = "https://{MIRROR}"\n[host."https://{MIRROR}"]\ncapabilities = ["pull", "resolve"]\n'
OPEN = f'[host."https://{MIRROR}"]\ncapabilities = ["pull", "resolve"]\n'
"""The registry itself is asked as well."""


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    """A copy of a node's config_path."""
    return write_hosts(tmp_path / "certs.d", {"docker.io": HOSTS})


def write_hosts(certs: Path, texts: dict[str, str]) -> Path:
    for domain, text in texts.items():
        (certs / domain).mkdir(parents=True, exist_ok=True)
        (certs / domain / "hosts.toml").write_text(text)
    return certs


def audit(tmp_path: Path, objects: Iterable[Any], *flags: str) -> auditing.Ran:
    (tmp_path / "none").write_text("{}")
    given = ("--output=json", f"--global-auth-file={tmp_path}/none", *flags)
    return auditing.run(write_list(tmp_path / "all.json", objects), *given)


def team(name: str, *keys: str) -> list[Any]:
    """A namespace whose secret has these keys, with a pod of NGINX."""
    secrets = [secret(name, "s", docker_config(*keys))] if keys else []
    return [account(name), grant(name), *secrets, pod(name, "web", NGINX)]


def node(name: str, version: str, **labels: str) -> Any:
    info = {"nodeInfo": {"containerRuntimeVersion": version}}
    return {"kind": "Node", "metadata": {"name": name, "labels": labels}, "status": info}


def test_who_gets_a_credential(tmp_path: Path, certs: Path) -> None:
    objects = [*team("works", MIRROR), *team("no-secret"), *team("wrong-key", "docker.io"), pod("works", "app", APP)]
    ran = audit(tmp_path, objects, f"--registries-conf={certs}")
    assert ran.found() == {
        ("works", NGINX): ("works", None),
        ("works", APP): ("no-mirror", None),
        ("no-secret", NGINX): ("fails", "no-secret"),
        ("wrong-key", NGINX): ("fails", "wrong-key"),
    }
    text = next(pull["text"] for pull in ran.report["pulls"] if pull["namespace"] == "wrong-key")
    assert text.startswith(f"containerd asks {MIRROR}/library/nginx without a credential: ")
    assert "CRI-O" not in ran.stdout and "registries.conf" not in text


def test_a_credential_that_others_could_see(tmp_path: Path, certs: Path) -> None:
    write_hosts(certs, {"docker.io": OPEN})
    ran = audit(tmp_path, team("a", MIRROR), f"--registries-conf={certs}")
    (pull,) = ran.report["pulls"]
    assert (ran.status, pull["outcome"], pull["reason"]) == (1, "fails", "exposed")
    assert "to https://registry-1.docker.io/v2 as well" in pull["text"]
    assert pull["remedy"].startswith(f"at the top of {certs}/docker.io/hosts.toml write server = ")
    assert [(source["wanted"], source["credential"], source["reason"]) for source in pull["sources"]] == [
        (True, None, "exposed"),
        (False, None, None),
    ]
    config = tmp_path / "provider.yaml"
    config.write_text(
        "kind: CredentialProviderConfig\nproviders:\n- name: crio-credential-provider\n"
        "  args: [--allow-fallback-exposure]\n  tokenAttributes: {serviceAccountTokenAudience: x}\n"
    )
    allowed = audit(tmp_path, team("a", MIRROR), f"--registries-conf={certs}", f"--config={config}")
    assert allowed.found() == {("a", NGINX): ("works", None)}


def test_config_toml_with_a_credential_of_its_own(tmp_path: Path) -> None:
    """It is used where the namespace has none."""
    table = '[plugins."io.containerd.grpc.v1.cri".registry'
    file = tmp_path / "config.toml"
    file.write_text(
        f'version = 2\n{table}.mirrors."docker.io"]\nendpoint = ["https://{MIRROR}"]\n'
        f'{table}.configs."{MIRROR}".auth]\nusername = "{USER}"\npassword = "{PASSWORD}"\n'
    )
    ran = audit(tmp_path, [*team("none"), *team("own", MIRROR)], f"--registries-conf={file}")
    assert ran.found() == {
        ("none", NGINX): ("node-credentials", "no-secret"),
        ("own", NGINX): ("node-credentials", "exposed"),
    }
    assert all(pull["text"].endswith("today the node's credential is used") for pull in ran.report["pulls"])


def test_the_root_of_a_node(tmp_path: Path) -> None:
    config = tmp_path / "node/etc/containerd/config.toml"
    write_hosts(tmp_path / "node/etc/containerd/certs.d", {"docker.io": HOSTS})
    config.write_text(
        'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "/etc/containerd/certs.d"\n'
    )
    for given in (config, tmp_path / "node"):
        ran = audit(tmp_path, team("a", MIRROR), f"--registries-conf={given}")
        assert ran.found() == {("a", NGINX): ("works", None)}
    alone = tmp_path / "config.toml"
    alone.write_text(config.read_text().replace("/etc/containerd/certs.d", "/nowhere"))
    ran = audit(tmp_path, team("a", MIRROR), f"--registries-conf={alone}")
    (pull,) = ran.report["pulls"]
    assert pull["reason"] == "invalid-registries-conf"
    assert "config_path names /nowhere, which is not here" in pull["text"]


def test_a_directory_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "certs.d/docker.io").mkdir(parents=True)
    ran = audit(tmp_path, team("a", MIRROR), f"--registries-conf={tmp_path}/certs.d")
    assert f"{tmp_path}/certs.d has no HOST/hosts.toml" in ran.report["pulls"][0]["text"]


def test_the_file_of_one_registry_is_not_taken_for_a_registries_conf(tmp_path: Path, certs: Path) -> None:
    ran = audit(tmp_path, team("a", MIRROR), f"--registries-conf={certs}/docker.io/hosts.toml")
    (pull,) = ran.report["pulls"]
    assert (pull["outcome"], pull["reason"]) == ("fails", "invalid-registries-conf")
    assert f"{certs}/docker.io/hosts.toml is the hosts.toml of one registry" in pull["text"]


def test_each_node_by_its_runtime(tmp_path: Path, certs: Path) -> None:
    """Whatever the labels say: containerd reads no registries.conf."""
    conf = tmp_path / "registries.conf"
    conf.write_text(CONF)
    objects = [
        *(
            node("one", "cri-o://1.34.1"),
            node("two", "containerd://2.1.4", pool="x"),
            node("three", "containerd://1.7.2"),
        ),
        *(account("a"), grant("a"), secret("a", "s", docker_config(MIRROR))),
        *(pod("a", f"on-{name}", NGINX, nodeName=name) for name in ("one", "two", "three")),
        workload("Deployment", "a", "anywhere", NGINX),
    ]
    flags = (f"--registries-conf=cri-o={conf}", f"--registries-conf=containerd={certs}")
    pulls = audit(tmp_path, objects, *flags).report["pulls"]
    assert [(pull["nodeClass"], pull["outcome"], pull["pods"], pull["templates"]) for pull in pulls] == [
        ("containerd", "works", 2, 1),
        ("cri-o", "works", 1, 1),
    ]
    names = {pull["nodeClass"]: pull["sources"][0]["name"] for pull in pulls}
    assert names == {"containerd": f"{MIRROR}/library/nginx", "cri-o": f"{MIRROR}/hub/library/nginx"}
    pulls = audit(tmp_path, objects, f"--registries-conf=pool=x={conf}", f"--registries-conf={certs}").report["pulls"]
    assert {(pull["nodeClass"], pull["outcome"], pull["pods"]) for pull in pulls} == {
        ("", "works", 2),
        ("pool=x", "works", 0),
        ("", "not-checked", 1),
    }


def test_what_mirrors_say(tmp_path: Path) -> None:
    with MirrorRegistry({USER: (PASSWORD, ["library"])}) as mirror:
        mirror.add_image("library/nginx", "1.27")
        text = HOSTS.replace(f"https://{MIRROR}", mirror.url)
        certs = write_hosts(tmp_path / "certs.d", {"docker.io": text})
        ran = audit(tmp_path, team("a", mirror.host), f"--registries-conf={certs}", "--live")
        assert ran.report["pulls"][0]["sources"][0]["answer"] == "ok"
        assert {asked.path for asked in mirror.log} == {"/v2/library/nginx/manifests/1.27?ns=docker.io"}
