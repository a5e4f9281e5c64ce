"""SHA-256 (FIPS 180-4, 6.2) for a name or two: importing ``hashlib`` loads two libraries, which takes a system launch
with TLS 1 to 2 % longer, and 0.4 MiB of 16.3.

For file names, not for secrets: it takes another time for other data. tests/test_plainsha256.py holds it against
``hashlib``.

>>> hexdigest(b"abc")
'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
"""

from __future__ import annotations

_MASK = 0xFFFFFFFF
_TWICE = 0x1_0000_0001
"""A word times this is the word twice in a row: shifted, the lower half is the word rotated."""

# fmt: off
_START = (
    0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19,
)
_ROUNDS = (
    0x428A2F98, 0x71374491, 0xB5C0FBCF, 0xE9B5DBA5, 0x3956C25B, 0x59F111F1, 0x923F82A4, 0xAB1C5ED5,
    0xD807AA98, 0x12835B01, 0x243185BE, 0x550C7DC3, 0x72BE5D74, 0x80DEB1FE, 0x9BDC06A7, 0xC19BF174,
    0xE49B69C1, 0xEFBE4786, 0x0FC19DC6, 0x240CA1CC, 0x2DE92C6F, 0x4A7484AA, 0x5CB0A9DC, 0x76F988DA,
    0x983E5152, 0xA831C66D, 0xB00327C8, 0xBF597FC7, 0xC6E00BF3, 0xD5A79147, 0x06CA6351, 0x14292967,
    0x27B70A85, 0x2E1B2138, 0x4D2C6DFC, 0x53380D13, 0x650A7354, 0x766A0ABB, 0x81C2C92E, 0x92722C85,
    0xA2BFE8A1, 0xA81A664B, 0xC24B8B70, 0xC76C51A3, 0xD192E819, 0xD6990624, 0xF40E3585, 0x106AA070,
    0x19A4C116, 0x1E376C08, 0x2748774C, 0x34B0BCB5, 0x391C0CB3, 0x4ED8AA4A, 0x5B9CCA4F, 0x682E6FF3,
    0x748F82EE, 0x78A5636F, 0x84C87814, 0x8CC70208, 0x90BEFFFA, 0xA4506CEB, 0xBEF9A3F7, 0xC67178F2,
)
# fmt: on


def hexdigest(data: bytes) -> str:
    """The digest in hex."""
    padded = data + b"\x80" + bytes(-(len(data) + 9) % 64) + (len(data) * 8).to_bytes(8, "big")
    state: tuple[int, ...] = _START
    for start in range(0, len(padded), 64):
        words = [int.from_bytes(padded[place : place + 4], "big") for place in range(start, start + 64, 4)]
        for place in range(16, 64):
            x, y = words[place - 15], words[place - 2]
            xx, yy = x * _TWICE, y * _TWICE
            small0, small1 = xx >> 7 ^ xx >> 18 ^ x >> 3, yy >> 17 ^ yy >> 19 ^ y >> 10
            words.append(words[place - 16] + small0 + words[place - 7] + small1 & _MASK)
        a, b, c, d, e, f, g, h = state
        for word, constant in zip(words, _ROUNDS, strict=True):
            aa, ee = a * _TWICE, e * _TWICE
            first = h + (ee >> 6 ^ ee >> 11 ^ ee >> 25) + (e & f ^ ~e & g) + constant + word
            second = (aa >> 2 ^ aa >> 13 ^ aa >> 22) + (a & b ^ a & c ^ b & c)
            a, b, c, d, e, f, g, h = first + second & _MASK, a, b, c, d + first & _MASK, e, f, g
        state = tuple(old + new & _MASK for old, new in zip(state, (a, b, c, d, e, f, g, h), strict=True))
    return "".join(f"{word:08x}" for word in state)
