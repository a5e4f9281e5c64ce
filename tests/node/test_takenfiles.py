"""Files that a CRI-O left in ``in-use``."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path

import pytest

from crio_credential_provider.node.takenfiles import find_taken

STEM = f"team-alpha-{'7e59ad64' * 8}"


def _take(auth_dir: Path, age: float) -> Path:
    """As CRI-O does it: a renaming, which leaves the time of writing."""
    written, taken = auth_dir / f"{STEM}.json", auth_dir / "in-use" / f"{STEM}-{uuid.uuid4()}.json"
    written.write_text("{}")
    os.utime(written, (time.time() - age,) * 2)
    taken.parent.mkdir(exist_ok=True)
    return written.rename(taken)


def test_an_orphan_is_known_by_when_it_was_taken(tmp_path: Path) -> None:
    """Not by when it was written: it may have waited while CRI-O was restarted."""
    left = _take(tmp_path, 1)
    time.sleep(0.05)
    crio_started = time.time()
    time.sleep(0.05)
    in_use = _take(tmp_path, 60)
    assert [(file.path, file.is_orphan) for file in find_taken(str(tmp_path), crio_started)] == [
        (str(in_use), False),
        (str(left), True),
    ]
    assert not any(file.is_orphan for file in find_taken(str(tmp_path), 0.0)), "no CRI-O is known"


def test_what_crio_would_not_name_so_is_not_its_file(tmp_path: Path) -> None:
    _take(tmp_path, 0).rename(tmp_path / "in-use" / "x.json")
    (tmp_path / "in-use" / f"{STEM}-{uuid.uuid4()}.json").symlink_to("x.json")
    assert find_taken(str(tmp_path), time.time() + 60) == []


def test_a_directory_that_is_not_there_has_none(tmp_path: Path) -> None:
    assert find_taken(str(tmp_path), 0.0) == []


def test_a_file_in_its_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "in-use").touch()
    with pytest.raises(NotADirectoryError):
        find_taken(str(tmp_path), 0.0)
