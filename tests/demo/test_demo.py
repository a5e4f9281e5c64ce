"""`demo` tells the whole job truly, names the step that failed, shows no secret and leaves nothing behind."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from node import SOURCES

pytestmark = pytest.mark.process

STEPS = 13
# Seconds; the demo itself takes one.
PATIENCE = 60


@pytest.fixture
def scratch() -> Iterator[Path]:
    """The demo's TMPDIR. Short, since pytest's own would leave no room for a socket's name."""
    path = Path(tempfile.mkdtemp(prefix="d"))
    yield path
    shutil.rmtree(path)


def environment(scratch: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "PYTHONPATH")}
    return {**kept, "TMPDIR": str(scratch), **more}


def demo(
    command: Sequence[str | Path], scratch: Path, *arguments: str | Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, "demo", *arguments],
        cwd="/",
        env=environment(scratch, **variables),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.fixture(params=["launcher", "module"])
def started(request: pytest.FixtureRequest, plugin: Path) -> tuple[list[str], dict[str, str]]:
    """The two ways in which a person starts it: a command, and variables."""
    if request.param == "launcher":
        return [str(plugin)], {}
    return [sys.executable, "-m", "crio_credential_provider"], {"PYTHONPATH": str(SOURCES)}


TELLING = {
    1: ["API server", "team-alpha", "team-beta", "anonymous pull  401"],
    2: ["[[registry.mirror]]", "source 1", "docker.io/library/nginx:1.27 (blocked"],
    3: ['"serviceAccountToken": "<token>"', '"image": "docker.io/library/nginx"', "exit status  0"],
    4: ["secret used   mirror-credentials", "system:serviceaccount:team-alpha:default", '"cacheDuration": "0s"'],
    5: [
        "/etc/crio/auth/team-alpha-7e59ad64326bc321517fb6fc6586de5ee149178394d9edfa2a877176cdf6fad5.json",
        "mode  0600",
        '"auth": "***"',
        '/hub/library/nginx": {',
    ],
    6: ["user             'alpha'", "mirror's answer  200", "pulled           sha256:", "auth files left  none"],
    7: ["Wrote auth file to", "OUTCOME            auth-file-written", "POD                web"],
    8: ["team-beta-7e59ad64", "200 from the mirror as user 'beta'"],
    9: ["pulls of team-alpha                  came as user 'alpha' only", "came as user 'beta' only"],
    10: ["refused: 401 from the mirror", "200 from the mirror as user 'alpha'"],
    11: ["exit status   0", "auth files    none", "no pull secret of", "refused: 401"],
    12: ["exit status   1", "answered 403", "kubectl -n team-delta create role", "refused: 401"],
    13: ["exit status   0", "--verb=list --resource=secrets", "200 from the mirror as user 'delta'"],
}


def test_every_step_is_told_and_nothing_is_left(started: tuple[list[str], dict[str, str]], scratch: Path) -> None:
    command, variables = started
    done = demo(command, scratch, **variables)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert f"All {STEPS} steps passed" in done.stdout
    steps = re.split(r"^ ?(\d+)  (?=\S)", done.stdout, flags=re.MULTILINE)
    told = {int(number): text for number, text in zip(steps[1::2], steps[2::2], strict=True)}
    assert list(told) == list(TELLING) == list(range(1, STEPS + 1))
    for number, words in TELLING.items():
        assert "\n    ok\n" in told[number]
        for word in words:
            assert word in told[number], (number, word)
    for line in done.stdout.splitlines():
        assert len(line) <= 100 or len(max(line.split(), key=len)) > 80, line
    assert done.stdout.isascii() and "\x1b" not in done.stdout
    assert list(scratch.iterdir()) == []


def test_it_tells_a_program_as_well(plugin: Path, scratch: Path) -> None:
    done = demo([plugin], scratch, "--output", "json")
    document: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode, document["asTold"], document["plugin"]) == (0, True, str(plugin))
    assert [step["number"] for step in document["steps"]] == list(range(1, STEPS + 1))
    assert all(step["asTold"] and step["tells"] and not step["failure"] for step in document["steps"])
    assert list(scratch.iterdir()) == []


