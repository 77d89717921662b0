"""Bugs, planted one at a time, to know that the simulation's nets hold.

Rules of this file: each is a mistake that a client could really make, and the least that makes it;
`within` is the number of seeds, from 0 on, among which it must be found.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from agentrun_proto import Request, messages, recovery
from agentrun_proto.retry import Outcome
from agentrun_transports import _exchange
from agentrun_transports._flights import Flights
from agentrun_transports._pool import Pool
from agentrun_transports._wire import Wire

from .workload import DRIVERS

LOOPS = DRIVERS[1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """A bug: how it is planted, where it shows, what the failure says, among how many seeds it is found."""

    plant: Callable[[pytest.MonkeyPatch], None]
    drivers: tuple[str, ...]
    told: str
    within: int


def _left_over(patch: pytest.MonkeyPatch) -> None:
    """A connection is used again with bytes left over after its answer."""
    begin = Wire.begin

    def begin_where_it_stands(wire: Any, method: str) -> None:
        at = wire._start, wire._end
        begin(wire, method)
        wire._start, wire._end = at

    patch.setattr(Wire, "reusable", property(lambda wire: wire._done and wire._keep_alive))
    patch.setattr(Wire, "begin", begin_where_it_stands)


def _repeated(patch: pytest.MonkeyPatch) -> None:
    """What may have been done already is sent again, whatever it is."""
    patch.setattr(recovery, "may_repeat", lambda outcome, request: outcome is not Outcome.FINAL)


def _held(patch: pytest.MonkeyPatch) -> None:
    """Whoever is cancelled while waiting for a connection keeps the place in the queue."""
    patch.setattr(Pool, "cancel", lambda pool, ticket: None)


def _injected(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks for line breaks in the value of a field, nor in the head as a whole."""

    def encode_head(request: Request) -> bytes:
        fields = {"Host": request.origin.authority, **dict(request.fields())}
        lines = [f"{request.method} {request.target} HTTP/1.1", *map(": ".join, fields.items())]
        return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")

    patch.setattr(messages, "_VALUE", re.compile("(?s).*"))
    patch.setattr(_exchange, "encode_head", encode_head)


def _storm(patch: pytest.MonkeyPatch) -> None:
    """Whoever needs a new credential fetches one, though one is being fetched."""
    join: Any = Flights.join
    patch.setattr(Flights, "join", lambda flights, key: (join(flights, key)[0], True))


PLANTS = {
    "a connection used again with bytes left over": Plant(
        plant=_left_over, drivers=DRIVERS, told="ended in", within=100
    ),
    "an ambiguous POST repeated": Plant(
        plant=_repeated, drivers=DRIVERS, told="it was done 2 times", within=100
    ),
    "a place in the pool held over a cancel": Plant(
        plant=_held, drivers=LOOPS, told="places are in use", within=100
    ),
    "no look for CR and LF": Plant(
        plant=_injected, drivers=DRIVERS, told="field line of its own", within=100
    ),
    "a refresh storm": Plant(plant=_storm, drivers=LOOPS, told="a refresh storm", within=100),
}
