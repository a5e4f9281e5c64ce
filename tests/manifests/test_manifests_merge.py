"""Our entry put into a CredentialProviderConfig: others stay but for white space, and a second time changes nothing."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from credentialproviderconfig import faults
from crio_credential_provider.errors import ConfigError, UsageError
from crio_credential_provider.kubernetes.credentialproviderconfig import NAME
from crio_credential_provider.manifests.merge import Merged, merge
from crio_credential_provider.manifests.providerconfig import Wanted, parse_version, update_entry
from node import TESTS

WANTED = Wanted((1, 34), ("docker.io", "*.corp.example"))

RECIPE = (TESTS / "gallery/recipe/root/etc/kubernetes/credential-provider-config.yaml").read_text()

OTHERS = """\
# Of the platform.
apiVersion: kubelet.config.k8s.io/v1   # odd   spacing
kind: CredentialProviderConfig

providers:

  # The cloud's own.
  - name:   "ecr-credential-provider"
    matchImages: [ "*.dkr.ecr.*.amazonaws.com",   '*.dkr.ecr.*.amazonaws.com.cn' ]
    defaultCacheDuration: '12h'
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    env:
      - {name: A,   value: "1"}   # why
    # deeper
  # as deep as the dash
# at the end
"""


def parsed(text: str) -> Any:
    # Go's parser takes tabs where PyYAML does not.
    return yaml.safe_load(text.replace("\t", " "))


def without_space(text: str) -> str:
    return "".join(text.split())


def others(config: Any) -> list[Any]:
    return [provider for provider in config.get("providers") or [] if provider["name"] != NAME]


def ours(text: str) -> Any:
    [entry] = [provider for provider in parsed(text)["providers"] if provider["name"] == NAME]
    return entry


def merged(text: str, wanted: Wanted = WANTED) -> Merged:
    """Merged, with what holds for every merge checked."""
    result = merge(text, wanted)
    again = merge(result.text, wanted)
    assert (again.text, again.changes) == (result.text, ())
    if text.strip() and parsed(text):
        assert others(parsed(result.text)) == others(parsed(text))
        assert bool(result.changes) == (result.text != text)
    config = {key: parsed(result.text)[key] for key in ("apiVersion", "kind")}
    assert faults({**config, "providers": [ours(result.text)]}, wanted.kubernetes[1]) == []
    return result


# -- by hand ----------------------------------------------------------------------------------------------------------


def test_the_recipe_loses_all_its_faults_in_one_go() -> None:
    result = merged(RECIPE, Wanted((1, 34), ("docker.io",)))
    assert (
        result.text
        == """\
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
- name: crio-credential-provider
  matchImages:
  - docker.io
  defaultCacheDuration: 0s
  apiVersion: credentialprovider.kubelet.k8s.io/v1
  args:
  - --mirror-registry=mirror.internal.company.com
  tokenAttributes:
    serviceAccountTokenAudience: https://kubernetes.default.svc.cluster.local
    cacheType: Token
    requireServiceAccount: true
