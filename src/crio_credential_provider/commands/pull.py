"""A pull as a person names it, turned into what the plugin is given for one: request, settings, connection.

Shared by the commands that say or try what a pull will do. The plugin's flags, with its defaults and its environment
variables, count as for the plugin. Asks the API server for a token as the kubelet does, where one is needed.
Decides nothing about pulls.

    add_arguments(parser)
    pull = find(parser.parse_args())
    decision.resolve(pull.request, pull.settings, pull.connect)
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from .. import settings
from ..errors import ClusterError, ConfigError, ProviderError, RequestError, UsageError
from ..explanation import NotAsked, is_short_name
from ..images import reference
from ..images.reference import Reference, ReferenceSyntaxError
from ..kubernetes import credentialprovider, serviceaccount
from ..kubernetes.credentialprovider import Request
from ..pull import decision
from ..runtimes.crio import registries
from ..settings import FLAGS_BY_NAME, POD, SERVICE_ACCOUNT, Settings
from . import objectsfile
from .objectsfile import ObjectsFile
from .output import there

if TYPE_CHECKING:
    from ..kubernetes.apiserver import ApiServer
    from ..kubernetes.endpoint import ClientCertificate
    from ..kubernetes.pullsecrets import Cluster
    from ..kubernetes.serviceaccount import ServiceAccount

FLAGS = (
    "secrets-from",
    "mirror-registry",
    "registries-conf",
    "registries-conf-dir",
    "auth-dir",
    "global-auth-file",
    "kubeconfig",
    "apiserver",
    "apiserver-env-file",
    "certificate-authority",
    "insecure-skip-tls-verify",
    "deadline",
    "max-answer-size",
    "no-pull-record",
    "kubelet-root-dir",
    "root",
)
"""The plugin's flags that matter to what it decides."""

_READ = {
    "registries-conf": "file",
    "registries-conf-dir": "directory",
    "kubeconfig": "file",
    "certificate-authority": "file",
    "root": "directory",
}
"""Those of them that have no default: what a person names must be there."""

PROVIDER_NAME = "crio-credential-provider"
"""How the CredentialProviderConfig names the plugin: like its executable."""

_MAX_SIZE = 4 * 1024 * 1024
_CONFIG_SUFFIXES = (".json", ".yaml", ".yml")
_EXPIRED = (
    "the token in the request has expired: give IMAGE and -n NAMESPACE to ask "
    "for a new one, or the secrets with --secrets"
)
_EXAMPLES = "--help has examples"
_TOKEN_SECONDS = 600
"""The least that the API server grants; a pull's token is asked for and used within a second."""


class Pull(NamedTuple):
    """One pull.

    Attributes:
        typed: the image as the pod names it; "" with a recorded request, which does not tell.
        image: the same normalised, with its tag and digest.
        request: what the kubelet would write to the plugin.
        settings: of the plugin.
        connect: the connection to the cluster, as ``decision.resolve`` takes it.
        notes: what differs here from a pull, for the person.
        offline: the file that stands for the cluster, if one was given.
        enforcing: whether CRI-O refuses a short name that may mean several images.
    """

    typed: str
    image: Reference
    request: Request
    settings: Settings
    connect: Callable[[], Cluster]
    notes: tuple[str, ...] = ()
    offline: ObjectsFile | None = None
    enforcing: bool = True


class RefusedArguments(ProviderError):
    """Arguments of the CredentialProviderConfig at ``path`` that the plugin itself refuses, with exit status 2."""

    fault = "usage"

    def __init__(self, message: str, hint: str, path: str) -> None:
        super().__init__(message, hint)
        self.path = path


