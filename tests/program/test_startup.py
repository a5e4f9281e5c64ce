"""What a run loads. The kubelet starts a process per pull, so that start-up is a feature (docs/decisions)."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from crio_credential_provider.testbed.cluster import ApiServer
from mainjob import warm
from node import NGINX, Node, request

# Each costs from 3 to 25 ms of CPU, of some 30 for a whole run; what is third-party parses files that changed.
BARRED = frozenset(
    (
        *("typing", "dataclasses", "logging", "pathlib", "tempfile", "argparse", "http", "http.client", "urllib"),
        *("urllib.parse", "urllib.request", "importlib.metadata", "email", "inspect", "subprocess", "asyncio"),
        *("random", "shutil", "traceback", "pickle", "tomllib", "tomli", "yaml"),
        *("_yaml", "uuid", "datetime", "decimal", "locale", "platform", "zipfile", "threading", "encodings.idna"),
    )
)
TLS = frozenset(("ssl", "_ssl"))
# What only tools for people and a node that changed need.
NOT_ON_THE_PULL_PATH = frozenset(
    f"crio_credential_provider.{name}"
    for name in (
        *("version", "runtimes.crio.registriesfile", "commands", "node", "testbed", "pull.podevent"),
        *("runtimes.containerd.configfile", "runtimes.containerd.hostsfile", "runtimes.containerd.tomlfile"),
    )
)


def imported(launcher: str, node: Node, message: bytes, *flags: str) -> set[str]:
    """Names of all modules that a run of the built plugin imported, by the interpreter's own account."""
    # The launcher as its first line would run it, and -X importtime, which tells each import on stderr.
    with open(launcher) as file:
        interpreter, options = file.readline().removeprefix("#!").split()
    command = [interpreter, options, "-X", "importtime", launcher, *node.flags, *flags]
    done = subprocess.run(command, input=message, capture_output=True, env=node.environment, check=False, timeout=30)
    assert done.returncode == 0, done.stderr.decode()
    found = set(re.findall(r"^import time:\s+\d+ \|\s+\d+ \| +(\S+)$", done.stderr.decode(), re.MULTILINE))
    assert {"crio_credential_provider.pull.plugin", "crio_credential_provider.runtimes.crio.registries"} <= found
    return found


@pytest.fixture
def warm_node(node: Node, cluster: ApiServer, alpha: str) -> Node:
    return warm(node, cluster, alpha)


def test_a_pull_with_a_mirror_loads_nothing_barred(plugin: Path, warm_node: Node, alpha: str) -> None:
    found = imported(str(plugin), warm_node, request(NGINX, alpha))
    assert warm_node.auth_files()
    assert sorted(found & BARRED) == []
    assert sorted(found & NOT_ON_THE_PULL_PATH) == []
    # The reverse, so that the check itself cannot rot: what this run needs is seen.
    assert "ssl" in found


def test_a_pull_without_a_mirror_loads_nothing_of_tls(plugin: Path, warm_node: Node, alpha: str) -> None:
    found = imported(str(plugin), warm_node, request("quay.io/team/app", alpha))
    assert sorted(found & (BARRED | TLS)) == []
    loaded = {name for name in found if name.startswith("crio_credential_provider.")}
    assert "crio_credential_provider.kubernetes.apiserver" not in loaded
    assert "crio_credential_provider.kubernetes.endpoint" not in loaded


def test_a_static_pod_loads_nothing_of_tls(plugin: Path, warm_node: Node) -> None:
    assert sorted(imported(str(plugin), warm_node, request(NGINX)) & (BARRED | TLS)) == []


def test_only_events_load_what_writes_them(plugin: Path, warm_node: Node, cluster: ApiServer, alpha: str) -> None:
    cluster.delete_secret("team-alpha", "mirror-creds")
    module = "crio_credential_provider.pull.podevent"
    assert module not in imported(str(plugin), warm_node, request(NGINX, alpha))
    assert module in imported(str(plugin), warm_node, request(NGINX, alpha), "--pod-events")


def test_a_changed_file_loads_the_parsers(plugin: Path, warm_node: Node, alpha: str) -> None:
    """So that their absence above says something."""
    warm_node.write_mirrors("docker.io", "mirror.corp:5000/other")
    assert "tomli" in imported(str(plugin), warm_node, request(NGINX, alpha))
    warm_node.kubeconfig.write_text(warm_node.kubeconfig.read_text() + "\n")
    assert "yaml" in imported(str(plugin), warm_node, request(NGINX, alpha))


def test_nothing_around_it_steers_the_plugin(plugin: Path, warm_node: Node, alpha: str) -> None:
    """Neither the environment, nor the current directory, nor site-packages may steer a program that runs as root."""
    planted = warm_node.root / "planted"
    for name in ("json", "tomli", "sitecustomize", "usercustomize", "crio_credential_provider"):
        warm_node.write(f"planted/{name}.py", "raise SystemExit('planted')\n")
    steering = {
        "PYTHONPATH": str(planted),
        "PYTHONHOME": str(planted),
        "PYTHONSTARTUP": str(planted / "json.py"),
        "PYTHONINSPECT": "1",
        "PYTHONUSERBASE": str(planted),
    }
    started = subprocess.run(
        [str(plugin), *warm_node.flags],
        input=request(NGINX, alpha),
        env={**os.environ, **warm_node.environment, **steering},
        cwd=planted,
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert (started.returncode, started.stderr) == (0, b"")
    assert warm_node.auth_files()


def test_a_readiness_probe_loads_nothing_of_doctor(plugin: Path) -> None:
    """The kubelet runs it every few seconds, on each node."""
    with open(plugin) as file:
        interpreter, options = file.readline().removeprefix("#!").split()
    command = [interpreter, options, "-X", "importtime", str(plugin), "status", "--ready"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout) == (3, "unknown: no run with --stay in this container\n")
    found = set(re.findall(r"\| +(\S+)$", done.stderr, re.MULTILINE))
    assert "crio_credential_provider.fleet.state" in found
    heavy = ("doctor", "rollout", "manifests", "registryclient", "kubernetes")
    parts = {f"crio_credential_provider.{name}" for name in heavy}
    assert sorted(found & {*parts, *TLS, "yaml", "tomli", "rich", "http.client", "subprocess"}) == []


@pytest.mark.parametrize("flag", ["--version", "--version-json", "--help"])
def test_people_s_flags_need_no_input(node: Node, flag: str) -> None:
    run = node.run(b"", flag)
    assert (run.status, run.stderr) == (0, "")
    assert run.stdout
    assert run.entries == []
