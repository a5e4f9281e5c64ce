"""What an audit comes to: records alone, for every form of output. No content of a secret is part of any of it.

A ``Pull`` stands for all pods and templates that pull the same image, with the same service account, in the same
namespace, on the same class of nodes: they are decided once. Its ``outcome`` is what a person asks for, its ``reason``
a code of ``REASONS`` that stays the same from version to version, its ``text`` the same with the names of this pull.

    for pull in audit.pulls:
        if pull.outcome == FAILS:
            print(pull.namespace, pull.image, pull.reason, pull.text)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..registryclient import Api

# -- outcomes of a pull -----------------------------------------------------------------------------------------------

WORKS = "works"
"""A mirror gets a credential from a secret of the namespace."""
NO_MIRROR = "no-mirror"
"""No mirror is asked for the image, and the node's credentials are not used: nothing changes for it."""
NODE_CREDENTIALS = "node-credentials"
"""Works today with a credential of the node, and with none of the namespace: fails once the node's are gone."""
ANONYMOUS = "anonymous"
"""No credential, and none for these mirrors in any secret that was read, nor on the node: works where they require
none. ``explain`` calls it a failure, as it sees one namespace alone."""
FAILS = "fails"
"""No mirror gets a credential, though others have one for it; or the plugin or the runtime fails the pull."""
NOT_CHECKED = "not-checked"
"""What decides it was not read; the reason says what."""

OUTCOMES = (FAILS, NODE_CREDENTIALS, ANONYMOUS, NOT_CHECKED, WORKS, NO_MIRROR)
"""In the order in which people want to see them."""


class Reason(NamedTuple):
    """Why a pull does not find a credential of its namespace, or a mirror none.

    Attributes:
        code: kebab-case, the same in all versions.
        title: one sentence, for a table of rules.
        remedy: what to do in general; the ``remedy`` of a pull has its names.
    """

    code: str
    title: str
    remedy: str


REASONS = {
    reason.code: reason
    for reason in (
        # The namespace's secrets.
        Reason("no-secret", "The namespace has no pull secret.", "create a pull secret with a key for the mirror"),
        Reason(
            "wrong-key",
            "No pull secret has a key for the mirror.",
            "add a key for the mirror's host, with the port: the mirror is asked, not the registry in the image",
        ),
        Reason(
            "no-credential",
            "The entry for the mirror holds no credential.",
            "create the secret again with kubectl create secret docker-registry",
        ),
        Reason(
            "unusable-secret",
            "A pull secret cannot be read: it is not base64, not JSON, or has no auths.",
            "create the secret again with kubectl create secret docker-registry",
        ),
        Reason(
            "wrong-type",
            "The secret with the mirror's key has a type that the plugin does not use.",
            "create it again with the type kubernetes.io/dockerconfigjson",
        ),
        Reason(
            "not-named",
            "The secret with the mirror's key is not named in imagePullSecrets.",
            "add it to the imagePullSecrets of the service account, or of the pod",
        ),
        Reason(
            "secret-missing",
            "A secret that imagePullSecrets name does not exist.",
            "create it, or correct the name in imagePullSecrets",
        ),
        # Rights.
        Reason(
            "no-role",
            "The service account may not read the namespace's pull secrets.",
            "grant it with a Role and a RoleBinding; manifests pull-secrets prints them",
        ),
        Reason("no-service-account", "The service account does not exist.", "create it, or correct its name"),
        # The pod.
        Reason(
            "invalid-image",
            "The image is not a valid reference: the kubelet does not pull it.",
            "correct the image in the pod or template",
        ),
        Reason(
            "short-name",
            "CRI-O cannot resolve the short name, or it may mean several images.",
            "write the image name in full, or add an alias to registries.conf",
        ),
        Reason(
            "static-pod",
            "A static pod has no service account token, so that the plugin has no secrets for it.",
            "add the mirror's key to the node's own auth file",
        ),
        # The node.
        Reason(
            "no-token",
            "The kubelet sends no token: the plugin's entry has no tokenAttributes.",
            "add tokenAttributes to the CredentialProviderConfig",
        ),
        Reason(
            "no-auth-file-helper",
            "credential-helpers in registries.conf lacks containers-auth.json: CRI-O reads no auth file.",
            "add containers-auth.json to credential-helpers",
        ),
        Reason(
            "blocked",
            "Every place that CRI-O could ask is blocked in registries.conf.",
            "remove blocked = true from the table, or use another image",
        ),
        Reason(
            "invalid-location",
            "A location in registries.conf cannot be used for this image.",
            "correct the location in registries.conf",
        ),
        Reason(
            "exposed",
            "containerd would show the mirror's credential to other hosts as well, so that the pull gets none.",
            "leave only hosts of this credential in hosts.toml, the server included",
        ),
        Reason(
            "invalid-registries-conf",
            "The runtime refuses registries.conf, or the files of containerd.",
            "correct the file that the message names",
        ),
        # The node's credentials.
        Reason(
            "node-credentials",
            "Only the node has a credential.",
            "create a pull secret in the namespace before the node's credentials are taken away",
        ),
        # What mirrors answer, where they were asked.
        Reason(
            "credential-refused",
            "The mirror refuses the credential.",
            "write the current user name and password to the secret",
        ),
        Reason(
            "not-allowed",
            "The mirror does not let the credential's user pull the repository.",
            "ask the mirror's administrator to allow it",
        ),
        Reason(
            "mirror-unreachable",
            "The mirror gives no answer that says whether the credential is good.",
            "check the mirror, and that it can be reached and is trusted from this machine",
        ),
        # Not read.
        Reason(
            "not-read", "The namespace's secrets or service accounts were not read.", "allow it, or save them to a file"
        ),
        Reason("no-node-class", "No --registries-conf is for the pod's node.", "give --registries-conf for its class"),
        Reason("plugin-fails", "The plugin fails.", "correct what the message says"),
    )
}
"""Code -> reason."""


