"""``explain`` on the mistakes that people make: each is in the headline, and doing what it says is enough."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess

import pytest

from conftest import NodeMaker
from crio_credential_provider.testbed.cluster import ApiServer
from explaining import CONF, FORMS, MIRROR, SOURCE, Place, entry, secret
from node import COMMAND, basic

pytestmark = pytest.mark.process


@pytest.fixture
def place(make_node: NodeMaker, cluster: ApiServer) -> Place:
    return Place(make_node(*COMMAND, journald=False), cluster)


KUBECTL = """\
#!/usr/bin/env python3
import base64, json, re, sys
path, arguments = sys.argv[0] + ".objects", sys.argv[1:]
objects = {o["metadata"]["name"]: o for o in json.load(open(path))["items"]}
flags = dict(a.split("=", 1) for a in arguments if a.startswith("--") and "=" in a)
match arguments[:2] == ["-n", "team-alpha"] and arguments[2:]:
    case ["get", "secret", name, "-o", output]:
        key = re.fullmatch(r"jsonpath=\\{\\.data\\.(.*)\\}", output)[1]
        sys.exit(print(objects[name]["data"][key.replace("\\\\.", ".")], end=""))
    case ["create", "secret", "generic", name, *_] if name not in objects:
        data = {flags["--from-file"].removesuffix("=/dev/stdin"): base64.b64encode(sys.stdin.buffer.read()).decode()}
        made = {"kind": "Secret", "metadata": {"name": name, "namespace": "team-alpha"}, "data": data}
        objects[name] = made | {"type": flags["--type"]}
    case ["create", "secret", "docker-registry", name, *_] if name not in objects:
        login = {m: flags[f"--docker-{m}"] for m in ("username", "password")}
        content = base64.b64encode(json.dumps({"auths": {flags["--docker-server"]: login}}).encode()).decode()
        made = {"kind": "Secret", "type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": content}}
        objects[name] = made | {"metadata": {"name": name, "namespace": "team-alpha"}}
    case other:
        sys.exit(f"fake kubectl: {other}")
