"""``gc``: what it removes, what it leaves, and that it says so first."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from commandline import Done, typed
from conftest import NodeMaker
from crio_credential_provider import settings
from crio_credential_provider.commands import gc
from crio_credential_provider.kubernetes.pullintents import DIRECTORY
from crio_credential_provider.pull import authfile, handoff, sweep
from crio_credential_provider.pull.handoff import Line
from node import COMMAND, ENVIRONMENT, NGINX, Node

pytestmark = pytest.mark.process

APP = "quay.io/team/app"
STALE = authfile.file_name("team-alpha", NGINX)
OTHER = authfile.file_name("team-beta", APP)
TEMPORARY = f".{STALE}.4711.tmp"
HOUR = 3600.0


class Place:
    """A node's files; the command runs from the source tree, where coverage can measure it."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.auth = node.auth_dir
        self.auth.mkdir(parents=True, mode=0o700)
        self.pulling = node.root / "var/lib/kubelet" / DIRECTORY
        self.pulling.mkdir(parents=True)

    def put(self, name: str, age: float) -> Path:
        path = self.auth / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_text('{"auths":{"canary":{"auth":"canary"}}}')
        os.utime(path, (time.time() - age,) * 2)
        return path

    def put_in_use(self, age: float, repository: str = NGINX) -> Path:
        stem = authfile.file_name("team-alpha", repository).removesuffix(".json")
        return self.put(f"in-use/{stem}-{uuid.uuid4()}.json", age)

    def expect(self, image: str) -> None:
        path = self.pulling / f"sha256-{authfile.digest(image)}"
        path.write_text(json.dumps({"kind": "ImagePullIntent", "image": image}))

    def run(self, *arguments: str, **options: Any) -> Done:
        done = typed("gc", "--root", str(self.node.root), *arguments, **options)
        assert "canary" not in f"{done.out}{done.err}"
        return done


@pytest.fixture
def place(make_node: NodeMaker) -> Place:
    return Place(make_node(*COMMAND, journald=False))


# -- what goes, and what stays -----------------------------------------------------------------------------------------


def test_it_removes_what_nobody_comes_for_and_says_so(place: Place) -> None:
    stale, temporary = place.put(STALE, 2 * HOUR + 65), place.put(TEMPORARY, 90)
    done = place.run()
    assert (done.status, done.err) == (0, "")
    assert done.lines == [
        "Going to remove 2 files:",
        f"  {stale}",
        "    2h 1m old: the kubelet has no pull of this repository pending",
        f"  {temporary}",
        "    1m 30s old: left by a run of the plugin that was killed",
        "Removed 2 files.",
    ]
    assert os.listdir(place.auth) == []


def test_it_leaves_what_somebody_may_come_for(place: Place) -> None:
    kept = [
        place.put(STALE, 5),
        place.put(OTHER, 9999),
        place.put(TEMPORARY, 30),
        place.put("config.json", 9999),
        place.put_in_use(99 * HOUR),
    ]
    place.expect(f"{APP}:v1")
    done = place.run()
    assert (done.status, done.err) == (0, "")
    assert done.lines == [f"Nothing to do: no stale file in {place.auth}"]
    assert all(path.exists() for path in kept)


def test_a_node_without_intents_gives_an_hour(place: Place) -> None:
    place.pulling.rmdir()
    old, young = place.put(STALE, HOUR + 65), place.put(OTHER, HOUR - 60)
    done = place.run()
    assert done.status == 0
    assert "    1h 1m old: no pull took it, and this kubelet has no pull intents" in done.lines
    assert (old.exists(), young.exists()) == (False, True)


def test_without_a_directory_there_is_nothing_to_do(place: Place) -> None:
    place.auth.rmdir()
    done = place.run("--in-use")
    assert (done.status, done.out, done.err) == (0, f"Nothing to do: {place.auth}: no such directory\n", "")
    assert not (place.node.root / "run").exists()


