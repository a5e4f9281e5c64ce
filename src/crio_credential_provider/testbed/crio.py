"""CRI-O's half of a pull, by the rules of the real one.

Sources: docs/reference/contracts.md, 2; docs/reference/registries.md, 6 to 9.

Takes the namespaced auth file into ``in-use``, walks the pull sources with that file instead of any other, pulls
manifest, config and layers into nothing (every digest is checked), and removes the file whether the pull worked or not.

    runtime = ContainerRuntime("/tmp/node")         # its /etc/containers, /etc/crio and so on lie below /tmp/node
    pull = runtime.pull("docker.io/nginx:1.27", "team-alpha")
    print(pull.digest or pull.error, pull.attempts)

What it does not do: short names, image indexes, bearer tokens, redirects, proxies, credential helper programs. A pull
that needs one of them fails and says so. It keeps nothing of an image, and no password leaves it but to the registry.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import ssl
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..errors import ConfigError, ProviderError
from ..images import dockerconfig, reference
from ..images.dockerconfig import Credential, Found
from ..images.reference import Reference
from ..runtimes.crio import pullsources, registries
from ..runtimes.pullsource import PullSource

AUTH_DIR = "/etc/crio/auth"
IN_USE = "in-use"
# Of these the first that has a directory named like the registry's host counts (containers/image, docker_client.go).
CERTIFICATE_DIRS = ("/etc/containers/certs.d", "/etc/docker/certs.d")

_MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
# containers/image, internal/iolimits: larger manifests are refused.
_MAX_MANIFEST = 4 << 20
_BLOCK = 1 << 16


class Attempt(NamedTuple):
    """One pull source that was asked.

    Attributes:
        source: the repository there; the key of the look-up.
        key: of the auth file's entry that answered; "" where none did.
        user: the user name that the registry was shown; "" where no name was.
        status: the registry's last HTTP status; 0 where it was not asked, or did not answer.
        message: why the source did not serve the image; "" where it did.
    """

    source: str
    key: str
    user: str
    status: int
    message: str


class Pull(NamedTuple):
    """One PullImage call.

    Attributes:
        image: as the pod names it.
        auth_file: file name under which the namespaced auth file was in use; "" where there was none.
        attempts: the sources that were asked, in order; the last one served the image if any did.
        digest: of the manifest; "" where the pull failed.
        error: why it failed, as the pod's event would say; "" where it did not.
    """

    image: str
    auth_file: str
    attempts: tuple[Attempt, ...]
    digest: str
    error: str


class ContainerRuntime:
    """A CRI-O on a node whose files lie below `root`.

    It reads registries.conf now and on `reload`, not at each pull, as CRI-O does.

    Args:
        root: directory that serves as ``/``.
        auth_dir: ``namespaced_auth_dir``; None for CRI-O's default below `root`.
        global_auth_file: taken where there is no namespaced file; "" for none.
        timeout: seconds that a registry may be silent.

    Raises:
        ConfigError: the registries.conf is one with which CRI-O does not start.
    """

    def __init__(
        self, root: str, *, auth_dir: str | None = None, global_auth_file: str = "", timeout: float = 10
    ) -> None:
        self._root = root
        self.auth_dir = root + AUTH_DIR if auth_dir is None else auth_dir
        self._global_auth_file = global_auth_file
        self._timeout = timeout
        self.reload()

    def reload(self) -> None:
        """Read registries.conf and its drop-ins again, as on SIGHUP. ConfigError as for the constructor."""
        self._registries = registries.load(registries.search_files("", "", self._root))

    def pull_sources(self, image: str) -> list[PullSource]:
        """What a pull would ask, in order. ProviderError where the image, or one of its sources, is not a reference."""
        return pullsources.pull_sources(self._registries, reference.parse(image))

    def auth_file(self, image: str, namespace: str) -> str:
        """The path where a pull looks for its auth file. ReferenceSyntaxError for an invalid image."""
        # Computed here, and not by the plugin's own module: the two have to agree.
        name = hashlib.sha256(reference.parse(image).name.encode()).hexdigest()
        return os.path.join(self.auth_dir, f"{namespace}-{name}.json")

    def pull(self, image: str, namespace: str, credential: Credential | None = None) -> Pull:
        """Pull an image for a pod of `namespace`; `credential` is what the kubelet hands over, if anything.

        Never raises for what files and registries hold: the record says why the pull failed.
        """
        try:
            wanted = reference.parse(image)
        except ProviderError as error:
            return Pull(image, "", (), "", error.message)
        with self._in_use(self.auth_file(image, namespace)) as path:
            return self._pull(image, wanted, path, credential)

    @contextlib.contextmanager
    def _in_use(self, path: str) -> Iterator[str]:
        """The auth file under the name that it has during the pull; "" where there is none."""
        if not os.path.exists(path):
            yield ""
            return
        directory = os.path.join(self.auth_dir, IN_USE)
        os.makedirs(directory, 0o700, exist_ok=True)
        stem = os.path.basename(path).removesuffix(".json")
        taken = os.path.join(directory, f"{stem}-{uuid.uuid4()}.json")
        os.rename(path, taken)
        try:
            yield taken
        finally:
            os.unlink(taken)

    def _pull(self, image: str, wanted: Reference, path: str, credential: Credential | None) -> Pull:
        attempts: list[Attempt] = []
        name = os.path.basename(path)
        try:
            data = _read(path or self._global_auth_file)
            sources = pullsources.pull_sources(self._registries, wanted)
        except (ProviderError, OSError) as error:
            return Pull(image, name, (), "", str(error))
        for source in sources:
            with contextlib.closing(_Source(source, self._root, self._timeout)) as asked:
                try:
                    asked.login(data, self._registries.credential_helpers, wanted.domain, credential)
                    digest = asked.blobs(asked.manifest())
                except _Failure as failure:
                    attempts.append(asked.record(str(failure)))
                    if failure.final:
                        break
                    continue
                attempts.append(asked.record(""))
                return Pull(image, name, tuple(attempts), digest, "")
        return Pull(image, name, tuple(attempts), "", "; ".join(attempt.message for attempt in attempts))


def _read(path: str) -> bytes | None:
    """The auth file; None where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


