"""The wire against h11 fed alone: what the short road accepts, the reference accepts, with the same meaning.

Answers come from a grammar, and are then damaged; each is read whole and in pieces.

Known differences, each on the side of refusing (RFC 9112):

- 6.3: with a Content-Length beside a Transfer-Encoding, the connection is not used again.
- a body on 204, 304 or an answer to HEAD leaves bytes over, and so does h11: the connection is closed.
- more than 16 interim answers, and a switch of protocols, are refused.
"""

from __future__ import annotations

from typing import Any

import h11
import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from agentrun_proto import AgentRunClientError
from agentrun_transports._wire import BUFFER_SIZE, MAX_INTERIM, Wire
from transports_support import Reading, read_wire

pytestmark = pytest.mark.once

PROPERTY = settings(deadline=None, max_examples=600, database=None, suppress_health_check=list(HealthCheck))

# --- the grammar

reasons = st.sampled_from(["OK", "", "Not Found", "caf\xe9", "a\tb", " ", "x" * 40])
statuses = st.one_of(
    st.sampled_from([200, 201, 204, 205, 206, 301, 304, 400, 404, 500, 503, 599, 600, 999, 199, 100, 103]),
    st.integers(100, 999),
)
names = st.sampled_from(
    ["X-A", "content-type", "Content-Encoding", "Connection", "Keep-Alive", "Proxy-Connection",
     "X-Content-Length",
     "Date", "Set-Cookie", "Trailer", "Upgrade", "Transfer-Encoding", "Content-Length", "!#$%&'*+-.^_`|~"]
)  # fmt: skip
values = st.one_of(
    st.sampled_from(
        ["", "1", "close", "keep-alive", "Keep-Alive, x", "a, close", "chunked", "content-length: 5",
         "connection: close",
         "transfer-encoding:chunked", "identity", "gzip", "caf\xe9", "\x01", "a\tb  c", "h2c"]
    ),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12),
)  # fmt: skip
spaces = st.sampled_from(["", " ", "  ", "\t", " \t "])
lines = st.tuples(names, spaces, values, spaces).map(
    lambda parts: f"{parts[0]}:{parts[1]}{parts[2]}{parts[3]}"
)
bodies = st.binary(max_size=60)


@st.composite
def chunked_bodies(draw: Any) -> bytes:
    out = b""
    for piece in draw(st.lists(st.binary(min_size=1, max_size=20), max_size=4)):
        extension = draw(st.sampled_from([b"", b";a=b", b" ", b';q="x"']))
        form = draw(st.sampled_from([b"%x", b"%X", b"%03x"]))
        out += form % len(piece) + extension + b"\r\n" + piece + b"\r\n"
    return out + b"0\r\n" + draw(st.sampled_from([b"", b"X-T: 1\r\n", b"A: b\r\nC: d\r\n"])) + b"\r\n"


@st.composite
def answers(draw: Any) -> bytes:
    """One final answer, most often well-formed; framing and body agree, most often."""
    version = draw(st.sampled_from(["1.1"] * 8 + ["1.0", "2.0"]))
    fields = draw(st.lists(lines, max_size=4))
    framing = draw(st.sampled_from(["length"] * 4 + ["chunked", "close", "both", "wrong"]))
    content = draw(bodies)
    coded = draw(st.sampled_from(["Transfer-Encoding: chunked", "transfer-encoding:CHUNKED"]))
    if framing in ("chunked", "both"):
        content = draw(chunked_bodies())
        fields.insert(draw(st.integers(0, len(fields))), coded)
    if framing in ("length", "both"):
        name = draw(st.sampled_from(["Content-Length", "content-length", "CONTENT-LENGTH"]))
        fields.insert(draw(st.integers(0, len(fields))), f"{name}:{draw(spaces)}{len(content)}{draw(spaces)}")
    if framing == "wrong":
        length = draw(st.sampled_from(["-1", "+1", "1_0", "", "007", "1, 1", "1, 2", "9" * 21]))
        fields.append(f"Content-Length: {length}")
    head = "\r\n".join([f"HTTP/{version} {draw(statuses)} {draw(reasons)}", *fields, "", ""])
    return head.encode("latin-1") + content


