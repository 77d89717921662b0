"""A recording as a file: exchanges in the order in which they were sent, as JSON for readers and for diffs.

::

    {"recording": 1,
     "exchanges": [
      {"request": {"method": "POST", "url": ..., "headers": ["Name: value", ...], "content": [...]},
       "answer": {"status": 200, "headers": ["Date: +0", ...], "content": [...]},
       "failure": {"error": "IncompleteError", "message": ..., "may_be_processed": true},
       "left": true}]}

Content is a list of pieces: of an answer as they came, of a request as its segments are. A piece is text, or
``{"base64": ...}`` for what is no UTF-8. What a request carried out of a file stands there as its
``{"length": ..., "sha256": ...}``; without a checksum where not all of it was sent. ``failure`` is what came
instead of the end, or of the answer; ``left`` says that nobody read on. ``Date`` is told in seconds from the
client's own clock.

Rules of this file: no I/O; what is written was redacted; what is read is checked.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from hashlib import sha256
from typing import Any, cast

from agentrun_proto import (
    AgentRunClientError,
    DecodeError,
    Head,
    Headers,
    Request,
    TransportError,
)

VERSION = 1

_BOUNDARY = re.compile(r'boundary="?([^;"]+)')
_STARS = re.compile(rb"\*{3,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is known of a segment that was read while it was sent.

    Args:
        length: in bytes; None where nobody knows.
        checksum: its SHA-256 in hexadecimal digits; None where not all of it was sent.
    """

    length: int | None = None
    checksum: str | None = None

    @classmethod
    def of(cls, content: bytes) -> Told:
        """What is known of content that is there."""
        return cls(length=len(content), checksum=sha256(content).hexdigest())


