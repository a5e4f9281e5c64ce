"""Record: the base of the small immutable values that the modules hand to each other.

A slotted class instead of ``dataclasses`` (14 ms of CPU to import) or ``typing.NamedTuple`` (``typing``: 5 ms), since
the kubelet starts a new process for each pull.
"""

from __future__ import annotations


class Record:
    """Equality and a readable ``repr`` over the slots of a class, in their order.

    A class that holds secret material names it in ``_secret``; ``repr`` shows ``***`` for these.
    """

    __slots__: tuple[str, ...] = ()
    _secret: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in self.__slots__))

    def __repr__(self) -> str:
        fields = (f"{n}={'***' if n in self._secret else repr(getattr(self, n))}" for n in self.__slots__)
        return f"{type(self).__name__}({', '.join(fields)})"
