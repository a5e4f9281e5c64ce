"""Flags and variables: each can be set both ways, a wrong one is named, and defaults lie below the root."""

from __future__ import annotations

import re
from typing import Any

import pytest

from crio_credential_provider import settings
from crio_credential_provider.commands import help
from crio_credential_provider.errors import UsageError
from crio_credential_provider.settings import FLAGS, Flag
from node import Node, request

pytestmark = pytest.mark.process

# Flag -> (a text that is not its default, the value that it stands for).
VALUES: dict[str, tuple[str, Any]] = {
    "secrets-from": ("service-account", "service-account"),
    "mirror-registry": ("mirror.corp:5000/hub", ("mirror.corp:5000/hub",)),
    "runtime": ("containerd", "containerd"),
    "registries-conf": ("/a/registries.conf", "/a/registries.conf"),
    "registries-conf-dir": ("/a/registries.conf.d", "/a/registries.conf.d"),
    "auth-dir": ("/a/auth", "/a/auth"),
    "global-auth-file": ("/a/config.json", "/a/config.json"),
    "containerd-config": ("/a/config.toml", "/a/config.toml"),
    "allow-fallback-exposure": ("true", True),
    "kubeconfig": ("/a/kubeconfig", "/a/kubeconfig"),
    "apiserver": ("https://a.example:6443", "https://a.example:6443"),
    "apiserver-env-file": ("/a/env", "/a/env"),
    "certificate-authority": ("/a/ca.pem", "/a/ca.pem"),
    "insecure-skip-tls-verify": ("true", True),
    "deadline": ("5s", 5.0),
    "max-answer-size": ("1", 1024 * 1024),
    "no-pull-record": ("true", True),
    "pod-events": ("true", True),
    "kubelet-root-dir": ("/a/kubelet", "/a/kubelet"),
    "hand-off-timeout": ("3s", 3.0),
    "hand-off-grace": ("80ms", 0.08),
    "stale-after": ("1m", 60.0),
    "cache-dir": ("/a/cache", "/a/cache"),
    "journal-socket": ("/a/socket", "/a/socket"),
    "log-level": ("debug", "debug"),
    "root": ("/a/root", "/a/root"),
}

DEFAULT_PATHS = {
    "auth_dir": "/etc/crio/auth",
    "global_auth_file": "/var/lib/kubelet/config.json",
    "containerd_config": "/etc/containerd/config.toml",
    "apiserver_env_file": "/etc/kubernetes/apiserver-url.env",
    "kubelet_root_dir": "/var/lib/kubelet",
    "cache_dir": "/run/crio-credential-provider",
    "journal_socket": "/run/systemd/journal/socket",
}


def test_every_flag_is_tried_here() -> None:
    assert sorted(VALUES) == sorted(flag.name for flag in FLAGS)


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_a_flag_in_all_its_spellings(flag: Flag) -> None:
    text, value = VALUES[flag.name]
    spellings = [([f"--{flag.name}={text}"], {}), ([], {flag.variable: text})]
    spellings.append(([f"--{flag.name}", text] if flag.metavar else [f"--{flag.name}"], {}))
    for arguments, environment in spellings:
        assert getattr(settings.loads(arguments, environment), flag.attribute) == value, (arguments, environment)
    assert getattr(settings.loads([], {}), flag.attribute) != value


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_a_flag_goes_before_its_variable(flag: Flag) -> None:
    text, value = VALUES[flag.name]
    other = {flag.variable: "other.example" if flag.repeatable else flag.default}
    assert getattr(settings.loads([f"--{flag.name}={text}"], other), flag.attribute) == value


def test_the_attributes_are_those_that_are_declared() -> None:
    assert sorted(settings.Settings.__annotations__) == sorted(flag.attribute for flag in FLAGS)
    found = settings.loads([], {})
    assert all(hasattr(found, flag.attribute) for flag in FLAGS)
    assert sorted(vars(found)) == sorted(flag.attribute for flag in FLAGS)
    with pytest.raises(AttributeError, match="unheard_of"):
        _ = found.unheard_of


