"""One question to one host of containerd's files, asked as containerd asks it.

Follows containerd 2.x (core/remotes/docker): the manifest below the host's own path at once, with ``?ns=`` where the
host is not the registry itself, without a credential; a 401 decides. Its headers are not sent: nobody keeps them.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, NamedTuple

from .client import MANIFEST_TYPES, Client, basic
from .trust import Trust, read
from .verdict import FORBIDDEN, NOT_A_REGISTRY, TLS, UNAUTHORIZED, Fault
from .wire import Answer, Challenge, Url, challenges_of, parse_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..images.dockerconfig import Credential

_PING = "/v2/"
_ASK = "configure the registry to answer with 401 where it wants a credential"
_SAY_HOW = "configure the registry, or the proxy in front of it, to send WWW-Authenticate with its 401"


class Api(NamedTuple):
    """A host's API, as containerd's files have it.

    Attributes:
        scheme: https or http; of what is asked first.
        host: HOST[:PORT].
        path: of the API: ``/v2``, ``/v2/proxy``.
        namespace: of ``?ns=``; "" where the host is the registry itself.
        skip_verify: the certificate is not verified.
        plain_http: asked by HTTP, at once or where TLS fails.
        ca: files of certificate authorities, besides the system's.
        client: files of client certificates with their keys, the key "" where one file has both.
        headers: names of the headers that containerd sends.
        file: where all this stands, "" for nowhere.
    """

    scheme: str
    host: str
    path: str
    namespace: str
    skip_verify: bool
    plain_http: bool
    ca: tuple[str, ...]
    client: tuple[tuple[str, str], ...]
    headers: tuple[str, ...]
    file: str


class ContainerdClient(Client):
    """A conversation with one host."""

    runtime = "containerd"
    _tries = "containerd tries a few times, at once"

    def __init__(
        self, api: Api, credential: Credential | None, root: str, seconds: float, environment: Mapping[str, str]
    ) -> None:
        # A token service without TLS is asked where the host itself is.
        super().__init__(api.host, credential, api.skip_verify or api.plain_http, root, seconds, environment)
        self._server = api.host
        self._api = api

    def ask_manifest(self, path: str, reference: str) -> tuple[str, str]:
        """The manifest's headers, with the credential where the host answers 401."""
        first = self._ask_first(f"/{path}/manifests/{reference}")
        url = self._url(self.scheme, f"/{path}/manifests/{reference}")
        authorization, answer = "", first
        if first.status == 401:
            authorization = self._authorize(first, [f"repository:{path}:pull"])
            answer = self._ask("HEAD", url, authorization) if authorization else first
        if answer.status != 429 and not (answer.status == 200 and answer.media_type in MANIFEST_TYPES):
            answer = self._ask("GET", url, authorization)
        if answer.status != 200:
            raise self._with_headers(self._refused(answer, first, authorization))
        return self._manifest(answer, path, reference)

    def _ask_first(self, target: str) -> Answer:
        """Without a credential; by HTTP where it may be, and TLS fails."""
        schemes = dict.fromkeys((self._api.scheme, *(("http",) if self._api.plain_http else ())))
        failed: Fault | None = None
        for scheme in schemes:
            try:
                answer = self._ask("HEAD", self._url(scheme, target))
            except Fault as fault:
                failed = fault
                continue
            self.scheme = scheme
            return answer
        assert failed is not None
        if failed.outcome == NOT_A_REGISTRY:
            failed.remedy = self._correct()
        raise failed

    def _url(self, scheme: str, target: str) -> Url:
        query = f"?ns={self._api.namespace}" if self._api.namespace else ""
        path = self._api.path + ("/" if target == _PING else target)
        url = parse_url(f"{scheme}://{self._server}{path}{query}")
        if url is None:
            raise Fault(NOT_A_REGISTRY, f"{self._server!r} is not a host name", self._correct())
        self._telling.ours |= {url.origin, url.shown}
        return url

    def _correct(self) -> str:
        return f"check that the URL in {self._api.file} is the registry" if self._api.file else "check the image's name"

    def _authorize(self, ping: Answer, scopes: list[str]) -> str:
        """containerd takes Bearer before Basic, whatever their order, and shows no half of a credential."""
        challenges = sorted(challenges_of(ping), key=lambda challenge: challenge.scheme != "bearer")
        credential = self._credential
        for challenge in challenges:
            if challenge.scheme == "bearer":
                return f"Bearer {self._token(challenge, _scopes(challenge, scopes))}"
            if challenge.scheme == "basic" and credential and credential.username and credential.password:
                return f"Basic {basic(credential).partition(' ')[2]}"
        return ""

    def _refused(self, answer: Answer, ping: Answer, authorization: str) -> Fault:
        where = f"{self._telling.shown(answer.url)} answers {answer.status}"
        words = self._telling.words(answer)
        known = [challenge for challenge in challenges_of(ping) if challenge.scheme in ("basic", "bearer")]
        if answer.status == 401 and not authorization and known:
            return Fault(UNAUTHORIZED, f"{where} without a credential{words}", self._wanted(), "no-credential")
        if answer.status == 401 and not authorization:
            evidence = f"{where} without a Basic or Bearer challenge: containerd shows no credential{words}"
            return Fault(UNAUTHORIZED, evidence, _SAY_HOW, "no-challenge")
        if answer.status == 403 and not authorization and self._credential:
            evidence = f"{where} and does not ask for a credential: containerd shows none{words}"
            return Fault(FORBIDDEN, evidence, _ASK, "not-asked")
        return super()._refused(answer, ping, authorization)

    def _with_headers(self, fault: Fault) -> Fault:
        """A refusal of what lacked the file's headers decides nothing."""
        if self._api.headers and fault.outcome in (UNAUTHORIZED, FORBIDDEN):
            names = ", ".join(self._api.headers)
            fault.evidence += f"; containerd also sends the headers {names} of {self._api.file}, which verify does not"
            fault.undecided = True
        return fault

    def _trusted(self) -> Trust:
        if self._trust is None:
            self._trust = _ApiTrust(self._api, self._root)
        return self._trust


