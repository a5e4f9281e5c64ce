"""Objects from the API server: with a person's kubeconfig through ``kubectl proxy``, in a pod with its own token.

A person's kubeconfig may need programs, proxies and logins that only kubectl knows. It serves a Unix socket in a
private directory, and there takes GET alone. Lists come in pages; one that expires half-way is begun again, without its
objects being counted twice. What may not be read is told, and missing then.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from ..errors import ClusterError, ConfigError
from ..kubernetes import apiserver
from ..kubernetes.apiserver import ApiServer
from ..kubernetes.endpoint import Endpoint
from ..kubernetes.pullsecrets import NEVER_MEANT
from . import lists
from .auditor import Auditor
from .openshift import mirrorsets
from .workloads import Object, items, member, text

_PAGE = 500
_MAX_ANSWER = 256 << 20
"""Bytes: 500 objects of the 0.5 MB that hardly any has."""
_SECONDS = 60.0
"""For one request, and for kubectl to start."""
_PATIENCE = 10.0
"""Seconds until the person is told that we wait."""
_TRY = "try: kubectl version"
_LOG = re.compile(rb"[IWEF]\d{4} ")
"""How a line of kubectl's own log begins."""
_RETRIES, _FIRST_PAUSE, _LONGEST_PAUSE = 6, 0.5, 30.0
"""Seconds; each pause is twice the one before, at least what the server asks for."""
_MAX_EXPIRED = 5
"""How often one list may be begun again."""
_ONLY_GET = "^[^G],^.[^E],^..[^T],^...."
"""Of methods, what ``kubectl proxy --reject-methods`` turns away."""
_WATCHER = 'trap "" HUP INT QUIT TERM; read -r _ && exit; kill "$1"; rm -f "$2"; rmdir "${2%/*}"'
"""For a shell, which ends kubectl once its standard input has ended without a word."""
_POD = "/var/run/secrets/kubernetes.io/serviceaccount"

CLUSTER_ROLE = """\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: crio-credential-provider-audit
rules:
  - apiGroups: [""]
    resources: ["namespaces", "nodes", "pods", "replicationcontrollers", "secrets", "serviceaccounts"]
    verbs: ["list"]
  - apiGroups: ["apps"]
    resources: ["daemonsets", "deployments", "replicasets", "statefulsets"]
    verbs: ["list"]
  - apiGroups: ["batch"]
    resources: ["cronjobs", "jobs"]
    verbs: ["list"]
  - apiGroups: ["apps.openshift.io"]
    resources: ["deploymentconfigs"]
    verbs: ["list"]
  - apiGroups: ["rbac.authorization.k8s.io"]
    resources: ["clusterrolebindings", "clusterroles", "rolebindings", "roles"]
    verbs: ["list"]
"""


OPENSHIFT_RULES = """\
  # A MachineConfig also holds the node's own credentials. Without this rule the mirror sets below are used.
  - apiGroups: ["machineconfiguration.openshift.io"]
    resources: ["machineconfigpools", "machineconfigs"]
    verbs: ["list"]
  - apiGroups: ["config.openshift.io"]
    resources: ["clusterversions", "imagedigestmirrorsets", "images", "imagetagmirrorsets"]
    verbs: ["list"]
  - apiGroups: ["operator.openshift.io"]
    resources: ["imagecontentsourcepolicies"]
    verbs: ["list"]
"""
"""For ``--machine-configs`` alone."""


class _List(NamedTuple):
    kind: str
    group: str
    resource: str
    is_namespaced: bool = True
    query: str = ""
    page: int = 0


_CORE, _APPS, _BATCH, _RBAC = "/api/v1", "/apis/apps/v1", "/apis/batch/v1", "/apis/rbac.authorization.k8s.io/v1"
_OPENSHIFT_APPS = "/apis/apps.openshift.io/v1"
_NAMESPACES = _List("Namespace", _CORE, "namespaces", False)
_LISTS = (
    _List("Node", _CORE, "nodes", False),
    _List("ClusterRole", _RBAC, "clusterroles", False),
    _List("ClusterRoleBinding", _RBAC, "clusterrolebindings", False),
    _List("Role", _RBAC, "roles"),
    _List("RoleBinding", _RBAC, "rolebindings"),
    _List("ServiceAccount", _CORE, "serviceaccounts"),
    _List("Secret", _CORE, "secrets", query="".join(f",type!={kind}" for kind in NEVER_MEANT)[1:]),
    _List("Deployment", _APPS, "deployments"),
    _List("StatefulSet", _APPS, "statefulsets"),
    _List("DaemonSet", _APPS, "daemonsets"),
    _List("ReplicaSet", _APPS, "replicasets"),
    _List("ReplicationController", _CORE, "replicationcontrollers"),
    _List("DeploymentConfig", _OPENSHIFT_APPS, "deploymentconfigs"),
    _List("Job", _BATCH, "jobs"),
    _List("CronJob", _BATCH, "cronjobs"),
    _List("Pod", _CORE, "pods"),
)
_OPENSHIFT = "/apis/machineconfiguration.openshift.io/v1"
_MACHINE_CONFIGS = (
    _List("MachineConfigPool", _OPENSHIFT, "machineconfigpools", False),
    # One has 1 MB and more.
    _List("MachineConfig", _OPENSHIFT, "machineconfigs", False, page=20),
)
_MIRROR_SETS = tuple(_List(*found, False) for found in mirrorsets.LISTS)


