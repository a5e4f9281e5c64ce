"""Makes the self-contained bundle: the program with its own Python, libc and OpenSSL, for any Linux on one machine.

    dist/crio-credential-provider-<version>-linux-<arch>.tar.gz
    dist/crio-credential-provider-<version>-linux-<arch>.tar.gz.sha256
    dist/crio-credential-provider-<version>-linux-<arch>.cdx.json     software bill of materials (CycloneDX)

Runs in .venv (tools/make_venv.py), whose interpreter is the one that goes in. Besides it needs gcc, binutils
and Python's headers and static library: on Debian the packages gcc, libc6-dev and python3-dev. The same
files, commit and machine make the same bytes. docs/decisions/0007-bundle.md says why it is built as it is.
"""

from __future__ import annotations

import _imp
import argparse
import fcntl
import gzip
import hashlib
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import NamedTuple

import elf_files
from bill_of_materials import Part, bill, parts_of
from hatch_build import git, git_commit
from make_bundle import DIST, NAME, build_wheel, made_from
from make_venv import ROOT, WHEELS
from needed_modules import PACKAGE, Module, Needed, Search, read

SOURCES = ROOT / "packaging/bundle"
INSTALLER = ROOT / "packaging/container/install_on_node.py"
MAX_SIZE = 16 * 1024 * 1024
"""Bytes unpacked. Python 3.11 and 3.13 stay below 16,000,000; 3.12 carries 0.7 MB more of frozen modules in itself."""

# What a pull runs of the standard library: in memory with the interpreter, instead of searched for in the archive. That
# nothing is missing here is tested by pulls in a tree without the archive; what is too much costs its size alone.
# A submodule of a package that is in memory must be there as well: only encodings is looked for in the archive, too.
HOT = ("encodings", "encodings.aliases", "encodings.utf_8", "importlib", "importlib.metadata")
# Of our package all but these is hot.
COLD = ("cli", "demo", "doctor", "explanation", "help", "manifests", "registryclient", "version")

# The marker that crio_credential_provider.native looks for. Frozen into the interpreter that it names.
PINNED = '''"""This interpreter was built into the bundle together with the program."""
from sys import version as VERSION
'''


class BuildError(Exception):
    """The machine lacks something; the message says what, and how to get it."""


class Toolchain(NamedTuple):
    """What Python leaves for those who embed it."""

    headers: Path
    library: Path
    table: Path
    link_with: list[str]


def say(text: str) -> None:
    print(f"make_selfcontained: {text}", file=sys.stderr, flush=True)


# -- what the machine must have ---------------------------------------------------------------------------------------


def find_toolchain() -> Toolchain:
    """Raises BuildError where something is missing."""
    missing = [
        program for program in ("gcc", "readelf", "ldd", "strip", "objcopy", "nm") if shutil.which(program) is None
    ]
    if missing:
        raise BuildError(f"not installed here: {', '.join(missing)}\nhint: Debian: apt-get install gcc libc6-dev")
    variables = sysconfig.get_config_vars()
    configuration = Path(str(variables["LIBPL"]))
    found = Toolchain(
        Path(str(variables["INCLUDEPY"])),
        configuration / f"libpython{variables['LDVERSION']}.a",
        configuration / "config.c",
        [*dict.fromkeys(str(variables.get("MODLIBS") or "").split()), "-lm", "-ldl"],
    )
    for path in (found.headers / "Python.h", found.library, found.table):
        if not path.is_file():
            raise BuildError(
                f"{sys.executable} cannot be embedded: there is no {path}\n"
                "hint: Debian: apt-get install python3-dev; pyenv: its builds have all; "
                "or name another Python: make PYTHON=... bundle"
            )
    return found


def compile_c(*arguments: str | Path) -> None:
    done = subprocess.run(
        ["gcc", *arguments], check=False, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}
    )
    if done.returncode != 0:
        raise BuildError(f"gcc: {done.stderr.strip()}\nhint: Debian: apt-get install gcc libc6-dev python3-dev")


# -- Python: modules, interpreter -------------------------------------------------------------------------------------


def built_in_modules(table: Path) -> dict[str, str]:
    """Name -> function of the C modules that Python's static library has; NULL for two that are made otherwise."""
    return dict(re.findall(r'^ *\{"(\w+)", (\w+)\},', table.read_text(), re.MULTILINE))


