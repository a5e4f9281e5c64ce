"""The files of the repository that `manifests` prints, and the screens of docs/reference/manifests.md.

`python tests/manifests_documents.py` makes them anew: it runs what each is told to be printed by.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent

COMMANDS = {
    "docs/manifests/credential-provider-config.yaml": "config --match-image docker.io --match-image quay.io",
    "docs/manifests/credential-provider-config-1.33.yaml": (
        "config --kubernetes 1.33 --match-image docker.io --match-image quay.io"
    ),
    "docs/manifests/node-rbac.yaml": "rbac",
    "docs/manifests/secrets-from-namespace.yaml": "pull-secrets -n team-alpha",
    "docs/manifests/secrets-from-pod.yaml": (
        "pull-secrets -n team-alpha --secrets-from pod --pull-secret mirror-credentials"
    ),
    "docs/manifests/secrets-from-service-account.yaml": (
        "pull-secrets -n team-alpha --secrets-from service-account --service-account web "
        "--pull-secret mirror-credentials"
    ),
    "packaging/container/daemonset.yaml": "daemonset",
    "packaging/tmpfiles.d/crio-credential-provider.conf": "tmpfiles",
}


def printed(command: str) -> str:
    """What the command prints."""
    words = [sys.executable, "-m", "crio_credential_provider", "manifests", *command.split()]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout


PAGE = ROOT / "docs/reference/manifests.md"
_SCREEN = re.compile(r"(?<=^```console\n)(.*?)(?=^```$)", re.MULTILINE | re.DOTALL)

EXAMPLE = {
    "node/etc/containers/registries.conf": """\
[[registry]]
location = "docker.io"

[[registry.mirror]]
location = "mirror.corp.example:5000/hub"

[[registry]]
prefix = "*.corp.example"
location = "mirror.corp.example:5000/corp"
""",
    "ecr-credential-provider.yaml": """\
# Of the platform.
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
  - name: ecr-credential-provider
    matchImages: ["*.dkr.ecr.*.amazonaws.com", "docker.io/library"]
    defaultCacheDuration: 12h
    apiVersion: credentialprovider.kubelet.k8s.io/v1   # not ours
""",
}
"""The directory in which the screens are made."""


def page() -> str:
    """docs/reference/manifests.md with its screens made by running their commands, one after another."""
    directory = Path(tempfile.mkdtemp())
    try:
        for name, text in EXAMPLE.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(text)
        (directory / "crio-credential-provider").write_text(
            f'#!/bin/sh\nexec "{sys.executable}" -m crio_credential_provider "$@"\n'
        )
        (directory / "crio-credential-provider").chmod(0o755)
        return _SCREEN.sub(lambda screen: _screen(screen[1], directory), PAGE.read_text())
    finally:
        shutil.rmtree(directory)


def _screen(text: str, directory: Path) -> str:
    """Commands with what they say, standard error first where both speak."""
    environment = {**os.environ, "PATH": f"{directory}:/usr/bin:/bin", "HOME": "/nowhere", "LC_ALL": "C.UTF-8"}
    made = ""
    for line in re.findall(r"^\$ (.*)$", text, re.MULTILINE):
        done = subprocess.run(
            ["sh", "-c", line], capture_output=True, text=True, cwd=directory, env=environment, check=False, timeout=60
        )
        lines = (done.stderr + done.stdout).splitlines()
        made += "".join(f"{one.rstrip()}\n" for one in (f"$ {line}", *lines))
    return made


_MANIFEST = re.compile(r"(\(\.\./manifests/([\w.-]+)\):\n\n```yaml\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)


def with_manifests(text: str) -> str:
    """A document with each manifest that stands below the link to its file."""
    return _MANIFEST.sub(lambda found: found[1] + (ROOT / "docs/manifests" / found[2]).read_text(), text)


if __name__ == "__main__":
    for name, command in COMMANDS.items():
        (ROOT / name).write_text(printed(command))
    for document in (ROOT / "docs/reference").glob("*.md"):
        document.write_text(with_manifests(document.read_text()))
    PAGE.write_text(page())
