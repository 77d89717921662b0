"""asyncio: a network on the loop's own transports, and the driver of about fifteen lines.

Rules of this file: bytes arrive in the wire's buffer, with no copy and no task between; one timer a
connection, armed again only when a deadline lies before it; a cancellation ends in plain calls alone, and a
thread's work is waited for, since the file that it works on is closed next.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from functools import partial
from math import inf
from typing import Any, TypeVar, cast

from agentrun_proto import AgentRunClientError, AuthHook, Config, DataEndpoint, Origin, TLSError

from ._exchange import Connect, Read, Run, Steps, Wait, Write
from ._faces import NativeFace
from ._pool import Limits
from ._sessions import LoopNetwork
from ._tls import TLS, tls_context
from ._wire import Wire

Result = TypeVar("Result")

_HAPPY_EYEBALLS_DELAY = 0.25  # seconds (RFC 8305, 5)


class AsyncioClock:
    """Wall time of the machine, and the running loop's own monotonic time, which a test may turn."""

    now = staticmethod(time.time)

    @staticmethod
    def monotonic() -> float:
        """The running loop's time."""
        return asyncio.get_running_loop().time()


class AsyncioLink(asyncio.BufferedProtocol):
    """A connection: the loop puts what arrives into the wire's buffer and wakes whoever awaits it."""

    __slots__ = (
        "_deadline",
        "_ended",
        "_failure",
        "_full",
        "_loop",
        "_paused",
        "_secure",
        "_timer",
        "_transport",
        "_unread",
        "_waiter",
        "idle_since",
        "origin",
        "used",
        "wire",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, origin: Origin) -> None:
        self.origin = origin
        self.wire = Wire()
        self.used = False
        self.idle_since = 0.0
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = inf
        self._unread = 0  # bytes in the wire that no `read` has told of
        self._ended = False
        self._failure: Exception | None = None
        self._full = False  # the buffer is, and reading was paused
        self._paused = False  # the transport wants no more to write
        self._secure = origin.scheme == "https"

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.wire.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        self.wire.received(nbytes)
        self._unread += nbytes
        if not self.wire.get_buffer() and self._transport is not None:
            self._full = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self._ended = True
        self._wake()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._secure and not self._ended and exc is None:
            exc = ConnectionResetError("the connection ended without TLS saying so")
        self._ended = True
        self._failure = exc
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _expire(self) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return
        if self._loop.time() < self._deadline:
            self._arm()
        else:
            self._waiter.set_exception(TimeoutError())

    def _arm(self) -> None:
        timer, deadline = self._timer, self._deadline
        if deadline == inf or (timer is not None and timer.when() <= deadline):
            return
        if timer is not None:
            timer.cancel()
        self._timer = self._loop.call_at(deadline, self._expire)

    async def _wait(self, deadline: float) -> None:
        """Until something happens to the connection."""
        self._deadline = deadline
        self._arm()
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
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def read(self, deadline: float) -> int:
        """Waits until bytes have arrived in the wire; 0 at the end."""
        while not self._unread:
            if self._failure is not None:
                raise ConnectionResetError(str(self._failure)) from self._failure
            if self._ended:
                return 0
            if self._full and self._transport is not None and self.wire.get_buffer():
                self._full = False
                self._transport.resume_reading()
            await self._wait(deadline)
        count, self._unread = self._unread, 0
        return count

    async def write(self, data: bytes | memoryview, deadline: float, *, watch: bool) -> int:
        """Hands bytes to the transport once it has room; with `watch`, whatever arrives ends the wait."""
        while self._paused and not self._ended:
            if watch and self._unread:
                return 0
            await self._wait(deadline)
        if self._transport is None or self._ended or self._transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        self._transport.write(data)
        return len(data)

    def take_in(self) -> int | None:
        """How many bytes have arrived, which the loop has put into the wire; 0 at the end, None if none."""
        count, self._unread = self._unread, 0
        return count if count or self._ended else None


