"""SHA-256 without hashlib: the same for whatever it is given."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crio_credential_provider.platform import plainsha256


@pytest.mark.parametrize("byte", [b"\x00", b"a", b"\xff"])
def test_every_length_around_the_blocks(byte: bytes) -> None:
    for length in range(260):
        data = byte * length
        assert plainsha256.hexdigest(data) == hashlib.sha256(data).hexdigest(), length


@given(st.binary(max_size=300))
def test_any_data(data: bytes) -> None:
    assert plainsha256.hexdigest(data) == hashlib.sha256(data).hexdigest()
