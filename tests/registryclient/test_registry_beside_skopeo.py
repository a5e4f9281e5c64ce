"""A real registry: skopeo's word beside ours."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import docker_registry
from crio_credential_provider.images.dockerconfig import Credential
from crio_credential_provider.registryclient import probe_manifest
from crio_credential_provider.testbed.certificates import Authority
from odd_registries import NGINX, PASSWORD, TokenRegistry
from real_programs import need
from verdicts import GOOD, WRONG, ask, is_

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_surroundings")]


class Real(NamedTuple):
    """docker-registry with TLS and users, and skopeo with a home of its own."""

    host: str
    home: Path
    skopeo: str

    def inspect(self, path: str, creds: str, *flags: str) -> tuple[int, str]:
        """skopeo's exit status and words for a manifest; "" asks as nobody."""
        login = ["--creds", creds] if creds else ["--no-creds"]
        done = subprocess.run(
            [self.skopeo, "inspect", "--raw", *login, *flags, f"docker://{self.host}/{path}"],
            env={"PATH": "/usr/bin:/bin", "HOME": str(self.home)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.returncode, done.stderr


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Real]:
    (skopeo,) = need("skopeo")
    home = tmp_path_factory.mktemp("real")
    identity = authority.issue("r", ip_addresses=["127.0.0.1"])
    (home / "tls.crt").write_text(identity.certificate_pem)
    (home / "tls.key").write_text(identity.key_pem)
    http = f", tls: {{certificate: {home}/tls.crt, key: {home}/tls.key}}"
    with docker_registry.running(home, NGINX, http=http) as (host, _):
        yield Real(host, home, skopeo)


REAL: dict[str, tuple[str, str, str, str, str]] = {
    # What is asked with whose password -> our outcome, and what skopeo says.
    "a good credential": ("alphapw", NGINX, "1.27", "ok", ""),
    "a wrong password": (
        "wrong",
        NGINX,
        "1.27",
        "unauthorized",
        "invalid username/password|unauthorized|authentication",
    ),
    "nobody": ("", NGINX, "1.27", "unauthorized", "authentication required"),
    "a tag that is none": ("alphapw", NGINX, "9", "not-found", "manifest unknown"),
    "a repository that is none": ("alphapw", "hub/library/nothing", "1.27", "not-found", "manifest unknown"),
}


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("trusted", [True, False])
def test_the_verdict_is_skopeo_s(
    real: Real, authority: Authority, monkeypatch: pytest.MonkeyPatch, name: str, trusted: bool
) -> None:
    password, path, tag, outcome, words = REAL[name]
    monkeypatch.setenv("HOME", str(real.home))
    place = real.home / ".config/containers/certs.d" / real.host
    place.mkdir(parents=True, exist_ok=True)
    (place / "ca.crt").write_text((authority if trusted else Authority.make("other")).certificate_pem)
    if not trusted:
        outcome, words = "tls", "certificate signed by unknown authority"
    status, said = real.inspect(f"{path}:{tag}", f"alpha:{password}" if password else "")
    credential = Credential(b"alpha", password.encode()) if password else None
    verdict = probe_manifest(real.host, path, tag, credential)
    assert verdict.outcome == outcome, verdict
    assert (status == 0) == (outcome == "ok"), said
    assert re.search(words, said), said


def test_an_insecure_source_is_skopeo_s_without_verification(real: Real, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")
    assert real.inspect(f"{NGINX}:1.27", "alpha:alphapw", "--tls-verify=false")[0] == 0
    verdict = probe_manifest(real.host, NGINX, "1.27", Credential(b"alpha", b"alphapw"), insecure=True)
    is_(verdict, "ok")
    assert verdict.scheme == "https"


def test_tokens_are_asked_for_as_skopeo_asks(token_registry: TokenRegistry, tmp_path: Path) -> None:
    (skopeo,) = need("skopeo")
    real = Real(token_registry.host, tmp_path, skopeo)
    for creds, credential in ((f"alpha:{PASSWORD}", GOOD), ("alpha:wrong", WRONG), ("", None)):
        status, _ = real.inspect(f"{NGINX}:latest", creds, "--tls-verify=false")
        verdict = ask(token_registry.host, credential, insecure=True)
        assert (status == 0) == (verdict.outcome == "ok")
        theirs, ours = token_registry.asked
        assert {**theirs, "password": ""} == {**ours, "password": ""}
        assert theirs["scheme"] == ("Basic" if credential else "")
        token_registry.asked.clear()
    token_registry.anonymous = True
    assert real.inspect(f"{NGINX}:latest", "", "--tls-verify=false")[0] == 0
    is_(ask(token_registry.host, None, insecure=True), "ok")
