"""What the API server says when it is asked as the node, by the kubelet's own client certificate.

Reads and asks; nothing that it does stays: access reviews and token requests are answered and not kept. A token that it
gets is used for one question and never told.
"""

from __future__ import annotations

import email.utils
import os
import posixpath
import re
import time
from typing import NamedTuple

from .. import settings
from ..errors import ClusterError, ConfigError, ProviderError, RequestError
from ..kubernetes import endpoint, serviceaccount
from ..kubernetes.apiserver import ApiServer
from ..kubernetes.clientcertificate import ClientCertificate, find_client_certificate
from ..kubernetes.endpoint import KUBECONFIGS, Endpoint
from ..kubernetes.names import is_subdomain
from ..node.commandline import Origin
from ..node.facts import Node
from ..node.kubelet import Version, as_mapping, parse_version
from ..node.tree import Unreadable
from ..settings import POD, Settings
from .accounts import Account, Right, ask_rights, find_accounts, may

MOST_ACCOUNTS = 10
"""Service accounts for which a token is asked."""
_MOST_TOKENS = 3
_DEADLINE = 15.0
"""Seconds for all questions to one API server."""
_MAX_ANSWER = 32 * 1024 * 1024
_SUBJECT_REVIEWS = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
_USER = "system:node:"

AUDIENCE_VERB = "request-serviceaccounts-token-audience"


class Located(NamedTuple):
    """Where the API server is.

    Attributes:
        kubeconfig: its path on the node, "" where there is none.
        endpoint: None where the files do not tell.
        origin: the line that names the server.
        error: why there is no endpoint.
        unreadable: a file that this process may not read.
    """

    kubeconfig: str
    endpoint: Endpoint | None
    origin: Origin | None
    error: ProviderError | None
    unreadable: Unreadable | None


class Answers(NamedTuple):
    """What the API server said.

    Attributes:
        located: where it was looked for.
        failure: why it could not be asked at all, None where it answered.
        skew: seconds by which its clock is ahead of ours; None where it does not say.
        node: the name of this node, "" where it is not known.
        runtime: ``cri-o://1.34.3``, "" where the node's object does not tell.
        version: the kubelet's, by the node's object.
        has_audience, has_accounts: whether the node may get tokens of the audience, and service accounts.
        refused: why these were not asked, or not answered.
        accounts: how many there are besides those asked for.
        rights: of the service accounts.
        rights_unasked: why none was asked.
        audience_refused: the API server's 401 to a token of the configured audience, "" where there was none.
        identity_refused: its 401 to the client certificate.
    """

    located: Located
    failure: ProviderError | None = None
    skew: float | None = None
    node: str = ""
    runtime: str = ""
    version: Version | None = None
    has_audience: bool | None = None
    has_accounts: bool | None = None
    refused: str = ""
    accounts: int = 0
    rights: tuple[Right, ...] = ()
    rights_unasked: str = ""
    audience_refused: str = ""
    identity_refused: str = ""


# -- where it is ------------------------------------------------------------------------------------------------------


def locate(node: Node) -> Located:
    """Finds the API server as the plugin does when this node's kubelet runs it."""
    chosen = node.settings or settings.loads([], {})
    flag = node.kubelet.flag("kubeconfig") if node.kubelet else None
    usual = next((path for path in KUBECONFIGS if node.tree.exists(path)), "")
    kubeconfig = chosen.kubeconfig or (flag.value if flag else "") or usual
    # What names the server; where there is neither, the plugin takes its default.
    file = "" if chosen.apiserver else kubeconfig or chosen.apiserver_env_file
    try:
        if file and (kubeconfig or node.tree.exists(file)):
            node.tree.read(file, 4 * 1024 * 1024)
    except Unreadable as error:
        if error.denied:
            return Located(kubeconfig, None, None, None, error)
        reason = "does not exist" if error.missing else f"cannot be read: {error.reason}"
        origin = _naming(node, file)
        is_ours = node.entry is not None and origin.file == node.entry.document.file
        hint = f"create {file}, which the kubelet needs as well, or correct {origin}"
        if is_ours:
            hint = f"remove it from {origin}, as the plugin finds the kubelet's own; or set it to an existing file"
        return Located(kubeconfig, None, origin, ConfigError(f"{file} {reason}", hint), None)
    try:
        found = endpoint.find_endpoint(local_settings(node, kubeconfig))
    except ConfigError as error:
        line = re.search(r"at line (\d+)", error.message)
        return Located(kubeconfig, None, Origin(file, error.line or (int(line[1]) if line else 0)), error, None)
    return Located(kubeconfig, _local_endpoint(node, found), _server_line(node, kubeconfig, found), None, None)


