"""Random pods, rotations and kills on a node, with what must be true of each pod in the end."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from realnode import pluginprocesses
from realnode.node import Node
from realnode.processes import Process, wait_until
from realnode.runtimes import AUTH_DIR
from realnode.tenants import Pod, Tenant

CACHE_DIR = Path("/run/crio-credential-provider")
# Alive at the same time; a kubelet takes 110.
_MOST_PODS = 40
_RECENT_IMAGES = 12
_PAUSE = (0.1, 1.0)
# Between two looks at all pods and at what the plugin has on the node.
_LOOK = 2.0
# The kubelet's longest back-off is 300.
_PATIENCE = 330


class Soak:
    """One run of it; the same seed decides alike.

    Attributes:
        counts: of what was done, by its name.
        most: of what was seen at one time: processes of the plugin, KiB of memory in them, bytes of files.
        intruders: pods that ran and should not, each with the repository of its image.
    """

    def __init__(self, node: Node, seed: int) -> None:
        self._node = node
        self._dice = random.Random(seed)
        self._tenants = [node.new_tenant() for _ in range(4)]
        wrong = node.new_tenant()
        wrong.set_secret(node.new_password())
        self._strangers = [node.new_tenant(with_secret=False), wrong]
        self._images = [node.registry.new_image("latest", "v2")]
        self._waiting: dict[str, Pod] = {}
        self._running: dict[str, Pod] = {}
        self._outside: dict[str, Pod] = {}
        self._outside_images: dict[str, str] = {}
        self._looked = 0.0
        self.counts: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.intruders: dict[str, str] = {}
        # With how often each is done, for one another.
        self._actions: dict[Callable[[], None], int] = {
            self._start: 40,
            self._start_outside: 5,
            self._delete_while_pulling: 10,
            self._delete_running: 60,
            self._rotate: 6,
            self._kill_run: 10,
            self._kill_kubelet: 3,
            self._kill_runtime: 3,
        }

    def run(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            (action,) = self._dice.choices(list(self._actions), list(self._actions.values()))
            action()
            self._look()
            time.sleep(self._dice.uniform(*_PAUSE))

    def lost(self) -> list[str]:
        """Pods that should run and do not, when the node was left alone for long enough."""

        def all_ran() -> bool:
            self._look()
            return not self._waiting

        wait_until(all_ran, _PATIENCE)
        return sorted(self._waiting)

    # -- what is done ------------------------------------------------------------------------------------------------

    def _image(self) -> str:
        if self._dice.random() < 0.3:
            self._images = [*self._images, self._node.registry.new_image("latest", "v2")][-_RECENT_IMAGES:]
            self.counts["images"] += 1
        return f"{self._dice.choice(self._images)}:{self._dice.choice(('latest', 'v2'))}"

    def _run(self, tenant: Tenant, images: list[str], policies: Sequence[str]) -> Pod:
        self.counts["pods"] += 1
        return tenant.run(f"p{self.counts['pods']}", *images, policy=self._dice.choice(policies))

    def _start(self) -> None:
        """One or several of the same namespace and image, where the node has room."""
        tenant, images = self._dice.choice(self._tenants), [self._image() for _ in range(self._dice.choice((1, 1, 2)))]
        for _ in range(self._dice.choice((1, 1, 2, 6))):
            if len(self._waiting) + len(self._running) < _MOST_PODS:
                pod = self._run(tenant, images, ("Always", "Always", "IfNotPresent"))
                self._waiting[pod.path] = pod

    def _start_outside(self) -> None:
        """One that has no credential, for an image that is on the node already, or is not."""
        while len(self._outside) > 4:
            self._outside.pop(next(iter(self._outside))).delete()
        image = self._image()
        pod = self._run(self._dice.choice(self._strangers), [image], ("Always", "IfNotPresent"))
        self._outside[pod.path] = pod
        self._outside_images[pod.path] = image.rpartition(":")[0]
        self.counts["pods without a credential"] += 1

    def _delete(self, pods: dict[str, Pod]) -> bool:
        if not pods:
            return False
        pods.pop(self._dice.choice(list(pods))).delete()
        return True

    def _delete_while_pulling(self) -> None:
        self.counts["deleted while pulling"] += self._delete(self._waiting)

    def _delete_running(self) -> None:
        self._delete(self._running)

    def _rotate(self) -> None:
        tenant, password = self._dice.choice(self._tenants), self._node.new_password()
        self._node.registry.set_password(tenant.namespace, password)
        tenant.set_secret(password)
        self.counts["rotations"] += 1

    def _kill_run(self) -> None:
        """The next process of the plugin, run or keeper."""
        found = wait_until(lambda: pluginprocesses.find(self._node.bin_dir), 2)
        if found:
            self.counts["kills of the plugin"] += pluginprocesses.end(self._dice.choice(found))

    def _kill_kubelet(self) -> None:
        self._kill(self._node.kubelet.process)
        self.counts["kills of the kubelet"] += 1

    def _kill_runtime(self) -> None:
        self._kill(self._node.runtime.process)
        self.counts["kills of CRI-O"] += 1

    def _kill(self, process: Process) -> None:
        """As for systemd's Restart=always and its RestartSec."""
        process.kill()
        time.sleep(self._dice.uniform(0, 2))
        process.start()

    # -- what is seen ------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        if time.monotonic() < self._looked + _LOOK:
            return
        self._looked = time.monotonic()
        running = self._node.running_pods()
        for path in running & self._waiting.keys():
            self._running[path] = self._waiting.pop(path)
        self.intruders |= {path: self._outside_images[path] for path in running & self._outside.keys()}
        processes = pluginprocesses.find(self._node.bin_dir)
        self._note_most("processes", len(processes))
        self._note_most("KiB of memory", sum(map(pluginprocesses.memory, processes)))
        self._note_most("bytes of files", size(AUTH_DIR) + size(CACHE_DIR))

    def _note_most(self, what: str, number: int) -> None:
        self.most[what] = max(self.most[what], number)


def size(directory: Path) -> int:
    """Of its files, in bytes."""
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.lstat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total
