"""`demo --runtime containerd`: told truly with a real containerd, which ends with it, whatever happens."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from real_programs import cannot, need

pytestmark = pytest.mark.process

STEPS = 11
PATIENCE = 60
TELLING = {
    1: ["containerd ", "by ctr, since its CRI socket", "anonymous pull  401 from the mirror"],
    2: ["override_path = true", "the server is the mirror too"],
    3: ["--runtime containerd", '"image": "docker.io/library/nginx"'],
    4: ['"username": "alpha"', '"password": "***"', '"cacheDuration": "0s"'],
    5: ["from the mirror as user 'alpha'", "200  alpha   HEAD /v2/hub/library/nginx", "Docker Hub's log   nothing"],
    6: ["OUTCOME          answered", "Answered with credentials for"],
    7: ["from the mirror as user 'beta'"],
    8: ["no pull secret of", "answer             without auth", "refused: 401"],
    9: ["refused: 401 from the mirror; Docker Hub was not asked", "from the mirror as user 'alpha'"],
    10: [
        "Answered without a credential",
        "as well; at the top of",
        "and override_path = true",
        "neither was shown a credential",
    ],
    11: ["401  alpha   HEAD /v2/library/nginx/manifests/1.27"],
}


@pytest.fixture
def scratch() -> Iterator[Path]:
    """The demo's TMPDIR, short enough for a socket's name."""
    path = Path(tempfile.mkdtemp(prefix="d"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def containerd() -> None:
    need("containerd", "ctr")
    if os.geteuid() != 0:
        cannot("containerd runs as root only")


def start(plugin: Path, scratch: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [plugin, "demo", "--runtime", "containerd", *words],
        cwd="/",
        env={**os.environ, "TMPDIR": str(scratch), "HTTPS_PROXY": "http://127.0.0.1:1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def running(scratch: Path) -> list[str]:
    """Command lines of processes that have something below this directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(scratch) in line:
            found.append(line)
    return found


def wait_until(is_so: object, what: str) -> None:
    assert callable(is_so)
    limit = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < limit, what
        time.sleep(0.02)


@pytest.mark.usefixtures("containerd")
def test_every_step_is_told_and_nothing_is_left(plugin: Path, scratch: Path) -> None:
    process = start(plugin, scratch)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, ""), out
    assert f"All {STEPS} steps passed" in out
    steps = re.split(r"^ ?(\d+)  (?=\S)", out, flags=re.MULTILINE)
    told = {int(number): text for number, text in zip(steps[1::2], steps[2::2], strict=True)}
    assert list(told) == list(TELLING) == list(range(1, STEPS + 1))
    for number, words in TELLING.items():
        assert "\n    ok\n" in told[number]
        for word in words:
            assert word in " ".join(told[number].split()) or word in told[number], (number, word)
    assert list(scratch.iterdir()) == []
    assert running(scratch) == []


@pytest.mark.usefixtures("containerd")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_containerd_ends_with_the_demo(number: signal.Signals, plugin: Path, scratch: Path) -> None:
    process = start(plugin, scratch)
    wait_until(lambda: list(scratch.rglob("containerd.sock")), "containerd did not start")
    process.send_signal(number)
    process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    wait_until(lambda: running(scratch) == [], f"still there: {running(scratch)}")
    if number != signal.SIGKILL:
        assert list(scratch.iterdir()) == []


@pytest.mark.usefixtures("containerd")
def test_a_containerd_that_does_not_start_is_told(plugin: Path, scratch: Path) -> None:
    """One that refuses its configuration, in the real one's place."""
    needs_root = subprocess.run(["unshare", "--mount", "true"], check=False).returncode == 0
    if not needs_root:
        cannot("no mount namespaces here")
    false = shutil.which("false")
    command = f"mount --bind {false} $(command -v containerd) && exec {plugin} demo --runtime containerd"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command],
        env={**os.environ, "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "crio-credential-provider demo: containerd does not start here: it says nothing\n"
    assert list(scratch.iterdir()) == []


def test_what_is_missing_is_told(plugin: Path, scratch: Path) -> None:
    """Where nobody has installed it, and where it is another user's."""
    user = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    scratch.chmod(0o777)
    command = [plugin, "demo", "--runtime", "containerd"]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, **user)  # type: ignore[call-overload]
    except PermissionError:
        pytest.skip("the program lies where only root may go")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(
        r"not installed: .*; install containerd|containerd runs as root only; run this as root", done.stderr
    )
    assert list(scratch.iterdir()) == []
