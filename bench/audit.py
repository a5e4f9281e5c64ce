#!/usr/bin/env python3
"""Times `audit` on saved lists of a large cluster, and of one with twice the pods: wall time, CPU and peak memory.

    python bench/audit.py [--pods 150000] [--namespaces 10000] [--secrets 30000] [--mirrors 200] [--program FILE]

Both clusters are generated, always the same, below a temporary directory: 1 KiB to 7 KiB an object, indented as kubectl
writes it. What each audit finds is held against what was put there. Exits 1 if that differs, if twice the pods take
more than 2.2 times the time, or 1.5 times the memory.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

SOURCES = Path(__file__).resolve().parent.parent / "src"

WORKLOADS = 5
"""In each namespace; every second image of theirs has a mirror."""
MOST_TIME, MOST_MEMORY = 2.2, 1.5
_FILLER = 3200
"""Characters of a pod that say nothing of its pull: managedFields, status, volumes."""


class Size(NamedTuple):
    """How large a cluster is."""

    pods: int
    namespaces: int
    secrets: int
    mirrors: int


class Measured(NamedTuple):
    """One run. Times in seconds, memory in MiB."""

    wall: float
    cpu: float
    memory: float
    counts: dict[str, Any]


# -- the cluster ------------------------------------------------------------------------------------------------------


def registries_conf(mirrors: int) -> str:
    return "".join(
        f'[[registry]]\nlocation = "r{number}.example"\n[[registry.mirror]]\nlocation = "m{number}.corp:5000/hub"\n'
        for number in range(mirrors)
    )


def image(namespace: int, workload: int, mirrors: int) -> str:
    host = f"r{(namespace + workload) % mirrors}.example" if workload % 2 else "quay.io"
    return f"{host}/team{namespace % 50}/app{workload}:v{namespace % 7}"


def is_faulty(namespace: int) -> bool:
    """Whether a namespace has no Role, or its secrets are for its images' registries instead of the mirrors."""
    return namespace % 10 == 3


def has_role(namespace: int) -> bool:
    """Whether the service accounts of a namespace may list its secrets."""
    return namespace % 20 != 3


def expected(size: Size) -> dict[str, tuple[int, int, int]]:
    """Outcome -> pulls, pods and templates."""
    found: dict[str, tuple[int, int, int]] = {}
    for namespace in range(size.namespaces):
        for workload in range(WORKLOADS):
            outcome = "no-mirror" if not workload % 2 else "fails" if is_faulty(namespace) else "works"
            pods = len(range(namespace + workload * size.namespaces, size.pods, size.namespaces * WORKLOADS))
            before = found.get(outcome, (0, 0, 0))
            found[outcome] = (before[0] + 1, before[1] + pods, before[2] + 1)
    return found


def _secrets(size: Size) -> Iterator[dict[str, Any]]:
    for number in range(size.secrets):
        namespace = number % size.namespaces
        kind = "example" if is_faulty(namespace) else "corp:5000"
        host = "r" if is_faulty(namespace) else "m"
        which = number // size.namespaces
        # The first secret serves all workloads; the others are for something else.
        hosts = [(namespace + workload) % size.mirrors for workload in range(WORKLOADS)] if not which else []
        keys = [f"{host}{mirror}.{kind}" for mirror in hosts] or [f"other{which}.example"]
        auth = base64.b64encode(f"robot{namespace}:password{namespace}".encode()).decode()
        config = json.dumps({"auths": {key: {"auth": auth} for key in keys}}).encode()
        yield {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/dockerconfigjson",
            "metadata": {"namespace": f"team-{namespace:05}", "name": f"pull-{which}"},
            "data": {".dockerconfigjson": base64.b64encode(config).decode()},
        }


def _roles(size: Size) -> Iterator[dict[str, Any]]:
    yield {"kind": "ClusterRole", "metadata": {"name": "none"}, "rules": []}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "none"}
    yield {"kind": "ClusterRoleBinding", "metadata": {"name": "none"}, "roleRef": reference, "subjects": []}
    for number in filter(has_role, range(size.namespaces)):
        namespace = f"team-{number:05}"
        metadata = {"namespace": namespace, "name": "pull-secrets"}
        yield {
            "kind": "Role",
            "metadata": metadata,
            "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}],
        }
        group = {"kind": "Group", "name": f"system:serviceaccounts:{namespace}"}
        yield {
            "kind": "RoleBinding",
            "metadata": metadata,
            "subjects": [group],
            "roleRef": {"kind": "Role", "name": "pull-secrets"},
        }


def _template(size: Size, namespace: int, workload: int) -> dict[str, Any]:
    return {
        "containers": [{"name": "app", "image": image(namespace, workload, size.mirrors)}],
        "serviceAccountName": "default",
    }


