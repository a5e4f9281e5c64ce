"""A small mirror registry: the pull half of the distribution API v2, with users that may read some repositories.

    with MirrorRegistry({"alpha": ("alphapw", ["hub"])}) as registry:
        registry.add_image("hub/library/nginx")
        ...  # skopeo inspect --tls-verify=false --creds alpha:alphapw docker://127.0.0.1:{registry.port}/hub/library/nginx

Answers to a pull were compared with docker-registry 2.8.2 (Debian's, Basic by htpasswd) and are the same but for the
cache headers of blobs. A push is refused with 405, as by a pull-through cache. It knows no tokens (Basic alone), no
manifest lists and no ranges, and keeps everything in memory.
"""

from __future__ import annotations

import base64
import binascii
import email.utils
import gzip
import hashlib
import io
import json
import re
import tarfile
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple

from .certificates import Identity, server_context
from .loopback import Answer, Connection, LoopbackServer, Request

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"

# User name to (password, path prefixes of the repositories it may read; "" is all of them).
Users = Mapping[str, tuple[str, Sequence[str]]]

_PATH = re.compile(r"/v2/(.+)/(manifests|blobs|tags)/([^/]+)")
_MESSAGES = {
    "BLOB_UNKNOWN": "blob unknown to registry",
    "DENIED": "requested access to the resource is denied",
    "MANIFEST_UNKNOWN": "manifest unknown",
    "NAME_UNKNOWN": "repository name not known to registry",
    "UNAUTHORIZED": "authentication required",
    "UNSUPPORTED": "The operation is unsupported.",
}


class Pulled(NamedTuple):
    """One request as the registry took it. `user` is the name that was sent (right or wrong password), or None."""

    method: str
    path: str
    user: str | None
    status: int


class _Refusal(Exception):
    """A status, and the distribution error that goes into the body."""

    def __init__(self, status: int, code: str, detail: object = None) -> None:
        super().__init__(code)
        self.status, self.code, self.detail = status, code, detail


