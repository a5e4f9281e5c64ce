"""``explain`` with what a person gives it: a kubeconfig, a token, secrets from a file, a recorded request."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import NodeMaker
from crio_credential_provider.testbed.certificates import Authority
from crio_credential_provider.testbed.cluster import ApiServer, Grant
from explaining import CANARY, FORMS, MIRROR, SOURCE, Place, entry, secret
from node import COMMAND, NGINX, basic, bound_claims, jwt, recorded_request, request

pytestmark = pytest.mark.process


@pytest.fixture
def place(make_node: NodeMaker, cluster: ApiServer) -> Place:
    return Place(make_node(*COMMAND, journald=False), cluster)


# -- who asks ---------------------------------------------------------------------------------------------------------


def test_an_administrator_may_for_any_service_account(place: Place, authority: Authority) -> None:
    admin = place.write_admin(authority)
    done = place.json("nginx", "-n", "team-alpha", "--kubeconfig", str(admin))
    assert (done.status, done.err) == (0, "")
    assert any(str(admin) in note and "audience" in note for note in done.report["notes"])
    assert place.json("nginx", "-n", "team-alpha", "--pod=web", "--kubeconfig", str(admin)).status == 0


@pytest.mark.parametrize("member", ["token", "tokenFile"])
def test_a_user_with_a_token(place: Place, member: str) -> None:
    place.cluster.add_service_account("ops", "person")
    for verb, resource in (("create", "serviceaccounts/token"), ("get", "pods")):
        user = "system:serviceaccount:ops:person"
        place.cluster.grants.append(Grant(user, None, frozenset([verb]), resource, None, "person"))
    token = place.cluster.mint_token("ops", "person")
    place.node.write("token", token + "\n")
    admin = place.write_user({"token": token} if member == "token" else {"tokenFile": "token"})
    assert place.json("nginx", "-n", "team-alpha", "--kubeconfig", str(admin)).status == 0
    done = place.json("nginx", "-n", "team-alpha", "--pod=web", "--kubeconfig", str(admin), "--secrets-from=pod")
    assert done.report["plugin"]["outcome"] == "fault-cluster"  # this person may not read secrets


@pytest.mark.parametrize("member", ["exec", "auth-provider", "username"])
def test_a_user_that_needs_more_is_told_what_to_do(place: Place, member: str) -> None:
    admin = place.write_user({member: CANARY})
    done = place.json("nginx", "-n", "team-alpha", "--kubeconfig", str(admin))
    assert done.status == 1
    assert "create token" in done.err and "--token-file" in done.err
    assert done.report["verdict"]["status"] == "unknown"


def test_a_token_from_a_file(place: Place) -> None:
    token = place.cluster.mint_token("team-alpha", "default", "web")
    path = str(place.node.write("token", token))
    done = place.json("nginx", "--token-file", path)
    assert (done.status, done.report["account"]["pod"]) == (0, "web")
    for arguments in (["-n", "team-beta"], ["--pod", "other"], ["--service-account", "other"]):
        done = place.json("nginx", "--token-file", path, *arguments)
        assert (done.status, done.out) == (2, "")
        assert "not for" in done.err
    place.node.write("token", place.cluster.mint_token("team-alpha", "default", "web", expires_in=-60))
    done = place.json("nginx", "--token-file", path)
    assert done.status == 3 and "the token in the request has expired" in done.report["notes"][0]
    place.node.write("token", "none")
    assert "not a JWT" in place.json("nginx", "--token-file", path).err


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("without a pod", "give the pod with --pod"),
        ("unknown pod", "only for pods that run on it"),
        ("unknown pod", "and this object), or there is no such pod"),
        ("server away", "no answer from the API server"),
        ("no kubeconfig", "--kubeconfig"),
    ],
)
def test_what_is_known_without_the_cluster_is_told(place: Place, case: str, words: str) -> None:
    arguments = ["nginx:1.27", "-n", "team-alpha", "--pod=web"]
    if case == "without a pod":
        arguments.pop()
    elif case == "unknown pod":
        arguments[-1] = "--pod=other"
    elif case == "server away":
        arguments += ["--apiserver=https://127.0.0.1:1", "--deadline=1s"]
    else:
        place.node.kubeconfig.unlink()
    done = place.json(*arguments)
    assert done.status == 1
    assert words in done.err
    report = done.report
    assert (report["plugin"]["outcome"], report["plugin"]["exitStatus"]) == ("unknown", None)
    assert report["verdict"]["text"].startswith("Unknown: ")
    assert report["registries"]["match"]["prefix"] == "docker.io"
    assert {source["reason"] for source in report["sources"]} == {"not known"}
    assert (report["authFile"], report["answer"], report["then"]) == (None, None, [])
    text = place.run(*arguments)
    assert text.status == 1 and "credential: not known" in text.out


# -- a file in place of the cluster -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_secrets_from_a_file(place: Place, form: str) -> None:
    items = [secret("a", entry(MIRROR)), secret("b", entry("docker.io"))]
    path = place.write_objects(FORMS[form](items))
    done = place.alpha("--secrets", path)
    assert (done.status, done.err) == (0, "")
    assert done.source(SOURCE)["credential"]["secret"] == "a"
    assert place.cluster.requests == []
    assert done.report["account"] == {"namespace": "team-alpha", "serviceAccount": "default", "pod": "web"}


def test_secrets_as_kubectl_writes_them_in_yaml(place: Place) -> None:
    encoded = secret("x", entry(MIRROR))["data"][".dockerconfigjson"]
    path = place.write_objects(
        "apiVersion: v1\nitems:\n- apiVersion: v1\n  data:\n    .dockerconfigjson: " + encoded + "\n  kind: Secret\n"
        "  metadata:\n    name: mirror-creds\n    namespace: team-alpha\n  type: kubernetes.io/dockerconfigjson\n"
        'kind: List\nmetadata:\n  resourceVersion: ""\n'
    )
    done = place.alpha("--secrets", path)
    assert (done.status, done.source(SOURCE)["credential"]["secret"]) == (0, "mirror-creds")


def test_a_manifest_that_is_not_applied_yet(place: Place) -> None:
    """stringData, and no namespace."""
    path = place.write_objects(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: new}\ntype: kubernetes.io/dockerconfigjson\n"
        f"stringData:\n  .dockerconfigjson: '{json.dumps({'auths': entry(MIRROR)})}'\n"
    )
    assert place.alpha("--secrets", path).status == 0


def test_secrets_that_the_plugin_does_not_ask_for_are_told(place: Place) -> None:
    items = [secret("opaque", entry(MIRROR), type="Opaque"), secret("foreign", entry(MIRROR), "team-beta")]
    done = place.alpha("--secrets", place.write_objects(FORMS["list"](items)))
    assert done.status == 3
    assert done.report["secrets"]["looked"] == []
    assert (
        "secret opaque is of type Opaque: the plugin lists only kubernetes.io/dockerconfigjson" in done.report["notes"]
    )


def test_secrets_of_another_namespace_are_told_in_the_headline(place: Place) -> None:
    items = [secret("a", entry(MIRROR), space) for space in ("default", "team-alhpa")]
    done = place.alpha("--secrets", place.write_objects(FORMS["list"](items)))
    verdict = done.report["verdict"]
    assert done.status == 3 and verdict["text"].endswith(
        "has no secret of namespace team-alpha; it has some of default, team-alhpa; did you mean 'team-alhpa'?"
    )
    text = place.run("nginx", "-n", "team-alpha", "--secrets", str(place.node.root / "objects.yaml")).flat
    assert "did you mean 'team-alhpa'? To do: give -n" in text
    assert verdict["remedy"].startswith("give -n the pod's namespace, or write the file with kubectl -n team-alpha get")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("--pod=wbe", "has no Pod team-alpha/wbe; it has db, web; did you mean 'web'?"),
        ("--pod=other", "has no Pod team-alpha/other; it has db, web"),
        ("--service-account=biulder", "has no ServiceAccount team-alpha/biulder; it has builder; did you mean"),
    ],
)
def test_a_mistyped_pod_is_not_well(place: Place, given: str, words: str) -> None:
    items = [
        secret("a", entry(MIRROR)),
        *({"kind": "Pod", "metadata": {"name": name, "namespace": "team-alpha"}, "spec": {}} for name in ("web", "db")),
        {"kind": "ServiceAccount", "metadata": {"name": "builder", "namespace": "team-alpha"}},
        {"kind": "Pod", "metadata": {"name": "wbe", "namespace": "team-beta"}, "spec": {}},
    ]
    path = place.write_objects(FORMS["list"](items))
    for mode in ("namespace", "service-account", "pod")[: 3 if "pod" in given else 2]:
        done = place.run("nginx", "-n", "team-alpha", given, "--secrets", path, f"--secrets-from={mode}")
        assert (done.status, done.out) == (2, "") and words in done.err


def test_the_file_may_say_whose_secrets_count(place: Place) -> None:
    items = [secret("a", entry(MIRROR)), secret("b", entry(MIRROR)), secret("c", entry(MIRROR))]
    pod = {
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "team-alpha", "uid": "u"},
        "spec": {"serviceAccountName": "builder", "imagePullSecrets": [{"name": "c"}, {"name": "a"}]},
    }
    account = {
        "kind": "ServiceAccount",
        "metadata": {"name": "builder", "namespace": "team-alpha"},
        "imagePullSecrets": [{"name": "b"}, {"name": "gone"}],
    }
    path = place.write_objects(FORMS["list"]([*items, pod, account]))
    done = place.alpha("--secrets", path, "--secrets-from=pod")
    assert done.report["account"]["serviceAccount"] == "builder"
    assert (done.report["secrets"]["looked"], done.source(SOURCE)["credential"]["secret"]) == (["c", "a"], "c")
    assert done.report["notes"] == []
    done = place.alpha("--secrets", path, "--secrets-from=service-account")
    assert done.report["notes"] == [
        "the API server was not asked: that the service account may read these secrets is assumed"
    ]
    assert done.source(SOURCE)["credential"]["secret"] == "b"
    assert done.report["secrets"]["skipped"] == [
        {"secret": "gone", "reason": "it is named in imagePullSecrets, but not found"}
    ]
    # Without any pod: its service account's; without either: all.
    path = place.write_objects(FORMS["list"](items))
    done = place.json("nginx", "-n", "team-alpha", "--pod=other", "--secrets", path, "--secrets-from=pod")
    assert "assumed to be all pull secrets of the file, by name" in done.report["notes"][0]
    assert done.report["secrets"]["looked"] == ["a", "b", "c"]


def test_a_pod_that_was_not_created_yet(place: Place) -> None:
    pod = {"kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": [], "imagePullSecrets": [{"name": "b"}]}}
    path = place.write_objects(FORMS["list"]([secret("a", entry(MIRROR)), secret("b", entry(MIRROR)), pod]))
    done = place.alpha("--secrets", path, "--secrets-from=pod")
    assert (done.status, done.source(SOURCE)["credential"]["secret"]) == (0, "b")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: [", "neither JSON nor YAML"),
        ("", "objects.yaml is empty: kubectl wrote nothing to it"),
        (" \n", "objects.yaml is empty: kubectl wrote nothing to it"),
        ("kind: ConfigMap\nmetadata: {name: x}\n", "has no Secret"),
        # Too deep; whether this program or libyaml says so first depends on how far ahead that one reads.
        ("[" * 100_000, "neither JSON nor YAML: "),
        ("- " * 100_000, "nested deeper than 64 at line 1"),
        ("{a: " * 100_000, "neither JSON nor YAML: "),
        ('{"kind":"List","items":[' * 300 + "]}" * 300, "has no Secret"),
        (f"{CANARY}: [{CANARY}\n", "neither JSON nor YAML"),
        ("\0", "neither JSON nor YAML"),
        ("a: &a [x]\nb: [*a, *a]\n", "has no Secret"),
    ],
)
def test_a_file_that_is_none(place: Place, text: str, words: str) -> None:
    done = place.alpha("--secrets", place.write_objects(text))
    assert (done.status, done.out) == (2, "")
    assert words in done.err and "Traceback" not in done.err


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["Secret", "Pod", "List"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["kind", "items", "metadata", "name", "namespace", "type", "data", "stringData", "spec", "x"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@settings(
    max_examples=settings().max_examples, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(document=_JSON, mode=st.sampled_from(["namespace", "pod", "service-account"]))
def test_any_file_gives_an_explanation_or_is_refused(place: Place, document: Any, mode: str) -> None:
    path = place.write_objects(json.dumps({"kind": "List", "items": [document, {"kind": "Pod", "metadata": document}]}))
    done = place.alpha("--secrets", path, f"--secrets-from={mode}")
    assert done.status in (0, 2, 3)
    assert done.status == 2 or done.report["verdict"]["text"]


def test_a_file_of_junk_secrets(place: Place) -> None:
    items = [
        secret("no-data", {}, data=None),
        secret("bad-base64", {}, data={".dockerconfigjson": f"{CANARY}!"}),
        secret("bad-json", {}, data={".dockerconfigjson": basic("x", CANARY)}),
        secret("numbers", {}, data={".dockerconfigjson": 5}),
        secret("listed", {}, data=[1]),
        secret("no-type", {}, type=None),
        {"kind": "Secret", "metadata": []},
        {"kind": "Secret"},
    ]
    done = place.alpha("--secrets", place.write_objects(FORMS["list"](items)))
    assert done.status == 3
    assert {skipped["secret"] for skipped in done.report["secrets"]["skipped"]} == {
        "no-data",
        "bad-base64",
        "bad-json",
        "numbers",
        "listed",
    }


# -- a recorded request -----------------------------------------------------------------------------------------------


def test_a_static_pods_request(place: Place) -> None:
    path = str(place.node.write("request.json", recorded_request("request-static-pod")))
    done = place.json("--request", path)
    assert done.status == 3
    assert "has no service account token" in done.report["verdict"]["text"]
    assert "a key for mirror.corp:5000" in done.report["verdict"]["remedy"]
    assert {source["asked"] for source in done.report["sources"]} == {None}
    assert "no tag or digest" in place.run("--request", path).flat
    place.node.write("var/lib/kubelet/config.json", json.dumps({"auths": entry(MIRROR)}))
    done = place.json("--request", path)
    assert (done.status, done.report["plugin"]["exitStatus"]) == (0, 0)
    assert "with the node's own credential" in done.report["verdict"]["text"]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"", "standard input is empty"),
        (b"{", "not valid JSON"),
        (b'{"kind":"Other"}', "has the kind 'Other'"),
        (request("", "x"), "has no image"),
        (request(NGINX, CANARY), "not a JWT"),
        (request("Upper/Case", jwt(bound_claims())), "invalid image"),
        (request(NGINX, jwt(bound_claims(namespace="../x"))), "no valid namespace"),
    ],
)
def test_a_request_that_is_none_is_the_plugins_fault(place: Place, message: bytes, words: str) -> None:
    path = str(place.node.write("request.json", message))
    done = place.json("--request", path)
    assert (done.status, done.err) == (3, "")
    assert words in done.report["plugin"]["error"]
    assert (done.report["plugin"]["outcome"], done.report["plugin"]["exitStatus"]) == ("fault-request", 1)
    assert place.run("--request", path).out.startswith("The plugin fails (exit status 1): ")
