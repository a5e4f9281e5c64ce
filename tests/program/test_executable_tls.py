"""The executable's OpenSSL, which does not have every algorithm: it gives the verdicts of the public modules.

Those of certificates that are expired or have another name: tests/kubernetes/test_tls.py, which runs on it as well.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import NodeMaker
from node import SOURCES, Node, request
from real_programs import need

pytestmark = pytest.mark.process

KEYS = {
    "RSA 2048": ["-newkey", "rsa:2048"],
    "RSA 3072": ["-newkey", "rsa:3072"],
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
# In OpenSSL's own list of suites, which the executable has as Debian's Python has it; not in upstream Python's list.
IN_OPENSSLS_LIST = [
    ("RSA 2048", "-tls1_2 -cipher AES128-GCM-SHA256"),
    ("RSA 2048", "-tls1_2 -cipher ECDHE-RSA-AES128-SHA"),
]
REFUSED = [
    ("RSA 2048", "-tls1_2 -cipher ECDHE-RSA-CAMELLIA256-SHA384"),
    ("RSA 2048", "-tls1_2 -cipher ECDHE-ARIA256-GCM-SHA384"),
    ("P-256", "-tls1_3 -ciphersuites TLS_AES_128_CCM_SHA256"),
    ("RSA 2048", "-tls1_1 -cipher ALL:@SECLEVEL=0"),
]
SUITES_OF_THIS_PYTHON = {suite["name"] for suite in ssl.create_default_context().get_ciphers()}


@pytest.fixture
def pair(make_node: NodeMaker, executable: Path) -> list[Node]:
    """A node that runs the program on this Python and its ssl, and one that runs the executable."""
    public, ours = make_node(sys.executable, "-m", "crio_credential_provider"), make_node(str(executable))
    public.environment["PYTHONPATH"] = str(SOURCES)
    return [public, ours]


def openssl(directory: Path, *arguments: str) -> None:
    (program,) = need("openssl")
    done = subprocess.run([program, *arguments], check=False, capture_output=True, text=True, cwd=directory)
    assert done.returncode == 0, done.stderr


def make_certificate(directory: Path, key: str) -> None:
    """A certificate that is its own authority, as key.pem and certificate.pem."""
    extensions = ("-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:TRUE")
    files = ("-keyout", "key.pem", "-out", "certificate.pem")
    openssl(directory, "req", "-x509", "-nodes", "-days", "1", "-subj", "/CN=api", *KEYS[key], *extensions, *files)


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


@pytest.mark.parametrize(("key", "flags"), [*TAKEN, *IN_OPENSSLS_LIST, *REFUSED])
def test_the_same_handshakes(pair: list[Node], alpha: str, tmp_path: Path, key: str, flags: str) -> None:
    make_certificate(tmp_path, key)
    with serving(tmp_path, *flags.split()) as url:
        public, ours = (complaint(node, url, tmp_path / "certificate.pem", alpha) for node in pair)
    assert (SHAKEN_HANDS in ours) is ((key, flags) not in REFUSED), ours
    if (key, flags) in IN_OPENSSLS_LIST and flags.rpartition(" ")[2] not in SUITES_OF_THIS_PYTHON:
        assert SHAKEN_HANDS not in public, public
    else:
        assert ours == public


def issue(directory: Path, name: str, key: list[str], extension: str, *signer: str) -> None:
    """A certificate NAME.pem with the key NAME-key.pem, signed by whoever `signer` tells."""
    private = f"{name}-key.pem"
    openssl(directory, "req", "-nodes", "-subj", f"/CN={name}", *key, "-keyout", private, "-out", "request.pem")
    (directory / "extensions").write_text(f"{extension}\n")
    how = ("-req", "-in", "request.pem", "-extfile", "extensions", "-days", "1", "-out", f"{name}.pem")
    openssl(directory, "x509", *how, *signer)


@pytest.mark.parametrize("digest", ["sha256", "sha512", "sha1"])
@pytest.mark.parametrize("chain", ["whole", "without the intermediate"])
@pytest.mark.parametrize("key", ["RSA 4096", "RSA-PSS", "P-384", "Ed25519"])
def test_the_same_chains(pair: list[Node], alpha: str, tmp_path: Path, key: str, chain: str, digest: str) -> None:
    """An authority with that key, which signs with that digest; an intermediate, and a server's certificate."""
    how = () if key == "Ed25519" else (f"-{digest}",)
    issue(tmp_path, "authority", KEYS[key], "basicConstraints=critical,CA:TRUE", "-signkey", "authority-key.pem", *how)
    for name, issuer, extension in (
        ("intermediate", "authority", "basicConstraints=critical,CA:TRUE"),
        ("certificate", "intermediate", "subjectAltName=IP:127.0.0.1"),
    ):
        signer = ("-CA", f"{issuer}.pem", "-CAkey", f"{issuer}-key.pem", "-CAcreateserial")
        issue(tmp_path, name, KEYS[key], extension, *signer, *how)
    (tmp_path / "certificate-key.pem").rename(tmp_path / "key.pem")
    # A server that shows what a client is to refuse.
    flags = ["-cipher", "ALL:@SECLEVEL=0"]
    if chain == "whole":
        flags += ["-cert_chain", str(tmp_path / "intermediate.pem")]
    with serving(tmp_path, *flags) as url:
        public, ours = (complaint(node, url, tmp_path / "authority.pem", alpha) for node in pair)
    assert ours == public
    assert (SHAKEN_HANDS in ours) is (chain == "whole" and (digest != "sha1" or key == "Ed25519")), ours


CLIENT_KEYS = [*((key, "") for key in KEYS), *((key, "-traditional") for key in ("RSA 2048", "P-256", "P-521"))]


@pytest.mark.parametrize(("key", "form"), CLIENT_KEYS)
def test_the_same_client_keys(pair: list[Node], alpha: str, tmp_path: Path, key: str, form: str) -> None:
    make_certificate(tmp_path, key)
    certificate, pem = tmp_path / "certificate.pem", tmp_path / "client-key.pem"
    openssl(tmp_path, "pkey", *form.split(), "-in", "key.pem", "-out", str(pem))
    with serving(tmp_path, "-Verify", "1", "-CAfile", str(certificate)) as url:
        for node in pair:
            node.write("var/lib/kubelet/pki/kubelet-client-current.pem", certificate.read_text() + pem.read_text())
            told = complaint(node, url, certificate, alpha, "--secrets-from", "pod")
            assert SHAKEN_HANDS in told, told
