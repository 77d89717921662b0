"""HTTP/1.1: a request as bytes, and the bytes of its answer as values. No I/O happens here.

An answer takes one of two roads:

- The short road, for the plain answer: HTTP/1.1, a final status, a well-formed head with exactly one
  Content-Length, nothing that changes the framing. One strict pattern over the head, a count for the body.
  Chunks have a short road too: those that are a size, so many bytes and nothing else.
- The long road, h11, for everything else. What the pattern does not match goes there from its first byte,
  and h11 alone says what is illegal. The short road accepts a subset of it, with the same meaning.

Rules of this file:

- A body whose length is known is counted here and never touched by h11.
- After an answer the connection is used again only when both sides are done and not one byte is left over.
- Nothing is unbounded: a head fits in the buffer, interim answers are counted, a body has a limit.
"""

from __future__ import annotations

import re
from enum import Enum

import h11

from agentrun_proto import DecodeError, Head, Headers, IncompleteError, ProtocolError, Request
from agentrun_proto.messages import EMPTY

BUFFER_SIZE = 65536
"""Bytes read at once, and the largest head; the fastest size for big bodies, as measured."""

MAX_INTERIM = 16  # 1xx answers before the final one; honest servers send one or two

# A subset of what h11 accepts: no obs-fold, no bare LF, no 8-bit text, no 1xx, 204 or 304.
_PLAIN_HEAD = re.compile(
    rb"HTTP/1\.1 (20[0-35-9]|2[1-9][0-9]|30[0-35-9]|3[1-9][0-9]|[45][0-9]{2})(?: [\t\x20-\x7e]*)?\r\n"
    rb"((?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e]*\r\n)+)\r\n"
)
_LONGEST_LENGTH = 15  # digits of a Content-Length
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")
_PART_OF_A_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}\r?")
_LAST_CHUNK = b"0\r\n\r\n"
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def encode_head(request: Request) -> bytes:
    """The head of a request as it goes over the wire (RFC 9112, 3 and 5).

    Every part was checked where it was made; the whole is checked once more, as one block: no part can have
    brought a line of its own.

    Raises:
        ValueError: a line break or NUL in the request line or in a field.
    """
    headers, signature = request.headers, request.signature
    plain = request.method == "GET" and request.body is EMPTY and not request.expect_continue
    framing = [] if plain else _framing_lines(request)
    signed = "".join([f"{name}: {value}\r\n" for name, value in signature])
    head = (
        f"{request.method} {request.target} HTTP/1.1\r\nHost: {request.origin.authority}\r\n"
        f"{headers.block}{''.join(framing)}{signed}\r\n"
    )
    expected = 3 + len(headers.fields) + len(framing) + len(signature)
    if head.count("\n") != expected or head.count("\r") != expected or "\0" in head:
        raise ValueError("a line break or NUL inside the request line or a header")
    return head.encode("latin-1")


def _framing_lines(request: Request) -> list[str]:
    """The field lines that follow from the body."""
    body = request.body
    lines: list[str] = []
    if body.content_type is not None and "content-type" not in request.headers:
        lines.append(f"Content-Type: {body.content_type}\r\n")
    if request.declares_length:
        lines.append(f"Content-Length: {body.length}\r\n")
    elif body.length is None:
        lines.append("Transfer-Encoding: chunked\r\n")
    if request.expect_continue:
        lines.append("Expect: 100-continue\r\n")
    return lines


class _Framing(Enum):
    """How the end of the body shows (RFC 9112, 6.3)."""

    LENGTH = "counted"
    CHUNKED = "chunked"
    CLOSE = "until the connection ends"


