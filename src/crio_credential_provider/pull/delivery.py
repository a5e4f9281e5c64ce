"""Delivery of an auth file: put in place in its turn, or left with a keeper that waits in line for it.

The run answers the kubelet afterwards, whichever it was. Why it is done so: docs/decisions/0004-hand-off.md.
"""

from __future__ import annotations

import os
import time

from ..errors import ProviderError
from ..kubernetes.pullintents import PullIntents
from ..platform import journal
from ..settings import LATEST_ANSWER
from . import authfile, handoff
from .audit import internal_error, used, who
from .handoff import HandOff, Line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from ..settings import Settings
    from .audit import Audit
    from .resolution import Resolution


def clear(resolution: Resolution | None, settings: Settings, audit: Audit) -> None:
    """For a run that leaves no file: removes one of its name that no pull is waiting for.

    The pull that follows would take that file. The kubelet, which knows of no credential, would then let every
    namespace use the image.
    """
    if resolution is None or resolution.account is None:
        return
    name, repository = authfile.file_name(resolution.account.namespace, resolution.image.name), resolution.image.name
    path = os.path.join(settings.auth_dir, name)
    if not os.path.lexists(path):
        return
    if settings.hand_off_timeout > 0:
        line, intents = Line(settings.cache_dir), PullIntents(settings.kubelet_root_dir)
        turn = HandOff(settings.auth_dir, name, repository, line, intents, settings.hand_off_grace)
        if not turn.wait(min(time.monotonic() + settings.hand_off_timeout, audit.started + LATEST_ANSWER)):
            return  # it is for a pull that the kubelet has queued before this one
    if _remove(path):
        audit.tell_further(f"removed {path}, which no pull was waiting for")


def _remove(path: str) -> bool:
    try:
        os.unlink(path)
    except OSError:
        return False
    return True


class Delivery:
    """The delivery of one auth file.

    Args:
        resolution: of a pod's request.
        content: of the file.
    """

    def __init__(self, resolution: Resolution, content: bytes, settings: Settings, audit: Audit) -> None:
        assert resolution.account is not None
        self._name = authfile.file_name(resolution.account.namespace, resolution.image.name)
        self._repository = resolution.image.name
        self._who = who(resolution)
        self._used = used(resolution)
        self._content = content
        self._settings = settings
        self._audit = audit

    def run(self) -> None:
        """Puts the file in place in its turn, or leaves a keeper in line for it.

        Raises:
            AuthFileError: it cannot be written.
        """
        settings, audit = self._settings, self._audit
        if settings.hand_off_timeout > 0:
            line, intents = Line(settings.cache_dir), PullIntents(settings.kubelet_root_dir)
            if not line.works:
                audit.warnings.append(
                    "runs do not wait for each other, so that pulls of one image at the same time may fail: "
                    f"--cache-dir {settings.cache_dir!r} cannot be used"
                )
            audit.problems = intents.problems
            turn = HandOff(settings.auth_dir, self._name, self._repository, line, intents, settings.hand_off_grace)
            begin = time.monotonic()
            may_write = self._wait(turn)
            if turn.was_contended:
                audit.hand_off = time.monotonic() - begin
            if not may_write:
                audit.is_settled = True
                return
        audit.is_settled = True
        try:
            self._write()
        except ProviderError:
            # An older one in its place, which no pull was waiting for: see `clear`.
            _remove(os.path.join(settings.auth_dir, self._name))
            raise

    def _wait(self, turn: HandOff) -> bool:
        """Whether the file may be written now; False where a keeper waits in line for it, or nothing can."""
        latest = self._audit.started + LATEST_ANSWER
        refusal = ""
        # The second limit is for a node without room for a keeper: until then the turn may come, or there is room.
        for limit in (min(time.monotonic() + self._settings.hand_off_timeout, latest), latest):
            has_turn = turn.wait(limit)
            if turn.is_orphan():
                self._audit.tell("nothing-to-do", f"Wrote no auth file for {self._who}: the kubelet has ended")
                return False
            if has_turn or not turn.may_be_queued():
                if refusal:
                    self._audit.warnings.append(refusal)
                return True
            refusal = self._leave_keeper(turn)
            if not refusal:
                self._audit.tell(
                    "in-line",
                    f"Queued the auth file for {self._who}: a background process writes it once the previous pull has "
                    "taken its own",
                )
                return False
        # To write now would be to overwrite the file of another pull.
        self._audit.tell("no-keeper", f"Wrote no auth file for {self._who}: {refusal}", journal.ERROR)
        return False

    def _write(self) -> None:
        self._audit.auth_file = path = authfile.write(self._settings.auth_dir, self._name, self._content)
        self._audit.tell("auth-file-written", f"Wrote auth file to {path} for {self._who}: {self._used}")

    def _leave_keeper(self, turn: HandOff) -> str:
        """Why none could be left; "" where one is in line."""
        try:
            is_keeper = turn.leave_keeper()
        except OSError as error:
            return (
                f"cannot start a background process that waits for the previous pull: {error.strerror}; check the "
                "limits on processes and memory of the kubelet and of the node: systemctl show kubelet -p "
                "TasksCurrent,TasksMax,MemoryCurrent,MemoryMax, and sysctl kernel.pid_max kernel.threads-max"
            )
        if is_keeper:
            self._keep(turn)
        return ""

    def _keep(self, turn: HandOff) -> NoReturn:
        """The keeper's life: waits for the turn, writes if the pull is still to come, logs, and is gone."""
        audit = self._audit
        try:
            turn.become_keeper()
            audit.continue_in_this_process()
            begin = time.monotonic()
            has_turn = turn.wait(begin + handoff.KEEPER_LIMIT)
            audit.hand_off = time.monotonic() - begin
            if has_turn and turn.is_awaited() is not False:
                self._write()
            else:
                audit.tell("nothing-to-do", f"Dropped the queued auth file for {self._who}: no pull is waiting for it")
        except ProviderError as error:
            audit.tell_fault(error.fault, str(error), error.code)
        except handoff.Ended:
            if not audit.auth_file:
                message = f"Dropped the queued auth file for {self._who}: the background process was ended by SIGTERM"
                audit.tell("interrupted", message, journal.WARNING)
        except BaseException as error:
            audit.tell_fault("bug", internal_error(error))
        finally:
            try:
                turn.ignore_end()
                audit.log()
            except handoff.Ended:
                audit.log()
            finally:
                os._exit(0)
