"""Those on trio: as many calls in flight as the section asks for, each on a connection of its own."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.contenders.base import BETWEEN_ROUNDS, TIMEOUT, Contender, agentrun_config, answer_extent
from benchmarks.contenders.with_asyncio import Httpcore, Httpx


class Raw(Contender):
    """The limit: the same bytes over trio.socket, nothing built or timed; the JSON parsed."""

    name = "raw"
    needs = "trio"

    async def open(self) -> None:
        import trio

        self.trio = trio
        self.idle = []
        for _ in range(self.target.in_flight):
            sock = trio.socket.socket()
            await sock.connect(("127.0.0.1", self.target.port))
            sock.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
            self.idle.append((sock, bytearray(128 * 1024)))
        self.requests: dict[str, bytes] = {}
        self.extents: dict[str, tuple[int, int]] = {}

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


class Ours(Contender):
    """This project's trio client."""

    name = "agentrun-proto"
    needs = "agentrun-proto"

    async def open(self) -> None:
        from agentrun_proto import Config
        from agentrun_transports import Limits, TrioClient

        count = self.target.in_flight
        limits = Limits(total=count, per_origin=count, idle=BETWEEN_ROUNDS)
        self.client: Any = TrioClient(agentrun_config(self.target, Config), namespace="agents", limits=limits)

    async def json(self, route: str) -> Any:
        return await self.client.get(route, query={"limit": 10})

    async def close(self) -> None:
        await self.client.aclose()


CONTENDERS: tuple[type[Contender], ...] = (Raw, RawSigned, Ours, Httpcore, Httpx)
