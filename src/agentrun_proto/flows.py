"""The operations, each a flow that reads from top to bottom as the policy it is.

Rules of this file: a flow yields commands only and does no I/O; a request is authorised last, over exactly
what is sent, afresh for each attempt; a `finally` yields nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from .commands import Flow, OpenSource, ReadAll, Send
from .context import Context
from .credentials import Credential
from .decoding import MAX_BODY, Response, decode, find_request_id, nonsense, take_off_coding
from .errors import AgentRunClientError, DecodeError, StatusError
from .messages import Head, Request, Source
from .multipart import FilePart
from .recovery import Recovery
from .telemetry import HeadReceived, Observer, RequestEnded, RequestSent

Result = TypeVar("Result")

Receive = Callable[[Head], Flow[Result]]
"""Makes the flow that takes the answer: returns what it is worth, or raises."""


def perform(
    context: Context,
    request: Request,
    receive: Receive[Result],
    *,
    deadline: float | None = None,
    prepare: Callable[[Request], Request] | None = None,
    gained: Callable[[], bool] | None = None,
) -> Flow[Result]:
    """Sends a request, as often as it may be and takes, and returns what its answer is worth.

    Args:
        context, request: whom it is for, and what is sent.
        receive: takes the answer.
        deadline: monotonic time at which it is over; None: as the context has it.
        prepare: what each attempt asks for, made from what was asked for.
        gained: see `Recovery`.

    This is the whole policy: who is calling is asked anew for each attempt, and what becomes of a failure is
    for `Recovery` to say.
    """
    plane, observer = context.plane, context.observer
    identity = plane.identity
    if deadline is None:
        deadline = context.deadline()
    recovery: Recovery | None = None
    while True:
        credential: Credential | None = None
        now = 0.0
        attempt = request if prepare is None else prepare(request)
        try:
            if not attempt.anonymous:
                if identity.obtain is None:
                    credential = identity.credential
                else:
                    credential = yield from context.credential(deadline)
                nonce = (yield from context.nonce()) if plane.nonce_size else ""
                now = context.now()
                attempt = plane.authorise(attempt, credential, now, nonce)
            if observer is None:
                head: Head = yield Send(attempt, context.timeout, deadline, None, context.progress)
                result = yield from receive(head)
            else:
                number = 1 if recovery is None else recovery.attempt
                result = yield from _observed(context, observer, number, attempt, deadline, receive)
        except AgentRunClientError as error:
            if recovery is None:
                recovery = Recovery(context, deadline, gained)
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
        head: Head = yield Send(request, context.timeout, deadline, observer, context.progress)
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
    try:
        content = take_off_coding(head, (yield ReadAll(MAX_BODY)))
    except DecodeError as error:
        content = _without_content(head, error)
    return decode(head, content)


def exchange(context: Context, request: Request) -> Flow[Response]:
    """Sends a request and returns the whole answer, whatever its status."""
    answer: Response | None = None

    def receive(head: Head) -> Flow[Response]:
        nonlocal answer
        answer = Response(head=head, content=(yield from read_content(head)))
        return answer.raise_for_status()

    try:
        return (yield from perform(context, request, receive))
    except StatusError as error:
        if answer is None:
            raise
        return replace(answer, error=error)


def upload(
    context: Context, parts: Sequence[FilePart], build: Callable[[list[FilePart]], Request]
) -> Flow[dict[str, Any]]:
    """Opens local files, sends the request built around them, and returns the JSON object of the answer."""
    opened: list[FilePart] = []
    sources: list[Source] = []
    try:
        for part in parts:
            source = part.source
            if isinstance(source, str):
                source = yield from OpenSource(source)
            sources.append(source)
            opened.append(replace(part, source=source))
        return (yield from call(context, build(opened)))
    finally:
        for source in sources:
            source.close()


def read_content(head: Head) -> Flow[bytes]:
    """The content without its coding. A refusal stays one even where its content is of no use."""
    try:
        return take_off_coding(head, (yield ReadAll(MAX_BODY)))
    except DecodeError as error:
        return _without_content(head, error)


def _without_content(head: Head, error: DecodeError) -> bytes:
    """What is left of an answer whose content cannot be read: a refusal, or nothing."""
    if 200 <= head.status < 300:
        raise nonsense(head, b"", error.message) from error
    return b""
