"""``--secrets-from pod`` and ``service-account``: the plugin as a process, and exactly what it asks the API server."""

from __future__ import annotations

import base64
import re
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from crio_credential_provider.testbed.certificates import Authority, Identity
from crio_credential_provider.testbed.cluster import ApiServer, Exchange
from node import NGINX, NGINX_HASH, Node, Run, basic, request

pytestmark = pytest.mark.process

MIRROR = "mirror.corp:5000"
SOURCE = f"{MIRROR}/hub/library/nginx"
FILE = f"team-alpha-{NGINX_HASH}.json"
ALPHA = "/api/v1/namespaces/team-alpha"
POD = f"{ALPHA}/pods/web"
BUILDER = f"{ALPHA}/serviceaccounts/builder"
NODE1 = "system:node:node1"
AS_POD = "system:serviceaccount:team-alpha:builder"

# Where kubeadm's kubeconfig says that both certificate and key are (docs/reference/contracts.md, 3).
CURRENT = "/var/lib/kubelet/pki/kubelet-client-current.pem"


def secret_path(name: str) -> str:
    return f"{ALPHA}/secrets/{name}"


def config(password: str, host: str = MIRROR) -> dict[str, Any]:
    return {"auths": {host: {"auth": basic("alpha", password)}}}


class Asked(NamedTuple):
    """One request as it came in: by whom, for what, on which connection, with which token."""

    user: str
    line: str
    connection: object
    authorization: str | None


class Site:
    """A node whose kubelet knows the cluster, a pod ``web`` of ``team-alpha`` on it, and the log of the API server."""

    def __init__(self, node: Node, cluster: ApiServer) -> None:
        self.node = node
        self.cluster = cluster
        self.asked: list[Asked] = []
        cluster.fault = self._note
        cluster.add_service_account("team-alpha", "builder", ["mirror-creds"])
        cluster.add_secret("team-alpha", "mirror-creds", config("first"))
        # What no mode but `namespace` may ask for, and what nobody may.
        cluster.add_secret("team-alpha", "unrelated", config("unrelated"))
        cluster.add_secret("team-beta", "mirror-creds", config("beta"))
        cluster.add_pod("team-alpha", "web", "node1", "builder")
        node.write_mirrors("docker.io", f"{MIRROR}/hub")
        node.write_kubeconfig(cluster.url, cluster.authority.certificate_pem)

    def _note(self, exchange: Exchange) -> bool:
        # The client's port tells one connection from another.
        connection = exchange.connection._handler.client_address
        line = f"{exchange.request.method} {exchange.request.path}"
        self.asked.append(Asked(exchange.asked.user, line, connection, exchange.request.header("Authorization")))
        return False

    def write_identity(self, identity: Identity, path: str = CURRENT) -> None:
        self.node.write(path, identity.certificate_pem + identity.key_pem)

    def write_user(self, members: Mapping[str, str], path: str | Path = "/etc/kubernetes/kubelet.conf") -> Path:
        """A kubeconfig with these members of the user."""
        authority = base64.b64encode(self.cluster.authority.certificate_pem.encode()).decode()
        user = "".join(f"    {name}: {value}\n" for name, value in members.items()) or "    {}\n"
        return self.node.write(
            path,
            f"apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster:\n    server: {self.cluster.url}\n"
            f"    certificate-authority-data: {authority}\ncontexts:\n- name: x\n  context: {{cluster: c, user: u}}\n"
            f"current-context: x\nusers:\n- name: u\n  user:\n{user}",
        )

    def token(self, pod: str | None = "web", **members: Any) -> str:
        return self.cluster.mint_token("team-alpha", "builder", pod, **members)

    def run(self, mode: str, *flags: str, token: str | None = None) -> Run:
        self.asked.clear()
        return self.node.run(request(NGINX, token or self.token()), f"--secrets-from={mode}", *flags)

    def assert_served(self, run: Run, password: str = "first") -> None:
        assert (run.status, run.stderr) == (0, "")
        entry = {"auth": basic("alpha", password)}
        assert self.node.auth_files() == {FILE: {"auths": {SOURCE: entry}}}
        assert run.entry["OUTCOME"] == "auth-file-written"
        (self.node.auth_dir / FILE).unlink()

    def assert_fault(self, run: Run, *words: str, status: int = 1) -> None:
        assert run.status == status and run.stdout == b""
        assert run.stderr.count("\n") == 1, run.stderr
        for word in words:
            assert word in run.stderr, run.stderr
        assert self.node.auth_file_names() == []

    def assert_asked(self, user: str, *paths: str) -> None:
        """Exactly these, in this order, on one connection, as this user and by nothing but its own credential."""
        assert [asked.line for asked in self.asked] == [f"GET {path}" for path in paths]
        assert {asked.user for asked in self.asked} == {user}
        assert len({asked.connection for asked in self.asked}) == 1
        with_token = {asked.authorization is not None for asked in self.asked}
        assert with_token == {user.startswith("system:serviceaccount:")}


