"""Fuzzing without atheris: inputs are changed at random, again and again. No coverage guides it.

Rules of this file: plain and bounded; a seed and a number make an input, so that a crash is made again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from random import Random

LARGEST = 8192  # bytes of an input, here and with atheris
TOKENS = (
    b"\0", b"\xff", b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"/", b"?", b"#", b"@", b"%", b"%2e", b"..",
    b"\\", b'"', b"0", b"-1", b"9" * 20, b"1e999", b"NaN", b"null", b"{}", b"[", b"\xef\xbb\xbf",
    b"\xc3\xa9", b"\xed\xa0\x80", b"\xe2\x80\xa8", b"\x85", b"\x1d", b"\x1e", b"\x1f",
)  # fmt: skip


class Crash(Exception):
    """A target's invariant does not hold for an input."""

    def __init__(self, data: bytes, seed: int, number: int) -> None:
        super().__init__(f"input {number} of seed {seed}: {data!r}")
        self.data = data


def mutated(random: Random, inputs: Sequence[bytes]) -> bytes:
    """One of the inputs, changed in one to six places."""
    data = bytearray(random.choice(inputs))
    for _ in range(random.randrange(1, 7)):
        at = random.randrange(len(data) + 1)
        kind = random.randrange(6)
        if kind == 0:
            data[at : at + 1] = bytes([random.randrange(256)])
        elif kind == 1:
            del data[at : at + random.randrange(1, 9)]
        elif kind == 2:
            data[at:at] = random.choice(TOKENS)
        elif kind == 3:
            data[at:at] = data[at : at + random.randrange(1, 33)]
        elif kind == 4:
            start = random.randrange(len(data) + 1)
            data[at:at] = data[start : start + random.randrange(1, 33)]
        else:
            other = random.choice(inputs)
            start = random.randrange(len(other) + 1)
            data[at : at + random.randrange(17)] = other[start : start + random.randrange(65)]
    return bytes(data[:LARGEST])


def run(check: Callable[[bytes], None], inputs: Sequence[bytes], seed: int, seconds: float) -> int:
    """Feeds the inputs, and then what becomes of them, for some seconds; returns how many it were.

    Raises:
        Crash: one of them breaks the invariant; the cause tells how.
    """
    until = time.monotonic() + seconds
    number = 0
    while number < len(inputs) or time.monotonic() < until:
        data = inputs[number] if number < len(inputs) else mutated(Random(f"{seed}:{number}"), inputs)
        try:
            check(data)
        except Exception as error:
            raise Crash(data, seed, number) from error
        number += 1
    return number
