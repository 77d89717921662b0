"""What the tests of the transports share: a raw server, the drivers, a fake network, a clock to be turned.

Rules of this file: nothing here calls the code under test to say what is right; the server speaks in bytes,
so that it can say what no HTTP library would; every thread and socket that is opened is closed again.

A driver opens a client for a config, and that client has `call`, `upload` and `download`. Most tests run on
`DRIVERS`, and those of the loops stand in tests/drivers; what must be the same to the letter runs on all.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import trio

from agentrun_proto import AgentRunClientError, Config, Head, Origin, Retry
from agentrun_transports import AsyncioClient, BlockingClient, TrioClient
from agentrun_transports._network import Connect, Read, Run, Wait, Write
from agentrun_transports._wire import Wire

PATIENCE = 30.0  # seconds that a test waits for what must come at once; never reached unless something hangs

# --- what a scripted peer does


@dataclass(frozen=True)
class Say:
    """Send bytes: at once, or one by one."""

    data: bytes


@dataclass(frozen=True)
class Repeat:
    """Send bytes again and again until the client has gone or `times` is reached."""

    data: bytes
    times: int | None = None
    pause: float = 0.0


class Close:
    """Close the connection; what was received and not read is read first, so that no reset goes out."""


class Reset:
    """Reset the connection (SO_LINGER of 0)."""


class Rudely:
    """Close without reading what is there: the kernel answers with a reset."""


class Stall:
    """Keep the connection open and do nothing, until the server is closed."""


@dataclass(frozen=True)
class Pause:
    """Wait until the event is set."""

    event: threading.Event


@dataclass(frozen=True)
class Announce:
    """Set the event."""

    event: threading.Event


class BeforeBody:
    """As the first step: what follows happens when the head has arrived, and the body is not read."""


class Drain:
    """After `BeforeBody`: read the body of the request and keep nothing of it."""


def answer(
    body: bytes | dict[str, Any], status: str = "200 OK", fields: str = "", *, length: int | None = None
) -> bytes:
    """A plain answer."""
    content = json.dumps(body).encode() if isinstance(body, dict) else body
    head = (
        f"HTTP/1.1 {status}\r\n{fields}Content-Length: {len(content) if length is None else length}\r\n\r\n"
    )
    return head.encode("latin-1") + content


@dataclass
class Received:
    """A request as it came over the wire."""

    connection: int
    head: bytes
    body: bytes

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode()

    @property
    def target(self) -> str:
        return self.head.split(b" ", 2)[1].decode()

    @property
    def lines(self) -> list[tuple[str, str]]:
        found = []
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            if line:
                name, _, value = line.partition(":")
                found.append((name, value.strip()))
        return found


class RawServer:
    """A server that plays scripts. The n-th request, on whatever connection, is answered by the n-th script.

    When the scripts are over, each request is answered with its own target, so that every call can tell
    whether it got its own answer. A script that ends leaves the connection open for the next request.
    """

    def __init__(
        self,
        *scripts: Any,
        bytewise: bool = False,
        context: ssl.SSLContext | None = None,
        unix_socket: str | None = None,
        host: str = "127.0.0.1",
        on_accept: Callable[[socket.socket], None] | None = None,
        greet: tuple[Any, ...] = (),
    ) -> None:
        self._scripts = [
            script if isinstance(script, (tuple, list)) else (Say(script),) for script in scripts
        ]
        self._bytewise = bytewise
        self._context = context
        self._on_accept = on_accept
        self._greet = greet
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._socks: list[socket.socket] = []
        self._closing = threading.Event()
        self.requests: list[Received] = []
        self.connections = 0
        self.received_bytes = 0
        self.failures: list[BaseException] = []
        if unix_socket is None:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._listener = socket.create_server((host, 0), family=family, backlog=128)
            self.port = self._listener.getsockname()[1]
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(unix_socket)
            self._listener.listen(128)
            self.port = 0
        self.host = f"[{host}]" if ":" in host else host
        self._start(self._accept)

    @property
    def url(self) -> str:
        scheme = "http" if self._context is None else "https"
        return f"{scheme}://{self.host}:{self.port}"

    def config(self, **settings: Any) -> Config:
        return Config(**{"data_endpoint": self.url, "timeout": PATIENCE, "retry": Retry.never(), **settings})

    def __enter__(self) -> RawServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        assert not self.failures, self.failures

    def close(self) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            socks = list(self._socks)
        for sock in socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a connection of the test's server does not end"
        for sock in socks:
            sock.close()

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        def guarded() -> None:
            try:
                target(*args)
            except (OSError, ValueError) as error:  # ValueError: a closed file descriptor
                if not isinstance(error, OSError) and not self._closing.is_set():
                    self.failures.append(error)
            except BaseException as error:  # reported by close
                self.failures.append(error)

        thread = threading.Thread(target=guarded, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            with self._lock:
                if self._closing.is_set():
                    sock.close()
                    return
                number = self.connections
                self.connections += 1
                self._socks.append(sock)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._start(self._serve, sock, number)

    def _serve(self, sock: socket.socket, number: int) -> None:
        if self._on_accept is not None:
            self._on_accept(sock)
        if self._context is not None:
            plain = sock
            sock = self._context.wrap_socket(plain, server_side=True)
            with self._lock:
                self._socks.append(sock)
        with closing(sock):
            if self._greet and not self._play(sock, self._greet):
                return
            pending = bytearray()
            while self._serve_one(sock, number, pending):
                pass

    def _serve_one(self, sock: socket.socket, number: int, pending: bytearray) -> bool:
        while b"\r\n\r\n" not in pending:
            if not self._receive(sock, pending):
                return False
        head, _, _rest = bytes(pending).partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        del pending[: len(head) + 4]
        with self._lock:
            script = self._scripts.pop(0) if self._scripts else None
        early = bool(script) and isinstance(script[0], BeforeBody)
        received = Received(number, head + b"\r\n\r\n", b"")
        if not early:
            while len(pending) < length:
                if not self._receive(sock, pending):
                    received.body = bytes(pending)
                    with self._lock:
                        self.requests.append(received)
                    return False
            received.body = bytes(pending[:length])
            del pending[:length]
        with self._lock:
            self.requests.append(received)
        if script is None:
            sock.sendall(answer({"target": received.target}))
            return True
        if early and isinstance(script[1], Drain):
            left = length - len(pending)
            pending.clear()
            while left > 0:
                left -= len(sock.recv(min(left, 65536)))
            script = script[1:]
        return self._play(sock, script[1:] if early else script)

    def _receive(self, sock: socket.socket, pending: bytearray) -> bool:
        data = sock.recv(65536)
        self.received_bytes += len(data)
        pending += data
        return bool(data)

    def _play(self, sock: socket.socket, script: Any) -> bool:
        try:
            return self._perform(sock, script)
        finally:
            for step in script:  # nobody waits for what a client that went away has cut short
                if isinstance(step, Announce):
                    step.event.set()

    def _perform(self, sock: socket.socket, script: Any) -> bool:
        for step in script:
            if isinstance(step, Say):
                self._say(sock, step.data)
            elif isinstance(step, Repeat):
                count = 0
                while (step.times is None or count < step.times) and not self._closing.is_set():
                    sock.sendall(step.data)
                    count += 1
                    if step.pause:
                        self._closing.wait(step.pause)
            elif isinstance(step, Pause):
                assert step.event.wait(PATIENCE)
            elif isinstance(step, Announce):
                step.event.set()
            elif isinstance(step, Close):
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass
                return False
            elif isinstance(step, Reset):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
                return False
            elif isinstance(step, Rudely):
                sock.close()
                return False
            elif isinstance(step, Stall):
                self._closing.wait(PATIENCE)
                return False
            else:
                raise AssertionError(f"no such step: {step!r}")
        return True

    def _say(self, sock: socket.socket, data: bytes) -> None:
        if self._bytewise:
            for position in range(len(data)):
                sock.sendall(data[position : position + 1])
        else:
            sock.sendall(data)


def reset_on_close(sock: socket.socket) -> None:
    """Makes the close of a socket a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


