"""The API server: where it is looked for, whether it can be trusted, and what it allows the node and the pods."""

from __future__ import annotations

import ipaddress
import re
import shlex

from ...errors import ConfigError, ProviderError
from ...node.commandline import Origin
from ...node.facts import Node
from ...node.kubelet import as_mapping
from ...node.located import Syntax, loads_yaml
from ...node.tree import Unreadable
from ...settings import NAMESPACE, POD
from ..accounts import Account, Right
from ..cluster import (
    AUDIENCE_VERB,
    MOST_ACCOUNTS,
    Answers,
    Located,
    audience_of,
    client_certificate_error,
    tls_error,
)
from ..correction import CORRECTED
from ..finding import Evidence, Examined, Results, Unexamined, at, find, seen
from .kubelet import is_other_runtime

_SKEW_TOLD, _SKEW_BAD = 60.0, 300.0
"""Seconds. A date header counts whole ones, and an answer takes its time."""

_RBAC = "crio-credential-provider manifests prints it: a ClusterRole and its ClusterRoleBinding"


def check_endpoint(node: Node, located: Located) -> Results:
    """What can be told of the API server without asking it."""
    if node.given.config or (node.kubelet is None and not located.kubeconfig):
        return
    if located.unreadable is not None:
        yield Unexamined(f"the kubeconfig {located.kubeconfig}", located.unreadable.reason)
    elif located.error is not None and node.settings is not None and node.settings.apiserver:
        # Told with the argument.
        pass
    elif located.error is not None:
        origin = located.origin or Origin(located.kubeconfig)
        text = _within(node, located.error.message)
        # The place stands before it.
        evidence = at(origin, text.removeprefix(str(origin)).removeprefix(origin.file).lstrip(": "))
        remedy = _within(node, located.error.hint) or f"correct {origin}"
        yield find("kubeconfig-broken", evidence, remedy=remedy)
    elif node.settings is not None and (node.settings.secrets_from == POD or node.settings.pod_events):
        is_pod_mode = node.settings.secrets_from == POD
        error = client_certificate_error(node, located, "--secrets-from pod" if is_pod_mode else "--pod-events")
        if error is not None:
            evidence = at(located.origin or Origin(located.kubeconfig), _within(node, error.message))._replace(line=0)
            remedy = error.hint or "set a kubeconfig with a client certificate: args: [--kubeconfig=FILE]"
            if is_pod_mode:
                yield find("pod-mode-without-client-certificate", evidence, remedy=remedy)
            else:
                yield find("pod-events-without-client-certificate", evidence, remedy=remedy)
    if located.endpoint is not None:
        yield from _doubts(node, located)
    if not node.given.live:
        yield from _offline(node, located)


def _doubts(node: Node, located: Located) -> Results:
    """What the plugin reads otherwise in a kubeconfig than the kubelet does."""
    assert located.endpoint is not None
    place = located.endpoint
    try:
        document = loads_yaml(node.tree.read(located.kubeconfig, 4 * 1024 * 1024), located.kubeconfig)
    except (Unreadable, Syntax):
        return
    line, _ = _line_of(node, located.kubeconfig, "insecure-skip-tls-verify")
    if place.skips_verifying and not (place.ca_file or place.ca_data) and not node.given.live:
        evidence = at(located.kubeconfig, "insecure-skip-tls-verify: true, and no certificate-authority", line)
        remedy = f"in {Origin(located.kubeconfig, line)} write certificate-authority: FILE, with the cluster's CA"
        consequence = "The plugin still verifies the API server, with the system's CAs, and fails if that fails."
        yield find("kubeconfig-doubtful", evidence, remedy=remedy, consequence=consequence)
    if not as_mapping(document.value).get("current-context"):
        contexts = as_mapping(document.value).get("contexts") or [{}]
        remedy = f"write current-context: {as_mapping(contexts[0]).get('name')} in {located.kubeconfig}"
        evidence = at(located.kubeconfig, "it has no current-context")
        yield find("kubeconfig-doubtful", evidence, remedy=remedy)