"""
    )
    told = "\n".join(result.changes)
    for part in (
        "removed mirror.internal.company.com/*",
        "added docker.io",
        "defaultCacheDuration: changed from 10m to 0s",
        "added tokenAttributes",
    ):
        assert part in told


def test_what_is_not_ours_stays_but_for_white_space() -> None:
    result = merged(OTHERS)
    before, after = OTHERS.split("  # as deep as the dash")
    assert without_space(result.text).startswith(without_space(before))
    assert result.text.endswith(f"  # as deep as the dash{after}")
    assert result.changes == (f"added the provider {NAME}",)


@pytest.mark.parametrize(
    "text", ["", "\n", "# a comment\n", "# without a newline", "---\n", "--- # x\n# y\n", "%YAML 1.1\n---\n"]
)
def test_a_file_with_nothing_in_it_gets_our_entry(text: str) -> None:
    result = merge(text, WANTED)
    assert parsed(result.text)["providers"] == [ours(result.text)]
    assert result.text.startswith(text.strip("\n"))
    assert merge(result.text, WANTED).text == result.text


@pytest.mark.parametrize(
    "providers",
    ["providers: []", "providers: [] # none yet", "providers:", "providers: # none", "providers: null", "providers: ~"],
)
def test_no_providers_yet(providers: str) -> None:
    head = "kind: CredentialProviderConfig\n"
    tail = "apiVersion: kubelet.config.k8s.io/v1 # last\n"
    result = merged(f"{head}{providers}\n{tail}")
    assert result.text.startswith(head) and result.text.endswith(tail)
    assert ("#" in providers) == (providers.partition("#")[2] in result.text and "#" in result.text.splitlines()[1])
    merged(f"{head}{tail}{providers}")


def test_the_style_of_lists_is_taken_over() -> None:
    flush = OTHERS.replace("\n  ", "\n")
    text = merged(RECIPE.replace(NAME, "other")).text
    assert "\n- name: crio-credential-provider\n" in text and "\n  matchImages:\n  - docker.io\n" in text
    text = merged(OTHERS).text
    assert "\n  - name: crio-credential-provider\n" in text and "\n    matchImages:\n      - docker.io\n" in text
    assert flush


@pytest.mark.parametrize("indent", [None, 0, 1, 2, 4, "\t"])
def test_json_stays_json(indent: int | str | None) -> None:
    config = {"kind": "CredentialProviderConfig", "apiVersion": "kubelet.config.k8s.io/v1"}
    other: dict[str, Any] = {
        "name": "x",
        "matchImages": ["a.b"],
        "defaultCacheDuration": "1s",
        "apiVersion": ours_protocol(),
    }
    old: dict[str, Any] = {"name": NAME, "matchImages": [], "apiVersion": ours_protocol(), "args": [], "more": 1}
    for providers in ([], [other], [other, old], [old, other]):
        text = json.dumps({**config, "providers": providers}, indent=indent)
        result = merge(text, WANTED)
        made = json.loads(result.text)
        assert faults(made, 34) == []
        assert [p for p in made["providers"] if p["name"] != NAME] == [p for p in providers if p["name"] != NAME]
        assert list(made)[:2] == list(config)
        assert merge(result.text, WANTED).text == result.text
        if indent == 2 and old not in providers:
            assert result.text == json.dumps(made, indent=2)


def ours_protocol() -> str:
    return "credentialprovider.kubelet.k8s.io/v1"


def test_line_ends_stay_what_they_are() -> None:
    for text in (RECIPE, OTHERS):
        made = merged(text.replace("\n", "\r\n")).text
        assert made.count("\n") == made.count("\r\n") > text.count("\n")
        assert made == merged(text).text.replace("\n", "\r\n")
    assert not merged(RECIPE.removesuffix("\n")).text.startswith("\n")


def test_comments_and_extra_keys_of_our_entry_stay() -> None:
    text = """\
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
  - # ours
    name: crio-credential-provider # the binary
    # why these
    matchImages:
      - quay.io # the first
      # - gone
      - "https://docker.io" # never matched
      # after the list
    # before the args
    args: [--log-level=debug, --nonsense, "--secrets-from", pod] # as told
    env:
      - name: HTTPS_PROXY
        value: none
    defaultCacheDuration: 0m
    tokenAttributes:
      requireServiceAccount: false # static pods as well
      cacheType: ServiceAccount
      serviceAccountTokenAudience: https://kubernetes.default.svc
      optionalServiceAccountAnnotationKeys: [team]
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    unknown: 1
"""
    result = merged(text)
    for comment in (
        "# ours",
        "# the binary",
        "# why these",
        "# the first",
        "# - gone",
        "# after",
        "# before",
        "# as told",
    ):
        assert comment in result.text
    entry = ours(result.text)
    assert entry["matchImages"] == ["quay.io", "docker.io", "*.corp.example"]
    assert entry["args"] == ["--log-level=debug", "--secrets-from", "pod"]
    assert entry["env"] == [{"name": "HTTPS_PROXY", "value": "none"}]
    assert entry["defaultCacheDuration"] == "0m"
    assert entry["tokenAttributes"] == {
        "requireServiceAccount": False,
        "cacheType": "Token",
        "serviceAccountTokenAudience": "https://kubernetes.default.svc",
        "optionalServiceAccountAnnotationKeys": ["team"],
    }
    assert "unknown" not in entry
    assert "requireServiceAccount: false # static pods as well\n" in result.text


def test_what_is_given_counts_and_what_is_not_stays() -> None:
    first = merge("", Wanted((1, 34), ("docker.io",), "https://a", ("--secrets-from=pod", "--auth-dir=/run/a"))).text
    entry = ours(merged(first, Wanted((1, 34), ("quay.io",))).text)
    assert entry["matchImages"] == ["docker.io", "quay.io"]
    assert entry["tokenAttributes"]["serviceAccountTokenAudience"] == "https://a"
    assert entry["args"] == ["--secrets-from=pod", "--auth-dir=/run/a"]
    wanted = Wanted((1, 34), ("quay.io",), "https://b", ("--auth-dir=/run/b", "--log-level=debug"))
    entry = ours(merged(first, wanted).text)
    assert entry["tokenAttributes"]["serviceAccountTokenAudience"] == "https://b"
    assert entry["args"] == ["--secrets-from=pod", "--auth-dir=/run/b", "--log-level=debug"]
    without = merge(first, Wanted((1, 34), ("quay.io",)), without=("docker.io",))
    assert ours(without.text)["matchImages"] == ["quay.io"]


def test_from_one_version_to_another_and_back() -> None:
    new = merge(OTHERS, WANTED).text
    old = merged(new, WANTED._replace(kubernetes=(1, 33)))
    assert "cacheType" not in ours(old.text)["tokenAttributes"] and "does not start" in old.changes[0]
    assert ours(merged(old.text).text) == ours(new)


@pytest.mark.parametrize("version", ["v1beta1", "v1alpha1"])
def test_older_types_have_no_tokens(version: str) -> None:
    result = merged(OTHERS.replace("kubelet.config.k8s.io/v1 ", f"kubelet.config.k8s.io/{version} "))
    assert parsed(result.text)["apiVersion"] == "kubelet.config.k8s.io/v1"
    assert result.changes[0].startswith("apiVersion")


ODD_LAYOUTS = {
    "marks": "---\n" + OTHERS + "...\n",
    "directive": "%YAML 1.1\n---\n" + OTHERS,
    "byte order mark": "\ufeff" + OTHERS,
    "no newline at the end": RECIPE.rstrip("\n"),
    "a dash alone": RECIPE.replace("- name", "-\n  name"),
    "a comment behind the dash": RECIPE.replace("- name", "- # ours\n  name"),
    "an indented document": "  " + RECIPE.replace("\n", "\n  ").rstrip(" "),
    "flow over lines": "{\n  kind: CredentialProviderConfig,\n  apiVersion: kubelet.config.k8s.io/v1,\n"
    "  providers: [\n    {name: x, matchImages: [a.b],\n     defaultCacheDuration: 1s},\n  ]\n}\n",
    "ours in flow over lines": "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n"
    "  - {\n      name: 'crio-credential-provider', # the name\n      matchImages: [\n        quay.io, # one\n"
    "        nginx, # dead\n      ], # two\n    }\n",
    "a block of text": RECIPE.replace(NAME, "x") + "  env:\n  - name: A\n    value: |+\n      # no comment\n\n",
    "text over lines": RECIPE.replace('"mirror.internal.company.com/*"', '"mirror.\\\n      company.com"'),
    "trailing blanks": RECIPE.replace("\n", "  \n"),
    "tabs before comments": RECIPE.replace("\n", "\t# x\n"),
    "tabs for blanks": RECIPE.replace(": ", ":\t"),
    "empty values": "kind: CredentialProviderConfig\napiVersion: kubelet.config.k8s.io/v1\nproviders:\n- name: "
    "crio-credential-provider\n  args:\n  tokenAttributes: # none\n  matchImages:\n  env: []\n",
    "no providers in JSON": '{"kind":"CredentialProviderConfig","apiVersion":'
    '"kubelet.config.k8s.io/v1","providers":null}',
    "no providers in JSON over lines": '{\n\t"kind": "CredentialProviderConfig",\n\t"apiVersion": '
    '"kubelet.config.k8s.io/v1",\n\t"providers": null\n}\n',
    "no providers in flow": "{kind: CredentialProviderConfig, apiVersion: kubelet.config.k8s.io/v1, "
    "providers: ~} # why\n",
    "other types": RECIPE.partition("  matchImages")[0] + "  matchImages: text\n  args: |\n    --a\n"
    "  tokenAttributes: []\n  defaultCacheDuration: >-\n    10m\n  env:\n    A: b\n",
    "many that go": RECIPE.partition("- name")[0] + "- {a: 1, name: crio-credential-provider, b: 2, c: 3, "
    "args: ['--x', --y]}\n",
    "an anchor for itself": RECIPE.replace("name: ", "name: &n ") + "  env:\n  - {name: A, value: *n}\n",
    "explicit keys": "? kind\n: CredentialProviderConfig\n? apiVersion\n: kubelet.config.k8s.io/v1\n",
    "tags": RECIPE.replace('"10m"', '!!str "10m"'),
    "merged keys": OTHERS.replace("  - name:   ", "  - &base\n    name:   ").replace(
        "    # deeper", "  - <<: *base\n    name: crio-credential-provider\n    # deeper"
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", ODD_LAYOUTS.values(), ids=ODD_LAYOUTS)
def test_odd_layouts(text: str) -> None:
    result = merged(text)
    for comment in ("# ours", "# which", "# why", "# the name", "# one", "# two", "# none", "# the cloud"):
        assert (comment in text) <= (comment in result.text), result.text


SHARED = """\
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
  # ours comes first
  - name: crio-credential-provider
    matchImages: &images ["gcr.io"]
    apiVersion: &protocol credentialprovider.kubelet.k8s.io/v1
    defaultCacheDuration: &never 0s
  - name: other # theirs
    matchImages: *images
    apiVersion: *protocol
    defaultCacheDuration: *never
