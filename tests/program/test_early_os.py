"""The bundle's ``os`` for pulls, against the standard library's; how the two become one is tested by test_bundle."""

from __future__ import annotations

import importlib.util
import os
import posix
import stat
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import ROOT


def load() -> Any:
    """A module of its own, which leaves the interpreter's os as it is."""
    spec = importlib.util.spec_from_file_location("early_os", ROOT / "packaging/bundle/early_os.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EARLY = load()


def public(module: Any) -> set[str]:
    return {name for name in vars(module) if not name.startswith("_")} - {"annotations", "sys"}


def test_what_it_has_is_what_os_has() -> None:
    own = {"fsencode", "fsdecode", "makedirs", "environ"}
    assert {"open", "stat", "write", "path", "devnull", "O_CLOEXEC", *own} <= public(EARLY)
    different = {name for name in public(EARLY) if getattr(EARLY, name) is not getattr(os, name, None)} - own
    assert {name for name in different if getattr(EARLY, name) != getattr(os, name)} == set()
    # coverage puts its own in the place of os._exit.
    assert EARLY._exit is posix._exit


def test_the_environment_is_that_of_os_and_cannot_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(posix.environ, b"CAF\xe9", b"\xff")
    environ = load().environ
    assert environ["CAF\udce9"] == "\udcff"
    assert {name: value for name, value in environ.items() if name != "CAF\udce9"}.keys() >= {"PATH"}
    with pytest.raises(TypeError):
        environ["X"] = "y"


@given(st.one_of(st.text(), st.binary()))
def test_names_are_encoded_and_decoded_alike(name: str | bytes) -> None:
    def outcome(function: Callable[[Any], Any]) -> Any:
        try:
            return function(name)
        except UnicodeError as error:
            return type(error)

    assert sys.getfilesystemencoding() == "utf-8"
    assert outcome(EARLY.fsencode) == outcome(os.fsencode)
    assert outcome(EARLY.fsdecode) == outcome(os.fsdecode)


@pytest.mark.parametrize("path", ["a", "a/", "a/b/c", "a/b/.", "there", "there/", "there/x", "file", "file/x", "a//b"])
@pytest.mark.parametrize("exist_ok", [False, True])
def test_directories_are_made_alike(path: str, exist_ok: bool, tmp_path: Path) -> None:
    def outcome(makedirs: Callable[..., None], root: Path) -> Any:
        (root / "there").mkdir(parents=True)
        (root / "file").write_text("")
        result: Any = None
        try:
            makedirs(f"{root}/{path}", 0o700, exist_ok=exist_ok)
        except OSError as error:
            result = type(error)
        return result, sorted((str(p.relative_to(root)), stat.S_IMODE(p.stat().st_mode)) for p in root.rglob("*"))

    assert outcome(EARLY.makedirs, tmp_path / "early") == outcome(os.makedirs, tmp_path / "os")


def test_what_it_has_not_is_asked_of_os(monkeypatch: pytest.MonkeyPatch) -> None:
    early = load()
    calls = []

    def finish() -> None:
        calls.append(1)
        early.walk = os.walk

    monkeypatch.setitem(sys.modules, "_bundle", types.SimpleNamespace(finish=finish))
    assert early.walk is os.walk
    assert calls == [1]
    with pytest.raises(AttributeError, match="module 'os' has no attribute 'bogus'"):
        early.bogus  # noqa: B018