# --- the drivers


class Client(Protocol):
    """What the tests ask of a client, whatever drives it."""

    def call(self, method: str, path: str, **arguments: Any) -> Any: ...
    def upload(self, path: str, local: Any, target: str, **arguments: Any) -> Any: ...
    def download(self, path: str, save_path: Any, **arguments: Any) -> Any: ...
    def open_connections(self) -> int: ...
    def idle_connections(self) -> int: ...


class Driver(Protocol):
    """Opens clients."""

    name: str

    def client(self, config: Config, **options: Any) -> contextlib.AbstractContextManager[Client]: ...


class _BlockingClient:
    def __init__(self, client: BlockingClient) -> None:
        self._client = client

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        if method in ("HEAD", "OPTIONS"):
            return self._client.request(method, path, **arguments).raise_for_status().content
        return getattr(self._client, method.lower())(path, **arguments)

    def upload(self, path: str, local: Any, target: str, **arguments: Any) -> Any:
        return self._client.post_file(path, local, target, **arguments)

    def download(self, path: str, save_path: Any, **arguments: Any) -> Any:
        return self._client.get_file(path, save_path, **arguments)

    def open_connections(self) -> int:
        return self._client._session.pool.open

    def idle_connections(self) -> int:
        return len(self._client._session.pool.idle)