class Wire:
    """The receiving side of one connection.

    The network asks `get_buffer` where bytes go and tells `received` how many came; whoever awaits the answer
    asks `read_head`, then `fill` or `read_all`, each of which says None as long as it needs more bytes.

    >>> wire = Wire()
    >>> wire.begin("GET")
    >>> wire.feed(b'HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n{')
    >>> wire.read_head().status, wire.read_all(100)
    (200, None)
    >>> wire.feed(b"}")
    >>> wire.read_all(100), wire.reusable
    (b'{}', True)
    """

    __slots__ = (
        "_buffer",
        "_chunks",
        "_direct",
        "_done",
        "_end",
        "_failure",
        "_filled",
        "_framing",
        "_h11",
        "_interim",
        "_keep_alive",
        "_left",
        "_method",
        "_pieces",
        "_rest",
        "_scanned",
        "_start",
        "_taken",
        "_view",
        "_whole",
        "continued",
        "started",
    )

    def __init__(self) -> None:
        self._buffer = bytearray(BUFFER_SIZE)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._done = True
        self._keep_alive = True
        self._direct: memoryview | None = None
        self.started: bool = False

    def begin(self, method: str) -> None:
        """A request of this method is about to be sent; its answer is awaited."""
        self._method = method
        self._done = False
        self._keep_alive = True
        self._framing = _Framing.LENGTH
        self._left = 0
        self._scanned = 0
        self._interim = 0
        self._h11: h11.Connection | None = None
        self._chunks: h11.Connection | None = None  # that reads them, where they are not plain
        self._direct = None
        self._filled = 0
        self._taken = 0
        self._pieces: list[bytes] = []
        self._rest = b""
        self._failure: ProtocolError | None = None
        self._start = self._end = 0
        self.started = False
        """Whether a byte of the answer has arrived."""
        self.continued: bool = False
        """Whether the peer has said that it wants the content (RFC 9110, 15.2.1)."""

    # What the network calls

    def get_buffer(self) -> memoryview:
        """Where the next bytes go; empty only while nothing takes what is there."""
        if self._direct is not None:
            return self._direct[self._filled :]
        return self._view[self._end :] if self._end else self._view

    @property
    def full(self) -> bool:
        """Whether there is no room for more, until something takes what is there."""
        if self._direct is not None:
            return self._filled == len(self._direct)
        return self._end == BUFFER_SIZE

    def received(self, count: int) -> None:
        """That many bytes were put into the buffer; 0 changes nothing."""
        if count:
            self.started = True
        if self._direct is not None:
            self._filled += count
        else:
            self._end += count

    def feed(self, data: bytes) -> None:
        """Takes bytes that are somewhere else already; for drivers that cannot read into a buffer."""
        while data:
            room = self.get_buffer()
            if not room:
                raise BufferError("nothing takes the bytes that are there")
            piece = data[: len(room)]
            room[: len(piece)] = piece
            self.received(len(piece))
            data = data[len(piece) :]

    def end_of_stream(self) -> None:
        """The peer has closed its side.

        Raises:
            IncompleteError: in the middle of an answer, or before one.
        """
        self._keep_alive = False
        if self._framing is _Framing.CLOSE:
            self._done = True
        elif not self._done:
            raise IncompleteError(
                "the connection was closed in the middle of the answer"
                if self.started
                else "the connection was closed before an answer came"
            )

    # What the exchange calls

    @property
    def pending(self) -> int:
        """How many received bytes wait to be taken."""
        return self._end - self._start

    @property
    def reusable(self) -> bool:
        """Whether the next request may use the connection: both sides done, and nothing left over."""
        return self._done and self._keep_alive and self._start == self._end

    @property
    def done(self) -> bool:
        """Whether the answer is complete, and all of it was taken."""
        left_over = self._framing is _Framing.CLOSE and self._start < self._end
        return self._done and not (self._filled or self._rest or left_over)

    def spoil(self) -> None:
        """The connection is not to be used again: our side was not done when the answer came."""
        self._keep_alive = False

    def read_head(self) -> Head | None:
        """The head of the final answer, or None while it is incomplete; interim answers are passed over.

        Raises:
            ProtocolError: no HTTP/1.1 answer, or a head larger than the buffer.
        """
        if self._start == self._end:
            return None
        if self._h11 is None:
            # Most heads are plain and come whole. One that does not is looked at again once its end is there,
            # so that what drips is not read from its start for each drop.
            if self._scanned and not self._head_is_complete():
                return None
            head = self._read_plain_head()
            if head is not None:
                return head
            if not self._head_is_complete():
                return None
            self._h11 = _client(self._method)
        return self._read_any_head(self._h11)

    def _head_is_complete(self) -> bool:
        buffer, start, end = self._buffer, self._start, self._end
        if not buffer.startswith(b"HTTP/"[: end - start], start):
            raise ProtocolError("the peer does not speak HTTP; is this the right port and protocol?")
        scan = max(start, self._scanned - 2)
        if buffer.find(b"\n\r\n", scan, end) >= 0 or buffer.find(b"\n\n", scan, end) >= 0:
            return True
        self._scanned = end
        if end - start == BUFFER_SIZE:
            raise ProtocolError(f"the head of the answer is larger than {BUFFER_SIZE} bytes")
        return False

    def _read_plain_head(self) -> Head | None:
        match = _PLAIN_HEAD.match(self._buffer, self._start, self._end)
        if match is None or self._method == "HEAD":
            return None
        start = match.start(2)
        lines = str(self._view[start - 2 : match.end(2)], "ascii")  # with the line break before the first
        folded = lines.lower()
        if folded.count("content-length:") != 1 or "transfer-encoding:" in folded:
            return None
        length = _value(folded, "\ncontent-length:")
        # int() would take more than digits, such as underscores and signs.
        if length is None or not length.isdigit() or len(length) > _LONGEST_LENGTH:
            return None
        if "connection:" in folded and (
            folded.count("connection:") > 1 or _value(folded, "\nconnection:") != "keep-alive"
        ):
            return None
        self._start = match.end()
        self._set_length(int(length))
        return Head(status=int(match[1]), headers=Headers.from_block(lines[2:], folded[2:]))

    def _read_any_head(self, parser: h11.Connection) -> Head | None:
        self._pass_on(parser)
        while True:
            try:
                event = parser.next_event()
            except h11.RemoteProtocolError as error:
                raise ProtocolError(f"the answer is not well-formed: {error}") from error
            if isinstance(event, h11.InformationalResponse):
                self._interim += 1
                self.continued = self.continued or event.status_code == 100
                if self._interim > MAX_INTERIM:
                    raise ProtocolError(f"more than {MAX_INTERIM} interim answers")
            elif isinstance(event, h11.Response):
                return self._begin_body(parser, event)
            else:
                return None

    def _begin_body(self, parser: h11.Connection, event: h11.Response) -> Head:
        fields = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers.raw_items()
        ]
        headers = Headers.from_block("".join([f"{name}: {value}\r\n" for name, value in fields]))
        options = headers.get("connection", "").lower().split(",")
        self._keep_alive = event.http_version == b"1.1" and "close" not in map(str.strip, options)
        coded = headers.get("transfer-encoding")
        length = headers.get("content-length")
        if self._method == "HEAD" or event.status_code in (204, 304):
            self._take_back(parser)
            self._set_length(0)
        elif coded is not None:
            # h11 has refused any coding but a sole "chunked". RFC 9112, 6.3: with a Content-Length beside
            # it, chunked counts, and the connection is not to be trusted any further.
            self._take_back(parser)
            self._framing = _Framing.CHUNKED
            if length is not None:
                self._keep_alive = False
        elif length is not None:
            self._take_back(parser)
            self._set_length(int(length))
        else:
            self._take_back(parser)
            self._framing = _Framing.CLOSE
        return Head(status=event.status_code, headers=headers)

    def _set_length(self, length: int) -> None:
        self._framing = _Framing.LENGTH
        self._left = length
        if not length:
            self._done = True

    def _pass_on(self, parser: h11.Connection) -> None:
        if self._end > self._start:
            parser.receive_data(bytes(self._view[self._start : self._end]))
        self._start = self._end = self._scanned = 0

    def _take_back(self, parser: h11.Connection) -> None:
        # What h11 has not used is the end of what it was last given, and that was the whole buffer.
        rest = parser.trailing_data[0]
        self._view[: len(rest)] = rest
        self._start, self._end = 0, len(rest)

    def fill(self, room: memoryview) -> int | None:
        """Fills `room` with the next bytes of the body.

        Returns:
            How many bytes it now holds: nearly its size, or fewer at the end of the body. None while bytes
            are missing: ask again with the same room, once some have come. Those of a counted body are then
            received straight into it.

        Raises:
            ProtocolError: the chunks are malformed.
        """
        if self._framing is _Framing.LENGTH:
            return self._fill_counted(room)
        while self._filled < len(room):
            if not self._rest:
                self._rest = self._next_piece()
                if not self._rest:
                    break
            count = min(len(room) - self._filled, len(self._rest))
            room[self._filled : self._filled + count] = self._rest[:count]
            self._rest = self._rest[count:]
            self._filled += count
        else:
            return self._filled_up()
        return self._filled_up() if self._done else None

    def salvage(self) -> int:
        """After a failure: how many bytes of the body are in the room that `fill` was last given."""
        return min(self._filled, self._left) if self._framing is _Framing.LENGTH else self._filled

    def _fill_counted(self, room: memoryview) -> int | None:
        # One byte more than is wanted is let in, so that what follows the body shows with its end, and not
        # as the beginning of the next answer.
        wanted = min(self._left, max(1, len(room) - 1))
        if self._direct is None:
            direct = self._direct = room[: wanted + (wanted == self._left)]
            self._filled = min(wanted, self._end - self._start)
            direct[: self._filled] = self._view[self._start : self._start + self._filled]
            self._skip(self._filled)
        if self._filled < wanted:
            return None
        if self._filled > wanted:
            self._view[self._end] = self._direct[wanted]
            self._end += 1
        self._direct = None
        self._left -= wanted
        self._done = not self._left
        self._filled = wanted
        return self._filled_up()

    def _filled_up(self) -> int:
        count, self._filled = self._filled, 0
        return count

    def _skip(self, count: int) -> None:
        self._start += count
        if self._start == self._end:
            self._start = self._end = 0

    def _next_piece(self) -> bytes:
        """The next bytes of a body that is not counted; ``b""`` when done, or when more are needed."""
        if self._framing is _Framing.CLOSE:
            piece = bytes(self._view[self._start : self._end])
            self._skip(len(piece))
            return piece
        if self._done:
            return b""
        if self._chunks is None:
            piece = self._next_chunks()
            if piece or self._done or self._start == self._end or self._chunks is None:
                return piece
        parser = self._chunks
        self._pass_on(parser)
        try:
            event = parser.next_event()
        except h11.RemoteProtocolError as error:
            raise ProtocolError(f"the chunks of the answer are malformed: {error}") from error
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            self._done = True
            self._take_back(parser)
        return b""

    def _next_chunks(self) -> bytes:
        """The content of the plain chunks that are there (RFC 9112, 7.1); from any other on, h11 reads them.

        What is left over belongs to the size of a chunk.
        """
        buffer, view, at, end = self._buffer, self._view, self._start, self._end
        left = self._left  # of a chunk and its line end; 0 between chunks
        pieces: list[memoryview] = []
        while at < end:
            if left > 2:
                count = min(left - 2, end - at)
                pieces.append(view[at : at + count])
                at += count
                left -= count
            elif left:
                if buffer[at] != b"\r\n"[2 - left]:
                    if pieces:
                        break  # it shows again at the next call
                    raise ProtocolError("the chunks of the answer are malformed: one is longer than its size")
                at += 1
                left -= 1
            elif (size := _CHUNK_SIZE.match(buffer, at, end)) and (length := int(size[1], 16)):
                at = size.end()
                left = length + 2
            elif buffer.startswith(_LAST_CHUNK, at) and at + len(_LAST_CHUNK) <= end:
                at += len(_LAST_CHUNK)
                self._done = True
                break
            else:
                if not _PART_OF_A_SIZE.fullmatch(buffer, at, end):
                    self._chunks = _chunked_client()
                break
        content = b"".join(pieces)
        self._left = left
        rest = bytes(view[at:end])
        view[: len(rest)] = rest
        self._start, self._end = 0, len(rest)
        return content

    def read_some(self) -> bytes | None:
        """What is there of the body: ``b""`` at its end, None while nothing is.

        Raises:
            ProtocolError: the chunks are malformed.
        """
        if self._framing is _Framing.LENGTH:
            count = min(self._left, self._end - self._start)
            piece = bytes(self._view[self._start : self._start + count])
            self._skip(count)
            self._left -= count
            self._done = not self._left
        else:
            if self._failure is not None:
                raise self._failure
            pieces: list[bytes] = []
            try:
                while piece := self._next_piece():
                    pieces.append(piece)
            except ProtocolError as error:
                if not pieces:
                    raise
                self._failure = error  # what came before it goes first
            piece = b"".join(pieces)
        return piece if piece or self._done else None

    def read_all(self, limit: int) -> bytes | None:
        """The whole body, or None while it is incomplete.

        Raises:
            DecodeError: it is larger than `limit` bytes.
            ProtocolError: the chunks are malformed.
        """
        if self._framing is _Framing.LENGTH:
            return self._read_counted(limit)
        while piece := self._next_piece():
            self._taken += len(piece)
            if self._taken > limit:
                raise _too_large(limit)
            self._pieces.append(piece)
        return b"".join(self._pieces) if self._done else None

    def _read_counted(self, limit: int) -> bytes | None:
        start, left = self._start, self._left
        if self._direct is None:
            if left > limit:
                raise _too_large(limit)
            end = start + left
            if self._end >= end:
                content = bytes(self._view[start:end])
                self._left, self._done = 0, True
                if self._end == end:
                    self._start = self._end = 0
                else:
                    self._start = end
                return content
            self._whole = bytearray(left + 1)
        count = self._fill_counted(memoryview(self._whole))
        return None if count is None else bytes(memoryview(self._whole)[:count])


def _value(folded: str, name: str) -> str | None:
    """The value of the first field line of this name, which begins with the line break before it."""
    start = folded.find(name)
    if start < 0:
        return None
    start += len(name)
    return folded[start : folded.index("\r", start)].strip(" \t")


def _too_large(limit: int) -> DecodeError:
    return DecodeError(f"the answer is larger than {limit} bytes, the most that is held in memory")


def _client(method: str) -> h11.Connection:
    """An h11 connection that awaits the answer to a request of this method."""
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=BUFFER_SIZE)
    parser.send(h11.Request(method=method, target="/", headers=[("Host", "h")]))
    parser.send(h11.EndOfMessage())
    return parser


def _chunked_client() -> h11.Connection:
    """An h11 connection that awaits chunks."""
    parser = _client("GET")
    parser.receive_data(_CHUNKED)
    parser.next_event()
    return parser
