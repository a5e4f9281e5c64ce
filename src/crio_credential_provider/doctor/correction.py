"""The corrected CredentialProviderConfig: what is ours as it ought to be, all else as it was."""

from __future__ import annotations

import re
from typing import NamedTuple

from ..errors import ProviderError
from ..kubernetes.credentialproviderconfig import FIRST, NAME, is_name
from ..manifests.merge import merge
from ..manifests.providerconfig import Wanted
from ..node.facts import Node
from ..node.located import loads_yaml
from ..node.providerconfig import dotted
from ..node.tree import Unreadable
from ..settings import CONTAINERD
from . import mirrored

CORRECTED = "see the corrected file"
"""How a remedy refers to it."""

_REFERENCE = re.compile(rf":? *\(?{CORRECTED}\)?")


def without_reference(remedy: str) -> str:
    """A remedy where there is no corrected file to see."""
    return _REFERENCE.sub("", remedy)


CURRENT = (1, 34)
"""The version of Kubernetes that a file is made for where it is not given: the first that needs no feature gate."""


class Corrected(NamedTuple):
    """A file as it ought to be.

    Attributes:
        file: its path on the node.
        content: the whole of it.
        changes: what differs, one sentence each.
        assumed: what had to be assumed, one sentence each.
    """

    file: str
    content: str
    changes: tuple[str, ...]
    assumed: tuple[str, ...]


def correct(node: Node, audience: str, without: list[str], instead: list[str]) -> Corrected | str:
    """The file with our entry put right.

    Args:
        audience: the API server's own, "" where that is not known.
        without: patterns of matchImages that are to go.
        instead: patterns to take where registries.conf calls for none, and none would be left.

    Returns:
        The file, or why there is none.
    """
    if node.config is None:
        return "no CredentialProviderConfig to correct"
    files = [document.file for document in node.config.documents]
    file = node.entry.document.file if node.entry else files[0] if files else node.config.path
    patterns = mirrored.derive(node, node.settings.mirror_registry if node.settings else ()).patterns
    if not patterns and node.entry:
        patterns = tuple(text for text, _ in node.entry.patterns if text not in without) or tuple(instead)
    wanted = Wanted(_version(node), patterns, audience)
    try:
        text = _under_our_name(node, node.tree.read(file).decode())
        merged = merge(text, wanted, name=file, without=without)
        content, renamed = _under_its_name(node, merged.text)
    except Unreadable as error:
        return str(error)
    except UnicodeDecodeError:
        return f"{file} is not UTF-8 text"
    except ProviderError as error:
        return str(error)
    return Corrected(file, content, (*renamed, *merged.changes), tuple(_assumed(node, audience, patterns)))


def _version(node: Node) -> tuple[int, int]:
    """What the file is made for: what the node has, unless that is unknown or has to be updated first."""
    return node.minor if node.minor is not None and node.minor >= FIRST else CURRENT


def _under_our_name(node: Node, text: str) -> str:
    """The text with our entry under our name: manifests knows it by nothing else."""
    entry = node.entry
    return _renamed(text, entry.origin("name").line, entry.name, NAME) if entry and entry.name else text


def _under_its_name(node: Node, text: str) -> tuple[str, tuple[str, ...]]:
    """The text with our entry under the name that it had, if the kubelet takes that, and what was changed of it."""
    entry = node.entry
    if entry is None or entry.name in ("", NAME):
        return text, ()
    if not is_name(entry.name):
        return text, (f"name: changed from {entry.name} to {NAME}",)
    document = loads_yaml(text.encode(), entry.document.file)
    place = next(at for at, provider in enumerate(document.value["providers"]) if provider["name"] == NAME)
    return _renamed(text, document.line("providers", place, "name"), NAME, entry.name), ()


def _renamed(text: str, line: int, old: str, new: str) -> str:
    lines = text.splitlines(keepends=True)
    written = rf"(\bname[\"']?\s*:\s*[\"']?){re.escape(old)}(?=[\"'\s,}}]|$)"
    lines[line - 1] = re.sub(written, lambda found: found[1] + new, lines[line - 1], count=1)
    return "".join(lines)


def _assumed(node: Node, audience: str, patterns: tuple[str, ...]) -> list[str]:
    assumed = []
    if mirrored.is_known(node) and not mirrored.derive(node).patterns:
        where = mirrored.files(node) if node.pulls_with == CONTAINERD else node.registries.main
        assumed.append(f"pods use {', '.join(patterns)} directly: {where} has no mirrors")
    if node.minor != _version(node):
        assumed.append(
            f"Kubernetes {dotted(CURRENT)} or newer; for 1.33, whose kubelet rejects cacheType, use --kubernetes 1.33"
        )
    attributes = node.entry.token_attributes if node.entry else None
    if not audience and not (attributes and attributes.get("serviceAccountTokenAudience")):
        assumed.append(
            "kubeadm's audience; OpenShift and many others use https://kubernetes.default.svc; kubectl "
            "create token default shows it as aud"
        )
    return assumed