json.dump({"kind": "List", "items": list(objects.values())}, open(path, "w"))
"""

AUTHS = {"auths": entry(MIRROR)}
BARE = json.dumps(AUTHS["auths"]).encode()
GOOD = json.dumps(AUTHS).encode()

SPOILT: dict[str, tuple[str, str, bytes, str]] = {
    "an Opaque one": ("Opaque", ".dockerconfigjson", GOOD, "of type 'Opaque', and the plugin only lists"),
    "an Opaque one with another key": ("Opaque", "config.json", GOOD, "of type 'Opaque'"),
    "an Opaque one with the key of nobody": ("Opaque", "pull-secret", GOOD, "of type 'Opaque'"),
    "OpenShift's for podman": ("kubernetes.io/podmanconfigjson", "auth.json", GOOD, "of type 'kubernetes.io/podman"),
    "an old one": ("kubernetes.io/dockercfg", ".dockercfg", BARE, "of type 'kubernetes.io/dockercfg', and the plugin"),
    "a misspelled type": (
        "kubernetes.io/dockerconfig",
        ".dockerconfigjson",
        GOOD,
        "of type 'kubernetes.io/dockerconfig'",
    ),
    "an Opaque one with a byte order mark": (
        "Opaque",
        ".dockerconfigjson",
        b"\xef\xbb\xbf" + GOOD,
        "; its .dockerconfigjson cannot be used either",
    ),
    "hosts without auths": (
        "",
        ".dockerconfigjson",
        BARE,
        'no "auths" around its hosts: it is in the old .dockercfg format',
    ),
    "a wrapper": ("", ".dockerconfigjson", json.dumps({"value": GOOD.decode()}).encode(), 'but "value" instead'),
    "base64 twice": ("", ".dockerconfigjson", base64.b64encode(GOOD), "it is base64 of JSON: encoded twice"),
    "a byte order mark": ("", ".dockerconfigjson", b"\xef\xbb\xbf" + GOOD, "it begins with a byte order mark"),
    "PowerShell's": ("", ".dockerconfigjson", GOOD.decode().encode("utf-16"), "it is UTF-16"),
    "YAML": ("", ".dockerconfigjson", b"auths:\n  mirror.corp:5000: {}\n", "it is YAML"),
    "nothing": ("", ".dockerconfigjson", b"", "the file is empty"),
    "auths null": ("", ".dockerconfigjson", b'{"auths": null}', 'its "auths" is empty'),
    "a data key without its dot": ("", "dockerconfigjson", GOOD, "has no .dockerconfigjson, but dockerconfigjson"),
    "Docker Desktop's": (
        "",
        ".dockerconfigjson",
        b'{"auths": {"mirror.corp:5000": {}}, "credsStore": "desktop"}',
        "it has a credsStore: docker login kept the password on the machine where it ran",
    ),
    "two registries, one with a number": (
        "",
        ".dockerconfigjson",
        b'{"auths": {"quay.io": {"auth": "YTpi"}, "mirror.corp:5000": {"auth": 5}}}',
        "entry 2 of auths (mirror.corp:5000) must have strings as values",
    ),
    "two registries and a comma too many": (
        "",
        ".dockerconfigjson",
        b'{"auths": {"quay.io": {"auth": "YTpi"}, "mirror.corp:5000": {"auth": "YTpi"},}}',
        "not valid JSON",
    ),
    "an auth in plain": ("", ".dockerconfigjson", b'{"auths": {"mirror.corp:5000": {"auth": "a:b"}}}', "plain text"),
    "an auth in the URL-safe alphabet": (
        "",
        ".dockerconfigjson",
        b'{"auths": {"mirror.corp:5000": {"auth": "c3ZjOsO_w74_Pn5-fsO_", "username": "a", "password": "b"}}}',
        "- and _ belong to the URL-safe alphabet",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_the_secret_that_cannot_be_used_is_in_the_headline_and_what_is_to_be_done_mends_it(
    place: Place, name: str
) -> None:
    kind, key, content, words = SPOILT[name]
    members = {"type": kind} if kind else {}
    spoilt = secret("spoilt", {}, data={key: base64.b64encode(content).decode()}, **members)
    other = secret("unrelated", entry("quay.corp"), type="Opaque")
    tls = secret("tls", {}, type="kubernetes.io/tls", data={"tls.key": "AA=="})
    kubectl = place.node.write("bin/kubectl", KUBECTL)
    kubectl.chmod(0o755)
    objects = place.node.write("bin/kubectl.objects", json.dumps({"kind": "List", "items": [other, spoilt, tls]}))
    arguments = ("nginx:1.27", "-n", "team-alpha", "--secrets", str(objects))
    done = place.json(*arguments)
    verdict = done.report["verdict"]
    assert done.status == 3 and words in verdict["text"] and "spoilt" in verdict["text"]
    assert "unrelated" not in verdict["text"] and "spoilt" in verdict["remedy"]
    command = re.search(r"(kubectl|\{ printf) .*", verdict["remedy"])
    assert command is not None
    environment = {"PATH": f"{kubectl.parent}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-ec", command[0]], env=environment, check=True, timeout=30)
    again = place.json(*arguments)
    assert (again.status, again.source(SOURCE)["credential"]["secret"]) == (0, "spoilt-pull")
    assert spoilt in json.loads(objects.read_text())["items"], "it may hold what others use"


def test_what_others_may_need_is_not_deleted(place: Place) -> None:
    content = base64.b64encode(GOOD).decode()
    shared = secret("shared", {}, type="Opaque", data={".dockerconfigjson": content, "app.conf": "eA=="})
    broken = secret("broken", {}, type="Opaque", data={"config.json": "e30="})
    objects = place.write_objects(json.dumps({"kind": "List", "items": [shared, broken]}))
    remedy = place.json("nginx:1.27", "-n", "team-alpha", "--secrets", objects).report["verdict"]["remedy"]
    assert "generic shared-pull" in remedy and "--force" not in remedy and "delete" not in remedy
    objects = place.write_objects(FORMS["list"]([shared, secret("shared-pull", entry("quay.corp"))]))
    remedy = place.json("nginx:1.27", "-n", "team-alpha", "--secrets", objects).report["verdict"]["remedy"]
    assert "generic shared-pull-pull" in remedy
    objects = place.write_objects(json.dumps(broken))
    remedy = place.json("nginx:1.27", "-n", "team-alpha", "--secrets", objects).report["verdict"]["remedy"]
    assert "docker-registry NAME" in remedy and "delete" not in remedy


def test_on_a_node_the_secrets_of_other_types_are_looked_at_where_no_other_serves(place: Place) -> None:
    place.cluster.add_secret("team-beta", "mine", AUTHS, type="Opaque")
    done = place.beta()
    asked = [asked.path for asked in place.cluster.requests if asked.path.partition("?")[0].endswith("/secrets")]
    assert len(asked) == 2 and "type%21%3Dhelm.sh" in asked[1]
    assert "Secret mine has the key mirror.corp:5000: the secret is of type 'Opaque'" in done.report["verdict"]["text"]
    assert "get secret mine -o jsonpath='{.data." in done.report["verdict"]["remedy"]


@pytest.mark.parametrize("mode", ["pod", "service-account"])
def test_a_pod_names_a_secret_that_is_not_there(place: Place, mode: str) -> None:
    place.cluster.add_service_account("team-beta", "late", ["gone"])
    place.cluster.add_pod("team-beta", "late", "node1", "late")
    place.cluster.allow("team-beta", "late", ("get",))
    place.cluster.allow("team-beta", "late", ("get",), "serviceaccounts")
    done = place.json("nginx", "-n", "team-beta", "--pod=late", f"--secrets-from={mode}")
    assert "secret gone is not used: it is named in imagePullSecrets, but not found" in done.report["verdict"]["text"]
    assert "create secret docker-registry gone " in done.report["verdict"]["remedy"]
    assert "delete" not in done.report["verdict"]["remedy"]


@pytest.mark.parametrize("mode", ["pod", "service-account"])
@pytest.mark.parametrize(
    ("named", "remedy"), [(["regcerd"], " in place of regcerd"), ([], ""), (["regcred-quay"], "")], ids=str
)
def test_a_secret_that_nobody_names_has_the_key(place: Place, mode: str, named: list[str], remedy: str) -> None:
    references = [{"name": name} for name in named]
    metadata = {"namespace": "team-alpha", "name": "web"}
    items = [
        *(secret("regcred", entry(MIRROR)), secret("regcred-quay", entry("quay.corp"))),
        {"kind": "Pod", "metadata": metadata, "spec": {"serviceAccountName": "web", "imagePullSecrets": references}},
        {"kind": "ServiceAccount", "metadata": metadata, "imagePullSecrets": references},
    ]
    verdict = place.alpha("--secrets", place.write_objects(FORMS["list"](items)), f"--secrets-from={mode}").report[
        "verdict"
    ]
    whose = "the pod" if mode == "pod" else "service account web"
    assert f"Secret regcred has the key {MIRROR}: it is not in imagePullSecrets" in verdict["text"]
    assert verdict["remedy"] == f"add regcred to the imagePullSecrets of {whose}{remedy}"


def test_a_password_with_a_line_break_at_its_end_is_told(place: Place) -> None:
    spoilt = secret("echoed", {MIRROR: {"auth": basic("user", "pw\n")}})
    done = place.json("nginx", "-n", "team-alpha", "--secrets", place.write_objects(json.dumps(spoilt)))
    assert done.status == 0 and "the password ends with a newline" in done.report["verdict"]["text"]
    assert done.report["warnings"] == [
        f"secret echoed, key {MIRROR!r}: the password ends with a newline, which echo adds and printf does not; "
        "it is used anyway"
    ]
    assert done.report["verdict"]["remedy"].startswith("if it is refused there, write the credential")
    empty = place.write_objects(json.dumps(secret("empty", {MIRROR: {"auth": basic("user", "")}})))
    assert place.alpha("--secrets", empty).report["verdict"]["remedy"].endswith("in secret empty with one")


def test_an_auth_without_padding_is_told(place: Place) -> None:
    spoilt = secret("bare", {MIRROR: {"auth": "c3ZjOnBhc3MxMg"}})
    done = place.json("nginx", "-n", "team-alpha", "--secrets", place.write_objects(json.dumps(spoilt)))
    note = f"secret bare, key {MIRROR}: its auth has no base64 padding; read as by the kubelet"
    assert done.status == 0 and note in done.report["notes"]


def test_a_mirror_whose_host_is_none_takes_nothing_from_the_others(place: Place) -> None:
    place.node.write_registries_conf(
        CONF.replace("[[registry.mirror]]", "[[registry.mirror]]\nlocation = 'hub_cache.corp'\n[[registry.mirror]]", 1)
    )
    done = place.alpha()
    assert [source["name"] for source in done.report["sources"]][:2] == ["hub_cache.corp/library/nginx", SOURCE]
    assert done.status == 0 and done.report["authFile"]["keys"] == [SOURCE]
    assert "to hub_cache.corp/library/nginx it cannot connect: 'hub_cache.corp'" in done.report["verdict"]["text"]
    assert any("and cannot connect: 'hub_cache.corp' is not a host name" in step for step in done.report["then"])


def test_a_mirror_whose_host_is_none_is_the_only_one(place: Place) -> None:
    place.node.write_registries_conf(
        '\n[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "hub_cache.corp"\n'
    )
    done = place.json("docker.io/nginx:1", "-n", "team-alpha", "--pod=web")
    assert (done.status, done.report["verdict"]["text"]) == (
        3,
        "CRI-O cannot connect to hub_cache.corp/library/nginx: 'hub_cache.corp' is not a host name, which may only "
        "have letters, digits, '-' and '.'",
    )
    conf = place.node.root / "etc/containers/registries.conf"
    assert done.report["verdict"]["remedy"] == f"correct the location at {conf}:5: 'hub_cache.corp'"


def test_no_port_is_above_65535(place: Place) -> None:
    place.node.write_registries_conf(CONF.replace(":5000", ":500000"))
    verdict = place.alpha().report["verdict"]
    assert verdict["text"].endswith("the port is above 65535: 'mirror.corp:500000'")
    assert f"{place.node.root}/etc/containers/registries.conf:8" in verdict["remedy"]


@pytest.mark.parametrize("limit", ['pull-from-mirror = "digest-only"', "mirror-by-digest-only = true"])
def test_why_a_pull_by_tag_asks_no_mirror_is_in_the_headline(place: Place, limit: str) -> None:
    tables = ['[[registry]]\nlocation = "docker.io"\n', f'[[registry.mirror]]\nlocation = "{MIRROR}"\n']
    tables["pull-from" in limit] += f"{limit}\n"
    place.node.write_registries_conf("".join(tables))
    verdict = place.json("docker.io/team/app:1", "-n", "team-alpha", "--pod=web").report["verdict"]
    line = "".join(tables).splitlines().index(limit) + 1
    assert verdict["text"] == (
        f"This pull asks no mirror: {MIRROR}/team/app serves only pulls by digest, because of {limit} at "
        f"{place.node.root}/etc/containers/registries.conf:{line}"
    )


def test_the_port_may_be_wrong_in_registries_conf_as_well(place: Place) -> None:
    place.node.write_registries_conf(CONF.replace(":5000", ""))
    verdict = place.alpha().report["verdict"]
    conf = f"{place.node.root}/etc/containers/registries.conf:8"
    assert f'if that is the mirror\'s port, in {conf} write location = "{MIRROR}/hub"' in verdict["remedy"]
    place.node.write_registries_conf(CONF)
    assert place.alpha().status == 0


def test_an_image_whose_host_is_none(place: Place) -> None:
    done = place.json("quay.io_x/team/app:1", "-n", "team-alpha", "--pod=web")
    assert done.report["image"]["repository"] == "quay.io_x/team/app"
    assert done.status == 3 and "CRI-O cannot connect to quay.io_x/team/app" in done.report["verdict"]["text"]
