"""What the build is told about the parts of the executable that pulls touch."""

from __future__ import annotations

import struct

from touched import Blocks, Touched, Use, loads_events, matching, order_sections, rank_blocks

HOT = Use({0x1000 // 16, 0x2000 // 16, 0x9000 // 16}, {0x2000 // 16})
RARE = Use({0x1000 // 16, 0x3000 // 16}, set())


def events(*told: tuple[int, int]) -> bytes:
    return b"".join(struct.pack("QQ", *each) for each in told)


def test_what_is_written_to_comes_first_then_what_is_touched_most_often() -> None:
    kept = Blocks([16] * 4, [0x1000, 0x2000, 0x3000, 0x4000])
    assert rank_blocks(kept, [HOT, RARE]) == [2, 0, 3, None]


def test_a_block_is_touched_by_its_last_byte() -> None:
    assert rank_blocks(Blocks([32, 16], [0x0FF0, 0x0FE0]), [HOT]) == [1, None]


def test_an_address_that_is_given_back_belongs_to_the_next_block() -> None:
    assert loads_events(events((0x1000, 16), (0x1000, 0), (0x1000, 48))) == Blocks([16, 48], [None, 0x1000])


def test_the_plan_has_each_size_and_place() -> None:
    told = events((0x1000, 16), (0x2000, 32), (0x5000, 48), (0x6000, 64), (0x6000, 0))
    blocks = loads_events(told)
    plan = Touched({}, blocks, rank_blocks(blocks, [HOT]), 1).plan(told)
    written, touched, cold, outside = range(4)
    assert struct.unpack("3Q4I", plan) == (32, 16, 48, 16 | touched, 32 | written, 48 | cold, 64 | outside)


def test_another_architecture_takes_some_other_blocks() -> None:
    same = [list(range(start, start + 20)) for start in (100, 200, 300)]
    ours = [*same[0], 1, *same[1], 2, 3, *same[2]]
    theirs = [*same[0], *same[1], 4, *same[2]]
    pairs = [(ours[i], theirs[j]) for i, j in matching(ours, theirs)]
    assert pairs == [(number, number) for part in same for number in part]


def test_a_list_that_is_another_one_altogether_matches_nowhere() -> None:
    assert [*matching(list(range(1000)), list(range(5000, 6000)))] == []


LINK_MAP = """\
.text           0x0000000000000f00     0x9000
 .text.cold     0x0000000000000f00       0x10 /build/python/libpython3.13.a(dictobject.o)
 .text.PyDict_GetItemWithError
                0x0000000000001000       0x40 /build/python/libpython3.13.a(dictobject.o)
 .text          0x0000000000003000       0x40 /usr/lib/gcc/x86_64-linux-gnu/12/../../../x86_64-linux-gnu/libc.a(read.o)
 .data.errors   0x0000000000002000       0x40 /usr/lib/x86_64-linux-gnu/libc.a(error.o)
.snapshot       0x0000000000008000     0x9000
 .bss.state     0x0000000000009000       0x40 /build/openssl/libcrypto.a(libcrypto-lib-init.o)
"""


def test_the_linker_is_told_what_to_put_first() -> None:
    assert order_sections(LINK_MAP, [HOT, RARE]) == {
        "text": "*libpython3.13.a:dictobject.o(.text.PyDict_GetItemWithError)\n*libc.a:read.o(.text)\n",
        "rodata": "",
        "data": "*libcrypto.a:libcrypto-lib-init.o(.bss.state)\n",
    }
