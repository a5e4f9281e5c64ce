"""The lines of a TOML text, held against the parser: each path of the document has one, and no other has."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from crio_credential_provider.platform.jsontext import fold
from crio_credential_provider.platform.tomllines import find_headers, find_lines, find_newer
from node import TESTS


def paths_of(value: Any, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    found = {path} if path else set()
    if isinstance(value, dict):
        for key, member in value.items():
            found |= paths_of(member, (*path, fold(key)))
    elif isinstance(value, list):
        for number, member in enumerate(value):
            found |= paths_of(member, (*path, number))
    return found


def texts() -> list[str]:
    cases = [json.loads(line)["input"] for line in (TESTS / "vectors/registries.jsonl").read_text().splitlines()]
    found = [text for case in cases for text in (case["conf"], *(case["dropins"] or {}).values()) if text]
    return found + [path.read_text() for path in TESTS.glob("gallery/**/*.conf")]


def test_every_table_and_key_has_a_line_on_which_it_stands() -> None:
    count = 0
    for text in texts():
        try:
            document = tomli.loads(text.removeprefix("\ufeff"))
        except tomli.TOMLDecodeError:
            assert all(0 < line <= text.count("\n") + 1 for line in find_lines(text).values())
            continue
        lines, written = find_lines(text), text.replace("\r\n", "\n").split("\n")
        # Tables that only others' headers imply have none.
        missing = paths_of(document) - set(lines)
        assert all(any(path[: len(left)] == left for path in lines) for left in missing), text
        assert set(lines) <= paths_of(document), text
        for path, line in lines.items():
            if isinstance(path[-1], str):
                assert path[-1] in fold(written[line - 1]), (path, text)
        count += len(lines)
    assert count > 2000


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ('x = """\n[[registry]]\n"""\n[[registry]]\nlocation = "a"', ("registry", 0, "location"), 5),
        ("x = '''a'''' # '''\n[[registry]]", ("registry", 0), 2),
        ('x = "a\\"#"\ny = 1', ("y",), 2),
        ('[[registry]]\n[["registry".mirror]]\n[[ registry . mirror ]]\n[[registry]]', ("registry", 0, "mirror", 1), 3),
        ("a = [\n1, # ]\n [2, 3]]\nb = {c = 1, d.e = 2}", ("b", "d", "e"), 4),
        ("a = [\n1, # ]\n [2, 3]]", ("a", 1, 1), 3),
        ("\ufeff\r\nLOCATION = 1", ("location",), 2),
        ("[[registry]]\nx = 1\n[registry.y]\nz = 1", ("registry", 0, "y", "z"), 4),
    ],
)
def test_a_line(text: str, path: tuple[str | int, ...], line: int) -> None:
    assert find_lines(text)[path] == line


@given(st.text("[]{}=\"'\\#\n., ab1"))
def test_any_text_comes_to_an_end(text: str) -> None:
    assert all(0 < line <= text.count("\n") + 1 for line in find_lines(text).values())


def test_headers_come_as_they_stand_and_strings_have_none() -> None:
    text = "[host.\"https://A\"]\nx = '''\n[no]\n'''\n[[y]]\n[ host . 'b' . header ] # [no]\nz = [\n\"[no]\"]\n"
    assert find_headers(text) == [["host", "https://A"], ["host", "b", "header"]]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = 1\nb = {c = 1}\nd = [\n1,\n]\n", 0),
        ("a = 1\nb = {\nc = 1}\n", 2),
        ("b = {c = 1,}\n", 1),
        ("b = {c = [1,]}\n", 0),
        ('a = "\\\\x"\n', 0),
        ('a = 1\nb = "\\x41"\n', 2),
        ("a = '\\x41'\n", 0),
    ],
)
def test_what_toml_1_1_added_is_seen(text: str, line: int) -> None:
    assert find_newer(text) == line
