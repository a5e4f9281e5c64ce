"""What the vectors do not ask of image references: each rule by itself, and how errors are told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crio_credential_provider.images import reference
from crio_credential_provider.images.reference import Reference, ReferenceSyntaxError, parse, parse_literal

DIGEST = f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("nginx", "docker.io/library/nginx"),
        ("team/app", "docker.io/team/app"),
        ("index.docker.io/nginx", "docker.io/library/nginx"),
        ("registry-1.docker.io/nginx", "registry-1.docker.io/nginx"),
        ("docker.io/nginx:1.27", "docker.io/library/nginx:1.27"),
        ("localhost/app", "localhost/app"),
        ("localhost:5000/app", "localhost:5000/app"),
        ("harbor/app", "docker.io/harbor/app"),
        ("Harbor.Corp/app", "Harbor.Corp/app"),
        (f"h.corp/a/b:t@{DIGEST}", f"h.corp/a/b:t@{DIGEST}"),
        (f"h.corp/app@sha512:{'f' * 128}", f"h.corp/app@sha512:{'f' * 128}"),
        ("h.corp/a-------b__c.d_e", "h.corp/a-------b__c.d_e"),
        (f"h.corp/{'a' * 248}", f"h.corp/{'a' * 248}"),
        (f"h.corp/a:{'t' * 128}", f"h.corp/a:{'t' * 128}"),
        ("0" * 63, f"docker.io/library/{'0' * 63}"),
        (f"h.corp/a_b@{DIGEST}", f"h.corp/a_b@{DIGEST}"),
    ],
)
def test_what_is_a_reference(text: str, normalised: str) -> None:
    assert str(parse(text)) == normalised


@pytest.mark.parametrize(
    "text", ["quay.io_x/team/app:1", "hub_cache.corp/app", "a__b.c/d", f"1_2.3/x@{DIGEST}", f"h_x.c/{'a' * 249}"]
)
def test_a_host_that_is_none_while_the_whole_is_a_path_is_a_name_without_a_domain(text: str) -> None:
    """As CRI-O's library takes them: ParseNormalizedNamed does not ask for a domain."""
    parsed = parse(text)
    assert (parsed.domain, str(parsed)) == ("", text)


@pytest.mark.parametrize(
    ("text", "pulled"),
    [("", ":latest"), (":t", ":t"), (f"@{DIGEST}", f"@{DIGEST}"), (f":t@{DIGEST}", f"@{DIGEST}")],
)
def test_what_crio_pulls_for_a_reference(text: str, pulled: str) -> None:
    assert str(reference.as_pulled(parse(f"h.corp/a{text}"))) == f"h.corp/a{pulled}"


@pytest.mark.parametrize(
    "text",
    [
        *("", "/", "a/", "/a", "a//b", "h.corp/", "h.corp//a", ":tag", "@", "a:", "a@", "a:t:t", "a@b@c"),
        *("A", "h.corp/App", "h.corp/a___b", "h.corp/a..b", "h.corp/a._b", "h.corp/a-_b", "h.corp/-a", "h.corp/a-"),
        *(
            "h_x.corp/A",
            "H_x.corp/a",
            "h_x.corp:5000/a",
            "h__.corp/a",
            f"h_x.c/{'a' * 250}",
            "-h.corp/a",
            "h-.corp/a",
            "h..corp/a",
            ".corp/a",
            "h.corp:/a",
            "h.corp:x/a",
            "[::1]/a",
            "[::1]:5000/a",
        ),
        *("https://h.corp/a", "a b", " a", "a\n", "h.corp/ä", "h.corp:\u0665/a", "h.corp/\u0663"),
        *(f"a@{DIGEST}0", f"a@{DIGEST[:-1]}", f"a@{DIGEST[:-1]}A", f"a@sha1:{'0' * 40}", "a@sha256:", "a@:"),
        *("0" * 64, f"h.corp/{'a' * 249}", f"h.corp/a:{'t' * 129}", "a:-t", "a:.t", "a:\u00e9"),
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(ReferenceSyntaxError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        *((host, True) for host in ("h", "h.corp", "H.Corp:5000", "127.0.0.1:5", "a-b.c", "0")),
        *(
            (host, False)
            for host in ("", "h:", ":5", "h:5:5", "h.", "-h", "h/a", "*.corp", "h_x", "[::1]", "h:\u0665", "h\n")
        ),
    ],
)
def test_what_is_a_domain(text: str, fits: bool) -> None:
    assert reference.is_domain(text) is fits


def test_a_literal_name_may_lack_its_domain() -> None:
    assert parse_literal("a/b:t") == Reference("a", "b", "t")
    assert parse_literal("b") == Reference("", "b")


@given(st.text(alphabet="aA0._-/:@*[] \n\u0131\u017f", max_size=40))
def test_a_name_that_was_normalised_stays_as_it_is(text: str) -> None:
    try:
        once = parse(text)
    except ReferenceSyntaxError:
        return
    assert parse(str(once)) == once
    assert parse_literal(str(once)) == once
    assert reference.is_path(once.path)
    assert reference.is_domain(once.domain) if once.domain else not reference.is_domain(once.path.partition("/")[0])


@pytest.mark.parametrize("text", ["A" * 10_000, "/" * 10_000, "a:" * 5_000, "a@" * 5_000, "h.corp/" + "a" * 10_000])
def test_an_error_quotes_no_more_than_a_line(text: str) -> None:
    with pytest.raises(ReferenceSyntaxError) as caught:
        parse(text)
    assert len(caught.value.message) < 700
    # Before an @ may stand a password.
    assert ("'***@'" if "@" in text else text[:100]) in caught.value.message
