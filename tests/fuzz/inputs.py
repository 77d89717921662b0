"""How the bytes of an input become values, and values the bytes of a corpus.

Rules of this file: every input means something; two separators, which no value needs, divide it, so that
a mutation moves whole parts as easily as single bytes.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

GROUP = b"\x1d"
RECORD = b"\x1e"
UNIT = b"\x1f"


def text(data: bytes) -> str:
    """Any text; bytes that are no UTF-8 become lone surrogates, which no part of a request may hold."""
    return str(data, "utf-8", "surrogateescape")


def groups(data: bytes, count: int) -> list[bytes]:
    """Exactly so many groups; what is missing is empty, what is too much is left out."""
    found = data.split(GROUP)[:count]
    return found + [b""] * (count - len(found))


def records(group: bytes, most: int = 8) -> list[bytes]:
    """The records of a group that are not empty, the first so many of them."""
    return [record for record in group.split(RECORD) if record][:most]


def only(error: Exception, *kinds: type[Exception]) -> str:
    """The message of an error that is of one of these classes itself: a class below it would be foreign."""
    assert type(error) in kinds, f"a foreign class: {error!r}"
    return str(error)


def pairs(group: bytes) -> list[tuple[str, str]]:
    """Records of the form ``name=value``."""
    halves = (text(record).partition("=") for record in records(group))
    return [(name, value) for name, _, value in halves]


def joined(separator: bytes, parts: Iterable[str | bytes]) -> bytes:
    """The parts as bytes with a separator between them."""
    return separator.join(
        [part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass") for part in parts]
    )


def cut(data: bytes, seed: int) -> list[bytes]:
    """The data in pieces, byte by byte for a seed of 0; some pieces are empty."""
    if not seed:
        return [data[at : at + 1] for at in range(len(data))]
    drawn = random.Random(seed)
    marks = sorted(drawn.randrange(len(data) + 1) for _ in range(1 + seed % 8))
    return [data[start:stop] for start, stop in zip([0, *marks], [*marks, len(data)], strict=True)]
