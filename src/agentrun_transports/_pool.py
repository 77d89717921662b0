"""Which connection serves the next request. Pure state, no I/O; every step is O(1) in calls and connections.

The rules:

- A connection serves one request at a time. Never more than `per_origin` connections to an origin, never more
  than `total` in all; a connection that is being made counts as open.
- Waiting is fair: of all callers whose origin may have a connection, the one that has waited longest is next.
- The connection that was used last is used next, so that those which are not needed grow old and are closed.
- A place is the right to have one connection. Whoever is given one gives it back exactly once: with the
  connection, for the next caller (`checkin`), or without (`forfeit`).

One lock guards the state. It is held for the length of a method, never while anything waits.
"""

from __future__ import annotations

import heapq
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Generic, Protocol, TypeVar

from agentrun_proto import Origin

from ._tickets import Ticket


class Pooled(Protocol):
    """What the pool knows of a connection."""

    idle_since: float

    @property
    def origin(self) -> Origin:
        """Whom it leads to."""
        ...

    def abort(self) -> None:
        """Closes it at once; never blocks, never fails."""
        ...


Connection = TypeVar("Connection", bound=Pooled)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many connections a client may have, and how long an idle one is kept.

    Args:
        total: connections in all.
        per_origin: connections to one origin.
        idle: seconds after which an unused connection is closed. Common servers close theirs after 60 to 75.

    Raises:
        ValueError: a number below 1, or an idle time below 0.
    """

    total: int = 100
    per_origin: int = 100
    idle: float = 30.0

    def __post_init__(self) -> None:
        if self.total < 1 or self.per_origin < 1:
            raise ValueError("limits: a client needs at least one connection")
        if not self.idle >= 0:
            raise ValueError("limits: idle is a number of seconds, 0 or more")


class PoolTicket(Ticket, Generic[Connection]):
    """A caller's turn. Once `ready`, it holds a place, and a connection if one was handed over."""

    __slots__ = ("connection", "lane", "number")

    def __init__(self, lane: _Lane[Connection], number: int) -> None:
        super().__init__()
        self.lane: _Lane[Connection] = lane
        self.number: int = number
        self.connection: Connection | None = None

    def hand_over(self, connection: Connection | None) -> None:
        """The wait is over."""
        self.connection = connection
        self.serve()


class _Lane(Generic[Connection]):
    """The connections to one origin, and those who wait for one."""

    __slots__ = ("idle", "open", "origin", "waiting")

    def __init__(self, origin: Origin) -> None:
        self.origin: Origin = origin
        self.open: int = 0
        self.idle: deque[Connection] = deque()
        self.waiting: OrderedDict[int, PoolTicket[Connection]] = OrderedDict()

    def head(self) -> int | None:
        """The number of the ticket that is next here."""
        return next(iter(self.waiting), None)