def test_the_operator_s_environment_does_not_reach_the_embedded_node(plugin: Path, scratch: Path) -> None:
    strange = {"CRIO_CREDENTIAL_PROVIDER_AUTH_DIR": "/nowhere", "CRIO_CREDENTIAL_PROVIDER_NO_SUCH": "x"}
    assert demo([plugin], scratch, HTTPS_PROXY="http://127.0.0.1:1", **strange).returncode == 0


def test_a_tmpdir_too_long_for_a_socket_is_no_obstacle(plugin: Path, scratch: Path) -> None:
    long = scratch / ("x" * 100)
    long.mkdir()
    before = set(Path("/tmp").glob("crio-credential-provider-demo-*"))
    assert demo([plugin], long).returncode == 0
    assert list(long.iterdir()) == []
    # Those of demos that run beside this test go by themselves.
    end = time.monotonic() + PATIENCE
    while any(path.exists() for path in set(Path("/tmp").glob("crio-credential-provider-demo-*")) - before):
        assert time.monotonic() < end, "the demo left its directory"
        time.sleep(0.05)


# -- other plugins in the real one's place -----------------------------------------------------------------------------

# Each runs the real plugin; its body changes what that has done. `files` are the auth files that it left.
WRAPPER = """\
#!{python}
import base64, json, os, pathlib, re, subprocess, sys, time
root = pathlib.Path(sys.argv[sys.argv.index("--root") + 1])
side = pathlib.Path({side!r})
request = sys.stdin.buffer.read()
token = json.loads(request)["serviceAccountToken"]
done = subprocess.run([{real!r}, *sys.argv[1:]], input=request, capture_output=True)
status, stdout, stderr = done.returncode, done.stdout, done.stderr
files = sorted(root.glob("etc/crio/auth/*.json"), key=lambda file: file.stat().st_mtime_ns)[-1:]
def documents():
    for file in files:
        yield file, json.loads(file.read_bytes())
{body}
sys.stdout.buffer.write(stdout)
sys.stderr.buffer.write(stderr)
sys.exit(status)
"""


def wrapped(real: Path, side: Path, body: str) -> Path:
    side.mkdir(exist_ok=True)
    path = side / "plugin"
    path.write_text(WRAPPER.format(python=sys.executable, real=str(real), side=str(side), body=body))
    path.chmod(0o755)
    return path


KEEP_FIRST = """\
for file, document in documents():
    kept = side / {name}
    if not kept.exists():
        kept.write_bytes(file.read_bytes())
    file.write_bytes(kept.read_bytes())
"""
REKEYED = """\
for file, document in documents():
    document["auths"] = {new}
    file.write_text(json.dumps(document))
"""

