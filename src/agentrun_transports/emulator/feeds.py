"""Two streams of numbers, for trying out how streams are read and resumed; the live service has none such.

- ``GET /2025-09-10/agents/events?count=10&from=1&retry=10``: server-sent events, whose ids are their
  numbers; ``retry`` is in milliseconds. With ``Last-Event-ID`` it goes on after that; 204 says that all have
  been seen, and ends the reconnecting (WHATWG HTML 9.2.3).
- ``GET /2025-09-10/agents/lines?count=10&from=1``: the same as NDJSON.

No collection of resources can be called ``events`` or ``lines``, therefore.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .messages import Response, invalid
from .resources import VERSION
from .routing import Call, Route, query_number
from .streams import FAILED, compact, event, event_stream, line_stream

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX = 999_999_999


def routes() -> list[Route]:
    """Return the routes; they come before those of any collection."""
    return [
        Route(method="GET", pattern=(VERSION, "agents", "events"), handler=_events, bare=True),
        Route(method="GET", pattern=(VERSION, "agents", "lines"), handler=_lines, bare=True),
    ]


def _numbers(call: Call) -> range:
    first = query_number(call.query, "from", 1, 0, _MAX)
    return range(first, first + query_number(call.query, "count", 10, 0, _MAX))


def _events(call: Call) -> Response:
    numbers, retry = _numbers(call), query_number(call.query, "retry", 10, 0, _MAX)
    last = call.request.header("Last-Event-ID")
    if last:
        if not re.fullmatch("[0-9]{1,10}", last):
            raise invalid(f"Last-Event-ID is the id of an event that was sent, and is {last!r}.")
        numbers = range(max(numbers.start, int(last) + 1), numbers.stop)
    if not numbers:
        return Response(status=204)

    def encoded() -> Iterator[bytes]:
        for number in numbers:
            yield event(
                compact({"number": number}),
                identifier=str(number),
                retry=retry if number == numbers.start else None,
            )

    return event_stream(encoded(), event(compact({"error": FAILED}), kind="error"))


def _lines(call: Call) -> Response:
    return line_stream({"number": number} for number in _numbers(call))
