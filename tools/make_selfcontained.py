"""Makes the self-contained bundle: the program with its own Python, libc and OpenSSL, for any Linux on one machine.

    dist/crio-credential-provider-<version>-linux-<arch>.tar.gz
    dist/crio-credential-provider-<version>-linux-<arch>.tar.gz.sha256
    dist/crio-credential-provider-<version>-linux-<arch>.cdx.json     software bill of materials (CycloneDX)

Runs in .venv (tools/make_venv.py), whose interpreter is the one that goes in. Besides it needs gcc, binutils and what
is linked in: Python's headers and static library, and those of OpenSSL and zlib; on Debian the packages gcc, libc6-dev,
python3-dev, libssl-dev and zlib1g-dev. The same files, commit and machine make the same bytes.
docs/decisions/0007-bundle.md says why it is built as it is.
"""

from __future__ import annotations

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
from bill_of_materials import Part, bill, parts_of, source_of
from hatch_build import git, git_commit
from make_bundle import DIST, NAME, build_wheel, made_from
from make_venv import ROOT, WHEELS
from needed_modules import PACKAGE, Module, Needed, Search, load_order, read

SOURCES = ROOT / "packaging/bundle"
INSTALLER = ROOT / "packaging/container/install_on_node.py"
MAX_SIZE = 16 * 1024 * 1024
"""Bytes unpacked."""

# Frozen: in memory with the interpreter, instead of searched for in the archive. What a pull runs of the standard
# library, what the second phase of Python's start needs (program.c), and the parser for a registries.conf that changed,
# with all that it imports. That nothing is missing here is tested by pulls in a tree without the archive; what is too
# much costs its size alone.
HOT = (
    *("posixpath", "genericpath", "stat"),
    *("encodings", "encodings.aliases", "encodings.utf_8", "encodings.latin_1", "codecs", "io", "abc"),
    *("os", "_collections_abc"),
)
PARSER = "tomli"
# Of our package all but these is hot.
COLD = ("commands", "demo", "doctor", "explanation", "manifests", "node", "registryclient", "testbed", "version")

# Linked into the program, which gives them to the C modules that are files. Order matters to the linker.
STATIC = ("ssl", "crypto", "z")
_HINT = "hint: Debian: apt-get install gcc libc6-dev binutils python3-dev libssl-dev zlib1g-dev"


class BuildError(Exception):
    """The machine lacks something; the message says what, and how to get it."""


class Toolchain(NamedTuple):
    """What Python leaves for those who embed it, and the static libraries of others."""

    headers: Path
    library: Path
    table: Path
    link_with: list[str]
    archives: list[Path]


def say(text: str) -> None:
    print(f"make_selfcontained: {text}", file=sys.stderr, flush=True)


# -- what the machine must have ---------------------------------------------------------------------------------------


def find_toolchain() -> Toolchain:
    """Raises BuildError where something is missing."""
    missing = [program for program in ("gcc", "ldd", "strip", "objcopy") if shutil.which(program) is None]
    if missing:
        raise BuildError(f"not installed here: {', '.join(missing)}\n{_HINT}")
    variables = sysconfig.get_config_vars()
    configuration = Path(str(variables["LIBPL"]))
    wanted = [flag for flag in str(variables.get("MODLIBS") or "").split() if flag.removeprefix("-l") not in STATIC]
    found = Toolchain(
        Path(str(variables["INCLUDEPY"])),
        configuration / f"libpython{variables['LDVERSION']}.a",
        configuration / "config.c",
        [*dict.fromkeys(wanted), "-lm", "-ldl"],
        [find_archive(name) for name in STATIC],
    )
    for path in (found.headers / "Python.h", found.library, found.table):
        if not path.is_file():
            raise BuildError(
                f"{sys.executable} cannot be embedded: there is no {path}\n"
                f"{_HINT}; pyenv: its builds have all; or name another Python: make PYTHON=... bundle"
            )
    return found


def find_archive(name: str) -> Path:
    told = Path(elf_files.output("gcc", f"-print-file-name=lib{name}.a").strip())
    if not told.is_absolute():  # gcc gives back what it does not find
        raise BuildError(f"not installed here: lib{name}.a\n{_HINT}")
    return told.resolve()


def compile_c(*arguments: str | Path) -> None:
    done = subprocess.run(
        ["gcc", *arguments], check=False, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}
    )
    if done.returncode != 0:
        raise BuildError(f"gcc: {done.stderr.strip()}\n{_HINT}")


# -- Python: modules, interpreter -------------------------------------------------------------------------------------


def built_in_modules(table: Path) -> dict[str, str]:
    """Name -> function of the C modules that Python's static library has; NULL for two that are made otherwise."""
    return dict(re.findall(r'^ *\{"(\w+)", (\w+)\},', table.read_text(), re.MULTILINE))