class Api(Protocol):
    """Whoever can be asked. ClusterError for any answer but a 200; ``status`` tells which."""

    def get(self, path: str) -> Object: ...


def read(
    auditor: Auditor, namespaces: Iterable[str], kubeconfig: str, context: str, tell: Callable[[str], None]
) -> str:
    """Reads a cluster into an auditor; returns where it was read, for people.

    Args:
        namespaces: the chosen ones; none for all.
        kubeconfig, context: for kubectl; "" for its own choice, or for the pod's token in a pod.
        tell: is told of the progress.

    Raises:
        ClusterError: no answer, or nothing that may be read.
        ConfigError: there is no kubectl.
    """
    is_in_pod = not (kubeconfig or context or os.environ.get("KUBECONFIG")) and os.path.exists(f"{_POD}/token")
    connected: contextlib.AbstractContextManager[Api] = (
        contextlib.nullcontext(_InPod()) if is_in_pod else kubectl(kubeconfig, context)
    )
    with connected as api:
        Reading(auditor, api, tuple(namespaces), tell).run()
    where = f" with context {context}" if context else f" with {kubeconfig}" if kubeconfig else ""
    return f"the API server{where}"


# -- lists ------------------------------------------------------------------------------------------------------------


class Reading:
    """All lists, and what of them may not be read."""

    def __init__(self, auditor: Auditor, api: Api, chosen: tuple[str, ...], tell: Callable[[str], None]) -> None:
        self._auditor = auditor
        self._api = api
        self._chosen = chosen
        self._tell = tell
        self._read = 0
        self._namespaces: list[str] | None = None

    def run(self) -> None:
        """Feeds everything to the auditor."""
        self._auditor.collected.are_from_files = False
        if (openshift := self._auditor.openshift) is not None:
            for found in _MACHINE_CONFIGS:
                self._take(found)
            for found in () if openshift.machine_configs.is_whole else _MIRROR_SETS:
                self._take(found)
        lists = [found for found in _LISTS if self._is_needed(found)]
        refused = [found for found in lists if not self._take(found)]
        if len(refused) == len(lists):
            raise ClusterError("none of the cluster's objects may be listed", "--print-rbac prints the ClusterRole")

    def _is_needed(self, wanted: _List) -> bool:
        if wanted.group != _OPENSHIFT_APPS:
            return wanted.kind != "Node" or not self._auditor.is_uniform
        try:
            # Every user may ask which groups there are. Where this one is not, its lists are forbidden for most.
            self._api.get(wanted.group)
        except ClusterError as error:
            if error.status not in (403, 404):
                raise
            return False
        return True

    def _take(self, wanted: _List) -> bool:
        """Reads one kind, wherever that is allowed; whether it is anywhere."""
        if not (wanted.is_namespaced and self._chosen):
            try:
                self._take_in(wanted, "")
                return True
            except ClusterError as error:
                if error.status != 403:
                    raise
                if not wanted.is_namespaced:
                    self._lack(wanted)
                    return False
        refused = []
        for namespace in self._chosen or self._all_namespaces():
            try:
                self._take_in(wanted, namespace)
            except ClusterError as error:
                if error.status != 403:
                    raise
                refused.append(namespace)
        if self._namespaces is not None and not self._namespaces:
            self._lack(wanted)
            return False
        for namespace in refused:
            self._auditor.collected.lacks(wanted.kind, namespace)
        if refused:
            first, more = ", ".join(refused[:5]), f" and {len(refused) - 5} more" if len(refused) > 5 else ""
            self._auditor.notes.append(f"{wanted.resource} may not be listed in namespace {first}{more}")
        return len(refused) < len(self._chosen or self._all_namespaces())

    def _lack(self, wanted: _List) -> None:
        self._auditor.collected.lacks(wanted.kind)
        self._auditor.notes.append(f"{wanted.resource} may not be listed; --print-rbac prints the ClusterRole")

    def _all_namespaces(self) -> list[str]:
        """The names of all namespaces; none where they may not be listed."""
        if self._namespaces is None:
            try:
                found = self._pages(_NAMESPACES, "")
                self._namespaces = sorted(text(member(item, "metadata"), "name") for item in found)
            except ClusterError as error:
                if error.status != 403:
                    raise
                self._namespaces = []
                self._auditor.notes.append("namespaces may not be listed: choose some with -n")
        return self._namespaces

    def _take_in(self, wanted: _List, namespace: str) -> None:
        for found in self._pages(wanted, namespace):
            # Items of a list do not say what they are.
            self._auditor.add({**found, "kind": wanted.kind})
            self._read += 1
            if not self._read % 100:
                self._tell(f"read {self._read} objects, now {wanted.resource}")

    def _pages(self, wanted: _List, namespace: str) -> Iterator[Object]:
        """The objects of a list, each once. They come in the order of their keys (etcd), so that a list that is begun
        again goes on behind the last one."""
        place = f"/namespaces/{namespace}" if namespace else ""
        query = {"limit": str(wanted.page or _PAGE)} | ({"fieldSelector": wanted.query} if wanted.query else {})
        following, last, expired = "", b"", 0
        while True:
            asked = urllib.parse.urlencode(query | ({"continue": following} if following else {}), errors="replace")
            try:
                answer = self._api.get(f"{wanted.group}{place}/{wanted.resource}?{asked}")
            except ClusterError as error:
                # Clusters without an API group have no objects of it. Each has the first.
                if error.status == 404 and wanted.group != _CORE:
                    return
                expired += 1
                if error.status != 410 or expired > _MAX_EXPIRED:
                    raise
                following = ""
                continue
            for found in items(answer, "items"):
                metadata = member(found, "metadata")
                key = f"{text(metadata, 'namespace')}/{text(metadata, 'name')}".encode(errors="replace")
                if not expired or key > last:
                    last = max(last, key)
                    yield found
            following = text(member(answer, "metadata"), "continue")
            if not following:
                return


