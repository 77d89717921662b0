"""Live answers: content that is delivered while it arrives, and goes on after an interruption where it can.

Rules of this file: what has been delivered is never delivered again; a request is repeated only to go on
after the last event that was delivered, and only with GET.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from .codings import CodingError
from .commands import Deliver, Flow, ReadSome, Sleep
from .context import Context
from .decoding import content_decoder, find_request_id, nonsense, refusal
from .errors import AgentRunClientError, TransportError
from .events import ChatDecoder, EventDecoder, JSONLinesDecoder, LineDecoder
from .flows import perform, read_content
from .messages import Head, Request
from .retry import LONGEST_PAUSE

DEFAULT_RETRY = 3.0
"""Seconds before a stream is taken up again, unless it says otherwise; browsers take 2 to 5."""

_EVENT_STREAM = re.compile(r"\s*text/event-stream\s*(;.*)?", re.I)


class Decoder(Protocol):
    """Makes items of bytes."""

    error: AgentRunClientError | None
    """What comes after the items that were given last."""

    def feed(self, data: bytes) -> list[Any]:
        """The items that are complete now."""
        ...

    def end(self) -> list[Any]:
        """Those that the end completes."""
        ...


class _Pieces:
    """The bytes themselves, as they come."""

    error: AgentRunClientError | None = None

    def feed(self, data: bytes) -> list[Any]:
        return [data]

    def end(self) -> list[Any]:
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a stream is read.

    Args:
        decoder: makes a decoder of its content.
        resume: take an event stream up again when it ends, after the last event.
    """

    decoder: Callable[[], Decoder]
    resume: bool = False


PIECES = Reading(decoder=_Pieces)
"""The content as it comes, in bytes."""
LINES = Reading(decoder=LineDecoder)
"""Lines of text, as `LineDecoder` has them."""
JSON_LINES = Reading(decoder=JSONLinesDecoder)
"""A JSON value for each line, as `JSONLinesDecoder` has them."""
CHAT = Reading(decoder=ChatDecoder)
"""The chunks of a chat completion, as `ChatDecoder` has them."""
EVENTS = Reading(decoder=EventDecoder)
"""Server-sent events, as `EventDecoder` has them."""
RESUMED_EVENTS = Reading(decoder=EventDecoder, resume=True)
"""Server-sent events of a GET, taken up again after the last one where the stream breaks off."""


def stream(context: Context, request: Request) -> Flow[None]:
    """Sends a request and delivers first the head of its answer, then the items of its content.

    The answer to the first `Deliver` is the `Reading` that is wanted.
    """
    deadline = context.deadline()
    head = yield from perform(context, request, _accepted, deadline=deadline)
    reading: Reading = yield Deliver([head])
    if not reading.resume or request.method != "GET":
        yield from _read(head, reading.decoder())
        return
    decoder = EventDecoder()  # the same for all: it knows where the last stream ended
    while head.status != 204:  # WHATWG HTML, 9.2.3: that ends it for good
        if not _EVENT_STREAM.fullmatch(head.headers.get("content-type", "")):
            # As there; what is no event stream would be asked for again and again.
            raise nonsense(head, b"", "the answer is no event stream: there is nothing to take up again")
        try:
            yield from _read(head, decoder)
        except TransportError:
            if context.clock.monotonic() >= deadline:
                raise
            decoder.end()
        pause = DEFAULT_RETRY if decoder.retry is None else min(decoder.retry / 1000, LONGEST_PAUSE)
        yield from Sleep(max(0.0, min(pause, deadline - context.clock.monotonic())))
        again = _taken_up(head, request, decoder.last_event_id)
        head = yield from perform(context, again, _accepted, deadline=deadline)


def _taken_up(head: Head, request: Request, last_event_id: str) -> Request:
    """The request for what comes after an event."""
    if not last_event_id:
        return request
    try:
        # The standard has the id go out as UTF-8; fields are Latin-1 here, which stands for their bytes.
        return request.with_fields({"Last-Event-ID": last_event_id.encode().decode("latin-1")})
    except ValueError:
        raise nonsense(
            head, b"", f"the stream cannot be taken up after the id {last_event_id!r}: no field holds it"
        ) from None


def _read(head: Head, decoder: Decoder) -> Flow[None]:
    coded = content_decoder(head)
    try:
        while piece := (yield from ReadSome()):
            for part in (piece,) if coded is None else coded.feed(piece):
                yield from _pass_on(decoder, decoder.feed(part))
                if isinstance(decoder, ChatDecoder) and decoder.done:
                    return
        if coded is not None:
            coded.end()
        yield from _pass_on(decoder, decoder.end())
    except CodingError as error:
        raise nonsense(head, b"", str(error)) from None
    except AgentRunClientError as error:
        _tell_whose(error, head)
        raise


def _tell_whose(error: AgentRunClientError, head: Head) -> None:
    """Says of which answer an error is that what came after the head made."""
    error.request_id = error.request_id or find_request_id(head.headers, None)
    if not isinstance(error, TransportError):  # whose status is 0: there is no complete answer
        error.status_code = error.status_code or head.status
        error.response_headers = error.response_headers or head.headers


def _pass_on(decoder: Decoder, items: list[Any]) -> Flow[None]:
    """Delivers items, and raises what comes after them."""
    if items:
        yield Deliver(items)
    if decoder.error is not None:
        raise decoder.error


def _accepted(head: Head) -> Flow[Head]:
    """The head of an answer that can be read; raises otherwise."""
    if not 200 <= head.status < 300:
        raise refusal(head, (yield from read_content(head)))
    content_decoder(head)  # raises
    return head