@pytest.fixture
def bare(node: Node, cluster: ApiServer) -> Site:
    """A site whose kubelet has no certificate yet."""
    return Site(node, cluster)


@pytest.fixture(scope="session")
def kubelet(authority: Authority) -> Identity:
    return authority.issue(NODE1, organization="system:nodes", client=True)


@pytest.fixture
def site(bare: Site, kubelet: Identity) -> Site:
    """A site with kubeadm's layout: both keys of the kubeconfig name one rotating file."""
    bare.write_identity(kubelet)
    return bare


# -- pod: the client certificate, wherever it is -----------------------------------------------------------------------


def test_pod_asks_for_the_pod_and_its_secret_and_for_nothing_else(site: Site) -> None:
    run = site.run("pod")
    site.assert_asked(NODE1, POD, secret_path("mirror-creds"))
    assert list(run.answer["auth"]) == [NGINX]
    assert (run.entry["SECRETS"], run.entry["POD"]) == ("mirror-creds", "web")
    site.assert_served(run)


def test_the_rotating_file_is_a_link_that_moves(site: Site, authority: Authority) -> None:
    """The kubelet renames a link. Nothing of it is kept between runs."""
    node, pki = site.node, site.node.root / "var/lib/kubelet/pki"
    (site.node.root / CURRENT.lstrip("/")).unlink()
    _keep_parsed(node)
    for number in (1, 2):
        identity = authority.issue(f"system:node:node{number}", organization="system:nodes", client=True)
        site.write_identity(identity, f"/var/lib/kubelet/pki/kubelet-client-{number}.pem")
        site.cluster.add_pod("team-alpha", "web", f"node{number}", "builder")
        (pki / "next").symlink_to(f"kubelet-client-{number}.pem")
        (pki / "next").rename(pki / "kubelet-client-current.pem")
        site.assert_served(site.run("pod"))
        site.assert_asked(f"system:node:node{number}", POD, secret_path("mirror-creds"))


def _keep_parsed(node: Node) -> None:
    """Makes the kubeconfig and registries.conf old enough to be kept in their parsed form."""
    time.sleep(2.1)
    assert node.run(request("quay.io/x/y"), "--secrets-from=pod").status == 0


def test_certificate_and_key_in_two_files(bare: Site, kubelet: Identity) -> None:
    bare.node.write("/etc/kubernetes/pki/node.crt", kubelet.certificate_pem)
    bare.node.write("/etc/kubernetes/pki/node.key", kubelet.key_pem)
    files = {"client-certificate": "/etc/kubernetes/pki/node.crt", "client-key": "/etc/kubernetes/pki/node.key"}
    bare.write_user(files)
    bare.assert_served(bare.run("pod"))
    bare.assert_asked(NODE1, POD, secret_path("mirror-creds"))


def test_certificate_and_key_embedded(bare: Site, kubelet: Identity) -> None:
    members = {"client-certificate-data": kubelet.certificate_pem, "client-key-data": kubelet.key_pem}
    bare.write_user({name: base64.b64encode(text.encode()).decode() for name, text in members.items()})
    for _ in range(2):
        bare.assert_served(bare.run("pod"))
        bare.assert_asked(NODE1, POD, secret_path("mirror-creds"))