class BlockingDriver:
    name = "blocking"

    @contextmanager
    def client(self, config: Config, **options: Any) -> Iterator[Client]:
        with BlockingClient(config, **options) as client:
            yield _BlockingClient(client)


class _LoopClient:
    """A client of an event loop, which `wait` runs as long as a call takes."""

    def __init__(self, client: Any, wait: Callable[..., Any]) -> None:
        self._client, self._wait = client, wait

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        async def call() -> Any:
            if method in ("HEAD", "OPTIONS"):
                return (await self._client.request(method, path, **arguments)).raise_for_status().content
            return await getattr(self._client, method.lower())(path, **arguments)

        return self._wait(call)

    def upload(self, path: str, local: Any, target: str, **arguments: Any) -> Any:
        async def upload() -> Any:
            return await self._client.upload(path, local, target, **arguments)

        return self._wait(upload)

    def download(self, path: str, save_path: Any, **arguments: Any) -> Any:
        async def download() -> Any:
            return await self._client.download(path, save_path, **arguments)

        return self._wait(download)

    def _pool(self) -> Any:
        (session,) = self._client._sessions._by_loop.values()
        return session.pool

    def open_connections(self) -> int:
        return int(self._pool().open)

    def idle_connections(self) -> int:
        return len(self._pool().idle)


class AsyncioDriver:
    name = "asyncio"

    @contextmanager
    def client(self, config: Config, **options: Any) -> Iterator[Client]:
        client, loop = AsyncioClient(config, **options), asyncio.new_event_loop()
        try:
            yield _LoopClient(client, lambda function: loop.run_until_complete(function()))
        finally:
            loop.run_until_complete(client.aclose())
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()


class TrioDriver:
    """A trio run in a thread, asked from outside."""

    name = "trio"

    @contextmanager
    def client(self, config: Config, **options: Any) -> Iterator[Client]:
        client, started = TrioClient(config, **options), queue.Queue[Any]()

        async def main() -> None:
            over = trio.Event()
            started.put((trio.lowlevel.current_trio_token(), over))
            await over.wait()
            await client.aclose()

        thread = threading.Thread(target=trio.run, args=(main,))
        thread.start()
        token, over = started.get()
        try:
            yield _LoopClient(client, lambda function: trio.from_thread.run(function, trio_token=token))
        finally:
            trio.from_thread.run_sync(over.set, trio_token=token)
            thread.join(PATIENCE)


DRIVERS: tuple[Driver, ...] = (BlockingDriver(),)
LOOP_DRIVERS: tuple[Driver, ...] = (AsyncioDriver(), TrioDriver())


def assert_next_call_is_right(client: Client, number: int = 7) -> None:
    """The next call on this client gets its own answer; and the one after it."""
    for n in (number, number + 1):
        assert client.call("GET", "own", query={"n": n})["target"].endswith(f"/own?n={n}")
    assert client.open_connections() == client.idle_connections()


# --- time and network, in memory


class TurnedClock:
    """A clock that stands still until it is turned."""

    def __init__(self, wall: float = 1772798400.0, monotonic: float = 1000.0) -> None:
        self.wall = wall
        self.time = monotonic

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.time


ORIGIN = Origin("http", "h", 80)


@dataclass(eq=False)
class FakeLink:
    """A connection in memory; `incoming` is what the peer has said and nobody has read."""

    origin: Origin = ORIGIN
    wire: Wire = field(default_factory=Wire)
    used: bool = False
    idle_since: float = 0.0
    incoming: bytearray = field(default_factory=bytearray)
    ended: bool = False
    aborted: int = 0
    sent: bytearray = field(default_factory=bytearray)

    def abort(self) -> None:
        self.aborted += 1

    def take_in(self) -> int | None:
        if not self.incoming:
            return 0 if self.ended else None
        return self.read()

    def read(self) -> int:
        room = self.wire.get_buffer()
        count = min(len(room), len(self.incoming))
        room[:count] = self.incoming[:count]
        del self.incoming[:count]
        self.wire.received(count)
        return count