def _within(node: Node, text: str) -> str:
    return text.replace(node.tree.root, "") if node.tree.root else text


def _offline(node: Node, located: Located) -> Results:
    yield Unexamined("the API server and RBAC", "not asked with --root")
    if (error := tls_error(node, located)) is not None:
        yield from _failure(node, located, error)
    # An image is made before its node joins a cluster: that no file names the API server yet is not a fault.
    if located.endpoint is not None and located.origin is not None and _is_loopback(node, located):
        evidence = _localhost(located)
        yield find("apiserver-localhost", evidence, remedy=_name_the_cluster(located), severity="warning")


def _is_loopback(node: Node, located: Located) -> bool:
    """Whether the address is this node itself, where nothing says that an API server is meant to be."""
    assert located.endpoint is not None
    if "/rancher/" in located.kubeconfig:
        return False
    host = located.endpoint.host
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    manifests = "/etc/kubernetes/manifests"
    names = node.tree.names(manifests) if node.tree.is_directory(manifests) else []
    return loopback and not any(name.startswith("kube-apiserver") for name in names)


def _localhost(located: Located) -> Evidence:
    assert located.endpoint is not None
    text = f"the API server is {located.endpoint.url} ({located.endpoint.origin})"
    return at(located.origin, text) if located.origin else seen(text)


def _name_the_cluster(located: Located) -> str:
    where = located.origin
    if where is not None and where.file == located.kubeconfig:
        return f"set the cluster's address: server in {where}, or args: [--apiserver=https://HOST:6443]"
    place = f" in {where}" if where else ""
    return f"set the cluster's address{place}: args: [--apiserver=https://HOST:6443], or [--kubeconfig=FILE]"


def check_reachable(node: Node, answers: Answers) -> Results:
    """Whether the API server answers, by a certificate that counts, with a clock like ours."""
    located, failure = answers.located, answers.failure
    if located.endpoint is None:
        yield Unexamined("the API server and RBAC", "its address is not known")
        return
    if failure is not None:
        yield from _failure(node, located, failure)
        yield Unexamined("RBAC, the clock", "the API server could not be asked")
        return
    yield Examined(f"the API server {located.endpoint.url} ({located.endpoint.origin})")
    if answers.identity_refused:
        evidence = at(located.kubeconfig, f"its client certificate: {answers.identity_refused}")
        remedy = "check whether it has expired: openssl x509 -noout -enddate -in FILE; the kubelet needs it as well"
        yield find("kubeconfig-broken", evidence, remedy=remedy)
    yield from _clock(answers)


def _failure(node: Node, located: Located, failure: ProviderError) -> Results:
    assert located.endpoint is not None
    evidence = at(located.origin or Origin(""), _within(node, failure.message))
    hint = _within(node, failure.hint)
    if "Permission denied" in failure.message:
        yield Unexamined("the API server", f"{evidence.text}: run doctor as root")
    elif isinstance(failure, ConfigError):
        key = "certificate-authority" if "CA certificates" in failure.message else "client-certificate"
        given = node.entry.origin_of_flag(f"--{key}") if node.entry and key == "certificate-authority" else None
        if given is not None:
            remedy = "set it to a file with the cluster's CA in PEM, or remove it: the kubeconfig has the CA as well"
            yield find("plugin-arguments-refused", at(given, evidence.text), remedy=remedy)
            return
        line, written = _line_of(node, located.kubeconfig, key)
        text = f"{written}: {evidence.text}" if written else evidence.text
        remedy = "create the file that the kubeconfig names, or correct the kubeconfig; the kubelet needs it as well"
        remedy = remedy if written else hint or f"correct {located.kubeconfig}"
        yield find("kubeconfig-broken", at(Origin(located.kubeconfig, line), text), remedy=remedy)
    elif re.search(r"cannot be trusted|does not speak TLS|does not support TLS|TLS with", failure.message):
        yield find("apiserver-certificate", evidence, remedy=hint)
    elif _is_loopback(node, located) and re.search("Connection refused|cannot resolve", failure.message):
        # Whatever takes connections there is meant to be there: an API server, or a load balancer in front of it.
        yield find("apiserver-localhost", _localhost(located), evidence, remedy=_name_the_cluster(located))
    elif "did not answer within" in failure.message:
        remedy = (
            f"check that it is running and answers; the address comes from {located.endpoint.origin}:\n"
            f"curl -k --max-time 15 {shlex.quote(f'{located.endpoint.url}/readyz')}"
        )
        yield find("apiserver-unreachable", evidence, remedy=remedy)
    else:
        remedy = hint or f"check that this is a Kubernetes API server; the address comes from {located.endpoint.origin}"
        yield find("apiserver-unreachable", evidence, remedy=remedy)


