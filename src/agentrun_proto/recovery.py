"""What becomes of a failed attempt: another one, elsewhere or later, or the caller's error.

Rules of this file: an attempt more is never made past the caller's limits of number and time; a credential
does not leave its origin, and a request that has left it never comes back with one; the error that is raised
in the end speaks for all attempts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .commands import Flow, RandomBytes, Rewind, Sleep
from .context import Context
from .credentials import AccessKey, Credential
from .decoding import http_date
from .errors import (
    AgentRunClientError,
    AuthenticationError,
    CredentialError,
    PermissionDeniedError,
    RedirectError,
    TimeoutExceeded,
)
from .messages import Request
from .retry import LONGEST_PAUSE, SKEW, cost_of, is_stale, may_repeat, outcome_of, pause
from .telemetry import ClockAdjusted, Redirected, RetryScheduled
from .urls import Target, resolve

MAX_REDIRECTS = 5

# RFC 9110, 15.4: these say where else to go; 307 and 308 alone keep the method for certain.
_FOLLOWED = frozenset({301, 302, 303, 307, 308})
_METHOD_KEPT = frozenset({307, 308})
# 2100-01-01: a date from then on, or from before the epoch, is no clock's.
_END = 4102444800.0

_SAFE = frozenset({"GET", "HEAD"})


class Recovery:
    """The failures of one operation so far.

    Args:
        context: the operation's.
        deadline: monotonic time at which it is over.
        gained: whether the last attempt brought something that the next one does not have to; such an attempt
            does not count as one of those that a request has.
    """

    __slots__ = (
        "_adjusted",
        "_context",
        "_deadline",
        "_failures",
        "_gained",
        "_in_a_row",
        "_processed",
        "_redirects",
        "_refreshed",
        "paid",
    )

    def __init__(self, context: Context, deadline: float, gained: Callable[[], bool] | None = None) -> None:
        self._gained = gained
        self._in_a_row = 0  # attempts that failed and brought nothing
        self._context = context
        self._deadline = deadline
        self._failures: list[str] = []
        self._processed = False
        self._redirects = 0
        self._adjusted = self._refreshed = False
        self.paid: int = 0
        """What the last retry cost of the quota."""

    @property
    def attempt(self) -> int:
        """The number of the next attempt."""
        return len(self._failures) + self._redirects + 1

    def after(
        self,
        error: AgentRunClientError,
        request: Request,
        sent: Request,
        credential: Credential | None,
        signed_at: float,
    ) -> Flow[Request]:
        """The request of the next attempt, once it is time for it; or raises.

        Args:
            error: why the last attempt failed.
            request: what was attempted, before it was authorised.
            sent: what was sent; an auth hook may have sent it elsewhere.
            credential: what authorised it.
            signed_at: the wall time at which it was.

        Raises:
            AgentRunClientError: there is no next attempt; the error tells of all that were made.
        """
        if isinstance(error, RedirectError):
            request = self._redirected(error, request, sent)
        elif isinstance(error, CredentialError) or type(error) is TimeoutExceeded:
            raise self._final(error)  # nothing was sent in this attempt
        else:
            yield from self._again(error, request, credential, signed_at)
        if request.body.sources:
            try:
                yield from Rewind(request.body)
            except AgentRunClientError as failed:
                raise self._final(failed) from failed.__cause__
        return request

    def _again(
        self, error: AgentRunClientError, request: Request, credential: Credential | None, signed_at: float
    ) -> Flow[None]:
        """Returns when the request may go out again."""
        context, cache = self._context, self._context.plane.identity.cache
        self._failures.append(str(error))
        self._processed = self._processed or error.may_be_processed
        # Also where only the next call gains by it; and a clock that is off is no fault of the credential.
        adjusted = self._adjust_clock(error, credential, signed_at)
        stale = not adjusted and credential is not None and is_stale(error)
        if stale and credential is not None:
            cache.refuse(credential)
        gained = self._gained is not None and self._gained()
        self._in_a_row = 0 if gained else self._in_a_row + 1
        if max(self._in_a_row, 1) >= context.plane.retry.attempts:
            raise self._final(error)
        if request.body.replayable:
            if adjusted:
                return
            if stale and not self._refreshed and context.plane.identity.obtain is not None:
                self._refreshed = True
                try:
                    renewed = yield from context.credential(self._deadline)
                except AgentRunClientError as failed:
                    raise self._final(failed) from failed.__cause__
                if renewed != credential:
                    return
        if not may_repeat(outcome_of(error), request):
            raise self._final(error)
        yield from self._wait(error, gained)

    def _adjust_clock(
        self, error: AgentRunClientError, credential: Credential | None, signed_at: float
    ) -> bool:
        """Whether a signature was refused for its date; the service's clock is ours from now on."""
        refused = isinstance(error, (AuthenticationError, PermissionDeniedError))
        if self._adjusted or not refused or not isinstance(credential, AccessKey):
            return False
        date = http_date(error.response_headers.get("date", ""))
        if date is None or not 0 <= date < _END or abs(date - signed_at) <= SKEW:
            return False
        context, self._adjusted = self._context, True
        offset = context.plane.standing.offset = date - context.clock.now()
        if context.observer is not None:
            context.observer.tell(ClockAdjusted(call=context.observer.call, offset=offset))
        return True

    def _wait(self, error: AgentRunClientError, gained: bool) -> Flow[None]:
        context, delay = self._context, 0.0
        if not gained:
            chance = int.from_bytes((yield from RandomBytes(6)), "big") / 2**48
            delay = pause(context.plane.retry, self._in_a_row, chance, error.retry_after)
        if delay > LONGEST_PAUSE:
            raise self._final(error, f"not tried again: a pause of {delay:.3g} s is too long to wait here")
        if context.clock.monotonic() + delay >= self._deadline:
            raise self._final(error, f"not tried again: the pause of {delay:.3g} s would outlast the call")
        cost = 0 if gained else cost_of(error)  # what gets on is no burden that was for nothing
        if not context.plane.standing.quota.take(cost):
            raise self._final(error, "not tried again: too many calls to this endpoint fail (retry quota)")
        self.paid = cost
        observer = context.observer
        if observer is not None:
            observer.tell(
                RetryScheduled(
                    call=observer.call, attempt=self.attempt - 1, delay=delay, reason=type(error).__name__
                )
            )
        if delay:
            yield from Sleep(delay)

    def _final(self, error: AgentRunClientError, why: str = "") -> AgentRunClientError:
        """The error, speaking for all attempts."""
        if why:
            error.message = f"{error.message.rstrip('.')}; {why}"
        error.attempts = tuple(self._failures)
        error.may_be_processed = error.may_be_processed or self._processed
        return error

    def _redirected(self, error: RedirectError, request: Request, sent: Request) -> Request:
        """The request for the place that the service points to."""
        target = self._destination(error, sent)
        same = target.origin == sent.origin
        self._redirects += 1
        anonymous = request.anonymous or not (same or self._context.plane.trusts(target.origin))
        observer = self._context.observer
        if observer is not None:
            url = f"{target.origin}{target.path}"
            told = Redirected(call=observer.call, status=error.status_code, url=url, credential=not anonymous)
            observer.tell(told)
        if anonymous and not same:
            bare = self._context.plane.bare(request, target.origin, target.request_target)
            return replace(bare, anonymous=True)
        return replace(request, origin=target.origin, target=target.request_target)

    def _destination(self, error: RedirectError, request: Request) -> Target:
        """Where to; raises the error, with the reason, where no redirect is followed."""
        location = error.location
        if error.status_code not in _FOLLOWED or location is None:
            raise self._refused(error)
        if self._redirects >= MAX_REDIRECTS:
            raise self._refused(error, f"not followed: this was redirected {MAX_REDIRECTS} times already")
        try:
            target = resolve(request.url, location)
        except ValueError:
            raise self._refused(error, "not followed: its location is no http or https URL") from None
        if request.origin.scheme == "https" and target.origin.scheme != "https":
            raise self._refused(error, "not followed: it leads from https to http")
        same = target.origin == request.origin
        if request.method not in _SAFE and not (error.status_code in _METHOD_KEPT and same):
            raise self._refused(error, f"not followed: a {request.method} would not arrive there as it was")
        if not request.body.replayable:
            raise self._refused(error, "not followed: the content cannot be sent a second time")
        return target

    def _refused(self, error: RedirectError, why: str = "") -> AgentRunClientError:
        """The error for a redirect that is not followed: then it is how the last attempt ended."""
        self._failures.append(str(error))
        return self._final(error, why)