BROKEN: Mapping[str, tuple[str, int, str]] = {
    "another-team-s-credential": (KEEP_FIRST.format(name="'any'"), 8, "not the credential of team-beta"),
    "a-cached-credential": (KEEP_FIRST.format(name="file.name"), 10, "not the credential of team-alpha"),
    "writes-nothing": ("[file.unlink() for file in files]", 5, "no auth file was written"),
    "exits-1": ("status, stderr = 1, b'out of order\\n'", 3, "exit status 1: out of order"),
    "exits-1-silently": ("status, stderr = 1, b''", 3, "exit status 1: nothing on stderr"),
    "dies": ("os.kill(os.getpid(), 9)", 3, "signal 9"),
    "readable-by-all": ("[file.chmod(0o644) for file in files]", 5, "its mode is 0644, not 0600"),
    "the-host-as-key": (
        REKEYED.format(new="{key.partition('/')[0]: entry for key, entry in document['auths'].items()}"),
        5,
        "its keys are",
    ),
    "one-key-too-many": (REKEYED.format(new="document['auths'] | {'quay.io': {'auth': 'eDp5'}}"), 5, "its keys are"),
    "a-hollow-entry": (REKEYED.format(new="dict.fromkeys(document['auths'], {})"), 5, "not the credential of"),
    "half-a-file": ("[file.write_bytes(file.read_bytes()[:-9]) for file in files]", 5, "line"),
    "the-wrong-name": ("[file.rename(file.with_name('team-alpha-0.json')) for file in files]", 5, "team-alpha-0.json"),
    "a-cached-answer": ("stdout = stdout.replace(b'0s', b'10m')", 4, "would keep the answer: Image, 10m"),
    "no-pull-record": (
        "stdout = re.sub(rb',\"auth\":.*', b'}', stdout) if b'auth' in stdout else stdout",
        4,
        "the keys of auth are []",
    ),
    "hands-the-kubelet-a-credential": (
        'stdout = stdout.replace(b\'"username":""\', b\'"username":"x"\')',
        4,
        "returned a credential",
    ),
    "an-unknown-field": ("stdout = stdout.replace(b'{', b'{\"more\":1,', 1)", 3, "has an unknown field, expected"),
    "no-answer": ("stdout = b''", 3, "standard output is not JSON"),
    "talks-on-stderr": ("stderr = b'all is well\\n'", 3, "it wrote on stderr: all is well"),
    "tells-the-token": ("stderr = token.encode()", 3, "wrote a password or a token"),
    "a-file-without-a-secret": (
        "files or (root / 'etc/crio/auth/team-gamma-0.json').write_text('{}')",
        11,
        "there are files",
    ),
    "hides-the-missing-role": ("status = 0", 12, "the exit status is 0, not 1"),
    "no-remedy": ("stderr = stderr.replace(b'kubectl', b'kube')", 13, "no kubectl command"),
    "too-broad-a-remedy": ("stderr = stderr.replace(b'=secrets', b'=*')", 13, "it grants list on *"),
}


