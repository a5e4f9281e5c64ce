"""Trust: each server that is not the API server is refused with a message of its own, and never sees the token."""

from __future__ import annotations

import os
import socket
import ssl

import pytest

from crio_credential_provider.testbed.certificates import Authority, Identity, server_context
from crio_credential_provider.testbed.cluster import ApiServer
from faults import UNTRUSTED
from node import Node, Run, request
from servers import Peer, distrusted, drain, say

OBJECT = b'{"kind":"SecretList","apiVersion":"v1","metadata":{},"items":[]}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(OBJECT) + OBJECT

IS_IT_ONE = "check that this is a Kubernetes API server"


def assert_refused(run: Run, node: Node, *words: str) -> None:
    assert (run.status, run.stdout) == (1, b""), run
    assert run.stderr.count("\n") == 1
    for word in words:
        assert word in run.stderr, f"{word!r} is not in: {run.stderr}"
    assert node.auth_file_names() == []
    assert run.entry["OUTCOME"] == "fault-cluster"


@pytest.mark.parametrize("kind", UNTRUSTED)
def test_a_certificate_that_will_not_do(alpha_node: Node, authority: Authority, alpha: str, kind: str) -> None:
    with Peer(drain, context=server_context(distrusted(authority, kind))) as peer:
        alpha_node.write_kubeconfig(peer.url, authority.certificate_pem)
        run = alpha_node.run(request(token=alpha), "--deadline", "2s")
        words = (f"the API server {peer.url} cannot be trusted", "the token was not sent", *UNTRUSTED[kind])
        assert_refused(run, alpha_node, *words)
        # It was reached, once, and was told nothing.
        assert (peer.connections, bytes(peer.received)) == (1, b"")


def test_the_messages_differ() -> None:
    said = [words[0] for words in UNTRUSTED.values()]
    # The two that concern the address are one fault.
    assert len(set(said)) == len(said) - 1


def test_without_a_ca_the_system_s_own_do_not_vouch(alpha_node: Node, identity: Identity, alpha: str) -> None:
    with Peer(drain, context=server_context(identity)) as peer:
        alpha_node.write_kubeconfig(peer.url)
        run = alpha_node.run(request(token=alpha), "--deadline", "2s")
        assert_refused(run, alpha_node, "not issued by one of the system's CAs", "--certificate-authority")
        assert bytes(peer.received) == b""


def test_a_wrong_name(alpha_node: Node, authority: Authority, alpha: str) -> None:
    identity = authority.issue("localhost", dns_names=["kubernetes"], ip_addresses=["127.0.0.1"])
    with Peer(drain, context=server_context(identity)) as peer:
        alpha_node.write_kubeconfig(f"https://localhost:{peer.port}", authority.certificate_pem)
        run = alpha_node.run(request(token=alpha), "--deadline", "2s")
        # A common name is no name (RFC 6125).
        assert_refused(run, alpha_node, "is not for the name 'localhost'", "tls-server-name", "the token was not sent")
        assert bytes(peer.received) == b""


