"""Registries that are not as they should be, and what skopeo makes of them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from crio_credential_provider.registryclient import probe_manifest
from crio_credential_provider.testbed.certificates import Authority, server_context
from crio_credential_provider.testbed.registry import MirrorRegistry
from odd_registries import BASIC, NGINX, ODD, OddRegistry, Simulated, answering
from real_programs import need
from verdicts import GOOD, ask, assert_tells_no_secret, is_, trust

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_surroundings")]


@pytest.mark.parametrize("name", ODD)
def test_an_odd_registry_is_to_verify_what_it_is_to_skopeo(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Where a pull works it is never said to fail, and the other way round; where we cannot know, that is said."""
    odd = ODD[name]
    context = server_context(authority.issue("r", ip_addresses=["127.0.0.1"])) if odd.tls else None
    monkeypatch.setenv("HOME", str(tmp_path))
    with OddRegistry(odd, context) as place:
        host = place.registry.host
        trust(tmp_path, host, authority, ".config/containers/certs.d")
        verdict = probe_manifest(host, NGINX, "latest", GOOD, insecure=not odd.tls, deadline=5)
        assert_tells_no_secret(verdict, GOOD)
        is_(verdict, odd.outcome, odd.cause, *map(place.fill, odd.words))
        assert (verdict.undecided, verdict.token_service) == (odd.undecided, place.fill(odd.token_service))
        if odd.pulls is not None:
            assert odd.undecided or odd.pulls == (verdict.outcome == "ok")
            (skopeo,) = need("skopeo")
            auth = tmp_path / "auth.json"
            auth.write_text(json.dumps({"auths": {host: {"auth": BASIC.removeprefix("Basic ")}}}))
            flags = ["--authfile", str(auth), *([] if odd.tls else ["--tls-verify=false"])]
            done = subprocess.run(
                [skopeo, "inspect", "--raw", *flags, f"docker://{host}/{NGINX}:latest"],
                env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            assert (done.returncode == 0) == odd.pulls, done.stderr


def test_a_limit_that_outlasts_cri_o(plain_registry: MirrorRegistry) -> None:
    """It waits four times, a minute each at most: with less to wait it may get through."""
    for seconds, undecided in (("3600", False), ("241", False), ("240", True), ("soon", True)):
        with Simulated(lambda request, s=seconds: answering(429, ("Retry-After", s))) as registry:  # type: ignore[misc]
            verdict = ask(registry.host, insecure=True)
            is_(verdict, "rate-limited", "", f"Retry-After: {seconds}")
            assert verdict.undecided == undecided
