"""A registry is asked, and the verdict is as it must be; whatever it is, it tells no secret."""

from __future__ import annotations

import base64
import urllib.parse
from pathlib import Path
from typing import Any

from crio_credential_provider import registryclient
from crio_credential_provider.images.dockerconfig import Credential
from crio_credential_provider.registryclient import Verdict, probe_manifest
from crio_credential_provider.testbed.certificates import Authority
from odd_registries import NGINX, PASSWORD, TOKEN

GOOD = Credential(b"alpha", PASSWORD.encode())
WRONG = Credential(b"alpha", b"mistyped-horse-battery-staple")


def ask(host: str, credential: Credential | None = GOOD, root: Path | str = "/nonexistent", **more: Any) -> Verdict:
    """The question for the usual image; nothing of a credential is in the answer, whatever it is."""
    path, reference = more.pop("path", NGINX), more.pop("reference", "latest")
    more.setdefault("deadline", 5.0)
    verdict = probe_manifest(host, path, reference, credential, root=str(root), **more)
    assert_tells_no_secret(verdict, credential)
    assert verdict.outcome in registryclient.OUTCOMES
    assert bool(verdict.remedy) == (verdict.outcome != "ok")
    assert "\n" not in verdict.evidence + verdict.remedy
    return verdict


def assert_tells_no_secret(verdict: Verdict, credential: Credential | None) -> None:
    text = repr([getattr(verdict, name) for name in Verdict.__slots__])
    secrets = [TOKEN, *TOKEN.split(".")]
    if credential is not None:
        secrets += [credential.password.decode(), credential.identity_token]
        secrets.append(base64.b64encode(credential.username + b":" + credential.password).decode())
    for secret in filter(None, secrets):
        assert secret not in text
        assert urllib.parse.quote(secret) not in text


def is_(verdict: Verdict, outcome: str, cause: str = "", *words: str) -> None:
    assert (verdict.outcome, verdict.cause) == (outcome, cause), verdict
    for word in words:
        assert word in f"{verdict.evidence}; {verdict.remedy}", verdict


def trust(root: Path, host: str, authority: Authority, directory: str = "etc/containers/certs.d") -> Path:
    """Puts a CA into certs.d; returns its directory there."""
    place = root / directory / host
    place.mkdir(parents=True, exist_ok=True)
    (place / "ca.crt").write_text(authority.certificate_pem)
    return place
