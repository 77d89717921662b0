"""The wire, differentially: the short road against the long one; ours against three readers that are not.

What a peer says comes from a grammar (tests/wire_grammar.py), whole and damaged, drawn by seed and by
Hypothesis; it is read whole and in pieces. What must hold:

- The short road and the long one make the same of everything.
- However the bytes are cut, and however the content is taken, the outcome is the same.
- Where another reader makes something else of it, a row of `DIFFERENCES` (tests/wire_readers.py) says
  so, with the section that decides. A difference in no row fails, and so does a row that no input meets.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from agentrun_transports._wire import Wire
from transports_support import Reading
from wire_grammar import METHODS, sent
from wire_readers import DIFFERENCES, Case, Refusal, by_wire, compare, explained

pytestmark = pytest.mark.once

PROPERTY = settings(deadline=None, max_examples=300, database=None, suppress_health_check=list(HealthCheck))

SEEDS = 5_000
CUT = 300  # of them are read in pieces as well ...
SMALL = 150  # ... and those of no more bytes in every two pieces


def drawn(random: Random) -> tuple[bytes, str, bool]:
    """What a peer says, to which method, and whether it then closes."""
    return sent(random), random.choice(METHODS), bool(random.randrange(2))


def takes_the_short_road(data: bytes, method: str) -> bool:
    wire = Wire()
    wire.begin(method)
    wire.feed(data)
    return wire.read_head() is not None and wire._h11 is None


def test_all_that_is_drawn_by_seed():
    rows: Counter[int] = Counter()
    kinds: Counter[str] = Counter()
    for seed in range(SEEDS):
        data, method, ended = drawn(Random(seed))
        try:
            ours, met = compare(data, method, ended)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from None
        rows.update(met)
        kinds[type(ours).__name__] += 1
        kinds["short"] += isinstance(ours, Reading) and takes_the_short_road(data, method)
    unmet = [DIFFERENCES[row] for row in range(len(DIFFERENCES)) if not rows[row]]
    assert not unmet, "no input meets these rows"
    # The comparison means something only while each kind is common.
    assert min(kinds[kind] for kind in ("Reading", "Refusal", "NoneType", "short")) > SEEDS // 50, kinds


@given(random=st.randoms(use_true_random=False))
@PROPERTY
def test_all_that_hypothesis_draws(random):
    ours, met = compare(*drawn(random))
    event(type(ours).__name__)
    for row in met:
        event(f"row {row}")


@pytest.mark.parametrize(
    ("data", "method", "ended"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "GET", False),
        (b"HTTP/1.1 205 \r\nContent-Length: 1\r\n\r\nx", "GET", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n \r\n\r\nx", "GET", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX: \r\n\r\nx", "GET", True),
    ],
)
def test_what_was_awkward_once(data, method, ended):
    compare(data, method, ended)


def test_a_row_explains_what_it_is_for_and_nothing_else():
    """The nets hold: a fault of ours that a row might have covered shows."""
    data = b"HTTP/1.1 200 OK\r\nX: 1 \r\nContent-Length: 1\r\n\r\nx"
    right = by_wire([data], "GET", False)
    assert isinstance(right, Reading)
    wrong = [
        Refusal(""),
        Reading(201, right.fields, right.content, True, right.head),
        Reading(200, right.fields[:1], right.content, True, right.head),
        Reading(200, (("X", "1 "), right.fields[1]), right.content, True, right.head),
        Reading(200, right.fields, b"", True, right.head),
        Reading(200, right.fields, right.content, False, right.head),
    ]
    for ours in wrong:
        case = Case(sent=data, method="GET", ended=False, ours=ours, other="h11", theirs=right)
        assert case.aspects()
        assert not list(explained(case))
    case = Case(sent=data, method="GET", ended=False, ours=wrong[-1], other="httptools", theirs=right)
    assert not case.aspects(), "ours may give a connection up"
    case = Case(sent=data, method="GET", ended=False, ours=right, other="httptools", theirs=wrong[-1])
    assert case.aspects() == {"reusable"}
    assert not list(explained(case))


# --- in pieces


def cut(data: bytes, *places: int) -> list[bytes]:
    marks = [0, *sorted(places), len(data)]
    return [data[start:stop] for start, stop in pairwise(marks) if start != stop]


def test_the_split_does_not_matter_to_what_is_drawn_by_seed():
    small = 0
    for seed in range(CUT):
        data, method, ended = drawn(Random(seed))
        whole = by_wire([data], method, ended)
        assert by_wire(cut(data, *range(1, len(data))), method, ended) == whole, seed
        if len(data) <= SMALL:
            small += 1
            for at in range(1, len(data)):
                assert by_wire(cut(data, at), method, ended) == whole, (seed, at)
    assert small > CUT // 3


def test_how_the_content_is_taken_does_not_matter():
    for seed in range(SEEDS // 8):
        data, method, ended = drawn(Random(seed))
        whole = by_wire([data], method, ended)
        if isinstance(whole, Refusal) and "larger than" in whole.why:
            continue  # only a whole has a bound
        for room in (0, 1, 7):
            for pieces in ([data], cut(data, *range(9, len(data), 9))):
                assert by_wire(pieces, method, ended, room=room) == whole, (seed, room, len(pieces))


@given(random=st.randoms(use_true_random=False), places=st.lists(st.integers(0, 500), max_size=6))
@PROPERTY
def test_the_split_does_not_matter(random, places):
    data, method, ended = drawn(random)
    whole = by_wire([data], method, ended)
    assert by_wire(cut(data, *{place % (len(data) + 1) for place in places}), method, ended) == whole
    assert by_wire(cut(data, *range(1, len(data))), method, ended) == whole


@given(content=st.binary(max_size=300_000), extra=st.binary(max_size=5), size=st.integers(1, 100_000))
@settings(PROPERTY, max_examples=40)
def test_bodies_larger_than_the_buffer(content, extra, size):
    data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content + extra
    found = by_wire([data[at : at + size] for at in range(0, len(data), size)], "GET", False)
    assert isinstance(found, Reading)
    assert (found.content, found.reusable) == (content, not extra)


@given(
    content=st.binary(max_size=2_000),
    extra=st.binary(max_size=5),
    room=st.integers(1, 700),
    size=st.integers(1, 500),
    framing=st.sampled_from(["length", "long_length", "chunked", "close"]),
)
@PROPERTY
def test_filling_a_room_of_any_size(content, extra, room, size, framing):
    """`fill` hands out the body in pieces of the room's size, the last one shorter, and loses nothing."""
    head = {
        "length": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content),
        "long_length": b"HTTP/1.1 200 OK\r\nX: caf\xe9\r\nContent-Length: %d\r\n\r\n" % len(content),
        "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "close": b"HTTP/1.1 200 OK\r\n\r\n",
    }[framing]
    body = content
    if framing == "chunked":
        body = b"".join(
            b"%x\r\n%b\r\n" % (len(piece), piece)
            for at in range(0, len(content), 97)
            if (piece := content[at : at + 97])
        )
        body += b"0\r\n\r\n"
    if framing == "close":
        extra = b""
    data = head + body + extra
    wire = Wire()
    wire.begin("GET")
    waiting = bytearray(data)
    found = b""
    space = memoryview(bytearray(room))

    def more():
        if not waiting:
            wire.end_of_stream()
            return
        target = wire.get_buffer()
        count = min(size, len(target), len(waiting))
        target[:count] = waiting[:count]
        del waiting[:count]
        wire.received(count)

    while wire.read_head() is None:
        more()
    for _ in range(100_000):
        if wire.done:
            break
        count = wire.fill(space)
        if count is None:
            more()
        else:
            assert count <= room
            found += space[:count]
    assert found == content
    assert (wire.reusable and not waiting) is (not extra and framing != "close")


@pytest.mark.parametrize(
    ("data", "short"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", True),
        (b"HTTP/1.1 404 Not Found\r\nconnection: keep-alive\r\ncontent-length: 1\r\nX: y\r\n\r\nx", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", False),
        (b"HTTP/1.1 200 OK\nContent-Length: 1\n\nx", False),
        (b"HTTP/1.1 200 caf\xe9\r\nContent-Length: 1\r\n\r\nx", False),
    ],
)
def test_which_road_an_answer_takes(data, short):
    """The comparison above means something only while both roads are in use."""
    wire = Wire()
    wire.begin("GET")
    wire.feed(data)
    assert wire.read_head() is not None
    assert (wire._h11 is None) is short
    assert wire.read_all(10) == b"x"


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_received_is_nothing_started(count):
    """The end of a stream brings no byte of an answer: it must still count as not begun."""
    wire = Wire()
    wire.begin("GET")
    wire.received(count)
    assert wire.started is bool(count)
