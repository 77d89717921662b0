"""A clock that stands still until it is turned.

Rules of this file: nothing here asks the machine for the time.
"""

from __future__ import annotations


class TurnedClock:
    """Time for tests: wall time and monotonic time, both where they were put.

    Args:
        wall: seconds since the epoch.
        monotonic: seconds.

    >>> clock = TurnedClock()
    >>> clock.turn(2.5)
    >>> clock.monotonic()
    2.5
    """

    __slots__ = ("_monotonic", "_wall")

    def __init__(self, wall: float = 1772798400.0, monotonic: float = 0.0) -> None:
        self._wall = wall
        self._monotonic = monotonic

    def now(self) -> float:
        """Wall time, in seconds since the epoch."""
        return self._wall

    def monotonic(self) -> float:
        """Monotonic time, in seconds."""
        return self._monotonic

    def turn(self, seconds: float) -> None:
        """Lets both go on by this many seconds."""
        self._wall += seconds
        self._monotonic += seconds