def _scopes(challenge: Challenge, scopes: list[str]) -> list[str]:
    return sorted({*scopes, *challenge.parameters.get("scope", "").split()})


class _ApiTrust(Trust):
    """The system's CAs, and the files that hosts.toml names."""

    def __init__(self, api: Api, root: str) -> None:
        self._root = root
        self._file = api.file or "hosts.toml"
        self.directory = ""
        self.flaws = []
        self.allows_plain = f"http:// in {self._file} has plain HTTP asked"
        self._make_context(api.skip_verify)
        for path in () if api.skip_verify else api.ca:
            data = read(path)
            if data is None:
                raise _unusable(f"{path}: no such file", self._file)
            if not self._trust(data):
                raise _unusable(f"{path} has no PEM certificate", self._file)
        # Of several certificates that would do Go takes the first, OpenSSL the one that was loaded last.
        for certificate, key in reversed(api.client):
            try:
                self.context.load_cert_chain(certificate, key or None, password="")
            except (OSError, ValueError, ssl.SSLError):
                what = f"{certificate} and {key or certificate} are not a certificate with its key in PEM"
                raise _unusable(what, self._file) from None

    def remedy_of_client(self, host: str) -> str:
        return f"write client for {host} in {self._file}"

    def remedy_of_ca(self, host: str, others: list[str]) -> str:
        return f"write ca for {host} in {self._file}, which containerd reads at each pull, or put its CA into the " + (
            "system's CAs and restart containerd"
        )

    def near_misses(self, host: str) -> list[str]:
        return []


def _unusable(what: str, file: str) -> Fault:
    return Fault(TLS, f"containerd fails with {file}: {what}", f"correct ca and client in {file}", "certs.d")
