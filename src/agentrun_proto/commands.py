"""All that a flow may ask of its driver.

A flow is a generator: it yields commands, is sent their answers, and returns its result. A driver performs
the commands and throws failures in; `AgentRunClientError` is all that a flow expects.

Rules of this file: a command is a question with a typed answer and does nothing itself; what must hold after
a cancellation is never a command, but a plain call on a value that a command has returned.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, BinaryIO, Generic, Protocol, TypeVar

from .config import Timeout
from .credentials import Credential, Provider
from .messages import Body, Head, Request, Source
from .telemetry import Observer

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

    @property
    def size(self) -> int:
        """How many bytes it holds."""
        ...

    @property
    def validator(self) -> str | None:
        """What tells the version of the content that these bytes are of: an ``If-Range`` value."""
        ...

    def digest(self, name: str) -> bytes:
        """The checksum of what it holds; one of those that `Prepare` was asked for."""
        ...

    def discard(self) -> None:
        """Lets go of it. Plain, never a command; harmless after `Commit`.

        What was written is removed, unless it is there to be resumed.
        """
        ...

    def spoil(self) -> None:
        """What it holds is of no use: `discard` removes it in any case."""
        ...


Progress = Callable[[int, "int | None"], None]
"""Is told how many bytes are done, and of how many, where that is known."""


class Send(Command[Head]):
    """Send a request, and answer with the head of the final response.

    Args:
        request: signed, ready to go.
        timeout: the limits of each part.
        deadline: monotonic time at which the whole call is over.
        observer: who is told of connections; None for nobody.
        progress: is told how much of the body was sent; None for nobody.

    Raises (thrown in):
        TransportError: no head arrived; the class says why and in which part.
    """

    __slots__ = ("deadline", "observer", "progress", "request", "timeout")

    def __init__(
        self,
        request: Request,
        timeout: Timeout,
        deadline: float,
        observer: Observer | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.request: Request = request
        self.timeout: Timeout = timeout
        self.deadline: float = deadline
        self.observer: Observer | None = observer
        self.progress: Progress | None = progress


class ReadAll(Command[bytes]):
    """Read the content that belongs to the last head, and answer with all of it.

    Raises (thrown in):
        TransportError: it did not arrive whole.
        DecodeError: it is larger than `limit` bytes.
    """

    __slots__ = ("limit",)

    def __init__(self, limit: int) -> None:
        self.limit: int = limit


class ReadSome(Command[bytes]):
    """Read what is there of the content that belongs to the last head: at least a byte, ``b""`` at its end.

    Raises (thrown in):
        TransportError: it did not go on, or does not end as it should.
    """

    __slots__ = ()


class ReadInto(Command[int]):
    """Read the content that belongs to the last head into a sink, at its end; answer with the sink's size.

    Args:
        sink: where to.
        total: how large the sink will be in the end, if that is known.
        progress: is told how large it is; None for nobody.

    Raises (thrown in):
        TransportError: it did not arrive whole; what arrived is in the sink.
        FileError: it could not be written.
    """

    __slots__ = ("progress", "sink", "total")

    def __init__(self, sink: Sink, total: int | None = None, progress: Progress | None = None) -> None:
        self.sink: Sink = sink
        self.total: int | None = total
        self.progress: Progress | None = progress


class Deliver(Command[Any]):
    """Hand something to whoever runs this flow, who answers when it wants the next.

    Only a flow that is run piece by piece yields this: a stream.
    """

    __slots__ = ("items",)

    def __init__(self, items: list[Any]) -> None:
        self.items: list[Any] = items


class OpenSource(Command[Source]):
    """Open a local file to be sent.

    Raises (thrown in):
        FileError: it is missing, no regular file, or not readable.
    """

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path: str = path


class OpenSink(Command[Sink]):
    """Make sure that content can be saved, and open what it will be written to first.

    At a path it is a file that shows when it is whole. An open binary file is written to where it stands.

    With a `source`, which is a text that tells the content apart, what was written stays when it is not
    committed, and is taken up by the next who names the same source.

    Raises (thrown in):
        FileError: the path is a directory, its folder is missing or not writable; another process is at it.
    """

    __slots__ = ("path", "source")

    def __init__(self, path: str | BinaryIO, source: str | None = None) -> None:
        self.path: str | BinaryIO = path
        self.source: str | None = source


class Prepare(Command[None]):
    """Make a sink ready for content: cut it to a size, and note whose content it is.

    Args:
        sink: the sink.
        size: how many of its bytes stay, which are the first of the content.
        validator: tells the version of the content; None where nothing does.
        digests: the checksums to keep of all that it holds: ``md5``, ``sha256``, ``crc64ecma``.

    Raises (thrown in):
        FileError: that failed.
    """

    __slots__ = ("digests", "sink", "size", "validator")

    def __init__(self, sink: Sink, size: int, validator: str | None, digests: tuple[str, ...]) -> None:
        self.sink: Sink = sink
        self.size: int = size
        self.validator: str | None = validator
        self.digests: tuple[str, ...] = digests


class Commit(Command[None]):
    """Make what was written to a sink appear at its path, at once and whole.

    Raises (thrown in):
        FileError: that failed; nothing has changed at the path.
    """

    __slots__ = ("sink",)

    def __init__(self, sink: Sink) -> None:
        self.sink: Sink = sink


class Rewind(Command[None]):
    """Have the sources of a body read from their start again.

    Raises (thrown in):
        FileError: one cannot be.
    """

    __slots__ = ("body",)

    def __init__(self, body: Body) -> None:
        self.body: Body = body


class Sleep(Command[None]):
    """Let so many seconds pass, by the monotonic clock."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds: float = seconds


class RandomBytes(Command[bytes]):
    """So many bytes that nobody can foresee."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size: int = size


class Provide(Command["Credential | None"]):
    """Ask a provider for a credential: call it, off the event loop unless it is ``async``.

    Raises (thrown in):
        CredentialError: it failed; what it raised is the cause.
    """

    __slots__ = ("provider",)

    def __init__(self, provider: Provider) -> None:
        self.provider: Provider = provider


class Refresh(Command["Credential | None"]):
    """Run a flow that renews a credential: once for all who ask with the same key while it runs.

    It runs beside those who ask: a cancellation of one of them does not end it. Its failure is that of all
    who wait, and of nobody who asks later.

    Args:
        key: what is renewed.
        flow: makes the flow, of commands like any other.
        deadline: monotonic time until which the answer is waited for.
        wait: whether to wait for it; otherwise the answer is None, at once.

    Raises (thrown in):
        CredentialError: the flow failed; its error is the cause.
        TimeoutExceeded: it did not end before the deadline.
    """

    __slots__ = ("deadline", "flow", "key", "wait")

    def __init__(
        self, key: object, flow: Callable[[], Flow[Credential]], *, deadline: float, wait: bool
    ) -> None:
        self.key: object = key
        self.flow: Callable[[], Flow[Credential]] = flow
        self.deadline: float = deadline
        self.wait: bool = wait
