"""A kept form is used for exactly the files it was made from, and for nothing else; runs with and without it agree."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crio_credential_provider import settings as provider_settings
from crio_credential_provider.errors import ConfigError
from crio_credential_provider.kubernetes import endpoint
from crio_credential_provider.platform import parsecache
from crio_credential_provider.platform.parsecache import ParseCache
from crio_credential_provider.runtimes.crio import registries

CONF = b'[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "mirror.corp"\n'

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as unchanged for long enough as soon as they are written."""
    monkeypatch.setattr(parsecache, "_SETTLED_NS", -1_000_000_000)


class Kept:
    """A registries.conf, a cache, and a form kept of it."""

    def __init__(self, directory: Path) -> None:
        self.conf = directory / "registries.conf"
        self.conf.write_bytes(CONF)
        self.directory = directory / "cache"
        self.search = registries.SearchPath(str(self.conf), True, ())
        self.keep()

    @property
    def cache(self) -> ParseCache:
        return ParseCache(str(self.directory), "registries")

    @property
    def file(self) -> Path:
        (found,) = self.directory.iterdir()
        return found

    def keep(self) -> None:
        registries.load(self.search, self.cache)

    def is_used(self) -> bool:
        """Whether a run takes the form instead of the files; its answer is right either way."""
        with patch.object(registries, "loads", wraps=registries.loads) as loads:
            assert answer(self.search, self.cache) == answer(self.search, None)
        # Once for the run without a cache.
        return loads.call_count == 1

    def is_refused_and_replaced(self) -> bool:
        return not self.is_used() and self.is_used()


@pytest.fixture
def kept(tmp_path: Path, settled: None) -> Kept:
    kept = Kept(tmp_path)
    assert kept.is_used()
    return kept


def answer(search: registries.SearchPath, cache: ParseCache | None) -> dict[str, Any] | str:
    """The whole configuration, or the error."""
    try:
        config = registries.load(search, cache)
    except ConfigError as error:
        return str(error)
    return {name: getattr(config, name) for name in registries.Configuration.__slots__}


# -- the property -----------------------------------------------------------------------------------------------------

# All of one size, so that size tells nothing; the last two are refused.
CONTENTS = [
    text.ljust(60).encode() + b"\n"
    for text in (
        '[[registry]]\nlocation = "a.corp"',
        '[[registry]]\nlocation = "b.corp"',
        '[[registry]]\nlocation = "a.corp"\nblocked = true',
        '[registries.block]\nregistries = ["a.corp"]',
        'short-name-mode = "none"',
        "[[registry]",
    )
]
MAIN = "etc/containers/registries.conf"
FILES = (
    MAIN,
    "etc/containers/registries.conf.d/1.conf",
    "etc/containers/registries.conf.d/2.conf",
    "home/a/.config/containers/registries.conf",
    "home/a/.config/containers/registries.conf.d/1.conf",
    "custom/1.conf",
)
# (--registries-conf, --registries-conf-dir)
FLAGS = [("", ""), (MAIN, ""), ("", "custom"), ("custom/1.conf", ""), (MAIN, "etc/containers/registries.conf.d")]

files, contents = st.sampled_from(FILES), st.sampled_from(CONTENTS)
edits = st.one_of(
    st.tuples(st.just("rewrite"), files, contents),
    st.tuples(st.just("replace"), files, contents),
    st.tuples(st.just("rename"), files, files),
    st.tuples(st.just("link"), files, files),
    st.tuples(st.just("remove"), files),
    st.tuples(st.just("flags"), st.sampled_from(FLAGS)),
    st.tuples(st.just("home"), st.sampled_from(["/home/a", "/home/b"])),
    st.tuples(st.just("wait")),
)

# Longer than a tick of the clock that file systems take their times from (10 ms at most).
SETTLED = 0.025


