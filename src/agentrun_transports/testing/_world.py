"""Virtual time, and a network in memory: what a simulation consists of beside the program.

The theory: the program runs until it can do nothing but wait. Then, and only then, the world is asked to
`advance`: it takes in what was sent, or does what is due next, or lets time pass. That is all an event loop
has to do here, and it is one call, so blocking code, asyncio and trio differ in nothing but who makes it.

Rules of this file: nothing sleeps, and no clock is read; what the program sees is sockets, one end of a
pair each, so that all code above them is the real one; of what is due at the same time, the first that was
planned comes first.
"""

from __future__ import annotations

import heapq
import selectors
import socket
from collections.abc import Callable
from itertools import count
from math import inf, nextafter
from typing import TYPE_CHECKING

from .._tickets import Ticket

if TYPE_CHECKING:
    from agentrun_proto import Origin

    from ._line import Line

EPOCH = 1772798400.0
"""Wall time at the beginning, in seconds since the epoch: 2026-03-06T12:00:00Z."""


class Standstill(RuntimeError):
    """Nothing can happen any more: all that runs waits, without a deadline, for what will not come."""


class Timer:
    """Something that is to happen, unless it is cancelled before."""

    __slots__ = ("action", "when")

    def __init__(self, when: float, action: Callable[[], None]) -> None:
        self.when: float = when
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """It will not happen; harmless if it has."""
        self.action = None


class World:
    """Time and the network.

    Attributes:
        time: virtual seconds since the beginning; the monotonic clock of all who run here.
    """

    def __init__(self) -> None:
        self.time: float = 0.0
        self._next = count().__next__
        self._plan: list[tuple[float, int, Timer]] = []
        self._selector = selectors.DefaultSelector()

    # A `Clock`, as the core knows one

    def monotonic(self) -> float:
        """The virtual time, in seconds."""
        return self.time

    def now(self) -> float:
        """The wall time, in seconds since the epoch."""
        return EPOCH + self.time

    # Time

    def at(self, when: float, action: Callable[[], None]) -> Timer:
        """Plans something for a virtual time; what has passed is now."""
        timer = Timer(max(when, self.time), action)
        heapq.heappush(self._plan, (timer.when, self._next(), timer))
        return timer

    def advance(self, until: float = inf) -> None:
        """Nobody can go on: lets the next thing happen, or, if there is none before, time pass to `until`.

        Raises:
            Standstill: there is nothing ahead, and no end to the wait either.
        """
        if self._take_in():
            return
        plan = self._plan
        while plan and plan[0][2].action is None:
            heapq.heappop(plan)
        if plan and plan[0][0] <= until:
            self.time = max(self.time, plan[0][0])
            while plan and plan[0][0] <= self.time:
                timer = heapq.heappop(plan)[2]
                if timer.action is not None:
                    action, timer.action = timer.action, None
                    action()
        elif until == inf:
            raise Standstill("all that runs waits, without a deadline, for what will not come")
        else:
            # The next number at least: a wait that is shorter than time can be told apart is over, too.
            self.time = max(until, nextafter(self.time, inf))

    # The network

    def watch(self, line: Line, sock: socket.socket, events: int) -> None:
        """Has a line told of what happens to its socket; events of 0: no more."""
        known = sock in self._selector.get_map()
        if known and not events:
            self._selector.unregister(sock)
        elif known:
            self._selector.modify(sock, events, line)
        elif events:
            self._selector.register(sock, events, line)

    def _take_in(self) -> bool:
        ready = self._selector.select(0)
        for key, events in sorted(ready, key=lambda each: each[0].data.number):
            key.data.stirred(events)
        return bool(ready)

    def close(self) -> None:
        """Lets go of what it holds of the machine."""
        self._selector.close()


class Dial(Ticket):
    """A connection that is being made; `take` it once it is ready."""

    __slots__ = ("_failure", "_sock", "_timer")

    def __init__(self) -> None:
        super().__init__()
        self._sock: socket.socket | None = None
        self._failure: OSError | None = None
        self._timer: Timer | None = None

    def plan(self, world: World, when: float, make: Callable[[], socket.socket | OSError]) -> None:
        """Has it made at a virtual time."""

        def finish() -> None:
            made = make()
            if isinstance(made, OSError):
                self._failure = made
            else:
                self._sock = made
            self.serve()

        self._timer = world.at(when, finish)

    def take(self) -> socket.socket:
        """The connected socket. Raises OSError."""
        if self._failure is not None:
            raise self._failure
        assert self._sock is not None
        sock, self._sock = self._sock, None
        return sock

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._sock is not None:
            self._sock.close()


Dialler = Callable[["Origin"], Dial]
"""Begins to make a connection to an origin."""
