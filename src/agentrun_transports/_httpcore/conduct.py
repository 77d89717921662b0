"""What is decided: the core's commands turned into three of httpcore's.

Rules of this file: no I/O; it stands once, for blocking calls, asyncio and trio.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Callable, Iterable
from functools import partial
from math import inf
from typing import Any, TypeVar, cast

import httpcore
from agentrun_proto import (
    AgentRunClientError,
    Clock,
    Command,
    ConnectionOpened,
    ConnectionReused,
    DecodeError,
    Deliver,
    Flow,
    Head,
    Headers,
    IncompleteError,
    PoolTimeout,
    ProtocolError,
    ReadAll,
    ReadInto,
    ReadSome,
    Request,
    Send,
    TransportError,
)

from .._drive import conduct
from .._files import LocalSink
from .._flights import Flights
from .._local import Local, file_error
from .._network import Run, Steps
from .._performing import BodyReader
from .._progress import Meter
from .._proxies import Proxies
from .network import Allowance, Call, Vanished

Result = TypeVar("Result")


class Ask(Command[httpcore.Response]):
    """Send a request; answer with its response, whose content is still to come."""

    __slots__ = ("call", "extensions", "reader", "request")

    def __init__(
        self, request: Request, reader: CountedReader, call: Call, extensions: dict[str, Any]
    ) -> None:
        self.request = request
        self.reader = reader
        self.call = call
        self.extensions = extensions

    def build(self, content: Iterable[bytes] | AsyncIterable[bytes]) -> httpcore.Request:
        """The request as httpcore wants it; how it iterates over the content depends on the loop."""
        request, origin = self.request, self.request.origin
        url = httpcore.URL(
            scheme=origin.scheme.encode(),
            host=origin.host.encode("ascii"),
            port=origin.port,
            target=request.target.encode("ascii"),
        )
        fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.fields()]
        return httpcore.Request(
            request.method, url, headers=fields, content=content, extensions=self.extensions
        )


class CountedReader(BodyReader):
    """What is sent, counted; `failure` is what the caller's own source raised, which httpcore hides."""

    __slots__ = ("_clock", "_command", "_meter", "_pending", "failure")

    def __init__(self, command: Send, clock: Clock) -> None:
        super().__init__(command.request.body)
        self._command = command
        self._clock = clock
        self._begin()

    def _begin(self) -> None:
        command = self._command
        self._meter = Meter(command.progress, 0, command.request.body.length, self._clock)
        self._pending = 0
        self.failure: Exception | None = None

    def rewind(self) -> None:
        """As everywhere; it counts anew."""
        super().rewind()
        self._begin()

    def read(self) -> bytes:
        """As everywhere. It may run in a thread, and tells nobody anything."""
        try:
            piece = super().read()
        except Exception as error:
            self.failure = error
            raise
        self._pending = len(piece)
        return piece

    def sent(self) -> None:
        """httpcore asks for more: what it had is sent. To be called in the thread or task of the transfer."""
        if self._pending:
            self._meter.add(self._pending)

    def advance(self) -> bytes:
        """`sent` and `read`, where they are the same thread's."""
        self.sent()
        return self.read()

    def end(self) -> None:
        """The answer is there: no more is sent."""
        self._meter.end()


class Next(Command["bytes | None"]):
    """The next piece of the content; None at its end."""

    __slots__ = ()


class Leave(Command[None]):
    """Be done with the response: its connection is for others, if all of it was read."""

    __slots__ = ()


