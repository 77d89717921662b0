"""A connection of asyncio's: a `BufferedProtocol` whose buffer is the wire's.

Rules of this file: bytes arrive in the wire's buffer, with no task between; one timer a connection, armed
again only when a deadline lies before it.

TLS is our own layer over the loop's plain transport: the loops' own keep what they have deciphered to
themselves, so that bytes after an answer could not be seen before the connection is used again, and Python
3.10's pushes on where there is no room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from math import inf
from typing import Any, cast

from agentrun_proto import Origin

from ._readiness import Readiness
from ._tls import TLSLayer
from ._wire import BUFFER_SIZE, Wire


class AsyncioLink(asyncio.BufferedProtocol):
    """A connection: the loop puts what arrives into the wire's buffer and wakes whoever awaits it."""

    __slots__ = (
        "_cipher",
        "_deadline",
        "_ended",
        "_failure",
        "_full",
        "_layer",
        "_loop",
        "_paused",
        "_reader",
        "_ready",
        "_rings",
        "_shaken",
        "_timer",
        "_transport",
        "_unread",
        "_waiter",
        "idle_since",
        "origin",
        "used",
        "wire",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, origin: Origin, layer: TLSLayer | None) -> None:
        self.origin = origin
        self.wire = Wire()
        self.used = False
        self.idle_since = 0.0
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._ready: Readiness | None = None
        self._reader: asyncio.Future[int] | None = None  # of whoever reads: how many bytes have come
        self._waiter: asyncio.Future[None] | None = None  # of whoever waits for anything else
        self._timer: asyncio.TimerHandle | None = None
        self._rings = inf  # when the timer does
        self._deadline = inf
        self._unread = 0  # bytes in the wire that no `read` has told of
        self._ended = False
        self._failure: Exception | None = None
        self._full = False  # the buffer is, and reading was paused
        self._paused = False  # the transport wants no more to write
        self._layer = layer
        self._shaken = layer is None  # hands, in TLS
        self._cipher = memoryview(bytearray(0 if layer is None else BUFFER_SIZE))

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._ready = Readiness(transport.get_extra_info("socket").fileno())

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.wire.get_buffer() if self._layer is None else self._cipher

    def buffer_updated(self, nbytes: int) -> None:
        wire = self.wire
        if self._layer is None:
            wire.received(nbytes)
            self._unread += nbytes
        else:
            self._layer.receive(self._cipher[:nbytes])
            self._decipher()
        if wire.full and self._transport is not None:
            self._full = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        if self._layer is not None:
            self._layer.receive(b"")
            self._decipher()
        self._ended = True
        self._wake()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._failure = self._failure or exc
        self._transport = self._ready = None
        self._disarm()
        self._wake()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._wake()

    def _decipher(self) -> None:
        """Moves what has arrived under TLS into the wire, as far as there is room."""
        if self._layer is None or not self._shaken:
            return
        try:
            while room := self.wire.get_buffer():
                count = self._layer.read_into(room)
                if count is None:
                    break
                if not count:
                    self._ended = True
                    break
                self.wire.received(count)
                self._unread += count
        except OSError as error:
            self._ended = True
            self._failure = error

    def _news(self) -> int | None:
        """How many bytes have come that nobody was told of; 0 at the end; None if there is nothing new."""
        count = self._unread
        if count:
            self._unread = 0
            return count
        if self._failure is not None:
            raise self._broken(self._failure)
        return 0 if self._ended else None

    def _broken(self, failure: Exception) -> ConnectionResetError:
        error = ConnectionResetError(str(failure))
        error.__cause__ = failure
        return error

    def _wake(self) -> None:
        reader = self._reader
        if reader is not None:
            if reader.done():  # cancelled: what has come is for the next
                self._reader = None
            elif self._unread:
                self._reader = None
                reader.set_result(self._unread)
                self._unread = 0
            elif self._failure is not None:
                self._reader = None
                reader.set_exception(self._broken(self._failure))
            elif self._ended:
                self._reader = None
                reader.set_result(0)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _expire(self) -> None:
        self._timer, self._rings = None, inf
        reader = self._reader
        waiting = self._waiter if reader is None or reader.done() else reader
        if waiting is None or waiting.done():
            return
        if self._loop.time() < self._deadline:
            self._arm(self._deadline)
        else:
            waiting.set_exception(TimeoutError())

    def _arm(self, deadline: float) -> None:
        self._deadline = deadline
        if self._rings > deadline:  # most often it rings long before, and looks then what is due
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(deadline, self._expire)
            self._rings = deadline

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._rings = None, inf

    async def _wait(self, deadline: float) -> None:
        """Until something happens to the connection."""
        self._arm(deadline)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # What the driver calls

    def abort(self) -> None:
        """Closes it at once."""
        if self._transport is not None and not self._loop.is_closed():
            self._transport.abort()
        self._disarm()

    async def handshake(self) -> None:
        """The TLS handshake. Raises ssl.SSLError."""
        while self._layer is not None and not self._shaken:
            try:
                self._shaken = self._layer.handshake()
            finally:  # a refusal is sent too
                if self._transport is not None:
                    self._transport.write(self._layer.to_send())
            if not self._shaken:
                if self._failure is not None or (self._ended and self._transport is None):
                    raise ConnectionResetError("the connection ended amid the TLS handshake")
                await self._wait(inf)
        self._decipher()

    def read(self, deadline: float) -> int | asyncio.Future[int]:
        """How many bytes have arrived in the wire, or what has that as its result; 0 at the end."""
        if self._layer is not None:
            self._decipher()
        news = self._news()
        if news is not None:
            return news
        if self._full and self._transport is not None and not self.wire.full:
            self._full = False
            self._transport.resume_reading()
        self._arm(deadline)
        reader = self._reader = self._loop.create_future()
        return reader

    def write(
        self, data: bytes | memoryview, deadline: float, *, watch: bool
    ) -> int | Coroutine[Any, Any, int]:
        """Hands bytes to the transport, or gives what does that once there is room.

        With `watch`, whatever arrives ends the wait, and what has arrived is read before more is written.
        """
        if not self._ended and (self._paused or (watch and self._unheard())):
            return self._write_later(data, deadline, watch)
        return self._write_now(data)

    async def _write_later(self, data: bytes | memoryview, deadline: float, watch: bool) -> int:
        while not self._ended:
            if watch and self._unread:
                return 0
            if not self._paused and not (watch and self._unheard()):
                break
            await self._wait(deadline)
        return self._write_now(data)

    def _unheard(self) -> bool:
        """Whether something has arrived that the loop is yet to put into the wire.

        A write that fails would have the loop forget it: a refusal, and the reset behind it.
        """
        return not self._full and self._ready is not None and self._ready.readable()

    def _write_now(self, data: bytes | memoryview) -> int:
        if self._transport is None or self._ended or self._transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        if self._layer is None:
            self._transport.write(data)
        else:
            rest = memoryview(data)
            while rest:
                rest = rest[self._layer.write(rest) :]
            self._transport.write(self._layer.to_send())
        return len(data)

    def take_in(self) -> int | None:
        """How many bytes have arrived, which the loop has put into the wire; 0 at the end, None if none."""
        if self._layer is not None:
            self._decipher()
        # What came between the wake of a reader and its turn was taken with the rest.
        count, self._unread = self._unread if self.wire.pending else 0, 0
        if count or self._ended:
            return count
        # The loop may not have come to what arrived with the last answer, or right after it.
        return 0 if self.wire.done and self._ready is not None and self._ready.readable() else None
