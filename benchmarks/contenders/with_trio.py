"""Those on trio: as many calls in flight as the section asks for, each on a connection of its own."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from benchmarks.contenders.base import TIMEOUT, Contender, answer_extent
from benchmarks.contenders.raw import RawTransfers
from benchmarks.contenders.with_asyncio import Httpcore, Httpx
from benchmarks.contenders.with_asyncio import Ours as OursOnAsyncio


class Socket:
    """One connection by trio's own socket."""

    def __init__(self, stream: Any) -> None:
        self.send = stream.socket.send  # a request of one piece goes out at once
        self.send_all = stream.send_all
        self.recv_into = stream.socket.recv_into
        self.close = stream.socket.close


class SecureSocket:
    """One connection by trio's own TLS, which reads into bytes of its own."""

    def __init__(self, stream: Any) -> None:
        self.send = self.send_all = stream.send_all
        self.receive = stream.receive_some
        self.close = stream.transport_stream.socket.close

    async def recv_into(self, room: memoryview) -> int:
        data = await self.receive(len(room))
        room[: len(data)] = data
        return len(data)


class Raw(RawTransfers):
    """The limit: the same bytes over trio.socket, nothing built or timed; the JSON parsed."""

    name = "raw"
    needs = "trio"

    async def open(self) -> None:
        import trio

        self.trio = trio
        self.context = self.target.tls()
        self.idle = [(await self.connect(), bytearray(128 * 1024)) for _ in range(self.target.in_flight)]
        self.requests: dict[str, bytes] = {}
        self.extents: dict[str, tuple[int, int]] = {}

    async def connect(self) -> Socket | SecureSocket:
        sock = self.trio.socket.socket()
        await sock.connect(("127.0.0.1", self.target.port))
        stream = self.trio.SocketStream(sock)  # which sets TCP_NODELAY
        if self.context is None:
            return Socket(stream)
        return SecureSocket(self.trio.SSLStream(stream, self.context, server_hostname="127.0.0.1"))

    async def json(self, route: str) -> Any:
        if route not in self.requests:
            self.requests[route] = self.request_bytes("GET", route, self.signed("GET", route))
        return await self.ask(self.requests[route], route)

    async def ask(self, request: bytes, route: str) -> Any:
        sock, buffer = line = self.idle.pop()
        await sock.send(request)
        view = memoryview(buffer)
        used = await sock.recv_into(view)
        extent = self.extents.get(route)
        while extent is None or used < extent[1]:
            if extent is None and (extent := answer_extent(buffer[:used])):
                self.extents[route] = extent
                continue
            used += await sock.recv_into(view[used:])
        value = json.loads(str(view[slice(*extent)], "utf-8"))
        self.idle.append(line)
        return value

    async def close(self) -> None:
        for sock, _ in self.idle:
            sock.close()


class RawSigned(Raw):
    """The limit with a fresh signature and a timeout: the least that the work itself costs."""

    name = "raw, signed"

    async def json(self, route: str) -> Any:
        request = self.request_bytes("GET", route, self.signed("GET", route))
        with self.trio.CancelScope(deadline=self.trio.current_time() + TIMEOUT):
            return await self.ask(request, route)
        raise TimeoutError


class Ours(OursOnAsyncio):
    """This project's trio client."""

    client_name = "TrioClient"


class OursHttpcore(Ours):
    """This project's trio client over httpcore: what proxies and HTTP/2 cost."""

    name = "agentrun-proto httpcore"
    options: ClassVar[dict[str, Any]] = {"transport": "httpcore"}


CONTENDERS: tuple[type[Contender], ...] = (Raw, RawSigned, Ours, OursHttpcore, Httpcore, Httpx)
