"""A node for measuring the hand-off: pods, a kubelet that runs the real plugin as a process, and CRI-O's side of it.

What is simulated follows docs/reference/contracts.md, 1 and 2: the kubelet runs the plugin for each pod, notes a pull
intent on disk just after the answer (one file an image reference, rewritten each time, removed with the last pull), and
pulls one at a time or all at once; CRI-O renames the auth file into ``in-use`` and uses it for that one pull. What
a registry request takes is slept. The plugin, its API server stand-in and the disk are real.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import threading
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from crio_credential_provider.pull import authfile
from crio_credential_provider.testbed.cluster import ApiServer

IMAGE = "docker.io/library/nginx"
NAMESPACE = "team-alpha"
MIRROR = "mirror.corp.example/hub"


@dataclass
class Pull:
    """What became of one pod's first pull. Times in seconds since the pods were created."""

    pod: str
    answered: float = 0.0
    had_credentials: bool | None = None
    over: float = 0.0
    status: int = 0
    errors: str = ""


@dataclass
class SimulatedNode:
    """One node.

    Args:
        root: private directory, the plugin's ``--root``.
        plugin: command line of the plugin.
        cluster: where the secrets are; ``prepare`` fills it.
        serial: the kubelet's serializeImagePulls.
        requests: registry requests of one pull.
        seconds: what one of them takes.
        keeps_intents: whether this kubelet keeps pull intents.
    """

    root: Path
    plugin: Sequence[str]
    cluster: ApiServer
    serial: bool = True
    requests: int = 2
    seconds: float = 0.3
    keeps_intents: bool = True
    intent_delays: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.auth_directory = self.root / "etc/crio/auth"
        self._intents = self.root / "var/lib/kubelet/image_manager/pulling"
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()
        self._puller = ThreadPoolExecutor(1 if self.serial else 512)

    def prepare(self) -> None:
        """Lays out the node and a namespace with one pull secret."""
        if self.keeps_intents:
            self._intents.mkdir(parents=True)
        (self.root / "etc/containers").mkdir(parents=True)
        (self.root / "etc/containers/registries.conf").write_text(
            f'[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "{MIRROR}"\n'
        )
        (self.root / "ca.crt").write_text(self.cluster.authority.certificate_pem)
        self.cluster.add_secret(NAMESPACE, "mirror-creds", {"auths": {MIRROR: {"username": "u", "password": "p"}}})
        self.cluster.add_service_account(NAMESPACE, "default", ["mirror-creds"])
        self.cluster.allow(NAMESPACE, "default")

    def run_pods(self, count: int, tags: Sequence[str] = ("latest",), *, present: bool = False) -> list[Pull]:
        """Creates pods at once and waits for the end of the first pull of each.

        Args:
            present: the image is in the local store: the kubelet runs the plugin to check it, and no pull follows.
        """
        tokens = []
        for number in range(count):
            self.cluster.add_pod(NAMESPACE, f"pod-{number}", "node1")
            tokens.append(self.cluster.mint_token(NAMESPACE, "default", f"pod-{number}"))
        started = time.monotonic()

        def pod(number: int) -> Pull:
            pull = Pull(f"pod-{number}")
            reference = f"{IMAGE}:{tags[number % len(tags)]}"
            self._run_plugin(pull, tokens[number])
            pull.answered = time.monotonic() - started
            if not present:
                self._note_intent(reference)
                self._puller.submit(self._pull, pull).result()
                self._drop_intent(reference)
            pull.over = time.monotonic() - started
            return pull

        with ThreadPoolExecutor(count) as pods:
            return list(pods.map(pod, range(count)))

    def _run_plugin(self, pull: Pull, token: str) -> None:
        request = {
            "kind": "CredentialProviderRequest",
            "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
            "image": IMAGE,
            "serviceAccountToken": token,
        }
        flags = ["--root", str(self.root), "--apiserver", self.cluster.url]
        flags += ["--certificate-authority", str(self.root / "ca.crt"), "--journal-socket="]
        done = subprocess.run(
            [*self.plugin, *flags], input=json.dumps(request).encode(), capture_output=True, timeout=60, check=False
        )
        pull.status = done.returncode
        pull.errors = done.stderr.decode()

    # -- the kubelet's intents -----------------------------------------------------------------------------------------

    def _intent_path(self, reference: str) -> Path:
        return self._intents / f"sha256-{hashlib.sha256(reference.encode()).hexdigest()}"

    def _note_intent(self, reference: str) -> None:
        if not self.keeps_intents:
            return
        intent = {"kind": "ImagePullIntent", "apiVersion": "kubelet.config.k8s.io/v1beta1", "image": reference}
        with self._lock:
            self._counts[reference] = self._counts.get(reference, 0) + 1
            path = self._intent_path(reference)
            temporary = path.with_name(f"{path.name}.tmp")
            temporary.write_text(json.dumps(intent))
            temporary.rename(path)
        with contextlib.suppress(FileNotFoundError):
            self.intent_delays.append(time.time() - self._auth_file().stat().st_mtime)

    def _drop_intent(self, reference: str) -> None:
        if not self.keeps_intents:
            return
        with self._lock:
            self._counts[reference] -= 1
            if not self._counts[reference]:
                self._intent_path(reference).unlink()

    # -- CRI-O ---------------------------------------------------------------------------------------------------------

    def _auth_file(self) -> Path:
        return self.auth_directory / authfile.file_name(NAMESPACE, IMAGE)

    def _pull(self, pull: Pull) -> None:
        """Takes the file if there is one, asks the registry, removes the file."""
        in_use = self.auth_directory / "in-use"
        in_use.mkdir(mode=0o700, parents=True, exist_ok=True)
        taken = in_use / f"{self._auth_file().stem}-{uuid.uuid4()}.json"
        try:
            self._auth_file().rename(taken)
            json.loads(taken.read_bytes())
            pull.had_credentials = True
        except FileNotFoundError:
            pull.had_credentials = False
        # Without credentials the first request is refused and the pull is over.
        time.sleep(self.seconds * (self.requests if pull.had_credentials else 1))
        if pull.had_credentials:
            taken.unlink()
