"""Where the API server is: the order of the places, kubeconfigs in their spellings, and broken ones."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from crio_credential_provider import settings
from crio_credential_provider.errors import ConfigError
from crio_credential_provider.kubernetes.endpoint import Endpoint, find_endpoint
from crio_credential_provider.testbed.certificates import Authority
from node import SOURCES, kubeconfig_yaml

PEM = Authority.make("kubernetes").certificate_pem


class Root:
    """Files below a root, and what is found in them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, path: str, content: str | bytes) -> str:
        file = self.path / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(file)

    def find(self, *flags: str) -> Endpoint:
        return find_endpoint(settings.loads(["--root", str(self.path), *flags], {}))


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path)


def kubeconfig(server: str, **cluster: str) -> str:
    return kubeconfig_yaml({"server": server, **cluster})


# -- the order --------------------------------------------------------------------------------------------------------

KUBELET_CONF = "/etc/kubernetes/kubelet.conf"
ENVIRONMENT_FILE = "/etc/kubernetes/apiserver-url.env"
K3S = "/var/lib/rancher/k3s/agent/kubelet.kubeconfig"
RKE2 = "/var/lib/rancher/rke2/agent/kubelet.kubeconfig"


def test_the_places_in_their_order(root: Root) -> None:
    """Each is written before the one that goes before it."""
    found = root.find()
    assert (found.host, found.port, found.server_name) == ("localhost", 6443, "localhost")
    assert found.origin.startswith("the default, as no kubeconfig and no apiserver-url.env was found")

    root.write(ENVIRONMENT_FILE, "KUBERNETES_SERVICE_HOST=env.example\nKUBERNETES_SERVICE_PORT=1\n")
    assert root.find().url == "https://env.example:1"
    for number, path in enumerate((RKE2, K3S, KUBELET_CONF, "/var/lib/kubelet/kubeconfig")):
        written = root.write(path, kubeconfig(f"https://host{number}.example:6443"))
        found = root.find()
        assert (found.url, found.origin) == (f"https://host{number}.example:6443", written)
    named = root.write("named.yaml", kubeconfig("https://named.example"))
    assert root.find("--kubeconfig", named).url == "https://named.example:443"
    found = root.find("--kubeconfig", named, "--apiserver", "https://given.example:8443")
    assert (found.url, found.origin) == ("https://given.example:8443", "--apiserver")


def test_a_named_kubeconfig_that_is_missing_is_a_fault(root: Root) -> None:
    """Falling back to another cluster would send the token there."""
    root.write(KUBELET_CONF, kubeconfig("https://host.example"))
    with pytest.raises(ConfigError, match=r"cannot read /nowhere: No such file or directory"):
        root.find("--kubeconfig", "/nowhere")


@pytest.mark.parametrize("path", ["/etc/kubernetes/pki/ca.crt", "/etc/kubernetes/ca.crt"])
def test_without_a_kubeconfig_the_usual_ca_is_taken(root: Root, path: str) -> None:
    assert root.find().ca_file == ""
    written = root.write(path, PEM)
    assert root.find().ca_file == written
    root.write(ENVIRONMENT_FILE, "KUBERNETES_SERVICE_HOST=env.example\n")
    assert (root.find().ca_file, root.find().port) == (written, 443)
    assert root.find("--apiserver", "https://a.example").ca_file == written
    assert root.find("--certificate-authority", "/given.pem").ca_file == "/given.pem"


def test_a_kubeconfig_s_ca_is_not_filled_up_from_the_usual_places(root: Root) -> None:
    """It would trust a CA that the kubelet does not trust."""
    root.write("/etc/kubernetes/ca.crt", PEM)
    root.write(KUBELET_CONF, kubeconfig("https://host.example"))
    assert (root.find().ca_file, root.find().ca_data) == ("", "")


