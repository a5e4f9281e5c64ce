"""Makes .venv: `make_venv.py build` with what a build needs, `dev` with the test tools as well, `fuzz` with atheris.

Runs on the bare interpreter, so standard library only. It also works where Debian's python3 has neither pip nor
ensurepip (package python3-venv): root gets that package installed, anybody else borrows pip from Debian's package
python3-pip-whl, unpacked into a temporary directory. Afterwards:

    .venv/wheels/     the run-time dependencies as wheels; the program and the tests are installed from these same files
    .venv/*.made      what it was made from; other dependencies or another interpreter make it anew
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:
    sys.exit(
        f"make_venv: Python 3.11 or newer is needed, {sys.executable} is {sys.version.split()[0]}\n"
        "hint: name another one: make PYTHON=python3.12 ..."
    )

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
WHEELS = VENV / "wheels"
# A pyenv shim or another venv's python would tie .venv, and the launcher made from it, to something that moves.
INTERPRETER: str = os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def say(text: str) -> None:
    print(f"make_venv: {text}", file=sys.stderr, flush=True)


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(command, cwd=cwd, env=environment, check=True, stdin=subprocess.DEVNULL)


def works(*command: str | Path, cwd: Path = ROOT) -> bool:
    return subprocess.run(command, cwd=cwd, check=False, capture_output=True, stdin=subprocess.DEVNULL).returncode == 0


def pip(*arguments: str | Path) -> None:
    run(VENV / "bin/python", "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments)


def create_venv() -> None:
    """A fresh .venv with pip in it, by the first way that this machine allows."""
    shutil.rmtree(VENV, ignore_errors=True)
    has_ensurepip = importlib.util.find_spec("ensurepip") is not None
    if not has_ensurepip and not shutil.which("apt-get"):
        sys.exit(
            f"make_venv: {INTERPRETER} has no ensurepip, so no virtual environment can be made\n"
            "hint: install it (Debian and Ubuntu: package python3-venv), or name another Python: make PYTHON=..."
        )
    if has_ensurepip:
        run(INTERPRETER, "-m", "venv", VENV)
    elif os.geteuid() == 0:
        say("this python3 has no ensurepip: installing Debian's package python3-venv")
        run("apt-get", "update", "-qq")
        run("apt-get", "install", "-qq", "-y", "--no-install-recommends", "python3-venv")
        run(INTERPRETER, "-m", "venv", VENV)
    else:
        say("this python3 has no ensurepip: borrowing pip from Debian's package python3-pip-whl, installing nothing")
        run(INTERPRETER, "-m", "venv", "--without-pip", VENV)
        with tempfile.TemporaryDirectory() as scratch:
            wheel = debian_pip_wheel(Path(scratch))
            # A wheel is a zip file that Python runs from: this pip installs itself.
            run(VENV / "bin/python", wheel / "pip", "--quiet", "install", "--no-index", wheel)


def debian_pip_wheel(scratch: Path) -> Path:
    """Debian's pip wheel, unpacked below scratch; needs no root."""
    if not works("apt-get", "download", "python3-pip-whl", cwd=scratch):
        # A fresh machine has no package lists yet, and only root may fetch them to the usual place.
        (scratch / "lists/partial").mkdir(parents=True)
        own = ["-o", f"Dir::State::lists={scratch}/lists", "-o", f"Dir::Cache={scratch}/cache"]
        run("apt-get", *own, "update", "-qq", cwd=scratch)
        run("apt-get", *own, "download", "-qq", "python3-pip-whl", cwd=scratch)
    run("dpkg-deb", "-x", next(scratch.glob("python3-pip-whl_*.deb")), scratch / "unpacked")
    return next((scratch / "unpacked").glob("usr/share/python-wheels/pip-*.whl"))


def collect_wheels(dependencies: list[str]) -> None:
    """Wheels of the run-time dependencies, pure Python where there is one (tomli's compiled form nests less deep)."""
    python = VENV / "bin/python"
    pure = ("--only-binary", ":all:", "--platform", "any")
    for dependency in dependencies:
        if not works(python, "-m", "pip", "download", "--dest", WHEELS, *pure, dependency):
            pip("wheel", "--wheel-dir", WHEELS, dependency)


def main(group: str) -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # two makes in one checkout take turns
        settings = tomllib.load(file)
        groups, project = settings["dependency-groups"], settings["project"]
        requires = settings["build-system"]["requires"]
        develop = groups["dev"]
        made_from = json.dumps(
            [INTERPRETER, sys.version, requires, project["dependencies"], project["scripts"], develop], indent=1
        )

        made = VENV / "build.made"
        if not made.exists() or made.read_text() != made_from:
            say(f"making .venv with {INTERPRETER}")
            create_venv()
            collect_wheels(project["dependencies"])
            pip("install", *requires)
            made.write_text(made_from)

        made = VENV / "dev.made"
        if group in ("dev", "fuzz") and not made.exists():
            say("installing the test tools into .venv")
            pip("install", *sorted(WHEELS.glob("*.whl")), *develop)
            pip("install", "--no-build-isolation", "--no-deps", "--editable", ROOT)
            made.write_text(made_from)

        if group == "fuzz":
            pip("install", "--only-binary", ":all:", *groups["fuzz"])


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except subprocess.CalledProcessError as error:
        command = " ".join(map(str, error.cmd))
        sys.exit(
            f"make_venv: exit status {error.returncode} from: {command}\n"
            "hint: are the package sources of apt and pip within reach?"
        )