Segment = bytes | Told


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One exchange, as it stands in a recording."""

    method: str
    url: str
    fields: tuple[tuple[str, str], ...] = ()
    segments: tuple[Segment, ...] = ()
    status: int | None = None
    """None where no answer came."""
    answer_fields: tuple[tuple[str, str], ...] = ()
    pieces: tuple[bytes, ...] = ()
    failure: AgentRunClientError | None = None
    left: bool = False

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"{self.method} {self.url}"

    def same_address(self, request: Request) -> bool:
        """Whether a request has the method and the URL of this one."""
        return self.method == request.method and _like(self.url.encode(), request.url.encode())

    def same_content(self, segments: Sequence[bytes]) -> bool:
        """Whether a request's segments, see `plain_segments`, hold what this one's held."""
        return len(segments) == len(self.segments) and all(map(_same_segment, self.segments, segments))

    def head(self, now: float) -> Head | None:
        """The head of the answer, at this wall time."""
        if self.status is None:
            return None
        fields = [
            (name, _date(value, now) if name.lower() == "date" else value)
            for name, value in self.answer_fields
        ]
        return Head(status=self.status, headers=Headers(fields))

    def as_json(self) -> dict[str, Any]:
        """As it is written."""
        request: dict[str, Any] = {"method": self.method, "url": self.url}
        _add(request, "headers", [f"{name}: {value}" for name, value in self.fields])
        _add(request, "content", [_segment_as_json(segment) for segment in self.segments])
        told: dict[str, Any] = {"request": request}
        if self.status is not None:
            answer: dict[str, Any] = {"status": self.status}
            _add(answer, "headers", [f"{name}: {value}" for name, value in self.answer_fields])
            _add(answer, "content", [_as_json(piece) for piece in self.pieces])
            told["answer"] = answer
        if self.failure is not None:
            told["failure"] = {
                "error": type(self.failure).__name__,
                "message": self.failure.message,
                "may_be_processed": self.failure.may_be_processed,
            }
        if self.left:
            told["left"] = True
        return told

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Recorded:
        """As it was written.

        Raises:
            ValueError, TypeError, LookupError, AttributeError: it was not.
        """
        request, answer = told["request"], told.get("answer")
        failure = None if "failure" not in told else _failure(told["failure"])
        left = bool(told.get("left", False))
        if answer is None and failure is None:
            raise ValueError("an exchange has an answer or a failure")
        told_of: Mapping[str, Any] = answer or {}
        return cls(
            method=request["method"],
            url=request["url"],
            fields=_fields(request),
            segments=tuple([_segment(segment) for segment in request.get("content", ())]),
            status=None if answer is None else int(answer["status"]),
            answer_fields=_fields(told_of),
            pieces=tuple([_bytes(piece) for piece in told_of.get("content", ())]),
            failure=failure,
            left=left,
        )


def plain_segments(request: Request, contents: Sequence[bytes]) -> list[bytes]:
    """The segments of a request's body, with the same boundary in every form: the real one is chance.

    Args:
        request: the request.
        contents: what its segments hold.
    """
    boundary = _boundary(request)
    if boundary is None:
        return list(contents)
    old, new = boundary.encode(), plain_boundary(boundary).encode()
    return [
        content.replace(old, new) if isinstance(segment, bytes) else content
        for segment, content in zip(request.body.segments, contents, strict=True)
    ]


def plain_fields(request: Request) -> list[tuple[str, str]]:
    """The fields of a request, with that boundary."""
    boundary = _boundary(request)
    fields = request.fields()
    if boundary is None:
        return fields
    return [(name, value.replace(boundary, plain_boundary(boundary))) for name, value in fields]


def plain_boundary(boundary: str) -> str:
    """What stands for a boundary: as long as it is.

    >>> plain_boundary("0123456789")
    'boundarybo'
    """
    return ("boundary" * len(boundary))[: len(boundary)]


def _boundary(request: Request) -> str | None:
    content_type = request.content_type or ""
    match = _BOUNDARY.search(content_type) if content_type.startswith("multipart/") else None
    return None if match is None else match[1]


def _like(recorded: bytes, content: bytes) -> bool:
    """Whether content is what was recorded; where secrets were taken out, anything may stand.

    >>> _like(b'{"token":"***","n":1}', b'{"token":"x","n":1}'), _like(b"a***c", b"ac"), _like(b"a", b"a")
    (True, False, True)
    """
    first, *rest = _STARS.split(recorded)
    if not rest:
        return recorded == content
    if not content.startswith(first):
        return False
    *between, last = rest
    start = len(first)
    for part in between:
        found = content.find(part, start + 1)
        if found < 0:
            return False
        start = found + len(part)
    return content.endswith(last) and len(content) - len(last) > start


def _same_segment(recorded: Segment, content: bytes) -> bool:
    if isinstance(recorded, bytes):
        return _like(recorded, content)
    if recorded.checksum is None:
        return recorded.length in (None, len(content))
    return recorded == Told.of(content)


def date_offset(headers: Headers, date: float, now: float) -> Headers:
    """An answer's fields, with their ``Date`` told from our clock.

    Args:
        headers: the fields.
        date: what their ``Date`` says, in seconds since the epoch.
        now: our clock's time, likewise.
    """
    offset = round(date - now)
    told = f"{offset if abs(offset) > 1 else 0:+d}"  # a second is lost to rounding, one on the way
    return headers.merged({"Date": told})


def _date(told: str, now: float) -> str:
    return formatdate(now + int(told), usegmt=True) if re.fullmatch(r"[+-]\d{1,12}", told) else told


def _add(told: dict[str, Any], name: str, value: list[Any]) -> None:
    if value:
        told[name] = value


def _as_json(piece: bytes) -> Any:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(piece).decode()}


def _segment_as_json(segment: Segment) -> Any:
    if isinstance(segment, bytes):
        return _as_json(segment)
    told: dict[str, Any] = {"length": segment.length}
    return told if segment.checksum is None else {**told, "sha256": segment.checksum}


def _bytes(told: Any) -> bytes:
    if isinstance(told, str):
        return told.encode()
    try:
        return b64decode(told["base64"], validate=True)
    except binascii.Error as error:
        raise ValueError(f"no base64: {error}") from None


def _segment(told: Any) -> Segment:
    if isinstance(told, dict) and "length" in told:
        known = cast("dict[str, Any]", told)
        return Told(length=known["length"], checksum=known.get("sha256"))
    return _bytes(told)


def _fields(told: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    lines: list[tuple[str, str]] = []
    for line in told.get("headers", ()):
        name, colon, value = line.partition(": ")
        if not colon:
            raise ValueError(f"a header is 'Name: value', not {line!r}")
        lines.append((name, value))
    return tuple(lines)


def _failures() -> dict[str, Callable[..., AgentRunClientError]]:
    """The errors that an exchange may end in, by name."""
    found: dict[str, Callable[..., AgentRunClientError]] = {"DecodeError": DecodeError}
    waiting: list[type[TransportError]] = [TransportError]
    while waiting:
        kind = waiting.pop()
        found[kind.__name__] = kind
        waiting += kind.__subclasses__()
    return found


def _failure(told: Mapping[str, Any]) -> AgentRunClientError:
    kind = _failures()[told["error"]]
    return kind(told["message"], may_be_processed=told["may_be_processed"])
