"""What passes through a transfer, counted: the flow itself, with its source or sink watched.

Rules of this file: the flow's commands go to the driver as they are, and its answers come back as they are,
but for an opened file, which is wrapped. Nothing else changes, the errors least of all.
"""

from __future__ import annotations

from typing import TypeVar, cast

from agentrun_proto import Config, Flow, Head, OpenSink, OpenSource, Send, Source

from .._blocking_client import BlockingClient
from .._files import FileSink
from .._network import Operation
from .screen import Meter

Result = TypeVar("Result")


class WatchedClient(BlockingClient):
    """A blocking client that tells `meter` how far its transfers are."""

    def __init__(self, config: Config, namespace: str, meter: Meter) -> None:
        super().__init__(config, namespace)
        self._meter = meter

    def _run(self, operation: Operation[Result]) -> Result:
        return super()._run(lambda clock: watched(operation(clock), self._meter))


def watched(flow: Flow[Result], meter: Meter) -> Flow[Result]:
    """The flow, with what is read from its source or written to its sink reported to `meter`."""
    sink: _Sink | None = None
    try:
        command = flow.send(None)
        while True:
            try:
                answer = yield command
            except BaseException as error:
                command = flow.throw(error)
                continue
            if isinstance(command, OpenSource):
                answer = _Source(answer, meter)
            elif isinstance(command, OpenSink):
                answer = sink = _Sink(answer, meter)
            elif isinstance(command, Send) and sink is not None:
                sink.total = _length(answer)
            command = flow.send(answer)
    except StopIteration as stop:
        return cast("Result", stop.value)
    finally:
        flow.close()


def _length(head: Head) -> int | None:
    length = head.headers.get("content-length", "")
    return int(length) if length.isdecimal() else None


class _Source:
    """A source that says how much of it has been read."""

    def __init__(self, source: Source, meter: Meter) -> None:
        self._source = source
        self._meter = meter
        self._done = 0

    @property
    def length(self) -> int:
        return self._source.length

    def read(self, size: int, /) -> bytes:
        piece = self._source.read(size)
        self._done += len(piece)
        self._meter(self._done, self.length)
        return piece

    def rewind(self) -> None:
        self._source.rewind()
        self._done = 0

    def close(self) -> None:
        self._source.close()


class _Sink:
    """A sink that says how much of it has been written."""

    def __init__(self, sink: FileSink, meter: Meter) -> None:
        self._sink = sink
        self._meter = meter
        self.total: int | None = None

    @property
    def size(self) -> int:
        return self._sink.size

    def write(self, piece: bytes | memoryview) -> None:
        self._sink.write(piece)
        self._meter(self._sink.size, self.total)

    def commit(self) -> None:
        self._sink.commit()

    def discard(self) -> None:
        self._sink.discard()