class MirrorRegistry:
    """One registry on 127.0.0.1, plain HTTP unless it gets an `identity`; a context manager.

    `users` may be replaced or changed at any time, which is how credentials rotate; None lets everybody read
    everything. `log` is everything asked, in order.
    """

    def __init__(self, users: Users | None = None, *, identity: Identity | None = None, realm: str = "mirror") -> None:
        self.users = users
        self.realm = realm
        self.log: list[Pulled] = []
        self._manifests: dict[str, dict[str, bytes]] = {}
        self._tags: dict[str, dict[str, str]] = {}
        self._blobs: dict[str, dict[str, bytes]] = {}
        self._lock = threading.Lock()
        self._scheme = "http" if identity is None else "https"
        self._server = LoopbackServer(self._respond, None if identity is None else server_context(identity))

    @property
    def port(self) -> int:
        """The TCP port."""
        return self._server.port

    @property
    def host(self) -> str:
        """``127.0.0.1:<port>``, the domain part of this registry's image names."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """``http://127.0.0.1:<port>``, or https."""
        return f"{self._scheme}://{self.host}"

    def __enter__(self) -> MirrorRegistry:
        self._server.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.__exit__(kind, error, traceback)

    def add_image(self, repository: str, tag: str = "latest") -> str:
        """Put an image of one small layer under `repository`:`tag`; returns its digest, the same on every run."""
        layer_tar = _layer_tar(f"{repository}:{tag}\n".encode())
        layer = gzip.compress(layer_tar, mtime=0)
        config = _dumps(
            {
                "architecture": "amd64",
                "config": {},
                "created": "1970-01-01T00:00:00Z",
                "os": "linux",
                "rootfs": {"diff_ids": [_digest(layer_tar)], "type": "layers"},
            }
        )
        manifest = _dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": _descriptor(CONFIG_TYPE, config),
                "layers": [_descriptor(LAYER_TYPE, layer)],
            }
        )
        with self._lock:
            self._blobs.setdefault(repository, {}).update({_digest(blob): blob for blob in (config, layer)})
            self._manifests.setdefault(repository, {})[_digest(manifest)] = manifest
            self._tags.setdefault(repository, {})[tag] = _digest(manifest)
        return _digest(manifest)

    # -- one request ---------------------------------------------------------------------------------------------------

    def _respond(self, request: Request, connection: Connection) -> None:
        credentials = _loads_basic(request.header("Authorization"))
        with self._lock:
            try:
                answer = self._answer(request, credentials)
            except _Refusal as refusal:
                answer = self._refuse(refusal)
            user = None if credentials is None else credentials[0]
            self.log.append(Pulled(request.method, request.path, user, answer.status))
        # net/http writes what the handler set in the order of the names, and Date after it.
        answer.headers = [*sorted(answer.headers), ("Date", email.utils.formatdate(usegmt=True))]
        connection.send(answer.dumps(request.method))

    def _answer(self, request: Request, credentials: tuple[str, str] | None) -> Answer:
        path = request.path.partition("?")[0]
        matched = _PATH.fullmatch(path)
        if path != "/v2/" and matched is None:
            return Answer(404, _headers("text/plain; charset=utf-8"), b"404 page not found\n")
        repository = matched[1] if matched else ""
        self._authorize(credentials, repository)
        if request.method not in ("GET", "HEAD"):
            raise _Refusal(405, "UNSUPPORTED")
        if matched is None:
            return Answer(200, _headers("application/json; charset=utf-8"), b"{}")
        return {"manifests": self._manifest, "blobs": self._blob, "tags": self._list_tags}[matched[2]](
            repository, matched[3]
        )

    def _authorize(self, credentials: tuple[str, str] | None, repository: str) -> None:
        if self.users is None:
            return
        scope = [{"Type": "repository", "Class": "", "Name": repository, "Action": "pull"}] if repository else None
        password, prefixes = self.users.get(credentials[0], (None, ())) if credentials else (None, ())
        if credentials is None or password is None or credentials[1] != password:
            raise _Refusal(401, "UNAUTHORIZED", scope)
        if repository and not any(_is_below(repository, prefix) for prefix in prefixes):
            raise _Refusal(403, "DENIED", scope)

    def _manifest(self, repository: str, reference: str) -> Answer:
        digest = self._tags.get(repository, {}).get(reference, reference)
        manifest = self._manifests.get(repository, {}).get(digest)
        if manifest is None:
            named = {"Name": repository, "Revision": reference} if ":" in reference else {"Tag": reference}
            raise _Refusal(404, "MANIFEST_UNKNOWN", named)
        headers = _headers(MANIFEST_TYPE, ("Docker-Content-Digest", digest), ("Etag", f'"{digest}"'))
        return Answer(200, headers, manifest)

    def _blob(self, repository: str, digest: str) -> Answer:
        blob = self._blobs.get(repository, {}).get(digest)
        if blob is None:
            raise _Refusal(404, "BLOB_UNKNOWN", digest)
        return Answer(200, _headers("application/octet-stream", ("Docker-Content-Digest", digest)), blob)

    def _list_tags(self, repository: str, which: str) -> Answer:
        # Asked for a manifest of an unknown repository, docker-registry says MANIFEST_UNKNOWN instead.
        if which != "list" or repository not in self._tags:
            raise _Refusal(404, "NAME_UNKNOWN", {"name": repository})
        body = _dumps({"name": repository, "tags": sorted(self._tags[repository])}) + b"\n"
        return Answer(200, _headers("application/json; charset=utf-8"), body)

    def _refuse(self, refusal: _Refusal) -> Answer:
        headers = _headers("application/json; charset=utf-8")
        if refusal.status == 401:
            headers.append(("Www-Authenticate", f'Basic realm="{self.realm}"'))
        if refusal.status == 405:
            headers.append(("Allow", "GET, HEAD"))
        error: dict[str, Any] = {"code": refusal.code, "message": _MESSAGES[refusal.code]}
        if refusal.detail is not None or refusal.status in (401, 403):
            error["detail"] = refusal.detail
        return Answer(refusal.status, headers, _dumps({"errors": [error]}) + b"\n")


def _headers(content_type: str, *more: tuple[str, str]) -> list[tuple[str, str]]:
    return [
        ("Content-Type", content_type),
        ("Docker-Distribution-Api-Version", "registry/2.0"),
        ("X-Content-Type-Options", "nosniff"),
        *more,
    ]


def _loads_basic(authorization: str | None) -> tuple[str, str] | None:
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (user, password) if colon else None


def _is_below(repository: str, prefix: str) -> bool:
    # Whole path components: "hub" does not open "hub-private/app".
    prefix = prefix.strip("/")
    return not prefix or repository == prefix or repository.startswith(prefix + "/")


def _layer_tar(content: bytes) -> bytes:
    # TarInfo's defaults are owner 0, mtime 0 and mode 0644, so that the bytes depend on the content alone.
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as layer:
        entry = tarfile.TarInfo("image.txt")
        entry.size = len(content)
        layer.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _dumps(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