def test_a_directory_that_is_named_must_be_there(place: Place) -> None:
    missing = place.node.root / "nonexistent"
    for output in ("text", "json"):
        done = place.run("--auth-dir", str(missing), "--output", output)
        assert_fault(done, f"--auth-dir: {missing}: no such directory")
        assert done.out == ""


UNIT = "[Service]\nExecStart=/usr/bin/kubelet --image-credential-provider-config=/etc/kubernetes/providers.yaml\n"


def configure(node: Node, *arguments: str) -> Path:
    """The kubelet's configuration of the plugin."""
    node.write("etc/systemd/system/kubelet.service", UNIT)
    ours = {"name": "crio-credential-provider", "args": arguments}
    text = json.dumps({"kind": "CredentialProviderConfig", "providers": [ours]})
    return node.write("etc/kubernetes/providers.yaml", text)


def test_the_kubelet_s_configuration_counts(place: Place) -> None:
    """It looks where the plugin writes, on the node below --root."""
    config = configure(place.node, "--auth-dir=/run/elsewhere", "--stale-after=2m")
    elsewhere = place.node.root / "run/elsewhere"
    elsewhere.mkdir(parents=True, mode=0o700)
    for name, age in ((STALE, 200), (OTHER, 60)):
        (elsewhere / name).write_text("{}")
        os.utime(elsewhere / name, (time.time() - age,) * 2)
    usual = place.put(STALE, 60)
    done = place.run()
    assert (done.status, done.err) == (0, "")
    assert done.lines[0] == f"Note: the plugin's arguments come from {config}, the kubelet's configuration"
    assert done.lines[-1] == "Removed 1 file."
    assert os.listdir(elsewhere) == [OTHER] and usual.exists()
    # What a person gives goes before it.
    assert place.run("--auth-dir", str(place.auth), "--stale-after=20s").status == 0
    assert not usual.exists()


def test_a_configuration_that_the_plugin_refuses_is_a_fault(place: Place) -> None:
    config = configure(place.node, "--none")
    path = place.put(STALE, 60)
    assert_fault(place.run(), f"{config}: ", "--none")
    assert path.exists()


def test_a_dry_run_only_tells(place: Place) -> None:
    stale, orphan = place.put(STALE, 60), place.put_in_use(25 * HOUR)
    done = place.run("--dry-run", "--in-use")
    assert (done.status, done.err) == (0, "")
    assert done.lines[0] == "Would remove 2 files:"
    assert f"  {stale}" in done.lines and f"  {orphan}" in done.lines
    assert "emoved" not in done.out
    assert stale.exists() and orphan.exists()
    # Not even a lock.
    assert not (place.node.root / "run").exists()


def test_a_file_at_which_a_run_is_at_work_is_left(place: Place) -> None:
    stale, other = place.put(STALE, 60), place.put(OTHER, 60)
    line = Line(str(place.node.cache_dir))
    assert line.try_enter(STALE)
    done = place.run()
    assert (done.status, done.err) == (0, "")
    assert done.lines[-2:] == ["Removed 1 file.", f"Skipped {stale}: in use by a run of the plugin"]
    assert (stale.exists(), other.exists()) == (True, False)


# -- in-use ------------------------------------------------------------------------------------------------------------


def test_in_use_takes_orphans_older_than_its_bound_alone(place: Place) -> None:
    old, young = place.put_in_use(25 * HOUR), place.put_in_use(23 * HOUR)
    # Nothing that CRI-O would have named so.
    foreign = [
        place.put(f"in-use/{name}", 99 * HOUR)
        for name in (
            STALE,
            "x.json",
            f"x-{uuid.uuid4()}.json",
            f"{STALE[:-5]}-{uuid.uuid4()}",
            f"{uuid.uuid4()}.json",
            f"{STALE[:-5]}-{'A' * 8}-{'A' * 4}-{'A' * 4}-{'A' * 4}-{'A' * 12}.json",
        )
    ]
    link = place.auth / "in-use" / f"{STALE[:-5]}-{uuid.uuid4()}.json"
    link.symlink_to(young)
    os.utime(link, (0, 0), follow_symlinks=False)
    assert place.run().lines == [f"Nothing to do: no stale file in {place.auth}"]
    done = place.run("--in-use")
    assert (done.status, done.err) == (0, "")
    assert done.lines == [
        "Going to remove 1 file:",
        f"  {old}",
        "    1d 1h old: CRI-O took it for a pull that cannot be running any more",
        "Removed 1 file.",
    ]
    assert not old.exists() and young.exists() and link.is_symlink()
    assert all(path.exists() for path in foreign)
    assert place.run("--in-use").lines == [
        f"Nothing to do: no stale file in {place.auth}, and none in in-use/ that is older than 1d"
    ]