# -- the command line -------------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What names a pull, and the plugin's flags."""
    parser.add_argument("image", metavar="IMAGE", nargs="?", help="the image as written in the pod")
    parser.add_argument("-n", "--namespace", metavar="NAMESPACE", help="namespace of the pod")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--service-account", metavar="NAME", help="service account of the pod (default default)")
    who.add_argument("--pod", metavar="NAME", help="the pod, whose service account is looked up")
    parser.add_argument(
        "--request",
        metavar="FILE",
        type=there("file"),
        help="a recorded CredentialProviderRequest instead; -: stdin",
    )
    parser.add_argument(
        "--secrets",
        metavar="FILE",
        type=there("file"),
        help="objects of the cluster (kubectl get secrets,pods -o yaml) instead of the API server; -: stdin",
    )
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        type=there("file"),
        help="service account token to use (from kubectl create token) instead of a new one",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=there("file", "directory"),
        help="CredentialProviderConfig, or a directory of them, for args and env of the plugin's entry (default: "
        "the one of the node's kubelet)",
    )
    group = parser.add_argument_group("flags of the plugin, which take precedence over those of --config")
    for name in FLAGS:
        flag = FLAGS_BY_NAME[name]
        text = f"{flag.help}{f' (default {flag.default})' if flag.default not in ('', 'false') else ''}"
        options: dict[str, Any] = {"metavar": flag.metavar, "action": "append" if flag.repeatable else "store"}
        if not flag.metavar:
            options = {"action": "store_const", "const": "true"}
        elif name in _READ:
            options["type"] = there(_READ[name])
        group.add_argument(f"--{name}", help=text.replace("%", "%%"), **options)


class Place(NamedTuple):
    """What this machine, or the directory of ``--root``, says of pulls: looked up once, so that all of it belongs
    together.

    Attributes:
        config: the CredentialProviderConfig that counts, "" where there is none.
        arguments, variables: of the plugin's entry there.
        audience: of the tokens that the kubelet hands the plugin, "" where it is not known; None where the entry has no
            tokenAttributes, so that there is none.
        note: what a person should know of that file, "" for nothing.
        kubeconfig: the one that the kubelet names, "" where it names none.
        enforcing: whether CRI-O refuses a short name that may mean several images.
        missing: what makes a node, and is not there.
    """

    config: str
    arguments: list[str]
    variables: dict[str, str]
    audience: str | None
    note: str
    kubeconfig: str
    enforcing: bool
    missing: tuple[str, ...]


def look(given: argparse.Namespace) -> Place:
    """Looks for the kubelet and CRI-O, and reads what the kubelet is told of the plugin.

    Raises:
        UsageError: a ``--config`` that cannot be used.
    """
    from ..node import crio, kubelet
    from ..node.tree import Tree

    root = given.root or os.environ.get(FLAGS_BY_NAME["root"].variable, "")
    tree, ticks = Tree(root), os.sysconf("SC_CLK_TCK")
    kubelets = kubelet.find_kubelet(tree, ticks, live=not root)
    runtime = crio.find_crio(tree, ticks, live=not root)
    flags = [kubelets.flag(name) if kubelets else None for name in (kubelet.PROVIDER_CONFIG, "kubeconfig")]
    config, kubeconfig = (tree.real(f.value) if f is not None and tree.exists(f.value) else "" for f in flags)
    entry: tuple[list[str], dict[str, str], str | None] = ([], {}, "")
    note = ""
    if given.config:
        config, entry = given.config, _load_entry(given.config)
    elif config:
        note = f"the plugin's arguments come from {config}, the kubelet's configuration"
        try:
            entry = _load_entry(config)
        except UsageError as error:
            why = error.message.removeprefix("--config: ")
            # In full it is told by doctor.
            note = f"the kubelet's CredentialProviderConfig is ignored, and the plugin's defaults are used: {why}"
    return Place(
        config,
        *entry,
        note,
        # Below --root the plugin knows no kubelet, and takes the usual kubeconfigs alone.
        "" if root else kubeconfig,
        # CRI-O's short_name_mode, or its default where there is no CRI-O.
        runtime is None or runtime.short_name_mode.value != crio.DISABLED,
        tuple(name for name, found in (("kubelet", kubelets), ("CRI-O", runtime)) if found is None),
    )


