"""``--live``: each mirror asked once with each credential, as ``verify`` asks it, and what that means for the pulls.

One question shows whether a mirror accepts a credential, for all pulls that use it there. A refusal or failure for one
repository counts for that and the credential alone, since a namespace may provoke it. One that does not answer as a
registry at all is not asked again. Mirrors are asked at the same time, each one question after the other, all together
no faster than the rate, and no more after the deadline.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from ... import registryclient
from ...audit.auditor import count
from ...audit.result import ANONYMOUS, FAILS, NODE_CREDENTIALS, NOT_CHECKED, UNCHECKED, WORKS, Audit, Pull, Source
from ...explanation import NODE, NODE_HELPER, SECRET
from ...images import reference
from ...kubernetes import pullsecrets
from ...pull.keyring import Keyring
from ...registryclient import FORBIDDEN, NOT_FOUND, OK, RATE_LIMITED, UNAUTHORIZED, Api, Verdict
from .rows import plural

if TYPE_CHECKING:
    from ...audit.collected import Collected
    from ...images.dockerconfig import Credential

_EACH = 10.0
"""Seconds for one."""


class _Question(NamedTuple):
    """Of one source of a pull; ``tag`` may be a digest."""

    name: str
    image_path: str
    tag: str
    insecure: bool
    api: Api | None
    credential: Credential | None


class _Mirror:
    """What one host answered."""

    def __init__(self) -> None:
        self.questions: dict[_Question, None] = {}
        self.asked = 0
        self._useless: Verdict | None = None
        self._of_credential: dict[Credential | None, Verdict] = {}
        self._of_repository: dict[tuple[Credential | None, str], Verdict] = {}

    def answer(self, question: _Question) -> Verdict | None:
        """What is known of a source; None for nothing."""
        of_repository = self._of_repository.get((question.credential, question.name))
        return of_repository or self._of_credential.get(question.credential) or self._useless

    def ask(self, question: _Question, environment: Mapping[str, str]) -> None:
        host, _, path = question.name.partition("/")
        credential = question.credential
        if question.api is not None:
            path = question.image_path
            verdict = registryclient.probe_host(
                *(question.api, path, question.tag, credential), deadline=_EACH, environment=environment
            )
        else:
            verdict = registryclient.probe_manifest(
                *(host, path, question.tag, credential),
                insecure=question.insecure,
                deadline=_EACH,
                environment=environment,
            )
        self.asked += 1
        if not verdict.scheme:
            # GET /v2/ failed, which shows neither credential nor repository.
            self._useless = verdict
        elif credential and (verdict.outcome in (OK, NOT_FOUND, RATE_LIMITED) or _is_of_credential(verdict)):
            self._of_credential[credential] = verdict
        else:
            self._of_repository[credential, question.name] = verdict


class _Pace:
    """Lets one question pass after the other, until time is over."""

    def __init__(self, rate: float, seconds: float) -> None:
        self._lock = threading.Lock()
        self._step = 1 / rate
        self._next = time.monotonic()
        self._end = self._next + seconds

    def has_turn(self) -> bool:
        """Waits for a turn; False where time is over."""
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + self._step
        if turn >= self._end:
            return False
        time.sleep(max(0, turn - time.monotonic()))
        return True


def ask(
    found: Audit,
    collected: Collected,
    environment: Mapping[str, str],
    rate: float,
    deadline: float,
    tell: Callable[[str], None] = lambda text: None,
) -> Audit:
    """An audit in which mirrors were asked.

    Args:
        environment: names the proxies.
        rate: questions in a second.
        deadline: seconds after which no more are asked.
        tell: is told of the progress.

    Raises:
        ConfigError: this process may not read what CRI-O would read.
    """
    mirrors: dict[str, _Mirror] = {}
    questions = [_questions(pull, collected) for pull in found.pulls]
    for asked in questions:
        for question in filter(None, asked):
            mirrors.setdefault(question.name.partition("/")[0], _Mirror()).questions[question] = None
    pace, failed = _Pace(rate, deadline), list[Exception]()

    def serve(mirror: _Mirror) -> None:
        try:
            # Whoever may create pods may name any number of images that are asked for without a credential.
            for question in sorted(mirror.questions, key=lambda question: question.credential is None):
                if mirror.answer(question) is None and pace.has_turn():
                    mirror.ask(question, environment)
        except Exception as error:
            # Raised again below, in the thread that somebody listens to.
            failed.append(error)

    threads = [threading.Thread(target=serve, args=(mirror,), daemon=True) for mirror in mirrors.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.2)
            tell(f"asked {plural(sum(mirror.asked for mirror in mirrors.values()), 'question')} of mirrors")
    if failed:
        raise failed[0]
    pulls = []
    for pull, asked in zip(found.pulls, questions, strict=True):
        answers = [mirrors[one.name.partition("/")[0]].answer(one) if one else None for one in asked]
        pulls.append(_judged(pull, asked, answers))
    notes = [f"{plural(len(mirrors), 'mirror')} asked, {plural(sum(m.asked for m in mirrors.values()), 'question')}"]
    late = sum(1 for pull in pulls if "mirror-not-asked" in pull.unchecked)
    if late:
        notes.append(
            f"for {plural(late, 'pull')}, {UNCHECKED['mirror-not-asked']}: choose namespaces, or a higher rate"
        )
    return found._replace(pulls=pulls, counts=count(pulls), notes=(*found.notes, *notes))


def _questions(pull: Pull, collected: Collected) -> list[_Question | None]:
    """One for each source, None where there is nothing to ask: no credential of the namespace is meant for it, the node
    has one, or it is blocked."""
    if pull.outcome not in (WORKS, ANONYMOUS):
        return [None] * len(pull.sources)
    image = reference.parse(pull.image)
    tag = image.digest or image.tag or "latest"
    return [
        _Question(source.name, image.path, tag, source.insecure, source.api, _credential(pull, source, collected))
        if source.wanted and source.credential in ("", SECRET) and source.reason != "blocked"
        else None
        for source in pull.sources
    ]


def _credential(pull: Pull, source: Source, collected: Collected) -> Credential | None:
    """The one that the plugin writes for a source, of the secret that it chose."""
    if source.credential != SECRET:
        return None
    secret = collected.secrets(pull.namespace)[source.secret]
    candidates = Keyring(pullsecrets.loads([secret], pull.namespace).secrets).candidates(source.name)
    return next(candidate.credential for candidate in candidates if candidate.credential is not None)


def _judged(pull: Pull, asked: list[_Question | None], answers: list[Verdict | None]) -> Pull:
    """A pull after the answers for its sources."""
    if not any(asked):
        return pull
    told = zip(pull.sources, answers, strict=True)
    pull = pull._replace(sources=tuple(_answered(source, verdict) for source, verdict in told))
    answered = [(source, verdict) for source, verdict in zip(pull.sources, answers, strict=True) if verdict]
    for source, verdict in answered:
        if verdict.outcome == OK and pull.outcome == ANONYMOUS:
            return pull._replace(text=f"{source.name} requires no credential", remedy="")
        if verdict.outcome in (OK, NOT_FOUND):
            return pull
    if len(answered) < sum(1 for question in asked if question):
        return pull._replace(unchecked=(*pull.unchecked, "mirror-not-asked"))
    unclear = next((pair for pair in answered if not _is_refusal(pair[1])), None)
    # A mirror that refuses a credential says more than one that requires it.
    source, verdict = unclear or max(answered, key=lambda pair: pair[0].credential == SECRET)
    node = any(source.wanted and source.credential in (NODE, NODE_HELPER) for source in pull.sources)
    outcome = NOT_CHECKED if unclear else NODE_CREDENTIALS if node else FAILS
    reason = "mirror-unreachable" if unclear else source.reason
    return pull._replace(outcome=outcome, reason=reason, text=source.text, remedy=verdict.remedy)


def _is_refusal(verdict: Verdict) -> bool:
    return verdict.outcome in (UNAUTHORIZED, FORBIDDEN) and not verdict.undecided


def _is_of_credential(verdict: Verdict) -> bool:
    """Whether the credential itself is refused, wherever it is shown; a connection may be refused as well."""
    return verdict.outcome == UNAUTHORIZED and verdict.cause == "refused"


def _answered(source: Source, verdict: Verdict | None) -> Source:
    if verdict is None:
        return source
    source = source._replace(answer=verdict.outcome)
    if verdict.outcome in (OK, NOT_FOUND):
        return source
    by = f" (secret {source.secret}, key {source.key})" if source.credential else ""
    code = "mirror-unreachable"
    if _is_refusal(verdict):
        code = "credential-refused" if _is_of_credential(verdict) else "not-allowed"
    return source._replace(reason=source.reason or code, text=f"{verdict.evidence}{by}")