def _deployments(size: Size) -> Iterator[dict[str, Any]]:
    for namespace in range(size.namespaces):
        for workload in range(WORKLOADS):
            metadata = {"namespace": f"team-{namespace:05}", "name": f"app{workload}"}
            spec = {"template": {"spec": _template(size, namespace, workload)}}
            yield {"kind": "Deployment", "metadata": metadata, "spec": spec}


def _pods(size: Size) -> Iterator[dict[str, Any]]:
    for number in range(size.pods):
        namespace, replica = number % size.namespaces, number // size.namespaces
        workload = replica % WORKLOADS
        owner = {"kind": "ReplicaSet", "name": f"app{workload}-5d4f", "controller": True}
        name = f"app{workload}-5d4f-{replica:05}"
        metadata = {"namespace": f"team-{namespace:05}", "name": name, "ownerReferences": [owner]}
        spec = {"nodeName": f"node-{number % 5000}", **_template(size, namespace, workload)}
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": {"phase": "Running"}}


def _write(path: Path, objects: Iterator[dict[str, Any]], filler: int = 0) -> str:
    """As kubectl writes a list: indented by four blanks."""
    field = json.dumps({f"f:field-{number:03}": {".": {}} for number in range(filler // 45)}, indent=16)
    end = f',\n            "filler": {field}\n        }}' if filler else "\n        }"
    with open(path, "w", encoding="ascii") as file:
        file.write('{\n    "apiVersion": "v1",\n    "items": [\n')
        _write_items(file, objects, end)
        file.write('\n    ],\n    "kind": "List",\n    "metadata": {}\n}\n')
    return str(path)


def _write_items(file: TextIO, objects: Iterator[dict[str, Any]], end: str) -> None:
    for number, found in enumerate(objects):
        file.write((",\n        " if number else "        ") + json.dumps(found)[:-1] + end)


def generate(directory: Path, size: Size) -> list[str]:
    """Writes the lists; returns the arguments of the command."""
    conf = directory / "registries.conf"
    conf.write_text(registries_conf(size.mirrors))
    # Pods first, so that nothing that decides them is known yet.
    files = [
        _write(directory / "pods.json", _pods(size), _FILLER),
        _write(directory / "deployments.json", _deployments(size), _FILLER // 3),
        _write(directory / "secrets.json", _secrets(size)),
        _write(directory / "roles.json", _roles(size)),
    ]
    (directory / "none").write_text("{}")
    return [*files, f"--registries-conf={conf}", f"--global-auth-file={directory}/none"]


# -- measuring --------------------------------------------------------------------------------------------------------


def measure(program: list[str], arguments: list[str]) -> Measured:
    """Runs an audit, and asks the kernel what it took."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    with tempfile.TemporaryFile() as out:
        start = time.monotonic()
        process = subprocess.Popen([*program, "audit", *arguments, "--output=json"], stdout=out, env=environment)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        head = out.readline().decode()
    counts = json.loads(head.rstrip() + "]}")["summary"] if head else {}
    return Measured(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, counts)


def run(size: Size, program: list[str], directory: Path) -> Measured:
    """Generates a cluster and audits it; says so where it finds something else than was put there."""
    arguments = generate(directory, size)
    written = sum(os.path.getsize(file) for file in arguments[:4])
    found = measure(program, arguments)
    told = {name: tuple(count.values()) for name, count in found.counts.items() if count["pulls"]}
    if told != expected(size):
        sys.exit(f"the audit found {told}, expected {expected(size)}")
    print(
        f"{size.pods} pods, {size.namespaces} namespaces, {size.secrets} secrets, {size.mirrors} mirrors "
        f"({written / 1e6:.0f} MB): {found.wall:.1f} s, {found.cpu:.1f} s of CPU, {found.memory:.0f} MiB"
    )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in zip(Size._fields, (150_000, 10_000, 30_000, 200), strict=True):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--program", default="", help="the executable; default: the checkout")
    given = parser.parse_args()
    program = [given.program] if given.program else [sys.executable, "-m", "crio_credential_provider"]
    size = Size(given.pods, given.namespaces, given.secrets, given.mirrors)
    with tempfile.TemporaryDirectory() as one:
        once = run(size, program, Path(one))
    with tempfile.TemporaryDirectory() as two:
        twice = run(size._replace(pods=2 * size.pods), program, Path(two))
    cpu, memory = twice.cpu / once.cpu, twice.memory / once.memory
    print(f"twice the pods: {cpu:.2f} times the CPU time, {memory:.2f} times the memory")
    return int(cpu > MOST_TIME or memory > MOST_MEMORY)


if __name__ == "__main__":
    sys.exit(main())