@pytest.mark.parametrize(
    ("after", "goes"), [("2h", False), ("1h", True), ("30m", True), ("1.4h", True), ("1.6h", False), ("5000", True)]
)
def test_the_bound_of_in_use(place: Place, after: str, goes: bool) -> None:
    path = place.put_in_use(1.5 * HOUR)
    assert place.run("--in-use", "--in-use-after", after).status == 0
    assert path.exists() != goes


def test_an_awaited_image_s_orphan_goes_as_well(place: Place) -> None:
    """CRI-O never uses the name again."""
    path = place.put_in_use(25 * HOUR)
    place.expect("docker.io/nginx")
    assert place.run("--in-use").status == 0
    assert not path.exists()


# -- told before it is done --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["text", "json"])
def test_nothing_is_removed_before_it_was_told(place: Place, output: str) -> None:
    """Whoever reads the pipe has the list while every file is still there."""
    paths = [place.put(authfile.file_name("team-alpha", f"quay.io/x/app{n}"), 60) for n in range(1000)]
    command = [*COMMAND, "gc", "--root", str(place.node.root), "--output", output]
    # A small pipe, which 1,000 paths do not fit into: the command stands still in the middle of its list.
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with subprocess.Popen(command, stdout=writing, env=ENVIRONMENT) as process, open(reading, "rb") as pipe:
        os.close(writing)
        pipe.peek(1)
        time.sleep(0.3)
        assert process.poll() is None
        assert all(path.exists() for path in paths)
        text = pipe.read().decode()
    assert process.returncode == 0 and os.listdir(place.auth) == []
    told = [path for path in paths if str(path) in text]
    assert len(told) == 1000


@pytest.mark.parametrize("output", ["text", "json"])
def test_what_cannot_be_told_is_not_done(place: Place, output: str) -> None:
    path = place.put(STALE, 60)
    with open("/dev/full", "w") as full:
        done = place.run("--output", output, stdout=full)
    assert done.status == 1
    assert done.err.count("\n") == 1 and "No space left on device" in done.err
    assert path.exists()


# -- JSON --------------------------------------------------------------------------------------------------------------


def test_the_same_for_a_program(place: Place) -> None:
    stale, held, orphan = place.put(STALE, 60), place.put(OTHER, 120), place.put_in_use(30 * HOUR)
    line = Line(str(place.node.cache_dir))
    assert line.try_enter(OTHER)
    done = place.run("--in-use", "--output=json")
    assert (done.status, done.err) == (0, "")
    told = done.report
    ages = {file["path"]: file.pop("ageSeconds") for file in told["files"]}
    assert [round(ages[str(path)] / 10) for path in (stale, held, orphan)] == [6, 12, 10800]
    nobody = "the kubelet has no pull of this repository pending"
    assert told == {
        "schemaVersion": 1,
        "authDir": str(place.auth),
        "hasPullIntents": True,
        "problems": [],
        "dryRun": False,
        "inUseAfterSeconds": 86400,
        "files": [
            {"path": str(held), "why": nobody},
            {"path": str(stale), "why": nobody},
            {"path": str(orphan), "why": "CRI-O took it for a pull that cannot be running any more"},
        ],
        "removed": [str(stale), str(orphan)],
        "left": [{"path": str(held), "why": sweep.IN_TURN}],
    }