interims = st.sampled_from(
    [b"", b"", b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 E\r\nLink: </a>\r\n\r\n" * 2]
)
extras = st.sampled_from([b"", b"", b"", b"x", b"\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
plain = st.tuples(interims, answers(), extras).map(b"".join)
junk = st.sampled_from(
    [
        b"\r",
        b"\n",
        b"\0",
        b" ",
        b"\t",
        b":",
        b",",
        b"\xff",
        b"0",
        b"9",
        b"\r\n",
        b"\n\n",
        b"\r\n\r\n",
        b"x",
        b"-",
        b";",
        b"\x0b",
    ]
)


@st.composite
def damaged(draw: Any) -> bytes:
    """An answer to which a few things have happened."""
    data = bytearray(draw(plain))
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["insert", "delete", "replace", "cut", "double"]))
        at = draw(st.integers(0, max(0, len(data) - 1)))
        if kind == "insert":
            data[at:at] = draw(junk)
        elif kind == "delete":
            del data[at : at + draw(st.integers(1, 3))]
        elif kind == "replace":
            data[at : at + 1] = draw(junk)
        elif kind == "cut":
            del data[at:]
        else:
            data[at:at] = data[at : at + draw(st.integers(1, 30))]
    return bytes(data)


# --- the reference


def reference(data: bytes, method: str, ended: bool) -> Any:
    """h11 alone: a Reading, None where it needs more, or "error"."""
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=BUFFER_SIZE)
    parser.send(h11.Request(method=method, target="/", headers=[("Host", "h")]))
    parser.send(h11.EndOfMessage())
    if data:
        parser.receive_data(data)
    if ended:
        parser.receive_data(b"")
    head, content, interim = None, b"", 0
    while True:
        try:
            found = parser.next_event()
        except h11.RemoteProtocolError:
            return "error"
        if isinstance(found, h11.InformationalResponse):
            interim += 1
            if interim > MAX_INTERIM or found.status_code == 101:
                return "error"
        elif isinstance(found, h11.Response):
            head = found
        elif isinstance(found, h11.Data):
            content += found.data
        elif isinstance(found, h11.EndOfMessage):
            assert head is not None
            fields = tuple((n.decode("latin-1"), v.decode("latin-1")) for n, v in head.headers.raw_items())
            clean = parser.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}
            over = parser.trailing_data[0] == b""
            return Reading(head.status_code, fields, content, clean and over, None)  # type: ignore[arg-type]
        elif isinstance(found, h11.ConnectionClosed):
            return "error"
        else:
            return None


def ours(pieces: Any, method: str, ended: bool) -> Any:
    try:
        return read_wire(iter(pieces), method, ended=ended)
    except AgentRunClientError:
        return "error"


def compare(data: bytes, method: str, ended: bool, pieces: Any) -> None:
    expected, found = reference(data, method, ended), ours(pieces, method, ended)
    if isinstance(expected, Reading):
        assert isinstance(found, Reading), (expected, found)
        assert (found.status, found.content) == (expected.status, expected.content)
        assert found.fields == expected.fields
        assert found.reusable <= expected.reusable, "a connection is used again that the reference closes"
    elif expected is None:
        # Nonsense may show to us before it shows to h11, never a whole answer.
        assert found in (None, "error")
    else:
        assert found == "error" or (found is None and not ended)
    event("accepted" if isinstance(expected, Reading) else "error" if expected == "error" else "incomplete")


methods = st.sampled_from(["GET", "POST", "GET", "HEAD"])


@given(data=plain, method=methods, ended=st.booleans())
@example(data=b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", method="GET", ended=False)
@example(data=b"HTTP/1.1 205 \r\nContent-Length: 1\r\n\r\nx", method="GET", ended=False)
@PROPERTY
def test_well_formed(data, method, ended):
    compare(data, method, ended, [data])


@given(data=damaged(), method=methods, ended=st.booleans())
@example(data=b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n \r\n\r\nx", method="GET", ended=True)
@example(data=b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX: \r\n\r\nx", method="GET", ended=True)
@PROPERTY
def test_damaged(data, method, ended):
    compare(data, method, ended, [data])


@given(
    data=st.one_of(plain, damaged()),
    method=methods,
    ended=st.booleans(),
    random=st.randoms(use_true_random=False),
)
@PROPERTY
def test_the_split_does_not_matter(data, method, ended, random):
    cuts = sorted({random.randrange(len(data) + 1) for _ in range(random.randrange(6))})
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a != b]
    whole = ours([data], method, ended)
    assert ours(pieces, method, ended) == whole
    assert ours([data[at : at + 1] for at in range(len(data))], method, ended) == whole


@given(content=st.binary(max_size=300_000), extra=st.binary(max_size=5), size=st.integers(1, 100_000))
@settings(PROPERTY, max_examples=40)
def test_bodies_larger_than_the_buffer(content, extra, size):
    data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content + extra
    found = ours([data[at : at + size] for at in range(0, len(data), size)], "GET", False)
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
