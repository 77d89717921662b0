"""Who is calling: an access key or an access token, and the Secret that keeps each from showing itself.

Rules of this file: the text of a secret leaves a :class:`Secret` by ``reveal()`` alone, so that the places
where it may travel can be found by searching for that word; and the parts of a credential travel together.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hmac import compare_digest
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
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers exist
            raise TypeError(f"a secret is a str, not {type(text).__name__}")
        if not (text.isascii() and text.isprintable()) or text != text.strip():
            raise ValueError(
                "a secret is printable ASCII without white space around it; was it read with its end of line?"
            )
        self._text = text

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
        return value if isinstance(value, Secret) else cls(value)


def check_key_id(text: str) -> str:
    """The id of an access key; a signature puts it between slashes and commas.

    Raises:
        ValueError: it holds one of these, white space, or a character that is no printable ASCII.
    """
    if not re.fullmatch(r"[!-+\-.0-~]*", text):
        raise ValueError("access_key_id is printable ASCII without spaces, commas and slashes")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessKey:
    """A RAM access key, long-lived or temporary (then with its security token).

    Raises:
        ValueError: an id or a secret that no signature can carry.
    """

    access_key_id: str
    access_key_secret: Secret
    security_token: Secret | None = None

    def __post_init__(self) -> None:
        check_key_id(self.access_key_id)
        object.__setattr__(self, "access_key_secret", Secret.of(self.access_key_secret))
        if self.security_token is not None:
            object.__setattr__(self, "security_token", Secret.of(self.security_token))


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """The data plane's own token, sent as ``Agentrun-Access-Token``."""

    token: Secret

    def __post_init__(self) -> None:
        object.__setattr__(self, "token", Secret.of(self.token))


Credential = AccessKey | AccessToken
"""What a request can be authorised with; None stands for an anonymous one."""
