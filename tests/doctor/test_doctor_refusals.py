"""What the plugin refuses at a pull doctor finds: for each fault of a node both are asked, the plugin as a process.

A flag's path is taken as given by the plugin, and lies below the root for doctor: in a row ``{root}`` stands for it.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from conftest import NodeMaker
from crio_credential_provider.doctor import Given, examine
from crio_credential_provider.doctor.finding import Finding
from crio_credential_provider.testbed.certificates import Authority
from crio_credential_provider.testbed.cluster import ApiServer
from node import COMMAND, NGINX, Node, request

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.geteuid() != 0, reason="a node's files belong to root"),
]

CONFIG = "/etc/kubernetes/credential-provider.yaml"
KUBECONFIG = "/etc/kubernetes/kubelet.conf"
IDENTITY = "/var/lib/kubelet/pki/kubelet-client-current.pem"
REGISTRIES = "/etc/containers/registries.conf"
AUTH_DIR = "/etc/crio/auth"
FLAG = "CRIO_CREDENTIAL_PROVIDER_"

Break = Callable[[Node], object]


class Fault(NamedTuple):
    """A node on which every pull fails: what the entry has, what is broken, and what the plugin says of it."""

    says: str
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    broken: Break = lambda node: None
    code: str = "plugin-arguments-refused"


def text(path: str, content: str) -> Break:
    return lambda node: node.write(path, content)


def directory(path: str) -> Break:
    def make(node: Node) -> None:
        file = node.root / path.lstrip("/")
        file.unlink(missing_ok=True)
        file.mkdir(parents=True)

    return make


def link(path: str, target: str) -> Break:
    def make(node: Node) -> None:
        file = node.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.symlink_to(target)

    return make


def gone(path: str) -> Break:
    return lambda node: (node.root / path.lstrip("/")).unlink()


def changed(path: str, old: str, new: str) -> Break:
    def change(node: Node) -> None:
        file = node.root / path.lstrip("/")
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    return change


def auth_dir(mode: int = 0o755, owner: int = 0) -> Break:
    def make(node: Node) -> None:
        node.auth_dir.mkdir(parents=True)
        node.auth_dir.chmod(mode)
        os.chown(node.auth_dir, owner, owner)

    return make


def another_key(node: Node) -> None:
    one, other = (Authority.make("c").issue("system:node:node1", client=True) for _ in range(2))
    node.write(IDENTITY, one.certificate_pem + other.key_pem)


def authority_data(content: bytes) -> Break:
    def write(node: Node) -> None:
        lines = (node.root / KUBECONFIG.lstrip("/")).read_text().splitlines()
        data = base64.b64encode(content).decode()
        kept = [f"    certificate-authority-data: {data}" if "authority-data" in line else line for line in lines]
        node.write(KUBECONFIG, "\n".join(kept))

    return write


POD = ("--secrets-from=pod",)

FAULTS = {
    # -- the command line and the environment: settings.loads
    "an unknown flag": Fault("unknown flag '--secret-from'", ("--secret-from=pod",)),
    "an argument that is no flag": Fault("unknown argument 'doctor'", ("doctor",)),
    "one dash": Fault("unknown flag '-secrets-from'", ("-secrets-from=pod",)),
    "a flag of people": Fault("unknown flag '--output'", ("--output=json",)),
    "a path without its value, last": Fault("--kubeconfig needs a value", ("--kubeconfig",)),
    "an API server without its value, last": Fault("--apiserver needs a value", ("--apiserver",)),
    "a relative path": Fault("not an absolute path", ("--auth-dir=auth",)),
    "a duration without a unit": Fault("not a duration", ("--deadline=soon",)),
    "a duration too long": Fault("between 0.1s and 50s", ("--deadline=60s",)),
    "a hand-off too long": Fault("between 0s and 50s", ("--hand-off-timeout=1m",)),
    "a size that is none": Fault("a number of MiB", ("--max-answer-size=0",)),
    "a mirror with a scheme": Fault("without https://", ("--mirror-registry=https://m.example",)),
    "a mode that is none": Fault("one of namespace", ("--secrets-from=namespaces",)),
    "a switch that is neither": Fault("not true or false", ("--no-pull-record=yes",)),
    "pod without TLS": Fault("cannot be used with --secrets-from pod", (*POD, "--insecure-skip-tls-verify")),
    "a variable that cannot be": Fault("not a duration", env=((f"{FLAG}DEADLINE", "soon"),)),
    "a switch by a variable": Fault("not true or false", env=((f"{FLAG}NO_PULL_RECORD", "1"),)),
    "a mode by the kubelet's own environment": Fault(
        "one of namespace",
        broken=changed(
            "/etc/systemd/system/kubelet.service", "[Service]", f"[Service]\nEnvironment={FLAG}SECRETS_FROM=x"
        ),
    ),
    # -- where the API server is: endpoint
    "an API server over plain HTTP": Fault("https://", ("--apiserver=http://x",)),
    "an API server over plain HTTP by a variable": Fault("https://", env=((f"{FLAG}APISERVER", "http://x:6443"),)),
    "an API server that is no host": Fault("https://", ("--apiserver=https://a b",)),
    "an API server with a user": Fault("https://", ("--apiserver=https://u:p@x",)),
    "a kubeconfig with plain HTTP": Fault(
        "https://", broken=changed(KUBECONFIG, "https://127", "http://127"), code="kubeconfig-broken"
    ),
    "a kubeconfig by flag that is missing": Fault(
        "No such file", ("--kubeconfig={root}/nowhere",), code="kubeconfig-broken"
    ),
    "a kubeconfig by variable that is missing": Fault(
        "No such file", env=((f"{FLAG}KUBECONFIG", "{root}/nowhere"),), code="kubeconfig-broken"
    ),
    "a kubeconfig that is a directory": Fault("Is a directory", broken=directory(KUBECONFIG), code="kubeconfig-broken"),
    "a kubeconfig that is no YAML": Fault("not valid YAML", broken=text(KUBECONFIG, "a: ["), code="kubeconfig-broken"),
    "an empty kubeconfig": Fault("has no context", broken=text(KUBECONFIG, ""), code="kubeconfig-broken"),
    "a kubeconfig without its context": Fault(
        "has no context",
        broken=changed(KUBECONFIG, "current-context: d", "current-context: x"),
        code="kubeconfig-broken",
    ),
    "a CA that is not base64 of PEM": Fault(
        "not base64-encoded PEM", broken=authority_data(b"\xff\xfe"), code="kubeconfig-broken"
    ),
    "a CA that is no PEM": Fault("no PEM certificate", broken=authority_data(b"x"), code="kubeconfig-broken"),
    "apiserver-url.env without a host": Fault(
        "has no KUBERNETES_SERVICE_HOST",
        broken=lambda node: (
            link(KUBECONFIG, "/nowhere")(node),
            changed("/etc/systemd/system/kubelet.service", f"--kubeconfig={KUBECONFIG}", "")(node),
            node.write("/etc/kubernetes/apiserver-url.env", "KUBERNETES_SERVICE_PORT=6443\n"),
        ),
        code="kubeconfig-broken",
    ),
    # -- what TLS needs: apiserver
    "a CA file that is missing": Fault("No such file", ("--certificate-authority={root}/nowhere",)),
    "a CA file that is a directory": Fault("cannot use the CA certificates", ("--certificate-authority={root}/etc",)),
    "a CA file that is no PEM": Fault("no PEM certificate", ("--certificate-authority={root}/etc/hostname",)),
    "a CA file by a variable": Fault("No such file", env=((f"{FLAG}CERTIFICATE_AUTHORITY", "{root}/nowhere"),)),
    "a CA file of the kubeconfig that is missing": Fault(
        "No such file",
        broken=lambda node: node.write_kubeconfig("https://127.0.0.1:1", **{"certificate-authority": "/nowhere.crt"}),
        code="kubeconfig-broken",
    ),
    "pod without a client certificate": Fault(
        "has no client certificate",
        POD,
        broken=changed(KUBECONFIG, "client-", "x-"),
        code="pod-mode-without-client-certificate",
    ),
    "pod whose client certificate is gone": Fault("No such file", POD, broken=gone(IDENTITY), code="kubeconfig-broken"),
    "pod whose client certificate is empty": Fault(
        "no certificate with its key", POD, broken=text(IDENTITY, ""), code="kubeconfig-broken"
    ),
    "pod whose key is another's": Fault(
        "no certificate with its key", POD, broken=another_key, code="kubeconfig-broken"
    ),
    # -- registries.conf
    "registries.conf that is no TOML": Fault(
        "not valid TOML", broken=text(REGISTRIES, "[[registry"), code="registries-conf-refused"
    ),
    "registries.conf that is a directory": Fault(
        "Is a directory", broken=directory(REGISTRIES), code="registries-conf-refused"
    ),
    "registries.conf by flag that is missing": Fault("No such file", ("--registries-conf={root}/nowhere",)),
    "registries.conf that links to itself": Fault(
        "symbolic links", broken=link(REGISTRIES, "registries.conf"), code="registries-conf-refused"
    ),
    "a drop-in that links to a directory": Fault(
        "Is a directory", broken=link(f"{REGISTRIES}.d/x.conf", "/etc"), code="registries-conf-refused"
    ),
    "a drop-in that is refused": Fault(
        "has neither location nor prefix",
        broken=text(f"{REGISTRIES}.d/x.conf", "[[registry]]\n"),
        code="registries-conf-refused",
    ),
    # -- the auth directory: authfile
    "an auth directory that all may write to": Fault(
        "users other than its owner", broken=auth_dir(0o777), code="auth-dir-mode"
    ),
    "an auth directory that a group may write to": Fault(
        "users other than its owner", broken=auth_dir(0o770), code="auth-dir-mode"
    ),
    "an auth directory with the sticky bit": Fault(
        "users other than its owner", broken=auth_dir(0o1777), code="auth-dir-mode"
    ),
    "an auth directory of another user": Fault("belongs to user 12", broken=auth_dir(owner=12), code="auth-dir-owner"),
    "an auth directory that is a file": Fault("Not a directory", broken=text(AUTH_DIR, "x"), code="auth-dir-unusable"),
    "an auth directory below a file": Fault("Not a directory", broken=text("/etc/crio", "x"), code="auth-dir-unusable"),
    "an auth directory that links to nowhere": Fault(
        "cannot write the auth file", broken=link(AUTH_DIR, "../nowhere"), code="auth-dir-unusable"
    ),
    "an auth directory by flag that is empty": Fault(
        "cannot write the auth file", ("--auth-dir=",), code="auth-dir-unusable"
    ),
    "an auth directory by flag that is a file": Fault(
        "Not a directory", ("--auth-dir={root}/etc/hostname",), code="auth-dir-unusable"
    ),
    # -- the request
    "an entry of the protocol v1beta1": Fault(
        "v1beta1",
        broken=changed(CONFIG, "kubelet.k8s.io/v1\n    m", "kubelet.k8s.io/v1beta1\n    m"),
        code="config-refused",
    ),
}


def entry(fault: Fault, root: str) -> str:
    """The CredentialProviderConfig of a healthy node with a fault's arguments and variables."""
    args = [text.format(root=root) for text in fault.args]
    env = [{"name": name, "value": value.format(root=root)} for name, value in fault.env]
    return (
        "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n"
        "  - name: crio-credential-provider\n    apiVersion: credentialprovider.kubelet.k8s.io/v1\n"
        "    matchImages: [docker.io]\n    defaultCacheDuration: 0s\n"
        f"    args: {json.dumps(args)}\n    env: {json.dumps(env)}\n"
        "    tokenAttributes:\n      serviceAccountTokenAudience: https://kubernetes.default.svc.cluster.local\n"
        "      cacheType: Token\n      requireServiceAccount: true\n"
    )


