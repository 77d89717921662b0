"""All that a flow may ask of its driver.

A flow is a generator: it yields commands, is sent their answers, and returns its result. A driver performs
the commands and throws failures in; `AgentRunClientError` is all that a flow expects.

Rules of this file: a command is a question with a typed answer and does nothing itself; what must hold after
a cancellation is never a command, but a plain call on a value that a command has returned.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Generic, Protocol, TypeVar

from .config import Timeout
from .messages import Head, Request, Source

Answer = TypeVar("Answer")
Result = TypeVar("Result")


class Command(Generic[Answer]):
    """A question to the driver; ``answer = yield from command`` is typed."""

    __slots__ = ()

    def __iter__(self) -> Generator[Command[Any], Any, Answer]:
        answer: Answer = yield self
        return answer


Flow = Generator[Command[Any], Any, Result]
"""A generator of commands that returns a `Result`."""


class Clock(Protocol):
    """Where time comes from; injected, so that a test can turn it."""

    def now(self) -> float:
        """Wall time in seconds since the epoch, UTC: for signatures and dates."""
        ...

    def monotonic(self) -> float:
        """Seconds that never jump: for deadlines."""
        ...


class Sink(Protocol):
    """Where an answer is saved to: nothing shows at the target until it is committed."""

    def discard(self) -> None:
        """Removes whatever was written. Plain, never a command; harmless after `Commit`."""
        ...


class Send(Command[Head]):
    """Send a request, and answer with the head of the final response.

    Args:
        request: signed, ready to go.
        timeout: the limits of each part.
        deadline: monotonic time at which the whole call is over.

    Raises (thrown in):
        TransportError: no head arrived; the class says why and in which part.
    """

    __slots__ = ("deadline", "request", "timeout")

    def __init__(self, request: Request, timeout: Timeout, deadline: float) -> None:
        self.request = request
        self.timeout = timeout
        self.deadline = deadline


class ReadAll(Command[bytes]):
    """Read the content that belongs to the last head, and answer with all of it.

    Raises (thrown in):
        TransportError: it did not arrive whole.
        DecodeError: it is larger than `limit` bytes.
    """

    __slots__ = ("limit",)

    def __init__(self, limit: int) -> None:
        self.limit = limit


class ReadInto(Command[int]):
    """Read the content that belongs to the last head into a sink, and answer with its length in bytes.

    Raises (thrown in):
        TransportError: it did not arrive whole.
        FileError: it could not be written.
    """

    __slots__ = ("sink",)

    def __init__(self, sink: Sink) -> None:
        self.sink = sink


class OpenSource(Command[Source]):
    """Open a local file to be sent.

    Raises (thrown in):
        FileError: it is missing, no regular file, or not readable.
    """

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path


class OpenSink(Command[Sink]):
    """Make sure that a file can be saved at a path, and open what it will be written to first.

    Raises (thrown in):
        FileError: the path is a directory, its folder is missing or not writable.
    """

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path


class Commit(Command[None]):
    """Make what was written to a sink appear at its path, at once and whole.

    Raises (thrown in):
        FileError: that failed; nothing has changed at the path.
    """

    __slots__ = ("sink",)

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
