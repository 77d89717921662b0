"""asyncio in a simulation: an event loop whose time is virtual, and a network with the simulation's sockets.

Rules of this file: where the loop would wait, the world advances; what would run in a thread runs at once,
so that nothing depends on how fast it is.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

from .._asyncio import AsyncioNetwork
from .._network import Wait
from .._tls import TLS

if TYPE_CHECKING:
    import socket

    from agentrun_proto import Origin

    from ._world import Dialler, World

Result = TypeVar("Result")


class _Selector(selectors.DefaultSelector):
    """Never waits: what is ready now, or else what is once the world has advanced."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        self._world.advance(inf if timeout is None else self._world.time + timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop, in the time of a simulation."""

    def __init__(self, world: World) -> None:
        self._world = world
        super().__init__(_Selector(world))

    def time(self) -> float:
        """The virtual time, in seconds."""
        return self._world.time

    def run_in_executor(  # type: ignore[override]  # typeshed's TypeVarTuple, which 3.10 does not have
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Calls it at once; its outcome is there in the loop's next turn."""
        future = self.create_future()
        try:
            result = func(*args)
        except Exception as error:
            self.call_soon(_settle, future, future.set_exception, error)
        else:
            self.call_soon(_settle, future, future.set_result, result)
        return future


def _settle(future: asyncio.Future[Any], settle: Callable[[Any], None], outcome: Any) -> None:
    if not future.done():
        settle(outcome)


class SimulatedAsyncioNetwork(AsyncioNetwork):
    """asyncio's network, with sockets and time of a simulation."""

    def __init__(self, tls: TLS, world: World, dial: Dialler, random: Callable[[int], bytes]) -> None:
        super().__init__(tls, None)
        self.clock = world
        self.random = random
        self._begin_dialling = dial

    async def _dial(self, origin: Origin) -> socket.socket:
        dial = self._begin_dialling(origin)
        try:
            await self._wait(Wait(dial, inf))
            return dial.take()
        except BaseException:
            dial.cancel()
            raise


def run(main: Callable[[], Awaitable[Result]], world: World) -> Result:
    """`asyncio.run` in a world."""

    async def whole() -> Result:
        return await main()

    loop = VirtualLoop(world)
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(whole())
    finally:
        try:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()
