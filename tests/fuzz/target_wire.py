"""However the bytes of an answer are cut, and its content is taken, the wire makes the same of them on both
of its roads, and the same as h11 but for the differences that are known.

An input is a byte that draws method, end of stream and how the content is taken, one that draws the cuts, and
the bytes of an answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from fuzz.inputs import cut
from hostile import ROWS
from wire_grammar import METHODS, sent
from wire_readers import Refusal, by_wire, compare

# Name of what was found -> input.
FOUND: dict[str, bytes] = {}


def check(data: bytes) -> None:
    if len(data) < 2:
        return
    method, ended = METHODS[data[0] % len(METHODS)], bool(data[0] & 64)
    said = data[2:]
    whole, _ = compare(said, method, ended, ["h11"])
    room = (None, 0, 1, 7)[data[0] >> 4 & 3]
    if isinstance(whole, Refusal) and "larger than" in whole.why:
        room = None  # only a whole has a bound
    assert by_wire(cut(said, data[1]), method, ended, room=room) == whole, "the cut matters"


def corpus() -> Iterator[bytes]:
    for row in ROWS:
        if not row.big and not row.after:
            yield bytes([2 + (row.method == "HEAD") | 64 * (row.then == "close"), 3]) + row.raw
    for seed in range(100):
        random = Random(seed)
        yield bytes([random.randrange(128), seed]) + sent(random)