"""


def test_values_that_are_shared_by_anchors() -> None:
    result = merged(SHARED)
    assert ours(result.text)["matchImages"] == ["gcr.io", "docker.io", "*.corp.example"]
    assert others(parsed(result.text))[0]["matchImages"] == ["gcr.io"]
    assert "# ours comes first" in result.text and "# theirs" in result.text
    turned = SHARED.replace(f"name: {NAME}", "name: x").replace("name: other # theirs", f"name: {NAME} # ours")
    assert others(parsed(merged(turned).text))[0]["matchImages"] == ["gcr.io"]
    appended = merged(SHARED.replace(NAME, "first"))
    assert "&images" in appended.text and "*images" in appended.text


def test_overlaps_are_told_and_nothing_is_done_about_them() -> None:
    result = merge(OTHERS, Wanted((1, 34), ("*.dkr.ecr.eu-west-1.amazonaws.com/team", "docker.io")))
    assert result.overlaps == (
        ("ecr-credential-provider", "*.dkr.ecr.*.amazonaws.com", "*.dkr.ecr.eu-west-1.amazonaws.com/team"),
    )
    assert merged(OTHERS).overlaps == ()


def test_a_layout_that_nobody_can_edit_is_refused() -> None:
    text = RECIPE.partition("- name")[0] + "- &b\n  name: x\n  cache: 1\n- <<: *b\n  name: crio-credential-provider\n"
    with pytest.raises(ConfigError, match="cannot be edited safely"):
        merge(text, WANTED)


def test_comments_behind_what_goes_stay_where_they_are_and_others_stand_above_our_entry() -> None:
    head, entry, rest = (
        f"{OTHERS.partition('providers:')[0]}providers:\n",
        f"- name: {NAME}\n  matchImages: [a.b]\n",
        ("# the cloud's\n- name: ecr\n  matchImages: [c.d]\n# at the end\n"),
    )
    text = f"{head}{entry}  unknown:\n    a: 1 # inside\n{rest}"
    made = merged(text).text
    assert made.startswith(f"{head}# inside\n- name: {NAME}\n")
    assert made.endswith(f"\n{rest}")
    assert merged(f"{head}{rest}").text.endswith("requireServiceAccount: true\n# at the end\n")


@pytest.mark.parametrize("indent", [2, 4])
def test_indentation_is_that_of_the_file(indent: int) -> None:
    text = (
        f"kind: CredentialProviderConfig\napiVersion: kubelet.config.k8s.io/v1\nproviders:\n{' ' * indent}- name: x\n"
        f"{' ' * indent}  tokenAttributes:\n{' ' * (2 * indent + 2)}cacheType: Token\n"
    )
    made = merged(text).text
    assert made.startswith(text)
    assert f"\n{' ' * indent}  tokenAttributes:\n{' ' * (2 * indent + 2)}service" in made


def test_tabs_in_values_stay() -> None:
    text = OTHERS.replace('value: "1"', 'value: "a\tb"').replace("name:   ", "name:\t")
    assert yaml.safe_load(merge(text, WANTED).text)["providers"][0]["env"] == [{"name": "A", "value": "a\tb"}]


def test_what_would_lose_a_comment_of_others_is_refused() -> None:
    text = ODD_LAYOUTS["flow over lines"].replace("v1,", "v1, # which")
    assert "v1, # which" in merge(text, WANTED).text
    text = text.replace("v1, # which", "v1beta1, # which")
    with pytest.raises(ConfigError, match="the comment '# which' would be lost"):
        merge(text, WANTED)


def is_insertion(text: str, made: str) -> bool:
    """Whether one piece was added, and every byte stayed."""
    place = next((i for i, (a, b) in enumerate(zip(text, made, strict=False)) if a != b), len(text))
    return made.startswith(text[:place]) and made.endswith(text[place:])


@pytest.mark.parametrize(
    "text",
    [
        "kind: CredentialProviderConfig\napiVersion: kubelet.config.k8s.io/v1\nproviders:\n-   name:   x   # odd\n"
        "    matchImages: [ a.b ]\n    args:\n    - '-v'\n    # of x\n\n# the end\nextra:    {}\n",
        OTHERS,
        OTHERS.replace("\n", "\r\n"),
        ODD_LAYOUTS["marks"],
        ODD_LAYOUTS["a block of text"],
        ODD_LAYOUTS["no newline at the end"].replace(NAME, "x"),
        ODD_LAYOUTS["flow over lines"],
        '{"kind":"CredentialProviderConfig", "apiVersion":"kubelet.config.k8s.io/v1",\n "providers": '
        '[{"name":"x",  "matchImages":["a.b"]} ] , "x":1}',
    ],
)
def test_every_byte_of_others_stays(text: str) -> None:
    made = merge(text, WANTED).text
    assert is_insertion(text, made), made
    # Changed once more, nothing but our own lines differs.
    again = merge(made, WANTED._replace(audience="other")).text
    changed = [line for line in made.splitlines() if line not in again.splitlines()]
    assert all("serviceAccountTokenAudience" in line for line in changed) and len(changed) == 1


def test_faults_of_others_are_told_and_left() -> None:
    text = OTHERS.replace("    env:", "    cache: 1\n    tokenAttributes: {cacheType: Token}\n    env:") + "more: 1\n"
    result = merged(text, WANTED._replace(kubernetes=(1, 33)))
    assert len(result.notes) == 3
    twice = merge(OTHERS.replace("    # deeper", "  - name: ecr-credential-provider\n    # deeper"), WANTED)
    assert twice.notes == ("duplicate provider ecr-credential-provider, with which the kubelet does not start",)
    assert all("does not start" in note for note in result.notes)


BOMB = "a0: &a0 [x,x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (RECIPE + "---\n" + RECIPE, "line 11, column 1: a second YAML document"),
        ("kind: X\nproviders:\n\t- name: x\n", "line 3, column 1: YAML does not allow a tab here"),
        (RECIPE.replace("CredentialProviderConfig", "KubeletConfiguration"), "'KubeletConfiguration'"),
        ("a: 1\n", "it has no kind"),
        ("- a\n", "it has no kind"),
        ("text\n", "it has no kind"),
        ("null\n", "it has no kind"),
        ("{}\n", "it has no kind"),
        (RECIPE.replace("config.k8s.io/v1", "config.k8s.io/v2"), "not kubelet.config.k8s.io/v1"),
        (RECIPE + "kind: CredentialProviderConfig\n", "line 11: duplicate key 'kind'"),
        (RECIPE + RECIPE.partition("providers:\n")[2], "line 11: a second provider crio-credential-provider"),
        (RECIPE + "- just a text\n", "line 11: provider number 2 is not a mapping"),
        (RECIPE.partition("providers:")[0] + "providers: {a: b}\n", "providers is not a list"),
        ('{"kind": ', "line 1, column 10: not valid YAML"),
        ("a: [1, 2\n", "not valid YAML"),
        ("a: &x [*x]\n", "an alias inside its own anchor"),
        ("? [a]\n: b\n", "a key must be a string"),
        ("[" * 5000, "nested too deeply"),
        ("a: \x07\n", "the character #x0007 is not allowed"),
        ("x" * 2_000_000, "larger than 1 MiB"),
        (BOMB, "aliases expand to more than"),
    ],
)
def test_what_cannot_be_merged_into_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        merge(text, WANTED, name="/etc/config.yaml")
    assert said in str(caught.value)
    assert str(caught.value).startswith("/etc/config.yaml")


def test_an_entry_that_the_plugin_would_refuse_is_not_made() -> None:
    for args in (("--nonsense",), ("--secrets-from=all",), ("--secrets-from=pod", "--insecure-skip-tls-verify")):
        for text in ("", RECIPE, OTHERS):
            with pytest.raises(UsageError):
                merge(text, WANTED._replace(args=args))
    with pytest.raises(ConfigError, match="no image to match"):
        merge(OTHERS, WANTED._replace(match_images=()))
    with pytest.raises(ConfigError, match="no pattern of matchImages is left"):
        merge(RECIPE, WANTED._replace(match_images=()))


@pytest.mark.parametrize(
    ("text", "version"),
    [("1.33", (1, 33)), ("v1.34.2", (1, 34)), ("1.34+", (1, 34)), ("v1.36.0-rc.1+k3s1", (1, 36)), ("2.0", (2, 0))],
)
def test_versions(text: str, version: tuple[int, int]) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize("text", ["1.32", "1", "", "latest", "1.x", "1.34,1.35", "-1.34"])
def test_what_is_no_version_that_can_be(text: str) -> None:
    with pytest.raises(UsageError, match="--kubernetes"):
        parse_version(text)


# -- by the hundred ---------------------------------------------------------------------------------------------------

words = st.text("abcxyz", min_size=1, max_size=6)
values = st.one_of(words, st.sampled_from(["yes", "0", "1.5", "null", "a: b", "#x", "*a", "'", '"', "é", "- x", ""]))
patterns = st.sampled_from(["docker.io", "gcr.io", "*.gcr.io", "quay.io/team", "reg.corp:5000", "docker.io/*", "nginx"])
arguments = st.sampled_from(["--log-level=debug", "--secrets-from=pod", "--auth-dir", "/run/a", "--bogus", "x"])
durations = st.sampled_from(["0s", "0", "10m", "1h30m"])


@st.composite
def providers(draw: st.DrawFn, name: st.SearchStrategy[str]) -> dict[str, Any]:
    made: dict[str, Any] = {"name": draw(name)}
    for key, strategy in (
        ("matchImages", st.lists(patterns, max_size=4)),
        ("defaultCacheDuration", durations),
        ("apiVersion", st.just(ours_protocol())),
        ("args", st.lists(st.one_of(arguments, values), max_size=4)),
        ("env", st.lists(st.fixed_dictionaries({"name": words, "value": values}), max_size=2)),
        ("tokenAttributes", st.fixed_dictionaries({}, optional={
            "serviceAccountTokenAudience": values,
            "cacheType": st.sampled_from(["Token", "ServiceAccount"]),
            "requireServiceAccount": st.booleans(),
            "other": values,
        })),
        ("unknown", values),
    ):  # fmt: skip
        if draw(st.booleans()):
            made[key] = draw(strategy)
    keys = draw(st.permutations(list(made)))
    return {key: made[key] for key in keys}


@st.composite
def files(draw: st.DrawFn) -> str:
    listed = draw(st.lists(providers(words.map("p-{}".format)), max_size=3, unique_by=lambda one: str(one["name"])))
    if draw(st.booleans()):
        listed.insert(draw(st.integers(0, len(listed))), draw(providers(st.just(NAME))))
    if draw(st.booleans()) and len(listed) > 1 and "args" in listed[0]:
        # PyYAML writes what is one object as anchor and alias.
        listed[1]["args"] = listed[0]["args"]
    parts = {"apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig", "providers": listed}
    config = {key: parts[key] for key in draw(st.permutations(list(parts)))}
    how = draw(st.sampled_from(["json", "yaml", "flow", "mixed", "deep"]))
    if how == "json":
        return json.dumps(config, indent=draw(st.sampled_from([None, 2, 4, "\t"])))
    flow = {"flow": True, "mixed": None}.get(how, False)
    if how == "deep":
        text = deep(config)
    else:
        text = yaml.safe_dump(config, default_flow_style=flow, sort_keys=False, width=10_000, allow_unicode=True)
    if how in ("yaml", "deep", "mixed"):
        text = commented(draw, text)
    return text.replace("\n", "\r\n") if draw(st.booleans()) else text


def deep(config: Any) -> str:
    """Lists deeper than their keys, as people write them."""
    from ruamel.yaml import YAML

    tool = YAML()
    tool.indent(mapping=2, sequence=4, offset=2)
    tool.width = 10_000
    out = io.StringIO()
    tool.dump(json.loads(json.dumps(config)), out)
    return out.getvalue()


def commented(draw: st.DrawFn, text: str) -> str:
    lines = []
    for number, line in enumerate(text.splitlines()):
        before = draw(st.sampled_from([0, 0, 0, 1, 2]))
        lines += [f"{' ' * draw(st.integers(0, 8))}# comment {number}.{i}" for i in range(before)]
        lines += [""] * draw(st.sampled_from([0, 0, 0, 1]))
        lines.append(line + draw(st.sampled_from(["", "", f" # behind {number}"])))
    return "\n".join(lines) + "\n"


@settings(max_examples=4 * settings().max_examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=files(), minor=st.sampled_from([33, 34]), given_args=st.sampled_from([(), ("--auth-dir=/run/b",)]))
def test_twice_is_once_and_others_stay(text: str, minor: int, given_args: tuple[str, ...]) -> None:
    wanted = Wanted((1, minor), ("docker.io", "*.corp.example"), "", given_args)
    try:
        result = merge(text, wanted)
    except UsageError:
        # What is left of the arguments cannot be used together.
        return
    except ConfigError as error:
        # Left to a person: a list that ours and another's entry share by an anchor, a comment beside {} and [].
        assert "cannot be edited safely" in str(error)
        assert "&" in text or ("#" in text and re.search(r"[\[{][^\]}]", text))
        return
    before, after = parsed(text), parsed(result.text)
    assert others(after) == others(before)
    assert [p["name"] for p in after["providers"]][: len(before["providers"])] == [
        p["name"] for p in before["providers"]
    ]
    assert list(after) == list(before)
    assert faults({**after, "providers": [ours(result.text)]}, minor) == []
    again = merge(result.text, wanted)
    assert (again.text, again.changes) == (result.text, ())
    if not result.changes:
        assert result.text == text
    if "&" not in text and before["providers"] and len(others(before)) == len(before["providers"]):
        # What is not ours is not touched, but for white space: one piece was put in.
        text, made = without_space(text), without_space(result.text)
        head = next((i for i, (a, b) in enumerate(zip(text, made, strict=False)) if a != b), len(text))
        assert text[head:] == made[len(made) - len(text) + head :]
    if "&" not in text:
        kept = set(result.text.split())
        assert {word for word in text.split() if word.count(".") == 1 and word[0].isdigit()} <= kept


@pytest.mark.parametrize(
    ("refused", "kept"),
    (
        ("--secrets-from pod", "--secrets-from=pod"),
        ("-secrets-from=pod", "--secrets-from=pod"),
        ("--secrets-from='pod'", "--secrets-from=pod"),
        ("--mirror-registries=mirror.corp:5000", "--mirror-registry=mirror.corp:5000"),
        ("--mirror-registry=https://mirror.corp:5000/hub", "--mirror-registry=mirror.corp:5000/hub"),
        ("--secrets-from=pods", "--secrets-from=pod"),
        ("--deadline=soon", None),
        ("get-credentials", None),
    ),
)
def test_an_argument_that_the_plugin_refuses_is_taken_for_what_was_meant(refused: str, kept: str | None) -> None:
    entry = {"name": "crio-credential-provider", "args": [refused]}
    made, changes = update_entry(entry, Wanted((1, 34), ("docker.io",), ""))
    assert made.get("args") == ([kept] if kept else None)
    assert any(refused in change and (kept or "removed") in change for change in changes)


@pytest.mark.parametrize(
    "refused", ("--secrets-from=everywhere", "--mirror-registry=*.corp.example", "--auth-dir=auth", "--kubeconfig=~/c")
)
def test_an_argument_that_limits_credentials_is_not_taken_out(refused: str) -> None:
    with pytest.raises(UsageError, match=re.escape(refused)):
        update_entry({"name": "crio-credential-provider", "args": [refused]}, Wanted((1, 34), ("docker.io",), ""))


def test_variables_of_the_plugin_are_not_taken_out() -> None:
    entry = {"name": "crio-credential-provider", "env": [{"name": "X", "value": 1}]}
    made, _ = update_entry(entry, Wanted((1, 34), ("docker.io",), ""))
    assert made["env"] == [{"name": "X", "value": "1"}]
    entry["env"] = [{"name": "CRIO_CREDENTIAL_PROVIDER_SECRETS_FROM", "valeu": "pod"}]
    with pytest.raises(UsageError, match="variables of the plugin"):
        update_entry(entry, Wanted((1, 34), ("docker.io",), ""))


# -- another provider that writes the same auth files ------------------------------------------------------------------

DOUBLE = """\
  # Of the other provider.
  - name: go-provider   # by hand
    matchImages: [docker.io, quay.io]
    defaultCacheDuration: 1s
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    # in it
    tokenAttributes: {serviceAccountTokenAudience: a, cacheType: Token, requireServiceAccount: true}
    # at its end