class FakeNetwork:
    """Performs network commands in memory.

    Args:
        clock: turned forward by `seconds(command)` for each command, and to the deadline if that comes first,
            which is then a TimeoutError, as on every real network.
        reply: called with a request once it is complete; what it returns is what the link will receive.
        fail: called with the number of each command and the command; may return an exception to raise instead
            of performing it, or ``GeneratorExit`` to stop there, as a cancellation does.
    """

    def __init__(
        self,
        clock: TurnedClock,
        reply: Callable[[bytes], bytes],
        *,
        seconds: Callable[[Any], float] = lambda command: 0.0,
        fail: Callable[[int, Any], Any] = lambda number, command: None,
        read_size: int = 65536,
        write_size: int = 2**31,
    ) -> None:
        self.write_size = write_size
        self.clock = clock
        self.reply = reply
        self.seconds = seconds
        self.fail = fail
        self.read_size = read_size
        self.number = 0
        self.log: list[Any] = []
        self.links: list[FakeLink] = []
        self.requests: list[bytes] = []

    def drive(self, steps: Any) -> Any:
        command = steps.send(None)
        while True:
            try:
                planned = self.fail(self.number, command)
                self.number += 1
                self.log.append(command)
                try:
                    if planned is GeneratorExit:
                        steps.close()
                        raise Cancelled
                    if planned is not None:
                        if isinstance(command, (Write, Read)) and not isinstance(planned, TimeoutError):
                            command.link.ended = True  # what is broken stays broken
                        raise planned
                    self._spend(command)
                    reply = self._perform(command)
                except (OSError, AgentRunClientError) as error:
                    command = steps.throw(error)
                else:
                    command = steps.send(reply)
            except StopIteration as stop:
                return stop.value

    def _spend(self, command: Any) -> None:
        deadline = getattr(command, "deadline", float("inf"))
        end = self.clock.time + self.seconds(command)
        if end >= deadline:
            self.clock.time = max(self.clock.time, deadline)
            raise TimeoutError
        self.clock.time = end

    def _perform(self, command: Any) -> Any:
        if isinstance(command, Connect):
            link = FakeLink(origin=command.origin)
            self.links.append(link)
            return link
        if isinstance(command, Run):
            return command.function()
        if isinstance(command, Wait):
            if not command.ticket.ready:
                raise AssertionError("the test's flow would wait for ever")
            return None
        link = command.link
        assert not link.aborted, "a closed connection is used"
        if isinstance(command, Write):
            count = min(len(command.data), self.write_size)
            link.sent += command.data[:count]
            self._note_requests(link)
            return count
        assert isinstance(command, Read)
        if not link.incoming:
            assert link.ended, "the test's flow reads what never comes"
            return 0
        later = link.incoming[self.read_size :]
        del link.incoming[self.read_size :]
        count = link.read()
        link.incoming += later
        return count

    def _note_requests(self, link: FakeLink) -> None:
        head, found, rest = bytes(link.sent).partition(b"\r\n\r\n")
        if not found:
            return
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        if len(rest) >= length:
            request = head + b"\r\n\r\n" + rest[:length]
            self.requests.append(request)
            link.sent = bytearray(rest[length:])
            link.incoming += self.reply(request)


class Cancelled(Exception):
    """The flow was cancelled by the test."""


def steady(seconds: float) -> float:
    """A monotonic deadline that many seconds from now."""
    return time.monotonic() + seconds


# --- the wire, driven by hand


@dataclass(frozen=True)
class Reading:
    """What a reader made of the bytes of an answer."""

    status: int
    fields: tuple[tuple[str, str], ...]
    content: bytes
    reusable: bool
    head: Head = field(compare=False)


def read_wire(
    pieces: Iterator[bytes],
    method: str = "GET",
    *,
    ended: bool = False,
    limit: int = 64 * 1024 * 1024,
    wire: Wire | None = None,
    room: int | None = None,
) -> Reading | None:
    """Reads an answer with Wire, given the pieces in which it arrives; None if it needs more than there is.

    Works as a network does: at most what the buffer takes at a time, and what it does not ask for stays with
    the peer, where it counts against reuse. The content is taken at once, as a call does; with a `room`, as
    a download does, into so many bytes at a time; or as a stream does, as it comes, where that is 0.
    """
    wire = Wire() if wire is None else wire
    wire.begin(method)
    waiting = b""
    source = iter(pieces)

    def more() -> bool:
        nonlocal waiting
        while not waiting:
            piece = next(source, None)
            if piece is None:
                if ended:
                    wire.end_of_stream()
                    return True
                return False
            waiting = piece
        room = wire.get_buffer()
        assert len(room), "the wire asks for bytes and has no room for them"
        count = min(len(room), len(waiting))
        room[:count] = waiting[:count]
        waiting = waiting[count:]
        wire.received(count)
        return True

    while (head := wire.read_head()) is None:
        if not more():
            return None
    content = b""
    if room is None:
        while (found := wire.read_all(limit)) is None:
            if not more():
                return None
        content = found
    elif room:
        space = memoryview(bytearray(room))
        while not wire.done:
            count = wire.fill(space)
            if count is not None:
                assert count <= room
                content += space[:count]
            elif not more():
                return None
    else:
        while (piece := wire.read_some()) != b"":
            if piece is not None:
                content += piece
            elif not more():
                return None
    left_over = waiting or any(source)
    return Reading(head.status, head.headers.fields, content, wire.reusable and not left_over, head)
