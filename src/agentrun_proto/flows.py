"""The operations, each a flow that reads from top to bottom as the policy it is.

Rules of this file: a flow yields commands only and does no I/O; a request is authorised last, over exactly
what is sent, afresh for each attempt; a `finally` yields nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from .commands import Commit, Flow, OpenSink, OpenSource, ReadAll, ReadInto, Send, Sink
from .context import Context
from .credentials import Credential
from .decoding import MAX_BODY, Response, decode, find_request_id, is_json, nonsense, refusal, take_off_coding
from .errors import AgentRunClientError, DecodeError, StatusError
from .messages import Head, Request, Source
from .recovery import Recovery
from .telemetry import HeadReceived, Observer, RequestEnded, RequestSent

Result = TypeVar("Result")

Receive = Callable[[Head], Flow[Result]]
"""Makes the flow that takes the answer: returns what it is worth, or raises."""


def perform(context: Context, request: Request, receive: Receive[Result]) -> Flow[Result]:
    """Sends a request, as often as it may be and takes, and returns what its answer is worth.

    This is the whole policy: who is calling is asked anew for each attempt, and what becomes of a failure is
    for `Recovery` to say.
    """
    plane, observer = context.plane, context.observer
    identity = plane.identity
    deadline = context.deadline()
    recovery: Recovery | None = None
    while True:
        credential: Credential | None = None
        now = 0.0
        attempt = request
        try:
            if recovery is None or not recovery.abroad:
                if identity.obtain is None:
                    credential = identity.credential
                else:
                    credential = yield from context.credential(deadline)
                nonce = (yield from context.nonce()) if plane.nonce_size else ""
                now = context.now()
                attempt = plane.authorise(request, credential, now, nonce)
            if observer is None:
                head: Head = yield Send(attempt, context.timeout, deadline)
                result = yield from receive(head)
            else:
                number = 1 if recovery is None else recovery.attempt
                result = yield from _observed(context, observer, number, attempt, deadline, receive)
        except AgentRunClientError as error:
            if recovery is None:
                recovery = Recovery(context, deadline)
            request = yield from recovery.after(error, request, attempt, credential, now)
        else:
            plane.standing.quota.earn(0 if recovery is None else recovery.paid)
            return result


def _observed(
    context: Context,
    observer: Observer,
    number: int,
    request: Request,
    deadline: float,
    receive: Receive[Result],
) -> Flow[Result]:
    """One attempt, with the listener told of it."""
    call = observer.call
    sent = RequestSent(
        call=call, attempt=number, method=request.method, url=f"{request.origin}{request.path}"
    )
    ended: str | None = "cancelled"
    try:
        observer.tell(sent)
        if sent.carrier:
            request = request.with_fields(sent.carrier)
        head: Head = yield Send(request, context.timeout, deadline, observer)
        request_id = find_request_id(head.headers, None)
        observer.tell(HeadReceived(call=call, attempt=number, status=head.status, request_id=request_id))
        result = yield from receive(head)
        ended = None
        return result
    except AgentRunClientError as error:
        ended = type(error).__name__
        raise
    finally:
        observer.tell(RequestEnded(call=call, attempt=number, error=ended))


def call(context: Context, request: Request) -> Flow[dict[str, Any]]:
    """Sends a request and returns the JSON object of the answer; see `decode` for the errors."""
    return perform(context, request, _decoded)


def _decoded(head: Head) -> Flow[dict[str, Any]]:
    return decode(head, (yield from _content(head)))


def exchange(context: Context, request: Request) -> Flow[Response]:
    """Sends a request and returns the whole answer, whatever its status."""
    answer: Response | None = None

    def receive(head: Head) -> Flow[Response]:
        nonlocal answer
        answer = Response(head=head, content=(yield from _content(head)))
        return answer.raise_for_status()

    try:
        return (yield from perform(context, request, receive))
    except StatusError as error:
        if answer is None:
            raise
        return replace(answer, error=error)


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
    opened: list[Sink] = [(yield from OpenSink(path))]  # before anything is sent; at most one

    def receive(head: Head) -> Flow[int]:
        yield from _refuse_what_is_no_file(head, request)
        if not opened:
            opened.append((yield from OpenSink(path)))
        try:
            return (yield from ReadInto(opened[0]))
        except AgentRunClientError:
            opened.pop().discard()
            raise

    try:
        size = yield from perform(context, request, receive)
        yield from Commit(opened[0])
        return size
    finally:
        for sink in opened:
            sink.discard()


def _refuse_what_is_no_file(head: Head, request: Request) -> Flow[None]:
    if not 200 <= head.status < 300:
        raise refusal(head, (yield from _content(head)))
    if is_json(head.headers.get("content-type", "")):
        raise nonsense(head, (yield from _content(head)), "the service answered with JSON, which is no file")
    if head.status != (206 if "range" in request.headers else 200):
        raise nonsense(head, b"", f"the service answered with status {head.status}, not with the whole file")


def _content(head: Head) -> Flow[bytes]:
    """The content without its coding. A refusal stays one even where its content is of no use."""
    try:
        content: bytes = yield ReadAll(MAX_BODY)
        return take_off_coding(head, content)
    except DecodeError as error:
        if 200 <= head.status < 300:
            raise nonsense(head, b"", error.message) from error
        return b""
