"""asyncio: a network on the loop's own transports, and the driver of about fifteen lines.

Rules of this file: a cancellation ends in plain calls alone; what a thread or an attempt to connect still
does is waited for, since what it works on is closed next.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from math import inf
from typing import Any, TypeVar

from agentrun_proto import Clock, Command, Origin, TLSError

from ._addresses import Address, interleaved, tune
from ._asyncio_link import AsyncioLink
from ._drive import drive_async
from ._faces import NativeFace
from ._network import Await, Connect, Read, Run, Spawn, Steps, Wait, Write
from ._sessions import LoopNetwork
from ._tls import TLS, TLSLayer, tls_context

Result = TypeVar("Result")

_HAPPY_EYEBALLS_DELAY = 0.25  # seconds (RFC 8305, 5)


class AsyncioClock:
    """Wall time of the machine, and a loop's own monotonic time, which a test may turn."""

    now = staticmethod(time.time)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.monotonic: Callable[[], float] = loop.time


class AsyncioNetwork:
    """Connects, reads, writes and waits on the running loop."""

    def __init__(self, tls: TLS, unix_socket: str | None) -> None:
        self._loop = asyncio.get_running_loop()
        self.clock: Clock = AsyncioClock(self._loop)
        self.random: Callable[[int], bytes] = os.urandom
        self._tls = tls
        self._unix_socket = unix_socket
        self._tasks: set[asyncio.Task[None]] = set()  # a loop keeps only weak references to its tasks
        self._perform: dict[type, Callable[[Any], Awaitable[Any] | int]] = {
            Connect: self._connect,
            Write: self._write,
            Read: self._read,
            Wait: self._wait,
            Run: self._run,
            Await: self._await,
            Spawn: self._spawn,
        }

    def drive(self, steps: Steps[Result]) -> Coroutine[Any, Any, Result]:
        """Performs network commands until their flow returns."""
        return drive_async(steps, self.perform)

    def perform(self, command: Command[Any]) -> Awaitable[Any] | int:
        """Performs one network command."""
        return self._perform[type(command)](command)

    @property
    def ended(self) -> bool:
        """Whether the loop is closed."""
        return self._loop.is_closed()

    def close_from_anywhere(self, close: Callable[[], None]) -> None:
        """Closes connections from whichever thread drops the last reference to their client."""
        if asyncio._get_running_loop() is self._loop:  # documented for this: None where none runs
            close()  # at once: the loop may be about to stop
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(close)

    def _write(self, command: Write) -> Awaitable[int] | int:
        link: Any = command.link
        written: Awaitable[int] | int = link.write(command.data, command.deadline, watch=command.watch)
        return written

    def _read(self, command: Read) -> Awaitable[int] | int:
        link: Any = command.link
        read: Awaitable[int] | int = link.read(command.deadline)
        return read

    async def _connect(self, command: Connect) -> AsyncioLink:
        left = command.deadline - self._loop.time()
        opening = self._loop.create_task(self._open(command.origin))
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
        except ssl.SSLError as error:
            raise TLSError(f"the TLS handshake with {command.origin} failed: {error}") from error

    async def _open(self, origin: Origin) -> AsyncioLink:
        host = origin.host.strip("[]")
        layer = TLSLayer(tls_context(self._tls), host) if origin.scheme == "https" else None
        factory = partial(AsyncioLink, self._loop, origin, layer)
        if self._unix_socket is not None:
            _, link = await self._loop.create_unix_connection(factory, self._unix_socket)
        else:
            sock = await self._dial(origin)
            try:
                _, link = await self._loop.create_connection(factory, sock=sock)
            except BaseException:
                sock.close()
                raise
        try:
            await link.handshake()
        except BaseException:
            link.abort()
            raise
        return link

    async def _dial(self, origin: Origin) -> socket.socket:
        """A connected socket, before any TLS."""
        host = origin.host.strip("[]")
        found = await self._loop.getaddrinfo(host, origin.port, type=socket.SOCK_STREAM)
        return await self._connect_first(interleaved(found))

    async def _connect_first(self, addresses: list[Address]) -> socket.socket:
        """Happy eyeballs (RFC 8305, 5), which not every loop has: an attempt that is slow gets company."""
        failure: BaseException | None = None
        attempts: set[asyncio.Task[socket.socket]] = set()
        try:
            while addresses or attempts:
                if addresses:
                    attempts.add(self._loop.create_task(self._connect_one(*addresses.pop(0))))
                delay = _HAPPY_EYEBALLS_DELAY if addresses else None
                done, _ = await asyncio.wait(attempts, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
                for attempt in done:
                    attempts.discard(attempt)
                    failure = attempt.exception()
                    if failure is None:
                        return attempt.result()
            raise failure or OSError("the name has no address")
        finally:
            for attempt in attempts:
                attempt.cancel()
                attempt.add_done_callback(_close_late)

    async def _connect_one(self, family: int, address: Any) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await self._loop.sock_connect(sock, address)
            tune(sock)
        except BaseException:
            sock.close()
            raise
        return sock

    async def _abandon(self, opening: asyncio.Task[AsyncioLink]) -> None:
        """Cancels the making of a connection, and closes the one that was made all the same."""
        opening.cancel()
        try:
            await _finish(opening)
        finally:
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
            try:
                await _finish(work)
            finally:
                if not work.cancelled() and work.exception() is None:
                    command.undo(work.result())
            raise

    async def _await(self, command: Await[Any]) -> Any:
        return await command.function()

    async def _spawn(self, command: Spawn) -> None:
        self.spawn(partial(self.drive, command.flow), command.done)

    def spawn(self, run: Callable[[], Awaitable[None]], done: Callable[[], None]) -> None:
        """Has `run` called and awaited in a task of its own, and `done` called when that is over."""
        task = self._loop.create_task(_work(run))
        self._tasks.add(task)

        def end(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            done()

        task.add_done_callback(end)


async def _work(run: Callable[[], Awaitable[None]]) -> None:
    await run()


def _close_late(attempt: asyncio.Task[socket.socket]) -> None:
    """Closes what an attempt brought after another had won."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _fail(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())


async def _finish(future: asyncio.Future[Any]) -> None:
    """Waits until it is done, through cancellations, which are raised after that."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


class AsyncioClient(NativeFace):
    """A client of one namespace, for asyncio (and uvloop).

    Its connections belong to the loop that it is used on and end with it; nothing needs closing.

    Args:
        config, namespace, auth, credentials, access_token_for, listener, tls, limits, unix_socket, transport,
            proxy: as for ``BlockingClient``.

    >>> from agentrun_proto import Config
    >>> from agentrun_transports.emulator import Emulator
    >>> async def main():
    ...     with Emulator() as emulator:
    ...         async with AsyncioClient(Config.from_env(emulator.environment)) as client:
    ...             return await client.post("resources", {"name": "first"})
    >>> asyncio.run(main())["data"]["name"]
    'first'
    """

    def _loop(self) -> tuple[object, type[LoopNetwork]]:
        return asyncio.get_running_loop(), AsyncioNetwork
