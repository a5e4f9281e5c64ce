"""A stand-in for kube-apiserver that answers what the plugin and its tools ask, byte for byte as a real one does.

It knows secrets, pods, service accounts and their tokens, events and access reviews; node certificates; RBAC and the
Node authorizer; and it can be told to refuse, stall, cut, reset and lie (`ApiServer.fault`, module `faults`).
The real answers it is held against are in ``tests/recordings/apiserver``. It keeps no etcd, watches nothing, runs no
controller, knows no namespace objects, and verifies no token signature: it accepts exactly the tokens that it minted.
A long file: one server, all of whose answers come from the same few dictionaries.

    with ApiServer() as cluster:
        cluster.add_secret("team-alpha", "mirror-creds", {"auths": {...}})
        cluster.add_service_account("team-alpha", "default", ["mirror-creds"])
        cluster.add_pod("team-alpha", "web", "node1")
        cluster.allow("team-alpha", "default")
        token = cluster.mint_token("team-alpha", "default", "web")
        ...  # GET {cluster.url}/api/v1/namespaces/team-alpha/secrets
"""

from __future__ import annotations

import base64
import email.utils
import json
import re
import secrets
import threading
import time
import urllib.parse
import uuid
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

from . import lists, objects
from .certificates import Authority, Identity, server_context
from .faults import (
    FAULTS,
    Asked,
    Exchange,
    Fault,
    bad_chunk,
    cut_body,
    drip,
    first,
    flood,
    invalid_json,
    redirect,
    refuse,
    reset,
    stall,
    wrong_content,
)
from .loopback import CHUNK, Answer, Connection, LoopbackServer, Request
from .objects import Object, StatusError
from .rbac import ANONYMOUS, Attributes, Grant, User, Verdict

# The server, and all that `ApiServer.fault` takes.
__all__ = [
    "ANONYMOUS",
    "DATA_KEYS",
    "DNS_NAMES",
    "FAULTS",
    "ISSUER",
    "Answer",
    "ApiServer",
    "Asked",
    "Attributes",
    "Exchange",
    "Fault",
    "Grant",
    "Object",
    "StatusError",
    "User",
    "Verdict",
    "bad_chunk",
    "cut_body",
    "drip",
    "first",
    "flood",
    "invalid_json",
    "redirect",
    "refuse",
    "reset",
    "stall",
    "wrong_content",
]

