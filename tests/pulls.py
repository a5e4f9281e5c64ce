"""One pull as the plugin decides it and CRI-O then carries it out: secrets and files in, a login for each source out.

    pull = Site(tmp_path, conf=MIRROR, secrets=[secret("creds", {"mirror.corp": login("user", "pw")})]).pull()
    assert pull.logins == {"mirror.corp/hub/library/nginx": "user:pw", "docker.io/library/nginx": None}

The cluster is an object with ``get`` that answers in the shape of the recordings; everything else is the program's own.
CRI-O's side is its look-up as the vectors hold it (``crio.find_login``), on the bytes of the auth file.
"""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from crio_credential_provider import settings
from crio_credential_provider.errors import ConfigError
from crio_credential_provider.kubernetes import credentialprovider
from crio_credential_provider.pull import decision
from crio_credential_provider.pull.resolution import Resolution
from crio_credential_provider.runtimes.crio import registries
from crio_credential_provider.testbed import crio
from node import NGINX, recorded_answer, recorded_request, write

# A real token; its namespace.
TOKEN: str = json.loads(recorded_request("request-service-account"))["serviceAccountToken"]
NAMESPACE = "team-gamma"

Entry = dict[str, Any]


def login(username: str, password: str) -> Entry:
    """An entry of ``auths`` as `kubectl create secret docker-registry` makes it."""
    auth = base64.b64encode(f"{username}:{password}".encode()).decode()
    return {"username": username, "password": password, "auth": auth}


def secret_list(items: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """A SecretList with the recorded one's members around the items."""
    answer: dict[str, Any] = json.loads(recorded_answer("list-secrets-200")[1])
    answer["items"] = list(items)
    return answer


def raw_secret(name: str, content: bytes, kind: str = "kubernetes.io/dockerconfigjson") -> dict[str, Any]:
    """A Secret with the recorded one's members around name and content."""
    item: dict[str, Any] = copy.deepcopy(json.loads(recorded_answer("list-secrets-200")[1])["items"][0])
    item["metadata"].update(name=name, namespace=NAMESPACE)
    key = ".dockercfg" if kind == "kubernetes.io/dockercfg" else ".dockerconfigjson"
    item.update(type=kind, data={key: base64.b64encode(content).decode()})
    return item


def secret(name: str, auths: Mapping[str, Any]) -> dict[str, Any]:
    return raw_secret(name, json.dumps({"auths": auths}).encode())


class Cluster:
    """The seam to the API server: one list of secrets, and what it was asked."""

    def __init__(self, items: Iterable[dict[str, Any]]) -> None:
        self.items = list(items)
        self.asked: list[str] = []

    def get(self, path: str, token: str = "") -> dict[str, Any]:
        assert token == TOKEN
        assert path.startswith(f"/api/v1/namespaces/{NAMESPACE}/"), path
        self.asked.append(path)
        return secret_list(self.items)


class Pull:
    """What the plugin decided, and what CRI-O makes of it."""

    def __init__(self, resolution: Resolution, node_file: bytes | None, helpers: list[str], asked: int) -> None:
        self.resolution = resolution
        self.auth_file = resolution.auth_file
        self.asked = asked
        self._file = node_file if self.auth_file is None else self.auth_file
        self._helpers = helpers

    def login(self, name: str) -> str | None:
        """What CRI-O shows at a pull source: ``user:password``, ``token``, None, or ``error CLASS``."""
        try:
            found = crio.find_login(self._file, name, self._helpers)
        except ConfigError as error:
            return f"error {error.rule}"
        if found is None:
            return None
        return (
            found.credential.identity_token or (found.credential.username + b":" + found.credential.password).decode()
        )

    @property
    def logins(self) -> dict[str, str | None]:
        """The login of each source, in CRI-O's order."""
        return {source.name: self.login(source.name) for source in self.resolution.sources}

    @property
    def keys(self) -> list[str]:
        """The keys of the auth file that was written."""
        assert self.auth_file is not None, self.resolution.reason
        return list(json.loads(self.auth_file)["auths"])

    @property
    def skipped(self) -> str:
        return "\n".join(f"{skipped.secret}: {skipped.reason}" for skipped in self.resolution.skipped)


class Site:
    """A node's files below a root directory, and a namespace's secrets."""

    def __init__(
        self,
        root: Path,
        *,
        conf: str | None = None,
        secrets: Iterable[dict[str, Any]] = (),
        node_file: Mapping[str, Any] | bytes | None = None,
        files: Mapping[str, str] | None = None,
    ) -> None:
        self.root = root
        self.secrets = list(secrets)
        self.node_file = json.dumps(node_file).encode() if isinstance(node_file, Mapping) else node_file
        if conf is not None:
            self.write("etc/containers/registries.conf", conf.encode())
        for path, text in (files or {}).items():
            self.write(path, text.encode())
        if self.node_file is not None:
            self.write("var/lib/kubelet/config.json", self.node_file)

    def write(self, path: str, data: bytes) -> Path:
        return write(self.root, path, data)

    def pull(self, image: str = NGINX, *flags: str, token: str = TOKEN) -> Pull:
        """The plugin's decision for an image."""
        given = settings.loads([f"--root={self.root}", *flags], {})
        cluster = Cluster(self.secrets)
        request = credentialprovider.Request(image, token)
        resolution = decision.resolve(request, given, lambda: cluster)
        search = registries.search_files(given.registries_conf, given.registries_conf_dir, given.root)
        helpers = registries.load(search).credential_helpers
        pull = Pull(resolution, self.node_file, helpers, len(cluster.asked))
        if resolution.auth_file is not None:
            # Whatever the case is about: the file serves this pull's sources, each under its full name, nothing else.
            assert set(pull.keys) <= {source.name for source in resolution.sources if not source.blocked}
        return pull
