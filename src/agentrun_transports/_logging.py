"""What happens, as log records under ``agentrun``: silent until a program asks for them.

A program asks with ``logging.getLogger("agentrun").setLevel(logging.INFO)``, or ``DEBUG``, and a handler of
its own, here or above. At INFO it sees what is out of the ordinary: retries, redirects, refreshes of
credentials, and as warnings what should be looked at. At DEBUG it sees every request and connection.

Rules of this file: a record holds what an event holds, and that is no secret; what fields a listener has had
sent along is not told. Where nobody has asked for INFO, warnings included, no event is made: the cost is one
question for each call.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields

from agentrun_proto import (
    ClockAdjusted,
    CredentialsRefreshed,
    CredentialsRefreshFailed,
    Event,
    Listener,
    Redirected,
    RetryScheduled,
)

_logger = logging.getLogger("agentrun")
_logger.addHandler(logging.NullHandler())  # nothing on stderr where a program has set up no logging

# All others are DEBUG.
LEVELS: Mapping[type[Event], int] = {
    Redirected: logging.INFO,
    RetryScheduled: logging.INFO,
    CredentialsRefreshed: logging.INFO,
    CredentialsRefreshFailed: logging.WARNING,  # calls may go on with the old one, for a while
    ClockAdjusted: logging.WARNING,  # this machine's clock is wrong
}

_UNTOLD = frozenset({"carrier"})


def log_listener() -> Listener | None:
    """The listener that logs, if anybody wants to see it."""
    return log if _logger.isEnabledFor(logging.INFO) else None


def log(event: Event) -> None:
    """Writes one record; the event itself is its attribute ``event``."""
    level = LEVELS.get(type(event), logging.DEBUG)
    if _logger.isEnabledFor(level):
        names = [part.name for part in fields(event) if part.name not in _UNTOLD]
        facts = " ".join([f"{name}={getattr(event, name)!r}" for name in names])
        _logger.log(level, "%s %s", type(event).__name__, facts, extra={"event": event})
