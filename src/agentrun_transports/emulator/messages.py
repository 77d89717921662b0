"""One HTTP exchange as the emulator sees it: a request that has arrived, an answer that is to go out.

Rules that hold here:
1. Values only. Nothing in this file reads a socket or a clock, and nothing knows a route.
2. Header names and values are text whose code points are the received bytes (ISO 8859-1), so that a signature
   can be checked over exactly what arrived.
3. What a fault does to an answer (wait, cut it, close, fall silent) is part of the answer; the server only
   performs it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any, Literal
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# What a refusal is called. Seen at the service: BAD_REQUEST, VALIDATION_FAILED, FORBIDDEN,
# INTERNAL_SERVER_ERROR and SandboxNotFound. All others are the emulator's own, made in the same manner.
CODES = {
    400: "ERR_BAD_REQUEST",
    401: "ERR_UNAUTHORIZED",
    403: "ERR_FORBIDDEN",
    404: "ERR_NOT_FOUND",
    405: "ERR_METHOD_NOT_ALLOWED",
    408: "ERR_REQUEST_TIMEOUT",
    409: "ERR_CONFLICT",
    413: "ERR_PAYLOAD_TOO_LARGE",
    416: "ERR_RANGE_NOT_SATISFIABLE",
    429: "ERR_TOO_MANY_REQUESTS",
    500: "ERR_INTERNAL_SERVER_ERROR",
    503: "ERR_SERVICE_UNAVAILABLE",
    504: "ERR_GATEWAY_TIMEOUT",
}

# RFC 3986 2.1: a percent sign begins a triplet, or the text is malformed.
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


class Refusal(Exception):
    """The service says no: a status of 400 or more, a code, and a message that helps.

    ``headers`` go out with the answer; ``code`` defaults to the one that ``CODES`` gives the status.
    """

    def __init__(
        self, status: int, message: str, *, code: str | None = None, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code: str = code or CODES.get(status, f"ERR_HTTP_{status}")
        self.message = message
        self.headers = headers


def invalid(message: str) -> Refusal:
    """Return the refusal of input that can be read but makes no sense."""
    return Refusal(400, message, code="ERR_VALIDATION_FAILED")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as it arrived.

    ``target`` is the request target byte for byte; ``headers`` are the field lines in their order, as text
    whose code points are the received bytes, and do not show in the ``repr``; ``body`` is a binary file,
    placed at its start.

    >>> target = "/sandboxes/a%2Fb?path=%2Ftmp&path=x+y"
    >>> request = Request(method="GET", target=target, headers=(("Host", "h"),))
    >>> request.header("host"), request.path, request.segments(), request.query()
    ('h', '/sandboxes/a%2Fb', ('sandboxes', 'a/b'), {'path': 'x y'})
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: IO[bytes] = field(default_factory=BytesIO)

    @property
    def path(self) -> str:
        """The target before its first ``?``, as sent."""
        return self.target.partition("?")[0]

    @property
    def raw_query(self) -> str:
        """The target after its first ``?``, as sent; empty when there is none."""
        return self.target.partition("?")[2]

    def values(self, name: str) -> list[str]:
        """Return the value of every field line called ``name`` (any case), without outer white space."""
        name = name.lower()
        return [value.strip(" \t") for key, value in self.headers if key.lower() == name]

    def header(self, name: str) -> str | None:
        """Return the first value of the field ``name``, or None."""
        return next(iter(self.values(name)), None)

    def segments(self) -> tuple[str, ...]:
        """Split the path at ``/``, then decode each segment: ``a%2Fb`` stays one segment.

        Raises ``Refusal`` (400) where the path is not one that begins with ``/``, an escape is malformed,
        or a segment is ``.`` or ``..``, encoded or not.
        """
        if not self.path.startswith("/"):
            raise Refusal(400, "The request target must be a path that begins with '/'.")
        parts = tuple(_decode(part, "path") for part in self.path[1:].split("/"))
        if any(part in (".", "..") for part in parts):
            raise Refusal(400, "The path has a segment that is '.' or '..'; send the path that you mean.")
        return parts

    def query(self) -> dict[str, str]:
        """Read the query as a form is read; of a repeated name, the last value counts.

        Raises ``Refusal`` (400) where an escape is malformed or what it gives is not UTF-8.
        """
        pairs = (piece.partition("=") for piece in self.raw_query.split("&") if piece)
        return {
            _decode(k.replace("+", " "), "query"): _decode(v.replace("+", " "), "query") for k, _, v in pairs
        }


def _decode(text: str, place: str) -> str:
    if _BAD_PERCENT.search(text):
        raise Refusal(400, f"The {place} has a '%' that begins no escape; write '%25' for a percent sign.")
    try:
        return unquote_to_bytes(text.encode("latin-1")).decode("utf-8")
    except UnicodeDecodeError:
        raise Refusal(400, f"The {place} is not UTF-8 once its escapes are decoded.") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileBody:
    """A part of a file that is to be sent: ``length`` bytes of ``path``, from ``offset`` on.

    >>> from pathlib import Path
    >>> len(FileBody(path=Path("video.mkv"), offset=100, length=20))
    20
    """

    path: Path
    offset: int
    length: int

    def __len__(self) -> int:
        return self.length


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamBody:
    """A body that comes into being while it is sent: its ``events``, one after the other, each encoded.

    ``failure`` is the event that says, in this stream's own way, that something has gone wrong in the middle.

    >>> "".join(event.decode() for event in StreamBody(events=(b"a", b"b"), failure=b"!").events)
    'ab'
    """

    events: Iterable[bytes]
    failure: bytes


# How a stream may end before its time.
Ending = Literal["cut", "stall", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One answer, and what is to happen to it on its way.

    - ``delay``: a pause in seconds before it is sent.
    - ``cut_after``: the number of body bytes after which the connection is closed.
    - ``drop``: close without sending anything. ``drop_next``: send the answer, and close when the
      connection's next request begins to arrive.
    - ``rate``: how many bytes of the body are sent in a second; None: as fast as they go.
    - ``pace``: a pause in seconds between the events of a stream.
    - ``ending``: what happens after ``events_before`` events of a stream: the connection is closed
      (``cut``), nothing more comes until the client leaves (``stall``), or the stream's ``failure`` comes and
      ends it (``error``).

    >>> Response(status=200, body=b"{}").body
    b'{}'
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | FileBody | StreamBody = b""
    delay: float = 0.0
    cut_after: int | None = None
    drop: bool = False
    drop_next: bool = False
    rate: int | None = None
    pace: float = 0.0
    ending: Ending | None = None
    events_before: int = 0

    def header(self, name: str) -> str | None:
        """Return the first value of the field ``name`` (any case), or None."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def json(self) -> Any:
        """Decode the body; for tests, where answers are small. Raises ``ValueError`` where it is no JSON."""
        if not isinstance(self.body, bytes):
            raise ValueError("the body is a file or a stream, not JSON")
        return json.loads(self.body)


def json_response(status: int, value: Any, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """Return ``value`` as a JSON answer."""
    body = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return Response(status=status, headers=(("Content-Type", "application/json"), *headers), body=body)
