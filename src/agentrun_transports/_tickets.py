"""A ticket: what somebody holds who waits for a turn, whatever the turn is for.

Rules of this file: a ticket is served once, from whichever thread; whoever waits sets `notify` first and
looks at `ready` then, so that no turn is missed.
"""

from __future__ import annotations

from collections.abc import Callable


class Ticket:
    """A caller's turn."""

    __slots__ = ("notify", "ready")

    def __init__(self) -> None:
        self.ready: bool = False
        self.notify: Callable[[], None] | None = None
        """Called once the ticket is ready, from whichever thread made it so; set by whoever waits."""

    def serve(self) -> None:
        """The wait is over."""
        self.ready = True
        if self.notify is not None:
            self.notify()
