"""Writes the container image of both executables as an archive of the OCI layout, without any container tool.

    skopeo copy --all oci-archive:dist/crio-credential-provider-<version>.oci.tar docker://REGISTRY/NAME:TAG

For each architecture one layer, with one file. packaging/container/Containerfile makes the same with podman.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

NAME = "crio-credential-provider"
_TYPE = "application/vnd.oci.image"


def make_image(executables: Iterable[Path], target: Path, version: str, commit: str, seconds: int) -> Path:
    """The same executables, version, commit and time make the same bytes.

    Args:
        executables: their names end in ``-<architecture>``, as Go and Debian call it.
        seconds: since 1970, of all that is in it.
    """
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    labels = {"title": NAME, "version": version, "revision": commit, "licenses": "Apache-2.0", "created": created}
    files: dict[str, bytes] = {}

    def add(kind: str, content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        files[f"blobs/sha256/{digest}"] = content
        return {"mediaType": f"{_TYPE}.{kind}", "digest": f"sha256:{digest}", "size": len(content)}

    manifests = []
    for executable in executables:
        layer = _tar({NAME: executable.read_bytes()}, 0o755, seconds)
        platform = {"architecture": executable.name.rpartition("-")[2], "os": "linux"}
        config = {
            "created": created,
            **platform,
            "config": {
                "Entrypoint": [f"/{NAME}"],
                "Labels": {f"org.opencontainers.image.{name}": value for name, value in labels.items()},
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
            "history": [{"created": created, "created_by": "make release"}],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{_TYPE}.manifest.v1+json",
            "config": add("config.v1+json", _json(config)),
            "layers": [add("layer.v1.tar+gzip", gzip.compress(layer, 6, mtime=0))],
        }
        manifests.append({**add("manifest.v1+json", _json(manifest)), "platform": platform})
    entry = add("index.v1+json", _index(manifests))
    entry["annotations"] = {"org.opencontainers.image.ref.name": version}
    files |= {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": _index([entry])}
    target.write_bytes(_tar(files, 0o644, seconds))
    return target


def _index(manifests: list[dict[str, Any]]) -> bytes:
    return _json({"schemaVersion": 2, "mediaType": f"{_TYPE}.index.v1+json", "manifests": manifests})


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _tar(files: dict[str, bytes], mode: int, seconds: int) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(content), mode, seconds
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
