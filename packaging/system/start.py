"""Where a system launch finds the modules of a pull: in one file beside the package, which the launcher has opened.

tools/make_bundle.py writes that file, ``pull-path.<interpreter>``: this code and ``{module: its place in the file}``,
then the byte code of each, without docstrings. To look for twenty files, and to check and read each, takes 3 of 50
million instructions of a pull. Modules that are not in it, and all of them for another Python than the build's, are
imported as any other.
"""

from __future__ import annotations

import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

# Every module has one; `importlib.machinery` takes 1.5 million instructions to import.
ModuleSpec: Any = type(sys.__spec__)


class PullPath:
    """Finds and loads these modules (docs.python.org/3/reference/import.html, 5.4.1).

    Args:
        file: descriptor of the file.
        places: where the marshalled byte code of each begins, its bytes, and whether it is a package.
        library: directory of the package.

    Raises:
        EOFError: the file was cut off.
    """

    def __init__(self, file: int, places: dict[str, tuple[int, int, bool]], library: str) -> None:
        # One that took the number of a closed standard stream gives it back.
        taken = []
        while file <= 2:
            taken.append(file)
            file = os.dup(file)
        for number in taken:
            os.close(number)
        begin, size, _ = max(places.values())
        if os.fstat(file).st_size < begin + size:
            raise EOFError
        self._file = file
        self._places = places
        self._library = library

    def find_spec(self, name: str, path: object, target: object = None) -> Any:
        if name not in self._places:
            return None
        is_package = self._places[name][2]
        spec = ModuleSpec(name, self, is_package=is_package)
        if is_package:
            spec.submodule_search_locations.append(f"{self._library}/{name.replace('.', '/')}")
        return spec

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        begin, size, _ = self._places[module.__name__]
        try:
            code = marshal.loads(os.pread(self._file, size, begin))
        except (EOFError, TypeError, ValueError):
            # Blocks of zeros, after a crash of the node: its own file has it as well.
            name, finder = module.__name__, sys.modules["_frozen_importlib_external"].PathFinder
            above = sys.modules[name.rpartition(".")[0]].__path__ if "." in name else None
            spec = finder.find_spec(name, above)
            if spec is None:
                raise ImportError(f"No module named {name!r}", name=name) from None
            code = spec.loader.get_code(name)
        exec(code, module.__dict__)
