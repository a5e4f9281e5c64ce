"""Objects for the API server: RBAC of the nodes and of the tenants' namespaces, the DaemonSet that installs the plugin.

Each function makes the objects of one purpose, with the comments that are printed with them. Knows the sentences of
docs/reference/pull-secrets.md on what each ``--secrets-from`` needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import __version__
from ..errors import UsageError
from ..kubernetes.credentialproviderconfig import NAME
from ..settings import NAMESPACE, POD, SERVICE_ACCOUNT
from .layout import Comment, Flow

RBAC_GROUP = "rbac.authorization.k8s.io"
RBAC = f"{RBAC_GROUP}/v1"
NODES = f"{NAME}-nodes"
IMAGE = f"registry.example.com/{NAME}:{__version__}"
PUBLISHED_NAMESPACE, PUBLISHED = "kube-public", f"{NAME}-registries"
"""Where and as what ConfigMap the nodes' configuration is published to tenants."""
MAIN_KEY, CONFIG_KEY = "registries.conf", "credential-provider-config.yaml"
DAEMONSET_NAMESPACE = "kube-system"

Object = dict[Any, Any]


# -- the nodes --------------------------------------------------------------------------------------------------------


def node_rbac(audience: str) -> list[Object]:
    """What every kubelet needs before it runs the plugin at all."""
    return [
        {
            Comment(
                "Lets every kubelet get a token for that audience for the pods on its node, and read "
                "their service accounts."
            ): None,
            "apiVersion": RBAC,
            "kind": "ClusterRole",
            "metadata": {"name": NODES},
            "rules": [
                {
                    "apiGroups": Flow([""]),
                    Comment("Exactly the audience in the CredentialProviderConfig."): None,
                    "resources": Flow([audience]),
                    "verbs": Flow(["request-serviceaccounts-token-audience"]),
                },
                {"apiGroups": Flow([""]), "resources": Flow(["serviceaccounts"]), "verbs": Flow(["get"])},
            ],
        },
        {
            "apiVersion": RBAC,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": NODES},
            "roleRef": {"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": NODES},
            "subjects": [{"apiGroup": RBAC_GROUP, "kind": "Group", "name": "system:nodes"}],
        },
    ]


# -- for everybody ----------------------------------------------------------------------------------------------------


def published_registries(data: dict[str, str]) -> list[Object]:
    """What `kubectl mirror-credentials` reads of the nodes, and that every authenticated user may read it.

    Args:
        data: key -> file.
    """
    metadata = {"name": PUBLISHED, "namespace": PUBLISHED_NAMESPACE}
    return [
        {
            Comment(
                "registries.conf of the nodes, its drop-ins and the plugin's settings, for kubectl mirror-credentials: "
                "publish it again when they change."
            ): None,
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "data": data,
        },
        {
            "apiVersion": RBAC,
            "kind": "Role",
            "metadata": metadata,
            "rules": [
                {
                    "apiGroups": Flow([""]),
                    "resources": Flow(["configmaps"]),
                    "resourceNames": Flow([PUBLISHED]),
                    "verbs": Flow(["get"]),
                }
            ],
        },
        {
            "apiVersion": RBAC,
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": RBAC_GROUP, "kind": "Role", "name": PUBLISHED},
            "subjects": [{"apiGroup": RBAC_GROUP, "kind": "Group", "name": "system:authenticated"}],
        },
    ]


# -- the tenants' namespaces ------------------------------------------------------------------------------------------


def pull_secret_access(
    mode: str, namespaces: Sequence[str], accounts: Sequence[str], secrets: Sequence[str]
) -> list[Object]:
    """What a mode of ``--secrets-from`` needs in each namespace.

    Args:
        mode: one of ``settings.SECRETS_FROM``.
        namespaces: of the tenants.
        accounts: service accounts; none: all of the namespace, or where one has to be named, ``default``.
        secrets: names of pull secrets, which the mode ``service-account`` grants one by one.

    Raises:
        UsageError: something is missing, or of no use in this mode.
    """
    if not namespaces:
        raise UsageError("pull-secrets: no namespace given", "give -n once for each tenant's namespace")
    if mode == NAMESPACE and secrets:
        raise UsageError(
            "--pull-secret cannot be used with --secrets-from=namespace, where RBAC cannot be limited to secrets by "
            "name",
            "remove it, or use --secrets-from=service-account",
        )
    if mode != NAMESPACE and not secrets:
        raise UsageError(
            f"--secrets-from={mode} reads secrets by their names, which service accounts must list",
            "give them with --pull-secret",
        )
    made: list[Object] = []
    for namespace in namespaces:
        if mode == NAMESPACE:
            made += _list_all(namespace, accounts)
            continue
        for account in accounts or ["default"]:
            made.append(_service_account(namespace, account, secrets))
            if mode == SERVICE_ACCOUNT:
                made += _get_named(namespace, account, secrets)
    made[0] = {Comment(_HEADS[mode]): None, **made[0]}
    return made


_HEADS = {
    NAMESPACE: "--secrets-from=namespace: in each namespace, let the pods' service accounts list its secrets.",
    POD: "--secrets-from=pod: no RBAC. The secret is named by the service account, or by a pod itself.",
    SERVICE_ACCOUNT: "--secrets-from=service-account: the service account names its secrets, and may get itself and "
    "exactly these.",
}