# -- the kubelet that started this process ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("spelling", ["--kubeconfig={}", "--kubeconfig {}", "-kubeconfig={}"])
def test_the_kubeconfig_of_the_kubelet_that_runs(tmp_path: Path, spelling: str) -> None:
    """A process named kubelet, whose arguments name the file, runs the program."""
    named = tmp_path / "elsewhere.conf"
    named.write_text(kubeconfig("https://127.0.0.1:1"))
    (tmp_path / "registries.conf").write_text(
        '[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "mirror.corp"\n'
    )
    shell = shutil.which("sh")
    assert shell
    command = (
        f"{os.environ.get('PYTHON', 'python3')} -c "
        '"from crio_credential_provider.kubernetes import endpoint; print(endpoint._kubeconfig_of_parent())"; true'
    )
    arguments = ["kubelet", "-c", command, "kubelet", *spelling.format(named).split()]
    done = subprocess.run(
        arguments, executable=shell, env={**os.environ, "PYTHONPATH": str(SOURCES)}, capture_output=True, text=True
    )
    assert (done.stdout.strip(), done.stderr) == (str(named), "")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kubelet-wrapper", "sh", "not-kubelet"])
def test_only_a_kubelet_is_believed(tmp_path: Path, name: str) -> None:
    shell = shutil.which("sh")
    assert shell
    code = "from crio_credential_provider.kubernetes import endpoint; print(endpoint._kubeconfig_of_parent())"
    command = f'python3 -c "{code}"; true'
    done = subprocess.run(
        [name, "-c", command, name, "--kubeconfig=/x"],
        executable=shell,
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
    )
    assert (done.stdout.strip(), done.stderr) == ("", "")


# -- apiserver-url.env ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("KUBERNETES_SERVICE_HOST=a.example\nKUBERNETES_SERVICE_PORT=6443\n", "https://a.example:6443"),
        ("KUBERNETES_SERVICE_PORT='6443'\nKUBERNETES_SERVICE_HOST='a.example'", "https://a.example:6443"),
        ('export KUBERNETES_SERVICE_HOST="a.example"\r\n', "https://a.example:443"),
        ("# KUBERNETES_SERVICE_HOST=b\n KUBERNETES_SERVICE_HOST = a.example \n", "https://a.example:443"),
        ("KUBERNETES_SERVICE_HOST=192.0.2.1\n", "https://192.0.2.1:443"),
        ("KUBERNETES_SERVICE_HOST=2001:db8::1\nKUBERNETES_SERVICE_PORT=6443\n", "https://[2001:db8::1]:6443"),
        ("KUBERNETES_SERVICE_HOST=[2001:db8::1]\n", "https://[2001:db8::1]:443"),
        ("OTHER=x\nKUBERNETES_SERVICE_HOST=a.example\nKUBERNETES_SERVICE_HOST_OLD=b\n", "https://a.example:443"),
    ],
)
def test_the_environment_file(root: Root, text: str, url: str) -> None:
    root.write(ENVIRONMENT_FILE, text)
    assert root.find().url == url


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "has no KUBERNETES_SERVICE_HOST"),
        (b"KUBERNETES_SERVICE_HOST=\n", "has no KUBERNETES_SERVICE_HOST"),
        (b"\xff\xfe\x00", "has no KUBERNETES_SERVICE_HOST"),
        (b"KUBERNETES_SERVICE_HOST=a.example\nKUBERNETES_SERVICE_PORT=many\n", "not https://HOST[:PORT]"),
        (b"KUBERNETES_SERVICE_HOST=user@a.example\n", "not https://HOST[:PORT]"),
    ],
)
def test_an_environment_file_that_names_no_server(root: Root, content: bytes, words: str) -> None:
    path = root.write(ENVIRONMENT_FILE, content)
    with pytest.raises(ConfigError) as caught:
        root.find()
    assert path in caught.value.message and words in caught.value.message


# -- kubeconfigs ------------------------------------------------------------------------------------------------------

CA_DATA = base64.b64encode(PEM.encode()).decode()


def test_all_members_of_a_cluster(root: Root) -> None:
    members = {"certificate-authority-data": CA_DATA, "tls-server-name": "kubernetes"}
    path = root.write(KUBELET_CONF, kubeconfig("https://192.0.2.1:6443", **members))
    assert root.find() == Endpoint("192.0.2.1", 6443, path, ca_data=PEM, server_name="kubernetes")


