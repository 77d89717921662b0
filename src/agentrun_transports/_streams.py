"""Answers that are read while they arrive: what a caller holds of a stream.

Rules of this file: nothing is decided here; a stream is read once, in one way; whoever leaves it early, in
whatever way, leaves nothing open.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from agentrun_proto import (
    CHAT,
    EVENTS,
    JSON_LINES,
    LINES,
    PIECES,
    RESUMED_EVENTS,
    AgentRunClientError,
    Command,
    Deliver,
    Head,
    Headers,
    Reading,
    ServerSentEvent,
)
from agentrun_proto.decoding import find_request_id

from ._drive import Perform, PerformAsync
from ._network import Steps

Item = TypeVar("Item")
Performs = TypeVar("Performs")
Ends = TypeVar("Ends")

_READ = "the stream is being read already, by another thread or task"
_LEFT = "the stream was left; what it had not brought by then is lost"


class Run(Protocol):
    """A flow that is run from one delivery to the next."""

    def advance(self, answer: Any) -> list[Any] | None:
        """What it delivers next; None at its end. `answer` is what its last delivery is answered."""
        ...

    def close(self) -> None:
        """Ends it."""
        ...


class RunAsync(Protocol):
    """The same, to be awaited."""

    async def advance(self, answer: Any) -> list[Any] | None:
        """As `Run.advance`."""
        ...

    async def close(self) -> None:
        """Ends it."""
        ...


class _AnyRun(Generic[Performs, Ends]):
    """The state of a flow that is run from one delivery to the next."""

    __slots__ = ("_busy", "_end", "_left", "_perform", "_steps")

    def __init__(self, steps: Steps[None], perform: Performs, end: Ends | None = None) -> None:
        self._steps = steps
        self._perform = perform
        self._end = end
        self._busy = self._left = False

    def _begin(self) -> None:
        if self._busy:
            raise RuntimeError(_READ)
        if self._left:
            raise RuntimeError(_LEFT)
        self._busy = True


class BlockingRun(_AnyRun[Perform, Callable[[], None]]):
    """Runs steps with a driver that blocks."""

    __slots__ = ()

    def advance(self, answer: Any) -> list[Any] | None:
        """Performs commands until something is delivered."""
        steps, perform = self._steps, self._perform
        self._begin()
        try:
            command: Command[Any] = steps.send(answer)
            while type(command) is not Deliver:
                try:
                    result = perform(command)
                except (OSError, AgentRunClientError) as error:
                    command = steps.throw(error)
                else:
                    command = steps.send(result)
            return command.items
        except StopIteration:
            self._finish()
            return None
        except BaseException:
            self._finish()
            raise
        finally:
            self._busy = False

    def close(self) -> None:
        """Ends the flow, which gives back all that it holds. RuntimeError while another thread reads.

        A socket is not closed under a thread that waits for it: its number may be another's by then.
        """
        if self._busy:
            raise RuntimeError(_READ)
        self._finish()

    def _finish(self) -> None:
        self._left = True
        self._steps.close()
        if self._end is not None:
            self._end()


class LoopRun(_AnyRun[PerformAsync, Callable[[], Awaitable[None]]]):
    """Runs steps with a driver that is awaited."""

    __slots__ = ()

    async def advance(self, answer: Any) -> list[Any] | None:
        """Performs commands until something is delivered."""
        steps, perform = self._steps, self._perform
        self._begin()
        try:
            command: Command[Any] = steps.send(answer)
            while type(command) is not Deliver:
                try:
                    result = perform(command)
                    if not isinstance(result, int):
                        result = await result
                except (OSError, AgentRunClientError) as error:
                    command = steps.throw(error)
                else:
                    command = steps.send(result)
            return command.items
        except BaseException as error:
            left = self._left
            await self.close()
            if left and isinstance(error, Exception):  # by another task, meanwhile
                raise RuntimeError(_LEFT) from error
            if isinstance(error, StopIteration):
                return None
            raise
        finally:
            self._busy = False

    async def close(self) -> None:
        """Ends the flow, which gives back all that it holds."""
        self._left = True
        self._steps.close()
        if self._end is not None:
            await self._end()


class Answer:
    """The head of an answer whose content is still to come."""

    def __init__(self) -> None:
        self._head: Head | None = None
        self._entered = self._taken = False

    @property
    def head(self) -> Head:
        """Status and fields. RuntimeError before the stream is entered."""
        if self._head is None:
            raise RuntimeError("the stream is not open: enter it with `with`, or `async with`, first")
        return self._head

    @property
    def status(self) -> int:
        """The HTTP status code."""
        return self.head.status

    @property
    def headers(self) -> Headers:
        """The fields of the answer."""
        return self.head.headers

    @property
    def request_id(self) -> str | None:
        """The service's id of the request, where the head tells it."""
        return find_request_id(self.headers, None)

    def _enter(self) -> None:
        if self._entered:
            raise RuntimeError("a stream is entered once; open another to send the request again")
        self._entered = True

    def _take(self) -> None:
        _ = self.head
        if self._taken:
            raise RuntimeError("a stream is read once; open another to read it again")
        self._taken = True


