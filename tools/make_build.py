"""Builds the wheel (`make_build.py wheel`), and from it the system launch (`make_build.py build`).

    dist/*.whl
    build/bin/crio-credential-provider     launcher; may be moved together with lib/, and symlinked to
    build/lib/crio-credential-provider/    the package and its dependencies, with byte code

Runs in .venv (tools/make_venv.py). Does nothing where the last build was made from the same files, commit and Python.
"""

from __future__ import annotations

import compileall
import fcntl
import hashlib
import os
import py_compile
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from hatch_build import git_commit
from make_venv import INTERPRETER, ROOT, WHEELS

DIST, BUILD = ROOT / "dist", ROOT / "build"
NAME = "crio-credential-provider"

# -I and -S: nothing of the environment, the current directory or site-packages may steer a program that runs as root.
# An absolute interpreter, since `env` would turn the journal's _COMM=crio-credential into python3.
LAUNCHER = """\
#!{interpreter} -IS
import os, sys
library = os.path.dirname(os.path.dirname(os.path.realpath(__file__))) + "/lib/{name}"
sys.path.append(library)
try:
    from crio_credential_provider.__main__ import main
except Exception as error:
    sys.exit(f"{name}: cannot start: {{error}}; {{library}} must be there, whole: move it with bin/, or make a symlink")
main()
"""


def say(text: str) -> None:
    print(f"make_build: {text}", file=sys.stderr, flush=True)


def launcher_text() -> str:
    """The launcher, where its first line can name the interpreter (execve(2): no blanks, 255 bytes)."""
    if len(INTERPRETER.split()) != 1 or len(INTERPRETER) > 240:
        sys.exit(f"make_build: no script can name {INTERPRETER!r}\nhint: make PYTHON=/usr/bin/python3 ...")
    return LAUNCHER.format(interpreter=INTERPRETER, name=NAME)


def made_from() -> str:
    """Digest of all that the wheel and the build depend on."""
    files = [ROOT / "pyproject.toml", ROOT / "LICENSE", ROOT / "README.md"]
    files += [ROOT / "tools" / name for name in ("hatch_build.py", "make_build.py", "make_venv.py")]
    files += [path for path in (ROOT / "src").rglob("*") if "__pycache__" not in path.parts]
    files += WHEELS.glob("*.whl")
    digest = hashlib.sha256(f"{INTERPRETER}\n{sys.version}\n{git_commit(str(ROOT))}\n".encode())
    digest.update(os.environ.get("SOURCE_DATE_EPOCH", "").encode())
    for path in sorted(file for file in files if file.is_file()):
        digest.update(f"{path.relative_to(ROOT)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def is_current(record: Path, key: str, *outputs: Path) -> bool:
    return record.exists() and record.read_text() == key and all(output.exists() for output in outputs)


def build_wheel(key: str) -> Path:
    wheel = next(DIST.glob("*.whl"), None)
    if wheel and is_current(DIST / ".made", key):
        return wheel
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".dist-") as scratch:
        command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", scratch]
        done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"make_build: the wheel cannot be built\n{done.stdout}{done.stderr}")
        DIST.mkdir(exist_ok=True)
        for old in DIST.glob("*.whl"):
            old.unlink()
        built = next(Path(scratch).glob("*.whl"))
        wheel = built.rename(DIST / built.name)
    (DIST / ".made").write_text(key)
    say(f"dist/{wheel.name}")
    return wheel


def build(key: str) -> None:
    launcher, library = BUILD / "bin" / NAME, BUILD / "lib" / NAME
    if is_current(BUILD / ".made", key, launcher, library):
        return
    wheel = build_wheel(key)
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".build-") as scratch:
        fresh, old = Path(scratch, "fresh"), Path(scratch, "old")
        install(fresh, wheel, library)
        script = Path(scratch, NAME)
        script.write_text(launcher_text())
        script.chmod(0o755)

        launcher.parent.mkdir(parents=True, exist_ok=True)
        library.parent.mkdir(parents=True, exist_ok=True)
        if library.exists():
            library.rename(old)
        fresh.rename(library)
        script.replace(launcher)
    (BUILD / ".made").write_text(key)
    say(f"build/bin/{NAME}")


def install(target: Path, wheel: Path, final: Path) -> None:
    """Wheel and dependencies below target, compiled as if they stood at final already."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    wheels = [wheel, *sorted(WHEELS.glob("*.whl"))]
    subprocess.run([*pip, "--no-index", "--no-deps", "--no-compile", "--target", target, *wheels], check=True)
    shutil.rmtree(target / "bin")  # the console script of .venv
    for record in ("RECORD", "direct_url.json", "REQUESTED"):  # of an installation that pip could take away again
        for path in target.glob(f"*.dist-info/{record}"):
            path.unlink()
    # unchecked: copied with other times, it is still taken and nothing is written. Only a build changes the source.
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(target, quiet=1, ddir=str(final), invalidation_mode=unchecked):
        sys.exit("make_build: a source file does not compile, see above")


def main(goal: str) -> None:
    with (ROOT / "pyproject.toml").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two makes in one checkout take turns
        if goal == "wheel":
            build_wheel(made_from())
        else:
            build(made_from())


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except subprocess.CalledProcessError as error:
        sys.exit(f"make_build: exit status {error.returncode} from: {' '.join(map(str, error.cmd))}")
