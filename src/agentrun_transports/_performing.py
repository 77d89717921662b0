"""For those who perform the core's commands over an HTTP library: local files, and bodies.

Rules of this file: no network, no event loop, no decision about HTTP.
"""

from __future__ import annotations

import inspect
import os
from typing import Any, TypeVar

from agentrun_proto import (
    Body,
    BodyError,
    Clock,
    Commit,
    Flow,
    OpenSink,
    OpenSource,
    Prepare,
    Provide,
    RandomBytes,
    Rewind,
    Sleep,
    Source,
)

from ._exchange import CHUNK
from ._flights import Flights
from ._local import Local, file_error
from ._network import Steps

Result = TypeVar("Result")


LocalCommand = OpenSource | OpenSink | Prepare | Commit | Rewind | Sleep | RandomBytes | Provide
"""The core's commands that are not about HTTP; `Refresh` apart, which performs a flow of them all."""


class _Local(Local):
    def _begin(self, flow: Flow[None]) -> Flow[None]:
        raise NotImplementedError("a Refresh is performed by whoever performs all commands")


def local_steps(command: LocalCommand, clock: Clock) -> Steps[Any]:
    """The core's commands that are not about HTTP, as a flow of `Run`, `Await` and `Wait`.

    Each `Run` is a blocking call; where it runs is the driver's choice. A `Wait` is a pause: its ticket is
    never ready, and the TimeoutError at its deadline is the end of it.

    Raises (out of the flow):
        FileError, CredentialError: as the command says.

    >>> import os
    >>> from agentrun_transports.embedding import drive
    >>> from agentrun_transports.testing import TurnedClock
    >>> drive(local_steps(OpenSource(os.devnull), TurnedClock()), lambda run: run.function())
    Traceback (most recent call last):
    ...
    agentrun_proto.errors.FileError: /dev/null: is no regular file
    """
    return _Local(clock, Flights(), os.urandom).perform(command)


_NOT_BEGUN = -1


class BodyReader:
    """The content of a request, piece by piece, for HTTP libraries that want to iterate over it.

    >>> from agentrun_proto import encode_body
    >>> list(iter(BodyReader(encode_body({"a": 1})).read, b""))
    [b'{"a":1}']
    """

    __slots__ = ("_body", "_left", "_segments")

    def __init__(self, body: Body) -> None:
        self._body = body
        self._segments = list(reversed(body.segments))
        self._left: int | None = _NOT_BEGUN  # of the source that is being read; None: nobody knows

    def rewind(self) -> None:
        """Goes back to the start, for a further attempt. A blocking call where there is a file.

        Raises:
            FileError: a file cannot be read again.
        """
        for segment in self._body.segments:
            if not isinstance(segment, bytes):
                try:
                    segment.rewind()
                except OSError as error:
                    raise file_error(error) from error
        self._segments = list(reversed(self._body.segments))
        self._left = _NOT_BEGUN

    def read(self) -> bytes:
        """The next piece; ``b""`` at the end. A blocking call where there is a file.

        Raises:
            FileError: a file cannot be read.
            BodyError: a file has become shorter than it was.
        """
        while self._segments:
            segment = self._segments[-1]
            piece = segment if isinstance(segment, bytes) else self._read_source(segment)
            if isinstance(segment, bytes) or not piece:
                self._segments.pop()
            if piece:
                return piece
        return b""

    def _read_source(self, source: Source) -> bytes:
        if self._left == _NOT_BEGUN:
            self._left = source.length
        if self._left == 0:
            self._left = _NOT_BEGUN
            return b""
        try:
            piece = source.read(CHUNK if self._left is None else min(CHUNK, self._left))
        except OSError as error:
            raise file_error(error) from error
        if not isinstance(piece, bytes):
            if inspect.iscoroutine(piece):
                piece.close()
            raise BodyError("an async iterator is sent over the native transport alone")
        if piece:
            if self._left is not None:
                self._left -= len(piece)
        elif self._left is None:
            self._left = _NOT_BEGUN
        else:
            raise BodyError(f"the file ended {self._left} bytes before the length it had when opened")
        return piece