"""


def with_double(place: int) -> str:
    """`OTHERS` with one more provider, first or last."""
    head, last = OTHERS.split("  # The cloud's own.\n")
    cloud, end = last.split("  # as deep as the dash\n")
    entries = ["  # The cloud's own.\n" + cloud, DOUBLE]
    return head + "".join(entries if place else reversed(entries)) + "  # as deep as the dash\n" + end


@pytest.mark.parametrize("place", [0, 1], ids=["first", "last"])
def test_a_double_goes_and_nothing_else_of_others(place: int) -> None:
    text = with_double(place)
    merged = merge(text, WANTED, doubles=["go-provider", "absent"])
    assert "removed the provider go-provider" in merged.changes
    assert ours(merged.text)["matchImages"] == ["docker.io", "*.corp.example", "quay.io"]
    left = text
    for line in DOUBLE.splitlines(keepends=True)[1:-1]:
        left = left.replace(line, "")
    # Every line that was there and is not the entry's is there, in its order.
    lines = iter(merged.text.splitlines())
    assert all(line in lines for line in left.splitlines())
    assert "go-provider" not in merged.text and faults(parsed(merged.text), 34) == []
    assert merge(merged.text, WANTED, doubles=["go-provider"]).changes == ()


def test_a_double_for_other_images_stays() -> None:
    text = with_double(1).replace("[docker.io, quay.io]", "[quay.io]")
    merged = merge(text, WANTED, doubles=["go-provider"])
    assert "go-provider" in merged.text and merged.changes == (f"added the provider {NAME}",)


def test_a_double_alone_in_the_file() -> None:
    text = f"kind: CredentialProviderConfig\napiVersion: kubelet.config.k8s.io/v1\nproviders:\n{DOUBLE}"
    merged = merge(text, WANTED, doubles=["go-provider"])
    assert [entry["name"] for entry in parsed(merged.text)["providers"]] == [NAME]