class Items(Generic[Item]):
    """What a stream brings, one after another."""

    __slots__ = ("_answer", "_ended", "_ready", "_run")

    def __init__(self, run: Run, reading: Reading) -> None:
        self._run = run
        self._answer: Reading | None = reading
        self._ready: list[Item] = []
        self._ended = False  # at its end, or by a failure that was raised

    def __iter__(self) -> Items[Item]:
        return self

    def __next__(self) -> Item:
        while not self._ready:
            if self._ended:
                raise StopIteration
            answer, self._answer = self._answer, None
            try:
                items = self._run.advance(answer)
            except AgentRunClientError:
                self._ended = True
                raise
            if items is None:
                self._ended = True
                raise StopIteration
            self._ready = items[::-1]
        return self._ready.pop()


class AsyncItems(Generic[Item]):
    """What a stream brings, one after another."""

    __slots__ = ("_answer", "_ended", "_ready", "_run")

    def __init__(self, run: RunAsync, reading: Reading) -> None:
        self._run = run
        self._answer: Reading | None = reading
        self._ready: list[Item] = []
        self._ended = False  # at its end, or by a failure that was raised

    def __aiter__(self) -> AsyncItems[Item]:
        return self

    async def __anext__(self) -> Item:
        while not self._ready:
            if self._ended:
                raise StopAsyncIteration
            answer, self._answer = self._answer, None
            try:
                items = await self._run.advance(answer)
            except AgentRunClientError:
                self._ended = True
                raise
            if items is None:
                self._ended = True
                raise StopAsyncIteration
            self._ready = items[::-1]
        return self._ready.pop()


def _head(delivered: list[Any] | None) -> Head:
    assert delivered is not None, "a stream delivers its head first"
    head: Head = delivered[0]
    return head


class Stream(Answer):
    """An answer that is read while it arrives. Enter it with `with`; leave it whenever you like.

    Iterating over it gives bytes as they come.
    """

    def __init__(self, open_run: Callable[[], Run]) -> None:
        super().__init__()
        self._open = open_run
        self._run: Run | None = None

    def __enter__(self) -> Stream:
        self._enter()
        self._run = self._open()
        self._head = _head(self._run.advance(None))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leaves the stream: its connection is kept if all of it is here already, and closed if not."""
        if self._run is not None:
            self._run.close()

    def _read(self, reading: Reading) -> Items[Any]:
        self._take()
        assert self._run is not None, "what has a head has been entered"
        return Items(self._run, reading)

    def __iter__(self) -> Items[bytes]:
        return self._read(PIECES)

    def lines(self) -> Items[str]:
        """Lines of text, without their ends."""
        return self._read(LINES)

    def json_lines(self) -> Items[Any]:
        """The JSON value of each line (NDJSON)."""
        return self._read(JSON_LINES)

    def events(self, *, resume: bool = False) -> Items[ServerSentEvent]:
        """Server-sent events (WHATWG HTML, 9.2).

        Args:
            resume: when the stream ends or breaks, take it up again after the last event, as a browser does:
                until the service answers 204, or you leave. For GET alone.
        """
        return self._read(RESUMED_EVENTS if resume else EVENTS)

    def chat(self) -> Items[dict[str, Any]]:
        """The chunks of a chat completion, until ``[DONE]``.

        Raises (while iterating):
            AgentRunClientError: the stream says that something failed.
            IncompleteError: it ended before it was done.
        """
        return self._read(CHAT)


class AsyncStream(Answer):
    """An answer that is read while it arrives. Enter it with `async with`; leave it whenever you like.

    Iterating over it gives bytes as they come.
    """

    def __init__(self, open_run: Callable[[], Awaitable[RunAsync]]) -> None:
        super().__init__()
        self._open = open_run
        self._run: RunAsync | None = None

    async def __aenter__(self) -> AsyncStream:
        self._enter()
        self._run = await self._open()
        self._head = _head(await self._run.advance(None))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Leaves the stream: its connection is kept if all of it is here already, and closed if not."""
        if self._run is not None:
            await self._run.close()

    def _read(self, reading: Reading) -> AsyncItems[Any]:
        self._take()
        assert self._run is not None, "what has a head has been entered"
        return AsyncItems(self._run, reading)

    def __aiter__(self) -> AsyncItems[bytes]:
        return self._read(PIECES)

    def lines(self) -> AsyncItems[str]:
        """As `Stream.lines`."""
        return self._read(LINES)

    def json_lines(self) -> AsyncItems[Any]:
        """As `Stream.json_lines`."""
        return self._read(JSON_LINES)

    def events(self, *, resume: bool = False) -> AsyncItems[ServerSentEvent]:
        """As `Stream.events`."""
        return self._read(RESUMED_EVENTS if resume else EVENTS)

    def chat(self) -> AsyncItems[dict[str, Any]]:
        """As `Stream.chat`."""
        return self._read(CHAT)
