"""From a request to the function that serves it: routes as data, bodies decoded before anything is locked.

Rules that hold here:
1. A route is a row: method, path pattern, what its body is, whether its answer comes in the envelope.
2. A handler is given a ``Call`` in which everything is decoded, and returns a JSON value or, for bytes, a
   ``Response``. It refuses by raising.
3. What is accepted is written down: a field of the wrong type, a number out of range, JSON that is not one
   object is refused with the name of the field.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

from .messages import Refusal, invalid

if TYPE_CHECKING:
    from .forms import Form
    from .messages import Request

# The longest JSON body, in bytes. JSON is decoded in memory; what is larger belongs into a file.
MAX_JSON = 16 << 20
# How deep it may be nested: enough for people, and far from the interpreter's own limit.
MAX_DEPTH = 100


class Body(Enum):
    """What a route reads."""

    NONE = "none"
    JSON = "json"
    FORM = "form"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request that has found its route. ``ids`` are the segments that stand where the pattern has ``*``."""

    request: Request
    ids: tuple[str, ...]
    query: Mapping[str, str]
    data: Mapping[str, Any]
    form: Form | None
    now: float

    def upload(self) -> Form:
        """Return the form of a route whose body is one."""
        assert self.form is not None
        return self.form

    def path(self) -> str:
        """Return the query's ``path``, which must be there."""
        if not self.query.get("path"):
            raise invalid("The query must have a 'path'.")
        return self.query["path"]


Handler = Callable[[Call], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One row of the table: ``*`` in ``pattern`` stands for any one segment that is not empty."""

    method: str
    pattern: tuple[str, ...]
    handler: Handler
    body: Body = Body.NONE
    bare: bool = False

    def match(self, segments: tuple[str, ...]) -> tuple[str, ...] | None:
        """Return the segments at the stars, or None where the pattern does not fit."""
        if len(segments) != len(self.pattern):
            return None
        pairs = tuple(zip(self.pattern, segments, strict=True))
        if any(part != segment if part != "*" else not segment for part, segment in pairs):
            return None
        return tuple(segment for part, segment in pairs if part == "*")


class Router:
    """Routes, the more special ones first: the first pattern that fits decides."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes: dict[tuple[str, ...], dict[str, Route]] = {}
        for route in routes:
            self._routes.setdefault(route.pattern, {})[route.method] = route

    def find(self, method: str, segments: tuple[str, ...]) -> tuple[Route, tuple[str, ...]]:
        """Return the route and its ids. HEAD finds the route of GET. Raises ``Refusal`` (404, 405)."""
        for by_method in self._routes.values():
            ids = next(iter(by_method.values())).match(segments)
            if ids is None:
                continue
            route = by_method.get("GET" if method == "HEAD" else method)
            if route is None:
                allow = ", ".join(sorted({*by_method} | ({"HEAD"} if "GET" in by_method else set[str]())))
                raise Refusal(405, f"{method} is not allowed here; {allow} is.", headers=(("Allow", allow),))
            return route, ids
        raise Refusal(404, f"There is nothing at {'/' + '/'.join(segments)!r}.")


def read_json(request: Request) -> dict[str, Any]:
    """Decode a body that must be one JSON object.

    Raises ``Refusal`` (400) for what is no strict JSON (RFC 8259, UTF-8, no NaN, no number beyond a double,
    no name twice, no lone surrogate), or no object; 413 beyond ``MAX_JSON`` bytes.
    """
    raw = request.body.read(MAX_JSON + 1)
    if len(raw) > MAX_JSON:
        raise Refusal(413, f"A JSON body may have {MAX_JSON} bytes; upload a file instead.")
    try:
        value = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
        )
        if b"\\ud" in raw.lower():
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Refusal(400, f"The body is not JSON: {reason}.") from None
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and _deeper_than(MAX_DEPTH, value):
        raise Refusal(400, f"The body is JSON nested deeper than {MAX_DEPTH}.")
    if not isinstance(value, dict):
        raise Refusal(400, f"The body must be a JSON object, and is of type {type(value).__name__}.")
    return cast("dict[str, Any]", value)


def _deeper_than(limit: int, value: Any) -> bool:
    level: list[Any] = [value]
    for _ in range(limit + 1):
        containers: list[Any] = [item for item in level if isinstance(item, dict | list)]
        if not containers:
            return False
        level = [inner for item in containers for inner in _inner(item)]
    return True


def _inner(item: Any) -> Iterable[Any]:
    return cast("Iterable[Any]", item.values() if isinstance(item, dict) else item)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("an object has a name twice")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is beyond the range of numbers")
    return value


def text(data: Mapping[str, Any], name: str, default: str | None = None) -> str:
    """Return the string ``name`` of a JSON object; without a default it must be there and not be empty."""
    value = data.get(name, default)
    if not isinstance(value, str) or (default is None and not value):
        raise invalid(f"{name!r} must be a string{'' if default is not None else ' that is not empty'}.")
    return value


def choice(data: Mapping[str, Any], name: str, default: str, choices: Sequence[str]) -> str:
    """Return the string ``name`` of a JSON object, which is one of ``choices``."""
    value = text(data, name, default)
    if value not in choices:
        raise invalid(f"{name!r} must be one of {', '.join(choices)}.")
    return value


def whole(data: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    """Return the whole number ``name`` of a JSON object, from ``least`` to ``most``."""
    value = data.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise invalid(f"{name!r} must be a whole number from {least} to {most}.")
    return value


def query_number(query: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    """Return the whole number ``name`` of a query, from ``least`` to ``most``."""
    value = query.get(name, str(default))
    if not re.fullmatch("[0-9]{1,9}", value) or not least <= int(value) <= most:
        raise invalid(f"{name!r} must be a whole number from {least} to {most}, and is {value!r}.")
    return int(value)


def flag(data: Mapping[str, Any], name: str, default: bool) -> bool:
    """Return the boolean ``name`` of a JSON object."""
    value = data.get(name, default)
    if not isinstance(value, bool):
        raise invalid(f"{name!r} must be true or false.")
    return value


def timestamp(seconds: float) -> str:
    """Return a time, in seconds since the epoch, as the service writes it.

    >>> timestamp(0)
    '1970-01-01T00:00:00Z'
    """
    return datetime.fromtimestamp(seconds, tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