# -- connections ------------------------------------------------------------------------------------------------------


class _InPod:
    """The API server as a pod sees it."""

    def get(self, path: str) -> Object:
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host or not port.isdecimal():
            which = "PORT is not a number" if host else "HOST is not set"
            raise ConfigError(f"this is a pod, and KUBERNETES_SERVICE_{which}", "set it, or give --kubeconfig")
        where = Endpoint(host, int(port), "KUBERNETES_SERVICE_HOST", f"{_POD}/ca.crt", server_name=host)
        # Kubernetes replaces it while we run.
        with open(f"{_POD}/token", encoding="ascii") as file:
            token = file.read().strip()
        try:
            return _Direct(where, _SECONDS, _MAX_ANSWER).get(path, token)
        except ConfigError as error:
            # Its hint names flags of the plugin.
            raise ConfigError(error.message, "give --kubeconfig") from None


class _Direct(ApiServer):
    has_flags = False

    def _object(self, body: bytes) -> Object:
        return _object(body)


@contextlib.contextmanager
def kubectl(kubeconfig: str, context: str) -> Iterator[Proxied]:
    """A ``kubectl proxy``, which ends with the block. What logins have to say goes to stderr at once, its log only if
    it ends before."""
    program = shutil.which("kubectl")
    if program is None:
        raise ConfigError(
            "kubectl was not found in PATH, through which the API server is asked",
            "install it, or give files of kubectl get ... -o json",
        )
    named = "" if kubeconfig else os.environ.get("KUBECONFIG", "")
    if named and not any(map(os.path.exists, named.split(os.pathsep))):
        raise ConfigError(f"KUBECONFIG: {named}: no such file", _TRY)
    with tempfile.TemporaryDirectory(prefix="audit-") as directory:
        path = os.path.join(directory, "s")
        command = [program, "proxy", f"--unix-socket={path}", f"--reject-methods={_ONLY_GET}"]
        command += [f"--kubeconfig={kubeconfig}"] if kubeconfig else []
        command += [f"--context={context}"] if context else []
        proxy = _Proxy(command, path)
        try:
            proxy.wait_for(path)
            yield Proxied(path, proxy)
        finally:
            proxy.end()


