"""``datetime`` as CPython 3.12 and later have it; in a bundle of 3.11 this is the module.

That version's own runs a whole implementation in Python first, and then throws it away for the one in C.
"""

from _datetime import *  # noqa: F403
from _datetime import UTC, __doc__  # noqa: F401
