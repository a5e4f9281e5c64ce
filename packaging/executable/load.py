"""Loads the program: run in the build, by the executable itself (program.c), which then keeps its memory.

What a pull may use is imported here, and lies in memory when the process of a pull begins; everything else is imported
from the archive at the end of the file. ``start`` is what each process runs.
"""

import gc
import importlib
import os
import sys
import zipimport

ARCHIVE = "/proc/self/exe"
# For people, who wait for some milliseconds more.
COLD = ("commands", "demo", "doctor", "explanation", "manifests", "node", "registryclient", "testbed", "version")


def load():
    for path in zipimport._zip_directory_cache[ARCHIVE]:
        package, _, rest = path.removesuffix(".pyc").removesuffix("/__init__").partition("/")
        if package == "crio_credential_provider" and path.endswith(".pyc") and rest.partition("/")[0] not in COLD:
            importlib.import_module(f"{package}.{rest.replace('/', '.')}".removesuffix("."))
    importlib.import_module("tomli")
    importlib.import_module("yaml")
    # The archive's place in the file that is being made is another one.
    zipimport._zip_directory_cache.clear()
    sys.path_importer_cache.clear()
    gc.collect()
    gc.freeze()
    gc.disable()


def start():
    from crio_credential_provider.__main__ import main

    main()


load()
