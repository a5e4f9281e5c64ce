"""Builds the wheel (`make_bundle.py wheel`), and from it the self-contained plugin (`make_bundle.py build`).

    dist/*.whl
    build/bin/crio-credential-provider     launcher; may be moved together with lib/, and symlinked to
    build/lib/crio-credential-provider/    the package and its dependencies, with byte code; that of a pull in one file

Runs in .venv (tools/make_venv.py). Does nothing where the last build was made from the same files, commit and Python.
"""

from __future__ import annotations

import compileall
import fcntl
import hashlib
import marshal
import os
import py_compile
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import CodeType

from hatch_build import git_commit
from make_venv import INTERPRETER, ROOT, WHEELS
from needed_modules import PACKAGE, Module, imports, read

DIST, BUILD = ROOT / "dist", ROOT / "build"
NAME = "crio-credential-provider"
START = ROOT / "packaging/system/start.py"

# On the start-up path of every pull. -I and -S: nothing of the environment, the current directory or site-packages may
# steer a program that runs as root, and it starts faster. An absolute interpreter, since `env` would turn the journal's
# _COMM=crio-credential into python3.
LAUNCHER = """\
#!{interpreter} -IS
import marshal, os, sys
library = os.path.dirname(os.path.dirname(os.path.realpath(__file__))) + "/lib/{name}"
sys.path.append(library)
try:
    file = os.open(f"{{library}}/pull-path.{{sys.implementation.cache_tag}}", os.O_RDONLY)
    start, places = marshal.loads(os.read(file, {header}))
    exec(start)
    sys.meta_path.insert(0, PullPath(file, places, library))
except Exception:
    pass  # not there, of another Python, or damaged: the modules are beside it
try:
    from {package}.__main__ import main
except Exception as error:
    sys.exit(f"{name}: cannot start: {{error}}; {{library}} must be there, whole: move it with bin/, or make a symlink")
main()
"""

HEADER = 8192
"""Bytes of the file with the modules of a pull before the first of them."""

# Of what a pull may import: what tells a person about the program, and what only reads files that changed.
NOT_ON_THE_PULL_PATH = frozenset(
    f"{PACKAGE}.{name}" for name in ("commands", "runtimes.crio.registriesfile", "version")
)


def say(text: str) -> None:
    print(f"make_bundle: {text}", file=sys.stderr, flush=True)


def launcher_text() -> str:
    """The launcher, where its first line can name the interpreter (execve(2): no blanks, 255 bytes)."""
    if len(INTERPRETER.split()) != 1 or len(INTERPRETER) > 240:
        sys.exit(f"make_bundle: no script can name {INTERPRETER!r}\nhint: make PYTHON=/usr/bin/python3 ...")
    return LAUNCHER.format(interpreter=INTERPRETER, name=NAME, package=PACKAGE, header=HEADER)


def made_from() -> str:
    """Digest of all that a build depends on."""
    files = [ROOT / "pyproject.toml", ROOT / "LICENSE", ROOT / "README.md", START, *(ROOT / "tools").glob("*.py")]
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
            sys.exit(f"make_bundle: the wheel cannot be built\n{done.stdout}{done.stderr}")
        DIST.mkdir(exist_ok=True)
        for old in DIST.glob("*.whl"):
            old.unlink()
        built = next(Path(scratch).glob("*.whl"))
        wheel = built.rename(DIST / built.name)
    (DIST / ".made").write_text(key)
    say(f"dist/{wheel.name}")
    return wheel


def build_bundle(key: str) -> None:
    launcher, library = BUILD / "bin" / NAME, BUILD / "lib" / NAME
    if is_current(BUILD / ".made", key, launcher, library):
        return
    wheel = build_wheel(key)
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".build-") as scratch:
        fresh, old = Path(scratch, "fresh"), Path(scratch, "old")
        fresh.mkdir()
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
    # unchecked: the import takes the byte code without comparing it with the source, which only a build changes.
    compiled = compileall.compile_dir(
        target,
        quiet=1,
        stripdir=str(target),
        prependdir=str(final),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    if not compiled:
        sys.exit("make_bundle: a source file does not compile, see above")
    start = marshal.loads(read("start", START.read_bytes(), False).code)
    (target / f"pull-path.{sys.implementation.cache_tag}").write_bytes(in_one_file(start, pull_path(target)))


def pull_path(library: Path) -> dict[str, Module]:
    """Modules of the package that a pull may import."""
    found: dict[str, Module] = {}
    left = [f"{PACKAGE}.__main__", PACKAGE]
    while left:
        name = left.pop()
        if name in found or name in NOT_ON_THE_PULL_PATH or not name.startswith(PACKAGE):
            continue
        place = library / name.replace(".", "/")
        is_package = place.is_dir()
        path = place / "__init__.py" if is_package else place.with_suffix(".py")
        if path.exists():
            found[name] = read(name, path.read_bytes(), is_package)
            left += [
                name.rpartition(".")[0],
                *imports(marshal.loads(found[name].code), name, is_package, everywhere=True),
            ]
    return dict(sorted(found.items()))


def in_one_file(start: CodeType, modules: dict[str, Module]) -> bytes:
    """What packaging/system/start.py reads: its own code, and the place of each module in the file."""
    places, body = {}, bytearray()
    for name, module in modules.items():
        places[name] = (HEADER + len(body), len(module.code), module.is_package)
        body += module.code
    header = marshal.dumps((start, places))
    if len(header) > HEADER:
        raise RuntimeError(f"the header of pull-path has {len(header)} bytes")
    return header.ljust(HEADER, b"\0") + bytes(body)


def main(goal: str) -> None:
    with (ROOT / "pyproject.toml").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two makes in one checkout take turns
        if goal == "wheel":
            build_wheel(made_from())
        else:
            build_bundle(made_from())


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except subprocess.CalledProcessError as error:
        sys.exit(f"make_bundle: exit status {error.returncode} from: {' '.join(map(str, error.cmd))}")
