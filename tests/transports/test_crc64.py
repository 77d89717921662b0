"""CRC-64/XZ: against the catalogue's check value, and against its definition, bit by bit."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun_transports import _crc64
from agentrun_transports._crc64 import CRC64
from proto_strategies import PROPERTY


def by_definition(data: bytes) -> int:
    """ECMA-182's polynomial, reflected in and out, all ones before and after: one bit at a time."""
    remainder = 2**64 - 1
    for byte in data:
        for bit in range(8):
            out = (remainder ^ byte >> bit) & 1
            remainder >>= 1
            if out:
                remainder ^= int(f"{0x42F0E1EBA9EA3693:064b}"[::-1], 2)
    return remainder ^ (2**64 - 1)


def of(*pieces: bytes | memoryview) -> int:
    checksum = CRC64()
    for piece in pieces:
        checksum.update(piece)
    return int.from_bytes(checksum.digest(), "big")


def test_the_check_value_of_the_catalogue():
    """CRC RevEng: width=64 poly=0x42f0e1eba9ea3693 refin refout, check=0x995dc9bbdf1939fa."""
    assert of(b"123456789") == by_definition(b"123456789") == 0x995DC9BBDF1939FA


def test_of_nothing():
    assert of() == of(b"") == 0
    assert CRC64().digest() == bytes(8)


@PROPERTY
@given(st.binary(max_size=200))
def test_any_bytes(data):
    assert of(data) == by_definition(data)


@PROPERTY
@given(st.binary(max_size=100), st.lists(st.integers(0, 100), max_size=6))
def test_in_any_pieces(data, cuts):
    """Pieces of an odd length leave no byte behind."""
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in pairwise(places)]
    assert of(*pieces) == by_definition(data)
    assert of(*map(memoryview, pieces)) == by_definition(data)


def test_it_may_be_asked_before_the_end():
    checksum = CRC64()
    checksum.update(b"12345")
    assert checksum.digest() == by_definition(b"12345").to_bytes(8, "big")
    checksum.update(b"6789")
    assert checksum.digest().hex() == "995dc9bbdf1939fa"


@pytest.mark.parametrize("bit", [0, 7, 8, 40_000, 79_999])
def test_one_bit_makes_a_difference(bit):
    data = bytearray(random.Random(5).randbytes(10_000))
    before = of(data)
    data[bit // 8] ^= 1 << bit % 8
    assert of(data) != before


def test_on_a_machine_with_the_other_byte_order(monkeypatch):
    """There, an array holds its pairs the other way round: swapped twice, it must be wrong here."""
    data = b"123456789"
    right = of(data)
    other = {"little": "big", "big": "little"}[_crc64.sys.byteorder]
    monkeypatch.setattr(_crc64.sys, "byteorder", other)
    assert of(data) == by_definition(b"214365879") != right