def _list_all(namespace: str, accounts: Sequence[str]) -> list[Object]:
    rules = [{"apiGroups": Flow([""]), "resources": Flow(["secrets"]), "verbs": Flow(["list"])}]
    subjects: list[Any] = [_subject(namespace, account) for account in accounts]
    if not accounts:
        comment = "All service accounts of the namespace; list single ones (kind: ServiceAccount) to grant less."
        group = {"apiGroup": RBAC_GROUP, "kind": "Group", "name": f"system:serviceaccounts:{namespace}"}
        subjects = [Comment(comment), group]
    return _role(namespace, "pull-secrets", rules, subjects)


def _get_named(namespace: str, account: str, secrets: Sequence[str]) -> list[Object]:
    rules = [
        {
            "apiGroups": Flow([""]),
            "resources": Flow([resource]),
            "resourceNames": Flow(names),
            "verbs": Flow(["get"]),
        }
        for resource, names in (("serviceaccounts", [account]), ("secrets", list(secrets)))
    ]
    return _role(namespace, f"pull-secrets-of-{account}", rules, [_subject(namespace, account)])


def _subject(namespace: str, account: str) -> Object:
    return {"kind": "ServiceAccount", "name": account, "namespace": namespace}


def _role(namespace: str, name: str, rules: list[Object], subjects: list[Any]) -> list[Object]:
    """A Role and its RoleBinding."""
    metadata = {"name": name, "namespace": namespace}
    return [
        {"apiVersion": RBAC, "kind": "Role", "metadata": metadata, "rules": rules},
        {
            "apiVersion": RBAC,
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": RBAC_GROUP, "kind": "Role", "name": name},
            "subjects": subjects,
        },
    ]


def _service_account(namespace: str, name: str, secrets: Sequence[str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": namespace},
        "imagePullSecrets": [{"name": secret} for secret in secrets],
    }


# -- the program ------------------------------------------------------------------------------------------------------


def daemonset(image: str, bin_dir: str, *, openshift: bool = False) -> list[Object]:
    """Installs the plugin of a container image on every node, and keeps it there.

    Args:
        image: made with packaging/container/Containerfile.
        bin_dir: the kubelet's ``--image-credential-provider-bin-dir``.
        openshift: with the service account that OpenShift grants a directory of the node to.
    """
    labels = {"app.kubernetes.io/name": NAME}
    template: Object = {"metadata": {"labels": labels}, "spec": _pod(image, bin_dir)}
    extra: list[Object] = []
    if openshift:
        template["metadata"]["annotations"] = {"openshift.io/required-scc": "privileged"}
        template["spec"]["serviceAccountName"] = NAME
        extra = _privileged_account()
    return [
        {
            Comment(
                "Keeps the plugin of this image's version on every node, in the kubelet's "
                "--image-credential-provider-bin-dir. The kubelet's own configuration and its two flags are set on "
                "the node, after this: a kubelet does not start with a provider whose program is missing. Removing "
                "the DaemonSet does not remove the plugin; `crio-credential-provider install-on-node --remove` does."
            ): None,
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": NAME, "namespace": DAEMONSET_NAMESPACE, "labels": labels},
            "spec": {
                "selector": {"matchLabels": labels},
                "updateStrategy": {"rollingUpdate": {"maxUnavailable": "10%"}},
                "template": template,
            },
        },
        *extra,
    ]


def _privileged_account() -> list[Object]:
    metadata = {"name": NAME, "namespace": DAEMONSET_NAMESPACE}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {
            "apiVersion": RBAC,
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": "system:openshift:scc:privileged"},
            "subjects": [_subject(DAEMONSET_NAMESPACE, NAME)],
        },
    ]


def _pod(image: str, bin_dir: str) -> Object:
    return {
        Comment("It does not use the API server."): None,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "priorityClassName": "system-node-critical",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": _of_architecture()}},
        Comment("Every node, tainted or not: each needs the plugin to pull from mirrors."): None,
        "tolerations": [{"operator": "Exists"}],
        "terminationGracePeriodSeconds": 5,
        "containers": [_container(image)],
        "volumes": [{"name": "node", "hostPath": {"path": bin_dir, "type": "DirectoryOrCreate"}}],
    }


def _of_architecture() -> Object:
    built_for = {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64", "arm64"]}
    return {"nodeSelectorTerms": [{"matchExpressions": [built_for]}]}


def _container(image: str) -> Object:
    return {
        "name": "install",
        "image": image,
        "args": ["install-on-node", "--stay", "/node"],
        "securityContext": {
            Comment("Root, since the kubelet runs what it writes as root; without any capability of root."): None,
            "runAsUser": 0,
            "runAsGroup": 0,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
            Comment("With SELinux enforcing, a confined container may not write to the node's directories."): None,
            "seLinuxOptions": {"type": "spc_t"},
        },
        "resources": {"requests": {"cpu": "1m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
        "volumeMounts": [{"name": "node", "mountPath": "/node"}],
    }


def kustomization(files: Sequence[str]) -> Object:
    """A base that names these files."""
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": list(files),
    }