def test_variables_have_the_one_prefix() -> None:
    assert {flag.variable for flag in FLAGS} == {
        "CRIO_CREDENTIAL_PROVIDER_" + flag.name.upper().replace("-", "_") for flag in FLAGS
    }


def test_defaults() -> None:
    """Paths are the Go provider's."""
    found = settings.loads([], {})
    assert {name: getattr(found, name) for name in DEFAULT_PATHS} == DEFAULT_PATHS
    assert (found.secrets_from, found.mirror_registry, found.deadline, found.log_level) == ("namespace", (), 20, "info")
    assert (found.insecure_skip_tls_verify, found.no_pull_record, found.root) == (False, False, "")


@pytest.mark.parametrize("root", ["/node", "/node/"])
def test_defaults_lie_below_the_root(root: str) -> None:
    found = settings.loads(["--root", root], {})
    assert {name: getattr(found, name) for name in DEFAULT_PATHS} == {
        name: f"/node{path}" for name, path in DEFAULT_PATHS.items()
    }
    assert found.root == "/node"
    assert settings.loads(["--root=/"], {}).auth_dir == "/etc/crio/auth"


def test_a_path_that_is_given_is_taken_as_it_is() -> None:
    given = settings.loads(["--auth-dir", "/a", "--root", "/node"], {"CRIO_CREDENTIAL_PROVIDER_CACHE_DIR": "/b"})
    assert (given.auth_dir, given.cache_dir) == ("/a", "/b")


def test_the_last_one_counts_where_one_is_meant() -> None:
    assert settings.loads(["--deadline=1s", "--deadline", "2s"], {}).deadline == 2


def test_repeatable_flags_add_up() -> None:
    found = settings.loads(["--mirror-registry=a.example", "--mirror-registry", "b.example/x/"], {})
    assert found.mirror_registry == ("a.example", "b.example/x")
    variable = {"CRIO_CREDENTIAL_PROVIDER_MIRROR_REGISTRY": " a.example , b.example:5000/x,, "}
    assert settings.loads([], variable).mirror_registry == ("a.example", "b.example:5000/x")
    assert settings.loads(["--mirror-registry=c.example"], variable).mirror_registry == ("c.example",)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("1.5s", 1.5), ("0.5m", 30), ("7", 7), ("0", 0), ("0s", 0), ("0.05", 0.05), ("0.01h", 36)],
)
def test_durations(text: str, seconds: float) -> None:
    assert settings.loads(["--hand-off-timeout", text], {}).hand_off_timeout == pytest.approx(seconds)


@pytest.mark.parametrize("flag", ["deadline", "hand-off-timeout", "hand-off-grace"])
@pytest.mark.parametrize("text", ["60s", "1m", "9" * 400, f"{'9' * 30}h"])
def test_no_wait_outlives_the_kubelet_s_patience(flag: str, text: str) -> None:
    """It kills the plugin after 60 s (docs/reference/contracts.md, 1)."""
    with pytest.raises(UsageError, match="is not between"):
        settings.loads([f"--{flag}", text], {})


