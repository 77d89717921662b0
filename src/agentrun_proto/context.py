"""What a flow needs beside its request: whom it talks to, who is calling, what time it is.

Rules of this file: what calls share is learned by plain steps and never waited for; no step does I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from typing import Protocol

from .commands import Clock, Flow, Progress, Provide, RandomBytes, Refresh
from .config import DEFAULT_TIMEOUT, Retry, Timeout
from .credential_cache import CredentialCache, Due
from .credentials import AccessKey, AccessToken, Credential, Provider
from .errors import AgentRunClientError, CredentialError
from .messages import Request
from .retry import RetryQuota
from .telemetry import CredentialsRefreshed, CredentialsRefreshFailed, Observer
from .urls import Origin

Obtain = Callable[[Clock, "Observer | None"], Flow[Credential]]
"""Makes the flow that gets a new credential."""


class Standing:
    """What was learned of an endpoint, for all its calls, and what they have left for retries."""

    __slots__ = ("offset", "quota")

    def __init__(self) -> None:
        self.quota: RetryQuota = RetryQuota()
        self.offset: float = 0.0
        """Seconds by which the service's clock is ahead of ours."""


class Identity:
    """Who is calling: one credential, or one that is obtained, kept, and renewed in time.

    Args:
        credential: the one; None for an anonymous caller.
        obtain: gets a new one; then there is no other.
    """

    __slots__ = ("_fixed", "cache", "obtain")

    def __init__(self, credential: Credential | None = None, obtain: Obtain | None = None) -> None:
        self._fixed = credential
        self.obtain: Obtain | None = obtain
        self.cache: CredentialCache = CredentialCache()

    @classmethod
    def provided(cls, provider: Provider) -> Identity:
        """An identity whose credential comes from a provider."""
        return cls(obtain=lambda clock, observer: _provided(provider))

    @property
    def credential(self) -> Credential | None:
        """The credential in use, if there is one at this moment."""
        return self._fixed if self.obtain is None else self.cache.credential


def _provided(provider: Provider) -> Flow[Credential]:
    credential = yield from Provide(provider)
    if isinstance(credential, (AccessKey, AccessToken)):
        return credential
    kind: type = type(credential)
    del credential  # it may be a secret in plain, and a traceback may be shown with its locals
    if kind is type(None):
        raise CredentialError("the provider has no credential; none of its sources is set up")
    raise CredentialError(f"the provider returned a {kind.__name__}, not an AccessKey or an AccessToken")


class Plane(Protocol):
    """A part of the service, as flows know it."""

    @property
    def identity(self) -> Identity:
        """Who is calling."""
        ...

    @property
    def standing(self) -> Standing:
        """What its calls share."""
        ...

    @property
    def retry(self) -> Retry:
        """How often a request is sent."""
        ...

    @property
    def nonce_size(self) -> int:
        """How many random bytes each signature takes."""
        ...

    def authorise(self, request: Request, credential: Credential | None, now: float, nonce: str) -> Request:
        """The request, with what shows who is calling, for one attempt."""
        ...

    def trusts(self, origin: Origin) -> bool:
        """Whether the credential and the headers may be sent there."""
        ...

    def bare(self, request: Request, origin: Origin, target: str) -> Request:
        """The request for another origin: without credential, headers and content."""
        ...


class Context:
    """One operation's surroundings.

    Args:
        plane: whom the request is for.
        timeout: how long things may take.
        clock: what time it is.
        observer: is told what happens.
        progress: is told how much of a request's body was sent.
    """

    __slots__ = ("clock", "observer", "plane", "progress", "timeout")

    def __init__(
        self,
        plane: Plane,
        timeout: Timeout,
        clock: Clock,
        observer: Observer | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.plane: Plane = plane
        self.progress: Progress | None = progress
        self.timeout: Timeout = timeout
        self.clock: Clock = clock
        self.observer: Observer | None = observer

    def deadline(self) -> float:
        """The monotonic time at which an operation that begins now is over."""
        total = self.timeout.total
        return inf if total is None else self.clock.monotonic() + total

    def now(self) -> float:
        """Wall time by the service's clock, as far as it is known: seconds since the epoch."""
        return self.clock.now() + self.plane.standing.offset

    def nonce(self) -> Flow[str]:
        """A text that no other signature has."""
        return (yield from RandomBytes(self.plane.nonce_size)).hex()

    def credential(self, deadline: float) -> Flow[Credential | None]:
        """A credential that is obtained; waits for a new one only where the kept one is of no use."""
        cache = self.plane.identity.cache
        due, kept = cache.look(self.now())
        if due is Due.NO:
            return kept
        if due is Due.SOON:
            cache.postpone(self.now())
        if deadline == inf:  # a transfer may take its time once it goes on; until then, each wait has a limit
            deadline = self.clock.monotonic() + (self.timeout.read or DEFAULT_TIMEOUT)
        renewed = yield from Refresh(
            cache, partial(self._renew, kept), deadline=deadline, wait=due is Due.NOW
        )
        return kept if renewed is None else renewed

    def _renew(self, known: Credential | None) -> Flow[Credential]:
        identity, observer = self.plane.identity, self.observer
        assert identity.obtain is not None
        current = identity.cache.credential
        if current is not None and current is not known:
            return current  # it came while this call was on its way here
        try:
            credential = yield from identity.obtain(self.clock, observer)
        except AgentRunClientError as error:
            if observer is not None:
                observer.tell(CredentialsRefreshFailed(call=observer.call, error=type(error).__name__))
            raise
        identity.cache.keep(credential, self.now())
        if observer is not None:
            observer.tell(CredentialsRefreshed(call=observer.call, expires_at=credential.expires_at))
        return credential
