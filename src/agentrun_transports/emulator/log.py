"""What arrived, for tests to look at."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedRequest:
    """A request that arrived, for tests to look at.

    ``connection`` is the number of the connection it came on, from 1; ``body`` its first 64 KiB, and
    ``body_length`` how long it was. ``headers`` do not show in the ``repr``: they hold credentials.
    """

    connection: int
    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    body_length: int

    def header(self, name: str) -> str | None:
        """Return the first value of the field ``name`` (any case), or None."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


class RequestLog:
    """How many requests arrived whole, and the last of them. Threads may share it."""

    def __init__(self, keep: int) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._last: deque[ReceivedRequest] = deque(maxlen=keep)

    def add(self, request: ReceivedRequest) -> None:
        """Count a request."""
        with self._lock:
            self._count += 1
            self._last.append(request)

    @property
    def count(self) -> int:
        """How many arrived."""
        return self._count

    @property
    def last(self) -> list[ReceivedRequest]:
        """The last requests, oldest first."""
        with self._lock:
            return list(self._last)
