"""One connection of the emulator, as a flow: requests are read, the service is asked, its answers are sent.

Rules that hold here:
1. Nothing is decided here that the service could decide, and nothing is performed: no socket, no clock.
2. No request is held in memory: beyond ``_SPOOL`` bytes, its body goes through a temporary file.
3. A client that leaves is noticed while there is a pause, and as something is sent to it.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from typing import IO, TYPE_CHECKING, cast

import h11

from .commands import AwaitArrival, Linger, Pause, Receive, Send
from .log import ReceivedRequest
from .messages import Request
from .sending import Sender

if TYPE_CHECKING:
    from pathlib import Path

    from .commands import Flow
    from .log import RequestLog
    from .messages import Response
    from .service import Service

# How much is read at once, and how much of a body stays in memory, in bytes.
CHUNK = 256 << 10
_SPOOL = 1 << 20
# The longest head: queries of 30 KB are the service's business, 8 MB of header are not.
MAX_HEAD = 128 << 10
# How long the rest of a refused body is read, in seconds, so that the refusal is not lost to a reset
# connection.
_LINGER = 5.0
# How much of each received body is kept for `Emulator.requests`.
_KEEP_BODY = 64 << 10


class Conversation:
    """One connection, from its first byte to its last.

    ``number`` is the connection's, for the log; bodies too long for memory go to ``folder``, or, where that
    is None, to the system's for temporary files.

    >>> from .log import RequestLog
    >>> from .service import Service
    >>> service = Service(tokens=["t"], now=lambda: 0.0, new_id=lambda: "id-1")
    >>> flow = Conversation(service, RequestLog(10), 1, None).run()
    >>> next(flow)
    Receive(size=262144)
    >>> flow.send(b"HEAD / HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n").data[:13]
    b'HTTP/1.1 401 '
    >>> flow.close()
    """

    def __init__(self, service: Service, log: RequestLog, number: int, folder: Path | None) -> None:
        self._service = service
        self._requests = log
        self._number = number
        self._folder = None if folder is None else str(folder)
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._sender = Sender(self._http)

    def run(self) -> Flow[None]:
        """Serve until either side has had enough; then the connection is to be closed."""
        while (yield from self._serve_one()):
            pass

    def _serve_one(self) -> Flow[bool]:
        """Read and answer one request; return whether another may follow."""
        try:
            event = yield from self._next_event()
            if not isinstance(event, h11.Request):
                return False
            request = Request(
                method=event.method.decode("ascii"),
                target=event.target.decode("ascii"),
                headers=tuple(
                    (name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers
                ),
            )
            refusal = self._service.admit(request)
            with tempfile.SpooledTemporaryFile(max_size=_SPOOL, dir=self._folder) as body:
                length = 0 if refusal is not None else (yield from self._read_body(body))
                if length > self._service.body_limit:
                    refusal = self._service.too_large(request)
                if refusal is not None:
                    self._log(request, b"", 0)
                    yield from self._give_up(refusal)
                    return False
                body.seek(0)
                self._log(request, body.read(_KEEP_BODY), length)
                body.seek(0)
                whole = Request(
                    method=request.method, target=request.target, headers=request.headers, body=body
                )
                return (yield from self._answer(whole))
        except h11.RemoteProtocolError as error:
            # It comes while a request is read: no answer has begun.
            message = f"This is not HTTP/1.1: {error}."
            yield from self._give_up(self._service.broken(error.error_status_hint, message))
            return False

    def _log(self, request: Request, body: bytes, length: int) -> None:
        self._requests.add(
            ReceivedRequest(
                connection=self._number,
                method=request.method,
                target=request.target,
                headers=request.headers,
                body=body,
                body_length=length,
            )
        )

    def _next_event(self) -> Flow[h11.Event]:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                # PAUSED cannot come: the cycle ends before the next event is asked for.
                return cast("h11.Event", event)
            if self._http.they_are_waiting_for_100_continue:
                interim = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
                yield Send(self._http.send(interim) or b"")
            self._http.receive_data((yield Receive(CHUNK)))

    def _read_body(self, body: IO[bytes]) -> Flow[int]:
        """Read the request's body; return its length, or one above the limit as soon as that is known."""
        length = 0
        while isinstance(event := (yield from self._next_event()), h11.Data):
            length += len(event.data)
            if length > self._service.body_limit:
                break
            body.write(event.data)
        return length

    def _answer(self, request: Request) -> Flow[bool]:
        try:
            response = self._service.handle(request)
        except Exception as error:
            yield from self._send(self._service.broken(500, f"The emulator failed: {type(error).__name__}."))
            raise
        if response.delay:
            yield Pause(response.delay)
        if response.drop or not (yield from self._send(response, again=request)):
            return False
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        if response.drop_next:
            if not self._http.trailing_data[0]:
                yield AwaitArrival()
            return False
        self._http.start_next_cycle()
        return True

    def _send(self, response: Response, again: Request | None = None) -> Flow[bool]:
        """Send an answer; return whether it went out whole.

        A file that was replaced between the answer and its opening is gone: then the same is asked
        ``again``, which a download may be, as it changes nothing.
        """
        try:
            return (yield from self._sender.send(response))
        except FileNotFoundError:
            if again is None:
                raise
            return (yield from self._send(self._service.handle(again)))

    def _give_up(self, refusal: Response) -> Flow[None]:
        """Refuse a request that has not been read whole, and be done with the connection.

        What still comes is read on for a while: closing with unread bytes would reset the refusal away
        (RFC 9112 9.6).
        """
        yield from self._send(replace(refusal, headers=(*refusal.headers, ("Connection", "close"))))
        yield Linger(_LINGER)
