"""The conversation with one registry: ping, challenge, token, manifest, and what each failure means."""

from __future__ import annotations

import base64
import http.client
import re
import time
import urllib.parse
from typing import TYPE_CHECKING

from .. import __version__
from . import unreachable, wire
from .schemes import missing_scope, none_shown, with_other_schemes
from .telling import Telling, userpass
from .trust import Trust
from .unreachable import Attempt
from .verdict import (
    CONNECT,
    DNS,
    FORBIDDEN,
    NOT_A_REGISTRY,
    NOT_FOUND,
    RATE_LIMITED,
    SERVER_ERROR,
    TLS,
    UNAUTHORIZED,
    Fault,
)
from .wire import Answer, Challenge, Silent, TooMuch, Url, challenges_of, is_for_go_alone, parse_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..images.dockerconfig import Credential

MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.index.v1+json",
)
"""What CRI-O accepts, in its order."""

_DOCKER_HUB, _DOCKER_HUB_SERVER = "docker.io", "registry-1.docker.io"
_MAX_REDIRECTS = 10


class Client:
    """Everything for one verdict.

    Attributes:
        name: the registry as images call it.
        scheme: by which it answered; "" before it did.
        exchanges, credential_sent_to: as in ``Verdict``.
    """

    runtime = "CRI-O"
    _tries = "CRI-O tries 5 times within at most 4 minutes"

    def __init__(
        self,
        name: str,
        credential: Credential | None,
        insecure: bool,
        root: str,
        seconds: float,
        environment: Mapping[str, str],
    ) -> None:
        self.name = name
        self.scheme = ""
        self.exchanges: list[str] = []
        self.credential_sent_to: list[str] = []
        self._server = _DOCKER_HUB_SERVER if name == _DOCKER_HUB else name
        self._credential = credential
        self._insecure = insecure
        self._root = root
        self._environment = environment
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._telling = Telling(credential)
        self._trust: Trust | None = None
        self._no_token_given: Fault | None = None

    # -- questions ---------------------------------------------------------------------------------------------------

    def ask_registry(self) -> tuple[str, str]:
        """Whether there is one; the evidence."""
        answer = self._ping()
        if _is_web_page(answer):
            raise _no_registry(f"{self._telling.shown(answer.url)} answers {answer.status} with a web page")
        if answer.status == 200:
            return "a registry answers, and requires no credential for GET /v2/", ""
        schemes = ", ".join(challenge.scheme for challenge in challenges_of(answer))
        return (
            f"a registry answers, and requires a credential ({self._telling.told(schemes) or 'it does not say which'})",
            "",
        )

    def ask_manifest(self, path: str, reference: str) -> tuple[str, str]:
        """The manifest's headers, with the credential; where they are refused, the whole, as CRI-O does."""
        ping = self._ping()
        url = self._url(self.scheme, f"/v2/{path}/manifests/{reference}")
        scopes = [f"repository:{path}:pull"]
        try:
            authorization = self._authorize(ping, scopes)
            answer = self._ask("HEAD", url, authorization)
            wider = missing_scope(answer)
            if wider:
                authorization = self._authorize(ping, [*scopes, wider])
                answer = self._ask("HEAD", url, authorization)
            if answer.status != 429 and not (answer.status == 200 and answer.media_type in MANIFEST_TYPES):
                answer = self._ask("GET", url, authorization)
            if answer.status != 200:
                raise self._refused(answer, ping, authorization)
        except Fault as fault:
            raise with_other_schemes(fault, ping) from None
        return self._manifest(answer, path, reference)

    def _manifest(self, answer: Answer, path: str, reference: str) -> tuple[str, str]:
        """What an answer of 200 says of the manifest."""
        document = answer.json()
        if answer.media_type not in MANIFEST_TYPES and not (isinstance(document, dict) and "schemaVersion" in document):
            page = ", a web page" if _is_web_page(answer) else ""
            raise _no_registry(
                f"{self._telling.shown(answer.url)} answers 200 with something other than a manifest{page}"
            )
        separator = "@" if ":" in reference else ":"
        return f"has {path}{separator}{reference}", self._telling.told(answer.headers.get("Docker-Content-Digest"))

    # -- the way there -----------------------------------------------------------------------------------------------

    def _ping(self) -> Answer:
        """``GET /v2/`` without a credential: over TLS, then without it where the source is insecure."""
        if not self._insecure:
            return self._ping_by("https")
        deadline = self._deadline
        try:
            # A port that says nothing must leave time for the other one.
            self._deadline -= self._seconds / 2
            return self._ping_by("https")
        except Fault as fault:
            over_tls = fault
        finally:
            self._deadline = deadline
        try:
            return self._ping_by("http")
        except Fault as plain:
            further = plain if _STAGES.get(plain.outcome, 3) >= _STAGES.get(over_tls.outcome, 3) else over_tls
            further.evidence = "; ".join(dict.fromkeys((over_tls.evidence, plain.evidence)))
            further.undecided = over_tls.undecided or plain.undecided
            raise further from None

    def _ping_by(self, scheme: str) -> Answer:
        answer = self._ask("GET", self._url(scheme, "/v2/"), headers_alone=_PINGED)
        if answer.status not in _PINGED:
            raise self._no_ping(answer)
        self.scheme = scheme
        return answer

    def _url(self, scheme: str, target: str) -> Url:
        url = parse_url(f"{scheme}://{self._server}{target}")
        if url is None:
            raise Fault(DNS, f"{self._server!r} is not a host name", "correct the location in registries.conf")
        self._telling.ours |= {url.origin, url.shown}
        return url

    def _authorize(self, ping: Answer, scopes: list[str]) -> str:
        """The Authorization header for the first challenge that CRI-O understands; "" without one."""
        for challenge in challenges_of(ping):
            if challenge.scheme == "basic":
                # Without a credential CRI-O shows an empty one.
                return basic(self._credential)
            if challenge.scheme == "bearer":
                return f"Bearer {self._token(challenge, scopes)}"
        return ""

    def _token(self, challenge: Challenge, scopes: list[str]) -> str:
        """A token of the service that the registry names; "" where it hands out an empty one, which CRI-O shows too."""
        realm = challenge.parameters.get("realm", "")
        service = parse_url(realm)
        if service is None:
            raise self._no_token_service(realm)
        try:
            answer = self._ask_token_service(service, challenge.parameters.get("service", ""), scopes)
            if answer.status != 200:
                raise self._no_token(answer, service)
            token = self._read_token(answer, service)
        except Fault as fault:
            raise self._of_token_service(fault, service) from None
        self._telling.hide(token)
        return token

    def _read_token(self, answer: Answer, service: Url) -> str:
        """The token in an answer, as Go's decoder reads it: one member of a wrong type spoils the whole."""
        document, found = answer.json(), {"token": "", "access_token": ""}
        unusable = not isinstance(document, dict)
        for name, value in document.items() if isinstance(document, dict) else ():
            name, text = name.lower(), value if isinstance(value, str) else None
            if value is None:
                continue
            if name in found:
                unusable, found[name] = unusable or text is None, text or ""
            elif name == "issued_at":
                unusable = unusable or not _RFC3339.fullmatch(text or "")
            elif name == "expires_in":
                unusable = unusable or type(value) is not int
        token = found["token"] or found["access_token"]
        what = " with a web page and" if _is_web_page(answer) else ""
        evidence = f"its token service {self._telling.shown(service)} answers 200{what} without a usable token"
        fault = Fault(NOT_A_REGISTRY, evidence, _REALM, "token-service", undecided=not (unusable or token.isascii()))
        if unusable or not token.isascii() or not token.isprintable():
            raise fault
        if not token:
            self._no_token_given = self._of_token_service(fault, service)
        return token

    def _of_token_service(self, fault: Fault, service: Url) -> Fault:
        """A fault with its place, which is not the registry's."""
        where = f"its token service {self._telling.shown(service)}"
        fault.token_service = self._telling.shown(service)
        if where not in fault.evidence:
            fault.evidence = f"{where}: {fault.evidence}"
        if fault.outcome == NOT_A_REGISTRY:
            fault.remedy, fault.cause = _REALM, "token-service"
        elif fault.cause in ("not-tls", "wrong-name") or (fault.outcome in (DNS, CONNECT) and fault.cause != "proxy"):
            # The remedy last: it may end with a command.
            fault.remedy = f"{_REALM}; {fault.remedy}"
        return fault

    def _no_token_service(self, realm: str) -> Fault:
        """The challenge has no realm, or one that cannot be asked."""
        if is_for_go_alone(realm):
            evidence = (
                "its token service's URL has a user name or a non-ASCII host: verify does not ask it; "
                f"{self.runtime} does"
            )
            return Fault(NOT_A_REGISTRY, evidence, _REALM, "token-service", undecided=True)
        told = self._telling.told(realm)
        has = f"its realm is {told or 'not a URL'}" if realm else "it has no realm"
        fault = Fault(NOT_A_REGISTRY, f"its Bearer challenge has no valid token service: {has}", _REALM, "no-realm")
        fault.token_service = told
        return fault

    def _ask_token_service(self, service: Url, name: str, scopes: list[str]) -> Answer:
        path, _, query = service.target.partition("?")
        wanted = [(key, value) for key, value in urllib.parse.parse_qsl(query, keep_blank_values=True)]
        wanted += [("service", name)] if name else []
        wanted += [("scope", scope) for scope in scopes]
        credential = self._credential
        if credential is None:
            return self._ask("GET", service._replace(target=f"{path}?{urllib.parse.urlencode(wanted)}"))
        if service.scheme == "http" and not self._insecure:
            raise Fault(
                TLS,
                f"its token service {self._telling.shown(service)} is plain HTTP: the credential was not sent "
                f"({self.runtime} sends it)",
                f"configure a token service with TLS, as anyone on the network can read the credential; {_REALM}",
                "token-service-without-tls",
                undecided=True,
            )
        if credential.identity_token:
            wanted += [("grant_type", "refresh_token"), ("refresh_token", credential.identity_token)]
            form = urllib.parse.urlencode([*wanted, ("client_id", "containers/image")])
            return self._ask("POST", service, content=form.encode("ascii"))
        account = [("account", credential.username)] if credential.username else []
        target = f"{path}?{urllib.parse.urlencode([*account, *wanted])}"
        if not (credential.username and credential.password):
            return self._ask("GET", service._replace(target=target))
        return self._ask("GET", service._replace(target=target), basic(credential))

    # -- one request -------------------------------------------------------------------------------------------------

    def _ask(
        self,
        method: str,
        url: Url,
        authorization: str = "",
        content: bytes = b"",
        headers_alone: frozenset[int] = frozenset(),
    ) -> Answer:
        """Asks, and follows redirects as CRI-O does; the Authorization header stays with the origin it was made for.

        CRI-O shows it on other ports of the host and on hosts below it, until it was once led away from these.
        """
        first, kept_back = url, False
        for _ in range(_MAX_REDIRECTS):
            if url.host != first.host and (":" in url.host or not url.host.endswith(f".{first.host}")):
                authorization = ""
            is_there = url.origin == first.origin
            kept_back = kept_back or (bool(authorization) and not is_there)
            answer = self._exchange(method, url, authorization if is_there else "", content, headers_alone)
            self.exchanges.append(f"{method} {self._telling.shown(url)}: {answer.status}")
            location = answer.headers.get("Location")
            if answer.status not in _REDIRECTS or not location or (content and answer.status in (307, 308)):
                return answer._replace(kept_back=kept_back)
            following = parse_url(location, url)
            if following is None:
                fault = _no_registry(f"{self._telling.shown(url)} redirects to something that is not a URL")
                fault.undecided = is_for_go_alone(location, url)
                raise fault
            url = following
            if content:
                method, content = "GET", b""
        raise _no_registry(f"{self._telling.shown(url)} redirects more than {_MAX_REDIRECTS} times")

    def _exchange(
        self, method: str, url: Url, authorization: str, content: bytes, headers_alone: frozenset[int]
    ) -> Answer:
        headers = {"Host": url.authority, "User-Agent": _USER_AGENT, "Docker-Distribution-API-Version": "registry/2.0"}
        if "/manifests/" in url.target:
            headers["Accept"] = ", ".join(MANIFEST_TYPES)
        if authorization:
            headers["Authorization"] = authorization
        if content:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        context = self._trusted().context
        opened = None
        try:
            opened = wire.connect(url, context, self._environment, self._deadline)
            if self._credential and (content or authorization.startswith("Basic")):
                shown = self._telling.shown(url._replace(target="")).partition("://")[2]
                self.credential_sent_to.append(self._server if url.shown in self._telling.ours else shown)
            return wire.exchange(opened, method, url, headers, content, self._deadline, headers_alone)
        except Fault as fault:
            where = self._telling.shown(url._replace(target=""))
            if where != url.origin:
                fault.evidence = f"{where}, where it redirects, cannot be reached"
                fault.remedy = "ask the registry's administrator where it redirects to"
            raise
        except OSError as error:
            away = unreachable.explain(error, self._attempt(url))
            # CRI-O gives a handshake 10 seconds, and an answer as long as it takes.
            away.undecided = opened is not None and isinstance(error, Silent)
            raise away from None
        except http.client.HTTPException:
            raise _no_registry(f"{self._telling.shown(url)} does not speak HTTP") from None
        except TooMuch:
            raise _no_registry(f"{self._telling.shown(url)} sends an answer without an end") from None

    def _trusted(self) -> Trust:
        if self._trust is None:
            self._trust = Trust(self.name, self._insecure, self._root)
        return self._trust

    def _attempt(self, url: Url) -> Attempt:
        where = self._telling.shown(url._replace(target=""))
        host = url.host if self._telling.shown(url) == url.shown else ""
        return Attempt(
            self.name, where, host, self._seconds, self._trusted(), self._is_registry_without_tls, self.runtime
        )

    def _is_registry_without_tls(self) -> bool:
        """Asks a registry that is to have TLS and never answered without it."""
        if self._insecure or self.scheme:
            return False
        try:
            self._ping_by("http")
        except Fault:
            return False
        finally:
            self.scheme = ""
        return True

    # -- what went wrong ---------------------------------------------------------------------------------------------

    def _refused(self, answer: Answer, ping: Answer, authorization: str) -> Fault:
        """The manifest is not handed out."""
        where, words = self._telling.shown(answer.url), self._telling.words(answer)
        if self._was_led_away(answer, self._url(self.scheme, "/")):
            return self._led_away(answer, self._server)
        if answer.status in (401, 403) and self._no_token_given:
            return self._no_token_given
        if answer.status in (401, 403) and not authorization and (answer.status == 401 or self._credential):
            return none_shown(answer, f"{where} answers {answer.status}", words, ping, self._telling)
        if answer.status == 401:
            return self._unauthorized(f"{where} answers 401", words, authorization)
        if answer.status == 403:
            return self._forbidden(f"{where} answers 403", words)
        if answer.status == 404:
            unknown = "repository" if "NAME_UNKNOWN" in words else "manifest" if "MANIFEST_UNKNOWN" in words else ""
            remedy = "check the image name there; some registries answer 404 to users who may not see a repository"
            return Fault(NOT_FOUND, f"{where} answers 404{words}", remedy, unknown)
        return self._unwilling(answer, where)

    def _was_led_away(self, answer: Answer, first: Url) -> bool:
        """Whether a refusal may be for the lack of a credential, which a redirect took us from."""
        return answer.kept_back or (answer.status in (401, 403) and answer.url.origin != first.origin)

    def _led_away(self, answer: Answer, redirecting: str) -> Fault:
        outcome = {401: UNAUTHORIZED, 403: FORBIDDEN, 404: NOT_FOUND}.get(answer.status, SERVER_ERROR)
        evidence = (
            f"{self._telling.shown(answer.url)} answers {answer.status}{self._telling.words(answer)}; {redirecting} "
            "redirects there, and no credential was sent"
        )
        if answer.kept_back:
            evidence += f"; {self.runtime} sends it, to every port and subdomain of a host"
        remedy = "ask the registry's administrator why it redirects there"
        return Fault(outcome, evidence, remedy, "redirected", answer.kept_back)

    def _forbidden(self, what: str, words: str) -> Fault:
        if not self.credential_sent_to:
            return Fault(FORBIDDEN, f"{what} without a credential{words}", self._wanted(), "no-credential")
        remedy = "ask the registry's administrator to let the credential's user pull this repository"
        return Fault(FORBIDDEN, f"{what} with the credential{words}", remedy, "not-allowed")

    def _wanted(self) -> str:
        """What to do where none was shown."""
        if self._credential:
            return (
                f"its entry has only a user name or only a password, which {self.runtime} does not send to a token "
                "service: complete it"
            )
        return "add a credential for this host to a pull secret of the namespace"

    def _unauthorized(self, what: str, words: str, authorization: str) -> Fault:
        if not self.credential_sent_to and (self._credential is None or authorization.startswith("Bearer")):
            return Fault(UNAUTHORIZED, f"{what} without a credential{words}", self._wanted(), "no-credential")
        if authorization.startswith("Bearer"):
            evidence = f"{what} to the token that its token service gave for the credential{words}"
            remedy = "check that the credential's user may pull this repository, and that the repository exists"
            return Fault(UNAUTHORIZED, evidence, remedy, "not-allowed")
        return Fault(UNAUTHORIZED, f"{what}: it refuses the credential{words}", _ROTATED, "refused")

    def _no_token(self, answer: Answer, service: Url) -> Fault:
        where, words = f"its token service {self._telling.shown(service)}", self._telling.words(answer)
        if self._was_led_away(answer, service):
            return self._led_away(answer, where)
        refused = answer.status in (401, 403) or (answer.status == 400 and bool(self._credential))
        if refused and not self.credential_sent_to:
            evidence = f"{where} answers {answer.status} without a credential{words}"
            return Fault(UNAUTHORIZED, evidence, self._wanted(), "no-credential")
        if refused:
            evidence = f"{where} answers {answer.status}: it refuses the credential{words}"
            return Fault(UNAUTHORIZED, evidence, _ROTATED, "refused")
        if answer.status == 404:
            return Fault(NOT_A_REGISTRY, f"{where} answers 404{words}", _REALM, "token-service")
        fault = self._unwilling(answer, where)
        if answer.status == 429:
            # For a token it asks once.
            fault.remedy, fault.undecided = "wait, or use a credential with a higher limit", False
        return fault

    def _no_ping(self, answer: Answer) -> Fault:
        """``GET /v2/`` is answered neither 200 nor 401, with which CRI-O gives up."""
        where, words = self._telling.shown(answer.url), self._telling.words(answer)
        if answer.status == 403:
            evidence = f"{where} answers 403{words}, on which CRI-O gives up before it sends a credential"
            return Fault(FORBIDDEN, evidence, _PING, "ping")
        if answer.status in (429, *range(500, 600)):
            return self._unwilling(answer, where)
        if words:
            # In the form of a registry's errors.
            return Fault(SERVER_ERROR, f"{where} answers {answer.status}{words}", _PING, "unexpected-status")
        return _no_registry(f"{where} answers {answer.status}{words}")

    def _unwilling(self, answer: Answer, where: str) -> Fault:
        """It would not answer now, or answers what means nothing."""
        words = self._telling.words(answer)
        if answer.status == 429:
            told = [
                f"{name}: {self._telling.told(answer.headers.get(name))}"
                for name in _LIMITS
                if answer.headers.get(name)
            ]
            evidence = f"{where} answers 429{words}{''.join(f', {text}' for text in told)}"
            remedy = f"wait, or use a credential with a higher limit; {self._tries}"
            wait = answer.headers.get("Retry-After", "").strip()
            late = wait.isdecimal() and int(wait[:9]) > _MAX_RETRYING
            return Fault(RATE_LIMITED, evidence, remedy, undecided=not late)
        if answer.status >= 500:
            remedy = "look for the reason in the registry's log"
            return Fault(SERVER_ERROR, f"{where} answers {answer.status}{words}", remedy)
        remedy = "ask the registry's administrator what this status means"
        return Fault(SERVER_ERROR, f"{where} answers {answer.status}{words}", remedy, "unexpected-status")