def test_a_dry_run_and_nothing_to_do_for_a_program(place: Place) -> None:
    done = place.run("--output=json").report
    assert (done["files"], done["removed"], done["left"], done["inUseAfterSeconds"]) == ([], [], [], None)
    path = place.put(STALE, 60)
    done = place.run("--output=json", "--dry-run").report
    assert done["dryRun"] and [file["path"] for file in done["files"]] == [str(path)]
    assert (done["removed"], done["left"], path.exists()) == ([], [], True)


# -- faults ------------------------------------------------------------------------------------------------------------


def assert_fault(done: Done, *words: str, status: int = 1) -> None:
    assert done.status == status, done.err
    assert done.err.startswith("crio-credential-provider gc: ") and done.err.count("\n") == 1, done.err
    for word in words:
        assert word in done.err, done.err


def test_an_auth_directory_that_is_none_is_a_fault(place: Place) -> None:
    place.auth.rmdir()
    place.auth.write_text("")
    done = place.run()
    assert_fault(done, f"cannot read the directory {place.auth}: Not a directory", "--auth-dir")
    assert done.out == ""


def test_an_in_use_that_is_no_directory_is_a_fault(place: Place) -> None:
    place.put("in-use", 0)
    assert place.run().status == 0
    assert_fault(done := place.run("--in-use"), "in-use: Not a directory; check --auth-dir")
    assert "run this as root" not in done.err


def test_without_the_lock_nothing_is_removed(place: Place) -> None:
    """A run of the plugin could be replacing the file."""
    path = place.put(STALE, 60)
    place.node.write("run/crio-credential-provider", "")
    done = place.run()
    assert_fault(done, "cannot lock", handoff.LOCK_FILE, "run this as root", "--cache-dir")
    assert path.exists() and done.out == ""
    # A plugin that keeps no cache has no lock, either.
    assert place.run("--cache-dir=").status == 0
    assert not path.exists()


def test_what_the_system_does_not_let_go_is_a_fault_and_stops_no_other(place: Place) -> None:
    other = place.put(OTHER, 60)
    for name in (STALE, authfile.file_name("team-gamma", NGINX)):
        (place.auth / name).mkdir()
        os.utime(place.auth / name, (0, 0))
    done = place.run()
    assert_fault(done, "cannot remove", STALE, "Is a directory", "cannot remove 2 files, ")
    assert done.lines[-1] == "Removed 1 file." and not other.exists()
    place.put(OTHER, 60)
    done = place.run("--output=json")
    assert_fault(done, "cannot remove")
    assert [entry["why"] for entry in done.report["left"]] == ["Is a directory"] * 2
    assert done.report["removed"] == [str(other)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_somebody_else_than_root_is_told_to_be_root(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    path = place.put(STALE, 60)
    os.seteuid(65534)
    try:
        status = gc.run(["--auth-dir", str(place.auth)])
    finally:
        os.seteuid(0)
    out, err = capsys.readouterr()
    assert (status, out) == (1, "")
    assert f"cannot read the directory {place.auth}: Permission denied; run this as root" in err
    assert path.exists()


def test_broken_intents_are_told(place: Place) -> None:
    (place.pulling / "sha256-00").write_text("{")
    place.put(STALE, 60)
    done = place.run("--dry-run")
    assert done.status == 0
    note = r"Note: pull intent sha256-00 cannot be used: \w+; until this is corrected, unused files are kept for"
    assert re.fullmatch(rf"{note} an hour", done.lines[0])
    assert done.lines[1].startswith("Nothing to do")
    assert len(place.run("--dry-run", "--output=json").report["problems"]) == 1
    old = place.put(STALE, HOUR + 65)
    done = place.run()
    assert "    1h 1m old: no pull took it, and not all pull intents can be read" in done.lines
    assert not old.exists()


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--stale-after", "soon"], ["--stale-after", "'soon'", "20s"]),
        (["--stale-after="], ["--stale-after", "duration"]),
        (["--auth-dir", "relative"], ["--auth-dir", "an absolute path"]),
        (["--in-use", "--in-use-after", "1d"], ["--in-use-after", "'1d'", "a duration"]),
        (["--in-use", "--in-use-after", "59s"], ["--in-use-after", "between 60s and 864000s"]),
        (["--in-use", "--in-use-after", "h"], ["--in-use-after"]),
        (["--in-use-after", "2h"], ["--in-use-after", "requires --in-use"]),
        (["--in-use", "--in-use-after", "5mh"], ["--in-use-after"]),
        (["--in-use", "--in-use-after", "-1h"], ["--in-use-after"]),
        (["--outptu", "json"], ["--outptu"]),
        (["--output", "yaml"], ["--output", "yaml"]),
        (["--dry"], ["--dry"]),
        (["file.json"], ["file.json"]),
        (["--secrets-from", "pod"], ["--secrets-from"]),
    ],
    ids=" ".join,
)
def test_wrong_usage(place: Place, arguments: list[str], words: list[str]) -> None:
    path = place.put(STALE, 60)
    done = place.run(*arguments)
    assert done.status == 2 and done.out == ""
    for word in words:
        assert word in done.err, done.err
    assert "Traceback" not in done.err
    assert path.exists()


