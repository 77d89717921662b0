"""Answers that arrive piece by piece, decoded as they come: server-sent events, lines, NDJSON, chat chunks.

The peer picks what comes next, so these are push parsers, and all have the same two methods::

    for event in decoder.feed(data): ...     # after each read
    for event in decoder.end(): ...          # once the answer is over

Rules of this file:

- What comes out does not depend on where the bytes were cut: not within a character, not between CR and LF.
- A value is given out with the last byte that it needs, never later.
- What precedes an error is given out first. The error is raised at once where nothing precedes it, else by
  the next call; `error` holds it in between. A decoder that has failed stays failed.
- The work is linear in the bytes fed, however small the pieces; what is held between two calls is bounded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from .decoding import parse_json_text
from .errors import AgentRunClientError, DecodeError, IncompleteError

MAX_EVENT = 8 * 1024 * 1024
"""The largest server-sent event, in bytes, unless the caller sets another bound."""

MAX_LINE = 8 * 1024 * 1024
"""The longest line, in bytes, unless the caller sets another bound."""

_BOM = b"\xef\xbb\xbf"
_SHOWN = 300  # characters of what is no JSON, in a message
_MAX_RETRY = 366 * 86_400_000  # ms; a peer may ask for any number, and int() refuses one of 5,000 digits

_Item = TypeVar("_Item")


def _no_json(what: str, text: str, error: ValueError) -> DecodeError:
    # A JSONDecodeError counts lines from the start of the text, which reads as if they were the answer's.
    told = f"{error.msg} at offset {error.pos}" if isinstance(error, json.JSONDecodeError) else str(error)
    return DecodeError(f"{what} is no JSON ({told}): {text[:_SHOWN]!r}", response_body=text)


class _Decoder(Generic[_Item]):
    """What all decoders share: `feed`, `end`, and when an error is raised.

    ``error`` is what the next call will raise, or None. Who does not want to wait for further bytes to learn
    of it looks here once the result of `feed` has been used.
    """

    def __init__(self) -> None:
        self.error: AgentRunClientError | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> list[_Item]:
        """What the next bytes of the answer complete, in order.

        Args:
            data: any number of bytes, cut anywhere. The buffer may be used again afterwards.

        Raises:
            AgentRunClientError: which of them, says the class; where something precedes the error, it is
                raised by the next call.
        """
        return self._guarded(data if type(data) is bytes else bytes(memoryview(data)), final=False)

    def end(self) -> list[_Item]:
        """What the end of the answer completes. The decoder can be fed another answer then.

        Raises:
            AgentRunClientError: as `feed`.
        """
        return self._guarded(b"", final=True)

    def _guarded(self, data: bytes, *, final: bool) -> list[_Item]:
        if self.error is not None:
            raise self.error.with_traceback(None)
        found: list[_Item] = []
        try:
            self._decode(data, final, found)
        except AgentRunClientError as error:
            self.error = error
            if not found:
                raise
        return found

    def _decode(self, data: bytes, final: bool, found: list[_Item]) -> None:
        """Appends to `found` what `data` completes; if `final`, what the end completes, and starts afresh.

        Each decoder has its own.
        """


def _through(inner: _Decoder[_Item], data: bytes, *, final: bool) -> Iterator[_Item]:
    """What one decoder gives to the one on top of it, and then its error."""
    yield from inner.end() if final else inner.feed(data)
    if inner.error is not None:
        raise inner.error


class _LineBuffer:
    """Bytes in, lines out: what stands before each LF. A byte order mark at the very start is taken off."""

    def __init__(self) -> None:
        self.tail = bytearray()  # the line that has not ended
        self._at_start = True

    def lines(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes. Only new bytes are searched, and a long line is joined once."""
        if self._at_start:
            data = bytes(self.tail) + data
            self.tail.clear()
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self.tail += data
                return []
            data = data.removeprefix(_BOM)
            self._at_start = False
        *lines, tail = data.split(b"\n")
        if lines and self.tail:
            lines[0] = bytes(self.tail) + lines[0]
            self.tail.clear()
        self.tail += tail
        return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSentEvent:
    """One event of an event stream (WHATWG HTML, 9.2).

    Args:
        type: the name of the event; ``message`` where the stream gives none.
        data: the values of its ``data`` lines, joined by line feeds.
        id: the last event id of the stream, as of this event; empty where there has been none.
        retry: the reconnection time in milliseconds, where one came with this event.

    >>> ServerSentEvent(data='{"i": 1}').json()
    {'i': 1}
    """

    type: str = "message"
    data: str = ""
    id: str = ""
    retry: int | None = None

    def json(self) -> Any:
        """The data as any JSON value.

        Raises:
            DecodeError: the data is no JSON (RFC 8259; NaN and the like are none).
        """
        try:
            return parse_json_text(self.data)
        except ValueError as error:
            raise _no_json("the data of an event", self.data, error) from None