class Source(NamedTuple):
    """A place that the runtime asks for the image, in its order.

    Attributes:
        name: repository there, without tag and digest.
        wanted: whether a credential of the namespace is meant for it: a mirror, or another place than the image's own.
        credential: ``secret``, ``node``, ``node-helper``, or "" for none.
        secret, key: where the credential is; the key as it may be shown.
        reason: code of ``REASONS`` where a wanted source has none of the namespace, else "".
        text: the reason with its names, else "".
        insecure: as in registries.conf.
        api: where it is asked by containerd; None for CRI-O.
        answer: one of ``registryclient.OUTCOMES`` where it was asked, else "".
    """

    name: str
    wanted: bool
    credential: str
    secret: str
    key: str
    reason: str
    text: str
    insecure: bool = False
    answer: str = ""
    api: Api | None = None


class Holder(NamedTuple):
    """A pod or template with the image: ``Deployment``, ``web``. Of pods that a controller made: the controller that
    owns them (``ReplicaSet``, ``web-5d4f``)."""

    kind: str
    name: str


MOST_HOLDERS = 10
"""Holders that are kept of a pull: the first by kind and name."""


class Pull(NamedTuple):
    """Equal pulls, decided once.

    Attributes:
        namespace, service_account, image: as the pods spell them.
        node_class: whose registries.conf counts; "" for that of ``--registries-conf`` without a class.
        outcome: one of ``OUTCOMES``.
        reason: code of ``REASONS``, "" with the outcomes ``WORKS`` and ``NO_MIRROR``.
        text, remedy: the reason and what to do, with the names of this pull; may end in a kubectl command.
        sources: in CRI-O's order; empty where none is asked.
        unchecked: codes of ``UNCHECKED``: what the outcome rests on and was not looked at.
        pods, templates: how many there are.
        holders: the first ``MOST_HOLDERS`` of them, sorted.
    """

    namespace: str
    service_account: str
    image: str
    node_class: str
    outcome: str
    reason: str
    text: str
    remedy: str
    sources: tuple[Source, ...]
    unchecked: tuple[str, ...]
    pods: int
    templates: int
    holders: tuple[Holder, ...]

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What makes it the same pull in another audit."""
        return self.namespace, self.service_account, self.image, self.node_class


UNCHECKED = {
    "roles-not-read": "roles were not read: whether the service account may read the secrets is not checked",
    "service-account-not-read": "the service account was not read: its imagePullSecrets are not known",
    "mirror-not-asked": "no mirror was asked before the time was over",
}
"""Code -> what was not looked at."""


class Count(NamedTuple):
    """Of one outcome: distinct pulls, and the pods and templates with them."""

    pulls: int
    pods: int
    templates: int


class Changes(NamedTuple):
    """What is different from an earlier audit.

    Attributes:
        failing: pulls that fail now and did not, or were not there.
        solved: keys of pulls that failed and do not any more.
        gone: keys of pulls that failed, and whose pods and templates are not there any more.
    """

    failing: tuple[Pull, ...]
    solved: tuple[tuple[str, str, str, str], ...]
    gone: tuple[tuple[str, str, str, str], ...]


class Audit(NamedTuple):
    """The whole.

    Attributes:
        origin: where the objects come from, for people: files, or the API server.
        secrets_from: the mode of the plugin.
        namespaces: how many have pods or templates.
        objects: how many of each kind were read.
        counts: outcome -> count, for each of ``OUTCOMES`` in their order.
        pulls: sorted by namespace, image, service account and class.
        notes: what was not read, or was assumed, a sentence each.
        changes: None without a baseline.
    """

    origin: str
    secrets_from: str
    namespaces: int
    objects: dict[str, int]
    counts: dict[str, Count]
    pulls: Sequence[Pull]
    notes: tuple[str, ...]
    changes: Changes | None = None
