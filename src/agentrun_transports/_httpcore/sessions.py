"""The sessions over httpcore: what `conduct` decides is performed here, blocking and asynchronously.

Rules of this file: nobody has to close anything; connections end with their loop, or with their session.
"""

from __future__ import annotations

import os
import ssl
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from functools import lru_cache, partial
from types import AsyncGeneratorType
from typing import Any, Protocol, TypeVar, cast

import httpcore
from agentrun_proto import AgentRunClientError, Clock, Command

from .._blocking_call import warn_in_a_loop
from .._drive import drive, drive_async
from .._flights import Flights
from .._network import Await, Operation, Run, Spawn, Wait
from .._pool import Limits
from .._proxies import Proxies, Proxy
from .._sessions import LoopNetwork
from .._streams import BlockingRun, LoopRun
from .._tls import TLS, tls_context
from .conduct import Ask, Conduct, Next
from .network import AsyncBackend, AsyncStream, Backend, abort_all, in_trio

Result = TypeVar("Result")
Answer = TypeVar("Answer")


class _Hidden(bytes):
    """A credential: httpcore logs what it is given, by its repr."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "***"


@lru_cache(maxsize=8)
def _own_context(tls: TLS) -> ssl.SSLContext:
    """A TLS context apart from the native transport's, since httpcore sets what is negotiated in it."""
    return tls_context.__wrapped__(tls)


def _settings(tls: TLS, limits: Limits, unix_socket: str | None, proxy: Proxy | None) -> dict[str, Any]:
    """What a pool is made with."""
    own = tls.context is None
    forward = None
    if proxy is not None:
        auth = (
            None if proxy.auth is None else (_Hidden(proxy.auth[0].encode()), _Hidden(proxy.auth[1].encode()))
        )
        context = tls_context(tls) if proxy.scheme == "https" else None
        forward = httpcore.Proxy(proxy.url, auth=auth, ssl_context=context)
    most = min(limits.total, limits.per_origin)
    return {
        "ssl_context": _own_context(tls) if own else tls.context,
        "proxy": forward,
        "max_connections": most,
        "max_keepalive_connections": most,
        "keepalive_expiry": limits.idle,
        "http2": own,
        "uds": unix_socket,
    }


class BlockingNetwork(Protocol):
    """What is not httpcore's to do for blocking calls."""

    @property
    def clock(self) -> Clock:
        """For deadlines and signatures."""
        ...

    def perform(self, command: Command[Any]) -> Any:
        """Performs one network command."""
        ...

    def spawn(self, run: Callable[[], None], done: Callable[[], None]) -> None:
        """Has `run` called beside the caller, and `done` when that is over."""
        ...


class HttpcoreBlockingSession:
    """As `BlockingSession`, over httpcore.

    Args:
        network: for what is not httpcore's to do.
        tls, limits, unix_socket: as for every session.
        proxies: which proxy serves which origin.
    """

    def __init__(
        self,
        network: BlockingNetwork,
        tls: TLS,
        limits: Limits | None,
        unix_socket: str | None,
        proxies: Proxies,
    ) -> None:
        self.network = network
        self._flights = Flights()
        self._settings = partial(_settings, tls, limits or Limits(), unix_socket)
        self._proxies = proxies
        self._warned = False
        self._pools: dict[Proxy | None, httpcore.ConnectionPool] = {}
        self._retired: list[httpcore.ConnectionPool] = []
        _sessions.add(self)
        self._finalizer = weakref.finalize(self, _close_all, self._pools, self._retired)

    @property
    def clock(self) -> Clock:
        """What time it is."""
        return self.network.clock

    def run(self, operation: Operation[Result]) -> Result:
        """Performs an operation's flow and returns its result."""
        self._warn()
        conduct = Conduct(self.clock, self._proxies, self._flights)
        performer = _Performer(self, conduct)
        try:
            return drive(conduct.conduct(operation(self.clock)), performer.perform)
        finally:
            if conduct.answering:
                performer.leave()

    def begin(self, operation: Operation[None]) -> BlockingRun:
        """Begins a flow that is run from one delivery to the next."""
        self._warn()
        conduct = Conduct(self.clock, self._proxies, self._flights)
        performer = _Performer(self, conduct)
        return BlockingRun(conduct.conduct(operation(self.clock)), performer.perform, performer.leave)

    def _warn(self) -> None:
        if not self._warned:
            self._warned = warn_in_a_loop()

    def pool(self, proxy: Proxy | None) -> httpcore.ConnectionPool:
        """The connections through a proxy, or through none."""
        pool = self._pools.get(proxy)
        if pool is None:
            backend = Backend(self.clock)
            made = httpcore.ConnectionPool(network_backend=backend, **self._settings(proxy))
            pool = self._pools.setdefault(proxy, made)
        return pool

    @property
    def open(self) -> int:
        """How many connections are open or being made."""
        return _count_open(self._pools.values())

    def close(self) -> None:
        """Closes the idle connections."""
        for pool in [*self._pools.values(), *self._retired]:
            for connection in pool.connections:
                if connection.is_idle():
                    connection.close()

    def retire(self, proxy: Proxy | None) -> None:
        """Has further calls use another pool: this one counts a connection that never came to be."""
        pool = self._pools.pop(proxy, None)
        if pool is not None:
            self._retired.append(pool)

    def forget(self) -> None:
        """In a forked child: lets go of what is the parent's, without asking for a lock."""
        _close_all(self._pools, self._retired)
        self._flights = Flights()
        self._pools.clear()
        self._retired.clear()


