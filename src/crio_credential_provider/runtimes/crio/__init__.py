"""CRI-O: registries.conf with its drop-ins, read and matched as containers/image does, into pull sources.

The rules are in docs/reference/registries.md, and as cases that the library itself answered in tests/vectors.
"""
