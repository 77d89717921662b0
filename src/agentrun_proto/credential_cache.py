"""A credential that comes, expires and is refreshed: what is kept of it, and when it is due.

Rules of this file: pure state, no waiting; it is one value that is replaced as a whole, since threads share
it; the time comes from the caller.
"""

from __future__ import annotations

from enum import Enum

from .credentials import Credential

# Seconds before its expiry at which a credential is refreshed without holding anybody up, and at which nobody
# goes on without a new one: the windows of botocore, each bounded by a part of the credential's own life.
ADVISORY, ADVISORY_PART = 900.0, 1 / 4
MANDATORY, MANDATORY_PART = 600.0, 1 / 8

# Seconds that a credential is used whatever its expiry says, and until a refresh ahead of it is tried again:
# so that neither a wrong clock nor a broken provider makes every call ask.
LEAST = 60.0


class Due(Enum):
    """Whether a refresh is due."""

    NO = "no"
    SOON = "soon"
    """Begin one; the credential serves meanwhile."""
    NOW = "now"
    """Wait for one."""


class CredentialCache:
    """The credential in use.

    >>> from .credentials import AccessToken, Secret
    >>> cache = CredentialCache()
    >>> cache.look(now=0.0)
    (<Due.NOW: 'now'>, None)
    >>> cache.keep(AccessToken(token=Secret("t"), expires_at=3600.0), now=0.0)
    >>> [cache.look(now)[0].value for now in (2699.0, 2700.0, 3150.0)]
    ['no', 'soon', 'now']
    """

    __slots__ = ("_kept", "_refused")

    def __init__(self) -> None:
        self._kept: tuple[Credential, float, float] | None = None  # advisory and mandatory from these times
        self._refused: Credential | None = None

    @property
    def credential(self) -> Credential | None:
        """What is in use, if anything is."""
        return self.look(0.0)[1]

    def look(self, now: float) -> tuple[Due, Credential | None]:
        """Whether a refresh is due at this time (wall time, seconds), and what is in use: of one moment."""
        kept = self._kept
        if kept is None or kept[0] is self._refused:
            return Due.NOW, None
        credential, soon, latest = kept
        return (Due.NO if now < soon else Due.SOON if now < latest else Due.NOW), credential

    def keep(self, credential: Credential, now: float) -> None:
        """A new credential came."""
        soon = latest = float("inf")
        if credential.expires_at is not None:
            life = max(credential.expires_at - now, LEAST)
            soon = now + life - min(ADVISORY, life * ADVISORY_PART)
            latest = now + life - min(MANDATORY, life * MANDATORY_PART)
        self._kept = (credential, soon, latest)
        self._refused = None

    def postpone(self, now: float) -> None:
        """A refresh ahead of the expiry begins: nobody else begins one for a while."""
        kept = self._kept
        if kept is not None:
            credential, _, latest = kept
            self._kept = (credential, min(now + LEAST, latest), latest)

    def refuse(self, credential: Credential) -> None:
        """The service refuses this very one; it is used no more. Whatever came after it is not touched."""
        kept = self._kept
        if kept is not None and kept[0] is credential:
            self._refused = credential
