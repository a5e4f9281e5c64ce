"""The services of a node's systemd: reloaded, started, stopped, restarted, and asked how they are.

By the node's own ``systemctl`` and ``journalctl``. In a container they are run below the directory where the node's
root is mounted: with that they find the node's /run, where systemd's sockets are, and its journal, and no program of
the container's is needed. systemctl refuses to work in what it takes for a chroot, unless SYSTEMD_IGNORE_CHROOT is set
(systemd's list of environment variables); by /proc/1/root it does not take this for one, where /proc is the node's.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..node.tree import Tree
from .changes import ABSENT, Change, RolloutError

_TIMEOUT = 300
"""Seconds for systemd to start or stop a service: more than its own 90 (DefaultTimeoutStartSec); k3s has no limit."""
_WORDS = 10
"""Lines of a service's log."""
_SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_NO_SYSTEMD = "give --no-restart on a node without systemd"

_UNITS = "/etc/systemd/system/"


class Actions(NamedTuple):
    """What services must be told after changes.

    Attributes:
        reload: whether systemd reads its units anew.
        mount: the unit of the tmpfs for auth files that comes or goes, "" for none.
        mounted: whether it comes.
        crio: whether CRI-O is restarted.
        kubelet: the unit to restart for the kubelet, "" for none.
    """

    reload: bool = False
    mount: str = ""
    mounted: bool = False
    crio: bool = False
    kubelet: str = ""

    def __bool__(self) -> bool:
        return any(self)

    def commands(self) -> list[list[str]]:
        """Of systemctl, in their order."""
        made = [["daemon-reload"]] if self.reload else []
        start = [["start", self.mount]] if self.mount and self.mounted else []
        made += [*start, *([["restart", "crio"]] if self.crio else [])]
        made += [["restart", self.kubelet]] if self.kubelet else []
        # A run of the plugin that the old kubelet began ends before its directory goes.
        return made + ([["stop", self.mount]] if self.mount and not self.mounted else [])


def actions_of(changes: Sequence[Change], kubelet: str) -> Actions:
    """What these changes call for.

    Args:
        kubelet: its unit.
    """
    roles = {change.role for change in changes}
    mount = next((change for change in changes if change.role == "mount"), None)
    return Actions(
        any(change.path.startswith(_UNITS) for change in changes if change.role in ("mount", "flags")),
        os.path.basename(mount.path) if mount else "",
        mount is not None and mount.after.kind != ABSENT,
        "crio" in roles,
        kubelet if roles & {"config", "flags"} else "",
    )


class Unit(NamedTuple):
    """A service as systemd has it: ``active``, ``failed``, ...; its process; how often it was started by itself."""

    state: str
    pid: int
    restarts: int


class Services:
    """systemd of a node.

    Args:
        root: where its file system is mounted; "" for this machine.
    """

    def __init__(self, root: str) -> None:
        self._root = root

    def check(self) -> None:
        """Before the first change.

        Raises:
            RolloutError: there is no systemctl.
        """
        tree = Tree(self._root)
        if not any(tree.exists(os.path.join(place, "systemctl")) for place in self._path().split(":")):
            reason = f"cannot run systemctl: {os.strerror(errno.ENOENT)}; nothing was changed"
            raise RolloutError(reason, _NO_SYSTEMD)

    def tell(self, command: Sequence[str]) -> None:
        """One command of systemctl.

        Raises:
            RolloutError: it failed, with what it said and with the service's last words.
        """
        if command[0] == "restart":
            # Else systemd goes on counting from what was before, and after some starts it refuses one more.
            self._run("systemctl", "reset-failed", command[-1])
        status, said = self._run("systemctl", *command)
        if status != 0:
            shown = " ".join(("systemctl", *command))
            raise RolloutError(f"{shown}: {said.strip() or f'exit status {status}'}{self.last_words(command[-1])}")

    def unit(self, name: str) -> Unit:
        """The state of a service.

        Raises:
            RolloutError: systemd does not tell.
        """
        status, said = self._run("systemctl", "show", "--property=ActiveState,MainPID,NRestarts", name)
        found = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
        if status != 0 or "ActiveState" not in found:
            raise RolloutError(f"systemctl show {name}: {said.strip() or f'exit status {status}'}")
        pid, restarts = (found.get(key, "0") for key in ("MainPID", "NRestarts"))
        return Unit(found["ActiveState"], int(pid or 0), int(restarts or 0))

    def last_words(self, name: str) -> str:
        """The end of a service's log on lines of their own; "" where there is none."""
        if "." not in name and name not in ("crio", "kubelet"):
            return ""
        try:
            status, said = self._run("journalctl", "--no-pager", "--output=cat", f"--lines={_WORDS}", f"--unit={name}")
        except RolloutError:
            return ""
        lines = said.strip().splitlines()[-_WORDS:] if status == 0 else []
        return "".join(f"\n  {name}: {line}" for line in lines)

    def _run(self, *command: str) -> tuple[int, str]:
        environment = {**os.environ, "SYSTEMD_IGNORE_CHROOT": "1", "LC_ALL": "C", "PATH": self._path()}
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=_TIMEOUT,
                check=False,
                cwd="/",
                env=environment,
                preexec_fn=self._enter(),
            )
        except subprocess.TimeoutExpired:
            raise RolloutError(f"{' '.join(command)} did not end within {_TIMEOUT} s") from None
        except (OSError, subprocess.SubprocessError) as error:
            reason = getattr(error, "strerror", None) or "cannot enter the root of the node"
            raise RolloutError(f"cannot run {command[0]}: {reason}", _NO_SYSTEMD) from None
        return done.returncode, done.stdout

    def _path(self) -> str:
        return _SYSTEM if self._root else os.environ.get("PATH", _SYSTEM)

    def _enter(self) -> Callable[[], None] | None:
        root = self._root

        def enter() -> None:
            os.chroot(root)
            os.chdir("/")

        return enter if root else None