def test_what_is_wrong_is_named_where_it_was_given() -> None:
    variable = {"CRIO_CREDENTIAL_PROVIDER_DEADLINE": "soon"}
    with pytest.raises(UsageError, match=r"^CRIO_CREDENTIAL_PROVIDER_DEADLINE: 'soon' is not"):
        settings.loads([], variable)
    assert settings.loads(["--deadline=5s"], variable).deadline == 5


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        *(("deadline", text) for text in ("", "s", "1h", "1x", "-1s", "1s2", "1.2.3s", "1ss", "ten", "²s", "1 s", ".")),
        *(("max-answer-size", text) for text in ("0", "-1", "1.5", "4097", "²", "", "1MB")),
        *(("auth-dir", text) for text in ("auth", "./auth", "~/auth")),
        ("root", "node"),
        ("secrets-from", "cluster"),
        ("log-level", "trace"),
        ("no-pull-record", "yes"),
        *(
            ("mirror-registry", text)
            for text in ("https://a.example", "*.example", "a.example/X", "a.example/", "a.example//b", "a b", "/x", "")
            if text not in ("a.example/",)
        ),
    ],
)
def test_a_value_that_cannot_be_is_named(flag: str, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings.loads([f"--{flag}={text}"], {})
    assert f"--{flag}" in caught.value.message and repr(text) in caught.value.message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--no-such-flag"], "unknown flag '--no-such-flag'"),
        (["--no-such-flag=secret"], "unknown flag '--no-such-flag'"),
        (["-deadline", "5s"], "unknown flag '-deadline'"),
        (["--Deadline", "5s"], "unknown flag '--Deadline'"),
        (["--dead", "5s"], "unknown flag '--dead'"),
        (["deadline"], "unknown argument 'deadline'"),
        (["--deadline", "5s", "more"], "unknown argument 'more'"),
        (["--no-pull-record", "true"], "unknown argument 'true'"),
        (["--"], "unknown flag '--'"),
        (["--=x"], "unknown flag '--'"),
        ([""], "unknown argument ''"),
        (["--deadline"], "--deadline needs a value, DURATION"),
    ],
)
def test_what_is_no_flag_is_named(arguments: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        settings.loads(arguments, {})


def test_an_unknown_variable_is_nobody_s_business() -> None:
    """Another version of the plugin may know it: a node's environment must not stop its pulls."""
    environment = {"CRIO_CREDENTIAL_PROVIDER_FUTURE": "x", "CRIO_CREDENTIAL_PROVIDER_ROOT": "", "PATH": "/bin"}
    settings.loads([], environment)
    # But it is told: most likely it is a typing mistake.
    assert settings.unknown_variables(environment) == ["CRIO_CREDENTIAL_PROVIDER_FUTURE"]


# -- as a process -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--no-such-flag"], ["--deadline", "soon"], ["--deadline"], ["serve"]])
def test_wrong_usage_is_status_2_and_one_line(module_node: Node, arguments: list[str]) -> None:
    run = module_node.run(request(), *arguments)
    assert (run.status, run.stdout, run.stderr.count("\n")) == (2, b"", 1)
    assert arguments[0] in run.stderr


def test_a_variable_counts_in_a_run(module_node: Node) -> None:
    # The flag --root goes before; what the variable names is not below it.
    variables = {"CRIO_CREDENTIAL_PROVIDER_REGISTRIES_CONF": "/nowhere/registries.conf"}
    run = module_node.run(request(), env=variables)
    assert run.status == 1 and "/nowhere/registries.conf" in run.stderr


def test_a_wrong_variable_stops_the_run(module_node: Node) -> None:
    run = module_node.run(request(), env={"CRIO_CREDENTIAL_PROVIDER_DEADLINE": "soon"})
    assert (run.status, run.stdout) == (2, b"")
    assert "'soon'" in run.stderr and "deadline" in run.stderr.lower()


def test_the_help_names_every_flag_and_variable() -> None:
    text = help.text()
    for flag in FLAGS:
        assert re.search(rf"^  --{flag.name}( {re.escape(flag.metavar)})?$", text, re.MULTILINE), flag.name
        assert re.search(rf"^ +{flag.variable}$", text, re.MULTILINE), flag.variable
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("place", ["https://u:CANARY@h", "u:CANARY@h", "CANARY@h", "u:CAN/CANARY@h", "h/x?p=CANARY"])
@pytest.mark.parametrize(
    "given", ["--mirror-registry={}", "--apiserver-env-file={}", "{}", "--bogus={}", "--deadline={}"]
)
def test_a_password_in_a_value_is_not_told(given: str, place: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings.loads([given.format(place)], {})
    assert "CANARY" not in str(caught.value)
