"""However a stream is cut, a decoder gives the same items and ends in the same documented error, and its
events and lines are what the references read.

An input is a byte that draws decoder and limit, one that draws the cuts, and the bytes of a stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from agentrun_proto.errors import AgentRunClientError
from agentrun_proto.events import ChatDecoder, EventDecoder, JSONLinesDecoder, LineDecoder
from fuzz.inputs import cut
from proto_strategies import load
from stream_readers import by_the_standard, split_lines

DECODERS = (EventDecoder, LineDecoder, JSONLinesDecoder, ChatDecoder)
LIMITS = (1 << 20, 16)

FOUND: dict[str, bytes] = {}

STREAMS = (
    b'{"i": 1}\n\n[2]\r\n{"i": 3}',
    b'1\nNaN\n"\xe4\xb8\xad"\n\xff\n',
    b"one\r\ntwo\n\nthr\ree",
    b'data: {"choices": [{"delta": {"content": "x"}}]}\n\ndata: [DONE]\n\n',
    b'event: error\ndata: {"code": "E", "message": "m"}\n\n',
    b'data: {"error": {"message": "m", "type": "t", "code": null}}\n\n',
    b'data: "[DONE]"\r\rdata: [DONE]',
    b"\xef\xbb\xbfid: 7\ndata: a\ndata\n\nretry: 00999999999999999999\r\n: c\rdata: \xf0\x9f\x98\x80\n\n",
    b"data: " + b"[" * 2000 + b"\n\n",
    b"id: a\0b\nid\nevent\ndata\n\n",
)


def _bounded(retry: int | None) -> int | None:
    """The longest that is waited is a year, which the standard leaves to us."""
    return None if retry is None else min(retry, 366 * 86_400_000)


def _stays_failed(decoder: Any, error: AgentRunClientError) -> None:
    assert decoder.error is error


def _read(decoder: Any, pieces: Iterable[bytes]) -> tuple[list[Any], tuple[type, str] | None]:
    found: list[Any] = []
    try:
        for piece in pieces:
            found += decoder.feed(piece)
        found += decoder.end()
    except AgentRunClientError as error:
        _stays_failed(decoder, error)
        return found, (type(error), str(error))
    return found, None


def check(data: bytes) -> None:
    if len(data) < 2:
        return
    kind, limit = DECODERS[data[0] % 4], LIMITS[bool(data[0] & 64)]
    stream = data[2:]
    decoder = kind(limit=limit)
    whole = _read(decoder, [stream])
    again = kind(limit=limit)
    assert repr(_read(again, cut(stream, data[1]))) == repr(whole), "the cut matters"
    if whole[1] is not None:
        return
    if isinstance(decoder, EventDecoder):
        found, last, retry = by_the_standard(stream)
        found = [replace(event, retry=_bounded(event.retry)) for event in found]
        assert (whole[0], decoder.last_event_id, decoder.retry) == (found, last, _bounded(retry))
    elif isinstance(decoder, LineDecoder):
        assert whole[0] == split_lines(stream)


def corpus() -> Iterator[bytes]:
    streams = [vector["body"].encode() for vector in load("eventsource_vectors.json")]
    for number, stream in enumerate([*streams, *STREAMS]):
        for kind in range(4):
            yield bytes([kind, number % 256]) + stream
        yield bytes([64 | number % 4, 0]) + stream
