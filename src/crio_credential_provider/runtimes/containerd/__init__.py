"""containerd: config.toml with its imports and hosts.toml, read as containerd does, into pull sources.

The rules are in docs/reference/containerd.md, and as cases that containerd's own code answered in tests/vectors.
"""
