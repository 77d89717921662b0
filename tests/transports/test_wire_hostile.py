"""Every row of HOSTILE's "Answers" against the wire alone: whole, byte by byte, and in every split.

The same bytes must give the same outcome however they are cut; and it must be one that the row allows.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentrun_proto import AgentRunClientError, IncompleteError, decode
from agentrun_proto.decoding import take_off_coding
from agentrun_proto.errors import error_class
from hostile import ROWS, Row
from transports_support import Reading, read_wire

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


@pytest.mark.parametrize("row", CUT, ids=lambda row: row.id)
def test_whole(row):
    look(row, outcome(row, iter([row.raw])))


@pytest.mark.parametrize("row", SMALL, ids=lambda row: row.id)
def test_byte_by_byte(row):
    raw = row.raw
    whole = look(row, outcome(row, iter([raw])))
    drip = look(row, outcome(row, (raw[at : at + 1] for at in range(len(raw)))))
    assert drip == whole or type(drip) is type(whole) is tuple


@pytest.mark.parametrize("row", SHORT, ids=lambda row: row.id)
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
    assert len({row.quote for row in ROWS}) >= 20
    assert error_class(404).__name__ == "NotFoundError"
    assert isinstance(read_wire(iter([b"HTTP/1.1 204 No\r\n\r\n"])), Reading)