def test_the_embedded_key_is_kept_nowhere(bare: Site, kubelet: Identity) -> None:
    members = {"client-certificate-data": kubelet.certificate_pem, "client-key-data": kubelet.key_pem}
    encoded = {name: base64.b64encode(text.encode()).decode() for name, text in members.items()}
    kubeconfig = bare.write_user(encoded)
    _keep_parsed(bare.node)
    bare.assert_served(bare.run("pod"))
    assert list(bare.node.cache_dir.glob("kubeconfig-*.json"))
    for path in bare.node.root.rglob("*"):
        if path.is_file() and path != kubeconfig:
            data = path.read_bytes()
            assert encoded["client-key-data"].encode() not in data, path
            assert kubelet.key_pem.encode()[40:90] not in data.replace(b"\\n", b"\n"), path


@pytest.mark.parametrize("named", ["node.pem", "./node.pem", "../kubelet-pki/node.pem"])
def test_relative_paths_start_at_the_kubeconfig(bare: Site, kubelet: Identity, named: str) -> None:
    directory = "/var/lib/kubelet-pki" if named.startswith("..") else "/var/lib/kubelet"
    bare.write_identity(kubelet, f"{directory}/node.pem")
    kubeconfig = bare.write_user({"client-certificate": named, "client-key": named}, "/var/lib/kubelet/kubeconfig")
    bare.node.kubeconfig.unlink()
    bare.assert_served(bare.run("pod"))
    # The same by flag, from a working directory that is elsewhere.
    bare.assert_served(bare.run("pod", "--kubeconfig", str(kubeconfig)))


def test_absolute_paths_lie_below_the_root(bare: Site, kubelet: Identity) -> None:
    bare.write_identity(kubelet, "/srv/node.pem")
    bare.write_user({"client-certificate": "/srv/node.pem", "client-key": "/srv/node.pem"})
    bare.assert_served(bare.run("pod"))


# -- pod: kubeconfigs and certificates that will not do ----------------------------------------------------------------


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"token": "x"},
        {"client-certificate": "/srv/node.pem"},
        {"client-key": "/srv/node.pem"},
        {"client-certificate-data": "e30="},
        {"client-certificate-data": "!", "client-key-data": "!"},
    ],
    ids=lambda members: " ".join(members) or "nothing",
)
def test_a_kubeconfig_without_a_client_certificate(bare: Site, kubelet: Identity, members: dict[str, str]) -> None:
    bare.write_identity(kubelet, "/srv/node.pem")
    path = bare.write_user(members)
    run = bare.run("pod")
    words = "--secrets-from pod needs", "--secrets-from namespace or service-account"
    bare.assert_fault(run, f"{path} has no client certificate", *words)
    assert (run.entry["OUTCOME"], bare.asked) == ("fault-config", [])


def test_without_a_kubeconfig(site: Site) -> None:
    site.node.kubeconfig.unlink()
    run = site.run("pod", "--apiserver", site.cluster.url)
    site.assert_fault(run, "needs the kubelet's kubeconfig", "/etc/kubernetes/kubelet.conf", "--kubeconfig")
    assert site.asked == []


def test_a_certificate_file_that_is_missing(bare: Site) -> None:
    bare.assert_fault(bare.run("pod"), "cannot use", CURRENT, "No such file or directory")
    assert bare.asked == []


