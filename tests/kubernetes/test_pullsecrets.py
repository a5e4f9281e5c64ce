"""Which secrets a mode asks for, in which words a refusal is told, and what a Secret object holds."""

from __future__ import annotations

import base64
import json
import shlex
import time
from typing import Any

import pytest

from crio_credential_provider.errors import ClusterError, RequestError
from crio_credential_provider.kubernetes import pullsecrets
from crio_credential_provider.kubernetes.pullsecrets import PullSecrets, Skipped
from crio_credential_provider.kubernetes.serviceaccount import ServiceAccount
from crio_credential_provider.settings import NAMESPACE, POD, SECRETS_FROM, SERVICE_ACCOUNT
from node import basic, recorded_answer

ALPHA = "/api/v1/namespaces/team-alpha"
LIST = f"{ALPHA}/secrets?fieldSelector=type%3Dkubernetes.io%2Fdockerconfigjson"
TOKEN = "the.pod's.token"


def account(pod: str = "web", expires: int = 0, name: str = "builder") -> ServiceAccount:
    return ServiceAccount(
        namespace="team-alpha",
        name=name,
        pod=pod,
        pod_uid="u2" if pod else "",
        audiences=("https://kubernetes.default.svc",),
        expires=expires or int(time.time()) + 3600,
    )


def secret(name: str, config: Any = None, kind: str = "kubernetes.io/dockerconfigjson", **members: Any) -> Any:
    payload = {"auths": {"mirror.corp": {"auth": basic("user", name)}}} if config is None else config
    key = ".dockercfg" if kind == "kubernetes.io/dockercfg" else ".dockerconfigjson"
    data = {key: base64.b64encode(json.dumps(payload).encode()).decode()}
    return {
        "kind": "Secret",
        "metadata": {"name": name, "namespace": "team-alpha"},
        "type": kind,
        "data": data,
        **members,
    }


def listed(*items: Any, following: object = None) -> dict[str, Any]:
    metadata = {} if following is None else {"continue": following}
    return {"kind": "SecretList", "metadata": metadata, "items": list(items)}


def pod(*names: object, **spec: Any) -> dict[str, Any]:
    references = [{"name": name} for name in names]
    found = {"serviceAccountName": "builder", "imagePullSecrets": references, **spec}
    return {"kind": "Pod", "metadata": {"name": "web", "uid": "u2"}, "spec": found}


def service_account(*names: object) -> dict[str, Any]:
    return {"kind": "ServiceAccount", "imagePullSecrets": [{"name": name} for name in names]}


