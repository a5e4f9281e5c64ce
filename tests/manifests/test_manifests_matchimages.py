"""matchImages: as the kubelet matches them, and derived from registries.conf."""

from __future__ import annotations

import pytest

from crio_credential_provider.images import reference
from crio_credential_provider.kubernetes.imagepatterns import covers, matches, overlap, why_dead
from crio_credential_provider.manifests.matchimages import Derived, match_images
from crio_credential_provider.pull import decision
from crio_credential_provider.pull.resolution import is_wanted
from crio_credential_provider.runtimes.crio import registries
from crio_credential_provider.settings import loads as settings_of


def derived(text: str, *mirror_registries: str) -> Derived:
    config = registries.loads([("/etc/containers/registries.conf", text.encode())], "/etc/containers/registries.conf")
    return match_images(config, mirror_registries)


def table(prefix: str, *mirrors: str, more: str = "") -> str:
    made = f'[[registry]]\nprefix = "{prefix}"\nlocation = "{prefix.removeprefix("*.")}"\n{more}\n'
    return made + "".join(f'[[registry.mirror]]\nlocation = "{mirror}"\n' for mirror in mirrors)


# -- the kubelet's matching -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "image", "expected"),
    [
        ("docker.io", "docker.io/library/nginx", True),
        ("docker.io", "registry-1.docker.io/library/nginx", False),
        ("*.docker.io", "registry-1.docker.io/library/nginx", True),
        ("*.io", "a.b.io/x", False),
        ("*.*.io", "a.b.io/x", True),
        ("app*.k8s.io", "app-1.k8s.io/x", True),
        ("app?.k8s.io", "app-1.k8s.io/x", False),
        ("[ab].k8s.io", "b.k8s.io/x", True),
        ("[^ab].k8s.io", "b.k8s.io/x", False),
        ("quay.io/team", "quay.io/team/app", True),
        # A path is a beginning of text, not of components.
        ("quay.io/team", "quay.io/team-b/app", True),
        ("quay.io/team/", "quay.io/team-b/app", False),
        ("quay.io/*", "quay.io/team/app", False),
        ("reg:5000", "reg:5000/app", True),
        ("reg", "reg:5000/app", False),
        ("reg:5000", "reg/app", False),
    ],
)
def test_matching(pattern: str, image: str, expected: bool) -> None:
    assert matches(pattern, image) is expected


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ("docker.io", "docker.io", True),
        ("docker.io", "quay.io", False),
        ("*.io", "docker.io", True),
        ("docker.*", "*.io", True),
        ("a*.io", "*b.io", True),
        ("a*.io", "b*.io", False),
        ("a?c.io", "ab?.io", True),
        ("a??.io", "a?.io", False),
        ("[xy]z.io", "x*.io", True),
        ("*.*.io", "*.io", False),
        ("quay.io/a", "quay.io/ab/c", True),
        ("quay.io/a", "quay.io/b", False),
        ("quay.io:443", "quay.io", False),
    ],
)
def test_overlaps(one: str, two: str, expected: bool) -> None:
    assert overlap(one, two) is overlap(two, one) is expected


@pytest.mark.parametrize(
    ("pattern", "part"),
    [
        ("mirror.corp/*", "literally"),
        ("docker.io/library/nginx:1.27", "without tag"),
        ("docker.io/x@sha256:00", "without tag"),
        ("https://docker.io", "no scheme"),
        ("index.docker.io", "docker.io"),
        ("nginx", "no dot and no port"),
        ("library/nginx", "no dot and no port"),
        ("quay.io/Team", "lower case"),
        ("reg.corp:*", "a port"),
        ("reg..corp", "empty label"),
        ("reg_1.corp", "not valid in a host name"),
        ("", "has no space"),
        ("docker.io ", "has no space"),
    ],
)
def test_patterns_that_match_nothing(pattern: str, part: str) -> None:
    assert part in why_dead(pattern)


@pytest.mark.parametrize(
    "pattern", ["docker.io", "*.corp", "a*.b?.[cd].io", "localhost", "reg:5000", "quay.io/a/b_c", "quay.io/", "k8s.*"]
)
def test_patterns_that_may_match(pattern: str) -> None:
    assert why_dead(pattern) == ""