class Machine:
    """Files below a root that are edited, and the options of the next run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.flags = FLAGS[0]
        self.home = "/home/a"
        for file in FILES:
            (root / file).parent.mkdir(parents=True, exist_ok=True)

    def edit(self, kind: str, *arguments: Any) -> None:
        if kind == "flags":
            (self.flags,) = arguments
        elif kind == "home":
            (self.home,) = arguments
        elif kind == "wait":
            time.sleep(SETTLED * 1.2)
        else:
            file, *rest = arguments
            # An edit that cannot be made (of a missing file, of a link to itself) is none.
            with contextlib.suppress(OSError):
                getattr(self, f"_{kind}")(self.root / file, *rest)

    @staticmethod
    def _rewrite(file: Path, content: bytes) -> None:
        """Same inode, same size, and the time of change set back."""
        before = file.stat() if file.exists() else None
        file.write_bytes(content)
        if before is not None:
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    def _replace(self, file: Path, content: bytes) -> None:
        """Another inode with the size and the time of the one before."""
        new = self.root / "new"
        new.write_bytes(content)
        with contextlib.suppress(FileNotFoundError):
            before = file.stat()
            os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
        new.rename(file)

    def _rename(self, file: Path, other: str) -> None:
        file.rename(self.root / other)

    def _link(self, file: Path, other: str) -> None:
        file.unlink(missing_ok=True)
        file.symlink_to(self.root / other)

    @staticmethod
    def _remove(file: Path) -> None:
        file.unlink()

    def run(self, cache: ParseCache | None) -> dict[str, Any] | str:
        main, directory = (str(self.root / path) if path else "" for path in self.flags)
        with patch.dict(os.environ, HOME=self.home):
            return answer(registries.search_files(main, directory, str(self.root)), cache)


@given(st.lists(edits, min_size=2, max_size=12))
@settings(max_examples=settings().max_examples // 2, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_runs_with_and_without_a_cache_answer_alike(steps: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as scratch, patch.object(parsecache, "_SETTLED_NS", int(SETTLED * 1e9)):
        machine = Machine(Path(scratch))
        machine.edit("rewrite", MAIN, CONTENTS[0])
        for step in steps:
            machine.edit(*step)
            for _ in range(2):
                cache = ParseCache(os.path.join(scratch, "cache"), "registries")
                assert machine.run(cache) == machine.run(None), step


WAIT = ("wait",)


@pytest.mark.parametrize(
    "change",
    [
        [("rewrite", MAIN, CONTENTS[1])],
        [("replace", MAIN, CONTENTS[1])],
        [("remove", MAIN)],
        [("flags", (MAIN, "")), ("remove", MAIN)],
        [("remove", MAIN), WAIT, ("wait",), ("flags", (MAIN, ""))],
        [("rewrite", FILES[1], CONTENTS[1])],
        [("rename", FILES[1], FILES[2])],
        [("rewrite", FILES[3], CONTENTS[1])],
        [("rewrite", FILES[3], CONTENTS[1]), WAIT, ("home", "/home/b")],
        [("rewrite", FILES[5], CONTENTS[1]), WAIT, ("flags", ("", "custom"))],
        [("link", MAIN, FILES[5]), WAIT, ("rewrite", FILES[5], CONTENTS[1]), WAIT, ("rewrite", FILES[5], CONTENTS[0])],
    ],
    ids=str,
)
def test_each_kind_of_change_is_seen(tmp_path: Path, change: list[tuple[Any, ...]]) -> None:
    with patch.object(parsecache, "_SETTLED_NS", int(SETTLED * 1e9)):
        machine = Machine(tmp_path)
        cache = ParseCache(str(tmp_path / "cache"), "registries")
        for file in (MAIN, FILES[1]):
            machine.edit("rewrite", file, CONTENTS[0])
        for step in (WAIT, *change):
            machine.edit(*step)
            assert machine.run(cache) == machine.run(None), step
        assert list((tmp_path / "cache").iterdir())


def test_a_file_that_changed_just_now_is_not_kept(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    assert not kept.directory.exists()
    status = kept.conf.stat()
    for age, is_kept in ((1.9, False), (2.1, True)):
        with patch.object(time, "time_ns", lambda age=age: status.st_ctime_ns + int(age * 1e9)):
            kept.keep()
        assert kept.directory.exists() == is_kept, age


def test_a_file_that_changed_while_it_was_read_is_not_kept(tmp_path: Path, settled: None) -> None:
    cache = ParseCache(str(tmp_path / "cache"), "x")
    file = tmp_path / "file"
    file.write_text("before")
    snapshot = cache.snapshot([str(file)])
    file.write_text("after, longer")
    cache.store(snapshot, "before")
    assert cache.load([str(file)]) is None
    assert not (tmp_path / "cache").exists()


def test_a_kept_form_serves_the_paths_and_the_order_it_was_made_from(tmp_path: Path, settled: None) -> None:
    cache = ParseCache(str(tmp_path / "cache"), "x")
    paths = [str(tmp_path / name) for name in "ab"]
    # The file's name is a checksum of the paths: what counts must be inside.
    with patch.object(binascii, "crc32", lambda data: 0):
        cache.store(cache.snapshot(paths), "ab")
        assert cache.load(paths) == "ab"
        assert cache.load(paths[::-1]) is None
        assert cache.load(paths[:1]) is None
        assert ParseCache(str(tmp_path / "cache"), "y").load(paths) is None


# -- a cache that cannot be trusted -----------------------------------------------------------------------------------


def test_every_flipped_bit_is_noticed(kept: Kept) -> None:
    good = kept.file.read_bytes()
    paths = [str(kept.conf)]
    for position in range(len(good)):
        damaged = bytearray(good)
        damaged[position] ^= 1 << position % 8
        kept.file.write_bytes(damaged)
        assert kept.cache.load(paths) is None, position
    assert kept.is_refused_and_replaced()


def test_a_cut_file_is_noticed(kept: Kept) -> None:
    good = kept.file.read_bytes()
    for length in range(len(good)):
        kept.file.write_bytes(good[:length])
        assert kept.cache.load([str(kept.conf)]) is None, length
    assert kept.is_refused_and_replaced()


FORGED = json.dumps({"version": "x", "files": [], "form": {}}).encode()


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"null", b"0\nnull", b"00000000\n" + FORGED, FORGED, b"\xff" * 100, b"[" * 100_000],
    ids=lambda content: repr(content[:12]),
)
def test_a_file_without_its_checksum_is_ignored_and_replaced(kept: Kept, content: bytes) -> None:
    kept.file.write_bytes(content)
    assert kept.is_refused_and_replaced()


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b'"x"', b"5", b"{}", b'{"version": "x"}', b'{"files": []}', b"\xff", b"[" * 100_000],
    ids=lambda data: repr(data[:12]),
)
def test_a_file_of_another_shape_is_ignored_and_replaced(kept: Kept, data: bytes) -> None:
    kept.file.write_bytes(parsecache._checksum(data) + b"\n" + data)
    assert kept.is_refused_and_replaced()


# The second is what builds before the first release wrote, whose forms looked otherwise.
@pytest.mark.parametrize("version", ["0.0.1/2", "0.1.0"])
def test_a_form_of_another_version_is_ignored_and_replaced(kept: Kept, version: str) -> None:
    with patch.object(parsecache, "_VERSION", version):
        kept.keep()
        assert kept.is_used()
    assert kept.is_refused_and_replaced()


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_to_is_ignored_and_replaced(kept: Kept, mode: int) -> None:
    kept.file.chmod(mode)
    assert kept.is_refused_and_replaced()
    assert kept.file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_directory_that_others_can_write_to_is_not_used(kept: Kept, mode: int) -> None:
    before = kept.file.stat()
    kept.directory.chmod(mode)
    assert not kept.is_used()
    assert kept.file.stat() == before


def test_a_directory_behind_a_symlink_is_not_used(kept: Kept) -> None:
    real = kept.directory.rename(kept.directory.with_name("real"))
    kept.directory.symlink_to(real)
    assert not kept.is_used()


def test_a_symlink_in_place_of_the_file_is_ignored_and_replaced(kept: Kept, tmp_path: Path) -> None:
    file = kept.file
    elsewhere = file.rename(tmp_path / "elsewhere")
    content = elsewhere.read_bytes()
    file.symlink_to(elsewhere)
    assert kept.is_refused_and_replaced()
    assert not file.is_symlink()
    assert elsewhere.read_bytes() == content


def test_a_fifo_in_place_of_the_file_does_not_stop_the_run(kept: Kept) -> None:
    file = kept.file
    file.unlink()
    os.mkfifo(file, 0o600)
    assert kept.is_refused_and_replaced()


def test_what_another_user_kept_is_not_used(kept: Kept) -> None:
    with patch.object(os, "geteuid", lambda: 12345):
        assert not kept.is_used()
    assert kept.is_used()


@needs_root
def test_a_foreign_file_is_ignored_and_replaced(kept: Kept) -> None:
    os.chown(kept.file, 12345, -1)
    assert kept.is_refused_and_replaced()
    assert kept.file.stat().st_uid == 0


@needs_root
def test_a_foreign_directory_is_not_used(kept: Kept) -> None:
    os.chown(kept.directory, 12345, -1)
    assert not kept.is_used()


# -- keeping is no duty -----------------------------------------------------------------------------------------------


def _obstacle_file(path: Path) -> None:
    path.write_text("in the way")


def _obstacle_dangling(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere" / "deeper")


def _obstacle_unwritable(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root can write everywhere")
    path.mkdir(mode=0o500)


@pytest.mark.parametrize("obstacle", [_obstacle_file, _obstacle_dangling, _obstacle_unwritable])
def test_a_directory_that_cannot_be_used_is_no_failure(
    tmp_path: Path, settled: None, obstacle: Callable[[Path], None]
) -> None:
    obstacle(tmp_path / "cache")
    kept = Kept(tmp_path)
    assert not kept.is_used()


def test_a_full_disk_is_no_failure_and_leaves_the_old_form(kept: Kept) -> None:
    kept.conf.write_bytes(CONF + b"# changed\n")
    with patch.object(os, "rename", side_effect=OSError(28, "No space left on device")):
        kept.keep()
    assert not kept.cache.load([str(kept.conf)])


def test_what_is_made_is_private(kept: Kept) -> None:
    assert kept.directory.stat().st_mode & 0o777 == 0o700
    assert kept.file.stat().st_mode & 0o777 == 0o600


def _store_and_load(directory: str, path: str, number: int, rounds: int) -> None:
    cache = ParseCache(directory, "x")
    parsecache._SETTLED_NS = -1_000_000_000
    for _ in range(rounds):
        cache.store(cache.snapshot([path]), [number] * 5000)
        form = cache.load([path])
        # Some writer's whole form: never None, for each rename leaves a good one, and never a mixture.
        if form is None or len(form) != 5000 or len(set(form)) != 1:
            os._exit(1)


@pytest.mark.slow
def test_concurrent_writers_leave_a_whole_form(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    context = multiprocessing.get_context("spawn")
    arguments = str(tmp_path / "cache"), str(tmp_path / "file")
    writers = [context.Process(target=_store_and_load, args=(*arguments, number, 100)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert len(list((tmp_path / "cache").iterdir())) == 1


# -- nothing secret ---------------------------------------------------------------------------------------------------

CANARY = "canary-5f2d"


def _spellings(text: str) -> Iterator[bytes]:
    yield text.encode()
    for shift in range(3):
        # Base64 of a text within another: without the first and the last group, which depend on what is around it.
        yield base64.b64encode(b"-" * shift + text.encode())[4:-4]


def test_nothing_secret_of_a_kubeconfig_is_kept(tmp_path: Path, settled: None) -> None:
    pem = f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(b'public').decode()}\n-----END CERTIFICATE-----\n"
    user = {
        "client-certificate": "/etc/kubernetes/pki/client.pem",
        "client-key-data": base64.b64encode(f"key {CANARY}".encode()).decode(),
        "token": CANARY,
        "password": CANARY,
        "exec": {"env": [{"name": "X", "value": CANARY}]},
    }
    cluster = {"server": "https://10.0.0.1:6443", "certificate-authority-data": base64.b64encode(pem.encode()).decode()}
    document = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    }
    kubeconfig = tmp_path / "kubelet.conf"
    kubeconfig.write_text(json.dumps(document))
    flags = [f"--kubeconfig={kubeconfig}", f"--cache-dir={tmp_path}/cache"]
    found = [endpoint.find_endpoint(provider_settings.loads(flags, {})) for _ in range(2)]
    assert found[0] == found[1]
    (kept,) = (tmp_path / "cache").iterdir()
    content = kept.read_bytes()
    assert b"10.0.0.1" in content
    assert any(spelling in kubeconfig.read_bytes() for spelling in list(_spellings(CANARY))[1:])
    assert not [spelling for spelling in _spellings(CANARY) if spelling in content]