class Cluster:
    """Answers by path; what it has no answer for is a test's mistake. A number is that status."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self._answers = answers
        self.asked: list[str] = []
        self.tokens: set[str] = set()

    def get(self, path: str, token: str = "") -> dict[str, Any]:
        self.asked.append(path)
        self.tokens.add(token)
        answer = self._answers[path]
        if isinstance(answer, int):
            raise ClusterError(f"the API server answered {answer}", status=answer)
        assert isinstance(answer, dict)
        return answer


def fetch(mode: str, answers: dict[str, Any], whose: ServiceAccount | None = None) -> tuple[PullSecrets, Cluster]:
    cluster = Cluster(answers)
    return pullsecrets.fetch(mode, whose or account(), TOKEN, cluster), cluster


def names(found: PullSecrets) -> list[str]:
    return [secret.name for secret in found.secrets]


# -- namespace ---------------------------------------------------------------------------------------------------------


def test_namespace_lists_by_type_as_the_pod_and_sorts_by_name() -> None:
    found, cluster = fetch(NAMESPACE, {LIST: listed(secret("b"), secret("c"), secret("a"))})
    assert names(found) == ["a", "b", "c"]
    assert (cluster.asked, cluster.tokens) == ([LIST], {TOKEN})


def test_the_recorded_list() -> None:
    found, _ = fetch(NAMESPACE, {LIST: json.loads(recorded_answer("list-secrets-200")[1])})
    assert "mirror-creds" in names(found) and names(found) == sorted(names(found))


def test_a_list_in_pages_is_one_list() -> None:
    """The continue token is opaque, and goes back percent-encoded."""
    second = f"{LIST}&continue=eyJ2%2B%2F%3D%26%20%C3%A4"
    answers = {LIST: listed(secret("b"), following="eyJ2+/=& ä"), second: listed(secret("a"), following="")}
    found, cluster = fetch(NAMESPACE, answers)
    assert names(found) == ["a", "b"] and cluster.asked == [LIST, second]


def test_a_list_without_an_end_is_a_fault() -> None:
    class Endless(Cluster):
        def get(self, path: str, token: str = "") -> dict[str, Any]:
            self.asked.append(path)
            return listed(following="more")

    cluster = Endless({})
    with pytest.raises(ClusterError, match="pages"):
        pullsecrets.fetch(NAMESPACE, account(), TOKEN, cluster)
    assert 10 < len(cluster.asked) < 1000


@pytest.mark.parametrize(
    "answer", [secret("a"), {"kind": "SecretList"}, {"kind": "SecretList", "items": {}}, {"items": []}, {}]
)
def test_what_is_no_list_is_a_fault(answer: dict[str, Any]) -> None:
    with pytest.raises(ClusterError) as caught:
        fetch(NAMESPACE, {LIST: answer})
    assert "Kubernetes API server" in caught.value.hint


# -- pod ---------------------------------------------------------------------------------------------------------------


def test_pod_asks_for_the_pod_and_what_it_names_in_order_without_a_token() -> None:
    answers = {f"{ALPHA}/pods/web": pod("z", "a"), f"{ALPHA}/secrets/z": secret("z"), f"{ALPHA}/secrets/a": secret("a")}
    found, cluster = fetch(POD, answers)
    assert names(found) == ["z", "a"]
    assert cluster.asked == [f"{ALPHA}/pods/web", f"{ALPHA}/secrets/z", f"{ALPHA}/secrets/a"]
    assert cluster.tokens == {""}


def test_the_recorded_pod_and_secret() -> None:
    """As the Node authorizer let a real node read them."""
    recorded = json.loads(recorded_answer("node-get-pod-200")[1])
    item = json.loads(recorded_answer("node-get-secret-200")[1])
    namespace, name = recorded["metadata"]["namespace"], recorded["metadata"]["name"]
    (named,) = recorded["spec"]["imagePullSecrets"]
    whose = ServiceAccount(
        namespace=namespace,
        name=recorded["spec"]["serviceAccountName"],
        pod=name,
        pod_uid=recorded["metadata"]["uid"],
    )
    base = f"/api/v1/namespaces/{namespace}"
    found, _ = fetch(POD, {f"{base}/pods/{name}": recorded, f"{base}/secrets/{named['name']}": item}, whose)
    assert names(found) == [item["metadata"]["name"]]


@pytest.mark.parametrize("change", ["uid", "serviceAccountName"])
def test_another_pod_of_the_same_name_gets_nothing(change: str) -> None:
    other = pod("a")
    other["metadata" if change == "uid" else "spec"][change] = "another"
    cluster = Cluster({f"{ALPHA}/pods/web": other})
    with pytest.raises(ClusterError, match="not the pod of the token"):
        pullsecrets.fetch(POD, account(), TOKEN, cluster)
    assert cluster.asked == [f"{ALPHA}/pods/web"]


def test_a_pod_without_a_uid_is_not_the_one_of_a_token_without_one() -> None:
    """Two absent uids must not count as equal."""
    whose = ServiceAccount("team-alpha", "builder", pod="web")
    other = pod("a")
    del other["metadata"]["uid"]
    with pytest.raises(ClusterError, match="not the pod of the token"):
        fetch(POD, {f"{ALPHA}/pods/web": other}, whose)


def test_a_token_that_is_bound_to_no_pod_is_refused_before_anything_is_asked() -> None:
    cluster = Cluster({})
    with pytest.raises(RequestError) as caught:
        pullsecrets.fetch(POD, account(pod=""), TOKEN, cluster)
    assert "--secrets-from namespace or service-account" in caught.value.hint
    assert cluster.asked == []


# -- service account ---------------------------------------------------------------------------------------------------


def test_service_account_asks_as_the_pod_for_the_account_and_what_it_names() -> None:
    answers = {
        f"{ALPHA}/serviceaccounts/builder": service_account("z", "a"),
        f"{ALPHA}/secrets/z": secret("z"),
        f"{ALPHA}/secrets/a": secret("a"),
    }
    found, cluster = fetch(SERVICE_ACCOUNT, answers)
    assert names(found) == ["z", "a"]
    assert cluster.asked == [f"{ALPHA}/serviceaccounts/builder", f"{ALPHA}/secrets/z", f"{ALPHA}/secrets/a"]
    assert cluster.tokens == {TOKEN}


# -- names -------------------------------------------------------------------------------------------------------------

HOLDERS = {
    POD: (f"{ALPHA}/pods/web", pod),
    SERVICE_ACCOUNT: (f"{ALPHA}/serviceaccounts/builder", service_account),
}


@pytest.mark.parametrize("mode", HOLDERS)
def test_what_is_no_name_is_never_asked_for(mode: str) -> None:
    """A name becomes part of a path."""
    path, holder = HOLDERS[mode]
    odd = ["../../team-beta/secrets/x", "a/b", "a?watch=1", "A", "", "a b", "a\r\nb", "ä", "%2e%2e", ".", "..", 7, None]
    answers = {path: holder(*odd, "good"), f"{ALPHA}/secrets/good": secret("good")}
    found, cluster = fetch(mode, answers)
    assert names(found) == ["good"]
    assert cluster.asked == [path, f"{ALPHA}/secrets/good"]


@pytest.mark.parametrize("mode", HOLDERS)
def test_a_secret_that_is_named_twice_is_asked_for_once(mode: str) -> None:
    path, holder = HOLDERS[mode]
    answers = {path: holder("b", "a", "b"), f"{ALPHA}/secrets/a": secret("a"), f"{ALPHA}/secrets/b": secret("b")}
    found, cluster = fetch(mode, answers)
    assert names(found) == ["b", "a"] and len(cluster.asked) == 3


@pytest.mark.parametrize("mode", HOLDERS)
@pytest.mark.parametrize("references", [None, "x", {}, [], ["x"], [None], [{}], [{"name": None}]])
def test_without_a_name_nothing_is_asked_for(mode: str, references: object) -> None:
    path, holder = HOLDERS[mode]
    object_ = holder()
    (object_["spec"] if mode == POD else object_)["imagePullSecrets"] = references
    found, cluster = fetch(mode, {path: object_})
    assert (found.secrets, found.skipped, cluster.asked) == ((), (), [path])


@pytest.mark.parametrize("mode", HOLDERS)
def test_a_secret_that_is_missing_or_of_another_type_is_skipped(mode: str) -> None:
    path, holder = HOLDERS[mode]
    answers = {
        path: holder("gone", "opaque", "good"),
        f"{ALPHA}/secrets/gone": 404,
        f"{ALPHA}/secrets/opaque": secret("opaque", kind="Opaque"),
        f"{ALPHA}/secrets/good": secret("good"),
    }
    found, _ = fetch(mode, answers)
    assert names(found) == ["good"]
    assert found.skipped == (
        Skipped("gone", "it is named in imagePullSecrets, but not found"),
        Skipped("opaque", "it is of type 'Opaque', not kubernetes.io/dockerconfigjson"),
    )


@pytest.mark.parametrize("mode", HOLDERS)
@pytest.mark.parametrize("status", [401, 403, 500, 0])
def test_any_other_answer_for_a_secret_ends_the_run(mode: str, status: int) -> None:
    path, holder = HOLDERS[mode]
    cluster = Cluster({path: holder("first", "second"), f"{ALPHA}/secrets/first": status})
    with pytest.raises(ClusterError) as caught:
        pullsecrets.fetch(mode, account(), TOKEN, cluster)
    assert caught.value.status == status
    assert cluster.asked == [path, f"{ALPHA}/secrets/first"]


@pytest.mark.parametrize("mode", HOLDERS)
def test_an_answer_of_another_kind_is_a_fault(mode: str) -> None:
    path, holder = HOLDERS[mode]
    with pytest.raises(ClusterError, match="is no"):
        fetch(mode, {path: secret("a")})
    with pytest.raises(ClusterError, match="is not a Secret"):
        fetch(mode, {path: holder("a"), f"{ALPHA}/secrets/a": listed()})


# -- refusals ----------------------------------------------------------------------------------------------------------


def refused(mode: str, answers: dict[str, Any], whose: ServiceAccount | None = None) -> ClusterError:
    with pytest.raises(ClusterError) as caught:
        fetch(mode, answers, whose)
    return caught.value


def commands(hint: str) -> list[list[str]]:
    """The kubectl commands of a hint, as a shell would split them."""
    _, found, text = hint.partition("kubectl ")
    assert found, hint
    return [shlex.split(command) for command in f"kubectl {text}".split(" && ")]


BINDING = "--serviceaccount=team-alpha:builder"
KUBECTL = ["kubectl", "-n", "team-alpha", "create"]


def test_the_remedy_for_namespace() -> None:
    error = refused(NAMESPACE, {LIST: 403})
    assert "service account builder may not list secrets in namespace team-alpha" in error.message
    assert commands(error.hint) == [
        [*KUBECTL, "role", "list-secrets-as-builder", "--verb=list", "--resource=secrets"],
        [*KUBECTL, "rolebinding", "list-secrets-as-builder", "--role=list-secrets-as-builder", BINDING],
    ]


def test_the_remedy_for_the_service_account_itself() -> None:
    """Its secrets are not known yet; the next run tells what they need."""
    error = refused(SERVICE_ACCOUNT, {f"{ALPHA}/serviceaccounts/builder": 403})
    assert (
        "service account builder may not read itself (get serviceaccounts/builder) in namespace team-alpha"
        in error.message
    )
    role = "pull-account-of-builder"
    assert commands(error.hint) == [
        [*KUBECTL, "role", role, "--verb=get", "--resource=serviceaccounts", "--resource-name=builder"],
        [*KUBECTL, "rolebinding", role, f"--role={role}", BINDING],
    ]


def test_the_remedy_for_its_secrets_names_them_all() -> None:
    account_path = f"{ALPHA}/serviceaccounts/builder"
    answers = {account_path: service_account("b", "a"), f"{ALPHA}/secrets/b": secret("b"), f"{ALPHA}/secrets/a": 403}
    error = refused(SERVICE_ACCOUNT, answers)
    assert "service account builder may not get secret a in namespace team-alpha" in error.message
    role = "pull-secrets-of-builder"
    assert commands(error.hint) == [
        [*KUBECTL, "role", role, "--verb=get", "--resource=secrets", "--resource-name=b", "--resource-name=a"],
        [*KUBECTL, "rolebinding", role, f"--role={role}", BINDING],
    ]


@pytest.mark.parametrize("mode", [NAMESPACE, SERVICE_ACCOUNT])
def test_a_token_that_is_not_accepted(mode: str) -> None:
    path = LIST if mode == NAMESPACE else f"{ALPHA}/serviceaccounts/builder"
    error = refused(mode, {path: 401})
    assert "whose audience is https://kubernetes.default.svc" in error.message
    assert "serviceAccountTokenAudience" in error.hint
    expired = refused(mode, {path: 401}, account(expires=int(time.time()) - 5))
    assert "has expired" in expired.hint and "serviceAccountTokenAudience" not in expired.hint


@pytest.mark.parametrize("what", ["pod", "secret"])
def test_a_refusal_of_the_node_offers_nothing_to_grant(what: str) -> None:
    answers: dict[str, Any] = {f"{ALPHA}/pods/web": pod("a"), f"{ALPHA}/secrets/a": 403}
    if what == "pod":
        answers[f"{ALPHA}/pods/web"] = 403
    error = refused(POD, answers)
    assert f"the node may not get {'pod team-alpha/web' if what == 'pod' else 'secret a'}" in error.message
    assert "--authorization-mode=Node,RBAC" in error.hint and "kubectl" not in error.hint


def test_a_client_certificate_that_is_not_accepted() -> None:
    error = refused(POD, {f"{ALPHA}/pods/web": 401})
    assert "does not accept the kubelet's client certificate" in error.message
    assert "certificate" in error.hint and "Audience" not in error.hint


@pytest.mark.parametrize("mode", SECRETS_FROM)
def test_no_mode_ever_asks_beyond_its_namespace(mode: str) -> None:
    class Watched(Cluster):
        def get(self, path: str, token: str = "") -> dict[str, Any]:
            assert path.startswith(f"{ALPHA}/") and ".." not in path
            return super().get(path, token)

    foreign = secret("a")
    foreign["metadata"]["namespace"] = "team-beta"
    answers = {
        LIST: listed(foreign),
        f"{ALPHA}/pods/web": pod("a"),
        f"{ALPHA}/serviceaccounts/builder": service_account("a"),
        f"{ALPHA}/secrets/a": foreign,
    }
    found = pullsecrets.fetch(mode, account(), TOKEN, Watched(answers))
    assert (found.secrets, found.skipped) == ((), (Skipped("a", "it is in another namespace"),))


# -- Secret objects ----------------------------------------------------------------------------------------------------


def load(item: Any) -> tuple[list[str], list[Skipped]]:
    found = pullsecrets.loads([item], "team-alpha")
    return [key for secret in found.secrets for key in secret.config.auths], list(found.skipped)


def test_both_types() -> None:
    entry = {"auth": basic("u", "p")}
    assert load(secret("a", {"auths": {"x.example": entry}})) == (["x.example"], [])
    assert load(secret("a", {"x.example": entry}, "kubernetes.io/dockercfg")) == (["x.example"], [])


CANARY = "kanarienvogel"

UNUSABLE: dict[str, tuple[Any, str]] = {
    "no object": (7, "not a Secret"),
    "no metadata": ({"kind": "Secret"}, "not a Secret"),
    "no type": (secret("a", type=None), "of type None"),
    "type is a list": (secret("a", type=[]), "of type []"),
    "no data": (secret("a", data=None), "has no .dockerconfigjson"),
    "data is a list": (secret("a", data=[CANARY]), "has no .dockerconfigjson"),
    "another key": (secret("a", data={CANARY: "e30="}), "has no .dockerconfigjson"),
    "the other type's key": (secret("a", data={".dockercfg": "e30="}), "has no .dockerconfigjson"),
    "no text": (secret("a", data={".dockerconfigjson": {CANARY: 1}}), "has no .dockerconfigjson"),
    "no base64": (secret("a", data={".dockerconfigjson": f"{CANARY}!"}), "is not base64"),
    "no JSON": (
        secret("a", data={".dockerconfigjson": base64.b64encode(CANARY.encode()).decode()}),
        "its .dockerconfigjson cannot be used",
    ),
    "not UTF-8": (
        secret("a", data={".dockerconfigjson": base64.b64encode(b"\xff" + CANARY.encode()).decode()}),
        "its .dockerconfigjson cannot be used",
    ),
    "a list": (secret("a", [CANARY]), "its .dockerconfigjson cannot be used"),
    **{
        f"in it {content[:20]!r}": (
            secret("a", data={".dockerconfigjson": base64.b64encode(content).decode()}),
            f"its .dockerconfigjson cannot be used: {reason}",
        )
        for content, reason in (
            (b"", "not valid JSON: the file is empty"),
            (b" \n", "not valid JSON: the file is empty"),
            (b'\xef\xbb\xbf{"auths": {"kanarienvogel": {}}}', "not valid JSON: it begins with a byte order mark"),
            ('\ufeff{"auths": {"kanarienvogel": {}}}'.encode("utf-16-le"), "not valid JSON: it is UTF-16"),
            ('{"auths": {"kanarienvogel": {}}}'.encode("utf-16-le"), "not valid JSON: it is UTF-16"),
            (base64.b64encode(b'{"kanarienvogel": 1}'), "not valid JSON: it is base64 of JSON: encoded twice"),
            (base64.encodebytes(b'{"kanarienvogel": "%s"}' % (b"x" * 99)), "not valid JSON: it is base64 of JSON"),
            (b"{'auths': {'kanarienvogel': {}}}", "not valid JSON: it has single quotes"),
            (b"{\n  'auths': {'kanarienvogel': {}}}", "not valid JSON: it has single quotes"),
            ('{\u201cauths\u201d: {"kanarienvogel": 1}}'.encode(), "not valid JSON: it has typographic quotes"),
            (b'{\\"auths\\": {\\"kanarienvogel\\": {}}}', "not valid JSON: its quotes are escaped with backslashes"),
            (b"---\nauths:\n  kanarienvogel: {}\n", "not valid JSON: it is YAML"),
            (b"apiVersion: v1\ndata: kanarienvogel\n", "not valid JSON: it is YAML"),
            (b"{{ .Values.kanarienvogel }}", "not valid JSON: it is a template"),
            (b"${kanarienvogel}", "not valid JSON: it is a template"),
            (b'"{\\"auths\\": {\\"kanarienvogel\\": {}}}"', "it is a JSON string: it was quoted twice"),
            (b'{"value": "kanarienvogel"}', 'it has no "auths", but "value" instead'),
            (b'{".dockerconfigjson": "kanarienvogel"}', 'it has no "auths", but ".dockerconfigjson" instead'),
            (b'{"auth": {"kanarienvogel": {"auth": "dTpw"}}}', 'it has no "auths", but "auth" instead'),
            (b'{"username": "kanarienvogel", "password": "x"}', 'it has no "auths", but "username" instead'),
            (
                b'{"kanarienvogel": {"auth": "dTpw"}}',
                'it has no "auths" around its hosts: it is in the old .dockercfg format',
            ),
            (b'{"kanarienvogel": "dTpw"}', 'it has no "auths"'),
            (
                b'{"apiVersion": "v1", "kind": "Secret", "data": {"kanarienvogel": ""}}',
                'it has no "auths": it is a whole Kubernetes object',
            ),
            (b'{"auths": {"auths": {"kanarienvogel": {"auth": "dTpw"}}}}', 'it has "auths" within "auths"'),
            (b"{}", 'it has no "auths"'),
            (b"null", 'it has no "auths"'),
            (b'{"credHelpers": {"kanarienvogel": "ecr"}}', 'it has no "auths", and its credHelpers are programs'),
            (b'{"auths": null}', 'its "auths" is empty'),
            (b'{"AUTHS": {}, "x": "kanarienvogel"}', 'its "auths" is empty'),
            (b'{"auths": {}, "credsStore": "kanarienvogel"}', 'its "auths" is empty, and it has a credsStore'),
            (b'{"credsStore": "kanarienvogel"}', 'it has no "auths", and it has a credsStore'),
            (b'{"auths": ["kanarienvogel"]}', "auths must be a JSON object"),
            (b'{"auths": "kanarienvogel"}', "auths must be a JSON object"),
        )
    },
    "plain JSON in data": (
        secret("a", data={".dockerconfigjson": '{"auths": {"kanarienvogel": {}}}'}),
        "is not base64 but plain JSON, which belongs in stringData",
    ),
    "another known key": (secret("a", data={"config.json": "e30="}), "has no .dockerconfigjson, but config.json"),
    "an old one that is empty": (
        secret("a", {}, "kubernetes.io/dockercfg"),
        "its .dockercfg cannot be used: it is empty",
    ),
    "a new one as an old one": (
        secret("a", {"auths": {"kanarienvogel": {"auth": "dTpw"}}}, "kubernetes.io/dockercfg"),
        'its .dockercfg cannot be used: it has "auths", as only a .dockerconfigjson does',
    ),
    "an old one that is a list": (secret("a", [CANARY], "kubernetes.io/dockercfg"), "its .dockercfg cannot be used"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_cannot_be_used_is_skipped_with_a_reason_that_quotes_nothing(name: str) -> None:
    item, reason = UNUSABLE[name]
    keys, (skipped,) = load(item)
    assert keys == [] and reason in skipped.reason
    assert CANARY not in skipped.reason


def test_one_that_cannot_be_used_stops_no_other() -> None:
    found = pullsecrets.loads([secret("a", type="Opaque"), secret("b"), 7, secret("c")], "team-alpha")
    assert names(found) == ["b", "c"] and len(found.skipped) == 2