class Pool(Generic[Connection]):
    """The connections of one client on one event loop, or of one client's threads."""

    def __init__(self, limits: Limits, now: Callable[[], float]) -> None:
        self._limits = limits
        self._now = now
        self._next_number = count().__next__
        self._lock = threading.Lock()
        self._open = 0
        self._closed = False
        self._expiry = 0.0  # nothing that is idle is too old before that
        self._lanes: dict[Origin, _Lane[Connection]] = {}
        self._last: _Lane[Connection] | None = None  # found last: a client has one origin, as a rule
        # All idle connections, the one that has been idle longest first.
        self._idle: OrderedDict[Connection, None] = OrderedDict()
        # Lanes that have somebody waiting and are below their limit, by the number of their next ticket.
        # Entries go stale and are dropped when met.
        self._queue: list[tuple[int, Origin]] = []

    @property
    def open(self) -> int:
        """How many connections are open or being made."""
        return self._open

    @property
    def idle(self) -> list[Connection]:
        """The idle connections, the one that has been idle longest first."""
        with self._lock:
            return list(self._idle)

    def idle_unlocked(self) -> list[Connection]:
        """The same in a forked child, where whoever held the lock does not exist."""
        return list(self._idle)

    @property
    def waiting(self) -> int:
        """How many callers wait."""
        with self._lock:
            return sum(len(lane.waiting) for lane in self._lanes.values())

    def checkout(self, origin: Origin) -> Connection | PoolTicket[Connection]:
        """An idle connection, or a ticket: ready at once if a connection may be made, else to wait with."""
        with self._lock:
            self._closed = False
            if self._idle and self._now() > self._expiry:
                self._expire()
            lane = self._last
            if lane is None or lane.origin is not origin:
                lane = self._lane_of(origin)
            if lane.idle:
                connection = lane.idle.pop()
                del self._idle[connection]
                return connection
            ticket = PoolTicket(lane, self._next_number())
            if not lane.waiting and lane.open < self._limits.per_origin and self._make_room():
                self._occupy(lane)
                ticket.hand_over(None)
            else:
                lane.waiting[ticket.number] = ticket
                self._enqueue(lane)
            return ticket

    def checkin(self, connection: Connection) -> None:
        """Gives back a place with its connection, which is fit for another request."""
        with self._lock:
            lane = self._last
            if lane is None or lane.origin is not connection.origin:
                lane = self._lane_of(connection.origin)
            if self._queue or lane.waiting or self._closed:
                self._hand_over(lane, connection)
            else:
                self._keep(lane, connection)

    def forfeit(self, origin: Origin) -> None:
        """Gives back a place whose connection is closed, or was never made."""
        with self._lock:
            self._vacate(self._lane_of(origin))
            self._serve_next()

    def cancel(self, ticket: PoolTicket[Connection]) -> None:
        """Gives up a ticket: the place in the queue, or what was handed over in the meantime."""
        with self._lock:
            lane = ticket.lane
            if not ticket.ready:
                was_next = lane.head() == ticket.number
                lane.waiting.pop(ticket.number, None)
                if was_next:
                    self._enqueue(lane)
                self._forget_if_empty(lane)
            elif ticket.connection is not None:
                self._hand_over(lane, ticket.connection)
            else:
                self._vacate(lane)
                self._serve_next()

    def close(self) -> None:
        """Closes what is idle now, and what is given back until the next `checkout`."""
        with self._lock:
            self._closed = True
            while self._idle:
                self._evict_oldest()

    def _lane_of(self, origin: Origin) -> _Lane[Connection]:
        lane = self._lanes.get(origin)
        if lane is None:
            lane = self._lanes[origin] = _Lane(origin)
        self._last = lane
        return lane

    def _occupy(self, lane: _Lane[Connection]) -> None:
        lane.open += 1
        self._open += 1

    def _vacate(self, lane: _Lane[Connection]) -> None:
        lane.open -= 1
        self._open -= 1
        self._enqueue(lane)
        self._forget_if_empty(lane)

    def _forget_if_empty(self, lane: _Lane[Connection]) -> None:
        if not lane.open and not lane.waiting:
            del self._lanes[lane.origin]
            self._last = None

    def _enqueue(self, lane: _Lane[Connection]) -> None:
        head = lane.head()
        if head is not None and lane.open < self._limits.per_origin:
            heapq.heappush(self._queue, (head, lane.origin))
            if len(self._queue) > 2 * len(self._lanes) + 16:
                self._queue = sorted(set(filter(self._is_current, self._queue)))

    def _is_current(self, entry: tuple[int, Origin]) -> bool:
        lane = self._lanes.get(entry[1])
        return lane is not None and lane.head() == entry[0] and lane.open < self._limits.per_origin

    def _next_lane(self) -> _Lane[Connection] | None:
        """The lane, below its limit, whose next caller has waited longest."""
        while self._queue:
            if self._is_current(self._queue[0]):
                return self._lanes[self._queue[0][1]]
            heapq.heappop(self._queue)
        return None

    def _serve_next(self) -> None:
        """A place has become free: the next caller may make a connection."""
        lane = self._next_lane()
        if lane is not None:
            self._occupy(lane)
            self._take_ticket(lane).hand_over(None)

    def _take_ticket(self, lane: _Lane[Connection]) -> PoolTicket[Connection]:
        ticket = lane.waiting.popitem(last=False)[1]
        self._enqueue(lane)
        return ticket

    def _hand_over(self, lane: _Lane[Connection], connection: Connection) -> None:
        """A connection is free: for the next caller of its origin, unless another has waited longer."""
        other = self._next_lane()
        if lane.waiting and (other is None or next(iter(lane.waiting)) <= next(iter(other.waiting))):
            self._take_ticket(lane).hand_over(connection)
        elif other is not None or self._closed:
            connection.abort()
            self._vacate(lane)
            self._serve_next()
        else:
            self._keep(lane, connection)

    def _keep(self, lane: _Lane[Connection], connection: Connection) -> None:
        """Nobody waits for it: it is idle."""
        connection.idle_since = now = self._now()
        if not self._idle:
            self._expiry = now + self._limits.idle
        lane.idle.append(connection)
        self._idle[connection] = None

    def _make_room(self) -> bool:
        """Whether one more connection may be made, if need be in the place of the one idle longest."""
        if self._open < self._limits.total:
            return True
        if not self._idle:
            return False
        self._evict_oldest()
        return True

    def _expire(self) -> None:
        now = self._now()
        while self._idle:
            self._expiry = next(iter(self._idle)).idle_since + self._limits.idle
            if self._expiry >= now:
                return
            self._evict_oldest()

    def _evict_oldest(self) -> None:
        connection = self._idle.popitem(last=False)[0]
        lane = self._lane_of(connection.origin)
        lane.idle.popleft()
        self._vacate(lane)
        connection.abort()
