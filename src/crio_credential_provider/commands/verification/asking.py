"""All sources of a pull, asked at the same time with the credentials that the runtime will show them."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...node.commandline import find_processes
from ...node.tree import Tree, Unreadable
from ...settings import CONTAINERD
from . import containerd, crio

if TYPE_CHECKING:
    from ...explanation import Explanation, Source
    from ...registryclient import Verdict
    from ...runtimes.pullsource import PullSource
    from ..request.handedover import HandedOver

_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")


def ask_all(
    explained: Explanation, reference: str, root: str, handed: Sequence[HandedOver]
) -> dict[PullSource, tuple[Source, Verdict]]:
    """The verdict of every source that is to be asked, with what was shown there; all at the same time, as a dead one
    takes its whole deadline."""
    is_containerd = explained.settings.runtime == CONTAINERD
    environment = runtime_environment("containerd" if is_containerd else "crio") if not root else os.environ
    questions = containerd.Questions if is_containerd else crio.Questions
    question = questions(explained, reference, root, handed, environment)
    found: dict[PullSource, tuple[Source, Verdict]] = {}
    failed: list[Exception] = []

    def ask(source: Source) -> None:
        try:
            found[source.source] = question.ask(source)
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


def runtime_environment(program: str, tree: Tree | None = None) -> Mapping[str, str]:
    """The proxies of the running runtime, whose unit often sets them; of this process where there is none to be seen.

    Credentials go through them: a process that anybody can start is not believed.
    """
    tree = tree or Tree()
    for process in find_processes(tree, (program,), os.sysconf("SC_CLK_TCK")):
        try:
            entries = os.fsdecode(tree.read(f"/proc/{process.pid}/environ")).split("\0")
        except Unreadable:
            continue
        variables = dict(entry.split("=", 1) for entry in entries if "=" in entry)
        return {key: text for key, text in variables.items() if key.upper() in _PROXIES}
    return os.environ
