"""What of an exchange is a secret, and how it is taken out before anything is written.

Two nets, one behind the other. By name: fields, query parameters and members of JSON whose name says token,
secret, signature and the like. By value: whatever was found so, or was given, is taken out wherever else it
stands.

Rules of this file: of a request only fields that are known to hold no secret are kept; a secret in content
gives way to as many stars, so that lengths stay what they were; when in doubt, it is one.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterable
from urllib.parse import quote

from agentrun_proto import Headers
from agentrun_proto.messages import SECRET_FIELDS

STARS = "***"

_LEAST = 8
"""Characters from which on a text that was found is looked for elsewhere: a shorter one may be anywhere."""

# Parts of names. "tokens" is a number of them (`max_tokens`).
_TELLING = (
    r"(?:token(?!s)|secret|passw|passphrase|credential|signature|authorization|cookie"
    r"|api[-_]?key|access[-_]?key|private[-_]?key|session[-_]?id)"
)
# Whole names of query parameters.
_TELLING_WHOLE = r"(?:sig|sign|key|auth)"

_NAME = re.compile(_TELLING, re.I)
_QUERY = re.compile(
    rf"(?P<name>(?:[?&]|\\u0026|&amp;)(?:[\w.%-]{{0,60}}{_TELLING}[\w.%-]{{0,60}}|{_TELLING_WHOLE})=)"
    r"(?P<value>[^&#\"'\s<>\\]+)",
    re.I,
)
_MEMBER = re.compile(
    rf"(?P<name>\"[\w.-]{{0,60}}{_TELLING}[\w.-]{{0,60}}\"\s*:\s*\")(?P<value>[^\"\\]*(?:\\.[^\"\\]*)*)",
    re.I | re.S,
)
# JSON in a string of JSON, as in the arguments of a tool that a model calls.
_NESTED_MEMBER = re.compile(
    rf"(?P<name>\\+\"[\w.-]{{0,60}}{_TELLING}[\w.-]{{0,60}}\\+\"\s*:\s*\\+\")(?P<value>[^\"\\]+)", re.I
)
_BY_NAME = (_QUERY, _MEMBER, _NESTED_MEMBER)

# What of a request's fields is of use to a reader, and holds no secret.
_KEPT = frozenset(
    {
        "accept",
        "content-length",
        "content-type",
        "expect",
        "if-range",
        "last-event-id",
        "range",
        "transfer-encoding",
    }
)
_SHORT = re.compile(r"(?:\*|%2A){3,}", re.I)
_SIGNED = re.compile(r"Credential=([^/,]+).*?Signature=([0-9A-Za-z+/=%]+)")


def is_secret_field(name: str) -> bool:
    """Whether a field of this name may carry a secret.

    >>> [is_secret_field(name) for name in ("Set-Cookie", "Agentrun-Access-Token", "ETag")]
    [True, True, False]
    """
    return name.lower() in SECRET_FIELDS or _NAME.search(name) is not None


def shown_url(url: str) -> str:
    """A URL without the secrets that the names in its query tell of.

    >>> shown_url("http://h/a?Expires=1&Signature=abc")
    'http://h/a?Expires=1&Signature=***'
    """
    return _SHORT.sub(STARS, _QUERY.sub(rf"\g<name>{STARS}", url))


def _starred(match: re.Match[str]) -> str:
    value = match["value"]
    return match["name"] + (value if len(value) < len(STARS) else "*" * len(value))


class Redaction:
    """The secrets of a recording.

    Args:
        secrets: texts that are secrets in any case.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._values: set[str] = set()
        self._found: re.Pattern[str] | None = None
        for secret in secrets:
            self._add(secret)

    def _add(self, value: str) -> None:
        if value and value.strip("*"):  # stars are what is left of one
            self._values |= {value, quote(value, safe="")}
            self._found = None

    def _learn(self, value: str) -> None:
        if len(value) >= _LEAST:
            self._add(value)

    def learn_fields(self, fields: Iterable[tuple[str, str]]) -> None:
        """Takes note of the secrets in fields."""
        for name, value in fields:
            if not is_secret_field(name):
                continue
            self._learn(value)
            if name.lower() in ("cookie", "set-cookie"):
                for pair in value.split(";"):
                    self._learn(pair.partition("=")[2].strip())
            elif signed := _SIGNED.search(value):
                for part in signed.groups():
                    self._learn(part)
            elif " " in value:
                self._learn_authorization(*value.split(" ", 1))

    def _learn_authorization(self, scheme: str, text: str) -> None:
        self._learn(text)
        if scheme.lower() == "basic":
            try:
                self._learn(b64decode(text).decode().partition(":")[2])
            except ValueError:
                pass  # it is taken out as it is

    def learn_text(self, text: str) -> None:
        """Takes note of the secrets that names in a text tell of."""
        for pattern in _BY_NAME:
            for match in pattern.finditer(text):
                self._learn(match["value"])

    def text(self, text: str) -> str:
        """The text with stars in the place of each character of a secret."""
        for pattern in _BY_NAME:
            text = pattern.sub(_starred, text)
        if self._found is None:
            longest_first = sorted(self._values, key=lambda value: (-len(value), value))
            self._found = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        return self._found.sub(lambda match: "*" * len(match[0]), text)

    def pieces(self, pieces: Iterable[bytes]) -> list[bytes]:
        """Pieces of content, cut where they were; a secret may go over several of them."""
        kept = list(pieces)
        # Latin-1 stands for the bytes: what is looked for is ASCII, and lengths stay.
        text = self.text(b"".join(kept).decode("latin-1")).encode("latin-1")
        start, cut = 0, list[bytes]()
        for piece in kept:
            cut.append(text[start : start + len(piece)])
            start += len(piece)
        return cut

    def url(self, url: str) -> str:
        """The URL with `STARS` in the place of each secret."""
        return _SHORT.sub(STARS, self.text(shown_url(url)))

    def request_fields(self, fields: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """The fields of a request that are kept."""
        return [(name, self.text(value)) for name, value in fields if name.lower() in _KEPT]

    def answer_fields(self, headers: Headers) -> list[tuple[str, str]]:
        """The fields of an answer, with `STARS` for what may be secret."""
        return [
            (name, STARS if is_secret_field(name) else self.text(value)) for name, value in headers.fields
        ]