# -- from registries.conf ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        (table("docker.io"), ()),
        (table("docker.io", "m.corp"), ("docker.io",)),
        ('[[registry]]\nprefix = "a.corp"\nlocation = "b.corp"\n', ("a.corp",)),
        # NeverContactSource: only the registry itself is blocked.
        (table("docker.io", "m.corp", more="blocked = true"), ("docker.io",)),
        (table("docker.io", more="blocked = true"), ()),
        (table("quay.io", "m.corp") + table("docker.io", "m.corp"), ("docker.io", "quay.io")),
        (table("quay.io/team", "m.corp"), ("quay.io/team",)),
        (table("quay.io/team", "m.corp") + table("quay.io", "m.corp"), ("quay.io",)),
        (table("*.corp.example", "m.corp"), ("*.corp.example",)),
        (table("*.corp.example", "m.corp") + table("hub.corp.example", "m.corp"), ("*.corp.example",)),
        (table("reg.corp:5000", "m.corp"), ("reg.corp:5000",)),
        # The wildcard of the same length wins in CRI-O, and it has no mirror.
        ('[[registry]]\nprefix = "*.corp.x"\n' + table("a.corp.x", "m.corp"), ()),
        # Nothing that no image is called.
        (table("index.docker.io", "m.corp") + table("nginx", "m.corp") + table("quay.io/A", "m.corp"), ()),
        # All that it leads to is blocked.
        (table("docker.io", "m.corp") + table("m.corp", more="blocked = true"), ()),
        # For references by digest alone, which pods may use.
        (table("docker.io", "m.corp", more="mirror-by-digest-only = true"), ("docker.io",)),
        ('unqualified-search-registries = ["quay.io"]\n' + table("quay.io", "m.corp"), ("docker.io", "quay.io")),
        ('unqualified-search-registries = ["quay.io"]\n' + table("quay.io/a", "m.corp"), ("docker.io", "quay.io/a")),
        ('unqualified-search-registries = ["ghcr.io"]\n' + table("quay.io", "m.corp"), ("quay.io",)),
        (table("quay.io", "m.corp") + '[aliases]\napp = "quay.io/team/app"\n', ("docker.io", "quay.io")),
        (table("quay.io", "m.corp") + '[aliases]\napp = "ghcr.io/team/app"\n', ("quay.io",)),
    ],
)
def test_patterns_from_tables(text: str, expected: tuple[str, ...]) -> None:
    assert derived(text).patterns == expected


def test_what_is_left_out_is_told_with_its_reason() -> None:
    text = table("docker.io", "m.corp") + table("quay.io/A", "m.corp") + table("m.corp", more="blocked = true")
    assert [prefix for prefix, _ in derived(text).left_out] == ["docker.io", "quay.io/A"]
    assert "blocked" in derived(text).left_out[0][1] and "lower case" in derived(text).left_out[1][1]


def test_every_pattern_has_its_reason() -> None:
    found = derived('unqualified-search-registries = ["quay.io"]\n' + table("quay.io", "m.corp"))
    assert "unqualified-search-registries: quay.io" in found.reasons[0]
    assert found.reasons[1] == "quay.io in /etc/containers/registries.conf"
    assert derived(table("*.corp.example", "m.corp")).limits


def test_the_flag_mirror_registry_restricts_them() -> None:
    text = table("docker.io", "m.corp/hub") + table("quay.io", "other.corp")
    assert derived(text, "m.corp").patterns == ("docker.io",)
    assert derived(text, "m.corp/hub/library").patterns == ("docker.io",)
    assert derived(text, "m.corp/h").patterns == ()
    assert [prefix for prefix, _ in derived(text, "m.corp").left_out] == ["quay.io"]


IMAGES = [
    "docker.io/library/nginx",
    "docker.io/team/app",
    "quay.io/team/app",
    "quay.io/other/app",
    "a.corp.example/x",
    "reg.corp:5000/y",
    "ghcr.io/z",
]
CONFIGURATIONS = [
    table("docker.io", "m.corp"),
    table("quay.io/team", "m.corp/quay") + table("docker.io/team", "m.corp"),
    table("*.corp.example", "m.corp") + table("reg.corp:5000", "m.corp"),
    'unqualified-search-registries = ["quay.io", "ghcr.io"]\n' + table("quay.io", "m.corp"),
    table("quay.io", "m.corp") + '[aliases]\n"team/app" = "quay.io/team/app"\n',
    table("docker.io", "m.corp", more="blocked = true") + table("quay.io", "m.corp"),
    '[[registry]]\nprefix = "ghcr.io"\nlocation = "m.corp/ghcr"\n',
]


@pytest.mark.parametrize("mirror_registry", ["", "m.corp/quay"])
@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_wherever_the_plugin_has_something_to_do_the_kubelet_runs_it(text: str, mirror_registry: str) -> None:
    """Held against the plugin's own decision, image by image."""
    config = registries.loads([("/c", text.encode())], "/c")
    args = [f"--mirror-registry={mirror_registry}"] if mirror_registry else []
    patterns = match_images(config, settings_of(args, {}).mirror_registry).patterns
    run = 0
    for image in map(reference.parse, IMAGES):
        sources, _ = decision.find_sources(config, image)
        wanted = any(is_wanted(source, image, settings_of(args, {})) for source in sources)
        if wanted and image.domain != "m.corp":
            run += 1
            assert any(matches(pattern, image.name) for pattern in patterns), image.name
    assert run or mirror_registry


def test_a_pattern_covers_what_it_matches() -> None:
    assert covers("*.corp", "a.corp") and covers("quay.io", "quay.io/team") and covers("*.corp", "*.corp/x")
    assert not covers("a.corp", "*.corp") and not covers("quay.io/team", "quay.io") and not covers("*.io", "*.*.io")