def find_settings(given: argparse.Namespace, place: Place) -> Settings:
    """The settings that the plugin would have: those of ``--config``, else of the file that the node's kubelet names.

    Raises:
        UsageError: a flag that cannot be.
        RefusedArguments: the plugin would refuse what the CredentialProviderConfig says.
    """
    environment = {**os.environ, **place.variables}
    try:
        settings.loads(place.arguments, place.variables)
    except UsageError as error:
        raise RefusedArguments(error.message, error.hint, place.config) from None
    own = [f"--{name}={text}" for name in FLAGS for text in _typed(given, name)]
    found = settings.loads([*place.arguments, *own], environment)
    settings.check_root(found)
    if given.mirror_registry:
        # Flags of a person go before those of the file; this one would be added to them.
        found.mirror_registry = settings.loads(own, {}).mirror_registry
    # The plugin asks its parent process, which this command is no child of.
    found.kubeconfig = found.kubeconfig or place.kubeconfig
    # Nothing is kept by a command that only looks.
    found.cache_dir = ""
    return found


def assumed(given: argparse.Namespace, chosen: Settings, place: Place) -> str:
    """What stands in for the parts of a node that are not here, "" on a node: a verdict is of another machine then."""
    if not place.missing:
        return ""
    where = f"below {chosen.root}" if chosen.root else "on this machine"
    taken = []
    if "CRI-O" in place.missing:
        taken.append(_registries_conf(chosen))
    if place.config:
        taken.append(f"the plugin's flags of {place.config}")
    elif "kubelet" in place.missing:
        own = any(_typed(given, n) or FLAGS_BY_NAME[n].variable in os.environ for n in FLAGS if n != "root")
        taken.append("the flags given here and the plugin's defaults" if own else "the plugin's defaults")
    no_node = "this does not look like a node: " if len(place.missing) > 1 else ""
    return f"{no_node}no {' and no '.join(place.missing)} was found {where}; used instead: {', and '.join(taken)}"


def _registries_conf(chosen: Settings) -> str:
    """The files that are read where no CRI-O says which, in a few words."""
    try:
        search = registries.search_files(chosen.registries_conf, chosen.registries_conf_dir, chosen.root)
    except ProviderError:
        return registries.MAIN_FILE
    absent = "" if os.path.exists(search.main) else " (not found)"
    return f"{search.main}{absent}{' and its drop-ins' if search.drop_ins else ''}"


def _typed(given: argparse.Namespace, name: str) -> list[str]:
    """The values of a flag. The plugin takes absolute paths alone, a person starts where he is."""
    flag = FLAGS_BY_NAME[name]
    value = getattr(given, flag.attribute)
    values = value if isinstance(value, list) else [] if value is None else [value]
    return [os.path.abspath(text) if text and flag.metavar in ("FILE", "DIR") else text for text in values]


def _load_entry(path: str) -> tuple[list[str], dict[str, str], str | None]:
    """``args``, ``env`` and the audience (see ``Place``) of the plugin's entry in a CredentialProviderConfig, or in a
    directory of them."""
    files = [path]
    try:
        if os.path.isdir(path):
            names = [entry.name for entry in os.scandir(path) if not entry.is_dir(follow_symlinks=False)]
            files = [os.path.join(path, name) for name in sorted(names) if name.endswith(_CONFIG_SUFFIXES)]
    except OSError as error:
        raise UsageError(f"--config: cannot read {path}: {error.strerror}") from None
    providers = [entry for file in files for entry in _load_providers(file)]
    named = [entry for entry in providers if PROVIDER_NAME in str(entry.get("name"))]
    ours = sorted(named, key=lambda entry: entry["name"] != PROVIDER_NAME)
    if not ours:
        others = ", ".join(str(entry.get("name")) for entry in providers) or "none"
        raise UsageError(f"--config: {path} has no provider {PROVIDER_NAME!r}", f"it has {others}")
    arguments, variables = ours[0].get("args") or [], ours[0].get("env") or []
    if not isinstance(arguments, list) or not isinstance(variables, list):
        raise UsageError(f"--config: {path}: args and env of {PROVIDER_NAME} must be lists")
    pairs = [(entry.get("name"), entry.get("value")) for entry in variables if isinstance(entry, dict)]
    audience = objectsfile.text(ours[0], "tokenAttributes", "serviceAccountTokenAudience")
    return (
        [str(argument) for argument in arguments],
        {str(name): str(value or "") for name, value in pairs},
        audience if ours[0].get("tokenAttributes") else None,
    )


