"""Writes the archive of byte code that the executable takes along: `needed_modules.py LIBRARIES STDLIB ARCHIVE`.

Run by the interpreter that goes into the executable, whose C modules are all built in. The rule: of our own package and
of the libraries beside it everything that is imported anywhere in them; of the standard library what is imported when
the module is loaded, since what it imports inside functions (pdb, multiprocessing, webbrowser) is rarely what we call.
Where it is, `LATE` says so. A codec is a module as well, looked up by a name: each that a module names comes along.
The process tests run on the executable, where a missing one fails.
"""

from __future__ import annotations
import __future__

import ast
import dis
import encodings
import encodings.aliases
import functools
import importlib.machinery
import importlib.util
import marshal
import operator
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType
from typing import NamedTuple

PACKAGE = "crio_credential_provider"

# Reached by a name that is made at run time, or imported inside a function that is called.
LATE = (
    *("encodings.utf_8", "encodings.ascii", "encodings.latin_1"),  # codecs that Python itself looks up
    "_strptime",  # datetime.strptime
    "locale",  # gettext, which argparse uses
    "urllib.parse",
    "http.client",
    "zlib",  # zipimport
    "concurrent.futures.thread",  # an attribute of its package
)

# Imported on load by modules that can do without, or only to warn or to debug.
LEFT_OUT = frozenset(
    (
        *("bz2", "_bz2", "lzma", "_lzma"),  # tarfile, shutil: compressions that nothing here uses
        *("_typing", "typing_extensions"),
        *("unicodedata", "encodings.idna", "stringprep"),  # 1.1 MB, for names of hosts that are not in ASCII
        *("importlib._bootstrap", "importlib._bootstrap_external"),  # the interpreter has them under other names
        *("_pydatetime", "_pyio", "markdown_it", "mdurl", "rich.markdown"),
        *("pygments", "rich.syntax", "rich.traceback"),
        *("statistics", "_statistics", "doctest", "unittest", "pydoc", "pdb", "readline"),
        *("ctypes", "_ctypes", "sqlite3", "tkinter", "curses", "multiprocessing", "asyncio"),
        *("nturl2path", "msvcrt", "winreg", "_winapi", "nt", "_wmi", "java", "vms_lib", "_scproxy"),
        *("rich._win32_console", "rich._windows", "rich._windows_renderer"),
        *("yaml.cyaml", "yaml._yaml", "_yaml"),  # 0.5 MB, for files that are parsed when they changed
    )
)


class Module(NamedTuple):
    """A module in Python: `code` marshalled, without docstrings; `source_hash` as a hash-based .pyc holds it."""

    name: str
    is_package: bool
    code: bytes
    source_hash: bytes


class Search:
    """Follows imports from a directory with our package and its dependencies.

    Args:
        libraries: the directory.
        standard: that of the standard library.
    """

    def __init__(self, libraries: Path, standard: Path) -> None:
        self._path = [str(libraries), str(standard)]
        self._seen: set[str] = set()
        self._modules: dict[str, Module] = {}

    def run(self, roots: Iterable[str]) -> list[Module]:
        """Everything that these modules need, sorted by name."""
        for name in roots:
            self._add(name)
        return [module for _, module in sorted(self._modules.items())]

    def _add(self, name: str) -> None:
        if name in self._seen or not LEFT_OUT.isdisjoint((name, name.partition(".")[0])):
            return
        self._seen.add(name)
        found = self._find(name)
        if found is None or found.origin is None:
            return
        if "." in name:
            self._add(name.rpartition(".")[0])
        if found.origin.endswith(".py"):
            self._read(name, Path(found.origin), found.submodule_search_locations is not None)

    def _find(self, name: str) -> importlib.machinery.ModuleSpec | None:
        package, _, _ = name.rpartition(".")
        if not package:
            return importlib.machinery.PathFinder.find_spec(name, self._path)
        above = self._find(package)
        if above is None or above.submodule_search_locations is None:
            return None
        return importlib.machinery.PathFinder.find_spec(name, list(above.submodule_search_locations))

    def _read(self, name: str, path: Path, is_package: bool) -> None:
        source = path.read_bytes()
        self._modules[name] = read(name, source, is_package)
        everywhere = path.is_relative_to(self._path[0])
        for imported in imports(marshal.loads(self._modules[name].code), name, is_package, everywhere):
            self._add(imported)
        for codec in codecs_named(ast.parse(source)):
            self._add(codec)


def read(name: str, source: bytes, is_package: bool, path: str = "") -> Module:
    """Compiles a module; its code names the file relative to the archive, so that no build directory gets in."""
    tree, features = without_features(without_conditions(without_docstrings(ast.parse(source))))
    if name.partition(".")[0] == PACKAGE:
        tree = without_annotations(tree)
    path = path or name.replace(".", "/") + ("/__init__.py" if is_package else ".py")
    # optimize=0: assertions hold in the bundle as in every other installation.
    code = compile(tree, path, "exec", flags=features, dont_inherit=True, optimize=0)
    if name.partition(".")[0] != PACKAGE:
        code = without_lines(code)
    return Module(name, is_package, marshal.dumps(code), importlib.util.source_hash(source))


