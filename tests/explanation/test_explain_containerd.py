"""``explain`` for containerd: its files and hosts, who could see whose credential, and the verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from commandline import Done, command
from conftest import NodeMaker
from containerd_node import PASSWORD, ContainerdNode, alone, host
from crio_credential_provider import settings
from crio_credential_provider.commands import explain
from crio_credential_provider.commands.request import objectsfile
from crio_credential_provider.explanation import standin
from crio_credential_provider.kubernetes import credentialprovider
from crio_credential_provider.kubernetes.serviceaccount import ServiceAccount
from crio_credential_provider.pull import decision
from crio_credential_provider.testbed.cluster import ApiServer
from explaining import Place
from node import COMMAND, NGINX, basic

MIRROR = "https://mirror.corp:5000"
HUB = "https://registry-1.docker.io/v2"
CREDS = {"creds": {"mirror.corp:5000": ("user", PASSWORD)}}


@pytest.fixture
def node(tmp_path: Path) -> ContainerdNode:
    made = ContainerdNode(tmp_path)
    made.write_hosts(alone(MIRROR) + host(MIRROR))
    return made


def run(node: ContainerdNode, *arguments: str, image: str = "nginx:1.27", secrets: Any = CREDS) -> Done:
    done = command("explain", explain.run, node.arguments(image, secrets, *arguments))
    for text in (done.out, done.err):
        assert PASSWORD not in text and basic("user", PASSWORD) not in text
        for word in ("CRI-O", "auth file", "registries.conf"):
            assert word not in text
    return done


def report(node: ContainerdNode, *arguments: str, **given: Any) -> Any:
    return run(node, *arguments, "--output=json", **given).report


# -- verdicts ---------------------------------------------------------------------------------------------------------


def test_a_pull_that_gets_its_credential(node: ContainerdNode) -> None:
    found = report(node)
    assert found["runtime"] == "containerd"
    assert found["verdict"] == {
        "status": "passed",
        "text": "The kubelet passes containerd the credential of secret creds, for mirror.corp:5000/library/nginx",
        "remedy": None,
    }
    assert found["plugin"]["outcome"] == "answered"
    assert found["answer"]["auth"] == {NGINX: {"username": "***", "password": "***"}}
    assert (found["registries"], found["authFile"]) == (None, None)
    files = [(file["path"].removeprefix(str(node.root)), file["state"]) for file in found["containerd"]["files"]]
    assert files == [
        ("/etc/containerd/config.toml", "read"),
        ("/etc/containerd/certs.d/docker.io/hosts.toml", "read"),
    ]
    hosts = [(host["url"], host["server"], host["source"]) for host in found["containerd"]["hosts"]]
    assert hosts == [(f"{MIRROR}/v2", False, "mirror.corp:5000/library/nginx")]
    assert found["containerd"]["credentials"] == [
        {
            "secret": "creds",
            "key": "mirror.corp:5000",
            "hosts": [f"{MIRROR}/v2"],
            "exposedTo": [],
            "answerKey": NGINX,
        }
    ]
    assert [(source["name"], source["credential"]["secret"]) for source in found["sources"]] == [
        ("mirror.corp:5000/library/nginx", "creds")
    ]


def test_the_text_tells_the_verdict_first_and_every_host(node: ContainerdNode) -> None:
    done = run(node)
    assert done.status == 0 and done.err == ""
    for words in (
        "The kubelet passes containerd the credential of secret creds, for mirror.corp:5000/library/nginx.",
        "hosts.toml: read",
        f"1. {MIRROR}/v2 (mirror; may pull, resolve) asked for mirror.corp:5000/library/nginx credential: secret creds",
        f"Shown to secret creds, key mirror.corp:5000 {MIRROR}/v2, which its key names passed to containerd",
        f"Answer to the kubelet: credentials for {NGINX}; never cached",
        f"First containerd asks {MIRROR}/v2 for mirror.corp:5000/library/nginx, and shows it the credential if it",
        "If one of the pod's imagePullSecrets has a key for docker.io, the kubelet passes that credential first, and",
    ):
        assert words in done.flat, words
    assert not [line for line in done.out.splitlines() if line != line.rstrip() or "  with" in line.lstrip()]


def test_a_credential_that_the_upstream_could_see_is_refused(node: ContainerdNode) -> None:
    path = node.write_hosts(host(MIRROR))
    done = run(node)
    assert done.status == 3
    assert done.flat.startswith(
        "The kubelet passes no credential: containerd would show the credential of secret creds for "
        f"mirror.corp:5000/library/nginx to {HUB} as well. To do: at the top of {path} write server = "
    )
    assert f"{HUB}, which its key does not name refused: not passed to containerd" in done.flat
    assert "Answer to the kubelet: no credentials; never cached" in done.flat
    found = report(node)
    assert found["plugin"] == {
        "exitStatus": 0,
        "outcome": "nothing-to-do",
        "error": None,
        "reason": f"containerd would show the credential of secret creds for mirror.corp:5000/library/nginx to {HUB} "
        "as well",
    }
    assert "auth" not in found["answer"]
    (shown,) = found["containerd"]["credentials"]
    assert (shown["hosts"], shown["exposedTo"], shown["answerKey"]) == ([f"{MIRROR}/v2"], [HUB], None)


def test_allowed_exposure_is_told(node: ContainerdNode) -> None:
    node.write_hosts(host(MIRROR))
    done = run(node, "--allow-fallback-exposure")
    assert done.status == 0
    assert f"--allow-fallback-exposure lets containerd show it to {HUB} as well" in done.flat
    assert f"{HUB}, which its key does not name passed to containerd: allowed by --allow-fallback-exposure" in done.flat


def test_a_server_for_pushes_alone_could_see_it_as_well(node: ContainerdNode) -> None:
    """It is asked for what the mirror does not deliver."""
    node.write_hosts(f'server = "{HUB}"\ncapabilities = ["push"]\n' + host(MIRROR))
    done = run(node)
    assert done.status == 3
    assert f"{HUB}, which its key does not name refused: not passed to containerd" in done.flat
    assert "asked for docker.io/library/nginx, manifest and layers alone" in done.flat
    assert f"For manifest and layers alone, where no other host delivers them, it asks {HUB} for" in done.flat


def test_a_server_in_place_of_the_registry(node: ContainerdNode) -> None:
    node.write_hosts(alone("https://second.corp") + host(MIRROR))
    done = run(node)
    assert "2. https://second.corp/v2 (the server of the file, last; may pull, resolve, push)" in done.flat
    assert "to https://second.corp/v2 as well" in done.flat and HUB not in done.flat


def test_a_key_for_the_registry_alone_is_the_usual_mistake(node: ContainerdNode) -> None:
    node.write_hosts(host(MIRROR))
    done = run(node, secrets={"hub": {"docker.io": ("user", PASSWORD)}})
    assert done.status == 3
    for words in (
        f"to {MIRROR}/v2 as well; mirror.corp:5000/library/nginx has none of its own",
        "To do: create a pull secret in the namespace with a key for mirror.corp:5000:",
        "not secret hub, key docker.io: docker.io is the registry in the pod's image; mirror.corp:5000 needs a key",
    ):
        assert words in done.flat, words


def test_a_near_miss_is_told(node: ContainerdNode) -> None:
    done = run(node, secrets={"creds": {"mirror.corp": ("user", PASSWORD)}})
    assert done.status == 3
    assert done.flat.startswith("containerd asks mirror.corp:5000/library/nginx without a credential: ")
    assert "Secret creds has the key mirror.corp: the port must match: write mirror.corp:5000" in done.flat
    assert "or create a pull secret in the namespace with a key for mirror.corp:5000:" in done.flat


def test_two_credentials_of_two_mirrors(node: ContainerdNode) -> None:
    node.write_hosts(alone(MIRROR) + host(MIRROR) + host("https://second.corp"))
    both = {"one": {"mirror.corp:5000": ("user", PASSWORD)}, "two": {"second.corp": ("user", f"{PASSWORD}2")}}
    assert report(node, secrets=both)["verdict"]["status"] == "failed"
    found = report(node, "--allow-fallback-exposure", secrets=both)
    assert found["verdict"]["text"].startswith("The kubelet passes containerd those of secrets one and two in turn")
    assert [(s["secret"], s["hosts"], s["exposedTo"]) for s in found["containerd"]["credentials"]] == [
        ("one", [f"{MIRROR}/v2"], ["https://second.corp/v2"]),
        ("two", ["https://second.corp/v2"], [f"{MIRROR}/v2"]),
    ]
    keys = [shown["answerKey"] for shown in found["containerd"]["credentials"]]
    assert keys == list(found["answer"]["auth"]) and len(set(keys)) == 2


# -- files ------------------------------------------------------------------------------------------------------------


def test_no_directory_and_one_of_another_name(node: ContainerdNode) -> None:
    (node.root / "etc/containerd/certs.d/docker.io").rename(node.root / "etc/containerd/certs.d/registry-1.docker.io")
    done = run(node)
    assert done.status == 0
    assert "The plugin has nothing to do: containerd has no mirror for docker.io." in done.flat
    certs = f"{node.root}/etc/containerd/certs.d"
    assert f"no directory docker.io or _default in {certs} (config_path in" in done.flat
    why = "Docker Hub images are named docker.io, not registry-1.docker.io"
    assert report(node)["containerd"]["others"] == [{"directory": f"{certs}/registry-1.docker.io", "why": why}]


def test_a_file_that_containerd_ignores(node: ContainerdNode) -> None:
    path = node.write_hosts("server = \n")
    done = run(node)
    assert done.status == 0
    assert f"{path}: line 1: not valid TOML" in done.flat
    assert f"To do: correct {path}" in done.flat


def test_mirrors_of_config_toml_and_its_own_credentials(node: ContainerdNode) -> None:
    table = '[plugins."io.containerd.grpc.v1.cri".registry'
    node.write(
        "etc/containerd/config.toml",
        f'version = 2\n{table}.mirrors."docker.io"]\nendpoint = ["{MIRROR}"]\n'
        f'{table}.configs."mirror.corp:5000".auth]\nusername = "user"\npassword = "{PASSWORD}"\n',
    )
    done = run(node, secrets={})
    assert f"Found by registry.mirrors.'docker.io' in {node.root}/etc/containerd/config.toml" in done.flat
    assert "containerd uses those of registry.configs in config.toml, for mirror.corp:5000" in done.flat
    assert "library/nginx with the credential of config.toml." in done.flat
    assert report(node, secrets={})["containerd"]["nodeCredentialsFor"] == ["mirror.corp:5000"]


def test_the_nodes_own_credential_for_the_registry(node: ContainerdNode) -> None:
    """The kubelet reads it by itself."""
    config = node.write(
        "var/lib/kubelet/config.json", f'{{"auths": {{"docker.io": {{"auth": "{basic("n", "pw")}"}}}}}}'
    )
    told = (
        f"the kubelet passes the node's own credential for docker.io in {config}, which containerd shows to every host"
    )
    assert f"If the pull fails with that, {told}" in run(node).flat
    assert f"T{told[1:]}" in run(node, secrets={}).flat
    assert told not in run(node, image="quay.io/a/b").flat


def test_a_config_with_which_containerd_does_not_start(node: ContainerdNode) -> None:
    node.write("etc/containerd/config.toml", 'imports = ["/etc/containerd/conf.d/a.toml"]\n')
    done = run(node)
    assert done.status == 3
    assert done.flat.startswith("The plugin fails (exit status 1): cannot read ")
    assert "containerd does not start with it, and no pod of this node does. To do: create it, or" in done.flat


def test_what_a_host_may_do(node: ContainerdNode) -> None:
    for name in ("ca.crt", "c.pem", "c.key"):
        node.write(f"etc/containerd/certs.d/docker.io/{name}", "")
    node.write_hosts(
        alone(MIRROR)
        + host(MIRROR, 'ca = "ca.crt"', 'client = [["c.pem", "c.key"]]', "skip_verify = true")
        + f'[host."{MIRROR}".header]\nX-Team = "{PASSWORD}"\n'
        + host("http://plain.corp/v2/hub", "override_path = true", capabilities='["pull"]')
    )
    both = {"creds": {"mirror.corp:5000": ("user", PASSWORD), "plain.corp": ("user", PASSWORD)}}
    done = run(node, secrets=both)
    assert done.status == 0
    directory = f"{node.root}/etc/containerd/certs.d/docker.io"
    for words in (
        f"1. {MIRROR}/v2 (mirror; may pull, resolve; certificate not verified) CA: {directory}/ca.crt client "
        f"certificate: {directory}/c.pem headers, not shown: X-Team",
        "2. http://plain.corp/v2/hub (mirror; may pull; plain HTTP) asked for plain.corp/hub/library/nginx",
    ):
        assert words in done.flat, words


# -- the runtime ------------------------------------------------------------------------------------------------------


CRIO = "[Service]\nExecStart=/usr/bin/kubelet --container-runtime-endpoint=unix:///var/run/crio/crio.sock\n"
CONFIGURED = "[Service]\nExecStart=/usr/bin/kubelet --config=/etc/kubernetes/kubelet.yaml\n"


@pytest.mark.parametrize(
    ("unit", "files", "flags", "expected"),
    [
        (CRIO, {}, [], "crio"),
        (CRIO, {}, ["--runtime=containerd"], "containerd"),
        (CONFIGURED, {"etc/kubernetes/kubelet.yaml": "containerRuntimeEndpoint: /run/crio/crio.sock\n"}, [], "crio"),
        (CONFIGURED, {"etc/kubernetes/kubelet.yaml": "containerRuntimeEndpoint: /run/containerd/c.sock\n"}, [], ""),
        ("[Service]\nExecStart=/usr/bin/kubelet\n", {}, [], ""),
        ("", {}, [], ""),
        ("", {"etc/crio/crio.conf": ""}, [], "crio"),
        ("", {"etc/containers/registries.conf": ""}, [], "crio"),
        (CONFIGURED, {}, ["--runtime=crio"], "crio"),
    ],
)
def test_which_runtime_a_tree_is_taken_for(
    node: ContainerdNode, unit: str, files: dict[str, str], flags: list[str], expected: str
) -> None:
    (node.root / "etc/systemd/system/kubelet.service").unlink()
    for path, text in {**files, **({"etc/systemd/system/kubelet.service": unit} if unit else {})}.items():
        node.write(path, text)
    arguments = node.arguments("nginx", CREDS, "--output=json", *flags)
    found = command("explain", explain.run, arguments).report
    assert found["runtime"] == (expected or "containerd")


def test_what_is_missing_is_containerd(node: ContainerdNode) -> None:
    """Wherever its files are: k3s and RKE2 have them elsewhere."""
    (node.root / "etc/containerd").rename(node.root / "elsewhere")
    assumed = report(node, "--runtime=containerd")["assumed"]
    config = f"{node.root}/etc/containerd/config.toml"
    assert assumed == f"no containerd was found below {node.root}; used instead: {config} (not found)"
    named = report(node, "--runtime=containerd", "--containerd-config", str(node.root / "elsewhere/config.toml"))
    assert named["assumed"] is None


def test_it_is_the_plugins_own_decision(node: ContainerdNode) -> None:
    """Key by key, what the plugin answers with."""
    node.write_hosts(alone(MIRROR) + host(MIRROR) + host("https://second.corp"))
    equal = {"one": {"mirror.corp:5000": ("user", PASSWORD), "second.corp": ("user", PASSWORD)}}
    found = report(node, secrets=equal)
    request = credentialprovider.Request(NGINX, standin.token(ServiceAccount("team-alpha", "default", "")))
    chosen = settings.loads([f"--root={node.root}", "--runtime=containerd"], {})
    chosen.cache_dir = ""

    objects = objectsfile.loads((node.root / "objects.json").read_bytes(), "objects.json")
    made = decision.resolve(request, chosen, lambda: objects)
    assert [offer.key for offer in made.offers] == list(found["answer"]["auth"]) == [NGINX]


@pytest.mark.parametrize(
    ("version", "runtime"), [("containerd://2.1.4", "containerd"), ("cri-o://1.34", "crio"), ("", "crio")]
)
def test_the_pods_node_tells_it_from_elsewhere(
    make_node: NodeMaker, cluster: ApiServer, version: str, runtime: str
) -> None:
    """Where there is no kubelet, as on a laptop with an administrator's kubeconfig."""
    place = Place(make_node(*COMMAND, journald=False), cluster)
    (place.node.root / "etc/systemd/system/kubelet.service").unlink()
    info = {"nodeInfo": {"containerRuntimeVersion": version}}
    cluster.others.append({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"}, "status": info})
    admin = place.write_admin(cluster.authority)
    assert place.alpha("--kubeconfig", str(admin)).report["runtime"] == runtime
