"""TLS with a registry: certs.d, the system's CAs, client certificates."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest

from crio_credential_provider.errors import ConfigError
from crio_credential_provider.testbed.certificates import Authority, server_context
from crio_credential_provider.testbed.registry import MirrorRegistry
from odd_registries import MANIFEST, NGINX, Simulated, TokenRegistry, of_manifest
from servers import Peer, close_in_tls, distrusted, drain, say
from verdicts import ask, is_, trust

pytestmark = pytest.mark.usefixtures("no_surroundings")


CERTIFICATES: dict[str, tuple[str, tuple[str, ...]]] = {
    "of another CA": ("unknown-ca", ("was not issued by a CA that this node trusts", "ca.crt", "restart CRI-O")),
    "for another address": ("wrong-name", ("is not for the name 127.0.0.1",)),
    "for a common name alone": ("wrong-name", ("subject alternative name",)),
    "expired": ("expired", ("has expired", "clock")),
    "not yet valid": ("not-yet-valid", ("is not valid yet", "clocks")),
    "of a client": ("unknown-ca", ("unsuitable certificate purpose",)),
}


@pytest.mark.parametrize("kind", CERTIFICATES)
def test_a_certificate_that_will_not_do(authority: Authority, tmp_path: Path, kind: str) -> None:
    cause, words = CERTIFICATES[kind]
    with Peer(drain, context=server_context(distrusted(authority, kind))) as peer:
        host = f"127.0.0.1:{peer.port}"
        trust(tmp_path, host, authority)
        is_(ask(host, root=tmp_path), "tls", cause, f"https://{host}", *words)
        assert bytes(peer.received) == b""


@pytest.mark.parametrize(
    "directory", ["etc/containers/certs.d", "etc/docker/certs.d", "root/.config/containers/certs.d"]
)
def test_certs_d(tls_registry: MirrorRegistry, authority: Authority, tmp_path: Path, directory: str) -> None:
    is_(
        ask(tls_registry.host, root=tmp_path),
        "tls",
        "unknown-ca",
        f"/etc/containers/certs.d/{tls_registry.host}/ca.crt",
    )
    trust(tmp_path, tls_registry.host, authority, directory)
    verdict = ask(tls_registry.host, root=tmp_path)
    is_(verdict, "ok")
    assert verdict.scheme == "https"


@pytest.mark.parametrize(
    "place",
    [
        "etc/ssl/certs/ca-certificates.crt",
        "etc/pki/tls/certs/ca-bundle.crt",
        "etc/ssl/certs/corp.pem",
        "etc/ssl/cert.pem",
    ],
)
def test_the_system_s_cas(tls_registry: MirrorRegistry, authority: Authority, tmp_path: Path, place: str) -> None:
    file = tmp_path / place
    file.parent.mkdir(parents=True)
    file.write_text("# corporate CA\n" + Authority.make("other").certificate_pem + authority.certificate_pem)
    is_(ask(tls_registry.host, root=tmp_path), "ok")


def test_the_certificate_itself_may_be_trusted(tmp_path: Path, authority: Authority) -> None:
    """Go takes every certificate of its pool for a root, so that an installer's own leaf in ca.crt will do."""
    identity = authority.issue("r", ip_addresses=["127.0.0.1"])
    with MirrorRegistry(identity=identity) as registry:
        registry.add_image(NGINX)
        place = tmp_path / "etc/containers/certs.d" / registry.host
        place.mkdir(parents=True)
        (place / "registry.crt").write_text(identity.certificate_pem)
        is_(ask(registry.host, root=tmp_path), "ok")


def test_the_first_directory_alone_is_read(tls_registry: MirrorRegistry, authority: Authority, tmp_path: Path) -> None:
    trust(tmp_path, tls_registry.host, authority, "etc/docker/certs.d")
    trust(tmp_path, tls_registry.host, Authority.make("old"))
    is_(ask(tls_registry.host, root=tmp_path), "tls", "unknown-ca", f"etc/docker/certs.d/{tls_registry.host}")


def test_a_directory_that_was_meant_for_the_host(
    tls_registry: MirrorRegistry, authority: Authority, tmp_path: Path
) -> None:
    trust(tmp_path, "127.0.0.1", authority)
    verdict = ask(tls_registry.host, root=tmp_path)
    is_(verdict, "tls", "unknown-ca", "/etc/containers/certs.d/127.0.0.1 is for another port")
    place = tmp_path / "etc/containers/certs.d"
    assert (
        f"if {place}/127.0.0.1 is meant for it, rename it to {tls_registry.host}; otherwise put its CA into "
        f"{place}/{tls_registry.host}/ca" in (verdict.remedy)
    )
    (place / "127.0.0.1").rename(place / tls_registry.host)
    is_(ask(tls_registry.host, root=tmp_path), "ok")


