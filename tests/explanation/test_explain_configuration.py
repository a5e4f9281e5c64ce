"""``explain`` on a node's configuration of the plugin, and its own usage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import pytest

from conftest import NodeMaker
from crio_credential_provider.testbed.cluster import ISSUER, ApiServer
from explaining import MIRROR, Place
from node import COMMAND, PROGRAM

pytestmark = pytest.mark.process


@pytest.fixture
def place(make_node: NodeMaker, cluster: ApiServer) -> Place:
    return Place(make_node(*COMMAND, journald=False), cluster)


def provider_config(
    arguments: list[str],
    env: Mapping[str, str] | None = None,
    name: str = "crio-credential-provider",
    audience: str = ISSUER,
) -> str:
    other = {"name": "ecr-credential-provider", "args": ["get-credentials"]}
    ours = {
        "name": name,
        "args": arguments,
        "tokenAttributes": {"serviceAccountTokenAudience": audience},
        "env": [{"name": key, "value": value} for key, value in (env or {}).items()],
    }
    return json.dumps({"kind": "CredentialProviderConfig", "providers": [other, ours]})


def test_arguments_of_the_credential_provider_config_count(place: Place) -> None:
    text = provider_config(["--mirror-registry=other.corp", "--auth-dir", "/run/auth"])
    path = str(place.node.write("config.yaml", text))
    done = place.alpha("--config", path)
    assert done.status == 0
    assert "covered by --mirror-registry other.corp" in done.report["plugin"]["reason"]
    # A person's own flags go before them, and are not added to them.
    done = place.alpha("--config", path, f"--mirror-registry={MIRROR}")
    assert done.report["authFile"]["path"].startswith("/run/auth/team-alpha-")
    assert done.status == 0
    place.node.write("config.yaml", text.replace("other.corp", MIRROR))
    assert place.alpha("--config", path).report["authFile"] is not None
    assert place.alpha("--config", path, "--mirror-registry=other.corp").report["authFile"] is None


def test_variables_of_the_credential_provider_config_count(place: Place) -> None:
    env = {"CRIO_CREDENTIAL_PROVIDER_AUTH_DIR": "/run/of-env", "OTHER": "x"}
    path = str(place.node.write("config.yaml", provider_config([], env)))
    assert place.alpha("--config", path).report["authFile"]["path"].startswith("/run/of-env/")


def test_a_directory_of_credential_provider_configs(place: Place) -> None:
    place.node.write("configs/10-x.conf", "not read: [")
    place.node.write("configs/20-y.yml", provider_config(["--auth-dir=/run/y"]))
    place.node.write("configs/sub.yaml/z.yaml", "not read: [")
    done = place.alpha("--config", str(place.node.root / "configs"))
    assert done.report["authFile"]["path"].startswith("/run/y/")


UNIT = "[Service]\nExecStart=/usr/bin/kubelet --image-credential-provider-config=/etc/kubernetes/providers.yaml\n"


def test_the_file_that_the_kubelet_names_counts(place: Place) -> None:
    place.node.write("etc/systemd/system/kubelet.service", UNIT)
    path = place.node.write("etc/kubernetes/providers.yaml", provider_config(["--auth-dir=/run/auth"]))
    done = place.alpha()
    assert (done.status, done.report["authFile"]["path"].startswith("/run/auth/")) == (0, True)
    assert done.report["notes"][0] == f"the plugin's arguments come from {path}, the kubelet's configuration"
    # What a person names goes before it.
    other = place.node.write("other.yaml", provider_config(["--auth-dir=/run/other"]))
    assert place.alpha("--config", str(other)).report["authFile"]["path"].startswith("/run/other/")
    place.node.write("etc/kubernetes/providers.yaml", provider_config(["--none"]))
    done = place.alpha()
    assert (done.status, done.report["plugin"]["exitStatus"]) == (3, 2)
    assert done.report["notes"] == [f"the arguments come from {path}"]


@pytest.mark.parametrize(
    ("text", "words"), [("providers: [", "is not valid YAML"), ("kind: X", "is not a CredentialProviderConfig")]
)
def test_a_file_of_the_kubelet_that_cannot_be_used_is_told(place: Place, text: str, words: str) -> None:
    place.node.write("etc/systemd/system/kubelet.service", UNIT)
    place.node.write("etc/kubernetes/providers.yaml", text)
    done = place.alpha()
    assert done.status == 0
    assert done.report["notes"][0].startswith("the kubelet's CredentialProviderConfig is ignored, and the plugin's")
    assert words in done.report["notes"][0]


def test_without_token_attributes_no_credential_is_found(place: Place) -> None:
    """The kubelet runs the plugin, and hands it no token."""
    document = json.loads(provider_config([]))
    del document["providers"][1]["tokenAttributes"]
    path = place.node.write("config.yaml", json.dumps(document))
    done = place.alpha("--config", str(path))
    assert (done.status, done.report["authFile"]) == (3, None)
    assert "tokenAttributes" in done.report["verdict"]["remedy"]
    assert f"the plugin's entry in {path} has no tokenAttributes" in " ".join(done.report["notes"])


def test_the_token_has_the_audience_that_the_kubelet_asks_for(place: Place) -> None:
    """A wrong one fails here as it fails at the pull."""
    path = place.node.write("config.yaml", provider_config([], audience="https://elsewhere.example"))
    done = place.alpha("--config", str(path))
    assert (done.status, done.report["plugin"]["exitStatus"]) == (3, 1)
    assert "401" in done.report["plugin"]["error"]
    assert "https://elsewhere.example" in " ".join(done.report["notes"])


def test_a_renamed_entry_is_found(place: Place) -> None:
    path = place.node.write("config.yaml", provider_config(["--auth-dir=/run/auth"], name="crio-credential-provider-2"))
    assert place.alpha("--config", str(path)).report["authFile"]["path"].startswith("/run/auth/")


def test_arguments_that_the_plugin_refuses(place: Place) -> None:
    path = str(place.node.write("config.yaml", provider_config(["--mirror-regsitry=mirror.corp"])))
    done = place.alpha("--config", path)
    assert (done.status, done.report["plugin"]["exitStatus"]) == (3, 2)
    assert "--mirror-regsitry" in done.report["plugin"]["error"]
    assert done.report["notes"] == [f"the arguments come from {path}"]


def test_a_registries_conf_for_the_plugin_alone_that_is_missing(place: Place) -> None:
    """CRI-O reads its own, and pulls on."""
    text = "kind: CredentialProviderConfig\nproviders:\n- name: crio-credential-provider\n  args:\n"
    path = place.node.write("config.yaml", f"{text}  - --registries-conf=/etc/containers/nope.conf\n")
    verdict = place.alpha("--config", str(path)).report["verdict"]
    assert verdict["remedy"].startswith(f"remove --registries-conf from {path}:5, or ")
    assert "/etc/containers/nope.conf" in verdict["text"] and "CRI-O refuses" not in verdict["text"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("providers: [", "not valid YAML"),
        ("kind: Pod\n", "not a CredentialProviderConfig"),
        (provider_config([], name="other"), "it has ecr-credential-provider, other"),
        (
            '{"kind":"CredentialProviderConfig","providers":[{"name":"crio-credential-provider","args":"x"}]}',
            "must be lists",
        ),
    ],
)
def test_a_credential_provider_config_that_cannot_be_used(place: Place, text: str, words: str) -> None:
    done = place.alpha("--config", str(place.node.write("config.yaml", text)))
    assert (done.status, done.out) == (2, "")
    assert words in done.err


# -- usage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "IMAGE is missing"),
        (["nginx"], "-n NAMESPACE is missing"),
        (["Nginx", "-n", "x"], "did you mean 'nginx'?"),
        (["nginx:1:2", "-n", "x"], "InvalidImageName"),
        (["nginx", "-n", "Not_A_Name"], "not a valid Kubernetes name"),
        (["nginx", "-n", "x", "--pod", "a", "--service-account", "b"], "not allowed with"),
        (["nginx", "-n", "x", "--secrets-from=pod"], "requires --pod"),
        (["nginx", "-n", "x", "--secrets", "/nowhere"], "--secrets: /nowhere: no such file"),
        (["nginx", "-n", "x", "--config", "/nowhere"], "--config: /nowhere: no such file or directory"),
        (["nginx", "--request", "/dev/null"], "remove IMAGE"),
        (["--request", "-", "--secrets", "-"], "standard input"),
        (["nginx", "-n", "x", "--deadline=never"], "--deadline: 'never' is not a duration"),
        (["nginx", "-n", "x", "--output=xml"], "--output: 'xml' is not one of text, json"),
    ],
)
def test_wrong_usage(place: Place, arguments: list[str], words: str) -> None:
    done = place.run(*arguments)
    assert (done.status, done.out) == (2, "")
    assert words in done.err


@pytest.mark.skipif(bool(PROGRAM), reason="calls are counted in this process")
def test_the_kubelet_and_its_configuration_are_looked_up_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what is told of the plugin's arguments is what they were."""
    from crio_credential_provider.commands.request import place as request_place
    from crio_credential_provider.node import crio, kubelet

    path = place.node.write("provider.yaml", provider_config(["--secrets-from=pod"]))
    unit = f"[Service]\nExecStart=/usr/bin/kubelet --image-credential-provider-config=/{path.name}\n"
    place.node.write("etc/systemd/system/kubelet.service", unit)
    calls: list[str] = []

    def count(module: ModuleType, name: str) -> None:
        real = getattr(module, name)

        def counted(*given: Any, **named: Any) -> Any:
            calls.append(name)
            return real(*given, **named)

        monkeypatch.setattr(module, name, counted)

    for module, name in ((kubelet, "find_kubelet"), (crio, "find_crio"), (request_place, "load_entry")):
        count(module, name)
    done = place.alpha()
    assert done.report["secrets"]["from"] == "pod" and str(path) in " ".join(done.report["notes"])
    assert sorted(calls) == ["find_crio", "find_kubelet", "load_entry"]


def test_a_persons_paths_start_where_he_is(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.node.root)
    done = place.alpha("--registries-conf", "etc/containers/registries.conf")
    assert (done.status, done.report["registries"]["files"][0]["path"]) == (0, str(place.node.registries_conf))