# The `__init__` of a frozen dataclass takes as long as the rest of the decoding of a small event together.
_new_event: Callable[[type[ServerSentEvent]], ServerSentEvent] = object.__new__
_set_type, _set_data, _set_id, _set_retry = (
    cast("Callable[[ServerSentEvent, object], None]", ServerSentEvent.__dict__[name].__set__)
    for name in ("type", "data", "id", "retry")
)


def _event(kind: str, data: str, last_id: str, retry: int | None) -> ServerSentEvent:
    event = _new_event(ServerSentEvent)
    _set_type(event, kind)
    _set_data(event, data)
    _set_id(event, last_id)
    _set_retry(event, retry)
    return event


class EventDecoder(_Decoder[ServerSentEvent]):
    """Server-sent events, after "Interpreting an event stream" (WHATWG HTML, 9.2.6).

    Lines end at CR, LF or CRLF, and nowhere else. The bytes are UTF-8; what is not becomes U+FFFD, as the
    standard wants it. An event that the stream does not finish is dropped.

    `end` keeps `last_event_id` and `retry`: the same decoder goes on with the stream of a reconnection.

    Args:
        limit: how many bytes a line may have, together with the ``data`` lines before it in the same event.

    Attributes:
        last_event_id: what to send as ``Last-Event-ID`` when reconnecting, unless it is empty. It may be set,
            to go on where an earlier program stopped.
        retry: the reconnection time that the stream asked for last, in milliseconds, a year at most; or None.

    Raises:
        DecodeError: an event is larger than `limit`.

    >>> decoder = EventDecoder()
    >>> decoder.feed(b"id: 7\\ndata: a\\ndata: b\\n\\nevent: late\\nda")
    [ServerSentEvent(type='message', data='a\\nb', id='7', retry=None)]
    >>> decoder.feed(b"ta: c\\r\\r")
    [ServerSentEvent(type='late', data='c', id='7', retry=None)]
    >>> decoder.end(), decoder.last_event_id
    ([], '7')
    """

    def __init__(self, *, limit: int = MAX_EVENT) -> None:
        super().__init__()
        self.last_event_id: str = ""
        self.retry: int | None = None
        self._limit = limit
        self._start()

    def _start(self) -> None:
        self._lines = _LineBuffer()
        self._after_cr = False  # the last byte was a CR: an LF now belongs to it
        # Of the unfinished event. The standard's data buffer is kept as the values that it is joined from.
        self._data: list[bytes] = []
        self._size = 0  # bytes of the lines that `_data` came from
        self._type = ""
        self._id: str | None = None
        self._retry: int | None = None

    def _decode(self, data: bytes, final: bool, found: list[ServerSentEvent]) -> None:
        if final:
            # "Once the end of the file is reached, any pending data must be discarded."
            self._start()
            return
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        for line in self._lines.lines(data):
            if self._size + len(line) > self._limit:
                raise self._too_large()
            if not line:
                self._dispatch(found)
            elif line.startswith(b"data: "):  # nearly every line; `_field` would do the same
                self._data.append(line[6:])
                self._size += len(line)
            else:
                self._field(line)
        if self._size + len(self._lines.tail) > self._limit:
            raise self._too_large()

    def _field(self, line: bytes) -> None:
        """The standard's "process the field"; a comment is a field without a name, and ignored as such."""
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._size += len(line)
        elif name == b"event":
            self._type = str(value, "utf-8", "replace")
        elif name == b"id":
            # "If the field value does not contain U+0000 NULL ... Otherwise, ignore the field."
            if b"\0" not in value:
                self._id = str(value, "utf-8", "replace")
        elif name == b"retry" and value.isdigit():  # of bytes: "only ASCII digits", and at least one
            digits = value.lstrip(b"0") or b"0"
            self.retry = self._retry = min(int(digits[:20]), _MAX_RETRY)

    def _dispatch(self, found: list[ServerSentEvent]) -> None:
        """The standard's "dispatch the event": without a data line there is none, but the id counts."""
        if self._id is not None:
            self.last_event_id = self._id
        if self._data:
            data = str(b"\n".join(self._data), "utf-8", "replace")
            found.append(_event(self._type or "message", data, self.last_event_id, self._retry))
            self._data = []
        self._size = 0
        self._type = ""
        self._id = self._retry = None

    def _too_large(self) -> DecodeError:
        return DecodeError(f"an event of the stream is larger than {self._limit} bytes")


