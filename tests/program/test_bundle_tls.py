"""The bundle's OpenSSL, which has not every algorithm: it shakes hands with whatever the public modules do."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundles import ENTRY, unpack
from conftest import NodeMaker
from node import Node, request
from real_programs import need

pytestmark = pytest.mark.usefixtures("openssl")

KEYS = {
    "RSA 2048": ["-newkey", "rsa:2048"],
    "RSA 4096": ["-newkey", "rsa:4096"],
    "RSA-PSS": ["-newkey", "rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048"],
    "P-256": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "P-384": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
    "P-521": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"],
    "Ed25519": ["-newkey", "ed25519"],
    "Ed448": ["-newkey", "ed448"],
}
TAKEN = [
    *((key, version) for key in KEYS for version in ("-tls1_2", "-tls1_3")),
    ("RSA 2048", "-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256"),
    ("RSA 2048", "-tls1_2 -cipher ECDHE-RSA-AES256-GCM-SHA384"),
    ("RSA 2048", "-tls1_2 -cipher ECDHE-RSA-CHACHA20-POLY1305"),
    ("RSA 2048", "-tls1_2 -cipher ECDHE-RSA-AES256-SHA384"),
    ("RSA 2048", "-tls1_2 -cipher DHE-RSA-AES256-GCM-SHA384"),
    ("P-256", "-tls1_3 -ciphersuites TLS_AES_128_GCM_SHA256"),
    ("P-256", "-tls1_3 -ciphersuites TLS_AES_256_GCM_SHA384"),
    ("P-256", "-tls1_3 -ciphersuites TLS_CHACHA20_POLY1305_SHA256"),
    *(("P-256", f"-tls1_3 -groups {group}") for group in ("X25519", "X448", "P-256", "P-384", "P-521", "ffdhe2048")),
]
REFUSED = [
    ("RSA 2048", "-tls1_2 -cipher AES128-GCM-SHA256"),
    ("RSA 2048", "-tls1_2 -cipher ECDHE-RSA-AES128-SHA"),
    ("RSA 2048", "-tls1_2 -cipher ECDHE-RSA-CAMELLIA256-SHA384"),
    ("RSA 2048", "-tls1_2 -cipher ECDHE-ARIA256-GCM-SHA384"),
    ("P-256", "-tls1_3 -ciphersuites TLS_AES_128_CCM_SHA256"),
    ("RSA 2048", "-tls1_1 -cipher ALL:@SECLEVEL=0"),
]
# Debian's Python has OpenSSL's default suites, others have a shorter list of their own.
SUITES = {suite["name"] for suite in ssl.create_default_context().get_ciphers()}


@pytest.fixture(scope="module")
def openssl() -> str:
    (program,) = need("openssl")
    return program


@pytest.fixture(scope="module")
def entry(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(unpack(archive, tmp_path_factory.mktemp("bundle")) / ENTRY)


def make_certificate(directory: Path, key: str) -> None:
    """A certificate that is its own authority, as key.pem and certificate.pem."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-days", "1", "-subj", "/CN=api", *KEYS[key]),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:TRUE"),
            *("-keyout", str(directory / "key.pem"), "-out", str(directory / "certificate.pem")),
        ],
        check=True,
        capture_output=True,
    )


@contextlib.contextmanager
def serving(directory: Path, *flags: str) -> Iterator[str]:
    """The URL of OpenSSL's own server, which answers every request with a page about the connection."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    command = ["openssl", "s_server", "-www", "-accept", f"127.0.0.1:{port}", *flags]
    command += ["-cert", str(directory / "certificate.pem"), "-key", str(directory / "key.pem")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 20
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    assert server.poll() is None and time.monotonic() < deadline, "openssl s_server does not run"
                    time.sleep(0.02)
            yield f"https://127.0.0.1:{port}"
        finally:
            server.kill()


def complaint(node: Node, url: str, authority: Path, token: str, *flags: str) -> str:
    """What a run says to a server that is no API server."""
    node.write_mirrors("docker.io", "mirror.corp:5000/hub")
    node.write_kubeconfig(url, authority.read_text())
    run = node.run(request(token=token), *flags)
    assert run.status == 1
    return run.stderr.replace(str(node.root), "")


SHAKEN_HANDS = "answered with something that is not a JSON object"


@pytest.mark.parametrize(("key", "flags"), [*TAKEN, *REFUSED])
def test_the_same_handshakes(
    make_node: NodeMaker, plugin: Path, entry: str, alpha: str, tmp_path: Path, key: str, flags: str
) -> None:
    make_certificate(tmp_path, key)
    with serving(tmp_path, *flags.split()) as url:
        public, bundled = (
            complaint(make_node(program), url, tmp_path / "certificate.pem", alpha) for program in (str(plugin), entry)
        )
    assert bundled == public
    assert (SHAKEN_HANDS in bundled) is ((key, flags) in TAKEN or flags.rpartition(" ")[2] in SUITES), bundled


def test_a_chain_below_any_key(make_node: NodeMaker, plugin: Path, entry: str, alpha: str, tmp_path: Path) -> None:
    """DSA signs, so that a decoder for it has to be there: whether it is good enough is OpenSSL's to say."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=tmp_path)

    openssl("dsaparam", "-genkey", "-out", "authority-key.pem", "2048")
    openssl(
        "req", "-x509", "-key", "authority-key.pem", "-subj", "/CN=authority", "-days", "1", "-out", "authority.pem"
    )
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-subj", "/CN=api", "-out", "request.pem")
    (tmp_path / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    signed_by = ("-CA", "authority.pem", "-CAkey", "authority-key.pem", "-CAcreateserial", "-extfile", "names")
    openssl("x509", "-req", "-in", "request.pem", *signed_by, "-days", "1", "-out", "certificate.pem")
    with serving(tmp_path, "-tls1_3") as url:
        public, bundled = (
            complaint(make_node(program), url, tmp_path / "authority.pem", alpha) for program in (str(plugin), entry)
        )
    assert bundled == public
    assert SHAKEN_HANDS in bundled


CLIENT_KEYS = [*((key, "") for key in KEYS), *((key, "-traditional") for key in ("RSA 2048", "P-256", "P-521"))]


@pytest.mark.parametrize(("key", "form"), CLIENT_KEYS)
def test_the_same_client_keys(
    make_node: NodeMaker, plugin: Path, entry: str, alpha: str, tmp_path: Path, key: str, form: str
) -> None:
    make_certificate(tmp_path, key)
    certificate, pem = tmp_path / "certificate.pem", tmp_path / "client-key.pem"
    convert = ["openssl", "pkey", *form.split(), "-in", str(tmp_path / "key.pem"), "-out", str(pem)]
    subprocess.run(convert, check=True, capture_output=True)
    with serving(tmp_path, "-Verify", "1", "-CAfile", str(certificate)) as url:
        for program in (str(plugin), entry):
            node = make_node(program)
            node.write("var/lib/kubelet/pki/kubelet-client-current.pem", certificate.read_text() + pem.read_text())
            told = complaint(node, url, certificate, alpha, "--secrets-from", "pod")
            assert SHAKEN_HANDS in told, told
