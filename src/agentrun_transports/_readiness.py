"""Whether a socket has something to read, asked without reading or waiting."""

from __future__ import annotations

import select
from collections.abc import Callable


def readiness(descriptor: int) -> Callable[[], bool]:
    """A function that says whether there is something to read, the end and errors included."""
    if not hasattr(select, "poll"):  # Windows, whose select has no limit on the numbers it takes
        return lambda: bool(select.select([descriptor], [], [], 0)[0])
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return lambda: bool(poller.poll(0))