@pytest.mark.parametrize("name", ["user:canary@x", "canary@x", "https://u:canary@x", "x?canary"])
def test_a_server_name_that_is_none_tells_no_password(root: Root, name: str) -> None:
    root.write(KUBELET_CONF, kubeconfig("https://192.0.2.1", **{"tls-server-name": name, **CA}))
    with pytest.raises(ConfigError) as caught:
        root.find()
    assert "tls-server-name" in caught.value.message and "canary" not in str(caught.value)


def test_a_kubeconfig_in_json(root: Root) -> None:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "b",
        "contexts": [
            {"name": "a", "context": {"cluster": "a", "user": "u"}},
            {"name": "b", "context": {"cluster": "b", "user": "u"}},
        ],
        "clusters": [
            {"name": "a", "cluster": {"server": "https://a.example"}},
            {"name": "b", "cluster": {"server": "https://b.example:6443", "certificate-authority": "ca.pem"}},
        ],
        "users": [{"name": "u", "user": {"token": "secret"}}],
    }
    path = root.write(KUBELET_CONF, json.dumps(document, indent="\t"))
    assert root.find() == Endpoint("b.example", 6443, path, ca_file=str(root.path / "etc/kubernetes/ca.pem"))


def test_a_relative_ca_starts_at_the_kubeconfig(root: Root) -> None:
    root.write(KUBELET_CONF, kubeconfig("https://a.example", **{"certificate-authority": "pki/ca.crt"}))
    assert root.find().ca_file == str(root.path / "etc/kubernetes/pki/ca.crt")


def test_an_absolute_ca_lies_below_the_root(root: Root) -> None:
    root.write(KUBELET_CONF, kubeconfig("https://a.example", **{"certificate-authority": "/pki/ca.crt"}))
    assert root.find().ca_file == str(root.path / "pki/ca.crt")


def test_embedded_data_goes_before_a_file(root: Root) -> None:
    """As client-go has it."""
    members = {"certificate-authority": "/pki/ca.crt", "certificate-authority-data": CA_DATA}
    root.write(KUBELET_CONF, kubeconfig("https://a.example", **members))
    assert (root.find().ca_file, root.find().ca_data) == ("", PEM)


def test_the_flag_goes_before_both(root: Root) -> None:
    members = {"certificate-authority": "/pki/ca.crt", "certificate-authority-data": CA_DATA}
    root.write(KUBELET_CONF, kubeconfig("https://a.example", **members))
    found = root.find("--certificate-authority", "/given.pem")
    assert (found.ca_file, found.ca_data) == ("/given.pem", "")


def test_without_a_current_context_a_list_of_one_will_do(root: Root) -> None:
    text = kubeconfig("https://a.example").replace("current-context: default-context\n", "")
    root.write(KUBELET_CONF, text)
    assert root.find().url == "https://a.example:443"


@pytest.mark.slow
def test_what_is_kept_holds_no_credential_of_the_kubelet(root: Root) -> None:
    text = kubeconfig("https://a.example").replace(
        "  user:\n",
        "  user:\n    token: canary-token\n    client-key-data: Y2FuYXJ5LWtleQ==\n    password: canary-pw\n",
    )
    assert "canary" in text
    root.write(KUBELET_CONF, text)
    # Nothing is kept until the file is two seconds old (parsecache.py).
    deadline = time.monotonic() + 10
    while not list(root.path.glob("run/*/kube*")):
        assert time.monotonic() < deadline
        time.sleep(0.2)
        root.find()
    (kept,) = root.path.glob("run/*/kubeconfig-*")
    content = kept.read_bytes()
    assert b"a.example" in content
    assert b"canary" not in content and b"Y2FuYXJ5" not in content


CA = {"certificate-authority": "/ca.crt"}


