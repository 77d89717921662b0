"""Those on asyncio: as many calls in flight as the section asks for, each on a connection of its own."""

from __future__ import annotations

import asyncio
import json
import socket
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.contenders.base import (
    BETWEEN_ROUNDS,
    FORM,
    PIECE,
    TIMEOUT,
    Contender,
    agentrun_config,
    agentrun_options,
    answer_extent,
    count_events_async,
)
from benchmarks.contenders.raw import RawTransfers


class Line(asyncio.BufferedProtocol):
    """One connection that knows how long the next answer is: the least that a protocol can do."""

    def __init__(self) -> None:
        self.buffer = bytearray(128 * 1024)
        self.view = memoryview(self.buffer)
        self.used = 0
        self.extent: tuple[int, int] | None = None
        self.waiter: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.loop = asyncio.get_running_loop()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.view[self.used :]

    def buffer_updated(self, nbytes: int) -> None:
        self.used += nbytes
        if self.extent is None:
            self.extent = answer_extent(self.buffer[: self.used])
        if self.extent is not None and self.used >= self.extent[1] and self.waiter is not None:
            self.waiter.set_result(None)
            self.waiter = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self.waiter is not None:
            self.waiter.set_exception(exc or ConnectionResetError())

    async def ask(self, request: bytes, extent: tuple[int, int] | None) -> tuple[int, int]:
        self.used = 0
        self.extent = extent
        self.waiter = self.loop.create_future()
        self.transport.write(request)
        await self.waiter
        assert self.extent is not None
        return self.extent


class PatientLine(Line):
    """The same with a timeout: one timer for the connection, moved on only when it goes off."""

    deadline = 0.0
    timer: asyncio.TimerHandle | None = None

    async def ask(self, request: bytes, extent: tuple[int, int] | None) -> tuple[int, int]:
        self.deadline = self.loop.time() + TIMEOUT
        if self.timer is None:
            self.timer = self.loop.call_at(self.deadline, self.check)
        return await super().ask(request, extent)

    def check(self) -> None:
        self.timer = None
        if self.waiter is None:
            return
        if self.loop.time() >= self.deadline:
            self.waiter.set_exception(TimeoutError())
        else:
            self.timer = self.loop.call_at(self.deadline, self.check)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.timer is not None:
            self.timer.cancel()


class Socket:
    """One connection that the loop reads and writes without a protocol: the least that a transfer can do."""

    def __init__(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self.send_all = partial(loop.sock_sendall, sock)
        self.recv_into = partial(loop.sock_recv_into, sock)
        self.close = sock.close


class Raw(RawTransfers):
    """The limit: the same bytes through a BufferedProtocol, nothing built or timed; the JSON parsed."""

    name = "raw"
    line_class = Line

    async def open(self) -> None:
        connect = partial(
            asyncio.get_running_loop().create_connection,
            self.line_class,
            "127.0.0.1",
            self.target.port,
            ssl=self.target.tls(),
        )
        self.idle = [(await connect())[1] for _ in range(self.target.in_flight)]
        self.requests: dict[str, bytes] = {}
        self.extents: dict[str, tuple[int, int]] = {}

    async def connect(self) -> Socket:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.target.port))
        return Socket(sock)

    def request(self, route: str) -> bytes:
        if route not in self.requests:
            self.requests[route] = self.request_bytes("GET", route, self.signed("GET", route))
        return self.requests[route]

    async def json(self, route: str) -> Any:
        line = self.idle.pop()
        start, end = self.extents[route] = await line.ask(self.request(route), self.extents.get(route))
        value = json.loads(str(line.view[start:end], "utf-8"))
        self.idle.append(line)
        return value

    async def close(self) -> None:
        for line in self.idle:
            line.transport.close()


class RawSigned(Raw):
    """The limit with a fresh signature and a timeout: the least that the work itself costs."""

    name = "raw, signed"
    line_class = PatientLine

    def request(self, route: str) -> bytes:
        return self.request_bytes("GET", route, self.signed("GET", route))


class Ours(Contender):
    """This project's asyncio client; its trio client is the same to its caller."""

    name = "agentrun-proto"
    needs = "agentrun-proto"
    client_name = "AsyncioClient"
    options: ClassVar[dict[str, Any]] = {}

    async def open(self) -> None:
        import agentrun_transports
        from agentrun_proto import Config

        count = self.target.in_flight
        limits = agentrun_transports.Limits(total=count, per_origin=count, idle=BETWEEN_ROUNDS)
        options = {**agentrun_options(self.target), **self.options, "limits": limits}
        client_class: Any = getattr(agentrun_transports, self.client_name)
        self.client = client_class(agentrun_config(self.target, Config), namespace="agents", **options)

    async def json(self, route: str) -> Any:
        return await self.client.get(route, query={"limit": 10})

    async def events(self, route: str) -> int:
        count = 0
        async with self.client.stream("GET", route, query={"limit": 10}) as stream:
            async for event in stream.events():
                json.loads(event.data)
                count += 1
        return count

    async def download(self, route: str, save_path: str) -> None:
        await self.client.get_file(route, save_path)

    async def multipart(self, path: str) -> Any:
        return await self.client.post_file("upload", path, FORM["path"])

    async def close(self) -> None:
        await self.client.aclose()


class OursHttpcore(Ours):
    """This project's asyncio client over httpcore: what proxies and HTTP/2 cost."""

    name = "agentrun-proto httpcore"
    options: ClassVar[dict[str, Any]] = {"transport": "httpcore"}


