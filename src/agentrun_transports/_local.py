"""The core's commands that are not about HTTP: local files, pauses, chance, and who is calling.

Rules of this file: what is decided here is decided for every driver; each command becomes what a network can
do, and what blocks is a `Run`.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar, cast

from agentrun_proto import (
    AgentRunClientError,
    Body,
    BodyError,
    Clock,
    Command,
    Commit,
    Credential,
    CredentialError,
    FileError,
    Flow,
    OpenSink,
    OpenSource,
    Prepare,
    Provide,
    RandomBytes,
    Refresh,
    Rewind,
    Sleep,
    Source,
    TimeoutExceeded,
)

from ._awaitable import is_async
from ._files import FileSink, FileSource, HandleSink, LocalSink
from ._flights import Flights, Outcome
from ._network import Await, Run, Spawn, Steps, Wait
from ._tickets import Ticket

Answer = TypeVar("Answer")

_NOTHING_AWAITS = (
    "a blocking call cannot await it: give a plain one, or call the method whose name ends in _async"
)


class Local:
    """Turns those commands into network commands.

    Args:
        clock: for pauses.
        flights: the refreshes that are under way.
        random: gives so many random bytes.
    """

    __slots__ = ("_clock", "_flights", "_random")

    def __init__(self, clock: Clock, flights: Flights, random: Callable[[int], bytes]) -> None:
        self._clock = clock
        self._flights = flights
        self._random = random

    def perform(self, command: Command[Any]) -> Steps[Any]:
        """The steps that answer a command."""
        return _PERFORM[type(command)](self, command)

    @abstractmethod
    def _begin(self, flow: Flow[None]) -> Flow[None]:
        """What `Spawn` is to run for a flow of the core's commands."""

    def _file(self, function: Callable[[], Answer]) -> Steps[Answer]:
        try:
            return (yield from Run(function))
        except OSError as error:
            raise file_error(error) from error

    def _read_source(self, source: Source, size: int) -> Steps[bytes]:
        read: Callable[[int], Any] = source.read
        try:
            if is_async(read):
                refusal = BodyError(f"the content comes from an async iterator; {_NOTHING_AWAITS}")
                awaited: bytes = yield from Await(partial(read, size), refusal)
                return awaited
            piece: bytes = yield from Run(partial(read, size))
            return piece
        except OSError as error:
            raise file_error(error) from error

    def _open(self, function: Callable[[], Answer], undo: Callable[[Answer], None]) -> Steps[Answer]:
        try:
            return (yield from Run(function, undo))
        except OSError as error:
            raise file_error(error, may_be_processed=False) from error

    def _open_source(self, command: OpenSource) -> Steps[FileSource]:
        return self._open(partial(FileSource, command.path), FileSource.close)

    def _open_sink(self, command: OpenSink) -> Steps[LocalSink]:
        path = command.path
        if isinstance(path, str):
            return self._open(partial(FileSink, path, command.source), FileSink.discard)
        return self._open(partial(HandleSink, path), HandleSink.discard)

    def _prepare(self, command: Prepare) -> Steps[None]:
        sink = cast("LocalSink", command.sink)
        return self._file(partial(sink.prepare, command.size, command.validator, command.digests))

    def _commit(self, command: Commit) -> Steps[None]:
        return self._file(cast("LocalSink", command.sink).commit)

    def _rewind(self, command: Rewind) -> Steps[None]:
        yield from self._rewind_body(command.body)

    def _rewind_body(self, body: Body) -> Steps[None]:
        for source in body.sources:
            yield from self._file(source.rewind)

    def _sleep(self, command: Sleep) -> Steps[None]:
        # To sleep is to wait for what does not come.
        try:
            yield Wait(Ticket(), self._clock.monotonic() + command.seconds)
        except TimeoutError:
            pass

    def _random_bytes(self, command: RandomBytes) -> Steps[bytes]:
        yield from ()
        return self._random(command.size)

    def _provide(self, command: Provide) -> Steps[Credential | None]:
        provider: Callable[[], Any] = command.provider
        if is_async(provider):
            found: Any = yield from Await(
                partial(_attempt_async, provider),
                CredentialError(f"the provider of credentials is asynchronous; {_NOTHING_AWAITS}"),
            )
        else:
            found = yield from Run(partial(_attempt, provider))
        if isinstance(found, AgentRunClientError):
            raise found
        if isinstance(found, Exception):
            raise CredentialError(f"the provider failed with {type(found).__name__}") from found
        return cast("Credential | None", found)

    def _refresh(self, command: Refresh) -> Steps[Credential | None]:
        passenger, first = self._flights.join(command.key)
        if first:
            yield from self._take_off(command)
        if not command.wait:
            return None
        try:
            yield Wait(passenger, command.deadline)
        except TimeoutError:
            raise TimeoutExceeded("no credential came in time", may_be_processed=False) from None
        outcome = passenger.outcome
        if isinstance(outcome, AgentRunClientError):
            # Each waiter has an error of its own: a traceback belongs to one.
            raise CredentialError(
                outcome.message,
                status_code=outcome.status_code,
                error_code=outcome.error_code,
                request_id=outcome.request_id,
            ) from outcome
        return outcome

    def _take_off(self, command: Refresh) -> Steps[None]:
        outcome: list[Outcome] = []

        def flight() -> Flow[None]:
            try:
                outcome.append((yield from command.flow()))
            except AgentRunClientError as error:
                outcome.append(error)
            except Exception as error:
                failed = CredentialError(f"the refresh failed with {type(error).__name__}")
                failed.__cause__ = error
                outcome.append(failed)

        def land() -> None:
            ended = (
                outcome[0] if outcome else CredentialError("the refresh was cancelled with its event loop")
            )
            self._flights.land(command.key, ended)

        try:
            yield Spawn(self._begin(flight()), land)
        except BaseException:
            land()
            raise


# What a provider raises is an answer here: drivers hand on errors of ours and of the network alone.
def _attempt(provider: Callable[[], Any]) -> Any:
    try:
        found = provider()
    except Exception as error:
        return error
    if not inspect.isawaitable(found):
        return found
    if inspect.iscoroutine(found):  # not to be handed on: trio refuses what looks like an async function
        found.close()
    return CredentialError("the provider returned an awaitable; give the async function itself")


async def _attempt_async(provider: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return await provider()
    except Exception as error:
        return error


def file_error(error: OSError, *, may_be_processed: bool = True) -> FileError:
    """Our error for the operating system's, about a local file."""
    name = f"{error.filename}: " if error.filename else ""
    return FileError(f"{name}{error.strerror or error}", may_be_processed=may_be_processed)


_PERFORM: dict[type[Command[Any]], Callable[..., Steps[Any]]] = {
    OpenSource: Local._open_source,  # pyright: ignore[reportPrivateUsage] - the table of this class's own methods
    OpenSink: Local._open_sink,  # pyright: ignore[reportPrivateUsage]
    Prepare: Local._prepare,  # pyright: ignore[reportPrivateUsage]
    Commit: Local._commit,  # pyright: ignore[reportPrivateUsage]
    Rewind: Local._rewind,  # pyright: ignore[reportPrivateUsage]
    Sleep: Local._sleep,  # pyright: ignore[reportPrivateUsage]
    RandomBytes: Local._random_bytes,  # pyright: ignore[reportPrivateUsage]
    Provide: Local._provide,  # pyright: ignore[reportPrivateUsage]
    Refresh: Local._refresh,  # pyright: ignore[reportPrivateUsage]
}
