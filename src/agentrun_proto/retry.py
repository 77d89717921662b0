"""Which failure may be tried again, when, and at whose expense.

Rules of this file: it decides and does nothing; what decides is data, in the tables below; a request is
repeated only where that cannot do twice what was asked for once.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from .config import Retry
from .errors import (
    AgentRunClientError,
    AuthenticationError,
    ConnectError,
    IncompleteError,
    PermissionDeniedError,
    ReadTimeout,
    TimeoutExceeded,
    TLSError,
    WriteTimeout,
)
from .messages import Request


class Outcome(Enum):
    """What a failure says about the request."""

    NOT_SENT = "not sent"
    """It never reached the service."""
    REJECTED = "rejected"
    """The service says that it did not act on it."""
    AMBIGUOUS = "ambiguous"
    """The service may have acted on it."""
    FINAL = "final"
    """Trying again would end the same, or is not for us to decide."""


# RFC 9110, 15: 408, 429 and 503 say that the request was not served; after 500, 502 and 504 nobody knows.
OUTCOME_BY_STATUS: Mapping[int, Outcome] = {
    408: Outcome.REJECTED,
    429: Outcome.REJECTED,
    503: Outcome.REJECTED,
    500: Outcome.AMBIGUOUS,
    502: Outcome.AMBIGUOUS,
    504: Outcome.AMBIGUOUS,
}

# The first that fits. A certificate that cannot be verified stays so; a wait for a free connection is bounded
# by the caller's own limits, and was as long as the caller wanted it to be.
_OUTCOME_BY_CLASS: tuple[tuple[type[AgentRunClientError], Outcome], ...] = (
    (TLSError, Outcome.FINAL),
    (ConnectError, Outcome.NOT_SENT),
    (IncompleteError, Outcome.AMBIGUOUS),
    (ReadTimeout, Outcome.AMBIGUOUS),
    (WriteTimeout, Outcome.AMBIGUOUS),
)

# What the service, and those that its access keys come from, say of a credential that was good once. After
# a bare 403 it is not asked for again: that most often means that the caller may not do this.
_STALE_CODES = ("InvalidSecurityToken", "ERR_TOKEN_EXPIRED")

QUOTA = 500
"""Tokens that an endpoint has for retries. This and the costs: botocore's standard retry mode."""
COST = 5
COST_AFTER_TIMEOUT = 10

LONGEST_PAUSE = 600.0
"""Seconds; a service that asks for more is not waited for."""

SKEW = 300.0
"""Seconds by which clocks may differ before a refused signature is put down to that (the service's window is
unchecked; 15 minutes either way are usual)."""


def outcome_of(error: AgentRunClientError) -> Outcome:
    """What a failure says about the request.

    >>> from .errors import ServiceUnavailableError, NotFoundError
    >>> outcome_of(ServiceUnavailableError("busy", status_code=503)), outcome_of(NotFoundError("gone"))
    (<Outcome.REJECTED: 'rejected'>, <Outcome.FINAL: 'final'>)
    """
    for kind, outcome in _OUTCOME_BY_CLASS:
        if isinstance(error, kind):
            return outcome
    return OUTCOME_BY_STATUS.get(error.status_code, Outcome.FINAL)


def may_repeat(outcome: Outcome, request: Request) -> bool:
    """Whether a request may go out again after this.

    Its content must be there to be sent again, and after an ambiguous outcome the request must be idempotent:
    by its method (RFC 9110, 9.2.2), by its Idempotency-Key, or because the caller says so.
    """
    if outcome is Outcome.FINAL or not request.body.replayable:
        return False
    return outcome is not Outcome.AMBIGUOUS or request.idempotent


def is_stale(error: AgentRunClientError) -> bool:
    """Whether a refusal says that the credential, which was good once, is so no more."""
    if isinstance(error, AuthenticationError):
        return True
    code = error.error_code or ""
    return isinstance(error, PermissionDeniedError) and (code.startswith(_STALE_CODES) or "Expired" in code)


def pause(retry: Retry, failures: int, chance: float, retry_after: float | None) -> float:
    """Seconds to wait before the next attempt: truncated exponential back-off with full jitter.

    Args:
        retry: whose `backoff` is doubled with each failure, up to its `max_backoff`.
        failures: how many attempts have failed, at least 1.
        chance: from 0 to 1, drawn for this pause.
        retry_after: what the service asked for, in seconds, which is the least then.

    >>> pause(Retry(backoff=1.0), failures=3, chance=0.5, retry_after=None)
    2.0
    """
    doublings = min(failures - 1, 1000)  # more would overflow a float
    ceiling = min(retry.max_backoff, retry.backoff * 2.0**doublings)
    return max(chance * ceiling, retry_after or 0.0)


def cost_of(error: AgentRunClientError) -> int:
    """What a retry after this failure costs."""
    return COST_AFTER_TIMEOUT if isinstance(error, TimeoutExceeded) else COST


class RetryQuota:
    """Tokens that retries are paid with and successes earn back, so that a broken service is not hammered.

    Threads share it without a lock: a token that is lost to a race is earned back soon.

    >>> quota = RetryQuota()
    >>> quota.take(500), quota.take(5)
    (True, False)
    """

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left: int = QUOTA

    def take(self, cost: int) -> bool:
        """Pays for a retry, if there is enough."""
        if self.left < cost:
            return False
        self.left -= cost
        return True

    def earn(self, paid: int) -> None:
        """After a success: what its last retry cost comes back, or 1 where there was none."""
        self.left = min(QUOTA, self.left + (paid or 1))