def _close_all(
    pools: dict[Proxy | None, httpcore.ConnectionPool], retired: list[httpcore.ConnectionPool]
) -> None:
    for pool in [*pools.values(), *retired]:
        for connection in pool.connections:
            connection.close()


def _count_open(pools: Any) -> int:
    return sum(not connection.is_closed() for pool in list(pools) for connection in pool.connections)


_sessions: weakref.WeakSet[HttpcoreBlockingSession] = weakref.WeakSet()


def _after_fork() -> None:
    for session in _sessions:
        session.forget()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)


class _Performer:
    """Performs the commands of one `Conduct`, blocking."""

    def __init__(self, session: HttpcoreBlockingSession, conduct: Conduct) -> None:
        self._session = session
        self._conduct = conduct
        self._response: httpcore.Response | None = None
        self._pieces: Iterator[bytes] = iter(())

    def perform(self, command: Command[Any]) -> Any:
        if isinstance(command, Spawn):
            flow = command.flow
            return self._session.network.spawn(lambda: self._session.run(lambda clock: flow), command.done)
        if isinstance(command, (Run, Await, Wait)):
            return self._session.network.perform(command)
        try:
            if isinstance(command, Ask):
                return self._ask(command)
            if isinstance(command, Next):
                return next(self._pieces, None)
            return self.leave()
        except AgentRunClientError:
            raise
        except Exception as error:  # whatever it is called, it is none of our caller's business
            raise self._conduct.translate(error) from error

    def _ask(self, command: Ask) -> httpcore.Response:
        request, call = command.build(iter(command.reader.advance, b"")), command.call
        try:
            self._response = self._session.pool(call.proxy).handle_request(request)
        except BaseException:
            if call.stuck:
                call.stream.close()
                self._session.retire(call.proxy)
            raise
        self._pieces = self._response.iter_stream()
        return self._response

    def leave(self) -> None:
        """Closes the response."""
        response, self._response = self._response, None
        if response is not None:
            response.close()


