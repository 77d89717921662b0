"""CRC-64 as the vendor's object storage computes it (CRC-64/XZ: ECMA-182, reflected), two bytes at a time.

Rules of this file: the table is made on first need; it is slow (about 8 MB a second), and used for small
files alone.
"""

from __future__ import annotations

import sys
from array import array
from functools import cache

_POLYNOMIAL = 0xC96C5795D7870F42  # ECMA-182's, its bits reversed
_ONES = 0xFFFFFFFFFFFFFFFF


@cache
def _tables() -> tuple[list[int], list[int]]:
    """What a byte, and what two bytes, do to the remainder."""
    one: list[int] = []
    for byte in range(256):
        remainder = byte
        for _ in range(8):
            remainder = (remainder >> 1) ^ (_POLYNOMIAL if remainder & 1 else 0)
        one.append(remainder)
    two = [one[pair >> 8 ^ (one[pair & 255] & 255)] ^ one[pair & 255] >> 8 for pair in range(65536)]
    return one, two


class CRC64:
    """A running checksum; used as those of `hashlib` are.

    >>> checksum = CRC64()
    >>> checksum.update(b"123456789")
    >>> checksum.digest().hex()
    '995dc9bbdf1939fa'
    """

    __slots__ = ("_remainder",)

    def __init__(self) -> None:
        self._remainder = _ONES

    def update(self, data: bytes | memoryview, /) -> None:
        """Adds bytes."""
        one, two = _tables()
        remainder = self._remainder
        even = len(data) & ~1
        pairs = array("H", bytes(data[:even]))
        if sys.byteorder == "big":
            pairs.byteswap()
        for pair in pairs:
            remainder = two[(remainder ^ pair) & 0xFFFF] ^ remainder >> 16
        for byte in data[even:]:
            remainder = one[(remainder ^ byte) & 255] ^ remainder >> 8
        self._remainder = remainder

    def digest(self) -> bytes:
        """The checksum of all that was added, as 8 bytes."""
        return (self._remainder ^ _ONES).to_bytes(8, "big")