def without_lines(code: CodeType) -> CodeType:
    """Of what is not ours: a tenth of the code's size, and a traceback tells the place in ours."""
    constants = tuple(without_lines(item) if isinstance(item, CodeType) else item for item in code.co_consts)
    return code.replace(co_linetable=b"", co_consts=constants)


def without_docstrings(tree: ast.Module) -> ast.Module:
    """A quarter of the code's size. Lines stay as they are."""
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            alone = len(node.body) == 1 and not isinstance(node, ast.Module)
            node.body[:1] = [ast.copy_location(ast.Pass(), first)] if alone else []
    return tree


def without_conditions(tree: ast.Module) -> ast.Module:
    """Without what is for type checkers, or for a module that is the program: rich's imports 0.6 MB for a show."""
    false = {
        ast.dump(ast.parse(condition, mode="eval").body)
        for condition in ("__name__ == '__main__'", "TYPE_CHECKING", "typing.TYPE_CHECKING")
    }
    body: list[ast.stmt] = []
    for node in tree.body:
        body += node.orelse if isinstance(node, ast.If) and ast.dump(node.test) in false else [node]
    tree.body = body
    return tree


def without_annotations(tree: ast.Module) -> ast.Module:
    """Of functions, where nothing here looks at them. An eighth of the code's size."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
    return tree


def without_features(tree: ast.Module) -> tuple[ast.Module, int]:
    """``from __future__ import ...`` as the compiler's flags: as a statement it also loads a module at every start."""
    features = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    tree.body = [node for node in tree.body if node not in features]
    flags = [getattr(__future__, alias.name).compiler_flag for node in features for alias in node.names]
    return tree, functools.reduce(operator.or_, flags, 0)


def imports(code: CodeType, name: str, is_package: bool, everywhere: bool) -> Iterator[str]:
    """Names of modules that the code may import, submodules included; some are names of other things.

    Args:
        code: of the module called `name`.
        everywhere: inside functions as well.
    """
    instructions = list(dis.get_instructions(code))
    for index, instruction in enumerate(instructions):
        if instruction.opname != "IMPORT_NAME":
            continue
        level, wanted = instructions[index - 2].argval, instructions[index - 1].argval or ()
        base = _absolute(name, is_package, level, instruction.argval)
        yield base
        yield from (f"{base}.{item}" for item in wanted if item != "*")
    for constant in code.co_consts:
        # Functions have fast local variables, class bodies have none.
        if isinstance(constant, CodeType) and (everywhere or not constant.co_flags & 0x1):
            yield from imports(constant, name, is_package, everywhere)


def codecs_named(tree: ast.AST) -> Iterator[str]:
    """Modules of the codecs that source text names: ``text.encode("ascii")``, ``open(path, encoding="utf-8-sig")``."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        named = [keyword.value for keyword in node.keywords if keyword.arg == "encoding"]
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("decode", "encode", "lookup"):
            named += node.args[:1]
        for value in named:
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                codec = encodings.normalize_encoding(value.value).lower()
                yield f"encodings.{encodings.aliases.aliases.get(codec, codec)}"


def _absolute(name: str, is_package: bool, level: int, imported: str) -> str:
    if not level:
        return imported
    parts = name.split(".")
    above = parts[: len(parts) - level + (1 if is_package else 0)]
    return ".".join([*above, *([imported] if imported else [])])


def named_at_run_time(libraries: Path) -> list[str]:
    """Modules that are imported by a name made at run time: commands, and rich's widths of characters."""
    found = [
        path.relative_to(libraries).with_suffix("")
        for pattern in (
            f"{PACKAGE}/commands/[!_]*.py",
            f"{PACKAGE}/commands/auditing/[!_]*.py",
            f"{PACKAGE}/commands/plugin/[!_]*.py",
            f"{PACKAGE}/commands/installation/[!_]*.py",
            f"{PACKAGE}/commands/metrics/__init__.py",
            "rich/_unicode_data/unicode*.py",
        )
        for path in sorted(libraries.glob(pattern))
    ]
    return [".".join(path.parts).removesuffix(".__init__") for path in found]


def write_archive(modules: Iterable[Module], target: Path) -> None:
    """For zipimport: byte code that is never compared with a source (PEP 552, unchecked)."""
    files = {
        module.name.replace(".", "/") + ("/__init__.pyc" if module.is_package else ".pyc"): importlib.util.MAGIC_NUMBER
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


def main() -> None:
    libraries, standard, archive = map(Path, sys.argv[1:])
    roots = [f"{PACKAGE}.__main__", *named_at_run_time(libraries), *LATE]
    write_archive(Search(libraries, standard).run(roots), archive)


if __name__ == "__main__":
    main()
