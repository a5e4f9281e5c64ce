"""All sources of a pull, asked at the same time with the credentials that CRI-O will show them."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ... import explanation, registryclient
from ...explanation import NODE, NODE_HELPER, Explanation, Source
from ...node.commandline import find_processes
from ...node.tree import Tree, Unreadable
from ...pull import decision, keyring
from ...registryclient import Verdict
from ..request.handedover import HandedOver

if TYPE_CHECKING:
    from ...images.dockerconfig import Credential
    from ...images.reference import Reference
    from ...pull.keyring import Choice

KUBELET = "kubelet"
"""Where a source's credential is from: a secret in the pod's imagePullSecrets, through the kubelet."""

_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")


def is_own(source: Source, explained: Explanation) -> bool:
    """Whether CRI-O shows there what the kubelet hands over, ahead of any file."""
    assert explained.resolution is not None
    own = explanation.own_hosts(explained.resolution.image, explained.asked)
    return source.source.name.partition("/")[0] in own


def ask_all(
    explained: Explanation, reference: str, root: str, handed: Sequence[HandedOver]
) -> dict[str, tuple[Source, Verdict]]:
    """The verdict of every source that is to be asked, with what was shown there; all at the same time, as a dead one
    takes its whole deadline."""
    assert explained.resolution is not None
    image = explained.resolution.image
    of_node = _choices_of_node(explained)
    credentials = _credentials(explained, of_node)
    environment = crio_environment() if not root else os.environ
    found: dict[str, tuple[Source, Verdict]] = {}
    failed: list[Exception] = []

    def ask(source: Source) -> None:
        name = source.source.name
        host, _, path = name.partition("/")
        insecure = source.source.insecure
        try:
            shown = [(source, credentials.get(name) if source.origin else None)]
            if handed and is_own(source, explained) and host != image.domain:
                verdict = registryclient.probe_registry(host, insecure=insecure, root=root, environment=environment)
                kept = source._replace(origin=KUBELET, secret=handed[0].secret, key=handed[0].key)
                found[name] = kept, _kept_back(kept, verdict, image)
                return
            if handed and is_own(source, explained):
                # The kubelet tries one after the other, the node's own last.
                by = [(KUBELET, *entry) for entry in handed]
                by += [(NODE, "", of_node[name].key, of_node[name].credential)] if name in of_node else []
                shown = [(source._replace(origin=o, secret=secret, key=key), c) for o, secret, key, c in by]
            elif source.origin == NODE_HELPER:
                verdict = registryclient.probe_registry(host, insecure=insecure, root=root, environment=environment)
                found[name] = source, verdict
                return
            for origin, credential in shown:
                verdict = registryclient.probe_manifest(
                    host, path, reference, credential, insecure=insecure, root=root, environment=environment
                )
                if name not in found or verdict.outcome == registryclient.OK:
                    found[name] = origin, verdict
                if verdict.outcome not in (registryclient.UNAUTHORIZED, registryclient.FORBIDDEN):
                    break
        except Exception as error:
            # Raised again below, in the thread that somebody listens to.
            failed.append(error)

    wanted = [source for source in explained.sources if source.is_open and source.is_reachable]
    wanted = [] if explained.asked.error else wanted
    threads = [threading.Thread(target=ask, args=(source,), daemon=True) for source in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return found


def _kept_back(source: Source, verdict: Verdict, image: Reference) -> Verdict:
    """Where a short name means another registry than the kubelet takes it for: CRI-O shows the credential all the same,
    this command only shows it to the one that it is for."""
    if verdict.outcome != registryclient.OK:
        return verdict
    return Verdict(
        verdict.outcome,
        f"a registry answers; CRI-O sends it the credential for {image.domain} that the kubelet passes "
        f"(secret {source.secret}), which verify does not send to another registry",
        f"write the image with its registry, {source.source.name} or {image.name}",
        scheme=verdict.scheme,
        exchanges=verdict.exchanges,
        undecided=True,
    )


def _choices_of_node(explained: Explanation) -> dict[str, Choice]:
    """Name of a source -> what the node's own auth file has for it."""
    assert explained.resolution is not None
    config, _ = decision.global_config(explained.settings.global_auth_file)
    selection = keyring.select(explained.resolution.sources, (), config, lambda source: True)
    return {choice.source.name: choice for choice in selection.choices}


def _credentials(explained: Explanation, of_node: Mapping[str, Choice]) -> dict[str, Credential]:
    """Name of a source -> what CRI-O shows there: of the auth file, else of the node's own."""
    assert explained.resolution is not None
    selection = explained.resolution.selection
    choices = of_node.values() if selection is None else selection.choices
    return {choice.source.name: choice.credential for choice in choices}


def crio_environment(tree: Tree | None = None) -> Mapping[str, str]:
    """The proxies of the running CRI-O, whose unit often sets them; of this process where there is none to be seen.

    Credentials go through them: a process that anybody can start is not believed.
    """
    tree = tree or Tree()
    for process in find_processes(tree, ("crio",), os.sysconf("SC_CLK_TCK")):
        try:
            entries = os.fsdecode(tree.read(f"/proc/{process.pid}/environ")).split("\0")
        except Unreadable:
            continue
        variables = dict(entry.split("=", 1) for entry in entries if "=" in entry)
        return {key: text for key, text in variables.items() if key.upper() in _PROXIES}
    return os.environ