class _Failure(Exception):
    """Why a source does not serve the image, in a clause; `final` where no other source is asked after it."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class _Source:
    """One pull source: its connection, the credential shown to it, and its last status."""

    def __init__(self, source: PullSource, root: str, timeout: float) -> None:
        self._source = source
        self._reference = reference.parse(source.reference)
        # What Docker Hub's images are called, and where its registry is.
        self._host = "registry-1.docker.io" if self._reference.domain == "docker.io" else self._reference.domain
        self._root = root
        self._timeout = timeout
        self._found: Found | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._headers: dict[str, str] = {}
        self._user = ""
        self._status = 0

    def record(self, message: str) -> Attempt:
        return Attempt(self._source.name, self._found.key if self._found else "", self._user, self._status, message)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def login(self, data: bytes | None, helpers: list[str], domain: str, given: Credential | None) -> None:
        """Look the credential up, find out how the registry is spoken to, and whether it asks for a credential."""
        name = self._source.name
        if self._source.blocked:
            raise _Failure(f"registry {name} is blocked in registries.conf")
        try:
            # The kubelet's counts where it has a user name, and on the image's own host alone.
            if given is not None and given.username and self._reference.domain == domain:
                self._found = Found(given, "")
            else:
                self._found = find_login(data, name, helpers)
        except ConfigError as error:
            raise _Failure(f"getting username and password for {name}: {error.message}") from None
        challenges = self._ping()
        if "basic" in challenges:
            # Sent as it is, and empty where none was found (containers/image, setupRequestAuth).
            credential = self._found.credential if self._found else Credential(b"", b"")
            userpass = base64.b64encode(credential.username + b":" + credential.password).decode()
            self._headers["Authorization"] = f"Basic {userpass}"
            self._user = credential.username.decode(errors="replace")
        elif challenges:
            raise _Failure(
                f"{self._host} asks for {challenges[0]} authentication, which this stand-in does not support"
            )

    def _ping(self) -> list[str]:
        """The challenges of ``/v2/``. HTTPS first; plain HTTP only where the source is insecure."""
        try:
            self._connection = http.client.HTTPSConnection(self._host, timeout=self._timeout, context=self._tls())
            status, headers, _ = self._get("/v2/")
        except _Failure:
            if not self._source.insecure:
                raise
            self._connection = http.client.HTTPConnection(self._host, timeout=self._timeout)
            status, headers, _ = self._get("/v2/")
        if status not in (200, 401):
            raise _Failure(f"pinging container registry {self._host}: status {status}")
        return [value.partition(" ")[0].lower() for value in headers.get_all("WWW-Authenticate", ())]

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self._source.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        directories = (os.path.join(self._root + directory, self._host) for directory in CERTIFICATE_DIRS)
        directory = next(filter(os.path.isdir, directories), None)
        for name in sorted(os.listdir(directory)) if directory else ():
            if name.endswith(".crt"):
                context.load_verify_locations(os.path.join(str(directory), name))
        return context

    def manifest(self) -> bytes:
        """The manifest, digest checked if it was asked for by digest."""
        wanted = self._reference.digest or self._reference.tag
        what = f"reading manifest {wanted} in {self._source.name}"
        status, headers, body = self._get(
            f"/v2/{self._reference.path}/manifests/{wanted}", _MAX_MANIFEST, {"Accept": ", ".join(_MANIFEST_TYPES)}
        )
        if status != 200:
            raise _Failure(f"{what}: {_refusal(status, body)}")
        if headers.get_content_type() not in _MANIFEST_TYPES:
            raise _Failure(f"{what}: of type {headers.get_content_type()}, which this stand-in does not support")
        if self._reference.digest:
            _check_digest(what, self._reference.digest, body)
        return body

    def blobs(self, manifest: bytes) -> str:
        """Read config and layers that the manifest names, and return the manifest's digest.

        A failure is final: the source that has the manifest must have the rest.
        """
        try:
            document = json.loads(manifest)
            described = [(str(blob["digest"]), int(blob["size"])) for blob in (document["config"], *document["layers"])]
        except (ValueError, KeyError, TypeError):
            raise _Failure(f"invalid manifest in {self._source.name}", final=True) from None
        try:
            for digest, size in described:
                self._read_blob(digest, max(size, 0))
        except _Failure as failure:
            raise _Failure(str(failure), final=True) from None
        return self._reference.digest or f"sha256:{hashlib.sha256(manifest).hexdigest()}"

    def _read_blob(self, digest: str, size: int) -> None:
        what = f"reading blob {digest} in {self._source.name}"
        status, _, body = self._get(f"/v2/{self._reference.path}/blobs/{digest}", size)
        if status != 200:
            raise _Failure(f"{what}: {_refusal(status, body)}")
        _check_digest(what, digest, body)

    def _get(
        self, path: str, limit: int = _BLOCK, headers: dict[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """One GET; of a refusal's body at most a block is read, of any other at most `limit` bytes and one."""
        assert self._connection is not None
        try:
            self._connection.request("GET", path, headers=self._headers | (headers or {}))
            with self._connection.getresponse() as answer:
                self._status = answer.status
                return answer.status, answer.headers, answer.read(limit + 1 if answer.status == 200 else _BLOCK)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            self._status = 0
            reason = getattr(error, "verify_message", "") or getattr(error, "strerror", "") or type(error).__name__
            raise _Failure(f"asking container registry {self._host}: {reason}") from None