def find_flag(place: Place, flag: str) -> str:
    """Where the CredentialProviderConfig gives the plugin a flag; "" where it does not."""
    from ..node import providerconfig, tree

    try:
        providers = providerconfig.load(tree.Tree(), place.config, None).providers if place.config else ()
    except tree.Unreadable:
        return ""
    found = (provider.origin_of_flag(flag) for provider in providers if PROVIDER_NAME in provider.name)
    return next((str(origin) for origin in found if origin), "")


def _load_providers(path: str) -> list[dict[str, Any]]:
    try:
        documents = objectsfile.load_yaml(_read(path, "--config"))
    except ValueError as error:
        raise UsageError(f"--config: {path} is not valid YAML: {error}") from None
    document = documents[0] if documents and isinstance(documents[0], dict) else {}
    providers = document.get("providers")
    if not isinstance(providers, list) or document.get("kind") != "CredentialProviderConfig":
        raise UsageError(f"--config: {path} is not a CredentialProviderConfig with providers")
    return [entry for entry in providers if isinstance(entry, dict)]


def _read(path: str, flag: str, limit: int = _MAX_SIZE) -> bytes:
    """A file that a flag names."""
    try:
        with open(path, "rb") as file:
            return _bounded(file, path, flag, limit)
    except OSError as error:
        raise UsageError(f"{flag}: cannot read {path}: {error.strerror}") from None


def _read_or_stdin(path: str, flag: str, limit: int) -> bytes:
    """The same, where - stands for standard input."""
    if path != "-":
        return _read(path, flag, limit)
    if sys.stdin is None:
        raise UsageError(f"{flag}: standard input is closed")
    try:
        return _bounded(sys.stdin.buffer, "standard input", flag, limit)
    except OSError as error:
        raise UsageError(f"{flag}: cannot read standard input: {error.strerror}") from None


def _bounded(file: BinaryIO, name: str, flag: str, limit: int) -> bytes:
    data = file.read(limit + 1)
    if len(data) > limit:
        raise UsageError(f"{flag}: {name} is larger than {limit >> 20} MiB")
    return data


# -- the pull ---------------------------------------------------------------------------------------------------------


def find(given: argparse.Namespace, chosen: Settings, place: Place) -> Pull:
    """The pull that the command line names.

    The API server is asked for a token only if the decision needs the cluster; where there is none to be had,
    ``connect`` says why.

    Raises:
        UsageError: flags that do not go together, a file that cannot be read, an image that is none.
        RequestError: the recorded request is none, as the plugin would say.
    """
    _check(given, chosen)
    found = _find(given, chosen, place)
    notes = (place.note, *found.notes) if place.note else found.notes
    return found._replace(notes=notes, enforcing=is_short_name(found.typed) and place.enforcing)


def _find(given: argparse.Namespace, chosen: Settings, place: Place) -> Pull:
    offline = None
    if given.secrets:
        origin = "standard input" if given.secrets == "-" else given.secrets
        offline = objectsfile.loads(_read_or_stdin(given.secrets, "--secrets", objectsfile.MAX_SIZE), origin)
    if given.request:
        request = credentialprovider.loads(_read_or_stdin(given.request, "--request", settings.MAX_REQUEST_SIZE))
        # What the plugin would say of the request, it says here.
        return _with_token("", decision.begin(request).image, request, chosen, offline)
    try:
        image = reference.parse(given.image)
    except ReferenceSyntaxError as error:
        hint = f"the kubelet rejects it as InvalidImageName{_meant_image(given.image)}"
        raise UsageError(f"IMAGE: {error.message}", hint) from None
    if given.token_file:
        token = _read(given.token_file, "--token-file").decode(errors="replace").strip()
        _check_token(token, given)
    elif place.audience is None:
        # As the kubelet asks the plugin then.
        note = f"the kubelet sends no token: the plugin's entry in {place.config} has no tokenAttributes"
        return _with_token(given.image, image, Request(image.name, ""), chosen, offline)._replace(notes=(note,))
    elif offline is not None:
        token = _stand_in(_account_of_file(given, chosen, offline))
    else:
        return _with_new_token(given, chosen, image, place)
    return _with_token(given.image, image, Request(image.name, token), chosen, offline)


