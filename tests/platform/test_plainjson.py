"""What ``plainjson`` takes, it takes as ``json`` does; what ``json`` refuses, it never takes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from conftest import ROOT
from crio_credential_provider.platform import plainjson
from crio_credential_provider.platform.plainjson import NotPlain
from node import SOURCES

CONSTANTS = st.none() | st.booleans()
PLAIN = st.recursive(
    CONSTANTS | st.integers(0, 10**29) | st.text("abcXYZ019 .:/{}[],-_é\u3042"),
    lambda children: st.lists(children) | st.dictionaries(st.text("abc:,{}"), children),
    max_leaves=30,
)
ANY = st.recursive(
    CONSTANTS | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=30,
)
# Pieces from which text is made that is nearly JSON.
PIECES = st.sampled_from(
    (
        *(
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            '"',
            " ",
            "\t",
            "\n",
            "\r",
            '"a"',
            '"b":',
            "true",
            "false",
            "null",
            "tru",
            "nulls",
        ),
        *("0", "7", "-1", "01", "1.5", "1e3", "9" * 31, "\u0661", "NaN", "Infinity", "\\", '\\"'),
        *("\x0b", "\x0c", "\x1f", "\x7f", "\xa0", "\u2028", "\ufeff"),
    )
)


def pairs(members: list[tuple[str, Any]]) -> tuple[str, tuple[tuple[str, Any], ...]]:
    return "object", tuple(members)


def plain(text: str, hook: Any = None, number: Any = int) -> Any:
    """What plainjson makes of a text; ``NotPlain`` itself where it leaves it to json."""
    try:
        return plainjson.loads(text, hook, number)
    except NotPlain:
        return NotPlain


def same(one: Any, other: Any) -> bool:
    """Equal with equal types and order, which == alone does not ask for (1 == True == 1.0)."""
    return repr(one) == repr(other)


def agrees(text: str) -> bool:
    """Whether a text is taken; asserts that json then takes it, and for the same."""
    for hook, number in ((None, int), (pairs, float)):
        found = plain(text, hook, number)
        if found is NotPlain:
            return False
        assert same(found, json.loads(text, object_pairs_hook=hook, parse_int=number)), text
    return True


@given(PLAIN, st.sampled_from([None, 1, "\t"]), st.sampled_from([(",", ":"), (", ", ": "), (" ,\r\n", "\t:")]))
def test_plain_documents_are_taken(value: Any, indent: Any, separators: tuple[str, str]) -> None:
    assert agrees(json.dumps(value, indent=indent, separators=separators, ensure_ascii=False))


@given(ANY, st.booleans())
def test_any_document_is_taken_alike_or_not_at_all(value: Any, ascii_only: bool) -> None:
    agrees(json.dumps(value, ensure_ascii=ascii_only))


@settings(max_examples=2000)
@given(st.lists(PIECES, max_size=14).map("".join))
@example('{"a":1,"a":2}')
@example('{"a":1,}')
@example("[1 2]")
@example('["a" "b"]')
@example('["a""b"]')
@example('{"a"}')
@example('{a:"b"}')
@example('{"a":"b":"c"}')
@example("[,]")
@example('"a')
@example('a"')
@example('"a"b')
@example("1\x0b")
@example("\u0661")
@example("")
def test_what_json_refuses_is_never_taken(text: str) -> None:
    agrees(text)


@settings(max_examples=500)
@given(PLAIN, st.data())
def test_a_document_with_a_mistake(value: Any, data: st.DataObject) -> None:
    text = json.dumps(value)
    at = data.draw(st.integers(0, len(text)))
    agrees(text[:at] + data.draw(PIECES) + text[at + data.draw(st.integers(0, 2)) :])


def test_the_kubelet_s_requests_are_plain() -> None:
    """The recordings, so that the shortcut is one."""
    found = [path.read_text() for path in (ROOT / "tests/recordings").rglob("*request*.json")]
    assert found and all(map(agrees, found))


def test_deep_and_long_documents_are_left() -> None:
    assert not agrees("[" * 51 + "]" * 51)
    assert agrees("[" * 50 + "]" * 50)
    assert not agrees("[" * 100_000)
    assert agrees(json.dumps(["a"] * (plainjson.MAX_QUOTES // 2)))
    assert not agrees(json.dumps(["a"] * (plainjson.MAX_QUOTES // 2 + 1)))


@given(ANY | PLAIN)
def test_what_is_written_is_what_json_writes(value: Any) -> None:
    try:
        text = plainjson.dumps(value)
    except NotPlain:
        return
    assert text == json.dumps(value, separators=(",", ":"))


@pytest.mark.parametrize("value", [1.5, {1: "a"}, ("a",), b"a", "é", 'a"', "a\n", object()])
def test_what_is_not_written(value: Any) -> None:
    with pytest.raises(NotPlain):
        plainjson.dumps(value)


def test_a_plain_document_imports_no_json() -> None:
    """And after json was imported, it is used: its C half is the fastest of all."""
    program = (
        "from crio_credential_provider.platform import native\n"
        "assert native.loads('[true]') == [True] and native.dumps([None]) == '[null]' and 'json' not in sys.modules\n"
        "assert native.loads('[1.5]') == [1.5] and 'json' in sys.modules\n"
        "del sys.modules['crio_credential_provider.platform.plainjson']\n"
        "assert native.loads('[true]') == [True] and native.dumps([None]) == '[null]'\n"
        "assert 'crio_credential_provider.platform.plainjson' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-IS", "-c", f"import sys; sys.path.append({str(SOURCES)!r})\n{program}"], check=True
    )