class HttpcoreSession:
    """The connections of one client on one loop, asyncio's or trio's, over httpcore."""

    def __init__(
        self, network: LoopNetwork, settings: Callable[[Proxy | None], dict[str, Any]], proxies: Proxies
    ) -> None:
        self.network = network
        self._settings = settings
        self._proxies = proxies
        self._flights = Flights()
        self._pools: dict[Proxy | None, httpcore.AsyncConnectionPool] = {}
        self._retired: list[httpcore.AsyncConnectionPool] = []
        self._streams: weakref.WeakSet[AsyncStream] = weakref.WeakSet()
        self._guard = guard = cast(
            "AsyncGeneratorType[None, None]", _until_the_loop_ends(self._pools, self._retired)
        )
        self._guarded = False
        end = partial(_end, guard, self._pools, self._retired, self._streams)
        weakref.finalize(self, network.close_from_anywhere, end).atexit = False

    @property
    def ended(self) -> bool:
        """Whether the loop is over."""
        return self.network.ended

    async def begin(self, operation: Operation[None]) -> LoopRun:
        """Begins a flow that is run from one delivery to the next."""
        await self._start_guard()
        clock = self.network.clock
        conduct = Conduct(clock, self._proxies, self._flights)
        performer = _AsyncPerformer(self, conduct)
        return LoopRun(conduct.conduct(operation(clock)), performer.perform, performer.leave)

    async def _start_guard(self) -> None:
        if not self._guarded:
            self._guarded = True
            await self._guard.__anext__()  # runs to its yield without giving way

    async def run(self, operation: Operation[Result]) -> Result:
        """Performs an operation's flow and returns its result."""
        await self._start_guard()
        clock = self.network.clock
        conduct = Conduct(clock, self._proxies, self._flights)
        performer = _AsyncPerformer(self, conduct)
        try:
            return await drive_async(conduct.conduct(operation(clock)), performer.perform)
        finally:
            if conduct.answering:
                await performer.leave()

    def pool(self, proxy: Proxy | None) -> httpcore.AsyncConnectionPool:
        """The connections through a proxy, or through none."""
        pool = self._pools.get(proxy)
        if pool is None:
            backend = AsyncBackend(self.network.clock, self._streams)
            pool = httpcore.AsyncConnectionPool(network_backend=backend, **self._settings(proxy))
            self._pools[proxy] = pool
        return pool

    @property
    def open(self) -> int:
        """How many connections are open or being made."""
        return _count_open(self._pools.values())

    async def aclose(self) -> None:
        """Closes the idle connections."""
        for pool in [*self._pools.values(), *self._retired]:
            for connection in pool.connections:
                if connection.is_idle():
                    await connection.aclose()

    def retire(self, proxy: Proxy | None) -> None:
        """Has further calls use another pool: this one counts a connection that never came to be."""
        pool = self._pools.pop(proxy, None)
        if pool is not None:
            self._retired.append(pool)


async def _until_the_loop_ends(
    pools: dict[Proxy | None, httpcore.AsyncConnectionPool], retired: list[httpcore.AsyncConnectionPool]
) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        # A loop that ends cancels its tasks once, and this may be one: the rest is closed all the same.
        failure: BaseException | None = None
        for pool in [*pools.values(), *retired]:
            for connection in pool.connections:
                try:
                    await connection.aclose()
                except GeneratorExit:
                    raise
                except BaseException as error:
                    failure = failure or error
        if failure is not None:  # pragma: no branch - it is closed, so what goes on is GeneratorExit
            raise failure


# What ends sessions: a loop keeps only weak references to its tasks and to its asynchronous generators, and
# a task that is cancelled before its first step leaves its generator to the end of the loop.
_ending: set[Any] = set()


def _end(
    guard: AsyncGeneratorType[None, None],
    pools: dict[Proxy | None, httpcore.AsyncConnectionPool],
    retired: list[httpcore.AsyncConnectionPool],
    streams: weakref.WeakSet[AsyncStream],
) -> None:
    """Closes, on its loop, what a session leaves that is gone before the loop."""
    if guard.ag_running:
        return  # the loop is ending too, and the guard is at it: the session was collected meanwhile
    if in_trio():
        # The run may be ending, and takes no further task then.
        abort_all(streams)
        pools.clear()
        retired.clear()
        try:
            guard.aclose().send(None)  # with nothing to close, it gives way nowhere
        except StopIteration:
            pass
        return
    import asyncio

    task = asyncio.get_running_loop().create_task(_finish(guard))
    _ending.update((task, guard))
    task.add_done_callback(_ending.discard)


async def _finish(guard: AsyncGeneratorType[None, None]) -> None:
    if not guard.ag_running:
        try:
            await guard.aclose()
        finally:
            _ending.discard(guard)