@pytest.fixture
def healthy(make_node: NodeMaker, cluster: ApiServer, authority: Authority) -> Iterator[Node]:
    """A control-plane node of kubeadm's kind."""
    node = make_node(*COMMAND)
    node.write_mirrors("docker.io", "mirror.corp:5000/hub")
    node.write_kubeconfig(cluster.url, authority.certificate_pem)
    identity = authority.issue("system:node:node1", organization="system:nodes", client=True)
    node.write(IDENTITY, identity.certificate_pem + identity.key_pem)
    node.write("/etc/hostname", "node1\n")
    node.write("/etc/kubernetes/manifests/kube-apiserver.yaml", "")
    node.write(
        "/etc/systemd/system/kubelet.service",
        f"[Service]\nExecStart=/usr/bin/kubelet --kubeconfig={KUBECONFIG} \\\n"
        f" --image-credential-provider-config={CONFIG} --image-credential-provider-bin-dir=/usr/libexec/plugins\n",
    )
    node.write("/usr/libexec/plugins/crio-credential-provider", "#!/bin/sh\n").chmod(0o755)
    yield node


def break_node(node: Node, fault: Fault) -> None:
    node.write(CONFIG, entry(fault, ""))
    fault.broken(node)


def environment(node: Node, fault: Fault) -> dict[str, str]:
    """What the kubelet hands over: its own variables, which its unit has, then those of the entry."""
    unit = (node.root / "etc/systemd/system/kubelet.service").read_text()
    own = dict(line.removeprefix("Environment=").split("=", 1) for line in unit.splitlines() if "Environment=" in line)
    return own | {name: value.format(root=node.root) for name, value in fault.env}