@pytest.mark.parametrize(
    ("server", "url"),
    [
        ("https://rancher.example/k8s/clusters/c-1", "https://rancher.example:443/k8s/clusters/c-1"),
        ("https://rancher.example:8443//k8s/clusters/c-1//", "https://rancher.example:8443/k8s/clusters/c-1"),
        ("https://a.example/", "https://a.example:443"),
        ("HTTPS://a.example:6443", "https://a.example:6443"),
        ("Https://[2001:db8::1]:6443/x/", "https://[2001:db8::1]:6443/x"),
        ("a.example:6443", "https://a.example:6443"),
        ("192.0.2.1:6443/", "https://192.0.2.1:6443"),
        ("[2001:db8::1]:6443", "https://[2001:db8::1]:6443"),
        ("localhost:6443", "https://localhost:6443"),
        ("a.example", "https://a.example:443"),
        ("https://a.example/a%2Fb/@c", "https://a.example:443/a%2Fb/@c"),
        ("https://a.example/x/../y/./z", "https://a.example:443/y/z"),
    ],
)
def test_a_server_that_client_go_takes(root: Root, server: str, url: str) -> None:
    root.write(KUBELET_CONF, kubeconfig(f'"{server}"', **CA))
    assert root.find().url == url
    if "://" in server:
        assert root.find("--apiserver", server).url == url


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ("http://a.example:8080", "is plain HTTP"),
        ("HTTP://a.example/x", "name the API server's TLS port with https://"),
        ("https://user:canary@a.example/x", "remove a user name from it"),
        ("https://a.example:1/?token=canary", "'https://a.example:1/?...', which is not"),
        ("https://a.example?token=canary", "'https://a.example?...', which is not"),
        ("https://a.example/x#canary", "'https://a.example/x#...', which is not"),
        ("http://a.example/?token=canary", "which is plain HTTP"),
        ("a.example/x?token=canary#canary", "start it with https://"),
        ("https://a.example/x?y=z", "remove a query from it"),
        ("https://a.example#x", "remove a fragment from it"),
        *((f"https://{host}", "which is not https://HOST") for host in ("[]:6443", "[:::]:1", "[.]:1", "[::1]6443")),
    ],
)
def test_a_server_that_is_refused_is_named_with_its_line(root: Root, server: str, words: str) -> None:
    text = kubeconfig(f'"{server}"', **CA)
    path = root.write(KUBELET_CONF, text)
    line = next(n for n, written in enumerate(text.splitlines(), 1) if server in written)
    with pytest.raises(ConfigError) as caught:
        root.find()
    assert (caught.value.line, caught.value.message.startswith(f"{path}:{line} names")) == (line, True)
    assert words in str(caught.value) and "canary" not in str(caught.value)


@pytest.mark.parametrize("flag", ["--kubeconfig", "--apiserver-env-file"])
def test_what_is_not_a_regular_file_is_not_waited_for(root: Root, tmp_path: Path, flag: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match=r"cannot read .*/fifo: not a regular file"):
        root.find(flag, str(tmp_path / "fifo"))


def test_without_a_current_context_the_contexts_are_named(root: Root) -> None:
    contexts = "- name: a\n  context: {cluster: default-cluster}\n- name: b\n  context: {cluster: default-cluster}\n"
    text = kubeconfig("https://a.example").replace("current-context: default-context\n", "")
    root.write(KUBELET_CONF, text.replace("contexts:\n", f"contexts:\n{contexts}"))
    with pytest.raises(
        ConfigError, match=r"has no current-context; set current-context to one of its contexts: 'a', 'b'"
    ):
        root.find()


