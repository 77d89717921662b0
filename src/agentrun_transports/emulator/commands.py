"""What a connection of the emulator asks of whoever performs it: bytes in, bytes out, time.

A conversation is a generator of these commands, so that it can be held over a socket in a thread, and in a
simulation, where time is virtual. Rules that hold here:
1. A command is a question with an answer, and does nothing itself.
2. ``OSError``, thrown into the conversation, says that the peer is gone.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import IO, Any, TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Receive:
    """Wait for bytes, at most ``size``: the answer, empty at the peer's end. Silence for too long is an
    ``OSError``.
    """

    size: int


@dataclass(frozen=True, slots=True)
class Send:
    """Send bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class SendFile:
    """Send ``count`` bytes of an open file, from ``offset`` on."""

    file: IO[bytes]
    offset: int
    count: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so many seconds, for ever where that is None. It is an ``OSError`` where the peer leaves first.

    What the peer sends meanwhile is kept for the next ``Receive``.
    """

    seconds: float | None


@dataclass(frozen=True, slots=True)
class AwaitArrival:
    """Wait for the first byte of another request, or the peer's end, without reading it."""


@dataclass(frozen=True, slots=True)
class Linger:
    """End our side, and throw away what still comes, for so many seconds or until the peer ends, too."""

    seconds: float


Command = Receive | Send | SendFile | Pause | AwaitArrival | Linger

Flow = Generator[Command, Any, Result]
