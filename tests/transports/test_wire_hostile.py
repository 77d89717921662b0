"""Every row of HOSTILE's "Answers" against the wire alone: whole, byte by byte, and in every split.

The same bytes must give the same outcome however they are cut; and it must be one that the row allows.
"""

from __future__ import annotations

from dataclasses import replace

import h11
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentrun_proto import (
    AgentRunClientError,
    Body,
    DecodeError,
    Headers,
    IncompleteError,
    Origin,
    ProtocolError,
    Request,
    decode,
)
from agentrun_proto.decoding import take_off_coding
from agentrun_proto.errors import error_class
from agentrun_transports._exchange import LAST_CHUNK, chunk
from agentrun_transports._wire import MAX_INTERIM, Wire, encode_head
from hostile import LINES, ROWS, Row, cases
from transports_support import Reading, read_wire

pytestmark = pytest.mark.once

# Silence is for the drivers: the wire has no clock. An endless script has no bytes to be cut.
CUT = [row for row in ROWS if not row.after]
SMALL = [row for row in CUT if not row.big]
SHORT = [row for row in SMALL if len(row.raw) <= 160]


def outcome(row: Row, pieces):
    """What a call would come to: the value, or the error; and whether the connection could be used again."""
    try:
        if row.then == "reset":
            reading = read_wire(pieces, row.method, ended=False)
            if reading is None:
                raise IncompleteError("reset")
        else:
            reading = read_wire(pieces, row.method, ended=row.then == "close")
            if reading is None:
                raise AssertionError("the wire waits for more than there will ever be")
        content = reading.content
        try:
            content = take_off_coding(reading.head, content)
        except AgentRunClientError:
            if reading.status < 300:
                raise
        if row.method == "HEAD":
            return content, reading.reusable
        return decode(reading.head, content), reading.reusable
    except AgentRunClientError as error:
        return error, None


def look(row: Row, found):
    value, reusable = found
    if isinstance(value, Exception):
        if row.id == "refusal_too_large":  # the drivers' test looks closer
            return type(value)
        row.judge(value)
        return type(value), value.status_code, reusable
    row.judge(value)
    if row.reuse is not None and row.then == "open":
        assert reusable is row.reuse
    return value, reusable


@pytest.mark.parametrize("row", cases(CUT))
def test_whole(row):
    look(row, outcome(row, iter([row.raw])))


@pytest.mark.parametrize("row", cases(SMALL))
def test_byte_by_byte(row):
    raw = row.raw
    whole = look(row, outcome(row, iter([raw])))
    drip = look(row, outcome(row, (raw[at : at + 1] for at in range(len(raw)))))
    assert drip == whole or type(drip) is type(whole) is tuple


@pytest.mark.parametrize("row", cases(SHORT))
def test_every_split_in_two(row):
    raw = row.raw
    whole = look(row, outcome(row, iter([raw])))
    for at in range(1, len(raw)):
        found = look(row, outcome(row, iter([raw[:at], raw[at:]])))
        # Which error is told may depend on when the first nonsense shows; that it is one may not.
        assert isinstance(found[0], type) is isinstance(whole[0], type) if isinstance(whole, tuple) else True
        if not isinstance(whole[0] if isinstance(whole, tuple) else whole, type):
            assert found == whole


@given(data=st.data())
@settings(deadline=None, max_examples=150, database=None, suppress_health_check=list(HealthCheck))
def test_any_split(data):
    row = data.draw(st.sampled_from(SMALL))
    raw = row.raw
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=8)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True) if a != b]
    look(row, outcome(row, iter(pieces)))


def test_rows_have_the_families_they_should():
    """The table cannot lose a line of HOSTILE unnoticed."""
    elsewhere = {
        "answers-early-refusal",
        "answers-idle-dead",
        "answers-dropped",
    }  # these take more than an answer
    assert {LINES[row.quote] for row in ROWS} == set(LINES.values()) - elsewhere
    assert error_class(404).__name__ == "NotFoundError"
    assert isinstance(read_wire(iter([b"HTTP/1.1 204 No\r\n\r\n"])), Reading)


# --- what has no length, and what waits for consent: what we say, as h11 hears it


def posted(length, **more):
    return Request(
        method="POST", origin=Origin("http", "h", 80), target="/a", body=Body(length=length), **more
    )


