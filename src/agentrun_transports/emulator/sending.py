"""An answer on its way out: whole, cut, slowly, event by event.

Rules that hold here:
1. What a ``Response`` says of its way is performed, and nothing else is decided.
2. No body is held in memory that is not there already: files go by ``sendfile``, streams event by event.
3. h11 writes heads and the framing of streams; bodies of known length go past it, and it is told how many
   bytes they had.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, cast

import h11

from .messages import FileBody, StreamBody

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from .messages import Response

# How often in a second a slow body goes on.
_STEPS = 20


class Sender:
    """Sends the answers of one connection.

    ``pause`` waits for so many seconds (None: for ever), and raises ``OSError`` where the peer leaves first.
    """

    def __init__(
        self, sock: socket.socket, http: h11.Connection, pause: Callable[[float | None], None]
    ) -> None:
        self._sock = sock
        self._http = http
        self._pause = pause

    def send(self, response: Response) -> bool:
        """Send an answer; return whether it went out whole, so that another may follow.

        Raises ``FileNotFoundError`` where its file is gone, before anything is sent, and ``OSError`` where
        the peer is.
        """
        head = h11.Response(status_code=response.status, headers=list(response.headers))
        if isinstance(response.body, FileBody):
            with response.body.path.open("rb") as file:
                return self._send_file(head, response.body, file, response)
        if isinstance(response.body, StreamBody):
            return self._send_stream(head, response.body, response)
        return self._send_bytes(head, response.body, response)

    def _send_bytes(self, head: h11.Response, body: bytes, response: Response) -> bool:
        count = _left(response, len(body))
        start = self._http.send(head) or b""
        if response.rate is None:
            self._sock.sendall(start + body[:count])
        else:
            self._sock.sendall(start)
            for offset, size in self._steps(count, response.rate):
                self._sock.sendall(body[offset : offset + size])
        return self._finish(len(body), count)

    def _send_file(self, head: h11.Response, body: FileBody, file: IO[bytes], response: Response) -> bool:
        count = _left(response, len(body))
        self._sock.sendall(self._http.send(head) or b"")
        for offset, size in self._steps(count, response.rate):
            self._sock.sendfile(file, body.offset + offset, size)
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

    def _send_stream(self, head: h11.Response, body: StreamBody, response: Response) -> bool:
        # At once: that an answer begins is not to wait for its first event.
        self._sock.sendall(self._http.send(head) or b"")
        left = response.cut_after
        sent = 0
        for event in body.events:
            if response.ending is not None and sent == response.events_before:
                break
            if sent and response.pace:
                self._pause(response.pace)
            self._send_event(event if left is None else event[:left], response.rate)
            if left is not None:
                if len(event) > left:
                    return False
                left -= len(event)
            sent += 1
        if response.ending is not None and sent == response.events_before:
            if response.ending == "stall":
                self._pause(None)
            if response.ending != "error":
                return False
            self._send_event(body.failure, response.rate)
        self._sock.sendall(self._http.send(h11.EndOfMessage()) or b"")
        return True

    def _send_event(self, event: bytes, rate: int | None) -> None:
        for offset, size in self._steps(len(event), rate):
            data = h11.Data(data=event[offset : offset + size])
            self._sock.sendall(self._http.send(data) or b"")

    def _steps(self, count: int, rate: int | None) -> Iterator[tuple[int, int]]:
        """Divide ``count`` bytes into offsets and sizes, with pauses before them that make the ``rate``."""
        size = count if rate is None else max(1, rate // _STEPS)
        # With nothing to send there is no step: sendfile refuses a count of 0.
        for offset in range(0, count, size or 1):
            step = min(size, count - offset)
            if rate is not None:
                self._pause(step / rate)
            yield offset, step


def _left(response: Response, length: int) -> int:
    """Return how many of ``length`` bytes are sent."""
    return length if response.cut_after is None else min(length, response.cut_after)


class _Counted:
    """Stands for so many bytes that were sent past h11."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length
