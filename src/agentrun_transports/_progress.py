"""How far a transfer is: told ten times a second at most, and at its end.

Rules of this file: where nobody asks, it costs a comparison; a callback is called in the thread or task of
the transfer.
"""

from __future__ import annotations

from agentrun_proto import Clock, Progress

_INTERVAL = 0.1  # seconds; more often, nobody sees it


class Meter:
    """Counts the bytes of one transfer.

    Args:
        progress: is told; None for nobody.
        done: bytes that are there already.
        total: how many it will be, if that is known.
        clock: what time it is.
    """

    __slots__ = ("_clock", "_next", "_progress", "_told", "_total", "done")

    def __init__(self, progress: Progress | None, done: int, total: int | None, clock: Clock) -> None:
        self._progress = progress
        self._total = total
        self._clock = clock
        self._next = 0.0
        self._told = -1
        self.done = done

    def add(self, count: int) -> None:
        """So many bytes more."""
        self.done += count
        if self._progress is not None:
            now = self._clock.monotonic()
            if now >= self._next:
                self._next = now + _INTERVAL
                self._tell(self._progress)

    def end(self) -> None:
        """That was all."""
        if self._progress is not None and self._told != self.done:
            self._tell(self._progress)

    def _tell(self, progress: Progress) -> None:
        self._told = self.done
        progress(self.done, self._total)
