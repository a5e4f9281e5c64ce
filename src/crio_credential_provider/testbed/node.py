"""The kubelet's half of a pull: the request, the plugin as a process, the answer (docs/reference/contracts.md, 1).

    kubelet = Kubelet(["/usr/libexec/kubelet/crio-credential-provider"], cluster)
    run = kubelet.ask("team-alpha", "web")
    print(run.error or run.response)

It runs the plugin at each call: no cache, no matchImages, no pull records, no pull intents. It never raises for what a
plugin does; as in the kubelet, every failure becomes a line of its log.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..images import reference
from ..images.dockerconfig import Credential
from ..kubernetes import imagepatterns
from ..kubernetes.credentialprovider import API_VERSION
from ..settings import ENVIRONMENT_PREFIX
from .cluster import ApiServer

# Seconds until the kubelet kills a plugin.
TIMEOUT = 60.0

_CACHE_KEY_TYPES = ("Image", "Registry", "Global")
# Go's time.ParseDuration.
_DURATION = re.compile(r"[+-]?(0|((\d+(\.\d*)?|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h))+)", re.ASCII)
# What the kubelet does not look at of a key.
_SCHEME = re.compile(r"^https?://")
_VERSION = re.compile(r"^([^/]*)/v[12]/")


class Response(NamedTuple):
    """A CredentialProviderResponse; `auth` maps match patterns to credentials, `cache_duration` may be left out."""

    cache_key_type: str
    cache_duration: str | None
    auth: dict[str, Credential]


class ResponseError(Exception):
    """What a plugin wrote is not a CredentialProviderResponse v1; the message quotes no value of it."""


class Run(NamedTuple):
    """One run of the plugin.

    Attributes:
        request: what it got on standard input; holds the token.
        status: exit status, below zero for a signal; None where it could not be started or was killed for its time.
        stdout, stderr: what it wrote.
        seconds: from start to end.
        response: its answer; None where the kubelet takes none.
        error: what the kubelet logs in place of an answer; "" where there is one.
    """

    request: bytes
    status: int | None
    stdout: bytes
    stderr: str
    seconds: float
    response: Response | None
    error: str


class Kubelet:
    """Runs the plugin for pods of a cluster.

    Args:
        plugin: the command: ``<bin dir>/<name>`` and the arguments of the CredentialProviderConfig.
        cluster: where it reads pods, and gets their tokens.
        environment: of the kubelet; None for this process's, less the plugin's own variables.
        timeout: seconds until the plugin is killed.
    """

    def __init__(
        self,
        plugin: Sequence[str],
        cluster: ApiServer,
        environment: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self._plugin = list(plugin)
        self._cluster = cluster
        self._environment = own_environment() if environment is None else dict(environment)
        self._timeout = timeout

    def ask(self, namespace: str, pod: str) -> Run:
        """What it does before a pull for the pod's first container. KeyError if there is no such pod."""
        spec = self._cluster.pods[namespace, pod]["spec"]
        token = self._cluster.mint_token(namespace, spec["serviceAccountName"], pod)
        return self.run(dumps_request(spec["containers"][0]["image"], token))

    def run(self, request: bytes) -> Run:
        """Run the plugin with this on its standard input."""
        started = time.monotonic()
        try:
            done = subprocess.run(
                self._plugin,
                input=request,
                capture_output=True,
                env=self._environment,
                timeout=self._timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            seconds = time.monotonic() - started
            return Run(request, None, late.stdout or b"", "", seconds, None, "context deadline exceeded")
        except OSError as error:
            reason = f"fork/exec {self._plugin[0]}: {error.strerror}"
            return Run(request, None, b"", "", time.monotonic() - started, None, reason)
        seconds = time.monotonic() - started
        stderr = done.stderr.decode(errors="replace")
        if done.returncode != 0:
            ended = f"exit status {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
            error_line = f"{ended}: {stderr.strip()}"
            return Run(request, done.returncode, done.stdout, stderr, seconds, None, error_line)
        try:
            return Run(request, 0, done.stdout, stderr, seconds, loads_response(done.stdout), "")
        except ResponseError as error:
            return Run(request, 0, done.stdout, stderr, seconds, None, str(error))


def own_environment() -> dict[str, str]:
    """This process's environment without the plugin's variables: those belong to the node that is being simulated."""
    return {name: value for name, value in os.environ.items() if not name.startswith(ENVIRONMENT_PREFIX)}


def dumps_request(image: str, token: str = "", annotations: Mapping[str, str] | None = None) -> bytes:
    """A CredentialProviderRequest for an image as the pod names it. ReferenceSyntaxError where that is not an image."""
    request: dict[str, object] = {
        "kind": "CredentialProviderRequest",
        "apiVersion": API_VERSION,
        "image": reference.parse(image).name,
    }
    if token:
        request["serviceAccountToken"] = token
    if annotations:
        request["serviceAccountAnnotations"] = dict(annotations)
    return json.dumps(request, separators=(",", ":")).encode() + b"\n"


def credentials_for(image: str, response: Response) -> list[Credential]:
    """What the kubelet passes to the runtime for an image, in the order in which it tries them; empty for nothing.

    Its BasicDockerKeyring: keys without their scheme and an API version, backwards by their text.
    """
    name = reference.parse(image).name
    entries = {_VERSION.sub(r"\1/", _SCHEME.sub("", key)): credential for key, credential in response.auth.items()}
    return [entries[key] for key in sorted(entries, reverse=True) if imagepatterns.matches(key, name)]


def loads_response(data: bytes) -> Response:
    """Decode an answer as strictly as the kubelet does: unknown and repeated fields are errors.

    Raises:
        ResponseError: no CredentialProviderResponse v1.
    """
    try:
        document = json.loads(data.decode(), object_pairs_hook=_once)
    except ResponseError:
        raise
    except (ValueError, RecursionError) as error:
        raise ResponseError(f"standard output is not JSON: {type(error).__name__}") from None
    members = _members(document, "the response", {"kind", "apiVersion", "cacheKeyType", "cacheDuration", "auth"})
    if (members.get("kind"), members.get("apiVersion")) != ("CredentialProviderResponse", API_VERSION):
        raise ResponseError(f"standard output is not a CredentialProviderResponse of {API_VERSION}")
    if members.get("cacheKeyType") not in _CACHE_KEY_TYPES:
        raise ResponseError(f"cacheKeyType is not one of {', '.join(_CACHE_KEY_TYPES)}")
    duration = members.get("cacheDuration")
    if duration is not None and not (isinstance(duration, str) and _DURATION.fullmatch(duration)):
        raise ResponseError("cacheDuration is not a duration")
    auth = {}
    for pattern, value in _members(members.get("auth") or {}, "auth").items():
        entry = _members(value, "an entry of auth", {"username", "password"})
        auth[pattern] = Credential(_text(entry, "username"), _text(entry, "password"))
    return Response(members["cacheKeyType"], duration, auth)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ResponseError("standard output repeats a field")
    return members


def _members(value: Any, what: str, known: set[str] | None = None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ResponseError(f"{what} is not a JSON object")
    if known is not None and not known.issuperset(value):
        raise ResponseError(f"{what} has an unknown field, expected {', '.join(sorted(known))}")
    return value


def _text(members: dict[str, Any], name: str) -> bytes:
    value = members.get(name, "")
    if not isinstance(value, str):
        raise ResponseError(f"the {name} of an entry of auth is not a string")
    return value.encode()
