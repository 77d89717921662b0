"""trio: a network on trio's own sockets and TLS, and the driver of about fifteen lines.

Rules of this file: a deadline is a bare `CancelScope`, and for the wait that every call has, one for all of
them; closing is a plain call on the socket.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from math import inf
from typing import Any, TypeVar, cast

import trio
from outcome import Error

from agentrun_proto import Clock, Command, Origin, TLSError

from ._drive import drive_async
from ._faces import NativeFace
from ._network import Await, Connect, Read, Run, SendFile, Spawn, Steps, Wait, Write
from ._readiness import Readiness
from ._sessions import LoopNetwork
from ._tickets import Ticket
from ._tls import TLS, TLSLayer, tls_context
from ._wire import BUFFER_SIZE, Wire

Result = TypeVar("Result")
Answer = TypeVar("Answer")


class TrioClock:
    """Wall time of the machine, and trio's own monotonic time, which a test may turn."""

    now = staticmethod(time.time)
    monotonic = staticmethod(trio.current_time)


class TrioLink:
    """A connection: a socket, and TLS over it where there is one.

    trio's `SSLStream` keeps what it has deciphered to itself, so that bytes after an answer could not be seen
    before the connection is used again: hence a layer of our own, over the standard library's TLS.
    """

    __slots__ = ("_cipher", "_layer", "_plain", "_ready", "_socket", "idle_since", "origin", "used", "wire")

    def __init__(self, sock: socket.socket, origin: Origin, layer: TLSLayer | None) -> None:
        self.origin = origin
        self.wire = Wire()
        self.used = False
        self.idle_since = 0.0
        self._plain = sock
        self._socket = trio.socket.from_stdlib_socket(sock)
        self._layer = layer
        self._cipher = b""  # enciphered, and not sent yet
        self._ready = Readiness(sock.fileno())

    def abort(self) -> None:
        """Closes it at once."""
        self._socket.close()

    async def handshake(self) -> None:
        """The TLS handshake. Raises ssl.SSLError."""
        layer = self._layer
        if layer is None:
            return
        done = False
        while not done:
            try:
                done = layer.handshake()
            finally:  # a refusal is sent too
                await self._flush(layer, watch=False)
            if not done:
                layer.receive(await self._socket.recv(BUFFER_SIZE))

    def expire(self) -> None:
        """Ends the wait for something to read: it has lasted too long."""
        with suppress(OSError):  # it is being closed at this moment
            trio.lowlevel.notify_closing(self._plain.fileno())

    @property
    def awaits_answer(self) -> bool:
        """Whether the next bytes are an answer's first: they are waited for, and come in the plain."""
        return self._layer is None and not self.wire.started

    def receive(self) -> int:
        """Receives into the wire what is there. BlockingIOError if nothing is."""
        count = self._plain.recv_into(self.wire.get_buffer())
        self.wire.received(count)
        return count

    def send(self, data: bytes | memoryview) -> int | None:
        """Sends some of it, if that takes no waiting."""
        if self._layer is not None:
            return None
        try:
            return self._plain.send(data)
        except BlockingIOError:
            return None

    async def read(self) -> int:
        """Receives into the wire."""
        room = self.wire.get_buffer()
        if self._layer is None:
            count = await self._socket.recv_into(room)
        else:
            while (deciphered := self._layer.read_into(room)) is None:
                await self._flush_while_reading(self._layer)
                self._layer.receive(await self._socket.recv(BUFFER_SIZE))
            count = deciphered
        self.wire.received(count)
        return count

    async def write(self, data: bytes | memoryview, *, watch: bool) -> int:
        """Sends some of it; with `watch`, whatever arrives ends the wait for room."""
        layer = self._layer
        if layer is not None:
            if not await self._flush(layer, watch=watch):
                return 0
            count = layer.write(data)
            await self._flush(layer, watch=watch)
            return count
        if watch and not await self.until_writable():
            return 0
        return await self._socket.send(data)

    @property
    def sends_files(self) -> bool:
        """Whether the system can send files by itself here."""
        return self._layer is None and hasattr(os, "sendfile")

    def fileno(self) -> int:
        """The descriptor."""
        return self._plain.fileno()

    async def _flush(self, layer: TLSLayer, *, watch: bool) -> bool:
        """Sends what is enciphered; whether all of it is gone."""
        self._cipher += layer.to_send()
        while self._cipher:
            if watch and not await self.until_writable():
                return False
            self._cipher = self._cipher[await self._socket.send(self._cipher) :]
        return True

    async def _flush_while_reading(self, layer: TLSLayer) -> None:
        """Sends what a write has left over: what arrived then may have been no answer yet."""
        try:
            await self._flush(layer, watch=True)
        except OSError:
            self._cipher = b""  # the peer takes no more; what it has said is still to be read

    async def until_writable(self) -> bool:
        """Waits for room to write, or for something to read; whether there is room."""
        if self._ready.writable():
            return True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._wait_and_cancel, trio.lowlevel.wait_readable, nursery.cancel_scope)
            nursery.start_soon(self._wait_and_cancel, trio.lowlevel.wait_writable, nursery.cancel_scope)
        return self._ready.writable()

    async def _wait_and_cancel(self, wait: Callable[[int], Awaitable[None]], other: trio.CancelScope) -> None:
        await wait(self._plain.fileno())
        other.cancel()

    def take_in(self) -> int | None:
        """Takes into the wire what has arrived, without waiting; 0 at the end, None if nothing has."""
        readable = self._ready.readable()
        try:
            if self._layer is None:
                return self.receive() if readable else None
            if readable:
                self._layer.receive(self._plain.recv(BUFFER_SIZE))
            count = self._layer.read_into(self.wire.get_buffer())
        except OSError:
            return 0
        if count is not None:
            self.wire.received(count)
        return count