def errors(node: Node, *, live: bool) -> list[Finding]:
    report = examine(Given(root=str(node.root), live=live, kubernetes=(1, 34)))
    # The mirror is nobody's, and the stand-in of the API server knows no access reviews.
    others = ("mirror-", "node-lacks-")
    return [
        finding for finding in report.findings if finding.severity == "error" and not finding.code.startswith(others)
    ]


def run(node: Node, fault: Fault, token: str) -> Any:
    args = [text.format(root=node.root) for text in fault.args]
    protocol = "v1beta1" if "v1beta1" in (node.root / CONFIG.lstrip("/")).read_text() else "v1"
    asked = request(NGINX, token, apiVersion=f"credentialprovider.kubelet.k8s.io/{protocol}")
    return node.run(asked, *args, env=environment(node, fault))


@pytest.mark.parametrize("mode", ("namespace", "pod"))
def test_a_healthy_node_is_served_and_nothing_is_wrong_with_it(mode: str, healthy: Node, alpha: str) -> None:
    fault = Fault("", (f"--secrets-from={mode}",))
    break_node(healthy, fault)
    assert errors(healthy, live=True) == errors(healthy, live=False) == []
    ended = run(healthy, fault, alpha)
    assert (ended.status, ended.stderr) == (0, "") and healthy.auth_files()