class AsyncioNetwork:
    """Connects, reads, writes and waits on the running loop."""

    clock = AsyncioClock()

    def __init__(self, tls: TLS, unix_socket: str | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._tls = tls
        self._unix_socket = unix_socket
        self._perform: dict[type, Callable[[Any], Awaitable[Any]]] = {
            Connect: self._connect,
            Write: self._write,
            Read: self._read,
            Wait: self._wait,
            Run: self._run,
        }

    async def drive(self, steps: Steps[Result]) -> Result:
        """Performs network commands until their flow returns."""
        perform = self._perform
        try:
            command = steps.send(None)
            while True:
                try:
                    answer = await perform[type(command)](command)
                except (OSError, AgentRunClientError) as error:
                    command = steps.throw(error)
                else:
                    command = steps.send(answer)
        except StopIteration as stop:
            return cast("Result", stop.value)
        finally:
            steps.close()

    @property
    def ended(self) -> bool:
        """Whether the loop is closed."""
        return self._loop.is_closed()

    def close_from_anywhere(self, close: Callable[[], None]) -> None:
        """Closes connections from whichever thread drops the last reference to their client."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(close)

    def _write(self, command: Write) -> Awaitable[int]:
        link = cast("AsyncioLink", command.link)
        return link.write(command.data, command.deadline, watch=command.watch)

    def _read(self, command: Read) -> Awaitable[int]:
        return cast("AsyncioLink", command.link).read(command.deadline)

    async def _connect(self, command: Connect) -> AsyncioLink:
        opening = self._loop.create_task(self._open(command.origin))
        left = command.deadline - self._loop.time()
        try:
            await asyncio.wait({opening}, timeout=None if left == inf else left)
        except BaseException:
            await self._abandon(opening)
            raise
        if not opening.done():
            await self._abandon(opening)
            raise TimeoutError
        try:
            return opening.result()
        except (ssl.SSLError, ssl.CertificateError) as error:
            raise TLSError(f"the TLS handshake with {command.origin} failed: {error}") from error

    async def _open(self, origin: Origin) -> AsyncioLink:
        host = origin.host.strip("[]")
        secure: dict[str, Any] = {}
        if origin.scheme == "https":
            secure = {"ssl": tls_context(self._tls), "server_hostname": host}
        factory = partial(AsyncioLink, self._loop, origin)
        if self._unix_socket is not None:
            _, link = await self._loop.create_unix_connection(factory, self._unix_socket, **secure)
            return link
        try:
            _, link = await self._loop.create_connection(
                factory, host, origin.port, happy_eyeballs_delay=_HAPPY_EYEBALLS_DELAY, **secure
            )
        except UnicodeError as error:
            raise OSError(f"the name {host!r} is unknown: {error}") from error
        return link

    async def _abandon(self, opening: asyncio.Task[AsyncioLink]) -> None:
        """Cancels the making of a connection, and closes the one that was made all the same."""
        opening.cancel()
        await _finish(opening)
        if not opening.cancelled() and opening.exception() is None:
            opening.result().abort()

    async def _wait(self, command: Wait) -> None:
        ticket = command.ticket
        served: asyncio.Future[None] = self._loop.create_future()
        ticket.notify = partial(_resolve, served)
        if ticket.ready:
            return
        timer = None
        if command.deadline != inf:
            timer = self._loop.call_at(command.deadline, _fail, served)
        try:
            await served
        finally:
            if timer is not None:
                timer.cancel()

    async def _run(self, command: Run[Any]) -> Any:
        work = self._loop.run_in_executor(None, command.function)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            # The thread goes on whatever we do, and its file must not be closed under it.
            await _finish(work)
            if not work.cancelled() and work.exception() is None:
                command.undo(work.result())
            raise


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _fail(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())


async def _finish(future: asyncio.Future[Any]) -> None:
    """Waits until it is done, through further cancellations; the first one is about to be raised."""
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError:
            continue


class AsyncioClient(NativeFace):
    """A client of one namespace, for asyncio (and uvloop).

    Its connections belong to the loop that it is used on and end with it; nothing needs closing.

    Args:
        config, namespace, auth, tls, limits, unix_socket: as for ``BlockingClient``.

    >>> from agentrun_transports.emulator import Emulator
    >>> async def main():
    ...     with Emulator() as emulator:
    ...         async with AsyncioClient(Config.from_env(emulator.environment)) as client:
    ...             return await client.post("resources", {"name": "first"})
    >>> asyncio.run(main())["data"]["name"]
    'first'
    """

    def __init__(
        self,
        config: Config | None = None,
        namespace: str = "agents",
        *,
        auth: AuthHook | None = None,
        tls: TLS | None = None,
        limits: Limits | None = None,
        unix_socket: str | None = None,
    ) -> None:
        super().__init__(DataEndpoint(config, namespace, auth=auth), tls, limits, unix_socket)

    def _loop(self) -> tuple[object, type[LoopNetwork]]:
        return asyncio.get_running_loop(), AsyncioNetwork