class _Content:
    """What a request carries, for httpcore to iterate over. No generator: loops warn of one left undone."""

    def __init__(self, ask: Ask, run: Callable[[Run[bytes]], Awaitable[bytes]]) -> None:
        self._reader = ask.reader
        self._in_memory = all(isinstance(segment, bytes) for segment in ask.request.body.segments)
        self._run = run

    def __aiter__(self) -> _Content:
        return self

    async def __anext__(self) -> bytes:
        reader = self._reader
        reader.sent()
        piece = reader.read() if self._in_memory else await self._run(Run(reader.read))
        if not piece:
            raise StopAsyncIteration
        return piece


class _AsyncPerformer:
    """Performs the commands of one `Conduct`, to be awaited."""

    def __init__(self, session: HttpcoreSession, conduct: Conduct) -> None:
        self._session = session
        self._conduct = conduct
        self._response: httpcore.Response | None = None
        self._pieces: AsyncIterator[bytes] | None = None

    async def perform(self, command: Command[Any]) -> Any:
        if isinstance(command, Spawn):
            flow = command.flow
            return self._session.network.spawn(lambda: self._session.run(lambda clock: flow), command.done)
        if isinstance(command, (Run, Await, Wait)):
            return await self._session.network.drive(iter(command))
        try:
            if isinstance(command, Ask):
                return await self._ask(command)
            if isinstance(command, Next):
                return await self._next()
            return await self.leave()
        except AgentRunClientError:
            raise
        except Exception as error:  # whatever it is called, it is none of our caller's business
            raise self._conduct.translate(error) from error

    def _run(self, command: Run[Answer]) -> Awaitable[Answer]:
        # The loop's own network knows how to wait for a thread through a cancellation.
        return self._session.network.drive(iter(command))

    async def _ask(self, command: Ask) -> httpcore.Response:
        request, call = command.build(_Content(command, self._run)), command.call
        try:
            self._response = await self._session.pool(call.proxy).handle_async_request(request)
        except BaseException:
            if call.stuck:
                self._session.retire(call.proxy)
                await call.stream.aclose()
            raise
        self._pieces = aiter(cast("AsyncIterator[bytes]", self._response.stream))
        return self._response

    async def _next(self) -> bytes | None:
        return None if self._pieces is None else await anext(self._pieces, None)

    async def leave(self) -> None:
        """Closes the response."""
        response, pieces = self._response, self._pieces
        self._response = self._pieces = None
        if response is not None:
            await response.aclose()
            facts = cast("dict[str, Any]", response.extensions)  # pyright: ignore[reportUnknownMemberType]
            if facts.get("http_version") != b"HTTP/2" and pieces is not None:
                # A generator that was not run to its end is complained about. This one ends after what had
                # arrived already: its connection is closed.
                try:
                    async for _ in pieces:
                        pass
                except (
                    httpcore.NetworkError,
                    httpcore.ProtocolError,
                    httpcore.TimeoutException,
                    RuntimeError,
                ):
                    pass


class HttpcoreSessions:
    """The sessions of one client: one for each loop that it is used on; as `LoopSessions`, over httpcore."""

    def __init__(
        self, tls: TLS | None, limits: Limits | None, unix_socket: str | None, proxies: Proxies
    ) -> None:
        self._tls = tls or TLS()
        self._unix_socket = unix_socket
        self._settings = partial(_settings, self._tls, limits or Limits(), unix_socket)
        self._proxies = proxies
        self._by_loop: dict[object, HttpcoreSession] = {}

    def get(self, loop: object, network: Callable[[TLS, str | None], LoopNetwork]) -> HttpcoreSession:
        """The session for the running loop, made on first need."""
        session = self._by_loop.get(loop)
        if session is None:
            for known, former in list(self._by_loop.items()):
                if former.ended:
                    self._by_loop.pop(known, None)
            made = HttpcoreSession(network(self._tls, self._unix_socket), self._settings, self._proxies)
            session = self._by_loop[loop] = made
        return session

    def close(self, loop: object) -> Awaitable[None] | None:
        """Closes the connections that belong to a loop, if there are any: once it is awaited."""
        session = self._by_loop.get(loop)
        return None if session is None else session.aclose()