class Official(Contender):
    """The official client of the service; it makes a new HTTP client for each call."""

    name = "agentrun-sdk"
    needs = "agentrun-sdk"

    async def open(self) -> None:
        from agentrun.utils.config import Config
        from agentrun.utils.data_api import DataAPI, ResourceType

        config = agentrun_config(self.target, Config)
        self.api = DataAPI("benchmark", ResourceType.Sandbox, config=config, namespace="agents")

    async def json(self, route: str) -> Any:
        return await self.api.get_async(route, query={"limit": 10})

    async def close(self) -> None:
        pass


class Aiohttp(Contender):
    """An aiohttp ClientSession."""

    name = "aiohttp"
    needs = "aiohttp"

    async def open(self) -> None:
        import aiohttp

        self.form_class = aiohttp.FormData
        connector = aiohttp.TCPConnector(
            ssl=self.target.tls() or True, limit=self.target.in_flight, keepalive_timeout=BETWEEN_ROUNDS
        )
        self.session = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=TIMEOUT)
        )

    async def json(self, route: str) -> Any:
        async with self.session.get(self.url(route), headers=self.signed("GET", route)) as response:
            return await response.json()

    async def events(self, route: str) -> int:
        async with self.session.get(self.url(route), headers=self.signed("GET", route)) as response:
            return await count_events_async(response.content, b"data:")

    async def download(self, route: str, save_path: str) -> None:
        async with self.session.get(self.url(route), headers=self.signed("GET", route)) as response:
            with open(save_path, "wb") as file:
                async for piece in response.content.iter_chunked(PIECE):
                    file.write(piece)

    async def multipart(self, path: str) -> Any:
        headers = self.signed("POST", "upload")
        with open(path, "rb") as file:
            form = self.form_class({**FORM, "file": file})
            async with self.session.post(self.url("upload"), data=form, headers=headers) as response:
                return await response.json()

    async def close(self) -> None:
        await self.session.close()


class Httpx(Contender):
    """An httpx AsyncClient, kept; on trio as on asyncio."""

    name = "httpx"
    needs = "httpx"

    async def open(self) -> None:
        import httpx

        count = self.target.in_flight
        limits = httpx.Limits(max_connections=count, max_keepalive_connections=count, keepalive_expiry=None)
        self.client = httpx.AsyncClient(verify=self.target.tls() or True, timeout=TIMEOUT, limits=limits)

    async def json(self, route: str) -> Any:
        return (await self.client.get(self.url(route), headers=self.signed("GET", route))).json()

    async def events(self, route: str) -> int:
        headers = self.signed("GET", route)
        async with self.client.stream("GET", self.url(route), headers=headers) as response:
            return await count_events_async(response.aiter_lines(), "data:")

    async def download(self, route: str, save_path: str) -> None:
        headers = self.signed("GET", route)
        async with self.client.stream("GET", self.url(route), headers=headers) as response:
            with open(save_path, "wb") as file:
                async for piece in response.aiter_bytes():
                    file.write(piece)

    async def multipart(self, path: str) -> Any:
        headers = self.signed("POST", "upload")
        with open(path, "rb") as file:
            return (
                await self.client.post(self.url("upload"), data=FORM, files={"file": file}, headers=headers)
            ).json()

    async def close(self) -> None:
        await self.client.aclose()


class Httpcore(Contender):
    """An httpcore AsyncConnectionPool; on trio as on asyncio."""

    name = "httpcore"
    needs = "httpcore"

    async def open(self) -> None:
        import httpcore

        count = self.target.in_flight
        self.pool = httpcore.AsyncConnectionPool(
            ssl_context=self.target.tls(), max_connections=count, max_keepalive_connections=count
        )
        self.extensions = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), TIMEOUT)}

    async def json(self, route: str) -> Any:
        headers = list(self.signed("GET", route).items())
        response = await self.pool.request(
            "GET", self.url(route), headers=headers, extensions=self.extensions
        )
        return json.loads(response.content)

    async def close(self) -> None:
        await self.pool.aclose()


class Niquests(Contender):
    """A niquests AsyncSession."""

    name = "niquests"
    needs = "niquests"

    async def open(self) -> None:
        import niquests

        self.session = niquests.AsyncSession(pool_maxsize=self.target.in_flight)
        self.session.verify = self.target.ca_file or True

    async def json(self, route: str) -> Any:
        return (
            await self.session.get(self.url(route), headers=self.signed("GET", route), timeout=TIMEOUT)
        ).json()

    async def close(self) -> None:
        await self.session.close()


class Pyreqwest(Contender):
    """pyreqwest: reqwest, in Rust; its threads' time counts too."""

    name = "pyreqwest"
    needs = "pyreqwest"

    async def open(self) -> None:
        from pyreqwest.client import ClientBuilder

        builder_class: Any = ClientBuilder
        builder = builder_class().timeout(timedelta(seconds=TIMEOUT))
        if self.target.ca_file:
            builder = builder.add_root_certificate_pem(Path(self.target.ca_file).read_bytes())
        self.client = builder.build()

    async def json(self, route: str) -> Any:
        request = self.client.get(self.url(route)).headers(self.signed("GET", route)).build()
        return await (await request.send()).json()

    async def close(self) -> None:
        await self.client.close()


CONTENDERS: tuple[type[Contender], ...] = (
    Raw,
    RawSigned,
    Ours,
    OursHttpcore,
    Official,
    Aiohttp,
    Httpcore,
    Httpx,
    Niquests,
    Pyreqwest,
)