def _meant_image(typed: str) -> str:
    """What was most likely meant by what is no image: the same without a scheme, and its name in lower case."""
    bare = typed.strip().rpartition("://")[2].strip("/")
    at = bare.find(":", bare.rfind("/") + 1) if ":" in bare.rpartition("/")[2] else len(bare)
    meant = bare[:at].lower() + bare[at:]
    try:
        reference.parse(meant)
    except ReferenceSyntaxError:
        return ""
    return f"; did you mean {meant!r}?"


def _with_token(typed: str, image: Reference, request: Request, chosen: Settings, offline: ObjectsFile | None) -> Pull:
    account = serviceaccount.loads(request.token) if request.token else None
    late = account is not None and 0 < account.expires < time.time() and offline is None and chosen.secrets_from != POD
    notes = (_EXPIRED,) if late else ()
    return Pull(typed, image, request, chosen, _connector(request, chosen, offline), notes, offline)


def _check(given: argparse.Namespace, chosen: Settings) -> None:
    """What goes together."""
    if given.request and (given.image or given.namespace or given.pod or given.service_account or given.token_file):
        raise UsageError(
            "--request has the image and the pod itself",
            "remove IMAGE, -n, --pod, --service-account and --token-file",
        )
    if not given.request and not given.image:
        raise UsageError("IMAGE is missing", "give IMAGE and -n NAMESPACE, or --request FILE")
    if not given.request and not given.namespace and not given.token_file:
        raise UsageError("-n NAMESPACE is missing: the pull secrets are those of the pod's namespace", _EXAMPLES)
    if given.request == "-" and given.secrets == "-":
        raise UsageError("only one of --request and --secrets can be standard input")
    names = (
        ("-n", given.namespace, serviceaccount.is_label),
        ("--service-account", given.service_account, serviceaccount.is_subdomain),
        ("--pod", given.pod, serviceaccount.is_subdomain),
    )
    for flag, name, is_valid in names:
        if name is not None and not is_valid(name):
            raise UsageError(f"{flag}: {name!r} is not a valid Kubernetes name")
    if chosen.secrets_from == POD and not (given.pod or given.request or given.token_file):
        raise UsageError("--secrets-from pod requires --pod: it uses the pod's imagePullSecrets")


def _check_token(token: str, given: argparse.Namespace) -> None:
    try:
        account = serviceaccount.loads(token)
    except RequestError as error:
        raise UsageError(f"--token-file: {error.message}") from None
    named = (given.namespace, given.service_account, given.pod)
    for flag, wanted, found in zip(
        ("-n", "--service-account", "--pod"), named, (account.namespace, account.name, account.pod), strict=True
    ):
        if wanted is not None and wanted != found:
            raise UsageError(f"--token-file: the token is for {found or 'no pod'}, not for {flag} {wanted}")


def _connector(request: Request, chosen: Settings, offline: ObjectsFile | None) -> Callable[[], Cluster]:
    """The connection of a pull whose token is at hand: the plugin's own, or the file in its place."""
    if offline is None:
        return lambda: _connect(chosen)

    def connect() -> Cluster:
        account = serviceaccount.loads(request.token)
        if chosen.secrets_from == POD and account.pod:
            offline.assume_holder(objectsfile.POD, account)
        elif chosen.secrets_from == SERVICE_ACCOUNT:
            offline.assume_holder(objectsfile.SERVICE_ACCOUNT, account)
        return offline

    return connect


def _connect(chosen: Settings, identity: Identity | None = None) -> Cluster:
    """As the plugin connects: as the pod, or, for ``--secrets-from pod``, as the node."""
    if chosen.secrets_from != POD:
        return _api(chosen, None)
    if identity is not None:
        return _AsUser(_api(chosen, identity.certificate), identity.token)
    from ..kubernetes import endpoint

    return _api(chosen, endpoint.find_client_certificate(chosen))


