"""An answer on its way out: whole, cut, slowly, event by event.

Rules that hold here:
1. What a ``Response`` says of its way is performed, and nothing else is decided.
2. No body is held in memory that is not there already: files go as files, streams event by event.
3. h11 writes heads and the framing of streams; bodies of known length go past it, and it is told how many
   bytes they had.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, cast

import h11

from .commands import Pause, Send, SendFile
from .messages import FileBody, StreamBody

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .commands import Flow
    from .messages import Response

# How often in a second a slow body goes on.
_STEPS = 20


class Sender:
    """Sends the answers of one connection, in flows."""

    def __init__(self, http: h11.Connection) -> None:
        self._http = http

    def send(self, response: Response) -> Flow[bool]:
        """Send an answer; return whether it went out whole, so that another may follow.

        Raises ``FileNotFoundError`` where its file is gone, before anything is sent, and ``OSError`` where
        the peer is.
        """
        head = h11.Response(status_code=response.status, headers=list(response.headers))
        if isinstance(response.body, FileBody):
            with response.body.path.open("rb") as file:
                return (yield from self._send_file(head, response.body, file, response))
        if isinstance(response.body, StreamBody):
            return (yield from self._send_stream(head, response.body, response))
        return (yield from self._send_bytes(head, response.body, response))

    def _send_bytes(self, head: h11.Response, body: bytes, response: Response) -> Flow[bool]:
        count = _left(response, len(body))
        start = self._http.send(head) or b""
        if response.rate is None:
            yield Send(start + body[:count])
        else:
            yield Send(start)
            for offset, size in _steps(count, response.rate):
                yield from _wait(size, response.rate)
                yield Send(body[offset : offset + size])
        return self._finish(len(body), count)

    def _send_file(
        self, head: h11.Response, body: FileBody, file: IO[bytes], response: Response
    ) -> Flow[bool]:
        count = _left(response, len(body))
        yield Send(self._http.send(head) or b"")
        for offset, size in _steps(count, response.rate):
            yield from _wait(size, response.rate)
            yield SendFile(file, body.offset + offset, size)
        return self._finish(len(body), count)

    def _finish(self, length: int, count: int) -> bool:
        """Account for a body of ``length`` bytes of which ``count`` were sent."""
        if count < length:
            return False
        if length:
            # h11 counts the bytes of a body and does not look at them.
            self._http.send_with_data_passthrough(h11.Data(data=cast("bytes", _Counted(length))))
        self._http.send(h11.EndOfMessage())
        return True

    def _send_stream(self, head: h11.Response, body: StreamBody, response: Response) -> Flow[bool]:
        # At once: that an answer begins is not to wait for its first event.
        yield Send(self._http.send(head) or b"")
        left = response.cut_after
        sent = 0
        for event in body.events:
            if response.ending is not None and sent == response.events_before:
                break
            if sent and response.pace:
                yield Pause(response.pace)
            yield from self._send_event(event if left is None else event[:left], response.rate)
            if left is not None:
                if len(event) > left:
                    return False
                left -= len(event)
            sent += 1
        if response.ending is not None and sent == response.events_before:
            if response.ending == "stall":
                yield Pause(None)
            if response.ending != "error":
                return False
            yield from self._send_event(body.failure, response.rate)
        yield Send(self._http.send(h11.EndOfMessage()) or b"")
        return True

    def _send_event(self, event: bytes, rate: int | None) -> Flow[None]:
        for offset, size in _steps(len(event), rate):
            yield from _wait(size, rate)
            yield Send(self._http.send(h11.Data(data=event[offset : offset + size])) or b"")


def _steps(count: int, rate: int | None) -> Iterator[tuple[int, int]]:
    """Divide ``count`` bytes into offsets and sizes that fit the ``rate``."""
    size = count if rate is None else max(1, rate // _STEPS)
    # With nothing to send there is no step: sendfile refuses a count of 0.
    for offset in range(0, count, size or 1):
        yield offset, min(size, count - offset)


def _wait(size: int, rate: int | None) -> Flow[None]:
    """Pause before so many bytes, which makes the ``rate``."""
    if rate is not None:
        yield Pause(size / rate)


def _left(response: Response, length: int) -> int:
    """Return how many of ``length`` bytes are sent."""
    return length if response.cut_after is None else min(length, response.cut_after)


class _Counted:
    """Stands for so many bytes that were sent past h11."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length
