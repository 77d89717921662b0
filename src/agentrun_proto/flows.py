"""The operations, each a flow that reads from top to bottom as the policy it is.

Rules of this file: a flow yields commands only and does no I/O; a request is authorised last, over exactly
what is sent, afresh for each attempt; a `finally` yields nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from .commands import Clock, Commit, Flow, OpenSink, OpenSource, ReadAll, ReadInto, Send
from .config import Timeout
from .decoding import MAX_BODY, Response, decode, is_json, nonsense, refusal, take_off_coding
from .errors import DecodeError
from .messages import Head, Request, Source

Authorise = Callable[[Request, float], Request]
"""Adds to a request, at a wall time, what shows who is calling."""


class Context:
    """What a flow needs beside its request: how to authorise it, how long it may take, what time it is."""

    __slots__ = ("authorise", "clock", "timeout")

    def __init__(self, authorise: Authorise, timeout: Timeout, clock: Clock) -> None:
        self.authorise = authorise
        self.timeout = timeout
        self.clock = clock

    def attempt(self, request: Request, deadline: float) -> Send:
        """The command that sends the request, authorised as of now."""
        return Send(self.authorise(request, self.clock.now()), self.timeout, deadline)

    def deadline(self) -> float:
        """The monotonic time at which an operation that begins now is over."""
        total = self.timeout.total
        return inf if total is None else self.clock.monotonic() + total


def exchange(context: Context, request: Request) -> Flow[Response]:
    """Sends a request and returns the whole answer, whatever its status."""
    head: Head = yield context.attempt(request, context.deadline())
    return Response(head=head, content=(yield from _content(head)))


def call(context: Context, request: Request) -> Flow[dict[str, Any]]:
    """Sends a request and returns the JSON object of the answer; see `decode` for the errors."""
    head: Head = yield context.attempt(request, context.deadline())
    return decode(head, (yield from _content(head)))


def upload(context: Context, path: str, build: Callable[[Source], Request]) -> Flow[dict[str, Any]]:
    """Opens a local file, sends the request built around it, and returns the JSON object of the answer."""
    source = yield from OpenSource(path)
    try:
        return (yield from call(context, build(source)))
    finally:
        source.close()


def download(context: Context, path: str, request: Request) -> Flow[int]:
    """Saves the answer at a local path, whole or not at all, as it is stored; returns its size in bytes.

    A refusal, JSON, and a part of a file that was asked for whole are errors; the old file then stays.
    """
    sink = yield from OpenSink(path)
    try:
        head = yield from context.attempt(request, context.deadline())
        if not 200 <= head.status < 300:
            raise refusal(head, (yield from _content(head)))
        if is_json(head.headers.get("content-type", "")):
            raise nonsense(
                head, (yield from _content(head)), "the service answered with JSON, which is no file"
            )
        if head.status != (206 if "range" in request.headers else 200):
            raise nonsense(
                head, b"", f"the service answered with status {head.status}, not with the whole file"
            )
        size = yield from ReadInto(sink)
        yield from Commit(sink)
        return size
    finally:
        sink.discard()


def _content(head: Head) -> Flow[bytes]:
    """The content without its coding. A refusal stays one even where its content is of no use."""
    try:
        content: bytes = yield ReadAll(MAX_BODY)
        return take_off_coding(head, content)
    except DecodeError as error:
        if 200 <= head.status < 300:
            raise nonsense(head, b"", error.message) from error
        return b""
