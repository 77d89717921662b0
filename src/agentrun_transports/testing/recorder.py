"""Taking down what a client and the service say to each other, over any transport.

What is recorded is what a flow asks for and is told: it sends, and it reads. So one recorder serves blocking
calls, asyncio, trio and httpcore, files that are sent and saved, and live answers piece by piece.

Rules of this file: nothing that goes by is changed or held up; nothing is written before its secrets are
taken out; a file is written whole or not at all.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from hashlib import sha256
from types import TracebackType
from typing import Any, TypeVar, cast

from agentrun_proto import (
    BodyError,
    Clock,
    Command,
    DecodeError,
    Flow,
    Head,
    Headers,
    ReadAll,
    ReadInto,
    ReadSome,
    Refresh,
    Request,
    Send,
    Sink,
    Source,
    TransportError,
)
from agentrun_proto.decoding import http_date, take_off_coding

from .._awaitable import is_async
from .._blocking_client import blocking_session
from .._drive import conduct
from .._network import Operation
from .._routes import Route, Session, Sessions, Setup, SyncSession, Transport, TransportName
from .._sessions import LoopNetwork
from .._streams import Run, RunAsync
from .._tls import TLS
from .recording import VERSION, Recorded, Segment, Told, date_offset, plain_fields, plain_segments
from .redaction import Redaction

Result = TypeVar("Result")


class _Taken:
    """An exchange while it is taken down."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.sources: list[_CountedSource] = []
        self.head: Head | None = None
        self.pieces: list[bytes] = []
        self.failure: TransportError | DecodeError | None = None
        self.ended = False
        self.coded = False
        """Whether the content may have a coding, which nobody could read."""

    def carried(self) -> Request:
        """The request, with a look at what it carries."""
        body = self.request.body
        if not body.sources:
            return self.request
        segments: list[bytes | Source] = []
        for segment in body.segments:
            if isinstance(segment, bytes):
                segments.append(segment)
            else:
                self.sources.append(_CountedSource(segment))
                segments.append(cast("Source", self.sources[-1]))
        return replace(self.request, body=replace(body, segments=tuple(segments)))

    def answered(self, head: Head, clock: Clock) -> None:
        """The head is there."""
        date = http_date(head.headers.get("date", ""))
        if date is not None:
            head = replace(head, headers=date_offset(head.headers, date, clock.now()))
        self.head = head

    def decode(self) -> tuple[Head, list[bytes]]:
        """The answer, without its content coding: in it, no secret could be found."""
        assert self.head is not None
        head, pieces = self.head, self.pieces
        if not self.coded or head.headers.get("content-encoding", "identity").lower() == "identity":
            return head, pieces
        try:
            content = take_off_coding(head, b"".join(pieces))
        except DecodeError:
            return head, [b"?"]  # no more a content of that coding than what came
        coded = ("content-encoding", "content-length")
        fields = Headers([line for line in head.headers.fields if line[0].lower() not in coded])
        return replace(head, headers=fields), [content]

    def learn(self, redaction: Redaction) -> None:
        """Tells of the secrets in it."""
        redaction.learn_fields(self.request.fields())
        redaction.learn_text(self.request.url)
        for segment in self.request.body.segments:
            if isinstance(segment, bytes):
                redaction.learn_text(segment.decode("latin-1"))
        if self.head is not None:
            head, pieces = self.decode()
            redaction.learn_fields(head.headers.fields)
            redaction.learn_text(b"".join(pieces).decode("latin-1"))

    def redacted(self, redaction: Redaction) -> Recorded:
        """What may be written of it."""
        request = self.request
        head, pieces = (None, []) if self.head is None else self.decode()
        failure = self.failure
        if failure is not None:
            failure = type(failure)(
                redaction.text(failure.message), may_be_processed=failure.may_be_processed
            )
        return Recorded(
            method=request.method,
            url=redaction.url(request.url),
            fields=tuple(redaction.request_fields(plain_fields(request))),
            segments=tuple(self._segments(redaction)),
            status=None if head is None else head.status,
            answer_fields=() if head is None else tuple(redaction.answer_fields(head.headers)),
            pieces=tuple([piece for piece in redaction.pieces(pieces) if piece]),
            failure=failure,
            left=not self.ended and failure is None,
        )

    def _segments(self, redaction: Redaction) -> list[Segment]:
        own = self.request.body.segments
        held = plain_segments(self.request, [part if isinstance(part, bytes) else b"" for part in own])
        sources = iter(self.sources)
        kept = redaction.pieces(held)
        return [
            kept[index] if isinstance(part, bytes) else next(sources).told() for index, part in enumerate(own)
        ]


