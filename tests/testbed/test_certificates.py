"""The demo's certificates hold before OpenSSL: through `ssl` in a handshake, and through the command where it is."""

from __future__ import annotations

import datetime
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from crio_credential_provider.testbed.certificates import Authority, Identity, client_context, server_context

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.make("test-ca")


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """A TLS handshake in memory and one byte each way; returns both ends (server, client)."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_end = server.wrap_bio(to_server, to_client, server_side=True)
    client_end = client.wrap_bio(to_client, to_server, server_hostname=name)
    waiting = [client_end, server_end]
    while waiting:
        end = waiting.pop(0)
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            waiting.append(end)
    client_end.write(b"?")
    assert server_end.read(1) == b"?"
    return server_end, client_end


@pytest.mark.parametrize("name", ["localhost", "kubernetes.default.svc", "127.0.0.1", "::1"])
def test_a_strict_client_accepts_every_name(authority: Authority, name: str) -> None:
    identity = authority.issue(
        "server", dns_names=["localhost", "kubernetes.default.svc"], ip_addresses=["127.0.0.1", "::1"]
    )
    client = client_context(authority)
    assert client.verify_flags & ssl.VERIFY_X509_STRICT
    _, end = handshake(server_context(identity), client, name)
    certificate = end.getpeercert()
    assert certificate is not None
    assert certificate["subjectAltName"] == (
        ("DNS", "localhost"),
        ("DNS", "kubernetes.default.svc"),
        ("IP Address", "127.0.0.1"),
        ("IP Address", "0:0:0:0:0:0:0:1"),
    )
    assert certificate["issuer"] == ((("commonName", "test-ca"),),)


def refused(server: Identity, authority: Authority, name: str = "127.0.0.1") -> str:
    with pytest.raises(ssl.SSLCertVerificationError) as caught:
        handshake(server_context(server), client_context(authority), name)
    return caught.value.verify_message


def test_the_wrong_name_is_refused(authority: Authority) -> None:
    message = refused(authority.issue("localhost", ip_addresses=["127.0.0.2"]), authority)
    assert "mismatch" in message


def test_a_strange_authority_is_refused(authority: Authority) -> None:
    # The same name and another key: found by name and key identifier alone it would be taken.
    stranger = Authority.make("test-ca").issue("localhost", ip_addresses=["127.0.0.1"])
    assert refused(stranger, authority) in ("unable to get local issuer certificate", "certificate signature failure")


def test_dates_hold(authority: Authority) -> None:
    expired = authority.issue("s", ip_addresses=["127.0.0.1"], not_before=NOW - 2 * DAY, not_after=NOW - DAY)
    assert refused(expired, authority) == "certificate has expired"
    early = authority.issue("s", ip_addresses=["127.0.0.1"], not_before=NOW + DAY, not_after=NOW + 2 * DAY)
    assert refused(early, authority) == "certificate is not yet valid"


def test_a_date_beyond_2049_is_written_as_generalized_time(authority: Authority) -> None:
    late = datetime.datetime(2051, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
    identity = authority.issue("s", ip_addresses=["127.0.0.1"], not_after=late)
    _, end = handshake(server_context(identity), client_context(authority), "127.0.0.1")
    certificate = end.getpeercert()
    assert certificate is not None
    assert certificate["notAfter"] == "Feb  3 04:05:06 2051 GMT"


def test_usage_holds(authority: Authority) -> None:
    client_only = authority.issue("s", ip_addresses=["127.0.0.1"], client=True)
    assert refused(client_only, authority) in ("unsupported certificate purpose", "unsuitable certificate purpose")


def test_a_client_certificate_names_its_holder(authority: Authority) -> None:
    node = authority.issue("system:node:node1", organization="system:nodes", client=True)
    server = server_context(authority.issue("s", ip_addresses=["127.0.0.1"]), clients=authority)
    end, _ = handshake(server, client_context(authority, node), "127.0.0.1")
    certificate = end.getpeercert()
    assert certificate is not None
    assert certificate["subject"] == (
        (("organizationName", "system:nodes"),),
        (("commonName", "system:node:node1"),),
    )
    end, _ = handshake(server, client_context(authority), "127.0.0.1")
    assert not end.getpeercert()


@pytest.mark.slow
def test_many_keys_sign_and_verify(authority: Authority) -> None:
    # DER integers change their length with the top bit and with leading zeros: about 1 in 128 keys or signatures.
    for _ in range(200):
        identity = authority.issue("s", ip_addresses=["127.0.0.1"])
        handshake(server_context(identity), client_context(authority), "127.0.0.1")


@pytest.mark.slow
def test_openssl_verifies(authority: Authority, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command is not installed")
    leaf = authority.issue("kube-apiserver", dns_names=["kubernetes"], ip_addresses=["127.0.0.1", "::1"])
    paths = {name: tmp_path / f"{name}.pem" for name in ("ca", "leaf", "key")}
    for name, text in zip(paths, (authority.certificate_pem, *leaf), strict=True):
        paths[name].write_text(text)

    def openssl(*arguments: object) -> str:
        run = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        return run.stdout + run.stderr

    verified = openssl("verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", paths["ca"], paths["leaf"])
    assert verified == f"{paths['leaf']}: OK\n"
    assert "EC Key valid" in openssl("ec", "-in", paths["key"], "-check", "-noout")
    text = openssl("x509", "-in", paths["leaf"], "-noout", "-text")
    for line in (
        "Version: 3 (0x2)",
        "CA:FALSE",
        "Digital Signature",
        "TLS Web Server Authentication",
        "DNS:kubernetes",
    ):
        assert line in text
    assert text.count(": critical") == 2
    authority_text = openssl("x509", "-in", paths["ca"], "-noout", "-text")
    assert "CA:TRUE" in authority_text
    assert "Certificate Sign, CRL Sign" in authority_text