@pytest.mark.parametrize("name", FAULTS)
def test_what_the_plugin_refuses_doctor_finds(name: str, healthy: Node, alpha: str) -> None:
    fault = FAULTS[name]
    break_node(healthy, fault)
    for live in (False, True):
        found = errors(healthy, live=live)
        assert [finding.code for finding in found] == [fault.code], (live, found)
        assert found[0].remedy and str(healthy.root) not in "".join(str(item) for item in found[0]), found
    ended = run(healthy, fault, alpha)
    assert ended.status in (1, 2) and fault.says in ended.stderr, ended


@pytest.mark.parametrize(
    ("args", "codes"),
    (
        (("--deadline=50s", "--hand-off-timeout=50s"), ["plugin-times-too-long"]),
        (("--deadline=40s",), ["plugin-times-too-long"]),
        (("--hand-off-timeout=40s",), ["plugin-times-too-long"]),
        (("--deadline=25s", "--hand-off-timeout=34s"), []),
        ((), []),
    ),
)
def test_times_that_add_up_to_more_than_the_kubelet_waits(
    args: tuple[str, ...], codes: list[str], healthy: Node
) -> None:
    break_node(healthy, Fault("", args))
    report = examine(Given(config=str(healthy.root / CONFIG.lstrip("/"))))
    assert [finding.code for finding in report.findings if finding.severity == "warning"] == codes


@pytest.mark.parametrize(
    "how", (text("/run/crio-credential-provider", "x"), link("/run/crio-credential-provider", "/x"))
)
def test_a_cache_directory_that_is_none(how: Break, healthy: Node) -> None:
    break_node(healthy, Fault("", broken=how))
    report = examine(Given(root=str(healthy.root), live=False, kubernetes=(1, 34)))
    assert "cache-dir-unusable" in [finding.code for finding in report.findings if finding.severity == "warning"]


@pytest.mark.parametrize(
    "name",
    (
        *(
            "crio-credential-providr",
            "crio-credentials-provider",
            "crio_credential_provider",
            "cri-o-credential-provider",
        ),
        *("Crio-Credential-Provider", "credential-provider-crio", "criocredentialprovider", "crio-credental-provider"),
    ),
)
def test_a_slip_in_the_programs_name_is_told(name: str, healthy: Node) -> None:
    break_node(healthy, Fault("", broken=changed(CONFIG, "crio-credential-provider", name)))
    found = examine(Given(config=str(healthy.root / CONFIG.lstrip("/")))).findings
    (told,) = (finding for finding in found if finding.severity != "note")
    assert told.code == "provider-name-doubtful" and f"the kubelet runs BIN_DIR/{name}" in told.evidence[0].text
    (on_the_node,) = errors(healthy, live=False)
    assert on_the_node.code == "plugin-other-name" and "name: crio-credential-provider" in on_the_node.remedy


@pytest.mark.parametrize(
    "name", ("ecr-credential-provider", "gcr-credential-provider", "acr-credential-provider", "mirror-credentials")
)
def test_the_providers_of_others_are_no_slips(name: str, healthy: Node) -> None:
    break_node(healthy, Fault("", broken=changed(CONFIG, "crio-credential-provider", name)))
    found = examine(Given(config=str(healthy.root / CONFIG.lstrip("/")))).findings
    assert [finding.code for finding in found if finding.severity != "note"] == ["provider-missing"]


def test_a_file_of_another_kind_is_not_said_to_be_corrected_below(tmp_path: Path) -> None:
    for name, content in (("README.md", "# A title\n\nSome text: here\n"), ("x.yaml", "kind: Pod\n"), ("empty", "")):
        (tmp_path / name).write_text(content)
        report = examine(Given(config=str(tmp_path / name)))
        assert [finding.code for finding in report.findings if finding.severity == "error"] == ["config-refused"]
        assert (report.corrected is not None) == ("see the corrected file" in report.findings[0].remedy), name
