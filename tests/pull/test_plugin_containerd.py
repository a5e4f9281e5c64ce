"""The plugin as a kubelet with containerd runs it: the answer carries the credential, and no file is written."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from crio_credential_provider.testbed.cluster import ApiServer
from node import NGINX, Node, Run, docker_config, request

pytestmark = pytest.mark.process

MIRROR = "mirror.corp:5000"
OPEN = f'[host."https://{MIRROR}/v2/hub"]\noverride_path = true\n'
CLOSED = f'server = "https://mirror.corp:5000/v2/hub"\noverride_path = true\n{OPEN}'
HOSTS = "etc/containerd/certs.d/docker.io/hosts.toml"
FLAG = "--runtime=containerd"

NOTHING = {
    "kind": "CredentialProviderResponse",
    "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
    "cacheKeyType": "Image",
    "cacheDuration": "0s",
}


@pytest.fixture
def node(node: Node, cluster: ApiServer) -> Node:
    """A node with containerd and a mirror for Docker Hub."""
    node.write_kubeconfig(cluster.url, cluster.authority.certificate_pem)
    node.write("etc/containerd/config.toml", "version = 2\n" + CONFIG_PATH)
    node.write(HOSTS, CLOSED)
    return node


CONFIG_PATH = '[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "/etc/containerd/certs.d"\n'


def credentials(run: Run) -> dict[str, tuple[str, str]]:
    """Key -> user name and password; the rest of the answer is as ever."""
    assert (run.status, run.stderr) == (0, "")
    answer = run.answer
    auth = answer.pop("auth", {})
    assert answer == NOTHING
    return {key: (entry["username"], entry["password"]) for key, entry in auth.items()}


def test_the_answer_has_the_credential_of_the_pod_s_own_namespace(node: Node, alpha: str) -> None:
    run = node.run(request(token=alpha), FLAG)
    assert credentials(run) == {NGINX: ("alpha", "alphapw")}
    assert not node.auth_dir.exists()


def test_the_journal_entry_is_an_audit_record(node: Node, alpha: str) -> None:
    run = node.run(request(token=alpha), FLAG)
    entry = run.entry
    assert entry["OUTCOME"] == "answered" and entry["PRIORITY"] == "6"
    assert entry["MESSAGE"].startswith(f"Answered with credentials for {NGINX} of pod ")
    assert entry["MESSAGE"].endswith(f": {MIRROR}/hub/library/nginx from secret {entry['SECRETS']}")
    assert entry["CREDENTIALS"] == f"{MIRROR}/hub/library/nginx={entry['SECRETS']}"
    assert "AUTH_FILE" not in entry and "EXPOSURES" not in entry
    assert "alphapw" not in str(run.entries)


def test_a_rotated_secret_counts_from_the_next_pull(node: Node, cluster: ApiServer, alpha: str) -> None:
    assert credentials(node.run(request(token=alpha), FLAG)) == {NGINX: ("alpha", "alphapw")}
    cluster.add_secret("team-alpha", "mirror-creds", docker_config(**{MIRROR: ("alpha", "rotated")}))
    assert credentials(node.run(request(token=alpha), FLAG)) == {NGINX: ("alpha", "rotated")}


def test_an_upstream_that_would_be_shown_it_is_refused_and_told(node: Node, alpha: str) -> None:
    node.write(HOSTS, OPEN)
    run = node.run(request(token=alpha), FLAG)
    assert credentials(run) == {}
    entry = run.entry
    assert (entry["OUTCOME"], entry["REASON_CODE"], entry["PRIORITY"]) == ("nothing-to-do", "exposed", "4")
    assert entry["EXPOSURES"] == "docker.io"
    assert entry["MESSAGE"].startswith(f"Answered without a credential for {NGINX} of pod ")
    assert f"at the top of {node.root}/{HOSTS} write server = " in entry["MESSAGE"]
    allowed = node.run(request(token=alpha), FLAG, "--allow-fallback-exposure")
    assert credentials(allowed) == {NGINX: ("alpha", "alphapw")}
    assert allowed.entry["EXPOSURES"] == "docker.io"


def test_files_that_do_not_count_are_told_once_with_what_to_do(node: Node, alpha: str) -> None:
    """And that the credential may be shown to others is no way out: the mirror may not be asked at all."""
    config = "etc/containerd/config.toml"
    node.write(config, "version = 2\n")
    run = node.run(request(token=alpha), FLAG)
    assert credentials(run) == {} and run.entry["REASON_CODE"] == "exposed"
    message = run.entry["MESSAGE"]
    assert message.endswith(f"may ask docker.io itself alone: set config_path in {node.root}/{config}")
    assert message.count("no file sets config_path") == 1 and "--allow-fallback-exposure" not in message


def test_a_changed_hosts_toml_counts_from_the_next_pull(node: Node, alpha: str) -> None:
    for text, expected in ((CLOSED, 1), (OPEN, 0), (CLOSED, 1)):
        node.write(HOSTS, text)
        assert len(credentials(node.run(request(token=alpha), FLAG))) == expected


def test_the_parsed_files_are_kept_and_no_secret_with_them(node: Node, alpha: str) -> None:
    auth = f'[plugins."io.containerd.grpc.v1.cri".registry.configs."{MIRROR}".auth]\npassword = "canary"\n'
    node.write("etc/containerd/config.toml", f"version = 2\n{CONFIG_PATH}{auth}")
    # Of a file that changed less than 2 s ago nothing is kept.
    time.sleep(2.1)
    node.run(request(token=alpha), FLAG)
    kept = {file.name.partition("-")[0]: file.read_text() for file in node.cache_dir.glob("*.json")}
    assert kept.keys() == {"containerd", "hosts", "kubeconfig"}
    assert not any(canary in text for canary in ("canary", "alphapw") for text in kept.values())
    assert credentials(node.run(request(token=alpha), FLAG)) == {NGINX: ("alpha", "alphapw")}


def test_a_broken_config_toml_is_a_fault_that_says_where(node: Node, alpha: str) -> None:
    node.write("etc/containerd/config.toml", "version = 2\n[plugins\n")
    run = node.run(request(token=alpha), FLAG)
    assert (run.status, run.stdout) == (1, b"")
    assert "etc/containerd/config.toml:2: not valid TOML" in run.stderr
    assert run.entry["OUTCOME"] == "fault-config"


def test_a_namespace_without_a_role_is_a_fault(node: Node, cluster: ApiServer) -> None:
    cluster.add_service_account("team-none", "default", [])
    cluster.add_pod("team-none", "web", "node1")
    run = node.run(request(token=cluster.mint_token("team-none", "default", "web")), FLAG)
    assert (run.status, run.stdout) == (1, b"") and run.entry["OUTCOME"] == "fault-cluster"


def test_crio_is_the_default_where_no_kubelet_says_otherwise(node: Node, alpha: str) -> None:
    run = node.run(request(token=alpha))
    assert credentials(run) == {} and run.entry["REASON_CODE"] == "no-mirror"


def test_the_kubelet_says_which_runtime_pulls(node: Node, plugin: Path, alpha: str) -> None:
    runs_the_rest = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[2:]).returncode)"
    for endpoint, expected in (("/run/containerd/containerd.sock", 1), ("/var/run/crio/crio.sock", 0)):
        flag = f"--container-runtime-endpoint=unix://{endpoint}"
        node.command = [sys.executable, "-c", runs_the_rest, flag, str(plugin)]
        assert len(credentials(node.run(request(token=alpha)))) == expected
