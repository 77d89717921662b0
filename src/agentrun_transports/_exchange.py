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

import os
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

from agentrun_proto import (
    AgentRunClientError,
    Body,
    BodyError,
    Clock,
    Command,
    ConnectError,
    ConnectionOpened,
    ConnectionReused,
    ConnectTimeout,
    Deliver,
    Flow,
    Head,
    IncompleteError,
    Origin,
    PoolTimeout,
    ReadAll,
    ReadInto,
    ReadSome,
    ReadTimeout,
    Send,
    Source,
    TransportError,
    WriteTimeout,
)

from ._files import FileSource, LocalSink
from ._flights import Flights
from ._local import Local
from ._network import Connect, Link, Read, SendFile, Steps, Wait, Write, sends_files
from ._pool import Pool, PoolTicket
from ._progress import Meter
from ._wire import Wire, encode_head

Result = TypeVar("Result")
Sent = TypeVar("Sent", int, "int | None")

SMALL = 65536  # a request up to this many bytes goes out in one piece
CHUNK = 524288  # larger ones in pieces of this size (measured: with half of it, loops take a third longer)
CONSENT = 1.0  # seconds that a peer has to say whether it wants the content
LAST_CHUNK = b"0\r\n\r\n"


def chunk(piece: bytes) -> bytes:
    """A piece of a body of unknown length, as it goes over the wire (RFC 9112, 7.1)."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


class _Vanished(Exception):
    """The connection was gone before the first byte of an answer."""


class _Unsendable(Exception):
    """The system does not send this file by itself."""


def _unsent(error: OSError) -> WriteTimeout | _Vanished:
    """What it means that a request, or its head, could not be sent."""
    if isinstance(error, TimeoutError):
        return WriteTimeout("the request could not be sent in time")
    return _Vanished()


def _unread(wire: Wire, error: OSError) -> ReadTimeout | IncompleteError | _Vanished:
    """What it means that nothing more of an answer could be read."""
    if isinstance(error, TimeoutError):
        return ReadTimeout("the service did not answer, or stopped answering, in time")
    if not wire.started:
        return _Vanished()
    return IncompleteError(f"the connection broke in the middle of the answer: {error}")


def _end_of_stream(wire: Wire) -> None:
    """The peer has closed its side."""
    if not wire.started:
        raise _Vanished
    wire.end_of_stream()


def _shrunk(missing: int) -> BodyError:
    return BodyError(f"the file ended {missing} bytes before the length it had when opened")


class Exchange(Local):
    """Turns the commands of one flow into network commands.

    Args:
        pool: the connections.
        clock: for the deadlines of the parts.
        flights: the refreshes of credentials that are under way; shared by all exchanges of a pool.
        random: gives so many random bytes.
    """

    __slots__ = ("_command", "_link", "_live", "_origin", "_pool")

    def __init__(
        self,
        pool: Pool[Link],
        clock: Clock,
        flights: Flights | None = None,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        super().__init__(clock, flights or Flights(), random)
        self._pool = pool
        self._link: Link | None = None
        self._live = False  # whether the answer is delivered piece by piece
        self._origin: Origin | None = None  # of the place that is owned, if one is

    def conduct(self, flow: Flow[Result]) -> Steps[Result]:
        """The flow, as a flow of network commands. However it ends, nothing stays open."""
        try:
            command = flow.send(None)
            while True:
                try:
                    if type(command) is Send:
                        answer: Any = yield from self._send(command)
                    elif type(command) is not ReadAll or (answer := self._read_now(command)) is None:
                        answer = yield from self.perform(command)
                except AgentRunClientError as error:
                    command = flow.throw(error)
                else:
                    command = flow.send(answer)
        except StopIteration as stop:
            return cast("Result", stop.value)
        finally:
            flow.close()
            if self._origin is not None:
                self._leave()

    def perform(self, command: Command[Any]) -> Steps[Any]:
        """The steps that answer a command; where they fail, no connection stays open."""
        http = _PERFORM.get(type(command))
        return super().perform(command) if http is None else http(self, command)

    def _begin(self, flow: Flow[None]) -> Flow[None]:
        return Exchange(self._pool, self._clock, self._flights, self._random).conduct(flow)

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

    def _take(self, origin: Origin, link: Link | None) -> Link | None:
        """Takes a place, and the connection that came with it if that is fit for a request."""
        self._origin, self._link = origin, link
        if link is None:
            return None
        if link.take_in() is None and link.wire.reusable:
            observer = self._command.observer
            if observer is not None:
                observer.tell(ConnectionReused(call=observer.call, origin=str(origin)))
            return link
        self._link = None
        link.abort()
        return None

    def _await_link(self, origin: Origin, ticket: PoolTicket[Link]) -> Steps[Link | None]:
        if not ticket.ready:
            yield from self._await_turn(ticket)
        return self._take(origin, ticket.connection)

    def _await_turn(self, ticket: PoolTicket[Link]) -> Steps[None]:
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
        observer = self._command.observer
        if observer is not None:
            observer.tell(ConnectionOpened(call=observer.call, origin=str(origin)))
        return link

    # The commands of the core

    def _send(self, command: Send) -> Steps[Head]:
        if self._origin is not None:
            self._drop()
        self._command = command
        request = command.request
        origin, body = request.origin, request.body
        message = memoryview(encode_head(request))  # a view does not show what it holds
        content = body.data if body.length is not None and body.length <= SMALL else None
        if content:
            message = memoryview(b"".join((message, content)))
        try:
            found = self._pool.checkout(origin)
            if isinstance(found, PoolTicket):
                link = yield from self._await_link(origin, found)
            else:
                link = self._take(origin, found)
            if link is None:
                link = yield from self._connect(origin)
            while True:
                link.wire.begin(request.method)
                try:
                    if content is not None:
                        return (yield from self._ask(link, message))
                    return (yield from self._transmit(link, body, message))
                except _Vanished as vanished:
                    retry = link.used and request.idempotent and body.replayable
                    link.abort()
                    self._link = None
                    if not retry:
                        raise IncompleteError(
                            "the connection was closed before an answer came"
                        ) from vanished.__cause__
                yield from self._rewind_body(body)
                link = yield from self._connect(origin)
        except BaseException:
            self._drop()  # now: the flow may go on to wait for long
            raise

    def _ask(self, link: Link, message: memoryview) -> Steps[Head]:
        """Sends a small request; returns the head of the answer."""
        timeout, wire = self._command.timeout, link.wire
        while True:
            until = self._command.deadline if timeout.write is None else self._until(timeout.write)
            try:
                count: int = yield Write(link, message, until, False)
            except OSError as error:
                raise _unsent(error) from error
            if count == len(message):
                break
            message = message[count:]
        while True:
            until = self._command.deadline if timeout.read is None else self._until(timeout.read)
            try:
                count = yield Read(link, until)
            except OSError as error:
                raise _unread(wire, error) from error
            if not count:
                _end_of_stream(wire)
            if (head := wire.read_head()) is not None:
                return head

    def _transmit(self, link: Link, body: Body, head_bytes: memoryview) -> Steps[Head]:
        """Sends a large request; returns the head of the answer, which may come before all of it is sent."""
        length = body.length
        yield from self._write(link, head_bytes)
        if self._command.request.expect_continue:
            head = yield from self._await_consent(link)
            if head is not None:
                link.wire.spoil()
                return head
        meter = Meter(self._command.progress, 0, length, self._clock)
        for segment in body.segments:
            if length is not None and isinstance(segment, FileSource) and sends_files(link):
                head = yield from self._send_file(link, segment, meter)
            else:
                head = yield from self._send_segment(link, segment, meter, chunked=length is None)
            if head is not None:
                link.wire.spoil()
                return head
        meter.end()
        if length is None:
            head = yield from self._write_watching(link, LAST_CHUNK)
            if head is not None:
                link.wire.spoil()
                return head
        return (yield from self._await_head(link))

    def _send_segment(
        self, link: Link, segment: bytes | Source, meter: Meter, *, chunked: bool, sent: int = 0
    ) -> Steps[Head | None]:
        """Sends a part of a body, or the rest of it; returns the head of an answer that comes meanwhile."""
        size = len(segment) if isinstance(segment, bytes) else segment.length
        while size is None or sent < size:
            piece = yield from self._piece(segment, sent, CHUNK if size is None else min(CHUNK, size - sent))
            if not piece:
                break
            head = yield from self._write_watching(link, chunk(piece) if chunked else piece)
            if head is not None:
                return head
            sent += len(piece)
            meter.add(len(piece))
        return None

    def _send_file(self, link: Link, source: FileSource, meter: Meter) -> Steps[Head | None]:
        """The same for a file that the system sends by itself."""
        sent = 0
        while sent < source.length:
            size = min(CHUNK, source.length - sent)
            until = self._until(self._command.timeout.write)
            try:
                told = yield from self._push(link, SendFile(link, source.fileno(), sent, size, until))
            except _Unsendable:
                # Not every file system can. Where the file cannot be read at all, this tells why.
                yield from self._file(partial(source.seek, sent))
                return (yield from self._send_segment(link, source, meter, chunked=False, sent=sent))
            if isinstance(told, Head):
                return told
            if told == 0:
                raise _shrunk(source.length - sent)
            sent += told or 0
            meter.add(told or 0)
        return None

    def _piece(self, segment: bytes | Source, sent: int, size: int) -> Steps[bytes]:
        """The next piece of a segment; ``b""`` at the end of one whose length nobody knew."""
        if isinstance(segment, bytes):
            return segment[sent : sent + size]
        piece: bytes = yield from self._read_source(segment, size)
        if not piece and segment.length is not None:
            raise _shrunk(segment.length - sent)
        return piece

    def _write_watching(self, link: Link, piece: bytes) -> Steps[Head | None]:
        """Sends a piece of a long body; returns the head of an answer that comes meanwhile.

        Most often, that is why the service will not have the body. It may close the connection with the rest
        unread: then the answer is what it said before that.
        """
        rest = memoryview(piece)
        while rest:
            until = self._until(self._command.timeout.write)
            told = yield from self._push(link, Write(link, rest, until, True))
            if isinstance(told, Head):
                return told
            rest = rest[told:]
        return None

    def _push(self, link: Link, command: Command[Sent]) -> Steps[Sent | Head]:
        """Sends some of a long body; returns what the link tells of it, or the head of an answer."""
        if (head := self._early_head(link)) is not None:
            return head
        try:
            sent: Sent = yield command
            return sent
        except TimeoutError as error:
            raise WriteTimeout("the request could not be sent in time") from error
        except OSError as error:
            if isinstance(command, SendFile) and not isinstance(error, ConnectionError):
                raise _Unsendable from error
            try:
                return (yield from self._await_head(link))
            except _Vanished:
                raise _Vanished from error

    def _early_head(self, link: Link) -> Head | None:
        arrived = link.take_in()
        if arrived == 0:
            if not link.wire.started:
                raise _Vanished
            link.wire.end_of_stream()
        return None if arrived is None else link.wire.read_head()

    def _write(self, link: Link, rest: memoryview) -> Steps[None]:
        while rest:
            try:
                count: int = yield Write(link, rest, self._until(self._command.timeout.write), False)
            except OSError as error:
                raise _unsent(error) from error
            rest = rest[count:]

    def _await_consent(self, link: Link) -> Steps[Head | None]:
        """Waits until the peer wants the content; returns the head of the answer if it does not."""
        while (head := link.wire.read_head()) is None and not link.wire.continued:
            try:
                yield from self._read(link, CONSENT)
            except ReadTimeout:
                break  # RFC 9110, 10.1.1: some peers never say; nobody waits for them forever
        return head

    def _read(self, link: Link, patience: float | None = None) -> Steps[None]:
        part = self._command.timeout.read if patience is None else patience
        try:
            count: int = yield Read(link, self._until(part))
        except OSError as error:
            raise _unread(link.wire, error) from error
        if not count:
            _end_of_stream(link.wire)

    def _await_head(self, link: Link) -> Steps[Head]:
        wire = link.wire
        head = wire.read_head()
        while head is None:
            yield from self._read(link)
            head = wire.read_head()
        return head

    def _read_all(self, command: ReadAll) -> Steps[bytes]:
        while (content := self._read_now(command)) is None:
            link = self._answering()
            try:
                yield from self._read(link)
            except BaseException:
                self._drop()
                raise
        return content

    def _read_now(self, command: ReadAll) -> bytes | None:
        """The whole content, if it is there: most often it has come with the head."""
        link = self._answering()
        try:
            content = link.wire.read_all(command.limit)
        except BaseException:
            self._drop()
            raise
        if content is not None:
            self._release()
        return content

    def _read_into(self, command: ReadInto) -> Steps[int]:
        link = self._answering()
        wire = link.wire
        sink = cast("LocalSink", command.sink)
        meter = Meter(command.progress, sink.size, command.total, self._clock)
        room = memoryview(bytearray(CHUNK))
        try:
            while not wire.done:
                count = wire.fill(room)
                if count is None:
                    yield from self._read(link)
                elif count:
                    yield from self._file(partial(sink.write, room[:count]))
                    meter.add(count)
        except TransportError:
            self._drop()
            if rest := wire.salvage():
                yield from self._file(partial(sink.write, room[:rest]))
            raise
        except BaseException:
            self._drop()
            raise
        self._release()
        meter.end()
        return sink.size

    def _read_some(self, command: ReadSome) -> Steps[bytes]:
        link = self._answering()
        try:
            while (piece := link.wire.read_some()) is None:
                yield from self._read(link)
        except BaseException:
            self._drop()
            raise
        if not piece:
            self._release()
        return piece

    def _deliver(self, command: Deliver) -> Steps[Any]:
        self._live = True
        return (yield command)

    def _leave(self) -> None:
        """Nobody wants the rest of the answer: where all of it is here already, the connection is kept."""
        link = self._link
        if link is not None and self._live:
            try:
                for _ in range(2):
                    while link.wire.read_some():
                        pass
                    if link.wire.done:
                        self._release()
                        return
                    if not link.take_in():
                        break
            except AgentRunClientError:
                pass
        self._drop()

    def _answering(self) -> Link:
        if self._link is None:
            raise TransportError("there is no answer to read: nothing was sent, or it has been read already")
        return self._link


_PERFORM: dict[type[Command[Any]], Callable[..., Steps[Any]]] = {
    Send: Exchange._send,  # pyright: ignore[reportPrivateUsage] - the table of this class's own methods
    ReadAll: Exchange._read_all,  # pyright: ignore[reportPrivateUsage]
    ReadInto: Exchange._read_into,  # pyright: ignore[reportPrivateUsage]
    ReadSome: Exchange._read_some,  # pyright: ignore[reportPrivateUsage]
    Deliver: Exchange._deliver,  # pyright: ignore[reportPrivateUsage]
}