def _line_of(node: Node, file: str, key: str) -> tuple[int, str]:
    """The line of a file that is named by a key of a kubeconfig, and its text; never that of an embedded one."""
    text = node.tree.text(file, 4 * 1024 * 1024) if file and node.tree.exists(file) else ""
    found = ((n, line.strip(" -")) for n, line in enumerate(text.splitlines(), 1))
    return next(((n, line) for n, line in found if line.startswith(f"{key}:")), (0, ""))


def _clock(answers: Answers) -> Results:
    if answers.skew is None:
        yield Unexamined("the clock", "the API server's answer has no date")
    elif abs(answers.skew) >= _SKEW_TOLD:
        behind = "behind" if answers.skew > 0 else "ahead of"
        evidence = seen(f"this node's clock is {abs(answers.skew):.0f} s {behind} that of the API server (Date header)")
        severity = "error" if abs(answers.skew) >= _SKEW_BAD else "warning"
        remedy = "check the time service: timedatectl, chronyc tracking; chronyc makestep sets the clock at once"
        yield find("clock-skew", evidence, remedy=remedy, severity=severity)
    else:
        yield Examined("the clock, by the API server's")


# -- rights -----------------------------------------------------------------------------------------------------------


def check_audience(node: Node, answers: Answers, own: tuple[str, ...], file: str) -> Results:
    """The configured audience against the API server's own."""
    entry, configured = node.entry, audience_of(node)
    if entry is None or not configured:
        return
    origin = entry.origin("tokenAttributes", "serviceAccountTokenAudience")
    evidence = at(origin, f"serviceAccountTokenAudience: {configured}")
    if own and configured not in own:
        proof = at(file, f"a token from the API server: aud {', '.join(own)}")
        remedy = (
            f"serviceAccountTokenAudience: {own[0]}   ({CORRECTED})\n"
            f'and in the ClusterRole of the nodes:\nresources: ["{own[0]}"]'
        )
        yield find("audience-rejected", evidence, proof, remedy=remedy)
    elif answers.audience_refused:
        remedy = "set the API server's own audience, which kubectl create token default shows as aud"
        yield find("audience-rejected", evidence, seen(answers.audience_refused), remedy=remedy)
    elif own or any(right.allowed is not None for right in answers.rights):
        yield Examined(f"the audience {configured}")
    else:
        yield Unexamined("whether the API server accepts the audience", "no pod's token to compare with")


def check_node_rights(node: Node, answers: Answers, own: tuple[str, ...]) -> Results:
    """What the kubelet itself needs."""
    if answers.located.endpoint is None or answers.failure is not None:
        return
    if answers.refused:
        yield Unexamined("what the API server allows this node", answers.refused)
        return
    audience = audience_of(node)
    if answers.has_audience is False and not (own and audience not in own):
        evidence = seen(f"asked as {answers.node or 'the node'}: {AUDIENCE_VERB} on {audience}: denied")
        yield find("node-lacks-audience", evidence, remedy=f"{_RBAC}\n{_grant_audience(audience)}")
    elif answers.has_audience:
        yield Examined(f"the node may get tokens of the audience {audience}")
    if answers.has_accounts is False:
        evidence = seen(f"asked as {answers.node or 'the node'}: get serviceaccounts in all namespaces: denied")
        command = (
            "kubectl create clusterrole node-serviceaccounts --verb=get --resource=serviceaccounts\n"
            "kubectl create clusterrolebinding node-serviceaccounts --clusterrole=node-serviceaccounts "
            "--group=system:nodes"
        )
        yield find("node-lacks-serviceaccounts", evidence, remedy=f"{_RBAC}\n{command}")
    elif answers.has_accounts:
        yield Examined("the node may get service accounts")


