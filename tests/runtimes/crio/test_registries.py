"""What the vectors do not ask of registries.conf: kinds of references, short names, reading, errors."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from crio_credential_provider.errors import ConfigError
from crio_credential_provider.images import reference
from crio_credential_provider.platform import parsecache
from crio_credential_provider.platform.parsecache import ParseCache
from crio_credential_provider.pull import decision
from crio_credential_provider.runtimes.crio import pullsources, registries
from crio_credential_provider.runtimes.crio.registries import Configuration, SearchPath
from crio_credential_provider.runtimes.pullsource import PullSource
from growth import lines_run

REFUSED = "CRI-O refuses this configuration as well, and every pull on this node fails"


def loads(text: str, **drop_ins: str) -> Configuration:
    contents = [("/etc/main.conf", text.encode()), *((f"/d/{name}", text.encode()) for name, text in drop_ins.items())]
    return registries.loads(contents, main="/etc/main.conf")


def refusal(text: str, **drop_ins: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        loads(text, **drop_ins)
    return caught.value


@pytest.mark.parametrize("name", ["main.conf", "d/x.conf"])
def test_what_is_not_a_regular_file_is_no_empty_configuration(tmp_path: Path, name: str) -> None:
    (tmp_path / "d").mkdir()
    os.mkfifo(tmp_path / name)
    main, drop_ins = str(tmp_path / "main.conf"), tuple(map(str, (tmp_path / "d").iterdir()))
    with pytest.raises(ConfigError) as caught:
        registries.load(SearchPath(main, False, drop_ins))
    assert caught.value.message == f"cannot read {tmp_path / name}: not a regular file"


def test_the_null_device_is_an_empty_configuration(tmp_path: Path) -> None:
    (tmp_path / "main.conf").symlink_to("/dev/null")
    assert not registries.load(SearchPath(str(tmp_path / "main.conf"), True, ())).prefixes()


# -- kinds of references ----------------------------------------------------------------------------------------------

KINDS = """
[[registry]]
location = "quay.io"
[[registry.mirror]]
location = "d.corp"
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "a.corp"
[[registry.mirror]]
location = "t.corp"
pull-from-mirror = "tag-only"
[[registry.mirror]]
location = "all.corp"
pull-from-mirror = "all"
"""


def sources(config: Configuration, name: str = "quay.io/app") -> list[tuple[str, tuple[str, ...]]]:
    found = pullsources.repository_sources(config, reference.parse(name)).sources
    return [(source.name, source.kinds) for source in found]


def test_a_repository_has_the_sources_of_both_kinds_in_the_order_of_the_file() -> None:
    assert sources(loads(KINDS)) == [
        ("d.corp/app", ("digest",)),
        ("a.corp/app", ("tag", "digest")),
        ("t.corp/app", ("tag",)),
        ("all.corp/app", ("tag", "digest")),
        ("quay.io/app", ("tag", "digest")),
    ]


@pytest.mark.parametrize("reference_text", ["quay.io/app:1", f"quay.io/app@sha256:{'0' * 64}", "quay.io/app"])
def test_the_kinds_are_those_that_a_pull_uses(reference_text: str) -> None:
    config = loads(KINDS)
    kind = "digest" if "@" in reference_text else "tag"
    pulled = [source.name for source in pullsources.pull_sources(config, reference.parse(reference_text))]
    assert pulled == [name for name, kinds in sources(config) if kind in kinds]


def test_a_mirror_whose_host_is_none_by_the_grammar_is_a_source_like_any_other() -> None:
    mirrors = "".join(f'[[registry.mirror]]\nlocation="{location}"\n' for location in ("hub_cache.corp", "m.corp/hub"))
    config = loads(f'[[registry]]\nlocation="docker.io"\n{mirrors}')
    image = reference.parse("docker.io/library/alpine:3.19")
    names = ["hub_cache.corp/library/alpine", "m.corp/hub/library/alpine", "docker.io/library/alpine"]
    assert [source.reference for source in pullsources.pull_sources(config, image)] == [
        f"{name}:3.19" for name in names
    ]
    found = pullsources.repository_sources(config, image)
    assert ([source.name for source in found.sources], found.errors) == (names, {})


def test_the_library_keeps_tag_and_digest_and_crio_drops_the_tag() -> None:
    image = reference.parse(f"quay.io/app:1@sha256:{'0' * 64}")
    config = loads('[[registry]]\nlocation="quay.io"\n[[registry.mirror]]\nlocation="m.corp"')
    tails = {"sources_of": f":1@sha256:{'0' * 64}", "pull_sources": f"@sha256:{'0' * 64}"}
    for function, tail in tails.items():
        found = getattr(pullsources, function)(config, image)
        assert [source.reference for source in found] == [f"m.corp/app{tail}", f"quay.io/app{tail}"]


def test_mirror_by_digest_only_holds_for_all_mirrors_of_the_table() -> None:
    config = loads(
        '[[registry]]\nlocation="quay.io"\nmirror-by-digest-only=true\n[[registry.mirror]]\nlocation="m.corp"'
    )
    assert sources(config) == [("m.corp/app", ("digest",)), ("quay.io/app", ("tag", "digest"))]


def test_a_bad_mirror_takes_away_its_own_kind_alone() -> None:
    config = loads(KINDS.replace("t.corp", "no-dot"))
    found = pullsources.repository_sources(config, reference.parse("quay.io/app"))
    assert list(found.errors) == ["tag"]
    assert [(source.name, source.kinds) for source in found.sources] == [
        ("d.corp/app", ("digest",)),
        ("a.corp/app", ("digest",)),
        ("all.corp/app", ("digest",)),
        ("quay.io/app", ("digest",)),
    ]


def test_a_bad_mirror_for_every_kind_is_an_error_with_table_and_reason() -> None:
    config = loads(KINDS.replace("a.corp", "no-dot"))
    with pytest.raises(ConfigError) as caught:
        pullsources.repository_sources(config, reference.parse("quay.io/app"))
    assert caught.value.message == (
        "/etc/main.conf: [[registry]] with prefix 'quay.io': the mirror 'no-dot' turns 'quay.io/app:latest' "
        "into an invalid reference: 'no-dot/app:latest' would be read as 'docker.io/no-dot/app:latest'"
    )
    assert caught.value.hint == 'in /etc/main.conf write location = "no-dot:443"'
    assert (
        caught.value.consequence == "CRI-O fails every pull of this image because of it, from the other sources as well"
    )
    assert caught.value.rule == "pull-source"


def test_an_error_names_the_drop_in_that_the_table_came_from() -> None:
    config = loads("", **{"20.conf": '[[registry]]\nprefix="quay.io"\nlocation="no-dot"'})
    with pytest.raises(ConfigError, match=r"^/d/20\.conf: .*the location 'no-dot'"):
        pullsources.repository_sources(config, reference.parse("quay.io/app"))


# -- short names ------------------------------------------------------------------------------------------------------


def candidates(config: Configuration, image: str) -> list[tuple[str, str]]:
    return [(short, found.name) for short, found in pullsources.short_name_candidates(config, reference.parse(image))]


SHORT = """
unqualified-search-registries = ["one.corp", "docker.io", "two.corp:5000"]
[aliases]
nginx = "quay.io/nginx/nginx"
"library/redis" = "quay.io/redis/redis"
"team/app" = "quay.io/team/app"
self = "docker.io/library/self"
"""


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (
            "nginx",
            [
                ("nginx", "quay.io/nginx/nginx"),
                ("library/nginx", "one.corp/library/nginx"),
                ("library/nginx", "two.corp:5000/library/nginx"),
            ],
        ),
        (
            "redis",
            [("redis", "one.corp/redis"), ("redis", "two.corp:5000/redis"), ("library/redis", "quay.io/redis/redis")],
        ),
        ("team/app", [("team/app", "quay.io/team/app")]),
        ("other/app", [("other/app", "one.corp/other/app"), ("other/app", "two.corp:5000/other/app")]),
        ("self", [("library/self", "one.corp/library/self"), ("library/self", "two.corp:5000/library/self")]),
        ("quay.io/library/nginx", []),
        # What looks like a host was none of Docker Hub's short names.
        ("docker.io/localhost/app", []),
        ("docker.io/a.b/app", []),
    ],
)
def test_short_names(image: str, expected: list[tuple[str, str]]) -> None:
    assert candidates(loads(SHORT), image) == expected


def test_an_alias_that_a_drop_in_takes_back_leaves_the_search_registries() -> None:
    config = loads(SHORT, **{"1.conf": '[aliases]\nnginx = ""'})
    assert candidates(config, "nginx")[0] == ("nginx", "one.corp/nginx")


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message", "rule"),
    [
        (
            '[[registry]]\nlocation="a.corp"\n[[registry]]\nlocation="https://b.corp"',
            "[[registry]] number 2: location: ",
            "scheme-in-location",
        ),
        ('[[registry]]\nprefix="a.corp"', "[[registry]] number 1 (prefix 'a.corp') has no location", "location-unset"),
        (
            "[[registry]]\nblocked=true",
            "[[registry]] number 1 has neither location nor prefix",
            "location-and-prefix-unset",
        ),
        (
            '[[registry]]\nlocation="a.corp"\n[[registry.mirror]]\nlocation="b.corp"\n[[registry.mirror]]\ninsecure=true',
            "[[registry]] number 1 (prefix 'a.corp'), mirror number 2 has no location",
            "mirror-location-unset",
        ),
        (
            '[[registry]]\nlocation="a.corp"\nblocked="yes"',
            "[[registry]] number 1: blocked must be true or false",
            "toml-type",
        ),
        ("[[registry]]\nlocation=\n", "not valid TOML: Invalid value (at line 2, column 10)", "toml-syntax"),
        ("x = \xff".encode("latin-1").decode("latin-1") + "\x00", "not valid TOML: ", "toml-syntax"),
        (
            '[[registry]]\nprefix="a"\nlocation="x.corp"\n[[registry]]\nprefix="b"\nlocation="x.corp"\nblocked=true',
            "[[registry]] number 1 (prefix 'a') and [[registry]] number 2 (prefix 'b') have the same location "
            "'x.corp' and different blocked",
            "conflicting-blocked",
        ),
    ],
)
def test_a_refusal_names_file_table_and_reason(text: str, message: str, rule: str) -> None:
    error = refusal(text)
    assert error.line > 0 and error.message.startswith(f"/etc/main.conf:{error.line}: {message}")
    assert (error.rule, error.consequence) == (rule, REFUSED)
    assert f"/etc/main.conf:{error.line}" in error.hint and REFUSED in str(error)
    error = refusal("", **{"20.conf": text})
    assert error.message.startswith(f"/d/20.conf:{error.line}: {message}")


@pytest.mark.parametrize(
    "text",
    [
        '[[registry]]\nlocation="https://{}"',
        '[[registry]]\nprefix="{}"',
        'short-name-mode="{}"',
        'unqualified-search-registries=["/{}"]',
        '[aliases]\n"{}"="a.corp/b"',
        '[aliases]\na="{}"',
        '[[registry]]\nprefix="*.{}/"\nlocation="a.corp"\n[[registry]]\nprefix="*./{}"',
    ],
)
def test_a_refusal_quotes_no_more_than_a_line(text: str) -> None:
    error = refusal(text.replace("{}", "x" * 100_000))
    assert len(error.message) < 700 and len(error.hint) < 700
    assert error.rule and error.consequence == REFUSED


def test_a_location_without_end_makes_an_error_of_one_line() -> None:
    config = loads(f'[[registry]]\nprefix="quay.io"\nlocation="{"x/" * 50_000}a"')
    with pytest.raises(ConfigError) as caught:
        pullsources.repository_sources(config, reference.parse("quay.io/app"))
    assert len(str(caught.value)) < 1000


# -- reading ----------------------------------------------------------------------------------------------------------


def test_a_missing_main_file_counts_only_where_it_was_named(tmp_path: Path) -> None:
    main = str(tmp_path / "none")
    assert registries.load(SearchPath(main, False, ())).rows == {}
    with pytest.raises(ConfigError, match=r"cannot read .*none: No such file") as caught:
        registries.load(SearchPath(main, True, ()))
    assert caught.value.rule == "io"


def test_a_form_kept_without_the_main_file_does_not_hide_that_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parsecache, "_SETTLED_NS", -1_000_000_000)
    cache = ParseCache(str(tmp_path / "cache"), "registries")
    main = str(tmp_path / "none")
    registries.load(SearchPath(main, False, ()), cache)
    assert cache.load([main])
    with pytest.raises(ConfigError):
        registries.load(SearchPath(main, True, ()), cache)


def _directory(path: Path) -> None:
    path.mkdir()


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _below_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.touch()


def _too_large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(16 * 1024 * 1024 + 1)


@pytest.mark.parametrize("make", [_directory, _loop, _below_a_file, _too_large])
def test_what_cannot_be_read_is_told(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "d" / "x.conf"
    path.parent.mkdir()
    make(path)
    for search in (SearchPath(str(path), True, ()), SearchPath(str(tmp_path / "none"), False, (str(path),))):
        with pytest.raises(ConfigError) as caught:
            registries.load(search, ParseCache("", "registries"))
        assert caught.value.rule == "io"
        assert str(path) in caught.value.message


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
def test_an_unreadable_drop_in_or_directory_stops_the_run(tmp_path: Path) -> None:
    file = tmp_path / "x.conf"
    file.touch(mode=0)
    with pytest.raises(ConfigError, match="Permission denied"):
        registries.load(SearchPath(str(tmp_path / "none"), False, (str(file),)), None)
    tmp_path.chmod(0)
    try:
        with pytest.raises(ConfigError, match="Permission denied"):
            registries.search_files("", str(tmp_path))
    finally:
        tmp_path.chmod(0o700)


def test_without_home_the_passwd_entry_tells_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    monkeypatch.setenv("HOME", "")
    assert registries._home() == pwd.getpwuid(os.geteuid()).pw_dir
    monkeypatch.setattr(os, "geteuid", lambda: 3_000_000_000)
    with pytest.raises(ConfigError, match="in the home directory"):
        registries.search_files("", "")


# -- growth -----------------------------------------------------------------------------------------------------------


def conf_of(tables: int) -> str:
    """Tables with five mirrors each, no two alike, all of one length."""
    return "".join(
        f'[[registry]]\nprefix = "r{table:04}.example/team"\nlocation = "r{table:04}.example"\n'
        + "".join(f'[[registry.mirror]]\nlocation = "m{mirror}.corp/{table:04}"\n' for mirror in range(5))
        for table in range(tables)
    )


def lines_for(tables: int) -> int:
    """Lines of Python that are run from the files' bytes to the pull sources of one image."""
    conf, image = conf_of(tables), reference.parse(f"r{tables - 1:04}.example/team/app")
    found: list[PullSource] = []
    count = lines_run(lambda: found.extend(decision.find_sources(loads(conf), image)[0]))
    assert len(found) == 6
    return count


def test_the_work_grows_with_the_number_of_tables_and_no_faster() -> None:
    lines_for(1)  # what is imported and compiled once
    few, many = lines_for(50), lines_for(1000)
    assert many <= 20 * few, f"{few} lines for 50 tables, {many} for 1000: {many / few:.1f} times as many"


def test_a_look_up_does_not_grow_with_the_number_of_tables() -> None:
    """Not even where every table is one that could match."""
    image = reference.parse("a.b.example/team/app")
    counts = []
    for tables in (10, 1000):
        config = loads("".join(f'[[registry]]\nprefix = "x{n}.example"\nlocation = "a.corp"\n' for n in range(tables)))
        counts.append(lines_run(functools.partial(pullsources.repository_sources, config, image)))
    assert counts[0] == counts[1]