class _CountedSource:
    """A source whose checksum is taken while it is read. All else is the source's own."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._begin()

    def _begin(self) -> None:
        self._digest = sha256()
        self._length = 0
        self._ended = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    @property
    def read(self) -> Callable[[int], bytes] | Callable[[int], Awaitable[bytes]]:
        return self._read_async if is_async(self._source.read) else self._read

    def _read(self, size: int) -> bytes:
        return self._count(cast("Callable[[int], bytes]", self._source.read)(size))

    async def _read_async(self, size: int) -> bytes:
        return self._count(await cast("Callable[[int], Awaitable[bytes]]", self._source.read)(size))

    def _count(self, piece: bytes) -> bytes:
        self._digest.update(piece)
        self._length += len(piece)
        self._ended = not piece or self._length == self._source.length
        return piece

    def rewind(self) -> None:
        self._source.rewind()
        self._begin()

    def told(self) -> Told:
        """What is known of it."""
        if not self._ended and self._source.length != 0:
            return Told(length=self._source.length)
        return Told(length=self._length, checksum=self._digest.hexdigest())


class _CopiedSink:
    """A sink; what is written to it is kept too."""

    def __init__(self, sink: Any, pieces: list[bytes]) -> None:
        self._sink = sink
        self._pieces = pieces

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)

    def write(self, piece: bytes | memoryview) -> None:
        self._pieces.append(bytes(piece))  # it has arrived, whatever becomes of it here
        self._sink.write(piece)


class _Log:
    """The exchanges of a recording, in the order in which they were sent."""

    def __init__(self) -> None:
        self._taken: list[_Taken] = []
        self._lock = threading.Lock()

    def begin(self, request: Request) -> _Taken:
        """Begins to take an exchange down."""
        taken = _Taken(request)
        with self._lock:
            self._taken.append(taken)
        return taken

    def forget(self, taken: _Taken) -> None:
        """Lets go of one that did not come about."""
        with self._lock:
            self._taken.remove(taken)

    def taken(self) -> list[_Taken]:
        """Those that have been answered, or have failed."""
        with self._lock:
            return [each for each in self._taken if each.head is not None or each.failure is not None]


class _Taking:
    """Takes down what one flow asks for and is told."""

    def __init__(self, log: _Log, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._taken: _Taken | None = None
        self._perform: dict[type, Callable[[Any], Flow[Any]]] = {
            Send: self._send,
            ReadAll: self._read_all,
            ReadSome: self._read_some,
            ReadInto: self._read_into,
            Refresh: self._refresh,
        }

    def conduct(self, flow: Flow[Result]) -> Flow[Result]:
        """The flow, with its commands on their way to whoever performs them."""
        return conduct(flow, self._pass_on)

    def _pass_on(self, command: Command[Any]) -> Flow[Any]:
        perform = self._perform.get(type(command))
        return _ask(command) if perform is None else perform(command)

    def _send(self, command: Send) -> Flow[Head]:
        self._taken = None
        taken = self._log.begin(command.request)
        try:
            head = yield from Send(
                taken.carried(), command.timeout, command.deadline, command.observer, command.progress
            )
        except TransportError as error:
            if isinstance(error, BodyError):
                self._log.forget(taken)  # the caller's own doing: it will be done again
            taken.failure = error
            raise
        except BaseException:
            self._log.forget(taken)
            raise
        taken.answered(head, self._clock)
        self._taken = taken
        return head

    def _reading(self, taken: _Taken, command: Command[Any]) -> Flow[Any]:
        """Passes on a command that reads, and takes down how that fails."""
        try:
            return (yield from _ask(command))
        except (TransportError, DecodeError) as error:
            taken.failure = error
            raise

    def _current(self) -> _Taken:
        assert self._taken is not None, "a flow reads what it has sent for"
        return self._taken

    def _read_all(self, command: ReadAll) -> Flow[bytes]:
        taken = self._current()
        content: bytes = yield from self._reading(taken, command)
        taken.pieces.append(content)
        taken.coded = taken.ended = True
        return content

    def _read_some(self, command: ReadSome) -> Flow[bytes]:
        taken = self._current()
        piece: bytes = yield from self._reading(taken, command)
        taken.pieces.append(piece)
        taken.ended = not piece
        return piece

    def _read_into(self, command: ReadInto) -> Flow[int]:
        taken, pieces = self._current(), list[bytes]()
        sink = cast("Sink", _CopiedSink(command.sink, pieces))
        try:
            size: int = yield from self._reading(taken, ReadInto(sink, command.total, command.progress))
            taken.ended = True
        finally:
            taken.pieces.append(b"".join(pieces))
        return size

    def _refresh(self, command: Refresh) -> Flow[Any]:
        def flow() -> Flow[Any]:
            return _Taking(self._log, self._clock).conduct(command.flow())

        return (yield Refresh(command.key, flow, deadline=command.deadline, wait=command.wait))


def _ask(command: Command[Any]) -> Flow[Any]:
    return (yield command)


class Recorder:
    """Records the exchanges of the clients that are made with it; ``transport=`` takes it.

    With ``with``, the file is written when the block ends; if it ends in an exception, it is left as it was.
    Credentials, signatures, cookies and whatever a name tells to be secret are taken out before that,
    wherever they stand.

    Args:
        path: of the file; see `agentrun_transports.testing.recording` for what is in it.
        transport: what carries the requests: as for a client.
        secrets: further texts that must not be in it, such as what a hook of your own sends.

    Raises (in `save`, and at the end of the block):
        OSError: the file cannot be written.

    >>> import os, tempfile
    >>> from agentrun_proto import Config
    >>> from agentrun_transports import BlockingClient
    >>> from agentrun_transports.emulator import Emulator
    >>> from agentrun_transports.testing import Player
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = os.path.join(folder.name, "exchanges.json")
    >>> with Emulator() as emulator, Recorder(path) as recorder:
    ...     config = Config.from_env(emulator.environment)
    ...     BlockingClient(config, transport=recorder).post("resources", {"name": "first"})["data"]["name"]
    'first'
    >>> BlockingClient(config, transport=Player(path)).post("resources", {"name": "first"})["data"]["name"]
    'first'
    >>> folder.cleanup()
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        transport: Transport | TransportName | None = None,
        secrets: Iterable[str] = (),
    ) -> None:
        self._path = os.fspath(path)
        self._transport: Transport | TransportName | None = transport
        self._secrets = tuple(secrets)
        self._log = _Log()

    def open(self, setup: Setup) -> SyncSession:
        """The session for a client's blocking calls."""
        return _RecordedSession(self, blocking_session(Route.choose(setup, self._transport)))

    def open_async(self, setup: Setup) -> Sessions:
        """A client's sessions on asyncio and trio."""
        return _RecordedSessions(self, Route.choose(setup, self._transport).sessions())

    def taking(self, operation: Operation[Result]) -> Operation[Result]:
        """An operation that is recorded; for drivers of your own (`agentrun_transports.embedding`)."""
        return lambda clock: _Taking(self._log, clock).conduct(operation(clock))

    def save(self) -> None:
        """Writes what was recorded so far."""
        taken = self._log.taken()
        redaction = Redaction(self._secrets)
        for each in taken:
            each.learn(redaction)
        exchanges = [each.redacted(redaction).as_json() for each in taken]
        text = json.dumps({"recording": VERSION, "exchanges": exchanges}, indent=1, ensure_ascii=False)
        temporary = f"{self._path}.{os.getpid()}.part"
        try:
            with open(temporary, "w", encoding="utf-8", newline="\n") as file:
                file.write(text + "\n")
            os.replace(temporary, self._path)
        except BaseException:
            try:
                os.unlink(temporary)
            except OSError:
                pass
            raise

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.save()


