"""Whether a socket can be read or written, asked without doing so."""

from __future__ import annotations

import select
from math import ceil, inf

_LONGEST = 1e6  # seconds; poll takes an int of milliseconds


class Readiness:
    """Asks after one socket, given by its descriptor."""

    __slots__ = ("_both", "_descriptor", "_input")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._input = self._both = None
        if hasattr(select, "poll"):  # not on Windows, whose select has no limit on the numbers it takes
            self._input = select.poll()
            self._input.register(descriptor, select.POLLIN)
            self._both = select.poll()
            self._both.register(descriptor, select.POLLIN | select.POLLOUT)

    def readable(self) -> bool:
        """Whether there is something to read, the end and errors included."""
        if self._input is not None:
            return bool(self._input.poll(0))
        return bool(select.select([self._descriptor], [], [], 0)[0])

    def writable(self) -> bool:
        """Whether there is room to write; an error counts, as the write tells which."""
        if self._both is not None:
            return any(event & ~select.POLLIN for _, event in self._both.poll(0))
        return bool(select.select([], [self._descriptor], [], 0)[1])

    def until_writable(self, seconds: float) -> bool:
        """Waits for room to write, or for something to read; whether there is room.

        Args:
            seconds: how long at most; `inf` for ever.

        Raises:
            TimeoutError: neither came in time.
        """
        left = min(seconds, _LONGEST)
        if left <= 0:
            raise TimeoutError
        if self._both is not None:
            events = self._both.poll(ceil(left * 1000))
            if not events and seconds != inf:
                raise TimeoutError
            # An error makes it writable: the write then tells which.
            return any(event & ~select.POLLIN for _, event in events)
        both = [self._descriptor]
        readable, writable, _ = select.select(both, both, [], left)
        if not readable and not writable and seconds != inf:
            raise TimeoutError
        return bool(writable)
