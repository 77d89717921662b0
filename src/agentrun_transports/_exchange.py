"""One request on one connection, as a flow of network commands.

The core's flows ask for exchanges: send this, read the answer. Here each of these becomes what a network can
do: connect, write, read, wait, run. A driver performs the latter and knows nothing of HTTP; what is written
here serves all drivers.

Rules of this file:

- A place in the pool is owned from `checkout` until it is given back, exactly once, whatever happens: by
  `_release` when the connection is fit for another request, by `_drop` otherwise. Both are plain calls, so a
  cancellation at any yield leaves nothing behind.
- A failure is told by the part it happened in, and by whether the service may have acted on the request.
- A connection that dies before the first byte of an answer, having served before, was closed by the peer as
  idle (RFC 9112, 9.3.1): an idempotent request goes out once more, on a fresh connection.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from math import inf
from typing import Any, Generic, Protocol, TypeVar, cast

from agentrun_proto import (
    Body,
    BodyError,
    Clock,
    Command,
    Commit,
    ConnectError,
    ConnectTimeout,
    FileError,
    Flow,
    Head,
    IncompleteError,
    OpenSink,
    OpenSource,
    Origin,
    PoolTimeout,
    ReadAll,
    ReadInto,
    ReadTimeout,
    Send,
    Source,
    TransportError,
    WriteTimeout,
)
from agentrun_proto.messages import IDEMPOTENT_METHODS

from ._drive import conduct
from ._files import FileSink, FileSource
from ._pool import Pool, Pooled, Ticket
from ._wire import Wire, encode_head

Result = TypeVar("Result")
Answer = TypeVar("Answer")

SMALL = 65536  # a request up to this many bytes goes out in one piece
CHUNK = 262144  # larger ones in pieces of this size (measured: 256 KiB to 1 MiB are alike)


class Link(Pooled, Protocol):
    """A connection, as an exchange knows it. Each driver has its own."""

    wire: Wire
    used: bool
    """Whether it has served a request before."""

    def take_in(self) -> int | None:
        """Takes into the wire what has arrived, without waiting: its size; 0 at the end, None if none."""
        ...


class Connect(Command[Link]):
    """Open a connection. Raises OSError, or TLSError."""

    __slots__ = ("deadline", "origin")

    def __init__(self, origin: Origin, deadline: float) -> None:
        self.origin = origin
        self.deadline = deadline


class Write(Command[int]):
    """Send some of these bytes, at least one; answer with how many. Raises OSError.

    With `watch`, something that arrives ends the wait for room too; the answer may then be 0.
    """

    __slots__ = ("data", "deadline", "link", "watch")

    def __init__(self, link: Link, data: bytes | memoryview, deadline: float, watch: bool) -> None:
        self.link = link
        self.data = data
        self.deadline = deadline
        self.watch = watch


class Read(Command[int]):
    """Receive into the link's wire, at least a byte; answer with how many, 0 at the end. Raises OSError."""

    __slots__ = ("deadline", "link")

    def __init__(self, link: Link, deadline: float) -> None:
        self.link = link
        self.deadline = deadline


class Wait(Command[None]):
    """Wait until a ticket is ready. Raises TimeoutError."""

    __slots__ = ("deadline", "ticket")

    def __init__(self, ticket: Ticket[Any], deadline: float) -> None:
        self.ticket = ticket
        self.deadline = deadline


def _nothing(answer: object) -> None:
    pass


class Run(Command[Answer], Generic[Answer]):
    """Run a blocking call where it holds nobody up. Raises what the call raises."""

    __slots__ = ("function", "undo")
    deadline = inf  # a thread cannot be stopped

    def __init__(self, function: Callable[[], Answer], undo: Callable[[Answer], None] = _nothing) -> None:
        self.function = function
        self.undo = undo
        """What to do with an answer that comes after the flow was cancelled."""


NetworkCommand = Connect | Write | Read | Wait | Run[Any]
"""All that a driver performs. TimeoutError stands for a deadline (monotonic seconds) that has passed."""

Steps = Generator[Command[Any], Any, Answer]
"""A flow of network commands."""

Operation = Callable[[Clock], Flow[Result]]
"""What is to be done: a function from the driver's clock to a flow of the core."""


class _Vanished(Exception):
    """The connection was gone before the first byte of an answer."""


