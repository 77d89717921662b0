"""Answers out of memory: what a player and a canned transport share. No socket is opened, and no time passes.

Rules of this file:

- A flow runs as ever: it signs, retries, follows, decodes, opens files and saves them. `Send` alone, and what
  reads an answer, is performed here.
- What would take time takes none: a pause is over at once, and a timeout has passed at once. The clock of
  that call goes on by as much, so that a deadline means what it always does.
- A request that nobody expected is no failure of a request: `UnexpectedRequest` goes through whatever handles
  those, up to the test.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, TypeVar, cast

from agentrun_proto import (
    AgentRunClientError,
    BodyError,
    Clock,
    Command,
    ConnectTimeout,
    Credential,
    CredentialError,
    DecodeError,
    Deliver,
    Flow,
    Head,
    PoolTimeout,
    ReadAll,
    ReadInto,
    ReadSome,
    ReadTimeout,
    Refresh,
    Request,
    Send,
    Sleep,
    Source,
    TimeoutExceeded,
    TransportError,
    WriteTimeout,
)

from .._blocking import BlockingNetwork
from .._drive import conduct
from .._exchange import CHUNK
from .._files import FileSink
from .._flights import Flights
from .._local import Local
from .._network import Operation, Steps
from .._progress import Meter
from .._routes import Setup
from .._sessions import LoopNetwork
from .._streams import BlockingRun, LoopRun
from .._tls import TLS

Result = TypeVar("Result")

# Which part of a `Timeout` has passed when one of these is raised; any other: the whole.
_PARTS: dict[type[TimeoutExceeded], str] = {
    PoolTimeout: "pool",
    ConnectTimeout: "connect",
    WriteTimeout: "write",
    ReadTimeout: "read",
}


class UnexpectedRequest(AssertionError):
    """A request came, or an answer was read, for which nothing is there; it says what is.

    It is no `AgentRunClientError`, so that nothing takes it for a failure of the service.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """How one exchange goes.

    Args:
        head: what is answered; None where nothing is.
        pieces: the content, none of them empty.
        failure: how it ends; None: as it should.
        torn: why there is no more of it; None where there is.
    """

    head: Head | None = None
    pieces: tuple[bytes, ...] = ()
    failure: AgentRunClientError | None = None
    torn: str | None = None


class SkippingClock:
    """A clock that goes on by what nobody waited for."""

    __slots__ = ("_clock", "_skipped")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._skipped = 0.0

    def now(self) -> float:
        """Wall time."""
        return self._clock.now() + self._skipped

    def monotonic(self) -> float:
        """Monotonic time."""
        return self._clock.monotonic() + self._skipped

    def skip(self, seconds: float) -> None:
        """Goes on by so many seconds."""
        self._skipped += seconds


class FromMemory(ABC):
    """A `Transport` whose answers are there already. Clients, threads and loops may share it."""

    @abstractmethod
    def reply(self, request: Request, contents: Sequence[bytes], clock: Clock) -> Replay:
        """How the exchange of a request goes.

        Args:
            request: as it would be sent.
            contents: what the segments of its body hold.
            clock: what time it is in this call.

        Raises:
            UnexpectedRequest: nothing is there for it.
        """

    def open(self, setup: Setup) -> MemorySession:
        """The session for a client's blocking calls."""
        return MemorySession(self)

    def open_async(self, setup: Setup) -> MemorySessions:
        """A client's sessions on asyncio and trio."""
        return MemorySessions(self)


