"""What happened, as values: told to whoever listens, while it happens.

Rules of this file: an event holds no credential, no query and no content; where nobody listens, none is made;
a listener is called in the thread or task of the call, so it does not wait for anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened in a call.

    Args:
        call: tells calls apart, whatever endpoint they are of; all events of one call have the same. What is
            sent for a credential is a call of its own.
    """

    call: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSent(Event):
    """A request goes out now.

    Args:
        attempt: 1 for the first of a call; each further one counts, those after a redirect too.
        method: such as ``GET``.
        url: without query and user info.
        carrier: fields that a listener adds here go out with this attempt, such as ``traceparent``.
    """

    attempt: int
    method: str
    url: str
    carrier: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadReceived(Event):
    """The head of an answer is here.

    Args:
        attempt: that of the request.
        status: the HTTP status code.
        request_id: the service's id of the request, where the head tells it.
    """

    attempt: int
    status: int
    request_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestEnded(Event):
    """An attempt is over; each `RequestSent` is followed by exactly one.

    Args:
        attempt: that of the request.
        error: None, or the name of the class of what went wrong; ``cancelled`` where the caller went away.
    """

    attempt: int
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryScheduled(Event):
    """The request goes out again, after a pause.

    Args:
        attempt: the one that failed.
        delay: seconds until the next.
        reason: why it failed.
    """

    attempt: int
    delay: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirected(Event):
    """The service pointed elsewhere, and the request goes there.

    Args:
        status: such as 307.
        url: where to, without query and user info.
        credential: whether the credential goes there too.
    """

    status: int
    url: str
    credential: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialsRefreshed(Event):
    """A new credential is in use.

    Args:
        expires_at: when it ends, in seconds since the epoch, where that is known.
    """

    expires_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialsRefreshFailed(Event):
    """No new credential could be had.

    Args:
        error: the name of the class of what went wrong.
    """

    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockAdjusted(Event):
    """The service's clock differs from ours; signatures follow the service's from now on.

    Args:
        offset: seconds by which the service's is ahead.
    """

    offset: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOpened(Event):
    """A connection was made for this call.

    Args:
        origin: whom it leads to.
    """

    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionReused(Event):
    """A connection that has served before serves this call.

    Args:
        origin: whom it leads to.
    """

    origin: str


Listener = Callable[[Event], None]
"""Is told what happens. What it raises ends the call."""


_next_call = count(1).__next__


class Observer:
    """One call's line to the listener. Many endpoints may share one: no two calls have the same number."""

    __slots__ = ("call", "tell")

    def __init__(self, listener: Listener) -> None:
        self.tell: Listener = listener
        self.call: int = _next_call()
