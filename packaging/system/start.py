"""Where a system launch finds the modules of a pull: in one file beside the package, which the launcher has read.

tools/make_bundle.py writes that file, ``pull-path.<interpreter>``: this code, and ``{module: its byte code}``, without
docstrings. To look for twenty files, and to check and read each, takes 3 of 50 million instructions of a pull. Modules
that are not in it, and all of them for another Python than the build's, are imported as any other.
"""

from __future__ import annotations

import marshal
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
        codes: byte code of each, marshalled, so that only what is imported is made.
        library: directory of the package.
    """

    def __init__(self, codes: dict[str, bytes], library: str) -> None:
        self._codes = codes
        self._library = library

    def find_spec(self, name: str, path: object, target: object = None) -> Any:
        if name not in self._codes:
            return None
        is_package = "." not in name
        spec = ModuleSpec(name, self, is_package=is_package)
        if is_package:
            spec.submodule_search_locations.append(f"{self._library}/{name}")
        return spec

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(marshal.loads(self._codes[module.__name__]), module.__dict__)