def test_files_of_certs_d_that_do_not_count(tls_registry: MirrorRegistry, authority: Authority, tmp_path: Path) -> None:
    place = trust(tmp_path, tls_registry.host, authority)
    (place / "ca.crt").rename(place / "ca.pem")
    is_(ask(tls_registry.host, root=tmp_path), "tls", "unknown-ca", "ca.pem is not read: only *.crt")
    (place / "ca.pem").rename(place / "ca.crt")
    (place / "ca.crt").write_text("no certificate\n")
    is_(ask(tls_registry.host, root=tmp_path), "tls", "unknown-ca", "ca.crt has no PEM certificate")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("client.cert",), ("client.cert without client.key", "*.crt")),
        (("client.key",), ("client.key without client.cert",)),
        (("client.cert", "client.key"), ("not a certificate with its key",)),
    ],
)
def test_what_cri_o_refuses_in_certs_d(
    tls_registry: MirrorRegistry, authority: Authority, tmp_path: Path, names: tuple[str, ...], words: tuple[str, ...]
) -> None:
    place = trust(tmp_path, tls_registry.host, authority)
    for name in names:
        (place / name).write_text("nonsense")
    is_(ask(tls_registry.host, root=tmp_path), "tls", "certs.d", "CRI-O refuses", *words)
    assert tls_registry.log == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_directory_that_may_not_be_read(tls_registry: MirrorRegistry, authority: Authority, tmp_path: Path) -> None:
    trust(tmp_path, tls_registry.host, authority).chmod(0)
    with pytest.raises(ConfigError, match="run this as root"):
        ask(tls_registry.host, root=tmp_path)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_certificate(authority: Authority, tmp_path: Path, version: ssl.TLSVersion) -> None:
    context = server_context(authority.issue("r", ip_addresses=["127.0.0.1"]), clients=authority)
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = version
    with Simulated(of_manifest(MANIFEST), context) as registry:
        place = trust(tmp_path, registry.host, authority)
        verdict = ask(registry.host, root=tmp_path)
        if version == ssl.TLSVersion.TLSv1_2 or verdict.cause != "closed":
            is_(verdict, "tls", "client-certificate", "client.cert and client.key")
        else:
            # In TLS 1.3 the refusal comes behind the handshake, where a reset of the connection can overtake it.
            assert "it may require a client certificate" in verdict.remedy
        client = authority.issue("node1", client=True)
        (place / "client.cert").write_text(client.certificate_pem)
        (place / "client.key").write_text(client.key_pem)
        is_(ask(registry.host, root=tmp_path), "ok")
        assert registry.log[0].subject == {"commonName": "node1"}


def test_a_plain_server_where_tls_is_expected(plain_registry: MirrorRegistry) -> None:
    verdict = ask(plain_registry.host)
    is_(verdict, "tls", "not-tls", "does not speak TLS; over plain HTTP a registry answers", "insecure = true")
    assert verdict.credential_sent_to == ()
    assert {p.user for p in plain_registry.log} == {None}


def test_something_else_where_tls_is_expected() -> None:
    with Peer(say(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")) as peer:
        verdict = ask(f"127.0.0.1:{peer.port}")
        is_(verdict, "tls", "not-tls", "does not speak TLS", "check the port")
        assert "registry answers" not in verdict.evidence


def test_tls_that_ends_early() -> None:
    with Peer(close_in_tls) as peer:
        is_(ask(f"127.0.0.1:{peer.port}"), "tls", "closed", "closes the connection during TLS")


def test_an_insecure_source_is_asked_over_tls_first(tls_registry: MirrorRegistry, tmp_path: Path) -> None:
    verdict = ask(tls_registry.host, root=tmp_path, insecure=True)
    is_(verdict, "ok")
    assert verdict.scheme == "https"


def test_the_token_service_is_trusted_by_the_registry_s_directory(authority: Authority, tmp_path: Path) -> None:
    context = server_context(authority.issue("r", ip_addresses=["127.0.0.1"]))
    with TokenRegistry(context, context) as token_registry:
        trust(tmp_path, token_registry.host, authority)
        verdict = ask(token_registry.host, root=tmp_path)
        is_(verdict, "ok")
        assert verdict.credential_sent_to == (token_registry.service.host,)
    other = server_context(Authority.make("other").issue("r", ip_addresses=["127.0.0.1"]))
    with TokenRegistry(context, other) as token_registry:
        trust(tmp_path, token_registry.host, authority)
        verdict = ask(token_registry.host, root=tmp_path)
        is_(verdict, "tls", "unknown-ca", token_registry.service.url)
        assert (token_registry.asked, verdict.credential_sent_to) == ([], ())