BROKEN_KUBECONFIGS: dict[str, tuple[str | bytes, str]] = {
    "no YAML": ("a: [1,\nb: }", "is not valid YAML at line 2"),
    "a tab": ("a:\n\tb: 1\n", "is not valid YAML at line 2"),
    "an object of Python": ("!!python/object/apply:os.system ['true']", "has no context"),
    "no UTF-8": (b"a: \xff\xfe\n", "is not valid YAML"),
    "nothing": ("", "has no context"),
    "a text": ("nonsense", "has no context"),
    "a list": ("[]", "has no context"),
    "no such context": (
        kubeconfig("https://a.example").replace("current-context: default-context", "current-context: other"),
        "has no context 'other'",
    ),
    "no such cluster": (
        kubeconfig("https://a.example").replace("    cluster: default-cluster", "    cluster: other"),
        "has no cluster 'other'",
    ),
    "contexts that are a map": ("contexts: {a: b}\ncurrent-context: a\n", "has no context 'a'"),
    "a cluster of text": (
        "contexts: [{name: a, context: {cluster: a}}]\ncurrent-context: a\nclusters: [{name: a, cluster: x}]\n",
        "has no cluster 'a'",
    ),
    "no server": (kubeconfig(""), "has no server in the cluster"),
    "plain HTTP": (kubeconfig("http://a.example:8080"), "not https://HOST[:PORT]"),
    "HOST:PORT without anything for TLS": (
        kubeconfig("a.example:6443").partition("users:")[0],
        "not https://HOST[:PORT]",
    ),
    "HOST:PORT/PATH": (kubeconfig("a.example:6443/x", **CA), "not https://HOST[:PORT]"),
    "a path with a blank": (kubeconfig('"https://a.example/x y"'), "not https://HOST[:PORT]"),
    "a path with a fragment": (kubeconfig('"https://a.example/x#y"'), "not https://HOST[:PORT]"),
    "a path of other letters": (kubeconfig("https://a.example/\u00fc"), "not https://HOST[:PORT]"),
    "a port of 5,000 digits": (kubeconfig(f"https://a.example:{'9' * 5000}"), "not https://HOST[:PORT]"),
    "a server with a user": (kubeconfig("https://user:canary@a.example"), "not https://HOST[:PORT]"),
    "a server with a query": (kubeconfig("https://a.example?x"), "not https://HOST[:PORT]"),
    "a server with a line break": (kubeconfig('"https://a.example:1\\r\\nX-Y: z"'), "not https://HOST[:PORT]"),
    "a host with a line break": (kubeconfig('"https://a.example\\r\\nX-Y"'), "not https://HOST[:PORT]"),
    "a host with a blank": (kubeconfig('"https://a. example"'), "not https://HOST[:PORT]"),
    "a port of text": (kubeconfig("https://a.example:https"), "not https://HOST[:PORT]"),
    "a port beyond": (kubeconfig("https://a.example:65536"), "not https://HOST[:PORT]"),
    "no port after the colon of an IPv6": (kubeconfig('"https://[::1]x:1"'), "not https://HOST[:PORT]"),
    "a bare IPv6": (kubeconfig('"https://::1:6443"'), "not https://HOST[:PORT]"),
    "CA data of no base64": (
        kubeconfig("https://a.example", **{"certificate-authority-data": "===="}),
        "certificate-authority-data is not base64-encoded PEM",
    ),
    "a CA that is a mapping": (
        kubeconfig("https://a.example", **{"certificate-authority-data": "{a: b}"}),
        "certificate-authority-data is not a string",
    ),
    "a CA of one letter": (
        kubeconfig("https://a.example", **{"certificate-authority-data": "a"}),
        "certificate-authority-data is not base64-encoded PEM",
    ),
    "CA data that is a path": (
        kubeconfig("https://a.example", **{"certificate-authority-data": "/etc/kubernetes/pki/ca.crt"}),
        "certificate-authority-data is not base64-encoded PEM",
    ),
    "CA data that is PEM itself": (
        kubeconfig("https://a.example", **{"certificate-authority-data": PEM.splitlines()[0]}),
        "certificate-authority-data is not base64-encoded PEM",
    ),
    "CA data of no text": (
        kubeconfig("https://a.example", **{"certificate-authority-data": "//79"}),
        "certificate-authority-data is not base64-encoded PEM",
    ),
}


@pytest.mark.parametrize("name", BROKEN_KUBECONFIGS)
def test_a_broken_kubeconfig(root: Root, name: str) -> None:
    content, words = BROKEN_KUBECONFIGS[name]
    path = root.write(KUBELET_CONF, content)
    with pytest.raises(ConfigError) as caught:
        root.find()
    assert caught.value.message.startswith(path) and words in caught.value.message
    assert "canary" not in str(caught.value)


def test_a_kubeconfig_of_5_mib(root: Root) -> None:
    root.write(KUBELET_CONF, b"#" * (5 << 20))
    with pytest.raises(ConfigError, match="larger than 4 MiB"):
        root.find()


@pytest.mark.parametrize("name", ["http://a.example", "a.example:6443", "https://", "https://a.example/x?y", "ftp://a"])
def test_an_apiserver_flag_that_is_no_url(root: Root, name: str) -> None:
    with pytest.raises(ConfigError, match=r"--apiserver names the API server .* not https://HOST\[:PORT\]"):
        root.find("--apiserver", name)