class _Memory(Local):
    """Answers the commands of one flow."""

    __slots__ = ("_answers", "_beside", "_pending", "_replay", "_send_command", "clock")

    def __init__(
        self, answers: FromMemory, clock: SkippingClock, flights: Flights, *, beside: bool = False
    ) -> None:
        super().__init__(clock, flights, os.urandom)
        self.clock = clock
        self._answers = answers
        self._beside = beside  # the call that waits for it
        self._replay: Replay | None = None
        self._pending: list[bytes] = []

    def conduct(self, flow: Flow[Result]) -> Steps[Result]:
        """The flow, as a flow of network commands, none of which is about a network."""
        return conduct(flow, self.perform)

    def perform(self, command: Command[Any]) -> Steps[Any]:
        """The steps that answer a command."""
        own = _PERFORM.get(type(command))
        return super().perform(command) if own is None else own(self, command)

    def _begin(self, flow: Flow[None]) -> Flow[None]:
        return _Memory(self._answers, self.clock, self._flights, beside=True).conduct(flow)

    def _refresh_or_tell(self, command: Refresh) -> Steps[Credential | None]:
        try:
            return (yield from self._refresh(command))
        except CredentialError as error:
            cause: BaseException | None = error
            while cause is not None:
                if isinstance(cause, UnexpectedRequest):
                    raise UnexpectedRequest(str(cause)) from error
                cause = cause.__cause__
            raise

    def _sleep(self, command: Sleep) -> Steps[None]:
        yield from ()
        self.clock.skip(command.seconds)

    def _send(self, command: Send) -> Steps[Head]:
        self._send_command = command
        self._replay = None
        contents = yield from self._read_body(command)
        try:
            replay = self._answers.reply(command.request, contents, self.clock)
        except UnexpectedRequest as error:
            if self._beside:  # out of there, only errors of ours find their way to those who wait
                raise CredentialError(str(error)) from error
            raise
        if replay.head is None:
            raise self._failed(replay)
        self._replay = replay
        self._pending = list(reversed(replay.pieces))
        return replay.head

    def _read_body(self, command: Send) -> Steps[list[bytes]]:
        body = command.request.body
        meter = Meter(command.progress, 0, body.length, self.clock)
        contents: list[bytes] = []
        for segment in body.segments:
            if isinstance(segment, bytes):
                meter.add(len(segment))
                contents.append(segment)
            else:
                contents.append((yield from self._read_whole(segment, meter)))
        meter.end()
        return contents

    def _read_whole(self, source: Source, meter: Meter) -> Steps[bytes]:
        content, length = bytearray(), source.length
        while length is None or len(content) < length:
            size = CHUNK if length is None else min(CHUNK, length - len(content))
            piece: bytes = yield from self._read_source(source, size)
            if not piece:
                break
            content += piece
            meter.add(len(piece))
        if length is not None and len(content) < length:
            raise BodyError("the file ended before the length it had when opened")
        return bytes(content)

    def _read_all(self, command: ReadAll) -> Steps[bytes]:
        content = bytearray()
        while piece := (yield from self._read_some(None)):
            content += piece
            if len(content) > command.limit:
                self._replay = None
                raise DecodeError(f"the answer is larger than {command.limit} bytes")
        return bytes(content)

    def _read_into(self, command: ReadInto) -> Steps[int]:
        sink = cast("FileSink", command.sink)
        meter = Meter(command.progress, sink.size, command.total, self.clock)
        while piece := (yield from self._read_some(None)):
            yield from self._file(partial(sink.write, piece))
            meter.add(len(piece))
        meter.end()
        return sink.size

    def _read_some(self, command: ReadSome | None) -> Steps[bytes]:
        yield from ()
        replay = self._replay
        if replay is None:
            raise TransportError("there is no answer to read: nothing was sent, or it has been read already")
        if self._pending:
            return self._pending.pop()
        self._replay = None
        if replay.torn is not None:
            raise UnexpectedRequest(replay.torn)
        if replay.failure is not None:
            raise self._failed(replay)
        return b""

    def _failed(self, replay: Replay) -> AgentRunClientError:
        """The failure, for this exchange alone: a traceback belongs to one. What it takes has passed."""
        assert replay.failure is not None, "what has no head has a failure"
        failure = copy(replay.failure)
        if isinstance(failure, TimeoutExceeded):
            command, now = self._send_command, self.clock.monotonic()
            part = getattr(command.timeout, _PARTS.get(type(failure), "total"))
            until = command.deadline if part is None else min(command.deadline, now + part)
            if until != inf:
                self.clock.skip(max(until - now, 0.0))
        return failure

    def _deliver(self, command: Deliver) -> Steps[Any]:
        return (yield command)


_PERFORM: dict[type[Command[Any]], Callable[..., Steps[Any]]] = {
    Send: _Memory._send,  # pyright: ignore[reportPrivateUsage] - the table of this class's own methods
    ReadAll: _Memory._read_all,  # pyright: ignore[reportPrivateUsage]
    ReadInto: _Memory._read_into,  # pyright: ignore[reportPrivateUsage]
    ReadSome: _Memory._read_some,  # pyright: ignore[reportPrivateUsage]
    Refresh: _Memory._refresh_or_tell,  # pyright: ignore[reportPrivateUsage]
    Deliver: _Memory._deliver,  # pyright: ignore[reportPrivateUsage]
    Sleep: _Memory._sleep,  # pyright: ignore[reportPrivateUsage]
}


class MemorySession:
    """Runs blocking calls."""

    def __init__(self, answers: FromMemory) -> None:
        self._answers = answers
        self._network = BlockingNetwork(TLS())
        self._flights = Flights()

    @property
    def clock(self) -> Clock:
        """What time it is."""
        return self._network.clock

    def _memory(self) -> _Memory:
        return _Memory(self._answers, SkippingClock(self.clock), self._flights)

    def run(self, operation: Operation[Result]) -> Result:
        """Performs an operation's flow and returns its result."""
        memory = self._memory()
        return self._network.drive(memory.conduct(operation(memory.clock)))

    def begin(self, operation: Operation[None]) -> BlockingRun:
        """Begins a flow that is run from one delivery to the next."""
        memory = self._memory()
        return BlockingRun(memory.conduct(operation(memory.clock)), self._network.perform)

    def close(self) -> None:
        """There is nothing to close."""


class LoopMemorySession:
    """Runs calls on one loop."""

    def __init__(self, answers: FromMemory, network: LoopNetwork) -> None:
        self._answers = answers
        self._network = network
        self._flights = Flights()

    @property
    def ended(self) -> bool:
        """Whether the loop is over."""
        return self._network.ended

    def _memory(self) -> _Memory:
        return _Memory(self._answers, SkippingClock(self._network.clock), self._flights)

    async def run(self, operation: Operation[Result]) -> Result:
        """Performs an operation's flow and returns its result."""
        memory = self._memory()
        return await self._network.drive(memory.conduct(operation(memory.clock)))

    async def begin(self, operation: Operation[None]) -> LoopRun:
        """Begins a flow that is run from one delivery to the next."""
        memory = self._memory()
        return LoopRun(memory.conduct(operation(memory.clock)), self._network.perform)


class MemorySessions:
    """The sessions of one client: one for each loop that it is used on."""

    def __init__(self, answers: FromMemory) -> None:
        self._answers = answers
        self._by_loop: dict[object, LoopMemorySession] = {}

    def get(self, loop: object, network: Callable[[TLS, str | None], LoopNetwork]) -> LoopMemorySession:
        """The session for the running loop, made on first need."""
        session = self._by_loop.get(loop)
        if session is None:
            for known, former in list(self._by_loop.items()):
                if former.ended:
                    self._by_loop.pop(known, None)
            session = self._by_loop[loop] = LoopMemorySession(self._answers, network(TLS(), None))
        return session

    def close(self, loop: object) -> None:
        """There is nothing to close."""
