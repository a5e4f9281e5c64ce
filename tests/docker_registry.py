"""Debian's docker-registry with users, and one small image in it, put there by skopeo."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import itertools
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from real_programs import need

TAG = "1.27"
ALPHA = ("alpha", "alphapw")

# Hashes by bcrypt with 16 rounds: `htpasswd -B` of the passwords alphapw and betapw.
_HTPASSWD = (
    "alpha:$2b$04$8z1dSnsv8xGeRaEJf3a4Qetbcv5xYUSyv7NJ6ymNu19a5wvVdzHUy\n"
    "beta:$2b$04$mNPm43WPcaTireISd0mEweo1Dj6btQErqKPVMCJASbMHLaDi25wPu\n"
)
_USER = re.compile(r"auth\.user\.name=(\S+)")


@contextlib.contextmanager
def running(home: Path, *repositories: str, http: str = "") -> Iterator[tuple[str, str]]:
    """Host and port, which the system picked, and the digest of the image that lies under each of the names.

    Args:
        http: more members of the configuration's ``http``.
    """
    program, skopeo = need("docker-registry", "skopeo")
    (home / "htpasswd").write_text(_HTPASSWD)
    (home / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: debug}}\nstorage: {{filesystem: {{rootdirectory: {home}/storage}}}}\n"
        f"http: {{addr: '127.0.0.1:0'{http}}}\n"
        f"auth: {{htpasswd: {{realm: mirror, path: {home}/htpasswd}}}}\n"
    )
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "OTEL_TRACES_EXPORTER": "none"}
    with (
        (home / "log").open("ab") as log,
        subprocess.Popen([program, "serve", str(home / "config.yml")], env=environment, stderr=log) as server,
    ):
        try:
            while not (found := re.search(r"listening on (127\.0\.0\.1:\d+)", (home / "log").read_text())):
                assert server.poll() is None, f"docker-registry ended: {(home / 'log').read_text()}"
                time.sleep(0.02)
            digest = make_layout(home / "layout")
            for repository in repositories:
                subprocess.run(
                    [
                        *(skopeo, "--insecure-policy", "copy", "--quiet", "--preserve-digests"),
                        *("--dest-tls-verify=false", "--dest-creds", ":".join(ALPHA)),
                        *(f"oci:{home}/layout:{TAG}", f"docker://{found[1]}/{repository}:{TAG}"),
                    ],
                    env=environment,
                    check=True,
                )
            yield found[1], digest
        finally:
            server.terminate()
            server.wait(20)


def users(home: Path, repository: str) -> list[str]:
    """Those that read from it, in order, each once in a row; of a registry that ran in this directory."""
    lines = (home / "log").read_text().splitlines()
    names = [found[1] for line in lines if f"vars.name={repository} " in line and (found := _USER.search(line))]
    return [name for name, _ in itertools.groupby(names)]


def make_layout(directory: Path, *tars: bytes, **configuration: Any) -> str:
    """An OCI layout of one image with these layers (default: a small one); returns the digest of its manifest.

    Args:
        configuration: members of the image's ``config``.
    """
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)

    def add(media_type: str, content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    tars = tars or (bytes(10240),)
    layers = [add("application/vnd.oci.image.layer.v1.tar+gzip", gzip.compress(tar, mtime=0)) for tar in tars]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": configuration,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in tars]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": add("application/vnd.oci.image.config.v1+json", json.dumps(config).encode()),
        "layers": layers,
    }
    entry = add("application/vnd.oci.image.manifest.v1+json", json.dumps(manifest).encode())
    entry["annotations"] = {"org.opencontainers.image.ref.name": TAG}
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return str(entry["digest"])