def _refusal(status: int, body: bytes) -> str:
    """What the registry says, by the distribution API's error object; else its status."""
    message: Any = None
    with contextlib.suppress(ValueError, LookupError, TypeError):
        message = json.loads(body)["errors"][0]["message"]
    return message if isinstance(message, str) and message else f"status {status}"


def _check_digest(what: str, digest: str, content: bytes) -> None:
    algorithm, _, wanted = digest.partition(":")
    if algorithm not in ("sha256", "sha384", "sha512"):
        raise _Failure(f"{what}: {algorithm} is not a digest algorithm")
    if hashlib.new(algorithm, content).hexdigest() != wanted:
        raise _Failure(f"{what}: the content does not have this digest")


def find_login(data: bytes | None, key: str, credential_helpers: list[str]) -> Found | None:
    """CRI-O's whole look-up of a repository, for an auth file and the ``credential-helpers`` of registries.conf.

    Args:
        data: the auth file; None where it is missing.
        key: a repository or host, without scheme, tag and digest.
        credential_helpers: asked in order; the first that has something is taken. Helper programs are not run here:
            asking one is an error, which surfaces only if nothing else is found.

    Raises:
        ConfigError: the key is not valid, the file is broken, or a helper program would have to be run.
    """
    dockerconfig.check_key(key)
    kept: ConfigError | None = None
    for helper in credential_helpers:
        try:
            if helper != registries.AUTH_FILE_HELPER:
                raise dockerconfig.helper_needed(helper)
            found = dockerconfig.find_credential(dockerconfig.loads(data), key) if data is not None else None
        except ConfigError as error:
            kept = error
            continue
        if found is not None:
            return found
    if kept is not None:
        raise kept
    return None
