"""``importlib.metadata`` in the bundle, where nothing is installed and so no distribution has a version.

shtab asks for its own. The standard library's would bring csv, zipfile and email along.
"""

from __future__ import annotations


class PackageNotFoundError(ModuleNotFoundError):
    """No such distribution is installed."""


def version(distribution_name: str) -> str:
    """Raises PackageNotFoundError, as for every name."""
    raise PackageNotFoundError(distribution_name)