def install_wheels(wheel: Path, target: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    wheels = [wheel, *sorted(WHEELS.glob("*.whl"))]
    subprocess.run([*pip, "--no-index", "--no-deps", "--no-compile", "--target", target, *wheels], check=True)


def hot_modules(needed: Needed, search: Search) -> list[Module]:
    """Those to freeze, of packages with all that is in them: a frozen package knows of no other place."""
    of_parser = search.closure([PARSER]).modules

    def is_hot(name: str) -> bool:
        package, _, rest = name.partition(".")
        if package == PACKAGE:
            return rest.partition(".")[0] not in COLD
        return name in HOT or name in of_parser or package in of_parser

    return [module for module in needed.modules.values() if is_hot(module.name)]


def bootstrap() -> list[Module]:
    """What the interpreter imports with, by the names of files that it leaves out of tracebacks."""
    library = Path(sysconfig.get_path("stdlib"))
    sources = {
        "_frozen_importlib": "importlib._bootstrap",
        "_frozen_importlib_external": "importlib._bootstrap_external",
        "zipimport": "zipimport",
    }
    return [
        read(name, (library / f"{source.replace('.', '/')}.py").read_bytes(), False, f"<frozen {source}>")
        for name, source in sources.items()
    ]


def write_tables(hot: list[Module], needed: Needed, functions: dict[str, str], scratch: Path) -> None:
    """modules.h with the tables of built-in and frozen modules, and modules.S with the latter's code."""
    # The one of which the table also serves without its first row.
    early = read("os", (SOURCES / "early_os.py").read_bytes(), False)
    tables = {"bundle_bootstrap": bootstrap(), "bundle_early": [early, *hot]}
    code = {f"{table}_{i}": module.code for table, modules in tables.items() for i, module in enumerate(modules)}
    text = ""
    for label, data in code.items():
        (scratch / f"{label}.bin").write_bytes(data)
        text += f'    .balign 16\n    .globl {label}\n{label}:\n    .incbin "{label}.bin"\n'
    (scratch / "modules.S").write_text(f'    .section .note.GNU-stack,"",%progbits\n    .section .rodata\n{text}')
    (scratch / "modules.h").write_text(
        "/* Generated by tools/make_selfcontained.py. */\n"
        + built_in_table(needed, functions)
        + "".join(f"extern const unsigned char {label}[];\n" for label in code)
        + "".join(frozen_table(name, modules) for name, modules in tables.items())
        + preloaded_table(load_order(f"{PACKAGE}.pull.plugin", needed.modules))
    )


def built_in_table(needed: Needed, functions: dict[str, str]) -> str:
    built_in = {name: functions[name] for name in sorted(needed.built_in)} | {"_bundle": "PyInit__bundle"}
    extensions = sorted(needed.extensions)
    declared = "".join(f"extern PyObject *{name}(void);\n" for name in sorted({*built_in.values()} - {"NULL"}))
    loaders = "".join(
        f'static PyObject *load_{name}(void) {{ return bundle_load("{name}"); }}\n' for name in extensions
    )
    rows = "".join(f'    {{"{name}", {function}}},\n' for name, function in built_in.items())
    rows += "".join(f'    {{"{name}", load_{name}}},\n' for name in extensions)
    # By its own name: the static library's table, which this keeps out, would bring every module in it.
    table = f"struct _inittab _PyImport_Inittab[] = {{\n{rows}    {{NULL, NULL}},\n}};\n"
    return f"PyObject *bundle_load(const char *name);\n{declared}{loaders}{table}"


def frozen_table(name: str, modules: list[Module]) -> str:
    rows = ""
    for index, module in enumerate(modules):
        size = f".size = {len(module.code)}, .is_package = {int(module.is_package)}"
        rows += f'    {{.name = "{module.name}", .code = {name}_{index}, {size}}},\n'
    return f"static const struct _frozen {name}[] = {{\n{rows}    {{0}},\n}};\n"


def preloaded_table(names: list[str]) -> str:
    rows = "".join(f'    "{name}",\n' for name in names)
    return f"static const char *const bundle_preloaded[] = {{\n{rows}    NULL,\n}};\n"


def write_exports(extensions: Iterable[Path], libraries: Iterable[Path], scratch: Path) -> None:
    """What the C modules want of the program; all that could be wanted would be 0.4 MB of names.

    Args:
        libraries: shared ones that are linked into the program.
    """
    wanted = {name for path in extensions for name in elf_files.undefined_in(path)}
    of_libraries = wanted.intersection(name for path in libraries for name in elf_files.defined_in(path))
    of_python = {name for name in wanted if name.lstrip("_").startswith("Py")}
    names = "".join(f"  {name};\n" for name in sorted(of_python | of_libraries))
    (scratch / "exports").write_text(f"{{\n{names}}};\n")
    # Nothing in the program itself asks the archives for these.
    (scratch / "wanted.ld").write_text(f"EXTERN({' '.join(sorted(of_libraries))})\n")


def slim(library: Path, scratch: Path) -> Path:
    """A copy of a static library without what only costs here.

    .eh_frame: 1.0 MB for debuggers and C++ exceptions, of which there are none.
    """
    copy = scratch / library.name
    subprocess.run(["objcopy", "--strip-debug", "--remove-section=.eh_frame", library, copy], check=True)
    return copy


def link_program(tools: Toolchain, scratch: Path, target: Path) -> None:
    """The interpreter. Not position-independent: that saves 36,000 relocations and 0.9 MB."""
    compiler = ("-O2", "-Wall", "-no-pie", "-fno-asynchronous-unwind-tables", "-Wl,--as-needed")
    places = (f"-I{tools.headers}", f"-I{scratch}", f"-Wa,-I{scratch}")
    sources: list[str | Path] = [SOURCES / "program.c", scratch / "modules.S", scratch / "wanted.ld"]
    sources += [*(slim(library, scratch) for library in (tools.library, *tools.archives)), *tools.link_with]
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
    files = {
        module.name.replace(".", "/") + ("/__init__.pyc" if module.is_package else ".pyc"): MAGIC_NUMBER
        + (1).to_bytes(4, "little")
        + module.source_hash
        + module.code
        for module in modules
    }
    # zipimport finds a package without an __init__, such as ruamel, only by an entry of its directory.
    files |= {f"{path.partition('/')[0]}/": b"" for path in [*files] if "/" in path}
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path, data in files.items():
            information = zipfile.ZipInfo(path)  # 1980: the format knows nothing older
            information.compress_type = zipfile.ZIP_DEFLATED
            information.external_attr = 0o644 << 16
            archive.writestr(information, data, zipfile.ZIP_DEFLATED, 9)


# -- the tree ---------------------------------------------------------------------------------------------------------


def find_needed(libraries: Path, functions: dict[str, str]) -> Needed:
    roots = [f"{PACKAGE}.__main__", f"{PACKAGE}.testbed.selftest", *named_at_run_time(libraries)]
    files = {
        "encodings.idna": SOURCES / "idna.py",
        "install_on_node": INSTALLER,
    }
    return Search(libraries, frozenset(functions)).run(roots, files)


def named_at_run_time(libraries: Path) -> list[str]:
    """Modules that are imported by a name made at run time: commands, and rich's widths of characters."""
    found = [
        path.relative_to(libraries).with_suffix("")
        for pattern in (f"{PACKAGE}/commands/[!_]*.py", "rich/_unicode_data/unicode*.py")
        for path in sorted(libraries.glob(pattern))
    ]
    return [".".join(path.parts) for path in found]


def find_linked_in(needed: Needed, tools: Toolchain) -> dict[str, Path]:
    """Name -> file of the shared libraries that the C modules were built with, and that are linked into the program.

    Raises:
        BuildError: what would be linked in is of another version.
    """
    found = {}
    archives = {archive.stem: archive for archive in tools.archives}
    for name, path in elf_files.libraries_of(*needed.extensions.values()).items():
        archive = archives.get(name.partition(".so")[0])
        if archive:
            if source_of(path) != source_of(archive):
                raise BuildError(
                    f"{archive} and {path} are of different versions\nhint: upgrade libssl-dev, zlib1g-dev"
                )
            found[name] = path
    return found


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
    hot = hot_modules(needed, Search(libraries, frozenset(functions)))
    write_tables(hot, needed, functions, scratch)
    linked_in = find_linked_in(needed, tools)
    write_exports(needed.extensions.values(), linked_in.values(), scratch)
    link_program(tools, scratch, scratch / "program")
    loader = elf_files.interpreter_of(scratch / "program")
    shutil.copyfile(scratch / "program", tree / "lib/program")
    (tree / "lib/program").chmod(0o755)
    for name, path in needed.extensions.items():
        elf_files.copy(path, tree / "lib/python" / f"{name}.so")
        elf_files.release(tree / "lib/python" / f"{name}.so", linked_in)
    shared = elf_files.libraries_of(scratch / "program", *needed.extensions.values())
    shared = {name: path for name, path in shared.items() if name not in linked_in}
    for name, path in shared.items():
        elf_files.copy(path, tree / "lib" / name)
    elf_files.copy(loader, tree / "lib" / NAME)
    (tree / "lib" / loader.name).symlink_to(NAME)  # libc needs it by its own name
    write_archive((module for module in needed.modules.values() if module not in hot), tree / "lib/python.zip")

    parts = parts_of([loader, *shared.values(), *tools.archives], libraries)
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
    binaries = [path for path in files_of(tree) if elf_files.is_elf(path)]
    symbols = {name for path in binaries for name in elf_files.defined_in(path)}
    for path in binaries:
        if missing := set(elf_files.needed_by(path)) - have or set(elf_files.undefined_in(path)) - symbols:
            raise BuildError(f"{path} needs {missing}, which is not in the tree")
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
