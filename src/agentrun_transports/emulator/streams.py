"""Answers that arrive piece by piece: server-sent events and NDJSON, encoded.

The encoding of events is that of the WHATWG HTML standard (9.2.6): one ``data`` line for each line of the
data, an empty line at the end.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .messages import CODES, Response, StreamBody

if TYPE_CHECKING:
    from collections.abc import Iterable

# What an event says of a fault that was asked for.
FAILED = {"code": CODES[500], "message": "This fault was asked for."}


def event(
    data: str, *, kind: str | None = None, identifier: str | None = None, retry: int | None = None
) -> bytes:
    """Return one server-sent event; ``kind`` is its type, ``retry`` in milliseconds.

    ``kind`` and ``identifier`` must hold no line end.

    >>> event("a\\nb", kind="note", identifier="7", retry=10)
    b'retry: 10\\nid: 7\\nevent: note\\ndata: a\\ndata: b\\n\\n'
    """
    lines = [f"data: {line}" for line in data.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    fields = (("event", kind), ("id", identifier), ("retry", retry))
    for name, value in fields:
        if value is not None:
            lines.insert(0, f"{name}: {value}")
    return ("\n".join(lines) + "\n\n").encode()


def compact(value: Any) -> str:
    """Return ``value`` as JSON in one line.

    >>> compact({"a": "ü"})
    '{"a":"ü"}'
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def event_stream(events: Iterable[bytes], failure: bytes) -> Response:
    """Return an answer of server-sent events."""
    # What is live is not to be kept by anyone on the way.
    headers = (("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache"))
    return Response(status=200, headers=headers, body=StreamBody(events=events, failure=failure))


def line_stream(values: Iterable[Any]) -> Response:
    """Return an answer of JSON values, one in each line. A failure is the object ``{"error": {...}}``."""
    headers = (("Content-Type", "application/x-ndjson"), ("Cache-Control", "no-cache"))
    lines = (f"{compact(value)}\n".encode() for value in values)
    failure = f"{compact({'error': FAILED})}\n".encode()
    return Response(status=200, headers=headers, body=StreamBody(events=lines, failure=failure))