def _naming(node: Node, kubeconfig: str) -> Origin:
    """Who names a file that cannot be used."""
    for text, origin in node.entry.arguments if node.entry else ():
        if kubeconfig in text:
            return origin
    flag = node.kubelet.flag("kubeconfig") if node.kubelet else None
    return flag.origin if flag else Origin(kubeconfig)


def local_settings(node: Node, kubeconfig: str) -> Settings:
    """The plugin's settings, with paths where they lie on this machine; nothing is kept between runs."""
    chosen = node.settings or settings.loads([], {})
    local = Settings()
    vars(local).update(vars(chosen))
    local.root, local.cache_dir = node.tree.root, ""
    local.kubeconfig = node.tree.real(kubeconfig) if kubeconfig else ""
    local.apiserver_env_file = node.tree.real(chosen.apiserver_env_file)
    if chosen.certificate_authority:
        local.certificate_authority = node.tree.real(chosen.certificate_authority)
    return local


def shown(node: Node, text: str) -> str:
    """A text with the node's paths as the node has them."""
    return text.replace(node.tree.root, "") if node.tree.root else text


def _real(node: Node, path: str) -> str:
    """A path that may begin with the root, all links of it resolved inside the root."""
    return node.tree.real(path.removeprefix(node.tree.root)) if path else ""


def _local_endpoint(node: Node, found: Endpoint) -> Endpoint:
    ca_file = _real(node, found.ca_file)
    origin = shown(node, found.origin)
    return Endpoint(
        *(found.host, found.port, origin, ca_file, found.ca_data, found.server_name, found.path),
        skips_verifying=found.skips_verifying,
    )


def _server_line(node: Node, kubeconfig: str, found: Endpoint) -> Origin | None:
    """Where the server is named; None for the default."""
    named = shown(node, found.origin)
    if not named.startswith("/"):
        return _naming(node, "--apiserver") if named.startswith("--apiserver") else None
    try:
        lines = node.tree.text(named, 4 * 1024 * 1024).splitlines()
    except Unreadable:
        return Origin(named)
    keys = ("server:", '"server":') if named == kubeconfig else ("KUBERNETES_SERVICE_HOST",)
    numbers = [n for n, line in enumerate(lines, 1) if line.strip(" -\t").removeprefix("export ").startswith(keys)]
    return Origin(named, next((n for n in numbers if found.host in lines[n - 1]), numbers[0] if numbers else 0))


# -- what it says -----------------------------------------------------------------------------------------------------


def ask(node: Node, located: Located) -> Answers:
    """Asks the API server all that is to be known of it."""
    if located.endpoint is None:
        return Answers(located)
    try:
        client = _client(node, located.kubeconfig)
    except ConfigError as error:
        client, without = None, error.message
    else:
        without = ""
    try:
        api = connect(node, located, client)
        skew = _reach(api)
    except ProviderError as error:
        return Answers(located, error)
    answers = Answers(located, skew=skew)
    if client is None:
        return answers._replace(refused=shown(node, without), rights_unasked=shown(node, without))
    return _as_node(node, api, answers)


def _client(node: Node, kubeconfig: str, flag: str = "--secrets-from pod") -> ClientCertificate:
    found = find_client_certificate(local_settings(node, kubeconfig), flag)
    if found.embedded:
        return found
    files = _real(node, found.certificate), _real(node, found.key)
    for file in files:
        _refuse_pipe(file, "")
    return ClientCertificate(*files, embedded=False)


def _refuse_pipe(file: str, what: str) -> None:
    """OpenSSL would wait for somebody to write into it. ConfigError in the words of ``apiserver``."""
    if os.path.exists(file) and not os.path.isfile(file):
        kind = "a directory" if os.path.isdir(file) else "not a regular file"
        raise ConfigError(f"cannot use {what}{file}: it is {kind}")


