"""The codec ``idna``, for ASCII names alone; in the bundle this is ``encodings.idna``.

The standard library's would bring ``unicodedata``, 1.1 MB. A name from a kubeconfig is in ASCII already (``xn--...``),
another one is refused. What is ASCII gets exactly the verdicts of CPython's Lib/encodings/idna.py.
"""

from __future__ import annotations

import codecs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer


def _check(labels: list[bytes]) -> None:
    for label in labels[:-1]:
        if not 0 < len(label) < 64:
            raise UnicodeError("label empty or too long")
    if len(labels[-1]) >= 64:
        raise UnicodeError("label too long")


class Codec(codecs.Codec):
    def encode(self, input: str, errors: str = "strict", /) -> tuple[bytes, int]:
        if errors != "strict":
            raise UnicodeError(f"unsupported error handling {errors}")
        if not input:
            return b"", 0
        name = input.encode("ascii")
        _check(name.split(b"."))
        return name, len(input)

    def decode(self, input: Buffer, errors: str = "strict", /) -> tuple[str, int]:
        if errors != "strict":
            raise UnicodeError(f"unsupported error handling {errors}")
        data = bytes(input)
        return data.decode("ascii"), len(data)


def getregentry() -> codecs.CodecInfo:
    codec = Codec()
    return codecs.CodecInfo(name="idna", encode=codec.encode, decode=codec.decode)
