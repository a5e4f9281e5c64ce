"""The files of the repository that `manifests` prints: which command makes which. `python tests/manifests_documents.py`
writes them anew."""

from __future__ import annotations

import subprocess
import sys
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


if __name__ == "__main__":
    for name, command in COMMANDS.items():
        (ROOT / name).write_text(printed(command))