ISSUER = "https://kubernetes.default.svc"
# The key that a secret of each type has its payload under; any other type gets "data".
DATA_KEYS = {"kubernetes.io/dockerconfigjson": ".dockerconfigjson", "kubernetes.io/dockercfg": ".dockercfg"}
# As kubeadm issues it, less the cluster's own service address.
DNS_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost")
# Generated names (apimachinery, util/rand): no vowels, none of 0, 1 and 3, so that no word comes out.
_NAME_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
# Flow schemas of API priority and fairness, and the priority level that each feeds.
_PRIORITY_LEVELS = {
    "exempt": "exempt",
    "probes": "exempt",
    "system-nodes": "system",
    "service-accounts": "workload-low",
    "global-default": "global-default",
    "catch-all": "catch-all",
}
_CORE_PATH = re.compile(r"/api/v1/namespaces/([^/]+)/(secrets|pods|serviceaccounts|events)(?:/([^/]+))?")
_TOKEN_PATH = re.compile(r"/api/v1/namespaces/([^/]+)/serviceaccounts/([^/]+)/token")
_REVIEW_GROUP = "authorization.k8s.io"
_REVIEW_PATH = f"/apis/{_REVIEW_GROUP}/v1/selfsubjectaccessreviews"
_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class ApiServer:
    """One API server on 127.0.0.1 with TLS; a context manager.

    All state is plain, and may be read and changed while it serves: `secrets`, `service_accounts` and `pods` map
    (namespace, name) to the object, `others` are objects of other kinds, to get by name (with one there are lists of
    every kind, of all namespaces as well), `events` is what was posted, `grants` are the roles, `audiences` the
    audiences that it takes tokens for, `revision` the last resourceVersion given out, `oldest` the one from which lists
    can go on, `requests` everything asked, in order, `tokens_seen` how many requests carried an Authorization header,
    `fault` what is to go wrong (None: nothing).
    With a `prefix` (`/k8s/clusters/c-1`) it serves below that path alone, as behind Rancher's proxy.
    Unlike a real one it ends the TLS handshake for a client certificate of a strange authority, instead of a 401.
    """

    def __init__(
        self,
        authority: Authority | None = None,
        *,
        identity: Identity | None = None,
        audiences: Iterable[str] = (ISSUER,),
        prefix: str = "",
    ) -> None:
        self.prefix = prefix
        self.authority = authority or Authority.make("kubernetes")
        self.audiences = tuple(audiences)
        self.secrets: dict[tuple[str, str], Object] = {}
        self.service_accounts: dict[tuple[str, str], Object] = {}
        self.pods: dict[tuple[str, str], Object] = {}
        self.others: list[Object] = []
        self.events: list[Object] = []
        self.grants: list[Grant] = []
        self.requests: list[Asked] = []
        self.tokens_seen = 0
        self.revision = 300
        self.oldest = 0
        self.fault: Fault | None = None
        self._tokens: dict[str, Object] = {}
        self._key_id = _base64url(secrets.token_bytes(32))
        self._uids: dict[str, str] = {}
        self._lock = threading.RLock()
        identity = identity or self.authority.issue("kube-apiserver", dns_names=DNS_NAMES, ip_addresses=["127.0.0.1"])
        self._server = LoopbackServer(self._respond, server_context(identity, clients=self.authority))

    @property
    def port(self) -> int:
        """The TCP port."""
        return self._server.port

    @property
    def url(self) -> str:
        """``https://127.0.0.1:<port><prefix>``"""
        return f"https://127.0.0.1:{self.port}{self.prefix}"

    def __enter__(self) -> ApiServer:
        self._server.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.__exit__(kind, error, traceback)

    # -- state ---------------------------------------------------------------------------------------------------------

    def add_secret(
        self,
        namespace: str,
        name: str,
        docker_config: Mapping[str, Any] | bytes,
        type: str = "kubernetes.io/dockerconfigjson",
    ) -> Object:
        """Create the secret, or replace its content; returns the object. Bytes are stored as they are, valid or not."""
        payload = docker_config if isinstance(docker_config, bytes) else objects.compact(docker_config)
        key = DATA_KEYS.get(type, "data")
        with self._lock:
            metadata = self._metadata(self.secrets.get((namespace, name)), namespace, name)
            fields: Object = {"f:data": {".": {}, f"f:{key}": {}}, "f:type": {}}
            metadata["managedFields"] = [objects.managed("kubectl-create", fields, metadata["creationTimestamp"])]
            secret: Object = {"kind": "Secret", "apiVersion": "v1", "metadata": metadata}
            secret |= {"data": {key: base64.b64encode(payload).decode()}, "type": type}
            self.secrets[namespace, name] = secret
            return secret

    def delete_secret(self, namespace: str, name: str) -> None:
        """Delete it; KeyError if there is none."""
        with self._lock:
            del self.secrets[namespace, name]
            self.revision += 1

    def add_service_account(
        self,
        namespace: str,
        name: str = "default",
        image_pull_secrets: Sequence[str] = (),
        annotations: Mapping[str, str] | None = None,
    ) -> Object:
        """Create the service account, or replace its content; returns the object. Pods that exist stay as they are."""
        with self._lock:
            metadata = self._metadata(self.service_accounts.get((namespace, name)), namespace, name)
            if annotations:
                metadata["annotations"] = dict(sorted(annotations.items()))
            account: Object = {"kind": "ServiceAccount", "apiVersion": "v1", "metadata": metadata}
            if image_pull_secrets:
                account["imagePullSecrets"] = [{"name": secret} for secret in image_pull_secrets]
            self.service_accounts[namespace, name] = account
            return account

    def add_pod(
        self,
        namespace: str,
        name: str,
        node: str,
        service_account: str = "default",
        image_pull_secrets: Sequence[str] | None = None,
        image: str = "docker.io/nginx",
    ) -> str:
        """Create a pod that is bound to `node`, and return its uid. LookupError if the service account is missing.

        `image_pull_secrets` None copies the service account's, as the ServiceAccount admission plugin does when the
        pod is created. The pod is shown running, with made image and container ids.
        """
        with self._lock:
            account = self._service_account(namespace, service_account)
            own = list(image_pull_secrets or ())
            given = (
                [entry["name"] for entry in account.get("imagePullSecrets", [])] if image_pull_secrets is None else own
            )
            metadata = self._metadata(None, namespace, name)
            pod = objects.pod(metadata, node, service_account, own, given, image)
            self.pods[namespace, name] = pod
            return str(metadata["uid"])

    def delete_pod(self, namespace: str, name: str) -> None:
        """Delete it, which ends the tokens bound to it; KeyError if there is none."""
        with self._lock:
            del self.pods[namespace, name]
            self.revision += 1

    def allow(
        self,
        namespace: str,
        service_account: str,
        verbs: Iterable[str] = ("list",),
        resource: str = "secrets",
        names: Iterable[str] | None = None,
        *,
        role: str = "pull-secrets",
    ) -> None:
        """A Role and its RoleBinding for a service account, both in its own namespace; `names` are resourceNames."""
        user = f"system:serviceaccount:{namespace}:{service_account}"
        only = None if names is None else frozenset(names)
        self.grants.append(Grant(user, namespace, frozenset(verbs), resource, only, role))

    def allow_node(
        self, node: str, verbs: Iterable[str], resource: str, *, role: str = "node-credential-providers"
    ) -> None:
        """A ClusterRole and its binding for a node, beside what the Node authorizer lets it do."""
        self.grants.append(Grant(f"system:node:{node}", None, frozenset(verbs), resource, None, role))

    def revoke(
        self, namespace: str, service_account: str, verbs: Iterable[str] | None = None, resource: str = "secrets"
    ) -> None:
        """Take these verbs (None: all) on `resource` away from the service account, in every role it has."""
        user = f"system:serviceaccount:{namespace}:{service_account}"
        gone = None if verbs is None else frozenset(verbs)
        left = []
        for grant in list(self.grants):
            if (grant.user, grant.resource) == (user, resource):
                grant = grant._replace(verbs=frozenset() if gone is None else grant.verbs - gone)
            if grant.verbs:
                left.append(grant)
        self.grants = left

    def mint_token(
        self,
        namespace: str,
        service_account: str = "default",
        pod: str | None = None,
        audience: str | None = None,
        expires_in: int = 3600,
    ) -> str:
        """A service account token as the kubelet gets one; with `pod`, bound to it and its node.

        `audience` None is the server's first; `expires_in` is in seconds, below zero for one that has expired.
        LookupError if the service account or the pod is missing ("default" is made, as its controller does).
        """
        now = int(time.time())
        with self._lock:
            account = self._service_account(namespace, service_account)
            bound: Object = {"namespace": namespace}
            if pod is not None:
                found = self.pods[namespace, pod]
                node = found["spec"]["nodeName"]
                bound["node"] = {"name": node, "uid": self._uid(f"node/{node}")}
                bound["pod"] = {"name": pod, "uid": found["metadata"]["uid"]}
            bound["serviceaccount"] = {"name": service_account, "uid": account["metadata"]["uid"]}
            claims = {
                "aud": [self.audiences[0] if audience is None else audience],
                "exp": now + expires_in,
                "iat": now,
                "iss": ISSUER,
                "jti": str(uuid.uuid4()),
                "kubernetes.io": bound,
                "nbf": now,
                "sub": f"system:serviceaccount:{namespace}:{service_account}",
            }
            header = {"alg": "RS256", "kid": self._key_id}
            # 256 bytes: the size of an RSA 2048 signature.
            parts = objects.compact(header), objects.compact(claims), secrets.token_bytes(256)
            token = ".".join(map(_base64url, parts))
            self._tokens[token] = claims
            return token

    def node_identity(self, node: str) -> Identity:
        """The kubelet's client certificate: CN ``system:node:<node>``, O ``system:nodes``."""
        return self.authority.issue(f"system:node:{node}", organization="system:nodes", client=True)

    def _service_account(self, namespace: str, name: str) -> Object:
        if name == "default" and (namespace, name) not in self.service_accounts:
            # The service account controller makes this one for every namespace.
            return self.add_service_account(namespace, name)
        return self.service_accounts[namespace, name]

    def _metadata(self, present: Object | None, namespace: str, name: str) -> Object:
        self.revision += 1
        uid, created = str(uuid.uuid4()), objects.timestamp()
        if present is not None:
            uid, created = present["metadata"]["uid"], present["metadata"]["creationTimestamp"]
        metadata = {"name": name, "namespace": namespace, "uid": uid, "resourceVersion": str(self.revision)}
        return metadata | {"creationTimestamp": created}

    def _uid(self, key: str) -> str:
        return self._uids.setdefault(key, str(uuid.uuid4()))

    # -- one request ---------------------------------------------------------------------------------------------------

    def _respond(self, request: Request, connection: Connection) -> None:
        with self._lock:
            asked, answer = self._answer(request)
            self.requests.append(asked)
        exchange = Exchange(request, answer, connection, asked)
        if self.fault is not None and self.fault(exchange):
            return
        asked.status = exchange.answer.status
        connection.send(exchange.answer.dumps(request.method))

    def _answer(self, request: Request) -> tuple[Asked, Answer]:
        user = self._authenticate(request)
        name = ANONYMOUS if user is None else user.name
        is_below = request.path.startswith(f"{self.prefix}/")
        request = request._replace(path=request.path.removeprefix(self.prefix)) if is_below else request
        try:
            if not is_below:
                raise StatusError(404, "NotFound", "the server could not find the requested resource", {})
            if user is None:
                raise StatusError(401, "Unauthorized", "Unauthorized")
            user = self._impersonated(user, request)
            name = user.name
            if request.path.partition("?")[0] == "/readyz":
                status, document = 200, None
            else:
                status, document = self._dispatch(user, request)
        except StatusError as error:
            status, document = error.status, error.answer()
        answer = Answer(status, self._headers(user, request, status, document), b"ok")
        if document is not None:
            answer.body = objects.dumps(document, _is_pretty(request))
        answer.chunked = len(answer.body) > CHUNK
        return Asked(request.method, request.path, name, status), answer

    def _headers(
        self, user: User | None, request: Request, status: int, document: Object | None
    ) -> list[tuple[str, str]]:
        headers = {"Audit-Id": str(uuid.uuid4()), "Cache-Control": "no-cache, private"}
        headers["Content-Type"] = "application/json" if document is not None else "text/plain; charset=utf-8"
        if status == 403 or document is None:
            headers["X-Content-Type-Options"] = "nosniff"
        if user is not None:
            schema = "probes" if document is None else user.flow_schema()
            headers["X-Kubernetes-Pf-Flowschema-Uid"] = self._uid(f"flowschema/{schema}")
            headers["X-Kubernetes-Pf-Prioritylevel-Uid"] = self._uid(f"prioritylevel/{_PRIORITY_LEVELS[schema]}")
        return [*headers.items(), ("Date", email.utils.formatdate(usegmt=True))]

    def _authenticate(self, request: Request) -> User | None:
        """The user, or None for a 401. The client certificate is asked first, as kube-apiserver does."""
        authorization = request.header("Authorization")
        self.tokens_seen += authorization is not None
        name, group = request.subject.get("commonName"), request.subject.get("organizationName")
        if name is not None:
            node = name.removeprefix("system:node:")
            return User(name, node if group == "system:nodes" and node != name else "", group == "system:masters")
        scheme, _, credential = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return User(ANONYMOUS)
        claims = self._tokens.get(credential.strip())
        return User(claims["sub"]) if claims is not None and self._is_valid(claims) else None

    def _impersonated(self, user: User, request: Request) -> User:
        """The service account that the user asks as, where he does."""
        wanted = request.header("Impersonate-User")
        if wanted is None:
            return user
        _, _, namespace, name = wanted.split(":")
        self._check(user, Attributes("impersonate", "serviceaccounts", namespace, name))
        return User(wanted)

    def _is_valid(self, claims: Object) -> bool:
        bound = claims["kubernetes.io"]
        present = {"serviceaccount": self.service_accounts, "pod": self.pods}
        for kind, known in present.items():
            found = known.get((bound["namespace"], bound.get(kind, {}).get("name")))
            if kind in bound and (found is None or found["metadata"]["uid"] != bound[kind]["uid"]):
                return False
        return claims["exp"] > time.time() and not set(claims["aud"]).isdisjoint(self.audiences)

    def _dispatch(self, user: User, request: Request) -> tuple[int, Object]:
        path, _, query = request.path.partition("?")
        verb = _VERBS[request.method]
        if path == _REVIEW_PATH:
            self._check(user, Attributes(verb, "selfsubjectaccessreviews", group=_REVIEW_GROUP))
            if verb != "create":
                raise _method_not_allowed()
            return 201, self._review(user, request)
        token_of = _TOKEN_PATH.fullmatch(path)
        if token_of is not None and verb == "create":
            return 201, self._create_token(user, token_of[1], token_of[2], request)
        matched = _CORE_PATH.fullmatch(path)
        listed = lists.parse(path)
        if self.others and listed is not None and verb == "get" and (matched is None or matched[2] != "secrets"):
            group, namespace, resource = listed
            self._check(user, Attributes("list", resource, namespace, group=group))
            known = [*self.secrets.values(), *self.service_accounts.values(), *self.pods.values(), *self.others]
            parameters = dict(urllib.parse.parse_qsl(query))
            codec = _dumps_continue, _loads_continue
            return 200, lists.answer(known, namespace, resource, parameters, self.revision, self.oldest, codec)
        single = lists.parse_object(path) if matched is None and verb == "get" else None
        if single is not None and user.name != ANONYMOUS:
            self._check(user, single)
            return 200, lists.find(self.others, single)
        group = path.removeprefix("/apis/").rpartition("/")[0]
        if user.name != ANONYMOUS and any(found.get("apiVersion", "").startswith(f"{group}/") for found in self.others):
            # Discovery, which every authenticated user has.
            return 200, {"kind": "APIResourceList", "groupVersion": path.removeprefix("/apis/"), "resources": []}
        if matched is None:
            if user.name == ANONYMOUS:
                message = f'forbidden: User "{ANONYMOUS}" cannot {verb} path "{path}"'
                raise StatusError(403, "Forbidden", message, {})
            raise StatusError(404, "NotFound", "the server could not find the requested resource", {})
        namespace, resource, name = (urllib.parse.unquote(part or "") for part in matched.groups())
        parameters = dict(urllib.parse.parse_qsl(query))
        if verb == "get" and not name:
            # requestinfo.go: a list with metadata.name in its field selector is authorized as that name.
            selected = dict(_terms(parameters.get("fieldSelector", "")))
            verb, chosen = "list", selected.get(("metadata.name", True), "")
        else:
            chosen = name
        self._check(user, Attributes(verb, resource, namespace, chosen))
        if (verb, resource) == ("list", "secrets"):
            return 200, self._list_secrets(namespace, parameters)
        if (verb, resource) == ("create", "events"):
            return 201, self._create_event(namespace, request)
        if (verb, resource) == ("patch", "events"):
            return 200, self._patch_event(namespace, name, request)
        if verb != "get" or resource == "events":
            raise _method_not_allowed()
        return 200, self._get(resource, namespace, name)

    def _check(self, user: User, asked: Attributes) -> None:
        verdict = self.authorize(user, asked)
        if verdict.allowed:
            return
        resource = asked.resource.partition("/")[0]
        full = f"{resource}.{asked.group}" if asked.group else resource
        shown = f'{full} "{asked.name}"' if asked.name else full
        scope = f'in the namespace "{asked.namespace}"' if asked.namespace else "at the cluster scope"
        message = (
            f'{shown} is forbidden: User "{user.name}" cannot {asked.verb} resource "{asked.resource}" '
            f'in API group "{asked.group}" {scope}'
        )
        details = {"name": asked.name} if asked.name else {}
        details |= {"group": asked.group} if asked.group else {}
        reason = f": {verdict.reason}" if verdict.reason else ""
        raise StatusError(403, "Forbidden", message + reason, details | {"kind": resource})

    def authorize(self, user: User, asked: Attributes) -> Verdict:
        """The verdict of the authorizers in kubeadm's order: Node, then RBAC."""
        if user.admin:
            return Verdict(True)
        if (asked.group, asked.resource, asked.verb) == (_REVIEW_GROUP, "selfsubjectaccessreviews", "create"):
            # ClusterRole system:basic-user, which every authenticated user has.
            return Verdict(user.name != ANONYMOUS)
        verdict = self._authorize_node(user.node, asked) if user.node else Verdict(False)
        granted = next((grant for grant in list(self.grants) if grant.allows(user.name, asked)), None)
        return verdict if verdict.allowed or granted is None else Verdict(True, granted.reason())

    def _authorize_node(self, node: str, asked: Attributes) -> Verdict:
        """node_authorizer.go: by the graph of the pods that are bound to the node."""
        if asked.resource == "serviceaccounts/token" and asked.verb == "create":
            asked = asked._replace(resource="serviceaccounts", verb="get")
        if asked.group or asked.resource not in ("secrets", "pods", "serviceaccounts"):
            # ClusterRole system:node: events can be written, and not read.
            return Verdict(
                (asked.group, asked.resource) == ("", "events") and asked.verb in ("create", "patch", "update")
            )
        if asked.verb not in (("get", "list", "watch") if asked.resource == "secrets" else ("get",)):
            return Verdict(False, "can only read resources of this type")
        if not asked.name:
            return Verdict(False, "No Object name found")
        for (namespace, name), pod in list(self.pods.items()):
            spec = pod["spec"]
            if (spec["nodeName"], namespace) != (node, asked.namespace):
                continue
            related = {
                "pods": [name],
                "serviceaccounts": [spec["serviceAccountName"]],
                "secrets": [entry["name"] for entry in spec.get("imagePullSecrets", [])],
            }
            if asked.name in related[asked.resource]:
                return Verdict(True)
        return Verdict(False, f"no relationship found between node '{node}' and this object")

    # -- resources -----------------------------------------------------------------------------------------------------

    def _get(self, resource: str, namespace: str, name: str) -> Object:
        known = {"secrets": self.secrets, "pods": self.pods, "serviceaccounts": self.service_accounts}[resource]
        if (namespace, name) not in known:
            raise StatusError(404, "NotFound", f'{resource} "{name}" not found', {"name": name, "kind": resource})
        return known[namespace, name]

    def _list_secrets(self, namespace: str, parameters: Mapping[str, str]) -> Object:
        selector = parameters.get("fieldSelector", "")
        found = [self.secrets[key] for key in sorted(self.secrets) if key[0] == namespace]
        for (field, equal), value in _terms(selector):
            # Secrets can be selected by these fields alone (core/v1/conversion.go).
            if field not in ("type", "metadata.name", "metadata.namespace"):
                raise StatusError(400, "BadRequest", _unknown_field(selector, field))
            found = [secret for secret in found if (_selectable(secret, field) == value) == equal]
        start, revision = _loads_continue(parameters.get("continue", ""), self.revision)
        found = [secret for secret in found if _name_of(secret) >= start]
        limit = int(parameters.get("limit") or 0) or len(found)
        metadata: Object = {"resourceVersion": str(revision)}
        if len(found) > limit:
            metadata["continue"] = _dumps_continue(_name_of(found[limit - 1]), revision)
            if not selector:
                metadata["remainingItemCount"] = len(found) - limit
        items = [{key: value for key, value in o.items() if key not in ("kind", "apiVersion")} for o in found[:limit]]
        return {"kind": "SecretList", "apiVersion": "v1", "metadata": metadata, "items": items}

    def _create_event(self, namespace: str, request: Request) -> Object:
        posted = objects.loads(request.body)
        given = posted.get("metadata", {})
        prefix = given.get("generateName", "")
        name = given.get("name") or prefix + "".join(secrets.choice(_NAME_LETTERS) for _ in range(5))
        if self._find_event(namespace, name) is not None:
            raise StatusError(409, "AlreadyExists", f'events "{name}" already exists', {"name": name, "kind": "events"})
        metadata = self._metadata(None, namespace, name)
        if prefix:
            metadata = {"name": name, "generateName": prefix} | metadata
        event: Object = {"kind": "Event", "apiVersion": "v1", "metadata": metadata}
        present = {key: value for key, value in posted.items() if key not in event and value not in (None, "", {})}
        # involvedObject is atomic; name and namespace of the metadata are nobody's fields.
        fields = {
            f"f:{key}": {} if key == "involvedObject" else objects.field_set(value) for key, value in present.items()
        }
        own = {key: value for key, value in given.items() if key not in ("name", "namespace")}
        if own:
            fields["f:metadata"] = objects.field_set(own)
        metadata["managedFields"] = [
            objects.managed(_manager(request), dict(sorted(fields.items())), objects.timestamp())
        ]
        filled = objects.ALWAYS_IN_EVENT | present
        event |= {key: filled[key] for key in objects.EVENT_FIELDS if key in filled}
        event["involvedObject"] = objects.ordered(event["involvedObject"], objects.REFERENCE_FIELDS)
        self.events.append(event)
        return event

    def _find_event(self, namespace: str, name: str) -> Object | None:
        own = (event for event in self.events if event["metadata"]["namespace"] == namespace)
        return next((event for event in own if event["metadata"]["name"] == name), None)

    def _patch_event(self, namespace: str, name: str, request: Request) -> Object:
        """A merge patch of fields that hold no maps."""
        details = {"name": name, "kind": "events"}
        event, patch = self._find_event(namespace, name), objects.loads(request.body)
        if event is None:
            raise StatusError(404, "NotFound", f'events "{name}" not found', details)
        version = patch.pop("metadata", {}).get("resourceVersion", event["metadata"]["resourceVersion"])
        if version != event["metadata"]["resourceVersion"]:
            message = f'Operation cannot be fulfilled on events "{name}": the object has been modified'
            raise StatusError(409, "Conflict", message, details)
        self.revision += 1
        event["metadata"]["resourceVersion"] = str(self.revision)
        event |= patch
        return event

    def _create_token(self, user: User, namespace: str, name: str, request: Request) -> Object:
        """A TokenRequest. A node gets one only for a service account of its pods, bound to such a pod."""
        self._check(user, Attributes("create", "serviceaccounts/token", namespace, name))
        self._get("serviceaccounts", namespace, name)
        spec = objects.loads(request.body).get("spec", {})
        bound = spec.get("boundObjectRef") or {}
        if user.node and bound.get("kind") != "Pod":
            # plugin/pkg/admission/noderestriction: tokens of a node are bound to its pods.
            message = f'serviceaccounts "{name}" is forbidden: node requested token not bound to a pod'
            raise StatusError(403, "Forbidden", message, {"name": name, "kind": "serviceaccounts"})
        pod = bound.get("name")
        if pod is not None and self._get("pods", namespace, pod)["metadata"]["uid"] != bound.get("uid"):
            message = f'Operation cannot be fulfilled on pods "{pod}": the UID in the bound object reference differs'
            raise StatusError(409, "Conflict", message, {"name": pod, "kind": "pods"})
        audiences = spec.get("audiences") or [self.audiences[0]]
        seconds = spec.get("expirationSeconds") or 3600
        token = self.mint_token(namespace, name, pod, audiences[0], seconds)
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": name, "namespace": namespace, "creationTimestamp": objects.timestamp()},
            "spec": {"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": bound or None},
            "status": {"token": token, "expirationTimestamp": objects.timestamp(seconds)},
        }

    def _review(self, user: User, request: Request) -> Object:
        spec = objects.loads(request.body).get("spec", {})
        attributes = spec.get("resourceAttributes", {})
        verdict = self.authorize(
            user,
            Attributes(*(str(attributes.get(key, "")) for key in ("verb", "resource", "namespace", "name", "group"))),
        )
        fields: Object = {"f:spec": {"f:resourceAttributes": objects.granular(objects.field_set(attributes))}}
        status = {"allowed": verdict.allowed} | ({"reason": verdict.reason} if verdict.reason else {})
        managed = objects.managed(_manager(request), fields, objects.timestamp(), version=f"{_REVIEW_GROUP}/v1")
        return {
            "kind": "SelfSubjectAccessReview",
            "apiVersion": f"{_REVIEW_GROUP}/v1",
            "metadata": {"managedFields": [managed]},
            "spec": {"resourceAttributes": objects.ordered(attributes, objects.ATTRIBUTE_FIELDS)},
            "status": status,
        }