@pytest.mark.parametrize("length", [None, 0, 5])
@pytest.mark.parametrize("expect", [True, False])
def test_a_head_says_how_its_body_ends_in_one_way(length, expect):
    peer = h11.Connection(h11.SERVER)
    request = posted(length, expect_continue=expect)
    peer.receive_data(encode_head(request))
    fields = dict(peer.next_event().headers)
    assert fields.get(b"content-length") == (None if length is None else b"%d" % length)
    assert fields.get(b"transfer-encoding") == (b"chunked" if length is None else None)
    assert fields.get(b"expect") == (b"100-continue" if expect else None)
    assert peer.they_are_waiting_for_100_continue is expect
    named = [(name.lower().encode(), value.encode()) for name, value in request.fields()]
    assert sorted(named) == sorted(fields.items())


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8))
@settings(deadline=None, max_examples=100, database=None)
def test_chunks_are_what_h11_reads(pieces):
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(encode_head(posted(None)))
    peer.next_event()
    peer.receive_data(b"".join(map(chunk, pieces)) + LAST_CHUNK)
    heard = b""
    while isinstance(event := peer.next_event(), h11.Data):
        heard += bytes(event.data)
    assert (heard, type(event), peer.trailing_data) == (b"".join(pieces), h11.EndOfMessage, (b"", False))


@pytest.mark.parametrize("name", ["Transfer-Encoding", "Content-Length", "Expect"])
@pytest.mark.parametrize("value", ["1\r\nEvil: 1", "a\n"])
def test_a_callers_framing_cannot_bring_a_line(name, value):
    with pytest.raises(ValueError, match="control character"):
        encode_head(posted(None, headers=Headers({name: value})))


@pytest.mark.parametrize(
    "smuggled",
    [
        {"signature": (("X-A", "1\r\nEvil: 1"),)},
        {"signature": (("X-A", "1\n"),)},
        {"signature": (("X-A", "1\r"),)},
        {"signature": (("X-A", "\0"),)},
    ],
)
def test_the_whole_head_is_checked_once_more(smuggled):
    """The signature's fields are made by us and are not checked one by one."""
    with pytest.raises(ValueError, match="a line break or NUL"):
        encode_head(replace(posted(0), **smuggled))


def test_the_end_after_a_whole_answer_is_no_error():
    wire = Wire()
    wire.begin("GET")
    wire.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
    assert wire.read_head().status == 200
    assert wire.read_all(10) == b"x"
    assert wire.reusable
    wire.end_of_stream()
    assert wire.done
    assert not wire.reusable


def test_a_wire_that_is_fed_more_than_it_holds_says_so():
    wire = Wire()
    wire.begin("GET")
    with pytest.raises(BufferError, match="nothing takes"):
        wire.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + bytes(1 << 20))
    assert wire.read_head().status == 200, "what fits is there"


@pytest.mark.parametrize("fields", ["Transfer-Encoding: chunked\r\n", "Connection: close\r\n"])
def test_content_without_a_length_is_held_up_to_the_limit(fields):
    content = b"3\r\nabc\r\n" * 2 if "chunked" in fields else b"abcdef"
    for limit in (5, 6):
        wire = Wire()
        wire.begin("GET")
        wire.feed(f"HTTP/1.1 200 OK\r\n{fields}\r\n".encode() + content)
        wire.read_head()
        if limit == 5:
            with pytest.raises(DecodeError, match="larger than 5 bytes"):
                wire.read_all(limit)
        else:
            assert wire.read_all(limit) is None, "more may come"


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"


@pytest.mark.parametrize(
    ("raw", "continued", "status"),
    [
        (b"", False, None),
        (CONTINUE, True, None),
        (HINTS, False, None),
        (HINTS + CONTINUE, True, None),
        (CONTINUE + HINTS + CONTINUE, True, None),
        (CONTINUE[:-2], False, None),
        (b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n", False, 417),
        (CONTINUE + b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n", True, 413),
        (b"HTTP/1.1 102 Processing\r\n\r\n" + b"HTTP/1.1 200 OK\r\n\r\n", False, 200),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_consent_is_a_100_and_nothing_else(raw, continued, status, whole):
    wire = Wire()
    wire.begin("POST")
    head = None
    for piece in [raw] if whole else [raw[at : at + 1] for at in range(len(raw))]:
        wire.feed(piece)
        head = wire.read_head()
    assert (wire.continued, None if head is None else head.status) == (continued, status)
    wire.begin("POST")
    assert wire.continued is False  # each request asks anew


def test_consent_without_end_is_nonsense():
    wire = Wire()
    wire.begin("POST")
    wire.feed(CONTINUE * (MAX_INTERIM + 1))
    with pytest.raises(ProtocolError, match="interim"):
        wire.read_head()