@pytest.mark.parametrize("spoil", ["empty", "no PEM", "certificate alone", "key alone", "another's key", "cut"])
@pytest.mark.parametrize("embedded", [False, True], ids=["file", "embedded"])
def test_a_broken_certificate(bare: Site, authority: Authority, kubelet: Identity, spoil: str, embedded: bool) -> None:
    certificate, key = kubelet
    certificate, key = {
        "empty": ("\n", "\n"),
        "no PEM": ("certificate", "key"),
        "certificate alone": (certificate, certificate),
        "key alone": (key, key),
        "another's key": (certificate, authority.issue("x", client=True).key_pem),
        "cut": (certificate[: len(certificate) // 2], key),
    }[spoil]
    if embedded:
        members = {"client-certificate-data": certificate, "client-key-data": key}
        bare.write_user({name: base64.b64encode(text.encode()).decode() for name, text in members.items()})
        what = "embedded in the kubeconfig"
    else:
        bare.node.write(CURRENT, certificate + key)
        what = CURRENT
    run = bare.run("pod")
    bare.assert_fault(run, "cannot use", what, "no certificate with its key in PEM")
    assert bare.asked == []
    for line in key.splitlines()[1:-1]:
        assert line not in run.stderr


def test_a_certificate_of_another_cluster_is_a_fault(bare: Site) -> None:
    """The stand-in ends the handshake; a real API server answers 401."""
    bare.write_identity(Authority.make("elsewhere").issue(NODE1, organization="system:nodes", client=True))
    bare.assert_fault(bare.run("pod", "--deadline=2s"), "the API server", bare.cluster.url)
    assert bare.asked == []


@pytest.mark.parametrize("mode", ["namespace", "service-account"])
def test_the_other_modes_never_show_the_certificate(site: Site, mode: str) -> None:
    site.cluster.allow("team-alpha", "builder", ["get", "list"], "secrets")
    site.cluster.allow("team-alpha", "builder", ["get"], "serviceaccounts")
    assert site.run(mode).status == 0
    assert {asked.user for asked in site.asked} == {AS_POD}


def test_skipping_verification_is_refused_with_pod(site: Site) -> None:
    run = site.run("pod", "--insecure-skip-tls-verify")
    site.assert_fault(run, "--insecure-skip-tls-verify cannot be used with --secrets-from pod", status=2)
    assert site.asked == []
    # As a variable, too.
    run = site.node.run(
        request(token=site.token()),
        env={
            "CRIO_CREDENTIAL_PROVIDER_SECRETS_FROM": "pod",
            "CRIO_CREDENTIAL_PROVIDER_INSECURE_SKIP_TLS_VERIFY": "true",
        },
    )
    assert run.status == 2


def test_a_server_that_cannot_be_trusted_never_sees_the_certificate(site: Site) -> None:
    """TLS 1.3 sends it only after the server's own was verified."""
    other = site.node.write("/srv/other-ca.crt", Authority.make("elsewhere").certificate_pem)
    run = site.run("pod", "--certificate-authority", str(other))
    site.assert_fault(run, "cannot be trusted")
    assert site.asked == []


# -- pod: which pod ----------------------------------------------------------------------------------------------------


def test_a_pod_that_was_replaced_gets_nothing(site: Site) -> None:
    token = site.token()
    site.cluster.delete_pod("team-alpha", "web")
    site.cluster.add_pod("team-alpha", "web", "node1", "builder")
    run = site.run("pod", token=token)
    site.assert_fault(run, "pod team-alpha/web is not the pod of the token", "the next pull works then")
    site.assert_asked(NODE1, POD)


def test_a_pod_of_another_service_account_gets_nothing(site: Site) -> None:
    token = site.token()
    site.cluster.pods["team-alpha", "web"]["spec"]["serviceAccountName"] = "default"
    site.assert_fault(site.run("pod", token=token), "not the pod of the token")
    site.assert_asked(NODE1, POD)


@pytest.mark.parametrize("case", ["unknown", "of another node"])
def test_a_pod_that_the_node_may_not_see(site: Site, case: str) -> None:
    """A 403 in both cases, as the recordings have it."""
    token = site.token()
    site.cluster.delete_pod("team-alpha", "web")
    if case != "unknown":
        site.cluster.add_pod("team-alpha", "web", "node2", "builder")
    run = site.run("pod", token=token)
    site.assert_fault(
        run,
        "answered 403",
        "no relationship found between node 'node1' and this object",
        "the node may not get pod team-alpha/web",
        "--authorization-mode=Node,RBAC",
    )
    site.assert_asked(NODE1, POD)
    assert run.entry["OUTCOME"] == "fault-cluster"


def test_a_token_that_is_bound_to_no_pod(site: Site) -> None:
    run = site.run("pod", token=site.token(pod=None))
    site.assert_fault(run, "not bound to a pod", "--secrets-from namespace or service-account")
    assert (run.entry["OUTCOME"], site.asked) == ("fault-request", [])


# -- pod: its secrets --------------------------------------------------------------------------------------------------


def set_secrets(site: Site, mode: str, *names: str) -> None:
    """These imagePullSecrets, on the pod and on its service account."""
    site.cluster.add_service_account("team-alpha", "builder", names)
    site.cluster.add_pod("team-alpha", "web", "node1", "builder")
    site.cluster.grants.clear()
    if mode == "service-account":
        site.cluster.allow("team-alpha", "builder", ["get"], "serviceaccounts", ["builder"])
        site.cluster.allow("team-alpha", "builder", ["get"], "secrets", names)


MODES = {"pod": (NODE1, POD), "service-account": (AS_POD, BUILDER)}
BOTH = pytest.mark.parametrize("mode", MODES)


@BOTH
def test_of_two_secrets_the_first_wins(site: Site, mode: str) -> None:
    site.cluster.add_secret("team-alpha", "a-second", config("second"))
    user, holder = MODES[mode]
    for names, password in ((("mirror-creds", "a-second"), "first"), (("a-second", "mirror-creds"), "second")):
        set_secrets(site, mode, *names)
        run = site.run(mode)
        site.assert_asked(user, holder, *map(secret_path, names))
        site.assert_served(run, password)
        assert run.entry["SECRETS"] == names[0]


@BOTH
def test_a_secret_that_is_missing_is_skipped_with_a_reason(site: Site, mode: str) -> None:
    set_secrets(site, mode, "gone", "mirror-creds")
    run = site.run(mode)
    site.assert_asked(MODES[mode][0], MODES[mode][1], secret_path("gone"), secret_path("mirror-creds"))
    assert run.entry["SKIPPED"] == "gone: it is named in imagePullSecrets, but not found"
    site.assert_served(run)


@BOTH
def test_a_secret_of_another_type_is_skipped_with_a_reason(site: Site, mode: str) -> None:
    site.cluster.add_secret("team-alpha", "opaque", config("opaque"), "Opaque")
    set_secrets(site, mode, "opaque", "mirror-creds")
    run = site.run(mode)
    assert run.entry["SKIPPED"] == "opaque: it is of type 'Opaque', not kubernetes.io/dockerconfigjson"
    site.assert_served(run)


@BOTH
def test_only_secrets_that_do_not_serve_are_nothing_to_do(site: Site, mode: str) -> None:
    set_secrets(site, mode, "gone")
    run = site.run(mode)
    assert (run.status, run.entry["OUTCOME"], site.node.auth_file_names()) == (0, "nothing-to-do", [])
    whose = "pod team-alpha/web" if mode == "pod" else "service account team-alpha/builder"
    assert run.entry["REASON"].startswith(f"no pull secret of {whose} has a credential")
    assert "auth" not in run.answer


@BOTH
def test_without_any_secret_there_is_one_request(site: Site, mode: str) -> None:
    set_secrets(site, mode)
    assert site.run(mode).entry["OUTCOME"] == "nothing-to-do"
    site.assert_asked(*MODES[mode])


@BOTH
def test_a_secret_of_the_old_type(site: Site, mode: str) -> None:
    site.cluster.add_secret("team-alpha", "old", config("old")["auths"], "kubernetes.io/dockercfg")
    set_secrets(site, mode, "old")
    site.assert_served(site.run(mode), "old")


def test_a_pod_s_own_secret_goes_before_its_service_account_s(site: Site) -> None:
    """With secrets of its own a pod gets none of the service account's (ServiceAccount admission)."""
    site.cluster.add_secret("team-alpha", "own", config("own"))
    site.cluster.add_pod("team-alpha", "web", "node1", "builder", image_pull_secrets=["own"])
    run = site.run("pod")
    site.assert_asked(NODE1, POD, secret_path("own"))
    site.assert_served(run, "own")


def test_a_refused_secret_is_a_fault_and_ends_the_run(site: Site) -> None:
    """The Node authorizer lets a node read what its pods name: anything else is a bug or no Node authorizer."""
    site.cluster.add_secret("team-alpha", "second", config("second"))
    set_secrets(site, "pod", "mirror-creds", "second")
    authorize = site.cluster.authorize

    def strict(user: Any, asked: Any) -> Any:
        verdict = authorize(user, asked)
        return verdict._replace(allowed=False, reason="no") if asked.resource == "secrets" else verdict

    site.cluster.authorize = strict  # type: ignore[method-assign]
    run = site.run("pod")
    site.assert_fault(
        run, "answered 403", "the node may not get secret mirror-creds", "--authorization-mode=Node,RBAC", "report it"
    )
    site.assert_asked(NODE1, POD, secret_path("mirror-creds"))


# -- service account ---------------------------------------------------------------------------------------------------


def test_service_account_asks_for_the_account_and_its_secret_and_for_nothing_else(site: Site) -> None:
    set_secrets(site, "service-account", "mirror-creds")
    run = site.run("service-account")
    site.assert_asked(AS_POD, BUILDER, secret_path("mirror-creds"))
    assert run.entry["SECRETS"] == "mirror-creds"
    site.assert_served(run)


def test_it_needs_neither_a_certificate_nor_a_pod(bare: Site) -> None:
    set_secrets(bare, "service-account", "mirror-creds")
    bare.assert_served(bare.run("service-account", token=bare.token(pod=None)))


def test_the_pod_s_own_secrets_do_not_count(site: Site) -> None:
    set_secrets(site, "service-account", "mirror-creds")
    site.cluster.add_secret("team-alpha", "own", config("own"))
    site.cluster.add_pod("team-alpha", "web", "node1", "builder", image_pull_secrets=["own"])
    site.assert_served(site.run("service-account"))


def paste(site: Site, line: str) -> None:
    """Types the commands that a line on stderr names, as kubectl would carry them out."""
    _, found, text = line.rstrip("\n").partition("kubectl ")
    assert found, line
    role_command, binding_command = (shlex.split(command) for command in f"kubectl {text}".split(" && "))
    # kubectl create role|rolebinding NAME, both in the namespace.
    head = ["kubectl", "-n", "team-alpha", "create"]
    assert role_command[:5] == [*head, "role"] and binding_command[:5] == [*head, "rolebinding"]
    role = role_command[5]
    assert re.fullmatch(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?", role)
    assert binding_command[5:] == [role, f"--role={role}", "--serviceaccount=team-alpha:builder"]
    given: dict[str, list[str]] = {}
    for argument in role_command[6:]:
        name, equals, value = argument.removeprefix("--").partition("=")
        assert equals and value == value.lower(), f"{argument} is nothing that can be pasted"
        given.setdefault(name, []).append(value)
    assert sorted(given) in (["resource", "verb"], ["resource", "resource-name", "verb"])
    # Older kubectls refuse names for several resources, newer ones give each name for each of them.
    assert len(given["resource"]) == 1 and "," not in given["resource"][0]
    assert role not in {grant.role for grant in site.cluster.grants}, "there is one of this name already"
    site.cluster.allow(
        "team-alpha", "builder", given["verb"], given["resource"][0], given.get("resource-name"), role=role
    )


def test_the_remedies_on_stderr_are_enough_and_no_more(site: Site) -> None:
    site.cluster.add_secret("team-alpha", "second", config("second"))
    set_secrets(site, "pod", "mirror-creds", "second")
    run = site.run("service-account")
    site.assert_fault(
        run, "service account builder may not read itself (get serviceaccounts/builder) in namespace team-alpha"
    )
    site.assert_asked(AS_POD, BUILDER)
    paste(site, run.stderr)
    run = site.run("service-account")
    site.assert_fault(run, "service account builder may not get secret mirror-creds in namespace team-alpha")
    site.assert_asked(AS_POD, BUILDER, secret_path("mirror-creds"))
    paste(site, run.stderr)
    site.assert_served(site.run("service-account"))
    site.assert_asked(AS_POD, BUILDER, secret_path("mirror-creds"), secret_path("second"))
    assert {(grant.resource, grant.verbs, grant.names) for grant in site.cluster.grants} == {
        ("serviceaccounts", frozenset({"get"}), frozenset({"builder"})),
        ("secrets", frozenset({"get"}), frozenset({"mirror-creds", "second"})),
    }


def test_the_remedy_for_namespace_is_enough(site: Site) -> None:
    run = site.run("namespace")
    site.assert_fault(run, "service account builder may not list secrets in namespace team-alpha")
    paste(site, run.stderr)
    assert site.run("namespace").entry["SECRETS"] == "mirror-creds"


def test_a_wrong_audience_is_told_with_the_remedy(site: Site) -> None:
    set_secrets(site, "service-account", "mirror-creds")
    run = site.run("service-account", token=site.token(audience="https://elsewhere.example"))
    site.assert_fault(run, "answered 401", "https://elsewhere.example", "serviceAccountTokenAudience")
    assert len(site.asked) == 1


def test_pod_does_not_depend_on_the_token_s_audience(site: Site) -> None:
    """The node asks; the token only says which pod it is about."""
    site.assert_served(site.run("pod", token=site.token(audience="https://elsewhere.example")))


# -- isolation ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["namespace", "pod", "service-account"])
def test_no_other_namespace_is_ever_asked(site: Site, mode: str) -> None:
    """Though the node may read another team's secret, and a service account were given it by mistake."""
    site.cluster.add_service_account("team-beta", "builder", ["mirror-creds"])
    site.cluster.add_pod("team-beta", "web", "node1", "builder")
    names = ["mirror-creds", "../../team-beta/secrets/mirror-creds", "team-beta/mirror-creds"]
    set_secrets(site, mode, *names)
    site.cluster.allow("team-alpha", "builder", ["get", "list"], "secrets")
    assert site.run(mode).status == 0
    assert site.asked and all(asked.line.startswith(f"GET {ALPHA}/") for asked in site.asked)
    assert all(".." not in asked.line and "beta" not in asked.line for asked in site.asked)


def test_pods_of_two_namespaces_get_each_their_own(site: Site) -> None:
    site.cluster.add_service_account("team-beta", "builder", ["mirror-creds"])
    site.cluster.add_pod("team-beta", "web", "node1", "builder")
    assert site.run("pod").status == 0
    assert site.run("pod", token=site.cluster.mint_token("team-beta", "builder", "web")).status == 0
    found = {name.partition("-7e59")[0]: list(auth["auths"].values()) for name, auth in site.node.auth_files().items()}
    assert found == {"team-alpha": [{"auth": basic("alpha", "first")}], "team-beta": [{"auth": basic("alpha", "beta")}]}


# -- rotation ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["namespace", "pod", "service-account"])
def test_a_rotated_secret_counts_at_the_next_pull(site: Site, mode: str) -> None:
    """Nothing else changes in between, and the parsed configuration is kept."""
    site.cluster.delete_secret("team-alpha", "unrelated")
    set_secrets(site, mode, "mirror-creds")
    if mode == "namespace":
        site.cluster.allow("team-alpha", "builder", ["list"], "secrets")
    _keep_parsed(site.node)
    token = site.token()
    site.assert_served(site.run(mode, token=token), "first")
    kept = {path: path.stat().st_mtime_ns for path in site.node.cache_dir.glob("*.json")}
    assert {path.name.partition("-")[0] for path in kept} == {"kubeconfig", "registries"}
    for password in ("second", "third"):
        site.cluster.add_secret("team-alpha", "mirror-creds", config(password))
        site.assert_served(site.run(mode, token=token), password)
    # What was kept served those runs as it was, and holds no credential.
    assert {path: path.stat().st_mtime_ns for path in site.node.cache_dir.glob("*.json")} == kept
    for path in kept:
        data = path.read_bytes()
        assert not any(basic("alpha", password).encode() in data for password in ("first", "second", "third"))
