"""What a registry's challenges mean for CRI-O, which takes one scheme of those that are offered."""

from __future__ import annotations

from .telling import Telling
from .verdict import FORBIDDEN, UNAUTHORIZED, Fault
from .wire import Answer, challenges_of, offered_schemes

_ASK = "configure the registry to answer GET /v2/ with 401 as well"
_SAY_HOW = "configure the registry, or the proxy in front of it, to send WWW-Authenticate with its 401 to GET /v2/"
_SCHEMES = ("basic", "bearer")


def none_shown(answer: Answer, what: str, words: str, ping: Answer, telling: Telling) -> Fault:
    """Nothing in the answer to ``GET /v2/`` told CRI-O to show a credential."""
    outcome = UNAUTHORIZED if answer.status == 401 else FORBIDDEN
    challenges = challenges_of(ping)
    schemes = telling.told(", ".join(challenge.scheme for challenge in challenges))
    schemes = repr(schemes) if schemes else "another scheme"
    if challenges:
        evidence = f"{what}, and requires {schemes}, which CRI-O does not support{words}"
        return Fault(outcome, evidence, "configure Basic or Bearer authentication in the registry", "unknown-challenge")
    if ping.status == 401:
        evidence = f"{what}; GET /v2/ is answered 401 as well, but without a WWW-Authenticate header: CRI-O"
        return Fault(outcome, f"{evidence} sends no credential{words}", _SAY_HOW, "no-challenge")
    evidence = f"{what}, though GET /v2/ asks for no credential, so that CRI-O sends none{words}"
    return Fault(outcome, evidence, _ASK, "not-asked")


def with_other_schemes(fault: Fault, ping: Answer) -> Fault:
    """A fault with what somebody must know where CRI-O uses one of several schemes: perhaps another would do."""
    taken = next((c.scheme for c in challenges_of(ping) if c.scheme in _SCHEMES), "")
    others = [scheme for scheme in offered_schemes(ping) if scheme in _SCHEMES and scheme != taken]
    is_of_it = fault.token_service or fault.cause in ("refused", "not-allowed", "unknown-challenge")
    if not others or not is_of_it:
        return fault
    other = others[0].capitalize()
    if not taken:
        fault.evidence += f"; it offers {other} as well, but CRI-O only reads the first scheme of a header"
        fault.remedy = f"configure the registry to offer {other} in a WWW-Authenticate header of its own"
        return fault
    used = taken.capitalize()
    fault.evidence += f"; it offers {used} and {other}, and CRI-O only uses the first, {used}"
    remedy = f"configure the registry to offer {other} first or alone"
    if fault.cause in ("refused", "not-allowed") and fault.outcome == UNAUTHORIZED:
        fault.cause, fault.remedy = "first-scheme", f"if this credential is right, {remedy}"
    else:
        fault.remedy = f"{fault.remedy}; or {remedy}"
    return fault


def missing_scope(answer: Answer) -> str:
    """The scope that the registry finds missing in a token, "" where it does not say so."""
    for challenge in challenges_of(answer) if answer.status == 401 else ():
        scope = challenge.parameters.get("scope", "")
        if (
            challenge.scheme == "bearer"
            and challenge.parameters.get("error") == "insufficient_scope"
            and scope.count(":") == 2
        ):
            return scope
    return ""
