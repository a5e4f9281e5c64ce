"""The releases of containerd that read the same files differently. Which one runs, no file says.

A file is read as each of them reads it; where they differ, containerd may ask for what any of them makes of it.
"""

from __future__ import annotations

V1_6 = "1.6"
V1_7 = "1.7"
V2_0 = "2.0"
"""2.0 and 2.1."""
V2_2 = "2.2"
V2_3 = "2.3"
"""2.3, and the 2.4 that is to come."""
READINGS = (V1_6, V1_7, V2_0, V2_2, V2_3)
FIRST = (V1_6, V1_7)
"""Of containerd 1, which has another TOML parser and merges files otherwise."""

REFUSED = "containerd does not start with it, and no pod of this node does"
"""What a fault in config.toml comes to."""
FAILS = "containerd fails every pull from this registry because of it"
"""What a fault in the directory of a registry, or in its endpoints, comes to."""
