"""Head and body in; a dict, or the error that says whose fault it is, out.

Rules of this file: a status of 400 or more is an error whatever its body; success is what was promised or a
DecodeError, never a guess, and never an empty result for a broken one; what is decoded is bounded.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from math import isfinite
from typing import Any, NoReturn, cast

from .codings import CodingError, ContentDecoder
from .errors import AgentRunClientError, DecodeError, error_class
from .messages import Head, Headers

MAX_BODY = 64 * 1024 * 1024
"""The largest answer, in bytes, that is held in memory: as received, and again once decoded."""

# Where the request id is when the body has none, in this order (SERVICE: Answers).
REQUEST_ID_FIELDS = ("x-acs-request-id", "x-agentrun-request-id", "x-request-id", "x-fc-request-id")

_SHOWN = 300  # characters of an answer that is no JSON, in a message
_MAX_WAIT = 366 * 86400.0
_HTTP_DATE = re.compile(
    r"[A-Z][a-z]{2}, ([0-9]{2}) ([A-Z][a-z]{2}) ([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-5][0-9]|60) GMT"
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _finite(number: str) -> float:
    value = float(number)
    if not isfinite(value):
        raise ValueError(f"{number[:40]} is beyond the range of a float")
    return value


_json = json.JSONDecoder(parse_constant=_reject_constant, parse_float=_finite)


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A whole answer: its head, and its content with any content coding taken off."""

    head: Head
    content: bytes
    error: AgentRunClientError | None = field(default=None, repr=False, compare=False)
    """What a status that is no success is to be raised as; it tells of all attempts."""

    @property
    def status(self) -> int:
        """The HTTP status code."""
        return self.head.status

    @property
    def headers(self) -> Headers:
        """The fields of the answer."""
        return self.head.headers

    @property
    def text(self) -> str:
        """The content as UTF-8.

        Raises:
            DecodeError: it is no UTF-8.
        """
        try:
            return str(self.content, "utf-8")
        except UnicodeDecodeError as error:
            raise self._nonsense(f"the answer is no UTF-8: {error}") from None

    def json(self) -> Any:
        """Any JSON value.

        Raises:
            DecodeError: the content is no JSON (RFC 8259; NaN and the like are none).
        """
        try:
            return parse_json(self.content)
        except ValueError as error:
            raise self._nonsense(f"the answer is no JSON: {error}") from None

    @property
    def request_id(self) -> str | None:
        """The service's id of the request: the body's ``requestId``, else a field's."""
        return find_request_id(self.headers, _json_or_text(self.content))

    def raise_for_status(self) -> Response:
        """Returns itself, or raises the error that belongs to a status of 300 or more."""
        if not 200 <= self.status < 300:
            raise self.error or refusal(self.head, self.content)
        return self

    def _nonsense(self, message: str) -> DecodeError:
        return nonsense(self.head, self.content, message)


def decode(head: Head, content: bytes) -> dict[str, Any]:
    """The JSON object that an answer holds; ``{}`` where a successful answer has no content at all.

    Args:
        head: status and fields.
        content: the whole content, its content coding taken off.

    Raises:
        StatusError: a status of 300 or more; the class follows from the status.
        DecodeError: success, but the content is no JSON object. ``value`` has what it is instead.

    >>> decode(Head(status=200), b'{"id": 1}')
    {'id': 1}
    """
    if not 200 <= head.status < 300:
        raise refusal(head, content)
    if not content:
        return {}
    try:
        value = parse_json(content)
    except ValueError as error:
        raise nonsense(head, content, f"the answer is no JSON: {error}") from None
    if type(value) is not dict:
        message = f"the answer is a JSON {_kind(value)} where an object was promised"
        refused = nonsense(head, content, message)
        refused.value = value
        raise refused
    return cast("dict[str, Any]", value)


def parse_json(content: bytes | bytearray) -> Any:
    """Strict JSON (RFC 8259) in UTF-8; a byte order mark before it is ignored, as section 8.1 allows.

    Raises:
        ValueError: anything else, nesting and numbers beyond Python's limits included.
    """
    return parse_json_text(str(content, "utf-8"))