_USER_AGENT = f"crio-credential-provider/{__version__} (verify)"
_LIMITS = ("Retry-After", "RateLimit-Limit", "RateLimit-Remaining")
_ROTATED = "write the current one to the pull secret, if it was rotated or mistyped"
_PING = "configure the registry (or the proxy in front of it) to answer GET /v2/ with 200 or 401"
_REALM = (
    "the URL of the token service is set in the registry itself (Harbor external_url or hostname, Artifactory base "
    "URL, GitLab token_realm, Quay SERVER_HOSTNAME, docker-registry auth.token.realm)"
)
_PINGED = frozenset((200, 401))
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_MAX_RETRYING = 240
"""Seconds after which CRI-O gives up where it is asked to wait: 4 times 60 at most."""

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")

# How far a question came; an answer of any status is further than all.
_STAGES = {DNS: 0, CONNECT: 1, TLS: 2}


def _no_registry(evidence: str, cause: str = "") -> Fault:
    return Fault(NOT_A_REGISTRY, evidence, NO_REGISTRY, cause)


NO_REGISTRY = "check that the location in registries.conf is the registry, with the right port"


def _is_web_page(answer: Answer) -> bool:
    return answer.media_type == "text/html" and not challenges_of(answer)


def basic(credential: Credential | None) -> str:
    return f"Basic {base64.b64encode(userpass(credential)).decode()}"