class LineDecoder(_Decoder[str]):
    """Lines of UTF-8 text, without their ends: LF or CRLF, and nothing else.

    A CR alone, U+2028, a form feed and the like belong to the line. A byte order mark at the start does not.
    `end` gives the last line, where it has no line end.

    Args:
        limit: how many bytes a line may have, its LF not counted.

    Raises:
        DecodeError: a line is longer than `limit`, or is no UTF-8.

    >>> decoder = LineDecoder()
    >>> decoder.feed(b"one\\r\\ntwo\\n\\nthr"), decoder.feed(b"ee"), decoder.end()
    (['one', 'two', ''], [], ['three'])
    """

    def __init__(self, *, limit: int = MAX_LINE) -> None:
        super().__init__()
        self._limit = limit
        self._start()

    def _start(self) -> None:
        self._lines = _LineBuffer()
        self._number = 1  # of the line that comes next

    def _decode(self, data: bytes, final: bool, found: list[str]) -> None:
        for line in self._lines.lines(data):
            found.append(self._text(line).removesuffix("\r"))
            self._number += 1
        tail = self._lines.tail
        if len(tail) > self._limit:
            raise self._too_long()
        if final:
            if tail:
                found.append(self._text(bytes(tail)))
            self._start()

    def _text(self, line: bytes) -> str:
        if len(line) > self._limit:
            raise self._too_long()
        try:
            return str(line, "utf-8")
        except UnicodeDecodeError as error:
            message = f"line {self._number} of the answer is no UTF-8: {error}"
            shown = str(line, "utf-8", "backslashreplace")
            raise DecodeError(message, response_body=shown) from None

    def _too_long(self) -> DecodeError:
        return DecodeError(f"line {self._number} of the answer is longer than {self._limit} bytes")


class JSONLinesDecoder(_Decoder[Any]):
    """NDJSON: one JSON value on each line. Empty lines are skipped; the last one needs no line end.

    Args:
        limit: how many bytes a line may have, its LF not counted.

    Raises:
        DecodeError: a line is no JSON (RFC 8259; NaN and the like are none), is no UTF-8, or is longer than
            `limit`. The message has the number and the start of the line.

    >>> decoder = JSONLinesDecoder()
    >>> decoder.feed(b'{"i": 1}\\n\\n[2]\\n{"i"'), decoder.feed(b": 3}"), decoder.end()
    ([{'i': 1}, [2]], [], [{'i': 3}])
    """

    def __init__(self, *, limit: int = MAX_LINE) -> None:
        super().__init__()
        self._lines = LineDecoder(limit=limit)
        self._number = 0  # of the last line

    def _decode(self, data: bytes, final: bool, found: list[Any]) -> None:
        for line in _through(self._lines, data, final=final):
            self._number += 1
            try:
                found.append(parse_json_text(line))
            except ValueError as error:
                if line.strip(" \t\r"):
                    raise _no_json(f"line {self._number} of the answer", line, error) from None
        if final:
            self._number = 0


class ChatDecoder(_Decoder["dict[str, Any]"]):
    """The chunks of a chat completion that is streamed as OpenAI's are: JSON objects in server-sent events.

    ``data: [DONE]`` ends the stream; what comes after it is ignored. A decoder serves one stream.

    Args:
        limit: as for `EventDecoder`.

    Attributes:
        done: whether ``[DONE]`` has come.

    Raises:
        AgentRunClientError: the service reports an error within the stream: a chunk has an ``error`` that is
            not empty, or the event has the type ``error``. ``message`` and ``error_code`` are the service's
            (its ``type`` where it has no ``code``), ``response_body`` is the chunk.
        DecodeError: a chunk is no JSON object, or is larger than `limit`.
        IncompleteError: the stream ended before ``[DONE]``.

    >>> decoder = ChatDecoder()
    >>> decoder.feed(b'data: {"choices": []}\\n\\ndata: [DONE]\\n\\n'), decoder.done, decoder.end()
    ([{'choices': []}], True, [])
    """

    def __init__(self, *, limit: int = MAX_EVENT) -> None:
        super().__init__()
        self.done: bool = False
        self._events = EventDecoder(limit=limit)

    def _decode(self, data: bytes, final: bool, found: list[dict[str, Any]]) -> None:
        if self.done:
            return
        # An event cut short is dropped. But a [DONE] that has come is whole without its empty line, too.
        for event in _through(self._events, b"\n\n" if final else data, final=False):
            if event.data.strip() == "[DONE]":
                self.done = True
                return
            if not final:
                found.append(_chunk(event))
        if final:
            raise IncompleteError("the stream ended before its [DONE]: the answer is not complete")


def _chunk(event: ServerSentEvent) -> dict[str, Any]:
    value = event.json()
    if not isinstance(value, dict):
        nonsense = DecodeError(
            f"a chunk of the stream is no JSON object: {event.data[:_SHOWN]!r}", response_body=value
        )
        nonsense.value = value
        raise nonsense
    chunk = cast("dict[str, Any]", value)
    if event.type == "error" or chunk.get("error"):
        raise _reported(chunk)
    return chunk


def _reported(chunk: dict[str, Any]) -> AgentRunClientError:
    """The error for what the service says within a stream, in any of the forms that are about.

    OpenAI: ``{"error": {"message", "type", "code"}}``, whose code may be null, or a number with others who
    speak its protocol; ``{"error": "text"}``; the members themselves in an event of the type ``error``.
    """
    error = chunk.get("error") or chunk
    told = cast("dict[str, Any]", error) if isinstance(error, dict) else {"message": error}
    message = told.get("message")
    if not isinstance(message, str) or not message:
        message = "the service reports an error and gives no reason"
    codes = (code for code in (told.get("code"), told.get("type")) if isinstance(code, (str, int)) and code)
    return AgentRunClientError(message, error_code=next(map(str, codes), None), response_body=chunk)