def parse_json_text(text: str) -> Any:
    """`parse_json` for what is decoded already."""
    try:
        if text.startswith("{"):  # what `decode` does beside this, looking for white space, takes as long
            value, end = _json.raw_decode(text)
            if end == len(text):
                return value
        return _json.decode(text[1:] if text.startswith("\ufeff") else text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _kind(value: Any) -> str:
    names = ((bool, "boolean"), (list, "array"), (str, "string"), (type(None), "null"))
    return next((name for kind, name in names if isinstance(value, kind)), "number")


def _json_or_text(content: bytes | bytearray) -> Any:
    try:
        return parse_json(content)
    except ValueError:
        return str(content, "utf-8", "backslashreplace")


def find_request_id(headers: Headers, value: Any) -> str | None:
    """The request id of an answer, from its decoded body or its fields."""
    told = _member(value, "requestId")
    return told or next((found for name in REQUEST_ID_FIELDS if (found := headers.get(name))), None)


def _member(value: Any, name: str) -> str | None:
    found: Any = cast("dict[str, Any]", value).get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) and found else None


def refusal(head: Head, content: bytes) -> AgentRunClientError:
    """The error for an answer whose status is no success, with all that its envelope tells."""
    value = _json_or_text(content)
    message = _member(value, "message")
    if message is None:
        message = " ".join(value.split())[:_SHOWN] if isinstance(value, str) else ""
        message = message or "the service refused the request and gave no reason"
    return error_class(head.status)(
        message,
        status_code=head.status,
        error_code=_member(value, "code"),
        request_id=find_request_id(head.headers, value),
        response_body=value,
        response_headers=head.headers,
        retry_after=retry_after(head.headers),
    )


def nonsense(head: Head, content: bytes, message: str) -> DecodeError:
    """The error for an answer of success that is not what was promised."""
    value = _json_or_text(content) if content else None
    return DecodeError(
        message,
        status_code=head.status,
        error_code=_member(value, "code"),
        request_id=find_request_id(head.headers, value),
        response_body=value,
        response_headers=head.headers,
    )


def is_json(content_type: str) -> bool:
    """Whether a media type says JSON (RFC 8259; RFC 6839, 3.1 for ``+json``).

    >>> is_json("application/json; charset=utf-8"), is_json("application/problem+json"), is_json("text/csv")
    (True, True, False)
    """
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.endswith("+json")


def retry_after(headers: Headers) -> float | None:
    """The seconds that ``Retry-After`` asks for, in either of its forms (RFC 9110, 10.2.3); None for junk.

    A date is taken relative to the answer's own ``Date``, so that a wrong clock here does no harm.

    >>> retry_after(Headers({"Retry-After": "120"})), retry_after(Headers({"Retry-After": "soon"}))
    (120.0, None)
    """
    value = headers.get("retry-after")
    if value is None:
        return None
    if re.fullmatch(r"[0-9]{1,15}", value):
        return min(float(value), _MAX_WAIT)
    then, now = http_date(value), http_date(headers.get("date", ""))
    return None if then is None or now is None else min(max(then - now, 0.0), _MAX_WAIT)


def http_date(value: str) -> float | None:
    """Seconds since the epoch for an IMF-fixdate (RFC 9110, 5.6.7), or None for anything else.

    >>> http_date("Sun, 06 Nov 1994 08:49:37 GMT")
    784111777.0
    """
    match = _HTTP_DATE.fullmatch(value)
    if match is None or match[2] not in _MONTHS:
        return None
    day, year, hour, minute, second = (int(match[group]) for group in (1, 3, 4, 5, 6))
    month = _MONTHS.index(match[2]) + 1
    try:
        # A leap second is legal and datetime knows none: it counts as the second before.
        moment = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=timezone.utc)
    except ValueError:
        return None
    return moment.timestamp()


def content_decoder(head: Head) -> ContentDecoder | None:
    """What takes the content coding of an answer off, if it has one.

    Raises:
        DecodeError: one that was not asked for, or more than one.
    """
    coding = head.headers.get("content-encoding", "").lower()
    if coding in ("", "identity"):
        return None
    try:
        return ContentDecoder(coding)
    except CodingError as error:
        raise nonsense(head, b"", str(error)) from None


def take_off_coding(head: Head, content: bytes, limit: int = MAX_BODY) -> bytes:
    """The content with its content coding taken off (RFC 9110, 8.4), at most `limit` bytes of it.

    Raises:
        DecodeError: a coding we did not ask for, more than one, damaged or cut data, or more than `limit`.
    """
    decoder = content_decoder(head)
    if decoder is None:
        return content
    pieces: list[bytes] = []
    room = limit
    try:
        for piece in decoder.feed(content):
            room -= len(piece)
            if room < 0:
                raise CodingError(f"the answer is larger than {limit} bytes once its coding is taken off")
            pieces.append(piece)
        decoder.end()
    except CodingError as error:
        raise nonsense(head, b"", str(error)) from None
    return b"".join(pieces)