def connect(node: Node, located: Located, client: ClientCertificate | None, *, verify: bool = True) -> ApiServer:
    """What the plugin makes of the files that it needs for TLS; asks no server.

    Raises:
        ConfigError: a CA or a client certificate that cannot be used.
    """
    assert located.endpoint is not None
    if verify:
        _refuse_pipe(located.endpoint.ca_file, "the CA certificates of ")
    return ApiServer(located.endpoint, _DEADLINE, _MAX_ANSWER, verify, client)


def client_certificate_error(node: Node, located: Located, flag: str) -> ConfigError | None:
    """Why the plugin would find no client certificate, which a flag needs; None where it does."""
    try:
        _client(node, located.kubeconfig, flag)
    except ConfigError as error:
        return error
    return None


def tls_error(node: Node, located: Located) -> ConfigError | None:
    """Why the plugin could not use its files for TLS, by the settings that it has; None where it can."""
    chosen = node.settings
    if chosen is None or located.endpoint is None:
        return None
    try:
        client = _client(node, located.kubeconfig) if chosen.secrets_from == POD else None
    except ConfigError:
        # Told for itself.
        client = None
    try:
        connect(node, located, client, verify=not chosen.insecure_skip_tls_verify)
    except ConfigError as error:
        return error
    return None


def _reach(api: ApiServer) -> float | None:
    """Asks for the version, which everybody may; any answer of an API server will do. Seconds by which the server's
    clock is ahead."""
    try:
        api.get("/version")
    except ClusterError as error:
        # No answer; or one that an API server does not give.
        if error.status in (0, 200) or "not a Kubernetes Status" in error.message:
            raise
    now = time.time()
    try:
        return email.utils.parsedate_to_datetime(api.date).timestamp() - now if api.date else None
    except (ValueError, OverflowError):
        return None


def _as_node(node: Node, api: ApiServer, answers: Answers) -> Answers:
    """What needs the node's own name and rights."""
    try:
        name = _name(node, api)
    except ClusterError as error:
        return answers._replace(identity_refused=str(error), refused=error.message, rights_unasked=error.message)
    answers = answers._replace(node=name)
    if name:
        answers = _node_object(api, answers)
    audience = audience_of(node)
    if not audience:
        why = "the entry has no audience"
        return answers._replace(refused=why, rights_unasked=why)
    accounts, everybody, unasked = _accounts(node, api, name)
    try:
        answers = answers._replace(
            has_audience=_may_for(api, AUDIENCE_VERB, audience, accounts or everybody),
            has_accounts=_may_for(api, "get", "serviceaccounts", accounts or everybody),
        )
    except ClusterError as error:
        answers = answers._replace(refused=error.message)
    return _with_rights(node, api, answers._replace(rights_unasked=unasked), audience, accounts)


def _may_for(api: ApiServer, verb: str, resource: str, accounts: list[Account]) -> bool:
    """Whether the node may do something with service accounts: in all namespaces, else with each of those here."""
    if may(api, {"verb": verb, "group": "", "resource": resource}):
        return True
    each = [
        {"verb": verb, "group": "", "resource": resource, "namespace": account.namespace, "name": account.name}
        for account in accounts[:MOST_ACCOUNTS]
    ]
    return bool(each) and all(may(api, attributes) for attributes in each)


def audience_of(node: Node) -> str:
    """The configured audience, "" where there is none."""
    attributes = node.entry.token_attributes if node.entry else None
    value = attributes.get("serviceAccountTokenAudience") if attributes else None
    return value if isinstance(value, str) else ""


def _name(node: Node, api: ApiServer) -> str:
    """The node's name, as the API server knows it; ClusterError where it does not accept the certificate."""
    review = {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}
    try:
        answer = api.create(_SUBJECT_REVIEWS, review)
    except ClusterError as error:
        if error.status == 401:
            raise
        flag = node.kubelet.flag("hostname-override") if node.kubelet else None
        return flag.value if flag and is_subdomain(flag.value) else _host_name(node)
    user = as_mapping(as_mapping(answer.get("status")).get("userInfo")).get("username")
    name = user.removeprefix(_USER) if isinstance(user, str) and user.startswith(_USER) else ""
    return name if is_subdomain(name) else ""


def _host_name(node: Node) -> str:
    try:
        name = node.tree.text("/etc/hostname").strip().lower()
    except Unreadable:
        return ""
    return name if is_subdomain(name) else ""