@pytest.mark.parametrize(("body", "step", "words"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_is_caught_at_the_step_that_shows_it(
    plugin: Path, scratch: Path, tmp_path: Path, body: str, step: int, words: str
) -> None:
    done = demo([plugin], scratch, "--plugin", wrapped(plugin, tmp_path, body))
    assert done.returncode == 1
    shown = " ".join(done.stdout.split())
    assert words in shown.partition("FAILED: ")[2]
    (line,) = done.stderr.splitlines()
    assert line.startswith(f'crio-credential-provider demo: step {step}, "'), line
    assert words in line
    assert f"\n{step + 1:2}  " not in done.stdout and "steps passed" not in done.stdout
    assert "eyJ" not in done.stdout + done.stderr
    assert list(scratch.iterdir()) == []


SPY = """\
secrets = token.split(".") + [token]
for file, document in documents():
    for entry in document["auths"].values():
        secrets += [entry["auth"], base64.b64decode(entry["auth"]).decode().partition(":")[2]]
with (side / "seen").open("a") as seen:
    print(*secrets, sep="\\n", file=seen)
"""


def test_no_password_and_no_token_is_shown_or_kept(plugin: Path, scratch: Path, tmp_path: Path) -> None:
    spy = wrapped(plugin, tmp_path, SPY)
    written = []
    for output in ("text", "json"):
        done = demo([plugin], scratch, "--plugin", spy, "--output", output, "--keep")
        assert (done.returncode, done.stderr) == (0, "")
        written.append(done.stdout)
    directories = list(scratch.iterdir())
    assert f"The node's files are kept in {directories[0]}" in written[0] or str(directories[1]) in written[0]
    assert json.loads(written[1])["directory"] in map(str, directories)
    for directory in directories:
        assert (directory / "etc/containers/registries.conf").is_file()
        written += [file.read_text() for file in directory.rglob("*") if file.is_file()]
    seen = set((tmp_path / "seen").read_text().split())
    # Nine runs each: a token of three parts each time, and two forms of four (with the rotated, five) passwords.
    assert len(seen) >= 2 * (9 * 3 + 2 * 4)
    for text in written:
        assert [secret for secret in seen if secret in text] == []


# -- ends ahead of time ------------------------------------------------------------------------------------------------

SLEEPER = """\
#!{python}
import os, pathlib, time
pathlib.Path({side!r}, "pid.new").write_text(str(os.getpid()))
os.rename({side!r} + "/pid.new", {side!r} + "/pid")
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ended_by_a_signal_it_leaves_nothing(
    plugin: Path, scratch: Path, tmp_path: Path, number: signal.Signals
) -> None:
    sleeper = tmp_path / "plugin"
    sleeper.write_text(SLEEPER.format(python=sys.executable, side=str(tmp_path)))
    sleeper.chmod(0o755)
    command = [str(plugin), "demo", "--plugin", str(sleeper)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command,
        env=environment(scratch),
        stdout=pipe,
        stderr=pipe,
        text=True,
        preexec_fn=functools.partial(signal.signal, number, signal.SIG_DFL),  # the tests may run below nohup
    ) as running:
        wait_for(tmp_path / "pid")
        assert list(scratch.iterdir())
        running.send_signal(number)
        _, stderr = running.communicate(timeout=PATIENCE)
    assert (running.returncode, stderr) == (128 + number, "")
    assert list(scratch.iterdir()) == []
    # Whoever its parent is now may be late to take notice.
    process = Path("/proc", (tmp_path / "pid").read_text().strip(), "stat")
    end = time.monotonic() + PATIENCE
    while process.exists() and process.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < end, "the plugin outlives the demo"
        time.sleep(0.01)


def wait_for(path: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.01)


def closed_pipe() -> int:
    read, write = os.pipe()
    os.close(read)
    return write


@pytest.mark.parametrize(
    ("output", "reason"),
    [(closed_pipe, ""), (lambda: os.open("/dev/full", os.O_WRONLY), "No space left on device")],
    ids=["reader-gone", "disk-full"],
)
def test_an_output_that_takes_nothing_is_named_unless_its_reader_is_gone(
    plugin: Path, scratch: Path, output: Callable[[], int], reason: str
) -> None:
    descriptor = output()
    done = subprocess.run(
        [plugin, "demo"],
        env=environment(scratch),
        stdout=descriptor,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    os.close(descriptor)
    told = f"crio-credential-provider demo: cannot write to standard output: {reason}\n"
    expected = told if reason else ""
    assert (done.returncode, done.stderr) == (1, expected)
    assert list(scratch.iterdir()) == []


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, False)], ids=str
)
def test_colour_is_for_terminals_that_want_it(
    plugin: Path, scratch: Path, variables: dict[str, str], coloured: bool
) -> None:
    try:
        ours, theirs = pty.openpty()
    except OSError as error:
        pytest.skip(f"no terminal can be made here: {error}")
    with subprocess.Popen([plugin, "demo"], env=environment(scratch, **variables), stdout=theirs) as running:
        os.close(theirs)
        shown = b""
        # Linux ends a terminal that nobody writes to any more with EIO.
        with contextlib.suppress(OSError):
            while block := os.read(ours, 65536):
                shown += block
        os.close(ours)
    assert running.returncode == 0
    assert (b"\x1b[1m" in shown, b"\x1b[32m" in shown, b"\x1b" in shown) == (coloured,) * 3


def test_help_shows_an_example_that_runs(plugin: Path, scratch: Path) -> None:
    done = demo([plugin], scratch, "--help")
    assert done.returncode == 0
    # The other is for a real containerd: test_demo_containerd.py.
    _, example = re.findall(r"^  (crio-credential-provider demo .*)$", done.stdout, re.MULTILINE)
    word, *arguments = example.split()[1:]
    arguments[arguments.index("--plugin") + 1] = str(plugin)
    assert word == "demo"
    assert json.loads(demo([plugin], scratch, *arguments).stdout)["asTold"] is True
    assert max(map(len, done.stdout.splitlines())) <= 100


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--plugins", "x"], "--plugins"),
        (["extra"], "extra"),
        (["--output", "yaml"], "yaml"),
        (["--plugin", "/no/such/plugin"], "/no/such/plugin: no such file"),
        (["--plugin", "/etc"], "/etc: is a directory"),
        (["--plugin", "/etc/passwd"], "/etc/passwd: not an executable file"),
    ],
    ids=str,
)
def test_wrong_usage_is_named(plugin: Path, scratch: Path, arguments: list[str], words: str) -> None:
    done = demo([plugin], scratch, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert list(scratch.iterdir()) == []