def _api(chosen: Settings, certificate: ClientCertificate | None) -> ApiServer:
    # TLS is loaded only where somebody is asked.
    from ..kubernetes import apiserver, endpoint

    return apiserver.ApiServer(
        endpoint.find_endpoint(chosen),
        chosen.deadline,
        chosen.max_answer_size,
        verify=not chosen.insecure_skip_tls_verify,
        client=certificate,
    )


def connect_as_user(chosen: Settings) -> Cluster:
    """As the kubelet asks for what a pod names: as the kubeconfig's user."""
    identity = _find_identity(chosen)
    return _AsUser(_api(chosen, identity.certificate), identity.token)


class _AsUser:
    """The seam to the API server for what is asked as the kubeconfig's user, who may have a token of his own."""

    def __init__(self, api: ApiServer, token: str) -> None:
        self._api = api
        self._token = token

    def get(self, path: str, token: str = "") -> dict[str, Any]:
        return self._api.get(path, token or self._token)

    def create(self, path: str, value: dict[str, Any]) -> dict[str, Any]:
        return self._api.create(path, value, self._token)


# -- a token ----------------------------------------------------------------------------------------------------------


class Identity(NamedTuple):
    """Whom the kubeconfig lets us be: by certificate, by token, or both. `origin` is its path."""

    origin: str
    certificate: ClientCertificate | None
    token: str


def _find_identity(chosen: Settings) -> Identity:
    """The user of the kubeconfig.

    Raises:
        ConfigError: there is no kubeconfig, it cannot be used, or its user needs a program to be run.
    """
    from ..kubernetes import endpoint

    path, user = endpoint.load_user(chosen)
    if not path:
        raise ConfigError(
            "no kubeconfig found to get the pod's token with",
            "give a kubeconfig with --kubeconfig, a token with --token-file, or the secrets with --secrets",
        )
    token = user.get("token", "")
    if user.get("tokenFile"):
        token = _read(user["tokenFile"], f"tokenFile of {path}").decode("ascii", "replace").strip()
    has_certificate = any(user.get(name) for name in ("client-certificate", "client-certificate-data"))
    if not token and not has_certificate:
        programs = [name for name in ("exec", "auth-provider") if name in user]
        has = (
            f"needs an external program ({programs[0]}), which is not run here"
            if programs
            else "has no certificate and no token"
        )
        raise ConfigError(
            f"the user of {path} {has}",
            "create a token with kubectl -n NAMESPACE create token SERVICE-ACCOUNT, and give it with --token-file FILE",
        )
    certificate = endpoint.find_client_certificate(chosen) if has_certificate else None
    return Identity(path, certificate, token)


def _with_new_token(given: argparse.Namespace, chosen: Settings, image: Reference, place: Place) -> Pull:
    """A pull whose token is asked for as the kubelet asks; only if the decision needs the cluster at all."""
    stand_in = _stand_in(
        serviceaccount.ServiceAccount(given.namespace, given.service_account or "default", given.pod or "")
    )
    request = Request(image.name, stand_in)
    if not _needs_cluster(request, chosen):
        return Pull(given.image, image, request, chosen, lambda: _connect(chosen))
    try:
        identity = _find_identity(chosen)
        token = _create_token(given, _AsUser(_api(chosen, identity.certificate), identity.token), place.audience or "")
    except ProviderError as error:
        failure = NotAsked(f"cannot get a token for the API server: {error.message}", error.hint)
        return Pull(given.image, image, request, chosen, _failing(failure))
    audience = "the API server's own audience; the command doctor checks whether the kubelet's tokens have it"
    if place.audience:
        audience = f"the audience that {place.config} names, {place.audience}"
    note = f"the token was requested as the user of {identity.origin} and has {audience}"
    request = Request(image.name, token)
    return Pull(given.image, image, request, chosen, lambda: _connect(chosen, identity), (note,))


