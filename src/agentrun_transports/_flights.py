"""Single flight: work that is done once for all who ask for it while it is under way.

Rules of this file: pure state under one lock, which is held for the length of a method; whoever joins first
has the work begun, and whoever ends it tells how, exactly once, whatever happens.
"""

from __future__ import annotations

import threading

from agentrun_proto import AgentRunClientError, Credential

from ._tickets import Ticket

Outcome = Credential | AgentRunClientError


class Passenger(Ticket):
    """One who waits for the work to end. Once `ready`, it has the outcome."""

    __slots__ = ("outcome",)

    def __init__(self) -> None:
        super().__init__()
        self.outcome: Outcome | None = None


class Flights:
    """The work that is under way."""

    __slots__ = ("_lock", "_under_way")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[object, list[Passenger]] = {}

    def join(self, key: object) -> tuple[Passenger, bool]:
        """A place on the flight of this key, and whether it is for the caller to begin it."""
        passenger = Passenger()
        with self._lock:
            passengers = self._under_way.get(key)
            if passengers is None:
                self._under_way[key] = [passenger]
                return passenger, True
            passengers.append(passenger)
            return passenger, False

    def land(self, key: object, outcome: Outcome) -> None:
        """The work is over: all who wait for it are told, and the next who asks begins anew."""
        with self._lock:
            passengers = self._under_way.pop(key, [])
        for passenger in passengers:
            passenger.outcome = outcome
            passenger.serve()