class _Turn:
    """A task that waits for its ticket."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = trio.lowlevel.current_task()

    def serve(self) -> None:
        """The wait is over; harmless once it is."""
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    def expire(self) -> None:
        """The time is up."""
        if self._task is not None:
            trio.lowlevel.reschedule(self._task, Error(TimeoutError()))
            self._task = None

    def abort(self, _: object) -> trio.lowlevel.Abort:
        """The task was cancelled."""
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


class _Watch:
    """Ends waits that last too long, with one timer for all of them.

    A `CancelScope` of its own costs a wait more than all else that trio does for it.
    """

    __slots__ = ("_rings", "_scope", "_waiting")

    def __init__(self) -> None:
        self._waiting: dict[TrioLink | _Turn, float] = {}
        self._rings = inf  # when the timer does; it is not moved on, but looks then what is due
        self._scope: trio.CancelScope | None = None

    async def until_readable(self, link: TrioLink, deadline: float) -> None:
        """Waits until there is something to read, the end and errors included. Raises TimeoutError."""
        self._begin(link, deadline)
        try:
            await trio.lowlevel.wait_readable(link.fileno())
        except trio.ClosedResourceError:
            if link in self._waiting:
                raise
            raise TimeoutError from None
        finally:
            self._waiting.pop(link, None)

    async def until_ready(self, ticket: Ticket, deadline: float) -> None:
        """Waits until a ticket is. Raises TimeoutError."""
        turn = _Turn()
        ticket.notify = turn.serve
        if ticket.ready:
            return
        self._begin(turn, deadline)
        try:
            await trio.lowlevel.wait_task_rescheduled(turn.abort)
        finally:
            self._waiting.pop(turn, None)

    def _begin(self, waiting: TrioLink | _Turn, deadline: float) -> None:
        self._waiting[waiting] = deadline
        if deadline < self._rings:
            self._rings = deadline
            if self._scope is None:
                self._scope = trio.CancelScope(deadline=deadline)
                trio.lowlevel.spawn_system_task(self._keep)
            else:
                self._scope.deadline = deadline

    async def _keep(self) -> None:
        while self._scope is not None:
            with self._scope:
                await trio.sleep_forever()
            now = trio.current_time()
            for waiting in [waiting for waiting, deadline in self._waiting.items() if deadline <= now]:
                del self._waiting[waiting]
                waiting.expire()
            self._rings = min(self._waiting.values(), default=inf)
            self._scope = None if self._rings == inf else trio.CancelScope(deadline=self._rings)


class TrioNetwork:
    """Connects, reads, writes and waits in the running trio."""

    clock: Clock = TrioClock()

    def __init__(self, tls: TLS, unix_socket: str | None) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self.random: Callable[[int], bytes] = os.urandom
        self._tls = tls
        self._unix_socket = unix_socket
        self._watch = _Watch()
        self._perform: dict[type, Callable[[Any], Awaitable[Any] | int]] = {
            Connect: partial(self._within_deadline, self._connect),
            Write: self._write,
            SendFile: partial(self._within_deadline, self._send_file),
            Read: self._read,
            Wait: self._wait,
            Run: partial(self._within_deadline, self._run),
            Await: partial(self._within_deadline, self._await),
            Spawn: self._spawn,
        }

    def drive(self, steps: Steps[Result]) -> Coroutine[Any, Any, Result]:
        """Performs network commands until their flow returns."""
        return drive_async(steps, self.perform)

    def perform(self, command: Command[Any]) -> Awaitable[Any] | int:
        """Performs one network command, within its deadline."""
        return self._perform[type(command)](command)

    async def _within_deadline(self, perform: Callable[[Any], Awaitable[Answer]], command: Any) -> Answer:
        try:
            with trio.CancelScope(deadline=command.deadline):
                return await perform(command)
        except trio.BrokenResourceError as error:
            raise _as_os_error(error) from error
        raise TimeoutError  # the scope has swallowed its own cancellation, and nothing else

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return not self._soon(_nothing)

    def close_from_anywhere(self, close: Callable[[], None]) -> None:
        """Closes connections from whichever thread drops the last reference to their client."""
        self._soon(close)

    def _soon(self, function: Callable[[], None]) -> bool:
        try:
            self._token.run_sync_soon(function)
        except trio.RunFinishedError:
            return False
        return True

    def _write(self, command: Write) -> Awaitable[int] | int:
        link: Any = command.link
        sent: int | None = None
        # Whoever is cancelled already sends nothing: to send at once gives way nowhere, and would not notice.
        if not command.watch and trio.current_effective_deadline() != -inf:
            sent = link.send(command.data)
        return self._within_deadline(self._write_later, command) if sent is None else sent

    def _write_later(self, command: Write) -> Awaitable[int]:
        return cast("TrioLink", command.link).write(command.data, watch=command.watch)

    async def _send_file(self, command: SendFile) -> int | None:
        link = cast("TrioLink", command.link)
        send = partial(os.sendfile, link.fileno(), command.descriptor, command.offset, command.count)
        while await link.until_writable():
            try:
                sent: int = await self._run(Run(send))  # it may wait for a disk
                return sent
            except BlockingIOError:
                pass  # there was less room than it takes
        return None

    def _read(self, command: Read) -> Awaitable[int]:
        link: Any = command.link
        if link.awaits_answer:
            return self._receive(link, command.deadline)
        return self._within_deadline(self._read_on, command)

    async def _receive(self, link: TrioLink, deadline: float) -> int:
        while True:
            await self._watch.until_readable(link, deadline)
            try:
                return link.receive()
            except BlockingIOError:
                pass  # it was not readable after all

    def _read_on(self, command: Read) -> Awaitable[int]:
        return cast("TrioLink", command.link).read()

    async def _connect(self, command: Connect) -> TrioLink:
        origin = command.origin
        context = tls_context(self._tls) if origin.scheme == "https" else None
        sock = await self._dial(origin)
        layer = None if context is None else TLSLayer(context, origin.host.strip("[]"))
        link = TrioLink(sock, origin, layer)
        try:
            await link.handshake()
        except ssl.SSLError as error:
            link.abort()
            raise TLSError(f"the TLS handshake with {origin} failed: {error}") from error
        except BaseException:
            link.abort()
            raise
        return link

    async def _dial(self, origin: Origin) -> socket.socket:
        """A connected socket, before any TLS."""
        if self._unix_socket is not None:
            stream = await trio.open_unix_socket(self._unix_socket)
        else:
            stream = await trio.open_tcp_stream(origin.host.strip("[]"), origin.port)
        return socket.socket(fileno=stream.socket.detach())  # trio's own lets nobody send without waiting

    def _wait(self, command: Wait) -> Awaitable[None]:
        return self._watch.until_ready(command.ticket, command.deadline)

    async def _run(self, command: Run[Any]) -> Any:
        return await trio.to_thread.run_sync(command.function)

    def _await(self, command: Await[Any]) -> Awaitable[Any]:
        return command.function()

    async def _spawn(self, command: Spawn) -> None:
        self.spawn(partial(self.drive, command.flow), command.done)

    def spawn(self, run: Callable[[], Awaitable[None]], done: Callable[[], None]) -> None:
        """Has `run` called and awaited in a task of its own, and `done` called when that is over."""

        async def work() -> None:
            try:
                await run()
            except Exception as error:  # a bug: it is reported as that of a thread is, and ends no run
                sys.excepthook(type(error), error, error.__traceback__)
            finally:
                done()

        trio.lowlevel.spawn_system_task(work, context=copy_context())


def _nothing() -> None:
    pass


def _as_os_error(error: trio.BrokenResourceError) -> OSError:
    cause = error.__cause__
    return cause if isinstance(cause, OSError) else ConnectionResetError(str(error) or "the connection broke")


class TrioClient(NativeFace):
    """A client of one namespace, for trio.

    Its connections belong to the `trio.run` that it is used in and end with it; nothing needs closing.

    Args:
        config, namespace, auth, credentials, access_token_for, listener, tls, limits, unix_socket, transport,
            proxy: as for ``BlockingClient``.

    >>> from agentrun_proto import Config
    >>> from agentrun_transports.emulator import Emulator
    >>> async def main():
    ...     with Emulator() as emulator:
    ...         async with TrioClient(Config.from_env(emulator.environment)) as client:
    ...             return await client.post("resources", {"name": "first"})
    >>> trio.run(main)["data"]["name"]
    'first'
    """

    def _loop(self) -> tuple[object, type[LoopNetwork]]:
        return trio.lowlevel.current_trio_token(), TrioNetwork