# -- requests, and what they name --------------------------------------------------------------------------------------


def _is_pretty(request: Request) -> bool:
    """negotiate.go, isPrettyPrint: asked for by ``pretty``, or by a client that a person is known to sit at."""
    asked = dict(urllib.parse.parse_qsl(request.path.partition("?")[2])).get("pretty")
    if asked:
        return asked in ("1", "t", "T", "true", "TRUE", "True")
    return (request.header("User-Agent") or "").startswith(("curl", "Wget", "Mozilla/5.0"))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _name_of(document: Object) -> str:
    return str(document["metadata"]["name"])


def _terms(selector: str) -> list[tuple[tuple[str, bool], str]]:
    """A field selector's terms: ((field, whether it must be equal), value)."""
    found = []
    for term in filter(None, selector.split(",")):
        field, operator, value = re.split(r"(!=|==|=)", term + "=", maxsplit=1)[:3]
        found.append(((field, operator != "!="), value.removesuffix("=")))
    return found


def _selectable(secret: Object, field: str) -> str:
    place = secret["metadata"] if field.startswith("metadata.") else secret
    return str(place[field.removeprefix("metadata.")])


def _unknown_field(selector: str, field: str) -> str:
    asked = f'label selector "", field selector "{selector}"'
    return f'Unable to find "/v1, Resource=secrets" that match {asked}: field label not supported: {field}'


def _dumps_continue(last: str, revision: int) -> str:
    # storage/continue.go: the next key to look at, which is the last one and a zero byte.
    return _base64url(objects.compact({"v": "meta.k8s.io/v1", "rv": revision, "start": last + "\0"}))


def _loads_continue(text: str, revision: int) -> tuple[str, int]:
    if not text:
        return "", revision
    try:
        token = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        return str(token["start"]), int(token["rv"])
    except (ValueError, KeyError, TypeError) as error:
        raise StatusError(400, "BadRequest", f"continue key is not valid: {error}") from None


def _method_not_allowed() -> StatusError:
    message = "the server does not allow this method on the requested resource"
    return StatusError(405, "MethodNotAllowed", message, {})


def _manager(request: Request) -> str:
    return (request.header("User-Agent") or "unknown").partition("/")[0]
