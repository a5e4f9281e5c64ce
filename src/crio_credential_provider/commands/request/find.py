"""The pull that a command line names."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ... import settings
from ...errors import ProviderError, RequestError, UsageError
from ...explanation import NotAsked, is_short_name, standin
from ...images import reference
from ...images.reference import Reference, ReferenceSyntaxError
from ...kubernetes import credentialprovider, names, serviceaccount
from ...kubernetes.credentialprovider import Request
from ...pull import decision
from ...settings import POD, SERVICE_ACCOUNT, Settings
from . import files, identity, objectsfile
from .objectsfile import ObjectsFile
from .place import Place

if TYPE_CHECKING:
    from ...kubernetes.pullsecrets import Cluster
    from ...kubernetes.serviceaccount import ServiceAccount

_EXPIRED = (
    "the token in the request has expired: give IMAGE and -n NAMESPACE to ask "
    "for a new one, or the secrets with --secrets"
)
_EXAMPLES = "--help has examples"


class Pull(NamedTuple):
    """One pull.

    Attributes:
        typed: the image as the pod names it; "" with a recorded request, which does not tell.
        image: the same normalised, with its tag and digest.
        request: what the kubelet would write to the plugin.
        settings: of the plugin.
        connect: the connection to the cluster, as ``decision.resolve`` takes it.
        notes: what differs here from a pull, for the person.
        offline: the file that replaces the cluster, if one was given.
        enforcing: whether CRI-O refuses a short name that may mean several images.
        on_node: whether this is the node of the pull, and its root runs this.
        as_kubelet: connects as the kubelet asks for what a pod names; None for as the kubeconfig's user.
    """

    typed: str
    image: Reference
    request: Request
    settings: Settings
    connect: Callable[[], Cluster]
    notes: tuple[str, ...] = ()
    offline: ObjectsFile | None = None
    enforcing: bool = True
    on_node: bool = False
    as_kubelet: Callable[[], Cluster] | None = None


def find(given: argparse.Namespace, chosen: Settings, place: Place) -> Pull:
    """The pull that the command line names.

    The API server is asked for a token only if the decision needs the cluster; where there is none to be had,
    ``connect`` says why.

    Raises:
        UsageError: flags that do not go together, a file that cannot be read, an invalid image.
        RequestError: the recorded request is not valid, as the plugin would say.
    """
    _check(given, chosen)
    found = _find(given, chosen, place)
    notes = (place.note, *found.notes) if place.note else found.notes
    on_node = not (chosen.root or place.lacks(chosen) or found.offline or os.geteuid())
    return found._replace(notes=notes, enforcing=is_short_name(found.typed) and place.enforcing, on_node=on_node)


def _find(given: argparse.Namespace, chosen: Settings, place: Place) -> Pull:
    offline = None
    if given.secrets:
        origin = "standard input" if given.secrets == "-" else given.secrets
        offline = objectsfile.loads(files.read_or_stdin(given.secrets, "--secrets", objectsfile.MAX_SIZE), origin)
    if given.request:
        request = credentialprovider.loads(files.read_or_stdin(given.request, "--request", settings.MAX_REQUEST_SIZE))
        # What the plugin would say of the request, it says here.
        return _with_token("", decision.begin(request).image, request, chosen, offline)
    try:
        image = reference.parse(given.image)
    except ReferenceSyntaxError as error:
        hint = f"the kubelet rejects it as InvalidImageName{_meant_image(given.image)}"
        raise UsageError(f"IMAGE: {error.message}", hint) from None
    if given.token_file:
        token = files.read(given.token_file, "--token-file").decode(errors="replace").strip()
        _check_token(token, given)
    elif place.audience is None:
        # As the kubelet asks the plugin then.
        note = f"the kubelet sends no token: the plugin's entry in {place.config} has no tokenAttributes"
        return _with_token(given.image, image, Request(image.name, ""), chosen, offline)._replace(notes=(note,))
    elif offline is not None:
        token = standin.token(_account_of_file(given, chosen, offline))
    else:
        return _with_new_token(given, chosen, image, place)
    return _with_token(given.image, image, Request(image.name, token), chosen, offline)


def _meant_image(typed: str) -> str:
    """What was most likely meant by an invalid image: the same without a scheme, and its name in lower case."""
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
    named = (
        ("-n", given.namespace, names.is_label),
        ("--service-account", given.service_account, names.is_subdomain),
        ("--pod", given.pod, names.is_subdomain),
    )
    for flag, name, is_valid in named:
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
        return lambda: identity.connect(chosen)

    def connect() -> Cluster:
        account = serviceaccount.loads(request.token)
        if chosen.secrets_from == POD and account.pod:
            offline.assume_holder(objectsfile.POD, account)
        elif chosen.secrets_from == SERVICE_ACCOUNT:
            offline.assume_holder(objectsfile.SERVICE_ACCOUNT, account)
        return offline

    return connect


def _with_new_token(given: argparse.Namespace, chosen: Settings, image: Reference, place: Place) -> Pull:
    """A pull whose token is asked for as the kubelet asks; only if the decision needs the cluster at all."""
    stand_in = standin.token(
        serviceaccount.ServiceAccount(given.namespace, given.service_account or "default", given.pod or "")
    )
    request = Request(image.name, stand_in)
    if not _needs_cluster(request, chosen):
        return Pull(given.image, image, request, chosen, lambda: identity.connect(chosen))
    try:
        user = identity.find_identity(chosen)
        token = identity.create_token(given, identity.connect_as_user(chosen, user), place.audience or "")
    except ProviderError as error:
        failure = NotAsked(f"cannot get a token for the API server: {error.message}", error.hint)
        return Pull(given.image, image, request, chosen, _failing(failure))
    audience = "the API server's own audience; `doctor` checks whether the kubelet's tokens have it"
    if place.audience:
        audience = f"the audience that {place.config} names, {place.audience}"
    note = f"the token was requested as the user of {user.origin} and has {audience}"
    request = Request(image.name, token)
    return Pull(given.image, image, request, chosen, lambda: identity.connect(chosen, user), (note,))


def _needs_cluster(request: Request, chosen: Settings) -> bool:
    """Whether the decision comes to asking the cluster; does not ask it."""

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
    if not names.is_subdomain(name):
        raise UsageError(f"--secrets: pod {given.pod} has no valid service account name")
    return serviceaccount.ServiceAccount(
        given.namespace, name, given.pod or "", objectsfile.text(pod, "metadata", "uid")
    )