def _needs_cluster(request: Request, chosen: Settings) -> bool:
    """Whether the decision comes to asking the cluster; asks nobody."""

    class Asked(Exception):
        pass

    def connect() -> Cluster:
        raise Asked

    try:
        decision.resolve(request, chosen, connect)
    except Asked:
        return True
    except ProviderError:
        return False
    return False


def _failing(error: ProviderError) -> Callable[[], Cluster]:
    def connect() -> Cluster:
        raise error

    return connect


def _create_token(given: argparse.Namespace, user: _AsUser, audience: str) -> str:
    """A token as the kubelet gets one: for the pod's service account, bound to the pod if one is named.

    Raises:
        ClusterError: there is no such pod or service account, or the user may not; its hint says what would do.
    """
    namespace = f"/api/v1/namespaces/{given.namespace}"
    account = given.service_account or "default"
    spec: dict[str, Any] = {"expirationSeconds": _TOKEN_SECONDS}
    if audience:
        spec["audiences"] = [audience]
    try:
        if given.pod:
            pod = user.get(f"{namespace}/pods/{given.pod}")
            account = objectsfile.text(pod, "spec", "serviceAccountName") or account
            uid = objectsfile.text(pod, "metadata", "uid")
            spec["boundObjectRef"] = {"kind": "Pod", "apiVersion": "v1", "name": given.pod, "uid": uid}
        if not serviceaccount.is_subdomain(account):
            raise ClusterError("the pod from the API server has no valid service account name")
        wanted = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": spec}
        token = objectsfile.text(user.create(f"{namespace}/serviceaccounts/{account}/token", wanted), "status", "token")
    except ClusterError as error:
        raise ClusterError(error.message, _remedy(error, given), status=error.status) from None
    try:
        serviceaccount.loads(token)
    except RequestError:
        raise ClusterError(
            "the API server's TokenRequest has no token", "check that this is a Kubernetes API server"
        ) from None
    return token


def _remedy(error: ClusterError, given: argparse.Namespace) -> str:
    """What to do where no token is given out."""
    if error.status == 403 and "audience" in error.message:
        return "allow the nodes this audience: manifests rbac prints the objects"
    if error.status == 403 and given.pod:
        return (
            "a node gets tokens only for pods that run on it; elsewhere give an administrator's "
            "kubeconfig with --kubeconfig"
        )
    if error.status == 403:
        return (
            "a node gets a token only for a pod that runs on it: give the pod with --pod, or an "
            "administrator's kubeconfig with --kubeconfig"
        )
    if error.status == 404:
        return "check the name; service accounts and pods are looked up in the namespace of -n"
    return error.hint


def _stand_in(account: ServiceAccount) -> str:
    """What only the claims of a token are read from, where there is none: it is never sent anywhere."""
    bound: dict[str, Any] = {"namespace": account.namespace, "serviceaccount": {"name": account.name}}
    if account.pod:
        bound["pod"] = {"name": account.pod, "uid": account.pod_uid}
    parts: tuple[dict[str, Any], ...] = ({"alg": "none"}, {"kubernetes.io": bound}, {})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)


def _account_of_file(given: argparse.Namespace, chosen: Settings, offline: ObjectsFile) -> ServiceAccount:
    """Whose pull it is, without asking anybody: the pod's service account is the one that the file says."""
    for kind, name in ((objectsfile.POD, given.pod), (objectsfile.SERVICE_ACCOUNT, given.service_account)):
        if name:
            offline.check(kind, given.namespace, name)
    pod = offline.find(objectsfile.POD, given.namespace, given.pod) if given.pod else None
    if given.pod and pod is None and chosen.secrets_from == SERVICE_ACCOUNT:
        name = f"{given.namespace}/{given.pod}"
        offline.note(f"{offline.origin} has no Pod {name}: its service account is assumed to be default")
    name = objectsfile.text(pod, "spec", "serviceAccountName") or given.service_account or "default"
    if not serviceaccount.is_subdomain(name):
        raise UsageError(f"--secrets: pod {given.pod} has no valid service account name")
    return serviceaccount.ServiceAccount(
        given.namespace, name, given.pod or "", objectsfile.text(pod, "metadata", "uid")
    )
