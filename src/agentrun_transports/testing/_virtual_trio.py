"""trio in a simulation: a clock that is the world's, and a network with the simulation's sockets.

trio's `MockClock` can jump ahead by itself as soon as nothing runs: before the world could have its say. So
the clock is the world's own, and a task that is woken whenever all others wait lets the world advance.

Rules of this file: what would run in a thread runs at once, so that nothing depends on how fast it is.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from importlib import import_module
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

import trio
import trio.abc
import trio.testing

from .._network import Run, Wait
from .._tls import TLS
from .._trio import TrioNetwork

if TYPE_CHECKING:
    import socket

    from agentrun_proto import Origin

    from ._world import Dialler, World

Result = TypeVar("Result")


class _Clock(trio.abc.Clock):
    """The world's time, which passes where the world advances, and nowhere else."""

    def __init__(self, world: World) -> None:
        self._world = world

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        return self._world.time

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return 0.0 if deadline <= self._world.time else inf


class SimulatedTrioNetwork(TrioNetwork):
    """trio's network, with sockets and time of a simulation."""

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

    async def _run(self, command: Run[Any]) -> Any:
        await trio.lowlevel.checkpoint()
        return command.function()


def run(main: Callable[[], Awaitable[Result]], world: World, seed: int) -> Result:
    """`trio.run` in a world."""
    failed: list[Exception] = []

    async def keep_the_world_going(scope: trio.CancelScope) -> None:
        while True:
            await trio.testing.wait_all_tasks_blocked()
            left = trio.lowlevel.current_statistics().seconds_to_next_deadline
            try:
                world.advance(world.time + left)
            except Exception as error:  # a standstill, or what the program has put into the service
                if failed:  # pragma: no cover - only behind a shield, which trio ends for nobody, and no test
                    raise  # it waits even so
                failed.append(error)
                scope.cancel()

    async def whole() -> Result:
        with trio.CancelScope() as scope:
            trio.lowlevel.spawn_system_task(keep_the_world_going, scope)
            return await main()
        raise failed[0]

    with _order_from(seed):
        return trio.run(whole, clock=_Clock(world))


@contextmanager
def _order_from(seed: int) -> Generator[None, None, None]:
    """Has trio draw the order in which tasks run from a seed.

    It has no public way for that; this is what it does for Hypothesis, and undone afterwards.
    """
    module: Any = import_module("trio._core._run")
    state, ordered = module._r, module._ALLOW_DETERMINISTIC_SCHEDULING
    module._r, module._ALLOW_DETERMINISTIC_SCHEDULING = random.Random(seed), True
    try:
        yield
    finally:
        module._r, module._ALLOW_DETERMINISTIC_SCHEDULING = state, ordered
