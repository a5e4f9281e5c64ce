"""The command line that names a pull: image, pod, and the plugin's flags."""

from __future__ import annotations

import argparse
from typing import Any

from ...settings import FLAGS_BY_NAME
from ..output import there

FLAGS = (
    "secrets-from",
    "mirror-registry",
    "runtime",
    "registries-conf",
    "registries-conf-dir",
    "auth-dir",
    "global-auth-file",
    "containerd-config",
    "allow-fallback-exposure",
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
    "containerd-config": "file",
    "kubeconfig": "file",
    "certificate-authority": "file",
    "root": "directory",
}
"""Those of them that the plugin, or the runtime, does without: what a person names must be there."""


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
