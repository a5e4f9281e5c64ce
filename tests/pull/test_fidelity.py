"""From a namespace's secrets to CRI-O's look-up: each pull source gets exactly the credential that it should.

The first part has a test for each point in which the reference provider falls short (docs/reference/registries.md, 11),
numbered as there; the second goes through what else decides who gets what.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from crio_credential_provider.errors import ConfigError
from crio_credential_provider.kubernetes import credentialprovider
from node import NGINX
from pulls import Site, login, raw_secret, secret

MIRROR = """
[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "mirror.corp:5000/hub"
"""
AT_MIRROR = "mirror.corp:5000/hub/library/nginx"

USER = login("team", "pw")
TEAM = "team:pw"
OTHER = login("other", "pw2")


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/op")


def table(prefix: str, location: str, *mirrors: str, extra: str = "") -> str:
    lines = ["[[registry]]", f'prefix = "{prefix}"', f'location = "{location}"', extra]
    for mirror in mirrors:
        lines += ["[[registry.mirror]]", f'location = "{mirror}"']
    return "\n".join(lines) + "\n"


# -- where the reference provider falls short -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        "https://index.docker.io/v1/",
        "https://index.docker.io/v2/",
        "index.docker.io",
        "docker.io",
        "registry-1.docker.io",
        "https://registry-1.docker.io",
        "https://docker.io/anything",
    ],
)
def test_11_1_docker_hub_has_many_names_in_secrets(tmp_path: Path, key: str) -> None:
    conf = table("registry.corp/hub", "docker.io")
    pull = Site(tmp_path, conf=conf, secrets=[secret("hub", {key: USER})]).pull("registry.corp/hub/team/app")
    assert pull.logins == {"docker.io/team/app": TEAM}
    assert pull.keys == ["docker.io/team/app"]


@pytest.mark.parametrize(
    "key",
    [
        "https://mirror.corp:5000/v1/",
        "https://mirror.corp:5000/v2/",
        "https://mirror.corp:5000/",
        "http://mirror.corp:5000",
    ],
)
def test_11_1_a_key_with_a_scheme_counts_for_its_host(tmp_path: Path, key: str) -> None:
    pull = Site(tmp_path, conf=MIRROR, secrets=[secret("creds", {key: USER})]).pull()
    assert pull.logins == {AT_MIRROR: TEAM, NGINX: None}
    assert pull.keys == [AT_MIRROR]


@pytest.mark.parametrize("key", [AT_MIRROR, "mirror.corp:5000/hub/library", "mirror.corp:5000/hub", "mirror.corp:5000"])
def test_11_2_a_key_may_lie_deeper_than_the_mirror(tmp_path: Path, key: str) -> None:
    pull = Site(tmp_path, conf=MIRROR, secrets=[secret("creds", {key: USER})]).pull()
    assert pull.logins == {AT_MIRROR: TEAM, NGINX: None}


def test_11_2_the_deepest_key_wins_whichever_secret_holds_it(tmp_path: Path) -> None:
    shallow, deep = {"mirror.corp:5000": OTHER}, {"mirror.corp:5000/hub/library": USER}
    for auths in ((shallow, deep), (deep, shallow)):
        secrets = [secret(name, entries) for name, entries in zip("ab", auths, strict=True)]
        assert Site(tmp_path, conf=MIRROR, secrets=secrets).pull().login(AT_MIRROR) == TEAM


def test_11_2_a_key_for_another_repository_is_not_used(tmp_path: Path) -> None:
    auths = {"mirror.corp:5000/hub/other": USER, "mirror.corp:5000/hu": USER, f"{AT_MIRROR}/deeper": USER}
    pull = Site(tmp_path, conf=MIRROR, secrets=[secret("creds", auths)]).pull()
    assert pull.auth_file is None


def test_11_3_username_and_password_count_without_auth(tmp_path: Path) -> None:
    entry = {"username": "team", "password": "pw"}
    pull = Site(tmp_path, conf=MIRROR, secrets=[secret("creds", {"mirror.corp:5000": entry})]).pull()
    assert pull.login(AT_MIRROR) == TEAM


HOLLOW = [
    {},
    {"auth": ""},
    {"auth": "Og=="},
    {"username": ""},
    {"email": "x@y"},
    {"auth": None},
    {"auth": "bm8gY29sb24="},
]


@pytest.mark.parametrize("hollow", HOLLOW, ids=json.dumps)
def test_11_3_an_entry_without_a_credential_hides_nothing(tmp_path: Path, hollow: Any) -> None:
    auths = {"mirror.corp:5000/hub": hollow, "mirror.corp:5000": USER}
    pull = Site(tmp_path, conf=MIRROR, secrets=[secret("creds", auths)]).pull()
    assert pull.login(AT_MIRROR) == TEAM
    assert "creds: its entry 'mirror.corp:5000/hub'" in pull.skipped


@pytest.mark.parametrize("hollow", HOLLOW, ids=json.dumps)
def test_11_3_an_entry_without_a_credential_does_not_replace_the_nodes(tmp_path: Path, hollow: Any) -> None:
    secrets = [secret("creds", {"mirror.corp:5000": hollow, "docker.io": USER})]
    node_file = {"auths": {"mirror.corp:5000": login("node", "npw")}}
    pull = Site(tmp_path, conf=MIRROR, secrets=secrets, node_file=node_file).pull()
    assert pull.logins == {AT_MIRROR: "node:npw", NGINX: TEAM}


def test_11_4_an_identity_token_of_a_secret_is_kept(tmp_path: Path) -> None:
    for entry in ({"identitytoken": "tok"}, {"identitytoken": "tok", **USER}):
        pull = Site(tmp_path, conf=MIRROR, secrets=[secret("creds", {"mirror.corp:5000": entry})]).pull()
        assert pull.login(AT_MIRROR) == "tok", entry


def test_11_4_an_identity_token_of_the_global_file_is_kept(tmp_path: Path) -> None:
    node_file = {"auths": {"docker.io": {**login("node", "npw"), "identitytoken": "node-token"}}}
    secrets = [secret("creds", {"mirror.corp:5000": USER})]
    pull = Site(tmp_path, conf=MIRROR, secrets=secrets, node_file=node_file).pull()
    assert pull.logins == {AT_MIRROR: TEAM, NGINX: "node-token"}


def test_11_4_cred_helpers_of_the_global_file_stay_for_hosts_without_a_namespace_credential(tmp_path: Path) -> None:
    node_file = {"credHelpers": {"docker.io": "ecr", "mirror.corp:5000": "ecr", "elsewhere.example": "gcr"}}
    secrets = [secret("creds", {"mirror.corp:5000": USER})]
    pull = Site(tmp_path, conf=MIRROR, secrets=secrets, node_file=node_file).pull()
    # "error helper" is CRI-O asking the helper program, which no test machine has.
    assert pull.logins == {AT_MIRROR: TEAM, NGINX: "error helper"}
    assert pull.auth_file is not None
    assert json.loads(pull.auth_file)["credHelpers"] == {"docker.io": "ecr"}


def test_11_5_a_secret_for_the_host_goes_before_a_deeper_key_of_the_global_file(tmp_path: Path) -> None:
    node_file = {"auths": {key: login("node", "npw") for key in (AT_MIRROR, "mirror.corp:5000/hub", "docker.io")}}
    secrets = [secret("creds", {"mirror.corp:5000": USER})]
    pull = Site(tmp_path, conf=MIRROR, secrets=secrets, node_file=node_file).pull()
    assert pull.logins == {AT_MIRROR: TEAM, NGINX: "node:npw"}


@pytest.mark.parametrize(
    "key",
    [
        "mirror.corp",
        "mirror",
        "m",
        "",
        "mirror.corp:500",
        "mirror.corp:50000",
        "MIRROR.corp:5000",
        "corp:5000",
        "*",
        "*:5000",
    ],
)
def test_11_6_a_key_ends_at_a_boundary(tmp_path: Path, key: str) -> None:
    pull = Site(tmp_path, conf=MIRROR, secrets=[secret("creds", {key: USER})]).pull()
    assert pull.auth_file is None
    assert pull.resolution.reason.startswith("no pull secret of namespace team-gamma has a credential")


@pytest.mark.parametrize(
    "key", ["*.corp:5000", "mirror.*:5000", "m*r.corp:5000", "*.*:5000", "*.corp:5000/hub", "https://*.corp:5000"]
)
def test_11_6_globs_in_hosts_match_label_by_label(tmp_path: Path, key: str) -> None:
    pull = Site(tmp_path, conf=MIRROR, secrets=[secret("creds", {key: USER})]).pull()
    assert pull.logins == {AT_MIRROR: TEAM, NGINX: None}
    assert pull.keys == [AT_MIRROR]


@pytest.mark.parametrize("key", ["*.corp", "*corp:5000", "*.*.corp:5000", "*.corp:5000/other", "mirror.corp:*"])
def test_11_6_globs_match_no_more_than_that(tmp_path: Path, key: str) -> None:
    assert Site(tmp_path, conf=MIRROR, secrets=[secret("creds", {key: USER})]).pull().auth_file is None


@pytest.mark.parametrize("key", ["mirror.corp:5000", "https://mirror.corp:5000/v2/"])
def test_11_6_a_glob_is_the_least_specific_of_all(tmp_path: Path, key: str) -> None:
    secrets = [secret("a-glob", {"*.corp:5000/hub": OTHER}), secret("b-exact", {key: USER})]
    assert Site(tmp_path, conf=MIRROR, secrets=secrets).pull().login(AT_MIRROR) == TEAM


def test_11_7_nothing_that_fits_and_no_global_file_is_an_answer_and_no_error(tmp_path: Path) -> None:
    pull = Site(tmp_path, conf=MIRROR, secrets=[secret("creds", {"quay.io": USER})]).pull()
    assert (pull.auth_file, pull.asked) == (None, 1)
    assert "no pull secret of namespace team-gamma" in pull.resolution.reason


def test_11_8_another_location_without_mirrors_is_a_source(tmp_path: Path) -> None:
    conf = table("quay.io/team", "harbor.corp/quay")
    pull = Site(tmp_path, conf=conf, secrets=[secret("creds", {"harbor.corp/quay": USER})]).pull("quay.io/team/app")
    assert pull.logins == {"harbor.corp/quay/app": TEAM}


BY_KIND = """
[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "digests.corp/hub"
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "tags.corp/hub"
pull-from-mirror = "tag-only"
[[registry.mirror]]
location = "all.corp/hub"
pull-from-mirror = "all"
"""


def test_11_9_one_file_serves_pulls_by_digest_and_by_tag(tmp_path: Path) -> None:
    auths = {host: login(host[:3], "pw") for host in ("digests.corp", "tags.corp", "all.corp")}
    pull = Site(tmp_path, conf=BY_KIND, secrets=[secret("creds", auths)]).pull()
    assert pull.logins == {
        "digests.corp/hub/library/nginx": "dig:pw",
        "tags.corp/hub/library/nginx": "tag:pw",
        "all.corp/hub/library/nginx": "all:pw",
        NGINX: None,
    }
    assert [source.kinds for source in pull.resolution.sources] == [
        ("digest",),
        ("tag",),
        ("tag", "digest"),
        ("tag", "digest"),
    ]


def test_11_9_mirror_by_digest_only_leaves_tags_to_the_registry_itself(tmp_path: Path) -> None:
    conf = table("docker.io", "docker.io", "mirror.corp/hub", extra="mirror-by-digest-only = true")
    pull = Site(tmp_path, conf=conf, secrets=[secret("creds", {"mirror.corp": USER})]).pull()
    assert pull.logins == {"mirror.corp/hub/library/nginx": TEAM, NGINX: None}
    assert [source.kinds for source in pull.resolution.sources] == [("digest",), ("tag", "digest")]


def test_11_9_a_blocked_registry_is_still_pulled_from_its_mirrors(tmp_path: Path) -> None:
    conf = table("docker.io", "docker.io", "mirror.corp:5000/hub", extra="blocked = true")
    secrets = [secret("creds", {"mirror.corp:5000": USER, "docker.io": OTHER})]
    pull = Site(tmp_path, conf=conf, secrets=secrets).pull()
    # No credential for the source that CRI-O will not contact.
    assert pull.logins == {AT_MIRROR: TEAM, NGINX: None}


def test_11_9_a_mirror_under_another_blocked_table_gets_nothing(tmp_path: Path) -> None:
    conf = MIRROR + table("*.corp", "", extra="blocked = true").replace('location = ""\n', "")
    pull = Site(tmp_path, conf=conf, secrets=[secret("creds", {"mirror.corp:5000": USER})]).pull()
    assert (pull.auth_file, pull.asked) == (None, 0)
    assert "blocked" in pull.resolution.reason


def test_11_9_a_location_that_makes_no_reference_is_told_where_it_fails_every_pull(tmp_path: Path) -> None:
    conf = table("docker.io", "docker.io", "mirror.corp:5000/hub", "no-dot/hub")
    site = Site(tmp_path, conf=conf, secrets=[secret("creds", {"mirror.corp:5000": USER})])
    with pytest.raises(ConfigError, match=r"'no-dot/hub'.*'docker.io/no-dot/hub/library/nginx.*fails every pull"):
        site.pull()


@pytest.mark.parametrize(("kind", "other"), [("digest", "tag"), ("tag", "digest")])
def test_11_9_a_location_that_fails_one_kind_of_reference_leaves_the_other(
    tmp_path: Path, kind: str, other: str
) -> None:
    conf = table("docker.io", "docker.io", "mirror.corp:5000/hub", "no-dot/hub") + f'pull-from-mirror = "{kind}-only"\n'
    pull = Site(tmp_path, conf=conf, secrets=[secret("creds", {"mirror.corp:5000": USER})]).pull()
    assert pull.logins == {AT_MIRROR: TEAM, NGINX: None}
    assert {source.kinds for source in pull.resolution.sources} == {(other,)}
    assert [text[: text.index(":")] for text in pull.resolution.warnings] == [f"pulls by {kind} will fail"]


def test_11_9_without_containers_auth_json_no_file_is_written_that_crio_would_not_read(tmp_path: Path) -> None:
    secrets = [secret("creds", {"mirror.corp:5000": USER})]
    pull = Site(tmp_path, conf='credential-helpers = ["ecr"]\n' + MIRROR, secrets=secrets).pull()
    assert (pull.auth_file, pull.asked) == (None, 0)
    assert "containers-auth.json" in pull.resolution.reason

    listed = 'credential-helpers = ["ecr", "containers-auth.json"]\n'
    assert Site(tmp_path, conf=listed + MIRROR, secrets=secrets).pull().login(AT_MIRROR) == TEAM


def test_11_9_an_alias_is_a_further_source(tmp_path: Path) -> None:
    conf = '[aliases]\nnginx = "harbor.corp/apps/nginx"\n'
    pull = Site(tmp_path, conf=conf, secrets=[secret("creds", {"harbor.corp/apps": USER})]).pull()
    assert pull.logins == {NGINX: None, "harbor.corp/apps/nginx": TEAM}
    assert [source.short_name for source in pull.resolution.sources] == ["", "nginx"]


def test_11_9_an_alias_goes_through_the_mirrors_of_its_target(tmp_path: Path) -> None:
    conf = '[aliases]\nnginx = "quay.io/apps/nginx"\n' + table("quay.io", "quay.io", "mirror.corp:5000/quay")
    pull = Site(tmp_path, conf=conf, secrets=[secret("creds", {"mirror.corp:5000": USER})]).pull()
    assert pull.logins == {NGINX: None, "mirror.corp:5000/quay/apps/nginx": TEAM, "quay.io/apps/nginx": None}


@pytest.mark.parametrize("hosts", [["one.corp"], ["one.corp", "two.corp:5000"]])
def test_11_9_unqualified_search_registries_are_further_sources(tmp_path: Path, hosts: list[str]) -> None:
    conf = f"unqualified-search-registries = {json.dumps(hosts)}\n"
    pull = Site(tmp_path, conf=conf, secrets=[secret("creds", dict.fromkeys(hosts, USER))]).pull()
    # The pod said nginx or library/nginx: both reach the plugin as the same request.
    names = [f"{host}/{path}" for path in ("nginx", "library/nginx") for host in hosts]
    assert pull.logins == {NGINX: None, **dict.fromkeys(names, TEAM)}
    assert [s.short_name for s in pull.resolution.sources[1:]] == [name.partition("/")[2] for name in names]


def test_11_9_a_short_name_with_a_path_is_completed_as_it_stands(tmp_path: Path) -> None:
    conf = 'unqualified-search-registries = ["one.corp"]\n'
    pull = Site(tmp_path, conf=conf, secrets=[secret("creds", {"one.corp": USER})]).pull("docker.io/team/app")
    assert pull.logins == {"docker.io/team/app": None, "one.corp/team/app": TEAM}


def test_11_9_only_names_of_docker_hub_can_have_been_short(tmp_path: Path) -> None:
    conf = 'unqualified-search-registries = ["one.corp"]\n[aliases]\nnginx = "harbor.corp/apps/nginx"\n'
    pull = Site(tmp_path, conf=conf, secrets=[secret("creds", {"one.corp": USER})]).pull("quay.io/library/nginx")
    assert list(pull.logins) == ["quay.io/library/nginx"]
    assert (pull.auth_file, pull.asked) == (None, 0)


def test_11_9_the_answer_holds_no_user_name_that_crio_would_put_before_the_file(tmp_path: Path) -> None:
    # Credentials of the CRI request go before the file for every source on the image's own host (8).
    answer = json.loads(credentialprovider.dumps(credentialprovider.pull_record(NGINX)))
    assert answer["auth"] == {NGINX: {"username": "", "password": ""}}


HOME_DROP_INS = "home/op/.config/containers/registries.conf.d"
DROP_INS = "etc/containers/registries.conf.d"
EMPTY = "# nothing\n"


@pytest.mark.parametrize(
    ("files", "has_mirror"),
    [
        ({f"{DROP_INS}/10-mirror.conf": MIRROR}, True),  # the main file is missing
        ({f"{DROP_INS}/10-mirror.conf~": MIRROR}, False),
        ({f"{HOME_DROP_INS}/10-mirror.conf": MIRROR}, True),
        ({"home/op/.config/containers/registries.conf": MIRROR}, True),
        # A main file at home takes the drop-ins of /etc out of the search.
        ({"home/op/.config/containers/registries.conf": EMPTY, f"{DROP_INS}/10-mirror.conf": MIRROR}, False),
        ({"usr/share/containers/registries.conf.d/10-mirror.conf": MIRROR}, False),
        ({"etc/containers/registries.rootful.conf.d/10-mirror.conf": MIRROR}, False),
        # No hiding by base name: both are read, the directory at home last.
        ({f"{DROP_INS}/a.conf": MIRROR, f"{HOME_DROP_INS}/a.conf": EMPTY}, True),
        ({f"{DROP_INS}/z.conf": MIRROR, f"{HOME_DROP_INS}/a.conf": table("docker.io", "docker.io")}, False),
    ],
)
def test_11_10_the_files_are_those_that_crio_reads(tmp_path: Path, files: dict[str, str], has_mirror: bool) -> None:
    pull = Site(tmp_path, files=files, secrets=[secret("creds", {"mirror.corp:5000": USER})]).pull()
    assert pull.logins == ({AT_MIRROR: TEAM, NGINX: None} if has_mirror else {NGINX: None})


def test_11_10_a_symlinked_drop_in_directory_is_not_read(tmp_path: Path) -> None:
    site = Site(tmp_path, files={"elsewhere/10-mirror.conf": MIRROR, "etc/containers/registries.conf": EMPTY})
    (tmp_path / DROP_INS).symlink_to(tmp_path / "elsewhere")
    assert list(site.pull().logins) == [NGINX]


def test_11_10_a_main_file_of_version_1_is_converted(tmp_path: Path) -> None:
    conf = '[registries.search]\nregistries = ["one.corp"]\n[registries.block]\nregistries = ["docker.io"]\n'
    pull = Site(tmp_path, conf=conf, secrets=[secret("creds", {"one.corp": USER})]).pull()
    assert pull.logins == {NGINX: None, "one.corp/nginx": TEAM, "one.corp/library/nginx": TEAM}
    assert [source.blocked for source in pull.resolution.sources] == [True, False, False]


def test_11_10_the_drop_in_directory_can_be_named_by_itself(tmp_path: Path) -> None:
    files = {
        "custom/registries.conf": EMPTY,
        "custom/d/10.conf": MIRROR,
        f"{DROP_INS}/10.conf": table("docker.io", "x.corp"),
    }
    site = Site(tmp_path, files=files, secrets=[secret("creds", {"mirror.corp:5000": USER})])
    main = f"--registries-conf={tmp_path}/custom/registries.conf"
    assert list(site.pull(NGINX, main, f"--registries-conf-dir={tmp_path}/custom/d").logins) == [AT_MIRROR, NGINX]
    assert list(site.pull(NGINX, main).logins) == ["x.corp/library/nginx"]


def test_11_11_no_answer_is_cached(tmp_path: Path) -> None:
    for auth in ({}, credentialprovider.pull_record(NGINX), {NGINX: ("user", "password")}):
        answer = json.loads(credentialprovider.dumps(auth))
        assert (answer["cacheKeyType"], answer["cacheDuration"]) == ("Image", "0s")


# -- --mirror-registry ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "served"),
    [
        (["mirror.corp:5000"], True),
        (["mirror.corp:5000/hub"], True),
        (["mirror.corp:5000/hub/"], True),
        ([AT_MIRROR], True),
        (["mirror.corp:5000/hub/library/nginx/deeper"], False),
        (["mirror.corp:5000/hu"], False),
        (["mirror.corp"], False),
        (["mirror.corp:500"], False),
        (["mirror.corp:50000"], False),
        (["corp:5000"], False),
        (["other.corp", "mirror.corp:5000/hub"], True),
    ],
)
def test_mirror_registry_matches_at_boundaries(tmp_path: Path, flags: list[str], served: bool) -> None:
    site = Site(tmp_path, conf=MIRROR, secrets=[secret("creds", {"mirror.corp:5000": USER, "docker.io": OTHER})])
    pull = site.pull(NGINX, *(f"--mirror-registry={flag}" for flag in flags))
    # The image's own registry is not named, so that its credential stays in the secret.
    assert pull.logins == {AT_MIRROR: TEAM if served else None, NGINX: None}
    assert pull.asked == served


@pytest.mark.parametrize(
    "host", ["mirror.corp:5000", "mirror.corp.evil", "evil-mirror.corp", "xmirror.corp", "a.mirror.corp"]
)
def test_mirror_registry_names_one_host(tmp_path: Path, host: str) -> None:
    site = Site(tmp_path, conf=table("docker.io", "docker.io", host), secrets=[secret("creds", {host: USER})])
    assert site.pull(NGINX).login(f"{host}/library/nginx") == TEAM
    pull = site.pull(NGINX, "--mirror-registry=mirror.corp")
    assert (pull.auth_file, pull.asked) == (None, 0)
    assert "--mirror-registry mirror.corp" in pull.resolution.reason


def test_mirror_registry_serves_images_that_lie_there_themselves(tmp_path: Path) -> None:
    site = Site(tmp_path, secrets=[secret("creds", {"mirror.corp:5000": USER})])
    image = "mirror.corp:5000/team/app"
    pull = site.pull(image, "--mirror-registry=mirror.corp:5000/team")
    assert pull.logins == {image: TEAM}
    assert site.pull(image).asked == 0


def test_a_source_outside_mirror_registry_keeps_the_nodes_credential(tmp_path: Path) -> None:
    node_file = {"auths": {"docker.io": login("node", "npw")}}
    secrets = [secret("creds", {"mirror.corp:5000": USER, "docker.io": OTHER})]
    site = Site(tmp_path, conf=MIRROR, secrets=secrets, node_file=node_file)
    pull = site.pull(NGINX, "--mirror-registry=mirror.corp:5000")
    assert pull.logins == {AT_MIRROR: TEAM, NGINX: "node:npw"}


# -- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_of_equal_keys_the_earlier_secret_by_name_wins(tmp_path: Path, names: str) -> None:
    entries = {"a": USER, "b": OTHER}
    secrets = [secret(name, {"mirror.corp:5000": entries[name]}) for name in names]
    pull = Site(tmp_path, conf=MIRROR, secrets=secrets).pull()
    assert pull.login(AT_MIRROR) == TEAM
    assert pull.resolution.selection is not None
    assert [choice.secret for choice in pull.resolution.selection.choices] == ["a"]


def test_a_dockercfg_secret_counts_like_the_others(tmp_path: Path) -> None:
    content = json.dumps({"mirror.corp:5000": USER}).encode()
    pull = Site(tmp_path, conf=MIRROR, secrets=[raw_secret("old", content, "kubernetes.io/dockercfg")]).pull()
    assert pull.login(AT_MIRROR) == TEAM


@pytest.mark.parametrize("bad", ["%%%", "dTpw=", "dTp3\x00", "d T p w", "dTpwé"])
def test_an_auth_that_is_not_base64_is_skipped_with_a_reason(tmp_path: Path, bad: str) -> None:
    auths = {"mirror.corp:5000/hub": {"auth": bad}, "mirror.corp:5000": USER}
    pull = Site(tmp_path, conf=MIRROR, secrets=[secret("creds", auths)]).pull()
    assert pull.login(AT_MIRROR) == TEAM
    assert pull.skipped == "creds: its entry 'mirror.corp:5000/hub' has an auth that is not base64"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"hunter2", "not valid JSON"),
        (b'{"auths": []}', "auths must be a JSON object"),
        (b'{"auths": {"h": {"auth": 5}}}', "must have strings as values"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_a_broken_secret_is_skipped_and_stops_no_other(tmp_path: Path, content: bytes, reason: str) -> None:
    secrets = [raw_secret("a-broken", content), secret("b-good", {"mirror.corp:5000": USER})]
    pull = Site(tmp_path, conf=MIRROR, secrets=secrets).pull()
    assert pull.login(AT_MIRROR) == TEAM
    assert "a-broken: its .dockerconfigjson cannot be used" in pull.skipped
    assert reason in pull.skipped
    assert "hunter2" not in pull.skipped


def test_data_that_is_not_base64_is_skipped(tmp_path: Path) -> None:
    broken = secret("a-broken", {})
    broken["data"][".dockerconfigjson"] = "%%%"
    pull = Site(tmp_path, conf=MIRROR, secrets=[broken, secret("b", {"mirror.corp:5000": USER})]).pull()
    assert (pull.login(AT_MIRROR), pull.skipped) == (TEAM, "a-broken: its .dockerconfigjson is not base64")


def test_a_secret_of_another_namespace_or_type_is_not_used(tmp_path: Path) -> None:
    foreign, opaque = (secret(name, {"mirror.corp:5000": USER}) for name in ("foreign", "opaque"))
    foreign["metadata"]["namespace"] = "team-beta"
    opaque["type"] = "Opaque"
    pull = Site(tmp_path, conf=MIRROR, secrets=[foreign, opaque]).pull()
    assert pull.auth_file is None
    assert "foreign: it is in another namespace" in pull.skipped
    assert "opaque: it is of type 'Opaque'" in pull.skipped


# -- the node's own file ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("node_file", [b"", b"not json", b'{"auths": {"x": {"auth": 1}}}', b"\xff\xfe"])
def test_a_broken_global_file_does_not_take_the_secrets_with_it(tmp_path: Path, node_file: bytes) -> None:
    pull = Site(
        tmp_path, conf=MIRROR, secrets=[secret("creds", {"mirror.corp:5000": USER})], node_file=node_file
    ).pull()
    assert pull.logins == {AT_MIRROR: TEAM, NGINX: None}
    assert "is ignored" in pull.resolution.warnings[0]


def test_a_bad_entry_of_the_global_file_is_the_answer_for_its_source_alone(tmp_path: Path) -> None:
    # CRI-O takes the first key that is present and would fail there; a source without a credential is no worse.
    node_file = {"auths": {"docker.io": {"auth": "%%%"}}}
    pull = Site(
        tmp_path, conf=MIRROR, secrets=[secret("creds", {"mirror.corp:5000": USER})], node_file=node_file
    ).pull()
    assert pull.logins == {AT_MIRROR: TEAM, NGINX: None}
    assert pull.resolution.selection is not None
    assert "is not base64" in pull.resolution.selection.unserved[0].reason


def test_without_a_credential_of_the_namespace_crio_keeps_the_nodes_file(tmp_path: Path) -> None:
    node_file = {"auths": {"mirror.corp:5000": login("node", "npw")}, "credHelpers": {"docker.io": "ecr"}}
    pull = Site(tmp_path, conf=MIRROR, secrets=[secret("creds", {"quay.io": USER})], node_file=node_file).pull()
    assert pull.auth_file is None
    assert pull.logins == {AT_MIRROR: "node:npw", NGINX: "error helper"}


# -- nothing to ask for -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "conf", [None, "", table("quay.io", "quay.io", "mirror.corp:5000"), table("docker.io", "docker.io")]
)
def test_an_image_that_nothing_sends_elsewhere_makes_no_api_call(tmp_path: Path, conf: str | None) -> None:
    pull = Site(tmp_path, conf=conf, secrets=[secret("creds", {"docker.io": USER})]).pull()
    assert (pull.auth_file, pull.asked, list(pull.logins)) == (None, 0, [NGINX])
    assert pull.resolution.reason == "no table of registries.conf sends this image to a mirror or another location"


def test_without_a_token_no_api_call_is_made(tmp_path: Path) -> None:
    pull = Site(tmp_path, conf=MIRROR, secrets=[secret("creds", {"mirror.corp:5000": USER})]).pull(token="")
    assert (pull.auth_file, pull.asked) == (None, 0)
    assert "no service account token" in pull.resolution.reason


# -- the whole way, with everything at once ---------------------------------------------------------------------------


def test_several_mirrors_each_with_its_own_credential(tmp_path: Path) -> None:
    conf = table("*.apps.example", "", "down.corp/a", "mirror.corp:5000/b").replace('location = ""\n', "", 1)
    secrets = [
        secret("deep", {"mirror.corp:5000/b/team": login("deep", "1")}),
        secret("hosts", {"mirror.corp:5000": login("host", "2"), "https://down.corp/v2/": login("down", "3")}),
        secret("origin", {"*.apps.example": login("glob", "4")}),
    ]
    pull = Site(tmp_path, conf=conf, secrets=secrets).pull("a.apps.example/team/app")
    assert pull.logins == {
        "down.corp/a/team/app": "down:3",
        "mirror.corp:5000/b/team/app": "deep:1",
        "a.apps.example/team/app": "glob:4",
    }


def test_a_password_reaches_crio_byte_for_byte(tmp_path: Path) -> None:
    password = "p:ä\n\"'\\\u20ac "
    for entry in (login("ü", password), {"username": "ü", "password": password}):
        pull = Site(tmp_path, conf=MIRROR, secrets=[secret("creds", {"mirror.corp:5000": entry})]).pull()
        assert pull.login(AT_MIRROR) == f"ü:{password}"
    raw = base64.b64encode(b"u\xff:\xfe\x00pw\x00").decode()
    pull = Site(tmp_path, conf=MIRROR, secrets=[secret("creds", {"mirror.corp:5000": {"auth": raw}})]).pull()
    assert pull.auth_file is not None
    auth = json.loads(pull.auth_file)["auths"][AT_MIRROR]["auth"]
    assert base64.b64decode(auth) == b"u\xff:\xfe\x00pw"