def _grant_audience(audience: str) -> str:
    # kubectl create clusterrole knows no resource of that name.
    return (
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata:\n"
        "  name: crio-credential-provider-nodes\nrules:\n"
        f'- apiGroups: [""]\n  resources: ["{audience}"]\n  verbs: ["{AUDIENCE_VERB}"]\n'
        '- apiGroups: [""]\n  resources: ["serviceaccounts"]\n  verbs: ["get"]'
    )


def check_account_rights(node: Node, answers: Answers) -> Results:
    """What the service accounts of the pods on this node need, by the mode."""
    if answers.located.endpoint is None or answers.failure is not None:
        return
    what = "whether service accounts may read their pull secrets"
    if node.settings is not None and node.settings.secrets_from == POD:
        return
    if answers.rights_unasked:
        yield Unexamined(what, answers.rights_unasked)
        return
    for right in answers.rights:
        if right.allowed is None:
            yield Unexamined(f"{what}: {_name(right)}", f"{right.wanted}: {right.reason}")
    denied = [right for right in answers.rights if right.allowed is False]
    asked = {right.account for right in answers.rights if right.allowed is not None}
    refused = {right.account for right in denied}
    if answers.accounts:
        yield Unexamined(f"{what}: {answers.accounts} more", f"{MOST_ACCOUNTS} are asked for")
    if denied:
        evidence = [seen(_denied(right)) for right in denied]
        remedy = "\n".join(("as an administrator:", *dict.fromkeys(_grant(node, right) for right in denied)))
        tenants = {account for account in refused if not account.is_system}
        all_of_them = tenants == {account for account in asked if not account.is_system}
        # What belongs to the cluster itself seldom has pull secrets of its own.
        severity = ("error" if all_of_them else "warning") if tenants else "note"
        yield find("secrets-role-missing", *evidence, remedy=remedy, severity=severity)
    elif asked:
        yield Examined(
            f"the rights of service accounts with pods here: {', '.join(sorted(_full(account) for account in asked))}"
        )


def _denied(right: Right) -> str:
    account = right.account
    fails = f"; the pod {account.pod} cannot pull {account.image}" if account.fails else ""
    return f"asked as {_name(right)}: {right.wanted} in namespace {account.namespace}: denied{fails}"


def _full(account: Account) -> str:
    return f"{account.namespace}/{account.name}"


def _name(right: Right) -> str:
    return f"service account {_full(right.account)}"


def _grant(node: Node, right: Right) -> str:
    """The commands that the plugin's own message has."""
    namespace, account = right.account.namespace, right.account.name
    if node.settings is not None and node.settings.secrets_from == NAMESPACE:
        role, rule = f"list-secrets-as-{account}", "--verb=list --resource=secrets"
    else:
        resource, _, name = right.wanted.removeprefix("get ").partition("/")
        role = f"pull-{'account' if resource == 'serviceaccounts' else 'secrets'}-of-{account}"
        rule = f"--verb=get --resource={resource} --resource-name={name}"
    return (
        f"kubectl -n {namespace} create role {role} {rule} && "
        f"kubectl -n {namespace} create rolebinding {role} --role={role} --serviceaccount={namespace}:{account}"
    )


def check_runtime_version(node: Node, answers: Answers) -> Results:
    """The runtime of the node's object, where nothing else told that it is another one."""
    known = ("cri-o://", "containerd://")
    if answers.runtime and not answers.runtime.startswith(known) and not is_other_runtime(node.endpoint):
        evidence = seen(f"the node {answers.node} runs {answers.runtime}")
        yield find("runtime-not-crio", evidence, remedy="use this plugin on nodes with CRI-O or containerd only")