class Exchange:
    """Turns the commands of one flow into network commands.

    Args:
        pool: the connections.
        clock: for the deadlines of the parts.
    """

    __slots__ = ("_clock", "_command", "_link", "_origin", "_pool")

    def __init__(self, pool: Pool[Link], clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._link: Link | None = None
        self._origin: Origin | None = None  # of the place that is owned, if one is

    def conduct(self, flow: Flow[Result]) -> Steps[Result]:
        """The flow, as a flow of network commands. However it ends, nothing stays open."""
        try:
            return (yield from conduct(flow, self._perform))
        finally:
            self._drop()

    def _perform(self, command: Command[Any]) -> Steps[Any]:
        return _PERFORM[type(command)](self, command)

    # Places and connections

    def _drop(self) -> None:
        """Closes the connection, if there is one, and gives its place back."""
        link, origin = self._link, self._origin
        self._link = self._origin = None
        if link is not None:
            link.abort()
        if origin is not None:
            self._pool.forfeit(origin)

    def _release(self) -> None:
        """The answer is complete: the connection is for the next caller, if it is fit for one."""
        link = self._link
        if link is None or not link.wire.reusable:
            self._drop()
            return
        self._link = self._origin = None
        link.used = True
        self._pool.checkin(link)

    def _until(self, part: float | None) -> float:
        """The deadline of a part that begins now."""
        whole = self._command.deadline
        return whole if part is None else min(whole, self._clock.monotonic() + part)

    def _get_link(self, origin: Origin) -> Steps[Link]:
        found = self._pool.checkout(origin)
        if isinstance(found, Ticket):
            if not found.ready:
                yield from self._wait(found)
            link = found.connection
        else:
            link = found
        self._origin, self._link = origin, link
        if link is not None and link.take_in() is None and link.wire.reusable:
            return link
        if link is not None:
            self._link = None
            link.abort()
        return (yield from self._connect(origin))

    def _wait(self, ticket: Ticket[Link]) -> Steps[None]:
        try:
            yield Wait(ticket, self._until(self._command.timeout.pool))
        except TimeoutError:
            self._pool.cancel(ticket)
            raise PoolTimeout("no connection became free in time; raise the limits, or the timeout") from None
        except BaseException:
            self._pool.cancel(ticket)
            raise

    def _connect(self, origin: Origin) -> Steps[Link]:
        try:
            link: Link = yield Connect(origin, self._until(self._command.timeout.connect))
        except TimeoutError as error:
            raise ConnectTimeout(f"no connection to {origin} in time") from error
        except OSError as error:
            raise ConnectError(f"cannot connect to {origin}: {error}") from error
        self._link = link
        return link

    # The commands of the core

    def _send(self, command: Send) -> Steps[Head]:
        self._drop()
        self._command = command
        request = command.request
        head_bytes = encode_head(request)
        link = yield from self._get_link(request.origin)
        while True:
            link.wire.begin(request.method)
            try:
                return (yield from self._transmit(link, request.body, head_bytes))
            except _Vanished as vanished:
                retry = link.used and request.method in IDEMPOTENT_METHODS
                link.abort()
                self._link = None
                if not retry:
                    raise IncompleteError(
                        "the connection was closed before an answer came"
                    ) from vanished.__cause__
            for segment in request.body.segments:
                if not isinstance(segment, bytes):
                    yield from self._file(segment.rewind)
            link = yield from self._connect(request.origin)

    def _transmit(self, link: Link, body: Body, head_bytes: bytes) -> Steps[Head]:
        """Sends the request; returns the head of the answer, which may come before all of it is sent."""
        if body.length <= SMALL and (content := body.data) is not None:
            yield from self._write(link, head_bytes + content if content else head_bytes)
            return (yield from self._await_head(link))
        yield from self._write(link, head_bytes)
        for segment in body.segments:
            sent = 0
            size = len(segment) if isinstance(segment, bytes) else segment.length
            while sent < size:
                piece = yield from self._piece(segment, sent, min(CHUNK, size - sent))
                head = yield from self._write_watching(link, piece)
                if head is not None:
                    link.wire.spoil()
                    return head
                sent += len(piece)
        return (yield from self._await_head(link))

    def _piece(self, segment: bytes | Source, sent: int, size: int) -> Steps[bytes]:
        if isinstance(segment, bytes):
            return segment[sent : sent + size]
        piece: bytes = yield from self._file(partial(segment.read, size))
        if not piece:
            raise BodyError(
                f"the file ended {segment.length - sent} bytes before the length it had when opened"
            )
        return piece

    def _write_watching(self, link: Link, piece: bytes) -> Steps[Head | None]:
        """Sends a piece of a long body; returns the head of an answer that comes meanwhile.

        Most often, that is why the service will not have the body. It may close the connection with the rest
        unread: then the answer is what it said before that.
        """
        rest = memoryview(piece)
        while rest:
            if (head := self._early_head(link)) is not None:
                return head
            try:
                count: int = yield Write(link, rest, self._until(self._command.timeout.write), True)
            except TimeoutError as error:
                raise WriteTimeout("the request could not be sent in time") from error
            except OSError as error:
                try:
                    return (yield from self._await_head(link))
                except _Vanished:
                    raise _Vanished from error
            rest = rest[count:]
        return None

    def _early_head(self, link: Link) -> Head | None:
        arrived = link.take_in()
        if arrived == 0:
            if not link.wire.started:
                raise _Vanished
            link.wire.end_of_stream()
        return None if arrived is None else link.wire.read_head()

    def _write(self, link: Link, data: bytes) -> Steps[None]:
        rest: bytes | memoryview = data
        while True:
            try:
                count: int = yield Write(link, rest, self._until(self._command.timeout.write), False)
            except TimeoutError as error:
                raise WriteTimeout("the request could not be sent in time") from error
            except OSError as error:
                raise _Vanished from error
            if count == len(rest):
                return
            rest = memoryview(rest)[count:]

    def _read(self, link: Link) -> Steps[None]:
        wire = link.wire
        try:
            count: int = yield Read(link, self._until(self._command.timeout.read))
        except TimeoutError as error:
            raise ReadTimeout("the service did not answer, or stopped answering, in time") from error
        except OSError as error:
            if not wire.started:
                raise _Vanished from error
            raise IncompleteError(f"the connection broke in the middle of the answer: {error}") from error
        if not count:
            if not wire.started:
                raise _Vanished
            wire.end_of_stream()

    def _await_head(self, link: Link) -> Steps[Head]:
        wire = link.wire
        head = wire.read_head()
        while head is None:
            yield from self._read(link)
            head = wire.read_head()
        return head

    def _read_all(self, command: ReadAll) -> Steps[bytes]:
        link = self._answering()
        content = link.wire.read_all(command.limit)
        while content is None:
            yield from self._read(link)
            content = link.wire.read_all(command.limit)
        self._release()
        return content

    def _read_into(self, command: ReadInto) -> Steps[int]:
        link = self._answering()
        wire = link.wire
        sink = cast("FileSink", command.sink)
        room = memoryview(bytearray(CHUNK))
        while not wire.done:
            count = wire.fill(room)
            if count is None:
                yield from self._read(link)
            elif count:
                yield from self._file(partial(sink.write, room[:count]))
        self._release()
        return sink.size

    def _answering(self) -> Link:
        if self._link is None:
            raise TransportError("there is no answer to read: nothing was sent, or it has been read already")
        return self._link

    def _file(self, function: Callable[[], Answer]) -> Steps[Answer]:
        try:
            return (yield from Run(function))
        except OSError as error:
            raise file_error(error) from error

    def _open(self, function: Callable[[], Answer], undo: Callable[[Answer], None]) -> Steps[Answer]:
        try:
            return (yield from Run(function, undo))
        except OSError as error:
            raise file_error(error, may_be_processed=False) from error

    def _open_source(self, command: OpenSource) -> Steps[FileSource]:
        return self._open(partial(FileSource, command.path), FileSource.close)

    def _open_sink(self, command: OpenSink) -> Steps[FileSink]:
        return self._open(partial(FileSink, command.path), FileSink.discard)

    def _commit(self, command: Commit) -> Steps[None]:
        return self._file(cast("FileSink", command.sink).commit)


def file_error(error: OSError, *, may_be_processed: bool = True) -> FileError:
    """Our error for the operating system's, about a local file."""
    name = f"{error.filename}: " if error.filename else ""
    return FileError(f"{name}{error.strerror or error}", may_be_processed=may_be_processed)


_PERFORM: dict[type[Command[Any]], Callable[..., Steps[Any]]] = {
    Send: Exchange._send,  # pyright: ignore[reportPrivateUsage] - the table of this class's own methods
    ReadAll: Exchange._read_all,  # pyright: ignore[reportPrivateUsage]
    ReadInto: Exchange._read_into,  # pyright: ignore[reportPrivateUsage]
    OpenSource: Exchange._open_source,  # pyright: ignore[reportPrivateUsage]
    OpenSink: Exchange._open_sink,  # pyright: ignore[reportPrivateUsage]
    Commit: Exchange._commit,  # pyright: ignore[reportPrivateUsage]
}
