"""Who is calling: an access key or an access token, and the Secret that keeps each from showing itself.

Rules of this file: the text of a secret leaves a :class:`Secret` by ``reveal()`` alone, so that the places
where it may travel can be found by searching for that word; and the parts of a credential travel together.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hmac import compare_digest
from math import isnan
from typing import NoReturn


class Secret:
    """A text that never shows itself.

    ``repr``, ``str``, formatting, logging and tracebacks show ``***``; pickling is refused.

    Raises:
        TypeError: the value is no string.
        ValueError: the value holds a character that no HTTP field may carry, or has white space around it:
            most often the end of line of the file that it was read from.

    >>> key = Secret("hunter2")
    >>> f"{key} {key!r}"
    '*** Secret(***)'
    >>> key.reveal()
    'hunter2'
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        kind: type = type(text)
        if issubclass(kind, str) and text.isascii() and text.isprintable() and text == text.strip():
            self._text = text
            return
        del text  # a traceback may be shown with its locals
        if not issubclass(kind, str):
            raise TypeError(f"a secret is a str, not {kind.__name__}")
        raise ValueError(
            "a secret is printable ASCII without white space around it; was it read with its end of line?"
        )

    def reveal(self) -> str:
        """The text itself. Only signing and the request's own field may ask for it."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return format("***", spec)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return compare_digest(self._text, other._text)

    def __hash__(self) -> int:
        return hash(self._text)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled: give the other process its own credentials")

    @classmethod
    def of(cls, value: Secret | str) -> Secret:
        """The value as a Secret; one that is a Secret already is returned as it is."""
        if isinstance(value, Secret):
            return value
        try:
            return cls(value)
        except (TypeError, ValueError):
            del value  # a traceback may be shown with its locals
            raise


def _keep_secret(owner: object, name: str) -> None:
    """Puts a Secret in the place of a text; where it can be none, the text is gone all the same."""
    value = getattr(owner, name)
    object.__setattr__(owner, name, None)
    try:
        object.__setattr__(owner, name, Secret.of(value))
    except (TypeError, ValueError):
        del value  # a traceback may be shown with its locals
        raise


def check_key_id(text: str) -> str:
    """The id of an access key; a signature puts it between slashes and commas.

    Raises:
        ValueError: it holds one of these, white space, or a character that is no printable ASCII.
    """
    if not re.fullmatch(r"[!-+\-.0-~]*", text):
        raise ValueError("access_key_id is printable ASCII without spaces, commas and slashes")
    return text


def _check_expiry(expires_at: float | None) -> None:
    """A provider is the caller's own code; what it gives is checked where it is made, not where it is due."""
    if expires_at is None:
        return
    if isinstance(expires_at, bool) or not isinstance(expires_at, (int, float)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"expires_at is a number of seconds, not {type(expires_at).__name__}")
    try:
        is_time = not isnan(expires_at)
    except OverflowError:  # an int beyond every float
        is_time = False
    if not is_time:
        raise ValueError("expires_at is seconds since the epoch, which this is not")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessKey:
    """A RAM access key, long-lived or temporary (then with its security token).

    Args:
        access_key_id, access_key_secret, security_token: its parts, which travel together.
        expires_at: when it ends, in seconds since the epoch; None where it does not, or nobody knows.

    Raises:
        ValueError: an id or a secret that no signature can carry, or is empty.

    >>> AccessKey(access_key_id="id", access_key_secret=Secret("very secret"))
    AccessKey(access_key_id='id', access_key_secret=Secret(***), security_token=None, expires_at=None)
    """

    access_key_id: str
    access_key_secret: Secret
    security_token: Secret | None = None
    expires_at: float | None = None

    def __post_init__(self) -> None:
        _keep_secret(self, "access_key_secret")
        if self.security_token is not None:
            _keep_secret(self, "security_token")
        check_key_id(self.access_key_id)
        _check_expiry(self.expires_at)
        if not self.access_key_id or not self.access_key_secret:
            raise ValueError("an access key has an id and a secret; one of them is empty")
        object.__setattr__(self, "security_token", self.security_token or None)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """The data plane's own token, sent as ``Agentrun-Access-Token``.

    Args:
        token: its text.
        expires_at: when it ends, in seconds since the epoch; None where nobody knows, as with the service's.
    """

    token: Secret
    expires_at: float | None = None

    def __post_init__(self) -> None:
        _keep_secret(self, "token")
        _check_expiry(self.expires_at)
        if not self.token:
            raise ValueError("the access token is empty")


Credential = AccessKey | AccessToken
"""What a request can be authorised with; None stands for an anonymous one."""

Provider = Callable[[], "Credential | None"] | Callable[[], Awaitable["Credential | None"]]
"""Where a credential comes from: a function, plain or ``async``, that may be slow and may fail.

It is asked when a credential is first needed, again before that one expires, and when the service refuses it;
a plain one runs where it holds no event loop up. None says that it has none.
"""
