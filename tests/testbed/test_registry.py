"""The demo's registry serves what real clients pull, to those who may, and says so in its log."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crio_credential_provider.testbed.certificates import Authority, client_context
from crio_credential_provider.testbed.registry import MANIFEST_TYPE, MirrorRegistry, Pulled, Users

NGINX = "hub/library/nginx"
ALPHA: Users = {"alpha": ("alphapw", ["hub"])}


@pytest.fixture
def registry() -> Iterator[MirrorRegistry]:
    with MirrorRegistry(dict(ALPHA)) as running:
        running.add_image(NGINX)
        yield running


def ask(
    registry: MirrorRegistry,
    path: str,
    credentials: str | None = "alpha:alphapw",
    method: str = "GET",
    tls: ssl.SSLContext | None = None,
) -> tuple[int, dict[str, str], bytes]:
    connection = (
        http.client.HTTPConnection("127.0.0.1", registry.port, timeout=10)
        if tls is None
        else http.client.HTTPSConnection("127.0.0.1", registry.port, timeout=10, context=tls)
    )
    headers = {"Authorization": "Basic " + base64.b64encode(credentials.encode()).decode()} if credentials else {}
    connection.request(method, path, headers=headers)
    with connection.getresponse() as answer:
        found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    connection.close()
    return found


def error_of(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, str]:
    (error,) = json.loads(answer[2])["errors"]
    assert error["message"]
    assert answer[1]["content-type"] == "application/json; charset=utf-8"
    return answer[0], error["code"]


def test_an_image_is_whole_and_always_the_same(registry: MirrorRegistry) -> None:
    digest = registry.add_image(NGINX, "1.27")
    with MirrorRegistry() as other:
        assert other.add_image(NGINX, "1.27") == digest
    status, headers, body = ask(registry, f"/v2/{NGINX}/manifests/1.27")
    assert (status, headers["content-type"], headers["docker-content-digest"]) == (200, MANIFEST_TYPE, digest)
    assert "sha256:" + hashlib.sha256(body).hexdigest() == digest
    assert ask(registry, f"/v2/{NGINX}/manifests/{digest}")[2] == body
    manifest: dict[str, Any] = json.loads(body)
    for described in (manifest["config"], *manifest["layers"]):
        status, _, blob = ask(registry, f"/v2/{NGINX}/blobs/{described['digest']}")
        assert (status, len(blob)) == (200, described["size"])
        assert "sha256:" + hashlib.sha256(blob).hexdigest() == described["digest"]
    assert json.loads(ask(registry, f"/v2/{NGINX}/tags/list")[2]) == {"name": NGINX, "tags": ["1.27", "latest"]}


def test_head_tells_the_same_without_a_body(registry: MirrorRegistry) -> None:
    got = ask(registry, f"/v2/{NGINX}/manifests/latest")
    status, headers, body = ask(registry, f"/v2/{NGINX}/manifests/latest", method="HEAD")
    assert (status, body) == (200, b"")
    assert headers["content-length"] == str(len(got[2]))


@pytest.mark.parametrize("path", ["/v2/", f"/v2/{NGINX}/manifests/latest", "/v2/hub/nothing/manifests/latest"])
@pytest.mark.parametrize("credentials", [None, "alpha:wrong", "nobody:alphapw", "alpha"])
def test_without_the_right_password_all_is_401(registry: MirrorRegistry, path: str, credentials: str | None) -> None:
    answer = ask(registry, path, credentials)
    assert error_of(answer) == (401, "UNAUTHORIZED")
    assert answer[1]["www-authenticate"] == 'Basic realm="mirror"'


def test_refusals(registry: MirrorRegistry) -> None:
    registry.add_image("hub-private/app")
    assert ask(registry, "/v2/")[::2] == (200, b"{}")
    assert error_of(ask(registry, "/v2/hub-private/app/manifests/latest")) == (403, "DENIED")
    assert error_of(ask(registry, "/v2/hub/nothing/manifests/latest")) == (404, "MANIFEST_UNKNOWN")
    assert error_of(ask(registry, "/v2/hub/nothing/tags/list")) == (404, "NAME_UNKNOWN")
    assert error_of(ask(registry, f"/v2/{NGINX}/manifests/9")) == (404, "MANIFEST_UNKNOWN")
    assert error_of(ask(registry, f"/v2/{NGINX}/manifests/sha256:{'0' * 64}")) == (404, "MANIFEST_UNKNOWN")
    assert error_of(ask(registry, f"/v2/{NGINX}/blobs/sha256:{'0' * 64}")) == (404, "BLOB_UNKNOWN")
    assert error_of(ask(registry, f"/v2/{NGINX}/manifests/latest", method="PUT")) == (405, "UNSUPPORTED")
    assert ask(registry, "/v1/search")[0] == 404


def test_credentials_rotate_while_it_runs(registry: MirrorRegistry) -> None:
    registry.users = {"alpha": ("new", ["hub/library/nginx"]), "root": ("r", [""])}
    path = f"/v2/{NGINX}/manifests/latest"
    assert [ask(registry, path, given)[0] for given in ("alpha:alphapw", "alpha:new", "root:r")] == [401, 200, 200]
    registry.users = None
    assert ask(registry, path, None)[0] == 200
    assert registry.log == [
        Pulled("GET", path, "alpha", 401),
        Pulled("GET", path, "alpha", 200),
        Pulled("GET", path, "root", 200),
        Pulled("GET", path, None, 200),
    ]


def test_tls() -> None:
    authority = Authority.make("ca")
    identity = authority.issue("mirror", ip_addresses=["127.0.0.1"])
    with MirrorRegistry(identity=identity) as registry:
        assert registry.url == f"https://127.0.0.1:{registry.port}"
        assert ask(registry, "/v2/", None, tls=client_context(authority))[0] == 200


# -- Debian's own client -----------------------------------------------------------------------------------------------


@pytest.fixture
def skopeo() -> str:
    found = shutil.which("skopeo")
    if found is None:
        pytest.skip("skopeo is not installed")
    return found


@pytest.mark.slow
def test_skopeo_inspects_and_copies_with_an_auth_file(registry: MirrorRegistry, skopeo: str, tmp_path: Path) -> None:
    digest = registry.add_image(NGINX)
    auth = base64.b64encode(b"alpha:alphapw").decode()
    auth_file = tmp_path / "auth.json"
    auth_file.write_text(json.dumps({"auths": {f"{registry.host}/{NGINX}": {"auth": auth}}}))
    image = f"docker://{registry.host}/{NGINX}:latest"
    command = [skopeo, "inspect", "--tls-verify=false", "--authfile", str(auth_file), image]
    inspected = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert (json.loads(inspected.stdout)["Digest"], json.loads(inspected.stdout)["RepoTags"]) == (digest, ["latest"])
    target = tmp_path / "copy"
    command = [skopeo, "--insecure-policy", "copy", "--src-tls-verify=false", "--src-authfile", str(auth_file)]
    subprocess.run([*command, image, f"dir:{target}"], capture_output=True, timeout=60, check=True)
    manifest = (target / "manifest.json").read_bytes()
    assert "sha256:" + hashlib.sha256(manifest).hexdigest() == digest
    assert Pulled("GET", f"/v2/{NGINX}/manifests/latest", "alpha", 200) in registry.log


@pytest.mark.slow
def test_skopeo_without_an_auth_file_is_refused(registry: MirrorRegistry, skopeo: str, tmp_path: Path) -> None:
    empty = tmp_path / "auth.json"
    empty.write_text('{"auths": {}}')
    image = f"docker://{registry.host}/{NGINX}:latest"
    command = [skopeo, "inspect", "--tls-verify=false", "--authfile", str(empty), image]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode != 0
    assert "authentication required" in run.stderr
    assert {entry.status for entry in registry.log if "manifests" in entry.path} == {401}
    # containers/image answers the challenge of a host it has nothing for with an empty user and password.
    assert {entry.user for entry in registry.log} <= {None, ""}
