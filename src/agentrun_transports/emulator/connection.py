"""One connection of the emulator: requests are read, the service is asked, its answers are sent.

Rules that hold here:
1. Nothing is decided here that the service could decide.
2. One thread owns a connection. From outside, it is only ever shut down (which wakes the thread), never
   closed.
3. No request is held in memory: beyond ``_SPOOL`` bytes, its body goes through a temporary file.
4. A client that leaves is noticed while there is a pause, and as something is sent to it.
"""

from __future__ import annotations

import math
import selectors
import socket
import ssl
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from typing import IO, TYPE_CHECKING, cast

import h11

from .log import ReceivedRequest
from .messages import Request
from .sending import Sender

if TYPE_CHECKING:
    from .messages import Response
    from .server import Emulator

# How much is read at once, and how much of a body stays in memory, in bytes.
_CHUNK = 256 << 10
_SPOOL = 1 << 20
# The longest head: queries of 30 KB are the service's business, 8 MB of header are not.
_MAX_HEAD = 128 << 10
# How long the rest of a refused body is read, in seconds, so that the refusal is not lost to a reset
# connection.
_LINGER = 5.0
# How much of each received body is kept for `Emulator.requests`.
_KEEP_BODY = 64 << 10


class Connection:
    """One connection, from accept to close. ``run`` is its thread; ``shut_down`` may come from any other."""

    def __init__(self, sock: socket.socket, emulator: Emulator, number: int) -> None:
        self._sock = sock
        self._emulator = emulator
        self._service = emulator.service
        self._number = number
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
        self._sender = Sender(sock, self._http, lambda seconds: self.pause(seconds))

    def shut_down(self) -> None:
        """Wake the thread of this connection: whatever it waits for ends."""
        try:
            # Not SSLSocket.shutdown: that drops the TLS state under the thread that uses it.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
        except OSError:
            pass

    def run(self) -> None:
        """Serve until either side has had enough."""
        with closing(self._sock):
            try:
                if isinstance(self._sock, ssl.SSLSocket):
                    self._sock.do_handshake()
                while self._serve_one():
                    pass
            except OSError:  # reset, timed out, no TLS, or shut down by close()
                pass

    def _serve_one(self) -> bool:
        """Read and answer one request; return whether another may follow."""
        try:
            event = self._next_event()
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
            with tempfile.SpooledTemporaryFile(max_size=_SPOOL, dir=str(self._emulator.folder)) as body:
                length = 0 if refusal is not None else self._read_body(body)
                if length > self._service.body_limit:
                    refusal = self._service.too_large(request)
                if refusal is not None:
                    self._log(request, b"", 0)
                    self._give_up(refusal)
                    return False
                body.seek(0)
                self._log(request, body.read(_KEEP_BODY), length)
                body.seek(0)
                return self._answer(
                    Request(method=request.method, target=request.target, headers=request.headers, body=body)
                )
        except h11.RemoteProtocolError as error:
            if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                message = f"This is not HTTP/1.1: {error}."
                self._give_up(self._service.broken(error.error_status_hint, message))
            return False

    def _log(self, request: Request, body: bytes, length: int) -> None:
        self._emulator.requests.add(
            ReceivedRequest(
                connection=self._number,
                method=request.method,
                target=request.target,
                headers=request.headers,
                body=body,
                body_length=length,
            )
        )

    def _next_event(self) -> h11.Event:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                # PAUSED cannot come: the cycle ends before the next event is asked for.
                return cast("h11.Event", event)
            if self._http.they_are_waiting_for_100_continue:
                interim = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
                self._sock.sendall(self._http.send(interim) or b"")
            self._http.receive_data(self._sock.recv(_CHUNK))

    def _read_body(self, body: IO[bytes]) -> int:
        """Read the request's body; return its length, or one above the limit as soon as that is known."""
        length = 0
        while isinstance(event := self._next_event(), h11.Data):
            length += len(event.data)
            if length > self._service.body_limit:
                break
            body.write(event.data)
        return length

    def _answer(self, request: Request) -> bool:
        try:
            response = self._service.handle(request)
        except Exception as error:
            self._send(self._service.broken(500, f"The emulator failed: {type(error).__name__}."))
            raise
        if response.delay:
            self.pause(response.delay)
        if response.drop or not self._send(response, again=request):
            return False
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        if response.drop_next:
            self._await_arrival()
            return False
        self._http.start_next_cycle()
        return True

    def _send(self, response: Response, again: Request | None = None) -> bool:
        """Send an answer; return whether it went out whole.

        A file that was replaced between the answer and its opening is gone: then the same is asked
        ``again``, which a download may be, as it changes nothing.
        """
        try:
            return self._sender.send(response)
        except FileNotFoundError:
            if again is None:
                raise
            return self._send(self._service.handle(again))

    def pause(self, seconds: float | None) -> None:
        """Wait, for ever where ``seconds`` is None. Raises ``OSError`` where the peer leaves before that.

        What the peer sends meanwhile is kept for later. Where it sends more than any head has, nobody looks
        whether it is still there.
        """
        end = math.inf if seconds is None else time.monotonic() + seconds
        room = _MAX_HEAD
        try:
            while (left := end - time.monotonic()) > 0:
                if room <= 0:
                    if self._emulator.closing.wait(None if seconds is None else left):
                        raise ConnectionAbortedError
                    return
                self._sock.settimeout(None if seconds is None else left)
                data = self._sock.recv(room)
                if not data:
                    raise ConnectionAbortedError
                room -= len(data)
                self._http.receive_data(data)
        except TimeoutError:  # the time is over, and nothing has come
            pass
        finally:
            self._sock.settimeout(self._emulator.idle_timeout)

    def _await_arrival(self) -> None:
        """Wait for the first byte of another request, without reading it."""
        if self._http.trailing_data[0]:
            return
        with selectors.DefaultSelector() as selector:
            selector.register(self._sock, selectors.EVENT_READ)
            selector.select(self._emulator.idle_timeout)

    def _give_up(self, refusal: Response) -> None:
        """Refuse a request that has not been read whole, and be done with the connection.

        What still comes is read on for a while: closing with unread bytes would reset the refusal away
        (RFC 9112 9.6).
        """
        self._send(replace(refusal, headers=(*refusal.headers, ("Connection", "close"))))
        socket.socket.shutdown(self._sock, socket.SHUT_WR)
        end = time.monotonic() + _LINGER
        while (left := end - time.monotonic()) > 0 and not self._emulator.closing.is_set():
            self._sock.settimeout(left)
            # Below TLS: what is thrown away need not be deciphered.
            if not socket.socket.recv(self._sock, _CHUNK):
                return