def find_node_object(node: Node) -> dict[str, object]:
    """This node's object, asked for as the node.

    Raises:
        ProviderError: the API server cannot be asked, or does not tell.
    """
    located = locate(node)
    if located.endpoint is None:
        raise located.error or ClusterError("the API server's address is not known")
    api = connect(node, located, _client(node, located.kubeconfig))
    found: dict[str, object] = api.get(f"/api/v1/nodes/{_name(node, api)}")
    return found


def _node_object(api: ApiServer, answers: Answers) -> Answers:
    try:
        found = api.get(f"/api/v1/nodes/{answers.node}")
    except ClusterError:
        return answers
    info = as_mapping(as_mapping(found.get("status")).get("nodeInfo"))
    runtime, version = info.get("containerRuntimeVersion"), info.get("kubeletVersion")
    parsed = parse_version(version, f"node {answers.node}") if isinstance(version, str) else None
    return answers._replace(runtime=runtime if isinstance(runtime, str) else "", version=parsed)


# -- the rights of service accounts -----------------------------------------------------------------------------------


def _accounts(node: Node, api: ApiServer, name: str) -> tuple[list[Account], list[Account], str]:
    """The service accounts that matter here, all that have a pod here, and why there are none of the former."""
    if not name:
        return [], [], "the node's name is not known"
    try:
        pods = api.get(f"/api/v1/pods?fieldSelector=spec.nodeName%3D{name}")
    except ClusterError as error:
        return [], [], f"cannot list the pods of this node: {error.message}"
    accounts, everybody = find_accounts(node, pods), find_accounts(node, pods, with_mirror=False)
    return accounts, everybody, "" if accounts else "no pod on this node uses an image that has a mirror"


def _with_rights(node: Node, api: ApiServer, answers: Answers, audience: str, accounts: list[Account]) -> Answers:
    mode = node.settings.secrets_from if node.settings else ""
    if not mode or mode == POD:
        why = (
            "--secrets-from=pod reads secrets as the node, which needs no Role"
            if mode
            else "the plugin refuses its arguments"
        )
        return answers._replace(rights_unasked=why)
    if answers.has_audience is False:
        return answers._replace(rights_unasked="the node may not get tokens for the audience")
    if answers.rights_unasked:
        return answers
    assert answers.located.endpoint is not None
    # Without the client certificate: with it the API server would answer for the node, whatever the token says.
    as_account = ApiServer(answers.located.endpoint, _DEADLINE, _MAX_ANSWER)
    rights: list[Right] = []
    for account in accounts[:MOST_ACCOUNTS]:
        try:
            rights += ask_rights(mode, api, as_account, account, audience)
        except ClusterError as error:
            return answers._replace(audience_refused=error.message, rights_unasked="its tokens are not accepted")
    return answers._replace(rights=tuple(rights), accounts=max(0, len(accounts) - MOST_ACCOUNTS))


# -- the API server's own audience ------------------------------------------------------------------------------------


def own_audiences(node: Node) -> tuple[tuple[str, ...], str]:
    """The audiences of a pod's default token on this node, and the file; the API server made it for itself.

    Only the claims are read, and of them only the audience is told.
    """
    if node.given.config:
        return (), ""
    flag = node.kubelet.flag("root-dir") if node.kubelet else None
    root = flag.value if flag else node.settings.kubelet_root_dir if node.settings else "/var/lib/kubelet"
    for path in _token_files(node, posixpath.join(root, "pods"))[:_MOST_TOKENS]:
        try:
            account = serviceaccount.loads(node.tree.text(path).strip())
        except (Unreadable, RequestError):
            continue
        if account.audiences:
            return account.audiences, path
    return (), ""


def _token_files(node: Node, pods: str) -> list[str]:
    """Those of kube-api-access volumes, which have the API server's own audience."""
    found = []
    try:
        for pod in node.tree.names(pods):
            volumes = f"{pods}/{pod}/volumes/kubernetes.io~projected"
            if node.tree.is_directory(volumes):
                found += [f"{volumes}/{v}/token" for v in node.tree.names(volumes) if v.startswith("kube-api-access-")]
    except Unreadable:
        pass
    return [path for path in found if node.tree.exists(path)]
