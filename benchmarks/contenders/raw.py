"""The limit, where it is the same on every loop: events as they come, and files over a bare connection.

Nothing here is general: it reads what the benchmarks' own server sends, and no more of HTTP than that needs.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

from benchmarks.contenders.base import PIECE, Contender, answer_extent, file_size

if TYPE_CHECKING:
    from collections.abc import Awaitable

SENT_AT_ONCE = 256 * 1024
# What a multipart request has around the file; the server counts it and asks no more.
FORM_START = (
    b'--b\r\nContent-Disposition: form-data; name="path"\r\n\r\n/tmp/upload.bin\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="upload.bin"\r\n\r\n'
)
FORM_END = b"\r\n--b--\r\n"
LAST_CHUNK = b"0\r\n\r\n"


class EventCounter:
    """Lines, split, and the JSON of those that are data. The lines that frame the chunks are passed over,
    which is right only where no chunk ends within an event: the server sends one in each.
    """

    def __init__(self) -> None:
        self.count = 0
        self.ended = False
        self._rest = self._tail = b""

    def feed(self, data: bytes | memoryview) -> None:
        """Take what one read brought."""
        whole, _, self._rest = (self._rest + data).rpartition(b"\n")
        for line in str(whole, "ascii").split("\n"):
            if line.startswith("data: "):
                json.loads(line[6:])
                self.count += 1
        self._tail = (self._tail + data[-len(LAST_CHUNK) :])[-len(LAST_CHUNK) :]
        self.ended = self._tail == LAST_CHUNK


class Line(Protocol):
    """A connection, on whatever loop."""

    def send_all(self, data: bytes | memoryview, /) -> Awaitable[Any]: ...
    def recv_into(self, room: memoryview, /) -> Awaitable[int]: ...
    def close(self) -> object: ...


class RawTransfers(Contender):
    """What is long: each over a connection of its own, whose making does not show beside it."""

    async def connect(self) -> Line:
        """Return a new connection to the server."""
        raise NotImplementedError

    async def events(self, route: str) -> int:
        line = await self.connect()
        view = memoryview(bytearray(PIECE))
        counter = EventCounter()
        await line.send_all(self.request_bytes("GET", route, self.signed("GET", route)))
        while not counter.ended:
            counter.feed(view[: await line.recv_into(view)])
        line.close()
        return counter.count

    async def download(self, route: str, save_path: str) -> None:
        line = await self.connect()
        view = memoryview(bytearray(PIECE))
        await line.send_all(self.request_bytes("GET", route, self.signed("GET", route)))
        used = await line.recv_into(view)
        extent = answer_extent(bytes(view[:used]))
        assert extent is not None
        start, end = extent
        with open(save_path, "wb", buffering=0) as file:
            file.write(view[start:used])
            left = end - used
            while left:
                used = await line.recv_into(view)
                file.write(view[:used])
                left -= used
        line.close()

    async def multipart(self, path: str) -> Any:
        line = await self.connect()
        view = memoryview(bytearray(SENT_AT_ONCE))
        size = len(FORM_START) + file_size(path) + len(FORM_END)
        head = self.request_bytes("POST", "upload", self.signed("POST", "upload"), size)
        await line.send_all(head + FORM_START)
        with open(path, "rb", buffering=0) as file:
            while used := file.readinto(view):
                await line.send_all(view[:used])
        await line.send_all(FORM_END)
        answer = bytes(view[: await line.recv_into(view)])
        line.close()
        extent = answer_extent(answer)
        assert extent is not None
        return json.loads(answer[slice(*extent)])
