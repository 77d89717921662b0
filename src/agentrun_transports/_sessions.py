"""Connections that belong to a running loop, for asyncio and trio alike: one session a loop, ended with it.

Rules of this file: nobody has to close anything. A loop that ends closes its asynchronous generators; one of
ours waits in each loop for that moment and closes the connections in it.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from functools import partial
from types import AsyncGeneratorType
from typing import Any, Protocol, TypeVar, cast

from agentrun_proto import Clock, Command

from ._exchange import Exchange
from ._flights import Flights
from ._network import Link, Operation, Steps
from ._pool import Limits, Pool
from ._streams import LoopRun
from ._tls import TLS

Result = TypeVar("Result")


class LoopNetwork(Protocol):
    """The network of one running loop."""

    @property
    def clock(self) -> Clock:
        """The loop's time."""
        ...

    @property
    def random(self) -> Callable[[int], bytes]:
        """Gives so many random bytes."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the loop is over."""
        ...

    def perform(self, command: Command[Any]) -> Awaitable[Any] | int:
        """Performs one network command."""
        ...

    def drive(self, steps: Steps[Result]) -> Coroutine[Any, Any, Result]:
        """Performs network commands until their flow returns."""
        ...

    def spawn(self, run: Callable[[], Awaitable[None]], done: Callable[[], None]) -> None:
        """Has `run` called and awaited beside the caller, and `done` called when that is over."""
        ...

    def close_from_anywhere(self, close: Callable[[], None]) -> None:
        """Has `close` called on the loop, if that still runs; from any thread."""
        ...


class LoopSession:
    """The connections of one client on one loop."""

    __slots__ = ("__weakref__", "_flights", "_guard", "_guarded", "_network", "pool")

    def __init__(self, network: LoopNetwork, limits: Limits) -> None:
        self.pool: Pool[Link] = Pool(limits, network.clock.monotonic)
        self._flights = Flights()
        self._network = network
        self._guard = guard = cast("AsyncGeneratorType[None, None]", _until_the_loop_ends(self.pool))
        self._guarded = False
        weakref.finalize(self, network.close_from_anywhere, partial(_end, guard)).atexit = False

    @property
    def ended(self) -> bool:
        """Whether the loop is over."""
        return self._network.ended

    async def begin(self, operation: Operation[None]) -> LoopRun:
        """Begins a flow that is run from one delivery to the next."""
        await self._start_guard()
        network = self._network
        exchange = Exchange(self.pool, network.clock, self._flights, network.random)
        return LoopRun(exchange.conduct(operation(network.clock)), network.perform)

    async def _start_guard(self) -> None:
        if not self._guarded:
            self._guarded = True
            await self._guard.__anext__()  # runs to its yield without giving way

    def run(self, operation: Operation[Result]) -> Coroutine[Any, Any, Result]:
        """Performs an operation's flow and returns its result."""
        if not self._guarded:
            return self._run_guarded(operation)
        network = self._network
        exchange = Exchange(self.pool, network.clock, self._flights, network.random)
        return network.drive(exchange.conduct(operation(network.clock)))

    async def _run_guarded(self, operation: Operation[Result]) -> Result:
        await self._start_guard()
        return await self.run(operation)

    def close(self) -> None:
        """Closes the idle connections, and those in use once their calls are done."""
        self.pool.close()


async def _until_the_loop_ends(pool: Pool[Link]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        pool.close()


def _end(guard: AsyncGeneratorType[None, None]) -> None:
    """Ends a guard whose session is gone before its loop; it gives way nowhere, so one step is all."""
    if guard.ag_running:
        return  # the loop is ending too, and the guard is at it: the session was collected meanwhile
    try:
        guard.aclose().send(None)
    except StopIteration:
        pass


class LoopSessions:
    """The sessions of one client: one for each loop that it is used on."""

    __slots__ = ("_by_loop", "_limits", "_on_loop", "_tls", "_unix_socket")

    def __init__(
        self,
        tls: TLS | None,
        limits: Limits | None,
        unix_socket: str | None,
        on_loop: Callable[[TLS], LoopNetwork] | None = None,
    ) -> None:
        self._tls = tls or TLS()
        self._limits = limits or Limits()
        self._unix_socket = unix_socket
        self._on_loop = on_loop
        self._by_loop: dict[object, LoopSession] = {}

    def get(self, loop: object, network: Callable[[TLS, str | None], LoopNetwork]) -> LoopSession:
        """The session for the running loop, made on first need."""
        session = self._by_loop.get(loop)
        if session is None:
            for known, former in list(self._by_loop.items()):
                if former.ended:
                    self._by_loop.pop(known, None)
            if self._on_loop is None:
                made = network(self._tls, self._unix_socket)
            else:
                made = self._on_loop(self._tls)
            session = self._by_loop[loop] = LoopSession(made, self._limits)
        return session

    def close(self, loop: object) -> None:
        """Closes the connections that belong to a loop, if there are any."""
        session = self._by_loop.get(loop)
        if session is not None:
            session.close()