def test_a_plain_http_server(alpha_node: Node, authority: Authority, alpha: str) -> None:
    with Peer(say(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")) as peer:
        alpha_node.write_kubeconfig(peer.url, authority.certificate_pem)
        run = alpha_node.run(request(token=alpha), "--deadline", "2s")
        words = ("does not speak TLS", "the token was not sent", "plain HTTP", str(alpha_node.kubeconfig))
        assert_refused(run, alpha_node, *words)
        # A ClientHello, and nothing after it.
        assert peer.received.startswith(b"\x16\x03")
        for part in ("Authorization", *alpha.split(".")):
            assert part.encode() not in peer.received


def test_tls_1_1(alpha_node: Node, authority: Authority, identity: Identity, alpha: str) -> None:
    context = server_context(identity)
    try:
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning):
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    except (ssl.SSLError, ValueError) as error:
        pytest.skip(f"this OpenSSL cannot speak TLS 1.1: {error}")
    with Peer(drain, context=context) as peer:
        alpha_node.write_kubeconfig(peer.url, authority.certificate_pem)
        run = alpha_node.run(request(token=alpha), "--deadline", "2s")
        assert_refused(run, alpha_node, "does not support TLS 1.2 or newer", "the token was not sent", IS_IT_ONE)
        assert (peer.connections, bytes(peer.received)) == (1, b"")


def test_a_server_that_asks_for_a_client_certificate_and_insists(
    alpha_node: Node, authority: Authority, identity: Identity, alpha: str
) -> None:
    """As a proxy with mutual TLS in front: the refusal comes after the handshake; the token went to a good server."""
    context = server_context(identity, clients=authority)
    context.verify_mode = ssl.CERT_REQUIRED
    with Peer(drain, context=context) as peer:
        alpha_node.write_kubeconfig(peer.url, authority.certificate_pem)
        run = alpha_node.run(request(token=alpha), "--deadline", "2s")
        assert_refused(run, alpha_node, f"TLS with the API server {peer.url} failed", IS_IT_ONE)
        for part in alpha.split("."):
            assert part not in run.stderr


# -- trusted ----------------------------------------------------------------------------------------------------------


def assert_served(node: Node, server: ApiServer, token: str, *flags: str) -> None:
    run = node.run(request(token=token), "--deadline", "5s", *flags)
    assert (run.status, run.stderr) == (0, ""), run.stderr
    assert run.entry["OUTCOME"] == "auth-file-written"
    assert server.tokens_seen == 1


def test_an_ip_address_in_the_certificate(
    alpha_node: Node, authority: Authority, cluster: ApiServer, alpha: str
) -> None:
    """kubeadm's kubeconfigs often name the API server by IP."""
    alpha_node.write_kubeconfig(cluster.url, authority.certificate_pem)
    assert_served(alpha_node, cluster, alpha)


def test_a_name(alpha_node: Node, authority: Authority, cluster: ApiServer, alpha: str) -> None:
    alpha_node.write_kubeconfig(f"https://localhost:{cluster.port}", authority.certificate_pem)
    assert_served(alpha_node, cluster, alpha)


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on the loopback")
@pytest.mark.parametrize("address", ["[::1]", "[0:0:0:0:0:0:0:1]"])
def test_an_ipv6_address(alpha_node: Node, authority: Authority, identity: Identity, alpha: str, address: str) -> None:
    with Peer(say(ANSWER), context=server_context(identity), address="::1") as peer:
        alpha_node.write_kubeconfig(f"https://{address}:{peer.port}", authority.certificate_pem)
        run = alpha_node.run(request(token=alpha), "--deadline", "5s")
        assert (run.status, run.stderr) == (0, ""), run.stderr
        assert f"Host: {address}:{peer.port}".encode() in peer.received


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on the loopback")
def test_a_wrong_ipv6_address(alpha_node: Node, authority: Authority, alpha: str) -> None:
    identity = authority.issue("kube-apiserver", ip_addresses=["2001:db8::1"])
    with Peer(drain, context=server_context(identity), address="::1") as peer:
        alpha_node.write_kubeconfig(f"https://[::1]:{peer.port}", authority.certificate_pem)
        run = alpha_node.run(request(token=alpha), "--deadline", "2s")
        assert_refused(run, alpha_node, "is not for the address '::1'")
        assert bytes(peer.received) == b""


def test_tls_server_name(alpha_node: Node, authority: Authority, alpha: str) -> None:
    """As behind a load balancer whose address is in no certificate."""
    identity = authority.issue("kube-apiserver", dns_names=["kubernetes.default.svc"])
    with Peer(say(ANSWER), context=server_context(identity)) as peer:
        alpha_node.write_kubeconfig(
            peer.url, authority.certificate_pem, **{"tls-server-name": "kubernetes.default.svc"}
        )
        run = alpha_node.run(request(token=alpha), "--deadline", "5s")
        assert (run.status, run.stderr) == (0, ""), run.stderr
        assert peer.established == 1


@pytest.mark.parametrize("end", ["", "/"])
@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
def test_an_api_server_below_a_path_is_asked_there(
    alpha_node: Node, cluster: ApiServer, alpha: str, scheme: str, end: str
) -> None:
    """Rancher's proxy: https://rancher.example/k8s/clusters/c-1."""
    cluster.prefix = "/k8s/clusters/c-1"
    server = f"{scheme}{cluster.url.removeprefix('https')}{end}"
    alpha_node.write_kubeconfig(server, cluster.authority.certificate_pem)
    assert_served(alpha_node, cluster, alpha)
    cluster.tokens_seen = 0
    ca = alpha_node.write("ca.pem", cluster.authority.certificate_pem)
    assert_served(alpha_node, cluster, alpha, "--apiserver", server, "--certificate-authority", str(ca))


def test_a_server_without_a_scheme_is_asked_by_tls(alpha_node: Node, cluster: ApiServer, alpha: str) -> None:
    alpha_node.write_kubeconfig(cluster.url.removeprefix("https://"), cluster.authority.certificate_pem)
    assert_served(alpha_node, cluster, alpha)


def test_a_wrong_tls_server_name(alpha_node: Node, authority: Authority, identity: Identity, alpha: str) -> None:
    with Peer(drain, context=server_context(identity)) as peer:
        alpha_node.write_kubeconfig(peer.url, authority.certificate_pem, **{"tls-server-name": "other.example"})
        run = alpha_node.run(request(token=alpha), "--deadline", "2s")
        assert_refused(run, alpha_node, "is not for the name 'other.example'")
        assert bytes(peer.received) == b""


def test_a_bundle_of_authorities(alpha_node: Node, authority: Authority, cluster: ApiServer, alpha: str) -> None:
    """As while a CA is being rotated."""
    bundle = Authority.make("old").certificate_pem + authority.certificate_pem
    alpha_node.write_kubeconfig(cluster.url, bundle)
    assert_served(alpha_node, cluster, alpha)


def test_the_flag_goes_before_the_kubeconfig_s_ca(
    alpha_node: Node, authority: Authority, cluster: ApiServer, alpha: str
) -> None:
    alpha_node.write_kubeconfig(cluster.url, Authority.make("kubernetes").certificate_pem)
    good = alpha_node.write("good.pem", authority.certificate_pem)
    assert_served(alpha_node, cluster, alpha, "--certificate-authority", str(good))


def test_an_insecure_skip_tls_verify_in_the_kubeconfig_does_not_count(
    alpha_node: Node, identity: Identity, alpha: str
) -> None:
    """It is the kubelet's affair; here it takes a flag of our own."""
    with Peer(drain, context=server_context(identity)) as peer:
        alpha_node.write_kubeconfig(peer.url, **{"insecure-skip-tls-verify": "true"})
        run = alpha_node.run(request(token=alpha), "--deadline", "2s")
        told = f"insecure-skip-tls-verify in {alpha_node.kubeconfig} is ignored"
        assert_refused(run, alpha_node, "cannot be trusted", "give the cluster's CA", told)
        assert bytes(peer.received) == b""


def test_insecure_skip_tls_verify_is_loud(alpha_node: Node, cluster: ApiServer, alpha: str) -> None:
    alpha_node.write_kubeconfig(cluster.url, Authority.make("other").certificate_pem)
    run = alpha_node.run(request(token=alpha), "--insecure-skip-tls-verify")
    assert (run.status, run.stderr) == (0, "")
    warnings = [entry["MESSAGE"] for entry in run.entries if entry["PRIORITY"] == "4"]
    assert any("--insecure-skip-tls-verify" in message for message in warnings)


# -- CA files that will not do ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ("ca.pem", "No such file or directory", "kubelet.conf", "--certificate-authority")),
        (b"", ("ca.pem", "no PEM certificate")),
        (b"nonsense\n", ("ca.pem", "no PEM certificate")),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", ("ca.pem", "no PEM certificate")),
    ],
)
def test_a_ca_file_that_will_not_do(
    alpha_node: Node, cluster: ApiServer, alpha: str, content: bytes | None, words: tuple[str, ...]
) -> None:
    alpha_node.write_kubeconfig(cluster.url, **{"certificate-authority": "/etc/kubernetes/ca.pem"})
    if content is not None:
        alpha_node.write("etc/kubernetes/ca.pem", content)
    run = alpha_node.run(request(token=alpha))
    assert (run.status, run.stdout, run.stderr.count("\n")) == (1, b"", 1)
    for word in words:
        assert word in run.stderr, run.stderr
    assert run.entry["OUTCOME"] == "fault-config"
    assert cluster.requests == []


def test_ca_data_that_is_no_certificate(alpha_node: Node, cluster: ApiServer, alpha: str) -> None:
    alpha_node.write_kubeconfig(cluster.url, "no certificate\n")
    run = alpha_node.run(request(token=alpha))
    assert (run.status, run.entry["OUTCOME"]) == (1, "fault-config")
    assert "certificate-authority-data" in run.stderr and "no PEM certificate" in run.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_ca_file_that_may_not_be_read(alpha_node: Node, cluster: ApiServer, alpha: str) -> None:
    alpha_node.write_kubeconfig(cluster.url, **{"certificate-authority": "/etc/kubernetes/ca.pem"})
    alpha_node.write("etc/kubernetes/ca.pem", "").chmod(0)
    run = alpha_node.run(request(token=alpha))
    assert "Permission denied" in run.stderr