class _RecordedSession:
    """A session whose operations are recorded."""

    def __init__(self, recorder: Recorder, session: SyncSession) -> None:
        self._recorder = recorder
        self._session = session

    @property
    def clock(self) -> Clock:
        return self._session.clock

    def run(self, operation: Operation[Result]) -> Result:
        return self._session.run(self._recorder.taking(operation))

    def begin(self, operation: Operation[None]) -> Run:
        return self._session.begin(self._recorder.taking(operation))

    def close(self) -> None:
        self._session.close()


class _RecordedLoopSession:
    def __init__(self, recorder: Recorder, session: Session) -> None:
        self._recorder = recorder
        self._session = session

    async def run(self, operation: Operation[Result]) -> Result:
        return await self._session.run(self._recorder.taking(operation))

    async def begin(self, operation: Operation[None]) -> RunAsync:
        return await self._session.begin(self._recorder.taking(operation))


class _RecordedSessions:
    def __init__(self, recorder: Recorder, sessions: Sessions) -> None:
        self._recorder = recorder
        self._sessions = sessions

    def get(self, loop: object, network: Callable[[TLS, str | None], LoopNetwork]) -> Session:
        return _RecordedLoopSession(self._recorder, self._sessions.get(loop, network))

    def close(self, loop: object) -> Awaitable[None] | None:
        return self._sessions.close(loop)