class Conduct(Local):
    """Turns the commands of one flow into httpcore's."""

    def __init__(self, clock: Clock, proxies: Proxies, flights: Flights) -> None:
        super().__init__(clock, flights, os.urandom)
        self._proxies = proxies
        self._call: Call | None = None
        self.answering = False
        """Whether there is a response that nobody has left."""

    def conduct(self, flow: Flow[Result]) -> Steps[Result]:
        """The flow, as a flow of httpcore's commands; whoever runs it leaves the response, if one is left."""
        return conduct(flow, self.perform)

    def translate(self, error: Exception) -> AgentRunClientError:
        """The documented error for what went wrong in the call that is under way."""
        self.answering = False  # httpcore closes what has failed
        assert self._call is not None  # what httpcore is asked for begins with one
        return self._call.translate(error)

    def perform(self, command: Command[Any]) -> Steps[Any]:
        """The steps that answer a command; where they fail, no response stays open."""
        try:
            if isinstance(command, Send):
                return (yield from self._send(command))
            if isinstance(command, ReadAll):
                return (yield from self._read_all(command.limit))
            if isinstance(command, ReadInto):
                return (yield from self._read_into(command))
            if isinstance(command, ReadSome):
                return (yield from self._read_some())
            if isinstance(command, Deliver):
                return (yield command)
        except AgentRunClientError:
            if self.answering:
                yield from self._leave()
            raise
        return (yield from super().perform(command))

    def _begin(self, flow: Flow[None]) -> Flow[None]:
        return flow  # a session runs it whole

    def _send(self, command: Send) -> Steps[Head]:
        if self.answering:
            yield from self._leave()
        reader = CountedReader(command, self._clock)
        while True:
            proxy = self._proxies.for_origin(command.request.origin)
            call = self._call = Call(self._clock, command.deadline, proxy)
            if call.deadline <= self._clock.monotonic():
                raise PoolTimeout("the time for this call was over before it was sent")
            try:
                ask = Ask(command.request, reader, call, {"timeout": _parts(command, call)})
                response: httpcore.Response = yield ask
            except AgentRunClientError as error:
                if reader.failure is not None:
                    raise reader.failure from None
                if not isinstance(error, Vanished):
                    raise
                # A connection that had served before was closed as idle (RFC 9112, 9.3.1).
                request = command.request
                if call.fresh or not (request.idempotent and request.body.replayable):
                    raise IncompleteError(error.message) from error.__cause__
                yield Run(reader.rewind)
                continue
            self.answering = True
            reader.end()
            observer = command.observer
            if observer is not None:
                kind = ConnectionOpened if call.fresh else ConnectionReused
                observer.tell(kind(call=observer.call, origin=str(command.request.origin)))
            return _head(response)

    def _leave(self) -> Steps[None]:
        self.answering = False
        yield Leave()

    def _pieces(self, take: Callable[[bytes], Steps[None]]) -> Steps[None]:
        if not self.answering:
            raise TransportError("there is no answer to read: nothing was sent, or it has been read already")
        while True:
            piece: bytes | None = yield Next()
            if piece is None:
                break
            yield from take(piece)
        yield from self._leave()

    def _read_all(self, limit: int) -> Steps[bytes]:
        content = bytearray()

        def take(piece: bytes) -> Steps[None]:
            if len(content) + len(piece) > limit:
                yield from self._leave()
                raise DecodeError(f"the answer is larger than {limit} bytes, the most that is held in memory")
            content.extend(piece)

        yield from self._pieces(take)
        return bytes(content)

    def _read_some(self) -> Steps[bytes]:
        if not self.answering:
            raise TransportError("there is no answer to read: nothing was sent, or it has been read already")
        piece: bytes | None = yield Next()
        if piece is None:
            yield from self._leave()
        return piece or b""

    def _read_into(self, command: ReadInto) -> Steps[int]:
        sink = cast("LocalSink", command.sink)
        meter = Meter(command.progress, sink.size, command.total, self._clock)

        def take(piece: bytes) -> Steps[None]:
            try:
                yield Run(partial(sink.write, piece))
            except OSError as error:
                raise file_error(error) from error
            meter.add(len(piece))

        yield from self._pieces(take)
        meter.end()
        return sink.size


def _parts(command: Send, call: Call) -> dict[str, float | None]:
    timeout = command.timeout
    pool = min(inf if timeout.pool is None else timeout.pool, command.deadline - call.clock.monotonic())
    return {
        "pool": None if pool == inf else pool,
        "connect": Allowance.of(timeout.connect, call),
        "write": Allowance.of(timeout.write, call),
        "read": Allowance.of(timeout.read, call),
    }


def _head(response: httpcore.Response) -> Head:
    fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers]
    try:
        return Head(status=response.status, headers=Headers(fields))
    except ValueError as error:
        raise ProtocolError(f"the answer is not well-formed: {error}") from error
