"""Numbers of 5,000 digits, wherever somebody outside may write one: told in a short line, and no bug of ours.

Python makes no int of more than 4,300 digits out of text, and says so in words about its own settings.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from commandline import typed
from conftest import NodeMaker
from crio_credential_provider import settings
from crio_credential_provider.errors import ConfigError, ProviderError, UsageError, shorten
from crio_credential_provider.manifests.merge import merge
from crio_credential_provider.manifests.providerconfig import Wanted
from crio_credential_provider.node.kubelet import parse_version
from crio_credential_provider.registryclient import probe_manifest
from crio_credential_provider.runtimes.crio import registries
from crio_credential_provider.testbed.certificates import Authority, Identity
from crio_credential_provider.testbed.cluster import ApiServer
from node import COMMAND, Node, Run, bound_claims, jwt, kubeconfig_yaml, request
from servers import replaying

pytestmark = pytest.mark.process

# Beyond Python's limit, within it and beyond a float, and just too large for what is meant.
NUMBERS = {"5,000 digits": "9" * 5000, "4,000 digits": "9" * 4000, "20 digits": "9" * 20}
KUBECONFIG, ENVIRONMENT_FILE = "etc/kubernetes/kubelet.conf", "etc/kubernetes/apiserver-url.env"


def assert_short(text: str) -> None:
    assert "Exceeds the limit" not in text and "internal error" not in text and "Traceback" not in text
    assert not re.search(r"\d{320}", text), text
    assert len(text) < 1200, text


def assert_told(run: Run, status: int = 1) -> None:
    assert run.status == status, run
    assert run.stderr.count("\n") == (status != 0)
    assert_short(run.stderr)
    assert_short("".join(entry.get("MESSAGE", "") for entry in run.entries))


@pytest.fixture
def quick(make_node: NodeMaker) -> Node:
    node = make_node(*COMMAND)
    node.write_mirrors("docker.io", "mirror.corp:5000/hub")
    return node


TOKEN = jwt(bound_claims())


@pytest.mark.parametrize("digits", NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("flag", ["max-answer-size", "deadline", "hand-off-timeout", "stale-after", "log-level"])
def test_a_flag(quick: Node, flag: str, digits: str) -> None:
    assert_told(quick.run(request(token=TOKEN), f"--{flag}={digits}"), status=2)


@pytest.mark.parametrize("digits", NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("host", ["apiserver.example", "10.0.0.1", "[fd00::1]"])
def test_the_port_of_the_api_server(quick: Node, host: str, digits: str) -> None:
    assert_told(quick.run(request(token=TOKEN), f"--apiserver=https://{host}:{digits}"))
    quick.write(ENVIRONMENT_FILE, f"KUBERNETES_SERVICE_HOST={host}\nKUBERNETES_SERVICE_PORT={digits}\n")
    assert_told(quick.run(request(token=TOKEN)))
    quick.write(KUBECONFIG, kubeconfig_yaml({"server": f"https://{host}:{digits}"}))
    assert_told(quick.run(request(token=TOKEN)))


def test_a_number_elsewhere_in_the_kubeconfig_is_nobody_s_business(quick: Node, cluster: ApiServer, alpha: str) -> None:
    path = quick.write_kubeconfig(cluster.url, cluster.authority.certificate_pem)
    path.write_text(f"{path.read_text()}generation: {NUMBERS['5,000 digits']}\n")
    assert quick.run(request(token=alpha)).entry["OUTCOME"] == "auth-file-written"


@pytest.mark.parametrize("digits", NUMBERS.values(), ids=NUMBERS)
def test_the_kubelet_s_request(quick: Node, digits: str) -> None:
    run = quick.run(request(token=TOKEN).replace(b"{", b'{"generation":%s,' % digits.encode(), 1), "--apiserver=x")
    assert_told(run)
    # Through the image, which has a port as well.
    run = quick.run(request(f"registry.corp:{digits}/app", TOKEN))
    # One of 20 digits is within the grammar, and in no table.
    assert_told(run, status=1 if len(digits) > 255 else 0)


@pytest.mark.parametrize("digits", [*NUMBERS.values(), "1e5000", "-1e5000"], ids=[*NUMBERS, "infinite", "before"])
def test_the_claims_of_the_token(quick: Node, cluster: ApiServer, digits: str) -> None:
    claims = json.dumps({**bound_claims(), "exp": "@"}).replace('"@"', digits)
    head, _, signature = TOKEN.split(".")
    middle = base64.urlsafe_b64encode(claims.encode()).decode().rstrip("=")
    quick.write_kubeconfig(cluster.url, cluster.authority.certificate_pem)
    assert_told(quick.run(request(token=f"{head}.{middle}.{signature}"), "--deadline=1s"))


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
BODY = b'{"kind":"SecretList","items":[]}'
ANSWERS: dict[str, Callable[[bytes], bytes]] = {
    "Content-Length": lambda n: HEAD + b"Content-Length: " + n + b"\r\n\r\n" + BODY,
    "size of a chunk": lambda n: HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + n + b"\r\n" + BODY + b"\r\n0\r\n\r\n",
    "status": lambda n: HEAD.replace(b"200", n) + b"Content-Length: 0\r\n\r\n",
    "Retry-After": lambda n: (
        HEAD.replace(b"200", b"503") + b"Retry-After: " + n + b"\r\nContent-Length: " + b"%d\r\n\r\n" % len(BODY) + BODY
    ),
    "a member": lambda n: HEAD + b"Content-Length: %d\r\n\r\n" % (len(n) + 9) + b'{"kind":' + n + b"}",
    "Date": lambda n: HEAD + b"Date: Mon, 01 Jan " + n + b" 00:00:00 GMT\r\nContent-Length: 2\r\n\r\n[]",
}


@pytest.mark.parametrize("digits", NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("name", ANSWERS)
def test_the_api_server_s_answer(quick: Node, authority: Authority, identity: Identity, name: str, digits: str) -> None:
    with replaying(lambda _: ANSWERS[name](digits.encode()), identity) as server:
        quick.write_kubeconfig(f"https://127.0.0.1:{server.port}", authority.certificate_pem)
        assert_told(quick.run(request(token=TOKEN), "--deadline=1s"))


@pytest.mark.parametrize("digits", NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("name", ANSWERS)
def test_a_registry_s_answer(
    tmp_path: Path, authority: Authority, identity: Identity, monkeypatch: pytest.MonkeyPatch, name: str, digits: str
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    certificates = tmp_path / "etc/containers/certs.d"
    with replaying(lambda _: ANSWERS[name](digits.encode()), identity) as server:
        trusted = certificates / f"127.0.0.1:{server.port}"
        trusted.mkdir(parents=True)
        (trusted / "ca.crt").write_text(authority.certificate_pem)
        host = f"127.0.0.1:{server.port}"
        verdict = probe_manifest(host, "library/nginx", "latest", None, root=str(tmp_path), deadline=3.0)
    assert_short(verdict.evidence + verdict.remedy)


@pytest.mark.parametrize("digits", NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("challenge", ['Bearer realm="https://auth.corp:{}/token"', 'Bearer realm="https://{}/token"'])
def test_the_realm_of_a_registry(identity: Identity, tmp_path: Path, challenge: str, digits: str) -> None:
    head = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nWWW-Authenticate: {}\r\n\r\n"
    with replaying(lambda _: head.format(challenge.format(digits)).encode(), identity) as server:
        host = f"127.0.0.1:{server.port}"
        verdict = probe_manifest(host, "library/nginx", "latest", None, root=str(tmp_path), deadline=3.0, insecure=True)
    assert_short(verdict.evidence + verdict.remedy)


@pytest.mark.parametrize("digits", NUMBERS.values(), ids=NUMBERS)
def test_the_port_of_a_mirror(tmp_path: Path, digits: str) -> None:
    verdict = probe_manifest(f"mirror.corp:{digits}", "library/nginx", "latest", None, root=str(tmp_path))
    assert_short(verdict.evidence + verdict.remedy)


@pytest.mark.parametrize("digits", [*NUMBERS.values(), f"0x{'f' * 5000}"], ids=[*NUMBERS, "in hex"])
@pytest.mark.parametrize("text", ["generation = {}", "[[registry]]\nlocation = 'a.example'\ninsecure = {}"])
def test_registries_conf(tmp_path: Path, text: str, digits: str) -> None:
    path = tmp_path / "registries.conf"
    path.write_text(text.format(digits))
    with pytest.raises(ConfigError) as caught:
        registries.load(registries.search_files(str(path), str(tmp_path / "none"), ""), None)
    assert "out of the 64-bit range" in str(caught.value)
    assert_short(str(caught.value))


FORMS = {**NUMBERS, "hex": "0x" + "f" * 5000, "base 60": "1:" * 3000 + "1"}


@pytest.mark.parametrize("digits", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("key", ["defaultCacheDuration", "name", "apiVersion", "generation"])
def test_a_credential_provider_config(tmp_path: Path, key: str, digits: str) -> None:
    text = f"kind: CredentialProviderConfig\napiVersion: kubelet.config.k8s.io/v1\nproviders:\n- {key}: {digits}\n"
    (tmp_path / "config.yaml").write_text(text)
    try:
        merge(text, Wanted((1, 34), ("docker.io",)))
    except ProviderError as error:
        assert_short(str(error))
    done = typed("doctor", "--config", str(tmp_path / "config.yaml"))
    assert done.status == 3
    assert "Traceback" not in done.err and "Exceeds" not in done.out + done.err
    assert not re.search(r"\d{320}", done.out + done.err)


def test_a_version() -> None:
    for digits in NUMBERS.values():
        assert parse_version(f"v{digits}.34.1", "x") is None
        assert parse_version(f"v1.{digits}", "x") is None


def test_only_long_words_are_cut() -> None:
    assert shorten("a " * 500) == "a " * 500
    assert shorten("x" * 320) == "x" * 320
    assert shorten(f"the port {'9' * 5000}, which is none") == f"the port {'9' * 80}... (5001 characters) which is none"


def test_the_hint_is_kept_where_the_message_is_cut() -> None:
    with pytest.raises(UsageError, match=r"a number of MiB from 1 to 4096$"):
        settings.loads([f"--max-answer-size={'9' * 5000}"], {})