def install_wheels(wheel: Path, target: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    wheels = [wheel, *sorted(WHEELS.glob("*.whl"))]
    subprocess.run([*pip, "--no-index", "--no-deps", "--no-compile", "--target", target, *wheels], check=True)


def is_hot(name: str) -> bool:
    package, _, rest = name.partition(".")
    if package == PACKAGE:
        return rest.partition(".")[0] not in COLD
    return name in HOT


def write_tables(needed: Needed, functions: dict[str, str], scratch: Path) -> None:
    """modules.h with the tables of built-in and frozen modules, and modules.S with the latter's code."""
    hot = [module for module in needed.modules.values() if is_hot(module.name)]
    built_in = {name: functions[name] for name in sorted(needed.built_in)}
    declared = "".join(f"extern PyObject *{name}(void);\n" for name in sorted({*built_in.values()} - {"NULL"}))
    loaders = "".join(
        f'static PyObject *load_{name}(void) {{ return bundle_load("{name}"); }}\n'
        for name in sorted(needed.extensions)
    )
    rows = "".join(f'    {{"{name}", {function}}},\n' for name, function in built_in.items())
    rows += "".join(f'    {{"{name}", load_{name}}},\n' for name in sorted(needed.extensions))
    codes, frozen, text = (
        "",
        "",
        '    .section .rodata\n    .section .note.GNU-stack,"",%progbits\n    .section .rodata\n',
    )
    for index, module in enumerate(hot):
        (scratch / f"{index}.bin").write_bytes(module.code)
        codes += f"extern const unsigned char code_{index}[];\n"
        size = f".size = {len(module.code)}, .is_package = {int(module.is_package)}"
        frozen += f'    {{.name = "{module.name}", .code = code_{index}, {size}}},\n'
        text += f'    .balign 16\n    .globl code_{index}\ncode_{index}:\n    .incbin "{index}.bin"\n'
    (scratch / "modules.S").write_text(text)
    (scratch / "modules.h").write_text(
        "/* Generated by tools/make_selfcontained.py. */\n"
        f"PyObject *bundle_load(const char *name);\n{declared}{loaders}{codes}"
        # By its own name: the static library's table, which this keeps out, would bring every module in it.
        f"struct _inittab _PyImport_Inittab[] = {{\n{rows}    {{NULL, NULL}},\n}};\n"
        f"static const struct _frozen bundle_frozen[] = {{\n{frozen}    {{0}},\n}};\n"
    )


def write_exports(extensions: Iterable[Path], target: Path) -> None:
    """What the C modules want of the interpreter; all that could be wanted would be 0.1 MB of names."""
    wanted = {name for path in extensions for name in elf_files.undefined_in(path) if name.lstrip("_").startswith("Py")}
    target.write_text("{\n" + "".join(f"  {name};\n" for name in sorted(wanted)) + "};\n")


def without_unwind_tables(library: Path, scratch: Path) -> Path:
    """A copy of Python's static library less 0.3 MB for debuggers and C++ exceptions, of which there are none."""
    copy = scratch / library.name
    subprocess.run(["objcopy", "--strip-debug", "--remove-section=.eh_frame", library, copy], check=True)
    return copy


def link_program(tools: Toolchain, scratch: Path, target: Path) -> None:
    """The interpreter. Not position-independent: that saves 36,000 relocations and 0.9 MB."""
    compiler = ("-O2", "-Wall", "-no-pie", "-fno-asynchronous-unwind-tables", "-Wl,--as-needed")
    places = (f"-I{tools.headers}", f"-I{scratch}", f"-Wa,-I{scratch}")
    sources: list[str | Path] = [SOURCES / "program.c", scratch / "modules.S"]
    sources += [without_unwind_tables(tools.library, scratch), *tools.link_with]
    linker = (
        f"-Wl,--dynamic-list={scratch / 'exports'}",
        "-Wl,-O1",
        "-Wl,--gc-sections",
        "-Wl,--build-id=none",
        "-Wl,-z,noexecstack",
        "-s",
    )
    # The older of the two kinds of search path: it holds for what the libraries need as well.
    search = ("-Wl,--disable-new-dtags", "-Wl,-rpath,$ORIGIN")
    compile_c(*compiler, *places, *sources, *linker, *search, "-o", target)


def link_launcher(target: Path) -> None:
    # No libc: neither its start-up, nor functions that the compiler would put in the place of loops.
    bare = ("-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-tree-loop-distribute-patterns")
    tidy = ("-fno-asynchronous-unwind-tables", "-Wl,--build-id=none", "-Wl,-z,noexecstack")
    compile_c("-Os", "-Wall", *bare, "-s", *tidy, SOURCES / "launcher.c", "-o", target)


def write_archive(modules: Iterable[Module], target: Path) -> None:
    """What is not frozen, for zipimport: byte code that is never compared with a source (PEP 552, unchecked)."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for module in modules:
            path = module.name.replace(".", "/") + ("/__init__.pyc" if module.is_package else ".pyc")
            data = MAGIC_NUMBER + (1).to_bytes(4, "little") + module.source_hash + module.code
            information = zipfile.ZipInfo(path)  # 1980: the format knows nothing older
            information.compress_type = zipfile.ZIP_DEFLATED
            information.external_attr = 0o644 << 16
            archive.writestr(information, data, zipfile.ZIP_DEFLATED, 9)


# -- the tree ---------------------------------------------------------------------------------------------------------


def find_needed(libraries: Path, functions: dict[str, str]) -> Needed:
    """Modules that CPython carries in itself are left out: their code is made ready when it is compiled."""
    roots = [f"{PACKAGE}.__main__", f"{PACKAGE}.demo.selftest", *commands(libraries)]
    files = {
        "encodings.idna": SOURCES / "idna.py",
        "importlib.metadata": SOURCES / "metadata.py",
        "install_on_node": INSTALLER,
    }
    needed = Search(libraries, frozenset(functions)).run(roots, files)
    modules = {name: module for name, module in needed.modules.items() if not _imp.is_frozen(name)}
    modules[f"{PACKAGE}._pinned"] = read(f"{PACKAGE}._pinned", PINNED.encode(), False)
    return needed._replace(modules=dict(sorted(modules.items())))


def commands(libraries: Path) -> list[str]:
    """The modules of the commands, which the program imports by a name made at run time."""
    found = sorted((libraries / PACKAGE / "cli").glob("[!_]*.py"))
    return [f"{PACKAGE}.cli.{path.stem}" for path in found]


def make_tree(wheel: Path, tree: Path, scratch: Path) -> list[Part]:
    """Everything that goes into the archive, below `tree`; what it is made of."""
    tools = find_toolchain()
    functions = built_in_modules(tools.table)
    libraries = scratch / "libraries"
    install_wheels(wheel, libraries)
    needed = find_needed(libraries, functions)
    for directory in ("bin", "lib/python", "share/doc"):
        (tree / directory).mkdir(parents=True)

    link_launcher(tree / "bin" / NAME)
    (tree / "bin/install-on-node").symlink_to(NAME)
    write_tables(needed, functions, scratch)
    write_exports(needed.extensions.values(), scratch / "exports")
    link_program(tools, scratch, scratch / "program")
    loader = elf_files.interpreter_of(scratch / "program")
    shutil.copyfile(scratch / "program", tree / "lib/program")
    (tree / "lib/program").chmod(0o755)
    for name, path in needed.extensions.items():
        elf_files.copy(path, tree / "lib/python" / f"{name}.so")
    shared = elf_files.libraries_of(scratch / "program", *needed.extensions.values())
    for name, path in shared.items():
        elf_files.copy(path, tree / "lib" / name)
    elf_files.copy(loader, tree / "lib" / NAME)
    (tree / "lib" / loader.name).symlink_to(NAME)  # libc needs it by its own name
    write_archive((module for module in needed.modules.values() if not is_hot(module.name)), tree / "lib/python.zip")

    parts = parts_of([loader, *shared.values()], libraries)
    write_documents(tree, parts)
    write_build_record(tree, elf_files.kernel_floor(shared["libc.so.6"]))
    return parts


def write_documents(tree: Path, parts: list[Part]) -> None:
    documents = tree / "share/doc"
    for name in ("LICENSE", "README.md", "CHANGELOG.md"):
        if (ROOT / name).exists():
            shutil.copyfile(ROOT / name, documents / name)
    for part in parts:
        for name, text in part.license_texts.items():
            place = documents / "licenses" / part.name / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(text)
    for page in sorted((ROOT / "docs/man").glob("*.[1-8]")):
        place = tree / "share/man" / f"man{page.suffix[1:]}" / page.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(page, place)
    for snippet in sorted((ROOT / "packaging/tmpfiles.d").glob("*.conf")):
        place = tree / "share/tmpfiles.d" / snippet.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(snippet, place)


def write_build_record(tree: Path, kernel: str) -> None:
    """BUILD: what this tree is. Its digest names the directory that a package or a node keeps it in."""
    digest = hashlib.sha256()
    for path in files_of(tree):
        content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
        digest.update(f"{path.relative_to(tree)} {hashlib.sha256(content).hexdigest()}\n".encode())
    record = {
        "version": version(),
        "commit": git_commit(str(ROOT)),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "glibc": f"{platform.libc_ver()[1]} (its own; none is needed on the node)",
        "linux": f"{kernel} or newer",
        "digest": digest.hexdigest(),
    }
    (tree / "BUILD").write_text("".join(f"{name}: {value}\n" for name, value in record.items()))


def files_of(tree: Path) -> Iterator[Path]:
    """Files and symlinks, in a fixed order."""
    return iter(sorted(path for path in tree.rglob("*") if path.is_symlink() or path.is_file()))


def size_of(tree: Path) -> int:
    return sum(path.lstat().st_size for path in files_of(tree) if not path.is_symlink())


def version() -> str:
    found = re.search(r'^__version__ = "(.+)"', (ROOT / "src" / PACKAGE / "__init__.py").read_text(), re.MULTILINE)
    assert found
    return found[1]


# -- checks -----------------------------------------------------------------------------------------------------------


def check(tree: Path) -> None:
    """Raises BuildError where the tree cannot be what it should."""
    if size_of(tree) > MAX_SIZE:
        raise BuildError(f"{size_of(tree):,} bytes unpacked, {MAX_SIZE:,} are the limit")
    have = {path.name for path in (tree / "lib").iterdir()}
    for path in files_of(tree):
        if elf_files.is_elf(path) and not have.issuperset(elf_files.needed_by(path)):
            raise BuildError(f"{path} needs {set(elf_files.needed_by(path)) - have}, which is not in the tree")
    if f'"version": "{version()}"' not in run_entry(tree / "bin" / NAME, "--version-json"):
        raise BuildError("the program does not tell its version")
    # Equal verdicts of the C halves and the public modules, in this very interpreter.
    entry = tree.parent / "self-test"
    entry.symlink_to(tree / "bin" / NAME)
    if "C halves and public modules: 0 differences" not in run_entry(entry):
        raise BuildError("the program in the bundle does not use the interpreter's C halves")


def run_entry(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"HOME": "/"}, cwd="/")
    if done.returncode != 0:
        raise BuildError(f"exit status {done.returncode} from {command[0]}\n{done.stdout}{done.stderr}")
    return done.stdout


# -- the archive ------------------------------------------------------------------------------------------------------


def epoch() -> int:
    """Time of everything in the archive: SOURCE_DATE_EPOCH, else the commit's."""
    return int(os.environ.get("SOURCE_DATE_EPOCH") or git(str(ROOT), "log", "-1", "--format=%ct") or 0)


def pack(tree: Path, top: str) -> bytes:
    """The tree as .tar.gz, below one directory. Nothing of this machine, user or day gets in."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in [tree, *sorted(tree.rglob("*"))]:
            entry = archive.gettarinfo(path, f"{top}/{path.relative_to(tree)}".removesuffix("/."))
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = "root"
            entry.mtime = epoch()
            entry.mode = 0o755 if entry.isdir() or entry.issym() or os.access(path, os.X_OK) else 0o644
            if entry.isreg():
                with path.open("rb") as file:
                    archive.addfile(entry, file)
            else:
                archive.addfile(entry)
    return gzip.compress(packed.getvalue(), 9, mtime=0)


def make(wheel: Path, output: Path) -> Path:
    """Makes all three files in `output`; the archive."""
    top = f"{NAME}-{version()}-linux-{platform.machine()}"
    with tempfile.TemporaryDirectory(prefix="bundle-") as directory:
        scratch = Path(directory)
        tree = scratch / "tree"
        os.umask(0o022)
        parts = make_tree(wheel, tree, scratch)
        check(tree)
        archive = pack(tree, top)
        size = size_of(tree)
    output.mkdir(parents=True, exist_ok=True)
    target = output / f"{top}.tar.gz"
    target.write_bytes(archive)
    digest = hashlib.sha256(archive).hexdigest()
    target.with_name(f"{target.name}.sha256").write_text(f"{digest}  {target.name}\n")
    (output / f"{top}.cdx.json").write_text(bill(NAME, version(), parts, target.name, digest, epoch()))
    say(f"{target} ({size:,} bytes unpacked, {len(archive):,} packed)")
    return target


def restart_without_columns() -> None:
    """The compiler leaves the columns of expressions out only where the whole process was started so.

    They are a fifth of the byte code, and good for marking expressions in source text, of which the bundle has none.
    """
    if "no_debug_ranges" not in sys._xoptions:
        os.execv(sys.executable, [sys.executable, "-X", "no_debug_ranges", *sys.argv])


def make_from_sources(output: Path) -> Path:
    """Makes the wheel as well."""
    with (ROOT / "pyproject.toml").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two makes in one checkout take turns
        return make(build_wheel(made_from()), output)


def main() -> None:
    restart_without_columns()
    parser = argparse.ArgumentParser(description="Makes the self-contained bundle.")
    parser.add_argument("--output", type=Path, default=DIST, help="directory for the files (default dist)")
    parser.add_argument("--wheel", type=Path, help="wheel of the program (default: that of the source tree)")
    options = parser.parse_args()
    if options.wheel:
        make(options.wheel, options.output)
    else:
        make_from_sources(options.output)


if __name__ == "__main__":
    try:
        main()
    except (BuildError, ValueError) as error:
        sys.exit(f"make_selfcontained: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"make_selfcontained: exit status {error.returncode} from: {' '.join(map(str, error.cmd))}")