class _Proxy:
    """The process, and what it said."""

    def __init__(self, command: list[str], path: str) -> None:
        self._log: list[bytes] = []
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self._watcher = _watch(self._process.pid, path)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stderr:
            while said := os.read(stderr.fileno(), 1 << 16):
                for line in said.splitlines(keepends=True):
                    if _LOG.match(line):
                        self._log = [*self._log[-9:], line]
                    else:
                        _say(line)

    def wait_for(self, path: str) -> None:
        """Returns once the socket is there."""
        deadline = time.monotonic() + _SECONDS
        with _patience("kubectl proxy to start"):
            while not os.path.exists(path):
                self.check()
                if time.monotonic() > deadline:
                    raise ClusterError(f"kubectl proxy did not start within {_SECONDS:g} s", _TRY)
                time.sleep(0.02)

    def check(self) -> None:
        """ClusterError if it has ended."""
        status = self._process.poll()
        if status is None:
            return
        self._listener.join(1)
        _say(b"".join(self._log))
        how = f"signal {-status}" if status < 0 else f"status {status}"
        raise ClusterError(f"kubectl proxy ended with {how}", "" if status < 0 else "see its message above")

    def end(self) -> None:
        """Ends it, whatever comes meanwhile: another Ctrl-C."""
        try:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        finally:
            self._process.kill()
            self._process.wait()
            if self._watcher is not None:
                self._watcher.communicate(b"ended\n")


def _watch(number: int, path: str) -> subprocess.Popen[bytes] | None:
    """Somebody whose pipe ends with us, whatever ends us: SIGKILL as well. None where there is no shell."""
    command, silent = ["sh", "-c", _WATCHER, "sh", str(number), path], subprocess.DEVNULL
    try:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=silent, stderr=silent)
    except OSError:
        return None


def _say(text: bytes) -> None:
    with contextlib.suppress(OSError):
        os.write(2, text)


@contextlib.contextmanager
def _patience(what: str) -> Iterator[None]:
    """Tells on stderr, once, that a block takes long."""
    start = "\r\x1b[K" if os.isatty(2) else ""
    timer = threading.Timer(_PATIENCE, _say, [f"{start}waiting for {what}\n".encode()])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class _Unix(http.client.HTTPConnection):
    """HTTP over a Unix socket. kubectl takes requests for localhost alone."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_SECONDS)
        self.sock.connect(self._path)


class Proxied:
    """The API server behind a ``kubectl proxy``."""

    def __init__(self, path: str, proxy: _Proxy) -> None:
        self._connection = _Unix(path)
        self._proxy = proxy

    def get(self, path: str, user: str = "") -> Object:
        """As ``Api``; as another user where one is named, whom one's own must be allowed to impersonate."""
        with _patience("the API server"):
            return self._get(path, user)

    def _get(self, path: str, user: str) -> Object:
        pause = _FIRST_PAUSE
        for retries_left in range(_RETRIES, -1, -1):
            status, body, after = self._ask(path, user)
            if status == 200:
                return _object(body)
            if not status:
                self._proxy.check()
            # An error of the API server is a Status; any other 500 is kubectl's own: it could not ask.
            if status == 500 and not body.startswith(b"{") and (retries_left < _RETRIES or b"timeout" in body):
                message = f"cannot reach the API server: {_message(body)}"
                raise ClusterError(message, "check the kubeconfig's server (kubectl version)", status=status)
            if (status and status not in apiserver.RETRIED_STATUS) or not retries_left:
                break
            time.sleep(min(max(pause, after), _LONGEST_PAUSE))
            pause *= 2
        said = _message(body)
        answered = f"answered {status}" if status else "did not answer"
        hint = "check the kubeconfig's user" if status == 401 else ""
        raise ClusterError(f"the API server {answered}{f': {said}' if said else ''}", hint, status=status)

    def _ask(self, path: str, user: str) -> tuple[int, bytes, float]:
        """Status, body, and the seconds to wait that it asks for; status 0 for no answer."""
        try:
            headers = {"Accept": "application/json"} | ({"Impersonate-User": user} if user else {})
            self._connection.request("GET", path, headers=headers)
            answer = self._connection.getresponse()
            body = answer.read(_MAX_ANSWER + 1)
        except TimeoutError:
            self._connection.close()
            raise ClusterError(f"the API server did not answer within {_SECONDS:g} s", _TRY) from None
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return 0, (getattr(error, "strerror", None) or type(error).__name__).encode(), 0
        if len(body) > _MAX_ANSWER:
            self._connection.close()
            raise ClusterError(f"the API server's answer is larger than {_MAX_ANSWER >> 20} MiB")
        return answer.status, body, apiserver.retry_after(answer.headers.get("Retry-After", ""))


def _object(body: bytes) -> Object:
    try:
        try:
            found: Any = json.loads(body)
        except RecursionError:
            found, _ = lists.shallow(body.decode(), 0)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ClusterError("the API server's answer is not a JSON object", "check that this is a Kubernetes API server")
    return found


def _message(body: bytes) -> str:
    """The message of a Status, or the text of a proxy."""
    found = apiserver.message_of(body)
    return " ".join(body[:300].decode(errors="replace").split()) if found is None else found[:500]