FLAGS = {
    "auth-dir": "/a/auth",
    "kubelet-root-dir": "/a/kubelet",
    "stale-after": "33s",
    "cache-dir": "/a/cache",
    "root": "/a/root",
}


def test_its_flags_are_the_plugin_s_with_the_same_defaults(place: Place) -> None:
    text = re.sub(r"\s+", " ", place.run("--help").out)
    for name in FLAGS:
        flag = settings.FLAGS_BY_NAME[name]
        assert f"--{name} {flag.metavar} {flag.help}" in text
        assert not flag.default or f"{flag.help} (default {flag.default})" in text


@pytest.mark.parametrize("as_variable", [False, True])
def test_a_flag_or_variable_means_what_it_means_to_the_plugin(place: Place, as_variable: bool) -> None:
    """Each of them changes what is found."""

    def run(**values: object) -> list[str]:
        texts = {name.replace("_", "-"): str(value) for name, value in values.items()}
        if as_variable:
            env = {settings.FLAGS_BY_NAME[name].variable: text for name, text in texts.items()}
            done = place.run("--output=json", "--dry-run", env=env)
        else:
            done = place.run("--output=json", "--dry-run", *(f"--{name}={text}" for name, text in texts.items()))
        assert done.status == 0, done.err
        return [os.path.basename(file["path"]) for file in done.report["files"]]

    place.put(STALE, 60)
    elsewhere = place.node.root / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / OTHER).write_text("{}")
    os.utime(elsewhere / OTHER, (0, 0))
    assert run() == [STALE]
    assert run(stale_after="2m") == []
    assert run(auth_dir=elsewhere) == [OTHER]
    assert run(kubelet_root_dir=elsewhere) == []


def test_the_lock_is_the_plugin_s(place: Place) -> None:
    place.put(STALE, 60)
    elsewhere = place.node.root / "elsewhere"
    line = Line(str(elsewhere))
    assert line.try_enter(STALE)
    assert "in use by a run of the plugin" in place.run("--cache-dir", str(elsewhere)).out


def test_the_help_has_examples_and_says_what_in_use_risks(place: Place) -> None:
    done = place.run("--help")
    assert (done.status, done.err) == (0, "")
    text = re.sub(r"\s+", " ", done.out)
    examples = re.findall(r"crio-credential-provider gc (--[^\n]*?)  ", done.out)
    assert len(examples) == 3
    assert "CRI-O may be running" in text and "loses its credentials" in text
    assert "Exit status: 0 " in text
    for example in examples:
        assert place.run(*example.split()).status == 0


def test_the_program_lists_it() -> None:
    done = subprocess.run([*COMMAND, "--help"], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert re.search(r"^    gc +remove stale auth files", done.stdout, re.MULTILINE)


def test_the_built_program_has_it(place: Place, plugin: Path) -> None:
    path = place.put(STALE, 60)
    command = [str(plugin), "gc", "--root", str(place.node.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Removed 1 file." in done.stdout and not path.exists()
