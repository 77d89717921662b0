"""The stand-in for `server.c` where there is no compiler: the same routes and answers, in Python.

It listens on a free port of 127.0.0.1, prints it, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import sys

MIB = 1024 * 1024
BLOCK = bytes((at * 31 + at // 251) & 0xFF for at in range(64 * 1024)) * 16
EVENT = b'36\r\ndata: {"index": 1234, "delta": "some words of text"}\n\n\r\n'


def _padded(value: dict[str, object], size: int) -> bytes:
    start = json.dumps(value, separators=(",", ":"))[:-1] + ',"padding":"'
    return start.encode().ljust(size - 2, b"x") + b'"}'


ITEM = {
    "id": "sbx-0123456789",
    "status": "READY",
    "size": MIB,
    "tags": ["a", "b"],
    "ratio": 0.25,
    "active": True,
}
SMALL = _padded(
    {"code": "SUCCESS", "requestId": "5f0c9a4e-1b7d-4c3f-9a35-0d9b6f1c2e44", "data": {"limit": 10}}, 200
)
LARGE = _padded({"code": "SUCCESS", "data": [ITEM] * 600}, 64 * 1024)


class Exchange(asyncio.Protocol):
    """One connection: a request, its answer, the next request."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.buffer = b""
        self.body_left: int | None = None
        self.may_write = asyncio.Event()
        self.may_write.set()
        self.sending: asyncio.Task[None] | None = None

    def pause_writing(self) -> None:
        self.may_write.clear()

    def resume_writing(self) -> None:
        self.may_write.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.may_write.set()

    def data_received(self, data: bytes) -> None:
        if self.body_left is None:
            self.buffer += data
            head, found, data = self.buffer.partition(b"\r\n\r\n")
            if not found:
                return
            self.buffer = b""
            request_line, *fields = head.split(b"\r\n")
            values = {
                name.lower(): value.strip() for name, _, value in (field.partition(b":") for field in fields)
            }
            if b"transfer-encoding" in values:
                self.transport.write(
                    b"HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                )
                self.transport.close()
                return
            self.route = request_line.split(b" ")[1].partition(b"?")[0].rpartition(b"/")[2].decode()
            self.signed = b"agentrun-authorization" in values
            self.body_size = self.body_left = int(values.get(b"content-length", 0))
        self.body_left -= len(data)
        if self.body_left == 0:
            self.body_left = None
            self.respond()

    def respond(self) -> None:
        name, _, count = self.route.partition("-")
        if not self.signed and name != "open":
            self.answer(
                "401 Unauthorized", b'{"code":"ERR_FORBIDDEN","requestId":"0","message":"not signed"}'
            )
        elif name == "large":
            self.answer("200 OK", LARGE)
        elif name == "upload":
            self.answer("200 OK", b'{"received": %d}' % self.body_size)
        elif name == "download":
            self.transport.write(
                self.head("200 OK", "application/octet-stream", f"Content-Length: {int(count) * MIB}")
            )
            self.sending = asyncio.ensure_future(self.send_blocks(int(count)))
        elif name == "events":
            self.transport.write(self.head("200 OK", "text/event-stream", "Transfer-Encoding: chunked"))
            self.transport.write(EVENT * int(count) + b"0\r\n\r\n")
        else:
            self.answer("200 OK", SMALL)

    async def send_blocks(self, count: int) -> None:
        for _ in range(count):
            await self.may_write.wait()
            self.transport.write(BLOCK)

    def answer(self, status: str, body: bytes) -> None:
        self.transport.write(self.head(status, "application/json", f"Content-Length: {len(body)}") + body)

    @staticmethod
    def head(status: str, content_type: str, framing: str) -> bytes:
        return (
            f"HTTP/1.1 {status}\r\nDate: Fri, 06 Mar 2026 12:00:00 GMT\r\nContent-Type: {content_type}\r\n"
            f"{framing}\r\nConnection: keep-alive\r\nServer: benchmark\r\n"
            "X-Acs-Request-Id: 5f0c9a4e-1b7d-4c3f-9a35-0d9b6f1c2e44\r\n"
            "X-Fc-Instance: c-65a1f3b2-1a2b3c4d5e6f\r\nCache-Control: no-store\r\n\r\n"
        ).encode()


async def main() -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Exchange, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
